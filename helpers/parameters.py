"""The parameters of a chapter: an unknown name or a value of the wrong kind is an error, whoever runs the notebook."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from typing import Any

INJECTED = "# Parameters"  # the first line of the cell that papermill puts after the parameters cell


def literals(source: str) -> dict[str, Any]:
    """Name -> value of a cell that holds nothing but literal assignments; ValueError names the line that is something else."""
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                pass
            case _:
                raise ValueError(
                    f"a parameters cell holds only `NAME = literal`, but line {node.lineno} is `{ast.unparse(node)}`"
                )
        try:
            found[name] = ast.literal_eval(value)
        except ValueError:
            raise ValueError(f"a parameter's value must be a literal, but line {node.lineno} is `{ast.unparse(node)}`") from None
    return found


def check(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise if `given` names a parameter that `defaults` lacks (NameError) or gives one a value of another kind (TypeError).

    A default of None takes any value, a float takes an int, and None is taken everywhere.
    """
    for name, value in given.items():
        if name not in defaults:
            near = difflib.get_close_matches(name.upper(), list(defaults), n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}? " if near else ""
            raise NameError(f"This chapter has no parameter {name!r}. {hint}It has: {', '.join(defaults)}.")
        kind = type(defaults[name])
        wanted = (int, float) if kind is float else kind
        if value is None or defaults[name] is None or (isinstance(value, wanted) and isinstance(value, bool) == (kind is bool)):
            continue
        raise TypeError(
            f"The parameter {name} must be of type {kind.__name__}, as its default {defaults[name]!r}; got {value!r}."
        )


def only_known(namespace: Mapping[str, Any]) -> None:
    """Check what papermill injected into this notebook; call it as `only_known(globals())` right after the parameters cell.

    papermill only warns about a name that the chapter does not have. The parameters cell must be the chapter's first code
    cell: it and the injected cell are read from IPython's list of the cells run so far, so no name has to be typed twice.
    Without an injected cell there is nothing to check.
    """
    cells = [str(source) for source in namespace.get("In", [])]
    for injected in (source for source in cells if source.startswith(INJECTED)):
        given = {name: value for name, value in literals(injected).items() if not name.startswith("PAPERMILL_")}
        check(given, literals(cells[1]) if cells[1] is not injected else {})
