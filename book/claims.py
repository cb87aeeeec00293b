"""The claim ledger: what the five papers say, and what came of it here.

    python book/claims.py           writes data/claims.csv
    python book/claims.py --check   says which verdicts data/claims.csv would change, and fails if there are any

Every verdict is computed, by the rules in `verdicts.py`, from data/papers, data/results and a few runs of a second or two
below. A new result in data/results changes verdicts by itself; a new claim is one entry here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchvision.models import VisionTransformer

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "book")]

from verdicts import (  # noqa: E402
    FAILED,
    MIN_PICTURES,
    REMARK,
    REPRODUCED,
    UNTESTABLE,
    Evidence,
    Finding,
    Gap,
    Rule,
    beyond,
    close,
    elsewhere,
    every,
    in_runs,
    key,
    noted,
    numbers,
    ordering,
    stated,
    unmeasured,
    verdict_on,
)

from helpers import cam, data, datasets, metrics, models, sampling, score_cam, sise  # noqa: E402
from helpers.core import features_of, probability, resize, to_unit  # noqa: E402
from helpers.extrapolation import gradual_extrapolation  # noqa: E402
from helpers.masks import FeatureMasks, masked_logits  # noqa: E402

KINDS = ("number", "ordering", "qualitative", "print", "remark")
GARBLED = "our text version of the paper is garbled here; needs the print"
COLUMNS = "id paper place claim kind measure value ci_low ci_high tolerance n model data verdict why".split()
MITRA, SANNOMIYA, SISE, SZANDALA, TAMBOLI = (
    *("mitra2024scorecampp", "sannomiya2024layer", "sattarzadeh2021sise", "szandala2021gradual", "tamboli2021survey"),
)
NETWORKS = {
    "resnet18": "ResNet-18",
    "vgg19": "VGG-19",
    "vgg16": "VGG16",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "vit_b_16": "ViT-B/16",
}


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, in our words, and the rule that finds its verdict.

    kind: number, ordering, qualitative, print for what arithmetic on the print settles, or remark for what we
    noticed and the paper does not claim: that has no verdict; rows: which rows of data/papers
    the entry answers for, as column = name.
    """

    id: str
    paper: str
    place: str
    claim: str
    kind: str
    rule: Rule
    rows: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not (self.id and self.place and self.claim.endswith(".")):
            raise ValueError(f"a claim needs id, place, a sentence and one of the kinds {', '.join(KINDS)}: {self}")


def entries(paper: str, prefix: str) -> Callable[..., Claim]:
    """A maker of the claims of one paper: `claim("t1-ours", "Table 1", "Sentence.", "number", rule)`."""

    def claim(name: str, place: str, sentence: str, kind: str, rule: Rule, **rows: str) -> Claim:
        return Claim(f"{prefix}-{name}", paper, place, sentence, kind, rule, rows)

    return claim


def printed_row(paper: str, **names: str) -> str:
    """A printed row in words: "A 1.2, B 3.4 (percent)"."""
    rows = data.paper_table(paper)
    for column, name in names.items():
        rows = rows[rows[column] == name]
    by_method = rows["method"].nunique() > 1
    text = ", ".join(f"{r.method if by_method else r.metric} {r.value:g}" for r in rows.itertuples())
    unit = rows["unit"].iloc[0]
    return text + ("" if unit == "fraction" else f" ({unit})")


def slug(*names: str) -> str:
    """Letters, digits and hyphens for an id; `++` and `w/o` stay apart from what they are added to."""
    text = "-".join(names).lower().replace("++", "pp").replace("w/o", "without").replace("w/", "with")
    return "-".join("".join(c if c.isalnum() else " " for c in text).split())


# -------------------------------------------------------------------------------- a few runs, of a second or two each


@cache
def scenes(
    model: str = "slim_vgg16_scenes", kind: str = "scenes", n: int = 2
) -> tuple[models.Classifier, list[torch.Tensor], list[int]]:
    """A small trained network, the first drawn pictures of its kind, and its first choices."""
    net = models.load(model)
    images = [net.preprocess(photo.picture) for photo in datasets.load(kind, n=n, seed=0)]
    return net, images, [int(net(image[None]).argmax()) for image in images]


@cache
def blank_maps() -> list[bool]:
    """For each picture: does Eq. (10) as printed leave a blank map?"""
    net, images, targets = scenes(n=8)
    maps = [score_cam.score_cam_pp(net, x, t, baseline=x) for x, t in zip(images, targets, strict=True)]
    return [not bool(saliency.any()) for saliency in maps]


@cache
def same_as_grad_cam() -> float:
    """How far Grad-CAM and XGrad-CAM of a photograph are apart, where averaged features meet one linear layer."""
    net = models.load("efficientnet_lite0")
    x = net.preprocess(data.photo("chelsea").picture)
    a, b = cam.grad_cam(net, x), cam.xgrad_cam(net, x)
    return float((a / a.max() - b / b.max()).abs().max())


@cache
def lowest_gate() -> list[float]:
    """For each picture: the smallest value of a tanh mask made from the last features."""
    net, images, _ = scenes()
    return [float(torch.tanh(features_of(net, x, net.cam_layer)).min()) for x in images]


@cache
def lowest_in_transformer() -> float:
    """The smallest value of a tanh mask made from the last block of a small vision transformer with random weights."""
    torch.manual_seed(0)
    vit = VisionTransformer(image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10)
    with torch.no_grad():
        tokens = vit.encoder.layers(vit._process_input(torch.rand(1, 3, 64, 64)))
    return float(torch.tanh(tokens).min())


@cache
def softmax_matters() -> tuple[list[float], list[float]]:
    """For each picture, of Score-CAM with a softmax over channels: rank correlation of its map with the plain mean of the
    features; largest change of a weight if the score of the whole picture is subtracted first."""
    net, images, targets = scenes()
    alike, moved = [], []
    for x, t in zip(images, targets, strict=True):
        A = features_of(net, x, net.cam_layer)
        A = A[A.amax((1, 2)) > A.amin((1, 2))]  # [C, h, w]
        with torch.no_grad():
            S = probability(masked_logits(net, x, FeatureMasks(A, x.shape[-2:], to_unit)), t)  # [C]
            whole = probability(net(x[None]), t)
        weights, other = S.softmax(0), (S - whole).softmax(0)
        summed = torch.einsum("c,chw->hw", weights, A)
        alike.append(metrics.rank_correlation(summed, A.mean(0)))
        moved.append(float((weights - other).abs().max() / weights.max()))
    return alike, moved


@cache
def maps_of_resnet50() -> tuple[int, list[int]]:
    """Feature maps at the ends of the blocks of ResNet-50, in all and one by one."""
    net = models.load("resnet50", weights=None)
    return models.sise_maps(net), models.layer_table(net).query("block").channels.tolist()


@cache
def seeds_matter() -> tuple[float, float]:
    """Largest difference of two SISE maps, and rank correlation of two RISE maps with other seeds, of one picture."""
    net, (x, *_), (t, *_) = scenes()
    twice = float((sise.sise(net, x, t) - sise.sise(net, x, t)).abs().max())
    one, other = (sampling.rise(net, x, t, samples=40, seed=seed) for seed in (0, 1))
    return twice, metrics.rank_correlation(one, other)


@cache
def sums_of_sigmoids() -> list[float]:
    """For each picture: the sum of the probabilities of a multi-label network's classes."""
    net, images, _ = scenes("slim_vgg16_scenes_multi", "scenes_multi")
    with torch.no_grad():
        return [float(net(x[None]).sigmoid().sum()) for x in images]


@cache
def product_of_means() -> float:
    """Largest product of the levels' mean features of a picture, none divided by its maximum."""
    net, images, _ = scenes()
    h = torch.ones(1, 1, dtype=torch.float64)
    for layer in reversed(net.level_layers):
        C = features_of(net, images[0], layer).abs().mean(0)
        h = resize(h.float(), C.shape) * C
    return float(h.max())


def faster_than_rise(evidence: Evidence) -> list[tuple[bool, str]]:
    """For each network on which SISE works: does it take fewer passes and less time than RISE?"""
    if not len(evidence.costs):
        return []
    cost = evidence.costs.query("verdict == 'works'").set_index(["method", "network"])[["forwards", "seconds"]]
    both = cost.loc["SISE"].join(cost.loc["RISE"].add_suffix("_rise"), how="inner")
    return [
        (
            row.forwards < row.forwards_rise and row.seconds < row.seconds_rise,
            f"{row.Index}: {row.forwards:,} passes, {row.seconds:.1f} s, against {row.forwards_rise:,}, {row.seconds_rise:.1f} s",
        )
        for row in both.itertuples()
    ]


def works(
    evidence: Evidence, method: str, wanted: Callable[[str], bool], only: Callable[[str], bool] = bool
) -> list[tuple[bool, str]]:
    """For each network: does a method work on it where it should, and not elsewhere?"""
    rows = evidence.costs[evidence.costs["method"] == method] if len(evidence.costs) else evidence.costs
    return [
        ((r.verdict == "works") == wanted(r.network), f"{r.network}: {r.verdict}") for r in rows.itertuples() if only(r.network)
    ]


def kept_maps(evidence: Evidence) -> list[tuple[str, float]]:
    """Trained network and share of the feature maps that SISE keeps, from what its maps cost."""
    found = []
    rows = evidence.costs[evidence.costs["method"] == "SISE"] if len(evidence.costs) else evidence.costs
    for row in rows.itertuples():
        if row.network == "slim_vgg16_scenes":
            found.append((row.network, (row.forwards - 1) / models.sise_maps(scenes()[0])))
    return found


# ---------------------------------------------------------------------------------------------------------- ScoreCAM++

RIVALS = ("GradCAM", "GradCAM++", "XGradCAM", "LayerCAM", "ScoreCAM", "AugGradCAM++")
FOUR = ("04_scorecampp", "06_comparison")
DROP = {"logit": ("Average Drop, logit", "Average Drop, on logits"), "probability": ("Average Drop, probability", "Average Drop")}
GAIN = {
    "logit": ("Increase in Confidence, logit",),
    "probability": ("Increase in Confidence, probability", "Increase"),
}
WIN = {"logit": ("Win, logit",), "probability": ("Win, probability",)}
OF_MITRA = {"Average Drop": DROP, "Increase in Confidence": GAIN, "Win": WIN}
REMOVED = ("Drop in logit, soft (logit)", "Drop in logit", "drop (logit)")
IN_CODE = {metric: of["logit"] for metric, of in OF_MITRA.items()} | {"Drop in logit": REMOVED}
INSIDE, OVERLAP = ("energy inside", "EBPG"), ("mean IoU", "mIoU")


def cnn(model: str, dataset: str) -> bool:
    """Not a transformer: those have a table of their own."""
    return "vit" not in model.lower() and "transformer" not in model.lower() and "digits" not in dataset.lower()


