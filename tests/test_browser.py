"""The built pages in a headless Chromium, from the disk and without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import DESK, HTML, PAGES, PHONE, PROBLEMS, READY, REQUIRED, START, book_is_built, find_chromium, no_browser, watched
from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def problems_of(browser: Browser, path: Path) -> list[str]:
    """Open a page from the disk, on a desk, then on a telephone; all that went wrong, a request that left the disk included."""
    with watched(browser, path.as_uri(), DESK) as (page, problems):
        page.evaluate(READY)
        problems += page.evaluate(PROBLEMS)
        page.set_viewport_size({"width": PHONE, "height": 900})
        on_a_phone = [f"on a telephone: {line}" for line in page.evaluate(PROBLEMS) if line not in problems]
        return list(dict.fromkeys(problems + on_a_phone))


@book_is_built
@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(HTML)) for path in PAGES])
def test_page_is_whole_without_a_network_on_a_desk_and_a_telephone(browser, path):
    assert problems_of(browser, path) == []


@book_is_built
def test_index_sends_the_reader_to_the_first_page(browser):
    page = browser.new_page()
    try:
        page.goto(START.as_uri())
        page.wait_for_url("**/book/intro.html", timeout=20_000)
    finally:
        page.close()


MATHJAX = f'<script src="{(HTML / "_static/mathjax/tex-svg-full.js").as_uri()}"></script>'


@book_is_built
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


@book_is_built
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
