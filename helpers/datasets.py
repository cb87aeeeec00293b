"""Data sets by name: the papers' own, read from the folders in which they are distributed, the reader's, and drawn ones.

A set is a list of `Photo`s that know their files: opening one decodes no picture, and 50,000 of them are a list of names.
Nothing downloads. What a file says is checked before it is used: no name in it leads out of its folder, no XML brings a
DOCTYPE, no number is taken on trust. Boxes are clipped to their picture; objects of which nothing is left are left out,
with a warning that counts them. Pictures that have annotations come as stored, without the turn of an EXIF mark: so the
annotators saw them, and so torchvision reads them.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.io import loadmat
from skimage.draw import polygon
from torch import Tensor
from torchvision.models import ResNet18_Weights
from tqdm.auto import tqdm

from helpers import data, drawn
from helpers.data import IMAGE_SUFFIXES, MAX_PIXELS, Photo, Thing, image_size

Box = tuple[float, float, float, float]

IMAGENET_CLASSES = tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])  # as torchvision spells them
PET_CLASSES = ("cat", "dog")
VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow "
    "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor".split()
)
STEEL_CLASSES = tuple(f"defect {k}" for k in (1, 2, 3, 4))
MAX_ANNOTATION = 10_000_000  # bytes of one XML or MATLAB file: a picture's boxes take a thousandth of that


NEU_CLASSES = ("inclusion", "patches", "scratches")  # values 1, 2, 3 of the masks of NEU-Seg


# ----------------------------------------------------------------------------------------------- what readers share


def _as_stored(path: Path) -> Image.Image:
    return data.read_image(path, upright=False)


def _photo(name: str, path: Path, things: Sequence[Thing] = (), class_names: Sequence[str] = (), credit: str = "") -> Photo:
    return Photo(name, partial(_as_stored, path), tuple(things), credit=credit, class_names=tuple(class_names))


def _classes_of(things: Iterable[Thing]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(t.class_name for t in things))


def _missing(dataset: str, what: str) -> FileNotFoundError:
    one = SETS[dataset]
    return FileNotFoundError(f"{dataset}: {what}. Get it from {one.source}; it is read from a folder with {one.layout}")


def _root(dataset: str, root: str | Path) -> Path:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise _missing(dataset, f"there is no folder {folder}")
    return folder


def _text(path: Path) -> str:
    """A text file. Errors: ValueError that names it where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error


