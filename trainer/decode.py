"""One encoded image to uint8 pixels of a wanted size: any mode, any orientation, nothing trusted."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..runtime import pictures
from ..runtime.errors import InputError

Fit = Literal["crop", "pad", "stretch", "tiles"]
MAX_PIXELS = 64_000_000
TOO_SMALL = "smaller than a tile"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageRefused(ValueError):
    """An image that is skipped; `reason` is short and the same for like faults, so that they can be counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotSquare(ValueError):
    """An image that is not square, where no fit was chosen."""


def decode(data: bytes, channels: int) -> Image.Image:
    """The upright image of grey, RGB or RGBA; the first frame of an animation.

    EXIF orientation is honoured, a colour profile converted to sRGB; transparency is laid on white unless 4 channels
    are wanted. Raises `ImageRefused` for what cannot be used.
    """
    return _to_mode(_open(data), channels)


def prepare(image: Image.Image, resolution: int, fit: Fit | None) -> NDArray[np.uint8]:
    """uint8 [N, C, resolution, resolution] of a decoded image: all its tiles, or one.

    Raises `NotSquare` where no fit was chosen, `ImageRefused` for an image smaller than a tile.
    """
    if fit == "tiles":
        return _tiles(_pixels(image), resolution)
    square = image.width == image.height
    if fit is None and not square:
        raise NotSquare(f"{image.width} x {image.height}")
    if fit == "pad" and not square:
        return _pixels(_padded(image, resolution))[None]
    if fit == "crop" and not square:
        image = ImageOps.fit(image, (min(image.size),) * 2, Image.Resampling.LANCZOS)
    return _pixels(image.resize((resolution, resolution), Image.Resampling.LANCZOS))[None]


def tile_places(length: int, size: int) -> list[int]:
    """Where the tiles of a row begin: side by side, the last one aligned to the end; none where one does not fit."""
    if length < size:
        return []
    return [min(start, length - size) for start in range(0, length, size)]


def channels_of(data: bytes) -> int:
    """1 for a grey image, 3 for any other, by its header."""
    return 1 if _open(data).mode.partition(";")[0] in ("1", "L", "LA", "La", "I", "F") else 3


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of the upright image, by its header."""
    image = _open(data)
    width, height = image.size
    told = image.format != "PNG" or any(word in data for word in (b"eXIf", b"exif", b"adobe.xmp"))
    if width == height or image.format == "TIFF" or not told:
        return width, height  # of a TIFF Pillow tells it upright; of a PNG getexif decodes it all
    turned = pictures.orientation(image) in pictures.TURNED
    return (height, width) if turned else (width, height)


def _open(data: bytes) -> Image.Image:
    try:
        return pictures.open_image(io.BytesIO(data), MAX_PIXELS)
    except InputError as error:
        raise ImageRefused(error.seen) from error


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
    try:
        colour, alpha = pictures.upright(image)
    except InputError as error:
        raise ImageRefused(error.seen) from error
    del image  # of a large one each copy counts
    if channels == 4:
        colour = colour.convert("RGB")
        colour.putalpha(alpha or 255)
    elif alpha is not None:
        colour = Image.composite(colour, Image.new(colour.mode, colour.size, "white"), alpha)
    mode = _MODES[channels]
    return colour if colour.mode == mode else colour.convert(mode)


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [C, H, W]."""
    pixels = np.asarray(image, np.uint8).reshape(image.height, image.width, -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _tiles(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """All tiles of uint8 [C, H, W], row by row, at the image's own scale."""
    rows, columns = (tile_places(length, size) for length in pixels.shape[1:])
    if not rows or not columns:
        raise ImageRefused(TOO_SMALL)
    return np.stack([pixels[:, y : y + size, x : x + size] for y in rows for x in columns])


def _padded(image: Image.Image, size: int) -> Image.Image:
    """The whole image amid bars, black or transparent. Shrunk first: a thin line would make an enormous square."""
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    made = Image.new(image.mode, (size, size))
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    made.paste(small, ((size - width) // 2, (size - height) // 2))
    return made
