"""Readers of the papers' own data sets, from the folders in which they are distributed.

A set is a list of `Photo`s that know their files: opening one decodes no picture, and 50,000 of them are a list of names.
Nothing downloads. What a file says is checked before it is used: no name in it leads out of its folder, no XML brings a
DOCTYPE, no number is taken on trust. Boxes are clipped to their picture where the file says its size; objects of which
nothing is left are left out, with a warning that counts them. Pictures that have annotations come as stored, without the
turn of an EXIF mark: so the annotators saw them, and so torchvision reads them.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import loadmat
from torchvision.models import ResNet18_Weights

from helpers import data
from helpers.annotations import (
    MAX_ANNOTATION,
    Box,
    clipped,
    coco_counts,
    crop_mask,
    mask_of_outlines,
    mask_of_runs,
    rle_decode,
    rows_of,
    text_of,
    voc_things,
)
from helpers.data import IMAGE_SUFFIXES, MAX_PIXELS, Photo, Thing, bounds, image_size

IMAGENET_CLASSES = tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])  # as torchvision spells them
PET_CLASSES = ("cat", "dog")
VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow "
    "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor".split()
)
STEEL_CLASSES = tuple(f"defect {k}" for k in (1, 2, 3, 4))
NEU_CLASSES = ("inclusion", "patches", "scratches")  # values 1, 2, 3 of the masks of NEU-Seg
PLACES = {  # where a set is to be had, and what its folder holds
    "folder": (
        "the reader's own disk",
        "pictures (JPEG, PNG, …), in sub-folders called by class where classes matter",
    ),
    "imagenet": (
        "https://www.image-net.org/challenges/LSVRC/2012/",
        "val/n01440764/*.JPEG, …, or ILSVRC2012_val_00000001.JPEG, … and LOC_val_solution.csv, val.txt or the devkit",
    ),
    "dogs_vs_cats": (
        "https://www.kaggle.com/c/dogs-vs-cats",
        "train/cat.0.jpg, …, train/dog.0.jpg, … and test1/1.jpg, …",
    ),
    "voc2007": (
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
        "VOCdevkit/VOC2007 with JPEGImages, Annotations and ImageSets/Main",
    ),
    "severstal": (
        "https://www.kaggle.com/c/severstal-steel-defect-detection",
        "train_images/*.jpg and train.csv",
    ),
    "neu_seg": (
        "https://github.com/DHW-Master/NEU_Seg",
        "images/training/*.jpg, images/test/*.jpg and annotations/training/*.png, annotations/test/*.png",
    ),
    "coco": (
        "https://cocodataset.org/#download",
        "annotations/instances_val2014.json and val2014/*.jpg, or the same of another split",
    ),
}


def _as_stored(path: Path) -> Image.Image:
    return data.read_image(path, upright=False)


def _photo(name: str, path: Path, things: Sequence[Thing] = (), class_names: Sequence[str] = (), credit: str = "") -> Photo:
    return Photo(name, partial(_as_stored, path), tuple(things), credit=credit, class_names=tuple(class_names))


def _classes_of(things: Iterable[Thing]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(t.class_name for t in things))


def _missing(dataset: str, what: str) -> FileNotFoundError:
    source, layout = PLACES[dataset]
    return FileNotFoundError(f"{dataset}: {what}. Get it from {source}; it is read from a folder with {layout}")


def root_of(dataset: str, root: str | Path) -> Path:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise _missing(dataset, f"there is no folder {folder}")
    return folder


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


def _left_out(dataset: str, notes: list[str]) -> None:
    if notes:
        warnings.warn(f"{dataset}: {len(notes)} objects left out, of which no pixel is in the picture: {notes[0]}", stacklevel=3)


def _numbered(name: str) -> tuple[str | int, ...]:
    """Sort key by which 2.jpg comes before 10.jpg."""
    return tuple(int(part) if part.isdecimal() and part.isascii() else part for part in re.split(r"([0-9]{1,18})", name))


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
    top = root_of("imagenet", root)
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
            things = voc_things(xml, notes, names)
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
            index = {int(k): str(v[0]) for k, v in json.loads(text_of(path)).items()}
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise ValueError(f'{path} is not as expected, {{"0": ["n01440764", "tench"], …}}: {error}') from error
        wnids = [index[k] for k in sorted(index)]
        if wnids != sorted(wnids):
            raise ValueError(f"{path} does not number the WordNet ids in their order")
    else:
        wnids = [line.split()[0] for line in text_of(path).splitlines() if line.strip()]
    if len(set(wnids)) != 1000 or len(wnids) != 1000 or not all(WNID.fullmatch(w) for w in wnids):
        raise ValueError(f"{path} has {len(set(wnids))} WordNet ids on {len(wnids)} lines; 1,000 were expected")
    return dict(zip(sorted(wnids), IMAGENET_CLASSES, strict=True))


def _devkit(path: Path) -> dict[int, str]:
    """WordNet id of every ILSVRC2012 id 1 … 1000, from the development kit's meta.mat or map_clsloc.txt."""
    try:
        if path.suffix != ".mat":
            return {
                int(number): wnid for wnid, number, *_ in (line.split() for line in text_of(path).splitlines() if line.strip())
            }
        if path.stat().st_size > MAX_ANNOTATION:
            raise ValueError(f"it has over {MAX_ANNOTATION:,} bytes")
        synsets = loadmat(str(path), squeeze_me=True)["synsets"]
        return {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if int(s["ILSVRC2012_ID"]) <= 1000}
    except Exception as error:  # a damaged MATLAB file can raise nearly anything
        raise ValueError(f"{path} could not be read as the ILSVRC2012 development kit's: {error}") from error


