"""data: every kind of picture file, folders, outlines, the built-in photographs and the papers' tables."""

import struct
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.path import Path as Outline
from PIL import Image, ImageDraw
from skimage.draw import polygon2mask

from helpers import data, models
from helpers.data import Photo, Thing, data_folder, paper_table, photos_in, read_image, side_by_side

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def saved(tmp_path, picture, name="p.png", **settings):
    picture.save(tmp_path / name, **settings)
    return tmp_path / name


def pixel(picture, x=0, y=0):
    assert picture.mode == "RGB"
    return picture.getpixel((x, y))


# ------------------------------------------------------------------------------------------------------- read_image


@pytest.mark.parametrize("name", ["p.png", "p.bmp", "p.tif", "p.ppm", "пример картинки 🐈.PNG", "a b%20c#.png"])
def test_a_colour_picture_comes_as_it_is(name, tmp_path):
    assert np.array_equal(np.array(read_image(saved(tmp_path, Image.fromarray(RGB), name))), RGB)
    assert np.array_equal(np.array(read_image(str(tmp_path / name))), RGB)


def test_grey_becomes_three_equal_channels(tmp_path):
    out = np.array(read_image(saved(tmp_path, Image.fromarray(RGB[..., 0]))))
    assert out.shape == (6, 8, 3) and all(np.array_equal(out[..., k], RGB[..., 0]) for k in range(3))


def test_black_and_white_of_one_bit(tmp_path):
    bits = Image.fromarray(RGB[..., 0] > 99)
    assert bits.mode == "1" and np.array_equal(np.array(read_image(saved(tmp_path, bits)))[..., 1], 255 * (RGB[..., 0] > 99))


def test_what_is_transparent_lies_on_white(tmp_path):
    rgba = Image.new("RGBA", (4, 4), (200, 100, 0, 255))
    rgba.putpixel((1, 0), (200, 100, 0, 0))
    rgba.putpixel((2, 0), (200, 100, 0, 51))  # a fifth
    out = read_image(saved(tmp_path, rgba))
    assert [pixel(out, x) for x in range(3)] == [(200, 100, 0), (255, 255, 255), (244, 224, 204)]


def test_grey_with_transparency_lies_on_white(tmp_path):
    la = Image.new("LA", (3, 3), (40, 255))
    la.putpixel((1, 0), (40, 0))
    out = read_image(saved(tmp_path, la))
    assert pixel(out) == (40, 40, 40) and pixel(out, 1) == (255, 255, 255)


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path):
    p = Image.new("P", (3, 3), 0)
    p.putpalette([10, 20, 30, 90, 80, 70])
    p.putpixel((1, 0), 1)
    assert [pixel(read_image(saved(tmp_path, p)), x) for x in (0, 1)] == [(10, 20, 30), (90, 80, 70)]
    assert [pixel(read_image(saved(tmp_path, p, "t.png", transparency=1)), x) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]


def test_print_colours_become_screen_colours(tmp_path):
    out = read_image(saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "p.jpg"))
    assert pixel(out, 4, 4) == pytest.approx((254, 0, 0), abs=3)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    values = np.array([[0, 257, 128 * 257, 65535], [128, 129, 300, 65400]], dtype=np.uint16)
    path = saved(tmp_path, Image.fromarray(values))
    with Image.open(path) as opened:
        assert opened.mode == "I;16"
    assert np.array(read_image(path))[..., 0].tolist() == [[0, 1, 128, 255], [0, 1, 1, 254]]


def test_a_dark_picture_of_sixteen_bits_stays_dark(tmp_path):
    assert np.array(read_image(saved(tmp_path, Image.fromarray(np.full((3, 3), 200, dtype=np.uint16))))).max() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 7.0, 255.0], [0, 7, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
    ],
)
def test_pictures_of_floats_are_scaled_by_what_is_in_them(values, expected, tmp_path):
    path = saved(tmp_path, Image.fromarray(np.array([values], dtype=np.float32)), "p.tif")
    assert np.array(read_image(path))[0, :, 2].tolist() == expected


TURNS = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
         6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNS)
