"""Drawn shapes, measured in pixels; outlines that enclose them; warm and cold colours."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gan.trainer import shapes as module
from gan.trainer.shapes import SHAPES, edges, shapes, warm_cold

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


# Outlines.


def test_an_outline_encloses_its_shape_and_the_colour_tells_the_kind() -> None:
    outlines, images = edges(60, 48, seed=2)
    assert outlines.shape == (60, 1, 48, 48) and images.shape == (60, 3, 48, 48)
    assert outlines.dtype == images.dtype == np.uint8 and set(np.unique(outlines)) == {0, 255}
    kinds = set()
    for outline, image in zip(outlines[:, 0] > 0, images.astype(int), strict=True):
        filled = image.max(0) - image.min(0) > 60  # the ground is grey
        border = filled & ~_eroded(filled)
        assert (outline <= _grown(_grown(filled))).all() and (border <= _grown(outline)).all()
        assert not (outline & _eroded(_eroded(filled))).any()
        kind = _kind(filled)
        kinds.add(kind)
        assert (
            image[:, filled].mean(1).argmax() == kind
        )  # red circles, green squares, blue triangles
        assert np.median(image[:, ~_grown(filled)]) in (25, 26)
    assert kinds == {0, 1, 2}


def _kind(filled: NDArray[np.bool_]) -> int:
    """By the share of its box that a shape fills."""
    ys, xs = np.nonzero(filled)
    share = filled.sum() / (np.ptp(ys) + 1) / (np.ptp(xs) + 1)
    return int(np.abs(np.array([np.pi / 4, 1.0, 0.55]) - share).argmin())


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    around = np.pad(mask, 1)
    size = mask.shape[0]
    moved = [around[y : y + size, x : x + size] for y in range(3) for x in range(3)]
    return np.any(moved, axis=0)


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return ~_grown(~mask)


def test_an_outline_is_where_the_coverage_is_far_below_the_largest_around() -> None:
    outlines, _ = edges(12, 16, seed=4)
    draw = np.random.default_rng(4)
    kind = draw.integers(0, 3, 12)
    size = 0.32 + 0.28 * draw.integers(0, 2, 12) + 0.06 * draw.random(12)
    cx, cy = draw.uniform(-0.25, 0.25, (2, 12))
    for i in range(12):
        for row in range(16):
            for column in range(16):
                around = [
                    _cover(kind[i], size[i], cx[i], cy[i], r, c, 16)
                    for r in range(max(0, row - 1), min(16, row + 2))
                    for c in range(max(0, column - 1), min(16, column + 2))
                ]
                gap = max(around) - _cover(kind[i], size[i], cx[i], cy[i], row, column, 16)
                if abs(gap - 0.3) > 0.01:
                    assert (outlines[i, 0, row, column] == 255) == (gap > 0.3)


def _cover(kind: int, size: float, cx: float, cy: float, row: int, column: int, n: int) -> float:
    """Coverage of one pixel, written down anew."""
    x, y = (column + 0.5) / n * 2 - 1 - cx, (row + 0.5) / n * 2 - 1 - cy
    distance = (
        np.hypot(x, y) - size,
        max(abs(x), abs(y)) - 0.85 * size,
        max(0.866 * abs(x) - 0.5 * y, y) - 0.55 * size,
    )[kind]
    return min(1.0, max(0.0, 0.5 - distance * n / 2))


# Warm and cold.


def test_warm_shapes_are_red_or_yellow_and_cold_ones_blue_or_cyan() -> None:
    warm, cold, masks = warm_cold(300, 32, seed=5)
    assert warm.shape == cold.shape == (300, 3, 32, 32) and masks.shape == (300, 1, 32, 32)
    found: list[set[tuple[int, ...]]] = [set(), set()]
    for side, images in enumerate((warm.astype(int), cold.astype(int))):
        for image in images:
            filled = image.max(0) - image.min(0) > 60
            mean = image[:, filled].mean(1)
            found[side].add(tuple(np.flatnonzero(mean > (mean.max() + mean.min()) / 2)))
    assert found == [{(0,), (0, 1)}, {(2,), (1, 2)}]


def test_the_masks_are_the_coverage_of_the_warm_shapes() -> None:
    warm, _, masks = warm_cold(100, 32, seed=6)
    for image, mask in zip(warm.astype(int), masks[:, 0], strict=True):
        filled = image.max(0) - image.min(0) > 60
        assert (mask[filled] > 0).all() and (filled[mask == 255]).all()
        assert (np.ptp(image[:, mask == 0], axis=0) <= 1).all()


def test_the_two_sets_are_drawn_apart() -> None:
    warm, cold, _ = warm_cold(400, 24, seed=7)
    centres = []
    for images in (warm.astype(int), cold.astype(int)):
        filled = images.max(1) - images.min(1) > 60
        areas = filled.sum((1, 2))
        xs = (filled * np.arange(24)).sum((1, 2)) / areas
        centres.append((xs, areas))
    for one, other in zip(*centres, strict=True):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(400)


@pytest.mark.parametrize("draw", [edges, warm_cold])
def test_a_seed_of_two_sides_gives_the_same_bytes_and_another_seed_others(
    draw: Callable[..., tuple[NDArray[np.uint8], ...]],
) -> None:
    first, again, other = (draw(20, 16, seed) for seed in (1, 1, 2))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert all(a.tobytes() != b.tobytes() for a, b in zip(first, other, strict=True))
    assert all(side.flags.c_contiguous for side in first)
    assert draw(20, 8, 1)[0].shape[2:] == (8, 8)
