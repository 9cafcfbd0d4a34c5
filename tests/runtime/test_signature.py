"""Signatures survive JSON unchanged; JSON made to hurt gives a ModelFileError and nothing else."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan.runtime import Draw, Field, GanError, ModelFileError, Signature
from gan.runtime.signature import (
    DType,
    FieldKind,
    class_count,
    natural_order,
    parse_json_object,
    split_axis,
)

from .conftest import tiny_signature

NUMBERS = st.floats(-1e30, 1e30)
LIMITS = {"float32": (-1e30, 1e30), "int64": (-(2.0**53), 2.0**53), "uint8": (0.0, 255.0)}
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,63}", fullmatch=True)
AXES = st.one_of(
    st.integers(1, 1024), st.from_regex(r"([1-9][0-9]{0,3}\*)?[a-z][a-z0-9_]{0,31}", fullmatch=True)
)
SHAPES = st.lists(AXES, max_size=4).map(tuple)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([2**63, -1, 10**400, "label", "normal", "choice", "int64", "image"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
Edit = Callable[[dict[str, Any]], object]


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    names = draw(st.lists(NAMES, min_size=2, max_size=6, unique=True))
    streams = draw(st.permutations([*range(8), 16, 17, 4111]))
    first_output = draw(st.integers(1, len(names) - 1))
    fields = [draw(ordinary(name, streams[place])) for place, name in enumerate(names)]
    classes: tuple[str, ...] = ()
    if draw(st.booleans()):
        count = draw(st.integers(1, 5))
        choice = Draw("choice", streams[0])
        fields[0] = Field(names[0], (), "label", "int64", (0.0, count - 1.0), choice)
        if draw(st.booleans()):
            classes = tuple(draw(st.lists(st.text(max_size=20), min_size=count, max_size=count)))
    inputs, outputs = fields[:first_output], fields[first_output:]
    known = {split_axis(a)[1] for field in inputs for a in field.shape if isinstance(a, str)}
    outputs = [
        dataclasses.replace(
            field,
            shape=tuple(
                a if isinstance(a, int) or split_axis(a)[1] in known else 7 for a in field.shape
            ),
        )
        for field in outputs
    ]
    return Signature(tuple(inputs), tuple(outputs), classes)


@st.composite
def ordinary(draw: st.DrawFn, name: str, stream: int) -> Field:
    """A field of any kind but a label."""
    dtype = draw(st.sampled_from(get_args(DType)))
    low, high = sorted(draw(st.tuples(*[st.floats(*LIMITS[dtype])] * 2)))
    bounds = (low, high) if low < high else None
    values = st.floats(*(bounds or LIMITS[dtype]))
    draws = [st.none(), st.builds(Draw, st.just("fixed"), st.just(stream), value=values)]
    if dtype == "float32":
        draws += [
            st.builds(
                Draw, st.just("normal"), st.just(stream), scale=NUMBERS, shared=st.booleans()
            ),
            st.builds(
                Draw,
                st.just("uniform"),
                st.just(stream),
                low=NUMBERS,
                high=NUMBERS,
                shared=st.booleans(),
            ),
        ]
    kind = draw(st.sampled_from([kind for kind in get_args(FieldKind) if kind != "label"]))
    return Field(name, draw(SHAPES), kind, dtype, bounds, draw(st.one_of(draws)))


@settings(deadline=None, derandomize=True, max_examples=100)
@given(signatures())
def test_a_signature_survives_json(signature: Signature) -> None:
    text = signature.to_json()
    back = Signature.from_json(text)
    assert back == signature
    assert back.to_json() == text
    assert json.loads(text)["format"] == 1


def test_the_json_is_the_documented_one() -> None:
    signature = Signature(
        (
            Field("z", (64,), draw=Draw("normal", scale=0.5)),
            Field("label", (), "label", "int64", (0, 1), Draw("choice", stream=1)),
            Field("psi", (), "scalar", range=(0, 1), draw=Draw("fixed", 2, value=1.0)),
            Field("u", ("t", "4*t"), "noise", draw=Draw("uniform", 16, low=-1.0, high=1.0)),
            Field("eps", (1, 8), "noise", draw=Draw("normal", 17, shared=True)),
            Field("w", (4, 3), "style"),
        ),
        (Field("image", (8, 8, 3), "image", "uint8", (0, 255)),),
        ("cat", "dög"),
    )
    assert json.loads(signature.to_json()) == {
        "format": 1,
        "classes": ["cat", "dög"],
        "inputs": [
            {"name": "z", "shape": [64], "kind": "latent", "dtype": "float32",
             "draw": {"kind": "normal", "stream": 0, "scale": 0.5}},
            {"name": "label", "shape": [], "kind": "label", "dtype": "int64", "range": [0, 1],
             "draw": {"kind": "choice", "stream": 1}},
            {"name": "psi", "shape": [], "kind": "scalar", "dtype": "float32", "range": [0, 1],
             "draw": {"kind": "fixed", "stream": 2, "value": 1.0}},
            {"name": "u", "shape": ["t", "4*t"], "kind": "noise", "dtype": "float32",
             "draw": {"kind": "uniform", "stream": 16, "low": -1.0, "high": 1.0}},
            {"name": "eps", "shape": [1, 8], "kind": "noise", "dtype": "float32",
             "draw": {"kind": "normal", "stream": 17, "scale": 1.0, "shared": True}},
            {"name": "w", "shape": [4, 3], "kind": "style", "dtype": "float32"},
        ],
        "outputs": [{"name": "image", "shape": [8, 8, 3], "kind": "image", "dtype": "uint8", "range": [0, 255]}],
    }  # fmt: skip
    assert Signature.from_json(signature.to_json()) == signature


def test_a_signature_answers_what_it_holds() -> None:
    signature = Signature.from_json(json.dumps(tiny_signature(truncation=True)))
    assert [field.name for field in signature.inputs] == ["z", "label", "truncation"]
    assert signature.main.name == "image"
    assert signature.main.size == 8 * 8 * 3
    assert signature.label is signature.input("label") is signature.inputs[1]
    assert signature.label is not None
    assert class_count(signature.label) == 3
    assert signature.input("image") is None
    plain = Signature.from_json(json.dumps(tiny_signature(labels=False)))
    assert plain.label is None
    assert plain.classes == ()


def first(content: dict[str, Any]) -> dict[str, Any]:
    return dict(content["inputs"][0])


def field(place: int, **change: Any) -> Edit:
    return lambda content: content["inputs"][place].update(change)


def drawn(place: int, **change: Any) -> Edit:
    return lambda content: content["inputs"][place]["draw"].update(change)


FIXED = {"kind": "fixed", "stream": 0}
HOSTILE: dict[str, Edit] = {
    "format 2": lambda c: c.update(format=2),
    "format as text": lambda c: c.update(format="1"),
    "no format": lambda c: c.pop("format"),
    "no inputs": lambda c: c.update(inputs=[]),
    "no outputs": lambda c: c.update(outputs=[]),
    "inputs missing": lambda c: c.pop("inputs"),
    "classes missing": lambda c: c.pop("classes"),
    "inputs as an object": lambda c: c.update(inputs={"z": 1}),
    "inputs as numbers": lambda c: c.update(inputs=[1]),
    "inputs as texts": lambda c: c.update(inputs=["z"]),
    "an input twice": lambda c: c["inputs"].append(first(c)),
    "an input named as the output": field(0, name="image"),
    "two labels": lambda c: c["inputs"].append({**c["inputs"][1], "name": "b", "draw": None}),
    "a name with a path": field(0, name="../z"),
    "a name of 65 letters": field(0, name="z" * 65),
    "an empty name": field(0, name=""),
    "a name with a line end": field(0, name="z\n"),
    "a name that is a number": field(0, name=5),
    "an unknown kind": field(0, kind="video"),
    "a kind that is a list": field(0, kind=["latent"]),
    "an unknown dtype": field(0, dtype="float64"),
    "a shape that is a number": field(0, shape=4),
    "an axis of 0": field(0, shape=[0]),
    "an axis below 0": field(0, shape=[-4]),
    "an axis that is true": field(0, shape=[True]),
    "an axis of 1.0": field(0, shape=[4.0]),
    "an axis of 10^400": field(0, shape=[10**400]),
    "an axis that is a formula": field(0, shape=["__import__('os')"]),
    "an output axis that no input has": lambda c: c["outputs"][0].update(shape=["h", "w", 3]),
    "300 inputs": lambda c: c["inputs"].extend(
        {**first(c), "name": f"z{i}", "draw": None} for i in range(300)
    ),
    "nine axes": field(0, shape=[1] * 9),
    "2^44 values": field(0, shape=[2**22, 2**22]),
    "a range of one number": field(0, range=[1]),
    "a range of texts": field(0, range="ab"),
    "a range that is true": field(0, range=[False, True]),
    "a range that is turned round": field(0, range=[1, -1]),
    "a range without width": field(0, range=[1, 1]),
    "a range to 10^400": field(0, range=[0, 10**400]),
    "a range to 1e300, beyond float32": field(0, range=[0, 1e300]),
    "a draw that is a text": field(0, draw="normal"),
    "a draw that is empty": field(0, draw={}),
    "an unknown draw": drawn(0, kind="cauchy"),
    "a stream below 0": drawn(0, stream=-1),
    "a stream of 2^64": drawn(0, stream=2**64),
    "a stream that is a float": drawn(0, stream=0.0),
    "a stream that is true": drawn(1, stream=True),
    "a scale that is a text": drawn(0, scale="1"),
    "a scale of 1e300, beyond float32": drawn(0, scale=1e300),
    "a fixed value of 1e300": drawn(0, kind="fixed", value=1e300),
    "a latent drawn by choice": drawn(0, kind="choice"),
    "a latent of int64": field(0, dtype="int64"),
    "a fixed value outside the range": field(0, range=[0, 1], draw={**FIXED, "value": 2}),
    "a fixed value that no byte holds": field(0, dtype="uint8", draw={**FIXED, "value": 256}),
    "a range that no byte holds": field(0, dtype="uint8", range=[0, 256], draw=None),
    "a range that no integer holds": field(0, dtype="int64", range=[-1e19, 1e19], draw=None),
    "two inputs of one stream": drawn(1, stream=0),
    "shared by 1": drawn(0, shared=1),
    "shared by a text": drawn(0, shared="true"),
    "shared by null": drawn(0, shared=None),
    "shared by a list": drawn(0, shared=[True]),
    "a choice that is shared": drawn(1, shared=True),
    "a fixed value that is shared": field(0, draw={**FIXED, "value": 1.0, "shared": True}),
    "a label drawn from the normal distribution": drawn(1, kind="normal"),
    "a label without range": lambda c: c["inputs"][1].pop("range"),
    "a label from 1": field(1, range=[1, 3]),
    "a label to -1": field(1, range=[0, -1]),
    "a label of 2^31 classes": field(1, range=[0, 2**31]),
    "a label of float32": field(1, dtype="float32"),
    "a label with a shape": field(1, shape=[2]),
    "too few class names": lambda c: c["classes"].pop(),
    "too many class names": lambda c: c["classes"].append("x"),
    "class names without label": lambda c: c["inputs"].pop(1),
    "class names that are numbers": lambda c: c.update(classes=[1, 2, 10]),
    "class names that are one text": lambda c: c.update(classes="abc"),
    "a class name of 1,025 letters": lambda c: c.update(classes=["x" * 1025, "b", "c"]),
    "half a surrogate pair as class name": lambda c: c.update(classes=["\ud800", "b", "c"]),
}  # fmt: skip


def test_the_signature_that_the_hostile_ones_start_from_is_good() -> None:
    assert len(Signature.from_json(json.dumps(tiny_signature())).inputs) == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_a_signature_that_lies_is_refused(name: str) -> None:
    content = tiny_signature()
    HOSTILE[name](content)
    with pytest.raises(ModelFileError, match="The model's signature cannot be read") as caught:
        Signature.from_json(json.dumps(content))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '"signature"', "{'format': 1}", '{"format": NaN}', '{"a": Infinity}', "[" * 100000, '{"a":' * 100000, '{"format": 1' + "0" * 5000 + "}", " " * (2 ** 20 + 1), "\ufeff{}"],
    ids=lambda text: f"{len(text)} characters, {text[:12].strip()}",
)  # fmt: skip
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError):
        parse_json_object(text, "signature")
    with pytest.raises(ModelFileError):
        Signature.from_json(text)


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON document with every key of it."""
    keys = (
        content
        if isinstance(content, dict)
        else range(len(content))
        if isinstance(content, list)
        else ()
    )
    for key in list(keys):
        yield content, key
        yield from places(content[key])


