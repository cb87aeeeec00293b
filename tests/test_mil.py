"""mil: the papers' equations in slow float64, and that neither company nor filling up changes a bag."""

import math

import pytest
import torch
from torch import Tensor, nn

from helpers.mil import AttentionMIL, digit_features, packed, patch_features

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
