"""Generator: the seed contract, labels, counts, inputs of the caller's own, bounds, and files made to hurt."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gan.runtime import GanError, Generator, InputError, ModelFileError, latents
from gan.runtime.buckets import MICRO_BATCH
from gan.runtime.pace import TRIALS

from .conftest import (
    CLASSES,
    IMAGE_BYTES,
    TORTURE,
    bare_run,
    brought_signature,
    edited,
    reference_inputs,
    reference_normal,
    reference_words,
    seal,
    tiny_graph,
    tiny_model,
    tiny_signature,
    watch_runs,
    with_metadata,
)

LAST = 2**64 - 1
SIGNATURE = tiny_signature()
Array = NDArray[Any]
Run = dict[str, Array]


def opened(data: bytes, **options: Any) -> Generator:
    return Generator(data, device="cpu", threads=1, **options)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The inputs of every run of a graph from here on."""
    seen: list[Run] = []
    watch_runs(monkeypatch, seen.append)
    return seen


@pytest.fixture
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step towards drawing or running fails the test."""
    monkeypatch.setattr(latents, "words", lambda *_: pytest.fail("words were drawn"))
    watch_runs(monkeypatch, lambda _: pytest.fail("the graph was run"))


# The seed contract.


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"labels": False},
        {"truncation": True},
        {"noise": True},
        {"noise": True, "shared": True},
        {"draw": "uniform"},
    ],
)
def test_a_sample_is_the_graph_run_on_the_latent_stream(parts: dict[str, Any]) -> None:
    data = tiny_model(**parts)
    inputs = reference_inputs(tiny_signature(**parts), 2026, range(3, 12))
    images = opened(data).sample(9, seed=2026, start=3)
    assert images.dtype == np.uint8
    assert images.shape == (9, 8, 8, 3)
    np.testing.assert_array_equal(images, bare_run(data, inputs))


def test_a_thousand_images_are_the_same_bytes_in_any_micro_batch_and_streamed(
    labelled: bytes,
) -> None:
    expected = bare_run(labelled, reference_inputs(SIGNATURE, 7, range(1000))).tobytes()
    for micro_batch in (1, 7, 64):
        generator = opened(labelled, micro_batch=micro_batch)
        assert generator.sample(1000, seed=7).tobytes() == expected
        batches = list(generator.stream(1000, seed=7))
        sizes = [micro_batch] * (1000 // micro_batch) + [1000 % micro_batch] * (
            1000 % micro_batch > 0
        )
        assert [len(batch) for batch in batches] == sizes
        assert b"".join(batch.tobytes() for batch in batches) == expected


@pytest.mark.parametrize("start", [0, 1, 15, 16, 17, 150])
def test_start_gives_the_later_images_of_the_same_seed(generator: Generator, start: int) -> None:
    everything = generator.sample(200, seed=11)
    np.testing.assert_array_equal(
        generator.sample(50, seed=11, start=start), everything[start : start + 50]
    )
    streamed = np.concatenate(list(generator.stream(50, seed=11, start=start)))
    np.testing.assert_array_equal(streamed, everything[start : start + 50])


def test_the_last_images_of_a_seed_are_there_and_none_behind_them(
    labelled: bytes, generator: Generator
) -> None:
    expected = bare_run(labelled, reference_inputs(SIGNATURE, LAST, range(LAST - 4, LAST + 1)))
    np.testing.assert_array_equal(generator.sample(5, seed=LAST, start=LAST - 4), expected)
    for sample in (generator.sample, generator.stream):
        with pytest.raises(InputError, match="The index of the last image was refused"):
            sample(6, seed=LAST, start=LAST - 4)


def test_eight_threads_on_one_generator_agree(generator: Generator) -> None:
    expected = {seed: generator.sample(40, seed=seed).tobytes() for seed in range(8)}
    with ThreadPoolExecutor(8) as pool:
        seeds = [turn % 8 for turn in range(64)]
        results = pool.map(lambda seed: generator.sample(40, seed=seed).tobytes(), seeds)
    assert [expected[seed] for seed in seeds] == list(results)
    assert len(set(expected.values())) == 8


def test_every_image_of_a_seed_and_every_seed_is_another(generator: Generator) -> None:
    images = [
        image.tobytes() for seed in (0, 1, 2**63, LAST) for image in generator.sample(20, seed=seed)
    ]
    assert len(set(images)) == 80


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63, LAST, np.uint64(LAST), np.int32(5)])
def test_a_seed_of_64_bits_is_taken(labelled: bytes, generator: Generator, seed: int) -> None:
    expected = bare_run(labelled, reference_inputs(SIGNATURE, int(seed), range(2)))
    np.testing.assert_array_equal(generator.sample(2, seed=seed), expected)


@pytest.mark.parametrize("name", ["seed", "start"])
@pytest.mark.parametrize(
    "value", [-1, 2**64, 1.0, 0.5, np.float32(1), True, "1", [1], np.array([1])]
)
def test_a_seed_or_start_that_is_no_64_bit_number_is_refused(
    nothing_is_drawn: None, generator: Generator, name: str, value: Any
) -> None:
    for sample in (generator.sample, generator.stream, generator.images):
        with pytest.raises(InputError, match=rf"The {name} was refused.*from 0 to 2\^64 - 1"):
            sample(2, **{"seed": 0, name: value})


def test_without_a_seed_one_is_drawn_and_logged(
    generator: Generator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gan.runtime")
    first, second = generator.sample(3), np.concatenate(list(generator.stream(3)))
    logged = [int(record.getMessage().removeprefix("Drew seed ")) for record in caplog.records]
    assert len(logged) == 2
    assert logged[0] != logged[1]
    for seed, images in zip(logged, (first, second), strict=True):
        np.testing.assert_array_equal(generator.sample(3, seed=seed), images)


# Labels.


@pytest.mark.parametrize(
    ("label", "indices"),
    [
        ("1", [0] * 4), ("2", [1] * 4), ("10", [2] * 4),
        (0, [0] * 4), (2, [2] * 4), (np.int64(1), [1] * 4), (np.uint8(2), [2] * 4), (np.array(1), [1] * 4),
        (["10", "1", "2", "10"], [2, 0, 1, 2]), (["10", 0, np.int8(1), "1"], [2, 0, 1, 0]),
        ((2, 1, 0, 2), [2, 1, 0, 2]), (np.array([2, 1, 0, 2]), [2, 1, 0, 2]), (np.array(["2"] * 4), [1] * 4),
    ],
)  # fmt: skip
def test_a_label_is_a_name_an_index_or_one_for_each_image(
    labelled: bytes, generator: Generator, label: Any, indices: list[int]
) -> None:
    inputs = reference_inputs(SIGNATURE, 4, range(4))
    expected = bare_run(labelled, {**inputs, "label": np.array(indices)})
    np.testing.assert_array_equal(generator.sample(4, seed=4, label=label), expected)
    streamed = np.concatenate(list(generator.stream(4, seed=4, label=label)))
    np.testing.assert_array_equal(streamed, expected)


def test_one_label_for_each_image_holds_across_micro_batches(labelled: bytes) -> None:
    labels = [i * i % 3 for i in range(23)]
    inputs = {**reference_inputs(SIGNATURE, 4, range(23)), "label": np.array(labels)}
    images = opened(labelled, micro_batch=5).sample(23, seed=4, label=labels)
    np.testing.assert_array_equal(images, bare_run(labelled, inputs))


def test_a_label_changes_the_image_and_not_the_latent(
    generator: Generator, runs: list[Run]
) -> None:
    images = [generator.sample(1, seed=0, label=name) for name in CLASSES]
    assert len({image.tobytes() for image in images}) == 3
    assert len({run["z"].tobytes() for run in runs}) == 1


@pytest.mark.parametrize(
    "label",
    [
        "7", "", "10 ", 3, -1, 2**63, 10**5000, True, np.True_, 1.0, 1.5, b"1", {0, 1}, object(), np.array(1.0),
        [0, "7"], [0, None], [0, True], [[0], [1]], np.array([0.0, 1.0]),
    ],
    ids=lambda label: "10^5000" if isinstance(label, int) and label > LAST else str(label)[:20],
)  # fmt: skip
def test_a_label_that_is_no_class_is_refused_with_the_classes(
    nothing_is_drawn: None, generator: Generator, label: Any
) -> None:
    with pytest.raises(InputError, match="The label was refused") as caught:
        generator.sample(2, seed=0, label=label)
    assert caught.value.repair == "Give a class index from 0 to 2, or one of: 1, 2, 10"
    assert caught.value.seen


@pytest.mark.parametrize("labels", [[], [0], [0, 1, 2], np.array([0])])
def test_labels_that_are_not_one_for_each_image_are_refused(
    nothing_is_drawn: None, generator: Generator, labels: Any
) -> None:
    with pytest.raises(InputError, match=f"{len(labels)} labels for 2 images"):
        generator.sample(2, seed=0, label=labels)


@pytest.mark.parametrize("label", ["1", 0, [0], True])
def test_a_label_for_a_model_without_classes_is_refused(unlabelled: bytes, label: Any) -> None:
    generator = opened(unlabelled)
    assert generator.classes == ()
    with pytest.raises(InputError, match="This model has no classes"):
        generator.sample(1, seed=0, label=label)
    with pytest.raises(InputError, match="This model has no classes"):
        generator.interpolate(0, 1, 2, label=label)


def test_classes_without_names_go_by_index(labelled: bytes) -> None:
    generator = opened(with_metadata(labelled, signature={**SIGNATURE, "classes": []}))
    expected = opened(labelled).sample(2, seed=0, label="10")
    np.testing.assert_array_equal(generator.sample(2, seed=0, label=2), expected)
    with pytest.raises(InputError) as caught:
        generator.sample(2, seed=0, label="10")
    assert caught.value.repair == "Give a class index from 0 to 2"


# Counts and bounds.


@pytest.mark.parametrize(
    "count",
    [0, -1, 1.0, True, None, "3", 2**63, 10**5000, np.float64(2)],
    ids=["0", "-1", "1.0", "True", "None", "text", "2^63", "10^5000", "float64"],
)
def test_a_count_that_is_no_number_of_images_is_refused(
    nothing_is_drawn: None, generator: Generator, count: Any
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: generator.sample(count, seed=0),
        lambda: generator.stream(count, seed=0),
        lambda: generator.images(count, seed=0),
        lambda: generator.interpolate(0, 1, count),
    ]
    for call in calls:
        with pytest.raises(
            InputError, match=r"The (count|number of frames) was refused.*from 1 to 2\^63 - 1"
        ):
            call()


@pytest.mark.parametrize("count", [np.int64(3), np.uint8(3)])
def test_integers_of_numpy_are_counts(generator: Generator, count: Any) -> None:
    images = generator.sample(count, seed=0)
    np.testing.assert_array_equal(images, generator.sample(3, seed=0))


@pytest.mark.parametrize("count", [2**40, 2**63 - 1, (4 << 30) // IMAGE_BYTES + 1])
def test_more_images_than_fit_are_refused_before_anything_is_made(
    nothing_is_drawn: None, generator: Generator, count: int
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: generator.sample(count, seed=0),
        lambda: generator.images(count, seed=0),
        lambda: generator.interpolate(0, 1, count),
    ]
    for call in calls:
        with pytest.raises(
            InputError, match=f"{count} of 192 bytes, the limit is 4294967296 bytes"
        ):
            call()


def test_a_stream_of_any_length_gives_its_first_images_at_once(generator: Generator) -> None:
    first = next(generator.stream(2**63 - 1, seed=3))
    np.testing.assert_array_equal(first, generator.sample(MICRO_BATCH, seed=3))


def test_max_output_bytes_bounds_the_call_and_the_micro_batch(
    labelled: bytes, runs: list[Run]
) -> None:
    generator = opened(labelled, max_output_bytes=3 * IMAGE_BYTES + 191)
    images = [batch.shape for batch in generator.stream(7, seed=0)]
    assert images == [(3, 8, 8, 3), (3, 8, 8, 3), (1, 8, 8, 3)]
    assert len(generator.sample(3, seed=0)) == 3
    with pytest.raises(InputError, match="4 of 192 bytes, the limit is 767 bytes"):
        generator.sample(4, seed=0)
    runs.clear()
    with pytest.raises(InputError, match="4 of 192 bytes"):
        generator(z=np.zeros((4, 4)), label=[0] * 4)
    with pytest.raises(InputError, match="4 of 192 bytes"):
        generator.interpolate(0, 1, 4)
    assert runs == []


@pytest.mark.parametrize("limit", [IMAGE_BYTES, 2 * IMAGE_BYTES - 1])
def test_a_limit_of_one_image_gives_one_at_a_time(labelled: bytes, limit: int) -> None:
    generator = opened(labelled, max_output_bytes=limit, micro_batch=64)
    assert [len(batch) for batch in generator.stream(3, seed=0)] == [1, 1, 1]


def test_a_large_input_of_a_small_image_bounds_the_micro_batch_too(runs: list[Run]) -> None:
    data = tiny_model(noise=True)
    given = 4 * 4 + 8 + 8 * 8 * 4  # z, label, noise
    generator = opened(data, max_output_bytes=5 * given)
    list(generator.stream(11, seed=0))
    assert [len(run["z"]) for run in runs] == [5, 5, 1]
    with pytest.raises(InputError, match=f"One sample has {given} bytes, the limit is {given - 1}"):
        opened(data, max_output_bytes=given - 1)


@pytest.mark.parametrize("micro_batch", [0, -1, 4097, 2.5, True, "16"])
def test_a_micro_batch_outside_is_refused(labelled: bytes, micro_batch: Any) -> None:
    with pytest.raises(InputError, match=r"The micro-batch was refused.*from 1 to 4096"):
        opened(labelled, micro_batch=micro_batch)


# Inputs of the caller's own.


def test_calling_runs_the_graph_on_the_callers_inputs(
    labelled: bytes, generator: Generator
) -> None:
    z = RandomState(0).randn(40, 4).astype(np.float32)
    label = RandomState(1).randint(0, 3, 40)
    outputs = generator(z=z, label=label)
    assert list(outputs) == ["image"]
    np.testing.assert_array_equal(outputs["image"], bare_run(labelled, {"z": z, "label": label}))


def test_calling_takes_what_numpy_can_make_of_it(labelled: bytes, generator: Generator) -> None:
    z = np.array([[1, 0, -1, 2], [0, 0, 0, 3]], np.float32)
    expected = bare_run(labelled, {"z": z, "label": np.array([2, 0])})
    for given_z in (
        z.tolist(),
        z.astype(np.float64),
        z.astype(np.float16),
        z.astype(np.int8),
        z[:, ::-1][:, ::-1],
    ):
        for given_label in ([2, 0], np.array([2, 0], np.uint8)):
            np.testing.assert_array_equal(
                generator(z=given_z, label=given_label)["image"], expected
            )


def test_the_callers_arrays_are_left_as_they_were(generator: Generator) -> None:
    z, label = np.ones((2, 4), np.float32), np.array([1, 2])
    generator(z=z, label=label)
    assert z.tolist() == [[1.0] * 4] * 2
    assert label.tolist() == [1, 2]


Z, LABEL = np.zeros((2, 4), np.float32), np.array([0, 2])
WANTED_Z, WANTED_LABEL = "Give float32 [batch, 4]", "Give int64 [batch] with values from 0 to 2"


@pytest.mark.parametrize(
    ("inputs", "failed", "seen", "repair"),
    [
        ({}, "No input was given", "an empty batch", "Give z, label"),
        ({"z": Z}, "Input label is missing", "['z']", WANTED_LABEL),
        ({"label": LABEL}, "Input z is missing", "['label']", WANTED_Z),
        ({"z": Z, "label": LABEL, "y": 1}, "An input was refused", "'y'", "This model takes z, label"),
        ({"z": Z[0], "label": LABEL}, "Input z was refused", "shape [4]", WANTED_Z),
        ({"z": Z[:, :3], "label": LABEL}, "Input z was refused", "shape [2, 3]", WANTED_Z),
        ({"z": Z[None], "label": LABEL}, "Input z was refused", "shape [1, 2, 4]", WANTED_Z),
        ({"z": 1.0, "label": LABEL}, "Input z was refused", "shape []", WANTED_Z),
        ({"z": Z > 0, "label": LABEL}, "Input z was refused", "dtype bool", WANTED_Z),
        ({"z": Z + 1j, "label": LABEL}, "Input z was refused", "dtype complex64", WANTED_Z),
        ({"z": [["a"] * 4] * 2, "label": LABEL}, "Input z was refused", "dtype <U1", WANTED_Z),
        ({"z": [[None] * 4] * 2, "label": LABEL}, "Input z was refused", "dtype object", WANTED_Z),
        ({"z": [[10**400] * 4] * 2, "label": LABEL}, "Input z was refused", "dtype object", WANTED_Z),
        ({"z": Z * np.nan, "label": LABEL}, "Input z was refused", "values that are not finite", WANTED_Z),
        ({"z": Z + np.inf, "label": LABEL}, "Input z was refused", "values that are not finite", WANTED_Z),
        ({"z": Z - np.inf, "label": LABEL}, "Input z was refused", "values that are not finite", WANTED_Z),
        ({"z": Z.astype(float) + 1e39, "label": LABEL}, "Input z was refused", "values from 1e+39 to 1e+39", WANTED_Z),
        ({"z": Z, "label": [0, 3]}, "Input label was refused", "values from 0 to 3", WANTED_LABEL),
        ({"z": Z, "label": [-1, 2]}, "Input label was refused", "values from -1 to 2", WANTED_LABEL),
        ({"z": Z, "label": np.array([0, LAST], np.uint64)}, "Input label was refused", f"values from 0 to {LAST}",
         WANTED_LABEL),
        ({"z": Z, "label": [0.0, 1.0]}, "Input label was refused", "dtype float64", WANTED_LABEL),
        ({"z": Z, "label": ["1", "2"]}, "Input label was refused", "dtype <U1", WANTED_LABEL),
        ({"z": Z, "label": [[0], [1]]}, "Input label was refused", "shape [2, 1]", WANTED_LABEL),
        ({"z": Z, "label": [0]}, "The inputs disagree", "batch sizes {'z': 2, 'label': 1}",
         "Give each the same first axis"),
        ({"z": Z[:0], "label": LABEL[:0]}, "No input was given", "an empty batch", "Give z, label"),
    ],
)  # fmt: skip
def test_an_input_that_does_not_fit_is_refused_by_name_with_what_came_and_what_was_wanted(
    generator: Generator,
    runs: list[Run],
    inputs: dict[str, Any],
    failed: str,
    seen: str,
    repair: str,
) -> None:
    with pytest.raises(InputError) as caught:
        generator(**inputs)
    assert (caught.value.failed, caught.value.seen, caught.value.repair) == (failed, seen, repair)
    assert runs == []


def test_an_input_of_unequal_rows_is_refused_by_name(generator: Generator, runs: list[Run]) -> None:
    with pytest.raises(InputError, match=r"Input z was refused.*Give float32 \[batch, 4\]"):
        generator(z=[[0.0] * 4, [0.0] * 3], label=[0, 0])
    assert runs == []


def test_an_input_may_be_called_self() -> None:
    signature = tiny_signature(labels=False)
    graph = tiny_graph(signature)
    graph.input[0].name = signature["inputs"][0]["name"] = "self"
    graph.node[0].input[0] = "self"
    generator = opened(seal(graph, signature))
    images = generator(self=np.zeros((2, 4)))["image"]
    assert images.shape == (2, 8, 8, 3)


# Truncation and noise.


def test_truncation_scales_the_latent_where_the_signature_has_it() -> None:
    data = tiny_model(truncation=True)
    generator = opened(data)
    inputs = reference_inputs(tiny_signature(truncation=True), 5, range(3))
    scales: list[Any] = [0.0, 0.5, 1.0, 1, np.float32(0.25)]
    for psi in scales:
        expected = bare_run(data, {**inputs, "truncation": np.full(3, psi, np.float32)})
        np.testing.assert_array_equal(generator.sample(3, seed=5, truncation=psi), expected)
    np.testing.assert_array_equal(
        generator.sample(3, seed=5), generator.sample(3, seed=5, truncation=1.0)
    )
    assert not np.array_equal(
        generator.sample(3, seed=5), generator.sample(3, seed=5, truncation=0.5)
    )


def test_truncation_may_be_left_out_of_a_call() -> None:
    data = tiny_model(truncation=True)
    outputs = opened(data)(z=Z + 1, label=LABEL)
    inputs = {"z": Z + 1, "label": LABEL, "truncation": np.ones(2, np.float32)}
    np.testing.assert_array_equal(outputs["image"], bare_run(data, inputs))


@pytest.mark.parametrize("truncation", [0.0, 1.0, 0.5, float("nan")])
def test_truncation_is_refused_where_the_signature_has_none(
    nothing_is_drawn: None, generator: Generator, truncation: float
) -> None:
    with pytest.raises(InputError, match="Truncation was given"):
        generator.sample(1, seed=0, truncation=truncation)
    with pytest.raises(InputError, match="Truncation was given"):
        generator.stream(1, seed=0, truncation=truncation)


@pytest.mark.parametrize(
    "truncation",
    [-0.1, 1.1, float("nan"), float("inf"), 1e300, "0.5", True, 1j, [0.5], 10**400],
    ids=["-0.1", "1.1", "nan", "inf", "1e300", "text", "True", "1j", "list", "10^400"],
)
def test_a_truncation_outside_its_range_is_refused(truncation: Any) -> None:
    generator = opened(tiny_model(truncation=True))
    with pytest.raises(
        InputError, match=r"The truncation was refused.*number truncation from 0 to 1"
    ):
        generator.sample(1, seed=0, truncation=truncation)
    with pytest.raises(
        InputError, match=r"The truncation was refused.*number truncation from 0 to 1"
    ):
        generator.interpolate(0, 1, 2, truncation=truncation)


def test_noise_is_drawn_from_a_stream_of_its_own(runs: list[Run]) -> None:
    opened(tiny_model(noise=True)).sample(3, seed=9, start=2)
    opened(tiny_model()).sample(3, seed=9, start=2)
    with_noise, without = runs
    expected = [[reference_normal(w) for w in reference_words(9, 16, i, 64)] for i in (2, 3, 4)]
    assert with_noise["noise"].reshape(3, 64).tolist() == expected
    np.testing.assert_array_equal(with_noise["z"], without["z"])
    assert not np.array_equal(with_noise["noise"].reshape(3, 64)[:, :4], with_noise["z"])


# Noise that all images share.

SHARED: dict[str, Any] = {"noise": True, "shared": True, "truncation": True}
OWN: dict[str, Any] = {
    "noise": True,
    "truncation": True,
}  # the same model, each image with noise of its own


def shared_row() -> list[float]:
    """The shared noise: that of image 0 of seed 0."""
    return [reference_normal(word) for word in reference_words(0, 16, 0, 64)]


@pytest.mark.parametrize(("seed", "start"), [(0, 0), (0, 5), (7, 0), (LAST, 2**40)])
def test_shared_noise_is_the_same_for_every_image_seed_start_and_chunk(
    runs: list[Run], seed: int, start: int
) -> None:
    generator = opened(tiny_model(**SHARED), micro_batch=3)
    generator.sample(7, seed=seed, start=start)
    list(generator.stream(2, seed=seed, start=start, noise="shared"))
    generator.images(1, seed=seed, start=start)
    assert [len(run["noise"]) for run in runs] == [3, 3, 1, 2, 1]
    for run in runs:
        assert all(row == shared_row() for row in run["noise"].reshape(-1, 64).tolist())


def test_a_sample_with_shared_noise_is_the_graph_run_on_that_draw() -> None:
    data = tiny_model(**SHARED)
    inputs = reference_inputs(tiny_signature(**SHARED), 2026, range(3, 12))
    images = opened(data, micro_batch=4).sample(9, seed=2026, start=3)
    np.testing.assert_array_equal(images, bare_run(data, inputs))
    assert not np.array_equal(images, opened(tiny_model(**OWN)).sample(9, seed=2026, start=3))


@pytest.mark.parametrize("micro_batch", [1, 4, 16])
def test_drawn_noise_follows_the_latent_streams_rule_in_any_chunking(micro_batch: int) -> None:
    data = tiny_model(**SHARED)
    generator = opened(data, micro_batch=micro_batch)
    inputs = reference_inputs(tiny_signature(**OWN), 11, range(5, 14))
    expected = bare_run(data, inputs)
    np.testing.assert_array_equal(generator.sample(9, seed=11, start=5, noise="drawn"), expected)
    streamed = np.concatenate(list(generator.stream(9, seed=11, start=5, noise="drawn")))
    np.testing.assert_array_equal(streamed, expected)
    pictures = generator.images(9, seed=11, start=5, noise="drawn")
    np.testing.assert_array_equal(np.stack([np.asarray(one) for one in pictures]), expected)
    np.testing.assert_array_equal(  # and what was shared before is shared again
        generator.sample(2, seed=11, start=5),
        bare_run(data, reference_inputs(tiny_signature(**SHARED), 11, range(5, 7))),
    )


@pytest.mark.parametrize(("noise", "parts"), [("shared", SHARED), ("drawn", OWN)])
def test_noise_label_and_truncation_combine(noise: Any, parts: dict[str, Any]) -> None:
    data = tiny_model(**SHARED)
    inputs = reference_inputs(tiny_signature(**parts), 4, range(5)) | {
        "label": np.array([2, 0, 1, 1, 2]),
        "truncation": np.full(5, 0.25, np.float32),
    }
    images = opened(data, micro_batch=2).sample(
        5, seed=4, label=["10", 0, "2", 1, 2], truncation=0.25, noise=noise
    )
    np.testing.assert_array_equal(images, bare_run(data, inputs))


@pytest.mark.parametrize("noise", ["", "Drawn", "none", None, True, 0, [], ["drawn"]])
def test_an_unknown_word_for_the_noise_is_refused(nothing_is_drawn: None, noise: Any) -> None:
    generator = opened(tiny_model(**SHARED))
    for sample in (generator.sample, generator.stream, generator.images):
        with pytest.raises(InputError, match=r'The noise was refused.*Give "shared" or "drawn"'):
            sample(1, seed=0, noise=noise)


@pytest.mark.parametrize("parts", [{}, {"noise": True}])
def test_noise_cannot_be_drawn_where_no_input_shares_it(
    nothing_is_drawn: None, parts: dict[str, Any]
) -> None:
    generator = opened(tiny_model(**parts))
    for sample in (generator.sample, generator.stream, generator.images):
        with pytest.raises(InputError, match=r"without noise inputs\. Leave noise out"):
            sample(1, seed=0, noise="drawn")


def test_shared_noise_may_be_left_out_of_a_call_or_given() -> None:
    data = tiny_model(**SHARED)
    generator = opened(data, micro_batch=2)
    z, label = RandomState(0).randn(5, 4).astype(np.float32), np.array([0, 1, 2, 1, 0])
    own = RandomState(1).randn(5, 8, 8).astype(np.float32)
    inputs = {"z": z, "label": label, "truncation": np.ones(5, np.float32)}
    rows = np.array([shared_row()] * 5, np.float32).reshape(5, 8, 8)
    for brought, noise in (({}, rows), ({"noise": own}, own)):
        images = generator(z=z, label=label, **brought)["image"]
        np.testing.assert_array_equal(images, bare_run(data, inputs | {"noise": noise}))
    with pytest.raises(InputError, match="Input z is missing"):
        generator(label=label)


def test_what_is_drawn_once_is_not_the_callers_to_change(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = opened(tiny_model(**SHARED))
    generator.sample(2, seed=0)
    with contextlib.suppress(ValueError):  # read-only is as good
        runs[0]["noise"] += 1
    generator.sample(2, seed=0)
    assert runs[1]["noise"].reshape(2, 64).tolist() == [shared_row()] * 2


# Inputs that only a caller can give.


@pytest.mark.parametrize("about", [{"kind": "style"}, {"kind": "image", "range": [-1, 1]}])
def test_a_model_whose_input_cannot_be_drawn_is_called_and_not_sampled(
    about: dict[str, Any],
) -> None:
    signature = brought_signature(**about)
    data = seal(tiny_graph(signature), signature)
    generator = opened(data)
    for call in (
        lambda: generator.sample(1, seed=0),
        lambda: list(generator.stream(1, seed=0)),
        lambda: generator.interpolate(0, 1, 2),
    ):
        with pytest.raises(
            InputError, match=r"Input noise cannot be drawn.*generator\(noise=\.\.\.\)"
        ):
            call()
    with pytest.raises(InputError, match="Input noise is missing"):
        generator(z=Z, label=LABEL)
    own = RandomState(1).uniform(-1, 1, (2, 8, 8)).astype(np.float32)
    expected = bare_run(data, {"z": Z, "label": LABEL, "noise": own})
    np.testing.assert_array_equal(generator(z=Z, label=LABEL, noise=own)["image"], expected)


# The micro-batch of its own choice.


@pytest.mark.parametrize(
    ("values", "sizes"), [(10**9, [16, 4]), (5 * 192 + 191, [5] * 4), (1, [1] * 20)]
)
def test_a_micro_batch_holds_at_most_16_images_and_fewer_large_ones(
    labelled: bytes, values: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan.runtime.generator.MICRO_VALUES", values)
    batches = list(opened(labelled).stream(20, seed=0))
    assert [len(batch) for batch in batches] == sizes
    assert [len(batch) for batch in opened(labelled, micro_batch=8).stream(20, seed=0)] == [8, 8, 4]


EXACT = {"exactness": {"across_batches": 0.0, "across_threads": 0.0}}


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that each look moves by the same time: large batches are the fastest."""
    ticks = itertools.count()
    monkeypatch.setattr("gan.runtime.cpu.time.perf_counter", lambda: float(next(ticks)))


