"""backprop: chains of dense matrices in double precision, conservation laws, captum and pytorch-grad-cam."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import GuidedBackprop, GuidedGradCam
from networks import Deep, classifier, image, made, named
from pytorch_grad_cam import GuidedBackpropReLUModel
from torch import nn

from helpers import cam, core, models
from helpers.backprop import (
    backward_rules,
    contrastive_excitation_backprop,
    excitation_backprop,
    guided_backprop,
    guided_grad_cam,
    guided_gradient,
    integrated_gradients,
    middle_layer,
    per_class,
    winning_probability,
)

close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)


class Plain(nn.Module):
    """Like a small VGG: convolutions, a max pool, an average pool, two linear layers. `act` is how its ReLUs are written."""

    acts = {
        "module": nn.ReLU(),
        "in place": nn.ReLU(inplace=True),
        "F.relu": F.relu,
        "F.relu in place": partial(F.relu, inplace=True),
        "torch.relu": torch.relu,
        "method": lambda x: x.relu(),
        "method in place": lambda x: x.relu_(),
        "in place, result not used": lambda x: (x.relu_(), x)[1],
        "clamp": lambda x: x.clamp(min=0),
    }

    def __init__(self, act="module"):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 6, 3, stride=2)
        self.pool, self.mean = nn.MaxPool2d(2), nn.AvgPool2d(2, stride=1)
        self.hidden, self.last = nn.Linear(24, 12), nn.Linear(12, 4)
        self.act = self.acts[act]

    def forward(self, x):
        x = self.pool(self.act(self.one(x)))  # [N, 5, 8, 8]
        x = self.mean(self.act(self.two(x)))  # [N, 6, 2, 2]
        return self.last(self.act(self.hidden(x.flatten(1))))


class Residual(nn.Module):
    """Like a ResNet: batch norms whose scales have both signs, `+=`, a projected shortcut, global average pooling."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(5)
        self.a, self.norm_a = nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.b, self.norm_b = nn.Conv2d(5, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
        self.down, self.norm_d = nn.Conv2d(5, 6, 1, stride=2), nn.BatchNorm2d(6)
        self.relu, self.block, self.last = nn.ReLU(inplace=True), nn.Identity(), nn.Linear(6, 4)

    def forward(self, x):
        x = self.relu(self.norm(self.stem(x)))
        y = self.norm_a(self.a(x))
        y += x
        x = self.block(self.relu(y))
        y = self.norm_b(self.b(x)) + self.norm_d(self.down(x))
        return self.last(F.relu(y).mean((2, 3)))


def residual(seed=0):
    net = made(Residual, seed)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data = torch.tensor([1.5, -0.7, 0.4, -1.2, 0.9, 2.0]).double()[: m.num_features]
            m.bias.data.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(seed))
    return net


# -------------------------------------------------------------------------------------------------- guided backprop


def by_hand(net, x, target):
    """Guided backprop of `Plain`: each step back written out, with transposed convolutions."""
    one = net.one(x[None])
    pooled, where = F.max_pool2d(one.relu(), 2, return_indices=True)
    two = net.two(pooled)
    averaged = F.avg_pool2d(two.relu(), 2, 1)
    hidden = net.hidden(averaged.flatten(1))
    g = net.last.weight[target][None].clamp(min=0) * (hidden > 0)
    g = (g @ net.hidden.weight).reshape(averaged.shape)
    g = F.conv_transpose2d(g, torch.full((6, 1, 2, 2), 0.25, dtype=g.dtype), groups=6)
    g = g.clamp(min=0) * (two > 0)
    g = F.conv_transpose2d(g, net.two.weight, stride=2, output_padding=1)
    g = F.max_unpool2d(g, where, 2)
    g = g.clamp(min=0) * (one > 0)
    return F.conv_transpose2d(g, net.one.weight, padding=1)[0].detach()


