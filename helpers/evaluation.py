"""Methods x metrics x images -> one tidy table. It is given the methods and the metrics; it knows none of them."""

from __future__ import annotations

import copyreg
import ctypes
import functools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from random import SystemRandom
from typing import Any

import pandas as pd
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

from helpers.core import Explainer, checked_image, checked_logits, checked_target, digest, frozen, module_of
from helpers.masks import shared
from helpers.store import Measured, Store, describe, warn, whole

Metric = Callable[[Any, Tensor, int, Tensor], float]
TruthMetric = Callable[[Tensor, Tensor], float]
Each = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterable[tuple[tuple[Any, ...], Any]]]  # see `crew`


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


@dataclass(frozen=True)
class Job:
    """What every map of a run needs. One object, so that functions that share a memory still share it on a worker."""

    net: Any
    methods: dict[str, Explainer]
    metrics: dict[str, Metric]
    truth_metrics: dict[str, TruthMetric]


def evaluate(
    net: Any, images: Mapping[str, Tensor], methods: Mapping[str, Explainer], metrics: Mapping[str, Metric], *,
    targets: Mapping[str, int] | None = None, truths: Mapping[str, Tensor] | None = None,
    truth_metrics: Mapping[str, TruthMetric] | None = None, store: str | Path | None = None, cluster: Any = None,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Explain every image with every method and measure every map.

    images: name -> `[3, H, W]`; any mapping, also one that reads a file at each access: an image is asked for once to be
    checked and once to be explained, and not held; targets: name -> class index, by default the network's first choice on the
    whole image; metrics: name -> function of network, image, target and map; truth_metrics: name -> function of the map and of
    the mask `[H, W]` in `truths`, for the images that have one.
    store: a folder that keeps the numbers of each map as soon as they are there: a run that was killed, or found the disk full,
    goes on where it stopped, and several runs may share the folder. They are found again by all that went into them: image,
    target, mask, network, method and metrics with their settings (`store.describe` says how). The commit of this package is kept
    beside them: a table of more than one is a warning, and `table.attrs["commits"]` lists them.
    cluster: the address of a Dask scheduler, "tcp://host:8786", or a `distributed.Client`: its workers do the work; this
    process alone reads the images and writes the store. A worker has one thread (`--nthreads 1`), since hooks and flags of one
    network are not for two at a time; how many torch uses within an operation is its own affair (`OMP_NUM_THREADS`), and as
    many give the same digits. Functions of a notebook travel along; what it imports must be installed on the workers.
    Returns: columns image, target, method, metric, value, seconds, forwards, backwards, in the order of images, methods,
    metrics. The last three are what the map took, the same in all its rows: `counted` images and backward passes. The masked
    copies that several metrics of a map ask for are scored once. Errors: those of methods and metrics, with image and method;
    ValueError for truth_metrics without truths and for workers with several threads; OSError if the store cannot be written.
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
    job = Job(net, dict(methods), dict(metrics), dict(truth_metrics))
    total = len(images) * len(methods)
    chosen: dict[str, int] = {}
    keys: dict[tuple[str, str], dict[str, Any]] = {}
    found: dict[tuple[str, str], Measured] = {}
    if store:
        with explained(lambda: f"0 of {total} maps are finished"):
            kept = Store(store)
        words = described(job)

    def look(name: str, image: Tensor, target: int, truth: Tensor | None) -> bool:
        """Take the maps of an image that are kept. Are these all?"""
        for key in keys_of(words, name, image, target, truth):
            keys[name, key["method"]] = key
            if there := kept.read(key):
                found[name, key["method"]] = there
        return all((name, method) in found for method in methods)

    with crew(cluster, job) as each:
        with tqdm(total=len(images), desc="checking images", unit="image", disable=not progress, leave=False) as bar:

            def unchecked() -> Iterator[tuple[Any, ...]]:
                for name in images:
                    image, target, truth = images[name], targets.get(name), truths.get(name)
                    if store and type(target) is int and isinstance(image, Tensor) and look(name, image, target, truth):
                        chosen[name] = target  # it was checked when these maps were made
                        bar.update()
                        continue
                    yield name, image, target, truth

            for (name, image, _, truth), index in each(first_checks, unchecked()):
                chosen[name] = index
                if store and (name, next(iter(methods))) not in keys:
                    look(name, image, index, truth)
                bar.update()
        if found and progress:
            tqdm.write(f"{len(found)} of {total} maps were found in {store}", file=sys.stderr)
        order = list(images)
        if store:  # each run in an order of its own, so that two of them on one folder seldom make the same map
            SystemRandom().shuffle(order)
        with tqdm(total=total, initial=len(found), desc="maps", unit="map", disable=not progress) as bar:

            def missing() -> Iterator[tuple[Any, ...]]:
                for name in order:
                    image = None
                    for method in [m for m in methods if (name, m) not in found]:
                        if store and (there := kept.read(keys[name, method])):  # another run was faster
                            found[name, method] = there
                            bar.update()
                            continue
                        image = images[name] if image is None else image
                        yield name, method, image, chosen[name], truths.get(name) if job.truth_metrics else None

            for (name, method, *_), result in each(measured, missing()):
                if store:
                    with explained(lambda: f"{len(found)} of {total} maps are finished and kept in {kept.folder}"):
                        kept.write(keys[name, method], result)
                found[name, method] = result
                bar.update()
    return table_of(job, {name: chosen[name] for name in images}, found)


def table_of(job: Job, chosen: Mapping[str, int], found: Mapping[tuple[str, str], Measured]) -> pd.DataFrame:
    """What was measured, in the order of images, methods and metrics, whoever measured it when. chosen: image -> target."""
    metrics = [*job.metrics, *job.truth_metrics]
    rows = [
        (name, target, method, metric, one.values[metric], one.seconds, one.forwards, one.backwards)
        for name, target in chosen.items()
        for method in job.methods
        for one in [found[name, method]]
        for metric in metrics
        if metric in one.values
    ]
    table = pd.DataFrame(rows, columns=["image", "target", "method", "metric", "value", "seconds", "forwards", "backwards"])
    table.attrs["commits"] = commits = sorted({one.commit for one in found.values()})
    if len(commits) > 1:
        warn(f"this table was made by {len(commits)} commits, {', '.join(commits)}; in an empty store all of it is made by one")
    return table


def described(job: Job) -> dict[str, Any]:
    """The network, the methods and the metrics of a job in words that know their settings."""
    known: dict[int, tuple[Any, str]] = {}
    say = partial(describe, known=known)
    words = {kind: {k: say(v) for k, v in getattr(job, kind).items()} for kind in ("methods", "metrics", "truth_metrics")}
    return {"network": say(job.net), **words}


def keys_of(words: Mapping[str, Any], name: str, image: Tensor, target: int, truth: Tensor | None) -> Iterator[dict[str, Any]]:
    """For each method all that its map of this image and the numbers from it depend on, the code of this package aside."""
    metrics, mask = words["metrics"], ""
    if truth is not None and words["truth_metrics"]:
        metrics, mask = metrics | words["truth_metrics"], digest(truth)
    facts = {"image": name, "pixels": digest(image), "target": target, "truth": mask, "network": words["network"]}
    for method, settings in words["methods"].items():
        yield facts | {"method": method, "settings": settings, "metrics": metrics}


@contextmanager
def explained(state: Callable[[], str]) -> Iterator[None]:
    """What an error while writing means for a run. state: what is finished by then, and where it is."""
    try:
        yield
    except OSError as error:
        name = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror or error}{name}: {state()}. Once it can be written again, the same command goes on from there"
        raise OSError(error.errno, text) from error


