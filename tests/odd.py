"""Odd values to give to anything that takes a value, and what a call may do with each: take it, or refuse it by name.

They are made anew at each use, and none is large before it is looked at.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from hypothesis import strategies as st

from gan.runtime import GanError, InputError
from gan.runtime.text import is_unseen

ROOT = Path(__file__).parents[1]
LIMIT = 5.0  # seconds of a call
Takes = Callable[[Any], bool | None]
NAN, INF = float("nan"), float("inf")
BILLION, ENORMOUS = 10**9, 10**18


class Unshowable:
    """Neither its text nor its truth can be had."""

    def __repr__(self) -> NoReturn:
        raise RuntimeError("no text")

    def __bool__(self) -> NoReturn:
        raise RuntimeError("no truth")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("no array")


class NoPath:
    def __fspath__(self) -> Any:
        return 3


def deep(levels: int = 1_500) -> list[Any]:
    """A list in a list in a list: beyond what Python's own repr, or a recursion, can follow."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def masked(shape: tuple[int, ...] = (1, 4)) -> Any:
    return np.ma.MaskedArray(np.zeros(shape, np.float32), mask=True)


def big_endian(*shape: int) -> Any:
    return np.linspace(-1, 1, int(np.prod(shape))).astype(">f4").reshape(shape)


ODD: dict[str, Callable[[], Any]] = {
    # numbers
    "nan": lambda: NAN,
    "infinity": lambda: INF,
    "-infinity": lambda: -INF,
    "1e309": lambda: float("1e309"),
    "-0.0": lambda: -0.0,
    "subnormal": lambda: 5e-324,
    "half": lambda: 0.5,
    "-1": lambda: -1,
    "0": lambda: 0,
    "1": lambda: 1,
    "10^9": lambda: BILLION,
    "10^18": lambda: ENORMOUS,
    "2^63": lambda: 2**63,
    "2^64 - 1": lambda: 2**64 - 1,
    "2^64": lambda: 2**64,
    "-2^64": lambda: -(2**64),
    "10^400": lambda: 10**400,
    "10^5000": lambda: 10**5000,
    "True": lambda: True,
    "False": lambda: False,
    "1j": lambda: 1j,
    "a fraction": lambda: fractions.Fraction(1, 3),
    "a decimal": lambda: decimal.Decimal("NaN"),
    # numpy's
    "int8": lambda: np.int8(-1),
    "uint64": lambda: np.uint64(2**64 - 1),
    "float16": lambda: np.float16(0.5),
    "float32 nan": lambda: np.float32(NAN),
    "longdouble": lambda: np.longdouble("1e400"),
    "a bool of numpy": lambda: np.bool_(True),
    "a duration": lambda: np.timedelta64(1, "s"),
    "a date": lambda: np.datetime64("2026-01-01"),
    "a text of numpy": lambda: np.str_("0"),
    "bytes of numpy": lambda: np.bytes_(b"0"),
    "an array of no axis": lambda: np.array(3),
    # texts
    "an empty text": lambda: "",
    "a blank": lambda: " ",
    "a digit": lambda: "3",
    "an Arabic digit": lambda: "٣",
    "a superscript": lambda: "²",
    "a number with _": lambda: "1_0",
    "a number as text": lambda: "1e309",
    "None as text": lambda: "None",
    "NUL": lambda: "a\0b",
    "a line break": lambda: "a\nb\r\x1b[31mc",
    "half a surrogate pair": lambda: "\ud800",
    "any script": lambda: "日本語 ñ 🎲",
    "10^6 characters": lambda: "x" * 10**6,
    "10^6 digits": lambda: "7" * 10**6,
    "5000 digits": lambda: "7" * 5000,
    "parent folders": lambda: "../../../etc/passwd",
    "bytes": lambda: b"0",
    "a byte of 0": lambda: b"\0",
    "a bytearray": lambda: bytearray(b"\1"),
    "a memoryview": lambda: memoryview(b"\1"),
    # what is neither
    "None": lambda: None,
    "an ellipsis": lambda: ...,
    "a class": lambda: int,
    "a function": lambda: len,
    "an object": object,
    "what cannot be shown": Unshowable,
    "a path that is a number": NoPath,
    "a day": lambda: datetime.date(2026, 1, 1),
    "a generator": lambda: (i for i in range(3)),
    "an endless generator": itertools.count,
    "a set": lambda: {1, 2},
    "an empty list": list,
    "an empty dict": dict,
    "a dict": lambda: {"a": [1]},
    "a list of nothing": lambda: [None],
    "a list of unequal rows": lambda: [[1, 2], [3]],
    "a list that holds itself": lambda: _endless(),
    "a deep list": deep,
    "a deep tuple of one": lambda: ((((1,),),),),
    "10^18 numbers": lambda: range(ENORMOUS),
    # arrays
    "objects": lambda: np.array([None, 1], object),
    "texts of numpy": lambda: np.array(["a", "b"]),
    "complex numbers": lambda: np.zeros((2, 4), complex),
    "dates": lambda: np.zeros((2, 4), "datetime64[s]"),
    "durations": lambda: np.zeros((2, 4), "timedelta64[s]"),
    "a structure": lambda: np.zeros((2, 4), [("a", int), ("b", float)]),
    "records of bytes": lambda: np.zeros((2, 4), "V3"),
    "bools of numpy": lambda: np.zeros((2, 4), bool),
    "a nan in an array": lambda: np.array([[NAN, 1, 2, 3]]),
    "an array of no row": lambda: np.zeros((0, 4), np.float32),
    "an array of no column": lambda: np.zeros((2, 0), np.float32),
    "65 axes in lists": lambda: _nested(65),
    "a masked array": masked,
    "a matrix": lambda: _matrix(),
    "10^12 rows that are one": lambda: np.broadcast_to(np.zeros(4, np.float32), (10**12, 4)),
    "a picture of 2^40 pixels": lambda: np.broadcast_to(
        np.zeros((1, 1, 3), np.uint8), (2**20, 2**20, 3)
    ),
    "pictures of 2^40 pixels": lambda: np.broadcast_to(
        np.zeros((1, 1, 1, 3), np.uint8), (2**20, 2**10, 2**10, 3)
    ),
    "a bool picture of 2^40 pixels": lambda: np.broadcast_to(np.zeros((1, 1), bool), (2**20, 2**20)),
}  # fmt: skip


