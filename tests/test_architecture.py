"""The arrows between the modules of helpers, read from their import statements."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# module -> the modules of helpers that it may import. A new module is an error until it has its line here.
METHOD = {"core", "masks"}  # what the module of a method may import: never another family
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "core": set(),
    "parameters": set(),
    "speed": {"core"},
    "masks": {"core", "speed"},
    "efficientnet_lite": set(),
    "anatomy": {"core"},
    "weights": set(),
    "models": {"core", "data", "efficientnet_lite", "speed", "vgg", "anatomy", "weights"},
    "data": {"core"},
    "drawn": {"data"},
    "vgg": set(),
    "mil": {"core", "data", "weights"},
    "training": {"core"},
    "annotations": {"data"},
    "readers": {"data", "annotations"},
    "datasets": {"data", "drawn", "readers"},
    "plotting": {"core"},
    "store": {"core"},
    "evaluation": {"core", "masks", "store"},  # it receives methods, metrics and networks
    "metrics": {"core", "masks"},
    "sanity": {"core"},
    "cam": METHOD,
    "score_cam": METHOD,
    "backprop": METHOD | {"speed"},
    "sampling": METHOD,
    "sise": METHOD,
    "extrapolation": METHOD,
    "layers": METHOD,
    "features": METHOD,
}
NAMES = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn"}
OPTIONAL = {
    "dask",
    "distributed",
    "dask_jobqueue",
    "onnx",
    "matplotlib_inline",
}  # an extra: imported inside the function that needs it


def imports_of(path: Path) -> list[tuple[str, int, bool]]:
    """Dotted name, line, and whether it is at the top level, of everything that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(part for part in ("helpers" if node.level else "", node.module or "") if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(name, node.lineno, node in tree.body) for name in names]
    return found


def violations(package: Path, third_party: set[str]) -> list[str]:
    """One line for every import that the design forbids, and for every module that it does not know."""
    problems = []
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        if module not in ALLOWED:
            problems.append(f"helpers/{path.name}: a module that tests/test_architecture.py does not list")
            continue
        for name, line, top in imports_of(path):
            first, _, rest = name.partition(".")
            if first == "helpers":
                ok = rest.partition(".")[0] in ALLOWED[module]
            elif first in OPTIONAL:
                ok = not top
            else:
                ok = first in sys.stdlib_module_names or first in third_party
            if not ok:
                problems.append(f"helpers/{path.name}:{line}: must not import {name}")
    return problems


def declared() -> set[str]:
    """Import names of the packages that a plain `pip install` of this project brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = {re.split(r"[<>=!~\[; ]", line)[0] for line in project["dependencies"]}
    by_package = {package: name for name, package in NAMES.items()}
    return {by_package.get(package, package).replace("-", "_") for package in packages}


def test_every_arrow_is_allowed():
    assert violations(ROOT / "helpers", declared()) == []


def test_core_and_the_known_families_exist():
    assert {"core", "parameters"} <= {path.stem for path in (ROOT / "helpers").glob("*.py")}


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core.py", "from helpers.masks import Gate"),
        ("core.py", "from .masks import Gate"),
        ("core.py", "from . import masks"),
        ("cam.py", "import helpers.score_cam"),
        ("score_cam.py", "from helpers import cam"),
        ("evaluation.py", "def f():\n    from helpers.metrics import deletion"),
        ("evaluation.py", "from helpers import models"),
        ("evaluation.py", "import dask"),
        ("plotting.py", "import helpers.data as d"),
        ("data.py", "from book import run"),
        ("metrics.py", "import tests.conftest"),
        ("metrics.py", "import captum"),
        ("core.py", "import helpers"),
        ("gradients.py", "x = 1"),
        ("sub/core.py", "x = 1"),
    ],
)
def test_a_planted_forbidden_arrow_is_caught(tmp_path, file, line):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line, encoding="utf-8")
    assert len(violations(tmp_path, {"torch"})) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("cam.py", "from helpers.core import resize\nfrom helpers import masks\nimport torch.nn\nimport math"),
        ("evaluation.py", "def f():\n    import dask.distributed"),
    ],
)
def test_an_allowed_arrow_is_let_through(tmp_path, file, line):
    (tmp_path / file).write_text(line, encoding="utf-8")
    assert violations(tmp_path, {"torch"}) == []
