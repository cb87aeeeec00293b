"""Long runs on real pictures that are killed, share a folder or go to a cluster: is it the same table, and what does it cost?

    python tests/long_runs.py FOLDER_OF_PICTURES --n 500    # twenty minutes on two cores
    python tests/long_runs.py FOLDER_OF_PICTURES --n 12     # one

EfficientNet-Lite0, Grad-CAM and LayerCAM, Average Drop; every run is a process of its own and has one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from helpers import cam, data, evaluation, metrics, models

EXACT = ["image", "target", "method", "metric", "value", "forwards", "backwards"]  # all but the seconds
METHODS = {"Grad-CAM": cam.grad_cam, "LayerCAM": cam.layer_cam}
METRICS = {"Average Drop": metrics.average_drop}


class Pictures(Mapping[str, Tensor]):
    """The first n pictures of a folder, by file name; each is read when it is asked for, and not kept."""

    def __init__(self, folder: Path, n: int, net: models.Classifier):
        self.photos = {photo.name: photo for photo in data.photos_in(folder)[0][:n]}
        self.net = net

    def __getitem__(self, name: str) -> Tensor:
        return self.net.preprocess(self.photos[name].picture)

    def __iter__(self) -> Iterator[str]:
        return iter(self.photos)

    def __len__(self) -> int:
        return len(self.photos)


def run(options: argparse.Namespace) -> None:
    """One run: its table in `out`, beside it how long it took, how many maps it made, and what keeping them took."""
    torch.set_num_threads(1)
    writing: list[float] = []
    write = evaluation.Store.write

    def timed(*given) -> None:
        began = time.perf_counter()
        write(*given)
        writing.append(time.perf_counter() - began)

    evaluation.Store.write = timed
    net = models.load("efficientnet_lite0")
    pictures = Pictures(options.folder, options.n, net)
    began = time.perf_counter()
    table = evaluation.evaluate(
        net, pictures, METHODS, METRICS, store=options.store, cluster=options.cluster, progress=sys.stderr.isatty()
    )
    facts = {"seconds": time.perf_counter() - began, "made": len(writing), "writing": sum(writing)}
    table.to_pickle(options.out)
    options.out.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")


def started(options: argparse.Namespace, store: Path, out: Path, cluster: str = "") -> subprocess.Popen:
    """The same in a process of its own."""
    command = [sys.executable, __file__, options.folder, "--n", str(options.n), "--store", store, "--out", out]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    return subprocess.Popen([*command, "--cluster", cluster], env=settings)


def ended(process: subprocess.Popen, out: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """Table and facts of a run. Errors: RuntimeError if it failed."""
    if code := process.wait():
        raise RuntimeError(f"a run ended with {code}")
    return pd.read_pickle(out), json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))


def pieces(store: Path) -> int:
    return sum(1 for _ in store.glob("*.json"))


def until(store: Path, finished: int, process: subprocess.Popen) -> None:
    """Wait until so many maps are kept. Errors: RuntimeError if the run ends before."""
    while pieces(store) < finished:
        if process.poll() is not None:
            raise RuntimeError(f"a run ended with {process.returncode} before {finished} maps were finished")
        time.sleep(0.01)


def compared(options: argparse.Namespace, folder: Path) -> bool:
    """All runs, one report. Returns: whether all tables are equal, bit by bit."""
    import distributed

    r, total, equal = random.Random(options.seed), options.n * len(METHODS), []

    def say(what: str, table: pd.DataFrame) -> None:
        equal.append(table[EXACT].equals(whole[EXACT]))
        print(f"{what}: {'the same table' if equal[-1] else 'ANOTHER TABLE'}", flush=True)

    print(
        f"{options.n} pictures, {total} maps, commit {evaluation.commit_of_the_code()}, {os.cpu_count()} cores, one thread each"
    )
    out = folder / "unbroken.pkl"
    whole, one = ended(started(options, folder / "unbroken", out), out)
    each = one["seconds"] / total
    print(f"unbroken: {one['seconds']:.1f} s, {1000 * each:.0f} ms a map; writing it {1000 * one['writing'] / total:.2f} ms")
    print(f"  mean Average Drop {whole.groupby('method', sort=False)['value'].mean().round(4).to_dict()}", flush=True)

    store, out, stops = folder / "killed", folder / "killed.pkl", sorted(r.sample(range(1, total), 5))
    for finished in stops:
        process = started(options, store, out)
        until(store, finished, process)
        time.sleep(r.uniform(0, each))
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = pieces(store)
    table, facts = ended(started(options, store, out), out)
    say(f"killed after {stops} maps: {there} were kept, {facts['made']:.0f} were left to make", table)
    equal.append(there + facts["made"] == total)

    outs = [folder / "both_1.pkl", folder / "both_2.pkl"]
    both = [ended(p, out) for p, out in zip([started(options, folder / "both", out) for out in outs], outs, strict=True)]
    made = [int(facts["made"]) for _, facts in both]
    for number, (table, _) in enumerate(both, 1):
        say(f"two runs on one folder, the {['first', 'second'][number - 1]}: {made[number - 1]} maps made", table)
    print(f"  {sum(made) - total} maps were made twice; {max(facts['seconds'] for _, facts in both):.1f} s")

    settings = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with distributed.LocalCluster(**settings) as cluster:
        run_there = partial(started, options, cluster=cluster.scheduler_address)
        few = argparse.Namespace(**vars(options) | {"n": 2})  # so that the workers have imported what they need
        out = folder / "warm.pkl"
        ended(started(few, folder / "warm", out, cluster.scheduler_address), out)
        out = folder / "cluster.pkl"
        table, two = ended(run_there(folder / "cluster", out), out)
        say(f"two workers: {two['seconds']:.1f} s, {one['seconds'] / two['seconds']:.2f} times as fast", table)
        lost = (2 * two["seconds"] - one["seconds"]) / total
        print(f"  what a map costs more in worker time: {1000 * lost:.1f} ms, {100 * lost / each:.1f} %")
        store, out = folder / "struck", folder / "struck.pkl"
        process = run_there(store, out)
        until(store, r.randrange(1, total), process)
        os.kill(cluster.workers[0].pid, signal.SIGKILL)
        table, facts = ended(process, out)
        say(f"a worker killed on the way: {facts['seconds']:.1f} s", table)
    print(f"  load of the machine after: {os.getloadavg()[0]:.1f}, of which two are the runs'")
    return all(equal)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="pictures")
    parser.add_argument("--n", type=int, default=500, help="how many of them")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    for name in ("--store", "--out"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)  # of a run in a process of its own
    parser.add_argument("--cluster", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        run(options)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return int(not compared(options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
