"""Conversion to float16 on small graphs made by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gan.export.precision import Half, barred, fits_half, layer_paths, to_half
from gan.runtime import ExportError
from gan.runtime.session import Session
from gan.runtime.wire import DOMAINS, read_model

Array = NDArray[Any]
LOWER: list[Half] = ["fp16", "mixed"]
RNG = np.random.default_rng(0)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(
        op, inputs.split(), outputs.split(), f"node_{op}_{outputs}", **attributes
    )


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, Any],
    *,
    shape: tuple[int | str, ...] = ("batch", 4, 4, 4),
    outputs: tuple[str, ...] = ("y",),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A checked graph from x to `outputs`, float32 unless said."""
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        made,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    proto = onnx.shape_inference.infer_shapes(proto)
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def converted(proto: onnx.ModelProto, precision: Half) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    to_half(copy, precision)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def run(proto: onnx.ModelProto, x: Array) -> list[Array]:
    return Session(proto.SerializeToString(), device="cpu", threads=1, example={}).run({"x": x})


def types(proto: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}


def result_types(proto: onnx.ModelProto, op: str) -> set[int]:
    """Element types of what the nodes of one operator make."""
    known = types(proto)
    return {known[name] for n in proto.graph.node if n.op_type == op for name in n.output}


def casts(proto: onnx.ModelProto) -> int:
    return sum(n.op_type == "Cast" for n in proto.graph.node)


def convolutions() -> onnx.ModelProto:
    return model(
        [
            node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
            node("Relu", "a", "b"),
            node("ConvTranspose", "b w2", "c", strides=[2, 2]),
            node("LeakyRelu", "c", "d", alpha=0.2),
            node("Conv", "d w3", "e"),
            node("Tanh", "e", "y"),
        ],
        {"w1": normal(8, 4, 3, 3) / 6, "w2": normal(8, 8, 2, 2) / 6, "w3": normal(3, 8, 1, 1) / 3},
    )


def pixel_norm() -> onnx.ModelProto:
    return model(
        [
            node("Conv", "x w1", "a"),
            node("Pow", "a two", "b"),
            node("Conv", "b mean", "c"),
            node("Add", "c eps", "d"),
            node("Sqrt", "d", "e"),
            node("Reciprocal", "e", "f"),
            node("Mul", "a f", "g"),
            node("Conv", "g w2", "h"),
            node("Relu", "h", "i"),
            node("Conv", "i w3", "y"),
        ],
        {
            "w1": normal(8, 4, 1, 1),
            "two": np.float32(2),
            "mean": np.full((1, 8, 1, 1), 1 / 8, np.float32),
            "eps": np.float32(1e-8),
            "w2": normal(8, 8, 1, 1),
            "w3": normal(3, 8, 1, 1),
        },
    )


def modulated() -> onnx.ModelProto:
    """A style from the mean of x, a convolution modulated by it and demodulated."""
    return model(
        [
            node("Conv", "x w1", "a"),
            node("ReduceMean", "a axes", "m", keepdims=0),
            node("Gemm", "m affine", "s"),
            node("Unsqueeze", "s axes", "s4"),
            node("Mul", "a s4", "b"),
            node("Conv", "b w2", "c"),
            node("Pow", "s two", "ss"),
            node("MatMul", "ss squares", "sum"),
            node("Sqrt", "sum", "root"),
            node("Unsqueeze", "root axes", "root4"),
            node("Div", "c root4", "d"),
            node("Conv", "d w3", "y"),
        ],
        {
            "w1": normal(8, 4, 1, 1),
            "axes": np.array([2, 3]),
            "affine": normal(8, 8),
            "w2": normal(8, 8, 1, 1),
            "two": np.float32(2),
            "squares": np.square(normal(8, 8)),
            "w3": normal(3, 8, 1, 1),
        },
    )


