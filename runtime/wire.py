"""Reads an ONNX file, just enough to judge it before onnxruntime sees it.

Refuses what a generator never needs and an attacker might: weights in other files, operators of unknown domains,
local functions, deep subgraphs, loops. Knows nothing of signatures.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .operators import EMPTY, FLOATS, Constant, Node, judge
from .protobuf import Entry, entries, refused, signed, text, varints, view

DOMAINS = frozenset({"", "ai.onnx"})
MAX_BYTES = 2**31 - 1
MAX_NODES = 5_000  # onnxruntime takes minutes to load graphs of some tens of thousands, and of as many weights
MAX_WEIGHTS = 20_000
MAX_INPUTS = 256  # of a node
MAX_AXES = 64
MAX_DEPTH = 2  # subgraphs within subgraphs
MAX_METADATA = 256
# With it at byte 4, onnxruntime would not read the protobuf that is judged here.
ORT_FORMAT = b"ORTM"
INTEGER_ATTRIBUTE = 2
SINGLE_VALUES = (3, 4, 5, 6)  # fields of an attribute: integer, text, tensor, graph
VALUES = (*SINGLE_VALUES, 7, 8, 9, 10, 11)  # and lists
SIGNED = {3: 8, 5: 16, 6: 32, 7: 64}  # bits of the signed element types
UNKNOWN = frozenset({-1})  # of many integers -1 may be one
MOST_BYTES = 1024
ELEMENT_TYPES = {1: "float32", 2: "uint8", 7: "int64", 10: "float16"}


@dataclass
class TensorInfo:
    """Name, element type and shape of a graph input or output; a str is a symbolic axis, None an unknown one."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass
class ModelInfo:
    """What the file says of itself."""

    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    metadata: dict[str, str]
    opset: int
    graph: memoryview  # the graph's own bytes: their SHA-256 identifies network and weights
    nodes: int = 0
    weights: int = 0  # number of values in initializers
    operators: dict[str, int] = field(default_factory=dict)


@dataclass
class Parts:
    """What the operators are judged by: nodes, small constants, names of float inputs."""

    nodes: list[Node] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    ambiguous: set[str] = field(default_factory=set)
    constants: dict[str, Constant] = field(default_factory=dict)
    floats: list[str] = field(default_factory=list)
    tensors: int = 0

    def add_constant(self, name: str, held: Constant) -> None:
        self.add_name(name)
        self.constants[name] = held

    def add_name(self, name: str) -> None:
        """Branches may give a name twice; of such a value nothing is known."""
        (self.ambiguous if name in self.names else self.names).add(name)

    def fault(self) -> str:
        """What is wrong with the nodes, or ""."""
        constants = {n: v for n, v in self.constants.items() if n not in self.ambiguous}
        return judge(self.nodes, constants, self.floats, self.ambiguous)


