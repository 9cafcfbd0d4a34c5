"""Image to image: one picture in, one picture out, whole or in tiles, with its alpha."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from . import axes, tiles
from .errors import DeviceUnavailableError, InputError, ModelFileError
from .images import Pixels, quantize
from .inputs import Array, check_input, is_broadcast, is_picture, layout
from .pictures import Picture, Source, read, resized
from .signature import Field, split_axis
from .values import check_flag, check_integer

if TYPE_CHECKING:
    from .generator import Generator


class Translator:
    """The options of `Generator.translate`, checked once, for any number of pictures. Raises `InputError`."""

    def __init__(
        self,
        generator: Generator,
        *,
        label: int | str | None = None,
        seed: int = 0,
        tile: int | None = None,
        overlap: int | None = None,
        resize: bool = False,
    ) -> None:
        self._generator, self._resize = generator, check_flag("resize", resize)
        signature = generator.signature
        self.image, self.mask = _fields(generator)
        others = [field for field in signature.inputs if not is_picture(field)]
        self._drawn = generator.drawn(others, seed, label)
        dynamic = [signature.main.shape[i] for i in layout(signature.main)[:2]]
        own = [self.image.shape[i] for i in layout(self.image)[:2]]
        self._context = 0
        self._tile: int | None = None
        if tile is None:
            if overlap is not None:
                raise InputError(
                    "An overlap was given", seen="no tile", repair="Give tile too, or leave it out"
                )
            return
        if not all(isinstance(axis, str) for axis in (*own, *dynamic)):
            raise InputError(
                "The model cannot be run in tiles",
                seen=f"It takes images of {' x '.join(map(str, own))} pixels only",
                repair="Leave tile out",
            )
        if signature.radius is None:
            raise InputError(
                "The model cannot be run in tiles",
                seen="Its signature states no radius: norms or other layers may read the whole image",
                repair="Leave tile out",
            )
        if len({split_axis(str(axis))[1] for axis in own}) < 2:
            raise InputError(
                "The model cannot be run in tiles",
                seen="It takes square images only",
                repair="Leave tile out",
            )
        factor = max(split_axis(str(axis))[0] for axis in own)
        self._tile = check_integer("tile", tile, factor * signature.least, 1 << 20)
        if overlap is None:
            overlap = signature.radius
        self._context = check_integer("overlap", overlap, 0, 1 << 20)

    def __call__(self, image: Source, *, mask: Source | None = None) -> Pixels:
        """uint8 [H, W, C]. Raises `InputError`."""
        for source in (image, mask):
            if is_broadcast(source):
                self._check_size(source.size)
        picture = self._sized(read(image))
        inputs = {**self._drawn, self.image.name: self._array(self.image, picture)}
        self.check_mask(mask is not None)
        if self.mask is not None and mask is not None:
            hole = read(mask)
            if self._resize:
                hole = hole.resized(*picture.size, nearest=True)
            inputs[self.mask.name] = self._array(self.mask, hole)
        made = self._run(inputs)
        return self._with_alpha(made, picture)

    def check_mask(self, given: bool) -> None:
        """`InputError` where a mask is missing, or is none of the model's inputs."""
        if given and self.mask is None:
            raise InputError(
                "A mask was given", seen="The model takes none", repair="Leave the mask out"
            )
        if not given and self.mask is not None:
            raise InputError(
                "The mask is missing",
                seen="The model paints holes",
                repair="Give a mask of the image's size, white where the hole is: mask=, --mask",
            )

    def _check_size(self, size: int, what: str = "It") -> None:
        """`InputError` for more bytes than a call may make: an array that is broadcast has none yet."""
        if size > self._generator.max_output_bytes:
            raise InputError(
                "The image is too large",
                seen=f"{what} has {size} bytes, the limit is {self._generator.max_output_bytes}",
                repair="Give a smaller one, or raise max_output_bytes",
            )

    def _sized(self, picture: Picture) -> Picture:
        """Resized where it is asked; else `InputError` where the model does not take this size."""
        wanted = [self.image.shape[i] for i in layout(self.image)[:2]]
        pairs = zip(wanted, picture.size, strict=True)
        height, width = (axis if isinstance(axis, int) else seen for axis, seen in pairs)
        if picture.size == (height, width) or self._resize:
            return picture.resized(height, width)
        raise InputError(
            "The image's size was refused",
            seen=f"{_size(picture.size)} pixels",
            repair=f"Give {_size((height, width))} (width x height), or resize it to that: resize=True, --resize",
        )

    def _array(self, field: Field, picture: Picture) -> Array:
        return check_input(field, picture)

    def _run(self, inputs: dict[str, Array]) -> Pixels:
        generator, signature = self._generator, self._generator.signature
        main = signature.main
        lengths = axes.lengths(signature, inputs)
        sizes = axes.whole(lengths, signature.least)
        if self._tile is not None:
            return self._run_tiles(inputs, lengths, sizes)
        try:
            generator.bounded(1, sizes)
            (made,) = generator.run(inputs, [main], sizes)
        except (InputError, ModelFileError, DeviceUnavailableError) as error:
            if signature.radius is None or not lengths:
                raise
            raise type(error)(
                error.failed,
                seen=error.seen,
                repair=f"Run it in tiles (tile=512, --tile 512), which need less memory. Or: {error.repair}",
            ) from error
        return _pixels(main, axes.cropped(main, made, lengths))

    def _run_tiles(
        self, inputs: dict[str, Array], lengths: axes.Lengths, sizes: dict[str, int]
    ) -> Pixels:
        generator, signature = self._generator, self._generator.signature
        main, radius = signature.main, signature.radius
        assert self._tile is not None and radius is not None
        own, made = (
            [split_axis(str(field.shape[i])) for i in layout(field)[:2]]
            for field in (self.image, main)
        )
        names = [name for _, name in own]
        contexts = [math.ceil(self._context / factor) for factor, _ in own]
        blended = any(c * f < radius for c, (f, _) in zip(contexts, own, strict=True))
        rows, columns = (
            tiles.Row(sizes[name], self._tile // factor, context, scale, blended)
            for (factor, name), (scale, _), context in zip(own, made, contexts, strict=True)
        )
        shape = axes.shape_of(main, lengths)
        height, width, channels = (shape[i] for i in layout(main))
        self._check_size(height * width * channels, "The result")
        whole = {
            field.name: axes.padded(field, inputs[field.name], sizes)
            for field in signature.inputs
            if is_picture(field)
        }

        def run(*window: tiles.Span) -> Pixels:
            span = dict(zip(names, window, strict=True))
            given = inputs | {
                field.name: axes.cut(field, whole[field.name], span)
                for field in signature.inputs
                if field.name in whole
            }
            part = {name: end - begin for name, (begin, end) in span.items()}
            generator.bounded(1, part)
            return _pixels(main, generator.run(given, [main], part)[0])

        return tiles.run_tiles(rows, columns, np.empty((height, width, channels), np.uint8), run)

    def _with_alpha(self, made: Pixels, picture: Picture) -> Pixels:
        seen = self.image.shape[layout(self.image)[2]]
        if picture.alpha is None or made.shape[2] == 4 or seen == 4:
            return made
        alpha = resized(picture.alpha[:, :, None], made.shape[0], made.shape[1])
        colour = np.repeat(made, 3, axis=2) if made.shape[2] == 1 else made
        return np.dstack([colour, alpha])


def _fields(generator: Generator) -> tuple[Field, Field | None]:
    """The image and the mask that a model takes; `InputError` for a model that does not translate images."""
    signature = generator.signature
    brought = [field for field in signature.inputs if field.draw is None and field.kind != "label"]
    images = [field for field in brought if is_picture(field) and field.kind == "image"]
    masks = [field for field in brought if is_picture(field) and field.kind == "mask"]
    if not any(field.kind in ("image", "mask") for field in brought):
        raise InputError(
            f"{generator!r} translates no image",
            seen=f"It takes {', '.join(field.name for field in signature.inputs)}",
            repair="Sample it: generator.sample(), gan sample",
        )
    rest = [field.name for field in brought if field not in (*images, *masks)]
    main = signature.main
    if len(images) != 1 or len(masks) > 1 or rest or main.kind != "image" or len(main.shape) != 3:
        raise InputError(
            f"{generator!r} does not make one image of another",
            seen=f"It takes {', '.join(f'{f.name} ({f.kind})' for f in brought)} and gives {main.kind}",
            repair="Call the generator with its inputs: generator(name=...)",
        )
    return images[0], masks[0] if masks else None


def _pixels(field: Field, batch: Array) -> Pixels:
    """uint8 [H, W, C] of an output [1, ...]."""
    pixels: Pixels = batch[0] if field.dtype == "uint8" else quantize(batch)[0]
    return pixels


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
