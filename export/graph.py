"""Gate steps 4 and 5 on the ONNX graph: dynamic axis, lint, clean-up, the image head, metadata.

Knows onnx, neither torch nor onnxruntime.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import TensorProto, helper

from ..runtime.errors import ExportError, ModelFileError
from ..runtime.model_file import PREFIX
from ..runtime.operators import LOOPS, OPERATORS
from ..runtime.signature import Field, Signature
from ..runtime.wire import DOMAINS, read_model
from .trace import FLOAT_SUFFIX

BATCH = "batch"
MAX_INLINE_BYTES = 1_500_000_000
RANDOM_OPERATORS = frozenset(
    {
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
    }
)


def check_batch_axis(model: onnx.ModelProto) -> None:
    """Raise `ExportError` unless axis 0 of every input and output is the one symbolic batch axis."""
    names = set()
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        names.add(dims[0].dim_param if dims else "")
        if not dims or not dims[0].dim_param:
            size = dims[0].dim_value if dims else "none"
            raise ExportError(
                "The exported graph has a fixed batch size",
                seen=f"{value.name} has batch {size}",
                repair="Look for int(x.shape[0]), len(x) and buffers with a batch axis in forward()",
            )
        for dim in dims[1:]:
            if dim.dim_param and BATCH in dim.dim_param:
                raise ExportError(
                    "The batch axis leaked into another axis",
                    seen=f"{value.name} has an axis {dim.dim_param}",
                    repair="Look for reshapes that mix samples",
                )
    if len(names) > 1:
        raise ExportError(
            "Inputs and outputs have different batch axes",
            seen=", ".join(sorted(names)),
            repair="Look for reshapes that mix samples",
        )


def lint(model: onnx.ModelProto) -> None:
    """Raise `ExportError` for an operator that no generator may hold (gate step 4)."""
    if model.functions:
        raise _fault("local functions", model.functions[0].name, "Export with plain operators")
    for node in _nodes(model.graph):
        if node.domain not in DOMAINS:
            raise _fault(
                "an operator of a foreign domain",
                f"{node.domain}.{node.op_type}",
                "Use plain operators",
            )
        if node.op_type in LOOPS:
            raise _fault(
                "a loop",
                f"{node.op_type} {node.name}",
                "Unroll it to a fixed number of steps: the runtime runs no graph whose end it cannot foresee",
            )
        if node.op_type in RANDOM_OPERATORS:
            raise _fault(
                "random numbers drawn inside the graph",
                f"{node.op_type} {node.name}",
                "Make them a named input with a draw: no seed reaches the inside of a graph",
            )
        if node.op_type not in OPERATORS:
            raise _fault(
                "an operator that the runtime does not take",
                f"{node.op_type} {node.name}",
                "Compute it from plain operators; gan.runtime.operators lists them",
            )
        if (
            node.op_type == "Dropout"
            and len(node.input) > 2
            and _is_true(model.graph, node.input[2])
        ):
            raise _fault("dropout in training mode", node.name, "Leave dropout to train mode")
        if node.op_type == "BatchNormalization" and _attribute(node, "training_mode"):
            raise _fault(
                "batch norm in training mode", node.name, "Let eval() reach every batch norm"
            )


def check_taken(file: bytes) -> None:
    """Raise `ExportError` for a graph that the runtime would refuse to read."""
    try:
        read_model(file)
    except ModelFileError as error:
        raise ExportError(
            "The runtime does not take the graph",
            seen=error.seen,
            repair="Compute it from plain operators, used in their plain way: gan.runtime.operators has the rules",
        ) from error


def clean(model: onnx.ModelProto) -> None:
    """Strip what says where and by whom the graph was made: paths, source lines, names of tools."""
    model.producer_name = model.producer_version = model.doc_string = model.domain = ""
    model.model_version = 0
    del model.metadata_props[:]
    graph = model.graph
    graph.name, graph.doc_string = "generator", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for node in _nodes(graph):
        node.doc_string = ""
        del node.metadata_props[:]
    for opset in list(model.opset_import):
        if opset.domain not in DOMAINS:
            model.opset_import.remove(opset)
    for dim in (value.type.tensor_type.shape.dim[0] for value in (*graph.input, *graph.output)):
        dim.dim_param = BATCH


def attach_heads(model: onnx.ModelProto, signature: Signature, output: str) -> Signature:
    """Give every output its head in place, and return the signature of the result.

    Image outputs become uint8 NHWC, clip(127.5 x + 127.5, 0, 255) rounded half to even, or with "float" float32
    NCHW clipped to [-1, 1]; any other output stays as it is.
    """
    fields = []
    traced = list(model.graph.output)
    del model.graph.output[:]
    for field, value in zip(signature.outputs, traced, strict=True):
        if field.kind != "image":
            nodes = [helper.make_node("Identity", [value.name], [field.name])]
        elif output == "uint8":
            field, nodes = _uint8_head(model, field, value.name)
        else:
            nodes = [_clip(model, value.name, field.name, -1.0, 1.0)]
        model.graph.node.extend(nodes)
        kind = {
            "float32": TensorProto.FLOAT,
            "uint8": TensorProto.UINT8,
            "int64": TensorProto.INT64,
        }[field.dtype]
        model.graph.output.append(
            helper.make_tensor_value_info(field.name, kind, [BATCH, *field.shape])
        )
        fields.append(field)
    return dataclasses.replace(signature, outputs=tuple(fields))


def attach_feet(model: onnx.ModelProto, signature: Signature, image: str) -> Signature:
    """Let image and mask inputs be uint8 NHWC, as `attach_heads` does with outputs: x / 127.5 - 1 and x / 255.

    With "float" they stay float32 NCHW.
    """
    fields, traced = [], list(model.graph.input)
    del model.graph.input[:]
    for field, value in zip(signature.inputs, traced, strict=True):
        if field.kind in ("image", "mask") and image == "uint8":
            inside = f"{field.name}{FLOAT_SUFFIX}"
            for node in _nodes(model.graph):
                node.input[:] = [inside if name == field.name else name for name in node.input]
            field, nodes = _uint8_foot(model, field, inside)
            for node in reversed(nodes):
                model.graph.node.insert(0, node)
        kind = value.type.tensor_type.elem_type if field.dtype != "uint8" else TensorProto.UINT8
        shape = [BATCH, *field.shape]
        model.graph.input.append(helper.make_tensor_value_info(field.name, kind, shape))
        fields.append(field)
    return dataclasses.replace(signature, inputs=tuple(fields))


def with_float_outputs(model: onnx.ModelProto, signature: Signature) -> onnx.ModelProto:
    """A copy that also gives every output as it is before its head, under NAME_float."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for field in signature.outputs:
        shape = [BATCH, *field.shape]
        info = helper.make_tensor_value_info(field.name + FLOAT_SUFFIX, TensorProto.FLOAT, shape)
        probe.graph.output.append(info)
    return probe


