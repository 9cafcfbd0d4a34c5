"""Where encoded images come from: a folder, or a zip of the same, listed in a fixed order and read one by one.

Nothing is decoded here, and nothing that an archive says of itself is trusted.
"""

from __future__ import annotations

import logging
import os
import posixpath
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from ..runtime.errors import DatasetError
from ..runtime.signature import natural_order
from .decode import ImageRefused

logger = logging.getLogger("gan.trainer")

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_MEMBERS, MAX_MEMBER_BYTES, MAX_RATIO = 2_000_000, 256 << 20, 200


@dataclass(frozen=True)
class Item:
    """One image file: its name within the source and its class, None without classes."""

    name: str
    label: int | None


class Source(Protocol):
    """Where encoded images come from. place: as the user wrote it."""

    place: Path
    items: list[Item]
    classes: tuple[str, ...]

    def read(self, item: Item) -> bytes: ...


def open_source(path: str, *, role: str = "data", other: str = "") -> Source:
    """The images at `path`, listed but not decoded. other: what could be given instead. Raises `DatasetError`."""
    place = Path(path)
    if os.path.isdir(place):  # no path is too odd for it
        return FolderSource(place)
    if os.path.isfile(place) and zipfile.is_zipfile(place):
        return ZipSource(place)
    there = os.path.exists(place)
    seen = "It is neither a folder nor a zip" if there else "There is no such file or folder"
    raise DatasetError(
        f"{path} cannot be used as {role}",
        seen=seen,
        repair=f"Give a folder or a zip of images{other}",
    )


def name_of(place: Path) -> str:
    """A short name of the images there."""
    return place.resolve().stem or "data"


class FolderSource:
    """Images anywhere below a folder; first-level sub-folders are classes if no image lies beside them."""

    def __init__(self, root: Path) -> None:
        self.place = root
        found = [path.relative_to(root).as_posix() for path in _walk(root)]
        self.items, self.classes = classify(found)

    def read(self, item: Item) -> bytes:
        path = self.place / item.name
        if path.stat().st_size > MAX_MEMBER_BYTES:
            raise ImageRefused(f"more than {MAX_MEMBER_BYTES >> 20} MB")
        return path.read_bytes()


class ZipSource:
    """The same within a zip, read member by member and never extracted."""

    def __init__(self, path: Path) -> None:
        self.place = path
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
    below = below_the_top(ordered)
    if any(len(parts) < 2 for parts in below):
        return [Item(name, None) for name in ordered], ()
    classes = natural_order(sorted({parts[0] for parts in below}))
    index = {name: i for i, name in enumerate(classes)}
    return [Item(n, index[p[0]]) for n, p in zip(ordered, below, strict=True)], tuple(classes)


def below_the_top(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The parts of each name below the folder that holds everything."""
    top = posixpath.commonpath([posixpath.dirname(name) for name in names])
    above = len(PurePosixPath(top).parts)
    return [PurePosixPath(name).parts[above:] for name in names]


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
