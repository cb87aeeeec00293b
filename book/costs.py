"""What a run of a chapter costs, counted: forward passes, hours, bytes. `book/run.py` and the page on larger runs show it.

The passes of every map were counted when the stored results were measured (data/results); a network that was not in that
run has its passes from data/results/methods.csv. What the scores add is in TABLES, one line a table of a chapter. Counted are the
tables, without what `masks.shared` saves: more than is made there. Figures of single pictures come on top.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from helpers import data, masks, models  # noqa: E402


@dataclass(frozen=True)
class Table:
    """A table of a chapter.

    pictures: the parameter that says on how many; network: the parameter that names it, or its name; looks: images through
    the network for all scores of a map, curves aside; curves: insertion and deletion curves of a map; points: steps of a
    curve, or the parameter that says how many; maps_of: the table whose maps are made; again: maps that cost as much as
    another method, since the stored run had kept or not counted them (None: taken from another table of the same run).
    """

    name: str
    pictures: str
    network: str = "MODEL"
    looks: int = 0
    curves: int = 0
    points: str | int = 28
    maps_of: str = ""
    again: Mapping[str, str | None] = field(default_factory=dict)


SMALL = "slim_vgg16_scenes"
GATES = dict.fromkeys(("Sigmoid", "ReLU", "Mish", "Swish"), "ScoreCAM++")
SELECTION = dict.fromkeys(("limit of short steps", "selected from noise", "selected on shuffled weights"), "layer selection")
TABLES: dict[str, list[Table]] = {
    "01_survey": [Table("both there", "N_IMAGES", "MULTI_MODEL", again={"Grad-CAM, shuffled weights": "Grad-CAM"})],
    "02_gradual_extrapolation": [
        Table("scenes", "N_SCENES", SMALL, looks=5, curves=2, points="STEPS"),
        Table("photographs", "N_MEASURED", looks=5),
        Table("variants", "N_SCENES", SMALL),
    ],
    "03_layer_selection": [
        Table("methods", "N_IMAGES", looks=2, curves=2),
        Table("controls", "N_CONTROLS", looks=2, curves=2, again=SELECTION),
        Table("layers", "N_LAYERWISE", looks=2, curves=2, again={"layer 1": "layer selection"}),
        Table("sweep", "N_SWEEP", looks=2, curves=2),
    ],
    "04_scorecampp": [
        Table("methods", "N_IMAGES", looks=9, again={"shuffled weights": "ScoreCAM++"}),
        Table("gates", "N_ABLATION", looks=9, again=GATES | {"Tanh": None}),
        Table("sums", "N_ABLATION", looks=9, again={"Normalization": "ScoreCAM++", "Normalization + Upsampled": None}),
        Table("two of a class", "N_SEVERAL", SMALL),
        Table("several classes", "N_SEVERAL", SMALL),
        Table("augmented", "N_ABLATION", SMALL),
        Table("vit", "N_DIGITS", "a transformer of the chapter", looks=9),
    ],
    "05_sise": [
        Table("methods", "N_IMAGES", looks=4),
        Table("mu", "N_ABLATION", looks=4, curves=2, again=dict.fromkeys(("μ = 0", "μ = 0.3", "μ = 0.5", "μ = 0.75"), "SISE")),
        Table("parts", "N_ABLATION", looks=4, again=dict.fromkeys(("SISE", "all maps, no selection"), "SISE")),
        Table("strip", "N_ABLATION", looks=4, again={"shuffled weights": "SISE"}),
        Table("several classes", "N_MULTI", SMALL, looks=4, maps_of="methods"),
        Table("steel", "N_STEEL", SMALL, looks=4, maps_of="methods"),
    ],
    "06_comparison": [
        Table("methods", "N_IMAGES", looks=14, curves=2, points="CURVE"),
        Table("agreement, shuffled weights", "N_SHUFFLED", maps_of="methods"),
    ],
}
FAMILIES = {  # part of a network's name -> the network in methods.csv with the same channels at the same layers
    "slim_vgg16": SMALL, "vgg16": "vgg16", "vgg19": "vgg16", "resnet18": "resnet18", "resnet50": "resnet50",
    "squeezenet1": "squeezenet1_1", "vit_b_16": "vit_b_16", "efficientnet_lite": "efficientnet_lite0",
}  # fmt: skip
NAMES = {  # what a chapter calls a method of methods.csv
    "GradCAM": "Grad-CAM", "GradCAM++": "Grad-CAM++", "XGradCAM": "XGrad-CAM", "ScoreCAM": "Score-CAM",
    "AugGradCAM++": "Augmented Grad-CAM++", "Score-CAM w/ difference": "Score-CAM with difference",
    "layer selection w/o difference": "layer selection, no difference", "Extremal Perturbation": "extremal perturbation",
    "Integrated Gradient": "integrated gradients",
}  # fmt: skip
SETTINGS = {  # method -> the parameters that set how many images it takes, and how many more it takes besides
    "RISE": ("RISE_MASKS", "MASKS", 1),
    "extremal perturbation": ("EXTREMAL_STEPS", "SEARCH", 1),
    "Augmented Grad-CAM": ("COPIES", "COPIES", 1),
    "Augmented Grad-CAM++": ("COPIES", "COPIES", 1),
    "Smooth Grad-CAM++": ("COPIES", "COPIES", 2),
}
PIECE = 16384  # bytes on the disk that one finished map takes at most, with its scores and what it was made of
MAPS = {"06_comparison": 4 * 224 * 224}  # bytes of a map, where a chapter keeps the maps themselves
COLUMNS = ["table", "network", "pictures", "maps", "of the maps", "of the scores", "forwards"]


def family(network: str) -> str:
    """The network of methods.csv whose passes `network` needs. Errors: ValueError where none has the same layers."""
    if network.startswith("a transformer"):
        return network
    for part, counted in FAMILIES.items():
        if part in Path(network).name:
            return counted
    raise ValueError(f"the passes of {network!r} were never counted; counted were: {', '.join(FAMILIES)}")


@cache
def stored(chapter: str) -> pd.DataFrame:
    """Mean passes of a map: columns table, model, method, forwards; NaN where they were not counted."""
    rows = data.results_per_image(chapter)
    rows = rows[rows["model"] == rows.groupby("table")["model"].transform("first")]
    return rows.groupby(["table", "model", "method"], sort=False)["forwards"].mean().reset_index()


@cache
def counted() -> dict[tuple[str, str], int]:
    """(method, network) -> images forward for one map, as data/results/methods.csv has it."""
    rows = data.results("methods").query("verdict == 'works'")
    return {(row.method, row.network): int(row.forwards) for row in rows.itertuples()}


def passes_of_a_map(method: str, network: str, values: Mapping[str, Any]) -> float | None:
    """Images forward for one map of a method of the package with the chapter's settings; None where it was not counted."""
    if method not in SETTINGS:
        return counted().get((method, network))
    *parameters, more = SETTINGS[method]
    setting = next((values[p] for p in parameters if p in values), None)
    return counted().get((method, network)) if setting is None else setting and setting + more  # 0 leaves the method out


