"""Training that shows its progress, survives being killed, and gives the same network for the same seed.

One loop for everything the book trains: slim networks on drawn pictures, heads on fixed features, fine-tuning of whole
networks on the papers' sets, attention over bags.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
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
    """A seed that follows from several numbers, unrelated for unlike ones."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def loader(data: Pictures, batch_size: int, *, shuffle: bool = True, workers: int = 0) -> Batches:
    """epoch -> the batches of that epoch, in an order that follows from (seed, epoch); the last, smaller batch is kept."""

    def epoch_of(epoch: int) -> DataLoader:
        data.epoch = epoch
        order = torch.Generator().manual_seed(stream(data.seed, epoch))
        return DataLoader(data, batch_size, shuffle=shuffle, generator=order, num_workers=workers)

    return epoch_of


def flipped(image: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored left to right, every other time on average: `[3, H, W]`."""
    return image.flip(-1) if torch.rand((), generator=generator) < 0.5 else image


def fit(
    module: nn.Module, batches: Batches, loss: Loss, *, epochs: int, lr: float = 1e-3, weight_decay: float = 0.0,
    schedule: str = "constant", parameters: Iterable[nn.Parameter] | None = None, checkpoint: str | Path | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None, settings: dict[str, Any] | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Train `module` in place with Adam; returns one row an epoch: epoch, loss, seconds, and what `evaluate` measures.

    schedule: "constant", or "cosine" (a warm-up over the first tenth, then down to zero). parameters: those that learn
    (default all). checkpoint: written whole after every epoch; where it is there already, training goes on from it.
    settings: what the run is made of; a checkpoint made with others is refused. evaluate: called in evaluation mode.
    Errors: ValueError for a checkpoint of another run, for a loss that is not finite, and for an unknown schedule.
    """
    if schedule not in ("constant", "cosine"):
        raise ValueError(f"schedule is 'constant' or 'cosine', not {schedule!r}")
    learning = list(module.parameters() if parameters is None else parameters)
    device = learning[0].device
    optimizer = torch.optim.Adam(learning, lr, weight_decay=weight_decay)
    made_of = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "schedule": schedule, **(settings or {})}
    history: list[dict[str, float]] = []
    path = Path(checkpoint) if checkpoint else None
    if path and path.exists():
        history = _resume(path, module, optimizer, made_of)
    for epoch in range(len(history), epochs):
        module.train()
        start, total, seen = time.perf_counter(), 0.0, 0
        bar = tqdm(batches(epoch), desc=f"epoch {epoch + 1}/{epochs}", leave=False)
        for step, (inputs, labels) in enumerate(bar):
            if schedule == "cosine":
                _set_rate(optimizer, lr, (epoch + step / len(bar)) / epochs)
            value = loss(module(*(x.to(device) for x in _tuple(inputs))), labels.to(device))
            if not value.isfinite():
                raise ValueError(f"the loss is {value.item()} in epoch {epoch + 1}, batch {step + 1}: try a smaller lr than {lr}")
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total, seen = total + value.item() * len(labels), seen + len(labels)
            bar.set_postfix(loss=f"{total / seen:.3f}")
        module.eval()
        row = {"epoch": epoch + 1, "loss": total / seen, "seconds": time.perf_counter() - start}
        history.append(row | (evaluate(module) if evaluate else {}))
        tqdm.write("  ".join(f"{k} {v:.4g}" for k, v in history[-1].items()))
        if path:
            save(
                {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "history": history, "settings": made_of},
                path,
            )
    module.eval()
    return history


def _tuple(inputs: Any) -> tuple[Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _set_rate(optimizer: torch.optim.Optimizer, lr: float, done: float) -> None:
    factor = done / 0.1 if done < 0.1 else 0.5 * (1 + torch.cos(torch.tensor((done - 0.1) / 0.9 * torch.pi)).item())
    for group in optimizer.param_groups:
        group["lr"] = lr * max(factor, 0.01)


def _resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> list[dict[str, float]]:
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu")
        theirs = kept["settings"]
    except Exception as error:
        raise ValueError(f"{path} could not be read as a checkpoint ({error}): delete it to start anew") from error
    if theirs != settings:
        differ = sorted(k for k in theirs.keys() | settings.keys() if theirs.get(k) != settings.get(k))
        raise ValueError(f"{path} is of a run with other settings ({', '.join(differ)}): delete it, or name another checkpoint")
    module.load_state_dict(kept["module"])
    optimizer.load_state_dict(kept["optimizer"])
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
    Errors: ValueError if no class occurs. Source: everingham2010voc (the area under the whole curve, as since 2010).
    """
    from sklearn.metrics import average_precision_score

    there = labels.any(0)
    if not there.any():
        raise ValueError("no class occurs in these labels")
    return float(average_precision_score(labels[:, there].numpy(), logits[:, there].numpy(), average="macro"))


def predict(module: nn.Module, batches: Iterable[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits `[N, K]` and labels of all batches, on the CPU, in evaluation mode, no gradients; the mode is given back."""
    device = next(module.parameters()).device
    with frozen(module), torch.no_grad():
        pairs = [(module(*(x.to(device) for x in _tuple(inputs))).cpu(), labels) for inputs, labels in batches]
    return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])


def in_memory(images: Sequence[Tensor] | Tensor, mean: Sequence[float], std: Sequence[float]) -> Callable[[int], Tensor]:
    """Reader for `Pictures` from bytes kept in memory `[N, 3, H, W]`: index -> image, scaled as the network wants it."""
    m, s = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    return lambda i: (images[i].float() / 255 - m) / s
