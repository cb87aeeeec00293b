"""The explorer, live in JupyterLab: any method of the book on a picture of the reader's own.

    import live_view
    live_view.LiveView(net)  # the last line of a cell: the controls appear below it

The map is made in a thread, so that the kernel goes on answering, and every image that goes through the network is counted:
that is the progress, and the place where Stop takes effect. A method that is stopped leaves the network as it was: each cleans
up after an error. One map at a time: whoever asks for another stops the one before.
"""

from __future__ import annotations

import html
import io
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import explorer  # noqa: E402

from helpers import data, models, plotting  # noqa: E402
from helpers.core import module_of  # noqa: E402
from helpers.data import Photo  # noqa: E402

LARGEST = 25_000_000  # bytes of an upload
STOPPED = "stopped"  # so begins the line of counts after Stop
PATIENCE = 20.0  # seconds to wait for a stopped method: it stops at its next image through the network


class Stopped(Exception):
    """The reader pressed Stop."""


# ---------------------------------------------------------------------------------------------------- without controls


@contextmanager
def watched(net: Any, seen: Callable[[int], None]) -> Iterator[None]:
    """Inside, `seen(n)` is called before n images go through the network; an error that it raises stops the method.

    A hook on the whole network, as `evaluation.counted` has one: no method needs to know of it.
    """
    hook = module_of(net).register_forward_pre_hook(lambda _module, images: seen(len(images[0])))
    try:
        yield
    finally:
        hook.remove()


def explained(net: models.Classifier, image: Tensor, method: str, layer: str, name: str) -> Tensor:
    """The map `[H, W]` of a method of the explorer, for a class by name. layer: "" for the method's own.

    Errors: ValueError for an unknown class, and those of the method.
    """
    net.index(name)  # says which names are like it, also to a method that asks for no class
    asked = explorer.Asked(method, layer, "" if explorer.SHOWN[method].family == explorer.NOTHING else name, "trained")
    return explorer.explained(asked, net, image)


def passes(net: models.Classifier, method: str) -> int | None:
    """How many images the method will show to the network, roughly; None where nobody has counted."""
    if samples := explorer.SHOWN[method].settings.get("samples"):
        return samples + 1
    table = data.results("methods")
    counted = table[(table["network"] == net.name) & (table["method"] == method)]["forwards"].dropna()
    return int(counted.iloc[0]) if len(counted) else None


