"""The inputs of a graph, one field at a time: drawn as the stream says, refused where they do not fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gan.runtime import Draw, Field, InputError
from gan.runtime.inputs import check_input, draw_field

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