def passes(chapter: str, values: Mapping[str, Any], classes: float = 1.0) -> pd.DataFrame:
    """Forward passes of the tables of a chapter with the given parameters: a row a table, COLUMNS.

    A map has the passes that were counted on its network; what methods.csv does not have, those of the stored run.
    values: every parameter of the chapter; classes: how many a picture of the main set shows, for the chapter on SISE, which
    asks about each. Errors: ValueError for a network whose passes were never counted.
    """
    rows = []
    for table in TABLES.get(chapter, []):
        called = str(values.get(table.network, table.network))
        mine = stored(chapter)[lambda rows, t=table: rows["table"] == (t.maps_of or t.name)]
        forwards = 0.0
        for method, there in zip(mine["method"], mine["forwards"], strict=True):
            like = table.again.get(method, NAMES.get(method, method))
            found = passes_of_a_map(like, family(called), values) if like else 0
            forwards += (0 if pd.isna(there) else there) if found is None else found
        asks = classes if chapter == "05_sise" and table.network == "MODEL" else 1
        points = values[table.points] if isinstance(table.points, str) else table.points
        scores = len(mine) * (table.looks + table.curves * (points + 1))
        numbers = (values[table.pictures] * asks * n for n in (len(mine), forwards, scores, forwards + scores))
        rows.append([table.name, called, values[table.pictures], *map(round, numbers)])
    return pd.DataFrame(rows, columns=COLUMNS)


def disk(chapter: str, table: pd.DataFrame) -> int:
    """Bytes that the pieces of a run take, given what `passes` returned."""
    return int(table["maps"].sum()) * (PIECE + MAPS.get(chapter, 0))


def hours(forwards: float, images_per_second: float) -> float:
    """How long so many forward passes take."""
    if not images_per_second > 0:
        raise ValueError(f"images_per_second is {images_per_second}; expected more than 0")
    return forwards / images_per_second / 3600


def throughput(net: Any, batch_size: int, seconds: float = 1.0) -> float:
    """Masked copies a second that a network scores on its device: after one batch to warm up, batches for about so long."""
    device = next(net.module.parameters()).device
    image = torch.zeros(3, net.side, net.side, device=device)
    some = torch.rand(batch_size, net.side, net.side, generator=torch.Generator().manual_seed(0)).to(device)
    masks.masked_logits(net, image, some, batch_size=batch_size)
    done, began = 0, time.perf_counter()
    while not done or time.perf_counter() - began < seconds:
        masks.masked_logits(net, image, some, batch_size=batch_size).cpu()  # waits for the device
        done += batch_size
    return done / (time.perf_counter() - began)


def untrained(network: str, device: str, precision: str = "float32") -> models.Classifier:
    """The architecture of a network with random weights: as fast as the trained one, and nothing is downloaded."""
    known = network if network in models.LAYERS or network in models.stored_names() else family(network)
    return models.load(known, weights=None, device=device, precision=precision)
