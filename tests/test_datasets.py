"""datasets: made copies of the true folder formats, whole and damaged; real pictures where the sibling folder has some."""

import csv
import json
import os
import pickle
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from skimage.draw import polygon2mask

from helpers import annotations, data, datasets, drawn, models, readers
from helpers.annotations import coco_counts, rle_decode, rle_encode
from helpers.data import Photo, Thing
from helpers.datasets import labels, load, pairs, split
from helpers.readers import IMAGENET_CLASSES

REAL = Path(__file__).parents[2] / "shared" / "data"


def real(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"no real pictures of {name} beside the checkout")
    return REAL / name


def jpg(path, size=(40, 30), colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "JPEG")
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def names_of(photos):
    return [photo.name for photo in photos]


# -------------------------------------------------------------------------------------------------------- ImageNet

WNIDS = [f"n{10_000_000 + 37 * k}" for k in range(1000)]  # in the order of the classes, as ImageNet's are
MAPPING = "".join(f"{wnid} {name}, something else\n" for wnid, name in zip(WNIDS, IMAGENET_CLASSES, strict=True))
VAL = "ILSVRC2012_val_{:08d}"


def flat(root, n=3, folder="val"):
    for k in range(1, n + 1):
        jpg(root / folder / f"{VAL.format(k)}.JPEG")
    return root


def devkit(root):
    """meta.mat as ILSVRC2012 has it: ids in another order than the WordNet ids, inner nodes of the tree after them."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    order = np.random.default_rng(0).permutation(1000)
    rows = [(k + 1, WNIDS[order[k]], "some words", 0) for k in range(1000)] + [(1001, "n99999999", "a group", 7)]
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "meta.mat", {"synsets": np.array(rows, dtype=kind)[:, None]}, do_compression=True)
    return order


def test_the_class_names_are_those_of_the_networks():
    assert models.imagenet_classes() == IMAGENET_CLASSES and len(set(IMAGENET_CLASSES)) == 1000


def test_a_thousand_folders_are_in_the_order_of_the_classes(tmp_path):
    for wnid in WNIDS:
        (tmp_path / "val" / wnid).mkdir(parents=True)
    jpg(tmp_path / "val" / WNIDS[0] / "a.JPEG")
    jpg(tmp_path / "val" / WNIDS[999] / "b.JPEG")
    for root in (tmp_path, tmp_path / "val"):
        photos = readers.imagenet(root)
        assert [p.class_names for p in photos] == [("tench",), ("toilet tissue",)]
        assert names_of(photos) == [f"{WNIDS[0]}/a.JPEG", f"{WNIDS[999]}/b.JPEG"]
    assert photos[0].picture.size == (40, 30)


@pytest.mark.parametrize(("name", "content"), [
    ("LOC_synset_mapping.txt", MAPPING), ("synset_words.txt", MAPPING),
    ("imagenet_class_index.json", json.dumps({k: [w, "x"] for k, w in enumerate(WNIDS)})),
    ("map_clsloc.txt", "".join(f"{w} {k} x\n" for k, w in enumerate(reversed(WNIDS), 1))),
])  # fmt: skip
@pytest.mark.parametrize("place", [".", "val", "devkit/data", ".."])
def test_a_part_of_the_folders_needs_a_map(name, content, place, tmp_path):
    root = tmp_path / "copy"
    jpg(root / "val" / WNIDS[5] / "a.JPEG")
    jpg(root / "val" / WNIDS[207] / "b.JPEG")
    with pytest.raises(FileNotFoundError, match=r"2 class folders.*LOC_synset_mapping\.txt, synset_words\.txt, imagenet_class"):
        readers.imagenet(root)
    text(root / place / name, content)
    assert [p.class_names[0] for p in readers.imagenet(root)] == [IMAGENET_CLASSES[5], IMAGENET_CLASSES[207]]


def test_folders_may_be_called_by_class_name(tmp_path):
    for folder in ("tench", "great_white_shark", "Tiger Shark, Galeocerdo cuvieri"):
        jpg(tmp_path / folder / "a.jpg")
    found = {p.name.split("/")[0]: p.class_names[0] for p in readers.imagenet(tmp_path)}
    assert found == {"tench": "tench", "great_white_shark": "great white shark",
                     "Tiger Shark, Galeocerdo cuvieri": "tiger shark"}  # fmt: skip
    jpg(tmp_path / "grate_white_shark" / "a.jpg")
    with pytest.raises(ValueError, match="'grate_white_shark' is none of the 1,000 ImageNet classes; names like it: great white"):
        readers.imagenet(tmp_path)


@pytest.mark.parametrize(("name", "content"), [
    ("val.txt", "{0}.JPEG 5\n{1}.JPEG 0\n{2}.JPEG 999\n"),
    ("val_map.txt", "{0}.JPEG\t{w5}\n{1}.JPEG\t{w0}\n{2}.JPEG\t{w999}\n"),
    ("val.csv", "file,label\n{0}.JPEG,5\n{1}.JPEG,0\n{2}.JPEG,999\n"),
    ("labels.csv", "\ufeff{0},{w5}\r\n{1},{w0}\r\n{2},{w999}\r\n"),
    ("LOC_val_solution.csv",
     "ImageId,PredictionString\n{0},{w5} 11 6 20 15 {w5} 1 1 2 2 \n{1},{w0} 0 0 3 3 \n{2},{w999} 1 1 2 2\n"),
])  # fmt: skip
@pytest.mark.parametrize("place", [".", "val", "deep"])
def test_a_flat_folder_takes_its_labels_from_a_file(name, content, place, tmp_path):
    root = flat(tmp_path, folder="ILSVRC/Data/CLS-LOC/val" if place == "deep" else "val")
    place = "." if place == "deep" else place
    words = [VAL.format(k) for k in (1, 2, 3)]
    text(root / place / name, content.format(*words, w5=WNIDS[5], w0=WNIDS[0], w999=WNIDS[999]))
    if "{w" in content:
        with pytest.raises(FileNotFoundError, match="WordNet ids, which need one of LOC_synset"):
            readers.imagenet(root)
        text(root / "LOC_synset_mapping.txt", MAPPING)
    photos = readers.imagenet(root)
    assert [p.class_names for p in photos] == [(IMAGENET_CLASSES[k],) for k in (5, 0, 999)]
    if "LOC" in name:  # boxes count from 1, ends included
        assert [t.box for t in photos[0].things] == [(10, 5, 20, 15), (0, 0, 2, 2)]
        assert photos[0].mask(IMAGENET_CLASSES[5]).sum() == 104 and photos[1].things[0].box == (0, 0, 3, 3)


def test_the_devkits_ground_truth_counts_classes_its_own_way(tmp_path):
    root = flat(tmp_path)
    text(root / "ILSVRC2012_validation_ground_truth.txt", "490\n361\n1000\n171\n")  # one more than there are pictures
    with pytest.raises(FileNotFoundError, match=r"counts classes as the development kit does: its data/meta\.mat"):
        readers.imagenet(root)
    order = devkit(root / "ILSVRC2012_devkit_t12" / "data")
    by_matlab = [p.class_names[0] for p in readers.imagenet(root)]
    assert by_matlab == [IMAGENET_CLASSES[order[k - 1]] for k in (490, 361, 1000)]
    (root / "ILSVRC2012_devkit_t12/data/meta.mat").unlink()
    text(root / "devkit/map_clsloc.txt", "".join(f"{WNIDS[order[k]]} {k + 1} x\n" for k in range(1000)))
    assert [p.class_names[0] for p in readers.imagenet(root)] == by_matlab


XML = """<annotation>\n<folder>val</folder><size><width>40</width><height>30</height><depth>3</depth></size>{}</annotation>"""
OBJECT = """<object><name>{}</name><truncated>{}</truncated><difficult>{}</difficult>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


def test_the_boxes_of_imagenet_are_read_where_asked_for(tmp_path):
    root = flat(tmp_path, 1)
    text(root / "val.txt", f"{VAL.format(1)}.JPEG 5\n")
    where = root / "Annotations/CLS-LOC/val"
    with pytest.raises(FileNotFoundError, match="the boxes need one of LOC_synset_mapping"):
        readers.imagenet(root, boxes=where)
    text(root / "LOC_synset_mapping.txt", MAPPING)
    with pytest.raises(FileNotFoundError, match=r"val_00000001\.xml"):
        readers.imagenet(root, boxes=where)
    text(where / f"{VAL.format(1)}.xml", XML.format(OBJECT.format(WNIDS[5], 0, 0, 1, 1, 4, 5)))
    (photo,) = readers.imagenet(root, boxes=where)
    assert photo.things == (Thing(IMAGENET_CLASSES[5], (0, 0, 4, 5)),) and photo.mask(IMAGENET_CLASSES[5]).sum() == 20