@pytest.mark.proves("guided_backprop", "guided_gradient", by="each step back written out with transposed convolutions")
@pytest.mark.parametrize("act", Plain.acts)
def test_guided_backprop_is_its_chain_by_hand_however_the_relu_is_written(act):
    net, x = made(Plain, act=act), image()
    expected = by_hand(made(Plain), x, 1)
    assert (expected != 0).any() and not torch.allclose(expected, plain_gradient(made(Plain), x, 1))
    close(guided_gradient(net, x, 1), expected)
    close(guided_backprop(net, x, 1), expected.abs().max(0).values)


def plain_gradient(net, x, target):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x[None])[0, target], x)[0]


class Ceiling(nn.Module):
    """ReLUs with a ceiling, as a module and as a function, and a clamp that is none."""

    def __init__(self, six):
        super().__init__()
        self.one, self.two, self.last, self.six = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3), nn.Linear(5, 4), six

    def forward(self, x):
        y = self.six(30 * self.one(x))
        return self.last(self.six(self.two(y).clamp(-8, 8)).mean((2, 3)))


@pytest.mark.parametrize(
    "six", [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6, nn.Hardtanh(0, 6), partial(F.hardtanh, min_val=0.0, max_val=6.0)]
)
def test_a_relu_with_a_ceiling_is_a_relu(six):  # fmt: skip
    net, x = made(Ceiling, six=six), image()
    one = 30 * net.one(x[None])
    two = net.two(one.clamp(0, 6))
    assert (one > 6).any() and (two.abs() > 8).any()
    n = two.shape[-1] * two.shape[-2]
    g = (net.last.weight[1] / n)[None, :, None, None].expand_as(two).clamp(min=0) * ((two > 0) & (two < 6))
    g = F.conv_transpose2d(g, net.two.weight)
    g = g.clamp(min=0) * ((one > 0) & (one < 6))
    close(guided_gradient(net, x, 1), 30 * F.conv_transpose2d(g, net.one.weight)[0].detach())


@pytest.mark.proves("guided_backprop", "guided_gradient", "guided_grad_cam", by="captum and pytorch-grad-cam on the same network")
def test_captum_and_pytorch_grad_cam_agree():
    net, x = (
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)),
        image(),
    )
    net = net.double()
    guided = guided_gradient(net, x, 2)
    close(guided, GuidedBackprop(net).attribute(x[None], target=2)[0].detach())
    theirs = GuidedGradCam(net, net[3]).attribute(x[None], target=2, interpolate_mode="bilinear")[0].detach()
    coarse = partial(cam.grad_cam, layer="3")
    assert guided.any() and theirs.any()
    close(guided_grad_cam(net, x, 2, coarse=coarse), theirs.abs().amax(0))
    close(guided_grad_cam(net, x, 2, coarse=coarse(net, x, 2)), theirs.abs().amax(0))
    others = GuidedBackpropReLUModel(net.float(), device="cpu")(x[None].float(), target_category=2)
    torch.testing.assert_close(guided.float(), torch.from_numpy(others).permute(2, 0, 1), rtol=1e-4, atol=1e-5)


def test_a_coarse_map_of_any_size_counts_where_it_is_positive():
    net, x = made(Plain), image()
    coarse = torch.tensor([[1.0, -1], [-2, -1]])
    expected = guided_backprop(net, x, 1) * core.resize(coarse.double(), (16, 16)).clamp(min=0)
    assert expected[:4, :4].any() and not expected[8:, 8:].any()
    close(guided_grad_cam(net, x, 1, coarse=coarse), expected)


