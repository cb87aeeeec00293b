"""training: a run that is killed goes on as if nothing had been, bit by bit; what it measures, by hand."""

import copy
import os
import pickle

import pytest
import torch
from networks import changes, made, snapshot
from torch import nn

from helpers import training
from helpers.training import Pictures, accuracy, fit, flipped, in_memory, loader, mean_average_precision, predict, stream

X = torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3
SETTINGS = {"recipe": "tiny", "n": 24}


class Net(nn.Module):
    """All that has a state or chance of its own: batch norm and dropout."""

    def __init__(self, channels=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(channels, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def net(seed=0, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(**settings)


def jitter(image, generator):
    return flipped(image, generator) + 0.1 * torch.randn(image.shape, generator=generator)


def pictures(seed=0):
    return Pictures(X.__getitem__, Y, augment=jitter, seed=seed)


def run(path=None, *, batches=None, epochs=5, module=None, schedule="cosine", seed=0, **settings):
    module = module or net()
    batches = batches or loader(pictures(seed), 7)
    history = fit(
        module, batches, nn.CrossEntropyLoss(), epochs=epochs, lr=1e-2, weight_decay=1e-3, schedule=schedule, checkpoint=path,
        settings=SETTINGS, seed=seed, **settings,
    )  # fmt: skip
    return module, history


def same(a, b):
    return changes(a.state_dict(), b.state_dict()) == []


def untimed(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


# -------------------------------------------------------------------------------------------------------------- fit


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_linear_problem_is_learned(schedule):
    x = torch.randn(256, 5, generator=torch.Generator().manual_seed(1))
    w = torch.tensor([1.0, -2, 0.5, 0, 3])
    module = nn.Linear(5, 1)
    batches = [(x[i : i + 32], (x[i : i + 32] @ w + 0.7)[:, None]) for i in range(0, 256, 32)]
    history = fit(module, lambda epoch: batches, nn.MSELoss(), epochs=60, lr=0.05, schedule=schedule)
    torch.testing.assert_close(module.weight[0].detach(), w, atol=0.01, rtol=0)
    assert module.bias.item() == pytest.approx(0.7, abs=0.01)
    assert [row["epoch"] for row in history] == list(range(1, 61)) and history[-1]["loss"] < 1e-3 < history[0]["loss"]
    assert not module.training


def test_the_loss_of_an_epoch_is_the_mean_over_its_pictures():
    module = nn.Linear(1, 1)
    nn.init.zeros_(module.weight), nn.init.zeros_(module.bias)
    batches = [(torch.zeros(3, 1), torch.full((3, 1), 1.0)), (torch.zeros(1, 1), torch.full((1, 1), 3.0))]
    history = fit(module, lambda epoch: batches, nn.MSELoss(), epochs=1, lr=1e-12)
    assert history[0]["loss"] == pytest.approx((3 * 1 + 9) / 4)


def test_the_cosine_schedule_by_hand(monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self)))
    fit(nn.Linear(1, 1), lambda e: [(torch.ones(2, 1), torch.ones(2, 1))] * 10, nn.MSELoss(), epochs=4, lr=2.0, schedule="cosine")
    done = torch.arange(40, dtype=torch.float64) / 40
    expected = torch.where(done < 0.1, done / 0.1, 0.5 + 0.5 * torch.cos(torch.pi * (done - 0.1) / 0.9)).clamp(min=0.01) * 2
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), expected, rtol=1e-5, atol=1e-7)
    assert max(rates) == pytest.approx(2) and rates[0] == rates[-1] == pytest.approx(0.02)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    torch.manual_seed(1)
    (a, history), before = run(), torch.get_rng_state()
    torch.manual_seed(2)  # neither dropout nor the order takes anything from torch's global state
    b, again = run()
    assert same(a, b) and untimed(history) == untimed(again)
    assert not same(a, run(seed=1)[0])
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_differs_between_epochs_and_follows_the_seed():
    seen = []

    class Noisy(nn.Linear):
        def forward(self, x):
            seen.append(nn.functional.dropout(torch.ones(40), training=self.training))
            return super().forward(x)

    for seed in (0, 0, 1):
        fit(Noisy(1, 1), lambda e: [(torch.ones(1, 1), torch.ones(1, 1))], nn.MSELoss(), epochs=2, seed=seed)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[4])


class Killed(Exception):
    pass


def killed_at(epoch, batch, batches):
    """The batches of a run whose process ends in the middle of an epoch."""

    class Until:
        def __init__(self, given):
            self.given = given

        def __len__(self):
            return len(self.given)

        def __iter__(self):
            for i, pair in enumerate(self.given):
                if i == batch:
                    raise Killed
                yield pair

    return lambda e: Until(batches(e)) if e == epoch else batches(e)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(("epoch", "batch"), [(0, 2), (1, 0), (3, 3)])