def transformer(model: str, dataset: str) -> bool:
    return not cnn(model, dataset)


def alike_on_most(evidence: Evidence) -> Finding:
    """The rule for "nearly the same on most pictures": the share with a rank correlation above 0.9, against a half."""
    measure = "share of pictures with a rank correlation above 0.9"
    rows = evidence.images.get("06_comparison", pd.DataFrame(columns=["table", "m", "k", "model", "dataset"]))
    rows = rows[(rows["table"] == "agreement, rank correlation") & (rows["m"] == key("GradCAM++"))]
    rows = rows[rows["k"] == key("with Grad-CAM")].dropna(subset="value")
    if len(rows) < MIN_PICTURES:
        return Finding(UNTESTABLE, "no run yet that holds the two maps against each other", measure)
    found = []
    for (model, dataset), part in rows.groupby(["model", "dataset"], sort=False):
        alike = (part["value"] > 0.9).astype(float)
        low, high = metrics.bootstrap_interval(alike)
        found.append(Gap("", model, dataset, alike.mean() - 0.5, low - 0.5, high - 0.5, len(alike), True))
    worst = min(found, key=lambda gap: gap.mean)
    shares = ", ".join(f"{(gap.mean + 0.5) * gap.n:.0f} of {gap.n} on {gap.model}" for gap in found)
    return Finding(
        verdict_on(found),
        f"pictures: {shares}",
        measure,
        worst.mean + 0.5,
        worst.low + 0.5,
        worst.high + 0.5,
        "interval above one half",
        worst.n,
        worst.model,
        worst.dataset,
    )


def shares_of(n: int, values: Sequence[float]) -> list[bool]:
    """For each percentage, printed with two decimals: can it be a share of n pictures?"""
    return [abs(round(v * n / 100) * 100 / n - v) < 0.00501 for v in values]


def mitra() -> Iterator[Claim]:
    claim = entries(MITRA, "mitra2024")
    tables = data.paper_table(MITRA)
    own = {"5": "Tanh", "6": "Normalization + Upsampled"}
    for (table, metric), rows in tables.groupby(["table", "metric"], sort=False):
        net, on = rows[["model", "dataset"]].iloc[0]
        best = own.get(table, "ScoreCAM++")
        rule = numbers(MITRA, table, best, ("04_scorecampp",), IN_CODE, metric=metric)
        words = printed_row(MITRA, table=table, metric=metric)
        yield claim(
            f"t{table}-{slug(metric)}",
            f"Table {table}",
            f"{NETWORKS[net]}, {on}: {metric} of {words}.",
            "number",
            rule,
            table=table,
            metric=metric,
        )

    for kind, says in (
        ("probability", "on probabilities, as the text defines it"),
        ("logit", "on logits, as the authors' code has it"),
    ):
        for metric, lower in (("Average Drop", True), ("Increase in Confidence", False), ("Win", False)):
            yield claim(
                f"best-{slug(metric, kind)}",
                "Tables 1 to 4, Sec. 5",
                f"ScoreCAM++ has the {'lowest' if lower else 'highest'} {metric} of all methods ({says}).",
                "ordering",
                ordering(FOUR, OF_MITRA[metric][kind], "ScoreCAM++", RIVALS, lower=lower, only=cnn),
            )
    yield claim(
        "better-than-scorecam",
        "Abstract, Sec. 1",
        "With its two changes ScoreCAM++ has a lower Average Drop, a higher Increase in Confidence and more Wins than "
        "ScoreCAM, by much.",
        "ordering",
        every(
            *(
                ordering(FOUR, OF_MITRA[m]["logit"], "ScoreCAM++", ["ScoreCAM"], lower=m == "Average Drop", only=cnn)
                for m in OF_MITRA
            )
        ),
    )
    yield claim(
        "best-drop-in-logit",
        "Table 7, Sec. 6.4",
        "Taking the explained part away lowers the class logit most with the maps of ScoreCAM++.",
        "ordering",
        ordering(FOUR, REMOVED, "ScoreCAM++", RIVALS, lower=False, only=cnn),
    )
    for metric in OF_MITRA:
        yield claim(
            f"tanh-{slug(metric)}",
            "Table 5, Sec. 6.1",
            f"Of five gates tanh has the best {metric}.",
            "ordering",
            every(
                *(
                    ordering(
                        ("04_scorecampp",),
                        OF_MITRA[metric][k],
                        "Tanh",
                        ("ReLU", "Sigmoid", "Mish", "Swish"),
                        lower=metric == "Average Drop",
                    )
                    for k in DROP
                )
            ),
        )
        yield claim(
            f"both-{slug(metric)}",
            "Table 6, Sec. 6.3",
            f"Tanh on the masks and in the sum has a better {metric} than tanh on the masks alone.",
            "ordering",
            every(
                *(
                    ordering(
                        ("04_scorecampp",),
                        OF_MITRA[metric][k],
                        "Normalization + Upsampled",
                        ["Normalization"],
                        lower=metric == "Average Drop",
                    )
                    for k in DROP
                )
            ),
        )
        yield claim(
            f"vit-{slug(metric)}",
            "Table 8, App. B",
            f"On a vision transformer, too, ScoreCAM++ has the best {metric}.",
            "ordering",
            every(
                *(
                    ordering(
                        ("04_scorecampp",),
                        OF_MITRA[metric][k],
                        "ScoreCAM++",
                        RIVALS[:5],
                        lower=metric == "Average Drop",
                        only=transformer,
                        needs="needs a trained vision transformer",
                    )
                    for k in DROP
                )
            ),
        )
    yield claim(
        "figs-2-to-4",
        "Fig. 2, Fig. 3, Fig. 4, Secs. 5.1 and 5.2",
        "Of all methods' maps of natural pictures (VGG-19 and ResNet-18) those of ScoreCAM++ are the best.",
        "qualitative",
        elsewhere(
            every(
                *(
                    ordering((*FOUR, "ground_truth"), metric, "ScoreCAM++", RIVALS, lower=False, only=cnn)
                    for metric in (INSIDE, OVERLAP, ("pointing",))
                )
            ),
            "a matter of the eye, on other networks and pictures than ours; the text adds that the maps need not be sparse, and "
            "energy inside asks for sparse ones",
        ),
    )
    yield claim(
        "fig5",
        "Fig. 5, Sec. 6.1",
        "The maps made with tanh are clearer and closer to the thing than those made with other gates.",
        "qualitative",
        ordering(
            ("04_scorecampp",),
            INSIDE,
            "Tanh",
            ("ReLU", "Sigmoid", "Mish", "Swish"),
            lower=False,
            needs="no run yet that measures the gates against a truth",
        ),
    )
    yield claim(
        "fig6",
        "Fig. 6, Sec. 6.2",
        "Where a picture has several things, ScoreCAM++ has all of them more reliably than ScoreCAM.",
        "qualitative",
        every(
            ordering(FOUR, ("both kept",), "ScoreCAM++", ["ScoreCAM"], lower=False),
            ordering(FOUR, ("both in the top part",), "ScoreCAM++", ["ScoreCAM"], lower=False),
        ),
    )
    yield claim(
        "layercam-sparse",
        "Sec. 5.3",
        "LayerCAM's maps are the sparsest of the methods.",
        "qualitative",
        ordering(
            FOUR,
            ("mean of the map", "area"),
            "LayerCAM",
            [m for m in (*RIVALS, "ScoreCAM++") if m != "LayerCAM"],
            lower=True,
            only=cnn,
        ),
    )
    yield claim(
        "grad-cams-alike",
        "Sec. 5.2",
        "On most pictures the maps of GradCAM and GradCAM++ are nearly the same (here: rank correlation above 0.9).",
        "qualitative",
        alike_on_most,
    )
    yield claim(
        "scorecam-inconsistent",
        "Sec. 5.2",
        "ScoreCAM's maps are sometimes like those of GradCAM and sometimes quite different.",
        "qualitative",
        unmeasured("a matter of the eye; no level is given for like and different"),
    )
    yield claim(
        "swish-mish",
        "Fig. 5, Sec. 6.1",
        "The maps made with Swish and with Mish are highly alike (here: their Average Drop, by less than two points).",
        "qualitative",
        every(*(close(("04_scorecampp",), of, "Swish", "Mish", 0.02) for of in DROP.values())),
    )
    yield claim(
        "vit-margin",
        "Table 8, App. B",
        "On a vision transformer ScoreCAM++ surpasses ScoreCAM by a wide margin (here: beyond the noise).",
        "ordering",
        every(
            *(
                ordering(("04_scorecampp",), of[k], "ScoreCAM++", ["ScoreCAM"], lower=m == "Average Drop", only=transformer)
                for m, of in OF_MITRA.items()
                for k in DROP
            )
        ),
    )

    def share(words: str, numbers_of: Callable[[Evidence], tuple[int, Sequence[float]]]) -> Rule:
        def statements(evidence: Evidence) -> list[tuple[bool, str]]:
            n, values = numbers_of(evidence)
            return [
                (fits, f"{v:g} is {'' if fits else 'no '}multiple of 1/{n}")
                for fits, v in zip(shares_of(n, values), values, strict=True)
            ]

        return stated(words, statements, whole=True)

    def other_count(rule: Rule, table: str) -> Rule:
        """Says whether another number would fit, that of a well-known small part of ImageNet's validation set."""

        def noting(evidence: Evidence) -> Finding:
            finding = rule(evidence)
            fits = all(shares_of(3923, shares_in(evidence, table)))
            return replace(finding, why=f"{finding.why}; with 3,923 pictures {'all' if fits else 'not all'} would fit")

        return noting

    def shares_in(evidence: Evidence, *tables: str) -> list[float]:
        return [v for t in tables for m in ("Increase in Confidence", "Win") for v in evidence.paper(MITRA, t, metric=m)["value"]]

    def odd(evidence: Evidence) -> list[tuple[bool, str]]:
        values = shares_in(evidence, "1", "2")
        found = sum(round(v * 40) % 2 for v in values)
        return [
            (
                found > 0,
                f"{found} of {len(values)} shares are odd multiples of 1/4000, where about half should be; all fit 2,000 "
                "pictures",
            )
        ]

    yield claim(
        "pictures-t1-t2",
        "Tables 1 and 2, Sec. 5",
        "Tables 1 and 2 are means over 4,000 pictures.",
        "print",
        stated("odd multiples of 1/4000 among the printed shares", odd),
    )
    for table, n in (("3", 2000), ("4", 2000), ("5", 2000), ("6", 2000), ("8", 2000)):
        rule = share(f"printed shares that are multiples of 1/{n}", lambda e, table=table, n=n: (n, shares_in(e, table)))
        yield claim(
            f"pictures-t{table}",
            f"Table {table}, Sec. 5",
            f"Table {table} is a mean over {n:,} pictures of ImageNet.",
            "print",
            other_count(rule, table) if table in own else rule,
        )

    def same_net(evidence: Evidence, table: str, method: str) -> list[tuple[bool, str]]:
        found = []
        for metric in ("Average Drop", "Increase in Confidence"):
            here, resnet, vgg = (
                evidence.printed(MITRA, t, m, metric) for t, m in ((table, method), ("3", "ScoreCAM++"), ("4", "ScoreCAM++"))
            )
            found.append(
                (
                    abs(here - vgg) < abs(here - resnet),
                    f"{metric} of the full method is {here:g}; Table 4 (VGG-19) has {vgg:g}, Table 3 (ResNet-18) {resnet:g}",
                )
            )
        return found

    for table, method in own.items():
        yield claim(
            f"network-t{table}",
            f"Table {table}",
            f"Table {table} was measured with VGG-19.",
            "print",
            stated(
                "is the full method nearer to Table 4 (VGG-19) than to Table 3 (ResNet-18)?",
                partial(same_net, table=table, method=method),
                whole=True,
            ),
        )

    def wins_add_up(evidence: Evidence) -> list[tuple[bool, str]]:
        rows = evidence.papers[MITRA].query("metric == 'Win'")
        return [
            (abs(wins.sum() - 100) <= 0.005 * len(wins) + 1e-9, f"Table {table} adds up to {wins.sum():.2f}")
            for table, wins in rows.groupby("table")["value"]
        ]

    yield claim(
        "wins-add-up",
        "Tables 1 to 6 and 8, App. A",
        "On every picture one method wins, so the Wins of a table add up to 100 (as rounding allows).",
        "print",
        stated("sum of each printed row of Wins", wins_add_up),
    )

    def best_everywhere(evidence: Evidence) -> list[tuple[bool, str]]:
        rows = evidence.papers[MITRA]
        found = []
        for (table, metric), group in rows[rows["table"].isin(list("1234"))].groupby(["table", "metric"]):
            first = group.sort_values("value", ascending=metric == "Average Drop")["method"].iloc[0]
            found.append((first == "ScoreCAM++", f"Table {table}, {metric}: {first}"))
        return found

    yield claim(
        "print-best",
        "Tables 1 to 4, Sec. 5",
        "In Tables 1 to 4 ScoreCAM++ is first in every row.",
        "print",
        stated("first of each printed row", best_everywhere),
    )

    def second_on_vit(evidence: Evidence) -> list[tuple[bool, str]]:
        found = []
        for metric in OF_MITRA:
            rows = evidence.paper(MITRA, "8", metric=metric).sort_values("value", ascending=metric == "Average Drop")
            found.append(
                (
                    rows["method"].iloc[1] == "ScoreCAM",
                    f"second in {metric} is {rows['method'].iloc[1]} ({rows['value'].iloc[1]:g})",
                )
            )
        return found

    yield claim(
        "print-vit-second",
        "App. B",
        "On the vision transformer ScoreCAM is second.",
        "print",
        stated("second of each row of Table 8", second_on_vit),
    )

    def counterparts(evidence: Evidence, metric: str) -> list[tuple[bool, str]]:
        found = []
        for table in "1234":
            for plain, changed in (("GradCAM", "XGradCAM"), ("GradCAM++", "AugGradCAM++")):
                a, b = (evidence.printed(MITRA, table, method, metric) for method in (plain, changed))
                ahead = b < a if metric == "Average Drop" else b > a
                found.append((ahead, f"Table {table}: {plain} {a:g}, {changed} {b:g}"))
        return found

    variants = "printed pairs of a method and its variant; the text does not say which are meant"
    yield claim(
        "print-counterparts",
        "Sec. 5.2",
        "GradCAM and GradCAM++ nearly always have a higher Average Drop than their modified counterparts.",
        "print",
        stated(variants, partial(counterparts, metric="Average Drop")),
    )

    def behind(evidence: Evidence, method: str) -> list[tuple[bool, str]]:
        found = []
        for table in "1234":
            for metric in OF_MITRA:
                theirs, ours = (evidence.printed(MITRA, table, m, metric) for m in (method, "ScoreCAM++"))
                worse = theirs > ours if metric == "Average Drop" else theirs < ours
                found.append((worse, f"Table {table}, {metric}: {theirs:g} against {ours:g}"))
        return found

    for name, method, sentence in (
        (
            "size-alone",
            "AugGradCAM++",
            "A larger region need not be better: AugGradCAM++ has larger ones and is behind ScoreCAM++.",
        ),
        (
            "print-poor-layercam",
            "LayerCAM",
            "A sparser map need not be better: LayerCAM's are the sparsest and behind ScoreCAM++.",
        ),
    ):
        yield claim(
            name,
            "Sec. 5.3",
            sentence,
            "print",
            stated(f"{method} behind ScoreCAM++, in each printed row", partial(behind, method=method)),
        )

    yield claim(
        "print-counterparts-win",
        "Sec. 5.2",
        "In Win the modified counterparts of GradCAM and GradCAM++ are clearly ahead of them.",
        "print",
        stated(variants, partial(counterparts, metric="Win")),
    )

    def stretch(_: Evidence) -> list[tuple[bool, str]]:
        A = np.array([0.0, 1.0, 3.0])
        s = (A - A.min()) / (A.min() - A.max())  # Eq. (7) as printed
        return [
            (
                s.min() >= 0 and s.max() == 1,
                f"as printed it maps [0, 1, 3] to [{s.min():g}, {s.max():g}]: the denominator has the wrong sign",
            )
        ]

    yield claim(
        "eq7",
        "Eq. (7)",
        "Score-CAM's normalisation maps a feature map to [0, 1].",
        "print",
        stated("Eq. (7) on three numbers", stretch),
    )
    yield claim(
        "eq10",
        "Eq. (10)",
        "A mask's weight is the score of the masked picture minus that of the whole picture.",
        "print",
        stated(
            "maps that Eqs. (9) and (10) as printed do not leave blank",
            lambda _: [
                (
                    not blank,
                    "a blank map: most weights are negative, and the ReLU cuts the sum" if blank else "not blank",
                )
                for blank in blank_maps()
            ],
            model="slim_vgg16_scenes",
            on="8 drawn scenes",
        ),
    )
    yield claim(
        "eq13",
        "Eq. (13), App. A",
        "Eq. (13) is printed as a sum over the pictures; the sentence below it has the mean over the data set, as the tables do.",
        "remark",
        unmeasured("1/N is missing in the equation; nothing hangs on it"),
    )
    yield claim(
        "eq9-order",
        "Eq. (9), Sec. 4",
        "Eq. (9) takes tanh of the feature map, the text and Fig. 1 of the enlarged one.",
        "remark",
        unmeasured("the two orders give different masks where the enlarging mixes values; the authors' notebook enlarges first"),
    )
    yield claim(
        "xgradcam-is-gradcam",
        "Tables 1 and 3",
        "On ResNet-18 GradCAM and XGradCAM are one map, but win different shares of the pictures (10.05, 4.60; 5.65, 9.00).",
        "remark",
        stated(
            "do the two maps differ, where averaged features meet one linear layer?",
            lambda _: [(same_as_grad_cam() > 1e-3, "they are the same map there, so only ties and rounding can tell them apart")],
            model="efficientnet_lite0",
            on="one photograph",
        ),
    )
    yield claim(
        "negative-features",
        "Secs. 4 and 5.3",
        "Tanh sends features of lower priority towards 0, and those of negative priority towards -1.",
        "print",
        stated(
            "are there values towards 0, and towards -1?",
            lambda _: [
                (min(map(abs, lowest_gate())) < 0.1, f"after a ReLU the lowest mask value is {min(lowest_gate()):g}"),
                (min(lowest_gate()) < -0.1, "after a ReLU nothing is negative"),
                (lowest_in_transformer() < -0.1, f"in a transformer's last block, without one, {lowest_in_transformer():.2f}"),
            ],
            model="slim_vgg16_scenes, a vision transformer (random weights)",
            on="2 drawn scenes",
        ),
    )

    yield claim(
        "scores-are-probabilities",
        "App. A",
        "The metrics compare probabilities of the class.",
        "print",
        unmeasured("the print does not settle it; the authors' notebook compares logits"),
    )
    yield claim(
        "cats-and-dogs",
        "Sec. 5",
        "The Cats and Dogs pictures are those of the cited Oxford-IIIT Pets: 25,000 to train with and 12,500 to test.",
        "print",
        stated(
            "sizes given against the 7,349 pictures of the cited set",
            lambda _: [
                (
                    25_000 + 12_500 <= 7_349,
                    "the cited set has 7,349 pictures; the sizes are those of the contest Dogs vs. Cats, whose test "
                    "pictures have no labels",
                )
            ],
        ),
    )


