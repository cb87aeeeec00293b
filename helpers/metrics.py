"""One function a metric. Each gives one float per image, a fraction (not percent); undefined is NaN.

Three families. *Masked*: what the network says of the image seen through the map, `(net, image, target, saliency) -> float`.
*Truth*: how much of the map lies where the object is, `(saliency, mask) -> float`. *Agreement* of two maps, `(a, b) -> float`.
The settings of a paper are bound in a mapping of the paper's name, as `evaluation.evaluate` takes it: `PETSIUK2018RISE`, ...

Conventions: the explanation map of a saliency map S is the image seen through it, `x * S`, with S scaled to [0, 1]. Pixels are
ranked from the highest value down; equal ones count from the top left, row by row. A map with NaN or infinity, or of another
size than the image, is an error, and so is a target out of range; `None` is the network's first choice on the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor

from helpers.core import Score, checked_target, logit, probability, to_unit
from helpers.masks import Gate, keep_top, masked_logits

NAN = float("nan")
Fill = Tensor | float | Callable[[Tensor], Tensor]


def checked_map(saliency: Tensor, size: Sequence[int]) -> Tensor:
    """The map `[H, W]`, detached and of floats. Errors: ValueError for another size than `size`, and for NaN or infinity."""
    if not isinstance(saliency, Tensor) or saliency.shape != tuple(size):
        given = list(saliency.shape) if isinstance(saliency, Tensor) else type(saliency).__name__
        raise ValueError(f"the map is {given}; expected {list(size)}")
    if not saliency.isfinite().all():
        raise ValueError("the map holds NaN or infinity: a metric of it would mean nothing")
    return saliency.detach() if saliency.is_floating_point() else saliency.double()


# ------------------------------------------------------------------------------- what stands where the image does not


def blur(image: Tensor, *, kernel: int = 11, sigma: float = 5.0, padding: str = "reflect") -> Tensor:
    """The image `[3, H, W]` through a Gaussian of standard deviation `sigma` in a window of kernel x kernel pixels.

    padding: how the image goes on beyond its edge, as in `torch.nn.functional.pad`; "constant" is the mean colour.
    Convention: what of the Gaussian falls outside of the window is folded back into it, as in the authors' code.
    Errors: ValueError for an even kernel, or one that does not fit in the image. Paper: petsiuk2018rise.
    """
    if kernel % 2 == 0 or kernel // 2 >= min(image.shape[-2:]):
        raise ValueError(f"kernel is {kernel}; expected an odd number, half of which fits in {list(image.shape[-2:])} pixels")
    g = torch.from_numpy(gaussian_filter1d(np.eye(kernel)[kernel // 2], sigma)).to(image)  # [k]
    x = F.pad(image[:, None], (kernel // 2,) * 4, mode=padding)  # [3, 1, H+k-1, W+k-1]
    return F.conv2d(F.conv2d(x, g[None, None, :, None]), g[None, None, None])[:, 0]  # [3, H, W]


def black(net: Any) -> Tensor:
    """The colour black as the network sees it after preprocessing, `[3, 1, 1]`; 0 is the mean colour, a grey.

    Errors: ValueError for a network that does not say how its pictures are preprocessed.
    """
    if getattr(net, "mean", None) is None or getattr(net, "std", None) is None:
        raise ValueError(f"{type(net).__name__} has no mean and std: only a models.Classifier knows which number is black")
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (net.mean, net.std))
    return -mean / std


def filled(fill: Fill, image: Tensor) -> Tensor:
    """What `fill` stands for, as an image `[3, H, W]`: a number, a tensor that broadcasts, or a function of the image."""
    value = fill(image) if callable(fill) else fill
    return torch.as_tensor(value, dtype=image.dtype, device=image.device).expand_as(image)


# ---------------------------------------------------------------------------------- the image seen through the map


def seen_through(
    net: Any, image: Tensor, target: int | None, saliency: Tensor, *, score: Score = probability, mask: Gate = to_unit,
    fill: Fill = 0.0, batch_size: int = 8,
) -> tuple[float, float]:  # fmt: skip
    """(Y, O): the class score of the whole image, and of the image seen through the map. image `[3, H, W]`, map `[H, W]`.

    mask: what makes a mask `[H, W]` in [0, 1] of the map: `core.to_unit` (soft), `partial(masks.keep_top, fraction=0.15)`
    (the highest pixels, exactly floor(0.15 * H * W) of them) or `partial(metrics.above, threshold=0.5)`.
    fill: what stands where the mask is 0, see `filled`; 0 is the mean colour.
    """
    m = mask(checked_map(saliency, image.shape[-2:]))  # [H, W]
    masks = torch.stack([torch.ones_like(m), m])  # [2, H, W]
    logits = masked_logits(net, image, masks, fill=filled(fill, image), batch_size=batch_size)  # [2, K]
    Y, O = score(logits, checked_target(logits[0], target)).tolist()  # noqa: E741
    return Y, O


def above(saliency: Tensor, *, threshold: float) -> Tensor:
    """Binary mask of the pixels above `threshold`, once the map `[H, W]` is scaled to [0, 1]."""
    return (to_unit(saliency) > threshold).to(saliency)


def average_drop(
    net: Any, image: Tensor, target: int | None, saliency: Tensor, *, score: Score = probability, mask: Gate = to_unit,
    fill: Fill = 0.0, batch_size: int = 8,
) -> float:  # fmt: skip
    """max(0, Y - O) / Y: the share of the class score lost when only the explanation map is seen; lower is better.

    score, mask, fill, batch_size: see `seen_through`. NaN where Y <= 0 (a logit can be).
    Paper: chattopadhay2018gradcampp, Sec. 4.1; mitra2024scorecampp, Eq. (13); with the highest 15 % of the pixels as mask it is
    the Drop of sattarzadeh2021sise. Deviation: Eq. (13) is printed without 1/N and counts percent; the mean is the caller's.
    """
    Y, O = seen_through(net, image, target, saliency, score=score, mask=mask, fill=fill, batch_size=batch_size)  # noqa: E741
    return max(0.0, Y - O) / Y if Y > 0 else NAN


def increase_in_confidence(
    net: Any, image: Tensor, target: int | None, saliency: Tensor, *, score: Score = probability, mask: Gate = to_unit,
    fill: Fill = 0.0, batch_size: int = 8,
) -> float:  # fmt: skip
    """1 if the explanation map alone scores higher than the image, else 0; higher is better.

    score, mask, fill, batch_size: see `seen_through`. Paper: chattopadhay2018gradcampp, Sec. 4.1; mitra2024scorecampp, Eq. (14);
    the Increase of sattarzadeh2021sise. Deviation: the last prints sign(O - Y), which would count -1 for a fall.
    """
    Y, O = seen_through(net, image, target, saliency, score=score, mask=mask, fill=fill, batch_size=batch_size)  # noqa: E741
    return float(O > Y)


def signed_drop(
    net: Any, image: Tensor, target: int | None, saliency: Tensor, *, score: Score = probability, mask: Gate = to_unit,
    fill: Fill = 0.0, batch_size: int = 8,
) -> float:  # fmt: skip
    """Y - O, negative where the explanation map scores higher: what `win` compares.

    score, mask, fill, batch_size: see `seen_through`. Paper: mitra2024scorecampp, App. A.3.
    """
    Y, O = seen_through(net, image, target, saliency, score=score, mask=mask, fill=fill, batch_size=batch_size)  # noqa: E741
    return Y - O


def drop_in_logit(
    net: Any, image: Tensor, target: int | None, saliency: Tensor, *, score: Score = logit, mask: Gate = to_unit,
    fill: Fill = 0.0, batch_size: int = 8,
) -> float:  # fmt: skip
    """z(x) - z(x * (1 - S)): the logit lost when the explained part is taken out; higher is better.

    score, mask, fill, batch_size: see `seen_through`.
    Paper: mitra2024scorecampp, Sec. 6.4 and Table 7. Deviation: the paper gives no formula; the soft removal is ours.
    """
    whole, without = seen_through(
        net, image, target, saliency, score=score, mask=lambda s: 1 - mask(s), fill=fill, batch_size=batch_size
    )
    return whole - without


# -------------------------------------------------------------------------------------------- insertion and deletion


@dataclass(frozen=True)
class RankedMasks:
    """Masks of the highest pixels, more and more of them, made when asked for: `masks[i:j]` is `[j-i, H, W]`, bool.

    ranks: `[H, W]` as from `ranked`; counts: `[N]`, how many pixels each mask keeps.
    """

    ranks: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, chunk: slice) -> Tensor:
        return self.ranks < self.counts[chunk, None, None]


def ranked(saliency: Tensor) -> Tensor:
    """The place of each pixel from the highest down: map `[H, W] -> [H, W]` of 0 ... H*W-1; ties by position."""
    return saliency.flatten().argsort(descending=True, stable=True).argsort().reshape(saliency.shape)


def pixel_counts(pixels: int, steps: int, step_px: int | None) -> Tensor:
    """How many pixels are in after each step, from none to all of them: `[steps + 1]`. See `insertion_curve`."""
    if step_px is None:
        if not 1 <= steps <= pixels:
            raise ValueError(f"steps is {steps}; expected 1 to {pixels}, the number of pixels")
        return torch.arange(steps + 1) * pixels // steps
    if step_px < 1:
        raise ValueError(f"step_px is {step_px}; expected at least 1 pixel")
    return (torch.arange(-(-pixels // step_px) + 1) * step_px).clamp(max=pixels)


def exchanged(
    net: Any, start: Tensor, end: Tensor, target: int | None, saliency: Tensor, *, whole: int, steps: int, step_px: int | None,
    score: Score, batch_size: int, progress: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Scores on the way from image `start` to image `end`, whose pixels are exchanged from the highest of the map down.

    whole: the step at which the image is whole, 0 or -1: its first choice is the target `None`.
    """
    ranks = ranked(checked_map(saliency, end.shape[-2:])).to(end.device)  # [H, W]
    counts = pixel_counts(ranks.numel(), steps, step_px).to(end.device)  # [steps + 1]
    masks = RankedMasks(ranks, counts)
    logits = masked_logits(net, end, masks, fill=start, batch_size=batch_size, progress=progress)  # [steps + 1, K]
    scores = score(logits, checked_target(logits[whole], target))  # [steps + 1]
    return counts.double().cpu() / ranks.numel(), scores.double().cpu()


