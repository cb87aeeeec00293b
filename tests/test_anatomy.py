"""anatomy: which layers mean what, in the networks of the papers and in whatever a reader brings."""

from functools import cache

import pytest
import torch
import torchvision
from networks import Tiny, changes, made, snapshot
from torch import nn

from helpers import anatomy, cam, core
from helpers.anatomy import Layers, vgg_layers
from helpers.models import LAYERS, MEANINGS, Classifier, from_module, layer_table, load, sise_maps

CNNS = [name for name, layers in LAYERS.items() if layers.blocks]


@cache
def on_paper(name):
    """A network of the papers without memory for its weights: enough to see which shapes go where."""
    with torch.device("meta"):
        return load(name, weights=None, device="meta")


@cache
def table(name):
    return layer_table(on_paper(name))


def shapes(name, meaning):
    rows = table(name)[table(name)[meaning]]
    return [tuple(row) for row in rows[["channels", "height", "width"]].to_numpy()]


def layers_of(net):
    return Layers(net.cam_layer, net.block_layers, net.level_layers, net.selectable_layers)


def square(*runs):
    """(how many, channels, side) … -> shapes (C, h, w)."""
    return [(channels, side, side) for n, channels, side in runs for _ in range(n)]


# ------------------------------------------------------------------------------------------- networks of the papers


@pytest.mark.parametrize("name", LAYERS)
def test_a_loaded_network_has_the_layers_of_the_table(name):
    assert layers_of(on_paper(name)) == LAYERS[name] and on_paper(name).why == "known for this network"


VGG_POOLED = [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]


