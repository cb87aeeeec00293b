"""What lecturers get: plans that add up, assignments that mark right, slides of the chapters, a student build without solutions.

A guard is a function that returns one line for every problem; each is shown a bad example that it must object to.
"""

from __future__ import annotations

import ast
import copy
import csv
import json
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path[:0] = [str(BOOK / "teaching"), str(BOOK / "_ext")]

import assignments  # noqa: E402
import build  # noqa: E402
import course_plan  # noqa: E402
import grade  # noqa: E402
import slides  # noqa: E402
import students  # noqa: E402
from answers import ANSWERS, Answer  # noqa: E402
from myst import chapters, plain, role  # noqa: E402

CHAPTERS = chapters()
EXERCISES = {chapter: assignments.exercises_of(chapter) for chapter in CHAPTERS}
PLANS = course_plan.plans()
TEACHING = sorted((BOOK / "teaching").glob("*.md"))


def figures() -> set[str]:
    """Names of all figures of the book."""
    cells = [cell for path in BOOK.glob("*.ipynb") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    return {cell["metadata"]["mystnb"]["figure"]["name"] for cell in cells if "figure" in cell["metadata"].get("mystnb", {})}


# --- what students are not given ---------------------------------------------------------------------------------------

HINT = "```{dropdown} Hint\nLook twice.\n```"
SOLVED = "```{dropdown} Solution\nIt is the mean.\n```"
NOTE = ":::{admonition} To prepare\n:class: instructor\n* chalk\n:::"


@pytest.mark.parametrize(
    ("text", "kept", "hidden"),
    [
        ("a\n\nb", "a\n\nb", 0),
        (f"a\n\n{HINT}\n\nb", f"a\n\n{HINT}\n\nb", 0),
        (f"a\n\n{SOLVED}\n\nb", "a\n\nb", 1),
        (f"a\n\n{HINT}\n\n{SOLVED}", f"a\n\n{HINT}\n", 1),
        (f"{NOTE}\nb", "b", 1),
        (f"{NOTE}\n{SOLVED}", "", 2),
        ("```{dropdown} What is meant\n:class-container: x instructor y\ntold\n```\nb", "b", 1),
        ("````{dropdown} Solution\n```python\nx = 1\n```\n````\nb", "b", 1),
        (":::{dropdown} Solution\n:::{note}\nc\n:::\nd\n:::\nb", "b", 1),
        (f"::::{{grid}}\n{NOTE}\n::::", "::::{grid}\n::::", 1),
        ("the Solution is in `{dropdown}`", "the Solution is in `{dropdown}`", 0),
    ],
)
def test_hidden_blocks_go_and_all_else_stays(text, kept, hidden):
    found, blocks = students.split_markdown(text)
    assert (found, len(blocks)) == (kept, hidden)
    assert students.split_markdown(found) == (found, [])


def test_a_block_that_is_never_closed_is_an_error():
    with pytest.raises(ValueError, match="never closed"):
        students.split_markdown("```{dropdown} Solution\nhalf of it")


def solved_notebook() -> dict[str, Any]:
    """A notebook with an exercise and its solution, as JSON."""
    cell = {"metadata": {}, "outputs": [], "execution_count": 1}
    out = [{"output_type": "stream", "name": "stdout", "text": ["the secret number of this book is eleven\n"]}]
    return {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": f"**1. Try.**\n\n{SOLVED}"},
            {**cell, "cell_type": "code", "source": "my_n = None", "metadata": {"tags": ["exercise"]}},
            {
                **cell,
                "cell_type": "code",
                "source": ["n = 11\n", "n"],
                "metadata": {"tags": ["solution", "hide-cell"]},
                "outputs": out,
            },
        ],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def test_a_notebook_loses_its_solutions_with_what_they_printed():
    nb, hidden = students.split_notebook(solved_notebook())
    assert [cell["source"] for cell in nb["cells"]] == ["**1. Try.**", "my_n = None"]
    assert any("n = 11" in text for text in hidden) and any("eleven" in text for text in hidden)
    assert students.split_notebook(nb)[1] == []


@pytest.mark.parametrize("path", sorted((BOOK / "quizzes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_quiz_keeps_what_it_asks_and_loses_every_answer(path):
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    text, hidden = students.split_quiz(path.read_text(encoding="utf-8"))
    asked = yaml.safe_load(text)
    assert [q["ask"] for q in asked] == [q["ask"] for q in whole]
    assert [[c["text"] for c in q.get("choices", [])] for q in asked] == [
        [c["text"] for c in q.get("choices", [])] for q in whole
    ]
    assert {key for q in asked for part in students.parts_of(q) for key in part} <= {"name", "ask", "several", "choices", "text"}
    reasons = [part["because"] for q in whole for part in students.parts_of(q) if "because" in part]
    assert len(reasons) > 10 and set(reasons) <= set(hidden)


SECRET = "def shared(m): return m.double() / m.double().sum((1, 2), keepdim=True)"


def planted(folder: Path, name: str, text: str) -> list[str]:
    """What is found in a folder with a harmless page and one other file."""
    (folder / "page.html").write_text("<p>Sum the masks and divide. What would you divide by?</p>", encoding="utf-8")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return students.Secrets([SECRET, "It is the unforgettable mean."], ["Sum the masks and divide by m.double()"]).leaks(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", f"<pre>{SECRET}</pre>"),
        ("a.html", "<pre>" + re.sub(r"(\w+)", r"<span class='n'>\1</span>", SECRET) + "</pre>"),  # as highlighted code is
        ("a.html", "<div class='cell tag_solution'>nothing</div>"),
        ("a.html", "<details><summary class='x'><span>Solution</span></summary>hm</details>"),
        ("a.html", "<script>const s = 'def shared(m): return m.double() / m.double().sum((1, 2), keepdim=True)'</script>"),
        ("searchindex.js", 'Search.setIndex({"terms": {"unforgett": [1]}})'),
        ("_sources/a.txt", "anything"),
        ("a.py", SECRET),
        ("a.ipynb", json.dumps(solved_notebook())),
        ("a.md", SOLVED),
        ("a.md", "---\naudience: instructor\n---\nMarks."),
    ],
)
def test_a_leak_is_found(tmp_path, name, text):
    assert planted(tmp_path, name, text)


def test_sphinx_compressed_list_is_read(tmp_path):
    (tmp_path / "objects.inv").write_bytes(b"# one\n# two\n# three\n# four\n" + zlib.compress(SECRET.encode()))
    assert students.Secrets([SECRET], []).leaks(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", "<p>Sum the masks and divide by m.double()</p>"),
        ("a.md", HINT),
        ("searchindex.js", 'Search.setIndex({"terms": {"mask": [1]}})'),
        ("a.ipynb", json.dumps(students.split_notebook(solved_notebook())[0])),
    ],
)
def test_what_is_public_is_no_leak(tmp_path, name, text):
    assert planted(tmp_path, name, text) == []


def test_pages_that_are_left_out_leave_the_contents():
    toc = {"root": "r", "parts": [{"chapters": [{"file": "a", "sections": [{"file": "b"}]}]}, {"chapters": [{"file": "c"}]}]}
    assert students.without_pages(toc, {"b", "c"}) == {"root": "r", "parts": [{"chapters": [{"file": "a"}]}]}
    assert students.without_pages(toc, set()) == toc


@pytest.fixture(scope="module")
def student_copy(tmp_path_factory) -> tuple[Path, list[str]]:
    """The sources as students get them, with slides and assignments, and what was left out. No page is built."""
    out = tmp_path_factory.mktemp("student")
    hidden = build.copied(out / "course", "student")
    slides.write(out / "html/slides", CHAPTERS)
    assignments.write(out / "assignments/release", ANSWERS, source=False)
    return out, hidden


@pytest.fixture(scope="module")
def secrets(student_copy) -> students.Secrets:
    """What the build looks for."""
    out, hidden = student_copy
    return build.secrets(hidden, students.public_texts(out / "course"))


FOLD = re.compile(r"(?ms)^(`{3,}|:{3,})\{\w+\} Solution\b.*?^\1[ \t]*$")
NOTES = re.compile(r"(?ms)^(`{3,}|:{3,})\{\w+\}[^\n]*\n(?::[^\n]*\n)*?:class[^\n]*\binstructor\b.*?^\1[ \t]*$")
PREPARE = re.compile(r"^( +)prepare:\n(?:\1 +- .*\n)+", re.MULTILINE)


def told_apart(name: str) -> tuple[list[str], list[str]]:
    """What a file of the book tells instructors only, and what it tells all: read here in another way than the build reads it."""
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    if name.startswith("book/teaching/") and path.suffix == ".py":
        return [], []  # the answers in it are secrets by `build.secrets`, the rest is no text
    if "\naudience: instructor\n---" in text[:200]:
        return [text], []
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        solved = [cell for cell in cells if "solution" in cell["metadata"].get("tags", [])]
        shown = {True: [], False: []}
        for cell in cells:
            printed = ["".join(out.get("text", out.get("data", {}).get("text/plain", ""))) for out in cell.get("outputs", [])]
            shown[cell in solved] += ["".join(cell["source"]), *printed, json.dumps(cell["metadata"])]
        everything = "\n\n".join(shown[False])
        hidden = [found[0] for found in FOLD.finditer(everything)]
        return [*shown[True], *hidden], [FOLD.sub("", piece) for piece in shown[False]]
    if name.startswith("book/quizzes/"):
        parts = [part for q in yaml.safe_load(text) for part in (q, *q.get("choices", []), *q.get("wrong", []))]
        return [part[key] for part in parts for key in ("because", "otherwise") if key in part], [
            part[key] for part in parts for key in ("ask", "text", "see") if key in part
        ]
    if path.name == "plans.yaml":
        return [found[0] for found in PREPARE.finditer(text)], [PREPARE.sub("", text)]
    return [found[0] for found in NOTES.finditer(text)], [NOTES.sub("", text)]


@pytest.fixture(scope="module")
def independent() -> students.Secrets:
    """The same from the book itself: what the student's copy says is no proof that it may say it."""
    both = [told_apart(name) for name in build.tracked() if is_text(name)]
    return build.secrets([text for hidden, _ in both for text in hidden], [text for _, public in both for text in public])


def is_text(name: str) -> bool:
    return Path(name).suffix in students.TEXTS - {".csv"} and not any(library in name for library in students.LIBRARIES)


def test_the_sources_for_students_hold_no_solution(student_copy, independent):
    out, _ = student_copy
    assert len(independent.runs) > 1000, "so few secrets that nothing would be found"
    assert independent.leaks(out) == []
    names = {path.relative_to(out / "course").as_posix() for path in (out / "course").rglob("*")}
    assert not any(name.endswith(".py") and name.startswith("book/teaching/") for name in names)
    assert "because:" not in (out / "course/book/quizzes/05_sise.yaml").read_text(encoding="utf-8")
    assert "book/teaching/instructor.md" not in names and "book/teaching/discussion.md" in names
    assert not any(name.startswith(("tests/", ".git/")) for name in names)


@pytest.mark.parametrize(
    "name", ["05_sise.ipynb", "quizzes/05_sise.yaml", "teaching/discussion.md", "teaching/plans.yaml", "teaching/answers.py"]
)
def test_a_source_that_was_not_stripped_is_recognised_by_its_words(independent, tmp_path, name):
    path = Path(shutil.copy(BOOK / name, tmp_path))
    assert any("“" in leak for leak in independent.leaks_of(path, tmp_path))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_solution_of_a_chapter_would_be_recognised(secrets, tmp_path, chapter):
    """Each solution cell by itself, put where students could see it."""
    for n, cell in enumerate(assignments.notebook(chapter)["cells"]):
        if "solution" in students.tags_of(cell):
            (tmp_path / f"{n}.py").write_text(students.source_of(cell), encoding="utf-8")
    assert len(secrets.leaks(tmp_path)) == len(list(tmp_path.iterdir())) > 0


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A repository with one file of the book, one that is deleted, and a file and a data set beside them that nobody added."""
    (tmp_path / "book/imagenet").mkdir(parents=True)
    for name in ("chapter ä.md", "deleted.md", "exam.md", "imagenet/1.md", "imagenet/2.md"):
        (tmp_path / "book" / name).write_text("x", encoding="utf-8")
    for command in (["init", "-q"], ["add", "book/chapter ä.md", "book/deleted.md"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "book/deleted.md").unlink()
    monkeypatch.setattr(build, "ROOT", tmp_path)
    return tmp_path


def test_what_git_does_not_know_goes_to_nobody(clone, capsys):
    assert build.tracked() == ["book/chapter ä.md"]
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["book/exam.md", "book/imagenet/"]


def test_without_git_it_is_said_what_is_needed(clone, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(clone / "nowhere"))
    with pytest.raises(SystemExit, match="needs a clone"):
        build.tracked()


def test_the_instructors_copy_is_whole(tmp_path):
    assert build.copied(tmp_path, "instructor") == []
    for name in ("book/05_sise.ipynb", "book/teaching/instructor.md", "book/teaching/plans.yaml", "book/teaching/answers.py"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    config = yaml.safe_load((tmp_path / "_config.yml").read_text(encoding="utf-8"))
    assert config["execute"] == {"execute_notebooks": "off"} and config["sphinx"]["config"]["audience"] == "instructor"


def test_make_has_the_targets_that_the_pages_name():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        name for path in TEACHING for name in re.findall(r"(?:^|`)make ([a-z]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"student", "instructor", "bundle"} <= named <= targets


# --- course plans ------------------------------------------------------------------------------------------------------


def plan_problems(plan: dict[str, Any]) -> list[str]:
    """What does not add up in a plan, or leads nowhere."""
    problems = []
    for n, session in enumerate(plan["sessions"], 1):
        if course_plan.minutes(session) != plan["length"]:
            problems.append(f"session {n}: {course_plan.minutes(session)} minutes, not {plan['length']}")
        problems += [f"session {n} has no {what}" for what in ("goals", "prepare", "homework", "title") if not session[what]]
        problems += [
            f"session {n}: {b['how']!r} is no way to spend time" for b in session["blocks"] if b["how"] not in course_plan.WAYS
        ]
        for place in (place for block in session["blocks"] for place in block.get("read", [])):
            page, _, heading = place.partition("#")
            if heading not in course_plan.headings(page):
                problems.append(f"session {n}: there is no {place}")
    given = [place for session in plan["sessions"] for place in session["exercises"]]
    real = {f"{e.chapter}.{e.number}" for of in EXERCISES.values() for e in of}
    problems += [f"there is no exercise {place}" for place in given if place not in real]
    problems += [f"exercise {place} is given twice" for place in set(given) if given.count(place) > 1]
    read = {place.partition("#")[0] for s in plan["sessions"] for b in s["blocks"] for place in b.get("read", [])}
    return problems + [f"nothing is read of {chapter}" for chapter in CHAPTERS if chapter not in read]


def test_there_are_plans_for_four_eight_and_twelve_sessions():
    assert sorted(PLANS) == [4, 8, 12]
    pages = {n: (BOOK / f"teaching/plan_{n:02d}.md").read_text(encoding="utf-8") for n in PLANS}
    assert {n: [int(found) for found in course_plan.MARK.findall(text)] for n, text in pages.items()} == {n: [n] for n in PLANS}


@pytest.mark.parametrize("n", sorted(PLANS))
def test_a_plan_adds_up(n):
    assert plan_problems(PLANS[n]) == []


def test_the_longest_plan_has_every_exercise_of_the_book():
    given = [place for session in PLANS[12]["sessions"] for place in session["exercises"]]
    assert sorted(given) == sorted(f"{e.chapter}.{e.number}" for of in EXERCISES.values() for e in of)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plan: plan["sessions"][0]["blocks"][0].update(minutes=21),
        lambda plan: plan["sessions"][0]["blocks"][0].update(how="sleep"),
        lambda plan: plan["sessions"][0].update(goals=[]),
        lambda plan: plan["sessions"][1]["blocks"][1].update(read=["04_scorecampp#no-such-heading"]),
        lambda plan: plan["sessions"][1]["exercises"].append("01_survey.9"),
        lambda plan: plan["sessions"][1]["exercises"].append(plan["sessions"][1]["exercises"][0]),
        lambda plan: plan["sessions"].pop(),
    ],
)
def test_a_plan_that_does_not_add_up_is_found(spoil):
    plan = copy.deepcopy(PLANS[8])
    spoil(plan)
    assert plan_problems(plan)


@pytest.mark.parametrize(("total", "said"), [(0, ""), (45, "45 min"), (60, "1 h"), (90, "1 h 30 min"), (720, "12 h")])
def test_minutes_in_words(total, said):
    assert course_plan.hours(total) == said


def test_a_plan_is_told_with_its_sums_and_to_students_without_preparation():
    plan = PLANS[8]
    text = course_plan.told(plan)
    assert course_plan.hours(8 * 90) in text and text.count("Total: 1 h 30 min.") == 8
    assert text.count(":class: instructor") == 8
    students_text = course_plan.told(plan, "student")
    assert "prepare" not in students_text and students_text == students.split_markdown(text)[0].rstrip("\n").replace(
        "\n\n\n", "\n\n"
    )
    for n, session in enumerate(plan["sessions"], 1):
        assert f"## {n}. {session['title']}" in text


def test_the_pages_own_mark_is_replaced_and_the_page_is_read_again_when_a_chapters_headings_change():
    class App:
        noted: set[str] = set()

        class config:
            audience = "student"

        class env:
            note_dependency = staticmethod(lambda path: App.noted.add(path))

    source = ["# A course\n\n% course-plan: 4\n"]
    course_plan.insert(App, "book/teaching/plan_04", source)
    assert "% course-plan" not in source[0] and course_plan.told(PLANS[4], "student") in source[0]
    linked = set(re.findall(r'href="\.\./(\w+)\.html', source[0])) | set(re.findall(r"\{doc\}`\.\./(\w+)`", source[0]))
    assert App.noted >= {str(course_plan.PLANS), *(str(course_plan.path_of(page)) for page in linked)} and len(linked) > 5


# --- pages -------------------------------------------------------------------------------------------------------------


def page_problems(text: str) -> list[str]:
    """References of a page of book/teaching that lead nowhere."""
    problems = [f"no figure {name}" for name in re.findall(r"\{numref\}`([^`]+)`", text) if name not in figures()]
    problems += [
        f"no heading {page}#{anchor}"
        for page, anchor in re.findall(r'href="\.\./(\w+)\.html#([^"]+)"', text)
        if anchor != "exercises" and anchor not in course_plan.headings(page)
    ]
    for name in re.findall(r"\{doc\}`(?:[^`<]*<)?\.\./(\w+)>?`", text):
        problems += [f"no page {name}"] * (not any((BOOK / f"{name}{ending}").is_file() for ending in (".ipynb", ".md")))
    return problems


@pytest.mark.parametrize("path", TEACHING, ids=lambda path: path.stem)
def test_references_of_a_teaching_page_lead_somewhere(path):
    assert page_problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text", ["{numref}`fig-nowhere`", '<a href="../05_sise.html#nowhere">x</a>', "{doc}`../nowhere`", "{doc}`that <../nowhere>`"]
)
def test_a_reference_that_leads_nowhere_is_found(text):
    assert page_problems(text)


def test_every_misconception_has_what_refutes_it():
    text = (BOOK / "teaching/misconceptions.md").read_text(encoding="utf-8")
    entries = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert len(entries) >= 12
    for entry in entries:
        see = re.search(r"^\*\*See\*\* (.+)$", entry, re.MULTILINE)
        assert see and re.search(r"\{numref\}|href=", see[1]), entry


def test_every_chapter_has_questions_and_every_question_notes_for_instructors_only():
    text = (BOOK / "teaching/discussion.md").read_text(encoding="utf-8")
    kept, hidden = students.split_markdown(text)
    assert len(hidden) == len(re.findall(r"^\*\*\d+\.\*\*", text, re.MULTILINE)) >= 20
    assert "What a good answer touches" not in kept
    for chapter in CHAPTERS:
        part = text.split(f"{{doc}}`../{chapter}`")[1].split("\n## ")[0]
        assert len(re.findall(r"^\*\*\d+\.\*\*", part, re.MULTILINE)) >= 3, chapter


def test_every_teaching_page_is_in_the_contents():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert [path.stem for path in TEACHING if f"book/teaching/{path.stem}\n" not in toc] == []


def test_the_slides_of_every_chapter_are_listed():
    assert re.findall(r"slides/(\w+)\.html", (BOOK / "teaching/index.md").read_text(encoding="utf-8")) == CHAPTERS


# --- exercises and assignments -----------------------------------------------------------------------------------------


def answers_of(chapter: str) -> dict[int, Answer]:
    return {a.number: a for a in ANSWERS if a.chapter == chapter}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_exercise_is_read_from_its_chapter_and_has_an_answer(chapter):
    found = EXERCISES[chapter]
    cells = [cell for cell in assignments.notebook(chapter)["cells"] if "exercise" in students.tags_of(cell)]
    assert [e.number for e in found] == list(range(1, len(found) + 1)) == sorted(answers_of(chapter))
    assert sum(bool(e.check) for e in found) == len(cells), "an exercise cell was not read"
    for e in found:
        answer = answers_of(chapter)[e.number]
        assert bool(e.check) != bool(answer.check), "a check in the chapter or one here, not both"
        whole = assignments.completed(e, answer)
        assert whole.names and all(name in whole.call for name in whole.names)
        assert "{dropdown} Solution" not in whole.text and whole.text.startswith(f"**{e.number}.")


def test_an_exercise_without_an_answer_is_named():
    with pytest.raises(ValueError, match="05_sise: .*answers.py has nothing for exercise 2$"):
        assignments.assignment("05_sise", [a for a in ANSWERS if (a.chapter, a.number) != ("05_sise", 2)], source=True)


def listed(source: str, name: str) -> int:
    """How many items the lists and tuples have that some code gives to a name, or adds to it."""
    if not name:
        return 0
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Assign, ast.AugAssign))]
    mine = [
        node for node in nodes if name in {t.id for t in ast.walk(node) if isinstance(t, ast.Name) and assignments.is_stored(t)}
    ]
    return sum(len(node.value.elts) for node in mine if isinstance(node.value, (ast.List, ast.Tuple)))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_exercise_has_five_wrong_answers(chapter):
    """That they are wrong is seen when they are run, below."""
    for e in EXERCISES[chapter]:
        answer = answers_of(chapter)[e.number]
        assert len(set(answer.wrong)) + listed(e.solution, answer.known) >= 5, f"exercise {e.number}"


def test_items_of_a_list_are_counted():
    assert listed("wrong = [1, 2]\nwrong += [3]\nother = [4]", "wrong") == 3
    assert listed("wrong = 1, 2", "wrong") == 2 and listed("x = [1]", "") == listed("x = [1]", "wrong") == 0


def test_exercise_cells_that_cannot_be_taken_apart_are_refused():
    good = "my_x = None\n\n\ndef check_x(x):\n    return x == 1\n\n\nprint('right' if check_x(my_x) else 'no')"
    assert assignments.pieces(good)["call"] == "check_x(my_x)"
    for bad in ("print(1)", "my_x = None\nprint('no check')"):
        with pytest.raises(ValueError, match="an exercise cell is"):
            assignments.pieces(bad)


@pytest.mark.parametrize(
    ("cells", "wanted", "kept"),
    [
        (["a = 1", "b = 2", "c = a"], "c", [0, 2]),
        (["a = 1", "a = 2"], "a", [1]),
        (["a = []", "a.append(1)"], "a", [0, 1]),
        (["a = {}", "a['x'] = 1", "b = 1"], "a", [0, 1]),
        (["a = 1", "a += 1"], "a", [0, 1]),
        (["a = 1", "for i in range(3):\n    a = i"], "a", [0, 1]),
        (["def f():\n    return g()", "def g():\n    return 1", "x = f()"], "x", [0, 1, 2]),
        (["n = 3", "a = [n for _ in range(n)]"], "a", [0, 1]),
        (["a = [n for n in range(3)]", "n = 5"], "a", [0]),
        (["import numpy as np", "np.zeros(3)", "a = np.ones(2)"], "a", [0, 2]),
        (["x = 1", "f = lambda: x"], "f", [0, 1]),
        (["s = 1", "@cache\ndef f():\n    return 1"], "f", [1]),
        (["k = 1", "def f(k):\n    return k"], "f", [1]),
        (["with open('x') as a:\n    b = a", "c = 1"], "b", [0]),
        (["i = 1", "a = []", "for i in range(3):\n    b = i\n    a.append(b)"], "a", [1, 2]),
        (["b = 1", "if True:\n    a = 1\nelse:\n    a = b"], "a", [0, 1]),
        (["b = 1", "try:\n    a = b\nexcept OSError:\n    a = 2"], "a", [0, 1]),
        (["m = 1", "with thing(m) as t:\n    pass", "p = t"], "p", [0, 1, 2]),
    ],
)
def test_the_cells_on_which_code_rests_are_found(cells, wanted, kept):
    assert assignments.needed(cells, [wanted]) == kept


def test_code_is_sliced_by_statement_with_its_decorators():
    source = "from functools import cache\nunused = 1\n\n\n@cache\ndef f():\n    return 2\n\n\nanswer = f()"
    assert assignments.sliced([source], "x = answer").split("\n\n") == [
        "from functools import cache",
        "@cache\ndef f():\n    return 2",
        "answer = f()",
    ]


def nbgrader_problems(nb: dict[str, Any]) -> list[str]:
    """What nbgrader's schema, version 3, would object to."""
    ids = [cell["metadata"]["nbgrader"]["grade_id"] for cell in nb["cells"] if "nbgrader" in cell["metadata"]]
    problems = [f"{name} twice" for name in set(ids) if ids.count(name) > 1]
    for cell in nb["cells"]:
        marks = cell["metadata"].get("nbgrader", {})
        wanted = {"schema_version", "grade_id", "grade", "solution", "locked", "task"} | (
            {"points"} if marks.get("grade") else set()
        )
        if set(marks) != wanted or marks["schema_version"] != 3 or not re.fullmatch(r"[\w-]+", marks["grade_id"]):
            problems.append(f"{marks}")
        elif marks["grade"] and (cell["cell_type"] != "code" or marks["solution"] or not marks["locked"]):
            problems.append(f"{marks['grade_id']}: a check is a locked code cell")
    return problems


REGION = re.compile(r"\n?### BEGIN (SOLUTION|HIDDEN TESTS)\n.*?\n### END \1", re.DOTALL)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_assignment_is_a_sound_notebook_and_students_get_the_instructors_without_its_regions(chapter):
    source, release = (assignments.assignment(chapter, ANSWERS, source=which) for which in (True, False))
    for nb in (source, release):
        nbformat.validate(nbformat.from_dict(nb))
        assert nbgrader_problems(nb) == []
    assert [{**cell, "source": REGION.sub("", cell["source"])} for cell in source["cells"]] == release["cells"]
    assert json.dumps(source).count("BEGIN SOLUTION") == len(EXERCISES[chapter]) and "### BEGIN" not in json.dumps(release)
    setup = [cell for cell in release["cells"] if cell["id"].startswith("setup")]
    whole = [cell for cell in assignments.notebook(chapter)["cells"] if cell["cell_type"] == "code"]
    assert 2 <= len(setup) < len(whole)
    for cell in release["cells"]:
        if cell["cell_type"] == "code":
            compile(cell["source"], cell["id"], "exec")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_for_marks_that_count_no_check_is_shown(chapter):
    source, release = (assignments.assignment(chapter, ANSWERS, source=which, hide=True) for which in (True, False))
    assert [{**cell, "source": REGION.sub("", cell["source"])} for cell in source["cells"]] == release["cells"]
    assert not any("def check_" in cell["source"] for cell in release["cells"])
    assert sum("def check_" in cell["source"] for cell in source["cells"]) == len(EXERCISES[chapter])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda nb: nb["cells"].append(nb["cells"][0]),
        lambda nb: nb["cells"][0]["metadata"]["nbgrader"].pop("locked"),
        lambda nb: nb["cells"][0]["metadata"]["nbgrader"].update(grade_id="a b"),
        lambda nb: nb["cells"][-1]["metadata"]["nbgrader"].update(locked=False),
        lambda nb: nb["cells"][-1]["metadata"]["nbgrader"].pop("points"),
    ],
)
def test_unsound_grading_metadata_is_found(spoil):
    nb = assignments.assignment("05_sise", ANSWERS, source=True)
    spoil(nb)
    assert nbgrader_problems(nb)


