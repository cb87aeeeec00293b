"""What every explainer of the package promises; a new one is found and tested without being listed here."""

import importlib
import inspect
import pkgutil
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from networks import LIGHT, SIDE, Failing, Tiny, changes, classifier, image, made, snapshot
from torch import nn

import helpers
from helpers import cam, core


def all_explainers():
    marked = core.explainer(lambda net, image, target: image).__code__  # all explainers share the wrapper's code
    found = {}
    for info in pkgutil.iter_modules(helpers.__path__):
        module = importlib.import_module(f"helpers.{info.name}")
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__code__ is marked:
                found[name] = function
    return found


EXPLAINERS = all_explainers()
LISTED = {
    "cam",
    "grad_cam",
    "grad_cam_pp",
    "xgrad_cam",
    "layer_cam",
    "score_cam",
    "score_cam_pp",
    "edge_map",
    "random_map",
    "centred_blob",
    "smooth_grad_cam_pp",
    "augmented_grad_cam",
    "augmented_grad_cam_pp",
    "full_grad",
    "guided_backprop",
    "guided_grad_cam",
    "excitation_backprop",
    "contrastive_excitation_backprop",
    "integrated_gradients",
    "gradual_extrapolation",
    "occlusion",
    "rise",
    "extremal_perturbation",
    "sise",
    "layer_selection",
    "score_cam_difference",
}
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])

every = pytest.mark.parametrize("name", sorted(EXPLAINERS))


def explain(name, net, x, target=None, **settings):
    return EXPLAINERS[name](net, x, target, **(LIGHT.get(name, {}) | settings))


def takes(setting):
    """The explainers that have this setting."""
    names = [n for n, f in sorted(EXPLAINERS.items()) if setting in inspect.signature(f).parameters]
    return pytest.mark.parametrize("name", names)


def used(kind: type[nn.Module] = Tiny):
    """A network in mixed modes with gradients and a frozen parameter, as in the middle of somebody's training."""
    net = made(kind)
    net.train()
    net(torch.stack([image(5), image(6)])).sum().backward()
    net.norm.eval()
    net.drop.eval()
    net.mix.weight.requires_grad_(False)
    net.head.bias.grad = None
    return net


def test_the_explainers_are_found():
    assert LISTED <= EXPLAINERS.keys()


@every
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_is_finite_detached_and_like_the_image(name, dtype, device):
    net, x = classifier(made(dtype=dtype)).to(device), image(size=(SIDE, SIDE + 4), dtype=dtype).to(device)
    saliency = explain(name, net, x)
    assert saliency.shape == (SIDE, SIDE + 4) and saliency.isfinite().all()
    assert (saliency.dtype, saliency.device) == (x.dtype, x.device)
    assert not saliency.requires_grad and saliency.grad_fn is None and not saliency.is_inference()


@every
def test_the_map_is_not_blank_and_not_constant(name):
    assert core.to_unit(explain(name, classifier(made()), image(), 0 if name != "random_map" else None)).max() == 1


@every
def test_the_network_comes_back_exactly_as_it_was(name):
    net, x = classifier(used()), image()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before, pixels = snapshot(net), x.clone()
    explain(name, net, x)
    assert changes(before, snapshot(net)) == []
    assert torch.equal(x, pixels) and not x.requires_grad and x.grad is None


@every
@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_the_network_comes_back_exactly_after_a_failing_forward_pass(name, fail_at):
    net = classifier(used(Failing))
    before = snapshot(net)
    net.module.calls, net.module.fail_at = 0, fail_at
    try:
        explain(name, net, image())
    except RuntimeError as error:
        assert "forward pass" in str(error)
    else:
        assert fail_at > 1, "no explainer does without one forward pass"
    assert changes(before | {("", "attributes"): 0}, snapshot(net) | {("", "attributes"): 0}) == []