def uploaded(content: bytes, name: str) -> Image.Image:
    """A picture from a file's bytes, as `data.read_image` reads it. Errors: ValueError that names the file and what is wrong."""
    if not content:
        raise ValueError(f"{name} is empty")
    if len(content) > LARGEST:
        raise ValueError(f"{name} has {len(content) / 1e6:.0f} MB; at most {LARGEST / 1e6:.0f} MB are taken")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        try:
            return data.read_image(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from None


def outline_of(photo: Photo, name: str, net: models.Classifier) -> Tensor | None:
    """Where the class is on the photograph, `[side, side]`; None where nobody has outlined it."""
    there = any(thing.class_name == name for thing in photo.things)
    return photo.mask(name, (net.side, net.side)) if there else None


def words(saliency: Tensor, outline: Tensor | None, name: str) -> str:
    """What a map `[H, W]` shows, in words, as the page says it."""
    entry = explorer.packed(saliency, explorer.COARSE, [] if outline is None else [outline])
    if "blank" in entry:
        return f"A blank map: {entry['blank']}."
    x, y = entry["peak"]
    text = f"Brightest {x:.0%} from the left and {y:.0%} from the top"
    if outline is None:
        return f"{text}. Nobody has outlined {name} on this picture."
    side = "inside" if entry["hit"][0] else "outside of"
    share, area = entry["inside"][0], float(outline.mean())
    return f"{text}, {side} the outline. {share:.0%} of the map lies inside, which covers {area:.0%} of the picture."


def still(
    pixels: Tensor, saliency: Tensor | None, title: str = "", *, outline: Tensor | None = None, strength: float = 0.65,
    size: float = 4.6,
) -> Figure:  # fmt: skip
    """The picture `[H, W, 3]`, or the map `[H, W]` over it: a figure that pyplot does not know, so a thread may draw it."""
    figure = Figure(figsize=(size, size), dpi=80, layout="constrained")
    ax = figure.subplots()
    if saliency is None:
        plotting.show_picture(ax, pixels, title)
    else:
        plotting.overlay(ax, pixels, saliency, title, outline=outline, strength=strength)
    return figure


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------- with controls


class LiveView:
    """The controls and what they do. photo: a built-in photograph to begin with; picture: a file of the reader's instead.

    To look at: the widgets by name, `saliency` (the last map `[H, W]`, None before it), `says` (the last message, as text),
    `busy`. `wait()` comes back when the map is there. Errors: those of `data.photo` and `data.read_image`.
    """

    def __init__(self, net: models.Classifier, *, photo: str = "chelsea", picture: str | Path | None = None) -> None:
        import ipywidgets as widgets

        self.net, self.saliency, self.says = net, None, ""
        self.thread: threading.Thread | None = None
        self.stop = threading.Event()
        label = {"style": {"description_width": "8em"}, "layout": widgets.Layout(width="min(34em, 95%)")}
        photos = [("a picture of your own", ""), *((data.photo(name).title, name) for name in data.photo_names())]
        self.photo = widgets.Dropdown(options=photos, value=photo, description="Photograph", **label)
        self.upload = widgets.FileUpload(accept="image/*", multiple=False, description="Choose a file")
        self.method = widgets.Dropdown(options=list(explorer.SHOWN), value="Grad-CAM", description="Method", **label)
        self.layer = widgets.Dropdown(description="Layer", **label)
        self.target = widgets.Combobox(options=net.classes, description="Asked for", placeholder="type a class", **label)
        self.strength = widgets.FloatSlider(0.65, min=0, max=1, step=0.05, description="Strength", readout_format=".0%", **label)
        self.run = widgets.Button(description="Explain", button_style="primary", icon="play")
        self.cancel = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.progress = widgets.IntProgress(value=0, min=0, max=1, description="Progress", **label)
        self.count = widgets.HTML("")
        self.message = widgets.HTML("")
        self.image = widgets.HTML("")  # an img: widgets.Image takes no alternative text
        self.box = widgets.VBox([
            widgets.HBox([self.photo, self.upload], layout=widgets.Layout(flex_flow="row wrap")),
            *(self.method, self.layer, self.target, self.strength),
            widgets.HBox([self.run, self.cancel]),
            *(self.progress, self.count, self.message, self.image),
        ])  # fmt: skip
        self.photo.observe(self.on_photo, "value")
        self.upload.observe(self.on_upload, "value")
        self.method.observe(self.on_method, "value")
        self.strength.observe(lambda _: self.draw(), "value")
        self.run.on_click(lambda _: self.start())
        self.cancel.on_click(lambda _: self.halt("Stopped."))
        self.on_method()
        if picture is None:
            self.take(data.photo(photo))
        else:
            self.take(Photo(Path(picture).name, data.read_image(picture)))

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        return self.box._repr_mimebundle_(**settings)

    @property
    def busy(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Come back when the map is there, or it has stopped."""
        if self.thread is not None:
            self.thread.join(seconds)

    # what the reader does

    def on_photo(self, change: Mapping[str, Any]) -> None:
        if change["new"]:
            self.take(data.photo(change["new"]))

    def on_upload(self, change: Mapping[str, Any]) -> None:
        if not change["new"]:
            return
        file = change["new"][0]
        try:
            picture = uploaded(bytes(file["content"]), file["name"])
        except ValueError as error:
            self.say(f"{error}. The picture of before is still here.", problem=True)
        else:
            self.take(Photo(file["name"], picture))

    def on_method(self, _change: Any = None) -> None:
        how = explorer.SHOWN[self.method.value]
        layers = list(self.net.block_layers) if how.layered else []
        self.layer.options = layers or [("its own", "")]
        self.layer.value = layers[-1] if layers else ""
        self.layer.disabled = not layers

    def take(self, photo: Photo) -> None:
        """Another picture: what the network says of it, and no map yet."""
        if not self.halt():
            return
        self.current, self.saliency = photo, None
        self.photo.value = photo.name if photo.name in data.photo_names() and photo.credit else ""
        self.pixels_in = self.net.preprocess(photo.picture)
        top = self.net.top(self.pixels_in)
        self.target.value = top[0][0]
        self.draw()
        self.say(f"{self.net.name} says: " + "; ".join(f"{name} {p:.0%}" for name, p in top) + ".")

    def start(self) -> None:
        """Make the map that is asked for, in a thread; what is wrong with the question is said at once."""
        if not self.halt():
            return
        try:
            self.net.index(self.target.value)
        except ValueError as error:
            self.say(str(error), problem=True)
            return
        method, layer, name = self.method.value, self.layer.value, self.target.value
        self.stop = threading.Event()
        self.progress.value, self.progress.max = 0, passes(self.net, method) or 1
        self.count.value = ""
        self.run.disabled, self.cancel.disabled = True, False
        self.say(f"{method}, asked for {name} …")
        self.thread = threading.Thread(target=self.work, args=(self.stop, method, layer, name), daemon=True)
        self.thread.start()

    def halt(self, text: str = "") -> bool:
        """Stop what is being made, and wait until it has let go of the network. False where it does not within `PATIENCE`."""
        self.stop.set()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(PATIENCE)
        if self.busy:
            self.say("The network is still at its last image: try again in a moment.", problem=True)
            return False
        self.run.disabled, self.cancel.disabled = False, True
        if text and self.count.value.startswith(STOPPED):  # else it was done first, and has said so
            self.say(text)
        return True

    # what happens meanwhile

    def work(self, stop: threading.Event, method: str, layer: str, name: str) -> None:
        """Make a map; what comes of it, or went wrong, is shown. Runs in the thread."""
        passed, told, began = 0, 0.0, time.monotonic()

        def seen(n: int) -> None:
            nonlocal passed, told
            if stop.is_set():
                raise Stopped
            passed += n
            if time.monotonic() - told > 0.1:  # not more often than anybody can see
                told = time.monotonic()
                self.progress.max = max(self.progress.max, passed)
                self.progress.value = passed
                self.count.value = f"{passed:,} of about {self.progress.max:,} images through the network"

        try:
            with watched(self.net, seen):
                saliency = explained(self.net, self.pixels_in, method, layer, name)
            self.saliency, self.asked = saliency, (method, layer, name)
            self.progress.value = self.progress.max
            many = "image" if passed == 1 else "images"
            self.count.value = f"{passed:,} {many} through the network, {time.monotonic() - began:.1f} s"
            self.draw()
            self.say(f"{self.title()}. {words(saliency, self.outline(), name)}")
        except Stopped:
            self.count.value = f"{STOPPED} after {passed:,} images"
            return
        except Exception as error:  # whatever a reader's own network may raise: it is shown, where a thread would swallow it
            self.say(f"{method} does not work here: {error}", problem=True)
        self.run.disabled, self.cancel.disabled = False, True

    def title(self) -> str:
        method, layer, name = self.asked
        return f"{method}{f' at {layer}' if layer else ''}, asked for {name}"

    def outline(self) -> Tensor | None:
        return outline_of(self.current, self.asked[2], self.net)

    def draw(self) -> None:
        """The picture, or the last map over it."""
        blank = self.saliency is None
        title = (self.current.title or self.current.name) if blank else self.title()
        outline = None if blank else self.outline()
        lines = textwrap.fill(title, 42)
        figure = still(self.net.pixels(self.pixels_in), self.saliency, lines, outline=outline, strength=self.strength.value)
        source = explorer.encoded(png(figure))
        self.image.value = f'<img src="data:image/png;base64,{source}" alt="{html.escape(title)}" style="width: min(28em, 95%)">'

    def say(self, text: str, *, problem: bool = False) -> None:
        """A message for everybody: names from files are escaped, and a screen reader is told."""
        self.says = text
        role, colour = ("alert", "var(--jp-error-color1, #b00020)") if problem else ("status", "inherit")
        self.message.value = f'<p role="{role}" style="color: {colour}; line-height: 1.4">{html.escape(text)}</p>'
