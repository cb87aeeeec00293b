"""What every method shares: shapes, scores, and how to look inside a network and leave it as it was.

Conventions, stated once for the whole package
* image `[3, H, W]`, preprocessed; features `[C, h, w]`; masks `[N, H, W]` in [0, 1], 1 keeps the pixel;
  map `[H, W]` in the method's own units, detached, on the image's device. Scaling to [0, 1] is the consumer's.
* an explainer is a function `explain(net, image, target, *, settings) -> map`; bind settings with `functools.partial`.
* `net` is a `models.Classifier` or any `nn.Module` that gives logits `[N, K]`; `target` is a class index or, by
  default, the network's own first choice on the whole image.
* a score is a function `(logits [N, K], target) -> [N]`.
* a layer is a dotted module name, as in `net.get_submodule(name)`.
* resizing is bilinear with `align_corners=False`. A constant map scales to zeros, never to NaN.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Score = Callable[[Tensor, int], Tensor]


class Network(Protocol):
    """What a method needs of a network: logits `[N, K]` from images `[N, 3, H, W]`."""

    def __call__(self, images: Tensor, /) -> Tensor: ...


class Explainer(Protocol):
    """What the consumers of a method need: a map `[H, W]` for one image `[3, H, W]`."""

    def __call__(self, net: Any, image: Tensor, target: int | None = None, /) -> Tensor: ...


# ---------------------------------------------------------------------------------------------------------- scores


def logit(logits: Tensor, target: int) -> Tensor:
    """The class score before the softmax: `[N, K] -> [N]`. The default where gradients are taken."""
    return logits[:, target]


def probability(logits: Tensor, target: int) -> Tensor:
    """Softmax probability of one class: `[N, K] -> [N]`. The default for masked copies and metrics."""
    return several(logits).softmax(1)[:, target]


def log_probability(logits: Tensor, target: int) -> Tensor:
    """Logarithm of the softmax probability: `[N, K] -> [N]`. Its gradient does not vanish when p is near 1."""
    return several(logits).log_softmax(1)[:, target]


def sigmoid(logits: Tensor, target: int) -> Tensor:
    """Probability of one class whatever the others are: `[N, K] -> [N]`. For networks whose classes do not exclude each other."""
    return logits[:, target].sigmoid()


def several(logits: Tensor) -> Tensor:
    """The logits. Errors: ValueError for one class alone, whose softmax is 1 whatever the picture shows."""
    if logits.shape[1] == 1:
        raise ValueError(
            "the network has one class, and the softmax of one logit is always 1: pass score=core.sigmoid or core.logit"
        )
    return logits


# ------------------------------------------------------------------------------------------------- maps and shapes


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of the last two axes: `[..., h, w] -> [..., H, W]`. Convention: `align_corners=False`."""
    lead = x.shape[:-2]
    flat = x.reshape(1, math.prod(lead), *x.shape[-2:])  # [1, N, h, w]
    return F.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=False).reshape(*lead, *size)


def to_unit(x: Tensor) -> Tensor:
    """Scale each map linearly onto [0, 1]: `[..., H, W]`, same shape. A constant map becomes zeros."""
    low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
    span = high - low
    return torch.where(span > 0, (x - low) / torch.where(span > 0, span, 1), torch.zeros_like(x))


