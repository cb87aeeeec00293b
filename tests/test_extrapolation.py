"""extrapolation: a loop over levels and pixels in plain numbers, what has to stay the same, the author's variants."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import Deep, classifier, image, made
from torch import nn

from helpers import cam, core, drawn, models
from helpers.extrapolation import (
    extrapolate,
    gradual_extrapolation,
    masked_image,
    mean_contribution,
    sum_contribution,
    to_size,
    zscore_clip,
)

close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)


def features(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def upsampled(h, rows, columns):
    """Bilinear resizing of nested lists, a pixel at a time, pixel centres at halves."""

    def place(i, new, old):
        at = max((i + 0.5) * old / new - 0.5, 0.0)
        low = min(int(at), old - 1)
        return low, min(low + 1, old - 1), at - low

    result = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            (a, b, s), (c, d, t) = place(i, rows, len(h)), place(j, columns, len(h[0]))
            result[i, j] = (1 - s) * ((1 - t) * h[a][c] + t * h[a][d]) + s * ((1 - t) * h[b][c] + t * h[b][d])
    return result


def slow(coarse, levels):
    """Gradual Extrapolation, level after level and pixel after pixel."""
    h = np.maximum(coarse.numpy(), 0)
    for x in [x.numpy() for x in levels][::-1]:
        C = np.array(
            [[sum(abs(x[c, i, j]) for c in range(len(x))) / len(x) for j in range(x.shape[2])] for i in range(x.shape[1])]
        )
        h = upsampled(h, *C.shape) * (C / C.max())
    return torch.from_numpy(h)


LEVELS = [features(4, 16, 20, seed=1), features(6, 8, 10, seed=2), features(7, 4, 5, seed=3)]


@pytest.mark.proves("gradual_extrapolation", "extrapolate", by="a loop over levels and pixels, with its own bilinear resizing")
@pytest.mark.parametrize("size", [(2, 2), (4, 5), (3, 4)])
def test_it_is_its_plain_loop(size):
    coarse = features(*size, seed=4) - 0.3
    assert (coarse < 0).any()
    close(extrapolate(coarse, LEVELS), slow(coarse, LEVELS))


def test_levels_coarser_than_the_map_are_skipped_and_those_of_its_size_are_not():
    coarse = features(8, 10, seed=5)
    close(extrapolate(coarse, LEVELS), slow(coarse, LEVELS[:2]))
    assert not torch.allclose(extrapolate(coarse, LEVELS), slow(coarse, LEVELS[:1]))
    close(extrapolate(coarse, LEVELS, include_deeper=True), slow(coarse, LEVELS))


def test_a_level_that_is_finer_one_way_only_is_skipped():
    coarse = features(8, 4)
    close(extrapolate(coarse, [LEVELS[0], features(3, 4, 30)]), slow(coarse, LEVELS[:1]))


def test_constant_levels_change_nothing_but_the_size():
    coarse = features(4, 4)
    levels = [torch.full((3, 16, 16), 0.2).double(), torch.full((5, 8, 8), 7.0).double()]
    close(extrapolate(coarse, levels), core.resize(core.resize(coarse, (8, 8)), (16, 16)))
    close(extrapolate(coarse, [torch.ones(2, 4, 4).double()]), coarse)  # a single level


def test_the_scale_of_the_map_stays_and_that_of_the_levels_does_not_matter():
    coarse = features(2, 2)
    once = extrapolate(coarse, LEVELS)
    close(extrapolate(5 * coarse, LEVELS), 5 * once)
    close(extrapolate(coarse, [100 * x for x in LEVELS]), once)
    assert 0 <= once.min() and once.max() <= coarse.max()


def test_a_level_where_nothing_is_active_gives_zeros():
    assert not extrapolate(features(4, 4), [torch.zeros(3, 8, 8).double()]).any()
    assert not extrapolate(-features(4, 4), LEVELS).any()


@pytest.mark.proves("sum_contribution", by="numbers worked out by hand")
def test_contributions_for_teaching():
    x = torch.tensor([[[1.0, -3.0], [2.0, 0.0]], [[3.0, 1.0], [6.0, 0.0]]])
    close(mean_contribution(x), torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    close(sum_contribution(x), torch.tensor([[4.0, 4.0], [8.0, 0.0]]) / 6)
    assert not mean_contribution(torch.zeros(2, 3, 3)).any() and not sum_contribution(torch.zeros(2, 3, 3)).any()
    close(mean_contribution(x.relu()), x.relu().mean(0) / x.relu().mean(0).max())  # the paper's, where nothing is negative


def test_features_with_a_sign_do_not_cancel():
    levels = [x - 0.5 for x in LEVELS]
    close(extrapolate(features(2, 2), levels), slow(features(2, 2), levels))


def test_the_sum_of_the_authors_code_is_a_constant_times_the_mean():
    coarse = features(4, 5)
    ours, theirs = extrapolate(coarse, LEVELS), extrapolate(coarse, LEVELS, contribution=sum_contribution)
    ratio = theirs / ours
    assert float(ratio.min()) == pytest.approx(float(ratio.max()), rel=1e-10) and float(ratio.max()) > 1.5
    close(zscore_clip(ours), zscore_clip(theirs))


@pytest.mark.proves("zscore_clip", by="the same steps in numpy, with the standard deviation summed up by hand")
def test_the_look_of_the_authors_maps():
    x = features(9, 9)
    x[0, 0] = 50
    values = x.numpy().ravel()
    mean = sum(values) / len(values)
    deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    z = np.clip((x.numpy() - mean) / deviation, -1, 1)
    looked = zscore_clip(x)
    close(looked, torch.from_numpy((z - z.min()) / (z.max() - z.min())))
    assert looked.min() == 0 and looked.max() == 1
    assert not zscore_clip(torch.full((4, 4), 3.0)).any() and not zscore_clip(torch.zeros(1, 1)).any()


@pytest.mark.parametrize(
    ("coarse", "levels", "says"),
    [
        (features(1, 4, 4), LEVELS, r"map \[h, w\].*\[\[1, 4, 4\]"),
        (features(4, 4), [features(4, 4)], r"levels \[C, h, w\].*\[4, 4\]"),
        (features(32, 32), LEVELS, r"no level is as fine as the map \[32, 32\].*\[4, 16, 20\]"),
        (features(4, 4), [], "no level"),
    ],
)
def test_shapes_that_do_not_fit_are_named(coarse, levels, says):
    with pytest.raises(ValueError, match=says):
        extrapolate(coarse, levels)


# --------------------------------------------------------------------------------------------- around an explainer


class Steps(nn.Module):
    """Three resolutions, 16, 8 and 4, then one linear layer."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, 2, 1), nn.Conv2d(5, 6, 3, 2, 1)
        self.relu1, self.relu2, self.relu3 = (nn.ReLU(inplace=True) for _ in range(3))
        self.last = nn.Linear(6, 4)

    def forward(self, x):
        x = self.relu3(self.three(self.relu2(self.two(self.relu1(self.one(x))))))
        return self.last(x.mean((2, 3)))


