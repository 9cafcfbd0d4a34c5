"""Training data: a folder, a zip of the same, or built-in data by name, prepared once as uint8 pixels.

All images are decoded before the first step, so that a bad file is found then and not hours later. Where they need
more memory than `memory_limit` they live in a file beside the run instead.
"""

from __future__ import annotations

import logging
import os
import posixpath
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import DatasetError
from ..runtime.signature import natural_order
from . import builtin
from .dataset import Dataset
from .decode import Fit, ImageRefused, NotSquare, channels_of, decode

logger = logging.getLogger("gan.trainer")

DEFAULT_RESOLUTION = 64
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_MEMBERS, MAX_MEMBER_BYTES, MAX_RATIO = 2_000_000, 256 << 20, 200
Channels = Literal["auto", 1, 3, 4]


@dataclass(frozen=True)
class Item:
    """One image file: its name within the source and its class, None without classes."""

    name: str
    label: int | None


class Source(Protocol):
    """Where encoded images come from."""

    name: str
    items: list[Item]
    classes: tuple[str, ...]

    def read(self, item: Item) -> bytes: ...


def source_name(path: str | None) -> str:
    """A short name of the data, as used in run folders."""
    known = builtin.find(path)
    return known.name if known else Path(path or "").resolve().stem or "data"


def load_dataset(
    path: str | None,
    *,
    resolution: int | None = None,
    channels: Channels = "auto",
    fit: Fit | None = None,
    workers: int = 2,
    scratch: Path | None = None,
    memory_limit: int = 4 << 30,
) -> Dataset:
    """The data at `path`: a folder or a zip as square images, or built-in data by its name (None: the digits).

    resolution: by default that of the built-in data, or 64. fit: what to do with an image that is not square; None refuses it. workers: decoding threads; their number
    changes nothing. scratch: a folder for the pixels where they exceed `memory_limit` bytes. Raises
    `DatasetError`.
    """
    known = builtin.find(path)
    if known:
        return known.load(resolution, None if channels == "auto" else channels, fit)
    source = open_source(path or "")
    if not source.items:
        raise DatasetError(
            f"{source.name} holds no images",
            seen=f"no file that ends in {', '.join(sorted(SUFFIXES))}",
            repair="Give a folder or a zip of images, classes as sub-folders",
        )
    return _prepare(
        source, resolution or DEFAULT_RESOLUTION, channels, fit, workers, scratch, memory_limit
    )


def classes_of(path: str | None) -> tuple[str, ...]:
    """The data's classes, before anything is decoded. Raises `DatasetError`."""
    known = builtin.find(path)
    return known.classes if known else open_source(path or "").classes


def open_source(path: str) -> Source:
    """The source at `path`, listed but not decoded. Raises `DatasetError`."""
    place = Path(path)
    if place.is_dir():
        return FolderSource(place)
    if place.is_file() and zipfile.is_zipfile(place):
        return ZipSource(place)
    seen = (
        "It is neither a folder nor a zip" if place.exists() else "There is no such file or folder"
    )
    raise DatasetError(
        f"{path} cannot be used as data",
        seen=seen,
        repair=f"Give a folder or a zip of images, or one of {', '.join(builtin.NAMES)}",
    )


class FolderSource:
    """Images anywhere below a folder; first-level sub-folders are classes if no image lies beside them."""

    def __init__(self, root: Path) -> None:
        self.name, self._root = source_name(str(root)), root
        found = [path.relative_to(root).as_posix() for path in _walk(root)]
        self.items, self.classes = classify(found)

    def read(self, item: Item) -> bytes:
        path = self._root / item.name
        if path.stat().st_size > MAX_MEMBER_BYTES:
            raise ImageRefused(f"more than {MAX_MEMBER_BYTES >> 20} MB")
        return path.read_bytes()


class ZipSource:
    """The same within a zip, read member by member and never extracted."""

    def __init__(self, path: Path) -> None:
        self.name = source_name(str(path))
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # zipfile raises many kinds on a damaged directory
            raise DatasetError(
                f"{path} cannot be read", seen=f"{error}", repair="Pack the images anew"
            ) from error
        members = [info for info in self._zip.infolist() if _is_image(info.filename)]
        self._check(path, members)
        self._members = {info.filename: info for info in members}
        self.items, self.classes = classify(list(self._members))

    def read(self, item: Item) -> bytes:
        info = self._members[item.name]
        try:
            with self._zip.open(info) as member:
                data = member.read(info.file_size + 1)
        except Exception as error:  # zlib, lzma and zipfile raise many kinds on damaged members
            raise ImageRefused("damaged in the zip") from error
        if len(data) > info.file_size:
            raise ImageRefused("larger than the archive says")
        return data

    @staticmethod
    def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
        names = Counter(info.filename for info in members)
        reasons = {
            "too many members": len(members) > MAX_MEMBERS,
            "members of one name": any(count > 1 for count in names.values()),
            "encrypted members": any(info.flag_bits & 1 for info in members),
            "absolute or parent paths": any(_escapes(name) for name in names),
            "a member beyond the size limit": any(i.file_size > MAX_MEMBER_BYTES for i in members),
            f"compression beyond {MAX_RATIO}:1": any(
                info.file_size > MAX_RATIO * max(info.compress_size, 1) for info in members
            ),
        }
        for reason, holds in reasons.items():
            if holds:
                raise DatasetError(
                    f"{path} was refused",
                    seen=f"The zip has {reason}",
                    repair="Pack the images anew",
                )


