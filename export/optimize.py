"""Gate step 5: the traced graph in a form that runs faster, by small rewrites that keep what it computes.

Each takes an `Editor` and tells how often it found its pattern. What each gains is in benchmarks/LOG.md; one that
gained nothing is not here: onnxruntime merges scales, shifts and activations into convolutions by itself as it loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from .editing import Array, Editor, attribute, rewrite
from .phases import nearest_as_phases, scales, shuffle_by_product, transposed_as_phases
from .winograd import use_winograd

Target = Literal["any", "cpu"]
WINOGRAD = "3x3 convolutions by Winograd's method"
SMALL_BYTES = 1 << 16  # a folded constant may be larger than what it is made of by so much
MANY = 32  # channels from which a 1x1 convolution costs more than a second resize
FOLDABLE = (
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal", "Neg", "ReduceSum", "ReduceMean", "Transpose", "Reshape",
    "Unsqueeze", "Squeeze", "Expand", "Concat", "Slice", "Gather", "Cast", "Identity", "Flatten",
)  # fmt: skip


def forms(
    model: onnx.ModelProto, target: Target | None
) -> Iterator[tuple[onnx.ModelProto, dict[str, int]]]:
    """The forms of a graph to try, the fastest first, with the rewrites used: with Winograd's method, whose rounding is
    larger, and without. target: None leaves the graph as it is."""
    if target is None:
        yield model, {}
        return
    form = _copy(model)
    used = optimize(form, target)
    yield form, used
    if WINOGRAD in used:
        form = _copy(model)
        yield form, optimize(form, target, winograd=False)


def optimize(model: onnx.ModelProto, target: Target, *, winograd: bool = True) -> dict[str, int]:
    """Rewrite the graph in place; how often each rewrite was used, those that were.

    Outputs stay equal but for rounding. target: "cpu" also has what pays on CPUs alone, of which Winograd's method may
    be left out.
    """
    rewrites: list[tuple[str, Callable[[Editor], int]]] = [
        ("constants folded", fold_constants),
        ("expansions dropped", drop_expansions),
        ("factors moved to styles", move_factors),
        ("transposed convolutions of one pixel as Gemm", point_as_gemm),
        ("1x1 convolutions before their resize", convolve_before_resize),
        ("convolutions after nearest upsampling as phases", nearest_as_phases),
    ]
    if target == "cpu":
        rewrites += [
            ("transposed convolutions as phases", transposed_as_phases),
            # Not elsewhere: a GPU may round what it multiplies to fewer bits.
            ("shuffles of phases as products", shuffle_by_product),
        ]
    if target == "cpu" and winograd:
        rewrites.append((WINOGRAD, use_winograd))
    used = {}
    for name, rule in rewrites:
        count = rewrite(model, rule)
        if count:
            used[name] = count
    return used


def fold_constants(editor: Editor) -> int:
    """Compute what depends on no input: squares of weights for demodulation, transposed weights, scaled ones.

    What would make the file larger is left to onnxruntime.
    """
    found: dict[
        str, tuple[Array, int]
    ] = {}  # value: numbers, bytes of the constants that it is made of

    def known(name: str) -> tuple[Array, int] | None:
        constant = editor.constant(name)
        return found.get(name) if constant is None else (constant, constant.nbytes)

    folded = 0
    for node in editor.nodes(*FOLDABLE):
        sources = [known(name) for name in node.input if name]
        if not sources or any(source is None for source in sources):
            continue
        given = {n: s[0] for n, s in zip((n for n in node.input if n), sources, strict=True) if s}
        results = _evaluate(node, given, editor.opset)
        made_of = sum(source[1] for source in sources if source)
        if any(r.nbytes > made_of + SMALL_BYTES for r in results):
            continue
        found |= {name: (r, made_of) for name, r in zip(node.output, results, strict=True)}
        folded += 1
    for name, (values, _) in found.items():
        for node in editor.consumers(name):
            if any(output not in found for output in node.output):
                constant = editor.add_constant(f"{name}_folded", values)
                node.input[:] = [constant if one == name else one for one in node.input]
    return folded


def drop_expansions(editor: Editor) -> int:
    """c * ones of the batch, times what has the batch: the ones are not needed (StyleGAN's constant input)."""
    dropped = 0
    for node in editor.nodes("Mul"):
        for constant, ones in (node.input[:], node.input[::-1]):
            values = editor.constant(constant)
            if values is None or not _are_ones(editor, ones):
                continue
            takers = editor.consumers(node.output[0])
            if editor.is_output(node.output[0]) or not all(
                _has_the_batch(editor, taker, node.output[0], values) for taker in takers
            ):
                continue
            for taker in takers:
                taker.input[:] = [constant if one == node.output[0] else one for one in taker.input]
            dropped += 1
            break
    return dropped


def move_factors(editor: Editor) -> int:
    """(x * c) * s as x * (c * s), where c is one number and s is small, so that x is passed over once less."""
    moved = 0
    for node in editor.nodes("Mul"):
        split = _split_factor(editor, node)
        if split is None:
            continue
        x, factor = split
        takers = editor.consumers(node.output[0])
        styles = [_small_partner(editor, taker, node.output[0]) for taker in takers]
        if editor.is_output(node.output[0]) or not all(styles):
            continue
        for taker, style in zip(takers, styles, strict=True):
            assert style is not None
            scaled = editor.fresh(f"{style}_scaled")
            first = helper.make_node("Mul", [style, factor], [scaled], name=scaled)
            again = helper.make_node("Mul", [x, scaled], list(taker.output), name=taker.name)
            editor.replace([taker], [first, again])
        moved += 1
    return moved


def point_as_gemm(editor: Editor) -> int:
    """A transposed convolution of one pixel is a matrix product: [B, I] by [I, O k k]."""
    count = 0
    for node in editor.nodes("ConvTranspose"):
        x, w = node.input[0], editor.constant(node.input[1])
        sizes = editor.sizes(x)
        plain = attribute(node, "group", 1) == 1 and not any(attribute(node, "output_padding", [0]))
        plain = plain and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
        if w is None or sizes is None or sizes[1:] != (1, 1) or w.ndim != 4 or not plain:
            continue
        if {*attribute(node, "dilations", [1])} != {1} or attribute(node, "output_shape"):
            continue
        bias = editor.constant(node.input[2]) if len(node.input) > 2 else None
        if len(node.input) > 2 and bias is None:
            continue
        top, left, bottom, right = attribute(node, "pads", [0] * 4)
        inner = w[:, :, top : w.shape[2] - bottom, left : w.shape[3] - right]  # (I, O, k, k)
        matrix = editor.add_constant(f"{node.input[1]}_matrix", inner.reshape(len(w), -1))
        shape = editor.add_constant(f"{node.output[0]}_shape", np.array([-1, *inner.shape[1:]]))
        flat, new = _flat(editor, x, len(w))
        product = editor.fresh(f"{node.output[0]}_product")
        inputs = [flat, matrix]
        if bias is not None:
            wide = np.repeat(bias, inner.shape[2] * inner.shape[3])
            inputs.append(editor.add_constant(f"{node.input[2]}_wide", wide))
        new += [
            helper.make_node("Gemm", inputs, [product], name=product),
            helper.make_node("Reshape", [product, shape], list(node.output), name=node.name),
        ]
        editor.replace([node], new)
        count += 1
    return count


def convolve_before_resize(editor: Editor) -> int:
    """A 1x1 convolution works on each pixel alone, and a resize on each channel alone, with weights of sum 1: they
    commute, and before an enlargement there are fewer pixels."""
    count = 0
    for node in editor.nodes("Conv"):
        resize = editor.producer(node.input[0])
        w = editor.constant(node.input[1])
        if resize is None or resize.op_type != "Resize" or w is None or not _is_pointwise(node, w):
            continue
        factors = scales(editor, resize)
        alone = editor.only_consumer(node.input[0]) is not None
        if factors is None or factors[0] * factors[1] <= 1 or not (alone or w.shape[1] >= MANY):
            continue
        if attribute(resize, "coordinate_transformation_mode") == "tf_crop_and_resize":
            continue
        small = editor.fresh(f"{node.output[0]}_small")
        first = helper.make_node(
            "Conv", [resize.input[0], *node.input[1:]], [small], name=node.name
        )
        first.attribute.extend(node.attribute)
        name = editor.fresh(f"{node.output[0]}_resize")
        then = helper.make_node("Resize", [small, *resize.input[1:]], list(node.output), name=name)
        then.attribute.extend(resize.attribute)
        editor.replace([node], [first, then])
        count += 1
    return count


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    own = onnx.ModelProto()
    own.CopyFrom(model)
    return own


def _evaluate(node: onnx.NodeProto, given: dict[str, Array], opset: int) -> list[Array]:
    """What a node makes of constants, by onnx's own reference."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in given.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "constants", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, given)]


def _are_ones(editor: Editor, value: str) -> bool:
    """Whether a value is Expand(1, ...)."""
    maker = editor.producer(value)
    if maker is None or maker.op_type != "Expand":
        return False
    one = editor.constant(maker.input[0])
    return one is not None and one.size == 1 and bool((one == 1).all())


def _has_the_batch(editor: Editor, taker: onnx.NodeProto, value: str, constant: Array) -> bool:
    """Whether a Mul's or Add's other operand has the batch axis, so that with the constant it makes the same shape."""
    others = [one for one in taker.input if one != value]
    if taker.op_type not in ("Mul", "Add") or len(others) != 1:
        return False
    shape, result = editor.shape(others[0]), editor.shape(taker.output[0])
    if not shape or not result or not isinstance(shape[0], str) or len(shape) != len(result):
        return False
    own = (1,) * (len(shape) - constant.ndim) + constant.shape
    if len(own) > len(shape) or own[0] != 1:
        return False
    return result[1:] == tuple(b if a == 1 else a for a, b in zip(own, shape, strict=True))[1:]


def _split_factor(editor: Editor, node: onnx.NodeProto) -> tuple[str, str] | None:
    """A Mul's large operand and its constant of one number."""
    for x, factor in (tuple(node.input), tuple(node.input)[::-1]):
        constant = editor.constant(factor)
        shape = editor.shape(x)
        if constant is not None and constant.size == 1 and shape and len(shape) == 4:
            return x, factor
    return None


def _small_partner(editor: Editor, taker: onnx.NodeProto, value: str) -> str | None:
    """The other operand of a Mul, if it is [B, C, 1, 1] beside [B, C, H, W]."""
    others = [one for one in taker.input if one != value]
    if taker.op_type != "Mul" or len(others) != 1:
        return None
    small, large = editor.shape(others[0]), editor.shape(value)
    if not small or not large or len(small) != 4 or len(large) != 4:
        return None
    return (
        others[0]
        if small[2:] == (1, 1) != large[2:] and not editor.is_constant(others[0])
        else None
    )


def _flat(editor: Editor, x: str, channels: int) -> tuple[str, list[onnx.NodeProto]]:
    """[B, I] of a value [B, I, 1, 1], and the nodes that it takes."""
    maker = editor.producer(x)
    if (
        maker is not None
        and maker.op_type == "Unsqueeze"
        and editor.sizes(maker.input[0]) == (channels,)
    ):
        return maker.input[0], []
    flat = editor.fresh(f"{x}_flat")
    shape = editor.add_constant(f"{x}_flat_shape", np.array([-1, channels]))
    return flat, [helper.make_node("Reshape", [x, shape], [flat], name=flat)]


def _is_pointwise(node: onnx.NodeProto, w: Array) -> bool:
    return (
        w.shape[2:] == (1, 1)
        and attribute(node, "group", 1) == 1
        and {*attribute(node, "strides", [1])} == {1}
        and not any(attribute(node, "pads", [0]))
        and attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
    )