def as_notebook(nb: dict[str, Any]) -> Any:
    return nbformat.from_dict(copy.deepcopy(nb))


def test_marking_takes_the_answers_and_nothing_else_from_a_submission():
    source = as_notebook(assignments.assignment("05_sise", ANSWERS, source=True))
    submitted = as_notebook(assignments.assignment("05_sise", ANSWERS, source=False))
    for cell in submitted.cells:
        cell.source = "my_map = [1, 2, 3, 4]" if cell.id == "exercise-1-answer" else "import os"
    submitted.cells = [cell for cell in submitted.cells if cell.id != "exercise-2-answer"]
    whole = {cell.id: cell.source for cell in grade.merged(source, submitted).cells}
    for cell in source.cells:
        if not cell.metadata.nbgrader.solution:
            assert whole[cell.id] == cell.source
    assert whole["exercise-1-answer"] == "my_map = [1, 2, 3, 4]" and whole["exercise-2-answer"] == ""


def test_points_are_given_for_checks_that_ran_without_an_error():
    nb = as_notebook(assignments.assignment("05_sise", ANSWERS, source=True))
    checks = [cell for cell in nb.cells if cell.metadata.nbgrader.grade]
    for n, cell in enumerate(checks):
        cell.execution_count = None if n == 0 else n
        cell.outputs = [nbformat.v4.new_output("error", ename="AssertionError", evalue="", traceback=[])] * (n == 1)
    assert list(grade.points(nb).values()) == [0.0, 0.0, *(float(cell.metadata.nbgrader.points) for cell in checks[2:])]


