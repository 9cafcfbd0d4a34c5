"""Drawn shapes, measured in pixels; outlines that enclose them; warm and cold colours."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gan.trainer import shapes as module
from gan.trainer.shapes import SHAPES, shapes

LIT = {
    "red": {0}, "green": {1}, "blue": {2}, "yellow": {0, 1}, "purple": {0, 2}, "cyan": {1, 2},
}  # the channels that are bright in a colour of that name  # fmt: skip
FILL = {"circle": np.pi / 4, "square": 1.0, "triangle": 0.5}  # share of the box around it
ASPECT = {"circle": 1.0, "square": 1.0, "triangle": 2 / np.sqrt(3)}  # width over height
RADII = {  # half the width of its box, over the size that is drawn
    "circle": 1.0, "square": 0.85, "triangle": 0.55 * np.sqrt(3),
}  # fmt: skip


def large() -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """150 shapes of 96 pixels: RGB, alpha in [0, 1], and the names of their classes."""
    images, labels = shapes(150, 96, 4, seed=5)
    return (
        images[:, :3].astype(np.float64),
        images[:, 3].astype(np.float64) / 255,
        [SHAPES[label] for label in labels],
    )


def test_all_eighteen_classes_are_there_in_equal_shares_with_names_that_say_them() -> None:
    assert len(SHAPES) == len(set(SHAPES)) == 18
    assert set(SHAPES) == {f"{colour} {kind}" for colour in LIT for kind in FILL}
    _, labels = shapes(9_000, 4)
    assert labels.dtype == np.int64
    counts = np.bincount(labels, minlength=18)
    assert len(counts) == 18 and np.abs(counts - 500).max() < 5 * np.sqrt(500 * 17 / 18)


def test_the_colour_at_a_shapes_centre_is_the_one_that_its_class_names() -> None:
    images, alpha, names = large()
    for image, cover, name in zip(images, alpha, names, strict=True):
        row, column = (int(axis.mean()) for axis in np.nonzero(cover > 0.5))
        pixel = image[:, row, column]
        middle = (pixel.max() + pixel.min()) / 2
        assert {c for c in range(3) if pixel[c] > middle} == LIT[name.split()[0]], name


def test_the_area_of_a_shape_is_that_of_a_circle_square_or_triangle_in_its_box() -> None:
    _, alpha, names = large()
    sizes = []
    for cover, name in zip(alpha, names, strict=True):
        kind = name.split()[1]
        # the box to a fraction of a pixel: a profile's integral beyond half is what sticks out
        rows, columns = (cover.max(axis) for axis in (1, 0))
        height, width = rows.sum(), columns.sum()
        assert cover.sum() == pytest.approx(FILL[kind] * height * width, rel=0.06), name
        assert width / height == pytest.approx(ASPECT[kind], rel=0.06), name
        sizes.append(width / 96 / RADII[kind])  # the image is 2 wide: half of it is 1
    small = [size for size in sizes if size < 0.5]
    assert all(0.30 < size < 0.40 for size in small)
    assert all(0.58 < size < 0.68 for size in sizes if size >= 0.5)
    assert 0.3 < len(small) / len(sizes) < 0.7
    assert 0.045 < max(small) - min(small) < 0.08  # small ones are not all the same size


def test_a_triangle_stands_on_its_side_with_the_corner_above() -> None:
    _, alpha, names = large()
    for cover, name in zip(alpha, names, strict=True):
        widths = cover.sum(1)[cover.max(1) > 0.5]
        above, below = widths[len(widths) // 8], widths[-1 - len(widths) // 8]
        if name.endswith("triangle"):
            assert below > 4 * above
        else:
            assert below == pytest.approx(above, rel=0.15)


def test_shapes_lie_near_the_middle_wholly_inside_the_image() -> None:
    _, alpha, names = large()
    axis = (np.arange(96) + 0.5) / 48 - 1
    centres = []
    for cover, name in zip(alpha, names, strict=True):
        assert max(cover[0].max(), cover[-1].max(), cover[:, 0].max(), cover[:, -1].max()) == 0
        if not name.endswith("triangle"):
            total = cover.sum()
            centres.append(
                ((cover.sum(0) * axis).sum() / total, (cover.sum(1) * axis).sum() / total)
            )
    reach = np.abs(centres).max(0)
    assert reach.min() > 0.22 and reach.max() < 0.26


def test_the_ground_is_a_dark_grey_and_the_paint_gets_darker_downwards() -> None:
    images, alpha, _ = large()
    levels = []
    for image, cover in zip(images, alpha, strict=True):
        ground = image[:, cover == 0]
        assert np.ptp(ground) <= 2  # one grey, but for a trace of paint at the border
        levels.append(np.median(ground))
        filled = np.flatnonzero((cover == 1).any(1))
        column = [image[:, row][:, cover[row] == 1].max() for row in filled]
        assert all(a >= b for a, b in pairwise(column))
        slope = (column[0] - column[-1]) / (filled[-1] - filled[0]) * 96 / column[0]
        assert 0.3 < slope < 0.55  # 0.35 of the full brightness over the whole image
    assert 12 <= min(levels) < 20 and 42 < max(levels) <= 50


def test_alpha_is_0_outside_a_shape_255_inside_and_between_them_only_at_its_border() -> None:
    images, labels = shapes(100, 64, 4, seed=2)
    rgb, labels_again = shapes(100, 64, 3, seed=2)
    assert (images[:, :3] == rgb).all() and (labels == labels_again).all()
    alpha = images[:, 3]
    corners = alpha[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).all() and (alpha.max((1, 2)) == 255).all()
    inside, outside = alpha == 255, alpha == 0
    near = inside
    for _ in range(3):
        for axis in (1, 2):
            near = near | np.roll(near, 1, axis) | np.roll(near, -1, axis)
    assert (near | outside).all()  # what is neither lies within three pixels of the inside
    assert ((alpha > 0) & (alpha < 255)).any((1, 2)).all()


def test_grey_shapes_are_the_luma_of_the_coloured_ones_of_the_same_seed() -> None:
    grey, labels = shapes(60, 24, 1, seed=4)
    rgb, labels_again = shapes(60, 24, 3, seed=4)
    assert grey.shape == (60, 1, 24, 24) and (labels == labels_again).all()
    luma = 0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2]  # ITU-R BT.601
    assert np.abs(grey[:, 0] - luma).max() <= 1.0


@pytest.mark.parametrize("resolution", [8, 20, 33, 48])
def test_any_resolution_shows_the_same_shapes(resolution: int) -> None:
    images, labels = shapes(40, resolution, 4, seed=6)
    fine, fine_labels = shapes(40, 96, 4, seed=6)
    assert images.shape == (40, 4, resolution, resolution) and images.dtype == np.uint8
    assert (labels == fine_labels).all()
    size = (resolution, resolution)
    for image, large in zip(images, fine, strict=True):
        small = np.asarray(Image.fromarray(large[3]).resize(size, Image.Resampling.BOX))
        assert np.abs(image[3] - small.astype(float)).mean() < 255 * 0.25 / resolution


def test_a_seed_of_shapes_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (shapes(20, 16, 3, seed)[0] for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes() and first.tobytes() != other.tobytes()
    assert len({image.tobytes() for image in first}) == 20


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shapes_are_the_same_however_many_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    whole = shapes(23, 16, channels)[0]
    for pixels in (1, 5 * 16 * 16):
        monkeypatch.setattr(module, "CHUNK_PIXELS", pixels)
        np.testing.assert_array_equal(shapes(23, 16, channels)[0], whole)