@pytest.mark.parametrize(("name", "content", "says"), [
    ("val.txt", "{0}.JPEG 5\n", r"2 pictures in .*val have no label, the first is ILSVRC2012_val_00000002\.JPEG"),
    ("val.txt", "{0}.JPEG 5\n{0}.JPEG 6\n", r"val\.txt has ILSVRC2012_val_00000001\.JPEG twice, the second time on line 2"),
    ("val.txt", "{0}.JPEG 1000\n", "has the label '1000'; WordNet ids or indices 0 to 999 were expected"),
    ("val.txt", "{0}.JPEG 5\n{1}.JPEG dog\n", "has the label 'dog'"),
    ("val.txt", "{0}.JPEG\n", r"line 1 of .*val\.txt is 'ILSVRC2012_val_00000001\.JPEG'; a picture and its class"),
    ("val.txt", "{0}.JPEG n00000001\n", "has the label 'n00000001'"),
    ("val.csv", '{0},"5\n', r"val\.csv is no CSV file"),
    ("LOC_val_solution.csv", "ImageId,PredictionString\n{0},{w5} 1 2 3\n", r"line 2 of .*is 'n10000185 1 2 3': groups of a Word"),
    ("LOC_val_solution.csv", "ImageId,PredictionString\n{0},{w5} 1 2 3 x\n", "line 2 of .*could not convert"),
    ("LOC_val_solution.csv", "ImageId,PredictionString\n{0},{w5} 1 2 nan 4\n", "line 2 of .*nan"),
    ("ILSVRC2012_validation_ground_truth.txt", "1\n1001\n3\n", "line 2 of .* is '1001'; an ILSVRC2012 id, 1 to 1000"),
    ("ILSVRC2012_validation_ground_truth.txt", "1\n2\n", "1 pictures in .* have no label"),
])  # fmt: skip
def test_a_wrong_label_file_is_named_with_the_line(name, content, says, tmp_path):
    root = flat(tmp_path)
    devkit(root / "devkit")
    text(root / name, content.format(*[VAL.format(k) for k in (1, 2, 3)], w5=WNIDS[5]))
    with pytest.raises(ValueError, match=says):
        readers.imagenet(root)


@pytest.mark.parametrize(("name", "content", "says"), [
    ("LOC_synset_mapping.txt", MAPPING[:100], "WordNet ids on .* lines; 1,000 were expected"),
    ("synset_words.txt", MAPPING + "n10000000 again\n", "1000 WordNet ids on 1001 lines"),
    ("imagenet_class_index.json", '{"0": ', "is not as expected, .*n01440764"),
    ("imagenet_class_index.json", "[" * 100_000, "is not as expected"),
    ("imagenet_class_index.json", "[1, 2]", "is not as expected"),
    ("imagenet_class_index.json", json.dumps({k: [w] for k, w in enumerate(reversed(WNIDS))}), "does not number the WordNet ids"),
    ("meta.mat", "MATLAB 5.0 MAT-file, or so it says" * 9, "could not be read as the ILSVRC2012 development kit's"),
    ("LOC_synset_mapping.txt", "\udcff\udcfe", "is no text in UTF-8"),
])  # fmt: skip
def test_a_wrong_map_is_named(name, content, says, tmp_path):
    jpg(tmp_path / WNIDS[5] / "a.JPEG")
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=f"{name}.*{says}"):
        readers.imagenet(tmp_path)


def test_an_imagenet_folder_without_labels_or_pictures_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no picture is in .*Get it from https://www\.image-net\.org.*folder with val/n"):
        readers.imagenet(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has pictures and none of LOC_val_solution\.csv, val_map\.txt"):
        readers.imagenet(flat(tmp_path))
    jpg(tmp_path / "small/n00000001/a.jpg")
    text(tmp_path / "small/LOC_synset_mapping.txt", MAPPING)
    with pytest.raises(ValueError, match="the folder 'n00000001' is none of the 1,000"):
        readers.imagenet(tmp_path / "small")


@pytest.fixture
def reads(monkeypatch):
    """How often a picture was read, and none decoded behind our back."""
    seen = []
    true = data.read_image
    monkeypatch.setattr(data, "read_image", lambda path, **settings: seen.append(path) or true(path, **settings))
    monkeypatch.setattr("helpers.data.read_image", data.read_image)
    return seen


def test_opening_many_pictures_reads_none_and_takes_little(tmp_path, reads):
    (tmp_path / "val").mkdir()
    for k in range(1, 5001):
        (tmp_path / "val" / f"{VAL.format(k)}.JPEG").touch()
    text(tmp_path / "val.txt", "".join(f"{VAL.format(k)}.JPEG {k % 1000}\n" for k in range(1, 50_001)))
    start = time.perf_counter()
    tracemalloc.start()
    photos = load("imagenet", tmp_path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(photos) == 5000 and not reads
    assert kept < 5000 * 2500 and peak < 50e6 and time.perf_counter() - start < 10
    with pytest.raises(ValueError, match=r"JPEG could not be read as a picture"):  # they are of zero bytes
        photos[0].picture  # noqa: B018
    assert len(reads) == 1


# ---------------------------------------------------------------------------------------------------- Dogs vs Cats


@pytest.mark.parametrize("deep", ["", "train"])
def test_dogs_and_cats_of_kaggle(deep, tmp_path):
    for name in ("dog.0", "cat.10", "cat.2"):
        jpg(tmp_path / "train" / deep / f"{name}.jpg")
    for name in ("10", "9", "1"):
        jpg(tmp_path / "test1" / deep.replace("train", "test1") / f"{name}.jpg")
    photos = readers.dogs_vs_cats(tmp_path)
    assert [p.class_names for p in photos] == [("cat",), ("cat",), ("dog",)]
    assert names_of(photos) == ["cat.2.jpg", "cat.10.jpg", "dog.0.jpg"] and photos[0].picture.size == (40, 30)
    test = readers.dogs_vs_cats(tmp_path, "test")
    assert names_of(test) == ["1.jpg", "9.jpg", "10.jpg"] and {p.class_names for p in test} == {()}
    assert names_of(readers.dogs_vs_cats(tmp_path / "train")) == names_of(photos)


@pytest.mark.parametrize("folder", ["training_set/{}s", "training_set/training_set/{}s", "PetImages/{}"])
def test_dogs_and_cats_in_folders(folder, tmp_path):
    for kind in ("cat", "dog"):
        jpg(tmp_path / folder.format(kind) / f"{kind}.4001.jpg")
        jpg(tmp_path / "test_set" / f"{kind}s" / f"{kind}.7.jpg")
    assert [p.class_names[0] for p in readers.dogs_vs_cats(tmp_path)] == ["cat", "dog"]
    assert names_of(readers.dogs_vs_cats(tmp_path, "test")) == ["cats/cat.7.jpg", "dogs/dog.7.jpg"]


@pytest.mark.parametrize(("names", "error", "says"), [
    ([], FileNotFoundError, r"has no folder train or .*Get it from https://www\.kaggle\.com/c/dogs-vs-cats.*train/cat\.0\.jpg"),
    (["train/cat.0.txt"], FileNotFoundError, "no picture is in .*train"),
    (["train/cat.0.jpg", "train/holiday.jpg"], ValueError, r"holiday\.jpg is neither cat nor dog by its name"),
    (["train/cats/dog.1.jpg"], ValueError, r"dog\.1\.jpg is a dog by its name and a cat by its folder"),
    (["train/birds/a.jpg"], ValueError, "has the folder 'birds'; cats and dogs were expected"),
])  # fmt: skip
def test_what_is_neither_dog_nor_cat_is_named(names, error, says, tmp_path):
    for name in names:
        jpg(tmp_path / name)
    with pytest.raises(error, match=says):
        readers.dogs_vs_cats(tmp_path)


def test_a_split_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match="split is 'train' or 'test', not 'validation'"):
        readers.dogs_vs_cats(tmp_path, "validation")
    with pytest.raises(ValueError, match="split is one of train, val, trainval, test, not 'minival'"):
        readers.voc2007(tmp_path, "minival")


# ------------------------------------------------------------------------------------------------- PASCAL VOC 2007


def voc(tmp_path, objects, names=("000001",), split="test"):
    """VOCdevkit with one annotation, repeated for each name."""
    base = tmp_path / "VOCdevkit" / "VOC2007"
    text(base / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in names))
    for name in names:
        jpg(base / "JPEGImages" / f"{name}.jpg")
        text(base / "Annotations" / f"{name}.xml", XML.format("".join(OBJECT.format(*o) for o in objects)))
    return base


