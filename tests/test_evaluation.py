"""evaluation: methods x metrics x images, in order, with what fails named."""

import math

import pandas as pd
import pytest
import torch
from networks import Failing, Tiny, changes, classifier, image, made, snapshot
from torch import nn

from helpers import data, metrics
from helpers.cam import grad_cam
from helpers.evaluation import Cost, counted, evaluate, paired, record, summary, summary_by_class
from helpers.score_cam import score_cam

IMAGES = {"first": image(0), "second": image(1)}


def constant(value):
    return lambda net, x, target: torch.full(x.shape[-2:], float(value))


def mean_of_map(net, x, target, saliency):
    return float(saliency.mean())


def target_of(net, x, target, saliency):
    return float(target)


METHODS = {"two": constant(2), "one": constant(1)}
METRICS = {"mean": mean_of_map, "target": target_of}


@pytest.mark.proves("evaluate", by="prepared maps, row by row")
def test_rows_come_in_the_order_of_images_methods_metrics():
    table = evaluate(made(), IMAGES, METHODS, METRICS, targets={"first": 2, "second": 0}, progress=False)
    assert list(table.columns) == ["image", "target", "method", "metric", "value", "seconds", "forwards", "backwards"]
    assert [tuple(r) for r in table[["image", "target", "method", "metric", "value"]].values] == [
        ("first", 2, "two", "mean", 2),
        ("first", 2, "two", "target", 2),
        ("first", 2, "one", "mean", 1),
        ("first", 2, "one", "target", 2),
        ("second", 0, "two", "mean", 2),
        ("second", 0, "two", "target", 0),
        ("second", 0, "one", "mean", 1),
        ("second", 0, "one", "target", 0),
    ]
    assert (table["seconds"] >= 0).all() and table.groupby(["image", "method"])["seconds"].nunique().eq(1).all()


def test_the_target_is_the_first_choice_unless_given():
    net = classifier(made())
    first = {name: int(net(x[None]).argmax()) for name, x in IMAGES.items()}
    other = (first["second"] + 1) % 4
    table = evaluate(net, IMAGES, METHODS, METRICS, targets={"second": other}, progress=False)
    assert dict(zip(table["image"], table["target"], strict=True)) == {"first": first["first"], "second": other}
    assert table.query("metric == 'target'")["value"].tolist() == [first["first"]] * 2 + [other] * 2


def test_real_methods_and_metrics_leave_the_network_as_it_was():
    net = classifier(made())
    net.module.train()
    before = snapshot(net)
    table = evaluate(net, IMAGES, {"Grad-CAM": grad_cam}, {"drop": metrics.average_drop}, progress=False)
    assert changes(before, snapshot(net)) == [] and len(table) == 2
    expected = metrics.average_drop(net, IMAGES["second"], table["target"][1], grad_cam(net, IMAGES["second"]))
    assert table["value"][1] == pytest.approx(expected)


def test_a_failing_method_names_image_and_method():
    def fails(net, x, target):
        if x is IMAGES["second"]:
            raise ZeroDivisionError("no")
        return constant(1)(net, x, target)

    with pytest.raises(ZeroDivisionError) as caught:
        evaluate(made(), IMAGES, METHODS | {"bad one": fails}, METRICS, progress=False)
    assert caught.value.__notes__ == ["while explaining image 'second' with 'bad one'"]


def test_a_failing_metric_names_image_method_and_metric():
    def fails(net, x, target, saliency):
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError) as caught:
        evaluate(made(), IMAGES, METHODS, {"bad metric": fails}, progress=False)
    note = " ".join(caught.value.__notes__)
    assert "'first'" in note and "'two'" in note and "'bad metric'" in note


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_nothing_to_do_is_an_error(empty):
    given = [IMAGES, METHODS, METRICS]
    given[empty] = {}
    with pytest.raises(ValueError, match="nothing to do: .*0 (images|methods|metrics)"):
        evaluate(made(), *given, progress=False)


