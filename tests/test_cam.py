"""cam: closed forms, plain loops in double precision, the oracle of GAP + linear, and two independent libraries."""

import pytest
import torch
from captum.attr import LayerGradCam
from networks import Deep, Tiny, classifier, image, made
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM, XGradCAM
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
    (made(Deep), "features", r"one linear layer on 7 pooled features.*in_features=9"),
    (made(Tiny), "stem", "logits = linear"),
    (made(Twice), "last", "logits = linear"),
    (made(Longer), "last", "CAM needs"),
    (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double(), "0", "has none"),
])  # fmt: skip
def test_cam_refuses_a_network_for_which_it_is_not_defined(net, layer, says):
    with pytest.raises(ValueError, match=f"CAM needs.*{says}" if not says.startswith("CAM") else says):
        cam.cam(net, image(), 1, layer=layer)


def test_a_feature_map_without_positive_or_any_values_weighs_nothing():
    net = Sums([[1, 0, 0], [-1, -1, -1]], [[2, 3], [1, 1]])
    x = image().abs()  # the second feature map is 0 everywhere
    for method in (cam.grad_cam, cam.grad_cam_pp, cam.xgrad_cam, cam.layer_cam):
        saliency = method(net, x, 0, layer="relu")
        torch.testing.assert_close(core.to_unit(saliency), core.to_unit(x[0]))


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
