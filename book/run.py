"""Run a chapter, or `all`, with the parameters of a profile: `python book/run.py 04_scorecampp paper -p N_IMAGES 500`.

Before anything long starts, everything that a run needs is looked at, and what it costs is printed; `--dry-run` ends there.
The finished notebook lies in `_build/runs/<profile>/<chapter>.ipynb`. A run that fails leaves `<chapter>.failed.ipynb`
instead, so that nobody takes half a run for a result. With RESULTS set, the same command goes on where a run was stopped.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import papermill
import torch
import yaml
from nbclient.exceptions import DeadKernelError

from helpers.parameters import check, literals

BOOK = Path(__file__).resolve().parent
if str(BOOK) not in sys.path:
    sys.path.insert(0, str(BOOK))

import costs  # noqa: E402

from helpers import datasets, models  # noqa: E402

LONG = 50_000  # forward passes from which on the speed of the device is measured, to say how many hours they take


class Stopped(BaseException):
    """Somebody asked this process to end."""


# ---------------------------------------------------------------------------------------------------- the parameters


def defaults_of(notebook: Path) -> dict[str, Any]:
    """The parameters of a chapter with the values that its parameters cell gives them."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            return literals(cell.source)
    raise ValueError(f"{notebook.name} has no cell tagged `parameters`")


def profile_of(profile: str, chapter: str, book: Path = BOOK) -> dict[str, Any]:
    """The parameters that `book/profiles/<profile>/<chapter>.yaml` sets; no profile at all is called `default`."""
    if profile == "default":
        return {}
    path = book / "profiles" / profile / f"{chapter}.yaml"
    if not path.is_file():
        there = sorted(str(p.relative_to(book / "profiles")) for p in (book / "profiles").glob("*/*.yaml"))
        raise FileNotFoundError(f"there is no book/profiles/{profile}/{chapter}.yaml; there are: {', '.join(there) or 'none'}")
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"book/profiles/{profile}/{chapter}.yaml must hold `NAME: value` lines")
    return values


def chapters_of(profile: str, book: Path = BOOK) -> list[str]:
    """The chapters that a profile has, in their order; of `default` all that are numbered."""
    found = (book / "profiles" / profile).glob("*.yaml") if profile != "default" else book.glob("[0-9][0-9]_*.ipynb")
    if chapters := sorted(path.stem for path in found):
        return chapters
    profiles = sorted(path.name for path in (book / "profiles").iterdir() if path.is_dir())
    raise FileNotFoundError(f"there is no profile {profile!r}; there are: default, {', '.join(profiles)}")


def values_of(chapter: str, profile: str, given: Mapping[str, Any], book: Path = BOOK) -> dict[str, Any]:
    """What the chapter gets beyond its defaults: the profile's values, and `given` over them.

    Errors: FileNotFoundError for an unknown chapter or profile, NameError and TypeError for parameters it does not have,
    ValueError for a number of things or a batch below what there can be.
    """
    notebook = book / f"{chapter}.ipynb"
    if not notebook.is_file():
        raise FileNotFoundError(f"no chapter {chapter!r}; there are: {', '.join(sorted(p.stem for p in book.glob('*.ipynb')))}")
    values = profile_of(profile, chapter, book) | dict(given)
    check(values, defaults_of(notebook))
    for name, value in values.items():
        least = 1 if name == "BATCH_SIZE" else 0 if name.startswith("N_") else None
        if least is not None and isinstance(value, int) and value < least:
            raise ValueError(f"{name} is {value}; expected at least {least}")
    return values


# -------------------------------------------------------------------------------------- what has to be there before


def device_there(device: str) -> str:
    """Errors: ValueError for a device that this machine does not have, or that is none."""
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"DEVICE is {device!r}; expected cpu, cuda, cuda:1 or mps") from error
    if kind.type == "cuda" and not (kind.index or 0) < torch.cuda.device_count():
        there = f"{torch.cuda.device_count()} CUDA devices, PyTorch was built for CUDA {torch.version.cuda or '(none)'}"
        raise ValueError(f"DEVICE is {device!r}; this machine has {there}; -p DEVICE cpu runs without one")
    if kind.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"DEVICE is {device!r}; this machine has no Apple GPU that PyTorch can use")
    return torch.cuda.get_device_name(kind) if kind.type == "cuda" else str(device)


def networks_there(values: Mapping[str, Any]) -> None:
    """Errors: ValueError for a network that nobody knows, FileNotFoundError for a file of weights that is not there."""
    known = {*models.LAYERS, *models.stored_names()}
    for name, value in values.items():
        if not isinstance(value, str) or not value or not name.endswith(("MODEL", "WEIGHTS")):
            continue
        if value.endswith((".safetensors", ".pth", ".pt")):
            if not Path(value).is_file():
                hint = "; `make train` lists the recipes that make such files" if "_build/models" in value else ""
                raise FileNotFoundError(f"{name} is {value!r}, as seen from book/: there is no such file{hint}")
        elif name.endswith("MODEL") and value not in known:
            near = difflib.get_close_matches(value, known, n=3, cutoff=0.3)
            raise ValueError(f"{name} is {value!r}, which is no network; did you mean {' or '.join(near) or 'another'}?")


