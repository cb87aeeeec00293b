"""Training that shows its progress, survives being killed, and gives the same network for the same seed.

One loop for everything the book trains: slim networks on drawn pictures, heads on fixed features, fine-tuning of whole
networks on the papers' sets, attention over bags.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from helpers.core import frozen

Loss = Callable[[Tensor, Tensor], Tensor]
Augment = Callable[[Tensor, torch.Generator], Tensor]
Batches = Callable[[int], Iterable[tuple[Any, Tensor]]]  # epoch -> (inputs, labels)


class Pictures(Dataset):
    """Pictures and labels for a `DataLoader`: item i is `(image [3, side, side], label)`, read or drawn when asked for.

    read: index -> image; augment: (image, generator) -> image, whose generator follows from (seed, epoch, i), so that
    neither the number of workers nor a restart changes anything.
    """

    def __init__(self, read: Callable[[int], Tensor], labels: Tensor, *, augment: Augment | None = None, seed: int = 0):
        self.read, self.labels, self.augment, self.seed, self.epoch = read, labels, augment, seed, 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        image = self.read(i)
        if self.augment is not None:
            image = self.augment(image, torch.Generator().manual_seed(stream(self.seed, self.epoch, i)))
        return image, self.labels[i]


def stream(*numbers: int) -> int:
    """A seed that follows from several numbers >= 0, unrelated for unlike ones; zeros at the end do not count."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def loader(data: Pictures, batch_size: int, *, shuffle: bool = True, workers: int = 0) -> Batches:
    """epoch -> the batches of that epoch, in an order that follows from (seed, epoch); the last, smaller batch is kept."""

    def epoch_of(epoch: int) -> DataLoader:
        at = copy.copy(data)  # another epoch's batches, not yet read, keep their own
        at.epoch = epoch
        order = torch.Generator().manual_seed(stream(data.seed, epoch))
        return DataLoader(at, batch_size, shuffle=shuffle, generator=order, num_workers=workers)

    return epoch_of


