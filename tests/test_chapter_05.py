"""Chapter 5 (SISE): the arrays behind its figures, made anew with the chapter's own defaults, and what its prose rests on."""

from pathlib import Path

import nbformat
import pytest
import torch

from helpers import cam, data, datasets, evaluation, metrics, models, sise
from helpers.core import capture, log_probability, resize, sigmoid, to_unit
from helpers.masks import otsu
from helpers.parameters import literals

CHAPTER = Path(__file__).resolve().parent.parent / "book" / "05_sise.ipynb"


@pytest.fixture(scope="module")
def given():
    """The chapter's parameters."""
    cells = nbformat.read(CHAPTER, as_version=4).cells
    return next(literals(cell.source) for cell in cells if "parameters" in cell.metadata.get("tags", []))


@pytest.fixture(scope="module")
def net(given):
    return models.load(given["MODEL"], weights=given["WEIGHTS"])


@pytest.fixture(scope="module")
def cases(given, net):
    """image, target and truth of the chapter's pictures."""
    photos = datasets.load(given["DATASET"], None, given["N_IMAGES"], given["SEED"])
    name = [photo.class_names[0] for photo in photos]
    assert name[0] == "disc" and name[3] == "star"
    return [(net.preprocess(p.picture), net.index(n), p.mask(n, (net.side, net.side))) for p, n in zip(photos, name, strict=True)]


@pytest.fixture(scope="module")
def blocks(net, cases):
    return sise.sise_layers(net, *cases[0][:2])


def test_fig_blocks_and_selection_how_many_maps_stay(net, cases, blocks):
    assert [len(one.alpha) for one in blocks] == [8, 16, 32, 64, 64]
    assert [len(one.kept) for one in blocks] == pytest.approx([8, 10, 15, 28, 33], abs=1)
    for mu, masks in ((0.3, 56), (0.5, 34), (0.75, 13), (sise.adaptive_mu, 38)):
        chosen = [int((one.alpha > (mu(one.alpha) if callable(mu) else mu) * one.alpha.max()).sum()) for one in blocks]
        assert sum(chosen) == pytest.approx(masks, abs=2)


def test_fig_sampling_scores_of_the_copies_and_energy_of_each_map(cases, blocks):
    truth = cases[0][2]
    assert float(blocks[-1].scores.max()) > 0.99 and float(blocks[-1].scores.min()) < 0.05
    inside = [metrics.energy_inside(one.V, truth) for one in blocks]
    assert inside == pytest.approx([0.19, 0.04, 0.07, 0.42, 0.32], abs=0.03)


def test_fig_fusion_step_by_step(cases, blocks):
    truth = cases[0][2]
    assert [otsu(one.V) for one in blocks[1:]] == pytest.approx([0.22, 0.27, 0.25, 0.30], abs=0.02)
    assert [float(sise.otsu_mask(one.V).mean()) for one in blocks[1:]] == pytest.approx([0.05, 0.08, 0.09, 0.17], abs=0.01)
    E = sise.fuse([one.V for one in blocks])
    assert metrics.energy_inside(E, truth) == pytest.approx(0.555, abs=0.02)
    assert truth.flatten()[int(E.argmax())] == 1
    assert (E[sise.otsu_mask(blocks[-1].V) == 0] == 0).all()


def test_by_hand_is_the_helper(net, cases):
    x, c, _ = cases[0]
    with capture(net, net.block_layers) as seen:
        y = net(x[None]).log_softmax(1)[0, c]
    E = None
    for A, g in zip(seen.values(), torch.autograd.grad(y, list(seen.values())), strict=True):
        m = to_unit(resize(A[0][g[0].mean((1, 2)) > 0].detach(), x.shape[-2:]))
        with torch.no_grad():
            psi = net(x * m[:, None]).softmax(1)[:, c]
        V = to_unit(torch.einsum("n,nhw->hw", psi, m / m.sum((1, 2), keepdim=True).clamp(min=1)))
        E = V if E is None else (E + V) * (V > otsu(V))
    torch.testing.assert_close(to_unit(E), sise.sise(net, x, c), rtol=1e-3, atol=1e-4)


def test_fig_parts_the_masks_and_the_order_matter(cases, blocks):
    truth, maps = cases[0][2], [one.V for one in blocks]
    variants = {
        "added up": sise.fuse(maps, binarise=torch.ones_like),
        "deep to shallow": sise.fuse(maps[::-1]),
        "constant": sise.otsu_mask(maps[-1]),
        "soft": sise.fuse(maps, binarise=sise.soft_otsu_mask),
    }
    inside = {name: metrics.energy_inside(E, truth) for name, E in variants.items()}
    assert inside == pytest.approx({"added up": 0.22, "deep to shallow": 0.22, "constant": 0.33, "soft": 0.56}, abs=0.03)


def test_the_failure_that_the_chapter_shows_is_one(net, cases):
    x, c, truth = cases[3]
    found = sise.sise_layers(net, x, c)
    assert metrics.energy_inside(sise.fuse([one.V for one in found]), truth) < 0.05
    assert net.top(x, 1)[0][0] == "arrow" and float(found[-1].scores.max()) < 0.2  # the network does not see the star
    assert truth.flatten()[int(cam.grad_cam(net, x, c).argmax())] == 1  # another method finds the star


