"""Plain values: what each check takes, and that it gives it back as Python's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.runtime import InputError
from gan.runtime.errors import GanError, shown
from gan.runtime.text import LONGEST_PART, is_unseen, one_line
from gan.runtime.values import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_path,
    is_integer,
)

from .. import odd


@pytest.mark.parametrize("kind", [int, np.int8, np.uint8, np.int64, np.uint64])
def test_an_integer_of_any_kind_comes_back_as_an_int(kind: Any) -> None:
    assert type(check_integer("count", kind(5), 1, 5)) is int
    with pytest.raises(InputError, match=r"The count was refused\. .*5.* Give .* from 1 to 4"):
        check_integer("count", kind(5), 1, 4)


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), 1.0, "1", np.timedelta64(1, "s"), None, np.array(1)]
)
def test_what_looks_like_an_integer_is_none(value: Any) -> None:
    assert not is_integer(value)


@pytest.mark.parametrize(
    "value", [0.5, np.float16(0.5), np.float32(0.5), np.longdouble(0.5), 1, np.int8(1)]
)
def test_a_number_of_any_kind_comes_back_as_a_float(value: Any) -> None:
    made = check_number("rate", value, 0, 1)
    assert type(made) is float and made == float(value)


@pytest.mark.parametrize(
    ("value", "above", "good"),
    [(0, None, True), (-0.0, None, True), (0, 0, False), (5e-324, 0, True)],
)
def test_a_number_may_have_to_be_above_its_least(
    value: float, above: float | None, good: bool
) -> None:
    if good:
        check_number("rate", value, 0, 1, above=above)
    else:
        with pytest.raises(
            InputError,
            match=r"The rate was refused. 0 of type int. Give a number rate above 0, up to 1",
        ):
            check_number("rate", value, 0, 1, above=above)


@pytest.mark.parametrize(
    "value", [float("nan"), 1.5, -1, 10**400, True, "1", np.longdouble("1e400"), 1j, None]
)
def test_a_number_outside_is_none(value: Any) -> None:
    with pytest.raises(InputError, match="The rate was refused"):
        check_number("rate", value, 0, 1)


def test_a_flag_is_a_bool_and_no_word() -> None:
    assert check_flag("tf32", np.bool_(False)) is False  # type: ignore[arg-type]
    others: list[Any] = [0, 1, "no", None, [], np.array(True)]
    for value in others:
        with pytest.raises(InputError, match=r"The tf32 was refused.*Give True or False as tf32"):
            check_flag("tf32", value)


def test_a_choice_is_one_of_the_words() -> None:
    check_choice("noise", "drawn", ("shared", "drawn"))
    for value in ("Drawn", "", None, ["drawn"], np.array(["drawn", "drawn"])):
        with pytest.raises(InputError, match=r'The noise was refused.*Give "shared" or "drawn"'):
            check_choice("noise", value, ("shared", "drawn"))  # type: ignore[arg-type]


def test_a_path_may_be_anything_that_the_system_understands(tmp_path: Path) -> None:
    for value in (
        tmp_path,
        os.fspath(tmp_path),
        tmp_path / "nowhere" / "x",
        "a\nb",
        "日本",
        "x" * 255,
    ):
        assert check_path("out", value) == Path(value)
    for wrong in ("", "a\0b", "x" * 256, "\ud800", b"x", None, 3, odd.NoPath(), odd.Unshowable()):
        with pytest.raises(InputError, match="The out was refused"):
            check_path("out", wrong)  # type: ignore[arg-type]


# Messages


@pytest.mark.parametrize("name", odd.ODD)
def test_every_value_can_be_shown_on_one_short_line(name: str) -> None:
    text = shown(odd.ODD[name]())
    assert 0 < len(text) <= 60
    assert not any(map(is_unseen, one_line(text)))


@pytest.mark.parametrize(
    "text", ["a\nb\r\tc\0\x1b[31m\x7f\u2028", "\ud800", "x" * 10**6, "\n" * 10**6]
)
def test_a_message_is_one_line_of_bounded_length_whatever_is_in_it(text: str) -> None:
    error = GanError(text, seen=text, repair=text)
    assert f"{error}".isprintable()
    assert len(f"{error}") < 3 * 3 * LONGEST_PART
    assert (error.failed, error.seen, error.repair) == (text, text, text)
    f"{error}".encode()


def test_what_is_printable_stays_as_it_is() -> None:
    text = "日本語 ñ 🎲 'a' — \"b\""
    assert one_line(text) == text
    assert one_line("a\nb") == r"a\nb"
