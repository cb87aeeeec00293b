"""The explorer: what its builder stores, and the live view driven without a browser."""

from __future__ import annotations

import copy
import io
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bs4 import BeautifulSoup
from networks import Deep, Failing, Tiny, changes, classifier, made, snapshot
from PIL import Image
from torch import Tensor, nn

from helpers import data, evaluation, models
from helpers.core import to_unit
from helpers.data import Photo, Thing

BOOK = Path(__file__).resolve().parent.parent / "book"
sys.path.insert(0, str(BOOK))

import explorer  # noqa: E402
import live_view  # noqa: E402

STORED = sorted((explorer.OUT / "photos").glob("*.js"))
MEGABYTES, KILOBYTES = 6.0, 650.0  # of all files that the page may load, and of one photograph
FEW = {name: explorer.SHOWN[name] for name in ("Grad-CAM", "guided backprop", "occlusion", "edge detector")}


class Levels(nn.Module):
    """Three resolutions, so three layers to choose from, and ReLUs only, which every method takes."""

    def __init__(self) -> None:
        super().__init__()
        kinds = ((3, 5, 1), (5, 7, 2), (7, 8, 2))
        convolutions = [nn.Conv2d(a, b, 3, stride=stride, padding=1) for a, b, stride in kinds]
        self.features = nn.Sequential(*(m for convolution in convolutions for m in (convolution, nn.ReLU())))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def levels(seed: int = 0) -> models.Classifier:
    return classifier(made(Levels, seed=seed, dtype=torch.float32), layer="features.5")


@pytest.fixture
def deep() -> models.Classifier:
    return levels()


def drawn(name: str, shift: int = 0) -> Photo:
    """A picture of 40 x 32 with a bright box, outlined as class 1, and a triangle, outlined as class 2."""
    pixels = np.random.default_rng(shift).integers(0, 90, (32, 40, 3), dtype=np.uint8)
    pixels[8:20, 10 + shift : 22 + shift] = 230
    things = (
        Thing("class 1", (10 + shift, 8, 22 + shift, 20)),
        Thing("class 2", (0, 24, 8, 32), ((0, 32), (8, 32), (0, 24))),
    )
    return Photo(name, Image.fromarray(pixels), things, f"Drawing {name}", "us, CC0", ("class 1", "class 2"))


def built(net: models.Classifier, folder: Path, names: tuple[str, ...] = ("one", "two"), **settings: Any) -> Path:
    """The explorer's files of drawn pictures, in `folder`."""
    photos = {name: drawn(name, shift) for shift, name in enumerate(names)}
    explorer.make(
        names, net, folder / "out", folder / "work", shown=FEW, photo=photos.__getitem__, say=lambda _: None, **settings
    )
    return folder / "out"


def index_in(out: Path) -> dict[str, Any]:
    text = (out / "index.js").read_text(encoding="ascii")
    return json.loads(text.removeprefix("window.SEEING_WHY_EXPLORER = ").rstrip().removesuffix(";"))


# ------------------------------------------------------------------------------------------------------ what is asked


@pytest.mark.parametrize(
    ("name", "short"),
    [("Grad-CAM", "grad-cam"), ("Grad-CAM++", "grad-cam-pp"), ("ScoreCAM++", "scorecam-pp"), ("edge detector", "edge-detector")],
)
def test_a_methods_name_in_a_link(name, short):
    assert explorer.slug(name) == short


def test_every_method_has_a_link_of_its_own_and_says_what_it_does():
    assert len({explorer.slug(name) for name in explorer.SHOWN}) == len(explorer.SHOWN)
    for name, how in explorer.SHOWN.items():
        text = explorer.about(name, how)
        assert 20 < len(text) < 200 and text.endswith(".") and "`" not in text and "Returns" not in text, (name, text)


def test_each_map_is_asked_for_once():
    classes, layers = ["cat", "dog", "bow tie"], ["shallow", "deep"]
    asked = list(explorer.asked_of(classes, layers, FEW))
    assert len({one.key for one in asked}) == len(asked)
    trained = 3 * 2 + 3 + 3 + 1  # Grad-CAM at two layers, guided backprop, occlusion, and edges that ask for no class
    shuffled = 2 + 1  # Grad-CAM at two layers and guided backprop, for the first class
    assert [one.weights for one in asked] == ["trained"] * trained + ["shuffled"] * shuffled
    assert {one.name for one in asked if one.weights == "shuffled"} == {"cat"}
    assert {(one.name, one.layer) for one in asked if one.method == "edge detector"} == {("", "")}


