"""Convolutions that double the size, as one at the small size for each of the 2 x 2 pixels that a pixel becomes, and
the shuffle that puts these phases together.

Knows onnx and a graph's `Editor`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx
from onnx import helper

from .editing import Array, Editor, attribute

UNARY = frozenset({"Relu", "LeakyRelu", "Tanh", "Sigmoid"})
# Of transposed convolutions (benchmarks/LOG.md): onnxruntime computes channels in blocks, a part of one as slowly as
# a whole; and with more weights at 4 pixels a side, reading them takes longer.
CHANNELS, MOST_AT_FOUR = 16, 512 * 512
SMALLEST = 4  # kernel
SHORTEST, LONGEST = 4, 16  # parts of rows
# Weights (O, I, k', k') and pads for the pixels at a row and a column of each 2 x 2.
Phase = Callable[[int, int], tuple[Array, list[int]]]


def nearest_as_phases(editor: Editor) -> int:
    """A convolution after nearest upsampling to twice the size: of the k x k weights those that meet the same small
    pixel are summed. A 3x3 kernel has 4 x 4 products where it had 4 x 9."""
    count = 0
    for node in editor.nodes("Conv"):
        resize = editor.producer(node.input[0])
        w = editor.constant(node.input[1])
        if resize is None or w is None or not _is_nearest(editor, resize) or not _is_same(node, w):
            continue

        def phase(a: int, b: int, w: Array = w) -> tuple[Array, list[int]]:
            sums, pads = w.astype(np.float64), []
            for axis, place in ((2, a), (3, b)):
                k = w.shape[axis]
                # The offset of the small pixel that weight u meets.
                meets = [(place + u - k // 2) // 2 for u in range(k)]
                low, high = meets[0], meets[-1]
                rows = np.stack([np.equal(meets, d) for d in range(low, high + 1)])  # (k', k)
                sums = np.moveaxis(np.tensordot(rows, sums, (1, axis)), 0, axis)
                pads.append((-low, high))
            return sums.astype(w.dtype), _around(pads)

        _replace(editor, node, resize.input[0], phase)
        count += 1
    return count


def transposed_as_phases(editor: Editor, wanted: Collection[str] = ()) -> int:
    """A transposed convolution with stride 2 and padding p that doubles the size: pixel 2 i + a is the sum over d of
    x[i + d] w[a + p - 2 d], every second weight along each axis. The same products, but onnxruntime adds those of a
    transposed convolution up in one thread. wanted: names of nodes for which it is done where float32 gains nothing."""
    count = 0
    for node in editor.nodes("ConvTranspose"):
        w, sizes = editor.constant(node.input[1]), editor.sizes(node.input[0])
        if w is None or not _doubles(node, w):
            continue
        if node.name not in wanted and not _pays(w, sizes):
            continue
        pads = attribute(node, "pads", [0] * 4)

        def phase(a: int, b: int, w: Array = w, p: list[int] = pads) -> tuple[Array, list[int]]:
            taps, around = [], []
            for axis, place in enumerate((a, b)):
                last = (
                    place + p[axis]
                )  # the weight that x[i] meets, and d of the last and the first
                high, low = last // 2, -((w.shape[2 + axis] - 1 - last) // 2)
                taps.append([last - 2 * d for d in range(low, high + 1)])
                around.append((-low, high))
            return w[:, :, taps[0]][:, :, :, taps[1]].swapaxes(0, 1), _around(around)

        _replace(editor, node, node.input[0], phase)
        count += 1
    return count


def shuffle_by_product(editor: Editor) -> int:
    """The shuffle of four phases (C, H, W), where only parts of rows are copied, p pixels long: left and right pixels
    then take turns by a product with a matrix of ones and zeros, which is exact. DepthToSpace moves each number by
    itself, in one thread, and takes as long as two of the convolutions."""
    count = 0
    for node in editor.nodes("DepthToSpace"):
        joined = editor.producer(node.input[0])
        size = None if joined is None else _phase_size(editor, joined, node)
        if joined is None or size is None or not _part(size[2]):
            continue
        editor.replace(
            [joined, node], _by_product(editor, list(joined.input), size, node.output[0])
        )
        count += 1
    return count


def _replace(editor: Editor, node: onnx.NodeProto, source: str, phase: Phase) -> None:
    """Four convolutions of `source`, and the activation that follows, in place of a node."""
    after = editor.only_consumer(node.output[0])
    activation = after if after is not None and after.op_type in UNARY else None
    result = activation.output[0] if activation is not None else node.output[0]
    new, phases = [], []
    for a in (0, 1):
        for b in (0, 1):
            values, pads = phase(a, b)
            weight = editor.add_constant(f"{node.input[1]}_phase", values)
            made = editor.fresh(f"{result}_phase")
            new.append(
                helper.make_node(
                    "Conv", [source, weight, *node.input[2:]], [made], name=made,
                    kernel_shape=values.shape[2:], pads=pads,
                )
            )  # fmt: skip
            if activation is not None:
                new.append(_activated(editor, activation, made))
            phases += new[-1].output
    joined = editor.fresh(f"{result}_phases")
    new += [
        helper.make_node("Concat", phases, [joined], name=joined, axis=1),
        helper.make_node("DepthToSpace", [joined], [result], name=node.name, blocksize=2),
    ]
    editor.replace([node] + ([activation] if activation is not None else []), new)


def _by_product(
    editor: Editor, phases: list[str], size: tuple[int, ...], result: str
) -> list[onnx.NodeProto]:
    (c, h, w), new = size, list[onnx.NodeProto]()
    p = _part(w)

    def reshaped(value: str, *shape: int) -> str:
        name = editor.fresh(f"{value}_parts")
        constant = editor.add_constant(f"{name}_shape", np.array([-1, *shape]))
        new.append(helper.make_node("Reshape", [value, constant], [name], name=name))
        return name

    def joined(values: list[str], axis: int) -> str:
        name = editor.fresh(f"{result}_phases")
        new.append(helper.make_node("Concat", values, [name], name=name, axis=axis))
        return name

    turns = np.zeros((2 * p, 2 * p), np.float32)
    turns[np.arange(2 * p), np.arange(2 * p).reshape(p, 2).T.ravel()] = 1
    if p == w:
        rows = joined(phases, 3)  # (C, H, 4 W)
    else:
        parts = [reshaped(value, c, h, w // p, p) for value in phases]
        pairs = (joined(parts[:2], 4), joined(parts[2:], 4))  # (C, H, W / p, 2 p)
        rows = joined([reshaped(pair, c, h, 2 * w) for pair in pairs], 3)
    pieces = reshaped(rows, c, 2 * h * w // p, 2 * p)
    matrix = editor.add_constant(f"{result}_turns", turns)
    product, whole = (editor.fresh(f"{result}_{word}") for word in ("product", "whole"))
    if p == w:
        return [*new, helper.make_node("MatMul", [pieces, matrix], [result], name=product)]
    shape = editor.add_constant(f"{result}_shape", np.array([-1, c, 2 * h, 2 * w]))
    return [
        *new,
        helper.make_node("MatMul", [pieces, matrix], [product], name=product),
        helper.make_node("Reshape", [product, shape], [result], name=whole),
    ]


def _activated(editor: Editor, activation: onnx.NodeProto, value: str) -> onnx.NodeProto:
    result = editor.fresh(f"{value}_active")
    node = helper.make_node(activation.op_type, [value], [result], name=result)
    node.attribute.extend(activation.attribute)
    return node


def _around(pads: list[tuple[int, int]]) -> list[int]:
    """[top, left, bottom, right] of (top, bottom), (left, right)."""
    (top, bottom), (left, right) = pads
    return [top, left, bottom, right]


def _is_same(node: onnx.NodeProto, w: Array) -> bool:
    """Whether a convolution of odd size keeps height and width."""
    kernel = w.shape[2:]
    return (
        len(kernel) == 2
        and all(k % 2 and k > 1 for k in kernel)
        and attribute(node, "group", 1) == 1
        and {*attribute(node, "strides", [1])} == {1} == {*attribute(node, "dilations", [1])}
        and attribute(node, "pads", [0] * 4) == [kernel[0] // 2, kernel[1] // 2] * 2
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    )


def _doubles(node: onnx.NodeProto, w: Array) -> bool:
    """Whether a transposed convolution with stride 2 makes 2 x 2 pixels of each."""
    if w.ndim != 4 or attribute(node, "strides") != [2, 2] or attribute(node, "group", 1) != 1:
        return False
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET" or attribute(node, "output_shape"):
        return False
    pads, extra = attribute(node, "pads", [0] * 4), attribute(node, "output_padding", [0, 0])
    return {*attribute(node, "dilations", [1])} == {1} and all(
        w.shape[2 + axis] + extra[axis] == 2 + pads[axis] + pads[2 + axis]
        and pads[axis] + 2 <= w.shape[2 + axis]  # every pixel has a part in both of its rows
        for axis in (0, 1)
    )


def _pays(w: Array, sizes: tuple[int, ...] | None) -> bool:
    """Whether a transposed convolution of images of this size is worth it."""
    if sizes is None or min(w.shape[2:]) < SMALLEST or w.shape[1] % CHANNELS or not _part(sizes[2]):
        return False
    return w.shape[0] * w.shape[1] <= MOST_AT_FOUR or not 2 < min(sizes[1:]) < 8


def _part(width: int) -> int:
    """Pixels of a row that are copied as one: a divisor of its width, not too small to pay; 0 if it has none."""
    divisors = [p for p in range(SHORTEST, LONGEST + 1) if width % p == 0]
    return max(divisors, default=0) if width > LONGEST else width


def _phase_size(
    editor: Editor, joined: onnx.NodeProto, shuffle: onnx.NodeProto
) -> tuple[int, ...] | None:
    """(C, H, W) of four phases that are joined and shuffled; None where it is something else."""
    if joined.op_type != "Concat" or attribute(joined, "axis") != 1 or len(joined.input) != 4:
        return None
    if attribute(shuffle, "blocksize") != 2 or attribute(shuffle, "mode", "DCR") != "DCR":
        return None
    sizes = {editor.sizes(value) for value in joined.input}
    alone = editor.only_consumer(joined.output[0]) is not None
    return sizes.pop() if alone and len(sizes) == 1 else None


def scales(editor: Editor, resize: onnx.NodeProto) -> tuple[float, float] | None:
    """Of height and width, where they are constants and the other axes stay."""
    if (
        len(resize.input) != 3
        or attribute(resize, "axes")
        or attribute(resize, "exclude_outside", 0)
    ):
        return None
    factors = editor.constant(resize.input[2])
    if factors is None or factors.shape != (4,) or (factors[:2] != 1).any():
        return None
    return float(factors[2]), float(factors[3])


def _is_nearest(editor: Editor, resize: onnx.NodeProto) -> bool:
    """Whether a node repeats each pixel to 2 x 2."""
    if resize.op_type != "Resize" or attribute(resize, "mode", "nearest") != "nearest":
        return False
    way = (
        attribute(resize, "coordinate_transformation_mode", "half_pixel"),
        attribute(resize, "nearest_mode", "round_prefer_floor"),
    )
    known = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")}
    return way in known and scales(editor, resize) == (2.0, 2.0)
