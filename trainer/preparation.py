"""Images into pixels: looked at, given room, decoded by several threads, cut or resized, samples and partners alike."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import DatasetError
from ..runtime.files import make_folder, writing
from .decode import Fit, ImageRefused, NotSquare, prepare, tile_places
from .pairs import Images, Look, first_of
from .parts import Arrangement

logger = logging.getLogger("gan.trainer")

Channels = Literal["auto", 1, 3, 4]
Pixels = NDArray[np.uint8]


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
            except (ImageRefused, OSError):
                return None

        looks = list(pool.map(look, range(len(images.names))))
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
        skipped = Counter[str]()

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
            except (ImageRefused, OSError) as error:
                logger.info("Skipped %s: %s", name, error)
                return error.reason if isinstance(error, ImageRefused) else type(error).__name__

        numbers, total = list[int](), len(images.names)
        for number, result in enumerate(pool.map(load, range(total))):
            if isinstance(result, str):
                skipped[result] += 1
                continue
            rows = slice(len(numbers), len(numbers) + len(result[0]))
            for store, pixels in zip(stores, result, strict=True):
                store[rows] = pixels
            numbers += [number] * len(result[0])
        reasons = ", ".join(f"{count} x {reason}" for reason, count in skipped.most_common())
        if skipped:
            logger.warning("Skipped %d of %d %s: %s", skipped.total(), total, images.noun, reasons)
        if not numbers:
            raise DatasetError(
                f"{images.place} holds no usable image",
                seen=reasons,
                repair="Give PNG, JPEG, WebP, BMP, GIF or TIFF files that an image viewer opens",
            )
        return numbers, skipped


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
            file.unlink(missing_ok=True)  # a run that maps the old one keeps it
            with open(file, "xb") as room:
                _reserve(room.fileno(), size)
    return [
        np.memmap(file, np.uint8, "r+", shape=shape)
        for file, shape in zip(files, shapes, strict=True)
    ]


def _reserve(descriptor: int, size: int) -> None:
    """Take the room on the disk now: to write a mapped page for which there is none ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)
