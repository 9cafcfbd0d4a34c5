"""The errors of the whole toolchain: one tree, each message in three parts.

GanError
├── ModelFileError (ValueError)           an .onnx file is not one of ours, damaged, or dangerous
├── DeviceUnavailableError (RuntimeError) the device that was asked for cannot be used
├── InputError (ValueError)               a value given by the caller is outside what the model takes
├── DatasetError (ValueError)             training data cannot be used
├── CheckpointError (ValueError)          a checkpoint is damaged, foreign, or differs from what was asked
├── ExportError (RuntimeError)            a generator cannot be exported
├── ParityError (RuntimeError)            outputs differ where they must not
├── StorageError (OSError)                a file or folder cannot be written: a full disk, a quota, a read-only place
└── TrainingDivergedError (RuntimeError)  training left the finite numbers and did not come back
"""

from __future__ import annotations

import reprlib

from .text import one_line


class GanError(Exception):
    """Base of every error that the toolchain raises on purpose.

    A message has three parts: what failed, what was seen, how to repair it (with the exact command where there
    is one). It is one line, whatever paths and values are named in it, and of bounded length.
    """

    def __init__(self, failed: str, *, seen: str = "", repair: str = "") -> None:
        self.failed, self.seen, self.repair = failed, seen, repair
        parts = (one_line(part) for part in (failed, seen, repair) if part)
        super().__init__(". ".join(part.rstrip(".") for part in parts) + ".")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.failed, self.seen, self.repair)


def shown(value: object) -> str:
    """At most 60 characters of a value that was refused, for a message. No value is too large, or too odd, for it."""
    try:
        return _repr.repr(value)[:LONGEST_VALUE]
    except Exception:  # Python prints no integer of over 4,300 digits, and objects raise anything
        return f"an enormous {type(value).__name__}"


LONGEST_VALUE = 60  # characters
_repr = reprlib.Repr()  # looks at the beginning of a value only, and not into its depth
_repr.maxstring = _repr.maxother = (
    3 * LONGEST_VALUE
)  # what is longer loses its middle, and is cut after that
_repr.maxlong = 5_000


def _rebuild(kind: type[GanError], failed: str, seen: str, repair: str) -> GanError:
    return kind(failed, seen=seen, repair=repair)


class ModelFileError(GanError, ValueError):
    """An .onnx file is not one of ours, damaged, or dangerous."""


class DeviceUnavailableError(GanError, RuntimeError):
    """The device that was asked for cannot be used here."""


class InputError(GanError, ValueError):
    """A value given by the caller is outside what the model takes."""


class DatasetError(GanError, ValueError):
    """Training data cannot be used."""


class CheckpointError(GanError, ValueError):
    """A checkpoint is damaged, foreign, or differs from what was asked."""


class ExportError(GanError, RuntimeError):
    """A generator cannot be exported."""


class ParityError(GanError, RuntimeError):
    """Outputs differ where they must not."""


class StorageError(GanError, OSError):
    """A file or folder cannot be written: a full disk, a quota, a read-only place. `errno` says which."""


class TrainingDivergedError(GanError, RuntimeError):
    """Training left the finite numbers and did not come back."""
