"""What the page "In the page, live" runs: the network as ONNX and a runtime, packed for a page that may be opened from disk.

    python book/live_build.py

writes `book/_static/live/`, which git ignores and Sphinx copies into the site. Everything is compressed, written as text (base64)
and cut into small scripts: a page opened from disk may load scripts beside it, and nothing else. The runtime is the npm package
onnxruntime-web; it is fetched once (by npm where that is installed), its checksum compared, and kept in the environment. Where
it cannot be had the page is built without it, and says so; with SEEING_WHY_REQUIRE_RUNTIME=1, as in continuous integration, that
is an error.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper
from torch import Tensor, nn

from helpers import data, models
from helpers.data import data_folder
from helpers.efficientnet_lite import SameConv2d
from helpers.models import Classifier
from helpers.plotting import MAP_COLOURS

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "book" / "_static" / "live"
NETWORK = "efficientnet_lite0"
SAMPLES = {"chelsea": "A cat", "coffee": "A cup of espresso"}  # both CC0
BATCH = 4  # masked copies in one forward pass
WINDOW, STRIDE = 32, 16  # of occlusion: a seventh of the side and half of that, the defaults of `sampling.occlusion`
PART = 2_000_000  # characters of a script: small enough for a progress bar that moves

RUNTIME = "onnxruntime-web"
VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # as npm states it
TARBALL = f"https://registry.npmjs.org/{RUNTIME}/-/{RUNTIME}-{VERSION}.tgz"
KEPT = Path(sys.prefix) / "share" / "seeing-why" / f"{RUNTIME}-{VERSION}.tgz"
SCRIPT, WASM = "package/dist/ort.wasm.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.wasm"  # the smallest pair: CPU only


# ------------------------------------------------------------------------------------------------------ the network


class Graph:
    """An ONNX graph that grows: each method adds a node and returns the name of what it puts out."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.weights: list = []

    def hold(self, name: str, values: Tensor | np.ndarray) -> str:
        array = values.detach().contiguous().cpu().numpy() if isinstance(values, Tensor) else values
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, inputs: list[str], name: str, **settings: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **settings))
        return name

    def convolution(self, x: str, name: str, layer: SameConv2d, side: int) -> tuple[str, int]:
        """A convolution of a picture `side` pixels wide, and how wide it is afterwards. The padding is part of it."""
        (kernel, _), (stride, _) = layer.kernel_size, layer.stride
        before, after = layer._padding(side, kernel, stride)
        inputs = [x, self.hold(f"{name}.weight", layer.weight), self.hold(f"{name}.bias", layer.bias)]
        out = self.add(
            "Conv", inputs, name, group=layer.groups, kernel_shape=[kernel] * 2, strides=[stride] * 2,
            pads=[before, before, after, after],
        )  # fmt: skip
        return out, -(-side // stride)

    def relu6(self, x: str) -> str:
        return self.add("Clip", [x, "zero", "six"], f"{x}.relu6")


def lite_model(net: Classifier) -> bytes:
    """The file of `onnx_model(net)`."""
    return onnx_model(net).SerializeToString()


def onnx_model(net: Classifier) -> ModelProto:
    """An EfficientNet-Lite in ONNX: image `[N, 3, side, side]` -> logits `[N, K]` and features `[N, C, h, w]`.

    Written layer by layer and not traced: the padding of SAME goes into the convolutions, and no exporter can change its mind.
    """
    module, side, graph = net.module, net.side, Graph()
    for name, value in (("zero", 0), ("six", 6)):
        graph.hold(name, np.array(value, dtype=np.float32))
    x, side = graph.convolution("image", "stem", module.stem, side)
    x = graph.relu6(x)
    for i, block in enumerate(module.blocks):
        entered = x
        for name, layer in block.layers.named_children():
            if isinstance(layer, SameConv2d):
                x, side = graph.convolution(x, f"blocks.{i}.{name}", layer, side)
            elif isinstance(layer, nn.ReLU6):
                x = graph.relu6(x)
            else:
                raise TypeError(f"blocks.{i}.{name} is a {type(layer).__name__}: expected convolutions and ReLU6 alone")
        if block.adds_input:
            x = graph.add("Add", [entered, x], f"blocks.{i}.sum")
    x, side = graph.convolution(x, "head", module.head, side)
    graph.add("Clip", [x, "zero", "six"], "features")
    graph.add("GlobalAveragePool", ["features"], "pooled")
    graph.add("Flatten", ["pooled"], "means", axis=1)
    linear = module.classifier
    inputs = ["means", graph.hold("classifier.weight", linear.weight), graph.hold("classifier.bias", linear.bias)]
    graph.add("Gemm", inputs, "logits", transB=1)
    described = helper.make_graph(
        graph.nodes, net.name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, net.side, net.side])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", linear.out_features]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", linear.in_features, side, side]),
        ],
        graph.weights,
    )  # fmt: skip
    model = helper.make_model(described, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="seeing-why")
    checker.check_model(model, full_check=True)
    return model


def linear_facts(model: bytes, net: Classifier) -> dict[str, int]:
    """Where in the file the linear layer's weights `[K, C]` lie: the page reads them there for its CAM, and needs no copy."""
    weight = net.module.classifier.weight.detach().contiguous().numpy().tobytes()
    offset = model.find(weight)
    if offset < 0 or model.find(weight, offset + 1) >= 0:
        raise ValueError("the linear layer's weights are not in the file, or there more than once")
    return {"offset": offset, "classes": net.module.classifier.out_features, "channels": net.module.classifier.in_features}


