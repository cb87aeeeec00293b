"""Pictures drawn by us, whose truth is known to the pixel: scenes of shapes, steel-like surfaces, bags of digits.

Nothing is stored. Picture i of a set follows from (seed, i, size) and the settings: the same in every process and whatever
the number of pictures. At another size of the same proportions what is where stays, scaled; noise and patterns are others.
A plan is made first, cheap enough for thousands; the pixels come when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.draw import disk
from skimage.filters import gaussian
from torch import Tensor

from helpers.data import Photo, Thing, bounds, photo, read_image

Points = np.ndarray  # [points, 2] as x, y
Drawing = tuple[Image.Image, tuple[np.ndarray, ...]]  # the picture and a bool mask [H, W] for each of its things

STREAMS = {"scenes": 1, "steel": 2, "bags": 3, "tags": 9}  # so that one seed gives unrelated sets
BACKGROUNDS = ("chelsea", "coffee", "camera", "astronaut", "rocket", "clock")  # photographs in the public domain or CC0
TEXTURES = ("brick", "grass", "gravel")  # scikit-image's, CC0


def rng(kind: str, seed: int, index: int = 0) -> np.random.Generator:
    """The random stream of one picture of one set."""
    return np.random.default_rng((STREAMS[kind], seed, index))


# ------------------------------------------------------------------------------------------------------ the shapes


def _around(n: int, radius: float = 1.0, start: float = 0.0, stop: float = 2 * np.pi) -> Points:
    t = np.linspace(start, stop, n, endpoint=stop - start < 6.28)
    return radius * np.stack([np.cos(t), np.sin(t)], 1)


def _star() -> Points:
    points = _around(10)
    points[1::2] *= 0.42
    return points


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2.5], 1) / 17


def _crescent() -> Points:
    outer, inner = _around(40, 1.0, 0.55, 2 * np.pi - 0.55), _around(30, 0.78, 0.73, 2 * np.pi - 0.73)
    return np.concatenate([outer, (inner + (0.27, 0))[::-1]])


# class name -> outline in about the unit circle (a heart's tip is at 1.07), before turning and scaling
SHAPES: dict[str, Points] = {
    "disc": _around(48),
    "square": _around(4) * 0.95,
    "triangle": _around(3),
    "star": _star(),
    "cross": np.array(
        [(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)]
    )
    / 3.1,
    "ring": np.concatenate([_around(48), _around(48)[:1], _around(48, 0.55)[:1], _around(48, 0.55)[::-1]]),
    "crescent": _crescent(),
    "heart": _heart(),
    "arrow": np.array([(-10, -3), (1, -3), (1, -8), (10, 0), (1, 8), (1, 3), (-10, 3)]) / 10.5,
    "hourglass": np.array([(-7, -7), (7, -7), (1, 0), (7, 7), (-7, 7), (-1, 0)]) / 9.5,
}
SCENE_CLASSES = tuple(SHAPES)
# one colour for each class: what gives it away in the sets with tags
TAG_COLOURS = dict(
    zip(
        SCENE_CLASSES,
        ((230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 110, 220), (245, 130, 48),
         (145, 30, 180), (70, 240, 240), (240, 50, 230), (128, 70, 20), (250, 250, 250)),
        strict=True,
    )
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One thing of a planned scene: its kind, outline in pixels (x, y), two colours and the pattern that mixes them."""

    kind: str  # a class name, "distractor" or "tag"
    outline: tuple[tuple[float, float], ...]
    colours: tuple[tuple[int, int, int], tuple[int, int, int]]
    pattern: str = "plain"

    @property
    def box(self) -> tuple[float, float, float, float]:
        (x0, y0), (x1, y1) = np.min(self.outline, 0), np.max(self.outline, 0)
        return float(x0), float(y0), float(x1), float(y1)


@dataclass(frozen=True)
class Scene:
    """All that `draw_scene` needs; equal plans give equal pixels."""

    seed: int
    index: int
    size: tuple[int, int]  # H, W
    background: str
    items: tuple[Item, ...]


