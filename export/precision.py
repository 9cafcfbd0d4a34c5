"""A float32 graph in float16: which nodes stay in float32, and the casts between the two.

A set of nodes is kept in float32; every value then has the type that its producer gives it, and one Cast serves all
nodes that want the other. Knows onnx, neither torch nor onnxruntime, and measures nothing.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..runtime.errors import ExportError

Precision = Literal["fp32", "fp16", "mixed", "int8"]
Half = Literal["fp16", "mixed"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "mixed", "int8")
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
LARGEST, SMALLEST_NORMAL = 65504.0, 2.0**-14  # of float16
FEW = (
    4096  # values: a constant that both types use is stored in both, a larger one once, with a Cast
)
SCOPES = "pkg.torch.onnx.name_scopes"  # of a traced node: the modules that it lies in, itself last
DEPTH = 8  # nodes between a square and its root, or from a style to the product that it scales

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# What moves values and computes none: exact in either type, so it follows its neighbours.
MOVERS = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth",
        "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
# What `mixed` keeps: norms, what they and attention consist of, and statistics.
DELICATE = frozenset(
    {
        "BatchNormalization", "Exp", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "Log",
        "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Pow", "RMSNormalization", "Reciprocal",
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum",
        "ReduceSumSquare", "Softmax", "Softplus", "Sqrt",
    }
)  # fmt: skip
MADE_HERE = frozenset({"Cast", "ConstantOfShape", "EyeLike"})  # an attribute says of what type


@dataclass
class Conversion:
    """Nodes with results in lower precision and in float32 (of int8: linear layers), and casts, or values quantised,
    between the two. kept: names of weights that float16 cannot hold; their nodes stay in float32.
    """

    lower_nodes: int = 0
    float_nodes: int = 0
    casts: int = 0
    kept: list[str] = field(default_factory=list)


def to_half(model: onnx.ModelProto, precision: Half) -> Conversion:
    """Convert the graph in place: weights and values in float16, inputs and outputs as they were.

    "fp16" keeps in float32 what has no float16; "mixed" norms, styles, sums of squares, softmax and the last layers
    too. Raises `ExportError` for a graph whose types cannot be told.
    """
    unfold_constants(model.graph)
    graph = _Graph(model)
    kept = [name for name, tensor in graph.weights.items() if not fits_half(tensor)]
    floats = set(graph.without_half()) | set(graph.users_of(kept))
    if precision == "mixed":
        floats |= _delicate(graph)
    floats |= _surrounded(graph, floats)
    return _rewrite(graph, floats, kept)


def delicate(model: onnx.ModelProto) -> set[int]:
    """Places of the nodes that `mixed` keeps for what they compute."""
    return _delicate(_Graph(model))


def layer_paths(model: onnx.ModelProto) -> dict[str, str]:
    """The torch module that each value of a traced graph comes from, as torch.onnx wrote it down."""
    paths: dict[str, str] = {}
    for node in model.graph.node:
        scopes = next((x.value for x in node.metadata_props if x.key == SCOPES), "[]")
        try:
            names = ast.literal_eval(scopes)
            path = str(names[-2]) if len(names) > 1 else ""
        except (ValueError, SyntaxError, TypeError):
            path = ""
        paths |= {name: path for name in node.output if path}
    return paths


def unfold_constants(graph: onnx.GraphProto) -> None:
    """Constant nodes of the main graph as initializers, so that weights are found in one place."""
    nodes = []
    for node in graph.node:
        tensor = _constant_value(node) if node.op_type == "Constant" else None
        if tensor is None:
            nodes.append(node)
        else:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(nodes)


def fits_half(tensor: onnx.TensorProto) -> bool:
    """Whether float16 can hold it: nothing beyond 65504, and not all of it below the smallest normal number."""
    if tensor.data_type != FLOAT:
        return True
    values = np.abs(numpy_helper.to_array(tensor))
    largest = float(values.max(initial=0.0))
    return largest <= LARGEST and (largest == 0.0 or largest >= SMALLEST_NORMAL)


def barred(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that rounds to float16 after every float16 node, whatever runs it.

    onnxruntime's CPU computes float16 in float32 and leaves out the rounding between two nodes, so on it the graph
    itself shows neither float16's error nor its overflow. A pair that only moves values, which the CPU has in
    float16, stands between.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    types, nodes = _types(model), []
    graph.initializer.append(helper.make_tensor("rounding_axis", TensorProto.INT64, [1], [0]))
    for node in graph.node:
        names = [] if node.op_type in MOVERS else [x for x in node.output if types.get(x) == HALF]
        rename(node, {name: f"{name}_unrounded" for name in names}, outputs=True)
        nodes.append(node)
        for name in names:
            wide = f"{name}_wide"
            nodes += [
                helper.make_node("Unsqueeze", [f"{name}_unrounded", "rounding_axis"], [wide]),
                helper.make_node("Squeeze", [wide, "rounding_axis"], [name]),
            ]
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value of the main graph, as far as onnx can tell."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {x.name: x.type.tensor_type.elem_type for x in (*graph.input, *graph.value_info)}
    types |= {x.name: x.type.tensor_type.elem_type for x in graph.output}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


class _Graph:
    """The main graph with what is asked of it: types, producers, consumers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph, self.nodes = model.graph, list(model.graph.node)
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.types = _types(model)
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.outputs = [value.name for value in self.graph.output]
        self.producer = {name: i for i, n in enumerate(self.nodes) for name in n.output if name}
        self.consumers: dict[str, list[int]] = defaultdict(list)
        for i, node in enumerate(self.nodes):
            for name in dict.fromkeys(used(node)):
                self.consumers[name].append(i)
            for name in node.output:
                if name and not self.types.get(name):
                    raise ExportError(
                        "The graph was not converted to float16",
                        seen=f"onnx cannot tell the type of {name}, an output of {node.op_type} {node.name}",
                        repair="Export it with --precision fp32",
                    )

    def is_float(self, name: str) -> bool:
        return bool(name) and self.types.get(name) == FLOAT

    def parents(self, i: int) -> list[int]:
        """Nodes that make a float input of node i."""
        made = [
            self.producer[x] for x in used(self.nodes[i]) if x in self.producer and self.is_float(x)
        ]
        return list(dict.fromkeys(made))

    def users_of(self, names: list[str]) -> list[int]:
        return [i for name in names for i in self.consumers[name]]

    def without_half(self) -> Iterator[int]:
        """Nodes that must be in float32: holding subgraphs, typed by an attribute, or without float16 in this opset."""
        for i, node in enumerate(self.nodes):
            if (
                node.op_type in MADE_HERE
                or _subgraphs(node)
                or not self._has_half(node)
                or self._torn(node)
            ):
                yield i

    def _has_half(self, node: onnx.NodeProto) -> bool:
        return all(
            "tensor(float16)" in types
            for types in (*self._slot_types(node, "inputs"), *self._slot_types(node, "outputs"))
            if len(types) > 1
        )

    def _torn(self, node: onnx.NodeProto) -> bool:
        """Whether a value stands both where the standard wants float32, such as the scales of Resize, and elsewhere."""
        fixed = {
            (name, len(self.slot(node, place, "inputs")) == 1)
            for place, name in enumerate(node.input)
            if self.is_float(name)
        }
        return len(fixed) > len({name for name, _ in fixed})

    def _slot_types(
        self, node: onnx.NodeProto, side: Literal["inputs", "outputs"]
    ) -> Iterator[Any]:
        """The types that each of a node's float32 inputs or outputs may have."""
        names = node.input if side == "inputs" else node.output
        for place, name in enumerate(names):
            if self.is_float(name):
                yield self.slot(node, place, side)

    def slot(self, node: onnx.NodeProto, place: int, side: Literal["inputs", "outputs"]) -> Any:
        """The types that the standard allows at one place of a node."""
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        formal = getattr(schema, side)
        return formal[min(place, len(formal) - 1)].types


