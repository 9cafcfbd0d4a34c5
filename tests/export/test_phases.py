"""Convolutions that double the size, as phases: the same images, in the shapes that pay; what does not fit is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from gan.export.editing import Editor
from gan.export.optimize import optimize
from gan.export.phases import nearest_as_phases, shuffle_by_product, transposed_as_phases

from .onnx_graphs import copied, model, normal, operators, run
from .rewriting import check_equal, check_left, node, resized, rewritten


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("activation", ["", "Relu", "LeakyRelu", "Tanh"])
def test_a_convolution_after_nearest_upsampling_runs_at_the_small_size(
    kernel: int, activation: str
) -> None:
    made = resized(mode="nearest", kernel=kernel)
    if activation:
        made.graph.node[-1].output[0] = "c"
        made.graph.node.append(node(activation, ["c"], "y"))
        made = onnx.shape_inference.infer_shapes(made)
    other = rewritten(made, nearest_as_phases)
    found = operators(other)
    assert "Resize" not in found and found.count("Conv") == 4 and found[-1] == "DepthToSpace"
    taps = [len(onnx.numpy_helper.to_array(t)[0, 0].ravel()) for t in other.graph.initializer if "phase" in t.name]  # fmt: skip
    assert sum(taps) == (kernel // 2 + 1) ** 2 * 4  # of k^2 * 4
    check_equal(made, other, tolerance=5e-6, h=5, w=6)


def test_phases_meet_torch_in_float64() -> None:
    made = resized(mode="nearest", kernel=3)
    w, b = (onnx.numpy_helper.to_array(t) for t in made.graph.initializer[1:])
    x = normal(2, 4, 5, 6)
    up = torch.nn.functional.interpolate(torch.from_numpy(x).double(), scale_factor=2)
    y = torch.nn.functional.conv2d(
        up, torch.tensor(w).double(), torch.tensor(b).double(), padding=1
    )
    (ours,) = run(rewritten(made, nearest_as_phases), x=x)
    np.testing.assert_allclose(ours, y.numpy(), atol=1e-5)


def test_other_resizes_and_kernels_are_left() -> None:
    check_left(resized(mode="linear", kernel=3), nearest_as_phases)
    check_left(resized(mode="nearest", kernel=3, scale=3), nearest_as_phases)
    check_left(resized(mode="nearest", kernel=3, nearest_mode="ceil"), nearest_as_phases)
    check_left(resized(mode="nearest", kernel=1), nearest_as_phases)
    strided = resized(mode="nearest", kernel=3)
    strided.graph.node[-1].attribute.append(helper.make_attribute("strides", [2, 2]))
    check_left(strided, nearest_as_phases)


# Transposed convolutions.


def transposed(
    i: int = 5, o: int = 16, size: tuple[int | str, int | str] = (8, 9), kernel: int = 4,
    activation: str = "", bias: bool = True, **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    groups = attributes.get("group", 1)
    constants = {"w": normal(i, o // groups, kernel, kernel)} | (
        {"b": normal(o, seed=1)} if bias else {}
    )
    given = {"strides": [2, 2], "pads": [1] * 4} | attributes
    nodes = [node("ConvTranspose", ["x", *constants], "c" if activation else "y", **given)]
    if activation:
        nodes.append(node(activation, ["c"], "y"))
    return model(nodes, constants, {"x": ["batch", i, *size]}, ["y"])


@pytest.mark.parametrize("activation", ["", "Relu", "LeakyRelu", "Tanh"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(2, 2), (4, 4), (8, 9), (9, 16)])
def test_a_transposed_convolution_is_four_convolutions_and_a_shuffle(
    size: tuple[int, int], bias: bool, activation: str
) -> None:
    made = transposed(size=size, bias=bias, activation=activation)
    other = rewritten(made, transposed_as_phases)
    after = [activation] if activation else []
    assert operators(other) == ["Conv", *after] * 4 + ["Concat", "DepthToSpace"]
    assert [len(n.input) for n in other.graph.node if n.op_type == "Conv"] == [2 + bias] * 4
    check_equal(made, other, tolerance=5e-6)
    kept = sum(onnx.numpy_helper.to_array(t).size for t in other.graph.initializer)
    assert kept == sum(onnx.numpy_helper.to_array(t).size for t in made.graph.initializer)


def test_transposed_phases_meet_torch_in_float64() -> None:
    made = transposed(i=3, size=(8, 10))
    w, b = (torch.tensor(onnx.numpy_helper.to_array(t)).double() for t in made.graph.initializer)
    x = normal(2, 3, 8, 10)
    y = torch.nn.functional.conv_transpose2d(torch.tensor(x).double(), w, b, 2, 1)
    (ours,) = run(rewritten(made, transposed_as_phases), x=x)
    np.testing.assert_allclose(ours, y.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "pads", "extra"),
    [
        (2, [0] * 4, [0, 0]),
        (3, [1] * 4, [1, 1]),
        (3, [0, 1, 1, 0], [0, 0]),
        (4, [2, 0, 0, 2], [0, 0]),
        (5, [2] * 4, [1, 1]),
        (6, [2, 1, 2, 3], [0, 0]),
        (4, [1, 1, 2, 2], [1, 1]),
    ],
)
@pytest.mark.parametrize("size", [(3, 5), ("h", "w")])
def test_where_it_is_wanted_any_kernel_that_doubles_the_size_has_phases(
    kernel: int, pads: list[int], extra: list[int], size: tuple[int | str, int | str]
) -> None:
    given: dict[str, Any] = {"pads": pads, "output_padding": extra}
    made = transposed(o=3, size=size, kernel=kernel, **given)
    made.graph.node[0].name = "this"

    def rewrite(editor: Editor) -> int:
        return transposed_as_phases(editor, ["this"])

    other = rewritten(made, rewrite)
    assert operators(other) == ["Conv"] * 4 + ["Concat", "DepthToSpace"]
    check_equal(made, other, tolerance=5e-6, h=4, w=3)


@pytest.mark.parametrize(
    "given",
    [
        {"o": 24},
        {"size": (8, 17)},
        {"kernel": 3, "output_padding": [1, 1]},
        {"strides": [1, 1]},
        {"pads": [1, 1, 2, 2]},
        {"pads": [3, 1, 0, 1], "output_padding": [1, 0]},  # a pixel in only one of its two rows
        {"pads": [0] * 4},
        {"group": 5, "o": 80},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER", "pads": [0] * 4},
        {"output_shape": [16, 18], "pads": [0] * 4},
        {"size": ("h", "w")},
        {"size": (4, 4), "i": 2049, "o": 128},
    ],
)
def test_transposed_convolutions_of_other_forms_are_left(given: dict[str, Any]) -> None:
    check_left(transposed(**given), transposed_as_phases)


def test_a_transposed_convolution_whose_weights_are_computed_is_left() -> None:
    nodes = [node("ConvTranspose", ["x", "w"], "y", strides=[2, 2], pads=[1] * 4)]
    sizes: dict[str, list[int | str]] = {"x": ["batch", 5, 8, 8], "w": [5, 16, 4, 4]}
    check_left(model(nodes, {}, sizes, ["y"]), transposed_as_phases)


def test_transposed_convolutions_of_float16_are_left() -> None:
    made = transposed()
    for tensor in made.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    check_left(made, transposed_as_phases)


def test_many_weights_at_two_pixels_or_eight_are_worth_it() -> None:
    for size in (2, 8):
        made = transposed(i=2049, o=128, size=(size, size))
        rewritten(made, transposed_as_phases)


def test_of_images_of_any_size_the_least_part_of_a_row_is_known() -> None:
    """An axis of 8 w pixels is a whole number of parts of 8; one of 3 w, or of w, is of none."""
    made = transposed(size=("8*h", "8*w"))
    other = copied(made)
    assert optimize(other, "cpu") == {
        "transposed convolutions as phases": 1,
        "shuffles of phases as products": 1,
    }
    assert "DepthToSpace" not in operators(other)
    for h, w in ((8, 8), (16, 40)):
        check_equal(made, other, tolerance=5e-6, **{"8*h": h, "8*w": w})
    for axis in ("3*w", "w"):
        check_left(transposed(size=("8*h", axis)), transposed_as_phases)


@pytest.mark.parametrize(("first", "second", "end"), [("4*a", "4*b", 10**9), ("8*a", "8*a", 300)])
def test_a_width_of_several_axes_or_with_a_bound_has_the_parts_of_all_its_sizes(
    first: str, second: str, end: int
) -> None:
    nodes = [
        node("Concat", ["p", "q"], "wide", axis=3),
        node("Slice", ["wide", "start", "end", "axis"], "x"),
        node("ConvTranspose", ["x", "w"], "y", strides=[2, 2], pads=[1] * 4),
    ]
    constants = {
        "w": normal(3, 16, 4, 4), "start": np.array([0]), "end": np.array([end]), "axis": np.array([3]),
    }  # fmt: skip
    sizes: dict[str, list[int | str]] = {
        "p": ["batch", 3, 8, first],
        "q": ["batch", 3, 8, second],
    }
    made = model(nodes, constants, sizes, ["y"])
    other = copied(made)
    assert len(optimize(other, "cpu")) == 2
    for a, b in ((1, 1), (1, 2), (20, 20)):
        given = {first: int(first[0]) * a, second: int(second[0]) * (a if first == second else b)}
        check_equal(made, other, tolerance=5e-6, **given)


def test_an_activation_that_is_not_alone_stays() -> None:
    made = transposed(activation="Relu")
    made.graph.output.append(helper.make_tensor_value_info("c", 1, ["batch", 16, 16, 18]))
    other = rewritten(made, transposed_as_phases)
    assert operators(other) == ["Conv"] * 4 + ["Concat", "DepthToSpace", "Relu"]
    check_equal(made, other, tolerance=5e-6)


# Shuffles.


def shuffled(
    size: tuple[int | str, int | str], count: int = 4, **attributes: Any
) -> onnx.ModelProto:
    names = ["a", "b", "c", "d"][:count]
    nodes = [
        node("Concat", names, "joined", axis=1),
        node("DepthToSpace", ["joined"], "y", **({"blocksize": 2} | attributes)),
    ]
    return model(nodes, {}, {name: ["batch", 12 // count, *size] for name in names}, ["y"])


@pytest.mark.parametrize(
    "size", [(3, 1), (1, 2), (4, 4), (5, 7), (6, 16), (2, 18), (3, 32), (5, 60), (2, 128)]
)
def test_a_shuffle_of_phases_by_a_product_is_the_shuffle(size: tuple[int, int]) -> None:
    made = shuffled(size)
    other = rewritten(made, shuffle_by_product)
    assert "DepthToSpace" not in operators(other) and operators(other).count("MatMul") == 1
    check_equal(made, other, tolerance=0)


@pytest.mark.parametrize(
    "made",
    [
        shuffled((4, 17)),
        shuffled((4, 34)),
        shuffled(("h", "w")),
        shuffled((4, 4), mode="CRD"),
        shuffled((4, 4), blocksize=1),
        shuffled((4, 4), count=2),
    ],
)
def test_shuffles_of_other_forms_are_left(made: onnx.ModelProto) -> None:
    check_left(made, shuffle_by_product)


def test_shuffles_of_other_parts_and_those_that_others_read_are_left() -> None:
    made = shuffled((4, 4))
    made.graph.output.append(helper.make_tensor_value_info("joined", 1, ["batch", 12, 4, 4]))
    check_left(made, shuffle_by_product)
    made = shuffled((4, 4))
    for value in (*made.graph.input, *made.graph.output, *made.graph.value_info):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    check_left(made, shuffle_by_product)
    nodes = [
        node("Concat", ["a", "b", "b", "b"], "joined", axis=1),
        node("DepthToSpace", ["joined"], "y", blocksize=2),
    ]
    sizes: dict[str, list[int | str]] = {"a": ["batch", 1, 4, 4], "b": ["batch", 5, 4, 4]}
    check_left(model(nodes, {}, sizes, ["y"]), shuffle_by_product)


# All together.


def test_transposed_phases_and_products_are_for_cpus_alone() -> None:
    made = transposed(size=(8, 16))
    assert optimize(copied(made), "any") == {}
    other = copied(made)
    assert optimize(other, "cpu") == {
        "transposed convolutions as phases": 1,
        "shuffles of phases as products": 1,
    }
    check_equal(made, other, tolerance=5e-6)
    assert optimize(other, "cpu") == {}


def test_a_shuffle_of_rows_of_any_length_is_a_product_where_a_part_is_known() -> None:
    made = shuffled(("h", "12*w"))
    other = rewritten(made, shuffle_by_product)
    assert "DepthToSpace" not in operators(other)
    for h, w in ((1, 12), (5, 36)):
        check_equal(made, other, tolerance=0, **{"h": h, "12*w": w})


def test_nearest_phases_are_shuffled_by_a_product_on_cpus() -> None:
    made = resized(mode="nearest", kernel=3)
    for value, size in zip(
        made.graph.input[0].type.tensor_type.shape.dim[2:], (6, 20), strict=True
    ):
        value.dim_value = size
    made = onnx.shape_inference.infer_shapes(made)
    other, plain = copied(made), copied(made)
    assert len(optimize(plain, "any")) == 1 and operators(plain)[-1] == "DepthToSpace"
    assert "shuffles of phases as products" in optimize(other, "cpu")
    assert "DepthToSpace" not in operators(other)
    check_equal(made, other, tolerance=5e-6)
