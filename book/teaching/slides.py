"""Slides of every chapter, from the chapter itself: a slide shows a figure, equations, a box or an exercise of the book.

    python book/teaching/slides.py OUT [--solutions] [CHAPTER …]     OUT lies beside _static, as _build/html/slides does

The running text becomes the speaker's notes (press S). Arrow right goes to the next section, arrow down further into one.
No text is written here: a chapter that changes, changes its slides.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book" / "teaching")]

from assignments import exercises_of  # noqa: E402
from myst import chapters, plain  # noqa: E402
from students import FENCE, end_of_block, source_of, split_markdown, tags_of  # noqa: E402

PICTURES = ("image/png", "image/jpeg")
SHORT = 16  # lines of code that fit on a slide
LONG = 700  # characters of a box that still fit on a slide in full; of a longer one the rest goes into the notes


def formula(content: str, options: dict[str, Any]) -> str:
    display = options.get("display_mode", False)
    left, right = (r"\[", r"\]") if display else (r"\(", r"\)")
    return f'<span class="math">{left}{html.escape(content)}{right}</span>'


MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin, renderer=formula, allow_digits=True)


def rendered(text: str) -> str:
    """The book's Markdown as HTML."""
    return MARKDOWN.render(plain(text))


@dataclass
class Slide:
    """One slide: what is shown, and what is said with it."""

    title: str
    body: str = ""  # HTML
    kind: str = ""
    notes: list[str] = field(default_factory=list)  # Markdown


@dataclass
class Section:
    """A heading of the chapter and the slides below it."""

    slides: list[Slide]


# ------------------------------------------------------------------------------------------------ a chapter taken apart


def blocks(markdown: str) -> Iterator[tuple[str, str, str]]:
    """Pieces of Markdown in order: (heading, level, text), (math, "", text), (prose, "", text), (directive, title, content)."""
    lines, prose = markdown.split("\n"), []

    def said() -> Iterator[tuple[str, str, str]]:
        text = "\n".join(prose).strip()
        prose.clear()
        if text:
            yield "prose", "", text

    i = 0
    while i < len(lines):
        heading, fence = re.match(r"(#{1,4}) (.+)", lines[i]), FENCE.match(lines[i])
        if heading:
            yield from said()
            yield "heading", heading[1], heading[2]
        elif fence:
            yield from said()
            end = end_of_block(lines, i, fence[1])
            inner = [line for line in lines[i + 1 : end] if not re.match(r":[\w-]+:", line)]
            yield fence[2], fence[3], "\n".join(inner).strip()
            i = end
        elif lines[i].startswith("$$"):
            yield from said()
            end = next(j for j in range(i, len(lines)) if re.search(r"\$\$[ \t]*(\([\w-]+\))?[ \t]*$", lines[j][2 * (j == i) :]))
            yield "math", "", "\n".join(lines[i : end + 1])
            i = end
        elif not re.match(r"\([\w-]+\)=$", lines[i]):
            prose.append(lines[i])
        i += 1
    yield from said()


def picture(cell: dict[str, Any]) -> tuple[str, str] | None:
    """Kind and base64 of the picture that a cell shows."""
    for output in cell.get("outputs", []):
        for kind in PICTURES:
            if kind in output.get("data", {}):
                return kind, "".join(output["data"][kind]).replace("\n", "")
    return None


def figure(cell: dict[str, Any]) -> str:
    """A figure of the chapter with its caption and its alternative text."""
    told, (kind, data) = cell["metadata"]["mystnb"], picture(cell) or ("", "")
    caption = MARKDOWN.renderInline(plain(told["figure"]["caption"]))
    return (
        f'<figure><img src="data:{kind};base64,{data}" alt="{html.escape(told["image"]["alt"])}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def deck(nb: dict[str, Any], chapter: str, *, solutions: bool = False) -> list[Section]:
    """The slides of a chapter, section by section."""
    sections: list[Section] = []
    title = ""
    for cell in nb["cells"]:
        if set(tags_of(cell)) & {"exercise", "solution"}:
            continue
        if cell["cell_type"] == "code":
            if "mystnb" in cell["metadata"] and picture(cell):
                add(sections, Slide(title, figure(cell), "figure"))
            elif title == "By hand" and "hide-input" not in tags_of(cell) and source_of(cell).count("\n") < SHORT:
                add(sections, Slide(title, f"<pre><code>{html.escape(source_of(cell))}</code></pre>", "code"))
            continue
        for kind, head, text in blocks(split_markdown(source_of(cell))[0]):
            if kind == "heading":
                title = text
                if title == "Exercises":
                    break  # they come from the same list as the assignments
                if len(head) <= 2:
                    sections.append(Section([]))
                add(sections, Slide(title, "", "title" if len(head) == 1 else "section"))
            elif kind == "math":
                shown(sections, title).body += rendered(text)
            elif kind == "admonition":
                box(sections, head, text)
            elif kind in ("prose", "margin"):
                sections[-1].slides[-1].notes.append(f"**{head}.** {text}" if head else text)
        if title == "Exercises":
            break
    sections.append(Section([Slide("Exercises", "", "section"), *(asked(e, solutions) for e in exercises_of(chapter))]))
    for kind, head, text in (b for cell in nb["cells"] if cell["cell_type"] == "markdown" for b in blocks(source_of(cell))):
        if kind == "admonition" and head == "Take-away":
            sections.append(Section([Slide(head, rendered(text), "takeaway")]))
    return sections


def add(sections: list[Section], slide: Slide) -> None:
    sections[-1].slides.append(slide)


def shown(sections: list[Section], title: str) -> Slide:
    """The slide that the next equation belongs on: the present one, unless it has a figure or a box already."""
    if sections[-1].slides[-1].kind not in ("section", "equations"):
        add(sections, Slide(title, "", "equations"))
    return sections[-1].slides[-1]


def box(sections: list[Section], title: str, text: str) -> None:
    """A box of the chapter. Of the card only question and answer are shown; of a long box the first paragraph."""
    rows = dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.*) \|$", text, re.MULTILINE))
    if {"Question", "Answer in a line"} <= rows.keys():
        first = sections[-1].slides[-1]
        first.body += rendered(f"{rows.get('Paper', '')}\n\n**{rows['Question']}**")
        first.notes += [f"{name}: {value}" for name, value in rows.items() if name not in ("Paper", "Question")]
        return
    short, _, rest = (text, "", "") if len(text) <= LONG else text.partition("\n\n")
    add(sections, Slide(title, rendered(short), "box", [rest] if rest else []))


