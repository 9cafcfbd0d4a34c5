"""The uint8 formula, grids, plots of points, and image files that another program reads back."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image

from gan.runtime import InputError, StorageError, images
from gan.runtime.images import grid, quantize, save, save_all, scatter, to_pil

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def single(x: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


def reference_step(x: float) -> int:
    """clip(127.5 x + 127.5, 0, 255), each operation rounded to float32, then half to even (Python's round)."""
    return round(min(255.0, max(0.0, single(single(x * 127.5) + 127.5))))


def picture(channels: int, seed: int = 0, height: int = 9, width: int = 7) -> images.Pixels:
    return RandomState(seed).randint(0, 256, (height, width, channels)).astype(np.uint8)


def test_quantizing_is_the_formula_value_by_value() -> None:
    x = RandomState(0).uniform(-1.2, 1.2, (3, 2, 20, 30)).astype(np.float32)
    pixels = quantize(x)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 20, 30, 2)
    for n, c, h, w in np.ndindex(x.shape):
        assert pixels[n, h, w, c] == reference_step(float(x[n, c, h, w]))


def test_a_half_is_rounded_to_the_even_step() -> None:
    halves = [k + 0.5 for k in range(255)]
    x = np.array([(half - 127.5) / 127.5 for half in halves], np.float32)
    exact = [
        single(single(float(v) * 127.5) + 127.5) == half for v, half in zip(x, halves, strict=True)
    ]
    assert sum(exact) > 100, "float32 would make no ties here"
    pixels = quantize(x.reshape(1, 1, 1, 255))[0, 0, :, 0]
    even = [round(half) for half in halves]
    assert all(p % 2 == 0 for p, tie in zip(pixels.tolist(), exact, strict=True) if tie)
    assert [p for p, tie in zip(pixels.tolist(), exact, strict=True) if tie] == [
        e for e, tie in zip(even, exact, strict=True) if tie
    ]


@pytest.mark.parametrize(
    ("x", "step"),
    [
        (-1.0, 0),
        (1.0, 255),
        (0.0, 128),
        (-1.001, 0),
        (1.004, 255),
        (-1e9, 0),
        (1e9, 255),
        (-np.inf, 0),
        (np.inf, 255),
    ],
)
def test_values_outside_are_clipped(x: float, step: int) -> None:
    assert quantize(np.full((1, 1, 1, 1), x, np.float64)).item() == step


@pytest.mark.parametrize(
    ("count", "columns", "rows_and_columns"),
    [
        (1, None, (1, 1)),
        (4, None, (2, 2)),
        (5, None, (2, 3)),
        (7, None, (3, 3)),
        (10, None, (3, 4)),
        (5, 1, (5, 1)),
        (5, 5, (1, 5)),
        (5, 4, (2, 4)),
        (2, 3, (1, 3)),
    ],
)
@pytest.mark.parametrize("gap", [0, 2, 5])
def test_a_grid_shows_every_image_in_its_place(
    count: int, columns: int | None, rows_and_columns: tuple[int, int], gap: int
) -> None:
    many = RandomState(1).randint(1, 256, (count, 4, 3, 3)).astype(np.uint8)
    sheet = grid(many, columns, gap=gap)
    rows, across = rows_and_columns
    assert sheet.shape == (rows * 4 + (rows - 1) * gap, across * 3 + (across - 1) * gap, 3)
    assert sheet.dtype == np.uint8
    rest = sheet.copy()
    for place in range(count):
        top, left = place // across * (4 + gap), place % across * (3 + gap)
        np.testing.assert_array_equal(sheet[top : top + 4, left : left + 3], many[place])
        rest[top : top + 4, left : left + 3] = 0
    assert not rest.any(), "something lies between the images"


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (8, 8, 3), (8, 8)])
def test_a_grid_of_what_are_not_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"Give \[N, H, W, C\]"):
        grid(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(("columns", "gap"), [(0, 2), (-1, 2), (1, -1), (1001, 2), (10**12, 2)])
def test_a_grid_without_columns_is_refused(columns: int, gap: int) -> None:
    with pytest.raises(InputError, match="columns from 1"):
        grid(np.zeros((2, 8, 8, 3), np.uint8), columns, gap=gap)


@pytest.mark.parametrize("channels", MODES)
def test_a_pillow_image_has_the_pixels_of_the_array(channels: int) -> None:
    array = picture(channels)
    image = to_pil(array)
    assert image.mode == MODES[channels]
    assert image.size == (7, 9)
    assert np.array(image).reshape(array.shape).tolist() == array.tolist()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
    ids=["float", "two axes", "two channels", "a batch"],
)
def test_what_is_no_image_is_refused_with_its_type_and_shape(array: NDArray[Any]) -> None:
    with pytest.raises(InputError) as caught:
        to_pil(array)
    assert caught.value.seen == f"{array.dtype} of shape {array.shape}"
    assert caught.value.repair == "Give uint8 [H, W, C] with C 1, 3 or 4"


