"""What all tests share: no progress bars, and a closing account of what ran and what was skipped, and why."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import HTML, served, started
from playwright.sync_api import Browser

if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))) > 1:  # pytest -n: each worker and its kernels get their share
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
os.environ["TQDM_DISABLE"] = "1"  # a progress bar would end up in the compared output of a cell
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment, not one of the user's

GROUPS = {
    "test_architecture.py": "architecture (who may import whom)",
    "test_book.py": "book guards (notebooks, built pages, links)",
    "test_browser.py": "browser (pages without a network)",
    "test_browser_reading.py": "browser (accessibility, quizzes, paper)",
    "test_reading.py": "what helps a reader (quizzes, hints, status)",
    "test_contributing.py": "what helps a contributor (template, hooks)",
    "test_live.py": "live page (the network in a browser)",
    "test_live_build.py": "live page (the network in a browser)",
    "test_explorer.py": "explorer (what is stored, and the live view)",
    "test_explorer_page.py": "browser (pages without a network)",
    "test_notebooks.py": "chapters executed by papermill",
    "test_teaching.py": "teaching (plans, assignments, slides, builds)",
}


@pytest.fixture(scope="module")  # not longer: Playwright's event loop would stand in the way of papermill's
def browser() -> Iterator[Browser]:
    with started() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def localhost() -> Iterator[str]:
    """The built book behind a server."""
    with served(HTML) as address:
        yield address


def group_of(nodeid: str) -> str:
    """The line of the closing account that a test belongs to."""
    name = Path(nodeid.partition("::")[0]).name
    return (
        "chapters' cells against their stored output (nbval)" if name.endswith(".ipynb") else GROUPS.get(name, "code of helpers")
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each of several processes must give a test the same name."""
    if changing := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"a test's name holds a place in memory; pass ids=named (tests/networks.py): {changing[0]}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: set[str] = set()
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in terminalreporter.stats.get(outcome, []):
            counts[group_of(report.nodeid)][outcome] += 1
            if outcome == "skipped" and isinstance(report.longrepr, tuple):
                reasons.add(f"{group_of(report.nodeid)}: {report.longrepr[2].removeprefix('Skipped: ')}")
    terminalreporter.section("what was run", sep="-")
    for group in sorted(counts):
        terminalreporter.line(f"{group:55s} " + ", ".join(f"{n} {outcome}" for outcome, n in counts[group].items()))
    for reason in sorted(reasons):
        terminalreporter.line(f"SKIPPED {reason}", yellow=True)
