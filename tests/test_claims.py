"""The claim ledger: every verdict is computed, by rules that tell a claim that holds from one that does not; none is missing."""

import importlib.util
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import data
from helpers.data import data_folder

BOOK = data_folder().parent / "book"


def script(name):
    """A script of book/ as a module; book/ is no package."""
    if str(BOOK) not in sys.path:
        sys.path.insert(0, str(BOOK))
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BOOK / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


verdicts, claims = script("verdicts"), script("claims")
EVERY = claims.all_claims()


@pytest.fixture(scope="module")
def recomputed():
    return claims.ledger(EVERY)


# ------------------------------------------------------------------------------------------------------- the ledger


def test_every_verdict_of_the_file_is_the_one_that_the_results_give(recomputed):
    stored = data.claims()
    assert list(stored.columns) == claims.COLUMNS and list(stored["id"]) == list(recomputed["id"])
    both = stored.merge(recomputed, on="id", suffixes=("", "_now"), validate="1:1").set_index("id")
    changed = both[both["verdict"] != both["verdict_now"]]
    assert changed.empty, f"run `python book/claims.py`: {changed[['verdict', 'verdict_now']].to_dict('index')}"
    for column in ("value", "ci_low", "ci_high"):
        np.testing.assert_allclose(both[column], both[f"{column}_now"], atol=2e-4, rtol=2e-4, err_msg=column)
    for column in ("n", "claim", "place", "kind"):
        assert (both[column] == both[f"{column}_now"]).all(), column


def test_every_entry_says_where_what_and_why():
    stored = data.claims()
    assert (
        stored["id"].is_unique and set(stored["kind"]) == set(claims.KINDS)
        and set(stored["verdict"]) == {*verdicts.VERDICTS, verdicts.REMARK}
    )  # fmt: skip
    assert ((stored["kind"] == "remark") == (stored["verdict"] == verdicts.REMARK)).all()
    for column in ("paper", "place", "claim", "why"):
        assert stored[column].str.len().gt(2).all(), column
    assert stored["claim"].str.endswith(".").all()
    judged = stored[~stored["verdict"].isin([verdicts.UNTESTABLE, verdicts.REMARK])]
    assert (judged["n"] > 0).all() and judged["measure"].notna().all() and judged["tolerance"].notna().all()
    orderings = judged[judged["kind"] == "ordering"]
    assert orderings["model"].notna().all() and orderings[["value", "ci_low", "ci_high"]].notna().all(axis=None)
    assert (orderings["n"] >= verdicts.MIN_PICTURES).all()


def test_no_verdict_hangs_on_noise():
    """Where only one comparison was made, its interval and the verdict go together."""
    stored = data.claims()
    one = stored[
        stored["tolerance"].eq("interval above 0") & stored["why"].str.contains(r"\(1 rival, 1 run\)$|^holds in . of 1 compar")
    ]
    one = one[one["why"].str.startswith("holds in") & one["verdict"].isin(verdicts.VERDICTS[:4])]
    assert len(one) > 10
    contains_zero = (one["ci_low"] <= 0) & (one["ci_high"] >= 0)
    assert (contains_zero == (one["verdict"] == "undecided")).all()
    assert ((one["ci_high"] < 0) == (one["verdict"] == "not reproduced")).all()


def test_every_verdict_has_a_badge_and_a_place_on_the_page():
    css = (BOOK / "_static" / "seeing-why.css").read_text(encoding="utf-8")
    page = (BOOK / "claims.ipynb").read_text(encoding="utf-8")
    signs = set()
    for verdict, badge in zip(verdicts.VERDICTS, ("reproduced", "partly", "undecided", "failed", "untestable"), strict=True):
        assert f'\\"{verdict}\\": \\"{badge}\\"' in page and f".badge-{badge} {{ background" in css, verdict
        signs.add(css.split(f".badge-{badge}::before")[1].split("}")[0])
    assert len(signs) == len(verdicts.VERDICTS) and css.count("--sw-open:") == 2  # a sign of its own; light and dark


def test_an_entry_without_a_place_or_of_an_unknown_kind_is_refused():
    good = dict(id="a", paper="p", place="Table 1", claim="It is so.", kind="number", rule=lambda e: None)
    claims.Claim(**good)
    for wrong in ({"place": ""}, {"id": ""}, {"kind": "opinion"}, {"claim": "no full stop"}):
        with pytest.raises(ValueError, match="a claim needs"):
            claims.Claim(**good | wrong)