@takes("score")
@pytest.mark.parametrize("kind", ["raises", "NaN", "infinity"])
def test_the_network_comes_back_exactly_after_a_failing_score(name, kind):
    def score(logits, target):
        if kind == "raises":
            raise ZeroDivisionError
        return logits[:, target] * float(kind)

    net = classifier(used())
    before = snapshot(net)
    with pytest.raises(
        ZeroDivisionError if kind == "raises" else ValueError, match=None if kind == "raises" else f"{name}.*NaN or infinity"
    ):
        explain(name, net, image(), score=score)
    assert changes(before, snapshot(net)) == []


@every
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(name, mode):
    net = classifier(made())
    expected = explain(name, net, image(), 1)
    with mode():
        saliency = explain(name, net, image(), 1)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode) and not torch.is_grad_enabled()
    assert torch.equal(saliency, expected)


@every
def test_an_image_that_wants_gradients_gives_the_same_map(name):
    net, x = classifier(made()), image().requires_grad_()
    assert torch.equal(explain(name, net, x), explain(name, net, x.detach()))
    assert x.grad is None and x.requires_grad


@every
def test_two_calls_are_equal_bit_by_bit(name):
    net = classifier(made())
    first = explain(name, net, image())
    torch.rand(3)  # moves the global random state
    assert torch.equal(first, explain(name, net, image()))


@every
def test_training_mode_changes_nothing(name):
    net = classifier(made())
    expected = explain(name, net, image())
    net.module.train()
    assert torch.equal(explain(name, net, image()), expected)


@every
def test_no_target_means_the_first_choice_of_the_whole_image(name):
    net, x = classifier(made()), image()
    first = int(net(x[None]).argmax())
    assert torch.equal(explain(name, net, x), explain(name, net, x, first))


@every
@pytest.mark.parametrize("target", [torch.tensor(2), torch.tensor([2]), np.int64(2), np.uint8(2)], ids=repr)
def test_a_target_is_any_kind_of_integer(name, target):
    net = classifier(made())
    assert torch.equal(explain(name, net, image(), target), explain(name, net, image(), 2))


@takes("layer")
def test_the_target_matters(name):
    net = classifier(made())
    assert len({tuple(explain(name, net, image(), k).flatten().tolist()) for k in range(4)}) > 1


@every
def test_a_map_does_not_depend_on_other_images(name):
    net, images = classifier(made()), [image(s) for s in range(3)]
    there = [explain(name, net, x, 1) for x in images]
    back = [explain(name, net, x, 1) for x in reversed(images)][::-1]
    assert all(map(torch.equal, there, back))


@takes("batch_size")
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_map_does_not_depend_on_the_batch_size(name, batch_size):
    net = classifier(made())
    one, other = explain(name, net, image(), 1), explain(name, net, image(), 1, batch_size=batch_size)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@takes("batch_size")
def test_no_batch_at_all_is_an_error(name):
    with pytest.raises(ValueError, match="batch_size is 0"):
        explain(name, classifier(made()), image(), batch_size=0)


BAD_TARGETS = [
    (4, ValueError, "target 4 .*0 to 3"),
    (-1, ValueError, "target -1 .*0 to 3"),
    (10**30, ValueError, "0 to 3"),
    (True, TypeError, "class index, not True"),
    (torch.tensor(True), TypeError, "class index, not True"),
    (np.True_, TypeError, "class index"),
    ("cat", TypeError, "class index, not 'cat'"),
    (1.0, TypeError, "class index, not 1.0"),
    (torch.tensor(1.0), TypeError, "class index"),
    (np.array(1.5), TypeError, "class index"),
    ([1], TypeError, "class index"),
    (torch.tensor([1, 2]), TypeError, "class index"),
]


@every
@pytest.mark.parametrize(("target", "error", "says"), BAD_TARGETS, ids=[repr(t[0]) for t in BAD_TARGETS])
def test_a_wrong_target_is_named(name, target, error, says):
    with pytest.raises(error, match=says):
        explain(name, classifier(made()), image(), target)


def with_nan(x):
    x = x.clone()
    x[0, 1, 2] = float("nan")
    return x


