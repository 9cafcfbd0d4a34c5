"""Training data: a folder, a zip of the same, or built-in data by name, prepared once as uint8 pixels.

All images are decoded before the first step, so that a bad file is found then and not hours later. Where they need
more memory than `memory_limit` they live in files beside the run instead.
"""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..runtime.errors import DatasetError, InputError
from ..runtime.folders import SUFFIXES, first_of
from . import builtin
from .dataset import Dataset
from .decode import Fit
from .pairs import Halves, Images, Matched, Single, apart, domains
from .parts import Arrangement
from .preparation import Channels, Preparation
from .sources import Source, name_of, open_source

logger = logging.getLogger("gan.trainer")

DEFAULT_RESOLUTION = 64


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
    if known is None or known.kind == "image":
        _check_window(window, size)
    if swap and (known.arrangement if known else arrangement) == "single":
        raise InputError(
            "There is nothing to swap",
            seen="samples without partners",
            repair="Leave --swap out, or give data and a system with two sides",
        )
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


def check_classes(data: Dataset) -> None:
    """Raise `DatasetError` where a class has no sample: a model would be asked for what it never saw."""
    there = set() if data.labels is None else set(data.labels.tolist())
    without = [name for label, name in enumerate(data.classes) if label not in there]
    if without:
        raise DatasetError(
            f"{data.name} has classes without a usable image",
            seen=f"{first_of(without)}, of {len(data.classes)} classes",
            repair="Repair their images, remove their folders, or train with --no-labels",
        )


def _open(path: str | None) -> Source:
    return _filled(open_source(path or "", other=f", or one of {', '.join(builtin.NAMES)}"))


def _filled(source: Source) -> Source:
    if not source.items:
        raise DatasetError(
            f"{source.place} holds no images",
            seen=". ".join([f"No file that ends in {', '.join(sorted(SUFFIXES))}", *source.notes]),
            repair="Give a folder or a zip of images, classes as sub-folders",
        )
    return source


def _check_window(window: int | None, size: int) -> None:
    if window is not None and window > size:
        raise InputError(
            "The windows do not fit into the images",
            seen=f"--crop {window}, images of {size} pixels",
            repair="Choose a smaller --crop, or a larger --resolution",
        )


def _arranged(
    data: Source, source: str | None, arrangement: Arrangement, swap: bool
) -> tuple[list[Images], Source | None]:
    """What is read together, samples first; and the source of single samples, whose classes count."""
    for note in data.notes:
        logger.warning("%s", note)
    if arrangement == "single":
        assert source is None
        return [Single(data)], data
    if source is None and arrangement == "pairs":
        left, right = ("right", "left") if swap else ("left", "right")
        logger.info("Pairs side by side: the %s half of each is made from the %s one", right, left)
        return [Halves(data, swap=swap)], None
    if source is None:
        partners, samples = domains(data)
    else:
        apart(data.place, Path(source))
        samples, partners = data, _filled(open_source(source, role="a source"))
        for note in partners.notes:
            logger.warning("%s", note)
    if swap:
        samples, partners = partners, samples
    logger.info("From %s to %s", partners.place, samples.place)
    if arrangement == "pairs":
        return [Matched(samples, partners)], samples
    return [Single(samples), Single(partners)], None
