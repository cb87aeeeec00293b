"""Other ways back through a network: guided backprop, excitation backprop and its contrast, integrated gradients.

`backward_rules` gives chosen operations, wherever a network calls them, another way back through autograd. Guided
backprop is one rule for the ReLU. Excitation backprop starts with probability 1 at a class and hands it down: what a
unit gets, it splits among its inputs in proportion to what they added to it, so that the sum stays 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from helpers.core import Explainer, Score, cam_layer, capture, explainer, frozen, logit, module_of, recorded, resize
from helpers.speed import quick

Rule = Callable[..., Any]  # (operation, *its arguments) -> what the operation puts out, with another way back
Parts = dict[int, list[Tensor]]  # of each input what is positive (1), and what is negative without its sign (-1)
Force = Callable[[int, Parts], Tensor]  # (1 or -1, parts) -> what pushes each output up, or down
Weighted = list[tuple[Tensor, Callable[[int], Tensor]]]  # outputs of convolutions and linear layers, and their forces
NOTHING = 1e-20  # outputs that are pushed less than this hand nothing down

# The operations through which probability goes back as a gradient does: they hand on, choose or move their inputs.
MOVES = {
    "relu", "dropout", "max_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d", "amax", "max", "cat", "concat", "stack",
    "flatten", "unflatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "getitem", "chunk", "split",
    "pad", "clone", "contiguous", "to", "get",
}  # fmt: skip
ACTIVATIONS = ("relu6", "hardtanh", "leaky_relu", "elu", "silu", "gelu", "mish", "hardswish", "tanh")  # they keep the sign
RECTIFIERS = ("relu", "relu6", "hardtanh", "clamp", "clamp_min")
UNGUIDED = {  # activations and gates that are no ReLUs: guided backprop has nothing to say about their way back
    "leaky_relu", "rrelu", "prelu", "elu", "selu", "celu", "silu", "gelu", "mish", "hardswish", "tanh", "hardtanh", "sigmoid",
    "hardsigmoid", "logsigmoid", "softplus", "softsign", "glu",
}  # fmt: skip


# ------------------------------------------------------------------------------------------- rules for the way back


@contextmanager
def backward_rules(net: Any, rules: Mapping[str, Rule], *, native: Collection[str] | None = None) -> Iterator[None]:
    """Inside, forward passes of `net` go back through autograd as `rules` say; no module is touched.

    rules: name of an operation -> what is called in its place. The name is torch's without underscores, so that "relu" is
    nn.ReLU, F.relu, x.relu() and x.relu_() alike, and "add" is also `+` and `+=`. native: the operations that keep their own
    gradient, by default all others. Errors: ValueError for any other operation on the way, and where a rule gives
    NotImplemented, naming the operation and its layer.
    """
    path = [""]  # the modules that are at work, outermost first

    class Rules(TorchFunctionMode):
        def __torch_function__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name, settings = operation.__name__.strip("_"), kwargs or {}
            followed = wants_gradient((*args, *settings.values()))
            out = (rules[name] if followed and name in rules else plain)(operation, *args, **settings)
            unknown = native is not None and name not in {*native, *rules}
            if out is NotImplemented or followed and unknown and wants_gradient(out):
                raise ValueError(f"there is no rule for the way back through the operation {name!r}, in layer {path[-1]!r}")
            return out

    def leave(*_: Any) -> None:
        path.pop()

    with ExitStack() as hooks:
        for name, module in module_of(net).named_modules():
            hooks.callback(module.register_forward_pre_hook(lambda _m, _i, name=name: path.append(name)).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        hooks.enter_context(Rules())
        yield


def plain(operation: Any, *args: Any, **settings: Any) -> Any:
    """The rule that changes nothing."""
    return operation(*args, **settings)


def wants_gradient(x: Any) -> bool:
    """Whether it is a tensor that autograd follows, or holds one."""
    return any(map(wants_gradient, x)) if isinstance(x, (tuple, list)) else isinstance(x, Tensor) and x.requires_grad


class WayBack(torch.autograd.Function):
    """The value of `compute()`; on the way back, `back(gradient, inputs)` gives one gradient for each of the inputs."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[[], Tensor], back: Any, *inputs: Tensor) -> Tensor:
        ctx.back = back
        ctx.save_for_backward(*inputs)
        return compute()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, *ctx.back(gradient, ctx.saved_tensors)


# -------------------------------------------------------------------------------------------------- guided backprop


