"""Files that should not be committed: too large, or with the marks of a merge that nobody finished.

    python tests/guard_files.py             # every file of the repository
    python tests/guard_files.py a.py b.csv  # these

Prints a line for each and ends with 1 if there is one. A hook of .github/pre-commit-config.yaml, and a test.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEGABYTES = 1.0
MAY_BE_LARGE = ("book/_static/mathjax/tex-svg-full.js", "data/results/per_image/")  # beginnings; measured values grow with a run
CONFLICT = re.compile(rb"^(?:<{7} |>{7} |={7}$)", re.MULTILINE)
IN_MARKDOWN = re.compile(rb"^(?:<{7} |>{7} )", re.MULTILINE)  # where a line of = may underline a heading
PLAIN = {".py", ".md", ".yml", ".yaml", ".toml", ".ipynb", ".css", ".js", ".csv", ".bib", ".cff", ".txt"}


def problems(paths: Iterable[Path], root: Path = ROOT) -> list[str]:
    """One line for every file that should not be committed as it is, and what to do about it."""
    found = []
    for path in paths:
        name = path.resolve().relative_to(root.resolve()).as_posix()
        if not path.is_file():
            continue
        size = path.stat().st_size / 1e6
        if size > MEGABYTES and not name.startswith(MAY_BE_LARGE):
            told = "history keeps it for ever. Smaller figures, fewer outputs, or a link to where it lies."
            found.append(f"{name} has {size:.1f} MB, more than {MEGABYTES:.0f}: {told}")
        if path.suffix in PLAIN and (IN_MARKDOWN if path.suffix == ".md" else CONFLICT).search(path.read_bytes()):
            found.append(f"{name} has the marks of a merge in it (<<<<<<<, =======, >>>>>>>): finish the merge.")
    return found


def of_repository(root: Path = ROOT) -> list[Path]:
    """All files that git knows, or nothing where there is no git."""
    result = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True)
    return [root / name for name in result.stdout.split("\0") if name]


if __name__ == "__main__":
    lines = problems([Path(name) for name in sys.argv[1:]] or of_repository())
    print("\n".join(lines), end="\n" * bool(lines))
    sys.exit(bool(lines))
