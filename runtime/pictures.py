"""One picture, from a file, Pillow or an array: upright sRGB pixels and their alpha. Knows nothing of models.

Nothing in a file is trusted: the formats are listed, the size is bounded by the header, and whatever a decoder does
not like is an `InputError` whose `seen` is short and the same for like faults.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeGuard, Union

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, shown
from .images import Pixels
from .text import legible

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

logger = logging.getLogger("gan.runtime")

Source: TypeAlias = Union[str, os.PathLike[str], bytes, NDArray[Any], "Image", "Picture"]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 89_000_000  # just below where Pillow begins to warn
MAX_SIDE = 100_000  # of a longer one some decoders make room for hundreds of rows
MAX_SCANS = (
    200  # of a JPEG: one or about ten; each more is 30 bytes, and takes as long as the first
)
MAX_BYTES = 1 << 30
MAX_PROFILE = 4 << 20  # bytes of a colour profile; those of presses have 2 MB
ROWS = 256  # converted at once where numbers are wider than 8 bits
WHOLE = 65535 / 255  # what 16 bits are divided by
ORIENTATION = 0x0112  # the EXIF tag, of 1 to 8
TILE_WIDTH, TILE_HEIGHT = 322, 323  # tags of TIFF
TURNED = (5, 6, 7, 8)  # its values for images on their side
NO_ROOM = "too large for the memory that is left"
REPAIR = "Give a PNG, JPEG, WebP, BMP, GIF or TIFF file that an image viewer opens"


@dataclass(frozen=True)
class Picture:
    """colour: uint8 [H, W, 1] (grey) or [H, W, 3]. alpha: uint8 [H, W], None where the picture has none."""

    colour: Pixels
    alpha: Pixels | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.colour.shape[0], self.colour.shape[1]

    def pixels(self, channels: int) -> Pixels:
        """uint8 [H, W, channels]: 1 grey (luma), 3 RGB, 4 RGBA; alpha is left out but for 4."""
        from PIL import Image

        if channels not in (1, 3, 4):
            raise InputError(
                "A picture was refused",
                seen=f"The model takes images of {channels} channels",
                repair="Give it an array",
            )
        colour = self.colour
        if channels == 1 and colour.shape[2] == 3:
            return np.asarray(Image.fromarray(colour).convert("L"))[:, :, None]
        if channels != 1 and colour.shape[2] == 1:
            colour = np.repeat(colour, 3, axis=2)
        if channels != 4:
            return colour
        alpha = np.full(self.size, 255, np.uint8) if self.alpha is None else self.alpha
        return np.dstack([colour, alpha])

    def resized(self, height: int, width: int, *, nearest: bool = False) -> Picture:
        """By Lanczos's filter, or to the nearest pixel."""
        if self.size == (height, width):
            return self
        colour = resized(self.colour, height, width, nearest=nearest)
        alpha = self.alpha
        if alpha is not None:
            alpha = resized(alpha[:, :, None], height, width, nearest=nearest)[:, :, 0]
        return Picture(colour, alpha)


def is_source(value: object) -> TypeGuard[Source]:
    """Whether `read` takes it: a path, a file's bytes, a Pillow image, uint8 or bool [H, W] or [H, W, C]."""
    if isinstance(value, np.ndarray):
        return value.dtype in (np.uint8, np.bool_) and value.ndim in (2, 3)
    return isinstance(value, (str, os.PathLike, bytes, Picture)) or _is_pillow(value)