def test_an_unknown_verdict_is_refused():
    with pytest.raises(ValueError, match="'probably' is no verdict; there are reproduced, partly"):
        verdicts.Finding("probably", "because")
    with pytest.raises(ValueError, match="say what is missing"):
        verdicts.unmeasured("")


def test_an_error_in_a_rule_names_the_claim():
    def broken(_):
        raise KeyError("nothing")

    claim = claims.Claim("x-1", "p", "Table 1", "It is so.", "number", broken)
    with pytest.raises(KeyError) as caught:
        claims.ledger([claim], SimpleNamespace())
    assert "while judging x-1" in caught.value.__notes__


# -------------------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize("bibkey", ["mitra2024scorecampp", "sannomiya2024layer", "sattarzadeh2021sise", "szandala2021gradual"])
def test_every_printed_number_belongs_to_one_entry(bibkey):
    rows = data.paper_table(bibkey)
    covered = pd.Series(0, rows.index)
    for claim in EVERY:
        if claim.paper == bibkey and claim.rows:
            mine = pd.Series(True, rows.index)
            for column, name in claim.rows.items():
                mine &= rows[column] == name
            assert mine.any(), f"{claim.id} answers for no row"
            covered += mine
    assert (covered == 1).all(), rows[covered != 1].to_string()


FIGURES = {  # those that show a result
    "tamboli2021survey": (1, 2, 5, 6, 7, 8, 9, 10, 11, 12),
    "szandala2021gradual": (1, 2, 4, 5),
    "sannomiya2024layer": (5, 6, 7, 8, 9, 10),
    "mitra2024scorecampp": (2, 3, 4, 5, 6),
    "sattarzadeh2021sise": (1, 4, 6, 7, 8),
}
EQUATIONS = {  # those whose print does not say what is meant
    "sannomiya2024layer": ("(2)", "(4)", "(5)", "(7)"),
    "mitra2024scorecampp": ("(7)", "(10)", "(13)"),
    "sattarzadeh2021sise": ("(7)", "(9)", "(11)"),
}


@pytest.mark.parametrize("bibkey", FIGURES)
def test_every_figure_and_every_doubtful_equation_has_an_entry(bibkey):
    places = " ".join(
        claim.place.replace("Figs. 1 and 2", "Fig. 1 Fig. 2").replace("Figs. 1", "Fig. 1") + " ;"
        for claim in EVERY
        if claim.paper == bibkey
    )
    for number in FIGURES[bibkey]:
        assert f"Fig. {number} " in places.replace(",", " "), number
    for equation in EQUATIONS.get(bibkey, ()):
        assert equation in places, equation


def test_each_paper_has_entries_of_its_kinds():
    counts = pd.DataFrame([(c.paper, c.kind) for c in EVERY], columns=["paper", "kind"]).groupby("paper")["kind"].agg(set)
    assert set(counts.index) == set(FIGURES)
    for bibkey, kinds in counts.items():
        assert kinds >= {"qualitative", "print"} and ("number" in kinds) == (bibkey != "tamboli2021survey"), bibkey


# ---------------------------------------------------------------------------------------------------------- the rules


def by_picture(n=40, model="net", dataset="set", table="methods", metric="Drop", **means):
    """Made measurements: each method its mean, plus what the pictures have in common, plus a little noise."""
    r = np.random.default_rng(0)
    common = r.normal(0, 0.3, n)
    rows = [
        (table, model, dataset, f"{i}", 0, method, metric, mean + common[i] + r.normal(0, 0.02), 1.0, 1, 0)
        for method, mean in means.items() for i in range(n)
    ]  # fmt: skip
    names = "table model dataset image target method metric value seconds forwards backwards".split()
    return verdicts.tidy(pd.DataFrame(rows, columns=names))


def evidence(*pieces):
    return SimpleNamespace(images={"ch": pd.concat(pieces)} if pieces else {}, means={})


def judged(*pieces, best="A", rivals=("B", "C"), lower=True, **settings):
    return verdicts.ordering(("ch",), ("Drop",), best, rivals, lower=lower, **settings)(evidence(*pieces))