def test_a_killed_run_goes_on_as_if_nothing_had_been(epoch, batch, schedule, tmp_path):
    measures = {"evaluate": lambda module: {"score": module.head.bias.detach().sum()}}
    whole, history = run(schedule=schedule, **measures)
    path = tmp_path / "deep" / "run.pt"
    with pytest.raises(Killed):
        run(path, batches=killed_at(epoch, batch, loader(pictures(), 7)), schedule=schedule, **measures)
    assert path.exists() == (epoch > 0)
    start = net(seed=9) if epoch else net()  # what a checkpoint does not hold is not asked for
    resumed, again = run(path, module=start, schedule=schedule, **measures)
    assert same(resumed, whole) and untimed(again) == untimed(history)
    assert [p.name for p in path.parent.iterdir()] == ["run.pt"]


def test_a_finished_run_is_only_read(tmp_path):
    whole, history = run(tmp_path / "run.pt")
    asked = []
    again, read = run(tmp_path / "run.pt", module=net(seed=3).train(), batches=asked.append)
    assert same(again, whole) and read == history and asked == [] and not again.training


def test_a_checkpoint_can_be_read_back_whatever_evaluate_returns(tmp_path):
    import numpy as np

    odd = {"a": np.float64(0.5), "b": torch.tensor(0.25), "c": np.float32(1)}
    _, history = run(tmp_path / "run.pt", evaluate=lambda module: odd, epochs=1)
    assert run(tmp_path / "run.pt", epochs=1)[1] == history
    assert {k: history[0][k] for k in odd} == {"a": 0.5, "b": 0.25, "c": 1.0}


def test_settings_that_no_checkpoint_could_hold_are_refused_before_training(tmp_path):
    asked = []
    with pytest.raises(TypeError, match="not JSON serializable"):
        fit(net(), asked.append, nn.CrossEntropyLoss(), epochs=1, settings={"root": tmp_path})
    assert asked == []


@pytest.mark.parametrize("junk", [b"", b"not a checkpoint", pickle.dumps(print, 2), "cut", "state", "row"])
def test_what_is_no_checkpoint_is_refused(junk, tmp_path):
    path = tmp_path / "run.pt"
    if junk == "cut":
        run(path, epochs=1)
        path.write_bytes(path.read_bytes()[:-200])
    elif junk == "state":
        torch.save(net().state_dict(), path)
    elif junk == "row":
        torch.save({"settings": {}}, path)
    else:
        path.write_bytes(junk)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"run\.pt is no checkpoint, or a damaged one: delete it to start anew"):
        run(path, epochs=1)
    assert path.read_bytes() == before


def test_a_checkpoint_of_other_settings_is_refused_and_they_are_named(tmp_path):
    path = tmp_path / "run.pt"
    run(path, epochs=1)
    with pytest.raises(ValueError, match=r"other settings \(epochs 1 there, 3 here, seed 0 there, 4 here\)"):
        run(path, epochs=3, seed=4)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    run(path, epochs=1)
    with pytest.raises(ValueError, match=r"run\.pt is of another network"):
        run(path, epochs=1, module=net(channels=5))
    module = net()
    with pytest.raises(ValueError, match=r"run\.pt is of another network"):  # the same weights, of which fewer learn
        run(path, epochs=1, module=module, parameters=module.head.parameters())