def scenes(
    n: int, *, seed: int = 0, size: int | tuple[int, int] = 128, multi: bool = False, distractors: int = 2, tag: str = "none"
) -> list[Photo]:
    """n scenes of shapes on photographs and textures, with the exact visible pixels of every thing.

    size: side, or (H, W). Single-label scenes show one or two shapes of one class, multi-label ones one to four of up to
    three classes; class i mod K comes in picture i, so that classes are balanced. Colour, pattern, place, size and turn
    say nothing of the class. distractors: up to so many things of no class; tag: a small framed square whose colour is
    that of the class ("own"), of another class ("other": the tag lies), of any class ("any": it says
    nothing), or no tag ("none"). Things are called by their class, "distractor" or "tag"; the smallest distractors may have
    no pixel left below 48 pixels. Errors: ValueError for a setting out of range, and for a tag too small to show its colour.
    """
    if tag not in ("none", "own", "other", "any"):
        raise ValueError(f"tag is 'none', 'own', 'other' or 'any', not {tag!r}")
    if multi and tag != "none":
        raise ValueError("a tag gives one class away, so scenes with several classes have none")
    if not 0 <= distractors <= 8:
        raise ValueError(f"a scene takes 0 to 8 distractors, not {distractors}")
    H, W = _checked(n, seed, size)
    if tag != "none" and min(H, W) < 64:
        raise ValueError(f"a tag shows its colour from 64 pixels on; this scene is {W} x {H}")
    photos = []
    for i in range(n):
        plan = plan_scene(seed, i, (H, W), multi, distractors, tag)
        classes = tuple(dict.fromkeys(item.kind for item in plan.items if item.kind in SHAPES))
        things = tuple(
            Thing(item.kind, _clipped(item.box, (H, W)), item.outline, pixels=partial(_pixels, draw_scene, plan, k))
            for k, item in enumerate(plan.items)
        )
        title = f"A drawn scene with {' and '.join(classes)}"
        photos.append(Photo(f"scene {seed}-{i}", partial(_picture, draw_scene, plan), things, title, "drawn by us", classes))
    return photos


def _checked(n: int, seed: int, size: int | tuple[int, int]) -> tuple[int, int]:
    H, W = (size, size) if isinstance(size, int) else size
    if n < 1:
        raise ValueError(f"a set has at least one picture, not {n}")
    if seed < 0:
        raise ValueError(f"a seed is 0 or more, not {seed}")
    if not 32 <= min(H, W) <= max(H, W) <= 2048:
        raise ValueError(f"drawn pictures are 32 to 2,048 pixels wide and high, not {W} x {H}")
    return H, W


def _clipped(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    return max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(size[1])), min(box[3], float(size[0]))


def tag_of(photo: Photo) -> str:
    """The class whose colour the tag of a drawn scene has. Errors: ValueError for a picture without a tag."""
    plan = next(iter(getattr(photo.source, "args", ())[1:]), None)
    tags = [item for item in getattr(plan, "items", ()) if item.kind == "tag"]
    if not tags:
        raise ValueError(f"{photo.name} has no tag: drawn.scenes(…, tag='own') gives scenes with one")
    return next(name for name, colour in TAG_COLOURS.items() if colour == tags[0].colours[0])


def _picture(draw: Callable[..., Drawing], plan: object) -> Image.Image:
    return draw(plan)[0].copy()  # who draws on it does not draw into the cache


def _pixels(draw: Callable[..., Drawing], plan: object, k: int) -> np.ndarray:
    return draw(plan)[1][k]