@pytest.mark.parametrize(("images", "targets", "says"), [
    (IMAGES | {"bad": image()[0]}, None, r"\[3, H, W\]"), (IMAGES, {"second": 4}, "target 4"), (IMAGES, {"thirst": 1}, "thirst"),
])  # fmt: skip
def test_everything_is_checked_before_the_first_map(images, targets, says):
    began = []

    def method(net, x, target):
        began.append(1)
        return constant(1)(net, x, target)

    with pytest.raises(ValueError, match=says) as caught:
        evaluate(made(), images, {"m": method}, METRICS, targets=targets, progress=False)
    assert not began
    note = {"thirst": []}.get(says, [f"while checking image {list(images)[-1]!r}"])
    assert getattr(caught.value, "__notes__", []) == note


@pytest.mark.proves("summary", by="a table with undefined values, by hand")
def test_the_summary_counts_what_is_undefined():
    nan = float("nan")
    table = pd.DataFrame({"method": ["b", "b", "b", "a", "a", "a"], "metric": ["m"] * 6, "value": [1.0, nan, 3.0, nan, nan, nan]})
    seen = []

    def interval(values):
        seen.append(values.tolist())
        return min(values), max(values)

    out = summary(table, interval)
    assert list(out.columns) == ["method", "metric", "value", "ci_low", "ci_high", "n", "nan_count"]
    assert out.iloc[0].tolist() == ["b", "m", 2, 1, 3, 2, 1]  # in the order in which the methods came
    assert out["method"].tolist() == ["b", "a"] and out["n"].tolist() == [2, 0] and out["nan_count"].tolist() == [1, 3]
    assert out["value"].isna().tolist() == [False, True]


# ------------------------------------------------------------------------------------------------------------- truths

NAN = float("nan")


def test_maps_are_measured_against_the_truth_where_there_is_one():
    mask = torch.zeros(16, 16)
    mask[:4] = 1
    share = {
        "sum inside": lambda saliency, mask: float(saliency[mask > 0].sum()),
        "area of the truth": lambda saliency, mask: float(mask.sum()),
    }
    table = evaluate(made(), IMAGES, METHODS, METRICS, truths={"second": mask}, truth_metrics=share, progress=False)
    assert table.groupby("image").size().to_dict() == {"first": 4, "second": 8}
    found = table[table["metric"].isin(share)]
    assert set(found["image"]) == {"second"} and found["metric"].tolist() == ["sum inside", "area of the truth"] * 2
    assert found["value"].tolist() == [128, 64, 64, 64]
    alone = evaluate(made(), IMAGES, METHODS, {}, truths={"second": mask}, truth_metrics=share, progress=False)
    assert alone["value"].tolist() == found["value"].tolist()


@pytest.mark.parametrize(("settings", "says"), [
    ({"truths": {"secnd": torch.ones(16, 16)}}, "targets or truths are given for images that are not there: secnd"),
    ({"truths": {"second": torch.ones(16, 8)}}, r"truth of image 'second' is \[16, 8\]; expected \[16, 16\]"),
    ({"truth_metrics": {"mean": metrics.energy_inside}}, "two metrics have the same name: mean"),
])  # fmt: skip
def test_wrong_truths_are_named_before_the_first_map(settings, says):
    def never(net, x, target):
        raise AssertionError("a map was made")

    with pytest.raises(ValueError, match=says):
        evaluate(made(), IMAGES, {"m": never}, METRICS, progress=False, **settings)


@pytest.mark.parametrize("others", [{}, METRICS])
@pytest.mark.parametrize("truths", [None, {}])
def test_metrics_of_truths_without_truths_are_an_error(others, truths):
    share = {"inside": metrics.energy_inside, "points": metrics.pointing_game}
    with pytest.raises(ValueError, match="no truths are given for the metrics that need one: inside, points"):
        evaluate(made(), IMAGES, METHODS, others, truths=truths, truth_metrics=share, progress=False)


# --------------------------------------------------------------------------------------------------------------- cost


