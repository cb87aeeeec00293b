"""How much memory the methods with many masked copies take: none holds all its masks at full size, however many they are.

Counted are the bytes of all tensors that are alive after an operation, less those that were there before; the largest
count is the peak. That is exact, the same on every machine, and blind to what one operation allocates and frees inside
itself, in a method and in a plain forward pass alike. (The resident memory of the process would show the allocator's habits,
the profiler's counter the libraries' workspaces.) Of the gradient methods only integrated gradients, which takes many images,
is here, with a limit of its own: a backward pass keeps every layer's output. The others take one image with gradients at a
time; extremal perturbation makes masks, too, but one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from networks import classifier
from torch import Tensor, nn

from helpers.backprop import integrated_gradients
from helpers.core import features_of
from helpers.evaluation import counted
from helpers.layers import layer_selection, score_cam_difference
from helpers.masks import FeatureMasks, weighted_sum
from helpers.metrics import deletion, insertion
from helpers.sampling import occlusion, rise
from helpers.score_cam import score_cam, score_cam_pp
from helpers.sise import sise
from helpers.speed import foldable, folded, peak

SIDE, BATCH = 224, 8
MASK = SIDE * SIDE * 4  # bytes of one full-size mask in single precision


def plain(net: Any, batch: int = BATCH) -> int:
    """The peak of a forward pass of a batch of images, the batch itself included."""
    with torch.inference_mode():
        return peak(lambda: net(torch.randn(batch, 3, SIDE, SIDE)))


def picture() -> Tensor:
    return torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


# -------------------------------------------------------------------------------------------------- what is counted


def test_the_peak_of_known_work_is_known():
    def work():
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1  # 8,000
        a.add_(b)  # in place: still 8,000
        b.view(10, 100).T.sum()  # a number: 8,004
        del a
        return torch.cat([b, b])  # without a: 12,000

    assert peak(work) == 12_000
    with torch.inference_mode():
        assert peak(work) == 12_000


def test_what_was_there_before_does_not_count_and_lists_do():
    before = torch.zeros(1000)
    assert peak(lambda: before.add_(1)) == 0
    assert peak(lambda: [before + k for k in range(5)]) == 20_000


# ------------------------------------------------------------------------- any method, on a network of many channels


class Wide(nn.Module):
    """Many channels on a small map, one cheap layer: a forward pass takes little, so every full-size map more would show."""

    def __init__(self, channels: int = 256):
        super().__init__()
        self.last = nn.Sequential(nn.Conv2d(3, channels, 3, stride=16, padding=1), nn.ReLU())
        self.head = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(x).mean((2, 3)))


def wide(channels: int = 256) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return classifier(Wide(channels).eval(), side=SIDE)


def within(method: Callable[..., Any], net: Any, *given: Any, spare: int = 3 * BATCH * MASK, batch: int = BATCH) -> None:
    """Fail unless `method(net, image, 0, *given)` peaks below 1.2 plain forward passes and `spare` bytes: three masks a copy."""
    most, allowed = peak(lambda: method(net, picture(), 0, *given)), 1.2 * plain(net, batch) + spare
    assert most <= allowed, f"{most / 1e6:.1f} MB, more than {allowed / 1e6:.1f} MB: {most / MASK:.0f} masks' worth"


METHODS: dict[str, Callable[..., Any]] = {
    "score_cam": score_cam,
    "score_cam, a picture behind": partial(score_cam, fill=torch.randn(3, SIDE, SIDE)),
    "score_cam_pp": score_cam_pp,
    "score_cam_pp, mask only": partial(score_cam_pp, gate_sum=False),
    "score_cam_difference": score_cam_difference,
    "sise": partial(sise, layers=["last"]),
    "rise": partial(rise, samples=256),
    "occlusion": occlusion,
    "insertion": lambda net, image, target: insertion(net, image, target, image[0], steps=255),
    "deletion": lambda net, image, target: deletion(net, image, target, image[0], steps=255),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_holds_a_few_masks_at_once(name):
    net = wide()
    with counted(net) as cost:
        within(METHODS[name], net)
    assert cost.forwards > 100, "so many masks would be noticed"


def test_layer_selection_holds_one_map_a_layer_and_a_few_masks():
    names = ["last", "last.0"] * 20
    within(partial(layer_selection, layers=names), wide(32), spare=(len(names) + 3 * BATCH) * MASK)


def test_integrated_gradients_hold_one_batch_and_its_gradients_however_many_steps_there_are():
    net = wide()
    few, many = (peak(lambda n=n: integrated_gradients(net, picture(), 0, steps=n)) for n in (BATCH, 100))
    assert many <= few + 9 * MASK  # the sum so far: a few pictures [3, H, W]
    within(partial(integrated_gradients, steps=100), net, spare=plain(net) + 3 * BATCH * MASK)  # 300 planes would be noticed


@pytest.mark.parametrize("method", [score_cam, score_cam_pp])
def test_four_times_the_channels_take_no_more_masks(method):
    small, large = (peak(lambda n=n: method(wide(n), picture(), 0)) for n in (64, 256))
    assert large - small <= plain(wide(256)) - plain(wide(64)) + MASK  # the features themselves, and a mask to spare


def test_a_layers_worth_of_masks_is_noticed():
    def wasteful(net, image, target):
        return FeatureMasks(features_of(net, image, "last"), (SIDE, SIDE), torch.tanh)[0:256].sum(0)

    with pytest.raises(AssertionError, match=r"more than .* masks' worth"):
        within(wasteful, wide())


# ---------------------------------------------------------------------------------------------------------- ResNet-50


class FewForwards(nn.Module):
    """A network that really runs for a few batches, and then repeats itself: the masks of the others are made all the same."""

    def __init__(self, module: nn.Module, real: int):
        super().__init__()
        self.module, self.real, self.copies = module, real, 0

    def forward(self, x: Tensor) -> Tensor:
        self.copies += len(x)
        if self.real > 0:
            self.real -= 1
            self.logits = self.module(x)[:1]
        return self.logits.expand(len(x), -1)


@pytest.fixture(scope="module")
def resnet50():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.resnet50(weights=None).eval()
    nn.init.constant_(net.layer4[-1].bn3.bias, 1e4)  # no feature map is 0 everywhere: none is skipped
    return net


@pytest.fixture(scope="module")
def once(resnet50):
    return plain(resnet50)


@pytest.mark.slow
@pytest.mark.parametrize("method", [score_cam, score_cam_pp])
def test_2048_maps_of_resnet50_stay_within_a_fifth_more_than_a_plain_forward(method, resnet50, once):
    net = FewForwards(resnet50, real=3)  # the features, two batches of masked copies
    most = peak(lambda: method(net, picture(), 0, layer="module.layer4", batch_size=BATCH))
    assert (net.copies, net.real) == (1 + 2048, 0), "every feature map makes a mask"
    assert most <= 1.2 * once, f"{most / once:.2f} plain forward passes"


def test_folding_takes_one_copy_of_the_convolutions_weights_and_no_more(resnet50):
    weights = sum(m.weight.numel() * 4 for m in resnet50.modules() if isinstance(m, nn.Conv2d))
    most = peak(lambda: folded(resnet50))
    assert len(foldable(resnet50)) == 53 and weights <= most <= 1.1 * weights + MASK, f"{most / weights:.2f} copies"


def test_adding_up_2048_maps_stays_within_a_plain_forward(once):
    masks = FeatureMasks(torch.rand(2048, 7, 7), (SIDE, SIDE), torch.tanh)
    assert peak(lambda: weighted_sum(torch.rand(2048), masks)) <= 1.2 * once
