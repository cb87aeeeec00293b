"""Figures in one style: a picture, the map laid over it, and tables of ours beside the paper's.

Colours: `MAP_COLOURS` rises in lightness, so that it survives grey printing and colour-blind readers; `SIGNED_COLOURS`
is for maps with a sign, zero in the middle; `LINES` is Okabe and Ito's set.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from helpers.core import to_unit

MAP_COLOURS, SIGNED_COLOURS = "inferno", "PuOr"
LINES = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]


def use_book_style() -> None:
    """The book's settings: figures with small sans-serif text, no frames, sharp on a screen; tables with whole texts.

    Call it once in a notebook. Its figures are stored as JPEG then: photographs make a PNG five times as large.
    """
    if "ipykernel" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("jpeg", pil_kwargs={"quality": 88, "optimize": True, "progressive": True})
    pd.set_option("display.max_colwidth", None)
    sns.set_theme(context="notebook", style="white", palette=LINES, font_scale=0.85)
    plt.rcParams.update({
        "figure.dpi": 80, "savefig.dpi": 80, "savefig.bbox": "tight", "figure.constrained_layout.use": True,
        "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "seeing-why",
    })  # fmt: skip


def show_picture(ax: Axes, pixels: Tensor, title: str = "") -> None:
    """Draw pixels `[H, W, 3]` in [0, 1] without axes."""
    ax.imshow(pixels.numpy())
    ax.set_title(title)
    ax.set_axis_off()


def show_map(ax: Axes, saliency: Tensor, title: str = "", *, signed: bool = False) -> None:
    """Draw a map `[H, W]` alone, on its own scale; signed puts zero in the middle of a two-sided scale."""
    values = saliency.detach().cpu()
    limit = (float(values.abs().max()) or 1.0) if signed else None
    ax.imshow(
        values.numpy(),
        cmap=SIGNED_COLOURS if signed else MAP_COLOURS,
        vmin=-limit if limit else None,
        vmax=limit,
    )
    ax.set_title(title)
    ax.set_axis_off()


def overlay(
    ax: Axes, pixels: Tensor, saliency: Tensor, title: str = "", *, outline: Tensor | None = None, strength: float = 0.65
) -> None:
    """Lay a map over a picture: the colour says how much, and what has none is left dark grey.

    pixels: `[H, W, 3]` in [0, 1]; saliency: `[H, W]`, rectified and scaled to [0, 1] here; outline: mask `[H, W]` whose
    edge is drawn in white; strength: opacity of the colours. A map that is blank is said to be blank, in words.
    """
    values = to_unit(saliency.detach().cpu().relu())
    grey = (pixels @ pixels.new_tensor([0.299, 0.587, 0.114])).numpy()
    colours = plt.get_cmap(MAP_COLOURS)(values.numpy())[..., :3]
    ax.imshow(np.clip((1 - strength) * grey[..., None] + strength * colours, 0, 1))
    if not values.any():
        ax.text(0.5, 0.5, "blank", transform=ax.transAxes, color="white", ha="center", va="center", fontsize=11)
    if outline is not None:
        draw_outline(ax, outline)
    ax.set_title(title)
    ax.set_axis_off()


def draw_outline(ax: Axes, mask: Tensor) -> None:
    """Draw the edge of a mask `[H, W]` over what `ax` shows, white and dashed; an empty mask has none."""
    if mask.any():
        ax.contour(mask.cpu().numpy(), levels=[0.5], colors="white", linewidths=1.1, linestyles="--")


def overlays(
    pixels: Tensor, maps: Mapping[str, Tensor], *, outline: Tensor | None = None, columns: int = 3,
    picture_title: str = "the picture", width: float = 2.5,
) -> Figure:  # fmt: skip
    """The picture and each map over it, side by side: title -> map `[H, W]`. Returns the figure."""
    rows = -(-(len(maps) + 1) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, (width + 0.25) * rows), squeeze=False)
    cells = list(axes.flat)
    show_picture(cells[0], pixels, picture_title)
    for ax, (title, saliency) in zip(cells[1:], maps.items(), strict=False):
        overlay(ax, pixels, saliency, title, outline=outline)
    for ax in cells[len(maps) + 1 :]:
        ax.set_axis_off()
    return figure


def map_table(
    pictures: Sequence[Tensor], rows: Sequence[str], maps: Sequence[Mapping[str, Tensor]], *,
    outlines: Sequence[Tensor | None] | None = None, width: float = 1.65,
) -> Figure:  # fmt: skip
    """A table of overlays: one row a picture (pixels `[H, W, 3]`), one column a method. Returns the figure."""
    names = list(maps[0])
    figure, axes = plt.subplots(
        len(rows), len(names) + 1, figsize=(width * (len(names) + 1), (width + 0.15) * len(rows)), squeeze=False
    )
    for i, (pixels, row) in enumerate(zip(pictures, rows, strict=True)):
        show_picture(axes[i, 0], pixels, row)
        for j, name in enumerate(names, 1):
            overlay(axes[i, j], pixels, maps[i][name], name if i == 0 else "", outline=outlines[i] if outlines else None)
    return figure


def pixels_of(picture: Image.Image, side: int) -> Tensor:
    """A picture squashed to a square: pixels `[side, side, 3]` in [0, 1], for showing."""
    return torch.from_numpy(np.array(picture.resize((side, side), Image.Resampling.BILINEAR))).float() / 255


def with_truth(photos: Sequence[Any], columns: int = 5, width: float = 1.9) -> Figure:
    """Pictures that know their truth, and the truth below each: what is named in white, anything else that is known in grey.

    photos: `data.Photo`s of one size, whose things have masks. Returns the figure.
    """
    rows = -(-len(photos) // columns)
    figure, axes = plt.subplots(2 * rows, columns, figsize=(width * columns, 2.1 * width * rows), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, photo in enumerate(photos):
        W, H = photo.picture.size
        truth = torch.zeros(H, W)
        for thing in photo.things:
            truth = torch.maximum(truth, thing.mask((H, W), (H, W)) * (1.0 if thing.class_name in photo.class_names else 0.4))
        row, column = 2 * (i // columns), i % columns
        show_picture(axes[row, column], torch.from_numpy(np.array(photo.picture)) / 255, ", ".join(photo.class_names))
        axes[row + 1, column].imshow(truth.numpy(), cmap="gray", vmin=0, vmax=1)
    return figure


def bars(ax: Axes, names: Sequence[str], values: Sequence[float], title: str = "", *, highlight: int | None = None) -> None:
    """Horizontal bars with their values written out, first on top, for a network's first choices."""
    colours = [LINES[5] if i == highlight else LINES[0] for i in range(len(names))]
    ax.barh(range(len(names)), values, color=colours)
    for i, v in enumerate(values):
        ax.text(v, i, f" {v:.2f}", va="center")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(title=title, xticks=[], xlim=(0, max(values) * 1.25))
    sns.despine(ax=ax, bottom=True)


