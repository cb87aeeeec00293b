"""Methods x metrics x images -> one tidy table. It is given the methods and the metrics; it knows none of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
    truth_metrics: Mapping[str, TruthMetric] | None = None, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Explain every image with every method and measure every map.

    images: name -> `[3, H, W]`; targets: name -> class index, by default the network's first choice on the whole image;
    metrics: name -> function of network, image, target and map; truth_metrics: name -> function of the map and of the mask
    `[H, W]` in `truths`, for the images that have one.
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
    chosen: dict[str, int] = {}
    for name, image in images.items():  # all of it is checked before the long work starts
        try:
            with frozen(net):
                chosen[name] = checked_target(checked_logits(net, checked_image(net, image)), targets.get(name))
        except Exception as error:
            error.add_note(f"while checking image {name!r}")
            raise
        if name in truths and truths[name].shape != image.shape[-2:]:
            raise ValueError(f"the truth of image {name!r} is {list(truths[name].shape)}; expected {list(image.shape[-2:])}")
    rows = []
    pairs: Iterable[tuple[str, str]] = [(i, m) for i in images for m in methods]
    for name, method in tqdm(pairs, desc="maps", unit="map", disable=not progress):
        began = time.perf_counter()
        try:
            with counted(net) as cost:
                saliency = methods[method](net, images[name], chosen[name])
        except Exception as error:
            error.add_note(f"while explaining image {name!r} with {method!r}")
            raise
        seconds = time.perf_counter() - began
        measures = {metric: partial(f, net, images[name], chosen[name], saliency) for metric, f in metrics.items()}
        if name in truths:
            measures |= {metric: partial(f, saliency, truths[name]) for metric, f in truth_metrics.items()}
        for metric, measure in measures.items():
            try:
                value = measure()
            except Exception as error:
                error.add_note(f"while measuring {metric!r} of {method!r} on image {name!r}")
                raise
            rows.append((name, chosen[name], method, metric, value, seconds, cost.forwards, cost.backwards))
    return pd.DataFrame(rows, columns=["image", "target", "method", "metric", "value", "seconds", "forwards", "backwards"])


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
