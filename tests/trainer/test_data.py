"""Folders, zips and the digits become the same prepared pixels, whatever the workers; bad files are told apart."""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan.runtime.errors import DatasetError
from gan.trainer import builtin, sources
from gan.trainer.builtin import DIGITS, digits
from gan.trainer.data import classes_of, load_dataset, source_name
from gan.trainer.dataset import Dataset
from gan.trainer.parts import DataInfo

from .conftest import CPU, encoded, picture, write_folder, write_zip


def load(path: str, **options: Any) -> Dataset:
    return load_dataset(path, **{"resolution": 8, **options})


NAMES = ["10/a.png", "2/b.jpg", "2/c.png", "1/d.webp", "1/deep/er/e.bmp"]
PICTURES = {
    name: encoded(picture(i), {"jpg": "JPEG"}.get(name[-3:], name.rpartition(".")[2].upper()))
    for i, name in enumerate(NAMES)
}


def test_sub_folders_are_classes_in_natural_order(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path, PICTURES))
    assert data.classes == ("1", "2", "10")
    # files in the order of their names: 1/d, 1/deep/er/e, 10/a, 2/b, 2/c
    assert data.labels is not None and data.labels.dtype == np.int64
    assert data.labels.tolist() == [0, 0, 2, 1, 1]
    assert data.samples.shape == (5, 3, 8, 8)
    assert np.array_equal(data.samples[2], picture(0).transpose(2, 0, 1))
    assert np.array_equal(data.samples[4], picture(2).transpose(2, 0, 1))
    assert data.info == DataInfo((3, 8, 8), data.classes, "image")
    assert (data.info.channels, data.info.height, data.info.width) == (3, 8, 8)


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path, {f"{i}.png": encoded(picture(i)) for i in (3, 1, 2)}))
    assert (data.classes, data.labels, len(data)) == ((), None, 3)
    assert np.array_equal(data.samples[0], picture(1).transpose(2, 0, 1))


def test_one_sub_folder_alone_makes_no_classes(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path, {f"cats/{i}.png": encoded(picture(i)) for i in range(3)}))
    assert (data.classes, data.labels, len(data)) == ((), None, 3)


@pytest.mark.parametrize("top", ["pets", "home/pets"])
def test_a_folder_around_the_classes_is_no_level(tmp_path: Path, top: str) -> None:
    files = {f"{top}/{name}/{i}.png": encoded(picture(i)) for i, name in enumerate("ab")}
    data = load(write_folder(tmp_path, files))
    assert data.classes == ("a", "b") and data.labels is not None
    assert data.labels.tolist() == [0, 1]


def test_an_image_beside_the_sub_folders_makes_it_all_one_set(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path, {**PICTURES, "loose.png": encoded(picture(9))}))
    assert (data.classes, data.labels, len(data)) == ((), None, 6)


def test_other_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    clutter = {
        "readme.txt": b"words",
        ".hidden.png": encoded(picture(7)),
        "2/._b.jpg": encoded(picture(7)),
        ".thumbnails/x.png": encoded(picture(7)),
        "2/.cache/x.png": encoded(picture(7)),
        "__MACOSX/2/b.jpg": encoded(picture(7)),
        "movie.mp4": b"",
    }
    plain = load(write_folder(tmp_path / "a", PICTURES))
    zipped = load(write_zip(tmp_path / "a.zip", {**PICTURES, **clutter}))
    assert zipped.digest == plain.digest and not zipped.skipped
    assert load(write_folder(tmp_path / "b", {**PICTURES, **clutter})).digest == plain.digest


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    assert len(load(write_folder(tmp_path, {"A.PNG": encoded(picture(0))}))) == 1


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_a_folder_is_the_same_data(tmp_path: Path, compression: int) -> None:
    folder = load(write_folder(tmp_path / "pets", PICTURES))
    shuffled = {name: PICTURES[name] for name in reversed(NAMES)}
    zipped = load(write_zip(tmp_path / "pets.zip", shuffled, compression=compression))
    assert zipped.name == folder.name == "pets"
    assert zipped.classes == folder.classes and zipped.digest == folder.digest
    assert np.array_equal(zipped.samples, folder.samples)
    assert zipped.labels is not None and folder.labels is not None
    assert zipped.labels.tolist() == folder.labels.tolist()


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    files = {f"{i % 3}/{i}.png": encoded(picture(i, size=9 + i % 5)) for i in range(60)}
    files["1/bad.png"] = b"not a picture"
    for path in (write_folder(tmp_path / "a", files), write_zip(tmp_path / "a.zip", files)):
        one, eight = load(path, workers=1), load(path, workers=8)
        assert len(one) == 60
        assert np.array_equal(one.samples, eight.samples)
        assert one.digest == eight.digest and one.skipped == eight.skipped


