"""Lint, clean-up, axis check, heads and metadata, on small graphs made by hand."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gan.export import graph as graphs
from gan.runtime import Draw, ExportError, Field, Signature

Z = Field("z", (3,), draw=Draw("normal"))
IMAGE = Field("image", (3, 1, 1), "image", range=(-1.0, 1.0))


def model_of(
    *nodes: onnx.NodeProto, batch: int | str = "batch", domain: str = ""
) -> onnx.ModelProto:
    """z [batch, 3] -> image_float [batch, 3, 1, 1], the given nodes between `x` and `y`."""
    shape = numpy_helper.from_array(np.array([-1, 3, 1, 1], np.int64), "shape")
    inside = nodes or (helper.make_node("Identity", ["x"], ["y"]),)
    whole = [
        helper.make_node("Reshape", ["z", "shape"], ["x"]),
        *inside,
        helper.make_node("Identity", ["y"], ["image_float"]),
    ]
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch, 3])
    image = helper.make_tensor_value_info("image_float", TensorProto.FLOAT, [batch, 3, 1, 1])
    graph = helper.make_graph(whole, "any", [z], [image], [shape])
    opsets = [helper.make_opsetid("", 20)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="someone")


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("RandomNormalLike", ["x"], ["y"]), "random numbers"),
        (helper.make_node("Bernoulli", ["x"], ["y"]), "random numbers"),
        (helper.make_node("Identity", ["x"], ["y"], domain="com.acme"), "foreign domain"),
        (helper.make_node("Dropout", ["x", "", "unknown"], ["y"]), "dropout"),
        (
            helper.make_node(
                "BatchNormalization", ["x", "a", "b", "c", "d"], ["y"], training_mode=1
            ),
            "batch norm",
        ),
    ],
)
def test_lint_names_what_no_generator_may_hold(node: onnx.NodeProto, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        graphs.lint(model_of(node))


def test_lint_looks_into_subgraphs() -> None:
    inner = helper.make_graph(
        [helper.make_node("RandomUniform", [], ["r"], shape=[1])], "inner", [], []
    )
    with pytest.raises(ExportError, match="random numbers"):
        graphs.lint(
            model_of(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner))
        )


def test_lint_lets_a_sound_graph_pass() -> None:
    graphs.lint(model_of())
    idle = helper.make_node("BatchNormalization", ["x", "a", "b", "c", "d"], ["y"])
    graphs.lint(model_of(idle, helper.make_node("Dropout", ["y"], ["w"])))


def test_local_functions_are_refused() -> None:
    model = model_of()
    body = [helper.make_node("Identity", ["a"], ["b"])]
    opset = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("own", "f", ["a"], ["b"], body, opset))
    with pytest.raises(ExportError, match="local functions"):
        graphs.lint(model)


def test_a_fixed_batch_is_refused() -> None:
    graphs.check_batch_axis(model_of())
    with pytest.raises(ExportError, match="fixed batch size"):
        graphs.check_batch_axis(model_of(batch=4))


def test_a_batch_axis_that_leaked_is_refused() -> None:
    model = model_of()
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "2*batch"
    with pytest.raises(ExportError, match="leaked"):
        graphs.check_batch_axis(model)


def test_cleaning_leaves_no_trace_of_place_or_tool() -> None:
    model = model_of()
    model.graph.node[0].metadata_props.add(key="stack_trace", value="/home/someone/net.py:3")
    model.graph.node[0].doc_string = "/home/someone"
    model.graph.metadata_props.add(key="a", value="/home/someone")
    model.graph.initializer[0].doc_string = "/home/someone"
    model.metadata_props.add(key="path", value="/home/someone")
    graphs.clean(model)
    assert b"someone" not in graphs.to_bytes(model)


def test_the_uint8_head_is_the_formula_in_float64() -> None:
    model = model_of()
    signature = graphs.attach_heads(model, Signature((Z,), (IMAGE,)), "uint8")
    graphs.check(model)
    assert signature.main.shape == (1, 1, 3) and signature.main.dtype == "uint8"
    ties = (np.arange(256) + 0.5 - 127.5) / 127.5  # halves of a step, where rounding shows
    x = np.concatenate([np.linspace(-1.5, 1.5, 1001), ties, [np.inf, -np.inf]]).astype(np.float32)
    z = np.resize(x, (len(x) // 3, 3))
    session = onnxruntime.InferenceSession(graphs.to_bytes(model))
    (seen,) = session.run(None, {"z": z})
    scaled = z * np.float32(127.5) + np.float32(127.5)
    expected = [
        [min(max(round(float(v)), 0), 255) if abs(v) < 1e9 else 255 * (v > 0) for v in row]
        for row in scaled
    ]
    assert seen.dtype == np.uint8 and seen.shape == (len(z), 1, 1, 3)
    assert seen[:, 0, 0].tolist() == expected


def test_the_float_head_clips() -> None:
    model = model_of()
    signature = graphs.attach_heads(model, Signature((Z,), (IMAGE,)), "float")
    assert signature.main == IMAGE
    session = onnxruntime.InferenceSession(graphs.to_bytes(model))
    (seen,) = session.run(None, {"z": np.array([[-2, 0.5, 3]], np.float32)})
    assert seen.ravel().tolist() == [-1.0, 0.5, 1.0]


def test_an_output_that_is_no_image_keeps_its_values() -> None:
    model = model_of()
    points = Field("image", (3, 1, 1), "points")
    assert graphs.attach_heads(model, Signature((Z,), (points,)), "uint8").main == points
    session = onnxruntime.InferenceSession(graphs.to_bytes(model))
    (seen,) = session.run(None, {"z": np.array([[-2, 0.5, 3]], np.float32)})
    assert seen.ravel().tolist() == [-2.0, 0.5, 3.0]


def test_metadata_replaces_metadata_and_leaves_the_graph() -> None:
    model = model_of()
    before = model.graph.SerializeToString(deterministic=True)
    graphs.embed(model, {"b": {"x": 1}, "a": "text"})
    graphs.embed(model, {"b": {"x": 2}, "a": "text"})
    props = {entry.key: entry.value for entry in model.metadata_props}
    assert props["gan.a"] == "text" and json.loads(props["gan.b"]) == {"x": 2} and len(props) == 2
    assert model.graph.SerializeToString(deterministic=True) == before


def test_a_broken_graph_fails_the_full_check() -> None:
    with pytest.raises(ExportError, match="onnx refused"):
        graphs.check(model_of(helper.make_node("Identity", ["nowhere"], ["y"])))
