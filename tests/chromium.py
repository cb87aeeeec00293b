"""What the browser tests share: a headless Chromium, a server, a page that is watched, what axe says of it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"
START = HTML / "index.html"  # sends the reader on to the first page of the book
PAGES = sorted(path for path in HTML.rglob("*.html") if "_static" not in path.parts and path != START)
DESK, PHONE = 1280, 375  # widths of a window, in pixels
WIDTHS = pytest.mark.parametrize("width", [DESK, PHONE], ids=["desk", "phone"])
REQUIRED = "SEEING_WHY_REQUIRE_BROWSER"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
book_is_built = pytest.mark.skipif(not PAGES, reason="the book is not built: `make book` first")

# Drawn to the end: equations and fonts.
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
AXE = """async (rules) => {
  const only = rules && { runOnly: { type: 'rule', values: rules } };
  // preload: axe would ask for the style sheets once more, which a page from disk may not
  const found = await axe.run(document, { resultTypes: ['violations'], preload: false, ...only });
  return found.violations.flatMap((rule) => rule.nodes.map((node) => ({
    rule: rule.id, impact: node.impact || rule.impact, help: rule.helpUrl, target: node.target.join(' '),
    html: node.html.slice(0, 160), why: (node.failureSummary || '').slice(0, 300) })));
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


@contextmanager
def started() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        path = find_chromium(playwright.chromium.executable_path)
        if path is None:
            no_browser("no Chromium on the PATH (chromium, chromium-browser, google-chrome) nor of Playwright's")
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder behind Python's own web server, the plainest there is."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@contextmanager
def watched(browser: Browser, address: str, width: int = DESK, **context: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page, loaded, and what has gone wrong on it so far: a request to another place, an error, a file not loaded."""
    home = "file:" if address.startswith("file:") else "/".join(address.split("/")[:3]) + "/"
    problems: list[str] = []

    def only_from_home(route: Any) -> None:
        if route.request.url.startswith((home, "data:", "blob:")):
            route.continue_()
        else:
            problems.append(f"the page asked the network for {route.request.url}")
            route.abort()

    window = browser.new_context(viewport={"width": width, "height": 900}, service_workers="block", **context)
    try:
        window.route("**/*", only_from_home)
        page = window.new_page()
        page.on("console", lambda message: problems.append(f"console: {message.text}") if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("requestfailed", lambda request: problems.append(f"not loaded: {request.url} ({request.failure})"))
        page.goto(address, wait_until="load", timeout=60_000)
        yield page, problems
    finally:
        window.close()


def findings(page: Page, *rules: str) -> list[str]:
    """What axe calls serious or critical, one line each."""
    if page.evaluate("() => typeof axe === 'undefined'"):
        page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    return [
        f"{found['rule']}: {found['html']} at {found['target']}; {found['why']} {found['help']}"
        for found in page.evaluate(AXE, list(rules) or None)
        if found["impact"] in ("serious", "critical")
    ]
