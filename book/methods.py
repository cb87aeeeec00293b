"""Measure every method: where it works and what it costs, and whether it finds what the networks look at.

    python book/methods.py costs   --out data/results/methods.csv
    python book/methods.py oracles --out data/results/oracles.csv
    python book/methods.py truth   --set scenes --n 100 --shard 0/2 --out shard0.csv
    python book/methods.py table   --out data/results/ground_truth.csv shard*.csv

costs: each method once on each network, on one picture. oracles: what the tests hold each function against. truth: each
method on drawn pictures whose truth is known to the pixel, beside three maps that explain nothing and the method itself on
shuffled weights; a shard is one process's share of the pictures, it appends each finished map and goes on where it stopped.
table: means with intervals.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torchvision
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from helpers import (  # noqa: E402
    backprop,
    cam,
    data,
    drawn,
    evaluation,
    extrapolation,
    layers,
    metrics,
    models,
    sampling,
    sanity,
    score_cam,
    sise,
)
from helpers.core import Explainer, log_probability, logit, probability, sigmoid  # noqa: E402
from helpers.data import Photo  # noqa: E402

METHODS: dict[str, Explainer] = {  # as the book calls them, each with its defaults
    "CAM": cam.cam,
    "Grad-CAM": cam.grad_cam,
    "Grad-CAM++": cam.grad_cam_pp,
    "Smooth Grad-CAM++": cam.smooth_grad_cam_pp,
    "XGrad-CAM": cam.xgrad_cam,
    "LayerCAM": cam.layer_cam,
    "Augmented Grad-CAM": cam.augmented_grad_cam,
    "Augmented Grad-CAM++": cam.augmented_grad_cam_pp,
    "FullGrad": cam.full_grad,
    "Score-CAM": score_cam.score_cam,
    "ScoreCAM++": score_cam.score_cam_pp,
    "guided backprop": backprop.guided_backprop,
    "Guided Grad-CAM": partial(backprop.guided_grad_cam, coarse=cam.grad_cam),
    "excitation backprop": backprop.excitation_backprop,
    "contrastive excitation backprop": backprop.contrastive_excitation_backprop,
    "integrated gradients": backprop.integrated_gradients,
    "Gradual Extrapolation of Grad-CAM": partial(extrapolation.gradual_extrapolation, coarse=cam.grad_cam),
    "Gradual Extrapolation of contrastive EB": partial(
        extrapolation.gradual_extrapolation, coarse=backprop.contrastive_excitation_backprop
    ),
    "Gradual Extrapolation of a constant": partial(extrapolation.gradual_extrapolation, coarse=torch.ones(1, 1)),
    "occlusion": sampling.occlusion,
    "RISE": sampling.rise,
    "extremal perturbation": sampling.extremal_perturbation,
    "SISE": sise.sise,
    "Ada-SISE": partial(sise.sise, mu=sise.adaptive_mu),
    "layer selection": layers.layer_selection,
    "layer selection, no difference": partial(layers.layer_selection, features=layers.activations),
    "Score-CAM with difference": layers.score_cam_difference,
}
NOTHING: dict[str, Explainer] = {  # what an explanation has to beat
    "edge detector": sanity.edge_map,
    "random map": sanity.random_map,
    "centred blob": sanity.centred_blob,
}
METRICS = {
    "energy inside": metrics.energy_inside,
    "mean IoU": metrics.top_iou,
    "box": metrics.top_inside,
    "pointing": metrics.pointing_game,
}
IN_TRUTH: dict[str, dict[str, Any]] = {  # settings that differ from the defaults, to save time
    "Augmented Grad-CAM": {"copies": 30, "steps": 100},
    "Augmented Grad-CAM++": {"copies": 30, "steps": 100},
    "RISE": {"samples": 500},
}
PLAIN = {"edge detector", "random map", "centred blob"}  # they know nothing of the weights: nothing to shuffle


# ------------------------------------------------------------------------------------------------------ what it costs

SMALL = 64  # side of the pictures for the networks with random weights: a smaller picture needs as many passes


def networks(only: Sequence[str] = ()) -> dict[str, models.Classifier]:
    """Two trained networks at their own size, and the architectures of the papers with random weights at 64 x 64."""
    made = {
        "efficientnet_lite0": models.load,
        "slim_vgg16_scenes": models.load,
        **dict.fromkeys(("vgg16", "resnet18", "resnet50", "squeezenet1_1", "vit_b_16"), small),
    }
    return {name: make(name) for name, make in made.items() if not only or name in only}


def small(name: str) -> models.Classifier:
    """An architecture with random weights for pictures of 64 x 64."""
    if name == "vit_b_16":
        module = models.seeded(0, lambda: torchvision.models.vit_b_16(weights=None, image_size=SMALL))
        torch.nn.init.normal_(module.heads.head.weight, std=0.02, generator=torch.Generator().manual_seed(0))  # it begins at 0
        return models.from_module(module, classes=models.imagenet_classes(), side=SMALL, name=name, verbose=False)
    return replace(models.load(name, weights=None), side=SMALL)


def costs(options: argparse.Namespace) -> None:
    """A row for each method on each network: works or not applicable and why, images forward, backward passes, seconds."""
    done = pd.read_csv(options.out) if options.out.exists() else pd.DataFrame(columns=["method", "network"])
    finished = set(zip(done["method"], done["network"], strict=True))
    for name, net in networks(options.networks).items():
        picture = drawn.scenes(1, seed=1)[0].picture if net.name.startswith("slim") else data.photo("chelsea").picture
        image = net.preprocess(picture)
        for method, explain in (METHODS | NOTHING).items():
            if (method, name) in finished:
                continue
            row = {"method": method, "function": name_of(explain), "network": name, "side": net.side}
            row |= verdict(net, image, fitted(method, explain, net))
            pd.DataFrame([row | facts(options)]).to_csv(options.out, mode="a", header=not options.out.exists(), index=False)
            print(*row.values(), flush=True)


def fitted(method: str, explain: Explainer, net: models.Classifier) -> Explainer:
    """A method with what it has to know of a network: where its coarse map is read, and whether several classes can be seen."""
    function, settings = explain.func if isinstance(explain, partial) else explain, {}
    if method.endswith("of contrastive EB") and net.level_layers:
        settings["layer"] = backprop.middle_layer(net, None)
    if net.multi_label:
        taken = inspect.signature(function).parameters
        if "score" in taken and taken["score"].default in (probability, log_probability):
            settings["score"] = sigmoid
        if "features" in taken and getattr(explain, "keywords", {}).get("features") is not layers.activations:
            settings["features"] = partial(layers.differences, objective=logit)
    return partial(explain, **settings)


def name_of(explain: Any) -> str:
    """Module and name of the function behind a method: `cam.grad_cam`."""
    function = explain.func if isinstance(explain, partial) else explain
    return f"{function.__module__.removeprefix('helpers.')}.{function.__name__}"


def verdict(net: models.Classifier, image: Tensor, explain: Explainer) -> dict[str, Any]:
    """Does a method work on a network? If it says it does not apply, why; what one map cost."""
    began = time.process_time()  # of this process alone, whatever else the machine does
    with evaluation.counted(net) as cost:
        try:
            explain(net, image)
            says, why = "works", ""
        except (ValueError, TypeError) as error:
            says, why = "not applicable", str(error)
    seconds = round(time.process_time() - began, 3)
    return {"verdict": says, "why": why, "forwards": cost.forwards, "backwards": cost.backwards, "seconds": seconds}


def facts(options: argparse.Namespace) -> dict[str, str]:
    """Where a number comes from."""
    return {"commit": commit(), "device": options.device, "date": datetime.now(UTC).date().isoformat()}


@cache
def commit() -> str:
    """The commit that is measured, as it was when the measuring began."""
    return evaluation.commit_of_the_code()


def oracles(folder: Path = ROOT / "tests") -> pd.DataFrame:
    """What each function of helpers is held against, as the marks `proves` of the tests say: columns function, oracle, file."""
    found = []
    for path in sorted(folder.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.proves":
                (by,) = [ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg == "by"]
                found += [(ast.literal_eval(name), by, path.name) for name in node.args]
    return pd.DataFrame(found, columns=["function", "oracle", "file"])


# ---------------------------------------------------------------------------------------------- does it find the truth


@dataclass(frozen=True)
class Truth:
    """Drawn pictures for a network trained on their like. evidence: the thing that decides, by default the class itself."""

    network: str
    photos: Callable[[int], list[Photo]]
    evidence: str | None = None


TRUTHS = {
    "scenes": Truth("slim_vgg16_scenes", partial(drawn.scenes, seed=31)),
    "several classes": Truth("slim_vgg16_scenes_multi", partial(drawn.scenes, seed=32, multi=True)),
    "steel": Truth("slim_vgg16_steel", partial(drawn.steel, seed=33)),
    "shortcut": Truth("slim_vgg16_tagged", partial(drawn.scenes, seed=34, tag="own"), evidence="tag"),
}


def questions(truth: Truth, net: models.Classifier, n: int) -> Iterator[tuple[Photo, str, dict[str, Tensor]]]:
    """Picture, class asked for and where its evidence is `[side, side]`: every class of every picture.

    Small evidence is also given with what lies around it, up to a tenth of the picture: no coarse map can be finer.
    """
    for photo in truth.photos(n):
        for name in photo.class_names:
            mask = photo.mask(truth.evidence or name, (net.side, net.side))
            margin = net.side // 10
            around = torch.nn.functional.max_pool2d(mask[None, None], 2 * margin + 1, 1, margin)[0, 0]
            yield photo, name, {"": mask, ", near": around} if truth.evidence else {"": mask}


def truths(options: argparse.Namespace) -> None:
    """Append a row for each picture, class, method and metric, with the trained and with shuffled weights."""
    truth, (part, parts) = TRUTHS[options.set], map(int, options.shard.split("/"))
    net = models.load(truth.network)
    nets = {"trained": net, "shuffled": models.randomised(net)}
    done = set()
    if options.out.exists():
        kept = pd.read_csv(options.out)
        done = set(kept[["image", "class", "method", "weights"]].itertuples(index=False, name=None))
    for photo, name, masks in list(questions(truth, net, options.n))[part::parts]:
        image = net.preprocess(photo.picture)
        for method, explain in (METHODS | NOTHING).items():
            for weights, one in nets.items():
                if (photo.name, name, method, weights) in done or (weights == "shuffled" and method in PLAIN):
                    continue
                try:
                    saliency = fitted(method, partial(explain, **IN_TRUTH.get(method, {})), one)(one, image, net.index(name))
                except ValueError as error:  # it finds nothing to show, as may be with shuffled weights: a blank map
                    print(f"{method} on {weights} weights: {error}", flush=True)
                    saliency = torch.zeros_like(masks[""])
                asked = {"model": net.name, "image": photo.name, "class": name, "method": method, "weights": weights}
                rows = [
                    {"set": options.set + where, **asked, "metric": metric, "value": measure(saliency, mask), **facts(options)}
                    for where, mask in masks.items()
                    for metric, measure in METRICS.items()
                ]
                table = pd.DataFrame(rows)
                table.to_csv(options.out, mode="a", header=not options.out.exists(), index=False)
        print(f"{options.set}, shard {options.shard}: {photo.name} {name}", flush=True)


def table(options: argparse.Namespace) -> None:
    """Means over pictures with 95 % intervals, and how far each method is above the best of the maps that explain nothing.

    A picture that shows several classes counts once, with the mean over them: its questions are not independent.
    """
    rows = pd.concat([pd.read_csv(path) for path in options.shards], ignore_index=True)
    rows = rows.drop_duplicates(["set", "image", "class", "method", "weights", "metric"])
    pairs = rows[["method", "weights"]].drop_duplicates()  # only pictures of which every map has been measured count
    seen = rows.drop_duplicates(["set", "image", "class", "method", "weights"]).groupby(["set", "image", "class"]).size()
    rows = rows.set_index(["set", "image", "class"]).loc[seen.index[seen == len(pairs)]].reset_index()
    told = rows.groupby(["set", "method", "weights"])[["commit", "device", "date"]].last()  # of the last picture
    rows = rows.groupby(["set", "model", "image", "method", "weights", "metric"], sort=False)["value"].mean().reset_index()
    found = []
    for (kind, model, metric), mine in rows.groupby(["set", "model", "metric"], sort=False):
        wide = mine.pivot(index="image", columns=["method", "weights"], values="value").dropna(how="all", axis=1)
        plain = {name: wide[name, "trained"].fillna(0) for name in NOTHING}
        best = max(plain, key=lambda name: plain[name].mean())
        for method, weights in wide.columns:
            values = wide[method, weights].fillna(0)  # a blank map points at nothing
            low, high = metrics.bootstrap_interval(values)
            row = {
                "set": kind, "model": model, "metric": metric, "method": method, "weights": weights, "value": values.mean(),
                "ci_low": low, "ci_high": high, "n": len(values), "blank": int(wide[method, weights].isna().sum()),
            }  # fmt: skip
            others = {"best_plain": plain[best]}
            if weights == "trained" and (method, "shuffled") in wide:
                others["shuffled"] = wide[method, "shuffled"].fillna(0)
            for other, theirs in others.items():
                low, high = metrics.bootstrap_interval(values - theirs)
                row |= {f"above_{other}": (values - theirs).mean(), f"above_{other}_low": low, f"above_{other}_high": high}
            found.append(row | {"best_plain": best})
    found.sort(key=lambda row: [*METHODS, *NOTHING].index(row["method"]))
    found.sort(key=lambda row: (list(TRUTHS).index(row["set"].removesuffix(", near")), row["set"]))
    result = pd.DataFrame(found).join(told, on=["set", "method", "weights"])
    result.round(4).to_csv(options.out, index=False)
    print(f"{options.out}: {len(result)} rows")


def write_oracles(options: argparse.Namespace) -> None:
    oracles().to_csv(options.out, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, action in (("costs", costs), ("oracles", write_oracles), ("truth", truths), ("table", table)):
        verb = verbs.add_parser(name)
        verb.add_argument("--out", type=Path, required=True)
        verb.add_argument("--device", default="CPU, one thread", help="what to write down as the machine")
        verb.set_defaults(action=action)
    verbs.choices["costs"].add_argument("--networks", nargs="*", default=[])
    verbs.choices["truth"].add_argument("--set", choices=TRUTHS, required=True)
    verbs.choices["truth"].add_argument("--n", type=int, default=50)
    verbs.choices["truth"].add_argument("--shard", default="0/1")
    verbs.choices["table"].add_argument("shards", nargs="+", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)  # several processes at once are faster than several threads
    options.action(options)


if __name__ == "__main__":
    main()
