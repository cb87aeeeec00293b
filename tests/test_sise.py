"""sise: a plain float64 loop over masks, the rule that selects them, the fusion, and what must hold of any map."""

import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from networks import Deep, changes, classifier, image, made, snapshot
from skimage.filters import threshold_otsu
from torch import nn

from helpers import core, models
from helpers.masks import otsu
from helpers.sise import adaptive_mu, contribution, fuse, otsu_mask, sise, sise_layers, soft_otsu_mask

LAYERS = ["features.1", "features", "rest.1"]  # 16 x 16, 8 x 8, 4 x 4
SMOOTH = {"score": core.logit}


def unit(m):
    return torch.zeros_like(m) if m.max() == m.min() else (m - m.min()) / (m.max() - m.min())


def slow_layer(net, x, target, layer, *, mu=0.0, score=core.probability, gradient=core.log_probability, area_norm=True, fill=0.0):
    """V, the sums of the gradients and the kept channels of one layer, from passes of its own and one mask at a time."""
    kept = {}
    hook = net.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.update(A=out))
    gradient(net(x[None].clone().requires_grad_()), target).sum().backward(inputs=[A := kept["A"]])
    hook.remove()
    alpha = A.grad[0].sum((1, 2))  # a sum, as Eq. (6) has it
    chosen = [k for k in range(len(alpha)) if alpha[k] > mu * max(alpha)]
    V = torch.zeros(x.shape[1:], dtype=torch.float64)
    with torch.no_grad():
        for k in chosen:
            m = unit(F.interpolate(A[:, k : k + 1], x.shape[1:], mode="bilinear", align_corners=False)[0, 0])
            Psi = score(net((x * m + fill * (1 - m))[None]), target)[0]
            V += Psi * (m / m.sum() if area_norm else m)
    return unit(V), alpha, chosen


def slow_sise(net, x, target, layers, **settings):
    E = None
    for layer in layers:
        V = slow_layer(net, x, target, layer, **settings)[0]
        E = V if E is None else torch.where(V > threshold_otsu(V.numpy()), E + V, 0)
    return unit(E)


CASES = {
    "default": {},
    "mu": {"mu": 0.4},
    "no area": {"area_norm": False},
    "fill number": {"fill": 0.7},
    "fill picture": {"fill": image(8)},
}