def read(source: Source) -> Picture:
    """The picture in a file, in bytes, of Pillow, or of an array uint8 [H, W] or [H, W, C] with C 1 to 4.

    EXIF orientation is honoured, an embedded colour profile converted to sRGB, of an animation the first frame taken.
    A bool array is black and white. Raises `InputError`.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return _of_array(source)
    if _is_pillow(source):
        return _of_image(source)
    if isinstance(source, bytes):
        return _of_image(open_image(io.BytesIO(source)))
    try:
        path = Path(source)  # type: ignore[arg-type]  # it may be anything
    except Exception as error:  # what is no path, or an object that cannot say which
        raise InputError(
            "A picture was refused",
            seen=f"{shown(source)} of type {type(source).__name__}",
            repair="Give a path, bytes, a Pillow image, or uint8 [H, W, C] with C 1 to 4",
        ) from error
    try:
        with open_file(path) as file:
            return _of_image(open_image(file))
    except InputError as error:
        name = legible(f"{source!s:.200}")
        raise InputError(f"{name} cannot be read", seen=error.seen, repair=error.repair) from error


def open_file(path: Path, max_bytes: int | None = None) -> IO[bytes]:
    """A file that ends, of at most `max_bytes` (1 GiB by default), open to be read. Raises `InputError`."""
    limit = MAX_BYTES if max_bytes is None else max_bytes
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _refused("not a file, but a folder, a pipe or a device")
        if status.st_size > limit:
            raise _refused(f"more than {limit >> 20} MiB")
        return open(path, "rb")
    except InputError:  # a ValueError too
        raise
    except (OSError, ValueError) as error:
        seen = (error.strerror if isinstance(error, OSError) else None) or f"{error!s:.200}"
        if isinstance(error, FileNotFoundError):
            seen = "a link to nothing" if path.is_symlink() else "no such file"
        raise _refused(seen, "Check the path") from error


def open_image(file: IO[bytes], max_pixels: int = MAX_PIXELS) -> Image:
    """A Pillow image of which only the header was read. Raises `InputError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(file, formats=FORMATS)
        room = _room(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(max_pixels) from error
    except UnidentifiedImageError as error:
        raise _refused(_what_else(file)) from error
    except MemoryError as error:
        raise _refused(NO_ROOM) from error
    except Exception as error:  # decoders raise many kinds on hostile bytes
        raise _refused("damaged") from error
    if room > max_pixels:
        raise _too_large(max_pixels)
    if max(image.size) > MAX_SIDE:
        raise _refused(f"more than {MAX_SIDE} pixels a side")
    if image.format in ("JPEG", "MPO") and _scans(file) > MAX_SCANS:
        raise _refused(f"more than {MAX_SCANS} scans")
    return image


def upright(image: Image) -> tuple[Image, Image | None]:
    """Colour (L or RGB, 8 bits, sRGB) and alpha (L, or None) of any image of Pillow, turned as EXIF says.

    Where nothing is to be done it is the image itself. Raises `InputError`.
    """
    try:
        image.load()
        way, profile = orientation(image), image.info.get("icc_profile")
        colour, alpha = (part and _turned(part, way) for part in _split(image))
        assert colour is not None
        if profile:
            colour = _in_srgb(colour, profile)
        return (colour if colour.mode == "L" else _as(colour, "RGB")), alpha
    except InputError:
        raise
    except MemoryError as error:
        raise _refused(NO_ROOM) from error
    except Exception as error:  # as in open_image
        raise _refused("damaged") from error


def orientation(image: Image) -> int:
    """How EXIF or XMP says that the image is to be turned, 1 to 8; 1, upright, where they cannot be read."""
    try:
        way = image.getexif().get(ORIENTATION, 1)
    except Exception as error:  # viewers show such an image, as one without EXIF
        logger.debug("Left out EXIF data that cannot be read: %s", error)
        return 1
    return way if isinstance(way, int) and 1 <= way <= 8 else 1


def resized(pixels: Pixels, height: int, width: int, *, nearest: bool = False) -> Pixels:
    """uint8 [height, width, C] of [H, W, C], each channel by itself, by Lanczos's filter or to the nearest pixel."""
    from PIL import Image

    how = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
    planes = (
        Image.fromarray(pixels[:, :, i]).resize((width, height), how)
        for i in range(pixels.shape[2])
    )
    return np.dstack([np.asarray(plane) for plane in planes])


def _of_image(image: Image) -> Picture:
    colour, alpha = upright(image)
    pixels = np.asarray(colour, np.uint8)
    return Picture(
        pixels[:, :, None] if pixels.ndim == 2 else pixels,
        None if alpha is None else np.asarray(alpha, np.uint8),
    )


def _of_array(array: NDArray[Any]) -> Picture:
    array = np.asarray(array)  # a matrix would stay one
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    pixels = array[:, :, None] if array.ndim == 2 else array
    fits = pixels.ndim == 3 and pixels.shape[2] in (1, 2, 3, 4) and pixels.size
    if array.dtype != np.uint8 or not fits:
        raise InputError(
            "An array is not a picture",
            seen=f"{array.dtype} of shape {list(array.shape)}",
            repair="Give uint8 [H, W] or [H, W, C] with C 1 to 4",
        )
    channels = pixels.shape[2]
    if channels in (2, 4):
        return Picture(pixels[:, :, :-1], pixels[:, :, -1])
    return Picture(pixels)


def _is_pillow(value: object) -> TypeGuard[Image]:
    module: Any = sys.modules.get("PIL.Image")  # without it, there is no image of Pillow's
    return module is not None and isinstance(value, module.Image)


def _split(image: Image) -> tuple[Image, Image | None]:
    """Colour of 8 bits (L, RGB, CMYK, ...) and alpha."""
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image), None
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        image = _as(image, "LA" if grey else "RGBA")
        return image.convert("L" if grey else "RGB"), image.getchannel("A")
    if grey:
        return _as(image, "L"), None
    return (image if image.mode == "CMYK" else _as(image, "RGB")), None


def _as(image: Image, mode: str) -> Image:
    """In a mode; itself where it is so already, for a copy of a large image is not small."""
    return image if image.mode == mode else image.convert(mode)


def _turned(image: Image, way: int) -> Image:
    from PIL.Image import Transpose

    return image if way == 1 else image.transpose({
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }[way])  # fmt: skip


def _eight_bits(image: Image) -> Image:
    """Grey of more than 8 bits, where Pillow's own conversion would clip. Floats are of [0, 1], or as integers."""
    from PIL import Image

    levels = np.asarray(image)
    if not all(np.isfinite(rows).all() for rows in _in_rows(levels)):
        raise _refused("values that are not finite")
    most, factor = levels.max(initial=0), 1.0
    if image.mode == "F" and most <= 1:
        factor = 255.0
    elif image.mode.startswith("I;16") or most > 255:
        factor = 1 / WHOLE
    made = np.empty(levels.shape, np.uint8)
    for rows, part in zip(_in_rows(levels), _in_rows(made), strict=True):
        part[:] = (rows.astype(np.float64) * factor).clip(0, 255).round()
    return Image.fromarray(made)


def _in_rows(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of so many rows that what is made of one is small."""
    return (array[start : start + ROWS] for start in range(0, len(array), ROWS))


def _in_srgb(colour: Image, profile: bytes) -> Image:
    """In sRGB, or as it is where the profile is sRGB, broken, too large, or of another kind of colour."""
    from PIL import ImageCms

    try:
        if len(profile) > MAX_PROFILE:
            raise ValueError(f"{len(profile)} bytes")
        transform = _transform(profile, colour.mode)
        if transform is None:
            return colour
        made = ImageCms.applyTransform(colour, transform)
        assert made is not None
    except Exception as error:  # PyCMSError and whatever a broken profile leads to
        logger.debug("Left out a colour profile that cannot be used: %s", error)
        return colour
    return made.convert("L") if colour.mode == "L" else made


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    """From a profile to sRGB; None where it changes no colour by more than a step of 255."""
    from PIL import Image, ImageCms

    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode != "RGB":
        return transform
    levels = np.linspace(0, 255, 18).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 18, 3)
    there = ImageCms.applyTransform(Image.fromarray(colours), transform)
    off = np.abs(np.asarray(there).astype(int) - colours).max()
    return None if off <= 1 else transform


def _what_else(file: IO[bytes]) -> str:
    """What a file is that is no image of ours; the same words for like files."""
    file.seek(0)
    start = file.read(12)
    if not start:
        return "empty file"
    if start[4:8] == b"ftyp":  # the containers of phones' and browsers' newer formats, and of films
        return "HEIC, AVIF or a film, which are not read"
    return "not an image"


def _room(image: Image) -> int:
    """Pixels that a decoder makes room for: the image's, or those of a TIFF's tile, which may be larger."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return max(
        image.width * image.height, int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_HEIGHT, 0))
    )


def _scans(file: IO[bytes]) -> int:
    """How often a JPEG goes over its pixels, those of all its previews included."""
    place, count, last = file.tell(), 0, b""
    file.seek(0)
    while part := file.read(1 << 20):
        count += (last + part).count(b"\xff\xda")
        last = part[-1:]
    file.seek(place)
    return count


def _too_large(max_pixels: int) -> InputError:
    return _refused(
        f"more than {max_pixels} pixels", "Make it smaller, or give its pixels as an array"
    )


def _refused(seen: str, repair: str = REPAIR) -> InputError:
    return InputError("The picture cannot be read", seen=seen, repair=repair)
