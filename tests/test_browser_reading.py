"""The built pages as readers use them: search, solutions, dark, phones, paper, accessibility (axe), quizzes, hints; offline."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chromium import DESK, HTML, PAGES, PHONE, READY, WIDTHS, book_is_built, findings, watched
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser

OURS = [path for path in PAGES if path.parent.name != "slides"]
CHAPTERS = [path for path in OURS if path.stem[:2].isdigit() and not path.stem.startswith("00")]
QUIZZES = (HTML.parents[1] / "book/quizzes").glob("*.yaml")
WITH_NUMBERS = {path.stem for path in QUIZZES if re.search("^  value:", path.read_text(encoding="utf-8"), re.MULTILINE)}

# Many words of code share a colour, and an equation is a drawing of hundreds of strokes: one word of each colour and the frame of
# the drawing are enough for axe, which takes five times as long over all of them.
THIN = """() => {
  const still = '<style>* { transition: none !important; animation: none !important; }</style>';  // no colours half-way
  document.head.insertAdjacentHTML('beforeend', still);
  document.querySelectorAll('article details').forEach((box) => { box.open = true; });  // what is folded away is looked at, too
  const seen = new Set();
  document.querySelectorAll('article pre span').forEach((word) => {
    const kind = [word.className, !!word.closest('.cell_output'), !!word.closest('.admonition')].join();
    if (seen.has(kind) || word.textContent.length < 2) word.replaceWith(...word.childNodes);  // axe weighs no single sign
    else seen.add(kind);
  });
  document.querySelectorAll('mjx-container svg > *').forEach((stroke) => stroke.remove());
}"""


@contextmanager
def opened(browser: Browser, where: Path | str, width: int = DESK, but: str = "$^", **context: Any) -> Iterator[Page]:
    """A page, from the disk if it is a path, drawn to the end; a request to elsewhere or an error fails the test.

    but: a pattern of problems that are meant to be.
    """
    with watched(browser, where.as_uri() if isinstance(where, Path) else where, width, **context) as (page, problems):
        if context.get("java_script_enabled", True):
            page.evaluate(READY)
        yield page
        assert [line for line in problems if not re.search(but, line)] == []


# Sphinx's search asks for the pages that it has found, for their summaries. From the disk it may not, and shows them without.
NO_SUMMARIES = r"Access to fetch at 'file:|net::ERR_FAILED|Failed to fetch"

# --- finding one's way ------------------------------------------------------------------------------------------------------


@book_is_built
@WIDTHS
@pytest.mark.parametrize("place", ["disk", "localhost"])
def test_a_reader_searches_and_finds(browser, localhost, width, place):
    start: Path | str = HTML / "book/citing.html" if place == "disk" else f"{localhost}/book/citing.html"
    with opened(browser, start, width, but=NO_SUMMARIES if place == "disk" else "$^") as page:
        page.locator(".search-button__button:visible, .search-button-field:visible").first.click()
        field = page.locator("#pst-search-dialog input[name=q]")
        expect(field).to_be_focused()
        field.fill("squashing")
        field.press("Enter")
        page.wait_for_url("**/search.html?q=squashing")
        expect(page.locator("#search-results .search-summary, #search-results p").first).to_contain_text(
            re.compile(r"[1-9]\d* page")
        )
        page.locator("#search-results li a", has_text="ScoreCAM").first.click()
        page.wait_for_url("**/04_scorecampp.html*")
        expect(page.locator("article")).to_contain_text("squashing")


@book_is_built
def test_a_word_that_is_not_there_is_said_not_to_be(browser):
    with opened(browser, HTML / "search.html") as page:
        page.goto((HTML / "search.html").as_uri() + "?q=xylophonist")
        expect(page.locator("#search-results")).to_contain_text("did not match any documents")


@book_is_built
def test_on_a_telephone_the_contents_slide_in_and_out(browser):
    with opened(browser, HTML / "book/04_scorecampp.html", PHONE) as page:
        link = page.locator("nav.bd-links a", has_text="SISE").first
        expect(link).to_be_hidden()
        page.locator("button.primary-toggle").click()
        expect(link).to_be_visible()
        page.keyboard.press("Escape")
        expect(link).to_be_hidden()
        page.locator("button.primary-toggle").click()
        link.click()
        page.wait_for_url("**/05_sise.html")


# --- solutions and folded code ------------------------------------------------------------------------------------------------


@book_is_built
@WIDTHS
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_solutions_are_folded_and_open_with_the_keyboard(browser, path, width):
    with opened(browser, path, width) as page:
        assert page.locator("article details[open]").count() == 0
        answers = page.locator("article .tag_solution details, article details.sd-dropdown")
        assert answers.count() >= 4
        for n in range(answers.count()):
            summary = answers.nth(n).locator("summary").first
            inside = answers.nth(n).locator(":scope > :not(summary)").first
            expect(inside).to_be_hidden()
            summary.press("Enter")
            expect(inside).to_be_visible()
            summary.press("Space")
            expect(inside).to_be_hidden()


# --- accessibility --------------------------------------------------------------------------------------------------------


@book_is_built
@pytest.mark.slow
@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(HTML)))
def test_axe_finds_nothing_serious(browser, path):
    """Everything on a light page with all that is folded open, colours in the dark, and what scrolls on a telephone."""
    with opened(browser, path, reduced_motion="reduce") as page:
        page.evaluate(THIN)
        found = findings(page)
        page.emulate_media(color_scheme="dark")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        found += findings(page, "color-contrast")
        page.set_viewport_size({"width": PHONE, "height": 900})
        assert found + findings(page, "scrollable-region-focusable") == []


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('<img src="data:,">', "image-alt"),
        ('<p style="color: #999; background: #fff">hard to read</p>', "color-contrast"),
        ('<details><summary>s</summary><p style="color: #999; background: #fff">folded</p></details>', "color-contrast"),
        ('<pre><span class="k">if</span> <span class="n" style="color: #999">word</span></pre>', "color-contrast"),
        ("<input>", "label"),
        ('<a href="#x"></a>', "link-name"),
    ],
)
def test_axe_is_really_asked(browser, tmp_path, body, rule):
    html = f'<!doctype html><html lang="en"><title>T</title><body><main><article><h1>T</h1>{body}</article></main></body></html>'
    (tmp_path / "bad.html").write_text(html, encoding="utf-8")
    (tmp_path / "good.html").write_text(html.replace(body, "<p>fine</p>"), encoding="utf-8")
    for name, wanted in (("bad", True), ("good", False)):
        with opened(browser, tmp_path / f"{name}.html") as page:
            page.evaluate(THIN)
            assert any(line.startswith(f"{rule}:") for line in findings(page)) is wanted


@book_is_built
def test_what_opens_says_what_it_opens(browser):
    """The theme names the arrows of the contents not at all, and all folded code alike."""
    with opened(browser, HTML / "book/04_scorecampp.html") as page:
        expect(page.locator("li.has-children > details > summary").first).to_have_accessible_name(
            re.compile("Teaching with this book")
        )
        expect(page.locator("article details.hide > summary").first).to_have_accessible_name("Show code cell source")


# --- quizzes --------------------------------------------------------------------------------------------------------------


@book_is_built
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_quiz_is_answered_with_the_keyboard(browser, path):
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


def numbers_of(page: Page) -> list[dict[str, Any]]:
    """The questions for a number on a page: id of the field, the right number, the expected wrong ones."""
    return page.evaluate("""() => [...document.querySelectorAll('.quiz-question:has(.quiz-entry)')].map((question) => ({
        field: question.querySelector('input').id,
        values: [...question.querySelectorAll('.quiz-because[data-value]')].map((reason) => reason.dataset.value) }))""")


@book_is_built
@pytest.mark.parametrize("path", [path for path in CHAPTERS if path.stem in WITH_NUMBERS], ids=lambda path: path.stem)
def test_a_number_is_told_right_from_wrong(browser, path):
    with opened(browser, path) as page:
        questions = numbers_of(page)
        assert questions
        for question in questions:
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


@book_is_built
def test_without_a_script_answers_open_and_the_field_stays_away(browser):
    path = HTML / "book/04_scorecampp.html"
    with opened(browser, path, but=r"\(csp\)", java_script_enabled=False) as page:
        choice = page.locator("details.quiz-choice").first
        expect(choice.locator(".quiz-because")).to_be_hidden()
        choice.locator("summary").click()
        expect(choice.locator(".quiz-because")).to_be_visible()
        expect(page.locator(".quiz-entry").first).to_be_hidden()
        page.locator("details.quiz-solution summary").first.click()
        expect(page.locator("details.quiz-solution .quiz-because").first).to_be_visible()


# --- the glossary under the pointer ---------------------------------------------------------------------------------------


@book_is_built
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_term_explains_itself_on_focus(browser, path):
    with opened(browser, path) as page:
        link = page.locator("a.term").first
        hint = page.locator("#" + (link.get_attribute("aria-describedby") or "nothing"))
        for width in (DESK, PHONE):
            page.set_viewport_size({"width": width, "height": 900})
            expect(hint).to_be_hidden()
            link.focus()
            expect(hint).to_be_visible()
            assert len(hint.inner_text().strip()) > 20
            box = hint.bounding_box()
            assert box and box["x"] >= 0 and box["x"] + box["width"] <= width
            page.keyboard.press("Escape")
            expect(hint).to_be_hidden()
            expect(link).to_be_focused()
            link.blur()


@book_is_built
def test_a_hint_stays_while_the_pointer_is_on_it(browser):
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


@book_is_built
def test_a_term_leads_to_the_glossary(browser):
    with opened(browser, HTML / "book/04_scorecampp.html") as page:
        page.locator("a.term").first.press("Enter")
        page.wait_for_url("**/book/glossary.html#term-*")


# --- the dark, phones, paper ------------------------------------------------------------------------------------------------


STUCK = """() => [...document.querySelectorAll('article *')].filter((box) => {
    const style = getComputedStyle(box);
    return ['auto', 'scroll'].includes(style.overflowX) && box.scrollWidth > box.clientWidth + 1 && box.clientWidth > 0
        && box.tabIndex < 0 && !box.querySelector('a[href], button, input, summary, [tabindex="0"]')
        && !box.closest('[tabindex="0"]');
}).map((box) => box.outerHTML.slice(0, 120))"""
BARE = """() => [...document.querySelectorAll('article a.reference[href*="glossary.html#term-"]')]
    .filter((link) => !link.hasAttribute('aria-describedby')).map((link) => link.textContent)"""
LOST = """() => [...document.querySelectorAll('.quiz-see a')]
    .filter((link) => !document.getElementById(decodeURIComponent(link.hash.slice(1)))).map((link) => link.href)"""
GROUNDS = """() => [...document.querySelectorAll('article .cell_output img, article figure img')]
    .map((image) => getComputedStyle(image)).map((style) => [style.backgroundColor, style.filter, style.opacity].join(' '))"""


@book_is_built
@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(HTML)))
def test_a_page_in_the_dark_on_a_telephone(browser, path):
    """Figures stand on white, for their axes are black, and nothing dims a map; keys scroll what scrolls; terms have hints."""
    with opened(browser, path, PHONE, color_scheme="dark") as page:
        assert page.locator("html").get_attribute("data-theme") == "dark"
        assert set(page.evaluate(GROUNDS)) <= {"rgb(255, 255, 255) none 1"}
        assert page.evaluate(STUCK) == [] and page.evaluate(BARE) == [] and page.evaluate(LOST) == []
        assert page.locator('a[href*="mybinder.org"], a[href*="colab.research"]').count() == 0, "there is no repository yet"
        if path in CHAPTERS:
            assert page.locator("article .cell_output img").count() >= 3 and page.locator(".quiz-see a").count() >= 10
            target = page.locator("a.btn-download-notebook").first.get_attribute("href")
            assert target and json.loads((path.parent / target).read_text(encoding="utf-8"))["cells"][0]["id"] == "install"


@book_is_built
@WIDTHS
def test_the_dark_is_switched_on_and_stays(browser, width):
    with opened(browser, HTML / "book/04_scorecampp.html", width, color_scheme="light") as page:
        html, switch = page.locator("html"), page.locator("button.theme-switch-button:visible").first
        expect(html).to_have_attribute("data-theme", "light")
        for _ in range(3):  # the system's, light, dark
            if html.get_attribute("data-theme") == "light":
                switch.click()
        expect(html).to_have_attribute("data-theme", "dark")
        page.goto((HTML / "book/05_sise.html").as_uri())
        expect(html).to_have_attribute("data-theme", "dark")
        assert set(page.evaluate(GROUNDS)) == {"rgb(255, 255, 255) none 1"}


@book_is_built
@pytest.mark.parametrize("path", CHAPTERS[:2], ids=lambda path: path.stem)
def test_paper_holds_the_text_alone(browser, path, tmp_path):
    with opened(browser, path, color_scheme="dark") as page:
        assert page.locator(".bd-sidebar-primary:visible").count() == 1, "it is there on the screen"
        page.emulate_media(media="print")
        for selector in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".bd-header-article", ".prev-next-footer", ".copybtn"):
            assert page.locator(f"{selector}:visible").count() == 0, selector
        ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert ground in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
        assert page.evaluate("() => getComputedStyle(document.querySelector('article section > p')).color") == "rgb(0, 0, 0)"
        words = "() => [...document.querySelectorAll('article .highlight span')].map((word) => getComputedStyle(word).color)"
        assert set(page.evaluate(words)) == {"rgb(0, 0, 0)"}, "code in the colours of a dark page"
        assert page.evaluate("() => document.querySelectorAll('article details.quiz-choice[open]').length") == 0
        link = page.evaluate("""() => {
            const link = document.querySelector('article a.reference.external[href^="http"]:not(#papers-of-this-chapter a)');
            return link && getComputedStyle(link, '::after').content; }""")
        assert link is None or "http" in json.dumps(link)
        page.pdf(path=str(tmp_path / "page.pdf"), format="A4")
    assert (tmp_path / "page.pdf").stat().st_size > 100_000


# --- slides -------------------------------------------------------------------------------------------------------------------


@book_is_built
def test_the_speakers_window_shows_notes_once_and_the_slide_as_the_room_sees_it(browser):
    slides = HTML / "slides/04_scorecampp.html"
    with opened(browser, slides) as page:
        equations = page.locator("aside.notes mjx-container")
        expect(equations.first).to_be_attached()
        page.wait_for_function("() => document.querySelectorAll('aside.notes mjx-assistive-mml').length === 0")
        assert equations.count() > 5 and page.locator("section > .math mjx-assistive-mml").count() > 0
    for query, scrolls in (("?receiver", False), ("", True)):  # the speaker's slide is as narrow as a telephone
        with opened(browser, slides.as_uri() + query, 640) as page:
            assert (page.locator(".reveal-scroll").count() > 0) is scrolls