OTHERS = {
    "gelu": nn.GELU(), "silu": nn.SiLU(), "silu, in place": nn.SiLU(inplace=True), "hardswish": nn.Hardswish(), "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(), "hardsigmoid": nn.Hardsigmoid(), "leaky_relu": nn.LeakyReLU(), "prelu": nn.PReLU(), "elu": nn.ELU(),
    "mish": nn.Mish(), "softplus": nn.Softplus(), "selu": nn.SELU(), "celu": nn.CELU(), "softsign": nn.Softsign(),
    "hardtanh": nn.Hardtanh(),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    "method", [guided_gradient, guided_backprop, partial(guided_grad_cam, coarse=torch.ones(2, 2))], ids=named
)
def test_other_activations_cannot_be_guided_and_are_named(name, method):
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), OTHERS[name], nn.Flatten(), nn.Linear(4 * 196, 4))
    for net in (nn.Sequential(*layers), nn.Sequential(layers[0], *layers[3:])):  # beside a ReLU, and alone
        with pytest.raises(ValueError, match=f"this network has {name.split(',')[0]}, which would let the plain gradient"):
            method(net.double(), image(), 1)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"])
def test_networks_with_other_activations_or_gates_are_refused(name):
    found = {"mobilenet_v3_small": "hardsigmoid, hardswish", "efficientnet_b0": "sigmoid, silu", "convnext_tiny": "gelu"}[name]
    net = torchvision.models.get_model(name, weights=None).eval()
    with pytest.raises(ValueError, match=f"this network has {found}, which"):
        guided_backprop(net, image(size=(32, 32), dtype=torch.float32))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_lite0", "slim_vgg16_scenes"])
