"""How fast, against whom: our methods beside other libraries and beside the floor, taking turns in one process.

    python book/bench.py                                                # all of it: about twenty minutes on one thread
    python book/bench.py --nets resnet18 --works Score-CAM RISE --rounds 5
    python book/bench.py --full --device cuda                           # all channels, the papers' sizes

A *work* is one explanation or one curve, a *contender* is who does it. All contenders of a work get the same network, picture,
class and masks; how well their results agree with ours stands in the table. In each round every contender runs once, A B C A B
C …; a ratio is taken within a round, and the table has the median and the range over the rounds. The *floor* of a work is the
time of as many plain forward passes: batch norms folded, channels last, inference mode, the fastest batch, nothing of ours.
Rows go into data/results/bench.csv; a run replaces the rows that it measured anew and leaves the others.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

os.environ["TQDM_DISABLE"] = "1"  # pytorch-grad-cam shows a bar for each map

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from scipy.stats import pearsonr, spearmanr  # noqa: E402
from torch import Tensor, nn  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from helpers import backprop, cam, data, evaluation, masks, metrics, models, sampling, score_cam, speed, store  # noqa: E402
from helpers.core import logit, resize  # noqa: E402

OUT = ROOT / "data" / "results" / "bench.csv"
COLUMNS = (
    "work network contender settings forwards seconds low high ratio_to_ours ratio_low ratio_high floor_seconds ratio_to_floor "
    "peak_bytes plain_bytes agreement rounds threads device date commit versions"
).split()
KEY = ["work", "network", "contender", "settings"]
BATCH = 8  # ours by default, and the better one for the others too on a CPU


# ------------------------------------------------------------------------------------------------ networks and sizes


@dataclass(frozen=True)
class Sizes:
    """masks: of Score-CAM and RISE, 0 for all channels and RISE's 4,000; windows: of occlusion along one side; points: on the
    way of integrated gradients; steps: of a curve."""

    masks: int
    windows: int
    points: int
    steps: int


FULL = Sizes(masks=0, windows=14, points=50, steps=224)
SIZES = {  # the slower a forward pass, the fewer: time goes up in proportion to them
    "efficientnet_lite0": Sizes(64, 4, 16, 14),
    "resnet18": Sizes(64, 4, 16, 14),
    "resnet50": Sizes(64, 4, 8, 7),
    "vgg16": Sizes(16, 4, 4, 7),
}
NETS = tuple(SIZES)


class Probed(nn.Module):
    """A network cut at its last features; a side branch, `probe`, puts some of their channels out for Score-CAM to look at.

    So all libraries mask with the same few feature maps; what they cost in time is in proportion to how many there are.
    """

    def __init__(self, features: nn.Module, head: nn.Module):
        super().__init__()
        self.features, self.head, self.probe = features, head, nn.Identity()
        self.register_buffer("channels", torch.arange(1))

    def forward(self, x: Tensor) -> Tensor:
        A = self.features(x)  # [N, C, h, w]
        self.probe(A[:, self.channels])
        return self.head(A)  # [N, K]


def cut(module: nn.Module) -> Probed:
    """A ResNet, VGG or EfficientNet-Lite, cut where Grad-CAM looks."""
    parts = dict(module.named_children())
    if "layer4" in parts:
        return Probed(nn.Sequential(*list(parts.values())[:-2]), nn.Sequential(parts["avgpool"], nn.Flatten(), parts["fc"]))
    if "head_relu" in parts:
        return Probed(nn.Sequential(*list(parts.values())[:-2]), nn.Sequential(parts["pool"], nn.Flatten(), parts["classifier"]))
    convolutions, pool = parts["features"][:-1], parts["features"][-1]
    return Probed(convolutions, nn.Sequential(pool, parts["avgpool"], nn.Flatten(), parts["classifier"]))


def calibrated(module: nn.Module, side: int) -> nn.Module:
    """Batch norms that know the mean and variance of what random weights put out: else a deep network's logits explode."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return module.eval()
    for m in norms:
        m.momentum = None  # the mean over all batches that it sees
    with torch.no_grad():
        module.train()(torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(0)))
    return module.eval()


