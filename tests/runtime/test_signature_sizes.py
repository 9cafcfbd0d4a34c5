"""What a signature says of images of any size: radius, least, dynamic axes and their sizes, and JSON made to hurt."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan.runtime import Field, ModelFileError, Signature
from gan.runtime.signature import split_axis

IMAGE = Field("image", (3, "h", "w"), "image", range=(-1.0, 1.0))
LARGE = Field("large", (3, "4*h", "4*w"), "image", range=(-1.0, 1.0))


def signature(**more: Any) -> Signature:
    return Signature((IMAGE,), (LARGE,), **more)


@given(st.none() | st.integers(0, 2**20 - 1), st.integers(1, 2**20 - 1))
def test_radius_and_least_go_round(radius: int | None, least: int) -> None:
    whole = signature(radius=radius, least=least)
    assert Signature.from_json(whole.to_json()) == whole


def test_a_signature_without_them_has_the_text_of_older_files() -> None:
    assert not {"radius", "least"} & set(json.loads(signature().to_json()))
    assert json.loads(signature(radius=0).to_json())["radius"] == 0


HOSTILE = [-1, 2**20, 1.0, 1.5, True, False, "3", [3], {}, 10**400, -(10**400)]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda x: f"{x!r:.12}")
@pytest.mark.parametrize("name", ["radius", "least"])
def test_other_values_are_refused(name: str, value: Any) -> None:
    content = json.loads(signature().to_json()) | {name: value}
    with pytest.raises(ModelFileError):
        Signature.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "null", "0", "1e99"])
def test_a_least_of_0_or_of_nothing_is_refused(text: str) -> None:
    content = signature().to_json()
    broken = content[:-1] + f', "least": {text}}}'
    with pytest.raises(ModelFileError):
        Signature.from_json(broken)


@pytest.mark.parametrize(
    "axis",
    ["0*h", "-1*h", "10000*h", "4*", "*h", "4*4*h", "4 * h", "H", "h" * 33, "", "4*h\n", "04*h"],
)
def test_other_axes_are_refused(axis: str) -> None:
    content = signature().to_json().replace('"4*h"', json.dumps(axis))
    with pytest.raises(ModelFileError):
        Signature.from_json(content)


@pytest.mark.parametrize(
    ("axis", "parts"), [("h", (1, "h")), ("4*h", (4, "h")), ("1024*w_2", (1024, "w_2"))]
)
def test_an_axis_is_a_factor_and_a_name(axis: str, parts: tuple[int, str]) -> None:
    assert split_axis(axis) == parts


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_shape_at_sizes_is_each_axis_by_its_factor(h: int, w: int) -> None:
    sizes = {"h": h, "w": w}
    assert IMAGE.shape_at(sizes) == (3, h, w) and LARGE.shape_at(sizes) == (3, 4 * h, 4 * w)
    assert Field("z", (7,)).shape_at({}) == (7,) and Field("y", ()).shape_at({}) == ()


def test_factors_are_the_largest_multiple_of_each_axis() -> None:
    mask = Field("mask", (1, "2*h", "w"), "mask", range=(0.0, 1.0))
    whole = Signature((IMAGE, mask, Field("z", (4,))), (LARGE,))
    assert whole.factors == {"h": 4, "w": 4}
    assert list(whole.factors) == ["h", "w"] and Signature((mask,), (mask,)).factors["h"] == 2
    assert Signature((Field("z", (4,)),), (Field("x", (4,)),)).factors == {}


@pytest.mark.parametrize(
    ("factor", "least", "size"), [(1, 1, 64), (4, 1, 16), (7, 1, 9), (256, 1, 1), (256, 3, 3), (4, 40, 40)]
)  # fmt: skip
def test_an_example_is_of_about_64_pixels_and_never_too_small(
    factor: int, least: int, size: int
) -> None:
    axes = (f"{factor}*h",) * 2 if factor > 1 else ("h", "h")
    field = Field("image", (3, *axes), "image")
    whole = Signature((field,), (field,), least=least)
    assert whole.example_sizes == {"h": size}
    assert whole.example_values == 3 * (factor * size) ** 2


def test_a_fixed_signature_has_one_size() -> None:
    field = Field("image", (3, 8, 8), "image")
    whole = Signature((field,), (field,))
    assert whole.example_sizes == {} and whole.example_values == math.prod((3, 8, 8))
