"""metrics: closed forms, a model whose answers are known, and what is undefined."""

import inspect
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from networks import Deep, changes, classifier, image, made, named, snapshot
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.signal import convolve2d
from sklearn.metrics import jaccard_score
from torch import nn

from helpers import core, metrics
from helpers.evaluation import counted
from helpers.masks import keep_top

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


SEEN = [metrics.average_drop, metrics.increase_in_confidence, metrics.signed_drop, metrics.drop_in_logit]
MASKED = [*SEEN, metrics.insertion, metrics.deletion]
OF_TRUTH = [metrics.energy_inside, metrics.top_iou, metrics.top_inside, metrics.pointing_game]
OF_TWO = [metrics.rank_correlation, metrics.top_agreement, metrics.similarity]
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


@pytest.mark.proves(
    "average_drop", "drop_in_logit", "signed_drop", "seen_through", by="a linear model, whose answers are worked out by hand"
)
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


@pytest.mark.proves("average_drop", "increase_in_confidence", by="prepared scores before and after, by hand")
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


ASKING = [*MASKED, metrics.seen_through, metrics.insertion_curve, metrics.deletion_curve]


@pytest.mark.parametrize("metric", ASKING)
@pytest.mark.parametrize("target", [-1, 4, 2.0, "cat"])
def test_a_target_that_is_no_class_is_named(metric, target):
    with pytest.raises((ValueError, TypeError), match=r"target (-1|4) is out of range|a class index, not (2.0|'cat')"):
        metric(made(Deep), image(), target, image(1)[0])


@pytest.mark.parametrize("metric", ASKING)
def test_without_a_target_it_is_the_first_choice_on_the_whole_image(metric):
    net, S = made(Deep), image(1)[0]
    for seed in range(3):
        x = image(seed)
        with torch.no_grad():
            first, on_nothing = (int(net(y[None]).argmax()) for y in (x, 0 * x))
        assert first != on_nothing
        found, expected, other = (np.array(metric(net, x, t, S, fill=0.0)) for t in (None, first, on_nothing))
        assert np.array_equal(found, expected)
        assert metric is metrics.increase_in_confidence or not np.array_equal(found, other)


@pytest.mark.parametrize("Y", [0.0, -2.0])
def test_a_drop_from_nothing_is_undefined(Y):
    assert math.isnan(metrics.average_drop(Stub(Y, 1.0), ONES, 0, MAP, score=core.logit))


def test_metrics_leave_the_network_as_it_was():
    net = classifier(made())
    net.module.train()
    before, S = snapshot(net), image(1)[0]
    for metric in MASKED:
        assert isinstance(metric(net, image(), 1, S), float)
        with pytest.raises(ValueError):
            metric(net, image(), 1, S, batch_size=0)
    assert changes(before, snapshot(net)) == []


# ----------------------------------------------------------------------------------------------- masks of the pixels


class Bits(nn.Module):
    """Logit 0 writes down, as the bits of a number, which pixels of a 4 x 4 image are 1; the rest of it has to be 0."""

    def forward(self, x):
        assert set(x.unique().tolist()) <= {0.0, 1.0} and (x == x[:, :1]).all()
        number = (x[:, 0].flatten(1) * 2.0 ** torch.arange(16, dtype=x.dtype)).sum(1)
        return torch.stack([number, 0 * number], 1)


WHITE = torch.ones(3, 4, 4, dtype=torch.float64)
SMALL = torch.tensor(
    [[0.0, 3.0, 1.0, 3.0], [5.0, 0.0, 0.0, 1.0], [2.0, 2.0, -1.0, 0.0], [0.0, 7.0, 4.0, 1.0]], dtype=torch.float64
)
DESCENDING = [13, 4, 14, 1, 3, 8, 9, 2, 7, 15, 0, 5, 6, 11, 12, 10]  # of SMALL, read by eye: equal values from the top left


def pixels_in(number):
    return {i for i in range(16) if int(number) >> i & 1}


@pytest.mark.parametrize("fraction", [0, 0.05, 0.15, 0.2, 0.5, 0.99, 1])
def test_a_mask_of_the_highest_pixels_keeps_exactly_as_many_as_it_says(fraction):
    Y, O = metrics.seen_through(  # noqa: E741
        Bits(), WHITE, 0, SMALL, score=core.logit, mask=partial(keep_top, fraction=fraction)
    )
    assert pixels_in(Y) == set(range(16)) and pixels_in(O) == set(DESCENDING[: math.floor(fraction * 16)])


