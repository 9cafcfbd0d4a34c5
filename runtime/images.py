"""Images as arrays: the uint8 formula, grids, and files written by a small pool of threads.

An image is uint8 [H, W, C] with C 1 (grey), 3 (RGB) or 4 (RGBA). Knows nothing of models.
"""

from __future__ import annotations

import io
import math
import os
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .files import atomic_file

if TYPE_CHECKING:
    from concurrent.futures import Future

    from PIL.Image import Image

Pixels = NDArray[np.uint8]
FORMATS = {".png": "PNG", ".webp": "WEBP"}  # lossless
LOSSY = {".jpg": "JPEG", ".jpeg": "JPEG"}
OPTIONS: dict[str, dict[str, Any]] = {
    "WEBP": {"lossless": True, "exact": True},  # exact: the colours below alpha 0 too
    "JPEG": {"quality": 95, "subsampling": 0},
}
LONGEST = {
    "WEBP": 16_383,
    "JPEG": 65_500,
}  # pixels a side that a format, or its library, has room for
_PENDING = 64  # images held in memory while they wait for the disk


def quantize(x: NDArray[np.floating[Any]]) -> Pixels:
    """Float images [N, C, H, W] of [-1, 1] as uint8 [N, H, W, C]: clip(127.5 x + 127.5), rounded half to even.

    The same formula as in every exported graph.
    """
    scaled = x.astype(np.float32) * np.float32(127.5) + np.float32(127.5)
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8).transpose(0, 2, 3, 1)


def dequantize(images: Pixels) -> NDArray[np.float32]:
    """uint8 [N, H, W, C] as float images [N, C, H, W] of [-1, 1]: x / 127.5 - 1, as in every exported graph."""
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32)
    return planes / np.float32(127.5) - np.float32(1.0)


def grid(images: Pixels, columns: int | None = None, *, gap: int = 2) -> Pixels:
    """One image [H', W', C] of many [N, H, W, C], row by row, `gap` pixels apart; as square as can be by default."""
    if images.ndim != 4 or len(images) == 0:
        raise InputError(
            "A grid was not made",
            seen=f"images of shape {images.shape}",
            repair="Give [N, H, W, C]",
        )
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    most = max(count, 1_000)  # empty columns would cost more than all images
    if not 1 <= columns <= most or gap < 0:
        raise InputError(
            "A grid was not made",
            seen=f"{columns} columns, {gap} pixels apart",
            repair=f"Give columns from 1 to {most} and a gap from 0",
        )
    rows = math.ceil(count / columns)
    sheet = np.zeros(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, channels), np.uint8
    )
    for place, image in enumerate(images):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def scatter(
    points: NDArray[np.floating[Any]], *, size: int = 384, extent: float | None = None
) -> Pixels:
    """A plot [size, size, 1] of points [N, D]: the first two coordinates, dark on white, y upwards.

    extent: the plot shows [-extent, extent]; by default as much as 98 % of the points need, and a tenth more.
    """
    flat = points.reshape(len(points), math.prod(points.shape[1:])).astype(np.float64)
    if not flat.size or not np.isfinite(flat).all():
        raise InputError(
            "Points were not drawn",
            seen=f"shape {points.shape}, or values that are not finite",
            repair="Give finite points [N, D]",
        )
    x, y = flat[:, 0], flat[:, 1] if flat.shape[1] > 1 else np.zeros(len(flat))
    if extent is None:
        extent = max(1.1 * float(np.quantile(np.maximum(np.abs(x), np.abs(y)), 0.98)), 1e-9)
    columns, rows = (
        np.floor((v / extent + 1) * size / 2).clip(-1e6, 1e6).astype(int) for v in (x, -y)
    )
    counts = np.zeros((size, size))
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):  # two pixels a side, so that one is seen
        place = (
            np.minimum(rows + down, size - 1)[inside],
            np.minimum(columns + right, size - 1)[inside],
        )
        np.add.at(counts, place, 1)
    ink = 1 - np.exp(-counts)  # many points at one place are darker than one
    return np.rint(255 * (1 - ink)).astype(np.uint8)[:, :, None]


def to_pil(image: Pixels) -> Image:
    """A Pillow image of uint8 [H, W, C]: mode L, RGB or RGBA."""
    from PIL import Image

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise InputError(
            "An array is not an image",
            seen=f"{image.dtype} of shape {image.shape}",
            repair="Give uint8 [H, W, C] with C 1, 3 or 4",
        )
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def save(image: Pixels, path: str | os.PathLike[str], *, lossy: bool = False) -> None:
    """Write a .png or .webp (lossless), whole or not at all. lossy: or a .jpg, on white where it has alpha."""
    path = Path(path)
    kind = check_suffix(path, lossy=lossy)
    longest = max(image.shape[:2], default=0)
    if longest > LONGEST.get(kind, longest):
        raise InputError(
            f"{path} was not written",
            seen=f"{longest} pixels a side, and {kind} has at most {LONGEST[kind]}",
            repair="Write a .png",
        )
    if kind == "JPEG" and image.shape[2:] == (4,):
        image = on_white(image)
    # By a name Pillow loads the one plugin that it needs, by a format's name five: a tenth of a start.
    encoded = io.BytesIO()
    encoded.name = path.name
    to_pil(image).save(encoded, **OPTIONS.get(kind, {}))
    with atomic_file(path) as file:
        file.write(encoded.getbuffer())


def on_white(image: Pixels) -> Pixels:
    """uint8 [H, W, 3] of [H, W, 4], laid on white."""
    alpha = image[:, :, 3:].astype(np.float32) / 255
    return np.rint(image[:, :, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def check_suffix(path: Path, *, lossy: bool = False) -> str:
    """Pillow's name of the format that a path asks for; `InputError` for any that is not written here."""
    formats = FORMATS | LOSSY if lossy else FORMATS
    kind = formats.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"{path} was not written",
            seen=f"suffix {path.suffix!r}",
            repair=f"Use one of {', '.join(formats)}",
        )
    return kind


def save_all(images: Iterable[Pixels], path_of: Callable[[int], Path], *, workers: int = 4) -> int:
    """Write each image to `path_of(its number)` by a pool of threads; the number written.

    Memory is bounded: when 64 images wait for the disk, no more are taken.
    """
    from concurrent.futures import ThreadPoolExecutor

    waiting: deque[Future[None]] = deque()
    count = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="gan-images") as pool:
        try:
            for image in images:
                if len(waiting) >= _PENDING:
                    waiting.popleft().result()
                waiting.append(pool.submit(save, image, path_of(count)))
                count += 1
            while waiting:
                waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
    return count
