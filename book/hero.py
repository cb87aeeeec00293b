"""Draw the picture of the landing page: python book/hero.py."""

from pathlib import Path

import matplotlib.pyplot as plt

from helpers import data, models, plotting, score_cam

plotting.use_book_style()
net = models.load()
photo = data.photo("astronaut")
image = net.preprocess(photo.picture)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
plotting.show_picture(axes[0], net.pixels(image), "a photograph")
for ax, thing in zip(axes[1:], ("space shuttle", "crash helmet"), strict=True):
    plotting.overlay(ax, net.pixels(image), score_cam.score_cam_pp(net, image, net.index(thing)), f"why “{thing}”?")
figure.savefig(Path(__file__).parent / "_static" / "hero.png", dpi=130, metadata={"Software": None})