def vgg_steps(repeats):
    stages = zip(repeats, (64, 128, 256, 512, 512), (224, 112, 56, 28, 14), strict=True)
    return square(*(run for n, channels, side in stages for run in ((n, channels, side), (1, channels, side // 2))))


SELECTABLE = {
    "efficientnet_lite0": square(
        (1, 32, 112), (1, 16, 112), (2, 24, 56), (2, 40, 28), (3, 80, 14), (3, 112, 14), (4, 192, 7), (1, 320, 7), (1, 1280, 7)
    ),
    "efficientnet_lite1": square(
        (1, 32, 120), (1, 16, 120), (3, 24, 60), (3, 40, 30), (4, 80, 15), (4, 112, 15), (5, 192, 8), (1, 320, 8), (1, 1280, 8)
    ),
    "efficientnet_lite2": square(
        (1, 32, 130), (1, 16, 130), (3, 24, 65), (3, 48, 33), (4, 88, 17), (4, 120, 17), (5, 208, 9), (1, 352, 9), (1, 1280, 9)
    ),
    "vgg16": vgg_steps((2, 2, 3, 3, 3)),
    "vgg19": vgg_steps((2, 2, 4, 4, 4)),
    "resnet18": square((1, 64, 112), (1, 64, 56), (2, 64, 56), (2, 128, 28), (2, 256, 14), (2, 512, 7)),
    "resnet50": square((1, 64, 112), (1, 64, 56), (3, 256, 56), (4, 512, 28), (6, 1024, 14), (3, 2048, 7)),
    "resnet101": square((1, 64, 112), (1, 64, 56), (3, 256, 56), (4, 512, 28), (23, 1024, 14), (3, 2048, 7)),
    "squeezenet1_0": square(
        (1, 96, 109), (1, 96, 54), (2, 128, 54), (1, 256, 54), (1, 256, 27), (1, 256, 27), (2, 384, 27), (1, 512, 27),
        (2, 512, 13),
    ),
    "squeezenet1_1": square(
        (1, 64, 111), (1, 64, 55), (2, 128, 55), (1, 128, 27), (2, 256, 27), (1, 256, 13), (2, 384, 13), (2, 512, 13)
    ),
    "vit_b_16": square((12, 768, 14)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_to_select_from_have_the_shapes_of_the_architecture(name):
    assert shapes(name, "selectable") == SELECTABLE[name]


def test_vgg16_has_the_18_layers_of_the_paper_and_vgg19_21():
    indices = [1, 3, 4, 6, 8, 9, 11, 13, 15, 16, 18, 20, 22, 23, 25, 27, 29, 30]
    assert LAYERS["vgg16"].selectable == tuple(f"features.{i}" for i in indices)
    for name, convolutions in (("vgg16", 13), ("vgg19", 16)):
        chosen = table(name)[table(name).selectable]
        assert chosen.module.value_counts().to_dict() == {"ReLU": convolutions, "MaxPool2d": 5}


LEVELS = {
    "efficientnet_lite0": [112, 56, 28, 14, 7],
    "efficientnet_lite1": [120, 60, 30, 15, 8],
    "efficientnet_lite2": [130, 65, 33, 17, 9],
    "resnet18": [112, 56, 28, 14, 7],
    "resnet50": [112, 56, 28, 14, 7],
    "resnet101": [112, 56, 28, 14, 7],
    "squeezenet1_0": [109, 54, 27, 13],
    "squeezenet1_1": [111, 55, 27, 13],
    "vgg16": [224, 112, 56, 28, 14, 7],
    "vgg19": [224, 112, 56, 28, 14, 7],
    "vit_b_16": [],
}


@pytest.mark.parametrize("name", LAYERS)
def test_levels_are_the_resolutions_shallow_to_deep_once_each(name):
    assert [shape[-1] for shape in shapes(name, "level")] == LEVELS[name]


def test_levels_of_nets_with_pools_are_what_the_pools_put_out():
    assert shapes("vgg16", "level") == [(64, 224, 224), *VGG_POOLED]
    assert LAYERS["vgg16"].levels == tuple(f"features.{i}" for i in (3, 4, 9, 16, 23, 30))
    assert LAYERS["vgg19"].levels == tuple(f"features.{i}" for i in (3, 4, 9, 18, 27, 36))
    assert LAYERS["squeezenet1_0"].levels == tuple(f"features.{i}" for i in (1, 2, 6, 11))
    assert LAYERS["squeezenet1_1"].levels == tuple(f"features.{i}" for i in (1, 2, 5, 8))
    for name in ("vgg16", "vgg19", "squeezenet1_0", "squeezenet1_1"):
        assert list(table(name)[table(name).level].module) == ["ReLU"] + ["MaxPool2d"] * (len(LEVELS[name]) - 1)


@pytest.mark.parametrize("name", [name for name in CNNS if name[:3] in ("eff", "res")])
def test_levels_of_nets_that_stride_are_the_block_ends(name):
    assert LAYERS[name].levels == LAYERS[name].blocks


@pytest.mark.parametrize(("name", "maps"), [
    ("vgg16", 1472), ("vgg19", 1472), ("resnet50", 3904), ("resnet101", 3904),
    ("resnet18", 64 + 64 + 128 + 256 + 512), ("efficientnet_lite0", 16 + 24 + 40 + 112 + 1280), ("vit_b_16", 0),
])  # fmt: skip
def test_the_block_ends_have_as_many_maps_as_the_sise_paper_counts(name, maps):
    assert sise_maps(on_paper(name)) == maps == sum(channels for channels, *_ in shapes(name, "block"))


@pytest.mark.parametrize("name", LAYERS)
def test_the_table_goes_forward_and_names_no_layer_twice(name):
    known, rows = LAYERS[name], table(name)
    columns = ["layer", "module", "channels", "height", "width", "cam", "block", "level", "selectable"]
    assert list(rows.columns) == columns and rows.layer.is_unique
    for meaning, layers in zip(("cam", "block", "level", "selectable"), ((known.cam,), *known[1:]), strict=True):
        assert tuple(rows.layer[rows[meaning]]) == layers and rows[meaning].dtype == bool


def test_the_table_of_a_small_network_in_full():
    net = from_module(sequential(), side=16, verbose=False)
    assert layer_table(net).to_numpy().tolist() == [
        ["1", "ReLU", 4, 16, 16, False, True, True, True],
        ["2", "MaxPool2d", 4, 8, 8, False, False, True, True],
        ["5", "ReLU", 5, 8, 8, True, True, False, True],
    ]


def test_layers_of_any_vgg_come_from_its_pools_alone():
    slim = vgg_layers((2, 5), trunk="backbone.features")
    assert slim.selectable == tuple(f"backbone.features.{i}" for i in (1, 2, 4, 5))
    assert slim.levels == tuple(f"backbone.features.{i}" for i in (1, 2, 5)) and slim.cam == "backbone.features.4"


# ----------------------------------------------------------------------------------------------------- the finder


@pytest.mark.parametrize("name", LAYERS)
def test_the_finder_finds_what_the_table_says(name):
    known = on_paper(name)
    found = from_module(known.module, side=known.side, verbose=False)  # it differs for none of them
    assert layers_of(found) == LAYERS[name] and found.token_grid == known.token_grid


def sequential():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Dropout2d(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip


class Head(nn.Module):
    """Whatever comes before, averaged over positions."""

    def __init__(self, channels, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.parts, self.fc = list(parts), nn.Linear(channels, 3)

    def forward(self, x):
        for name in self.parts:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3)))


class Residual(nn.Module):
    """Convolution, norm, ReLU, convolution; its input is added if it can be."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.one, self.norm, self.two = (
            nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        )  # fmt: skip
        self.relu, self.adds = nn.ReLU(inplace=True), inputs == outputs

    def forward(self, x):
        y = self.two(self.relu(self.norm(self.one(x))))
        if self.adds:
            y += x
        return self.relu(y)


class Parallel(nn.Sequential):
    """A Sequential with a `forward` of its own."""

    def forward(self, x):
        return torch.cat([part(x) for part in self], 1)


class Stage(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.inner = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.inner:
            x = block(x)
        return x


class Rectified(nn.Module):
    """One convolution and a ReLU that is a function."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)

    def forward(self, x):
        return self.conv(x).relu()


class Chain(nn.Module):
    """Convolutions in a row, ReLUs and pools as functions."""

    def __init__(self, *channels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(channels, channels[1:], strict=False))

    def forward(self, x):
        for conv in self.convs:
            x = nn.functional.max_pool2d(conv(x).relu(), 2)
        return x


class Frugal(nn.Module):
    """One ReLU and one pool for all of its convolutions, and for its classifier."""

    def __init__(self, again):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(i, i + 1, 3, padding=1) for i in (3, 4, 5))
        self.relu, self.pool, self.fc, self.again = nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Linear(6, 3), again

    def forward(self, x):
        x = self.pool(self.relu(self.one(x)))
        x = self.relu(self.three(self.pool(self.relu(self.two(x)))))
        y = self.fc(x.mean((2, 3)))
        return self.relu(y) if self.again else y


class NoGraph(Chain):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


class Overwrites(nn.Module):
    def forward(self, x):
        x -= 1
        return x


OWN = {
    "sequential": (sequential, Layers("5", ("1", "5"), ("1", "2"), ("1", "2", "5"))),
    "residual `+=` without a module": (lambda: made(Tiny).float(), Layers("last", ("last",), ("last",), ("relu", "last"))),
    "functional": (
        lambda: Head(5, trunk=Chain(3, 4, 5)),
        Layers("trunk.convs.1", ("trunk.convs.0", "trunk.convs.1"), ("trunk.convs.0", "trunk.convs.1"),
               ("trunk.convs.0", "trunk.convs.1")),
    ),
    "residual blocks, one of which adds nothing": (
        lambda: Head(6, stem=Rectified(3, 4), a=Residual(4, 4), b=Residual(4, 6, 2)),
        Layers("b", ("a", "b"), ("a", "b"), ("stem", "a", "b")),
    ),
    "stages that are modules": (
        lambda: Head(6, one=Stage(Residual(3, 4), Residual(4, 4)), two=Stage(Residual(4, 6, 2), Residual(6, 6))),
        Layers("two", ("one", "two"), ("one", "two"), ("one.inner.0", "one.inner.1", "two.inner.0", "two.inner.1")),
    ),
    "a Sequential that concatenates": (
        lambda: Head(5, stem=nn.Conv2d(3, 4, 3, 2, 1), both=Parallel(nn.Conv2d(4, 2, 1), Rectified(4, 3)), last=nn.ReLU()),
        Layers("last", ("last",), ("last",), ("stem", "last")),
    ),
    "no pooling": (
        lambda: Head(5, a=Rectified(3, 4, 2), b=Rectified(4, 4), c=Rectified(4, 5, 2)),
        Layers("c", ("b", "c"), ("b", "c"), ("a", "b", "c")),
    ),
    "a norm after the pool": (
        lambda: Head(4, a=nn.Conv2d(3, 4, 1), b=nn.MaxPool2d(2), c=nn.BatchNorm2d(4), d=nn.Conv2d(4, 4, 1)),
        Layers("d", ("a", "d"), ("a", "b"), ("a", "b", "d")),
    ),
    "down and up again": (
        lambda: Head(6, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 5, 3, 2, 1), up=nn.Upsample(scale_factor=2), c=nn.Conv2d(5, 6, 1)),
        Layers("c", ("b", "c"), ("b", "c"), ("a", "b", "c")),
    ),
    "one resolution": (lambda: Head(5, a=Rectified(3, 4), b=Rectified(4, 5)), Layers("b", ("b",), ("b",), ("a", "b"))),
    "one ReLU and pool for all": (
        lambda: Frugal(False), Layers("relu", ("one", "two", "relu"), ("one", "two", "relu"), ("one", "two", "pool", "relu"))
    ),
    "one ReLU, for the classifier too": (
        lambda: Frugal(True),
        Layers("three", ("one", "two", "three"), ("one", "two", "three"), ("one", "two", "pool", "three")),
    ),
    "no gradients inside": (
        lambda: Head(4, a=NoGraph(3, 4)), Layers("a.convs.0", ("a.convs.0",), ("a.convs.0",), ("a.convs.0",))
    ),
    "writes into its input": (lambda: Head(4, a=Overwrites(), b=Rectified(3, 4)), Layers("b", ("b",), ("b",), ("b",))),
}  # fmt: skip


@pytest.mark.parametrize("kind", OWN)
def test_the_layers_of_a_readers_network_are_found(kind):
    make, expected = OWN[kind]
    module = make()
    before = snapshot(module)
    net = from_module(module, side=16, verbose=False)
    assert layers_of(net) == expected and net.token_grid is None
    assert changes(before, snapshot(module)) == []
    assert list(layer_table(net).layer)[-1] in (expected.cam, expected.selectable[-1], expected.levels[-1])


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "shufflenet_v2_x1_0", "densenet121", "efficientnet_b0", "vgg16_bn", "alexnet"]
)
def test_other_networks_of_torchvision_have_levels_that_shrink(name):
    with torch.device("meta"):
        net = from_module(torchvision.models.get_model(name, weights=None), verbose=False)
    rows = layer_table(net)
    for meaning in ("block", "level"):
        sides = rows.height[rows[meaning]]
        assert sides.is_monotonic_decreasing and sides.is_unique and len(sides) > 2
    assert rows.height[rows.selectable].is_monotonic_decreasing


def test_a_whole_block_stands_for_its_branches():
    with torch.device("meta"):
        net = from_module(torchvision.models.get_model("shufflenet_v2_x1_0", weights=None), verbose=False)
    blocks = [f"stage{i}.{j}" for i, n in ((2, 4), (3, 8), (4, 4)) for j in range(n)]
    assert net.selectable_layers == ("conv1.2", "maxpool", *blocks, "conv5.2")
    assert net.block_layers == ("conv1", "stage2", "stage3", "conv5")  # 56 x 56 is in a branch of stage2.0 only


def test_the_flow_is_seen_in_inference_mode_too():
    make, expected = OWN["residual blocks, one of which adds nothing"]
    module = make()
    with torch.inference_mode():
        assert layers_of(from_module(module, side=16, verbose=False)) == expected


def test_the_flow_is_whole_where_there_is_no_way_around():
    x = torch.ones(1, 2, requires_grad=True)
    stem = x.exp()
    left, right = stem.sin(), stem.cos()
    logits = (left + right).relu()
    share = anatomy.flow(logits)
    assert [share[node.grad_fn] for node in (stem, left, right, logits)] == [1, 0.5, 0.5, 1]


# --------------------------------------------------------------------------------------------------- transformers


def small_vit(kind=torchvision.models.VisionTransformer, layers=1):
    sizes = dict(image_size=32, patch_size=8, num_layers=layers, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=3)
    return kind(**sizes).eval()


def test_vit_b_16_has_14_x_14_tokens():
    net = on_paper("vit_b_16")
    assert net.token_grid == (14, 14) and shapes("vit_b_16", "cam") == [(768, 14, 14)]
    with torch.no_grad(), core.capture(net, [net.cam_layer, *net.selectable_layers]) as seen:
        net(torch.zeros(1, 3, 224, 224, device="meta"))
    assert len(seen) == 13 and {features.shape for features in seen.values()} == {(1, 768, 14, 14)}


def test_the_layers_of_a_vision_transformer_are_found_and_explain(capsys):
    net = from_module(small_vit(layers=2), side=32, name="mine")
    encoder = ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1")
    assert layers_of(net) == Layers(f"{encoder[1]}.ln_1", (), (), encoder) and net.token_grid == (4, 4)
    said = capsys.readouterr().out
    for part in ("ln_1 [16, 4, 4]: the last norm", "level_layers (0): none: a transformer has one resolution", "(2): encoder"):
        assert part in said
    assert cam.grad_cam(net, torch.randn(3, 32, 32)).shape == (32, 32)


def test_the_class_token_comes_first_and_the_patches_in_reading_order():
    net = from_module(small_vit(), side=32, verbose=False)  # one layer: before its attention a token knows its patch only
    blank, marked = torch.zeros(3, 32, 32), torch.zeros(3, 32, 32)
    marked[:, 16:24, 8:16] = 1  # row 2, column 1
    difference = core.features_of(net, marked, net.cam_layer) - core.features_of(net, blank, net.cam_layer)
    assert difference.abs().amax(0).nonzero().tolist() == [[2, 1]]


class Register(torchvision.models.VisionTransformer):
    """A token more than the finder knows of."""

    def _process_input(self, x):
        return torch.nn.functional.pad(super()._process_input(x), (0, 0, 1, 0))

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.encoder.pos_embedding = nn.Parameter(torch.zeros(1, 18, 16))


class Attentive(nn.Module):
    """A transformer that is not torchvision's; class token first."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 8, 8), nn.LayerNorm(8)
        self.attention, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        x = self.norm(nn.functional.pad(self.patches(x).flatten(2).transpose(1, 2), (0, 0, 1, 0)))
        return self.fc(self.attention(x, x, x)[0][:, 0])


@pytest.mark.parametrize("make", [lambda: small_vit(Register), Attentive])
def test_another_transformer_is_asked_for_its_layer(make):
    with pytest.raises(ValueError, match="is a transformer, its features are tokens: pass cam_layer=…"):
        from_module(make(), side=32)


def test_another_transformer_takes_the_callers_layer():
    net = from_module(Attentive(), side=32, cam_layer="norm", selectable_layers=["patches", "norm"], verbose=False)
    assert net.token_grid == (4, 4) and list(layer_table(net).layer) == ["patches", "norm"]
    assert cam.grad_cam(net, torch.randn(3, 32, 32)).shape == (32, 32)


# ----------------------------------------------------------------------------------------- what is said, what is given


def test_what_was_chosen_is_said_with_shapes_and_reasons_and_kept(capsys):
    net = from_module(sequential(), side=16, name="mine")
    said = capsys.readouterr().out.splitlines()
    assert said == ["mine: 3 classes", *net.why.splitlines()] and len(said) == 1 + len(MEANINGS)
    assert said[1] == "cam_layer: 5 [5, 8, 8]: the last of 7 outputs with positions before the classifier and its pooling"
    assert said[2] == "block_layers (2): 1 [4, 16, 16], 5 [5, 8, 8]: the last map of each resolution, pools aside"
    assert said[3].startswith("level_layers (2): 1 [4, 16, 16], 2 [4, 8, 8]: each change of resolution is a pool")
    assert said[4].startswith("selectable_layers (3): 1 [4, 16, 16], 2 [4, 8, 8], 5 [5, 8, 8]: each convolution, after its norm")
    assert net.classes == ("class 0", "class 1", "class 2")
    from_module(sequential(), side=16, verbose=False)
    assert capsys.readouterr().out == ""


def test_a_long_list_is_said_by_its_ends_and_strides_have_their_own_reason():
    why = from_module(on_paper("resnet50").module, verbose=False).why.splitlines()
    assert why[3].startswith("selectable_layers (18): relu [64, 112, 112], …, layer4.2 [2048, 7, 7]: ")
    assert "layer4 [2048, 7, 7]: the block ends, for not each change of resolution is a pool" in why[2]


def test_layers_of_the_callers_are_taken():
    given = {"cam_layer": "1", "block_layers": ["1"], "level_layers": ("1", "5"), "selectable_layers": ["0", "5"]}
    net = from_module(sequential(), side=16, **given, verbose=False)
    assert layers_of(net) == Layers("1", ("1",), ("1", "5"), ("0", "5"))
    assert net.why.count("given by the caller") == 4 and sise_maps(net) == 4
    one = from_module(sequential(), side=16, level_layers=[], verbose=False)
    assert one.level_layers == () and one.cam_layer == "5" and "level_layers (0): none: given by the caller" in one.why


@pytest.mark.parametrize("what", MEANINGS)
def test_an_unknown_layer_lists_near_ones(what):
    layer = "featurs.29"
    with pytest.raises(ValueError, match=r"no layer 'featurs.29'; names like it: .*features.29"):
        from_module(on_paper("vgg16").module, **{what: layer if what == "cam_layer" else ["features.3", layer]})


@pytest.mark.parametrize(("given", "error", "says"), [
    ({"block_layers": "1"}, TypeError, "block_layers is a list of layer names, not one name, '1'"),
    ({"level_layers": ["5", "1"]}, ValueError, r"level_layers go in forward order .* \['1', '5'\]; given: \['5', '1'\]"),
    ({"selectable_layers": ["1", "1"]}, ValueError, r"selectable_layers go .* once each: \['1'\]; given: \['1', '1'\]"),
    ({"selectable_layers": ["1", "9"]}, TypeError, r"layer '9' puts out shape \[1, 3\]; expected features"),
    ({"cam_layer": "9"}, TypeError, r"layer '9' puts out shape \[1, 3\]; expected features"),
    ({"block_layers": [""]}, ValueError, "no layer ''"),
])  # fmt: skip
def test_layers_that_cannot_be_are_named(given, error, says):
    with pytest.raises(error, match=says):
        from_module(sequential(), side=16, **given)


def test_a_layer_that_is_not_passed_is_named():
    module = sequential()
    module[0].spare = nn.ReLU()
    with pytest.raises(ValueError, match="did not go through layer '0.spare'"):
        from_module(module, side=16, block_layers=["0.spare"])


def test_a_network_without_convolution_is_a_clear_error():
    with pytest.raises(ValueError, match="no convolution has positions before the classifier"):
        from_module(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 64, 2)), side=16)


@pytest.mark.parametrize("ask", [layer_table, sise_maps])
def test_a_plain_module_has_no_table(ask):
    with pytest.raises(TypeError, match="takes a models.Classifier, not Sequential: models.from_module makes one"):
        ask(sequential())


def test_a_classifier_made_by_hand_needs_no_lists():
    net = Classifier("mine", sequential(), ("a", "b", "c"), "5", side=16)
    assert (net.level_layers, net.selectable_layers, net.token_grid) == ((), (), None)
    assert list(layer_table(net).layer) == ["5"] and sise_maps(net) == 0


def test_the_table_leaves_the_network_as_it_was():
    net = from_module(made(Tiny), side=16, verbose=False)
    net.module.train()
    net.module.norm.eval()
    before = snapshot(net)
    layer_table(net)
    assert changes(before, snapshot(net)) == []


@pytest.mark.parametrize(
    ("module", "side", "error", "says"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.LazyLinear(2)),
            32,
            ValueError,
            r"fails on an image \[1, 3, 32, 32\]",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(9, 2)),
            32,
            ValueError,
            r"fails on an image \[1, 3, 32, 32\]",
        ),
        (nn.Conv2d(3, 4, 3), "224", TypeError, "side is the input's width and height in pixels, a whole number, not '224'"),
        (nn.Conv2d(3, 4, 3), 0, TypeError, "a whole number, not 0"),
    ],
)
def test_a_network_that_takes_other_images_is_named(module, side, error, says):
    with pytest.raises(error, match=says):
        from_module(module, side=side, verbose=False)
