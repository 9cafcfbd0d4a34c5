"""What the tests of systems that take an image share: tiny data with partners, tiny settings, one batch to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gan.trainer import systems
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training
from gan.trainer.parts import Arrangement, Batch

from .conftest import training, weights

ARRANGED: dict[str, Arrangement] = {
    "pix2pix": "pairs", "cyclegan": "unpaired", "srgan": "single", "inpainting": "single",
    "face-aging": "single",
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "pix2pix": {"width": 4, "d_width": 4, "d_layers": 1, "batch_size": 2},
    "cyclegan": {"width": 4, "downs": 1, "blocks": 1, "d_width": 4, "d_layers": 1, "pool": 3,
                 "batch_size": 2},
    "srgan": {"width": 4, "blocks": 1, "d_width": 2, "batch_size": 4},
    "inpainting": {"width": 4, "d_width": 4, "batch_size": 4, "completion_share": 0.34,
                   "critics_share": 0.33},
    "face-aging": {"width": 4, "e_width": 4, "embedded": 5, "latent": 6, "batch_size": 4,
                   "embedding": 3, "projection": 4, "gan_share": 0.34, "embedder_share": 0.33},
}  # fmt: skip
NAMES = list(SMALL)


def noise(count: int, channels: int, size: int, seed: int) -> NDArray[np.uint8]:
    source = np.random.default_rng(seed)
    return source.integers(0, 256, (count, channels, size, size), np.uint8)


def dataset(
    name: str,
    *,
    size: int = 16,
    channels: int = 3,
    partner: int | None = None,
    count: int = 12,
    arrangement: Arrangement | None = None,
) -> Dataset:
    """Images of noise as a system wants them; unpaired partners are three more. partner: their channels."""
    kind = arrangement or ARRANGED[name]
    theirs = count if kind == "pairs" else count + 3
    labelled = name == "face-aging"
    return Dataset(
        "noise",
        noise(count, channels, size, 0),
        np.arange(count, dtype=np.int64) % 3 if labelled else None,
        ("10", "30", "50") if labelled else (),
        partners=None if kind == "single" else noise(theirs, partner or channels, size, 1),
        arrangement=kind,
    )


def live(
    name: str, data: Dataset | None = None, *, steps: int = 6, seed: int = 0, **given: Any
) -> Training:
    """A training that has not begun. given: settings; None leaves one to the preset."""
    data = data or dataset(name)
    kind, _ = systems.load(name)
    chosen = {n: value for n, value in {**SMALL[name], **given}.items() if value is not None}
    options = make_options(kind, data.info, chosen)
    return training(kind, data=data, options=options, steps=steps, seed=seed)


def batch_of(run: Training, purpose: str = "test") -> Batch:
    """One move's batch, with what the generators make of it."""
    batch = run._next_batch(purpose)
    return batch | run.system.generate(run, batch)


def values(run: Training, player: str, batch: Batch) -> dict[str, float]:
    """The player's objectives on a batch, weighted."""
    return {
        o.name: o.weight * o.value(run, dict(batch)).item() for o in run.players[player].objectives
    }


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Weights that are none of those with which a network begins."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            gain = 1.5 / p[0].numel() ** 0.5 if p.ndim > 1 else 0.3
            p.copy_(torch.randn(p.shape, generator=source) * gain)


def parameters(run: Training) -> dict[str, dict[str, Tensor]]:
    """A copy of all parameters by network."""
    return {
        name: {n: t for n, t in weights(network).items() if n in dict(network.named_parameters())}
        for name, network in run.networks.items()
    }
