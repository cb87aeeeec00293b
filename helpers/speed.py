"""A network made quick for many forward passes: nothing of it changes, and afterwards it is as it was.

Three things: images in channels_last order, which convolutions like best on a CPU as on a GPU; batch norms folded into the
convolutions before them; half precision, if the Classifier asks for it. The first two change logits by rounding alone.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from helpers.core import frozen, module_of

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def half_of(net: Any) -> torch.dtype | None:
    """The half precision that a Classifier asks for, None for single. Errors: ValueError that lists what there is."""
    name = getattr(net, "precision", "float32")
    if name not in PRECISIONS:
        raise ValueError(f"precision is {name!r}; expected one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


@contextmanager
def quick(net: Any, *, fold: bool = True, half: torch.dtype | None = None) -> Iterator[Callable[[Tensor], Tensor]]:
    """Inside, a quicker way to call a frozen network: images `[N, 3, H, W] -> logits [N, K]`, in the images' type.

    fold: fold batch norms into convolutions, where the network can be traced; it takes a copy of these convolutions' weights and
    is worth it for a few dozen images. half: a type to compute in, see `PRECISIONS`; it needs a device that has such units.
    """
    changes: list[tuple[dict[str, Any], str, Any]] = folded(module_of(net)) if fold else []
    before = [(place, name, place[name]) for place, name, _ in changes]

    def logits_of(images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        if half is None:
            return net(images)
        with torch.autocast(images.device.type, half):
            return net(images).to(images)

    try:
        for place, name, new in changes:
            place[name] = new
        yield logits_of
    finally:
        for place, name, old in before:
            place[name] = old


def folded(module: nn.Module) -> list[tuple[dict[str, Any], str, Any]]:
    """What to put where, so that the batch norms are folded: (a module's dictionary, a name in it, the new entry)."""
    changes: list[tuple[dict[str, Any], str, Any]] = []
    for conv, norm in foldable(module):
        assert norm.running_mean is not None and norm.running_var is not None
        with torch.inference_mode(False), torch.no_grad():
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )  # fmt: skip
        changes += [
            (conv._parameters, "weight", weight.requires_grad_(False)),
            (conv._parameters, "bias", bias.requires_grad_(False)),
        ]
        changes += [
            (m._modules, name, nn.Identity()) for m in module.modules() for name, child in m._modules.items() if child is norm
        ]
    return changes


def foldable(module: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output goes into a batch norm and nowhere else, both called once and without hooks; found by tracing.

    None where the network cannot be traced: where what it does depends on the image, say.
    """
    if not any(isinstance(m, nn.BatchNorm2d) for m in module.modules()):
        return []
    try:
        graph = fx.Tracer().trace(copy.copy(module))  # a module that counts its calls counts this one in the copy
    except Exception:  # whatever the reader's own code does with a tracer's stand-ins for tensors
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times = Counter(id(module.get_submodule(str(node.target))) for node in calls)
    touched = tuple(node.target for node in graph.nodes if node.op == "get_attr")  # weights that the code uses by itself
    pairs = []
    for node in calls:
        source = node.args[0] if node.args else None
        if not (isinstance(source, fx.Node) and source.op == "call_module" and len(source.users) == 1):
            continue
        conv, norm = module.get_submodule(str(source.target)), module.get_submodule(str(node.target))
        if type(conv) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.running_mean is None or norm.training:
            continue
        alone = times[id(conv)] == times[id(norm)] == 1 and not any(
            m._forward_hooks or m._forward_pre_hooks for m in (conv, norm)
        )
        own = not any(name.startswith((f"{source.target}.", f"{node.target}.")) for name in touched)
        if alone and own and {"weight", "bias"} <= conv._parameters.keys():
            pairs.append((conv, norm))
    return pairs


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device said that it has no more memory."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def best_batch(net: Any, image: Tensor, *, sizes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256), rounds: int = 3) -> int:
    """The batch size with the most images a second, for `batch_size` of the methods; a smaller one within 3 % is preferred.

    image: `[3, H, W]`, on the network's device. Sizes are tried upwards, until memory ends or two in a row are a fifth slower
    than the best. What is found depends on the machine and on what else it does; results do not depend on it, rounding aside.
    """
    speeds: dict[int, float] = {}
    with frozen(net), torch.inference_mode(), quick(net, half=half_of(net)) as logits_of:
        for size in sorted(sizes):
            images, seconds = image.expand(size, *image.shape), []
            try:
                for _ in range(rounds + 1):
                    began = time.perf_counter()
                    logits_of(images).sum().item()  # item() waits for the device
                    seconds.append(time.perf_counter() - began)
            except RuntimeError as error:
                if not out_of_memory(error) or not speeds:
                    raise
                break
            speeds[size] = size / median(seconds[1:])  # the first one warms up
            if len(speeds) > 2 and max(list(speeds.values())[-2:]) < 0.8 * max(speeds.values()):
                break
    return min(size for size, speed in speeds.items() if speed >= 0.97 * max(speeds.values()))
