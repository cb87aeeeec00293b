"""Attention-based multiple-instance learning: a bag of pictures has a label, its pictures have none, and the attention
says which of them made the bag positive. Paper: ilse2018attention; for image patches patil2019amil.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.core import frozen
from helpers.data import data_folder
from helpers.weights import load_state, read_weights


class AttentionMIL(nn.Module):
    """Bags `[B, K, C, H, W]` -> logits `[B]` of being positive.

    extractor: `[N, C, H, W] -> [N, L]`; D: width of the attention's hidden layer; gated: Eq. (9) in place of Eq. (8).
    Where bags differ in size, `there` `[B, K]` is true where an instance is, false where the bag was filled up.
    Deviation: V, U and w have biases, which the paper's equations lack; that of w cancels in the softmax.
    """

    def __init__(self, extractor: nn.Module, L: int, D: int = 64, gated: bool = False):
        super().__init__()
        self.extractor, self.gated = extractor, gated
        self.V, self.U, self.w = nn.Linear(L, D), nn.Linear(L, D) if gated else None, nn.Linear(D, 1)
        self.classifier = nn.Linear(L, 1)

    def forward(self, bags: Tensor, there: Tensor | None = None) -> Tensor:
        return self.explained(bags, there)[0]

    def explained(self, bags: Tensor, there: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits `[B]` and attention `[B, K]`, which sums to 1 over the instances of a bag and is 0 where there is none.

        Errors: ValueError for a wrong shape, of bags or of what the extractor gives, and for an empty bag.
        """
        if bags.dim() != 5:
            raise ValueError(f"bags are [B, K, C, H, W]; these are {list(bags.shape)}")
        there = torch.ones(bags.shape[:2], dtype=torch.bool, device=bags.device) if there is None else there
        if there.shape != bags.shape[:2] or there.dtype != torch.bool:
            raise ValueError(f"`there` is bool {list(bags.shape[:2])}; this one is {there.dtype} {list(there.shape)}")
        if not there.any(1).all():
            raise ValueError(f"bag {int((~there.any(1)).nonzero()[0])} is empty: every bag needs an instance")
        features = self.extractor(bags[there])  # [N, L], of the N instances that are there: filling up changes nothing
        if features.shape[1:] != (self.V.in_features,):
            raise ValueError(f"the extractor gives {list(features.shape)}; expected [N, {self.V.in_features}]")
        h = features.new_zeros(*there.shape, features.shape[1]).masked_scatter(there[..., None], features)  # [B, K, L]
        hidden = self.V(h).tanh() if self.U is None else self.V(h).tanh() * self.U(h).sigmoid()  # [B, K, D]
        e = self.w(hidden)[..., 0].masked_fill(~there, -torch.inf)  # [B, K]
        a = e.softmax(1)  # Eq. (8), gated Eq. (9)
        z = torch.einsum("bk,bkl->bl", a, h)  # Eq. (7)
        return self.classifier(z)[:, 0], a


def packed(bags: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Bags `[K_i, C, H, W]` of different sizes as one batch `[B, K, C, H, W]`, filled up with zeros, and `there` `[B, K]`."""
    if not bags:
        raise ValueError("there is no bag to pack")
    lengths = torch.tensor([len(b) for b in bags], device=bags[0].device)
    there = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]  # [B, K]
    return nn.utils.rnn.pad_sequence(list(bags), batch_first=True), there


def attention(net: AttentionMIL, bag: Tensor) -> Tensor:
    """The attention of each instance of one bag: `[K, C, H, W] -> [K]`, which sums to 1. The network stays as it was.

    Says which instances the network looked at, whatever it decided: it sums to 1 in a negative bag too.
    Errors: ValueError as in `AttentionMIL.explained`, and where the attention comes out as NaN; TypeError for another network.
    Paper: ilse2018attention, Eqs. (8) and (9).
    """
    if not isinstance(net, AttentionMIL):
        raise TypeError(f"only an AttentionMIL has attention, not {type(net).__name__}")
    with torch.inference_mode(False), torch.no_grad(), frozen(net):
        a = net.explained(bag[None])[1][0]  # [K]
    if not a.isfinite().all():
        raise ValueError("the attention holds NaN: look at the bag and at the network's weights")
    return a


def patches(image: Tensor, side: int) -> Tensor:
    """An image cut in squares that do not overlap, a bag: `[C, H, W] -> [K, C, side, side]`, row by row from the top left.

    Where `side` does not divide the image, an equal margin is left out all around, in the middle of which the squares are.
    Errors: ValueError for an image smaller than a square, and for one that is not `[C, H, W]`.
    """
    if image.dim() != 3 or not 1 <= side <= min(image.shape[1:]):
        raise ValueError(
            f"patches of {side} x {side} pixels need an image [C, H, W] of at least that; this one is {list(image.shape)}"
        )
    top, left = (n % side // 2 for n in image.shape[1:])
    squares = image[:, top:, left:].unfold(1, side, side).unfold(2, side, side)  # [C, rows, columns, side, side]
    return squares.flatten(1, 2).transpose(0, 1)  # [K, C, side, side]


def attention_map(net: AttentionMIL, image: Tensor, *, side: int = 28) -> Tensor:
    """Where the network looked in an image that is a bag of patches: `[C, H, W] -> [H, W]`, each pixel its patch's attention.

    side: of a patch, see `patches`; the extractor has to take patches of this size. The map sums to side * side; it is 0 in
    the margin that no patch covers. Errors: ValueError as in `patches` and `attention`. Paper: patil2019amil.
    Deviation: the authors show patch * attention / max(attention); dividing by the largest is left to who shows the map.
    """
    a = attention(net, patches(image, side))  # [K]
    H, W = image.shape[1:]
    spread = a.reshape(H // side, W // side).repeat_interleave(side, 0).repeat_interleave(side, 1)  # [rows*side, columns*side]
    top, left = H % side // 2, W % side // 2
    return F.pad(spread, (left, W % side - left, top, H % side - top))  # [H, W]


def digit_features() -> nn.Sequential:
    """Extractor for handwritten digits of 8 x 8 pixels: `[N, 1, 8, 8] -> [N, 64]`."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 64), nn.ReLU(),
    )  # fmt: skip


def patch_features(channels: int = 3) -> nn.Sequential:
    """The papers' extractor for patches of 28 x 28 pixels: `[N, channels, 28, 28] -> [N, 500]`. Paper: ilse2018attention."""
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(),
    )  # fmt: skip


def trained(gated: bool = False) -> AttentionMIL:
    """The network that we trained on bags of digits, in evaluation mode; how well it does stands in data/models/models.csv."""
    net = AttentionMIL(digit_features(), L=64, gated=gated)
    name = "gated_mil_digits" if gated else "attention_mil_digits"
    load_state(net, read_weights(data_folder() / "models" / f"{name}.safetensors"), f"the weights of {name}")
    return net.eval()
