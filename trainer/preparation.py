"""Images into pixels: looked at, given room, decoded by several threads, cut or resized, samples and partners alike."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import DatasetError
from ..runtime.files import make_folder, writing
from ..runtime.folders import first_of
from .decode import TOO_SMALL, Fit, ImageRefused, NotSquare, prepare, tile_places
from .pairs import Images, Look
from .parts import Arrangement

logger = logging.getLogger("gan.trainer")

Channels = Literal["auto", 1, 3, 4]
Pixels = NDArray[np.uint8]
T = TypeVar("T")
NAMED = 3  # images told by name for each reason
AHEAD = 64  # images in work, or waiting for the ones before


@dataclass(frozen=True)
class Preparation:
    """How images become pixels: their size, fit and channels."""

    resolution: int
    fit: Fit | None
    arrangement: Arrangement
    channels: Channels
    partner_channels: int | None

    def run(
        self,
        groups: Sequence[Images],
        pool: ThreadPoolExecutor,
        scratch: Path | None,
        memory_limit: int,
    ) -> tuple[list[Pixels], list[int], Counter[str]]:
        """Samples, and partners where there are; the number of the image that each sample is of; what was skipped."""
        looks = [self._looks(images, pool) for images in groups]
        channels = self._channels(groups, looks)
        counts = [
            max(1, self._count(images, found))  # NumPy before 2.2 maps no empty file
            for images, found in zip(groups, looks, strict=True)
            for _ in range(images.sides)
        ]
        stores = _allocate(
            [
                (count, c, self.resolution, self.resolution)
                for count, c in zip(counts, channels, strict=True)
            ],
            scratch,
            memory_limit,
        )
        sides, numbers, skipped = list[Pixels](), list[list[int]](), Counter[str]()
        for images in groups:
            own = slice(len(sides), len(sides) + images.sides)
            kept, refused = self._fill(images, channels[own], stores[own], pool)
            sides += [store[: len(kept)] for store in stores[own]]
            numbers.append(kept)
            skipped += refused
        return sides, numbers[0], skipped

    def _looks(self, images: Images, pool: ThreadPoolExecutor) -> list[list[Look] | None]:
        """What the headers tell, None of files that cannot be read; empty where nobody needs to know."""
        if self.channels != "auto" and self.fit != "tiles" and images.sides == 1:
            return []

        def look(number: int) -> list[Look] | None:
            try:
                return images.look(number)
            except ImageRefused:
                return None

        looks = list(_in_order(pool, look, len(images.names)))
        sizes = [{(side.width, side.height) for side in found or ()} for found in looks]
        unlike = [number for number, found in enumerate(sizes) if len(found) > 1]
        if unlike:
            failed, repair = images.unlike
            told = " and ".join(f"{s.width} x {s.height}" for s in looks[unlike[0]] or ())
            names = first_of([images.names[number] for number in unlike])
            raise DatasetError(failed, seen=f"{names}: {told} pixels", repair=repair)
        return looks

    def _channels(
        self, groups: Sequence[Images], looks: Sequence[list[list[Look] | None]]
    ) -> list[int]:
        """Of each side: 1 where every readable image is grey, else 3, unless others are wanted."""
        wanted = [
            max((look[side].channels for look in found if look), default=1)
            for images, found in zip(groups, looks, strict=True)
            for side in range(images.sides)
        ]
        alike = self.arrangement == "unpaired" and self.partner_channels is None
        if self.channels != "auto":
            wanted[0] = self.channels
        elif alike:
            wanted[0] = max(wanted)
        if len(wanted) > 1:
            wanted[1] = self.partner_channels or (wanted[0] if alike else wanted[1])
        return wanted

    def _count(self, images: Images, looks: list[list[Look] | None]) -> int:
        """How many there will be at most."""
        if self.fit != "tiles":
            return len(images.names)
        firsts = [look[0] for look in looks if look]
        return sum(
            len(tile_places(look.width, self.resolution))
            * len(tile_places(look.height, self.resolution))
            for look in firsts
        )

    def _fill(
        self, images: Images, channels: list[int], stores: list[Pixels], pool: ThreadPoolExecutor
    ) -> tuple[list[int], Counter[str]]:
        """Decode all into the stores: the number of the image in each row, and what was skipped."""

        def load(number: int) -> list[Pixels] | str:
            name = images.names[number]
            try:
                decoded = images.decode(number, channels)
                return [prepare(image, self.resolution, self.fit) for image in decoded]
            except NotSquare as error:
                raise DatasetError(
                    f"{name} is not square",
                    seen=f"{images.of}{error} pixels",
                    repair=f"Choose what to do with such images: --fit {' or '.join(get_args(Fit))}",
                ) from error
            except ImageRefused as error:
                logger.debug("Skipped %s: %s", name, error)
                return error.reason

        skipped, numbers, total = Skipped(images.names), list[int](), len(images.names)
        for number, result in enumerate(_in_order(pool, load, total)):
            if isinstance(result, str):
                skipped.add(number, result)
                continue
            rows = slice(len(numbers), len(numbers) + len(result[0]))
            if rows.stop > len(stores[0]) or any(len(side) != len(result[0]) for side in result):
                skipped.add(number, "changed while it was read")
                continue
            for store, pixels in zip(stores, result, strict=True):
                store[rows] = pixels
            numbers += [number] * len(result[0])
        skipped.check(images, kept=len(numbers))
        if skipped.counts:
            logger.warning(
                "Skipped %d of %d %s: %s", skipped.counts.total(), total, images.noun, skipped
            )
        return numbers, skipped.counts


class Skipped:
    """The images that are left out: how many for each reason, and the first of their names."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._first = names, dict[str, list[str]]()
        self.counts = Counter[str]()

    def add(self, number: int, reason: str) -> None:
        self.counts[reason] += 1
        if self.counts[reason] <= NAMED:
            self._first.setdefault(reason, []).append(self._names[number])

    def __str__(self) -> str:
        """`4 x not an image (a.png, b.png, c.png, ...), 1 x damaged (d.jpg)`."""
        return ", ".join(
            f"{count} x {reason} ({', '.join(self._first[reason])}{', ...' * (count > NAMED)})"
            for reason, count in self.counts.most_common()
        )

    def check(self, images: Images, *, kept: int) -> None:
        """Raise `DatasetError` where nothing is left, or most cannot be read: hardly what was meant to be trained on."""
        if not kept:
            raise DatasetError(
                f"{images.place} holds no usable image",
                seen=f"{self}",
                repair="Give PNG, JPEG, WebP, BMP, GIF or TIFF files that an image viewer opens",
            )
        unread = self.counts.total() - self.counts[TOO_SMALL]
        if 2 * unread > len(self._names):
            raise DatasetError(
                f"Most {images.noun} of {images.place} cannot be used",
                seen=f"{unread} of {len(self._names)}: {self}",
                repair="Remove or repair them, or give another folder",
            )


