"""Zips made to hurt are refused by name and never read on."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import zipfile
from pathlib import Path

import pytest

from gan.runtime.errors import DatasetError
from gan.trainer import sources
from gan.trainer.decode import ImageRefused

from .conftest import encoded, picture, write_zip
from .test_data import load

TORTURE = os.environ.get("GAN_TORTURE") == "1"

# Zips made to hurt.


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:/evil.png", "\\\\host\\evil.png"],
)
def test_a_zip_whose_names_leave_it_is_refused(tmp_path: Path, name: str) -> None:
    path = write_zip(
        tmp_path / "a.zip", {"good.png": encoded(picture(0)), name: encoded(picture(1))}
    )
    with pytest.raises(DatasetError, match="absolute or parent paths"):
        load(path)


def test_a_zip_with_two_members_of_one_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", encoded(picture(0)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", encoded(picture(1)))
    with pytest.raises(DatasetError, match="members of one name"):
        load(str(path))


def test_a_zip_with_encrypted_members_is_refused(tmp_path: Path) -> None:
    path = Path(write_zip(tmp_path / "a.zip", {"a.png": encoded(picture(0))}))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="encrypted members"):
        load(str(path))


@pytest.mark.parametrize(("size", "refused"), [(150_000, False), (400_000, True)])
def test_a_zip_that_swells_beyond_two_hundred_times_is_refused(
    tmp_path: Path, size: int, refused: bool
) -> None:
    noise = random.Random(0).randbytes(1000)
    member = noise + bytes(size)  # deflated to about 1,150 and 1,400 bytes
    files = {"good.png": encoded(picture(0)), "zeros.png": member}
    path = write_zip(tmp_path / "a.zip", files, compression=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("zeros.png")
        assert (info.file_size > 200 * info.compress_size) == refused
    if refused:
        with pytest.raises(DatasetError, match="compression beyond 200:1"):
            load(path)
    else:
        assert load(path).skipped == {"not an image": 1}


def test_a_zip_with_a_member_or_a_number_of_members_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{i}.png": encoded(picture(i)) for i in range(3)})
    monkeypatch.setattr(sources, "MAX_MEMBERS", 2)
    with pytest.raises(DatasetError, match="too many members"):
        load(path)
    monkeypatch.setattr(sources, "MAX_MEMBERS", 3)
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(DatasetError, match="a member beyond the size limit"):
        load(path)


def test_a_member_longer_than_the_archive_says_is_not_read_on(tmp_path: Path) -> None:
    path = Path(
        write_zip(tmp_path / "a.zip", {"a.png": encoded(picture(0)), "b.png": encoded(picture(1))})
    )
    data = bytearray(path.read_bytes())
    claimed = struct.pack("<I", 10)  # of the first member, in both of its headers
    data[22:26] = claimed
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = claimed
    path.write_bytes(data)
    assert len(load(str(path))) == 1


def test_damaged_zips_are_refused_or_read_and_never_a_crash(tmp_path: Path) -> None:
    files = {f"{i % 2}/{i}.png": encoded(picture(i)) for i in range(6)}
    whole = Path(
        write_zip(tmp_path / "a.zip", files, compression=zipfile.ZIP_DEFLATED)
    ).read_bytes()
    dice, outcomes = random.Random(5), set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        (tmp_path / "b.zip").write_bytes(data)
        try:
            outcomes |= set(load(str(tmp_path / "b.zip"), fit="crop", workers=1).skipped)
        except DatasetError as error:
            outcomes.add(error.seen)
    assert len(outcomes) > 3  # many were harmed, each in its own way


VALUES = (0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 20, 1 << 62)


@pytest.mark.torture
def test_lies_in_the_directory_of_a_zip_are_refused_or_skipped(tmp_path: Path) -> None:
    """Numbers of the directory and of its end replaced by telling ones: 500 zips, with GAN_TORTURE=1 20,000."""
    files = {f"{i % 2}/{i}.png": encoded(picture(i)) for i in range(4)}
    dice, outcomes = random.Random(3), set[str]()
    whole = [
        Path(write_zip(tmp_path / "a.zip", files, compression=method)).read_bytes()
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]
    for _ in range(20_000 if TORTURE else 500):
        data = bytearray(dice.choice(whole))
        start = data.index(b"PK\x01\x02")
        for _ in range(dice.randint(1, 3)):
            place, size = dice.randrange(start, len(data)), dice.choice((1, 2, 4, 8))
            value = dice.choice(VALUES) & ((1 << 8 * size) - 1)
            data[place : place + size] = value.to_bytes(size, "little")
        (tmp_path / "b.zip").write_bytes(data)
        try:
            source = sources.open_source(str(tmp_path / "b.zip"))
            for item in source.items:
                with contextlib.suppress(ImageRefused):
                    outcomes.add(f"{len(source.read(item)) > 0}")
        except DatasetError as error:
            outcomes.add(error.seen[:30])
    assert len(outcomes) > 8


def test_a_member_without_a_name_is_no_image(tmp_path: Path) -> None:
    path = Path(write_zip(tmp_path / "a.zip", {"a.png": encoded(picture(0)), "b": b""}))
    data = bytearray(path.read_bytes())
    start, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    struct.pack_into("<H", data, start + 28, 0)  # the last one's name has no bytes
    del data[start + 46]
    struct.pack_into("<I", data, end - 1 + 12, struct.unpack_from("<I", data, end - 1 + 12)[0] - 1)
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["a.png", ""]
    assert len(load(str(path))) == 1


@pytest.mark.parametrize("name", ["./a/1.png", "a//1.png", "a/./1.png", "a\\1.png"])
def test_names_that_are_written_otherwise_are_the_same_image(tmp_path: Path, name: str) -> None:
    files = {name: encoded(picture(0)), "b/2.png": encoded(picture(1))}
    source = sources.open_source(write_zip(tmp_path / "a.zip", files))
    assert [item.name for item in source.items] == ["a/1.png", "b/2.png"]
    assert source.classes == ("a", "b") and source.read(source.items[0]) == files[name]