def test_where_batches_are_exact_their_size_is_found_from_the_first_runs(
    labelled: bytes, steady: None
) -> None:
    generator = opened(with_metadata(labelled, parity=EXACT))
    sizes = [len(images) for images in generator.stream(1_200, seed=0)][:-1]
    assert list(dict.fromkeys(sizes)) == [1, 2, 4, 8, 16, 32, 64]
    assert sizes[: 4 * TRIALS] == [1, 2] * TRIALS + [2, 4] * TRIALS
    assert [len(images) for images in generator.stream(130, seed=0)] == [64, 64, 2]
    found = generator.sample(130, seed=0)
    np.testing.assert_array_equal(found, opened(labelled, micro_batch=7).sample(130, seed=0))
    np.testing.assert_array_equal(generator.interpolate(0, 1, 100)[:, 0, 0], opened(labelled).interpolate(0, 1, 100)[:, 0, 0])  # fmt: skip


@pytest.mark.parametrize(
    "parity",
    [{"exactness": {"across_batches": 1e-12}}, {"exactness": {}}, {"exactness": 0}, {}, None],
)
def test_where_batches_are_not_known_to_be_exact_their_size_never_changes(
    labelled: bytes, steady: None, parity: Any
) -> None:
    generator = opened(with_metadata(labelled, parity=parity))
    assert [len(images) for images in generator.stream(40, seed=0)] == [16, 16, 8]


