"""Pictures: the built-in photographs, any image file or folder of the reader's, and the papers' tables.

Nothing here downloads. Pictures are PIL images in RGB; a network's `preprocess` makes tensors of them. Whole data sets, by
name, are in `datasets`.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from skimage.draw import polygon
from torch import Tensor

MAX_PIXELS = 100_000_000
_ALSO = {".jfif", ".avif", ".heic", ".heif"}  # where the installed Pillow opens them
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"} | {
    suffix for suffix, kind in Image.registered_extensions().items() if suffix in _ALSO and kind in Image.OPEN
}


@dataclass(frozen=True)
class Thing:
    """One annotated object: class name, box (x0, y0, x1, y1) and polygon ((x, y), …) in pixels of the stored picture.

    pixels: where it is known pixel by pixel, a function that gives `[H, W]` of False and True, made when asked for;
    difficult, truncated: PASCAL VOC's marks for an object that is hard to recognise, or goes on beyond the picture or
    behind something. COCO's crowds are marked difficult.
    """

    class_name: str
    box: tuple[float, float, float, float]
    polygon: tuple[tuple[float, float], ...] = ()
    pixels: Callable[[], np.ndarray] | None = None
    difficult: bool = False
    truncated: bool = False

    def mask(self, stored: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """`[H, W]` of 0 and 1 for a picture of `stored` (H, W) squashed to `size` (H, W): pixels, else polygon, else box."""
        H, W = size
        if self.pixels is not None:
            known = self.pixels()
            if known.shape != tuple(stored):
                raise ValueError(f"the mask of {self.class_name!r} is {list(known.shape)}, its picture {list(stored)}")
            rows, columns = ((2 * np.arange(n) + 1) * o // (2 * n) for n, o in zip(size, stored, strict=True))
            return torch.from_numpy(known[rows][:, columns].astype(np.float32))  # [H, W]
        x0, y0, x1, y1 = self.box
        outline = np.array(self.polygon or ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))  # [points, 2], at pixel edges
        x, y = (outline * (W / stored[1], H / stored[0]) - 0.5).T  # a pixel is in if its centre is
        mask = torch.zeros(H, W)
        mask[polygon(y, x, (H, W))] = 1
        return mask


@dataclass(frozen=True)
class Photo:
    """A picture with what is known of it. `things` may be empty; `credit` names author and licence.

    source: the picture, its file, or a function that makes it. What is not in memory is read or made anew each time it
    is asked for, so that a set of 50,000 is a list of names. class_names: what is in the picture, with or without outline.
    """

    name: str
    source: Image.Image | Path | Callable[[], Image.Image]
    things: tuple[Thing, ...] = ()
    title: str = ""
    credit: str = ""
    class_names: tuple[str, ...] = ()

    @property
    def picture(self) -> Image.Image:
        """The picture in RGB. Errors: those of `read_image`."""
        if isinstance(self.source, Image.Image):
            return to_rgb(self.source)
        return read_image(self.source) if isinstance(self.source, Path) else self.source()

    def mask(self, class_name: str, size: tuple[int, int] | None = None, *, difficult: bool = True) -> Tensor:
        """Where the class is: `[H, W]` of 0 and 1, the union of its things.

        size: (H, W) to squash to, such as a network's input; the picture's own by default; difficult: count things so
        marked. Errors: ValueError if it isn't there.
        """
        here = [t for t in self.things if t.class_name == class_name and (difficult or not t.difficult)]
        if not here:
            there = ", ".join(sorted({t.class_name for t in self.things})) or "no annotation"
            raise ValueError(f"{self.name} has no {class_name!r}; it has: {there}")
        W, H = self.picture.size
        return torch.stack([t.mask((H, W), size or (H, W)) for t in here]).amax(0)


def bounds(mask: np.ndarray) -> tuple[float, float, float, float]:
    """The tight box (x0, y0, x1, y1) of a mask `[H, W]` that is not empty, at pixel edges."""
    y, x = np.nonzero(mask)
    return float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)


def data_folder() -> Path:
    """The project's `data/`: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "_data"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "data"


# ------------------------------------------------------------------------------------------- built-in photographs


@lru_cache
def _photo_rows() -> dict[str, list[dict[str, str]]]:
    with open(data_folder() / "photos.csv", newline="", encoding="utf-8") as file:
        rows: dict[str, list[dict[str, str]]] = {}
        for row in csv.DictReader(file):
            rows.setdefault(row["name"], []).append(row)
    return rows


