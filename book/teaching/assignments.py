"""Assignments with an autograder, made from the chapters' own exercises, in nbgrader's format.

    python book/teaching/assignments.py OUT             what students get: OUT/<chapter>/<chapter>.ipynb
    python book/teaching/assignments.py OUT --source    the instructor's: solutions and hidden checks, for nbgrader or grade.py
    python book/teaching/assignments.py OUT --hide      no checks to see at all, for marks that count; with --source, too

An assignment holds the exercises of one chapter and, before them, only those cells of the chapter on which they rest: which
these are is found in the code. nbgrader is not needed to make, to solve or to mark one.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import copy
import json
import re
import symtable
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book" / "teaching")]

from myst import chapters, heading_of, plain  # noqa: E402
from students import source_of, split_markdown, tags_of  # noqa: E402

HEADING = re.compile(r"^\*\*(\d+)\. (.+?)\*\*", re.MULTILINE)  # **2. Code.** Write …
HIDDEN = "### BEGIN HIDDEN TESTS\n{}\n### END HIDDEN TESTS"
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
CONFIG = """# For nbgrader: copy this file and the folder `source` into the folder of the course.
c = get_config()
c.CourseDirectory.course_id = "seeing-why"
c.ClearSolutions.code_stub = {"python": ""}  # the line above each solution says already what is to be given
c.ExecutePreprocessor.timeout = 900
c.ExecutePreprocessor.kernel_name = "python3"
"""


@dataclass(frozen=True)
class Exercise:
    """One exercise as it stands in a chapter."""

    chapter: str
    number: int
    title: str
    text: str  # as in the chapter, without the solution
    blank: str = ""  # `my_map = None  # four numbers`
    check: str = ""  # the definition of the check
    call: str = ""  # `check_map(my_map)`
    solution: str = ""  # the cell with the solution

    @property
    def names(self) -> list[str]:
        """What the student has to give: `["my_map"]`."""
        return [name.id for name in ast.walk(ast.parse(self.blank)) if isinstance(name, ast.Name) and is_stored(name)]


def is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


# ------------------------------------------------------------------------------------------------ from the chapter


def notebook(chapter: str) -> dict[str, Any]:
    return json.loads((ROOT / "book" / f"{chapter}.ipynb").read_text(encoding="utf-8"))


def exercises_of(chapter: str) -> list[Exercise]:
    """All exercises of a chapter, in order. The chapter's text is the only source."""
    found: list[dict[str, Any]] = []
    inside = False
    for cell in notebook(chapter)["cells"]:
        source = source_of(cell)
        if cell["cell_type"] == "markdown":
            start = re.search(r"^## Exercises$", source, re.MULTILINE)
            inside = inside or bool(start)
            if inside:
                found += parts(source[start.end() :] if start else source, chapter)
        elif inside and "exercise" in tags_of(cell):
            found[-1] |= pieces(source)
        elif inside and "solution" in tags_of(cell):
            found[-1]["solution"] = source
    return [Exercise(**parts) for parts in found]


def parts(markdown: str, chapter: str) -> Iterator[dict[str, Any]]:
    """The exercises that begin in a Markdown cell. What follows a Take-away box is none."""
    markdown = re.split(r"^[`:]{3,}\{admonition\} Take-away", markdown, flags=re.MULTILINE)[0]
    starts = list(HEADING.finditer(markdown))
    for start, end in zip(starts, [*(s.start() for s in starts[1:]), len(markdown)], strict=False):
        text = split_markdown(markdown[start.start() : end])[0]
        yield {"chapter": chapter, "number": int(start[1]), "title": start[2].rstrip("."), "text": text.strip()}


def pieces(source: str) -> dict[str, str]:
    """An exercise cell taken apart: the line to fill in, the check, and how it is called. Its last line only reports."""
    body = ast.parse(source).body
    lines = source.split("\n")
    calls = [ast.unparse(c) for c in ast.walk(body[-1]) if isinstance(c, ast.Call) and ast.unparse(c.func).startswith("check_")]
    if not isinstance(body[0], ast.Assign) or len(calls) != 1:
        raise ValueError(
            f"an exercise cell is `my_… = None`, a check and a report that calls it once; this one begins {lines[0]!r}"
        )
    check = "\n".join(lines[body[1].lineno - 1 : body[-2].end_lineno])
    return {"blank": "\n".join(lines[: body[0].end_lineno]), "check": check, "call": calls[0]}


# ------------------------------------------------------------------------------------------------ what the exercises rest on


@dataclass
class Statement:
    """What one statement at the top of a cell gives to others and takes from them."""

    given: set[str]  # names that it binds or changes
    sure: set[str]  # names that are new after it, whatever they were before
    now: set[str]  # names that it needs when it runs
    later: set[str]  # names that its functions need when they are called


def segments(source: str) -> list[tuple[ast.stmt, str]]:
    """The statements at the top of some code, each with its own lines, decorators too."""
    lines = source.split("\n")
    starts = (
        (node, min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])) for node in ast.parse(source).body
    )
    return [(node, "\n".join(lines[start - 1 : node.end_lineno])) for node, start in starts]


