"""What a model's graph may compute: operators that generators need, used in ways that do not crash onnxruntime.

Native code is asked to refuse what is wrong, and mostly does. Each rule here is for a case where onnxruntime 1.32 was
seen to end the process, or to read beyond a tensor: tests/mutants.py looks for more of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

ELEMENTWISE = """Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike
    Ceil Celu Clip Cos Cosh Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish
    Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu
    Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor"""
LAYERS = """Attention AveragePool BatchNormalization Col2Im Conv ConvTranspose DequantizeLinear Einsum GRU Gemm GlobalAveragePool GlobalMaxPool GridSample GroupNormalization
    Hardmax InstanceNormalization LRN LSTM LayerNormalization LogSoftmax LpNormalization MatMul
    MaxPool MeanVarianceNormalization QuantizeLinear RMSNormalization RNN Resize
    RotaryEmbedding Softmax"""
SHAPES = """AffineGrid ArgMax ArgMin CenterCropPad Compress Concat Constant ConstantOfShape CumSum DFT DepthToSpace Det
    Expand EyeLike Flatten Gather GatherElements GatherND If NonZero OneHot Pad Range ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Reshape ReverseSequence
    ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile TopK Transpose Trilu Unsqueeze"""
OPERATORS = frozenset(f"{ELEMENTWISE} {LAYERS} {SHAPES}".split())
TERM = r"[a-zA-Z]*(?:\.\.\.[a-zA-Z]*)?"  # one way only to read a text: others would take ages
EQUATION = re.compile(rf"({TERM}(?:,{TERM})*)(?:->{TERM})?")
LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
EMPTY: frozenset[int] = frozenset()
LONGEST_DFT = 1 << 16

# Inputs, from 0, that may be left out before one that is given. onnxruntime takes some others for granted.
LEFT_OUT: Mapping[str, Collection[int]] = {
    "Clip": (1,), "DFT": (1,), "GRU": (3, 4), "LSTM": (3, 4, 5, 6), "Pad": (2,), "RNN": (3, 4), "Resize": (1, 2),
    "Slice": (3,), "Attention": (3, 4),
}  # fmt: skip

FLOATS = (1, 10, 11, 16)  # element types of ONNX: float32, float16, float64, bfloat16
# The type of these is that of their first input.
SAME = """Abs Add Ceil Clip Compress Concat CumSum DepthToSpace Div Dropout Einsum Erf Expand Flatten Floor Gather
    GatherElements GatherND Gemm GridSample Identity MatMul Max MaxPool Mean Min Mod Mul Neg PRelu Pad Pow Reciprocal
    ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round
    ScatterElements ScatterND Sign Slice SpaceToDepth Split Squeeze Sub Sum Tile TopK Transpose Trilu Unsqueeze"""
LIKE_FIRST = frozenset(f"{SAME}".split())
# That of these is always a float.
CONTINUOUS = """AveragePool BatchNormalization Conv ConvTranspose Cos DequantizeLinear Elu Exp GRU Gelu
    GlobalAveragePool GroupNormalization HardSigmoid HardSwish InstanceNormalization LRN LSTM LayerNormalization
    LeakyRelu Log LogSoftmax LpNormalization Mish RMSNormalization RNN Selu Sigmoid Sin Softmax Softplus Softsign Sqrt
    Swish Tan Tanh"""
ALWAYS_FLOAT = frozenset(f"{CONTINUOUS}".split())


class Constant(NamedTuple):
    """A constant of a graph. values: where they are few integers; None where they are floats. axes: how many it has."""

    values: frozenset[int] | None
    axes: int = 0


@dataclass
class Node:
    """A node of a graph, as far as it is judged. attributes: integers, and texts, by name."""

    operator: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, int | str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"operator {self.operator!r:.60}"


def judge(
    nodes: Iterable[Node],
    constants: Mapping[str, Constant],
    floats: Iterable[str],
    ambiguous: Collection[str] = (),
) -> str:
    """What is wrong with the nodes, or "".

    floats: the graph's inputs of float types. ambiguous: names that stand for two values, one of which may be an
    integer; not among the constants.
    """
    known = {*floats, *(name for name, held in constants.items() if held.values is None)}
    known -= {*ambiguous}
    for node in nodes:
        for rule in RULES:
            if fault := rule(node):
                return f"{node} {fault}"
        if node.operator == "Div" and known.isdisjoint(node.inputs):
            divisor = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
            if not divisor or divisor.values is None or -1 in divisor.values:
                # the smallest integer by -1 ends the process
                return f"{node} divides integers by what is no constant, or by -1"
        if node.operator in QUANTIZERS and not all(
            name in constants and constants[name].values != EMPTY for name in node.inputs[1:3]
        ):  # what fuses them takes it for granted
            return f"{node} has a scale or a zero that is no constant"
        if node.operator == "DFT" and not all(
            is_number(constants.get(name)) for name in node.inputs[1:] if name
        ):  # length and axis
            return f"{node} has a length or an axis that is no constant up to {LONGEST_DFT}"
        if is_float(node, known):
            alike = node.operator in ALWAYS_FLOAT or node.operator == "Split"
            outputs = node.outputs if alike else node.outputs[:1]  # others may be indices
            known.update(name for name in outputs if name not in ambiguous)
    return ""


def is_number(constant: Constant | None) -> bool:
    """Whether it is one integer, and none that fills the memory."""
    if not constant or constant.axes or not constant.values:
        return False
    return max(constant.values) <= LONGEST_DFT


def is_float(node: Node, floats: Collection[str]) -> bool:
    """Whether its outputs are surely no integers."""
    if node.operator in ALWAYS_FLOAT:
        return True
    if node.operator == "Cast":
        return node.attributes.get("to") in FLOATS
    if node.operator == "Where":
        return not set(node.inputs[1:3]).isdisjoint(floats)
    return node.operator in LIKE_FIRST and bool(node.inputs) and node.inputs[0] in floats


def _known(node: Node) -> str:
    if node.operator in LOOPS:
        return "is a loop, which need not end"
    return "" if node.operator in OPERATORS else "is none that a generator needs"


def _inputs(node: Node) -> str:
    """onnxruntime follows a null pointer for an input without a name in many a place."""
    allowed = LEFT_OUT.get(node.operator, ())
    left_out = [place for place, name in enumerate(node.inputs) if not name]
    if (node.inputs and not node.inputs[-1]) or not set(left_out) <= set(allowed):
        return "lacks an input that it needs"
    return ""


def _split(node: Node) -> str:
    count = node.attributes.get("num_outputs", len(node.outputs))
    if node.operator == "Split" and count != len(node.outputs):
        return f"splits into {count} parts, with {len(node.outputs)} outputs"
    return ""


def _gather(node: Node) -> str:
    count = node.attributes.get("batch_dims", 0)
    if node.operator == "GatherND" and not (isinstance(count, int) and 0 <= count <= 8):
        return f"has batch_dims {count!r:.40}"
    return ""


def _einsum(node: Node) -> str:
    equation = node.attributes.get("equation", "")
    if node.operator != "Einsum":
        return ""
    terms = EQUATION.fullmatch(str(equation).replace(" ", ""))
    if not terms or not all(given := terms[1].split(",")) or len(given) != len(node.inputs):
        return f"has the equation {equation!r:.40} for {len(node.inputs)} inputs"
    return ""


RULES: tuple[Callable[[Node], str], ...] = (_known, _inputs, _split, _gather, _einsum)
