"""Class activation maps from gradients: CAM, Grad-CAM, Grad-CAM++, XGrad-CAM, LayerCAM; what many copies add; FullGrad.

All but the last weigh the feature maps A `[C, h, w]` of one layer and add them up; they differ in the weights.
g is the gradient of the class score with respect to A. The first five take one forward and at most one backward pass,
Smooth Grad-CAM++ and Augmented Grad-CAM (++) one of each for every copy of the image. FullGrad needs no layer: it adds up
what the pixels and all biases of a network have to do with the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.core import (
    Score,
    cam_layer,
    explainer,
    features_and_gradient,
    features_of,
    frozen,
    logit,
    module_of,
    resize,
    to_unit,
)

Weigh = Callable[[Tensor, Tensor], Tensor]


@explainer
def cam(net: Any, image: Tensor, target: int, *, layer: str | None = None) -> Tensor:
    """Class activation map: the last linear layer's weights, laid over the feature maps. Not rectified.

    layer: where the features are, by default the Classifier's cam_layer or, if a pool stands between it and the mean, that pool.
    Returns: map `[H, W]`; where the class score falls below its bias the map is negative.
    Errors: ValueError if the logits are not exactly one linear layer on the mean of the features: only then is CAM defined.
    Paper: zhou2016cam, Eq. (2).
    """
    linear = [m for m in module_of(net).modules() if isinstance(m, nn.Linear)][-1:]
    default = layer is None
    for name in [cam_layer(net, layer), *(getattr(net, "selectable_layers", ())[-1:] if default else ())]:
        A = features_of(net, image, name)  # [C, h, w]
        if linear and averaged(net, image, linear[0], A):
            weights = linear[0].weight[target].detach()  # [C]
            return resize(torch.einsum("c,chw->hw", weights, A), image.shape[-2:])  # Eq. (2)
    raise ValueError(
        f"CAM needs logits = one linear layer on the mean of the features; this network has more in between {name!r} and its "
        f"logits, or less (its last linear layer: {linear[0] if linear else 'none'}): grad_cam needs no such thing"
    )


def averaged(net: Any, image: Tensor, linear: nn.Linear, features: Tensor) -> bool:
    """Whether the network's logits are this linear layer of the mean of the features `[C, h, w]`, up to rounding."""
    if linear.in_features != len(features):
        return False
    with torch.no_grad():
        logits, pooled = net(image[None])[0], F.linear(features.mean((1, 2)), linear.weight)  # [K] both
        if pooled.shape != logits.shape:
            return False
        without = logits if linear.bias is None else logits - linear.bias  # a large bias would hide what is not the same
    return bool((pooled - without).abs().max() <= 1e-3 * without.abs().max())


@explainer
def grad_cam(net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit) -> Tensor:
    """Grad-CAM: each feature map weighs as much as its mean gradient. Returns: map `[H, W]`, not negative.

    Paper: selvaraju2017gradcam, Eqs. (1) and (2); mitra2024scorecampp, Eqs. (1) and (2).
    """
    return resize(coarse_map(net, image, target, cam_layer(net, layer), score, mean_gradient), image.shape[-2:])


@explainer
def grad_cam_pp(net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit) -> Tensor:
    """Grad-CAM++: positive gradients only, each position weighed so that several objects count alike.

    Returns: map `[H, W]`, not negative. Paper: chattopadhay2018gradcampp, Eqs. (10) and (19): the score is taken
    through an exponential, so that the second and third derivatives are powers of g.
    Deviation: where the denominator is 0 so is the weight.
    """
    return resize(coarse_map(net, image, target, cam_layer(net, layer), score, positive_gradient), image.shape[-2:])


