"""Methods that only ask what the network says of changed copies of the image: occlusion, RISE, extremal perturbations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import trange

from helpers.core import Score, explainer, log_probability, probability, resize
from helpers.masks import masked_logits, weighted_sum

# ------------------------------------------------------------------------------------------------------ occlusion


@explainer
def occlusion(
    net: Any, image: Tensor, target: int, *, window: int | None = None, stride: int | None = None, score: Score = probability,
    fill: Tensor | float = 0.0, batch_size: int = 8, progress: bool = False,
) -> Tensor:  # fmt: skip
    """Occlusion, or muted pixels: how much the score drops when a square window is covered, wherever it can stand.

    window: side of the square in pixels, a seventh of the shorter side by default (32 of 224); stride: pixels from one place
    to the next, half a window by default; the last window in each direction ends at the border, so that every pixel is covered.
    fill, batch_size, progress: see `masks.masked_logits`. Returns: map `[H, W]`: the mean drop over the windows that cover the
    pixel, negative where covering it helps. Errors: ValueError for a window beyond the image, and a stride beyond the window.
    Paper: zeiler2014visualizing; tamboli2021survey, muting pixels. Deviation: neither says how large a window is.
    """
    H, W = image.shape[1:]
    window = round(min(H, W) / 7) or 1 if window is None else window
    stride = (window + 1) // 2 if stride is None else stride
    if not 1 <= stride <= window <= min(H, W):
        raise ValueError(f"window is {window}, stride {stride}; expected 1 <= stride <= window <= {min(H, W)}, the shorter side")
    rows, columns = strips(H, window, stride).to(image), strips(W, window, stride).to(image)  # [a, H], [b, W]
    covered = masked_logits(net, image, Windows(rows, columns), fill=fill, batch_size=batch_size, progress=progress)
    with torch.no_grad():
        drops = score(net(image[None]), target) - score(covered, target)  # [a * b]
    total = torch.einsum("ij,iy,jx->yx", drops.reshape(len(rows), len(columns)), rows, columns)  # [H, W]
    return total / (rows.sum(0)[:, None] * columns.sum(0))  # a pixel lies under (windows over its row) * (over its column)


def strips(length: int, window: int, stride: int) -> Tensor:
    """Where windows stand along one side: `[n, length]`, row i is 1 under window i; the last one ends at the border."""
    starts = torch.tensor([*range(0, length - window, stride), length - window])[:, None]  # [n, 1]
    place = torch.arange(length)
    return ((starts <= place) & (place < starts + window)).float()


@dataclass(frozen=True)
class Windows:
    """Masks that cover one window each, row by row, drawn when they are asked for. rows: `[a, H]`, columns: `[b, W]`."""

    rows: Tensor
    columns: Tensor

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __getitem__(self, chunk: slice) -> Tensor:
        k = torch.arange(len(self), device=self.rows.device)[chunk]
        i, j = k // len(self.columns), k % len(self.columns)
        return 1 - self.rows[i, :, None] * self.columns[j, None, :]  # [n, H, W]


# ----------------------------------------------------------------------------------------------------------- RISE


@explainer
def rise(
    net: Any, image: Tensor, target: int, *, samples: int = 4000, grid: int = 7, p: float = 0.5, seed: int = 0,
    score: Score = probability, fill: Tensor | float = 0.0, batch_size: int = 8, progress: bool = False,
) -> Tensor:  # fmt: skip
    """RISE: the image through random smooth masks; each pixel earns the scores of the masks that show it.

    samples: how many masks (the paper: 4,000 for VGG16, 8,000 for ResNet-50); grid: cells along each side before enlarging;
    p: share of the cells that show the image; score: `core.sigmoid` for multi-label networks; fill, batch_size, progress:
    see `masks.masked_logits`. The same seed draws the same masks for any batch size and device.
    Returns: map `[H, W]`, the estimate of the mean score given that the pixel shows; what it says lies in its differences.
    Paper: petsiuk2018rise, Eq. (6). Deviation: a cell's side is rounded up to whole pixels, where the paper rounds it down; its
    authors' code rounds up too, for else some shifts would leave the enlarged grid. Implementations divide by N or by N p;
    that only scales the map.
    """
    if samples < 1 or grid < 1 or not 0 < p < 1:
        raise ValueError(f"samples is {samples}, grid {grid}, p {p}; expected at least 1, at least 1, and 0 < p < 1")
    M = random_masks(samples, grid, p, (image.shape[1], image.shape[2]), seed, image)  # [N, H, W], drawn when asked for
    scores = score(masked_logits(net, image, M, fill=fill, batch_size=batch_size, progress=progress), target)  # [N]
    return weighted_sum(scores / (samples * p), M)  # Eq. (6)


@dataclass(frozen=True)
class RandomMasks:
    """Small random grids, each enlarged and shifted when it is asked for: `masks[i:j]` is `[j-i, H, W]` in [0, 1].

    cells: `[N, g, g]`, 1 shows; shifts: `[N, 2]`, rows and columns cut off at the top and the left; cell: `(height, width)`
    of an enlarged cell in pixels; size: `(H, W)`.
    """

    cells: Tensor
    shifts: Tensor
    cell: tuple[int, int]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, chunk: slice) -> Tensor:
        (H, W), g = self.size, self.cells.shape[-1]
        large = resize(self.cells[chunk], [(g + 1) * side for side in self.cell])  # one cell more than the image has room for
        return torch.stack([m[y : y + H, x : x + W] for m, (y, x) in zip(large, self.shifts[chunk].tolist(), strict=True)])


def random_masks(samples: int, grid: int, p: float, size: tuple[int, int], seed: int, like: Tensor) -> RandomMasks:
    """RISE's masks for images of one size, of the type and on the device of `like`. Paper: petsiuk2018rise."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.rand(samples, grid, grid, generator=generator) < p
    cell = (-(-size[0] // grid), -(-size[1] // grid))
    shifts = torch.stack([torch.randint(side, (samples,), generator=generator) for side in cell], 1)  # [N, 2]
    return RandomMasks(cells.to(like), shifts, cell, size)


# ------------------------------------------------------------------------------------------ extremal perturbations


@explainer
def extremal_perturbation(
    net: Any, image: Tensor, target: int, *, areas: Sequence[float] = (0.1,), steps: int = 150, grid: int = 32,
    sigma: float = 21 / 224, blur: float = 20 / 224, weights: tuple[float, float] = (1, 100), lr: float = 0.3,
    score: Score = log_probability, progress: bool = False,
) -> Tensor:  # fmt: skip
    """Extremal perturbation: the smooth mask of a given area through which the class scores highest; the rest is blurred.

    areas: shares of the image, one search of `steps` forward and backward passes each; grid: cells along the shorter side
    that are searched over (32: one in 7 pixels of 224); sigma: how far a cell reaches, blur: of what is fully masked, both as
    shares of the shorter side; weights: of the area term, at the first and after the last step, the same factor from step to
    step; lr: learning rate, momentum is 0.9; score: what the mask shall raise, `core.sigmoid` for multi-label networks;
    where the class is certain whatever is blurred, the default has no gradient and `core.logit` may do better.
    The search starts from the whole image; nothing is random. It is a local search, and it can fail: compare the probability
    through the mask, `reveal`, with that of the image before trusting it. Of 11 drawn scenes (the defaults were chosen on 6)
    the class kept 0.98 or more on 10 and was lost on one; on a photograph of a cat it fell from 0.79 to 0.03 in 100 steps.
    Returns: map `[H, W]`, the sum of the masks, each in [0, 1].
    Errors: ValueError for areas outside (0, 1) or of no pixel, fewer than one step or grid cell, and no width, weight or rate.
    Paper: fong2019extremal. Deviation: theirs is the logit, an area term of 300 * 1.0035^t and a rate of 0.01 over 800 steps. On
    our networks that fixed the order of the cells with the first gradients, and the mask often missed; with the logit it also
    went for values far above those of the whole image. So the area weighs little at first, and the score is one that ends.
    The area term is a mean over pixels, so that its weight means the same at every size, and sets in after the first step, for
    before it all of the mask is alike and its order would be that of rounding errors; the kernel is a product, which lets the
    maximum be taken along columns and then along rows, many times faster.
    """
    if not areas or not all(0 < a < 1 and round(a * image[0].numel()) for a in areas):
        raise ValueError(f"areas is {areas}; expected at least one, all between 0 and 1 and of a pixel or more")
    if min(steps, grid) < 1 or min(sigma, blur, lr, *weights) <= 0:
        raise ValueError(
            f"steps is {steps}, grid {grid}, sigma {sigma}, blur {blur}, weights {weights}, lr {lr}; "
            "expected steps and grid of at least 1, and all others above 0"
        )
    *shape, margin = grid_of(image, grid, sigma)
    mask = partial(max_convolution, size=image.shape[1:], sigma=sigma, margin=margin)
    levels = blur_levels(image, blur * min(image.shape[1:]))  # [L, 3, H, W]
    total, (first, last) = torch.zeros_like(image[0]), weights
    for area in areas:
        cells = image.new_full(shape, 1.0, requires_grad=True)  # [h, w]
        optimiser = torch.optim.SGD([cells], lr=lr, momentum=0.9)
        for t in trange(steps, desc=f"area {area:g}", unit="step", disable=not progress, leave=False):
            with torch.enable_grad():
                m = mask(cells)  # [H, W]
                y = score(net(reveal(m, levels)[None]), target).sum()
                weight = first * (last / first) ** (t / steps) if t else 0  # at first all of the mask is alike, and has no order
                loss = weight * area_penalty(m, area) - y
            (cells.grad,) = torch.autograd.grad(loss, cells)
            optimiser.step()
            cells.data.clamp_(0, 1)
        total = total + mask(cells.detach())
    return total


def area_penalty(m: Tensor, area: float) -> Tensor:
    """How far a mask `[H, W]` is from one that is 1 on this share of the pixels and 0 elsewhere, wherever that is: a number.

    The sorted values are held against a ramp r of zeros and then ones. Paper: fong2019extremal.
    """
    r = torch.zeros(m.numel()).to(m)
    r[m.numel() - round(area * m.numel()) :] = 1
    return (m.flatten().sort().values - r).square().mean()


def smooth_max(f: Tensor, dim: int, *, temperature: float = 1 / 20) -> Tensor:
    """A maximum with a gradient for all entries: the mean of f weighted by exp(f / T). Paper: fong2019extremal."""
    return (f * (f / temperature).softmax(dim)).sum(dim)


def max_convolution(
    cells: Tensor, size: Sequence[int], sigma: float, *, margin: int = 0, temperature: float = 1 / 20
) -> Tensor:  # fmt: skip
    """Enlarge a grid to a smooth mask that stays in [0, 1] and reaches 1: `[h, w] -> [H, W]`; margin: see `offsets`.

    Pixel u gets max over v of k(u - v) * cells[v]. k is 1 at 0, flat on top, and 1/e at sigma (a share of the shorter side)
    along either axis; as it is a product, the maximum is one over columns, then one over rows. Paper: fong2019extremal.
    """
    (h, w), (H, W) = cells.shape, size
    k_rows, k_columns = (
        (-((u / (sigma * min(H, W))) ** 4)).exp().to(cells) for u in (offsets(H, h, margin), offsets(W, w, margin))
    )
    along = smooth_max(k_columns * cells[:, None, :], -1, temperature=temperature)  # [h, W]
    return smooth_max(k_rows[:, None, :] * along.T, -1, temperature=temperature)  # [H, W]


def offsets(pixels: int, cells: int, margin: int = 0) -> Tensor:
    """Distances along one side, in pixels, from each pixel to each cell, centre to centre: `[pixels, cells]`.

    margin: so many of the cells lie beyond the image at either end.
    """
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5 - margin) * pixels / (cells - 2 * margin) - 0.5
    return torch.arange(pixels, dtype=torch.float64)[:, None] - centres


def blur_levels(image: Tensor, sigma: float, *, count: int = 8) -> Tensor:
    """The image, blurred more and more up to sigma pixels: `[3, H, W] -> [count, 3, H, W]`; level 0 is the image itself."""
    levels = [image]
    for s in torch.linspace(0, sigma, count)[1:].tolist():
        rows, columns = ((-(offsets(n, n) ** 2) / (2 * s**2)).softmax(1).to(image) for n in image.shape[1:])  # [H, H], [W, W]
        levels.append(torch.einsum("iy,cyx,jx->cij", rows, image, columns))
    return torch.stack(levels)


def reveal(m: Tensor, levels: Tensor) -> Tensor:
    """The image as sharp as a mask `[H, W]` says: level 0 where it is 1, the last level where it is 0; `[3, H, W]`."""
    depth = (1 - m) * (len(levels) - 1)
    weights = torch.stack([(1 - (depth - i).abs()).relu() for i in range(len(levels))])  # [L, H, W]
    return torch.einsum("lyx,lcyx->cyx", weights, levels)


def grid_of(image: Tensor, grid: int, sigma: float) -> tuple[int, int, int]:
    """Rows, columns and margin of nearly square cells, `grid` along the image's shorter side and no smaller than a pixel.

    As far as they reach into the image, cells beyond its border count too: without them, corners would differ from the start.
    """
    H, W = image.shape[1:]
    cell = max(min(H, W) / grid, 1)
    margin = math.ceil(1.5 * sigma * min(H, W) / cell)
    return round(H / cell) + 2 * margin, round(W / cell) + 2 * margin, margin
