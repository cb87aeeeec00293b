"""Gradual Extrapolation: a coarse map, sharpened step by step with the activity of the layers before it.

It goes around any map, or any explainer. Level by level, from deep to shallow, the map is resized to the level and
multiplied with the mean of its feature maps; it gains the shape of what the network saw, and keeps its evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.core import Explainer, cam_layer, capture, explainer, layer_names, recorded, resize, to_unit

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

    coarse: the explainer whose map is sharpened, such as `cam.grad_cam`, or a map `[h, w]`, taken as it is unless `layer` is
    given. An explainer's map has the size of the image already: it is brought back to the size of `layer`, see `to_size`.
    layer: has to be the one that the explainer reads, by default the network's layer for class activation maps; for contrastive
    excitation backprop it is `backprop.middle_layer(net, None)`. levels: layers, by default `net.level_layers`, gone through
    against the network's own order; include_deeper, contribution: see `extrapolate`; finish: done to the map at last, such
    as `zscore_clip`.
    Returns: map `[H, W]`, not negative; zeros where the coarse map or a level has nothing.
    Errors: ValueError where the network has one resolution only, as a vision transformer has, and for a map of the image's
    size without a layer: there would be nothing left to go through.
    Paper: szandala2021gradual, Section III. Deviation: the paper goes through "each MaxPool layer"; the levels are one for each
    resolution, in VGG16 the pools' outputs and the features before the first, as in the author's code.
    """
    names = level_names(net, levels)
    at = None if isinstance(coarse, Tensor) and layer is None else cam_layer(net, layer)
    with torch.no_grad(), capture(net, list(dict.fromkeys([*names, *([at] if at else [])]))) as seen:
        net(image[None])
    found = {name: recorded(seen, name)[0] for name in [*seen, *names] if name in names}  # [C, h, w] each, shallow to deep
    features = list(found.values())
    if len(features) > 1 and len({x.shape[-2:] for x in features}) == 1:
        raise ValueError(
            f"all levels have the resolution {list(features[0].shape[-2:])}: there is nothing to extrapolate through"
        )
    h = coarse.to(image) if isinstance(coarse, Tensor) else coarse(net, image, target)
    if at is None and h.shape == image.shape[-2:] and len(features) > 1 and not include_deeper:
        raise ValueError(
            f"the map {list(h.shape)} is as large as the image, so that all levels below would be skipped: "
            "pass layer=…, the layer that it was read at, to bring it down to that layer's size first"
        )
    h = to_size(h, recorded(seen, at).shape[-2:]) if at else h  # [h, w]
    fine = resize(extrapolate(h, features, include_deeper=include_deeper, contribution=contribution), image.shape[-2:])
    return finish(fine) if finish else fine


def to_size(saliency: Tensor, size: Sequence[int]) -> Tensor:
    """The map `[H, W]` at another size `(h, w)`: every pixel counts where it shrinks, by area; it is resized where it grows.

    A map that was resized from h by w comes back a little smoother: three quarters of each value, along either axis, and an
    eighth of both neighbours.
    """
    smaller = (min(saliency.shape[-2], size[0]), min(saliency.shape[-1], size[1]))
    return resize(F.adaptive_avg_pool2d(saliency[None], smaller)[0], size)


def level_names(net: Any, levels: Sequence[str] | None) -> tuple[str, ...]:
    """The layers to go through. Errors: TypeError for one name in place of several; ValueError where there are none."""
    if levels is None and not getattr(net, "level_layers", ()) or levels is not None and not len(levels):
        raise ValueError(
            "Gradual Extrapolation needs layers of several resolutions, and "
            f"{getattr(net, 'name', type(net).__name__)} names none, as no network of one resolution only does: "
            "pass levels=[…], or wrap a plain nn.Module with models.from_module"
        )
    return layer_names(net, levels, "level_layers")


def masked_image(image: Tensor, saliency: Tensor, *, threshold: float | None = None, fill: Tensor | float = 0.0) -> Tensor:
    """The image multiplied by its map, for the question what the network still sees: `[3, H, W], [H, W] -> [3, H, W]`.

    The map is scaled to [0, 1]. threshold: keep the pixels above it as they are, and no others; fill: what stands elsewhere,
    0 is the mean colour. Errors: ValueError for a map of another size, or with NaN or infinity.
    Paper: szandala2021gradual, Section V, whose tables speak both of multiplying and of a threshold.
    """
    if saliency.shape != image.shape[-2:] or not saliency.isfinite().all():
        raise ValueError(
            f"an image {list(image.shape)} takes a finite map {list(image.shape[-2:])}; "
            f"this one is {list(saliency.shape)}, NaN or infinite: {not saliency.isfinite().all()}"
        )
    mask = to_unit(saliency)
    mask = mask if threshold is None else (mask > threshold).to(mask)
    return image * mask + torch.as_tensor(fill, dtype=image.dtype, device=image.device) * (1 - mask)
