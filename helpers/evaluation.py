"""Methods x metrics x images -> one tidy table. It is given the methods and the metrics; it knows none of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from helpers.core import Explainer, checked_image, checked_logits, checked_target, frozen, module_of

Metric = Callable[[Any, Tensor, int, Tensor], float]
TruthMetric = Callable[[Tensor, Tensor], float]


@dataclass
class Cost:
    """What went through a network: images, in how many forward passes (calls), and how many backward passes from its logits."""

    forwards: int = 0
    calls: int = 0
    backwards: int = 0


@contextmanager
def counted(net: Any) -> Iterator[Cost]:
    """Count the passes through a network that are made inside: `with counted(net) as cost: ...; cost.forwards`.

    forwards: images that came out of the whole network, whoever calls it and in whichever mode, `torch.func.functional_call`
    included; calls: batches of them; backwards: gradients that came back to a batch of its logits. A pass that fails, or stops
    at a layer inside, is not counted. Afterwards, also after an error, the network is as it was and the counts stay.
    """
    cost = Cost()

    def backward(_gradient: Tensor) -> None:
        cost.backwards += 1

    def forward(_module: Any, _images: Any, logits: Any) -> None:
        cost.calls += 1
        cost.forwards += len(logits)
        if logits.requires_grad:
            hooks.append(logits.register_hook(backward))

    hooks = [module_of(net).register_forward_hook(forward)]
    try:
        yield cost
    finally:
        for hook in hooks:
            hook.remove()


def evaluate(
    net: Any, images: Mapping[str, Tensor], methods: Mapping[str, Explainer], metrics: Mapping[str, Metric], *,
    targets: Mapping[str, int] | None = None, truths: Mapping[str, Tensor] | None = None,
    truth_metrics: Mapping[str, TruthMetric] | None = None, store: str | Path | None = None, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Explain every image with every method and measure every map.

    images: name -> `[3, H, W]`; targets: name -> class index, by default the network's first choice on the whole image;
    metrics: name -> function of network, image, target and map; truth_metrics: name -> function of the map and of the mask
    `[H, W]` in `truths`, for the images that have one; store: a folder that keeps what is finished, so that a run that was
    killed goes on where it stopped. The store knows images, weights, targets, masks and the names of methods and metrics, not
    their settings: a method with new settings needs a new name or a new folder.
    Returns: columns image, target, method, metric, value, seconds, forwards, backwards. The last three are what the map took,
    the same in all its rows: `counted` images and backward passes, the one image with which an explainer checks the
    network included. Errors: those of methods and metrics, with image and method; ValueError for truth_metrics without truths.
    """
    targets, truths, truth_metrics = targets or {}, truths or {}, truth_metrics or {}
    n = len(metrics) + len(truth_metrics)
    if not images or not methods or not n:
        raise ValueError(f"nothing to do: {len(images)} images, {len(methods)} methods, {n} metrics")
    if twice := metrics.keys() & truth_metrics.keys():
        raise ValueError(f"two metrics have the same name: {', '.join(sorted(twice))}")
    if truth_metrics and not truths:
        raise ValueError(f"no truths are given for the metrics that need one: {', '.join(truth_metrics)}")
    if strangers := (targets.keys() | truths.keys()) - images.keys():
        raise ValueError(f"targets or truths are given for images that are not there: {', '.join(sorted(strangers))}")
    chosen = {name: first_checks(net, name, image, targets.get(name), truths.get(name)) for name, image in images.items()}
    weights = digest(*module_of(net).state_dict().values()) if store else ""
    pieces = []
    pairs: Iterable[tuple[str, str]] = [(i, m) for i in images for m in methods]
    for name, method in tqdm(pairs, desc="maps", unit="map", disable=not progress):
        image, target, truth = images[name], chosen[name], truths.get(name)
        asked = {metric: partial(f, net, image, target) for metric, f in metrics.items()}
        if truth is not None:
            asked |= {metric: partial(with_truth, f, truth) for metric, f in truth_metrics.items()}
        compute = partial(measured, net, image, target, name, method, methods[method], asked)
        if not store:
            pieces.append(compute())
            continue
        key = (weights, digest(image), "" if truth is None else digest(truth), name, str(target), method, *sorted(asked))
        pieces.append(kept(Path(store), key, compute))
    return pd.concat(pieces, ignore_index=True)


def first_checks(net: Any, name: str, image: Tensor, target: int | None, truth: Tensor | None) -> int:
    """The target of an image; what is wrong with image, target or truth is found before the long work starts."""
    try:
        with frozen(net):
            chosen = checked_target(checked_logits(net, checked_image(net, image)), target)
    except Exception as error:
        error.add_note(f"while checking image {name!r}")
        raise
    if truth is not None and truth.shape != image.shape[-2:]:
        raise ValueError(f"the truth of image {name!r} is {list(truth.shape)}; expected {list(image.shape[-2:])}")
    return chosen


def with_truth(metric: TruthMetric, truth: Tensor, saliency: Tensor) -> float:
    """A metric that needs a truth, with the map as its last argument like all others."""
    return metric(saliency, truth)


def measured(
    net: Any, image: Tensor, target: int, name: str, method: str, explain: Explainer,
    asked: Mapping[str, Callable[[Tensor], float]],
) -> pd.DataFrame:  # fmt: skip
    """The rows of one map."""
    began = time.perf_counter()
    try:
        with counted(net) as cost:
            saliency = explain(net, image, target)
    except Exception as error:
        error.add_note(f"while explaining image {name!r} with {method!r}")
        raise
    seconds = time.perf_counter() - began
    rows = []
    for metric, measure in asked.items():
        try:
            value = float(measure(saliency))
        except Exception as error:
            error.add_note(f"while measuring {metric!r} of {method!r} on image {name!r}")
            raise
        rows.append((name, target, method, metric, value, seconds, cost.forwards, cost.backwards))
    return pd.DataFrame(rows, columns=["image", "target", "method", "metric", "value", "seconds", "forwards", "backwards"])


