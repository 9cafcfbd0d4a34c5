"""One picture: every kind of file against pixels worked out by hand, and bad files refused with their reason."""

from __future__ import annotations

import io
import logging
import os
import random
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gan.runtime import InputError, pictures
from gan.runtime.pictures import Picture, is_source, read

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7), np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)


def encoded(image: Image.Image | NDArray[Any], format: str = "PNG", **options: Any) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def same(picture: Picture, colour: NDArray[Any], alpha: NDArray[Any] | None = None) -> None:
    assert picture.colour.dtype == np.uint8 and picture.colour.ndim == 3
    np.testing.assert_array_equal(
        picture.colour, colour if colour.ndim == 3 else colour[:, :, None]
    )
    if alpha is None:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(picture.alpha, alpha)


# Forms


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_a_path_bytes_a_pillow_image_and_an_array_are_the_same_picture(
    tmp_path: Path, format: str
) -> None:
    data = encoded(RGB, format, **({"lossless": True} if format == "WEBP" else {}))
    path = tmp_path / "no suffix says the format.dat"
    path.write_bytes(data)
    for source in (path, str(path), data, Image.open(io.BytesIO(data)), RGB, Picture(RGB)):
        assert is_source(source)
        same(read(source), RGB)


def test_arrays_of_one_to_four_channels_are_pictures_and_bools_black_and_white() -> None:
    same(read(GREY), GREY)
    same(read(GREY[:, :, None]), GREY)
    same(read(np.dstack([GREY, ALPHA])), GREY, ALPHA)
    same(read(np.dstack([RGB, ALPHA])), RGB, ALPHA)
    same(read(GREY > 99), np.where(GREY > 99, 255, 0))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4, 0), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint16),
        None,
        7,
        [[1, 2]],
    ],
)
def test_what_is_no_picture_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"not a picture|picture was refused"):
        read(wrong)


def test_floats_and_batches_are_no_sources() -> None:
    for value in (np.zeros((4, 4, 3)), np.zeros((1, 4, 4, 3), np.uint8), [1], None, 3):
        assert not is_source(value)


def test_an_image_of_pillows_is_left_as_it_was() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encoded(RGB, exif=exif)))
    same(read(image), np.rot90(RGB, -1))
    assert image.size == (7, 5) and image.getexif()[0x0112] == 6


# Modes


def test_grey_palette_one_bit_and_cmyk() -> None:
    same(read(encoded(GREY)), GREY)
    bits = GREY > 127
    same(read(encoded(Image.fromarray(bits))), np.where(bits, 255, 0))
    quantized = Image.fromarray(RGB).quantize(256)
    same(read(encoded(quantized)), np.asarray(quantized.convert("RGB")))
    cmyk = Image.new("CMYK", (7, 5), (255, 0, 102, 51))
    expected = [(255 - ink) * (255 - 51) / 255 for ink in (255, 0, 102)]
    assert np.abs(read(encoded(cmyk, "TIFF")).colour - expected).max() <= 1
    assert np.abs(read(encoded(cmyk, "JPEG")).colour - expected).max() <= 3


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled(format: str) -> None:
    deep = RNG.integers(0, 65536, (5, 7), np.uint16)
    deep[0, :3] = 0, 250, 65535
    same(read(encoded(deep, format)), np.round(deep / 257.0))


