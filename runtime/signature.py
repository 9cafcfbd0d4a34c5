"""The signature: what a generator takes and gives, and who draws each random input.

It travels checkpoint -> ONNX metadata -> runtime as JSON, so it knows neither torch nor onnx.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from .errors import InputError, ModelFileError, shown
from .latents import NOISE_STREAM

FORMAT = 1
MAX_JSON_BYTES = 1 << 20
MAX_JSON_DEPTH = 16
MAX_FIELDS = 256
LIMITS = {"float32": (-3.4e38, 3.4e38), "int64": (-(2.0**53), 2.0**53), "uint8": (0.0, 255.0)}
MAX_NUMBER = 1e30  # far enough inside float32 that a draw, scaled or shifted, stays finite

DrawKind = Literal["normal", "uniform", "choice", "fixed"]
FieldKind = Literal[
    "latent", "label", "noise", "image", "mask", "scalar", "points", "style", "embedding"
]
# The numbers of each kind of draw; others that a file gives it say nothing.
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "normal": ("scale",), "uniform": ("low", "high"), "choice": (), "fixed": ("value",),
}  # fmt: skip
DType = Literal["float32", "int64", "uint8"]
Axis = int | str


@dataclass(frozen=True)
class Draw:
    """Where the random numbers of an input come from.

    normal: standard normal times `scale`. uniform: in [low, high). choice: a class index of the field's range.
    fixed: `value`, unless the caller gives another. `stream` is the latent stream's (0 latent, 1 label, 16 + k
    the k-th noise input). shared: one draw, that of image 0 of seed 0, serves every image, unless it is asked that
    each has its own.
    """

    kind: DrawKind
    stream: int = 0
    scale: float = 1.0
    low: float = 0.0
    high: float = 1.0
    value: float = 0.0
    shared: bool = False


@dataclass(frozen=True)
class Field:
    """One named tensor. The batch axis is implied: `shape` is that of one sample.

    A string in `shape` names a further dynamic axis, "h", or a multiple of one, "4*h". `range` is (lowest, highest) of the values; of a label it is
    (0, number of classes - 1). `draw` None: the caller brings the values.
    """

    name: str
    shape: tuple[Axis, ...]
    kind: FieldKind = "latent"
    dtype: DType = "float32"
    range: tuple[float, float] | None = None
    draw: Draw | None = None

    @property
    def size(self) -> int:
        """Number of values in one sample (dynamic axes count as 1)."""
        return math.prod(axis for axis in self.shape if isinstance(axis, int))

    def shape_at(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of one sample where the dynamic axes have these sizes, by their names."""
        parts = [(axis, "") if isinstance(axis, int) else split_axis(axis) for axis in self.shape]
        return tuple(factor * sizes[name] if name else factor for factor, name in parts)


