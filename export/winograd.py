"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3): 36 products for 16 pixels instead of 144.

Lavin and Gray 2016, section 4, by Toom-Cook. Written in plain operators: an input transform, a grouped 1x1 convolution,
an output transform. Knows onnx and a graph's `Editor`.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.polynomial import polynomial
from onnx import helper

from .editing import Array, Editor, attribute

M, R = 4, 3  # pixels and weights along an axis
N = M + R - 1  # of a tile
# With 0, +-1, +-2, as published, the error is twice as large (benchmarks/LOG.md).
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
FEWEST_CHANNELS, SMALLEST_SIDE = 96, 16  # with fewer the transforms cost more than they save


def transforms() -> tuple[Array, Array, Array]:
    """A^T (M, N), G (N, R), B^T (N, N) with y = A^T [(G g) * (B^T d)] for a tile d and weights g; float64.

    The last point is infinity.
    """
    points = np.array(POINTS)
    finite = N - 1
    a_t = np.zeros((M, N))
    a_t[:, :finite] = points[None, :] ** np.arange(M)[:, None]
    a_t[M - 1, finite] = 1
    g, b_t = np.zeros((N, R)), np.zeros((N, N))
    for j, p in enumerate(points):
        others = np.delete(points, j)
        g[j] = p ** np.arange(R) / np.prod(p - others)
        b_t[j, :finite] = polynomial.polyfromroots(others)
    g[finite, R - 1] = 1
    b_t[finite] = polynomial.polyfromroots(points)
    return a_t, g, b_t


def use_winograd(editor: Editor) -> int:
    """Rewrite each 3x3 convolution of many channels whose image is a whole number of tiles; how many there were."""
    count = 0
    for node in editor.nodes("Conv"):
        w = editor.constant(node.input[1])
        sizes = editor.sizes(node.input[0])
        if w is None or sizes is None or not _fits(node, w, sizes):
            continue
        bias = editor.constant(node.input[2]) if len(node.input) > 2 else None
        if len(node.input) > 2 and bias is None:
            continue
        editor.replace([node], _nodes(editor, node, w, bias, sizes))
        count += 1
    return count


def _fits(node: onnx.NodeProto, w: Array, sizes: tuple[int, ...]) -> bool:
    return (
        w.shape[2:] == (R, R)
        and w.dtype == np.float32
        and min(w.shape[:2]) >= FEWEST_CHANNELS
        and len(sizes) == 3
        and all(size % M == 0 and size >= SMALLEST_SIDE for size in sizes[1:])
        and attribute(node, "group", 1) == 1
        and {*attribute(node, "strides", [1])} == {1} == {*attribute(node, "dilations", [1])}
        and attribute(node, "pads", [0] * 4) == [1] * 4
        and attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    )


def _nodes(
    editor: Editor, node: onnx.NodeProto, w: Array, bias: Array | None, sizes: tuple[int, ...]
) -> list[onnx.NodeProto]:
    a_t, g, b_t = transforms()
    (o, i), (height, width) = w.shape[:2], sizes[1:]
    th, tw, points = height // M, width // M, N * N
    u = np.einsum("ak,oikl,bl->aboi", g, w.astype(np.float64), g)  # (N, N, O, I)
    stem, new = node.output[0], []

    def step(operator: str, inputs: list[str], attributes: dict[str, int | list[int]]) -> str:
        name = editor.fresh(f"{stem}_winograd")
        node = helper.make_node(operator, inputs, [name], name)
        node.attribute.extend(helper.make_attribute(key, attributes[key]) for key in attributes)
        new.append(node)
        return name

    def reshape(value: str, *shape: int) -> str:
        return step("Reshape", [value, editor.add_constant(f"{stem}_shape", np.array(shape))], {})

    def weight(values: Array) -> str:
        return editor.add_constant(f"{node.input[1]}_winograd", values.astype(np.float32))

    tiles = np.einsum("ai,bj->abij", b_t, b_t).reshape(points, 1, N, N)
    x = reshape(node.input[0], -1, 1, height, width)  # (B I, 1, H, W)
    x = step(
        "Conv", [x, weight(tiles)], {"kernel_shape": [N, N], "strides": [M, M], "pads": [1] * 4}
    )
    x = reshape(x, -1, i, points, th * tw)
    x = step("Transpose", [x], {"perm": [0, 2, 1, 3]})  # (B, N N, I, tiles)
    x = reshape(x, -1, points * i, th, tw)
    product = [x, weight(u.reshape(points * o, i, 1, 1))]
    if bias is not None:
        product.append(weight(np.outer(_spread(a_t), bias).reshape(-1)))
    x = step("Conv", product, {"kernel_shape": [1, 1], "group": points})  # (B, N N O, tiles)
    x = reshape(x, -1, points, o, th * tw)
    x = step("Transpose", [x], {"perm": [0, 2, 1, 3]})
    x = reshape(x, -1, points, th, tw)
    pixels = np.einsum("xa,yb->abxy", a_t, a_t).reshape(points, 1, M, M)
    x = step("ConvTranspose", [x, weight(pixels)], {"kernel_shape": [M, M], "strides": [M, M]})
    shape = editor.add_constant(f"{stem}_shape", np.array([-1, o, height, width]))
    new.append(helper.make_node("Reshape", [x, shape], [stem], name=node.name))
    return new


def _spread(a_t: Array) -> Array:
    """What to add at each point so that 1 is added to each pixel: A^T c = 1 along both axes; (N N,)."""
    c = np.linalg.lstsq(a_t, np.ones(M), rcond=None)[0]
    return np.outer(c, c).reshape(-1)
