"""The bench compares like with like: every contender does the same work, the floor counts its passes, the goals can fail."""

import importlib.util
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import models
from helpers.core import resize, to_unit
from helpers.data import data_folder
from helpers.evaluation import counted

BOOK = data_folder().parent / "book"


def script(name):
    """A script of book/ as a module; book/ is no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BOOK / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


bench = script("bench")
SIDE = 32


@pytest.fixture(scope="module")
def case():
    """A small network with batch norms that are not the identity, cut like the large ones, on a picture of noise."""
    generator = torch.Generator().manual_seed(0)

    def made() -> nn.Module:
        convolutions = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12)]
        head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 6))
        return bench.calibrated(bench.Probed(nn.Sequential(*convolutions, nn.ReLU()), head), SIDE)

    module = models.seeded(3, made)
    net = models.Classifier("small", module, tuple("abcdef"), "features", side=SIDE)
    return bench.case_of(
        net, torch.randn(3, SIDE, SIDE, generator=generator), bench.Sizes(masks=9, windows=4, points=10, steps=7)
    )


# ------------------------------------------------------------------------------------------------------- the same work


@pytest.fixture(scope="module")
def results(case):
    """work -> contender -> what it gave."""
    pytest.importorskip("torchcam", reason="the extra `bench` brings torch-cam")
    return {name: {c.name: c.run() for c in work(case).contenders} for name, work in bench.WORKS.items()}


@pytest.mark.parametrize("name", bench.WORKS)
def test_contenders_of_a_work_agree(results, name):
    ours = results[name]["ours"]
    assert ours.amax() > ours.amin(), "a constant result would agree with nothing, or with everything"
    for contender, theirs in results[name].items():
        # pytorch-grad-cam enlarges its masks with the corners aligned, and bfloat16 has three digits
        least = {"pytorch-grad-cam": 0.98, bench.IN_HALF: 0.95}.get(contender.split(", batch")[0], 0.9999)
        if name == "Grad-CAM":
            least = min(least, 0.999)
        assert bench.agreement(ours, theirs) > least, contender


@pytest.mark.parametrize("name", ["RISE", "occlusion", "integrated gradients", "insertion", "deletion"])
def test_where_the_definition_is_the_same_so_are_the_numbers(results, name):
    for contender, theirs in results[name].items():
        if contender != "ours, bfloat16":
            torch.testing.assert_close(theirs.float(), results[name]["ours"].float(), rtol=1e-4, atol=1e-5, msg=contender)


def test_score_cam_of_torch_cam_is_ours_but_for_its_scale(results):
    """And for its masks, which are scaled to [0, 1] before they are enlarged, ours afterwards."""
    for contender in ("torch-cam", "torch-cam, batch 8"):
        theirs = resize(results["Score-CAM"][contender], (SIDE, SIDE))
        torch.testing.assert_close(to_unit(theirs), to_unit(results["Score-CAM"]["ours"]), rtol=0, atol=5e-3)


def test_score_cam_of_pytorch_grad_cam_is_ours_with_the_corners_of_the_masks_aligned(case, results, monkeypatch):
    def aligned(x, size):
        return F.interpolate(x[None], size=tuple(size), mode="bilinear", align_corners=True)[0]

    theirs = to_unit(results["Score-CAM"]["pytorch-grad-cam"])
    before = float((to_unit(results["Score-CAM"]["ours"]) - theirs).abs().max())
    monkeypatch.setattr(bench.masks, "resize", aligned)
    after = float((to_unit(bench.score_cam_work(case).contenders[0].run()) - theirs).abs().max())
    assert after < 1e-5 and before > 1e-3


def test_other_work_is_noticed(case, results):
    other = bench.sampling.rise(case.net, case.image, case.target, samples=9, seed=1)
    assert bench.agreement(results["RISE"]["ours"], other) < 0.9
    shuffled = bench.curve_loop("deletion", case, torch.randn(SIDE, SIDE), 8)
    assert bench.agreement(results["deletion"]["ours"], shuffled) < 0.9999


@pytest.mark.parametrize("name", [name for name in bench.WORKS if name not in ("Grad-CAM", "integrated gradients")])
def test_a_work_needs_as_many_passes_as_it_says_and_ours_makes_two_more_at_most(case, name):
    work = bench.WORKS[name](case)
    with counted(case.net) as cost:
        work.contenders[0].run()
    assert work.forwards <= cost.forwards <= work.forwards + 2


def test_the_probe_puts_out_the_first_channels_that_are_not_constant(case):
    module = bench.cut(models.load("resnet18", weights=None).module).eval()
    assert isinstance(module, bench.Probed) and len(case.module.channels) == 9
    dead = torch.zeros(12, 1, 1)
    dead[[1, 4, 5]] = 1
    features = nn.Conv2d(3, 12, 3, 4, 1)
    with torch.no_grad():
        features.weight.mul_(dead[..., None])
    probed = bench.Probed(features, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 6))).eval()
    found = bench.case_of(replace(case.net, module=probed), case.image, replace(case.sizes, masks=2))
    assert found.module.channels.tolist() == [1, 4]


@pytest.mark.parametrize("name", bench.NETS)
def test_a_network_that_was_cut_is_the_same_network(name):
    with torch.device("meta"):
        whole = models.imagenet_network(name, None, 0).module
        cut = bench.cut(whole)
    assert {id(p) for p in whole.parameters()} == {id(p) for p in cut.parameters()}
    small = models.load(name, weights=None).module if name == "efficientnet_lite0" else None
    if small is not None:
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(bench.cut(small).eval()(x), small(x))


# ----------------------------------------------------------------------------------------- the floor, time and memory


def test_the_floor_is_the_same_network_and_makes_the_passes_it_says(case):
    x = torch.randn(5, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(case.fast(x), case.module(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in case.fast.modules())
    for n, batch in ((8, 4), (9, 4), (1, 1)):
        with counted(case.fast) as cost:
            bench.forwards(case.fast, case.image, n, batch)
        assert (cost.calls, cost.forwards) == (-(-n // batch), -(-n // batch) * batch)


def test_the_floor_takes_the_fastest_batch(case, monkeypatch):
    monkeypatch.setattr(bench, "timed", lambda run: ({1: 1.0, 2: 1.5, 4: 2.0, 8: 6.0}[run.args[2]], None))
    assert bench.plain(case.module, case.image)[1] == 4


def test_contenders_take_turns_and_the_slow_one_runs_once():
    calls: list[str] = []
    a, b = (bench.Contender(name, lambda name=name: calls.append(name) or name, "", once=name == "b") for name in "ab")
    seconds, results = bench.alternated([a, b], 3)
    assert calls == ["a", "b", "a", "a"] and [len(seconds[name]) for name in "ab"] == [3, 1]
    assert results == {"a": "a", "b": "b"}


def test_ratios_are_taken_within_a_round():
    row = bench.spread([2.0, 6.0, 4.0], [1.0, 2.0, 4.0])
    assert (row["seconds"], row["low"], row["high"]) == (4, 2, 6)
    assert (row["ratio_to_ours"], row["ratio_low"], row["ratio_high"]) == (2, 1, 3)
    assert bench.spread([3.0], [1.0, 2.0])["ratio_to_ours"] == 3


def test_the_peak_of_known_work_is_known():
    def work() -> Tensor:
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1  # 8,000
        del a
        return torch.cat([b, b])  # without a: 12,000

    assert bench.peak(work) == 12_000


@pytest.mark.parametrize("name", ["Score-CAM", "RISE", "occlusion", "insertion"])
def test_a_rehearsal_takes_as_much_memory(case, results, name):
    for contender in bench.WORKS[name](case).contenders:
        real = bench.peak(contender.run)
        with bench.rehearsal(case.module):
            assert bench.peak(contender.run) == pytest.approx(real, rel=0.02), contender.name


def test_a_rehearsal_runs_one_batch_of_each_size_and_every_single_picture(case):
    with bench.rehearsal(case.module), counted(case.module.head) as cost, torch.no_grad():
        for n in (8, 8, 1, 5, 1, 8, 5):
            assert case.module(torch.randn(n, 3, SIDE, SIDE)).shape == (n, 6)
    assert cost.forwards == 8 + 1 + 5 + 1
    assert "forward" not in vars(case.module)


def test_a_measured_work_has_a_row_for_each_contender_and_one_for_the_floor(case):
    rows = bench.measured(case, bench.rise_work(case), rounds=2)
    assert list(rows.columns) == bench.COLUMNS
    assert list(rows["contender"]) == ["floor", "ours", "straightforward loop", "straightforward loop, batch 8"]
    assert (rows["forwards"] == 9).all() and (rows["rounds"] == 2).all()
    assert rows.loc[1, "ratio_to_ours"] == 1 and rows.loc[1, "agreement"] == pytest.approx(1)
    assert rows.loc[0, "ratio_to_floor"] == 1 and rows["plain_bytes"].gt(0).all() and rows["peak_bytes"][1:].gt(0).all()


def test_the_curves_grow_with_what_they_are_of_and_leave_the_case_as_it_was(case):
    rows = bench.by_masks(case, 1, (3, 7))
    assert list(rows["forwards"]) == [4, 4, 4, 8, 8, 8] and set(rows["contender"]) == {"floor", "ours", "ours, five classes"}
    assert len(case.module.channels) == 9
    rows = bench.by_pictures(case, 1, (1, 3))
    assert list(rows["contender"]) == ["1 pictures", "3 pictures"] and list(rows.columns) == bench.COLUMNS
    assert len(bench.pictures(case, 3)) == 3


def test_new_rows_take_the_place_of_old_ones_and_leave_the_others(tmp_path):
    def rows(work, network, contenders, seconds):
        return pd.DataFrame([{"work": work, "network": network, "contender": c, "seconds": seconds} for c in contenders])

    path = tmp_path / "deep" / "bench.csv"
    full = [frame.reindex(columns=bench.COLUMNS) for frame in (rows("RISE", "a", "xyz", 1.0), rows("RISE", "b", "x", 2.0))]
    for frame in full:
        bench.keep(frame, path)
    bench.keep(rows("RISE", "a", "xw", 3.0).reindex(columns=bench.COLUMNS), path)
    there = pd.read_csv(path)
    assert sorted(there[["network", "contender", "seconds"]].itertuples(index=False, name=None)) == [
        ("a", "w", 3.0),
        ("a", "x", 3.0),
        ("b", "x", 2.0),
    ]
    assert [p.name for p in path.parent.iterdir()] == ["bench.csv"]


# ----------------------------------------------------------------------------------------------------------- the goals


def made(**values):
    """A row of the table that meets every goal, but for what is given."""
    row = dict.fromkeys(bench.COLUMNS, float("nan"))
    row |= {"work": "Score-CAM", "network": "resnet50", "contender": "ours", "seconds": 1.0, "ratio_to_ours": 1.0}
    return row | {"ratio_to_floor": 1.04, "peak_bytes": 119.0, "plain_bytes": 100.0, "forwards": 33} | values


@pytest.mark.parametrize(
    ("goal", "good", "bad"),
    [
        ("near the floor", {}, {"ratio_to_floor": 1.06}),
        ("memory of a plain pass", {}, {"peak_bytes": 121.0}),
        ("faster than others", *({"contender": "torch-cam", "ratio_to_ours": ratio} for ratio in (1.71, 1.69))),
        (
            "faster than others at their best batch",
            *({"contender": "captum, batch 8", "ratio_to_ours": ratio} for ratio in (1.71, 1.69)),
        ),
        ("five classes for one", *({"contender": "ours, five classes", "ratio_to_ours": ratio} for ratio in (1.09, 1.11))),
        ("bfloat16 in half the time", *({"contender": "ours, bfloat16", "ratio_to_ours": ratio} for ratio in (0.54, 0.56))),
        ("bfloat16 ranks alike", *({"contender": "ours, bfloat16", "agreement": rank} for rank in (0.991, 0.989))),
    ],
)
def test_a_goal_is_met_or_missed(goal, good, bad):
    for values, met in ((good, True), (bad, False)):
        judged = bench.verdicts(pd.DataFrame([made(**values)])).set_index("goal")
        assert judged.loc[goal, "met"] == met


def test_what_was_not_measured_is_not_judged():
    judged = bench.verdicts(pd.DataFrame([made(ratio_to_floor=float("nan"))]))
    assert list(judged["goal"]) == ["memory of a plain pass"]
    assert bench.verdicts(pd.DataFrame(columns=bench.COLUMNS)).empty


@pytest.mark.parametrize(("seconds", "met"), [((10.1, 5.5), (True, True)), ((10.3, 6.0), (False, False))])
def test_workers_are_judged_by_what_two_gain_and_one_costs(seconds, met):
    took = {"this process": 10.0, "one worker": seconds[0], "two workers": seconds[1]}
    rows = pd.DataFrame([made(work="workers", contender=name, seconds=s) for name, s in took.items()])
    judged = bench.verdicts(rows).set_index("goal")["met"]
    assert (judged["overhead of a worker"], judged["two workers"]) == met


@pytest.mark.parametrize(("last", "met"), [(4.1, True), (4.3, False)])
def test_a_mask_more_is_judged_by_the_slope(last, met):
    """What comes once for a map, here a whole second, is left out."""
    took = {("floor", 10): 1.0, ("floor", 30): 3.0, ("ours", 10): 2.0, ("ours", 30): last}
    rows = pd.DataFrame([made(work="masks", contender=name, forwards=n, seconds=s) for (name, n), s in took.items()])
    judged = bench.verdicts(rows).set_index("goal")
    assert judged.loc["near the floor, a mask more", "met"] == met


# ---------------------------------------------------------------------------------------------------- the stored table


@pytest.fixture(scope="module")
def stored():
    return pd.read_csv(bench.OUT, dtype={"commit": str})


def test_the_stored_table_is_complete(stored, case):
    assert list(stored.columns) == bench.COLUMNS and not stored.duplicated([*bench.KEY, "forwards"]).any()
    for name, make in bench.WORKS.items():
        work = make(case)
        wanted = {c.name for c in work.contenders} | (set() if work.gradients else {"floor"})
        for network in bench.NETS:
            mine = stored[(stored["work"] == name) & (stored["network"] == network)]
            assert set(mine["contender"]) - {bench.IN_HALF} == wanted, (name, network)
    assert (stored["contender"] == bench.IN_HALF).sum() >= 2
    assert set(bench.CURVES) <= set(stored["work"])


def test_the_stored_rows_say_what_they_are(stored):
    assert stored[["settings", "device", "date", "commit", "versions", "threads", "rounds"]].notna().all().all()
    assert (stored["low"] <= stored["seconds"]).all() and (stored["seconds"] <= stored["high"]).all()
    assert (stored["ratio_low"] <= stored["ratio_to_ours"]).all() and (stored["ratio_to_ours"] <= stored["ratio_high"]).all()
    assert (stored["seconds"] > 0).all() and (stored["rounds"] >= 1).all()


def test_the_stored_contenders_did_the_same_work(stored):
    """All but Score-CAM of pytorch-grad-cam, whose masks are a little others: see the test on its corners above."""
    peers = stored[stored["work"].isin(bench.WORKS) & ~stored["contender"].isin(["floor", bench.IN_HALF])]
    assert peers["agreement"].notna().all()
    others = (peers["work"] == "Score-CAM") & peers["contender"].str.startswith("pytorch-grad-cam")
    worst = peers[~others].nsmallest(3, "agreement")[["work", "network", "contender", "agreement"]]
    assert (peers.loc[~others, "agreement"] > 0.995).all(), worst
    assert (peers.loc[others, "agreement"] > 0.7).all()


def test_the_stored_table_is_judged_on_every_goal(stored):
    judged = bench.verdicts(stored)
    assert len(judged) > 100 and judged["value"].notna().all()
    goals = {"near the floor", "memory of a plain pass", "faster than others", "five classes for one", "two workers"}
    assert goals | {"bfloat16 in half the time", "overhead of a worker", "near the floor, a mask more"} <= set(judged["goal"])