def digest(*tensors: Tensor) -> str:
    """A short name for what is in some tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def kept(folder: Path, key: tuple[str, ...], compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The rows that `folder` has under `key`; if it has none, they are computed and put there, whole or not at all."""
    path = folder / f"{hashlib.sha256(chr(0).join(key).encode()).hexdigest()[:32]}.json"
    if path.is_file():
        return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
    rows = compute()
    folder.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(f".{os.getpid()}.part")
    half.write_text(json.dumps(rows.to_dict("list")), encoding="utf-8")  # JSON keeps every digit of a number
    os.replace(half, path)
    return rows


TABLES = "table model dataset method metric value unit n ci_low ci_high nan_count seed commit device date profile".split()


def record(
    folder: str | Path, name: str, tables: Mapping[str, pd.DataFrame], interval: Callable[[Any], tuple[float, float]], *,
    model: str, dataset: str, seed: int, device: str, profile: str,
) -> Path:  # fmt: skip
    """Write measured tables to `folder/name.csv` (means and intervals) and `folder/per_image/name.csv` (every picture).

    tables: name of the table -> what `evaluate` returned. Rows of the same table, model and dataset that stand there already are
    replaced, all others stay. In the first file a unit other than a fraction stands in brackets at the end of the
    metric's name, as in "drop (logit)". Returns: the path of the first file.
    """
    means, images = Path(folder) / f"{name}.csv", Path(folder) / "per_image" / f"{name}.csv"
    facts = dict(
        seed=seed, commit=commit_of_the_code(), device=device, date=datetime.now(UTC).date().isoformat(), profile=profile
    )
    for table, rows in tables.items():
        whose = dict(table=table, model=model, dataset=dataset)
        wide = rows.pivot(index=["image", "target", "method"], columns="metric", values="value").reset_index()
        cost = rows.drop_duplicates(["image", "target", "method"])[
            ["image", "target", "method", "seconds", "forwards", "backwards"]
        ]
        replace_rows(images, whose, cost.merge(wide, on=["image", "target", "method"], validate="1:1").round(6))
        short = summary(rows, interval).assign(**facts)
        short["unit"] = short["metric"].str.extract(r"\((.+)\)$", expand=False).fillna("fraction")
        replace_rows(means, whose, short.round(6)[[column for column in TABLES if column not in whose]])
    return means


def replace_rows(path: Path, whose: Mapping[str, str], rows: pd.DataFrame) -> None:
    """Put `rows` into a CSV file in place of those that have the same table, model and dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = pd.concat([pd.DataFrame([whose] * len(rows)), rows.reset_index(drop=True)], axis=1)
    if path.is_file():
        there = pd.read_csv(path, dtype={"table": str, "commit": str, "image": str})
        old = (there[list(whose)] == pd.Series(dict(whose))).all(axis=1)
        mine = pd.concat([there[~old], mine], ignore_index=True)
    half = path.with_suffix(".part")
    mine.to_csv(half, index=False)
    os.replace(half, path)


def commit_of_the_code() -> str:
    """The commit of this package's checkout, or "unknown" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def paired(table: pd.DataFrame, interval: Callable[[Any], tuple[float, float]], metric: str, one: str, other: str) -> pd.Series:
    """`one` minus `other`, picture by picture: value (the mean), ci_low, ci_high, n (pictures on which both are defined).

    table: rows with image, target, method, metric and value. Errors: ValueError if no picture has both methods.
    """
    mine = table[table["metric"] == metric].pivot(index=["image", "target"], columns="method", values="value")
    if missing := [method for method in (one, other) if method not in mine]:
        raise ValueError(f"no {metric!r} of {' and '.join(missing)}; there is {', '.join(mine.columns) or 'none'}")
    gaps = (mine[one] - mine[other]).dropna()
    if gaps.empty:
        raise ValueError(f"no picture has {metric!r} of both {one!r} and {other!r}")
    low, high = interval(gaps)
    return pd.Series({"value": gaps.mean(), "ci_low": low, "ci_high": high, "n": len(gaps)})


def summary(table: pd.DataFrame, interval: Callable[[Any], tuple[float, float]]) -> pd.DataFrame:
    """Mean over images of each method and metric: columns method, metric, value, ci_low, ci_high, n, nan_count.

    interval: such as `metrics.bootstrap_interval`. Methods and metrics stay in the order in which they came.
    """
    rows = []
    for (method, metric), values in table.groupby(["method", "metric"], sort=False)["value"]:
        rows.append((method, metric, values.mean(), *interval(values), int(values.notna().sum()), int(values.isna().sum())))
    return pd.DataFrame(rows, columns=["method", "metric", "value", "ci_low", "ci_high", "n", "nan_count"])


def summary_by_class(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each method and metric within every class (target), then over the classes: a rare class counts like a frequent one.

    The convention of the pointing game's accuracy. Columns method, metric, value, classes (how many have a value), n, nan_count;
    what is undefined (NaN) is left out of its class, and a class without any value out of the mean. Paper: zhang2018excitation.
    """
    rows = []
    for (method, metric), group in table.groupby(["method", "metric"], sort=False):
        values, of_class = group["value"], group.groupby("target")["value"].mean()
        rows.append((method, metric, of_class.mean(), of_class.count(), int(values.notna().sum()), int(values.isna().sum())))
    return pd.DataFrame(rows, columns=["method", "metric", "value", "classes", "n", "nan_count"])