def photo_names() -> tuple[str, ...]:
    """Names of the built-in photographs, all of them shipped inside packages that the book installs anyway."""
    return tuple(_photo_rows())


def photo(name: str) -> Photo:
    """A built-in photograph. Errors: ValueError for an unknown name or a file that is not the one we annotated."""
    if name not in _photo_rows():
        near = difflib.get_close_matches(name, photo_names(), n=3, cutoff=0.3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"no built-in photograph is called {name!r}; {hint}There are: {', '.join(photo_names())}")
    rows = _photo_rows()[name]
    first = rows[0]
    spec = importlib.util.find_spec(first["package"])
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the photograph {name!r} is part of the package {first['package']}, which is not installed")
    path = Path(spec.origin).parent / first["file"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != first["sha256"]:
        raise ValueError(f"{first['file']} of {first['package']} is not the picture whose outlines we drew (another checksum)")
    things = []
    for row in rows:
        points = [tuple(float(v) for v in point.split(",")) for point in row["polygon"].split()]
        things.append(Thing(row["class_name"], tuple(float(row[k]) for k in ("x0", "y0", "x1", "y1")), tuple(points)))  # type: ignore[arg-type]
    credit = f"{first['author']}, {first['licence']}"
    return Photo(
        name, read_image(path), tuple(things), first["title"], credit, tuple(dict.fromkeys(t.class_name for t in things))
    )


def side_by_side(left: Photo, right: Photo, *, height: int = 448) -> Photo:
    """Two photographs in one picture of the given height, each cropped to a square about its middle, outlines carried along.

    What is known pixel by pixel stays so. A thing of which the crop leaves nothing is no longer there.
    """
    canvas = Image.new("RGB", (2 * height, height))
    things: list[Thing] = []
    for i, one in enumerate((left, right)):
        picture = one.picture
        W, H = picture.size
        cut = min(W, H)
        x, y, scale, shift = (W - cut) / 2, (H - cut) / 2, height / cut, i * height
        canvas.paste(picture.resize((height, height), Image.Resampling.BILINEAR, (x, y, x + cut, y + cut)), (shift, 0))

        def move(
            px: float, py: float, x: float = x, y: float = y, scale: float = scale, shift: int = shift
        ) -> tuple[float, float]:
            return min(max((px - x) * scale, 0), height) + shift, min(max((py - y) * scale, 0), height)

        for t in one.things:
            box = (*move(*t.box[:2]), *move(*t.box[2:]))
            if not (box[0] < box[2] and box[1] < box[3]):
                continue
            moved = replace(t, box=box, polygon=tuple(move(*p) for p in t.polygon))
            if t.pixels is not None:
                known = t.mask((H, W), (H, W)).numpy() > 0  # [H, W], and its size is checked
                centres = (np.arange(height) + 0.5) / scale
                both = np.zeros((height, 2 * height), dtype=bool)
                both[:, shift : shift + height] = known[(y + centres).astype(int)][:, (x + centres).astype(int)]
                if not both.any():
                    continue
                moved = replace(moved, pixels=partial(np.asarray, both))
            things.append(moved)
    names = tuple(dict.fromkeys(t.class_name for t in things))
    return Photo(
        f"{left.name} + {right.name}",
        canvas,
        tuple(things),
        f"{left.title} and {right.title}",
        f"{left.credit}; {right.credit}",
        names,
    )


# ------------------------------------------------------------------------------------------------ files and folders


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """A picture file, opened and not decoded; whatever goes wrong with it, here or in the body, is an error that names it."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is below
            with Image.open(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(f"{opened.width} x {opened.height} pixels; at most {MAX_PIXELS:,} are read")
                yield opened
    except Exception as error:  # a damaged file can raise nearly anything: OSError, SyntaxError, struct.error, …
        raise ValueError(f"{path} could not be read as a picture: {error}") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) as stored, from the file's header alone: nothing is decoded. Errors: those of `read_image`."""
    with opened_image(Path(path)) as opened:
        return opened.height, opened.width


def read_image(path: str | Path, *, upright: bool = True) -> Image.Image:
    """Any picture file as RGB: grey, palette, RGBA (over white), CMYK, 16-bit, EXIF-rotated; the first frame of several.

    upright: turn it as its EXIF mark says; False leaves it as stored, which is how the boxes of data sets see it.
    Errors: FileNotFoundError; ValueError for a file that is no picture, is damaged, or has over 100 million pixels.
    """
    path = Path(path)
    with opened_image(path) as opened:
        picture = ImageOps.exif_transpose(opened) if upright else opened.copy()
        picture.load()
    return to_rgb(picture)


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode in RGB: 16-bit and float values scaled to 0 … 255, transparent parts white."""
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    if picture.mode.startswith(("I", "F")):  # 16-bit, 32-bit, float: scale what is there onto 0 … 255
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        highest = 65535 if picture.mode.startswith("I;16") else values.max()
        top = 65535 if highest > 255 else 1 if picture.mode == "F" and highest <= 1 else 255
        return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def photos_in(folder: str | Path) -> tuple[list[Photo], list[str]]:
    """Every picture in a folder and below it, in order of name, and what was skipped and why.

    Only headers are read here: a file that is damaged further on is an error, naming it, when its picture is asked for.
    A picture's class name is the name of its folder where there are sub-folders (the ImageFolder layout).
    Errors: FileNotFoundError for no folder; ValueError where no picture in it can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    photos, skipped = [], []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()):
        try:
            image_size(path)
        except ValueError as error:
            skipped.append(str(error))
            continue
        names = (path.parent.name,) if path.parent != folder else ()
        photos.append(Photo(str(path.relative_to(folder)), path, class_names=names))
    if not photos:
        raise ValueError(f"no picture in {folder} could be read; skipped: {skipped or 'nothing with a picture suffix is there'}")
    return photos, skipped


