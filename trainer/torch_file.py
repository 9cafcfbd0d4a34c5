"""A file of torch.save, a stranger's perhaps: read with `weights_only=True` and never otherwise, within bounds."""

from __future__ import annotations

import errno
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..runtime.errors import CheckpointError

MOST_VALUES = 1_000_000
DEEPEST = 32


def check_regular(path: Path) -> None:
    """Raise `CheckpointError` for what is no file; a pipe need not end."""
    if not path.is_file():
        raise CheckpointError(
            f"{path!s:.200} cannot be read",
            seen="It is not a file" if path.exists() else "There is no such file",
            repair="Check the path",
        )


def load_torch_file(path: Path, *, what: str, repair: str) -> Any:
    """The content of the file, on the CPU, of at most a million values, tensors among them.

    A tensor may repeat a number without end, and so be larger than the file. what: what it should be, for the message,
    such as "checkpoint". repair: the third part of most messages here. Raises `CheckpointError`.
    """
    try:
        with open(path, "rb") as file:
            _check_packing(path, file, repair)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # the unpickler raises many kinds on foreign or damaged bytes
        # EINVAL: torch looked before the begin of a file that is cut short
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise CheckpointError(
                f"{path} cannot be read",
                seen=error.strerror or f"{error}",
                repair="Check the path and its permissions",
            ) from error
        raise CheckpointError(
            f"{path} is not a readable {what}", seen=_reason(path, error), repair=repair
        ) from error
    if fault := _excess(content):
        raise CheckpointError(f"{path} was refused", seen=fault, repair=repair)
    return content


def _check_packing(path: Path, file: BinaryIO, repair: str) -> None:
    """torch.save packs nothing: a zip whose entries are larger than itself was made to hurt."""
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is damaged", seen=f"{error!s:.100}", repair=repair
        ) from error
    if unpacked > (size := os.fstat(file.fileno()).st_size):
        raise CheckpointError(
            f"{path} was refused",
            seen=f"{size} bytes that unpack to {unpacked}",
            repair="Save it again with torch.save, which packs nothing",
        )


def _reason(path: Path, error: Exception) -> str:
    text = str(error)
    if "TorchScript" in text or (
        isinstance(error, pickle.UnpicklingError) and "nsupported" in text
    ):
        return "It holds more than tensors, and loading the rest could run code"
    try:
        zipped = zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        zipped = True
    if zipped:
        return f"Its content is damaged or unsafe ({type(error).__name__})"
    return f"It is cut short, or not a file of torch.save at all ({type(error).__name__})"


def _excess(content: Any) -> str:
    """What is too large, or "": a few bytes of pickle can be a list of lists that no loop over it ever leaves, and to
    print it is such a loop."""
    count, waiting = 0, [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        kind, own = type(value), getattr(value, "__dict__", None)
        if own and not all(isinstance(name, str) and not hasattr(kind, name) for name in own):
            # methods that a file replaced
            return f"Its content has a {kind.__name__} with {', '.join(map(str, own))!r:.60} of its own"
        if depth > DEEPEST:
            return f"Its content is nested more than {DEEPEST} deep"
        if count > MOST_VALUES:
            return f"Its content has more than {MOST_VALUES} values"
        waiting += ((part, depth + 1) for part in _parts(value))
    return ""


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield key
            yield part
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
