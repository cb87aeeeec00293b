"""Class activation maps from one forward and at most one backward pass: CAM, Grad-CAM, Grad-CAM++, XGrad-CAM, LayerCAM.

All of them weigh the feature maps A `[C, h, w]` of one layer and add them up; they differ in the weights.
g is the gradient of the class score with respect to A.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from helpers.core import Score, cam_layer, explainer, features_and_gradient, features_of, logit, module_of, resize


@explainer
def cam(net: Any, image: Tensor, target: int, *, layer: str | None = None) -> Tensor:
    """Class activation map: the last linear layer's weights, laid over the feature maps. Not rectified.

    Returns: map `[H, W]`; where the class score falls below its bias the map is negative.
    Errors: ValueError if the logits are not exactly one linear layer on the mean of the features: only then is CAM defined.
    Paper: zhou2016cam, Eq. (2).
    """
    features = features_of(net, image, cam_layer(net, layer))  # [C, h, w]
    linear = [m for m in module_of(net).modules() if isinstance(m, nn.Linear)][-1:]
    if not linear or linear[0].in_features != len(features):
        raise ValueError(f"CAM needs one linear layer on {len(features)} pooled features; this network has {linear or 'none'}")
    with torch.no_grad():
        pooled, logits = linear[0](features.mean((1, 2))), net(image[None])[0]  # [K] both
        if pooled.shape != logits.shape or not torch.allclose(pooled, logits, rtol=1e-3, atol=1e-3):
            raise ValueError("CAM needs logits = linear(mean of the features); this network does more in between: use grad_cam")
    weights = linear[0].weight[target].detach()  # [C]
    return resize(torch.einsum("c,chw->hw", weights, features), image.shape[-2:])  # Eq. (2)


@explainer
def grad_cam(net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit) -> Tensor:
    """Grad-CAM: each feature map weighs as much as its mean gradient. Returns: map `[H, W]`, not negative.

    Paper: selvaraju2017gradcam, Eqs. (1) and (2); mitra2024scorecampp, Eqs. (1) and (2).
    """
    A, g = features_and_gradient(net, image, target, cam_layer(net, layer), score)  # [C, h, w] both
    weights = g.mean((1, 2))  # Eq. (1): [C]
    return resize(torch.einsum("c,chw->hw", weights, A).relu(), image.shape[-2:])  # Eq. (2)


@explainer
def grad_cam_pp(net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit) -> Tensor:
    """Grad-CAM++: positive gradients only, each position weighed so that several objects count alike.

    Returns: map `[H, W]`, not negative. Paper: chattopadhay2018gradcampp, Eqs. (10) and (19): the score is taken
    through an exponential, so that the second and third derivatives are powers of g.
    Deviation: where the denominator is 0 so is the weight.
    """
    A, g = features_and_gradient(net, image, target, cam_layer(net, layer), score)  # [C, h, w] both
    denominator = 2 * g**2 + A.sum((1, 2), keepdim=True) * g**3  # [C, h, w]
    alpha = torch.where(denominator != 0, g**2 / torch.where(denominator != 0, denominator, 1), 0)  # Eq. (19)
    weights = (alpha * g.relu()).sum((1, 2))  # Eq. (10): [C]
    return resize(torch.einsum("c,chw->hw", weights, A).relu(), image.shape[-2:])


@explainer
def xgrad_cam(net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit) -> Tensor:
    """XGrad-CAM: gradients averaged with the features as weights, after two axioms (sensitivity, conservation).

    Returns: map `[H, W]`, not negative. A feature map that sums to 0 has weight 0. Paper: fu2020xgradcam, Eq. (8).
    """
    A, g = features_and_gradient(net, image, target, cam_layer(net, layer), score)  # [C, h, w] both
    total = A.sum((1, 2))  # [C]
    weights = torch.where(total != 0, (A * g).sum((1, 2)) / torch.where(total != 0, total, 1), 0)  # Eq. (8): [C]
    return resize(torch.einsum("c,chw->hw", weights, A).relu(), image.shape[-2:])


@explainer
def layer_cam(net: Any, image: Tensor, target: int, *, layer: str | None = None, score: Score = logit) -> Tensor:
    """LayerCAM: every position of every feature map has its own weight, its positive gradient.

    Returns: map `[H, W]`, not negative. Paper: jiang2021layercam, Eqs. (5) to (7).
    """
    A, g = features_and_gradient(net, image, target, cam_layer(net, layer), score)  # [C, h, w] both
    return resize((g.relu() * A).sum(0).relu(), image.shape[-2:])