NAMES = ("relu1", "relu2", "relu3")


def levels_of(net, x):
    with torch.no_grad():
        one = net.one(x[None]).relu()
        two = net.two(one).relu()
        return [one[0], two[0], net.three(two).relu()[0]]


def test_around_an_explainer_the_map_goes_back_to_its_layer_first():
    net, x = made(Steps), image()
    for layer, used in (("relu3", 3), ("relu2", 2)):
        coarse = partial(cam.layer_cam, layer=layer)
        levels = levels_of(net, x)
        side = levels[used - 1].shape[-1]
        start = coarse(net, x, 1).unfold(0, 16 // side, 16 // side).unfold(1, 16 // side, 16 // side).mean((2, 3))
        assert start.any()
        given = gradual_extrapolation(net, x, 1, coarse=coarse, layer=layer, levels=NAMES)
        close(given, slow(start, levels[:used]))


def test_the_classifier_says_which_layers():
    net = models.from_module(made(Steps), side=16, verbose=False)
    assert net.level_layers == NAMES and net.cam_layer == "relu3"
    told = gradual_extrapolation(net.module, image(), 2, coarse=partial(cam.grad_cam, layer="relu3"), layer="relu3", levels=NAMES)
    assert torch.equal(gradual_extrapolation(net, image(), 2, coarse=cam.grad_cam), told)


def test_a_map_is_taken_as_it_is():
    net, x, coarse = made(Steps), image(), features(4, 4)
    close(gradual_extrapolation(net, x, coarse=coarse, levels=NAMES), slow(coarse, levels_of(net, x)))
    close(gradual_extrapolation(net, x, coarse=features(8, 8), levels=NAMES), slow(features(8, 8), levels_of(net, x)[:2]))
    down = F.avg_pool2d(features(16, 16)[None], 4)[0]
    close(gradual_extrapolation(net, x, coarse=features(16, 16), layer="relu3", levels=NAMES), slow(down, levels_of(net, x)))


def test_a_fine_map_counts_with_all_its_pixels_where_it_shrinks():
    coarse = torch.zeros(12, 16, dtype=torch.float64)
    coarse[0, 3] = 6  # bilinear sampling at 3 x 4 points never looks there
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[0, 0] = 6 / 16
    assert not core.resize(coarse, (3, 4)).any()
    close(to_size(coarse, (3, 4)), expected)
    close(to_size(coarse, (24, 32)), core.resize(coarse, (24, 32)))  # it grows
    close(to_size(coarse, (3, 32)), core.resize(F.avg_pool2d(coarse[None], (4, 1))[0], (3, 32)))  # it does both
    assert torch.equal(to_size(coarse, (12, 16)), coarse)


def test_back_and_forth_the_coarse_map_is_a_little_smoother():
    coarse = features(7, 7)
    mean = torch.tensor([0.125, 0.75, 0.125], dtype=torch.float64)
    kernel = (mean[:, None] * mean)[None, None]
    expected = F.conv2d(F.pad(coarse[None, None], [1, 1, 1, 1], mode="replicate"), kernel)[0, 0]
    close(to_size(core.resize(coarse, (224, 224)), (7, 7)), expected)


def test_a_map_of_the_size_of_the_image_needs_a_layer():
    net, x, coarse = made(Steps), image(), features(16, 16)
    with pytest.raises(ValueError, match=r"map \[16, 16\] is as large as the image.*pass layer="):
        gradual_extrapolation(net, x, coarse=coarse, levels=NAMES)
    with pytest.raises(ValueError, match="as large as the image"):
        gradual_extrapolation(net, x, coarse=coarse, levels=NAMES[1:])  # not even the finest level is as fine
    close(gradual_extrapolation(net, x, coarse=coarse, levels=NAMES[:1]), slow(coarse, levels_of(net, x)[:1]))
    whole = gradual_extrapolation(net, x, coarse=coarse, levels=NAMES, include_deeper=True)
    close(whole, extrapolate(coarse, levels_of(net, x), include_deeper=True))


@pytest.mark.parametrize("levels", [NAMES[::-1], ("relu2", "relu3", "relu1"), (*NAMES, "relu1", "relu3")])
def test_levels_come_in_the_networks_own_order_and_each_once(levels):
    net, x, coarse = made(Steps), image(), features(4, 4)
    close(gradual_extrapolation(net, x, coarse=coarse, levels=levels), slow(coarse, levels_of(net, x)))


def test_levels_that_end_below_the_image_are_resized_to_it():
    net, x, coarse = made(Steps), image(), features(4, 4)
    fine = slow(coarse, levels_of(net, x)[1:])
    close(gradual_extrapolation(net, x, coarse=coarse, levels=NAMES[1:]), core.resize(fine, (16, 16)))


def test_settings_reach_the_extrapolation():
    net, x, coarse = made(Steps), image(), features(8, 8)
    plain = gradual_extrapolation(net, x, coarse=coarse, levels=NAMES)
    close(gradual_extrapolation(net, x, coarse=coarse, levels=NAMES, finish=zscore_clip), zscore_clip(plain))
    close(
        gradual_extrapolation(net, x, coarse=coarse, levels=NAMES, include_deeper=True),
        extrapolate(coarse, levels_of(net, x), include_deeper=True),
    )
    close(
        gradual_extrapolation(net, x, coarse=coarse, levels=NAMES, contribution=sum_contribution),
        extrapolate(coarse, levels_of(net, x), contribution=sum_contribution),
    )


def test_a_transformer_has_one_resolution():
    net = torchvision.models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=4).double()
    net = models.from_module(net, side=16, verbose=False)
    with pytest.raises(ValueError, match="VisionTransformer names none, as no network of one resolution only"):
        gradual_extrapolation(net, image(), coarse=features(4, 4))
    with pytest.raises(ValueError, match=r"all levels have the resolution \[4, 4\]"):
        gradual_extrapolation(net, image(), coarse=features(4, 4), levels=net.selectable_layers)