def _delicate(graph: _Graph) -> set[int]:
    found = {i for i, node in enumerate(graph.nodes) if node.op_type in DELICATE}
    return found | _between_squares_and_roots(graph) | _styles(graph) | _last_layers(graph)


def _between_squares_and_roots(graph: _Graph) -> set[int]:
    """Nodes on the way from a square to the root of its mean or sum: norms and demodulation, written out."""
    found: set[int] = set()

    def walk(i: int, depth: int) -> bool:
        node = graph.nodes[i]
        square = node.op_type in ("Pow", "ReduceL2", "ReduceSumSquare") or (
            node.op_type == "Mul" and node.input[0] == node.input[1]
        )
        behind = [] if square or not depth else [walk(x, depth - 1) for x in graph.parents(i)]
        reached = square or any(behind)
        if reached:
            found.add(i)
        return reached

    for i, node in enumerate(graph.nodes):
        if node.op_type in ("Sqrt", "Reciprocal") or node.op_type == "Pow":
            for parent in graph.parents(i):
                walk(parent, DEPTH)
    return found


def _styles(graph: _Graph) -> set[int]:
    """Linear layers, and what follows them, whose vector scales or shifts whole channels of a map."""
    found: set[int] = set()

    def walk(i: int, depth: int) -> bool:
        kind = graph.nodes[i].op_type
        passes = depth > 0 and (kind in MOVERS or kind in ("Add", "Mul", "Sub"))
        behind = [walk(x, depth - 1) for x in graph.parents(i)] if passes else []
        reached = kind in ("Gemm", "MatMul") or any(behind)
        if reached:
            found.add(i)
        return reached

    for i, node in enumerate(graph.nodes):
        if node.op_type == "Mul":
            for parent in graph.parents(i):
                if graph.nodes[parent].op_type in ("Unsqueeze", "Reshape"):
                    walk(parent, DEPTH)
    return found


