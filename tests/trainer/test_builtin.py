"""Built-in data: mixtures with the published moments, digits that stay in their split."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from gan.runtime.errors import DatasetError, InputError
from gan.runtime.signature import natural_order
from gan.trainer import builtin
from gan.trainer.builtin import BUILTIN, GRID, RING, digits, find, points, stacked
from gan.trainer.data import classes_of, load_dataset, source_name
from gan.trainer.dataset import Mixture
from gan.trainer.faces import AGES, faces
from gan.trainer.shapes import SHAPES, edges, shapes, warm_cold

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


# Pairs, two sets, faces.


def test_edges_are_trained_on_as_pairs_of_seed_0() -> None:
    data = load_dataset("edges")
    outlines, images = edges(8_000, 32, seed=0)
    assert data.partners is not None and np.array_equal(data.partners, outlines)
    assert np.array_equal(data.samples, images) and data.labels is None
    small = load_dataset("edges", resolution=8)
    assert small.info.shape == (3, 8, 8) and small.info.partner == (1, 8, 8)


def test_warm_cold_is_two_sets_of_which_the_cold_one_is_made() -> None:
    data = load_dataset("warm-cold")
    warm, cold, _ = warm_cold(5_000, 16, seed=0)
    assert data.partners is not None and np.array_equal(data.partners, warm)
    assert np.array_equal(data.samples, cold) and data.arrangement == "unpaired"


def test_faces_are_trained_on_with_their_ages_as_classes() -> None:
    data = load_dataset("faces", resolution=8)
    pixels, ages, _ = faces(10_000, 8, seed=0)
    assert data.classes == AGES and data.labels is not None and np.array_equal(data.labels, ages)
    assert np.array_equal(data.samples, pixels)
    assert natural_order(sorted(AGES)) == list(AGES)  # as folders of these names would be


@pytest.mark.parametrize("name", ["edges", "warm-cold"])
def test_the_sides_of_built_in_data_can_be_swapped(name: str) -> None:
    straight, swapped = (
        load_dataset(name, resolution=8),
        load_dataset(name, resolution=8, swap=True),
    )
    assert straight.partners is not None and swapped.partners is not None
    assert np.array_equal(swapped.samples, straight.partners)
    assert np.array_equal(swapped.partners, straight.samples)
    assert swapped.digest != straight.digest and swapped.arrangement == straight.arrangement
    own: Any = swapped.info.channels  # as a resumed run asks for
    assert load_dataset(name, resolution=8, swap=True, channels=own).digest == swapped.digest


@pytest.mark.parametrize(
    ("name", "swap", "channels"), [("edges", False, 1), ("edges", True, 3), ("warm-cold", False, 4)]
)
def test_data_of_two_sides_have_channels_of_their_own(name: str, swap: bool, channels: Any) -> None:
    with pytest.raises(InputError, match=f"{name} has channels of its own.*Leave --channels out"):
        load_dataset(name, swap=swap, channels=channels)


def test_faces_are_refused_in_other_than_three_channels() -> None:
    with pytest.raises(InputError, match=r"RGB. 1 channels. Leave --channels out"):
        load_dataset("faces", channels=1)


@pytest.mark.parametrize("name", ["digits", "shapes", "faces", "ring"])
def test_there_is_nothing_to_swap_in_single_samples(name: str) -> None:
    with pytest.raises(InputError, match="nothing to swap"):
        load_dataset(name, swap=True)


def test_labelled_samples_are_not_swapped_for_partners_whose_labels_nobody_knows() -> None:
    with pytest.raises(InputError, match=r"persons cannot be swapped.*labels.*Leave --swap out"):
        load_dataset("persons", resolution=8, swap=True)


@pytest.mark.parametrize("name", [None, "edges", "ring"])
def test_built_in_data_take_no_source(name: str | None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{name or 'digits'} takes no source.*Leave it out"):
        load_dataset(name, source=str(tmp_path))


@pytest.mark.parametrize("name", ["digits", "edges", "warm-cold"])
def test_windows_can_be_cut_of_built_in_data(name: str) -> None:
    data = load_dataset(name, window=12)
    assert data.info.shape[1:] == (12, 12) and data.samples.shape[-1] > 12
    assert data.info.partner is None or data.info.partner[1:] == (12, 12)
    assert data.digest == load_dataset(name).digest


@pytest.mark.parametrize("window", [1, 100])
def test_points_have_no_windows(window: int) -> None:
    with pytest.raises(InputError, match=r"Leave --crop out.*points"):
        load_dataset("ring", window=window)


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
    assert known.arrangement == data.info.arrangement
    assert known.partner == (data.info.partner[0] if data.info.partner else None)
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
    for name in builtin.NAMES:
        assert name in caught.value.repair


@pytest.mark.parametrize("name", BUILTIN)
def test_a_fit_means_nothing_to_built_in_data_and_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} needs no fit.*Leave it out"):
        load_dataset(name, fit="crop")
