"""helpers.parameters: what a parameters cell may hold, and which values may be given to it."""

from __future__ import annotations

import pytest

from helpers.parameters import check, literals, only_known

DEFAULTS = {"MODEL": "lite0", "N_IMAGES": 2, "RATE": 0.5, "QUICK": True, "LAYER": None, "METHODS": ["cam"]}
CELL = 'MODEL = "lite0"  # a comment\nN_IMAGES = 2\nSHIFT: float = -1.5\nMETHODS = ["cam", "score_cam"]'


def test_literals():
    assert literals(CELL) == {"MODEL": "lite0", "N_IMAGES": 2, "SHIFT": -1.5, "METHODS": ["cam", "score_cam"]}
    assert literals("") == {}


@pytest.mark.parametrize(
    "line", ["N = 2 * 3", "A = B = 1", "A, B = 1, 2", "import os", "A = len('x')", "N: int", "X[0] = 1", "A += 1"]
)
def test_a_cell_that_is_more_than_literals_is_refused(line):
    with pytest.raises(ValueError, match="line 2"):
        literals(f"MODEL = 'x'\n{line}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("N_IMAGES", 500),
        ("RATE", 1),
        ("RATE", 0.1),
        ("QUICK", False),
        ("LAYER", "features.3"),
        ("LAYER", 3),
        ("MODEL", None),
        ("METHODS", []),
    ],
)
def test_a_value_of_the_right_kind_is_taken(name, value):
    check({name: value}, DEFAULTS)


@pytest.mark.parametrize(
    ("name", "value"),
    [("N_IMAGES", "ten"), ("N_IMAGES", 2.5), ("N_IMAGES", True), ("QUICK", 1), ("RATE", "0.1"), ("MODEL", 5), ("METHODS", "cam")],
)
def test_a_value_of_another_kind_is_refused(name, value):
    with pytest.raises(TypeError, match=name):
        check({name: value}, DEFAULTS)


@pytest.mark.parametrize(("name", "near"), [("N_IMAGE", "N_IMAGES"), ("n_images", "N_IMAGES"), ("MODLE", "MODEL")])
def test_an_unknown_name_is_refused_and_the_near_one_named(name, near):
    with pytest.raises(NameError, match=f"{name!r}.*Did you mean {near}"):
        check({name: 1}, DEFAULTS)


def test_only_known_reads_the_cells_run_so_far():
    only_known({})
    only_known({"In": ["", CELL, "only_known(globals())"]})
    only_known({"In": ["", CELL, "# Parameters\nN_IMAGES = 3\nPAPERMILL_INPUT_PATH = 'x'\n", "only_known(globals())"]})
    with pytest.raises(NameError, match="N_PICTURES"):
        only_known({"In": ["", CELL, "# Parameters\nN_PICTURES = 3\n", "only_known(globals())"]})
    with pytest.raises(NameError):  # a notebook whose parameters cell has lost its tag: papermill puts its own cell first
        only_known({"In": ["", "# Parameters\nN_IMAGES = 3\n", CELL, "only_known(globals())"]})
