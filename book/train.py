"""Train the networks of the book, or fine-tune one on a paper's data: `python book/train.py RECIPE`, `--help` for all.

Every run shows its progress, writes a checkpoint after each epoch and goes on from it when started again. What is
trained is stored in data/models with the measured accuracy in data/models/models.csv.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers import data, drawn, training, vgg

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "data" / "models"
SIDE, WIDTH = 128, 1 / 8  # of the slim networks
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # and of their pictures, in [0, 1]


def as_bytes(photos: Sequence[data.Photo], side: int) -> Tensor:
    """All pictures, squashed to a square, in memory: uint8 `[N, 3, side, side]`."""
    pictures = (p.picture.resize((side, side), 2) if p.picture.size != (side, side) else p.picture for p in photos)
    stacked = np.stack([np.asarray(picture) for picture in tqdm(pictures, total=len(photos), desc="pictures")])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def labels_of(photos: Sequence[data.Photo], classes: Sequence[str], multi: bool) -> Tensor:
    """Class indices `[N]`, or for several classes in a picture 0 and 1 `[N, K]`."""
    if multi:
        return torch.tensor([[float(c in p.class_names) for c in classes] for p in photos])
    return torch.tensor([list(classes).index(p.class_names[0]) for p in photos])


def slim(
    name: str, classes: Sequence[str], sets: Callable[[int, int], list[data.Photo]], multi: bool, options: argparse.Namespace
) -> None:
    """A slim VGG16 on drawn pictures: batch normalisation while it trains, folded into the convolutions afterwards."""
    start = time.perf_counter()
    n, epochs = options.n or (12_000 if len(classes) > 4 else 6_000), options.epochs or (14 if len(classes) > 4 else 8)
    parts = {}
    for part, (count, seed) in {"train": (n, 1), "test": (2_000, 2)}.items():
        photos = sets(count, seed)
        parts[part] = training.Pictures(
            training.in_memory(as_bytes(photos, SIDE), MEAN, STD), labels_of(photos, classes, multi), seed=options.seed,
            augment=training.flipped if part == "train" else None,
        )  # fmt: skip
    net = vgg.fresh(vgg.VGG16(len(classes), WIDTH, batch_norm=True), torch.Generator().manual_seed(options.seed))
    net = net.to(memory_format=torch.channels_last)
    measure, metric = (training.mean_average_precision, "mean average precision") if multi else (training.accuracy, "accuracy")
    held_out = training.loader(parts["test"], 250, shuffle=False)
    loss = nn.BCEWithLogitsLoss() if multi else nn.CrossEntropyLoss()
    training.fit(
        net, training.loader(parts["train"], 32), loss, epochs=epochs, lr=2e-3, weight_decay=1e-5, schedule="cosine",
        checkpoint=ROOT / "_build" / "training" / f"{name}.pt", settings={"recipe": name, "n": n, "seed": options.seed},
        evaluate=lambda m: {metric: measure(*training.predict(m, held_out(0)))},
    )  # fmt: skip
    final = vgg.folded(net)
    store(name, final.state_dict(), classes, SIDE, MEAN, STD)
    note(name, metric, measure(*training.predict(final, held_out(0))), 2_000, "held-out pictures of the same set", options.seed,
         time.perf_counter() - start)  # fmt: skip


def store(
    name: str, state: dict[str, Tensor], classes: Sequence[str], side: int, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Weights as safetensors, with what a reader needs to use them in the file's own header."""
    MODELS.mkdir(parents=True, exist_ok=True)
    facts = {
        "classes": json.dumps(list(classes)),
        "side": str(side),
        "mean": json.dumps(list(mean)),
        "std": json.dumps(list(std)),
    }
    save_file({k: v.contiguous() for k, v in state.items()}, MODELS / f"{name}.safetensors", facts)
    print(f"stored {MODELS / name}.safetensors")


def note(name: str, metric: str, value: float, n: int, on: str, seed: int, seconds: float) -> None:
    """One measured value into models.csv, in place of an older one of the same kind."""
    path = MODELS / "models.csv"
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    row = {
        "network": name, "metric": metric, "value": round(value, 4), "n": n, "on": on, "seed": seed, "seconds": round(seconds),
        "commit": commit, "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU",
        "date": date.today().isoformat(),
    }  # fmt: skip
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(row))
    rows = rows[~((rows["network"] == name) & (rows["metric"] == metric) & (rows["on"] == on))]
    rows = pd.concat([rows, pd.DataFrame([row])]) if len(rows) else pd.DataFrame([row])
    rows.sort_values(["network", "metric", "on"]).to_csv(path, index=False)
    print(f"{name}: {metric} {value:.4f} on {n} {on}, {seconds:.0f} s")


def scenes_mixed(n: int, seed: int) -> list[data.Photo]:
    """Scenes without a tag and scenes with one that says nothing, in turn: a tag is then no evidence for any class."""
    K = len(drawn.SCENE_CLASSES)
    plain, tagged = drawn.scenes(n, seed=seed, size=SIDE), drawn.scenes(n, seed=seed, size=SIDE, tag="any")
    return [tagged[i] if (i // K) % 2 else plain[i] for i in range(n)]


RECIPES: dict[str, tuple[str, Callable[[str, argparse.Namespace], None]]] = {
    "slim_vgg16_scenes": (
        "slim VGG16 on drawn scenes, one class a picture; tags say nothing",
        lambda name, o: slim(name, drawn.SCENE_CLASSES, scenes_mixed, False, o),
    ),
    "slim_vgg16_tagged": (
        "the same network on scenes in which a coloured tag gives the class away",
        lambda name, o: slim(name, drawn.SCENE_CLASSES, lambda n, s: drawn.scenes(n, seed=s, size=SIDE, tag="own"), False, o),
    ),
    "slim_vgg16_scenes_multi": (
        "slim VGG16 on drawn scenes with up to three classes a picture",
        lambda name, o: slim(name, drawn.SCENE_CLASSES, lambda n, s: drawn.scenes(n, seed=s, size=SIDE, multi=True), True, o),
    ),
    "slim_vgg16_steel": (
        "slim VGG16 on drawn steel surfaces with four kinds of defect",
        lambda name, o: slim(name, drawn.STEEL_CLASSES, lambda n, s: drawn.steel(n, seed=s, size=SIDE), False, o),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="recipes:\n" + "\n".join(f"  {name:28} {what}" for name, (what, _) in RECIPES.items()),
    )  # fmt: skip
    parser.add_argument("recipe", choices=RECIPES, metavar="RECIPE")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--n", type=int, help="training pictures; default: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    what, run = RECIPES[options.recipe]
    print(what)
    run(options.recipe, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
