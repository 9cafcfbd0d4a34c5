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

from .parts import Arrangement, DataInfo, DataKind


@dataclass(frozen=True)
class Mixture:
    """The Gaussians that points were drawn from: centres [K, D], one deviation for all."""

    centres: NDArray[np.float32]
    deviation: float


@dataclass
class Dataset:
    """Prepared samples: uint8 [N, C, H, W] of images, float32 [N, D] of points. labels: int64 [N] or None.

    partners: uint8 [M, C', H, W]; of pairs partner i belongs to sample i. window: pixels a side of what is trained on
    at once, where that is less than the prepared images.
    """

    name: str
    samples: NDArray[Any]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    skipped: Counter[str] = field(default_factory=Counter)
    mixture: Mixture | None = None
    partners: NDArray[np.uint8] | None = None
    arrangement: Arrangement = "single"
    window: int | None = None

    def __post_init__(self) -> None:
        self.digest = self._digest()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def info(self) -> DataInfo:
        kind: DataKind = "image" if self.samples.dtype == np.uint8 else "points"
        partner = None if self.partners is None else self._seen(self.partners)
        return DataInfo(self._seen(self.samples), self.classes, kind, self.arrangement, partner)

    def samples_of(
        self, indices: Tensor | NDArray[np.int64], device: torch.device, *, whole: bool = False
    ) -> Tensor:
        """Samples as float32 on `device`: images [B, C, H, W] of [-1, 1], which travel there as uint8.

        Of images that are larger than the window its centre, or the whole.
        """
        return self._rows(self.samples, indices, device, whole)

    def partners_of(
        self, indices: Tensor | NDArray[np.int64], device: torch.device, *, whole: bool = False
    ) -> Tensor:
        """Partners, as `samples_of` gives samples."""
        assert self.partners is not None
        return self._rows(self.partners, indices, device, whole)

    def labels_of(self, indices: Tensor | NDArray[np.int64], device: torch.device) -> Tensor:
        assert self.labels is not None
        return torch.from_numpy(self.labels[np.asarray(indices)]).to(device)

    def _seen(self, stored: NDArray[Any]) -> tuple[int, ...]:
        """The shape of one of them, as it is trained on."""
        sides = stored.shape[2:] if self.window is None else (self.window, self.window)
        return (*stored.shape[1:2], *sides)

    def _rows(
        self,
        stored: NDArray[Any],
        indices: Tensor | NDArray[np.int64],
        device: torch.device,
        whole: bool,
    ) -> Tensor:
        rows = stored[np.asarray(indices)]
        if self.window is not None and not whole:
            y, x = ((length - self.window) // 2 for length in rows.shape[2:])
            rows = np.ascontiguousarray(rows[:, :, y : y + self.window, x : x + self.window])
        tensor = torch.from_numpy(rows).to(device)
        return tensor.float().div_(127.5).sub_(1.0) if tensor.dtype == torch.uint8 else tensor

    def _digest(self) -> str:
        sha = hashlib.sha256(repr((self.samples.shape, self.classes)).encode())
        _update(sha, self.samples)
        if self.labels is not None:
            sha.update(self.labels.tobytes())
        if self.partners is not None:
            sha.update(repr((self.arrangement, self.partners.shape)).encode())
            _update(sha, self.partners)
        return sha.hexdigest()


def _update(sha: hashlib._Hash, rows: NDArray[Any]) -> None:
    for start in range(0, len(rows), 4096):
        sha.update(rows[start : start + 4096].tobytes())
