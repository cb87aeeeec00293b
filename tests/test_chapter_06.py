"""The arrays behind the key figures of the comparison: the maps of its scene, the cheats, the agreement, the front."""

from __future__ import annotations

import ast
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata, spearmanr

from helpers import backprop, cam, data, datasets, extrapolation, metrics, models, sanity, score_cam, sise
from helpers.core import probability, to_unit
from helpers.masks import keep_top, masked_logits

CHAPTER = Path(__file__).resolve().parent.parent / "book" / "06_comparison.ipynb"
TOP = partial(keep_top, fraction=0.15)


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    """The functions that the chapter itself defines, taken from its cells."""
    wanted = {"all_but_one", "tenth_root", "greedy", "front", "apart", "matched", "crowd"}
    scope: dict[str, Any] = dict(
        torch=torch, np=np, cam=cam, to_unit=to_unit, probability=probability, masked_logits=masked_logits, BATCH_SIZE=8
    )
    scope |= dict(isotonic_regression=isotonic_regression, rankdata=rankdata)
    for cell in nbformat.read(CHAPTER, as_version=4).cells:
        if cell.cell_type == "code":
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef) and node.name in wanted:
                    exec(compile(ast.Module([node], []), str(CHAPTER), "exec"), scope)
    assert wanted <= scope.keys()
    return scope


@pytest.fixture(scope="module")
def scene() -> tuple[Any, torch.Tensor, int, torch.Tensor]:
    """Network, image, class and truth of the scene that the chapter takes apart, with its default parameters."""
    net = models.load("slim_vgg16_scenes")
    photo = datasets.load("scenes", "", 2, 0)[1]
    return net, net.preprocess(photo.picture), net.index(photo.class_names[0]), photo.mask(photo.class_names[0], (net.side,) * 2)


def test_maps_of_the_first_figure(scene):
    """Where each map peaks and how much of it is inside the square that the scene shows."""
    net, X, c, G = scene
    assert net.classes[c] == "square" and float(G.mean()) == pytest.approx(0.0744, abs=1e-3)
    shown = {  # explainer: energy inside, row and column of the peak
        cam.grad_cam: (0.317, (55, 39)),
        score_cam.score_cam_pp: (0.179, (45, 39)),
        backprop.guided_backprop: (0.756, (51, 24)),
        backprop.contrastive_excitation_backprop: (0.701, (55, 39)),
        partial(sise.sise, mu=sise.adaptive_mu): (0.470, (45, 22)),
        partial(extrapolation.gradual_extrapolation, coarse=cam.grad_cam): (0.925, (64, 55)),
    }
    for explain, (inside, peak) in shown.items():
        s = explain(net, X, c)
        assert metrics.energy_inside(s, G) == pytest.approx(inside, abs=0.02)
        assert np.abs(np.subtract(np.unravel_index(int(s.argmax()), s.shape), peak)).max() <= 2
        assert metrics.pointing_game(s, G) == 1


def test_bending_a_map_changes_average_drop_and_no_score_of_the_order(scene, own):
    """The box on powers: from a drop of nearly everything to one of nothing, while order, matched drop and deletion stay."""
    net, X, c, _ = scene
    s = to_unit(cam.grad_cam(net, X, c))
    drops = [metrics.average_drop(net, X, c, s**power) for power in (2, 1, 0.1)]
    assert drops == pytest.approx([0.997, 0.003, 0.0], abs=0.005)
    matched = [metrics.average_drop(net, X, c, s**power, mask=TOP) for power in (2, 1, 0.1)]
    assert max(matched) - min(matched) < 1e-6
    deleted = [metrics.deletion(net, X, c, s**power, steps=10) for power in (2, 1)]
    assert deleted[0] == pytest.approx(deleted[1], abs=1e-6) and deleted[1] == pytest.approx(0.0925, abs=0.005)
    assert torch.equal(own["tenth_root"](net, X, c), s**0.1)


