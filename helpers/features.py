"""What a network looks for, with or without a picture: feature maps, first filters, and images made by climbing a score.

These are no explainers: they return feature maps or images. The network is frozen while they work and comes back as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur
from tqdm.auto import tqdm

from helpers.core import (
    Explainer,
    cam_layer,
    capture,
    checked_image,
    checked_target,
    features_of,
    frozen,
    module_of,
    recorded,
    to_unit,
)

View = Callable[[Tensor, torch.Generator], Tensor]  # an image [3, H, W] and random numbers -> the same, seen a little otherwise
Gate = Callable[[Tensor], Tensor]  # the image so far [3, H, W] -> how far each pixel may change, [H, W] in [0, 1]


# --------------------------------------------------------------------------------------------------- what is there already


def activation_maps(net: Any, image: Tensor, *, layer: str | None = None) -> tuple[Tensor, Tensor]:
    """The feature maps of one layer as pictures, the channel with the highest activation first.

    Returns: maps `[C, h, w]`, each scaled to [0, 1] by itself (a constant one is 0), and the channel numbers `[C]`.
    Errors: TypeError for a layer without positions: its units stand in no order that an eye could use.
    Paper: yosinski2015understanding; tamboli2021survey, Sec. II-A.
    """
    with torch.inference_mode(False), frozen(net):
        features = features_of(net, checked_image(net, image), cam_layer(net, layer))  # [C, h, w]
    channels = features.amax((1, 2)).argsort(descending=True, stable=True)  # [C]
    return to_unit(features[channels]), channels


def first_filters(net: Any) -> Tensor:
    """The filters of the first convolution as small RGB pictures `[C, 3, k, k]`, each scaled to [0, 1] over its colours together.

    Errors: ValueError where the first convolution does not see three colours. Paper: zeiler2014visualizing; tamboli2021survey.
    """
    first = next((m for m in module_of(net).modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.weight.shape[1] != 3:
        raise ValueError(f"the first convolution has to see 3 colour channels; this network has {first or 'no convolution'}")
    filters = first.weight.detach()  # [C, 3, k, k]
    return to_unit(filters.flatten(2)).reshape(filters.shape)


# -------------------------------------------------------------------------------------------------- images made from noise


def blurred(image: Tensor, sigma: float) -> Tensor:
    """The image `[3, H, W]` under a Gaussian blur of so many pixels."""
    return gaussian_blur(image, [4 * int(sigma) + 1] * 2, [sigma, sigma])


def total_variation(image: Tensor) -> Tensor:
    """How much neighbours differ: the mean of |step down| plus the mean of |step right| over an image `[3, H, W]`."""
    return image.diff(dim=1).abs().mean() + image.diff(dim=2).abs().mean()


def same(image: Tensor, generator: torch.Generator) -> Tensor:
    """The image as it is: the view that changes nothing."""
    return image


def random_view(
    image: Tensor, generator: torch.Generator, *, degrees: float = 10.0, zoom: float = 0.1, shift: float = 0.07, tint: float = 0.1
) -> Tensor:
    """The image `[3, H, W]` turned, scaled, shifted and tinted a little at random: only what survives it is climbed on.

    degrees: turned by as much either way; zoom: larger or smaller by this fraction; shift: of the height and the width, what
    comes into sight is mirrored; tint: added to each colour, in preprocessed units.
    """
    r = 2 * torch.rand(7, generator=generator, dtype=torch.float64) - 1  # [7], from -1 to 1
    angle, scale, (H, W) = math.radians(degrees * float(r[0])), 1 + zoom * float(r[1]), image.shape[-2:]
    c, s = math.cos(angle) / scale, math.sin(angle) / scale
    right, down = (2 * shift * float(v) for v in r[2:4])  # the image is 2 wide and 2 high here
    matrix = image.new_tensor([[c, -s * H / W, right], [s * W / H, c, down]])
    grid = F.affine_grid(matrix[None], [1, *image.shape], align_corners=False)  # [1, H, W, 2]
    seen = F.grid_sample(image[None], grid, padding_mode="reflection", align_corners=False)[0]  # [3, H, W]
    return seen + tint * r[4:].to(image)[:, None, None]


def activation_maximisation(
    net: Any, unit: int, *, layer: str | None = None, steps: int = 100, lr: float = 0.1, weight_decay: float = 1e-6,
    tv: float = 0.0, view: View = same, side: int | None = None, seed: int = 0, progress: bool = False,
) -> Tensor:  # fmt: skip
    """An image that one unit likes: from noise uphill, on a channel's mean activation or on the logit of a class.

    unit: a channel of `layer`, or without a layer a class; the other settings are those of `climb`.
    Returns: image `[3, side, side]`, preprocessed. Errors: ValueError for a unit that is not there.
    Paper: tamboli2021survey, Sec. II; simonyan2014saliency, Eq. (1). Deviation: Adam, as is usual since, and clipped pixels.
    """

    def goal(image: Tensor) -> Tensor:
        with capture(net, [] if layer is None else [layer]) as seen:
            logits = net(image[None])[0]  # [K]
        units = logits if layer is None else recorded(seen, layer)[0].mean((1, 2))  # [K] or [C]
        return units[checked_unit(units, unit, layer)]

    settings: dict[str, Any] = {"tv": tv, "view": view, "side": side, "seed": seed, "progress": progress}
    return climb(net, goal, steps=steps, lr=lr, weight_decay=weight_decay, **settings)


def checked_unit(units: Tensor, unit: int, layer: str | None) -> int:
    """The number of a class, or of a channel of `layer`. Errors: ValueError or TypeError saying which there are."""
    try:
        return checked_target(units, unit)
    except (ValueError, TypeError) as error:
        if layer is None:
            raise
        raise type(error)(f"layer {layer!r} has channels 0 to {len(units) - 1}; unit {unit!r} is none of them") from None


def class_impression(
    net: Any, target: int | Sequence[int], *, saliency: Explainer | None = None, warm_up: int = 100, gate_every: int = 20,
    steps: int = 400, lr: float = 0.05, tv: float = 100.0, view: View = random_view, weight_decay: float = 0.0,
    blur_every: int = 0, side: int | None = None, seed: int = 0, progress: bool = False,
) -> Tensor:  # fmt: skip
    """What the network has in mind for a class: from noise uphill on its logit, seen each time turned, scaled and tinted.

    target: a class, or several to be fused into one image (the sum of their logits); saliency: any explainer; from step
    `warm_up` on, every `gate_every` steps, its map of the image so far says where the image may go on changing, and what
    lies elsewhere is blurred: that drives out the background; a map that is blank holds nothing back. The other settings are
    those of `climb`.
    With `view=same, tv=0, weight_decay=1e-4, blur_every=4` it is the plain class image that is blurred now and then.
    Returns: image `[3, side, side]`, preprocessed. Errors: ValueError for a class that is not there, or none.
    Paper: addepalli2020saliency; tamboli2021survey, Sec. II-B. Deviation: neither says how the saliency drives, nor any
    setting; the gate and the defaults are ours.
    """
    targets: list[Any] = list(target) if isinstance(target, (list, tuple)) else [target]
    if not targets:
        raise ValueError("a class impression needs at least one class; the list of targets is empty")

    def goal(image: Tensor) -> Tensor:
        logits = net(image[None])[0]  # [K]
        return torch.stack([logits[checked_target(logits, c)] for c in targets]).sum()

    def gate(image: Tensor) -> Tensor:
        assert saliency is not None
        return torch.stack([to_unit(saliency(net, image, c)) for c in targets]).amax(0)  # [H, W]

    settings: dict[str, Any] = {"weight_decay": weight_decay, "blur_every": blur_every, "side": side, "seed": seed}
    gating: dict[str, Any] = {"gate": gate if saliency else None, "warm_up": warm_up, "gate_every": gate_every}
    return climb(net, goal, steps=steps, lr=lr, tv=tv, view=view, progress=progress, **settings, **gating)


def climb(
    net: Any, goal: Callable[[Tensor], Tensor], *, steps: int, lr: float, weight_decay: float = 0.0, tv: float = 0.0,
    view: View = same, blur_every: int = 0, gate: Gate | None = None, warm_up: int = 0, gate_every: int = 20,
    side: int | None = None, seed: int = 0, progress: bool = False,
) -> Tensor:  # fmt: skip
    """From noise, `steps` steps of Adam uphill on `goal`, a function of one image that gives one number.

    lr, weight_decay: of Adam; tv: weight of `total_variation`, which is subtracted from the goal; view: what is done to the
    image before the goal sees it, such as `random_view`; blur_every: blur after so many steps, 0 for never; gate, warm_up,
    gate_every: see `class_impression`; side: of the image, the network's own by default; seed: of all random numbers.
    Pixels stay in the range of real ones where `net` is a Classifier, which knows its preprocessing.
    Returns: image `[3, side, side]`, with steps=0 the noise. Errors: ValueError for steps below 0, for gate_every below 1, and
    where the goal is NaN or infinite, naming the step.
    """
    if steps < 0 or gate_every < 1:
        raise ValueError(f"steps is {steps} and gate_every {gate_every}; expected at least 0 and 1")
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False), torch.enable_grad(), frozen(net):
        x = noise(net, side, generator)  # [3, side, side]
        low, high = pixel_range(net, x)
        allowed = torch.ones_like(x[0])  # [side, side]
        climber = torch.optim.Adam([x.requires_grad_()], lr=lr, weight_decay=weight_decay)
        for step in tqdm(range(steps), desc="climbing", unit="step", disable=not progress, leave=False):
            if gate is not None and step >= warm_up and (step - warm_up) % gate_every == 0:
                shown = gate(x.detach())
                allowed = shown if shown.any() else torch.ones_like(shown)  # a blank map says nothing: all stays open
                x.data = allowed * x.data + (1 - allowed) * blurred(x.data, 2.0)
            y = goal(view(x, generator)) - tv * total_variation(x)
            if not y.isfinite():
                raise ValueError(f"what is climbed is NaN or infinite at step {step} of {steps}")
            before = x.detach().clone()
            (x.grad,) = torch.autograd.grad(-y, [x])
            climber.step()
            x.data = (before + allowed * (x.data - before)).clamp(low, high)
            if blur_every and (step + 1) % blur_every == 0:
                x.data = blurred(x.data, 1.0)
    return x.detach()


def noise(net: Any, side: int | None, generator: torch.Generator) -> Tensor:
    """Noise `[3, side, side]` of standard deviation 0.1 about the mean colour, like the network's weights in type and device."""
    side = side if side is not None else getattr(net, "side", None)
    if side is None:
        raise ValueError("a plain nn.Module does not say how large its images are: pass side=…, or use models.from_module")
    x = 0.1 * torch.randn(3, side, side, generator=generator, dtype=torch.float64)
    return x.to(next(module_of(net).parameters()))


def pixel_range(net: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value `[3, 1, 1]` that a pixel of a real picture has once preprocessed; else no bounds."""
    mean, std = getattr(net, "mean", None), getattr(net, "std", None)
    if mean is None or std is None:
        return like.new_tensor(-math.inf), like.new_tensor(math.inf)
    mean, std = like.new_tensor(mean)[:, None, None], like.new_tensor(std)[:, None, None]
    return (0 - mean) / std, (1 - mean) / std
