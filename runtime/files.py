"""Files that are whole or not there: written beside their target, flushed, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from .errors import StorageError

LONGEST_NAME = 255  # bytes, on nearly all file systems
UNSYNCED = {errno.EACCES, errno.EINVAL, errno.ENOTSUP}  # of folders that cannot be synced at all
UNLINKED = {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV}  # where a file has one name
ELSEWHERE = "Choose another path"
REPAIRS = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "Free space there or raise the quota, or choose another path",
    ),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Allow that, or choose another path"),
    **dict.fromkeys((errno.EEXIST, errno.EISDIR), ELSEWHERE),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "Check that the folder is there"),
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.EMFILE: "Raise the limit of open files: ulimit -n 4096",
    errno.EIO: "Look at the disk: it may be failing",
}


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` when the block ends well, and leaves it untouched when it does not.

    A kill at any moment leaves the old or the new file, whole; at most a `.NAME.part` lies beside it, which the
    next write of the same target replaces. An OSError, of the block too, becomes a `StorageError`.
    """
    with atomic_files([path]) as (file,):
        yield file


@contextlib.contextmanager
def atomic_files(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Sequence[BinaryIO]]:
    """As `atomic_file`, for files that belong together: none is replaced before all are on the disk.

    Where one then cannot be replaced, the error names those that were.
    """
    parts = {path: part_of(path) for path in map(Path, paths)}
    replaced: list[Path] = []
    try:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(part, "wb")) for part in parts.values()]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        for path, part in parts.items():
            os.replace(part, path)
            replaced.append(path)
        for folder in {path.parent for path in parts}:
            sync_folder(folder)
    except BaseException as error:
        for part in parts.values():
            with contextlib.suppress(OSError):  # of a disk that fails altogether
                part.unlink(missing_ok=True)
        if not isinstance(error, OSError) or isinstance(error, StorageError):
            raise
        left = [f"{path}" for path in parts if path not in replaced]
        also = f"; {', '.join(map(str, replaced))} was" if replaced and left else ""
        raise not_written(", ".join(left or map(str, replaced)), error, also=also) from error


def not_written(
    what: object, error: OSError, *, also: str = "", repair: str | None = None
) -> StorageError:
    """The error for `what`, a path, that says what the system said and what to do."""
    told = StorageError(
        f"{what} was not written{also}",
        seen=error.strerror or f"{error}",
        repair=repair or REPAIRS.get(error.errno or 0, ELSEWHERE),
    )
    told.errno = error.errno
    return told


@contextlib.contextmanager
def writing(what: object) -> Iterator[None]:
    """An OSError of the block as the `StorageError` of `what`, a path."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise not_written(what, error) from error


def make_folder(path: str | os.PathLike[str]) -> Path:
    """The folder and those above it, where they are missing. Raises `StorageError`."""
    path = Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def link(source: Path, target: Path) -> None:
    """The file `source` under a second name, which keeps it when the first is replaced. Raises `StorageError`."""
    part = target.with_name(".part")
    with writing(target):
        try:
            part.unlink(missing_ok=True)
            os.link(source, part)
            os.replace(part, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if error.errno not in UNLINKED:
                raise
            import shutil

            with open(source, "rb") as original, atomic_file(target) as file:
                shutil.copyfileobj(original, file)
        part.unlink(missing_ok=True)  # it stays where both were one file already
        sync_folder(target.parent)


@contextlib.contextmanager
def work_folder(name: str) -> Iterator[Path]:
    """A temporary folder NAME-..., gone when the block ends; one that a killed process left goes with the next.

    An OSError of the block becomes a `StorageError`: the room for temporary files is what lacks.
    """
    import tempfile

    try:
        with (
            tempfile.TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True) as made,
            _held(Path(made)),
        ):
            _sweep(Path(made).parent, name)
            yield Path(made)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        repair = "Free space for temporary files, or set TMPDIR to a folder with more"
        raise not_written("A temporary file", error, repair=repair) from error


def part_of(path: Path) -> Path:
    """Where a file lies until it is whole: `.NAME.part`; of a name that leaves no room for that, its digest."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST_NAME - len("..part"):
        import hashlib  # here: it loads OpenSSL

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
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise


def lock(descriptor: int) -> bool:
    """Lock a file or folder against other processes until it is closed; False where one holds it already."""
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks, it goes unguarded
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # a file system without locks
            raise
    return True


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder by a lock; whether it could be had."""
    if os.name != "posix":
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def _sweep(place: Path, name: str) -> None:
    """Remove the work folders that nobody holds, but for those of the last minute: they may not be held yet."""
    import shutil

    if os.name != "posix":
        return
    for folder in place.glob(f"{name}-*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            status = folder.lstat()
            if time.time() - status.st_mtime > 60 and status.st_uid == os.getuid():
                with _held(folder) as ours:
                    if ours:
                        shutil.rmtree(folder)