@pytest.mark.parametrize("suffix", [".png", ".webp", ".PNG"])
@pytest.mark.parametrize("channels", MODES)
def test_a_written_image_is_read_back_equal(tmp_path: Path, suffix: str, channels: int) -> None:
    array = picture(channels)
    if channels == 4:
        array[:3, :, 3] = 0  # colours under full transparency are kept too
    path = tmp_path / f"image{suffix}"
    save(array, path)
    with Image.open(path) as image:
        assert image.format == {".png": "PNG", ".webp": "WEBP"}[suffix.lower()]
        back = np.array(image.convert(MODES[channels]))
    np.testing.assert_array_equal(back.reshape(array.shape), array)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_an_image_that_is_a_view_is_written_as_it_looks(tmp_path: Path, suffix: str) -> None:
    array = quantize(RandomState(3).uniform(-1, 1, (1, 3, 6, 5)).astype(np.float32))[0]
    assert not array.flags.c_contiguous
    save(array, tmp_path / f"image{suffix}")
    with Image.open(tmp_path / f"image{suffix}") as image:
        np.testing.assert_array_equal(np.array(image.convert("RGB")), array)


def test_points_are_drawn_dark_on_white_with_x_to_the_right_and_y_upwards() -> None:
    plot = scatter(np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5]], np.float32), size=100, extent=1)
    assert plot.dtype == np.uint8 and plot.shape == (100, 100, 1)
    dark = {(row, column) for row, column in np.argwhere(plot[:, :, 0] < 255).tolist()}
    places = [(25, 75), (25, 25)]  # three quarters to the right, one quarter down; its mirror image
    assert dark == {(r + i, c + j) for r, c in places for i in (0, 1) for j in (0, 1)}
    once, twice = plot[25, 75, 0], plot[25, 25, 0]
    assert 255 > once > twice > 0  # where more points lie it is darker


def test_a_plot_is_as_wide_as_nearly_all_of_the_points_need() -> None:
    points = RandomState(0).uniform(-1, 1, (2_000, 2))
    for scale in (1e-3, 1.0, 1e3):
        assert np.array_equal(scatter(scale * points), scatter(points))
    far = np.concatenate([points, [[1e30, 0.0], [0.0, -1e30]]])  # two in 2,000 do not decide
    assert (scatter(far) < 255).mean() > 0.05
    rows, columns = np.nonzero(scatter(points)[:, :, 0] < 255)
    assert min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 383


def test_points_beyond_the_plot_are_left_out() -> None:
    beyond = np.array([[1.5, 0.0], [0.0, 1.5], [-1.5, 0.0], [0.0, -1.5]])
    assert (scatter(beyond, size=50, extent=1) == 255).all()


def test_points_of_one_or_three_numbers_are_drawn_by_their_first_two() -> None:
    line, deep = np.array([[0.5], [-0.25]]), np.array([[0.5, 0.0, 9.0], [-0.25, 0.0, -9.0]])
    flat = scatter(np.array([[0.5, 0.0], [-0.25, 0.0]]), extent=1)
    assert np.array_equal(scatter(line, extent=1), flat)
    assert np.array_equal(scatter(deep, extent=1), flat)


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 2)), np.array([[0.0, np.nan]]), np.array([[np.inf, 0.0]])]
)
def test_what_are_no_finite_points_is_refused(bad: NDArray[Any]) -> None:
    with pytest.raises(InputError, match="Points were not drawn"):
        scatter(bad)


