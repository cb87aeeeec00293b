"""Layer selection by the difference of two networks: which layer's features hold the evidence, and how training changes them.

A network is trained a little on one image, so that it grows surer of the class; what changes in its features is the
evidence. theta_0 are the weights as they are, theta_N those after N steps; A_l `[C, h, w]` are the features of layer l.
The weights that the reader holds are never written to: the passes with others go through `torch.func.functional_call`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.core import (
    Score,
    cam_layer,
    capture,
    checked_image,
    checked_logits,
    checked_target,
    explainer,
    frozen,
    layer_names,
    module_of,
    probability,
    recorded,
    resize,
    to_unit,
)
from helpers.masks import FeatureMasks, keep_top, masked_logits

Theta = dict[str, Tensor]  # the parameters of a network by name
Features = Callable[[Any, Tensor, int, Sequence[str]], dict[str, Tensor]]  # net, image, target, layers -> layer -> [C, h, w]


class Selection(NamedTuple):
    """What the selection saw: L layers, their maps D_l `[L, H, W]`, their scores W_l `[L]`, and the layer with the highest."""

    layers: tuple[str, ...]
    maps: Tensor
    scores: Tensor
    chosen: str


# ------------------------------------------------------------------------------------------- features and what changes them


def log_odds(logits: Tensor, target: int) -> Tensor:
    """log p/(1-p): `[N, K] -> [N]`. Its gradient is that of log p without the factor 1-p, which is nearly 0 in a sure network.

    p is the softmax probability: it also rises where the other classes fall. In a multi-label network, whose classes do not
    exclude each other, that would count as evidence what speaks against others in the picture: take `core.logit` there.
    """
    others = torch.cat([logits[:, :target], logits[:, target + 1 :]], 1)  # [N, K-1]
    return logits[:, target] - others.logsumexp(1)


def activations(net: Any, image: Tensor, target: int, layers: Sequence[str]) -> dict[str, Tensor]:
    """A_l(theta_0) `[C, h, w]` of each layer, whatever the target: the method "without difference"."""
    return features_at(net, None, image, layers)


def differences(
    net: Any, image: Tensor, target: int, layers: Sequence[str], *, steps: int = 10, lr: float = 1e-4,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD, relative: bool = True, objective: Score = log_odds,
) -> dict[str, Tensor]:  # fmt: skip
    """d_l = A_l(theta_N) - A_l(theta_0), `[C, h, w]` for each layer: what training on this one image changes. Signed.

    steps, lr, optimizer: N steps of `optimizer(parameters, lr=lr, maximize=True)` on all weights, batch norm's statistics
    and dropout as when predicting; relative: each gradient is first made as long as all weights together, so that a step
    of SGD moves them by the fraction lr however large or small the gradient is (where it is 0 there is no step);
    objective: what is raised; the log odds point where log p does. In a multi-label network pass `objective=logit`: log odds
    of a softmax rise by lowering the other classes that are present. Errors: ValueError for less than one step.
    Paper: sannomiya2024layer, Sec. 3. Deviation: it names no objective, optimizer, lr or N. With `relative=False` and
    `objective=core.log_probability`, cross entropy, nothing but rounding is left where the network is already sure.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1: without training nothing changes")
    before = features_at(net, None, image, layers)
    theta = {name: p.detach().clone().requires_grad_() for name, p in module_of(net).named_parameters()}
    rule = optimizer(list(theta.values()), lr=lr, maximize=True)
    for _ in range(steps):
        g = gradient(net, theta, image, target, objective)
        shrink, stretch = (length(g), length(theta)) if relative else (1.0, 1.0)
        for name, p in theta.items():
            p.grad = g[name] / shrink * stretch if shrink else torch.zeros_like(p)
        rule.step()
    after = features_at(net, theta, image, layers)
    return {layer: after[layer] - before[layer] for layer in layers}