def guided_gradient(net: Any, image: Tensor, target: int, *, score: Score = logit) -> Tensor:
    """Gradient `[3, H, W]` of the score with respect to the image, cut off below zero at every ReLU: the picture usually shown.

    Errors: ValueError for a network without ReLU, and for one with other activations or gates, such as GELU, SiLU, hardswish
    or a sigmoid on the way, which are named: through them the gradient would go as ever, and only the name would be guided.
    """
    met: set[str] = set()
    others: set[str] = set()

    def guided(operation: Any, *args: Any, **settings: Any) -> Tensor:
        y, name = operation(*args, **settings), operation.__name__.strip("_")
        if name in RECTIFIERS and not (y < 0).any():  # a clamp at another value is no ReLU
            met.add(name)
            y.register_hook(torch.relu)  # R^l = (f > 0) (R > 0) R: autograd itself does the first bracket
        elif name in UNGUIDED:
            others.add(name)
        return y

    pixels = image.detach().clone().requires_grad_()
    with frozen(net), torch.enable_grad():
        with backward_rules(net, dict.fromkeys((*RECTIFIERS, *UNGUIDED), guided)):
            logits = net(pixels[None].clone())
        if others or not met:
            found = f"has {', '.join(sorted(others))}, which would let the plain gradient through" if others else "has none"
            raise ValueError(f"guided backprop changes the way back through ReLUs, and this network {found}: use another method")
        return torch.autograd.grad(score(logits, target).sum(), pixels)[0]


@explainer
def guided_backprop(net: Any, image: Tensor, target: int, *, score: Score = logit) -> Tensor:
    """Guided backprop: a gradient for which every ReLU lets only positive values back. Sharp, and nearly blind to the class.

    The three channels become one by their strongest absolute value; `guided_gradient` gives them as they are. ReLU6 and
    other ReLUs with a ceiling count. Returns: map `[H, W]`, not negative. Errors: those of `guided_gradient`.
    Paper: springenberg2015guided; the channels: simonyan2014saliency, Section 3.
    """
    return guided_gradient(net, image, target, score=score).abs().amax(0)  # [H, W]


@explainer
def guided_grad_cam(net: Any, image: Tensor, target: int, *, coarse: Explainer | Tensor, score: Score = logit) -> Tensor:
    """Guided Grad-CAM: guided backprop, multiplied pixel by pixel with a class activation map, which knows the class.

    coarse: the explainer that gives the map, such as `cam.grad_cam`, or a map `[h, w]` of any size; only what is positive
    counts. Returns: map `[H, W]`, not negative. Errors: those of `guided_gradient`.
    Paper: selvaraju2017gradcam (Guided Grad-CAM); tamboli2021survey, Section II-D.
    """
    guided = guided_gradient(net, image, target, score=score)  # [3, H, W]
    heat = coarse.to(image) if isinstance(coarse, Tensor) else coarse(net, image, target)
    return (guided * resize(heat, image.shape[-2:]).relu()).abs().amax(0)


def per_class(net: Any, image: Tensor, explain: Explainer, *, threshold: float = 0.5) -> dict[Any, Tensor]:
    """A map `[H, W]` for each class that a multi-label network sees: class -> map, likeliest first.

    A class is seen when the sigmoid of its logit exceeds `threshold`. It is called by its name where `net` is a Classifier,
    else by its index. Errors: ValueError for a Classifier whose classes exclude each other.
    Paper: tamboli2021survey, Section III.
    """
    if not getattr(net, "multi_label", True):
        raise ValueError(f"{net.name} is not multi-label: its probabilities are a softmax, a sigmoid of each means nothing")
    with frozen(net), torch.no_grad():
        p = net(image[None])[0].sigmoid()  # [K]
    seen = [int(k) for k in p.argsort(descending=True) if p[k] > threshold]
    names = getattr(net, "classes", range(len(p)))
    return {names[k]: explain(net, image, k) for k in seen}


# ---------------------------------------------------------------------------------------------- excitation backprop


@explainer
def excitation_backprop(net: Any, image: Tensor, target: int, *, layer: str | None = None) -> Tensor:
    """Excitation backprop: the probability that a unit is a winner, when each unit picks one among the inputs that excite it.

    layer: where the map is read, by default the last but one of `net.level_layers` (pool4 of VGG16, layer3 of a ResNet).
    Returns: map `[H, W]`, not negative; before it is resized it adds up to 1. Errors: ValueError naming an operation that
    has no rule, such as attention or a gate that multiplies. Paper: zhang2018excitation (the rule of excitation backprop).
    Deviation: see `winning_probability`.
    """
    p = winning_probability(net, image, target, middle_layer(net, layer))  # [C, h, w]
    return resize(p.sum(0), image.shape[-2:])