# ----------------------------------------------------------------------------------------------------- layer selection

THREE = ("03_layer_selection", "06_comparison")
OURS, WITHOUT, WITH = "layer selection", "layer selection w/o difference", "Score-CAM w/ difference"
CURVES = {"Insertion": ("Insertion",), "Deletion": ("Deletion",)}


def other_layers(evidence: Evidence) -> Finding:
    """The rule for Fig. 10: on how many pictures is a layer chosen that is not the last?"""
    measure = "share of pictures on which another layer than the last is chosen"
    rows = evidence.images.get("03_layer_selection", pd.DataFrame(columns=["k", "m"]))
    rows = rows[rows["k"] == "chosenlayer"]
    found = []
    for (model, dataset), part in rows[rows["m"] == "ours"].groupby(["model", "dataset"], sort=False):
        of_grad_cam = rows[(rows["model"] == model) & (rows["dataset"] == dataset) & (rows["m"] == "gradcam")]["value"]
        if of_grad_cam.notna().any():  # Grad-CAM is read at the last layer
            other = (part.drop_duplicates("image")["value"] < of_grad_cam.max()).astype(float)
            found.append(Gap("", model, dataset, other.mean(), *metrics.bootstrap_interval(other), len(other), True))
    if not found:
        return Finding(UNTESTABLE, "no run of Chapter 3 yet that notes the chosen layer", measure)
    worst = min(found, key=lambda gap: gap.mean)
    return Finding(
        verdict_on(found),
        f"holds in {sum(gap.low > 0 for gap in found)} of {len(found)} runs{in_runs(found, worst)}",
        measure,
        worst.mean,
        worst.low,
        worst.high,
        "interval above 0",
        worst.n,
        worst.model,
        worst.dataset,
    )