@pytest.mark.parametrize("name", ["image.jpg", "image", "png", "image.png.txt"])
def test_another_suffix_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"Use one of \.png, \.webp"):
        save(picture(3), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_is_no_image_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        save(np.zeros((4, 4, 2), np.uint8), tmp_path / "image.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 4])
def test_all_images_are_written_each_under_its_number(tmp_path: Path, workers: int) -> None:
    count = 150  # more than may wait at once
    written = save_all(
        (picture(3, seed) for seed in range(count)),
        lambda number: tmp_path / f"{number:03d}.png",
        workers=workers,
    )
    assert written == count
    assert len(list(tmp_path.iterdir())) == count
    for number in range(count):
        with Image.open(tmp_path / f"{number:03d}.png") as image:
            np.testing.assert_array_equal(np.array(image), picture(3, number))


def test_no_image_is_no_file(tmp_path: Path) -> None:
    assert save_all([], lambda number: tmp_path / f"{number}.png") == 0
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_holds_back_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, saved, taken = threading.Event(), [], []

    def slow_save(image: images.Pixels, path: Path) -> None:
        disk.wait(30)
        saved.append(path.name)

    def endless() -> Iterator[images.Pixels]:
        for number in range(200):
            taken.append(number)
            yield picture(1, number)

    monkeypatch.setattr(images, "save", slow_save)
    job = threading.Thread(target=save_all, args=(endless(), lambda number: Path(f"{number}.png")))
    job.start()
    try:
        give_up = time.monotonic() + 30
        while len(taken) < 65 and time.monotonic() < give_up:
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(taken) == 65, "64 wait, one more is in hand"
    finally:
        disk.set()
        job.join(30)
    assert sorted(saved) == sorted(f"{number}.png" for number in range(200))


def test_a_disk_that_fails_stops_the_writing(tmp_path: Path) -> None:
    taken = []

    def endless() -> Iterator[images.Pixels]:
        for number in range(10_000):
            taken.append(number)
            yield picture(1, number)

    with pytest.raises(StorageError, match="No such file"):
        save_all(endless(), lambda number: tmp_path / "nowhere" / f"{number}.png")
    assert len(taken) <= 66


def test_a_source_that_fails_is_an_error_and_no_image_is_half_written(tmp_path: Path) -> None:
    def failing() -> Iterator[images.Pixels]:
        yield from (picture(3, number) for number in range(5))
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        save_all(failing(), lambda number: tmp_path / f"{number}.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.array(image), picture(3, int(path.stem)))


def dark(plot: images.Pixels) -> set[tuple[int, int]]:
    """(row, column) of every pixel of a plot that is not white."""
    return {(int(row), int(column)) for row, column in np.argwhere(plot[:, :, 0] < 255)}


@pytest.mark.parametrize(
    ("x", "y", "seen"),
    [
        (-1.0, 0.0, {(10, 0), (10, 1), (11, 0), (11, 1)}),  # the outermost pixels
        (0.0, 1.0, {(0, 10), (0, 11), (1, 10), (1, 11)}),
        (0.95, -0.95, {(19, 19)}),
        (-1.04, 0.0, set()),  # outside, if by less than a pixel of 0.1
        (1.04, 0.0, set()),
        (0.0, 1.04, set()),
        (0.0, -1.04, set()),
    ],
)
def test_a_plot_ends_where_its_extent_does_on_all_four_sides(
    x: float, y: float, seen: set[tuple[int, int]]
) -> None:
    assert dark(scatter(np.array([[x, y]]), size=20, extent=1.0)) == seen


def test_by_default_a_plot_shows_a_tenth_more_than_98_in_100_points_need() -> None:
    points = np.stack([np.arange(101.0), np.zeros(101)], 1)  # 98 in 100 lie within 98
    points[::2, 0] *= -1
    plot = scatter(points, size=200)
    assert (plot == scatter(points, size=200, extent=107.8)).all()
    assert (plot != scatter(points, size=200, extent=106.0)).any()


def test_points_that_all_lie_at_the_origin_are_one_spot() -> None:
    plot = scatter(np.zeros((5, 2)), size=20)
    assert dark(plot) == {(10, 10), (10, 11), (11, 10), (11, 11)}
    assert plot.min() < scatter(np.zeros((1, 2)), size=20).min()


@pytest.mark.parametrize("shape", [(0,), (4, 0), (0, 3)])
def test_no_points_at_all_are_refused_with_their_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"Give finite points \[N, D\]") as caught:
        scatter(np.zeros(shape))
    assert f"shape {shape}" in caught.value.seen
