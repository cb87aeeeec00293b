"""sanity: maps that know nothing of the network."""

import pytest
import torch
from networks import classifier, image, made
from scipy import ndimage

from helpers import core, sanity


def net():
    return classifier(made())


@pytest.mark.parametrize("method", [sanity.edge_map, sanity.random_map, sanity.centred_blob])
def test_network_and_target_do_not_matter(method):
    first = method(net(), image(), 0)
    assert torch.equal(first, method(net(), image(), 3)) and torch.equal(first, method(classifier(made(seed=1)), image(), 0))


@pytest.mark.proves("edge_map", by="scipy's Sobel filter on the grey picture")
def test_the_edge_map_is_the_sobel_strength_of_the_grey_picture():
    x = image(2, (9, 12))
    grey = x.mean(0).numpy()
    expected = torch.from_numpy(sum((ndimage.sobel(grey, axis, mode="nearest") / 8) ** 2 for axis in (0, 1)) ** 0.5)
    torch.testing.assert_close(sanity.edge_map(net(), x, 0), expected)


def test_a_flat_picture_has_no_edges_and_a_ramp_has_its_slope():
    assert not sanity.edge_map(net(), torch.ones(3, 16, 16, dtype=torch.float64), 0).any()
    ramp = torch.arange(16.0, dtype=torch.float64).expand(3, 16, 16)
    assert torch.allclose(sanity.edge_map(net(), ramp, 0)[:, 1:-1], torch.ones(16, 14, dtype=torch.float64))


@pytest.mark.proves("random_map", by="a lattice of uniform noise of the same seed, resized")
def test_a_random_map_depends_on_its_seed_only():
    first, other = sanity.random_map(net(), image(), 0), sanity.random_map(net(), image(), 0, seed=1)
    assert torch.equal(first, sanity.random_map(net(), image(5), 0)) and not torch.allclose(first, other)
    lattice = torch.rand(3, 3, generator=torch.Generator().manual_seed(4)).double()
    assert torch.equal(sanity.random_map(net(), image(), 0, grid=3, seed=4), core.resize(lattice, (16, 16)))


@pytest.mark.proves("centred_blob", by="the height of a Gaussian one standard deviation from its middle, and mirror symmetry")
def test_the_blob_is_a_gaussian_about_the_middle():
    blob = sanity.centred_blob(net(), image(size=(17, 33)), 0, width=0.25)
    assert blob.argmax() == 8 * 33 + 16 and blob.max() == 1
    assert blob[8, 24] == pytest.approx(2.718281828**-0.5)  # a quarter of the width away is one standard deviation
    torch.testing.assert_close(blob, blob.flip(0))
    torch.testing.assert_close(blob, blob.flip(1))