def sannomiya() -> Iterator[Claim]:
    claim = entries(SANNOMIYA, "sannomiya2024")
    for method, rows in data.paper_table(SANNOMIYA).groupby("method", sort=False):
        table = rows["table"].iloc[0]  # Table 2 prints two rows of Table 1 once more
        words = printed_row(SANNOMIYA, table=table, method=method)
        yield claim(
            f"t{table}-{slug(method)}",
            "Tables 1 and 2" if rows["table"].nunique() > 1 else f"Table {table}",
            f"VGG16, ImageNet, 3,000 pictures, {method}: {words}.",
            "number",
            numbers(SANNOMIYA, table, method, ("03_layer_selection",), method=method),
            method=method,
        )
    pairs = (
        ("ours-gradcam", OURS, "Grad-CAM", "the method", "Grad-CAM", "Table 1, Sec. 4.2"),
        ("ours-scorecam", OURS, "Score-CAM", "the method", "Score-CAM", "Table 1, Sec. 4.2"),
        (
            "difference-selection",
            OURS,
            WITHOUT,
            "layer selection with the difference of two networks",
            "layer selection without it",
            "Table 2, Sec. 5.1",
        ),
        ("difference-scorecam", WITH, "Score-CAM", "Score-CAM with the difference", "plain Score-CAM", "Table 2, Sec. 5.1"),
    )
    for name, one, other, first, second, place in pairs:
        for metric in CURVES:
            lower = metric == "Deletion"
            sentence = f"{first[0].upper()}{first[1:]} has a {'lower' if lower else 'higher'} {metric} than {second}."
            yield claim(
                f"{name}-{metric.lower()}",
                place,
                sentence,
                "ordering",
                ordering(THREE, CURVES[metric], one, [other], lower=lower),
            )
    yield claim(
        "selection-alone",
        "Sec. 6",
        "The text credits selection and difference together; this is selection without the difference, against Score-CAM.",
        "remark",
        every(*(ordering(THREE, CURVES[m], WITHOUT, ["Score-CAM"], lower=m == "Deletion") for m in CURVES)),
    )
    both = ("Ours w/o difference", "Score-CAM")
    yield claim(
        "print-selection-alone",
        "Table 2, Sec. 6",
        "In the paper's own table: selecting a layer without the difference, against Score-CAM.",
        "remark",
        stated(
            "Ours w/o difference against Score-CAM",
            lambda e: [(True, f"{k}: " + " against ".join(f"{e.printed(SANNOMIYA, '2', m, k):g}" for m in both)) for k in CURVES],
        ),
    )

    def deltas(
        evidence: Evidence, table: str, one: str, others: Sequence[str], quoted: Sequence[tuple[float, float]]
    ) -> list[tuple[bool, str]]:
        found = []
        for other, pair in zip(others, quoted, strict=True):
            for metric, delta, sign in zip(CURVES, pair, (1, -1), strict=True):
                is_ = sign * (evidence.printed(SANNOMIYA, table, one, metric) - evidence.printed(SANNOMIYA, table, other, metric))
                found.append((abs(is_ - delta) < 1e-9, f"{metric} against {other}: {delta:g} quoted, {is_:.2f} printed"))
        return found

    for name, place, sentence, table, one, others, quoted in (
        (
            "deltas-t1",
            "Sec. 4.2",
            "The method is better by 4.21 (Grad-CAM) and 3.52 (Score-CAM) in Insertion, by 0.64 and 0.42 in Deletion.",
            "1",
            "Ours",
            ("Grad-CAM", "Score-CAM"),
            ((4.21, 0.64), (3.52, 0.42)),
        ),
        (
            "deltas-ablation",
            "Sec. 5.1",
            "Without the difference Insertion is worse by 3.7 and Deletion by 0.04.",
            "2",
            "Ours",
            ("Ours w/o difference",),
            ((3.7, 0.04),),
        ),
        (
            "deltas-scorecam",
            "Sec. 5.1",
            "With the difference Score-CAM is better by 2.35 in Insertion and 0.21 in Deletion.",
            "2",
            "Score-CAM w/ difference",
            ("Score-CAM",),
            ((2.35, 0.21),),
        ),
    ):
        yield claim(
            name,
            place,
            sentence,
            "print",
            stated("quoted differences against the table", partial(deltas, table=table, one=one, others=others, quoted=quoted)),
        )

    def repeated(evidence: Evidence) -> list[tuple[bool, str]]:
        return [
            (evidence.printed(SANNOMIYA, "1", m, k) == evidence.printed(SANNOMIYA, "2", m, k), f"{m}, {k}")
            for m in ("Score-CAM", "Ours")
            for k in CURVES
        ]

    yield claim(
        "tables-agree",
        "Tables 1 and 2",
        "The rows that both tables have are the same.",
        "print",
        stated("rows Score-CAM and Ours of both tables", repeated),
    )
    yield claim(
        "fig6",
        "Fig. 6, Sec. 4.2",
        "The maps of the method are better to look at than those of Grad-CAM and Score-CAM (here: how much lies on the thing).",
        "qualitative",
        ordering((*THREE, "ground_truth"), INSIDE, OURS, ("Grad-CAM", "Score-CAM"), lower=False),
    )
    yield claim(
        "fig7",
        "Fig. 7, Sec. 4.2",
        "On five pictures the class probability rises earlier on insertion and falls earlier on deletion than with the "
        "other methods.",
        "qualitative",
        unmeasured(
            "needs the five pictures, which the paper does not name; on other pictures the areas under these curves are "
            "the entries on Insertion and Deletion"
        ),
    )
    yield claim(
        "fig8",
        "Fig. 8, Sec. 5.1",
        "The difference keeps the map from lying beside the thing.",
        "qualitative",
        ordering((*THREE, "ground_truth"), INSIDE, OURS, [WITHOUT], lower=False),
    )
    yield claim(
        "fig9",
        "Fig. 9, Sec. 5.1",
        "On the pictures of Fig. 8 the curves are better with the difference than without.",
        "qualitative",
        unmeasured(
            "needs the pictures of Fig. 8, which the paper does not name; on other pictures see the entries on the difference"
        ),
    )
    yield claim("fig10", "Fig. 10, Sec. 5.2", "Layers other than the last are chosen, too.", "qualitative", other_layers)
    yield claim(
        "not-always-last",
        "Fig. 10, Sec. 5.2",
        "What matters is not always in the last layer, so choosing a layer gives better maps than always taking the last.",
        "ordering",
        every(*(ordering(THREE, CURVES[m], OURS, ["the last layer"], lower=m == "Deletion") for m in CURVES)),
    )
    yield claim(
        "selection-matters",
        "Sec. 3",
        "The importance W finds the layer with the better map (here: against a layer drawn by lot).",
        "ordering",
        every(*(ordering(THREE, CURVES[m], OURS, ["a layer by lot"], lower=m == "Deletion") for m in CURVES)),
    )

    def eighteen(_: Evidence) -> list[tuple[bool, str]]:
        n = len(scenes()[0].selectable_layers)
        return [(n == 18, f"13 convolutions and 5 pools are {n} layers")]

    yield claim(
        "layers-18",
        "Fig. 5, Sec. 4.1",
        "VGG16 has 18 layers to choose from, the last one layer 18.",
        "print",
        stated("convolutions and pools of VGG16's layout", eighteen, model="slim_vgg16_scenes"),
    )

    def w_range(_: Evidence) -> list[tuple[bool, str]]:
        Y = np.linspace(0, 1, 101)
        W = 1 + (Y[:, None] - Y[None])
        return [
            (
                W.min() >= 0,
                f"W goes from {W.min():g} to {W.max():g}; the largest W belongs to the same layer with or without the 1",
            )
        ]

    yield claim(
        "eq7-plus-one",
        "Eq. (7)",
        "Adding 1 keeps the importance W from being negative.",
        "print",
        stated("W for all probabilities", w_range),
    )
    yield claim(
        "eq4-baseline",
        "Eqs. (4) and (5)",
        "The score of the whole picture is subtracted, and a softmax follows, which no constant changes.",
        "remark",
        stated(
            "pictures on which the subtraction changes the map",
            lambda _: [(moved > 1e-3, "no weight changes: the softmax cancels any constant") for moved in softmax_matters()[1]],
            model="slim_vgg16_scenes",
            on="2 drawn scenes",
        ),
    )
    yield claim(
        "eq5-softmax",
        "Eqs. (5) and (6)",
        "The softmax over channels makes the weights add up to 1, and nearly equal.",
        "remark",
        stated(
            "pictures on which the map differs from the plain mean of all feature maps (rank correlation below 0.95)",
            lambda _: [
                (r < 0.95, f"rank correlation {r:.3f} with the plain mean: scores between 0 and 1 give weights at most e apart")
                for r in softmax_matters()[0]
            ],
            model="slim_vgg16_scenes",
            on="2 drawn scenes",
        ),
    )
    yield claim(
        "eq2-symbol",
        "Eq. (2)",
        "Grad-CAM's weight is the mean derivative of the class probability by the values of a feature map.",
        "print",
        unmeasured(GARBLED),
    )
    yield claim(
        "deletion-order",
        "Sec. 4.1",
        "Deletion removes pixels “in order of increasing high value”.",
        "print",
        unmeasured("a matter of wording: the highest values must go first, or a lower area would not be better"),
    )


# ---------------------------------------------------------------------------------------------------------------- SISE

EIGHT = ("Grad-CAM", "Grad-CAM++", "Extremal Perturbation", "RISE", "Score-CAM", "Integrated Gradient", "FullGrad")
FIVE = ("05_sise", "06_comparison")
OF_SISE = {
    "EBPG": INSIDE[::-1],
    "mIoU": OVERLAP[::-1],
    "Bbox": ("Bbox", "box"),
    "Drop": ("Drop", "Average Drop, top 15 %"),
    "Increase": ("Increase, top 15 %", "Increase"),
}


def steel(model: str, dataset: str) -> bool:
    return "steel" in dataset.lower() or "severstal" in dataset.lower()


def not_steel(model: str, dataset: str) -> bool:
    return not steel(model, dataset)


def cost_of(method: str, column: str, needs: str, measure: str) -> Rule:
    """The rule for a printed cost: it belongs to another machine or setting; ours is shown beside it."""

    def rule(evidence: Evidence) -> Finding:
        rows = evidence.costs
        mine = rows[(rows["method"] == method) & (rows["network"] == "resnet50")] if len(rows) else rows
        if mine.empty:
            return Finding(UNTESTABLE, f"{needs}; no measurement of {method} on ResNet-50 yet", measure)
        row = mine.iloc[0]
        value = float(row[column]) - (1 if column == "forwards" else 0)  # one image checks the network
        return Finding(
            UNTESTABLE,
            f"{needs}; shown is ours, random weights, {row['side']} x {row['side']} pixels, {row['device']}",
            measure,
            value,
            n=1,
            model="resnet50",
            data="one photograph",
        )

    return rule


