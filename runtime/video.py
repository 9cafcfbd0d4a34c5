"""Frames as a moving picture: .mp4 (H.264) by PyAV, animated .webp by Pillow. Knows nothing of models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import InputError
from .files import atomic_file
from .images import Pixels, on_white, to_pil

SUFFIXES = (".mp4", ".webp")
MAX_FPS = 240.0


def check_suffix(path: Path, fps: float) -> None:
    """`InputError` where `save` could not write: another suffix, another speed, or a missing package."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path} was not written",
            seen=f"suffix {path.suffix!r}",
            repair=f"Use one of {', '.join(SUFFIXES)}",
        )
    if not 0.1 <= fps <= MAX_FPS:
        raise InputError(
            "The speed was refused",
            seen=f"{fps} frames a second",
            repair=f"Give 0.1 to {MAX_FPS:g}",
        )
    if path.suffix.lower() == ".mp4":
        _av()


def save(frames: Iterable[Pixels], path: str | os.PathLike[str], *, fps: float = 30.0) -> int:
    """Write uint8 frames [H, W, C] of one size, whole or not at all; their number. .webp repeats for ever."""
    path = Path(path)
    check_suffix(path, fps)
    with atomic_file(path) as file:
        write = _mp4 if path.suffix.lower() == ".mp4" else _webp
        count = write(of_one_shape(frames), file, fps)
        if not count:
            raise InputError(
                f"{path} was not written", seen="no frames", repair="Give at least one frame"
            )
        return count


def of_one_shape(frames: Iterable[Pixels]) -> Iterator[Pixels]:
    """The frames, if each is an image of the first one's shape."""
    shape = None
    for frame in frames:
        to_pil(frame)  # refuses what is not an image
        if shape not in (None, frame.shape):
            raise InputError(
                "The frames are not of one size",
                seen=f"{frame.shape} after {shape}",
                repair="Give uint8 [H, W, C] of one shape",
            )
        shape = frame.shape
        yield frame


def _webp(frames: Iterator[Pixels], file: BinaryIO, fps: float) -> int:
    images = [to_pil(frame) for frame in frames]
    if not images:
        return 0
    first, *rest = images
    first.save(
        file, "WEBP", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, quality=90
    )  # fmt: skip
    return len(images)


def _mp4(frames: Iterator[Pixels], file: BinaryIO, fps: float) -> int:
    av, stream, count = _av(), None, 0
    with av.open(file, "w", format="mp4") as container:
        for frame in map(even, frames):
            count += 1
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())
    return count


def even(frame: Pixels) -> Pixels:
    """RGB of even height and width, as players want it: grey three times, alpha on white, the last line twice."""
    if frame.shape[2] == 1:
        frame = np.repeat(frame, 3, axis=2)
    elif frame.shape[2] == 4:
        frame = on_white(frame)
    height, width = frame.shape[:2]
    return np.ascontiguousarray(np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge"))


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise InputError(
            "No .mp4 can be written here",
            seen=f"{error}",
            repair="Install PyAV: pip install 'gan-toolchain[video]', or write a .webp",
        ) from error
    return av