def small_assignment(*answers: str) -> Any:
    """Exercises 1, 2, …: each asks for the number 1, and needs no package."""
    cells = [assignments.code("setup-1", "one = 1")]
    for n, answer in enumerate(answers, 1):
        cells.append(assignments.code(f"exercise-{n}-answer", answer, solution=True))
        cells.append(assignments.code(f"exercise-{n}-check", f"assert my_{n} == one", grade=True, points=n))
    return as_notebook({"nbformat": 4, "nbformat_minor": 5, "metadata": assignments.KERNEL, "cells": cells})


@pytest.mark.slow
def test_an_answer_that_never_ends_or_ends_the_kernel_costs_its_own_points_only(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "TIMEOUT", 5)
    never = "import time\nwhile True:\n    try: time.sleep(1)\n    except BaseException: pass"  # an interrupt does not end it
    whole = small_assignment("my_1 = 1", "import os; os._exit(0)", never, "my_4 = 1")
    found, left_out = grade.graded(whole, tmp_path)
    assert list(found.values()) == [1.0, 0.0, 0.0, 4.0] and left_out == ["exercise-2-answer", "exercise-3-answer"]
    whole.cells[0].source = "import os; os._exit(0)"
    assert grade.graded(whole, tmp_path) == (dict.fromkeys(found, 0.0), [grade.SETUP])


