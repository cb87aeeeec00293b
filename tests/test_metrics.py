"""metrics: closed forms, a model whose answers are known, and what is undefined."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from networks import Deep, changes, classifier, image, made, snapshot
from torch import nn

from helpers import core, metrics

G = torch.zeros(8, 8, dtype=torch.float64)
G[2:5, 1:7] = 1  # 18 pixels


class SumInside(nn.Module):
    """Logits: the sum of the pixels in G, and 0. On an image of ones its answers can be worked out by hand."""

    def forward(self, x):
        inside = (x[:, 0] * G).sum((1, 2))
        return torch.stack([inside, 0 * inside], 1)


class Stub(nn.Module):
    """Gives prepared logits of class 0, one a copy in the order in which they are asked for."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = list(logits)

    def forward(self, x):
        return torch.tensor([[self.logits.pop(0), 0.0] for _ in x], dtype=torch.float64)


ONES, MAP = torch.ones(3, 8, 8, dtype=torch.float64), image(3, (8, 8))[0]


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def half_map():
    """1 on 6 pixels of G, 0.5 on 4 others of G, 0 elsewhere."""
    S = torch.zeros(8, 8, dtype=torch.float64)
    S[2, 1:7], S[3, 1:5] = 4, 2  # scaled to [0, 1] by the metric
    return S


def test_the_explanation_map_multiplies_the_scaled_map():
    assert metrics.seen_through(SumInside(), ONES, 0, half_map(), score=core.logit) == (18, 8)
    Y, O = metrics.seen_through(SumInside(), ONES, 0, half_map())  # noqa: E741
    assert (Y, O) == (pytest.approx(sigmoid(18)), pytest.approx(sigmoid(8)))


def test_a_linear_model_has_analytic_answers():
    net, S = SumInside(), half_map()
    assert metrics.average_drop(net, ONES, 0, S, score=core.logit) == pytest.approx(10 / 18)
    assert metrics.average_drop(net, ONES, 0, S) == pytest.approx((sigmoid(18) - sigmoid(8)) / sigmoid(18))
    assert metrics.drop_in_logit(net, ONES, 0, S) == pytest.approx(8)
    assert metrics.signed_drop(net, ONES, 0, S, score=core.logit) == pytest.approx(10)
    assert metrics.increase_in_confidence(net, ONES, 0, S) == 0
    assert metrics.average_drop(net, ONES, 0, G) == 0 and metrics.drop_in_logit(net, ONES, 0, G) == 18
    assert metrics.increase_in_confidence(net, ONES, 0, G) == 0  # equal is no increase


def test_the_scale_and_offset_of_a_map_do_not_matter():
    net = made(Deep)
    x, S = image(), image(1)[0]
    for metric in (metrics.average_drop, metrics.drop_in_logit, metrics.signed_drop):
        assert metric(net, x, 1, S) == pytest.approx(metric(net, x, 1, 7 * S - 3), rel=1e-9)


def test_a_constant_map_shows_nothing():
    assert metrics.average_drop(SumInside(), ONES, 0, torch.full((8, 8), 3.0, dtype=torch.float64), score=core.logit) == 1
    assert metrics.drop_in_logit(SumInside(), ONES, 0, torch.zeros(8, 8, dtype=torch.float64)) == 0


@pytest.mark.parametrize(
    ("Y", "O", "drop", "increase"), [(4.0, 1.0, 0.75, 0), (4.0, 4.0, 0, 0), (4.0, 5.0, 0, 1), (4.0, -4.0, 2, 0)]
)
def test_drop_and_increase_closed_forms(Y, O, drop, increase):  # noqa: E741
    assert metrics.average_drop(Stub(Y, O), ONES, 0, MAP, score=core.logit) == pytest.approx(drop)
    assert metrics.increase_in_confidence(Stub(Y, O), ONES, 0, MAP, score=core.logit) == increase
    assert metrics.signed_drop(Stub(Y, O), ONES, 0, MAP, score=core.logit) == pytest.approx(Y - O)
    assert metrics.drop_in_logit(Stub(Y, O), ONES, 0, MAP) == pytest.approx(Y - O)


def test_the_default_score_is_the_probability_but_drop_in_logit_takes_the_logit():
    assert metrics.average_drop(Stub(1.0, -1.0), ONES, 0, MAP) == pytest.approx((sigmoid(1) - sigmoid(-1)) / sigmoid(1))
    assert metrics.signed_drop(Stub(1.0, -1.0), ONES, 0, MAP) == pytest.approx(sigmoid(1) - sigmoid(-1))
    assert metrics.drop_in_logit(Stub(1.0, -1.0), ONES, 0, MAP) == 2


@pytest.mark.parametrize("Y", [0.0, -2.0])
def test_a_drop_from_nothing_is_undefined(Y):
    assert math.isnan(metrics.average_drop(Stub(Y, 1.0), ONES, 0, MAP, score=core.logit))


