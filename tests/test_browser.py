"""The built pages in a headless Chromium, from the disk and without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"
START = HTML / "index.html"  # sends the reader on to the first page of the book
PAGES = sorted(path for path in HTML.rglob("*.html") if "_static" not in path.parts and path != START)
STATIC = HTML / "_static"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
DESK, PHONE = 1280, 375  # widths of a window, in pixels
REQUIRED = "SEEING_WHY_REQUIRE_BROWSER"

pytestmark = pytest.mark.browser
built = pytest.mark.skipif(not PAGES, reason="the book is not built: `make book` first")

READY = "async () => { if (window.MathJax && MathJax.startup) await MathJax.startup.promise; await document.fonts.ready; }"
PROBLEMS = """() => {
  const list = (selector, test) => [...document.querySelectorAll(selector)].filter(test);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  return [
    ...list('img', i => !(i.complete && i.naturalWidth > 0)).map(i => 'picture not loaded: ' + i.getAttribute('src')),
    ...list('.math', e => !e.querySelector('mjx-container')).map(e => 'equation not drawn: ' + e.textContent.slice(0, 60)),
    ...list('mjx-container [data-mml-node="merror"], mjx-container [fill="red"], mjx-container [data-mjx-error]', () => true)
        .map(e => 'equation with an error: ' + (e.getAttribute('data-mjx-error') || e.textContent)),
    ...(document.title.trim() ? [] : ['no title']),
    ...(wide > 1 ? ['the page is ' + wide + ' pixels wider than its window'] : []),
  ];
}"""


def find_chromium(own: str) -> str | None:
    """A Chromium on the PATH, or else the one that Playwright installed itself."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))
    return next((path for path in found if path), own if Path(own).is_file() else None)


def no_browser(reason: str) -> None:
    """Skip for want of a browser, or fail where a browser is demanded."""
    if os.environ.get(REQUIRED, "") not in ("", "0"):
        pytest.fail(f"{reason}, and {REQUIRED} is set")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = find_chromium(playwright.chromium.executable_path)
        if path is None:
            no_browser("no Chromium on the PATH (chromium, chromium-browser, google-chrome) nor of Playwright's")
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


def problems_of(browser: Browser, path: Path) -> list[str]:
    """Open a page from the disk, on a desk, then on a telephone; all that went wrong, a request that left the disk included."""
    problems: list[str] = []

    def only_from_disk(route: Any) -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            problems.append(f"the page asked the network for {route.request.url}")
            route.abort()

    context = browser.new_context(viewport={"width": DESK, "height": 900}, service_workers="block")
    try:
        context.route("**/*", only_from_disk)
        page = context.new_page()
        page.on("console", lambda message: problems.append(f"console: {message.text}") if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("requestfailed", lambda request: problems.append(f"not loaded: {request.url} ({request.failure})"))
        page.goto(path.as_uri(), wait_until="load")
        page.evaluate(READY)
        problems += page.evaluate(PROBLEMS)
        page.set_viewport_size({"width": PHONE, "height": 900})
        return list(
            dict.fromkeys(problems + [f"on a telephone: {line}" for line in page.evaluate(PROBLEMS) if line not in problems])
        )
    finally:
        context.close()


@built
@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(HTML)) for path in PAGES])
def test_page_is_whole_without_a_network_on_a_desk_and_a_telephone(browser, path):
    assert problems_of(browser, path) == []


@built
def test_index_sends_the_reader_to_the_first_page(browser):
    page = browser.new_page()
    try:
        page.goto(START.as_uri())
        page.wait_for_url("**/book/intro.html", timeout=20_000)
    finally:
        page.close()


MATHJAX = f'<script src="{(STATIC / "mathjax/tex-svg-full.js").as_uri()}"></script>'


@built
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('<img src="missing.png">', "picture not loaded"),
        ('<span class="math">\\(x\\)</span>', "equation not drawn"),
        (f'{MATHJAX}<span class="math">\\(\\frac{{1}}\\)</span>', "equation with an error"),
        (f'{MATHJAX}<span class="math">\\(\\nosuchmacro\\)</span>', "equation with an error"),
        ('<script src="https://example.org/x.js"></script>', "asked the network"),
        ("<script>fetch('https://example.org/x.json').catch(() => 0)</script>", "asked the network"),
        ("<script>console.error('oh')</script>", "console: oh"),
        ("<script>throw new Error('no')</script>", "script error"),
        ('<link rel="stylesheet" href="missing.css">', "not loaded"),
        ('<div style="width: 3000px">wide</div>', "wider than its window"),
        ('<div style="width: 500px">wide</div>', "on a telephone: the page is"),
    ],
)
def test_a_bad_page_is_found(browser, tmp_path, body, words):
    (tmp_path / "bad.html").write_text(
        f"<!doctype html><html><head><title>T</title></head><body>{body}</body></html>", encoding="utf-8"
    )
    assert any(words in problem for problem in problems_of(browser, tmp_path / "bad.html"))


@built
def test_a_page_without_a_title_is_found_and_a_good_one_is_not(browser, tmp_path):
    maths = r"\(\boldsymbol{x} + \mathbb{R} + \operatorname{relu}(x)\)"
    good = f'<!doctype html><title>T</title>{MATHJAX}<p class="math">{maths}</p>'
    (tmp_path / "good.html").write_text(good, encoding="utf-8")
    assert problems_of(browser, tmp_path / "good.html") == []
    (tmp_path / "bad.html").write_text(good.replace("<title>T</title>", ""), encoding="utf-8")
    assert problems_of(browser, tmp_path / "bad.html") == ["no title"]


def test_a_demanded_browser_is_never_skipped(monkeypatch):
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match=REQUIRED):
        no_browser("none here")
    monkeypatch.delenv(REQUIRED)
    with pytest.raises(pytest.skip.Exception):
        no_browser("none here")


def test_where_a_chromium_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    own = tmp_path / "own"
    assert find_chromium(str(own)) is None
    own.touch()
    assert find_chromium(str(own)) == str(own)
    (tmp_path / "google-chrome").touch(mode=0o755)
    assert find_chromium(str(own)) == str(tmp_path / "google-chrome")
