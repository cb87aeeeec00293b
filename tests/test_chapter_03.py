"""Chapter 3, layer selection: the arrays behind its figures and boxes, made anew with its parameters, and its stored results.

Tolerances are for other machines and thread counts: ten steps of training add up rounding, and a mask's edge moves with it.
"""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import cam, core, data, datasets, evaluation, layers, masks, metrics, models

RESULTS = data.data_folder() / "results"
PLAIN = {"relative": False, "objective": core.log_probability}


@pytest.fixture(scope="module")
def net():
    return models.load("slim_vgg16_scenes")


@pytest.fixture(scope="module")
def photos():
    return datasets.load("scenes", n=6, seed=0)


@pytest.fixture(scope="module")
def first(net, photos):
    """The scene that the chapter takes apart: image, target, what the selection saw, the mask of the disc."""
    image = net.preprocess(photos[0].picture)
    target = net.index("disc")
    return image, target, layers.layer_scores(net, image, target), photos[0].mask("disc", (128, 128))


# ------------------------------------------------------------------------------------------------------ the figures


def test_the_eighteen_layers_and_their_w(net, first):
    """fig-layers-w and fig-layers-all."""
    image, target, seen, _ = first
    assert int(net(image[None]).argmax()) == target and len(seen.layers) == 18
    expected = [1.00, 1.01, 0.99, 1.00, 0.83, 0.99, 0.01, 0.24, 0.04, 0.02, 0.02, 0.90, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00]
    np.testing.assert_allclose(seen.scores, expected, atol=0.06)
    assert int((seen.scores > seen.scores.max() - 0.01).sum()) == pytest.approx(9, abs=1)  # half a picture is an easy exam
    assert seen.scores[seen.layers.index(seen.chosen)] == pytest.approx(1.0054, abs=0.002)


def test_where_the_differences_lie(first):
    """fig-layers-all: late layers are on the disc, and no layer of the seventh to the tenth is."""
    _, _, seen, disc = first
    assert float(disc.mean()) == pytest.approx(0.0573, abs=1e-4)
    inside = [metrics.top_inside(D, disc) for D in seen.maps]
    np.testing.assert_allclose([inside[k] for k in (12, 13, 14, 17)], [0.83, 0.85, 0.87, 0.65], atol=0.05)
    assert max(inside[6:10]) < 0.3
    for k, (row, column) in ((12, (43, 107)), (13, (40, 104)), (14, (40, 104)), (17, (48, 112))):
        peak = divmod(int(seen.maps[k].argmax()), 128)
        assert peak == pytest.approx((row, column), abs=9) and disc[peak] == 1


def test_the_curves_of_the_chosen_map(net, first):
    """fig-layers-curves, and the box on the order of deletion."""
    image, target, seen, _ = first
    D = seen.maps[1]
    insertion, deletion = metrics.SANNOMIYA2024LAYER.values()
    assert insertion(net, image, target, D) == pytest.approx(0.936, abs=0.03)
    assert deletion(net, image, target, D) == pytest.approx(0.27, abs=0.05)
    assert deletion(net, image, target, -D) == pytest.approx(0.926, abs=0.03)  # the lowest pixels first


def test_a_mask_that_has_never_seen_the_picture_passes_the_exam(net, photos):
    """The control "every other pixel" of the table of controls."""
    chessboard = ((torch.arange(128)[:, None] + torch.arange(128)) % 2).float()
    W = []
    for photo in photos:
        image = net.preprocess(photo.picture)
        whole, half = net(torch.stack([image, image * chessboard])).softmax(1).detach()
        W.append(float(1 + half[whole.argmax()] - whole.max()))
    np.testing.assert_allclose(W, [1.003, 1.0, 0.942, 1.047, 1.0, 1.154], atol=0.01)