def check(model: onnx.ModelProto) -> None:
    """onnx's own full check; `ExportError` where it fails."""
    size = model.ByteSize()
    if size > MAX_INLINE_BYTES:
        raise ExportError(
            "The generator is too large for one file",
            seen=f"{size} bytes, limit {MAX_INLINE_BYTES}",
            repair="Train a smaller generator: a smaller width or resolution",
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            "onnx refused the graph",
            seen=" ".join(str(error).split())[:300],
            repair="Try another --opset; if it stays so, report it with the checkpoint",
        ) from error


def embed(model: onnx.ModelProto, sections: Mapping[str, Any]) -> None:
    """Replace the metadata by these sections, each as JSON under its `gan.` key."""
    del model.metadata_props[:]
    for name in sorted(sections):
        content = sections[name]
        text = (
            content
            if isinstance(content, str)
            else json.dumps(_finite(content), sort_keys=True, ensure_ascii=False, allow_nan=False)
        )
        model.metadata_props.add(key=PREFIX + name, value=text)


def _finite(content: Any) -> Any:
    """The same with null for numbers that JSON has no word for, such as a metric that is NaN."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def to_bytes(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def _uint8_head(
    model: onnx.ModelProto, field: Field, source: str
) -> tuple[Field, list[onnx.NodeProto]]:
    n = field.name
    half = _constant(model, f"{n}_head_half", 127.5)
    nodes = [
        helper.make_node("Mul", [source, half], [f"{n}_scaled"]),
        helper.make_node("Add", [f"{n}_scaled", half], [f"{n}_shifted"]),
        _clip(model, f"{n}_shifted", f"{n}_clipped", 0.0, 255.0),
        helper.make_node("Round", [f"{n}_clipped"], [f"{n}_rounded"]),
        helper.make_node("Cast", [f"{n}_rounded"], [f"{n}_bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", [f"{n}_bytes"], [n], perm=[0, 2, 3, 1]),
    ]
    c, h, w = field.shape
    return Field(n, (h, w, c), "image", "uint8", (0.0, 255.0)), nodes


def _uint8_foot(
    model: onnx.ModelProto, field: Field, result: str
) -> tuple[Field, list[onnx.NodeProto]]:
    n = field.name
    nodes = [
        helper.make_node("Cast", [n], [f"{n}_cast"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", [f"{n}_cast"], [f"{n}_planes"], perm=[0, 3, 1, 2]),
    ]
    if field.kind == "image":
        half, one = _constant(model, f"{n}_foot_half", 127.5), _constant(model, f"{n}_foot_one", 1)
        nodes += [
            helper.make_node("Div", [f"{n}_planes", half], [f"{n}_scaled"]),
            helper.make_node("Sub", [f"{n}_scaled", one], [result]),
        ]
    else:
        whole = _constant(model, f"{n}_foot_whole", 255.0)
        nodes.append(helper.make_node("Div", [f"{n}_planes", whole], [result]))
    c, h, w = field.shape
    return dataclasses.replace(field, shape=(h, w, c), dtype="uint8", range=(0.0, 255.0)), nodes


def _clip(
    model: onnx.ModelProto, source: str, result: str, low: float, high: float
) -> onnx.NodeProto:
    bounds = [_constant(model, f"{result}_low", low), _constant(model, f"{result}_high", high)]
    return helper.make_node("Clip", [source, *bounds], [result])


def _constant(model: onnx.ModelProto, name: str, value: float) -> str:
    model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    return name


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _nodes(subgraph)


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def _is_true(graph: onnx.GraphProto, name: str) -> bool:
    """Whether a boolean input is true, or not known to be false."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return bool(onnx.numpy_helper.to_array(tensor))
    for node in graph.node:
        if name in node.output and node.op_type == "Constant":
            return bool(onnx.numpy_helper.to_array(node.attribute[0].t))
    return name != ""


def _fault(what: str, where: str, repair: str) -> ExportError:
    return ExportError(f"The exported graph holds {what}", seen=where, repair=repair)
