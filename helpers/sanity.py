"""Maps that explain nothing, with the signature of an explainer: what a real explanation has to differ from.

Source: adebayo2018sanity (edge detector, randomised weights: `models.randomised`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.core import explainer, resize


@explainer
def edge_map(net: Any, image: Tensor, target: int) -> Tensor:
    """Sobel edge strength of the picture: knows nothing of the network. Returns `[H, W]`."""
    grey = F.pad(image.mean(0)[None, None], (1, 1, 1, 1), mode="replicate")  # [1, 1, H+2, W+2]
    sobel = image.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    edges = F.conv2d(grey, torch.stack([sobel, sobel.T])[:, None])[0]  # [2, H, W]
    return edges.norm(dim=0)


@explainer
def random_map(net: Any, image: Tensor, target: int, *, grid: int = 7, seed: int = 0) -> Tensor:
    """Uniform noise on a grid x grid lattice, made as smooth as a CAM by the resizing. Returns `[H, W]`."""
    noise = torch.rand(grid, grid, generator=torch.Generator().manual_seed(seed))
    return resize(noise.to(image), image.shape[-2:])


@explainer
def centred_blob(net: Any, image: Tensor, target: int, *, width: float = 0.25) -> Tensor:
    """A Gaussian in the middle of the picture, `width` of its sides as standard deviation. Returns `[H, W]`."""
    y, x = (torch.linspace(-0.5, 0.5, n, dtype=image.dtype, device=image.device) for n in image.shape[-2:])
    return torch.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * width**2))
