"""One function a metric. Each gives one float per image, a fraction (not percent); undefined is NaN.

The explanation map of a saliency map S is the image seen through it, `x * S`, with S scaled to [0, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers.core import Score, logit, probability, to_unit
from helpers.masks import masked_logits

NAN = float("nan")


def seen_through(net: Any, image: Tensor, target: int, saliency: Tensor, *, score: Score = probability) -> tuple[float, float]:
    """(Y, O): the class score of the whole image, and of the image seen through the map. image `[3, H, W]`, map `[H, W]`."""
    masks = torch.stack([torch.ones_like(saliency), to_unit(saliency)])  # [2, H, W]
    Y, O = score(masked_logits(net, image, masks), target).tolist()  # noqa: E741
    return Y, O


def average_drop(net: Any, image: Tensor, target: int, saliency: Tensor, *, score: Score = probability) -> float:
    """max(0, Y - O) / Y: the share of the class score lost when only the explanation map is seen; lower is better.

    NaN where Y <= 0 (a logit can be). Paper: chattopadhay2018gradcampp, Sec. 4.1; mitra2024scorecampp, Eq. (13).
    Deviation: Eq. (13) is printed without 1/N and counts percent; the mean over images is the caller's.
    """
    Y, O = seen_through(net, image, target, saliency, score=score)  # noqa: E741
    return max(0.0, Y - O) / Y if Y > 0 else NAN


def increase_in_confidence(net: Any, image: Tensor, target: int, saliency: Tensor, *, score: Score = probability) -> float:
    """1 if the explanation map alone scores higher than the image, else 0; higher is better.

    Paper: chattopadhay2018gradcampp, Sec. 4.1; mitra2024scorecampp, Eq. (14).
    """
    Y, O = seen_through(net, image, target, saliency, score=score)  # noqa: E741
    return float(O > Y)


def signed_drop(net: Any, image: Tensor, target: int, saliency: Tensor, *, score: Score = probability) -> float:
    """Y - O, negative where the explanation map scores higher: what `win` compares. Paper: mitra2024scorecampp, App. A.3."""
    Y, O = seen_through(net, image, target, saliency, score=score)  # noqa: E741
    return Y - O


def drop_in_logit(net: Any, image: Tensor, target: int, saliency: Tensor, *, score: Score = logit) -> float:
    """z(x) - z(x * (1 - S)): the logit lost when the explained part is taken out; higher is better.

    Paper: mitra2024scorecampp, Sec. 6.4 and Table 7. Deviation: the paper gives no formula; the soft removal is ours.
    """
    masks = torch.stack([torch.ones_like(saliency), 1 - to_unit(saliency)])  # [2, H, W]
    whole, without = score(masked_logits(net, image, masks), target).tolist()
    return whole - without


def energy_inside(saliency: Tensor, mask: Tensor) -> float:
    """Energy-based pointing game: the share of the map's sum that lies inside `mask`; both `[H, W]`; higher is better.

    The map is taken from 0 up: negative values count as 0. NaN for a map without positive values or an empty mask.
    Paper: wang2020scorecam, Sec. 4.3.
    """
    positive = saliency.relu().double()
    total = positive.sum()
    return float((positive * mask.to(positive)).sum() / total) if total > 0 and mask.any() else NAN


def win(drops: pd.DataFrame, *, tolerance: float = 1e-4, ties: str = "split") -> pd.Series:
    """Win %: the share of images on which a method has the smallest drop, as fractions that sum to 1.

    drops: one row an image, one column a method, such as `signed_drop` gives (drops cut off at 0 would tie wherever several
    methods gain). ties: "split" shares the point among all within `tolerance` (float32 knows a logit no better) of the
    smallest; "first" gives it to the leftmost of them, as the authors' code does. A NaN never wins; an image where every
    method is NaN is left out. Paper: mitra2024scorecampp, App. A.3.
    """
    if ties not in ("split", "first"):
        raise ValueError(f"ties is {ties!r}; expected 'split' or 'first'")
    table = drops.dropna(how="all")
    if table.empty:
        return pd.Series(NAN, index=drops.columns)
    best = (table.sub(table.min(axis=1), axis=0) <= tolerance).astype(float)
    if ties == "first":
        best = best * (best.cumsum(axis=1) == 1)
    return best.div(best.sum(axis=1), axis=0).mean()


def bootstrap_interval(values: Any, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean; NaNs are left out; (NaN, NaN) with fewer than two values."""
    kept = np.asarray(values, dtype=float)
    kept = kept[~np.isnan(kept)]
    if len(kept) < 2:
        return NAN, NAN
    rng = np.random.default_rng(seed)
    means = kept[rng.integers(0, len(kept), (draws, len(kept)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