@dataclass(frozen=True)
class Case:
    """One network, one picture, one class, and how much to do. fast, batch: the floor's network and batch, see `plain`."""

    net: models.Classifier
    image: Tensor
    target: int
    sizes: Sizes
    fast: nn.Module
    batch: int

    @property
    def module(self) -> nn.Module:
        return self.net.module


def case_of(net: models.Classifier, image: Tensor, sizes: Sizes) -> Case:
    """A case on a network whose module is `Probed`: the first channels that are not constant on the picture become its probe."""
    with torch.no_grad():
        A = net.module.features(image[None])[0]  # [C, h, w]
        target = int(net(image[None]).argmax())
    alive = (A.amax((1, 2)) > A.amin((1, 2))).nonzero()[:, 0]
    net.module.channels = alive[: sizes.masks or None]
    fast, batch = plain(net.module, image)
    return Case(net, image, target, replace(sizes, masks=len(net.module.channels)) if sizes.masks else sizes, fast, batch)


def imagenet_case(name: str, device: str, full: bool) -> Case:
    """One of NETS on a photograph: EfficientNet-Lite0 with its published weights, the others with random ones."""
    net = models.load(name, weights="published" if name == "efficientnet_lite0" else None)
    module = cut(calibrated(net.module, net.side) if name != "efficientnet_lite0" else net.module)
    net = replace(net, module=module.eval(), cam_layer="features", block_layers=(), level_layers=(), selectable_layers=())
    net = net.to(device)
    return case_of(net, net.preprocess(data.photo("chelsea").picture), FULL if full else SIZES[name])


# --------------------------------------------------------------------------------------------------------- the floor


def folded(module: nn.Module) -> nn.Module:
    """A copy for forward passes alone: batch norms folded into the convolutions before them, channels last."""
    module = copy.deepcopy(module).eval()
    if any(isinstance(m, nn.BatchNorm2d) for m in module.modules()):
        from torch.fx.experimental.optimization import fuse

        module = fuse(module)
    return module.to(memory_format=torch.channels_last)


def plain(module: nn.Module, image: Tensor) -> tuple[nn.Module, int]:
    """The folded network, and the batch at which it takes least time an image."""
    fast, best = folded(module), {}
    for size in (1, 2, 4, 8) if image.device.type == "cpu" else (8, 16, 32, 64, 128, 256):
        best[size] = min(timed(partial(forwards, fast, image, size, size))[0] / size for _ in range(2))
    return fast, min(best, key=lambda size: best[size])


def forwards(fast: nn.Module, image: Tensor, n: int, batch: int) -> None:
    """n plain forward passes, a whole number of batches."""
    x = image.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)  # [b, 3, H, W]
    with torch.inference_mode():
        for _ in range(0, n, batch):
            fast(x)


# ------------------------------------------------------------------------------------------------------ the contenders


@dataclass(frozen=True)
class Contender:
    """Who does a work, and how. run: gives a map `[H, W]` or scores `[N]`; once: too slow for more than one round."""

    name: str
    run: Callable[[], Any]
    settings: str
    once: bool = False


@dataclass(frozen=True)
class Work:
    """Contenders that do the same thing, ours first. forwards: copies of the picture that nobody can do it without; gradients:
    whether it needs a backward pass, in place of a floor; batch: of the plain pass that memory is compared with."""

    name: str
    forwards: int
    contenders: list[Contender] = field(default_factory=list)
    gradients: bool = False
    batch: int = BATCH


def grad_cam_work(case: Case) -> Work:
    given = (case, "features")
    return Work("Grad-CAM", 1, [
        Contender("ours", partial(cam.grad_cam, case.net, case.image, case.target), "defaults"),
        Contender("pytorch-grad-cam", partial(pytorch_grad_cam, "GradCAM", *given), "defaults"),
        Contender("torch-cam", partial(torch_cam_gradient, *given), "defaults"),
        Contender("captum", partial(captum_grad_cam, case), "defaults"),
    ], gradients=True, batch=1)  # fmt: skip


