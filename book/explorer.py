"""The explorer's maps: each built-in photograph of known licence by method, layer, class and weights, for `book/explorer.ipynb`.

    python book/explorer.py --dry-run                # how many maps, and how many images through the network at most
    python book/explorer.py                          # make what an earlier run here has not; after a stop it goes on
    python book/explorer.py --photos chelsea coffee  # some photographs only: so two processes share the work
    python book/explorer.py --fresh                  # make everything anew

A browser needs two kinds of files, both classic scripts, which load from a disk as from a server: `index.js` says what there is,
`photos/<name>.js` holds one photograph, its outlines and its maps. A map is side x side bytes, row by row, its highest value 255,
in base64; the page enlarges and colours it. Peak and share inside of an outline are measured here, on the map at full size.
Nothing in these files depends on the day or the machine, rounding aside. Finished maps are kept under `_build/explorer`, and only
from there are they taken: where that folder is empty, as in a fresh clone, a run makes every map again.
"""

from __future__ import annotations

import argparse
import base64
import inspect
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "book")]

import methods  # noqa: E402

from helpers import data, masks, metrics, models, plotting, store  # noqa: E402
from helpers.core import Explainer, to_unit  # noqa: E402
from helpers.data import Photo  # noqa: E402

VERSION = 1  # of the files' format; explorer.js refuses another
PICTURE = 336  # side of the stored photograph in pixels: a multiple of the maps' sides
COARSE, FINE = 28, 56  # sides of a stored map
CLASSES = 3  # asked of each photograph: what is outlined on it, then what the network finds likeliest
OUT, WORK = ROOT / "book" / "_static" / "explorer", ROOT / "_build" / "explorer"

ONE_LAYER, PICTURE_DEEP, MASKED, NOTHING = "features of one layer", "back to the pixels", "masked copies", "explains nothing"


@dataclass(frozen=True)
class Shown:
    """How the explorer shows a method. side: of the stored map; at several layers it is fitted to the layer.

    layered: made at the end of every block; shuffled: made with shuffled weights, too; settings: that differ from the
    defaults, to save time; note: what the first sentence of the function's docstring does not say.
    """

    family: str
    side: int = FINE
    layered: bool = False
    shuffled: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


SHOWN: dict[str, Shown] = {
    "CAM": Shown(ONE_LAYER, COARSE),
    **{name: Shown(ONE_LAYER, layered=True) for name in ("Grad-CAM", "Grad-CAM++", "XGrad-CAM", "LayerCAM")},
    "FullGrad": Shown(PICTURE_DEEP),
    "guided backprop": Shown(PICTURE_DEEP),
    "Guided Grad-CAM": Shown(PICTURE_DEEP),
    "excitation backprop": Shown(PICTURE_DEEP),
    "contrastive excitation backprop": Shown(PICTURE_DEEP),
    "integrated gradients": Shown(PICTURE_DEEP),
    "Gradual Extrapolation of Grad-CAM": Shown(PICTURE_DEEP),
    "Score-CAM": Shown(MASKED, COARSE, shuffled=False),
    "ScoreCAM++": Shown(MASKED, COARSE, shuffled=False),
    "occlusion": Shown(MASKED, COARSE, shuffled=False),
    "RISE": Shown(MASKED, COARSE, shuffled=False, settings={"samples": 1000}, note="Here with 1,000 masks."),
    "SISE": Shown(MASKED, shuffled=False),
    "Ada-SISE": Shown(MASKED, shuffled=False, note="Ada-SISE: SISE with a threshold of its own for each layer's gradients."),
    "layer selection": Shown(MASKED, shuffled=False),
    "extremal perturbation": Shown(MASKED, shuffled=False),
    "edge detector": Shown(NOTHING, shuffled=False),
    "random map": Shown(NOTHING, COARSE, shuffled=False),
    "centred blob": Shown(NOTHING, COARSE, shuffled=False),
}
FUNCTIONS: dict[str, Explainer] = methods.METHODS | methods.NOTHING
# What methods say that look for maps or layers to choose from and find none, as may be with shuffled weights.
NOTHING_TO_SHOW = re.compile("there is nothing to mask with|nothing changes at any")


class Asked(NamedTuple):
    """One map: of which method, at which layer ("" without a choice), for which class ("" where none is asked), which weights."""

    method: str
    layer: str
    name: str
    weights: str

    @property
    def key(self) -> str:
        """The map's name in a photograph's file."""
        return "|".join((slug(self.method), self.layer, self.name, self.weights))


