"""features: closed forms, images whose best is known, and what the random views, the gate and the blur may and may not do."""

from functools import partial
from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from networks import SIDE, Deep, Failing, changes, classifier, image, made, snapshot
from torch import nn

from helpers import cam, core, features, models
from helpers.features import (
    activation_maps,
    activation_maximisation,
    class_impression,
    climb,
    first_filters,
    pixel_range,
    random_view,
    same,
    total_variation,
)

# ------------------------------------------------------------------------------------------------- maps and filters


@pytest.mark.proves("activation_maps", by="a loop over the channels: each scaled by itself, sorted by their maximum")
@pytest.mark.parametrize("layer", ["relu", "mix", None])
def test_activation_maps_are_scaled_and_sorted_one_by_one(layer):
    net, x = classifier(made()), image()
    A = core.features_of(net, x, layer or "last")
    maps, channels = activation_maps(net, x, layer=layer)
    order = sorted(range(len(A)), key=lambda k: -float(A[k].max()))
    assert channels.tolist() == order and order != sorted(order)
    for found, k in zip(maps, order, strict=True):
        torch.testing.assert_close(found, (A[k] - A[k].min()) / (A[k].max() - A[k].min()), rtol=1e-12, atol=1e-12)


def test_a_channel_that_is_constant_is_blank():
    net = made()
    with torch.no_grad():
        net.norm.weight[2], net.norm.bias[2] = 0, 100
    maps, channels = activation_maps(net, image(), layer="norm")
    assert channels[0] == 2 and not maps[0].any() and maps[1].max() == 1


def test_activation_maps_leave_a_network_in_training_as_it_is():
    net = made().train()
    before = snapshot(net)
    expected = activation_maps(made(), image(), layer="last")[0]
    with torch.inference_mode():
        assert torch.equal(activation_maps(net, image(), layer="last")[0], expected)
    assert changes(before, snapshot(net)) == []


def test_activation_maps_need_positions():
    with pytest.raises(TypeError, match=r"'head' puts out shape \[1, 4\]"):
        activation_maps(made(), image(), layer="head")


@pytest.mark.proves("first_filters", by="a loop over the filters, each scaled over its three colours together")
def test_first_filters_are_scaled_over_their_colours_together():
    net = made()
    weights = net.stem.weight.detach()
    filters = first_filters(net)
    assert filters.shape == (6, 3, 3, 3) and not filters.requires_grad
    for found, w in zip(filters, weights, strict=True):
        torch.testing.assert_close(found, (w - w.min()) / (w.max() - w.min()), rtol=1e-12, atol=1e-12)
        assert sorted(found.amax((1, 2)).tolist())[0] < 1  # not each colour by itself


@pytest.mark.parametrize("net", [nn.Sequential(nn.Conv2d(1, 4, 3)), nn.Linear(3, 2)], ids=["one colour", "no convolution"])
def test_filters_of_other_than_three_colours_are_an_error(net):
    with pytest.raises(ValueError, match="3 colour channels; this network has (Conv2d.1, 4|no convolution)"):
        first_filters(net)


# ------------------------------------------------------------------------------------------------- a best image is known