@contextmanager
def crew(cluster: Any, job: Job) -> Iterator[Each]:
    """Those who do the work: `for task, result in each(work, tasks)` gives every `work(job, *task)`.

    Without a cluster it is this process, task by task. Else its workers: they get the job once, a few tasks each are under way,
    results come as they are finished, and a task whose worker died is given to another one.
    Errors: ImportError without dask; those of the work; ValueError for workers with several threads; OSError if there is no
    scheduler at that address.
    """
    if not cluster:
        yield lambda work, tasks: ((task, work(job, *task)) for task in tasks)
        return
    try:
        import distributed
    except ImportError as error:
        raise ImportError('cluster=… needs dask and distributed: pip install "seeing-why[cluster]"') from error
    mine = not isinstance(cluster, distributed.Client)
    client = distributed.Client(cluster, set_as_default=False) if mine else cluster
    given: Any = None  # the job, on every worker
    waiting: dict[Any, tuple[Any, ...]] = {}  # future -> its task

    def hand_out() -> Any:
        """The job for every worker. One that dies just then is an error: the others get it in the next attempt."""
        for attempts_left in reversed(range(5)):
            if not workers_of(client):
                tqdm.write("waiting for a worker", file=sys.stderr)
                client.wait_for_workers(1)
            try:
                return client.scatter(job, broadcast=True, hash=False)
            except OSError:
                if not attempts_left:
                    raise
                time.sleep(1)

    def each(work: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[tuple[Any, ...], Any]]:
        nonlocal given
        tasks, finished, lost = iter(tasks), distributed.as_completed(loop=client.loop), Counter[Any]()

        def submit(task: tuple[Any, ...]) -> None:
            future = client.submit(at_worker, work, given, *task, pure=False)
            waiting[future] = task
            finished.add(future)

        while True:
            places = max(2, 3 * len(workers_of(client)))
            while len(waiting) < places and (task := next(tasks, None)):
                submit(task)
            if not waiting:
                return
            future = next(finished)
            task = waiting.pop(future)
            what = " with ".join(repr(part) for part in task[:2] if isinstance(part, str))
            try:
                result = future.result()
            except CancelledError:  # all workers that had the job died: the next ones get it anew
                lost[what] += 1
                if lost[what] > 5:
                    raise RuntimeError(f"no worker lived to finish image {what}: has each enough memory?") from None
                if given.status != "finished":
                    given = hand_out()
                submit(task)
            except Exception as error:
                if not getattr(error, "__notes__", None):  # not ours, such as a worker that was killed again and again
                    error.add_note(f"while a worker was at image {what}")
                raise
            else:
                yield task, result

    try:
        given = hand_out()
        yield each
    finally:
        client.cancel(list(waiting))
        if mine:
            client.close()