@pytest.mark.proves("above", by="16 pixels, by hand")
def test_a_threshold_is_one_of_the_scaled_map():
    seen = partial(metrics.seen_through, Bits(), WHITE, 0, SMALL, score=core.logit)
    assert pixels_in(seen(mask=partial(metrics.above, threshold=0.5))[1]) == {13, 4, 14}  # above 3, half-way from -1 to 7
    assert pixels_in(seen(mask=partial(metrics.above, threshold=0))[1]) == set(range(16)) - {10}
    assert pixels_in(seen(mask=partial(metrics.above, threshold=1))[1]) == set()


def test_taking_out_the_highest_pixels_leaves_the_others():
    lost = metrics.drop_in_logit(Bits(), WHITE, 0, SMALL, mask=partial(keep_top, fraction=0.25))
    assert pixels_in(lost) == set(DESCENDING[:4])


@pytest.mark.parametrize("mask", [torch.ones_like, partial(keep_top, fraction=1)], ids=["ones", "all pixels"])
@pytest.mark.parametrize("score", [core.logit, core.probability])
def test_where_all_is_seen_nothing_drops_and_nothing_rises(mask, score):
    settings = {"mask": mask, "score": score}
    net, x, S = made(Deep), image(), image(1)[0]
    target = int(net(x[None]).argmax())
    assert metrics.average_drop(net, x, target, S, **settings) == 0
    assert metrics.increase_in_confidence(net, x, target, S, **settings) == 0
    assert metrics.signed_drop(net, x, target, S, **settings) == 0
    assert metrics.drop_in_logit(net, x, target, S, fill=x, **settings) == 0


@pytest.mark.parametrize("fill", [0.0, 2.5, torch.tensor([1.0, -2.0, 3.0])[:, None, None], image(4), metrics.blur])
@pytest.mark.parametrize("mask", [core.to_unit, partial(keep_top, fraction=0.3), partial(metrics.above, threshold=0.6)])
def test_what_is_masked_shows_the_fill(fill, mask):
    net, x, S = made(Deep), image(), image(1)[0]
    m, other = mask(S), fill(x) if callable(fill) else fill
    with torch.no_grad():
        Y, O, W = net(torch.stack([x, m * x + (1 - m) * other, (1 - m) * x + m * other])).softmax(1)[:, 2].tolist()  # noqa: E741
    settings = {"fill": fill, "mask": mask}
    assert metrics.average_drop(net, x, 2, S, **settings) == pytest.approx(max(0, Y - O) / Y, rel=1e-11)
    assert metrics.increase_in_confidence(net, x, 2, S, **settings) == (O > Y)
    assert metrics.signed_drop(net, x, 2, S, **settings) == pytest.approx(Y - O, rel=1e-11)
    assert metrics.drop_in_logit(net, x, 2, S, score=core.probability, **settings) == pytest.approx(Y - W, rel=1e-11)


# -------------------------------------------------------------------------------------------- insertion and deletion


def distinct(seed=0, size=(8, 8)):
    """A map whose values are all different, in random order."""
    order = torch.randperm(size[0] * size[1], generator=torch.Generator().manual_seed(seed))
    return order.reshape(size).double()


PERFECT, WORST = distinct() + 100 * G, distinct() - 100 * G


@pytest.mark.proves("insertion", "deletion", by="the sum of the pixels in a region as the model: the best, the worst and any map")
def test_the_areas_of_a_linear_model_are_analytic():
    """n = 18 of 64 pixels count: the best curve rises for n steps and stays, the worst one waits for 64 - n."""
    n, all_steps = 18, {"fill": 0.0, "steps": 64, "score": core.logit}
    insertion, deletion = partial(metrics.insertion, SumInside(), ONES, 0), partial(metrics.deletion, SumInside(), ONES, 0)
    high, low = n - n**2 / (2 * 64), n**2 / (2 * 64)
    assert insertion(PERFECT, **all_steps) == pytest.approx(high, rel=1e-12)
    assert deletion(PERFECT, **all_steps) == pytest.approx(low, rel=1e-12)
    assert insertion(WORST, **all_steps) == pytest.approx(low, rel=1e-12)
    assert deletion(WORST, **all_steps) == pytest.approx(high, rel=1e-12)
    areas = []
    for seed in range(20):
        S = distinct(seed)
        areas.append(insertion(S, **all_steps))
        assert low < areas[-1] < high
        assert areas[-1] + deletion(S, **all_steps) == pytest.approx(n, rel=1e-12)  # what is put in here is missing there
        assert areas[-1] + insertion(-S, **all_steps) == pytest.approx(n, rel=1e-12)  # the way back
    assert np.mean(areas) == pytest.approx(n / 2, abs=5 * np.std(areas) / math.sqrt(20))