def test_a_size_that_was_asked_for_is_kept(labelled: bytes, steady: None) -> None:
    generator = opened(with_metadata(labelled, parity=EXACT), micro_batch=5)
    assert [len(images) for images in generator.stream(12, seed=0)] == [5, 5, 2]


def test_large_images_and_limits_bound_the_size_that_is_found(
    labelled: bytes, steady: None
) -> None:
    exact = with_metadata(labelled, parity=EXACT)
    sizes = [len(i) for i in opened(exact, max_output_bytes=3 * IMAGE_BYTES).stream(30, seed=0)]
    assert sizes[: 2 * TRIALS] == [1, 2] * TRIALS and set(sizes[2 * TRIALS : -1]) == {2}


def test_what_is_drawn_at_once_is_bounded_with_what_images_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator, drawn = opened(tiny_model(**SHARED), micro_batch=2), list[int]()
    values = sum(field.size for field in generator.signature.inputs)
    draw = Generator._draw

    def watched(self: Generator, seed: int, indices: range, *rest: Any) -> Run:
        drawn.append(len(indices))
        return draw(self, seed, indices, *rest)

    monkeypatch.setattr(Generator, "_draw", watched)
    for most, expected in ((0, [2] * 10), (5 * values, [4] * 5), (10**6, [20])):
        monkeypatch.setattr("gan.runtime.generator.BLOCK", most)
        drawn.clear()
        assert len(list(generator.stream(20, seed=0))) == 10
        assert drawn == expected