@explainer
def xgrad_cam(net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit) -> Tensor:
    """XGrad-CAM: gradients averaged with the features as weights, after two axioms (sensitivity, conservation).

    Returns: map `[H, W]`, not negative. Paper: fu2020xgradcam, Eq. (8).
    Deviation: a feature map whose positive and negative values cancel out, to a sum below 1e-5 of their sizes, has weight 0:
    what is left of such a sum is rounding.
    """
    A, g = features_and_gradient(net, image, target, cam_layer(net, layer), score)  # [C, h, w] both
    total = A.sum((1, 2))  # [C]
    sums = total.abs() > 1e-5 * A.abs().sum((1, 2))  # [C], bool
    weights = torch.where(sums, (A * g).sum((1, 2)) / torch.where(sums, total, 1), 0)  # Eq. (8): [C]
    return resize(torch.einsum("c,chw->hw", weights, A).relu(), image.shape[-2:])


@explainer
def layer_cam(net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit) -> Tensor:
    """LayerCAM: every position of every feature map has its own weight, its positive gradient.

    Returns: map `[H, W]`, not negative. Paper: jiang2021layercam, Eqs. (5) to (7).
    """
    A, g = features_and_gradient(net, image, target, cam_layer(net, layer), score)  # [C, h, w] both
    return resize((g.relu() * A).sum(0).relu(), image.shape[-2:])


def coarse_map(net: Any, image: Tensor, target: int, layer: str, score: Score, weigh: Weigh) -> Tensor:
    """Rectified sum of the feature maps at the layer's own size, not negative: `[h, w]`. weigh: `(A, g) -> weights [C]`."""
    A, g = features_and_gradient(net, image, target, layer, score)  # [C, h, w] both
    return torch.einsum("c,chw->hw", weigh(A, g), A).relu()  # selvaraju2017gradcam, Eq. (2)


def mean_gradient(A: Tensor, g: Tensor) -> Tensor:
    """Weights of Grad-CAM: `[C, h, w]` twice `-> [C]`."""
    return g.mean((1, 2))  # selvaraju2017gradcam, Eq. (1)


def positive_gradient(A: Tensor, g: Tensor) -> Tensor:
    """Weights of Grad-CAM++: `[C, h, w]` twice `-> [C]`."""
    return from_derivatives(A, g, g**2, g**3)


def from_derivatives(A: Tensor, D1: Tensor, D2: Tensor, D3: Tensor) -> Tensor:
    """Weights of Grad-CAM++ from the first, second and third derivatives of the score: `[C, h, w]` each `-> [C]`.

    Paper: chattopadhay2018gradcampp, Eqs. (10) and (19).
    """
    denominator = 2 * D2 + A.sum((1, 2), keepdim=True) * D3  # [C, h, w]
    alpha = torch.where(denominator != 0, D2 / torch.where(denominator != 0, denominator, 1), 0)  # Eq. (19)
    return (alpha * D1.relu()).sum((1, 2))  # Eq. (10)


# --------------------------------------------------------------------------------------------- many copies of the image


