"""The built pages as readers use them: accessibility (axe), quizzes, hints, the dark, phones, paper; from disk, offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from test_browser import HTML, PAGES, READY, browser, built  # noqa: F401  (browser is a fixture)

pytestmark = pytest.mark.browser

OURS = [path for path in PAGES if path.parent.name in ("book", "teaching")]
CHAPTERS = [path for path in OURS if path.stem[:2].isdigit() and not path.stem.startswith("00")]
PHONE, DESK = 375, 1280

# Serious or critical findings inside an article that are not ours to mend: rule -> (what its selector holds, why).
NOT_OURS: dict[str, tuple[str, str]] = {}

AXE = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return found.violations.flatMap((rule) => rule.nodes.map((node) => {
    let element = null;
    try { element = document.querySelector(node.target[node.target.length - 1]); } catch (problem) { /* not in this document */ }
    return { rule: rule.id, impact: node.impact || rule.impact, help: rule.helpUrl, target: node.target.join(" "),
             ours: !element || !!element.closest("article, .hint, .quiz"), html: node.html.slice(0, 160),
             why: (node.failureSummary || "").slice(0, 300) };
  }));
}"""


@contextmanager
def opened(browser: Browser, path: Path, width: int = DESK, **context: Any) -> Iterator[Page]:  # noqa: F811
    """A page from the disk, drawn to the end; a request that leaves the disk or an error fails the test."""
    problems: list[str] = []

    def only_from_disk(route: Any) -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            problems.append(f"the page asked the network for {route.request.url}")
            route.abort()

    window = browser.new_context(viewport={"width": width, "height": 900}, service_workers="block", **context)
    try:
        window.route("**/*", only_from_disk)
        page = window.new_page()
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.goto(path.as_uri(), wait_until="load")
        if context.get("java_script_enabled", True):
            page.evaluate(READY)
        yield page
        assert problems == []
    finally:
        window.close()


# --- accessibility --------------------------------------------------------------------------------------------------------


def findings(page: Page) -> list[str]:
    """What axe calls serious or critical, inside the article, one line each."""
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    lines = []
    for found in page.evaluate(AXE):
        selector, _ = NOT_OURS.get(found["rule"], (None, ""))
        excused = selector is not None and selector in found["target"]
        if found["impact"] in ("serious", "critical") and found["ours"] and not excused:
            lines.append(f"{found['rule']}: {found['html']} at {found['target']}; {found['why']} {found['help']}")
    return lines


@built
@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk-light", "phone-dark"])
@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_axe_finds_nothing_serious_that_is_ours(browser, path, width, scheme):  # noqa: F811
    with opened(browser, path, width, color_scheme=scheme) as page:
        assert findings(page) == []


@built
@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_axe_finds_nothing_serious_with_every_answer_and_solution_open(browser, path):  # noqa: F811
    """What is folded away is not looked at otherwise."""
    for scheme in ("light", "dark"):
        with opened(browser, path, color_scheme=scheme) as page:
            page.evaluate("() => document.querySelectorAll('article details').forEach((box) => { box.open = true; })")
            assert findings(page) == []


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('<img src="data:,">', "image-alt"),
        ('<p style="color: #999; background: #fff">hard to read</p>', "color-contrast"),
        ("<input>", "label"),
        ('<a href="#x"></a>', "link-name"),
    ],
)
def test_axe_is_really_asked(browser, tmp_path, body, rule):  # noqa: F811
    html = f'<!doctype html><html lang="en"><title>T</title><body><main><article><h1>T</h1>{body}</article></main></body></html>'
    (tmp_path / "bad.html").write_text(html, encoding="utf-8")
    (tmp_path / "good.html").write_text(html.replace(body, "<p>fine</p>"), encoding="utf-8")
    with opened(browser, tmp_path / "bad.html") as page:
        assert any(line.startswith(f"{rule}:") for line in findings(page))
    with opened(browser, tmp_path / "good.html") as page:
        assert findings(page) == []


# --- quizzes --------------------------------------------------------------------------------------------------------------