def _class_of(name: str) -> str:
    """The ImageNet class of that name, or the one like it: letter case, underscores and synonyms after a comma aside."""
    if name in IMAGENET_CLASSES:  # a Cardigan is a dog, a cardigan is not
        return name
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
        for number, line in enumerate(text_of(path).split(), 1):
            if not re.fullmatch("[0-9]{1,4}", line) or int(line) not in wnids:
                raise ValueError(f"line {number} of {path} is {line!r}; an ILSVRC2012 id, 1 to 1000, was expected")
            labels[f"ILSVRC2012_val_{number:08d}"] = (class_name(wnids[int(line)]), [])
        return labels
    rows = rows_of(path) if path.suffix == ".csv" else ((i, line.split()) for i, line in enumerate(text_of(path).splitlines(), 1))
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
                    box = clipped((x0 - 1, y0 - 1, x1, y1))
                    known += [box] if box else []
            except ValueError as error:
                raise ValueError(f"line {number} of {path} is {label[:60]!r}: {error}") from error
            label = words[0]
        if stem in labels:
            raise ValueError(f"{path} has {row[0]} twice, the second time on line {number}")
        labels[stem] = (class_name(label), known)
    return labels


def dogs_vs_cats(root: str | Path, split: str = "train") -> list[Photo]:
    """Kaggle's Dogs vs. Cats: train/cat.0.jpg, train/dog.0.jpg, … and test1/1.jpg, … (no labels), in order of number.

    Also in sub-folders `cats` and `dogs` of training_set and test_set, and unpacked one folder deeper than meant.
    split: "train" or "test". Errors: FileNotFoundError; ValueError for a picture that is neither, or in the wrong folder.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is 'train' or 'test', not {split!r}")
    top = root_of("dogs_vs_cats", root)
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


def voc2007(root: str | Path, split: str = "test") -> list[Photo]:
    """PASCAL VOC 2007 with its boxes and the marks `difficult` and `truncated`, in the order of the split's list.

    root: the folder VOCdevkit, VOC2007 in it, or the one that VOCdevkit is in. split: "train", "val", "trainval" or "test".
    Errors: FileNotFoundError for a list, picture or annotation that is missing; ValueError for one that is not as it should be.
    """
    splits = ("train", "val", "trainval", "test")
    if split not in splits:
        raise ValueError(f"split is one of {', '.join(splits)}, not {split!r}")
    top = root_of("voc2007", root)
    ways = [top / way for way in (".", "VOC2007", "VOCdevkit/VOC2007")]
    base = next((way for way in ways if (way / "JPEGImages").is_dir()), None)
    if base is None:
        raise _missing("voc2007", f"{top} has no VOCdevkit/VOC2007/JPEGImages")
    listed = base / "ImageSets" / "Main" / f"{split}.txt"
    if not listed.is_file():
        raise _missing("voc2007", f"there is no {listed}")
    photos, notes = [], list[str]()
    for name, times in Counter(line.split()[0] for line in text_of(listed).splitlines() if line.strip()).items():
        if times > 1:
            raise ValueError(f"{listed} names {name} twice")
        picture = _inside(base / "JPEGImages", f"{name}.jpg", listed)
        xml = _inside(base / "Annotations", f"{name}.xml", listed)
        for path in (picture, xml):
            if not path.is_file():
                raise _missing("voc2007", f"{listed} names {name}, and there is no {path}")
        things = voc_things(xml, notes, dict(zip(VOC_CLASSES, VOC_CLASSES, strict=True)))
        photos.append(_photo(name, picture, things, _classes_of(things), "PASCAL VOC 2007, pictures from flickr"))
    if not photos:
        raise ValueError(f"{listed} is empty")
    _left_out("voc2007", notes)
    return photos


def _crop(path: Path, box: tuple[int, int, int, int]) -> Image.Image:
    return _as_stored(path).crop(box)


def severstal(
    root: str | Path, *, crop: int = 256, min_area: float = 0.01, normal: bool = False, balanced: bool = True, seed: int = 0
) -> list[Photo]:
    """Crops of the Severstal steel sheets that show a defect of a single class, each with its exact pixels.

    Crops lie side by side from the top left corner; one with two classes is left out, and so is one whose defect covers
    less than `min_area` of it (the paper says nothing of small ones: 0.01 is ours). normal: also crops without any defect,
    class "normal". balanced: of every class as many as of the rarest, drawn from `seed`. A crop is called by its picture and
    its corner, 0002cc93b.jpg#256,0. Annotated are only the pictures of train_images; train.csv may have either published
    form. Errors: FileNotFoundError; ValueError for a table or run-length code that is not as it should be.
    Paper: sattarzadeh2021sise, Experiments. Deviation: its 1,381 crops cannot be as many of each of four classes; ours are.
    """
    if crop < 1 or not 0 <= min_area <= 1:
        raise ValueError(f"crop is a side in pixels and min_area a share, 0 to 1; given {crop} and {min_area}")
    top = root_of("severstal", root)
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
                    things = (Thing(f"defect {k}", bounds(mask), pixels=partial(crop_mask, codes[name][k], size, box)),)
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
    rows = rows_of(table)
    header = next(rows, (0, []))[1]
    if header not in (["ImageId", "ClassId", "EncodedPixels"], ["ImageId_ClassId", "EncodedPixels"]):
        expected = "ImageId,ClassId,EncodedPixels or ImageId_ClassId,EncodedPixels"
        raise ValueError(f"{table} begins with {','.join(header)[:60]!r}; the header {expected} was expected")
    codes: dict[str, dict[int, str]] = {}
    for number, row in rows:
        name, kind = (*row, "", "")[:2] if len(header) == 3 else row[0].rpartition("_")[::2]
        if len(row) != len(header) or kind not in ("1", "2", "3", "4") or not name:
            raise ValueError(
                f"line {number} of {table} is {','.join(row)[:60]!r}; as in the header, with a class 1 to 4, was expected"
            )
        of_picture = codes.setdefault(name, {})
        if int(kind) in of_picture:
            raise ValueError(f"{table} has {name}, class {kind}, twice, the second time on line {number}")
        of_picture[int(kind)] = row[-1]
    return codes


def neu_seg(root: str | Path, split: str = "test") -> list[Photo]:
    """NEU-Seg: steel surfaces of 200 x 200 pixels with the pixels of three kinds of defect, one or several a picture.

    Read from images/training/*.jpg, images/test/*.jpg and annotations of the same names, *.png, whose values are 0 for
    sound steel, 1 inclusion, 2 patches, 3 scratches. The masks are decoded once, for the boxes; the pictures are not.
    Errors: FileNotFoundError; ValueError for another split, a wrong mask, or one that is not as large as its picture.
    """
    if split not in ("training", "test"):
        raise ValueError(f"NEU-Seg has the splits 'training' and 'test', not {split!r}")
    folder = root_of("neu_seg", root)
    pictures = _entries(folder / "images" / split)[0] if (folder / "images" / split).is_dir() else []
    if not pictures:
        raise _missing("neu_seg", f"there are no pictures in {folder / 'images' / split}")
    photos = []
    for name in pictures:
        path, stem = folder / "annotations" / split / f"{Path(name).stem}.png", Path(name).stem
        values, size = _neu_values(path), image_size(folder / "images" / split / name)
        if values.shape != size:
            raise ValueError(f"{path} is {list(values.shape)}, its picture {list(size)}")
        things = []
        for k in sorted(set(np.unique(values).tolist()) - {0}):
            things.append(Thing(NEU_CLASSES[k - 1], bounds(values == k), pixels=partial(_neu_mask, path, k)))
        photos.append(_photo(f"{split}/{stem}", folder / "images" / split / name, things, _classes_of(things), "NEU-Seg"))
    return photos


def _neu_values(path: Path) -> np.ndarray:
    """The values 0 to 3 of a mask `[H, W]`. Errors: FileNotFoundError, ValueError for other values or a damaged file."""
    if not path.is_file():
        raise _missing("neu_seg", f"there is no mask {path}")
    try:
        with data.opened_image(path) as opened:
            values = np.asarray(opened)
    except ValueError as error:
        raise ValueError(f"{path} could not be read as a mask: {error}") from error
    if values.ndim != 2 or values.max() > len(NEU_CLASSES):
        raise ValueError(
            f"{path} is no mask of NEU-Seg: [H, W] of 0 to 3 was expected; it is {list(values.shape)} up to {values.max()}"
        )
    return values


def _neu_mask(path: Path, k: int) -> np.ndarray:
    return _neu_values(path) == k


COCO_SPLITS = ("val2014", "val2017")  # where a copy has several: the paper's first


def coco(root: str | Path, split: str | None = None) -> list[Photo]:
    """COCO objects with boxes and exact pixels; crowds are marked difficult. Class names as the file has them.

    root: has annotations/instances_val2014.json (or another split's) and the pictures in a folder called like the split or
    `images`; or the YOLO form, classes.yaml, images/ and object_detection/ or instance_segmentation/ with a text file for
    each picture. split: "val2014", …; by default whichever is there, the paper's first.
    Errors: FileNotFoundError; ValueError for annotations that are not as they should be.
    """
    top = root_of("coco", root)
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
            box = clipped((x, y, x + w, y + h), size[1], size[0])
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
        return partial(mask_of_runs, np.array(runs, dtype=np.int64), size)
    if not isinstance(segmentation, list) or not all(isinstance(part, np.ndarray) for part in segmentation):
        raise ValueError("its outline is no list of x, y, x, y, …")
    if not all(np.isfinite(part).all() and np.abs(part).max(initial=0) < 1e6 for part in segmentation):
        raise ValueError("its outline has a point far out of the picture")
    return partial(mask_of_outlines, [part for part in segmentation if len(part) > 2], size)


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
                box = clipped((min(xs), min(ys), max(xs), max(ys)), W, H)
            else:
                points, (x, y, w, h) = (), values
                box = clipped(((x - w / 2) * W, (y - h / 2) * H, (x + w / 2) * W, (y + h / 2) * H), W, H)
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
    for number, line in enumerate(text_of(path).splitlines(), 1):
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
    for line in text_of(path).splitlines():
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
