"""Which layers of a network mean what: written down for the architectures of the papers, found for any other CNN.

`vgg_layers(…)` and its like give the lists of a known architecture; `watch` and `choose_layers` find them from one forward
pass, from what each module puts out and from the way back through the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from helpers.core import frozen

HALVING = (nn.MaxPool2d, nn.AvgPool2d)
HEADS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)  # they pool for the classifier
PASSIVE = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in evaluation mode they hand on what they get
WEIGHTED = (nn.Conv2d, nn.Linear)


class Layers(NamedTuple):
    """Which layers mean what, each list in forward order; `Classifier` says what the four are for."""

    cam: str
    blocks: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    selectable: tuple[str, ...] = ()


def vgg_layers(pools: Sequence[int], trunk: str = "features") -> Layers:
    """Layers of any VGG whose `trunk` is conv, ReLU, conv, ReLU … with max pools at these indices, as in torchvision."""
    steps = [i for before, pool in pairwise((-1, *pools)) for i in (*range(before + 2, pool, 2), pool)]  # ReLUs and the pool
    blocks, pooled = ([f"{trunk}.{pool - back}" for pool in pools] for back in (1, 0))
    return Layers(blocks[-1], tuple(blocks), (blocks[0], *pooled), tuple(f"{trunk}.{i}" for i in steps))


def resnet_layers(repeats: Sequence[int]) -> Layers:
    """Layers of a ResNet with so many residual blocks in its stages. The stem's pool makes no level: layer1 has its size."""
    stages = [f"layer{i}" for i in range(1, len(repeats) + 1)]
    steps = (f"{stage}.{i}" for stage, n in zip(stages, repeats, strict=True) for i in range(n))
    return Layers(stages[-1], ("relu", *stages), ("relu", *stages), ("relu", "maxpool", *steps))


def lite_layers(ends: Sequence[int], repeats: int) -> Layers:
    """Layers of an EfficientNet-Lite with so many blocks, where `ends` come before each halving of the resolution."""
    blocks = (*(f"blocks.{i}" for i in ends), "head_relu")
    return Layers("head_relu", blocks, blocks, ("stem_relu", *(f"blocks.{i}" for i in range(repeats)), "head_relu"))


def squeezenet_layers(pools: Sequence[int]) -> Layers:
    """Layers of a SqueezeNet with pools at these indices. No level for the last map: the last pool has its size already."""
    before, pooled = ([f"features.{pool - back}" for pool in pools] for back in (1, 0))
    return Layers("features", (*before, "features"), (before[0], *pooled), tuple(f"features.{i}" for i in range(1, 13)))


def vit_layers(depth: int, trunk: str = "") -> Layers:
    """Layers of torchvision's vision transformer: every encoder layer, and the last one's first norm. One resolution only."""
    encoder = tuple(f"{trunk}encoder.layers.encoder_layer_{i}" for i in range(depth))
    return Layers(f"{encoder[-1]}.ln_1", selectable=encoder)


class Output(NamedTuple):
    """What one module put out: shape `[C, h, w]`; whole: nothing reaches the logits but through here."""

    name: str
    shape: torch.Size
    module: nn.Module
    whole: bool


def watch(module: nn.Module, side: int) -> tuple[list[Output], Tensor, dict[str, int]]:
    """Outputs with positions up to the classifier, in order; the logits `[1, K]`; how many tokens layers of tokens put out.

    Of a module that is called several times the last call counts, as in `core.capture`.
    """
    calls: list[tuple[str, nn.Module, torch.Size, Any]] = []
    classifier = 0

    def note(name: str, m: nn.Module, output: Any) -> None:
        nonlocal classifier
        if isinstance(m, WEIGHTED):
            classifier = len(calls)  # what comes from here on is the classifier's doing
        known = isinstance(output, Tensor)
        calls.append((name, m, output.shape if known else torch.Size(), output.grad_fn if known else None))

    hooks = [m.register_forward_hook(lambda m, _i, o, name=n: note(name, m, o)) for n, m in module.named_modules() if n]
    try:
        with frozen(module), torch.inference_mode(False), torch.enable_grad():
            logits = module(blank(module, side).requires_grad_().clone())  # a clone: the network may write into it
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"the network fails on an image [1, 3, {side}, {side}]: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the network gives {given}; expected logits [N, K]")
    last_call = {name: i for i, (name, *_) in enumerate(calls)}
    share = flow(logits)
    trail = [
        Output(name, torch.Size(shape[1:]), m, share.get(node) == 1)
        for i, (name, m, shape, node) in enumerate(calls[:classifier])
        if len(shape) == 4 and min(shape[-2:]) > 1 and last_call[name] == i
    ]
    if not trail:
        raise ValueError(
            f"no layer of {type(module).__name__} has positions [N, C, h, w] before its classifier: a CAM needs one; "
            "for a vision transformer pass cam_layer=… to models.Classifier"
        )
    return trail, logits.detach(), {name: shape[1] for name, _, shape, _ in calls if len(shape) == 3}


