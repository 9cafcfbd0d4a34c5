"""The latent search on linear graphs, whose best z is known in closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.random import RandomState
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gan.runtime import Generator, InputError, latent_search, search
from gan.runtime.images import dequantize, quantize

from .conftest import TYPES, seal

Array = NDArray[Any]
LATENT, SIDE, NUMBERS, CLASSES = 3, 4, 5, ("young", "old")
PIXELS = SIDE * SIDE
FLOATS: dict[str, Any] = {"shape": [1, SIDE, SIDE], "dtype": "float32", "range": [-1, 1]}
BYTES: dict[str, Any] = {"shape": [SIDE, SIDE, 1], "dtype": "uint8", "range": [0, 255]}
IMAGE: dict[str, Any] = {"name": "image", "kind": "image", **FLOATS}
CODE: dict[str, Any] = {"name": "z", "shape": [LATENT], "kind": "latent", "dtype": "float32"}
DRAWN: dict[str, Any] = {**CODE, "draw": {"kind": "normal", "stream": 0}}
LABEL: dict[str, Any] = {
    "name": "label", "shape": [], "kind": "label", "dtype": "int64", "range": [0, 1],
    "draw": {"kind": "choice", "stream": 1},
}  # fmt: skip

rng = RandomState(5)
A = (0.2 * rng.randn(LATENT, PIXELS)).astype(np.float32)  # an image is z A + L of its label
L = (0.1 * rng.randn(len(CLASSES), PIXELS)).astype(np.float32)
B = (0.1 * rng.randn(PIXELS, LATENT)).astype(np.float32)  # the encoder, which is a poor one
C = (0.5 * rng.randn(PIXELS, NUMBERS)).astype(np.float32)  # the embedder
TRUE = np.array([[0.5, -1.0, 0.8], [-0.3, 0.4, 1.2]], np.float32)
LABELS = np.array([1, 0])


def constant(name: str, values: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def model(
    inputs: list[dict[str, Any]],
    output: dict[str, Any],
    matrix: Array,
    *,
    rows: Array | None = None,
    checkpoint: str = "one",
) -> bytes:
    """The first input, flattened, times a matrix, plus the row of the label; images as the fields say."""
    first = inputs[0]
    nodes, known = [], [constant("matrix", matrix), constant("flat", np.array([-1, len(matrix)]))]
    x = first["name"]
    if first["dtype"] == "uint8":
        known += [constant("half", np.float32(127.5)), constant("one", np.float32(1))]
        nodes += [
            helper.make_node("Cast", [x], ["x_cast"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["x_cast"], ["x_planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Div", ["x_planes", "half"], ["x_scaled"]),
            helper.make_node("Sub", ["x_scaled", "one"], ["x_float"]),
        ]
        x = "x_float"
    nodes += [
        helper.make_node("Reshape", [x, "flat"], ["flattened"]),
        helper.make_node("MatMul", ["flattened", "matrix"], ["product"]),
    ]
    y = "product"
    if rows is not None:
        known.append(constant("rows", rows))
        nodes += [
            helper.make_node("Gather", ["rows", "label"], ["row"]),
            helper.make_node("Add", ["product", "row"], ["sum"]),
        ]
        y = "sum"
    if output["kind"] == "image":
        known.append(constant("planes", np.array([-1, 1, SIDE, SIDE])))
        nodes.append(helper.make_node("Reshape", [y, "planes"], ["y_planes"]))
        y = "y_planes"
    if output["dtype"] == "uint8":
        known += [constant("middle", np.float32(127.5)), constant("low", np.float32(0)),
                  constant("high", np.float32(255))]  # fmt: skip
        nodes += [
            helper.make_node("Mul", [y, "middle"], ["y_scaled"]),
            helper.make_node("Add", ["y_scaled", "middle"], ["y_shifted"]),
            helper.make_node("Clip", ["y_shifted", "low", "high"], ["y_clipped"]),
            helper.make_node("Round", ["y_clipped"], ["y_rounded"]),
            helper.make_node("Cast", ["y_rounded"], ["y_bytes"], to=TensorProto.UINT8),
            helper.make_node("Transpose", ["y_bytes"], [output["name"]], perm=[0, 2, 3, 1]),
        ]
    else:
        nodes.append(helper.make_node("Identity", [y], [output["name"]]))
    given, made = (
        [
            helper.make_tensor_value_info(f["name"], TYPES[f["dtype"]], ["batch", *f["shape"]])
            for f in fields
        ]
        for fields in (inputs, [output])
    )
    classes = list(CLASSES) if rows is not None else []
    signature = {"format": 1, "inputs": inputs, "outputs": [output], "classes": classes}
    graph = helper.make_graph(nodes, "linear", given, made, known)
    return seal(graph, signature, checkpoint=checkpoint)


def graphs(
    given: dict[str, Any] = FLOATS, made: dict[str, Any] = FLOATS, *, labels: bool = True
) -> tuple[Generator, Generator, Generator]:
    """Encoder, generator, embedder. given: how images are taken; made: how they are generated."""
    image, face = {**IMAGE, **given}, {"name": "face", "kind": "image", **made}
    embedding = {
        "name": "embedding", "shape": [NUMBERS], "kind": "embedding", "dtype": "float32",
    }  # fmt: skip
    inputs = [DRAWN, LABEL] if labels else [DRAWN]
    encode, generate, embed = (
        model([image], CODE, B),
        model(inputs, face, A, rows=L if labels else None),
        model([image], embedding, C),
    )
    return (
        Generator(encode, device="cpu", threads=1),
        Generator(generate, device="cpu", threads=1),
        Generator(embed, device="cpu", threads=1),
    )


def truths(z: Array = TRUE, labels: Array | None = LABELS) -> Array:
    """Images that the generator can make exactly: float32 [N, 1, SIDE, SIDE]."""
    flat = z @ A + (0 if labels is None else L[labels])
    assert np.abs(flat).max() < 1
    return flat.reshape(-1, 1, SIDE, SIDE).astype(np.float32)


def test_the_search_finds_the_z_that_made_an_image() -> None:
    found = search(*graphs(), truths(), label=LABELS.tolist(), steps=600, rate=0.05, h=0.05)
    assert found.z.dtype == np.float32 and found.z.shape == TRUE.shape
    np.testing.assert_allclose(found.z, TRUE, atol=0.02)
    assert (found.loss < 1e-3 * found.start).all()


def test_by_the_embedding_alone_it_is_the_least_squares_solution() -> None:
    """An image that the generator cannot make: z* minimises |C (z A + l - x)|^2, which has a closed form."""
    x = (0.2 * RandomState(1).randn(1, PIXELS)).astype(np.float32)
    wanted, *_ = np.linalg.lstsq((A @ C).T, ((x - L[0]) @ C).T, rcond=None)
    image = x.reshape(1, 1, SIDE, SIDE)
    found = search(*graphs(), image, label="young", steps=900, pixels=0.0, h=0.05)
    np.testing.assert_allclose(found.z, wanted.T, atol=0.03)
    left = ((found.z @ A + L[0] - x) @ C) ** 2
    np.testing.assert_allclose(found.loss, left.sum(1), rtol=1e-3)


def test_the_losses_are_the_formula() -> None:
    encode, generate, embed = graphs()
    x = truths()
    found = search(
        encode, generate, embed, x, label=LABELS.tolist(), steps=1, rate=1e-9,
        identity=3.0, pixels=2.0, prior=0.25,
    )  # fmt: skip
    z = x.reshape(2, PIXELS) @ B
    made = z @ A + L[LABELS] - x.reshape(2, PIXELS)
    loss = 3.0 * ((made @ C) ** 2).sum(1) + 2.0 * np.abs(made).mean(1) + 0.25 * (z**2).mean(1)
    np.testing.assert_allclose(found.start, loss, rtol=1e-5)
    np.testing.assert_allclose(found.z, z, atol=1e-6)


@pytest.mark.parametrize("given", [FLOATS, BYTES], ids=["floats in", "bytes in"])
@pytest.mark.parametrize("made", [FLOATS, BYTES], ids=["floats out", "bytes out"])
def test_bytes_and_floats_meet(given: dict[str, Any], made: dict[str, Any]) -> None:
    x = quantize(truths()) if given is BYTES else dequantize(quantize(truths()))
    found = search(
        *graphs(given, made), np.ascontiguousarray(x), label=LABELS.tolist(), steps=400, h=0.1
    )
    np.testing.assert_allclose(found.z, TRUE, atol=0.06)  # a byte is 0.008, and z times 0.2


def test_each_image_is_searched_alone_and_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:

    three, x = graphs(), truths()
    both = search(*three, x, label=LABELS.tolist(), steps=20)
    for i in range(2):
        alone = search(*three, x[i : i + 1], label=int(LABELS[i]), steps=20)
        np.testing.assert_allclose(alone.z, both.z[i : i + 1], atol=1e-6)
    monkeypatch.setattr(latent_search, "ROWS", 1)  # one image at a time
    np.testing.assert_allclose(search(*three, x, label=[1, 0], steps=20).z, both.z, atol=1e-6)
    assert np.array_equal(search(*three, x, label=[1, 0], steps=20).loss, both.loss)


def test_the_best_that_was_seen_is_kept() -> None:
    """A rate so large that the search only makes it worse: the encoder's z stays."""
    found = search(*graphs(), truths(), label=LABELS.tolist(), steps=5, rate=50.0)
    assert (found.loss <= found.start).all()
    np.testing.assert_allclose(found.z, truths().reshape(2, PIXELS) @ B, atol=1e-6)


