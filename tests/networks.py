"""Tiny networks and pictures that the tests share, and a way to see whether a network is as it was."""

from __future__ import annotations

import random
import re
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import cam, models
from helpers.core import module_of

SIDE = 16
LIGHT: dict[str, dict[str, Any]] = {  # explainer -> settings that it cannot do without, or that make it quick
    "smooth_grad_cam_pp": {"copies": 3},
    "augmented_grad_cam": {"copies": 3, "steps": 5},
    "augmented_grad_cam_pp": {"copies": 3, "steps": 5},
    "guided_grad_cam": {"coarse": cam.grad_cam},
    "gradual_extrapolation": {"coarse": cam.grad_cam},
    "integrated_gradients": {"steps": 8},
    "rise": {"samples": 30},
    "extremal_perturbation": {"steps": 3},
}


def named(value: Any) -> str:
    """The name of a test's case: what it is, without its place in memory, which is another one in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


torch.set_num_threads(1)  # on networks this small, threads only wait for each other


class Tiny(nn.Module):
    """A small CNN with all that usually goes wrong: in-place ReLU, residual `+=`, batch norm, dropout; GAP + one linear layer."""

    def __init__(self, classes: int = 4, channels: int = 6):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        y = self.mix(x)
        y += x
        y = self.last(y)  # [N, C, h, w]
        return self.head(self.drop(y.mean((2, 3))))


class Deep(nn.Module):
    """Not GAP + linear: a strided convolution and two linear layers follow the features, so gradients vary over positions."""

    def __init__(self, classes: int = 4):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 7, 3, stride=2, padding=1), nn.Tanh()
        )
        self.rest = nn.Sequential(
            nn.Conv2d(7, 8, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(8 * 16, 9),
            nn.Tanh(),
            nn.Linear(9, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.features(x))


class Failing(Tiny):
    """Raises in its forward pass number `fail_at`, counted from 1 on."""

    fail_at = 0
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError(f"forward pass {self.calls} fails")
        return super().forward(x)


def made(kind: type[nn.Module] = Tiny, seed: int = 0, dtype: torch.dtype = torch.float64, **settings: Any) -> Any:
    """A network of this kind in evaluation mode, with strong weights and used batch-norm statistics, the same for a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = kind(**settings).to(dtype)
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(2)
            for m in net.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.running_mean.normal_(0, 0.3)
                    m.running_var.uniform_(0.5, 2)
    return net.eval()


def classifier(module: nn.Module, layer: str = "last", side: int = SIDE) -> models.Classifier:
    return models.from_module(module, cam_layer=layer, side=side, verbose=False)


def image(seed: int = 0, size: tuple[int, int] = (SIDE, SIDE), dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def switches() -> dict[str, Any]:
    """The switches of torch, and the warnings' filters, that a method could leave in another position for the whole process."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return {
        "threads": torch.get_num_threads(), "default dtype": torch.get_default_dtype(), "anomalies": torch.is_anomaly_enabled(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32), "tf32": cuda.matmul.allow_tf32,
        "attention": (torch.backends.mha.get_fastpath_enabled(), cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(),
                      cuda.math_sdp_enabled(), cuda.cudnn_sdp_enabled()),
        "warnings": [repr(f) for f in warnings.filters],
    }  # fmt: skip


def snapshot(net: Any) -> dict[str, Any]:
    """All of a network, and of the global state, that an explainer must leave as it was."""
    module = module_of(net)
    seen: dict[str, Any] = {
        "torch rng": torch.get_rng_state(), "numpy rng": np.random.get_state(), "python rng": random.getstate(),
        "grad mode": torch.is_grad_enabled(), "inference mode": torch.is_inference_mode_enabled(), **switches(),
    }  # fmt: skip
    for name, m in module.named_modules():
        seen[name, "attributes"] = sorted(k for k in vars(m) if k != "calls")  # a leftover `forward` would be here
        seen[name, "flags"] = (m.training, getattr(m, "inplace", None))
        seen[name, "hooks"] = {k: len(v) for k, v in vars(m).items() if k.endswith("hooks")}
    for name, p in module.named_parameters():
        seen[name, "parameter"] = (id(p), p.requires_grad, len(p._backward_hooks or ()), p.detach().clone())
        seen[name, "grad"] = None if p.grad is None else (id(p.grad), p.grad.clone())
    for name, b in module.named_buffers():
        seen[name, "buffer"] = (id(b), b.clone())
    return seen


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Any]:
    """Keys whose values differ; tensors and arrays have to be equal bit by bit."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return torch.equal(a, b)
        if isinstance(a, np.ndarray):
            return np.array_equal(a, b)
        if isinstance(a, tuple) and isinstance(b, tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return a == b

    return [k for k in before.keys() | after.keys() if k not in before or k not in after or not same(before[k], after[k])]