@pytest.mark.parametrize(
    ("index", "unsure", "agreement"), [(0, 7.2e-3, (0.98, 1.01)), (1, 1e-5, (0.2, 0.8)), (4, 1e-8, (-0.1, 0.1))]
)
def test_a_sure_network_leaves_rounding_and_the_cures_do_not(net, photos, index, unsure, agreement):
    """fig-layers-saturation: rank correlation with the limit of short steps in double precision, mean over the layers."""
    double = replace(net, module=copy.deepcopy(net.module).double())
    image, names = net.preprocess(photos[index].picture), net.selectable_layers
    target = int(net(image[None]).argmax())
    p = double(image[None].double()).softmax(1)[0, target].detach()
    assert float(1 - p) == pytest.approx(unsure, rel=0.6, abs=1e-7)
    exact = layers.linear_differences(double, image.double(), target, names)

    def agrees(found):
        sums = [(found[name].sum(0).double(), exact[name].sum(0)) for name in names]
        return np.nan_to_num([metrics.rank_correlation(a, b) for a, b in sums]).mean()

    low, high = agreement
    assert low < agrees(layers.differences(net, image, target, names, **PLAIN)) < high
    assert agrees(layers.differences(double, image.double(), target, names, **PLAIN)) > 0.99
    assert agrees(layers.linear_differences(net, image, target, names)) > 0.999
    assert agrees(layers.differences(net, image, target, names)) > 0.8


# -------------------------------------------------------------------------------------------------------- the boxes


def test_the_softmax_over_channels_is_a_plain_mean(net, first):
    image, target, _, _ = first
    A = core.features_of(net, image, net.selectable_layers[-1])
    A = A[A.amax((1, 2)) > A.amin((1, 2))]
    f = core.probability(masks.masked_logits(net, image, masks.FeatureMasks(A, (128, 128), core.to_unit)), target)
    alpha = f.softmax(0)
    torch.testing.assert_close((f - 0.3).softmax(0), alpha)
    assert 2 < float(alpha.max() / alpha.min()) <= np.e and float(f.max() / f.min()) > 50
    flat, mean = torch.einsum("c,chw->hw", alpha, A).flatten(), A.mean(0).flatten()
    assert float(torch.corrcoef(torch.stack([flat, mean]))[0, 1]) > 0.99


def test_insertion_scores_lower_on_a_blank_canvas():
    lite, photo = models.load("efficientnet_lite0"), data.photo("chelsea")
    image = lite.preprocess(photo.picture)
    ask = partial(metrics.insertion, lite, image, None, cam.grad_cam(lite, image), steps=14)
    assert ask(fill=0.0) == pytest.approx(0.62, abs=0.03) and ask() == pytest.approx(0.73, abs=0.03)


def test_the_papers_differences_and_what_selecting_alone_gains():
    v = data.paper_table("sannomiya2024layer").drop_duplicates(["method", "metric"]).set_index(["method", "metric"])["value"]
    gains = [
        v["Score-CAM w/ difference", "Insertion"] - v["Score-CAM", "Insertion"],
        v["Ours", "Insertion"] - v["Ours w/o difference", "Insertion"],
        v["Ours w/o difference", "Insertion"] - v["Score-CAM", "Insertion"],
        v["Ours", "Insertion"] - v["Score-CAM w/ difference", "Insertion"],
    ]
    np.testing.assert_allclose(gains, [2.35, 3.70, -0.18, 1.17], atol=1e-9)


# ------------------------------------------------------------------------------------------------- what is stored


@pytest.fixture(scope="module")
def by_picture():
    rows = data.results_per_image("03_layer_selection")
    return rows[(rows["model"] == "slim_vgg16_scenes") & (rows["dataset"] == "scenes")]


def test_the_stored_means_are_those_of_the_stored_pictures(by_picture):
    means = data.results("03_layer_selection")
    means = means[(means["model"] == "slim_vgg16_scenes") & (means["dataset"] == "scenes")]
    again = by_picture.groupby(["table", "method", "metric"])["value"].agg(["mean", "count"])
    assert len(means) > 50
    for row in means[means["n"] > 0].itertuples():
        mean, n = again.loc[(row.table, row.method, row.metric)]
        assert row.value == pytest.approx(mean, abs=2e-6) and row.n == n
        assert row.ci_low <= row.value <= row.ci_high


