"""Mark assignments: the students' answers, put into the instructor's notebook, which is then run.

    python book/teaching/grade.py SOURCE SUBMITTED     SUBMITTED/<student>/<chapter>/<chapter>.ipynb, as nbgrader has it

Only the cells that a student was to fill in are taken from the submission, so that a changed check changes nothing. The cells
are run as they are: run this where a stranger's code can do no harm. An answer that never ends or that ends the kernel loses its
own points, and the rest is marked without it. Prints a table and writes SUBMITTED/marks.csv, line by line.
"""

from __future__ import annotations

import argparse
import copy
import csv
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

TIMEOUT = 900  # seconds for a cell
SETUP = "the cells before the first answer"


def marks(cell: Any) -> dict[str, Any]:
    return cell.metadata.get("nbgrader", {})


def answers_in(submitted: Any) -> dict[str, str]:
    """grade_id of each cell to fill in -> what stands in it."""
    return {marks(cell).get("grade_id", ""): cell.source for cell in submitted.cells if marks(cell).get("solution")}


def merged(source: Any, submitted: Any) -> Any:
    """The instructor's notebook with the student's answers; an answer that is missing stays empty."""
    answers = answers_in(submitted)
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


def ended_by(whole: Any, folder: Path) -> str:
    """Run a notebook in `folder`: "", or the last answer that ran before the kernel died or a cell took too long."""
    reached = [SETUP]

    def note(cell: Any, cell_index: int) -> None:
        reached.extend([marks(cell)["grade_id"]] * bool(marks(cell).get("solution")))

    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        whole, timeout=TIMEOUT, kernel_name="python3", allow_errors=True, resources=where, on_cell_execute=note
    )
    try:
        client.execute()
    except (CellTimeoutError, DeadKernelError):
        return reached[-1]
    return ""


def graded(whole: Any, folder: Path) -> tuple[dict[str, float], list[str]]:
    """Run a merged notebook, again without an answer that ended it: the points, and the answers that were left out."""
    left_out: list[str] = []
    while True:
        run = copy.deepcopy(whole)
        for cell in run.cells:
            if cell.cell_type == "code":
                cell.execution_count = None
            if marks(cell).get("grade_id") in left_out:
                cell.source = ""
        guilty = ended_by(run, folder)
        left_out += [guilty] * bool(guilty)
        if guilty in ("", SETUP):
            return points(run), left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the instructor's assignments, made with --source")
    parser.add_argument("submitted", type=Path, help="a folder for each student")
    args = parser.parse_args()
    work = [(path, *path.parts[-3:-1]) for path in sorted(args.submitted.glob("*/*/*.ipynb"))]
    originals = {chapter: args.source / chapter / f"{chapter}.ipynb" for _, _, chapter in work}
    for chapter, original in originals.items():
        if not original.is_file():
            raise SystemExit(f"there is no assignment {chapter!r} in {args.source}")
    with open(args.submitted / "marks.csv", "w", newline="", encoding="utf-8", buffering=1) as file:
        table = csv.writer(file)
        table.writerow(("student", "chapter", "check", "points"))
        for path, student, chapter in work:
            source = nbformat.read(originals[chapter], as_version=4)
            try:
                submitted = nbformat.read(path, as_version=4)
                lost, whole = sorted(answers_in(source).keys() - answers_in(submitted)), merged(source, submitted)
            except Exception as problem:  # a damaged file is somebody's work, too: say so and go on
                print(f"{student:<20} {chapter:<26} cannot be read: {problem}")
                table.writerows((student, chapter, check, "") for check in points(source))
                continue
            found, left_out = graded(whole, path.parent)
            table.writerows((student, chapter, check, value) for check, value in found.items())
            said = f"{sum(found.values()):g}: {', '.join(f'{v:g}' for v in found.values())}"
            said += f"; no cell for {', '.join(lost)}" * bool(lost)
            said += f"; never ended, or ended the kernel: {', '.join(left_out)}" * bool(left_out)
            print(f"{student:<20} {chapter:<26} {said}", flush=True)
    print(f"written: {args.submitted / 'marks.csv'}")


if __name__ == "__main__":
    main()
