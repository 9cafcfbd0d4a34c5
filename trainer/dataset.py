"""Prepared training data in memory: samples, labels, and what a system may know of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .parts import DataInfo, DataKind


@dataclass(frozen=True)
class Mixture:
    """The Gaussians that points were drawn from: centres [K, D], one deviation for all."""

    centres: NDArray[np.float32]
    deviation: float


@dataclass
class Dataset:
    """Prepared samples: uint8 [N, C, H, W] of images, float32 [N, D] of points. labels: int64 [N] or None."""

    name: str
    samples: NDArray[Any]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    skipped: Counter[str] = field(default_factory=Counter)
    mixture: Mixture | None = None
    partners: Any = None
    arrangement: str = "single"
    window: int | None = None

    def __post_init__(self) -> None:
        self.digest = self._digest()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def info(self) -> DataInfo:
        kind: DataKind = "image" if self.samples.dtype == np.uint8 else "points"
        return DataInfo(self.samples.shape[1:], self.classes, kind)

    def samples_of(
        self, indices: Tensor | NDArray[np.int64], device: torch.device, *, whole: bool = False
    ) -> Tensor:
        """Samples as float32 on `device`: images [B, C, H, W] of [-1, 1], which travel there as uint8."""
        rows = torch.from_numpy(self.samples[np.asarray(indices)]).to(device)
        return rows.float().div_(127.5).sub_(1.0) if rows.dtype == torch.uint8 else rows

    def labels_of(self, indices: Tensor | NDArray[np.int64], device: torch.device) -> Tensor:
        assert self.labels is not None
        return torch.from_numpy(self.labels[np.asarray(indices)]).to(device)

    def _digest(self) -> str:
        sha = hashlib.sha256(repr((self.samples.shape, self.classes)).encode())
        for start in range(0, len(self.samples), 4096):
            sha.update(self.samples[start : start + 4096].tobytes())
        if self.labels is not None:
            sha.update(self.labels.tobytes())
        return sha.hexdigest()
