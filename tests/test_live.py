"""The live page: the network that it runs is the book's, and what it computes in a browser is what helpers compute."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromium import HTML, PROBLEMS, findings
from PIL import Image
from playwright.sync_api import Browser

from helpers import data, models
from helpers.cam import cam, grad_cam
from helpers.core import features_of, probability, resize, to_unit
from helpers.data import data_folder
from helpers.masks import FeatureMasks, masked_logits
from helpers.sampling import occlusion
from helpers.score_cam import changing

BOOK = data_folder().parent / "book"
PAGE = HTML / "book" / "live.html"
FACTS = HTML / "_static" / "live" / "facts.js"
TOLERANCE = 1e-3  # of logits and probabilities as they are; of a map as a share of its largest value
STRONGEST = 32  # feature maps in the test of Score-CAM
COARSE = {"window": 64, "stride": 40}  # occlusion asks 25 times and not 169 times
PATIENCE = 300_000  # milliseconds for what the network computes on a slow machine


def script(name: str) -> Any:
    """A script of book/ as a module; book/ is no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BOOK / f"{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


live_build = script("live_build")


@pytest.fixture(scope="module")
def net():
    return models.load(live_build.NETWORK)


# ------------------------------------------------------------------------------------------------- what is packed


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
def test_the_exported_network_equals_torch(net, name):
    """By onnx's own slow interpreter, on a small square: the paddings of 64 pixels are those of 224."""
    from onnx.reference import ReferenceEvaluator

    small = replace(net, side=64)
    image = small.preprocess(data.photo(name).picture)  # [3, 64, 64]
    logits, features = ReferenceEvaluator(live_build.onnx_model(small)).run(None, {"image": image[None].numpy()})
    with torch.no_grad():
        expected = net(image[None]).numpy()
    assert logits.shape == (1, len(net.classes)) and features.shape == (1, 1280, 2, 2)
    assert np.abs(logits - expected).max() < TOLERANCE
    assert np.abs(features[0] - features_of(net, image, net.cam_layer).numpy()).max() < TOLERANCE


def test_paddings_of_the_small_square_are_those_of_the_page(net):
    def paddings(side: int) -> list[list[int]]:
        graph = live_build.onnx_model(replace(net, side=side)).graph
        return [list(a.ints) for node in graph.node for a in node.attribute if a.name == "pads"]

    assert paddings(64) == paddings(net.side)
    assert any(top != bottom for top, _, bottom, _ in paddings(net.side))  # SAME is lopsided where it can be


def test_the_page_finds_the_linear_layer_in_the_file(net):
    model = live_build.lite_model(net)
    facts = live_build.linear_facts(model, net)
    weights = np.frombuffer(model, "<f4", facts["classes"] * facts["channels"], facts["offset"])
    assert np.array_equal(weights.reshape(facts["classes"], facts["channels"]), net.module.classifier.weight.detach().numpy())
    with pytest.raises(ValueError, match="not in the file"):
        live_build.linear_facts(model.replace(weights.tobytes()[:64], bytes(64)), net)


def test_a_layer_that_the_export_does_not_know_is_refused(net):
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.adds_input = torch.nn.Sequential(torch.nn.Sigmoid()), False

    other = models.efficientnet_lite.build(live_build.NETWORK)
    other.blocks[3] = Block()
    with pytest.raises(TypeError, match=r"blocks\.3\.0 is a Sigmoid"):
        live_build.lite_model(replace(net, module=other))


def test_another_archive_than_the_tested_one_is_refused():
    with pytest.raises(ValueError, match="another checksum"):
        live_build.checked(b"something else")