# Interpolation.


@pytest.mark.parametrize("parts", [SHARED, {"draw": "uniform"}])
@pytest.mark.parametrize("frames", [1, 2, 7, 16, 17])
@pytest.mark.parametrize("micro_batch", [1, 3, 16])
def test_a_walk_is_the_interpolation_in_chunks(
    parts: dict[str, Any], frames: int, micro_batch: int
) -> None:
    data = tiny_model(**parts)
    whole = opened(data, micro_batch=64).interpolate(3, 8, frames, label="2")
    chunks = list(opened(data, micro_batch=micro_batch).walk(3, 8, frames, label="2"))
    lengths = [micro_batch] * (frames // micro_batch) + [frames % micro_batch] * (
        frames % micro_batch > 0
    )
    assert [len(chunk) for chunk in chunks] == lengths
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_on_a_walk_shared_noise_stays_and_drawn_noise_moves(runs: list[Run]) -> None:
    opened(tiny_model(**SHARED), micro_batch=4).interpolate(3, 8, 6)
    assert len(runs) == 2
    for run in runs:
        assert all(row == shared_row() for row in run["noise"].reshape(-1, 64).tolist())
    runs.clear()
    opened(tiny_model(**OWN)).interpolate(3, 8, 6)
    assert len({row.tobytes() for row in runs[0]["noise"]}) == 6