def read_model(data: bytes | memoryview) -> ModelInfo:
    """Walk a serialised ONNX ModelProto and return what it holds.

    Raises `ModelFileError` for anything that is not a plain, self-contained model.
    """
    if len(data) > MAX_BYTES:
        raise refused(f"{len(data)} bytes, more than 2 GiB")
    if data[4:8] == ORT_FORMAT:
        raise refused("the mark of onnxruntime's own format")
    try:
        return _read_model(memoryview(data))
    except (IndexError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise refused(f"broken protobuf ({type(error).__name__})") from error


def _read_model(data: memoryview) -> ModelInfo:
    graph: memoryview | None = None
    metadata: dict[str, str] = {}
    opset = 0
    for number, _, value in entries(data):
        if number == 7:  # graph
            if graph is not None:
                raise refused("two graphs")
            graph = view(value)
        elif number == 8:  # opset_import
            domain, version = _opset(view(value))
            if domain not in DOMAINS:
                raise refused(f"operators of the foreign domain {domain!r:.60}")
            opset = max(opset, version)
        elif number == 14:  # metadata_props
            key, content = _pair(view(value))
            if key in metadata or len(metadata) >= MAX_METADATA:
                raise refused(f"metadata {key!r:.60} twice, or too many entries")
            metadata[key] = content
        elif number in (20, 25):  # training_info, functions
            raise refused("training information or local functions")
    if graph is None:
        raise refused("no graph: this is not an ONNX model")
    info, parts = ModelInfo([], [], metadata, opset, graph), Parts()
    _read_graph(graph, info, parts, depth=0)
    if fault := parts.fault():
        raise refused(fault)
    return info


def _read_graph(data: memoryview, info: ModelInfo, parts: Parts, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise refused(f"subgraphs deeper than {MAX_DEPTH}")
    for number, _, value in entries(data):
        if number == 1:
            _read_node(view(value), info, parts, depth)
        elif number == 5:
            name, count, held = _read_tensor(view(value))
            parts.tensors += 1
            if parts.tensors > MAX_WEIGHTS:
                raise refused(f"more than {MAX_WEIGHTS} weights")
            info.weights += count
            parts.add_constant(name, held)
        elif number == 15:
            raise refused("sparse weights")
        elif number == 11 and depth == 0:
            info.inputs.append(_tensor_info(view(value)))
            parts.add_name(info.inputs[-1].name)
        elif number == 12 and depth == 0:
            info.outputs.append(_tensor_info(view(value)))
    if depth == 0:
        parts.floats += [t.name for t in info.inputs if t.dtype.startswith("float")]


def _read_node(data: memoryview, info: ModelInfo, parts: Parts, depth: int) -> None:
    info.nodes += 1
    if info.nodes > MAX_NODES:
        raise refused(f"more than {MAX_NODES} nodes")
    node, domain = Node(""), ""
    for number, _, value in entries(data):
        if number == 1:
            node.inputs.append(text(value))
            if len(node.inputs) > MAX_INPUTS:
                raise refused(f"a node of more than {MAX_INPUTS} inputs")
        elif number == 2:
            node.outputs.append(text(value))
            parts.add_name(node.outputs[-1])
        elif number == 4:
            node.operator = text(value)
        elif number == 7:
            domain = text(value)
        elif number == 5:
            _read_attribute(view(value), info, parts, node, depth)
    if domain not in DOMAINS:
        raise refused(f"operator {node.operator!r:.60} of the foreign domain {domain!r:.60}")
    info.operators[node.operator] = info.operators.get(node.operator, 0) + 1
    parts.nodes.append(node)


def _read_attribute(
    data: memoryview, info: ModelInfo, parts: Parts, node: Node, depth: int
) -> None:
    name, first = "", 0
    held: int | str | None = None
    for number, _, value in entries(data):
        if number in VALUES:  # of two, another reader may take the other one, or both as one
            if first and (first != number or number in SINGLE_VALUES):
                raise refused(f"{node} with two values of {name!r:.40}")
            first = number
        if number == 1:
            name = text(value)
        elif number == 3 and isinstance(value, int):
            held = signed(value, 64)
        elif number == 4:
            held = str(view(value), "utf-8", "replace")
        elif number in (5, 10):  # a tensor
            _, _, tensor = _read_tensor(view(value))
            if node.operator == "Constant" and name == "value":
                parts.constants |= dict.fromkeys(node.outputs, tensor)
        elif number in (6, 11):  # a subgraph
            _read_graph(view(value), info, parts, depth + 1)
        elif number in (22, 23):
            raise refused("sparse weights")
        elif number == 20 and value == INTEGER_ATTRIBUTE and held is None:
            held = 0  # which protobuf writes as nothing
    if name in node.attributes:
        raise refused(f"{node} with {name!r:.40} twice")
    node.attributes[name] = "" if held is None else held


def _read_tensor(data: memoryview) -> tuple[str, int, Constant]:
    """Name, number of values, and what a graph is judged by; refuses one whose values are elsewhere."""
    name, count, kind, axes = "", 1, 0, 0
    values: list[Entry] = []
    for number, wire, value in entries(data):
        if number == 1:
            for size in varints(wire, value):
                count, axes = count * size, axes + 1
                if axes > MAX_AXES:
                    raise refused(f"a tensor of more than {MAX_AXES} axes")
                if count > MAX_BYTES:
                    raise refused("a tensor of more than 2^31 values")
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8:
            name = text(value)
        elif number in (5, 7, 9):
            values.append((number, wire, value))
        elif number == 13 or (number == 14 and value != 0):
            raise refused("weights in another file (external data)")
    if not count and axes > 1:  # some operators of onnxruntime read the first value all the same
        raise refused("a tensor without values")
    if not count:
        return name, 0, Constant(EMPTY, axes)
    return name, count, Constant(None if kind in FLOATS else _integers(kind, values), axes)


def _integers(kind: int, fields: list[Entry]) -> frozenset[int]:
    """The integers of a tensor of this element type, or `UNKNOWN`."""
    bits, found = SIGNED.get(kind, 0), set[int]()
    for number, wire, value in fields:
        if not bits or (isinstance(value, memoryview) and len(value) > MOST_BYTES):
            return UNKNOWN
        if number == 9:
            raw, size = view(value), bits // 8
            found |= {
                int.from_bytes(raw[at : at + size], "little", signed=True)
                for at in range(0, len(raw), size)
            }
        else:
            kept = (1 << bits) - 1  # other readers drop the bits above
            found |= {signed(one & kept, bits) for one in varints(wire, value)}
    return frozenset(found)


def _tensor_info(data: memoryview) -> TensorInfo:
    name, dtype = "", ""
    shape: list[int | str | None] = []
    for number, _, value in entries(data):
        if number == 1:
            name = text(value)
        elif number == 2:
            for kind, _, tensor in entries(view(value)):
                if kind != 1:
                    raise refused(f"input or output {name!r:.60} that is not a tensor")
                for part, _, content in entries(view(tensor)):
                    if part == 1:
                        dtype = (
                            ELEMENT_TYPES.get(content, "other")
                            if isinstance(content, int)
                            else "other"
                        )
                    elif part == 2:
                        shape += [
                            _axis(view(axis)) for n, _, axis in entries(view(content)) if n == 1
                        ]
    return TensorInfo(name, dtype, tuple(shape))


def _axis(data: memoryview) -> int | str | None:
    axis: int | str | None = None
    for number, _, value in entries(data):
        if number == 1 and isinstance(value, int):
            axis = value
        elif number == 2:
            axis = text(value)
    return axis


def _opset(data: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, _, value in entries(data):
        if number == 1:
            domain = text(value)
        elif number == 2 and isinstance(value, int):
            version = value
    return domain, version


def _pair(data: memoryview) -> tuple[str, str]:
    pair = {1: "", 2: ""}
    for number, _, value in entries(data):
        if number in pair:
            pair[number] = text(value)
    return pair[1], pair[2]