@settings(deadline=None, derandomize=True, max_examples=400)
@given(data=st.data(), value=JSON)
def test_any_value_in_any_place_gives_a_signature_or_a_refusal(
    data: st.DataObject, value: Any
) -> None:
    content = copy.deepcopy(tiny_signature(truncation=True))
    container, key = data.draw(st.sampled_from(list(places(content))))
    container[key] = value
    try:
        signature = Signature.from_json(json.dumps(content))
    except GanError as error:
        assert isinstance(error, ModelFileError)
        return
    assert Signature.from_json(signature.to_json()) == signature
    for one in (*signature.inputs, *signature.outputs):
        assert all(math.isfinite(bound) for bound in one.range or ())


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "2", "1"], ["1", "2", "10"]),
        (["a10", "a2", "b1", "a1"], ["a1", "a2", "a10", "b1"]),
        (["x", "10", "9"], ["9", "10", "x"]),
        (["v1.10", "v1.9", "v1"], ["v1", "v1.9", "v1.10"]),
        (["02", "2", "1"], ["1", "02", "2"]),
        (["cat", "", "Dog"], ["", "Dog", "cat"]),
        (["²", "٣", "3"], ["3", "²", "٣"]),
        ([], []),
    ],
)
def test_class_names_sort_as_a_person_expects(names: list[str], ordered: list[str]) -> None:
    assert natural_order(names) == ordered


@settings(deadline=None, derandomize=True)
@given(st.lists(st.text(alphabet="019ab²"), max_size=8), st.randoms())
def test_the_order_of_class_names_does_not_depend_on_how_they_come(
    names: list[str], random: Any
) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)
    assert natural_order(names) == natural_order(shuffled)
    assert sorted(names) == sorted(natural_order(names))


@given(st.lists(st.integers(0, 10**6), max_size=8))
def test_numbers_sort_by_value(numbers: list[int]) -> None:
    assert natural_order([str(n) for n in numbers]) == [str(n) for n in sorted(numbers)]
