"""speed: a quick network gives the same logits, and is as it was afterwards; what is scored once is not scored again."""

import warnings
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
import torchvision
from networks import Deep, Tiny, changes, classifier, image, made, snapshot
from torch import nn

from helpers import core, metrics, models
from helpers.backprop import integrated_gradients
from helpers.core import frozen, logit
from helpers.evaluation import counted
from helpers.masks import MANY, FeatureMasks, described, masked_logits, shared
from helpers.sampling import occlusion, rise
from helpers.score_cam import score_cam, score_cam_pp
from helpers.speed import best_batch, foldable, quick

MASKS = torch.rand(MANY + 6, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def awake(net: nn.Module) -> nn.Module:
    """The same network, with batch norms that do something: statistics, weights and biases from a fixed seed."""
    generator = torch.Generator().manual_seed(3)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
            if tensor.is_floating_point():
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if "bias" not in name else -0.5))
    return net.eval()


def deep(dtype=torch.float64):
    return classifier(made(Deep, dtype=dtype), "features")


def loop(net, x, masks):
    with torch.no_grad():
        return torch.cat([net((x * m)[None]) for m in masks])


# ---------------------------------------------------------------------------------------------------------- folding


class Branching(nn.Module):
    """Every way in which a batch norm cannot be folded, and one pair that can: `plain`."""

    def __init__(self):
        super().__init__()
        self.plain, self.plain_norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.twice, self.twice_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)  # its output goes on elsewhere, too
        self.again, self.again_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)  # called twice
        self.looked_at, self.looked_at_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # the code uses its weight by itself
        self.free_norm = nn.BatchNorm2d(4)  # follows no convolution
        self.batch, self.batch_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.plain_norm(self.plain(x)).relu()
        y = self.twice(x)
        x = (self.twice_norm(y) + y).relu()
        for _ in range(2):
            x = self.again_norm(self.again(x)).relu()
        x = self.looked_at_norm(self.looked_at(x)) + self.looked_at.weight.mean()
        x = self.batch_norm(self.batch(self.free_norm(x)))
        return self.head(x.mean((2, 3)))


class Shifty(Tiny):
    """What it does depends on the image: it cannot be traced."""

    def forward(self, x):
        return super().forward(x) if x.mean() > 0 else super().forward(-x)


NETS = {
    "small": lambda: made(Tiny),
    "without batch norm": lambda: made(Deep),
    "untraceable": lambda: made(Shifty),
    "branching": lambda: Branching().double(),
    "ResNet-18": lambda: torchvision.models.resnet18(weights=None).double(),
    "two at once": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(3)).double(),
}


FOLDED = {"small", "branching", "ResNet-18", "two at once"}


@pytest.mark.parametrize("name", NETS)
def test_a_quick_network_gives_the_same_logits_and_comes_back(name):
    x = image(1, (32, 32) if name == "ResNet-18" else (16, 16))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = NETS[name]()
        net(x[None].expand(2, -1, -1, -1))  # a lazy layer takes its size
    net = awake(net)
    images = torch.stack([x, 0.5 * x, x.flip(2)])
    with torch.no_grad():
        expected = net(images)
    before = snapshot(net)
    with frozen(net), quick(net, like=x) as logits_of:
        assert any(isinstance(m, nn.Identity) for m in net.modules()) == (name in FOLDED)
        found = logits_of(images)
    assert changes(before, snapshot(net)) == []
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(KeyError), frozen(net), quick(net, like=x):
        raise KeyError("in the middle")
    assert changes(before, snapshot(net)) == []


def test_only_what_can_be_folded_is_folded():
    net = Branching().eval()
    assert foldable(net) == [(net.plain, net.plain_norm)]
    assert len(foldable(torchvision.models.resnet18(weights=None).eval())) == 20
    assert foldable(made(Shifty)) == [] and len(foldable(made(Tiny).eval())) == 1


def test_a_batch_norm_in_training_or_with_a_hook_is_left_alone():
    net = made(Tiny).eval()
    hook = net.norm.register_forward_hook(lambda *_: None)
    assert foldable(net) == []
    hook.remove()
    assert len(foldable(net)) == 1
    net.norm.train()
    assert foldable(net) == []


class Sly(Tiny):
    """Tracing cannot see what it does: the stand-in for a tensor is none."""

    def forward(self, x):
        x = self.norm(self.stem(x))
        y = x if isinstance(x, torch.Tensor) else 0 * x
        return self.head(self.relu(y).mean((2, 3))) + (0 if isinstance(x, torch.Tensor) else 5)


