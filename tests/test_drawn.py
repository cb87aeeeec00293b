"""drawn: the same pictures everywhere, masks that are where the paint is, and nothing but shape that tells the class."""

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion
from skimage.draw import polygon2mask

from helpers import drawn
from helpers.drawn import (
    SCENE_CLASSES,
    SHAPES,
    STEEL_CLASSES,
    TAG_COLOURS,
    Item,
    Scene,
    Surface,
    bounds,
    digit_bags,
    scenes,
    steel,
)

ROOT = Path(__file__).resolve().parent.parent
SIZES = [32, 33, (32, 90), (131, 57), (200, 128)]
KINDS = {
    "scenes": scenes,
    "tagged": lambda n, **k: scenes(n, tag="own", **k),
    "multi": lambda n, **k: scenes(n, multi=True, **k),
    "steel": steel,
    "steel, multi": lambda n, **k: steel(n, multi=True, **k),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def digest(photo):
    """One number for all of a picture: pixels, names, boxes, outlines and masks."""
    found = hashlib.sha256(np.asarray(photo.picture).tobytes())
    for t in photo.things:
        found.update(repr((t.class_name, t.box, t.polygon)).encode() + t.pixels().tobytes())
    found.update(repr((photo.name, photo.title, photo.class_names)).encode())
    return found.hexdigest()


def bag_digest(bag):
    return hashlib.sha256(bag.images.numpy().tobytes() + bag.digits.numpy().tobytes() + bytes([bag.positive])).hexdigest()


def shapes_of(photo):
    return [t for t in photo.things if t.class_name in SHAPES]


def plan(index, seed=0, size=(128, 128), multi=False, distractors=2, tag="none"):
    return drawn.plan_scene(seed, index, size, multi, distractors, tag)


def area(points):
    """Of a polygon that does not cross itself, by the shoelace formula."""
    x, y = np.asarray(points).T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


# -------------------------------------------------------------------------------------------- the same everywhere


PRINTED = """
from test_drawn import KINDS, bag_digest, digest, digit_bags
for make in KINDS.values():
    print(*(digest(make(6, seed=3)[i]) for i in (5, 2)))
print(*map(bag_digest, digit_bags(5, seed=3)), *map(bag_digest, digit_bags(5, seed=3, split="test")))
"""


def test_another_process_draws_the_same_whatever_its_hash_seed_and_whatever_was_drawn_before():
    here = [[digest(make(9, seed=3)[i]) for i in (5, 2)] for make in KINDS.values()]  # also of a longer set
    here.append([bag_digest(b) for split in ("train", "test") for b in digit_bags(8, seed=3, split=split)[:5]])
    other = "4242" if os.environ.get("PYTHONHASHSEED") != "4242" else "0"
    env = os.environ | {"PYTHONHASHSEED": other, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    there = subprocess.run([sys.executable, "-c", PRINTED], env=env, capture_output=True, text=True, check=True, cwd=ROOT)
    assert [line.split() for line in there.stdout.splitlines()] == here


@every_kind
def test_pictures_do_not_depend_on_the_order_in_which_they_are_asked_for(kind):
    n = 12  # more than are kept
    forward = [digest(p) for p in KINDS[kind](n, seed=7, size=48 if kind != "tagged" else 64)]
    again = KINDS[kind](n, seed=7, size=48 if kind != "tagged" else 64)
    assert [digest(again[i]) for i in reversed(range(n))] == forward[::-1]
    assert len(set(forward)) == n


@every_kind
def test_other_seeds_give_other_pictures(kind):
    sets = [[np.asarray(p.picture).tobytes() for p in KINDS[kind](4, seed=s, size=64)] for s in (0, 1, 2)]
    assert len({picture for one in sets for picture in one}) == 12


def quarters(photo):
    return np.asarray(photo.picture, dtype=float).reshape(2, 64, 2, 64, 3).mean((1, 3))


def test_the_pictures_are_those_that_the_stored_networks_were_trained_on():
    found = plan(13, seed=1, multi=True)
    assert found.background == "gradient"
    assert [(i.kind, i.colours, i.pattern, tuple(np.round(i.box, 1).tolist())) for i in found.items] == [
        ("star", ((110, 120, 112), (131, 80, 103)), "plain", (39.4, 72.7, 82.6, 116.5)),
        ("distractor", ((20, 80, 20), (0, 148, 0)), "stripes", (109.1, 33.7, 127.6, 44.8)),
    ]
    assert plan(3, seed=1, tag="own").items[-1].box == (109, 27, 122, 40)
    assert plan(3, seed=1, tag="any").items[-1].colours[0] == TAG_COLOURS["disc"]
    first, second = scenes(2, seed=1)
    expected = [[[186.9, 105.9, 87.9], [147.1, 124.8, 112.0]], [[127.4, 59.2, 131.3], [166.5, 157.3, 152.3]]]
    assert np.abs(quarters(first) - expected).max() < 1.5  # another Pillow may enlarge a little differently
    assert np.abs(quarters(second)[0] - [[103.0, 107.1, 86.6], [98.0, 113.3, 88.9]]).max() < 1.5
    assert np.abs(quarters(steel(1, seed=1)[0])[..., 0] - [[111.9, 103.3], [89.8, 109.7]]).max() < 1.5
    assert digit_bags(1, seed=1)[0].digits.tolist() == [6, 3, 7, 6, 9, 1, 5, 6, 9, 8]


def test_no_scene_is_drawn_before_it_is_asked_for(monkeypatch):
    def drawing(plan):
        raise AssertionError("drawn")

    monkeypatch.setattr(drawn, "draw_scene", drawing)
    photos = scenes(300, multi=True)
    one = photos[7]
    for ask in (lambda: one.picture, lambda: one.things[0].pixels(), lambda: one.mask(one.class_names[0])):
        with pytest.raises(AssertionError, match="drawn"):
            ask()


def test_no_surface_is_drawn_before_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(drawn, "_smooth_noise", None)  # the sheet's light; of the defects only scale uses it
    photos = steel(1)
    with pytest.raises(TypeError, match="NoneType"):
        _ = photos[0].picture


@every_kind
def test_who_draws_on_a_picture_draws_on_no_other(kind):
    photo = KINDS[kind](1)[0]
    before = digest(photo)
    photo.picture.paste((255, 0, 0), (0, 0, 128, 128))
    with pytest.raises(ValueError, match="read-only"):
        photo.things[0].pixels()[0, 0] = True
    assert digest(photo) == before


# ----------------------------------------------------------------------------------------- sizes, classes, settings


@every_kind
@pytest.mark.parametrize("size", SIZES)
def test_any_size(kind, size):
    H, W = (size, size) if isinstance(size, int) else size
    if kind == "tagged":
        H, W = 2 * H, 2 * W  # 64 pixels at least
        size = (H, W)
    for photo in KINDS[kind](12, seed=2, size=size):
        assert photo.picture.size == (W, H) and photo.picture.mode == "RGB"
        for t in photo.things:
            x0, y0, x1, y1 = t.box
            assert 0 <= x0 < x1 <= W and 0 <= y0 < y1 <= H
            mask = t.pixels()
            assert mask.shape == (H, W) and mask.dtype == bool
            assert mask.any() or t.class_name == "distractor"
            if mask.any():
                mx0, my0, mx1, my1 = bounds(mask)
                assert mx0 >= x0 - 1 and my0 >= y0 - 1 and mx1 <= x1 + 1 and my1 <= y1 + 1


def test_the_largest_size():
    picture = scenes(1, size=(64, 2048))[0].picture
    assert picture.size == (2048, 64) and steel(1, size=(2048, 32))[0].picture.size == (32, 2048)


@pytest.mark.parametrize("size", [48, 64])
def test_from_48_pixels_on_every_thing_is_seen(size):
    for photo in scenes(150, seed=11, size=size, multi=True, distractors=8):
        assert all(t.pixels().any() for t in photo.things)


@pytest.mark.parametrize("kind", ["scenes", "multi", "steel", "steel, multi"])
def test_classes_are_balanced(kind):
    classes = STEEL_CLASSES if kind.startswith("steel") else SCENE_CLASSES
    photos = KINDS[kind](3 * len(classes), seed=5)
    assert [p.class_names[0] for p in photos] == [*classes] * 3


def test_there_are_enough_classes_with_a_colour_each():
    assert len(SCENE_CLASSES) >= 8 and len(set(SCENE_CLASSES)) == len(SCENE_CLASSES) and len(set(STEEL_CLASSES)) == 4
    assert set(TAG_COLOURS) == set(SCENE_CLASSES)
    colours = np.array([*TAG_COLOURS.values()])
    apart = np.abs(colours[:, None] - colours).max(-1) + 999 * np.eye(len(colours))
    assert apart.min() >= 90  # more than brightness, contrast and noise move them


def test_a_scene_with_one_label_shows_one_class_once_or_twice():
    photos = scenes(200, seed=3)
    found = [[t.class_name for t in shapes_of(p)] for p in photos]
    assert all(set(names) == {p.class_names[0]} and len(p.class_names) == 1 for p, names in zip(photos, found, strict=True))
    assert set(map(len, found)) == {1, 2}


def test_a_scene_with_several_labels_shows_up_to_three_classes():
    photos = scenes(300, seed=3, multi=True)
    for p in photos:
        assert set(p.class_names) == {t.class_name for t in shapes_of(p)} and len(shapes_of(p)) <= 4
    assert set(Counter(len(p.class_names) for p in photos)) == {1, 2, 3}
    others = Counter(name for p in photos for name in p.class_names[1:])
    assert min(others[c] for c in SCENE_CLASSES) > 0.4 * max(others.values())


def test_steel_shows_one_defect_or_up_to_two_of_different_kinds():
    assert all(len(p.class_names) == len(p.things) == 1 for p in steel(40))
    several = steel(40, multi=True)
    assert {len(set(p.class_names)) for p in several} == {len(p.things) for p in several} == {1, 2}


@pytest.mark.parametrize("distractors", [0, 1, 8])
def test_there_are_at_most_so_many_distractors(distractors):
    counts = {sum(item.kind == "distractor" for item in plan(i, distractors=distractors).items) for i in range(150)}
    assert max(counts) <= distractors and 0 in counts and (distractors == 0 or len(counts) > 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: scenes(0), "a set has at least one picture, not 0"),
        (lambda: steel(-2), "a set has at least one picture, not -2"),
        (lambda: scenes(1, seed=-1), "a seed is 0 or more, not -1"),
        (lambda: steel(1, seed=-1), "a seed is 0 or more, not -1"),
        (lambda: scenes(1, size=31), "32 to 2,048 pixels wide and high, not 31 x 31"),
        (lambda: steel(1, size=(40, 2049)), "32 to 2,048 pixels wide and high, not 2049 x 40"),
        (lambda: scenes(1, distractors=9), "0 to 8 distractors, not 9"),
        (lambda: scenes(1, distractors=-1), "0 to 8 distractors, not -1"),
        (lambda: scenes(1, tag="mine"), "tag is 'none', 'own', 'other' or 'any', not 'mine'"),
        (lambda: scenes(1, tag="own", multi=True), "a tag gives one class away"),
        (lambda: scenes(1, tag="any", size=(200, 63)), "from 64 pixels on; this scene is 63 x 200"),
        (lambda: digit_bags(1, split="validation"), "split is 'train' or 'test', not 'validation'"),
        (lambda: digit_bags(1, wanted=10), "the wanted digit is 0 to 9, not 10"),
        (lambda: digit_bags(1, wanted="9"), "the wanted digit is 0 to 9, not '9'"),
        (lambda: digit_bags(0), "not 0 bags of 10 ± 2"),
        (lambda: digit_bags(1, length=0.5), "not 1 bags of 0.5 ± 2"),
        (lambda: digit_bags(1, length=float("nan")), "not 1 bags of nan ± 2"),
        (lambda: digit_bags(1, length=1e9), "a bag 1 to 10,000 digits"),
        (lambda: digit_bags(1, spread=-1), "not 1 bags of 10 ± -1"),
        (lambda: digit_bags(1, seed=-1), "a seed is 0 or more, not -1"),
    ],
)
def test_a_setting_out_of_range_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------------------------ what masks mean