def test_the_cameras_orientation_is_undone(orientation, tmp_path):
    quarters = np.zeros((32, 48, 3), dtype=np.uint8)
    quarters[:16, :24], quarters[:16, 24:], quarters[16:, :24] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[274] = orientation
    out = np.array(read_image(saved(tmp_path, Image.fromarray(quarters), "p.jpg", exif=exif, quality=95, subsampling=0)))
    expected = TURNS[orientation](quarters)
    assert out.shape == expected.shape and np.abs(out.astype(int) - expected).max() < 30


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (5, 5), c) for c in ("red", "lime")]
    path = saved(tmp_path, frames[0], "p.gif", save_all=True, append_images=frames[1:])
    with Image.open(path) as opened:
        assert opened.n_frames == 2
    assert pixel(read_image(path)) == (255, 0, 0)


def test_a_picture_of_one_pixel(tmp_path):
    assert read_image(saved(tmp_path, Image.new("RGB", (1, 1), "red"))).size == (1, 1)


@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.gif", "p.webp", "p.tif", "p.bmp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_a_truncated_picture_is_named(name, share, tmp_path):
    path = saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)), name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=f"{name} could not be read as a picture"):
        read_image(path)


@pytest.mark.parametrize(
    "content", [b"", b"just text\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"P6\nx 3\n255\n", bytes(200)]
)
def test_a_file_that_is_no_picture_is_named(content, tmp_path):
    (tmp_path / "note.jpg").write_bytes(content)
    with pytest.raises(ValueError, match="note.jpg could not be read as a picture"):
        read_image(tmp_path / "note.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "gif", "bmp", "ppm"])
@pytest.mark.filterwarnings("ignore")  # Pillow warns of what is damaged
def test_whatever_is_damaged_gives_a_picture_or_a_clear_error(suffix, tmp_path):
    exif = Image.Exif()
    exif[274], exif[270] = 6, "a title"
    settings = {"exif": exif} if suffix in ("jpg", "png", "webp", "tif") else {}
    whole = saved(tmp_path, Image.fromarray(RGB), f"p.{suffix}", **settings).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 120), 4):
            broken[place] = rng.integers(256)
        (tmp_path / f"broken.{suffix}").write_bytes(broken)
        try:
            assert read_image(tmp_path / f"broken.{suffix}").mode == "RGB"
        except ValueError as error:
            assert f"broken.{suffix} could not be read as a picture" in str(error)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (20_000, 20_000), (60_000, 60_000)])
def test_a_bomb_is_refused_before_it_is_decoded(width, height, tmp_path, monkeypatch):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="bomb.png.*(at most 100,000,000|exceeds limit)"):
        read_image(tmp_path / "bomb.png")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "nowhere.jpg", tmp_path):
        with pytest.raises(FileNotFoundError, match=path.name):
            read_image(path)


# ---------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path):
    for name, colour in [("b/two.png", "red"), ("a/one.JPG", "blue"), ("a/deep/three.png", "lime"), ("zero.png", "white")]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), colour).save(tmp_path / name)
    (tmp_path / "b/broken.jpg").write_bytes(b"no picture")
    (tmp_path / "b/notes.txt").write_text("no picture either, and no picture's name")
    return tmp_path


def test_a_folder_is_read_with_all_below_it_in_order_of_name(folder):
    photos, skipped = photos_in(folder)
    assert [p.name for p in photos] == ["a/deep/three.png", "a/one.JPG", "b/two.png", "zero.png"]
    assert [p.class_names for p in photos] == [("deep",), ("a",), ("b",), ()]
    assert len(skipped) == 1 and "broken.jpg" in skipped[0]
    assert photos[2].picture.getpixel((0, 0)) == (255, 0, 0)


