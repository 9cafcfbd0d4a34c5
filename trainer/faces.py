"""Drawn faces: eight numbers that are an identity, and one of four ages, which changes hair, width and wrinkles.

A small world with a known answer, for what is to change an age and keep an identity.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .shapes import chunks

AGES = ("20s", "40s", "60s", "80s")
IDENTITY = (
    8  # numbers in [0, 1]: width, hairline, skin, hair, between the eyes, their size, mouth, nose
)
WRINKLES = ((-0.2, 1), (-0.3, 2), (0.33, 2), (0.68, 3))  # how far down, and from which age on

Floats = NDArray[np.floating]


def faces(
    count: int,
    resolution: int = 32,
    seed: int = 0,
    age: int | NDArray[np.int64] | None = None,
    identity: Floats | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], Floats]:
    """uint8 [count, 3, R, R], ages 0 to 3, and identities floats [count, 8]; drawn where they are not given."""
    draw = np.random.default_rng(seed)
    drawn_ages, drawn = draw.integers(0, len(AGES), count), draw.random((count, IDENTITY))
    ages = np.broadcast_to(drawn_ages if age is None else age, count).astype(np.int64)
    who = np.broadcast_to(drawn if identity is None else identity, (count, IDENTITY))
    who = who.astype(np.float32)
    images = np.empty((count, 3, resolution, resolution), np.uint8)
    for part in chunks(count, resolution):
        images[part] = _draw(resolution, ages[part], who[part])
    return images, ages, who


def persons(
    count: int, resolution: int = 32, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64], Floats]:
    """Faces at another age, faces, their ages, and the identities of both: one person at two ages in each pair."""
    images, ages, identity = faces(count, resolution, seed)
    later = np.random.default_rng([seed, 1]).integers(1, len(AGES), count)
    others, _, _ = faces(count, resolution, seed, (ages + later) % len(AGES), identity)
    return others, images, ages, identity


def _draw(resolution: int, ages: NDArray[np.int64], who: Floats) -> NDArray[np.uint8]:
    axis = ((np.arange(resolution) + 0.5) / resolution * 2 - 1).astype(np.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    width, hairline, skin, hair, apart, eye, mouth, nose = who.T[:, :, None, None]  # each (N, 1, 1)
    old = (ages.astype(np.float32) / (len(AGES) - 1))[:, None, None]

    def inside(distance: Floats) -> Floats:
        """Coverage by what has this signed distance to its border."""
        return np.clip(0.5 - distance * resolution / 2, 0, 1)

    def bar(
        half_width: Floats | float, middle: Floats | float, half_height: Floats | float
    ) -> Floats:
        return inside(np.maximum(np.abs(x) - half_width, np.abs(y - middle) - half_height))

    image = np.full((len(ages), 3, resolution, resolution), 0.25, np.float32)
    across = 0.55 + 0.2 * width + 0.06 * old
    face = inside((np.hypot(x / across, (y - 0.1) / 0.75) - 1) * 0.6)
    image = _over(image, face, _tone(skin, (0.9, 0.7, 0.55), (-0.45, -0.45, -0.4)))
    above = y < -0.25 - 0.25 * old + 0.15 * hairline
    cap = inside((np.hypot(x / (across + 0.12), (y + 0.05) / 0.85) - 1) * 0.6) * above
    tone = _tone(hair, (0.1, 0.08, 0.05), (0.6, 0.35, 0.1))
    image = _over(image, cap, tone * (1 - old[:, None]) + 0.85 * old[:, None])
    for side in (-1, 1):
        pupil = np.hypot(x - side * (0.18 + 0.14 * apart), y + 0.02) - (0.06 + 0.05 * eye)
        image = _over(image, inside(pupil), 0.05)
    image = _over(image, bar(0.1 + 0.2 * mouth, 0.5, 0.04), _colour(0.6, 0.1, 0.15))
    image *= 1 - 0.4 * bar(0.03, 0.2, 0.05 + 0.12 * nose)[:, None]
    for down, since in WRINKLES:
        line = bar(0.3, down, 0.03) * face * (ages >= since)[:, None, None]
        image *= 1 - 0.45 * line[:, None]
    pixels: NDArray[np.uint8] = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    return pixels


def _tone(
    amount: Floats, start: tuple[float, float, float], step: tuple[float, float, float]
) -> Floats:
    """start + step * amount as a colour: (N, 3, 1, 1)."""
    return _colour(*start) + _colour(*step) * amount[:, None]


def _colour(red: float, green: float, blue: float) -> Floats:
    return np.array([red, green, blue], np.float32)[:, None, None]


def _over(image: Floats, cover: Floats, paint: Floats | float) -> Floats:
    return image * (1 - cover[:, None]) + paint * cover[:, None]
