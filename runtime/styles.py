"""Styles: several of them in one image, and ways between two, over two graphs of one checkpoint.

One graph, the mapping, gives a style w for a seed; the other, the synthesis, takes a style for each of its layers.
They are told by their fields of kind "style", so any model that has such graphs will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np

from .asked import BYTES
from .errors import InputError, shown
from .generator import Generator, check_generators
from .inputs import Array
from .signature import Field
from .values import check_integer, check_uint64, is_integer

Seeds = int | Sequence[int]
FRAMES = 16  # made at once


def mix(
    mapping: Generator,
    synthesis: Generator,
    seeds: Sequence[Seeds],
    layers: Sequence[int],
    *,
    label: int | str | None = None,
    truncation: float | None = None,
) -> Array:
    """Images whose first layers have the style of one seed, the next ones that of another: [count, H, W, C].

    seeds: one entry a style, coarsest first: a seed, or a sequence of seeds, one an image. layers: where each
    further style begins, rising, from 1 to the number of layers - 1; one fewer than seeds. The style of a seed is
    that of its image 0. label, truncation: as in `Generator.sample`. Raises `InputError`.

    mix(mapping, synthesis, [3, 9], [4]): layers 0 to 3 in the style of seed 3, the rest in that of seed 9.
    """
    field = _pair(mapping, synthesis)
    borders = _borders(layers, len(_seeds(seeds)), int(field.shape[0]))
    columns = [[s] if is_integer(s) else _seeds(s) for s in seeds]
    count = max(map(len, columns))
    if any(len(column) not in (1, count) for column in columns) or not count:
        raise InputError(
            "The seeds were refused",
            seen=f"{shown([len(column) for column in columns])} seeds for the styles",
            repair="Give one seed a style, or as many as there are images",
        )
    synthesis.bounded(count, name="number of seeds")
    drawn = [styles_of(mapping, c, label=label, truncation=truncation) for c in columns]
    images = []
    for i in range(0, count, FRAMES):
        n = min(FRAMES, count - i)
        w = np.empty((n, *(int(axis) for axis in field.shape)), np.float32)
        for style, (begin, end) in zip(drawn, pairwise(borders), strict=True):
            own = style[i : i + n] if len(style) > 1 else style
            w[:, begin:end] = own[:, None]
        images.append(synthesis(**{field.name: w})[synthesis.signature.main.name])
    return np.concatenate(images)


def styles_of(
    mapping: Generator,
    seeds: Sequence[int],
    *,
    label: int | str | None = None,
    truncation: float | None = None,
) -> Array:
    """The style of image 0 of each seed: float32 [len(seeds), ...]."""
    if mapping.signature.main.kind != "style":
        raise _no_styles("mapping", mapping, "gives none")
    known = [check_uint64("seed", seed) for seed in seeds]
    drawn = {
        seed: mapping.sample(1, seed=seed, label=label, truncation=truncation)
        for seed in dict.fromkeys(known)  # a sheet has each many times
    }
    return np.concatenate([drawn[seed] for seed in known])


def interpolate(
    mapping: Generator,
    synthesis: Generator,
    first: int,
    last: int,
    frames: int,
    *,
    label: int | str | None = None,
    truncation: float | None = None,
) -> Array:
    """`frames` images on the straight line in w from the style of seed `first` to that of seed `last`."""
    chunks = walk(mapping, synthesis, first, last, frames, label=label, truncation=truncation)
    synthesis.bounded(frames, name="number of frames")
    return np.concatenate(list(chunks))


def walk(
    mapping: Generator,
    synthesis: Generator,
    first: int,
    last: int,
    frames: int,
    *,
    label: int | str | None = None,
    truncation: float | None = None,
) -> Iterator[Array]:
    """The images of `interpolate`, some at a time, in bounded memory."""
    field = _pair(mapping, synthesis)
    frames = check_integer("number of frames", frames, 1, 2**31)
    check_uint64("first seed", first)
    check_uint64("last seed", last)
    a, b = styles_of(mapping, [first, last], label=label, truncation=truncation).astype(np.float64)
    return _along(synthesis, field, a, b, frames)


def _along(synthesis: Generator, field: Field, a: Array, b: Array, frames: int) -> Iterator[Array]:
    for i in range(0, frames, FRAMES):
        t = np.arange(i, min(i + FRAMES, frames)) / max(frames - 1, 1)
        w = ((1 - t)[:, None] * a + t[:, None] * b).astype(np.float32)
        given = np.repeat(w[:, None], int(field.shape[0]), axis=1)  # (n, layers, style)
        yield synthesis(**{field.name: given})[synthesis.signature.main.name]


def _pair(mapping: Generator, synthesis: Generator) -> Field:
    """The synthesis's input of styles, if the two belong together."""
    check_generators(mapping=mapping, synthesis=synthesis)
    field = next((f for f in synthesis.signature.inputs if f.kind == "style"), None)
    if field is None:
        raise _no_styles("synthesis", synthesis, "takes none")
    if len(field.shape) < 2 or not all(isinstance(axis, int) for axis in field.shape):
        raise _no_styles("synthesis", synthesis, f"takes {field.shape}")
    if mapping.signature.main.kind != "style":
        raise _no_styles("mapping", mapping, "gives none")
    digests = [g.metadata("weights").get("checkpoint") for g in (mapping, synthesis)]
    if digests[0] is None or digests[0] != digests[1]:
        raise InputError(
            "Mapping and synthesis are not of one checkpoint",
            seen=f"weights {digests[0]!s:.16} and {digests[1]!s:.16}",
            repair="Export both from the same model.pt: gan export model.pt model.onnx --graph all",
        )
    if field.shape[1:] != mapping.signature.main.shape:
        raise InputError(
            "Mapping and synthesis do not fit",
            seen=f"a style {mapping.signature.main.shape}, and {field.shape[1:]} wanted",
            repair="Export both from the same model.pt: gan export model.pt model.onnx --graph all",
        )
    return field


def _seeds(given: Seeds | Sequence[Seeds]) -> Sequence[Any]:
    """A sequence of seeds, told from what is neither that nor a seed."""
    if _is_several(given):
        return given
    raise InputError(
        "The seeds were refused",
        seen=f"{shown(given)} of type {type(given).__name__}",
        repair="Give a seed for each style, or a sequence of seeds, one an image",
    )


def _is_several(values: object) -> TypeGuard[Sequence[Any]]:
    """Whether they are values in a row, whose number is known before any is looked at."""
    several = isinstance(values, Sequence) or (isinstance(values, np.ndarray) and values.ndim > 0)
    return several and not isinstance(values, (str, *BYTES))


def _no_styles(role: str, generator: Generator, what: str) -> InputError:
    return InputError(
        f"{generator!r} is no {role}",
        seen=f"It {what}: {generator.signature.main.name} is {generator.signature.main.kind}",
        repair="Export the graphs of a model that has styles: gan export model.pt model.onnx --graph all",
    )


def _borders(layers: Sequence[int], count: int, most: int) -> list[int]:
    """[0, *layers, most], checked."""
    fits = _is_several(layers) and len(layers) == count - 1
    given = [check_integer("layer", layer, 1, most - 1) for layer in layers] if fits else []
    borders = [0, *given, most]
    if not fits or sorted(set(borders)) != borders:
        raise InputError(
            "The layers were refused",
            seen=f"{shown(layers)} for {count} styles",
            repair=f"Give rising layers from 1 to {most - 1}, one fewer than styles",
        )
    return borders
