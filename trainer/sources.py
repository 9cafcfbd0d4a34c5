"""Where encoded images come from: a folder, or a zip of the same, listed in a fixed order and read one by one.

Nothing is decoded here, and nothing that an archive says of itself is trusted.
"""

from __future__ import annotations

import io
import os
import re
import stat
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..runtime import pictures
from ..runtime.errors import DatasetError, InputError
from ..runtime.folders import Listing, first_of
from ..runtime.signature import natural_order
from ..runtime.text import is_unseen, legible
from .decode import ImageRefused

MAX_MEMBERS, MAX_MEMBER_BYTES, MAX_RATIO = 2_000_000, 256 << 20, 200
MAX_DIRECTORY = (
    128 << 20
)  # bytes in which a zip tells its members: a million and a half of usual names
METHODS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
)  # Python bounds what no other makes of its bytes
MEMBER_HEADER = 30  # bytes before a member's name and bytes, at the least
SPLIT = "Give a folder, or fewer images"
ANEW = "Pack the images anew, from within their folder"


@dataclass(frozen=True)
class Item:
    """One image file: its name within the source and its class, None without classes."""

    name: str
    label: int | None


class Source(Protocol):
    """Where encoded images come from. place: as the user wrote it. notes: what else is there, each a line to tell."""

    place: Path
    items: list[Item]
    classes: tuple[str, ...]
    notes: list[str]

    def read(self, item: Item) -> bytes: ...


