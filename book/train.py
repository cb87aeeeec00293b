"""Train the networks of the book, or fine-tune one on a paper's data: `python book/train.py RECIPE`, `--help` for all.

A training shows its progress, writes a checkpoint into _build/training after each epoch and goes on from it when started
again; delete the checkpoint to train anew. The book's own networks are stored in data/models, and what was measured of
them in data/models/models.csv; fine-tuned ones go to _build/models.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from helpers import data, datasets, drawn, mil, models, readers, training, vgg, weights  # noqa: E402

MODELS, CHECKPOINTS, FINETUNED = ROOT / "data" / "models", ROOT / "_build" / "training", ROOT / "_build" / "models"
SIDE, WIDTH = 128, 1 / 8  # of the slim networks
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # and of their pictures, in [0, 1]


def as_bytes(photos: Sequence[data.Photo], side: int) -> Tensor:
    """All pictures, squashed to a square, in memory: uint8 `[N, 3, side, side]`."""
    pictures = (p.picture.resize((side, side), 2) if p.picture.size != (side, side) else p.picture for p in photos)
    stacked = np.stack([np.asarray(picture) for picture in tqdm(pictures, total=len(photos), desc="pictures")])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


Sets = Callable[[Path], tuple[list[data.Photo], list[data.Photo]]]  # root -> training and held-out pictures


class Slim(NamedTuple):
    """What a slim VGG16 learns: its classes, (n, seed) -> pictures, whether several classes in one, how many, how long."""

    classes: Sequence[str]
    sets: Callable[[int, int], list[data.Photo]]
    multi: bool
    n: int
    epochs: int


def slim(name: str, recipe: Slim, options: argparse.Namespace) -> None:
    """A slim VGG16 on drawn pictures: batch normalisation while it trains, folded into the convolutions afterwards."""
    classes, sets, multi = recipe.classes, recipe.sets, recipe.multi
    n = options.n or recipe.n
    parts = {}
    held_out_pictures = min(n, 2_000)
    for part, (count, seed) in {"train": (n, 1), "test": (held_out_pictures, 2)}.items():
        photos = sets(count, seed)
        parts[part] = training.Pictures(
            training.in_memory(as_bytes(photos, SIDE), MEAN, STD), datasets.labels(photos, classes, multi=multi),
            seed=options.seed, augment=training.flipped if part == "train" else None,
        )  # fmt: skip
    net = vgg.fresh(vgg.VGG16(len(classes), WIDTH, batch_norm=True), torch.Generator().manual_seed(options.seed))
    net = net.to(memory_format=torch.channels_last)
    metric, measure = MEASURES[multi]
    held_out = training.loader(parts["test"], 250, shuffle=False)
    loss = nn.BCEWithLogitsLoss() if multi else nn.CrossEntropyLoss()
    history = training.fit(
        net, training.loader(parts["train"], 32), loss,
        epochs=options.epochs or recipe.epochs, lr=2e-3, weight_decay=1e-5, schedule="cosine",
        checkpoint=CHECKPOINTS / f"{name}.pt", seed=options.seed, settings={"recipe": name, "n": n},
        evaluate=lambda m: {metric: measure(*training.predict(m, held_out(0)))},
    )  # fmt: skip
    final = vgg.folded(net)
    store(
        MODELS / f"{name}.safetensors", final.state_dict(), architecture="slim_vgg16", classes=list(classes), side=SIDE,
        mean=MEAN, std=STD, multi_label=multi,
    )  # fmt: skip
    value = measure(*training.predict(final, held_out(0)))
    note(name, metric, value, held_out_pictures, "held-out pictures of the same set", options, seconds_of(history))


def seconds_of(history: Sequence[dict[str, float]]) -> float:
    """How long the training took, over all its starts."""
    return sum(row["seconds"] for row in history)


def store(path: Path, state: dict[str, Tensor], **facts: Any) -> None:
    """Weights as safetensors, with what one needs to use them (architecture, classes, preprocessing) in the file's header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    save_file({k: v.cpu().contiguous() for k, v in state.items()}, half, {k: json.dumps(v) for k, v in facts.items()})
    half.replace(path)
    print(f"stored {os.path.relpath(path)}")


