"""Convolutions that double the size, as one at the small size for each of the 2 x 2 pixels that a pixel becomes, and
the shuffle that puts these phases together.

Knows onnx and a graph's `Editor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

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
        w = editor.constant(node.input[1])
        if w is None or not _doubles(node, w):
            continue
        if node.name not in wanted and not _pays(w, editor.some_sizes(node.input[0])):
            continue
        pads = attribute(node, "pads", [0] * 4)

        def phase(a: int, b: int, w: Array = w, p: list[int] = pads) -> tuple[Array, list[int]]:
            taps, around = [], []
            for axis, place in enumerate((a, b)):
                last = place + p[axis]  # the weight that x[i] meets
                high, low = last // 2, -((w.shape[2 + axis] - 1 - last) // 2)
                taps.append([last - 2 * d for d in range(low, high + 1)])
                around.append((-low, high))
            return w[:, :, taps[0]][:, :, :, taps[1]].swapaxes(0, 1), _around(around)

        _replace(editor, node, node.input[0], phase)
        count += 1
    return count


def shuffle_by_product(editor: Editor) -> int:
    """The shuffle of four phases (C, H, W), where only parts of rows are copied, p pixels long: left and right pixels
    then take turns by a product with a matrix of ones and zeros, exact for finite values. DepthToSpace
    moves each number by itself, in one thread, and takes up to as long as two of the convolutions."""
    count = 0
    for node in editor.nodes("DepthToSpace"):
        joined = editor.producer(node.input[0])
        if joined is None or not _joins_phases(editor, joined, node):
            continue
        sizes = editor.some_sizes(joined.input[0])
        if _part(sizes):
            new = _by_product(editor, list(joined.input), sizes, node.output[0])
            editor.replace([joined, node], new)
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
    editor: Editor, phases: list[str], sizes: list[tuple[int, ...]], result: str
) -> list[onnx.NodeProto]:
    p, new = _part(sizes), list[onnx.NodeProto]()
    whole = {size[2] for size in sizes} == {p}

    def made(operator: str, inputs: list[str], word: str, **attributes: Any) -> str:
        name = editor.fresh(f"{result}_{word}")
        new.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(word: str, *values: int) -> str:
        return editor.add_constant(f"{result}_{word}", np.array(values))

    if whole:
        rows = made("Concat", phases, "rows", axis=3)  # (C, H, 4 W)
    else:
        apart, together = constant("apart", 0, 0, 0, -1, p), constant("together", 0, 0, 0, -1)
        parts = [made("Reshape", [phase, apart], "parts") for phase in phases]
        upper, lower = parts[:2], parts[2:]
        pairs = [made("Concat", two, "pairs", axis=4) for two in (upper, lower)]  # (C, H, W/p, 2p)
        pairs = [made("Reshape", [pair, together], "pairs") for pair in pairs]  # (C, H, 2 W)
        rows = made("Concat", pairs, "rows", axis=3)  # (C, H, 4 W)
    pieces = made("Reshape", [rows, constant("pieces", 0, 0, -1, 2 * p)], "pieces")
    turns = np.zeros((2 * p, 2 * p), np.float32)
    turns[np.arange(2 * p), np.arange(2 * p).reshape(p, 2).T.ravel()] = 1
    product = made("MatMul", [pieces, editor.add_constant(f"{result}_turns", turns)], "product")
    if not whole:
        if len(sizes) == 1:
            c, h, w = sizes[0]
            shape = constant("shape", -1, c, 2 * h, 2 * w)
        else:
            small = made("Shape", [phases[0]], "shape")
            shape = made("Mul", [small, constant("doubled", 1, 1, 2, 2)], "shape")
        made("Reshape", [product, shape], "whole")
    new[-1].output[0] = result
    return new


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


def _pays(w: Array, sizes: list[tuple[int, ...]]) -> bool:
    """Whether a transposed convolution of images of such sizes is worth it in float32."""
    if w.dtype != np.float32 or min(w.shape[2:]) < SMALLEST:
        return False
    if w.shape[1] % CHANNELS or not _part(sizes):
        return False
    smallest = min(min(size[1:]) for size in sizes)
    return w.shape[0] * w.shape[1] <= MOST_AT_FOUR or not 2 < smallest < 8


def _part(sizes: list[tuple[int, ...]]) -> int:
    """Pixels of a row that are copied as one: a divisor of its width in all these sizes, not too small to pay; 0 if it
    has none. A short row is copied whole."""
    widths = {size[2] for size in sizes if len(size) == 3}
    if len(widths) == 1 and max(widths) <= LONGEST:
        return max(widths)
    divides = math.gcd(*widths)
    return max((p for p in range(SHORTEST, LONGEST + 1) if widths and divides % p == 0), default=0)


def _joins_phases(editor: Editor, joined: onnx.NodeProto, shuffle: onnx.NodeProto) -> bool:
    """Whether four phases of float32 are joined and shuffled."""
    if joined.op_type != "Concat" or attribute(joined, "axis") != 1 or len(joined.input) != 4:
        return False
    if attribute(shuffle, "blocksize") != 2 or attribute(shuffle, "mode", "DCR") != "DCR":
        return False
    if not editor.is_float(joined.output[0]) or editor.only_consumer(joined.output[0]) is None:
        return False
    first, *others = (editor.some_sizes(value) for value in joined.input)
    return all(one == first for one in others)


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
