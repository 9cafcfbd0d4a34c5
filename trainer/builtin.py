"""Built-in data, by name: real digits, digits stacked as colours, drawn shapes and faces, points of two mixtures.

What is drawn is a function of a seed; seed 0 is trained on, others are there to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..runtime.errors import InputError
from .dataset import Dataset, Mixture
from .faces import AGES, chunks, faces
from .parts import Arrangement, DataKind

DIGITS = Path(__file__).parent / "mnist10k.npz"
DIGITS_TRAINING_ROWS = 7_000  # rows from here on are never trained on
STACKED_COUNT, SHAPES_COUNT, POINTS_COUNT = 30_000, 10_000, 100_000
EDGES_COUNT, DOMAIN_COUNT, FACES_COUNT = 8_000, 5_000, 10_000

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Builtin:
    """One of them. steps: a run that shows something. draw: (resolution, channels) -> the training data.

    partner: channels of partners, None without.
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
        data = self.draw(resolution or self.resolution or 0, channels or self.channels or 0)
        if swap:
            assert data.partners is not None
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
    return None if Path(path).exists() else BUILTIN.get(path)


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


COLOURS = {
    "red": (255, 60, 60), "green": (60, 205, 60), "blue": (60, 90, 255),
    "yellow": (255, 230, 60), "purple": (205, 60, 230), "cyan": (60, 230, 230),
}  # fmt: skip
KINDS = ("circle", "square", "triangle")
WARM, COLD = ("red", "yellow"), ("blue", "cyan")
SHAPES = tuple(f"{colour} {kind}" for kind, colour in product(KINDS, COLOURS))


def shapes(
    count: int, resolution: int = 32, channels: int = 3, seed: int = 0
) -> tuple[Pixels, Labels]:
    """Shaded circles, squares and triangles in six colours, big or small, on dark grounds, anywhere near the middle.

    uint8 [count, C, R, R], and the class 0 to 17. RGBA has the shape's coverage as alpha, grey the luma.
    """
    draw = np.random.default_rng(seed)
    label = draw.integers(0, len(SHAPES), count)
    kind, colour = label // len(COLOURS), label % len(COLOURS)
    size, cx, cy = _places(draw, count)
    ground = draw.uniform(12, 50, count)
    images = _drawn(resolution, channels, kind, colour, size, cx, cy, ground)
    return images, label.astype(np.int64)


def edges(count: int, resolution: int = 32, seed: int = 0) -> tuple[Pixels, Pixels]:
    """The outlines of shapes, uint8 [count, 1, R, R], and the shapes: red circles, green squares, blue triangles.

    The outline is where the shape's coverage is far below the largest of the pixels around.
    """
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, len(KINDS), count)
    size, cx, cy = _places(draw, count)
    images = _drawn(resolution, 4, kind, kind, size, cx, cy, np.full(count, 25.5))
    cover = images[:, 3:] / 255
    outlines = np.where(_largest_around(cover) - cover > 0.3, 255, 0).astype(np.uint8)
    return outlines, np.ascontiguousarray(images[:, :3])


def warm_cold(count: int, resolution: int = 16, seed: int = 0) -> tuple[Pixels, Pixels, Pixels]:
    """Shapes in red or yellow, others in blue or cyan, and where those of the first are: uint8 [count, 1, R, R]."""
    draw = np.random.default_rng(seed)
    warm, cold = (_in_colours(draw, count, resolution, names) for names in (WARM, COLD))
    return warm[:, :3].copy(), cold[:, :3].copy(), warm[:, 3:].copy()


def _in_colours(
    draw: np.random.Generator, count: int, resolution: int, names: tuple[str, ...]
) -> Pixels:
    kind = draw.integers(0, len(KINDS), count)
    colour = np.array([list(COLOURS).index(name) for name in names])[
        draw.integers(0, len(names), count)
    ]
    size, cx, cy = _places(draw, count)
    return _drawn(resolution, 4, kind, colour, size, cx, cy, draw.uniform(12, 50, count))