def test_every_student_has_a_row_for_every_check_and_marks_are_written_as_they_come(tmp_path, monkeypatch, capsys):
    def graded(whole, folder):
        if folder.parent.name == "zoe":
            raise KeyboardInterrupt  # the marks of those before her are kept
        return grade.points(whole), ["exercise-2-answer"]

    nb = small_assignment("my_1 = 1", "my_2 = 1")
    lost = copy.deepcopy(nb)
    del lost.cells[1].metadata.nbgrader["grade_id"]
    for student, text in {"ada": nbformat.writes(lost), "bob": "{", "zoe": nbformat.writes(nb)}.items():
        (tmp_path / "in" / student / "tiny").mkdir(parents=True)
        (tmp_path / "in" / student / "tiny/tiny.ipynb").write_text(text, encoding="utf-8")
    (tmp_path / "source/tiny").mkdir(parents=True)
    nbformat.write(nb, tmp_path / "source/tiny/tiny.ipynb")
    monkeypatch.setattr(grade, "graded", graded)
    monkeypatch.setattr(sys, "argv", ["grade.py", str(tmp_path / "source"), str(tmp_path / "in")])
    with pytest.raises(KeyboardInterrupt):
        grade.main()
    said = capsys.readouterr().out
    assert "no cell for exercise-1-answer; never ended, or ended the kernel: exercise-2-answer" in said
    rows = (tmp_path / "in/marks.csv").read_text(encoding="utf-8").split()
    both = [f"{student},tiny,exercise-{n}-check,{value}" for student, value in (("ada", "0.0"), ("bob", "")) for n in (1, 2)]
    assert rows == ["student,chapter,check,points", *both]


