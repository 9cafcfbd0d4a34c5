"""Tiles that cover an image and add nothing, room for two sides, windows within what was prepared."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan.runtime.errors import DatasetError, InputError, StorageError
from gan.trainer import preparation
from gan.trainer.data import load_dataset
from gan.trainer.dataset import Dataset

from .conftest import encoded, picture, write_folder


def load(path: str, **options: Any) -> Dataset:
    return load_dataset(path, **{"resolution": 8, "fit": "tiles", **options})


def places(length: int, size: int = 8) -> list[int]:
    """Where tiles begin, written down anew: whole steps, and the last one at the end."""
    found = list(range(0, length - size + 1, size))
    return found if length % size == 0 else [*found, length - size]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (16, 24), (9, 8), (8, 15), (17, 31), (23, 25), (40, 8)]
)
def test_tiles_are_cut_row_by_row_at_the_images_own_scale(
    tmp_path: Path, height: int, width: int
) -> None:
    image = noise(height, width)
    data = load(write_folder(tmp_path, {"a.png": encoded(image)}))
    wanted = [image[y : y + 8, x : x + 8] for y in places(height) for x in places(width)]
    assert len(data) == len(wanted)
    assert np.array_equal(data.samples, np.stack(wanted).transpose(0, 3, 1, 2))
    covered = np.zeros((height, width), bool)
    for y in places(height):
        for x in places(width):
            covered[y : y + 8, x : x + 8] = True
    assert covered.all()


def test_tiles_of_many_images_follow_each_other_with_their_labels(tmp_path: Path) -> None:
    images = {"a/1.png": noise(16, 8, 1), "a/2.png": noise(8, 8, 2), "b/1.png": noise(9, 9, 3)}
    data = load(write_folder(tmp_path, {name: encoded(image) for name, image in images.items()}))
    assert data.classes == ("a", "b") and data.labels is not None
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert np.array_equal(data.samples[2], noise(8, 8, 2).transpose(2, 0, 1))


def test_images_smaller_than_a_tile_and_damaged_ones_are_skipped(tmp_path: Path) -> None:
    files = {
        "a.png": encoded(noise(7, 30)), "b.png": encoded(noise(30, 7)), "c.png": encoded(noise(8, 9)),
        "d.png": b"words", "e.png": encoded(noise(64, 64))[:-5000],
    }  # fmt: skip
    data = load(write_folder(tmp_path, files))
    assert len(data) == 2
    assert data.skipped == {"smaller than a tile": 2, "not an image": 1, "damaged": 1}
    with pytest.raises(DatasetError, match=r"holds no usable image\. 2 x smaller than a tile"):
        load(write_folder(tmp_path / "small", {n: files[n] for n in ("a.png", "b.png")}))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_tiles_are_those_of_the_upright_image(tmp_path: Path, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = noise(17, 9)
    lying = encoded(np.ascontiguousarray(np.rot90(upright)), format, exif=exif)
    data = load(write_folder(tmp_path, {"a.png": lying}))
    plain = load(write_folder(tmp_path / "b", {"a.png": encoded(upright)}))
    assert len(data) == 6 and data.digest == plain.digest


@pytest.mark.parametrize("channels", [1, 4, "auto"])
def test_tiles_come_in_any_channels(tmp_path: Path, channels: Any) -> None:
    data = load(write_folder(tmp_path, {"a.png": encoded(noise(8, 20))}), channels=channels)
    assert data.samples.shape == (3, 3 if channels == "auto" else channels, 8, 8)


@pytest.mark.parametrize("arrangement", ["pairs", "unpaired"])
@pytest.mark.parametrize("fit", ["tiles", None])
def test_samples_and_partners_beyond_the_memory_limit_live_in_files(
    tmp_path: Path, arrangement: str, fit: str | None
) -> None:
    files = {f"{i}.png": encoded(picture(i)) for i in range(6)}
    data = write_folder(tmp_path / "a", files)
    source = write_folder(tmp_path / "b", {n: encoded(picture(9, channels=1)) for n in files})
    options: dict[str, Any] = {
        "source": source,
        "arrangement": arrangement,
        "fit": fit,
        "partner_channels": 1,
    }
    memory = load(data, **options)
    both = 6 * 64 * (3 + 1)
    assert not isinstance(load(data, **options, memory_limit=both).samples, np.memmap)
    disk = load(data, **options, memory_limit=both - 1, scratch=tmp_path / "run")
    assert isinstance(disk.samples, np.memmap) and isinstance(disk.partners, np.memmap)
    assert disk.digest == memory.digest
    assert {f.name: f.stat().st_size for f in (tmp_path / "run").iterdir()} == {
        "pixels.u8": 6 * 64 * 3, "partners.u8": 6 * 64,
    }  # fmt: skip
    with pytest.raises(DatasetError, match=f"{both} bytes of pixels, limit {both - 1}"):
        load(data, **options, memory_limit=both - 1)


def test_a_set_of_which_nothing_is_left_needs_no_room(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "a", {"1.png": encoded(picture(1))})
    source = write_folder(tmp_path / "b", {"1.png": encoded(picture(1, size=7))})
    with pytest.raises(DatasetError, match=r"b holds no usable image\. 1 x smaller than a tile"):
        load(data, source=source, arrangement="unpaired", memory_limit=10, scratch=tmp_path / "run")


def test_a_window_is_what_a_system_sees_and_must_fit(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {"a.png": encoded(picture(0))})
    data = load(path, window=6)
    assert data.info.shape == (3, 6, 6) and data.samples.shape == (1, 3, 8, 8)
    assert load(path, window=8).info.shape == (3, 8, 8)
    with pytest.raises(InputError, match=r"--crop 9, images of 8 pixels"):
        load(path, window=9)
    with pytest.raises(InputError, match=r"--crop 65, images of 64 pixels"):
        load_dataset(path, window=65)
    with pytest.raises(InputError, match=r"--crop 29, images of 28 pixels"):
        load_dataset(None, window=29)


def test_few_images_are_in_work_ahead_of_a_slow_one_and_all_come_in_order() -> None:
    begun, gate = list[int](), threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        assert number or gate.wait(30)
        return number * 2

    with ThreadPoolExecutor(8) as pool:
        results = preparation._in_order(pool, work, 500)
        threading.Timer(0.2, gate.set).start()
        assert next(results) == 0  # the slow one: meanwhile the rest of what is ahead was done
        assert len(begun) <= preparation.AHEAD
        assert list(results) == [number * 2 for number in range(1, 500)]


def test_an_error_leaves_the_rest_undone() -> None:
    begun = list[int]()

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise DatasetError("no")
        time.sleep(0.01)
        return number

    with ThreadPoolExecutor(2) as pool, pytest.raises(DatasetError):
        list(preparation._in_order(pool, work, 1_000))
    assert len(begun) < 100


def test_a_full_disk_is_found_before_the_pixels_are_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the write of a page that has no room kills the process."""
    path = write_folder(tmp_path / "in", {f"{i}.png": encoded(picture(i)) for i in range(3)})

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        StorageError, match=r"pixels\.u8, 0\.0 GB, was not written.*No space left on device"
    ):
        load(path, memory_limit=10, scratch=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_room_on_the_disk_is_taken_at_once(tmp_path: Path) -> None:
    preparation._reserve(tmp_path / "a", 1 << 20)
    status = (tmp_path / "a").stat()
    assert status.st_size == 1 << 20 and status.st_blocks * 512 >= 1 << 20  # no holes


def test_mostly_unreadable_images_are_an_error_and_half_of_them_are_not(tmp_path: Path) -> None:
    good = {f"{i}.png": encoded(picture(i)) for i in range(4)}
    half = write_folder(tmp_path / "half", {**good, **{f"x{i}.png": b"words" for i in range(4)}})
    assert len(load(half)) == 4
    most = write_folder(tmp_path / "most", {**good, **{f"x{i}.png": b"words" for i in range(5)}})
    with pytest.raises(DatasetError) as caught:
        load(most)
    assert caught.value.failed == f"Most images of {most} cannot be used"
    assert caught.value.seen == "5 of 9: 5 x not an image (x0.png, x1.png, x2.png, ...)"