def painted(outline, size):
    alpha, window = drawn.coverage(outline, size)
    whole = np.zeros(size)
    whole[window] = alpha
    return whole


def placed(name, seed, size=(80, 100)):
    r = np.random.default_rng(seed)
    radius = r.uniform(12, 28)
    place = (r.uniform(radius, size[1] - radius), r.uniform(radius, size[0] - radius), radius)
    return drawn._outline(r, name, place), place


@pytest.mark.parametrize("name", SHAPES)
def test_coverage_is_that_of_a_polygon_cut_much_finer(name):
    for seed in range(6):
        outline, _ = placed(name, seed)
        exact = polygon2mask((80 * 16, 100 * 16), np.array(outline)[:, ::-1] * 16 - 0.5).reshape(80, 16, 100, 16).mean((1, 3))
        alpha = painted(outline, (80, 100))
        inner, outer = binary_erosion(exact == 1), binary_dilation(exact > 0)
        assert (alpha[inner] > 0.9).all() and (alpha[~outer] == 0).all()
        assert np.abs(alpha - exact).max() < 0.55  # Pillow draws the edge itself too: up to a quarter pixel more each side
        assert 0.99 < (alpha >= 0.5).sum() / area(outline) < 1.08
        assert exact.sum() == pytest.approx(area(outline), rel=0.01)  # and so does the oracle hold


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("disc", math.pi),
        ("square", 2 * 0.95**2),
        ("triangle", 3 * math.sqrt(3) / 4),
        ("ring", math.pi * (1 - 0.55**2)),
        ("cross", 20 / 3.1**2),
        ("arrow", (11 * 6 + 9 * 8) / 10.5**2),
        ("hourglass", 2 * (14 + 2) / 2 * 7 / 9.5**2),  # two trapezia
    ],
)
def test_areas_in_closed_form(name, expected):
    assert area(SHAPES[name]) == pytest.approx(expected, rel=0.01)  # 48 corners for a circle
    outline, (_, _, radius) = placed(name, 3)
    assert (painted(outline, (80, 100)) >= 0.5).sum() == pytest.approx(expected * radius**2, rel=0.06)