def test_networks_of_relus_are_guided(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mobile = torchvision.models.mobilenet_v2(weights=None).eval() if name == "mobilenet_v2" else None
    net = mobile or (models.load(name) if name == "slim_vgg16_scenes" else models.load(name, weights=None))
    x = image(size=(64, 64), dtype=torch.float32)
    guided, plain = (g / g.norm() for g in (guided_gradient(net, x, 1), plain_gradient(net, x, 1)))  # random ones are tiny
    assert guided.isfinite().all() and float((guided - plain).norm()) > 0.1


def test_a_network_without_any_activation_has_none():
    with pytest.raises(ValueError, match="this network has none: use another method"):
        guided_backprop(nn.Sequential(nn.Flatten(), nn.Linear(768, 4)).double(), image())


@pytest.mark.parametrize("score", [core.sigmoid, core.log_probability, lambda logits, target: logits[:, target].tanh()])
def test_the_score_itself_may_be_anything(score):
    net, x = made(Plain), image()
    logits = net(x[None]).detach().requires_grad_()
    (slopes,) = torch.autograd.grad(score(logits, 2).sum(), logits)
    weighted = copy.deepcopy(net)
    with torch.no_grad():  # the score's slopes as the weights of a class
        weighted.last.weight[0] = slopes[0] @ net.last.weight
    close(guided_gradient(net, x, 2, score=score), guided_gradient(weighted, x, 0))


def test_guided_backprop_at_real_size_is_captums():
    net = models.load("squeezenet1_1", weights=None)
    x = image(size=(64, 64), dtype=torch.float32)
    torch.testing.assert_close(
        guided_gradient(net, x, 7), GuidedBackprop(torchvision_copy(net)).attribute(x[None], target=7)[0].detach()
    )


def torchvision_copy(net):
    copy = torchvision.models.squeezenet1_1(weights=None).eval()
    copy.load_state_dict(net.module.state_dict())
    for m in copy.modules():
        if isinstance(m, nn.ReLU):
            m.inplace = False
    return copy


# --------------------------------------------------------------------------------------------------- multi-label maps


@pytest.mark.proves("per_class", by="the sigmoid of each logit written out, and one call of the method for each class above")
@pytest.mark.parametrize("seed", range(3))
def test_a_map_for_each_class_that_is_seen(seed):
    net, x = made(Plain, seed), image(seed)
    p = [1 / (1 + math.exp(-v)) for v in net(x[None])[0].tolist()]
    order = sorted(range(4), key=lambda k: -p[k])
    assert abs(sum(p) - 1) > 0.1  # not a softmax
    for n in range(1, 4):
        threshold = (p[order[n - 1]] + p[order[n]]) / 2
        maps = per_class(net, x, cam_of, threshold=threshold)
        assert list(maps) == order[:n]
        assert all(torch.equal(saliency, cam_of(net, x, k)) for k, saliency in maps.items())
    assert per_class(net, x, cam_of, threshold=1.0) == {}
    assert len(per_class(net, x, cam_of, threshold=0.0)) == 4


cam_of = partial(cam.grad_cam, layer="two")


def test_classes_of_a_classifier_have_names_and_must_not_exclude_each_other():
    wrapped = models.from_module(made(Plain), classes=("a", "b", "c", "d"), cam_layer="two", side=16, verbose=False)
    with pytest.raises(ValueError, match="Plain is not multi-label"):
        per_class(wrapped, image(), cam_of)
    many = models.replace(wrapped, multi_label=True)
    assert set(per_class(many, image(), cam_of, threshold=0.0)) == {"a", "b", "c", "d"}


def test_two_objects_have_two_maps():
    from helpers import drawn

    net = models.load("slim_vgg16_scenes_multi")
    own, other, area = [], [], []  # does a map's peak lie on its own object, does it lie on the other one; how large they are
    for photo in drawn.scenes(8, seed=3, multi=True):
        x = net.preprocess(photo.picture)
        maps = per_class(net, x, partial(cam.grad_cam, layer="features.22"))
        seen = [name for name in maps if name in photo.class_names]
        masks = {name: photo.mask(name, tuple(x.shape[-2:])).bool() for name in seen}
        for name in seen:
            peak = divmod(int(maps[name].argmax()), x.shape[-1])
            own.append(bool(masks[name][peak]))
            other += [bool(masks[there][peak]) for there in seen if there != name]
            area.append(float(masks[name].float().mean()))
    assert len(own) >= 8 and len(other) >= 8 and np.mean(area) < 0.1  # what a peak anywhere would hit by chance
    assert np.mean(own) > 0.6 and np.mean(other) < 0.2


# ------------------------------------------------------------------------------------------------ excitation backprop


def matrix(linear, like):
    """Dense matrix `[out, in]` of a linear or affine map, one basis vector at a time."""
    zero = torch.zeros_like(like)
    with torch.no_grad():
        columns = [
            (linear((zero.flatten() + e).reshape(like.shape)) - linear(zero)).flatten()
            for e in torch.eye(like.numel(), dtype=like.dtype)
        ]
    return torch.stack(columns, 1)


def down(W, x, p):
    """p'_j = x_j sum_i W+_ij p_i / sum_k W+_ik x_k, an output at a time, over x that is not negative."""
    assert (x >= 0).all()
    x, given = x.flatten(), torch.zeros(x.numel(), dtype=x.dtype)
    for i in range(len(W)):
        pushes = W[i].clamp(min=0) * x
        if pushes.sum() > 0:
            given += p.flatten()[i] * pushes / pushes.sum()
    return given


def dense_plain(net, x, target, dual=False):
    """Excitation backprop of `Plain`, or of its dual class, at the output of each step: name -> p."""
    with torch.no_grad():
        one = net.one(x[None]).relu()
        pooled, where = F.max_pool2d(one, 2, return_indices=True)
        two = net.two(pooled).relu()
        averaged = F.avg_pool2d(two, 2, 1)
        hidden = net.hidden(averaged.flatten(1)).relu()
    W = -net.last.weight.detach() if dual else net.last.weight.detach()
    p = {"hidden": down(W[target][None], hidden, torch.ones(1))}
    p["mean"] = down(matrix(lambda a: net.hidden(a.flatten(1)), averaged), averaged, p["hidden"])
    p["two"] = down(matrix(lambda a: F.avg_pool2d(a, 2, 1), two), two, p["mean"])
    p["pool"] = down(matrix(net.two, pooled), pooled, p["two"])
    p["one"] = F.max_unpool2d(p["pool"].reshape(pooled.shape), where, 2).flatten()
    shapes = {"hidden": (12,), "mean": (6, 2, 2), "two": (6, 3, 3), "pool": (5, 8, 8), "one": (5, 16, 16)}
    return {name: v.reshape(shapes[name]) for name, v in p.items()}


@pytest.mark.proves(
    "excitation_backprop", "contrastive_excitation_backprop", "winning_probability",
    by="dense matrices in double precision, an output at a time",
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_excitation_backprop_is_its_dense_matrices(seed):  # fmt: skip
    net, x = made(Plain, seed), image(seed)
    won, lost = dense_plain(net, x, 2), dense_plain(net, x, 2, dual=True)
    for layer in ("mean", "pool"):
        close(winning_probability(net, x, 2, layer), won[layer])
        close(winning_probability(net, x, 2, layer, contrast=True), won[layer] - lost[layer])
        close(excitation_backprop(net, x, 2, layer=layer), core.resize(won[layer].sum(0), (16, 16)))
        close(
            contrastive_excitation_backprop(net, x, 2, layer=layer),
            core.resize((won[layer] - lost[layer]).sum(0).clamp(min=0), (16, 16)),
        )


@pytest.mark.parametrize("act", ["in place", "F.relu in place", "method in place", "in place, result not used"])
def test_excitation_backprop_does_not_care_how_the_relu_is_written(act):
    for layer in ("mean", "pool", "one", "two"):
        for contrast in (False, True):
            expected = winning_probability(made(Plain), image(), 1, layer, contrast=contrast)
            close(winning_probability(made(Plain, act=act), image(), 1, layer, contrast=contrast), expected)


def test_subtracting_higher_up_gives_the_same_contrast():
    net, x = made(Plain), image()
    won, lost = dense_plain(net, x, 1), dense_plain(net, x, 1, dual=True)
    with torch.no_grad():
        pooled = F.max_pool2d(net.one(x[None]).relu(), 2)
        averaged = F.avg_pool2d(net.two(pooled).relu(), 2, 1)
    at_hidden = down(matrix(lambda a: net.hidden(a.flatten(1)), averaged), averaged, won["hidden"] - lost["hidden"])
    close(at_hidden.reshape(6, 2, 2), won["mean"] - lost["mean"])
    close(winning_probability(net, x, 1, "mean", contrast=True), at_hidden.reshape(6, 2, 2))


def share(parts, p):
    """An addition: each output's p in proportion to what is positive of each input."""
    positive = [a.clamp(min=0) for a in parts]
    total = sum(positive)
    return [torch.where(total > 0, p * a / total, 0) for a in positive]


class Adds(nn.Module):
    """One addition, written in several ways."""

    def __init__(self, how):
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 4)
        self.how = how

    def forward(self, x):
        x = self.one(x).relu()
        y = self.two(x).relu().clone()  # autograd itself forbids an in-place addition right on a ReLU
        return self.last(self.how(y, x).mean((2, 3)))


def in_place(a, b):
    a += b
    return a


def in_place_result_not_used(a, b):
    a.add_(b)
    return a


@pytest.mark.parametrize("how", [torch.add, in_place, in_place_result_not_used, lambda a, b: sum([a, b]), lambda a, b: 0 + b + a])
def test_an_addition_may_be_written_in_any_way(how):
    expected = made(Adds, how=lambda a, b: a + b)
    with torch.no_grad():
        x = expected.one(image()[None]).relu()
        y = expected.two(x).relu()
    p = down(expected.last.weight[1][None].detach(), (x + y).mean((2, 3)), torch.ones(1))
    p = down(matrix(lambda t: t.mean((2, 3)), x), x + y, p).reshape(x.shape)
    to_y, to_x = share((y, x), p)
    p = to_x + down(matrix(expected.two, x), x, to_y).reshape(x.shape)
    close(winning_probability(made(Adds, how=how), image(), 1, "one"), p[0])


def test_a_residual_network_is_its_dense_matrices():
    net, x = residual(), image()
    with torch.no_grad():
        first = net.norm(net.stem(x[None])).relu()
        a = net.norm_a(net.a(first))
        block = (a + first).relu()
        b, d = net.norm_b(net.b(block)), net.norm_d(net.down(block))
        end = (b + d).relu()
        W = net.last.weight
    for sign in (1, -1):
        p = down(sign * W[1][None], end.mean((2, 3)), torch.ones(1))
        p = down(matrix(lambda t: t.mean((2, 3)), end), end, p).reshape(end.shape)
        to_b, to_d = share((b, d), p)
        p = down(matrix(lambda t: net.norm_b(net.b(t)), block), block, to_b) + down(
            matrix(lambda t: net.norm_d(net.down(t)), block), block, to_d
        )
        at_block = p.reshape(block.shape)
        to_a, to_first = share((a, first), at_block)
        at_first = down(matrix(lambda t: net.norm_a(net.a(t)), first), first, to_a).reshape(first.shape) + to_first
        if sign == 1:
            won = at_block[0], at_first[0]
            close(winning_probability(net, x, 1, "block"), won[0])
            close(winning_probability(net, x, 1, "norm"), won[1])
    close(winning_probability(net, x, 1, "block", contrast=True), won[0] - at_block[0])
    close(winning_probability(net, x, 1, "norm", contrast=True), won[1] - at_first[0])


def test_negative_inputs_excite_through_negative_weights():
    net, x = made(Deep), image()  # tanh: features of both signs
    with torch.no_grad():
        A = net.features(x[None])
        u = torch.tanh(net.rest[0](A))
        v = torch.tanh(net.rest[3](u.flatten(1)))
    assert (A < 0).any() and (u < 0).any() and (v < 0).any()

    def signed(W, x, p, side):
        given = torch.zeros(x.numel(), dtype=x.dtype)
        for i in range(len(W)):
            pushes = (side.flatten()[i] * W[i] * x.flatten()).clamp(min=0)  # what has the sign of the output
            given += p.flatten()[i] * pushes / pushes.sum()
        return given

    p = signed(net.rest[5].weight[3][None].detach(), v, torch.ones(1), torch.ones(1))
    p = signed(net.rest[3].weight.detach(), u, p, v.sign())
    p = signed(matrix(net.rest[0], A), A, p, u.sign())
    close(winning_probability(net, x, 3, "features"), p.reshape(A.shape[1:]))


class Convolved(nn.Module):
    """Like SqueezeNet: the classifier is a convolution, then ReLU in place and the mean."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3, 2), nn.Conv2d(6, 4, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return torch.flatten(F.adaptive_avg_pool2d(self.relu(self.last(self.relu(self.two(self.relu(self.one(x)))))), 1), 1)


def test_the_dual_of_a_convolution_before_a_mean_picks_its_own_positions():
    net, x = made(Convolved), image()
    with torch.no_grad():
        two = net.two(net.one(x[None]).relu()).relu()[0]
        y = net.last(two[None])[0].relu()
    target = int(net(x[None]).argmax())
    w = net.last.weight[target, :, 0, 0].detach()
    pushes = w.clamp(min=0)[:, None, None] * two  # [6, h, w]
    won = pushes / pushes.sum(0) * y[target] / y[target].sum()
    lost = (-w).clamp(min=0)[:, None, None] * two
    close(winning_probability(net, x, target, "two"), won.nan_to_num())
    close(winning_probability(net, x, target, "two", contrast=True), won.nan_to_num() - lost / lost.sum())
    assert winning_probability(net, x, target, "two", contrast=True).sum(0).abs().max() > 0.01


CONSERVED = {  # network, layers, side of the image
    "Plain": (lambda: made(Plain), ("one", "pool", "two", "mean"), 16),
    "Residual": (residual, ("stem", "norm", "relu", "block"), 16),
    "Convolved": (lambda: made(Convolved), ("one", "two"), 16),
    "Deep": (lambda: made(Deep), ("features.0", "features.1", "features"), 16),
    "resnet18": (lambda: torchvision.models.resnet18().double().eval(), ("layer2", "layer3.0"), 40),
    "squeezenet": (lambda: torchvision.models.squeezenet1_1().double().eval(), ("features.2", "features.8", "features.12"), 48),
    "slim_vgg16": (lambda: models.load("slim_vgg16_scenes").module.double(), ("features.4", "features.16", "features.30"), 64),
}


@pytest.mark.proves(
    "excitation_backprop", "contrastive_excitation_backprop", by="probabilities add up to 1 at every layer, contrasts to 0"
)
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "resnet18" else n for n in CONSERVED])
def test_probability_is_neither_lost_nor_made(name):  # fmt: skip
    make, layers, side = CONSERVED[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = make()
    x = image(size=(side, side))
    target = 1 if name in ("Plain", "Residual") else int(net(x[None]).argmax())  # their first choice has nothing against it
    for layer in layers:
        p, contrast = (winning_probability(net, x, target, layer, contrast=c) for c in (False, True))
        assert (p >= 0).all() and float(p.sum()) == pytest.approx(1, abs=1e-9)
        assert float(contrast.sum()) == pytest.approx(0, abs=1e-9) and contrast.abs().sum() > 1e-3
        saliency = contrastive_excitation_backprop(net, x, target, layer=layer)
        assert (saliency >= 0).all() and saliency.any()


def test_right_below_the_classifier_the_contrast_is_taken_already():
    net, x = residual(), image()
    A = core.features_of(net, x, "block")
    assert (A >= 0).all()
    contrast = winning_probability(net, x, 0, "block", contrast=True)
    assert (contrast < 0).any() and not torch.allclose(contrast, winning_probability(net, x, 0, "block"))


def test_what_a_unit_has_from_its_bias_is_lost():
    net, x = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 2, bias=False)).double(), image()
    nn.init.constant_(net[0].weight, 0)
    nn.init.constant_(net[0].bias, 1)
    nn.init.constant_(net[3].weight, 1)
    with torch.no_grad():
        net[3].weight[:, :256] = -1
    assert float(winning_probability(net, x, 0, "1").sum()) == pytest.approx(1)
    bias_only = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), net[0].__class__(2, 2, 1), nn.ReLU(), nn.Flatten(), net[3]).double()
    nn.init.constant_(bias_only[2].weight, -1)
    nn.init.constant_(bias_only[2].bias, 100)
    assert not excitation_backprop(bias_only, x, 0, layer="1").any()


class Gated(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.one, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)
        gates = {"mul": Gate(), "layer_norm": nn.LayerNorm(14), "batch_norm": nn.BatchNorm2d(4), "sigmoid": nn.Sigmoid()}
        self.gate = gates[operation]

    def forward(self, x):
        return self.last(self.gate(self.one(x).relu()).mean((2, 3)))


class Gate(nn.Module):
    def forward(self, x):
        return x * x.detach().mean()


@pytest.mark.parametrize("kind", ["mul", "layer_norm", "batch_norm", "sigmoid"])
@pytest.mark.parametrize("method", [excitation_backprop, contrastive_excitation_backprop])
def test_an_operation_without_a_rule_is_named_with_its_layer(kind, method):
    with pytest.raises(ValueError, match=f"no rule for the way back through the operation '{kind}', in layer 'gate'"):
        method(made(Gated, operation=kind), image(), layer="one")


def test_below_the_layer_any_operation_will_do():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3)).double()
    assert excitation_backprop(net, image(), layer="2").any()


def test_attention_is_named():
    net = torchvision.models.VisionTransformer(16, 4, 1, 2, 8, 16, num_classes=4).double()
    with pytest.raises(ValueError, match="multi_head_attention_forward.*self_attention"):
        excitation_backprop(models.from_module(net, side=16, verbose=False), image())


def test_a_layer_behind_the_classifier_is_an_error():
    with pytest.raises(ValueError, match="starts at a classifier, and there is none behind layer 'last'"):
        excitation_backprop(made(Convolved), image(), layer="last")


def test_the_default_layer_is_that_of_the_papers():
    assert middle_layer(models.load("slim_vgg16_scenes"), None) == "features.23"  # pool4
    assert middle_layer(models.load("resnet18", weights=None), None) == "layer3"
    assert middle_layer(classifier(made()), None) == "last" and middle_layer(classifier(made()), "relu") == "relu"


def test_the_classes_of_a_scene_part_in_the_contrast():
    from helpers import drawn

    net, inside = models.load("slim_vgg16_scenes"), []
    for photo in drawn.scenes(6, seed=5):
        x, name = net.preprocess(photo.picture), photo.class_names[0]
        saliency = contrastive_excitation_backprop(net, x, net.index(name))
        mask = photo.mask(name, tuple(x.shape[-2:])).to(saliency)
        inside.append(float((saliency * mask).sum() / saliency.sum() / mask.mean()))
    assert np.median(inside) > 2  # at least twice what a map without any knowledge has


def test_rules_end_with_their_context_also_after_an_error():
    net, x = made(Plain), image()
    expected = plain_gradient(net, x, 1)
    with pytest.raises(ZeroDivisionError), backward_rules(net, {"relu": lambda operation, y, **settings: 1 / 0}):
        net(x[None].requires_grad_())
    assert torch.equal(plain_gradient(net, x, 1), expected)


# ----------------------------------------------------------------------------------------------- integrated gradients


@pytest.mark.proves("integrated_gradients", by="an own sum after Gauss and Legendre, and completeness")
@pytest.mark.parametrize("baseline", [0.0, 0.5, image(7)], ids=["mean colour", "number", "picture"])
@pytest.mark.parametrize("score", [core.logit, core.probability])
def test_integrated_gradients_are_an_own_sum_and_complete(baseline, score):
    net, x = made(Deep), image()
    start = torch.as_tensor(baseline, dtype=x.dtype).expand(3, 16, 16)
    points, weights = np.polynomial.legendre.leggauss(64)
    total = torch.zeros_like(x)
    for a, w in zip((points + 1) / 2, weights / 2, strict=True):
        there = (start + a * (x - start)).clone().requires_grad_()
        total += w * torch.autograd.grad(score(net(there[None]), 2).sum(), there)[0]
    saliency = integrated_gradients(net, x, 2, baseline=baseline, steps=64, score=score)
    expected = ((x - start) * total).sum(0)
    torch.testing.assert_close(saliency, expected, rtol=1e-6, atol=1e-7)  # captum holds its points in single precision
    with torch.no_grad():
        risen = score(net(x[None]), 2) - score(net(start[None]), 2)
    many = integrated_gradients(net, x, 2, baseline=baseline, steps=400, batch_size=400, score=score)
    assert float(many.sum()) == pytest.approx(float(risen), rel=1e-2) and many.min() < 0  # slow, because of the kinks of ReLU


def test_on_a_smooth_network_they_are_complete_with_few_steps():
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(784, 4)).double(), image()
    with torch.no_grad():
        risen = net(x[None])[0, 1] - net(image(3)[None])[0, 1]
    saliency = integrated_gradients(net, x, 1, baseline=image(3), steps=24)
    assert float(saliency.sum()) == pytest.approx(float(risen), rel=1e-6)


def test_on_a_linear_network_each_pixel_has_its_weight():
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(768, 4)).double(), image()
    expected = (net[1].weight[3].reshape(3, 16, 16).detach() * x).sum(0)
    torch.testing.assert_close(integrated_gradients(net, x, 3, steps=3), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("batch_size", [1, 3, 50, 200])
def test_the_batch_size_does_not_matter(batch_size):
    net, x = made(Deep), image()
    close(integrated_gradients(net, x, 1, batch_size=batch_size), integrated_gradients(net, x, 1))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": -1}, {"batch_size": 0}], ids=str)
def test_no_points_on_the_way_are_an_error(settings):
    (name, value), *_ = settings.items()
    with pytest.raises(ValueError, match=f"{name}( is)? {value}.*expected at least 1"):
        integrated_gradients(made(Deep), image(), 1, **settings)
