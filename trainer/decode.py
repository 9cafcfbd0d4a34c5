"""One encoded image to uint8 pixels of a wanted size: any mode, any orientation, nothing trusted."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Fit = Literal["crop", "pad", "stretch"]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 64_000_000
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageRefused(ValueError):
    """An image that is skipped; `reason` is short and the same for like faults, so that they can be counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotSquare(ValueError):
    """An image that is not square, where no fit was chosen."""


def decode(data: bytes, *, resolution: int, channels: int, fit: Fit | None) -> NDArray[np.uint8]:
    """uint8 [channels, resolution, resolution] of an encoded image; the first frame of an animation.

    EXIF orientation is honoured; transparency is laid on white unless 4 channels are wanted. Raises
    `ImageRefused` for what cannot be used and `NotSquare`.
    """
    loaded = _load(data)
    try:
        image = _to_mode(loaded, channels)
    except ValueError as error:  # Pillow converts rare modes to some others only
        raise ImageRefused(f"mode {loaded.mode}") from error
    if image.width != image.height:
        if fit is None:
            raise NotSquare(f"{image.width} x {image.height}")
        image = _square(image, fit)
    image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, np.uint8).reshape(resolution, resolution, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def channels_of(data: bytes) -> int:
    """1 for a grey image, 3 for any other, by its header."""
    return 1 if _open(data).mode in ("1", "L", "LA", "I", "I;16", "I;16B", "F") else 3


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageRefused(f"more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # decoders raise many kinds on hostile bytes
        raise ImageRefused("not an image") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageRefused(f"more than {MAX_PIXELS} pixels")
    return image


def _load(data: bytes) -> Image.Image:
    image = _open(data)
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as error:
        raise ImageRefused("damaged") from error


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I"):  # more than 8 bits of grey: Pillow's own conversion would clip
        levels = np.asarray(image).astype(np.float64)
        deep = image.mode.startswith("I;16") or levels.max(initial=0) > 255
        image = Image.fromarray(
            (levels / (257.0 if deep else 1.0)).clip(0, 255).round().astype(np.uint8)
        )
    if channels == 4:
        return image.convert("RGBA")
    if image.has_transparency_data:
        alpha = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha)
    return image.convert(_MODES[channels])


def _square(image: Image.Image, fit: Fit) -> Image.Image:
    width, height = image.size
    if fit == "crop":
        return ImageOps.fit(image, (min(width, height),) * 2, Image.Resampling.LANCZOS)
    if fit == "pad":
        return ImageOps.pad(image, (max(width, height),) * 2, Image.Resampling.LANCZOS)
    return image  # stretched by the resize that follows
