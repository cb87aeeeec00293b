"""The explorer in a headless Chromium, from the disk and without a network: on maps of drawn pictures, and on the built page."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromium import HTML, PROBLEMS, findings, watched
from PIL import Image
from playwright.sync_api import Browser, Locator, Page
from test_explorer import BOOK, FEW, built, explorer, index_in, levels

from helpers.core import resize

WIDE, NARROW = 1280, 390
PAGE = HTML / "book" / "explorer.html"
pytestmark = pytest.mark.browser
whole = pytest.mark.skipif(not PAGE.is_file(), reason="the book is not built: `make book` first")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A book of one page: the explorer over two drawn pictures and a network with random weights."""
    folder = tmp_path_factory.mktemp("site")
    out = built(levels(), folder / "made")
    static = folder / "_static"
    shutil.copytree(out, static / "explorer")
    for name in ("explorer.js", "explorer.css"):
        shutil.copy(explorer.OUT / name, static / "explorer" / name)
    shutil.copy(BOOK / "_static/seeing-why.css", static)
    (folder / "book").mkdir()
    (folder / "book/explorer.html").write_text(
        '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Explorer</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="../_static/seeing-why.css">'
        '</head><body><main><h1>Explorer</h1><link rel="stylesheet" href="../_static/explorer/explorer.css">'
        '<div id="sw-explorer" class="sw-explorer" role="region" aria-label="Explorer"><p>needs JavaScript</p></div>'
        '<button type="button" class="sw-show" hidden data-sw-show="photo=two&amp;method=occlusion&amp;method-2=edge-detector">'
        'Show two</button><script src="../_static/explorer/index.js" defer></script>'
        '<script src="../_static/explorer/explorer.js" defer></script></main></body></html>',
        encoding="utf-8",
    )
    return folder


@contextmanager
def opened(browser: Browser, path: Path, hash: str = "", width: int = WIDE, **settings: Any) -> Iterator[Page]:
    """A page from the disk with the explorer ready; at the end, nothing may have gone wrong and nothing left the disk."""
    with watched(browser, path.as_uri() + hash, width, **settings) as (page, problems):
        if settings.get("java_script_enabled", True):
            page.wait_for_selector("#sw-explorer[data-ready]", timeout=20_000)
        yield page
        assert problems == []


def panels(page: Page) -> list[dict[str, str]]:
    """What is asked for in each panel, as its controls say."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.sw-panel')].map((panel) => {
          const [method, layer, name, weights] = [...panel.querySelectorAll('select')].map((s) => s.value);
          return { method, layer, class: name, weights };
        })"""
    )


def control(page: Page, label: str) -> Locator:
    return page.get_by_label(label, exact=True)


def caption(page: Page, i: int = 0) -> str:
    return page.locator(".sw-panel figcaption").nth(i).inner_text()