def test_parts_are_whole_and_each_can_be_decoded_alone(monkeypatch):
    monkeypatch.setattr(live_build, "PART", 1000)
    content = np.random.default_rng(0).bytes(5000)
    pieces = list(live_build.parts(content))
    assert len(pieces) == -(-len(base64.b64encode(gzip.compress(content, 6, mtime=0))) // 1000) > 5
    assert gzip.decompress(b"".join(base64.b64decode(piece, validate=True) for piece in pieces)) == content


def test_without_the_runtime_the_page_is_built_and_says_so(tmp_path, monkeypatch, capsys):
    def offline() -> dict[str, bytes]:
        raise OSError("no network here")

    monkeypatch.setattr(live_build, "runtime", offline)
    monkeypatch.setattr(live_build, "lite_model", lambda net: net.module.classifier.weight.detach().numpy().tobytes())
    facts = live_build.build(tmp_path / "live")
    assert facts["missing"] and "no network here" in capsys.readouterr().err
    assert "wasm" not in facts["files"] and {"model", *live_build.SAMPLES} <= set(facts["files"])
    assert (tmp_path / "live" / "facts.js").stat().st_mtime == 0
    assert "MIT License" in (tmp_path / "live" / "NOTICE.txt").read_text(encoding="utf-8")


def test_the_square_of_occlusion_is_that_of_helpers():
    image = torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(0))
    means = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    by_default = occlusion(means, image, 0)
    assert torch.equal(by_default, occlusion(means, image, 0, window=live_build.WINDOW, stride=live_build.STRIDE))
    assert not torch.equal(by_default, occlusion(means, image, 0, **COARSE))


def test_samples_may_be_given_away():
    assert {data.photo(name).credit.rsplit(", ", 1)[-1] for name in live_build.SAMPLES} == {"CC0"}


# ------------------------------------------------------------------------------------------------- in a browser

built = pytest.mark.skipif(not PAGE.is_file(), reason="the book is not built: `make book` first")
LOCAL, DISK = ("http://127.0.0.1:", "data:", "blob:"), ("file:", "data:", "blob:")

# As text: Playwright itself takes seconds for a long list.
AS_TEXT = "JSON.stringify(%s, (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value))"


def facts() -> dict[str, Any]:
    """What the built page knows of its network. Skips, or fails where the runtime is demanded, if it was built without."""
    if not FACTS.is_file():
        pytest.fail("book/live.html is built without _static/live/facts.js: `make book` runs book/live_build.py")
    known = json.loads(FACTS.read_text(encoding="ascii").partition("=")[2].rstrip(";\n"))
    if known["missing"]:
        if os.environ.get("SEEING_WHY_REQUIRE_RUNTIME", "") not in ("", "0"):
            pytest.fail(known["missing"])
        pytest.skip(known["missing"])
    return known


@pytest.fixture(scope="module")
def address(localhost) -> str:
    """The page behind a server like the one that the page itself recommends."""
    return f"{localhost}/book/live.html"


