"""Data sets by name: the papers' own, the reader's, and drawn ones; and what training and evaluation ask of any of them.

A set is a list of `Photo`s that know their files: opening one decodes no picture. Nothing downloads.
"""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from helpers import data, drawn, readers
from helpers.data import Photo
from helpers.readers import PLACES


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
    splits: tuple[str, ...] = ()


def _built_in() -> list[Photo]:
    return [data.photo(name) for name in data.photo_names()]


def _in_folder(root: str | Path) -> list[Photo]:
    photos, skipped = data.photos_in(readers.root_of("folder", root))
    for line in skipped:
        print("skipped:", line)
    return photos


def _drawn(
    what: str, protocol: str, reader: Callable[..., list[Photo]], *, classes: tuple[str, ...] = drawn.SCENE_CLASSES,
    annotation: str = "exact pixels", licence: str = "MIT; backgrounds CC0 or public domain",
) -> DataSet:  # fmt: skip
    """A set that is drawn: what all of them have in common, and what they have not."""
    return DataSet(
        what,
        classes,
        "any number",
        annotation,
        licence,
        "helpers/drawn.py",
        "nothing: it is drawn",
        protocol,
        reader,
        kind="drawn",
    )


ASIRRA = "Kaggle's rules of the competition; photographs of the Asirra project"
SETS = {
    "photos": DataSet(
        what="photographs inside packages that the book installs anyway",
        classes=(),
        pictures=f"{len(data.photo_names())}",
        annotation="outlines drawn by hand",
        licence="CC0, public domain, CC BY 2.0; motorcycle: none stated; parrot: by report (data/README.md)",
        source="packages scikit-image, scikit-learn, matplotlib, plenoptic",
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
        source=PLACES["folder"][0],
        layout=PLACES["folder"][1],
        protocol="none",
        reader=_in_folder,
    ),
    "imagenet": DataSet(
        what="ImageNet (ILSVRC2012), validation",
        classes=readers.IMAGENET_CLASSES,
        pictures="50,000",
        annotation="one class a picture, boxes of its things",
        licence="non-commercial research and education, on request",
        source=PLACES["imagenet"][0],
        layout=PLACES["imagenet"][1],
        protocol="layer selection: 3,000 drawn at random, VGG16; ScoreCAM++: Tables 3 to 8, ResNet-18, VGG-19, ViT-B/16",
        reader=readers.imagenet,
    ),
    "dogs_vs_cats": DataSet(
        what="Dogs vs. Cats (Kaggle)",
        classes=readers.PET_CLASSES,
        pictures="25,000 to train on, 12,500 without labels",
        annotation="one class a picture",
        licence=ASIRRA,
        source=PLACES["dogs_vs_cats"][0],
        layout=PLACES["dogs_vs_cats"][1],
        protocol="ScoreCAM++: Tables 1 and 2, ResNet-18 and VGG-19 fine-tuned",
        reader=readers.dogs_vs_cats,
        splits=("train", "test"),
    ),
    "voc2007": DataSet(
        what="PASCAL VOC 2007",
        classes=readers.VOC_CLASSES,
        pictures="4,952 to test on, 5,011 to train on",
        annotation="boxes, marked difficult or truncated",
        licence="flickr's terms of use",
        source=PLACES["voc2007"][0],
        layout=PLACES["voc2007"][1],
        protocol="SISE: Table 1, all 4,952 test pictures, VGG16 and ResNet-50 for several labels",
        reader=readers.voc2007,
        splits=("train", "val", "trainval", "test"),
    ),
    "severstal": DataSet(
        what="Severstal steel sheets, in crops of 256 x 256",
        classes=readers.STEEL_CLASSES,
        pictures="12,568 sheets of 1600 x 256",
        annotation="exact pixels of every defect",
        licence="Kaggle's rules of the competition",
        source=PLACES["severstal"][0],
        layout=PLACES["severstal"][1],
        protocol="SISE: Table 2, 1,381 crops with a defect, classes balanced, ResNet-101",
        reader=readers.severstal,
    ),
    "neu_seg": DataSet(
        what="NEU-Seg: hot-rolled steel with three kinds of defect",
        classes=readers.NEU_CLASSES,
        pictures="some thousands of 200 x 200",
        annotation="exact pixels of every defect",
        licence="for research; to be cited",
        source=PLACES["neu_seg"][0],
        layout=PLACES["neu_seg"][1],
        protocol="none: our second steel set",
        reader=readers.neu_seg,
        splits=("training", "test"),
    ),
    "coco": DataSet(
        what="COCO objects",
        classes=(),
        pictures="val2014: 40,504; val2017: 5,000",
        annotation="boxes and outlines of 80 classes",
        licence="annotations CC BY 4.0; flickr's terms of use",
        source=PLACES["coco"][0],
        layout=PLACES["coco"][1],
        protocol="SISE: val2014, in the appendix of its preprint",
        reader=readers.coco,
        splits=("train2014", "val2014", "train2017", "val2017"),
    ),
    "scenes": _drawn("shapes on photographs and textures, one class a picture", "ground truth that no paper has", drawn.scenes),
    "scenes_tagged": _drawn(
        "the scenes with a coloured tag that gives the class away",
        "a shortcut whose place is known",
        partial(drawn.scenes, tag="own"),
        annotation="exact pixels, of the tag too",
    ),
    "scenes_moved_tag": _drawn(
        "the scenes with a tag that has moved to another class: it lies",
        "what a network with the shortcut gets wrong",
        partial(drawn.scenes, tag="other"),
        annotation="exact pixels, of the tag too",
    ),
    "scenes_multi": _drawn(
        "shapes on photographs and textures, up to three classes a picture",
        "stand-in for PASCAL VOC",
        partial(drawn.scenes, multi=True),
    ),
    "steel": _drawn(
        "grey surfaces with one of four defects",
        "stand-in for Severstal",
        drawn.steel,
        classes=drawn.STEEL_CLASSES,
        licence="MIT",
    ),
}
DRAWN = 100  # pictures of a drawn set where nobody says how many


