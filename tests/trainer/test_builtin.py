"""Built-in data: mixtures with the published moments, shapes measured in pixels, digits that stay in their split."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gan.runtime.errors import DatasetError, InputError
from gan.trainer import builtin
from gan.trainer import faces as faces_module
from gan.trainer.builtin import BUILTIN, GRID, RING, SHAPES, digits, find, points, shapes, stacked
from gan.trainer.data import classes_of, load_dataset, source_name
from gan.trainer.dataset import Mixture

MIXTURES = [RING, GRID]
Split = Literal["train", "held-out"]


# Points.


def test_the_ring_has_eight_modes_45_degrees_apart_on_the_unit_circle() -> None:
    z = RING.centres[:, 0] + 1j * RING.centres[:, 1]
    assert np.abs(z) == pytest.approx(1.0, abs=1e-6)
    assert sorted(np.degrees(np.angle(z)).round(3) % 360) == pytest.approx(range(0, 360, 45))
    assert RING.deviation == 0.02


def test_the_grid_has_five_by_five_modes_two_apart_and_all_is_divided_by_2_828() -> None:
    wanted = {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    found = {(round(x, 4), round(y, 4)) for x, y in (GRID.centres * 2.828).tolist()}
    assert found == wanted and len(GRID.centres) == 25
    assert GRID.deviation * 2.828 == pytest.approx(0.05)


@pytest.mark.parametrize("mixture", MIXTURES, ids=["ring", "grid"])
def test_every_mode_has_its_share_its_centre_and_its_deviation(mixture: Mixture) -> None:
    count, modes = 50_000, len(mixture.centres)
    drawn = points(mixture, count, seed=3)
    assert drawn.shape == (count, 2) and drawn.dtype == np.float32
    distances = np.linalg.norm(drawn[:, None] - mixture.centres[None], axis=2)
    nearest = distances.argmin(1)
    assert distances.min(1).max() < 6.5 * mixture.deviation  # nothing lies between the modes
    for mode in range(modes):
        own = drawn[nearest == mode].astype(np.float64) - mixture.centres[mode]
        n, sigma = len(own), mixture.deviation
        spread = 5 * np.sqrt(count / modes * (1 - 1 / modes))  # five deviations of a binomial
        assert abs(n - count / modes) < spread
        assert np.abs(own.mean(0)).max() < 5 * sigma / np.sqrt(n)
        assert np.abs(own.std(0) / sigma - 1).max() < 5 / np.sqrt(2 * n)
        assert abs(np.corrcoef(own.T)[0, 1]) < 5 / np.sqrt(n)


def test_a_seed_of_points_gives_the_same_bytes_and_another_seed_others() -> None:
    again = points(RING, 100, seed=1)
    assert points(RING, 100, seed=1).tobytes() == again.tobytes()
    assert points(RING, 100, seed=2).tobytes() != again.tobytes()


@pytest.mark.parametrize(("name", "mixture"), [("ring", RING), ("grid", GRID)])
def test_points_are_trained_on_with_seed_0_and_know_their_mixture(
    name: str, mixture: Mixture
) -> None:
    data = BUILTIN[name].load(None, None)
    assert data.name == name and data.mixture is mixture and data.labels is None
    assert data.samples.tobytes() == points(mixture, 100_000, seed=0).tobytes()


@pytest.mark.parametrize(("resolution", "channels"), [(8, None), (None, 3), (28, 1)])
@pytest.mark.parametrize("name", ["ring", "grid"])
def test_points_have_neither_resolution_nor_channels(
    name: str, resolution: int | None, channels: int | None
) -> None:
    with pytest.raises(InputError, match=r"Leave --resolution and --channels out.*points"):
        BUILTIN[name].load(resolution, channels)


# Shapes.

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
        monkeypatch.setattr(faces_module, "CHUNK_PIXELS", pixels)
        np.testing.assert_array_equal(shapes(23, 16, channels)[0], whole)


@pytest.mark.parametrize(
    ("resolution", "channels", "shape"),
    [(None, None, (10_000, 3, 32, 32)), (8, 4, (10_000, 4, 8, 8))],
)
def test_the_shapes_that_are_trained_on_are_those_of_seed_0(
    resolution: int | None, channels: int | None, shape: tuple[int, ...]
) -> None:
    data = BUILTIN["shapes"].load(resolution, channels)
    assert data.samples.shape == shape and data.classes == SHAPES and data.labels is not None
    images, labels = shapes(10_000, shape[2], shape[1], seed=0)
    assert data.samples.tobytes() == images.tobytes()
    assert (data.labels == labels).all()


# Digits.


def by_bytes(split: Split) -> dict[bytes, int]:
    images, labels = digits(split)
    return {image.tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}


def test_digits_are_split_into_7000_and_3000_that_share_none() -> None:
    train, held_out = by_bytes("train"), by_bytes("held-out")
    images, labels = digits("train")
    assert images.shape == (7_000, 28, 28) and images.dtype == np.uint8
    assert labels.dtype == np.int64 and set(labels.tolist()) == set(range(10))
    assert len(digits("held-out")[0]) == 3_000
    assert not train.keys() & held_out.keys()


def test_the_default_digits_are_the_ones_of_the_training_split() -> None:
    data = BUILTIN["digits"].load(None, None)
    images, labels = digits("train")
    assert data.name == "digits" and data.classes == tuple("0123456789")
    assert data.labels is not None and (data.labels == labels).all()
    assert data.samples.shape == (7_000, 1, 28, 28) and (data.samples[:, 0] == images).all()


@pytest.mark.parametrize(("resolution", "channels"), [(14, 1), (14, 3), (7, 4)])
def test_digits_come_in_other_sizes_and_channels(resolution: int, channels: int) -> None:
    data = BUILTIN["digits"].load(resolution, channels)
    assert data.samples.shape == (7_000, channels, resolution, resolution)
    colours = data.samples[:, :3] if channels == 4 else data.samples
    assert (colours == colours[:, :1]).all()  # a grey digit in every colour
    if channels == 4:
        assert (data.samples[:, 3] == 255).all()
    k = 28 // resolution
    blocks = digits("train")[0].reshape(-1, resolution, k, resolution, k).mean((2, 4))
    grey = colours[:, 0].astype(np.float64)
    for mine, mean in zip(grey[:50], blocks[:50], strict=True):
        assert np.corrcoef(mine.ravel(), mean.ravel())[0, 1] > 0.95
    assert grey.mean() == pytest.approx(blocks.mean(), rel=0.12)  # Lanczos overshoots


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_the_channels_of_a_stacked_digit_are_digits_of_its_split_that_spell_its_number(
    split: Split,
) -> None:
    known = by_bytes(split)
    other = by_bytes("held-out" if split == "train" else "train")
    images, numbers = stacked(split, 400, seed=1)
    assert images.shape == (400, 3, 28, 28) and images.dtype == np.uint8
    for image, number in zip(images, numbers.tolist(), strict=True):
        channels = [channel.tobytes() for channel in image]
        assert not other.keys() & set(channels)
        hundreds, tens, ones = (known[channel] for channel in channels)
        assert number == int(f"{hundreds}{tens}{ones}")
    assert len({image.tobytes() for image in images}) == 400


def test_stacked_digits_come_in_other_sizes_and_from_other_seeds() -> None:
    small, numbers = stacked("held-out", 30, 14, seed=2)
    large, same = stacked("held-out", 30, 28, seed=2)
    assert small.shape == (30, 3, 14, 14) and (numbers == same).all()
    blocks = large.reshape(30, 3, 14, 2, 14, 2).mean((3, 5))
    assert np.corrcoef(small.ravel(), blocks.ravel())[0, 1] > 0.98
    assert stacked("held-out", 30, 14, seed=2)[0].tobytes() == small.tobytes()
    assert stacked("held-out", 30, 14, seed=3)[0].tobytes() != small.tobytes()


def test_the_stacked_digits_that_are_trained_on_are_30000_unlabelled_ones_of_all_numbers() -> None:
    data = BUILTIN["stacked-digits"].load(None, None)
    images, numbers = stacked("train", 30_000)
    assert data.samples.shape == (30_000, 3, 28, 28) and data.labels is None and not data.classes
    assert data.samples.tobytes() == images.tobytes()
    assert set(numbers.tolist()) == set(range(1_000))
    assert BUILTIN["stacked-digits"].load(14, 3).samples.shape == (30_000, 3, 14, 14)


@pytest.mark.parametrize("channels", [1, 4])
def test_stacked_digits_are_refused_in_other_than_three_channels(channels: int) -> None:
    with pytest.raises(InputError, match=f"RGB. {channels} channels. Leave --channels out"):
        BUILTIN["stacked-digits"].load(None, channels)


# By name.


@pytest.mark.parametrize("name", builtin.NAMES)
def test_what_is_said_of_built_in_data_before_it_is_drawn_is_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    known = find(name)
    assert known is not None and known.name == name
    data = load_dataset(name)
    assert data.name == source_name(name) == name
    assert (known.kind, known.classes) == (data.info.kind, data.classes)
    assert classes_of(name) == data.classes
    if known.kind == "image":
        assert (known.resolution, known.channels) == (data.info.height, data.info.channels)


def test_without_a_path_the_digits_are_used() -> None:
    known = find(None)
    assert known is not None and known.name == "digits" and source_name(None) == "digits"


def test_a_folder_or_file_of_the_same_name_goes_before_built_in_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("ring") is not None
    Path("ring").mkdir()
    Image.new("L", (8, 8), 7).save("ring/a.png")
    assert find("ring") is None
    data = load_dataset("ring", resolution=8)
    assert data.samples.shape == (1, 1, 8, 8) and data.samples.max() == 7
    Path("grid").write_text("no archive")
    with pytest.raises(DatasetError, match="neither a folder nor a zip"):
        load_dataset("grid")


def test_an_unknown_path_is_refused_with_the_names_of_all_built_in_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="no such file or folder") as caught:
        load_dataset("rings")
    for name in ("digits", "stacked-digits", "shapes", "ring", "grid"):
        assert name in caught.value.repair


@pytest.mark.parametrize("name", BUILTIN)
def test_a_fit_means_nothing_to_built_in_data_and_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} needs no fit.*Leave it out"):
        load_dataset(name, fit="crop")