def statements(source: str) -> list[Statement]:
    return [facts(node) for node in ast.parse(source).body]


def facts(node: ast.stmt) -> Statement:
    """What a statement gives and takes. Of a loop or a branch: its head first, then each of its bodies in order."""
    bodies = [part for name in ("body", "orelse", "finalbody") if isinstance(part := getattr(node, name, None), list) and part]
    bodies += [handler.body for handler in getattr(node, "handlers", [])]
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) or not bodies:
        return simple(node)
    head = simple(headless(node))
    inner = [[facts(child) for child in body] for body in bodies]
    found = [uses(body) for body in inner]
    given = head.given.union(*(s.given for body in inner for s in body))
    sure = head.sure.union(*(s.sure for s in inner[0])) if isinstance(node, ast.With) else set()
    caught = {handler.name for handler in getattr(node, "handlers", [])}
    now = head.now.union(*(now - head.given - caught for now, _ in found))
    return Statement(given, sure, now, head.later.union(*(later for _, later in found)))


def headless(node: ast.stmt) -> ast.stmt:
    """A loop or a branch with nothing in it: what is left is its head."""
    empty = copy.deepcopy(node)
    for name in ("body", "orelse", "finalbody", "handlers"):
        if getattr(empty, name, None):
            setattr(empty, name, [ast.Pass()] if name in ("body", "finalbody") else [])
    return ast.fix_missing_locations(ast.If(ast.Constant(True), [ast.Pass()], [])) if isinstance(node, ast.Try) else empty


def simple(node: ast.stmt) -> Statement:
    """The same for a statement without others inside, a function or a class."""
    table = symtable.symtable(ast.unparse(node), "cell", "exec")
    given = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    now = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
    later: set[str] = set()
    for child in table.get_children():
        for name, called in globals_of(child, not at_once(child)):
            (later if called else now).add(name)
    changed = set(changes(node))
    certain = isinstance(node, (ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.With))
    known = set(dir(builtins)) - given
    return Statement(given | changed, (given - changed) if certain else set(), (now | changed) - known, later - known)


def at_once(scope: symtable.SymbolTable) -> bool:
    """Does this scope run where it stands, as a comprehension and a class body do, and not when it is called?"""
    return scope.get_name().strip("<>") in ("listcomp", "setcomp", "dictcomp", "genexpr") or scope.get_type() == "class"


def globals_of(table: symtable.SymbolTable, called: bool) -> Iterator[tuple[str, bool]]:
    """Global names in a function's or a comprehension's scope, and whether they are needed only when it is called."""
    for symbol in table.get_symbols():
        if symbol.is_global():
            yield symbol.get_name(), called
    for child in table.get_children():
        yield from globals_of(child, called or not at_once(child))


def changes(node: ast.AST) -> Iterator[str]:
    """Names whose objects a statement changes: `x[0] = …`, `x.a = …`, `x += …`, `x.append(…)`; not inside functions."""
    if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
        return
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = [t for t in node.targets if isinstance(t, (ast.Subscript, ast.Attribute))]
    elif isinstance(node, ast.AugAssign):
        targets = [node.target]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        targets = [node.value.func]
    for target in targets:
        while isinstance(target, (ast.Subscript, ast.Attribute)):
            target = target.value
        if isinstance(target, ast.Name):
            yield target.id
    for child in ast.iter_child_nodes(node):
        yield from changes(child)


def needed(cells: Sequence[str], wanted: Iterable[str], always: Iterable[int] = ()) -> list[int]:
    """Numbers of the cells that must run so that `wanted` code finds its names. Rather one too many than one too few."""
    facts_of = [statements(source) for source in cells]
    modules = {name for source in cells for name in imported(source)}  # `plt.show()` does not change plt
    for statement in (s for body in facts_of for s in body if not s.sure & modules):
        statement.given -= modules
    kept, before = set(always), None
    now, later = uses([s for source in wanted for s in statements(source)])
    while kept != before:
        before = set(kept)
        alive = set(now)
        for i in reversed(range(len(cells))):
            gives = set().union(*(s.given for s in facts_of[i]))
            if i in kept or gives & (alive | later):
                kept.add(i)
                alive -= set().union(*(s.sure for s in facts_of[i]))
                exposed, called = uses(facts_of[i])
                alive |= exposed
                later |= called
    return sorted(kept)


def imported(source: str) -> Iterator[str]:
    """Names that imports at the top of some code bind."""
    for node in ast.parse(source).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)


def uses(body: Iterable[Statement]) -> tuple[set[str], set[str]]:
    """Names that a run of statements needs from before, and names that its functions need at some time."""
    now: set[str] = set()
    later: set[str] = set()
    have: set[str] = set()
    for statement in body:
        now |= statement.now - have
        later |= statement.later
        have |= statement.sure
    return now, later


def sliced(sources: Sequence[str], wanted: str) -> str:
    """Those top-level statements of some code on which an expression rests, as source."""
    pieces = [text for source in sources for _, text in segments(source)]
    return "\n\n".join(pieces[i] for i in needed(pieces, [wanted]))


# ------------------------------------------------------------------------------------------------ the assignment