def test_an_ordering_holds_against_every_rival_or_is_not_reproduced():
    found = judged(by_picture(A=0.1, B=0.2, C=0.3))
    assert found.verdict == "reproduced" and found.value == pytest.approx(0.1, abs=0.02) and found.low > 0 and found.n == 40
    assert "B" in found.measure and "2 of 2 comparisons" in found.why  # the closest rival is shown
    assert judged(by_picture(A=0.1, B=0.2, C=0.3), lower=False).verdict == "not reproduced"
    some = judged(by_picture(A=0.2, B=0.1, C=0.3))
    assert some.verdict == "partly" and "the other way round, beyond the noise, against B" in some.why
    assert judged(by_picture(A=0.4, B=0.1, C=0.3)).verdict == "not reproduced"
    assert judged(by_picture(A=0.3, B=0.1, C=0.4, D=0.2), rivals=("B", "C", "D")).verdict == "not reproduced"  # one of three


@pytest.mark.parametrize("shift", [0.02, -0.02])
def test_within_the_noise_nothing_is_decided_whatever_the_sign_of_the_mean(shift):
    rows = by_picture(A=0.2, B=0.2)
    a, b = ((rows["m"] == name) & (rows["k"] == "drop") for name in "ab")
    rows.loc[b, "value"] = rows.loc[a, "value"].to_numpy() + shift + np.tile([0.5, -0.5], 20)
    found = judged(rows, rivals=("B",))
    assert found.low < 0 < found.high and found.value == pytest.approx(shift) and found.verdict == "undecided"


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([(0.1, 0.2), (0.01, 0.3)], "reproduced"),
        ([(0.1, 0.2), (-0.1, 0.3)], "partly"),
        ([(0.1, 0.2), (-0.3, -0.1)], "partly"),
        ([(-0.1, 0.2), (-0.3, 0.1)], "undecided"),
        ([(0.0, 0.2)], "undecided"),
        ([(-0.2, 0.0)], "undecided"),
        ([(-0.1, 0.2), (-0.3, -0.1)], "not reproduced"),
        ([(0.1, 0.2), (-0.3, -0.1), (-0.3, -0.1)], "not reproduced"),
        ([], "not testable here"),
    ],
)
def test_intervals_and_nothing_else_make_the_verdict(ends, verdict):
    for n in (10, 1000):
        found = [verdicts.Gap("B", "net", "set", (low + high) / 2, low, high, n, True) for low, high in ends]
        assert verdicts.verdict_on(found) == verdicts.verdict_on(found[::-1]) == verdict


def test_every_network_counts():
    held, turned = by_picture(A=0.1, B=0.2), by_picture(A=0.2, B=0.1, model="other")
    both = judged(held, turned, rivals=("B",))
    assert both.verdict == "partly" and both.n == 40 and "B (other, set)" in both.why
    assert both.model == "other" and "pictures: 40 on net, set, 40 on other, set" in both.why  # the one that is behind is shown
    assert judged(held, turned, rivals=("B",), only=lambda model, on: model == "net").verdict == "reproduced"


def test_without_results_or_with_few_pictures_nothing_is_judged():
    assert judged().verdict == judged(by_picture(n=9, A=0.1, B=0.2)).verdict == "not testable here"
    assert judged(needs="needs a telescope").why == "needs a telescope"
    assert judged(by_picture(n=10, A=0.1, B=0.2), rivals=("B", "C")).why.endswith("no run of C")


def test_pairing_is_what_makes_the_interval_narrow():
    rows = by_picture(A=0.1, B=0.15)
    means = (
        rows[rows["k"] == "drop"].groupby(["table", "model", "dataset", "method", "metric", "m", "k"])["value"]
        .agg(value="mean", ci_low=lambda v: v.mean() - 0.1, ci_high=lambda v: v.mean() + 0.1, n="count").reset_index()
    )  # fmt: skip
    rule = verdicts.ordering(("ch",), ("Drop",), "A", ["B"], lower=True)
    unpaired = rule(SimpleNamespace(images={}, means={"ch": means}))
    assert rule(evidence(rows)).verdict == "reproduced" and unpaired.verdict == "undecided" and "too wide" in unpaired.why
    few = means.assign(n=verdicts.MIN_FOR_MEANS - 1)
    assert rule(SimpleNamespace(images={}, means={"ch": few})).verdict == "not testable here"