class Doubled(Tiny):
    """The batch norm of the trace is not what runs: it is applied twice where there is a real tensor."""

    def forward(self, x):
        x = self.stem(x)
        x = self.norm(self.norm(x)) if isinstance(x, torch.Tensor) else self.norm(x)
        return self.head(self.relu(x).mean((2, 3)))


@pytest.mark.parametrize("kind", [Sly, Doubled])
def test_what_tracing_cannot_see_does_no_harm(kind):
    net = awake(made(kind))
    before = snapshot(net)
    torch.testing.assert_close(masked_logits(net, image(), MASKS), loop(net, image(), MASKS), rtol=1e-9, atol=1e-10)
    assert len(foldable(net)) == 1 and changes(before, snapshot(net)) == []


def test_a_layer_with_a_forward_of_its_own_is_left_alone():
    net = awake(made(Tiny))
    net.stem.forward = lambda x: nn.Conv2d.forward(net.stem, x).tanh()
    assert foldable(net) == []


def test_a_network_that_counts_its_calls_does_not_count_the_tracing():
    class Counting(Tiny):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    net = made(Counting).eval()
    calls = net.calls
    assert len(foldable(net)) == 1 and net.calls == calls


@pytest.mark.parametrize("name", ["small", "branching"])
@pytest.mark.parametrize("n", [1, MANY - 1, MANY, MANY + 6])
def test_few_and_many_masks_give_the_logits_of_a_plain_loop(name, n):
    net = awake(NETS[name]())
    torch.testing.assert_close(masked_logits(net, image(), MASKS[:n]), loop(net, image(), MASKS[:n]), rtol=1e-9, atol=1e-10)


def test_integrated_gradients_of_a_folded_network_are_those_of_the_plain_one(monkeypatch):
    net = awake(made(Tiny))
    folded = integrated_gradients(net, image(), 1, steps=8)
    monkeypatch.setattr("helpers.speed.foldable", lambda module: [])
    torch.testing.assert_close(integrated_gradients(net, image(), 1, steps=8), folded, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------------------- batches and memory


@pytest.mark.parametrize(
    "method", [score_cam, score_cam_pp, partial(rise, samples=MANY + 1), partial(occlusion, window=4, stride=2)]
)
def test_the_map_does_not_depend_on_the_batch(method):
    net, x = deep(torch.float32), image().float()
    maps = [method(net, x, 1, batch_size=size) for size in (1, 7, 8, 64)]
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0], rtol=1e-5, atol=1e-6)


def test_a_network_that_puts_out_a_piece_of_its_input_is_heard():
    class Corner(nn.Module):
        def forward(self, x):
            return x[:, :, 0, 0]

    torch.testing.assert_close(masked_logits(Corner(), image(), MASKS[:20], batch_size=4), loop(Corner(), image(), MASKS[:20]))


@pytest.mark.parametrize("shape", [(5, 1, 16, 16), (5, 16, 15), (5, 1, 1)])
def test_masks_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"masks are \[5, .*; expected \[N, 16, 16\]"):
        masked_logits(made(Deep), image(), torch.ones(shape))


def test_a_network_must_give_a_row_of_logits_an_image():
    class Mean(Deep):
        def forward(self, x):
            return super().forward(x).mean(0, keepdim=True)

    with pytest.raises(ValueError, match="gives 1 rows of logits for 4 images"):
        masked_logits(made(Mean), image(), MASKS[:4])


class Cramped(Deep):
    """Says that memory is out for more than `room` images at once."""

    room = 3
    sizes: list[int]

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def test_the_batch_is_halved_when_memory_runs_out():
    net = made(Cramped)
    net.sizes = []
    found = masked_logits(net, image(), MASKS[:20], batch_size=16)
    assert net.sizes == [16, 8, 4] + [2] * 10
    torch.testing.assert_close(found, loop(net, image(), MASKS[:20]))


def test_no_room_for_one_image_and_other_errors_are_passed_on():
    net = made(Cramped)
    net.sizes, net.room = [], 0
    with pytest.raises(torch.OutOfMemoryError):
        masked_logits(net, image(), MASKS[:3], batch_size=2)
    assert net.sizes == [2, 1]

    class Broken(Deep):
        def forward(self, x):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        masked_logits(made(Broken), image(), MASKS[:3])


