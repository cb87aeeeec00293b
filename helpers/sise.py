"""SISE: at the end of each block the image is seen through its feature maps, and the maps of all blocks are fused.

Four phases: the feature maps A `[C, h, w]` of every block's last layer; those of them that speak for the class, by the sign
of a gradient; a map V of each layer, where a pixel earns the scores of the masks that show it; the fusion, shallow to deep.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helpers.core import (
    Score,
    capture,
    checked_image,
    checked_target,
    explainer,
    frozen,
    layer_names,
    log_probability,
    logit,
    probability,
    recorded,
    sigmoid,
    to_unit,
)
from helpers.masks import FeatureMasks, Gate, masked_logits, otsu, weighted_sum

STEEP: dict[Score, Score] = {probability: log_probability, sigmoid: logit}  # same sign and order, but no flat end near 1


@dataclass(frozen=True)
class LayerMap:
    """What SISE finds at one layer of C feature maps, and how.

    V: map `[H, W]` in [0, 1]; alpha: mean gradients `[C]`; kept: channels `[n]` that masked the image; scores: theirs `[n]`.
    """

    layer: str
    V: Tensor
    alpha: Tensor
    kept: Tensor
    scores: Tensor


def otsu_mask(V: Tensor) -> Tensor:
    """1 where a map `[H, W]` lies above its Otsu threshold, 0 elsewhere. Paper: otsu1979threshold."""
    return (otsu(V) < V).to(V)


def soft_otsu_mask(V: Tensor, *, sharpness: float = 100, tau: float = 1.5, share: float = 0.1) -> Tensor:
    """Otsu's mask as the authors' code has it: map `[H, W]` -> a sigmoid around the threshold, nearly binary.

    The threshold is tau times Otsu's where fewer than this share of the pixels lie above that, else Otsu's own.
    """
    t = otsu(V)
    return (sharpness * (V - (tau * t if (tau * t < V).double().mean() < share else t))).sigmoid()


def fuse(maps: Sequence[Tensor], *, binarise: Gate = otsu_mask) -> Tensor:
    """Fusion cascade: maps `[H, W]` in [0, 1], shallow to deep -> map `[H, W]` in [0, 1].

    Each deeper map is added, and then decides what stays: `binarise(V)` is multiplied in. binarise: `otsu_mask`, as the paper
    has it; `soft_otsu_mask`; or `lambda V: V` for the deeper map itself. Paper: sattarzadeh2021sise, Fusion Module and Fig. 5.
    """
    E = maps[0]
    for V in maps[1:]:
        E = (E + V) * binarise(V)
    return to_unit(E)


def adaptive_mu(alpha: Tensor) -> float:
    """Ada-SISE's mu for one layer: Otsu's threshold of its positive gradients `[C]`, as a share of the largest.

    Use: `sise(net, image, mu=adaptive_mu)`. Paper: sudhakar2021adasise, of which we could read the abstract only.
    Deviation: unknown; that mu is Otsu's threshold, and of which values, is our deduction from what Ada-SISE sets out to do.
    """
    positive = alpha[alpha > 0]
    return otsu(positive / positive.max()) if len(positive) else 0.0


@explainer
def sise(
    net: Any, image: Tensor, target: int, *, layers: Sequence[str] | None = None, mu: float | Callable[[Tensor], float] = 0.0,
    score: Score = probability, area_norm: bool = True, binarise: Gate = otsu_mask, fill: Tensor | float = 0.0,
    batch_size: int = 8, progress: bool = False,
) -> Tensor:  # fmt: skip
    """SISE: one forward pass for each feature map whose gradient speaks for the class, at the end of every block.

    layers: the Classifier's block_layers by default, fused in the network's own order; mu: only gradients above this share of
    the layer's largest count, a number in [0, 1) or a function of the gradients `[C]` such as `adaptive_mu`; score: of the
    masked copies, `core.sigmoid` for multi-label networks; area_norm: False pays large masks as much per pixel as small ones;
    binarise: see `fuse`; fill, batch_size, progress: see `masks.masked_logits`. `sise_layers` gives what lies between.
    Returns: map `[H, W]` in [0, 1]; of two layers or more, with `otsu_mask`, it is 0 wherever the deepest one's mask is.
    Errors: those of `sise_layers`.
    Paper: sattarzadeh2021sise, Eqs. (6) to (12). Deviation: see `sise_layers`.
    """
    found = sise_layers(
        net, image, target, layers=layers, mu=mu, score=score, area_norm=area_norm, fill=fill, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    return fuse([layer.V for layer in found], binarise=binarise)


def sise_layers(
    net: Any, image: Tensor, target: int | None = None, *, layers: Sequence[str] | None = None,
    mu: float | Callable[[Tensor], float] = 0.0, score: Score = probability, area_norm: bool = True, fill: Tensor | float = 0.0,
    batch_size: int = 8, progress: bool = False,
) -> list[LayerMap]:  # fmt: skip
    """SISE before the fusion: what each layer shows, shallow to deep. Settings as in `sise`.

    Errors: ValueError without layers (a transformer names none, for none of its layers halves the resolution: pass layers=[…]),
    for mu outside [0, 1), where a layer's maps are all constant, and for scores that are not finite; TypeError for one name in
    place of several. Warns where no gradient at a layer is positive (the paper leaves it open): the strongest map alone is kept.
    Paper: sattarzadeh2021sise, Eqs. (6) to (12).
    Deviation: the gradient is that of the logarithm, which keeps its sign and order but not its flatness near 1, and a mean
    over positions where Eq. (6) has a sum; V is scaled to [0, 1], as in the authors' code; constant maps mask nothing.
    """
    names = layer_names(net, layers, "block_layers")
    if not callable(mu) and not 0 <= mu < 1:
        raise ValueError(f"mu is {mu}; expected 0 up to, but not including, 1: the share of the largest gradient")
    with torch.inference_mode(False), frozen(net):
        image = checked_image(net, image)
        features, target = features_and_gradients(net, image, target, names, STEEP.get(score, score))
        found = []
        for name, A, g in features:  # [C, h, w] both
            alpha = g.mean((1, 2))  # Eq. (6): [C]
            kept = selected(name, A, alpha, mu)  # [n]
            size = (image.shape[1], image.shape[2])
            M = FeatureMasks(A[kept], size, to_unit)  # Eq. (7): [n, H, W]
            logits = masked_logits(net, image, M, fill=fill, batch_size=batch_size, progress=progress)
            scores = finite(score(logits, target).clone(), f"the scores of the copies masked at layer {name!r}")  # [n]
            C = FeatureMasks(A[kept], size, contribution if area_norm else to_unit)
            V = weighted_sum(scores / len(scores), C)  # Eqs. (10) and (12): [H, W]
            found.append(LayerMap(name, to_unit(V), alpha, kept, scores))
    return found


def contribution(features: Tensor) -> Tensor:
    """Scale upsampled maps to masks, and share the 1 of each among its pixels: `[N, H, W]`, same shape."""
    m = to_unit(features)
    return m / m.sum((-2, -1), keepdim=True).clamp(min=1)  # Eq. (11); no less than 1 unless the mask is 0 everywhere


def selected(layer: str, features: Tensor, alpha: Tensor, mu: float | Callable[[Tensor], float]) -> Tensor:
    """Channels `[n]` with a gradient above mu times the largest, constant ones aside; never none: `[C, h, w], [C] -> [n]`."""
    changing = features.amax((1, 2)) > features.amin((1, 2))  # [C]
    if not changing.any():
        raise ValueError(f"all {len(features)} feature maps of layer {layer!r} are constant: there is nothing to mask with")
    beta = alpha.max()  # Eq. (8)
    kept = changing & (alpha > (mu(alpha) if callable(mu) else mu) * beta)  # Eq. (7)
    if beta <= 0:
        warnings.warn(f"SISE: no gradient at layer {layer!r} is positive; its strongest map alone is kept", stacklevel=2)
    if beta <= 0 or not kept.any():
        return torch.where(changing, alpha, -torch.inf).argmax()[None]
    return kept.nonzero()[:, 0]


def features_and_gradients(
    net: Any, image: Tensor, target: int | None, layers: Sequence[str], score: Score
) -> tuple[list[tuple[str, Tensor, Tensor]], int]:
    """Name, features and gradient, both `[C, h, w]`, of all layers, shallow to deep, from one forward and one backward pass.

    With them comes the target, the network's first choice if there was none.
    """
    with torch.enable_grad(), capture(net, layers) as seen:
        logits = net(image[None])  # [1, K]
        target = checked_target(logits[0], target)
        features = {name: recorded(seen, name) for name in [*seen, *layers]}  # in the order of the forward pass
        gradients = torch.autograd.grad(score(logits, target).sum(), list(features.values()), materialize_grads=True)
    found = [(name, A[0].detach(), g[0]) for (name, A), g in zip(features.items(), gradients, strict=True)]
    for name, _, g in found:
        finite(g, f"the gradients at layer {name!r}")
    return found, target


def finite(values: Tensor, what: str) -> Tensor:
    """The values. Errors: ValueError where one is NaN or infinite: scaling would hide it."""
    if not values.isfinite().all():
        raise ValueError(f"sise: {what} hold NaN or infinity")
    return values