def test_a_walk_of_any_length_gives_its_first_images_at_once(labelled: bytes) -> None:
    generator = opened(labelled, max_output_bytes=3 * IMAGE_BYTES)
    first = next(generator.walk(3, 8, 2**63 - 1))
    np.testing.assert_array_equal(first, np.repeat(generator.sample(1, seed=3), 3, axis=0))
    with pytest.raises(InputError, match="4 of 192 bytes, the limit is 576 bytes"):
        generator.interpolate(3, 8, 4)


@pytest.mark.parametrize("frames", [0, -1, 2.0, True, None, "3", 2**63, np.float64(2)])
def test_a_walk_of_no_number_of_frames_is_refused_as_it_is_asked_for(
    nothing_is_drawn: None, generator: Generator, frames: Any
) -> None:
    with pytest.raises(InputError, match=r"The number of frames was refused.*from 1 to 2\^63 - 1"):
        generator.walk(0, 1, frames)


@pytest.mark.parametrize("seeds", [(-1, 0), (0, 2**64), (None, 0), (0, 0.5), (True, 1)])
def test_a_walk_between_what_are_no_seeds_is_refused_as_it_is_asked_for(
    generator: Generator, runs: list[Run], seeds: tuple[Any, Any]
) -> None:
    with pytest.raises(InputError, match=r"The (first|last) seed was refused"):
        generator.walk(*seeds, 3)
    assert runs == []


