"""Every chapter runs with its smoke profile, and an unknown parameter stops it, whichever way it is started."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.parameters import check

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
CHAPTERS = sorted(path.stem for path in BOOK.glob("[0-9][0-9]_*.ipynb"))
PROFILES = sorted(BOOK.glob("profiles/*/*.yaml"))


def load_runner() -> ModuleType:
    """book/run.py as a module; book/ is no package."""
    spec = importlib.util.spec_from_file_location("book_run", BOOK / "run.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = load_runner()


def without_profile(chapters: list[str], book: Path) -> list[str]:
    """Chapters 01 and up that have no smoke profile."""
    return [name for name in chapters if not name.startswith("00") and not (book / "profiles/smoke" / f"{name}.yaml").is_file()]


def tiny_book(folder: Path, body: str = "print('images', N_IMAGES)") -> Path:
    """A book of one chapter, `99_tiny`, with the two cells that every chapter starts with and a smoke profile."""
    cells = [
        new_code_cell('MODEL = "lite0"\nN_IMAGES = 2', metadata={"tags": ["parameters"]}),
        new_code_cell("from helpers.parameters import only_known\n\nonly_known(globals())"),
        new_code_cell(body),
    ]
    notebook = new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    (folder / "profiles/smoke").mkdir(parents=True)
    nbformat.write(notebook, folder / "99_tiny.ipynb")
    (folder / "profiles/smoke/99_tiny.yaml").write_text("N_IMAGES: 1\n", encoding="utf-8")
    return folder


def output_of(path: Path) -> str:
    return "".join(out.get("text", "") for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", []))


def papermill(book: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The plain papermill command on the tiny book, as a reader would type it."""
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(book / "99_tiny.ipynb"),
        str(book / "out.ipynb"),
        "--no-progress-bar",
        *arguments,
    ]
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_there_are_chapters_and_each_has_a_smoke_profile():
    assert CHAPTERS
    assert without_profile(CHAPTERS, BOOK) == []


def test_a_missing_smoke_profile_is_noticed(tmp_path):
    assert without_profile(["00_quickstart", "99_tiny"], tmp_path) == ["99_tiny"]
    assert without_profile(["99_tiny"], tiny_book(tmp_path)) == []


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_profile_sets_parameters_that_its_chapter_has(path):
    assert path.stem in CHAPTERS
    check(runner.profile_of(path.parent.name, path.stem), runner.defaults_of(BOOK / f"{path.stem}.ipynb"))


@pytest.mark.notebook
@pytest.mark.slow
@pytest.mark.parametrize("chapter", [path.stem for path in PROFILES if path.parent.name == "smoke"])
def test_chapter_runs_with_its_smoke_profile(chapter, tmp_path):
    done = runner.run(chapter, "smoke", {}, tmp_path)
    cells = [cell for cell in nbformat.read(done, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells)


@pytest.mark.notebook
def test_the_kernel_is_the_one_of_this_environment(tmp_path):
    book = tiny_book(tmp_path, "import sys\n\nprint(sys.prefix)")
    done = runner.run("99_tiny", "smoke", {}, tmp_path / "out", book)
    assert Path(output_of(done).strip()) == Path(sys.prefix)


@pytest.mark.notebook
def test_runner_uses_the_profile_and_lets_a_given_value_win(tmp_path):
    book = tiny_book(tmp_path)
    assert output_of(runner.run("99_tiny", "smoke", {}, tmp_path / "a", book)) == "images 1\n"
    assert output_of(runner.run("99_tiny", "smoke", {"N_IMAGES": 7}, tmp_path / "a", book)) == "images 7\n"
    assert output_of(runner.run("99_tiny", "default", {}, tmp_path / "b", book)) == "images 2\n"


@pytest.mark.notebook
def test_a_failed_run_leaves_no_finished_notebook(tmp_path):
    book = tiny_book(tmp_path, "1 / 0")
    with pytest.raises(runner.papermill.PapermillExecutionError):
        runner.run("99_tiny", "smoke", {}, tmp_path / "out", book)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["99_tiny.failed.ipynb"]


@pytest.mark.parametrize(
    ("chapter", "profile", "given", "error", "words"),
    [
        ("99_tiny", "smoke", {"N_IMAGE": 3}, NameError, "Did you mean N_IMAGES"),
        ("99_tiny", "smoke", {"N_IMAGES": "many"}, TypeError, "N_IMAGES"),
        ("99_tiny", "huge", {}, FileNotFoundError, "smoke"),
        ("98_other", "smoke", {}, FileNotFoundError, "99_tiny"),
    ],
)
def test_runner_refuses_before_it_starts_anything(tmp_path, chapter, profile, given, error, words):
    book = tiny_book(tmp_path)
    with pytest.raises(error, match=words):
        runner.run(chapter, profile, given, tmp_path / "out", book)
    assert not (tmp_path / "out").exists()


def test_runner_ends_with_a_line_and_not_a_traceback():
    with pytest.raises(SystemExit, match="no chapter 'nowhere'"):
        runner.main(["nowhere", "smoke"])


@pytest.mark.notebook
def test_plain_papermill_takes_known_parameters(tmp_path):
    result = papermill(tiny_book(tmp_path), "-p", "MODEL", "lite1", "-p", "N_IMAGES", "5")
    assert result.returncode == 0, result.stderr
    assert output_of(tmp_path / "out.ipynb") == "images 5\n"


@pytest.mark.notebook
@pytest.mark.parametrize(
    "arguments", [("-p", "N_IMAGE", "5"), ("-r", "MODLE", "lite1"), ("-y", "N_PICTURES: 3"), ("-p", "N_IMAGES", "many")]
)
def test_plain_papermill_fails_on_an_unknown_parameter(tmp_path, arguments):
    result = papermill(tiny_book(tmp_path), *arguments)
    assert result.returncode != 0
    assert "This chapter has no parameter" in result.stderr or "must be of type int" in result.stderr
    assert "images" not in output_of(tmp_path / "out.ipynb")
