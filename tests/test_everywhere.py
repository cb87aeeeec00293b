"""Every method on every kind of network: it works and leaves the network as it was, or says why it does not apply.

The networks are those of the table of methods (book/methods.py), made narrow, so that what the table says is seen again.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from functools import cache, partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import torchvision
from networks import LIGHT, changes, snapshot
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from helpers import efficientnet_lite, models, vgg
from helpers.data import data_folder

ROOT = Path(__file__).resolve().parent.parent
SIDE = 64


def load_script():
    """book/methods.py as a module; book/ is no package."""
    spec = importlib.util.spec_from_file_location("book_methods", ROOT / "book" / "methods.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["book_methods"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


script = load_script()
METHODS = script.METHODS | script.NOTHING


class Narrow(Bottleneck):
    expansion = 1


def vgg_with_three_linear_layers() -> nn.Module:
    """torchvision's VGG at an eighth of the width, classifier included."""
    channels = [c if isinstance(c, str) else c // 8 for c in vgg.PLAN]
    with torch.device("meta"):  # a classifier of 120 million weights would only be thrown away
        net = torchvision.models.VGG(nn.Identity(), init_weights=False)
    net.features = torchvision.models.vgg.make_layers(channels)
    net.avgpool = nn.AdaptiveAvgPool2d(2)
    head = [nn.Linear(64 * 4, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 7)]
    net.classifier = nn.Sequential(*head)
    return net


def transformer() -> nn.Module:
    sizes = {"image_size": SIDE, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    return torchvision.models.VisionTransformer(**sizes, num_classes=7)


MADE = {  # name in the table -> the same kind of network, small
    "efficientnet_lite0": partial(efficientnet_lite.build, "efficientnet_lite0"),
    "slim_vgg16_scenes": partial(vgg.VGG16, 7, 1 / 8),
    "vgg16": vgg_with_three_linear_layers,
    "resnet18": partial(ResNet, BasicBlock, [1, 1, 1, 1], num_classes=7),
    "resnet50": partial(ResNet, Narrow, [1, 1, 1, 1], num_classes=7),
    "squeezenet1_1": partial(torchvision.models.squeezenet1_1, num_classes=7),
    "vit_b_16": transformer,
}
FEW = {"efficientnet_lite0": "blocks.1", "squeezenet1_1": "features.3"}  # masked copies at a layer of few channels, to be quick


@cache
def network(name: str) -> models.Classifier:
    return models.from_module(models.seeded(3, MADE[name]).eval(), side=SIDE, name=name, verbose=False)


def light(method: str, name: str):
    """The method as the table has it, with few samples, steps and channels."""
    explain = METHODS[method]
    function = explain.func if isinstance(explain, partial) else explain
    settings = {k: v for k, v in LIGHT.get(function.__name__, {}).items() if k not in getattr(explain, "keywords", {})}
    taken = inspect.signature(function).parameters
    if "batch_size" in taken and name in FEW:
        settings |= {"layer": FEW[name]} if "layer" in taken else {"layers": [FEW[name]]} if "layers" in taken else {}
    return partial(explain, **settings)


TABLE = pd.read_csv(data_folder() / "results" / "methods.csv").set_index(["method", "network"])
CELLS = [(m, n) for m in METHODS for n in MADE]


@pytest.mark.parametrize(("method", "name"), CELLS)
def test_a_method_works_where_the_table_says_so_and_leaves_the_network_alone(method, name):
    net = network(name)
    x = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    before, wanted = snapshot(net), TABLE.loc[method, name]
    if wanted["verdict"] == "works":
        saliency = light(method, name)(net, x, 2)
        assert saliency.shape == (SIDE, SIDE) and saliency.isfinite().all() and not saliency.requires_grad
    else:
        with pytest.raises((ValueError, TypeError)) as error:
            light(method, name)(net, x, 2)
        assert len(str(error.value)) > 30, "it says why"
    assert changes(before, snapshot(net)) == []


def test_the_table_has_every_method_and_every_network():
    networks = set(TABLE.index.levels[1])
    assert set(TABLE.index) == {(m, n) for m in METHODS for n in networks} and set(MADE) <= networks
    assert set(TABLE["verdict"]) == {"works", "not applicable"}


def test_the_table_has_every_explainer_of_the_package():
    from test_contract import EXPLAINERS

    listed = {(f.func if isinstance(f, partial) else f).__name__ for f in METHODS.values()}
    assert listed == set(EXPLAINERS)


def test_every_method_and_metric_is_held_against_an_oracle():
    proved, metrics = script.oracles(), script.METRICS
    wanted = {(f.func if isinstance(f, partial) else f).__name__ for f in (METHODS | metrics).values()}
    assert wanted - proved.keys() == set()
    assert all(len(by) > 15 and not by.endswith(".") for sentences in proved.values() for by in sentences)
