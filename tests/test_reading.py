"""What helps a reader: quizzes and their directive, hints of the glossary, status, citing, notebooks that install, colours."""

from __future__ import annotations

import copy
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path.insert(0, str(BOOK / "_ext"))
import quiz  # noqa: E402
import reading  # noqa: E402

CHAPTERS = sorted(path.stem for path in BOOK.glob("0[1-9]_*.ipynb"))
QUIZZES = sorted((BOOK / "quizzes").glob("*.yaml"))


# --- the questions of the book -----------------------------------------------------------------------------------------


def markdown_of(chapter: str) -> list[str]:
    cells = json.loads((BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def headings_of(chapter: str) -> set[str]:
    return {found.strip() for text in markdown_of(chapter) for found in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)}


def test_every_chapter_has_a_quiz_and_shows_it():
    assert [path.stem for path in QUIZZES] == CHAPTERS
    for chapter in CHAPTERS:
        shown = [text for text in markdown_of(chapter) if "{quiz}" in text]
        assert len(shown) == 1 and f"```{{quiz}} {chapter}\n```" in shown[0]


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_questions_can_be_asked(path):
    questions = quiz.read(path)
    assert 3 <= len(questions) <= 5
    assert any("value" in question for question in questions) or any(len(q["choices"]) > 3 for q in questions)
    assert [q["see"] for q in questions if q["see"] not in headings_of(path.stem)] == []


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_the_place_of_the_right_answer_gives_nothing_away(path):
    """Not always the first, nor always the longest."""
    asked = [q["choices"] for q in quiz.read(path) if "choices" in q]
    places = {next(n for n, choice in enumerate(choices) if choice.get("right")) for choices in asked}
    longest = [max(choices, key=lambda choice: len(choice["text"])).get("right") is True for choices in asked]
    assert len(places) > 1 and not all(longest)


CHOICES: dict[str, Any] = {
    "name": "one",
    "ask": "Which?",
    "choices": [
        {"text": "a", "right": True, "because": "It is a."},
        {"text": "b", "because": "It is not b."},
        {"text": "c", "because": "It is not c."},
    ],
    "see": "Sanity strip",
}
NUMBER: dict[str, Any] = {
    "name": "two",
    "ask": "How much?",
    "value": 0.25,
    "work": "(4 - 3) / 4",
    "within": 0.005,
    "because": "One of four.",
    "wrong": [{"value": 0.75, "because": "That is what is left."}],
    "otherwise": "Divide.",
    "see": "Sanity strip",
}


def all_right(choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice | {"right": True} for choice in choices]


def spoilt(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> list[dict[str, Any]]:
    questions = copy.deepcopy([CHOICES, NUMBER])
    change(*questions)
    return questions


def test_good_questions_have_no_problems():
    assert quiz.problems_of([CHOICES, NUMBER]) == []
    several = spoilt(lambda one, two: (one.update(several=True), one["choices"][1].update(right=True)))
    assert quiz.problems_of(several) == []


BAD: list[tuple[str, Callable[[dict[str, Any], dict[str, Any]], Any]]] = [
    ("0 choices are right", lambda one, two: one["choices"][0].pop("right")),
    ("2 choices are right", lambda one, two: one["choices"][1].update(right=True)),
    ("several are said to be right, 1 are", lambda one, two: one.update(several=True)),
    ("several are said to be right, 3 are", lambda one, two: one.update(several=True, choices=all_right(one["choices"]))),
    ("fewer than three", lambda one, two: one["choices"].pop()),
    ("choice 2 has no because", lambda one, two: one["choices"][1].pop("because")),
    ("two choices have the same reason", lambda one, two: one["choices"][1].update(because="It is a.")),
    ("choice 3 holds an equation or a link", lambda one, two: one["choices"][2].update(text="$c$")),
    ("choice 3 holds an equation or a link", lambda one, two: one["choices"][2].update(text="a {term}`mask`")),
    ("two choices are the same", lambda one, two: one["choices"][1].update(text="a")),
    ("unknown key 'rigth'", lambda one, two: one["choices"][1].update(rigth=True)),
    ("unknown key 'hint'", lambda one, two: one.update(hint="x")),
    ("no see", lambda one, two: one.pop("see")),
    ("no ask", lambda one, two: one.update(ask=" ")),
    ("small letters", lambda one, two: one.update(name="One two")),
    ("used twice", lambda one, two: two.update(name="one")),
    ("either choices or a value", lambda one, two: one.update(value=1)),
    ("either choices or a value", lambda one, two: two.pop("value")),
    ("the work gives 0.25", lambda one, two: two.update(value=0.3)),
    ("no work", lambda one, two: two.pop("work")),
    ("within must be above 0", lambda one, two: two.update(within=0)),
    ("counts as right", lambda one, two: two["wrong"][0].update(value=0.252)),
    ("a value and a because", lambda one, two: two["wrong"][0].pop("because")),
]


@pytest.mark.parametrize(("words", "change"), BAD, ids=[f"{n}-{words}" for n, (words, _) in enumerate(BAD)])
def test_a_bad_question_is_found(words, change):
    assert any(words in problem for problem in quiz.problems_of(spoilt(change)))


@pytest.mark.parametrize("nonsense", [None, [], {}, "text", ["text"]])
def test_what_is_no_list_of_questions_is_found(nonsense):
    assert quiz.problems_of(nonsense)


def test_work_is_arithmetic_and_nothing_else():
    assert quiz.calculate("max(0, 1 - 3) + exp(0) / 4") == 0.25
    for work in ("__import__('os')", "open('x')", "().__class__", "a", "1 +", "1 / 0", "e + 1", "1, 2", "", "exp(1e9)"):
        with pytest.raises(ValueError):
            quiz.calculate(work)


# --- a small book of two pages -----------------------------------------------------------------------------------------

CONF = """
extensions = ["myst_parser", "sphinx_book_theme", "quiz", "reading"]
html_theme = "sphinx_book_theme"
html_theme_options = {"repository_url": URL, "repository_branch": "main"}
myst_enable_extensions = ["dollarmath", "colon_fence"]
exclude_patterns = ["out", "tree"]
audience = AUDIENCE
suppress_warnings = ["config.cache"]
html_copy_source = False
"""
PAGE = """# A page

A {term}`mask` and a {term}`masked copy <mask>`, not the other.

## Sanity strip

Text.

## Check yourself

```{quiz} 01_tiny
```

## How

```{citation}
```

```{status}
```
"""
GLOSSARY = """# Glossary

:::{glossary}
mask
  A picture of numbers, $0 \\\\le m \\\\le 1$. See {term}`other`.

other
  Not linked from the page.
:::
"""


def small_book(
    folder: Path, *, audience: str = "instructor", url: str = "", page: str = PAGE, asked: Any = ()
) -> tuple[Path, str]:
    """Build two pages in this process: (where, all warnings)."""
    (folder / "quizzes").mkdir(parents=True)
    conf = CONF.replace("URL", repr(url)).replace("AUDIENCE", repr(audience))
    for name, text in {"conf.py": conf, "index.md": page, "words.md": "---\norphan: true\n---\n" + GLOSSARY}.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "CITATION.cff").write_text((ROOT / "CITATION.cff").read_text(encoding="utf-8"), encoding="utf-8")
    questions = yaml.safe_dump(list(asked) or [CHOICES, NUMBER], sort_keys=False)
    (folder / "quizzes/01_tiny.yaml").write_text(questions, encoding="utf-8")
    warnings = io.StringIO()
    with patch_docutils(str(folder)), docutils_namespace():
        app = Sphinx(str(folder), str(folder), str(folder / "out"), str(folder / "tree"), "html", status=None, warning=warnings)
        app.build()
    return folder / "out", warnings.getvalue()


def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, warnings = small_book(tmp_path_factory.mktemp("book"))
    assert warnings == ""
    return out


def test_a_choice_is_a_disclosure_with_a_reason_and_a_way_to_the_section(book):
    page = soup(book / "index.html")
    question = page.find(id="quiz-01-tiny-one")
    assert isinstance(question, Tag) and question["role"] == "group"
    assert page.find(id=question["aria-labelledby"]).get_text(strip=True) == "1.Which?"
    choices = question.find_all("details")
    assert [choice["data-right"] for choice in choices] == ["true", "false", "false"]
    assert [choice.summary.get_text() for choice in choices] == ["a", "b", "c"]
    assert [choice.strong.get_text() for choice in choices] == ["Right.", "No.", "No."]
    assert not any(choice.has_attr("open") for choice in choices)
    assert page.find(id=choices[0].find("a")["href"].removeprefix("#")).find("h2").get_text().startswith("Sanity strip")


def test_a_number_has_a_field_that_waits_for_the_script_and_an_answer_that_does_not(book):
    question = soup(book / "index.html").find(id="quiz-01-tiny-two")
    form, answer = question.find("form"), question.find("details")
    assert form.has_attr("hidden") and form.find("label")["for"] == form.find("input")["id"]
    assert form.find(role="status") is not None
    reasons = answer.find_all(class_="quiz-because")
    assert [reason.get("data-value") for reason in reasons] == ["0.25", "0.75", None]
    assert reasons[2]["data-otherwise"] == "true"


def test_a_students_page_holds_no_answer_anywhere(tmp_path):
    out, warnings = small_book(tmp_path / "students", audience="student")
    assert warnings == ""
    question = soup(out / "index.html").find(id="quiz-01-tiny-one")
    assert [item.get_text(strip=True) for item in question.find_all("li")] == ["a", "b", "c"]
    kinds = (".html", ".js", ".txt", ".ipynb")
    every = "".join(path.read_text(encoding="utf-8") for path in out.rglob("*") if path.suffix in kinds)
    secrets = [choice["because"] for choice in CHOICES["choices"]] + [
        "One of four",
        "That is what is left",
        "data-right",
        "data-value",
    ]
    assert [secret for secret in secrets if secret in every] == []


def test_an_apostrophe_in_a_heading_does_no_harm(tmp_path):
    """Sphinx shows a curly one; the quiz has the one of the keyboard."""
    asked, page = [CHOICES | {"see": "The paper's strip"}], PAGE.replace("Sanity strip", "The paper's strip")
    out, warnings = small_book(tmp_path / "book", page=page, asked=asked)
    assert warnings == "" and soup(out / "index.html").select(".quiz-see a[href='#the-paper-s-strip']")


def test_a_section_that_is_not_there_and_a_bad_quiz_warn(tmp_path):
    _, warnings = small_book(tmp_path / "a", page=PAGE.replace("## Sanity strip", "## Another"))
    assert "no section 'Sanity strip' in this page" in warnings
    _, warnings = small_book(tmp_path / "b", page=PAGE.replace("{quiz} 01_tiny", "{quiz} 99_absent"))
    assert "99_absent" in warnings


def test_terms_bring_their_definitions_along(book):
    page = soup(book / "index.html")
    (hint,) = page.find_all(class_="hint")
    assert hint["id"] == "hint-term-mask" and hint.has_attr("hidden") and hint["role"] == "tooltip"
    assert "A picture of numbers" in hint.get_text() and hint.find("a") is None and not hint.find_all(id=True)
    assert page.find("article").find(class_="hint") is not None, "the hint is inside the article"
    assert "mathjax" in (book / "index.html").read_text(encoding="utf-8").lower(), "the page has no equation, its hint has one"


def test_the_citation_follows_the_file(book):
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    text = soup(book / "index.html").get_text()
    assert cff["title"] in text and f"version = {{{cff['version']}}}" in text


def test_a_reference_has_what_the_file_has():
    cff = {"authors": [{"given-names": "Ada", "family-names": "Byron"}, {"name": "a group"}], "title": "T", "version": 2}
    assert reading.reference(cff)[0] == "Ada Byron, a group (not yet released). T. Version 2."
    full = cff | {"date-released": "2031-05-04", "doi": "10.1/x", "repository-code": "https://example.org/r"}
    sentence, bibtex = reading.reference(full)
    assert sentence == "Ada Byron, a group (2031). T. Version 2. https://doi.org/10.1/x"
    assert [line for line in ("year = {2031}", "doi = {10.1/x}", "url = {https://example.org/r}") if line not in bibtex] == []
    assert "year" not in reading.reference(cff)[1]


def test_the_status_page_names_commit_and_versions(book):
    text = soup(book / "index.html").get_text()
    assert "No page of this build was executed." in text
    assert "not known: these sources are not in a git repository" in text or re.search(r"\b[0-9a-f]{10}\b", text)
    assert all(name in text for name in reading.PACKAGES)


def test_executed_pages_are_listed_with_day_and_time():
    run = {"mtime": 1_700_000_000.0, "runtime": 61.4, "succeeded": True, "error": None}
    env = SimpleNamespace(
        docname="book/status",
        titles={},
        nb_metadata={"book/b": {"exec_data": run | {"runtime": None}}, "book/a": {"exec_data": run}, "book/c": {}},
    )
    text = reading.executed_table(env).astext()
    assert "2023-11-1" in text and text.count("61\N{NO-BREAK SPACE}s") == 2 and "not known" in text and "book/c" not in text
    assert text.index("book/a") < text.index("book/b")


def test_a_commit_with_changes_says_so(tmp_path):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert reading.commit(tmp_path).startswith("not known")
    git("init")
    (tmp_path / "a").write_text("1", encoding="utf-8")
    git("add", "a")
    git("commit", "-m", "a")
    assert re.fullmatch(r"[0-9a-f]{10}", reading.commit(tmp_path))
    (tmp_path / "a").write_text("2", encoding="utf-8")
    assert reading.commit(tmp_path).endswith(", with changes")


# --- run this ----------------------------------------------------------------------------------------------------------


def test_without_an_address_no_page_offers_another_server(book):
    page = (book / "index.html").read_text(encoding="utf-8")
    assert "colab" not in page and "mybinder" not in page


def test_one_setting_switches_the_buttons_on():
    config = SimpleNamespace(html_theme_options={"repository_url": "https://github.com/owner/name"})
    reading.switch_on(None, config)
    assert config.html_theme_options["launch_buttons"]["colab_url"] and config.html_theme_options["use_issues_button"]
    config = SimpleNamespace(html_theme_options={"repository_url": ""})
    reading.switch_on(None, config)
    assert config.html_theme_options == {"repository_url": ""}


def test_colab_is_led_to_the_notebooks_that_install(tmp_path):
    (tmp_path / "01_x.ipynb").write_text("{}", encoding="utf-8")
    app = SimpleNamespace(srcdir=str(tmp_path), config=SimpleNamespace(html_theme_options={"repository_branch": "main"}))
    colab = {"text": "Colab", "url": "https://colab.research.google.com/github/o/main/blob/main/01_x.ipynb"}
    binder = {"text": "Binder", "url": "https://mybinder.org/v2/gh/o/main/main"}
    context = {"header_buttons": [{"buttons": [colab, binder]}], "pathto": lambda path, _: f"../{path}"}
    reading.download_button(app, "01_x", "", context, None)
    assert colab["url"].endswith("/o/main/blob/run/01_x.ipynb") and binder["url"].endswith("/main/main")
    assert context["header_buttons"][-1]["url"] == "../run/01_x.ipynb"
    context = {"header_buttons": [], "pathto": None}
    reading.download_button(app, "absent", "", context, None)
    assert context["header_buttons"] == []


def test_a_runnable_copy_installs_first_and_shows_nothing_stored(tmp_path):
    page = "book/04_scorecampp"
    (path,) = reading.write_runnable(ROOT, tmp_path, [page, "book/glossary"], "https://example.org/r", "abc123")
    made, original = (json.loads(p.read_text(encoding="utf-8")) for p in (path, ROOT / f"{page}.ipynb"))
    assert path == tmp_path / f"{page}.ipynb"
    assert [c["source"] for c in made["cells"][1:]] == [c["source"] for c in original["cells"]]
    assert not any(c.get("outputs") or c.get("execution_count") for c in made["cells"])
    first = "".join(made["cells"][0]["source"])
    compile(first, "install", "exec")
    assert '"https://example.org/r", "abc123"' in first and "constraints.txt" in first


def run_install(folder: Path, url: str, path: str) -> subprocess.CompletedProcess[str]:
    """The installing cell in `folder`, with a `git` and a `pip` that only write down what they were told."""
    source = reading.INSTALL.format(url=url, revision="abc123").replace("sys.executable", f"'{path}/python'")
    code = source + "\nprint('at', os.getcwd(), sys.path[0])"
    environment = {"PATH": f"{path}:/usr/bin:/bin"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_installing_cell_clones_once_and_does_nothing_in_a_checkout(tmp_path):
    tools, outside = tmp_path / "tools", tmp_path / "outside"
    for folder in (tools, outside, tmp_path / "repo/book", tmp_path / "repo/helpers"):
        folder.mkdir(parents=True)
    clone = 'if [ "$1" = clone ]; then mkdir -p "$4/book" "$4/helpers"; fi'
    (tools / "git").write_text(f'#!/bin/bash\necho git "$@" >>{tools}/log\n{clone}\n', encoding="utf-8")
    (tools / "python").write_text(f'#!/bin/bash\necho python "$@" >>{tools}/log\n', encoding="utf-8")
    for name in ("git", "python"):
        (tools / name).chmod(0o755)

    for start in ("repo", "repo/book"):
        result = run_install(tmp_path / start, "https://example.org/r", str(tools))
        assert result.stdout.split() == ["at", str(tmp_path / "repo/book"), str(tmp_path / "repo")], result.stderr
    assert not (tools / "log").exists()

    for _ in range(2):  # a second time, as after a restart
        result = run_install(outside, "https://example.org/r", str(tools))
        assert result.stdout.split()[-2:] == [str(outside / "seeing-why/book"), str(outside / "seeing-why")], result.stderr
    log = (tools / "log").read_text(encoding="utf-8")
    assert log.count("clone") == 1 and log.count("checkout --quiet abc123") == 2 and "-c constraints.txt .[book]" in log

    (tmp_path / "alone").mkdir()
    assert "folder book/" in run_install(tmp_path / "alone", "", str(tools)).stderr


# --- the whole book, where it is built -----------------------------------------------------------------------------------

HTML = ROOT / "_build" / "html"
built = pytest.mark.skipif(not (HTML / "book/status.html").is_file(), reason="the book is not built: `make book` first")


@built
def test_the_status_page_has_every_executed_page():
    text = soup(HTML / "book/status.html").find("article").get_text()  # not the contents beside it
    titles = {chapter: soup(HTML / f"book/{chapter}.html").title.get_text().split(" — ")[0] for chapter in CHAPTERS}
    assert [chapter for chapter, title in titles.items() if re.sub(r"^\s*[\d.]+\s+", "", title).strip() not in text] == []
    assert ("not known: these" in text) == reading.commit(ROOT).startswith("not known") and "no: " not in text


@built
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_lists_its_papers_and_offers_its_notebook(chapter):
    page = soup(HTML / f"book/{chapter}.html")
    section = page.find(id="papers-of-this-chapter")
    assert isinstance(section, Tag) and len(section.find_all("li")) >= 2
    cells = json.loads((BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    written = "\n".join("".join(cell["source"]) + json.dumps(cell["metadata"]) for cell in cells)  # captions are metadata
    keys = set(re.findall(r"\{cite:[a-z]+\}`([^`]+)`", written))
    assert len(section.find_all("li")) == len({key for group in keys for key in group.split(",")})
    assert (HTML / f"run/book/{chapter}.ipynb").is_file()
    assert len(page.find_all(class_="quiz-question")) == len(quiz.read(BOOK / f"quizzes/{chapter}.yaml"))
    assert page.find_all(class_="hint")


# --- colours -------------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 has it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def colours(mode: str) -> dict[str, str]:
    css = (BOOK / "_static/seeing-why.css").read_text(encoding="utf-8")
    block = re.search({"light": r":root \{(.*?)\}", "dark": r'data-theme="dark"\] \{(.*?)\}'}[mode], css, re.DOTALL)
    assert block
    return dict(re.findall(r"--sw-([a-z-]+): (#[0-9a-f]{6})", block.group(1)))


@pytest.mark.parametrize(("mode", "page"), [("light", "#ffffff"), ("dark", "#14181e")])
def test_our_colours_can_be_read(mode, page):
    """4.5 to 1 for text (WCAG 2, AA): words in our colours on the page and on our boxes, badges on their grounds."""
    c = colours(mode)
    pairs = [(c["accent"], page), (c["good"], page), (c["bad"], page), (c["box-edge"], c["box"])]
    pairs += [(c["badge-text"], c[name]) for name in ("good", "part", "open", "bad", "none")]
    assert [(one, other) for one, other in pairs if contrast(one, other) < 4.5] == []


def test_contrast_is_measured_as_it_should():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_what_is_written_for_the_dark_is_undone_on_paper():
    css = (BOOK / "_static/reading.css").read_text(encoding="utf-8")
    printed = css[css.index("@media print") :]
    assert [name for name in colours("dark") if colours("light")[name] not in printed or f"--sw-{name}:" not in printed] == []
