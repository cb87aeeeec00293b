"""sampling: occlusion, RISE and extremal perturbations, against plain loops, captum, and networks whose answer is known."""

import math

import pytest
import torch
from captum.attr import Occlusion
from networks import Deep, image, made
from torch import nn

from helpers import core, drawn, models
from helpers.sampling import (
    RandomMasks,
    Windows,
    area_penalty,
    blur_levels,
    extremal_perturbation,
    grid_of,
    max_convolution,
    occlusion,
    offsets,
    random_masks,
    reveal,
    rise,
    smooth_max,
    strips,
)


class Inside(nn.Module):
    """Logit 0 is the sum of all pixels in G, logit 1 is 0: what matters is known exactly."""

    def __init__(self, G):
        super().__init__()
        self.register_buffer("G", G)

    def forward(self, x):
        y = (x * self.G).sum((1, 2, 3))
        return torch.stack([y, 0 * y], 1)


def square(size=(16, 16), rows=slice(4, 9), columns=slice(7, 12)):
    G = torch.zeros(size, dtype=torch.float64)
    G[rows, columns] = 1
    return G


# ------------------------------------------------------------------------------------------------------ occlusion


def slow_occlusion(net, x, target, window, stride, score, fill):
    """Every window by itself; drops and covers are added pixel by pixel."""
    H, W = x.shape[1:]
    tops = sorted({min(t, H - window) for t in range(0, H, stride)})
    lefts = sorted({min(t, W - window) for t in range(0, W, stride)})
    total, covers = torch.zeros(H, W, dtype=torch.float64), torch.zeros(H, W, dtype=torch.float64)
    with torch.no_grad():
        whole = score(net(x[None]), target)[0]
        for t in tops:
            for left in lefts:
                muted = x.clone()
                background = fill if isinstance(fill, float) else fill[:, t : t + window, left : left + window]
                muted[:, t : t + window, left : left + window] = background
                total[t : t + window, left : left + window] += whole - score(net(muted[None]), target)[0]
                covers[t : t + window, left : left + window] += 1
    assert covers.min() >= 1
    return total / covers


@pytest.mark.proves("occlusion", by="a loop over windows that counts how often each pixel is covered")
@pytest.mark.parametrize(("window", "stride"), [(4, 4), (4, 2), (5, 3), (3, 1), (16, 7), (1, 1)])
@pytest.mark.parametrize("size", [(16, 16)])
@pytest.mark.parametrize("fill", [0.0, 0.8, image(7)], ids=["0", "0.8", "picture"])
def test_occlusion_is_its_plain_loop(window, stride, size, fill):
    net, x = made(Deep), image(1, size)
    expected = slow_occlusion(net, x, 2, window, stride, core.logit, fill)
    found = occlusion(net, x, 2, window=window, stride=stride, score=core.logit, fill=fill, batch_size=5)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