def gap(by_picture, metric, one, other):
    rows = by_picture[by_picture["table"] == "methods"]
    return evaluation.paired(rows, metrics.bootstrap_interval, metric, one, other)


def test_what_the_chapter_says_of_the_tables(by_picture):
    """Below the paired differences, and in the take-away."""
    difference = gap(by_picture, "Insertion", "layer selection", "layer selection w/o difference")
    alone = gap(by_picture, "Insertion", "layer selection w/o difference", "Score-CAM")
    assert difference.n >= 100 and difference.ci_low > 0 and alone.ci_high < 0
    for baseline in ("Grad-CAM", "Score-CAM"):
        insertion, deletion, energy = (
            gap(by_picture, m, "layer selection", baseline) for m in ("Insertion", "Deletion", "energy inside")
        )
        assert insertion.ci_low < 0 < insertion.ci_high and deletion.ci_low > 0 and energy.ci_low > 0


def test_what_the_chapter_says_of_the_photographs():
    rows = data.results_per_image("03_layer_selection")
    rows = rows[rows["dataset"] == "NIPS 2017 photographs"]
    insertion, deletion = (gap(rows, metric, "layer selection", "Grad-CAM") for metric in ("Insertion", "Deletion"))
    assert insertion.n >= 200 and insertion.ci_low > 0 and deletion.ci_low > 0
    assert insertion.value == pytest.approx(0.02, abs=0.005) and deletion.value == pytest.approx(0.02, abs=0.005)
    insertion, deletion = (gap(rows, m, "layer selection", "layer selection w/o difference") for m in ("Insertion", "Deletion"))
    assert insertion.ci_low < 0 < insertion.ci_high and deletion.ci_high < 0  # what the difference adds
    mine = rows[(rows["table"] == "methods") & (rows["method"] == "layer selection")].pivot(columns="metric", index="image")[
        "value"
    ]
    assert (mine["W"] > 0.99).mean() == pytest.approx(0.3, abs=0.03)  # three pictures in ten: a harder exam
    assert mine["W"].corr(mine["Insertion"], method="spearman") == pytest.approx(0.28, abs=0.02)


def test_what_the_chapter_says_of_the_controls(by_picture):
    """Below their table; 1 and -1: the interval of the paired difference is above or below 0."""
    controls = by_picture[by_picture["table"] == "controls"]
    methods = by_picture[(by_picture["table"] == "methods") & by_picture["image"].isin(controls["image"])]
    rows = pd.concat([controls, methods]).assign(table="methods")

    def sign(metric, other):
        found = gap(rows, metric, "layer selection", other)
        assert found.n == 18
        return int(found.ci_low > 0) - int(found.ci_high < 0)

    for beaten in ("a layer by lot", "selected from noise", "edge detector", "left half", "every other pixel"):
        assert sign("Insertion", beaten) == 1
    assert sign("Insertion", "the last layer") == sign("W", "every other pixel") == 0
    assert [sign("Deletion", m) for m in ("a layer by lot", "the last layer", "selected from noise")] == [0, 0, 0]
    assert sign("Deletion", "Grad-CAM, one layer up") == 1


def test_what_the_chapter_says_of_the_choice(by_picture):
    rows = by_picture[(by_picture["table"] == "methods") & (by_picture["method"] == "layer selection")]
    chosen = rows[rows["metric"] == "chosen layer"]["value"]
    assert chosen.between(1, 18).all() and (chosen == chosen.round()).all()
    assert (chosen == 18).mean() < 0.5 and chosen.nunique() > 9  # other layers than the last are used
    assert (rows[rows["metric"] == "W"]["value"] > 0.99).mean() > 0.9  # and nearly any half is enough


def test_a_chessboard_keeps_the_class_as_well_as_the_chosen_half(by_picture):
    W = by_picture[(by_picture["table"] == "controls") & (by_picture["metric"] == "W")].groupby("method")["value"].mean()
    assert W["every other pixel"] > 0.95
