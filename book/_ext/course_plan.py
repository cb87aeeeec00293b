"""A Sphinx extension: course plans in `book/teaching/plans.yaml` become text wherever a page says `% course-plan: 8`.

All minutes, sums and lists of exercises on those pages are computed from that one file. With `audience = "student"` in the
configuration (see `book/teaching/build.py`) what instructors prepare is left out.
"""

from __future__ import annotations

import html
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from docutils.nodes import make_id

BOOK = Path(__file__).resolve().parents[1]
PLANS = BOOK / "teaching" / "plans.yaml"
MARK = re.compile(r"^% course-plan: (\d+)$", re.MULTILINE)
WAYS = {
    "talk": "Talk",
    "live": "Run together",
    "pairs": "In pairs",
    "discuss": "Discuss",
    "exercise": "Exercise",
    "report": "Students report",
    "break": "Break",
}


def plans(path: Path = PLANS) -> dict[int, dict[str, Any]]:
    """Number of sessions -> the plan."""
    return {len(plan["sessions"]): plan for plan in yaml.safe_load(path.read_text(encoding="utf-8"))["plans"]}


def minutes(session: dict[str, Any]) -> int:
    """Minutes in class."""
    return sum(block["minutes"] for block in session["blocks"])


def hours(total: int) -> str:
    """90 becomes `1 h 30 min`."""
    return " ".join(part for part in (f"{total // 60} h" * (total >= 60), f"{total % 60} min" * (total % 60 > 0)) if part)


def path_of(page: str) -> Path:
    """The file of a page of the book. Errors: ValueError where there is none."""
    for path in (BOOK / f"{page}.ipynb", BOOK / f"{page}.md"):
        if path.is_file():
            return path
    raise ValueError(f"the book has no page {page!r}")


@cache
def markdown(page: str) -> str:
    """All Markdown of a page of the book."""
    path = path_of(page)
    text = path.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"] if path.suffix == ".ipynb" else [{"cell_type": "markdown", "source": text}]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def headings(page: str) -> dict[str, str]:
    """The ids that Sphinx gives to the headings of a page, and what the headings say."""
    return {make_id(text): text for text in re.findall(r"^#{2,4} (.+)$", markdown(page), re.MULTILINE)}


def heading_of(page: str) -> str:
    """The main heading of a page of the book."""
    return re.findall(r"^# (.+)$", markdown(page), re.MULTILINE)[0]


def section(place: str) -> str:
    """`04_scorecampp#by-hand` as a link to that heading of that chapter. Errors: KeyError for a heading that is not there."""
    page, _, heading = place.partition("#")
    return link(page, heading, headings(page)[heading]) if heading else f"{{doc}}`../{page}`"


def link(page: str, anchor: str, text: str) -> str:
    """A link from a page of book/teaching to a heading of another page."""
    return f'<a href="../{page}.html#{anchor}">{html.escape(text)}</a>'


def by_chapter(places: list[str]) -> str:
    """`04_scorecampp.1`, `04_scorecampp.2` as one link to the exercises of that chapter."""
    found: dict[str, list[str]] = {}
    for place in places:
        page, number = place.rsplit(".", 1)
        found.setdefault(page, []).append(number)
    return "; ".join(link(page, "exercises", f"{title(page)} {', '.join(numbers)}") for page, numbers in found.items())


def title(page: str) -> str:
    """The first words of a page's main heading, up to a colon."""
    return heading_of(page).split(":")[0]


def pages_of(plan: dict[str, Any]) -> set[str]:
    """The pages whose headings a plan names: where one is renamed, the plan must be told anew."""
    read = {place.partition("#")[0] for s in plan["sessions"] for block in s["blocks"] for place in block.get("read", [])}
    return read | {place.rsplit(".", 1)[0] for session in plan["sessions"] for place in session["exercises"]}


def told(plan: dict[str, Any], audience: str = "instructor") -> str:
    """The whole plan as MyST Markdown: an overview, then session by session."""
    sessions = plan["sessions"]
    class_time, home = sum(map(minutes, sessions)), sum(session["home"] for session in sessions)
    lines = [
        f"{len(sessions)} sessions of {hours(plan['length'])}: {hours(class_time)} in class, about {hours(home)} at home.",
        "",
        "| | Session | In class | At home | Exercises |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {n} | {s['title']} | {hours(minutes(s))} | {hours(s['home']) or '–'} | {by_chapter(s['exercises']) or '–'} |"
        for n, s in enumerate(sessions, 1)
    ]
    for n, session in enumerate(sessions, 1):
        lines += ["", f"## {n}. {session['title']}", "", "After it you can", ""]
        lines += [f"* {goal}" for goal in session["goals"]]
        lines += ["", "| From | Minutes | How | What |", "|---|---|---|---|"]
        start = 0
        for block in session["blocks"]:
            where = f" ({', '.join(map(section, block['read']))})" if block.get("read") else ""
            lines.append(
                f"| {start // 60}:{start % 60:02d} | {block['minutes']} | {WAYS[block['how']]} | {block['what']}{where} |"
            )
            start += block["minutes"]
        lines += ["", f"Total: {hours(start)}."]
        if session["exercises"]:
            lines += ["", f"**Exercises:** {by_chapter(session['exercises'])}."]
        if session["home"]:
            lines += ["", f"**At home** ({hours(session['home'])}): {session['homework']}"]
        if audience == "instructor":
            lines += [
                "",
                ":::{admonition} To prepare",
                ":class: instructor",
                *[f"* {thing}" for thing in session["prepare"]],
                ":::",
            ]
    return "\n".join(lines)


def insert(app: Any, docname: str, source: list[str]) -> None:
    """Replace the marks of a page that is about to be read."""
    if MARK.search(source[0]):
        known = plans()
        for path in {PLANS, *(path_of(page) for found in MARK.finditer(source[0]) for page in pages_of(known[int(found[1])]))}:
            app.env.note_dependency(str(path))
        source[0] = MARK.sub(lambda found: told(known[int(found[1])], app.config.audience), source[0])


def setup(app: Any) -> dict[str, Any]:
    app.add_config_value("audience", "instructor", "env")
    app.connect("source-read", insert)
    return {"parallel_read_safe": True}