def test_classes_are_the_outlined_ones_and_then_the_likeliest(deep):
    photo = drawn("one")
    image = deep.preprocess(photo.picture)
    likeliest = [name for name, _ in deep.top(image)]
    found = [name for name, _ in explorer.classes_of(photo, deep, image)]
    first = sorted(("class 1", "class 2"), key=likeliest.index)
    assert found == [*first, next(name for name in likeliest if name not in first)]


def test_photographs_whose_licence_nobody_states_are_left_out():
    left_out = set(data.photo_names()) - set(explorer.photographs())
    assert left_out == {name for name in data.photo_names() if data.photo(name).credit.rpartition(", ")[2] == "unknown"}
    assert left_out and explorer.photographs()


# -------------------------------------------------------------------------------------------------- how a map is stored


def test_a_map_whose_answer_is_known():
    saliency, left = torch.zeros(16, 16), torch.zeros(16, 16)
    saliency[4:6, 8:10] = 3.0
    left[:, :8] = 1
    entry = explorer.packed(saliency, 8, [left, 1 - left])
    wanted = np.zeros((8, 8), np.uint8)
    wanted[2, 4] = 255
    assert (explorer.unpacked(entry) == wanted).all()
    assert entry["peak"] == [round(8.5 / 16, 3), round(4.5 / 16, 3)]
    assert entry["inside"] == [0.0, 1.0] and entry["hit"] == [False, True]


def test_a_stored_map_is_the_map_to_half_a_step():
    saliency = torch.rand(224, 224, generator=torch.Generator().manual_seed(0)).cumsum(0)
    entry = explorer.packed(saliency, 28, [])
    means = F.avg_pool2d(to_unit(saliency.double())[None], 8)[0].numpy()
    assert np.abs(explorer.unpacked(entry) / 255 - means / means.max()).max() <= 0.5 / 255 + 1e-9


def test_what_speaks_against_a_class_is_left_out():
    saliency = torch.tensor([[-5.0, 0.0], [1.0, 2.0]])
    assert explorer.unpacked(explorer.packed(saliency, 2, [])).tolist() == [[0, 0], [128, 255]]


@pytest.mark.parametrize(
    ("saliency", "why"),
    [(torch.zeros(4, 4), "nowhere above zero"), (-torch.rand(4, 4) - 1, "nowhere above zero"), (torch.ones(4, 4), "everywhere")],
    ids=["0", "negative", "constant"],
)
def test_a_blank_map_says_why_it_is_blank(saliency, why):
    (said,) = explorer.packed(saliency, 2, [torch.ones(4, 4)]).items()
    assert said[0] == "blank" and why in said[1]


@pytest.mark.parametrize("method", ["Score-CAM", "SISE", "layer selection"])
def test_where_a_method_finds_nothing_the_map_is_blank(deep, method):
    with torch.no_grad():
        for weights in deep.module.parameters():
            weights.zero_()  # so that all features are constant
    entry = explorer.entry_of(
        explorer.Asked(method, "", "class 1", "shuffled"), deep, deep.preprocess(drawn("one").picture), [], 0
    )
    assert set(entry) == {"blank"} and "nothing" in entry["blank"]


@pytest.mark.parametrize(
    ("asked", "settings", "words"),
    [
        (explorer.Asked("RISE", "", "clas 1", "trained"), {"samples": 5}, "clas 1"),
        (explorer.Asked("RISE", "", "class 1", "trained"), {"samples": 0}, "samples"),
        (explorer.Asked("Grad-CAM", "features.55", "class 1", "trained"), {}, "no layer"),
    ],
    ids=["class", "setting", "layer"],
)
def test_a_wrong_question_is_an_error_and_no_blank_map(deep, asked, settings, words):
    shown = {asked.method: explorer.Shown(explorer.MASKED, 28, settings=settings)}
    with pytest.raises(ValueError, match=words):
        explorer.entry_of(asked, deep, deep.preprocess(drawn("one").picture), [], 8, shown)


