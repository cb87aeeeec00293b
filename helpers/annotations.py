"""What the annotations of data sets say: XML boxes, run-length codes, outlines, tables; nothing in a file is trusted.

Boxes are (x0, y0, x1, y1) at pixel edges, masks `[H, W]` of False and True.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from skimage.draw import polygon

from helpers.data import Thing

Box = tuple[float, float, float, float]
MAX_ANNOTATION = 10_000_000  # bytes of one XML or MATLAB file: a picture's boxes take a thousandth of that


def text_of(path: Path) -> str:
    """A text file. Errors: ValueError that names it where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error


def rows_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of a CSV file. Errors: ValueError that names it."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            for row in rows:
                if row:
                    yield rows.line_num, [field.strip() for field in row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV file: {error}") from error


def xml_of(path: Path) -> ElementTree.Element:
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


def clipped(box: Sequence[float], width: float = math.inf, height: float = math.inf) -> Box | None:
    """The part of the box that is in the picture, None if nothing is. Errors: ValueError for a number that is none."""
    if not all(math.isfinite(v) for v in box):
        raise ValueError(f"box {list(box)}")
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def voc_things(path: Path, notes: list[str], names: dict[str, str] | None = None) -> list[Thing]:
    """The objects of a VOC annotation; `names` translates what it calls them. Its boxes count pixels from 1, ends included."""

    def number(element: ElementTree.Element | None, *keys: str) -> list[float]:
        found = [element.findtext(key) if element is not None else None for key in keys]
        if None in found:
            raise ValueError(f"no {', '.join(keys)}")
        return [float(value or "") for value in found]

    tree, things = xml_of(path), []
    try:
        W, H = number(tree.find("size"), "width", "height")
        for thing in tree.iter("object"):
            name = (thing.findtext("name") or "").strip()
            if names is not None and name not in names:
                raise ValueError(f"class {name!r}")
            x0, y0, x1, y1 = number(thing.find("bndbox"), "xmin", "ymin", "xmax", "ymax")
            box = clipped((x0 - 1, y0 - 1, x1, y1), W, H)
            if box is None:
                notes.append(f"{name!r} in {path}")
                continue
            marks = [thing.findtext(mark, "0").strip() == "1" for mark in ("difficult", "truncated")]
            things.append(Thing(names[name] if names else name, box, difficult=marks[0], truncated=marks[1]))
    except ValueError as error:
        raise ValueError(f"{path} has an object or size that is not as PASCAL VOC writes them: {error}") from error
    return things


def mask_of_runs(counts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`[H, W]` of False and True from the lengths of runs, the first of False, down the columns from left to right."""
    H, W = size
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(W, H).T


def mask_of_outlines(outlines: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """`[H, W]`: the union of outlines `[points, 2]`, x and y at pixel edges; a pixel is in if its centre is."""
    mask = np.zeros(size, dtype=bool)
    for outline in outlines:
        x, y = (np.asarray(outline, dtype=np.float64) - 0.5).T
        mask[polygon(y, x, size)] = True
    return mask


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


def crop_mask(text: str, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    x0, y0, x1, y1 = box
    return rle_decode(text, size)[y0:y1, x0:x1]


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
