"""Chapter 02, Gradual Extrapolation: the arrays behind its key figures, and what its sentences say of the stored runs."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import pytest
import torch

from helpers import backprop, cam, data, datasets, evaluation, metrics, models, sanity
from helpers.core import capture, features_and_gradient, features_of, logit, resize
from helpers.extrapolation import extrapolate, gradual_extrapolation, to_size

CHAPTER = "02_gradual_extrapolation"
SEED, N = 0, 12  # the chapter's seed, and three quarters of its scenes

EYE = (0.37, 0.41)  # the cat's left eye, as shares of height and width
MEANS = {  # energy inside
    "Grad-CAM": 0.281, "Gradual Grad-CAM": 0.662, "cEB": 0.450, "Gradual cEB": 0.701, "constant": 0.530,
    "constant, shuffled levels": 0.198, "edge detector": 0.073,
}  # fmt: skip
WRONG = [0.110, 0.551]  # mirrored Grad-CAM, before and after
LOSERS = [5, 6]  # scenes on which sharpening takes energy off the thing
FROM_GRAD_CAM, FROM_CONSTANT = [0.407, 0.396, 0.391, 0.555, 0.682], [0.208, 0.217, 0.245, 0.402, 0.530]  # by levels

gradual = partial(gradual_extrapolation, coarse=cam.grad_cam)
gradual_ceb = partial(gradual_extrapolation, coarse=backprop.contrastive_excitation_backprop, layer="features.23")


def ones(_net, image, _target=None, /):
    return torch.ones_like(image[0])


def mirrored(net, image, target=None, /):
    return cam.grad_cam(net, image, target).flip(1)


@lru_cache
def drawn_network():
    return models.load("slim_vgg16_scenes")


@lru_cache
def scenes():
    """(image, class index, truth) of the chapter's first scenes."""
    net = drawn_network()
    found = datasets.load("scenes", n=N, seed=SEED)
    return [
        (net.preprocess(p.picture), net.index(p.class_names[0]), p.mask(p.class_names[0], (net.side, net.side))) for p in found
    ]


def inside(explain):
    """Energy inside the truth, a number for each scene."""
    return np.array([metrics.energy_inside(explain(drawn_network(), x, k), truth) for x, k, truth in scenes()])


@lru_cache
def cat():
    net, photo = models.load("efficientnet_lite0"), data.photo("chelsea")
    image = net.preprocess(photo.picture)
    return net, image, int(net(image[None]).argmax()), photo.mask("Egyptian cat", (224, 224))


# ------------------------------------------------------------------------------------------------- fig-extrapolation-levels


def test_the_cat_level_by_level():
    net, image, k, outline = cat()
    levels = [features_of(net, image, name) for name in net.level_layers]
    start = to_size(cam.grad_cam(net, image, k), (7, 7))
    assert [tuple(x.shape) for x in levels] == [(16, 112, 112), (24, 56, 56), (40, 28, 28), (112, 14, 14), (1280, 7, 7)]
    steps = [extrapolate(start, levels[n:]) for n in range(len(levels))]  # finest first
    assert [tuple(h.shape) for h in steps] == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]
    rows, columns = zip(*(np.unravel_index(int(h.argmax()), h.shape) for h in steps[:4]), strict=True)
    centres = [((r + 0.5) / len(h), (c + 0.5) / len(h)) for r, c, h in zip(rows, columns, steps, strict=False)]
    for y, x in centres:  # from 14 x 14 on the peak is in or at the left eye
        assert y == pytest.approx(EYE[0], abs=0.06) and x == pytest.approx(EYE[1], abs=0.06)
    shares = [metrics.energy_inside(resize(h, (224, 224)), outline) for h in (steps[0], start)]
    assert shares == pytest.approx([0.97, 0.90], abs=0.015)


def test_the_constant_map_is_the_twin_of_the_sharpened_one():
    net, image, k, _ = cat()
    sharp, control = gradual(net, image, k), gradual_extrapolation(net, image, k, coarse=ones)
    assert metrics.rank_correlation(sharp, control) == pytest.approx(0.98, abs=0.02)
    assert metrics.top_agreement(sharp, control, fraction=0.1) == pytest.approx(0.86, abs=0.06)


# ------------------------------------------------------------------------------------------------------------ by hand, EB


def test_by_hand_on_the_triangles():
    net = drawn_network()
    image, k, _ = scenes()[2]
    A, gradient = features_and_gradient(net, image, k, net.cam_layer, logit)
    h, peaks = torch.einsum("c,chw->hw", gradient.mean((1, 2)), A).relu(), []
    for name in ("features.23", "features.16", "features.9", "features.4", "features.3"):
        M = features_of(net, image, name).mean(0)
        h = resize(h, M.shape) * (M / M.max())
        peaks.append(float(h.max()))
    assert peaks == pytest.approx([0.462, 0.258, 0.178, 0.113, 0.078], rel=0.02)