def digest(*tensors: Tensor) -> str:
    """A short name for what is in some tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)  # bfloat16, too
    return found.hexdigest()[:16]


# -------------------------------------------------------------------------------------------------- the network


def module_of(net: Any) -> nn.Module:
    """The `nn.Module` inside a Classifier, or the module itself."""
    module = net if isinstance(net, nn.Module) else getattr(net, "module", None)
    if not isinstance(module, nn.Module):
        raise TypeError(f"a network is a models.Classifier or a torch.nn.Module, not {type(net).__name__}")
    return module


def submodule(net: Any, layer: str) -> nn.Module:
    """The module called `layer`. Errors: ValueError that lists the names most like it."""
    modules = dict(module_of(net).named_modules())
    if not isinstance(layer, str) or layer not in modules or layer == "":
        near = difflib.get_close_matches(str(layer), modules, n=5, cutoff=0.3)
        raise ValueError(f"the network has no layer {layer!r}; names like it: {', '.join(near) or 'none'}")
    return modules[layer]


def cam_layer(net: Any, layer: str | None) -> str:
    """`layer`, or the one that the Classifier names for class activation maps."""
    chosen = layer if layer is not None else getattr(net, "cam_layer", None)
    if chosen is None:
        raise ValueError(
            "a plain nn.Module does not say which layer holds its features: pass layer=…, or wrap it with models.from_module"
        )
    return chosen


def layer_names(net: Any, layers: Sequence[str] | None, which: str) -> tuple[str, ...]:
    """`layers`, or those that the Classifier lists as `which`, such as "block_layers".

    Errors: TypeError for one name in place of several; ValueError where there are none.
    """
    if isinstance(layers, str):
        raise TypeError(f"layers are several names, shallow to deep, not one name, {layers!r}")
    chosen = tuple(layers if layers is not None else getattr(net, which, ()))
    if not chosen:
        raise ValueError(
            f"{getattr(net, 'name', type(net).__name__)} names no {which}: pass layers=[…], shallow to deep, "
            "or wrap a plain nn.Module with models.from_module"
        )
    return chosen


@contextmanager
def frozen(net: Any) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside; every flag as it was before outside, also after an error."""
    module = module_of(net)
    training = [(m, m.training) for m in module.modules()]
    wanted = [(p, p.requires_grad) for p in module.parameters()]
    try:
        module.eval()
        for p, _ in wanted:
            p.requires_grad_(False)
        yield
    finally:
        for m, flag in training:
            m.training = flag  # not m.train(flag), which would also set its children
        for p, flag in wanted:
            p.requires_grad_(flag)


