"""Partners by name, as halves of a file, or as sets of their own: what belongs together stays together, whatever the fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gan.runtime.errors import DatasetError, InputError
from gan.trainer.data import load_dataset
from gan.trainer.dataset import Dataset
from gan.trainer.decode import Fit
from gan.trainer.parts import DataInfo

from .conftest import encoded, picture, write_folder, write_zip

Array = NDArray[np.uint8]


def load(data: str | Path, source: str | Path | None = None, **options: Any) -> Dataset:
    options = {"resolution": 8, "arrangement": "pairs", **options}
    return load_dataset(str(data), source=None if source is None else str(source), **options)


def first(pixels: Array) -> Array:
    """[H, W, C] as [C, H, W]."""
    return pixels.transpose(2, 0, 1)


def files(names: Mapping[str, int], size: int = 8, channels: int = 3) -> dict[str, bytes]:
    """Encoded noise by name; the format by the suffix, without loss."""
    formats = {
        "jpg": "PNG",
        "bmp": "BMP",
        "png": "PNG",
    }  # a wrong suffix is nothing to stumble over
    return {
        name: encoded(picture(i, size, channels), formats[name.rpartition(".")[2]])
        for name, i in names.items()
    }


def two(tmp_path: Path, data: Mapping[str, bytes], source: Mapping[str, bytes]) -> tuple[str, str]:
    return write_folder(tmp_path / "photos", data), write_folder(tmp_path / "edges", source)


# By name.


def test_pairs_are_matched_by_name_whatever_the_suffix_the_folder_and_the_order(
    tmp_path: Path,
) -> None:
    names = {"2.jpg": 2, "10.png": 10, "deep/er/1.bmp": 1, "deep/2.png": 3}
    others = {"deep/er/1.png": 101, "2.png": 102, "deep/2.bmp": 103, "10.jpg": 110}
    data = load(*two(tmp_path, files(names), files(others)))
    assert data.partners is not None and len(data) == len(data.partners) == 4
    assert data.name == "photos" and data.arrangement == "pairs" and not data.skipped
    assert data.info == DataInfo((3, 8, 8), (), "image", "pairs", (3, 8, 8))
    found = {
        (sample.tobytes(), partner.tobytes())
        for sample, partner in zip(data.samples, data.partners, strict=True)
    }
    assert found == {
        (first(picture(i)).tobytes(), first(picture(i + 100)).tobytes()) for i in (1, 2, 3, 10)
    }


def test_names_match_without_regard_to_case_and_to_the_two_ways_to_write_an_accent(
    tmp_path: Path,
) -> None:
    paths = two(
        tmp_path,
        files({"IMG_1.png": 1, "\u00e9.png": 2}),
        files({"img_1.png": 3, "e\u0301.png": 4}),
    )
    data = load(*paths)
    assert data.partners is not None
    assert np.array_equal(data.partners[0], first(picture(3)))
    assert np.array_equal(data.partners[1], first(picture(4)))


@pytest.mark.parametrize("top", ["", "all/", "my/pictures/"])
def test_either_side_may_be_a_zip_with_or_without_a_folder_around(tmp_path: Path, top: str) -> None:
    names, others = {"a/1.png": 1, "b/1.png": 2}, {"a/1.png": 3, "b/1.png": 4}
    photos, edges = two(tmp_path, files(names), files(others))
    plain = load(photos, edges)
    zipped = write_zip(
        tmp_path / "edges.zip", {f"{top}{name}": d for name, d in files(others).items()}
    )
    assert load(photos, zipped).digest == plain.digest
    both = write_zip(tmp_path / "photos.zip", files(names))
    assert load(both, zipped).digest == plain.digest


def test_the_classes_of_samples_are_the_labels_of_pairs(tmp_path: Path) -> None:
    names = {"dog/1.png": 1, "cat/1.png": 2, "cat/2.png": 3}
    paths = two(tmp_path, files(names), files({name: d + 4 for name, d in names.items()}))
    data = load(*paths)
    assert data.classes == ("cat", "dog") and data.info.classes == data.classes
    assert sets(data) == (drawn(2, 3, 1), drawn(6, 7, 5))
    assert data.labels is not None and data.labels.tolist() == [0, 0, 1]
    Path(paths[0], "cat", "1.png").write_bytes(b"no image")  # the rest keep theirs
    left = load(*paths)
    assert left.labels is not None and left.labels.tolist() == [0, 1]
    swapped = load(*paths, swap=True)
    assert swapped.labels is not None and sets(swapped) == (drawn(7, 5), drawn(3, 1))


def test_swapping_exchanges_samples_and_partners(tmp_path: Path) -> None:
    photos, edges = two(tmp_path, files({"1.png": 1, "2.png": 2}), files({"1.png": 3, "2.png": 4}))
    straight, swapped = load(photos, edges), load(photos, edges, swap=True)
    assert straight.partners is not None and swapped.partners is not None
    assert np.array_equal(swapped.samples, straight.partners)
    assert np.array_equal(swapped.partners, straight.samples)
    assert swapped.digest == load(edges, photos).digest != straight.digest
    assert swapped.name == "photos"


@pytest.mark.parametrize("side", ["photos", "edges"])
def test_a_pair_without_its_other_image_is_named(tmp_path: Path, side: str) -> None:
    names = {"a/1.png": 1, "a/2.png": 2, "b/3.png": 3}
    full, less = files(names), files({"a/1.png": 1, "b/4.png": 1})
    paths = two(tmp_path, full, less) if side == "photos" else two(tmp_path, less, full)
    with pytest.raises(DatasetError) as caught:
        load(*paths)
    alone = "a/2.png" if side == "photos" else "b/4.png"  # samples are told of first
    assert caught.value.failed.endswith(f"{tmp_path}/photos/{alone} and 2 more")
    counts = (3, 2) if side == "photos" else (2, 3)
    assert (
        caught.value.seen
        == f"{counts[0]} images in {tmp_path}/photos, {counts[1]} in {tmp_path}/edges"
    )
    assert "same name" in caught.value.repair


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    "names", [("1.png", "1.jpg"), ("a/1.PNG", "A/1.png"), ("\u00e9.png", "e\u0301.png")]
)
def test_two_files_of_one_name_on_a_side_are_both_named(
    tmp_path: Path, names: tuple[str, str], side: int
) -> None:
    double = {name: encoded(picture(0)) for name in (*names, "2.png")}
    single = {name: encoded(picture(0)) for name in (names[0], "2.png")}
    paths = two(tmp_path, *((double, single) if side == 0 else (single, double)))
    with pytest.raises(DatasetError, match="have one name") as caught:
        load(*paths)
    assert all(name in caught.value.seen for name in names)
    assert ("photos", "edges")[side] in caught.value.failed


def test_two_images_of_different_sizes_are_no_pair(tmp_path: Path) -> None:
    data = files({"1.png": 1, "2.png": 2, "3.png": 3})
    source = files({"1.png": 1}) | files({"2.png": 2, "3.png": 3}, size=9)
    with pytest.raises(DatasetError) as caught:
        load(*two(tmp_path, data, source), fit="crop")
    assert caught.value.failed == "The two images of a pair differ in size"
    assert caught.value.seen == f"{tmp_path}/photos/2.png and 1 more: 8 x 8 and 9 x 9 pixels"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_sizes_are_compared_as_the_images_stand_upright(tmp_path: Path, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    tall = np.random.default_rng(0).integers(0, 256, (12, 6, 3), np.uint8)
    lying = np.ascontiguousarray(np.rot90(tall))
    turned = {"1.png": encoded(lying, format, exif=exif)}
    data = load(*two(tmp_path / "a", {"1.png": encoded(tall)}, turned), fit="stretch")
    assert data.partners is not None
    if format in ("PNG", "TIFF"):
        assert np.array_equal(data.samples, data.partners)
    with pytest.raises(DatasetError, match="6 x 12 and 12 x 6"):
        plain = {"1.png": encoded(lying, format)}
        load(*two(tmp_path / "b", {"1.png": encoded(tall)}, plain), fit="stretch")


def test_of_a_pair_with_one_unreadable_image_both_are_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {f"{i}.png": i for i in range(6)}
    data, source = files(names), files(names)
    data["1.png"], source["3.png"] = b"words", b""
    data["4.png"], source["4.png"] = encoded(picture(0, 64)), encoded(picture(0, 64))[:-2000]
    with caplog.at_level(logging.WARNING, "gan.trainer"):
        loaded = load(*two(tmp_path, data, source), fit="crop")
    assert loaded.skipped == {"not an image": 1, "empty file": 1, "damaged": 1}
    assert loaded.partners is not None
    wanted = np.stack([first(picture(i)) for i in (0, 2, 5)])
    assert np.array_equal(loaded.samples, wanted) and np.array_equal(loaded.partners, wanted)
    assert "Skipped 3 of 6 pairs" in caplog.messages[-1]


@pytest.mark.parametrize("fit", ["crop", "stretch", "tiles"])
@pytest.mark.parametrize("shape", [(11, 17), (20, 9)])
def test_both_images_of_a_pair_are_cut_and_resized_alike(
    tmp_path: Path, fit: Fit, shape: tuple[int, int]
) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (*shape, 3), np.uint8) for i in range(3)]
    paths = two(
        tmp_path,
        {f"{i}.png": encoded(image) for i, image in enumerate(images)},
        {f"{i}.png": encoded(255 - image) for i, image in enumerate(images)},
    )
    data = load(*paths, fit=fit)
    assert data.partners is not None and data.samples.std() > 20
    assert np.abs(data.samples.astype(int) + data.partners - 255).max() <= 1


def test_the_bars_of_padded_pairs_are_alike(tmp_path: Path) -> None:
    white, grey = (np.full((6, 12, 3), value, np.uint8) for value in (255, 100))
    data = load(*two(tmp_path, {"1.png": encoded(white)}, {"1.png": encoded(grey)}), fit="pad")
    assert data.partners is not None
    assert np.array_equal(data.samples > 50, data.partners > 50) and data.samples.min() == 0


def test_a_pair_that_is_not_square_needs_a_choice(tmp_path: Path) -> None:
    wide = {"1.png": encoded(np.zeros((6, 12, 3), np.uint8))}
    with pytest.raises(DatasetError, match=r"1\.png is not square\. 12 x 6 pixels.*--fit crop"):
        load(*two(tmp_path, wide, wide))


def test_each_side_of_pairs_has_the_channels_of_its_own_files(tmp_path: Path) -> None:
    paths = two(tmp_path, files({"1.png": 1}), files({"1.png": 2}, channels=1))
    assert load(*paths).info.partner == (1, 8, 8) and load(*paths).info.shape == (3, 8, 8)
    assert load(*paths, swap=True).info.partner == (3, 8, 8)
    four = load(*paths, channels=4)
    assert (four.info.shape, four.info.partner) == ((4, 8, 8), (1, 8, 8))
    asked = load(*paths, partner_channels=3)
    assert asked.info.partner == (3, 8, 8)


def test_the_number_of_workers_changes_no_pair(tmp_path: Path) -> None:
    names = {f"{i}.png": i for i in range(60)}
    data, source = files(names), files(names)
    data["7.png"] = source["30.png"] = b"words"
    paths = two(tmp_path, data, source)
    one, eight = load(*paths, workers=1), load(*paths, workers=8)
    assert len(one) == 58 and one.digest == eight.digest and one.skipped == eight.skipped
    assert one.partners is not None and np.array_equal(one.samples, one.partners)


def test_a_changed_partner_changes_the_digest(tmp_path: Path) -> None:
    names = {"1.png": 1, "2.png": 2}
    photos, edges = two(tmp_path, files(names), files(names))
    before = load(photos, edges).digest
    (tmp_path / "edges" / "2.png").write_bytes(encoded(picture(3)))
    assert load(photos, edges).digest != before


# Sources that are none.


@pytest.mark.parametrize("arrangement", ["pairs", "unpaired"])
def test_a_source_must_lie_apart_from_the_data(tmp_path: Path, arrangement: str) -> None:
    data = write_folder(tmp_path / "set", files({"photos/1.png": 1, "edges/1.png": 2}))
    for source in (data, f"{data}/photos/..", f"{data}/edges", tmp_path):
        with pytest.raises(DatasetError, match=r"not apart.*neither within the other"):
            load(data, source, arrangement=arrangement)
    zipped = write_zip(tmp_path / "set" / "edges.zip", files({"photos/1.png": 1, "edges/1.png": 2}))
    assert len(load(data, zipped)) == 2  # a zip in a folder of images is none of them


def test_a_source_that_is_missing_empty_or_no_source_is_an_error(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", files({"1.png": 1}))
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.zip").write_bytes(b"words")
    with pytest.raises(
        DatasetError, match=r"nowhere cannot be used as a source\. There is no such"
    ):
        load(data, tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="neither a folder nor a zip"):
        load(data, tmp_path / "words.zip")
    with pytest.raises(DatasetError, match="empty holds no images"):
        load(data, tmp_path / "empty")
    with pytest.raises(DatasetError, match="empty holds no images"):
        load(tmp_path / "empty", data)


# Side by side.


def side_by_side(tmp_path: Path, pairs: Mapping[str, tuple[Array, Array]]) -> str:
    joined = {name: encoded(np.concatenate(pair, 1)) for name, pair in pairs.items()}
    return write_folder(tmp_path / "pairs", joined)


def test_the_left_half_is_the_partner_and_the_right_half_the_sample(tmp_path: Path) -> None:
    path = side_by_side(tmp_path, {f"{i}.png": (picture(i), picture(i + 10)) for i in range(3)})
    data, swapped = load(path), load(path, swap=True)
    for number in range(3):
        left, right = first(picture(number)), first(picture(number + 10))
        assert data.partners is not None and swapped.partners is not None
        assert np.array_equal(data.samples[number], right)
        assert np.array_equal(data.partners[number], left)
        assert np.array_equal(swapped.samples[number], left)
        assert np.array_equal(swapped.partners[number], right)
    assert data.info == DataInfo((3, 8, 8), (), "image", "pairs", (3, 8, 8))


def test_side_by_side_is_the_same_data_as_two_folders(tmp_path: Path) -> None:
    pairs = {f"{i}.png": (picture(i), picture(i + 10)) for i in range(3)}
    folders = two(
        tmp_path,
        {name: encoded(right) for name, (_, right) in pairs.items()},
        {name: encoded(left) for name, (left, _) in pairs.items()},
    )
    assert load(side_by_side(tmp_path, pairs)).digest == load(*folders).digest


def test_an_odd_width_is_no_pair_of_halves(tmp_path: Path) -> None:
    wide = {f"{i}.png": (picture(i)[:, :7], picture(i)) for i in range(2)}
    path = side_by_side(
        tmp_path, {"0.png": (picture(0), picture(1))} | {f"z{n}": p for n, p in wide.items()}
    )
    with pytest.raises(DatasetError) as caught:
        load(path)
    assert "odd width" in caught.value.failed and "--source" in caught.value.repair
    assert caught.value.seen.startswith("z0.png and 1 more: 8 x 8 and 7 x 8")


def test_halves_that_are_not_square_need_a_choice(tmp_path: Path) -> None:
    path = side_by_side(tmp_path, {"1.png": (picture(1)[:, :4], picture(2)[:, :4])})
    with pytest.raises(DatasetError, match="halves of 4 x 8 pixels"):
        load(path)
    assert load(path, fit="crop", resolution=4).samples.shape == (1, 3, 4, 4)


def test_halves_have_the_channels_of_their_file_unless_others_are_wanted(tmp_path: Path) -> None:
    grey = np.concatenate([picture(1, channels=1), picture(2, channels=1)], 1)
    path = write_folder(tmp_path, {"1.png": encoded(grey)})
    assert load(path).info.shape == load(path).info.partner == (1, 8, 8)
    data = load(path, channels=3)
    assert (data.info.shape, data.info.partner) == ((3, 8, 8), (1, 8, 8))
    assert data.partners is not None
    assert np.array_equal(data.samples[0], np.repeat(picture(2, channels=1)[None], 3, 0))
    assert np.array_equal(data.partners[0, 0], picture(1, channels=1))
    assert load(path, channels=3, partner_channels=3).info.partner == (3, 8, 8)


def test_halves_are_those_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.concatenate([picture(1), picture(2)], 1)
    path = write_folder(
        tmp_path, {"1.png": encoded(np.ascontiguousarray(np.rot90(upright)), exif=exif)}
    )
    data = load(path)
    assert data.partners is not None
    assert np.array_equal(data.partners[0], first(picture(1)))
    assert np.array_equal(data.samples[0], first(picture(2)))


def test_an_unreadable_file_of_two_halves_is_one_pair_less(tmp_path: Path) -> None:
    path = side_by_side(tmp_path, {"1.png": (picture(1), picture(2))})
    (tmp_path / "pairs" / "2.png").write_bytes(b"words")
    data = load(path)
    assert len(data) == 1 and data.skipped == {"not an image": 1}


# Two sets.


def sets(data: Dataset) -> tuple[list[bytes], list[bytes]]:
    assert data.partners is not None
    return [s.tobytes() for s in data.samples], [p.tobytes() for p in data.partners]


def drawn(*numbers: int) -> list[bytes]:
    return [first(picture(number)).tobytes() for number in numbers]


DOMAINS = {
    "trainA/1.png": 1,
    "trainA/2.png": 2,
    "trainB/1.png": 3,
    "trainB/x/7.png": 4,
    "trainB/9.png": 5,
}
TESTED = {"testA/1.png": 8, "testB/1.png": 9}


@pytest.mark.parametrize("top", ["", "horse2zebra/"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("more", [{}, TESTED])
def test_the_second_of_two_sub_folders_is_made_from_the_first(
    tmp_path: Path, more: dict[str, int], zipped: bool, top: str
) -> None:
    content = {top + name: d for name, d in files(DOMAINS | more).items()}
    write = write_zip if zipped else write_folder
    path = write(tmp_path / ("a.zip" if zipped else "a"), content)
    data = load(path, arrangement="unpaired")
    samples, partners = sets(data)
    assert partners == drawn(1, 2) and samples == drawn(3, 5, 4)
    assert data.labels is None and data.classes == ()
    assert data.info == DataInfo((3, 8, 8), (), "image", "unpaired", (3, 8, 8))
    swapped = load(path, arrangement="unpaired", swap=True)
    assert sets(swapped) == (partners, samples)


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("2", "10"), ("horses", "zebras")])
def test_two_sub_folders_may_have_any_name(tmp_path: Path, one: str, other: str) -> None:
    path = write_folder(tmp_path, files({f"{one}/1.png": 1, f"{other}/1.png": 2}))
    assert sets(load(path, arrangement="unpaired")) == (drawn(2), drawn(1))


def test_a_source_is_the_set_that_samples_are_made_from(tmp_path: Path) -> None:
    paths = two(
        tmp_path, files({"a/1.png": 1, "b/1.png": 2}), files({"x.png": 3, "y.png": 4, "z.png": 5})
    )
    data = load(*paths, arrangement="unpaired")
    assert sets(data) == (drawn(1, 2), drawn(3, 4, 5)) and data.labels is None
    assert sets(load(*paths, arrangement="unpaired", swap=True)) == (drawn(3, 4, 5), drawn(1, 2))


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        (("a/1.png", "b/1.png", "c/1.png"), "3 first-level folders: a, b, c"),
        (tuple(f"{i}/1.png" for i in range(9)), "9 first-level folders: 0, 1, 2, 3, ..."),
        (("trainA/1.png", "trainB/1.png", "valA/1.png", "testA/1.png"), "3 first-level folders"),
        (("testA/1.png", "testB/1.png", "trainA/1.png"), "3 first-level folders"),
        (("a/1.png", "b/1.png", "2.png"), "not in two or more first-level folders"),
        (("a/1.png",), "not in two or more"),
        (("1.png",), "not in two or more"),
    ],
)  # fmt: skip
def test_other_than_two_sub_folders_are_no_two_sets(
    tmp_path: Path, names: tuple[str, ...], seen: str
) -> None:
    path = write_folder(tmp_path, files(dict.fromkeys(names, 1)))
    with pytest.raises(DatasetError, match="does not hold two sets") as caught:
        load(path, arrangement="unpaired")
    assert seen in caught.value.seen
    assert "--source" in caught.value.repair and "trainA" in caught.value.repair


def test_two_sets_have_the_larger_number_of_channels_unless_partners_have_their_own(
    tmp_path: Path,
) -> None:
    def shapes(*paths: str, **options: Any) -> tuple[Any, Any]:
        info = load(*paths, arrangement="unpaired", **options).info
        return info.shape[0], (info.partner or (0,))[0]

    grey, colour = two(tmp_path, files({"1.png": 1}, channels=1), files({"1.png": 2}))
    assert shapes(grey, colour) == shapes(colour, grey) == (3, 3)
    assert shapes(colour, grey, channels=1) == (1, 1)
    assert shapes(colour, grey, channels=4) == (4, 4)
    assert shapes(colour, grey, partner_channels=1) == (3, 1)
    assert shapes(grey, colour, partner_channels=1) == (1, 1)
    assert shapes(grey, colour, channels=4, partner_channels=1) == (4, 1)


def test_what_is_skipped_of_either_set_is_counted_and_an_empty_one_is_an_error(
    tmp_path: Path,
) -> None:
    data = files({"1.png": 1, "2.png": 2}) | {"3.png": b""}
    source = files({"1.png": 1}) | {"2.png": b"words"}
    loaded = load(*two(tmp_path / "a", data, source), arrangement="unpaired")
    assert loaded.skipped == {"empty file": 1, "not an image": 1} and loaded.partners is not None
    assert (len(loaded), len(loaded.partners)) == (2, 1)
    with pytest.raises(DatasetError, match="edges holds no usable image"):
        load(*two(tmp_path / "b", data, {"1.png": b"words"}), arrangement="unpaired")


def test_sets_may_have_sizes_of_their_own(tmp_path: Path) -> None:
    paths = two(tmp_path, files({"1.png": 1}, size=24), files({"1.png": 2}, size=5))
    assert load(*paths, arrangement="unpaired").info.partner == (3, 8, 8)
    tiles = load(
        *two(tmp_path / "t", files({"1.png": 1}, size=24), files({"1.png": 2})),
        fit="tiles",
        arrangement="unpaired",
    )
    assert tiles.partners is not None and (len(tiles), len(tiles.partners)) == (9, 1)


def test_there_is_nothing_to_swap_in_single_images(tmp_path: Path) -> None:
    path = write_folder(tmp_path, files({"1.png": 1}))
    with pytest.raises(InputError, match="nothing to swap"):
        load(path, arrangement="single", swap=True)
