"""How the claim ledger comes to a verdict: the evidence, and the rules that compute verdicts from it.

A rule is a function of the evidence; the functions below make such rules. No rule looks at who made a claim, and none takes
a verdict from its caller, except `unmeasured` and `elsewhere`, for sentences that no number of ours can settle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from helpers import data, metrics

VERDICTS = ("reproduced", "partly", "undecided", "not reproduced", "not testable here")
REPRODUCED, PARTLY, UNDECIDED, FAILED, UNTESTABLE = VERDICTS
REMARK = "remark"  # in place of a verdict: what we noticed in the print, and the paper does not claim
MIN_PICTURES = 10  # fewer are no measurement of an ordering
MIN_FOR_MEANS = 30  # where only means were kept, and no differences picture by picture
MIN_FOR_NUMBERS = 100  # fewer are no measurement of a printed number
RELATIVE, POINTS = 0.10, 0.01  # a number is reproduced within a tenth of it, or within one percentage point
NAN = float("nan")


@dataclass(frozen=True)
class Finding:
    """What came of a claim: a verdict and what it rests on. value, low, high: NaN where there is no single number."""

    verdict: str
    why: str
    measure: str = ""
    value: float = NAN
    low: float = NAN
    high: float = NAN
    tolerance: str = ""
    n: int = 0
    model: str = ""
    data: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in (*VERDICTS, REMARK):
            raise ValueError(f"{self.verdict!r} is no verdict; there are {', '.join(VERDICTS)}")


# ------------------------------------------------------------------------------------------------------ the evidence

SAME = {  # one method, spelt in several ways
    "contrastiveeb": "ceb", "contrastiveexcitationbackprop": "ceb", "contrastiveexcitationbackpropagation": "ceb",
    "gradualextrapolationofgradcam": "gradualgradcam", "gradualextrapolationofcontrastiveeb": "gradualceb",
    "gradualcontrastiveeb": "gradualceb",
    "gradualextrapolationofaconstant": "constant", "augmentedgradcam++": "auggradcam++", "layerselection": "ours",
    "layerselectionnodifference": "oursw/odifference",
    "layerselectionw/odifference": "oursw/odifference", "integratedgradients": "integratedgradient",
    "extremalperturbations": "extremalperturbation", "scorecamwithdifference": "scorecamw/difference",
}  # fmt: skip
SETS = {"cats and dogs": "dogs_vs_cats", "pascal voc 2007": "voc2007"}  # as a paper calls a data set, as the book does


def key(name: str) -> str:
    """The name of a method or metric without its spelling: 'Grad-CAM' and 'GradCAM' are one."""
    plain = re.sub(r"[^a-z0-9+/=.]", "", str(name).lower())
    return SAME.get(plain, plain)


def set_key(name: str) -> str:
    """The name of a data set without its spelling."""
    plain = str(name).lower().removeprefix("the paper's own pictures: ")
    return SETS.get(plain, plain)


class Evidence:
    """The papers' tables, our means, and our measurements picture by picture, each by the name of its file."""

    def __init__(self) -> None:
        folder = data.data_folder()
        self.papers = {path.stem: data.paper_table(path.stem) for path in sorted((folder / "papers").glob("*.csv"))}
        files = {path.stem: data.results(path.stem) for path in sorted((folder / "results").glob("*.csv"))}
        self.costs = files.pop("methods", pd.DataFrame())
        self.means = {name: rows for name, rows in files.items() if {"table", "method", "metric", "ci_low", "n"} <= {*rows}}
        if "ground_truth" in files:
            self.means["ground_truth"] = of_truth(files["ground_truth"])
        names = sorted((folder / "results" / "per_image").glob("*.csv"))
        self.images = {path.stem: tidy(data.results_per_image(path.stem)) for path in names}
        self.means = {
            name: rows.assign(m=rows["method"].map(key), k=rows["metric"].map(key)) for name, rows in self.means.items()
        }

    def paper(self, bibkey: str, table: str, **names: str) -> pd.DataFrame:
        """Rows of a printed table, by the columns given."""
        rows = self.papers[bibkey]
        rows = rows[rows["table"] == table]
        for column, name in names.items():
            rows = rows[rows[column] == name]
        if rows.empty:
            raise ValueError(f"table {table} of {bibkey} has no rows with {names}")
        return rows

    def printed(self, bibkey: str, table: str, method: str, metric: str, **names: str) -> float:
        """One printed number."""
        rows = self.paper(bibkey, table, method=method, metric=metric, **names)
        if len(rows) != 1:
            raise ValueError(f"table {table} of {bibkey} has {len(rows)} numbers of {method}, {metric}")
        return float(rows["value"].item())