def attention() -> onnx.ModelProto:
    return model(
        [
            node("Conv", "x w1", "a"),
            node("Reshape", "a flat", "q"),
            node("Transpose", "q", "k", perm=[0, 2, 1]),
            node("MatMul", "k q", "scores"),
            node("Softmax", "scores", "p"),
            node("MatMul", "q p", "v"),
            node("Reshape", "v back", "b"),
            node("InstanceNormalization", "b scale shift", "n"),
            node("Conv", "n w2", "c"),
            node("Relu", "c", "d"),
            node("Conv", "d w2", "y"),
        ],
        {
            "w1": normal(4, 4, 1, 1),
            "flat": np.array([0, 4, 16]),
            "back": np.array([0, 4, 4, 4]),
            "scale": np.ones(4, np.float32),
            "shift": np.zeros(4, np.float32),
            "w2": normal(4, 4, 1, 1),
        },
    )


GRAPHS = [convolutions, pixel_norm, modulated, attention]


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("make", GRAPHS)
def test_inputs_and_outputs_keep_their_types_and_operators_stay_standard(
    make: Any, precision: Half
) -> None:
    before = make()
    after = converted(before, precision)
    assert after.graph.input == before.graph.input
    assert [(v.name, v.type) for v in after.graph.output] == [
        (v.name, v.type) for v in before.graph.output
    ]
    assert after.opset_import == before.opset_import
    assert {n.domain for n in after.graph.node} <= DOMAINS
    assert read_model(after.SerializeToString()).nodes == len(after.graph.node)


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("make", GRAPHS)
def test_values_stay_near_float32(make: Any, precision: Half) -> None:
    x = normal(3, 4, 4, 4)
    proto = make()
    wanted = run(proto, x)[0]
    given = run(barred(converted(proto, precision)), x)[0]
    # about ten operators, each off by half a unit in the last place, on sums of up to 16 products
    assert np.abs(given - wanted).max() <= 10 * 16 * 2.0**-11 * np.abs(wanted).max()
    assert not np.array_equal(given, wanted)


@pytest.mark.parametrize("precision", LOWER)
def test_a_plain_network_has_one_cast_at_each_border(precision: Half) -> None:
    proto = converted(convolutions(), precision)
    assert casts(proto) == 2
    kinds = Counter(t.data_type for t in proto.graph.initializer)
    assert kinds[TensorProto.FLOAT16] == (3 if precision == "fp16" else 2)


def test_fp16_has_everything_in_float16() -> None:
    proto = converted(convolutions(), "fp16")
    known = types(proto)
    floats = {name for name, kind in known.items() if kind == TensorProto.FLOAT}
    assert floats == {"y"}


@pytest.mark.parametrize("make", GRAPHS)
def test_no_cast_undoes_another(make: Any) -> None:
    for precision in LOWER:
        proto = converted(make(), precision)
        made = {n.output[0] for n in proto.graph.node if n.op_type == "Cast"}
        assert not [n for n in proto.graph.node if n.op_type == "Cast" and n.input[0] in made]
        pairs = [(n.input[0], n.attribute[0].i) for n in proto.graph.node if n.op_type == "Cast"]
        assert len(set(pairs)) == len(pairs)


def test_mixed_keeps_norms_styles_softmax_and_the_last_layer() -> None:
    single = {TensorProto.FLOAT}
    norm = converted(pixel_norm(), "mixed")
    assert result_types(norm, "Pow") | result_types(norm, "Sqrt") == single
    known = types(norm)
    assert known["c"] == known["d"] == known["f"] == TensorProto.FLOAT  # the mean is a convolution
    assert known["a_half"] == known["h_half"] == TensorProto.FLOAT16
    assert known["y"] == TensorProto.FLOAT and "y_half" not in known
    style = converted(modulated(), "mixed")
    for op in ("ReduceMean", "Gemm", "Pow", "MatMul", "Sqrt"):
        assert result_types(style, op) == single, op
    assert types(style)["b_half"] == types(style)["c_half"] == TensorProto.FLOAT16
    heads = converted(attention(), "mixed")
    assert result_types(heads, "Softmax") | result_types(heads, "InstanceNormalization") == single
    assert {"scores_half", "c_half"} <= set(types(heads))


def test_every_path_to_an_output_ends_in_float32() -> None:
    proto = model(
        [
            node("Conv", "x w", "a"),
            node("Relu", "a", "b"),
            node("Conv", "b w", "c"),
            node("Conv", "b w", "d"),
            node("Add", "c d", "e"),
            node("Tanh", "e", "y"),
            node("Sigmoid", "d", "y2"),
        ],
        {"w": normal(4, 4, 1, 1)},
        outputs=("y", "y2"),
    )
    known = types(converted(proto, "mixed"))
    assert {name for name, kind in known.items() if kind == TensorProto.FLOAT16} <= {
        "x_half",
        "a_half",
        "b_half",
    }