def classify(names: Iterable[str]) -> tuple[list[Item], tuple[str, ...]]:
    """Items in a fixed order, and their classes: the first-level folders, if every image is in one.

    A folder that holds everything, as in a zip of a folder, is no level: what is below it counts.
    """
    ordered = sorted(names)
    if not ordered:
        return [], ()
    above = len(PurePosixPath(posixpath.commonpath([posixpath.dirname(n) for n in ordered])).parts)
    below = [PurePosixPath(name).parts[above:] for name in ordered]
    if any(len(parts) < 2 for parts in below):
        return [Item(name, None) for name in ordered], ()
    classes = natural_order(sorted({parts[0] for parts in below}))
    index = {name: i for i, name in enumerate(classes)}
    return [Item(n, index[p[0]]) for n, p in zip(ordered, below, strict=True)], tuple(classes)


def _prepare(
    source: Source,
    resolution: int,
    channels: Channels,
    fit: Fit | None,
    workers: int,
    scratch: Path | None,
    memory_limit: int,
) -> Dataset:
    skipped: Counter[str] = Counter()
    with (
        warnings.catch_warnings(),  # here, because it is process-wide: threads must not each set it
        ThreadPoolExecutor(max(1, workers), thread_name_prefix="gan-data") as pool,
    ):
        warnings.simplefilter("ignore")  # Pillow's on odd files; what cannot be used is refused
        wanted = channels if channels != "auto" else _common_channels(source, pool)

        def load(item: Item) -> NDArray[np.uint8] | str:
            try:
                return decode(source.read(item), resolution=resolution, channels=wanted, fit=fit)
            except NotSquare as error:
                raise DatasetError(
                    f"{item.name} is not square",
                    seen=f"{error} pixels",
                    repair=f"Choose what to do with such images: --fit {' or '.join(get_args(Fit))}",
                ) from error
            except (ImageRefused, OSError) as error:
                logger.info("Skipped %s: %s", item.name, error)
                return error.reason if isinstance(error, ImageRefused) else type(error).__name__

        pixels = _allocate(
            (len(source.items), wanted, resolution, resolution), scratch, memory_limit
        )
        kept: list[int] = []
        for number, result in enumerate(pool.map(load, source.items)):
            if isinstance(result, str):
                skipped[result] += 1
            else:
                pixels[len(kept)] = result
                kept.append(number)
    reasons = ", ".join(f"{count} x {reason}" for reason, count in skipped.most_common())
    if skipped:
        logger.warning("Skipped %d of %d images: %s", skipped.total(), len(source.items), reasons)
    if not kept:
        raise DatasetError(
            f"{source.name} holds no usable image",
            seen=reasons,
            repair="Give PNG, JPEG, WebP, BMP, GIF or TIFF files that an image viewer opens",
        )
    labels = None
    if source.classes:
        labels = np.array([source.items[number].label for number in kept], np.int64)
    return Dataset(source.name, pixels[: len(kept)], labels, source.classes, skipped)


def _allocate(shape: tuple[int, ...], scratch: Path | None, memory_limit: int) -> NDArray[np.uint8]:
    size = int(np.prod(shape, dtype=np.int64))
    if size <= memory_limit:
        return np.empty(shape, np.uint8)
    if scratch is None:
        raise DatasetError(
            "The images do not fit",
            seen=f"{size} bytes of pixels, limit {memory_limit}",
            repair="Give a folder for them, or a smaller resolution",
        )
    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch / "pixels.u8"
    file.unlink(missing_ok=True)  # a run that maps the old one keeps it; writing into it would not
    logger.info("The images need %.1f GB: they go to %s", size / 1e9, file)
    return np.memmap(file, np.uint8, "w+", shape=shape)


def _common_channels(source: Source, pool: ThreadPoolExecutor) -> int:
    """1 where every readable image is grey, else 3."""

    def look(item: Item) -> int:
        try:
            return channels_of(source.read(item))
        except (ImageRefused, OSError):
            return 1

    return max(pool.map(look, source.items))


def _is_image(name: str) -> bool:
    path = Path(name)
    hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _walk(root: Path) -> Iterator[Path]:
    """Image files below a folder; linked folders too, each real folder once, so that a loop ends."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=_unreadable, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        _drop_hidden(folders)
        yield from (Path(folder, file) for file in files if _is_image(file))


def _drop_hidden(folders: list[str]) -> None:
    folders[:] = sorted(folder for folder in folders if not folder.startswith("."))


def _escapes(name: str) -> bool:
    return (
        name.startswith(("/", "\\"))
        or ".." in Path(name.replace("\\", "/")).parts
        or ":" in name[:3]
    )


def _unreadable(error: OSError) -> None:
    logger.warning("Skipped a folder: %s", error)
