"""Drawn shapes: circles, squares and triangles in six colours; their outlines; warm ones and cold ones.

Each is a function of a seed, and what was drawn is known, so that it can be asked for in what a network makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

CHUNK_PIXELS = 1 << 21

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

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


def chunks(count: int, resolution: int) -> Iterator[slice]:
    """Parts of `count` images that are drawn at once: as floats all together they would be large."""
    size = max(1, CHUNK_PIXELS // resolution**2)
    return (slice(start, start + size) for start in range(0, count, size))


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
