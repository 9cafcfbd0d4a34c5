"""The batch axis: how a trace is told of it, and the range proof, which is what torch found out about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import sympy
import torch
from torch import Tensor, nn
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from gan.export.trace import check_ranges, dynamic_axes, export_program, trace_sizes
from gan.runtime import ExportError
from gan.runtime.signature import Field, Signature

SYMBOL = sympy.Symbol("s0")


@pytest.mark.parametrize("lower", [0, 1, 2])
def test_an_unbounded_batch_passes(lower: int) -> None:
    check_ranges({SYMBOL: ValueRanges(lower, int_oo)})


@pytest.mark.parametrize(("lower", "upper"), [(0, 4), (2, 64), (3, int_oo), (5, 5)])
def test_a_bounded_batch_is_refused(lower: int, upper: int) -> None:
    with pytest.raises(ExportError, match="only some batch sizes"):
        check_ranges({SYMBOL: ValueRanges(lower, upper)})


class Norm(nn.Module):
    """A pixel norm, whose epsilon onnxscript's patterns take for 0."""

    def forward(self, z: Tensor) -> Tensor:
        return z * (z.square().sum(1, keepdim=True) + 1e-8).rsqrt() + 0.0


def test_an_epsilon_stays_so_that_a_norm_of_zeros_is_no_nan() -> None:
    z = torch.zeros(3, 4)
    program = export_program(Norm(), (z,), [Field("z", (4,), "latent")], ["y"], 20)
    data = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for value in (0.0, 1e-5, 1.0):
        z = torch.full((2, 4), value)
        (y,) = session.run(None, {"z": z.numpy()})
        np.testing.assert_allclose(y, Norm()(z).numpy(), rtol=1e-6)


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


# Dynamic axes of images.


class Twice(nn.Module):
    """An image and a mask to an image of twice the size."""

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(image * mask, scale_factor=2.0)


IMAGE = Field("image", (3, "4*h", "4*w"), "image", range=(-1.0, 1.0))
MASK = Field("mask", (1, "4*h", "4*w"), "mask", range=(0.0, 1.0))
LARGE = Field("large", (3, "8*h", "8*w"), "image", range=(-1.0, 1.0))


def test_two_inputs_share_their_axes_which_are_multiples() -> None:
    first, second = dynamic_axes(Twice(), [IMAGE, MASK])
    assert first[0] == second[0] == "batch" and set(first) == set(second) == {0, 2, 3}
    for axis, name in ((2, "h"), (3, "w")):
        assert first[axis].root is second[axis].root and first[axis].root.__name__ == name
        assert first[axis].__name__ == f"4*{name}"


def test_an_axis_that_is_a_number_is_fixed_and_a_plain_name_is_an_axis() -> None:
    mixed = Field("image", (3, 8, "w"), "image")
    (axes,) = dynamic_axes(Defaults(), [mixed])
    assert set(axes) == {0, 3} and axes[3].__name__ == "w"
    (axes,) = dynamic_axes(Defaults(), [Field("image", (3, 8, 8), "image")])
    assert axes == AXIS


def test_a_graph_holds_for_all_sizes_of_its_axes() -> None:
    sizes = trace_sizes(Signature((IMAGE, MASK), (LARGE,)))
    inputs = tuple(torch.rand(3, *field.shape_at(sizes)) for field in (IMAGE, MASK))
    program = export_program(Twice().eval(), inputs, [IMAGE, MASK], ["y"], 20)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for batch, h, w in ((1, 1, 1), (2, 1, 5), (4, 7, 3)):
        image, mask = (
            torch.rand(batch, *field.shape_at({"h": h, "w": w})) for field in (IMAGE, MASK)
        )
        (made,) = session.run(None, {"image": image.numpy(), "mask": mask.numpy()})
        np.testing.assert_allclose(made, Twice()(image, mask).numpy(), atol=1e-6)
    assert made.shape == (4, 3, 56, 24)


class Fixed(nn.Module):
    """Adds a picture of the size that it was traced with."""

    def __init__(self, h: int, w: int) -> None:
        super().__init__()
        self.register_buffer("picture", torch.rand(3, h, w))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.get_buffer("picture")


def test_a_network_of_one_size_alone_cannot_be_traced() -> None:
    sizes = trace_sizes(Signature((IMAGE,), (IMAGE,)))
    shape = IMAGE.shape_at(sizes)
    with pytest.raises(Exception, match=r"[hw]"):
        export_program(Fixed(*shape[1:]).eval(), (torch.rand(3, *shape),), [IMAGE], ["y"], 20)


@pytest.mark.parametrize("least", [1, 2, 3, 5])
@pytest.mark.parametrize("factors", [(1, 1), (4, 4), (7, 8), (8, 7), (64, 64), (256, 32), (21, 3)])
def test_sizes_to_trace_with_are_neither_1_nor_the_batch_nor_alike(
    factors: tuple[int, int], least: int
) -> None:
    """Torch would take them for constants, or for one another."""
    axes = [f"{factor}*{name}" for factor, name in zip(factors, "hw", strict=True)]
    field = Field("image", (3, *axes), "image")
    sizes = trace_sizes(Signature((field,), (field,), least=least))
    assert len({1, 3, *sizes.values()}) == 4
    assert all(size >= least for size in sizes.values())
    assert all(size <= max(least, 64 // f) + 3 for size, f in zip(sizes.values(), factors, strict=True))  # fmt: skip
    assert trace_sizes(Signature((Field("z", (4,)),), (Field("y", (4,)),))) == {}