def test_outlines_are_shares_of_the_picture():
    photo = drawn("one")
    assert explorer.outlines(photo, "class 1") == [[[0.25, 0.25], [0.55, 0.25], [0.55, 0.625], [0.25, 0.625]]]
    assert explorer.outlines(photo, "class 2") == [[[0.0, 1.0], [0.2, 1.0], [0.0, 0.75]]]
    assert explorer.outlines(photo, "class 3") == []


# ---------------------------------------------------------------------------------------------------------- its files


def problems(found: dict[str, Any], index: dict[str, Any]) -> list[str]:
    """What the page could not show of a photograph's file."""
    said: list[str] = []
    names = [c["name"] for c in found["classes"]]
    outlined = sum(bool(c["outlines"]) for c in found["classes"])
    methods, layers = {m["id"]: m for m in index["methods"]}, [one["id"] for one in index["layers"]]
    if not found["version"] == index["version"] == explorer.VERSION:
        said.append("another version")
    row = next((one for one in index["photos"] if one["id"] == found["id"]), None)
    if row != {"id": found["id"], "title": found["title"], "credit": found["credit"], "classes": names}:
        said.append("the index says something else of it")
    if not found["credit"] or not found["title"]:
        said.append("no credit or no title")
    if not found["picture"].startswith("data:image/jpeg;base64,"):
        said.append("no picture")
    if len(found["areas"]) != outlined or not all(0 < a < 1 for a in found["areas"]):
        said.append(f"areas are {found['areas']}")
    if not all(0 <= v <= 1 for c in found["classes"] for line in c["outlines"] for point in line for v in point):
        said.append("an outline beyond the picture")
    for key, entry in found["maps"].items():
        method, layer, name, weights = key.split("|")
        known = methods.get(method)
        if known is None or weights not in ("trained", "shuffled"):
            said.append(f"{key}: of an unknown method or weights")
            continue
        if (layer in layers) != known["layered"] or (name in names) != known["asks"]:
            said.append(f"{key}: at an unknown layer or of an unknown class")
        if set(entry) == {"blank"}:
            continue
        values = explorer.unpacked(entry)
        if values.max() != 255 or not all(0 <= v <= 1 for v in [*entry["peak"], *entry["inside"]]):
            said.append(f"{key}: a map without a highest value, a peak or a share")
        if not len(entry["inside"]) == len(entry["hit"]) == outlined:
            said.append(f"{key}: {len(entry['inside'])} shares for {outlined} outlines")
    for method, known in methods.items():
        for layer in layers if known["layered"] else [""]:
            for name in names if known["asks"] else [""]:
                if f"{method}|{layer}|{name}|trained" not in found["maps"]:
                    said.append(f"{method} at {layer!r} for {name!r} is missing")
    return said


def test_what_the_builder_makes_is_what_the_page_reads(deep, tmp_path):
    out = built(deep, tmp_path)
    index = index_in(out)
    assert [photo["id"] for photo in index["photos"]] == ["one", "two"]
    assert [layer["id"] for layer in index["layers"]] == list(explorer.heights(deep)) and len(index["layers"]) > 1
    assert len(index["colours"]) == 256 * 3 * 4 / 3
    for name in ("one", "two"):
        assert problems(explorer.from_script(out / "photos" / f"{name}.js"), index) == []


SPOILS: list[Callable[[dict[str, Any]], Any]] = [
    lambda found: found.update(version=0),
    lambda found: found.update(title="Another"),
    lambda found: found.update(credit=""),
    lambda found: found.update(picture="http://example.org/x.jpg"),
    lambda found: found["areas"].pop(),
    lambda found: found["classes"][0]["outlines"][0].append([1.2, 0.5]),
    lambda found: found["maps"].pop(next(iter(found["maps"]))),
    lambda found: found["maps"].update({"grad-cam|nowhere|class 1|trained": {"blank": "x"}}),
    lambda found: found["maps"].update({"grad-cam|features.1|class 1|drunk": {"blank": "x"}}),
    lambda found: next(e for e in found["maps"].values() if "data" in e).update(inside=[]),
    lambda found: next(e for e in found["maps"].values() if "data" in e).update(peak=[1.5, 0.5]),
]


