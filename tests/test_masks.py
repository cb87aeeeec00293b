"""masks: the engine against a plain loop, and the makers of masks."""

import numpy as np
import pytest
import torch
from networks import Deep, changes, classifier, image, made, snapshot
from skimage.filters import threshold_otsu

from helpers import core
from helpers.masks import FeatureMasks, keep_top, masked_logits, otsu, weighted_sum

MASKS = torch.rand(7, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    "fill",
    [0.0, -1.5, torch.tensor(2.0), torch.tensor([1.0, 2.0, 3.0])[:, None, None], image(4)],
    ids=["0", "-1.5", "scalar", "colour", "image"],
)
@pytest.mark.parametrize("batch_size", [1, 3, 7, 8])
def test_masked_logits_are_those_of_a_plain_loop(fill, batch_size):
    net, x = made(Deep), image()
    with torch.no_grad():
        rows = torch.cat([net((x * m + fill * (1 - m))[None]) for m in MASKS])
    torch.testing.assert_close(masked_logits(net, x, MASKS, fill=fill, batch_size=batch_size), rows, rtol=1e-11, atol=1e-12)


def test_a_mask_of_ones_is_the_image_and_of_zeros_the_fill():
    net, x, y = made(Deep), image(), image(1)
    logits = masked_logits(net, x, torch.stack([torch.ones(16, 16), torch.zeros(16, 16)]), fill=y)
    with torch.no_grad():
        torch.testing.assert_close(logits, net(torch.stack([x, y])))


def test_masks_of_another_type_take_the_type_of_the_image():
    net = made(Deep)
    assert masked_logits(net, image(), MASKS > 0.5).dtype == torch.float64
    torch.testing.assert_close(masked_logits(net, image(), MASKS > 0.5), masked_logits(net, image(), (MASKS > 0.5).double()))


def test_no_masks_give_no_logits():
    assert masked_logits(made(Deep), image(), MASKS[:0]).shape[0] == 0


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_mask_that_gives_nan_is_named(batch_size):
    masks = MASKS.clone()
    masks[4, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="masked copy 4 of 7 .*NaN or infinity"):
        masked_logits(made(Deep), image(), masks, batch_size=batch_size)


def test_the_network_comes_back_exactly_as_it_was():
    net = classifier(made())
    net.module.train()
    before = snapshot(net)
    masked_logits(net, image(), MASKS)
    with pytest.raises(ValueError):
        masked_logits(net, image(), MASKS * float("nan"))
    assert changes(before, snapshot(net)) == []


def test_feature_masks_are_slices_of_the_gated_and_enlarged_features():
    A = torch.randn(5, 3, 4, dtype=torch.float64)
    masks = FeatureMasks(A, (9, 8), torch.tanh)
    assert len(masks) == 5 and masks[3:99].shape == (2, 9, 8)
    torch.testing.assert_close(masks[1:3], torch.tanh(core.resize(A, (9, 8)))[1:3])
    assert not torch.allclose(masks[:], core.resize(torch.tanh(A), (9, 8)))  # enlarged first


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_weighted_sum(batch_size):
    A, weights = torch.randn(5, 3, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    for masks in (A, FeatureMasks(A, (6, 6), torch.relu)):
        expected = sum(w * masks[k : k + 1][0] for k, w in enumerate(weights))
        torch.testing.assert_close(weighted_sum(weights, masks, batch_size=batch_size), expected)


def test_a_sum_of_no_masks_is_an_error():
    with pytest.raises(ValueError, match="no masks"):
        weighted_sum(torch.zeros(0), torch.zeros(0, 3, 3))


# --------------------------------------------------------------------------------------------------------- keep_top


@pytest.mark.parametrize("percent", [0, 1, 15, 29, 50, 57, 99, 100])
def test_keep_top_keeps_exactly_that_many(percent):
    saliency = image(2, (10, 10))[0]
    mask = keep_top(saliency, percent / 100)
    assert int(mask.sum()) == percent and set(mask.unique().tolist()) <= {0, 1}  # 0.29 * 100 is 28.999… in floating point
    assert percent in (0, 100) or saliency[mask == 1].min() > saliency[mask == 0].max()


def test_keep_top_rounds_down():
    assert int(keep_top(torch.rand(3, 5), 0.19).sum()) == 2  # 2.85


def test_keep_top_breaks_ties_by_position():
    assert keep_top(torch.zeros(2, 4), 0.5).tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert keep_top(torch.tensor([[0.0, 5.0, 5.0, 5.0]]), 0.5).tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize("fraction", [-0.1, 1.01, float("nan")])
def test_keep_top_names_a_wrong_fraction(fraction):
    with pytest.raises(ValueError, match=f"fraction is {fraction}; expected 0 to 1"):
        keep_top(torch.rand(3, 3), fraction)


# ------------------------------------------------------------------------------------------------------------- otsu


@pytest.mark.parametrize("seed", range(30))
def test_otsu_is_that_of_scikit_image(seed):
    rng = np.random.default_rng(seed)
    low, high = (
        rng.normal(rng.uniform(-3, 0), 0.4, rng.integers(50, 900)),
        rng.normal(rng.uniform(1, 4), 0.7, rng.integers(50, 900)),
    )
    values = np.concatenate([low, high])
    bin_width = np.ptp(values) / 256
    assert otsu(torch.from_numpy(values)) == pytest.approx(threshold_otsu(values), abs=1.01 * bin_width)


@pytest.mark.parametrize("bins", [16, 256])
def test_otsu_takes_any_shape_and_number_of_bins(bins):
    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 300), np.random.default_rng(1).normal(6, 1, 100)]).reshape(
        20, 20
    )
    assert otsu(torch.from_numpy(values), bins) == pytest.approx(threshold_otsu(values, bins), abs=np.ptp(values) / bins * 1.01)


def test_otsu_parts_two_values():
    values = torch.tensor([0.0] * 30 + [1.0] * 10)
    assert int((values > otsu(values)).sum()) == 10


@pytest.mark.parametrize("value", [0.0, -3.25, 0.1])
def test_nothing_is_above_the_threshold_of_a_constant(value):
    values = torch.full((4, 4), value)
    assert not (values > otsu(values)).any() and otsu(values) == pytest.approx(value)