def slug(method: str) -> str:
    """A method's name as it stands in a link: `Grad-CAM++` is `grad-cam-pp`."""
    return re.sub(r"[^a-z0-9]+", "-", method.lower().replace("++", "-pp")).strip("-")


# -------------------------------------------------------------------------------------------------------- what to make


def photographs() -> list[str]:
    """Built-in photographs whose licence is stated: the others are not packed into one more file."""
    return [name for name in data.photo_names() if not data.photo(name).credit.endswith(" unknown")]


def classes_of(photo: Photo, net: models.Classifier, image: Tensor) -> list[tuple[str, float]]:
    """Classes to ask for and their probabilities: what is outlined on the photograph, then the likeliest of the others."""
    likeliest = net.top(image, len(net.classes))
    outlined = {net.classes[net.index(name)] for name in photo.class_names}
    return sorted(likeliest, key=lambda one: one[0] not in outlined)[: max(CLASSES, len(outlined))]


def heights(net: models.Classifier) -> dict[str, int]:
    """The layers at which a method is shown, shallow to deep, and their heights in features."""
    table = models.layer_table(net)
    return {layer: int(height) for layer, height, block in zip(table.layer, table.height, table.block, strict=True) if block}


def asked_of(classes: Sequence[str], layers: Sequence[str], shown: Mapping[str, Shown] = SHOWN) -> Iterator[Asked]:
    """Every map of a photograph. Classes change fastest: masked copies are scored once for all of them."""
    for weights in ("trained", "shuffled"):
        for method, how in shown.items():
            if weights == "shuffled" and not how.shuffled:
                continue
            for layer in layers if how.layered else [""]:
                for name in [""] if how.family == NOTHING else classes if weights == "trained" else classes[:1]:
                    yield Asked(method, layer, name, weights)


def explained(asked: Asked, net: models.Classifier, image: Tensor, shown: Mapping[str, Shown] = SHOWN) -> Tensor:
    """The map `[H, W]` that is asked for, in its method's own units."""
    explain = methods.fitted(asked.method, partial(FUNCTIONS[asked.method], **shown[asked.method].settings), net)
    explain = partial(explain, layer=asked.layer) if asked.layer else explain
    return explain(net, image, net.index(asked.name) if asked.name else None)


def about(method: str, how: Shown) -> str:
    """What a method does, in a sentence: the first of its function's docstring, unless a note says it better."""
    function = FUNCTIONS[method]
    first = (inspect.getdoc(getattr(function, "func", function)) or "").partition("\n")[0]
    sentence = first.split(". ")[0].replace("`", "").rstrip(".") + "."
    return how.note if how.note.startswith(method) else f"{sentence} {how.note}".strip()


# -------------------------------------------------------------------------------------------------------- how it is kept


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def packed(saliency: Tensor, side: int, truths: Sequence[Tensor]) -> dict[str, Any]:
    """A map `[H, W]` for the page: bytes of its positive part, where its peak is, and how much of it lies in each truth.

    peak: the first highest pixel as shares of width and height; inside: `metrics.energy_inside` of each truth `[H, W]`; hit:
    whether the peak lies in it. A map without positive values, or a constant one, is blank.
    """
    positive = saliency.detach().cpu().double().relu()
    if not positive.any():
        return {"blank": "it is nowhere above zero, so nothing speaks for the class"}
    values = to_unit(positive)
    if not values.any():
        return {"blank": "it is the same everywhere"}
    small = F.adaptive_avg_pool2d(values[None, None], side)[0, 0]  # [side, side]
    (H, W), (y, x) = values.shape, divmod(int(values.argmax()), values.shape[1])
    return {
        "side": side,
        "data": encoded((small / small.max() * 255).round().to(torch.uint8).numpy().tobytes()),
        "peak": [round((x + 0.5) / W, 3), round((y + 0.5) / H, 3)],
        "inside": [round(metrics.energy_inside(saliency.cpu(), truth), 3) for truth in truths],
        "hit": [bool(truth[y, x] > 0) for truth in truths],
    }


def unpacked(entry: Mapping[str, Any]) -> np.ndarray:
    """The bytes of a packed map, `[side, side]`."""
    return np.frombuffer(base64.b64decode(entry["data"]), np.uint8).reshape(entry["side"], entry["side"])