def test_a_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nothing with a picture suffix"):
        photos_in(tmp_path)
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"skipped: .*x\.png could not be read"):
        photos_in(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        photos_in(tmp_path / "nowhere")


def test_a_folder_is_listed_by_headers_alone(folder, monkeypatch):
    whole = saved(folder, Image.fromarray(np.tile(RGB, (9, 9, 1))), "a/one.JPG").read_bytes()
    (folder / "a/one.JPG").write_bytes(whole[: len(whole) // 2 + 400])  # damaged where no header is
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    photos, skipped = photos_in(folder)
    assert len(photos) == 4 and len(skipped) == 1
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"one\.JPG could not be read as a picture"):
        photos[1].picture  # noqa: B018


def test_the_size_in_the_header_is_that_of_the_picture_as_stored(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = saved(tmp_path, Image.fromarray(RGB), "p.jpg", exif=exif)
    assert data.image_size(path) == (6, 8) and read_image(path, upright=False).size == (8, 6) and read_image(path).size == (6, 8)
    (tmp_path / "p.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="p.jpg could not be read as a picture"):
        data.image_size(path)


@pytest.mark.parametrize("suffix", [".jfif", ".avif", ".heic"])
def test_further_kinds_of_file_are_taken_where_pillow_opens_them(suffix, tmp_path):
    kind = Image.registered_extensions().get(suffix)
    assert (suffix in data.IMAGE_SUFFIXES) == (kind in Image.OPEN)
    if kind is not None:
        saved(tmp_path, Image.new("RGB", (16, 16), "red"), f"p{suffix}")
        assert [p.picture.size for p in photos_in(tmp_path)[0]] == [(16, 16)]


# ------------------------------------------------------------------------------------------------- outlines and boxes

STAR = tuple(
    (50 + r * np.sin(t), 40 + r * np.cos(t)) for t, r in zip(np.linspace(0, 2 * np.pi, 11)[:-1], [38, 17] * 5, strict=True)
)


def a_photo(*things, size=(100, 80)):
    return Photo("made", Image.new("RGB", size), things, "Made", "us, CC0", tuple(dict.fromkeys(t.class_name for t in things)))


def box_of(outline):
    xs, ys = zip(*outline, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def thing(name, outline):
    return Thing(name, box_of(outline), tuple(outline))


def centres_inside(outline, H, W, scale=(1.0, 1.0)):
    """Pixels whose centre lies in the outline, by matplotlib."""
    x, y = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    inside = Outline(np.array(outline) * scale).contains_points(np.c_[x.ravel(), y.ravel()])
    return torch.from_numpy(inside.reshape(H, W)).float()


def iou(a, b):
    return float((a * b).sum() / (a + b).clamp(max=1).sum())


def test_a_mask_has_the_pixels_whose_centre_is_in_the_outline():
    mask = a_photo(thing("star", STAR)).mask("star")
    assert mask.shape == (80, 100) and set(mask.unique().tolist()) == {0, 1}
    assert torch.equal(mask, centres_inside(STAR, 80, 100))
    by_skimage = polygon2mask((80, 100), [(y - 0.5, x - 0.5) for x, y in STAR])
    assert iou(mask, torch.from_numpy(by_skimage).float()) > 0.97


def test_a_mask_of_an_outline_and_of_its_box_have_the_area_of_the_rectangle():
    corners = [(2, 3), (7, 3), (7, 9), (2, 9)]
    for one in (thing("x", corners), Thing("x", (2, 3, 7, 9))):
        mask = a_photo(one).mask("x")
        assert mask.sum() == 5 * 6 and mask[3:9, 2:7].all()


@pytest.mark.parametrize("size", [(224, 224), (40, 30), (160, 200)])
def test_a_mask_is_squashed_like_the_picture(size):
    photo = a_photo(thing("star", STAR))
    mask = photo.mask("star", size)
    assert mask.shape == size
    assert iou(mask, centres_inside(STAR, *size, scale=(size[1] / 100, size[0] / 80))) > 0.99
    picture = Image.new("L", (100, 80))
    ImageDraw.Draw(picture).polygon(STAR, fill=255)
    squashed = torch.from_numpy(np.array(picture.resize(size[::-1], Image.Resampling.BILINEAR))) > 127
    assert iou(mask, squashed.float()) > 0.9


def test_a_mask_is_the_union_of_all_things_of_a_class():
    photo = a_photo(Thing("x", (0, 0, 10, 10)), Thing("y", (50, 50, 60, 60)), Thing("x", (5, 5, 15, 15)))
    assert photo.mask("x").sum() == 100 + 100 - 25 and photo.mask("y").sum() == 100


@pytest.mark.parametrize("one", [Thing("x", (10, 10, 12, 12)), thing("x", [(10, 10), (12, 10), (12, 12), (10, 12)])])
def test_a_thing_smaller_than_a_pixel_is_no_error(one):
    assert a_photo(one).mask("x", (8, 10)).sum() <= 1


def test_a_class_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ValueError, match="made has no 'dog'; it has: bird, cat"):
        a_photo(Thing("cat", (0, 0, 1, 1)), Thing("bird", (0, 0, 1, 1))).mask("dog")
    with pytest.raises(ValueError, match="no annotation"):
        a_photo().mask("dog")


# ----------------------------------------------------------------------------------------------------- side_by_side


def marked(size, place, colour, name):
    picture = Image.new("RGB", size)
    x, y = place
    picture.paste(colour, (x - 4, y - 4, x + 4, y + 4))
    return Photo(
        name,
        picture,
        (thing(f"{name} mark", [(x - 4, y - 4), (x + 4, y - 4), (x + 4, y + 4), (x - 4, y + 4)]),),
        name,
        f"by {name}",
        (),
    )


def test_outlines_go_where_the_pictures_go():
    both = side_by_side(marked((300, 200), (200, 60), "red", "left"), marked((100, 180), (30, 120), "lime", "right"), height=400)
    assert both.picture.size == (800, 400) and both.class_names == ("left mark", "right mark")
    assert both.name == "left + right" and both.credit == "by left; by right"
    left, right = both.things
    assert left.box == pytest.approx((292, 112, 308, 128))  # ((200 - 50) ± 4) * 2, (60 ± 4) * 2
    assert right.box == pytest.approx((400 + 104, 304, 400 + 136, 336))  # (30 ± 4) * 4, ((120 - 40) ± 4) * 4
    pixels = np.array(both.picture)
    for channel, name in ((0, "left mark"), (1, "right mark")):
        assert iou(both.mask(name), torch.from_numpy((pixels[..., channel] > 127).astype(np.float32))) > 0.95


def test_what_is_cropped_away_is_no_longer_there():
    left = marked((300, 100), (20, 50), "red", "left")
    both = side_by_side(left, marked((50, 50), (25, 25), "lime", "right"), height=100)
    assert both.class_names == ("right mark",) and not np.array(both.picture)[..., 0].any()


def test_an_outline_half_cropped_ends_at_the_edge():
    photo = Photo("l", Image.new("RGB", (200, 100)), (thing("x", [(0, 10), (100, 10), (100, 90), (0, 90)]),))
    both = side_by_side(photo, photo, height=100)
    assert [t.box for t in both.things] == [(0, 10, 50, 90), (100, 10, 150, 90)]
    assert both.mask("x").sum() == 2 * 50 * 80


def test_pixels_go_where_the_pictures_go():
    known = np.zeros((200, 300), dtype=bool)
    known[56:64, 196:204] = True
    known[60, 200] = False  # a hole, which no outline has
    left = marked((300, 200), (200, 60), "red", "left")
    left = Photo("left", left.picture, (Thing("mark", (196, 56, 204, 64), pixels=lambda: known, difficult=True),))
    both = side_by_side(left, marked((180, 100), (30, 50), "lime", "right"), height=400)
    mask = both.mask("mark")
    assert both.things[0].difficult and both.class_names == ("mark",)  # the right mark is cropped away
    assert mask.shape == (400, 800) and mask.sum() == 4 * 63 and not mask[120:122, 300:302].any()
    assert mask[112:128, 292:308].sum() == mask.sum()
    same = side_by_side(left, left, height=200).mask("mark")
    assert torch.equal(same, torch.from_numpy(np.tile(known[:, 50:250], 2)).float())


def test_a_thing_whose_pixels_are_all_cropped_is_no_longer_there():
    known = np.zeros((100, 300), dtype=bool)
    known[:, 5] = True
    wide = Photo("wide", Image.new("RGB", (300, 100)), (Thing("x", (5, 0, 150, 100), pixels=lambda: known),))
    assert side_by_side(wide, wide).things == ()


# --------------------------------------------------------------------------------------------- built-in photographs


@pytest.mark.parametrize("name", data.photo_names())
def test_a_built_in_photograph_is_well_annotated(name):
    photo = data.photo(name)
    W, H = photo.picture.size
    assert photo.picture.mode == "RGB" and photo.title and photo.credit and photo.things
    assert set(photo.class_names) <= set(models.imagenet_classes())
    for one in photo.things:
        x0, y0, x1, y1 = one.box
        assert 0 <= x0 < x1 <= W and 0 <= y0 < y1 <= H
        assert len(one.polygon) >= 3 and box_of(one.polygon) == one.box  # the tight box of its outline
    for class_name in photo.class_names:
        share = float(photo.mask(class_name, (224, 224)).mean())
        assert 0.002 < share < 0.95, (class_name, share)


def test_the_table_of_photographs_says_the_true_sizes():
    rows = pd.read_csv(data.data_folder() / "photos.csv")
    for _, row in rows.iterrows():
        assert data.photo(row["name"]).picture.size == (row["width"], row["height"])
    assert rows[["author", "licence", "source"]].notna().all(axis=None)


def test_there_are_a_dozen_photographs_and_two_show_things_of_two_classes():
    photos = [data.photo(name) for name in data.photo_names()]
    outlined = {p.name: {t.class_name for t in p.things if len(t.polygon) >= 3} for p in photos}
    assert len(outlined) >= 12 and all(outlined.values())
    assert sum(len(classes) >= 2 for classes in outlined.values()) >= 2


def test_an_unknown_photograph_suggests_a_known_one():
    with pytest.raises(ValueError, match=r"called 'cofee'; did you mean coffee.*There are: chelsea"):
        data.photo("cofee")


@pytest.fixture
def other_data(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "data_folder", lambda: tmp_path)
    data._photo_rows.cache_clear()
    yield tmp_path
    data._photo_rows.cache_clear()


@pytest.mark.parametrize(("column", "value", "error", "says"), [
    ("sha256", "0" * 64, ValueError, "coffee.png of skimage is not the picture whose outlines we drew"),
    ("package", "no_such_package_here", FileNotFoundError, "'coffee'.*no_such_package_here, which is not installed"),
])  # fmt: skip
def test_another_picture_or_a_missing_package_is_named(column, value, error, says, other_data):
    rows = pd.read_csv(data_folder() / "photos.csv", dtype=str, keep_default_na=False)
    rows[column] = value
    rows.to_csv(other_data / "photos.csv", index=False)
    with pytest.raises(error, match=says):
        data.photo("coffee")


# --------------------------------------------------------------------------------------------------- papers' tables

COLUMNS = ["table", "model", "dataset", "method", "metric", "value", "unit"]


def test_a_paper_table_is_tidy_and_can_be_picked():
    rows = paper_table("mitra2024scorecampp")
    assert list(rows.columns[:7]) == COLUMNS and rows["value"].notna().all() and rows["table"].map(type).eq(str).all()
    third = paper_table("mitra2024scorecampp", "3")
    assert set(third["table"]) == {"3"} and list(third.index) == list(range(len(third)))
    assert set(paper_table("mitra2024scorecampp", ["3", "4"])["table"]) == {"3", "4"}
    drop = third[third["metric"] == "Average Drop"].set_index("method")["value"]
    assert drop["ScoreCAM++"] == 4.17 and drop["GradCAM"] == 9.77


def test_an_unknown_paper_or_table_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="no tables of 'nobody1999'; papers with tables: .*mitra2024scorecampp"):
        paper_table("nobody1999")
    with pytest.raises(ValueError, match=r"mitra2024scorecampp has no table \['99'\]; it has \['1', '2'"):
        paper_table("mitra2024scorecampp", ["1", "99"])


def test_results_are_read_with_table_numbers_as_words(other_data):
    (other_data / "results").mkdir()
    (other_data / "results" / "04.csv").write_text("table,method,value\n3,a,0.5\n")
    assert data.results("04").iloc[0].tolist() == ["3", "a", 0.5]


def test_the_stored_results_have_the_papers_columns_and_say_where_they_come_from():
    paper, ours = data.paper_table("mitra2024scorecampp"), data.results("04_scorecampp")
    assert set(paper.columns) < set(ours.columns)
    assert {"n", "ci_low", "ci_high", "seed", "commit", "device", "date", "profile"} < set(ours.columns)
    assert (ours["n"] > 0).all() and ours["commit"].str.fullmatch("[0-9a-f]{7,}").all()
    assert ((ours["ci_low"] <= ours["value"]) & (ours["value"] <= ours["ci_high"])).all()


def test_the_wins_of_each_group_add_up_to_one():
    ours = data.results("04_scorecampp")
    wins = ours[ours["metric"].str.startswith("Win")].groupby(["table", "model", "metric"])["value"].sum()
    assert len(wins) and (wins - 1).abs().max() < 1e-3


def test_the_printed_wins_add_up_to_a_hundred():
    wins = data.paper_table("mitra2024scorecampp").query("metric == 'Win'").groupby("table")["value"].sum()
    assert len(wins) == 7 and (wins - 100).abs().max() < 0.1, wins  # a slip of the pen in our copy would show here