def at_worker(work: Callable[..., Any], job: Job, *task: Any) -> Any:
    """Work in the process of a worker."""
    keep_freed_memory()
    return work(job, *task)


@cache
def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for what comes next.

    Dask's nanny has glibc give back every large tensor at once (MALLOC_TRIM_THRESHOLD_), which takes as long as a small network.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
        library.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD


def workers_of(client: Any) -> list[str]:
    """The addresses of the workers. Errors: ValueError if one has several threads."""
    threads = client.nthreads()
    if many := sorted(f"{worker} has {n}" for worker, n in threads.items() if n > 1):
        raise ValueError(f"a worker must have one thread: start it with --nthreads 1; {', '.join(many)}")
    return list(threads)


def first_checks(job: Job, name: str, image: Tensor, target: int | None, truth: Tensor | None) -> int:
    """The target of an image; what is wrong with image, target or truth is found before the long work starts."""
    try:
        with frozen(job.net):
            chosen = checked_target(checked_logits(job.net, checked_image(job.net, image)), target)
    except Exception as error:
        error.add_note(f"while checking image {name!r}")
        raise
    if truth is not None and truth.shape != image.shape[-2:]:
        raise ValueError(f"the truth of image {name!r} is {list(truth.shape)}; expected {list(image.shape[-2:])}")
    return chosen


def with_truth(metric: TruthMetric, truth: Tensor, saliency: Tensor) -> float:
    """A metric that needs a truth, with the map as its last argument like all others."""
    return metric(saliency, truth)


def measured(job: Job, name: str, method: str, image: Tensor, target: int, truth: Tensor | None) -> Measured:
    """One map and all its metrics."""
    began = time.perf_counter()
    try:
        with counted(job.net) as cost:
            saliency = job.methods[method](job.net, image, target)
    except Exception as error:
        error.add_note(f"while explaining image {name!r} with {method!r}")
        raise
    seconds = time.perf_counter() - began
    asked: dict[str, Callable[[Tensor], float]] = {k: partial(f, job.net, image, target) for k, f in job.metrics.items()}
    if truth is not None:
        asked |= {k: partial(with_truth, f, truth) for k, f in job.truth_metrics.items()}
    values = {}
    with shared():
        for metric, measure in asked.items():
            try:
                values[metric] = float(measure(saliency))
            except Exception as error:
                error.add_note(f"while measuring {metric!r} of {method!r} on image {name!r}")
                raise
    return Measured(values, seconds, cost.forwards, cost.backwards, commit_of_the_code())