def sattarzadeh() -> Iterator[Claim]:
    claim = entries(SISE, "sattarzadeh2021")
    first = data.paper_table(SISE, "1")
    for (net, metric), rows in first.groupby(["model", "metric"], sort=False):
        words = ", ".join(f"{r.method} {r.value:g}" for r in rows.itertuples())
        yield claim(
            f"t1-{slug(net, metric)}",
            "Table 1",
            f"{NETWORKS[net]}, PASCAL VOC 2007: {metric} (percent) of {words}.",
            "number",
            numbers(SISE, "1", "SISE", ("05_sise",), OF_SISE, model=net, metric=metric),
            table="1",
            model=net,
            metric=metric,
        )
    for method in dict.fromkeys(data.paper_table(SISE, "2")["method"]):
        words = printed_row(SISE, table="2", method=method)
        yield claim(
            f"t2-{slug(method)}",
            "Table 2",
            f"ResNet-101, Severstal, {method}: {words}.",
            "number",
            numbers(SISE, "2", method, ("05_sise",), OF_SISE, method=method),
            table="2",
            method=method,
        )
    for row in data.paper_table(SISE, "runtime").itertuples():
        rule = cost_of(
            row.method.replace("Extremal Perturbation", "extremal perturbation"),
            "seconds",
            "needs the paper's Tesla T4 and its software",
            f"seconds of {row.method}",
        )
        yield claim(
            f"runtime-{slug(row.method)}",
            "Discussion, complexity",
            f"One map of {row.method} takes {row.value:g} seconds (ResNet-50, Tesla T4).",
            "number",
            rule,
            table="runtime",
            method=row.method,
        )
    for row in data.paper_table(SISE, "masks").itertuples():
        if row.method.endswith("selection"):
            rule = stated(
                "channels at the ends of ResNet-50's blocks",
                lambda _: [
                    (maps_of_resnet50()[0] == 3904, f"{' + '.join(map(str, maps_of_resnet50()[1]))} = {maps_of_resnet50()[0]}")
                ],
                model="resnet50",
                on="its architecture",
            )
            sentence = "ResNet-50 has 3,904 feature maps at the ends of its blocks."
        elif row.method == "RISE":
            rule = unmeasured("a setting of the paper's run and no result")
            sentence = f"RISE uses around {row.value:,.0f} masks."
        else:
            rule = cost_of(
                row.method, "forwards", "needs the paper's trained ResNet-50 and PASCAL VOC 2007", f"masks of {row.method}"
            )
            sentence = f"{row.method} uses around {row.value:,.0f} masks on ResNet-50."
        yield claim(
            f"masks-{slug(row.method)}", "Discussion, ablation", sentence, "number", rule, table="masks", method=row.method
        )
    for row in data.paper_table(SISE, "networks").itertuples():
        yield claim(
            f"network-{row.model}",
            "Experimental setup",
            f"{NETWORKS[row.model]} has a {row.metric.lower()} of {row.value:g} percent on {row.dataset}.",
            "number",
            unmeasured(f"needs the trained {NETWORKS[row.model]} of the paper and {row.dataset}"),
            table="networks",
            model=row.model,
        )

    truth = ("05_sise", "06_comparison", "ground_truth")
    for metric, rivals, says in (
        ("EBPG", [m for m in EIGHT if m != "Extremal Perturbation"], "than all methods but extremal perturbations"),
        ("mIoU", [m for m in EIGHT if m not in ("Grad-CAM", "Grad-CAM++")], "than all methods but Grad-CAM and Grad-CAM++"),
        ("Bbox", EIGHT, "than all methods"),
    ):
        yield claim(
            f"best-{slug(metric)}",
            "Table 1",
            f"SISE has a higher {metric} {says}, on both networks.",
            "ordering",
            ordering(truth, OF_SISE[metric], "SISE", rivals, lower=False, only=not_steel),
        )
    for metric in ("Drop", "Increase"):
        lower = metric == "Drop"
        best = "lowest Drop" if lower else "highest Increase"
        yield claim(
            f"best-{metric.lower()}",
            "Table 1",
            f"SISE has the {best} of all methods.",
            "ordering",
            ordering(FIVE, OF_SISE[metric], "SISE", EIGHT, lower=lower, only=not_steel),
        )
        yield claim(
            f"best-steel-{metric.lower()}",
            "Table 2",
            f"On steel defects, too, SISE has the {best}.",
            "ordering",
            ordering(
                FIVE,
                OF_SISE[metric],
                "SISE",
                [m for m in EIGHT if m not in ("Extremal Perturbation", "Integrated Gradient")],
                lower=lower,
                only=steel,
            ),
        )
    yield claim(
        "fastest",
        "Discussion, complexity",
        "Grad-CAM and Grad-CAM++ are the fastest of the methods.",
        "ordering",
        every(
            *(
                ordering(
                    ("05_sise",),
                    ("seconds",),
                    m,
                    [r for r in (*EIGHT, "SISE") if r not in ("Grad-CAM", "Grad-CAM++")],
                    lower=True,
                )
                for m in ("Grad-CAM", "Grad-CAM++")
            )
        ),
    )
    yield claim(
        "slowest",
        "Discussion, complexity",
        "Extremal perturbations are the slowest of the methods (here: seconds, with fewer steps than is usual).",
        "ordering",
        ordering(
            ("05_sise",),
            ("seconds",),
            "Extremal Perturbation",
            [r for r in (*EIGHT, "SISE") if r != "Extremal Perturbation"],
            lower=False,
        ),
    )
    yield claim(
        "faster-than-rise",
        "Discussion, complexity",
        "SISE is faster than RISE (here: fewer passes and less time; RISE with 4,000 masks, half of the paper's).",
        "qualitative",
        stated("networks on which SISE is faster", faster_than_rise, model="six networks", on="one picture each"),
    )
    yield claim(
        "mu-03-faster",
        "Discussion, ablation",
        "A threshold of 0.3 makes SISE faster, one of 0.5 faster still (here: passes).",
        "ordering",
        every(
            ordering(("05_sise",), ("passes",), "μ = 0.3", ["μ = 0"], lower=True),
            ordering(("05_sise",), ("passes",), "μ = 0.5", ["μ = 0.3"], lower=True),
        ),
    )
    yield claim(
        "mu-03-same",
        "Discussion, ablation",
        "With a threshold of 0.3 the maps hardly change (here: EBPG and Drop by less than two points).",
        "qualitative",
        every(
            close(("05_sise",), OF_SISE["EBPG"], "μ = 0.3", "μ = 0", 0.02),
            close(("05_sise",), OF_SISE["Drop"], "μ = 0.3", "μ = 0", 0.02),
        ),
    )
    yield claim(
        "mu-05-worse",
        "Discussion, ablation",
        "With a threshold of 0.5 the quality goes down a little.",
        "ordering",
        every(
            ordering(("05_sise",), OF_SISE["EBPG"], "μ = 0", ["μ = 0.5"], lower=False),
            ordering(("05_sise",), OF_SISE["Drop"], "μ = 0", ["μ = 0.5"], lower=True),
        ),
    )
    for name, rival, place, sentence in (
        ("blocks-together", "block 5 alone", "Discussion", "The blocks before the last one make the map better."),
        ("selection", "all maps, no selection", "Discussion", "Leaving out maps with a negative gradient makes the map better."),
        ("area", "masks not divided by their area", "Eq. (11)", "Dividing a mask by its area concentrates the map on the thing."),
        ("fusion", "added up, no masks", "Fusion module", "Masking with the next block's map keeps the map on the thing."),
    ):
        yield claim(
            name,
            place,
            sentence,
            "ordering",
            every(
                ordering(("05_sise",), OF_SISE["EBPG"], "SISE", [rival], lower=False),
                ordering(("05_sise",), OF_SISE["Drop"], "SISE", [rival], lower=True),
            ),
        )
    yield claim(
        "last-block",
        "Discussion",
        "The last block matters most.",
        "ordering",
        every(
            *(
                ordering(("05_sise",), OF_SISE[m], "block 5 alone", [f"block {b} alone" for b in range(1, 5)], lower=m == "Drop")
                for m in ("EBPG", "Drop")
            )
        ),
    )
    yield claim(
        "better-than-rise",
        "Methodology, Fig. 4",
        "Masks made of feature maps explain better than random masks.",
        "ordering",
        every(*(ordering(FIVE, OF_SISE[m], "SISE", ["RISE"], lower=m == "Drop") for m in ("EBPG", "Drop"))),
    )
    yield claim(
        "fig1",
        "Fig. 1, Fig. 7",
        "SISE tells the classes in a picture apart, better than other methods.",
        "qualitative",
        ordering(("05_sise",), ("own share",), "SISE", ("Grad-CAM", "RISE", "Score-CAM"), lower=False),
    )
    yield claim(
        "any-network",
        "Introduction, contributions",
        "SISE applies to all feed-forward convolutional networks.",
        "qualitative",
        stated(
            "convolutional networks on which SISE works",
            partial(works, method="SISE", wanted=lambda net: True, only=lambda net: "vit" not in net),
            model="six networks",
            on="one picture each",
        ),
    )
    yield claim(
        "clarity",
        "Introduction",
        "SISE's maps are far clearer to look at than others.",
        "qualitative",
        unmeasured("a matter of the eye; what of it can be counted are the entries on EBPG, mIoU and Bbox"),
    )
    yield claim(
        "fig6",
        "Fig. 6",
        "SISE's maps of VOC's pictures are finer and more complete than the others'.",
        "qualitative",
        unmeasured("a matter of the eye; what of it can be counted are the entries on EBPG, mIoU and Bbox"),
    )
    yield claim(
        "fig8",
        "Fig. 8",
        "SISE's maps of steel defects lie on the defect better than the others'.",
        "qualitative",
        ordering(
            (*FIVE, "ground_truth"),
            OF_SISE["EBPG"],
            "SISE",
            [m for m in EIGHT if m not in ("Extremal Perturbation", "Integrated Gradient")],
            lower=False,
            only=steel,
        ),
    )
    yield claim(
        "object-size",
        "Abstract",
        "SISE is as good for small things as for large ones.",
        "qualitative",
        unmeasured("needs results by the size of the thing; no run of Chapter 5 keeps them"),
    )
    yield claim(
        "no-chance",
        "Methodology",
        "SISE gives the same map every time, while RISE depends on its random masks.",
        "qualitative",
        stated(
            "two runs of each",
            lambda _: [
                (seeds_matter()[0] == 0, f"two maps of SISE differ by {seeds_matter()[0]:g}"),
                (seeds_matter()[1] < 0.999, f"two maps of RISE (40 masks) have rank correlation {seeds_matter()[1]:.2f}"),
            ],
            model="slim_vgg16_scenes",
            on="one drawn scene",
        ),
    )
    yield claim(
        "half-kept",
        "Discussion, ablation",
        "About half of the feature maps have a positive gradient and stay.",
        "qualitative",
        stated(
            "share kept, between 0.4 and 0.6",
            lambda e: [(0.4 < share < 0.6, f"{net}: {share:.2f}") for net, share in kept_maps(e)],
            model="slim_vgg16_scenes",
            on="one picture",
        ),
    )

    def marks(evidence: Evidence) -> list[tuple[bool, str]]:
        found = []
        for (_, net, metric), rows in (
            evidence.papers[SISE].query("table in ('1', '2')").groupby(["table", "model", "metric"], sort=False)
        ):
            ranks = rows.set_index("method")["value"].rank(method="min", ascending=metric == "Drop")
            found.append((ranks["SISE"] <= 2, f"{NETWORKS[net]}, {metric}: SISE is number {ranks['SISE']:g}"))
        return found

    yield claim(
        "print-meets",
        "Abstract, Tables 1 and 2",
        "SISE meets or beats the other methods (in print: first or second in every row).",
        "print",
        stated("place of SISE in each printed row", marks),
    )

    def supreme(evidence: Evidence) -> list[tuple[bool, str]]:
        rows = evidence.papers[SISE].query("metric in ('Drop', 'Increase')")
        best = {
            key: g.sort_values("value", ascending=key[1] == "Drop")["method"].iloc[0]
            for key, g in rows.groupby(["model", "metric"])
        }
        return [(first == "SISE", f"{NETWORKS[net]}, {metric}: {first}") for (net, metric), first in best.items()]

    yield claim(
        "print-supreme",
        "Discussion, Tables 1 and 2",
        "In Drop and Increase SISE is first on all three networks.",
        "print",
        stated("first of each printed row", supreme),
    )
    yield claim(
        "increase-lead",
        "Table 2",
        "On Severstal SISE has a higher Increase than RISE.",
        "print",
        stated(
            "lead in pictures of 1,381",
            lambda e: [
                (
                    (lead := e.printed(SISE, "2", "SISE", "Increase") - e.printed(SISE, "2", "RISE", "Increase")) > 0,
                    f"by {lead:.2f} points, which is {13.81 * lead:.2f} of one picture",
                )
            ],
        ),
    )

    def multiples(evidence: Evidence, table: str, n: int) -> list[tuple[bool, str]]:
        rows = evidence.papers[SISE].query("table == @table and metric == 'Increase'")
        once = rows[~rows["method"].isin(["RISE", "Extremal Perturbation"])]  # these are means of three runs
        fits = shares_of(n, list(once["value"]))
        return [
            (fit, f"{r.method}'s {r.value:g} is {'' if fit else 'no '}multiple of 1/{n}")
            for fit, r in zip(fits, once.itertuples(), strict=True)
        ]

    for name, table, n, kind, says in (
        (
            "pictures-voc",
            "1",
            4952,
            "remark",
            "is measured on the test set of 4,952 pictures; a mean may be over pairs with a class",
        ),
        ("pictures-severstal", "2", 1381, "print", "is a mean over 1,381 pictures"),
    ):
        yield claim(
            name,
            f"Experimental setup, Table {table}",
            f"Table {table} {says}.",
            kind,
            stated(f"Increase values that are multiples of 1/{n}", partial(multiples, table=table, n=n), whole=True),
        )
    yield claim(
        "increase-formula",
        "Model truth-based metrics",
        "Increase is computed from the sign of the change of every picture, Drop from its size.",
        "print",
        unmeasured(GARBLED),
    )

    def time_a_mask(evidence: Evidence) -> list[tuple[bool, str]]:
        ms = {
            m: 1000 * evidence.printed(SISE, "runtime", m, "Runtime") / evidence.printed(SISE, "masks", m, "Masks")
            for m in ("SISE", "RISE")
        }
        return [
            (
                abs(ms["SISE"] / ms["RISE"] - 1) < 0.1,
                f"{ms['SISE']:.1f} ms a mask for SISE, {ms['RISE']:.1f} for RISE: fewer masks make it faster, by less "
                "than their number says",
            )
        ]

    yield claim(
        "time-a-mask",
        "Discussion, ablation",
        "SISE is faster than RISE because it has fewer masks; a mask of SISE takes longer, though.",
        "remark",
        stated("time a mask", time_a_mask),
    )

    def equivalent(_: Evidence) -> list[tuple[bool, str]]:
        r = np.random.default_rng(0)
        psi = r.random(200)
        found = []
        for name, shown in (
            ("every pixel shown equally often", np.full(50, 0.5)),
            ("pixels shown with different frequency", r.uniform(0.1, 0.9, 50)),
        ):
            M = (r.random((20000, 50)) < shown).astype(float)
            scores = np.resize(psi, 20000)
            nine, ten = (scores @ M) / M.sum(0), (scores @ M) / 20000
            spread = (ten / nine).std() / (ten / nine).mean()
            found.append((spread < 0.02, f"{name}: the ratio of Eq. (10) to Eq. (9) varies by {spread:.0%} from pixel to pixel"))
        return found

    yield claim(
        "eq9-eq10",
        "Eqs. (9) and (10)",
        "With the mask itself as the contribution, Eq. (10) is equivalent to Eq. (9).",
        "print",
        stated("both equations on 20,000 random binary masks", equivalent),
    )

    def no_positive(_: Evidence) -> list[tuple[bool, str]]:
        alpha = np.array([-3.0, -2.0, -1.0])
        return [
            (
                (alpha > mu * alpha.max()).any(),
                f"with gradients -3, -2, -1 and a threshold of {mu:g} nothing is kept: the set of masks is empty",
            )
            for mu in (0.0, 0.3)
        ]

    yield claim(
        "eq7-empty",
        "Eqs. (7) and (8)",
        "Where no gradient of a layer is positive, the rule leaves no mask, and the text has no case for it.",
        "remark",
        stated("the rule on three negative gradients", no_positive),
    )


