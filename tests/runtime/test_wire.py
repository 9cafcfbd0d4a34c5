"""The protobuf reader: it agrees with onnx's own on good files, and refuses what a generator never needs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gan.runtime import ModelFileError, wire
from gan.runtime.wire import read_model

from .conftest import Edit, edited, tiny_graph, tiny_signature


def varint(number: int) -> bytes:
    digits = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        digits.append(low | (0x80 if number else 0))
        if not number:
            return bytes(digits)


def entry(number: int, content: bytes | int) -> bytes:
    """One protobuf field: a number as a varint, bytes with their length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def test_a_good_file_reads_as_onnx_reads_it(labelled: bytes) -> None:
    model, info = onnx.load_model_from_string(labelled), read_model(labelled)
    kinds = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64", TensorProto.UINT8: "uint8"}
    for values, tensors in ((model.graph.input, info.inputs), (model.graph.output, info.outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            dims = value.type.tensor_type.shape.dim
            assert tensor.name == value.name
            assert tensor.dtype == kinds[value.type.tensor_type.elem_type]
            assert list(tensor.shape) == [dim.dim_param or dim.dim_value for dim in dims]
    assert info.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert info.opset == 20
    assert bytes(info.graph) == model.graph.SerializeToString(deterministic=True)
    assert info.nodes == len(model.graph.node)
    assert info.operators == Counter(node.op_type for node in model.graph.node)
    sizes = [int(np.prod(tensor.dims, dtype=int)) for tensor in model.graph.initializer]
    assert info.weights == sum(sizes)


def test_types_and_axes_of_every_sort_are_told_apart(labelled: bytes) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input.append(
            helper.make_tensor_value_info("half", TensorProto.FLOAT16, [2, None])
        )
        model.graph.input.append(helper.make_tensor_value_info("text", TensorProto.STRING, []))

    info = read_model(edited(labelled, edit))
    assert [(t.name, t.dtype, t.shape) for t in info.inputs[2:]] == [
        ("half", "float16", (2, None)),
        ("text", "other", ()),
    ]


def test_unknown_fields_of_every_wire_type_are_passed_over(labelled: bytes) -> None:
    more = entry(99, 2**64 - 1) + varint(98 << 3 | 5) + b"1234" + varint(97 << 3 | 1) + b"12345678"
    info = read_model(labelled + more + entry(96, b"unknown"))
    assert info.metadata == read_model(labelled).metadata


def subgraph(depth: int, inside: onnx.GraphProto) -> onnx.GraphProto:
    """`inside`, wrapped into the branches of `depth` If nodes."""
    if depth == 0:
        return inside
    node = helper.make_node(
        "If", ["condition"], ["out"], then_branch=subgraph(depth - 1, inside), else_branch=inside
    )
    return helper.make_graph([node], "branch", [], [])


def nested(depth: int, inside: onnx.GraphProto | None = None) -> Edit:
    leaf = inside or helper.make_graph(
        [helper.make_node("Identity", ["z"], ["out"])], "leaf", [], []
    )
    return lambda model: model.graph.node.extend(subgraph(depth, leaf).node)


def outside(tensor: TensorProto) -> TensorProto:
    """The tensor with its values said to lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "../../etc/passwd", "offset": "0", "length": "64"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def some_tensor() -> TensorProto:
    return numpy_helper.from_array(np.zeros(16, np.float32), "w2")


def constant(**attribute: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], **attribute)


def with_list(*values: object) -> onnx.NodeProto:
    """A node with a list of tensors, sparse tensors or graphs as its attribute."""
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.append(helper.make_attribute("list", values))
    return node


def sparse() -> onnx.SparseTensorProto:
    values, indices = some_tensor(), numpy_helper.from_array(np.arange(16), "i")
    return helper.make_sparse_tensor(values, indices, [100])


def local_function(model: onnx.ModelProto) -> None:
    node, opset = helper.make_node("Relu", ["a"], ["b"]), helper.make_opsetid("", 20)
    model.functions.append(helper.make_function("", "Hidden", ["a"], ["b"], [node], [opset]))


def sequence_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, [2]))


def sized(*dims: int) -> TensorProto:
    return TensorProto(name="big", data_type=TensorProto.FLOAT, dims=dims)


HOSTILE: dict[str, tuple[str, Edit]] = {
    "external weights": ("external", lambda m: outside(m.graph.initializer[0])),
    "external by location alone": (
        "external",
        lambda m: setattr(m.graph.initializer[0], "data_location", TensorProto.EXTERNAL),
    ),
    "external without saying so": (
        "external",
        lambda m: m.graph.initializer[0].external_data.add(key="location", value="/dev/zero"),
    ),
    "external in an attribute": (
        "external",
        lambda m: m.graph.node.append(constant(value=outside(some_tensor()))),
    ),
    "external in a list of an attribute": (
        "external",
        lambda m: m.graph.node.append(with_list(some_tensor(), outside(some_tensor()))),
    ),
    "external in a list of subgraphs": (
        "external",
        lambda m: m.graph.node.append(
            with_list(helper.make_graph([], "leaf", [], [], [outside(some_tensor())]))
        ),
    ),
    "external in a subgraph": (
        "external",
        nested(1, helper.make_graph([], "leaf", [], [], [outside(some_tensor())])),
    ),
    "foreign domain of a node": (
        "foreign domain 'com.evil'",
        lambda m: m.graph.node.append(helper.make_node("Run", ["z"], ["o"], domain="com.evil")),
    ),
    "foreign domain in a subgraph": (
        "foreign domain 'com.microsoft'",
        nested(
            2,
            helper.make_graph(
                [helper.make_node("Gelu", ["z"], ["o"], domain="com.microsoft")], "leaf", [], []
            ),
        ),
    ),
    "foreign domain of the opset": (
        "foreign domain 'ai.onnx.ml'",
        lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3)),
    ),
    "local functions": ("local functions", local_function),
    "training information": ("training", lambda m: m.training_info.add()),
    "sparse weights": ("sparse", lambda m: m.graph.sparse_initializer.append(sparse())),
    "sparse weights in a node": (
        "sparse",
        lambda m: m.graph.node.append(constant(sparse_value=sparse())),
    ),
    "sparse weights in a list of a node": (
        "sparse",
        lambda m: m.graph.node.append(with_list(sparse())),
    ),
    "three levels of subgraphs": ("deeper than 2", nested(3)),
    "too many nodes": (
        "more than 5000 nodes",
        lambda m: m.graph.node.extend([helper.make_node("Identity", ["z"], ["o"])] * 5_000),
    ),
    "metadata twice": ("twice", lambda m: m.metadata_props.append(m.metadata_props[0])),
    "too many metadata": (
        "too many",
        lambda m: [m.metadata_props.add(key=f"k{i}") for i in range(257)],
    ),
    "an input that is no tensor": ("'list' that is not a tensor", sequence_input),
    "2^31 weights": ("2\\^31 values", lambda m: m.graph.initializer.append(sized(2**16, 2**15))),
    "no values": ("a tensor without values", lambda m: m.graph.initializer.append(sized(1, 0, 4))),
    "a size below 0": ("2\\^31 values", lambda m: m.graph.initializer.append(sized(-1))),
    "a size of 2^62": ("2\\^31 values", lambda m: m.graph.initializer.append(sized(2**62))),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_dangerous_model_is_refused_by_name(labelled: bytes, name: str) -> None:
    seen, edit = HOSTILE[name]
    with pytest.raises(ModelFileError, match=f"The ONNX file was refused.*{seen}"):
        read_model(edited(labelled, edit))


def test_subgraphs_down_to_the_limit_are_read(labelled: bytes) -> None:
    plain, deep = read_model(labelled), read_model(edited(labelled, nested(2)))
    assert deep.operators["If"] == 2
    assert deep.nodes == plain.nodes + 5


def test_two_thousand_levels_of_subgraphs_are_refused() -> None:
    graph = b""
    for _ in range(2000):
        graph = entry(1, entry(5, entry(6, graph)))
    with pytest.raises(ModelFileError, match="deeper than 2"):
        read_model(entry(7, graph))


def test_a_tensor_with_a_million_sizes_is_refused_at_once(labelled: bytes) -> None:
    data = edited(labelled, lambda m: m.graph.initializer.append(sized(*[3] * 1_000_000)))
    begin = time.process_time()
    with pytest.raises(ModelFileError, match="2\\^31 values"):
        read_model(data)
    assert time.process_time() - begin < 2.0, "the product of the sizes was computed in full"


def test_two_graphs_are_refused(labelled: bytes) -> None:
    second = tiny_graph(tiny_signature()).SerializeToString()
    with pytest.raises(ModelFileError, match="two graphs"):
        read_model(labelled + entry(7, second))


def test_a_file_marked_as_onnxruntimes_own_format_is_refused(labelled: bytes) -> None:
    """Else onnxruntime would read the file as that format, and not the protobuf that is judged here."""
    disguised = entry(2, b"\x08\x00ORTM")
    assert disguised[4:] == b"ORTM"
    assert onnx.load_model_from_string(disguised + labelled).graph.node
    with pytest.raises(ModelFileError, match="onnxruntime's own format"):
        read_model(disguised + labelled)


def test_external_data_behind_a_field_number_of_too_many_bits_is_refused(labelled: bytes) -> None:
    """onnxruntime keeps 32 bits of a tag, so field 2^29 + 13 of a tensor is its field 13, external_data."""
    beyond = 2**29
    location = entry(1, b"location") + entry(2, b"weights.bin")
    tensor = entry(1, 16) + entry(2, TensorProto.FLOAT) + entry(8, b"w2")
    tensor += entry(beyond + 13, location) + entry(beyond + 14, 1)
    graph = bytes(read_model(labelled).graph) + entry(5, tensor)
    with pytest.raises(ModelFileError, match=f"field number {beyond + 13}"):
        read_model(entry(7, graph))


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "text": b"This is a text file, not a model.\n" * 20,
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "a zip": b"PK\x03\x04" + bytes(200),
    "zeros": bytes(1000),
    "field number 0": entry(7, b"") + b"\x02\x00",
    "a group": entry(7, b"") + varint(9 << 3 | 3),
    "wire type 7": entry(7, b"") + varint(9 << 3 | 7),
    "a number of 11 bytes": entry(7, b"") + varint(9 << 3) + b"\x80" * 10 + b"\x00",
    "a number that never ends": entry(7, b"") + varint(9 << 3) + b"\xff",
    "a length beyond the end": entry(7, b"") + varint(9 << 3 | 2) + varint(100) + b"short",
    "a length of 2^63": entry(7, b"") + varint(9 << 3 | 2) + varint(2**63),
    "32 bits cut short": entry(7, b"") + varint(9 << 3 | 5) + b"123",
    "64 bits cut short": entry(7, b"") + varint(9 << 3 | 1) + b"1234567",
    "a graph that is a number": entry(7, 5),
    "an opset that is a number": entry(7, b"") + entry(8, 5),
    "a node that is a number": entry(7, entry(1, 5)),
    "a name that is no UTF-8": entry(7, entry(1, entry(4, b"\xff\xfe"))),
    "no graph": entry(1, 10) + entry(8, entry(2, 20)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_protobuf_of_a_model_is_refused(name: str) -> None:
    with pytest.raises(ModelFileError, match="The ONNX file was refused"):
        read_model(BROKEN[name])


def test_the_wrapping_of_the_broken_ones_is_good() -> None:
    assert read_model(entry(7, b"")).nodes == 0


def test_more_than_2_gib_are_refused_unread() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return wire.MAX_BYTES + 1

    with pytest.raises(ModelFileError, match="more than 2 GiB"):
        read_model(Huge())


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_read(labelled: bytes, make: Callable[[bytes], Any]) -> None:
    assert read_model(make(labelled)).nodes == read_model(labelled).nodes
