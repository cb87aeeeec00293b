"""evaluation: methods x metrics x images, in order, with what fails named."""

import pandas as pd
import pytest
import torch
from networks import changes, classifier, image, made, snapshot

from helpers import metrics
from helpers.cam import grad_cam
from helpers.evaluation import evaluate, summary

IMAGES = {"first": image(0), "second": image(1)}


def constant(value):
    return lambda net, x, target: torch.full(x.shape[-2:], float(value))


def mean_of_map(net, x, target, saliency):
    return float(saliency.mean())


def target_of(net, x, target, saliency):
    return float(target)


METHODS = {"two": constant(2), "one": constant(1)}
METRICS = {"mean": mean_of_map, "target": target_of}


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

    with pytest.raises(ValueError, match=says):
        evaluate(made(), images, {"m": method}, METRICS, targets=targets, progress=False)
    assert not began


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
