"""The one engine that scores masked copies of an image, and the makers of its masks.

A masked copy is `x*m + fill*(1-m)`. The engine returns the logits of *all* classes, so that a score, or the scores of
several classes, can be taken afterwards at no cost. Masks are drawn a batch at a time from small maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from helpers.core import frozen, resize

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
    batch_size: small ones (4 to 8) are fastest on a CPU. Errors: ValueError for non-finite logits, naming the mask.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    starts = range(0, len(masks), batch_size)
    background = torch.as_tensor(fill, dtype=image.dtype, device=image.device)
    parts = []
    with frozen(net), torch.inference_mode():
        for start in tqdm(starts, desc="masked copies", unit="batch", disable=not progress, leave=False):
            m = masks[start : start + batch_size][:, None].to(image)  # [n, 1, H, W]
            logits = net(torch.lerp(background, image, m))  # image * m + background * (1 - m), nothing in between kept: [n, K]
            if not logits.isfinite().all():
                bad = start + int((~logits.isfinite()).any(1).nonzero()[0])
                raise ValueError(f"masked copy {bad} of {len(masks)} gave logits with NaN or infinity")
            parts.append(logits)
    return torch.cat(parts) if parts else image.new_zeros(0, 0)


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
