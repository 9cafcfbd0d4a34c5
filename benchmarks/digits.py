"""Trains the demo's configuration from scratch, exports it, and scores the ONNX file through the runtime.

The judge is a small classifier trained on the same training split (rows 0 to 6,999); the reals are the held-out rows
7,000 to 9,999. Agreement alone proves nothing: a quick try reached 1.00 with every sample of a class identical.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gan.export import export
from gan.runtime import Generator
from gan.runtime.images import grid, save
from gan.trainer import Request, train
from gan.trainer.data import digits
from gan.trainer.metrics import coverage_and_density, coverage_within

COUNT = 3_000
CLASSIFIER_STEPS = 1_500


class Judge(nn.Module):
    """28 x 28 grey digits -> class; its last hidden layer gives the features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(),  # (B, 32, 14, 14)
            nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),  # (B, 64, 7, 7)
            nn.Flatten(), nn.Linear(64 * 49, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Score(NamedTuple):
    agreement: float
    coverage: float
    density: float
    frechet: float
    within: dict[int, float]


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 [N, 28, 28] -> float32 [N, 1, 28, 28] of [-1, 1]."""
    return torch.from_numpy(images.astype(np.float32))[:, None] / 127.5 - 1


def train_judge() -> Judge:
    images, labels = digits("train")
    x, y = to_tensor(images), torch.from_numpy(labels)
    torch.manual_seed(0)
    judge = Judge()
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, CLASSIFIER_STEPS)
    for _ in range(CLASSIFIER_STEPS):
        rows = torch.randint(0, len(x), (64,))
        down, right = torch.randint(-2, 3, (2,)).tolist()
        moved = x[rows].roll((down, right), (2, 3))  # the margin is black, so nothing wraps
        loss = cross_entropy(judge(moved + 0.1 * torch.randn_like(moved)), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of Gaussians fitted to features [N, F] (Heusel et al. 2017, eq. 6)."""
    a, b = a.double(), b.double()
    c1, c2 = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + c1.trace() + c2.trace() - 2 * cross)


@torch.no_grad()
def score(
    judge: Judge, fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor
) -> Score:
    ours, theirs = judge.body(real), judge.body(fake)
    agreement = (judge.head(theirs).argmax(1) == fake_labels).float().mean().item()
    coverage, density = coverage_and_density(ours, theirs)
    within = coverage_within(ours, theirs, real_labels, fake_labels)
    return Score(agreement, coverage, density, frechet(ours, theirs), within)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-digits"))
    parser.add_argument("--steps", type=int, help="default: the demo's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    given: dict[str, int | float | str | bool | None] = {"seed": arguments.seed}
    if arguments.steps:
        given["steps"] = arguments.steps
    begin, cpu = time.perf_counter(), time.process_time()
    outcome = train(
        Request(given=given, settings=tuple(arguments.set), out=arguments.out, force=True)
    )
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    folder = outcome.folder.path
    export(outcome.folder.checkpoint, folder / "model.onnx")
    generator = Generator(folder / "model.onnx", device="cpu")
    images, labels = digits("held-out")
    real, real_labels = to_tensor(images), torch.from_numpy(labels)
    wanted = np.arange(COUNT) % 10
    fake = to_tensor(generator.sample(COUNT, seed=0, label=wanted.tolist())[..., 0])
    trained, trained_labels = digits("train")
    other, other_labels = to_tensor(trained[:COUNT]), torch.from_numpy(trained_labels[:COUNT])
    judge = train_judge()
    with torch.no_grad():
        accuracy = (judge(real).argmax(1) == real_labels).float().mean().item()
    ours = score(judge, fake, torch.from_numpy(wanted), real, real_labels)
    reals = score(judge, other, other_labels, real, real_labels)
    save(
        grid(generator.sample(80, seed=0, label=[i % 10 for i in range(80)]), 10),
        folder / "digits.png",
    )
    ratios = {c: ours.within[c] / reals.within[c] for c in ours.within}
    worst = min(ratios, key=lambda c: ratios[c])
    rows = [
        ("judge's held-out accuracy", accuracy, None, 0.97),
        ("class agreement", ours.agreement, reals.agreement, 0.95),
        ("coverage", ours.coverage, reals.coverage, 0.7 * reals.coverage),
        (
            f"coverage of the worst class ({worst})",
            ours.within[worst],
            reals.within[worst],
            0.5 * reals.within[worst],
        ),
        ("density", ours.density, reals.density, None),
        ("Frechet distance", ours.frechet, reals.frechet, None),
    ]
    print(
        f"{outcome.step} steps, {seconds:.0f} s, {cpu:.0f} CPU s; ONNX file through the runtime, {COUNT} samples"
    )
    print(f"{'':38}{'ONNX':>9}{'real':>9}{'bar':>9}")
    for name, value, real_value, bar in rows:
        columns = [
            f"{number:9.3f}" if number is not None else f"{'-':>9}"
            for number in (value, real_value, bar)
        ]
        print(f"{name:38}{''.join(columns)}")
    print(
        "coverage within each class, of real-to-real: "
        + " ".join(f"{c}:{r:.2f}" for c, r in ratios.items())
    )
    print(f"Look at {folder / 'digits.png'}")


if __name__ == "__main__":
    main()
