"""mil: the papers' equations in slow float64, and that neither company nor filling up changes a bag."""

import math

import pytest
import torch
from networks import changes, snapshot
from torch import Tensor, nn

from helpers.mil import AttentionMIL, attention, attention_map, digit_features, packed, patch_features, patches, trained

L, D = 6, 5


def mil(gated=False, extractor=None, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = AttentionMIL(extractor or nn.Sequential(nn.Flatten(), nn.Linear(12, L), nn.Tanh()), L, D, gated, **settings)
        for p in net.parameters():  # strong enough for attention that is not nearly uniform
            nn.init.normal_(p, 0, 0.7)
    return net.double().eval()


def bag(k, seed=0):
    return torch.randn(k, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BAGS = [bag(4), bag(1, 1), bag(7, 2)]
both = pytest.mark.parametrize("gated", [False, True])


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def by_hand(net: AttentionMIL, instances: Tensor, gated: bool) -> tuple[float, list[float]]:
    """One bag, one instance at a time, number by number. ilse2018attention, Eqs. (7) to (9)."""
    h = [net.extractor(x[None])[0].tolist() for x in instances]  # K vectors of L numbers
    e = []
    for hk in h:
        hidden = [math.tanh(dot(v, hk) + c) for v, c in zip(net.V.weight.tolist(), net.V.bias.tolist(), strict=True)]
        if gated:
            gates = [1 / (1 + math.exp(-dot(u, hk) - c)) for u, c in zip(net.U.weight.tolist(), net.U.bias.tolist(), strict=True)]
            hidden = [a * g for a, g in zip(hidden, gates, strict=True)]
        e.append(math.exp(dot(net.w.weight[0].tolist(), hidden)))  # the bias of w cancels
    a = [x / sum(e) for x in e]  # Eq. (8) or (9)
    z = [dot(a, column) for column in map(list, zip(*h, strict=True))]  # Eq. (7)
    return dot(net.classifier.weight[0].tolist(), z) + net.classifier.bias.item(), a


@both
def test_logits_and_attention_are_those_of_the_equations(gated):
    net = mil(gated)
    logits, attention = net.explained(*packed(BAGS))
    for i, instances in enumerate(BAGS):
        logit, a = by_hand(net, instances, gated)
        assert logits[i].item() == pytest.approx(logit, rel=1e-11)
        assert attention[i, : len(a)].tolist() == pytest.approx(a, rel=1e-11)
    assert attention[0].max() > 0.35  # some instance stands out


@pytest.mark.proves("attention", by="the equations of attention and of its gate, number by number")
@both
@pytest.mark.parametrize("instances", BAGS, ids=len)
def test_the_attention_of_a_bag_is_that_of_the_equations(gated, instances):
    net = mil(gated)
    assert attention(net, instances).tolist() == pytest.approx(by_hand(net, instances, gated)[1], rel=1e-11)


def test_the_gate_changes_the_attention():
    assert not torch.allclose(mil().explained(BAGS[0][None])[1], mil(gated=True).explained(BAGS[0][None])[1], atol=0.01)
    assert "U.weight" not in mil().state_dict() and "U.weight" in mil(gated=True).state_dict()


@both
def test_attention_sums_to_one_and_is_zero_where_nothing_is(gated):
    bags, there = packed(BAGS)
    _, a = mil(gated).explained(bags, there)
    assert a.shape == (3, 7)
    torch.testing.assert_close(a.sum(1), torch.ones(3, dtype=torch.float64))
    assert (a[~there] == 0).all() and (a[there] > 0).all()


@both
def test_the_order_of_a_bag_changes_nothing_but_the_order(gated):
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    net = mil(gated)
    (logit, a), (logit2, a2) = net.explained(BAGS[2][None]), net.explained(BAGS[2][order][None])
    torch.testing.assert_close(logit, logit2)
    torch.testing.assert_close(a[:, order], a2)


@both
def test_a_bag_alone_is_as_in_a_batch(gated):
    net = mil(gated)
    logits, attention = net.explained(*packed(BAGS))
    for i, instances in enumerate(BAGS):
        logit, a = net.explained(instances[None])
        torch.testing.assert_close(logit[0], logits[i])
        torch.testing.assert_close(a[0], attention[i, : len(instances)])
        torch.testing.assert_close(net(instances[None]), logit)


@pytest.mark.parametrize("filling", [0.0, 1e6, float("nan")])
def test_what_a_bag_is_filled_up_with_changes_nothing(filling):
    bags, there = packed(BAGS)
    filled = torch.where(there[..., None, None, None], bags, filling)
    net = mil(gated=True)
    for one, other in zip(net.explained(bags, there), net.explained(filled, there), strict=True):
        torch.testing.assert_close(one, other)
    net(filled, there).sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_filling_up_does_not_reach_batch_norm():
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(12, L), nn.BatchNorm1d(L))
    net = mil(extractor=extractor).train()
    bags, there = packed(BAGS)
    longer = torch.cat([bags, torch.full_like(bags, 50)], 1), torch.cat([there, torch.zeros_like(there)], 1)
    torch.testing.assert_close(net(bags, there), net(*longer))


def test_there_may_be_holes():
    net, there = mil(), torch.tensor([[True, False, True, True]])
    (logit, a), (expected, b) = net.explained(BAGS[0][None], there), net.explained(BAGS[0][there[0]][None])
    torch.testing.assert_close(logit, expected)
    torch.testing.assert_close(a[there], b[0])


def test_gradients_reach_every_parameter_but_the_bias_that_cancels():
    net = mil(gated=True)
    net(*packed(BAGS)).sum().backward()
    still = {name for name, p in net.named_parameters() if p.grad.abs().max() < 1e-12}
    assert still == {"w.bias"}


def test_packed_keeps_the_bags_and_fills_up_with_zeros():
    bags, there = packed(BAGS)
    assert bags.shape == (3, 7, 3, 2, 2) and there.sum(1).tolist() == [4, 1, 7]
    for i, instances in enumerate(BAGS):
        assert torch.equal(bags[i][there[i]], instances)
        assert there[i, : len(instances)].all()
    assert (bags[~there] == 0).all()


def test_nothing_to_pack_is_an_error():
    with pytest.raises(ValueError, match="no bag to pack"):
        packed([])


@pytest.mark.parametrize(
    ("bags", "there", "message"),
    [
        (BAGS[0], None, r"bags are \[B, K, C, H, W\]; these are \[4, 3, 2, 2\]"),
        (BAGS[0][None], torch.ones(1, 3, dtype=torch.bool), r"`there` is bool \[1, 4\]; this one is torch.bool \[1, 3\]"),
        (BAGS[0][None], torch.ones(1, 4), r"`there` is bool \[1, 4\]; this one is torch.float32 \[1, 4\]"),
        (bag(2)[:, None], torch.tensor([[True], [False]]), "bag 1 is empty"),
        (BAGS[0][None, :0], None, "bag 0 is empty"),
        (*packed([bag(2), bag(0), bag(1)]), "bag 1 is empty"),
    ],
)
def test_what_is_no_batch_of_bags_is_named(bags, there, message):
    with pytest.raises(ValueError, match=message):
        mil().explained(bags, there)


def test_an_extractor_of_another_width_is_named():
    with pytest.raises(ValueError, match=r"the extractor gives \[4, 12\]; expected \[N, 6\]"):
        mil(extractor=nn.Flatten()).explained(BAGS[0][None])


def test_extractors_take_the_pictures_that_they_say():
    assert digit_features()(torch.rand(3, 1, 8, 8)).shape == (3, 64)
    assert patch_features()(torch.rand(2, 3, 28, 28)).shape == (2, 500)
    assert patch_features(1)(torch.rand(2, 1, 28, 28)).shape == (2, 500)
    sizes = [tuple(p.shape) for p in patch_features(1).parameters() if p.dim() > 1]
    assert sizes == [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800)]


