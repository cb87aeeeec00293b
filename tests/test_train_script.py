"""book/train.py: every recipe end to end on small copies of the true formats, killed and resumed, and its bad input."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image

from helpers import mil, models, readers, training

SCRIPT = Path(__file__).resolve().parents[1] / "book" / "train.py"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script as a module whose results go to a folder of the test's own."""
    spec = importlib.util.spec_from_file_location("train_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("MODELS", "CHECKPOINTS", "FINETUNED"):
        monkeypatch.setattr(module, name, tmp_path / name.lower())
    return module


@pytest.fixture(scope="session")
def squeezenet(tmp_path_factory):
    """Random weights of a SqueezeNet in a file: what fine-tuning starts from here."""
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(models.load("squeezenet1_1", weights=None).module.state_dict(), path)
    return path


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 30), red: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (size[1], size[0], 3))
    pixels[..., 0] += red
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def pets(tmp_path):
    """Dogs vs. Cats as Kaggle packs it, some pictures of each."""
    for i in range(12):
        for red, pet in ((0, "cat"), (200, "dog")):  # dogs are red: something that can be learnt
            picture(tmp_path / "pets" / "train" / f"{pet}.{i}.jpg", 2 * i + (red > 0), red=red)
    return tmp_path / "pets"


def small(recipe: str, root: Path, weights: Path, *more: str) -> list[str]:
    return [recipe, "--root", str(root), "--network", "squeezenet1_1", "--weights", str(weights), "--batch-size", "8", *more]


# ---------------------------------------------------------------------------------------------------- fine-tuning


def test_cats_and_dogs_are_fine_tuned_and_the_network_loads_by_its_file(script, pets, squeezenet, capsys):
    script.main(small("finetune_cats_dogs", pets, squeezenet, "--epochs", "1"))
    net = models.load(script.FINETUNED / "finetune_cats_dogs_squeezenet1_1.safetensors")
    assert (net.classes, net.side, net.multi_label) == (("cat", "dog"), 224, False)
    before = models.load("squeezenet1_1", weights=squeezenet).module.state_dict()["features.0.weight"]
    assert not torch.equal(net.module.state_dict()["features.0.weight"], before)  # all weights learnt
    assert "accuracy" in capsys.readouterr().out


def test_a_killed_fine_tuning_goes_on_to_the_same_network(script, pets, squeezenet, monkeypatch, capsys, tmp_path):
    options = small("finetune_cats_dogs", pets, squeezenet, "--epochs", "2")
    script.main(options)
    whole = models.load(script.FINETUNED / "finetune_cats_dogs_squeezenet1_1.safetensors").module.state_dict()
    for name in ("CHECKPOINTS", "FINETUNED"):
        monkeypatch.setattr(script, name, tmp_path / f"second_{name}")
    saved = training.save

    def killed_after(what, path):
        saved(what, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "save", killed_after)
        script.main(options)
    assert not script.FINETUNED.exists()
    capsys.readouterr()
    script.main(options)
    assert "after epoch 1" in capsys.readouterr().out
    again = models.load(script.FINETUNED / "finetune_cats_dogs_squeezenet1_1.safetensors").module.state_dict()
    assert all(torch.equal(v, again[k]) for k, v in whole.items())


def test_a_part_of_the_pictures_is_drawn_at_random_and_workers_change_nothing(script, pets, squeezenet, capsys):
    """Kaggle's files are sorted, cats first: the first n would be cats only."""
    states = []
    for workers in ("0", "2"):
        script.main(small("finetune_cats_dogs", pets, squeezenet, "--epochs", "1", "--n", "8", "--workers", workers))
        states.append(models.load(script.FINETUNED / "finetune_cats_dogs_squeezenet1_1.safetensors").module.state_dict())
        (script.CHECKPOINTS / "finetune_cats_dogs_squeezenet1_1.pt").unlink()
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    train, _ = script.cats_and_dogs(pets)
    drawn = [train[i] for i in np.random.default_rng(0).permutation(len(train))[:8]]
    assert {p.class_names for p in drawn} == {("cat",), ("dog",)}