# ------------------------------------------------------------------------------------------------ Gradual Extrapolation

TWO = ("02_gradual_extrapolation", "06_comparison", "ground_truth")
GE, GE_CEB = "Gradual Extrapolation of Grad-CAM", "Gradual Extrapolation of contrastive EB"
PICTURES = ("golden retriever", "black widow 1", "black widow 2", "timber wolf 1", "timber wolf 2")
INSECTS = {"ant", "fly", "ladybug", "cicada", "leaf beetle"}  # of the labels printed; spiders and ticks are arachnids


def own_class(evidence: Evidence, table: str, picture: str) -> float:
    """Printed probability of the picture's own class; 0 where it is not among the five."""
    rows = evidence.paper(SZANDALA, table, dataset=picture)
    mine = rows[rows["metric"] == picture.rstrip(" 12")]["value"]
    return float(mine.iloc[0]) if len(mine) else 0.0


def rank_of_own(evidence: Evidence, table: str, picture: str) -> int:
    """Printed place of the picture's own class."""
    return evidence.paper(SZANDALA, table, dataset=picture)["metric"].tolist().index(picture.rstrip(" 12")) + 1


def first_label(evidence: Evidence, table: str, picture: str) -> str:
    return str(evidence.paper(SZANDALA, table, dataset=picture)["metric"].iloc[0])


def compared(evidence: Evidence, before: str, after: str) -> list[tuple[bool, str]]:
    """For each picture: is the printed probability of its class higher in one table than in another?"""
    found = []
    for picture in PICTURES:
        a, b = own_class(evidence, before, picture), own_class(evidence, after, picture)
        found.append((b > a, f"{picture}: {a:.2f} before, {b:.2f} after"))
    return found


def class_discriminative(_: Evidence) -> Finding:
    """Of what lies on any thing, the share on the class that is asked for: Gradual Grad-CAM against Grad-CAM."""
    net, ahead = models.load("slim_vgg16_scenes_multi"), []
    for photo in datasets.load("scenes_multi", n=32, seed=0):
        if len(photo.class_names) < 2:
            continue
        x, target = net.preprocess(photo.picture), net.index(photo.class_names[0])
        asked, *others = (photo.mask(name, x.shape[-2:]) for name in photo.class_names)
        maps = gradual_extrapolation(net, x, target, coarse=cam.grad_cam), cam.grad_cam(net, x, target)
        with_ge, without = (float((s * asked).sum() / (s * (asked + torch.stack(others).amax(0))).sum()) for s in maps)
        ahead.append(with_ge - without)
    low, high = metrics.bootstrap_interval(ahead)
    gap = Gap("Grad-CAM", net.name, "scenes with several classes", float(np.mean(ahead)), low, high, len(ahead), True)
    says = {REPRODUCED: "a larger share with it", FAILED: "a smaller share with it"}.get(verdict_on([gap]), "no difference found")
    measure = "share on the class that is asked for, of what lies on things: Gradual Grad-CAM minus Grad-CAM"
    return Finding(UNTESTABLE, f"here: {says}", measure, gap.mean, low, high, "", gap.n, gap.model, gap.dataset)