def load(
    name: str, root: str | Path | None = None, n: int | None = None, seed: int = 0, split: str | None = None
) -> list[Photo]:  # fmt: skip
    """The pictures that a chapter runs on, by the name of their set: one of SETS.

    root: the folder with the reader's copy, where the set has one. n: how many, drawn without repetition from `seed`; None
    or 0 takes all, of a drawn set 100. split: one of the set's `splits`; by default the one that the papers test on, and of
    Dogs vs. Cats the one with labels. The built-in ones come in their own order, so that small runs show the same pictures.
    Of "folder", what is damaged is skipped and printed: those that are taken are decoded once, one at a time.
    Errors: ValueError for an unknown set or split, a set without its root, or one with fewer than n; TypeError for a number
    that is none; those of the set's reader.
    """
    if name not in SETS:
        near = difflib.get_close_matches(name, SETS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"no data set is called {name!r}; {hint}There are: {', '.join(SETS)}")
    one = SETS[name]
    if root is not None and not isinstance(root, (str, Path)):
        raise TypeError(f"root is a folder, not {root!r}: the number of pictures is n=…")
    for what, number in (("n", n or 0), ("seed", seed)):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 0:
            raise TypeError(f"{what} is a whole number from 0 on, not {number!r}")
    if split is not None and split not in one.splits:
        there = f"it has {', '.join(one.splits)}" if one.splits else "it has none"
        raise ValueError(f"data set {name!r} has no split {split!r}; {there}")
    if one.kind == "drawn":
        return one.reader(n or DRAWN, seed=seed)
    if one.kind == "files" and not root:
        raise ValueError(f"data set {name!r} needs a root (DATA_ROOT), a folder with {one.layout}; it is from {one.source}")
    found = one.reader(*(given for given in (root, split) if given)) if one.kind == "files" else one.reader()
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
