"""Which files of a folder are images, by their names, in a fixed order. Opens none."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .text import legible

SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jfif", ".mpo", ".webp", ".bmp", ".gif", ".tif", ".tiff",
})  # fmt: skip
FOREIGN = frozenset({
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".psd",
    ".exr", ".hdr", ".eps", ".pdf", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",
    ".zip", ".tar", ".gz", ".7z", ".rar",
})  # fmt: skip
LEFT_BEHIND = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})  # folders of systems, not of people


@dataclass
class Listing:
    """What a folder holds, by names below it.

    images: sorted. foreign: how many files look like images or archives, but are not read, by suffix. empty: folders
    without an image, the topmost of each. unread: folders that could not be listed, with the reason.
    """

    images: list[str] = field(default_factory=list)
    foreign: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)
    unread: list[OSError] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path) -> Listing:
        """Of a folder and all below it, linked folders too, each real one once, so that a loop ends.

        Raises OSError where the folder itself cannot be listed.
        """
        os.scandir(root).close()
        unread = list[OSError]()
        files, folders = list[str](), list[str]()
        for folder, names in _walk(root, unread):
            below = Path(folder).relative_to(root)
            folders.append(below.as_posix())
            files += [(below / name).as_posix() for name in names]
        return cls.of_names(files, folders, unread)

    @classmethod
    def of_names(
        cls, files: list[str], folders: list[str], unread: list[OSError] | None = None
    ) -> Listing:
        """Of the names of files and of folders; those that a system hides are left out."""
        images, foreign = list[str](), Counter[str]()
        for name in files:
            kind = suffix(name)
            if kind in SUFFIXES and not is_hidden(name):
                images.append(name)
            elif kind in FOREIGN and not is_hidden(name):
                foreign[kind] += 1
        images.sort()
        return cls(images, foreign, _empty(images, folders), unread or [])

    def notes(self) -> list[str]:
        """What is left out, a line each."""
        notes = [f"Skipped a folder that cannot be listed: {error}" for error in self.unread]
        if self.empty:
            notes.append(f"Skipped {first_of(self.empty)}: no image in the folder")
        return notes + ([self.foreign_note()] if self.foreign else [])

    def foreign_note(self) -> str:
        counts = ", ".join(f"{count} x {what}" for what, count in self.foreign.most_common())
        return f"Skipped files of kinds that are not read: {counts} (convert or unpack them)"


def first_of(names: Sequence[str]) -> str:
    """The first name, and how many more there are."""
    return legible(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def suffix(name: str) -> str:
    start, dot, end = name.rpartition(".")
    return dot + end.lower() if start and "/" not in end else ""


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder it is in, begins with a dot or is one that systems leave behind."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part in LEFT_BEHIND
        for part in name.split("/")
    )


def _walk(root: Path, unread: list[OSError]) -> Iterator[tuple[str, list[str]]]:
    """Each folder that is not hidden, and the files in it."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=unread.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield folder, files


def _empty(images: list[str], folders: list[str]) -> list[str]:
    """The folders below which there is no image, without those within another such."""
    filled = {""}
    for folder in {posixpath.dirname(name) for name in images}:
        while folder not in filled:
            filled.add(folder)
            folder = posixpath.dirname(folder)
    names = (name.strip("/") for name in folders if name != ".")
    return sorted(
        name
        for name in names
        if not is_hidden(name) and name not in filled and posixpath.dirname(name) in filled
    )
