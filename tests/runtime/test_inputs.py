"""The inputs of a graph, one field at a time: drawn as the stream says, refused where they do not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan.runtime import Draw, Field, InputError, ModelFileError, Signature, latents
from gan.runtime.inputs import between, check_input, draw_field, stand_in

from .conftest import reference_normal, reference_uniform, reference_words


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (Draw("normal"), reference_normal),
        (Draw("normal", scale=0.5), lambda word: reference_normal(word) * 0.5),
        (Draw("uniform"), reference_uniform),
        (Draw("uniform", low=-1.0, high=1.0), lambda word: reference_uniform(word) * 2 - 1),
        (Draw("fixed", value=0.75), lambda word: 0.75),
    ],
    ids=["normal", "half a normal", "uniform", "from -1 to 1", "fixed"],
)
def test_a_field_is_drawn_as_its_draw_says(draw: Draw, expected: Callable[[int], float]) -> None:
    values = draw_field(Field("z", (3, 2), draw=draw), 6, [4, 9])
    assert values.dtype == np.float32
    assert values.shape == (2, 3, 2)
    for row, index in zip(values, (4, 9), strict=True):
        assert row.ravel().tolist() == [expected(word) for word in reference_words(6, 0, index, 6)]


@pytest.mark.parametrize(
    "z", [Field("z", (4,)), Field("z", ("t",), draw=Draw("normal"))], ids=["no draw", "any length"]
)
def test_a_field_that_is_the_callers_to_give_is_not_drawn(z: Field) -> None:
    with pytest.raises(InputError, match=r"Input z cannot be drawn.*generator\(z=\.\.\.\)"):
        draw_field(z, 0, range(2))


@pytest.mark.parametrize(
    ("value", "good"), [(0, True), (255, True), (-1, False), (256, False), (300, False)]
)
def test_bytes_outside_0_to_255_are_refused_and_not_wrapped(value: int, good: bool) -> None:
    source = Field("source", (2,), "image", "uint8")
    if good:
        assert check_input(source, [[value] * 2]).tolist() == [[value] * 2]
    else:
        with pytest.raises(
            InputError, match=f"Input source was refused. values from {value} to {value}"
        ):
            check_input(source, [[value] * 2])


def test_an_axis_of_the_callers_choice_takes_any_length_but_none() -> None:
    wave = Field("wave", ("t", 2), "points")
    for length in (1, 5, 1000):
        assert check_input(wave, np.zeros((3, length, 2))).shape == (3, length, 2)
    with pytest.raises(InputError, match=r"shape \[3, 0, 2\]. Give float32 \[batch, t, 2\]"):
        check_input(wave, np.zeros((3, 0, 2)))


# One draw for all images.

NOISE = Field("noise", (2, 3), "noise", draw=Draw("normal", 17, shared=True))


@pytest.mark.parametrize(("seed", "indices"), [(0, [0]), (6, [4, 9]), (2**64 - 1, range(7))])
def test_a_shared_field_is_image_0_of_seed_0_whatever_is_asked_for(seed: int, indices: Any) -> None:
    values = draw_field(NOISE, seed, indices)
    assert values.shape == (len(indices), 2, 3) and values.dtype == np.float32
    expected = [reference_normal(word) for word in reference_words(0, 17, 0, 6)]
    assert all(row.ravel().tolist() == expected for row in values)
    assert not values.flags.writeable  # one draw under all of them


def test_a_shared_field_drawn_for_each_image_is_that_of_its_seed_and_number() -> None:
    values = draw_field(NOISE, 6, [4, 9], each=True)
    for row, index in zip(values, (4, 9), strict=True):
        assert row.ravel().tolist() == [
            reference_normal(word) for word in reference_words(6, 17, index, 6)
        ]
    values[:] = 0  # the caller's own


@pytest.mark.parametrize(
    "draw", [Draw("normal"), Draw("uniform", low=-2.0), Draw("fixed", value=3.0)]
)
def test_for_a_field_that_is_not_shared_each_changes_nothing(draw: Draw) -> None:
    z = Field("z", (3,), draw=draw)
    np.testing.assert_array_equal(draw_field(z, 6, range(4), each=True), draw_field(z, 6, range(4)))


def test_between_two_ends_a_shared_field_stays_as_it_is_in_the_first() -> None:
    a, b = draw_field(NOISE, 1, range(2), each=True)
    steps = np.linspace(0, 1, 5)
    np.testing.assert_array_equal(between(NOISE, a, b, steps), [a] * 5)
    drawn = dataclasses.replace(NOISE, draw=Draw("normal", 17))
    moving = between(drawn, a, b, steps)
    np.testing.assert_allclose(moving[[0, -1]], [a, b], rtol=1e-6)
    assert len({row.tobytes() for row in moving}) == 5


# Stand-ins.

STYLE = Field("w", (2, 3), "style")
PHOTO = Field("photo", (3, 2, 2), "image", range=(-1.0, 1.0))


def test_a_stand_in_without_a_range_is_standard_normal_from_its_own_stream() -> None:
    values = stand_in(STYLE, 5, 6, [4, 9])
    assert values.dtype == np.float32 and values.shape == (2, 2, 3)
    for row, index in zip(values, (4, 9), strict=True):
        words = reference_words(6, 2**32 + 5, index, 6)
        assert row.ravel().tolist() == [reference_normal(word) for word in words]


def test_a_stand_in_with_a_range_is_uniform_in_it() -> None:
    values = stand_in(PHOTO, 0, 6, [4, 9])
    assert values.dtype == np.float32 and values.shape == (2, 3, 2, 2)
    for row, index in zip(values, (4, 9), strict=True):
        words = reference_words(6, 2**32, index, 12)
        assert row.ravel().tolist() == [2 * reference_uniform(word) - 1 for word in words]


@pytest.mark.parametrize(
    "field",
    [
        STYLE,
        PHOTO,
        dataclasses.replace(PHOTO, range=(250.0, 251.0)),
        Field("bytes", (64,), "image", "uint8"),
        Field("bytes", (64,), "image", "uint8", (7.0, 9.0)),
        Field("label", (), "label", "int64", (0.0, 9.0)),
        Field("label", (), "label", "int64", (0.0, 2.0**31 - 1)),
        Field("label", (), "label", "int64", (0.0, 0.0)),
        Field("numbers", (64,), "scalar", "int64"),
        Field("wave", ("t", 2), "points"),
        Field("wide", (64,), "scalar", range=(-1e30, 1e30)),
    ],
)
def test_a_stand_in_is_what_the_field_takes(field: Field) -> None:
    values = stand_in(field, 3, 1, range(500), {"t": 64})
    assert values.dtype == field.dtype and len(values) == 500
    np.testing.assert_array_equal(check_input(field, values), values)
    np.testing.assert_array_equal(
        stand_in(field, 3, 1, range(500), {"t": 64}), values
    )  # again the same
    np.testing.assert_array_equal(stand_in(field, 3, 1, range(7, 9), {"t": 64}), values[7:9])
    if field.range != (0.0, 0.0):
        low, high = np.quantile(values, [0.05, 0.95])
        assert high - low > 0.5 * (field.range[1] - field.range[0] if field.range else 2.0) or (
            field.dtype == "uint8" and field.range == (7.0, 9.0) and high > low
        )
        assert not np.array_equal(
            stand_in(field, 4, 1, range(500), {"t": 64}), values
        )  # of another input
        assert not np.array_equal(
            stand_in(field, 3, 2, range(500), {"t": 64}), values
        )  # of another seed


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.floats(-1000, 1000), st.floats(0.01, 1000))
def test_a_stand_in_stays_in_any_range(low: float, width: float) -> None:
    field = Field("x", (50,), "image", range=(low, low + width))
    check_input(field, stand_in(field, 0, 0, range(4)))


@pytest.mark.parametrize(
    "draw", [Draw("normal", 16), Draw("normal", 16, shared=True), Draw("fixed", value=0.5), Draw("uniform", 3)]
)  # fmt: skip
def test_what_can_be_drawn_has_no_stand_in(draw: Draw) -> None:
    field = Field("x", (4,), draw=draw)
    for each in (False, True):
        np.testing.assert_array_equal(
            stand_in(field, 9, 6, range(3), each=each), draw_field(field, 6, range(3), each=each)
        )


@pytest.mark.parametrize("place", [0, 1, 63])
def test_the_stream_of_a_stand_in_is_none_that_a_signature_can_name(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = []
    words = latents.words

    def watched(seed: int, stream: int, *rest: Any) -> Any:
        streams.append(stream)
        return words(seed, stream, *rest)

    monkeypatch.setattr(latents, "words", watched)
    stand_in(STYLE, place, 0, range(1))
    output = (Field("image", (8, 8, 3), "image", "uint8", (0.0, 255.0)),)
    (stream,) = streams
    with pytest.raises(ModelFileError, match="from stream"):
        Signature.from_json(
            Signature((Field("z", (4,), draw=Draw("normal", stream)),), output).to_json()
        )