def test_floats_in_a_tiff_are_of_0_to_1_or_as_integers_and_finite() -> None:
    levels = RNG.uniform(0, 1, (5, 7)).astype(np.float32)
    same(read(encoded(levels, "TIFF")), np.round(levels * 255.0))
    same(read(encoded(levels * 200, "TIFF")), np.round(levels * 200.0))
    levels[1, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        read(encoded(levels, "TIFF"))


def test_alpha_is_split_off_whatever_holds_it() -> None:
    grey = Image.fromarray(np.dstack([GREY, ALPHA]), "LA")
    same(read(encoded(grey)), GREY, ALPHA)
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    same(read(encoded(rgba)), RGB, ALPHA)
    same(read(encoded(rgba, "TIFF")), RGB, ALPHA)
    same(read(encoded(rgba, "WEBP", lossless=True, exact=True)), RGB, ALPHA)
    premultiplied = read(rgba.convert("RGBa"))
    np.testing.assert_array_equal(premultiplied.alpha, ALPHA)


def test_a_transparent_colour_is_alpha_too() -> None:
    palette = Image.new("P", (7, 5), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.paste(1, (0, 0, 3, 5))
    left = np.arange(7) < 3
    colours = np.where(left[:, None], [200, 100, 50], [10, 20, 30])
    same(read(encoded(palette)), np.broadcast_to(colours, (5, 7, 3)))
    clear = np.broadcast_to(np.where(left, 255, 0), (5, 7))
    same(read(encoded(palette, transparency=0)), np.broadcast_to(colours, (5, 7, 3)), clear)
    half = np.broadcast_to(np.where(left, 51, 255), (5, 7))
    same(
        read(encoded(palette, transparency=bytes([255, 51]))),
        np.broadcast_to(colours, (5, 7, 3)),
        half,
    )
    keyed = np.broadcast_to(np.where(left, 9, 200).astype(np.uint8), (5, 7))
    same(read(encoded(keyed, transparency=9)), keyed, np.where(keyed == 9, 0, 255))
    same(read(palette.convert("PA")), np.broadcast_to(colours, (5, 7, 3)), np.full((5, 7), 255))


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        assert np.abs(read(data).colour.astype(int) - [255, 0, 0]).max() <= 2


# What turns the stored rows and columns into the upright image, for each value of the EXIF tag.
UPRIGHT: dict[int, Any] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_orientation_in_exif_turns_colour_and_alpha(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = UPRIGHT[orientation]
    same(read(encoded(np.dstack([RGB, ALPHA]), exif=exif)), turned(RGB), turned(ALPHA))
    same(read(encoded(RGB, "TIFF", exif=exif)), turned(RGB))


# Colour profiles


def tag(data: bytes | bytearray, name: bytes) -> int:
    """Where a tag of a profile begins."""
    (count,) = struct.unpack_from(">I", data, 128)
    entries = (struct.unpack_from(">4sI", data, 132 + 12 * i) for i in range(count))
    return next(offset for known, offset in entries if known == name)


def swapped() -> bytes:
    """A profile of a display whose red and green lamps are exchanged: sRGB's, two tags' places swapped."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", data, 128)
    places = {bytes(data[132 + 12 * i :][:4]): 132 + 12 * i + 4 for i in range(count)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    data[red : red + 8], data[green : green + 8] = data[green : green + 8], data[red : red + 8]
    return bytes(data)


def wide() -> bytes:
    """The swapped profile's tame neighbour: one whose red primary is as far out as can be coded."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for name, xyz in {
        b"rXYZ": (0.6097, 0.3111, 0.0195),  # Adobe RGB (1998), adapted to D50
        b"gXYZ": (0.2053, 0.6257, 0.0609),
        b"bXYZ": (0.1492, 0.0632, 0.7446),
    }.items():
        struct.pack_into(">3i", data, tag(data, name) + 8, *(round(v * 65536) for v in xyz))
    return bytes(data)


def linear(v: NDArray[Any]) -> NDArray[np.float64]:
    x = np.asarray(v, np.float64) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def coded(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = x.clip(0, 1)
    return 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def test_swapped_lamps_are_swapped_back_and_alpha_stays() -> None:
    made = read(encoded(np.dstack([RGB, ALPHA]), icc_profile=swapped()))
    assert np.abs(made.colour.astype(int) - RGB[..., [1, 0, 2]]).max() <= 2
    np.testing.assert_array_equal(made.alpha, ALPHA)
    palette = Image.fromarray(RGB).quantize(256)
    made = read(encoded(palette, icc_profile=swapped()))
    expected = np.asarray(palette.convert("RGB")).astype(int)[..., [1, 0, 2]]
    assert np.abs(made.colour - expected).max() <= 2


def test_a_wide_gamut_becomes_srgb_by_the_matrix() -> None:
    """XYZ of D50 for both: out = M_srgb^-1 M_wide in, in linear light."""
    there = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
    srgb = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
    soft = RNG.integers(90, 166, (5, 7, 3), np.uint8)  # inside both gamuts
    expected = coded(linear(soft) @ (np.linalg.inv(srgb) @ there).T)
    assert np.abs(expected - soft).max() > 10
    made = read(encoded(soft, icc_profile=wide())).colour
    assert np.abs(made - expected).max() <= 2


def test_an_srgb_profile_changes_no_byte() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same(read(encoded(RGB, icc_profile=profile)), RGB)


def test_a_profile_within_a_step_of_srgb_changes_no_byte() -> None:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    offset = tag(data, b"rXYZ") + 8
    (x,) = struct.unpack_from(">i", data, offset)
    struct.pack_into(">i", data, offset, x + 20)
    image = Image.fromarray(RNG.integers(0, 256, (256, 256, 3), np.uint8))
    srgb = ImageCms.createProfile("sRGB")
    moved = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(data)), srgb)
    steps = np.abs(np.asarray(moved).astype(int) - np.asarray(image))
    assert steps.max() == 1  # so there is something to leave out
    same(read(encoded(image, icc_profile=bytes(data))), np.asarray(image))


def test_a_profile_of_grey_is_converted() -> None:
    """A profile of linear light, written by hand (ICC.1:2010, sections 7.2 and 10)."""
    white = struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)  # D50
    curve = struct.pack(">4s4xI", b"curv", 0)  # the identity
    places = (2, b"wtpt", 156, 20, b"kTRC", 176, 12)
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x3i48x", 188, 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp",
        63190, 65536, 54061,
    )  # fmt: skip
    profile = header + struct.pack(">I4s2I4s2I", *places) + white + curve
    assert len(profile) == 188
    made = read(encoded(np.dstack([GREY, ALPHA]), icc_profile=profile))
    assert made.colour.shape == (5, 7, 1)
    light = GREY > 60  # of the darkest, lcms makes something else by its 8-bit tables
    assert np.abs(made.colour[..., 0] - coded(GREY / 255.0))[light].max() <= 2
    np.testing.assert_array_equal(made.alpha, ALPHA)


