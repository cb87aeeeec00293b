"""layers: a copy of the network trained in a plain loop, the limit of short steps, and Score-CAM where nothing is trained."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from networks import SIDE, Deep, Tiny, changes, classifier, image, made, named, snapshot
from torch import nn
from torchvision.models import VisionTransformer

from helpers import core
from helpers.layers import (
    TopMasks,
    activations,
    differences,
    gradient,
    layer_scores,
    layer_selection,
    linear_differences,
    log_odds,
    score_cam_difference,
)
from helpers.score_cam import score_cam

LAYERS = {Tiny: ("stem", "relu", "mix", "last"), Deep: ("features.0", "features.1", "features", "rest.1")}


def slow_features(net, x, layers):
    kept = {}
    hooks = [net.get_submodule(n).register_forward_hook(lambda _m, _i, out, n=n: kept.update({n: out.clone()})) for n in layers]
    with torch.no_grad():
        net(x[None])
    for hook in hooks:
        hook.remove()
    return kept  # [1, C, h, w] each


def slow_differences(net, x, target, layers, *, steps=10, lr=1e-4, optimizer=torch.optim.SGD, relative=True):
    """A deep copy is trained with cross entropy, as in any training loop."""
    trained = copy.deepcopy(net).eval()
    rule = optimizer(trained.parameters(), lr=lr)
    for _ in range(steps):
        rule.zero_grad()
        F.cross_entropy(trained(x[None]), torch.tensor([target])).backward()
        if relative:
            weights = torch.cat([p.detach().flatten() for p in trained.parameters()])
            slope = torch.cat([p.grad.flatten() for p in trained.parameters()])
            for p in trained.parameters():
                p.grad *= weights.square().sum().sqrt() / slope.square().sum().sqrt()
        rule.step()
    before, after = slow_features(net, x, layers), slow_features(trained, x, layers)
    return {n: after[n] - before[n] for n in layers}


def slow_selection(net, x, target, d, layers, *, keep=0.5, fill=0.0):
    """All maps and all W, one masked image at a time: the pixels are sorted in a list of Python's."""
    H, W = x.shape[-2:]
    maps, scores = [], []
    with torch.no_grad():
        Y = net(x[None]).softmax(1)[0, target]
        for n in layers:
            D = F.interpolate(d[n].sum(1, keepdim=True), (H, W), mode="bilinear", align_corners=False)[0, 0]
            highest = sorted(((float(D[i, j]), i, j) for i in range(H) for j in range(W)), key=lambda v: -v[0])[
                : int(keep * H * W)
            ]
            seen = torch.zeros_like(x) + fill
            for _, i, j in highest:
                seen[:, i, j] = x[:, i, j]
            maps.append(D)
            scores.append(1 + net(seen[None]).softmax(1)[0, target] - Y)
    return torch.stack(maps), torch.stack(scores)


PLAIN = {"relative": False, "objective": core.log_probability}  # the copy is always trained with cross entropy
TRAININGS = {
    "default": {},
    "a longer step": PLAIN | {"steps": 1, "lr": 0.05},
    "many steps": PLAIN | {"steps": 7, "lr": 0.02},
    "Adam": PLAIN | {"steps": 3, "lr": 1e-3, "optimizer": torch.optim.Adam},
    "relative": {"steps": 4, "lr": 1e-3, "objective": core.log_probability},
}


def loop(training):
    return {k: v for k, v in TRAININGS[training].items() if k != "objective"}