@pytest.mark.proves(
    "sise", by="a loop over one layer and one mask at a time in double precision, with scikit-image's Otsu threshold"
)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_sise_is_its_plain_loop(name, seed):
    net, x, settings = made(Deep, seed), image(seed), CASES[name]
    expected = slow_sise(net, x, 1, LAYERS, **settings)
    assert 0 < (expected == 0).double().mean() < 1
    torch.testing.assert_close(sise(net, x, 1, layers=LAYERS, **settings), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_each_layer_is_its_plain_loop(name):
    net, x, settings = made(Deep, 2), image(2, (16, 16)), CASES[name]
    for found, layer in zip(sise_layers(net, x, 2, layers=LAYERS, **settings), LAYERS, strict=True):
        V, alpha, chosen = slow_layer(net, x, 2, layer, **settings)
        positions = core.features_of(net, x, layer)[0].numel()
        assert found.layer == layer and found.kept.tolist() == chosen and len(found.scores) == len(chosen)
        torch.testing.assert_close(found.V, V, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.alpha, alpha / positions, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("score", "gradient"),
    [(core.probability, core.log_probability), (core.sigmoid, core.logit), (core.logit, core.logit)],
    ids=["probability", "sigmoid", "logit"],
)
def test_the_gradient_is_that_of_the_score_before_it_flattens(score, gradient):
    net, x = made(Deep, 3), image(3)
    for found in sise_layers(net, x, 0, layers=LAYERS, score=score):
        V, alpha, chosen = slow_layer(net, x, 0, found.layer, score=score, gradient=gradient)
        assert found.kept.tolist() == chosen
        same = slow_layer(net, x, 0, found.layer, score=score, gradient=score)[1]  # the paper's own, of the score
        torch.testing.assert_close(F.normalize(alpha, dim=0), F.normalize(same, dim=0), rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(found.V, V, rtol=1e-10, atol=1e-12)


def test_one_forward_and_backward_pass_serve_all_layers_and_each_kept_map_takes_one_more():
    net, x = made(Deep), image()
    seen, back = [], []
    net.register_forward_pre_hook(lambda _m, given: seen.append(len(given[0])))
    net.rest[0].register_full_backward_hook(lambda *_: back.append(1))
    found = sise_layers(net, x, 1, layers=LAYERS)
    assert sum(seen) == 1 + sum(len(layer.kept) for layer in found) and len(back) == 1
    seen.clear()
    sise(net, x, 1, layers=LAYERS)
    assert sum(seen) == 1 + sum(len(layer.kept) for layer in found)  # the logits are checked on the way


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_the_batch_size_does_not_matter(batch_size):
    net, x = made(Deep), image()
    expected = sise(net, x, 1, layers=LAYERS)
    torch.testing.assert_close(sise(net, x, 1, layers=LAYERS, batch_size=batch_size), expected, rtol=1e-12, atol=1e-14)


def test_layers_are_fused_in_the_order_of_the_network_however_they_are_named():
    net, x = made(Deep), image()
    expected = sise(net, x, 1, layers=LAYERS)
    assert torch.equal(sise(net, x, 1, layers=LAYERS[::-1]), expected)
    assert torch.equal(sise(net, x, 1, layers=LAYERS + LAYERS), expected)


def test_the_layers_of_a_classifier_are_its_block_ends():
    net = replace(classifier(made(Deep), layer="features"), block_layers=("features", "rest.1"))
    assert [layer.layer for layer in sise_layers(net, image())] == ["features", "rest.1"]
    assert torch.equal(sise(net, image()), sise(net.module, image(), layers=["features", "rest.1"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "maps"),
    [(lambda: models.load("resnet50", weights=None), 3904), (lambda: models.vgg16_trunk(("a", "b"), weights=None), 1472)],
    ids=["resnet50", "vgg16"],
)
def test_the_papers_networks_have_as_many_maps_as_the_paper_says(load, maps):
    net = load()
    found = sise_layers(net, image(0, (64, 64), torch.float32), 0, mu=0.999)
    assert sum(len(layer.alpha) for layer in found) == maps == models.sise_maps(net)


# ------------------------------------------------------------------------------------------------------ the selection


def test_a_larger_mu_keeps_a_part_of_what_a_smaller_one_keeps():
    net, x = made(Deep, 4), image(4)
    kept = [[set(layer.kept.tolist()) for layer in sise_layers(net, x, 1, layers=LAYERS, mu=mu)] for mu in (0, 0.2, 0.5, 0.9)]
    for more, fewer in zip(kept, kept[1:], strict=False):
        assert all(a >= b and b for a, b in zip(more, fewer, strict=True))
    assert sum(map(len, kept[0])) > sum(map(len, kept[-1]))


def test_the_strongest_map_is_always_kept_and_none_with_a_gradient_that_is_not_positive():
    net, x = made(Deep, 4), image(4)
    for mu in (0, 0.5, 0.999, adaptive_mu):
        for layer in sise_layers(net, x, 1, layers=LAYERS, mu=mu):
            assert int(layer.alpha.argmax()) in layer.kept and (layer.alpha[layer.kept] > 0).all()


@pytest.mark.proves("adaptive_mu", by="scikit-image's Otsu threshold of the positive gradients")
@pytest.mark.parametrize("seed", range(5))
def test_ada_sise_takes_otsus_threshold_of_the_positive_gradients(seed):
    alpha = torch.randn(200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    alpha[::3] += 4  # two groups
    positive = (alpha[alpha > 0] / alpha.max()).numpy()
    assert adaptive_mu(alpha) == pytest.approx(threshold_otsu(positive), abs=1.01 / 256)
    assert adaptive_mu(3 * alpha) == pytest.approx(adaptive_mu(alpha))
    assert adaptive_mu(torch.cat([alpha, -10 * alpha.abs()])) == pytest.approx(adaptive_mu(alpha))  # the rest does not count


def test_ada_sise_keeps_what_lies_above_its_threshold():
    net, x = made(Deep, 4), image(4)
    plain, ada = sise_layers(net, x, 1, layers=LAYERS), sise_layers(net, x, 1, layers=LAYERS, mu=adaptive_mu)
    for a, b in zip(plain, ada, strict=True):
        positive = a.alpha[a.alpha > 0]
        threshold = threshold_otsu(positive.numpy())
        assert b.kept.tolist() == [k for k, alpha in enumerate(a.alpha) if alpha > threshold]
        assert 0 < len(b.kept) < len(positive)
    assert adaptive_mu(torch.tensor([-1.0, 0.0])) == 0 and adaptive_mu(torch.tensor([-1.0, 2.0])) == 1


class Signed(nn.Module):
    """Three feature maps, the second constant, with mean gradients 1, 2, -3 for class 0; class 1: -1, -2, -3; class 2: none."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 3, 1)
        self.maps.weight.data = torch.diag(torch.tensor([1.0, 0, 1]))[:, :, None, None]

    def forward(self, x):
        weights = torch.tensor([[1.0, 2, -3], [-1, -2, -3], [0, 0, 0]]).to(x)
        return self.maps(x).mean((2, 3)) @ weights.T


def one_layer(net, target, mu=0.0):
    (found,) = sise_layers(net, image(), target, layers=["maps"], score=core.logit, mu=mu)
    return found


def test_a_constant_map_masks_nothing_but_sets_the_scale_of_mu():
    net = Signed().double()
    found = one_layer(net, 0)
    assert found.kept.tolist() == [0]  # channel 1 is constant, channel 2 speaks against
    torch.testing.assert_close(found.alpha * 256, torch.tensor([1, 2, -3.0], dtype=torch.float64))
    assert one_layer(net, 0, 0.6).kept.tolist() == [0]  # 1 is not above 0.6 * 2, but it is the strongest that changes


def test_exactly_mu_times_the_largest_gradient_is_not_kept():
    net = Signed().double()
    net.maps.weight.data[1, 1] = 1
    assert [one_layer(net, 0, mu).kept.tolist() for mu in (0.0, 0.49, 0.5)] == [[0, 1], [0, 1], [1]]


@pytest.mark.parametrize("target", [1, 2])
def test_without_a_positive_gradient_the_strongest_map_that_changes_is_kept_with_a_warning(target):
    net = Signed().double()
    with pytest.warns(UserWarning, match="no gradient at layer 'maps' is positive"):
        assert one_layer(net, target).kept.tolist() == [0]
    net.maps.weight.data[0, 0], net.maps.weight.data[1, 1] = 0, 1
    with pytest.warns(UserWarning, match="no gradient at layer 'maps' is positive"):
        assert one_layer(net, target).kept.tolist() == [1]


# ------------------------------------------------------------------------------------------------- masks and fusion


def test_a_contribution_is_a_mask_that_shares_out_one():
    A = torch.randn(5, 6, 7, dtype=torch.float64)
    C = contribution(A)
    torch.testing.assert_close(C.sum((1, 2)), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(C / C.amax((1, 2), keepdim=True), core.to_unit(A))
    assert not contribution(torch.ones(1, 3, 3)).any()


def test_area_normalisation_pays_a_small_mask_more_per_pixel():
    """Two maps whose masked copies score alike: the pixel seen by the smaller one wins only with area normalisation."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = nn.Conv2d(3, 2, 1, bias=False)
            self.maps.weight.data = torch.tensor([[1.0, 0, 0], [0, 1, 0]])[:, :, None, None]

        def forward(self, x):
            A = self.maps(x)
            return torch.stack([5 + 1e-6 * A.mean((1, 2, 3)), 0 * A.mean((1, 2, 3))], 1)

    x = torch.zeros(3, 16, 16, dtype=torch.float64)
    x[0, :2, :2], x[1, 8:, :] = 1, 1
    maps = {a: sise(Two().double(), x, 0, layers=["maps"], score=core.logit, area_norm=a) for a in (True, False)}
    assert maps[True][0, 0] == 1 and maps[True][12, 3] == pytest.approx(4 / 128, rel=1e-5)
    assert maps[False][0, 0] == pytest.approx(maps[False][12, 3].item(), rel=1e-5)


BLOBS = [unit(F.avg_pool2d(image(s)[None], 5, 1, 2)[0, 0]) for s in range(4)]


@pytest.mark.proves("otsu_mask", by="scikit-image's Otsu threshold")
@pytest.mark.proves("fuse", by="the cascade written out for three maps, with a binary mask and with the map itself")
def test_the_fusion_adds_a_deeper_map_and_keeps_what_it_shows():
    a, b, c = BLOBS[:3]
    for V in (b, c):
        assert torch.equal(otsu_mask(V).bool(), V > threshold_otsu(V.numpy())) and 0 < otsu_mask(V).mean() < 1
    B, C = otsu_mask(b), otsu_mask(c)
    assert torch.equal(fuse([a]), a)
    torch.testing.assert_close(fuse([a, b, c]), unit(((a + b) * B + c) * C))
    torch.testing.assert_close(fuse([a, b, c], binarise=lambda V: V), unit(((a + b) * b + c) * c))  # the "simple" fusion
    assert not torch.allclose(fuse([a, b, c]), fuse([c, b, a]))


@pytest.mark.parametrize("seed", range(3))
def test_the_map_is_zero_exactly_where_the_deepest_otsu_mask_is(seed):
    net, x = made(Deep, seed), image(seed)
    deepest = sise_layers(net, x, 1, layers=LAYERS)[-1].V
    assert torch.equal(sise(net, x, 1, layers=LAYERS) > 0, deepest > otsu(deepest))


def test_constant_maps_fuse_to_a_blank_one():
    assert not fuse([torch.ones(4, 4), torch.zeros(4, 4)]).any()


@pytest.mark.proves(
    "soft_otsu_mask", by="the formula on maps with less, and with more, than a tenth above 1.5 times the threshold"
)
@pytest.mark.parametrize(("rows", "factor"), [(1, 1.5), (2, 1.0), (8, 1.0)])
def test_the_soft_mask_raises_the_threshold_where_less_than_a_tenth_lies_above_it(rows, factor):
    V = 0.02 * image(1)[0].tanh() + 0.2
    V[:rows] += 0.6  # so many of 16 rows lie far above 1.5 times the threshold
    torch.testing.assert_close(soft_otsu_mask(V), 1 / (1 + torch.exp(-100 * (V - factor * otsu(V)))), rtol=1e-10, atol=1e-14)


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("mu", [-0.1, 1, 1.5, float("nan")])
def test_a_mu_that_selects_nothing_or_everything_is_named(mu):
    with pytest.raises(ValueError, match=rf"mu is {mu}; expected 0 up to"):
        sise(made(Deep), image(), layers=LAYERS, mu=mu)


def test_layers_are_several_names():
    net = made(Deep)
    with pytest.raises(TypeError, match="layers are several names, shallow to deep, not one name, 'features'"):
        sise(net, image(), layers="features")
    for given in (net, replace(classifier(net, layer="features"), block_layers=())):
        with pytest.raises(ValueError, match=r"Deep names no block_layers: pass layers=\[…\]"):
            sise(given, image())
    with pytest.raises(ValueError, match="Deep names no block_layers"):
        sise(net, image(), layers=[])
    with pytest.raises(ValueError, match="no layer 'feature'; names like it: features"):
        sise(net, image(), layers=["feature"])
    with pytest.raises(TypeError, match=r"layer 'rest.3' puts out shape \[1, 9\]"):
        sise(net, image(), layers=["features", "rest.3"])


def test_a_layer_whose_maps_are_all_constant_is_named():
    net = made()
    nn.init.constant_(net.norm.weight, 0)
    with pytest.raises(ValueError, match="all 6 feature maps of layer 'norm' are constant"):
        sise(net, image(), layers=["norm"])


def test_scores_that_are_not_finite_are_named_though_scaling_would_hide_them():
    def broken(logits, target):
        return logits[:, target] / (logits.shape[0] == 1 and logits.requires_grad)

    with pytest.raises(ValueError, match="sise: the scores of the copies masked at layer 'features' hold NaN or infinity"):
        sise(made(Deep), image(), 1, layers=["features"], score=broken)


def test_sise_layers_leave_the_network_as_it_was_and_take_its_first_choice():
    net = classifier(made(Deep), layer="features")
    net.module.train()
    before, x = snapshot(net), image()
    found = sise_layers(net, x, layers=LAYERS)
    assert changes(before, snapshot(net)) == []
    first = int(net(x[None]).argmax())
    for a, b in zip(found, sise_layers(net, x, first, layers=LAYERS), strict=True):
        assert torch.equal(a.V, b.V) and not a.V.requires_grad and not a.scores.is_inference()
    with pytest.raises(ValueError, match="target 9 is out of range"):
        sise_layers(net, x, 9, layers=LAYERS)


def test_all_is_quiet_where_gradients_are_positive():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sise(made(Deep), image(), layers=LAYERS)
