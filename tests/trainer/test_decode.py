"""Every kind of image file becomes the pixels worked out by hand, and hostile bytes are refused, never a crash."""

from __future__ import annotations

import io
import random
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gan.trainer import decode as module
from gan.trainer.decode import (
    Fit,
    ImageRefused,
    NotSquare,
    channels_of,
    decode,
    prepare,
    size_of,
    tile_places,
)

from .conftest import encoded

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 6), np.uint8)
RGB = RNG.integers(0, 256, (6, 6, 3), np.uint8)
RGBA = RNG.integers(0, 256, (6, 6, 4), np.uint8)


def pixels(
    data: bytes, channels: int = 3, resolution: int = 6, fit: Fit | None = None
) -> NDArray[np.uint8]:
    """Decoded [H, W, C]."""
    (decoded,) = prepare(decode(data, channels), resolution, fit)
    assert decoded.dtype == np.uint8 and decoded.shape == (channels, resolution, resolution)
    assert decoded.flags.c_contiguous
    return decoded.transpose(1, 2, 0)


def on_white(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[np.float64]:
    share = alpha.astype(float)[..., None] / 255
    return colour * share + 255 * (1 - share)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_colour_comes_through_unchanged(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    assert np.array_equal(pixels(encoded(RGB, format, **options)), RGB)


def test_jpeg_comes_through_nearly() -> None:
    smooth = np.linspace(0, 255, 36 * 3).reshape(6, 6, 3).astype(np.uint8)
    decoded = pixels(encoded(smooth, "JPEG", quality=100, subsampling=0))
    assert np.abs(decoded.astype(int) - smooth).max() <= 4


def test_grey_stays_grey_and_spreads_over_three_channels() -> None:
    assert np.array_equal(pixels(encoded(GREY), 1)[..., 0], GREY)
    assert np.array_equal(pixels(encoded(GREY), 3), np.repeat(GREY[..., None], 3, 2))


def test_colour_as_grey_is_its_luma() -> None:
    luma = RGB @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(pixels(encoded(RGB), 1)[..., 0] - luma).max() <= 1


def test_transparency_is_laid_on_white() -> None:
    expected = on_white(RGBA[..., :3], RGBA[..., 3])
    assert np.abs(pixels(encoded(RGBA)) - expected).max() <= 1
    grey = np.stack([GREY, RGBA[..., 3]], 2)
    expected = on_white(GREY[..., None], RGBA[..., 3])
    assert np.abs(pixels(encoded(Image.fromarray(grey, "LA")), 1) - expected).max() <= 1
    clear = np.zeros((6, 6, 4), np.uint8)
    assert pixels(encoded(clear)).min() == 255


def test_four_channels_keep_the_transparency() -> None:
    assert np.array_equal(pixels(encoded(RGBA), 4), RGBA)
    assert pixels(encoded(RGB), 4)[..., 3].min() == 255


def test_a_palette_with_a_transparent_colour_is_laid_on_white() -> None:
    image = Image.new("P", (6, 6), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 3, 6))
    opaque = pixels(encoded(image))
    assert opaque[0, 0].tolist() == [200, 100, 50] and opaque[0, 5].tolist() == [10, 20, 30]
    clear = pixels(encoded(image, transparency=0))
    assert clear[0, 0].tolist() == [200, 100, 50] and clear[0, 5].tolist() == [255, 255, 255]
    half = pixels(encoded(image, transparency=bytes([255, 51])))  # colour 1 at one fifth
    assert half[0, 5].tolist() == [10, 20, 30]
    assert np.abs(half[0, 0] - np.array([244, 224, 214])).max() <= 1


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("CMYK", (6, 6), (255, 0, 102, 51))
    red, green, blue = ((255 - ink) * (255 - 51) / 255 for ink in (255, 0, 102))
    for format, tolerance in (("TIFF", 1), ("JPEG", 3)):
        got = pixels(encoded(image, format))[3, 3].astype(int)
        assert np.abs(got - [red, green, blue]).max() <= tolerance


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(format: str) -> None:
    deep = np.arange(36, dtype=np.uint16).reshape(6, 6) * 1870
    assert deep.max() > 65_000
    expected = np.round(deep / 257.0)
    assert np.array_equal(pixels(encoded(deep, format), 1)[..., 0], expected)


def test_a_dark_image_of_sixteen_bits_stays_dark() -> None:
    dark = np.full((6, 6), 250, np.uint16)
    dark[0, 0] = 0
    assert pixels(encoded(dark), 1).max() == 1  # 250 / 257


def test_one_bit_becomes_black_and_white() -> None:
    bits = RNG.integers(0, 2, (6, 6)).astype(bool)
    assert np.array_equal(pixels(encoded(Image.fromarray(bits)), 1)[..., 0], bits * 255)


# What turns the stored rows and columns into the upright image, for each value of the EXIF tag.
UPRIGHT: dict[int, Any] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_orientation_in_exif_is_honoured(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = pixels(encoded(RGB, "PNG", exif=exif))
    assert np.array_equal(decoded, UPRIGHT[orientation](RGB))


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "green", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
        assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
        assert pixels(data)[2, 2].tolist() == [255, 0, 0]


def test_images_are_resized() -> None:
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None] * 4, 64, 0)
    small = pixels(encoded(ramp), 1, resolution=8)[..., 0].astype(int)
    means = ramp.reshape(64, 8, 8).mean((0, 2))
    assert np.abs(small - means)[:, 1:-1].max() <= 1  # inside, any smooth filter keeps a ramp
    large = pixels(encoded(np.full((1, 1), 77, np.uint8)), 1, resolution=64)
    assert large.min() == large.max() == 77