@explainer
def contrastive_excitation_backprop(net: Any, image: Tensor, target: int, *, layer: str | None = None) -> Tensor:
    """Contrastive excitation backprop: the winners for the class less the winners against it.

    Against it is the dual class, whose weights in the classifier are the negated ones; where the classifier is a convolution
    before a mean, it picks its own positions. layer: see `excitation_backprop`.
    Returns: map `[H, W]`, what is positive of a map that adds up to 0. Errors: as `excitation_backprop`.
    Paper: zhang2018excitation (contrastive attention); szandala2021gradual, Section II.
    Deviation: there is no layer of contrast to choose: the rules are linear in p, so that the difference is the same
    wherever below the classifier it is taken.
    """
    p = winning_probability(net, image, target, middle_layer(net, layer), contrast=True)  # [C, h, w]
    return resize(p.sum(0).relu(), image.shape[-2:])


def middle_layer(net: Any, layer: str | None) -> str:
    """`layer`, or the level before the deepest, or where a network has one level only, the layer for class activation maps."""
    levels: Sequence[str] = getattr(net, "level_layers", ())
    return levels[-2] if layer is None and len(levels) > 1 else cam_layer(net, layer)


def winning_probability(net: Any, image: Tensor, target: int, layer: str, *, contrast: bool = False) -> Tensor:
    """Probability `[C, h, w]` of each unit of `layer` to be a winner; with contrast, less that for the negated class.

    It adds up to 1, with contrast to 0, as long as every unit on the way has an input that excites it: what a unit has from
    its bias alone is lost (nothing in VGG16, ResNets and SqueezeNet, most of it in the depthwise convolutions of
    EfficientNet-Lite). Paper: zhang2018excitation: p_j = x_j sum_i W+_ij p_i / sum_k W+_ik x_k.
    Deviation: the paper asks for inputs that are not negative. Here a negative input excites through a negative weight, and
    what a negative output wins goes to what made it negative; without negative inputs that is the paper's rule. Batch
    normalisation counts as part of the convolution before it: where its scale is negative, it turns the weights' sign.
    """
    weighted: Weighted = []
    with frozen(net), torch.enable_grad():
        with backward_rules(net, excitation_rules(weighted), native=MOVES), capture(net, [layer]) as seen:
            logits = net(image[None])
        x = recorded(seen, layer)  # [1, C, h, w]
        if not weighted:
            raise ValueError(f"excitation backprop starts at a classifier, and there is none behind layer {layer!r}")
        y, push = weighted[-1]  # the classifier's
        start = torch.zeros_like(logits)
        start[0, target] = 1
        (r,) = torch.autograd.grad(logits, y, start, retain_graph=True)  # [1, K], or [1, K, h, w] before a mean
        starts = [r, -dual(r, push(-1))] if contrast else [r]
        p = [torch.autograd.grad(y, x, r, retain_graph=True)[0].abs().squeeze(0) for r in starts]  # [C, h, w] each
    return p[0] - p[1] if contrast else p[0]


def dual(r: Tensor, down: Tensor) -> Tensor:
    """What the negated class wins at the classifier's outputs: at each position what it is pushed there, in all as much as r.

    r: signed probabilities of the class; down: what pushes the outputs down, both `[1, K]` or `[1, K, h, w]`.
    """
    won, force = r.reshape(*r.shape[:2], -1).sum(2, keepdim=True), down.reshape(*r.shape[:2], -1)  # [1, K, 1], [1, K, n]
    total = force.sum(2, keepdim=True)
    return torch.where(total > NOTHING, won * force / total, 0).reshape(r.shape)


