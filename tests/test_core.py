"""core: scores, shapes, capture, frozen."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import Deep, Tiny, classifier, image, made
from torch import nn

from helpers import core

LOGITS = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


def test_scores_have_their_closed_forms():
    total = math.exp(1) + math.exp(2) + math.exp(4)
    assert core.logit(LOGITS, 1).tolist() == [2.0, 0.0]
    assert core.probability(LOGITS, 1).tolist() == pytest.approx([math.exp(2) / total, 1 / 3], rel=1e-12)
    assert core.log_probability(LOGITS, 1).tolist() == pytest.approx([2 - math.log(total), -math.log(3)], rel=1e-12)


def test_log_probability_survives_a_certain_network():
    assert core.log_probability(torch.tensor([[1000.0, 0.0]]), 1).item() == -1000


# ----------------------------------------------------------------------------------------------------- resize, to_unit


def test_resize_is_bilinear_without_aligned_corners():
    enlarged = core.resize(torch.tensor([[0.0, 4.0]], dtype=torch.float64), (1, 4))
    assert enlarged.tolist() == [[0.0, 1.0, 3.0, 4.0]]  # aligned corners would give 0, 4/3, 8/3, 4
    x = image(1, (5, 7))
    assert torch.equal(core.resize(x, (9, 4)), F.interpolate(x[None], (9, 4), mode="bilinear", align_corners=False)[0])


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_resize_keeps_leading_axes_and_type(lead):
    out = core.resize(torch.rand(*lead, 4, 5, dtype=torch.float64), torch.Size((8, 3)))
    assert out.shape == (*lead, 8, 3) and out.dtype == torch.float64


def test_to_unit_scales_each_map_by_itself():
    x = torch.stack([torch.tensor([[-3.0, 1.0], [0.0, -1.0]]), torch.tensor([[10.0, 20.0], [15.0, 10.0]])])
    assert core.to_unit(x).tolist() == [[[0, 1], [0.75, 0.5]], [[0, 1], [0.5, 0]]]


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e30])
def test_to_unit_makes_zeros_of_a_constant_map(value):
    both = torch.stack([torch.full((3, 3), value), torch.arange(9.0).reshape(3, 3)])
    assert not core.to_unit(both)[0].any() and core.to_unit(both)[1].max() == 1


# ---------------------------------------------------------------------------------------------------------- capture


def by_hand(net: Tiny, x):
    """The values inside `Tiny`, none of them overwritten, by functions."""
    relu = F.batch_norm(F.conv2d(x, net.stem.weight, net.stem.bias, 2, 1), net.norm.running_mean, net.norm.running_var,
                        net.norm.weight, net.norm.bias, eps=net.norm.eps)  # fmt: skip
    mix = F.conv2d(relu.relu(), net.mix.weight, net.mix.bias, 1, 1)
    return {"norm": relu, "relu": relu.relu(), "mix": mix, "last": (mix + relu.relu()).relu()}


@pytest.mark.parametrize("layer", ["norm", "relu", "mix", "last"])
def test_capture_sees_values_before_they_are_overwritten(layer):
    net, x = made(), image()[None]
    with core.capture(net, [layer]) as seen:
        net(x)
    torch.testing.assert_close(seen[layer], by_hand(net, x)[layer], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", ["norm", "relu", "mix", "last"])
def test_capture_gives_true_gradients_with_frozen_parameters_and_in_place_operations(layer):
    net, x = made(), image()[None]
    with core.frozen(net), core.capture(net, [layer]) as seen:
        y = net(x)[0, 2].sin()
        (gradient,) = torch.autograd.grad(y, seen[layer])
    values = {k: v.detach() for k, v in by_hand(net, x).items()}
    leaf = values[layer].clone().requires_grad_()
    skip = leaf.relu() if layer == "norm" else leaf if layer == "relu" else values["relu"]
    mix = leaf if layer == "mix" else F.conv2d(skip, net.mix.weight, net.mix.bias, 1, 1)
    last = leaf if layer == "last" else (mix + skip).relu()
    (expected,) = torch.autograd.grad(net.head(last.mean((2, 3)))[0, 2].sin(), leaf)
    assert expected.any()
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)


class Passing(nn.Module):
    """A layer that hands on its input itself, which is overwritten later under another name."""

    def __init__(self):
        super().__init__()
        self.same = nn.Identity()

    def forward(self, x):
        y = x * 1
        z = self.same(y)
        y *= 0
        return (z + y).mean((2, 3))


def test_capture_copies_an_output_that_is_known_by_another_name():
    x = image()[None]
    with torch.no_grad(), core.capture(net := Passing(), ["same"]) as seen:
        net(x)
    assert torch.equal(seen["same"], x)


def test_capture_leaves_an_image_alone_that_a_layer_hands_on():
    net, x = nn.Sequential(nn.Identity(), nn.Conv2d(3, 2, 16), nn.Flatten()).double(), image()[None]
    with core.frozen(net), core.capture(net, ["0"]) as seen:
        (gradient,) = torch.autograd.grad(net(x)[0, 1], seen["0"])
    torch.testing.assert_close(gradient[0], net[1].weight[1].detach())
    assert not x.requires_grad


def test_capture_changes_neither_logits_nor_the_record_of_a_second_layer():
    net, x = made(), image()[None]
    plain = net(x)
    with core.capture(net, ["norm", "mix", "last"]) as seen:
        watched = net(x)
    assert torch.equal(plain, watched) and list(seen) == ["norm", "mix", "last"]


def test_capture_makes_maps_of_tokens_and_keeps_their_gradient():
    torch.manual_seed(0)
    net = torchvision.models.vit_b_16(weights=None).eval()
    x, layer = torch.randn(1, 3, 224, 224), "encoder.layers.encoder_layer_11.ln_1"
    nn.init.normal_(net.heads.head.weight)
    kept = {}
    hook = net.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.update(tokens=out))
    plain = net(x)
    hook.remove()
    (of_tokens,) = torch.autograd.grad(plain[0, 7], kept["tokens"])  # [1, 197, 768]
    with core.frozen(net), core.capture(net, [layer]) as seen:
        y = net(x)
        (of_map,) = torch.autograd.grad(y[0, 7], seen[layer])
    assert seen[layer].shape == (1, 768, 14, 14)
    torch.testing.assert_close(y, plain, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(seen[layer][0, :, 2, 5], kept["tokens"][0, 1 + 2 * 14 + 5])
    assert of_tokens[:, 1:].any()
    torch.testing.assert_close(
        of_map.flatten(2).transpose(1, 2), of_tokens[:, 1:], rtol=1e-3, atol=1e-4 * of_tokens.abs().max().item()
    )


def test_an_unknown_layer_names_those_like_it():
    with pytest.raises(ValueError, match=r"no layer 'steem'.*\bstem\b"), core.capture(made(), ["steem"]):
        pass


def test_no_hook_stays_when_the_second_layer_is_unknown():
    net = made()
    with pytest.raises(ValueError), core.capture(net, ["stem", "nowhere at all"]):
        pass
    assert not net.stem._forward_hooks


@pytest.mark.parametrize("layer", [None, 3, "", ("stem",)])
def test_a_layer_that_is_no_name_is_a_clear_error(layer):
    with pytest.raises(ValueError, match="no layer"), core.capture(made(), [layer]):
        pass


def test_a_layer_without_positions_is_named_with_its_shape():
    net = made()
    with pytest.raises(TypeError, match=r"'head'.*\[1, 4\].*expected features"), core.capture(net, ["head"]):
        net(image()[None])
    assert not net.head._forward_hooks


def test_a_layer_that_is_never_run_is_named():
    net = made()
    net.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="did not go through layer 'unused'"):
        core.features_of(net, image(), "unused")


def test_features_and_gradient_work_where_gradients_are_off():
    net, x = made(Deep), image()
    expected = core.features_and_gradient(net, x, 1, "features", core.logit)
    with torch.no_grad():
        given = core.features_and_gradient(net, x, 1, "features", core.logit)
    assert all(map(torch.equal, given, expected)) and not any(t.requires_grad for t in given)


def test_features_and_gradient_agree_with_finite_differences():
    net, x = made(Deep), image()
    A, g = core.features_and_gradient(net, x, 1, "features", core.log_probability)
    direction = torch.randn(A.shape, generator=torch.Generator().manual_seed(3), dtype=A.dtype)
    step = 1e-6
    with torch.no_grad():
        up, down = (core.log_probability(net.rest((A + s * direction)[None]), 1)[0] for s in (step, -step))
    assert ((up - down) / (2 * step)).item() == pytest.approx((g * direction).sum().item(), rel=1e-6)


# ----------------------------------------------------------------------------------------------------------- frozen


def test_frozen_restores_every_flag_also_after_an_error():
    net = made()
    net.train()
    net.norm.eval()
    net.stem.weight.requires_grad_(False)
    flags = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    with pytest.raises(ZeroDivisionError), core.frozen(net):
        assert not any(m.training for m in net.modules()) and not any(p.requires_grad for p in net.parameters())
        raise ZeroDivisionError
    assert flags == ([m.training for m in net.modules()], [p.requires_grad for p in net.parameters()])


def test_a_network_that_is_none_is_a_clear_error():
    with pytest.raises(TypeError, match="not str"):
        core.module_of("vgg16")


def test_a_plain_module_must_be_told_its_layer():
    with pytest.raises(ValueError, match="pass layer="):
        core.cam_layer(made(), None)


def test_sigmoid_looks_at_one_class_only():
    logits = torch.tensor([[0.0, 2.0], [0.0, -7.0]], dtype=torch.float64)
    assert core.sigmoid(logits, 0).tolist() == [0.5, 0.5]
    torch.testing.assert_close(core.sigmoid(logits, 1), 1 / (1 + (-logits[:, 1]).exp()))


@pytest.mark.parametrize("score", [core.probability, core.log_probability])
def test_one_class_alone_has_no_softmax(score):
    with pytest.raises(ValueError, match="one class.*always 1.*core.sigmoid"):
        score(torch.zeros(2, 1), 0)


def test_layers_are_the_callers_or_the_classifiers():
    net = classifier(made())
    assert core.layer_names(net, ["stem", "last"], "block_layers") == ("stem", "last")
    assert core.layer_names(net, None, "block_layers") == net.block_layers
    with pytest.raises(TypeError, match="not one name, 'last'"):
        core.layer_names(net, "last", "block_layers")
    with pytest.raises(ValueError, match="Tiny names no block_layers: pass layers="):
        core.layer_names(made(), None, "block_layers")