# ------------------------------------------------------------------------------------------------------ the runtime


def checked(archive: bytes) -> bytes:
    """The archive. Errors: ValueError if it is not the one that this page was tested with."""
    found = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != SHA512:
        raise ValueError(f"what came as {RUNTIME} {VERSION} has another checksum, sha512-{found}")
    return archive


def fetched() -> bytes:
    """The npm package as npm stores it. Errors: OSError, HTTPException, SubprocessError where it cannot be had."""
    if npm := shutil.which("npm"):
        with tempfile.TemporaryDirectory() as folder:
            # Without a network npm would wait for minutes.
            hurry = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]
            order = [npm, "pack", "--loglevel=error", *hurry, f"{RUNTIME}@{VERSION}"]
            done = subprocess.run(order, cwd=folder, capture_output=True, text=True, timeout=600)
            for packed in Path(folder).glob("*.tgz"):
                return packed.read_bytes()
            print(f"npm pack failed, trying without npm: {done.stderr.strip()[:200]}")
    with urllib.request.urlopen(TARBALL, timeout=60) as answer:
        return answer.read()


def runtime() -> dict[str, bytes]:
    """Script and WebAssembly of the runtime, fetched once for each environment. Errors: ValueError, those of `fetched`."""
    try:
        archive = checked(KEPT.read_bytes())
    except (FileNotFoundError, ValueError):  # not there yet, or damaged
        archive = checked(fetched())
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        part = KEPT.with_suffix(".part")
        part.write_bytes(archive)
        part.replace(KEPT)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {name: tar.extractfile(member).read() for name, member in (("runtime", SCRIPT), ("wasm", WASM))}  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------------------------- the files


def parts(content: bytes) -> Iterator[str]:
    """Compressed, as base64, in pieces that can each be decoded alone."""
    text = base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
    step = PART - PART % 4
    yield from (text[i : i + step] for i in range(0, len(text), step))


def write_files(folder: Path, files: dict[str, bytes]) -> dict[str, dict[str, int]]:
    """One script for each part; how many parts, characters and bytes each file has."""
    facts = {}
    for name, content in files.items():
        pieces = list(parts(content))
        for i, piece in enumerate(pieces):
            (folder / f"{name}.{i}.js").write_text(f'seeingWhyLive.part("{name}", {i}, "{piece}");\n', encoding="ascii")
        facts[name] = {"parts": len(pieces), "characters": sum(map(len, pieces)), "bytes": len(content)}
    return facts


def sample_files() -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """The two photographs that a reader without one of their own may take: the files themselves, and what to say of them."""
    files, about = {}, []
    for name, title in SAMPLES.items():
        photo = data.photo(name)
        content = io.BytesIO()
        photo.picture.save(content, "PNG", optimize=True)  # lossless: the page sees the pixels that the chapters see
        files[name] = content.getvalue()
        about.append({"name": name, "title": title, "credit": photo.credit})
    return files, about


def colours() -> str:
    """The book's colours for maps, 256 times R, G, B, as base64."""
    table = matplotlib.colormaps[MAP_COLOURS](np.arange(256), bytes=True)[:, :3]  # [256, 3]
    return base64.b64encode(np.ascontiguousarray(table).tobytes()).decode()


def notices() -> str:
    """Whose work lies in the folder, and under which terms: it goes wherever the folder goes."""
    licences = data_folder() / "licenses"
    return "\n\n".join((licences / name).read_text(encoding="utf-8") for name in ("onnxruntime-web.md", "efficientnet-lite.md"))


def build(folder: Path = OUT) -> dict:
    """Write the folder anew and return what its `facts.js` tells the page."""
    net = models.load(NETWORK)
    model = lite_model(net)
    files, samples = sample_files()
    files["model"] = model
    missing = ""
    try:
        files |= runtime()
    except (OSError, ValueError, http.client.HTTPException, subprocess.SubprocessError) as error:
        missing = f"{RUNTIME} {VERSION} could not be had when this copy of the book was built"
        print(f"WARNING: {missing} ({error}): the live page will say so", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    facts = {
        "missing": missing, "network": net.name, "runtime": f"{RUNTIME} {VERSION}", "files": write_files(folder, files),
        "side": net.side, "mean": net.mean, "std": net.std, "classes": net.classes, "linear": linear_facts(model, net),
        "batch": BATCH, "occlusion": {"window": WINDOW, "stride": STRIDE}, "colours": colours(), "samples": samples,
        "limit": data.MAX_PIXELS,
    }  # fmt: skip
    (folder / "NOTICE.txt").write_text(notices(), encoding="utf-8")
    shutil.copyfile(ROOT / "book" / "_static" / "mathjax" / "LICENSE", folder / "LICENSE-APACHE-2.0.txt")
    # Last of all: make takes this file for the sign that the folder is whole.
    (folder / "facts.js").write_text(f"globalThis.seeingWhyLiveFacts = {json.dumps(facts)};\n", encoding="ascii")
    if missing:
        os.utime(folder / "facts.js", (0, 0))  # older than all it is made from: the next `make book` tries again
    return facts


def main() -> None:
    found = build()
    if found["missing"] and os.environ.get("SEEING_WHY_REQUIRE_RUNTIME", "") not in ("", "0"):
        raise SystemExit(f"SEEING_WHY_REQUIRE_RUNTIME is set, and {found['missing']}")
    for name, file in found["files"].items():
        print(f"{name:10s} {file['bytes'] / 1e6:6.1f} MB, as text {file['characters'] / 1e6:6.1f} MB in {file['parts']} scripts")


if __name__ == "__main__":
    main()
