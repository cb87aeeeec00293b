"""score_cam: a loop over one mask at a time in double precision, the settings, and pytorch-grad-cam."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import Deep, classifier, image, made
from pytorch_grad_cam import ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from helpers import core, data, models
from helpers.evaluation import counted
from helpers.score_cam import GATES, score_cam, score_cam_pp

softmax = partial(torch.softmax, dim=0)


def slow(net, x, target, layer, *, gate=None, score=core.probability, baseline=None, normalise=None, fill=0.0, gate_sum=True):
    """Both methods, one mask and one forward pass at a time; gate None is Score-CAM."""
    with torch.no_grad():
        kept = {}
        hook = net.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.update(A=out.clone()))
        net(x[None])
        hook.remove()
        A, (H, W) = kept["A"], x.shape[-2:]
        weights, masks = [], []
        for k in range(A.shape[1]):
            up = F.interpolate(A[:, k : k + 1], (H, W), mode="bilinear", align_corners=False)[0, 0]
            if gate is None:
                up = torch.zeros_like(up) if up.max() == up.min() else (up - up.min()) / (up.max() - up.min())
            else:
                up = gate(up)
            masks.append(up)
            weight = score(net((x * up + fill * (1 - up))[None]), target)[0]
            weights.append(weight if baseline is None else weight - score(net(baseline[None]), target)[0])
        weights = torch.stack(weights)
        if normalise is not None:
            weights = normalise(weights)
        if gate is None or not gate_sum:
            total = sum(w * A[:, k : k + 1] for k, w in enumerate(weights))
            return F.interpolate(total, (H, W), mode="bilinear", align_corners=False)[0, 0].relu()
        return sum(w * m for w, m in zip(weights, masks, strict=True)).relu()


CASES = {
    "default": {},
    "logit": {"score": core.logit},
    "baseline": {"score": core.logit, "baseline": image(9)},
    "softmax": {"normalise": softmax},
    "fill number": {"fill": 0.7, "score": core.log_probability},
    "fill picture": {"fill": image(8), "score": core.logit},
}


@pytest.mark.proves("score_cam", by="a loop over one mask at a time in double precision")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_score_cam_is_its_plain_loop(name, seed):
    net, x, settings = made(Deep, seed), image(seed), CASES[name]
    expected = slow(net, x, 1, "features", **settings)
    assert expected.any()
    torch.testing.assert_close(score_cam(net, x, 1, layer="features", **settings), expected, rtol=1e-10, atol=1e-12)


GATES_BY_HAND = {
    "Tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "ReLU": lambda x: x * (x > 0),
    "Sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "Mish": lambda x: x * (1 + x.exp()).log().tanh(),
    "Swish": lambda x: x / (1 + (-x).exp()),
    "Sigmoid of ReLU": lambda x: 1 / (1 + (-x * (x > 0)).exp()),
    "min-max": lambda x: (x - x.min()) / (x.max() - x.min()),
}


@pytest.mark.proves("score_cam_pp", by="a loop over one mask at a time in double precision, for each gate of Table 5")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gate", GATES_BY_HAND)
@pytest.mark.parametrize("gate_sum", [True, False])
def test_score_cam_pp_is_its_plain_loop(name, gate, gate_sum):
    net, x, settings = made(Deep, 2), image(2), CASES[name] | {"gate_sum": gate_sum}
    expected = slow(net, x, 1, "features", gate=GATES_BY_HAND[gate], **settings)
    given = score_cam_pp(net, x, 1, layer="features", gate=GATES[gate], **settings)
    assert given.isfinite().all()
    torch.testing.assert_close(given, expected, rtol=1e-10, atol=1e-12)


def test_the_gates_are_those_of_table_5_and_two_more():
    printed = data.paper_table("mitra2024scorecampp", "5")["method"].unique().tolist()
    assert list(GATES) == list(GATES_BY_HAND) == [*printed, "Sigmoid of ReLU", "min-max"]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("gate_sum", [True, False])
def test_every_gate_is_finite_on_features_of_any_size(gate, gate_sum):
    net = made(Deep, 2)
    net.features.append(Steep())
    assert core.features_of(net, image(2), "features").abs().max() > 1e4
    assert score_cam_pp(net, image(2), 1, layer="features", gate=GATES[gate], gate_sum=gate_sum).isfinite().all()


class Steep(nn.Module):
    """Features of either sign, from 1e-8 to 1e5, and a network after them that saturates."""

    def forward(self, A):
        return A * 10.0 ** torch.linspace(-8, 6, 7, dtype=A.dtype)[:, None, None]


def test_the_gate_of_score_cam_pp_is_tanh_on_masks_and_sum():
    net, x = made(Deep, 3), image(3)
    plain = score_cam_pp(net, x, 1, layer="features")
    assert torch.equal(plain, score_cam_pp(net, x, 1, layer="features", gate=torch.tanh, gate_sum=True))
    assert not torch.allclose(plain, score_cam_pp(net, x, 1, layer="features", gate_sum=False))
    assert not torch.allclose(plain, score_cam(net, x, 1, layer="features"))


def test_features_before_a_relu_keep_their_sign_until_the_end():
    net, x = made(), image()
    torch.testing.assert_close(score_cam_pp(net, x, 1, layer="mix"), slow(net, x, 1, "mix", gate=torch.tanh))


class Bright(nn.Module):
    """Logits that rise with every brighter pixel, so that a masked copy of a positive image always scores lower."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sigmoid())

    def forward(self, x):
        self.features(x)  # only looked at
        return torch.stack([x.mean((1, 2, 3)), 0 * x.mean((1, 2, 3))], 1)


