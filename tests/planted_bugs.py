"""Plant one bug at a time in a copy of the package and see whether its tests notice.

    python tests/planted_bugs.py             # all of them, half an hour on two cores
    python tests/planted_bugs.py sise cam    # those of some files in tests/planted

A bug stands in tests/planted/<module>.toml: what it is about, and which text of which file becomes which.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def planted(only: list[str] | None = None) -> list[dict[str, str]]:
    """All bugs: names (methods or metrics, several split by blanks), kind, file, old, new, tests (what pytest is given)."""
    bugs = []
    for path in sorted((ROOT / "tests" / "planted").glob("*.toml")):
        if not only or path.stem in only:
            bugs += [bug | {"from": path.name} for bug in tomllib.loads(path.read_text(encoding="utf-8"))["bug"]]
    return bugs


def broken(bug: dict[str, str]) -> str:
    """The text of the file with the bug in it. Errors: ValueError unless the old text stands there exactly once."""
    text = (ROOT / bug["file"]).read_text(encoding="utf-8")
    if text.count(bug["old"]) != 1:
        raise ValueError(f"{bug['from']}: {bug['old']!r} stands {text.count(bug['old'])} times in {bug['file']}; expected once")
    return text.replace(bug["old"], bug["new"])


def caught(bug: dict[str, str]) -> bool:
    """Does a test fail once the bug is in? A bug whose new text is the old one shows whether the tests pass without any.

    Errors: RuntimeError if the tests could not be run at all.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "book"
        for name in ("helpers", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("data", "book", "pyproject.toml"):
            (copy / name).symlink_to(ROOT / name)
        (copy / bug["file"]).write_text(broken(bug), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *bug["tests"].split()]
        settings = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=copy, env=settings, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{bug['from']}: pytest could not run {bug['tests']}:\n{done.stdout[-2000:]}{done.stderr[-1000:]}")
    return done.returncode == 1


def main() -> int:
    bugs = planted(sys.argv[1:])
    with ThreadPoolExecutor(2) as pool:
        whole = {bug["tests"]: bug | {"new": bug["old"]} for bug in bugs}
        if red := [tests for tests, failed in zip(whole, pool.map(caught, whole.values()), strict=True) if failed]:
            sys.exit(f"these fail without any bug: {', '.join(red)}")
        found = []
        for bug, noticed in zip(bugs, pool.map(caught, bugs), strict=True):
            found.append(noticed)
            print(f"{'caught' if noticed else 'MISSED':<7} {bug['names']:<40} {bug['kind']}", flush=True)
    print(f"{sum(found)} of {len(bugs)} planted bugs were caught")
    return int(not bugs or not all(found))


if __name__ == "__main__":
    sys.exit(main())