@pytest.mark.proves("counted", by="a network that is called a known number of times, in every mode")
def test_images_calls_and_backward_passes_are_counted():
    net, x = made(), image()
    with counted(net) as cost:
        assert cost == Cost(0, 0, 0)
        y = net(torch.stack([x, x, x]))
        assert cost == Cost(forwards=3, calls=1, backwards=0)
        torch.autograd.grad(y[0, 0], net.head.weight, retain_graph=True)
        y[1, 2].backward(retain_graph=True)
        assert cost == Cost(forwards=3, calls=1, backwards=2)
        with torch.inference_mode():
            net(x[None])
        with torch.no_grad():
            torch.func.functional_call(net, dict(net.named_parameters()), (x[None],))
        assert cost == Cost(forwards=5, calls=3, backwards=2)
        net.stem(x[None]).sum().backward()  # a layer by itself is not the network
        torch.func.grad(lambda p: torch.func.functional_call(net, p, (x[None],))[0, 0])(dict(net.named_parameters()))
        assert cost == Cost(forwards=6, calls=4, backwards=3)
    net(x[None])[0, 0].backward()
    y[0, 1].backward()  # the pass forwards was counted, this one is too late
    assert cost == Cost(forwards=6, calls=4, backwards=3)


def test_counting_changes_nothing_and_leaves_nothing_behind():
    net = classifier(made())
    net.module.train()
    before = snapshot(net)
    expected = score_cam(net, image(), 1)
    with counted(net) as outer, counted(net) as inner:
        assert torch.equal(score_cam(net, image(), 1), expected)
    assert changes(before, snapshot(net)) == []
    assert outer == inner == Cost(forwards=7, calls=2, backwards=0)  # features, six masked copies


def test_counts_stay_and_the_hook_goes_when_a_forward_pass_fails():
    net = made(Failing)
    before = snapshot(net)
    net.calls, net.fail_at = 0, 3
    with pytest.raises(RuntimeError, match="forward pass 3 fails"), counted(net) as cost:
        for _ in range(5):
            net(image()[None])
    assert cost == Cost(forwards=2, calls=2)
    assert changes(before | {("", "attributes"): 0}, snapshot(net) | {("", "attributes"): 0}) == []


def test_counting_needs_a_network():
    with pytest.raises(TypeError, match="not str"), counted("net"):
        pass


def test_the_table_says_what_each_map_took():
    net = classifier(made())
    methods = {"none": constant(1), "Grad-CAM": grad_cam, "Score-CAM": score_cam}
    table = evaluate(net, IMAGES, methods, {"drop": metrics.average_drop, "insertion": metrics.insertion}, progress=False)
    cost = table.groupby("method", sort=False)[["forwards", "backwards"]].agg(["min", "max"])
    assert cost["forwards"].values.tolist() == [[0, 0], [1, 1], [7, 7]]  # for the features, and the masked copies
    assert cost["backwards"].values.tolist() == [[0, 0], [1, 1], [0, 0]]


class Twice(nn.Module):
    """A network inside another one: only what is asked of the outer one counts."""

    def __init__(self):
        super().__init__()
        self.inner = made(Tiny)

    def forward(self, x):
        return self.inner(x) + self.inner(-x)


def test_only_the_network_itself_is_counted():
    net = Twice()
    with counted(net) as cost:
        net(image()[None]).sum().backward()
    assert cost == Cost(forwards=1, calls=1, backwards=1)


# ---------------------------------------------------------------------------------------------------------- by class


def hits(*rows):
    return pd.DataFrame(rows, columns=["target", "method", "metric", "value"])


@pytest.mark.proves("summary_by_class", by="classes of different size, by hand")
def test_every_class_counts_alike():
    table = hits(
        *[(0, "a", "hit", v) for v in (1, 1, 1, 0)],  # 0.75
        (1, "a", "hit", 0.0),  # 0
        (2, "a", "hit", NAN), (2, "a", "hit", 1.0),  # 1
        (3, "a", "hit", NAN),  # left out
        (0, "b", "hit", 1.0), (1, "b", "hit", NAN), (0, "b", "share", 0.25),
    )  # fmt: skip
    out = summary_by_class(table)
    assert list(out.columns) == ["method", "metric", "value", "classes", "n", "nan_count"]
    assert out.values.tolist() == [["a", "hit", 1.75 / 3, 3, 6, 2], ["b", "hit", 1, 1, 1, 1], ["b", "share", 0.25, 1, 1, 0]]


