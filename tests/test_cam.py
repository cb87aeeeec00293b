"""cam: closed forms, plain loops in double precision, the oracle of GAP + linear, and two independent libraries."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import LayerGradCam
from networks import Deep, Tiny, classifier, image, made
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM, XGradCAM
from scipy import ndimage
from torch import nn

from helpers import cam, core, data, models


class Sums(nn.Module):
    """1x1 features, relu(weight @ pixel); logits by a linear layer on their mean. All weights are set by hand."""

    def __init__(self, mix, head, bias=0.0):
        super().__init__()
        self.mix, self.relu = nn.Conv2d(3, len(mix), 1, bias=False), nn.ReLU(inplace=True)
        self.head = nn.Linear(len(mix), len(head))
        self.double()
        self.mix.weight.data = torch.tensor(mix, dtype=torch.float64)[:, :, None, None]
        self.head.weight.data = torch.tensor(head, dtype=torch.float64)
        self.head.bias.data.fill_(bias)

    def forward(self, x):
        return self.head(self.relu(self.mix(x)).mean((2, 3)))


def pixels(*planes):
    return torch.tensor(planes, dtype=torch.float64)


PICTURE = pixels([[1, 0], [2, -1]], [[0, 3], [1, 1]], [[0, 0], [0, 0]])
NET = Sums([[1, 0, 0], [0, 1, 0]], [[2, -1], [-1, 3]], bias=5.0)  # A_0, A_1 are the first two planes, rectified


@pytest.mark.proves("cam", by="a network of two feature maps worked out by hand")
def test_cam_closed_form():
    assert cam.cam(NET, PICTURE, 0, layer="relu").tolist() == [[2, -3], [3, -1]]  # 2 A_0 - A_1, not rectified
    assert cam.cam(NET, PICTURE, 1, layer="relu").tolist() == [[-1, 9], [1, 3]]


def test_grad_cam_closed_form():
    assert cam.grad_cam(NET, PICTURE, 0, layer="relu").tolist() == [[0.5, 0], [0.75, 0]]  # gradients are weights / 4, then ReLU


def test_layer_cam_closed_form():
    assert cam.layer_cam(NET, PICTURE, 0, layer="relu").tolist() == [[0.5, 0], [1, 0]]  # A_1 has a negative gradient: left out


def test_grad_cam_pp_closed_form():
    g, total = 2 / 4, 1 + 2  # of A_0; A_1 has no positive gradient
    weight = 4 * g * g**2 / (2 * g**2 + total * g**3)
    expected = torch.tensor([[1.0, 0], [2, 0]], dtype=torch.float64) * weight
    torch.testing.assert_close(cam.grad_cam_pp(NET, PICTURE, 0, layer="relu"), expected)


def test_xgrad_cam_closed_form():
    """The weight is the gradient averaged with the features as weights: here it differs from position to position."""

    class Corner(Sums):
        def forward(self, x):
            A = self.relu(self.mix(x))
            return torch.stack([A[:, 0, 0, 0] * 3 + A[:, 0, 1, 0], A[:, 1].sum((1, 2))], 1)

    expected = torch.tensor([[1.0, 0], [2, 0]], dtype=torch.float64) * (1 * 3 + 2 * 1) / (1 + 2)
    torch.testing.assert_close(
        cam.xgrad_cam(Corner([[1, 0, 0], [0, 1, 0]], [[1, 0], [0, 1]]), PICTURE, 0, layer="relu"), expected
    )


# ------------------------------------------------------------------------------------------------- plain loops


def slow(method, A, g):
    """Map `[h][w]` of one method by loops over channels and positions."""
    C, h, w = A.shape
    A, g = A.tolist(), g.tolist()
    places = [(i, j) for i in range(h) for j in range(w)]
    out = [[0.0] * w for _ in range(h)]
    for k in range(C):
        total = sum(A[k][i][j] for i, j in places)
        weight = 0.0
        for i, j in places:
            here = g[k][i][j]
            if method == "grad_cam":
                weight += here / (h * w)
            elif method == "grad_cam_pp" and here > 0:
                weight += here**2 / (2 * here**2 + total * here**3) * here
            elif method == "xgrad_cam":
                weight += A[k][i][j] * here / total
        for i, j in places:
            out[i][j] += (max(g[k][i][j], 0.0) if method == "layer_cam" else weight) * A[k][i][j]
    return torch.tensor([[max(v, 0.0) for v in row] for row in out], dtype=torch.float64)


@pytest.mark.proves(
    "grad_cam", "grad_cam_pp", "xgrad_cam", "layer_cam", by="loops over channels and positions in double precision"
)
@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp", "xgrad_cam", "layer_cam"])
@pytest.mark.parametrize(("score", "seed"), [(core.logit, 0), (core.log_probability, 1), (core.probability, 2)])
def test_each_formula_is_its_plain_loop(method, score, seed):
    net, x = made(Deep, seed), image(seed)
    leaf = net.features(x[None]).detach().requires_grad_()  # [1, 7, 8, 8]
    score(net.rest(leaf), 3).sum().backward()
    expected = core.resize(slow(method, leaf[0], leaf.grad[0]), x.shape[-2:])
    assert expected.any()
    torch.testing.assert_close(getattr(cam, method)(net, x, 3, layer="features", score=score), expected, rtol=1e-9, atol=1e-12)


# --------------------------------------------------------------------------------- global average pooling + linear


@pytest.mark.proves(
    "cam", "grad_cam", "xgrad_cam", by="each other: on global average pooling and one linear layer the three agree"
)
@pytest.mark.parametrize("target", range(4))
def test_on_gap_and_linear_three_methods_are_one(target):
    net, x = classifier(made()), image()
    plain = core.features_of(net.module, x, "last")
    coarse = torch.einsum("c,chw->hw", net.module.head.weight[target].detach(), plain)  # CAM before resizing
    torch.testing.assert_close(cam.cam(net, x, target), core.resize(coarse, x.shape[-2:]))
    rectified = core.resize(coarse.relu(), x.shape[-2:]) / coarse.numel()
    torch.testing.assert_close(cam.grad_cam(net, x, target), rectified)
    torch.testing.assert_close(cam.xgrad_cam(net, x, target), rectified)


def test_cam_averages_to_the_logit_without_its_bias():
    net, x = made(), image()
    A = core.features_of(net, x, "last")
    assert cam.cam(net, x, 2, layer="last").shape == (16, 16)
    coarse = torch.einsum("c,chw->hw", net.head.weight[2], A)
    torch.testing.assert_close(coarse.mean(), net(x[None])[0, 2] - net.head.bias[2])


class Twice(Tiny):
    """The linear layer does not work on the mean of the features, but on its square."""

    def forward(self, x):
        y = self.last(self.mix(self.relu(self.norm(self.stem(x)))))
        return self.head(y.mean((2, 3)) ** 2)


class Longer(Tiny):
    """A linear layer of the right width that is not the last operation, and has another number of outputs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 9)
        self.after = nn.Conv2d(9, 4, 1)

    def forward(self, x):
        y = super().forward(x)
        return self.after(y[:, :, None, None])[:, :, 0, 0]


