"""Drawn faces: the same person at four ages, each number of an identity and each age seen where it belongs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gan.trainer import shapes as module
from gan.trainer.faces import AGES, IDENTITY, faces
from gan.trainer.shapes import chunks


def person(age: int = 0, **changed: float) -> NDArray[np.float64]:
    """[3, 96, 96] of one identity, all numbers in the middle but for those changed."""
    names = ("width", "hairline", "skin", "hair", "apart", "eye", "mouth", "nose")
    numbers = np.array([[changed.get(name, 0.5) for name in names]])
    return faces(1, 96, age=age, identity=numbers)[0][0].astype(np.float64)


def rows(image: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """The part between two heights, of [-1, 1] from the top."""
    size = image.shape[1]
    return image[:, int((low + 1) / 2 * size) : int((high + 1) / 2 * size)]


def changed_rows(name: str) -> tuple[float, float]:
    """Between which heights a number changes anything."""
    different = np.abs(person(0, **{name: 0.0}) - person(0, **{name: 1.0})).max((0, 2)) > 8
    where = np.flatnonzero(different) / 48 - 1
    return float(where.min()), float(where.max())


def test_faces_are_rgb_with_an_age_and_eight_numbers_each() -> None:
    pixels, ages, identities = faces(200, 24, seed=3)
    assert pixels.shape == (200, 3, 24, 24) and pixels.dtype == np.uint8
    assert ages.dtype == np.int64 and set(ages.tolist()) == set(range(len(AGES))) == {0, 1, 2, 3}
    assert identities.shape == (200, IDENTITY) and 0 <= identities.min() < identities.max() <= 1
    assert len({image.tobytes() for image in pixels}) == 200
    assert np.abs(np.bincount(faces(8_000, 4)[1]) - 2_000).max() < 5 * np.sqrt(1_500)


def test_a_seed_gives_the_same_faces_and_what_is_given_is_drawn() -> None:
    pixels, ages, who = faces(30, 16, seed=1)
    assert faces(30, 16, seed=1)[0].tobytes() == pixels.tobytes()
    assert faces(30, 16, seed=2)[0].tobytes() != pixels.tobytes()
    again = faces(30, 16, seed=9, age=ages, identity=who)
    assert np.array_equal(again[0], pixels) and np.array_equal(again[1], ages)
    older, all_old, same = faces(30, 16, seed=1, age=3)
    assert (all_old == 3).all() and np.array_equal(same, who)  # an age leaves who it is
    assert np.array_equal(faces(30, 16, age=3, identity=who)[0], older)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("hairline", -0.75, -0.1), ("hair", -1, -0.1), ("eye", -0.2, 0.15), ("apart", -0.2, 0.15),
     ("mouth", 0.4, 0.6), ("nose", 0, 0.4)],
)  # fmt: skip
def test_each_number_changes_its_own_part_of_the_face(name: str, low: float, high: float) -> None:
    first, last = changed_rows(name)
    assert low <= first < last <= high


def test_width_and_skin_change_the_whole_face() -> None:
    for name in ("width", "skin"):
        first, last = changed_rows(name)
        assert first < -0.1 and last > 0.6
    dark, light = (rows(person(skin=value), 0.2, 0.3).mean() for value in (1.0, 0.0))
    assert dark < light - 40
    ground = [64.0] * 3
    narrow, wide = (
        (np.abs(person(width=value)[:, 52] - np.array(ground)[:, None]).max(0) > 8).sum() / 48
        for value in (0.0, 1.0)
    )
    assert narrow == pytest.approx(2 * 0.55, abs=0.1) and wide == pytest.approx(2 * 0.75, abs=0.1)


def test_hair_turns_grey_with_the_years_and_wrinkles_come() -> None:
    colours = [rows(person(age), -0.85, -0.7)[:, :, 40:56].mean((1, 2)) for age in range(4)]
    spread = [np.ptp(colour) for colour in colours]
    assert all(a > b + 10 for a, b in pairwise(spread)) and spread[3] < 2
    assert np.abs(colours[3] - 255 * 0.85).max() < 2
    for middle, since in ((-0.2, 1), (0.33, 2), (0.68, 3)):
        for age in range(4):
            face = person(age, hairline=0.0)  # no fringe over the forehead
            line, beside = (
                face[:, round((height + 1) * 48 - 0.5), 38:42].mean()
                for height in (middle, middle + 0.055)
            )
            assert (line < beside - 20) == (age >= since), (middle, age)


def test_a_face_is_mirror_symmetric() -> None:
    for age in range(4):
        image = person(age)
        assert np.array_equal(image, image[:, :, ::-1])


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_any_resolution_shows_the_same_faces(resolution: int) -> None:
    small, ages, who = faces(12, resolution, seed=4)
    large = faces(12, 128, age=ages, identity=who)[0]
    for image, fine in zip(small, large, strict=True):
        box = Image.fromarray(fine.transpose(1, 2, 0)).resize(
            (resolution,) * 2, Image.Resampling.BOX
        )
        difference = np.abs(image.transpose(1, 2, 0).astype(float) - np.asarray(box))
        assert difference.mean() < 255 * 0.7 / resolution


def test_faces_are_the_same_however_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = faces(23, 16)[0]
    for pixels in (1, 5 * 16 * 16):
        monkeypatch.setattr(module, "CHUNK_PIXELS", pixels)
        assert len(list(chunks(23, 16))) == (23 if pixels == 1 else 5)
        np.testing.assert_array_equal(faces(23, 16)[0], whole)