WIDE = np.zeros((6, 10, 3), np.uint8)
WIDE[:, :2], WIDE[:, 2:8], WIDE[:, 8:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_an_image_that_is_not_square_needs_a_choice() -> None:
    with pytest.raises(NotSquare, match="10 x 6"):
        pixels(encoded(WIDE))


def test_crop_takes_the_middle() -> None:
    assert (pixels(encoded(WIDE), fit="crop") == (0, 255, 0)).all()
    tall = pixels(encoded(np.ascontiguousarray(WIDE.transpose(1, 0, 2))), fit="crop")
    assert (tall == (0, 255, 0)).all()


def test_pad_keeps_all_and_adds_black_bars() -> None:
    padded = pixels(encoded(WIDE), resolution=10, fit="pad")
    assert np.array_equal(padded[2:8], WIDE)
    assert padded[:2].max() == padded[8:].max() == 0


def test_stretch_keeps_all() -> None:
    tall = np.repeat(np.repeat(WIDE, 5, 0), 3, 1)  # 30 x 30
    wide = np.repeat(WIDE, 3, 1)[:6]  # 6 x 30
    stretched = pixels(encoded(wide), resolution=30, fit="stretch")
    assert np.array_equal(stretched[:, 2:4], tall[:, 2:4])
    assert np.array_equal(stretched[:, 14:16], tall[:, 14:16])
    assert np.array_equal(stretched[:, 26:28], tall[:, 26:28])


# Tiles, and sizes by the header.


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("length", range(1, 40))
def test_tiles_of_a_row_cover_it_and_nothing_else(length: int, size: int) -> None:
    places = tile_places(length, size)
    covered = {pixel for place in places for pixel in range(place, place + size)}
    assert covered == (set(range(length)) if length >= size else set())
    assert len(places) == (-(-length // size) if length >= size else 0)  # no more than are needed
    assert places[:-1] == [i * size for i in range(len(places) - 1)]


def test_tiles_are_parts_of_the_image_at_its_own_scale() -> None:
    tiles = prepare(decode(encoded(RGB), 3), 4, "tiles")
    wanted = [RGB[y : y + 4, x : x + 4].transpose(2, 0, 1) for y in (0, 2) for x in (0, 2)]
    assert np.array_equal(tiles, np.stack(wanted))
    with pytest.raises(ImageRefused, match="smaller than a tile"):
        prepare(decode(encoded(RGB), 3), 7, "tiles")


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_the_size_by_the_header_is_that_of_the_upright_image(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(WIDE, format, exif=exif)
    assert size_of(data) == decode(data, 3).size == ((10, 6) if orientation < 5 else (6, 10))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_the_size_of_an_image_without_orientation_is_its_own(format: str) -> None:
    data = encoded(WIDE, format)
    assert size_of(data) == decode(data, 3).size == (10, 6)


def test_an_orientation_in_xmp_or_behind_the_pixels_counts_too() -> None:
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    data = encoded(Image.fromarray(WIDE), pnginfo=info)
    assert size_of(data) == decode(data, 3).size == (6, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    early = encoded(WIDE, "PNG", exif=exif)
    start = early.index(b"eXIf") - 4
    length = int.from_bytes(early[start : start + 4], "big") + 12
    end = early.index(b"IEND") - 4
    late = early[:start] + early[start + length : end] + early[start : start + length] + early[end:]
    assert size_of(late) == decode(late, 3).size == (6, 10)


def test_the_size_of_what_is_no_image_is_refused() -> None:
    with pytest.raises(ImageRefused, match="not an image"):
        size_of(b"words")


def refused(data: bytes, channels: int = 3) -> str:
    with pytest.raises(ImageRefused) as caught:
        pixels(data, channels)
    return caught.value.reason


def test_what_is_not_an_image_is_refused() -> None:
    assert refused(b"") == "empty file"
    assert refused(b"These are words.") == "not an image"
    assert refused(b"P6 6 6 255\n" + RGB.tobytes()) == "not an image"  # PPM: not a format of ours
    assert refused(encoded(RGB)[:8]) == "not an image"


def test_a_rare_mode_is_taken_for_any_number_of_channels() -> None:
    lab = encoded(Image.new("LAB", (6, 6), (128, 128, 128)), "TIFF")  # L* 50.2, a* = b* = 0
    for channels in (1, 3):
        assert np.abs(pixels(lab, channels).astype(int) - 119).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_truncated_image_is_refused(format: str) -> None:
    large = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(large, format)
    assert refused(data[: len(data) // 2]) in ("damaged", "not an image")
    if format == "JPEG":
        assert refused(data[: len(data) // 2]) == "damaged"


def test_too_many_pixels_are_refused_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 35)
    assert refused(encoded(RGB)) == "more than 35 pixels"
    monkeypatch.setattr(module, "MAX_PIXELS", 36)
    assert np.array_equal(pixels(encoded(RGB)), RGB)


def test_a_bomb_is_refused_by_its_header() -> None:
    header_only = encoded(Image.new("1", (1, 1)))
    size = (30_000).to_bytes(4, "big")
    bomb = header_only[:16] + size + size + header_only[24:]  # IHDR: 900 million pixels
    crc = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    bomb = bomb[:29] + crc + bomb[33:]
    assert refused(bomb) == "more than 64000000 pixels"


def test_channels_are_read_from_the_header() -> None:
    assert channels_of(encoded(GREY)) == 1
    assert channels_of(encoded(GREY.astype(np.uint16))) == 1
    assert channels_of(encoded(Image.new("1", (2, 2)))) == 1
    assert channels_of(encoded(Image.new("LA", (2, 2)))) == 1
    for mode in ("RGB", "RGBA", "P"):
        assert channels_of(encoded(Image.new(mode, (2, 2)))) == 3
    with pytest.raises(ImageRefused):
        channels_of(b"")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_damaged_bytes_are_refused_or_decoded_and_never_a_crash(format: str) -> None:
    dice = random.Random(1)
    whole = encoded(RNG.integers(0, 256, (16, 16, 3), np.uint8), format)
    outcomes = set()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(min(len(data), 200))] = dice.randrange(256)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                prepare(decode(bytes(data), 3), 8, "crop")
            outcomes.add("decoded")
        except ImageRefused as error:
            outcomes.add(error.reason)
    assert len(outcomes) > 1  # some were harmed