@pytest.mark.parametrize("rate", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_epoch_and_leaves_the_last_checkpoint(rate, tmp_path):
    path = tmp_path / "run.pt"
    module, seen = net(), []

    def loss(logits, labels):
        seen.append(1)
        return nn.functional.cross_entropy(logits, labels) * (rate if len(seen) == 4 + 2 else 1)

    with pytest.raises(ValueError, match=rf"the loss is {rate} in epoch 2, batch 2: try a smaller lr than 0\.001"):
        fit(module, loader(pictures(), 7), loss, epochs=4, checkpoint=path)
    assert torch.load(path, weights_only=True)["history"][-1]["epoch"] == 1
    assert all(p.isfinite().all() for p in module.parameters())


def test_only_the_given_parameters_learn_and_nothing_piles_up_in_the_others():
    module, before = net(), net()
    run(module=module, parameters=module.head.parameters())
    assert changes(dict(before.body.named_parameters()), dict(module.body.named_parameters())) == []
    assert not torch.equal(before.head.weight, module.head.weight)
    assert all(p.grad is None and p.requires_grad for p in module.body.parameters())


def test_frozen_parameters_stay_and_a_network_without_others_is_an_error():
    module = net()
    module.body.requires_grad_(False)
    run(module=module, epochs=1)
    assert torch.equal(module.body[0].weight, net().body[0].weight) and not torch.equal(module.head.weight, net().head.weight)
    with pytest.raises(ValueError, match="nothing to train"):
        run(module=module.requires_grad_(False))


def test_an_unknown_schedule_is_an_error():
    with pytest.raises(ValueError, match="'constant' or 'cosine', not 'step'"):
        run(schedule="step")


def generated(epoch):
    yield from [(X[:12], Y[:12]), (X[12:], Y[12:])]


def test_batches_may_be_a_list_or_without_a_length_where_the_rate_is_constant():
    a, _ = run(batches=generated, schedule="constant")
    b, _ = run(batches=lambda epoch: list(generated(epoch)), schedule="constant")
    assert same(a, b)


def test_the_cosine_schedule_needs_a_length():
    run(batches=lambda epoch: list(generated(epoch)), epochs=1)
    with pytest.raises(TypeError, match="batches with a length, such as a list, not generator"):
        run(batches=generated)


def test_an_epoch_without_batches_is_an_error():
    with pytest.raises(ValueError, match="epoch 1 has no batches"):
        run(batches=lambda epoch: [])


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_network_may_take_several_inputs(kind):
    class Sum(nn.Linear):
        def forward(self, x, y):
            return super().forward(x + y)

    module = Sum(1, 1)
    fit(module, lambda e: [(kind((torch.ones(2, 1), torch.ones(2, 1))), torch.ones(2, 1))], nn.MSELoss(), epochs=1)
    logits, _ = predict(module, [(kind((torch.ones(2, 1), torch.zeros(2, 1))), torch.ones(2))])
    torch.testing.assert_close(logits, module(torch.ones(2, 1), torch.zeros(2, 1)).detach())


# ------------------------------------------------------------------------------------------------------------- save


@pytest.mark.parametrize("fails", ["torch.save", "os.replace"])
def test_a_failure_while_writing_leaves_the_old_file_and_no_other(fails, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    training.save({"a": 1}, path)

    def full(what, where):
        if fails == "torch.save":
            where.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch if fails == "torch.save" else os, fails.split(".")[1], full)
    with pytest.raises(OSError, match="no space left"):
        training.save({"a": 2}, path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path, monkeypatch):
    path, write, during = tmp_path / "run.pt", torch.save, []
    training.save({"a": 1}, path)

    def watched(what, where):
        write(what, where)
        during.append(torch.load(path, weights_only=True))

    monkeypatch.setattr(torch, "save", watched)
    training.save({"a": 2}, path)
    assert during == [{"a": 1}] and torch.load(path, weights_only=True) == {"a": 2}


# ----------------------------------------------------------------------------------------------- pictures and loader


def drawn_in(batches, epoch):
    pairs = list(batches(epoch))
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def test_order_and_augmentation_follow_seed_and_epoch_and_not_the_number_of_workers():
    for epoch in (0, 3):
        (x0, y0), (x2, y2) = (drawn_in(loader(pictures(), 5, workers=w), epoch) for w in (0, 2))
        assert torch.equal(x0, x2) and torch.equal(y0, y2)
    (x0, y0), (x1, y1), (x2, _) = (drawn_in(loader(pictures(s), 5, shuffle=False), e) for s, e in ((0, 0), (0, 1), (1, 0)))
    assert torch.equal(y0, y1) and (x0 != x1).flatten(1).any(1).all() and (x0 != x2).flatten(1).any(1).all()


def test_two_epochs_opened_at_once_keep_their_own_augmentation():
    batches = loader(pictures(), 5)
    opened = [batches(e) for e in (0, 1)]
    for e, one in enumerate(opened):
        assert torch.equal(torch.cat([x for x, _ in one]), drawn_in(loader(pictures(), 5), e)[0])


def test_the_order_changes_with_the_epoch_and_the_seed_and_nothing_is_left_out():
    orders = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        data = Pictures(lambda i: torch.full((3, 1, 1), float(i)), torch.arange(24), seed=seed)
        batches = list(loader(data, 7)(epoch))
        assert [len(y) for _, y in batches] == [7, 7, 7, 3]
        assert torch.equal(torch.cat([x[:, 0, 0, 0] for x, _ in batches]).long(), torch.cat([y for _, y in batches]))
        orders[seed, epoch] = tuple(torch.cat([y for _, y in batches]).tolist())
    assert len(set(orders.values())) == 3 and all(sorted(o) == list(range(24)) for o in orders.values())
    data = Pictures(X.__getitem__, torch.arange(24))
    assert torch.equal(torch.cat([y for _, y in loader(data, 7, shuffle=False)(2)]), torch.arange(24))


def test_a_picture_is_read_when_asked_for():
    read = []
    data = Pictures(lambda i: (read.append(i), X[i])[1], Y)
    assert len(data) == 24 and read == []
    image, label = data[4]
    assert read == [4] and torch.equal(image, X[4]) and label == Y[4]


def test_streams_differ_and_repeat():
    seeds = {stream(*n) for n in ((0,), (1,), (0, 1), (1, 1), (1, 2), (2, 1), (0, 0, 1), (0, 1, 1))}
    assert len(seeds) == 8 and stream(1, 2) == stream(1, 2) and all(0 <= s < 2**63 for s in seeds)


def test_half_of_the_pictures_are_mirrored_and_whole():
    image = X[0]
    out = [flipped(image, torch.Generator().manual_seed(s)) for s in range(400)]
    mirrored = sum(torch.equal(o, image.flip(-1)) for o in out)
    assert 150 < mirrored < 250 and mirrored + sum(torch.equal(o, image) for o in out) == 400


def test_bytes_in_memory_become_what_a_network_takes():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 2, 2)
    read = in_memory(images, (0.0, 0.5, 0.2), (1.0, 0.5, 0.1))
    torch.testing.assert_close(read(1), torch.tensor([0.2, -0.6, 0.0])[:, None, None].expand(3, 2, 2))
    torch.testing.assert_close(read(2), torch.tensor([1.0, 1.0, 8.0])[:, None, None].expand(3, 2, 2))
    assert torch.equal(pickle.loads(pickle.dumps(read))(1), read(1))  # workers that are not forked get it so