def test_a_ring_has_a_hole_and_a_disc_none():
    for seed in range(5):
        for name in ("ring", "disc"):
            outline, (x, y, radius) = placed(name, seed)
            rows, columns = np.mgrid[:80, :100] + 0.5
            hole = np.hypot(columns - x, rows - y) < 0.55 * radius - 1.5
            assert hole.sum() > 50 and (painted(outline, (80, 100))[hole] == (name == "disc")).all()


def test_a_polygon_along_the_pixels_covers_just_these():
    alpha, window = drawn.coverage(((3, 2), (9, 2), (9, 7), (3, 7)), (10, 12))
    whole = np.zeros((10, 12))
    whole[window] = alpha
    expected = np.zeros((10, 12))
    expected[2:7, 3:9] = 1
    assert np.array_equal(whole, expected)


def test_what_lies_outside_the_picture_is_cut_off():
    alpha, (rows, columns) = drawn.coverage(((-5, -5), (4, -5), (4, 3), (-5, 3)), (10, 12))
    assert (rows.start, columns.start) == (0, 0) and alpha.sum() == pytest.approx(12, abs=0.1)
    alpha, _ = drawn.coverage(((10, 8), (30, 8), (30, 30), (10, 30)), (10, 12))
    assert alpha.sum() == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("name", SHAPES)
