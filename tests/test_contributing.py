"""What helps a contributor: the chapter template runs and passes every guard, hooks and templates are what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
for folder in ("book", "book/_ext", "tests"):
    sys.path.insert(0, str(ROOT / folder))
import guard_files  # noqa: E402
import new_chapter  # noqa: E402
import quiz  # noqa: E402
import test_book as guards  # noqa: E402

RUFF = [str(Path(sys.executable).parent / "ruff")]


# --- the chapter template ------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    notebook, *_ = new_chapter.write("97_tiny", "A tiny chapter", "selvaraju2017gradcam", book=tmp_path)
    return notebook


def sections(path: Path) -> list[str]:
    texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    return [heading for text in texts for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)]


def test_a_new_chapter_has_the_order_of_all_chapters(fresh):
    wanted = ["The idea in pictures", "The equations", "By hand", "Real photographs", "Against ground truth", "Beside the paper"]
    wanted += ["Ablations", "Paper, code and arithmetic", "Sanity strip", "Strengths and limits", "Exercises"]
    assert sections(fresh) == [*wanted, "Check yourself", "Papers of this chapter"]
    text = "\n".join(cell.source for cell in nbformat.read(fresh, as_version=4).cells)
    assert "chapter-card" in text and "Take-away" in text and "assert_close(by_hand, helper)" in text and "getsource" in text


def test_a_new_chapter_passes_what_needs_no_run(fresh):
    nb = nbformat.read(fresh, as_version=4)
    nbformat.validate(nb)
    for guard in (guards.known_tags, guards.parameters_first, guards.standard_parameters, guards.python3_kernel):
        assert guard(nb) == []
    for guard in (guards.no_class_numbers, guards.markdown_images_described, guards.no_walls_of_code, guards.not_too_large):
        assert guard(nb) == []
    for command in (["check"], ["format", "--check"]):
        result = subprocess.run(
            [*RUFF, *command, "--config", str(ROOT / "pyproject.toml"), str(fresh)], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout
    questions = quiz.read(fresh.parent / "quizzes/97_tiny.yaml")
    assert {question["see"] for question in questions} <= set(sections(fresh))


def test_it_is_said_what_lecturers_need_of_a_new_chapter(monkeypatch, capsys):
    monkeypatch.setattr(new_chapter, "write", lambda *_: [])
    monkeypatch.setattr(sys, "argv", ["new_chapter.py", "97_tiny", "T"])
    new_chapter.main()
    said = capsys.readouterr().out
    assert all(name in said for name in ("answers.py", "plans.yaml", "discussion.md", "index.md"))


@pytest.mark.slow
@pytest.mark.notebook
def test_a_new_chapter_runs_and_passes_every_guard(fresh):
    """As `make outputs` and `make run` would do it."""
    command = ["nbconvert", "--to", "notebook", "--execute", "--inplace", "--ExecutePreprocessor.record_timing=False"]
    subprocess.run([sys.executable, "-m", "jupyter", *command, str(fresh)], check=True, capture_output=True, timeout=600)
    nb = nbformat.read(fresh, as_version=4)
    assert [problem for guard in guards.EVERY for problem in guard(nb)] == []
    profile = yaml.safe_load((fresh.parent / "profiles/smoke/97_tiny.yaml").read_text(encoding="utf-8"))
    assert set(profile) <= set(guards.literals(guards.code_cells(nb)[0].source))


@pytest.mark.parametrize("name", ["topic", "7_topic", "07-topic", "07_Topic", "../07_topic"])
def test_a_bad_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="07_my_topic"):
        new_chapter.write(name, "T", book=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(fresh):
    before = fresh.read_bytes()
    with pytest.raises(FileExistsError):
        new_chapter.write("97_tiny", "Another", book=fresh.parent)
    assert fresh.read_bytes() == before


# --- files ----------------------------------------------------------------------------------------------------------------


def test_the_repository_has_no_file_that_should_not_be_in_it():
    assert guard_files.problems(guard_files.of_repository()) == []


def test_a_large_file_and_a_half_done_merge_are_found(tmp_path):
    for name, content in {
        "a.bin": b"x" * 1_000_001,
        "b.py": b"a = 1\n<<<<<<< HEAD\n",
        "c.csv": b"A\n=======\n",
        "d.md": b"a <<<<<<< b\n\nHeading\n=======\n",
    }.items():
        (tmp_path / name).write_bytes(content)
    found = guard_files.problems(sorted(tmp_path.iterdir()), tmp_path)
    assert [line.split()[0] for line in found] == ["a.bin", "b.py", "c.csv"]
    assert guard_files.problems([tmp_path / "absent"], tmp_path) == []


def test_every_file_that_may_be_large_is_there():
    assert [name for name in guard_files.MAY_BE_LARGE if not (ROOT / name).exists()] == []


# --- hooks, templates, settings ----------------------------------------------------------------------------------------------


def test_hooks_use_the_pinned_tools_and_fetch_nothing():
    config = yaml.safe_load((ROOT / ".github/pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}
    assert {"ruff", "ruff-format", "codespell", "large-files", "notebooks"} == set(hooks)
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in hooks.values())
    named = [word for hook in hooks.values() for word in hook["entry"].split() if word.startswith(("tests/", "book/"))]
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_the_hooks_choice_of_tests_is_not_empty():
    """A `-k` that matches nothing would pass whatever is committed."""
    text = (ROOT / ".github/pre-commit-config.yaml").read_text(encoding="utf-8")
    names = re.search(r'-k "([^"]+)"', text)
    assert names
    written = (ROOT / "tests/test_book.py").read_text(encoding="utf-8")
    assert [
        part for part in names.group(1).split(" or ") if not re.search(rf"def test\w*{part.removeprefix('test')}", written)
    ] == []


def test_the_spelling_hook_reads_the_files_that_make_check_reads(tmp_path):
    """The hook names files as git does, `codespell` alone finds them as ./name."""
    skipped = ["LICENSE-TEXT", "constraints.txt", "data/papers/a.csv", "book/words.txt", "book/a.js"]
    for name in [*skipped, "book/a.md", "data/a.csv"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("recieve\n", encoding="utf-8")  # codespell:ignore
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(re.sub(r"(?m)^ignore-words = .*$", "", settings), encoding="utf-8")
    for names in ([], [*skipped, "book/a.md", "data/a.csv"]):
        command = [str(Path(sys.executable).parent / "codespell"), *names]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
        assert {line.split(":")[0].removeprefix("./") for line in said.splitlines()} == {"book/a.md", "data/a.csv"}


def test_words_of_ours_are_listed_once_and_in_order():
    words = (ROOT / "book/words.txt").read_text(encoding="utf-8").split("\n")
    assert words[-1] == "" and words[:-1] == sorted({word.strip().lower() for word in words[:-1]})


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_an_issue_template_can_be_filled_in(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["type"] in ("input", "textarea", "dropdown") and field["attributes"]["label"] for field in form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_what_the_templates_name_exists():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / ".github").rglob("*") if path.suffix in (".md", ".yml")]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {target for text in texts for target in re.findall(r"`make ([a-z]+)", text)}
    assert named and named <= targets
    paths = {name for text in texts for name in re.findall(r"`((?:book|tests|data)/[\w./-]+)`", text)}
    assert paths and [name for name in paths if not (ROOT / name).exists()] == []
