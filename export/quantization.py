"""A float32 graph in int8, for CPUs: static quantisation, calibrated on the latent stream.

Weights are int8 for each channel, of 7 bits, so that CPUs without VNNI do not saturate where they add products in
pairs; values are uint8. What `mixed` keeps in float32 stays there here too, and what comes before the convolutions.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import onnx

from ..runtime.inputs import Array
from .editing import rewrite
from .phases import shuffle_by_product, transposed_as_phases
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
    _name_nodes(model.graph)
    ends = delicate(model)
    # There is no int8 kernel for transposed convolutions.
    wanted = {node.name for i, node in enumerate(model.graph.node) if i not in ends}
    rewrite(model, functools.partial(transposed_as_phases, wanted=wanted))
    names = [node.name for node in model.graph.node]
    kept = [names[i] for i in sorted(delicate(model) | before_convolutions(model.graph))]
    rewrite(model, shuffle_by_product)
    shuffles = {node.name for node in model.graph.node}.difference(names)
    add_pre_process_metadata(model)  # else it asks for what was done here already
    with tempfile.TemporaryDirectory(prefix="gan-int8-") as folder, _no_new_handlers():
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
            nodes_to_exclude=[*kept, *shuffles],
        )
        quantized = onnx.load(lower)
    _adopt(model, quantized)
    return _count(model, shuffles)


@contextlib.contextmanager
def _no_new_handlers() -> Iterator[None]:
    """onnxruntime logs to the root logger by `logging.info`, which gives it a handler: all is printed twice then."""
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        yield
    finally:
        root.handlers[:] = before


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


def _count(model: onnx.ModelProto, shuffles: Collection[str]) -> Conversion:
    """shuffles: names of nodes that only move values."""
    nodes = model.graph.node
    restored = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    linear = [node for node in nodes if node.op_type in LINEAR and node.name not in shuffles]
    low = sum(all(name in restored for name in node.input[:2]) for node in linear)
    steps = sum(node.op_type == "QuantizeLinear" for node in nodes)
    return Conversion(low, len(linear) - low, steps)
