"""A store: a run that is killed, fails or has company ends with the table of an unbroken run, and nothing stale is ever used."""

import dataclasses
import errno
import gc
import json
import multiprocessing.forkserver
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from networks import Deep, Tiny, classifier, image, made, named

from helpers import data, evaluation, metrics, models
from helpers.cam import grad_cam, layer_cam
from helpers.core import logit, to_unit
from helpers.evaluation import counted, evaluate, record, replace_rows
from helpers.store import Store, describe, whole

IMAGES = {f"picture {i}": image(i) for i in range(8)}
METRICS = {"drop": metrics.average_drop, "mean": lambda net, x, target, saliency: float(saliency.mean())}
EXACT = ["image", "target", "method", "metric", "value", "forwards", "backwards"]


@pytest.fixture(scope="module")
def processes():
    """New processes that have imported this module already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        multiprocessing.forkserver.ensure_running()
    return context


PAUSE = {"seconds": 0.0}  # before each map: in a dict it is no setting


def slowly(explain, net, x, target, log=None):
    time.sleep(PAUSE["seconds"])
    return explain(net, x, target)


METHODS = {"Grad-CAM": partial(slowly, grad_cam), "LayerCAM": partial(slowly, layer_cam)}


def run(store=None, images=IMAGES, methods=METHODS, metrics=METRICS, **settings):
    return evaluate(classifier(made(Deep), "features.3"), images, methods, metrics, store=store, progress=False, **settings)


def run_aside(store, out, pause=0.0):
    """A run in a process of its own, which leaves its table in a file."""
    PAUSE["seconds"] = pause
    run(store).to_pickle(out)


def run_on_a_full_disk(store, out, limit):
    """The same with a limit to the bytes of a file from the third map on; it leaves the error's text and number."""
    calls = []

    def limiting(explain, net, x, target):
        calls.append(1)
        if len(calls) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return explain(net, x, target)

    try:
        run(store, methods={name: partial(limiting, explain) for name, explain in METHODS.items()})
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        Path(out).write_text(json.dumps([str(error), error.errno]), encoding="utf-8")


@pytest.fixture(scope="module")
def unbroken():
    return run()


def same(one, other):
    pd.testing.assert_frame_equal(one[EXACT], other[EXACT], check_exact=True)


# ---------------------------------------------------------------------------------------------------- broken and shared


def test_a_run_that_is_killed_five_times_ends_with_the_same_table(processes, tmp_path, unbroken):
    r, store = random.Random(5), tmp_path / "parts"
    for _ in range(5):
        there = len(list(store.glob("*.json")))
        child = processes.Process(target=run_aside, args=(store, tmp_path / "never", 0.1))
        child.start()
        wanted = there + r.randint(0, 1)
        while len(list(store.glob("*.json"))) < wanted and child.is_alive():
            time.sleep(0.001)
        time.sleep(r.uniform(0, 0.2))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL and len(list(store.glob("*.json"))) < len(IMAGES) * len(METHODS)
    kept = {path: path.stat().st_mtime_ns for path in store.glob("*.json")}
    same(run(store), unbroken)
    assert kept and all(path.stat().st_mtime_ns == at for path, at in kept.items())  # none was made again
    assert not (tmp_path / "never").exists()


def test_two_runs_at_once_on_one_folder_end_with_the_same_table(processes, tmp_path, unbroken):
    outs = [tmp_path / "one", tmp_path / "two"]
    children = [processes.Process(target=run_aside, args=(tmp_path / "parts", out)) for out in outs]
    for child in children:
        child.start()
    for child in children:
        child.join()
    for out in outs:
        same(pd.read_pickle(out), unbroken)
    assert len(list((tmp_path / "parts").iterdir())) == len(IMAGES) * len(METHODS)


def test_what_another_run_has_finished_meanwhile_is_taken(tmp_path):
    calls, others = [], []

    def method(net, x, target):
        calls.append(1)
        if len(calls) == 1:  # while this map is made, another run makes all of them
            others.append(run(tmp_path, methods={"m": method}))
        return x[0] / 3

    table = run(tmp_path, methods={"m": method})
    assert len(calls) == 1 + len(IMAGES)
    same(table, others[0])
    assert table["image"].unique().tolist() == list(IMAGES)  # in order, wherever a run begins