@pytest.mark.parametrize(
    "parts", [{}, {"noise": True}, {"truncation": True}, {"draw": "uniform"}, SHARED]
)
@pytest.mark.parametrize("frames", [2, 5, 20])
def test_an_interpolation_begins_and_ends_at_the_two_seeds(
    parts: dict[str, Any], frames: int
) -> None:
    generator = opened(tiny_model(**parts))
    images = generator.interpolate(3, 8, frames, label="2")
    assert images.shape == (frames, 8, 8, 3)
    np.testing.assert_array_equal(images[0], generator.sample(1, seed=3, label="2")[0])
    np.testing.assert_array_equal(images[-1], generator.sample(1, seed=8, label="2")[0])


def test_one_frame_is_the_first_seed(generator: Generator) -> None:
    np.testing.assert_array_equal(generator.interpolate(3, 8, 1), generator.sample(1, seed=3))


def test_the_label_stays_that_of_the_first_seed(generator: Generator, runs: list[Run]) -> None:
    labels = {seed: reference_inputs(SIGNATURE, seed, [0])["label"][0] for seed in range(20)}
    last = next(seed for seed in labels if labels[seed] != labels[0])
    generator.interpolate(0, last, 7)
    assert np.concatenate([run["label"] for run in runs]).tolist() == [labels[0]] * 7


