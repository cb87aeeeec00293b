"""Run one chapter with the parameters of a profile: `python book/run.py 04_scorecampp paper -p N_IMAGES 500`.

The finished notebook lies in `_build/runs/<profile>/<chapter>.ipynb`. A run that fails leaves `<chapter>.failed.ipynb`
instead, so that nobody takes half a run for a result.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml

from helpers.parameters import check, literals

BOOK = Path(__file__).resolve().parent


def defaults_of(notebook: Path) -> dict[str, Any]:
    """The parameters of a chapter with the values that its parameters cell gives them."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            return literals(cell.source)
    raise ValueError(f"{notebook.name} has no cell tagged `parameters`")


def profile_of(profile: str, chapter: str, book: Path = BOOK) -> dict[str, Any]:
    """The parameters that `book/profiles/<profile>/<chapter>.yaml` sets; no profile at all is called `default`."""
    if profile == "default":
        return {}
    path = book / "profiles" / profile / f"{chapter}.yaml"
    if not path.is_file():
        there = sorted(str(p.relative_to(book / "profiles")) for p in (book / "profiles").glob("*/*.yaml"))
        raise FileNotFoundError(f"there is no book/profiles/{profile}/{chapter}.yaml; there are: {', '.join(there) or 'none'}")
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"book/profiles/{profile}/{chapter}.yaml must hold `NAME: value` lines")
    return values


def run(chapter: str, profile: str, given: dict[str, Any], out: Path, book: Path = BOOK) -> Path:
    """Check the parameters, then execute the chapter in its folder; return the path of the finished notebook."""
    notebook = book / f"{chapter}.ipynb"
    if not notebook.is_file():
        raise FileNotFoundError(f"no chapter {chapter!r}; there are: {', '.join(sorted(p.stem for p in book.glob('*.ipynb')))}")
    values = profile_of(profile, chapter, book) | given
    check(values, defaults_of(notebook))
    out.mkdir(parents=True, exist_ok=True)
    half, done = out / f"{chapter}.failed.ipynb", out / f"{chapter}.ipynb"
    done.unlink(missing_ok=True)
    papermill.execute_notebook(notebook, half, values, cwd=book, kernel_name="python3", progress_bar=sys.stderr.isatty())
    return half.replace(done)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapter", help="a file of book/ without .ipynb")
    parser.add_argument("profile", nargs="?", default="default", help="a folder of book/profiles, or `default`")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="given")
    parser.add_argument("-o", "--out", type=Path, help="folder of the finished notebook")
    options = parser.parse_args(arguments)
    given = {name: yaml.safe_load(value) for name, value in options.given}
    out = options.out or BOOK.parent / "_build" / "runs" / options.profile
    try:
        print(f"finished: {run(options.chapter, options.profile, given, out)}")
    except (NameError, TypeError, ValueError, FileNotFoundError) as problem:
        sys.exit(f"{options.chapter}: {problem}")
    except papermill.PapermillExecutionError as problem:
        sys.exit(f"{problem}\n{options.chapter}: FAILED; what it did until then: {out / options.chapter}.failed.ipynb")


if __name__ == "__main__":
    main()