@pytest.mark.parametrize(("net", "layer", "says"), [
    (made(Deep), "features", r"in between 'features' and its logits.*in_features=9"),
    (made(Tiny), "stem", r"in between 'stem'"),
    (made(Twice), "last", r"in between 'last'"),
    (made(Longer), "last", r"in between 'last'"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double(), "0", "last linear layer: none"),
])  # fmt: skip
def test_cam_refuses_a_network_for_which_it_is_not_defined(net, layer, says):
    with pytest.raises(ValueError, match=f"CAM needs logits = one linear layer.*{says}"):
        cam.cam(net, image(), 1, layer=layer)


@pytest.mark.parametrize(("strength", "bias"), [(1e-5, 0.0), (1e-5, 1.0), (1.0, 100.0)])
def test_how_strong_the_last_weights_are_does_not_decide_for_which_network_cam_is_defined(strength, bias):
    def weakened(kind):
        net = made(kind)
        net.head.weight.data *= strength
        net.head.bias.data.fill_(bias)
        return net

    plain = cam.cam(made(Tiny), image(), 1, layer="last")
    torch.testing.assert_close(cam.cam(weakened(Tiny), image(), 1, layer="last"), strength * plain)
    for net, layer in ((weakened(Twice), "last"), (weakened(Tiny), "mix")):
        with pytest.raises(ValueError, match="CAM needs logits = one linear layer"):
            cam.cam(net, image(), 1, layer=layer)


def test_cam_takes_the_pool_behind_the_last_features_where_that_is_what_is_averaged():
    net, x = models.load("slim_vgg16_scenes"), image(size=(64, 64), dtype=torch.float32)
    assert net.cam_layer == "features.29"
    assert torch.equal(cam.cam(net, x, 1), cam.cam(net, x, 1, layer="features.30"))
    with pytest.raises(ValueError, match="in between 'features.29'"):
        cam.cam(net, x, 1, layer="features.29")