def path_between(
    generator: Generator,
    runs: list[Run],
    ends: list[list[float]],
    frames: int,
    monkeypatch: pytest.MonkeyPatch,
) -> Array:
    """The latents of an interpolation between two seeds whose normals are `ends`."""
    rows = iter(ends)
    monkeypatch.setattr(latents, "normals", lambda drawn: np.array([next(rows)], np.float32))
    generator.interpolate(1, 2, frames, label=0)
    return np.concatenate([run["z"] for run in runs])


def test_between_latents_of_one_norm_the_path_is_the_circle(
    generator: Generator, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = path_between(generator, runs, [[2.0, 0, 0, 0], [0, 0, 2.0, 0]], 31, monkeypatch)
    angles = [math.pi / 2 * i / 30 for i in range(31)]
    circle = np.array([[2 * math.cos(a), 0, 2 * math.sin(a), 0] for a in angles])
    np.testing.assert_allclose(path, circle, rtol=0, atol=2.0**-23)  # one float32 rounding below 2
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 2.0, rtol=2.0**-23)


@pytest.mark.parametrize(
    "ends",
    [
        [[1.0, 2, 3, 4], [1.0, 2, 3, 4]],
        [[1.0, 2, 3, 4], [-1.0, -2, -3, -4]],
        [[1.0, 2, 3, 4], [2.0, 4, 6, 8]],
        [[0.0, 0, 0, 0], [0.0, 0, 0, 0]],
    ],
    ids=["equal", "opposite", "parallel", "zero"],
)
def test_between_latents_on_one_line_the_path_is_the_line(
    generator: Generator, runs: list[Run], monkeypatch: pytest.MonkeyPatch, ends: list[list[float]]
) -> None:
    path = path_between(generator, runs, ends, 5, monkeypatch)
    line = [[a + (b - a) * i / 4 for a, b in zip(*ends, strict=True)] for i in range(5)]
    assert path.tolist() == line