@contextmanager
def capture(net: Any, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record what `layers` put out in the forward passes made inside: name -> features `[N, C, h, w]`.

    Each recorded tensor is the one that the rest of the network goes on with, so `torch.autograd.grad` of a score
    with respect to it works, even where all parameters are frozen and where the next operation works in place.
    Tokens `[N, 1 + g*g, C]` of a vision transformer come as `[N, C, g, g]`, without the class token.
    Errors: ValueError for an unknown layer; TypeError for a layer whose output has no positions.
    """
    seen: dict[str, Tensor] = {}

    def record(name: str, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.dim() not in (3, 4):
            given = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise TypeError(f"layer {name!r} puts out {given}; expected features [N, C, h, w] or tokens [N, T, C]")
        kept = output.clone()  # the network may overwrite `output`: ReLU in place, residual `+=`
        if torch.is_grad_enabled() and not kept.requires_grad:
            kept.requires_grad_()
        if kept.dim() == 4:
            seen[name] = kept
            return kept.clone()
        grid = math.isqrt(kept.shape[1])
        extra = kept.shape[1] - grid * grid  # class token, registers: they come first
        seen[name] = kept[:, extra:].transpose(1, 2).unflatten(2, (grid, grid))  # [N, C, g, g]
        return torch.cat([kept[:, :extra], seen[name].flatten(2).transpose(1, 2)], 1)

    with ExitStack() as hooks:
        for name in layers:
            hook = submodule(net, name).register_forward_hook(lambda _m, _i, output, name=name: record(name, output))
            hooks.callback(hook.remove)
        yield seen


def features_of(net: Any, image: Tensor, layer: str) -> Tensor:
    """Features `[C, h, w]` of one image `[3, H, W]` at `layer`, no gradients."""
    with torch.no_grad(), capture(net, [layer]) as seen:
        net(image[None])
    return recorded(seen, layer)[0]


def features_and_gradient(net: Any, image: Tensor, target: int, layer: str, score: Score) -> tuple[Tensor, Tensor]:
    """Features A and the gradient of the score with respect to them, both `[C, h, w]`, for one image `[3, H, W]`."""
    with torch.enable_grad(), capture(net, [layer]) as seen:
        y = score(net(image[None]), target)  # [1]
        features = recorded(seen, layer)
        (gradient,) = torch.autograd.grad(y.sum(), features)
    return features[0].detach(), gradient[0]


def recorded(seen: dict[str, Tensor], layer: str) -> Tensor:
    """What `capture` saw at `layer`. Errors: ValueError if the forward pass never came through it."""
    if layer not in seen:
        raise ValueError(f"the forward pass did not go through layer {layer!r}")
    return seen[layer]


# ------------------------------------------------------------------------------------------------- the contract

Settings = ParamSpec("Settings")


def explainer(
    method: Callable[Concatenate[Any, Tensor, int, Settings], Tensor],
) -> Callable[Concatenate[Any, Tensor, int | None, Settings], Tensor]:
    """Make `method(net, image, target, *, …) -> map` keep the contract of an explainer.

    Before: the image and the weights' device are checked, and `target=None` becomes the network's first choice, for one
    forward pass. Around: the network is frozen and comes back exactly as it was; its first logits and the target are checked.
    After: the map is `[H, W]`, finite, detached.
    """

    @functools.wraps(method)
    def explain(net: Any, image: Tensor, target: int | None = None, *args: Settings.args, **settings: Settings.kwargs) -> Tensor:
        with torch.inference_mode(False), frozen(net):
            image = checked_image(net, image)
            chosen = int(checked_logits(net, image).argmax()) if target is None else index_of(target)
            with first_logits_checked(net, image, chosen):
                saliency = method(net, image, chosen, *args, **settings).detach()
        if saliency.shape != image.shape[-2:]:
            raise ValueError(f"{method.__name__} gave a map of shape {list(saliency.shape)}; expected {list(image.shape[-2:])}")
        if not saliency.isfinite().all():
            raise ValueError(f"{method.__name__} gave a map with NaN or infinity")
        return saliency

    explain.__annotations__ = method.__annotations__ | {"target": int | None}
    return explain


def checked_image(net: Any, image: Tensor) -> Tensor:
    """The image, detached. Errors: TypeError or ValueError naming its shape, type, device or NaN, and what was expected."""
    if not isinstance(image, Tensor):
        raise TypeError(f"an image is a preprocessed tensor [3, H, W], not {type(image).__name__}: use net.preprocess(picture)")
    if image.dim() != 3 or 0 in image.shape:
        hint = " (one image at a time: pass images[i])" if image.dim() == 4 else ""
        raise ValueError(f"an image is [3, H, W]; this one is {list(image.shape)}{hint}")
    if image.dtype not in (torch.float32, torch.float64) or not image.isfinite().all():
        raise ValueError(
            "an image is a finite float tensor of single or double precision; "
            f"this one is {image.dtype}, NaN or infinite: {not image.isfinite().all()}"
        )
    weight = next(module_of(net).parameters(), None)
    if weight is not None and weight.device != image.device:
        raise ValueError(f"the image is on {image.device}, the network on {weight.device}: move one of them with .to(…)")
    return image.detach().clone() if image.is_inference() else image.detach()


@contextmanager
def first_logits_checked(net: Any, image: Tensor, target: int) -> Iterator[None]:
    """Check the first logits that come out of the network inside, and that they have the target; it takes no pass of its own.

    Where no logits come, or only in half precision, the network is called at the end. Errors: those of `checked_logits` and
    `checked_target`.
    """
    seen: list[bool] = []

    def check(_module: Any, _images: Any, logits: Any) -> None:
        rough = isinstance(logits, Tensor) and torch.is_autocast_enabled(logits.device.type)  # half precision overflows early
        if not seen and not rough:
            seen.append(True)
            checked_target(finite_logits(logits)[0], target)

    hook = module_of(net).register_forward_hook(check)
    try:
        try:
            yield
        except IndexError:  # scores that were known already were asked for a class that is none
            if not seen:
                checked_logits(net, image)
            raise
        if not seen:
            checked_logits(net, image)  # which calls the hook
    finally:
        hook.remove()


def checked_logits(net: Any, image: Tensor) -> Tensor:
    """Logits `[K]` of the whole image. Errors: ValueError where they are no vector of finite numbers."""
    with torch.no_grad():
        logits = finite_logits(net(image[None]))
    if len(logits) != 1:
        raise ValueError(f"a network gives logits [N, K], here [1, K]; this one gives {list(logits.shape)}")
    return logits[0]


def finite_logits(logits: Any) -> Tensor:
    """The logits `[N, K]`. Errors: ValueError where they are no matrix of finite numbers."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or not len(logits):
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"a network gives logits [N, K], here [1, K]; this one gives {given}")
    if not logits.isfinite().all():
        raise ValueError("the network's logits hold NaN or infinity: look at its weights")
    return logits


def checked_target(logits: Tensor, target: int | None) -> int:
    """The class index; None is the first choice. Errors: ValueError outside 0 … K-1, TypeError for another type."""
    index = int(logits.argmax()) if target is None else index_of(target)
    if not 0 <= index < len(logits):
        raise ValueError(f"target {index} is out of range: the network has classes 0 to {len(logits) - 1}")
    return index


def index_of(target: Any) -> int:
    """A class index as an int. Errors: TypeError for what is none, such as a name, a fraction or True."""
    if isinstance(target, Tensor) and target.numel() == 1:
        target = target.item()
    try:
        return operator.index("" if isinstance(target, bool) else target)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"a target is a class index, not {target!r}: a name becomes one with net.index(name)") from None
