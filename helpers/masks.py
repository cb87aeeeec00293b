"""The one engine that scores masked copies of an image, and the makers of its masks.

A masked copy is `x*m + fill*(1-m)`. The engine returns the logits of *all* classes, so that a score, or the scores of
several classes, can be taken afterwards at no cost. Masks are drawn a batch at a time from small maps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from helpers.core import digest, frozen, module_of, resize, to_unit
from helpers.speed import half_of, out_of_memory, quick

Gate = Callable[[Tensor], Tensor]


class Masks(Protocol):
    """N masks that are drawn when they are asked for: `masks[i:j]` is `[j-i, H, W]`. A tensor `[N, H, W]` is one too."""

    def __len__(self) -> int: ...

    def __getitem__(self, chunk: slice, /) -> Tensor: ...


@dataclass(frozen=True)
class FeatureMasks:
    """One mask per feature map, made when it is asked for: `masks[i:j]` is `[j-i, H, W]`.

    features: `[N, h, w]`; size: `(H, W)`; gate: what is done to the upsampled maps, such as `core.to_unit` or `torch.tanh`.
    """

    features: Tensor
    size: tuple[int, int]
    gate: Gate

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, chunk: slice) -> Tensor:
        return self.gate(resize(self.features[chunk], self.size))


def masked_logits(
    net: Any,
    image: Tensor,
    masks: Tensor | Masks,
    *,
    fill: Tensor | float = 0.0,
    batch_size: int = 8,
    progress: bool = False,
) -> Tensor:
    """Logits `[N, K]` of N masked copies of one image.

    image: `[3, H, W]`; masks: `[N, H, W]` or anything that gives such chunks when sliced; fill: what stands where the
    mask is 0, in preprocessed space (0 is the mean colour), a number or a tensor that broadcasts to the image.
    batch_size: small ones (4 to 8) are fastest on a CPU, on a GPU see `speed.best_batch`; it is halved when memory runs out, and
    results do not depend on it, rounding aside. A Classifier's `precision` is used from `MANY` copies on.
    Errors: ValueError for non-finite logits, naming the mask. Warns where half precision changes the order of the copies.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    half = half_of(net) if len(masks) >= MANY else None
    score = partial(scored, net, image, fill=fill, half=half, batch_size=batch_size, progress=progress)
    known = KNOWN.get()
    if known is None:
        return score(masks)
    module = module_of(net)
    held = [*module.parameters(), *module.buffers()]
    weights = (id(module), *((id(t), 0 if t.is_inference() else t._version) for t in held))
    known[weights] = module, held  # as long as they are here, nothing else has their ids
    same = (weights, half, described(image), described(fill))
    each = told_apart(masks)
    if each is None:
        key = (same, described(masks))
        if not can_be_looked_up(masks, key):
            return score(masks)
        if key not in known:
            known[key] = score(masks)
        return known[key]
    keys = [(same, key) for key in each]
    if new := {key: i for i, key in enumerate(keys) if key not in known}:  # equal masks are scored once
        index = list(new.values())
        fresh = masks[index] if isinstance(masks, Tensor) else replace(masks, features=masks.features[index])  # type: ignore
        known |= zip(new, score(fresh), strict=True)
    return torch.stack([known[key] for key in keys]) if keys else image.new_zeros(0, 0)


MANY = 64  # so many masked copies are worth preparing the network for: half precision, batch norms folded
KNOWN: ContextVar[dict[Any, Any] | None] = ContextVar("what was scored inside of `shared`", default=None)


@contextmanager
def shared() -> Iterator[None]:
    """Inside, the same masked copies of the same image are scored once, whoever asks: another class, method or metric.

    `with shared(): maps = [score_cam(net, image, target) for target in top_five]` takes the forward passes of one map. Only
    logits are kept, until the end. The network must not be changed meanwhile through `.data`, which nobody can see.
    """
    before = KNOWN.set({})
    try:
        yield
    finally:
        KNOWN.reset(before)


def described(what: Any) -> Any:
    """Something that is equal for equal masks, images and fills, and can be looked up: tensors by what they hold."""
    if isinstance(what, Tensor):
        return digest(what)
    if is_dataclass(what):
        return type(what), *(described(getattr(what, field.name)) for field in fields(what))
    return what


def can_be_looked_up(masks: Any, key: Any) -> bool:
    """Whether equal keys mean equal masks for good: a frozen dataclass, and all that it holds can be hashed."""
    if not getattr(getattr(masks, "__dataclass_params__", None), "frozen", False):
        return False
    try:
        hash(key)
    except TypeError:
        return False
    return True


