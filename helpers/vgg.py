"""VGG16 with one linear layer after global average pooling: slim ones trained by us, and the published trunk with our heads.

The 13 convolutions and 5 pools stand where torchvision has them (`features.0` … `features.30`), so that the 18 layers
of the papers have the same names at every width. Paper: simonyan2014vgg; the head is zhou2016cam's.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.vgg import make_layers

PLAN: tuple[int | str, ...] = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


class VGG16(nn.Module):
    """`[N, 3, H, W]` -> logits `[N, classes]`; H and W at least 32.

    width: fraction of VGG16's channels; batch_norm: for training only, see `folded`. Errors: ValueError for no width or class.
    """

    def __init__(self, classes: int, width: float = 1.0, batch_norm: bool = False):
        super().__init__()
        if not (0 < width < float("inf") and classes >= 1):
            raise ValueError(f"a network has a width above 0 and at least one class, not width {width} and {classes} classes")
        channels = [c if isinstance(c, str) else max(1, round(c * width)) for c in PLAN]
        self.features = make_layers(channels, batch_norm=batch_norm)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(int(channels[-2]), classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))  # [N, classes]


def folded(trained: VGG16) -> VGG16:
    """A copy that computes the same without batch normalisation: each is folded into the convolution before it. In
    evaluation mode, where alone the two agree; the layers have torchvision's indices."""
    net = copy.deepcopy(trained).eval()  # two can be folded only where neither trains
    layers: list[nn.Module] = []
    for layer in net.features:
        before = layers[-1] if layers else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(before, layer)
        else:
            layers.append(layer)
    net.features = nn.Sequential(*layers)
    return net.eval()


def fresh(net: VGG16, generator: torch.Generator) -> VGG16:
    """Weights drawn as He et al. propose for ReLU, so that 13 layers train from scratch. Source: he2015delving."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, 0, 0.01, generator=generator)
            nn.init.zeros_(m.bias)
    return net