def flipped(image: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored left to right, every other time on average: `[3, H, W]`."""
    return image.flip(-1) if torch.rand((), generator=generator) < 0.5 else image


def fit(
    module: nn.Module, batches: Batches, loss: Loss, *, epochs: int, lr: float = 1e-3, weight_decay: float = 0.0,
    schedule: str = "constant", parameters: Iterable[nn.Parameter] | None = None, checkpoint: str | Path | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None, settings: dict[str, Any] | None = None, seed: int = 0,
) -> list[dict[str, float]]:  # fmt: skip
    """Train `module` in place with Adam; returns one row an epoch: epoch, loss, seconds, and what `evaluate` measures.

    loss: a mean over the batch. schedule: "constant", or "cosine" (a warm-up over the first tenth, then down to a hundredth
    of lr), for which `batches` has to give something that has a length. parameters: those that learn (default all that
    require gradients); batch norm's statistics move in the others too. checkpoint: written whole after every epoch; where it
    is there already, training goes on from it. settings: what the run is made of, as plain values; a checkpoint made with
    others is refused. evaluate: called in evaluation mode, in which the module is left. seed: of what is random in the
    module itself, such as dropout; torch's own random state is given back.
    Errors: ValueError for a checkpoint of another run, a loss that is not finite, an epoch without batches, an unknown
    schedule, nothing that learns; TypeError for settings that are not plain, and a cosine over batches without a length.
    """
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"schedule is 'constant' or 'cosine', not {schedule!r}")
    learning = [p for p in (module.parameters() if parameters is None else parameters) if p.requires_grad]
    if not learning:
        raise ValueError("none of the parameters requires a gradient: there is nothing to train")
    device = learning[0].device
    optimizer = torch.optim.Adam(learning, lr, weight_decay=weight_decay)
    made_of = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "schedule": schedule, "seed": seed} | (settings or {})
    made_of = json.loads(json.dumps(made_of))  # what a checkpoint can be read back with; TypeError for anything else
    history: list[dict[str, float]] = []
    path = Path(checkpoint) if checkpoint else None
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)  # where that fails, it fails now
        history = _resume(path, module, optimizer, made_of) if path.exists() else []
    for epoch in range(len(history), epochs):
        start, total, seen = time.perf_counter(), 0.0, 0
        module.train()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(stream(seed, epoch, 0, 1))
            given = batches(epoch)
            if schedule == "cosine" and not isinstance(given, Sized):
                raise TypeError(f"the cosine schedule needs batches with a length, such as a list, not {type(given).__name__}")
            steps = len(given) if isinstance(given, Sized) else None
            # an iterator, for of anything else tqdm makes one more: a DataLoader would start its workers twice
            bar = tqdm(iter(given), desc=f"epoch {epoch + 1}/{epochs}", total=steps, leave=False)
            for step, (inputs, labels) in enumerate(bar):
                if steps and schedule == "cosine":
                    _set_rate(optimizer, lr, (epoch + step / steps) / epochs)
                value = loss(module(*(x.to(device) for x in _tuple(inputs))), labels.to(device))
                if not value.isfinite():
                    where = f"epoch {epoch + 1}, batch {step + 1}"
                    raise ValueError(f"the loss is {value.item()} in {where}: try a smaller lr than {lr}")
                optimizer.zero_grad()
                value.backward(inputs=learning)  # nothing piles up in the others
                optimizer.step()
                total, seen = total + value.item() * len(labels), seen + len(labels)
                bar.set_postfix(loss=f"{total / seen:.3f}")
        if not seen:
            raise ValueError(f"epoch {epoch + 1} has no batches")
        module.eval()
        row = {"epoch": epoch + 1, "loss": total / seen, "seconds": time.perf_counter() - start}
        measured = evaluate(module) if evaluate else {}
        history.append(row | {k: float(v) for k, v in measured.items()})  # plain numbers, or no checkpoint could be read back
        tqdm.write("  ".join(f"{k} {v:.4g}" for k, v in history[-1].items()))
        if path:
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            save(state | {"history": history, "settings": made_of}, path)
    module.eval()
    return history


def _tuple(inputs: Any) -> Sequence[Tensor]:
    return inputs if isinstance(inputs, tuple | list) else (inputs,)  # a DataLoader makes lists of tuples


def _set_rate(optimizer: torch.optim.Optimizer, lr: float, done: float) -> None:
    """The cosine schedule's rate where `done` in [0, 1) of the training is done."""
    factor = done / 0.1 if done < 0.1 else 0.5 * (1 + torch.cos(torch.tensor((done - 0.1) / 0.9 * torch.pi)).item())
    for group in optimizer.param_groups:
        group["lr"] = lr * max(factor, 0.01)


def _resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> list[dict[str, float]]:
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu")
        theirs, _, _, _ = dict(kept["settings"]), kept["module"], kept["optimizer"], kept["history"]
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint, or a damaged one: delete it to start anew") from error
    if theirs != settings:
        differ = sorted(k for k in theirs.keys() | settings.keys() if theirs.get(k) != settings.get(k))
        said = ", ".join(f"{k} {theirs.get(k)} there, {settings.get(k)} here" for k in differ)
        raise ValueError(f"{path} is of a run with other settings ({said}): delete it, or name another checkpoint")
    try:
        module.load_state_dict(kept["module"])
        optimizer.load_state_dict(kept["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is of another network ({error}): delete it, or name another checkpoint") from error
    print(f"going on from {path} after epoch {len(kept['history'])}")
    return kept["history"]


def save(what: dict[str, Any], path: Path) -> None:
    """Write with `torch.save`, whole or not at all: a run killed here leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        torch.save(what, half)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)


# ----------------------------------------------------------------------------------------------------- measures


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of first choices that are right: logits `[N, K]`, labels `[N]`."""
    return (logits.argmax(1) == labels).double().mean().item()


def mean_average_precision(logits: Tensor, labels: Tensor) -> float:
    """Average precision of each class over the pictures, then the mean over classes that occur: both `[N, K]`.

    Average precision is the mean, over the pictures that hold the class, of the precision at that picture's rank.
    Errors: ValueError if no class occurs. Source: everingham2010voc.
    Deviation: there the precision at a recall is the best at that or any higher one, and eleven recalls are averaged;
    here it is the measured one, averaged over all pictures that hold the class.
    """
    from sklearn.metrics import average_precision_score

    there = labels.any(0)
    if not there.any():
        raise ValueError("no class occurs in these labels")
    columns = zip(labels[:, there].T.cpu().numpy(), logits[:, there].T.cpu().numpy(), strict=True)
    return float(np.mean([average_precision_score(label, score) for label, score in columns]))


def predict(module: nn.Module, batches: Iterable[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits `[N, K]` and labels of all batches, on the CPU, in evaluation mode, no gradients; the mode is given back.

    Errors: ValueError where there is no batch.
    """
    device = next(module.parameters()).device
    with frozen(module), torch.no_grad():
        pairs = [(module(*(x.to(device) for x in _tuple(inputs))).cpu(), labels) for inputs, labels in batches]
    if not pairs:
        raise ValueError("there are no batches to predict")
    return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])


def in_memory(images: Sequence[Tensor] | Tensor, mean: Sequence[float], std: Sequence[float]) -> Callable[[int], Tensor]:
    """Reader for `Pictures` from bytes kept in memory `[N, 3, H, W]`: index -> image, scaled as the network wants it."""
    return partial(_scaled, images, torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None])  # can be pickled


def _scaled(images: Sequence[Tensor] | Tensor, mean: Tensor, std: Tensor, i: int) -> Tensor:
    return (images[i].float() / 255 - mean) / std