def test_the_best_batch_is_one_that_was_tried_and_fits():
    net = made(Cramped)
    net.sizes = []
    assert best_batch(net, image(), sizes=(4, 1, 2, 8), rounds=1) in (1, 2)
    assert net.sizes == [1, 1, 2, 2, 4]
    net.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        best_batch(net, image(), sizes=(1, 2))


# -------------------------------------------------------------------------------------------------------- precision


def test_half_precision_is_for_many_copies_and_the_last_digits_only():
    net, x = deep(torch.float32), image().float()
    masks = MASKS.float()
    half = replace(net, precision="bfloat16")
    exact, rough = masked_logits(net, x, masks), masked_logits(half, x, masks)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.02)
    assert torch.equal(masked_logits(half, x, masks[: MANY - 1]), masked_logits(net, x, masks[: MANY - 1]))


def test_an_order_that_half_precision_changes_is_warned_of():
    class Faint(Deep):  # differences between copies in the fourth digit
        def forward(self, x):
            return 100 + 0.01 * super().forward(x)

    net = replace(classifier(made(Faint).float(), "features"), precision="bfloat16")
    with pytest.warns(UserWarning, match=r"bfloat16 changes the order .*rank correlation .* of 32 logits"):
        masked_logits(net, image().float(), MASKS.float())


def test_an_unknown_precision_lists_what_there_is():
    with pytest.raises(ValueError, match="'half'; expected one of float32, bfloat16, float16"):
        models.load("slim_vgg16_scenes", precision="half")
    net = replace(deep(), precision="half")
    with pytest.raises(ValueError, match="'half'; expected one of float32, bfloat16, float16"):
        masked_logits(net, image(), MASKS)
    assert models.load("slim_vgg16_scenes", precision="bfloat16").precision == "bfloat16"


def test_the_precision_of_a_readers_own_module_is_not_ours():
    net = made(Deep)
    net.precision = 16  # bits of its weights, say
    torch.testing.assert_close(masked_logits(net, image(), MASKS), loop(net, image(), MASKS))


class Loud(Deep):
    """Logits that float16 cannot hold."""

    def forward(self, x):
        return 1e4 * (super().forward(x) + 100)


def test_what_overflows_in_half_precision_only_names_the_copy_and_the_precision():
    net = replace(classifier(made(Loud).float(), "features"), precision="float16")
    x = image().float()
    assert rise(replace(net, precision="float32"), x, 1, samples=MANY, score=logit).isfinite().all()
    with pytest.raises(ValueError, match=r"masked copy 0 of 64 .* in float16: precision="):
        rise(net, x, 1, samples=MANY, score=logit)


def test_a_class_that_is_none_is_named_even_when_every_score_is_known():
    net, x = made(Deep), image()
    with shared():
        rise(net, x, 1, samples=8)
        with pytest.raises(ValueError, match="999"):
            rise(net, x, 999, samples=8)


# ---------------------------------------------------------------------------------------------------------- sharing


@pytest.mark.parametrize("method", [score_cam, score_cam_pp, partial(rise, samples=40), partial(occlusion, window=4, stride=2)])
def test_five_classes_take_the_masked_copies_of_one(method):
    net, x = deep(), image()
    apart = [method(net, x, k) for k in (0, 1, 2, 3)]
    with counted(net) as one:
        method(net, x, 0)
    with counted(net) as cost, shared():
        together = [method(net, x, k) for k in (0, 1, 2, 3)]
    for a, b in zip(apart, together, strict=True):
        torch.testing.assert_close(a, b)
    assert cost.forwards <= one.forwards + 3 * 2  # each further class: its features or its score of the whole image, no copies


def test_metrics_of_one_map_share_their_masked_copies():
    net, x, saliency = made(Deep), image(), image(3)[0]
    asked = [
        metrics.average_drop,
        metrics.increase_in_confidence,
        partial(metrics.average_drop, score=logit),
        metrics.drop_in_logit,
    ]
    apart = [f(net, x, 1, saliency) for f in asked]
    with counted(net) as cost, shared():
        together = [f(net, x, 1, saliency) for f in asked]
    assert together == pytest.approx(apart, rel=1e-10) and cost.forwards == 3  # the image, seen through the map, and without it