def test_a_spoilt_file_is_found(deep, tmp_path):
    out = built(deep, tmp_path, ("one",))
    index, good = index_in(out), explorer.from_script(out / "photos/one.js")
    for spoil in SPOILS:
        bad = copy.deepcopy(good)
        spoil(bad)
        assert problems(bad, index), spoil


def test_the_maps_are_those_of_the_methods(deep, tmp_path):
    found = explorer.from_script(built(deep, tmp_path, ("one",)) / "photos/one.js")
    image = deep.preprocess(drawn("one").picture)
    layer = next(iter(explorer.heights(deep)))
    saliency = explorer.FUNCTIONS["Grad-CAM"](deep, image, deep.index("class 2"), layer=layer)  # type: ignore[call-arg]
    entry = found["maps"][f"grad-cam|{layer}|class 2|trained"]
    assert entry == explorer.packed(saliency, entry.get("side", 28), truths_of(deep, drawn("one"), found))
    shuffled = explorer.FUNCTIONS["guided backprop"](models.randomised(deep), image, deep.index(found["classes"][0]["name"]))
    key = f"guided-backprop||{found['classes'][0]['name']}|shuffled"
    assert found["maps"][key] == explorer.packed(shuffled, 56, truths_of(deep, drawn("one"), found))


def truths_of(net: models.Classifier, photo: Photo, found: dict[str, Any]) -> list[Tensor]:
    return [photo.mask(c["name"], (net.side, net.side)) for c in found["classes"] if c["outlines"]]


def test_the_same_files_every_time(deep, tmp_path):
    a, b = built(deep, tmp_path / "a"), built(deep, tmp_path / "b")
    assert [(a / "photos" / f"{n}.js").read_bytes() == (b / "photos" / f"{n}.js").read_bytes() for n in ("one", "two")] == [
        True
    ] * 2
    assert (a / "index.js").read_bytes() == (b / "index.js").read_bytes()


def test_a_file_is_ascii_and_comes_back_as_it_was(tmp_path):
    found = {"title": "Ménagerie “x”", "maps": {"a|b": {"blank": "none\u2028"}}}
    (tmp_path / "x.js").write_text(explorer.as_script(found), encoding="ascii")
    assert explorer.from_script(tmp_path / "x.js") == found


def test_a_run_that_was_stopped_goes_on(deep, tmp_path, monkeypatch):
    true, made_maps = explorer.explained, []

    def counting(asked, *rest):
        if len(made_maps) == 5:
            made_maps.append("the power fails")
            raise KeyboardInterrupt
        made_maps.append(asked.key)
        return true(asked, *rest)

    monkeypatch.setattr(explorer, "explained", counting)
    with pytest.raises(KeyboardInterrupt):
        built(deep, tmp_path, ("one",))
    assert not (tmp_path / "out/photos/one.js").exists()
    with open(tmp_path / "work/one.jsonl", "a", encoding="utf-8") as file:
        file.write('\n{"made": "half a li')
    out = built(deep, tmp_path, ("one",))
    made_maps.remove("the power fails")
    assert sorted(made_maps) == sorted(explorer.from_script(out / "photos/one.js")["maps"])  # each once
    built(deep, tmp_path, ("one",))
    assert len(made_maps) == len(set(made_maps))


def test_other_weights_take_nothing_from_an_earlier_run(deep, tmp_path):
    built(deep, tmp_path, ("one",))
    path = tmp_path / "work/one.jsonl"
    other = levels(seed=1)
    assert explorer.kept(path, explorer.made_from(deep, drawn("one"), FEW))
    assert explorer.kept(path, explorer.made_from(other, drawn("one"), FEW)) == {}
    assert explorer.kept(path, explorer.made_from(deep, drawn("one", 1), FEW)) == {}


