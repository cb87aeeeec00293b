"""Score-CAM and ScoreCAM++: feature maps weighed by the score of the image seen through them. No gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.core import Score, cam_layer, explainer, features_of, probability, resize, to_unit
from helpers.masks import FeatureMasks, Gate, masked_logits, weighted_sum


def sigmoid_of_relu(x: Tensor) -> Tensor:
    """The sigmoid of the positive part: half where a feature is absent. A variant in the authors' code of mitra2024scorecampp."""
    return x.relu().sigmoid()


# The gates of mitra2024scorecampp, Table 5, in its order; then that of the authors' code, and Score-CAM's own.
GATES: Mapping[str, Gate] = {
    "Tanh": torch.tanh, "ReLU": torch.relu, "Sigmoid": torch.sigmoid, "Mish": F.mish, "Swish": F.silu,
    "Sigmoid of ReLU": sigmoid_of_relu, "min-max": to_unit,
}  # fmt: skip


@explainer
def score_cam(
    net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = probability, baseline: Tensor | None = None,
    normalise: Callable[[Tensor], Tensor] | None = None, fill: Tensor | float = 0.0, batch_size: int = 8, progress: bool = False,
) -> Tensor:  # fmt: skip
    """Score-CAM: mask the image with each upsampled feature map scaled to [0, 1]; its score is that map's weight.

    baseline: an image `[3, H, W]` whose score is subtracted from every weight (the paper's X_b), none by default as in
    the authors' code; normalise: a function of the weights `[C]`, such as `partial(torch.softmax, dim=0)`; fill, batch_size,
    progress: see `masks.masked_logits`. Constant feature maps are skipped: scaled, they would mask everything.
    Returns: map `[H, W]`, not negative. Paper: wang2020scorecam, Eqs. (4) to (6); mitra2024scorecampp, Eqs. (3) to (7).
    Deviation: the denominator of mitra2024scorecampp, Eq. (7), is printed with the wrong sign.
    """
    A = changing(features_of(net, image, cam_layer(net, layer)))  # [C, h, w]
    H = FeatureMasks(A, (image.shape[1], image.shape[2]), to_unit)  # Eqs. (6) and (7): [C, H, W]
    weights = confidence(net, image, target, H, score, baseline, normalise, fill, batch_size, progress)  # Eqs. (4), (5): [C]
    return resize(torch.einsum("c,chw->hw", weights, A), image.shape[-2:]).relu()  # Eq. (3)


@explainer
def score_cam_pp(
    net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = probability, gate: Gate = torch.tanh,
    gate_sum: bool = True, baseline: Tensor | None = None, normalise: Callable[[Tensor], Tensor] | None = None,
    fill: Tensor | float = 0.0, batch_size: int = 8, progress: bool = False,
) -> Tensor:  # fmt: skip
    """ScoreCAM++: Score-CAM with tanh in place of the scaling to [0, 1], on the masks and on the maps that are added up.

    gate: what is done to the upsampled feature maps (the paper's Table 5 tries others); gate_sum: False adds the plain
    feature maps (its Table 6); baseline: pass `image` itself for Eq. (10) as printed, which gives a blank map wherever
    masking lowers the score; the other settings are those of `score_cam`.
    Returns: map `[H, W]`, not negative. Paper: mitra2024scorecampp, Eqs. (9) to (12).
    Deviation: the authors' code, like ours, subtracts no baseline and takes tanh after upsampling, not before as in Eq. (9).
    """
    A = present(features_of(net, image, cam_layer(net, layer)), gate)  # [C, h, w]
    H = FeatureMasks(A, (image.shape[1], image.shape[2]), gate)  # Eqs. (11) and (12): [C, H, W]
    weights = confidence(net, image, target, H, score, baseline, normalise, fill, batch_size, progress)  # Eq. (10): [C]
    if not gate_sum:
        return resize(torch.einsum("c,chw->hw", weights, A), image.shape[-2:]).relu()
    return weighted_sum(weights, H).relu()  # Eq. (9)


def confidence(
    net: Any, image: Tensor, target: int, masks: FeatureMasks, score: Score, baseline: Tensor | None,
    normalise: Callable[[Tensor], Tensor] | None, fill: Tensor | float, batch_size: int, progress: bool,
) -> Tensor:  # fmt: skip
    """Weights `[N]`: the score of each masked copy, less that of the baseline image if there is one."""
    weights = score(masked_logits(net, image, masks, fill=fill, batch_size=batch_size, progress=progress), target)  # [N]
    if baseline is not None:
        with torch.no_grad():
            weights = weights - score(net(baseline[None]), target)
    return weights if normalise is None else normalise(weights)


def changing(features: Tensor) -> Tensor:
    """Feature maps without those that are constant: `[C, h, w] -> [C', h, w]`. Errors: ValueError if none is left."""
    return some(features, features.amin((1, 2)) != features.amax((1, 2)))


def present(features: Tensor, gate: Gate) -> Tensor:
    """Feature maps without those that are 0 everywhere, where the gate leaves them so: `[C, h, w] -> [C', h, w]`.

    Exact: they add nothing. A gate such as the sigmoid makes a mask of them: all maps stay. Errors: ValueError if none is left.
    """
    if gate(torch.zeros_like(features[:1])).any():
        return features
    return some(features, features.flatten(1).any(1))


def some(features: Tensor, kept: Tensor) -> Tensor:
    """The feature maps `[C, h, w]` that are kept `[C]`, one at least."""
    if not kept.any():
        raise ValueError(f"all {len(features)} feature maps are constant: there is nothing to mask with at this layer")
    return features[kept]