def scored(
    net: Any, image: Tensor, masks: Tensor | Masks, *, fill: Tensor | float, half: torch.dtype | None = None,
    batch_size: int, progress: bool = False,
) -> Tensor:  # fmt: skip
    """Logits `[N, K]` of N masked copies, a batch at a time; half: the precision. Otherwise as `masked_logits`."""
    N = len(masks)
    background = torch.as_tensor(fill, dtype=image.dtype, device=image.device)
    parts: list[Tensor] = []
    start, copies = 0, copies_of(image, min(batch_size, N))  # one buffer for all batches
    with frozen(net), torch.inference_mode(), tqdm(total=N, desc="masked copies", disable=not progress, leave=False) as bar:
        with quick(net, like=image if N >= MANY else None, half=half) as logits_of:
            while start < N:
                try:
                    m = masks[start : start + batch_size].to(image)  # [n, H, W]
                    if m.shape[1:] != image.shape[1:]:
                        raise ValueError(f"masks are {list(m.shape)}; expected [N, {image.shape[1]}, {image.shape[2]}]")
                    logits = logits_of(masked(image, m, background, copies))  # [n, K]
                except RuntimeError as error:
                    if not out_of_memory(error) or batch_size == 1:
                        raise
                    batch_size //= 2
                    continue
                if len(logits) != len(m):
                    raise ValueError(f"the network gives {len(logits)} rows of logits for {len(m)} images")
                if not logits.isfinite().all():
                    bad = start + int((~logits.isfinite()).any(1).nonzero()[0])
                    hint = "" if half is None else f' in {net.precision}: precision="float32" holds larger numbers'
                    raise ValueError(f"masked copy {bad} of {N} gave logits with NaN or infinity{hint}")
                parts.append(logits.clone())  # a network may put out a piece of its input, and that is overwritten
                start += len(logits)
                bar.update(len(logits))
        found = torch.cat(parts) if parts else image.new_zeros(0, 0)
    if half is not None:  # a few are enough to see an order
        exact = scored(net, image, masks[: MANY // 2], fill=fill, batch_size=max(1, batch_size // 2))
        warn_of_rounding(found[: len(exact)], exact, net.precision)
    return found


def told_apart(masks: Tensor | Masks) -> list[Any] | None:
    """For each mask something that only equal ones share; None where the masks would have to be drawn for that.

    Feature maps that are equal once scaled to [0, 1], as are those with one and the same pixel above 0, make equal masks of it.
    """
    if isinstance(masks, Tensor):
        return [described(m) for m in masks.cpu()]
    if isinstance(masks, FeatureMasks):
        maps = to_unit(masks.features) if masks.gate is to_unit else masks.features
        return [(masks.size, masks.gate, described(m)) for m in maps.cpu()]
    return None


def copies_of(image: Tensor, n: int) -> Tensor:
    """Room for n images like this one, `[n, 3, H, W]`, in channels_last order."""
    return torch.empty((n, *image.shape), dtype=image.dtype, device=image.device, memory_format=torch.channels_last)


def masked(image: Tensor, m: Tensor, background: Tensor, copies: Tensor) -> Tensor:
    """`image * m + background * (1 - m)`, written into the first n of `copies`: masks `[n, H, W] -> [n, 3, H, W]`."""
    for channel, there, here in zip(copies[: len(m)].unbind(1), background.expand_as(image), image, strict=True):
        torch.lerp(there, here, m, out=channel)
    return copies[: len(m)]


def warn_of_rounding(rough: Tensor, exact: Tensor, half: str) -> None:
    """Warn if the logits `[n, K]` of half precision put masked copies into another order: rank correlation below 0.99."""
    likeliest = int(exact.mean(0).argmax())
    ranks = torch.stack([logits[:, likeliest].argsort().argsort().cpu().double() for logits in (rough, exact)])  # [2, n]
    if exact[:, likeliest].unique().numel() > 1 and (rho := float(ranks.corrcoef()[0, 1])) < 0.99:
        warnings.warn(
            f"{half} changes the order of the masked copies (rank correlation {rho:.3f} of {len(exact)} logits): "
            'precision="float32" gives the true map', stacklevel=2,
        )  # fmt: skip


def weighted_sum(weights: Tensor, masks: Tensor | Masks, *, batch_size: int = 8) -> Tensor:
    """`sum_k weights[k] * masks[k]` without ever holding all masks: `[N], [N, H, W] -> [H, W]`."""
    total = None
    for start in range(0, len(masks), batch_size):
        chunk = masks[start : start + batch_size]  # [n, H, W]
        part = torch.einsum("n,nhw->hw", weights[start : start + batch_size].to(chunk), chunk)
        total = part if total is None else total + part
    if total is None:
        raise ValueError("there are no masks to add")
    return total


def keep_top(saliency: Tensor, fraction: float) -> Tensor:
    """Binary mask of the highest pixels: map `[H, W] -> [H, W]`, exactly floor(fraction * H * W) ones; ties by position."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}; expected 0 to 1")
    order = saliency.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros_like(saliency).flatten()
    mask[order[: int(fraction * saliency.numel() + 1e-9)]] = 1  # 0.29 * 100 is a little below 29 in floating point
    return mask.reshape(saliency.shape)


def otsu(values: Tensor, bins: int = 256) -> float:
    """Otsu's threshold: the bin centre that parts `values` (any shape) into the two classes of largest variance between them.

    A constant input has no threshold: its value is returned, so that `values > otsu(values)` is empty.
    """
    low, high = values.min(), values.max()
    if low == high:
        return float(low)
    histogram = torch.histc(values.detach().double().cpu(), bins, float(low), float(high))  # [bins]
    edges = torch.linspace(float(low), float(high), bins + 1, dtype=torch.float64)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = histogram.cumsum(0)[:-1], histogram.flip(0).cumsum(0).flip(0)[1:]  # pixels on either side of each cut
    moment = (histogram * centres).cumsum(0)
    mean_below, mean_above = moment[:-1] / below, (moment[-1] - moment[:-1]) / above
    between = below * above * (mean_below - mean_above) ** 2
    return float(centres[int(between.nan_to_num(-1).argmax())])
