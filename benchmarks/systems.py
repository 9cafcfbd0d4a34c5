"""Trains a tiny version of every system for a fixed number of steps, exports it, and scores the ONNX file.

All samples come from the runtime. Beside each score stand what other real samples reach, and the bar. Look at the
sheets: scores have been perfect on generators that had collapsed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from judge import Judge, channels_first, classify, features, to_tensor, train_judge
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d
from trials import Row, Trial, main

from gan.runtime import Generator, interpolate, mix
from gan.runtime.files import sibling
from gan.runtime.images import grid, save, scatter
from gan.runtime.inputs import draw_field
from gan.trainer import Checkpoint
from gan.trainer.builtin import RING, points
from gan.trainer.config import Plain
from gan.trainer.metrics import coverage_and_density, modes
from gan.trainer.shapes import SHAPES, shapes

POINTS, IMAGES, SIZE, COLUMNS = 5_000, 500, 16, 12


# Points.


def near_modes(
    generator: Generator, loosely: float | None = None
) -> tuple[tuple[int, float], tuple[int, float]]:
    samples = torch.from_numpy(generator.sample(POINTS, seed=0))
    real = torch.from_numpy(points(RING, POINTS, seed=1))
    return modes(samples, RING, loosely), modes(real, RING, loosely)


def ring(least_modes: int, least_near: float) -> Callable[[Generator, Path], list[Row]]:
    def score(generator: Generator, folder: Path) -> list[Row]:
        (found, near), (real_found, real_near) = near_modes(generator)
        return [
            Row("modes of 8", found, real_found, (">=", least_modes)),
            Row("within 3 sigma", near, real_near, (">=", least_near)),
        ]

    return score


def loosely(generator: Generator, folder: Path) -> list[Row]:
    (found, near), (real_found, real_near) = near_modes(generator, 0.2)
    (strict, strict_near), _ = near_modes(generator)
    return [
        Row("modes of 8, within 0.2", found, real_found, (">=", 6)),
        Row(
            "within 0.2", near, real_near, (">=", 0.5)
        ),  # a round cloud has all modes loosely, and 0.12
        Row("modes of 8", strict, 8, None),
        Row("within 3 sigma", strict_near, None, None),
    ]


def clipped(generator: Generator, folder: Path) -> list[Row]:
    """Weights within c, and the critic's estimate at the end as a share of its first reading."""
    content = Checkpoint.load(folder / "model.pt").content
    c = content["config"]["options"]["clip_weights"]
    largest = max(w.abs().max().item() for w in content["networks"]["D"].values())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    estimates = [line["distance"] for line in lines if "distance" in line]
    (found, near), (real_found, real_near) = near_modes(generator)
    return [
        Row("largest |w| / c", largest / c, None, ("<=", 1.0 + 1e-6)),
        Row("distance, last / first", estimates[-1] / estimates[0], None, ("<=", 0.5)),
        Row("modes of 8", found, real_found, None),
        Row("within 3 sigma", near, real_near, None),
    ]


# Shapes.


@cache
def shapes_judge() -> tuple[Judge, Tensor, Tensor, float]:
    """The judge, two sets of held-out reals, and its accuracy on the first."""
    x, y = shapes(10_000, SIZE)
    judge = train_judge(to_tensor(x), torch.from_numpy(y), shift=1)
    (held, labels), (other, _) = (shapes(IMAGES, SIZE, seed=seed) for seed in (1, 2))
    right = classify(judge, to_tensor(held)) == torch.from_numpy(labels)
    return judge, to_tensor(held), to_tensor(other), right.float().mean().item()


def kinds_and_coverage(generator: Generator, folder: Path, least_kinds: int = 14) -> list[Row]:
    judge, real, other, accuracy = shapes_judge()
    samples = generator.sample(IMAGES, seed=0)
    fake = to_tensor(channels_first(samples))
    counts = torch.bincount(classify(judge, fake), minlength=len(SHAPES))
    real_counts = torch.bincount(classify(judge, other), minlength=len(SHAPES))
    ours = features(judge, real)
    coverage, density = coverage_and_density(ours, features(judge, fake))
    real_coverage, real_density = coverage_and_density(ours, features(judge, other))
    enough = IMAGES * 0.006  # a ninth of the fair share
    return [
        Row("judge's accuracy on held-out reals", accuracy, None, None),
        Row("kinds of 18", int((counts >= enough).sum()), int((real_counts >= enough).sum()), (">=", least_kinds)),
        Row("coverage", coverage, real_coverage, (">=", 0.5 * real_coverage)),
        Row("density", density, real_density, None),
        Row("energy at the stride-2 grid, 1e-3", checkerboard(samples), checkerboard_of_reals(), None),
    ]  # fmt: skip


