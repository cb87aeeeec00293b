"""data/papers against a second transcription, typed anew in another order, and against what the papers say of their tables."""

import pytest

from helpers.data import data_folder, paper_table

ROWS = {"mitra2024scorecampp": 130, "sannomiya2024layer": 14, "sattarzadeh2021sise": 105, "szandala2021gradual": 125}
UNITS = {"percent", "fraction", "logit", "second", "masks"}


def value(bibkey, table, method, metric, model=None, dataset=None):
    """The one printed value of these names."""
    rows = paper_table(bibkey, table)
    for column, name in {"method": method, "metric": metric, "model": model, "dataset": dataset}.items():
        rows = rows[rows[column] == name] if name else rows
    assert len(rows) == 1, (bibkey, table, method, metric, len(rows))
    return rows["value"].item()


def test_every_paper_of_the_folder_is_counted_here():
    found = {path.stem for path in (data_folder() / "papers").glob("*.csv")}
    assert found == set(ROWS)
    readme = (data_folder() / "papers" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{bibkey}.csv`" in readme for bibkey in ROWS)


@pytest.mark.parametrize("bibkey", ROWS)
def test_rows_are_tidy_and_none_is_there_twice(bibkey):
    rows = paper_table(bibkey)
    assert len(rows) == ROWS[bibkey]
    assert list(rows.columns) == ["table", "model", "dataset", "method", "metric", "value", "unit"]
    assert rows.notna().all(axis=None) and set(rows["unit"]) <= UNITS
    assert not rows.duplicated(["table", "model", "dataset", "method", "metric"]).any()
    assert (rows["value"] >= 0).all()
    assert (rows.loc[rows["unit"] == "percent", "value"] <= 100).all() and (
        rows.loc[rows["unit"] == "fraction", "value"] <= 1
    ).all()
    for column in ("table", "model", "dataset", "method", "metric"):
        assert (rows[column] == rows[column].str.strip()).all(), column


# ------------------------------------------------------------------------------------------ second transcriptions
# By method where the files go by metric: a slip would have to be made twice, in two places.

LAYER = {"Grad-CAM": (36.00, 5.43), "Score-CAM": (36.69, 5.21), "Ours": (40.21, 4.79)}
LAYER_ABLATION = {
    "Ours": (40.21, 4.79),
    "Ours w/o difference": (36.51, 4.83),
    "Score-CAM w/ difference": (39.04, 5.00),
    "Score-CAM": (36.69, 5.21),
}
SISE_METRICS = ("EBPG", "mIoU", "Bbox", "Drop", "Increase")
SISE = {  # VGG16, then ResNet-50
    "SISE": ((60.54, 27.79, 55.68, 38.40, 37.96), (66.08, 31.37, 61.59, 30.92, 40.22)),
    "FullGrad": ((38.72, 26.61, 54.17, 60.78, 22.73), (39.55, 20.2, 44.94, 65.99, 25.36)),
    "Integrated Gradient": ((36.87, 14.11, 33.97, 64.74, 26.17), (40.62, 15.41, 34.79, 66.12, 24.24)),
    "Score-CAM": ((46.42, 27.71, 54.98, 39.79, 36.42), (35.56, 31.0, 60.02, 35.36, 37.08)),
    "RISE": ((33.44, 27.11, 54.59, 39.62, 37.76), (32.86, 27.4, 55.55, 39.77, 37.08)),
    "Extremal Perturbation": ((61.19, 25.44, 51.2, 43.90, 32.65), (63.24, 26.29, 52.34, 39.38, 34.27)),
    "Grad-CAM++": ((46.29, 28.1, 55.59, 60.63, 23.89), (47.78, 30.16, 58.66, 41.77, 32.15)),
    "Grad-CAM": ((55.44, 26.52, 51.7, 49.47, 31.08), (60.08, 32.16, 60.25, 35.80, 36.58)),
}
STEEL = {
    "SISE": (61.06, 15.64),
    "FullGrad": (77.23, 10.26),
    "Score-CAM": (64.29, 10.35),
    "RISE": (63.25, 15.63),
    "Grad-CAM++": (64.1, 12.96),
    "Grad-CAM": (67.44, 12.46),
}
SCORECAMPP_METRICS = ("Average Drop", "Increase in Confidence", "Win")
SCORECAMPP = {  # Tables 1 to 4
    "ScoreCAM++": ((3.29, 50.25, 58.20), (3.24, 60.95, 37.30), (4.17, 43.75, 62.15), (7.28, 38.25, 41.15)),
    "AugGradCAM++": ((9.22, 28.00, 7.70), (7.59, 42.45, 7.15), (10.46, 22.20, 9.85), (12.93, 21.40, 10.65)),
    "ScoreCAM": ((6.89, 39.25, 14.75), (7.33, 47.05, 13.50), (8.48, 31.15, 9.50), (12.75, 26.75, 9.05)),
    "LayerCAM": ((8.48, 33.25, 1.50), (7.64, 46.00, 6.40), (9.87, 26.65, 1.70), (13.17, 24.40, 5.05)),
    "XGradCAM": ((8.62, 34.85, 4.60), (7.08, 52.70, 16.65), (9.75, 28.60, 9.00), (11.43, 30.95, 17.35)),
    "GradCAM++": ((8.55, 33.15, 3.20), (7.22, 47.05, 6.15), (9.98, 26.30, 2.15), (13.87, 23.95, 4.25)),
    "GradCAM": ((8.62, 34.95, 10.05), (8.92, 48.30, 12.85), (9.77, 28.45, 5.65), (12.51, 28.85, 12.50)),
}
GATES = {
    "Swish": (8.97, 32.14, 11.84),
    "Mish": (8.71, 32.95, 6.16),
    "Sigmoid": (6.04, 34.43, 15.05),
    "ReLU": (7.97, 34.79, 15.28),
    "Tanh": (4.27, 43.14, 51.65),
}
SUMS = {"Normalization": (9.76, 28.07, 20.14), "Normalization + Upsampled": (4.28, 43.13, 79.86)}
LOGITS = {
    "ScoreCAM++": 9.65,
    "AugGradCAM++": 9.08,
    "ScoreCAM": 7.89,
    "LayerCAM": 7.99,
    "XGradCAM": 7.92,
    "GradCAM++": 8.04,
    "GradCAM": 7.81,
}
VIT = {
    "ScoreCAM++": (6.52, 36.35, 38.95),
    "ScoreCAM": (19.31, 29.75, 27.75),
    "LayerCAM": (18.17, 18.50, 17.95),
    "XGradCAM": (45.63, 7.75, 5.40),
    "GradCAM++": (56.90, 7.30, 4.60),
    "GradCAM": (48.99, 9.85, 5.35),
}


def typed_twice():
    """(bibkey, table, model, method, metric) -> value, from the literals above."""
    found = {}
    for table, block in (("1", LAYER), ("2", LAYER_ABLATION)):
        for method, pair in block.items():
            for metric, number in zip(("Insertion", "Deletion"), pair, strict=True):
                found["sannomiya2024layer", table, "vgg16", method, metric] = number
    for method, nets in SISE.items():
        for model, numbers in zip(("vgg16", "resnet50"), nets, strict=True):
            for metric, number in zip(SISE_METRICS, numbers, strict=True):
                found["sattarzadeh2021sise", "1", model, method, metric] = number
    for method, pair in STEEL.items():
        for metric, number in zip(("Drop", "Increase"), pair, strict=True):
            found["sattarzadeh2021sise", "2", "resnet101", method, metric] = number
    for method, tables in SCORECAMPP.items():
        for table, numbers in zip("1234", tables, strict=True):
            model = "resnet18" if table in "13" else "vgg19"
            for metric, number in zip(SCORECAMPP_METRICS, numbers, strict=True):
                found["mitra2024scorecampp", table, model, method, metric] = number
    for table, model, block in (("5", "vgg19", GATES), ("6", "vgg19", SUMS), ("8", "vit_b_16", VIT)):
        for method, numbers in block.items():
            for metric, number in zip(SCORECAMPP_METRICS, numbers, strict=True):
                found["mitra2024scorecampp", table, model, method, metric] = number
    for method, number in LOGITS.items():
        found["mitra2024scorecampp", "7", "vgg19", method, "Drop in logit"] = number
    return found


@pytest.mark.parametrize("bibkey", ["mitra2024scorecampp", "sannomiya2024layer", "sattarzadeh2021sise"])
def test_the_tables_agree_with_a_second_transcription_of_all_of_them(bibkey):
    rows = paper_table(bibkey)
    rows = rows[rows["table"].str.fullmatch(r"\d+")]
    there = {(bibkey, r.table, r.model, r.method, r.metric): r.value for r in rows.itertuples()}
    again = {key: number for key, number in typed_twice().items() if key[0] == bibkey}
    assert there.keys() == again.keys()
    assert {key: (there[key], again[key]) for key in there if there[key] != again[key]} == {}


def test_numbers_of_the_text_of_sise():
    rows = paper_table("sattarzadeh2021sise", ("runtime", "masks", "networks")).set_index(["model", "method", "metric"])["value"]
    assert rows.to_dict() == {
        ("resnet50", "Grad-CAM", "Runtime"): 19 / 1000,
        ("resnet50", "Grad-CAM++", "Runtime"): 20 / 1000,
        ("resnet50", "Extremal Perturbation", "Runtime"): 78.37,
        ("resnet50", "RISE", "Runtime"): 26.08,
        ("resnet50", "SISE", "Runtime"): 9.21,
        ("resnet50", "SISE, mu 0.3", "Runtime"): 2.18,
        ("resnet50", "SISE, mu 0.5", "Runtime"): 0.65,
        ("resnet50", "RISE", "Masks"): 8000,
        ("resnet50", "SISE", "Masks"): 1900,
        ("resnet50", "SISE, before selection", "Masks"): 3904,
        ("vgg16", "the network itself", "Top-5 accuracy"): 93.29,
        ("resnet50", "the network itself", "Top-5 accuracy"): 93.09,
        ("resnet101", "the network itself", "Accuracy"): 86.58,
    }


# Gradual Extrapolation, by picture, hundredths: Tables 1 to 5
FIRST_FIVE = {
    "golden retriever": "39 36 18 2 1 / 27 13 12 4 4 / 40 27 10 6 4 / 52 16 10 5 5 / 37 37 11 5 4",
    "black widow 1": "89 10 0 0 0 / 28 16 9 5 5 / 70 14 5 4 2 / 60 24 6 4 1 / 53 16 4 3 1",
    "black widow 2": "100 0 0 0 0 / 21 13 12 9 9 / 65 26 3 2 1 / 87 11 1 1 0 / 89 11 0 0 0",
    "timber wolf 1": "91 8 1 0 0 / 58 13 9 7 5 / 11 8 8 5 5 / 55 16 14 6 4 / 30 28 8 14 13",
    "timber wolf 2": "62 35 2 0 0 / 22 19 17 5 4 / 30 22 10 6 4 / 44 19 5 5 4 / 51 15 15 5 4",
}
FIRST_LABELS = {
    "golden retriever": "golden retriever, golden retriever, ice bear, golden retriever, golden retriever",
    "black widow 1": "black widow, plastic bag, tick, tick, tick",
    "black widow 2": "black widow, croquet ball, black widow, black widow, black widow",
    "timber wolf 1": "timber wolf, timber wolf, timber wolf, timber wolf, timber wolf",
    "timber wolf 2": "timber wolf, timber wolf, Arctic fox, Arctic fox, Arctic fox",
}
LAST_LABELS = {
    "golden retriever": "tennis ball, vizsla, Arctic fox, Afghan hound, kuvash",
    "black widow 1": "wolf spider, nipple, fly, fly, ladybug",
    "black widow 2": "wolf spider, cicada, tick, ant, cicada",
    "timber wolf 1": "dingo, red wolf, coyote, white wolf, weasel",
    "timber wolf 2": "white wolf, Cardigan, coyote, cougar, coyote",
}
WHERE_THE_TRUTH_STANDS = {  # place of the picture's own class in each of the five tables, 0: not among the five
    "golden retriever": (1, 1, 2, 1, 1),
    "black widow 1": (1, 0, 2, 2, 2),
    "black widow 2": (1, 3, 1, 1, 1),
    "timber wolf 1": (1, 1, 1, 1, 1),
    "timber wolf 2": (1, 1, 2, 2, 3),
}
MAPS = ("Original", "Grad-CAM", "Gradual Grad-CAM", "cEB", "Gradual cEB")


@pytest.mark.parametrize("picture", FIRST_FIVE)
def test_the_five_classes_of_each_picture_and_map(picture):
    numbers, first, last = FIRST_FIVE[picture].split(" / "), FIRST_LABELS[picture].split(", "), LAST_LABELS[picture].split(", ")
    own = picture.rstrip(" 12")
    for i, method in enumerate(MAPS):
        rows = paper_table("szandala2021gradual", str(i + 1))
        assert set(rows["method"]) == {method} and set(rows["dataset"]) == set(FIRST_FIVE)
        rows = rows[rows["dataset"] == picture]
        assert (rows["value"] * 100).round().astype(int).tolist() == [int(n) for n in numbers[i].split()]
        assert (rows["metric"].iloc[0], rows["metric"].iloc[-1]) == (first[i], last[i])
        labels = rows["metric"].tolist()
        assert (labels.index(own) + 1 if own in labels else 0) == WHERE_THE_TRUTH_STANDS[picture][i]


# --------------------------------------------------------------------------------------- what the papers say themselves


def test_five_probabilities_are_at_most_one_and_sorted_but_for_the_row_that_is_printed_unsorted():
    rows = paper_table("szandala2021gradual")
    unsorted_ = []
    for (table, picture), group in rows.groupby(["table", "dataset"]):
        assert len(group) == 5 and group["value"].sum() < 1.005, (table, picture)
        if not group["value"].is_monotonic_decreasing:
            unsorted_.append((table, picture))
    assert unsorted_ == [("5", "timber wolf 1")]


def test_the_prose_of_gradual_extrapolation_quotes_its_tables():
    def of(table, picture, label):
        return value("szandala2021gradual", table, "", label, dataset=picture)

    assert of("3", "black widow 1", "black widow") == 0.14 and of("3", "black widow 2", "black widow") == 0.65
    assert of("5", "golden retriever", "golden retriever") == of("5", "golden retriever", "ice bear")  # "on par"
    assert of("5", "timber wolf 2", "timber wolf") == 0.15 and of("5", "timber wolf 2", "Arctic fox") == 0.51
    firsts = paper_table("szandala2021gradual", "2").groupby("dataset")["metric"].first()
    correct = [picture for picture, label in firsts.items() if picture.startswith(label)]
    assert len(correct) == 3  # "three images still have correctly assigned labels": both rows of wolves belong to Table 2


def test_the_differences_that_layer_selection_quotes():
    def of(table, method, metric):
        return value("sannomiya2024layer", table, method, metric)

    quoted = [  # minus, in the direction of better
        ("1", "Ours", "Grad-CAM", 4.21, 0.64),
        ("1", "Ours", "Score-CAM", 3.52, 0.42),
        ("2", "Ours", "Ours w/o difference", 3.7, 0.04),
        ("2", "Score-CAM w/ difference", "Score-CAM", 2.35, 0.21),
    ]
    for table, one, other, insertion, deletion in quoted:
        assert of(table, one, "Insertion") - of(table, other, "Insertion") == pytest.approx(insertion)
        assert of(table, other, "Deletion") - of(table, one, "Deletion") == pytest.approx(deletion)
    for method in ("Score-CAM", "Ours"):  # Table 2 repeats these rows of Table 1
        assert all(of("1", method, metric) == of("2", method, metric) for metric in ("Insertion", "Deletion"))


# model, metric -> bold, underlined
SISE_MARKS = {
    ("vgg16", "EBPG"): ("Extremal Perturbation", {"SISE"}),
    ("vgg16", "mIoU"): ("Grad-CAM++", {"SISE"}),
    ("vgg16", "Bbox"): ("SISE", {"Grad-CAM++"}),
    ("vgg16", "Drop"): ("SISE", {"RISE"}),
    ("vgg16", "Increase"): ("SISE", {"RISE"}),
    ("resnet50", "EBPG"): ("SISE", {"Extremal Perturbation"}),
    ("resnet50", "mIoU"): ("Grad-CAM", {"SISE"}),
    ("resnet50", "Bbox"): ("SISE", {"Grad-CAM"}),
    ("resnet50", "Drop"): ("SISE", {"Score-CAM"}),
    ("resnet50", "Increase"): ("SISE", {"RISE", "Score-CAM"}),
    ("resnet101", "Drop"): ("SISE", {"RISE"}),
    ("resnet101", "Increase"): ("SISE", {"RISE"}),
}


@pytest.mark.parametrize(("model", "metric"), SISE_MARKS)
def test_the_best_and_second_best_marks_of_sise(model, metric):
    rows = paper_table("sattarzadeh2021sise", ("1", "2"))
    rows = rows[(rows["model"] == model) & (rows["metric"] == metric)].set_index("method")["value"]
    ranks = rows.rank(method="min", ascending=metric == "Drop")
    best, second = SISE_MARKS[model, metric]
    assert set(ranks[ranks == 1].index) == {best} and set(ranks[ranks == 2].index) == second


def test_scorecampp_is_best_in_every_column_and_wins_add_up():
    rows = paper_table("mitra2024scorecampp")
    ours = {"5": "Tanh", "6": "Normalization + Upsampled"}
    for (table, metric), group in rows.groupby(["table", "metric"]):
        best = group.loc[group["value"].idxmin() if metric == "Average Drop" else group["value"].idxmax(), "method"]
        assert best == ours.get(table, "ScoreCAM++"), (table, metric)
        if metric == "Win":
            assert group["value"].sum() == pytest.approx(99.98 if table == "5" else 100, abs=1e-9)


def test_the_prose_of_scorecampp_quotes_its_tables():
    quoted = {
        ("1", "ScoreCAM++"): (3.29, 50.25, 58.20),
        ("2", "ScoreCAM++"): (3.24, 60.95, 37.30),
        ("3", "ScoreCAM++"): (4.17, 43.75, 62.15),
        ("6", "Normalization + Upsampled"): (4.28, 43.13),
    }
    for (table, method), numbers in quoted.items():
        for metric, number in zip(SCORECAMPP_METRICS, numbers, strict=False):
            assert value("mitra2024scorecampp", table, method, metric) == number