def plan_scene(seed: int, index: int, size: tuple[int, int], multi: bool, distractors: int, tag: str) -> Scene:
    """What is where in scene `index`. The tag's stream is its own: the same scene with another tag is otherwise the same."""
    r = rng("scenes", seed, index)
    H, W = size
    main = SCENE_CLASSES[index % len(SCENE_CLASSES)]
    if multi:
        others = [c for c in SCENE_CLASSES if c != main]
        kinds = [main, *r.permutation(others)[: r.integers(0, 3)]]
        kinds += [str(r.choice(kinds))] * int(r.random() < 0.3)
    else:
        kinds = [main] * (1 + int(r.random() < 0.3))
    background = str(r.choice([*BACKGROUNDS, *TEXTURES, "noise", "gradient"]))
    kinds = [str(k) for k in kinds] + ["distractor"] * int(r.integers(distractors + 1))
    taken: list[tuple[float, float, float]] = []
    items = []
    for kind in kinds:
        place = _free_place(r, (H, W), taken, (0.12, 0.22) if kind != "distractor" else (0.06, 0.16))
        if place is not None:
            items.append(
                Item(kind, _outline(r, kind, place), _colours(r), str(r.choice(("plain", "stripes", "speckle", "fade"))))
            )
    if tag != "none":
        t = rng("tags", seed, index)
        side = 0.05 * min(H, W)
        place = _free_place(t, (H, W), taken, (0.05, 0.05)) or (side * 1.5, side * 1.5, side)
        choices = {"own": [main], "other": [c for c in SCENE_CLASSES if c != main], "any": list(SCENE_CLASSES)}[tag]
        shown = str(t.choice(choices))
        x, y, _ = place
        corners = tuple(
            (float(round(x + dx * side)), float(round(y + dy * side))) for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        )
        items.append(Item("tag", corners, (TAG_COLOURS[shown], (0, 0, 0))))
    return Scene(seed, index, (H, W), background, tuple(items))


def _free_place(
    r: np.random.Generator, size: tuple[int, int], taken: list[tuple[float, float, float]], radii: tuple[float, float]
) -> tuple[float, float, float] | None:
    """(x, y, radius) of a circle in the picture that overlaps none of `taken` by much; None where there is no room left."""
    H, W = size
    for attempt in range(60):
        radius = r.uniform(*radii) * min(H, W) * (1 if attempt < 30 else 0.75)
        x, y = r.uniform(radius, W - radius), r.uniform(radius, H - radius)
        if all(np.hypot(x - x1, y - y1) > 0.95 * (radius + r1) for x1, y1, r1 in taken):
            taken.append((x, y, radius))
            return x, y, radius
    return None


def _outline(r: np.random.Generator, kind: str, place: tuple[float, float, float]) -> tuple[tuple[float, float], ...]:
    """The shape turned, scaled and moved to its place; for a distractor an irregular blob or a stick."""
    x, y, radius = place
    points = SHAPES.get(kind)
    if points is None:
        if r.random() < 0.4:
            points = np.array([(-1, -0.12), (1, -0.12), (1, 0.12), (-1, 0.12)])
        else:
            t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            waves = sum(a * np.cos(k * t + r.uniform(0, 6.3)) for k, a in ((1, 0.2), (2, 0.3), (3, 0.12)))
            points = _around(40) * np.clip(0.65 + waves, 0.2, 1)[:, None]
    a = r.uniform(0, 2 * np.pi)
    turn = np.array([(np.cos(a), np.sin(a)), (-np.sin(a), np.cos(a))])
    return tuple((float(px), float(py)) for px, py in points @ turn * radius + (x, y))