def test_voc_boxes_count_from_one_and_include_their_ends(tmp_path):
    base = voc(tmp_path, [("dog", 1, 0, 1, 1, 40, 30), ("cat", 0, 1, 3, 5, 3, 5), ("cat", 0, 0, 10, 10, 12, 13)])
    for root in (tmp_path, tmp_path / "VOCdevkit", base, str(base)):
        (photo,) = readers.voc2007(root)
    assert [t.box for t in photo.things] == [(0, 0, 40, 30), (2, 4, 3, 5), (9, 9, 12, 13)]
    assert [(t.difficult, t.truncated) for t in photo.things] == [(False, True), (True, False), (False, False)]
    assert photo.class_names == ("dog", "cat") and photo.name == "000001" and photo.mask("dog").all()
    mask = photo.mask("cat")
    assert mask.sum() == 1 + 12 and mask[4, 2] == 1 and mask[9:13, 9:12].all()
    assert photo.mask("cat", difficult=False).sum() == 12


def test_voc_pictures_come_in_the_order_of_their_list(tmp_path):
    voc(tmp_path, [("dog", 0, 0, 1, 1, 9, 9)], names=("000009", "000002"), split="trainval")
    assert names_of(readers.voc2007(tmp_path, "trainval")) == ["000009", "000002"]
    with pytest.raises(FileNotFoundError, match=r"no .*Main.test\.txt\. Get it from http://host\.robots\.ox.*VOCdevkit/VOC2007"):
        readers.voc2007(tmp_path)


def test_a_box_beyond_the_picture_is_clipped_and_one_outside_left_out(tmp_path):
    voc(tmp_path, [("dog", 0, 0, 30, 20, 99, 99), ("cat", 0, 0, 50, 1, 60, 9), ("cow", 0, 0, 9, 9, 5, 5)])
    with pytest.warns(UserWarning, match=r"voc2007: 2 objects left out, of which no pixel is in .*: 'cat' in .*000001\.xml"):
        (photo,) = readers.voc2007(tmp_path)
    assert [t.box for t in photo.things] == [(29, 19, 40, 30)] and photo.class_names == ("dog",)


BOMB = '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]><annotation>&lol2;</annotation>'


@pytest.mark.parametrize(("content", "says"), [
    (b"", "could not be read as XML: no element found"),
    (b"<annotation><size>", "could not be read as XML: no element found"),
    (b"<annotation></size>", "could not be read as XML: mismatched tag"),
    (b"\x00\x01\x02", "could not be read as XML"),
    (BOMB.encode(), "it has a DOCTYPE, which no annotation needs"),
    (BOMB.replace("?>", ' encoding="UTF-16"?>', 1).encode("utf-16"), "it has a DOCTYPE"),
    (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "it has a DOCTYPE"),
    (b"<annotation>&lol;</annotation>", "undefined entity"),
    (b"<annotation/>", "no width, height"),
    (XML.format("<object><name>dog</name></object>").encode(), "no xmin, ymin, xmax, ymax"),
    (XML.format(OBJECT.format("dog", 0, 0, 1, "x", 3, 4)).encode(), "could not convert string to float: 'x'"),
    (XML.format(OBJECT.format("dog", 0, 0, 1, "nan", 3, 4)).encode(), "nan"),
    (XML.format(OBJECT.format("dog", 0, 0, "", 2, 3, 4)).encode(), "not as PASCAL VOC writes them"),
    (XML.format(OBJECT.format("unicorn", 0, 0, 1, 2, 3, 4)).encode(), "class 'unicorn'"),
    (b"<a>" + b" " * 10_000_001 + b"</a>", "it has over 10,000,000 bytes"),
    (b"<a>" * 50_000, "could not be read as XML"),
    (b"<a>" * 50_000 + b"</a>" * 50_000, "no width, height"),
])  # fmt: skip
def test_a_broken_annotation_is_named(content, says, tmp_path):
    base = voc(tmp_path, [])
    (base / "Annotations/000001.xml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"000001\.xml.*{says}"):
        readers.voc2007(tmp_path)


@pytest.mark.parametrize("gone", ["JPEGImages/000002.jpg", "Annotations/000002.xml"])
def test_a_file_that_the_list_names_and_that_is_not_there_is_named(gone, tmp_path):
    base = voc(tmp_path, [], names=("000001", "000002"))
    (base / gone).unlink()
    with pytest.raises(FileNotFoundError, match=rf"test\.txt names 000002, and there is no .*{gone}.*Get it from"):
        readers.voc2007(tmp_path)


@pytest.mark.parametrize(("listed", "error", "says"), [
    ("../../../secret", ValueError, r"test\.txt names '../../../secret\.jpg', which leads out of .*JPEGImages"),
    ("/etc/passwd", ValueError, "names '/etc/passwd.jpg', which leads out of"),
    ("..\\secret", ValueError, "which leads out of"),
    ("a\0b", ValueError, "which leads out of"),
    ("linked", ValueError, r"names 'linked\.jpg', which leads out of"),
    ("000001\n000001", ValueError, "names 000001 twice"),
    ("\n\n", ValueError, r"test\.txt is empty"),
])  # fmt: skip
def test_no_name_in_a_list_leads_out_of_its_folder(listed, error, says, tmp_path):
    base = voc(tmp_path, [])
    jpg(tmp_path / "secret.jpg")
    (base / "JPEGImages/linked.jpg").symlink_to(tmp_path / "secret.jpg")
    text(base / "ImageSets/Main/test.txt", f"{listed}\n")
    with pytest.raises(error, match=says):
        readers.voc2007(tmp_path)


def test_the_folder_itself_may_be_a_link(tmp_path):
    base = voc(tmp_path / "elsewhere", [("dog", 0, 0, 1, 1, 9, 9)])
    os.rename(base / "JPEGImages", tmp_path / "pictures")
    (base / "JPEGImages").symlink_to(tmp_path / "pictures")
    (tmp_path / "here").symlink_to(tmp_path / "elsewhere")
    assert readers.voc2007(tmp_path / "here")[0].picture.size == (40, 30)


def test_a_truncated_or_empty_picture_is_named_when_it_is_asked_for(tmp_path):
    base = voc(tmp_path, [("dog", 0, 0, 1, 1, 9, 9)], names=("000001", "000002"))
    whole = (base / "JPEGImages/000001.jpg").read_bytes()
    (base / "JPEGImages/000001.jpg").write_bytes(whole[: len(whole) // 2])
    (base / "JPEGImages/000002.jpg").write_bytes(b"")
    for photo in readers.voc2007(tmp_path):
        with pytest.raises(ValueError, match=rf"{photo.name}\.jpg could not be read as a picture"):
            photo.picture  # noqa: B018


def test_annotated_pictures_are_not_turned(tmp_path):
    base = voc(tmp_path, [("dog", 0, 0, 1, 1, 40, 30)])
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 30)).save(base / "JPEGImages/000001.jpg", exif=exif)
    (photo,) = readers.voc2007(tmp_path)
    assert photo.picture.size == (40, 30) and photo.mask("dog").all()
    assert data.read_image(base / "JPEGImages/000001.jpg").size == (30, 40)


def test_pairs_pass_over_what_is_difficult_only():
    easy, hard = Thing("cat", (0, 0, 1, 1)), Thing("cat", (0, 0, 1, 1), difficult=True)
    dog = Thing("dog", (0, 0, 1, 1), difficult=True)
    picture = Image.new("RGB", (2, 2))
    a = Photo("a", picture, (easy, hard, dog), class_names=("cat", "dog"))
    b = Photo("b", picture, (hard,), class_names=("cat",))
    c = Photo("c", picture, class_names=("tench",))  # no thing is known: nothing says that it is difficult
    assert [(p.name, k) for p, k in pairs([a, b, c])] == [("a", "cat"), ("c", "tench")]
    every = [(p.name, k) for p, k in pairs([a, b, c], difficult=True)]
    assert every == [("a", "cat"), ("a", "dog"), ("b", "cat"), ("c", "tench")]


# -------------------------------------------------------------------------------------------------- Severstal steel


def test_run_lengths_go_down_the_columns():
    mask = rle_decode("1 2 6 1 11 2", (4, 3))  # pixels 1, 2 | 6 | 11, 12
    assert mask.astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert rle_encode(mask) == "1 2 6 1 11 2"
    assert rle_decode("3 4", (4, 3)).astype(int).tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]]  # across a column's end
    assert not rle_decode("", (4, 3)).any() and rle_encode(np.zeros((4, 3), dtype=bool)) == ""
    assert rle_decode(" 1  12\n", (4, 3)).all() and rle_encode(np.ones((4, 3))) == "1 12"


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_undone_exactly(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 40, 2)) < rng.random()
    assert np.array_equal(rle_decode(rle_encode(mask), mask.shape), mask)


