"""Methods x metrics x images -> one tidy table. It is given the methods and the metrics; it knows none of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from helpers.core import Explainer, checked_image, checked_logits, checked_target, frozen

Metric = Callable[[Any, Tensor, int, Tensor], float]


def evaluate(
    net: Any, images: Mapping[str, Tensor], methods: Mapping[str, Explainer], metrics: Mapping[str, Metric], *,
    targets: Mapping[str, int] | None = None, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Explain every image with every method and measure every map: columns image, target, method, metric, value, seconds.

    images: name -> `[3, H, W]`; targets: name -> class index, by default the network's first choice on the whole image;
    seconds: what the map took, the same in all rows of one map. Errors: those of methods and metrics, with image and method.
    """
    if not images or not methods or not metrics:
        raise ValueError(f"nothing to do: {len(images)} images, {len(methods)} methods, {len(metrics)} metrics")
    if strangers := (targets or {}).keys() - images.keys():
        raise ValueError(f"targets are given for images that are not there: {', '.join(sorted(strangers))}")
    chosen: dict[str, int] = {}
    for name, image in images.items():  # all of it is checked before the long work starts
        with frozen(net):
            chosen[name] = checked_target(checked_logits(net, checked_image(net, image)), (targets or {}).get(name))
    rows = []
    pairs: Iterable[tuple[str, str]] = [(i, m) for i in images for m in methods]
    for name, method in tqdm(pairs, desc="maps", unit="map", disable=not progress):
        began = time.perf_counter()
        try:
            saliency = methods[method](net, images[name], chosen[name])
        except Exception as error:
            error.add_note(f"while explaining image {name!r} with {method!r}")
            raise
        seconds = time.perf_counter() - began
        for metric, measure in metrics.items():
            try:
                value = measure(net, images[name], chosen[name], saliency)
            except Exception as error:
                error.add_note(f"while measuring {metric!r} of {method!r} on image {name!r}")
                raise
            rows.append((name, chosen[name], method, metric, value, seconds))
    return pd.DataFrame(rows, columns=["image", "target", "method", "metric", "value", "seconds"])


def summary(table: pd.DataFrame, interval: Callable[[Any], tuple[float, float]]) -> pd.DataFrame:
    """Mean over images of each method and metric: columns method, metric, value, ci_low, ci_high, n, nan_count.

    interval: such as `metrics.bootstrap_interval`. Methods and metrics stay in the order in which they came.
    """
    rows = []
    for (method, metric), values in table.groupby(["method", "metric"], sort=False)["value"]:
        rows.append((method, metric, values.mean(), *interval(values), int(values.notna().sum()), int(values.isna().sum())))
    return pd.DataFrame(rows, columns=["method", "metric", "value", "ci_low", "ci_high", "n", "nan_count"])