def all_kinds(generator: Generator, folder: Path) -> list[Row]:
    return kinds_and_coverage(generator, folder, 18)


def scales(generator: Generator, folder: Path) -> list[Row]:
    """How far the smaller images are from the largest one, averaged down: L1 in [-1, 1]."""
    z = draw_field(generator.signature.inputs[0], 0, range(IMAGES))
    images = {name: to_tensor(channels_first(x)) for name, x in generator(z=z).items()}
    main = images.pop("image")
    rows = all_kinds(generator, folder)
    for name, small in images.items():
        down = avg_pool2d(main, SIZE // small.shape[2])
        rows.append(
            Row(f"{name}: L1 to the largest", float((down - small).abs().mean()), None, ("<=", 0.1))
        )
    return rows


def styled(generator: Generator, folder: Path) -> list[Row]:
    """Truncation narrows, coarse styles decide the shape: of mixed pairs, from the last resolution on."""
    judge, _, _, _ = shapes_judge()

    def seen(samples: NDArray[np.uint8]) -> Tensor:
        return to_tensor(channels_first(samples))

    def spread(truncation: float) -> float:
        samples = generator.sample(IMAGES, seed=0, truncation=truncation)
        return float(torch.pdist(features(judge, seen(samples))).mean())

    path = folder / "model.onnx"
    mapping, synthesis = (
        Generator(sibling(path, graph), device="cpu") for graph in ("mapping", "synthesis")
    )
    layers = int(synthesis.signature.inputs[0].shape[0])
    coarse, fine = list(range(IMAGES)), list(range(IMAGES, 2 * IMAGES))
    sources = [classify(judge, seen(mix(mapping, synthesis, [s], []))) for s in (coarse, fine)]
    mixed = classify(judge, seen(mix(mapping, synthesis, [coarse, fine], [layers - 3])))
    style_sheets(mapping, synthesis, folder)
    shape = [float((mixed // 6 == source // 6).float().mean()) for source in sources]
    colour = [float((mixed % 6 == source % 6).float().mean()) for source in sources]
    return [
        *all_kinds(generator, folder),
        Row("pairwise distance, truncation 0.3 / 1", spread(0.3) / spread(1.0), None, ("<=", 0.8)),
        Row("mixed: shape of the coarse style", shape[0], None, (">=", 0.5)),
        Row("mixed: shape, coarse less fine", shape[0] - shape[1], None, (">=", 0.2)),
        Row("mixed: colour of the coarse style", colour[0], None, None),
        Row("mixed: colour of the fine style", colour[1], None, None),
    ]


def style_sheets(mapping: Generator, synthesis: Generator, folder: Path) -> None:
    """mixed.png: coarse styles by rows, fine ones by columns; walk.png: three ways between styles. To look at."""
    rows, columns = list(range(6)), list(range(6, 17))
    pairs = [[r for r in rows for _ in columns], [c for _ in rows for c in columns]]
    layers = int(synthesis.signature.inputs[0].shape[0])
    mixed = mix(mapping, synthesis, pairs, [layers - 3])
    edge, top = mix(mapping, synthesis, [rows], []), mix(mapping, synthesis, [columns], [])
    lines = [np.concatenate([np.zeros_like(edge[:1]), top])]
    for row in rows:
        of_row = mixed[row * len(columns) : (row + 1) * len(columns)]
        lines.append(np.concatenate([edge[row : row + 1], of_row]))
    save(grid(np.concatenate(lines), COLUMNS), folder / "mixed.png")
    ways = [interpolate(mapping, synthesis, s, s + 1, COLUMNS) for s in (0, 2, 4)]
    save(grid(np.concatenate(ways), COLUMNS), folder / "walk.png")


def checkerboard(images: NDArray[np.uint8]) -> float:
    """Thousandths of the images' energy at the frequencies (pi, pi), (pi, 0) and (0, pi) of a stride-2 grid."""
    grey = images.astype(np.float64).mean(3)
    energy = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))) ** 2
    half = SIZE // 2
    at_grid = energy[:, half, half] + energy[:, half, 0] + energy[:, 0, half]
    return float(1e3 * at_grid.sum() / energy.sum())


def checkerboard_of_reals() -> float:
    return checkerboard(shapes(IMAGES, SIZE, seed=1)[0].transpose(0, 2, 3, 1))


SMALL: dict[str, Plain] = {
    "resolution": SIZE, "labels": False, "batch_size": 32, "latent": 32, "width": 32, "decay_share": 0.5,
}  # fmt: skip
DC: dict[str, Plain] = SMALL | {
    "d_norm": "none", "r1": 1.0, "penalty_every": 8, "beta1": 0.0, "beta2": 0.99,
    "g_learning_rate": 2e-3, "d_learning_rate": 2e-3, "minibatch_deviation": True,
}  # fmt: skip
R3: dict[str, Plain] = SMALL | {
    "blocks": 2, "group": 8, "batch_size": 8, "ada": 0.0, "g_learning_rate": 2e-3, "d_learning_rate": 2e-3,
    "decay_share": 0.4, "r1": 10.0, "r2": 10.0,
}  # fmt: skip
# With the paper's rates and z of 256 numbers the samples are still a round cloud after 2,500 steps.
UNROLLED: dict[str, Plain] = {
    "d_learning_rate": 2e-3, "latent": 16, "batch_size": 256, "decay_share": 0.5,
}  # fmt: skip
FAST: dict[str, Plain] = SMALL | {  # equalised rates: weights are N(0, 1), so small networks need large steps
    "batch_size": 16, "r1": 1.0, "penalty_every": 8, "g_learning_rate": 1e-2, "d_learning_rate": 1e-2,
}  # fmt: skip
GROWN: dict[str, Plain] = FAST | {"loss": "non-saturating", "gp": 0.0}
STYLED: dict[str, Plain] = FAST | {
    "max_width": 32, "style": 64, "mapping_layers": 2, "ema_half_life": 5_000, "batch_size": 8, "r1": 0.5,
    "path_length": 0.0, "style_mixing": 0.5,
}  # fmt: skip
TRIALS = {
    "gan": Trial("gan", "ring", 6_000, ring(7, 0.7)),
    "gan-minimax": Trial("gan", "ring", 6_000, ring(7, 0.7), {"loss": "minimax"}),
    "wgan": Trial("wgan", "ring", 3_000, clipped),
    "wgan-gp": Trial("wgan-gp", "ring", 4_000, ring(8, 0.5)),
    "unrolled": Trial("unrolled", "ring", 3_000, loosely, UNROLLED),
    "dcgan": Trial("dcgan", "shapes", 10_000, kinds_and_coverage, DC),
    "dcgan-resize": Trial("dcgan", "shapes", 10_000, kinds_and_coverage, DC | {"up": "resize"}),
    "progressive": Trial(
        "progressive",
        "shapes",
        8_000,
        all_kinds,
        GROWN | {"drift": 0.0, "width": 16, "max_width": 32, "last_share": 0.6},
    ),
    "msg-gan": Trial(
        "msg-gan",
        "shapes",
        6_000,
        scales,
        GROWN | {"optimizer": "adam", "width": 8, "max_width": 24},
    ),
    "stylegan2": Trial("stylegan2", "shapes", 9_000, styled, STYLED),
    "r3gan": Trial("r3gan", "shapes", 3_000, kinds_and_coverage, R3),
}


def with_sheet(
    score: Callable[[Generator, Path], list[Row]],
) -> Callable[[Generator, Path], list[Row]]:
    """The score, after sheet.png: samples to look at."""

    def drawn(generator: Generator, folder: Path) -> list[Row]:
        sheet = folder / "sheet.png"
        if generator.signature.main.kind == "points":
            save(scatter(generator.sample(POINTS, seed=0), extent=1.6), sheet)
        else:
            save(grid(generator.sample(8 * COLUMNS, seed=0), COLUMNS), sheet)
        return score(generator, folder)

    return drawn


if __name__ == "__main__":
    drawn = {n: replace(t, score=with_sheet(t.score)) for n, t in TRIALS.items()}
    main(drawn, __doc__, Path("runs/bench-systems"))