class Linear(nn.Module):
    """Logits `w_k . x`: the picture that raises one of them most is as bright as allowed where w_k is positive."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.stack([image(k) for k in range(4)]))  # [K, 3, H, W]
        self.layer = nn.Identity()

    def forward(self, x):
        return torch.einsum("kchw,nchw->nk", self.w, self.layer(x))


def with_bounds(module):
    names = tuple("abcd")
    return models.Classifier("", module, names, "layer", side=SIDE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))


@pytest.mark.proves("activation_maximisation", by="a linear network, whose best image is known in closed form")
def test_the_best_image_of_a_linear_network_is_at_the_bounds():
    net = with_bounds(Linear())
    x = activation_maximisation(net, 2, steps=60)
    low = torch.tensor([-2.5, -1.6, -0.6], dtype=torch.float64)[:, None, None]
    high = torch.tensor([2.5, 2.4, 1.4], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(x, torch.where(net.module.w[2] > 0, high, low), rtol=1e-12, atol=1e-12)
    assert ((net.pixels(x) < 1e-6) | (net.pixels(x) > 1 - 1e-6)).all()


def test_the_best_image_under_weight_decay_is_the_weights_themselves():
    net, decay = Linear(), 2.0
    x = activation_maximisation(net, 1, steps=300, lr=0.03, weight_decay=decay, side=SIDE)
    torch.testing.assert_close(x, net.w[1].detach() / decay, rtol=0, atol=1e-3)  # w - decay x = 0


@pytest.mark.proves("class_impression", by="a linear network, whose best image for two classes together is known in closed form")
def test_the_best_image_for_two_classes_goes_by_the_sum_of_their_weights():
    net = with_bounds(Linear())
    low, high = pixel_range(net, image())
    x = class_impression(net, [0, 3], view=same, tv=0, steps=120)
    torch.testing.assert_close(x, torch.where(net.module.w[[0, 3]].sum(0) > 0, high, low), rtol=1e-12, atol=1e-12)
    assert torch.equal(class_impression(net, [1], steps=5), class_impression(net, 1, steps=5))


def test_a_unit_of_a_layer_is_a_channel_mean():
    net = made(Deep)

    def goal(x):
        return net.features(x[None])[0, 3].mean()

    expected = climb(net, goal, steps=20, lr=0.1, weight_decay=1e-6, side=SIDE)
    found = activation_maximisation(net, 3, layer="features", steps=20, side=SIDE)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    start = climb(net, goal, steps=0, lr=0.1, side=SIDE)
    assert goal(found) > goal(start) + 0.1


@pytest.mark.parametrize("target", range(4))
def test_the_logit_rises_and_the_pixels_stay_in_range(target):
    net = classifier(made(Deep, 1), layer="features")
    start, x = (class_impression(net, target, steps=s, tv=0.1) for s in (0, 60))
    with torch.no_grad():
        assert net(x[None])[0, target] > net(start[None])[0, target] + 0.5
    low, high = pixel_range(net, x)
    assert (x >= low).all() and (x <= high).all()


@pytest.mark.parametrize("name", ["star", "ring"])
def test_a_trained_network_is_sure_of_its_impression(name):
    net = models.load("slim_vgg16_scenes")
    x = class_impression(net, net.index(name), steps=25)
    with torch.no_grad():
        assert net(x[None]).softmax(1)[0, net.index(name)] > 0.9
        assert net(class_impression(net, 0, steps=0)[None]).softmax(1)[0, net.index(name)] < 0.9


# --------------------------------------------------------------------------------------------------------- the parts


def test_total_variation_of_a_ramp_and_of_a_chessboard():
    i, j = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    assert total_variation((2 * i + 3 * j).expand(3, 5, 7)) == 2 + 3
    assert total_variation(((i + j) % 2).expand(3, 5, 7)) == 2
    assert total_variation(torch.ones(3, 5, 7)) == 0


def test_total_variation_alone_makes_the_noise_smooth():
    net = with_bounds(Linear())
    rough, smooth = (climb(net, lambda x: 0 * x.sum(), steps=80, lr=0.01, tv=tv) for tv in (0.0, 1.0))
    assert total_variation(smooth) < 0.2 * total_variation(rough)


def always(values):
    return lambda *size, **settings: torch.tensor(values, dtype=settings["dtype"])


def test_a_view_without_changes_is_the_image():
    x = image(size=(SIDE, SIDE + 4))
    seen = random_view(x, torch.Generator(), degrees=0, zoom=0, shift=0, tint=0)
    torch.testing.assert_close(seen, x, rtol=1e-12, atol=1e-12)
    assert same(x, torch.Generator()) is x


@pytest.mark.parametrize(
    ("r", "settings", "expected"),
    [
        ([1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], {"degrees": 90}, lambda x: torch.rot90(x, 1, (1, 2))),
        ([0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], {"degrees": 90}, lambda x: torch.rot90(x, -1, (1, 2))),
        ([0.5, 0.5, 1, 0.5, 0.5, 0.5, 0.5], {"shift": 2 / SIDE}, lambda x: torch.cat([x[..., 2:], x[..., [-1, -2]]], 2)),
        ([0.5, 0.5, 0.5, 1, 0.5, 0.5, 0.5], {"shift": 2 / SIDE}, lambda x: torch.cat([x[:, 2:], x[:, [-1, -2]]], 1)),
        ([0.5, 0.5, 0.5, 0.5, 1, 0.75, 0], {"tint": 1}, lambda x: x + torch.tensor([1, 0.5, -1])[:, None, None]),
        (
            [0.5, 1, 0.5, 0.5, 0.5, 0.5, 0.5],
            {"zoom": 1},
            lambda x: F.interpolate(x[None], scale_factor=2, mode="bilinear")[
                0, :, SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2
            ],
        ),
    ],
    ids=["turned left", "turned right", "shifted", "shifted down", "tinted", "zoomed"],
)
def test_a_view_of_known_random_numbers(monkeypatch, r, settings, expected):
    x = image()
    monkeypatch.setattr(torch, "rand", always(r))
    seen = random_view(x, torch.Generator(), **({"degrees": 0, "zoom": 0, "shift": 0, "tint": 0} | settings))
    torch.testing.assert_close(seen, expected(x), rtol=1e-10, atol=1e-10)


def test_a_turned_view_of_a_wide_image_is_not_sheared(monkeypatch):
    i, j = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
    ring = (((i - 15.5) ** 2 + (j - 31.5) ** 2).sqrt() - 8).abs().lt(2).double().expand(3, 32, 64)
    monkeypatch.setattr(torch, "rand", always([1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]))
    seen = random_view(ring, torch.Generator(), degrees=45, zoom=0, shift=0, tint=0)
    middle = slice(None), slice(4, 28), slice(20, 44)  # what is further out comes mirrored
    assert (seen - ring)[middle].abs().mean() < 0.3 * ring[middle].mean()  # a turned ring is the same ring


def test_the_views_differ_and_come_from_the_generator():
    x, g = image(), torch.Generator().manual_seed(3)
    first, second = random_view(x, g), random_view(x, g)
    assert not torch.allclose(first, second)
    assert torch.equal(first, random_view(x, torch.Generator().manual_seed(3)))


# ---------------------------------------------------------------------------------------------------------- the gate

IMPRESSION = partial(class_impression, steps=30, tv=0.0, view=same)


def gate_of(values):
    """An explainer that gives this map, whatever it is asked."""
    return lambda net, image, target=None: values.to(image)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_blank_map_says_nothing_and_leaves_everything_open(value):
    net = classifier(made(Deep), layer="features")
    blank = gate_of(torch.full((SIDE, SIDE), value))
    assert torch.equal(IMPRESSION(net, 0, saliency=blank, warm_up=0), IMPRESSION(net, 0))
    left = (torch.arange(SIDE) < SIDE // 2).double().expand(SIDE, SIDE)
    maps = iter([left, torch.zeros(SIDE, SIDE)])  # at the steps 0 and 20: then the right opens again
    once = IMPRESSION(net, 0, saliency=lambda net, image, target=None: next(maps), warm_up=0)
    held = IMPRESSION(net, 0, saliency=gate_of(left), warm_up=0)
    assert (once - held)[..., SIDE // 2 + 4 :].abs().max() > 1e-3


def test_where_the_map_is_1_the_image_goes_on_and_elsewhere_it_is_blurred():
    net = classifier(made(Deep), layer="features")
    half = (torch.arange(SIDE) < SIDE // 2).double().expand(SIDE, SIDE)  # 1 on the left
    start, x = (IMPRESSION(net, 0, saliency=gate_of(half), warm_up=0, steps=s, gate_every=100) for s in (0, 5))
    torch.testing.assert_close(x[..., SIDE // 2 :], features.blurred(start, 2.0)[..., SIDE // 2 :], rtol=1e-12, atol=1e-12)
    assert ((x - start)[..., : SIDE // 2].abs() > 1e-3).double().mean() > 0.9


def test_the_gate_waits_for_the_warm_up_and_comes_every_so_often():
    net, asked = classifier(made(Deep), layer="features"), []

    def saliency(net, image, target=None):
        asked.append(target)
        return cam.grad_cam(net, image, target)

    gated = IMPRESSION(net, [1, 2], saliency=saliency, warm_up=10, gate_every=8)
    assert asked == [1, 2] * 3  # before the steps 10, 18 and 26
    assert torch.equal(IMPRESSION(net, 1, saliency=saliency, warm_up=30), IMPRESSION(net, 1))
    assert not torch.equal(gated, IMPRESSION(net, [1, 2]))


def test_several_maps_leave_open_what_any_of_them_shows():
    net = classifier(made(Deep), layer="features")
    left = (torch.arange(SIDE) < SIDE // 2).double().expand(SIDE, SIDE)
    both = IMPRESSION(net, [0, 1], saliency=lambda net, image, target: left if target else 1 - left, warm_up=0)
    assert torch.equal(both, IMPRESSION(net, [0, 1]))


def test_blurring_now_and_then_makes_it_smoother():
    net = classifier(made(Deep), layer="features")
    assert total_variation(IMPRESSION(net, 0, blur_every=4)) < 0.7 * total_variation(IMPRESSION(net, 0))
    start = climb(net, lambda x: 0 * x.sum(), steps=0, lr=0.1)
    for steps, blurs in ((3, 0), (4, 1), (8, 2)):
        expected = start
        for _ in range(blurs):
            expected = features.blurred(expected, 1.0)
        assert torch.equal(climb(net, lambda x: 0 * x.sum(), steps=steps, lr=0.1, blur_every=4), expected)


# ------------------------------------------------------------------------------------------------ the network, the errors

MAKERS = {
    "class_impression": partial(class_impression, saliency=cam.grad_cam, steps=12, warm_up=2, gate_every=4),
    "activation_maximisation": partial(activation_maximisation, layer="mix", steps=6),
}
every = pytest.mark.parametrize("name", MAKERS)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_is_repeated_by_its_seed_and_like_the_network(name, dtype):
    net, make = classifier(made(dtype=dtype)), MAKERS[name]
    first = make(net, 1)
    torch.rand(3)
    assert torch.equal(first, make(net, 1)) and not torch.allclose(first, make(net, 1, seed=1))
    assert first.shape == (3, SIDE, SIDE) and first.dtype == dtype and not first.requires_grad and not first.is_inference()
    assert make(net, 1, side=20).shape == (3, 20, 20)
    with torch.inference_mode():
        assert torch.equal(first, make(net, 1))
    with torch.no_grad():
        assert torch.equal(first, make(net, 1))


@every
@pytest.mark.parametrize("fail_at", [None, 1, 5])
def test_the_network_comes_back_as_it_was_also_after_a_failure(name, fail_at):
    net = classifier(made(Failing))
    net.module.train()
    net.module(torch.stack([image(), image(1)])).sum().backward()
    net.module.norm.eval()
    before = snapshot(net)
    net.module.calls, net.module.fail_at = 0, fail_at or 0
    if fail_at is None:
        MAKERS[name](net, 1)
    else:
        with pytest.raises(RuntimeError, match=f"forward pass {fail_at} fails"):
            MAKERS[name](net, 1)
    assert changes(before | {("", "attributes"): 0}, snapshot(net) | {("", "attributes"): 0}) == []


@every
@pytest.mark.parametrize(("unit", "error"), [(6, ValueError), (-1, ValueError), ("cat", TypeError), (True, TypeError)])
def test_a_wrong_unit_is_named(name, unit, error):
    says = "layer 'mix' has channels 0 to 5; unit .* is none of them" if "unit" in signature(MAKERS[name]).parameters else "class"
    with pytest.raises(error, match=says):
        MAKERS[name](classifier(made()), unit)


def test_without_a_layer_a_unit_is_a_class():
    with pytest.raises(ValueError, match="target 4 is out of range: the network has classes 0 to 3"):
        activation_maximisation(classifier(made()), 4)


@every
def test_less_than_no_steps_are_an_error(name):
    with pytest.raises(ValueError, match="steps is -1.*at least 0"):
        MAKERS[name](classifier(made()), 1, steps=-1)


def test_a_gate_that_never_comes_is_an_error():
    with pytest.raises(ValueError, match="gate_every 0; expected"):
        IMPRESSION(classifier(made()), 1, gate_every=0)


def test_no_class_is_an_error():
    with pytest.raises(ValueError, match="at least one class"):
        class_impression(classifier(made()), [])


@every
def test_a_plain_module_needs_a_side(name):
    make = partial(MAKERS[name], saliency=None) if name == "class_impression" else MAKERS[name]
    with pytest.raises(ValueError, match="pass side="):
        make(made(), 1)
    assert make(made(), 1, side=SIDE).shape == (3, SIDE, SIDE)


def test_a_goal_that_is_nan_names_the_step():
    with pytest.raises(ValueError, match="NaN or infinite at step 0 of 9"):
        climb(made(), lambda x: x.sum() * float("nan"), steps=9, lr=0.1, side=SIDE)