def _places(
    draw: np.random.Generator, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sizes, big or small, and centres near the middle."""
    size = 0.32 + 0.28 * draw.integers(0, 2, count) + 0.06 * draw.random(count)
    cx, cy = draw.uniform(-0.25, 0.25, (2, count))
    return size, cx, cy


def _drawn(
    resolution: int, channels: int, kind: Labels, colour: Labels, *where: NDArray[np.float64]
) -> Pixels:
    """All shapes, drawn in parts: as floats at once they would be large. where: size, cx, cy and ground."""
    images = np.empty((len(kind), channels, resolution, resolution), np.uint8)
    for part in chunks(len(kind), resolution):
        own = [values[part] for values in where]
        images[part] = _draw_shapes(resolution, channels, kind[part], colour[part], *own)
    return images


def _largest_around(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest of each pixel and its eight neighbours: [N, C, H, W]."""
    edge = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows = np.maximum(np.maximum(edge[:, :, :-2], edge[:, :, 1:-1]), edge[:, :, 2:])
    return np.maximum(np.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def _draw_shapes(
    resolution: int,
    channels: int,
    kind: Labels,
    colour: Labels,
    size: NDArray[np.float64],
    cx: NDArray[np.float64],
    cy: NDArray[np.float64],
    ground: NDArray[np.float64],
) -> Pixels:
    axis = ((np.arange(resolution) + 0.5) / resolution * 2 - 1).astype(np.float32)
    x = axis[None, None, :] - _column(cx)  # (N, 1, R)
    y = axis[None, :, None] - _column(cy)  # (N, R, 1)
    distance = _signed_distance(x, y, _column(size), _column(kind))  # (N, R, R)
    cover = np.clip(0.5 - distance * resolution / 2, 0, 1)  # a pixel is 2 / resolution wide
    shade = 1 - 0.35 * (axis[None, :, None] + 1) / 2
    paint = np.array(list(COLOURS.values()), np.float32)[colour][:, :, None, None]
    image = _column(ground)[:, None] * (1 - cover[:, None]) + paint * (shade * cover)[:, None]
    if channels == 1:
        image = np.tensordot(image, np.array([0.299, 0.587, 0.114]), (1, 0))[:, None]
    elif channels == 4:
        image = np.concatenate([image, 255 * cover[:, None]], 1)
    pixels: Pixels = np.rint(image.clip(0, 255)).astype(np.uint8)
    return pixels


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


def _signed_distance(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    size: NDArray[np.float32],
    kind: NDArray[np.float32],
) -> NDArray[np.float32]:
    """To the border of the shape, negative inside."""
    circle = np.hypot(x, y) - size
    square = np.maximum(np.abs(x), np.abs(y)) - 0.85 * size
    triangle = np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.55 * size
    return np.where(kind == 0, circle, np.where(kind == 1, square, triangle))


def _column(values: NDArray[np.generic]) -> NDArray[np.float32]:
    return values.astype(np.float32)[:, None, None]


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


def persons(
    count: int, resolution: int = 32, seed: int = 0
) -> tuple[Pixels, Pixels, Labels, NDArray[np.float32]]:
    """Faces at another age, faces, their ages, and the identities of both: one person at two ages in each pair."""
    images, ages, identity = faces(count, resolution, seed)
    later = np.random.default_rng([seed, 1]).integers(1, len(AGES), count)
    others, _, _ = faces(count, resolution, seed, (ages + later) % len(AGES), identity)
    return others, images, ages, identity


def _load_persons(resolution: int, channels: int) -> Dataset:
    partners, samples, ages, _ = persons(FACES_COUNT, resolution)
    return Dataset("persons", samples, ages, AGES, partners=partners, arrangement="pairs")


def _load_points(name: str, mixture: Mixture) -> Dataset:
    return Dataset(name, points(mixture, POINTS_COUNT), None, (), mixture=mixture)


BUILTIN = {
    known.name: known
    for known in (
        Builtin("digits", "image", 3_000, 28, 1, tuple(map(str, range(10))), _load_digits),
        Builtin("stacked-digits", "image", 25_000, 28, 3, (), _load_stacked),
        Builtin("shapes", "image", 3_000, 32, 3, SHAPES, _load_shapes),
        Builtin("faces", "image", 3_000, 32, 3, AGES, _load_faces),
        Builtin("persons", "image", 3_000, 32, 3, AGES, _load_persons, "pairs", 3),
        Builtin("edges", "image", 2_000, 32, 3, (), _load_edges, "pairs", 1),
        Builtin("warm-cold", "image", 2_000, 16, 3, (), _load_warm_cold, "unpaired", 3),
        Builtin("ring", "points", 5_000, None, None, (), lambda *_: _load_points("ring", RING)),
        Builtin("grid", "points", 20_000, None, None, (), lambda *_: _load_points("grid", GRID)),
    )
}
NAMES = tuple(BUILTIN)