@built
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_quiz_is_answered_with_the_keyboard(browser, path):  # noqa: F811
    with opened(browser, path) as page:
        quiz = page.locator(".quiz")
        questions = quiz.locator(".quiz-question:has(details.quiz-choice)")
        for n in range(questions.count()):
            wrong = questions.nth(n).locator('details[data-right="false"]').first
            right = questions.nth(n).locator('details[data-right="true"]').first
            first = right if n == 0 else wrong
            first.locator("summary").focus()
            page.keyboard.press("Enter")
            expect(first.locator(".quiz-because")).to_be_visible()
            expect(first.locator(".quiz-because strong").first).to_have_text("Right." if n == 0 else "No.")
            wrong.locator("summary").focus()
            page.keyboard.press("Space")
        expect(quiz.locator(".quiz-count")).to_contain_text(f"1 of {questions.count()} right at the first try")


@built
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_reason_leads_to_its_section(browser, path):  # noqa: F811
    with opened(browser, path) as page:
        lost = page.evaluate("""() => [...document.querySelectorAll('.quiz-see a')]
            .filter((link) => !document.getElementById(decodeURIComponent(link.hash.slice(1)))).map((link) => link.href)""")
        assert page.locator(".quiz-see a").count() >= 10 and lost == []


def numbers_of(page: Page) -> list[dict[str, Any]]:
    """The questions for a number on a page: id of the field, the right number, the expected wrong ones."""
    return page.evaluate("""() => [...document.querySelectorAll('.quiz-question:has(.quiz-entry)')].map((question) => ({
        field: question.querySelector('input').id,
        values: [...question.querySelectorAll('.quiz-because[data-value]')].map((reason) => reason.dataset.value) }))""")


@built
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_number_is_told_right_from_wrong(browser, path):  # noqa: F811
    with opened(browser, path) as page:
        for question in numbers_of(page):
            field = page.locator(f"#{question['field']}")
            said = field.locator("xpath=..").locator(".quiz-said")
            right, *wrong = question["values"]
            for given, words in [("apples", "not a number"), ("12345", "Any other number"), *((w, f"Not {w}") for w in wrong)]:
                field.fill(given)
                field.press("Enter")
                expect(said).to_contain_text(words)
            for given in (right, right.replace(".", ","), f" {right} "):
                field.fill(given)
                field.press("Enter")
                expect(said).to_contain_text("Right.")
        assert page.url.split("#")[0] == path.as_uri(), "a form has sent the reader away"


@built
def test_without_a_script_answers_open_and_the_field_stays_away(browser):  # noqa: F811
    path = HTML / "book/04_scorecampp.html"
    with opened(browser, path, java_script_enabled=False) as page:
        choice = page.locator("details.quiz-choice").first
        expect(choice.locator(".quiz-because")).to_be_hidden()
        choice.locator("summary").click()
        expect(choice.locator(".quiz-because")).to_be_visible()
        expect(page.locator(".quiz-entry").first).to_be_hidden()
        page.locator("details.quiz-solution summary").first.click()
        expect(page.locator("details.quiz-solution .quiz-because").first).to_be_visible()


# --- the glossary under the pointer ---------------------------------------------------------------------------------------


@built
@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_term_explains_itself_on_focus(browser, path, width):  # noqa: F811
    with opened(browser, path, width) as page:
        link = page.locator("a.term").first
        hint = page.locator("#" + (link.get_attribute("aria-describedby") or "nothing"))
        expect(hint).to_be_hidden()
        link.focus()
        expect(hint).to_be_visible()
        assert len(hint.inner_text().strip()) > 20
        box = hint.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width
        page.keyboard.press("Escape")
        expect(hint).to_be_hidden()
        expect(link).to_be_focused()


