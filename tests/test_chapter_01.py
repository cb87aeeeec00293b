"""Chapter 1: the numbers behind its figures, recomputed with its default parameters."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import lfw_subset

from helpers import cam, data, datasets, drawn, metrics, mil, models, sanity
from helpers.core import capture, features_of, frozen, resize

SIZE, SIDE = (224, 224), (128, 128)


@pytest.fixture(scope="module")
def net():
    return models.load("efficientnet_lite0")


@pytest.fixture(scope="module")
def multi():
    return models.load("slim_vgg16_scenes_multi")


@pytest.fixture(scope="module")
def scenes():
    return datasets.load("scenes_multi", "", 160, 100)[:60]


def peaks(net, crops):
    """The peak of every unit on small grey pictures `[N, 25, 25]`: `[N, C]`."""
    images = (resize(crops, SIZE)[:, None].expand(-1, 3, -1, -1) - net.mean[0]) / net.std[0]  # its colours are scaled alike
    found = []
    with torch.no_grad(), capture(net, [net.cam_layer]) as seen:
        for part in images.split(10):
            net(part)
            found.append(seen[net.cam_layer].amax((2, 3)))
    return torch.cat(found)


def separates(a, b):
    return ((a[:, None] > b).float() + 0.5 * (a[:, None] == b)).mean((0, 1))


@pytest.mark.parametrize(("shuffled", "expected"), [(False, 1.0), (True, 0.80)])
def test_the_face_unit_and_its_control(net, shuffled, expected):
    every = np.linspace(0, 99, 50).round().astype(int)
    crops = torch.from_numpy(lfw_subset()[np.concatenate([every, 100 + every])]).float()
    face, choose = torch.arange(100) < 50, torch.arange(100) % 2 == 0
    found = peaks(models.randomised(net, seed=0) if shuffled else net, crops)
    unit = int(separates(found[choose & face], found[choose & ~face]).argmax())
    held_out = separates(found[~choose & face][:, [unit]], found[~choose & ~face][:, [unit]])
    assert float(held_out) == pytest.approx(expected, abs=0.03)


def test_things_outside_the_first_five_choices_are_found_in_their_corner(net):
    photos = {photo.name: photo for photo in datasets.load("photos")}
    pictures = {name: photo.picture for name, photo in photos.items()}
    r = np.random.default_rng(0)
    ordered = [(a, b) for a in photos for b in photos if a != b]
    couples = [ordered[i] for i in r.permutation(len(ordered))[:24]]
    asked, first = [], []
    for large, small in couples:
        corner, (h, w) = int(r.integers(4)), (74, 74)
        y, x = 150 * (corner // 2), 150 * (corner % 2)
        picture = pictures[large].resize(SIZE, Image.Resampling.BILINEAR)
        picture.paste(pictures[small].resize((w, h), Image.Resampling.BILINEAR), (x, y))
        place = torch.zeros(SIZE)
        place[y : y + h, x : x + w] = 1
        image = net.preprocess(picture)
        with torch.no_grad():
            logits = net(image[None])[0]
        thing = net.index(photos[small].class_names[0])
        if (logits > logits[thing]).sum() >= 5:
            asked.append(metrics.energy_inside(cam.grad_cam(net, image, thing), place))
            first.append(metrics.energy_inside(cam.grad_cam(net, image), place))
    assert len(asked) == 23
    assert np.mean(asked) == pytest.approx(0.43, abs=0.02)
    assert np.mean(first) == pytest.approx(0.08, abs=0.02)


def test_the_coffee_and_its_sanity_strip(net):
    photo = data.photo("coffee")
    image, drink, espresso = net.preprocess(photo.picture), photo.mask("espresso", SIZE), net.index("espresso")
    saliency = cam.grad_cam(net, image, espresso)
    A = features_of(net, image, net.cam_layer)
    summands = torch.einsum("k,kij->ij", net.module.classifier.weight[espresso].detach(), A)
    torch.testing.assert_close(resize(summands.relu() / 49, SIZE), saliency, rtol=1e-4, atol=1e-5)
    assert metrics.energy_inside(saliency, drink) == pytest.approx(0.18, abs=0.01)
    assert metrics.energy_inside(sanity.centred_blob(net, image, espresso), drink) == pytest.approx(0.12, abs=0.01)
    assert not cam.grad_cam(models.randomised(net, seed=0), image, espresso).any()


def things(photo, names):
    return torch.stack([photo.mask(name, SIDE) for name in names]).amax(0)


def test_of_several_things_grad_cam_shows_the_asked_one(multi, scenes):
    crowded = [p for p in scenes if len(p.class_names) > 1]
    asked, others = [], []
    for p in crowded:
        saliency = cam.grad_cam(multi, multi.preprocess(p.picture), multi.index(p.class_names[0]))
        asked.append(metrics.energy_inside(saliency, things(p, p.class_names[:1])))
        others.append(metrics.energy_inside(saliency, things(p, p.class_names[1:])))
    assert len(crowded) == 39
    assert np.mean(asked) == pytest.approx(0.29, abs=0.01)
    assert np.mean(others) == pytest.approx(0.01, abs=0.01)


def test_the_map_of_an_absent_class_is_blank_or_faint_and_not_on_things(multi, scenes):
    r, blank, ratio, inside, signed_gap = np.random.default_rng(0), [], [], [], []
    for p in scenes:
        image, mask = multi.preprocess(p.picture), things(p, p.class_names)
        absent = multi.index(r.choice([name for name in multi.classes if name not in p.class_names]))
        missing, present = cam.grad_cam(multi, image, absent), cam.grad_cam(multi, image, multi.index(p.class_names[0]))
        signed = cam.cam(multi, image, absent)
        blank.append(not missing.any())
        ratio.append(float(missing.max() / present.max()))
        inside.append(metrics.energy_inside(missing, mask))
        signed_gap.append(float(signed[mask > 0].mean() - signed[mask == 0].mean()))
    assert np.mean(blank) == pytest.approx(0.32, abs=0.04)
    assert np.mean(ratio) < 0.02
    assert np.nanmean(inside) == pytest.approx(0.01, abs=0.01)
    assert np.mean(signed_gap) == pytest.approx(-0.80, abs=0.05)


@pytest.mark.parametrize(("gated", "attention", "grad_cam"), [(False, 1.00, 0.44), (True, 0.98, 0.27)])
def test_attention_finds_the_nines_and_grad_cam_often_does_not(gated, attention, grad_cam):
    network, hits = mil.trained(gated), {"attention": [], "Grad-CAM": [], "gradient times feature": []}
    for bag in (b for b in drawn.digit_bags(200, seed=100, split="test") if b.positive):
        with torch.enable_grad(), frozen(network), capture(network, ["extractor.7"]) as seen:
            y, A = network(bag.images[None]), seen["extractor.7"]
            (g,) = torch.autograd.grad(y.sum(), A)
        scores = {
            "attention": mil.attention(network, bag.images),
            "Grad-CAM": torch.einsum("c,kcij->kij", g.mean((0, 2, 3)), A.detach()).relu().sum((1, 2)),
            "gradient times feature": (g.relu() * A.detach()).sum((1, 2, 3)),
        }
        for method, s in scores.items():
            hits[method].append(float(bag.digits[s.argmax()] == 9))
    assert len(hits["attention"]) == 100
    assert np.mean(hits["attention"]) == pytest.approx(attention, abs=0.02)
    assert np.mean(hits["Grad-CAM"]) == pytest.approx(grad_cam, abs=0.04)
    assert np.mean(hits["gradient times feature"]) > 0.95
