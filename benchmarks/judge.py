"""The judge of the benchmarks: a small classifier of real samples, whose last hidden layer gives features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class Judge(nn.Module):
    """Images [B, C, R, R], R a multiple of 4, -> class; `body` gives 64 features."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, 2, 1), nn.ReLU(),  # (B, 32, R/2, R/2)
            nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),  # (B, 64, R/4, R/4)
            nn.Flatten(), nn.Linear(64 * (size // 4) ** 2, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, C, H, W], as data has them, -> float32 of [-1, 1]."""
    return torch.from_numpy(images.astype(np.float32)) / 127.5 - 1


def channels_first(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [N, C, H, W] of the runtime's [N, H, W, C]."""
    return np.ascontiguousarray(samples.transpose(0, 3, 1, 2))


def train_judge(x: Tensor, y: Tensor, *, steps: int = 1_500, shift: int = 2) -> Judge:
    """A judge trained on images x, moved by up to `shift` pixels and with noise, and labels y."""
    torch.manual_seed(0)
    judge = Judge(x.shape[1], x.shape[2], int(y.max()) + 1)
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,))
        down, right = torch.randint(-shift, shift + 1, (2,)).tolist()
        moved = x[rows].roll((down, right), (2, 3))
        loss = cross_entropy(judge(moved + 0.1 * torch.randn_like(moved)), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


@torch.no_grad()
def classify(judge: Judge, x: Tensor, chunk: int = 1_000) -> Tensor:
    """Classes int64 [N] of images, some at a time."""
    return torch.cat([judge(part).argmax(1) for part in x.split(chunk)])


@torch.no_grad()
def features(judge: Judge, x: Tensor, chunk: int = 1_000) -> Tensor:
    return torch.cat([judge.body(part) for part in x.split(chunk)])


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of Gaussians fitted to features [N, F] (Heusel et al. 2017, eq. 6)."""
    a, b = a.double(), b.double()
    c1, c2 = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + c1.trace() + c2.trace() - 2 * cross)
