"""EfficientNet-Lite: the small ImageNet network that the book runs on by default.

An inverted-residual CNN with ReLU6, no squeeze-and-excitation, global average pooling and one linear layer, so
that the class activation map of the last features is exact. Paper: tan2019efficientnet; the Lite variants are
Google's. Only evaluation is meant: each batch normalisation is folded into the convolution before it on loading.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# one row a stage: expansion, channels, repeats, stride of the first block, kernel
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}  # width, depth
BATCH_NORM_EPS = 1e-3


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's `SAME` padding: an odd pixel of padding goes to the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._padding(n, k, s) for n, k, s in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True))
        if rows[0] == rows[1] and columns[0] == columns[1]:  # the convolution can pad by itself, without a copy
            return F.conv2d(x, self.weight, self.bias, self.stride, (rows[0], columns[0]), self.dilation, self.groups)
        return super().forward(F.pad(x, (*columns, *rows)))

    @staticmethod
    def _padding(n: int, kernel: int, stride: int) -> tuple[int, int]:
        total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expand with 1x1, filter each channel, project with 1x1 (no ReLU after it), add the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int):
        super().__init__()
        hidden = inputs * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion != 1:
            layers["expand"], layers["expand_relu"] = SameConv2d(inputs, hidden, 1), nn.ReLU6(inplace=True)
        layers["depthwise"], layers["depthwise_relu"] = (
            SameConv2d(hidden, hidden, kernel, stride, groups=hidden),
            nn.ReLU6(inplace=True),
        )
        layers["project"] = SameConv2d(hidden, outputs, 1)
        self.layers = nn.Sequential(layers)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds_input else self.layers(x)


class EfficientNetLite(nn.Module):
    """`[N, 3, H, W]`, pixels as (x - 127) / 128 -> logits `[N, 1000]`. Paper: tan2019efficientnet.

    Layers: `stem_relu`, `blocks.0` … , `head_relu` (the features that are pooled), `classifier`.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0, classes: int = 1000):
        super().__init__()
        self.stem, self.stem_relu = SameConv2d(3, 32, 3, 2), nn.ReLU6(inplace=True)
        blocks, inputs = [], 32
        for row, (expansion, channels, repeats, stride, kernel) in enumerate(STAGES):
            outputs = round_channels(channels * width)
            fixed_depth = row in (0, len(STAGES) - 1)  # Lite scales neither the first nor the last stage in depth
            for i in range(repeats if fixed_depth else math.ceil(repeats * depth)):
                blocks.append(InvertedResidual(inputs, outputs, expansion, stride if i == 0 else 1, kernel))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head, self.head_relu = SameConv2d(inputs, 1280, 1), nn.ReLU6(inplace=True)
        self.pool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem_relu(self.stem(x)))
        x = self.head_relu(self.head(x))  # [N, 1280, h, w]
        return self.classifier(self.pool(x).flatten(1))  # [N, classes]


def round_channels(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor`, never more than a tenth below `channels`. Source: tan2019efficientnet."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def folded_state(published: dict[str, Tensor], net: EfficientNetLite) -> dict[str, Tensor]:
    """State of `net` from the published one, in which convolutions have no bias and batch norms stand beside them.

    Errors: ValueError naming what is missing or left over, so that no tensor of the file is silently unused.
    """
    left = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    state: dict[str, Tensor] = {}

    def take(name: str) -> Tensor:
        if name not in left:
            raise ValueError(f"the weights lack {name!r}: this is not a file of this EfficientNet-Lite")
        return left.pop(name)

    def fold(ours: str, convolution: str, norm: str) -> None:
        mean, variance, scale, shift = (take(f"{norm}.{part}") for part in ("running_mean", "running_var", "weight", "bias"))
        weight, bias = fuse_conv_bn_weights(take(f"{convolution}.weight"), None, mean, variance, BATCH_NORM_EPS, scale, shift)
        state[f"{ours}.weight"], state[f"{ours}.bias"] = weight, bias

    fold("stem", "_conv_stem", "_bn0")
    for i, block in enumerate(net.blocks):
        parts = [
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ]
        for ours, convolution, norm in parts:
            if hasattr(block.layers, ours):
                fold(f"blocks.{i}.layers.{ours}", f"_blocks.{i}.{convolution}", f"_blocks.{i}.{norm}")
    fold("head", "_conv_head", "_bn1")
    state["classifier.weight"], state["classifier.bias"] = take("_fc.weight"), take("_fc.bias")
    if left:
        raise ValueError(f"the weights hold {len(left)} tensors that this EfficientNet-Lite lacks, such as {sorted(left)[:3]}")
    return state


def build(name: str, published: dict[str, Tensor] | None = None) -> EfficientNetLite:
    """The network called `name` (a key of `SCALES`) with the published weights, or with random ones if there are none."""
    net = EfficientNetLite(*SCALES[name])
    if published is not None:
        with torch.no_grad():
            net.load_state_dict(folded_state(published, net), strict=True)
    return net.eval().to(memory_format=torch.channels_last)