def test_what_differs_is_not_shared():
    net, other, x = made(Deep), made(Deep, seed=5), image()
    with counted(net) as cost, shared():
        first = masked_logits(net, x, MASKS[:4])
        assert not torch.equal(masked_logits(other, x, MASKS[:4]), first)
        assert not torch.equal(masked_logits(net, x + 1, MASKS[:4]), first)
        assert not torch.equal(masked_logits(net, x, MASKS[:4], fill=1.0), first)
        assert not torch.equal(masked_logits(net, x, MASKS[:4] * 0.5), first)
        with torch.no_grad():
            net.rest[0].weight.mul_(2)
        assert not torch.equal(masked_logits(net, x, MASKS[:4]), first)
        net.rest[5] = nn.Linear(9, 4).double()
        second = masked_logits(net, x, MASKS[:4])
        net.rest[5] = nn.Linear(9, 4).double()
        assert not torch.equal(masked_logits(net, x, MASKS[:4]), second)
    assert cost.forwards == 4 * 7
    with counted(net) as cost:
        masked_logits(net, x, MASKS[:4])
        masked_logits(net, x, MASKS[:4])
    assert cost.forwards == 8, "outside nothing is kept"


def test_statistics_that_change_are_not_shared():
    net = awake(made(Tiny))
    with shared():
        first = masked_logits(net, image(), MASKS[:4])
        net.norm.running_mean.add_(1)
        assert not torch.equal(masked_logits(net, image(), MASKS[:4]), first)


def test_equal_masks_are_scored_once_where_forwards_are_shared():
    net = made(Deep)
    with counted(net) as cost, shared():
        found = masked_logits(net, image(), MASKS[[0, 1, 0, 0, 1]])
    assert cost.forwards == 2
    torch.testing.assert_close(found, masked_logits(net, image(), MASKS[[0, 1, 0, 0, 1]]))


def test_feature_maps_that_make_equal_masks_are_scored_once_where_forwards_are_shared():
    net, A = made(Deep), torch.zeros(5, 4, 4, dtype=torch.float64)
    A[0, 1, 2], A[1, 1, 2], A[2], A[3], A[4] = 3, 0.7, image(1, (4, 4))[0], image(2, (4, 4))[0], image(1, (4, 4))[0]
    masks = [FeatureMasks(A, (16, 16), gate) for gate in (core.to_unit, torch.tanh)]
    apart = [masked_logits(net, image(), m) for m in masks]
    for one, forwards, alone in zip(masks, (3, 4), apart, strict=True):  # tanh tells 3 from 0.7
        with counted(net) as cost, shared():
            torch.testing.assert_close(masked_logits(net, image(), one), alone)
            masked_logits(net, image(), replace(one, features=A[1:3]))  # some of them, as SISE takes for another class
        assert cost.forwards == forwards


def test_masks_that_cannot_be_looked_up_are_scored_each_time():
    class Mutable:
        factor = 1.0

        def __len__(self):
            return 3

        def __getitem__(self, chunk):
            return self.factor * MASKS[:3][chunk]

    @dataclass(frozen=True)
    class Listed(Mutable):
        some: list

    net = made(Deep)
    for masks in (Mutable(), Listed([1])):
        with counted(net) as cost, shared():
            first = masked_logits(net, image(), masks)
            Mutable.factor = 0.5
            assert not torch.equal(masked_logits(net, image(), masks), first)
            Mutable.factor = 1.0
        assert cost.forwards == 6
    with shared():
        masked_logits(net.bfloat16(), image().bfloat16(), MASKS[:2].bfloat16())


def test_sharing_ends_after_an_error_and_can_be_nested():
    net = made(Deep)
    with pytest.raises(KeyError), shared():
        raise KeyError
    with counted(net) as cost, shared():
        masked_logits(net, image(), MASKS[:2])
        with shared():
            masked_logits(net, image(), MASKS[:2])
        masked_logits(net, image(), MASKS[:2])
    assert cost.forwards == 4


def test_descriptions_are_equal_for_equal_values_only():
    assert (
        described(torch.ones(2)) == described(torch.ones(2)) != described(torch.ones(2, 1)) != described(torch.ones(2).double())
    )


def test_warnings_are_not_given_where_half_precision_holds():
    net = replace(deep(torch.float32), precision="bfloat16")
    masks = torch.linspace(0, 1, MANY)[:, None, None].expand(-1, 16, 16)  # copies that differ a lot
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masked_logits(net, 5 * image().float(), masks)