def test_two_runs_share_the_work(tmp_path, monkeypatch):
    made_now, r = [], random.Random(0)
    monkeypatch.setattr(evaluation, "SystemRandom", lambda: r)

    def method(net, x, target):
        made_now.append(1)
        time.sleep(0.02)
        return x[0]

    many = {f"picture {i}": image(i) for i in range(40)}
    nets = [classifier(made(Deep), "features.3") for _ in range(2)]  # a network is not for two threads, nor is its making
    asked = dict(store=tmp_path, progress=False)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda net: evaluate(net, many, {"m": method}, {"mean": METRICS["mean"]}, **asked), nets)
    same(one, two)
    assert 40 <= len(made_now) <= 55  # runs that follow each other make up to 80


def write_tables(folder, who):
    for i in range(5):
        replace_rows(Path(folder) / "all.csv", {"table": f"{who} {i}", "model": "m", "dataset": "d"}, pd.DataFrame({"v": [i]}))


def test_tables_of_several_processes_all_arrive(processes, tmp_path):
    children = [processes.Process(target=write_tables, args=(tmp_path, who)) for who in "abc"]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert sorted(pd.read_csv(tmp_path / "all.csv")["table"]) == [f"{who} {i}" for who in "abc" for i in range(5)]


# ------------------------------------------------------------------------------------------------------- a full disk


@pytest.mark.parametrize("limit", [0, 100])
def test_a_full_disk_says_what_is_finished(processes, tmp_path, limit):
    store, out = tmp_path / "parts", tmp_path / "error.json"
    child = processes.Process(target=run_on_a_full_disk, args=(store, out, limit))
    child.start()
    child.join()
    said, number = json.loads(out.read_text(encoding="utf-8"))
    assert number == errno.EFBIG  # a real write has failed
    assert "2 of 16 maps are finished" in said and str(store) in said and "the same command goes on from there" in said
    assert len(list(store.iterdir())) == 2 and not list(store.glob("*.part"))


def test_after_a_full_disk_the_run_goes_on(tmp_path, monkeypatch, unbroken):
    sync = os.fsync

    def full_after_two(number):
        if len(list(tmp_path.glob("*.json"))) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    monkeypatch.setattr(os, "fsync", full_after_two)
    with pytest.raises(OSError, match="No space left on device: 2 of 16 maps are finished and kept in"):
        run(tmp_path)
    monkeypatch.undo()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    same(run(tmp_path), unbroken)
    assert len(kept) == 2 and all(path.stat().st_mtime_ns == at for path, at in kept.items())


def test_a_folder_that_cannot_be_made_is_an_error_before_the_first_map(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="0 of 8 maps are finished"):
        run(tmp_path / "file", methods={"never": lambda *_: 1 / 0})


def test_a_table_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    write_tables(tmp_path, "a")
    before = (tmp_path / "all.csv").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*all\.csv is as it was.* goes on from there") as caught:
        write_tables(tmp_path, "b")
    assert caught.value.errno == 28 and (tmp_path / "all.csv").read_bytes() == before and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_half_a_file_is_no_file(tmp_path, error):
    with pytest.raises(error), whole(tmp_path / "x") as file:
        file.write("half")
        raise error
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_cleared_away_later(tmp_path):
    for name, age in (("old", 7200), ("new", 0)):
        (tmp_path / f"{name}.part").write_text("", encoding="utf-8")
        os.utime(tmp_path / f"{name}.part", (time.time() - age,) * 2)
    Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.part"]


# ------------------------------------------------------------------------------------------------- what a piece is for