def test_warnings_of_decoders_neither_lose_an_image_nor_leave_a_filter_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_folder(tmp_path, {f"{i}.png": encoded(picture(i)) for i in range(200)})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # every picture of 64 pixels warns
    before = list(warnings.filters)
    assert len(load(path, workers=8)) == 200  # warnings are errors in these tests
    assert warnings.filters == before


def test_any_change_of_pixels_labels_or_classes_changes_the_digest(tmp_path: Path) -> None:
    base = {f"{c}/{i}.png": encoded(picture(i)) for i, c in enumerate("aab")}
    changed = encoded(picture(0) ^ np.eye(8, dtype=np.uint8)[..., None])
    variants: list[Mapping[str, bytes]] = [
        base,
        {**base, "a/0.png": changed},
        {"a/0.png": base["a/0.png"], "b/1.png": base["a/1.png"], "b/2.png": base["b/2.png"]},
        {name.replace("b/", "c/"): data for name, data in base.items()},
        {**base, "a/3.png": encoded(picture(3))},
        {name.replace("/", ""): data for name, data in base.items()},
    ]
    digests = [
        load(write_folder(tmp_path / str(i), files)).digest for i, files in enumerate(variants)
    ]
    assert len(set(digests)) == len(variants)
    assert load(write_folder(tmp_path / "again", base)).digest == digests[0]


def test_all_grey_images_give_one_channel_and_any_other_three(tmp_path: Path) -> None:
    grey = {f"{i}.png": encoded(picture(i, channels=1)) for i in range(3)}
    data = load(write_folder(tmp_path / "grey", grey))
    assert data.samples.shape == (3, 1, 8, 8)
    assert np.array_equal(data.samples[0, 0], picture(0, channels=1))
    mixed = write_folder(tmp_path / "mixed", {**grey, "z.png": encoded(picture(0))})
    assert load(mixed).samples.shape == (4, 3, 8, 8)
    assert load(mixed, channels=1).samples.shape == (4, 1, 8, 8)
    assert load(mixed, channels=4).samples.shape == (4, 4, 8, 8)


def test_an_unreadable_file_does_not_decide_the_channels(tmp_path: Path) -> None:
    grey = {f"{i}.png": encoded(picture(i, channels=1)) for i in range(2)}
    files = {**grey, "b.png": b"", "c.png": b"GIF89a"}
    assert load(write_folder(tmp_path, files)).samples.shape == (2, 1, 8, 8)


def test_images_that_cannot_be_used_are_counted_by_reason_and_the_first_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = encoded(picture(0, size=64), "JPEG")
    files = {
        "a/good.png": encoded(picture(1)),
        **{f"a/words{i}.png": b"These are words." for i in range(4)},
        "b/cut.jpg": whole[: len(whole) // 2],
        **{f"b/good{i}.png": encoded(picture(2)) for i in range(4)},
    }
    with caplog.at_level(logging.DEBUG, "gan.trainer"):
        data = load(write_folder(tmp_path, files))
    assert data.skipped == {"not an image": 4, "damaged": 1}
    assert data.labels is not None and data.labels.tolist() == [0, 1, 1, 1, 1]
    assert np.array_equal(data.samples[1], picture(2).transpose(2, 0, 1))
    loud = [r.getMessage() for r in caplog.records if r.levelno > logging.INFO]
    words = "a/words0.png, a/words1.png, a/words2.png, ..."
    assert loud == [f"Skipped 5 of 10 images: 4 x not an image ({words}), 1 x damaged (b/cut.jpg)"]
    quiet = sorted(r.getMessage() for r in caplog.records if r.levelno == logging.DEBUG)
    assert quiet == [
        *(f"Skipped a/words{i}.png: not an image" for i in range(4)),
        "Skipped b/cut.jpg: damaged",
    ]


def test_a_file_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {"good.png": encoded(picture(0))})
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    data = load(path)
    assert len(data) == 1 and data.skipped == {"a link to nothing": 1}


