"""Training data: a folder, a zip of the same, or built-in data by name, prepared once as uint8 pixels.

All images are decoded before the first step, so that a bad file is found then and not hours later. Where they need
more memory than `memory_limit` they live in files beside the run instead.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import DatasetError, InputError
from . import builtin
from .dataset import Dataset
from .decode import Fit, ImageRefused, NotSquare, prepare, tile_places
from .pairs import Halves, Images, Look, Matched, Single, apart, domains, first_of
from .parts import Arrangement
from .sources import Source, name_of, open_source

logger = logging.getLogger("gan.trainer")

DEFAULT_RESOLUTION = 64
Channels = Literal["auto", 1, 3, 4]
Pixels = NDArray[np.uint8]


def source_name(path: str | None) -> str:
    """A short name of the data, as used in run folders."""
    known = builtin.find(path)
    return known.name if known else name_of(Path(path or ""))


def classes_of(path: str | None) -> tuple[str, ...]:
    """The data's classes, before anything is decoded. Raises `DatasetError`."""
    known = builtin.find(path)
    return known.classes if known else _open(path).classes


def load_dataset(
    path: str | None,
    *,
    source: str | None = None,
    arrangement: Arrangement = "single",
    resolution: int | None = None,
    channels: Channels = "auto",
    partner_channels: int | None = None,
    fit: Fit | None = None,
    window: int | None = None,
    swap: bool = False,
    workers: int = 2,
    scratch: Path | None = None,
    memory_limit: int = 4 << 30,
) -> Dataset:
    """The data at `path`: a folder or a zip as square images, or built-in data by its name (None: the digits).

    arrangement: of files; built-in data have their own. source: where the partners are, the images that samples are
    made from; without it pairs lie side by side in one file, and two sets in two sub-folders. swap: exchange samples
    and partners. resolution: by default that of the built-in data, or 64. channels: of samples; partners have
    `partner_channels`, or as many as their files, or in two sets as many as samples. fit: what to do with an image
    that is not square; None refuses it. window: pixels a side of what is trained on at once. workers: decoding
    threads; their number changes nothing. scratch: a folder for the pixels where they exceed `memory_limit` bytes.
    Raises `DatasetError` and `InputError`.
    """
    known = builtin.find(path)
    size = resolution or (known.resolution if known else None) or DEFAULT_RESOLUTION
    _check(known.arrangement if known else arrangement, source, window, size, swap)
    if known:
        if source is not None:
            raise InputError(
                f"{known.name} takes no source",
                seen=f"--source {source}",
                repair="Leave it out: built-in data have their partners, or give a folder or zip as data",
            )
        count = None if channels == "auto" else channels
        return known.load(resolution, count, fit, window=window, swap=swap)
    groups, labelled = _arranged(_open(path), source, arrangement, swap)
    plan = Preparation(size, fit, arrangement, channels, partner_channels)
    with (
        warnings.catch_warnings(),  # here, because it is process-wide: threads must not each set it
        ThreadPoolExecutor(max(1, workers), thread_name_prefix="gan-data") as pool,
    ):
        warnings.simplefilter("ignore")  # Pillow's on odd files; what cannot be used is refused
        sides, numbers, skipped = plan.run(groups, pool, scratch, memory_limit)
    labels = None
    if labelled and labelled.classes:
        labels = np.array([labelled.items[number].label for number in numbers], np.int64)
    return Dataset(
        source_name(path),
        sides[0],
        labels,
        labelled.classes if labelled else (),
        skipped,
        partners=sides[1] if len(sides) > 1 else None,
        arrangement=arrangement,
        window=window,
    )


def _open(path: str | None) -> Source:
    return _filled(open_source(path or "", other=f", or one of {', '.join(builtin.NAMES)}"))


def _filled(source: Source) -> Source:
    if not source.items:
        raise DatasetError(
            f"{source.place} holds no images",
            seen="no file of a type that can be read (PNG, JPEG, WebP, BMP, GIF, TIFF)",
            repair="Give a folder or a zip of images, classes as sub-folders",
        )
    return source


def _check(
    arrangement: Arrangement, source: str | None, window: int | None, size: int, swap: bool
) -> None:
    if window is not None and window > size:
        raise InputError(
            "The windows do not fit into the images",
            seen=f"--crop {window}, images of {size} pixels",
            repair="Choose a smaller --crop, or a larger --resolution",
        )
    if swap and arrangement == "single":
        raise InputError(
            "There is nothing to swap",
            seen="samples without partners",
            repair="Leave --swap out, or give data and a system with two sides",
        )


def _arranged(
    data: Source, source: str | None, arrangement: Arrangement, swap: bool
) -> tuple[list[Images], Source | None]:
    """What is read together, samples first; and the source of single samples, whose classes count."""
    if arrangement == "single":
        assert source is None
        return [Single(data)], data
    if source is None and arrangement == "pairs":
        logger.info("Each image is a pair: a half is made from the other half")
        return [Halves(data, swap=swap)], None
    if source is None:
        partners, samples = domains(data)
    else:
        apart(data.place, Path(source))
        samples, partners = data, _filled(open_source(source, role="a source"))
    if swap:
        samples, partners = partners, samples
    logger.info("From %s to %s", partners.place, samples.place)
    if arrangement == "pairs":
        return [Matched(samples, partners)], None
    return [Single(samples), Single(partners)], None


@dataclass
class Preparation:
    """How images become pixels: their size, fit and channels."""

    resolution: int
    fit: Fit | None
    arrangement: Arrangement
    channels: Channels
    partner_channels: int | None
    skipped: Counter[str] = field(default_factory=Counter)

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
            max(1, self._count(images, found))  # no array may be empty, even where none is kept
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
        sides, numbers = list[Pixels](), list[list[int]]()
        for images in groups:
            own = slice(len(sides), len(sides) + images.sides)
            numbers.append(self._fill(images, channels[own], stores[own], pool))
            sides += [store[: len(numbers[-1])] for store in stores[own]]
        return sides, numbers[0], self.skipped

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
    ) -> list[int]:
        """Decode all into the stores; the number of the image in each row."""
        skipped: Counter[str] = Counter()

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
        self.skipped += skipped
        return numbers


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
    scratch.mkdir(parents=True, exist_ok=True)
    files = [scratch / name for name in ("pixels.u8", "partners.u8")[: len(shapes)]]
    for file, size in zip(files, sizes, strict=True):
        file.unlink(
            missing_ok=True
        )  # a run that maps the old one keeps it; writing into it would not
        logger.info("The images need %.1f GB: they go to %s", size / 1e9, file)
    return [
        np.memmap(file, np.uint8, "w+", shape=shape)
        for file, shape in zip(files, shapes, strict=True)
    ]
