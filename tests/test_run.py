"""What `make run` looks at before it starts, what it says a run costs, and what it leaves behind when it is stopped."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
import yaml
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from test_notebooks import BOOK, ROOT, runner

from helpers import evaluation, metrics, models, speed

costs = runner.costs
CHAPTERS = sorted(costs.TABLES)


def parameters(chapter, profile, **given):
    """All parameters of a chapter as a run has them."""
    return runner.defaults_of(BOOK / f"{chapter}.ipynb") | runner.profile_of(profile, chapter) | given


# ------------------------------------------------------------------------------------------------- looked at before


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match="DEVICE is"):
        runner.device_there(device)


def test_the_processor_is_there():
    assert runner.device_there("cpu") == "cpu"


def test_unknown_networks_and_missing_weights_are_named(tmp_path):
    with pytest.raises(ValueError, match="PHOTO_MODEL is 'vgg61'.*vgg16"):
        runner.networks_there({"MODEL": "vgg16", "PHOTO_MODEL": "vgg61"})
    with pytest.raises(FileNotFoundError, match="make train"):
        runner.networks_there({"MODEL": "../_build/models/absent.safetensors"})
    with pytest.raises(FileNotFoundError, match="WEIGHTS"):
        runner.networks_there({"MODEL": "vgg16", "WEIGHTS": str(tmp_path / "absent.pth")})
    (tmp_path / "there.pth").touch()
    assert runner.networks_there({"MODEL": "slim_vgg16_scenes", "WEIGHTS": str(tmp_path / "there.pth"), "N_MODEL": 3}) is None


def test_the_pictures_are_looked_at(tmp_path):
    assert runner.pictures_there({"DATASET": "scenes", "N_IMAGES": 9}) == ("scenes: nothing to fetch", 1.0)
    with pytest.raises(FileNotFoundError, match="image-net.org"):
        runner.pictures_there({"DATASET": "imagenet", "DATA_ROOT": str(tmp_path / "absent")})
    with pytest.raises(ValueError, match="DATA_ROOT"):
        runner.pictures_there({"DATASET": "voc2007", "DATA_ROOT": ""})
    with pytest.raises(ValueError, match="did you mean scenes"):
        runner.pictures_there({"DATASET": "scene"})
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    mine = {"DATASET": "folder", "DATA_ROOT": str(tmp_path), "N_IMAGES": 2}
    assert runner.pictures_there(mine) == (f"folder in {tmp_path}: 2 pictures", 1.0)
    with pytest.raises(ValueError, match="asks for 3 pictures"):
        runner.pictures_there(mine | {"N_IMAGES": 3})


def test_the_folder_for_results_has_to_be_one_with_room(tmp_path, monkeypatch):
    assert runner.writable(tmp_path / "new" / "deeper") > 0
    assert list(tmp_path.iterdir()) == []  # looking makes nothing
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="no folder"):
        runner.writable(tmp_path / "file" / "results")
    usage = namedtuple("usage", "total used free")(10**9, 0, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert runner.writable(tmp_path, 10**8) == 10**8
    with pytest.raises(OSError, match=r"100 MB free; this run needs up to 1\.5 GB"):
        runner.writable(tmp_path, 1_500_000_000)

    def read_only(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(runner.tempfile, "TemporaryFile", read_only)
    with pytest.raises(OSError, match="cannot be written to: Read-only"):
        runner.writable(tmp_path)


def test_a_cluster_that_does_not_answer_is_an_error_in_time():
    pytest.importorskip("distributed")
    began = time.monotonic()
    with pytest.raises(OSError, match="no Dask scheduler answered at 'tcp://127.0.0.1:9' within 1 s"):
        runner.cluster_there("tcp://127.0.0.1:9", 1)
    assert time.monotonic() - began < 20
    with pytest.raises(OSError, match="no Dask scheduler answered at 'nonsense://'"):
        runner.cluster_there("nonsense://", 1)


def test_a_cluster_that_answers_is_counted():
    distributed = pytest.importorskip("distributed")
    options = dict(processes=False, dashboard_address=":0", host="127.0.0.1", protocol="tcp")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        assert runner.cluster_there(cluster.scheduler_address).startswith("1 workers at tcp://")
        cluster.scale(0)
        while cluster.scheduler.workers:
            time.sleep(0.05)
        assert "waits for the first" in runner.cluster_there(cluster.scheduler_address)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster:
        with pytest.raises(ValueError, match="1 of 1 workers .* --nthreads 1"):
            runner.cluster_there(cluster.scheduler_address)


def test_everything_that_is_wrong_is_said_at_once_and_nothing_runs(monkeypatch, capsys):
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it ran"))
    with pytest.raises(SystemExit) as stopped:
        runner.main(["05_sise", "smoke", "-p", "DEVICE", "cuda:99", "-p", "MODEL", "vgg61", "-p", "DATASET", "voc2007"])
    for word in ("DEVICE is 'cuda:99'", "MODEL is 'vgg61'", "DATA_ROOT"):
        assert word in str(stopped.value)


def test_a_dry_run_says_what_it_costs_and_runs_nothing(monkeypatch, capsys):
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it ran"))
    runner.main(["06_comparison", "laptop", "--dry-run", "--images-per-second", "10"])
    said = capsys.readouterr().out
    forwards = int(costs.passes("06_comparison", parameters("06_comparison", "laptop"))["forwards"].sum())
    assert f"{forwards:,} forward passes of slim_vgg16_scenes: {forwards / 36_000:.1f} h" in said
    assert "../data/results: up to" in said


@pytest.mark.parametrize(
    "given, said",
    [
        (("N_IMAGES", "-3"), "N_IMAGES is -3; expected at least 0"),
        (("BATCH_SIZE", "0"), "BATCH_SIZE is 0; expected at least 1"),
    ],
)
def test_numbers_that_nothing_can_have_are_refused_before_the_run(given, said, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it ran"))
    with pytest.raises(SystemExit, match=said):
        runner.main(["04_scorecampp", "smoke", "-p", *given])


def test_a_value_that_is_no_yaml_is_said_in_a_line(capsys):
    with pytest.raises(SystemExit):
        runner.main(["04_scorecampp", "smoke", "-p", "N_IMAGES", "[1, 2"])
    assert "a value of -p must be YAML" in capsys.readouterr().err


def test_all_runs_the_others_when_one_fails(monkeypatch, capsys):
    tried = []
    monkeypatch.setattr(
        runner, "one", lambda chapter, *_: tried.append(chapter) or "broken" * (chapter == "02_gradual_extrapolation")
    )
    with pytest.raises(SystemExit, match="not done: 02_gradual_extrapolation$"):
        runner.main(["all", "smoke"])
    assert tried == CHAPTERS == runner.chapters_of("smoke")
    assert runner.chapters_of("default") == ["00_quickstart", *CHAPTERS]
    with pytest.raises(FileNotFoundError, match="laptop, paper, smoke"):
        runner.chapters_of("huge")


# -------------------------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("profile", ["smoke", "laptop", "paper"])
def test_every_profile_has_a_cost(chapter, profile):
    table = costs.passes(chapter, parameters(chapter, profile))
    assert list(table.columns) == costs.COLUMNS and (table["forwards"] > 0).all()
    assert (table["forwards"] == table["of the maps"] + table["of the scores"]).all()


def test_every_table_is_one_that_the_chapter_has_stored_and_no_map_is_free_by_mistake():
    shared = {"05_sise/parts"}  # its variants share the passes of one
    for chapter, tables in costs.TABLES.items():
        rows = costs.stored(chapter)
        for table in tables:
            mine = rows[rows["table"] == (table.maps_of or table.name)]
            assert len(mine), (chapter, table.name)
            assert set(table.again) <= set(mine["method"]), (chapter, table.name)
            if f"{chapter}/{table.name}" in shared:
                continue
            unknown = mine[~(mine["forwards"] > 0)]["method"].map(lambda m: costs.NAMES.get(m, m))
            known = {method for method, _ in costs.counted()} | set(table.again)
            plain = {"full map", "left half", "every other pixel", "all but one pixel", "constant, shuffled levels"}
            kept = {f"layer {k}" for k in range(2, 19)}  # the passes of the first serve all
            assert set(unknown) <= known | plain | kept, (chapter, table.name)


@pytest.mark.parametrize(
    ("chapter", "table"), [("06_comparison", "methods"), ("04_scorecampp", "methods"), ("03_layer_selection", "methods")]
)
def test_the_cost_is_the_one_that_the_stored_run_counted(chapter, table):
    """On the network of the stored run, whose passes were counted while it ran; what it had kept does not count there."""
    rows = pd.DataFrame(costs.stored(chapter))[lambda r: r["table"] == table]
    predicted = costs.passes(chapter, parameters(chapter, "laptop", N_IMAGES=1000)).set_index("table").loc[table]
    lower = rows["forwards"].sum() * 1000
    extra = 70_000 if chapter == "04_scorecampp" else 0  # ScoreCAM++ on shuffled weights, which counted as another network
    assert lower * 0.98 <= predicted["of the maps"] <= (lower + extra) * 1.06


def test_settings_and_networks_change_the_cost():
    one = costs.passes_of_a_map
    assert one("RISE", "vgg16", {"RISE_MASKS": 8000}) == 8001 and one("RISE", "vgg16", {"RISE_MASKS": 0}) == 0
    assert one("RISE", "vgg16", {}) == costs.counted()["RISE", "vgg16"] == 4001
    assert one("Score-CAM", "resnet50", {}) > 3 * one("Score-CAM", "vgg16", {}) > 9 * one("Score-CAM", costs.SMALL, {})
    values = parameters("04_scorecampp", "paper")
    double = costs.passes("04_scorecampp", values | {"N_IMAGES": 4000}).set_index("table")["forwards"]
    single = costs.passes("04_scorecampp", values).set_index("table")["forwards"]
    assert double["methods"] == 2 * single["methods"] and double["gates"] == single["gates"]
    assert costs.family("../_build/models/finetune_voc_vgg16.safetensors") == "vgg16"
    assert costs.family("slim_vgg16_steel") == costs.SMALL
    with pytest.raises(ValueError, match="never counted"):
        costs.family("densenet121")


def test_the_formula_for_scores_is_what_they_take():
    """29 images a curve of 28 steps, two a drop: counted on a small network."""
    net = models.load("slim_vgg16_scenes")
    image = torch.rand(3, net.side, net.side, generator=torch.Generator().manual_seed(0))
    saliency = image.mean(0)

    def taken(asked):
        with evaluation.counted(net) as cost:
            for metric in asked:
                metric(net, image, 0, saliency)
        return cost.forwards

    assert taken([metrics.insertion]) == taken([metrics.deletion]) == 28 + 1
    assert taken([metrics.average_drop]) == 2
    (methods,) = [t for t in costs.TABLES["05_sise"] if t.name == "methods"]
    assert taken(metrics.SATTARZADEH2021SISE.values()) == methods.looks
    assert len(metrics.pixel_counts(224 * 224, 28, metrics.SANNOMIYA2024LAYER["Insertion"].keywords["step_px"])) == 28 + 1


@pytest.mark.parametrize(
    ("chapter", "cells", "metrics_of"),
    [
        ("04_scorecampp", ("def seen(", "of_paper, ours_alone = {}, {}"), "of_paper"),
        ("06_comparison", ("top15, curve =",), "masked"),
    ],
)
def test_a_chapter_takes_for_its_scores_what_the_table_of_costs_says(chapter, cells, metrics_of):
    """The cells of the chapter that define its scores, run on a small network and one map, and counted."""
    sources = [cell.source for cell in nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells if cell.cell_type == "code"]
    space = parameters(chapter, "smoke")
    exec(sources[2], space)  # imports
    for start in cells:
        (source,) = [source for source in sources if start in source]
        exec(source, space)
    net = models.load("slim_vgg16_scenes")
    image = torch.rand(3, net.side, net.side, generator=torch.Generator().manual_seed(0))
    saliency = image.mean(0)
    with evaluation.counted(net) as cost:
        for metric in space[metrics_of].values():
            metric(net, image, 0, saliency)
    table = next(t for t in costs.TABLES[chapter] if t.network == "MODEL")
    points = space.get(table.points, table.points)
    assert cost.forwards == table.looks + table.curves * (points + 1)


def test_hours_disk_and_speed(monkeypatch):
    assert costs.hours(3600 * 50, 50) == 1
    with pytest.raises(ValueError, match="images_per_second"):
        costs.hours(1, 0)
    table = pd.DataFrame({"maps": [10, 5]})
    assert costs.disk("05_sise", table) == 15 * costs.PIECE < costs.disk("06_comparison", table)
    net = costs.untrained("slim_vgg16_scenes", "cpu")
    clock = iter([0.0, 0.5, 1.5, 2.0])
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(clock))
    assert costs.throughput(net, 4) == 8 / 2.0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_speed_is_that_of_the_precision_asked_for_with_batch_norms_folded(monkeypatch, precision):
    net, asked = costs.untrained("slim_vgg16_scenes", "cpu", precision), []
    quick = speed.quick
    monkeypatch.setattr(speed, "quick", lambda net, *, like, half: asked.append(half) or quick(net, like=like, half=half))
    assert costs.throughput(net, 1, seconds=0) > 0
    assert asked == [{"float32": None, "bfloat16": torch.bfloat16}[precision]]


# ---------------------------------------------------------------------------------------------- what it leaves behind


def test_a_half_notebook_has_a_name_of_its_own(tmp_path, monkeypatch):
    halves = []

    def execute(_notebook, half, *_, **__):
        halves.append(Path(half))
        Path(half).write_text("half", encoding="utf-8")
        if len(halves) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner.papermill, "execute_notebook", execute)
    for process in (1, 2):
        monkeypatch.setattr(runner.os, "getpid", lambda process=process: process)
        assert runner.run("05_sise", "smoke", {}, tmp_path) == tmp_path / "05_sise.ipynb"
    assert halves[0] != halves[1] and [path.name for path in tmp_path.iterdir()] == ["05_sise.ipynb"]
    with pytest.raises(OSError, match="No space"):
        runner.run("05_sise", "smoke", {}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["05_sise.failed.ipynb"]


def small_checkout(folder: Path) -> Path:
    """A book whose only chapter finishes one piece a quarter of a second, forty in all, and goes on after a stop."""
    cells = [
        new_code_cell('N_IMAGES = 40\nRESULTS = ""', metadata={"tags": ["parameters"]}),
        new_code_cell("from helpers.parameters import only_known\n\nonly_known(globals())"),
        new_code_cell(
            "import time\nfrom pathlib import Path\n\nparts = Path(RESULTS, 'parts')\nparts.mkdir(parents=True, exist_ok=True)\n"
            "for i in range(N_IMAGES):\n    if not (parts / f'{i}').is_file():\n        time.sleep(0.25)\n"
            "        (parts / f'{i}').touch()\n        print('made', i)"
        ),
    ]
    (folder / "book/profiles/long").mkdir(parents=True)
    for name in ("run.py", "costs.py"):
        shutil.copy(BOOK / name, folder / "book" / name)
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / "book/99_long.ipynb")
    (folder / "book/profiles/long/99_long.yaml").write_text("RESULTS: ../results\n", encoding="utf-8")
    return folder


@pytest.mark.notebook
@pytest.mark.slow
def test_a_run_that_is_told_to_end_says_how_to_go_on_and_goes_on(tmp_path):
    checkout, environment = small_checkout(tmp_path), os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "book/run.py", "99_long", "long"]
    first = subprocess.Popen(command, cwd=checkout, env=environment, stderr=subprocess.PIPE, text=True)
    parts = checkout / "results/parts"
    waited = time.monotonic() + 120
    while not (parts / "2").is_file():
        assert time.monotonic() < waited and first.poll() is None, first.stderr.read()
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=60)
    finished = {path.name for path in parts.iterdir()}
    assert first.returncode != 0 and "The same command goes on" in said and "../results/parts" in said
    assert [path.name for path in (checkout / "_build/runs/long").iterdir()] == ["99_long.failed.ipynb"]
    time.sleep(1)
    assert {path.name for path in parts.iterdir()} == finished and len(finished) < 40  # the kernel ended, too
    subprocess.run([*command, "-p", "N_IMAGES", str(len(finished) + 1)], cwd=checkout, env=environment, check=True, timeout=120)
    done = nbformat.read(checkout / "_build/runs/long/99_long.ipynb", as_version=4)
    assert done.cells[-1].outputs[0].text == f"made {len(finished)}\n"


# ------------------------------------------------------------------------------------ the examples of the book's page


def examples(kind: str) -> list[str]:
    """The code blocks of a language in the text of the page on larger runs."""
    cells = nbformat.read(BOOK / "running.ipynb", as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def test_the_examples_for_the_shell_parse_and_call_make_with_what_it_has():
    assert len(examples("bash")) >= 5
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for block in examples("bash"):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        for target, profile in re.findall(r"make (\w+) CHAPTER=\S+ PROFILE=(\w+)", block):
            assert target in targets and (BOOK / "profiles" / profile).is_dir()


def test_the_examples_in_python_compile_and_name_what_there_is():
    blocks = examples("python")
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "example", "exec")
        for name in re.findall(r'datasets\.load\("(\w+)"', block):
            assert name in runner.datasets.SETS


def test_the_example_for_slurm_makes_a_job_with_one_gpu_and_one_thread():
    jobqueue = pytest.importorskip("dask_jobqueue")
    (block,) = [block for block in examples("python") if "SLURMCluster" in block]
    (call,) = re.findall(r"^cluster = SLURMCluster\((.*?)^\)$", block, flags=re.DOTALL | re.MULTILINE)
    options = eval(f"dict({call})")
    with jobqueue.SLURMCluster(**options, scheduler_options={"host": "127.0.0.1", "dashboard_address": ":0"}) as cluster:
        script = cluster.job_script()
    assert "#SBATCH --gres=gpu:1" in script and "--nthreads 1" in script and ".venv/bin/python" in script


def test_the_example_for_kubernetes_fits_together():
    (block,) = examples("yaml")
    parts = {(part["kind"], part["metadata"]["name"]): part["spec"] for part in yaml.safe_load_all(block)}
    service, scheduler = parts["Service", "seeing-why-scheduler"], parts["Deployment", "seeing-why-scheduler"]
    worker = parts["Deployment", "seeing-why-worker"]
    for deployment in (scheduler, worker):
        assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    assert service["selector"] == scheduler["selector"]["matchLabels"]
    (container,) = worker["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["args"][:3] == ["dask", "worker", f"tcp://seeing-why-scheduler:{service['ports'][0]['port']}"]
    assert container["args"][container["args"].index("--nthreads") + 1] == "1"


@pytest.mark.parametrize("chapter", sorted(costs.TABLES))
def test_every_chapter_can_be_run_large(chapter):
    defaults = runner.defaults_of(BOOK / f"{chapter}.ipynb")
    assert defaults["CLUSTER"] == "" and defaults["PRECISION"] == "float32" and defaults["RESULTS"] == ""
    text = "".join(
        cell.source for cell in nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells if cell.cell_type == "code"
    )
    assert text.count("cluster=CLUSTER or None") == text.count("evaluation.evaluate") > 0 and "precision=PRECISION" in text
    paper = runner.profile_of("paper", chapter)
    assert paper["RESULTS"] == "../data/results" and paper["PROFILE"] == "paper" and paper["DEVICE"] == "cuda"
