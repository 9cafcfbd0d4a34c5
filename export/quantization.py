"""A float32 graph in int8, for CPUs: static quantisation, calibrated on the latent stream.

Weights are int8 for each channel, of 7 bits, so that CPUs without VNNI do not saturate where they add products in
pairs; values are uint8. What `mixed` keeps in float32 stays there here too, and what comes before the convolutions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..runtime.inputs import Array
from .precision import LINEAR, Conversion, delicate, unfold_constants


def to_int8(model: onnx.ModelProto, batches: Iterable[Mapping[str, Array]]) -> Conversion:
    """Convert the graph in place, its inputs and outputs as they were; batches: inputs to calibrate on."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, waiting: Iterator[Mapping[str, Array]]) -> None:
            self.waiting = waiting

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self.waiting, None)
            return None if batch is None else dict(batch)

    unfold_constants(model.graph)
    unfold_transposed(model)
    _name_nodes(model.graph)
    places = delicate(model) | before_convolutions(model.graph)
    kept = [model.graph.node[i].name for i in sorted(places)]
    add_pre_process_metadata(model)  # else it asks for what was done here already
    with tempfile.TemporaryDirectory(prefix="gan-int8-") as folder:
        plain, lower = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, plain)
        quantize_static(
            plain,
            lower,
            Reader(iter(batches)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
        )
        quantized = onnx.load(lower)
    _adopt(model, quantized)
    return _count(model)


def unfold_transposed(model: onnx.ModelProto) -> None:
    """Strided transposed convolutions as a convolution and a pixel shuffle, in place: there is no int8 kernel for the
    former. The same sums in another order.

    With stride s, kernel k and m = ceil(k / s), output place s q + r is the sum over taps t < m of x[q - t] w[r + s t]:
    a convolution with kernel m to s^2 times the channels, whose parts are then put side by side.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += _as_convolution(graph, weights, node) or [node]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    left = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)


def _as_convolution(
    graph: onnx.GraphProto, weights: Mapping[str, onnx.TensorProto], node: onnx.NodeProto
) -> list[onnx.NodeProto]:
    """The nodes that replace one; none where it has another form."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    strides = list(given.get("strides", [1, 1]))
    if (
        node.op_type != "ConvTranspose"
        or len(strides) != 2
        or not strides[0] == strides[1] > 1
        or given.get("group", 1) != 1
        or set(given.get("dilations", [1])) != {1}
        or given.get("auto_pad", b"NOTSET") != b"NOTSET"
        or "output_shape" in given
        or any(name and name not in weights for name in node.input[1:])
    ):
        return []
    s, w = strides[0], numpy_helper.to_array(weights[node.input[1]])  # (I, O, k, k)
    (i, o, *kernel), name = w.shape, node.output[0]
    taps = [-(-k // s) for k in kernel]
    pads, extra = list(given.get("pads", [0, 0, 0, 0])), given.get("output_padding", [0, 0])
    cut = [s * taps[a] - kernel[a] + pads[a + 2] - extra[a] for a in (0, 1)]
    if min(cut) < 0:  # places that no input reaches
        return []
    full = np.zeros((i, o, s * taps[0], s * taps[1]), w.dtype)
    full[:, :, : kernel[0], : kernel[1]] = w
    parts = full.reshape(i, o, taps[0], s, taps[1], s)[:, :, ::-1, :, ::-1]
    turned = parts.transpose(1, 3, 5, 0, 2, 4).reshape(o * s * s, i, *taps)

    def weight(suffix: str, values: Array) -> str:
        graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(values), f"{name}_{suffix}")
        )
        return f"{name}_{suffix}"

    inputs = [node.input[0], weight("kernel", turned)]
    if len(node.input) > 2 and node.input[2]:
        bias = numpy_helper.to_array(weights[node.input[2]])
        inputs.append(weight("bias", np.repeat(bias, s * s)))
    around = [taps[0] - 1, taps[1] - 1] * 2
    shuffled = f"{name}_shuffled"
    ends = [-c if c else np.iinfo(np.int64).max for c in cut]
    bounds = [
        weight("starts", np.array(pads[:2])),
        weight("ends", np.array(ends)),
        weight("axes", np.array([2, 3])),
    ]
    return [
        helper.make_node("Conv", inputs, [f"{name}_parts"], f"{node.name}_parts", pads=around),
        helper.make_node(
            "DepthToSpace",
            [f"{name}_parts"],
            [shuffled],
            f"{node.name}_shuffle",
            blocksize=s,
            mode="CRD",
        ),
        helper.make_node("Slice", [shuffled, *bounds], [name], node.name),
    ]


def before_convolutions(graph: onnx.GraphProto) -> set[int]:
    """Places of the nodes that no convolution comes before, where there are any: vectors cost little, and all that
    follows depends on them. Transposed convolutions that are left have no int8 kernel, so they stay too."""
    behind: set[str] = set()  # values that a convolution has a part in
    before = set()
    for i, node in enumerate(graph.node):
        if node.op_type == "Conv" or any(name in behind for name in node.input):
            behind |= set(node.output)
        else:
            before.add(i)
    transposed = {i for i, node in enumerate(graph.node) if node.op_type == "ConvTranspose"}
    return before | transposed if behind else transposed


def _name_nodes(graph: onnx.GraphProto) -> None:
    """A name of its own for every node: quantize_static leaves nodes out by their names."""
    seen: set[str] = set()
    for i, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"node_{i}_{node.op_type}"
        seen.add(node.name)


def _adopt(model: onnx.ModelProto, quantized: onnx.ModelProto) -> None:
    """Take over the graph alone: onnxruntime also writes its name and versions, and opsets that it does not use."""
    graph = model.graph
    del graph.node[:], graph.initializer[:], graph.value_info[:], model.metadata_props[:]
    graph.node.extend(quantized.graph.node)
    graph.initializer.extend(quantized.graph.initializer)


def _count(model: onnx.ModelProto) -> Conversion:
    nodes = model.graph.node
    restored = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    linear = [node for node in nodes if node.op_type in LINEAR]
    low = sum(all(name in restored for name in node.input[:2]) for node in linear)
    steps = sum(node.op_type == "QuantizeLinear" for node in nodes)
    return Conversion(low, len(linear) - low, steps)
