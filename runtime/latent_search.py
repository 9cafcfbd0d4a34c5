"""The latent search: the z whose image is an image that exists, over three graphs of one checkpoint, without torch.

One graph encodes an image as z, one generates an image from z, one embeds an image as numbers that are alike for what
is to be kept, such as who is seen. They are told by the kinds of their fields, so any model that has such graphs will
do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .asked import Label
from .errors import InputError, ModelFileError, shown
from .generator import Generator, check_generators
from .images import dequantize, quantize
from .inputs import Array
from .signature import Field
from .values import check_integer, check_number

ROWS = 512  # of one call of the generator, about
BETAS, EPSILON = (0.9, 0.99), 1e-8


@dataclass(frozen=True)
class Found:
    """z: float32 [N, D], for the generator. start, loss: of each image, where the search began and ended, [N]."""

    z: Array
    start: Array
    loss: Array


def search(
    encode: Generator,
    generate: Generator,
    embed: Generator,
    images: ArrayLike,
    *,
    label: Label | None = None,
    steps: int = 60,
    rate: float = 0.06,
    h: float = 0.1,
    identity: float = 1.0,
    pixels: float = 0.5,
    prior: float = 0.0,
) -> Found:
    """z* = argmin of identity |e(G(z, y)) - e(x)|^2 + pixels mean |G(z, y) - x| + prior mean z^2, from z = E(x).

    The identity-preserving optimisation of Antipov et al. 2017, section 3.2, by Adam on central differences: the
    generator is asked for z +- h e_i for all i in one batch, which needs no gradient. images: as `encode` takes them,
    [N, ...]. label: y, what the images show, where the generator has classes: one, or one for each. h must change
    some bytes of the image. The best z that was seen is returned. Raises `InputError`.
    """
    check_generators(encode=encode, generate=generate, embed=embed)
    code, made = _fields(encode, generate, embed)
    if not isinstance(images, np.ndarray) or images.ndim != 4 or not len(images):
        raise InputError(
            "The images were refused",
            seen=shown(images) if not isinstance(images, np.ndarray) else f"shape {images.shape}",
            repair="Give an array of at least one image, as the encoder takes them",
        )
    steps = check_integer("number of steps", steps, 1, 100_000)
    rate, h = check_number("rate", rate, 0, 1e3, above=0), check_number("h", h, 1e-6, 1e3)
    identity = check_number("weight identity", identity, 0, 1e6)
    pixels = check_number("weight pixels", pixels, 0, 1e6)
    prior = check_number("weight prior", prior, 0, 1e6)
    z = encode(**{encode.signature.inputs[0].name: images})[encode.signature.main.name]
    goal = _Goal(generate, embed, code, made, identity, pixels, prior)
    labels = _labels(generate, label, len(images))
    size = max(1, ROWS // (2 * z.shape[1] + 1))
    parts = [
        _descend(goal, z[i : i + size], images[i : i + size],
                 None if labels is None else labels[i : i + size], steps, rate, h)
        for i in range(0, len(z), size)
    ]  # fmt: skip
    best, start, loss = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Found(best, start, loss)


@dataclass(frozen=True)
class _Goal:
    generate: Generator
    embed: Generator
    code: Field
    made: Field
    identity: float
    pixels: float
    prior: float

    def embedding(self, images: Array) -> Array:
        field = self.embed.signature.inputs[0]
        given = _as(field, images)
        return self.embed(**{field.name: given})[self.embed.signature.main.name].astype(np.float64)

    def loss(self, z: Array, labels: Array | None, wanted: Array, truth: Array) -> Array:
        """(R,) of latents [R, D]; wanted [R, E] and truth [R, ...] are those of the images."""
        inputs = {self.code.name: z.astype(np.float32)}
        label = self.generate.signature.label
        if label is not None and labels is not None:
            inputs[label.name] = labels
        images = self.generate(**inputs)[self.made.name]
        apart = np.square(self.embedding(images) - wanted).sum(1)
        axes = tuple(range(1, images.ndim))
        scale = 127.5 if images.dtype == np.uint8 else 1.0
        differ = np.abs(images.astype(np.float32) - truth).mean(axes) / scale
        prior = np.square(z.astype(np.float64)).mean(1)
        return self.identity * apart + self.pixels * differ + self.prior * prior


def _descend(
    goal: _Goal,
    z: Array,
    images: Array,
    labels: Array | None,
    steps: int,
    rate: float,
    h: float,
) -> tuple[Array, Array, Array]:
    """Adam from z [N, D]: the best z, the first loss, the best loss."""
    n, d = z.shape
    wanted, truth = goal.embedding(images), _as(goal.made, images).astype(np.float32)
    around = np.concatenate([np.zeros((1, d)), np.eye(d) * h, -np.eye(d) * h])  # (2D + 1, D)
    rows = np.repeat(np.arange(n), len(around))
    own = None if labels is None else labels[rows]
    z = z.astype(np.float64)
    m, v = np.zeros_like(z), np.zeros_like(z)
    best, least, start = z.copy(), np.full(n, np.inf), np.zeros(n)
    for step in range(1, steps + 2):
        last = step == steps + 1  # nothing follows but a look at where the search ended
        points = z[:, None] + (around[:1] if last else around)  # (N, 2D + 1, D)
        select = np.arange(n) if last else rows
        label = labels if last else own
        losses = goal.loss(points.reshape(-1, d), label, wanted[select], truth[select])
        losses = losses.reshape(n, -1)
        if not np.isfinite(losses).all():
            raise ModelFileError(
                "The latent search met a value that is not finite",
                seen=f"step {step}",
                repair="Export the model again, or search with a smaller rate",
            )
        start = losses[:, 0] if step == 1 else start
        better = losses[:, 0] < least
        best[better], least[better] = z[better], losses[better, 0]
        if last:
            break
        gradient = (losses[:, 1 : d + 1] - losses[:, d + 1 :]) / (2 * h)  # (N, D)
        m = BETAS[0] * m + (1 - BETAS[0]) * gradient
        v = BETAS[1] * v + (1 - BETAS[1]) * gradient**2
        z = z - rate * (m / (1 - BETAS[0] ** step)) / (
            np.sqrt(v / (1 - BETAS[1] ** step)) + EPSILON
        )
    return best.astype(np.float32), start, least


def _as(field: Field, images: Array) -> Array:
    """Images as another graph takes or gives them: bytes [N, H, W, C], or floats [N, C, H, W] of [-1, 1]."""
    if images.dtype == np.uint8:
        return images if field.dtype == "uint8" else dequantize(images)
    inside = np.clip(images, -1, 1)
    return np.ascontiguousarray(quantize(inside)) if field.dtype == "uint8" else inside


def _labels(generate: Generator, label: Label | None, count: int) -> Array | None:
    if generate.signature.label is None:
        if label is not None:
            raise InputError(
                "A label was given", seen="A generator without classes", repair="Leave label out"
            )
        return None
    if label is None:
        raise InputError(
            "The label is missing",
            seen="A generator with classes",
            repair="Give what the images show: a class name or index, or one for each image",
        )
    given = generate.labels(label, count)
    assert given is not None
    return np.broadcast_to(given, (count,)).copy()


def _fields(encode: Generator, generate: Generator, embed: Generator) -> tuple[Field, Field]:
    """The generator's latent input and image output, if the three belong together."""
    roles = {"encode": encode, "generate": generate, "embed": embed}
    digests = {g.metadata("weights").get("checkpoint") for g in roles.values()}
    if len(digests) != 1 or None in digests:
        raise InputError(
            "The three graphs are not of one checkpoint",
            seen=f"weights {', '.join(sorted(f'{d!s:.16}' for d in digests))}",
            repair="Export them from the same model.pt: gan export model.pt model.onnx --graph all",
        )
    code = next((f for f in generate.signature.inputs if f.kind == "latent"), None)
    fits = {
        "encode": _takes_image(encode) and encode.signature.main.kind == "latent",
        "embed": _takes_image(embed) and embed.signature.main.kind == "embedding",
        "generate": code is not None and generate.signature.main.kind == "image",
    }
    for role in (role for role, fit in fits.items() if not fit):
        raise InputError(
            f"{roles[role]!r} cannot {role}",
            seen=f"It takes {', '.join(_kinds(roles[role]))} and gives {roles[role].signature.main.kind}",
            repair="Give the graphs that encode an image as z, generate one from z, embed one as numbers",
        )
    assert code is not None
    if code.shape != encode.signature.main.shape:
        raise InputError(
            "Encoder and generator do not fit",
            seen=f"z {encode.signature.main.shape}, and {code.shape} wanted",
            repair="Export them from the same model.pt: gan export model.pt model.onnx --graph all",
        )
    return code, generate.signature.main


def _takes_image(generator: Generator) -> bool:
    return list(_kinds(generator)) == ["image"]


def _kinds(generator: Generator) -> Iterator[str]:
    return (field.kind for field in generator.signature.inputs)