def marked(cell_id: str, *, grade: bool = False, solution: bool = False, points: int = 0) -> dict[str, Any]:
    """nbgrader's metadata of a cell: what it is, and whether the student may change it."""
    what = {"schema_version": 3, "grade_id": cell_id, "grade": grade, "solution": solution, "locked": not solution, "task": False}
    return {"nbgrader": what | ({"points": points} if grade else {})}


def code(cell_id: str, source: str, **marks: Any) -> dict[str, Any]:
    return {
        **{"cell_type": "code", "id": cell_id, "source": source, "outputs": [], "execution_count": None},
        "metadata": marked(cell_id, **marks),
    }


def words(cell_id: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": cell_id, "source": source, "metadata": marked(cell_id)}


def setup(chapter: str, exercises: Sequence[Exercise], wanted: Iterable[str]) -> list[str]:
    """The cells of the chapter on which its exercises rest; the two that every chapter begins with are always among them."""
    sources = []
    for cell in notebook(chapter)["cells"]:
        if cell["cell_type"] == "code" and not {"exercise", "solution"} & set(tags_of(cell)):
            sources.append(source_of(cell))
    checks = [part for e in exercises for part in (e.check, e.call) if part]
    return [sources[i] for i in needed(sources, [*checks, *wanted], always=(0, 1))]


def completed(exercise: Exercise, answer: Any) -> Exercise:
    """The exercise with what the instructor's file adds to it: a check, where the chapter has none."""
    if exercise.check:
        return exercise
    added = {"text": f"{exercise.text}\n\n{answer.asked}", "blank": answer.blank, "check": answer.check, "call": answer.call}
    return Exercise(**(vars(exercise) | added))


def solved(exercise: Exercise, answer: Any) -> str:
    """The instructor's solution as code: what it rests on, and the answer."""
    line = f"{', '.join(exercise.names)} = {answer.right}"
    own = [source for source in (exercise.solution, answer.check) if source]
    before = sliced(own, line)
    return f"{before}\n\n\n{line}".strip()


def assignment(chapter: str, answers: Sequence[Any], *, source: bool, hide: bool = False) -> dict[str, Any]:
    """The assignment of one chapter; with `source` the instructor's, with solutions and hidden checks; `hide` hides them all."""
    of = {a.number: a for a in answers if a.chapter == chapter}
    found = exercises_of(chapter)
    if missing := [e.number for e in found if e.number not in of]:
        raise ValueError(f"{chapter}: book/teaching/answers.py has nothing for exercise {', '.join(map(str, missing))}")
    exercises = [completed(e, of[e.number]) for e in found]
    solutions = {e.number: solved(e, of[e.number]) for e in exercises}
    cells = [words("title", heading(chapter, sum(of[e.number].points for e in exercises)))]
    cells += [code(f"setup-{i}", text) for i, text in enumerate(setup(chapter, exercises, solutions.values()), 1)]
    for e in exercises:
        key, answer = f"exercise-{e.number}", of[e.number]
        cells.append(words(key, f"## Exercise {e.number}\n\n{plain(e.text)}\n\n*{answer.points} points*"))
        blank = e.blank
        if source:
            blank += f"\n### BEGIN SOLUTION\n{solutions[e.number]}\n### END SOLUTION"
        cells.append(code(f"{key}-answer", blank, solution=True))
        secret = hide or bool(answer.check)  # a check that holds the answer is hidden in any case
        given = " and ".join(f"{name} is not None" for name in e.names)
        asked = f'assert {given}, "no answer yet"'
        judged = f'{e.check}\n\n\nassert {e.call}, "not yet"'
        judged = f"{asked}\n{HIDDEN.format(judged)}" if secret else f'{e.check}\n\n\n{asked}\nassert {e.call}, "not yet"'
        judged = judged if source or not secret else asked
        cells.append(code(f"{key}-check", judged, grade=True, points=answer.points))
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": KERNEL, "cells": cells}


def heading(chapter: str, points: int) -> str:
    return (
        f"# Assignment: {heading_of(chapter)}\n\n"
        f"The exercises of chapter `{chapter}`, {points} points in all. The cells before the first exercise are the chapter's "
        "own and prepare what the exercises need. Write into the cells that begin with `my_…`: the other cells are put back as "
        "they were before your work is marked. A check that says *not yet* may be run as often as you like. Where there is none "
        "to see, the answer is checked when your work is marked."
    )


def write(folder: Path, answers: Sequence[Any], *, source: bool, hide: bool = False) -> list[Path]:
    """One folder for each chapter, as nbgrader has it."""
    paths = []
    for chapter in chapters():
        path = folder / chapter / f"{chapter}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(assignment(chapter, answers, source=source, hide=hide), indent=1, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )
        paths.append(path)
    return paths


def main() -> None:
    from answers import ANSWERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where to write")
    parser.add_argument("--source", action="store_true", help="with solutions and hidden checks")
    parser.add_argument("--hide", action="store_true", help="hide every check")
    args = parser.parse_args()
    paths = write(args.out, ANSWERS, source=args.source, hide=args.hide)
    print(f"{len(paths)} assignments in {args.out}")


if __name__ == "__main__":
    main()
