"""Stacked MNIST, the literature's count of modes: three digits as red, green and blue, 1,000 modes (Metz et al. 2017).

Each system trains for the same time, is exported, and 26,000 samples of its ONNX file are read by a classifier of
single digits. Published, with all 60,000 digits and long training: DCGAN 99 modes, unrolled 48.7, StyleGAN2 940,
R3GAN 1,000.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from judge import Judge, channels_first, classify, to_tensor, train_judge
from numpy.typing import NDArray
from torch import Tensor

from gan.export import export
from gan.runtime import Generator
from gan.runtime.images import grid, save
from gan.trainer import Request, train
from gan.trainer.builtin import digits, stacked
from gan.trainer.config import Plain

COUNT, MODES = 26_000, 1_000
SMALL: dict[str, Plain] = {"latent": 64, "g_learning_rate": 1e-3, "d_learning_rate": 1e-3}
GIVEN: dict[str, dict[str, Plain]] = {
    "dcgan": SMALL | {"width": 32, "beta1": 0.5, "beta2": 0.99},
    "unrolled": SMALL | {"width": 16, "beta1": 0.5, "beta2": 0.99, "batch_size": 32},
    "r3gan": SMALL
    | {"width": 32, "group": 8, "batch_size": 8, "ada": 0.0, "r1": 5.0, "r2": 5.0}
    | {"g_learning_rate": 2e-3, "d_learning_rate": 2e-3, "decay_share": 0.4},
}


def digit_judge() -> tuple[Judge, float]:
    """A classifier of single digits of 28 pixels, and its accuracy on held-out ones."""
    (x, y), (held, labels) = digits("train"), digits("held-out")
    judge = train_judge(to_tensor(x[:, None]), torch.from_numpy(y))
    right = classify(judge, to_tensor(held[:, None])) == torch.from_numpy(labels)
    return judge, right.float().mean().item()


def read(judge: Judge, images: NDArray[np.uint8]) -> Tensor:
    """The number from 0 to 999 that each stack spells: int64 [N] of uint8 [N, 3, 28, 28]."""
    red, green, blue = (classify(judge, to_tensor(images[:, i : i + 1])) for i in range(3))
    return 100 * red + 10 * green + blue


def modes_and_kl(numbers: Tensor, p: Tensor) -> tuple[int, float]:
    """Modes with at least one sample, and the reverse KL divergence sum q log(q / p), p the data's distribution."""
    q = torch.bincount(numbers, minlength=MODES).double() / len(numbers)
    seen = q > 0
    return int(seen.sum()), (q[seen] * (q[seen] / p[seen]).log()).sum().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(GIVEN)}; default: all"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, for each system")
    parser.add_argument("--full", action="store_true", help="the systems' own presets, for a GPU")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-stacked"))
    arguments = parser.parse_args()
    judge, accuracy = digit_judge()
    share = torch.from_numpy(np.bincount(digits("train")[1]) / len(digits("train")[1]))
    p = torch.einsum(
        "i,j,k->ijk", share, share, share
    ).flatten()  # the stacks' digits are independent
    real, _ = stacked("held-out", COUNT, seed=1)
    rows = [("held-out reals", 0, 0.0, *modes_and_kl(read(judge, real), p))]
    for name in arguments.names or GIVEN:
        given = {} if arguments.full else GIVEN[name]
        begin = time.perf_counter()
        outcome = train(
            Request(
                data="stacked-digits", system=name, given=given, minutes=arguments.minutes,
                out=arguments.out / name, force=True,
            )
        )  # fmt: skip
        seconds = time.perf_counter() - begin
        folder = outcome.folder.path
        export(outcome.folder.checkpoint, folder / "model.onnx", overwrite=True)
        generator = Generator(folder / "model.onnx")
        parts = [read(judge, channels_first(x)) for x in batches(generator)]
        save(grid(generator.sample(100, seed=0), 10), folder / "sheet.png")
        rows.append((name, outcome.step, seconds, *modes_and_kl(torch.cat(parts), p)))
        print(f"{rows[-1]}; look at {folder / 'sheet.png'}", flush=True)
    print(
        f"{COUNT} samples of each ONNX file; classifier's held-out accuracy {accuracy:.3f} a digit"
    )
    print(f"{'':18}{'steps':>8}{'seconds':>9}{'modes':>8}{'reverse KL':>12}")
    for name, steps, seconds, found, kl in rows:
        print(f"{name:18}{steps:8}{seconds:9.0f}{found:8}{kl:12.3f}")


def batches(generator: Generator, size: int = 1_000) -> list[NDArray[np.uint8]]:
    return [generator.sample(size, seed=0, start=start) for start in range(0, COUNT, size)]


if __name__ == "__main__":
    main()
