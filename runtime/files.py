"""Files that are whole or not there: written beside their target, flushed, synced, renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LONGEST_NAME = 255  # bytes, on nearly all file systems


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` when the block ends well, and leaves it untouched when it does not.

    A kill at any moment leaves the old or the new file, whole; at most a `.NAME.part` lies beside it, which the
    next write of the same target replaces.
    """
    path = Path(path)
    part = part_of(path)
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def part_of(path: Path) -> Path:
    """Where a file lies until it is whole: `.NAME.part`; of a name that leaves no room for that, its digest."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST_NAME - len("..part"):
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.part")


def sibling(path: str | os.PathLike[str], graph: str) -> Path:
    """Where a further graph of a model lies: model.onnx -> model.GRAPH.onnx."""
    path = Path(path)
    return path.with_name(f"{path.stem}.{graph}{path.suffix}")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