# --------------------------------------------------------------------------------------------------- paper tables


def paper_table(bibkey: str, table: str | Iterable[str] | None = None) -> pd.DataFrame:
    """A paper's printed tables, tidy: table, model, dataset, method, metric, value, unit. Errors: ValueError if unknown."""
    path = data_folder() / "papers" / f"{bibkey}.csv"
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.csv"))
        raise ValueError(f"there are no tables of {bibkey!r}; papers with tables: {', '.join(there)}")
    rows = pd.read_csv(path, dtype={"table": str})
    wanted = None if table is None else {table} if isinstance(table, str) else set(table)
    if wanted is not None and not wanted <= set(rows["table"]):
        raise ValueError(f"{bibkey} has no table {sorted(wanted - set(rows['table']))}; it has {sorted(set(rows['table']))}")
    return rows if wanted is None else rows[rows["table"].isin(wanted)].reset_index(drop=True)


def results(chapter: str) -> pd.DataFrame:
    """What we measured for a chapter: columns of `paper_table` and n, ci_low, ci_high, seed, commit, device, date, profile."""
    return pd.read_csv(data_folder() / "results" / f"{chapter}.csv", dtype={"table": str})


def results_per_image(chapter: str) -> pd.DataFrame:
    """The same picture by picture: table, model, dataset, image, target, method, metric, value, seconds, forwards, backwards."""
    wide = pd.read_csv(data_folder() / "results" / "per_image" / f"{chapter}.csv", dtype={"table": str, "image": str})
    who = ["table", "model", "dataset", "image", "target", "method", "seconds", "forwards", "backwards"]
    pieces = []
    for _, rows in wide.groupby(["table", "model", "dataset"], sort=False):
        asked = rows.dropna(axis=1, how="all").columns.difference(who, sort=False)  # a table has its own metrics
        pieces.append(rows.melt(who, asked, "metric", "value"))
    return pd.concat(pieces, ignore_index=True)


def claims(bibkey: str | None = None) -> pd.DataFrame:
    """The claim ledger: one row a claim of a paper, with our measure and the verdict; of one paper, or of all.

    Columns: see data/README.md. `book/claims.py` writes the file. Errors: ValueError for a paper without claims.
    """
    rows = pd.read_csv(data_folder() / "claims.csv")
    if bibkey is None:
        return rows
    if bibkey not in set(rows["paper"]):
        raise ValueError(f"there are no claims of {bibkey!r}; papers with claims: {', '.join(dict.fromkeys(rows['paper']))}")
    return rows[rows["paper"] == bibkey].reset_index(drop=True)