def test_uniform_latents_move_on_the_line_and_stay_in_their_range(runs: list[Run]) -> None:
    signature = tiny_signature(labels=False)
    signature["inputs"][0] |= {
        "range": [-1, 1],
        "draw": {"kind": "uniform", "stream": 0, "low": -1.0, "high": 1.0},
    }
    generator = opened(with_metadata(tiny_model(labels=False), signature=signature))
    for last in range(1, 40):
        generator.interpolate(0, last, 3)
        path = runs.pop()["z"]
        a, b = path[0].astype(np.float64), path[2].astype(np.float64)
        np.testing.assert_allclose(path[1], (a + b) / 2, rtol=0, atol=2.0**-25)


@pytest.mark.parametrize("seeds", [(-1, 0), (0, 2**64), (None, 0), (0, 0.5)])
def test_an_interpolation_between_what_are_no_seeds_is_refused(
    generator: Generator, seeds: tuple[Any, Any]
) -> None:
    with pytest.raises(InputError, match=r"The (first|last) seed was refused"):
        generator.interpolate(*seeds, 3)


# What a generator says of itself.


def test_a_generator_says_what_it_is(generator: Generator) -> None:
    assert generator.device == "cpu"
    assert generator.classes == CLASSES
    assert [field.name for field in generator.signature.inputs] == ["z", "label"]
    assert generator.metadata("latents") == {"version": 1}
    assert generator.metadata("training") == {}
    assert repr(generator) == "Generator('<bytes>', device='cpu')"


def test_images_are_the_sample_for_pillow(generator: Generator) -> None:
    images = generator.images(3, seed=2, start=1, label="1")
    assert [(image.mode, image.size) for image in images] == [("RGB", (8, 8))] * 3
    expected = generator.sample(3, seed=2, start=1, label="1")
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in images]), expected)


# Graphs that break their word, and files made to hurt.


def with_last_node(data: bytes, node: onnx.NodeProto, *constants: TensorProto) -> bytes:
    """The file with one more node, from `pixels` (what was the image) to `image`."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "pixels"
        model.graph.node.append(node)
        model.graph.initializer.extend(constants)

    return edited(data, edit)


def numbers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values), name)


def test_an_output_of_another_shape_than_the_declared_one_is_refused(labelled: bytes) -> None:
    tile = helper.make_node("Tile", ["pixels", "twice"], ["image"])
    data = with_last_node(labelled, tile, numbers("twice", 1, 2, 1, 1))
    generator = opened(data)
    calls: list[Callable[[], object]] = [
        lambda: generator.sample(3, seed=0),
        lambda: generator(z=Z, label=LABEL),
        lambda: next(generator.stream(1, seed=0)),
        lambda: generator.interpolate(0, 1, 2),
    ]
    for call in calls:
        with pytest.raises(ModelFileError, match=r"Output image is not.*\[\d, 16, 8, 3\]"):
            call()


@pytest.mark.parametrize(("copies", "seen"), [(2, 6), (0, 0)])
def test_an_output_of_more_or_fewer_images_than_asked_for_is_refused(
    labelled: bytes, copies: int, seen: int
) -> None:
    tile = helper.make_node("Tile", ["pixels", "times"], ["image"])
    data = with_last_node(labelled, tile, numbers("times", copies, 1, 1, 1))
    with pytest.raises(ModelFileError, match=rf"shape \[{seen}, 8, 8, 3\] for a batch of 3"):
        opened(data).sample(3, seed=0)


def test_a_graph_that_fails_as_it_runs_is_a_model_file_error(labelled: bytes) -> None:
    gather = helper.make_node("Gather", ["pixels", "far"], ["image"], axis=0)
    data = with_last_node(labelled, gather, numbers("far", 5))
    with pytest.raises(ModelFileError, match="onnxruntime failed while it ran the model"):
        opened(data).sample(3, seed=0)


def test_a_graph_that_onnxruntime_refuses_is_a_model_file_error(labelled: bytes) -> None:
    turn = helper.make_node("Transpose", ["pixels"], ["image"], perm=[0, 0, 0, 0])
    data = with_last_node(labelled, turn)
    with pytest.raises(ModelFileError, match="onnxruntime refused the model"):
        opened(data)


@settings(deadline=None, derandomize=not TORTURE, max_examples=20_000 if TORTURE else 200)
@given(data=st.data())
@pytest.mark.torture
def test_any_bytes_changed_give_a_generator_that_samples_or_a_gan_error(
    labelled: bytes, data: st.DataObject
) -> None:
    model = onnx.load_model_from_string(labelled)
    weights = next(tensor.raw_data for tensor in model.graph.initializer if tensor.name == "w")
    begin = labelled.index(weights)
    structure = [*range(begin), *range(begin + len(weights), len(labelled))]
    changed = bytearray(labelled)
    for place in data.draw(st.lists(st.sampled_from(structure), min_size=1, max_size=4)):
        changed[place] = data.draw(
            st.integers(0, 255) | st.sampled_from([labelled[place] ^ 1 << i for i in range(8)])
        )
    if data.draw(st.booleans()):
        place = data.draw(st.sampled_from(structure))
        changed[place:place] = data.draw(st.binary(max_size=8))
    try:
        generator = opened(bytes(changed), max_output_bytes=1 << 20)
        images = generator.sample(2, seed=0)
    except GanError:
        return
    main = generator.signature.main
    assert images.shape == (2, *main.shape)
    assert images.dtype == main.dtype