def packed_otherwise(saliency: Tensor, side: int, truths: list[Tensor]) -> dict[str, Any]:
    return {"blank": "of another code"}


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [(explorer, "COARSE", 14), (explorer, "packed", packed_otherwise), (torch, "__version__", "0.1")],
    ids=["size", "code", "torch"],
)
def test_maps_made_in_another_way_are_not_kept(deep, monkeypatch, owner, name, value):
    before = explorer.made_from(deep, drawn("one"), FEW)
    assert explorer.made_from(deep, drawn("one"), FEW) == before
    monkeypatch.setattr(owner, name, value)
    assert explorer.made_from(deep, drawn("one"), FEW) != before


def test_other_methods_or_another_outline_take_nothing_from_an_earlier_run(deep, tmp_path, monkeypatch):
    photo = drawn("one")
    before = explorer.made_from(deep, photo, FEW)
    assert explorer.made_from(deep, replace(photo, things=photo.things[:1]), FEW) != before
    other = tmp_path / "methods.py"
    other.write_bytes(Path(explorer.methods.__file__).read_bytes() + b"# another line\n")
    monkeypatch.setattr(explorer.methods, "__file__", str(other))
    assert explorer.made_from(deep, photo, FEW) != before


def test_the_index_has_the_photographs_that_are_there(deep, tmp_path):
    photos = {name: drawn(name) for name in ("one", "two", "three")}
    for names in (["three"], ["one"]):
        explorer.make(
            names, deep, tmp_path / "out", tmp_path / "work", shown=FEW, photo=photos.__getitem__, order=list(photos),
            say=lambda _: None,
        )  # fmt: skip
    assert [photo["id"] for photo in index_in(tmp_path / "out")["photos"]] == ["one", "three"]


def test_a_wrong_photograph_is_refused_before_a_network_is_read():
    with pytest.raises(SystemExit, match="no photograph nobody .*chelsea"):
        explorer.main(["--photos", "nobody"])


def test_a_dry_run_says_how_much_it_is(capsys, tmp_path):
    explorer.main(["--dry-run", "--photos", "chelsea", "--out", str(tmp_path / "out")])
    net = models.load("efficientnet_lite0")
    n = len(list(explorer.asked_of(["a", "b", "c"], net.block_layers)))
    assert f"1 photographs, {n:,} maps" in capsys.readouterr().out and not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------- what is stored


def test_the_maps_are_stored_whole_and_small():
    index = index_in(explorer.OUT)
    assert [photo["id"] for photo in index["photos"]] == explorer.photographs() and sorted(explorer.photographs()) == [
        path.stem for path in STORED
    ]
    sizes = {path.name: path.stat().st_size for path in explorer.OUT.rglob("*") if path.is_file()}
    assert sum(sizes.values()) / 1e6 < MEGABYTES
    assert max(sizes.values()) / 1e3 < KILOBYTES, sizes


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_photograph_is_what_the_page_reads(path):
    assert problems(explorer.from_script(path), index_in(explorer.OUT)) == []


def test_stored_maps_are_those_of_todays_code():
    """A few of them made anew: at two layers, with shuffled weights, and one that is no explanation."""
    net = models.load(index_in(explorer.OUT)["network"])
    nets = {"trained": net, "shuffled": models.randomised(net)}
    for name in ("chelsea", "coffee"):
        found, photo = explorer.from_script(explorer.OUT / f"photos/{name}.js"), data.photo(name)
        image, first = net.preprocess(photo.picture), found["classes"][0]["name"]
        for asked in (
            explorer.Asked("Grad-CAM", net.block_layers[-1], first, "trained"),
            explorer.Asked("LayerCAM", net.block_layers[-3], found["classes"][-1]["name"], "trained"),
            explorer.Asked("guided backprop", "", first, "shuffled"),
            explorer.Asked("edge detector", "", "", "trained"),
        ):
            entry = found["maps"][asked.key]
            anew = explorer.packed(
                explorer.explained(asked, nets[asked.weights], image), entry["side"], truths_of(net, photo, found)
            )
            difference = np.abs(explorer.unpacked(anew).astype(int) - explorer.unpacked(entry))
            assert difference.max() <= 3, (name, asked, difference.max())
            assert anew["inside"] == pytest.approx(entry["inside"], abs=0.005)


