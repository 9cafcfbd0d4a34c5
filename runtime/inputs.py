"""The inputs of a graph: drawn from the latent stream, checked when they are the caller's, or on the way between two."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import latents
from .errors import InputError, ModelFileError, shown
from .images import Pixels, dequantize
from .pictures import Source, is_source, read
from .signature import LIMITS, Field, class_count, split_axis

Array = NDArray[Any]
Given: TypeAlias = ArrayLike | Source | Sequence[Source]
STAND_IN_STREAM = 2**32  # and the next ones: far above any stream of a signature


def draw_field(field: Field, seed: int, indices: Sequence[int], *, each: bool = False) -> Array:
    """The values of one input for images `indices` of `seed`: [len(indices), *shape] by latent stream v1.

    each: also of an input that is shared by all images, where it is a read-only view of one draw.
    """
    check_drawable(field)
    draw, count = field.draw, len(indices)
    assert draw is not None
    shape = (count, *(int(axis) for axis in field.shape))
    if draw.kind == "fixed":
        return np.full(shape, draw.value, field.dtype)
    if is_shared(field) and not each:
        return np.broadcast_to(draw_field(field, 0, range(1), each=True), shape)
    drawn = latents.words(seed, draw.stream, indices, field.size)
    if draw.kind == "normal":
        values: Array = latents.normals(drawn) * np.float32(draw.scale)
    elif draw.kind == "uniform":
        low, high = np.float32(draw.low), np.float32(draw.high)
        values = latents.uniforms(drawn) * (high - low) + low
    else:
        values = latents.choices(drawn, class_count(field))
    return values.reshape(shape).astype(field.dtype, copy=False)


def is_drawable(fields: Sequence[Field]) -> bool:
    """Whether the latent stream gives all of these inputs, so that none is the caller's to give."""
    return all(
        field.draw is not None and all(isinstance(axis, int) for axis in field.shape)
        for field in fields
    )


def check_drawable(field: Field) -> None:
    """`InputError` for an input that only the caller can give."""
    if is_drawable([field]):
        return
    call = f"Call the generator with it: generator({field.name}=...)"
    translate = "Use `gan translate MODEL IN OUT`, or generator.translate(image)"
    raise InputError(
        f"Input {field.name} cannot be drawn",
        seen="It is the caller's to give",
        repair=translate if is_picture(field) else call,
    )


def stand_in(
    field: Field,
    place: int,
    seed: int,
    indices: Sequence[int],
    sizes: Mapping[str, int] | None = None,
    *,
    each: bool = False,
) -> Array:
    """`draw_field`, and for an input that is the caller's to give something like it, to prove a graph with.

    Uniform in its range, standard normal without one; from a stream that no signature uses. place: the input's among
    the graph's. sizes: of the dynamic axes.
    """
    if field.draw is not None:
        return draw_field(field, seed, indices, each=each)
    shape = field.shape_at(sizes or {})
    drawn = latents.words(seed, STAND_IN_STREAM + place, indices, math.prod(shape))
    if field.range is None and field.dtype == "float32":
        values: Array = latents.normals(drawn)
    else:
        low, high = field.range or LIMITS[field.dtype]
        values = np.clip(latents.uniforms(drawn) * (high - low) + low, *_within(low, high))
    return values.reshape(len(indices), *shape).astype(field.dtype, copy=False)


def _within(low: float, high: float) -> tuple[np.float32, np.float32]:
    """The float32 numbers next to the ends of a range, inside it."""
    first, last = np.float32(low), np.float32(high)
    first = np.nextafter(first, np.float32(np.inf)) if float(first) < low else first
    return first, np.nextafter(last, np.float32(-np.inf)) if float(last) > high else last


def check_input(field: Field, value: Given, most_bytes: int = sys.maxsize) -> Array:
    """`value` as the array that the graph takes, or `InputError` that names field, value and what was wanted.

    Of an image or a mask also pictures: a path, bytes, a Pillow image, uint8 [H, W, C], or a list of such of one size.
    most_bytes: of what is made of arrays that are broadcast, and of ranges, which take no memory until then.
    """

    def refused(seen: str, repair: str = "") -> InputError:
        return InputError(
            f"Input {field.name} was refused", seen=seen, repair=repair or wanted(field)
        )

    dtype = np.dtype(field.dtype)
    too_large = "Give fewer at once, or raise max_output_bytes"
    several = value if isinstance(value, (list, tuple)) else [value]
    size = sum(one.size for one in several if is_broadcast(one))
    if isinstance(value, range):
        size += 6 * len(value)  # numpy makes Python's integers of it first
    if size * dtype.itemsize > most_bytes:
        raise refused(f"{size} values, the limit is {most_bytes} bytes", too_large)
    try:
        array = np.asarray(_pictures(field, value) if is_picture(field) else value)
    except Exception as error:  # an object's own __array__ may raise anything
        raise refused(f"{error!s:.100}") from error
    kinds = "iu" if dtype.kind in "iu" else "iuf"
    if array.dtype.kind not in kinds:
        raise refused(f"{_told(value, array)}dtype {array.dtype!s:.60}")
    if any(_is_masked(one) for one in several):
        raise refused("a masked array, whose masked values are unknown")
    if not has_shape(field, array.shape):
        raise refused(f"shape {shown(list(array.shape))}")
    _check_values(field, array)
    return np.ascontiguousarray(array, dtype)


def _told(value: Given, array: Array) -> str:
    """What numpy makes a lone value of is not what its caller sees, so it is shown."""
    return "" if array.ndim or isinstance(value, np.ndarray) else f"{shown(value)}, "


def is_broadcast(value: object) -> TypeGuard[Array]:
    """Whether it is an array that repeats itself along some axis, so that a copy is larger."""
    return isinstance(value, np.ndarray) and 0 in value.strides