def test_one_method_spelt_in_two_ways_is_one():
    assert verdicts.key("Grad-CAM") == verdicts.key("GradCAM") != verdicts.key("Grad-CAM++")
    assert verdicts.key("Gradual Extrapolation of Grad-CAM") == verdicts.key("Gradual Grad-CAM")
    assert verdicts.key("layer selection w/o difference") == verdicts.key("Ours w/o difference") != verdicts.key("Ours")
    assert verdicts.key("Increase, top 15 %") != verdicts.key("Increase")
    assert judged(by_picture(**{"Grad-CAM": 0.1, "ScoreCAM": 0.2}), best="GradCAM", rivals=("Score-CAM",)).verdict == "reproduced"


def test_about_as_good_asks_for_a_narrow_interval_around_no_difference():
    rule = verdicts.close(("ch",), ("Drop",), "A", "B", 0.05)
    assert rule(evidence(by_picture(A=0.2, B=0.2))).verdict == "reproduced"
    assert (
        rule(evidence(by_picture(A=0.2, B=0.4))).verdict == rule(evidence(by_picture(A=0.4, B=0.2))).verdict == "not reproduced"
    )
    assert rule(evidence()).verdict == "not testable here"
    noisy = by_picture(n=12, A=0.2, B=0.2)
    noisy.loc[(noisy["m"] == "a") & (noisy["k"] == "drop"), "value"] += np.tile([0.3, -0.3], 6)
    assert rule(evidence(noisy)).verdict == "undecided"  # neither within the margin nor beyond it


def test_above_a_level():
    one = dict(table="t", model="net", dataset="set", method="A", metric="Drop", value=0.5, ci_low=0.45, ci_high=0.55, n=30)
    means = pd.DataFrame([one | {"m": "a", "k": "drop"}])
    there = SimpleNamespace(images={}, means={"ch": means})
    for level, lower, verdict in (
        (0.4, False, "reproduced"),
        (0.48, False, "undecided"),
        (0.52, False, "undecided"),
        (0.6, False, "not reproduced"),
        (0.6, True, "reproduced"),
    ):
        assert verdicts.beyond(("ch",), ("Drop",), "A", level, lower=lower)(there).verdict == verdict
    assert verdicts.beyond(("ch",), ("Drop",), "A", 0.4, table="other")(there).verdict == "not testable here"


def test_a_claim_of_several_parts():
    def says(verdict):
        return lambda e: verdicts.Finding(verdict, "because", "part")

    for parts, verdict in (
        (("reproduced", "reproduced"), "reproduced"),
        (("reproduced", "not reproduced"), "partly"),
        (("not reproduced", "not testable here"), "not reproduced"),
        (("not testable here", "not testable here"), "not testable here"),
        (("partly", "reproduced"), "partly"),
        (("undecided", "undecided"), "undecided"),
        (("undecided", "reproduced"), "partly"),
        (("undecided", "not reproduced"), "not reproduced"),
        (("undecided", "not testable here"), "undecided"),
    ):
        assert verdicts.every(*map(says, parts))(None).verdict == verdict


def test_a_run_elsewhere_is_shown_and_decides_nothing_and_a_remark_is_no_verdict():
    held = verdicts.stated("m", lambda e: [(True, "it is so")])
    shown = verdicts.elsewhere(held, "needs the Moon")(None)
    assert shown.verdict == "not testable here" and shown.value == 1 and shown.why == "needs the Moon; shown is ours: it is so"
    assert verdicts.noted(held, "twice")(None).why == "it is so; twice"
    half = verdicts.stated("m", lambda e: [(True, "one"), (False, "two")])
    noticed = claims.Claim("x-1", "p", "Table 1", "It is odd.", "remark", half)
    row = claims.ledger([noticed], SimpleNamespace()).iloc[0]
    assert row["verdict"] == "remark" and row["why"] == "two"


def test_statements():
    def of(*truths, **settings):
        return verdicts.stated("m", lambda e: [(t, f"text {i}") for i, t in enumerate(truths)], **settings)(None)

    assert (
        of(True, True).verdict == "reproduced" and of(False).verdict == "not reproduced" and of().verdict == "not testable here"
    )
    assert of(True, False).verdict == "partly" and of(True, False).value == 0.5 and "false: text 1" in of(True, False).why
    assert of(True, False, whole=True).verdict == "not reproduced"