def test_a_file_that_is_too_large_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 1 << 20)
    path = write_folder(tmp_path, {"good.png": encoded(picture(0)), "huge.png": bytes(1 << 21)})
    assert load(path).skipped == {"more than 1 MiB": 1}


def test_no_usable_image_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "pets", {"a.png": b"", "b.png": b"", "c.jpg": b"x"})
    with pytest.raises(
        DatasetError,
        match=r"no usable image\. 2 x empty file \(a\.png, b\.png\), 1 x not an image \(c\.jpg\)",
    ):
        load(path)


def test_no_image_at_all_is_an_error_with_the_suffixes(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no images.*\.png"):
        load(write_folder(tmp_path / "a", {"a.txt": b"words"}))
    with pytest.raises(DatasetError, match="holds no images"):
        load(write_zip(tmp_path / "a.zip", {"a.txt": b"words"}))


@pytest.mark.parametrize("name", ["missing", "words.txt", "words.zip"])
def test_a_path_that_is_no_data_is_an_error(tmp_path: Path, name: str) -> None:
    if name != "missing":
        (tmp_path / name).write_bytes(b"words")
    with pytest.raises(DatasetError, match=f"{name} cannot be used as data"):
        load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("", "'' cannot be used as data. The path is empty"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "embedded null"),
        ("/dev/null", "/dev/null cannot be used as data. not a file"),
    ],
)
def test_a_path_that_is_none_is_an_error(path: str, seen: str) -> None:
    with pytest.raises(DatasetError) as caught:
        classes_of(path)
    assert seen in str(caught.value) and len(str(caught.value)) < 600


def test_an_image_that_is_not_square_stops_with_its_name_and_the_choices(tmp_path: Path) -> None:
    wide = np.zeros((6, 10, 3), np.uint8)
    path = write_folder(tmp_path, {"a/1.png": encoded(picture(0)), "b/wide.png": encoded(wide)})
    with pytest.raises(DatasetError) as caught:
        load(path)
    message = str(caught.value)
    assert all(part in message for part in ("b/wide.png", "10 x 6", "--fit crop or pad or stretch"))
    for fit in ("crop", "pad", "stretch"):
        assert len(load(path, fit=fit)) == 2


def test_pixels_beyond_the_memory_limit_live_in_a_file(tmp_path: Path) -> None:
    files = {f"{i}.png": encoded(picture(i)) for i in range(20)} | {"05.png": b""}
    path = write_folder(tmp_path / "a", files)
    memory = load(path)
    disk = load(path, memory_limit=21 * 3 * 8 * 8 - 1, scratch=tmp_path / "run" / "data")
    assert isinstance(disk.samples, np.memmap) and not isinstance(memory.samples, np.memmap)
    assert [file.stat().st_size for file in (tmp_path / "run" / "data").iterdir()] == [21 * 192]
    assert np.array_equal(disk.samples, memory.samples) and disk.digest == memory.digest
    rows = torch.tensor([3, 1])
    assert torch.equal(disk.samples_of(rows, CPU), memory.samples_of(rows, CPU))
    assert not isinstance(load(path, memory_limit=21 * 192).samples, np.memmap)


def test_a_second_process_in_one_folder_does_not_overwrite_the_pixels_of_the_first(
    tmp_path: Path,
) -> None:
    paths = [
        write_folder(tmp_path / name, {f"{i}.png": encoded(picture(i + seed)) for i in range(9)})
        for seed, name in ((0, "a"), (50, "b"))
    ]
    first = load(paths[0], memory_limit=10, scratch=tmp_path / "run")
    before = np.array(first.samples)
    load(paths[1], memory_limit=10, scratch=tmp_path / "run")
    assert np.array_equal(first.samples, before)


