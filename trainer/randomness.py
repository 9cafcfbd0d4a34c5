"""Training randomness as a pure function of (seed, step, purpose): nothing to save, nothing to restore."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ..runtime.signature import Field


def derive_seed(seed: int, *purpose: int | str) -> int:
    """A 63-bit seed for one purpose; different purposes give unrelated seeds."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(device: torch.device, seed: int, *purpose: int | str) -> torch.Generator:
    """A torch generator on `device` for one purpose."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *purpose))


def draw(field: Field, count: int, source: torch.Generator) -> Tensor:
    """Training values of a drawn input: [count, *shape] on the generator's device."""
    assert field.draw is not None and field.draw.kind in ("normal", "uniform")
    shape = (count, *(int(axis) for axis in field.shape))
    if field.draw.kind == "normal":
        return torch.randn(shape, generator=source, device=source.device) * field.draw.scale
    unit = torch.rand(shape, generator=source, device=source.device)
    return unit * (field.draw.high - field.draw.low) + field.draw.low


class DataOrder:
    """An endless order of n samples: one permutation an epoch, each a function of (seed, epoch)."""

    def __init__(self, n: int, seed: int) -> None:
        self._n, self._seed = n, seed
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.long)

    def indices(self, position: int, count: int) -> Tensor:
        """Samples `position` to `position + count - 1` of the order: int64 [count]."""
        parts = []
        while count:
            epoch, offset = divmod(position, self._n)
            part = self._epoch_order(epoch)[offset : offset + count]
            parts.append(part)
            position, count = position + len(part), count - len(part)
        return torch.cat(parts)

    def _epoch_order(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            source = generator(torch.device("cpu"), self._seed, "data order", epoch)
            self._epoch, self._permutation = epoch, torch.randperm(self._n, generator=source)
        return self._permutation