class Global(nn.Module):
    """Takes images of any size."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh(), nn.Conv2d(5, 4, 3), nn.Tanh())

    def forward(self, x):
        return self.body(x).mean((2, 3))


def test_occlusion_of_an_image_that_is_not_square():
    net, x = made(Global), image(2, (13, 22))
    expected = slow_occlusion(net, x, 1, 5, 3, core.probability, 0.0)
    torch.testing.assert_close(occlusion(net, x, 1, window=5, stride=3), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.proves("occlusion", by="captum's Occlusion")
@pytest.mark.parametrize(("window", "stride"), [(4, 4), (4, 2), (6, 5), (8, 1)])
def test_captum_agrees_where_windows_end_at_the_border(window, stride):
    net, x = made(Deep, 3), image(3)
    theirs = Occlusion(net).attribute(x[None], sliding_window_shapes=(3, window, window), strides=(3, stride, stride), target=1)
    found = occlusion(net, x, 1, window=window, stride=stride, score=core.logit)
    torch.testing.assert_close(found.float(), theirs[0, 0], rtol=1e-5, atol=1e-6)  # captum answers in single precision


@pytest.mark.parametrize(("side", "window", "stride"), [(128, 18, 9), (16, 2, 1), (3, 1, 1)])
def test_windows_are_a_seventh_of_the_side_and_overlap_by_half(side, window, stride):
    net, x = Inside(torch.ones(side, side)), torch.ones(3, side, side)
    drop = occlusion(net, x, 0, score=core.logit, batch_size=64)
    torch.testing.assert_close(drop, torch.full((side, side), 3.0 * window**2))  # every window takes as much away
    copies = []
    net.register_forward_pre_hook(lambda _m, given: copies.append(len(given[0])))
    occlusion(net, x, 0, batch_size=64)
    assert sum(copies) == 1 + (math.ceil((side - window) / stride) + 1) ** 2


def test_covering_what_speaks_against_a_class_counts_negative():
    G = square()
    drop = occlusion(Inside(-G), torch.ones(3, 16, 16, dtype=torch.float64), 0, window=1, score=core.logit)
    assert torch.equal(drop, -3 * G)


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (17, 1), (4, 5), (4, 0)])
def test_a_window_that_leaves_gaps_or_the_image_is_named(window, stride):
    with pytest.raises(ValueError, match=f"window is {window}, stride {stride}; expected 1 <= stride <= window <= 16"):
        occlusion(made(Deep), image(), window=window, stride=stride)


def test_windows_are_masks_in_chunks():
    rows, columns = strips(7, 3, 2), strips(5, 2, 2)
    assert rows.tolist() == [[1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1]]
    assert columns.tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    masks = Windows(rows, columns)
    everything = torch.stack([1 - r[:, None] * c for r in rows for c in columns])
    assert len(masks) == 9 and torch.equal(masks[0:9], everything) and torch.equal(masks[4:99], everything[4:])


# ----------------------------------------------------------------------------------------------------------- RISE


def bilinear(grid, height, width):
    """Enlarge one grid `[g, g]`, pixel by pixel, from the definition; half-pixel centres, the border repeated."""
    g = len(grid)
    large = torch.zeros(height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            y, x = max((i + 0.5) * g / height - 0.5, 0), max((j + 0.5) * g / width - 0.5, 0)
            top, left = min(int(y), g - 1), min(int(x), g - 1)
            below, right = min(top + 1, g - 1), min(left + 1, g - 1)
            v, u = y - top, x - left
            large[i, j] = (1 - v) * ((1 - u) * grid[top, left] + u * grid[top, right]) + v * (
                (1 - u) * grid[below, left] + u * grid[below, right]
            )
    return large


@pytest.mark.parametrize(("size", "grid"), [((16, 16), 7), ((9, 14), 4), ((8, 8), 2)])
def test_a_random_mask_is_an_enlarged_grid_shifted_by_less_than_a_cell(size, grid):
    masks = random_masks(6, grid, 0.5, size, 3, image())
    cell = [math.ceil(side / grid) for side in size]
    assert masks[0:6].shape == (6, *size)
    for m, cells, (y, x) in zip(masks[0:6], masks.cells, masks.shifts.tolist(), strict=True):
        assert 0 <= y < cell[0] and 0 <= x < cell[1]
        large = bilinear(cells, (grid + 1) * cell[0], (grid + 1) * cell[1])
        torch.testing.assert_close(m, large[y : y + size[0], x : x + size[1]])


def test_all_shifts_are_drawn_and_cells_show_with_probability_p():
    masks = random_masks(2000, 4, 0.3, (16, 24), 0, image())
    assert set(masks.shifts[:, 0].tolist()) == set(range(4)) and set(masks.shifts[:, 1].tolist()) == set(range(6))
    assert set(masks.cells.unique().tolist()) == {0, 1}
    assert masks.cells.mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 32000))


@pytest.mark.proves("rise", by="a loop over one mask at a time in double precision, and an enlargement written out")
@pytest.mark.parametrize("settings", [{}, {"p": 0.2, "fill": 0.6}, {"score": core.logit, "fill": image(8), "seed": 5}])
def test_rise_is_its_plain_loop(settings):
    net, x = made(Deep, 2), image(2)
    score, fill, p = settings.get("score", core.probability), settings.get("fill", 0.0), settings.get("p", 0.5)
    drawn = random_masks(11, 5, p, (16, 16), settings.get("seed", 0), x)
    expected = torch.zeros(16, 16, dtype=torch.float64)
    with torch.no_grad():
        for cells, (y, left) in zip(drawn.cells, drawn.shifts.tolist(), strict=True):
            m = bilinear(cells, 24, 24)[y : y + 16, left : left + 16]
            expected += score(net((x * m + fill * (1 - m))[None]), 1)[0] * m / (11 * p)
    torch.testing.assert_close(rise(net, x, 1, samples=11, grid=5, **settings), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.proves("rise", by="its exact expectation on a network that adds up a region, within six standard errors")
@pytest.mark.parametrize("p", [0.5, 0.2])
def test_rise_tends_to_its_exact_expectation_on_a_linear_network(p):
    """With s = sum over u in G of m(u), E[s m(x)] = sum_u E[m(u) m(x)], and E[m(u) m(x)] = p^2 + p (1 - p) sum_c w_c(u) w_c(x).

    w_c is how much of a pixel comes from cell c; they add up to 1, and the shifts are few enough to take all of them.
    """
    g, N, G = 4, 3000, square((12, 12), slice(3, 6), slice(5, 9))
    unit_grids = torch.eye(g * g, dtype=torch.float64).reshape(g * g, g, g)
    large = torch.stack([bilinear(cells, 3 * (g + 1), 3 * (g + 1)) for cells in unit_grids])  # [c, 15, 15]
    expected = torch.zeros(12, 12, dtype=torch.float64)
    for y in range(3):
        for x in range(3):
            w = large[:, y : y + 12, x : x + 12]
            together = torch.einsum("cuv,cyx->uvyx", w, w)
            expected += ((p**2 + p * (1 - p) * together) * G[:, :, None, None]).sum((0, 1)) / 9 / p
    net, ones = Inside(G / 3), torch.ones(3, 12, 12, dtype=torch.float64)
    found = rise(net, ones, 0, samples=N, grid=g, p=p, score=core.logit, batch_size=500)
    masks = random_masks(N, g, p, (12, 12), 0, ones)[0:N]
    one = (masks * G).sum((1, 2))[:, None, None] * masks / p  # what each mask adds
    assert ((found - expected).abs() <= 6 * one.std(0) / math.sqrt(N)).all()
    assert found[G == 1].min() > found[:, 0].max()  # the region stands out of the constant that all pixels share


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_same_masks_are_drawn_for_any_batch_size(batch_size):
    net, x = made(Deep), image()
    expected = rise(net, x, 1, samples=20)
    torch.testing.assert_close(rise(net, x, 1, samples=20, batch_size=batch_size), expected, rtol=1e-12, atol=1e-14)
    masks = random_masks(20, 7, 0.5, (16, 16), 0, x)
    chunks = [masks[i : i + batch_size] for i in range(0, 20, batch_size)]
    assert isinstance(masks, RandomMasks)
    torch.testing.assert_close(torch.cat(chunks), masks[0:20], rtol=1e-14, atol=1e-15)


def test_seeds_and_types():
    net, x = made(Deep), image()
    assert torch.equal(rise(net, x, 1, samples=5, seed=4), rise(net, x, 1, samples=5, seed=4))
    assert not torch.allclose(rise(net, x, 1, samples=5, seed=4), rise(net, x, 1, samples=5, seed=5))
    single = random_masks(5, 7, 0.5, (16, 16), 0, x.float())
    assert (
        torch.equal(single.cells.double(), random_masks(5, 7, 0.5, (16, 16), 0, x).cells) and single[0:2].dtype == torch.float32
    )


@pytest.mark.parametrize("settings", [{"samples": 0}, {"grid": 0}, {"p": 0.0}, {"p": 1.0}, {"p": 1.5}])
def test_settings_of_rise_that_draw_nothing_are_named(settings):
    with pytest.raises(ValueError, match="expected at least 1, at least 1, and 0 < p < 1"):
        rise(made(Deep), image(), **settings)


# ------------------------------------------------------------------------------------------ extremal perturbations


@pytest.mark.parametrize("area", [0.1, 0.25, 0.5])
def test_a_mask_of_the_right_area_has_no_penalty_wherever_it_is(area):
    m = torch.zeros(20, 10, dtype=torch.float64)
    m.view(-1)[torch.randperm(200, generator=torch.Generator().manual_seed(0))[: int(200 * area)]] = 1
    assert area_penalty(m, area) == 0
    assert area_penalty(torch.zeros(20, 10), area).item() == pytest.approx(area)
    assert area_penalty(torch.ones(20, 10), area).item() == pytest.approx(1 - area)
    assert area_penalty(torch.full((20, 10), 0.5), area).item() == pytest.approx(0.25)


def test_the_area_penalty_is_its_plain_loop():
    m = image(1)[0].sigmoid()
    ordered = sorted(m.flatten().tolist())
    expected = sum((v - (1 if i >= 256 - 51 else 0)) ** 2 for i, v in enumerate(ordered)) / 256  # 0.2 * 256 = 51.2
    assert area_penalty(m, 0.2).item() == pytest.approx(expected, rel=1e-12)


def test_the_smooth_maximum_lies_between_mean_and_maximum_and_tends_to_both():
    f = image(2)[0]
    assert (smooth_max(f, 1) < f.amax(1)).all() and (smooth_max(f, 1) > f.mean(1)).all()
    torch.testing.assert_close(smooth_max(f, 1, temperature=1e-4), f.amax(1))
    torch.testing.assert_close(smooth_max(f, 0, temperature=1e6), f.mean(0), rtol=1e-4, atol=1e-4)
    a, b = 0.3, 0.7
    expected = (a * math.exp(20 * a) + b * math.exp(20 * b)) / (math.exp(20 * a) + math.exp(20 * b))
    assert smooth_max(torch.tensor([a, b], dtype=torch.float64), 0).item() == pytest.approx(expected, rel=1e-12)


def slow_max_convolution(cells, size, sigma, maximum):
    """Pixel by pixel: the maximum over each row of cells, then over the rows; sigma in pixels."""
    (h, w), (H, W) = cells.shape, size
    m = torch.zeros(H, W, dtype=torch.float64)
    for u in range(H):
        for v in range(W):
            dy = [u - ((i + 0.5) * H / h - 0.5) for i in range(h)]
            dx = [v - ((j + 0.5) * W / w - 0.5) for j in range(w)]
            rows = [maximum([float(cells[i, j]) * math.exp(-((dx[j] / sigma) ** 4)) for j in range(w)]) for i in range(h)]
            m[u, v] = maximum([rows[i] * math.exp(-((dy[i] / sigma) ** 4)) for i in range(h)])
    return m


def soft(values):
    return sum(f * math.exp(20 * f) for f in values) / sum(math.exp(20 * f) for f in values)


@pytest.mark.parametrize("sigma", [0.1, 0.3])
def test_the_max_convolution_is_its_plain_loop(sigma):
    cells = image(1, (4, 5))[0].sigmoid()
    found = max_convolution(cells, (8, 12), sigma)
    torch.testing.assert_close(found, slow_max_convolution(cells, (8, 12), sigma * 8, soft), rtol=1e-9, atol=1e-12)
    sharp = max_convolution(cells, (8, 12), sigma, temperature=1e-4)
    torch.testing.assert_close(sharp, slow_max_convolution(cells, (8, 12), sigma * 8, max), rtol=1e-6, atol=1e-6)


def test_the_maximum_along_columns_and_then_rows_is_the_maximum_over_all_cells():
    cells = image(1, (4, 5))[0].sigmoid()
    dy, dx = offsets(8, 4), offsets(12, 5)  # [8, 4], [12, 5]
    k = torch.exp(-(dy[:, None, :, None] ** 4 + dx[None, :, None, :] ** 4) / (0.3 * 8) ** 4)  # [8, 12, 4, 5]
    expected = (k * cells).amax((2, 3))
    torch.testing.assert_close(max_convolution(cells, (8, 12), 0.3, temperature=1e-4), expected, rtol=1e-6, atol=1e-6)


def test_one_cell_alone_makes_a_smooth_bump_of_height_one():
    cells = torch.zeros(16, 16, dtype=torch.float64)
    cells[5, 9] = 1
    m = max_convolution(cells, (16, 16), 0.2, temperature=1e-4)
    assert m.argmax() == 5 * 16 + 9 and m.max() == pytest.approx(1) and m.min() >= 0
    torch.testing.assert_close(m[5, 9:14], torch.exp(-((torch.arange(5).double() / 3.2) ** 4)), rtol=1e-4, atol=1e-6)


def test_blurred_images_are_weighted_means_of_the_image():
    x = image(3, (9, 7))
    levels = blur_levels(x, 2.0, count=5)
    assert levels.shape == (5, 3, 9, 7) and torch.equal(levels[0], x)
    for level, sigma in zip(levels[1:], (0.5, 1.0, 1.5, 2.0), strict=True):
        for i, j in ((0, 0), (4, 3), (8, 6), (2, 5)):
            g = torch.tensor([[math.exp(-((i - a) ** 2 + (j - b) ** 2) / (2 * sigma**2)) for b in range(7)] for a in range(9)])
            torch.testing.assert_close(level[:, i, j], (x * g).sum((1, 2)) / g.sum(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(blur_levels(torch.ones(3, 8, 8), 3.0), torch.ones(8, 3, 8, 8))


def test_a_mask_reveals_the_level_that_it_says():
    levels = torch.stack([image(s, (8, 5)) for s in range(3)])
    for value, expected in ((1, levels[0]), (0, levels[2]), (0.5, levels[1]), (0.8, 0.6 * levels[0] + 0.4 * levels[1])):
        torch.testing.assert_close(reveal(torch.full((8, 5), value, dtype=torch.float64), levels), expected)
    m = (torch.arange(40) % 2).double().reshape(8, 5)
    assert torch.equal(reveal(m, levels), torch.where(m == 1, levels[0], levels[2]))


@pytest.mark.parametrize(
    ("size", "grid", "cells"),
    [((224, 224), 32, (32, 32)), ((128, 256), 32, (32, 64)), ((16, 20), 32, (16, 20)), ((9, 6), 2, (3, 2))],
)
def test_cells_are_squares_of_at_least_a_pixel(size, grid, cells):
    *shape, margin = grid_of(torch.zeros(3, *size), grid, 0.1)
    assert tuple(n - 2 * margin for n in shape) == cells
    assert margin * min(size) / min(cells) >= 0.15 * min(size)  # one and a half times as far as a cell reaches


def test_with_cells_beyond_the_border_a_corner_is_like_the_middle():
    m = max_convolution(torch.full((28, 30), 0.5, dtype=torch.float64), (16, 18), 0.2, margin=6)
    torch.testing.assert_close(m, m[8:9, 8:9].expand(16, 18), rtol=1e-3, atol=0)
    assert max_convolution(torch.full((16, 18), 0.5, dtype=torch.float64), (16, 18), 0.2).std() > 10 * m.std()


@pytest.mark.proves("extremal_perturbation", by="its steps written out in double precision: loops for the mask, SGD by hand")
def test_the_search_is_its_steps_written_out():
    net, x = made(Deep, 2), image(2)
    levels = blur_levels(x, 20 / 224 * 16)
    cells, speed = torch.ones(8, 8, dtype=torch.float64), torch.zeros(8, 8, dtype=torch.float64)

    def loss(cells, t):
        dy = torch.arange(16.0)[:, None].double() - torch.arange(-6.5, 24, 4).double()  # [16, 8]: two lie beyond either border
        k = torch.exp(-((dy / (0.3 * 16)) ** 4))
        f = k[:, None, None, :] * cells  # [W, 1, h, w]
        along = (f * (20 * f).exp()).sum(-1) / (20 * f).exp().sum(-1)  # [W, 1, h]
        f = k[:, None, :] * along[:, 0]  # [H, W, h]
        m = (f * (20 * f).exp()).sum(-1) / (20 * f).exp().sum(-1)
        depth = 7 * (1 - m)
        below = depth.detach().floor().clamp(max=6).long()
        near, far = (torch.gather(levels, 0, (below + n).expand(1, 3, 16, 16))[0] for n in (0, 1))
        seen = near + (depth - below) * (far - near)
        ramp = torch.tensor([0.0] * (256 - 51) + [1.0] * 51, dtype=torch.float64)
        penalty = ((m.flatten().sort().values - ramp) ** 2).sum() / 256
        return net(seen[None])[0].log_softmax(0)[1] - (t > 0) * 2 * 25 ** (t / 6) * penalty, m  # from 2 to 50

    for t in range(6):
        variable = cells.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(variable, t)[0], variable)
        speed = 0.9 * speed + gradient
        cells = (cells + 0.5 * speed).clamp(0, 1)
    assert cells.min() < 0.95 and cells.std() > 0.01
    found = extremal_perturbation(net, x, 1, areas=(0.2,), steps=6, grid=4, sigma=0.3, weights=(2, 50), lr=0.5)
    torch.testing.assert_close(found, loss(cells, 0)[1], rtol=1e-9, atol=1e-11)


@pytest.mark.proves("extremal_perturbation", by="a network that sees one region only: the mask of that area finds it")
@pytest.mark.parametrize("place", [(slice(4, 16), slice(8, 20)), (slice(16, 28), slice(0, 12))])
def test_the_mask_finds_the_region_that_counts(place):
    blocks = image(4, (8, 8))[0].sign().repeat_interleave(4, 0).repeat_interleave(4, 1)  # lose their contrast where blurred
    G = square((32, 32), *place)
    area = G.mean().item()
    m = extremal_perturbation(Inside(G * blocks / 20), blocks.expand(3, 32, 32), 0, areas=(area,), score=core.logit)
    hard = m > 0.5
    assert (hard & (G == 1)).sum() / (hard | (G == 1)).sum() > 0.7
    assert (m * G).sum() / m.sum() > 0.6  # chance: 0.14
    assert m.mean().item() == pytest.approx(area, abs=0.05)


@pytest.mark.parametrize("area", [0.05, 0.1, 0.3])
def test_the_mask_has_the_area_that_was_asked_for(area):
    m = extremal_perturbation(made(Deep, 1), image(1), 2, areas=(area,), steps=150)
    assert (m > 0.5).double().mean().item() == pytest.approx(area, abs=0.03)
    assert 0 <= m.min() and m.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("scene", [2, 3, 4])  # a triangle, a star, two crosses: three of those that the defaults were chosen on
def test_a_drawn_object_is_found_and_the_class_is_as_clear_through_the_mask(scene):
    net, picture = models.load("slim_vgg16_scenes"), drawn.scenes(6, seed=3)[scene]
    x, name = net.preprocess(picture.picture), picture.class_names[0]
    k, G = net.index(name), picture.mask(name, (128, 128))
    levels = blur_levels(x, 20 / 224 * 128)
    m = extremal_perturbation(net, x, k)
    with torch.no_grad():
        seen, blurred = core.probability(net(torch.stack([reveal(m, levels), levels[-1]])), k).tolist()
    assert seen > 0.8 > 0.1 > blurred
    assert m.mean().item() == pytest.approx(0.1, abs=0.03)
    assert (m * G).sum() / m.sum() > 1.5 * G.mean()  # chance: as much as the object takes of the image


def test_masks_of_several_areas_are_added():
    net, x = made(Deep, 1), image(1)
    small, large = (extremal_perturbation(net, x, 2, areas=(a,), steps=5) for a in (0.1, 0.4))
    assert not torch.allclose(small, large)
    torch.testing.assert_close(extremal_perturbation(net, x, 2, areas=(0.1, 0.4), steps=5), small + large)


def test_the_search_raises_the_score():
    net, x = made(Deep, 1), image(1)
    levels = blur_levels(x, 20 / 224 * 16)
    found = [reveal(extremal_perturbation(net, x, k, areas=(0.3,), steps=60), levels) for k in range(4)]
    with torch.no_grad():
        logits = net(torch.stack(found))  # [mask made for, class]
    others = (logits.sum(0) - logits.diag()) / 3
    assert (logits.diag() > others).all()  # a class scores higher through its own mask than through those of the others


@pytest.mark.parametrize("areas", [(), (0.0,), (1.0,), (0.1, 2), (0.1, 0.4 / 256)])
def test_areas_that_are_no_shares_or_no_pixel_are_named(areas):
    with pytest.raises(ValueError, match="areas is .*expected at least one, all between 0 and 1 and of a pixel or more"):
        extremal_perturbation(made(Deep), image(), areas=areas)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"grid": 0}, {"sigma": 0.0}, {"blur": 0.0}, {"lr": 0.0}, {"weights": (0, 1)}])
def test_a_search_without_steps_widths_weights_or_rate_is_named(settings):
    with pytest.raises(ValueError, match="expected steps and grid of at least 1, and all others above 0"):
        extremal_perturbation(made(Deep), image(), **settings)
