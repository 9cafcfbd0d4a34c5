"""What tests of rewrites share: the graph after one, and whether it makes what it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from gan.export import editing
from gan.export.editing import Editor

from .onnx_graphs import copied, model, normal, run

Rewrite = Callable[[Editor], int]
BATCHES = (1, 2, 5)


def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


def rewritten(made: onnx.ModelProto, rewrite: Rewrite, count: int = 1) -> onnx.ModelProto:
    own = copied(made)
    assert editing.rewrite(own, rewrite) == count
    return own


def check_equal(
    made: onnx.ModelProto, other: onnx.ModelProto, *, tolerance: float = 2e-6, **sizes: int
) -> None:
    """The same outputs at several batch sizes, and at other sizes of dynamic axes."""
    for batch in BATCHES:
        inputs = {}
        for seed, value in enumerate(made.graph.input):
            dims = [d.dim_value or sizes.get(d.dim_param, batch) for d in value.type.tensor_type.shape.dim]  # fmt: skip
            inputs[value.name] = normal(*dims, seed=seed)
        for a, b in zip(run(made, **inputs), run(other, **inputs), strict=True):
            assert a.shape == b.shape and np.ptp(a) > 0.1
            np.testing.assert_allclose(a, b, atol=tolerance * max(1, float(np.abs(a).max())))


def check_left(made: onnx.ModelProto, rewrite: Rewrite) -> None:
    before = made.SerializeToString()
    assert rewrite(Editor(made)) == 0 and made.SerializeToString() == before


def resized(
    *, scale: float = 2, mode: str = "linear", kernel: int = 1, i: int = 4, o: int = 3, **more: Any
) -> onnx.ModelProto:
    constants = {
        "scales": np.array([1, 1, scale, scale], np.float32), "w": normal(o, i, kernel, kernel), "b": normal(o),
    }  # fmt: skip
    way = {"coordinate_transformation_mode": "half_pixel"} | more
    if mode == "nearest":
        way = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} | more
    nodes = [
        node("Resize", ["x", "", "scales"], "u", mode=mode, **way),
        node("Conv", ["u", "w", "b"], "y", pads=[kernel // 2] * 4),
    ]
    return model(nodes, constants, {"x": ["batch", i, "h", "w"]}, ["y"])