def test_pixels_beyond_the_memory_limit_without_a_folder_are_an_error(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {"a.png": encoded(picture(0))})
    with pytest.raises(DatasetError, match="192 bytes of pixels, limit 100"):
        load(path, memory_limit=100)


# The digits.


def test_the_digits_are_split_once_and_for_all() -> None:
    with np.load(DIGITS) as archive:
        everything, labels = archive["images"], archive["labels"]
    for split, rows in (("train", slice(0, 7000)), ("held-out", slice(7000, 10_000))):
        pixels, ours = digits(split)  # type: ignore[arg-type]
        assert np.array_equal(pixels, everything[rows]) and np.array_equal(ours, labels[rows])
        assert ours.dtype == np.int64
    train = {image.tobytes() for image in digits("train")[0]}
    assert not train & {image.tobytes() for image in digits("held-out")[0]}


def test_the_digits_need_no_path() -> None:
    data = load_dataset(None)
    assert data.name == source_name(None) == "digits"
    assert data.classes == classes_of(None) == tuple("0123456789")
    assert data.samples.shape == (7000, 1, 28, 28)
    assert data.labels is not None and np.bincount(data.labels).min() > 500
    assert data.digest == load_dataset(None, resolution=28, channels=1).digest


def test_the_digits_come_in_other_sizes_and_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = digits("train")
    monkeypatch.setattr(builtin, "digits", lambda split: (pixels[:30], labels[:30]))
    small = load_dataset(None, resolution=14)
    assert small.samples.shape == (30, 1, 14, 14)
    halves = pixels[:30].reshape(30, 14, 2, 14, 2).mean((2, 4))
    assert np.abs(small.samples[:, 0] - halves).mean() < 8
    colour = load_dataset(None, resolution=28, channels=3)
    assert np.array_equal(colour.samples, np.repeat(pixels[:30, None], 3, 1))
    assert colour.labels is not None and np.array_equal(colour.labels, labels[:30])


def test_names_come_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_name(str(tmp_path / "pets.zip")) == "pets"
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    assert source_name(".") == "photos"


def test_images_have_64_pixels_a_side_unless_others_are_asked_for(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {"a.png": encoded(picture(0))})
    assert load_dataset(path).samples.shape == (1, 3, 64, 64)
    assert load_dataset(path, resolution=8).samples.shape == (1, 3, 8, 8)


def test_classes_are_known_before_an_image_is_decoded(tmp_path: Path) -> None:
    junk = dict.fromkeys(PICTURES, b"not an image")
    assert classes_of(write_folder(tmp_path / "a", junk)) == ("1", "2", "10")
    assert classes_of(write_zip(tmp_path / "a.zip", junk)) == ("1", "2", "10")
    assert classes_of(write_folder(tmp_path / "b", {"a.png": b""})) == ()
    with pytest.raises(DatasetError, match="no such file"):
        classes_of(str(tmp_path / "none"))


def test_images_reach_the_device_in_minus_one_to_one() -> None:
    pixels = np.array([0, 51, 127, 128, 255], np.uint8).reshape(5, 1, 1, 1)
    data = Dataset("x", pixels, np.arange(5), ("a", "b"))
    values = data.samples_of(torch.tensor([4, 0, 1, 3, 2]), CPU)
    assert values.shape == (5, 1, 1, 1) and values.dtype == torch.float32
    expected = [1.0, -1.0, -0.6, 128 / 127.5 - 1, 127 / 127.5 - 1]
    assert values.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert data.labels_of(torch.tensor([4, 0]), CPU).tolist() == [4, 0]
    assert pixels.flatten().tolist() == [0, 51, 127, 128, 255]


def test_linked_folders_are_followed_once_and_a_loop_ends(tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": encoded(picture(i)) for i, name in enumerate(("cat", "dog"))}
    there = Path(write_folder(tmp_path / "there", files))
    here = tmp_path / "here"
    here.mkdir()
    for name in ("cat", "dog"):
        (here / name).symlink_to(there / name)
    (there / "dog" / "back").symlink_to(here)
    data = load(str(here))
    assert len(data) == 2 and data.classes == ("cat", "dog")
