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
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers.core import frozen, module_of

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def half_of(net: Any) -> torch.dtype | None:
    """The half precision that a Classifier asks for, None for single. Errors: ValueError that lists what there is."""
    name = "float32" if isinstance(net, nn.Module) else getattr(net, "precision", "float32")  # a module's is the reader's own
    if name not in PRECISIONS:
        raise ValueError(f"precision is {name!r}; expected one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


@contextmanager
def quick(net: Any, *, like: Tensor | None = None, half: torch.dtype | None = None) -> Iterator[Callable[[Tensor], Tensor]]:
    """Inside, a quicker way to call a frozen network: images `[N, 3, H, W] -> logits [N, K]`, in the images' type.

    like: an image `[3, H, W]` to try it with: batch norms are folded into convolutions, where the network can be traced and says
    the same of this image as before; it takes two passes and a copy of these convolutions' weights, and is worth it for a few
    dozen images. half: a type to compute in, see `PRECISIONS`; it is quick on devices that have such units.
    """
    changes: list[tuple[dict[str, Any], str, Any]] = folded(module_of(net)) if like is not None else []
    before = [(place, name, place[name]) for place, name, _ in changes]

    def put(entries: list[tuple[dict[str, Any], str, Any]]) -> None:
        for place, name, entry in entries:
            place[name] = entry

    def logits_of(images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        if half is None:
            return net(images)
        with torch.autocast(images.device.type, half):
            return net(images).to(images)

    try:
        if changes and like is not None:
            with torch.no_grad():
                plain = net(like[None])
                put(changes)
                if not torch.allclose(net(like[None]), plain, rtol=1e-3, atol=1e-3 * float(plain.std())):
                    put(before)  # what the network does cannot be seen by tracing it
        yield logits_of
    finally:
        put(before)


def folded(module: nn.Module) -> list[tuple[dict[str, Any], str, Any]]:
    """What to put where, so that the batch norms are folded: (a module's dictionary, a name in it, the new entry)."""
    changes: list[tuple[dict[str, Any], str, Any]] = []
    for conv, norm in foldable(module):
        assert norm.running_mean is not None and norm.running_var is not None
        with torch.inference_mode(False), torch.no_grad():
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )  # fmt: skip
            as_images = weight.detach().contiguous(memory_format=torch.channels_last)  # else it is copied for each batch
        changes += [(conv._parameters, "weight", as_images), (conv._parameters, "bias", bias.detach())]
        changes += [
            (m._modules, name, nn.Identity()) for m in module.modules() for name, child in m._modules.items() if child is norm
        ]
    return changes


def foldable(module: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output goes into a batch norm and nowhere else, both called once; found by tracing.

    None where the network cannot be traced, since what it does depends on the image, say, and where a layer has a hook.
    """
    inner = list(module.modules())[1:]
    if not any(isinstance(m, nn.BatchNorm2d) for m in inner) or any(m._forward_hooks or m._forward_pre_hooks for m in inner):
        return []
    try:
        with torch.random.fork_rng(devices=[]):
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
        alone = times[id(conv)] == times[id(norm)] == 1 and not any("forward" in vars(m) for m in (conv, norm))
        own = not any(name.startswith((f"{source.target}.", f"{node.target}.")) for name in touched)
        if alone and own and {"weight", "bias"} <= conv._parameters.keys():
            pairs.append((conv, norm))
    return pairs


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device said that it has no more memory."""
    said = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")  # Linux, Windows, Metal, cuDNN
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


def best_batch(net: Any, image: Tensor, *, sizes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256), rounds: int = 3) -> int:
    """The batch size with the most images a second, for `batch_size` of the methods; a smaller one within 3 % is preferred.

    image: `[3, H, W]`, on the network's device. Sizes are tried upwards, until memory ends or two in a row are a fifth slower
    than the best. What is found depends on the machine and on what else it does; results do not depend on it, rounding aside.
    """
    speeds: dict[int, float] = {}
    with frozen(net), torch.inference_mode(), quick(net, like=image, half=half_of(net)) as logits_of:
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


class Peak(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, as long as something refers to them: exact on every machine.

    Blind to what one operation allocates and frees inside itself, and to arrays that are no tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {StorageWeakRef(t.untyped_storage()).cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                if reference.cdata not in given:  # a view, or an operation in place, makes no storage
                    self.alive[reference.cdata] = (reference, storage.nbytes())
        self.alive = {key: value for key, value in self.alive.items() if not value[0].expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self.alive.values()))
        return made


def peak(work: Callable[[], Any]) -> int:
    """Most bytes alive at once in tensors that the work made."""
    with Peak() as counted:
        work()
    return counted.bytes