def _in_order(pool: ThreadPoolExecutor, function: Callable[[int], T], count: int) -> Iterator[T]:
    """What the function makes of 0 to count - 1, by the pool, at most `AHEAD` of it at once in memory."""
    waiting = deque[Future[T]]()
    try:
        for number in range(count):
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
            waiting.append(pool.submit(function, number))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _allocate(
    shapes: Sequence[tuple[int, ...]], scratch: Path | None, memory_limit: int
) -> list[Pixels]:
    """Room for samples, and for partners: all in memory or all in files."""
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    if sum(sizes) <= memory_limit:
        return [np.empty(shape, np.uint8) for shape in shapes]
    if scratch is None:
        raise DatasetError(
            "The images do not fit",
            seen=f"{sum(sizes)} bytes of pixels, limit {memory_limit}",
            repair="Give a folder for them, or a smaller resolution",
        )
    files = [make_folder(scratch) / name for name in ("pixels.u8", "partners.u8")[: len(shapes)]]
    for file, size in zip(files, sizes, strict=True):
        logger.info("The images need %.1f GB: they go to %s", size / 1e9, file)
        with writing(f"{file}, {size / 1e9:.1f} GB,"):
            _reserve(file, size)
    return [
        np.memmap(file, np.uint8, "r+", shape=shape)
        for file, shape in zip(files, shapes, strict=True)
    ]


def _reserve(file: Path, size: int) -> None:
    """Take the room on the disk now: to write a mapped page for which there is none ends the process."""
    file.unlink(missing_ok=True)  # a run that maps the old one keeps it
    try:
        with open(file, "xb") as room:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(room.fileno(), 0, size)
            else:
                room.truncate(size)
    except OSError:
        file.unlink(missing_ok=True)
        raise
