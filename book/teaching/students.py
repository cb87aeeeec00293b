"""What students must not be given yet, taken out of the sources, and looked for in whatever is made of them.

Hidden are cells tagged `solution`, dropdowns titled *Solution*, blocks of the class `instructor`, what a quiz says of its
choices, and whole pages whose front matter says `audience: instructor`. Everything else stays, outputs too: nothing is run again.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import snowballstemmer
import yaml
from bs4 import BeautifulSoup

FENCE = re.compile(r"^\s*(`{3,}|:{3,})\{([\w:-]+)\}\s*(.*)$")
WORD = re.compile(r"\w+")
STEM = snowballstemmer.stemmer("porter").stemWord  # what Sphinx makes of a word before it puts it into the search index
MARKS = re.compile(
    r"tag_solution|\{dropdown\}\s*solution|<summary[^>]*>(?:\s|<[^>]*>)*solution|class=\"[^\"]*\binstructor\b", re.I
)
RUN = 6  # so many words in a row that stand in a solution and nowhere else give it away
TEXTS = {
    ".html",
    ".bib",
    ".ipynb",
    ".md",
    ".py",
    ".txt",
    ".js",
    ".json",
    ".csv",
    ".yaml",
    ".yml",
    ".toml",
    ".cfg",
    ".inv",
    ".svg",
    ".xml",
}
# Other people's code and weights, which hold no solution of ours.
LIBRARIES = ("_static/mathjax", "_static/reveal", "_static/live/", "_static/scripts")

Notebook = dict[str, Any]  # the JSON of a notebook, as it is on disk


# ------------------------------------------------------------------------------------------------ what is hidden


def is_hidden(directive: str, title: str, options: Iterable[str]) -> bool:
    """Is this block for instructors only?"""
    folded_solution = directive in ("dropdown", "admonition") and title.strip().lower().startswith("solution")
    return folded_solution or any(re.match(r"\s*:class(-container)?:.*\binstructor\b", line) for line in options)


def split_markdown(text: str) -> tuple[str, list[str]]:
    """The text without its hidden blocks, and the hidden blocks. A block that is never closed is an error: half would stay."""
    lines, kept, hidden = text.split("\n"), [], []
    i = 0
    while i < len(lines):
        opening = FENCE.match(lines[i])
        if not opening:
            kept.append(lines[i])
            i += 1
            continue
        end = end_of_block(lines, i, opening[1])
        options = takewhile(lambda line: re.match(r"\s*:[\w-]+:", line), lines[i + 1 : end])
        if is_hidden(opening[2], opening[3], options):
            hidden.append("\n".join(lines[i : end + 1]))
            i = end + 1
            if kept and not kept[-1].strip() and i < len(lines) and not lines[i].strip():
                i += 1  # one empty line is enough where two were around the block
        else:  # what it holds may be hidden: go on inside
            kept.append(lines[i])
            i += 1
    return "\n".join(kept), hidden


def end_of_block(lines: list[str], start: int, fence: str) -> int:
    """The line that closes the block opened at `start`; blocks of the same fence inside it are closed first."""
    depth = 1
    for i in range(start + 1, len(lines)):
        line = lines[i].strip()
        inner = FENCE.match(lines[i])
        if inner and inner[1][0] == fence[0] and len(inner[1]) >= len(fence):
            depth += 1
        elif set(line) == {fence[0]} and len(line) >= len(fence):
            depth -= 1
            if not depth:
                return i
    raise ValueError(f"the block {lines[start].strip()!r} is never closed")


def source_of(cell: dict[str, Any]) -> str:
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def tags_of(cell: dict[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


def split_notebook(nb: Notebook) -> tuple[Notebook, list[str]]:
    """The notebook for students, and all text that was taken out of it: sources and what they printed."""
    cells, hidden = [], []
    for cell in nb["cells"]:
        if "solution" in tags_of(cell):
            hidden += [source_of(cell), *printed(cell)]
        elif cell["cell_type"] == "markdown":
            text, blocks = split_markdown(source_of(cell))
            hidden += blocks
            if text.strip():
                cells.append({**cell, "source": text.strip("\n") if blocks else cell["source"]})
        else:
            cells.append(cell)
    return {**nb, "cells": cells}, hidden


def split_quiz(text: str) -> tuple[str, list[str]]:
    """A quiz with its questions and choices only, and the reasons and numbers that were taken out."""
    asked, hidden = [], []
    for question in yaml.safe_load(text):
        kept = {key: question[key] for key in ("name", "ask", "several") if key in question}
        if "choices" in question:
            kept["choices"] = [{"text": choice["text"]} for choice in question["choices"]]
        asked.append(kept)
        hidden += [str(part[key]) for part in parts_of(question) for key in ("because", "otherwise", "work") if key in part]
    return yaml.safe_dump(asked, allow_unicode=True, sort_keys=False, width=1000), hidden


def parts_of(question: dict[str, Any]) -> list[dict[str, Any]]:
    """A question of a quiz, its choices and its wrong numbers: whatever has a reason."""
    return [question, *question.get("choices", []), *question.get("wrong", [])]


def printed(cell: dict[str, Any]) -> Iterator[str]:
    """All that a cell shows as text."""
    for output in cell.get("outputs", []):
        shown = [output.get("text", ""), *(value for kind, value in output.get("data", {}).items() if kind.startswith("text/"))]
        yield from ("".join(text) for text in shown)


def front_matter(text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    return (yaml.safe_load(found[1]) or {}) if found else {}


def for_instructors(path: Path) -> bool:
    """Is the whole page for instructors?"""
    return path.suffix == ".md" and front_matter(path.read_text(encoding="utf-8")).get("audience") == "instructor"


def without_pages(toc: dict[str, Any], pages: set[str]) -> dict[str, Any]:
    """The table of contents without these pages, and without parts that are empty then."""

    def prune(node: Any) -> Any:
        if isinstance(node, list):
            return [prune(child) for child in node if not (isinstance(child, dict) and child.get("file") in pages)]
        if isinstance(node, dict):
            found = {key: prune(value) for key, value in node.items()}
            return {key: value for key, value in found.items() if value != [] or key not in ("sections", "chapters", "parts")}
        return node

    pruned = prune(toc)
    if "parts" in pruned:
        pruned["parts"] = [part for part in pruned["parts"] if part.get("chapters")]
    return pruned


# ------------------------------------------------------------------------------------------------ what gives it away


def words(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def runs(text: str) -> set[tuple[str, ...]]:
    """Every `RUN` words in a row; of a shorter text, the whole."""
    found = words(text)
    return {tuple(found[i : i + RUN]) for i in range(max(1, len(found) - RUN + 1))} if found else set()


def stems(texts: Iterable[str]) -> set[str]:
    return {STEM(word) for word in {word for text in texts for word in words(text)}}


class Secrets:
    """What stands in hidden text and nowhere else: runs of words, and stems of words that a search index would list."""

    def __init__(self, hidden: Iterable[str], public: Iterable[str]) -> None:
        self.hidden, public = [text for text in hidden if text.strip()], list(public)
        told: set[tuple[str, ...]] = set().union(*map(runs, public))
        untold: set[tuple[str, ...]] = set().union(*map(runs, self.hidden)) - told
        self.runs = {run for run in untold if not "".join(run).isdigit()}  # six short numbers stand in many a table
        known = stems(public)
        self.stems = {stem for stem in stems(self.hidden) if len(stem) > 4 and stem not in known}

    def leaks(self, folder: Path) -> list[str]:
        """One line for every file below `folder` that holds a secret."""
        return [f"{path.relative_to(folder)}: {why}" for path in sorted(folder.rglob("*")) for why in self.leaks_of(path, folder)]

    def leaks_of(self, path: Path, folder: Path) -> list[str]:
        inside = path.relative_to(folder).as_posix()
        if "_sources" in path.relative_to(folder).parts and path.is_file():
            return ["a copied source"]
        if not path.is_file() or path.suffix not in TEXTS or any(library in inside for library in LIBRARIES):
            return []
        found = {run for text in texts_of(path) for run in runs(text)} & self.runs
        problems = [f"“{' '.join(min(found))}” and {len(found) - 1} more"] if found else []
        problems += marks_of(path)
        if path.name == "searchindex.js":  # no sentences there, only words
            listed = set(words(path.read_text(encoding="utf-8"))) & self.stems
            problems += [f"the index lists {', '.join(sorted(listed)[:5])}"] if listed else []
        return problems


def marks_of(path: Path) -> list[str]:
    """What marks a solution, whatever its words: a second look that does not rest on what was taken out."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found = [tag for cell in cells for tag in tags_of(cell) if tag == "solution"]
        found += [
            source_of(cell)[:40] for cell in cells if cell["cell_type"] == "markdown" and split_markdown(source_of(cell))[1]
        ]
        return [f"marked as a solution: {found[0]!r}"] if found else []
    if path.suffix not in (".html", ".md"):
        return []
    if path.suffix == ".md" and (split_markdown(path.read_text(encoding="utf-8"))[1] or for_instructors(path)):
        return ["it has a block for instructors, or is for them as a whole"]
    found = MARKS.search(path.read_text(encoding="utf-8", errors="replace"))
    return [f"marked as a solution: {found[0]!r}"] if found else []


def texts_of(path: Path) -> list[str]:
    """What a reader could get out of a file: its text as it is and, where it has markup, without the markup."""
    if path.suffix == ".inv":  # Sphinx's list of all headings and figures: four lines, the rest compressed
        return [zlib.decompress(path.read_bytes().split(b"\n", 4)[4]).decode("utf-8")]
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".ipynb":
        nb = json.loads(text)
        return [piece for cell in nb["cells"] for piece in (source_of(cell), *printed(cell), json.dumps(cell["metadata"]))]
    if path.suffix in (".html", ".svg", ".xml"):
        page = BeautifulSoup(re.sub(r"<\?xml.*?\?>", "", text), "html.parser")
        return [page.get_text(""), page.get_text(" "), *(str(tag) for tag in page.find_all("script", src=False))]
    return [text]


def public_texts(folder: Path) -> list[str]:
    """The words of all that students get as sources: what stands there is no secret. Tables of numbers have no words."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in TEXTS - {".csv"})
    return [text for path in paths if not any(library in path.as_posix() for library in LIBRARIES) for text in texts_of(path)]