BAD_IMAGES = {
    "batch": (image()[None], ValueError, r"\[3, H, W\].*\[1, 3, 16, 16\].*one image at a time"),
    "map": (image()[0], ValueError, r"\[3, H, W\].*\[16, 16\]"),
    "array": (image().numpy(), TypeError, "not ndarray.*preprocess"),
    "name": ("cat.jpg", TypeError, "not str.*preprocess"),
    "bytes": (torch.zeros(3, 16, 16, dtype=torch.uint8), ValueError, "finite float tensor of single or double precision.*uint8"),
    "half": (image().half(), ValueError, "finite float tensor of single or double precision.*float16"),
    "NaN": (with_nan(image()), ValueError, "NaN or infinite: True"),
    "infinite": (image() / 0, ValueError, "NaN or infinite: True"),
}


@every
@pytest.mark.parametrize("bad", BAD_IMAGES)
def test_a_wrong_image_is_named(name, bad):
    x, error, says = BAD_IMAGES[bad]
    with pytest.raises(error, match=says):
        explain(name, classifier(made()), x)


@every
def test_an_empty_image_is_named(name):
    with pytest.raises(ValueError, match=r"\[3, 0, 5\]"):
        explain(name, classifier(made()), torch.zeros(3, 0, 5, dtype=torch.float64))


@every
def test_weights_with_nan_are_named_before_the_long_work(name):
    net = classifier(made(Failing))
    net.module.calls = 0
    with torch.no_grad():
        net.module.head.weight[1, 2] = float("nan")
    with pytest.raises(ValueError, match="logits hold NaN or infinity"):
        explain(name, net, image())
    assert net.module.calls == 1


@every
def test_a_network_elsewhere_is_named_with_both_devices(name):
    net = classifier(made())
    net.module.to("meta")
    with pytest.raises(ValueError, match="image is on cpu, the network on meta"):
        explain(name, net, image())


class Wrong(Tiny):
    def forward(self, x):
        return {"map": x, "vector": super().forward(x)[0], "pair": (x, x), "rows": super().forward(torch.cat([x, x]))}[self.gives]


@every
@pytest.mark.parametrize(
    ("gives", "says"),
    [("map", r"gives \[1, 3, 16, 16\]"), ("vector", r"gives \[4\]"), ("pair", "gives tuple"), ("rows", r"gives \[2, 4\]")],
)
def test_a_network_without_logits_is_named(name, gives, says):
    net = classifier(made())
    wrong = made(Wrong)
    wrong.gives = gives
    with pytest.raises(ValueError, match=rf"logits \[N, K\].*{says}"):
        explain(name, replace(net, module=wrong), image())


@takes("layer")
def test_an_unknown_layer_lists_names_like_it(name):
    with pytest.raises(ValueError, match=r"no layer 'lost'.*\blast\b"):
        explain(name, classifier(made()), image(), layer="lost")


@takes("layer")
def test_a_layer_without_positions_is_named(name):
    with pytest.raises(TypeError, match=r"layer 'head' puts out shape \[1, 4\]"):
        explain(name, classifier(made()), image(), layer="head")


@takes("layer")
def test_a_plain_module_works_when_told_its_layer(name):
    net = made()
    inner = {"levels": classifier(net).level_layers, "coarse": partial(cam.grad_cam, layer="last")}
    others = inner if name == "gradual_extrapolation" else {}  # it reads several layers
    assert torch.equal(explain(name, net, image(), layer="last", **others), explain(name, classifier(net), image(), layer="last"))
    with pytest.raises(ValueError, match="pass (layer|levels)="):
        explain(name, net, image())


@every
def test_an_unknown_setting_is_an_error(name):
    with pytest.raises(TypeError, match="unexpected keyword"):
        explain(name, classifier(made()), image(), no_such_setting=1)


def test_a_method_that_breaks_the_contract_is_named():
    net = classifier(made())
    small = core.explainer(lambda net, image, target: image[0, :4])
    with pytest.raises(ValueError, match=r"map of shape \[4, 16\]; expected \[16, 16\]"):
        small(net, image())
    attached = core.explainer(lambda net, image, target: image[0].clone().requires_grad_() * 2)
    assert not attached(net, image()).requires_grad
    broken = core.explainer(lambda net, image, target: image[0] * float("nan"))
    with pytest.raises(ValueError, match="map with NaN or infinity"):
        broken(net, image())
