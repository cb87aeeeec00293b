"""Measure a chapter's tables on a folder of photographs, in shards, and write their means to data/results.

    python book/measure.py run --data DIR --model squeezenet1_1 --weights FILE --n 1000 --shard 0/4 --out shard0.csv
    python book/measure.py table --out data/results/04_scorecampp.csv --dataset NAME --profile photographs shard*.csv

A shard is one process's share of the pictures; it appends each finished picture and goes on after the last one if it is
started again. Per picture the maps are those of chapter 04: the methods of its Tables 1 to 4 and 8, the gates of Table 5
and the sums of Table 6. The target is the network's first choice.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers import cam, datasets, evaluation, metrics, models, sanity, score_cam  # noqa: E402
from helpers.core import logit, probability  # noqa: E402

METHODS = {
    "GradCAM": cam.grad_cam, "GradCAM++": cam.grad_cam_pp, "XGradCAM": cam.xgrad_cam, "LayerCAM": cam.layer_cam,
    "ScoreCAM": score_cam.score_cam, "ScoreCAM++": score_cam.score_cam_pp,
}  # fmt: skip
GATES = {"ReLU": torch.relu, "Sigmoid": torch.sigmoid, "Mish": F.mish, "Swish": F.silu}
VARIANTS = {f"ScoreCAM++ {name}": partial(score_cam.score_cam_pp, gate=gate) for name, gate in GATES.items()} | {
    "ScoreCAM++ mask only": partial(score_cam.score_cam_pp, gate_sum=False)
}
STRIP = {"edge detector": sanity.edge_map, "random map": sanity.random_map, "centred blob": sanity.centred_blob}
SCORES = {"probability": probability, "logit": logit}
MEASURES = {
    "Average Drop": metrics.average_drop,
    "Increase in Confidence": metrics.increase_in_confidence,
    "drop": metrics.signed_drop,
}
METRICS = {f"{name}, {s}": partial(measure, score=score) for name, measure in MEASURES.items() for s, score in SCORES.items()}
METRICS["Drop in logit"] = metrics.drop_in_logit


def run(options: argparse.Namespace) -> None:
    """Measure this shard's pictures and append them to `--out`, one picture at a time."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # full single precision on a GPU too
    net = models.load(options.model, weights=options.weights or "published", device=options.device)
    part, parts = map(int, options.shard.split("/"))
    photos = datasets.load("folder", options.data, options.n, options.seed)[part::parts]
    chosen = METHODS | STRIP | (VARIANTS if options.variants else {})
    masked = {name: partial(chosen[name], batch_size=options.batch_size) for name in chosen if name.startswith("ScoreCAM")}
    methods = chosen | masked
    done = (
        set(zip(*(pd.read_csv(options.out)[key] for key in ("image", "method")), strict=True)) if options.out.exists() else set()
    )
    for i, photo in enumerate(photos):
        left = {name: method for name, method in methods.items() if (photo.name, name) not in done}
        if not left:
            continue
        table = evaluation.evaluate(net, {photo.name: net.preprocess(photo.picture)}, left, METRICS, progress=False)
        table.insert(0, "model", options.model)
        table.to_csv(options.out, mode="a", header=not options.out.exists(), index=False)
        print(f"shard {options.shard}: {i + 1}/{len(photos)} {photo.name}", flush=True)


def table(options: argparse.Namespace) -> None:
    """Means, 95 % bootstrap intervals and wins of all shards, in the columns of data/results."""
    rows = pd.concat([pd.read_csv(path) for path in options.shards], ignore_index=True)
    rows = rows.drop_duplicates(["model", "image", "method", "metric"])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    date = datetime.now(UTC).date().isoformat()
    facts = dict(seed=options.seed, commit=commit, device=options.device, date=date, profile=options.profile)
    gates = {"ScoreCAM++": "Tanh", **{f"ScoreCAM++ {g}": g for g in GATES}}
    sums = {"ScoreCAM++": "Normalization + Upsampled", "ScoreCAM++ mask only": "Normalization"}
    groups = {"methods": {m: m for m in METHODS}, "gates": gates, "sums": sums, "strip": {m: m for m in (*STRIP, "ScoreCAM++")}}
    found = []
    for model, of_model in rows.groupby("model", sort=False):
        for group, names in groups.items():
            mine = of_model[of_model["method"].isin(names)].assign(method=of_model["method"].map(names))
            whole = mine.groupby("image")["method"].nunique() == len(names)  # pictures that every method of the group has seen
            mine = mine[mine["image"].isin(whole.index[whole])]
            if mine.empty:
                continue
            means = evaluation.summary(mine[~mine["metric"].str.startswith("drop")], metrics.bootstrap_interval)
            for kind in SCORES:
                of_kind = mine[mine["metric"] == f"drop, {kind}"]
                drops = of_kind.pivot(index="image", columns="method", values="value")[list(names.values())]
                for method, share in metrics.win(drops).items():
                    won = share_of_each(drops, method)
                    means.loc[len(means)] = (method, f"Win, {kind}", share, *metrics.bootstrap_interval(won), len(won), 0)
            means.insert(0, "table", group)
            means.insert(1, "model", model)
            found.append(means)
    result = pd.concat(found, ignore_index=True).assign(dataset=options.dataset, unit="fraction", **facts)
    result.loc[result["metric"] == "Drop in logit", "unit"] = "logit"
    columns = "table model dataset method metric value unit n ci_low ci_high nan_count seed commit device date profile".split()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result[columns].round(5).to_csv(options.out, index=False)
    print(f"{options.out}: {len(result)} rows from {rows['image'].nunique()} pictures")


def share_of_each(drops: pd.DataFrame, method: str) -> np.ndarray:
    """The point, or share of a point, that `method` wins on each picture: what the bootstrap draws from."""
    return np.array([metrics.win(drops.iloc[[i]])[method] for i in range(len(drops))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("run", "table"):
        verb = verbs.add_parser(name)
        verb.add_argument("--out", type=Path, required=True)
        verb.add_argument("--seed", type=int, default=0)
        verb.add_argument("--device", default="cpu")
    verbs.choices["run"].add_argument("--data", required=True)
    verbs.choices["run"].add_argument("--model", default="efficientnet_lite0")
    verbs.choices["run"].add_argument("--weights")
    verbs.choices["run"].add_argument("--n", type=int, default=100)
    verbs.choices["run"].add_argument("--shard", default="0/1")
    verbs.choices["run"].add_argument("--variants", action="store_true", help="the gates and sums too: five more passes")
    verbs.choices["run"].add_argument("--batch-size", type=int, default=8)
    verbs.choices["table"].add_argument("shards", nargs="+", type=Path)
    verbs.choices["table"].add_argument("--dataset", required=True)
    verbs.choices["table"].add_argument("--profile", required=True)
    options = parser.parse_args()
    {"run": run, "table": table}[options.verb](options)


if __name__ == "__main__":
    main()
