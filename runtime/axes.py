"""Dynamic axes: the sizes that the inputs of a call agree on, padding to what a graph takes, cropping of what it gives.

An axis "4*h" is 4 units of h long. An image need not be whole units: it is padded, and the outputs are cropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .errors import InputError
from .inputs import Array, is_picture
from .signature import Field, Signature, split_axis

if TYPE_CHECKING:
    from fractions import Fraction

Lengths: TypeAlias = "dict[str, Fraction]"  # of the dynamic axes, by their names, in units


def lengths(signature: Signature, arrays: Mapping[str, Array]) -> Lengths:
    """The dynamic axes' lengths, as these inputs [B, ...] have them; `InputError` where two disagree."""
    from fractions import Fraction  # here: it brings decimal, and most graphs have no such axis

    found: Lengths = {}
    given: dict[str, str] = {}  # how the first input that has the axis says it
    for field in (field for field in signature.inputs if field.name in arrays):
        seen = arrays[field.name].shape[1:]
        for size, axis in zip(seen, field.shape, strict=True):
            if isinstance(axis, int):
                continue
            factor, name = split_axis(axis)
            length = Fraction(size, factor)
            told = f"{field.name} {' x '.join(map(str, seen))}"
            if found.setdefault(name, length) != length:
                raise InputError(
                    "The inputs are of different sizes",
                    seen=f"{given[name]} and {told}",
                    repair="Give all of one size",
                )
            given.setdefault(name, told)
            if not is_picture(field) and (length.denominator > 1 or length < signature.least):
                raise InputError(
                    f"Input {field.name} was refused",
                    seen=f"an axis of {size}",
                    repair=f"Give a multiple of {factor}, at least {factor * signature.least}",
                )
    return found


def whole(lengths: Lengths, least: int) -> dict[str, int]:
    """Whole units, at least so many, that hold the lengths."""
    return {name: max(least, math.ceil(length)) for name, length in lengths.items()}


def padded(field: Field, array: Array, sizes: Mapping[str, int]) -> Array:
    """An image or mask [B, ...] with more at its bottom and right: mirrored, or its edge where it is too small."""
    for axis, wanted in enumerate(field.shape_at(sizes), start=1):
        more = wanted - array.shape[axis]
        if more:
            widths = [(0, more if i == axis else 0) for i in range(array.ndim)]
            array = np.pad(array, widths, "reflect" if more < array.shape[axis] else "edge")
    return array


def cut(field: Field, array: Array, spans: Mapping[str, tuple[int, int]]) -> Array:
    """The part of an input [B, ...] between these places of its dynamic axes, in units."""
    places = [slice(None)]
    for axis in field.shape:
        factor, name = split_axis(axis) if isinstance(axis, str) else (1, "")
        begin, end = spans.get(name, (None, None))
        places.append(slice(None) if begin is None else slice(factor * begin, factor * (end or 0)))
    return np.ascontiguousarray(array[tuple(places)])


def cropped(field: Field, array: Array, lengths: Lengths) -> Array:
    """An output [B, ...] without what comes from padding."""
    sizes = shape_of(field, lengths)
    if array.shape[1:] == sizes:
        return array
    return np.ascontiguousarray(array[(slice(None), *map(slice, sizes))])


def shape_of(field: Field, lengths: Lengths) -> tuple[int, ...]:
    """The shape of one sample at these lengths, a part of a pixel counted as one."""
    parts = [(axis, "") if isinstance(axis, int) else split_axis(axis) for axis in field.shape]
    return tuple(math.ceil(factor * lengths[name]) if name else factor for factor, name in parts)
