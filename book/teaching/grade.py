"""Mark assignments: the students' answers, put into the instructor's notebook, which is then run.

    python book/teaching/grade.py SOURCE SUBMITTED     SUBMITTED/<student>/<chapter>/<chapter>.ipynb, as nbgrader has it

Only the cells that a student was to fill in are taken from the submission, so that a changed check changes nothing. The cells
are run as they are: run this where a stranger's code can do no harm. Prints a table and writes SUBMITTED/marks.csv.
"""

from __future__ import annotations

import argparse
import copy
import csv
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

TIMEOUT = 900  # seconds for a cell


def marks(cell: Any) -> dict[str, Any]:
    return cell.metadata.get("nbgrader", {})


def merged(source: Any, submitted: Any) -> Any:
    """The instructor's notebook with the student's answers; an answer that is missing stays empty."""
    answers = {marks(cell)["grade_id"]: cell.source for cell in submitted.cells if marks(cell).get("solution")}
    whole = copy.deepcopy(source)
    for cell in whole.cells:
        if marks(cell).get("solution"):
            cell.source = answers.get(marks(cell)["grade_id"], "")
    return whole


def points(executed: Any) -> dict[str, float]:
    """grade_id of each check -> the points it gave: all of them, or none where it ends in an error or was never reached."""
    found = {}
    for cell in executed.cells:
        if marks(cell).get("grade"):
            failed = cell.execution_count is None or any(output.output_type == "error" for output in cell.outputs)
            found[marks(cell)["grade_id"]] = 0.0 if failed else float(marks(cell)["points"])
    return found


def graded(source: Any, submitted: Any, folder: Path) -> dict[str, float]:
    """Run a submission in `folder` and count."""
    whole = merged(source, submitted)
    NotebookClient(
        whole, timeout=TIMEOUT, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(folder)}}
    ).execute()
    return points(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the instructor's assignments, made with --source")
    parser.add_argument("submitted", type=Path, help="a folder for each student")
    args = parser.parse_args()
    rows = []
    for path in sorted(args.submitted.glob("*/*/*.ipynb")):
        student, chapter = path.parts[-3:-1]
        original = args.source / chapter / f"{chapter}.ipynb"
        if not original.is_file():
            raise SystemExit(f"{path}: there is no assignment {chapter!r} in {args.source}")
        try:
            submitted = nbformat.read(path, as_version=4)
        except Exception as problem:  # a damaged file is somebody's work, too: say so and go on
            print(f"{student:<20} {chapter:<26} cannot be read: {problem}")
            continue
        found = graded(nbformat.read(original, as_version=4), submitted, path.parent)
        rows += [(student, chapter, check, value) for check, value in found.items()]
        print(f"{student:<20} {chapter:<26} {sum(found.values()):g}: {', '.join(f'{v:g}' for v in found.values())}")
    with open(args.submitted / "marks.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("student", "chapter", "check", "points"), *rows])
    print(f"written: {args.submitted / 'marks.csv'}")


if __name__ == "__main__":
    main()