class Visit:
    """A page of its own, everything that it asked for, and everything that went wrong on it."""

    def __init__(self, browser: Browser, url: str, width: int = 1280, local: tuple[str, ...] = LOCAL, **more: Any):
        self.asked: list[str] = []
        self.problems: list[str] = []
        self.context = browser.new_context(viewport={"width": width, "height": 900}, service_workers="block", **more)
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.context.route(lambda asked: not asked.startswith(local), self.refuse)
        self.page = self.context.new_page()
        self.page.on("console", lambda m: self.problems.append(f"console: {m.text}") if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        self.page.goto(url, wait_until="load")

    def refuse(self, route: Any) -> None:
        self.problems.append(f"the page asked the network for {route.request.url}")
        route.abort()

    def part(self, name: str) -> Any:
        return self.page.locator(f'[data-live="{name}"]')

    def until(self, state: str) -> None:
        self.page.wait_for_selector(f'#live[data-state="{state}"]', timeout=PATIENCE)

    def load(self) -> Visit:
        self.part("load").click()
        self.until("ready")
        return self

    def take(self, path: Path) -> dict[str, Any]:
        """Choose a picture file and wait for its classes."""
        self.forget()
        self.part("file").set_input_files(path)
        return self.looked(path.name)

    def forget(self) -> None:
        """So that an earlier result cannot be taken for the next one."""
        self.page.evaluate("() => { document.getElementById('live').result = undefined; }")

    def looked(self, name: str) -> dict[str, Any]:
        """What the page found in the picture of this name, once it has looked at it."""
        self.page.wait_for_function("name => document.getElementById('live').result?.name === name", arg=name, timeout=PATIENCE)
        self.until("classified")
        return self.result()

    def explain(self, method: str, maps: str = "") -> dict[str, Any]:
        """Ask for a map of the class that is chosen, and wait for it."""
        self.page.check(f'input[name="live-method"][value="{method}"]')
        self.part("maps").select_option(maps)
        self.page.evaluate("() => { delete document.getElementById('live').result.map; }")
        self.part("run").click()
        self.page.wait_for_function("() => document.getElementById('live').result.map", timeout=PATIENCE)
        self.until("classified")
        return self.result()

    def result(self) -> dict[str, Any]:
        return json.loads(self.page.evaluate(AS_TEXT % "document.getElementById('live').result"))

    def drawn(self) -> np.ndarray:
        """The pixels of the answer, `[height, width, 4]`."""
        canvas = "document.querySelector('[data-live=canvas]')"
        width, height = self.page.evaluate(f"[{canvas}.width, {canvas}.height]")
        pixels = AS_TEXT % f"{canvas}.getContext('2d').getImageData(0, 0, {width}, {height}).data"
        return np.array(json.loads(self.page.evaluate(pixels))).reshape(height, width, 4)

    def said(self) -> str:
        return self.part("status").inner_text()

    def alert(self) -> str:
        return self.part("problem").inner_text()

    def close(self) -> None:
        self.context.close()


@pytest.fixture(scope="module")
def chelsea(tmp_path_factory) -> Path:
    """A photograph without loss, so that what the browser decodes is what Pillow decodes."""
    path = tmp_path_factory.mktemp("pictures") / "chelsea.png"
    data.photo("chelsea").picture.save(path)
    return path


@pytest.fixture(scope="module")
def visit(browser, address) -> Iterator[Visit]:
    """One page for the tests that only ask: the network is loaded once."""
    facts()
    here = Visit(browser, address)
    here.page.evaluate("coarse => { seeingWhyLiveFacts.occlusion = coarse; }", COARSE)
    yield here.load()
    here.close()


@pytest.fixture(scope="module")
def image(net):
    return net.preprocess(data.photo("chelsea").picture)  # [3, 224, 224]


def squashed(path: Path, side: int) -> np.ndarray:
    """The pixels that the network sees, `[side, side, 3]`."""
    return np.asarray(data.read_image(path).resize((side, side), Image.Resampling.BILINEAR)).astype(int)


def same_map(result: dict[str, Any], expected: torch.Tensor) -> None:
    found = np.array(result["map"]).reshape(expected.shape)
    largest = float(expected.abs().max())
    assert largest > 0
    assert np.abs(found - expected.numpy()).max() < TOLERANCE * largest


@built
@pytest.mark.browser
def test_a_picture_is_read_to_the_last_bit_and_the_logits_are_those_of_torch(visit, net, image, chelsea):
    result = visit.take(chelsea)
    assert np.array_equal(np.array(result["pixels"]).reshape(224, 224, 3), squashed(chelsea, 224))
    with torch.no_grad():
        logits = net(image[None])[0]
    assert np.abs(np.array(result["logits"]) - logits.numpy()).max() < TOLERANCE
    assert np.abs(np.array(result["probabilities"]) - logits.softmax(0).numpy()).max() < TOLERANCE
    listed = visit.part("classes").locator("label").all_inner_texts()
    assert [line.split("\n")[0].strip() for line in listed] == [name for name, _ in net.top(image)]


@built
@pytest.mark.browser
@pytest.mark.parametrize("method", [cam, grad_cam], ids=lambda method: method.__name__)
def test_class_activation_maps_are_those_of_helpers(visit, net, image, chelsea, method):
    visit.take(chelsea)
    result = visit.explain(method.__name__)
    same_map(result, method(net, image, result["target"]))


@built
@pytest.mark.browser
@pytest.mark.slow
def test_occlusion_is_that_of_helpers(visit, net, image, chelsea):
    visit.take(chelsea)
    result = visit.explain("occlusion")
    expected = occlusion(net, image, result["target"], **COARSE)
    same_map(result, expected)
    fall, share = (f"{100 * float(x):.1f}" for x in (expected.max(), max(result["probabilities"])))
    said = f"the grey squares take {fall} of its {share} percentage points on average"  # which the colours do not say
    assert said in visit.said()


def of_strongest(net, image, target: int, count: int) -> torch.Tensor:
    """Score-CAM with the feature maps of the largest sum only."""
    A = changing(features_of(net, image, net.cam_layer))  # [C, h, w]
    order = A.sum((1, 2)).argsort(descending=True)
    last, next_one = A[order[count - 1]].sum(), A[order[count]].sum()
    assert last - next_one > 1e-4 * last  # no tie: which maps are in does not hang on rounding
    kept = A[order[:count]]
    weights = probability(masked_logits(net, image, FeatureMasks(kept, (224, 224), to_unit)), target)
    return resize(torch.einsum("c,chw->hw", weights, kept), (224, 224)).relu()


@built
@pytest.mark.browser
@pytest.mark.slow
def test_score_cam_is_that_of_helpers(visit, net, image, chelsea):
    visit.take(chelsea)
    result = visit.explain("score_cam", str(STRONGEST))
    same_map(result, of_strongest(net, image, result["target"], STRONGEST))


@built
@pytest.mark.browser
@pytest.mark.slow
def test_progress_is_shown_and_a_long_computation_can_be_stopped(visit, net, image, chelsea):
    visit.take(chelsea)
    kept = visit.explain("cam")["map"]
    visit.page.check('input[name="live-method"][value="score_cam"]')
    visit.part("maps").select_option("")
    visit.part("run").click()
    visit.page.wait_for_function("() => document.querySelector('[data-live=progress]').value > 0", timeout=PATIENCE)
    total = len(changing(features_of(net, image, net.cam_layer)))
    assert re.fullmatch(rf"\d+ of {total} masked copies", visit.part("counted").inner_text())
    frames = """() => new Promise(resolve => {
      let n = 0; const end = performance.now() + 1000;
      const frame = () => { n += 1; performance.now() < end ? requestAnimationFrame(frame) : resolve(n); };
      requestAnimationFrame(frame);
    })"""
    assert visit.page.evaluate(frames) >= 5  # the page draws while the worker computes
    assert visit.page.evaluate("document.activeElement.dataset.live") == "cancel"
    visit.page.keyboard.press("Enter")
    visit.until("classified")
    assert re.match(r"Stopped after \d+ of \d+ masked copies", visit.said())
    assert "The map before stays" in visit.said() and visit.result()["map"] == kept
    assert visit.page.evaluate("document.activeElement.dataset.live") == "run"
    assert np.allclose(visit.explain("cam")["map"], kept)  # and it goes on working


@built
@pytest.mark.browser
def test_a_new_picture_stops_what_is_computed_for_the_old_one(visit, chelsea, tmp_path):
    data.photo("coffee").picture.save(tmp_path / "coffee.png")
    visit.take(chelsea)
    visit.page.check('input[name="live-method"][value="score_cam"]')
    visit.part("maps").select_option("")
    visit.page.evaluate("""() => {
      const counted = document.querySelector('[data-live=counted]');
      globalThis.counts = [];
      new MutationObserver(() => counts.push(counted.textContent)).observe(counted, { childList: true });
    }""")
    visit.part("run").click()
    visit.page.wait_for_function("() => document.querySelector('[data-live=progress]').value > 0", timeout=PATIENCE)
    result = visit.take(tmp_path / "coffee.png")
    assert "map" not in result
    last = [text for text in visit.page.evaluate("counts") if "masked copies" in text][-1]
    done, total = (int(number) for number in re.findall(r"\d+", last))
    assert 0 < done < total  # the worker answers in order: what was not stopped would have come to its end
    assert visit.result()["name"] == "coffee.png"
    assert visit.explain("grad_cam")["name"] == "coffee.png"


@built
@pytest.mark.browser
def test_pictures_of_every_kind_are_read_as_helpers_read_them(visit, tmp_path):
    photo = data.photo("chelsea").picture
    grey, clear, turned, wide = (tmp_path / name for name in ("grey.png", "clear.png", "turned.jpg", "wide.png"))
    photo.convert("L").save(grey)
    alpha = Image.linear_gradient("L").resize(photo.size)
    Image.merge("RGBA", (*photo.split(), alpha)).save(clear)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    photo.save(turned, quality=95, exif=exif)
    photo.resize((5000, 40)).save(wide)
    # Without loss to the last bit; a browser rounds transparency once more, and its JPEG decoder is not Pillow's.
    for path, mean, most in ((grey, 0, 0), (wide, 0, 0), (clear, 1, 8), (turned, 1, 24)):
        found = np.array(visit.take(path)["pixels"]).reshape(224, 224, 3)
        apart = np.abs(found - squashed(path, 224))
        assert apart.mean() <= mean and apart.max() <= most, (path.name, apart.mean(), apart.max())


@built
@pytest.mark.browser
def test_what_is_no_picture_is_named_and_changes_nothing(visit, chelsea, tmp_path):
    before = visit.take(chelsea)
    bad = tmp_path / "cat.png"
    bad.write_text("this is no cat")
    visit.part("file").set_input_files(bad)
    visit.page.wait_for_function("() => document.querySelector('[data-live=problem]').textContent")
    assert "“cat.png” is not a picture" in visit.alert() and "stays" in visit.alert()
    assert visit.result() == before
    assert visit.page.get_by_role("alert").inner_text() == visit.alert()


@built
@pytest.mark.browser
def test_a_sample_that_comes_late_does_not_take_the_place_of_a_later_picture(visit, chelsea):
    held: list[Any] = []
    visit.page.route("**/live/coffee.0.js", lambda route: held.append(route))
    try:
        visit.page.get_by_role("button", name=live_build.SAMPLES["coffee"], exact=True).click()
        visit.take(chelsea)
        with visit.page.expect_response("**/live/coffee.*.js"):
            held[0].continue_()
        visit.page.wait_for_timeout(1000)  # nothing is to happen
        visit.until("classified")
        assert visit.result()["name"] == chelsea.name and visit.alert() == ""
    finally:
        visit.page.unroute("**/live/coffee.0.js")


@built
@pytest.mark.browser
def test_of_an_earlier_bad_file_nothing_is_said_once_a_later_one_is_chosen(visit, chelsea, tmp_path):
    bad = tmp_path / "cat.png"
    bad.write_text("this is no cat")
    visit.page.evaluate("""() => {
      globalThis.readAtOnce = createImageBitmap;
      globalThis.refused = false;
      globalThis.createImageBitmap = async (file, how) => {
        if (file.name !== 'cat.png') return readAtOnce(file, how);
        while (document.getElementById('live').result?.name !== 'chelsea.png') await new Promise((go) => setTimeout(go, 20));
        setTimeout(() => { refused = true; }, 100);
        throw new Error('no picture');
      };
    }""")
    try:
        visit.forget()
        visit.part("file").set_input_files(bad)
        visit.take(chelsea)
        visit.page.wait_for_function("() => refused")
        assert visit.alert() == "" and visit.result()["name"] == "chelsea.png"
    finally:
        visit.page.evaluate("() => { globalThis.createImageBitmap = readAtOnce; }")


@built
@pytest.mark.browser
def test_a_picture_for_which_there_is_no_memory_is_named_and_changes_nothing(visit, chelsea, tmp_path):
    before = visit.take(chelsea)
    shown = visit.drawn()
    data.photo("coffee").picture.save(tmp_path / "coffee.png")
    visit.page.evaluate("""() => {
      globalThis.readAlways = CanvasRenderingContext2D.prototype.getImageData;
      CanvasRenderingContext2D.prototype.getImageData = () => { throw new RangeError('out of memory'); };
    }""")
    try:
        visit.part("file").set_input_files(tmp_path / "coffee.png")
        visit.page.wait_for_function("() => document.querySelector('[data-live=problem]').textContent")
    finally:
        visit.page.evaluate("() => { CanvasRenderingContext2D.prototype.getImageData = readAlways; }")
    assert "“coffee.png” could not be looked at (out of memory)" in visit.alert() and "stays" in visit.alert()
    visit.until("classified")
    assert visit.result() == before and np.array_equal(visit.drawn(), shown)


RUNTIME = """
export const env = { wasm: {} };
export class Tensor { constructor(kind, data, dims) { Object.assign(this, { data, dims }); } }
export const InferenceSession = { create: async () => ({ run: async ({ image }) => {
  if (globalThis.refusing) throw new Error('out of memory');
  globalThis.brightest = Math.max(...image.data);
  const features = { data: Float32Array.of(1, 2, 3, 4), dims: [1, 1, 2, 2] };
  return { logits: { data: new Float32Array(2 * image.dims[0]) }, features };
} }) };"""
DRIVEN = """async (runtime) => {
  let heard;
  const scope = { postMessage: (answer) => { if (answer.what !== 'progress') heard(answer.what); } };
  seeingWhyWorker(seeingWhyMaths(), scope);
  const ask = (order) => new Promise((answered) => { heard = answered; scope.onmessage({ data: order }); });
  const linear = { offset: 0, classes: 2, channels: 1 };
  const about = { side: 4, mean: [0, 0, 0], std: [1, 1, 1], linear, batch: 1, occlusion: { window: 2, stride: 2 } };
  const said = [await ask({ what: 'load', runtime, model: new ArrayBuffer(8), about })];
  said.push(await ask({ what: 'classify', pixels: new Uint8Array(48).fill(51) }));
  globalThis.refusing = true;
  said.push(await ask({ what: 'classify', pixels: new Uint8Array(48).fill(255) }));
  globalThis.refusing = false;
  said.push(await ask({ what: 'explain', job: 1, method: 'occlusion', target: 0 }));
  return [said, brightest];
}"""


@pytest.mark.browser
def test_after_a_picture_that_the_network_failed_on_maps_are_still_of_the_one_before(browser):
    page = browser.new_page()
    try:
        page.route("**/*", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
        page.goto("http://127.0.0.1/")  # a page with an origin, without a server
        page.add_script_tag(path=BOOK / "_static/live_worker.js")
        said, brightest = page.evaluate(DRIVEN, RUNTIME)
        assert said == ["ready", "classified", "failed", "map"]
        assert brightest == pytest.approx(51 / 255)
    finally:
        page.close()


@built
@pytest.mark.browser
def test_a_picture_that_is_too_large_is_refused(visit, chelsea):
    visit.take(chelsea)
    limit = visit.page.evaluate("() => { const was = seeingWhyLiveFacts.limit; seeingWhyLiveFacts.limit = 1000; return was; }")
    try:
        assert limit == data.MAX_PIXELS
        visit.part("file").set_input_files(chelsea)
        visit.page.wait_for_function("() => document.querySelector('[data-live=problem]').textContent.includes('at most')")
        assert "451 x 300" in visit.alert()
    finally:
        visit.page.evaluate("limit => { seeingWhyLiveFacts.limit = limit; }", limit)


@built
@pytest.mark.browser
def test_any_class_can_be_asked_for_by_name(visit, net, image, chelsea):
    visit.take(chelsea)
    visit.part("other").fill("ESPRESSO")
    visit.part("other").press("Enter")
    result = visit.explain("cam")
    assert result["target"] == net.index("espresso")
    expected = cam(net, image, net.index("espresso"))
    assert (expected < 0).any()  # CAM is not rectified, and the page keeps what speaks against the class
    same_map(result, expected)
    visit.part("other").fill("unicorn")
    visit.part("other").press("Enter")
    assert "no class “unicorn”" in visit.alert()
    visit.part("other").fill("")


@built
@pytest.mark.browser
def test_a_picture_can_be_dropped(visit, chelsea):
    visit.forget()
    files = visit.page.evaluate_handle(
        """text => {
          const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], 'dropped.png', {type: 'image/png'}));
          return transfer;
        }""",
        base64.b64encode(chelsea.read_bytes()).decode(),
    )
    visit.part("drop").dispatch_event("drop", {"dataTransfer": files})
    visit.looked("dropped.png")
    empty = visit.page.evaluate_handle("() => new DataTransfer()")
    visit.part("drop").dispatch_event("drop", {"dataTransfer": empty})
    assert "no file" in visit.alert()


@built
@pytest.mark.browser
def test_samples_are_the_photographs_of_the_chapters(visit, net):
    for name, title in live_build.SAMPLES.items():
        visit.forget()
        visit.page.get_by_role("button", name=title, exact=True).click()
        best = int(np.argmax(visit.looked(title)["logits"]))
        assert net.classes[best] == net.top(net.preprocess(data.photo(name).picture), 1)[0][0]


@built
@pytest.mark.browser
def test_a_screen_reader_is_told_what_there_is(visit, net, chelsea):
    visit.take(chelsea)
    result = visit.explain("grad_cam")
    role = visit.page.get_by_role
    name = net.classes[result["target"]]
    assert role("img", name=re.compile(f"Grad-CAM for {name}.*strongest in the")).count() == 1
    assert f"Grad-CAM for {name}" in visit.page.locator('#live [role="status"]').inner_text()
    for what, called in [
        ("button", "Explain"), ("slider", "How strongly"), ("combobox", "Feature maps"), ("combobox", "Another class"),
        ("radio", "Occlusion"), ("radio", name), ("group", "Why this class"),
    ]:  # fmt: skip
        assert role(what, name=re.compile(called)).count() >= 1, (what, called)
    assert visit.page.get_by_label("Choose a picture, or drop one here").count() == 1
    assert findings(visit.page) == []


@built
@pytest.mark.browser
def test_the_slider_shows_the_picture_the_map_and_what_lies_between(visit, chelsea):
    visit.take(chelsea)
    plain = visit.drawn()
    visit.explain("grad_cam")
    shown = []
    for value in (0, 65, 100):
        visit.part("strength").fill(str(value))
        shown.append(visit.drawn())
    visit.part("strength").fill("65")
    assert np.array_equal(shown[0], plain)
    assert np.abs(shown[1] - shown[2]).max() > 20
    sums = shown[2][..., :3].sum(2)
    assert sums.min() < 30 and sums.max() > 500  # the whole scale of the colour table is used


@built
@pytest.mark.browser
def test_keyboard_alone_from_the_network_to_a_map_and_no_request_leaves_the_page(browser, address):
    facts()
    here = Visit(browser, address)
    keys = here.page.keyboard

    def tab_to(selector: str) -> None:
        for _ in range(12):
            keys.press("Tab")
            if here.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"the tabulator does not lead to {selector}")

    try:
        assert not [url for url in here.asked if re.search(r"/live/(model|wasm|runtime)\.", url)]  # only on demand
        assert here.said() == "" and here.part("load").inner_text().startswith("Load the network (")
        here.part("load").focus()
        keys.press("Enter")
        here.until("ready")
        assert here.page.evaluate("document.activeElement.id") == "live-file"
        tab_to("[data-live=samples] button")
        keys.press("Enter")
        order = np.argsort(here.looked(live_build.SAMPLES["chelsea"])["probabilities"])[::-1]
        tab_to("[name=live-class]:checked")
        keys.press("ArrowDown")  # the second class
        tab_to("[name=live-method]:checked")
        keys.press("ArrowDown")  # Grad-CAM
        tab_to("[data-live=run]")
        keys.press("Enter")
        here.page.wait_for_function("() => document.getElementById('live').result.map", timeout=PATIENCE)
        here.until("classified")
        assert (here.result()["method"], here.result()["target"]) == ("grad_cam", order[1])
        tab_to("[data-live=strength]")
        keys.press("Home")
        assert here.part("strength").input_value() == "0"
        own = address.partition("/book/")[0]
        assert [url for url in here.asked if not url.startswith((own, "data:", "blob:"))] == []
        assert here.problems == []
    finally:
        here.close()


@built
@pytest.mark.browser
def test_it_works_from_the_disk_and_fits_a_telephone_in_the_dark(browser, net, image, chelsea):
    facts()
    here = Visit(browser, PAGE.as_uri(), width=375, local=DISK, color_scheme="dark")
    try:
        logits = here.load().take(chelsea)["logits"]
        with torch.no_grad():
            expected = net(image[None])[0].numpy()
        assert np.abs(np.array(logits) - expected).max() < TOLERANCE
        here.explain("cam")
        assert here.page.evaluate(PROBLEMS) == []
        low = [box["height"] for button in here.page.locator("#live button:visible").all() if (box := button.bounding_box())]
        assert min(low) >= 44  # a finger's width
        assert findings(here.page) == []
        assert here.problems == []
    finally:
        here.close()


@pytest.fixture
def spoilt(browser, address) -> Iterator[Any]:
    """Open the page with one of its files replaced or refused."""
    visits = []

    def go(pattern: str, body: str | None) -> Visit:
        here = Visit(browser, "about:blank", local=("about:", *LOCAL))
        visits.append(here)
        here.context.route(
            pattern, lambda route: route.abort() if body is None else route.fulfill(body=body, content_type="text/javascript")
        )
        here.page.goto(address, wait_until="load")
        return here

    yield go
    for here in visits:
        here.close()


@built
@pytest.mark.browser
def test_a_part_that_is_missing_is_named_and_loading_can_be_tried_again(spoilt):
    facts()
    here = spoilt("**/live/model.1.js", None)
    here.part("load").click()
    here.page.wait_for_function("() => document.querySelector('[data-live=problem]').textContent", timeout=PATIENCE)
    assert "model.1.js could not be loaded" in here.alert() and "Reload the page" in here.alert()
    assert here.part("load").is_enabled() and here.page.get_attribute("#live", "data-state") == "idle"
    here.context.unroute("**/live/model.1.js")
    here.load()


@built
@pytest.mark.browser
def test_a_copy_without_the_network_says_so(spoilt):
    known = {"missing": "the runtime could not be had", "colours": "", "classes": [], "samples": [], "files": {}}
    here = spoilt("**/live/facts.js", f"globalThis.seeingWhyLiveFacts = {json.dumps(known)};")
    assert "without the network: the runtime could not be had" in here.alert()
    assert here.part("load").is_disabled() and here.problems == []


@built
@pytest.mark.browser
@pytest.mark.parametrize(
    "forbidden",
    ["constructor() { throw new Error('not from here'); }",
     "constructor() { setTimeout(() => this.onerror({ message: 'not from here' }), 50); } postMessage() {} terminate() {}"],
    ids=["at once", "later"],
)  # fmt: skip
def test_opened_from_disk_in_a_browser_that_forbids_it_one_sentence_says_what_to_do(browser, forbidden):
    facts()
    here = Visit(browser, PAGE.as_uri(), local=DISK)
    try:
        here.page.evaluate(f"() => {{ globalThis.Worker = class {{ {forbidden} }}; }}")
        here.part("load").click()
        here.page.wait_for_function("() => document.querySelector('[data-live=problem]').textContent", timeout=PATIENCE)
        assert "not from here" in here.alert() and "python -m http.server" in here.alert()
        assert "python -m http.server" in here.page.locator("article p").nth(1).inner_text()
        assert not [url for url in here.asked if re.search(r"/live/(model|wasm|runtime)\.", url)]  # nobody waits for it in vain
    finally:
        here.close()