def test_without_any_value_the_mean_over_classes_is_undefined():
    out = summary_by_class(hits((0, "a", "hit", NAN), (1, "a", "hit", NAN)))
    assert math.isnan(out["value"][0]) and out["classes"][0] == 0 and out["nan_count"][0] == 2


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    net, seen = made(), []

    def third(net, x, target):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return x[0] / 3

    whole = evaluate(net, IMAGES, {"a": lambda net, x, target: x[0] / 3}, METRICS, progress=False)
    methods = {"a": third, "b": third}
    with pytest.raises(KeyboardInterrupt):
        evaluate(net, IMAGES, methods, METRICS, store=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 2  # two maps were finished
    after = evaluate(net, IMAGES, methods, METRICS, store=tmp_path, progress=False)
    assert len(seen) == 5  # the third again, and the fourth; none of the first two
    what = ["image", "target", "method", "metric", "value"]
    pd.testing.assert_frame_equal(after[after["method"] == "a"][what].reset_index(drop=True), whole[what], check_exact=True)
    pd.testing.assert_frame_equal(
        after, evaluate(net, IMAGES, methods, METRICS, store=tmp_path, progress=False), check_exact=True
    )


def test_the_store_is_not_used_for_another_picture_network_or_metric(tmp_path):
    asked = dict(targets={"first": 1}, store=tmp_path, progress=False)
    evaluate(made(), {"first": IMAGES["first"]}, METHODS, METRICS, **asked)
    for net, x, metrics_ in (
        (made(), IMAGES["second"], METRICS),
        (made(seed=1), IMAGES["first"], METRICS),
        (made(), IMAGES["first"], {"mean": mean_of_map}),
    ):
        before = len(list(tmp_path.iterdir()))
        evaluate(net, {"first": x}, METHODS, metrics_, **asked)
        assert len(list(tmp_path.iterdir())) == before + len(METHODS)


def test_recorded_tables_are_replaced_not_doubled(tmp_path, monkeypatch):
    table = evaluate(
        made(), IMAGES, METHODS, {"mean": mean_of_map, "the target": target_of, "drop (logit)": mean_of_map}, progress=False
    )
    facts = dict(model="tiny", seed=3, device="cpu", profile="test")
    interval = metrics.bootstrap_interval
    record(tmp_path / "results", "05", {"1": table}, interval, dataset="noise", **facts)
    record(tmp_path / "results", "05", {"1": table.assign(value=7.0)}, interval, dataset="other", **facts)
    path = record(tmp_path / "results", "05", {"1": table.assign(value=9.0), "2": table}, interval, dataset="other", **facts)
    monkeypatch.setattr(data, "data_folder", lambda: tmp_path)
    means = pd.read_csv(path, dtype={"table": str})
    assert len(means) == 3 * 2 * 3 and set(means["unit"]) == {"fraction", "logit"}
    values = means.set_index(["table", "dataset", "method", "metric"])["value"]
    assert (
        values["1", "noise", "two", "mean"] == 2
        and values["1", "other", "two", "mean"] == 9
        and values["2", "other", "one", "mean"] == 1
    )
    again = data.results_per_image("05")
    first = again[(again["table"] == "1") & (again["dataset"] == "noise")]
    assert len(again) == 3 * len(table) and first["value"].sum() == pytest.approx(table["value"].sum())
    remade = summary(first, interval).set_index(["method", "metric"])["value"]
    assert remade["two", "mean"] == values["1", "noise", "two", "mean"]


def test_paired_differences_are_taken_picture_by_picture():
    rows = [(f"{i}", 0, m, "d", v) for i, (a, b) in enumerate([(1, 0.5), (2, 1), (4, math.nan)]) for m, v in (("a", a), ("b", b))]
    table = pd.DataFrame(rows, columns=["image", "target", "method", "metric", "value"])
    found = paired(table, metrics.bootstrap_interval, "d", "a", "b")
    assert found["value"] == 0.75 and found["n"] == 2 and 0.5 <= found["ci_low"] <= 0.75 <= found["ci_high"] <= 1
    with pytest.raises(ValueError, match="no 'd' of c; there is a, b"):
        paired(table, metrics.bootstrap_interval, "d", "a", "c")