def of_numbers(**change):
    """The verdict on Table 1 of layer selection, row Ours, if we had measured this."""
    ours = dict(table="t", model="vgg16", dataset="imagenet", method="layer selection", ci_low=0.0, ci_high=1.0, n=3000) | change
    rows = [
        ours | {"metric": m, "value": v}
        for m, v in zip(("Insertion", "Deletion"), change.pop("values", (0.40, 0.05)), strict=True)
    ]
    means = pd.DataFrame(rows)
    means = means.assign(m=means["method"].map(verdicts.key), k=means["metric"].map(verdicts.key))
    made = verdicts.Evidence()
    made.means = {"ch": means}
    return verdicts.numbers("sannomiya2024layer", "1", "Ours", ("ch",), method="Ours")(made)


def test_a_printed_number_is_only_judged_on_its_own_network_and_pictures():
    assert of_numbers().verdict == "reproduced" and "2 of 2 numbers within" in of_numbers().why
    assert of_numbers(values=(0.30, 0.05)).verdict == "partly" and of_numbers(values=(0.30, 0.09)).verdict == "not reproduced"
    for other in ({"model": "vgg19"}, {"dataset": "scenes"}, {"n": 99}):
        found = of_numbers(**other)
        assert found.verdict == "not testable here" and "needs vgg16 on ImageNet, 100 pictures" in found.why
        assert found.value == 0.40 and found.n == other.get("n", 3000)  # the nearest run is shown all the same


def test_the_nearest_run_is_of_the_same_family_and_no_transformer():
    one = dict(table="t", dataset="scenes", method="layer selection", metric="Insertion", ci_low=0.0, ci_high=1.0)
    rows = [
        one | dict(model=m, n=n, value=n / 1000)
        for m, n in (("small vision transformer", 900), ("resnet9", 500), ("slim_vgg16", 200))
    ]
    made = verdicts.Evidence()
    for kept, n in ((rows, 200), (rows[:2], 500), (rows[:1], 0)):
        means = pd.DataFrame(kept)
        made.means = {"ch": means.assign(m=means["method"].map(verdicts.key), k=means["metric"].map(verdicts.key))}
        found = verdicts.numbers("sannomiya2024layer", "1", "Ours", ("ch",), method="Ours")(made)
        assert found.verdict == "not testable here" and found.n == n