def test_a_prior_draws_z_to_0() -> None:
    near, far = (
        search(*graphs(), truths(), label=[1, 0], steps=300, prior=p).z for p in (100.0, 0.0)
    )
    assert np.abs(near).max() < 0.1 < np.abs(far).max()


def test_without_classes_no_label_is_given() -> None:
    three, x = graphs(labels=False), truths(labels=None)
    np.testing.assert_allclose(search(*three, x, steps=600, h=0.05).z, TRUE, atol=0.02)
    with pytest.raises(InputError, match="without classes"):
        search(*three, x, label=0)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no label": ({"label": None}, "label is missing"),
    "unknown label": ({"label": "ancient"}, "ancient"),
    "a label too many": ({"label": [0, 1, 1]}, "3"),
    "no steps": ({"steps": 0}, "number of steps"),
    "steps of a half": ({"steps": 0.5}, "number of steps"),
    "a rate of 0": ({"rate": 0.0}, "rate"),
    "a rate that is none": ({"rate": float("nan")}, "rate"),
    "h below 0": ({"h": -0.1}, "The h was refused"),
    "an h that is true": ({"h": True}, "The h was refused"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused(case: str) -> None:
    settings, told = BAD[case]
    with pytest.raises(InputError, match=told):
        search(*graphs(), truths(), **{"label": [1, 0], **settings})


@pytest.mark.parametrize(
    "images", [np.zeros((0, 1, SIDE, SIDE), np.float32), np.zeros(3, np.float32), "face.png", None]
)
def test_what_is_no_batch_of_images_is_refused(images: Any) -> None:
    with pytest.raises(InputError, match="images were refused"):
        search(*graphs(), images, label=0)


def test_images_that_the_encoder_does_not_take_are_refused() -> None:
    with pytest.raises(InputError, match="Input image"):
        search(*graphs(), np.zeros((1, 1, 5, 5), np.float32), label=0)


@pytest.mark.parametrize("place", range(3))
def test_a_graph_of_another_checkpoint_is_refused(place: int) -> None:
    encode, generate, embed = graphs()
    embedding = {"name": "e", "shape": [NUMBERS], "kind": "embedding", "dtype": "float32"}
    face = {"name": "face", "kind": "image", **FLOATS}
    other = Generator(
        (
            model([IMAGE], CODE, B, checkpoint="two"),
            model([DRAWN, LABEL], face, A, rows=L, checkpoint="two"),
            model([IMAGE], embedding, C, checkpoint="two"),
        )[place],
        device="cpu",
    )
    three = [other if i == place else one for i, one in enumerate((encode, generate, embed))]
    with pytest.raises(InputError, match="not of one checkpoint"):
        search(three[0], three[1], three[2], truths(), label=0)


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 2, 1), (0, 0, 2), (0, 1, 1)])
def test_graphs_in_another_role_are_refused(order: tuple[int, int, int]) -> None:
    three = graphs()
    with pytest.raises(InputError, match=r"cannot (encode|generate|embed)"):
        search(three[order[0]], three[order[1]], three[order[2]], truths(), label=0)


def test_an_encoder_of_another_size_is_refused() -> None:
    _, generate, embed = graphs()
    longer = {**CODE, "shape": [LATENT + 1]}
    encode = Generator(model([IMAGE], longer, np.concatenate([B, B[:, :1]], 1)), device="cpu")
    with pytest.raises(InputError, match="do not fit"):
        search(encode, generate, embed, truths(), label=0)


def test_found_is_a_record() -> None:
    found: Callable[..., Any] = search
    assert [f.name for f in dataclasses.fields(found(*graphs(), truths(), label=0, steps=1))] == [
        "z", "start", "loss",
    ]  # fmt: skip