@explainer
def smooth_grad_cam_pp(
    net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit,
    copies: int = 25, noise: float = 0.15, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Smooth Grad-CAM++: Grad-CAM++ with each derivative averaged over noisy copies of the image.

    copies: how many, each one forward and one backward pass; noise: standard deviation of the Gaussian noise, as a share of
    the image's range of values. The features are those of the image itself.
    Returns: map `[H, W]`, not negative. Errors: ValueError without copies or for negative noise.
    Paper: omeiza2019smooth, its weights and alphas from averaged derivatives.
    Deviation: the paper prints the first derivatives in the numerator of alpha; ours are the second, as in Grad-CAM++.
    """
    if copies < 1 or noise < 0:
        raise ValueError(f"copies is {copies}, noise is {noise}; expected at least 1 copy and noise of at least 0")
    layer, generator = cam_layer(net, layer), torch.Generator().manual_seed(seed)
    sigma = noise * (image.max() - image.min())
    A = features_of(net, image, layer)  # [C, h, w]
    D1, D2, D3 = torch.zeros_like(A), torch.zeros_like(A), torch.zeros_like(A)
    for _ in range(copies):
        copy = image + sigma * torch.randn(image.shape, generator=generator).to(image)
        g = features_and_gradient(net, copy, target, layer, score)[1]  # [C, h, w]
        D1, D2, D3 = D1 + g / copies, D2 + g**2 / copies, D3 + g**3 / copies
    weights = from_derivatives(A, D1, D2, D3)  # [C]
    return resize(torch.einsum("c,chw->hw", weights, A).relu(), image.shape[-2:])


@explainer
def augmented_grad_cam(
    net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit, copies: int = 100,
    angle: float = 0.5, shift: float = 30 / 224, seed: int = 0,
    tv: float = 2e-3, energy: float = 1e-4, steps: int = 200, lr: float = 1e-2,
) -> Tensor:  # fmt: skip
    """Augmented Grad-CAM: one sharp map that accounts for the coarse Grad-CAMs of many turned and shifted copies of the image.

    copies: how many, each one forward and one backward pass; the first is the image as it is; angle: the largest turn, in
    radians; shift: the largest shift, as a share of the sides; tv, energy, steps, lr: see `super_resolved`; steps=0 gives the
    mean of the maps turned back.
    Returns: map `[H, W]`, not negative. Errors: ValueError without copies or for negative steps.
    Paper: morbidelli2020augmented. Deviation: see `super_resolved`.
    """
    if copies < 1 or steps < 0:
        raise ValueError(f"copies is {copies}, steps is {steps}; expected at least 1 copy and steps of at least 0")
    moves = random_moves(copies, angle, shift, image, seed)  # [n, 2, 3]
    seen = coarse_maps(net, image, target, cam_layer(net, layer), score, mean_gradient, moves)  # [n, h, w]
    return super_resolved(seen, moves, image.shape[-2:], tv, energy, steps, lr)


@explainer
def augmented_grad_cam_pp(
    net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit, copies: int = 100,
    angle: float = 0.5, shift: float = 30 / 224, seed: int = 0,
    tv: float = 2e-3, energy: float = 1e-4, steps: int = 200, lr: float = 1e-2,
) -> Tensor:  # fmt: skip
    """Augmented Grad-CAM++: `augmented_grad_cam` with Grad-CAM++ on every copy. Settings and returns are the same.

    Paper: gao2023augmented; morbidelli2020augmented.
    """
    if copies < 1 or steps < 0:
        raise ValueError(f"copies is {copies}, steps is {steps}; expected at least 1 copy and steps of at least 0")
    moves = random_moves(copies, angle, shift, image, seed)  # [n, 2, 3]
    seen = coarse_maps(net, image, target, cam_layer(net, layer), score, positive_gradient, moves)  # [n, h, w]
    return super_resolved(seen, moves, image.shape[-2:], tv, energy, steps, lr)


def coarse_maps(net: Any, image: Tensor, target: int, layer: str, score: Score, weigh: Weigh, moves: Tensor) -> Tensor:
    """The coarse maps of moved copies `[n, h, w]`, one copy at a time."""
    return torch.stack([coarse_map(net, moved(image, move), target, layer, score, weigh) for move in moves])


def random_moves(copies: int, angle: float, shift: float, image: Tensor, seed: int) -> Tensor:
    """Random turns and shifts `[n, 2, 3]`, the first of them none: places of the copy to those of the image, from -1 to 1."""
    H, W = image.shape[-2:]
    draws = torch.rand(copies, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1  # [n, 3]
    turn, (x, y) = draws[:, 0] * angle, (draws[:, 1:] * 2 * shift).T  # [n] each; the sides are 2 long
    cos, sin = turn.cos(), turn.sin()
    rows = torch.stack([torch.stack([cos, -sin * H / W, x], 1), torch.stack([sin * W / H, cos, y], 1)], 1)  # [n, 2, 3]
    rows[0] = torch.eye(2, 3)
    return rows.to(image)


def moved(x: Tensor, move: Tensor) -> Tensor:
    """The picture `[C, H, W]` turned and shifted, 0 where it does not reach; same shape."""
    places = F.affine_grid(move[None], [1, *x.shape], align_corners=False)  # [1, H, W, 2]
    return F.grid_sample(x[None], places, align_corners=False)[0]


def turned_back(maps: Tensor, moves: Tensor, size: Sequence[int]) -> Tensor:
    """Maps of moved copies put back in place: the mean over the copies that show a pixel. `[n, h, w] -> [H, W]`."""
    last = moves.new_tensor([0, 0, 1]).expand(len(moves), 1, 3)
    back = torch.linalg.inv(torch.cat([moves, last], 1))[:, :2]  # [n, 2, 3]
    total, shown = maps.new_zeros(*size), maps.new_zeros(*size)
    for coarse, move in zip(maps, back, strict=True):
        put, seen = moved(torch.stack([resize(coarse, size), torch.ones_like(total)]), move)  # [H, W] both
        total, shown = total + put, shown + seen
    return total / shown.clamp_min(1e-6)


def super_resolved(
    maps: Tensor, moves: Tensor, size: Sequence[int], tv: float, energy: float, steps: int, lr: float
) -> Tensor:  # fmt: skip
    """The sharp map h that, moved like copy i (A_i) and made coarse (D), is nearest to its map g_i: `[n, h, w] -> [H, W]`.

    Adam takes `steps` steps of `lr` down the mean over the copies of `||D A_i h - g_i||^2`, plus tv times the total variation
    of h (absolute differences of neighbours), plus energy / 2 times `||h||^2`, all in units of the largest g.
    Paper: morbidelli2020augmented, its super-resolution.
    Deviation: the authors start from 0 with a rate of 0.001, which moves a pixel by about 0.2 in 200 steps; ours starts from the
    maps turned back, with 0.01. They scale each copy's map by its own largest value. Their D picks single pixels, ours averages
    4 x 4 places in each coarse cell.
    """
    scale = maps.max().clamp_min(torch.finfo(maps.dtype).tiny)
    g, h = maps / scale, (turned_back(maps, moves, size) / scale).requires_grad_()  # [n, h, w], [H, W]
    per_cell = min(4, math.ceil(size[0] / maps.shape[1]))  # places in each cell of a coarse map, in a row and in a column
    fine = [len(g), 1, *(per_cell * side for side in g.shape[1:])]
    places = F.affine_grid(moves, fine, align_corners=False).flatten(0, 1)[None]  # [1, n*4h, 4w, 2]
    adam = torch.optim.Adam([h], lr=lr)
    for _ in range(steps):
        with torch.enable_grad():
            copied = F.grid_sample(h[None, None], places, align_corners=False)  # A h: [1, 1, n*4h, 4w]
            error = F.avg_pool2d(copied, per_cell).reshape(g.shape) - g  # D A h - g: [n, h, w]
            variation = h.diff(dim=0).abs().sum() + h.diff(dim=1).abs().sum()
            loss = error.square().sum() / len(g) + tv * variation + energy / 2 * h.square().sum()
            (h.grad,) = torch.autograd.grad(loss, h)
        adam.step()
    return h.detach().relu() * scale


# ------------------------------------------------------------------------------------------------------------- FullGrad


@explainer
def full_grad(net: Any, image: Tensor, target: int) -> Tensor:
    """FullGrad: what the pixels and the biases of every layer with positions have to do with the class score, added up.

    The pieces are those of `full_gradients`; each is taken without its sign, stretched to [0, 1] (over a layer, all its
    channels together), resized and summed over channels and layers. Biases behind the last layer with positions have none.
    Returns: map `[H, W]`, not negative. Errors: ValueError where the pieces do not add up to the logit.
    Paper: srinivas2019fullgrad, its FullGrad saliency.
    Deviation: the paper's sum stretches each channel by itself, the authors' code, like ours, a layer: channels without much to
    say would count as much as the others. `align_corners=False`; the authors' code has True.
    """
    of_pixels, of_biases = full_gradients(net, image, target)
    pieces = [of_pixels, *(piece for piece in of_biases if piece.dim() == 3)]  # [C, h, w] each
    return torch.stack([resize(stretched(piece.abs()).sum(0), image.shape[-2:]) for piece in pieces]).sum(0)


def full_gradients(net: Any, image: Tensor, target: int) -> tuple[Tensor, list[Tensor]]:
    """Full gradients: the logit of a class taken apart into image times gradient, and each layer's bias times gradient.

    A layer's bias is what it puts out at its input u beyond its linear part J u: for a convolution or a batch norm in evaluation
    mode the same number everywhere, for a ReLU nothing, for a ReLU6 the six where it is clipped.
    Returns: `[3, H, W]`, and for each layer with a bias `[C, h, w]` or `[K]`. All their values add up to the logit exactly.
    Errors: ValueError where they do not: the network has biases or products outside its modules, as transformers and gates do.
    Paper: srinivas2019fullgrad, its decomposition of the score (completeness).
    """
    entered: dict[nn.Module, Tensor] = {}
    biased: list[tuple[Tensor, Tensor]] = []  # what a layer puts out, its bias
    x = image.detach().clone().requires_grad_()

    def enter(module: nn.Module, given: tuple[Any, ...]) -> None:
        if len(given) == 1 and isinstance(given[0], Tensor):
            entered[module] = given[0].detach().clone()  # a ReLU in place would overwrite it

    def leave(module: nn.Module, _given: Any, output: Any) -> Any:
        u = entered.pop(module, None)
        bias = bias_of(module, u) if u is not None and isinstance(output, Tensor) else None
        if bias is None or not output.requires_grad:
            return output
        biased.append((output.clone(), bias.detach()))
        return biased[-1][0].clone()  # the next layer may work in place

    with frozen(net), torch.enable_grad(), ExitStack() as hooks:
        for module in module_of(net).modules():
            if not list(module.children()):
                hooks.callback(module.register_forward_pre_hook(enter).remove)
                hooks.callback(module.register_forward_hook(leave).remove)
        f = net(x[None])[0, target]
        gradients = torch.autograd.grad(f, [x, *(output for output, _ in biased)], materialize_grads=True)
    of_pixels = x.detach() * gradients[0]  # [3, H, W]
    of_biases = [(bias * g)[0] for (_, bias), g in zip(biased, gradients[1:], strict=True)]  # [C, h, w] or [K]
    f, total = f.detach(), of_pixels.sum() + sum(piece.sum() for piece in of_biases)
    size = f.abs() + of_pixels.sum().abs() + sum(piece.sum().abs() for piece in of_biases)
    if not (total - f).abs() <= 1e-4 * size:
        raise ValueError(
            f"FullGrad needs a logit that its parts add up to; here it is {float(f):.4g} and they give {float(total):.4g}: "
            "this network has biases or products outside its layers (class tokens, attention, gates)"
        )
    return of_pixels, of_biases


def bias_of(module: nn.Module, u: Tensor) -> Tensor | None:
    """What a layer adds to its linear part at the input u, in a shape that broadcasts to its output; None if nothing."""
    if isinstance(module, nn.Linear):
        if u.dim() == 4:
            raise ValueError(f"FullGrad needs features [N, C, h, w]; a linear layer of this network is given {list(u.shape)}")
        return module.bias
    if isinstance(module, nn.modules.conv._ConvNd):
        return None if module.bias is None else module.bias[:, None, None]
    with torch.enable_grad():
        output = module.forward(u.requires_grad_().clone())  # .forward: without the hooks
        v = torch.zeros_like(output, requires_grad=True)
        try:
            (pulled,) = torch.autograd.grad(output, u, v, create_graph=True)  # J^T v
            (linear,) = torch.autograd.grad(pulled, v, u)  # J u
        except RuntimeError as error:
            raise ValueError(
                f"FullGrad needs the linear part of every layer; {module} has none that torch can take: {error}"
            ) from error
    bias = (output - linear).detach()
    return bias if bias.abs().max() > 1e-6 * output.abs().max() else None


def stretched(piece: Tensor) -> Tensor:
    """All values of a layer `[C, h, w]` scaled onto [0, 1]; a constant layer becomes zeros."""
    return to_unit(piece.flatten(1)).reshape(piece.shape)
