"""The golden sample: exact on a good file, a number where it is near, an error where it is not or was tampered with."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.random import RandomState

from gan.runtime import Field, Generator, ModelFileError, ParityError, Signature
from gan.runtime.golden import Golden, golden_inputs

from .conftest import (
    Edit,
    brought_signature,
    edited,
    metadata,
    reference_inputs,
    seal,
    tiny_graph,
    tiny_model,
    tiny_signature,
    with_metadata,
)

IMAGE = Field("image", (8, 8, 3), "image", "uint8", (0.0, 255.0))
Change = Callable[[dict[str, Any]], object]


def opened(data: bytes) -> Generator:
    return Generator(data, device="cpu", threads=1)


def shifted(data: bytes, steps: int) -> bytes:
    """The file with the first and last recorded value moved by `steps`, and the digest that belongs to that."""
    golden = metadata(data)["golden"]
    images = [bytearray(base64.b64decode(row)) for row in golden["values"]]
    for row, place in ((0, 0), (1, -1)):
        value = images[row][place]
        images[row][place] = value + steps if value < 128 else value - steps
    golden["values"] = [base64.b64encode(image).decode() for image in images]
    golden["sha256"] = hashlib.sha256(b"".join(images)).hexdigest()
    return with_metadata(data, golden=golden)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"labels": False},
        {"truncation": True},
        {"noise": True},
        {"noise": True, "shared": True, "truncation": True},
    ],
)
def test_a_good_file_is_exact(parts: dict[str, Any]) -> None:
    assert opened(tiny_model(**parts)).verify() == "exact"


BROUGHT: list[dict[str, Any]] = [
    {"kind": "style"},
    {"kind": "image", "range": [-1, 1]},
    {"kind": "image", "range": [0, 255]},
]


@pytest.mark.parametrize("about", BROUGHT)
def test_a_file_with_an_input_that_the_caller_brings_is_verified_by_a_stand_in(
    about: dict[str, Any],
) -> None:
    signature = brought_signature(**about)
    data = seal(tiny_graph(signature), signature)
    assert opened(data).verify() == "exact"
    assert opened(shifted(data, 1)).verify() == "largest step 1 of 255"
    with pytest.raises(ParityError, match="The largest step is 3 of 255"):
        opened(shifted(data, 3)).verify()
    with pytest.raises(ModelFileError, match="The model was changed after its export"):
        opened(edited(data, other_weight)).verify()


@pytest.mark.parametrize("about", BROUGHT)
def test_the_golden_inputs_are_what_sample_draws_and_a_stand_in_for_the_rest(
    about: dict[str, Any],
) -> None:
    content = brought_signature(**about)
    signature = Signature.from_json(json.dumps(content))
    inputs = golden_inputs(signature, 5, 3)
    expected = reference_inputs(content, 5, range(3))
    assert list(inputs) == list(expected) == ["z", "label", "noise"]
    for name, values in expected.items():
        np.testing.assert_allclose(inputs[name], values, rtol=2.0**-23, atol=2.0**-17)
        assert inputs[name].dtype == values.dtype
    plain = tiny_signature(truncation=True, noise=True, shared=True)
    drawn = golden_inputs(Signature.from_json(json.dumps(plain)), 5, 3)
    for name, values in reference_inputs(plain, 5, range(3)).items():
        np.testing.assert_array_equal(drawn[name], values)


def test_a_golden_sample_one_step_away_passes_with_its_number(labelled: bytes) -> None:
    assert opened(shifted(labelled, 1)).verify() == "largest step 1 of 255"


@pytest.mark.parametrize("steps", [2, 3, 100])
def test_a_golden_sample_further_away_is_a_parity_error(labelled: bytes, steps: int) -> None:
    with pytest.raises(ParityError) as caught:
        opened(shifted(labelled, steps)).verify()
    assert caught.value.seen == f"The largest step is {steps} of 255, at most 1 is allowed"


def test_on_cuda_two_steps_are_allowed_and_three_are_not(
    labelled: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "device", "cuda:0")
    assert opened(shifted(labelled, 2)).verify() == "largest step 2 of 255"
    with pytest.raises(ParityError, match="3 of 255, at most 2 is allowed"):
        opened(shifted(labelled, 3)).verify()


def other_weight(model: onnx.ModelProto) -> None:
    values = bytearray(model.graph.initializer[0].raw_data)
    values[5] ^= 1  # far too little to be seen in an image
    model.graph.initializer[0].raw_data = bytes(values)


GRAPH_EDITS: dict[str, Edit] = {
    "a bit of a weight": other_weight,
    "the name of the graph": lambda m: setattr(m.graph, "name", "other"),
}


@pytest.mark.parametrize("name", GRAPH_EDITS)
def test_a_file_whose_graph_was_changed_is_refused(labelled: bytes, name: str) -> None:
    with pytest.raises(ModelFileError, match="The model was changed after its export"):
        opened(edited(labelled, GRAPH_EDITS[name])).verify()


@pytest.mark.parametrize("weights", [None, {}, {"graph": "0" * 64}, {"graph": 7}, {"graph": None}])
def test_a_file_without_the_true_digest_is_refused(labelled: bytes, weights: Any) -> None:
    with pytest.raises(ModelFileError, match="The model was changed after its export"):
        opened(with_metadata(labelled, weights=weights)).verify()


HOSTILE: dict[str, Change] = {
    "format 2": lambda g: g.update(format=2),
    "no seed": lambda g: g.pop("seed"),
    "a seed below 0": lambda g: g.update(seed=-1),
    "a seed of 2^64": lambda g: g.update(seed=2**64),
    "a seed that is a float": lambda g: g.update(seed=0.0),
    "a count of 0": lambda g: g.update(count=0, values=[]),
    "a count of a million": lambda g: g.update(count=1_000_000),
    "a count that is true": lambda g: g.update(count=True, values=g["values"][:1]),
    "64 images": lambda g: g.update(count=64, values=g["values"][:1] * 64),
    "3 images": lambda g: g.update(count=3, values=g["values"][:1] * 3),
    "fewer values than the count": lambda g: g["values"].pop(),
    "rows of unequal length": lambda g: g["values"].__setitem__(1, "AAAA"),
    "values that are no base64": lambda g: g["values"].__setitem__(0, "!" * 256),
    "values that are numbers": lambda g: g.update(values=[1, 2]),
    "values that are nothing": lambda g: g.update(values=None),
    "another dtype": lambda g: g.update(dtype="object"),
    "a dtype that is a list": lambda g: g.update(dtype=["uint8"]),
    "floats of three bytes": lambda g: g.update(dtype="float32", values=["AAAA", "AAAA"]),
    "no digest": lambda g: g.pop("sha256"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_golden_sample_that_cannot_be_read_is_refused(labelled: bytes, name: str) -> None:
    golden = copy.deepcopy(metadata(labelled)["golden"])
    HOSTILE[name](golden)
    with pytest.raises(ModelFileError, match="The file's golden sample cannot be read"):
        opened(with_metadata(labelled, golden=golden)).verify()


def test_a_file_without_a_golden_sample_is_refused(labelled: bytes) -> None:
    with pytest.raises(ModelFileError, match="The file's golden sample cannot be read"):
        opened(with_metadata(labelled, golden=None)).verify()


def test_a_golden_sample_of_another_size_is_a_parity_error(labelled: bytes) -> None:
    golden = metadata(labelled)["golden"]
    golden["values"] = [row[:128] for row in golden["values"]]
    golden["sha256"] = ""
    with pytest.raises(ParityError, match=r"another size. \(2, 192\), not \(2, 96\)"):
        opened(with_metadata(labelled, golden=golden)).verify()


@pytest.mark.parametrize(
    "shape", [(2, 8, 8, 3), (2, 64, 64, 1), (2, 100, 90, 3), (2, 4097), (2, 1)]
)
def test_4096_values_at_even_distances_are_recorded_of_each_image(shape: tuple[int, ...]) -> None:
    outputs = RandomState(0).randint(0, 256, shape).astype(np.uint8)
    golden = Golden.record(outputs)
    size = outputs[0].size
    kept = min(4096, size)
    for image, values in zip(outputs, golden.values, strict=True):
        flat = image.ravel().tolist()
        assert values.tolist() == [flat[i * size // kept] for i in range(kept)]
    assert golden.digest == hashlib.sha256(outputs.tobytes()).hexdigest()
    assert (golden.seed, golden.count) == (0, 2)


@pytest.mark.parametrize("dtype", ["uint8", "float32", ">f4"])
def test_a_golden_sample_survives_the_metadata_in_little_endian(dtype: str) -> None:
    outputs = (RandomState(0).uniform(0, 255, (2, 5, 3))).astype(dtype)
    golden = Golden.record(outputs)
    content = golden.to_metadata()
    letter = "B" if dtype == "uint8" else "f"
    for row, image in zip(content["values"], outputs, strict=True):
        assert struct.unpack(f"<15{letter}", base64.b64decode(row)) == tuple(image.ravel().tolist())
    back = Golden.from_metadata(content)
    np.testing.assert_array_equal(back.values, golden.values)
    assert (back.seed, back.count, back.digest) == (golden.seed, golden.count, golden.digest)
    assert back.compare(outputs.astype(content["dtype"]), IMAGE, limit=0) == "exact"


@pytest.mark.parametrize(
    ("span", "difference", "steps"),
    [((0.0, 255.0), 1.0, 1.0), ((-1.0, 1.0), 1 / 127.5, 1.0), (None, 1 / 127.5, 1.0), ((0.0, 1.0), 0.2, 51.0)],
)  # fmt: skip
def test_a_step_is_a_255th_of_the_range(
    span: tuple[float, float] | None, difference: float, steps: float
) -> None:
    outputs = np.zeros((2, 4), np.float32)
    other = outputs.copy()
    other[1, 2] = difference
    field = Field("image", (4,), "image", "float32", span)
    verdict = Golden.record(outputs).compare(other, field, limit=200)
    assert verdict == f"largest step {steps:g} of 255"
    with pytest.raises(ParityError):
        Golden.record(outputs).compare(other, field, limit=steps * 0.99)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_a_parity_error(bad: float) -> None:
    outputs = np.zeros((2, 4), np.float32)
    other = outputs.copy()
    other[0, 0] = bad
    with pytest.raises(ParityError, match="inf of 255"):
        Golden.record(outputs).compare(other, Field("y", (4,)), limit=2)