def beside_paper(ours: pd.DataFrame, paper: pd.DataFrame, *, scale: float = 100, digits: int = 1) -> pd.DataFrame:
    """Our table beside the paper's: one row a method, one column a metric and source.

    ours: columns method, metric, value, ci_low, ci_high, n as from `evaluation.summary`; paper: method, metric, value, as
    from `data.paper_table`. scale: 100 writes our fractions as percent. A method that only one of them has shows a dash.
    """

    def written(row: Any) -> str:
        text = f"{row.value * scale:.{digits}f}"
        if not np.isnan(row.ci_low):
            text += f" [{row.ci_low * scale:.{digits}f}, {row.ci_high * scale:.{digits}f}]"
        return text

    methods = list(dict.fromkeys([*paper["method"], *ours["method"]]))
    columns: dict[tuple[str, str], dict[str, str]] = {}
    for metric in dict.fromkeys([*paper["metric"], *ours["metric"]]):
        printed = paper[paper["metric"] == metric].set_index("method")["value"]
        measured = ours[ours["metric"] == metric]
        columns[metric, "paper"] = {m: f"{v:g}" for m, v in printed.items()}
        columns[metric, "ours [95 %]"] = {row.method: written(row) for row in measured.itertuples()}
    return pd.DataFrame(columns).reindex(methods).astype(object).fillna("-")