def _table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of a CSV file. Errors: ValueError that names it."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            for row in rows:
                if row:
                    yield rows.line_num, [field.strip() for field in row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV file: {error}") from error


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the pictures and of the sub-folders of a folder, sorted; hidden ones left out."""
    pictures, folders = [], []
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                pictures.append(entry.name)
    return sorted(pictures), sorted(folders)


def _inside(folder: Path, name: str, says: Path) -> Path:
    """The file that an annotation names. Errors: ValueError where it leads out of `folder`, also through a link."""
    path = folder / name
    if re.fullmatch(r"[^/\\\0]+", name) and name not in (".", "..") and not path.is_symlink():
        return path
    real = os.path.realpath(folder)
    if "\0" in name or "\\" in name or not os.path.realpath(path).startswith(real + os.sep):
        raise ValueError(f"{says} names {name!r}, which leads out of {folder}")
    return path


def _clipped(box: Sequence[float], width: float = math.inf, height: float = math.inf) -> Box | None:
    """The part of the box that is in the picture, None if nothing is. Errors: ValueError for a number that is none."""
    if not all(math.isfinite(v) for v in box):
        raise ValueError(f"box {list(box)}")
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _left_out(dataset: str, notes: list[str]) -> None:
    if notes:
        warnings.warn(f"{dataset}: {len(notes)} objects left out, of which no pixel is in the picture: {notes[0]}", stacklevel=3)


def _numbered(name: str) -> tuple[str | int, ...]:
    """Sort key by which 2.jpg comes before 10.jpg."""
    return tuple(int(part) if part.isdecimal() and part.isascii() else part for part in re.split(r"([0-9]{1,18})", name))


def _runs(counts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`[H, W]` of False and True from the lengths of runs, the first of False, down the columns from left to right."""
    H, W = size
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(W, H).T


def _parts(outlines: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """`[H, W]`: the union of outlines `[points, 2]`, x and y at pixel edges; a pixel is in if its centre is."""
    mask = np.zeros(size, dtype=bool)
    for outline in outlines:
        x, y = (np.asarray(outline, dtype=np.float64) - 0.5).T
        mask[polygon(y, x, size)] = True
    return mask


# ------------------------------------------------------------------------------------------------------ XML of VOC


def _xml(path: Path) -> ElementTree.Element:
    """The root of an XML file. Errors: ValueError that names a file that is broken, too large, or has a DOCTYPE."""

    def refuse(*_: object) -> None:
        raise ValueError("it has a DOCTYPE, which no annotation needs and which can hide a bomb")

    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        if path.stat().st_size > MAX_ANNOTATION:
            raise ValueError(f"it has over {MAX_ANNOTATION:,} bytes")
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except (expat.ExpatError, ValueError, AssertionError) as error:
        raise ValueError(f"{path} could not be read as XML: {error}") from error


def _voc_things(path: Path, notes: list[str], names: dict[str, str] | None = None) -> list[Thing]:
    """The objects of a VOC annotation; `names` translates what it calls them. Its boxes count pixels from 1, ends included."""

    def number(element: ElementTree.Element | None, *keys: str) -> list[float]:
        found = [element.findtext(key) if element is not None else None for key in keys]
        if None in found:
            raise ValueError(f"no {', '.join(keys)}")
        return [float(value or "") for value in found]

    tree, things = _xml(path), []
    try:
        W, H = number(tree.find("size"), "width", "height")
        for thing in tree.iter("object"):
            name = (thing.findtext("name") or "").strip()
            if names is not None and name not in names:
                raise ValueError(f"class {name!r}")
            x0, y0, x1, y1 = number(thing.find("bndbox"), "xmin", "ymin", "xmax", "ymax")
            box = _clipped((x0 - 1, y0 - 1, x1, y1), W, H)
            if box is None:
                notes.append(f"{name!r} in {path}")
                continue
            marks = [thing.findtext(mark, "0").strip() == "1" for mark in ("difficult", "truncated")]
            things.append(Thing(names[name] if names else name, box, difficult=marks[0], truncated=marks[1]))
    except ValueError as error:
        raise ValueError(f"{path} has an object or size that is not as PASCAL VOC writes them: {error}") from error
    return things


# -------------------------------------------------------------------------------------------------------- ImageNet

WNID = re.compile(r"n[0-9]{8}")
IMAGENET_FOLDERS = ("val", "ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val", "ILSVRC2012_img_val", ".")
IMAGENET_MAPS = ("LOC_synset_mapping.txt", "synset_words.txt", "imagenet_class_index.json", "map_clsloc.txt", "meta.mat")
IMAGENET_LABELS = (
    "LOC_val_solution.csv",
    "val_map.txt",
    "val.txt",
    "val.csv",
    "labels.csv",
    "ILSVRC2012_validation_ground_truth.txt",
)
DEVKIT = ("", "devkit", "devkit/data", "data", "ILSVRC2012_devkit_t12/data")


def imagenet(root: str | Path, *, boxes: str | Path | None = None) -> list[Photo]:
    """The ImageNet (ILSVRC2012) validation pictures, or some of them, classes as torchvision spells them.

    root: one folder per class, called by WordNet id or by class name; or ILSVRC2012_val_00000001.JPEG … in one folder, with
    one of IMAGENET_LABELS in it or above it (`LOC_val_solution.csv` brings boxes). WordNet ids are in the order of the
    classes where all 1,000 are there; with fewer, one of IMAGENET_MAPS is needed. boxes: the folder of ILSVRC's XML files.
    Which pictures are there decides: labels of others are passed over.
    Errors: FileNotFoundError for what is missing; ValueError for a picture without a label, a class that is none of the
    1,000, a label file that says two things of one picture.
    """
    top = _root("imagenet", root)
    base = next((top / way for way in IMAGENET_FOLDERS if (top / way).is_dir() and any(_entries(top / way))), top)
    pictures, folders = _entries(base)
    above = [base, *base.parents]
    above = above[: above.index(top) + 3] if top in above else above[:3]
    places = [place / kit for place in above for kit in DEVKIT]
    found: list[tuple[str, str, list[Box]]] = []  # name, class, boxes
    if pictures:
        labels = _imagenet_labels(places)
        unknown = [name for name in pictures if Path(name).stem not in labels]
        if unknown:
            raise ValueError(f"{len(unknown)} pictures in {base} have no label, the first is {unknown[0]}")
        found = [(name, label, known) for name in pictures for label, known in [labels[Path(name).stem]]]
    else:
        called = _imagenet_folders(folders, places)
        found = [(f"{folder}/{name}", called[folder], []) for folder in folders for name in _entries(base / folder)[0]]
    if not found:
        raise _missing("imagenet", f"no picture is in {base}")
    notes: list[str] = []
    names = _wnids(places) if boxes is not None else None
    if boxes is not None and names is None:
        raise _missing("imagenet", f"the boxes need one of {', '.join(IMAGENET_MAPS)}")
    photos = []
    for name, class_name, known in found:
        things = [Thing(class_name, box) for box in known]
        if boxes is not None:
            xml = Path(boxes) / f"{Path(name).stem}.xml"
            if not xml.is_file():
                raise _missing("imagenet", f"there is no {xml}")
            things = _voc_things(xml, notes, names)
        photos.append(_photo(name, base / name, things, (class_name,)))
    _left_out("imagenet", notes)
    return photos


def _first_file(places: Iterable[Path], names: Sequence[str]) -> Path | None:
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def _wnids(places: Sequence[Path]) -> dict[str, str] | None:
    """Class name of every WordNet id, from the first map that is there; None without one."""
    path = _first_file(places, IMAGENET_MAPS)
    if path is None:
        return None
    if path.suffix == ".mat":
        wnids = list(_devkit(path).values())
    elif path.suffix == ".json":
        try:
            index = {int(k): str(v[0]) for k, v in json.loads(_text(path)).items()}
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise ValueError(f'{path} is not as expected, {{"0": ["n01440764", "tench"], …}}: {error}') from error
        wnids = [index[k] for k in sorted(index)]
        if wnids != sorted(wnids):
            raise ValueError(f"{path} does not number the WordNet ids in their order")
    else:
        wnids = [line.split()[0] for line in _text(path).splitlines() if line.strip()]
    if len(set(wnids)) != 1000 or len(wnids) != 1000 or not all(WNID.fullmatch(w) for w in wnids):
        raise ValueError(f"{path} has {len(set(wnids))} WordNet ids on {len(wnids)} lines; 1,000 were expected")
    return dict(zip(sorted(wnids), IMAGENET_CLASSES, strict=True))


def _devkit(path: Path) -> dict[int, str]:
    """WordNet id of every ILSVRC2012 id 1 … 1000, from the development kit's meta.mat or map_clsloc.txt."""
    try:
        if path.suffix != ".mat":
            return {int(number): wnid for wnid, number, *_ in (line.split() for line in _text(path).splitlines() if line.strip())}
        if path.stat().st_size > MAX_ANNOTATION:
            raise ValueError(f"it has over {MAX_ANNOTATION:,} bytes")
        synsets = loadmat(str(path), squeeze_me=True)["synsets"]
        return {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if int(s["ILSVRC2012_ID"]) <= 1000}
    except Exception as error:  # a damaged MATLAB file can raise nearly anything
        raise ValueError(f"{path} could not be read as the ILSVRC2012 development kit's: {error}") from error


def _class_of(name: str) -> str:
    """The ImageNet class of that name: letter case, underscores and further synonyms after a comma aside."""
    known = {c.lower(): c for c in IMAGENET_CLASSES}
    plain = name.replace("_", " ").strip().lower()
    for one in (plain, plain.split(",")[0].strip()):
        if one in known:
            return known[one]
    near = difflib.get_close_matches(plain, known, n=3, cutoff=0.5)
    raise ValueError(f"{name!r} is none of the 1,000 ImageNet classes; names like it: {', '.join(near) or 'none'}")


def _imagenet_folders(folders: Sequence[str], places: Sequence[Path]) -> dict[str, str]:
    """Class name of every folder."""
    ids = [folder for folder in folders if WNID.fullmatch(folder)]
    called = dict(zip(ids, IMAGENET_CLASSES, strict=True)) if len(ids) == 1000 else _wnids(places) if ids else {}
    if called is None:
        what = f"{len(ids)} class folders are called by WordNet id, such as {ids[0]}; which class is which is not known"
        raise _missing("imagenet", f"{what} without one of {', '.join(IMAGENET_MAPS)}")
    for folder in folders:
        if folder in ids and folder not in called:
            raise ValueError(f"the folder {folder!r} is none of the 1,000 ImageNet classes")
    return {folder: called[folder] if folder in ids else _class_of(folder) for folder in folders}


def _imagenet_labels(places: Sequence[Path]) -> dict[str, tuple[str, list[Box]]]:
    """Class name and boxes of every picture, by the stem of its file."""
    path = _first_file(places, IMAGENET_LABELS)
    if path is None:
        raise _missing("imagenet", f"{places[0]} has pictures and none of {', '.join(IMAGENET_LABELS)} with their classes")
    names: dict[str, str] | None = None
    labels: dict[str, tuple[str, list[Box]]] = {}

    def class_name(label: str) -> str:
        nonlocal names
        if WNID.fullmatch(label):
            if names is None:
                names = _wnids(places)
            if names is None:
                raise _missing("imagenet", f"{path} has WordNet ids, which need one of {', '.join(IMAGENET_MAPS)}")
            if label in names:
                return names[label]
        elif re.fullmatch("[0-9]{1,4}", label) and int(label) < 1000:
            return IMAGENET_CLASSES[int(label)]
        raise ValueError(f"{path} has the label {label!r}; WordNet ids or indices 0 to 999 were expected")

    if path.name.startswith("ILSVRC2012_validation"):
        kit = _first_file(places, ("meta.mat", "map_clsloc.txt"))
        if kit is None:
            raise _missing(
                "imagenet", f"{path} counts classes as the development kit does: its data/meta.mat is needed beside it"
            )
        wnids = _devkit(kit)
        for number, line in enumerate(_text(path).split(), 1):
            if not re.fullmatch("[0-9]{1,4}", line) or int(line) not in wnids:
                raise ValueError(f"line {number} of {path} is {line!r}; an ILSVRC2012 id, 1 to 1000, was expected")
            labels[f"ILSVRC2012_val_{number:08d}"] = (class_name(wnids[int(line)]), [])
        return labels
    rows = _table(path) if path.suffix == ".csv" else ((i, line.split()) for i, line in enumerate(_text(path).splitlines(), 1))
    for number, row in rows:
        if not row or (number == 1 and len(row) > 1 and not (WNID.match(row[1]) or row[1].isdecimal())):
            continue  # an empty line, or the header
        if len(row) < 2:
            raise ValueError(f"line {number} of {path} is {row[0]!r}; a picture and its class were expected")
        stem, label = Path(row[0]).stem, row[1]
        known: list[Box] = []
        if path.name == "LOC_val_solution.csv":
            words = label.split()
            try:
                if len(words) % 5 or not words:
                    raise ValueError("groups of a WordNet id and four numbers were expected")
                for k in range(0, len(words), 5):
                    x0, y0, x1, y1 = map(float, words[k + 1 : k + 5])
                    box = _clipped((x0 - 1, y0 - 1, x1, y1))
                    known += [box] if box else []
            except ValueError as error:
                raise ValueError(f"line {number} of {path} is {label[:60]!r}: {error}") from error
            label = words[0]
        if stem in labels:
            raise ValueError(f"{path} has {row[0]} twice, the second time on line {number}")
        labels[stem] = (class_name(label), known)
    return labels


# ---------------------------------------------------------------------------------------------------- Dogs vs Cats


def dogs_vs_cats(root: str | Path, split: str = "train") -> list[Photo]:
    """Kaggle's Dogs vs. Cats: train/cat.0.jpg, train/dog.0.jpg, … and test1/1.jpg, … (no labels), in order of number.

    Also in sub-folders `cats` and `dogs` of training_set and test_set, and unpacked one folder deeper than meant.
    split: "train" or "test". Errors: FileNotFoundError; ValueError for a picture that is neither, or in the wrong folder.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is 'train' or 'test', not {split!r}")
    top = _root("dogs_vs_cats", root)
    meant = {"train": ("train", "training_set", "PetImages"), "test": ("test1", "test", "test_set")}[split]
    base = next((top / name for name in meant if (top / name).is_dir()), top if top.name in meant else None)
    if base is None:
        raise _missing("dogs_vs_cats", f"{top} has no folder {' or '.join(meant)}")
    base = next((base / name for name in meant if (base / name).is_dir()), base)
    kinds = {"cat": "cat", "cats": "cat", "dog": "dog", "dogs": "dog"}
    pictures, folders = _entries(base)
    wrong = [folder for folder in folders if folder.lower() not in kinds]
    if wrong:
        raise ValueError(f"{base} has the folder {wrong[0]!r}; cats and dogs were expected")
    files = pictures + [f"{folder}/{name}" for folder in folders for name in _entries(base / folder)[0]]
    photos = []
    for name in sorted(files, key=_numbered):
        folder, _, file = name.rpartition("/")
        said = {kinds[folder.lower()]} if folder else set()
        prefix = file.split(".")[0].lower()
        said |= {kinds[prefix]} if prefix in kinds else set()
        if len(said) > 1:
            raise ValueError(f"{base / name} is a {kinds[prefix]} by its name and a {kinds[folder.lower()]} by its folder")
        if not said and split == "train":
            raise ValueError(f"{base / name} is neither cat nor dog by its name; cat.0.jpg, dog.0.jpg, … were expected")
        photos.append(Photo(name, base / name, class_names=tuple(said)))
    if not photos:
        raise _missing("dogs_vs_cats", f"no picture is in {base}")
    return photos


# ------------------------------------------------------------------------------------------------- PASCAL VOC 2007


def voc2007(root: str | Path, split: str = "test") -> list[Photo]:
    """PASCAL VOC 2007 with its boxes and the marks `difficult` and `truncated`, in the order of the split's list.

    root: the folder VOCdevkit, VOC2007 in it, or the one that VOCdevkit is in. split: "train", "val", "trainval" or "test".
    Errors: FileNotFoundError for a list, picture or annotation that is missing; ValueError for one that is not as it should be.
    """
    splits = ("train", "val", "trainval", "test")
    if split not in splits:
        raise ValueError(f"split is one of {', '.join(splits)}, not {split!r}")
    top = _root("voc2007", root)
    ways = [top / way for way in (".", "VOC2007", "VOCdevkit/VOC2007")]
    base = next((way for way in ways if (way / "JPEGImages").is_dir()), None)
    if base is None:
        raise _missing("voc2007", f"{top} has no VOCdevkit/VOC2007/JPEGImages")
    listed = base / "ImageSets" / "Main" / f"{split}.txt"
    if not listed.is_file():
        raise _missing("voc2007", f"there is no {listed}")
    photos, notes = [], list[str]()
    for name, times in Counter(line.split()[0] for line in _text(listed).splitlines() if line.strip()).items():
        if times > 1:
            raise ValueError(f"{listed} names {name} twice")
        picture = _inside(base / "JPEGImages", f"{name}.jpg", listed)
        xml = _inside(base / "Annotations", f"{name}.xml", listed)
        for path in (picture, xml):
            if not path.is_file():
                raise _missing("voc2007", f"{listed} names {name}, and there is no {path}")
        things = _voc_things(xml, notes, dict(zip(VOC_CLASSES, VOC_CLASSES, strict=True)))
        photos.append(_photo(name, picture, things, _classes_of(things), "PASCAL VOC 2007, pictures from flickr"))
    if not photos:
        raise ValueError(f"{listed} is empty")
    _left_out("voc2007", notes)
    return photos


def pairs(photos: Iterable[Photo], *, difficult: bool = False) -> list[tuple[Photo, str]]:
    """Every (picture, class in it): what pointing, energy and overlap are measured on.

    difficult: take a class in whose things are all marked difficult too. `Photo.mask` gives the union of its things.
    """
    found = []
    for photo in photos:
        easy = {t.class_name for t in photo.things if not t.difficult}
        hard = {t.class_name for t in photo.things} - easy
        found += [(photo, name) for name in photo.class_names if difficult or name not in hard]
    return found


# -------------------------------------------------------------------------------------------------- Severstal steel


def rle_decode(text: str, size: tuple[int, int]) -> np.ndarray:
    """`[H, W]` of False and True from Kaggle's run-length code: pairs of start and length, pixels counted from 1 down the
    columns, from left to right; an empty text is an empty mask.

    Errors: ValueError for what is no number, an odd count, a run beyond the picture, runs that overlap or go back.
    """
    H, W = size
    if not re.fullmatch(r"[0-9\s]*", text):
        raise ValueError(f"a run-length code has numbers and blanks only, this one is {text[:40]!r}")
    numbers = [int(word[:18]) for word in text.split()]
    if len(numbers) % 2:
        raise ValueError(f"a run-length code has pairs of start and length, this one has {len(numbers)} numbers")
    flat, last = np.zeros(H * W, dtype=bool), 1
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        if start < 1 or length < 1 or start + length - 1 > H * W:
            raise ValueError(f"the run of {length} from {start} is not within the {H} x {W} pixels 1 to {H * W}")
        if start < last:
            raise ValueError(f"the run from {start} begins before the one before it ends, at {last - 1}")
        flat[start - 1 : (last := start + length) - 1] = True
    return flat.reshape(W, H).T


def rle_encode(mask: np.ndarray) -> str:
    """Kaggle's run-length code of a mask `[H, W]`: the shortest text that `rle_decode` turns into it."""
    if mask.ndim != 2:
        raise ValueError(f"a mask is [H, W], not {list(mask.shape)}")
    flat = np.concatenate([[False], np.asarray(mask, dtype=bool).T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges[1::2] -= edges[::2]
    return " ".join(map(str, edges))


def _crop(path: Path, box: tuple[int, int, int, int]) -> Image.Image:
    return _as_stored(path).crop(box)


def _crop_mask(text: str, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    x0, y0, x1, y1 = box
    return rle_decode(text, size)[y0:y1, x0:x1]


def severstal(
    root: str | Path, *, crop: int = 256, min_area: float = 0.01, normal: bool = False, balanced: bool = True, seed: int = 0
) -> list[Photo]:
    """Crops of the Severstal steel sheets that show a defect of a single class, each with its exact pixels.

    Crops lie side by side from the top left corner; one with two classes is left out, and so is one whose defect covers
    less than `min_area` of it (the paper says nothing of small ones: 0.01 is ours). normal: also crops without any defect,
    class "normal". balanced: of every class as many as of the rarest, drawn from `seed`. A crop is called by its picture and
    its corner, 0002cc93b.jpg#256,0. Annotated are only the pictures of train_images; train.csv may have either published
    form. Errors: FileNotFoundError; ValueError for a table or run-length code that is not as it should be.
    Paper: sattarzadeh2021, Experiments. Deviation: its 1,381 crops cannot be as many of each of four classes; ours are.
    """
    if crop < 1 or not 0 <= min_area <= 1:
        raise ValueError(f"crop is a side in pixels and min_area a share, 0 to 1; given {crop} and {min_area}")
    top = _root("severstal", root)
    folder, table = top / "train_images", top / "train.csv"
    for path in (folder, table):
        if not path.exists():
            raise _missing("severstal", f"there is no {path}")
    there, codes = _entries(folder)[0], _severstal_codes(table)
    for name in codes:
        _inside(folder, name, table)
    absent = sorted(set(codes) - set(there))
    if absent:
        raise _missing("severstal", f"{len(absent)} pictures of {table} are not in {folder}, the first is {absent[0]}")
    found: dict[str, list[Photo]] = {name: [] for name in (*STEEL_CLASSES, *(["normal"] if normal else []))}
    for name in there if normal else sorted(codes):
        H, W = size = image_size(folder / name)
        try:
            masks = {k: rle_decode(code, size) for k, code in codes.get(name, {}).items()}
        except ValueError as error:
            raise ValueError(f"{table}, {name}: {error}") from error
        for y, x in ((y, x) for y in range(0, H - crop + 1, crop) for x in range(0, W - crop + 1, crop)):
            box = (x, y, x + crop, y + crop)
            seen = {k: m for k, mask in masks.items() if (m := mask[y : y + crop, x : x + crop]).any()}
            things: tuple[Thing, ...] = ()
            if len(seen) > 1 or (not seen and not normal):
                continue
            for k, mask in seen.items():
                if mask.mean() >= min_area:
                    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                    tight = tuple(map(float, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)))
                    things = (Thing(f"defect {k}", tight, pixels=partial(_crop_mask, codes[name][k], size, box)),)  # type: ignore[arg-type]
            if seen and not things:
                continue
            kind = things[0].class_name if things else "normal"
            found[kind].append(Photo(f"{name}#{x},{y}", partial(_crop, folder / name, box), things, class_names=(kind,)))
    if not any(found.values()):
        raise ValueError(f"no crop of {crop} x {crop} pixels in {folder} shows a defect that covers {min_area:.1%} of it")
    if balanced:
        fewest = min(len(photos) for photos in found.values())
        if not fewest:
            empty = ", ".join(name for name, photos in found.items() if not photos)
            raise ValueError(
                f"{folder} has no crop of class {empty}, so that classes cannot be balanced; balanced=False takes all"
            )
        rng = np.random.default_rng(seed)
        found = {name: [photos[i] for i in sorted(rng.permutation(len(photos))[:fewest])] for name, photos in found.items()}
    return sorted((photo for photos in found.values() for photo in photos), key=lambda photo: _numbered(photo.name))


def _severstal_codes(table: Path) -> dict[str, dict[int, str]]:
    """Picture -> class -> run-length code, from either form of train.csv; pictures without a defect may be missing."""
    rows = _table(table)
    header = next(rows, (0, []))[1]
    if header not in (["ImageId", "ClassId", "EncodedPixels"], ["ImageId_ClassId", "EncodedPixels"]):
        expected = "ImageId,ClassId,EncodedPixels or ImageId_ClassId,EncodedPixels"
        raise ValueError(f"{table} begins with {','.join(header)[:60]!r}; the header {expected} was expected")
    codes: dict[str, dict[int, str]] = {}
    for number, row in rows:
        name, kind = row[:2] if len(header) == 3 else (row[0].rpartition("_")[::2])
        if len(row) != len(header) or kind not in ("1", "2", "3", "4") or not name:
            raise ValueError(
                f"line {number} of {table} is {','.join(row)[:60]!r}; as in the header, with a class 1 to 4, was expected"
            )
        of_picture = codes.setdefault(name, {})
        if int(kind) in of_picture:
            raise ValueError(f"{table} has {name}, class {kind}, twice, the second time on line {number}")
        of_picture[int(kind)] = row[-1]
    return codes


# ------------------------------------------------------------------------------------------------------------ COCO

COCO_SPLITS = ("val2014", "val2017")  # where a copy has several: the paper's first


def neu_seg(root: str | Path, split: str = "test") -> list[Photo]:
    """NEU-Seg: steel surfaces of 200 x 200 pixels with the pixels of three kinds of defect, one or several a picture.

    Read from images/training/*.jpg, images/test/*.jpg and annotations of the same names, *.png, whose values are 0 for
    sound steel, 1 inclusion, 2 patches, 3 scratches. Errors: FileNotFoundError; ValueError for another split or mask.
    """
    if split not in ("training", "test"):
        raise ValueError(f"NEU-Seg has the splits 'training' and 'test', not {split!r}")
    folder = _root("neu_seg", root)
    pictures = [n for n in _entries(folder / "images" / split)[0]] if (folder / "images" / split).is_dir() else []
    if not pictures:
        raise _missing("neu_seg", f"there are no pictures in {folder / 'images' / split}")
    photos = []
    for name in pictures:
        path, stem = folder / "annotations" / split / f"{Path(name).stem}.png", Path(name).stem
        values = _neu_values(path)
        things = []
        for k in sorted(set(np.unique(values).tolist()) - {0}):
            y, x = np.nonzero(values == k)
            box = (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))
            things.append(Thing(NEU_CLASSES[k - 1], box, pixels=partial(_neu_mask, path, k)))
        photos.append(_photo(f"{split}/{stem}", folder / "images" / split / name, things, _classes_of(things), "NEU-Seg"))
    return photos


def _neu_values(path: Path) -> np.ndarray:
    """The values 0 to 3 of a mask `[H, W]`. Errors: FileNotFoundError, ValueError for other values or a damaged file."""
    if not path.is_file():
        raise _missing("neu_seg", f"there is no mask {path}")
    try:
        with Image.open(path) as opened:
            values = np.asarray(opened)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} could not be read as a mask: {error}") from error
    if values.ndim != 2 or values.max() > len(NEU_CLASSES):
        raise ValueError(
            f"{path} is no mask of NEU-Seg: [H, W] of 0 to 3 was expected; it is {list(values.shape)} up to {values.max()}"
        )
    return values


def _neu_mask(path: Path, k: int) -> np.ndarray:
    return _neu_values(path) == k


def coco(root: str | Path, split: str | None = None) -> list[Photo]:
    """COCO objects with boxes and exact pixels; crowds are marked difficult. Class names as the file has them.

    root: has annotations/instances_val2014.json (or another split's) and the pictures in a folder called like the split or
    `images`; or the YOLO form, classes.yaml, images/ and object_detection/ or instance_segmentation/ with a text file for
    each picture. split: "val2014", …; by default whichever is there, the paper's first.
    Errors: FileNotFoundError; ValueError for annotations that are not as they should be.
    """
    top = _root("coco", root)
    files = {p.stem.removeprefix("instances_"): p for f in (top / "annotations", top) for p in sorted(f.glob("instances_*.json"))}
    if not files and split is None and (top / "classes.yaml").is_file():
        return _yolo(top)
    if split is None:
        split = next((s for s in COCO_SPLITS if s in files), next(iter(files), None) if len(files) < 2 else None)
        if split is None and files:
            raise ValueError(f"{top} has {', '.join(sorted(files))}: say which split")
    if split not in files:
        raise _missing("coco", f"there is no {top / 'annotations' / f'instances_{split or COCO_SPLITS[0]}.json'}")
    folders = (top / split, top / "images" / split, top / "images")
    folder = next((f for f in folders if f.is_dir()), None)
    if folder is None:
        raise _missing("coco", f"there is no folder {folders[0]}")
    return _coco_photos(files[split], folder)


def _compact(entry: dict[str, Any]) -> dict[str, Any]:
    """While the file is read: outlines as arrays, a twentieth of the memory; a wrong one stays as it is, for the error."""
    outlines = entry.get("segmentation")
    if isinstance(outlines, list):
        try:
            entry["segmentation"] = [np.array(part, dtype=np.float32).reshape(-1, 2) for part in outlines]
        except (ValueError, TypeError):
            pass
    return entry


def _coco_photos(path: Path, folder: Path) -> list[Photo]:
    try:
        with open(path, encoding="utf-8") as file:
            tables = json.load(file, object_hook=_compact)
        images = {entry["id"]: entry for entry in tables["images"]}
        names = {entry["id"]: str(entry["name"]) for entry in tables["categories"]}
        files = Counter(str(entry["file_name"]) for entry in tables["images"])
        annotations = list(tables["annotations"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(f"{path} is not as COCO writes instances (images, annotations, categories): {error!r}") from error
    if files and files.most_common(1)[0][1] > 1 or len(images) < sum(files.values()):
        raise ValueError(f"{path} has an image twice, such as {files.most_common(1)[0][0]}")
    there = set(_entries(folder)[0])
    absent = sorted(name for name in files if name not in there and not _inside(folder, name, path).is_file())
    if absent:
        raise _missing(
            "coco", f"{len(absent)} of {len(files)} pictures of {path.name} are not in {folder}, the first is {absent[0]}"
        )
    things: dict[Any, list[Thing]] = {key: [] for key in images}
    notes: list[str] = []
    for entry in annotations:
        try:
            image = images[entry["image_id"]]
            size = int(image["height"]), int(image["width"])
            if not (0 < size[0] * size[1] <= MAX_PIXELS and min(size) > 0):
                raise ValueError(f"image size {size}")
            x, y, w, h = map(float, entry["bbox"])
            box = _clipped((x, y, x + w, y + h), size[1], size[0])
            if box is None:
                notes.append(f"annotation {entry.get('id')} of {path.name}")
                continue
            pixels = _coco_pixels(entry.get("segmentation"), size)
            things[entry["image_id"]].append(
                Thing(names[entry["category_id"]], box, pixels=pixels, difficult=bool(entry.get("iscrowd")))
            )
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            known = entry.get("id") if isinstance(entry, dict) else entry
            raise ValueError(f"{path}, annotation {known}: {error!r}") from error
    if not images:
        raise ValueError(f"{path} has no images")
    _left_out("coco", notes)
    credit = "COCO, pictures from flickr"
    return [
        _photo(image["file_name"], _inside(folder, image["file_name"], path), things[key], _classes_of(things[key]), credit)
        for key, image in sorted(images.items(), key=lambda item: str(item[1]["file_name"]))
    ]


def _coco_pixels(segmentation: object, size: tuple[int, int]) -> Callable[[], np.ndarray] | None:
    """What makes an object's mask, from its outlines or its runs; None without either. Errors: ValueError, TypeError."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        runs = coco_counts(counts) if isinstance(counts, str) else [int(v) for v in counts]
        if tuple(segmentation["size"]) != size or min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
            raise ValueError(f"runs of {sum(runs)} pixels for a size of {segmentation['size']}, of a picture of {list(size)}")
        return partial(_runs, np.array(runs, dtype=np.int64), size)
    if not isinstance(segmentation, list) or not all(isinstance(part, np.ndarray) for part in segmentation):
        raise ValueError("its outline is no list of x, y, x, y, …")
    if not all(np.isfinite(part).all() and np.abs(part).max(initial=0) < 1e6 for part in segmentation):
        raise ValueError("its outline has a point far out of the picture")
    return partial(_parts, [part for part in segmentation if len(part) > 2], size)


def coco_counts(text: str) -> list[int]:
    """Lengths of the runs, the first of background, from COCO's compressed text.

    Every number is written in groups of five bits, lowest first, a character 48 … 111 each: 32 means that more follow, 16 in
    the last one that the number is negative. From the fourth on, it is the difference to the one two before.
    Errors: ValueError for another character, or an end in the middle of a number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 40:
            raise ValueError(f"{character!r} at that place is no part of a compressed run length")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        value -= (code & 16) << (shift - 4)  # the sign
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths end in the middle of a number")
    return counts


COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # numbers from 1 to 90 that are no category: 80 are left


def _yolo(top: Path) -> list[Photo]:
    """The YOLO form: `class cx cy w h` or `class x y x y …` on every line, as shares of the width and height.

    Outlines are taken where there are any. Some copies count the classes of boxes from 0 to 79 and those of outlines as COCO
    does, 1 to 90 with gaps: whichever agrees better with the boxes is taken.
    """
    names = _yolo_classes(top / "classes.yaml")
    if not (top / "images").is_dir():
        raise _missing("coco", f"there is no folder {top / 'images'}")
    pictures = _entries(top / "images")[0]
    boxes, outlines = (
        {name: _yolo_lines(path) for name in pictures if (path := top / kind / f"{Path(name).stem}.txt").is_file()}
        for kind in ("object_detection", "instance_segmentation")
    )
    if not boxes and not outlines:
        raise _missing("coco", f"no picture in {top / 'images'} has a file in object_detection or instance_segmentation")
    plain = dict(enumerate(names))
    called = plain
    if len(names) == 80:
        official = dict(zip((k for k in range(1, 91) if k not in COCO_GAPS), names, strict=True))

        def agreement(numbering: dict[int, str]) -> tuple[bool, int]:
            same = [Counter(numbering.get(k) for k, _ in lines) & Counter(plain.get(k) for k, _ in boxes.get(name, []))
                    for name, lines in outlines.items()]  # fmt: skip
            return all(k in numbering for lines in outlines.values() for k, _ in lines), sum(sum(c.values()) for c in same)

        called = max((plain, official), key=agreement)
    photos, notes = [], list[str]()
    for name in pictures:
        path = top / "images" / name
        H, W = image_size(path)
        things = []
        of_outline = name in outlines
        for k, values in outlines.get(name, boxes.get(name, [])):
            numbering = called if of_outline else plain
            if k not in numbering:
                raise ValueError(f"the annotation of {path} has class {k}; {top / 'classes.yaml'} has 0 to {len(names) - 1}")
            if of_outline == (len(values) == 4) or len(values) % 2 or not values:
                raise ValueError(f"the annotation of {path} has {len(values)} numbers after a class")
            if of_outline:
                points = tuple((x * W, y * H) for x, y in zip(values[::2], values[1::2], strict=True))
                xs, ys = zip(*points, strict=True)
                box = _clipped((min(xs), min(ys), max(xs), max(ys)), W, H)
            else:
                points, (x, y, w, h) = (), values
                box = _clipped(((x - w / 2) * W, (y - h / 2) * H, (x + w / 2) * W, (y + h / 2) * H), W, H)
            if box is None:
                notes.append(f"{numbering[k]!r} in {name}")
                continue
            things.append(Thing(numbering[k], box, points))
        photos.append(_photo(name, path, things, _classes_of(things), "COCO, pictures from flickr"))
    _left_out("coco", notes)
    return photos


def _yolo_lines(path: Path) -> list[tuple[int, list[float]]]:
    """Class number and shares of every line."""
    lines = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        try:
            if words:
                values = [float(word) for word in words[1:]]
                if not all(-0.01 <= v <= 1.01 for v in values):
                    raise ValueError("shares of width and height, 0 to 1, were expected")
                lines.append((int(words[0]), values))
        except ValueError as error:
            raise ValueError(f"line {number} of {path} is {line[:60]!r}: {error}") from error
    return lines


def _yolo_classes(path: Path) -> list[str]:
    """The list under `names:` in a YOLO classes.yaml, whose items are `0: person` or `- person`."""
    names: list[str] = []
    within = False
    for line in _text(path).splitlines():
        item = re.fullmatch(r"\s*(?:([0-9]{1,4})\s*:|-)\s+(.+?)\s*(?:\s#.*)?", line)
        if re.match(r"names\s*:", line):
            within = True
        elif within and item:
            if item[1] is not None and int(item[1]) != len(names):
                raise ValueError(f"{path} has class {item[1]} where {len(names)} was expected")
            names.append(item[2].strip("'\""))
        elif line.strip() and not line.lstrip().startswith("#"):
            within = False
    if not names:
        raise ValueError(f"{path} has no classes under 'names:', such as '  0: person'")
    return names


# ------------------------------------------------------------------------------------------------- the sets by name


@dataclass(frozen=True)
class DataSet:
    """What is known of a set. `layout` is what its folder holds; `protocol` what the papers do with it.

    reader: takes the folder; of a drawn set the number of pictures and the seed; of the built-in one nothing.
    """

    what: str
    classes: tuple[str, ...]  # empty where the reader's files say
    pictures: str
    annotation: str
    licence: str
    source: str
    layout: str
    protocol: str
    reader: Callable[..., list[Photo]]
    kind: str = "files"  # or "built in", "drawn"


def _built_in() -> list[Photo]:
    return [data.photo(name) for name in data.photo_names()]


def _in_folder(root: str | Path) -> list[Photo]:
    photos, skipped = data.photos_in(_root("folder", root))
    for line in skipped:
        print("skipped:", line)
    return photos


ASIRRA = "Kaggle's rules of the competition; photographs of the Asirra project"
SETS = {
    "photos": DataSet(
        what="photographs inside packages that the book installs anyway",
        classes=(),
        pictures=f"{len(data.photo_names())}",
        annotation="outlines drawn by hand",
        licence="CC0, public domain, CC BY: see data/README.md",
        source="https://scikit-image.org",
        layout="nothing: it is built in",
        protocol="none: small runs of every chapter",
        reader=_built_in,
        kind="built in",
    ),
    "folder": DataSet(
        what="any folder of the reader's pictures",
        classes=(),
        pictures="all below it",
        annotation="class by sub-folder",
        licence="the reader's",
        source="the reader's own disk",
        layout="pictures (JPEG, PNG, …), in sub-folders called by class where classes matter",
        protocol="none",
        reader=_in_folder,
    ),
    "imagenet": DataSet(
        what="ImageNet (ILSVRC2012), validation",
        classes=IMAGENET_CLASSES,
        pictures="50,000",
        annotation="one class a picture, boxes of its things",
        licence="non-commercial research and education, on request",
        source="https://www.image-net.org/challenges/LSVRC/2012/",
        layout="val/n01440764/*.JPEG, …, or ILSVRC2012_val_00000001.JPEG, … and LOC_val_solution.csv, val.txt or the devkit",
        protocol="layer selection: 3,000 drawn at random, VGG16; ScoreCAM++: Tables 3 to 8, ResNet-18, VGG-19, ViT-B/16",
        reader=imagenet,
    ),
    "dogs_vs_cats": DataSet(
        what="Dogs vs. Cats (Kaggle)",
        classes=PET_CLASSES,
        pictures="25,000 to train on, 12,500 without labels",
        annotation="one class a picture",
        licence=ASIRRA,
        source="https://www.kaggle.com/c/dogs-vs-cats",
        layout="train/cat.0.jpg, …, train/dog.0.jpg, … and test1/1.jpg, …",
        protocol="ScoreCAM++: Tables 1 and 2, ResNet-18 and VGG-19 fine-tuned",
        reader=dogs_vs_cats,
    ),
    "voc2007": DataSet(
        what="PASCAL VOC 2007",
        classes=VOC_CLASSES,
        pictures="4,952 to test on, 5,011 to train on",
        annotation="boxes, marked difficult or truncated",
        licence="flickr's terms of use",
        source="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
        layout="VOCdevkit/VOC2007 with JPEGImages, Annotations and ImageSets/Main",
        protocol="SISE: Table 1, all 4,952 test pictures, VGG16 and ResNet-50 for several labels",
        reader=voc2007,
    ),
    "severstal": DataSet(
        what="Severstal steel sheets, in crops of 256 x 256",
        classes=STEEL_CLASSES,
        pictures="12,568 sheets of 1600 x 256",
        annotation="exact pixels of every defect",
        licence="Kaggle's rules of the competition",
        source="https://www.kaggle.com/c/severstal-steel-defect-detection",
        layout="train_images/*.jpg and train.csv",
        protocol="SISE: Table 2, 1,381 crops with a defect, classes balanced, ResNet-101",
        reader=severstal,
    ),
    "neu_seg": DataSet(
        what="NEU-Seg: hot-rolled steel with three kinds of defect",
        classes=NEU_CLASSES,
        pictures="some thousands of 200 x 200",
        annotation="exact pixels of every defect",
        licence="for research; to be cited",
        source="https://github.com/DHW-Master/NEU_Seg",
        layout="images/training/*.jpg, images/test/*.jpg and annotations/training/*.png, annotations/test/*.png",
        protocol="none: our second steel set",
        reader=neu_seg,
    ),
    "coco": DataSet(
        what="COCO objects",
        classes=(),
        pictures="val2014: 40,504; val2017: 5,000",
        annotation="boxes and outlines of 80 classes",
        licence="annotations CC BY 4.0; flickr's terms of use",
        source="https://cocodataset.org/#download",
        layout="annotations/instances_val2014.json and val2014/*.jpg, or the same of another split",
        protocol="SISE: val2014, in the appendix of its preprint",
        reader=coco,
    ),
    "scenes": DataSet(
        what="shapes on photographs and textures, one class a picture",
        classes=drawn.SCENE_CLASSES,
        pictures="any number",
        annotation="exact pixels",
        licence="ours",
        source="helpers/drawn.py",
        layout="nothing: it is drawn",
        protocol="ground truth that no paper has",
        reader=drawn.scenes,
        kind="drawn",
    ),
    "scenes_tagged": DataSet(
        what="the scenes with a coloured tag that gives the class away",
        classes=drawn.SCENE_CLASSES,
        pictures="any number",
        annotation="exact pixels, of the tag too",
        licence="ours",
        source="helpers/drawn.py",
        layout="nothing: it is drawn",
        protocol="a shortcut whose place is known",
        reader=partial(drawn.scenes, tag="own"),
        kind="drawn",
    ),
    "scenes_multi": DataSet(
        what="shapes on photographs and textures, up to three classes a picture",
        classes=drawn.SCENE_CLASSES,
        pictures="any number",
        annotation="exact pixels",
        licence="ours",
        source="helpers/drawn.py",
        layout="nothing: it is drawn",
        protocol="stand-in for PASCAL VOC",
        reader=partial(drawn.scenes, multi=True),
        kind="drawn",
    ),
    "steel": DataSet(
        what="grey surfaces with one of four defects",
        classes=drawn.STEEL_CLASSES,
        pictures="any number",
        annotation="exact pixels",
        licence="ours",
        source="helpers/drawn.py",
        layout="nothing: it is drawn",
        protocol="stand-in for Severstal",
        reader=drawn.steel,
        kind="drawn",
    ),
}
DRAWN = 100  # pictures of a drawn set where nobody says how many


def load(name: str, root: str | Path | None = None, n: int | None = None, seed: int = 0) -> list[Photo]:
    """The pictures that a chapter runs on, by the name of their set: one of SETS.

    root: the folder with the reader's copy, where the set has one. n: how many, drawn without repetition from `seed`; None
    or 0 takes all. The built-in ones come in their own order, so that small runs show the same pictures. Of "folder", what
    is damaged is skipped and printed; to find that out, those that are taken are decoded once, one at a time.
    Errors: ValueError for an unknown set, a set without its root, or one with fewer than n; those of the set's reader.
    """
    if name not in SETS:
        near = difflib.get_close_matches(name, SETS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"no data set is called {name!r}; {hint}There are: {', '.join(SETS)}")
    one = SETS[name]
    if n is not None and n < 0:
        raise ValueError(f"{n} pictures were asked for; 0 takes all")
    if one.kind == "drawn":
        return one.reader(n or DRAWN, seed=seed)
    if one.kind == "files" and not root:
        raise ValueError(f"data set {name!r} needs a root (DATA_ROOT), a folder with {one.layout}; it is from {one.source}")
    found = one.reader(root) if one.kind == "files" else one.reader()
    order = np.random.default_rng(seed).permutation(len(found)) if one.kind == "files" else range(len(found))
    photos = [found[i] for i in order]
    if name == "folder" and (n or 0) <= len(photos):
        photos = _undamaged(photos, n or len(photos))
    if (n or 0) > len(photos):
        raise ValueError(f"{n} pictures were asked for, {root if one.kind == 'files' else 'the built-in set'} has {len(photos)}")
    return photos[: n or None]


def _undamaged(photos: Sequence[Photo], n: int) -> list[Photo]:
    """The first n that can be decoded; the others are printed. Errors: ValueError where none can."""
    good: list[Photo] = []
    for photo in tqdm(photos, desc="checking pictures", unit="picture") if n >= 200 else photos:
        try:
            photo.picture.close()
            good.append(photo)
        except (ValueError, FileNotFoundError) as error:
            print("skipped:", error)
        if len(good) == n:
            break
    if not good:
        raise ValueError("no picture could be read: all of them are damaged")
    return good


def overview() -> pd.DataFrame:
    """The table of sets, a row each, for the book."""
    columns = ["name", "what", "pictures", "classes", "annotation", "licence", "source", "paper protocol"]
    return pd.DataFrame(
        [
            (name, s.what, s.pictures, str(len(s.classes) or "as the files say"), s.annotation, s.licence, s.source, s.protocol)
            for name, s in SETS.items()
        ],
        columns=columns,
    )


# --------------------------------------------------------------------------------------------- to train on them


def split(photos: Iterable[Photo], fraction: float, seed: int = 0) -> tuple[list[Photo], list[Photo]]:
    """(training, validation), about `fraction` of the pictures in the second, decided for each by a hash of its name.

    So a picture stays on its side when others come or go, on every machine; crops of one picture stay together.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is the share to validate on, 0 to 1, not {fraction}")
    sides: tuple[list[Photo], list[Photo]] = ([], [])
    for photo in photos:
        digest = hashlib.sha256(f"{seed}/{photo.name.partition('#')[0]}".encode("utf-8", "surrogateescape")).digest()
        sides[int.from_bytes(digest[:8]) < fraction * 2**64].append(photo)
    return sides


def labels(photos: Sequence[Photo], classes: Sequence[str], *, multi: bool | None = None) -> Tensor:
    """Targets to train on: `[N]` class indices, or `[N, K]` of 0 and 1 where a picture may show several classes.

    multi: which of the two; by default the second if any picture has another number of classes than one.
    Errors: ValueError for a class that is not in `classes`, or for indices of pictures with none or several.
    """
    index = {name: k for k, name in enumerate(classes)}
    if len(index) < len(classes):
        raise ValueError(f"a class is twice in classes: {Counter(classes).most_common(1)[0][0]!r}")
    for photo in photos:
        unknown = [name for name in photo.class_names if name not in index]
        if unknown:
            near = difflib.get_close_matches(unknown[0], classes, n=3, cutoff=0.4) or list(classes[:5])
            raise ValueError(f"{photo.name} shows {unknown[0]!r}, which is none of the classes, such as {', '.join(near)}")
    several = next((photo for photo in photos if len(photo.class_names) != 1), None)
    if multi is False and several is not None:
        raise ValueError(
            f"{several.name} shows {len(several.class_names)} classes; one each was expected (multi=True takes any number)"
        )
    if not (several if multi is None else multi):
        return torch.tensor([index[photo.class_names[0]] for photo in photos], dtype=torch.int64)  # [N]
    target = torch.zeros(len(photos), len(classes))  # [N, K]
    for row, photo in zip(target, photos, strict=True):
        row[[index[name] for name in photo.class_names]] = 1
    return target
