"""An ONNX graph that is being rewritten: who makes a value, who takes it, its shape, its constant; pieces exchanged.

Knows onnx, and nothing of what the rewrites want.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..runtime.signature import split_axis

Array = NDArray[Any]

SAMPLES = 16  # of the sizes of dynamic axes, for their effect on other sizes
MOST = 200  # times the smallest size of an axis
SMALL = 64  # values of a constant that shapes may depend on


class Editor:
    """A main graph, changed in place. What a rewrite looks up stays true after each `replace`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph, self._model = model.graph, model
        self.opset = max(one.version for one in model.opset_import)
        inferred = _inferred(model)
        self._shapes = _shapes(inferred)
        self._types = {v.name: v.type.tensor_type.elem_type for v in inferred}
        self._sampled: list[dict[str, tuple[int, ...]]] | None = None
        given = {value.name for value in self.graph.input}  # a caller may give another value
        self._constants = {t.name: t for t in self.graph.initializer if t.name not in given}
        self._values: dict[str, Array] = {}
        self._outputs = {value.name for value in self.graph.output}
        self._nodes = [_copy(node) for node in self.graph.node]
        self._names = given | set(_names(self._nodes))
        self._index()

    def nodes(self, *operators: str) -> Iterator[onnx.NodeProto]:
        """The nodes of these operators that are still there, in the graph's order."""
        for node in list(self._nodes):
            if node.op_type in operators and id(node) in self._there:
                yield node

    def producer(self, value: str) -> onnx.NodeProto | None:
        return self._producers.get(value)

    def consumers(self, value: str) -> list[onnx.NodeProto]:
        """The nodes that take a value, each once. An output of the graph has its reader outside."""
        return self._consumers.get(value, [])

    def only_consumer(self, value: str) -> onnx.NodeProto | None:
        """The node that takes a value, where it is the only one and the value is no output of the graph."""
        takers = self.consumers(value)
        return takers[0] if len(takers) == 1 and value not in self._outputs else None

    def is_output(self, value: str) -> bool:
        return value in self._outputs

    def constant(self, value: str) -> Array | None:
        """The values of a constant, or None for what depends on the inputs."""
        if value not in self._values and value in self._constants:
            self._values[value] = numpy_helper.to_array(self._constants[value])
        return self._values.get(value)

    def is_constant(self, value: str) -> bool:
        return value in self._constants

    def shape(self, value: str) -> tuple[int | str | None, ...] | None:
        """Sizes of the axes: a str for a symbolic one, None for an unknown one; None where nothing is known."""
        if value in self._constants:
            return tuple(self._constants[value].dims)
        return self._shapes.get(value)

    def sizes(self, value: str) -> tuple[int, ...] | None:
        """Sizes of all axes but the first, where they are known numbers."""
        return _numbers((self.shape(value) or (None, None))[1:])

    def some_sizes(self, value: str) -> list[tuple[int, ...]]:
        """`sizes` of a value where the graph's dynamic axes have their smallest sizes, then others, each axis its own; one
        where it has no such axes, none where sizes are not known."""
        known = self.sizes(value)
        if known is not None:
            return [known]
        if self._sampled is None:
            self._sampled = [_sampled_sizes(self._model, i) for i in range(SAMPLES)]
        found = [sizes[value] for sizes in self._sampled if value in sizes]
        return found if len(found) == SAMPLES else []

    def is_float(self, value: str) -> bool:
        """Whether a value that is no constant is known to be float32."""
        return self._types.get(value) == onnx.TensorProto.FLOAT

    def add_constant(self, stem: str, values: Array) -> str:
        """A new constant of the graph; its name."""
        name = self.fresh(stem)
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        self.graph.initializer.append(tensor)
        self._constants[name] = self.graph.initializer[-1]
        return name

    def fresh(self, stem: str) -> str:
        """A name that nothing has."""
        name, count = stem, 1
        while name in self._names or name in self._constants:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def replace(self, old: Sequence[onnx.NodeProto], new: Sequence[onnx.NodeProto]) -> None:
        """Exchange nodes: the new ones stand where the last of the old ones stood, whose outputs they make."""
        gone = {id(node) for node in old}
        place = max(i for i, node in enumerate(self._nodes) if id(node) in gone)
        before = [node for node in self._nodes[: place + 1] if id(node) not in gone]
        self._nodes = [*before, *new, *self._nodes[place + 1 :]]
        self._index()

    def close(self) -> None:
        """Write the nodes back, without those whose outputs nobody takes, and without unused constants."""
        wanted = set(self._outputs)
        kept = []
        for node in reversed(self._nodes):
            if wanted & set(node.output):
                kept.append(node)
                wanted |= set(_inputs(node))
        del self.graph.node[:]
        self.graph.node.extend(reversed(kept))
        for i in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[i].name not in wanted:
                del self.graph.initializer[i]

    def _index(self) -> None:
        self._there = {id(node) for node in self._nodes}
        self._producers = {output: node for node in self._nodes for output in node.output}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for value in dict.fromkeys(_inputs(node)):
                self._consumers.setdefault(value, []).append(node)


