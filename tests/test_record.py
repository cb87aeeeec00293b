"""What stands in data/results is not overwritten by a smaller run."""

import pandas as pd
import pytest

from helpers import evaluation, metrics

WHOSE = dict(model="net", dataset="set", seed=0, device="cpu", profile="test")


def table(pictures, value=0.5):
    rows = [(f"picture {i}", 0, "Grad-CAM", "EBPG", value, 1.0, 2, 1) for i in range(pictures)]
    return pd.DataFrame(rows, columns=["image", "target", "method", "metric", "value", "seconds", "forwards", "backwards"])


def kept(folder):
    rows = pd.read_csv(folder / "05.csv", dtype={"table": str}).set_index(["table", "dataset"])
    images = pd.read_csv(folder / "per_image" / "05.csv", dtype={"table": str})
    return rows["value"].to_dict(), images.groupby(["table", "dataset"])["image"].nunique().to_dict()


def test_a_smaller_run_replaces_nothing_and_says_so(tmp_path):
    evaluation.record(tmp_path, "05", {"1": table(5), "2": table(2)}, metrics.bootstrap_interval, **WHOSE)
    with pytest.warns(UserWarning, match="'1' of net on set stays in .*05.csv as it is: of 5 pictures, this run has 4"):
        evaluation.record(tmp_path, "05", {"1": table(4, 0.9), "2": table(3, 0.9)}, metrics.bootstrap_interval, **WHOSE)
    assert kept(tmp_path) == ({("1", "set"): 0.5, ("2", "set"): 0.9}, {("1", "set"): 5, ("2", "set"): 3})


def test_as_many_pictures_or_another_data_set_are_taken(tmp_path):
    evaluation.record(tmp_path, "05", {"1": table(5)}, metrics.bootstrap_interval, **WHOSE)
    evaluation.record(tmp_path, "05", {"1": table(5, 0.9)}, metrics.bootstrap_interval, **WHOSE)
    evaluation.record(tmp_path, "05", {"1": table(1, 0.1)}, metrics.bootstrap_interval, **WHOSE | {"dataset": "other"})
    assert kept(tmp_path) == ({("1", "set"): 0.9, ("1", "other"): 0.1}, {("1", "set"): 5, ("1", "other"): 1})
