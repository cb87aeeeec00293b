"""Every method on every kind of network: it works and leaves the network as it was, or says why it does not apply.

The networks are those of the table of methods (book/methods.py), made narrow, so that what the table says is seen again.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections import Counter
from functools import cache, partial
from pathlib import Path

import pandas as pd
import planted_bugs
import pytest
import torch
import torchvision
from networks import LIGHT, changes, snapshot
from test_contract import EXPLAINERS
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from helpers import efficientnet_lite, metrics, models, vgg
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
    net = torchvision.models.VisionTransformer(**sizes, num_classes=7)
    nn.init.normal_(net.heads.head.weight)  # torchvision's begins at 0, and so would every logit
    return net


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
    return script.fitted(method, partial(explain, **settings), network(name))


NOT_APPLICABLE = {  # written by hand: everywhere else a method has to work
    ("CAM", "vgg16"): "CAM needs logits = one linear layer",
    ("CAM", "squeezenet1_1"): "CAM needs logits = one linear layer",
    ("CAM", "vit_b_16"): "CAM needs logits = one linear layer",
    ("FullGrad", "vit_b_16"): "FullGrad needs",
    ("guided backprop", "vit_b_16"): "ReLU",
    ("Guided Grad-CAM", "vit_b_16"): "ReLU",
    ("excitation backprop", "vit_b_16"): "no rule for the way back",
    ("contrastive excitation backprop", "vit_b_16"): "no rule for the way back",
    ("Gradual Extrapolation of Grad-CAM", "vit_b_16"): "level_layers|resolution",
    ("Gradual Extrapolation of contrastive EB", "vit_b_16"): "level_layers|resolution",
    ("Gradual Extrapolation of a constant", "vit_b_16"): "level_layers|levels|resolution",
    ("SISE", "vit_b_16"): "block_layers",
    ("Ada-SISE", "vit_b_16"): "block_layers",
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_works_or_says_why_not_and_leaves_the_network_alone(method, name):
    net = network(name)
    x = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    before = snapshot(net)
    if (method, name) in NOT_APPLICABLE:
        with pytest.raises((ValueError, TypeError), match=NOT_APPLICABLE[method, name]):
            light(method, name)(net, x, 2)
    else:
        saliency = light(method, name)(net, x, 2)
        assert saliency.shape == (SIDE, SIDE) and saliency.isfinite().all() and not saliency.requires_grad
    assert changes(before, snapshot(net)) == []


def test_the_table_says_the_same():
    table = pd.read_csv(data_folder() / "results" / "methods.csv", keep_default_na=False).set_index(["method", "network"])
    networks = set(table.index.levels[1])
    assert set(table.index) == {(m, n) for m in METHODS for n in networks} and set(MADE) <= networks
    for (method, name), row in table.iterrows():
        reason = NOT_APPLICABLE.get((method, name))
        assert row["verdict"] == ("works" if reason is None else "not applicable"), (method, name)
        assert re.search(reason or "^$", row["why"]), (method, name)


def test_the_table_has_every_explainer_of_the_package():
    listed = {(f.func if isinstance(f, partial) else f).__name__ for f in METHODS.values()}
    assert listed == set(EXPLAINERS)


def test_every_method_and_metric_is_held_against_an_oracle():
    wanted = {(f.func if isinstance(f, partial) else f).__name__ for f in METHODS.values()}
    wanted |= {name for name, f in vars(metrics).items() if inspect.isfunction(f) and takes_a_map(f)}
    wanted |= {"win", "per_class", "activation_maps", "first_filters", "activation_maximisation", "class_impression"}
    wanted |= {"attention", "attention_map", "counted", "layer_scores", "differences", "linear_differences"}
    proved = script.oracles()
    assert wanted - set(proved["function"]) == set()
    assert [by for by in proved["oracle"] if len(by) < 15 or by.endswith(".")] == []


def takes_a_map(function) -> bool:
    """Whether it is a metric: one number for a saliency map, or for two."""
    given = list(inspect.signature(function).parameters)
    return inspect.signature(function).return_annotation == "float" and ("saliency" in given or given[:2] == ["a", "b"])


def test_the_oracles_that_the_book_prints_are_those_of_the_tests():
    stored = pd.read_csv(data_folder() / "results" / "oracles.csv")
    pd.testing.assert_frame_equal(stored, script.oracles())


def test_every_method_has_a_bug_planted_that_is_still_there_to_plant():
    bugs = planted_bugs.planted()
    assert all(planted_bugs.broken(bug) for bug in bugs)  # its text stands in the file, once
    named = Counter(name for bug in bugs for name in bug["names"].split())
    assert {name for name in (f.__name__ for f in EXPLAINERS.values()) if named[name] < 1} == set()