@pytest.mark.proves("area", by="trapezoids added up, with a short last step")
@pytest.mark.parametrize("step_px", [1, 7, 10, 32, 63, 64, 1000])
def test_a_short_last_step_counts_as_much_as_it_is(step_px):
    counts = [*range(0, 64, step_px), 64]
    scores = [min(c, 18) for c in counts]
    area = sum((b - a) / 64 * (p + q) / 2 for a, b, p, q in zip(counts, counts[1:], scores, scores[1:], strict=False))
    settings = {"fill": 0.0, "step_px": step_px, "score": core.logit}
    fractions, curve = metrics.insertion_curve(SumInside(), ONES, 0, PERFECT, **settings)
    assert fractions.tolist() == [c / 64 for c in counts] and curve.tolist() == scores
    assert metrics.insertion(SumInside(), ONES, 0, PERFECT, **settings) == pytest.approx(area, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 28, 64])
def test_steps_are_as_even_as_whole_pixels_allow(steps):
    fractions, scores = metrics.deletion_curve(SumInside(), ONES, 0, PERFECT, steps=steps, score=core.logit)
    counts = fractions * 64
    assert len(fractions) == len(scores) == steps + 1 and (fractions[0], fractions[-1]) == (0, 1)
    assert torch.equal(counts, counts.round()) and counts.diff().min() >= 64 // steps and counts.diff().max() <= -(-64 // steps)
    assert scores.tolist() == [max(18 - c, 0) for c in counts.tolist()]


@pytest.mark.parametrize("curve", [metrics.insertion, metrics.deletion])
@pytest.mark.parametrize("settings", [{}, {"steps": 3}, {"step_px": 5}, {"fill": metrics.blur}, {"fill": -1.0}], ids=named)
def test_a_constant_model_has_its_constant_as_area(curve, settings):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([[0.3, 1.0]], dtype=torch.float64).expand(len(x), 2)

    assert curve(Constant(), image(), 0, image(1)[0], score=core.logit, **settings) == pytest.approx(0.3, rel=1e-12)


def test_pixels_come_in_from_the_highest_down_and_equal_ones_from_the_top_left():
    _, numbers = metrics.insertion_curve(Bits(), WHITE, 0, SMALL, fill=0.0, steps=16, score=core.logit)
    assert [pixels_in(b) - pixels_in(a) for a, b in zip(numbers, numbers[1:], strict=False)] == [{i} for i in DESCENDING]
    _, numbers = metrics.deletion_curve(Bits(), WHITE, 0, SMALL, steps=16, score=core.logit)
    assert [pixels_in(a) - pixels_in(b) for a, b in zip(numbers, numbers[1:], strict=False)] == [{i} for i in DESCENDING]


def test_a_constant_map_is_read_like_a_page():
    _, numbers = metrics.insertion_curve(Bits(), WHITE, 0, torch.full((4, 4), 2.0), fill=0.0, steps=4, score=core.logit)
    assert [pixels_in(n) for n in numbers] == [set(range(k)) for k in (0, 4, 8, 12, 16)]