TABLES = "table model dataset method metric value unit n ci_low ci_high nan_count seed commit device date profile".split()


def record(
    folder: str | Path, name: str, tables: Mapping[str, pd.DataFrame], interval: Callable[[Any], tuple[float, float]], *,
    model: str, dataset: str, seed: int, device: str, profile: str,
) -> Path:  # fmt: skip
    """Write measured tables to `folder/name.csv` (means and intervals) and `folder/per_image/name.csv` (every picture).

    tables: name of the table -> what `evaluate` returned. Rows of the same table, model and dataset that stand there already are
    replaced, unless they are of more pictures: then they stay, with a warning. All others stay. In the first file a unit other
    than a fraction stands in brackets at the end of the metric's name, as in "drop (logit)". Returns: the path of the first file.
    """
    means, images = Path(folder) / f"{name}.csv", Path(folder) / "per_image" / f"{name}.csv"
    facts = dict(seed=seed, device=device, date=datetime.now(UTC).date().isoformat(), profile=profile)
    for table, rows in tables.items():
        whose = dict(table=table, model=model, dataset=dataset)
        if (there := pictures_in(images, whose)) > (n := rows["image"].nunique()):
            warn(f"{table!r} of {model} on {dataset} stays in {means} as it is: of {there} pictures, this run has {n}")
            continue
        wide = rows.pivot(index=["image", "target", "method"], columns="metric", values="value").reset_index()
        cost = rows.drop_duplicates(["image", "target", "method"])[
            ["image", "target", "method", "seconds", "forwards", "backwards"]
        ]
        replace_rows(images, whose, cost.merge(wide, on=["image", "target", "method"], validate="1:1").round(6))
        short = summary(rows, interval).assign(**facts, commit="+".join(rows.attrs.get("commits") or [commit_of_the_code()]))
        short["unit"] = short["metric"].str.extract(r"\((.+)\)$", expand=False).fillna("fraction")
        replace_rows(means, whose, short.round(6)[[column for column in TABLES if column not in whose]])
    return means


def rows_of(there: pd.DataFrame, whose: Mapping[str, str]) -> pd.Series:
    """Which rows are of one table, model and dataset."""
    return (there[list(whose)] == pd.Series(dict(whose))).all(axis=1)


def pictures_in(path: Path, whose: Mapping[str, str]) -> int:
    """How many pictures a CSV file has rows of, of one table, model and dataset."""
    if not path.is_file():
        return 0
    there = pd.read_csv(path, dtype={"table": str, "image": str}, usecols=[*whose, "image"])
    return int(there.loc[rows_of(there, whose), "image"].nunique())


def replace_rows(path: Path, whose: Mapping[str, str], rows: pd.DataFrame) -> None:
    """Put `rows` into a CSV file in place of those that have the same table, model and dataset; one process after the other."""
    mine = pd.concat([pd.DataFrame([whose] * len(rows)), rows.reset_index(drop=True)], axis=1)
    with explained(lambda: f"{path} is as it was, and maps in a store are kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.is_file():
                there = pd.read_csv(path, dtype={"table": str, "commit": str, "image": str})
                mine = pd.concat([there[~rows_of(there, whose)], mine], ignore_index=True)
            with whole(path) as file:
                mine.to_csv(file, index=False, lineterminator="\n")


@cache
def commit_of_the_code() -> str:
    """The commit of this package's checkout, with a "+" if its code was changed since; "unknown" outside one."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not somebody else's repository around an installed copy
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
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


def remembering(function: Any, maxsize: int | None, typed: bool) -> Any:
    """A function with a memory, `functools.lru_cache`, that is still empty."""
    return functools.lru_cache(maxsize, typed)(function)


def travelling(memory: Any) -> str | tuple[Any, ...]:
    """How a function with a memory goes to a worker: by name if it can be imported, else without what it remembers."""
    function, settings = memory.__wrapped__, memory.cache_parameters()
    name = getattr(function, "__qualname__", "")  # a partial has none
    if function.__module__ != "__main__" and getattr(sys.modules.get(function.__module__), name, None) is memory:
        return name
    return remembering, (function, settings["maxsize"], settings["typed"])


copyreg.pickle(type(functools.lru_cache(len)), travelling)