def insertion_curve(
    net: Any, image: Tensor, target: int | None, saliency: Tensor, *, fill: Fill = blur, steps: int = 28,
    step_px: int | None = None, score: Score = probability, batch_size: int = 8, progress: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Class scores while the pixels are put in, from the highest of the map down: fractions and scores, both `[steps + 1]`.

    fill: what stands where no pixel has been put in yet, see `filled`: `blur`, `partial(blur, kernel=51, sigma=50)`, 0 (the
    mean colour), `black(net)`, an image. steps: number of steps, as even as whole pixels allow; step_px: pixels a step, in
    place of `steps`; the last step takes what is left. The fractions are the true ones, from 0 to 1; both are on the CPU.
    Errors: ValueError for fewer than one step or pixel, or more steps than pixels. Paper: petsiuk2018rise.
    """
    return exchanged(
        net, filled(fill, image), image, target, saliency, whole=-1,
        steps=steps, step_px=step_px, score=score, batch_size=batch_size, progress=progress,
    )  # fmt: skip


def deletion_curve(
    net: Any, image: Tensor, target: int | None, saliency: Tensor, *, fill: Fill = 0.0, steps: int = 28,
    step_px: int | None = None, score: Score = probability, batch_size: int = 8, progress: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Class scores while the pixels are taken out, from the highest of the map down: fractions and scores, both `[steps + 1]`.

    fill: what stands where a pixel was, by default the mean colour; all settings are those of `insertion_curve`. It is the
    insertion of `fill` into the image. Paper: petsiuk2018rise.
    """
    return exchanged(
        net, image, filled(fill, image), target, saliency, whole=0,
        steps=steps, step_px=step_px, score=score, batch_size=batch_size, progress=progress,
    )  # fmt: skip


def area(fractions: Tensor, scores: Tensor) -> float:
    """Area under a curve over [0, 1], by the trapezoid rule: the mean score on the way. Both `[N]`.

    Deviation: the authors of petsiuk2018rise count a short last step as much as the others; we take the true fractions.
    """
    return float(torch.trapezoid(scores, fractions))


def insertion(
    net: Any, image: Tensor, target: int | None, saliency: Tensor, *, fill: Fill = blur, steps: int = 28,
    step_px: int | None = None, score: Score = probability, batch_size: int = 8,
) -> float:  # fmt: skip
    """Area under `insertion_curve`: how soon the class comes back as its pixels are put in; higher is better.

    The settings are those of `insertion_curve`. Paper: petsiuk2018rise; sannomiya2024layer, Sec. 4.1.
    """
    curve = insertion_curve(
        net, image, target, saliency, fill=fill, steps=steps, step_px=step_px, score=score, batch_size=batch_size
    )
    return area(*curve)


def deletion(
    net: Any, image: Tensor, target: int | None, saliency: Tensor, *, fill: Fill = 0.0, steps: int = 28,
    step_px: int | None = None, score: Score = probability, batch_size: int = 8,
) -> float:  # fmt: skip
    """Area under `deletion_curve`: how soon the class is gone as its pixels are taken out; lower is better.

    The settings are those of `insertion_curve`. Paper: petsiuk2018rise; sannomiya2024layer, Sec. 4.1.
    """
    curve = deletion_curve(
        net, image, target, saliency, fill=fill, steps=steps, step_px=step_px, score=score, batch_size=batch_size
    )
    return area(*curve)


# ------------------------------------------------------------------------------------------ the map against the truth


def against(saliency: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, bool]:
    """The checked map, the object's pixels, bool, both `[H, W]`, and whether there are such pixels and an order in the map."""
    S = checked_map(saliency, mask.shape)
    inside = mask.to(S.device) > 0.5  # [H, W]
    return S, inside, bool(inside.any()) and bool(S.amin() < S.amax())


def energy_inside(saliency: Tensor, mask: Tensor) -> float:
    """Energy-based pointing game: the share of the map's sum that lies inside `mask`; higher is better.

    Both `[H, W]`, the mask of 0 and 1. NaN for a map without positive values, a constant one, or an empty mask.
    Paper: wang2020scorecam, Sec. 4.3; sattarzadeh2021sise, "EBPG".
    Deviation: the papers' sum takes the values as they are. Ours counts them from the map's lowest up, and from 0 where that is
    negative: a map such as RISE's, whose values differ little from one another, would otherwise be a flat one.
    """
    S, inside, _ = against(saliency, mask)
    positive = S.relu().double()
    positive = positive - positive.min()
    total = positive.sum()
    return float((positive * inside).sum() / total) if total > 0 and inside.any() else NAN


def top_iou(saliency: Tensor, mask: Tensor, *, fraction: float = 0.2) -> float:
    """Intersection over union of `mask` and the map's highest pixels, floor(fraction * H * W) of them; higher is better.

    Both `[H, W]`, the mask of 0 and 1. NaN for a constant map, which has no highest pixels, and for an empty mask.
    Paper: sattarzadeh2021sise, "mIoU" (the mean over images is the caller's).
    """
    S, inside, defined = against(saliency, mask)
    top = keep_top(S, fraction) > 0  # [H, W]
    return float((top & inside).sum() / (top | inside).sum()) if defined else NAN


def top_inside(saliency: Tensor, mask: Tensor) -> float:
    """Of the map's n highest pixels the share inside `mask`, which has n pixels: size-adaptive; higher is better.

    Both `[H, W]`, the mask of 0 and 1, the paper's a bounding box. NaN for a constant map and for an empty mask.
    Paper: schulz2020iba; sattarzadeh2021sise, "Bbox".
    """
    S, inside, defined = against(saliency, mask)
    top = ranked(S) < inside.sum()  # [H, W]
    return float((top & inside).sum() / inside.sum()) if defined else NAN


def pointing_game(saliency: Tensor, mask: Tensor, *, tolerance: float = 15) -> float:
    """1 if the map's highest pixel is at most `tolerance` pixels from the nearest pixel of `mask`, else 0; higher is better.

    Both `[H, W]`, the mask of 0 and 1. The distance is Euclidean, between centres; of several highest pixels the first counts.
    NaN for a constant map, which points nowhere, and for an empty mask. The accuracy is the mean over the images of a class,
    then over classes: `evaluation.summary_by_class`. Paper: zhang2018excitation.
    """
    S, inside, defined = against(saliency, mask)
    if not defined:
        return NAN
    peak = torch.stack(torch.unravel_index(S.argmax(), S.shape))  # [2]
    distance = (inside.nonzero() - peak).double().norm(dim=1)  # [|G|]
    return float(distance.min() <= tolerance)


# -------------------------------------------------------------------------------------------- agreement of two maps


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's correlation of two maps `[H, W]`, from -1 to 1; equal values share their mean rank. NaN if one is constant."""
    x, y = (checked_map(s, a.shape).cpu().flatten() for s in (a, b))
    return float(spearmanr(x, y).statistic) if x.min() < x.max() and y.min() < y.max() else NAN


def top_agreement(a: Tensor, b: Tensor, *, fraction: float = 0.2) -> float:
    """Intersection over union of the highest pixels of two maps `[H, W]`, from 0 to 1. NaN if one is constant."""
    x, y = (checked_map(s, a.shape) for s in (a, b))
    return top_iou(x, keep_top(y.to(x), fraction), fraction=fraction) if y.amin() < y.amax() else NAN


def similarity(a: Tensor, b: Tensor) -> float:
    """Structural similarity (SSIM) of two maps `[H, W]`, both scaled to [0, 1], in windows of 7 x 7 pixels; 1 for equal maps.

    A constant map is one of zeros. Errors: ValueError for maps of fewer than 7 pixels a side. Paper: wang2004ssim.
    Deviation: all pixels of a window weigh alike, scikit-image's default; the paper weighs them with a Gaussian.
    """
    x, y = (to_unit(checked_map(s, a.shape).double()).cpu().numpy() for s in (a, b))
    return float(structural_similarity(x, y, data_range=1.0))


# ------------------------------------------------------------------------------------------------------ over images


def win(drops: pd.DataFrame, *, tolerance: float = 1e-5, ties: str = "split") -> pd.Series:
    """Win %: the share of images on which a method has the smallest drop, as fractions that sum to 1.

    drops: one row an image, one column a method, such as `signed_drop` gives (drops cut off at 0 would tie wherever several
    methods gain). tolerance: drops tie if they are no farther than this from the image's smallest, counted in units of its
    largest drop where that is more than 1, as of logits: single precision knows them no better. ties: "split" shares the point
    among those that tie; "first" gives it to the leftmost. A NaN never wins; an image where every method is NaN is left out.
    Paper: mitra2024scorecampp, App. A.3. The authors' code is `ties="first"` with `tolerance=0`: rounding decides between equals.
    """
    if ties not in ("split", "first"):
        raise ValueError(f"ties is {ties!r}; expected 'split' or 'first'")
    table = drops.dropna(how="all")
    if table.empty:
        return pd.Series(NAN, index=drops.columns)
    unit = table.abs().max(axis=1).clip(lower=1)
    best = table.sub(table.min(axis=1), axis=0).le(tolerance * unit, axis=0).astype(float)
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


# ------------------------------------------------------------------------------------------------ the papers' settings

CHATTOPADHAY2018GRADCAMPP = {"Average Drop": average_drop, "Increase in Confidence": increase_in_confidence}

WANG2020SCORECAM = {  # half of the image's pixels are muted
    "Average Drop": partial(average_drop, mask=partial(keep_top, fraction=0.5)),
    "Average Increase": partial(increase_in_confidence, mask=partial(keep_top, fraction=0.5)),
}

MITRA2024SCORECAMPP = {  # soft masks and, in the authors' code, raw logits
    "Average Drop": partial(average_drop, score=logit),
    "Increase in Confidence": partial(increase_in_confidence, score=logit),
    "Average drop in Logit": drop_in_logit,
}

SATTARZADEH2021SISE = {  # the highest 15 % of the pixels
    "Drop": partial(average_drop, mask=partial(keep_top, fraction=0.15)),
    "Increase": partial(increase_in_confidence, mask=partial(keep_top, fraction=0.15)),
}
SATTARZADEH2021SISE_TRUTH = {"EBPG": energy_inside, "mIoU": partial(top_iou, fraction=0.2), "Bbox": top_inside}

PETSIUK2018RISE = {  # as the authors' notebook does for its tables: 28 steps on 224 x 224 pixels, blur with zeros beyond the edge
    "Insertion": partial(insertion, fill=partial(blur, padding="constant"), step_px=224 * 8),
    "Deletion": partial(deletion, fill=0.0, step_px=224 * 8),
}

SANNOMIYA2024LAYER = {  # neither fill nor step is printed; insertion scores as low as the paper's suggest a plain fill
    "Insertion": partial(insertion, fill=0.0, step_px=224 * 8),
    "Deletion": partial(deletion, fill=0.0, step_px=224 * 8),
}