def open_source(path: str, *, role: str = "data", other: str = "") -> Source:
    """The images at `path`, listed but not decoded. other: what could be given instead. Raises `DatasetError`."""
    place = Path(path)
    try:
        if path and os.path.isdir(place):  # no path is too odd for it
            return FolderSource(place)
        if path and _is_zip(place):
            return ZipSource(place)
        seen = "It is neither a folder nor a zip" if path else "The path is empty"
    except InputError as error:
        seen = "There is no such file or folder" if error.seen == "no such file" else error.seen
    except OSError as error:
        seen = error.strerror or f"{error!s:.200}"
    raise DatasetError(
        f"{legible(path) or repr(path):.200} cannot be used as {role}",
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
        listing = Listing.of(root)
        self.notes = listing.notes()
        self.items, self.classes = classify(listing.images, root)

    def read(self, item: Item) -> bytes:
        try:
            with pictures.open_file(self.place / item.name, MAX_MEMBER_BYTES) as file:
                return file.read(os.fstat(file.fileno()).st_size)
        except InputError as error:
            raise ImageRefused(error.seen) from error
        except OSError as error:
            raise ImageRefused(error.strerror or type(error).__name__) from error


class ZipSource:
    """The same within a zip, read member by member and never extracted."""

    def __init__(self, path: Path) -> None:
        self.place = path
        try:
            self._zip = zipfile.ZipFile(_Bounded(path))
        except _TooMuch as error:
            raise _refused(path, "too many members, or too long names", "", SPLIT) from error
        except Exception as error:  # zipfile raises many kinds on a damaged directory
            raise DatasetError(
                f"{path} cannot be read",
                seen=f"{error}: it may have been cut short",
                repair="Copy it, or pack the images, anew",
            ) from error
        infos = self._zip.infolist()
        if len(infos) > MAX_MEMBERS:
            raise _refused(path, "too many members", f"{len(infos)}, at most {MAX_MEMBERS}", SPLIT)
        named = [(_name(info), info) for info in infos]
        files = [(name, info) for name, info in named if not name.endswith("/")]
        folders = [name for name, _ in named if name.endswith("/")]
        listing = Listing.of_names([name for name, _ in files], folders)
        images = frozenset(listing.images)
        members = [(name, info) for name, info in files if name in images]
        _check(path, members)
        self._members = dict(members)
        self.notes = listing.notes()
        self.items, self.classes = classify(listing.images, path)

    def read(self, item: Item) -> bytes:
        info = self._members[item.name]
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ImageRefused("a link in the zip")
        try:
            with self._zip.open(info) as member:
                return member.read(info.file_size + 1)
        except Exception as error:  # zlib and zipfile raise many kinds on damaged members
            raise ImageRefused("damaged in the zip") from error


def _is_zip(place: Path) -> bool:
    """Whether it begins as a zip, though it may be cut short, or ends as one, though something may stand before it."""
    with pictures.open_file(place, max_bytes=1 << 62) as file:
        try:
            return file.read(2) == b"PK" or zipfile.is_zipfile(file)
        except zipfile.BadZipFile:
            return True


class _TooMuch(Exception):
    pass


class _Bounded(io.BufferedReader):
    """A file of which so much at once is read as a zip's directory or a member may have, and no more."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > max(MAX_DIRECTORY, MAX_MEMBER_BYTES + 1):
            raise _TooMuch
        return super().read(size)

    def __del__(self) -> None:
        self.close()


def _check(path: Path, members: Sequence[tuple[str, zipfile.ZipInfo]]) -> None:
    """Raise `DatasetError` for what a zip that was made to hold images does not have, naming the first such member."""
    counts = Counter(name for name, _ in members)
    inside = _within_others(members)
    size = f"Each has at most {MAX_MEMBER_BYTES >> 20} MiB; make it smaller"
    store = "Store images without compression (zip -0), or as PNG"
    hurts: dict[str, tuple[Callable[[str, zipfile.ZipInfo], object], str]] = {
        "absolute or parent paths": (lambda name, _: _escapes(name), ANEW),
        "members of one name": (lambda name, _: counts[name] > 1, ANEW),
        "encrypted members": (lambda _, info: info.flag_bits & 1, "Pack the images without a password"),
        "a member beyond the size limit": (lambda _, info: info.file_size > MAX_MEMBER_BYTES, size),
        "a compression method other than deflate": (
            lambda _, info: info.compress_type not in METHODS, store),
        f"compression beyond {MAX_RATIO}:1": (
            lambda _, info: info.file_size > MAX_RATIO * max(info.compress_size, 1), store),
        "members within each other": (lambda name, _: name in inside, ANEW),
    }  # fmt: skip
    for reason, (holds, repair) in hurts.items():
        hit = list(dict.fromkeys(name for name, info in members if holds(name, info)))
        if hit:
            raise _refused(path, reason, first_of(hit), repair)


def _within_others(members: Iterable[tuple[str, zipfile.ZipInfo]]) -> set[str]:
    """The members whose bytes begin in another's: so can little data stand for very much."""
    found, end = set[str](), 0
    for name, info in sorted(members, key=lambda member: member[1].header_offset):
        if info.header_offset < end:
            found.add(name)
        end = max(end, info.header_offset + MEMBER_HEADER + info.compress_size)
    return found


def _refused(path: Path, reason: str, seen: str, repair: str) -> DatasetError:
    return DatasetError(
        f"{path} was refused",
        seen=f"The zip has {reason}" + (f": {seen}" if seen else ""),
        repair=repair,
    )


def _name(info: zipfile.ZipInfo) -> str:
    """A member's name, with slashes; in UTF-8 where it is, though not every packer says so."""
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = info.filename
    name = name.replace("\\", "/")
    if "./" in name or "//" in name:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        name = "/" * name.startswith("/") + "/".join(parts) + "/" * name.endswith("/")
    return name


def classify(names: Sequence[str], place: Path) -> tuple[list[Item], tuple[str, ...]]:
    """Items in the order of their sorted names, and their classes: the first-level folders, if every image is in one.

    A folder that holds everything, as in a zip of a folder, is no level: what is below it counts. The two ways to
    write an accent are one class. Raises `DatasetError` for a class whose name is no text.
    """
    if not names:
        return [], ()
    below = below_the_top(names)
    if any(len(parts) < 2 for parts in below):
        return [Item(name, None) for name in names], ()
    known = {part: _class_name(part, place) for part in {parts[0] for parts in below}}
    classes = natural_order(sorted(set(known.values())))
    index = {name: i for i, name in enumerate(classes)}
    return [
        Item(name, index[known[parts[0]]]) for name, parts in zip(names, below, strict=True)
    ], tuple(classes)


def _class_name(folder: str, place: Path) -> str:
    if any(map(is_unseen, folder)):
        raise DatasetError(
            "The name of a class is not text",
            seen=f"The folder {legible(folder)} in {place}",
            repair="Rename it: a model that tells its classes by name can be asked for them",
        )
    return unicodedata.normalize("NFC", folder)


def below_the_top(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The parts of each name below the folder that holds everything."""
    parts = [tuple(name.split("/")) for name in names]
    first, last = min(parts), max(parts)  # what these share, all share
    above = 0
    while above < min(len(first), len(last)) - 1 and first[above] == last[above]:
        above += 1
    return [part[above:] for part in parts]


def _escapes(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/") or bool(re.match("[A-Za-z]:", name))