@pytest.mark.parametrize(("code", "says"), [
    ("1 2 3", "pairs of start and length, this one has 3 numbers"),
    ("1 x", "numbers and blanks only, this one is '1 x'"),
    ("1 -2", "numbers and blanks only"),
    ("1.5 2", "numbers and blanks only"),
    ("١ ٢", "numbers and blanks only"),
    ("0 2", r"the run of 2 from 0 is not within the 4 x 3 pixels 1 to 12"),
    ("12 2", "the run of 2 from 12 is not within"),
    ("3 0", "the run of 0 from 3"),
    ("1 " + "9" * 5000, "is not within"),
    ("1 4 4 1", "the run from 4 begins before the one before it ends, at 4"),
    ("6 1 2 1", "the run from 2 begins before"),
])  # fmt: skip
def test_a_wrong_run_length_code_is_explained(code, says):
    with pytest.raises(ValueError, match=says):
        rle_decode(code, (4, 3))


def test_a_mask_to_encode_has_two_dimensions():
    with pytest.raises(ValueError, match=r"a mask is \[H, W\], not \[2, 2, 1\]"):
        rle_encode(np.zeros((2, 2, 1)))


def sheets(root, masks, form="three"):
    """train_images and train.csv with masks {picture: {class: [H, W]}}; every picture's red channel is its column."""
    three, four = "ImageId,ClassId,EncodedPixels\n", "ImageId_ClassId,EncodedPixels\n"
    for name, of_picture in masks.items():
        size = next(iter(of_picture.values())).shape if of_picture else (16, 48)
        ramp = np.broadcast_to(np.arange(size[1], dtype=np.uint8)[None, :, None], (*size, 3))
        (root / "train_images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(ramp.copy()).save(root / "train_images" / name, format="PNG")
        three += "".join(f"{name},{k},{rle_encode(m)}\n" for k, m in of_picture.items())
        four += "".join(f"{name}_{k},{rle_encode(of_picture[k]) if k in of_picture else ''}\n" for k in (1, 2, 3, 4))
    text(root / "train.csv", three if form == "three" else four)
    return root


def patch(y0, y1, x0, x1, size=(16, 48)):
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize("form", ["three", "four"])
def test_steel_sheets_are_cut_into_crops_of_one_defect(form, tmp_path):
    masks = {
        "b_1.jpg": {1: patch(2, 9, 10, 20), 3: patch(0, 4, 40, 48)},  # crop 0: defect 1; crop 1 too; crop 2: defect 3
        "a.jpg": {2: patch(0, 16, 0, 16), 4: patch(8, 10, 12, 14)},  # crop 0 has two: left out
        "c.jpg": {2: patch(3, 4, 16, 17), 4: patch(0, 16, 32, 48)},  # crop 1: one pixel of 256, under a hundredth
        "d.jpg": {},
    }
    root = sheets(tmp_path, masks, form)
    photos = readers.severstal(root, crop=16, balanced=False)
    assert names_of(photos) == ["b_1.jpg#0,0", "b_1.jpg#16,0", "b_1.jpg#32,0", "c.jpg#32,0"]
    assert [p.class_names for p in photos] == [("defect 1",), ("defect 1",), ("defect 3",), ("defect 4",)]
    assert [p.things[0].box for p in photos] == [(10, 2, 16, 9), (0, 2, 4, 9), (8, 0, 16, 4), (0, 0, 16, 16)]
    for photo, corner, whole in zip(photos, (0, 16, 32, 32), (1, 1, 3, 4), strict=True):
        picture = np.array(photo.picture)
        assert picture.shape == (16, 16, 3) and (picture[0, :, 0] == np.arange(corner, corner + 16)).all()
        expected = masks[photo.name.split("#")[0]][whole][:, corner : corner + 16]
        assert np.array_equal(photo.mask(f"defect {whole}").numpy(), expected)
    tiny = readers.severstal(root, crop=16, balanced=False, min_area=0)
    assert "c.jpg#16,0" in names_of(tiny) and len(tiny) == 5
    assert {p.class_names for p in readers.severstal(root, crop=16, min_area=0)} == {(f"defect {k}",) for k in (1, 2, 3, 4)}
    with pytest.raises(ValueError, match="has no crop of class defect 2, so that classes cannot be balanced"):
        readers.severstal(root, crop=16)
    sound = readers.severstal(root, crop=16, balanced=False, normal=True)
    assert [p.name for p in sound if p.class_names == ("normal",)] == [
        "a.jpg#16,0", "a.jpg#32,0", "c.jpg#0,0", "d.jpg#0,0", "d.jpg#16,0", "d.jpg#32,0"]  # fmt: skip
    assert pickle.loads(pickle.dumps(photos[0])).mask("defect 1").sum() == photos[0].mask("defect 1").sum()  # to other processes


def test_balanced_crops_are_drawn_by_seed(tmp_path):
    kinds = [(1, 2, 3), (1, 4)] * 6
    masks = {f"{i}.jpg": {k: patch(0, 9, 16 * x, 16 * x + 16) for x, k in enumerate(of)} for i, of in enumerate(kinds)}
    root = sheets(tmp_path, masks)
    found = [readers.severstal(root, crop=16, seed=seed) for seed in (0, 0, 1)]
    assert names_of(found[0]) == names_of(found[1]) != names_of(found[2])
    assert all(p.class_names for p in found[0])
    counts = pd.Series([p.class_names[0] for p in found[0]]).value_counts()
    assert set(counts) == {6} and set(counts.index) == set(readers.STEEL_CLASSES)


def test_opening_steel_reads_no_picture(tmp_path, reads):
    root = sheets(tmp_path, {"a.jpg": {1: patch(0, 9, 0, 16)}})
    (photo,) = readers.severstal(root, crop=16, balanced=False)
    assert not reads
    photo.picture  # noqa: B018
    assert len(reads) == 1


@pytest.mark.parametrize(("table", "error", "says"), [
    ("a.jpg,1,1 1\n", ValueError, "begins with 'a.jpg,1,1 1'; the header ImageId,ClassId,EncodedPixels or ImageId_ClassId,Enc"),
    ("", ValueError, "begins with ''; the header"),
    ("ImageId,ClassId,EncodedPixels\na.jpg,5,1 1\n", ValueError, r"line 2 of .*train\.csv is 'a\.jpg,5,1 1'; as in the header"),
    ("ImageId,ClassId,EncodedPixels\na.jpg,1\n", ValueError, r"line 2 of .* is 'a\.jpg,1'"),
    ("ImageId_ClassId,EncodedPixels\na.jpg,1 1\n", ValueError, "line 2 of"),
    ("ImageId,ClassId,EncodedPixels\na.jpg,1,1 1\na.jpg,1,2 1\n", ValueError, r"has a\.jpg, class 1, twice, the second time on"),
    ("ImageId,ClassId,EncodedPixels\na.jpg,1,1 1 1\n", ValueError, r"train\.csv, a\.jpg: .*pairs of start and length"),
    ("ImageId,ClassId,EncodedPixels\na.jpg,1,700 100\n", ValueError, r"train\.csv, a\.jpg: the run of 100 from 700 is not with"),
    ("ImageId,ClassId,EncodedPixels\n../a.jpg,1,1 1\n", ValueError, r"train\.csv names '\.\./a\.jpg', which leads out of"),
    ("ImageId,ClassId,EncodedPixels\nb.jpg,1,1 1\n", FileNotFoundError, r"1 pictures of .* not in .*images, the first is b\.jpg"),
    ("ImageId,ClassId,EncodedPixels\na.jpg,1,1 1\n", ValueError, "no crop of 16 x 16 pixels .* a defect that covers 1.0% of it"),
    ('ImageId,ClassId,EncodedPixels\na.jpg,1,"1 1\n', ValueError, "is no CSV file"),
])  # fmt: skip
def test_a_wrong_table_of_defects_is_named_with_the_line(table, error, says, tmp_path):
    root = sheets(tmp_path, {"a.jpg": {}})
    text(root / "train.csv", table)
    with pytest.raises(error, match=says):
        readers.severstal(root, crop=16)


def test_steel_that_is_not_there_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*train_images\. Get it from https://www\.kaggle\.com/c/severstal"):
        readers.severstal(tmp_path)
    (sheets(tmp_path, {"a.jpg": {}}) / "train.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*train\.csv"):
        readers.severstal(tmp_path)
    with pytest.raises(ValueError, match="crop is a side in pixels and min_area a share, 0 to 1; given 0 and 0.01"):
        readers.severstal(tmp_path, crop=0)


# ------------------------------------------------------------------------------------------------------------ COCO


def coco(root, annotations, split="val2014", **more):
    image = {"id": 7, "file_name": "COCO_7.jpg", "width": 10, "height": 9}
    tables = {"images": [image], "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]} | more
    jpg(root / split / "COCO_7.jpg", (10, 9))
    text(root / "annotations" / f"instances_{split}.json", json.dumps(tables | {"annotations": annotations}))
    return root


def one(segmentation, bbox=(0, 0, 10, 9), crowd=0, category=90, **more):
    return {"id": 3, "image_id": 7, "category_id": category, "bbox": bbox, "segmentation": segmentation, "iscrowd": crowd} | more


COUNTS, COMPRESSED = [6, 1, 40, 4, 5, 4, 5, 4, 21], "61X13mN000`0"  # of 9 x 10 pixels; the text as COCO's own tool writes it


def test_coco_runs_go_down_the_columns():
    assert coco_counts(COMPRESSED) == COUNTS
    mask = annotations.mask_of_runs(np.array(COUNTS), (9, 10))
    expected = np.zeros((9, 10), dtype=bool)
    expected[6, 0] = expected[2:6, 5] = expected[2:6, 6] = expected[2:6, 7] = True
    assert np.array_equal(mask, expected)
    assert np.array_equal(rle_decode("7 1 48 4 57 4 66 4", (9, 10)), expected)  # the same in Kaggle's code


def compressed(counts):
    """COCO's text, from its description."""
    out = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            low, value = value & 31, value >> 5
            done = value == (-1 if low & 16 else 0)
            out += chr(48 + low + (0 if done else 32))
            if done:
                break
    return out


@pytest.mark.parametrize("seed", range(10))
def test_compressed_runs_are_undone_exactly(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 10 ** rng.integers(1, 7), rng.integers(1, 50)).tolist()
    assert coco_counts(compressed(counts)) == counts
    assert compressed(COUNTS) == COMPRESSED


@pytest.mark.parametrize("text", ["é", "6 1", "61X", "p", "\x00", "o" * 30, "~"])
def test_wrong_compressed_runs_are_explained(text):
    with pytest.raises(ValueError, match="compressed run length"):
        coco_counts(text)


@pytest.mark.parametrize("split", ["val2014", "val2017"])
@pytest.mark.parametrize("way", ["{split}", "images/{split}", "images"])
def test_coco_objects_of_every_kind(split, way, tmp_path):
    two = [[1, 1, 4, 1, 4, 3, 1, 3], [6, 5, 8, 5, 8, 8, 6, 8]]  # two parts: 3 x 2 and 2 x 3 pixels
    objects = [one(two, (1, 1, 7, 7), category=1), one({"size": [9, 10], "counts": COUNTS}, crowd=1),
               one({"size": [9, 10], "counts": COMPRESSED}, crowd=1), one([], (2, 3, 2, 2))]  # fmt: skip
    coco(tmp_path, objects, split)
    if way != "{split}":
        (tmp_path / way.format(split=split)).parent.mkdir(exist_ok=True)
        os.rename(tmp_path / split, tmp_path / way.format(split=split))
    (photo,) = readers.coco(tmp_path)
    assert photo.class_names == ("person", "toothbrush") and photo.name == "COCO_7.jpg"
    assert [t.box for t in photo.things] == [(1, 1, 8, 8), (0, 0, 10, 9), (0, 0, 10, 9), (2, 3, 4, 5)]
    assert [t.difficult for t in photo.things] == [False, True, True, False]
    person = photo.mask("person")
    assert person.sum() == 12 and person[1:3, 1:4].all() and person[5:8, 6:8].all()
    crowds = [t.mask((9, 10), (9, 10)).numpy() for t in photo.things[1:3]]
    assert np.array_equal(crowds[0], crowds[1]) and crowds[0].sum() == 13
    assert photo.mask("toothbrush", difficult=False).sum() == 2 * 2
    assert pickle.loads(pickle.dumps(photo)).mask("person").sum() == 12


def test_an_outline_of_coco_has_the_pixels_that_scikit_image_finds(tmp_path):
    outline = [0.5, 0.7, 9.2, 1.1, 8.4, 7.9, 5.1, 3.3, 1.6, 8.2]
    coco(tmp_path, [one([outline])])
    mask = readers.coco(tmp_path)[0].mask("toothbrush").numpy()
    points = np.array(outline).reshape(-1, 2)[:, ::-1] - 0.5
    fine = polygon2mask((9, 10), points)
    assert (mask != fine).sum() <= 1 and 25 < mask.sum() < 50


def test_of_several_coco_splits_the_papers_comes_first(tmp_path):
    for name in ("train2017", "val2017", "val2014"):
        coco(tmp_path, [one([])], name)
    assert readers.coco(tmp_path, "train2017") and readers.coco(tmp_path)
    jpg(tmp_path / "val2014" / "not_listed.jpg")
    assert names_of(readers.coco(tmp_path)) == ["COCO_7.jpg"]
    with pytest.raises(FileNotFoundError, match=r"no .*instances_test2015\.json\. Get it from https://cocodataset"):
        readers.coco(tmp_path, "test2015")
    shutil.rmtree(tmp_path / "annotations")
    with pytest.raises(FileNotFoundError, match=r"no .*instances_val2014\.json"):
        readers.coco(tmp_path)
    coco(tmp_path, [], "train2014"), coco(tmp_path, [], "train2017")
    with pytest.raises(ValueError, match="has train2014, train2017: say which split"):
        readers.coco(tmp_path)


def test_coco_boxes_are_clipped_or_left_out(tmp_path):
    coco(tmp_path, [one([], (8, 7, 9, 9)), one([], (20, 0, 5, 5)), one([], (1, 1, 0, 3))])
    with pytest.warns(UserWarning, match="coco: 2 objects left out.*annotation 3 of instances_val2014.json"):
        (photo,) = readers.coco(tmp_path)
    assert [t.box for t in photo.things] == [(8, 7, 10, 9)]


IMAGE = {"id": 7, "file_name": "COCO_7.jpg", "width": 10, "height": 9}


@pytest.mark.parametrize(("annotation", "says"), [
    (one([], (1, 2, 3)), "annotation 3: .*unpack"),
    (one([], (1, 2, 3, "x")), "could not convert"),
    (one([], (1, 2, 3, None)), "annotation 3"),
    (one([], (1, 2, float("nan"), 3)), "nan"),
    (one([], image_id=8), "annotation 3: KeyError"),
    (one([], category=2), "annotation 3: KeyError"),
    (one([[1, 2, 3]]), "no list of x, y"),
    (one([["a", "b"]]), "no list of x, y"),
    (one([[1, 2, 3, 4, 5, 1e30]]), "a point far out of the picture"),
    (one({"size": [9, 10], "counts": [6, 1]}), r"runs of 7 pixels for a size of \[9, 10\], of a picture of \[9, 10\]"),
    (one({"size": [10, 9], "counts": [90]}), r"size of \[10, 9\]"),
    (one({"size": [9, 10], "counts": [100, -10]}), "annotation 3"),
    (one({"size": [9, 10], "counts": "61X13m"}), "end in the middle"),
    (one({"size": [9, 10]}), "KeyError"),
    (one("text"), "no list of x, y"),
    (5, "annotation 5"),
])  # fmt: skip
def test_a_wrong_coco_annotation_is_named(annotation, says, tmp_path):
    with pytest.raises(ValueError, match=rf"instances_val2014\.json, .*{says}"):
        readers.coco(coco(tmp_path, [annotation]))


@pytest.mark.parametrize(("more", "error", "says"), [
    ({"images": [IMAGE, IMAGE]}, ValueError, r"has an image twice, such as COCO_7\.jpg"),
    ({"images": [IMAGE, IMAGE | {"id": 8}]}, ValueError, "has an image twice"),
    ({"images": [IMAGE | {"file_name": "../../secret.jpg"}]}, ValueError, r"names '../../secret\.jpg', which leads out of"),
    ({"images": [IMAGE | {"file_name": "gone.jpg"}]}, FileNotFoundError, r"1 of 1 pictures of instances_val2014\.json are not"),
    ({"images": [IMAGE | {"width": 10**9}]}, ValueError, "image size"),
    ({"images": [{"id": 7}]}, ValueError, "is not as COCO writes instances.*file_name"),
    ({"images": []}, ValueError, "COCO_7|annotation 3|has no images"),
    ({"images": 3}, ValueError, "is not as COCO writes instances"),
    ({"categories": None}, ValueError, "is not as COCO writes instances"),
])  # fmt: skip
def test_wrong_coco_tables_are_named(more, error, says, tmp_path):
    with pytest.raises(error, match=says):
        readers.coco(coco(tmp_path, [one([])], **more))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b'{"images": []}', b"\xff\xfe\x00"])