def jpeg(picture: Image.Image) -> str:
    """A picture squashed to a square, as the network sees it, ready for an `img`."""
    file = io.BytesIO()
    picture.resize((PICTURE, PICTURE), Image.Resampling.LANCZOS).save(file, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + encoded(file.getvalue())


def outlines(photo: Photo, name: str) -> list[list[list[float]]]:
    """The outlines of a class on a photograph: lists of points, as shares of width and height."""
    W, H = photo.picture.size
    found = []
    for thing in photo.things:
        if thing.class_name == name:
            x0, y0, x1, y1 = thing.box
            points = thing.polygon or ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
            found.append([[round(x / W, 4), round(y / H, 4)] for x, y in points])
    return found


def made_from(net: models.Classifier, photo: Photo, shown: Mapping[str, Shown]) -> str:
    """A short name for all that a photograph's maps depend on: the code that makes them, torch, weights, photograph, settings."""
    files = [*sorted((ROOT / "helpers").glob("*.py")), Path(methods.__file__)]
    code = [store.short(path.read_bytes()) for path in files]
    code += [inspect.getsource(function) for function in (explained, packed, entry_of)]
    weights = store.digest(*net.module.state_dict().values())
    seen = [store.short(photo.picture.tobytes()), repr(photo.things), repr(dict(shown)), repr((COARSE, FINE))]
    return store.short(" ".join([torch.__version__, *code, weights, *seen]))


def kept(path: Path, made: str) -> dict[str, Any]:
    """Finished maps of an earlier run by key; a line that a kill cut in two counts for nothing."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["made"] == made:
            found[row["key"]] = row["map"]
    return found


def written(path: Path, text: str) -> None:
    """A whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


# ---------------------------------------------------------------------------------------------------------- the making


def entry_of(
    asked: Asked, net: models.Classifier, image: Tensor, truths: Sequence[Tensor], height: int, shown: Mapping[str, Shown] = SHOWN
) -> dict[str, Any]:
    """A map as the page takes it; blank if the method finds nothing to make one of. height: of the layer's features.

    Errors: every other one of the method's.
    """
    side = shown[asked.method].side
    if asked.layer:
        side = COARSE if height <= COARSE else FINE
    try:
        return packed(explained(asked, net, image, shown), side, truths)
    except ValueError as error:
        if not NOTHING_TO_SHOW.search(str(error)):
            raise
        return {"blank": str(error)}


def photo_file(
    photo: Photo, net: models.Classifier, work: Path, *, shown: Mapping[str, Shown] = SHOWN, say: Any = print
) -> dict[str, Any]:
    """All that the page shows of one photograph. work: the folder for finished maps, where a stopped run goes on."""
    image = net.preprocess(photo.picture)
    classes = classes_of(photo, net, image)
    names = [name for name, _ in classes]
    lines = {name: outlines(photo, name) for name in names}
    truths = [photo.mask(name, (net.side, net.side)) for name in names if lines[name]]
    nets = {"trained": net, "shuffled": models.randomised(net)}
    tall = heights(net)
    made, path = made_from(net, photo, shown), work / f"{photo.name}.jsonl"
    done, began = kept(path, made), time.perf_counter()
    wanted = list(asked_of(names, list(tall), shown))
    say(f"{photo.name}: {len(wanted)} maps, {sum(asked.key in done for asked in wanted)} of them kept from before")
    path.parent.mkdir(parents=True, exist_ok=True)
    with masks.shared(), open(path, "a", encoding="utf-8") as file:
        for i, asked in enumerate(wanted, 1):
            if asked.key in done:
                continue
            entry = entry_of(asked, nets[asked.weights], image, truths, tall.get(asked.layer, 0), shown)
            done[asked.key] = entry
            if "blank" in entry:
                say(f"{photo.name}: {asked.key}: {entry['blank']}")
            file.write("\n" + json.dumps({"made": made, "key": asked.key, "map": done[asked.key]}, allow_nan=False))
            file.flush()
            if i % 20 == 0 or i == len(wanted):
                say(f"{photo.name}: {i} of {len(wanted)} maps, {time.perf_counter() - began:.0f} s")
    return {
        "version": VERSION,
        "id": photo.name,
        "title": photo.title,
        "credit": photo.credit,
        "classes": [{"name": name, "p": round(p, 3), "outlines": lines[name]} for name, p in classes],
        "areas": [round(float(truth.mean()), 3) for truth in truths],
        "picture": jpeg(photo.picture),
        "maps": {asked.key: done[asked.key] for asked in wanted},
    }


CALL = "SEEING_WHY_EXPLORER_PHOTO("


def as_script(found: Mapping[str, Any]) -> str:
    """A photograph's file: a call with all that is known of it. JSON in ASCII is a part of JavaScript."""
    return f"{CALL}{json.dumps(found, separators=(',', ':'), allow_nan=False)});\n"


def from_script(path: Path) -> dict[str, Any]:
    """What a photograph's file holds."""
    return json.loads(path.read_text(encoding="utf-8").removeprefix(CALL).rstrip().removesuffix(");"))


def index_of(net: models.Classifier, photos: Sequence[Mapping[str, Any]], shown: Mapping[str, Shown] = SHOWN) -> dict[str, Any]:
    """What there is to choose from, and the colours of the maps."""
    colours = colormaps[plotting.MAP_COLOURS](np.arange(256), bytes=True)[:, :3]  # [256, 3]
    tall = heights(net)
    return {
        "version": VERSION,
        "network": net.name,
        "picture": PICTURE,
        "colours": encoded(colours.tobytes()),
        "layers": [{"id": layer, "name": f"{layer} ({height} × {height})"} for layer, height in tall.items()],
        "methods": [
            {
                "id": slug(method), "name": method, "family": how.family, "about": about(method, how),
                "layered": how.layered, "asks": how.family != NOTHING,
            }
            for method, how in shown.items()
        ],
        "photos": [
            {key: one[key] for key in ("id", "title", "credit")} | {"classes": [c["name"] for c in one["classes"]]}
            for one in photos
        ],
    }  # fmt: skip


def make(
    names: Sequence[str], net: models.Classifier, out: Path = OUT, work: Path = WORK, *, shown: Mapping[str, Shown] = SHOWN,
    photo: Any = data.photo, order: Sequence[str] = (), say: Any = print,
) -> None:  # fmt: skip
    """Make these photographs' files, and the index of all that are there. order: of the photographs in the index."""
    for name in names:
        text = as_script(photo_file(photo(name), net, work, shown=shown, say=say))
        written(out / "photos" / f"{name}.js", text)
        say(f"{name}: {len(text) / 1e3:.0f} kB")
    there = [out / "photos" / f"{name}.js" for name in order or names]
    found = index_of(net, [from_script(path) for path in there if path.is_file()], shown)
    text = json.dumps(found, separators=(",", ":"), allow_nan=False)
    written(out / "index.js", f"window.SEEING_WHY_EXPLORER = {text};\n")
    total = sum(path.stat().st_size for path in out.rglob("*.js"))
    say(f"{len(found['photos'])} photographs, {total / 1e6:.2f} MB in {out}")


def reckoned(names: Sequence[str], net: models.Classifier) -> tuple[int, int]:
    """(maps, images through the network at most) of these photographs, from the passes that were counted for each method."""
    table = data.results("methods")
    counted = table[table["network"] == net.name].set_index("method")["forwards"]
    layers, n, passes = list(heights(net)), 0, 0
    for name in names:
        classes = classes_of(data.photo(name), net, net.preprocess(data.photo(name).picture))
        for asked in asked_of([c for c, _ in classes], layers):
            n += 1
            passes += SHOWN[asked.method].settings.get("samples") or int(counted[asked.method])
    return n, passes


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", nargs="+", metavar="NAME", help="some of the built-in photographs; all by default")
    parser.add_argument("--network", default="efficientnet_lite0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=WORK, help="where finished maps are kept, so that a stopped run goes on")
    parser.add_argument("--fresh", action="store_true", help="forget what is kept of these photographs")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(words)
    every = photographs()
    names = options.photos or every
    if strangers := sorted(set(names) - set(every)):
        raise SystemExit(f"no photograph {', '.join(strangers)} for the explorer; there are: {', '.join(every)}")
    net = models.load(options.network, device=options.device)
    if options.dry_run:
        n, passes = reckoned(names, net)
        print(f"{len(names)} photographs, {n:,} maps, at most {passes:,} images through {net.name}: classes share masked copies")
        return
    for name in names if options.fresh else []:
        (options.work / f"{name}.jsonl").unlink(missing_ok=True)
    make(names, net, options.out, options.work, order=every, say=partial(print, flush=True))


if __name__ == "__main__":
    main()