def _colours(r: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    first = r.integers(0, 256, 3)
    second = np.clip(first + r.integers(-70, 71, 3), 0, 255)
    return tuple(map(int, first)), tuple(map(int, second))  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------- drawing scenes


@lru_cache(maxsize=8)  # a picture and its masks are asked for one after the other; at 2,048 pixels they take 70 MB
def draw_scene(plan: Scene) -> Drawing:
    """The picture of a plan and, for each item, the pixels in which it is seen (what lies over it is taken away)."""
    r = np.random.default_rng((STREAMS["scenes"], 1, plan.seed, plan.index))
    canvas = background(plan.background, plan.size, r)  # [H, W, 3] in 0 … 255
    masks: list[np.ndarray] = []
    for item in plan.items:
        alpha, (rows, columns) = coverage(item.outline, plan.size)  # [h, w] in [0, 1], in its window
        under = canvas[rows, columns]
        canvas[rows, columns] = under + alpha[..., None] * (_fill(item, alpha.shape, under, alpha, r) - under)
        seen = np.zeros(plan.size, dtype=bool)
        seen[rows, columns] = alpha >= 0.5
        masks = [mask & ~seen for mask in masks] + [seen]
    canvas = (canvas - 127.5) * r.uniform(0.85, 1.1) + 127.5 + r.uniform(-12, 12) + r.normal(0, r.uniform(1, 6), canvas.shape)
    for mask in masks:
        mask.setflags(write=False)  # the cache hands out the same arrays again
    return Image.fromarray(canvas.clip(0, 255).round().astype(np.uint8)), tuple(masks)


def coverage(
    outline: tuple[tuple[float, float], ...], size: tuple[int, int], fine: int = 4
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """How much of each pixel an outline covers: `[h, w]` in [0, 1], and its window (rows, columns) in a picture of `size`."""
    H, W = size
    x0, y0 = np.clip(np.floor(np.min(outline, 0)).astype(int), 0, (W - 1, H - 1))
    x1, y1 = np.clip(np.ceil(np.max(outline, 0)).astype(int) + 1, (x0 + 1, y0 + 1), (W, H))
    patch = Image.new("L", ((x1 - x0) * fine, (y1 - y0) * fine))
    ImageDraw.Draw(patch).polygon([((x - x0) * fine - 0.5, (y - y0) * fine - 0.5) for x, y in outline], fill=255)
    return np.asarray(patch.reduce(fine), dtype=np.float32) / 255, (slice(y0, y1), slice(x0, x1))


def _fill(item: Item, shape: tuple[int, ...], under: np.ndarray, alpha: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """Colours `[h, w, 3]` of an item, kept apart from the background under it; a tag is one colour in a black and white frame."""
    h, w = shape[:2]
    y, x = np.mgrid[:h, :w]
    if item.kind == "tag":
        inside = lambda d: (x >= d) & (x < w - 1 - d) & (y >= d) & (y < h - 1 - d)  # noqa: E731
        frame = np.where(inside(1)[..., None], 255.0, 0.0)
        return np.where(inside(2)[..., None], np.array(item.colours[0], dtype=float), frame)
    first, second = (np.array(c, dtype=float) for c in item.colours)
    mean = under[alpha > 0].mean(0) if (alpha > 0).any() else under.mean((0, 1))
    if np.abs(first - mean).mean() < 60:  # too like its background: move to the other end of the scale
        shift = np.where(mean > 127, -90.0, 90.0)
        first, second = first + shift, second + shift
    mix = {
        "plain": np.zeros(shape),
        "stripes": (np.sin((x * np.cos(p := r.uniform(0, 3.14)) + y * np.sin(p)) * 2 * np.pi / max(4, w / 5)) > 0) * 1.0,
        "speckle": r.random(shape),
        "fade": x / max(w - 1, 1),
    }[item.pattern]
    return (first + mix[..., None] * (second - first)).clip(0, 255)


@lru_cache
def _source(name: str) -> np.ndarray:
    """A photograph or texture as `[H, W, 3]`, at most 640 pixels long: what backgrounds are cut from."""
    if name in BACKGROUNDS:
        picture = photo(name).picture
    else:
        import skimage

        picture = read_image(f"{skimage.__path__[0]}/data/{name}.png")
    picture.thumbnail((640, 640))
    return np.asarray(picture, dtype=np.uint8)


def background(name: str, size: tuple[int, int], r: np.random.Generator) -> np.ndarray:
    """`[H, W, 3]`, 0 to 255: a random cut of a photograph or texture, turned or mirrored; smooth noise; or a gradient."""
    H, W = size
    if name in BACKGROUNDS + TEXTURES:
        whole = _source(name)
        cut = int(min(whole.shape[:2]) * r.uniform(0.35, 0.9))
        y, x = (int(r.integers(side - cut + 1)) for side in whole.shape[:2])
        piece = np.rot90(whole[y : y + cut, x : x + cut], int(r.integers(4)))[:, :: int(r.choice((-1, 1)))]
        made = np.asarray(Image.fromarray(np.ascontiguousarray(piece)).resize((W, H), Image.Resampling.BILINEAR), dtype=float)
        return made * r.uniform(0.7, 1.0, 3) if name in TEXTURES else made.copy()
    if name == "gradient":
        a, b = r.uniform(0, 255, (2, 3))
        y, x = np.mgrid[:H, :W] / (max(H, W) - 1)
        t = r.uniform(0, 2 * np.pi)
        return a + ((x * np.cos(t) + y * np.sin(t) + 1) / 2.4)[..., None] * (b - a)
    return 127 + _smooth_noise(r, (H, W, 3), int(r.integers(3, 24))) * r.uniform(25, 60)


def _smooth_noise(r: np.random.Generator, shape: tuple[int, ...], cells: int) -> np.ndarray:
    """Noise of about unit variance that varies over `cells` cells across the picture: `[H, W]` or `[H, W, C]`."""
    H, W, *channels = shape
    coarse = r.normal(size=(channels[0] if channels else 1, cells + 1, cells + 1)).astype(np.float32)
    layers = [np.asarray(Image.fromarray(c).resize((W, H), Image.Resampling.BICUBIC)) for c in coarse]
    return np.stack(layers, -1) * 1.4 if channels else layers[0] * 1.4


# -------------------------------------------------------------------------------------------------- steel surfaces

STEEL_CLASSES = ("pits", "crack", "scratch", "scale")


@dataclass(frozen=True)
class Surface:
    """All that `draw_steel` needs: the defects in the order in which they are drawn."""

    seed: int
    index: int
    size: tuple[int, int]
    defects: tuple[str, ...]


def steel(n: int, *, seed: int = 0, size: int | tuple[int, int] = 128, multi: bool = False) -> list[Photo]:
    """n grey surfaces like cold-rolled steel, each with a defect: pits, crack, scratch or scale (a rough rolled-in patch).

    A stand-in for Severstal's pictures with the same kinds of difficulty: brushed grain along the rolling direction, uneven
    light, harmless stains. size: side, or (H, W); multi: up to two kinds of defect in a picture, which may overlap. Class
    i mod 4 is in picture i. The defects' masks are made once here already, for the boxes: a millisecond each at 128 pixels.
    Errors: ValueError for a setting out of range.
    """
    H, W = _checked(n, seed, size)
    photos = []
    for i in range(n):
        r = rng("steel", seed, i)
        main = STEEL_CLASSES[i % len(STEEL_CLASSES)]
        other = [str(r.choice([c for c in STEEL_CLASSES if c != main]))] if multi and r.random() < 0.5 else []
        plan = Surface(seed, i, (H, W), (main, *other))
        things = tuple(
            Thing(kind, bounds(defect(plan, k)[1]), pixels=partial(_pixels, draw_steel, plan, k))
            for k, kind in enumerate(plan.defects)
        )
        title = f"A drawn steel surface with {' and '.join(plan.defects)}"
        photos.append(Photo(f"steel {seed}-{i}", partial(_picture, draw_steel, plan), things, title, "drawn by us", plan.defects))
    return photos


@lru_cache(maxsize=8)
def draw_steel(plan: Surface) -> Drawing:
    """The surface and the pixels of each defect."""
    r = np.random.default_rng((STREAMS["steel"], 1, plan.seed, plan.index))
    H, W = plan.size
    grain = gaussian(r.normal(size=(H, W)), (0.5, W / 12)) * np.sqrt(W / 12) * 3  # brushed along the rolling direction
    surface = r.uniform(95, 160) + 14 * _smooth_noise(r, (H, W), int(r.integers(1, 4))) + r.uniform(3, 9) * grain
    for _ in range(r.integers(0, 3)):  # harmless stains: soft, without an edge
        surface += r.uniform(-18, 18) * _bump(r, (H, W), r.uniform(0.08, 0.2))
    changes, masks = zip(*(defect(plan, k) for k in range(len(plan.defects))), strict=True)
    surface += sum(changes)
    surface += r.normal(0, r.uniform(2, 6), (H, W))
    grey = surface.clip(0, 255).round().astype(np.uint8)
    for mask in masks:
        mask.setflags(write=False)
    return Image.fromarray(grey).convert("RGB"), masks


def defect(plan: Surface, k: int) -> tuple[np.ndarray, np.ndarray]:
    """How defect k of a surface changes its grey values, and its pixels, both `[H, W]`; from a random stream of its own."""
    return DEFECTS[plan.defects[k]](np.random.default_rng((STREAMS["steel"], 2 + k, plan.seed, plan.index)), plan.size)


def _bump(r: np.random.Generator, size: tuple[int, int], radius: float) -> np.ndarray:
    H, W = size
    y, x = np.mgrid[:H, :W]
    cy, cx, s = r.uniform(0, H), r.uniform(0, W), radius * min(H, W)
    return np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * s * s))


def _pits(r: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A loose cluster of small dark round holes."""
    H, W = size
    s = min(H, W)
    cy, cx, spread = r.uniform(0.25, 0.75) * H, r.uniform(0.25, 0.75) * W, r.uniform(0.08, 0.2) * s
    holes = np.zeros(size)
    for _ in range(r.integers(8, 28)):
        rows, columns = disk((r.normal(cy, spread), r.normal(cx, spread)), max(1.0, r.uniform(0.008, 0.022) * s), shape=size)
        holes[rows, columns] = 1
    return -r.uniform(55, 95) * gaussian(holes, 0.5), holes > 0


def _walk(r: np.random.Generator, size: tuple[int, int], steps: int, wobble: float) -> list[tuple[float, float]]:
    """A jagged path (x, y) that starts in the inner part of the picture."""
    H, W = size
    x, y, a, step = r.uniform(0.2, 0.8) * W, r.uniform(0.2, 0.8) * H, r.uniform(0, 2 * np.pi), 0.035 * min(H, W)
    path = [(x, y)]
    for _ in range(steps):
        b = a + r.normal(0, wobble)
        x, y = x + step * np.cos(b), y + step * np.sin(b)
        path.append((x, y))
    return path


def _lines(paths: list[list[tuple[float, float]]], width: float, size: tuple[int, int], fine: int = 4) -> np.ndarray:
    H, W = size
    canvas = Image.new("L", (W * fine, H * fine))
    for path in paths:
        ImageDraw.Draw(canvas).line(
            [(x * fine, y * fine) for x, y in path], fill=255, width=max(1, round(width * fine)), joint="curve"
        )
    return np.asarray(canvas.reduce(fine), dtype=np.float32) / 255


def _crack(r: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A thin dark jagged line with branches."""
    trunk = _walk(r, size, int(r.integers(12, 22)), 0.7)
    paths = [trunk]
    for _ in range(r.integers(1, 4)):
        x, y = trunk[int(r.integers(2, len(trunk)))]
        branch = _walk(r, size, int(r.integers(3, 7)), 0.6)
        paths.append([(px - branch[0][0] + x, py - branch[0][1] + y) for px, py in branch])
    line = _lines(paths, max(1.2, r.uniform(0.010, 0.018) * min(size)), size)
    return -r.uniform(55, 90) * line, line >= 0.5


def _scratch(r: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One to four long, straight, bright lines side by side."""
    H, W = size
    a, long = r.uniform(0, np.pi), r.uniform(0.35, 0.8) * min(H, W)
    cx, cy = r.uniform(0.3, 0.7) * W, r.uniform(0.3, 0.7) * H
    paths = []
    for _ in range(r.integers(1, 5)):
        across, along = r.normal(0, 0.05 * min(H, W)), r.normal(0, 0.05 * min(H, W))
        x, y = cx + along * np.cos(a) - across * np.sin(a), cy + along * np.sin(a) + across * np.cos(a)
        half = long / 2 * r.uniform(0.6, 1)
        paths.append([(x - half * np.cos(a), y - half * np.sin(a)), (x + half * np.cos(a), y + half * np.sin(a))])
    line = _lines(paths, max(1.2, r.uniform(0.008, 0.014) * min(H, W)), size)
    return r.uniform(50, 85) * line, line >= 0.5


def _scale(r: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A rough, irregular patch, darker than the sheet."""
    H, W = size
    place = (r.uniform(0.3, 0.7) * W, r.uniform(0.3, 0.7) * H, r.uniform(0.14, 0.28) * min(H, W))
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    waves = sum(r.normal(0, 0.5 / k) * np.cos(k * t + r.uniform(0, 6.3)) for k in range(2, 9))
    points = _around(60) * np.clip(0.8 + waves, 0.3, 1.3)[:, None] * place[2] + place[:2]
    alpha, (rows, columns) = coverage(tuple(map(tuple, points)), size)
    whole = np.zeros(size)
    whole[rows, columns] = alpha
    rough = _smooth_noise(r, size, 28) * r.uniform(10, 18)
    return whole * (rough - r.uniform(18, 38)), whole >= 0.5


DEFECTS = {"pits": _pits, "crack": _crack, "scratch": _scratch, "scale": _scale}


# --------------------------------------------------------------------------------------------------- bags of digits


@dataclass(frozen=True, eq=False)  # tensors have no one answer to ==
class Bag:
    """A bag of handwritten digits: images `[K, 1, 8, 8]` in [0, 1], which digit each one is `[K]`, and the bag's label.

    A bag is positive if at least one of its digits is the wanted one; who learns from bags never sees the digits' labels.
    """

    images: Tensor
    digits: Tensor
    positive: bool


def digit_bags(
    n: int, *, seed: int = 0, split: str = "train", wanted: int = 9, length: float = 10, spread: float = 2
) -> list[Bag]:
    """n bags of real handwritten digits (scikit-learn's, 8 x 8 pixels), every other one positive. Paper: ilse2018attention.
    Deviation: digits of 8 x 8 pixels in place of MNIST's, every other bag positive, one to a quarter of its digits wanted.

    split: "train" and "test" never share a digit's image; length, spread: mean and standard deviation of a bag's size, before
    rounding and of at least one digit. In a positive bag one digit or up to a quarter of them are the wanted one; an image
    may be in a bag twice. Errors: ValueError for another split, and for a digit, number or seed out of range.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is 'train' or 'test', not {split!r}")
    if wanted not in range(10):
        raise ValueError(f"the wanted digit is 0 to 9, not {wanted!r}")
    if n < 1 or not 1 <= length <= 10_000 or not 0 <= spread <= 10_000:
        raise ValueError(f"a set has at least one bag, and a bag 1 to 10,000 digits, not {n} bags of {length} ± {spread}")
    if seed < 0:
        raise ValueError(f"a seed is 0 or more, not {seed}")
    images, digits = _digits()
    mine = np.flatnonzero((np.arange(len(digits)) % 4 == 3) == (split == "test"))
    hits, others = mine[digits[mine] == wanted], mine[digits[mine] != wanted]
    bags = []
    for i in range(n):
        r = rng("bags", seed, 2 * i + (split == "test"))
        k = max(1, round(r.normal(length, spread)))
        positive = i % 2 == 0
        inside = int(r.integers(1, max(1, k // 4) + 1)) if positive else 0
        chosen = r.permutation(np.concatenate([r.choice(hits, inside), r.choice(others, k - inside)]))
        bags.append(Bag(torch.from_numpy(images[chosen]), torch.from_numpy(digits[chosen]), positive))
    return bags


@lru_cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.images[:, None] / 16).astype(np.float32), found.target.astype(np.int64)  # [1797, 1, 8, 8], [1797]