@built
def test_a_hint_stays_while_the_pointer_is_on_it(browser):  # noqa: F811
    """It can be reached, read and dismissed (WCAG 1.4.13)."""
    with opened(browser, HTML / "book/04_scorecampp.html") as page:
        link = page.locator("a.term").first
        hint = page.locator("#" + str(link.get_attribute("aria-describedby")))
        link.hover()
        expect(hint).to_be_visible()
        hint.hover()
        page.wait_for_timeout(600)
        expect(hint).to_be_visible()
        page.mouse.move(2, 2)
        expect(hint).to_be_hidden()


@built
def test_a_term_leads_to_the_glossary(browser):  # noqa: F811
    with opened(browser, HTML / "book/04_scorecampp.html") as page:
        page.locator("a.term").first.press("Enter")
        page.wait_for_url("**/book/glossary.html#term-*")


@built
@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_every_link_to_a_term_has_its_hint(browser, path):  # noqa: F811
    with opened(browser, path) as page:
        bare = page.evaluate("""() => [...document.querySelectorAll('article a.reference[href*="glossary.html#term-"]')]
            .filter((link) => !link.hasAttribute('aria-describedby')).map((link) => link.textContent)""")
        assert bare == []


# --- the dark, phones, paper ------------------------------------------------------------------------------------------------


@built
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_figures_stand_on_white_in_the_dark(browser, path):  # noqa: F811
    """Their axes and words are black; nothing may dim or invert the colours of a map."""
    with opened(browser, path, color_scheme="dark") as page:
        assert page.locator("html").get_attribute("data-theme") == "dark"
        styles = page.evaluate("""() => [...document.querySelectorAll('article .cell_output img, article figure img')]
            .map((image) => getComputedStyle(image)).map((style) => [style.backgroundColor, style.filter])""")
        assert styles and {tuple(style) for style in styles} == {("rgb(255, 255, 255)", "none")}


@built
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_what_scrolls_on_a_phone_can_be_scrolled_with_the_keyboard(browser, path):  # noqa: F811
    with opened(browser, path, PHONE) as page:
        stuck = page.evaluate("""() => [...document.querySelectorAll('article *')].filter((box) => {
            const style = getComputedStyle(box);
            return ['auto', 'scroll'].includes(style.overflowX) && box.scrollWidth > box.clientWidth + 1 && box.clientWidth > 0
                && box.tabIndex < 0 && !box.querySelector('a[href], button, input, summary, [tabindex="0"]')
                && !box.closest('[tabindex="0"]');
        }).map((box) => box.outerHTML.slice(0, 120))""")
        assert stuck == []


@built
@pytest.mark.parametrize("path", CHAPTERS[:2], ids=lambda path: path.stem)
def test_paper_holds_the_text_alone(browser, path, tmp_path):  # noqa: F811
    with opened(browser, path, color_scheme="dark") as page:
        assert page.locator(".bd-sidebar-primary:visible").count() == 1, "it is there on the screen"
        page.emulate_media(media="print")
        for selector in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".bd-header-article", ".prev-next-footer", ".copybtn"):
            assert page.locator(f"{selector}:visible").count() == 0, selector
        ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert ground in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
        assert page.evaluate("() => getComputedStyle(document.querySelector('article section > p')).color") == "rgb(0, 0, 0)"
        assert page.evaluate("() => document.querySelectorAll('article details.quiz-choice[open]').length") == 0
        link = page.evaluate("""() => { const link = document.querySelector('article a.reference.external[href^="http"]');
            return link && getComputedStyle(link, '::after').content; }""")
        assert link is None or "http" in json.dumps(link)
        page.pdf(path=str(tmp_path / "page.pdf"), format="A4")
    assert (tmp_path / "page.pdf").stat().st_size > 100_000


@built
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_download_button_leads_to_the_notebook(browser, path):  # noqa: F811
    with opened(browser, path) as page:
        target = page.locator("a.btn-download-notebook").first.get_attribute("href")
        assert target and json.loads((path.parent / target).read_text(encoding="utf-8"))["cells"][0]["id"] == "install"


@built
@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_page_without_a_repository_offers_no_other_server(browser, path):  # noqa: F811
    with opened(browser, path) as page:
        assert page.locator('a[href*="mybinder.org"], a[href*="colab.research"]').count() == 0