def _endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _nested(levels: int) -> Any:
    value: Any = 1.0
    for _ in range(levels):
        value = [value]
    return value


def _matrix() -> Any:
    return np.zeros((2, 3), np.uint8).view(np.matrix)


TEXTS = {name: make for name, make in ODD.items() if type(make()) is str}

any_numbers = st.one_of(
    st.floats(width=64),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 10**9, 10**18, NAN, INF, -0.0, 5e-324, 1e309]),
)
any_texts = st.one_of(
    st.text(max_size=30),
    st.text("0123456789.-+eE_ x٣²\n\0", max_size=12),
    any_numbers.map(str),
    st.sampled_from(list(TEXTS)).map(lambda name: TEXTS[name]()),
)
any_values = st.one_of(
    any_numbers,
    any_texts,
    st.sampled_from(list(ODD)).map(lambda name: ODD[name]()),
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), any_numbers, st.text(max_size=5), st.binary(max_size=5)
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.text(max_size=3), inner, max_size=3),
            st.tuples(inner, inner),
        ),
        max_leaves=12,
    ),
)


# What is taken, in words of our own


def integers(low: int, high: int) -> Takes:
    kinds = (int, np.signedinteger, np.unsignedinteger)
    return lambda v: (
        isinstance(v, kinds) and not isinstance(v, (bool, np.timedelta64)) and low <= int(v) <= high
    )


def numbers(low: float, high: float, *, above: bool = False) -> Takes:
    whole, kinds = integers(-(2**1000), 2**1000), (float, np.floating)
    return lambda v: (
        (whole(v) or isinstance(v, kinds)) and low <= float(v) <= high and not (above and v == low)
    )


def words(*choices: str) -> Takes:
    return lambda v: isinstance(v, str) and v in choices


def or_none(takes: Takes) -> Takes:
    return lambda v: True if v is None else takes(v)


def row_of(takes: Takes, count: int) -> Takes:
    kinds = (list, tuple, range, np.ndarray)
    return lambda v: (
        isinstance(v, kinds) and np.ndim(v if isinstance(v, np.ndarray) else [0]) > 0
        and len(v) == count and all(map(takes, v))
    )  # fmt: skip


def either(*several: Takes) -> Takes:
    return lambda v: any(takes(v) for takes in several)


def never(value: Any) -> bool:
    return False


def flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def labels(*names: str) -> Takes:
    one = either(words(*names), integers(0, len(names) - 1))
    return or_none(either(one, row_of(one, 1)))


def rows(*shape: int, floats: bool = True, low: float = -3.4e38, high: float = 3.4e38) -> Takes:
    """A batch of numbers of one shape."""

    def takes(v: Any) -> bool:
        kinds = (list, tuple, range, bytearray, memoryview)  # a buffer is an array of bytes
        several = isinstance(v, kinds) or (isinstance(v, np.ndarray) and v.ndim > 0)
        if not several or len(v) > 1000:
            return False
        try:
            a = np.asarray(v)
        except Exception:
            return False
        fits = a.dtype.kind in ("iuf" if floats else "iu") and a.shape[1:] == shape and len(a) > 0
        return fits and not np.ma.isMaskedArray(v) and bool(((a >= low) & (a <= high)).all())

    return takes


@dataclass(frozen=True)
class Case:
    """A parameter. takes: what must work; all else is refused. None: whatever, but for an error that is not ours.

    word: by which a message names the parameter. slow: a large value that is taken is not tried.
    """

    call: Callable[[Any], Any]
    takes: Takes | None = never
    word: str = ""
    errors: tuple[type[GanError], ...] = (InputError,)
    slow: bool = False


def outcome(case: Case, value: Any) -> str:
    """ "" for what a call may do with a value, else what it did."""
    wanted = None if case.takes is None else case.takes(value)
    if wanted and case.slow and isinstance(value, int) and value > 50:
        return ""
    begin = time.monotonic()
    try:
        case.call(value)
    except case.errors as error:
        told = f"{error}"
        if wanted:
            return f"refused: {told}"
        named = not case.word or any(word in told for word in case.word.split("|"))
        if not (named and not any(map(is_unseen, told)) and len(told) < 1_000 and error.repair):
            return f"is told as: {told[:200]}"
    except Exception as error:
        return f"raised {type(error).__name__}: {error!s:.200}"
    else:
        if wanted is False:
            return "was taken"
    seconds = time.monotonic() - begin
    return f"took {seconds:.1f} s" if seconds > LIMIT else ""


def peak_megabytes() -> float:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def in_a_child(code: str, folder: Path) -> dict[str, float]:
    """The figures that Python code prints as JSON; it runs in an empty folder, and warns of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]
    assert not list(folder.iterdir())
    found: dict[str, float] = json.loads(done.stdout)
    return found