JUDGE = '''
import json

def verdict_(call, names, value):
    """Is this answer accepted? An answer that makes the check fall over is refused; a name that is missing is our mistake."""
    for name, part in zip(names, value if len(names) > 1 else (value,), strict=True):
        globals()[name] = part
    try:
        return bool(eval(call, globals()))
    except NameError:
        raise
    except Exception:
        return False
'''


# A chapter's tables on fewer pictures: of chapter 4 the checks look at the first 8 pictures and not at the digits.
FEWER = {"04_scorecampp": "N_IMAGES, N_ABLATION, N_SEVERAL, N_SCALE, N_DIGITS, EPOCHS, COPIES = 8, 1, 2, 1, 2, 1, 2"}


def judging(chapter: str) -> Any:
    """The assignment's setup, and after it every answer of the instructor's file put to its check."""
    of, asked = answers_of(chapter), []
    whole = [assignments.completed(e, of[e.number]) for e in EXERCISES[chapter]]
    for e in whole:
        answer = of[e.number]
        wrong = ", ".join([f"*{answer.known}"] * bool(answer.known) + list(answer.wrong))
        own = assignments.sliced([e.check, e.solution], f"_ = [{answer.right}, {wrong}]")
        judged = f"verdict_({e.call!r}, {e.names!r}, {{}})"
        both = f"[{judged.format('right')}, [{judged.format('w')} for w in wrong_]]"
        asked.append(f"{e.check}\n\n{own}\n\nright = {answer.right}\nwrong_ = [{wrong}]\nverdicts_[{e.number}] = {both}")
    first, *setup = assignments.setup(chapter, whole, asked)
    sources = [first, FEWER.get(chapter, ""), *setup, JUDGE, "verdicts_ = {}", *asked, "print(json.dumps(verdicts_))"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=cells, metadata=assignments.KERNEL)