def excitation_rules(weighted: Weighted) -> dict[str, Rule]:
    """The rules of excitation backprop; `weighted` is filled with what the operations with weights put out, and what pushed it.

    What goes back is the probability, with the sign of what it explains: positive where a unit won because its value was
    high, negative where because it was low.
    """

    def weigh(operation: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **settings: Any) -> Tensor:
        def force(s: int, parts: Parts) -> Tensor:
            signs = [t for t in parts if t == s or parts[t][0].any()]  # seldom both
            pushes = [operation(parts[t][0], (s * t * weight).relu(), None, *args, **settings) for t in signs]
            return sum(pushes[1:], pushes[0])

        y = split(lambda: operation(input, weight, bias, *args, **settings), force, input)
        weighted.append((y, lambda s: force(s, {t: [(t * input.detach()).relu()] for t in (1, -1)})))
        return y.clone()  # what follows may be in place

    def average(operation: Any, input: Tensor, *args: Any, **settings: Any) -> Tensor:
        return split(lambda: operation(input, *args, **settings), lambda s, parts: operation(*parts[s], *args, **settings), input)

    def add(operation: Any, input: Tensor, other: Any, **settings: Any) -> Tensor:
        if not isinstance(other, Tensor):  # a bias
            return keep(operation, input, other, **settings)
        alpha = settings.get("alpha", 1)
        in_place = operation.__name__ in ("add_", "__iadd__")
        before = input.clone() if in_place else input
        y = split(lambda: before + alpha * other, lambda s, parts: parts[s][0] + alpha * parts[s][1], before, other)
        return input.copy_(y) if in_place else y

    def keep(operation: Any, input: Tensor, *args: Any, **settings: Any) -> Tensor:
        with torch.no_grad():
            y = operation(input, *args, **settings)
        return input if y is input else WayBack.apply(lambda: y, lambda r, _: [r], input)

    def batch_norm(
        operation: Any, input: Tensor, mean: Any, variance: Any, weight: Any = None, bias: Any = None, training: bool = False,
        *args: Any, **settings: Any,
    ) -> Tensor:  # fmt: skip
        if training or origin(input) not in [None, *(y.grad_fn for y, _ in weighted)]:  # not part of a convolution
            return NotImplemented
        sign = torch.ones_like(mean) if weight is None else weight.sign()  # [C]
        back = lambda r, _: [r * sign.reshape(-1, *[1] * (r.dim() - 2))]  # noqa: E731
        return WayBack.apply(lambda: operation(input, mean, variance, weight, bias, training, *args, **settings), back, input)

    rules: dict[str, Rule] = {"conv2d": weigh, "linear": weigh, "add": add, "radd": add, "batch_norm": batch_norm}
    averages: dict[str, Rule] = dict.fromkeys(("mean", "sum", "avg_pool2d", "adaptive_avg_pool2d"), average)
    return rules | averages | dict.fromkeys(ACTIVATIONS, keep)


def split(compute: Callable[[], Tensor], force: Force, *inputs: Tensor) -> Tensor:
    """The value of `compute()`, whose inputs get back what `shares` gives them."""
    return WayBack.apply(compute, lambda r, xs: shares(r, xs, force), *inputs)


def shares(r: Tensor, inputs: Sequence[Tensor], force: Force) -> list[Tensor]:
    """What each input gets of r, signed probabilities of the outputs: as much as it pushed, each output's in all.

    Returns: one tensor for each input, in its shape, with the input's sign.
    """
    given = [torch.zeros_like(x) for x in inputs]
    for s in (1, -1):
        p = (s * r).relu()
        if p.any():
            with torch.enable_grad():
                parts = {t: [(t * x.detach()).relu().requires_grad_() for x in inputs] for t in (1, -1)}
                z = force(s, parts)  # sum_k W+_ik x_k
            rate = torch.where(z > NOTHING, p / z, 0)
            slopes = torch.autograd.grad(z, [*parts[1], *parts[-1]], rate, materialize_grads=True)  # sum_i W+_ij p_i / z_i
            for k, (high, low) in enumerate(zip(*parts.values(), strict=True)):
                given[k] += high.detach() * slopes[k] - low.detach() * slopes[k + len(inputs)]
    return given


def origin(x: Tensor) -> Any:
    """What a tensor was computed by, copies aside; None where the way back ends."""
    node = x.grad_fn
    while node is not None and node.name() == "CloneBackward0":
        node = node.next_functions[0][0]
    return None if node is None or node.name().endswith("AccumulateGrad") else node


# --------------------------------------------------------------------------------------------- integrated gradients


@explainer
def integrated_gradients(
    net: Any, image: Tensor, target: int, *, baseline: Tensor | float = 0.0, steps: int = 50, batch_size: int = 8,
    score: Score = logit,
) -> Tensor:  # fmt: skip
    """Integrated gradients: the gradient along the straight way from a baseline to the image, times how far each pixel went.

    baseline: an image `[3, H, W]` or a number for all of it, 0 is the mean colour; steps: points on the way, at which
    Gauss and Legendre would integrate; batch_size: how many at once. The three channels are added up.
    Returns: map `[H, W]`, signed; its sum is score(image) - score(baseline), the nearer the more steps.
    Paper: sundararajan2017integrated, Eq. (1); computed by captum.
    """
    if batch_size < 1 or steps < 1:
        raise ValueError(f"batch_size is {batch_size} and steps {steps}; expected at least 1")
    from captum.attr import IntegratedGradients  # takes long to import

    start = torch.as_tensor(baseline, dtype=image.dtype, device=image.device).expand(image.shape)
    with quick(net, fold=steps >= 8) as logits_of, torch.enable_grad():
        method = IntegratedGradients(lambda images: score(logits_of(images), target), multiply_by_inputs=True)
        parts = method.attribute(image[None].clone(), start[None], n_steps=steps, internal_batch_size=batch_size)  # [1, 3, H, W]
    return parts[0].sum(0)  # Eq. (1)