def test_a_feature_map_without_positive_or_any_values_weighs_nothing():
    net = Sums([[1, 0, 0], [-1, -1, -1]], [[2, 3], [1, 1]])
    x = image().abs()  # the second feature map is 0 everywhere
    for method in (cam.grad_cam, cam.grad_cam_pp, cam.xgrad_cam, cam.layer_cam):
        saliency = method(net, x, 0, layer="relu")
        torch.testing.assert_close(core.to_unit(saliency), core.to_unit(x[0]))


class Cancelling(nn.Module):
    """Two feature maps: the first one's values add up to 0 but for rounding, the second is positive; gradients of 1 to 4."""

    def __init__(self, rest):
        super().__init__()
        values = [[[1.0, -1.0], [0.3, -0.3 + rest]], [[1.0, 2.0], [3.0, 4.0]]]
        self.register_buffer("values", torch.tensor(values, dtype=torch.float64))
        self.features = nn.Identity()

    def forward(self, x):
        A = self.features(self.values.expand(len(x), 2, 2, 2) + 0 * x.sum())
        return torch.stack([(A * torch.arange(1.0, 5).reshape(2, 2)).sum((1, 2, 3)), 0 * A.sum((1, 2, 3))], 1)


@pytest.mark.parametrize("rest", [0.0, 1e-12, -1e-12, 2e-6])
def test_a_feature_map_that_cancels_out_weighs_nothing_in_xgrad_cam(rest):
    weight = (1 * 1 + 2 * 2 + 3 * 3 + 4 * 4) / 10
    expected = weight * torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(cam.xgrad_cam(Cancelling(rest), PICTURE, 0, layer="features"), expected)


def test_a_feature_map_with_a_sum_weighs_by_eq_8_however_small_it_is():
    net = Cancelling(0.1)
    A, g = net.values, torch.arange(1.0, 5, dtype=torch.float64).reshape(2, 2)
    expected = sum((a * g).sum() / a.sum() * a for a in A).relu()
    torch.testing.assert_close(cam.xgrad_cam(net, PICTURE, 0, layer="features"), expected)
    net.values *= 1e-9
    torch.testing.assert_close(cam.xgrad_cam(net, PICTURE, 0, layer="features"), 1e-9 * expected, rtol=1e-9, atol=0)


def test_a_class_that_no_feature_speaks_for_gives_a_blank_map():
    net = Sums([[1, 0, 0], [0, 1, 0]], [[-1, -1], [0, 0]])
    for method in (cam.grad_cam, cam.grad_cam_pp, cam.xgrad_cam, cam.layer_cam):
        assert not method(net, image(), 0, layer="relu").any()
        assert not method(net, image(), 1, layer="relu").any()


# -------------------------------------------------------------------------------------------- independent libraries


@pytest.fixture(scope="module")
def lite():
    return models.load()


@pytest.fixture(scope="module")
def coffee(lite):
    return lite.preprocess(data.photo("coffee").picture)


def case(which, request):
    """A network, an image, a layer and a target: the small one in double precision, or the real one with a photograph."""
    if which == "small":
        return made(Deep, 4), image(4), "features", 2
    lite = request.getfixturevalue("lite")
    return lite, request.getfixturevalue("coffee"), lite.cam_layer, lite.index("espresso")


STRENGTH = 1e4  # on a score this steep the 1e-6 that pytorch-grad-cam adds to a denominator does not show
both = pytest.mark.parametrize("which", ["small", "lite0"])


@pytest.mark.proves("grad_cam", "grad_cam_pp", "xgrad_cam", "layer_cam", by="pytorch-grad-cam, also on a photograph")
@both
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("grad_cam", GradCAM), ("grad_cam_pp", GradCAMPlusPlus), ("xgrad_cam", XGradCAM), ("layer_cam", LayerCAM)],
)
def test_pytorch_grad_cam_agrees(ours, theirs, which, request):
    net, x, layer, target = case(which, request)
    module = core.module_of(net)
    with theirs(module, [module.get_submodule(layer)]) as other:
        other(x[None], [lambda out: STRENGTH * out[target]])
        A, g = (kept[0].numpy() for kept in (other.activations_and_grads.activations, other.activations_and_grads.gradients))
        coarse = torch.from_numpy(other.get_cam_image(x[None], layer, [target], A, g, False))[0].relu()
    mine = getattr(cam, ours)(net, x, target, layer=layer, score=lambda logits, t: STRENGTH * logits[:, t])
    torch.testing.assert_close(core.to_unit(mine), core.to_unit(core.resize(coarse.to(mine), x.shape[-2:])), rtol=0, atol=1e-5)
    torch.testing.assert_close(mine, core.resize(coarse.to(mine), x.shape[-2:]), rtol=1e-4, atol=1e-4 * float(mine.max()))
    assert core.to_unit(mine).max() == 1