def exchanged_one_by_one(net, start, end, target, saliency, step, score):
    """The authors' loop, pixel by pixel: petsiuk2018rise. Returns their scores and their area."""
    now, pixels = start.clone(), [(y, x) for y in range(saliency.shape[0]) for x in range(saliency.shape[1])]
    order = sorted(pixels, key=lambda p: -saliency[p].item())  # Python's sort is stable
    scores = []
    for i in range(-(-len(order) // step) + 1):
        with torch.no_grad():
            scores.append(score(net(now[None]), target).item())
        for y, x in order[step * i : step * (i + 1)]:
            now[:, y, x] = end[:, y, x]
    assert torch.equal(now, end)
    return scores, (sum(scores) - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)


@pytest.mark.proves(
    "insertion", "deletion", "insertion_curve", "deletion_curve",
    by="the authors' loop over pixels, written anew, with their formula for the area",
)  # fmt: skip
@pytest.mark.parametrize("fill", [0.0, 2.5, torch.tensor([1.0, -2.0, 3.0])[:, None, None], image(4), metrics.blur],
                         ids=["0", "2.5", "colour", "image", "blur"])  # fmt: skip
@pytest.mark.parametrize(("step", "score"), [(16, core.probability), (32, core.logit), (37, core.probability)])
def test_the_curves_are_those_of_the_plain_loop(fill, step, score):
    net, x, S = made(Deep), image(), (image(1)[0] * 3).round() / 3  # with ties
    other = fill(x) if callable(fill) else torch.as_tensor(fill, dtype=x.dtype).expand_as(x)
    for curve, area, start, end in [
        (metrics.insertion_curve, metrics.insertion, other, x), (metrics.deletion_curve, metrics.deletion, x, other),
    ]:  # fmt: skip
        scores, authors = exchanged_one_by_one(net, start, end, 2, S, step, score)
        fractions, found = curve(net, x, 2, S, fill=fill, step_px=step, score=score)
        assert found.tolist() == pytest.approx(scores, rel=1e-10)
        assert fractions.tolist() == [min(step * i, 256) / 256 for i in range(len(scores))]
        assert fractions.dtype == found.dtype == torch.float64 and not found.requires_grad
        value = area(net, x, 2, S, fill=fill, step_px=step, score=score)
        assert value == pytest.approx(np.trapezoid(scores, fractions), rel=1e-10)
        if 256 % step == 0:  # otherwise their last step counts too much
            assert value == pytest.approx(authors, rel=1e-10)


def test_insertion_starts_from_the_blurred_image_and_deletion_ends_in_the_mean_colour():
    net, x, S = made(Deep), image(), image(1)[0]
    with torch.no_grad():
        blurred, whole, grey = net(torch.stack([metrics.blur(x), x, 0 * x])).softmax(1)[:, 1].tolist()
    scores = metrics.insertion_curve(net, x, 1, S)[1].tolist()
    assert len(scores) == 29 and (scores[0], scores[-1]) == (pytest.approx(blurred), pytest.approx(whole))
    scores = metrics.deletion_curve(net, x, 1, S)[1].tolist()
    assert len(scores) == 29 and (scores[0], scores[-1]) == (pytest.approx(whole), pytest.approx(grey))


@pytest.mark.parametrize("metric", MASKED)
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_batch_size_does_not_matter(metric, batch_size):
    net, x, S = made(Deep), image(), image(1)[0]
    assert metric(net, x, 1, S, batch_size=batch_size) == pytest.approx(metric(net, x, 1, S), rel=1e-11)


def test_the_masks_of_a_curve_are_drawn_a_batch_at_a_time():
    net, x, S = made(Deep), image(), image(1)[0]
    sizes, drawn = [], []
    hook = net.register_forward_pre_hook(lambda _m, given: sizes.append(len(given[0])))
    original = metrics.RankedMasks.__getitem__

    def watched(self, chunk):
        drawn.append(original(self, chunk))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics.RankedMasks, "__getitem__", watched)
        metrics.insertion(net, x, 1, S, steps=20, batch_size=4)
    hook.remove()
    assert sizes == [4] * 5 + [1] == [len(m) for m in drawn] and {m.dtype for m in drawn} == {torch.bool}
    assert [int(m.sum()) for m in torch.cat(drawn)] == [256 * i // 20 for i in range(21)]


@pytest.mark.parametrize(("settings", "says"), [
    ({"steps": 0}, "steps is 0; expected 1 to 256"), ({"steps": 257}, "steps is 257; expected 1 to 256"),
    ({"step_px": 0}, "step_px is 0; expected at least 1 pixel"), ({"batch_size": 0}, "batch_size is 0"),
])  # fmt: skip
@pytest.mark.parametrize("metric", [metrics.insertion, metrics.deletion])
def test_wrong_steps_are_named(metric, settings, says):
    with pytest.raises(ValueError, match=says):
        metric(made(Deep), image(), 0, image(1)[0], **settings)


# ------------------------------------------------------------------------------------------------------------- fills


@pytest.mark.proves("blur", by="scipy's Gaussian filter, and the authors' kernel in two dimensions")
def test_the_blur_is_scipys_where_the_gaussian_fits_in_the_window():
    x = image(0, (20, 31))
    expected = np.stack([gaussian_filter(c, 1.25, mode="mirror", truncate=4) for c in x.numpy()])
    torch.testing.assert_close(metrics.blur(x, kernel=11, sigma=1.25), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.proves("blur", by="the kernel of petsiuk2018rise's authors, laid over the image in two dimensions")
def test_the_blur_with_zeros_beyond_the_edge_is_that_of_the_authors():
    delta = np.zeros((11, 11))
    delta[5, 5] = 1
    kernel, x = gaussian_filter(delta, 5), image(0, (20, 31))
    expected = np.stack([convolve2d(c, kernel, mode="same", boundary="fill") for c in x.numpy()])
    torch.testing.assert_close(metrics.blur(x, padding="constant"), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_a_plain_picture_stays_as_it_is_and_a_picture_gets_duller():
    x = torch.tensor([1.0, -2.0, 3.0])[:, None, None].expand(3, 16, 16)
    torch.testing.assert_close(metrics.blur(x), x.contiguous())
    assert metrics.blur(image()).std() < 0.2 * image().std() and metrics.blur(image().float()).dtype == torch.float32


@pytest.mark.parametrize(("size", "settings"), [((16, 16), {"kernel": 10}), ((16, 5), {}), ((16, 16), {"kernel": 33})])
def test_a_blur_that_does_not_fit_is_named(size, settings):
    with pytest.raises(ValueError, match=r"kernel is \d+; expected an odd number, half of which fits in \[16, \d+\]"):
        metrics.blur(image(0, size), **settings)


@pytest.mark.proves("black", by="a black picture, preprocessed")
def test_black_is_what_preprocessing_makes_of_a_black_picture():
    net = classifier(made())
    picture = net.preprocess(Image.new("RGB", (40, 30)))
    torch.testing.assert_close(metrics.black(net).to(picture).expand_as(picture), picture)
    scores = metrics.deletion_curve(net, image(), 1, image(1)[0], fill=metrics.black(net))[1]
    with torch.no_grad():
        assert scores[-1] == pytest.approx(net(picture[None]).softmax(1)[0, 1].item(), rel=1e-6)


def test_a_plain_module_does_not_know_black():
    with pytest.raises(ValueError, match="Deep has no mean and std"):
        metrics.black(made(Deep))


# --------------------------------------------------------------------------------------------------- against the truth

HAND = torch.tensor([[9.0, 1, 0, 0], [8, 2, 0, 0], [7, 6, 5, 0], [0, 0, 0, 3]])
BOX = torch.tensor([[0.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])


@pytest.mark.proves("top_iou", "top_inside", by="a map of 16 pixels, by hand")
def test_the_highest_pixels_against_a_box_by_hand():
    assert metrics.top_iou(HAND, BOX, fraction=0.25) == pytest.approx(3 / 5)  # 9 8 7 6: three of the box's four
    assert metrics.top_iou(HAND, BOX) == pytest.approx(2 / 5)  # 20 % are three pixels: 9 8 7
    assert metrics.top_inside(HAND, BOX) == 0.75
    assert metrics.top_inside(HAND, HAND > 4) == 1 and metrics.top_iou(HAND, HAND > 4, fraction=5 / 16) == 1
    assert metrics.top_inside(-HAND, BOX) == 0 == metrics.top_iou(-HAND, BOX)


@pytest.mark.proves("top_iou", by="scikit-learn's Jaccard score of the same pixels")
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.37])
def test_the_intersection_over_union_is_that_of_scikit_learn(fraction):
    S, mask = distinct(3), distinct(4) > 40
    top = np.zeros(64)
    top[np.argsort(-S.flatten().numpy())[: math.floor(fraction * 64)]] = 1
    assert metrics.top_iou(S, mask, fraction=fraction) == pytest.approx(jaccard_score(mask.flatten().numpy(), top > 0), rel=1e-6)


def test_of_equal_pixels_those_at_the_top_left_count():
    S = torch.tensor([[0.0, 1], [1, 1]])
    assert metrics.top_inside(S, torch.tensor([[0, 1], [1, 0]])) == 1
    assert metrics.top_inside(S, torch.tensor([[0, 0], [1, 1]])) == 0.5


@pytest.mark.proves("pointing_game", by="scipy's distance to the object, at every pixel of a picture")
@pytest.mark.parametrize("tolerance", [0, 1, 2.9, 5])
def test_a_point_is_a_hit_within_the_tolerance(tolerance):
    mask = torch.zeros(12, 15)
    mask[3:6, 4:6], mask[10, 13] = 1, 1
    distance = distance_transform_edt(1 - mask.numpy())
    for y in range(12):
        for x in range(15):
            S = torch.rand(12, 15, generator=torch.Generator().manual_seed(y * 15 + x))
            S[y, x] = 2
            assert metrics.pointing_game(S, mask, tolerance=tolerance) == (distance[y, x] <= tolerance)


def test_the_default_tolerance_is_15_pixels_and_the_first_peak_counts():
    mask = torch.zeros(40, 40)
    mask[20, 20] = 1
    for y, x, hit in [(20, 35, 1), (20, 36, 0), (29, 32, 1), (30, 32, 0), (8, 11, 1)]:
        S = torch.zeros(40, 40)
        S[y, x] = 1
        assert metrics.pointing_game(S, mask) == hit
    S[0, 0] = 1  # as high, and before it
    assert metrics.pointing_game(S, mask) == 0


@pytest.mark.parametrize("metric", OF_TRUTH)
def test_without_an_object_or_an_order_there_is_no_answer(metric):
    assert math.isnan(metric(HAND, torch.zeros(4, 4))) and math.isnan(metric(torch.full((4, 4), 3.0), BOX))
    assert not math.isnan(metric(HAND, BOX))


@pytest.mark.parametrize("metric", OF_TRUTH)
def test_the_truth_may_be_of_any_type(metric):
    values = {
        metric(HAND.to(t), BOX.to(m)) for t in (torch.float32, torch.float64, torch.int64) for m in (torch.bool, torch.uint8)
    }
    assert values == {metric(HAND, BOX)} and metric(HAND > 4, BOX) == metric((HAND > 4).float(), BOX)


# ----------------------------------------------------------------------------------------------------------- agreement


def mean_ranks(values):
    """Ranks from 1, by counting: as many as are smaller, and half of the equal ones."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def pearson(x, y):
    x, y = np.array(x) - np.mean(x), np.array(y) - np.mean(y)
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


@pytest.mark.proves("rank_correlation", by="the correlation of ranks found by counting, equal values sharing theirs")
def test_the_rank_correlation_is_that_of_counted_ranks():
    a, b = (image(5, (8, 8))[0] * 2).round(), (image(5, (8, 8))[0] + image(6, (8, 8))[0]).round()
    assert len(a.unique()) < 15  # many ties
    expected = pearson(mean_ranks(a.flatten().tolist()), mean_ranks(b.flatten().tolist()))
    assert 0.2 < expected < 0.9 and metrics.rank_correlation(a, b) == pytest.approx(expected, rel=1e-12)


def test_the_rank_correlation_sees_the_order_alone():
    S = distinct()
    assert metrics.rank_correlation(S, S.exp()) == pytest.approx(1) and metrics.rank_correlation(S, -(S**3)) == pytest.approx(-1)


@pytest.mark.proves("top_agreement", by="sets of pixels, by hand")
def test_the_highest_pixels_of_two_maps_by_hand():
    assert metrics.top_agreement(HAND, HAND) == 1
    other = HAND.clone()
    other[0, 0], other[3, 3] = 0, 9
    assert metrics.top_agreement(HAND, other) == pytest.approx(2 / 4)  # 9 8 7 against 8 7 and the corner
    assert metrics.top_agreement(HAND, other, fraction=7 / 16) == pytest.approx(6 / 8)
    assert metrics.top_agreement(HAND, -HAND) == 0


def slow_ssim(a, b):
    """wang2004ssim with plain windows of 7 x 7: one window at a time, sample covariances, mean over whole windows."""
    a, b = ((s - s.min()) / (s.max() - s.min()) for s in (a.numpy(), b.numpy()))
    found = []
    for y in range(a.shape[0] - 6):
        for x in range(a.shape[1] - 6):
            p, q = a[y : y + 7, x : x + 7].ravel(), b[y : y + 7, x : x + 7].ravel()
            (vp, c), (_, vq) = np.cov(p, q)
            light = (2 * p.mean() * q.mean() + 1e-4) / (p.mean() ** 2 + q.mean() ** 2 + 1e-4)
            found.append(light * (2 * c + 9e-4) / (vp + vq + 9e-4))
    return np.mean(found)


@pytest.mark.proves("similarity", by="the formula, one window at a time")
def test_the_structural_similarity_is_that_of_the_formula():
    a, b = image(5, (12, 11))[0], image(5, (12, 11))[0] + 0.7 * image(6, (12, 11))[0]
    assert 0.3 < slow_ssim(a, b) < 0.95 and metrics.similarity(a, b) == pytest.approx(slow_ssim(a, b), rel=1e-9)
    assert metrics.similarity(a, 3 * a - 7) == pytest.approx(1)


@pytest.mark.parametrize("metric", OF_TWO)
def test_agreement_does_not_depend_on_the_order_of_the_two(metric):
    a, b = image(5)[0], image(6)[0] + image(5)[0]
    assert metric(a, b) == pytest.approx(metric(b, a), rel=1e-12) and metric(a, b) < 0.9 and metric(a, a) == pytest.approx(1)
    assert metric(a.float(), b) == pytest.approx(metric(a, b), rel=1e-5)


def test_agreement_with_a_constant_map():
    S, blank = image(5)[0], torch.zeros(16, 16)
    for metric in (metrics.rank_correlation, metrics.top_agreement):
        assert math.isnan(metric(S, blank)) and math.isnan(metric(blank, S)) and math.isnan(metric(blank, blank))
    assert metrics.similarity(blank, blank + 3) == 1 and metrics.similarity(S, blank) < 0.1


# ------------------------------------------------------------------------------------------------------- wrong maps


def calls(S):
    """Every metric with the map S [16, 16] in each place where a map may stand."""
    good, net = image(9)[0], made(Deep)
    yield from (partial(m, net, image(), 0, S) for m in MASKED)
    yield from (partial(m, S, torch.ones(16, 16)) for m in OF_TRUTH)
    yield from (partial(m, good, S) for m in OF_TWO)
    yield partial(metrics.seen_through, net, image(), 0, S)
    yield partial(metrics.insertion_curve, net, image(), 0, S)
    yield partial(metrics.deletion_curve, net, image(), 0, S)


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_a_map_with_nan_or_infinity_is_refused(bad):
    S = image(1)[0]
    S[3, 4] = float(bad)
    for call in calls(S):
        with pytest.raises(ValueError, match="the map holds NaN or infinity"):
            call()


@pytest.mark.parametrize(("S", "says"), [
    (image(1, (16, 15))[0], r"the map is \[16, 15\]; expected \[16, 16\]"), (image(1)[:1], r"\[1, 16, 16\]; expected \[16, 16\]"),
    (image(1)[0, :1], r"\[1, 16\]; expected"), (image(1)[0].numpy(), r"the map is ndarray; expected \[16, 16\]"),
], ids=["columns", "channel", "row", "array"])  # fmt: skip
def test_a_map_of_another_size_is_named(S, says):
    for call in calls(S):
        with pytest.raises(ValueError, match=says):
            call()


def test_maps_may_be_of_another_type_and_want_gradients():
    net, x, S = made(Deep), image(), (image(1)[0] > 0.5)
    for metric in MASKED:
        assert metric(net, x, 1, S) == metric(net, x, 1, S.double()) == metric(net, x, 1, S.double().requires_grad_())
        assert isinstance(metric(made(Deep, dtype=torch.float32), x.float(), 1, S.double()), float)
    for metric in OF_TRUTH:
        assert metric(S.double().requires_grad_(), S) == metric(S, S)


# ---------------------------------------------------------------------------------------------------- papers' settings


@pytest.mark.parametrize("paper", ["sannomiya2024layer", "petsiuk2018rise"])
def test_the_papers_curves_take_28_steps_on_their_images(paper):
    net, x, S = made(), image(0, (224, 224)), image(1, (224, 224))[0]
    for name, metric in getattr(metrics, paper.upper()).items():
        with counted(net) as cost:
            value = metric(net, x, 1, S)
        assert cost.forwards == 29
        fill = {"Deletion": 0.0, "Insertion": 0.0 if paper.startswith("s") else metrics.blur(x, padding="constant")}[name]
        plain = {"Insertion": metrics.insertion, "Deletion": metrics.deletion}[name]
        assert value == plain(net, x, 1, S, fill=fill, steps=28)


@pytest.mark.parametrize(("paper", "fraction"), [("SATTARZADEH2021SISE", 0.15), ("WANG2020SCORECAM", 0.5)])
def test_the_papers_masks_keep_their_share_of_the_pixels(paper, fraction):
    net, x, S = made(Deep), image(), image(1)[0]
    drop, increase = getattr(metrics, paper).values()
    with torch.no_grad():
        Y, O = net(torch.stack([x, x * keep_top(S, fraction)])).softmax(1).T[1].tolist()  # noqa: E741
    assert drop(net, x, 1, S) == pytest.approx(max(0, Y - O) / Y, rel=1e-11) and increase(net, x, 1, S) == (O > Y)


def test_the_papers_soft_masks_and_scores():
    net, x, S = made(Deep), image(), image(1)[0]
    for paper, score in [(metrics.MITRA2024SCORECAMPP, core.logit), (metrics.CHATTOPADHAY2018GRADCAMPP, core.probability)]:
        for target in range(4):
            values = [metric(net, x, target, S) for metric in paper.values()]
            expected = [m(net, x, target, S, score=score) for m in (metrics.average_drop, metrics.increase_in_confidence)]
            np.testing.assert_equal(values[:2], expected)  # NaN where the logit is negative
    assert metrics.MITRA2024SCORECAMPP["Average drop in Logit"](net, x, 0, S) == metrics.drop_in_logit(net, x, 0, S)
    assert metrics.SATTARZADEH2021SISE_TRUTH["mIoU"](S, S > 1) == metrics.top_iou(S, S > 1, fraction=0.2)


def test_the_settings_of_a_metric_are_the_same_everywhere():
    """A setting that two metrics share has one meaning; only the fill and the score differ by what a metric is about."""
    defaults = {}
    for metric in MASKED:
        for name, p in inspect.signature(metric).parameters.items():
            if p.kind is p.KEYWORD_ONLY:
                defaults.setdefault(name, set()).add(p.default)
    assert {name: len(values) for name, values in defaults.items() if len(values) > 1} == {"score": 2, "fill": 2}


# ---------------------------------------------------------------------------------------------------- energy_inside


@pytest.mark.proves("energy_inside", by="a map of four pixels, by hand")
def test_energy_inside_closed_form():
    S = torch.tensor([[3.0, 1.0], [-5.0, 4.0]])
    assert metrics.energy_inside(S, torch.tensor([[1.0, 0], [1, 0]])) == 3 / 8  # the negative value counts as 0
    assert metrics.energy_inside(S, torch.tensor([[True, True], [True, True]])) == 1
    assert metrics.energy_inside(S, torch.tensor([[0.0, 0], [1, 0]])) == 0


def test_energy_counts_from_the_lowest_value_up():
    S = torch.tensor([[3.0, 1.0], [0.0, 4.0]])
    assert metrics.energy_inside(S + 10, torch.tensor([[1.0, 0], [0, 0]])) == 3 / 8


@pytest.mark.parametrize("metric", [*OF_TRUTH[:3], partial(metrics.pointing_game, tolerance=0)])
def test_the_object_is_where_the_mask_is_above_a_half(metric):
    S = image(1, (8, 8))[0]
    expected = metric(S, G)
    assert {metric(S, mask) for mask in (G > 0, 255 * G, (255 * G).byte(), 0.3 + 0.5 * G)} == {expected} != {metric(S, 1 - G)}
    assert math.isnan(metric(S, 0.4 * G))


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
    ([(0.2, 0.1 + 5e-6, 0.1)], "split", [0, 0.5, 0.5]),
    ([(0.2, 0.1 + 5e-6, 0.1)], "first", [0, 1, 0]),
    ([(0.2, 0.1 + 5e-5, 0.1)], "split", [0, 0, 1]),
    ([(9e-5, 0.5, 1e-5)], "first", [0, 0, 1]),
    ([(20, 0.1 + 1e-4, 0.1)], "split", [0, 0.5, 0.5]),  # logits: in units of 20
    ([(0.2, -20 + 1e-4, -20)], "split", [0, 0.5, 0.5]),
    ([(20, 0.1 + 5e-4, 0.1)], "split", [0, 0, 1]),
    ([(NAN, 0.9, 0.95)], "split", [0, 1, 0]),
    ([(NAN, 0.9, 0.95)], "first", [0, 1, 0]),
    ([(NAN, NAN, NAN), (1, 0, 1)], "split", [0, 1, 0]),
    ([(-1.0, 0, 0)], "split", [1, 0, 0]),
])  # fmt: skip
@pytest.mark.proves("win", by="tables of drops with ties and missing values, by hand")
def test_win_closed_forms(rows, ties, shares):
    won = metrics.win(drops(*rows), ties=ties)
    assert list(won.index) == ["a", "b", "c"] and won.tolist() == pytest.approx(shares)


@pytest.mark.parametrize("ties", ["split", "first"])
def test_win_sums_to_one(ties):
    table = np.random.default_rng(0).integers(0, 3, (200, 3)).astype(float)
    table[np.random.default_rng(1).random(table.shape) < 0.2] = NAN
    assert metrics.win(drops(*table), ties=ties).sum() == pytest.approx(1)


@pytest.mark.proves("win", by="the first of the lowest, as in the authors' code, without a tolerance")
def test_without_tolerance_the_first_of_the_lowest_wins_as_in_the_authors_code():
    table = np.random.default_rng(0).integers(0, 3, (50, 3)) + np.random.default_rng(1).integers(0, 2, (50, 3)) * 1e-9
    expected = np.bincount(table.argmin(axis=1), minlength=3) / 50
    assert metrics.win(drops(*table), ties="first", tolerance=0).tolist() == pytest.approx(expected.tolist())
    assert metrics.win(drops(*table), ties="first").tolist() != pytest.approx(expected.tolist())


def test_win_with_nothing_to_compare_is_undefined():
    assert metrics.win(drops((NAN, NAN, NAN))).isna().all() and metrics.win(drops()).isna().all()


def test_win_names_wrong_ties():
    with pytest.raises(ValueError, match="ties is 'last'; expected 'split' or 'first'"):
        metrics.win(drops((1, 2, 3)), ties="last")


# -------------------------------------------------------------------------------------------------------- intervals


@pytest.mark.proves("bootstrap_interval", by="how often it covers the mean of drawn samples")
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