def test_levels_that_are_missing_or_wrong_are_named():
    net, coarse = made(Steps), features(4, 4)
    with pytest.raises(ValueError, match="several resolutions, and Steps names none.*pass levels=.*from_module"):
        gradual_extrapolation(net, image(), coarse=coarse)
    with pytest.raises(TypeError, match="not one name, 'relu1'"):
        gradual_extrapolation(net, image(), coarse=coarse, levels="relu1")
    with pytest.raises(ValueError, match="no layer 'relu9'"):
        gradual_extrapolation(net, image(), coarse=coarse, levels=["relu9"])
    with pytest.raises(ValueError, match="several resolutions"):
        gradual_extrapolation(net, image(), coarse=coarse, levels=[])


def test_the_levels_are_checked_before_the_long_work():
    def never(net, image, target):
        raise AssertionError

    with pytest.raises(ValueError, match="no layer"):
        gradual_extrapolation(made(Steps), image(), coarse=never, layer="relu3", levels=["relu9"])


def test_it_works_on_any_network_with_levels():
    net = models.from_module(made(Deep), side=16, verbose=False)
    assert gradual_extrapolation(net, image(), coarse=cam.grad_cam).any()
    assert gradual_extrapolation(classifier(made()), image(), coarse=cam.grad_cam).any()


