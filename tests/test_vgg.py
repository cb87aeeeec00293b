"""vgg: torchvision's own VGG16 as the oracle, and batch norm that is gone without a trace."""

import pytest
import torch
import torchvision
from networks import changes, snapshot
from torch import nn

from helpers import models
from helpers.cam import cam
from helpers.vgg import VGG16, folded, fresh


def slim(width=1 / 8, batch_norm=True, classes=5, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fresh(VGG16(classes, width, batch_norm), torch.Generator().manual_seed(seed)).double()


def trained(width=1 / 8, steps=4):
    """After some steps, so that the statistics, scales and shifts of batch norm are no longer those of its start."""
    net = slim(width).train()
    g = torch.Generator().manual_seed(1)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, -1.5, 1.5, generator=g)
            nn.init.normal_(m.bias, generator=g)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(steps):
        x = 2 * torch.randn(6, 3, 32, 32, generator=g, dtype=torch.float64) + 1
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), torch.arange(6) % 5).backward()
        optimizer.step()
    return net


def pictures(n=3, side=48):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_at_full_width_the_trunk_is_torchvisions(batch_norm):
    with torch.device("meta"):
        ours = VGG16(7, batch_norm=batch_norm).features
        theirs = (torchvision.models.vgg16_bn if batch_norm else torchvision.models.vgg16)().features
    kinds = [[type(m) for m in trunk] for trunk in (ours, theirs)]
    assert kinds[0] == kinds[1]
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


def test_torchvisions_weights_load_and_give_torchvisions_features():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = torchvision.models.vgg16(weights=None).features.eval()
        ours = VGG16(3).eval()
    ours.features.load_state_dict(theirs.state_dict(), strict=True)
    x = pictures(1, 32).float()
    with torch.no_grad():
        A = theirs(x)  # [1, 512, 1, 1]
        torch.testing.assert_close(ours(x), ours.classifier(A.mean((2, 3))))


@pytest.mark.parametrize(
    ("width", "channels"), [(1 / 8, (8, 16, 32, 64, 64)), (1 / 16, (4, 8, 16, 32, 32)), (1 / 3, (21, 43, 85, 171, 171))]
)
def test_slim_networks_have_the_same_layers_and_fewer_channels(width, channels):
    net = VGG16(4, width)
    convolutions = {i: m.out_channels for i, m in enumerate(net.features) if isinstance(m, nn.Conv2d)}
    c1, c2, c3, c4, c5 = channels
    assert list(convolutions) == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert list(convolutions.values()) == [c1] * 2 + [c2] * 2 + [c3] * 3 + [c4] * 3 + [c5] * 3
    assert [i for i, m in enumerate(net.features) if isinstance(m, nn.MaxPool2d)] == [4, 9, 16, 23, 30]
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 4) and net(torch.rand(1, 3, 64, 37)).shape == (1, 4)


def test_a_width_of_nearly_nothing_keeps_one_channel():
    assert {m.out_channels for m in VGG16(2, 1e-6).features if isinstance(m, nn.Conv2d)} == {1}


@pytest.mark.parametrize(("width", "classes"), [(0, 3), (-1, 3), (float("nan"), 3), (float("inf"), 3), (1, 0)])
def test_no_width_or_class_is_an_error(width, classes):
    with pytest.raises(ValueError, match=f"not width {width} and {classes} classes"):
        VGG16(classes, width)


@pytest.mark.parametrize("width", [1 / 8, 1 / 12])  # the second is no fraction of which the first layer's channels tell
def test_folding_changes_nothing_but_batch_norm(width):
    net = trained(width)
    before = snapshot(net)
    out = folded(net)
    assert changes(before, snapshot(net)) == []  # also its mode, which is still training
    assert not any(m.training for m in out.modules()) and not any(isinstance(m, nn.BatchNorm2d) for m in out.modules())
    assert [name for name, _ in out.named_modules()] == [name for name, _ in VGG16(5, width).named_modules()]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 13 and all((m.running_var - 1).abs().max() > 0.1 for m in norms)
    with torch.no_grad():
        expected, logits = net.eval()(pictures()), out(pictures())
        assert expected.std(0).min() > 1e-6  # the pictures differ
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
        norms[0].running_mean += 1
        assert not torch.allclose(net(pictures()), logits, atol=1e-3)


def test_every_layer_of_the_folded_network_gives_what_the_trained_one_does():
    net = trained().eval()
    out = folded(net)
    ends = (
        [m for m in net.features if isinstance(m, nn.ReLU | nn.MaxPool2d)],
        [m for m in out.features if isinstance(m, nn.ReLU | nn.MaxPool2d)],
    )
    seen = [[], []]
    for layers, values in zip(ends, seen, strict=True):
        for m in layers:
            m.register_forward_hook(lambda _m, _i, y, values=values: values.append(y.clone()))
    with torch.no_grad():
        net(pictures()), out(pictures())
    assert len(seen[0]) == 18
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_folding_a_network_without_batch_norm_gives_a_copy():
    net = slim(batch_norm=False)
    out = folded(net)
    assert changes(net.state_dict(), out.state_dict()) == []
    out.classifier.bias.data += 1
    assert not torch.equal(net.classifier.bias, out.classifier.bias)


def test_fresh_weights_keep_the_size_of_what_goes_through_and_follow_the_generator():
    a, b, c = slim(batch_norm=False), slim(batch_norm=False), slim(batch_norm=False, seed=1)
    assert changes(a.state_dict(), b.state_dict()) == [] and not torch.equal(a.classifier.weight, c.classifier.weight)
    wide = fresh(VGG16(3, 1 / 4), torch.Generator().manual_seed(0))
    for m in wide.features:
        if isinstance(m, nn.Conv2d):
            assert (m.weight.std() / (2 / (9 * m.out_channels)) ** 0.5).item() == pytest.approx(1, abs=0.1)
            assert (m.bias == 0).all()
    assert wide.classifier.weight.std().item() == pytest.approx(0.01, rel=0.2)


def test_cam_on_the_last_pool_adds_up_to_the_logit():
    module = folded(trained())
    net = models.from_module(module, cam_layer="features.30", side=64, verbose=False)
    x = pictures(1, 64)[0]
    with torch.no_grad():
        logits = module(x[None])[0]
    for k in range(5):
        saliency = cam(net, x, k)
        assert saliency.shape == (64, 64)
        # 2 x 2 enlarged to 64 x 64 without aligned corners has the same mean
        assert saliency.mean().item() + module.classifier.bias[k].item() == pytest.approx(logits[k].item(), abs=1e-9)