@both
def test_captum_agrees(which, request):
    net, x, layer, target = case(which, request)
    module = core.module_of(net)
    coarse = LayerGradCam(module, module.get_submodule(layer)).attribute(x[None], target, relu_attributions=True)
    mine, theirs = (
        core.to_unit(cam.grad_cam(net, x, target, layer=layer)),
        core.to_unit(core.resize(coarse[0, 0].detach(), x.shape[-2:])),
    )
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
    assert mine.max() == 1


def test_on_the_real_network_three_methods_are_one(lite, coffee):
    target = lite.index("espresso")
    coarse = torch.einsum(
        "c,chw->hw", lite.module.classifier.weight[target].detach(), core.features_of(lite, coffee, "head_relu")
    )
    for method in (cam.grad_cam, cam.xgrad_cam):
        torch.testing.assert_close(
            method(lite, coffee, target) * coarse.numel(), core.resize(coarse.relu(), (224, 224)), rtol=1e-4, atol=1e-4
        )
    torch.testing.assert_close(cam.cam(lite, coffee, target), core.resize(coarse, (224, 224)))


# ------------------------------------------------------------------------------------------------ Smooth Grad-CAM++


@pytest.mark.proves("smooth_grad_cam_pp", by="loops over copies, channels and positions in double precision")
@pytest.mark.parametrize(("score", "seed"), [(core.logit, 0), (core.log_probability, 1)])
def test_smooth_grad_cam_pp_is_its_plain_loop(score, seed):
    net, x, n, noise = made(Deep, seed), image(seed), 3, 0.4
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        A = net.features(x[None])[0]  # [7, 8, 8], of the image itself
    D = torch.zeros(3, *A.shape, dtype=torch.float64)
    for _ in range(n):
        copy = x + torch.randn(3, 16, 16, generator=generator).double() * noise * (x.max() - x.min())
        leaf = net.features(copy[None]).detach().requires_grad_()
        score(net.rest(leaf), 3).sum().backward()
        for power in (1, 2, 3):
            D[power - 1] += leaf.grad[0] ** power / n
    out = torch.zeros(8, 8, dtype=torch.float64)
    for k in range(7):
        weight = 0.0
        for i in range(8):
            for j in range(8):
                first, second, third = D[:, k, i, j].tolist()
                weight += second / (2 * second + float(A[k].sum()) * third) * max(first, 0.0)
        out += weight * A[k]
    expected = core.resize(out.clamp_min(0), x.shape[-2:])
    assert expected.any()
    given = cam.smooth_grad_cam_pp(net, x, 3, layer="features", score=score, copies=n, noise=noise, seed=seed)
    torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-12)


def test_without_noise_smooth_grad_cam_pp_is_grad_cam_pp():
    net, x = made(Deep, 1), image(1)
    plain = cam.grad_cam_pp(net, x, 2, layer="features")
    torch.testing.assert_close(cam.smooth_grad_cam_pp(net, x, 2, layer="features", copies=4, noise=0.0), plain)
    assert not torch.allclose(cam.smooth_grad_cam_pp(net, x, 2, layer="features", copies=4), plain, rtol=1e-3)


def test_on_gap_and_linear_noise_changes_nothing():
    """The gradient of a linear head is the same for every image, so averaging it over noisy ones is in vain."""
    net, x = classifier(made()), image()
    torch.testing.assert_close(cam.smooth_grad_cam_pp(net, x, 1, noise=0.5), cam.grad_cam_pp(net, x, 1))


def test_the_noise_follows_its_seed_and_the_range_of_the_image():
    net, x = made(Deep, 1), image(1)
    one, again, other = (cam.smooth_grad_cam_pp(net, x, 2, layer="features", copies=2, seed=s) for s in (4, 4, 5))
    assert torch.equal(one, again) and not torch.allclose(one, other)


@pytest.mark.parametrize(("settings", "says"), [({"copies": 0}, "copies is 0"), ({"noise": -0.1}, "noise is -0.1")])
def test_smooth_grad_cam_pp_names_wrong_settings(settings, says):
    with pytest.raises(ValueError, match=says):
        cam.smooth_grad_cam_pp(made(Deep), image(), layer="features", **settings)


