"""The batch axis: how a trace is told of it, and the range proof, which is what torch found out about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from gan.export.trace import check_ranges, dynamic_axes, export_program
from gan.runtime import ExportError
from gan.runtime.signature import Field

SYMBOL = sympy.Symbol("s0")


@pytest.mark.parametrize("lower", [0, 1, 2])
def test_an_unbounded_batch_passes(lower: int) -> None:
    check_ranges({SYMBOL: ValueRanges(lower, int_oo)})


@pytest.mark.parametrize(("lower", "upper"), [(0, 4), (2, 64), (3, int_oo), (5, 5)])
def test_a_bounded_batch_is_refused(lower: int, upper: int) -> None:
    with pytest.raises(ExportError, match="only some batch sizes"):
        check_ranges({SYMBOL: ValueRanges(lower, upper)})


class Plain(nn.Module):
    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return z + label


class Defaults(nn.Module):
    def forward(self, z: Tensor, label: Tensor | None = None, level: int | None = None) -> Tensor:
        return z if label is None else z + label


class Rest(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.stack(inputs).sum(0)


class Mixed(nn.Module):
    def forward(self, z: Tensor, label: Tensor, *rest: Tensor) -> Tensor:
        return z + 2 * label + sum(rest)


AXIS = {0: "batch"}


@pytest.mark.parametrize(
    ("kind", "count", "axes"),
    [
        (Plain, 2, (AXIS, AXIS)),
        (Defaults, 1, (AXIS,)),
        (Defaults, 2, (AXIS, AXIS)),
        (Rest, 1, ((AXIS,),)),
        (Rest, 3, ((AXIS, AXIS, AXIS),)),
        (Mixed, 2, (AXIS, AXIS, ())),
        (Mixed, 3, (AXIS, AXIS, (AXIS,))),
        (Mixed, 5, (AXIS, AXIS, (AXIS, AXIS, AXIS))),
    ],
)
def test_the_axes_are_nested_as_forward_takes_its_inputs(
    kind: Callable[[], nn.Module], count: int, axes: tuple[Any, ...]
) -> None:
    assert dynamic_axes(kind(), [Field(f"x{i}", (4,)) for i in range(count)]) == axes


@pytest.mark.parametrize(
    ("kind", "count"), [(Plain, 2), (Defaults, 1), (Defaults, 2), (Rest, 1), (Rest, 3), (Mixed, 3)]
)
def test_a_graph_of_any_forward_has_its_inputs_by_name_and_a_batch_axis_each(
    kind: Callable[[], nn.Module], count: int
) -> None:
    names = [f"x{i}" for i in range(count)]
    fields = [Field(name, (4,)) for name in names]
    inputs = tuple(torch.randn(3, 4) for _ in range(count))
    model = export_program(kind().eval(), inputs, fields, ["y"], 20).model_proto
    assert [value.name for value in model.graph.input] == names
    for value in (*model.graph.input, *model.graph.output):
        batch, width = value.type.tensor_type.shape.dim
        assert batch.dim_param == "batch" and width.dim_value == 4
