"""Built-in data, by name: real digits, digits stacked as colours, drawn shapes and faces, points of two mixtures.

What is drawn is a function of a seed; seed 0 is trained on, others are there to be compared with.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..runtime.errors import InputError
from .dataset import Dataset, Mixture
from .faces import AGES, faces, persons
from .parts import Arrangement, DataKind
from .shapes import SHAPES, edges, shapes, warm_cold

DIGITS = Path(__file__).parent / "mnist10k.npz"
DIGITS_TRAINING_ROWS = 7_000  # rows from here on are never trained on
STACKED_COUNT, SHAPES_COUNT, POINTS_COUNT = 30_000, 10_000, 100_000
EDGES_COUNT, DOMAIN_COUNT, FACES_COUNT = 8_000, 5_000, 10_000
MEMORY_LIMIT = 4 << 30  # bytes of what is drawn

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Builtin:
    """One of them. steps: a run that shows something. draw: (resolution, channels) -> the training data.

    partner: channels of partners, None without. count: of images.
    """

    name: str
    kind: DataKind
    steps: int
    resolution: int | None
    channels: int | None
    classes: tuple[str, ...]
    draw: Callable[[int, int], Dataset]
    arrangement: Arrangement = "single"
    partner: int | None = None
    count: int = 0

    def load(
        self,
        resolution: int | None,
        channels: int | None,
        fit: str | None = None,
        *,
        window: int | None = None,
        swap: bool = False,
    ) -> Dataset:
        """The training data, at its own size unless another is given. Raises `InputError` for what means nothing."""
        if fit is not None:
            raise InputError(
                f"{self.name} needs no fit",
                seen="--fit, which is for images that are not square",
                repair="Leave it out",
            )
        if self.kind != "image" and (resolution, channels, window) != (None, None, None):
            raise InputError(
                f"{self.name} has neither resolution nor channels",
                seen="one of them was given" if window is None else "--crop",
                repair="Leave --resolution and --channels out: its samples are points"
                if window is None
                else "Leave --crop out: its samples are points",
            )
        size, depth = resolution or self.resolution or 0, channels or self.channels or 0
        needed = self.count * size * size * (depth + (self.partner or 0))
        if needed > MEMORY_LIMIT:
            raise InputError(
                f"{self.name} would not fit in memory",
                seen=f"{self.count} images of {size} pixels, {needed / 1e9:.1f} GB of at most "
                f"{MEMORY_LIMIT / 1e9:.1f}",
                repair="Choose a smaller --resolution",
            )
        data = self.draw(size, depth)
        if swap:
            assert data.partners is not None
            if data.labels is not None:
                raise InputError(
                    f"{self.name} cannot be swapped",
                    seen="labels, which are those of its samples",
                    repair="Leave --swap out",
                )
            data = replace(data, samples=data.partners, partners=data.samples)
        if data.partners is not None and channels not in (None, data.info.channels):
            raise InputError(
                f"{self.name} has channels of its own",
                seen=f"{channels}, its samples have {data.info.channels}",
                repair="Leave --channels out",
            )
        return replace(data, window=window) if window is not None else data


def find(path: str | None) -> Builtin | None:
    """The built-in data of that name; a file or folder of the same name goes before it."""
    if path is None:
        return BUILTIN["digits"]
    found = BUILTIN.get(path)
    return None if found and os.path.exists(path) else found


def digits(split: Literal["train", "held-out"]) -> tuple[Pixels, Labels]:
    """The embedded MNIST digits: uint8 [N, 28, 28] and int64 [N]; 7,000 to train on, 3,000 held out."""
    rows = slice(DIGITS_TRAINING_ROWS) if split == "train" else slice(DIGITS_TRAINING_ROWS, None)
    with np.load(DIGITS, allow_pickle=False) as archive:
        return archive["images"][rows], archive["labels"][rows].astype(np.int64)


def stacked(
    split: Literal["train", "held-out"], count: int, resolution: int = 28, seed: int = 0
) -> tuple[Pixels, Labels]:
    """Three random digits as red, green and blue: uint8 [count, 3, R, R], and the number 0 to 999 that they spell.

    Metz et al. 2017, section 3.3.1: a data set of 1,000 modes.
    """
    pixels, labels = digits(split)
    rows = np.random.default_rng(seed).integers(0, len(pixels), (count, 3))
    return _resized(pixels, resolution)[rows], labels[rows] @ np.array([100, 10, 1])


RING = Mixture(
    np.array([[np.cos(a), np.sin(a)] for a in np.arange(8) * np.pi / 4], np.float32), 0.02
)
GRID = Mixture(
    np.array([[x, y] for x in range(-2, 3) for y in range(-2, 3)], np.float32) * 2 / 2.828,
    0.05 / 2.828,
)  # spacing 2, deviation 0.05, all divided by 2.828 (Gulrajani et al. 2017, section 4.1)


def points(mixture: Mixture, count: int, seed: int = 0) -> NDArray[np.float32]:
    """Points of a mixture of Gaussians of equal weight: float32 [count, D]."""
    draw = np.random.default_rng(seed)
    centres = mixture.centres[draw.integers(0, len(mixture.centres), count)]
    noise = mixture.deviation * draw.standard_normal(centres.shape)
    return (centres + noise).astype(np.float32)


def _resized(pixels: Pixels, resolution: int) -> Pixels:
    """uint8 [N, R, R] of [N, H, W]."""
    if pixels.shape[1:] == (resolution, resolution):
        return pixels
    size = (resolution, resolution)
    return np.stack(
        [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.LANCZOS)) for p in pixels]
    )


def _load_digits(resolution: int, channels: int) -> Dataset:
    pixels, labels = digits("train")
    images = np.repeat(_resized(pixels, resolution)[:, None], channels, 1)
    if channels == 4:
        images[:, 3] = 255
    return Dataset("digits", images, labels, tuple(map(str, range(10))))


def _load_stacked(resolution: int, channels: int) -> Dataset:
    if channels != 3:
        raise InputError(
            "stacked-digits are RGB", seen=f"{channels} channels", repair="Leave --channels out"
        )
    images, _ = stacked("train", STACKED_COUNT, resolution)
    return Dataset("stacked-digits", images, None, ())


def _load_shapes(resolution: int, channels: int) -> Dataset:
    return Dataset("shapes", *shapes(SHAPES_COUNT, resolution, channels), SHAPES)


def _load_edges(resolution: int, _: int) -> Dataset:
    partners, samples = edges(EDGES_COUNT, resolution)
    return Dataset("edges", samples, None, (), partners=partners, arrangement="pairs")


def _load_warm_cold(resolution: int, _: int) -> Dataset:
    warm, cold, _masks = warm_cold(DOMAIN_COUNT, resolution)
    return Dataset("warm-cold", cold, None, (), partners=warm, arrangement="unpaired")


def _load_faces(resolution: int, channels: int) -> Dataset:
    if channels != 3:
        raise InputError(
            "faces are RGB", seen=f"{channels} channels", repair="Leave --channels out"
        )
    pixels, ages, _ = faces(FACES_COUNT, resolution)
    return Dataset("faces", pixels, ages, AGES)


def _load_persons(resolution: int, channels: int) -> Dataset:
    partners, samples, ages, _ = persons(FACES_COUNT, resolution)
    return Dataset("persons", samples, ages, AGES, partners=partners, arrangement="pairs")


def _load_points(name: str, mixture: Mixture) -> Dataset:
    return Dataset(name, points(mixture, POINTS_COUNT), None, (), mixture=mixture)


_IMAGES = (
    Builtin("digits", "image", 3_000, 28, 1, tuple(map(str, range(10))), _load_digits,
            count=DIGITS_TRAINING_ROWS),
    Builtin("stacked-digits", "image", 25_000, 28, 3, (), _load_stacked, count=STACKED_COUNT),
    Builtin("shapes", "image", 3_000, 32, 3, SHAPES, _load_shapes, count=SHAPES_COUNT),
    Builtin("faces", "image", 3_000, 32, 3, AGES, _load_faces, count=FACES_COUNT),
    Builtin("persons", "image", 3_000, 32, 3, AGES, _load_persons, "pairs", 3, FACES_COUNT),
    Builtin("edges", "image", 2_000, 32, 3, (), _load_edges, "pairs", 1, EDGES_COUNT),
    Builtin("warm-cold", "image", 2_000, 16, 3, (), _load_warm_cold, "unpaired", 3, DOMAIN_COUNT),
)  # fmt: skip
_POINTS = (
    Builtin("ring", "points", 5_000, None, None, (), lambda *_: _load_points("ring", RING)),
    Builtin("grid", "points", 20_000, None, None, (), lambda *_: _load_points("grid", GRID)),
)
BUILTIN = {known.name: known for known in (*_IMAGES, *_POINTS)}
NAMES = tuple(BUILTIN)