@pytest.mark.parametrize("profile", [b"\0" * 400, b"x", swapped()[:200]])
def test_a_broken_profile_is_left_out_with_a_line(
    profile: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "gan.runtime"):
        same(read(encoded(RGB, icc_profile=profile)), RGB)
    assert "Left out a colour profile" in caplog.text


def test_a_profile_of_another_kind_of_colour_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "gan.runtime"):
        same(read(encoded(GREY, icc_profile=swapped())), GREY)
    assert "Left out a colour profile" in caplog.text


# As the model takes it


def test_pixels_of_any_number_of_channels() -> None:
    luma = RGB @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    picture = Picture(RGB, ALPHA)
    assert np.abs(picture.pixels(1)[..., 0] - luma).max() <= 1
    np.testing.assert_array_equal(picture.pixels(3), RGB)
    np.testing.assert_array_equal(picture.pixels(4), np.dstack([RGB, ALPHA]))
    grey = Picture(GREY[:, :, None])
    np.testing.assert_array_equal(grey.pixels(1)[..., 0], GREY)
    np.testing.assert_array_equal(grey.pixels(3), np.dstack([GREY] * 3))
    np.testing.assert_array_equal(grey.pixels(4)[..., 3], 255)
    with pytest.raises(InputError, match="images of 6 channels"):
        picture.pixels(6)


def test_a_picture_is_resized_with_its_alpha() -> None:
    made = Picture(RGB, ALPHA).resized(10, 3)
    expected = np.asarray(Image.fromarray(RGB).resize((3, 10), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(made.colour, expected)
    assert made.alpha is not None and made.alpha.shape == (10, 3)
    near = Picture(RGB).resized(10, 14, nearest=True).colour
    np.testing.assert_array_equal(near, RGB.repeat(2, 0).repeat(2, 1))


def test_one_pixel_is_a_picture() -> None:
    same(read(encoded(np.full((1, 1, 3), 7, np.uint8))), np.full((1, 1, 3), 7))


# Bad files


NO_FILE = "not a file, but a folder, a pipe or a device"


def refused(source: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(source)
    assert caught.value.repair
    return caught.value.seen


def test_what_is_not_an_image_is_refused(tmp_path: Path) -> None:
    assert refused(b"") == "empty file"
    assert refused(b"These are words.") == "not an image"
    assert refused(b"P6 7 5 255\n" + RGB.tobytes()) == "not an image"  # PPM: not a format of ours
    assert refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not an image"
    (tmp_path / "text.png").write_text("These are words.")
    assert refused(tmp_path / "text.png") == "not an image"
    with pytest.raises(InputError, match=r"text\.png cannot be read"):
        read(tmp_path / "text.png")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_half_a_file_is_refused(format: str) -> None:
    data = encoded(RNG.integers(0, 256, (64, 64, 3), np.uint8), format)
    assert refused(data[: len(data) // 2]) in ("damaged", "not an image")


def test_missing_folders_pipes_and_forbidden_files_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "nosuch.png") == "no such file"
    assert refused("a\0b") != ""
    assert refused("x" * 5000) != ""
    assert refused(tmp_path) == NO_FILE
    os.mkfifo(tmp_path / "pipe.png")
    assert refused(tmp_path / "pipe.png") == NO_FILE
    (tmp_path / "mine.png").write_bytes(encoded(RGB))
    (tmp_path / "mine.png").chmod(0)
    if os.geteuid():  # root reads all the same
        assert refused(tmp_path / "mine.png") == "Permission denied"


def test_a_file_that_may_not_be_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").write_bytes(encoded(RGB))
    monkeypatch.setattr(pictures, "open", forbidden, raising=False)
    assert refused(tmp_path / "a.png") == "Permission denied"


def bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header claims so many pixels a side."""
    data = encoded(Image.new("1", (1, 1)))
    data = data[:16] + side.to_bytes(4, "big") * 2 + data[24:]
    return data[:29] + zlib.crc32(data[12:29]).to_bytes(4, "big") + data[33:]


@pytest.mark.parametrize("side", [9_500, 10_000, 30_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refused(bomb(side)) in ("more than 89000000 pixels", "not an image")


def test_a_file_of_more_bytes_than_any_picture_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(encoded(RGB) + bytes(3 << 20))
    same(read(tmp_path / "a.png"), RGB)
    monkeypatch.setattr(pictures, "MAX_BYTES", 3 << 20)
    assert refused(tmp_path / "a.png") == "more than 3 MiB"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_damaged_bytes_are_refused_or_read_and_never_a_crash(format: str) -> None:
    dice = random.Random(1)
    profile = swapped() if format not in ("BMP", "GIF") else None
    whole = encoded(
        RNG.integers(0, 256, (16, 16, 3), np.uint8),
        format,
        **({"icc_profile": profile} if profile else {}),
    )
    outcomes = set()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(min(len(data), 1200))] = dice.randrange(256)
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(bytes(data))
            outcomes.add("read")
        except InputError as error:
            outcomes.add(error.seen)
    assert len(outcomes) > 1