def flow(logits: Tensor) -> dict[Any, Fraction]:
    """Which part of the way back from the logits to the image leads through each node of the graph; 1: no way around it.

    Latest first, each node hands on its part, in equal shares, to the nodes that it was computed from.
    """
    share = {logits.grad_fn: Fraction(1)}
    todo = [node for node in share if node is not None]
    while todo:
        node = max(todo, key=lambda node: node._sequence_nr())
        todo.remove(node)
        sources = [source for source, _ in node.next_functions if source is not None]
        for source in sources:
            if source not in share:
                todo.append(source)
            share[source] = share.get(source, Fraction(0)) + share[node] / len(sources)
    return share


def blank(module: nn.Module, side: int) -> Tensor:
    """A batch of one blank image `[1, 3, side, side]` of the module's type and device."""
    weight = next(module.parameters(), torch.zeros(()))
    return torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype)


def token_layers(module: nn.Module, tokens: dict[str, int]) -> Layers | None:
    """Layers of torchvision's vision transformer in `module`; None without one, or if its tokens are not 1 + g * g."""
    for name, m in module.named_modules():
        if isinstance(m, torchvision.models.VisionTransformer):
            layers = vit_layers(len(m.encoder.layers), f"{name}." if name else "")
            if all(tokens.get(layer) == 1 + (m.image_size // m.patch_size) ** 2 for layer in (layers.cam, *layers.selectable)):
                return layers
    return None


def choose_layers(trail: list[Output]) -> Layers:
    """Layers of a CNN from its outputs: `block_ends`, of which the last is the cam layer, `steps` to select from, and levels.

    Where each change of resolution between steps is a pool, the levels are the map before the first pool and the pools'
    outputs, as szandala2021gradual has them in VGG16; elsewhere they are the block ends.
    """
    blocks, selectable = block_ends(trail), steps(trail)
    changes = [(before, after) for before, after in pairwise(selectable) if before.shape[-2:] != after.shape[-2:]]
    levels = blocks
    if changes and all(isinstance(after.module, HALVING) for _, after in changes):
        levels = (changes[0][0].name, *(after.name for _, after in changes))
    return Layers(blocks[-1], blocks, levels, tuple(step.name for step in selectable))


def block_ends(trail: list[Output]) -> tuple[str, ...]:
    """The last output at each resolution that is no pool or dropout. Errors: ValueError where there is no convolution.

    An output inside a block that itself ends at another resolution is passed over where there is a choice.
    """
    ends: dict[torch.Size, str] = {}
    inner: dict[torch.Size, str] = {}
    convolved: set[torch.Size] = set()
    blocks = {name: shape[-2:] for name, shape, m, _ in trail if not isinstance(m, nn.Sequential)}
    for name, shape, m, whole in trail:
        if isinstance(m, nn.Conv2d):
            convolved.add(shape[-2:])
        ends_in_pool = isinstance(m, PASSIVE) or isinstance(last_child(m), HALVING + HEADS)
        if ends_in_pool or shape[-2:] not in convolved:  # a pool's output only rests at a resolution, nothing is computed there
            continue
        if whole:  # one branch inside a block is no end
            inner[shape[-2:]] = name
        around = [name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)]
        if all(blocks.get(outer, shape[-2:]) == shape[-2:] for outer in around):
            ends[shape[-2:]] = name
    chosen = set((inner | ends).values())
    if not chosen:
        raise ValueError(
            "no convolution has positions before the classifier: a CAM needs one; pass cam_layer=… to models.Classifier"
        )
    return tuple(name for name, *_ in trail if name in chosen)


def steps(trail: list[Output]) -> list[Output]:
    """Each convolution after its norm and activation, each of the `units` as a whole, each pool but the classifier's."""
    whole = units(trail)
    chosen: list[Output] = []
    for o in trail:
        part = any(o.name.startswith(f"{unit}.") for unit in whole) or (has_children(o.module) and o.name not in whole)
        if part or isinstance(o.module, HEADS + PASSIVE):
            continue
        if o.name in whole or isinstance(o.module, (nn.Conv2d, *HALVING)):
            chosen.append(o)
        elif chosen and o.shape == chosen[-1].shape and not isinstance(chosen[-1].module, HALVING):
            chosen[-1] = o  # a norm or an activation
    return chosen


def units(trail: list[Output]) -> set[str]:
    """Modules with a `forward` of their own that are one step; where one is inside another, the outer one counts.

    They are the innermost modules around a branch of the flow that ends in them (residual, concatenating), the others of
    their types, and single convolutions with what belongs to them, such as an activation that is a function.
    """

    def inside(outer: Output, kinds: Any = nn.Module) -> list[Output]:
        return [o for o in trail if o.name.startswith(f"{outer.name}.") and isinstance(o.module, kinds)]

    boxes = [o for o in trail if has_children(o.module) and type(o.module).forward is not nn.Sequential.forward]
    branching = [o for o in boxes if o.whole and not all(conv.whole for conv in inside(o, nn.Conv2d))]
    types = {type(o.module) for o in branching if not any(inner in branching for inner in inside(o))}
    single = [o for o in boxes if [conv.shape[-2:] for conv in inside(o, nn.Conv2d)] == [o.shape[-2:]]]
    return {o.name for o in boxes if o in single or type(o.module) in types}


def has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def last_child(module: nn.Module) -> nn.Module:
    """The last module inside a Sequential, however deep; any other module is itself."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module
