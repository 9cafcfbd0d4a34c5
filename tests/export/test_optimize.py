"""Each rewrite: the graph makes what it made, the costly operator is gone, and what does not fit is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from gan.export.optimize import (
    WINOGRAD,
    convolve_before_resize,
    drop_expansions,
    fold_constants,
    forms,
    move_factors,
    optimize,
    point_as_gemm,
)

from .onnx_graphs import copied, model, normal, operators
from .rewriting import check_equal, check_left, node, resized, rewritten

# Constants.


def demodulation(shape: tuple[int, ...] = (8, 4, 3, 3)) -> onnx.ModelProto:
    nodes = [
        node("Pow", ["w", "two"], "squared"),
        node("ReduceSum", ["squared", "axes"], "sums", keepdims=0),
        node("MatMul", ["x", "sums"], "y"),
    ]
    constants = {"w": normal(*shape), "two": np.float32(2), "axes": np.array([2, 3])}
    return model(nodes, constants, {"x": ["batch", shape[0]]}, ["y"])


def test_what_depends_on_no_input_is_computed_at_export() -> None:
    made = demodulation()
    other = rewritten(made, fold_constants, 2)
    assert operators(other) == ["MatMul"] and len(other.graph.initializer) == 1
    check_equal(made, other)
    w = onnx.numpy_helper.to_array(made.graph.initializer[0]).astype(np.float64)
    folded = onnx.numpy_helper.to_array(other.graph.initializer[0])
    np.testing.assert_allclose(folded, (w**2).sum((2, 3)), rtol=1e-6)


def test_what_would_make_the_file_larger_is_left() -> None:
    nodes = [node("Expand", ["small", "shape"], "large"), node("Mul", ["x", "large"], "y")]
    constants = {"small": normal(1, 1), "shape": np.array([200, 200])}
    made = model(nodes, constants, {"x": ["batch", 200]}, ["y"])
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 200
    check_left(made, fold_constants)


def test_constants_that_make_an_output_of_the_graph_or_random_numbers_are_left() -> None:
    nodes = [node("RandomNormal", [], "r", shape=[3]), node("Add", ["x", "r"], "y")]
    check_left(model(nodes, {}, {"x": ["batch", 3]}, ["y"]), fold_constants)


# Expansions.


def constant_input(partner: tuple[int, ...]) -> onnx.ModelProto:
    nodes = [
        node("Shape", ["s"], "all"),
        node("Slice", ["all", "zero", "one"], "batch"),
        node("Concat", ["batch", "ones"], "shape", axis=0),
        node("Expand", ["unit", "shape"], "many"),
        node("Mul", ["c", "many"], "start"),
        node("Mul", ["start", "s"], "y"),
    ]
    constants = {
        "c": normal(1, 3, 4, 4), "unit": np.array([1], np.float32), "zero": np.array([0]), "one": np.array([1]),
        "ones": np.array([1, 1, 1]),
    }  # fmt: skip
    return model(nodes, constants, {"s": ["batch", *partner]}, ["y"])


def test_a_constant_is_not_repeated_for_what_has_the_batch_anyway() -> None:
    made = constant_input((3, 1, 1))
    other = rewritten(made, drop_expansions)
    assert operators(other) == ["Mul"]
    check_equal(made, other, tolerance=0)


def test_a_constant_that_brings_an_axis_or_the_batch_is_repeated() -> None:
    check_left(constant_input((1,)), drop_expansions)
    made = constant_input((3, 1, 1))
    made.graph.output.append(helper.make_tensor_value_info("start", 1, ["batch", 3, 4, 4]))
    check_left(made, drop_expansions)


# Factors.


def styled(**more: Any) -> onnx.ModelProto:
    nodes = [
        node("LeakyRelu", ["x"], "r", alpha=0.2),
        node("Mul", ["r", "gain"], "g"),
        node("Mul", ["g", "s"], "a"),
        node("Mul", ["t", "g"], "b"),
        node("Add", ["a", "b"], "y"),
    ]
    sizes = {"x": ["batch", 3, 4, 4], "s": ["batch", 3, 1, 1], "t": ["batch", 3, 1, 1]}
    return model(nodes, {"gain": np.float32(2**0.5)}, sizes | more, ["y"])


def test_a_factor_goes_to_the_styles_that_follow() -> None:
    made = styled()
    other = rewritten(made, move_factors)
    large = [n for n in other.graph.node if n.op_type == "Mul" and "r" in n.input]
    assert operators(other).count("Mul") == 4 and len(large) == 2
    check_equal(made, other)


def test_a_factor_that_meets_something_large_stays() -> None:
    check_left(styled(t=["batch", 3, 4, 4]), move_factors)


# Transposed convolutions of one pixel.


def point(*, bias: bool = True, unsqueeze: bool = False, **attributes: Any) -> onnx.ModelProto:
    constants = {"w": normal(6, 5, 4, 4)} | ({"b": normal(5)} if bias else {})
    nodes = [node("ConvTranspose", ["z", "w", *(["b"] if bias else [])], "y", **attributes)]
    if not unsqueeze:
        return model(nodes, constants, {"z": ["batch", 6, 1, 1]}, ["y"])
    nodes.insert(0, node("Unsqueeze", ["x", "axes"], "z"))
    return model(nodes, constants | {"axes": np.array([2, 3])}, {"x": ["batch", 6]}, ["y"])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 2]}, {"pads": [1, 0, 0, 1]}])
def test_a_transposed_convolution_of_one_pixel_is_a_product(
    attributes: dict[str, Any], bias: bool
) -> None:
    made = point(bias=bias, **attributes)
    other = rewritten(made, point_as_gemm)
    assert operators(other) == ["Reshape", "Gemm", "Reshape"]
    check_equal(made, other)
    flat = rewritten(point(bias=bias, unsqueeze=True, **attributes), point_as_gemm)
    assert operators(flat) == ["Gemm", "Reshape"]


def test_other_transposed_convolutions_are_left() -> None:
    for attributes in ({"group": 2}, {"dilations": [2, 2]}, {"strides": [2, 2], "output_padding": [1, 1]}):  # fmt: skip
        constants = {"w": normal(6, 5, 4, 4)}
        nodes = [node("ConvTranspose", ["z", "w"], "y", **attributes)]
        check_left(model(nodes, constants, {"z": ["batch", 6, 1, 1]}, ["y"]), point_as_gemm)
    nodes = [node("ConvTranspose", ["z", "w"], "y")]
    check_left(model(nodes, constants, {"z": ["batch", 6, 2, 1]}, ["y"]), point_as_gemm)
    check_left(model(nodes, constants, {"z": ["batch", 6, "h", "w"]}, ["y"]), point_as_gemm)


# 1x1 convolutions after a resize.


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("scale", [2, 1.5])
def test_a_1x1_convolution_goes_before_an_enlargement(mode: str, scale: float) -> None:
    made = resized(scale=scale, mode=mode)
    other = rewritten(made, convolve_before_resize)
    assert operators(other) == ["Conv", "Resize"]
    check_equal(made, other, tolerance=5e-6, h=5, w=6)


def test_a_resize_that_others_read_is_kept_where_the_convolution_is_worth_it() -> None:
    for channels, count in ((4, 0), (32, 1)):
        made = resized(i=channels, o=channels)
        made.graph.node.append(node("Neg", ["u"], "v"))
        made.graph.output.append(
            helper.make_tensor_value_info("v", 1, ["batch", channels, None, None])
        )
        if count:
            other = rewritten(made, convolve_before_resize, count)
            assert operators(other).count("Resize") == 2
            check_equal(made, other, tolerance=5e-6, h=5, w=6)
        else:
            check_left(made, convolve_before_resize)


def test_reductions_larger_kernels_and_crops_are_left() -> None:
    check_left(resized(scale=0.5), convolve_before_resize)
    check_left(resized(kernel=3), convolve_before_resize)
    check_left(resized(mode="cubic", exclude_outside=1), convolve_before_resize)
    by_sizes = resized()
    resize = by_sizes.graph.node[0]
    resize.input.append("sizes")
    check_left(by_sizes, convolve_before_resize)


# All together.


def wide() -> onnx.ModelProto:
    nodes = [node("Conv", ["x", "w"], "c", pads=[1] * 4), node("Relu", ["c"], "y")]
    return model(nodes, {"w": normal(96, 96, 3, 3) / 30}, {"x": ["batch", 96, 16, 16]}, ["y"])


def test_winograds_method_is_for_cpus_alone() -> None:
    made = wide()
    assert optimize(copied(made), "any") == {}
    other = copied(made)
    assert optimize(other, "cpu") == {WINOGRAD: 1}
    check_equal(made, other, tolerance=1e-5)


def test_forms_are_the_fastest_first_then_without_winograds_method() -> None:
    made = wide()
    before = made.SerializeToString()
    assert [used for _, used in forms(made, "cpu")] == [{WINOGRAD: 1}, {}]
    assert made.SerializeToString() == before
    assert [used for _, used in forms(made, "any")] == [{}]
    assert [used for _, used in forms(demodulation(), "cpu")] == [{"constants folded": 2}]
    made.graph.node.extend(
        [
            node("ConvTranspose", ["y", "v"], "t", strides=[2, 2], pads=[1] * 4),
            node("Tanh", ["t"], "z"),
        ]
    )
    made.graph.initializer.append(onnx.numpy_helper.from_array(normal(96, 16, 4, 4), "v"))
    made.graph.output[0].name = "z"
    made = onnx.shape_inference.infer_shapes(made)
    other = {"transposed convolutions as phases": 1, "shuffles of phases as products": 1}
    assert [used for _, used in forms(made, "cpu")] == [other | {WINOGRAD: 1}, other]
    ((same, used),) = forms(made, None)
    assert same is made and used == {}


def test_a_rewritten_graph_has_nothing_more_to_rewrite() -> None:
    for made in (demodulation(), styled(), point(), resized(), resized(mode="nearest", kernel=3)):
        assert len(optimize(made, "cpu")) == 1
        assert optimize(made, "cpu") == {}