def test_fig_strip_shuffled_weights_lose_the_thing(given, net, cases, blocks):
    x, c, truth = cases[0]
    shuffled = models.randomised(net, seed=given["SEED"])
    inside = metrics.energy_inside(sise.sise(shuffled, x, c), truth)
    assert inside < 0.2 and metrics.energy_inside(sise.fuse([one.V for one in blocks]), truth) > inside + 0.3


def test_fig_several_each_class_gets_its_own_things(given):
    multi = models.load("slim_vgg16_scenes_multi")
    photo = datasets.load("scenes_multi", n=1, seed=given["SEED"])[0]
    masks = {name: photo.mask(name, (multi.side, multi.side)) for name in photo.class_names}
    assert len(masks) == 3
    for name in masks:
        S = sise.sise(multi, multi.preprocess(photo.picture), multi.index(name), score=sigmoid)
        inside = {other: metrics.energy_inside(S, mask) for other, mask in masks.items()}
        assert inside[name] > 0.95 * sum(inside.values()), name


def test_half_of_the_maps_stay_in_a_network_that_has_learnt_nothing():
    resnet, vgg = models.load("resnet50", weights=None), models.vgg16_trunk(("a", "b"), weights=None)
    assert (models.sise_maps(resnet), models.sise_maps(vgg)) == (3904, 1472)
    x = resnet.preprocess(data.photo("chelsea").picture)
    found, _ = sise.features_and_gradients(resnet, x, None, resnet.block_layers, log_probability)
    assert sum(int((g.mean((1, 2)) > 0).sum()) for _, _, g in found) == pytest.approx(1947, abs=100)


def test_which_printed_shares_are_possible():
    def impossible(table, n):
        shares = data.paper_table("sattarzadeh2021sise", table).query("metric == 'Increase'")["value"]
        return [v for v in shares if abs(round(v * n / 100) * 100 / n - v) >= 0.00501]

    assert impossible("1", 4952) == [36.42, 22.73, 36.58, 24.24, 40.22]
    assert impossible("2", 1381) == [12.46, 15.63, 10.26]
    assert impossible("1", 10**6) == []


def test_the_larger_run_has_the_cases_it_needs_and_agrees_with_itself():
    rows = data.results("05_sise")
    mine = rows[(rows["table"] == "methods") & (rows["model"] == "slim_vgg16_scenes")]
    assert set(mine["method"]) == set(data.paper_table("sattarzadeh2021sise", "1")["method"])
    assert (mine["n"] + mine["nan_count"]).min() >= 20
    cases = data.results_per_image("05_sise")
    cases = cases[(cases["table"] == "methods") & (cases["model"] == "slim_vgg16_scenes")]
    again = evaluation.summary(cases, metrics.bootstrap_interval).set_index(["method", "metric"])["value"].to_dict()
    printed = mine.set_index(["method", "metric"])["value"].to_dict()
    assert again == pytest.approx(printed, abs=1e-5)


@pytest.mark.parametrize(
    ("variant", "worse", "unsure"),  # metrics whose interval leaves out 0 on the bad side; metrics whose interval contains 0
    [
        ("without block 5", {"mIoU", "Bbox", "Drop"}, {"EBPG"}),
        ("without block 4", {"EBPG", "Bbox"}, set()),
        ("block 5 alone", {"EBPG"}, {"Bbox", "Drop"}),
        ("as many maps at random", set(), {"EBPG", "mIoU", "Bbox", "Drop"}),
        ("the maps that SISE rejects", {"mIoU"}, {"EBPG", "Bbox", "Drop"}),
    ],
)
def test_what_the_chapter_says_of_the_parts(variant, worse, unsure):
    rows = data.results_per_image("05_sise")
    rows = rows[(rows["table"] == "parts") & (rows["model"] == "slim_vgg16_scenes")]
    for metric in worse | unsure:
        gap = evaluation.paired(rows, metrics.bootstrap_interval, metric, "SISE", variant)
        bad = gap.ci_high < 0 if metric == "Drop" else gap.ci_low > 0
        assert bad if metric in worse else gap.ci_low <= 0 <= gap.ci_high, (metric, gap)


def test_what_the_chapter_says_of_photographs_with_boxes():
    """Ahead of all in energy; in box score and overlap of integrated gradients only; in Drop of it and FullGrad."""
    rows = data.results_per_image("05_sise")
    rows = rows[(rows["table"] == "methods") & (rows["dataset"] == "PASCAL VOC 2007, part")]
    rivals = {"Grad-CAM", "Grad-CAM++", "Score-CAM", "Integrated Gradient", "FullGrad"}
    assert rows["image"].nunique() > 30 and rivals < set(rows["method"])

    def against(metric):
        return {one: evaluation.paired(rows, metrics.bootstrap_interval, metric, "SISE", one) for one in rivals}

    assert all(gap.ci_low > 0 for gap in against("EBPG").values())
    for metric in ("Bbox", "mIoU"):
        assert {one for one, gap in against(metric).items() if gap.ci_low > 0} == {"Integrated Gradient"}
        assert {one for one, gap in against(metric).items() if gap.ci_high < 0} == rivals - {"Integrated Gradient"}
    assert {one for one, gap in against("Drop").items() if gap.ci_high < 0} == {"Integrated Gradient", "FullGrad"}
