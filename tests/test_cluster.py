"""A Dask cluster: whatever the number of workers and whichever of them dies, the table is that of one process."""

import platform
import sys
import time
from collections.abc import Mapping
from functools import partial

import pandas as pd
import pytest
import torch
from networks import image
from torch import nn

from helpers import metrics
from helpers.cam import grad_cam, layer_cam
from helpers.evaluation import evaluate

distributed = pytest.importorskip("distributed", reason='pip install "seeing-why[cluster]"')

IMAGES = {f"picture {i}": image(i) for i in range(8)}
EXACT = ["image", "target", "method", "metric", "value", "forwards", "backwards"]


def of_notebook(source, **names):
    """What a notebook would define with this source: modules cannot be imported from it."""
    space = {"__name__": "__main__", **names}
    exec(source, space)
    return space


NOTEBOOK = of_notebook("""
import os, signal
noted = {}
class Half:
    def __call__(self, net, x, target):
        return x[0] / 2
def sizes(net, x, target):
    noted["size"] = float(x.abs().sum())
    return x[0]
def size(net, x, target, saliency):
    return noted["size"]
def fails(net, x, target):
    raise ZeroDivisionError("no")
def dying(flag, net, x, target):  # takes its worker with it, once
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return x[0]
    os.kill(os.getpid(), signal.SIGKILL)
def faults(net, x, target):  # how often the system had to find memory for a tensor that has been there before
    import resource, torch
    torch.ones(1 << 18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.ones(1 << 18)  # 1 MB
    return x[0] * 0 + resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
""")
METHODS = {"Grad-CAM": partial(grad_cam, layer="1"), "LayerCAM": partial(layer_cam, layer="1"), "sizes": NOTEBOOK["sizes"],
           "half": NOTEBOOK["Half"](), "lambda": lambda net, x, target: x[1]}  # fmt: skip
METRICS = {"drop": metrics.average_drop, "mean": lambda net, x, target, saliency: float(saliency.mean())}


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(96, 4)
        return nn.Sequential(*layers).double().eval()


def run(images=IMAGES, methods=METHODS, metrics=METRICS, **settings):
    return evaluate(network(), images, methods, metrics, progress=False, **settings)


def same(one, other):
    pd.testing.assert_frame_equal(one[EXACT], other[EXACT], check_exact=True)


@pytest.fixture(scope="module")
def alone():
    return run()


@pytest.fixture(scope="module")
def cluster():
    """One worker, a process of its own with one thread; a test may ask for more."""
    settings = dict(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None)
    with distributed.LocalCluster(**settings) as local, distributed.Client(local, set_as_default=False) as client:
        yield client


def workers(client, n):
    client.cluster.scale(n)
    while len(client.nthreads()) != n:
        time.sleep(0.05)
    return client


@pytest.mark.parametrize("n", [1, 2, 4])
def test_any_number_of_workers_gives_the_table_of_one_process(cluster, alone, n):
    same(run(cluster=workers(cluster, n)), alone)


def test_an_address_will_do(cluster, alone):
    address = cluster.scheduler.address
    same(run(cluster=address), alone)
    with pytest.raises(ValueError, match="No clients found"):  # that of `evaluate` is closed and was never the default
        distributed.default_client()


def test_functions_of_a_notebook_share_their_memory_on_a_worker(cluster):
    table = run(methods={"sizes": NOTEBOOK["sizes"]}, metrics={"size": NOTEBOOK["size"]}, cluster=cluster)
    assert table["value"].tolist() == [float(x.abs().sum()) for x in IMAGES.values()]


def test_this_process_alone_writes_the_store_and_reads_it_without_the_cluster(cluster, alone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the workers are elsewhere
    same(run(cluster=cluster, store="parts"), alone)
    pieces = {path: path.stat().st_mtime_ns for path in tmp_path.glob("parts/*")}
    assert len(pieces) == len(IMAGES) * len(METHODS)
    same(run(store="parts"), alone)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("parts/*")} == pieces


def test_an_error_on_a_worker_names_image_and_method(cluster, tmp_path):
    with pytest.raises(ZeroDivisionError, match="no") as caught:
        run({"first": image()}, {"bad one": NOTEBOOK["fails"]}, cluster=cluster, store=tmp_path)
    assert caught.value.__notes__ == ["while explaining image 'first' with 'bad one'"]
    same(run({"first": image()}, {"half": METHODS["half"]}, cluster=cluster), run({"first": image()}, {"half": METHODS["half"]}))


class Counted(Mapping):
    """Pictures; how many were handed out beyond what is finished."""

    def __init__(self, folder):
        self.folder, self.asked, self.ahead = folder, 0, 0

    def __getitem__(self, name):
        self.asked += 1
        if self.asked > len(self):  # the first round is the check
            self.ahead = max(self.ahead, self.asked - len(self) - len(list(self.folder.glob("*.json"))))
        return image(int(name))

    def __iter__(self):
        return map(str, range(len(self)))

    def __len__(self):
        return 30


def test_few_pictures_are_under_way_at_a_time(cluster, tmp_path):
    pictures = Counted(tmp_path)
    assert len(run(pictures, {"half": METHODS["half"]}, cluster=workers(cluster, 2), store=tmp_path)) == 2 * 30
    assert 2 <= pictures.ahead <= 3 * 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_worker_keeps_the_memory_that_it_frees(cluster):
    found = run(methods={"faults": NOTEBOOK["faults"]}, metrics={"mean": METRICS["mean"]}, cluster=cluster)
    assert found["value"].min() < 1000  # 50 * 256 with the settings that Dask's nanny makes


@pytest.mark.parametrize("n", [2, 1])
def test_a_worker_that_is_killed_loses_nothing(cluster, tmp_path, n):
    methods = {"dying": partial(NOTEBOOK["dying"], tmp_path / "flag"), "half": METHODS["half"]}
    table = run(methods=methods, cluster=workers(cluster, n), store=tmp_path / "parts")
    assert (tmp_path / "flag").exists()
    same(table, run(methods=methods))


def test_workers_with_threads_are_refused():
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as local,
        distributed.Client(local, set_as_default=False) as client,
        pytest.raises(ValueError, match="one thread: start it with --nthreads 1; .* has 2"),
    ):
        run(cluster=client)


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r'pip install "seeing-why\[cluster\]"'):
        run(cluster="tcp://127.0.0.1:1")


def test_no_address_is_this_process(monkeypatch, alone):
    monkeypatch.setitem(sys.modules, "distributed", None)  # dask is not even asked for
    same(run(cluster=""), alone)


def test_a_scheduler_that_is_not_there_is_an_error(monkeypatch):
    import dask

    began = time.monotonic()
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(OSError, match="127.0.0.1:9"):
        run(cluster="tcp://127.0.0.1:9")
    assert time.monotonic() - began < 20