def test_maps_of_the_cat_are_as_the_page_says():
    """Where each is brightest, and of which less lies on the cat than it covers."""
    found = explorer.from_script(explorer.OUT / "photos/chelsea.js")
    name = found["classes"][0]["name"]
    maps = {
        method: found["maps"][f"{method}||{name}|trained"]
        for method in ("score-cam", "occlusion", "rise", "extremal-perturbation")
    }
    on_eyes_or_nose = {m: 0.3 < one["peak"][0] < 0.8 and 0.3 < one["peak"][1] < 0.85 for m, one in maps.items()}
    assert [method for method, there in on_eyes_or_nose.items() if there] == ["score-cam"]
    assert {m for m, one in maps.items() if one["inside"][0] < found["areas"][0]} == {"occlusion", "rise"}


PAGE = nbformat.read(BOOK / "explorer.ipynb", as_version=4)


def markup() -> BeautifulSoup:
    return BeautifulSoup("\n".join(cell.source for cell in PAGE.cells if cell.cell_type == "markdown"), "html.parser")


def test_the_page_loads_files_that_are_there():
    links = [tag.get("src") or tag.get("href") for tag in markup().find_all(["script", "link"])]
    assert len(links) == 3
    assert [link for link in links if not (BOOK / link.removeprefix("../")).is_file()] == []


def test_the_pages_questions_can_be_shown():
    index = index_in(explorer.OUT)
    photos = {photo["id"]: photo["classes"] for photo in index["photos"]}
    known = {"method": [m["id"] for m in index["methods"]], "layer": [one["id"] for one in index["layers"]]}
    known["weights"] = ["trained", "shuffled"]
    buttons = markup().select("[data-sw-show]")
    assert buttons
    for button in buttons:
        said = {key: value for key, (value,) in parse_qs(str(button["data-sw-show"]), strict_parsing=True).items()}
        classes = photos[said.pop("photo")]
        for key, value in said.items():
            what = key.partition("-")[0]
            assert value in (classes if what == "class" else known[what]), (key, value)
        assert button.has_attr("hidden") and button.text


# ------------------------------------------------------------------------------------------------------ the live view


class Slow(Tiny):
    """Takes its time over every batch, and says that it has begun."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        time.sleep(0.02)
        return super().forward(x)


def slow() -> models.Classifier:
    return classifier(made(Slow, dtype=torch.float32))


def begun(net: models.Classifier, calls: int) -> bool:
    """Whether the network has been called so often, after at most ten seconds."""
    until = time.monotonic() + 10
    while net.module.calls < calls and time.monotonic() < until:  # type: ignore[operator]
        time.sleep(0.005)
    return net.module.calls >= calls  # type: ignore[operator]


def file_of(content: bytes, name: str = "mine.png") -> tuple[dict[str, Any], ...]:
    """What the upload button holds after a reader has chosen a file."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return ({"name": name, "type": "image/png", "size": len(content), "content": memoryview(content), "last_modified": when},)


