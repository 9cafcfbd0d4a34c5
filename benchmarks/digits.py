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
from judge import Judge, channels_first, classify, features, frechet, to_tensor, train_judge
from torch import Tensor

from gan.export import export
from gan.runtime import Generator
from gan.runtime.images import grid, save
from gan.trainer import Request, train
from gan.trainer.builtin import digits
from gan.trainer.metrics import coverage_and_density, coverage_within

COUNT = 3_000


class Score(NamedTuple):
    agreement: float
    coverage: float
    density: float
    frechet: float
    within: dict[int, float]


@torch.no_grad()
def score(
    judge: Judge, fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor
) -> Score:
    ours, theirs = features(judge, real), features(judge, fake)
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
    real, real_labels = to_tensor(images[:, None]), torch.from_numpy(labels)
    wanted = np.arange(COUNT) % 10
    fake = to_tensor(channels_first(generator.sample(COUNT, seed=0, label=wanted.tolist())))
    trained, trained_labels = digits("train")
    every, every_label = to_tensor(trained[:, None]), torch.from_numpy(trained_labels)
    other, other_labels = every[:COUNT], every_label[:COUNT]
    judge = train_judge(every, every_label)  # the margin is black, so that nothing wraps
    accuracy = (classify(judge, real) == real_labels).float().mean().item()
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