def score_cam_work(case: Case) -> Work:
    """All with the logit as score and the softmax over channels as weights, as the other libraries have them."""
    n, given = len(case.module.channels), (case, "probe")
    ask = partial(score_cam.score_cam, layer="probe", score=logit, normalise=partial(torch.softmax, dim=0))
    return Work("Score-CAM", n + 1, [
        Contender("ours", lambda: ask(case.net, case.image, case.target), f"{n} masks, batch 8"),
        *in_half(case, n, lambda net: ask(net, case.image, case.target)),
        Contender("ours, five classes", partial(five_classes, case, ask), f"{n} masks, batch 8, masks.shared()"),
        Contender("pytorch-grad-cam", partial(pytorch_grad_cam, "ScoreCAM", *given), f"{n} masks, batch 16 (default)"),
        Contender("pytorch-grad-cam, batch 8", partial(pytorch_grad_cam, "ScoreCAM", *given, 8), f"{n} masks, batch 8"),
        Contender("torch-cam", partial(torch_cam_scores, *given, 32), f"{n} masks, batch 32 (default)"),
        Contender("torch-cam, batch 8", partial(torch_cam_scores, *given, 8), f"{n} masks, batch 8"),
    ])  # fmt: skip


def rise_work(case: Case) -> Work:
    n = case.sizes.masks or 4000
    return Work("RISE", n, [
        Contender("ours", partial(sampling.rise, case.net, case.image, case.target, samples=n), f"{n} masks, batch 8"),
        Contender("straightforward loop", partial(rise_loop, case, n, 32), f"{n} masks, batch 32"),
        Contender("straightforward loop, batch 8", partial(rise_loop, case, n, 8), f"{n} masks, batch 8"),
    ])  # fmt: skip


def occlusion_work(case: Case) -> Work:
    side = case.image.shape[-1] // case.sizes.windows  # windows that do not overlap
    n, said = case.sizes.windows**2, f"{case.sizes.windows**2} windows, "
    ask = partial(sampling.occlusion, window=side, stride=side, score=logit)
    return Work("occlusion", n + 1, [
        Contender("ours", lambda: ask(case.net, case.image, case.target), said + "batch 8"),
        Contender("captum", partial(captum_occlusion, case, side, 1), said + "one by one (default)"),
        Contender("captum, batch 8", partial(captum_occlusion, case, side, 8), said + "perturbations_per_eval 8"),
        Contender("captum, batch 32", partial(captum_occlusion, case, side, 32), said + "perturbations_per_eval 32"),
    ])  # fmt: skip


def integrated_gradients_work(case: Case) -> Work:
    n = case.sizes.points
    ask = partial(backprop.integrated_gradients, case.net, case.image, case.target, steps=n)
    return Work("integrated gradients", n, [
        Contender("ours", ask, f"{n} points, batch 8"),
        Contender("captum", partial(captum_integrated, case, None), f"{n} points, all at once (default)"),
        Contender("captum, batch 8", partial(captum_integrated, case, 8), f"{n} points, internal_batch_size 8"),
    ], gradients=True)  # fmt: skip


def curve_work(name: str, case: Case) -> Work:
    ours = {"insertion": metrics.insertion_curve, "deletion": metrics.deletion_curve}[name]
    saliency, n = cam.grad_cam(case.net, case.image, case.target), case.sizes.steps
    return Work(name, n + 1, [
        Contender("ours", lambda: ours(case.net, case.image, case.target, saliency, steps=n)[1], f"{n} steps, batch 8"),
        Contender("straightforward loop", partial(curve_loop, name, case, saliency, 32), f"{n} steps, batch 32"),
        Contender("straightforward loop, batch 8", partial(curve_loop, name, case, saliency, 8), f"{n} steps, batch 8"),
    ])  # fmt: skip