def _last_layers(graph: _Graph) -> set[int]:
    """The last linear layer before each output, on every path, and all that follows it."""
    found: set[int] = set()
    waiting = [graph.producer[name] for name in graph.outputs if name in graph.producer]
    while waiting:
        i = waiting.pop()
        if i not in found:
            found.add(i)
            if graph.nodes[i].op_type not in LINEAR:
                waiting += graph.parents(i)
    return found


def _surrounded(graph: _Graph, floats: set[int]) -> set[int]:
    """Movers that lie between float32 nodes only: in float16 they would cost two casts and round for nothing."""
    more: set[int] = set()
    while True:
        here = floats | more
        wide = {
            i
            for i, node in enumerate(graph.nodes)
            if i not in here and node.op_type in MOVERS and _all_wide(graph, i, here)
        }
        if not wide:
            return more
        more |= wide


def _all_wide(graph: _Graph, i: int, floats: set[int]) -> bool:
    node = graph.nodes[i]
    given = [x for x in node.input if graph.is_float(x) and x not in graph.weights]
    made = [x for x in node.output if graph.is_float(x)]
    from_float = all(graph.producer.get(x, -1) in floats or x not in graph.producer for x in given)
    to_float = all(
        all(user in floats for user in graph.consumers[x]) for x in made if x not in graph.outputs
    )
    return from_float and to_float