Rule = Callable[[Evidence], Finding]


def of_truth(rows: pd.DataFrame) -> pd.DataFrame:
    """`ground_truth.csv` in the columns of the chapters' means: trained networks on drawn pictures."""
    rows = rows[rows["weights"] == "trained"]
    return rows.assign(table="ground truth", dataset="drawn: " + rows["set"])


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows picture by picture, with keys, and with what a map cost as metrics."""
    who = ["table", "model", "dataset", "image", "target", "method"]
    once = rows.drop_duplicates(who)
    pieces = [rows[[*who, "metric", "value"]]]
    pieces += [once[who].assign(metric="seconds", value=once["seconds"])]
    pieces += [once[who].assign(metric="passes", value=once["forwards"] + once["backwards"])]
    found = pd.concat(pieces, ignore_index=True)
    return found.assign(m=found["method"].map(key), k=found["metric"].map(key))


# --------------------------------------------------------------------------------------------------------- orderings


@dataclass(frozen=True)
class Gap:
    """How far a method is ahead of a rival in the claimed direction, on one network and data set."""

    rival: str
    model: str
    dataset: str
    mean: float
    low: float
    high: float
    n: int
    paired: bool


def gaps(
    evidence: Evidence, sources: Sequence[str], metric: Sequence[str], best: str, rivals: Sequence[str], lower: bool,
    only: Callable[[str, str], bool] | None = None,
) -> Iterator[Gap]:  # fmt: skip
    """Every comparison that the results allow, one for each network, data set and rival: of the first source that has it.

    metric: its names, the first that a chapter has counts; only: which networks and data sets count.
    """
    found: dict[tuple[str, str, str], Gap] = {}
    for source in sources:
        if found and source == "ground_truth":  # means only: it stands in where the chapters have nothing
            break
        for rows, compare in ((evidence.images.get(source), paired_gap), (evidence.means.get(source), unpaired_gap)):
            if rows is None:
                continue
            name = next((key(m) for m in metric if (rows["k"] == key(m)).any()), None)
            for (model, dataset), part in rows[rows["k"] == name].groupby(["model", "dataset"], sort=False):
                if only and not only(model, dataset):
                    continue
                for rival in rivals:
                    if (whose := (model, dataset, rival)) in found:  # an earlier source, or pictures and not means, go first
                        continue
                    made = [compare(of_table, best, rival, lower) for _, of_table in part.groupby("table", sort=False)]
                    made = [gap for gap in made if gap] or [compare(part, best, rival, lower)]  # else over its tables
                    gap = max((gap for gap in made if gap), key=lambda gap: gap.n, default=None)
                    if gap and gap.n >= (MIN_PICTURES if gap.paired else MIN_FOR_MEANS):
                        found[whose] = replace(gap, rival=rival, model=model, dataset=dataset)
    yield from found.values()


def paired_gap(rows: pd.DataFrame, best: str, rival: str, lower: bool) -> Gap | None:
    """From measurements picture by picture: the mean difference with its bootstrap interval."""
    two = rows[rows["m"].isin([key(best), key(rival)])]
    wide = two.drop_duplicates(["image", "target", "m"]).pivot(index=["image", "target"], columns="m", values="value")
    if not {key(best), key(rival)} <= set(wide):
        return None
    ahead = ((wide[key(rival)] - wide[key(best)]) * (1 if lower else -1)).dropna()
    if ahead.empty:
        return None
    return Gap(rival, "", "", ahead.mean(), *metrics.bootstrap_interval(ahead), len(ahead), True)


def unpaired_gap(rows: pd.DataFrame, best: str, rival: str, lower: bool) -> Gap | None:
    """From means only: the interval is as wide as the two intervals together, which is too wide rather than too narrow."""
    one, other = rows[rows["m"] == key(best)], rows[rows["m"] == key(rival)]
    if one.empty or other.empty:
        return None
    a, b = (other.iloc[0], one.iloc[0]) if lower else (one.iloc[0], other.iloc[0])
    n = int(min(a["n"], b["n"]))
    return Gap(rival, "", "", a["value"] - b["value"], a["ci_low"] - b["ci_high"], a["ci_high"] - b["ci_low"], n, False)


def verdict_on(found: Sequence[Gap]) -> str:
    """Reproduced if every interval is on the claimed side, undecided if none is on either side; partly if some are, and no more
    on the other side."""
    if not found:
        return UNTESTABLE
    held, behind = sum(gap.low > 0 for gap in found), sum(gap.high < 0 for gap in found)
    if held == len(found):
        return REPRODUCED
    if not held and not behind:
        return UNDECIDED
    return PARTLY if held >= behind else FAILED


def in_runs(found: Sequence[Gap], worst: Gap) -> str:
    """Where several runs were made, of which one the number is, and how many pictures each has."""
    runs = {(gap.model, gap.dataset): gap.n for gap in found}
    if len(runs) < 2:
        return ""
    pictures = ", ".join(f"{n} on {model}, {on}" for (model, on), n in runs.items())
    return f"; shown is the run that is furthest behind; pictures: {pictures}"


def ordering(
    sources: Sequence[str], metric: Sequence[str], best: str, rivals: Sequence[str], *, lower: bool, needs: str = "",
    only: Callable[[str, str], bool] | None = None,
) -> Rule:  # fmt: skip
    """The rule for "`best` is better than `rivals`": paired differences, on every network and data set with results."""

    def rule(evidence: Evidence) -> Finding:
        found = list(gaps(evidence, sources, metric, best, rivals, lower, only))
        verdict = verdict_on(found)
        measure = f"{metric[0]}: {best} {'below' if lower else 'above'} its closest rival"
        if not found:
            return Finding(verdict, needs or f"no run yet of enough pictures that has {metric[0]} of {best} and a rival", measure)
        worst = min(found, key=lambda gap: gap.mean)
        where = list(dict.fromkeys((gap.model, gap.dataset) for gap in found))
        held = sum(gap.low > 0 for gap in found)
        says = [f"holds in {held} of {len(found)} comparisons ({counted(found, where)})"]
        if behind := [gap for gap in found if gap.high < 0]:
            says.append("the other way round, beyond the noise, against " + listed(behind, where))
        if unsure := [gap for gap in found if gap.low <= 0 <= gap.high]:
            says.append("undecided against " + listed(unsure, where))
        if missing := [rival for rival in rivals if rival not in {gap.rival for gap in found}]:
            says.append("no run of " + ", ".join(missing))
        if not all(gap.paired for gap in found):
            says.append("some intervals are of means, not of paired differences, and so too wide")
        return Finding(
            verdict, "; ".join(says) + in_runs(found, worst), f"{measure} ({worst.rival})", worst.mean, worst.low, worst.high,
            "interval above 0", worst.n, worst.model, worst.dataset,
        )  # fmt: skip

    return rule


def counted(found: Sequence[Gap], where: Sequence[tuple[str, str]]) -> str:
    """How many rivals and runs there were, in words."""
    rivals = len({gap.rival for gap in found})
    return f"{rivals} rival{'s' * (rivals > 1)}, {len(where)} run{'s' * (len(where) > 1)}"


def listed(found: Iterable[Gap], where: Sequence[tuple[str, str]]) -> str:
    """Rivals, with the network where there are several runs."""
    names = [gap.rival if len(where) == 1 else f"{gap.rival} ({gap.model}, {gap.dataset})" for gap in found]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def every(*rules: Rule) -> Rule:
    """A claim of several parts: reproduced if all are, partly if any is; if none is, not reproduced where one part is not, else
    undecided. Parts without results do not count."""

    def rule(evidence: Evidence) -> Finding:
        found = [one(evidence) for one in rules]
        told = [one for one in found if one.verdict != UNTESTABLE]
        if not told:
            return found[0]
        kinds = {one.verdict for one in told}
        if kinds & {REPRODUCED, PARTLY}:
            verdict = kinds.pop() if len(kinds) == 1 else PARTLY
        else:
            verdict = FAILED if FAILED in kinds else UNDECIDED
        worst = max(told, key=lambda one: VERDICTS.index(one.verdict))
        why = "; ".join(f"{one.measure}: {one.verdict} ({one.why})" for one in found)
        return replace(worst, verdict=verdict, why=why)

    return rule


# ---------------------------------------------------------------------------------------------------- printed numbers


def numbers(
    bibkey: str, table: str, own: str, sources: Sequence[str] = (), named: Mapping[str, Sequence[str]] | None = None,
    nearby: Sequence[str] = (), enough: int = MIN_FOR_NUMBERS, **names: str,
) -> Rule:  # fmt: skip
    """The rule for the printed numbers of one row: ours on the same network and data set, within the tolerance.

    own: the method whose nearest measurement is shown where there is no such run; named: printed metric -> its names in our
    results; nearby: the names of the measure that is shown instead, by default the same; enough: how many pictures a mean
    needs, 1 where the paper prints single pictures; names: column = name, for the row.
    """

    def ours_of(metric: str) -> list[str]:
        return [key(name) for name in (named or {}).get(metric, (metric,))]

    def rule(evidence: Evidence) -> Finding:
        rows = evidence.paper(bibkey, table, **names)
        said, kept = [], []
        for row in rows.itertuples():
            mine = measured(evidence, sources, ours_of(row.metric), row.method, row.model, row.dataset)
            if mine is None or mine["n"] < enough:
                continue
            factor = 100.0 if row.unit == "percent" else 1.0
            points = POINTS * factor if row.unit in ("percent", "fraction") else 0
            within = abs(mine["value"] * factor - row.value) <= max(RELATIVE * row.value, points)
            said.append((within, f"{row.method} {mine['value'] * factor:.4g} for {row.value:g}"))
            kept.append(mine)
        first = rows.iloc[0]
        tolerance = f"{RELATIVE:.0%} of the number, or {POINTS * 100:g} percentage point"
        if said:
            good = sum(within for within, _ in said)
            verdict = REPRODUCED if good == len(rows) else PARTLY if good else FAILED
            why = f"{good} of {len(rows)} numbers within the tolerance: " + ", ".join(text for _, text in said)
            if len(said) < len(rows):
                why += f"; {len(rows) - len(said)} not measured"
            one = kept[-1]
            return Finding(
                verdict, why, first["metric"], one["value"], one["ci_low"], one["ci_high"], tolerance, int(one["n"]),
                first["model"], one["dataset"],
            )  # fmt: skip
        why = f"needs {first['model']} on {where_printed(first['dataset'])}" + f", {enough} pictures or more" * (enough > 1)
        near = nearest(
            evidence, sources, [key(name) for name in nearby] or ours_of(first["metric"]), own, first["model"],
            first["dataset"], enough == 1,
        )  # fmt: skip
        if near is None:
            return Finding(UNTESTABLE, f"{why}; nothing near it is measured", first["metric"], tolerance=tolerance)
        return Finding(
            UNTESTABLE, f"{why}; shown is our nearest run", f"{near['metric']} of {near['method']}", near["value"],
            near["ci_low"], near["ci_high"], tolerance, int(near["n"]), near["model"], near["dataset"],
        )  # fmt: skip

    return rule


def where_printed(dataset: str) -> str:
    """A data set, or a picture of a paper, in words."""
    return f"the author's picture “{dataset}”" if dataset[-1:] in "12" or dataset == "golden retriever" else dataset


def measured(
    evidence: Evidence, sources: Sequence[str], wanted: Sequence[str], method: str, model: str, dataset: str
) -> pd.Series | None:
    """Our mean of a method on that network and data set, the one with most pictures."""
    for source in sources:
        rows = evidence.means.get(source)
        if rows is None:
            continue
        rows = rows[(rows["m"] == key(method)) & (rows["model"] == model) & (rows["dataset"].map(set_key) == set_key(dataset))]
        for name in wanted:
            if len(mine := rows[rows["k"] == name]):
                return mine.loc[mine["n"].idxmax()]
    return None


def nearest(
    evidence: Evidence, sources: Sequence[str], wanted: Sequence[str], method: str, model: str, dataset: str, strict: bool
) -> pd.Series | None:  # fmt: skip
    """Our mean of a method with another network: on that data set or, unless strict, on another, steel for steel; of the same
    family of networks if there is one, then with most pictures. No convolutional network stands for a transformer, nor the other
    way round."""
    for source in sources:
        rows = evidence.means.get(source)
        if rows is None:
            continue
        rows = rows[
            (rows["m"] == key(method)) & ((rows["model"].map(family) == "transformer") == (family(model) == "transformer"))
        ]
        for name in wanted:
            if len(mine := rows[rows["k"] == name]):
                here = mine[mine["dataset"].map(set_key) == set_key(dataset)]
                if strict and here.empty:
                    continue
                mine = here if len(here) else mine
                alike = mine[mine["dataset"].map(on_steel) == on_steel(dataset)]
                mine = alike if len(alike) else mine
                kin = mine[mine["model"].map(family) == family(model)]
                mine = kin if len(kin) else mine
                return mine.loc[mine["n"].idxmax()]
    return None


def on_steel(dataset: str) -> bool:
    """Is a data set one of steel surfaces?"""
    return any(word in str(dataset).lower() for word in ("steel", "severstal", "neu_seg"))


def family(model: str) -> str:
    """The kind of network by its name: vgg, resnet, transformer or the name itself."""
    name = str(model).lower().replace("vit", "transformer")
    return next((kind for kind in ("vgg", "resnet", "transformer") if kind in name), name)


# ------------------------------------------------------------------------------------- levels, statements, the eye


def beyond(
    sources: Sequence[str],
    metric: Sequence[str],
    method: str,
    threshold: float,
    *,
    lower: bool = False,
    needs: str = "",
    table: str = "",
) -> Rule:
    """The rule for "the mean is above (below) a level", on every network and data set with results."""

    def rule(evidence: Evidence) -> Finding:
        found = []
        for source in sources:
            rows = evidence.means.get(source)
            if rows is not None:
                rows = rows[rows["table"] == table] if table else rows
                name = next((key(m) for m in metric if (rows["k"] == key(m)).any()), None)
                found += [row for _, row in rows[(rows["k"] == name) & (rows["m"] == key(method))].iterrows()]
        found = [row for row in found if row["n"] >= MIN_PICTURES]
        tolerance = f"interval {'below' if lower else 'above'} {threshold:g}"
        if not found:
            return Finding(UNTESTABLE, needs or f"no run yet that has {metric[0]} of {method}", metric[0], tolerance=tolerance)
        sign = -1 if lower else 1
        as_gaps = [Gap("", row["model"], row["dataset"], *sorted_gap(row, threshold, sign), int(row["n"]), True) for row in found]
        gap, worst = min(zip(as_gaps, found, strict=True), key=lambda pair: pair[0].mean)
        held = sum(gap.low > 0 for gap in as_gaps)
        return Finding(
            verdict_on(as_gaps), f"holds in {held} of {len(as_gaps)} runs{in_runs(as_gaps, gap)}", f"{metric[0]} of {method}",
            worst["value"], worst["ci_low"], worst["ci_high"], tolerance, gap.n, gap.model, gap.dataset,
        )  # fmt: skip

    return rule


def close(sources: Sequence[str], metric: Sequence[str], one: str, other: str, margin: float) -> Rule:
    """The rule for "`one` is about as good as `other`": the paired interval lies within the margin, on every run."""

    def rule(evidence: Evidence) -> Finding:
        found = list(gaps(evidence, sources, metric, one, [other], False))
        measure, tolerance = f"{metric[0]}: {one} minus {other}", f"interval within ±{margin:g}"
        if not found:
            return Finding(UNTESTABLE, f"no run yet that has {metric[0]} of {one} and {other}", measure, tolerance=tolerance)
        distances = [
            replace(
                gap, mean=margin - abs(gap.mean), low=margin - max(abs(gap.low), abs(gap.high)),
                high=margin - max(0.0, gap.low, -gap.high),  # the nearest to no difference that the interval holds
            )
            for gap in found
        ]  # fmt: skip
        worst = max(found, key=lambda gap: abs(gap.mean))
        held = sum(gap.low > 0 for gap in distances)
        return Finding(
            verdict_on(distances), f"holds in {held} of {len(found)} runs{in_runs(found, worst)}", measure, worst.mean,
            worst.low, worst.high, tolerance, worst.n, worst.model, worst.dataset,
        )  # fmt: skip

    return rule


def sorted_gap(row: pd.Series, threshold: float, sign: int) -> tuple[float, float, float]:
    """Mean, low and high of a distance from a threshold, in the claimed direction."""
    low, high = sorted(sign * (row[end] - threshold) for end in ("ci_low", "ci_high"))
    return sign * (row["value"] - threshold), low, high


Statements = Sequence[tuple[bool, str]]


def stated(
    measure: str, statements: Callable[[Evidence], Statements], *, model: str = "", on: str = "print", whole: bool = False
) -> Rule:
    """The rule for a claim that arithmetic settles: it is taken apart into statements, each true or not.

    statements: of the evidence, pairs of truth and what was found. All true: reproduced; some: partly; none: not reproduced.
    whole: one false statement refutes the claim.
    on: "print" for the papers' own numbers, else the pictures.
    """

    def rule(evidence: Evidence) -> Finding:
        parts = list(statements(evidence))
        good = sum(bool(true) for true, _ in parts)
        if not parts:
            return Finding(UNTESTABLE, "nothing to look at yet", measure)
        verdict = REPRODUCED if good == len(parts) else PARTLY if good and not whole else FAILED
        wrong, right = [text for true, text in parts if not true], [text for true, text in parts if true]
        why = "; ".join(list(dict.fromkeys(wrong or right))[:5])
        head = f"{good} of {len(parts)} statements true" if len(parts) > 1 else ""
        why = f"{head}{': ' if head and wrong else '; ' if head else ''}{('false: ' if wrong and good else '')}{why}"
        return Finding(verdict, why, measure, good / len(parts), NAN, NAN, "exact, to the digits printed", len(parts), model, on)

    return rule


def elsewhere(rule: Rule, needs: str) -> Rule:
    """For a claim about other networks or pictures than a run of ours: shows the run and leaves the claim open."""

    def shown(evidence: Evidence) -> Finding:
        finding = rule(evidence)
        return replace(finding, verdict=UNTESTABLE, why=f"{needs}; shown is ours: {finding.why}")

    return shown


def noted(rule: Rule, note: str) -> Rule:
    """A rule whose reason has a sentence more."""

    def noting(evidence: Evidence) -> Finding:
        finding = rule(evidence)
        return replace(finding, why=f"{finding.why}; {note}")

    return noting


def unmeasured(needs: str) -> Rule:
    """For a sentence that no measurement of ours can settle: says what is missing."""
    if not needs:
        raise ValueError("say what is missing")
    return lambda evidence: Finding(UNTESTABLE, needs)