def test_bags_of_digits_go_through():
    net = AttentionMIL(digit_features(), 64)
    assert net(*packed([torch.rand(k, 1, 8, 8) for k in (3, 9)])).shape == (2,)


# -------------------------------------------------------------------------------------------------------------- maps


class Brightness(nn.Module):
    """One feature: the mean of channel 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0].mean((1, 2))[:, None]


def by_brightness() -> AttentionMIL:
    """Weights such that exp(w tanh(V h)) = exp(2 tanh(h)): the attention can be worked out by hand."""
    net = AttentionMIL(Brightness(), L=1, D=1).double()
    for p in net.parameters():
        nn.init.zeros_(p)
    nn.init.ones_(net.V.weight)
    nn.init.constant_(net.w.weight, 2)
    return net.eval()


def blocks(values: list[list[float]], side: int) -> Tensor:
    """A picture of one grey value for each patch; its other channels are noise that no attention may see."""
    x = torch.randn(3, len(values) * side, len(values[0]) * side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for r, row in enumerate(values):
        for c, v in enumerate(row):
            x[0, r * side : (r + 1) * side, c * side : (c + 1) * side] = v
    return x


VALUES = [[0.0, 1.0, -1.0], [2.0, 0.5, 0.0]]


@pytest.mark.proves("attention_map", by="known weights: each patch of the map has the attention worked out by hand")
@pytest.mark.parametrize("side", [1, 4])
def test_the_map_has_the_attention_of_each_patch(side):
    S = attention_map(by_brightness(), blocks(VALUES, side), side=side)
    e = [[math.exp(2 * math.tanh(v)) for v in row] for row in VALUES]
    total = sum(map(sum, e))
    assert S.shape == (2 * side, 3 * side)
    for y in range(2 * side):
        for x in range(3 * side):
            assert S[y, x].item() == pytest.approx(e[y // side][x // side] / total, rel=1e-12)
    assert S.sum().item() == pytest.approx(side * side, rel=1e-12)


@pytest.mark.parametrize(("more", "top", "left"), [((0, 1), 0, 0), ((1, 2), 0, 1), ((3, 2), 1, 1), ((2, 3), 1, 1)])
def test_the_margin_that_no_patch_covers_is_zero(more, top, left):
    inner = blocks(VALUES, 4)
    framed = torch.full((3, 8 + more[0], 12 + more[1]), 1e6, dtype=torch.float64)
    framed[:, top : top + 8, left : left + 12] = inner
    S, expected = attention_map(by_brightness(), framed, side=4), torch.zeros(framed.shape[1:], dtype=torch.float64)
    expected[top : top + 8, left : left + 12] = attention_map(by_brightness(), inner, side=4)
    assert torch.equal(S, expected)


def test_patches_come_row_by_row_and_are_the_image():
    x = bag(1)[0].repeat(1, 3, 4)[:, :6, :8] + torch.arange(48).reshape(6, 8)
    cut = patches(x, 2)
    assert cut.shape == (12, 3, 2, 2)
    for k, patch in enumerate(cut):
        r, c = divmod(k, 4)
        assert torch.equal(patch, x[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2])


def test_the_map_of_the_papers_network_takes_patches_of_28_pixels():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = AttentionMIL(patch_features(), 500, 128), torch.rand(3, 60, 90)
    S = attention_map(net, x)
    a = net.explained(patches(x, 28)[None])[1][0]
    assert S.shape == (60, 90) and not S.requires_grad and len(S.unique()) == 7  # 2 x 3 patches and the margin
    assert S[2 + 28, 3 + 56] == a[5] and S[29, 58] == a[1]


def test_the_network_comes_back_exactly_as_it_was_and_dropout_is_off():
    net = mil(extractor=nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, L)))
    net.extractor.train()
    before = snapshot(net)
    with torch.inference_mode():
        a, b = attention(net, BAGS[2]), attention(net, BAGS[2])
    assert torch.equal(a, b) and not a.is_inference() and not a.requires_grad
    with pytest.raises(ValueError):
        attention(net, BAGS[2] * float("nan"))
    assert changes(before, snapshot(net)) == []


@pytest.mark.parametrize("gated", [False, True])
def test_the_trained_network_looks_at_the_wanted_digit(gated):
    from helpers.drawn import digit_bags

    net = trained(gated)
    positive = [b for b in digit_bags(20, seed=5, split="test") if b.positive]
    assert len(positive) == 10
    hits = [int(b.digits[attention(net, b.images).argmax()]) == 9 for b in positive]
    assert sum(hits) >= 9


@pytest.mark.parametrize(("call", "error", "says"), [
    (lambda: attention(nn.Flatten(), BAGS[0]), TypeError, "only an AttentionMIL has attention, not Flatten"),
    (lambda: attention(mil(), BAGS[0] * float("nan")), ValueError, "the attention holds NaN"),
    (lambda: attention(mil(), BAGS[0][0]), ValueError, r"bags are \[B, K, C, H, W\]; these are \[1, 3, 2, 2\]"),
    (lambda: attention(mil(), BAGS[0][:0]), ValueError, "bag 0 is empty"),
    (lambda: patches(BAGS[0], 2), ValueError, r"need an image \[C, H, W\].*\[4, 3, 2, 2\]"),
    (lambda: attention_map(mil(), BAGS[0][0], side=3), ValueError, r"patches of 3 x 3 pixels.*\[3, 2, 2\]"),
    (lambda: patches(BAGS[0][0], 0), ValueError, "patches of 0 x 0 pixels"),
])  # fmt: skip
def test_what_has_no_attention_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