def png_of(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_it_explains(deep):
    view = live_view.LiveView(deep)
    before = view.image.value
    view.method.value, view.target.value = "LayerCAM", "class 2"
    view.layer.value = deep.block_layers[0]
    view.run.click()
    view.wait(30)
    assert torch.equal(
        view.saliency, explorer.FUNCTIONS["LayerCAM"](deep, view.pixels_in, deep.index("class 2"), layer=deep.block_layers[0])
    )
    assert 'alt="LayerCAM at features.1, asked for class 2"' in view.image.value and view.image.value != before
    assert "LayerCAM at" in view.says and "Brightest" in view.says
    assert not view.run.disabled and view.cancel.disabled and not view.busy


def test_it_counts_what_goes_through_the_network(deep):
    view = live_view.LiveView(deep)
    view.method.value = "occlusion"
    with evaluation.counted(deep) as cost:
        view.run.click()
        view.wait(30)
    assert cost.forwards > 50
    assert view.count.value.startswith(f"{cost.forwards:,} images through the network")
    assert view.progress.value == view.progress.max > 0


def test_expected_images_are_the_counted_ones():
    net = models.load("efficientnet_lite0")
    table = data.results("methods").set_index(["method", "network"])["forwards"]
    assert live_view.passes(net, "Score-CAM") == table["Score-CAM", net.name] > 100
    assert live_view.passes(net, "RISE") == explorer.SHOWN["RISE"].settings["samples"] + 1
    assert live_view.passes(classifier(made(Tiny)), "Score-CAM") is None


def test_stop_stops_at_once_and_leaves_the_network_as_it_was():
    net = slow()
    view = live_view.LiveView(net)
    before = snapshot(net)
    view.method.value = "RISE"
    start = net.module.calls
    view.run.click()
    assert begun(net, start + 3) and view.busy  # and this thread, the kernel's, is free meanwhile
    assert view.run.disabled and not view.cancel.disabled
    view.cancel.click()
    assert not view.busy and view.saliency is None and view.says == "Stopped."
    assert net.module.calls - start < 60, "RISE has 125 batches"
    assert view.count.value.startswith("stopped after")
    assert not view.run.disabled and view.cancel.disabled
    assert changes(before, snapshot(net)) == []


@pytest.mark.parametrize("method", [name for name in explorer.SHOWN if explorer.SHOWN[name].family != explorer.NOTHING])
def test_every_method_can_be_stopped_anywhere(method):
    """Stopped at its first images, later, and not at all: the network is as it was each time."""
    net = levels()
    image = net.preprocess(drawn("one").picture)
    before, stops = snapshot(net), 0
    for last in (*range(6), 40, 10**9):
        passed = 0

        def seen(n: int, last: int = last) -> None:
            nonlocal passed
            if passed >= last:
                raise live_view.Stopped
            passed += n

        try:
            with live_view.watched(net, seen):
                live_view.explained(net, image, method, "", "class 1")
        except live_view.Stopped:
            stops += 1
        assert changes(before, snapshot(net)) == [], last
    assert stops


def test_another_question_stops_the_first():
    net = slow()
    view = live_view.LiveView(net)
    view.method.value = "RISE"
    start = net.module.calls
    view.run.click()
    assert begun(net, start + 3)
    view.method.value = "Grad-CAM"
    view.start()  # the button is off; a program may ask all the same
    view.wait(30)
    assert view.asked[0] == "Grad-CAM" and view.says.startswith("Grad-CAM")


def test_another_picture_stops_what_is_being_made():
    net = slow()
    view = live_view.LiveView(net)
    view.method.value = "RISE"
    start = net.module.calls
    view.run.click()
    assert begun(net, start + 3)
    view.photo.value = "coffee"
    assert not view.busy and view.saliency is None and view.current.name == "coffee"
    assert "says:" in view.says


def test_an_upload_is_taken(deep):
    view = live_view.LiveView(deep)
    picture = Image.new("RGBA", (20, 30), (250, 20, 30, 128))
    view.upload.value = file_of(png_of(picture))
    assert view.current.name == "mine.png" and view.photo.value == ""
    assert torch.equal(view.pixels_in, deep.preprocess(picture))
    view.run.click()
    view.wait(30)
    assert "Nobody has outlined" in view.says


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"Dear diary", "could not be read as a picture"),
        (png_of(Image.new("RGB", (90, 90)))[:60], "could not be read"),
    ],
    ids=["empty", "text", "cut off"],
)
def test_a_bad_upload_is_refused_in_a_sentence_and_nothing_is_lost(deep, content, words):
    view = live_view.LiveView(deep)
    view.run.click()
    view.wait(30)
    saliency = view.saliency
    view.upload.value = file_of(content, "<b>diary</b>.png")
    assert words in view.says and "<b>diary</b>.png" in view.says and "tmp" not in view.says.lower()
    assert 'role="alert"' in view.message.value and "<b>" not in view.message.value
    assert view.current.name == "chelsea" and view.saliency is saliency


def test_an_upload_that_is_too_large_is_refused_before_it_is_read(deep, monkeypatch):
    monkeypatch.setattr(live_view, "LARGEST", 10)
    monkeypatch.setattr(data, "read_image", lambda path: pytest.fail("read"))
    with pytest.raises(ValueError, match="mine.png has 0 MB; at most"):
        live_view.uploaded(b"x" * 11, "mine.png")