def test_it_draws_the_map_together_on_the_object():
    net, shares = models.load("slim_vgg16_scenes"), []
    for photo in drawn.scenes(6, seed=11):
        x, target = net.preprocess(photo.picture), net.index(photo.class_names[0])
        mask = photo.mask(photo.class_names[0], tuple(x.shape[-2:])).to(x)
        heat = cam.grad_cam(net, x, target)
        whole = gradual_extrapolation(net, x, target, coarse=torch.ones(4, 4))  # what the features alone make of no map at all
        maps = (torch.ones_like(heat), heat, whole, gradual_extrapolation(net, x, target, coarse=cam.grad_cam))
        shares.append([float((m * mask).sum() / m.sum()) for m in maps])
    chance, before, features_alone, after = np.mean(shares, 0)  # how much of the map lies on the object
    assert chance < 0.1 and before > 2 * chance and after > before + 0.3 and after > features_alone


# ------------------------------------------------------------------------------------------------ what is still seen


def test_an_image_seen_through_its_map():
    x, saliency = image(), features(16, 16)
    unit = (saliency - saliency.min()) / (saliency.max() - saliency.min())
    close(masked_image(x, saliency), x * unit)
    close(masked_image(x, saliency, fill=0.5), x * unit + 0.5 * (1 - unit))
    cut = masked_image(x, saliency, threshold=0.5)
    assert torch.equal(cut != 0, (unit > 0.5).expand(3, 16, 16))
    assert torch.equal(cut[:, unit > 0.5], x[:, unit > 0.5])
    assert not masked_image(x, torch.ones(16, 16)).any()  # a constant map shows nothing


@pytest.mark.parametrize(
    ("saliency", "says"),
    [
        (features(8, 16), r"\[3, 16, 16\] takes a finite map \[16, 16\]; this one is \[8, 16\], NaN or infinite: False"),
        (features(1, 16, 16), r"this one is \[1, 16, 16\]"),
        (features(16, 16) / 0, "NaN or infinite: True"),
    ],
)
def test_a_map_that_does_not_fit_the_image_is_named(saliency, says):
    with pytest.raises(ValueError, match=says):
        masked_image(image(), saliency)


def test_the_network_can_be_asked_what_it_sees():
    net = models.load("slim_vgg16_scenes")
    photo = drawn.scenes(1, seed=2)[0]
    x = net.preprocess(photo.picture)
    saliency = gradual_extrapolation(net, x, coarse=cam.grad_cam)
    unit = (saliency - saliency.min()) / (saliency.max() - saliency.min())
    seen = net.top(masked_image(x, saliency), 2)
    assert [name for name, _ in seen] == [name for name, _ in net.top(x * unit, 2)]
    assert [p for _, p in seen] == pytest.approx([p for _, p in net.top(x * unit, 2)], rel=1e-5)
    assert seen[0][1] != pytest.approx(net.top(x, 1)[0][1], rel=1e-5)