def _rewrite(graph: _Graph, floats: set[int], kept: list[str]) -> Conversion:
    """Give every value its type, and put a Cast where a node wants the other."""
    done = Conversion(kept=sorted(kept))
    stored, wanted = _stored(graph, floats), _wanted(graph, floats)
    weights = [
        t for name, t in graph.weights.items() if t.data_type != FLOAT or FLOAT in stored[name]
    ]
    weights += [
        numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float16), _name(name, HALF))
        for name, t in graph.weights.items()
        if t.data_type == FLOAT and HALF in stored[name]
    ]
    nodes: list[onnx.NodeProto] = []

    def cast(name: str) -> None:
        for kind in sorted(wanted[name] - stored[name]):
            source = next(iter(stored[name]))
            inside, result = _name(name, source), _name(name, kind)
            nodes.append(helper.make_node("Cast", [inside], [result], f"{result}_cast", to=kind))
            done.casts += 1

    for value in (*(x.name for x in graph.graph.input), *graph.weights):
        if graph.is_float(value):
            cast(value)
    for i, node in enumerate(graph.nodes):
        half = {
            x: _name(x, HALF)
            for x in used(node)
            if graph.is_float(x) and _as_half(graph, floats, i, x)
        }
        made = [x for x in node.output if graph.is_float(x)]
        rename(node, half)
        rename(node, {x: _name(x, HALF) for x in made if HALF in stored[x]}, outputs=True)
        nodes.append(node)
        done.lower_nodes += i not in floats and bool(made)
        done.float_nodes += i in floats and bool(made)
        for name in made:
            cast(name)
    del graph.graph.node[:], graph.graph.initializer[:], graph.graph.value_info[:]
    graph.graph.node.extend(nodes)
    graph.graph.initializer.extend(weights)
    return done


def _stored(graph: _Graph, floats: set[int]) -> dict[str, set[int]]:
    """In which types each float value comes to be, before any Cast."""
    stored: dict[str, set[int]] = {x.name: {FLOAT} for x in graph.graph.input}
    for i, node in enumerate(graph.nodes):
        for place, name in enumerate(node.output):
            if graph.is_float(name):
                can = len(graph.slot(node, place, "outputs")) > 1
                stored[name] = {HALF if can and i not in floats else FLOAT}
    wanted = _wanted(graph, floats)
    for name, tensor in graph.weights.items():
        few = len(wanted[name]) == 1 or int(np.prod(tensor.dims)) <= FEW
        stored[name] = set(wanted[name]) if few else {HALF}
    return stored


def _wanted(graph: _Graph, floats: set[int]) -> dict[str, set[int]]:
    """In which types each float value is used."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for name in graph.outputs:
        if graph.is_float(name):
            wanted[name].add(FLOAT)
    for i, node in enumerate(graph.nodes):
        for name in used(node):
            if graph.is_float(name):
                wanted[name].add(HALF if _as_half(graph, floats, i, name) else FLOAT)
    return wanted


def _as_half(graph: _Graph, floats: set[int], i: int, name: str) -> bool:
    """Whether node i takes this float value in float16."""
    node = graph.nodes[i]
    places = [place for place, given in enumerate(node.input) if given == name]
    return i not in floats and all(len(graph.slot(node, p, "inputs")) > 1 for p in places)


def _name(name: str, kind: int) -> str:
    return f"{name}_half" if kind == HALF else name


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    value = helper.get_attribute_value(node.attribute[0])
    if node.attribute[0].name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        return tensor
    name = node.attribute[0].name
    if name in ("value_float", "value_floats"):
        return numpy_helper.from_array(np.asarray(value, np.float32))
    if name in ("value_int", "value_ints"):
        return numpy_helper.from_array(np.asarray(value, np.int64))
    return None


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute for g in ((a.g, *a.graphs) if a.g.node or a.graphs else ())]


def used(node: onnx.NodeProto) -> list[str]:
    """Names of the values that a node reads, those that its subgraphs take from outside among them."""
    names = [name for name in node.input if name]
    for graph in _subgraphs(node):
        inside = {x.name for x in (*graph.input, *graph.initializer)}
        inside |= {name for child in graph.node for name in child.output}
        read = [
            *(name for child in graph.node for name in used(child)),
            *(x.name for x in graph.output),
        ]
        names += [name for name in read if name not in inside]
    return names


def rename(node: onnx.NodeProto, names: dict[str, str], *, outputs: bool = False) -> None:
    """Other names for what a node reads (its own inputs; subgraphs stay in float32), or for what it makes."""
    values = node.output if outputs else node.input
    values[:] = [names.get(name, name) for name in values]