# --------------------------------------------------------------------------------------------------------- measures


def test_accuracy_by_hand():
    logits = torch.tensor([[1.0, 2], [3, 0], [0, 1], [5, 4]])
    assert accuracy(logits, torch.tensor([1, 0, 0, 1])) == 0.5 and accuracy(logits, torch.tensor([1, 0, 1, 0])) == 1


def test_mean_average_precision_by_hand():
    scores = torch.tensor([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.7, 0.3, 0], [0.6, 0.4, 0]])
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]])
    # class 0 ranks 1 0 1 0: (1/1 + 2/3) / 2; class 1 ranks, the last picture first, 1 0 1 0 too; class 2 does not occur
    assert mean_average_precision(scores, labels) == pytest.approx(5 / 6)
    labels[:, 1] = torch.tensor([1.0, 0, 0, 0])  # at the last rank: 1/4
    assert mean_average_precision(scores, labels) == pytest.approx((5 / 6 + 1 / 4) / 2)


@pytest.mark.parametrize("classes", [1, 5])
def test_mean_average_precision_is_that_of_a_plain_loop(classes):
    g = torch.Generator().manual_seed(classes)
    scores, labels = torch.randn(40, classes, generator=g), (torch.rand(40, classes, generator=g) < 0.3).float()
    each = []
    for k in range(classes):
        ranked = labels[scores[:, k].argsort(descending=True), k]
        each.append(sum(ranked[: r + 1].mean().item() for r in range(40) if ranked[r]) / ranked.sum().item())
    assert mean_average_precision(scores, labels) == pytest.approx(sum(each) / classes)
    assert mean_average_precision(labels, labels) == 1


def test_mean_average_precision_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no class occurs"):
        mean_average_precision(torch.rand(3, 2), torch.zeros(3, 2))


def test_predict_gives_all_logits_in_order_and_leaves_the_network_as_it_was():
    module = made(dtype=torch.float32).train()
    module.drop.eval()  # flags that do not agree
    module.stem.weight.requires_grad_(False)
    before = snapshot(module)
    logits, labels = predict(module, loader(Pictures(X.__getitem__, Y), 7, shuffle=False)(0))
    assert changes(before, snapshot(module)) == []
    assert not logits.requires_grad and torch.equal(labels, Y)
    with torch.no_grad():
        torch.testing.assert_close(logits, copy.deepcopy(module).eval()(X))

    def broken():
        yield X[:2], Y[:2]
        raise Killed

    with pytest.raises(Killed):
        predict(module, broken())
    assert changes(before, snapshot(module)) == []


def test_predict_without_batches_is_an_error():
    with pytest.raises(ValueError, match="no batches to predict"):
        predict(net(), [])


def test_a_bar_of_progress_starts_the_batches_once():
    """tqdm makes an iterator of its own of whatever is none: of a DataLoader that meant all workers twice, and another order."""

    class Batches(list):
        started = 0

        def __iter__(self):
            Batches.started += 1
            return super().__iter__()

    module = nn.Linear(2, 1)
    given = Batches([(torch.zeros(3, 2), torch.zeros(3, 1))] * 2)
    training.fit(module, lambda _epoch: given, nn.functional.mse_loss, epochs=3, schedule="cosine")
    assert Batches.started == 3