# ----------------------------------------------------------------------------------- a changed result, a changed verdict


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of what the verdicts rest on, which a test may spoil."""
    for part in ("papers", "results"):
        shutil.copytree(data_folder() / part, tmp_path / part, ignore=shutil.ignore_patterns("parts"))
    shutil.copy(data_folder() / "claims.csv", tmp_path)
    monkeypatch.setattr(data, "data_folder", lambda: tmp_path)
    return tmp_path


def verdict_now(name):
    (claim,) = [claim for claim in EVERY if claim.id == name]
    return claims.ledger([claim])["verdict"].item()


SPOILT = {  # claim: file, a printed row without its number, the number, another one, the verdicts on both
    "mitra2024-wins-add-up": (
        *("mitra2024scorecampp", "6,vgg19,ImageNet,Normalization + Upsampled,Win,", "79.86", "69.86", "reproduced", "partly"),
    ),
    "mitra2024-print-vit-second": (
        *("mitra2024scorecampp", "8,vit_b_16,ImageNet,LayerCAM,Average Drop,", "18.17", "28.17", "partly", "reproduced"),
    ),
    "sannomiya2024-deltas-t1": (
        *("sannomiya2024layer", "1,vgg16,ImageNet,Ours,Insertion,", "40.21", "41.21", "reproduced", "partly"),
    ),
    "sattarzadeh2021-increase-lead": (
        *("sattarzadeh2021sise", "2,resnet101,Severstal,SISE,Increase,", "15.64", "15.63", "reproduced", "not reproduced"),
    ),
    "szandala2021-ceb-all-recognised": (
        *("szandala2021gradual", "4,vgg16,black widow 1,cEB,", "black widow", "white widow", "reproduced", "partly"),
    ),
    "szandala2021-spider-partly-corrected": (
        *("szandala2021gradual", "3,vgg16,black widow 1,Gradual Grad-CAM,black widow,", "0.14", "0.24", "reproduced", "partly"),
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_another_digit_in_a_printed_table_changes_the_verdict(name, copied):
    bibkey, row, old, new, before, after = SPOILT[name]
    path = copied / "papers" / f"{bibkey}.csv"
    text = path.read_text(encoding="utf-8")
    assert verdict_now(name) == before and text.count(row + old) == 1
    path.write_text(text.replace(row + old, row + new), encoding="utf-8")
    assert verdict_now(name) == after


def test_other_measurements_change_the_verdict(copied):
    """Per-picture results of SISE and its rivals, made so that SISE wins, then so that it loses."""
    folder = copied / "results" / "per_image"
    for other in folder.glob("*.csv"):
        other.unlink()
    (copied / "results" / "06_comparison.csv").unlink(missing_ok=True)
    (copied / "results" / "05_sise.csv").unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    name = "sattarzadeh2021-best-drop"
    assert verdict_now(name) == "not testable here"
    rows = pd.DataFrame([
        ("methods", "net", "scenes", f"{i}", 0, method, 1.0, 10, 1, 0.1 * k + 0.01 * i, 0.5)
        for i in range(20) for k, method in enumerate(("SISE", *claims.EIGHT))
    ], columns="table model dataset image target method seconds forwards backwards Drop Increase".split())  # fmt: skip
    rows.to_csv(folder / "05_sise.csv", index=False)
    assert verdict_now(name) == "reproduced"
    rows.assign(Drop=1 - rows["Drop"]).to_csv(folder / "05_sise.csv", index=False)
    assert verdict_now(name) == "not reproduced"


READ = {  # chapter and table of its measurements: claims that rest on them
    ("01_survey", "filters"): ["tamboli2021-gabor"],
    ("01_survey", "both there"): ["tamboli2021-fig12"],
    ("01_survey", "bags"): ["tamboli2021-amil-better"],
    ("02_gradual_extrapolation", "scenes"): ["szandala2021-sharper-gradcam", "szandala2021-on-thing-ceb"],
    ("03_layer_selection", "methods"): ["sannomiya2024-ours-gradcam-insertion", "sannomiya2024-fig10"],
    ("03_layer_selection", "controls"): ["sannomiya2024-not-always-last"],
    ("04_scorecampp", "methods"): ["mitra2024-best-average-drop-logit", "mitra2024-layercam-sparse"],
    ("04_scorecampp", "gates"): ["mitra2024-tanh-average-drop"],
    ("04_scorecampp", "two of a class"): ["mitra2024-fig6"],
    ("04_scorecampp", "vit"): ["mitra2024-vit-average-drop"],
    ("05_sise", "methods"): ["sattarzadeh2021-best-drop", "sattarzadeh2021-best-bbox"],
    ("05_sise", "parts"): ["sattarzadeh2021-blocks-together", "sattarzadeh2021-area"],
    ("05_sise", "mu"): ["sattarzadeh2021-mu-03-same"],
}


def test_what_the_chapters_record_is_what_the_ledger_reads():
    """Where a chapter has stored enough pictures, the claims that rest on them are judged: no name has gone astray."""
    stored = data.claims().set_index("id")["verdict"]
    assert {name for names in READ.values() for name in names} <= set(stored.index)
    for path in (data_folder() / "results" / "per_image").glob("*.csv"):
        rows = pd.read_csv(path, dtype=str)
        enough = rows.groupby(["table", "model", "dataset"])["image"].nunique() >= verdicts.MIN_PICTURES
        for table in dict.fromkeys(enough[enough].index.get_level_values("table")):
            for name in READ.get((path.stem, table), []):
                assert stored[name] != verdicts.UNTESTABLE, f"{name} is not judged by table {table!r} of {path.stem}"


# ------------------------------------------------------------------------------------------------------- data.claims


def test_the_claims_of_a_paper_and_of_one_that_is_not_there():
    assert set(data.claims("tamboli2021survey")["paper"]) == {"tamboli2021survey"}
    assert len(data.claims()) == sum(len(data.claims(bibkey)) for bibkey in FIGURES) > 150
    with pytest.raises(ValueError, match="no claims of 'nobody1999'; papers with claims: tamboli2021survey, szandala"):
        data.claims("nobody1999")