WORKS: dict[str, Callable[[Case], Work]] = {
    "Grad-CAM": grad_cam_work,
    "Score-CAM": score_cam_work,
    "RISE": rise_work,
    "occlusion": occlusion_work,
    "integrated gradients": integrated_gradients_work,
    "insertion": partial(curve_work, "insertion"),
    "deletion": partial(curve_work, "deletion"),
}


IN_HALF = "ours, bfloat16"


def in_half(case: Case, n: int, run: Callable[[models.Classifier], Tensor]) -> list[Contender]:
    """Ours with masked copies in bfloat16, if they are so many that the engine takes it.

    Without units for it a CPU is many times slower: once is enough to see whether the map stays the same.
    """
    if n < masks.MANY:
        return []
    said = f"{n} masks, batch 8" + ("" if units(case.image.device) else ", no bfloat16 units")
    half = replace(case.net, precision="bfloat16")
    return [Contender(IN_HALF, partial(run, half), said, once=not units(case.image.device))]


def units(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself."""
    return device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def five_classes(case: Case, ask: Callable[..., Tensor]) -> Tensor:
    """The maps of the five likeliest classes from one pass of masked copies; the first choice's is compared."""
    with torch.no_grad():
        top = case.net(case.image[None])[0].topk(5).indices.tolist()
    with masks.shared():
        return [ask(case.net, case.image, target) for target in top][0]


def pytorch_grad_cam(kind: str, case: Case, layer: str, batch: int | None = None) -> Tensor:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(pytorch_grad_cam, kind)(case.module, [case.module.get_submodule(layer)]) as explain:
        if batch is not None:
            explain.batch_size = batch
        return torch.from_numpy(explain(case.image[None], [ClassifierOutputTarget(case.target)])[0])  # [H, W]


def torch_cam_gradient(case: Case, layer: str) -> Tensor:
    from torchcam.methods import GradCAM

    with GradCAM(case.module, layer) as extract:
        return extract(case.target, case.module(case.image[None]))[0][0]  # [h, w]


def torch_cam_scores(case: Case, layer: str, batch: int) -> Tensor:
    from torchcam.methods import ScoreCAM

    with ScoreCAM(case.module, layer, batch_size=batch) as extract:
        with torch.inference_mode():
            case.module(case.image[None])
        return extract(case.target)[0][0]  # [h, w]


def captum_grad_cam(case: Case) -> Tensor:
    from captum.attr import LayerGradCam

    method = LayerGradCam(case.module, case.module.features)
    return method.attribute(case.image[None], target=case.target, relu_attributions=True)[0, 0].detach()  # [h, w]


def captum_occlusion(case: Case, side: int, batch: int) -> Tensor:
    from captum.attr import Occlusion

    square = {"sliding_window_shapes": (3, side, side), "strides": (3, side, side)}
    method = Occlusion(case.module)
    return method.attribute(case.image[None], target=case.target, perturbations_per_eval=batch, **square)[0, 0].detach()  # [H, W]


def captum_integrated(case: Case, batch: int | None) -> Tensor:
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(case.module)
    parts = method.attribute(case.image[None], target=case.target, n_steps=case.sizes.points, internal_batch_size=batch)
    return parts[0].sum(0).detach()  # [H, W]


def rise_loop(case: Case, n: int, batch: int) -> Tensor:
    """RISE as one would write it down: all masks at full size, then batch after batch."""
    size = (case.image.shape[1], case.image.shape[2])
    M = sampling.random_masks(n, 7, 0.5, size, 0, case.image)[0:n]  # [N, H, W]
    with torch.no_grad():
        scores = [case.module(case.image * m[:, None]).softmax(1)[:, case.target] for m in M.split(batch)]
        return torch.einsum("n,nhw->hw", torch.cat(scores), M) / (n * 0.5)


def curve_loop(name: str, case: Case, saliency: Tensor, batch: int) -> Tensor:
    """A curve as its authors describe it: the highest pixels left are exchanged, and each state of the image is kept."""
    start, end = (metrics.blur(case.image), case.image) if name == "insertion" else (case.image, torch.zeros_like(case.image))
    order = saliency.flatten().argsort(descending=True, stable=True)
    edges = [order.numel() * k // case.sizes.steps for k in range(case.sizes.steps + 1)]
    states = [start.clone()]
    for low, high in pairwise(edges):
        state = states[-1].clone()
        state.flatten(1)[:, order[low:high]] = end.flatten(1)[:, order[low:high]]
        states.append(state)
    with torch.no_grad():
        scores = [case.module(x).softmax(1)[:, case.target] for x in torch.stack(states).split(batch)]
    return torch.cat(scores)  # [steps + 1]


# --------------------------------------------------------------------------------------------------- time and memory


def clock() -> float:
    """Seconds. One thread on a CPU: of this process alone, whatever else the machine does."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time() if torch.get_num_threads() == 1 and not torch.cuda.is_available() else time.perf_counter()


def timed(run: Callable[[], Any], now: Callable[[], float] = clock) -> tuple[float, Any]:
    """How long it took, and what it gave."""
    began = now()
    result = run()
    return now() - began, result


def peak(run: Callable[[], Any], device: str = "cpu") -> int:
    """Most bytes alive at once in tensors that `run` made."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    return speed.peak(run)


@contextmanager
def rehearsal(module: nn.Module) -> Iterator[None]:
    """Inside, a network really runs for the first batch of each size, and then repeats itself: the others take no more memory.

    Single pictures always run, so that hooks see what they wait for.
    """
    seen: dict[torch.Size, Tensor] = {}

    def forward(x: Tensor) -> Tensor:
        if len(x) == 1 or x.shape not in seen:
            logits = type(module).forward(module, x)
            seen[x.shape] = logits[:1].detach().clone()
            return logits
        return seen[x.shape].expand(len(x), -1)

    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def plain_pass(case: Case, batch: int, gradients: bool) -> None:
    """A forward pass of a batch of pictures through the network as it is; with gradients, back to the pictures too."""
    with torch.inference_mode(not gradients):
        x = torch.zeros(batch, *case.image.shape, device=case.image.device, requires_grad=gradients)
        logits = case.module(x)
        if gradients:
            torch.autograd.grad(logits.sum(), x)


def agreement(ours: Any, theirs: Any, ranks: bool = False) -> float:
    """Correlation of two maps, a small one enlarged first, or of the scores along two curves; ranks: of the ranks (Spearman).

    Maps of other libraries come on a scale of their own, so that a linear correlation of 1 is all that one can ask.
    """
    a, b = (torch.as_tensor(v).detach().double().cpu() for v in (ours, theirs))
    b = resize(b, a.shape) if a.dim() == 2 and b.shape != a.shape else b
    return float((spearmanr if ranks else pearsonr)(a.flatten(), b.flatten()).statistic)


# ------------------------------------------------------------------------------------------------------------- a table


def measured(case: Case, work: Work, rounds: int) -> pd.DataFrame:
    """A row for each contender of a work. First all rehearse, which warms up and shows their memory; then come the rounds."""
    device = case.image.device.type
    base = peak(partial(plain_pass, case, work.batch, work.gradients), device)
    peaks = {}
    for c in work.contenders:
        if not c.once:
            with nullcontext() if work.gradients else rehearsal(case.module):
                peaks[c.name] = peak(c.run, device)
    n = -(-work.forwards // (3 * case.batch)) * case.batch  # a third of the forward passes tell how long all take
    floor = Contender("floor", partial(forwards, case.fast, case.image, n, case.batch), f"batch {case.batch}")
    runs = ([] if work.gradients else [floor]) + work.contenders
    seconds, results = alternated(runs, rounds)
    ours = work.contenders[0].name
    rows = []
    for c in runs:
        took = [s * work.forwards / n if c is floor else s for s in seconds[c.name]]
        row = {"work": work.name, "network": case.net.name, "contender": c.name, "settings": c.settings}
        row |= {"forwards": work.forwards, "plain_bytes": base, "peak_bytes": peaks.get(c.name)} | spread(took, seconds[ours])
        if not work.gradients:
            plain_seconds = [s * work.forwards / n for s in seconds[floor.name]]
            row |= {"floor_seconds": median(plain_seconds), "ratio_to_floor": spread(took, plain_seconds)["ratio_to_ours"]}
        if c is not floor:
            row |= {"agreement": agreement(results[ours], results[c.name], ranks=c.name == IN_HALF)}
        rows.append(row | circumstances(device))
    return pd.DataFrame(rows, columns=COLUMNS)


def alternated(
    runs: Sequence[Contender], rounds: int, now: Callable[[], float] = clock
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each contender, a number a round, and what it gave; A B C A B C …"""
    seconds: dict[str, list[float]] = {c.name: [] for c in runs}
    results = {}
    for k in range(rounds):
        for c in runs:
            if k == 0 or not c.once:
                took, results[c.name] = timed(c.run, now)
                seconds[c.name].append(took)
    return seconds, results


def spread(took: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """Median and range of the seconds, and of the ratios to the reference within each round."""
    ratios = [a / b for a, b in zip(took, reference, strict=False)]  # one that ran once has one ratio
    return {
        "seconds": median(took), "low": min(took), "high": max(took), "ratio_to_ours": median(ratios),
        "ratio_low": min(ratios), "ratio_high": max(ratios), "rounds": len(took),
    }  # fmt: skip


def circumstances(device: str) -> dict[str, Any]:
    """Where a number comes from."""
    versions = "; ".join(f"{name} {version(name)}" for name in ("torch", "grad-cam", "torchcam", "captum"))
    what = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    without = "" if units(torch.device(device)) else ", no bfloat16 units"
    date, commit = datetime.now(UTC).date().isoformat(), evaluation.commit_of_the_code()
    return {"threads": torch.get_num_threads(), "device": what + without, "date": date, "commit": commit, "versions": versions}


def keep(rows: pd.DataFrame, path: Path) -> None:
    """Put rows into the file in place of those of the same work and network, whole or not at all."""
    rows = rows.astype({"commit": str})
    if path.is_file():
        there = pd.read_csv(path, dtype={"commit": str})
        mine = pd.MultiIndex.from_frame(rows[["work", "network"]])
        rows = pd.concat([there[~pd.MultiIndex.from_frame(there[["work", "network"]]).isin(mine)], rows], ignore_index=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.whole(path) as file:
        rows.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")


# --------------------------------------------------------------------------------------------- how it grows: the curves


def by_masks(case: Case, rounds: int, counts: Sequence[int] = (16, 48, 144)) -> pd.DataFrame:
    """Score-CAM, of one class and of five, against the number of masks.

    From few to many masks the time grows by what a mask costs, without what comes once for a map.
    """
    frames, before = [], case.module.channels
    for n in counts:
        probed = case_of(case.net, case.image, replace(case.sizes, masks=n))
        work = score_cam_work(probed)
        few = [c for c in work.contenders if c.name in ("ours", "ours, five classes")]
        frames.append(measured(probed, replace(work, name="masks", contenders=few), rounds))
    case.module.channels = before
    return pd.concat(frames, ignore_index=True)


def pictures(case: Case, n: int) -> dict[str, Tensor]:
    """The picture with a little noise, n times over: what it shows does not matter here."""
    noise = torch.Generator().manual_seed(0)
    return {f"picture {k}": case.image + 0.1 * torch.randn(case.image.shape, generator=noise).to(case.image) for k in range(n)}


def by_pictures(case: Case, rounds: int, counts: Sequence[int] = (4, 8, 16, 32)) -> pd.DataFrame:
    """`evaluate` with Grad-CAM and Average Drop against the number of pictures."""

    def run(n: int) -> None:
        measures = {"Average Drop": metrics.average_drop}
        evaluation.evaluate(case.net, pictures(case, n), {"Grad-CAM": cam.grad_cam}, measures, progress=False)

    runs = [Contender(f"{n} pictures", partial(run, n), "Grad-CAM, Average Drop") for n in counts]
    run(1)
    return curve("pictures", case, runs, alternated(runs, rounds)[0])


def by_workers(case: Case, rounds: int, shards: int = 24) -> pd.DataFrame:
    """`evaluate` in this process, with one Dask worker and with two, each with one thread; and what two processes gain at all.

    The last two rows are bare forward passes, one lot and two lots at once: what this machine gives to two processes.
    """
    from distributed import Client, LocalCluster

    images, said = pictures(case, shards), f"{shards} shards; {os.getloadavg()[0]:.0f} processes wanted a core before"
    method = {"occlusion": partial(sampling.occlusion, window=56, stride=56)}

    def run(cluster: Any) -> None:
        evaluation.evaluate(case.net, images, method, {"drop": metrics.average_drop}, cluster=cluster, progress=False)

    def bare(client: Client, lots: int) -> None:
        client.gather([client.submit(forwards_of, case.net.name, 32, pure=False) for _ in range(lots)])

    with workers(LocalCluster, 1) as one, workers(LocalCluster, 2) as two, Client(two) as client:
        runs = [
            Contender("this process", partial(run, None), said),
            Contender("one worker", partial(run, one), said),
            Contender("two workers", partial(run, two), said),
            Contender("bare passes, one lot", partial(bare, client, 1), "no evaluate"),
            Contender("bare passes, two lots", partial(bare, client, 2), "no evaluate"),
        ]
        for c in runs[1:]:
            c.run()  # the workers import torch and get the network
        return curve("workers", case, runs, alternated(runs, rounds, time.perf_counter)[0])


@contextmanager
def workers(cluster: Any, n: int) -> Iterator[str]:
    """The address of a cluster of n processes with one thread each."""
    with cluster(n_workers=n, threads_per_worker=1, dashboard_address=":0") as running:
        yield running.scheduler_address


def forwards_of(name: str, n: int) -> None:
    """Plain forward passes of a network that this process builds for itself."""
    torch.set_num_threads(1)
    module = models.load(name, weights=None).module
    forwards(module, torch.zeros(3, 224, 224), n, BATCH)


def curve(work: str, case: Case, runs: Sequence[Contender], seconds: dict[str, list[float]]) -> pd.DataFrame:
    """Rows of contenders that are compared with the first of them."""
    told = circumstances(case.image.device.type)
    rows = [
        {"work": work, "network": case.net.name, "contender": c.name, "settings": c.settings}
        | spread(seconds[c.name], seconds[runs[0].name]) | told
        for c in runs
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


CURVES: dict[str, Callable[[Case, int], pd.DataFrame]] = {"masks": by_masks, "pictures": by_pictures, "workers": by_workers}
CURVE_NET = "efficientnet_lite0"


# ----------------------------------------------------------------------------------------------------------- the goals

PEERS = ("pytorch-grad-cam", "torch-cam", "captum", "straightforward loop")
FASTER = {"resnet18": 1.2, "vgg16": 1.3, "resnet50": 1.7, "efficientnet_lite0": 2.5}  # than each peer
FLOOR, HALF, RANK, MEMORY, CLASSES, TWO, OVERHEAD = 1.05, 0.55, 0.99, 1.2, 1.1, 1.8, 0.02


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """What was aimed at, and whether it is met: a row a goal, with columns goal, work, network, contender, value, limit, met.

    A goal about something that the table has not measured has no row.
    """
    found: list[dict[str, Any]] = []

    def judge(goal: str, row: Any, value: float, limit: float, at_least: bool = False) -> None:
        if pd.notna(value):
            met = value >= limit if at_least else value <= limit
            whose = {"work": row.work, "network": row.network, "contender": row.contender}
            found.append({"goal": goal} | whose | {"value": float(value), "limit": limit, "met": bool(met)})

    for row in table.itertuples():
        peer, _, at_its_best = str(row.contender).partition(", batch")
        if row.work in WORKS and row.contender == "ours":
            judge("near the floor", row, row.ratio_to_floor, FLOOR)
            judge("memory of a plain pass", row, row.peak_bytes / row.plain_bytes, MEMORY)
        if row.work in WORKS and peer in PEERS and row.network in FASTER:
            goal = "faster than others at their best batch" if at_its_best else "faster than others"
            judge(goal, row, row.ratio_to_ours, FASTER[row.network], at_least=True)
        if row.contender == "ours, five classes":
            judge("five classes for one", row, row.ratio_to_ours, CLASSES)
        if row.contender == IN_HALF:
            judge("bfloat16 in half the time", row, row.ratio_to_ours, HALF)
            judge("bfloat16 ranks alike", row, row.agreement, RANK, at_least=True)
    for _, mine in table[table["work"] == "masks"].groupby("network"):
        ours, floor = (mine[mine["contender"] == name].sort_values("forwards") for name in ("ours", "floor"))
        judge("near the floor, a mask more", next(ours.itertuples()), slope(ours) / slope(floor), FLOOR)
    for _, mine in table[table["work"] == "workers"].groupby("network"):
        took = mine.set_index("contender")["seconds"]
        rows = {row.contender: row for row in mine.itertuples()}
        judge("two workers", rows["two workers"], took["one worker"] / took["two workers"], TWO, at_least=True)
        judge("overhead of a worker", rows["one worker"], took["one worker"] / took["this process"] - 1, OVERHEAD)
    return pd.DataFrame(found, columns=["goal", "work", "network", "contender", "value", "limit", "met"])


def slope(rows: pd.DataFrame) -> float:
    """Seconds for one forward pass more, from the row with fewest to that with most; NaN where there is one row."""
    first, last = rows.iloc[0], rows.iloc[-1]
    more = last["forwards"] - first["forwards"]
    return (last["seconds"] - first["seconds"]) / more if more else float("nan")


def shown(rows: pd.DataFrame) -> str:
    """Rows for the terminal."""
    lines = []
    for r in rows.itertuples():
        floor = f"{r.ratio_to_floor:6.2f} x floor" if pd.notna(r.ratio_to_floor) else " " * 14
        memory = f"{r.peak_bytes / 1e6:7.0f} MB" if pd.notna(r.peak_bytes) else " " * 10
        agrees = f"agrees {r.agreement:.4f}" if pd.notna(r.agreement) else ""
        ratio = f"{r.ratio_to_ours:5.2f} x ours [{r.ratio_low:.2f}, {r.ratio_high:.2f}]"
        lines.append(f"{r.network:18} {r.work:20} {r.contender:29} {r.seconds:8.3f} s {ratio:26} {floor} {memory} {agrees}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--works", nargs="+", choices=[*WORKS, *CURVES], default=[*WORKS, *CURVES])
    parser.add_argument("--without", nargs="+", default=(), help='contenders that are left out, such as "ours, bfloat16"')
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="all channels and the papers' sizes: hours on a CPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    for name in options.nets:
        case = imagenet_case(name, options.device, options.full)
        for work in options.works:
            if work in CURVES and name != CURVE_NET:
                continue
            if work in CURVES:
                rows = CURVES[work](case, options.rounds)
            else:
                asked = WORKS[work](case)
                some = [c for c in asked.contenders if c.name not in options.without]
                rows = measured(case, replace(asked, contenders=some), options.rounds)
            keep(rows, options.out)
            print(shown(rows), flush=True)
    judged = verdicts(pd.read_csv(options.out))
    print("\nGoals missed:" if not judged["met"].all() else "\nAll goals met.")
    print(judged[~judged["met"]].to_string(index=False) if not judged["met"].all() else "")


if __name__ == "__main__":
    main()