@pytest.mark.parametrize("spoil", [
    lambda text: "", lambda text: text[: len(text) // 2], lambda text: "null", lambda text: "[]", lambda text: "\x00\xff" * 9,
    lambda text: text.replace('"target": ', '"target": 1'), lambda text: text.replace('"values": {"drop"', '"values": {"dorp"'),
    lambda text: text.replace('"seconds": ', '"seconds": "a", "s": '), lambda text: text.replace('"forwards"', '"forward"'),
    lambda text: re.sub('"drop": [-+.e0-9]+', '"drop": true', text),
], ids="empty half null list noise another_key another_metric no_number no_column no_float".split())  # fmt: skip
def test_a_damaged_piece_is_made_again_with_a_warning(tmp_path, spoil):
    few = {name: IMAGES[name] for name in list(IMAGES)[:2]}
    before = run(tmp_path, few, {"Grad-CAM": grad_cam})
    path = sorted(tmp_path.iterdir())[0]
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.warns(UserWarning, match=f"{path.name} is of no use and is made again") as seen:
        same(run(tmp_path, few, {"Grad-CAM": grad_cam}), before)
    assert len(seen) == 1 and Path(seen[0].filename).name == Path(__file__).name
    same(run(tmp_path, few, {"Grad-CAM": grad_cam}), before)  # without a warning


def adding(amount):
    def explain(net, x, target):
        return x[0] + amount

    return explain


def summing(net, x, target, saliency, power=1.0, weights=None):
    return float((saliency**power).sum())


@dataclasses.dataclass(frozen=True)
class Adding:
    amount: float

    def __call__(self, net, x, target):
        return x[0] + self.amount


class Plain:
    def __init__(self, amount):
        self.amount = amount


def of_notebook(body, **names):
    """A function as a notebook would define it."""
    space = {"__name__": "__main__", **names}
    exec(f"def explain(net, x, target):\n    return {body}", space)
    return space["explain"]


def counting():
    seen = []

    def explain(net, x, target):
        seen.append(target)
        return x[0]

    return explain


class Wrapped(dict):
    pass


def tempered(temperature):
    net = made()
    net.relu.temperature = temperature
    return net


def hooked(number):
    net = made()
    net.relu.register_forward_hook(lambda *_: None if number == 0 else adding(number) and None)
    return net


def of_class(*bases, **members):
    """An object of a class that a notebook wrote."""
    return type("Written", bases, members | {"__module__": "__main__"})()


DIFFERENT = {
    "an argument": (partial(grad_cam, score=logit), partial(grad_cam)),
    "partial of partial": (partial(partial(summing, power=2.0)), partial(partial(summing, power=3.0))),
    "a closure": (adding(1), adding(2)),
    "a constant": (lambda net, x, target: x[0] + 1, lambda net, x, target: x[0] + 2),
    "a name": (lambda net, x, target: x[0].sin(), lambda net, x, target: x[0].cos()),
    "a tensor": (adding(torch.zeros(3)), adding(torch.tensor([0, 0, 1e-9]))),
    "an array": (adding(np.zeros(2000)), adding(np.concatenate([np.zeros(1999), [1e-9]]))),
    "a table": (adding(pd.DataFrame({"a": range(999)})), adding(pd.DataFrame({"a": [*range(500), 0, *range(501, 999)]}))),
    "a field": (Adding(1), Adding(2)),
    "an attribute": (Plain(1), Plain(2)),
    "a setting in a dict": (adding({"steps": 1}), adding({"steps": 2})),
    "code of a notebook": (of_notebook("x[0] * 2"), of_notebook("x[0] ** 2")),
    "a global of a notebook": (of_notebook("x[0] * K", K=1), of_notebook("x[0] * K", K=2)),
    "a function of a notebook": (of_notebook("f(x)", f=lambda x: x[0]), of_notebook("f(x)", f=lambda x: x[1])),
    "a network": (partial(grad_cam, layer=made()), partial(grad_cam, layer=made(seed=1))),
    "a layer of a network": (made(Tiny), made(Tiny, classes=5)),
    "a cached function": (cache(adding(1)), cache(adding(2))),
    "a decorated function": (evaluation.partial(METHODS["Grad-CAM"], log=1), evaluation.partial(METHODS["Grad-CAM"], log=2)),
    "a method": (Plain(1).__init__, Plain(2).__init__),
    "a type": (1, 1.0),
    "a text": ("a" * 1000 + "b", "a" * 1000 + "c"),
    "an attribute of a layer": (tempered(1), tempered(2)),
    "a hook of a network": (hooked(1), hooked(2)),
    "an attribute of a class": (of_class(K=1), of_class(K=2)),
    "a property": (of_class(K=property(lambda self: 1)), of_class(K=property(lambda self: 2))),
    "a static method": (of_class(K=staticmethod(lambda: 1)), of_class(K=staticmethod(lambda: 2))),
    "a class method": (of_class(K=classmethod(lambda c: 1)), of_class(K=classmethod(lambda c: 2))),
    "a base class": (of_class(type(of_class(K=1))), of_class(type(of_class(K=2)))),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_another_setting_has_another_description(what):
    one, other = map(describe, DIFFERENT[what])
    assert one != other and "0x" not in one + other


@pytest.mark.parametrize("make", [
    lambda: adding(1), lambda: adding(torch.ones(2)), lambda: Adding(3), lambda: Plain({"a", "b"}), lambda: made(),
    lambda: partial(summing, power=2.0, weights=[1, {"a": 2}]), lambda: of_notebook("x[0]"), lambda: of_notebook("explain"),
    lambda: Plain(object()), counting,
], ids=named)  # fmt: skip
def test_the_same_made_twice_has_one_description(make):
    one, other = make(), make()
    assert one is not other and describe(one) == describe(other)


def test_our_own_functions_are_their_names():
    assert describe(grad_cam) == "helpers.cam.grad_cam" and describe(torch.nn.functional.relu) == "torch.nn.functional.relu"
    assert describe(partial(metrics.insertion, steps=7)) == "partial(helpers.metrics.insertion, steps=7)"
    assert (
        describe(partial(metrics.average_drop, mask=to_unit))
        == "partial(helpers.metrics.average_drop, mask=helpers.core.to_unit)"
    )


def test_what_a_function_fills_is_its_memory():
    explain = counting()
    before = describe(explain)
    explain(None, IMAGES["picture 0"], 1)
    assert describe(explain) == before
    noted = {}
    reader = of_notebook("x[0] * noted.get('k', 1)", noted=noted)
    before = describe(reader)
    noted["k"] = 2
    assert describe(reader) == before


def test_a_changed_setting_is_computed_and_the_old_one_still_kept(tmp_path):
    made_by = []

    def method(net, x, target, scale=1.0):
        made_by.append(scale)
        return x[0] * scale

    one, two = {"m": partial(method, scale=1.0)}, {"m": partial(method, scale=2.0)}
    few = {"picture 0": IMAGES["picture 0"]}
    first = run(tmp_path, few, one)
    for methods, asked in ((two, METRICS), (one, METRICS | {"drop": partial(metrics.average_drop, score=logit)})):
        run(tmp_path, few, methods, asked)
    assert made_by == [1.0, 2.0, 1.0]
    same(run(tmp_path, few, one), first)
    assert len(made_by) == 3
    swapped = run(tmp_path, few, one, dict(reversed(METRICS.items())))  # the same metrics in another order
    assert len(made_by) == 3 and swapped["metric"].tolist() == ["mean", "drop"]
    assert swapped["value"].tolist() == first["value"].tolist()[::-1]


@dataclasses.dataclass(frozen=True)
class Precise(models.Classifier):
    precision: str = "float32"


def test_the_networks_precision_and_layers_are_in_the_key(tmp_path):
    net = classifier(made(Deep), "features.3")
    fields = {f.name: getattr(net, f.name) for f in dataclasses.fields(net)}
    for changed in ({}, {"precision": "bfloat16"}, {"cam_layer": "features.1"}, {}):
        other = Precise(**fields | changed)
        evaluate(other, {"a": IMAGES["picture 0"]}, {"m": grad_cam}, METRICS, store=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 3


SCRIPT = """
import sys
from functools import partial
import torch
from helpers import metrics
from helpers.evaluation import evaluate
from helpers.store import describe
K, made_here = 1, []
class Scale:
    def __init__(self): self.names = {"one", "two", "three"}
    def __call__(self, net, x, target): return x[0] * K
def inner(x): return x[0] * K if "a" in {"a", "b", "c"} else x[1]
def mine(net, x, target):
    made_here.append(1)
    return inner(x)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))
methods = {"mine": mine, "bound": partial(mine), "object": Scale(), "lambda": lambda net, x, target: x[0] * K}
images = {"first": torch.rand(3, 4, 4), "second": torch.rand(3, 4, 4)}
for K in (1, 2):
    evaluate(net, images, methods, {"drop": metrics.average_drop}, store=f"{sys.argv[1]}", progress=False)
    print(len(made_here), [describe(m) for m in methods.values()])
"""


def test_another_process_finds_the_pieces_and_sees_a_changed_global(tmp_path):
    said = []
    script = tmp_path / "as_a_notebook.py"
    script.write_text(SCRIPT, encoding="utf-8")
    for seed in "12":  # of hash(), by which sets are ordered
        settings = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, script, tmp_path / "parts"]
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
        said.append([line.split(maxsplit=1) for line in done.stdout.splitlines()])
    (one, two), (again_one, again_two) = said
    assert (one[0], two[0], again_one[0], again_two[0]) == ("4", "8", "0", "0")  # maps made until then
    assert one[1] == again_one[1] != two[1] == again_two[1]


# ------------------------------------------------------------------------------------------------------------ commits


def test_maps_of_two_commits_are_a_warning_and_recorded(tmp_path, monkeypatch):
    few = {name: IMAGES[name] for name in list(IMAGES)[:2]}
    for commit, pictures in (("aaaaaaa", 1), ("bbbbbbb", 2)):
        monkeypatch.setattr(evaluation, "commit_of_the_code", lambda commit=commit: commit)
        if pictures == 1:
            first = run(tmp_path / "parts", {"picture 0": few["picture 0"]})
    with pytest.warns(UserWarning, match="2 commits, aaaaaaa, bbbbbbb") as seen:
        both = run(tmp_path / "parts", few)
    assert len(seen) == 1 and first.attrs["commits"] == ["aaaaaaa"] and both.attrs["commits"] == ["aaaaaaa", "bbbbbbb"]
    facts = dict(model="m", dataset="d", seed=0, device="cpu", profile="test")
    path = record(tmp_path, "05", {"1": both, "2": first, "3": run(None, few)}, metrics.bootstrap_interval, **facts)
    written = pd.read_csv(path).drop_duplicates("table").set_index("table")["commit"]
    assert written.to_dict() == {1: "aaaaaaa+bbbbbbb", 2: "aaaaaaa", 3: "bbbbbbb"}


# ------------------------------------------------------------------------------------------------------------- images


class Lazy(Mapping):
    """Pictures that are made anew whenever they are asked for."""

    def __init__(self):
        self.asked, self.alive, self.most = [], [], 0

    def __getitem__(self, name):
        self.asked.append(name)
        made_now = image(int(name.split()[1]))
        self.alive = [ref for ref in self.alive if ref() is not None] + [weakref.ref(made_now)]
        self.most = max(self.most, len(self.alive))
        return made_now

    def __iter__(self):
        return iter(IMAGES)

    def __len__(self):
        return len(IMAGES)

    __contains__ = IMAGES.__contains__


@pytest.mark.parametrize("kept", [False, True])
def test_lazy_pictures_are_read_twice_and_not_held(tmp_path, unbroken, kept):
    pictures = Lazy()
    gc.collect()
    same(run(tmp_path if kept else None, pictures), unbroken)
    assert sorted(pictures.asked) == sorted([*IMAGES, *IMAGES]) and pictures.most <= 3


def test_a_finished_run_reads_each_picture_once_and_asks_the_network_nothing(tmp_path, unbroken):
    targets = dict(zip(unbroken["image"], map(int, unbroken["target"]), strict=True))
    run(tmp_path)
    pictures, net = Lazy(), classifier(made(Deep), "features.3")
    with counted(net) as cost:
        table = evaluate(net, pictures, METHODS, METRICS, targets=targets, store=tmp_path, progress=False)
    same(table, unbroken)
    assert cost.forwards == 0 and sorted(pictures.asked) == sorted(IMAGES)


def test_the_progress_says_what_was_found(tmp_path, capsys):
    few = {name: IMAGES[name] for name in list(IMAGES)[:2]}
    net = classifier(made(Deep), "features.3")
    run(tmp_path, {"picture 0": IMAGES["picture 0"]})
    capsys.readouterr()
    evaluate(net, few, METHODS, METRICS, store=tmp_path)
    out, err = capsys.readouterr()
    assert not out and "2 of 4 maps were found in" in err and "4/4" in err and "checking images" in err


def test_results_read_back_as_ever(tmp_path, monkeypatch):
    table = run(tmp_path / "parts")
    facts = dict(model="m", dataset="d", seed=0, device="cpu", profile="test")
    record(tmp_path / "results", "05", {"1": table}, metrics.bootstrap_interval, **facts)
    monkeypatch.setattr(data, "data_folder", lambda: tmp_path)
    assert len(data.results_per_image("05")) == len(table) and len(data.results("05")) == 4


def test_a_module_of_the_readers_own_counts_by_what_is_in_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    for k in (1, 2):
        (tmp_path / f"mytools{k}.py").write_text(f"def f(x):\n    return x[0] * {k}\n", encoding="utf-8")
        module = __import__(f"mytools{k}")
        module.__name__ = "mytools"
        seen.append(describe(of_notebook("mytools.f(x)", mytools=module)))
    assert seen[0] != seen[1]