def test_cheats_win_average_drop_and_lose_once_the_areas_match(scene, own):
    net, X, c, _ = scene
    for cheat in (own["all_but_one"], partial(sanity.centred_blob, width=1.0)):
        s = cheat(net, X, c)
        assert metrics.average_drop(net, X, c, s) < 0.001
        assert metrics.average_drop(net, X, c, s, mask=TOP) > 0.95


def test_greedy_squares_lower_the_class_step_by_step(scene, own):
    net, X, c, _ = scene
    s = own["greedy"](net, X, c, cells=6, taken=3)
    assert sorted(s.unique().tolist()) == [0, 1, 2, 3] and [int((s == k).sum()) for k in (3, 2, 1)] == pytest.approx(
        [455] * 3, abs=30
    )
    p = probability(masked_logits(net, X, torch.stack([(s < k).float() for k in (4, 3, 2, 1)])), c)
    assert (p.diff() <= 1e-6).all()
    first = (s == 3).float()
    others = [torch.roll(first, (dy, dx), (0, 1)) for dy in (0, 43, 64) for dx in (21, 64)]
    assert p[1] <= probability(masked_logits(net, X, 1 - torch.stack(others)), c).min() + 1e-4


def test_shuffled_weights_pass_average_drop_and_fail_the_truth(scene):
    """The sanity strip: what ScoreCAM++ finds on shuffled weights has no drop, no truth, and is another map."""
    net, X, c, G = scene
    trained, lost = score_cam.score_cam_pp(net, X, c), score_cam.score_cam_pp(models.randomised(net, seed=0), X, c)
    assert metrics.average_drop(net, X, c, lost) < 0.001
    assert metrics.energy_inside(lost, G) < 0.5 * metrics.energy_inside(trained, G)
    assert metrics.rank_correlation(trained, lost) < 0.3


def test_agreement_of_methods(scene):
    net, X, c, _ = scene
    one = cam.grad_cam(net, X, c)
    for explain, rho in ((cam.layer_cam, 0.82), (score_cam.score_cam_pp, 0.97), (partial(sise.sise, mu=sise.adaptive_mu), 0.775)):
        assert metrics.rank_correlation(one, explain(net, X, c)) == pytest.approx(rho, abs=0.03)


def test_front_and_labels(own):
    cost, quality = pd.Series([2, 3, 30, 100, 4000], list("abcde")), pd.Series([0.40, 0.55, 0.50, 0.58, 0.58], list("abcde"))
    assert own["front"](cost, quality) == ["a", "b", "d"]
    assert own["front"](cost * 0 + 1, quality) in (["d"], ["e"])
    y = np.array([0.5, 0.1, 0.11, 0.12, 0.9])
    z = own["apart"](y, 0.05)
    assert (
        np.diff(np.sort(z)).min() > 0.05 - 1e-9
        and (np.argsort(z) == np.argsort(y)).all()
        and z[[0, 4]] == pytest.approx(y[[0, 4]])
    )


def test_width_decides_average_drop_and_energy_in_the_stored_run():
    """What the chapter says of its larger run: over methods, Average Drop likes wide maps and energy inside narrow ones."""
    rows = data.results_per_image("06_comparison")
    rows = rows[(rows["table"] == "methods") & (rows["model"] == "slim_vgg16_scenes") & (rows["dataset"] == "scenes")]
    means = rows.pivot_table(index="method", columns="metric", values="value")
    means = means.drop(["edge detector", "random map", "centred blob", "all but one pixel", "wide blob"])
    means = means.drop(["Grad-CAM, tenth root", "greedy squares"])
    assert len(means) == 27 and rows["image"].nunique() >= 2
    assert spearmanr(means["area"], -means["Average Drop"]).statistic > 0.5
    assert spearmanr(means["area"], means["energy inside"]).statistic < -0.5
    assert means["Average Drop"].between(0, 1).all() and means["energy inside"].between(0, 1).all()