def test_masks_are_where_the_paint_is(name):
    for seed in range(3):
        outline, _ = placed(name, seed, (96, 96))
        item = Item(name, outline, ((255, 0, 0), (255, 0, 0)))
        picture, (mask,) = drawn.draw_scene(Scene(seed, 0, (96, 96), "gravel", (item,)))
        r, g, b = np.asarray(picture).astype(int).transpose(2, 0, 1)
        red = r - np.maximum(g, b) > 127
        assert not (red & ~binary_dilation(mask)).any() and not (binary_erosion(mask, iterations=2) & ~red).any()
        assert (red ^ mask).sum() < 0.1 * mask.sum()


def test_what_lies_over_a_thing_is_taken_from_its_mask():
    under = Item("square", ((10, 10), (50, 10), (50, 50), (10, 50)), ((255, 0, 0),) * 2)
    over = Item("square", ((30, 30), (70, 30), (70, 70), (30, 70)), ((0, 0, 255),) * 2)
    _, (first, second) = drawn.draw_scene(Scene(0, 0, (80, 80), "gradient", (under, over)))
    assert first.sum() == 1600 - 400 and second.sum() == 1600 and not (first & second).any()


@pytest.mark.parametrize("kind", ["scenes", "tagged", "multi"])
def test_masks_of_a_scene_are_disjoint_and_boxes_are_around_them(kind):
    for photo in KINDS[kind](60, seed=4):
        masks = np.stack([t.pixels() for t in photo.things])
        assert masks.sum(0).max() == 1
        for t, mask in zip(photo.things, masks, strict=True):
            if kind != "tagged":  # a tag may lie over a corner
                assert np.abs(np.subtract(bounds(mask), t.box)).max() < 2  # a star's tip is thinner than a pixel
            x0, y0, x1, y1 = bounds(mask)
            assert x0 >= t.box[0] - 1 and y0 >= t.box[1] - 1 and x1 <= t.box[2] + 1 and y1 <= t.box[3] + 1