def test_the_image_as_baseline_gives_a_blank_map_where_masking_lowers_the_score():
    net, x = made(Bright), image().abs() + 0.1
    assert not score_cam_pp(net, x, 0, layer="features", baseline=x).any()  # Eq. (10) as printed
    assert not score_cam(net, x, 0, layer="features", baseline=x).any()
    assert score_cam_pp(net, x, 0, layer="features").any()


@pytest.mark.parametrize("method", [score_cam, score_cam_pp])
def test_with_softmax_a_baseline_cancels(method):
    net, x = made(Deep), image()
    plain = method(net, x, 1, layer="features", score=core.logit, normalise=softmax)
    shifted = method(net, x, 1, layer="features", score=core.logit, normalise=softmax, baseline=image(7))
    assert plain.any()
    torch.testing.assert_close(shifted, plain, rtol=1e-12, atol=1e-12)


class Kill(nn.Module):
    """Makes channels 1 and 4 zero everywhere, and channel 2 constant."""

    def forward(self, A):
        kept = torch.tensor([1, 0, 0, 1, 0, 1, 1.0])[:, None, None]
        return A * kept + 0.8 * (torch.arange(7) == 2)[:, None, None]


def with_dead_channels():
    net = made(Deep, 5)
    net.features.append(Kill())
    return net


@pytest.mark.parametrize(
    "settings", [{}, {"score": core.logit}, {"score": core.logit, "baseline": image(9)}], ids=["default", "logit", "baseline"]
)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("gate_sum", [True, False])
def test_skipping_dead_channels_is_exact(settings, gate, gate_sum):
    net, x = with_dead_channels(), image(5)
    A = core.features_of(net, x, "features")
    assert not A[1].any() and A[2].min() == A[2].max() == pytest.approx(0.8)
    settings = settings | {"gate_sum": gate_sum}
    expected = slow(net, x, 0, "features", gate=core.to_unit if gate == "min-max" else GATES_BY_HAND[gate], **settings)
    given = score_cam_pp(net, x, 0, layer="features", gate=GATES[gate], **settings)
    torch.testing.assert_close(given, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("gate", "skipped"), [(g, 0 if "Sigmoid" in g else 2) for g in GATES])
def test_a_channel_is_skipped_where_the_gate_makes_nothing_of_it(gate, skipped):
    net, x = with_dead_channels(), image(5)
    with counted(net) as cost:
        score_cam_pp(net, x, 0, layer="features", gate=GATES[gate])
    assert cost.forwards == 1 + 7 - skipped  # the features, and the masked copies


def test_with_softmax_the_skipped_channels_only_change_the_scale():
    net, x = with_dead_channels(), image(5)
    settings = {"normalise": softmax, "score": core.logit}
    expected = slow(net, x, 0, "features", gate=torch.tanh, **settings)
    torch.testing.assert_close(core.to_unit(score_cam_pp(net, x, 0, layer="features", **settings)), core.to_unit(expected))


