"""The comparison of outputs: hand-computed rows, and limits that refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from gan.export import graph as graphs
from gan.export.module import Source, draw_inputs
from gan.export.parity import (
    _explained,
    cases,
    check_exactness,
    check_row,
    check_shares,
    compare,
    file_inputs,
    largest_step,
    measure_exactness,
    measure_parity,
)
from gan.export.report import Exactness, ParityRow
from gan.runtime import Draw, Field, ParityError, Signature

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
        check_row(row, 2)


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
        check_row(row, 10_000)


def test_at_the_limits_a_row_passes() -> None:
    check_row(ParityRow("image", 1, 1e-4, 0, 99, 1, 1e-3), 1_000)
    check_row(ParityRow("image", 1, 1e-4, 0, 99, 1, 1 / 980), 980)  # alone it says nothing


def test_two_steps_are_refused_in_the_smallest_output() -> None:
    with pytest.raises(ParityError, match="by 2 steps"):
        check_row(ParityRow("image", 1, 1e-6, 0, 99, 2, 1 / 48), 48)


@pytest.mark.parametrize(
    ("differing", "sizes", "refused"),
    [
        ((1, 0), (980, 19), True),  # 1 of 999
        ((1, 0), (980, 20), False),  # 1 of 1,000
        ((0, 2), (980, 20), True),
        ((1, 1), (48, 1_952), False),
        ((1, 2), (48, 1_952), True),
    ],
)
def test_shares_of_small_outputs_are_judged_over_all_batches(
    differing: tuple[int, int], sizes: tuple[int, int], refused: bool
) -> None:
    other = ParityRow("large", 1, 0, 0, 99, 0, 0.0)  # does not dilute them
    points = ParityRow("points", 1, 0, 0, 99)
    rows = [
        ParityRow("small", i, 0, 0, 99, 1, d / n)
        for i, (d, n) in enumerate(zip(differing, sizes, strict=True))
    ]
    arguments = [*rows, other, points], [*sizes, 10**6, 10**6]
    if refused:
        with pytest.raises(ParityError, match=r"output small.*of all batches"):
            check_shares(*arguments)
    else:
        check_shares(*arguments)


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


# A graph y = (z + noise) truncation + given, by hand.

FIELDS = (
    Field("z", (4,), draw=Draw("normal")),
    Field("truncation", (), "scalar", range=(-2, 2), draw=Draw("fixed", 1, value=1.0)),
    Field("noise", (4,), "noise", draw=Draw("normal", 16, shared=True)),
    Field("given", (4,), "style"),
)
PRODUCT = Signature(FIELDS, (Field("y", (4,), "points"),))


class Product(nn.Module):
    def forward(self, z: Tensor, psi: Tensor, noise: Tensor, given: Tensor) -> Tensor:
        return (z + noise) * psi[:, None] + given


def product(ignored: str = "", probe: bool = False) -> bytes:
    """The graph; of an ignored input all samples take that of the first."""
    terms = {"z": "z", "truncation": "psi", "noise": "noise", "given": "given"}
    nodes = [helper.make_node("Unsqueeze", ["truncation", "axis"], ["psi"])]
    if ignored:
        nodes.append(helper.make_node("Gather", [terms[ignored], "row"], ["first"], axis=0))
        nodes.append(helper.make_node("Mul", [terms[ignored], "nil"], ["none"]))
        nodes.append(helper.make_node("Add", ["none", "first"], ["same"]))
        terms[ignored] = "same"
    nodes += [
        helper.make_node("Add", [terms["z"], terms["noise"]], ["sum"]),
        helper.make_node("Mul", ["sum", terms["truncation"]], ["product"]),
        helper.make_node("Add", ["product", terms["given"]], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info(f.name, TensorProto.FLOAT, ["batch", *f.shape])
        for f in FIELDS
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array(values, kind), name)
        for name, values, kind in (
            ("axis", [1], np.int64),
            ("row", [0], np.int64),
            ("nil", 0, np.float32),
        )
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])]
    if probe:
        nodes.append(helper.make_node("Identity", ["y"], ["y_float"]))
        outputs = [helper.make_tensor_value_info("y_float", TensorProto.FLOAT, ["batch", 4])]
    graph = helper.make_graph(nodes, "product", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def source() -> Source:
    missing: Any = None
    return Source(missing, missing, "y", PRODUCT, Product())


def test_a_graph_with_truncation_shared_noise_and_a_style_is_compared_at_each_batch() -> None:
    rows = measure_parity(source(), PRODUCT, product(), product(probe=True), 11)
    assert [(row.output, row.batch) for row in rows] == [("y", n) for n in (1, 2, 3, 5, 8, 11)]
    assert all(row.max_abs <= 1e-6 for row in rows)
    assert measure_exactness(PRODUCT, product(), 8).across_batches == 0.0


@pytest.mark.parametrize("ignored", ["z", "truncation", "noise", "given"])
def test_a_graph_that_takes_an_input_from_the_first_sample_of_its_batch_is_refused(
    ignored: str,
) -> None:
    files = product(ignored), product(ignored, probe=True)
    with pytest.raises(ParityError, match="At batch 2 the float output is off"):
        measure_parity(source(), PRODUCT, *files, 8)
    assert measure_exactness(PRODUCT, files[0], 8).across_batches > 1


def test_torch_and_the_file_are_given_the_same_inputs() -> None:
    drawn = draw_inputs(FIELDS, 5)
    for tensor, array in zip(source().inputs(5), drawn.values(), strict=True):
        assert torch.equal(tensor, torch.from_numpy(array))


class Deviating(nn.Module):
    """The same as z in float64, and so much more in float32."""

    def __init__(self, by: float, breaks: bool = False) -> None:
        super().__init__()
        self.by, self.breaks = by, breaks

    def forward(self, z: Tensor) -> Tensor:
        if self.breaks and z.dtype == torch.float64:
            raise RuntimeError("no float64 here")
        return z + self.by * (z.dtype == torch.float32)


@pytest.mark.parametrize(
    ("module", "told"),
    [(Deviating(1e-3), True), (Deviating(1e-5), False), (Deviating(1e-3, breaks=True), False)],
)
def test_a_parity_error_tells_where_torch_itself_is_as_far_from_float64(
    module: nn.Module, told: bool
) -> None:
    z, out = Field("z", (3,), "latent", draw=Draw("normal")), Field("points", (3,), "points")
    nothing: Any = None
    source = Source(nothing, nothing, "points", Signature((z,), (out,)), module)
    plain = ParityError("They disagree", seen="They are off by 1", repair="Report it")
    error = _explained(plain, source, 0)
    assert error.seen.startswith(plain.seen) and ("magnifies rounding" in error.seen) == told
    assert (error is plain) != told and ("larger width" in error.repair) == told


# Images of any size.

PICTURE = Field("picture", (1, "h", "w"), "image", range=(-1.0, 1.0))
HOLE = Field("hole", (1, "h", "w"), "mask", range=(0.0, 1.0))
SUM = Field("sum", (1, "2*h", "2*w"), "image", range=(-1.0, 1.0))
SIZED = Signature((PICTURE, HOLE), (SUM,), least=3)


class Sum(nn.Module):
    def forward(self, picture: Tensor, hole: Tensor) -> Tensor:
        half = picture / 2 + hole / 4
        return half.repeat_interleave(2, 2).repeat_interleave(2, 3)


def sized_source() -> Source:
    missing: Any = None
    return Source(missing, missing, "sum", SIZED, Sum())


def sized_model(most: int = 10**6) -> tuple[bytes, bytes, Signature]:
    """The same graph with its feet and head, and its probe; beyond `most` pixels a side it repeats the last."""
    constants = [
        onnx.numpy_helper.from_array(np.array(values, kind), name)
        for name, values, kind in (
            ("half", 0.5, np.float32), ("quarter", 0.25, np.float32),
            ("scales", [1, 1, 2, 2], np.float32), ("most", most, np.int64),
            ("nil", 0, np.int64), ("one", 1, np.int64), ("three", [3], np.int64),
        )
    ]  # fmt: skip
    nodes = [
        helper.make_node("Mul", ["picture", "half"], ["a"]),
        helper.make_node("Mul", ["hole", "quarter"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Shape", ["c"], ["shape"]),
        helper.make_node("Gather", ["shape", "three"], ["width"]),
        helper.make_node("Squeeze", ["width"], ["w"]),
        helper.make_node("Range", ["nil", "w", "one"], ["columns"]),
        helper.make_node("Min", ["columns", "most"], ["kept"]),
        helper.make_node("Gather", ["c", "kept"], ["d"], axis=3),
        helper.make_node(
            "Resize", ["d", "", "scales"], ["sum_float"],
            mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric",
        ),
    ]  # fmt: skip
    inputs = [
        helper.make_tensor_value_info(f.name, TensorProto.FLOAT, ["batch", *f.shape])
        for f in SIZED.inputs
    ]
    output = helper.make_tensor_value_info("sum_float", TensorProto.FLOAT, ["batch", 1, "H", "W"])
    graph = helper.make_graph(nodes, "sum", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    signature = graphs.attach_heads(model, SIZED, "uint8")
    signature = graphs.attach_feet(model, signature, "uint8")
    probe = graphs.with_float_outputs(model, SIZED)
    return graphs.to_bytes(model), graphs.to_bytes(probe), signature


def test_the_cases_are_all_batches_at_one_size_and_the_smallest_and_other_sizes() -> None:
    example = {"h": 32, "w": 32}
    assert cases(SIZED, 11) == [
        *((batch, example) for batch in (1, 2, 3, 5, 8, 11)),
        (2, {"h": 3, "w": 3}), (2, {"h": 4, "w": 6}), (2, {"h": 9, "w": 5}),
    ]  # fmt: skip
    assert cases(SIZED, 5) == cases(SIZED, 8)
    assert cases(PRODUCT, 8) == [(batch, {}) for batch in (1, 2, 3, 5, 8)]


def test_the_rows_carry_the_sizes_of_images() -> None:
    file, probe, signature = sized_model()
    rows = measure_parity(sized_source(), signature, file, probe, 8)
    assert [row.size for row in rows] == ["64x64"] * 5 + ["6x6", "8x12", "18x10"]
    assert [row.batch for row in rows] == [1, 2, 3, 5, 8, 2, 2, 2]
    assert all(row.max_abs <= 1e-6 and row.step == 0 for row in rows)
    assert measure_exactness(signature, file, 8).across_batches == 0.0
    plain = measure_parity(source(), PRODUCT, product(), product(probe=True), 8)
    assert {row.size for row in plain} == {""}


@pytest.mark.parametrize(("most", "said"), [(3, "64x64"), (40, ""), (2, "64x64")])
def test_a_graph_that_is_wrong_beyond_a_size_is_refused(most: int, said: str) -> None:
    file, probe, signature = sized_model(most)
    if not said:
        measure_parity(sized_source(), signature, file, probe, 8)
        return
    with pytest.raises(ParityError, match=f"of {said} the float output is off"):
        measure_parity(sized_source(), signature, file, probe, 8)


def test_a_graph_that_is_wrong_below_the_examples_size_alone_is_refused() -> None:
    """As one whose least size was traced wrong."""
    file, probe, signature = sized_model()

    class Otherwise(Sum):
        def forward(self, picture: Tensor, hole: Tensor) -> Tensor:
            made = super().forward(picture, hole)
            return made + (0.1 if picture.shape[2] == 4 else 0.0)

    missing: Any = None
    other = Source(missing, missing, "sum", SIZED, Otherwise())
    with pytest.raises(ParityError, match=r"At batch 2 of 8x12 the float output is off by 0\.1"):
        measure_parity(other, signature, file, probe, 8)


def test_the_file_is_given_what_torch_is_given_as_bytes() -> None:
    _, _, signature = sized_model()
    sizes = {"h": 5, "w": 4}
    given = file_inputs(sized_source(), signature, 3, sizes)
    picture, hole = sized_source().inputs(3, sizes=sizes)
    assert given["picture"].shape == given["hole"].shape == (3, 5, 4, 1)
    assert given["picture"].dtype == given["hole"].dtype == np.uint8
    back = given["picture"].astype(np.float32) / np.float32(127.5) - np.float32(1)
    assert np.array_equal(back.transpose(0, 3, 1, 2), picture.numpy())
    assert np.array_equal(given["hole"].transpose(0, 3, 1, 2) / 255, hole.numpy())
    floats = file_inputs(sized_source(), SIZED, 3, sizes)
    assert np.array_equal(floats["picture"], picture.numpy())


def test_an_output_of_another_size_is_refused() -> None:
    field = Field("sum", ("2*h", "2*w", 1), "image", "uint8", (0.0, 255.0))
    truth = np.zeros((1, 1, 4, 6), np.float32)
    sizes = {"h": 2, "w": 3}
    row = compare(field, 1, truth, truth, np.full((1, 4, 6, 1), 128, np.uint8), sizes)
    assert row.size == "4x6" and row.step == 0
    with pytest.raises(ParityError, match="wrong shape"):
        compare(field, 1, truth, truth, np.full((1, 6, 4, 1), 128, np.uint8), sizes)