def test_the_rounded_graph_computes_as_numpy_does_in_float16() -> None:
    k, c = np.float32(1.7), np.float32(-0.3)
    proto = model(
        [node("Mul", "x k", "a"), node("Add", "a c", "b"), node("Mul", "b b", "y")],
        {"k": k, "c": c},
    )
    x = normal(5, 4, 4, 4) * 10
    half = x.astype(np.float16) * np.float16(k) + np.float16(c)
    wanted = (half * half).astype(np.float32)
    assert np.array_equal(run(barred(converted(proto, "fp16")), x)[0], wanted)


def test_the_rounded_graph_overflows_where_float16_does() -> None:
    proto = model(
        [node("Mul", "x k", "a"), node("Mul", "a l", "y")],
        {"k": np.float32(1000), "l": np.float32(0.001)},
    )
    x = np.repeat(np.array([65, 66, -66, 1], np.float32), 16).reshape(1, 4, 4, 4)
    given = run(barred(converted(proto, "fp16")), x)[0]
    assert list(np.isinf(given[0, :, 0, 0])) == [False, True, True, False]


def test_a_product_is_within_the_bound_of_float16() -> None:
    w, x = normal(64, 32), normal(3, 64)
    proto = model([node("MatMul", "x w", "y")], {"w": w}, shape=("batch", 64))
    given = run(barred(converted(proto, "fp16")), x)[0]
    exact, u = x.astype(np.float64) @ w, 2.0**-11
    bound = (2 * u + u**2) * (np.abs(x).astype(np.float64) @ np.abs(w)) + 2 * u * np.abs(exact)
    assert (np.abs(given - exact) <= bound + 1e-6).all()


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ([65504.0, -1.0], True),
        ([65505.0], False),
        ([0.0, -1e5], False),
        ([6e-5, 1e-9], False),  # all subnormal
        ([6.2e-5, 1e-9], True),
        ([0.0, 0.0], True),
        ([], True),
    ],
)
def test_what_float16_can_hold(values: list[float], fits: bool) -> None:
    assert fits_half(numpy_helper.from_array(np.array(values, np.float32), "w")) is fits


@pytest.mark.parametrize("scale", [1e6, 1e-7])
@pytest.mark.parametrize("precision", LOWER)
def test_weights_beyond_float16_stay_and_are_named(scale: float, precision: Half) -> None:
    proto = model(
        [
            node("Conv", "x w1", "a"),
            node("Mul", "a scale", "b"),
            node("Mul", "b back", "c"),
            node("Conv", "c w2", "d"),
            node("Conv", "d w2", "y"),
        ],
        {
            "w1": normal(4, 4, 1, 1),
            "scale": np.full((4, 1, 1), scale, np.float32),
            "back": np.full((4, 1, 1), 1 / scale, np.float32),
            "w2": normal(4, 4, 1, 1),
        },
    )
    x = normal(2, 4, 4, 4)
    wanted = run(proto, x)[0]
    done = to_half(proto, precision)
    assert done.kept == ["back", "scale"]
    kinds = {t.name: t.data_type for t in proto.graph.initializer}
    assert kinds["scale"] == kinds["back"] == TensorProto.FLOAT
    assert np.abs(run(barred(proto), x)[0] - wanted).max() <= 0.01 * np.abs(wanted).max()


def test_whole_numbers_are_left_alone() -> None:
    proto = model(
        [
            node("Gather", "table x", "e"),
            node("Shape", "e", "s"),
            node("ConstantOfShape", "s", "ones", value=helper.make_tensor("v", 1, [1], [1.0])),
            node("Add", "e ones", "a"),
            node("Reshape", "a to", "b"),
            node("Conv", "b w", "y"),
        ],
        {"table": normal(10, 8), "to": np.array([0, 8, 1, 1]), "w": normal(3, 8, 1, 1)},
        shape=("batch",),
        kind=TensorProto.INT64,
    )
    after = converted(proto, "fp16")
    assert types(after)["s"] == TensorProto.INT64
    assert {t.name: t.data_type for t in after.graph.initializer}["to"] == TensorProto.INT64
    x = np.array([3, 9, 0])
    assert np.allclose(run(barred(after), x)[0], run(proto, x)[0], atol=0.02)


