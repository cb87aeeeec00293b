"""Where the live page's runtime comes from, and what happens where it does not come: book/live_build.py without a network."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
import live_build  # noqa: E402


def archive() -> bytes:
    """A package with the two files that are used, as npm packs them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in (live_build.SCRIPT, live_build.WASM):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return packed.getvalue()


@pytest.fixture
def kept(tmp_path, monkeypatch) -> tuple[Path, bytes]:
    """A place to keep the archive, the archive whose checksum is known, and nowhere to fetch it from."""
    known = archive()
    monkeypatch.setattr(live_build, "KEPT", tmp_path / "share" / "runtime.tgz")
    monkeypatch.setattr(live_build, "SHA512", base64.b64encode(hashlib.sha512(known).digest()).decode())
    monkeypatch.setattr(live_build.shutil, "which", lambda name: None)
    monkeypatch.setattr(live_build.urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked the network"))
    return live_build.KEPT, known


def test_the_runtime_is_fetched_once(kept, monkeypatch):
    path, known = kept
    monkeypatch.setattr(live_build, "fetched", lambda: known)
    assert live_build.runtime() == {"runtime": live_build.SCRIPT.encode(), "wasm": live_build.WASM.encode()}
    monkeypatch.setattr(live_build, "fetched", lambda: pytest.fail("fetched again"))
    assert live_build.runtime()["wasm"] and path.read_bytes() == known


def test_a_damaged_archive_is_fetched_again(kept, monkeypatch):
    path, known = kept
    path.parent.mkdir()
    path.write_bytes(known[:100])
    monkeypatch.setattr(live_build, "fetched", lambda: known)
    assert live_build.runtime()["runtime"] and path.read_bytes() == known


@pytest.mark.parametrize("packs", [True, False])
def test_npm_packs_into_a_folder_of_its_own_and_without_a_file_the_registry_is_asked(kept, monkeypatch, packs):
    def npm(order, cwd, **_):
        (Path(cwd) / "runtime.tgz").write_bytes(known) if packs else None
        return SimpleNamespace(returncode=0, stderr="")

    _, known = kept
    monkeypatch.setattr(live_build.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(live_build.subprocess, "run", npm)
    monkeypatch.setattr(live_build.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"from the registry"))
    assert live_build.fetched() == (known if packs else b"from the registry")


WRONG = [OSError("x"), http.client.IncompleteRead(b"x"), subprocess.TimeoutExpired("npm", 1), ValueError("x")]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
@pytest.mark.parametrize("demanded", ["", "1"])
def test_whatever_goes_wrong_is_a_warning_unless_the_runtime_is_demanded(kept, monkeypatch, tmp_path, capsys, wrong, demanded):
    def cut() -> bytes:
        raise wrong

    def notices() -> str:
        assert not (tmp_path / "facts.js").exists(), "the sign that all is there comes last"
        return "MIT"

    monkeypatch.setattr(live_build, "fetched", cut)
    monkeypatch.setattr(live_build, "notices", notices)
    net = SimpleNamespace(name="n", side=8, mean=[0], std=[1], classes=["a"])
    for name, made in {"lite_model": b"model", "sample_files": ({}, []), "linear_facts": {}, "colours": ""}.items():
        monkeypatch.setattr(live_build, name, lambda *_, made=made: made)
    monkeypatch.setattr(live_build.models, "load", lambda name: net)
    monkeypatch.setattr(live_build.build, "__defaults__", (tmp_path,))
    monkeypatch.setenv("SEEING_WHY_REQUIRE_RUNTIME", demanded)
    if demanded:
        with pytest.raises(SystemExit, match="could not be had"):
            live_build.main()
    else:
        live_build.main()
    assert "WARNING" in capsys.readouterr().err and (tmp_path / "facts.js").stat().st_mtime == 0
