"""Plain values that a caller gives: each check names the value, shows it, and says what is allowed.

Numbers may be Python's or numpy's; a bool is no number, and a text is none either.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np

from .errors import InputError, shown

MAX_UINT64 = 2**64 - 1


def is_integer(value: object) -> TypeGuard[int]:
    """Whether it is an int, or an integer of numpy; durations, which numpy counts among them, are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.timedelta64))


def check_uint64(name: str, value: int) -> int:
    """`value` as an int, if it is an integer from 0 to 2^64 - 1; else `InputError` that names it."""
    return check_integer(name, value, 0, MAX_UINT64)


def check_integer(name: str, value: int, low: int, high: int) -> int:
    """`value` as an int, if it is an integer from `low` to `high`; else `InputError` that names it."""
    if is_integer(value) and low <= int(value) <= high:
        return int(value)
    most = f"2^{high.bit_length()} - 1" if high >= 2**63 - 1 else f"{high}"
    raise refused(name, value, f"Give an integer {name} from {low} to {most}")


def check_number(
    name: str, value: float, low: float, high: float, *, above: float | None = None
) -> float:
    """`value` as a float, if it is a number from `low`, or above `above`, to `high`; else `InputError` that names it."""
    if is_integer(value) or isinstance(value, (float, np.floating)):
        try:
            number = float(value)
        except OverflowError:  # an int beyond all floats
            number = float("inf")
        if low <= number <= high and (above is None or number > above):
            return number
    least = f"from {low:g}" if above is None else f"above {above:g}, up"
    raise refused(name, value, f"Give a number {name} {least} to {high:g}")


def check_flag(name: str, value: bool) -> bool:
    """`value` as a bool, if it is one; else `InputError`: "no" and 0.0 would be taken for an answer."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise refused(name, value, f"Give True or False as {name}")


def check_path(name: str, value: str | os.PathLike[str]) -> Path:
    """`value` as a path that the system understands, whether it is there or not; else `InputError` that names it."""
    given: object = value
    try:
        given = os.fspath(value)
        if isinstance(given, str) and given:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                os.lstat(given)
            return Path(given)
    except (TypeError, ValueError, OSError) as error:  # NUL, or a name that is too long
        raise refused(name, given, "Give a path") from error
    raise refused(name, given, "Give a path")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """`InputError` unless `value` is one of these words."""
    if not isinstance(value, str) or value not in choices:
        *others, last = (f'"{choice}"' for choice in choices)
        raise refused(name, value, f"Give {', '.join(others)} or {last}")


def refused(name: str, value: object, repair: str) -> InputError:
    """A value that was refused, with its type, since "3" and 3 look alike in a log."""
    seen = f"{shown(value)} of type {type(value).__name__}"
    return InputError(f"The {name} was refused", seen=seen, repair=repair)