def test_a_subgraph_stays_in_float32_with_what_it_takes_from_outside() -> None:
    def branch(op: str, name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([node(op, "a w", name)], name, [], [out])

    proto = model(
        [
            node("Mul", "x w", "a"),
            node("ReduceMax", "a", "m", keepdims=0),
            node("Greater", "m zero", "positive"),
            node(
                "If",
                "positive",
                "b",
                then_branch=branch("Add", "t"),
                else_branch=branch("Sub", "e"),
            ),
            node("Mul", "b w", "y"),
        ],
        {"w": np.float32(1.5), "zero": np.float32(0)},
    )
    after = converted(proto, "fp16")
    assert types(after)["a_half"] == TensorProto.FLOAT16
    for x in (normal(2, 4, 4, 4), -np.ones((1, 4, 4, 4), np.float32)):
        assert np.allclose(run(barred(after), x)[0], run(proto, x)[0], atol=0.01)


def test_a_weight_that_both_types_use_is_stored_once_if_it_is_large() -> None:
    proto = model(
        [
            node("Conv", "x w", "a"),
            node("Pow", "w two", "ww"),
            node("ReduceSum", "ww axes", "s"),
            node("Sqrt", "s", "r"),
            node("Div", "a r", "b"),
            node("Conv", "b last", "y"),
        ],
        {
            "w": normal(64, 64, 3, 3),
            "two": np.float32(2),
            "axes": np.array([0, 1, 2, 3]),
            "last": normal(3, 64, 1, 1),
        },
        shape=("batch", 64, 8, 8),
    )
    names = {t.name: t.data_type for t in converted(proto, "mixed").graph.initializer}
    assert "w" not in names and names["w_half"] == TensorProto.FLOAT16


def test_scales_of_a_resize_stay_float32() -> None:
    proto = model(
        [node("Resize", "x roi scales", "a", mode="nearest"), node("Conv", "a w", "y")],
        {
            "roi": np.zeros(0, np.float32),
            "scales": np.array([1, 1, 2, 2], np.float32),
            "w": normal(3, 4, 1, 1),
        },
    )
    after = converted(proto, "fp16")
    assert {t.name: t.data_type for t in after.graph.initializer}["scales"] == TensorProto.FLOAT
    assert types(after)["a_half"] == TensorProto.FLOAT16


def test_constant_nodes_become_weights() -> None:
    value = numpy_helper.from_array(normal(3, 4, 1, 1), "ignored")
    proto = model(
        [
            node("Constant", "", "w", value=value),
            node("Constant", "", "k", value_float=0.5),
            node("Conv", "x w", "a"),
            node("Mul", "a k", "y"),
        ],
        {},
    )
    x = normal(1, 4, 4, 4)
    wanted = run(proto, x)[0]
    after = converted(proto, "fp16")
    assert {t.name for t in after.graph.initializer} == {"w_half", "k_half"}
    assert np.allclose(run(after, x)[0], wanted, atol=0.02)


def test_a_type_that_onnx_cannot_tell_is_refused_with_its_node() -> None:
    proto = convolutions()
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Strange", "elsewhere"
    proto.opset_import.add(domain="elsewhere", version=1)
    with pytest.raises(ExportError, match=r"type of b, an output of Strange .*--precision fp32"):
        to_half(proto, "fp16")


def test_the_same_graph_gives_the_same_bytes() -> None:
    proto = modulated()
    first, second = (converted(proto, "mixed").SerializeToString(deterministic=True) for _ in "ab")
    assert first == second


def test_module_paths_are_read_from_the_trace() -> None:
    proto = convolutions()
    proto.graph.node[0].metadata_props.add(
        key="pkg.torch.onnx.name_scopes", value="['', 'layers', 'layers.0', 'conv2d']"
    )
    proto.graph.node[1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="not a list")
    assert layer_paths(proto) == {"a": "layers.0"}
