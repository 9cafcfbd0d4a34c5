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
        (helper.make_node("BlackmanWindow", ["x"], ["y"]), "the runtime does not take"),
        (helper.make_node("Scan", ["x"], ["y"]), "a loop.*Unroll it"),
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


# Image and mask inputs.

PICTURE = Field("picture", (3, "h", "w"), "image", range=(-1.0, 1.0))
HOLE = Field("hole", (1, "h", "w"), "mask", range=(0.0, 1.0))
LABEL = Field("label", (), "label", "int64", (0.0, 4.0), Draw("choice", 1))
SEEN = Field("seen", (3, "h", "w"), "points")
TOLD = Field("told", (), "points")
GIVEN = Signature((PICTURE, HOLE, LABEL), (SEEN, TOLD), radius=4, least=2)


def given_model() -> onnx.ModelProto:
    """seen = picture + hole, picture also read by the branches of an If; told = label. Heads are in place."""
    branches = [
        helper.make_graph(
            [helper.make_node("Add", ["picture", "hole"], [out])],
            out, [], [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        )
        for out in ("then", "other")
    ]  # fmt: skip
    nodes = [
        helper.make_node("If", ["yes"], ["sum"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Sub", ["sum", "picture"], ["rest"]),
        helper.make_node("Add", ["rest", "picture"], ["seen"]),
        helper.make_node("Cast", ["label"], ["told"], to=TensorProto.FLOAT),
    ]
    kinds = {"picture": TensorProto.FLOAT, "hole": TensorProto.FLOAT, "label": TensorProto.INT64}
    inputs = [
        helper.make_tensor_value_info(f.name, kinds[f.name], ["batch", *f.shape])
        for f in GIVEN.inputs
    ]
    outputs = [
        helper.make_tensor_value_info(f.name, TensorProto.FLOAT, ["batch", *f.shape])
        for f in GIVEN.outputs
    ]
    yes = numpy_helper.from_array(np.array(True), "yes")
    graph = helper.make_graph(nodes, "given", inputs, outputs, [yes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def ran(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return [np.asarray(output) for output in session.run(None, inputs)]


def test_the_uint8_foot_is_x_over_127_5_minus_1_and_of_a_mask_x_over_255_in_float32() -> None:
    model = given_model()
    graphs.attach_feet(model, GIVEN, "uint8")
    graphs.check(model)
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    picture = np.stack([values, values[:, ::-1], values[:, :, ::-1]], 3)
    black = np.zeros((1, 16, 16, 1), np.uint8)
    label = np.array([3])
    seen, told = ran(model, picture=picture, hole=black, label=label)
    one = picture.astype(np.float32) / np.float32(127.5) - np.float32(1)
    assert one.dtype == np.float32 and seen.shape == (1, 3, 16, 16)
    assert np.array_equal(seen, ((one - one) + one).transpose(0, 3, 1, 2))  # bit for bit
    assert told == 3.0
    hole = values[..., None]
    grey = np.full((1, 16, 16, 3), 0, np.uint8)
    seen, _ = ran(model, picture=grey, hole=hole, label=label)
    mask = hole.astype(np.float32) / np.float32(255)
    expected = ((np.float32(-1) + mask) - np.float32(-1)) + np.float32(-1)
    assert np.array_equal(seen, np.repeat(expected.transpose(0, 3, 1, 2), 3, 1))


def test_the_result_of_feet_takes_bytes_by_the_same_names_and_labels_as_before() -> None:
    model = given_model()
    signature = graphs.attach_feet(model, GIVEN, "uint8")
    picture, hole, label = signature.inputs
    assert (picture.name, picture.shape, picture.dtype) == ("picture", ("h", "w", 3), "uint8")
    assert (hole.name, hole.shape, hole.dtype) == ("hole", ("h", "w", 1), "uint8")
    assert picture.range == hole.range == (0.0, 255.0)
    assert (picture.kind, hole.kind) == ("image", "mask") and label == LABEL
    assert (signature.outputs, signature.radius, signature.least) == (GIVEN.outputs, 4, 2)
    assert [value.name for value in model.graph.input] == ["picture", "hole", "label"]
    types = [value.type.tensor_type for value in model.graph.input]
    assert [t.elem_type for t in types] == [TensorProto.UINT8, TensorProto.UINT8, TensorProto.INT64]
    names = [[d.dim_param or d.dim_value for d in t.shape.dim] for t in types]
    assert names == [["batch", "h", "w", 3], ["batch", "h", "w", 1], ["batch"]]


def test_float_inputs_stay_as_they_are() -> None:
    model, before = given_model(), given_model()
    signature = graphs.attach_feet(model, GIVEN, "float")
    assert signature == GIVEN and model.graph.node == before.graph.node
    graphs.check(model)
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 3, 2, 2)
    seen, _ = ran(model, picture=x, hole=np.zeros((1, 1, 2, 2), np.float32), label=np.array([0]))
    assert np.array_equal(seen, x)


def test_heads_and_feet_fit_though_an_output_is_an_input_itself() -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "h", "w"])
    graph = helper.make_graph([], "through", [image], [image])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    fields = [Field(n, (3, "h", "w"), "image", range=(-1.0, 1.0)) for n in ("image", "same")]
    signature = graphs.attach_heads(model, Signature((fields[0],), (fields[1],)), "uint8")
    signature = graphs.attach_feet(model, signature, "uint8")
    graphs.check(model)
    picture = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    assert np.array_equal(ran(model, image=picture)[0], picture)  # all 256 bytes go through
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    assert np.array_equal(ran(model, image=every)[0], every)
    assert [f.shape for f in (*signature.inputs, *signature.outputs)] == [("h", "w", 3)] * 2


def test_a_graph_that_the_runtime_would_refuse_is_an_error_of_the_export() -> None:
    graphs.check_taken(model_of().SerializeToString())
    odd = model_of(helper.make_node("Einsum", ["y"], ["q"], equation="i..->i"))
    with pytest.raises(ExportError, match=r"does not take the graph.*the equation 'i\.\."):
        graphs.check_taken(odd.SerializeToString())