def test_the_mask_of_a_class_is_the_union_of_its_things_at_any_size():
    photo = next(p for p in scenes(50, seed=6) if len(shapes_of(p)) == 2)
    name = photo.class_names[0]
    union = np.any([t.pixels() for t in shapes_of(photo)], 0)
    assert np.array_equal(photo.mask(name).numpy(), union)
    for size in ((64, 64), (256, 256), (50, 90)):
        squashed = photo.mask(name, size)
        assert squashed.shape == size and squashed.mean().item() == pytest.approx(union.mean(), rel=0.1)
    assert np.array_equal(photo.mask(name, (256, 256)).numpy()[::2, ::2], union)
    with pytest.raises(ValueError, match="has no 'pits'"):
        photo.mask("pits")


@pytest.mark.parametrize("size", [(64, 64), (70, 100)])
def test_a_scene_twice_as_large_is_the_same_plan_scaled(size):
    big = (2 * size[0], 2 * size[1])
    for i in range(30):
        small, large = plan(i, size=size, multi=True), plan(i, size=big, multi=True)
        assert small.background == large.background and len(small.items) == len(large.items)
        for a, b in zip(small.items, large.items, strict=True):
            assert replace(a, outline=()) == replace(b, outline=())
            np.testing.assert_allclose(2 * np.array(a.outline), b.outline, rtol=1e-12)
    for a, b in zip(scenes(8, size=size), scenes(8, size=big), strict=True):
        for s, t in zip(shapes_of(a), shapes_of(b), strict=True):
            m, n = s.pixels(), t.pixels()[::2, ::2]
            assert (m & n).sum() > 0.8 * (m | n).sum()


# ------------------------------------------------------------------------------------------------- tags and colours


@pytest.mark.parametrize("tag", ["own", "other", "any"])
def test_a_tag_has_its_colour_where_its_mask_is(tag):
    names, colours = [*TAG_COLOURS], np.array([*TAG_COLOURS.values()])
    for i, photo in enumerate(scenes(40, seed=8, tag=tag)):
        thing = photo.things[-1]
        x0, y0, x1, y1 = map(int, thing.box)
        mask = np.zeros((128, 128), dtype=bool)
        mask[y0:y1, x0:x1] = True
        assert thing.class_name == "tag" and np.array_equal(thing.pixels(), mask) and 11 <= x1 - x0 <= 14
        shown = plan(i, seed=8, tag=tag).items[-1].colours[0]
        pixels = np.asarray(photo.picture)[y0 + 2 : y1 - 3, x0 + 2 : x1 - 3].reshape(-1, 3).mean(0)
        assert np.abs(pixels - shown).max() < 0.15 * 127.5 + 12 + 3  # contrast, brightness, what is left of the noise
        nearest = names[np.abs(colours - pixels).max(1).argmin()]
        assert TAG_COLOURS[nearest] == shown
        assert tag == "any" or (nearest == photo.class_names[0]) == (tag == "own")


def test_own_other_and_any_over_many_plans():
    hits = {}
    for tag in ("own", "other", "any"):
        hits[tag] = [plan(i, seed=1, tag=tag).items[-1].colours[0] == TAG_COLOURS[SCENE_CLASSES[i % 10]] for i in range(400)]
    assert all(hits["own"]) and not any(hits["other"]) and 20 <= sum(hits["any"]) <= 60  # 40 expected, 6 the deviation
    for tag in ("other", "any"):
        shown = Counter(plan(i, seed=1, tag=tag).items[-1].colours[0] for i in range(400))
        assert set(shown) == set(TAG_COLOURS.values()) and min(shown.values()) > 20