def test_a_coco_file_that_is_none_is_named(content, tmp_path):
    coco(tmp_path, [])
    (tmp_path / "annotations/instances_val2014.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"instances_val2014\.json is not as COCO writes instances"):
        readers.coco(tmp_path)


YAML = "# classes\npath: .\nnames:\n  0: person\n  1: traffic light  # red\n  2: 'dog'\n\nnc: 3\n"


def yolo(root, boxes=None, outlines=None, classes=YAML):
    jpg(root / "images/a.jpg", (40, 20))
    text(root / "classes.yaml", classes)
    for kind, content in (("object_detection", boxes), ("instance_segmentation", outlines)):
        if content is not None:
            text(root / kind / "a.txt", content)
    return root


def test_coco_in_the_form_of_yolo(tmp_path):
    (photo,) = readers.coco(yolo(tmp_path, "1 0.5 0.5 0.25 0.5\n\n2 0.95 0.5 0.2 0.1\n"))
    assert photo.things == (Thing("traffic light", (15, 5, 25, 15)), Thing("dog", (pytest.approx(34), 9, 40, pytest.approx(11))))
    assert photo.class_names == ("traffic light", "dog") and photo.mask("traffic light").sum() == 100
    (photo,) = readers.coco(yolo(tmp_path, "1 0.5 0.5 0.25 0.5\n", "1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n"))
    assert photo.things[0].polygon == ((10, 5), (20, 5), (20, 15), (10, 15)) and photo.things[0].box == (10, 5, 20, 15)
    assert photo.mask("traffic light").sum() == 100


def test_yolo_class_lists_of_both_forms(tmp_path):
    assert readers._yolo_classes(text(tmp_path / "c.yaml", YAML)) == ["person", "traffic light", "dog"]
    assert readers._yolo_classes(text(tmp_path / "c.yaml", "names:\n- person\n- dog\nother:\n- x\n")) == ["person", "dog"]


def test_outlines_counted_as_coco_does_are_understood(tmp_path):
    """Boxes count classes 0 to 79, outlines 1 to 90: category 17 is the cat, which is class 15."""
    classes = "names:\n" + "".join(f"  {k}: c{k}\n" for k in range(80))
    triangle = "0.2 0.2 0.8 0.2 0.5 0.8"
    yolo(tmp_path, "15 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n", f"1 {triangle}\n17 {triangle}\n", classes)
    assert readers.coco(tmp_path)[0].class_names == ("c0", "c15")
    yolo(tmp_path, "17 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n", f"1 {triangle}\n17 {triangle}\n", classes)
    assert readers.coco(tmp_path)[0].class_names == ("c1", "c17")
    shutil.rmtree(tmp_path / "object_detection")
    text(tmp_path / "instance_segmentation/a.txt", f"90 {triangle}\n1 {triangle}\n")
    assert readers.coco(tmp_path)[0].class_names == ("c79", "c0")


@pytest.mark.parametrize(("boxes", "outlines", "classes", "error", "says"), [
    ("3 0.5 0.5 0.1 0.1\n", None, YAML, ValueError, r"a\.jpg has class 3; .*classes\.yaml has 0 to 2"),
    ("-1 0.5 0.5 0.1 0.1\n", None, YAML, ValueError, "has class -1"),
    ("1 0.5 0.5 0.1\n", None, YAML, ValueError, "has 3 numbers after a class"),
    ("1\n", None, YAML, ValueError, "has 0 numbers after a class"),
    ("0 0.1 0.1 0.1 0.1\n1 0.5 0.5 0.1 x\n", None, YAML, ValueError, r"line 2 of .*a\.txt is '1 0\.5 0\.5 0\.1 x': could"),
    ("1 15 5 25 15\n", None, YAML, ValueError, "shares of width and height, 0 to 1, were expected"),
    ("1 nan 0 0 0\n", None, YAML, ValueError, "shares of width"),
    (None, "1 0.1 0.1 0.5 0.1 0.5\n", YAML, ValueError, "has 5 numbers after a class"),
    (None, None, YAML, FileNotFoundError, "no picture in .*images has a file in object_detection or instance_segmentation"),
    ("", None, "nc: 3\n", ValueError, r"classes\.yaml has no classes under 'names:'"),
    ("", None, "names:\n  0: a\n  2: b\n", ValueError, r"classes\.yaml has class 2 where 1 was expected"),
])  # fmt: skip
def test_a_wrong_yolo_file_is_named(boxes, outlines, classes, error, says, tmp_path):
    with pytest.raises(error, match=says):
        readers.coco(yolo(tmp_path, boxes, outlines, classes))


# --------------------------------------------------------------------------------------------------- load, overview


@pytest.fixture
def folder(tmp_path):
    colours = {"b/zwei – 二.png": "red", "a/one.JPG": "blue", "a/deep/three.png": "lime", "zero.png": "white"}
    for name, colour in colours.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), colour).save(tmp_path / name)
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b/cut.jpg")
    whole = (tmp_path / "b/cut.jpg").read_bytes()
    (tmp_path / "b/cut.jpg").write_bytes(whole[: len(whole) // 2])  # its header is whole
    (tmp_path / "b/broken.jpg").write_bytes(b"no picture")
    (tmp_path / "b/empty.png").touch()
    (tmp_path / "b/notes.txt").write_text("no picture either, and no picture's name")
    return tmp_path


def test_a_folder_is_drawn_by_seed_without_repetition_and_without_what_is_damaged(folder, capsys):
    names = [names_of(load("folder", folder, 3, seed)) for seed in range(8)]
    assert names[0] == names_of(load("folder", str(folder), 3, 0))
    assert all(len(set(n)) == 3 for n in names) and len({tuple(n) for n in names}) > 1
    assert not any("cut" in n for found in names for n in found)
    capsys.readouterr()
    for everything in (None, 0, 4):
        photos = load("folder", folder, everything)
        assert sorted(names_of(photos)) == ["a/deep/three.png", "a/one.JPG", "b/zwei – 二.png", "zero.png"]
    said = capsys.readouterr().out
    assert all(said.count(f"{name} could not be read as a picture") >= 1 for name in ("broken.jpg", "cut.jpg", "empty.png"))
    assert {p.class_names for p in photos} == {("deep",), ("a",), ("b",), ()}
    assert {p.picture.getpixel((0, 0)) for p in photos if p.name.startswith("b/")} == {(255, 0, 0)}


def test_few_pictures_of_a_large_folder_decode_only_those(tmp_path, reads):
    for k in range(40):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{k}.png")
    assert len(load("folder", tmp_path, 5)) == 5 and len(reads) == 5


@pytest.mark.parametrize("n", [5, 99])
def test_more_pictures_than_there_are_is_an_error(n, folder):
    with pytest.raises(ValueError, match=f"{n} pictures were asked for, .* has [45]"):
        load("folder", folder, n)


def test_a_folder_with_damaged_pictures_only_is_an_error(folder):
    for path in folder.rglob("*.*"):
        if path.name != "cut.jpg":
            path.unlink()
    with pytest.raises(ValueError, match="no picture could be read: all of them are damaged"):
        load("folder", folder)
    (folder / "b/cut.jpg").unlink()
    with pytest.raises(ValueError, match="nothing with a picture suffix is there"):
        load("folder", folder)


def test_the_built_in_set_comes_in_its_own_order():
    assert names_of(load("photos")) == list(data.photo_names())
    assert names_of(load("photos", "", 2, seed=9)) == list(data.photo_names()[:2])
    with pytest.raises(ValueError, match="99 pictures were asked for, the built-in set has"):
        load("photos", n=99)


@pytest.mark.parametrize(("name", "says"), [
    ("imagnet", "no data set is called 'imagnet'; did you mean imagenet"),
    ("steal", r"called 'steal'; did you mean steel.*There are: photos, folder, imagenet, dogs_vs_cats, voc2007"),
    ("", "no data set is called ''; There are: photos"),
])  # fmt: skip
def test_an_unknown_set_suggests_a_known_one(name, says):
    with pytest.raises(ValueError, match=says):
        load(name)


FROM_FILES = [name for name, one in datasets.SETS.items() if one.kind == "files"]


@pytest.mark.parametrize("name", FROM_FILES)
def test_a_set_without_its_folder_says_what_it_needs_and_where_it_is_from(name, tmp_path):
    source = datasets.SETS[name].source
    with pytest.raises(ValueError, match=rf"data set '{name}' needs a root \(DATA_ROOT\), a folder with .*{source}"):
        load(name)
    with pytest.raises(FileNotFoundError, match=f"there is no folder .*nowhere. Get it from {source}; it is read from"):
        load(name, tmp_path / "nowhere")
    with pytest.raises((FileNotFoundError, ValueError), match=str(tmp_path)):  # an empty one
        load(name, tmp_path)


def test_sets_from_files_are_drawn_by_seed(tmp_path):
    for k in range(9):
        jpg(tmp_path / f"train/cat.{k}.jpg")
    drawn = [names_of(load("dogs_vs_cats", tmp_path, 4, seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 4
    assert sorted(names_of(load("dogs_vs_cats", tmp_path))) == [f"cat.{k}.jpg" for k in range(9)]


@pytest.mark.parametrize("name", ["scenes", "scenes_multi", "steel"])
def test_drawn_sets_are_drawn_by_seed(name):
    photos = load(name, n=6, seed=3)
    assert len(photos) == 6 and {k for p in photos for k in p.class_names} <= set(datasets.SETS[name].classes)
    again, other = (np.array(load(name, None, 1, seed)[0].picture) for seed in (3, 4))
    assert np.array_equal(again, np.array(photos[0].picture)) and not np.array_equal(again, other)
    several = max(len(p.class_names) for p in load(name, n=30))
    assert (several > 1) == (name == "scenes_multi")


def test_the_table_of_sets_is_whole():
    table = datasets.overview()
    assert list(table["name"]) == list(datasets.SETS)
    assert list(table.columns) == ["name", "what", "pictures", "classes", "annotation", "licence", "source", "paper protocol"]
    assert (table.map(len) > 0).all(axis=None) and table.map(type).eq(str).all(axis=None)
    table = table.set_index("name")
    assert table["classes"][["imagenet", "dogs_vs_cats", "voc2007", "severstal"]].tolist() == ["1000", "2", "20", "4"]


# --------------------------------------------------------------------------------------------- to train on them


def named(*names, classes=("cat",)):
    picture = Image.new("RGB", (2, 2))
    return [Photo(name, picture, class_names=tuple(classes)) for name in names]


def test_a_split_is_stable_when_pictures_come_and_go():
    photos = named(*(f"{k}.jpg" for k in range(4000)))
    train, validation = split(photos, 0.2)
    assert len(train) + len(validation) == 4000 and 720 < len(validation) < 880
    again = split(photos[::-3], 0.2)
    assert set(names_of(again[1])) == set(names_of(photos[::-3])) & set(names_of(validation))
    assert names_of(split(photos, 0.2, seed=1)[1]) != names_of(validation)
    assert set(names_of(validation)) < set(names_of(split(photos, 0.5)[1]))
    assert [len(side) for side in split(photos, 0)] == [4000, 0] and [len(side) for side in split(photos, 1)] == [0, 4000]
    assert names_of(split(named("a.jpg", "b.jpg", "c.jpg", "d.jpg"), 0.5)[1]) == ["c.jpg", "d.jpg"]  # on every machine
    with pytest.raises(ValueError, match="fraction is the share to validate on, 0 to 1, not 1.5"):
        split(photos, 1.5)


def test_crops_of_one_picture_stay_together():
    crops = named(*(f"{k}.jpg#{x},0" for k in range(50) for x in (0, 256, 512)))
    sides = [{p.name.split("#")[0] for p in side} for side in split(crops, 0.5)]
    assert all(sides) and not sides[0] & sides[1]


def test_targets_are_indices_or_many_hot():
    cats, dogs, both, none = (named("x", classes=c)[0] for c in (["cat"], ["dog"], ["dog", "cat"], []))
    classes = ("cat", "cow", "dog")
    assert labels([cats, dogs], classes).tolist() == [0, 2] and labels([cats], classes).dtype == torch.int64
    hot = labels([cats, both, none], classes)
    assert hot.dtype == torch.float32 and hot.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert labels([cats], classes, multi=True).tolist() == [[1, 0, 0]]
    assert labels([], classes, multi=True).shape == (0, 3) and labels([], classes).shape == (0,)
    with pytest.raises(ValueError, match="x shows 2 classes; one each was expected"):
        labels([cats, both], classes, multi=False)
    with pytest.raises(ValueError, match="x shows 'dog', which is none of the classes, such as dogs"):
        labels([cats, dogs], ("cat", "dogs"))
    with pytest.raises(ValueError, match="a class is twice in classes: 'cat'"):
        labels([cats], ("cat", "dog", "cat"))


# ------------------------------------------------------------------------------------------- real pictures and boxes


def test_real_voc_pictures_in_the_true_format(tmp_path):
    source = real("voc2007_5cls")
    with open(source / "boxes.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file)]
    names = sorted({row["image"] for row in rows})[:40]
    base = tmp_path / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations"):
        (base / folder).mkdir(parents=True)
    for name in names:
        shutil.copy(source / "JPEGImages" / name, base / "JPEGImages")
        H, W = data.image_size(source / "JPEGImages" / name)
        of_picture = [[row[k] for k in ("class", "xmin", "ymin", "xmax", "ymax")] for row in rows if row["image"] == name]
        mine = [OBJECT.format(kind, 0, 0, *box) for kind, *box in of_picture]
        xml = XML.replace("<width>40<", f"<width>{W}<").replace("<height>30<", f"<height>{H}<").format("".join(mine))
        text(base / "Annotations" / name.replace("jpg", "xml"), xml)
    text(base / "ImageSets/Main/test.txt", "".join(f"{Path(name).stem}\n" for name in names))
    photos = load("voc2007", tmp_path)
    assert sorted(f"{p.name}.jpg" for p in photos) == names and len(pairs(photos)) >= 40
    for photo, name in pairs(photos)[:20]:
        union = np.zeros(photo.picture.size[::-1], dtype=bool)
        for row in rows:
            if row["image"] == f"{photo.name}.jpg" and row["class"] == name:
                x0, y0, x1, y1 = (int(row[k]) for k in ("xmin", "ymin", "xmax", "ymax"))
                union[y0 - 1 : y1, x0 - 1 : x1] = True
        assert np.array_equal(photo.mask(name).numpy() > 0, union)
    assert labels(photos, readers.VOC_CLASSES, multi=True).sum() == len(pairs(photos))


def test_real_coco_pictures_in_both_forms(tmp_path):
    source = real("coco_val128")
    by_yolo = {p.name: p for p in readers.coco(source)}
    assert len(by_yolo) == 128 and by_yolo["000000000285.jpg"].class_names == ("bear",)
    names = sorted({k for p in by_yolo.values() for k in p.class_names})
    few = [by_yolo[name] for name in sorted(by_yolo)[:30]]
    sizes = {p.name: dict(zip(("width", "height"), p.picture.size, strict=True)) for p in few}
    tables = {
        "images": [{"id": i, "file_name": p.name} | sizes[p.name] for i, p in enumerate(few)],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
        "annotations": [
            {"id": 1000 * i + j, "image_id": i, "category_id": names.index(t.class_name) + 1, "iscrowd": 0,
             "bbox": [t.box[0], t.box[1], t.box[2] - t.box[0], t.box[3] - t.box[1]],
             "segmentation": [[v for point in t.polygon for v in point]]}
            for i, p in enumerate(few) for j, t in enumerate(p.things)],
    }  # fmt: skip
    text(tmp_path / "annotations/instances_val2017.json", json.dumps(tables))
    (tmp_path / "val2017").symlink_to(source / "images")
    for photo, same in zip(readers.coco(tmp_path), few, strict=True):
        assert photo.name == same.name and photo.class_names == same.class_names
        for name in photo.class_names:
            a, b = photo.mask(name), same.mask(name)
            assert (a != b).sum() <= 10 and (a * b).sum() >= 0.98 * b.sum()  # float32 moves lines off centres
    signs = [t.class_name for t in by_yolo["000000000724.jpg"].things]
    assert sorted(signs) == ["car", "stop sign", "stop sign", "truck"]  # as the file of its boxes counts them


def test_real_steel_pictures_in_the_true_format(tmp_path):
    source = real("neu_seg")
    (tmp_path / "train_images").mkdir()
    table, truth = "ImageId,ClassId,EncodedPixels\n", {}
    for path in sorted((source / "images/test").glob("*.jpg"))[:40]:
        shutil.copy(path, tmp_path / "train_images")
        truth[path.name] = np.array(data.read_image(source / "annotations/test" / f"{path.stem}.png"))[..., 0]
        table += "".join(f"{path.name},{k},{rle_encode(truth[path.name] == k)}\n" for k in np.unique(truth[path.name]) if k)
    text(tmp_path / "train.csv", table)
    photos = readers.severstal(tmp_path, crop=100, balanced=False)
    assert len(photos) > 40
    for photo in photos:
        name, _, corner = photo.name.partition("#")
        x, y = map(int, corner.split(","))
        (kind,) = photo.class_names
        crop = truth[name][y : y + 100, x : x + 100]
        assert np.array_equal(photo.mask(kind).numpy() > 0, crop == int(kind[-1])) and set(np.unique(crop)) <= {0, int(kind[-1])}
        assert photo.picture.size == (100, 100)


def test_real_cats_and_dogs_in_both_forms(tmp_path):
    source = real("cats_dogs")
    photos = readers.dogs_vs_cats(source)
    assert len(photos) == 300 and labels(photos, readers.PET_CLASSES).float().mean() == pytest.approx(0.5, abs=0.1)
    (tmp_path / "train").mkdir()
    for photo in photos[::20]:
        shutil.copy(source / "training_set" / photo.name, tmp_path / "train")
    flat = readers.dogs_vs_cats(tmp_path)
    assert [(p.name, p.class_names) for p in flat] == [(p.name.split("/")[1], p.class_names) for p in photos[::20]]
    assert np.array_equal(np.array(flat[3].picture), np.array(photos[60].picture))


def test_real_photographs_in_the_format_of_imagenet(tmp_path):
    source = real("nips2017_ccby")
    rows = pd.read_csv(source / "images.csv")[:25]
    (tmp_path / "val").mkdir()
    for k, name in enumerate(rows["ImageId"], 1):
        shutil.copy(source / "images" / f"{name}.jpg", tmp_path / "val" / f"{VAL.format(k)}.JPEG")
    text(tmp_path / "val.txt", "".join(f"{VAL.format(k)}.JPEG {c - 1}\n" for k, c in enumerate(rows["TrueLabel"], 1)))
    photos = readers.imagenet(tmp_path)
    assert labels(photos, IMAGENET_CLASSES).tolist() == [c - 1 for c in rows["TrueLabel"]]
    assert photos[0].picture.size == (299, 299)


# ------------------------------------------------------------------------------------------------------------ NEU-Seg


def neu(root, values, split="test", name="000001"):
    """A surface of NEU-Seg's with this mask."""
    jpg(root / "images" / split / f"{name}.jpg", size=np.shape(values)[::-1])
    (root / "annotations" / split).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(root / "annotations" / split / f"{name}.png")
    return root


def test_neu_seg_gives_the_pixels_of_each_defect(tmp_path):
    values = np.zeros((20, 30))
    values[2:5, 3:9], values[10:, 20:22] = 1, 3
    neu(tmp_path, values)
    neu(tmp_path, np.zeros((20, 30)), name="000002")  # sound steel
    hurt, sound = readers.neu_seg(tmp_path)
    assert hurt.class_names == ("inclusion", "scratches") and sound.class_names == () and hurt.name == "test/000001"
    assert hurt.things[0].box == (3, 2, 9, 5) and hurt.things[1].box == (20, 10, 22, 20)
    assert hurt.mask("inclusion").equal(torch.from_numpy(values == 1).float()) and float(hurt.mask("scratches").sum()) == 20


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda root: (root / "annotations/test/000001.png").unlink(), FileNotFoundError, "there is no mask .*NEU_Seg"),
        (lambda root: (root / "annotations/test/000001.png").write_bytes(b"no"), ValueError, "could not be read as a mask"),
        (lambda root: neu(root, np.full((20, 30), 7)), ValueError, r"\[H, W\] of 0 to 3 was expected; it is \[20, 30\] up to 7"),
        (lambda root: shutil.rmtree(root / "images"), FileNotFoundError, "there are no pictures in"),
    ],
)
def test_a_wrong_neu_seg_is_named(spoil, error, says, tmp_path):
    spoil(neu(tmp_path, np.ones((20, 30))))
    with pytest.raises(error, match=says):
        readers.neu_seg(tmp_path)


def test_neu_seg_has_two_splits(tmp_path):
    with pytest.raises(ValueError, match="'training' and 'test', not 'val'"):
        readers.neu_seg(tmp_path, "val")


# ------------------------------------------------------------------------------------------- what `load` is asked for


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"root": 50}, TypeError, "root is a folder, not 50: the number of pictures is n="),
        ({"n": "3"}, TypeError, "n is a whole number from 0 on, not '3'"),
        ({"n": -1}, TypeError, "n is a whole number from 0 on, not -1"),
        ({"n": 2.5}, TypeError, "n is a whole number from 0 on, not 2.5"),
        ({"seed": -1}, TypeError, "seed is a whole number from 0 on, not -1"),
        ({"split": "val"}, ValueError, "data set 'scenes' has no split 'val'; it has none"),
    ],
)
def test_what_makes_no_sense_is_named(settings, error, says):
    with pytest.raises(error, match=says):
        load("scenes", **settings)