def _is_masked(value: object) -> bool:
    module: Any = sys.modules.get("numpy.ma")  # without it, there is no masked array
    return module is not None and isinstance(value, module.MaskedArray) and value.mask.any()


def is_picture(field: Field) -> bool:
    """Whether an input is an image or a mask of the caller's."""
    return field.kind in ("image", "mask") and field.draw is None and len(field.shape) == 3


def layout(field: Field) -> tuple[int, int, int]:
    """The places of height, width and channels in the shape of an image: bytes are NHWC, floats NCHW."""
    return (0, 1, 2) if field.dtype == "uint8" else (1, 2, 0)


def from_pixels(field: Field, pixels: Pixels) -> Array:
    """uint8 [B, H, W, C] as an image or a mask is given to the graph."""
    if field.dtype == "uint8":
        return pixels
    if field.kind == "image":
        return dequantize(pixels)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) / np.float32(255)


def _pictures(field: Field, value: Given) -> Array | ArrayLike:
    """Pictures as a batch; all else as it is."""
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 4:
        return from_pixels(field, value)
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    sources = [one for one in several if is_source(one)]
    if not sources or len(sources) != len(several):
        return value  # type: ignore[return-value]  # an array, or lists of numbers
    pictures = [read(source) for source in sources]
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        raise InputError(
            f"Input {field.name} was refused",
            seen=f"pictures of {sizes[0]} and {sizes[-1]} pixels",
            repair="Give pictures of one size, or one at a time",
        )
    channels = field.shape[layout(field)[2]]
    assert isinstance(channels, int)
    return from_pixels(field, np.stack([picture.pixels(channels) for picture in pictures]))


def _check_values(field: Field, array: Array) -> None:
    if array.size == 0:
        return
    if not np.isfinite(array).all():
        raise InputError(
            f"Input {field.name} was refused",
            seen="values that are not finite",
            repair=wanted(field),
        )
    low, high = array.min().item(), array.max().item()
    bounds = field.range or LIMITS[field.dtype]
    if not (bounds[0] <= low and high <= bounds[1]):
        raise InputError(
            f"Input {field.name} was refused",
            seen=f"values from {low} to {high}",
            repair=wanted(field),
        )


def wanted(field: Field) -> str:
    """What a field takes, as the repair of an error."""
    shape = ", ".join(["batch", *map(str, field.shape)])
    bounds = f" with values from {field.range[0]:g} to {field.range[1]:g}" if field.range else ""
    return f"Give {field.dtype} [{shape}]{bounds}"


def batch_rows(inputs: Mapping[str, Array]) -> int:
    """Samples of a batch."""
    return len(next(iter(inputs.values())))


def has_shape(field: Field, shape: tuple[int, ...], sizes: Mapping[str, int] | None = None) -> bool:
    """Whether an array of this shape is a batch of the field. sizes: of the dynamic axes that are known."""

    def fits(axis: int | str, seen: int) -> bool:
        if isinstance(axis, int):
            return axis == seen
        factor, name = split_axis(axis)
        return seen == factor * sizes[name] if sizes and name in sizes else seen > 0

    return len(shape) == len(field.shape) + 1 and all(map(fits, field.shape, shape[1:]))


def check_output(
    field: Field, shape: tuple[int, ...], count: int, sizes: Mapping[str, int] | None = None
) -> None:
    """onnxruntime holds no graph to the shapes that it declares, so they are looked at after each run."""
    if shape[:1] != (count,) or not has_shape(field, shape, sizes):
        raise ModelFileError(
            f"Output {field.name} is not what the signature says",
            seen=f"shape {list(shape)} for a batch of {count}",
            repair="Export the model again with `gan export`",
        )


def is_shared(field: Field) -> bool:
    """Whether one draw of an input serves all images, unless it is asked otherwise."""
    return field.draw is not None and field.draw.shared


def sample_bytes(field: Field, sizes: Mapping[str, int]) -> int:
    """Bytes of one sample where the dynamic axes have these sizes."""
    return math.prod(field.shape_at(sizes)) * np.dtype(field.dtype).itemsize


def between(field: Field, a: Array, b: Array, steps: NDArray[np.float64]) -> Array:
    """Values of a field on the way from a to b, at `steps` of [0, 1]: [len(steps), *a.shape].

    Normal draws move on the great circle, uniform ones on the straight line; all else, and what all images share,
    stays as it is in a.
    """
    kind = field.draw.kind if field.draw and not is_shared(field) else ""
    if kind == "normal":
        return _slerp(a, b, steps)
    return _lerp(a, b, steps) if kind == "uniform" else np.repeat(a[None], len(steps), axis=0)


def _lerp(a: Array, b: Array, steps: NDArray[np.float64]) -> Array:
    """Points on the straight line from a to b, at `steps` of [0, 1]: float32 [len(steps), *a.shape]."""
    u, v = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    t = steps[:, None]
    return ((1 - t) * u + t * v).reshape(len(steps), *a.shape).astype(np.float32)


def _slerp(a: Array, b: Array, steps: NDArray[np.float64]) -> Array:
    """Points on the great circle from a to b, at `steps` of [0, 1]: float32 [len(steps), *a.shape]."""
    u, v = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    t = steps[:, None]
    cosine = np.dot(u, v) / (np.linalg.norm(u) * np.linalg.norm(v) + 1e-300)
    angle = math.acos(min(1.0, max(-1.0, float(cosine))))
    if angle < 1e-6 or math.pi - angle < 1e-6:  # no unique great circle
        return _lerp(a, b, steps)
    path = (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / math.sin(angle)
    return path.reshape(len(steps), *a.shape).astype(np.float32)