def szandala() -> Iterator[Claim]:
    claim = entries(SZANDALA, "szandala2021")
    whose = {"1": "Original", "2": "Grad-CAM", "3": GE, "4": "contrastive EB", "5": GE_CEB}
    for (table, picture), rows in data.paper_table(SZANDALA).groupby(["table", "dataset"], sort=False):
        seen = "as it is" if table == "1" else f"through {rows['method'].iloc[0]}"
        yield claim(
            f"t{table}-{slug(picture)}",
            f"Table {table}",
            f"VGG-16, {picture}, {seen}: {printed_row(SZANDALA, table=table, dataset=picture)}.",
            "number",
            numbers(SZANDALA, table, whose[table], TWO[:1], nearby=(picture.rstrip(" 12"),), enough=1, dataset=picture),
            table=table,
            dataset=picture,
        )

    for name, one, other, words in (
        ("gradcam", GE, "Grad-CAM", "Grad-CAM"),
        ("ceb", GE_CEB, "contrastive EB", "contrastive excitation backprop"),
    ):
        figure = "Fig. 4" if name == "gradcam" else "Fig. 5"
        yield claim(
            f"sharper-{name}",
            f"{figure}, Abstract",
            f"Gradual Extrapolation makes {words}'s map sharper (here: more of it in its highest twentieth).",
            "qualitative",
            ordering(TWO, ("energy in the highest twentieth",), one, [other], lower=False),
        )
        yield claim(
            f"on-thing-{name}",
            f"{figure}, Abstract",
            f"Gradual Extrapolation puts more of {words}'s map on the thing.",
            "qualitative",
            ordering(TWO, INSIDE, one, [other], lower=False),
        )
        yield claim(
            f"shape-{name}",
            f"{figure}, Sec. VI",
            f"Gradual Extrapolation makes {words}'s map follow the shape of the thing (here: box score).",
            "qualitative",
            ordering(TWO, ("box score", "box"), one, [other], lower=False),
        )
        yield claim(
            f"evidence-{name}",
            f"{figure}, Abstract",
            f"What {words}'s sharpened map shows is what counts for the class (here: more of it lies on the thing than "
            "with a constant in place of the map).",
            "qualitative",
            ordering(TWO, INSIDE, one, ["constant"], lower=False),
        )
    yield claim(
        "class-discriminative",
        "Sec. IV",
        "The text asks whether maps with Gradual Extrapolation tell classes apart better than without, and does not say.",
        "remark",
        class_discriminative,
    )
    yield claim(
        "fig1-fig2",
        "Figs. 1 and 2, Sec. II",
        "Contrastive excitation backprop is more precise than Grad-CAM.",
        "qualitative",
        ordering(TWO, INSIDE, "contrastive EB", ["Grad-CAM"], lower=False),
    )

    def applies(evidence: Evidence) -> list[tuple[bool, str]]:
        rows = evidence.costs[evidence.costs["method"] == GE] if len(evidence.costs) else evidence.costs
        return [(r.verdict == "works", f"{r.network}: {r.verdict}") for r in rows.itertuples()]

    yield claim(
        "any-model",
        "Abstract",
        "The technique applies to any deep network.",
        "qualitative",
        stated("networks on which it works", applies, model="seven networks", on="one picture each"),
    )
    yield claim(
        "wrong-stays-wrong",
        "Sec. VI",
        "It does not correct a map that is in the wrong place.",
        "qualitative",
        unmeasured("no stored table has it; Chapter 2 prints a test on a few maps"),
    )
    yield claim(
        "less-background",
        "Sec. VI",
        "It leaves less of the background in the map (here: less of the picture is above the map's mean).",
        "qualitative",
        every(
            ordering(TWO, ("area above mean", "area"), GE, ["Grad-CAM"], lower=True),
            ordering(TWO, ("area above mean", "area"), GE_CEB, ["contrastive EB"], lower=True),
        ),
    )
    yield claim(
        "fig4-wolves",
        "Figs. 1 and 4, Sec. IV",
        "Behind Gradual Extrapolation the second wolf picture is explained by the heads and not the bodies.",
        "qualitative",
        unmeasured("needs outlines of heads and bodies in the author's picture, and VGG16 trained on ImageNet"),
    )

    yield claim(
        "originals-correct",
        "Table 1",
        "VGG-16 names all five pictures correctly.",
        "print",
        stated(
            "first label of each picture",
            lambda e: [(p.startswith(first_label(e, "1", p)), f"{p}: {first_label(e, '1', p)}") for p in PICTURES],
        ),
    )
    yield claim(
        "three-keep-label",
        "Table 2, Sec. V",
        "Behind Grad-CAM three of the five pictures keep their label.",
        "print",
        stated(
            "pictures with their own label first",
            lambda e: [
                (
                    sum(p.startswith(first_label(e, "2", p)) for p in PICTURES) == 3,
                    "three, with the two rows of wolves that our text version has below Table 1",
                )
            ],
        ),
    )
    yield claim(
        "wolf-certain",
        "Table 2, Sec. V",
        "Behind Grad-CAM the single wolf is named with very high certainty (read as: 0.9 or more).",
        "print",
        stated(
            "printed probability",
            lambda e: [
                (
                    own_class(e, "2", "timber wolf 1") >= 0.9,
                    f"{own_class(e, '2', 'timber wolf 1'):.2f}, after {own_class(e, '1', 'timber wolf 1'):.2f} for the "
                    "whole picture",
                )
            ],
        ),
    )
    yield claim(
        "spider-partly-corrected",
        "Table 3, Sec. V",
        "Gradual Extrapolation of Grad-CAM partly corrects the first black widow: it is detected now, with 0.14.",
        "print",
        stated(
            "probability of the own class, before and after",
            lambda e: [
                (own_class(e, "2", PICTURES[1]) == 0, "before: not among the five"),
                (own_class(e, "3", PICTURES[1]) == 0.14, f"after: {own_class(e, '3', PICTURES[1]):.2f}"),
            ],
        ),
    )
    yield claim(
        "spider-fixed",
        "Table 3, Sec. V",
        "It turns the second spider from a croquet ball into a black widow with 0.65.",
        "print",
        stated(
            "labels and probability",
            lambda e: [
                (first_label(e, "2", PICTURES[2]) == "croquet ball", "before: croquet ball"),
                (first_label(e, "3", PICTURES[2]) == "black widow", "after: black widow"),
                (own_class(e, "3", PICTURES[2]) == 0.65, "0.65"),
            ],
        ),
    )
    yield claim(
        "all-insects",
        "Table 3, Sec. V",
        "All five names for the first spider are insects.",
        "print",
        stated(
            "printed labels that are insects",
            lambda e: [
                (label in INSECTS, f"{label} is no insect" if label not in INSECTS else label)
                for label in e.paper(SZANDALA, "3", dataset=PICTURES[1])["metric"]
            ],
        ),
    )
    yield claim(
        "ceb-closer",
        "Table 4, Sec. V",
        "Behind cEB the classifications are closer to what is expected than behind Grad-CAM.",
        "print",
        stated("probability of the own class, Table 2 and Table 4", partial(compared, before="2", after="4")),
    )
    yield claim(
        "ceb-all-recognised",
        "Table 4, Sec. V",
        "Behind cEB every animal is among the five names.",
        "print",
        stated(
            "own class among the five",
            lambda e: [(own_class(e, "4", p) > 0, f"{p}: {own_class(e, '4', p):.2f}") for p in PICTURES],
        ),
    )
    yield claim(
        "quantity-not-quality",
        "Sec. V",
        "Gradual Extrapolation changes how sure the network is, not what it says.",
        "print",
        stated(
            "first label, before and after, both kinds of map",
            lambda e: [
                (
                    first_label(e, a, p) == first_label(e, b, p),
                    f"Table {b}, {p}: {first_label(e, a, p)} becomes {first_label(e, b, p)}"
                    if first_label(e, a, p) != first_label(e, b, p)
                    else f"Table {b}, {p}",
                )
                for a, b in (("2", "3"), ("4", "5"))
                for p in PICTURES
            ],
        ),
    )
    yield claim(
        "retriever-on-par",
        "Table 5, Sec. V",
        "Behind Gradual cEB the retriever is on par with the ice bear.",
        "print",
        stated(
            "both probabilities",
            lambda e: [
                (
                    own_class(e, "5", PICTURES[0])
                    == float(e.paper(SZANDALA, "5", dataset=PICTURES[0], metric="ice bear")["value"].item()),
                    "0.37 each",
                )
            ],
        ),
    )
    yield claim(
        "only-the-last",
        "Table 5, Sec. V",
        "Only on the last picture, the pair of wolves, does Gradual cEB demote the class.",
        "print",
        noted(
            stated(
                "rank of the own class, Table 4 and Table 5",
                lambda e: [
                    (
                        (after > before) == (p == PICTURES[-1]),
                        f"{p}: place {before}, then {after} ({own_class(e, '5', p) - own_class(e, '4', p):+.2f})",
                    )
                    for p in PICTURES
                    for before, after in [(rank_of_own(e, "4", p), rank_of_own(e, "5", p))]
                ],
                whole=True,
            ),
            "others lose more probability, and keep their place",
        ),
    )
    yield claim(
        "wolf-third",
        "Table 5, Sec. V",
        "There timber wolf is third with 0.15, behind Arctic fox.",
        "print",
        stated(
            "place and probability",
            lambda e: [
                (
                    e.paper(SZANDALA, "5", dataset=PICTURES[-1])["metric"].tolist().index("timber wolf") == 2,
                    "third as printed, level with white wolf",
                ),
                (own_class(e, "5", PICTURES[-1]) == 0.15, "0.15"),
                (first_label(e, "5", PICTURES[-1]) == "Arctic fox", "Arctic fox is first"),
            ],
        ),
    )
    yield claim(
        "rows-sorted",
        "Tables 1 to 5",
        "The five names of each picture are printed by probability, but for one row.",
        "remark",
        stated(
            "rows in falling order",
            lambda e: [
                (rows["value"].is_monotonic_decreasing, f"Table {t}, {p}: {', '.join(f'{v:.2f}' for v in rows['value'])}")
                for (t, p), rows in e.papers[SZANDALA].groupby(["table", "dataset"])
            ],
        ),
    )
    yield claim(
        "kuvasz",
        "Tables 3 to 5",
        "One class is spelt in two ways.",
        "remark",
        stated(
            "spellings of kuvasz",
            lambda e: [
                (label == "kuvasz", f"Table {t} prints {label}")
                for t, label in e.papers[SZANDALA][["table", "metric"]].itertuples(index=False)
                if label.startswith("kuvas")
            ],
            whole=True,
        ),
    )
    yield claim(
        "overflow",
        "Sec. III",
        "Dividing each contribution by its maximum protects a model of any depth from overflow.",
        "print",
        elsewhere(
            stated(
                "does the product of the plain means of all levels overflow?",
                lambda _: [
                    (
                        not np.isfinite(product_of_means()) or product_of_means() > 1e30,
                        f"the largest product is {product_of_means():.2g}, far from any limit: not needed here",
                    )
                ],
                model="slim_vgg16_scenes",
                on="one drawn scene",
            ),
            "needs a network deep enough to overflow",
        ),
    )


# ---------------------------------------------------------------------------------------------------------- the survey

ONE = ("01_survey",)


def above_plain(method: str, sets: Sequence[str], metric: str = "energy inside") -> Rule:
    """The rule for "the map points at the thing": ahead of the best map that explains nothing, on drawn pictures."""

    def rule(evidence: Evidence) -> Finding:
        rows = evidence.means.get("ground_truth", pd.DataFrame(columns=["m", "k", "set", "n"]))
        rows = rows[(rows["m"] == key(method)) & (rows["k"] == key(metric)) & rows["set"].isin(sets)]
        found = [
            Gap(r.best_plain, r.model, r.dataset, r.above_best_plain, r.above_best_plain_low, r.above_best_plain_high, r.n, True)
            for r in rows.itertuples()
            if r.n >= MIN_PICTURES
        ]
        measure = f"{metric}: {method} above the best map that explains nothing"
        if not found:
            return Finding(UNTESTABLE, f"no run yet that has {metric} of {method}", measure)
        worst = min(found, key=lambda gap: gap.mean)
        held = sum(gap.low > 0 for gap in found)
        return Finding(
            verdict_on(found),
            f"holds in {held} of {len(found)} runs{in_runs(found, worst)}",
            f"{measure} ({worst.rival})",
            worst.mean,
            worst.low,
            worst.high,
            "interval above 0",
            worst.n,
            worst.model,
            worst.dataset,
        )

    return rule