@pytest.mark.parametrize("tag", ["own", "other", "any"])
def test_a_tag_changes_its_own_pixels_and_no_other(tag):
    changed = 0
    for plain, tagged in zip(scenes(40, seed=3), scenes(40, seed=3, tag=tag), strict=True):
        *things, mark = tagged.things
        where = mark.pixels()
        same = (np.asarray(plain.picture) == np.asarray(tagged.picture)).all(-1)
        assert same[~where].all()  # noise, brightness and all
        changed += (~same[where]).mean()
        assert [(t.class_name, t.box) for t in plain.things] == [(t.class_name, t.box) for t in things]
        for a, b in zip(plain.things, things, strict=True):
            assert np.array_equal(a.pixels() & ~where, b.pixels())
    assert changed / 40 > 0.9


def test_tags_of_all_kinds_lie_at_the_same_place():
    places = [[plan(i, tag=tag).items[-1].outline for i in range(30)] for tag in ("own", "other", "any")]
    assert places[0] == places[1] == places[2] and len(set(places[0])) == 30


def test_colour_pattern_background_and_place_say_nothing_of_the_class():
    plans = [plan(i, seed=2) for i in range(400)]
    classes = np.arange(400) % 10
    items = [p.items[0] for p in plans]
    assert [i.kind for i in items] == [SCENE_CLASSES[c] for c in classes]
    boxes = np.array([i.box for i in items])
    features = np.column_stack([[i.colours[0] + i.colours[1] for i in items], (boxes[:, :2] + boxes[:, 2:]) / 2]).astype(float)
    features = (features - features.mean(0)) / features.std(0)  # [400, 8]
    means = np.array([features[classes == c].mean(0) for c in range(10)])  # [10, 8], each of variance 1/40 if unrelated
    assert np.abs(means).max() * math.sqrt(40) < 4.5
    learn, test = slice(0, 200), slice(200, 400)
    centres = np.array([features[learn][classes[learn] == c].mean(0) for c in range(10)])
    guesses = ((features[test][:, None] - centres) ** 2).sum(-1).argmin(1)
    assert (guesses == classes[test]).mean() < 0.2  # 0.1 by chance, give or take 0.02
    for what in ([i.pattern for i in items], [p.background for p in plans], [len(p.items) for p in plans]):
        table = np.array([[sum(w == v and k == c for w, k in zip(what, classes, strict=True)) for v in sorted(set(what))]
                          for c in range(10)])  # fmt: skip
        expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
        freedom = 9 * (table.shape[1] - 1)
        assert ((table - expected) ** 2 / expected).sum() < freedom + 5 * math.sqrt(2 * freedom)


# --------------------------------------------------------------------------------------------------- steel surfaces


@pytest.mark.parametrize("name", STEEL_CLASSES)
def test_the_grey_values_change_where_the_mask_is(name):
    for i in range(20):
        change, mask = drawn.defect(Surface(3, i, (128, 128), (name,)), 0)
        inside, outside = np.abs(change[mask]), np.abs(change[~mask])
        assert 0.002 < mask.mean() < 0.25
        assert inside.mean() > 15 and outside.mean() < 0.02 * inside.mean() and outside.max() < inside.max()
        assert (change[mask].mean() > 0) == (name == "scratch")
        assert (change[~binary_dilation(mask, np.ones((3, 3)), iterations=3)] == 0).all()


def test_a_surface_holds_its_defect_and_the_rest_is_unchanged_by_it():
    plans = [Surface(4, 1, (96, 120), (name,)) for name in STEEL_CLASSES]
    pictures = [np.asarray(drawn.draw_steel(p)[0])[..., 0].astype(float) for p in plans]
    changes = [drawn.defect(p, 0)[0] for p in plans]
    for k in range(1, 4):
        clean = np.all([(one > 0) & (one < 255) for one in pictures], 0)
        difference = pictures[k] - pictures[0] - (changes[k] - changes[0])
        assert clean.mean() > 0.9 and np.abs(difference[clean]).max() <= 1  # two roundings
        assert np.array_equal(drawn.draw_steel(plans[k])[1][0], drawn.defect(plans[k], 0)[1])