@dataclass(frozen=True)
class Signature:
    """Everything that a caller of a generator must know.

    inputs and outputs are in the graph's order; the first output is the main one, which `sample` returns.
    classes: names of the classes, in the order of their indices; empty for a generator without labels.
    radius: places of an input image further away than this, in its pixels along either axis, have no part in a place
    of the output, so that a large image may be run in tiles; None where the whole image has. least: the smallest size
    of a dynamic axis, by its name: with least 2 an axis "4*h" is 8 or more.
    """

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    classes: tuple[str, ...] = ()
    radius: int | None = None
    least: int = 1

    @property
    def main(self) -> Field:
        return self.outputs[0]

    @property
    def label(self) -> Field | None:
        """The input that is a class label, or None."""
        return next((field for field in self.inputs if field.kind == "label"), None)

    @cached_property
    def factors(self) -> Mapping[str, int]:
        """The dynamic axes by name, each with the largest multiple of it that a field has."""
        found: dict[str, int] = {}
        for field in (*self.inputs, *self.outputs):
            for factor, name in (split_axis(a) for a in field.shape if isinstance(a, str)):
                found[name] = max(factor, found.get(name, 0))
        return found

    @cached_property
    def example_sizes(self) -> Mapping[str, int]:
        """Sizes of the dynamic axes for a sample of moderate size: the largest multiple of each is about 64."""
        return {name: max(self.least, 64 // factor) for name, factor in self.factors.items()}

    @cached_property
    def example_values(self) -> int:
        """Values of one sample of the main output at the example's sizes."""
        return math.prod(self.main.shape_at(self.example_sizes))

    def input(self, name: str) -> Field | None:
        return next((field for field in self.inputs if field.name == name), None)

    def to_json(self) -> str:
        """Versioned JSON, the same text for equal signatures. `InputError` for fields of what is no JSON."""
        try:
            return json.dumps(self._to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False)
        except Exception as error:  # an author's own values may raise anything
            raise InputError(
                "The signature cannot be written",
                seen=shown(error),
                repair="Make its fields of texts and finite numbers",
            ) from error

    def _to_dict(self) -> dict[str, Any]:
        content = {
            "format": FORMAT,
            "inputs": [_field_to_dict(field) for field in self.inputs],
            "outputs": [_field_to_dict(field) for field in self.outputs],
            "classes": _as_list(self.classes),
        }
        if self.radius is not None:
            content["radius"] = self.radius
        if self.least != 1:
            content["least"] = self.least
        return content

    @classmethod
    def from_json(cls, text: str) -> Signature:
        """The signature that `to_json` wrote; anything else raises `ModelFileError`."""
        content = parse_json_object(text, "signature")
        if content.get("format") != FORMAT:
            raise _refused(
                f"format {content.get('format')!r:.40}", f"This version reads format {FORMAT}"
            )
        try:
            signature = cls(
                tuple(_field_from_dict(entry) for entry in _list(content["inputs"])),
                tuple(_field_from_dict(entry) for entry in _list(content["outputs"])),
                tuple(_string(name) for name in _list(content["classes"])),
                None if content.get("radius") is None else _pixels(content["radius"], 0),
                _pixels(content.get("least", 1), 1),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _refused(f"{type(error).__name__}: {error!s:.200}") from error
        signature._check()
        return signature

    def _check(self) -> None:
        names = [field.name for field in (*self.inputs, *self.outputs)]
        if not self.inputs or not self.outputs:
            raise _refused("no input or no output")
        if len(names) > MAX_FIELDS:
            raise _refused(f"more than {MAX_FIELDS} inputs and outputs")
        axes = [
            {
                split_axis(axis)[1]
                for field in fields
                for axis in field.shape
                if isinstance(axis, str)
            }
            for fields in (self.inputs, self.outputs)
        ]
        if unknown := sorted(axes[1] - axes[0]):
            raise _refused(f"an output axis {unknown[0]!r} that no input has")
        if len(set(names)) != len(names):
            raise _refused("two fields of one name")
        label = self.label
        if sum(field.kind == "label" for field in self.inputs) > 1:
            raise _refused("more than one label input")
        if self.classes and (label is None or len(self.classes) != class_count(label)):
            raise _refused(f"{len(self.classes)} class names that fit no label input")
        streams = [
            field.draw.stream for field in self.inputs if field.draw and field.draw.kind != "fixed"
        ]
        if len(set(streams)) != len(streams):
            raise _refused("two inputs drawn from one stream")


def split_axis(axis: str) -> tuple[int, str]:
    """A dynamic axis as (factor, name): (4, "h") of "4*h", (1, "h") of "h"."""
    factor, star, name = axis.rpartition("*")
    return (int(factor) if star else 1), name


def class_count(label: Field) -> int:
    """Number of classes of a label field."""
    return int(label.range[1]) + 1 if label.range else 0


def natural_order(names: Sequence[str]) -> list[str]:
    """Class names in the order that a person expects: 1, 2, 10."""

    def key(name: str) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", name)
        return [(0, int(p), p) if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts if p]

    return sorted(names, key=lambda name: (key(name), name))


def parse_json_object(text: str, what: str) -> dict[str, Any]:
    """A JSON object from text of at most 1 MiB, at most 16 deep; anything else raises `ModelFileError`."""
    if not isinstance(text, str):
        raise _refused(f"{what} of type {type(text).__name__}")
    if len(text) > MAX_JSON_BYTES:
        raise _refused(f"{len(text)} characters of {what}")
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _refused(f"{what} that is not JSON ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise _refused(f"{what} that is not an object")
    if _deeper(content, MAX_JSON_DEPTH):
        raise _refused(f"{what} nested more than {MAX_JSON_DEPTH} deep")
    return content


def _deeper(value: Any, depth: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(not depth or _deeper(part, depth - 1) for part in parts)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _field_to_dict(field: Field) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": field.name,
        "shape": _as_list(field.shape),
        "kind": field.kind,
        "dtype": field.dtype,
    }
    if field.range is not None:
        entry["range"] = _as_list(field.range)
    if field.draw is not None:
        draw = field.draw
        entry["draw"] = {"kind": draw.kind, "stream": draw.stream}
        entry["draw"] |= {name: getattr(draw, name) for name in NUMBERS[draw.kind]}
        if draw.shared:
            entry["draw"]["shared"] = True
    return entry


def _as_list(values: Sequence[Any]) -> list[Any]:
    if not isinstance(values, (tuple, list)):
        raise TypeError("a tuple was expected")
    return list(values)


def _field_from_dict(entry: Mapping[str, Any]) -> Field:
    name, kind, dtype = _string(entry["name"]), entry["kind"], entry["dtype"]
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
        raise ValueError(f"a field named {name[:64]!r}")
    if kind not in get_args(FieldKind) or dtype not in get_args(DType):
        raise ValueError(f"field {name} of kind {kind!r:.40} and dtype {dtype!r:.40}")
    shape = tuple(_axis(axis) for axis in _list(entry["shape"]))
    if len(shape) > 8 or math.prod(a for a in shape if isinstance(a, int)) > 2**40:
        raise ValueError(f"field {name} of shape {shape!r:.80}")
    bounds = entry.get("range")
    span = None if bounds is None else _span(bounds)
    draw = None if entry.get("draw") is None else _draw_from_dict(entry["draw"])
    if kind == "label" and not (
        span and span[0] == 0 and 0 <= span[1] < 2**31 and dtype == "int64" and not shape
    ):
        raise ValueError(f"label {name} without a range from 0 to the last class")
    field = Field(name, shape, kind, dtype, span, draw)
    _check_numbers(field)
    return field


def _check_numbers(field: Field) -> None:
    """A range that the dtype holds, and a draw that stays in both."""
    low, high = field.range or LIMITS[field.dtype]
    lowest, highest = LIMITS[field.dtype]
    if not lowest <= low < high <= highest and field.kind != "label":
        raise ValueError(f"field {field.name} with a range from {low:g} to {high:g}")
    draw = field.draw
    if draw is None:
        return
    if draw.kind == "choice" and field.kind != "label":
        raise ValueError(f"field {field.name} drawn by choice, but not a label")
    if draw.kind in ("normal", "uniform") and field.dtype != "float32":
        raise ValueError(
            f"field {field.name} of {field.dtype} drawn from a continuous distribution"
        )
    if draw.kind == "fixed" and not low <= draw.value <= high:
        raise ValueError(f"field {field.name} fixed at {draw.value:g}, outside its range")


def _draw_from_dict(entry: Mapping[str, Any]) -> Draw:
    kind, stream = entry["kind"], entry["stream"]
    if (
        kind not in get_args(DrawKind)
        or type(stream) is not int
        or not 0 <= stream < NOISE_STREAM + 4096
    ):
        raise ValueError(f"a draw of kind {kind!r:.40} from stream {stream!r:.40}")
    shared = entry.get("shared", False)
    if type(shared) is not bool or (shared and kind not in ("normal", "uniform")):
        raise ValueError(f"a draw of kind {kind} that is shared: {shared!r:.40}")
    numbers = {name: _number(entry[name]) for name in NUMBERS[kind] if name in entry}
    return Draw(kind, stream, **numbers, shared=shared)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > 100_000:
        raise TypeError("a list was expected")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1024:
        raise TypeError("a short text was expected")
    value.encode()  # half a surrogate pair is no text, and fails here instead of at the caller's print
    return value


def _number(value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not abs(value) <= MAX_NUMBER
    ):
        raise TypeError("a finite number was expected")
    return float(value)


def _span(value: Any) -> tuple[float, float]:
    low, high = _list(value)
    return _number(low), _number(high)


def _pixels(value: Any, at_least: int) -> int:
    if type(value) is not int or not at_least <= value < 2**20:
        raise ValueError(f"a radius, or a least size, {value!r:.40}")
    return value


def _axis(value: Any) -> Axis:
    if type(value) is int and 1 <= value <= 2**31:
        return value
    if isinstance(value, str) and re.fullmatch(r"([1-9][0-9]{0,3}\*)?[a-z][a-z0-9_]{0,31}", value):
        return value
    raise ValueError(f"an axis {value!r:.40}")


def _refused(seen: str, repair: str = "Export the model again with `gan export`") -> ModelFileError:
    return ModelFileError(
        "The model's signature cannot be read", seen=f"It holds {seen}", repair=repair
    )