def asked(exercise: Any, solutions: bool) -> Slide:
    """An exercise; the hint stays folded, and the solution, if it is wanted, is for the speaker."""
    text = re.sub(r"^\*\*\d+\. .+?\*\*\s*", "", exercise.text)
    notes = [f"```python\n{exercise.solution}\n```"] if solutions and exercise.solution else []
    return Slide(f"{exercise.number}. {exercise.title}", rendered(text), "exercise", notes)


# ------------------------------------------------------------------------------------------------ HTML

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: slides</title>
<link rel="icon" href="{static}/favicon.svg">
<link rel="stylesheet" href="{static}/reveal/reveal.css">
<link rel="stylesheet" href="{static}/slides.css">
<script>
// The speaker's window has no styles of MathJax's, so that it would show its hidden copies of the notes' equations, too.
const once = () => document.querySelectorAll("aside.notes mjx-assistive-mml").forEach((copy) => copy.remove());
window.MathJax = {{
  svg: {{fontCache: "local"}}, options: {{enableMenu: false}},
  startup: {{pageReady: () => MathJax.startup.defaultPageReady().then(once)}},
}};
</script>
<script defer src="{static}/mathjax/tex-svg-full.js"></script>
</head>
<body>
<main class="reveal" aria-label="Slides: {title}"><div class="slides">
{sections}
</div></main>
<p class="back"><a href="../book/{chapter}.html">The chapter</a></p>
<script src="{static}/reveal/reveal.js"></script>
<script src="{static}/reveal/notes.js"></script>
<script>
// On a telephone the slides stand one below the other, narrower, so that they can be read. The speaker's window is none.
const phone = window.innerWidth < 700 && !location.search.includes("receiver");
Reveal.initialize({{
  hash: true, width: phone ? 640 : 1280, height: phone ? 900 : 720, margin: 0.05, center: false, transition: "none",
  slideNumber: "c/t", view: phone ? "scroll" : null, scrollLayout: "compact", scrollSnap: false, plugins: [RevealNotes],
}});
</script>
</body>
</html>
"""


def drawn(slide: Slide) -> str:
    """A slide as HTML. Its heading is of the first level on the title slide only."""
    level = "h1" if slide.kind == "title" else "h2"
    notes = "".join(rendered(note) for note in slide.notes)
    aside = f'<aside class="notes">{notes}</aside>' if notes else ""
    body = slide.body or (rendered(lead(slide.notes)) if slide.kind == "section" else "")
    heading = f"<{level}>{MARKDOWN.renderInline(plain(slide.title))}</{level}>"
    return f'<section class="{slide.kind}">{heading}{body}{aside}</section>'


def lead(notes: list[str]) -> str:
    """The first sentence of what is said, for a slide that would show a heading only."""
    found = re.match(r"[^*#|:\-].*?[.?!](?=\s|$)", notes[0], re.DOTALL) if notes else None
    return found[0] if found and len(found[0]) < LONG // 2 else ""


def page(nb: dict[str, Any], chapter: str, *, solutions: bool = False, static: str = "../_static") -> str:
    """The slides of a chapter as one HTML page."""
    sections = deck(nb, chapter, solutions=solutions)
    title = html.escape(sections[0].slides[0].title)
    body = "\n".join(
        f"<section>\n{chr(10).join(map(drawn, section.slides))}\n</section>" for section in sections if section.slides
    )
    return PAGE.format(title=title, sections=body, chapter=chapter, static=static)


def write(out: Path, wanted: list[str], *, solutions: bool = False) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for chapter in wanted:
        nb = json.loads((ROOT / "book" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
        paths.append(out / f"{chapter}.html")
        paths[-1].write_text(page(nb, chapter, solutions=solutions), encoding="utf-8")
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where to write")
    parser.add_argument("chapters", nargs="*", help="all by default")
    parser.add_argument("--solutions", action="store_true", help="solutions in the speaker's notes")
    args = parser.parse_args()
    paths = write(args.out, args.chapters or chapters(), solutions=args.solutions)
    print(f"{len(paths)} sets of slides in {args.out}")


if __name__ == "__main__":
    main()