def tamboli() -> Iterator[Claim]:
    claim = entries(TAMBOLI, "tamboli2021")

    def permuted(_: Evidence) -> list[tuple[bool, str]]:
        g = torch.Generator().manual_seed(0)
        W1, W2, x = torch.randn(16, 8, generator=g), torch.randn(4, 16, generator=g), torch.randn(8, generator=g)
        order = torch.randperm(16, generator=g)
        gap = float((W2 @ (W1 @ x).relu() - W2[:, order] @ (W1[order] @ x).relu()).abs().max())
        return [(gap < 1e-5, "the outputs are the same to five digits")]

    yield claim(
        "unit-order",
        "Sec. II-A",
        "In a fully connected layer the order of the units means nothing.",
        "qualitative",
        stated("a two-layer network with its hidden units in another order", permuted, on="random numbers"),
    )
    yield claim(
        "fig1-faces",
        "Fig. 1, Sec. II-A",
        "A unit of a late layer finds faces, although no class of ImageNet is a face (here: its peak lies on the face, "
        "of four places).",
        "qualitative",
        every(
            beyond(ONE, ("peak on the face",), "trained", 0.25),
            ordering(ONE, ("peak on the face",), "trained", ["shuffled weights"], lower=False),
        ),
    )
    yield claim(
        "gabor",
        "Sec. I",
        "The filters of a first layer look like Gabor filters (here: they have directions, more than with their places "
        "shuffled).",
        "qualitative",
        ordering(ONE, ("selectivity",), "as learnt", ["places shuffled"], lower=False),
    )
    yield claim(
        "impressions-class",
        "Fig. 2, Sec. II-B",
        "A picture climbed from noise shows what the network takes for the class (here: the network is sure of it, 0.9 or more).",
        "qualitative",
        beyond(ONE, ("probability",), "saliency-driven, itself", 0.9, table="impressions"),
    )
    yield claim(
        "impressions-natural",
        "Fig. 2, Sec. II-B",
        "It looks like the thing and not like noise (here: another network names it first, more often than not).",
        "qualitative",
        beyond(ONE, ("first choice",), "saliency-driven, another network", 0.5, table="impressions"),
    )
    yield claim(
        "impressions-smooth",
        "Sec. II-B",
        "A penalty on total variation makes it smoother.",
        "ordering",
        ordering(ONE, ("total variation",), "class impression", ("without total variation", "no total variation"), lower=True),
    )
    yield claim(
        "amil-better",
        "Fig. 6, Sec. II-C",
        "Attention MIL shows the patches that matter, and Grad-CAM does not (the paper: tissue; here: bags of digits).",
        "qualitative",
        noted(
            ordering(ONE, ("share on nines",), "plain: attention", ["plain: Grad-CAM"], lower=False),
            "bags on which Grad-CAM is blank have no share and are left out; only the network with plain attention is compared",
        ),
    )
    yield claim(
        "gradcam-random",
        "Fig. 6, Sec. II-C",
        "On bags of tissue patches Grad-CAM points at random.",
        "qualitative",
        elsewhere(
            close(ONE, ("brightest patch is a nine",), "plain: Grad-CAM", "plain: a patch at random", 0.05),
            "needs tissue pictures and the paper's network; on bags of digits it is not random",
        ),
    )
    yield claim(
        "amil-accuracy",
        "Fig. 6, Sec. II-C",
        "Both networks are about equally accurate there.",
        "qualitative",
        unmeasured("needs labelled tissue pictures and networks trained on them"),
    )
    yield claim(
        "patch-confidence",
        "Fig. 5, Sec. II-C",
        "The brightness of a patch is the network's confidence for it.",
        "print",
        unmeasured(
            "a matter of wording: the author's code shows the attention weight of a patch, which is a share of the bag "
            "and no class confidence"
        ),
    )

    averaged = {"efficientnet_lite0", "resnet18", "resnet50", "slim_vgg16_scenes"}
    yield claim(
        "cam-architecture",
        "Sec. II-D",
        "CAM needs averaged features and one linear layer.",
        "qualitative",
        stated(
            "networks on which CAM applies, against those with such an end",
            partial(works, method="CAM", wanted=lambda net: net in averaged),
            model="seven networks",
            on="one picture each",
        ),
    )
    yield claim(
        "gradcam-any",
        "Sec. II-D",
        "Grad-CAM works with every architecture, fully connected layers or not.",
        "qualitative",
        stated(
            "networks on which Grad-CAM works",
            partial(works, method="Grad-CAM", wanted=lambda net: True),
            model="seven networks",
            on="one picture each",
        ),
    )
    yield claim(
        "last-layer-best",
        "Sec. II-D",
        "The last convolution is the best layer for Grad-CAM.",
        "ordering",
        ordering(
            ("01_survey", "03_layer_selection"),
            ("asked", "Insertion"),
            "features.29",
            ("features.26", "features.27", "features.28"),
            lower=False,
            needs="no stored table has it; Chapter 1 prints a comparison, by which the layer before is a little better",
        ),
    )
    yield claim(
        "guided-fine",
        "Sec. II-D",
        "Guided Grad-CAM is finer than Grad-CAM and keeps to the class (here: more of it lies on the thing).",
        "ordering",
        ordering(
            ("01_survey", "06_comparison", "ground_truth"), ("asked", *INSIDE), "Guided Grad-CAM", ["Grad-CAM"], lower=False
        ),
    )
    yield claim(
        "muting",
        "Sec. I",
        "Muting pixels and watching the class confidence shows where the thing is.",
        "qualitative",
        above_plain("occlusion", ("scenes", "steel")),
    )
    yield claim(
        "fig7",
        "Fig. 7, Sec. IV",
        "Grad-CAM of the first choice (a lab coat) lies on the thing that is named.",
        "qualitative",
        above_plain("Grad-CAM", ("scenes", "steel")),
    )
    yield claim(
        "fig8-fig9",
        "Fig. 8, Fig. 9, Sec. IV",
        "Asked for a ball pen or a folding chair, which is not among the first five classes, Grad-CAM moves to it (here: pasted "
        "things, against the map of the first choice).",
        "qualitative",
        ordering(ONE, ("energy inside",), "map of the asked", ["map of the first choice"], lower=False),
    )
    yield claim(
        "fig10",
        "Fig. 10, Sec. IV",
        "Asked for a moped, Grad-CAM shows the mopeds and the person as well.",
        "qualitative",
        unmeasured("needs the author's picture and the network of his repository"),
    )
    yield claim(
        "fig11",
        "Fig. 11, Sec. IV",
        "Asked for a class that is not there, Grad-CAM shows the thing that is nearest to it.",
        "qualitative",
        elsewhere(
            every(
                beyond(ONE, ("energy, to its area",), "nearest thing", 1.0),
                ordering(ONE, ("energy, to its area",), "nearest thing", ["farthest thing"], lower=False),
            ),
            "needs things that are near to an absent class; our shapes are drawn to be unlike, and among them it is no rule",
        ),
    )
    yield claim(
        "fig12",
        "Fig. 12, Sec. IV",
        "Where things of two classes are there, Grad-CAM shows those of the class that is asked for.",
        "qualitative",
        ordering(
            ONE,
            ("asked",),
            "Grad-CAM",
            ("Grad-CAM, shuffled weights", "edge detector", "random map", "centred blob"),
            lower=False,
        ),
    )
    yield claim(
        "transformations",
        "Sec. II-B",
        "Random transformations while climbing make a class impression robust.",
        "qualitative",
        unmeasured("needs class impressions with and without them; no stored table has both"),
    )
    yield claim(
        "several-regions",
        "Sec. IV",
        "Several regions light up because the probabilities need not add up to one.",
        "qualitative",
        unmeasured(
            "no stored table has it; Chapter 1 prints a test with a network whose probabilities do, and both regions light up"
        ),
    )
    yield claim(
        "sums",
        "Sec. IV",
        "With several labels the probabilities of the classes do not add up to one.",
        "qualitative",
        stated(
            "sum of the probabilities",
            lambda _: [(abs(total - 1) > 0.01, f"{total:.2f}") for total in sums_of_sigmoids()],
            model="slim_vgg16_scenes_multi",
            on="2 drawn scenes",
        ),
    )
    yield claim(
        "figure-numbers",
        "Sec. IV",
        "Both the moped and the teddy are in Fig. 10.",
        "print",
        unmeasured("a slip of the numbering: the teddy is in Fig. 11, as the list of observations has it"),
    )


# ---------------------------------------------------------------------------------------------------------- the ledger


def all_claims() -> list[Claim]:
    """Every entry of the ledger, paper by paper."""
    found = [*tamboli(), *szandala(), *sannomiya(), *mitra(), *sattarzadeh()]
    ids = [claim.id for claim in found]
    if twice := {name for name in ids if ids.count(name) > 1}:
        raise ValueError(f"two claims have the same id: {', '.join(sorted(twice))}")
    return found


def ledger(claims: Sequence[Claim] | None = None, evidence: Evidence | None = None) -> pd.DataFrame:
    """The verdict on every claim, with what it rests on: the columns of data/claims.csv."""
    evidence, rows = evidence or Evidence(), []
    for claim in all_claims() if claims is None else claims:
        try:
            finding = claim.rule(evidence)
        except Exception as error:
            error.add_note(f"while judging {claim.id}")
            raise
        if claim.kind == "remark":
            why = finding.why.partition(" statements true")[2].lstrip(":; ").removeprefix("false: ") or finding.why
            finding = replace(finding, verdict=REMARK, why=why)
        rows.append(
            (
                claim.id,
                claim.paper,
                claim.place,
                claim.claim,
                claim.kind,
                finding.measure,
                finding.value,
                finding.low,
                finding.high,
                finding.tolerance,
                finding.n,
                finding.model,
                finding.data,
                finding.verdict,
                finding.why,
            )
        )
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.round({"value": 4, "ci_low": 4, "ci_high": 4})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with data/claims.csv and write nothing")
    options = parser.parse_args()
    table, path = ledger(), data.data_folder() / "claims.csv"
    if options.check:
        old = pd.read_csv(path).set_index("id")["verdict"].to_dict()
        new = table.set_index("id")["verdict"].to_dict()
        changed = [f"{i}: {old.get(i)} -> {new.get(i)}" for i in dict.fromkeys([*old, *new]) if old.get(i) != new.get(i)]
        print("\n".join(changed) or "every verdict is as in data/claims.csv")
        sys.exit(bool(changed))
    table.to_csv(path, index=False)
    print(f"{path.name}: {len(table)} claims")
    print(table.groupby(["paper", "verdict"]).size().unstack(fill_value=0).to_string())


if __name__ == "__main__":
    main()
