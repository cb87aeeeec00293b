"""Gradual Extrapolation: a coarse map, sharpened step by step with the activity of the layers before it.

It goes around any map, or any explainer. Level by level, from deep to shallow, the map is resized to the level and
multiplied with the mean of its feature maps; it gains the shape of what the network saw, and keeps its evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from helpers.core import Explainer, cam_layer, capture, explainer, recorded, resize, to_unit

Contribution = Callable[[Tensor], Tensor]  # features [C, h, w] -> matrix [h, w]


def mean_contribution(features: Tensor) -> Tensor:
    """Contribution matrix of a level: the mean of its feature maps, at most 1. `[C, h, w] -> [h, w]`.

    Where nothing is active the matrix is zero. Paper: szandala2021gradual, Eq. (1) and the division by the maximum after it.
    Deviation: absolute values, which are the paper's where features are not negative, as after a ReLU. Without them the
    signed features of linear bottlenecks (EfficientNet-Lite) cancel, and the map falls to pieces.
    """
    C = features.abs().mean(0)  # Eq. (1): [h, w]
    return C / C.max() if C.any() else C


def sum_contribution(features: Tensor) -> Tensor:
    """The contribution of the author's code: the sum of the feature maps, by their largest value. `[C, h, w] -> [h, w]`.

    On one image that is `mean_contribution` times a constant. Source: szandala2021gradual's code, there over a whole batch.
    """
    total = features.abs().sum(0)
    return total / features.abs().max() if total.any() else total


def extrapolate(
    coarse: Tensor, levels: Sequence[Tensor], *, include_deeper: bool = False, contribution: Contribution = mean_contribution
) -> Tensor:
    """A finer map from a coarse one: `[h, w]` and levels `[C, h', w']`, shallow to deep, give a map of the finest level's size.

    Negative values of the map count as zero. Levels coarser than the map are skipped, levels of its size are not;
    include_deeper: the author's code goes through all of them, and so makes the map coarser first.
    Errors: ValueError for shapes that do not fit, and where no level is as fine as the map.
    Paper: szandala2021gradual, Section III.
    """
    if coarse.dim() != 2 or any(x.dim() != 3 for x in levels):
        given = [list(x.shape) for x in (coarse, *levels)]
        raise ValueError(f"extrapolate takes a map [h, w] and levels [C, h, w]; given are {given}")
    used = [x for x in levels if include_deeper or x.shape[-1] >= coarse.shape[-1] and x.shape[-2] >= coarse.shape[-2]]
    if not used:
        raise ValueError(f"no level is as fine as the map {list(coarse.shape)}: there are {[list(x.shape) for x in levels]}")
    h = coarse.relu()
    for x in reversed(used):  # deep to shallow
        h = resize(h, x.shape[-2:]) * contribution(x).to(h)
    return h


def zscore_clip(saliency: Tensor) -> Tensor:
    """The look of the author's maps: standardised, cut off at one deviation from the mean, scaled to [0, 1].

    Map `[H, W]`, same shape. A constant map becomes zeros. Source: szandala2021gradual's code; not in the paper.
    """
    centred = saliency - saliency.mean()
    return to_unit((centred / saliency.std()).clamp(-1, 1)) if to_unit(saliency).any() else torch.zeros_like(saliency)


@explainer
def gradual_extrapolation(
    net: Any, image: Tensor, target: int, *, coarse: Explainer | Tensor, layer: str | None = None,
    levels: Sequence[str] | None = None, include_deeper: bool = False, contribution: Contribution = mean_contribution,
    finish: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Gradual Extrapolation of any map on any network with several resolutions.

    coarse: the explainer whose map is sharpened, such as `cam.grad_cam`, or a map `[h, w]`, taken as it is. An explainer's
    map has the size of the image already: it is brought back to the size of `layer`, the one that it was read at, by default
    the network's layer for class activation maps. levels: layers, shallow to deep, by default `net.level_layers`;
    include_deeper, contribution: see `extrapolate`; finish: done to the map at last, such as `zscore_clip`.
    Returns: map `[H, W]`, not negative; zeros where the coarse map or a level has nothing.
    Errors: ValueError where the network has one resolution only, as a vision transformer has.
    Paper: szandala2021gradual, Section III. Deviation: the paper goes through "each MaxPool layer"; the levels are one for each
    resolution, in VGG16 the pools' outputs and the features before the first, as in the author's code.
    """
    names = chosen_levels(net, levels)
    at = None if isinstance(coarse, Tensor) and layer is None else cam_layer(net, layer)
    with torch.no_grad(), capture(net, list(dict.fromkeys([*names, *([at] if at else [])]))) as seen:
        net(image[None])
    features = [recorded(seen, name)[0] for name in names]  # [C, h, w] each
    if len(names) > 1 and len({x.shape[-2:] for x in features}) == 1:
        raise ValueError(
            f"all levels have the resolution {list(features[0].shape[-2:])}: there is nothing to extrapolate through"
        )
    h = coarse.to(image) if isinstance(coarse, Tensor) else coarse(net, image, target)
    h = resize(h, recorded(seen, at).shape[-2:]) if at else h  # [h, w]
    fine = resize(extrapolate(h, features, include_deeper=include_deeper, contribution=contribution), image.shape[-2:])
    return finish(fine) if finish else fine


def chosen_levels(net: Any, levels: Sequence[str] | None) -> Sequence[str]:
    """The layers to go through. Errors: TypeError for one name in place of several; ValueError where there are none."""
    if isinstance(levels, str):
        raise TypeError(f"levels are several layer names, shallow to deep, not one name, {levels!r}")
    names = levels if levels is not None else getattr(net, "level_layers", None)
    if names is None:
        raise ValueError(
            "a plain nn.Module does not say which layers are its levels: pass levels=…, or wrap it with models.from_module"
        )
    if not names:
        raise ValueError(
            "Gradual Extrapolation needs layers of several resolutions; this network has one only, or levels is empty"
        )
    return names


def seen_through(image: Tensor, saliency: Tensor, *, threshold: float | None = None, fill: Tensor | float = 0.0) -> Tensor:
    """The image multiplied by its map, for the question what the network still sees: `[3, H, W], [H, W] -> [3, H, W]`.

    The map is scaled to [0, 1]. threshold: keep the pixels above it as they are, and no others; fill: what stands elsewhere,
    0 is the mean colour. Paper: szandala2021gradual, Section V, whose tables speak both of multiplying and of a threshold.
    """
    mask = to_unit(saliency)
    mask = mask if threshold is None else (mask > threshold).to(mask)
    return image * mask + torch.as_tensor(fill, dtype=image.dtype, device=image.device) * (1 - mask)