def test_excitation_backprop_keeps_its_sum_where_the_chapter_says_so():
    image, k, _ = scenes()[2]
    for name in drawn_network().level_layers:
        plain, contrast = (backprop.winning_probability(drawn_network(), image, k, name, contrast=c).sum() for c in (False, True))
        assert float(plain) == pytest.approx(1, abs=1e-3) and float(contrast) == pytest.approx(0, abs=1e-3)
    net, image, k, _ = cat()
    left = [float(backprop.winning_probability(net, image, k, name).sum()) for name in ("head_relu", "blocks.10", "blocks.0")]
    assert left == pytest.approx([1.0, 0.187, 0.055], abs=0.01)


# ----------------------------------------------------------------------------------------------- fig-extrapolation-controls


def test_energy_inside_of_maps_and_controls():
    net = drawn_network()
    shuffled = models.randomised(net, seed=SEED)
    found = {
        "Grad-CAM": inside(cam.grad_cam),
        "Gradual Grad-CAM": inside(gradual),
        "cEB": inside(backprop.contrastive_excitation_backprop),
        "Gradual cEB": inside(gradual_ceb),
        "constant": inside(partial(gradual_extrapolation, coarse=ones)),
        "constant, shuffled levels": inside(lambda _net, x, k: gradual_extrapolation(shuffled, x, k, coarse=ones)),
        "edge detector": inside(sanity.edge_map),
    }
    assert {how: float(values.mean()) for how, values in found.items()} == pytest.approx(MEANS, abs=0.02)
    assert found["Gradual Grad-CAM"].mean() > found["constant"].mean() > found["Grad-CAM"].mean()  # the finding


# ------------------------------------------------------------------------- fig-extrapolation-wrong and fig-extrapolation-count


def test_a_wrong_map_gains_too_and_a_right_one_can_lose():
    right, sharp = inside(cam.grad_cam), inside(gradual)
    wrong, sharp_wrong = inside(mirrored), inside(partial(gradual_extrapolation, coarse=mirrored))
    assert [float(np.nanmean(v)) for v in (wrong, sharp_wrong)] == pytest.approx(WRONG, abs=0.02)
    assert sorted(np.flatnonzero(sharp < right)) == LOSERS


def test_what_is_zero_stays_near_zero():
    shares = []
    for image, k, truth in scenes()[:6]:
        near = torch.nn.functional.max_pool2d(truth[None, None], 33, 1, 16)[0, 0]
        elsewhere = mirrored(drawn_network(), image, k) * (1 - near)
        sharp = gradual_extrapolation(drawn_network(), image, k, coarse=elsewhere, layer=drawn_network().cam_layer)
        shares.append(metrics.energy_inside(sharp, truth))
    assert np.mean(shares) == pytest.approx(0.030, abs=0.015) and np.median(shares) < 0.01  # what the enlarging carries over


def test_what_each_level_adds():
    net, rows = drawn_network(), []
    for image, k, truth in scenes():
        levels = [features_of(net, image, name) for name in net.level_layers[:-1]]
        A, gradient = features_and_gradient(net, image, k, net.cam_layer, logit)
        start = torch.einsum("c,chw->hw", gradient.mean((1, 2)), A).relu()
        for coarse in (start, torch.ones(A.shape[-2:])):
            finer = [resize(extrapolate(coarse, levels[n:]), image.shape[-2:]) for n in range(len(levels))]
            rows.append([metrics.energy_inside(saliency, truth) for saliency in reversed(finer)])
    means = np.array(rows).reshape(-1, 2, 5).mean(0)  # [start, levels]
    assert means[0].tolist() == pytest.approx(FROM_GRAD_CAM, abs=0.02)
    assert means[1].tolist() == pytest.approx(FROM_CONSTANT, abs=0.02)


def test_the_batch_leak_of_the_authors_code():
    net, pictures = drawn_network(), torch.stack([scenes()[n][0] for n in (2, 0, 1, 3)])
    with torch.no_grad(), capture(net, net.level_layers) as seen:
        net(pictures)
    starts = torch.stack([to_size(cam.grad_cam(net, x), (8, 8)) for x in pictures])

    def leaky(h, levels):
        for x in reversed(levels):
            h = resize(h, x.shape[-2:]) * x.sum(1) / x.max()
        z = ((h - h.mean()) / h.std()).clamp(-1, 1)
        return (z - z.min()) / (z.max() - z.min())

    batch = [seen[name] for name in net.level_layers]
    gap = (leaky(starts[:1], [x[:1] for x in batch])[0] - leaky(starts, batch)[0]).abs().max()
    assert float(gap) == pytest.approx(0.76, abs=0.03)


# ---------------------------------------------------------------------------------------------------- the paper's own tables


