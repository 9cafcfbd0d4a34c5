"""Operators: those that generators need are taken, uses that are known to end the process are refused."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gan.runtime import ModelFileError
from gan.runtime.operators import (
    ALWAYS_FLOAT,
    LEFT_OUT,
    LIKE_FIRST,
    LOOPS,
    OPERATORS,
    Constant,
    Node,
    judge,
)
from gan.runtime.wire import read_model

from .test_wire import entry

Array = NDArray[Any]


def model(*nodes: onnx.NodeProto, **constants: Array) -> bytes:
    """z float32 [batch, 4] and label int64 [batch], nodes, no outputs to speak of."""
    ends = [
        helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4]),
        helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
    ]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "g", ends, [onnx.ValueInfoProto(name="y")], held)
    return helper.make_model(graph).SerializeToString()


def node(operator: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


def test_the_lists_name_operators_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    for names in (OPERATORS, LIKE_FIRST, ALWAYS_FLOAT, LEFT_OUT):
        assert set(names) <= known
    assert not LIKE_FIRST & ALWAYS_FLOAT
    assert LIKE_FIRST | ALWAYS_FLOAT <= OPERATORS
    assert not OPERATORS & LOOPS


def test_always_float_and_like_first_are_what_onnx_says() -> None:
    """The type of the first output is that of the first input; of `ALWAYS_FLOAT` no input that gives it its type can
    be an integer."""
    integers = {f"tensor({u}int{bits})" for u in ("", "u") for bits in (8, 16, 32, 64)}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain or schema.name not in LIKE_FIRST | ALWAYS_FLOAT:
            continue
        output = schema.outputs[0].type_str
        if schema.name in LIKE_FIRST:
            assert schema.inputs[0].type_str == output, schema.name
        else:
            able = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
            assert not integers & set(able.get(output, [output])), (
                schema.name,
                schema.since_version,
            )


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (node("RandomNormal", shape=[2]), "'RandomNormal' is none that a generator needs"),
        (node("BlackmanWindow", "label"), "'BlackmanWindow' is none"),
        (node("SequenceConstruct", "z"), "'SequenceConstruct' is none"),
        (node("StringNormalizer", "z"), "'StringNormalizer' is none"),
        (node("LpPool", "z", kernel_shape=[2**40]), "'LpPool' is none"),
        (node("ConvInteger", "z", "z"), "'ConvInteger' is none"),
        (node("QLinearConv", "z", "z"), "'QLinearConv' is none"),
        (node("NoSuchOperator", "z"), "'NoSuchOperator' is none"),
        (node("", "z"), "operator '' is none"),
        (node("Scan", "z"), "'Scan' is a loop"),
        (node("Max", "z", ""), "'Max' lacks an input"),
        (node("Sum", "", "z"), "'Sum' lacks an input"),
        (node("LayerNormalization", "z", "z", ""), "'LayerNormalization' lacks an input"),
        (node("Resize", "z", "", ""), "'Resize' lacks an input"),
        (node("Resize", "", "", "z"), "'Resize' lacks an input"),
        (node("Split", "z", num_outputs=2), "'Split' splits into 2 parts, with 1 outputs"),
        (node("Split", "z", num_outputs=0), "'Split' splits into 0 parts"),
        (node("GatherND", "z", "label", batch_dims=-1), "'GatherND' has batch_dims -1"),
        (node("GatherND", "z", "label", batch_dims=-(2**63)), "'GatherND' has batch_dims -922"),
        (node("Einsum", "z", equation="ij,jk->ik"), "'Einsum' has the equation 'ij,jk->ik' for 1"),
        (node("Einsum", "z", "z", equation="i,->i"), "'Einsum' has the equation"),
        (node("Einsum", "z", "z", equation="..i,i->i"), "'Einsum' has the equation"),
        (node("Einsum", "z", "z", equation="...i...,i->i"), "'Einsum' has the equation"),
        (node("Einsum", "z"), "'Einsum' has the equation ''"),
        (node("DFT", "z", "label"), "'DFT' has a length or an axis that is no constant"),
    ],
)
def test_what_ends_the_process_is_refused(refused: onnx.NodeProto, said: str) -> None:
    with pytest.raises(ModelFileError, match=said):
        read_model(model(refused))


@pytest.mark.parametrize(
    "taken",
    [
        node("Max", "z", "z"),
        node("Clip", "z", "", "z"),
        node("Resize", "z", "", "scales"),
        node("GatherND", "z", "label", batch_dims=1),
        node("GatherND", "z", "label"),
        node("Einsum", "z", "z", equation="bi, bj -> bij"),
        node("Einsum", "z", "z", equation="...ij, ...jk -> ...ik"),
        node("Einsum", "z", equation="i...->..."),
        node("LayerNormalization", "z", "scale"),
        helper.make_node("Split", ["z"], ["a", "b"], num_outputs=2),
        helper.make_node("Split", ["z", "sizes"], ["a", "b"]),
    ],
)
def test_the_usual_way_is_taken(taken: onnx.NodeProto) -> None:
    assert read_model(model(taken)).nodes == 1


@pytest.mark.parametrize(
    ("number", "taken"),
    [
        (np.int64(8), True),
        (np.int32(1), True),
        (np.array([8]), False),  # ends the process
        (np.array([], np.int64), False),
        (np.int64(-1), True),  # onnxruntime refuses it as a length, and takes it as an axis
        (np.int64(2**40), False),
        (np.float32(8), False),
    ],
)
@pytest.mark.parametrize(
    "inputs", [("z", "number"), ("z", "", "number"), ("z", "number", "number")]
)
def test_length_and_axis_of_a_fourier_transform_are_constant_numbers(
    inputs: tuple[str, ...], number: Any, taken: bool
) -> None:
    data = model(node("DFT", *inputs), number=np.asarray(number))
    if taken:
        assert read_model(data).nodes == 1
        return
    with pytest.raises(ModelFileError, match="a length or an axis that is no constant up to"):
        read_model(data)


@pytest.mark.parametrize(
    "equation", ["a" * 100_000 + "!", "a," * 50_000 + "!", "a" * 50_000 + "->" + "b" * 50_000 + "-"]
)
def test_a_long_equation_is_judged_at_once(equation: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(ModelFileError, match="has the equation"):
        read_model(model(node("Einsum", "z", equation=equation)))
    assert (
        time.perf_counter() - begin < 5
    )  # where each letter is tried with each other one, minutes


def test_an_attribute_twice_is_refused() -> None:
    """onnxruntime would take one of them, and this reader perhaps the other."""
    twice = node("GatherND", "z", "label", batch_dims=0)
    twice.attribute.append(helper.make_attribute("batch_dims", -1))
    with pytest.raises(ModelFileError, match="'batch_dims' twice"):
        read_model(model(twice))


TWO, MINUS_ONE = np.array([2]), np.array([3, -1])
QUOTIENT = "divides integers by what is no constant, or by -1"


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Div", "label", "label")],
        [node("Div", "label", "minus_one")],
        [node("Div", "minus_one", "label")],
        [node("Neg", "two", output="n"), node("Div", "label", "n")],
        [node("Cast", "z", output="i", to=TensorProto.INT64), node("Div", "i", "label")],
        [node("Shape", "z", output="s"), node("Div", "s", "label")],
        [node("ArgMax", "z", output="s"), node("Div", "s", "label")],
        [node("Where", "z", "label", "label", output="w"), node("Div", "w", "w")],
        [node("Constant", output="c", value=numpy_helper.from_array(MINUS_ONE)), node("Div", "label", "c")],
        [node("Constant", output="c", value_int=-1), node("Div", "label", "c")],
        [node("Tanh", "z", output="t"), node("Neg", "label", output="t"), node("Div", "t", "t")],
        [node("Div", "label", "many")],
        [helper.make_node("TopK", ["z", "two"], ["v", "i"]), node("Div", "i", "i")],
        [helper.make_node("MaxPool", ["z"], ["v", "i"], kernel_shape=[1]), node("Div", "i", "i")],
    ],
)  # fmt: skip
def test_integers_by_what_may_be_minus_one_are_refused(nodes: list[onnx.NodeProto]) -> None:
    """onnxruntime divides in hardware, which stops the process at the smallest integer by -1."""
    with pytest.raises(ModelFileError, match=QUOTIENT):
        read_model(model(*nodes, two=TWO, minus_one=MINUS_ONE, many=np.arange(1000)))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Div", "z", "z")],
        [node("Div", "label", "two")],
        [node("Shape", "z", output="s"), node("Div", "s", "two")],
        [node("Tanh", "z", output="t"), node("Div", "t", "t")],
        [node("Mul", "z", "z", output="m"), node("Gather", "m", "label", output="g"), node("Div", "g", "g")],
        [node("Cast", "label", output="f", to=TensorProto.FLOAT), node("Div", "f", "f")],
        [node("Where", "label", "z", "z", output="w"), node("Div", "w", "w")],
        [node("Constant", output="c", value=numpy_helper.from_array(TWO)), node("Div", "label", "c")],
        [node("Div", "label", "half"), node("Div", "half", "label", output="x")],
    ],
)  # fmt: skip
def test_floats_and_constants_are_divided(nodes: list[onnx.NodeProto]) -> None:
    assert read_model(model(*nodes, two=TWO, half=np.array(0.5, np.float32)))


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("raw", [True, False])
def test_minus_one_is_seen_in_every_form_of_a_constant(kind: str, raw: bool) -> None:
    values = np.array([4, -1, 7], kind)
    tensor = numpy_helper.from_array(values, "c")
    if not raw:
        element = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = helper.make_tensor("c", element, [3], values.tolist())
    made = onnx.load_model_from_string(model(node("Div", "label", "c")))
    made.graph.initializer.append(tensor)
    with pytest.raises(ModelFileError, match=QUOTIENT):
        read_model(made.SerializeToString())
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(abs(values), "c"))
    assert read_model(made.SerializeToString())


def field(number: int, wire: int, content: int | bytes) -> bytes:
    """A protobuf field of any wire type."""
    if isinstance(content, int) and wire == 5:
        return bytes([number << 3 | 5]) + content.to_bytes(4, "little")
    return entry(number, content)


def with_raw(part: bytes, *nodes: onnx.NodeProto, **constants: Array) -> bytes:
    """A model of these nodes, and of raw protobuf in its graph."""
    graph = onnx.load_model_from_string(model(*nodes, **constants)).graph.SerializeToString()
    return entry(7, graph + part)


def test_numbers_of_another_wire_type_do_not_count() -> None:
    """Protobuf passes over a field whose wire type is wrong: what counts is the other one."""
    to_integer = field(3, 0, TensorProto.INT64) + field(3, 5, TensorProto.FLOAT)
    cast = entry(1, b"label") + entry(2, b"i") + entry(4, b"Cast")
    cast += entry(5, entry(1, b"to") + field(20, 0, 2) + to_integer)
    with pytest.raises(ModelFileError, match=QUOTIENT):
        read_model(with_raw(entry(1, cast), node("Div", "i", "i")))
    integers = field(2, 0, TensorProto.INT64) + field(2, 5, TensorProto.FLOAT)
    tensor = entry(1, 1) + entry(8, b"c") + entry(9, (-1).to_bytes(8, "little", signed=True))
    with pytest.raises(ModelFileError, match=QUOTIENT):
        read_model(with_raw(entry(5, tensor + integers), node("Div", "label", "c")))
    gather = entry(1, b"z") + entry(1, b"label") + entry(2, b"y") + entry(4, b"GatherND")
    dims = entry(1, b"batch_dims") + field(20, 0, 2) + field(3, 0, 2**64 - 2**40) + field(3, 5, 0)
    with pytest.raises(ModelFileError, match="has batch_dims -10"):
        read_model(with_raw(entry(1, gather + entry(5, dims))))


def test_bits_above_those_of_the_type_do_not_count() -> None:
    tensor = entry(1, 1) + entry(2, TensorProto.INT32) + entry(8, b"c") + entry(5, 2**32 - 1)
    with pytest.raises(ModelFileError, match=QUOTIENT):
        read_model(with_raw(entry(5, tensor), node("Div", "label", "c")))


@pytest.mark.parametrize("number", [5, 10])
def test_an_attribute_of_two_values_is_refused(number: int) -> None:
    """Protobuf makes one tensor of two, and another reader may take the one that this one does not."""
    bad = numpy_helper.from_array(np.array([-1])).SerializeToString()
    good = numpy_helper.from_array(np.array([5])).SerializeToString()
    constant = entry(2, b"c") + entry(4, b"Constant")
    constant += entry(5, entry(1, b"value") + field(20, 0, 4) + entry(5, bad) + entry(number, good))
    with pytest.raises(ModelFileError, match="two values of 'value'"):
        read_model(with_raw(entry(1, constant), node("Div", "label", "c")))


EMPTY = np.zeros(0, np.float32)


@pytest.mark.parametrize("operator", ["QuantizeLinear", "DequantizeLinear"])
@pytest.mark.parametrize("inputs", [("z", "label"), ("z", "empty"), ("z", "half", "label"), ("z",)])
def test_a_scale_is_a_constant_with_a_value(operator: str, inputs: tuple[str, ...]) -> None:
    half, zero = np.array(0.5, np.float32), np.array(0, np.uint8)
    if inputs != ("z",):
        with pytest.raises(ModelFileError, match="a scale or a zero that is no constant"):
            read_model(model(node(operator, *inputs), half=half, empty=EMPTY))
    assert read_model(model(node(operator, "z", "half", "zero"), half=half, zero=zero))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (model(node("Max", *["z"] * 257)), "more than 256 inputs"),
        (model(*[node("Relu", "z", output=f"r{i}") for i in range(5001)]), "more than 5000 nodes"),
        (entry(7, entry(5, entry(8, b"w")) * 20_001), "more than 20000 weights"),
        (entry(7, entry(5, entry(1, b"\x01" * 65))), "more than 64 axes"),
        (entry(7, b"") + entry(99, 1) * 200_001, "more than 200000 parts"),
    ],
)
def test_what_takes_onnxruntime_or_this_reader_minutes_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ModelFileError, match=said):
        read_model(data)


def test_a_name_with_two_meanings_is_neither_float_nor_constant() -> None:
    div = Node("Div", ["a", "b"], ["y"])
    assert not judge([div], {"b": Constant(frozenset({2}))}, [])
    assert not judge([div], {}, ["a"])
    assert judge([div], {}, ["a"], ambiguous={"a"})