# ------------------------------------------------------------------------------------------------ Augmented Grad-CAM

AUGMENTED = {"augmented_grad_cam": "grad_cam", "augmented_grad_cam_pp": "grad_cam_pp"}
augmented = pytest.mark.parametrize("name", AUGMENTED)


def scene(side=48):
    """A disc and a bar, sharp: `[H, W]`."""
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    disc = (y - 0.36 * side) ** 2 + (x - 0.4 * side) ** 2 < (side / 8) ** 2
    return disc.double() + 0.6 * (((y - 0.7 * side).abs() < side / 14) & ((x - 0.6 * side).abs() < side / 6))


class Averages(nn.Module):
    """Its Grad-CAM is known: the mean brightness in each 8 x 8 block of the first plane, over the number of blocks."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.AvgPool2d(8)

    def forward(self, x):
        brightness = self.blocks(x)[:, 0].mean((1, 2))
        return torch.stack([brightness, -brightness], 1)


def error(h, truth):
    return float((h - truth).square().mean().sqrt())


@pytest.mark.proves(
    "augmented_grad_cam", by="a network whose Grad-CAM is a known pattern made coarse: the pattern comes back sharper"
)
def test_augmented_grad_cam_brings_a_known_pattern_back():
    truth, net = scene(), Averages()
    x = torch.stack([truth, *torch.zeros(2, 48, 48, dtype=torch.float64)])
    coarse, mean, sharp = (
        36 * method(net, x, 0, layer="blocks")
        for method in (
            cam.grad_cam,
            partial(cam.augmented_grad_cam, copies=60, steps=0),
            partial(cam.augmented_grad_cam, copies=60, tv=2e-4),
        )
    )
    assert error(sharp, truth) < 0.7 * min(error(coarse, truth), error(mean, truth))


@augmented
def test_one_copy_and_no_steps_are_the_plain_map(name):
    net, x = made(Deep, 1), image(1)
    plain = getattr(cam, AUGMENTED[name])(net, x, 2, layer="features")
    assert plain.any()
    once = getattr(cam, name)(net, x, 2, layer="features", copies=1, steps=0)
    torch.testing.assert_close(once, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.proves(
    "augmented_grad_cam", "augmented_grad_cam_pp", by="each copy, and its map put back, by hand with scipy's affine transform"
)
@augmented
def test_augmented_maps_are_the_steps_written_out(name):
    """Every copy by hand, with scipy's affine transform; then the mean, put back by hand."""
    net, x, n, (H, W) = made(Tiny, 1), image(1, (16, 20)), 4, (16, 20)
    draws = torch.rand(n, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 - 1
    total, shown = np.zeros((H, W)), np.zeros((H, W))
    middle = np.array([(H - 1) / 2, (W - 1) / 2])
    for i, (turn, right, down) in enumerate(draws.tolist()):
        angle, move = (0.3 * turn, np.array([0.2 * down * H, 0.2 * right * W])) if i else (0.0, np.zeros(2))
        R = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # rows and columns of pixels
        there = {"matrix": R, "offset": middle + move - R @ middle}
        back = {"matrix": R.T, "offset": middle - R.T @ (middle + move)}
        copy = np.stack([ndimage.affine_transform(plane, **there, order=1, mode="grid-constant") for plane in x.numpy()])
        one = getattr(cam, AUGMENTED[name])(net, torch.from_numpy(copy), 2, layer="last").numpy()
        total += ndimage.affine_transform(one, **back, order=1, mode="grid-constant")
        shown += ndimage.affine_transform(np.ones((H, W)), **back, order=1, mode="grid-constant")
    given = getattr(cam, name)(net, x, 2, layer="last", copies=n, steps=0, angle=0.3, shift=0.2, seed=3)
    assert shown.min() > 0.9  # the copy that is not moved shows all
    torch.testing.assert_close(given, torch.from_numpy(total / shown), rtol=1e-9, atol=1e-11)


def matrices(copied, small, size, per_cell):
    """D A_i as one matrix for each copy, `[h * w, H * W]`: bilinear weights of the places in each cell, by loops."""
    (h, w), (H, W) = small, size
    found = torch.zeros(len(copied), h * w, H * W, dtype=torch.float64)
    for n, move in enumerate(copied.tolist()):
        for row in range(h * per_cell):
            for column in range(w * per_cell):
                v, u = (2 * row + 1) / (h * per_cell) - 1, (2 * column + 1) / (w * per_cell) - 1
                x, y = (a * u + b * v + c for a, b, c in move)  # -1 and 1 are the outer edges of the image
                x, y = (x + 1) * W / 2 - 0.5, (y + 1) * H / 2 - 0.5  # in pixels
                for i in (math.floor(y), math.floor(y) + 1):
                    for j in (math.floor(x), math.floor(x) + 1):
                        if 0 <= i < H and 0 <= j < W:
                            weight = (1 - abs(y - i)) * (1 - abs(x - j)) / per_cell**2
                            found[n, row // per_cell * w + column // per_cell, i * W + j] += weight
    return found


@pytest.mark.proves(
    "augmented_grad_cam",
    "augmented_grad_cam_pp",
    by="the super-resolution's objective with explicit matrices and Adam written out by hand",
)
def test_the_super_resolution_is_adam_on_the_written_out_objective():
    size, small, n, tv, energy, lr = (7, 9), (2, 3), 3, 0.05, 0.02, 0.03
    generator = torch.Generator().manual_seed(2)
    g = torch.rand(n, *small, generator=generator, dtype=torch.float64) * 5
    copied = cam.random_moves(n, 0.5, 0.2, torch.zeros(3, *size, dtype=torch.float64), 1)
    DA = matrices(copied, small, size, 4)
    peak = g.max()
    h = cam.turned_back(g, copied, size).flatten() / peak  # [H * W]
    m, v = torch.zeros_like(h), torch.zeros_like(h)
    for step in range(1, 6):
        gradient = sum(2 * M.T @ (M @ h - one.flatten() / peak) for M, one in zip(DA, g, strict=True)) / n + energy * h
        picture, of_tv = h.reshape(size), torch.zeros(size, dtype=torch.float64)
        for i in range(size[0]):
            for j in range(size[1]):
                for a, b in ((i + 1, j), (i, j + 1)):
                    if a < size[0] and b < size[1]:
                        sign = torch.sign(picture[a, b] - picture[i, j])
                        of_tv[a, b] += tv * sign
                        of_tv[i, j] -= tv * sign
        gradient = gradient + of_tv.flatten()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        h = h - lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    given = cam.super_resolved(g, copied, size, tv=tv, energy=energy, steps=5, lr=lr)
    torch.testing.assert_close(given, h.clamp_min(0).reshape(size) * peak, rtol=1e-9, atol=1e-11)


def test_the_first_copy_is_the_image_and_the_others_stay_within_their_limits():
    x = torch.zeros(3, 40, 60, dtype=torch.float64)
    copied = cam.random_moves(200, 0.5, 0.1, x, 0)
    assert torch.equal(copied[0], torch.eye(2, 3, dtype=torch.float64))
    angles = torch.atan2(copied[:, 1, 0] * 40 / 60, copied[:, 0, 0])  # sine of rows over columns, in units of pixels
    for values, limit in ((angles, 0.5), (copied[:, 0, 2], 0.2), (copied[:, 1, 2], 0.2)):
        assert 0.9 * limit < values.abs().max() <= limit and values.min() < 0 < values.max()
    assert not torch.equal(copied, cam.random_moves(200, 0.5, 0.1, x, 1))


def test_maps_that_move_with_the_picture_come_back_to_their_place():
    """Turned back, the maps of a method that moves with its picture are one map: that of the picture, but for the resampling."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 64, dtype=torch.float64)] * 2, indexing="ij")
    smooth = torch.exp(-8 * ((y - 0.2) ** 2 + (x + 0.1) ** 2))
    copied = cam.random_moves(20, 0.5, 30 / 224, smooth[None], 0)
    maps = torch.stack([cam.moved(smooth[None], move)[0] for move in copied])
    assert float((maps[1] - smooth).abs().max()) > 0.2
    torch.testing.assert_close(cam.turned_back(maps, copied, (64, 64)), smooth, rtol=0, atol=0.01)


def test_the_scale_of_the_scores_is_the_scale_of_the_augmented_map():
    net, x = made(Deep, 1), image(1)
    settings = {"layer": "features", "copies": 3, "steps": 5}
    one = cam.augmented_grad_cam(net, x, 2, **settings)
    many = cam.augmented_grad_cam(net, x, 2, **settings, score=lambda logits, t: 1000 * logits[:, t])
    assert one.any()
    torch.testing.assert_close(many, 1000 * one)


@augmented
def test_a_class_that_no_feature_speaks_for_gives_a_blank_augmented_map(name):
    net = Sums([[1, 0, 0], [0, 1, 0]], [[-1, -1], [0, 0]])
    assert not getattr(cam, name)(net, image(), 0, layer="relu", copies=3, steps=3).any()


@augmented
@pytest.mark.parametrize(("settings", "says"), [({"copies": 0}, "copies is 0"), ({"copies": 2, "steps": -1}, "steps is -1")])
def test_wrong_counts_are_named_before_the_first_copy(name, settings, says):
    with pytest.raises(ValueError, match=says):
        getattr(cam, name)(made(Deep), image(), layer="not asked for", **settings)


# ----------------------------------------------------------------------------------------------------------- FullGrad


class Functional(nn.Module):
    """ReLUs and pooling as functions, a convolution without a bias, a shared ReLU, ReLU6, a residual addition in place."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1, bias=False)
        self.norm, self.six = nn.BatchNorm2d(5), nn.ReLU6(inplace=True)
        self.shared = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        x = self.six(8 * self.one(x))
        y = self.norm(self.two(self.shared(x - x.mean((2, 3), keepdim=True))))
        y += F.avg_pool2d(x, 3, 1, 1)
        y = F.max_pool2d(F.relu(self.shared(y) - 0.5 * x), 2)
        return self.head(y.mean((2, 3)))


@pytest.mark.proves("full_grad", by="completeness: image and bias terms add up to the logit to 1e-10")
@pytest.mark.parametrize("kind", [Tiny, Deep, Functional])
def test_the_full_gradients_add_up_to_the_logit(kind):
    net, x = made(kind, 3), image(3)
    for target in range(4):
        of_pixels, of_biases = cam.full_gradients(net, x, target)
        total = of_pixels.sum() + sum(piece.sum() for piece in of_biases)
        torch.testing.assert_close(total, net(x[None])[0, target].detach(), rtol=1e-10, atol=1e-12)


def test_a_networks_biases_have_their_gradients():
    """The sum of a piece over positions is the bias times what autograd gives for it; ReLU6 adds six where it is clipped."""
    net, x = made(Functional, 3), image(3)
    of_pixels, pieces = cam.full_gradients(net, x, 1)
    kept = {}
    with net.six.register_forward_hook(lambda _m, _i, out: kept.update(out=out.clone())):
        net.zero_grad()
        pixels_ = x.clone().requires_grad_()
        net(pixels_[None])[0, 1].backward()
    of_one, of_six, of_norm, of_head = pieces
    torch.testing.assert_close(of_pixels, x * pixels_.grad)
    torch.testing.assert_close(of_one.sum((1, 2)), net.one.bias.detach() * net.one.bias.grad)
    torch.testing.assert_close(of_head, net.head.bias.detach() * net.head.bias.grad)
    shift = net.norm.bias - net.norm.running_mean * net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
    torch.testing.assert_close(of_norm.sum((1, 2)), shift.detach() * net.norm.bias.grad)
    clipped = kept["out"][0] == 6
    assert clipped.any() and of_six[clipped].any() and not of_six[~clipped].any()


@pytest.mark.proves("full_grad", by="its sum over layers written out with autograd's own gradients")
def test_full_grad_is_its_sum_over_layers():
    net, x = made(Tiny, 2), image(2, (16, 20))
    stem = net.stem(x[None]).detach().requires_grad_()
    normed = net.norm(stem).detach().requires_grad_()
    mixed = net.mix(normed.relu()).detach().requires_grad_()
    mixed_score = net.head((mixed + normed.relu()).relu().mean((2, 3)))[0, 1]
    (of_mix,) = torch.autograd.grad(mixed_score, mixed, retain_graph=True)
    whole = net.head((net.mix(normed.relu()) + normed.relu()).relu().mean((2, 3)))[0, 1]
    (of_norm,) = torch.autograd.grad(whole, normed)
    (of_stem,) = torch.autograd.grad((net.norm(stem) * of_norm).sum(), stem)
    leaf = x.clone().requires_grad_()
    (of_x,) = torch.autograd.grad((net.stem(leaf[None]) * of_stem).sum(), leaf)
    norm = net.norm
    shift = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
    pieces = [of_x * x]
    pieces += [
        g[0] * bias[:, None, None].detach() for g, bias in ((of_stem, net.stem.bias), (of_norm, shift), (of_mix, net.mix.bias))
    ]
    expected = torch.zeros(16, 20, dtype=torch.float64)
    for piece in pieces:
        low, high = piece.abs().min(), piece.abs().max()
        for channel in piece.abs():
            expected += F.interpolate(
                ((channel - low) / (high - low))[None, None], (16, 20), mode="bilinear", align_corners=False
            )[0, 0]
    torch.testing.assert_close(cam.full_grad(net, x, 1), expected, rtol=1e-9, atol=1e-11)


class Gated(Tiny):
    """A gate, the product of two things that both depend on the image: no layer has a bias that accounts for it."""

    def forward(self, x):
        y = self.last(self.mix(self.relu(self.norm(self.stem(x)))))
        return self.head(y.mean((2, 3)) * y.mean((2, 3)).sigmoid())


def small_vit():
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4
    )


@pytest.mark.parametrize(("kind", "side"), [(Gated, 16), (small_vit, 32)])
def test_full_grad_refuses_a_network_whose_parts_do_not_add_up(kind, side):
    net = made(kind, 1)
    if kind is small_vit:
        nn.init.normal_(net.heads.head.weight, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"FullGrad needs a logit that its parts add up to; here it is .* and they give "):
        cam.full_grad(net, image(size=(side, side)), 1)


class Other(Tiny):
    """A Tiny with another layer after its features."""

    def __init__(self, after):
        super().__init__()
        self.last = after


@pytest.mark.parametrize(("after", "says"), [
    (nn.Hardsigmoid(), r"needs the linear part of every layer; Hardsigmoid\(\) has none"),
    (nn.Linear(8, 8), r"needs features \[N, C, h, w\]; a linear layer of this network is given \[1, 6, 8, 8\]"),
])  # fmt: skip
def test_full_grad_names_a_layer_that_it_cannot_take_apart(after, says):
    with pytest.raises(ValueError, match=says):
        cam.full_grad(made(Other, after=after), image(), 1)


def test_full_grad_takes_apart_smooth_layers_too():
    """The implicit bias of any layer is what it puts out beyond its linear part, so these add up as well."""
    for after in (nn.SiLU(inplace=True), nn.GELU(), nn.Sigmoid(), nn.GroupNorm(2, 6), nn.LeakyReLU(0.1, inplace=True)):
        net, x = made(Other, after=after), image()
        of_pixels, pieces = cam.full_gradients(net, x, 2)
        total = of_pixels.sum() + sum(piece.sum() for piece in pieces)
        torch.testing.assert_close(total, net(x[None])[0, 2].detach(), rtol=1e-10, atol=1e-12)


def test_full_grad_adds_up_on_the_real_network(lite, coffee):
    """Batch norm, ReLU6, residual additions, depthwise convolutions, 83 layers with a bias: in single precision."""
    target = lite.index("espresso")
    of_pixels, pieces = cam.full_gradients(lite.module, coffee, target)
    total = of_pixels.sum() + sum(piece.sum() for piece in pieces)
    assert len(pieces) == 83 and float(total) == pytest.approx(float(lite(coffee[None])[0, target].detach()), abs=1e-3)


# -------------------------------------------------------------------------------------------------- vision transformers

ON_TOKENS = ["grad_cam", "grad_cam_pp", "xgrad_cam", "layer_cam", "smooth_grad_cam_pp", "augmented_grad_cam"]


@pytest.mark.parametrize("method", ON_TOKENS[:4])
def test_on_a_transformer_each_formula_works_on_the_grid_of_its_tokens(method):
    net, x = made(small_vit, 1), image(1, (32, 32))
    nn.init.normal_(net.heads.head.weight, generator=torch.Generator().manual_seed(0))
    kept = {}
    with net.encoder.layers[1].ln_1.register_forward_hook(lambda _m, _i, out: kept.update(tokens=out)):
        (g,) = torch.autograd.grad(net(x[None])[0, 3], kept["tokens"])  # [1, 17, 16]
    A = kept["tokens"].detach()
    A, g = (t[0, 1:].T.reshape(16, 4, 4) for t in (A, g))  # without the class token
    expected = core.resize(slow(method, A, g), (32, 32))
    assert expected.any()
    given = getattr(cam, method)(models.from_module(net, side=32, verbose=False), x, 3)
    torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ON_TOKENS[4:])
def test_on_a_transformer_copies_work(method):
    net, x = made(small_vit, 1), image(1, (32, 32))
    nn.init.normal_(net.heads.head.weight, generator=torch.Generator().manual_seed(0))
    saliency = getattr(cam, method)(models.from_module(net, side=32, verbose=False), x, 3, copies=3)
    assert saliency.shape == (32, 32) and core.to_unit(saliency).max() == 1