def linear_differences(
    net: Any, image: Tensor, target: int, layers: Sequence[str], *, objective: Score = log_odds
) -> dict[str, Tensor]:
    """d_l / (N lr) of `differences` as lr goes to 0: J_l g, the change of A_l along the gradient g of the objective.

    One forward pass that carries derivatives with it (forward mode): no step to choose, no rounding of nearly equal numbers.
    objective: the log odds point where log p does, also in a network so sure that the gradient of log p is rounded away; in a
    multi-label network pass `objective=logit`, see `differences`.
    Returns: layer -> `[C, h, w]`. Deviation: ours; sannomiya2024layer trains for steps of a length that it does not state.
    """
    theta = {name: p.detach().clone().requires_grad_() for name, p in module_of(net).named_parameters()}
    g = gradient(net, theta, image, target, objective)
    with forward_mode():
        dual = {name: forward_ad.make_dual(p.detach(), g[name]) for name, p in theta.items()}
        tangents = {layer: forward_ad.unpack_dual(A) for layer, A in features_at(net, dual, image, layers).items()}
        return {layer: torch.zeros_like(A) if t is None else t.clone() for layer, (A, t) in tangents.items()}


def features_at(net: Any, theta: Theta | None, image: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Features `[C, h, w]` of each layer, in one forward pass with the weights theta (None: the network's own), no gradients."""
    with frozen(net), torch.no_grad(), capture(net, layers) as seen:
        logits_at(net, theta, image)
    return {layer: recorded(seen, layer)[0] for layer in layers}


def gradient(net: Any, theta: Theta, image: Tensor, target: int, objective: Score) -> Theta:
    """The gradient of the objective with respect to the weights, at theta; 0 for those that have no part in it."""
    with frozen(net), torch.enable_grad():
        y = objective(logits_at(net, theta, image), target)  # [1]
        return dict(zip(theta, torch.autograd.grad(y.sum(), list(theta.values()), materialize_grads=True), strict=True))


def logits_at(net: Any, theta: Theta | None, image: Tensor) -> Tensor:
    """Logits `[1, K]` with the weights theta in the place of the network's own, which come back whatever happens."""
    module = module_of(net)
    if theta is None:
        return module(image[None])
    new = {id(p): theta[name] for name, p in module.named_parameters()}
    # Each module once and every place of a shared weight by name: functional_call's own way of tying the weights
    # leaves the new ones behind where one module stands in two places.
    own = [m.named_parameters(at, recurse=False, remove_duplicate=False) for at, m in module.named_modules()]
    placed = {name: new[id(p)] for parameters in own for name, p in parameters}
    return functional_call(module, placed, (image[None],), tie_weights=False)


@contextmanager
def forward_mode() -> Iterator[None]:
    """Forward-mode derivatives; attention goes step by step, for torch's fast kernels carry none."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, when it loads its rules for forward mode
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def length(theta: Theta) -> Tensor:
    """Euclidean length of all weights together."""
    return torch.stack([p.detach().norm() for p in theta.values()]).norm()


# ----------------------------------------------------------------------------------------------------- which layer to show


@dataclass(frozen=True)
class TopMasks:
    """Of each map `[L, H, W]` the mask of its highest pixels, made when it is asked for: `masks[i:j]` is `[j-i, H, W]`."""

    maps: Tensor
    fraction: float

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, chunk: slice) -> Tensor:
        return torch.stack([keep_top(D_l, self.fraction) for D_l in self.maps[chunk]])


def layer_scores(
    net: Any, image: Tensor, target: int | None = None, *, layers: Sequence[str] | None = None, features: Features = differences,
    keep: float = 0.5, score: Score = probability, fill: Tensor | float = 0.0, batch_size: int = 8, progress: bool = False,
) -> Selection:  # fmt: skip
    """Everything that `layer_selection` looks at, for teaching: all maps D_l, all scores W_l, the chosen layer.

    layers: from shallow to deep, all that the Classifier calls selectable by default; features: what is summed over the
    channels, `differences` (with settings bound by `partial`), `linear_differences` or `activations`; keep: the fraction of
    the pixels, the highest of D_l, through which the image is scored. Where layers score alike the deepest is chosen.
    In a multi-label network: `score=core.sigmoid` and `features=partial(differences, objective=core.logit)`.
    Errors: ValueError for no layers, where nothing changes at any of them, and where a score is NaN or infinite.
    Paper: sannomiya2024layer, Eq. (7). With a probability as score W_l lies between 0 and 2.
    """
    names = layer_names(net, layers, "selectable_layers")
    with torch.inference_mode(False), frozen(net):
        image = checked_image(net, image)
        logits = checked_logits(net, image)
        target = checked_target(logits, target)
        d = features(net, image, target, names)
        D = torch.stack([resize(d[layer].sum(0), image.shape[-2:]) for layer in names]).detach()  # [L, H, W]
        del d  # all channels of all layers: far more than their maps
        if not D.any():
            raise ValueError(f"nothing changes at any of the {len(names)} layers: all their maps are 0, and none is to be chosen")
        kept = TopMasks(D, keep)  # [L, H, W]
        Y_l = score(masked_logits(net, image, kept, fill=fill, batch_size=batch_size, progress=progress), target)  # [L]
        W = 1 + (Y_l - score(logits[None], target))  # Eq. (7): [L]
    if not W.isfinite().all():
        bad = names[int((~W.isfinite()).nonzero()[0])]
        raise ValueError(f"layer_selection: the image seen through the map of {bad!r} has a score with NaN or infinity")
    return Selection(names, D, W, names[int((W == W.max()).nonzero()[-1])])


@explainer
def layer_selection(
    net: Any, image: Tensor, target: int, *, layers: Sequence[str] | None = None, features: Features = differences,
    keep: float = 0.5, score: Score = probability, fill: Tensor | float = 0.0, batch_size: int = 8, progress: bool = False,
) -> Tensor:  # fmt: skip
    """Layer selection: of all layers, the map of the one whose upper half, laid over the image, keeps the class most likely.

    Settings: those of `layer_scores`. `features=activations` is the method without the difference.
    Returns: map `[H, W]`, D_l of the chosen layer, signed, as it is. Paper: sannomiya2024layer, Sec. 3 and Eq. (7).
    """
    settings: dict[str, Any] = {"fill": fill, "batch_size": batch_size, "progress": progress}
    seen = layer_scores(net, image, target, layers=layers, features=features, keep=keep, score=score, **settings)
    return seen.maps[seen.layers.index(seen.chosen)]


@explainer
def score_cam_difference(
    net: Any, image: Tensor, target: int, *, layer: str | None = None, features: Features = differences,
    score: Score = probability, normalise: Callable[[Tensor], Tensor] | None = None, fill: Tensor | float = 0.0,
    batch_size: int = 8, progress: bool = False,
) -> Tensor:  # fmt: skip
    """Score-CAM with difference: the channels d^k of one layer, what training changes, take the place of its features A^k.

    features: as in `layer_scores`; with `activations` this is Score-CAM. The other settings are those of Score-CAM; the
    paper's weights are `normalise=partial(torch.softmax, dim=0)`. Channels that are constant are left out.
    Returns: map `[H, W]`, not negative. Errors: ValueError where nothing changes.
    Paper: sannomiya2024layer, Table 2 and Eqs. (3) to (6). Deviation: by default, as in `score_cam` and the code of its authors,
    without the f(x) that Eq. (4) subtracts and the softmax of Eq. (5). With the softmax that constant cancels; without it, most
    weights would be negative and the map blank. The softmax of probabilities is nearly flat: it is close to the mean channel.
    """
    chosen = cam_layer(net, layer)
    d = features(net, image, target, [chosen])[chosen]  # [C, h, w]
    changing = d[d.amin((1, 2)) != d.amax((1, 2))]
    if not len(changing):
        raise ValueError(f"all {len(d)} differences at layer {chosen!r} are constant: there is nothing to mask with")
    H = FeatureMasks(changing, (image.shape[1], image.shape[2]), to_unit)  # Eq. (3): [C, H, W]
    weights = score(masked_logits(net, image, H, fill=fill, batch_size=batch_size, progress=progress), target)  # Eq. (4): [C]
    weights = weights if normalise is None else normalise(weights)  # Eq. (5)
    return resize(torch.einsum("c,chw->hw", weights, changing), image.shape[-2:]).relu()  # Eq. (6)