def test_score_cam_leaves_constant_channels_out():
    net, x = with_dead_channels(), image(5)
    calls = []
    hook = net.register_forward_pre_hook(lambda _m, given: calls.append(len(given[0])))
    saliency = score_cam(net, x, 0, layer="features")
    hook.remove()
    A = core.features_of(net, x, "features")[[0, 3, 5, 6]]
    with torch.no_grad():
        weights = torch.stack([net((x * core.to_unit(core.resize(a, x.shape[-2:])))[None]).softmax(1)[0, 0] for a in A])
    assert sum(calls) == 1 + 4  # the features, and one copy for each of the four
    torch.testing.assert_close(saliency, core.resize(torch.einsum("c,chw->hw", weights, A), x.shape[-2:]).relu())


@pytest.mark.parametrize("method", [score_cam, score_cam_pp])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_the_batch_size_does_not_matter(method, batch_size):
    net, x = made(Deep), image()
    expected = method(net, x, 1, layer="features")
    torch.testing.assert_close(method(net, x, 1, layer="features", batch_size=batch_size), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", [score_cam, score_cam_pp])
def test_a_batch_size_of_nothing_is_named(method):
    with pytest.raises(ValueError, match="batch_size is 0"):
        method(made(Deep), image(), layer="features", batch_size=0)


@pytest.mark.parametrize("method", [score_cam, score_cam_pp])
def test_features_that_are_all_zero_are_an_error(method):
    net = made()
    nn.init.constant_(net.norm.weight, 0)
    nn.init.constant_(net.norm.bias, -1)
    with pytest.raises(ValueError, match="all 6 feature maps are constant"):
        method(net, image(), layer="relu")


def test_score_cam_refuses_features_that_are_all_constant():
    net = made()
    nn.init.constant_(net.norm.weight, 0)
    nn.init.constant_(net.norm.bias, 1)
    with pytest.raises(ValueError, match="all 6 feature maps are constant"):
        score_cam(net, image(), layer="relu")


class FullSize(nn.Module):
    """Features at the size of the image: no resizing, on which pytorch-grad-cam has another convention (aligned corners)."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.rest = nn.Sequential(nn.Conv2d(6, 5, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 49, 4))

    def forward(self, x):
        return self.rest(self.features(x))


@pytest.mark.proves("score_cam", by="pytorch-grad-cam, where its other way of resizing does not matter")
def test_pytorch_grad_cam_agrees():
    net, x = made(FullSize, 6, torch.float32), image(6, dtype=torch.float32)
    layer = net.features
    with ScoreCAM(net, [layer]) as other:
        A = layer(x[None]).detach().numpy()
        coarse = other.get_cam_image(x[None], layer, [ClassifierOutputTarget(2)], A, None)[0]
    mine = score_cam(net, x, 2, layer="features", score=core.logit, normalise=softmax)
    assert mine.any()
    torch.testing.assert_close(mine, torch.from_numpy(coarse).float().relu(), rtol=1e-4, atol=1e-4 * float(mine.max()))


def test_a_class_map_differs_from_that_of_another_class():
    net = classifier(made())
    assert not torch.allclose(score_cam_pp(net, image(), 0), score_cam_pp(net, image(), 1))


def small_vit():
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4
    )


@pytest.mark.parametrize(("method", "gate"), [(score_cam, None), (score_cam_pp, torch.tanh)])
def test_a_transformers_tokens_are_maps_of_its_patches(method, gate):
    net, x, layer = made(small_vit, 1), image(1, (32, 32)), "encoder.layers.encoder_layer_1.ln_1"
    with torch.no_grad():
        nn.init.normal_(net.heads.head.weight, generator=torch.Generator().manual_seed(0))
        kept = {}
        with net.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.update(tokens=out)):
            net(x[None])
        A = kept["tokens"][0, 1:].T.reshape(16, 4, 4)  # without the class token, patches in reading order
        masks = F.interpolate(A[None], (32, 32), mode="bilinear", align_corners=False)[0]
        low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
        masks = (masks - low) / (high - low) if gate is None else gate(masks)
        weights = torch.stack([net((x * m)[None]).softmax(1)[0, 2] for m in masks])
        total = (weights[:, None, None] * (A if gate is None else masks)).sum(0)
        expected = F.interpolate(total[None, None], (32, 32), mode="bilinear", align_corners=False)[0, 0].relu()
    assert expected.any()
    given = method(models.from_module(net, side=32, verbose=False), x, 2)
    torch.testing.assert_close(given, expected, rtol=1e-10, atol=1e-12)