def pixels(page: Page, i: int = 0) -> np.ndarray:
    """What a panel's canvas shows, `[side, side, 3]`. As text: Playwright itself takes seconds for a long list."""
    text = page.evaluate(
        """(i) => {
          const canvas = document.querySelectorAll('.sw-panel canvas')[i];
          return JSON.stringify(Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data));
        }""",
        i,
    )
    values = json.loads(text)
    side = math.isqrt(len(values) // 4)
    return np.array(values, dtype=int).reshape(side, side, 4)[..., :3]


def in_words(share: float) -> str:
    return f"{math.floor(100 * share + 0.5)}%"


def stored(site: Path, name: str) -> dict[str, Any]:
    return explorer.from_script(site / f"_static/explorer/photos/{name}.js")


def first_map(found: dict[str, Any]) -> str:
    """The key of a map of Grad-CAM that is not blank, for an outlined class."""
    names = [c["name"] for c in found["classes"] if c["outlines"]]
    keys = [k for k, e in found["maps"].items() if k.startswith("grad-cam|") and k.endswith("|trained") and "data" in e]
    return next(key for key in keys if key.split("|")[2] in names)


def link(photo: str, key: str, more: str = "") -> str:
    method, layer, name, weights = key.split("|")
    return f"#photo={photo}&method={method}&layer={layer}&class={name.replace(' ', '+')}&weights={weights}{more}"


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_it_opens_without_a_network(browser, site, width):
    with opened(browser, site / "book/explorer.html", width=width) as page:
        assert page.evaluate(PROBLEMS) == []
        assert panels(page)[0]["method"] == "grad-cam" and page.url.partition("#")[2].startswith("photo=one")
        for label in ("Photograph", "Method", "Layer", "Asked for", "Weights"):
            assert page.get_by_role("combobox", name=label, exact=True).count() == 1
        assert page.get_by_role("slider", name="Strength of the map").count() == 1
        assert page.get_by_role("checkbox", name="Show the outline").is_checked()
        small = page.evaluate(
            "() => [...document.querySelectorAll('#sw-explorer :is(button, select, input)')].filter((e) => e.offsetParent)"
            ".filter((e) => Math.min(e.offsetWidth, e.offsetHeight) < 24).length"
        )
        assert small == 0


def test_words_under_a_map_are_what_was_measured(browser, site):
    found = stored(site, "one")
    key = first_map(found)
    name = key.split("|")[2]
    i = [c["name"] for c in found["classes"] if c["outlines"]].index(name)
    entry = found["maps"][key]
    with opened(browser, site / "book/explorer.html", link("one", key)) as page:
        text = caption(page)
        x, y = entry["peak"]
        assert f"Brightest {in_words(x)} from the left and {in_words(y)} from the top" in text
        assert ("inside the outline" in text.split(". ")[1]) == entry["hit"][i]
        assert f"{in_words(entry['inside'][i])} of the map lies inside the outline of {name}" in text
        assert f"covers {in_words(found['areas'][i])} of the picture" in text
        assert text in str(page.locator(".sw-panel canvas").get_attribute("aria-label"))


def test_a_link_shows_what_it_says_and_the_address_follows(browser, site):
    found, index = stored(site, "two"), index_in(site / "_static/explorer")
    names, layer = [c["name"] for c in found["classes"]], index["layers"][0]["id"]
    hash = f"{link('two', f'grad-cam|{layer}|{names[1]}|trained')}&strength=40&outline=no&method-2=occlusion&class-2="
    with opened(browser, site / "book/explorer.html", hash + names[2].replace(" ", "+")) as page:
        assert control(page, "Photograph").input_value() == "two"
        assert panels(page) == [
            {"method": "grad-cam", "layer": layer, "class": names[1], "weights": "trained"},
            {"method": "occlusion", "layer": "", "class": names[2], "weights": "trained"},
        ]
        assert control(page, "Strength of the map").input_value() == "40"
        assert not control(page, "Show the outline").is_checked()
        address = page.url
        page.evaluate("() => { location.hash = '#photo=one&method=edge-detector'; }")
        page.wait_for_function("() => document.querySelectorAll('.sw-panel').length === 1")
        assert panels(page)[0]["method"] == "edge-detector" and control(page, "Asked for").is_disabled()
        assert control(page, "Strength of the map").input_value() == "65"  # as usual, for the link says nothing of them
        assert control(page, "Show the outline").is_checked()
        page.goto("about:blank")
        page.goto(address)
        page.wait_for_selector("#sw-explorer[data-ready]")
        assert [panel["class"] for panel in panels(page)] == names[1:3]


def test_a_link_to_what_is_not_there_says_so(browser, site):
    hash = "#photo=nobody&method=magic&layer=cellar&class=unicorn&weights=heavy&strength=900"
    with opened(browser, site / "book/explorer.html", hash) as page:
        said = page.locator(".sw-note").inner_text()
        for word in ("nobody", "magic", "unicorn", "heavy"):
            assert f"“{word}”" in said
        assert control(page, "Photograph").input_value() == "one" and panels(page)[0]["method"] == "grad-cam"
        assert control(page, "Strength of the map").input_value() == "65"


def test_a_hostile_link_is_text_and_nothing_else(browser, site):
    hash = "#photo=one&method=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&class=__proto__&layer=constructor"
    with opened(browser, site / "book/explorer.html", hash) as page:
        assert page.locator("#sw-explorer img").count() == 0 and "<img" in page.locator(".sw-note").inner_text()


def test_the_map_has_the_books_colours_and_torchs_sizes(browser, site):
    found = stored(site, "one")
    key = first_map(found)
    values = torch.from_numpy(explorer.unpacked(found["maps"][key]).astype(np.float64))
    enlarged = resize(values / 255, (explorer.PICTURE, explorer.PICTURE)).numpy()
    wanted = explorer.colormaps[explorer.plotting.MAP_COLOURS](enlarged, bytes=True)[..., :3].astype(int)
    with opened(browser, site / "book/explorer.html", link("one", key, "&strength=100&outline=no")) as page:
        assert np.abs(pixels(page) - wanted).max() <= 8  # of 255: a step of the scale, where two numbers round apart


def test_strength_nought_is_the_photograph_and_the_outline_is_drawn_where_it_is(browser, site):
    found = stored(site, "one")
    key = first_map(found)
    picture = Image.open(io.BytesIO(base64.b64decode(found["picture"].partition(",")[2]))).convert("RGB")
    with opened(browser, site / "book/explorer.html", link("one", key, "&strength=0&outline=no")) as page:
        bare = pixels(page)
        assert np.abs(bare - np.array(picture, dtype=int)).mean() < 3
        control(page, "Show the outline").check()
        drawn = np.abs(pixels(page) - bare).max(-1) > 0  # [side, side]
        points = next(c["outlines"] for c in found["classes"] if c["name"] == key.split("|")[2])[0]
        corners = (np.array(points) * explorer.PICTURE).round().astype(int)
        y, x = np.nonzero(drawn)
        assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx(
            (
                *np.clip([corners[:, 0].min(), corners[:, 0].max()], 0, 335),
                *np.clip([corners[:, 1].min(), corners[:, 1].max()], 0, 335),
            ),
            abs=4,
        )


def test_everything_by_keyboard(browser, site):
    found, index = stored(site, "one"), index_in(site / "_static/explorer")
    methods, layers = [m["id"] for m in index["methods"]], [one["id"] for one in index["layers"]]
    names = [c["name"] for c in found["classes"]]
    with opened(browser, site / "book/explorer.html") as page:
        passed = []
        for _ in range(60):
            page.keyboard.press("Tab")
            passed.append(page.evaluate("() => document.activeElement.tagName"))
            if passed[-1] == "CANVAS":
                break
        assert passed[-1] == "CANVAS" and {"SELECT", "INPUT", "BUTTON"} <= set(passed)
        outline = page.evaluate(
            "() => { const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]; }"
        )
        assert outline == ["solid", "3px"]

        def now() -> dict[str, str]:
            assert page.evaluate("() => document.activeElement.tagName") == "CANVAS"
            return panels(page)[0]

        heard = page.get_by_role("status")
        assert now()["layer"] == layers[-1]
        page.keyboard.press("ArrowUp")
        assert now()["layer"] == layers[-2] and f"at {layers[-2]}" in heard.inner_text()
        page.keyboard.press("ArrowDown")
        assert now()["layer"] == layers[-1]
        page.keyboard.press("c")
        assert now()["class"] == names[1] and f"asked for {names[1]}" in heard.inner_text()
        page.keyboard.press("w")
        assert now()["weights"] == "trained" and "shuffled" in page.locator(".sw-note").inner_text()  # made for the first class
        for _ in names[1:]:
            page.keyboard.press("c")
        page.keyboard.press("w")
        assert now() == {"method": "grad-cam", "layer": layers[-1], "class": names[0], "weights": "shuffled"}
        page.keyboard.press("ArrowRight")
        assert now()["method"] == methods[1]
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert now()["method"] == methods[-1]
        page.keyboard.press("+")
        assert control(page, "Strength of the map").input_value() == "70"
        page.keyboard.press("-")
        page.keyboard.press("o")
        assert not control(page, "Show the outline").is_checked()
        page.keyboard.press("p")
        page.wait_for_function("() => location.hash.includes('photo=two')")
        assert now()["method"] == methods[-1]
        before = page.url
        page.keyboard.press("Control+c")
        page.keyboard.press("x")
        assert page.url == before


def test_side_by_side(browser, site):
    with opened(browser, site / "book/explorer.html") as page:
        add = page.get_by_role("button", name="Add a map")
        for n in (2, 3, 4):
            add.click()
            page.wait_for_function(f"() => document.querySelectorAll('.sw-panel').length === {n}")
            assert page.evaluate(
                "(n) => document.activeElement === document.querySelectorAll('.sw-panel')[n].querySelector('select')", n - 1
            )
        assert add.is_disabled()
        tops = [page.locator(".sw-panel").nth(i).bounding_box() for i in range(2)]
        assert tops[0] and tops[1] and tops[0]["y"] == tops[1]["y"] and tops[0]["x"] < tops[1]["x"]
        kept = [panel["method"] for panel in panels(page)]
        page.get_by_role("button", name="Remove map 2").click()
        page.wait_for_function("() => document.querySelectorAll('.sw-panel').length === 3")
        assert [panel["method"] for panel in panels(page)] == [kept[0], *kept[2:]]
        assert page.evaluate("() => document.activeElement.textContent") == "Add a map"
        assert "Map 2 removed" in page.get_by_role("status").inner_text()


def test_comparisons_at_a_press(browser, site):
    found, index = stored(site, "one"), index_in(site / "_static/explorer")
    with opened(browser, site / "book/explorer.html") as page:
        page.get_by_role("button", name="four layers").click()
        page.wait_for_function("() => document.querySelectorAll('.sw-panel').length > 1")
        assert [panel["layer"] for panel in panels(page)] == [one["id"] for one in index["layers"]][-4:]
        page.get_by_role("button", name="the classes").click()
        page.wait_for_function(f"() => document.querySelectorAll('.sw-panel').length === {len(found['classes'])}")
        assert [panel["class"] for panel in panels(page)] == [c["name"] for c in found["classes"]]
        page.get_by_role("button", name="trained and shuffled weights").click()
        page.wait_for_function("() => document.querySelectorAll('.sw-panel').length === 4")
        assert [panel["weights"] for panel in panels(page)] == ["trained", "shuffled"] * 2
        page.get_by_role("button", name="four methods").click()
        page.wait_for_function("() => document.querySelectorAll('.sw-panel').length < 4")
        assert {panel["method"] for panel in panels(page)} <= {explorer.slug(name) for name in FEW}
        page.get_by_role("button", name="Show two").click()
        page.wait_for_function("() => location.hash.includes('photo=two')")
        assert [panel["method"] for panel in panels(page)] == ["occlusion", "edge-detector"]


def test_another_photograph_asks_for_its_own_classes(browser, site):
    with opened(browser, site / "book/explorer.html", "#photo=one&method=occlusion") as page:
        control(page, "Photograph").select_option("two")
        page.wait_for_function("() => location.hash.includes('photo=two')")
        assert panels(page)[0]["class"] == stored(site, "two")["classes"][0]["name"]
        assert page.locator(".sw-credit").inner_text().startswith("Drawing two. Photograph: us, CC0")
        assert page.get_by_role("status").inner_text().startswith("Drawing two.")


def test_on_a_telephone_maps_stand_below_one_another(browser, site):
    with opened(browser, site / "book/explorer.html", "#photo=one&method=grad-cam&method-2=occlusion", width=NARROW) as page:
        one, two = (page.locator(".sw-panel").nth(i).bounding_box() for i in range(2))
        assert one and two and one["x"] == two["x"] and one["y"] + one["height"] <= two["y"]
        assert one["width"] <= NARROW and page.evaluate(PROBLEMS) == []


def test_without_javascript_there_is_a_sentence(browser, site):
    with opened(browser, site / "book/explorer.html", java_script_enabled=False) as page:
        assert page.get_by_text("needs JavaScript").is_visible()
        assert not page.get_by_role("button", name="Show two").is_visible()


@pytest.mark.parametrize("content", [None, "window.SEEING_WHY_EXPLORER = {version: 0};"], ids=["no maps", "of another version"])
def test_without_maps_the_page_says_how_to_make_them(browser, site, tmp_path, content):
    shutil.copytree(site, tmp_path / "site")
    (tmp_path / "site/_static/explorer/index.js").write_text(content or "", encoding="utf-8")
    page = browser.new_page()
    try:
        page.goto((tmp_path / "site/book/explorer.html").as_uri())
        assert "python book/explorer.py" in page.locator("#sw-explorer").inner_text()
    finally:
        page.close()


def test_a_photograph_that_does_not_load_is_said_and_the_others_stay(browser, site, tmp_path):
    shutil.copytree(site, tmp_path / "site")
    (tmp_path / "site/_static/explorer/photos/two.js").write_text("", encoding="utf-8")
    with opened(browser, tmp_path / "site/book/explorer.html") as page:
        control(page, "Photograph").select_option("two")
        page.wait_for_function("() => document.querySelector('.sw-note').textContent.includes('could not be loaded')")
        control(page, "Photograph").select_option("one")
        page.wait_for_function("() => !document.querySelector('.sw-note').textContent")
        assert caption(page)


def test_where_the_first_photograph_does_not_load_another_can_be_chosen(browser, site, tmp_path):
    shutil.copytree(site, tmp_path / "site")
    (tmp_path / "site/_static/explorer/photos/one.js").write_text("", encoding="utf-8")
    with opened(browser, tmp_path / "site/book/explorer.html", "#photo=one&method=occlusion") as page:
        assert "could not be loaded" in page.locator(".sw-note").inner_text()
        assert page.locator("#sw-explorer :is(button, input):enabled").count() == 0
        assert control(page, "Photograph").input_value() == ""
        control(page, "Photograph").select_option("two")
        page.wait_for_function("() => location.hash.includes('photo=two')")
        assert control(page, "Strength of the map").is_enabled() and control(page, "Show the outline").is_enabled()
        page.get_by_role("button", name="Add a map").click()
        page.wait_for_function("() => document.querySelectorAll('.sw-panel').length === 2")


def test_what_is_changed_while_a_photograph_loads_stays_changed(browser, site):
    with opened(browser, site / "book/explorer.html", "#photo=one&method=grad-cam") as page:
        held: list[Any] = []
        page.route("**/photos/two.js", lambda route: held.append(route))
        control(page, "Photograph").select_option("two")
        control(page, "Method").select_option("occlusion")
        assert panels(page)[0]["method"] == "occlusion" and "photo=one" in page.url
        page.wait_for_timeout(300)  # so long it loads
        held[0].continue_()
        page.wait_for_function("() => location.hash.includes('photo=two')")
        assert panels(page)[0]["method"] == "occlusion"
        assert panels(page)[0]["class"] == stored(site, "two")["classes"][0]["name"]


# ------------------------------------------------------------------------------------------------------ the built page


@whole
@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_built_page_is_whole_and_accessible(browser, width, theme):
    with opened(browser, PAGE, "#photo=coffee&method=score-cam&method-2=edge-detector", width=width, color_scheme=theme) as page:
        assert page.evaluate("() => document.documentElement.dataset.theme") == theme
        assert page.evaluate(PROBLEMS) == []
        assert [panel["method"] for panel in panels(page)] == ["score-cam", "edge-detector"]
        page.locator(".sw-keys summary").click()
        assert findings(page) == []


@whole
def test_every_photograph_and_method_of_the_built_page_can_be_shown(browser):
    index = index_in(PAGE.parents[1] / "_static/explorer")
    with opened(browser, PAGE) as page:
        for photo in index["photos"]:
            control(page, "Photograph").select_option(photo["id"])
            page.wait_for_function("(name) => location.hash.includes('photo=' + name)", arg=photo["id"])
            for method in index["methods"]:
                control(page, "Method").select_option(method["id"])
                assert caption(page).lower().startswith(method["name"].lower()), (photo["id"], method["id"])
                assert "not made" not in caption(page), (photo["id"], method["id"])


@whole
def test_the_built_pages_questions_work(browser):
    with opened(browser, PAGE) as page:
        buttons = page.locator("[data-sw-show]")
        assert buttons.count()
        for i in range(buttons.count()):
            wanted = dict(part.split("=", 1) for part in str(buttons.nth(i).get_attribute("data-sw-show")).split("&"))
            buttons.nth(i).click()
            page.wait_for_function("(name) => location.hash.includes('photo=' + name)", arg=wanted["photo"])
            assert page.locator(".sw-note").inner_text() == ""
            assert [panel["method"] for panel in panels(page)] == [v for k, v in wanted.items() if k.startswith("method")]


def test_the_scripts_arithmetic_alone(browser, site):
    """Links there and back, and words for maps that no file of ours has."""
    with opened(browser, site / "book/explorer.html") as page:
        state = {"photo": "a&b", "strength": 5, "outline": False, "panels": [
            {"method": "x", "layer": "l=1", "class": "hen, brood", "weights": "trained"},
            {"method": "y", "layer": "", "class": "#1 dad", "weights": "shuffled"},
        ]}  # fmt: skip
        back = page.evaluate("(state) => { const s = SeeingWhyExplorer; return s.parsed(s.linked(state)); }", state)
        assert back == {**state, "panels": [
            {"method": "x", "layer": "l=1", "class": "hen, brood"}, {"method": "y", "class": "#1 dad", "weights": "shuffled"},
        ]}  # fmt: skip
        words = page.evaluate("""() => {
          const s = SeeingWhyExplorer, entry = { peak: [0.5, 0.25], inside: [0.4], hit: [true] };
          return [s.words(undefined, [], [], 'x'), s.words({ blank: 'why' }, [], [], 'x'),
                  ...['cup', 'dog', ''].map((name) => s.words(entry, ['cup'], [0.1], name))];
        }""")
        assert words[:2] == ["This map was not made.", "A blank map: why."]
        assert words[2].endswith(
            "inside the outline. 40% of the map lies inside the outline of cup, which covers 10% of the picture."
        )
        assert "Nobody has outlined dog" in words[3] and "40% of the map lies on cup" in words[3]
        assert "It knows nothing of the class" in words[4]
        row = page.evaluate("() => Array.from(SeeingWhyExplorer.enlarge(new Uint8Array([0, 255, 0, 255]), 2, 4)).slice(0, 4)")
        assert row == [0, 0.25, 0.75, 1]
