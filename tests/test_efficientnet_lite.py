"""efficientnet_lite: the folded network against the published tensors used as they are, and padding against plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from networks import image

from helpers import data, models, weights
from helpers.efficientnet_lite import EfficientNetLite, SameConv2d, build, folded_state, round_channels


@pytest.fixture(scope="module")
def published():
    return weights.lite_weights("efficientnet_lite0")


@pytest.fixture(scope="module")
def lite():
    return models.load()


# kernel, stride, repeats of each stage, written down independently of the package
LITE0 = [(3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1)]


def reference(state, x):
    """EfficientNet-Lite0 by functions alone, with its batch norms unfolded, in double precision."""
    state = {k: v.double() for k, v in state.items()}

    def conv(x, name, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        k, n = weight.shape[-1], x.shape[-1]
        total = max((-(-n // stride) - 1) * stride + k - n, 0)
        before, after = total // 2, total - total // 2
        return F.conv2d(F.pad(x, (before, after, before, after)), weight, None, stride, 0, 1, groups)

    def norm(x, name):
        return F.batch_norm(x, *(state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")), eps=1e-3)

    def relu6(x):
        return x.clamp(0, 6)

    x = relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
    number = 0
    for kernel, first_stride, repeats in LITE0:
        for i in range(repeats):
            block, given = f"_blocks.{number}", x
            if number:
                x = relu6(norm(conv(x, f"{block}._expand_conv"), f"{block}._bn0"))
            assert state[f"{block}._depthwise_conv.weight"].shape[-1] == kernel
            x = relu6(norm(conv(x, f"{block}._depthwise_conv", first_stride if i == 0 else 1, x.shape[1]), f"{block}._bn1"))
            x = norm(conv(x, f"{block}._project_conv"), f"{block}._bn2")
            x = x + given if i else x
            number += 1
    x = relu6(norm(conv(x, "_conv_head"), "_bn1"))
    return F.linear(x.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])


def test_the_folded_network_is_the_published_one(lite, published):
    x = lite.preprocess(data.photo("coffee").picture)[None]
    with torch.no_grad():
        expected, given = reference(published, x.double()), lite(x)
        noise = torch.randn(1, 3, 97, 97, generator=torch.Generator().manual_seed(0))  # an odd size pads otherwise
        assert (lite(noise) - reference(published, noise.double())).abs().max() < 1e-4
    assert (given - expected).abs().max() < 1e-4 and expected.std() > 0.5


def test_a_missing_tensor_is_named(published):
    del (state := dict(published))["_blocks.3._bn1.running_var"]
    with pytest.raises(ValueError, match=r"lack '_blocks.3._bn1.running_var'"):
        build("efficientnet_lite0", state)


def test_left_over_tensors_are_named(published):
    with pytest.raises(ValueError, match=r"2 tensors that this EfficientNet-Lite lacks.*_se.bias"):
        build("efficientnet_lite0", published | {"_se.weight": torch.zeros(1), "_se.bias": torch.zeros(1)})


def test_the_file_of_another_size_does_not_fit(published):
    with pytest.raises(ValueError, match="weights (lack|hold)"):
        folded_state(published, EfficientNetLite(1.0, 1.1))


def test_the_counters_of_batch_norm_are_not_needed(published):
    kept = {k: v for k, v in published.items() if not k.endswith("num_batches_tracked")}
    assert folded_state(kept, build("efficientnet_lite0")).keys() == folded_state(published, build("efficientnet_lite0")).keys()


@pytest.mark.parametrize(
    ("name", "blocks", "head", "side"), [("efficientnet_lite1", 21, 320, 240), ("efficientnet_lite2", 21, 352, 260)]
)
def test_the_larger_ones_have_their_width_depth_and_size(name, blocks, head, side):
    net = models.load(name)
    assert len(net.module.blocks) == blocks and net.module.head.in_channels == head and net.side == side
    assert net.top(net.preprocess(data.photo("coffee").picture))[0][0] == "espresso"


def naive(x, weight, bias, stride):
    """TensorFlow's SAME convolution of one channel: window o begins at o * stride - padding // 2, and outside is 0."""
    n, m, k = x.shape[0], x.shape[1], weight.shape[0]

    def begin(size):
        return -(max((math.ceil(size / stride) - 1) * stride + k - size, 0) // 2)

    out = torch.zeros(math.ceil(n / stride), math.ceil(m / stride), dtype=x.dtype)
    for o in range(out.shape[0]):
        for p in range(out.shape[1]):
            for i in range(k):
                for j in range(k):
                    r, c = o * stride + begin(n) + i, p * stride + begin(m) + j
                    if 0 <= r < n and 0 <= c < m:
                        out[o, p] += x[r, c] * weight[i, j]
    return out + bias


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (7, 8), (8, 7), (9, 4)])
def test_same_padding_is_that_of_tensorflow(kernel, stride, size):
    conv = SameConv2d(1, 1, kernel, stride).double()
    x = image(kernel, size)[0]
    expected = naive(x, conv.weight[0, 0].detach(), conv.bias.item(), stride)
    torch.testing.assert_close(conv(x[None, None])[0, 0].detach(), expected)


@pytest.mark.parametrize(
    ("channels", "rounded"), [(32, 32), (35.2, 32), (36, 40), (17.6, 16), (26.4, 24), (352, 352), (3, 8), (11, 16), (12.3, 16)]
)
def test_channels_round_to_eights_but_never_lose_a_tenth(channels, rounded):
    assert round_channels(channels) == rounded and rounded >= 0.9 * channels