def missing_names(sources: list[str]) -> set[str]:
    """Names that code in these cells uses and that no cell before it (or, for what functions use, none at all) gives."""
    given, missing, later = {"__name__"}, set(), set()
    for source in sources:
        for statement in assignments.statements(source):
            missing |= statement.now - given
            given |= statement.given
            later |= statement.later
    return missing | (later - given)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_name_is_missing_in_an_assignment(chapter):
    source = [c["source"] for c in assignments.assignment(chapter, ANSWERS, source=True)["cells"] if c["cell_type"] == "code"]
    assert missing_names(source) == set()
    assert missing_names([cell.source for cell in judging(chapter).cells]) == set()
    release = [c["source"] for c in assignments.assignment(chapter, ANSWERS, source=False)["cells"] if c["cell_type"] == "code"]
    assert missing_names(release) == set()
    assert missing_names(release[:1] + release[3:]) != set(), "a test that finds nothing missing finds nothing"


@pytest.mark.parametrize(
    ("cells", "missing"),
    [
        (["a = b"], {"b"}),
        (["a = 1", "b = a"], set()),
        (["b = a", "a = 1"], {"a"}),
        (["def f():\n    return a", "a = 1", "f()"], set()),
        (["def f():\n    return a", "f()"], {"a"}),
        (["[n for n in m]"], {"m"}),
    ],
)
def test_a_missing_name_is_found(cells, missing):
    assert missing_names(cells) == missing


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_right_answers_pass_and_at_least_five_wrong_ones_do_not(chapter):
    nb = judging(chapter)
    NotebookClient(nb, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(BOOK)}}).execute()
    verdicts = json.loads(nb.cells[-1].outputs[-1].text)
    assert set(verdicts) == {str(e.number) for e in EXERCISES[chapter]}
    for number, (right, wrong) in verdicts.items():
        assert right, f"exercise {number}: the right answer is refused"
        assert len(wrong) >= 5, f"exercise {number} has {len(wrong)} wrong answers"
        assert not any(wrong), f"exercise {number}: wrong answers that pass: {[n for n, passed in enumerate(wrong, 1) if passed]}"