def test_a_set_is_loaded_by_its_split(tmp_path):
    neu(tmp_path, np.ones((20, 30)), split="training", name="000007")
    neu(tmp_path, np.ones((20, 30)), split="test", name="000001")
    assert names_of(load("neu_seg", tmp_path)) == ["test/000001"]
    assert names_of(load("neu_seg", tmp_path, split="training")) == ["training/000007"]
    with pytest.raises(ValueError, match="data set 'neu_seg' has no split 'val'; it has training, test"):
        load("neu_seg", tmp_path, split="val")


def test_the_tag_of_the_named_scenes_is_right_or_lies():
    own, moved = load("scenes_tagged", n=12), load("scenes_moved_tag", n=12)
    assert [drawn.tag_of(p) for p in own] == [p.class_names[0] for p in own]
    assert all(drawn.tag_of(p) != p.class_names[0] for p in moved) and len(load("scenes")) == 100


def test_a_neu_seg_mask_as_large_as_its_picture_is_asked_for(tmp_path):
    neu(tmp_path, np.ones((20, 30)))
    jpg(tmp_path / "images/test/000001.jpg", size=(40, 40))
    with pytest.raises(ValueError, match=r"000001.png is \[20, 30\], its picture \[40, 40\]"):
        readers.neu_seg(tmp_path)


def test_a_line_with_one_field_in_severstals_table_is_named(tmp_path):
    (tmp_path / "train_images").mkdir()
    text(tmp_path / "train.csv", "ImageId,ClassId,EncodedPixels\njust-one\n")
    with pytest.raises(ValueError, match="line 2 of .*train.csv is 'just-one'"):
        readers.severstal(tmp_path)
