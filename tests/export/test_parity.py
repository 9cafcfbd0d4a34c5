"""The comparison of outputs: hand-computed rows, and limits that refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gan.export.parity import check_exactness, check_row, compare, largest_step
from gan.export.report import Exactness, ParityRow
from gan.runtime import Field, ParityError, Signature

IMAGE = Field("image", (1, 2, 1), "image", "uint8", (0.0, 255.0))


def images(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, 1, 2)


def pixels(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(1, 1, 2, 1)


def test_a_row_holds_the_largest_error_and_the_decibels() -> None:
    row = compare(IMAGE, 1, images(0.5, -1.0), images(0.5, -0.9), pixels(191, 0))
    assert row.max_abs == pytest.approx(0.1, rel=1e-6)
    assert row.max_rel == pytest.approx(0.1, rel=1e-6)  # of the largest value, 1
    assert row.psnr == pytest.approx(10 * math.log10(2**2 / (0.1**2 / 2)), rel=1e-6)
    assert (row.step, row.share) == (0, 0.0)


def test_bytes_are_compared_with_those_that_torch_would_give() -> None:
    row = compare(IMAGE, 1, images(0.0, 1.0), images(0.0, 1.0), pixels(131, 255))
    assert (row.step, row.share) == (3, 0.5)  # 127.5 rounds half to even: 128


def test_a_value_that_is_not_finite_is_an_infinite_error() -> None:
    row = compare(IMAGE, 1, images(0.0, 1.0), images(math.nan, 1.0), pixels(128, 255))
    assert row.max_abs == math.inf
    with pytest.raises(ParityError):
        check_row(row)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ParityError, match="shape"):
        compare(IMAGE, 1, images(0.0, 1.0), np.zeros((1, 1, 2, 1), np.float32), pixels(0, 0))


@pytest.mark.parametrize(
    "row",
    [
        ParityRow("image", 1, 1.1e-4, 0, 99, 0, 0.0),
        ParityRow("image", 1, 1e-6, 0, 99, 2, 1e-6),
        ParityRow("image", 1, 1e-6, 0, 99, 1, 1.1e-3),
        ParityRow("points", 1, 1.1e-4, 0, 99),
    ],
)
def test_beyond_a_limit_a_row_is_refused(row: ParityRow) -> None:
    with pytest.raises(ParityError, match="disagree"):
        check_row(row)


def test_at_the_limits_a_row_passes() -> None:
    check_row(ParityRow("image", 1, 1e-4, 0, 99, 1, 1e-3))


def test_inexactness_is_refused_where_exactness_is_required_and_else_above_a_step() -> None:
    def exactness(batches: float, threads: float) -> Exactness:
        return Exactness((1, 2), (1, 2), batches, threads)

    check_exactness(exactness(0.0, 1.0), required=True)
    check_exactness(exactness(1.0, 1.0), required=False)
    for required, found in [(True, (0.1, 0.0)), (False, (1.5, 0.0)), (False, (0.0, 2.0))]:
        with pytest.raises(ParityError, match="batch size"):
            check_exactness(exactness(*found), required=required)


def test_the_largest_step_is_in_255ths_of_the_range_and_0_for_equal_bytes_alone() -> None:
    signature = Signature((Field("z", (1,)),), (IMAGE, Field("wave", (2,), "points")))
    a = [pixels(10, 20), np.array([[0.5, -0.0]], np.float32)]
    assert largest_step(signature, a, a) == 0.0
    assert largest_step(signature, a, [pixels(10, 23), a[1]]) == 3.0
    assert largest_step(signature, a, [a[0], a[1] + np.float32(0.02)]) == pytest.approx(2.55)
    assert largest_step(signature, a, [a[0], np.abs(a[1])]) > 0.0  # -0 and 0 are other bytes


def test_a_float_output_that_is_not_finite_or_of_another_shape_is_refused() -> None:
    wave = Field("wave", (1, 1, 2), "points")
    row = compare(wave, 1, images(0.0, 1.0), images(0.0, 1.0), images(math.nan, 1.0))
    assert row.max_abs == math.inf
    with pytest.raises(ParityError, match="shape"):
        compare(wave, 1, images(0.0, 1.0), images(0.0, 1.0), images(0.0, 1.0)[0])
