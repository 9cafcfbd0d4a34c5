"""The range proof: what torch found out about the batch axis."""

from __future__ import annotations

import pytest
import sympy
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from gan.export.trace import check_ranges
from gan.runtime import ExportError

SYMBOL = sympy.Symbol("s0")


@pytest.mark.parametrize("lower", [0, 1, 2])
def test_an_unbounded_batch_passes(lower: int) -> None:
    check_ranges({SYMBOL: ValueRanges(lower, int_oo)})


@pytest.mark.parametrize(("lower", "upper"), [(0, 4), (2, 64), (3, int_oo), (5, 5)])
def test_a_bounded_batch_is_refused(lower: int, upper: int) -> None:
    with pytest.raises(ExportError, match="only some batch sizes"):
        check_ranges({SYMBOL: ValueRanges(lower, upper)})