def solution_of(source: str) -> str:
    return re.sub(r"### (BEGIN|END) SOLUTION\n?", "", source)


@pytest.mark.slow
def test_a_class_is_marked_from_end_to_end(tmp_path):
    """The one who solves everything, the one who hands in nothing, and the one who rewrites the checks."""
    chapter = "01_survey"
    assignments.write(tmp_path / "source", ANSWERS, source=True)
    source = nbformat.read(tmp_path / f"source/{chapter}/{chapter}.ipynb", as_version=4)
    blank = as_notebook(assignments.assignment(chapter, ANSWERS, source=False))
    best, cheat = copy.deepcopy(source), copy.deepcopy(blank)
    for cell in best.cells:
        cell.source = solution_of(cell.source)
    for cell in cheat.cells:
        if cell.metadata.nbgrader.grade:
            cell.source = "print('right')"
        elif cell.metadata.nbgrader.solution:
            cell.source = re.sub(r"None.*", "0", cell.source).replace("0, None", "0, 0")
    for student, nb in (("best", best), ("blank", blank), ("cheat", cheat)):
        path = tmp_path / "submitted" / student / chapter / f"{chapter}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(nb, path)
    (tmp_path / "submitted/torn" / chapter).mkdir(parents=True)
    (tmp_path / "submitted/torn" / chapter / f"{chapter}.ipynb").write_text("{", encoding="utf-8")
    command = [sys.executable, str(BOOK / "teaching/grade.py"), str(tmp_path / "source"), str(tmp_path / "submitted")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    total = sum(a.points for a in answers_of(chapter).values())
    marks = {
        line.split()[0]: line.split()[2] for line in done.stdout.splitlines() if line.split()[0] in ("best", "blank", "cheat")
    }
    assert marks == {"best": f"{total}:", "blank": "0:", "cheat": "0:"}, done.stdout
    assert re.search(r"^torn .*cannot be read", done.stdout, re.MULTILINE)
    with open(tmp_path / "submitted/marks.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    given = {student: [row["points"] for row in rows if row["student"] == student] for student in ("best", "blank", "torn")}
    assert sum(map(float, given["best"])) == total and set(given["blank"]) == {"0.0"}
    assert given["torn"] == [""] * len(given["best"]), "a file that cannot be read is a row without points"


# --- slides ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_slides_show_every_figure_box_and_exercise_of_the_chapter(chapter):
    nb = assignments.notebook(chapter)
    made = [slide for section in slides.deck(nb, chapter) for slide in section.slides]
    own = [cell for cell in nb["cells"] if "mystnb" in cell["metadata"]]
    assert [s.body.count("<img") for s in made if s.kind == "figure"] == [1] * len(own) and own
    boxes = sum(students.source_of(cell).count(":class: paper-vs-code") for cell in nb["cells"])
    assert sum(slide.kind == "box" for slide in made) == boxes
    assert sum(slide.kind == "exercise" for slide in made) == len(EXERCISES[chapter])
    assert sum(slide.kind == "takeaway" for slide in made) == sum(slide.kind == "title" for slide in made) == 1
    equations = sum(students.source_of(cell).count("$$") // 2 for cell in nb["cells"] if cell["cell_type"] == "markdown")
    assert sum(slide.body.count(r"\[") for slide in made) == equations


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_slides_load_nothing_from_a_network_and_leave_no_markup(chapter):
    page = slides.page(assignments.notebook(chapter), chapter)
    text = re.sub(r"data:image/\w+;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", re.sub(r"<a [^>]*>", "", text))
    assert not re.search(r"\{[a-z:]+\}`", text) and "{dropdown}" not in text and "{admonition}" not in text
    assert all(re.search(r'alt="[^"]{20,}"', tag) for tag in re.findall(r"<img [^>]*>", text))
    assert text.count("<h1>") == 1 and '<html lang="en">' in text
    for name in re.findall(r'"\.\./_static/([^"]+)"', text):
        assert (BOOK / "_static" / name).is_file(), name


def test_solutions_are_in_the_notes_of_the_instructors_slides_only():
    nb = assignments.notebook("05_sise")
    assert "def shared_out" in slides.page(nb, "05_sise", solutions=True)
    assert "def shared_out" not in slides.page(nb, "05_sise")


def test_markdown_is_taken_apart_in_order():
    text = "Some words.\n\n$$ x = 1 $$ (eq-x)\n\n(a-label)=\n## A heading\n\n:::{admonition} A box\n:class: x\ninside\n:::\nmore"
    assert list(slides.blocks(text)) == [
        ("prose", "", "Some words."),
        ("math", "", "$$ x = 1 $$ (eq-x)"),
        ("heading", "##", "A heading"),
        ("admonition", "A box", "inside"),
        ("prose", "", "more"),
    ]


@pytest.mark.parametrize(
    ("myst", "said"),
    [
        ("{term}`masks <mask>` hide", "masks hide"),
        ("{term}`mask`", "mask"),
        ("{doc}`claim ledger <claims>`", "claim ledger"),
        ("{doc}`claims`", course_plan.heading_of("claims")),
        ("{cite:t}`wang2020scorecam`", "Wang et al. (2020)"),
        ("{cite:p}`wang2020scorecam`", "(Wang et al. 2020)"),
        ("{numref}`fig-sise-parts`", "the figure “sise parts”"),
        ("{math}`x^2`", "$x^2$"),
        ("$$ x $$ (eq-x)", "$$ x $$"),
    ],
)
def test_roles_become_words(myst, said):
    assert plain(myst) == said


def test_the_heading_of_a_page_is_read_from_its_text(tmp_path, monkeypatch):
    monkeypatch.setattr(course_plan, "BOOK", tmp_path)
    cell = {"cell_type": "markdown", "source": ["# A heading alone"]}  # nothing follows it in its cell
    (tmp_path / "one_97.ipynb").write_text(json.dumps({"cells": [cell]}, indent=1), encoding="utf-8")
    assert course_plan.heading_of("one_97") == "A heading alone"
    with pytest.raises(ValueError, match="no page 'absent_97'"):
        course_plan.heading_of("absent_97")


def test_an_unknown_role_is_not_lost_in_silence():
    with pytest.raises(ValueError, match="no words are known"):
        role("download", "x")


# --- builds and bundle -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "good"),
    [("b.html", True), ("b.html#here", True), ("_static/a.css", True), ("https://example.org", True), ("#top", True), ("#", True)]
    + [("c.html", False), ("b.html#there", False), ("../outside.html", False), ("_static/b.css", False)],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path, link, good):
    html = tmp_path / "html"
    (html / "_static").mkdir(parents=True)
    (html / "_static/a.css").write_text("", encoding="utf-8")
    (tmp_path / "outside.html").write_text("", encoding="utf-8")
    (html / "b.html").write_text('<p id="here">x</p>', encoding="utf-8")
    (html / "a.html").write_text(f'<p id="top"><a href="{link}">x</a></p>', encoding="utf-8")
    assert bool(build.broken_links(html)) is not good


@pytest.mark.parametrize("audience", ["student", "instructor"])
def test_a_bundle_is_whole_the_same_each_time_and_says_how_to_open_it(tmp_path, monkeypatch, audience):
    package = tmp_path / "site" / build.WEIGHTS
    (package / "models").mkdir(parents=True)
    for name in ("__init__.py", "models/net.pth"):
        (package / name).write_text("x", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, build.WEIGHTS, raising=False)
    out = tmp_path / audience
    for name in (
        "html/index.html",
        "html/slides/a.html",
        "course/book/a.ipynb",
        "course/constraints.txt",
        "course/data/models/a",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text('<a href="slides/a.html">x</a>' if name == "html/index.html" else "x", encoding="utf-8")
    for name in ("course/data/licenses/a.md", "assignments/release/a/a.ipynb"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x", encoding="utf-8")
    path = build.bundle(audience, out)
    first = path.read_bytes()
    assert build.bundle(audience, out).read_bytes() == first
    assert build.unpacked_problems(path, tmp_path / "unpacked") == []
    text = (tmp_path / "unpacked/seeing-why/README.txt").read_text(encoding="utf-8")
    assert ("SOLUTIONS" in text) is (audience == "instructor") and "html/index.html" in text
    (out / "html/slides/a.html").unlink()
    (out / "course/constraints.txt").unlink()
    assert len(build.unpacked_problems(build.bundle(audience, out), tmp_path / "again")) == 3


@pytest.mark.slow
def test_the_students_build_is_whole_and_they_find_no_solution(tmp_path):
    """The true pages, search index and all. `build.build` looks for leaks itself; here the pages are looked at as well.

    The instructor's pages are those of `make book`."""
    out = tmp_path / "student"
    assert build.build("student", out) == []
    pages = {name: (out / f"html/book/{name}.html").read_text(encoding="utf-8") for name in ("05_sise", "teaching/plan_08")}
    assert "course-plan:" not in pages["teaching/plan_08"] and "To prepare" not in pages["teaching/plan_08"]
    assert course_plan.hours(8 * 90) in pages["teaching/plan_08"]
    question = yaml.safe_load((BOOK / "quizzes/05_sise.yaml").read_text(encoding="utf-8"))[1]
    assert question["ask"] in pages["05_sise"] and "my_share" in pages["05_sise"]
    for path in (path for path in out.rglob("*") if path.suffix in students.TEXTS):
        text = path.read_text(encoding="utf-8", errors="replace")
        assert "shared_out" not in text and question["choices"][0]["because"] not in text, path
    assert not (out / "html/book/teaching/instructor.html").exists() and not (out / "assignments/source").exists()
    assert not list(out.rglob("_sources")) and (out / "html/slides/05_sise.html").is_file()
    path = build.bundle("student", out)
    assert build.unpacked_problems(path, tmp_path / "unpacked") == []
    with zipfile.ZipFile(path) as file:
        assert any(name.endswith(".pth") for name in file.namelist())
