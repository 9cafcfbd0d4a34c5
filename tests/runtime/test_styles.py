"""Styles over two graphs of one checkpoint: mixes and ways in w are what a plain session makes of the same styles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.random import RandomState
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gan.runtime import Generator, InputError, interpolate, mix
from gan.runtime.styles import FRAMES, styles_of, walk

from .conftest import (
    CLASSES,
    TYPES,
    bare_run,
    edited,
    reference_inputs,
    seal,
    tiny_signature,
    watch_runs,
    with_metadata,
)

Array = NDArray[Any]
LAYERS, STYLE, LAST = 4, 3, 2**64 - 1
WAYS: tuple[Callable[..., Any], ...] = (walk, interpolate)
EXPORT_ALL = "gan export model.pt model.onnx --graph all"


def constant(name: str, values: Any) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def graph_of(nodes: list[Any], signature: dict[str, Any], constants: list[TensorProto]) -> Any:
    inputs, outputs = (
        [
            helper.make_tensor_value_info(f["name"], TYPES[f["dtype"]], ["batch", *f["shape"]])
            for f in signature[side]
        ]
        for side in ("inputs", "outputs")
    )
    return helper.make_graph(nodes, "styles", inputs, outputs, constants)


def mapping_signature(style: int = STYLE) -> dict[str, Any]:
    """z, label and truncation to w."""
    content = tiny_signature(truncation=True)
    content["outputs"] = [{"name": "w", "shape": [style], "kind": "style", "dtype": "float32"}]
    return content


def mapping_model(checkpoint: str | None = "one", style: int = STYLE) -> bytes:
    """w = average + truncation (tanh(z A + embedded) - average)."""
    rng, signature = RandomState(3), mapping_signature(style)
    constants = [
        constant("a", rng.randn(4, style).astype(np.float32)),
        constant("embedding", rng.randn(3, style).astype(np.float32)),
        constant("average", rng.randn(style).astype(np.float32)),
        constant("one", np.array([1])),
    ]
    nodes = [
        helper.make_node("MatMul", ["z", "a"], ["za"]),
        helper.make_node("Gather", ["embedding", "label"], ["embedded"]),
        helper.make_node("Add", ["za", "embedded"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["raw"]),
        helper.make_node("Sub", ["raw", "average"], ["away"]),
        helper.make_node("Unsqueeze", ["truncation", "one"], ["psi"]),
        helper.make_node("Mul", ["away", "psi"], ["scaled"]),
        helper.make_node("Add", ["scaled", "average"], ["w"]),
    ]
    return seal(graph_of(nodes, signature, constants), signature, checkpoint)


def synthesis_signature(layers: int = LAYERS) -> dict[str, Any]:
    """The styles of all layers, and noise that all images share, to an image of 2 x 2 pixels a layer."""
    noise = {"name": "noise", "shape": [layers, 12], "kind": "noise", "dtype": "float32"}
    return {
        "format": 1,
        "inputs": [
            {"name": "styles", "shape": [layers, STYLE], "kind": "style", "dtype": "float32"},
            noise | {"draw": {"kind": "normal", "stream": 16, "shared": True}},
        ],
        "outputs": [
            {"name": "image", "shape": [2 * layers, 2, 3], "kind": "image", "dtype": "uint8",
             "range": [0, 255]},
        ],
        "classes": [],
    }  # fmt: skip


def synthesis_model(checkpoint: str | None = "one", layers: int = LAYERS) -> bytes:
    """Rows 2 l and 2 l + 1 of the image are those of layer l: tanh(w_l B_l + 0.3 noise_l)."""
    signature = synthesis_signature(layers)
    constants = [
        constant("b", RandomState(4).randn(1, layers, STYLE, 12).astype(np.float32)),
        constant("two", np.array([2])),
        constant("strength", np.float32(0.3)),
        constant("half", np.float32(127.5)),
        constant("shape", np.array([-1, 2 * layers, 2, 3])),
    ]
    nodes = [
        helper.make_node("Unsqueeze", ["styles", "two"], ["rows"]),  # (N, layers, 1, style)
        helper.make_node("MatMul", ["rows", "b"], ["product"]),  # (N, layers, 1, 12)
        helper.make_node("Squeeze", ["product", "two"], ["flat"]),
        helper.make_node("Mul", ["noise", "strength"], ["weak"]),
        helper.make_node("Add", ["flat", "weak"], ["x"]),
        helper.make_node("Tanh", ["x"], ["y"]),
        helper.make_node("Mul", ["y", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["shifted"]),
        helper.make_node("Round", ["shifted"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["bytes", "shape"], ["image"]),
    ]
    return seal(graph_of(nodes, signature, constants), signature, checkpoint)


def opened(data: bytes, **options: Any) -> Generator:
    return Generator(data, device="cpu", threads=1, **options)


MAPPING, SYNTHESIS = mapping_model(), synthesis_model()


@pytest.fixture(scope="module")
def pair() -> tuple[Generator, Generator]:
    return opened(MAPPING), opened(SYNTHESIS)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Array]]:
    """The inputs of every run of a graph from here on."""
    seen: list[dict[str, Array]] = []
    watch_runs(monkeypatch, seen.append)
    return seen


# References that know nothing of styles.py: the mapping's graph on image 0 of a seed, the synthesis's on given styles.


def style_of(seed: int, label: int | None = None, truncation: float = 1.0) -> Array:
    inputs = reference_inputs(mapping_signature(), seed, [0])
    if label is not None:
        inputs["label"] = np.array([label])
    inputs["truncation"] = np.array([truncation], np.float32)
    return bare_run(MAPPING, inputs)[0]


def image_of(styles: Sequence[Array]) -> Array:
    """The image of one style a layer."""
    noise = reference_inputs(synthesis_signature(), 0, [0])["noise"]
    return bare_run(SYNTHESIS, {"styles": np.stack(styles)[None], "noise": noise})[0]


# Mixing.


@pytest.mark.parametrize("seed", [0, 3, LAST])
def test_one_style_is_that_of_the_seed_in_all_layers(
    pair: tuple[Generator, Generator], seed: int
) -> None:
    images = mix(*pair, [seed], [])
    assert images.shape == (1, 8, 2, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[0], image_of([style_of(seed)] * LAYERS))


@pytest.mark.parametrize("border", [1, 2, 3])
def test_a_style_begins_at_its_layer(pair: tuple[Generator, Generator], border: int) -> None:
    (image,) = mix(*pair, [3, 9], [border])
    styles = [style_of(3 if layer < border else 9) for layer in range(LAYERS)]
    np.testing.assert_array_equal(image, image_of(styles))
    first, second = (mix(*pair, [seed], [])[0] for seed in (3, 9))
    np.testing.assert_array_equal(image[: 2 * border], first[: 2 * border])
    np.testing.assert_array_equal(image[2 * border :], second[2 * border :])
    assert not np.array_equal(first, second)


def test_as_many_styles_as_layers_are_taken(pair: tuple[Generator, Generator]) -> None:
    (image,) = mix(*pair, [3, 9, 4, 7], [1, 2, 3])
    np.testing.assert_array_equal(image, image_of([style_of(seed) for seed in (3, 9, 4, 7)]))
    (image,) = mix(*pair, (3, 9, 4), (1, 3))
    np.testing.assert_array_equal(image, image_of([style_of(seed) for seed in (3, 9, 9, 4)]))


def test_one_seed_an_image_goes_with_one_for_all(pair: tuple[Generator, Generator]) -> None:
    images = mix(*pair, [[3, 5, 3], 9, range(20, 23)], [1, 2])
    assert len(images) == 3
    for image, first, third in zip(images, (3, 5, 3), (20, 21, 22), strict=True):
        styles = [style_of(seed) for seed in (first, 9, third, third)]
        np.testing.assert_array_equal(image, image_of(styles))
    np.testing.assert_array_equal(mix(*pair, [[5]], []), mix(*pair, [5], []))


@pytest.mark.parametrize(("label", "index"), [("10", 2), (0, 0), ("2", 1)])
@pytest.mark.parametrize("truncation", [0.0, 0.25, 1.0])
def test_label_and_truncation_are_the_mappings(
    pair: tuple[Generator, Generator], label: Any, index: int, truncation: float
) -> None:
    (image,) = mix(*pair, [3, 9], [2], label=label, truncation=truncation)
    a, b = (style_of(seed, index, truncation) for seed in (3, 9))
    np.testing.assert_array_equal(image, image_of([a, a, b, b]))
    path = interpolate(*pair, 3, 9, 2, label=label, truncation=truncation)
    np.testing.assert_array_equal(path[0], image_of([a] * LAYERS))
    np.testing.assert_array_equal(path[1], image_of([b] * LAYERS))


def test_the_styles_of_seeds_are_those_of_their_images_0(pair: tuple[Generator, Generator]) -> None:
    w = styles_of(pair[0], [3, 9, 3], truncation=0.5)
    assert w.dtype == np.float32
    np.testing.assert_array_equal(w, [style_of(seed, truncation=0.5) for seed in (3, 9, 3)])


@pytest.mark.parametrize("micro_batch", [1, 2, 16])
def test_a_mix_is_the_same_in_any_micro_batch(
    pair: tuple[Generator, Generator], micro_batch: int
) -> None:
    seeds: list[Any] = [[*range(5)], [*range(5, 10)]]
    other = (opened(MAPPING, micro_batch=micro_batch), opened(SYNTHESIS, micro_batch=micro_batch))
    np.testing.assert_array_equal(mix(*other, seeds, [2]), mix(*pair, seeds, [2]))


def test_what_is_given_is_left_as_it_was(pair: tuple[Generator, Generator]) -> None:
    seeds: list[Any] = [[3, 5], 9]
    layers = [2]
    before = copy.deepcopy((seeds, layers))
    first = mix(*pair, seeds, layers)
    assert (seeds, layers) == before
    np.testing.assert_array_equal(mix(*pair, seeds, layers), first)


@pytest.mark.parametrize(
    "seeds",
    [
        [np.array([3]), range(9, 10)],
        [[np.int64(3)], [np.uint64(9)]],
        [np.int64(3), np.uint64(9)],
        np.array([3, 9]),
    ],
)
def test_integers_of_numpy_are_seeds_and_layers(
    pair: tuple[Generator, Generator], seeds: Any
) -> None:
    expected = image_of([style_of(seed) for seed in (3, 3, 9, 9)])
    np.testing.assert_array_equal(mix(*pair, seeds, [np.int8(2)])[0], expected)  # type: ignore[list-item]
    np.testing.assert_array_equal(mix(*pair, seeds, np.array([2]))[0], expected)  # type: ignore[arg-type]


# Refusals.


@pytest.mark.parametrize(
    ("count", "layers"),
    [
        (2, [0]), (2, [LAYERS]), (2, [-1]), (2, [10**30]), (2, [1.0]), (2, [1.5]), (2, [True]), (2, ["1"]),
        (2, [None]), (2, [np.float32(1)]), (2, []), (2, [1, 2]), (1, [1]), (0, []), (0, [1]), (3, [2, 1]),
        (3, [2, 2]), (3, [1]), (6, [1, 2, 3, 3, 3]), (2, "1"),
    ],
)  # fmt: skip
def test_layers_that_are_no_borders_are_refused_with_those_that_are(
    pair: tuple[Generator, Generator], runs: list[Any], count: int, layers: Any
) -> None:
    with pytest.raises(InputError, match=r"layers? (was|were) refused") as caught:
        mix(*pair, [5] * count, layers)
    assert f"from 1 to {LAYERS - 1}" in str(caught.value)
    assert runs == []


@pytest.mark.parametrize(
    "seeds",
    [
        [[]], [[], 3], [[3, 4], []], [[3, 4], [1, 2, 3]], [[3, 4, 5], [1, 2]],
    ],
)  # fmt: skip
def test_seeds_that_fit_no_number_of_images_are_refused(
    pair: tuple[Generator, Generator], runs: list[Any], seeds: Any
) -> None:
    with pytest.raises(InputError, match=r"seeds were refused.*one seed a style, or as many as"):
        mix(*pair, seeds, [2] * (len(seeds) - 1))
    assert runs == []


@pytest.mark.parametrize(
    "seed",
    [
        -1, 2**64, True, [-1], [2**64], [1.0], [True], ["3"], [[3]], [None], "3", b"3", 1.0, 0.5, None, np.float32(1),
    ],
)  # fmt: skip
def test_what_is_no_seed_is_refused(pair: tuple[Generator, Generator], seed: Any) -> None:
    with pytest.raises(InputError, match=r"seeds? (was|were) refused.*Give (an integer|a) seed"):
        mix(*pair, [seed], [])


@pytest.mark.parametrize("seeds", [(-1, 0), (0, 2**64), (0.5, 1), (0, "1"), (True, 0)])
def test_a_way_between_what_are_no_seeds_is_refused_as_it_is_asked_for(
    pair: tuple[Generator, Generator], seeds: Any
) -> None:
    with pytest.raises(InputError, match=r"The (first|last) seed was refused"):
        WAYS[0](*pair, *seeds, 3)


@pytest.mark.parametrize("seeds", [(None, 1), (1, None)])
def test_a_way_from_a_seed_drawn_by_nobody_is_refused(
    seeds: Any, pair: tuple[Generator, Generator]
) -> None:
    for call in WAYS:
        with pytest.raises(InputError, match=r"The (first|last) seed was refused"):
            call(*pair, *seeds, 3)


@pytest.mark.parametrize("frames", [0, -3, 1.0, None, "3", True, 2**31 + 1])
def test_a_number_of_frames_that_is_none_is_refused_as_it_is_asked_for(
    pair: tuple[Generator, Generator], runs: list[Any], frames: Any
) -> None:
    for call in WAYS:
        with pytest.raises(InputError, match=r"The number of frames was refused.*from 1 to"):
            call(*pair, 3, 9, frames)
    assert runs == []


@pytest.mark.parametrize(
    "wrong", [{"label": "cow"}, {"label": 3}, {"truncation": 1.5}, {"truncation": float("nan")}]
)
def test_a_label_or_truncation_that_the_mapping_has_not_is_refused(
    pair: tuple[Generator, Generator], wrong: dict[str, Any]
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: mix(*pair, [3], [], **wrong),
        lambda: walk(*pair, 3, 9, 5, **wrong),
        lambda: interpolate(*pair, 3, 9, 5, **wrong),
    ]
    said = ", ".join(CLASSES) if "label" in wrong else "from 0 to 1"
    for call in calls:
        with pytest.raises(InputError, match=said):
            call()


def calls_of(mapping: Generator, synthesis: Generator) -> list[Callable[[], object]]:
    return [
        lambda: mix(mapping, synthesis, [3, 9], [2]),
        lambda: walk(mapping, synthesis, 3, 9, 5),
        lambda: interpolate(mapping, synthesis, 3, 9, 5),
    ]


@pytest.mark.parametrize(("a", "b"), [("one", "two"), (None, None), ("one", None), (None, "one")])
def test_two_files_that_are_not_of_one_checkpoint_are_refused(
    runs: list[Any], a: str | None, b: str | None
) -> None:
    for call in calls_of(opened(mapping_model(a)), opened(synthesis_model(b))):
        runs.clear()
        with pytest.raises(InputError, match="not of one checkpoint") as caught:
            call()
        assert EXPORT_ALL in caught.value.repair
        assert all(str(digest) in caught.value.seen for digest in (a, b))
        assert runs == []


def test_generators_that_are_swapped_or_others_are_refused(
    pair: tuple[Generator, Generator], generator: Generator
) -> None:
    mapping, synthesis = pair
    for a, b in ((synthesis, mapping), (mapping, mapping), (synthesis, synthesis),
                 (mapping, generator), (generator, synthesis), (generator, generator)):  # fmt: skip
        for call in calls_of(a, b):
            with pytest.raises(InputError, match=r"is no (mapping|synthesis)") as caught:
                call()
            assert EXPORT_ALL in caught.value.repair
    with pytest.raises(InputError, match="is no mapping"):
        styles_of(generator, [3])


def test_a_style_of_another_size_is_refused(pair: tuple[Generator, Generator]) -> None:
    for call in calls_of(opened(mapping_model(style=5)), pair[1]):
        with pytest.raises(InputError, match=r"do not fit.*\(5,\).*\(3,\)"):
            call()


def test_a_synthesis_of_one_layer_takes_one_style() -> None:
    pair = opened(MAPPING), opened(synthesis_model(layers=1))
    assert mix(*pair, [3], []).shape == (1, 2, 2, 3)
    with pytest.raises(InputError, match="layer"):
        mix(*pair, [3, 9], [1])


# Ways in w.


@pytest.mark.parametrize("frames", [1, 2, FRAMES - 1, FRAMES, FRAMES + 1, 2 * FRAMES + 5])
def test_a_way_in_w_is_the_straight_line_from_one_style_to_the_other(
    pair: tuple[Generator, Generator], runs: list[dict[str, Array]], frames: int
) -> None:
    images = interpolate(*pair, 3, 9, frames)
    assert images.shape == (frames, 8, 2, 3)
    a, b = (style_of(seed).astype(np.float64) for seed in (3, 9))
    np.testing.assert_array_equal(images[0], image_of([a.astype(np.float32)] * LAYERS))
    if frames > 1:
        np.testing.assert_array_equal(images[-1], image_of([b.astype(np.float32)] * LAYERS))
    path = np.concatenate([run["styles"] for run in runs if "styles" in run])
    assert path.shape == (frames, LAYERS, STYLE) and path.dtype == np.float32
    for i, styles in enumerate(path):
        t = i / max(frames - 1, 1)
        np.testing.assert_allclose(styles, [a + t * (b - a)] * LAYERS, rtol=0, atol=2.0**-23)
        assert all(row.tobytes() == styles[0].tobytes() for row in styles)


def test_the_noise_stays_on_the_way(
    pair: tuple[Generator, Generator], runs: list[dict[str, Array]]
) -> None:
    interpolate(*pair, 3, 9, FRAMES + 2)
    noise = np.concatenate([run["noise"] for run in runs if "noise" in run])
    expected = reference_inputs(synthesis_signature(), 0, [0])["noise"]
    np.testing.assert_array_equal(noise, np.repeat(expected, FRAMES + 2, axis=0))


@pytest.mark.parametrize("micro_batch", [1, 3, 64])
def test_a_walk_in_w_is_the_interpolation_in_chunks(
    pair: tuple[Generator, Generator], micro_batch: int
) -> None:
    synthesis = opened(SYNTHESIS, micro_batch=micro_batch)
    chunks = list(walk(pair[0], synthesis, 3, 9, 37))
    assert max(map(len, chunks)) <= FRAMES
    np.testing.assert_array_equal(np.concatenate(chunks), interpolate(*pair, 3, 9, 37))


def test_a_walk_of_any_length_gives_its_first_images_at_once(
    pair: tuple[Generator, Generator],
) -> None:
    first = next(walk(*pair, 3, 9, 2**31))
    np.testing.assert_array_equal(first[0], image_of([style_of(3)] * LAYERS))


# Files made to hurt: signatures of styles that no export would write.


@pytest.mark.parametrize("shape", [["layers", STYLE], [LAYERS, "style"]])
def test_styles_of_any_number_of_layers_are_refused(
    pair: tuple[Generator, Generator], shape: list[Any]
) -> None:
    signature = synthesis_signature()
    signature["inputs"][0]["shape"] = shape
    data = copy.deepcopy(SYNTHESIS)

    def loosen(model: Any) -> None:
        for axis, size in zip(
            model.graph.input[0].type.tensor_type.shape.dim[1:], shape, strict=True
        ):
            if isinstance(size, str):
                axis.dim_param = size

    synthesis = opened(with_metadata(edited(data, loosen), signature=signature))
    for call in calls_of(pair[0], synthesis):
        try:
            call()
        except InputError:
            continue
        pytest.fail("it was taken")