def note(name: str, metric: str, value: float, n: int, on: str, options: argparse.Namespace, seconds: float) -> None:
    """One measured value into models.csv, in place of an older one of the same kind; seconds: of training, or of measuring."""
    path = MODELS / "models.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        run = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
        commit = run.stdout.strip() or "unknown"
    except OSError:  # no git on this machine
        commit = "unknown"
    on_gpu = torch.device(options.device).type == "cuda"
    row = {
        "network": name, "metric": metric, "value": round(value, 4), "n": n, "on": on, "seed": options.seed,
        "seconds": round(seconds),
        "commit": commit, "device": torch.cuda.get_device_name(options.device) if on_gpu else f"{platform.machine()} CPU",
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


def scenes_tagged(n: int, seed: int) -> list[data.Photo]:
    return drawn.scenes(n, seed=seed, size=SIDE, tag="own")


def scenes_multi(n: int, seed: int) -> list[data.Photo]:
    return drawn.scenes(n, seed=seed, size=SIDE, multi=True)


def steel(n: int, seed: int) -> list[data.Photo]:
    return drawn.steel(n, seed=seed, size=SIDE)


def bags(name: str, gated: bool, options: argparse.Namespace) -> None:
    """Attention MIL on bags of digits; also how often its attention is highest on a wanted digit of a positive bag."""
    n, epochs = options.n or 1_000, options.epochs or 30
    train, test = drawn.digit_bags(n, seed=1), drawn.digit_bags(400, seed=2, split="test")

    def epoch_of(epoch: int) -> list[tuple[tuple[Tensor, Tensor], Tensor]]:
        order = torch.randperm(n, generator=torch.Generator().manual_seed(training.stream(options.seed, epoch)))
        chosen = [[train[i] for i in part] for part in order.split(16)]
        return [(mil.packed([b.images for b in part]), torch.tensor([float(b.positive) for b in part])) for part in chosen]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = mil.AttentionMIL(mil.digit_features(), L=64, gated=gated)
    history = training.fit(
        net, epoch_of, nn.BCEWithLogitsLoss(), epochs=epochs, lr=2e-3, weight_decay=1e-4, schedule="cosine",
        checkpoint=CHECKPOINTS / f"{name}.pt", seed=options.seed, settings={"recipe": name, "n": n},
    )  # fmt: skip
    with torch.no_grad():
        logits, attention = net.explained(*mil.packed([b.images for b in test]))
    positive = torch.tensor([b.positive for b in test])
    hits = [bool(b.digits[a.argmax()] == 9) for b, a in zip(test, attention, strict=True) if b.positive]
    store(MODELS / f"{name}.safetensors", net.state_dict(), architecture="attention_mil", gated=gated)
    right = ((logits > 0) == positive).double().mean().item()
    note(name, "accuracy", right, len(test), "held-out bags", options, seconds_of(history))
    hit = "highest attention on a wanted digit"
    note(name, hit, float(np.mean(hits)), len(hits), "held-out positive bags", options, seconds_of(history))


def head(name: str, sets: Sets, classes: Sequence[str], multi: bool, options: argparse.Namespace) -> None:
    """A linear head on VGG16's own features, averaged over positions: logistic regression, its penalty by cross-validation."""
    start = time.perf_counter()
    train, test = sets(_root(options))
    net = models.vgg16_trunk(classes, weights=options.weights or "published").to(options.device)
    (x, y), (x_test, y_test) = (
        (pooled(net, photos, CHECKPOINTS / f"{name}_{part}.pt"), datasets.labels(photos, classes, multi=multi))
        for part, photos in (("train", train), ("test", test))
    )
    weight, bias = logistic(x, y, multi)
    logits = x_test @ weight.T + bias
    store(
        MODELS / f"{name}.safetensors", {"weight": weight, "bias": bias}, architecture="vgg16_head", classes=list(classes),
        side=net.side, mean=net.mean, std=net.std, multi_label=multi, trunk=weights.trunk_mark(net.module.state_dict()),
    )  # fmt: skip
    metric, measure = MEASURES[multi]
    value, on = measure(logits, y_test), options.on or "held-out pictures"
    note(name, metric, value, len(test), on, options, time.perf_counter() - start)


def pooled(net: models.Classifier, photos: Sequence[data.Photo], kept: Path, batch: int = 8) -> Tensor:
    """VGG16's last features averaged over positions, `[N, 512]`; every 25th batch is kept, so that a killed run goes on.

    What is kept is of these pictures through these convolutions, or it is made anew.
    """
    made_of = {
        "names": [p.name for p in photos],
        "first": photos[0].picture.tobytes(),
        "trunk": weights.trunk_mark(net.module.state_dict()),
    }
    done: list[Tensor] = []
    if kept.exists():
        try:
            found = torch.load(kept, weights_only=True)
            done = [found["features"]] if found["made_of"] == made_of else []
        except Exception as error:  # a damaged file can raise nearly anything
            print(f"{kept.name} could not be read and is made anew: {type(error).__name__}")
    first = len(done[0]) if done else 0
    for i in tqdm(range(first, len(photos), batch), desc="features", initial=first // batch, total=-(-len(photos) // batch)):
        images = torch.stack([net.preprocess(p.picture) for p in photos[i : i + batch]])
        with torch.no_grad():
            done.append(net.module.pool(net.module.features(images)).flatten(1).cpu())  # [batch, 512]
        if i + batch >= len(photos) or (i // batch) % 25 == 24:
            training.save({"made_of": made_of, "features": torch.cat(done)}, kept)
    return torch.cat(done)


def logistic(x: Tensor, y: Tensor, multi: bool) -> tuple[Tensor, Tensor]:
    """Weight `[K, C]` and bias `[K]` of linear classifiers of features `[N, C]`; the features' scaling is folded into them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    scaled = ((x - mean) / std).numpy()
    targets = y.T.numpy() if multi else [y.numpy()]
    penalties = {"C": 10.0 ** np.arange(-5, 1)}
    fitted = [
        GridSearchCV(LogisticRegression(max_iter=2_000), penalties, scoring="neg_log_loss", cv=5).fit(scaled, t).best_estimator_
        for t in tqdm(targets, desc="classes")
    ]
    weight = torch.tensor(np.concatenate([f.coef_ for f in fitted]), dtype=torch.float32)  # [K, C], or [1, C] for two classes
    bias = torch.tensor(np.concatenate([f.intercept_ for f in fitted]), dtype=torch.float32)
    if not multi and len(weight) == 1:  # the one logit of two classes is their difference
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight / std, bias - (weight * mean / std).sum(1)


def image_of(scaled: Callable[[Image.Image], Tensor], photos: Sequence[data.Photo], i: int) -> Tensor:
    """Picture i as a network wants it, `[3, side, side]`, on the CPU: a worker process has no GPU."""
    return scaled(photos[i].picture)


def finetune(
    name: str, paper: dict[str, Any], sets: Sets, classes: Sequence[str], multi: bool, options: argparse.Namespace
) -> None:
    """All weights of an ImageNet network, with a new last layer, on a paper's set; `paper` holds the paper's own settings.

    Deviation: pictures are mirrored at random, and squashed instead of cropped; a part of Dogs vs. Cats is held out, for the
    set's own test pictures have no labels (mitra2024scorecampp trains on all 25,000).
    """
    network, epochs, batch, lr = (getattr(options, k) or paper[k] for k in ("network", "epochs", "batch_size", "lr"))
    start_from = options.weights or "published"
    net = models.with_classes(models.load(network, weights=start_from), classes, seed=options.seed).to(options.device)
    train, test = sets(_root(options))
    train = [train[i] for i in np.random.default_rng(options.seed).permutation(len(train))[: options.n]]
    read = partial(models.scaled, side=net.side, mean=net.mean, std=net.std)
    parts = {
        part: training.Pictures(
            partial(image_of, read, photos), datasets.labels(photos, classes, multi=multi), seed=options.seed,
            augment=training.flipped if part == "train" else None,
        )
        for part, photos in (("train", train), ("test", test))
    }  # fmt: skip
    metric, measure = MEASURES[multi]
    held_out = training.loader(parts["test"], batch, shuffle=False, workers=options.workers)
    checkpoint = CHECKPOINTS / f"{name}_{network}.pt"
    history = training.fit(
        net.module, training.loader(parts["train"], batch, workers=options.workers),
        nn.BCEWithLogitsLoss() if multi else nn.CrossEntropyLoss(),
        epochs=epochs, lr=lr, checkpoint=checkpoint, seed=options.seed,
        settings={
            "recipe": name, "network": network, "weights": str(start_from), "root": str(options.root), "batch_size": batch,
            "pictures": len(train),
        },
        evaluate=lambda m: {metric: measure(*training.predict(m, held_out(0)))},
    )  # fmt: skip
    value = measure(*training.predict(net.module, held_out(0)))
    path = FINETUNED / f"{name}_{network}.safetensors"
    store(
        path, net.module.state_dict(), architecture=network, classes=list(classes), side=net.side, mean=net.mean, std=net.std,
        multi_label=multi,
    )  # fmt: skip
    print(f"{metric} {value:.4f} on {len(test)} held-out pictures after {seconds_of(history):.0f} s of training")
    print(f"models.load({os.path.relpath(path)!r}) gives the network")


def measure_network(name: str, options: argparse.Namespace) -> None:
    """Top-1 accuracy of one network on pictures of ImageNet's classes, into models.csv."""
    start = time.perf_counter()
    net = models.load(options.network or "efficientnet_lite0", weights=options.weights or "published", device=options.device)
    photos = datasets.load("imagenet", _root(options), options.n, options.seed)
    labels = datasets.labels(photos, net.classes, multi=False)
    right = 0
    for i in tqdm(range(0, len(photos), 8), desc=net.name):
        with torch.no_grad():
            logits = net(torch.stack([net.preprocess(p.picture) for p in photos[i : i + 8]]))
        right += int((logits.argmax(1).cpu() == labels[i : i + 8]).sum())
    on = (options.on or "ImageNet validation") + (f", with {Path(options.weights).name}" if options.weights else "")
    note(net.name, "top-1 accuracy", right / len(photos), len(photos), on, options, time.perf_counter() - start)


def _root(options: argparse.Namespace) -> Path:
    if options.root is None:
        raise SystemExit(f"{options.recipe} needs --root, the folder of its data set")
    return Path(options.root)


def cats_and_dogs(root: Path) -> tuple[list[data.Photo], list[data.Photo]]:
    """Kaggle's training pictures, a sixth of them held out (its test pictures have no labels), or the split that is there."""
    if (root / "test_set").is_dir():
        return readers.dogs_vs_cats(root, "train"), readers.dogs_vs_cats(root, "test")
    return datasets.split(readers.dogs_vs_cats(root, "train"), 1 / 6)


def voc(classes: Sequence[str]) -> Sets:
    """Training and test pictures of PASCAL VOC 2007 that show one of these classes; what is marked difficult does not count."""

    def sets(root: Path) -> tuple[list[data.Photo], list[data.Photo]]:
        def shown(photo: data.Photo) -> tuple[str, ...]:
            things = [t.class_name for t in photo.things if not t.difficult]
            return tuple(c for c in photo.class_names if c in classes and c in things)

        found = (readers.voc2007(root, part) for part in ("trainval", "test"))
        train, test = ([replace(p, class_names=shown(p)) for p in part if shown(p)] for part in found)
        return train, test

    return sets


def neu(root: Path) -> tuple[list[data.Photo], list[data.Photo]]:
    return readers.neu_seg(root, "training"), readers.neu_seg(root, "test")


def severstal(root: Path) -> tuple[list[data.Photo], list[data.Photo]]:
    return datasets.split(readers.severstal(root), 0.2)


VOC_FIVE = ("bus", "car", "cat", "person", "train")
MEASURES = {False: ("accuracy", training.accuracy), True: ("mean average precision", training.mean_average_precision)}
TAKES = {  # the options of each kind of recipe, besides the seed
    "slim": ("n", "epochs"),
    "head": ("root", "weights", "device", "on"),
    "measure": ("root", "network", "weights", "n", "device", "on"),
    "finetune": ("root", "network", "weights", "n", "epochs", "batch_size", "lr", "device", "workers"),
}
DEFAULTS = {"device": "cpu", "workers": 0}
RECIPES: dict[str, tuple[str, str, Callable[[str, argparse.Namespace], None]]] = {
    "slim_vgg16_scenes": (
        "slim",
        "slim VGG16 on drawn scenes, one class a picture; tags say nothing",
        lambda name, o: slim(name, Slim(drawn.SCENE_CLASSES, scenes_mixed, False, 12_000, 14), o),
    ),
    "slim_vgg16_tagged": (
        "slim",
        "the same network on scenes in which a coloured tag gives the class away",
        lambda name, o: slim(name, Slim(drawn.SCENE_CLASSES, scenes_tagged, False, 12_000, 12), o),
    ),
    "slim_vgg16_scenes_multi": (
        "slim",
        "slim VGG16 on drawn scenes with up to three classes a picture",
        lambda name, o: slim(name, Slim(drawn.SCENE_CLASSES, scenes_multi, True, 12_000, 10), o),
    ),
    "slim_vgg16_steel": (
        "slim",
        "slim VGG16 on drawn steel surfaces with four kinds of defect",
        lambda name, o: slim(name, Slim(drawn.STEEL_CLASSES, steel, False, 6_000, 8), o),
    ),
    "attention_mil_digits": ("slim", "attention MIL on bags of handwritten digits", lambda name, o: bags(name, False, o)),
    "gated_mil_digits": ("slim", "the same with gated attention", lambda name, o: bags(name, True, o)),
    "vgg16_cats_dogs": (
        "head",
        "a linear head on VGG16's features: cats and dogs; --root: Kaggle's Dogs vs Cats",
        lambda name, o: head(name, cats_and_dogs, readers.PET_CLASSES, False, o),
    ),
    "vgg16_voc": (
        "head",
        "a linear head on VGG16's features: five classes, several a picture; --root: VOCdevkit",
        lambda name, o: head(name, voc(VOC_FIVE), VOC_FIVE, True, o),
    ),
    "vgg16_steel": (
        "head",
        "a linear head on VGG16's features: steel defects, several a picture; --root: NEU-Seg",
        lambda name, o: head(name, neu, readers.NEU_CLASSES, True, o),
    ),
    "measure": ("measure", "top-1 accuracy of --network on ImageNet pictures in --root", measure_network),
    "finetune_cats_dogs": (
        "finetune",
        "mitra2024scorecampp: ResNet-18 (or --network vgg19) on Kaggle's Dogs vs Cats",
        lambda name, o: finetune(
            name,
            {"network": "resnet18", "epochs": 100, "batch_size": 64, "lr": 1e-4},
            cats_and_dogs,
            readers.PET_CLASSES,
            False,
            o,
        ),
    ),
    "finetune_voc": (
        "finetune",
        "sattarzadeh2021sise: VGG16 (or --network resnet50) on PASCAL VOC 2007, multi-label; the paper gives no settings",
        lambda name, o: finetune(
            name,
            {"network": "vgg16", "epochs": 30, "batch_size": 32, "lr": 1e-5},
            voc(readers.VOC_CLASSES),
            readers.VOC_CLASSES,
            True,
            o,
        ),
    ),
    "finetune_severstal": (
        "finetune",
        "sattarzadeh2021sise: ResNet-101 on balanced 256 x 256 crops of Severstal; the paper gives no settings",
        lambda name, o: finetune(
            name,
            {"network": "resnet101", "epochs": 30, "batch_size": 32, "lr": 1e-4},
            severstal,
            readers.STEEL_CLASSES,
            False,
            o,
        ),
    ),
}


def positive(text: str) -> int:
    """A whole number of at least 1. Errors: argparse's, naming it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on was expected, not {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="recipes:\n" + "\n".join(
            f"  {name:25} {what}\n{'':28}takes {', '.join('--' + o.replace('_', '-') for o in TAKES[kind])}"
            for name, (kind, what, _) in RECIPES.items()
        ),
    )  # fmt: skip
    parser.add_argument("recipe", choices=RECIPES, metavar="RECIPE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=positive, help="default: the recipe's")
    parser.add_argument("--n", type=positive, help="at most so many training pictures (or pictures to measure on); default: all")
    parser.add_argument("--root", help="folder of the data set, as it is distributed")
    parser.add_argument("--network", help="which network; default: the paper's")
    parser.add_argument("--weights", help="file to start from; default: the published weights")
    parser.add_argument("--batch-size", type=positive)
    parser.add_argument("--lr", type=float, help="rate of the optimiser, Adam")
    parser.add_argument("--device", help="default: cpu")
    parser.add_argument("--workers", type=int, help="processes that read pictures; default: none but this one")
    parser.add_argument("--on", help="what the pictures are on which accuracy is measured, for models.csv")
    options = parser.parse_args(arguments)
    kind, what, run = RECIPES[options.recipe]
    given = [name for name, value in vars(options).items() if value is not None and name not in ("recipe", "seed")]
    for name in given:
        if name not in TAKES[kind]:
            parser.error(f"{options.recipe} does not take --{name.replace('_', '-')}")
    for name, value in DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    print(what)
    try:
        run(options.recipe, options)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise SystemExit(f"{options.recipe}: {error}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