@pytest.mark.parametrize("multi", [False, True])
def test_steel_is_grey_and_boxes_are_tight(multi):
    for photo in steel(24, seed=9, size=(70, 110), multi=multi):
        pixels = np.asarray(photo.picture)
        assert (pixels == pixels[..., :1]).all() and pixels.std() > 3
        for t in photo.things:
            assert t.class_name in STEEL_CLASSES and t.box == bounds(t.pixels()) and t.polygon == ()


def test_the_first_defect_is_the_same_with_or_without_a_second():
    one, two = steel(12, seed=2), steel(12, seed=2, multi=True)
    assert all(np.array_equal(a.things[0].pixels(), b.things[0].pixels()) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", STEEL_CLASSES)
def test_a_defect_twice_as_large_is_the_same_one(name):
    for i in range(10):
        small, large = (drawn.defect(Surface(1, i, size, (name,)), 0)[1] for size in ((64, 96), (128, 192)))
        assert np.abs(2 * np.array(bounds(small)) - bounds(large)).max() <= 3


@pytest.mark.parametrize("size", [(32, 32), (32, 200)])
def test_no_defect_is_empty_in_the_smallest_pictures(size):
    for name in STEEL_CLASSES:
        assert all(drawn.defect(Surface(5, i, size, (name,)), 0)[1].any() for i in range(60))


def test_bounds_are_at_pixel_edges():
    mask = np.zeros((6, 9), dtype=bool)
    mask[2, 3] = mask[4, 7] = True
    assert bounds(mask) == (3, 2, 8, 5)


# --------------------------------------------------------------------------------------------------- bags of digits


def test_bags_hold_real_digits_in_the_unit_interval():
    from sklearn.datasets import load_digits

    known = load_digits()
    real = {(image / 16).astype(np.float32).tobytes(): int(k) for image, k in zip(known.images, known.target, strict=True)}
    for split in ("train", "test"):
        for bag in digit_bags(30, split=split):
            assert bag.images.shape == (len(bag.digits), 1, 8, 8) and str(bag.images.dtype) == "torch.float32"
            assert 0 <= bag.images.min() and bag.images.max() <= 1
            assert [real[one.numpy().tobytes()] for one in bag.images] == bag.digits.tolist()


def test_training_and_test_bags_share_no_image():
    def images(split):
        return {one.numpy().tobytes() for seed in range(3) for b in digit_bags(300, split=split, seed=seed) for one in b.images}

    train, test = images("train"), images("test")
    assert len(train) > 1_200 and len(test) > 400 and not train & test


@pytest.mark.parametrize("wanted", [9, 0, 4])
def test_a_bag_is_positive_if_and_only_if_it_holds_the_wanted_digit(wanted):
    bags = digit_bags(200, wanted=wanted, seed=2)
    assert [b.positive for b in bags] == [True, False] * 100
    for bag in bags:
        n = int((bag.digits == wanted).sum())
        assert (n > 0) == bag.positive and n <= max(1, len(bag.digits) // 4)
    first = [int((b.digits == wanted).nonzero()[0]) for b in bags if b.positive]
    assert len(set(first)) > 4  # anywhere in the bag


@pytest.mark.parametrize(("length", "spread"), [(10, 2), (30, 5), (6, 0)])
def test_sizes_of_bags_have_the_mean_and_the_spread_asked_for(length, spread):
    sizes = np.array([len(b.digits) for b in digit_bags(400, length=length, spread=spread)])
    assert sizes.mean() == pytest.approx(length, abs=4 * max(spread, 0.01) / 20)
    assert sizes.std() == pytest.approx(spread, rel=0.15, abs=1e-9)


def test_the_smallest_bags_hold_one_digit():
    sizes = [len(b.digits) for b in digit_bags(60, length=1, spread=3)]
    assert min(sizes) == 1
    assert all((b.digits == 9).any() == b.positive for b in digit_bags(60, length=1, spread=3))


def test_the_labels_of_a_bag_say_nothing_of_its_size():
    bags = digit_bags(400, seed=5)
    sizes = {kind: np.mean([len(b.digits) for b in bags if b.positive == kind]) for kind in (True, False)}
    assert abs(sizes[True] - sizes[False]) < 4 * 2 * math.sqrt(2 / 200)
