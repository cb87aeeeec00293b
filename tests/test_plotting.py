"""plotting: what is drawn, and where."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from helpers import plotting  # noqa: E402

PIXELS = torch.rand(12, 16, 3, generator=torch.Generator().manual_seed(0))
PEAK = torch.zeros(12, 16)
PEAK[3, 11] = 2.0


@pytest.fixture(autouse=True)
def clean():
    with matplotlib.rc_context():
        yield
    plt.close("all")


def drawn(ax):
    """The pixels of the axes' only picture."""
    (picture,) = ax.get_images()
    return np.asarray(picture.get_array())


def words(ax):
    return [t.get_text() for t in ax.texts]


def test_an_overlay_is_brightest_where_the_map_peaks():
    _, ax = plt.subplots()
    plotting.overlay(ax, torch.full((12, 16, 3), 0.4), PEAK, "a map")
    shown = drawn(ax).sum(-1)
    assert np.unravel_index(shown.argmax(), shown.shape) == (3, 11)
    assert ax.get_title() == "a map" and not ax.axison and words(ax) == []


def test_an_overlay_is_the_grey_picture_under_the_colours():
    _, ax = plt.subplots()
    plotting.overlay(ax, PIXELS, PEAK, strength=0.25)
    low = np.array(matplotlib.colormaps[plotting.MAP_COLOURS](0.0)[:3])
    grey = PIXELS[5, 5] @ torch.tensor([0.299, 0.587, 0.114])
    assert drawn(ax)[5, 5] == pytest.approx(0.75 * float(grey) + 0.25 * low, abs=1e-6)


def test_the_scale_of_a_map_does_not_change_its_overlay_and_negative_values_count_as_none():
    _, (one, two) = plt.subplots(1, 2)
    plotting.overlay(one, PIXELS, PEAK)
    partly_negative = PEAK * 50
    partly_negative[:, :4] = -70
    plotting.overlay(two, PIXELS, partly_negative)
    assert np.array_equal(drawn(one), drawn(two))


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_blank_map_is_said_to_be_blank(value):
    _, ax = plt.subplots()
    plotting.overlay(ax, PIXELS, torch.full((12, 16), value))
    assert words(ax) == ["blank"]


def test_an_outline_is_drawn_where_there_is_one():
    _, (one, two) = plt.subplots(1, 2)
    plotting.overlay(one, PIXELS, PEAK, outline=PEAK > 0)
    plotting.overlay(two, PIXELS, PEAK, outline=PEAK < 0)
    assert len(one.collections) == 1 and len(two.collections) == 0


def test_a_map_that_wants_gradients_can_be_drawn():
    _, (one, two) = plt.subplots(1, 2)
    plotting.overlay(one, PIXELS, PEAK.clone().requires_grad_())
    plotting.show_map(two, PEAK.clone().requires_grad_())


def test_a_signed_map_has_zero_in_the_middle():
    _, (one, two, three) = plt.subplots(1, 3)
    plotting.show_map(one, torch.tensor([[-1.0, 4.0]]), "signed", signed=True)
    assert one.get_images()[0].get_clim() == (-4, 4) and one.get_title() == "signed"
    plotting.show_map(two, torch.tensor([[-1.0, 4.0]]))
    assert two.get_images()[0].get_clim() == (-1, 4)
    plotting.show_map(three, torch.zeros(2, 2), signed=True)
    assert three.get_images()[0].get_clim() == (-1, 1)


@pytest.mark.parametrize(("n", "columns", "rows"), [(2, 3, 1), (3, 3, 2), (5, 2, 3)])
def test_overlays_have_a_cell_for_the_picture_and_each_map(n, columns, rows):
    maps = {f"map {i}": PEAK for i in range(n)}
    figure = plotting.overlays(PIXELS, maps, columns=columns, width=2)
    assert figure.get_size_inches().tolist() == [2 * columns, 2.25 * rows] and len(figure.axes) == rows * columns
    assert [ax.get_title() for ax in figure.axes][: n + 1] == ["the picture", *maps]
    assert np.allclose(drawn(figure.axes[0]), PIXELS) and not any(ax.axison for ax in figure.axes)
    assert all(not ax.get_images() for ax in figure.axes[n + 1 :])


def test_a_map_table_has_a_row_for_each_picture_and_names_the_methods_once():
    maps = [{"a": PEAK, "b": PEAK.flip(0)}, {"b": PEAK, "a": PEAK * 0}]
    figure = plotting.map_table([PIXELS, 1 - PIXELS], ["cat", "cup"], maps, outlines=[PEAK > 0, None], width=2)
    assert [ax.get_title() for ax in figure.axes] == ["cat", "a", "b", "cup", "", ""]
    assert words(figure.axes[4]) == ["blank"] and words(figure.axes[5]) == []
    assert [len(ax.collections) for ax in figure.axes] == [0, 1, 1, 0, 0, 0]
    assert figure.get_size_inches() == pytest.approx([6, 4.3])


def test_a_map_table_needs_as_many_names_as_pictures():
    with pytest.raises(ValueError):
        plotting.map_table([PIXELS], ["cat", "cup"], [{"a": PEAK}] * 2)


def test_bars_write_their_values_first_on_top():
    _, ax = plt.subplots()
    plotting.bars(ax, ["cat", "cup"], [0.75, 0.1], "choices", highlight=1)
    assert words(ax) == [" 0.75", " 0.10"] and [t.get_text() for t in ax.get_yticklabels()] == ["cat", "cup"]
    assert ax.yaxis_inverted() and [p.get_width() for p in ax.patches] == [0.75, 0.1] and ax.get_title() == "choices"
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()


def test_the_map_colours_rise_in_lightness():
    rgb = matplotlib.colormaps[plotting.MAP_COLOURS](np.linspace(0, 1, 64))[:, :3]
    assert (np.diff(rgb @ [0.299, 0.587, 0.114]) > 0).all()


def test_the_style_makes_no_frames():
    plotting.use_book_style()
    assert not plt.rcParams["axes.spines.top"] and plt.rcParams["svg.hashsalt"]


# ------------------------------------------------------------------------------------------------- beside the paper

NAN = float("nan")
PAPER = pd.DataFrame(
    [("Grad-CAM", "Drop", 12.5), ("Score-CAM", "Drop", 9.0), ("Grad-CAM", "Win", 5.0)], columns=["method", "metric", "value"]
)
OURS = pd.DataFrame(
    [("Grad-CAM", "Drop", 0.1234, 0.1, 0.1567, 9), ("Edges", "Drop", 0.5, NAN, NAN, 1)],
    columns=["method", "metric", "value", "ci_low", "ci_high", "n"],
)


def test_our_numbers_stand_beside_the_papers_with_their_interval():
    table = plotting.beside_paper(OURS, PAPER)
    assert list(table.index) == ["Grad-CAM", "Score-CAM", "Edges"]
    assert list(table.columns) == [("Drop", "paper"), ("Drop", "ours [95 %]"), ("Win", "paper"), ("Win", "ours [95 %]")]
    assert table["Drop", "paper"].tolist() == ["12.5", "9", "-"]
    assert table["Drop", "ours [95 %]"].tolist() == ["12.3 [10.0, 15.7]", "-", "50.0"]  # an interval only where there is one
    assert table["Win", "ours [95 %]"].tolist() == ["-", "-", "-"]


def test_scale_and_digits_of_our_numbers():
    assert plotting.beside_paper(OURS, PAPER, scale=1, digits=3)["Drop", "ours [95 %]"]["Grad-CAM"] == "0.123 [0.100, 0.157]"