def test_what_the_chapter_counts_in_the_papers_tables():
    rows = data.paper_table("szandala2021gradual")
    first = rows.loc[rows.groupby(["dataset", "method"])["value"].idxmax()]
    right = first[first["metric"] == first["dataset"].str.rstrip(" 12")].groupby("method").size().to_dict()
    assert right == {"Original": 5, "Grad-CAM": 3, "Gradual Grad-CAM": 2, "cEB": 3, "Gradual cEB": 3}
    unsorted = [key for key, of in rows.groupby(["table", "dataset"]) if not of["value"].is_monotonic_decreasing]
    assert unsorted == [("5", "timber wolf 1")]
    assert (rows.groupby(["table", "dataset"]).size() == 5).all()


# ------------------------------------------------------------------------- what the chapter's sentences say of the stored runs


@lru_cache
def stored(table):
    rows = data.results_per_image(CHAPTER)
    rows = rows[rows["table"] == table]
    return rows[rows["model"] == ("slim_vgg16_scenes" if table == "scenes" else "squeezenet1_1")]


def sign(table, metric, one, other):
    """1 or -1 where the 95 % interval of the paired difference is above or below 0, else 0."""
    gap = evaluation.paired(stored(table), metrics.bootstrap_interval, metric, one, other)
    assert gap.n >= 100
    return int(gap.ci_low > 0) - int(gap.ci_high < 0)


@pytest.mark.parametrize(
    ("table", "metric", "one", "other", "wanted"),
    [
        ("scenes", "energy inside", "Gradual Grad-CAM", "Grad-CAM", 1),
        ("scenes", "energy inside", "Gradual cEB", "cEB", 1),
        ("scenes", "energy inside", "constant", "Grad-CAM", 1),
        ("scenes", "energy inside", "Gradual Grad-CAM", "constant", 1),
        ("scenes", "energy inside", "Gradual cEB", "constant", 1),
        ("scenes", "box score", "Gradual Grad-CAM", "constant", 1),
        ("scenes", "energy inside", "Gradual Grad-CAM", "Grad-CAM, shuffled levels", 1),
        ("scenes", "energy inside", "Gradual Grad-CAM", "Grad-CAM × edges", 1),
        ("scenes", "energy inside", "Grad-CAM, shuffled levels", "Grad-CAM", 1),
        ("scenes", "energy inside", "Grad-CAM × edges", "Grad-CAM", -1),
        ("scenes", "kept, soft", "Gradual Grad-CAM", "Grad-CAM", -1),
        ("scenes", "kept, highest fifth", "Gradual Grad-CAM", "Grad-CAM", 0),
        ("scenes", "kept, highest tenth", "Gradual Grad-CAM", "Grad-CAM", 1),
        ("scenes", "kept, highest tenth", "Gradual cEB", "cEB", 1),
        ("scenes", "kept, highest tenth", "Gradual Grad-CAM", "constant", 1),
        ("scenes", "insertion", "Gradual Grad-CAM", "Grad-CAM", 0),
        ("scenes", "deletion", "Gradual Grad-CAM", "Grad-CAM", 1),
        ("photographs", "kept, soft", "Gradual Grad-CAM", "Grad-CAM", -1),
        ("photographs", "kept, soft", "centred blob", "Grad-CAM", 0),
        ("photographs", "kept, highest fifth", "Gradual Grad-CAM", "Grad-CAM", 1),
        ("photographs", "kept, highest fifth", "Gradual cEB", "cEB", 1),
        ("photographs", "kept, above mean", "Gradual Grad-CAM", "Grad-CAM", -1),
        ("photographs", "kept, highest tenth", "Gradual Grad-CAM", "Grad-CAM", 0),
        ("photographs", "kept, highest tenth", "Gradual cEB", "cEB", 1),
        ("photographs", "kept, highest fifth", "Gradual Grad-CAM", "Grad-CAM, shuffled levels", 0),
        ("photographs", "kept, highest fifth", "Gradual Grad-CAM", "Grad-CAM × edges", -1),
        ("photographs", "kept, highest tenth", "Gradual Grad-CAM", "Grad-CAM × edges", -1),
        ("photographs", "kept, highest fifth", "Gradual Grad-CAM", "constant", 1),
    ],
)
def test_the_stored_runs_say_what_the_chapter_says(table, metric, one, other, wanted):
    assert sign(table, metric, one, other) == wanted


def test_more_than_half_of_the_gain_in_energy_is_the_features_own():
    mean = stored("scenes").query("metric == 'energy inside'").groupby("method")["value"].mean()
    free = (mean["constant"] - mean["Grad-CAM"]) / (mean["Gradual Grad-CAM"] - mean["Grad-CAM"])
    assert free == pytest.approx(0.58, abs=0.02)


def test_through_shuffled_levels_a_fifth_of_the_gain_is_left():
    mean = stored("scenes").query("metric == 'energy inside'").groupby("method")["value"].mean()
    left = (mean["Grad-CAM, shuffled levels"] - mean["Grad-CAM"]) / (mean["Gradual Grad-CAM"] - mean["Grad-CAM"])
    assert left == pytest.approx(0.2, abs=0.05)