@pytest.mark.proves(
    "layer_selection", "layer_scores", "differences",
    by="a copy of the network trained with torch.optim and cross entropy, one image at a time",
)  # fmt: skip
@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("kind", [Tiny, Deep])
def test_layer_selection_is_its_plain_loop(kind, training):
    net, x, layers = made(kind, 1), image(1), LAYERS[kind]
    d = slow_differences(net, x, 2, layers, **loop(training))
    maps, W = slow_selection(net, x, 2, d, layers)
    features = partial(differences, **TRAININGS[training])
    seen = layer_scores(net, x, 2, layers=layers, features=features)
    torch.testing.assert_close(seen.maps, maps, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(seen.scores, W, rtol=1e-12, atol=1e-12)
    assert seen.layers == layers and seen.chosen == layers[int(W.argmax())]
    torch.testing.assert_close(
        layer_selection(net, x, 2, layers=layers, features=features), maps[W.argmax()], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("settings", [{"keep": 0.2}, {"keep": 0.8, "fill": 0.7}, {"batch_size": 3}], ids=str)
def test_layer_selection_without_difference_is_its_plain_loop(settings):
    net, x, layers = made(Deep, 2), image(2), LAYERS[Deep]
    kept = {k: v for k, v in settings.items() if k != "batch_size"}
    maps, W = slow_selection(net, x, 1, slow_features(net, x, layers), layers, **kept)
    seen = layer_scores(net, x, 1, layers=layers, features=activations, **settings)
    torch.testing.assert_close(seen.maps, maps, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(seen.scores, W, rtol=1e-12, atol=1e-12)
    chosen = layer_selection(net, x, 1, layers=layers, features=activations, **settings)
    torch.testing.assert_close(chosen, maps[W.argmax()], rtol=1e-12, atol=1e-12)


def test_different_images_choose_different_layers():
    net = made(Deep, 2)
    assert len({layer_scores(net, image(s), layers=LAYERS[Deep]).chosen for s in range(8)}) > 1


def small_transformer():
    def kind():
        net = VisionTransformer(image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=4)
        nn.init.normal_(net.heads.head.weight)  # zero by default, which lets no gradient through
        return net

    return made(kind)


NETWORKS = {
    "Tiny": (lambda: made(Tiny), LAYERS[Tiny]),
    "Deep": (lambda: made(Deep), LAYERS[Deep]),
    "tokens": (small_transformer, ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1")),
}


@pytest.mark.proves("linear_differences", by="the difference of two very short training steps, uphill and downhill")
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("objective", [core.log_probability, core.logit, log_odds])
def test_linear_differences_are_the_limit_of_short_steps(name, objective):
    make, layers = NETWORKS[name]
    net, x, lr = make(), image(), 1e-7
    linear = linear_differences(net, x, 1, layers, objective=objective)
    there = differences(net, x, 1, layers, steps=1, lr=lr, relative=False, objective=objective)
    back = differences(net, x, 1, layers, steps=1, lr=lr, relative=False, objective=lambda logits, t: -objective(logits, t))
    for layer in layers:
        assert linear[layer].any()
        step = (there[layer] - back[layer]) / (2 * lr)  # the error of second order cancels
        torch.testing.assert_close(step, linear[layer], rtol=1e-5, atol=1e-5 * float(linear[layer].abs().max()))


@pytest.mark.proves("linear_differences", by="an ordinary backward pass, whose transpose it is")
def test_linear_differences_are_the_transpose_of_backpropagation():
    """<u, J g> = <J' u, g> for any u: J' u is an ordinary backward pass from the features."""
    net, x, layer = made(Tiny), image(), "last"
    theta = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    g = gradient(net, theta, x, 1, core.log_probability)
    d = linear_differences(net, x, 1, [layer], objective=core.log_probability)[layer]
    u = image(3, (6 * 8, 8))[0].reshape(6, 8, 8)
    with core.capture(net, [layer]) as seen:
        net(x[None])
    back = torch.autograd.grad((u * seen[layer][0]).sum(), list(net.parameters()), allow_unused=True)
    expected = sum((b * g[n]).sum() for b, n in zip(back, theta, strict=True) if b is not None)
    torch.testing.assert_close((u * d).sum(), expected, rtol=1e-10, atol=1e-12)


def test_a_layer_before_all_weights_changes_by_nothing():
    net, x = nn.Sequential(nn.Identity(), made(Tiny)), image()
    for features in (differences, linear_differences):
        assert not features(net, x, 1, ["0"])["0"].any()
        assert features(net, x, 1, ["1.last"])["1.last"].any()


def test_weights_without_a_part_in_the_logits_are_no_error():
    net, x = made(Tiny), image()
    expected = differences(net, x, 1, ["last"], relative=False)["last"]
    net.spare = nn.Parameter(torch.ones(3, dtype=torch.float64))
    assert torch.equal(differences(net, x, 1, ["last"], relative=False)["last"], expected)


@pytest.mark.parametrize("shared", ["module", "weight"])
def test_shared_weights_are_trained_as_one_and_come_back(shared):
    net = made(Deep, 3)
    one, two = (nn.Conv2d(5, 5, 3, padding=1, dtype=torch.float64) for _ in range(2))
    nn.init.constant_(one.weight, 0.05)
    two.weight, two.bias = one.weight, one.bias
    net.features = nn.Sequential(net.features[0], one, nn.Tanh(), one if shared == "module" else two, *net.features[1:])
    nn.init.constant_(one.bias, 0.1)
    layers, before = ("features.0", "features.2", "features"), snapshot(net)
    d, slow = (f(net, image(), 1, layers, lr=0.001, steps=2) for f in (differences, slow_differences))
    for layer in layers:
        torch.testing.assert_close(d[layer], slow[layer][0], rtol=1e-9, atol=1e-12)
    assert changes(before, snapshot(net)) == []


# -------------------------------------------------------------------------------------------------------- invariants


def test_where_nothing_changes_no_layer_is_chosen():
    net, x, layers = made(Deep), image(), LAYERS[Deep]
    still = partial(differences, lr=0.0)
    assert not any(d.any() for d in still(net, x, 1, layers).values())
    for select in (layer_scores, layer_selection):
        with pytest.raises(ValueError, match="nothing changes at any of the 4 layers"):
            select(net, x, layers=layers, features=still)
    flat = nn.Sequential(nn.Identity(), made(Deep))  # before all weights
    with pytest.raises(ValueError, match="nothing changes at any of the 1 layers"):
        layer_selection(flat, x, layers=["0"])


@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_one_step_is_an_error(steps):
    with pytest.raises(ValueError, match=f"steps is {steps}; expected at least 1"):
        layer_selection(made(Deep), image(), layers=LAYERS[Deep], features=partial(differences, steps=steps))


def test_the_masks_are_drawn_a_chunk_at_a_time(monkeypatch):
    net, x, asked = made(Deep), image(), []
    drawn = TopMasks.__getitem__
    monkeypatch.setattr(TopMasks, "__getitem__", lambda masks, chunk: asked.append(chunk) or drawn(masks, chunk))
    layer_scores(net, x, layers=LAYERS[Deep], batch_size=3)
    assert asked == [slice(0, 3), slice(3, 6)]


class Two(nn.Module):
    """Two objects side by side, two labels: each sees its own channel, in its own half of the picture; then a third class."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 2, 1, bias=False)
        self.last = nn.ReLU()

    def forward(self, x):
        A = self.last(self.one(x))
        left, right = A[:, 0, :, : SIDE // 2].mean((1, 2)), A[:, 1, :, SIDE // 2 :].mean((1, 2))
        return torch.stack([left, right, -left - right], 1)


@pytest.mark.parametrize("features", [differences, linear_differences])
def test_in_a_multi_label_network_log_odds_lower_the_other_object(features):
    net, x = made(Two), image().abs()
    nn.init.constant_(net.one.weight, 2.0)
    assert (net(x[None])[0, :2] > 1).all()  # both objects are there
    softmax, label = (features(net, x, 0, ["last"], objective=f)["last"] for f in (log_odds, core.logit))
    assert (softmax[0] > 0).all() and (label[0] > 0).all()
    assert (softmax[1] < 0).all()  # the default speaks against the other object
    torch.testing.assert_close(label[1], torch.zeros_like(label[1]), rtol=0, atol=1e-12)  # the logit says nothing of it
    settings = {"layers": ["last"], "score": core.sigmoid}
    D = layer_selection(net, x, 0, features=partial(features, objective=core.logit), **settings)
    assert (D > 0).all()


def test_what_log_odds_do_to_two_objects_in_closed_form():
    net, x = made(Two), image().abs()
    nn.init.constant_(net.one.weight, 2.0)
    q = net(x[None])[0, 1:].softmax(0).detach()  # how the other two classes share what is not the first
    left, right = x[..., : SIDE // 2].mean((1, 2)), x[..., SIDE // 2 :].mean((1, 2))  # [3]: slopes of the logits in the weights
    expected = [(1 + q[1]) * torch.einsum("c,chw->hw", left, x), (q[1] - q[0]) * torch.einsum("c,chw->hw", right, x)]
    found = linear_differences(net, x, 0, ["last"])["last"]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-10, atol=1e-12)


def test_layers_that_score_alike_give_the_deepest():
    net = made(Deep)
    net.features.append(nn.Identity())
    layers = ("features.3", "features.4", "features")  # the same features three times
    seen = layer_scores(net, image(4), layers=layers, features=activations)
    assert len(set(seen.scores.tolist())) == 1 and seen.chosen == "features"


@pytest.mark.parametrize("kind", [Tiny, Deep])
def test_twice_as_short_a_step_chooses_the_same_layer_and_pixels(kind):
    net, x = made(kind), image(1)
    one, two, limit = (
        layer_scores(net, x, 1, layers=LAYERS[kind], features=f)
        for f in (partial(differences, lr=1e-7), partial(differences, lr=2e-7), linear_differences)
    )
    assert one.chosen == two.chosen == limit.chosen and len(set(one.scores.tolist())) > 1
    assert torch.equal(one.scores, two.scores) and torch.equal(one.scores, limit.scores)
    torch.testing.assert_close(two.maps, 2 * one.maps, rtol=1e-4, atol=1e-4 * float(two.maps.abs().max()))


@pytest.mark.parametrize("target", range(4))
def test_a_score_lies_between_0_and_2(target):
    net, x = made(Deep), image()
    W = layer_scores(net, x, target, layers=LAYERS[Deep]).scores
    assert (0 < W).all() and (W < 2).all()


class Raises(torch.optim.SGD):
    def step(self, closure=None):
        super().step()
        raise ZeroDivisionError


@pytest.mark.parametrize("where", ["objective", "optimizer"])
def test_the_network_comes_back_exactly_when_training_fails(where):
    net, x = made(Tiny), image()
    net.train()
    net(torch.stack([x, x + 1])).sum().backward()
    before = snapshot(net)
    settings = {"optimizer": Raises} if where == "optimizer" else {"objective": lambda logits, target: logits[0, target] / [][0]}
    with pytest.raises((ZeroDivisionError, IndexError)):
        layer_selection(net, x, layers=LAYERS[Tiny], features=partial(differences, **settings))
    assert changes(before, snapshot(net)) == []


@pytest.mark.parametrize("features", [activations, differences, linear_differences])
def test_the_parts_leave_a_network_in_training_as_it_is(features):
    net, x = made(Tiny), image()
    expected = features(net, x, 1, LAYERS[Tiny])
    net.train()
    before, fast = snapshot(net), torch.backends.mha.get_fastpath_enabled()
    found = features(net, x, 1, LAYERS[Tiny])
    assert changes(before, snapshot(net)) == [] and torch.backends.mha.get_fastpath_enabled() == fast
    for layer in LAYERS[Tiny]:
        assert torch.equal(found[layer], expected[layer]) and not found[layer].requires_grad


# -------------------------------------------------------------------------------------- a network that is already certain


def test_log_odds_are_the_logarithm_of_the_odds():
    logits = image(2)[0]  # [16, 16]: N images, K classes
    p = logits.softmax(1)[:, 3]
    torch.testing.assert_close(log_odds(logits, 3), (p / (1 - p)).log(), rtol=1e-12, atol=1e-12)


def test_the_gradient_of_log_odds_is_that_of_log_p_without_its_vanishing_factor():
    net, x = made(Deep), image()
    p = net(x[None]).softmax(1)[0, 1].detach()
    slow, fast = (linear_differences(net, x, 1, ["features"], objective=f)["features"] for f in (core.log_probability, log_odds))
    torch.testing.assert_close(slow, (1 - p) * fast, rtol=1e-10, atol=1e-12)


def certain(by):
    """The same features and the same direction of training; the first choice is `by` surer than it was."""
    net = made(Deep, dtype=torch.float32)
    with torch.no_grad():
        net.rest[-1].bias[1] += by
    return net


@pytest.mark.parametrize("size", [1e-3, 1e-18, 1e-22, 1e-30])  # the square of the third rounds to 0 in single precision
def test_a_relative_step_along_a_tiny_gradient_is_finite(size):
    net, x = certain(0), image(dtype=torch.float32)
    steps = partial(differences, net, x, 1, ["features"], steps=2, lr=1e-3, relative=True)
    d = steps(objective=lambda logits, target: size * core.logit(logits, target))["features"]
    assert d.isfinite().all()
    if size > 1e-20:
        torch.testing.assert_close(d, steps(objective=core.logit)["features"], rtol=1e-3, atol=1e-3 * float(d.abs().max()))


def test_where_p_rounds_to_1_cross_entropy_changes_nothing_and_log_odds_still_do():
    x, layers, net = image(dtype=torch.float32), LAYERS[Deep], certain(200)
    assert net(x[None]).softmax(1)[0, 1] == 1
    for relative in (False, True):
        assert not differences(net, x, 1, ["features"], relative=relative, objective=core.log_probability)["features"].any()
    for features in (linear_differences, partial(differences, objective=log_odds, relative=True)):
        sure, unsure = (layer_scores(n, x, 1, layers=layers, features=features).maps for n in (net, certain(0)))
        if features is linear_differences:
            torch.testing.assert_close(sure, unsure, rtol=1e-4, atol=1e-4 * float(unsure.abs().max()))
        assert all(float(core.to_unit(D).max()) == 1 for D in sure)


def test_a_relative_step_has_the_length_that_was_asked_for():
    net, x, moved = made(Deep), image(), []

    class Watching(torch.optim.SGD):
        def step(self, closure=None):
            before = [p.detach().clone() for p in self.param_groups[0]["params"]]
            super().step()
            after = [p.detach() for p in self.param_groups[0]["params"]]
            change = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)]).norm()
            moved.append(float(change / torch.cat([b.flatten() for b in before]).norm()))

    differences(net, x, 1, ["features"], steps=3, lr=1e-3, relative=True, optimizer=Watching)
    assert moved == pytest.approx([1e-3] * 3)


# ------------------------------------------------------------------------------------------------ Score-CAM with difference


@pytest.mark.parametrize(
    "settings", [{}, {"score": core.logit, "fill": 0.5}, {"normalise": partial(torch.softmax, dim=0)}], ids=named
)
@pytest.mark.parametrize("kind", [Tiny, Deep])
def test_score_cam_difference_with_the_features_themselves_is_score_cam(kind, settings):
    net, x, layer = made(kind), image(), LAYERS[kind][2]
    mine = score_cam_difference(net, x, 1, layer=layer, features=activations, **settings)
    assert mine.any()
    torch.testing.assert_close(mine, score_cam(net, x, 1, layer=layer, **settings), rtol=1e-12, atol=1e-14)


@pytest.mark.proves("score_cam_difference", by="a loop over one channel at a time, on the features of a trained copy")
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("training", TRAININGS)
def test_score_cam_difference_is_its_plain_loop(training, softmax):
    net, x = made(Deep, 4), image(4)
    d = slow_differences(net, x, 0, ["features"], **loop(training))["features"]  # [1, C, h, w]
    weights = []
    with torch.no_grad():
        for k in range(d.shape[1]):
            H = F.interpolate(d[:, k : k + 1], x.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
            weights.append(net((x * (H - H.min()) / (H.max() - H.min()))[None]).softmax(1)[0, 0])
    weights = torch.tensor(weights, dtype=torch.float64)
    weights = weights.exp() / weights.exp().sum() if softmax else weights
    total = sum(w * d[0, k] for k, w in enumerate(weights))
    expected = F.interpolate(total[None, None], x.shape[-2:], mode="bilinear", align_corners=False)[0, 0].clamp(min=0)
    features = partial(differences, **TRAININGS[training])
    settings = {"normalise": partial(torch.softmax, dim=0)} if softmax else {}
    assert expected.any()
    mine = score_cam_difference(net, x, 0, layer="features", features=features, **settings)
    torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-9 * float(expected.max()))


# --------------------------------------------------------------------------------------------------------------- cost, errors


@pytest.mark.parametrize(
    ("features", "passes"), [(activations, 1), (partial(differences, steps=3), 1 + 3 + 1), (linear_differences, 1 + 1)], ids=named
)
def test_the_forward_passes_are_counted(features, passes):
    net, x, sizes = made(Deep), image(), []
    hook = net.register_forward_pre_hook(lambda _m, given: sizes.append(len(given[0])))
    layer_scores(net, x, 1, layers=LAYERS[Deep], features=features)
    hook.remove()
    assert sizes == [1] * (1 + passes) + [4]  # the whole image, the features, all four masked images as one batch


def test_the_layers_of_the_classifier_are_the_default():
    net, x = classifier(made()), image()
    assert layer_scores(net, x).layers == net.selectable_layers != ()
    assert torch.equal(layer_selection(net, x), layer_selection(net.module, x, layers=net.selectable_layers))


@pytest.mark.parametrize("layers", [None, ()])
def test_no_layers_is_an_error_that_says_what_to_do(layers):
    with pytest.raises(ValueError, match="Tiny names no selectable_layers: pass layers=.*from_module"):
        layer_selection(made(), image(), layers=layers)


@pytest.mark.parametrize("features", [activations, differences, linear_differences])
@pytest.mark.parametrize(
    ("layers", "error", "says"), [(("last", "lost"), ValueError, "no layer 'lost'"), (("head",), TypeError, "'head' puts out")]
)
def test_a_wrong_layer_is_named_before_the_training(features, layers, error, says):
    net, passes = made(), []
    hook = net.register_forward_pre_hook(lambda _m, given: passes.append(1))
    with pytest.raises(error, match=says):
        layer_selection(net, image(), layers=layers, features=features)
    hook.remove()
    assert len(passes) <= 4


def test_a_score_with_nan_names_the_layer():
    with pytest.raises(ValueError, match="layer_selection.*'relu'.*NaN or infinity"):
        layer_selection(made(), image(), layers=("relu", "last"), score=lambda logits, target: logits[:, target] * float("nan"))


def test_channels_that_nothing_changes_are_an_error():
    with pytest.raises(ValueError, match="all 7 differences at layer 'features' are constant"):
        score_cam_difference(made(Deep), image(), layer="features", features=partial(differences, lr=0.0))