def test_an_unknown_class_is_answered_with_names_like_it(deep):
    view = live_view.LiveView(deep)
    view.target.value = "clas 1"
    view.run.click()
    assert view.thread is None and "class 1" in view.says and 'role="alert"' in view.message.value


def test_a_method_that_does_not_fit_says_why():
    view = live_view.LiveView(classifier(made(Deep, dtype=torch.float32), layer="features.3"))
    view.method.value = "CAM"  # of a network with two linear layers
    view.run.click()
    view.wait(30)
    assert view.says.startswith("CAM does not work here: CAM needs") and view.saliency is None
    assert not view.run.disabled and view.cancel.disabled


def test_an_error_inside_of_the_network_is_shown():
    net = classifier(made(Failing, dtype=torch.float32))
    view = live_view.LiveView(net)
    net.module.fail_at = net.module.calls + 1
    view.run.click()
    view.wait(30)
    assert "fails" in view.says and not view.run.disabled


def test_an_error_in_drawing_is_shown_and_explain_is_there_again(deep, monkeypatch):
    view = live_view.LiveView(deep)

    def fail(*_args, **_settings):
        raise RuntimeError("no such font")

    monkeypatch.setattr(live_view, "still", fail)
    view.run.click()
    view.wait(30)
    assert "no such font" in view.says and 'role="alert"' in view.message.value
    assert not view.run.disabled and view.cancel.disabled


def test_stop_does_not_say_so_of_a_map_that_was_done_first(deep, monkeypatch):
    go = threading.Event()

    def stubborn(*_args):
        go.wait(10)  # its last image is through: nothing stops it any more
        return torch.rand(deep.side, deep.side, generator=torch.Generator().manual_seed(0))

    view = live_view.LiveView(deep)
    view.count.value = "stopped after 7 images"  # of the run before
    monkeypatch.setattr(live_view, "explained", stubborn)
    view.run.click()
    threading.Timer(0.2, go.set).start()
    view.cancel.click()
    assert view.saliency is not None and view.says.startswith("Grad-CAM") and view.count.value.startswith("0 images")
    assert not view.run.disabled and view.cancel.disabled


def test_layers_follow_the_method(deep):
    view = live_view.LiveView(deep)
    assert list(view.layer.options) == list(deep.block_layers) and view.layer.value == deep.block_layers[-1]
    view.method.value = "occlusion"
    assert view.layer.disabled and view.layer.value == ""
    view.method.value = "LayerCAM"
    assert not view.layer.disabled and view.layer.value == deep.block_layers[-1]


def test_strength_draws_anew_and_computes_nothing(deep):
    view = live_view.LiveView(deep)
    view.run.click()
    view.wait(30)
    before = view.image.value
    with evaluation.counted(deep) as cost:
        view.strength.value = 0.2
    assert view.image.value != before and cost.forwards == 0


def test_a_file_by_name(deep, tmp_path):
    Image.new("L", (12, 9), 200).save(tmp_path / "mine.png")
    assert live_view.LiveView(deep, picture=tmp_path / "mine.png").current.name == "mine.png"
    with pytest.raises(FileNotFoundError):
        live_view.LiveView(deep, picture=tmp_path / "yours.png")


def test_words_of_a_map_whose_answer_is_known():
    saliency, left = torch.zeros(10, 10), torch.zeros(10, 10)
    saliency[2, 7], saliency[5, 1] = 3.0, 1.0
    left[:, :5] = 1
    assert live_view.words(saliency, left, "cup") == (
        "Brightest 75% from the left and 25% from the top, outside of the outline. "
        "25% of the map lies inside, which covers 50% of the picture."
    )
    assert live_view.words(saliency, None, "cup").endswith("Nobody has outlined cup on this picture.")
    assert live_view.words(torch.zeros(4, 4), left, "cup").startswith("A blank map")


def test_the_pages_cell_of_controls_runs(deep):
    (cell,) = [cell for cell in PAGE.cells if "skip-execution" in cell.metadata.get("tags", [])]
    view = eval(cell.source, {"live_view": live_view, "net": deep})
    assert "application/vnd.jupyter.widget-view+json" in view._repr_mimebundle_()