def test_metrics_leave_the_network_as_it_was():
    net = classifier(made())
    net.module.train()
    before, S = snapshot(net), image(1)[0]
    for metric in (metrics.average_drop, metrics.increase_in_confidence, metrics.drop_in_logit, metrics.signed_drop):
        assert isinstance(metric(net, image(), 1, S), float)
    assert changes(before, snapshot(net)) == []


# ---------------------------------------------------------------------------------------------------- energy_inside


def test_energy_inside_closed_form():
    S = torch.tensor([[3.0, 1.0], [-5.0, 4.0]])
    assert metrics.energy_inside(S, torch.tensor([[1.0, 0], [1, 0]])) == 3 / 8  # the negative value counts as 0
    assert metrics.energy_inside(S, torch.tensor([[True, True], [True, True]])) == 1
    assert metrics.energy_inside(S, torch.tensor([[0.0, 0], [1, 0]])) == 0


@pytest.mark.parametrize(("S", "mask"), [
    (torch.zeros(2, 2), torch.ones(2, 2)), (-torch.ones(2, 2), torch.ones(2, 2)), (torch.ones(2, 2), torch.zeros(2, 2)),
])  # fmt: skip
def test_energy_of_a_blank_map_or_in_an_empty_mask_is_undefined(S, mask):
    assert math.isnan(metrics.energy_inside(S, mask))


# -------------------------------------------------------------------------------------------------------------- win

NAN = float("nan")


def drops(*rows):
    return pd.DataFrame(rows, columns=["a", "b", "c"])


@pytest.mark.parametrize(("rows", "ties", "shares"), [
    ([(0.1, 0.2, 0.3), (0.3, 0.1, 0.2)], "split", [0.5, 0.5, 0]),
    ([(0.1, 0.1, 0.3), (0.3, 0.1, 0.2)], "split", [0.25, 0.75, 0]),
    ([(0.1, 0.1, 0.3), (0.3, 0.1, 0.2)], "first", [0.5, 0.5, 0]),
    ([(0, 0, 0)], "split", [1 / 3] * 3),
    ([(0, 0, 0)], "first", [1, 0, 0]),
    ([(0.2, 0.1 + 5e-5, 0.1)], "split", [0, 0.5, 0.5]),
    ([(0.2, 0.1 + 5e-5, 0.1)], "first", [0, 1, 0]),
    ([(0.2, 0.1 + 5e-4, 0.1)], "split", [0, 0, 1]),
    ([(NAN, 0.9, 0.95)], "split", [0, 1, 0]),
    ([(NAN, 0.9, 0.95)], "first", [0, 1, 0]),
    ([(NAN, NAN, NAN), (1, 0, 1)], "split", [0, 1, 0]),
    ([(-1.0, 0, 0)], "split", [1, 0, 0]),
])  # fmt: skip
def test_win_closed_forms(rows, ties, shares):
    won = metrics.win(drops(*rows), ties=ties)
    assert list(won.index) == ["a", "b", "c"] and won.tolist() == pytest.approx(shares)


@pytest.mark.parametrize("ties", ["split", "first"])
def test_win_sums_to_one(ties):
    table = np.random.default_rng(0).integers(0, 3, (200, 3)).astype(float)
    table[np.random.default_rng(1).random(table.shape) < 0.2] = NAN
    assert metrics.win(drops(*table), ties=ties).sum() == pytest.approx(1)


def test_win_with_nothing_to_compare_is_undefined():
    assert metrics.win(drops((NAN, NAN, NAN))).isna().all() and metrics.win(drops()).isna().all()


def test_win_names_wrong_ties():
    with pytest.raises(ValueError, match="ties is 'last'; expected 'split' or 'first'"):
        metrics.win(drops((1, 2, 3)), ties="last")


# -------------------------------------------------------------------------------------------------------- intervals


def test_the_interval_of_the_mean_covers_it_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [metrics.bootstrap_interval(rng.normal(1, 2, 100), draws=400, level=0.9, seed=i) for i in range(1000)]
    assert 0.87 <= np.mean([low <= 1 <= high for low, high in intervals]) <= 0.93


def test_the_interval_is_close_to_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(0, 1, 400)
    half = 1.96 * values.std() / 20
    assert metrics.bootstrap_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_the_interval_is_the_same_for_a_seed_and_leaves_global_randomness_alone():
    values, state = np.random.default_rng(0).random(20), np.random.get_state()[1].copy()
    assert metrics.bootstrap_interval(values) == metrics.bootstrap_interval(values) != metrics.bootstrap_interval(values, seed=1)
    assert np.array_equal(np.random.get_state()[1], state)


def test_the_interval_leaves_nan_out():
    assert metrics.bootstrap_interval([NAN, 1.0, 2.0, NAN, 4.0]) == metrics.bootstrap_interval([1.0, 2.0, 4.0])


@pytest.mark.parametrize("values", [[], [1.0], [NAN, 1.0], [NAN, NAN]])
def test_fewer_than_two_values_have_no_interval(values):
    assert all(map(math.isnan, metrics.bootstrap_interval(values)))