def rewrite(model: onnx.ModelProto, rule: Callable[[Editor], int]) -> int:
    """Apply a rewrite to a model in place; how often it found its pattern."""
    editor = Editor(model)
    count = rule(editor)
    if count:
        editor.close()
    return count


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; text as str."""
    for one in node.attribute:
        if one.name == name:
            value = helper.get_attribute_value(one)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    """One of its own: those of a graph end with the graph's list."""
    own = onnx.NodeProto()
    own.CopyFrom(node)
    return own


def _names(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Of nodes and of what they make, inside subgraphs too."""
    for node in nodes:
        yield from (node.name, *node.output)
        for one in node.attribute:
            for graph in (one.g, *one.graphs):
                yield from (tensor.name for tensor in graph.initializer)
                yield from _names(graph.node)


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """What a node takes, its subgraphs' outer values too."""
    yield from (name for name in node.input if name)
    for one in node.attribute:
        for graph in (one.g, *one.graphs):
            for inner in graph.node:
                yield from _inputs(inner)
            yield from (value.name for value in graph.output)


def _inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What onnx can tell of the inputs and of each value that nodes make."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return [*graph.value_info, *graph.input, *graph.output]


def _shapes(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int | str | None, ...]]:
    return {
        value.name: tuple(
            dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None)
            for dim in value.type.tensor_type.shape.dim
        )
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _numbers(axes: Sequence[int | str | None]) -> tuple[int, ...] | None:
    """The sizes of axes, if all are known."""
    known = tuple(size for size in axes if isinstance(size, int))
    return known if len(known) == len(axes) else None


def _multiple(axis: str, sample: int) -> int:
    """A size of a dynamic axis: the smallest, or a multiple drawn for it alone; the same each time."""
    try:
        factor, name = split_axis(axis)
    except ValueError:  # of a graph that no signature named
        factor, name = 1, axis
    times = random.Random(f"{name} {sample}").randint(1, MOST) if sample else 1
    return max(1, factor) * times


def _sampled_sizes(model: onnx.ModelProto, sample: int) -> dict[str, tuple[int, ...]]:
    """Sizes of the axes but the first, for one sample of the dynamic axes' sizes."""
    given = []
    for value in model.graph.input:
        own = onnx.ValueInfoProto()
        own.CopyFrom(value)
        for dim in own.type.tensor_type.shape.dim[1:]:
            if dim.dim_param:
                dim.dim_value = _multiple(dim.dim_param, sample)
        given.append(own)
    small = []
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims, dtype=np.int64) <= SMALL:
            small.append(tensor)
        else:  # to copy the numbers would take most of the time
            given.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    outputs = [onnx.ValueInfoProto(name=value.name) for value in model.graph.output]
    graph = helper.make_graph(model.graph.node, "sampled", given, outputs, small)
    sampled = helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    found = {name: _numbers(shape[1:]) for name, shape in _shapes(_inferred(sampled)).items()}
    return {name: sizes for name, sizes in found.items() if sizes is not None}
