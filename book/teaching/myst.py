"""The chapters' own Markdown for places that know no MyST: assignments in plain Jupyter, and slides.

Roles become words or links, folded blocks become `<details>`, labels of equations go. No text is written anew.
"""

from __future__ import annotations

import codecs
import html
import re
import sys
from functools import cache
from pathlib import Path

import latexcodec  # noqa: F401  # registers the codec "ulatex"
import yaml
from pybtex.database import parse_file

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book" / "_ext")]

from course_plan import heading_of  # noqa: E402

ROLE = re.compile(r"\{([\w:]+)\}`([^`]+)`")
TARGET = re.compile(r"^(.*?)\s*<([^<>]+)>$", re.DOTALL)
DOLLARS = re.compile(r"^\$\$(.*?)\$\$[ \t]*(?:\([\w-]+\))?[ \t]*$", re.DOTALL | re.MULTILINE)
DROPDOWN = re.compile(r"^(`{3,})\{dropdown\}[ ]*(.*?)\n(.*?)^\1[ ]*$", re.DOTALL | re.MULTILINE)


@cache
def cited(key: str) -> tuple[str, str]:
    """Authors and year of a reference, as in *Wang et al.*, 2020."""
    entry = parse_file(str(ROOT / "book/references.bib")).entries[key]
    people = [" ".join(person.prelast_names + person.last_names) for person in entry.persons.get("author", [])]
    people = [re.sub(r"[{}]", "", codecs.decode(name, "ulatex")) for name in people]
    who = people[0] + " et al." if len(people) > 2 else " and ".join(people)
    return who, entry.fields.get("year", "")


def role(name: str, content: str) -> str:
    """What a role says, in words. Errors: ValueError for a role that is not known here, so that none is lost in silence."""
    found = TARGET.match(content)
    said, target = (found[1], found[2]) if found else ("", content)
    if name in ("cite:t", "cite:p"):
        pairs = [cited(key.strip()) for key in target.split(",")]
        return "; ".join(f"{w} ({y})" for w, y in pairs) if name == "cite:t" else f"({'; '.join(f'{w} {y}' for w, y in pairs)})"
    if name == "doc":
        return said or heading_of(target)
    if name == "term":
        return said or target
    if name in ("numref", "ref", "eq"):
        return said or {"numref": "the figure", "ref": "the section", "eq": "the equation"}[name] + f" “{spelt(target)}”"
    if name in ("octicon", "math"):
        return "" if name == "octicon" else f"${content}$"
    raise ValueError(f"no words are known here for the role {{{name}}}`{content}`")


def spelt(label: str) -> str:
    """A label as words: `fig-scorecampp-idea` is *scorecampp idea*."""
    return " ".join(label.split("-")[1:] or [label])


def plain(text: str) -> str:
    """Markdown that needs no MyST."""
    text = ROLE.sub(lambda found: role(found[1], found[2]), text)
    text = DOLLARS.sub(lambda found: f"$${found[1]}$$", text)
    return DROPDOWN.sub(lambda found: f"<details><summary>{html.escape(found[2])}</summary>\n\n{found[3]}\n</details>", text)


def chapters() -> list[str]:
    """The names of the chapters with exercises, in the order of the table of contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [Path(page["file"]).name for part in toc["parts"] for page in part["chapters"]]
    return [name for name in files if re.match(r"0[1-9]_", name)]