def pictures_there(values: Mapping[str, Any]) -> tuple[str, float]:
    """What the data set has, in words, and how many classes its pictures show. Errors: those of the data set's reader."""
    name, root = str(values.get("DATASET", "")), values.get("DATA_ROOT") or None
    if not name or (name in datasets.SETS and datasets.SETS[name].kind != "files"):
        return f"{name or 'none'}: nothing to fetch", 1.0
    if name == "folder":
        datasets.load(name, root, 1)
        photos = datasets.SETS[name].reader(root)
    else:
        photos = datasets.load(name, root)
    photos[0].picture.close()
    wanted = max((values[n] for n in ("N_IMAGES", "N_MEASURED") if n in values), default=0)
    if wanted > len(photos):
        raise ValueError(f"N_IMAGES asks for {wanted:,} pictures; {name} in {root} has {len(photos):,}")
    return f"{name} in {root}: {len(photos):,} pictures", max(1.0, len(datasets.pairs(photos)) / len(photos))


def writable(folder: Path, needed: int = 0) -> int:
    """Bytes that are free where `folder` is or will be. Errors: OSError that says what is wrong with it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{folder} cannot be made: {there} is no folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f"{folder} cannot be written to: {error.strerror}") from error
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OSError(f"{folder} has {size(free)} free; this run needs up to {size(needed)}")
    return free


def cluster_there(address: str, seconds: float = 10) -> str:
    """The workers of a Dask scheduler, in words. Errors: OSError if none answers in time; ValueError for threads."""
    try:
        from distributed import Client
    except ImportError:
        raise ImportError("a cluster needs Dask: pip install -c constraints.txt -e '.[cluster]'") from None
    try:
        with Client(address, timeout=seconds, set_as_default=False) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
    except (OSError, ValueError) as error:
        raise OSError(f"no Dask scheduler answered at {address!r} within {seconds:g} s: {error}") from error
    if several := sum(worker["nthreads"] > 1 for worker in workers):
        raise ValueError(
            f"{several} of {len(workers)} workers at {address} have more than one thread: start them with --nthreads 1"
        )
    return f"{len(workers)} workers at {address}" if workers else f"no worker yet at {address}: the run waits for the first one"


def size(count: float) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 1):.0f} MB"


def time_of(hours: float) -> str:
    """Hours in words."""
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.0f} min" if hours >= 1 / 60 else "less than a minute"


def survey(chapter: str, values: Mapping[str, Any], speed: float, measure: bool, book: Path = BOOK) -> list[str]:
    """Look at all that a run needs, print what is there and what the run costs, and return what is wrong, a line each.

    values: every parameter; speed: images a second, 0 to measure them, where `measure` allows and the run is long.
    """
    wrong: list[str] = []

    def look(what: str, how: Any, *args: Any) -> Any:
        try:
            found = how(*args)
        except (ValueError, TypeError, OSError, ImportError) as error:
            wrong.append(str(error))
            return None
        if isinstance(found, str):
            print(f"  {what:9s} {found}")
        return found

    print(f"{chapter}:", flush=True)
    with chdir(book):  # paths in parameters are seen from there
        look("device", device_there, str(values.get("DEVICE", "cpu")))
        look("networks", networks_there, values)
        pictures, classes = look("pictures", pictures_there, values) or ("", 1.0)
        if pictures:
            print(f"  pictures  {pictures}")
        table = look("cost", costs.passes, chapter, values, classes)
        needed = costs.disk(chapter, table) if table is not None else 0
        if results := values.get("RESULTS"):
            free = look("results", writable, Path(results), needed)
            if free is not None:
                print(f"  results   {results}: up to {size(needed)} needed, {size(free)} free")
        else:
            print("  results   RESULTS is empty: nothing is kept, and a run that is stopped begins anew")
        if values.get("CLUSTER"):
            look("cluster", cluster_there, values["CLUSTER"])
    if table is not None and len(table):
        look("cost", cost_in_words, table, values, speed, measure and not wrong)
    return wrong


def cost_in_words(table: Any, values: Mapping[str, Any], speed: float, measure: bool) -> str:
    """Forward passes and hours of a run, by network."""
    said, total = [], 0.0
    for network, forwards in table.groupby("network", sort=False)["forwards"].sum().items():
        said.append(f"{forwards:,} forward passes of {Path(network).stem}")
        rate = speed
        if not rate and measure and forwards >= LONG and not network.startswith("a transformer"):
            device = str(values.get("DEVICE", "cpu"))
            batch = min(values.get("BATCH_SIZE", 8), 8 if device == "cpu" else 4096)
            precision = str(values.get("PRECISION", "float32"))
            rate = costs.throughput(costs.untrained(network, device, precision), batch)
            said[-1] += f" at {rate:,.0f} images/s (measured now on {device}, {precision}, batches of {batch})"
        if rate:
            total += costs.hours(forwards, rate)
            said[-1] += f": {time_of(costs.hours(forwards, rate))}"
    return "; ".join(said) + (f"; together {time_of(total)} on one device" if total and len(said) > 1 else "")


# ------------------------------------------------------------------------------------------------------------ the run


def run(chapter: str, profile: str, given: Mapping[str, Any], out: Path, book: Path = BOOK) -> Path:
    """Check the parameters, then execute the chapter in its folder; return the path of the finished notebook.

    While it runs its notebook has a name of its own, so that two runs do not write into one file.
    """
    values = values_of(chapter, profile, given, book)
    out.mkdir(parents=True, exist_ok=True)
    half = out / f"{chapter}.{socket.gethostname()}.{os.getpid()}.running.ipynb"
    done = out / f"{chapter}.ipynb"
    done.unlink(missing_ok=True)
    try:
        papermill.execute_notebook(
            book / f"{chapter}.ipynb", half, values, cwd=book, kernel_name="python3", progress_bar=sys.stderr.isatty()
        )
    except BaseException:
        if half.is_file():
            half.replace(out / f"{chapter}.failed.ipynb")
        raise
    return half.replace(done)


def stop(number: int, _frame: Any) -> NoReturn:
    raise Stopped(signal.Signals(number).name)


def go_on(values: Mapping[str, Any]) -> str:
    """What to do after a stop."""
    if values.get("RESULTS"):
        return f"The same command goes on: what is finished lies in {values['RESULTS']}/parts (seen from book/)."
    return "RESULTS is empty, so the same command begins anew; with -p RESULTS folder it would go on."


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapter", help="a file of book/ without .ipynb, or `all` that the profile has, one after another")
    parser.add_argument("profile", nargs="?", default="default", help="a folder of book/profiles, or `default`")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="given")
    parser.add_argument("-o", "--out", type=Path, help="folder of the finished notebook")
    parser.add_argument(
        "--cluster", default="", metavar="ADDRESS", help="of a Dask scheduler, tcp://host:8786: the parameter CLUSTER"
    )
    parser.add_argument("--images-per-second", type=float, default=0, metavar="N", help="for the hours; measured if not given")
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the cost, run nothing")
    options = parser.parse_args(arguments)
    try:
        given = {name: yaml.safe_load(value) for name, value in options.given}
    except yaml.YAMLError as problem:
        parser.error(f"a value of -p must be YAML, such as 3, true, [1, 2] or 'text': {problem}")
    if options.cluster:
        given["CLUSTER"] = options.cluster
    out = options.out or BOOK.parent / "_build" / "runs" / options.profile
    failed = []
    try:
        writable(out)
        chapters = chapters_of(options.profile) if options.chapter == "all" else [options.chapter]
    except OSError as problem:
        sys.exit(f"{options.chapter}: {problem}")
    for chapter in chapters:
        if problem := one(chapter, options, given, out):
            failed.append(problem if len(chapters) == 1 else chapter)
            if len(chapters) > 1:
                print(problem, file=sys.stderr, flush=True)
    if failed:
        sys.exit(failed[0] if len(chapters) == 1 else f"not done: {', '.join(failed)}")


def one(chapter: str, options: argparse.Namespace, given: Mapping[str, Any], out: Path) -> str:
    """Check a chapter and, unless this is a dry run, run it; return what is wrong, or nothing."""
    try:
        values = values_of(chapter, options.profile, given)
    except (NameError, TypeError, ValueError, OSError) as problem:
        return f"{chapter}: {problem}"
    everything = defaults_of(BOOK / f"{chapter}.ipynb") | values
    if wrong := survey(chapter, everything, options.images_per_second, True):
        return "\n".join(f"{chapter}: {line}" for line in wrong)
    if options.dry_run:
        return ""
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        print(f"  finished  {run(chapter, options.profile, given, out)}", flush=True)
    except papermill.PapermillExecutionError as problem:
        return f"{problem}\n{chapter}: FAILED; what it did until then: {out / chapter}.failed.ipynb. {go_on(everything)}"
    except (Stopped, KeyboardInterrupt, DeadKernelError) as problem:
        logging.disable()  # the kernel's last words say nothing more
        sys.exit(f"\n{chapter}: stopped ({problem or 'Ctrl-C'}). {go_on(everything)}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return ""


if __name__ == "__main__":
    main()
