"""The editor: what it knows of a graph, and that pieces are exchanged in order and leave nothing behind."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import helper

from gan.export.editing import SAMPLES, Editor, attribute

from .onnx_graphs import model, normal, operators, run


def chain() -> Editor:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["a"], name="first"),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    return Editor(
        model(nodes, {"two": np.float32(2), "unused": np.ones(3)}, {"x": ["batch", 4, 5]}, ["y"])
    )


def test_it_knows_who_makes_a_value_who_takes_it_and_its_shape() -> None:
    editor = chain()
    assert editor.producer("a") == next(editor.nodes("Mul")) and editor.producer("x") is None
    assert [node.op_type for node in editor.consumers("a")] == ["Neg", "Add"]
    assert editor.only_consumer("a") is None and editor.only_consumer("b") is not None
    assert editor.only_consumer("y") is None and editor.is_output("y")
    assert editor.shape("b") == ("batch", 4, 5) and editor.sizes("b") == (4, 5)
    assert editor.shape("two") == () and editor.shape("nothing") is None
    assert editor.sizes("nothing") is None
    constant = editor.constant("two")
    assert constant is not None and constant == 2 and editor.constant("a") is None


def test_an_output_that_is_also_taken_has_no_only_consumer() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    editor = Editor(model(nodes, {}, {"x": ["batch", 2]}, ["a", "y"]))
    assert len(editor.consumers("a")) == 1 and editor.only_consumer("a") is None


def test_new_nodes_stand_where_the_last_old_one_stood_and_unused_constants_go() -> None:
    editor = chain()
    (mul,), (neg,) = editor.nodes("Mul"), editor.nodes("Neg")
    three = editor.add_constant("two", np.array(3, np.float32))
    assert three == "two_2" and editor.fresh("a") == "a_2" and editor.fresh("first") == "first_2"
    editor.replace([mul], [helper.make_node("Mul", ["x", three], ["a"])])
    assert editor.producer("a") is not mul and list(editor.nodes("Mul")) == [editor.producer("a")]
    editor.replace([neg], [helper.make_node("Abs", ["a"], ["b"])])
    editor.close()
    graph = editor.graph
    assert [node.op_type for node in graph.node] == ["Mul", "Abs", "Add"]
    assert [tensor.name for tensor in graph.initializer] == ["two_2"]


def test_nodes_that_were_replaced_meanwhile_are_passed_over() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    editor = Editor(model(nodes, {}, {"x": ["batch", 2]}, ["y"]))
    seen = 0
    for node in editor.nodes("Neg"):
        seen += 1
        both = [node, editor.consumers(node.output[0])[0]]
        editor.replace(both, [helper.make_node("Identity", ["x"], ["y"])])
    editor.close()
    assert seen == 1 and [node.op_type for node in editor.graph.node] == ["Identity"]


def test_what_only_a_subgraph_takes_stays() -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["x", "two"], ["z"])], "inner", [], [helper.make_empty_tensor_value_info("z")]
    )  # fmt: skip
    node = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
    constants = {"two": np.array([2], np.float32), "yes": np.array(True), "unused": np.ones(1)}
    made = model([node], constants, {"x": ["batch"]}, ["y"])
    Editor(made).close()
    assert sorted(tensor.name for tensor in made.graph.initializer) == ["two", "yes"]
    assert operators(made) == ["If"]
    np.testing.assert_array_equal(run(made, x=np.array([1, 2], np.float32))[0], [3, 4])


@pytest.mark.parametrize(
    ("name", "expected"), [("axis", 1), ("mode", "linear"), ("pads", [1, 2]), ("other", None)]
)
def test_attributes_come_as_numbers_lists_and_text(name: str, expected: object) -> None:
    node = helper.make_node("Any", [], [], axis=1, mode="linear", pads=[1, 2])
    assert attribute(node, name) == expected
    assert attribute(node, "other", 7) == 7


def test_sizes_follow_the_dynamic_axes_of_the_inputs() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Mul", ["c", "two"], ["d"]),
        helper.make_node("NonZero", ["d"], ["e"]),
    ]
    constants = {"w": normal(4, 3, 4, 4), "two": np.float32(2)}
    made = model(nodes, constants, {"x": ["batch", 3, "4*h", "2*w"]}, ["d"])
    editor = Editor(made)
    found = editor.some_sizes("x")
    assert len(found) == SAMPLES and found[0] == (3, 4, 2)
    assert math.gcd(*(h for _, h, _ in found)) == 4 and math.gcd(*(w for _, _, w in found)) == 2
    assert math.gcd(*(h // 4 + w // 2 for _, h, w in found)) == 1  # each axis by itself
    assert editor.some_sizes("d") == [(4, h // 2, w // 2) for _, h, w in found]
    assert editor.some_sizes("e") == editor.some_sizes("nothing") == []
    assert editor.some_sizes("w") == [(3, 4, 4)]


def test_axes_that_no_signature_named_are_not_known_to_be_multiples() -> None:
    made = model([helper.make_node("Neg", ["x"], ["y"])], {}, {"x": ["batch", 3, "h*4"]}, ["y"])
    assert math.gcd(*(h for _, h in Editor(made).some_sizes("y"))) == 1


def test_new_names_are_those_of_no_input_and_of_no_subgraph() -> None:
    inner = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["within"])], "g", [], [onnx.ValueInfoProto(name="within")]
    )
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    made = model(nodes, {"c": np.array(True)}, {"x": ["batch", 2]}, ["y"])
    editor = Editor(made)
    assert editor.fresh("x") == "x_2" and editor.fresh("within") == "within_2"


def test_a_constant_that_a_caller_may_replace_is_none() -> None:
    made = model([helper.make_node("Mul", ["x", "w"], ["y"])], {"w": np.ones(2, np.float32)}, {"x": ["batch", 2], "w": [2]}, ["y"])  # fmt: skip
    editor = Editor(made)
    assert editor.constant("w") is None and not editor.is_constant("w")
    editor.close()
    assert [tensor.name for tensor in made.graph.initializer] == ["w"]