def test_voc_is_fine_tuned_for_several_classes(script, tmp_path, squeezenet):
    voc = tmp_path / "VOCdevkit" / "VOC2007"
    for part, first in (("trainval", 0), ("test", 6)):
        stems = [f"{first + i:06d}" for i in range(6)]
        for i, stem in enumerate(stems):
            picture(voc / "JPEGImages" / f"{stem}.jpg", i)
            objects = "".join(
                f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax>"
                "<ymax>20</ymax></bndbox></object>"
                for name in (["cat", "sofa"] if i % 2 else ["person"])
            )
            size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
            (voc / "Annotations").mkdir(exist_ok=True)
            (voc / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        (voc / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (voc / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(stems))
    script.main(small("finetune_voc", tmp_path / "VOCdevkit", squeezenet, "--epochs", "1"))
    net = models.load(script.FINETUNED / "finetune_voc_squeezenet1_1.safetensors")
    assert net.classes == readers.VOC_CLASSES and net.multi_label


def test_severstal_is_fine_tuned_on_its_crops(script, tmp_path, squeezenet):
    rows = ["ImageId,ClassId,EncodedPixels"]
    for i in range(8):
        picture(tmp_path / "train_images" / f"{i}.jpg", i, (512, 256))
        rows.append(f"{i}.jpg,{i % 4 + 1},{' '.join(f'{256 * c + 101} 60' for c in range(100, 140))}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    script.main(small("finetune_severstal", tmp_path, squeezenet, "--epochs", "1"))
    assert models.load(script.FINETUNED / "finetune_severstal_squeezenet1_1.safetensors").classes == readers.STEEL_CLASSES


# ------------------------------------------------------------------------------- heads, bags, slim networks, accuracy


def test_a_head_is_fitted_on_pooled_features_and_goes_on_where_it_was_killed(script, pets, tmp_path, monkeypatch):
    bare = tmp_path / "trunk.pth"
    torch.save(torchvision.models.vgg16(weights=None).features.state_dict(), bare)
    options = ["vgg16_cats_dogs", "--root", str(pets), "--weights", str(bare)]
    script.main(options)
    net = models.load(script.MODELS / "vgg16_cats_dogs.safetensors", weights=bare)
    _, held_out = script.cats_and_dogs(pets)
    said = [net.top(net.preprocess(p.picture), 1)[0][0] for p in held_out]
    assert net.classes == readers.PET_CLASSES and said == [p.class_names[0] for p in held_out] and len(said) > 1
    row = pd.read_csv(script.MODELS / "models.csv").iloc[0]
    assert (row["network"], row["metric"], row["value"]) == ("vgg16_cats_dogs", "accuracy", 1.0)
    monkeypatch.setattr(models.Classifier, "preprocess", lambda *_: pytest.fail("features that are kept are made again"))
    script.main(options)
    assert len(pd.read_csv(script.MODELS / "models.csv")) == 1  # measured anew, in place of the old value


def test_logistic_regression_finds_a_boundary_whatever_the_scale_of_the_features(script):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=g) * torch.tensor([1, 10, 0.1, 1, 1]) + torch.tensor([0, 50, 0, 0, 3.0])
    y = (x[:, 1] > 50).long()
    weight, bias = script.logistic(x, y, False)
    assert weight.shape == (2, 5) and training.accuracy(x @ weight.T + bias, y) > 0.95
    several = torch.stack([y, 1 - y, (x[:, 0] > 0).long()], 1).float()
    weight, bias = script.logistic(x, several, True)
    assert weight.shape == (3, 5) and training.mean_average_precision(x @ weight.T + bias, several) > 0.95


def test_small_runs_of_the_drawn_recipes_store_what_loads(script, monkeypatch):
    script.main(["slim_vgg16_steel", "--n", "24", "--epochs", "1"])
    script.main(["slim_vgg16_scenes_multi", "--n", "40", "--epochs", "1"])
    assert models.load(script.MODELS / "slim_vgg16_steel.safetensors").module.features[0].out_channels == 8
    assert models.load(script.MODELS / "slim_vgg16_scenes_multi.safetensors").multi_label
    script.main(["attention_mil_digits", "--n", "32", "--epochs", "2"])
    monkeypatch.setattr(mil, "data_folder", lambda: script.MODELS.parent)
    assert mil.trained().classifier.in_features == 64


def test_accuracy_is_measured_on_pictures_of_imagenets_classes(script, tmp_path):
    picture(tmp_path / "set" / "val" / "a.JPEG", 0)
    picture(tmp_path / "set" / "val" / "b.JPEG", 1)
    (tmp_path / "set" / "val.txt").write_text("a.JPEG 3\nb.JPEG 5\n")
    script.main(["measure", "--network", "efficientnet_lite0", "--root", str(tmp_path / "set"), "--on", "noise"])
    row = pd.read_csv(script.MODELS / "models.csv").iloc[0]
    assert (row["network"], row["metric"], row["n"], row["on"]) == ("efficientnet_lite0", "top-1 accuracy", 2, "noise")


# ------------------------------------------------------------------------------------------------------- bad input


def test_bad_input_is_explained(script, tmp_path, capsys):
    with pytest.raises(SystemExit, match="vgg16_voc needs --root"):
        script.main(["vgg16_voc"])
    with pytest.raises(SystemExit):
        script.main(["slim_vgg61"])
    assert "invalid choice: 'slim_vgg61'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["slim_vgg16_steel", "--lr", "0.1"])
    assert "slim_vgg16_steel does not take --lr" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["slim_vgg16_steel", "--epochs", "0"])
    assert "a whole number from 1 on was expected, not '0'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="kaggle.com/c/dogs-vs-cats"):
        script.main(["vgg16_cats_dogs", "--root", str(tmp_path / "nowhere")])


def test_a_checkpoint_of_other_settings_is_refused(script, pets, squeezenet):
    script.main(small("finetune_cats_dogs", pets, squeezenet, "--epochs", "1"))
    with pytest.raises(SystemExit, match="other settings .*lr"):
        script.main(small("finetune_cats_dogs", pets, squeezenet, "--epochs", "1", "--lr", "0.5"))
