"""Generator: samples of one exported model, by seed, on a CPU or a GPU, without torch."""

from __future__ import annotations

import logging
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import axes, latents
from .errors import InputError, ModelFileError, shown
from .golden import Golden, golden_inputs
from .images import Pixels, to_pil
from .inputs import (
    Array,
    Given,
    between,
    check_drawable,
    check_input,
    draw_field,
    has_shape,
    is_picture,
    is_shared,
    sample_bytes,
    wanted,
)
from .model_file import ModelFile
from .pictures import Source
from .session import Session
from .signature import Field, Signature, class_count
from .translator import Translator

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("gan.runtime")

Label = int | str | Sequence[int | str]
Noise = Literal["shared", "drawn"]
MICRO_BATCH, MICRO_VALUES = 16, 16 * 3 * 256 * 256  # at most, of one run
MAX_COUNT = 2**63 - 1


class Generator:
    """A trained generator, read from the file that `gan export` wrote.

    Image i of seed s is the same for any number of images asked for at once, on any thread. One instance may be
    used by several threads.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        device: str = "auto",
        threads: int | None = None,
        micro_batch: int | None = None,
        max_output_bytes: int = 4 << 30,
    ) -> None:
        """model: a path, or the file's bytes. device: "auto", "cuda", "cuda:1" or "cpu"; "auto" may use the CPU
        and says so in `device`. threads: of the CPU; default, what this process may use. micro_batch: images per
        run of the graph; by default 16, fewer of more than 256 x 256 pixels. max_output_bytes: bound on the output
        of one call.

        Raises `ModelFileError`, `DeviceUnavailableError`, `InputError`.
        """
        if micro_batch is not None:
            latents.check_integer("micro-batch", micro_batch, 1, 4096)
        self._file = ModelFile.read(model)
        self.max_output_bytes = max_output_bytes
        self._drawn: dict[str, Array] = {}  # of inputs that all images share
        self._asked = micro_batch
        largest = max(self._bytes())  # both are memory that a stranger's file asks for
        if largest > max_output_bytes:
            raise InputError(
                f"{self._file.name} was not opened",
                seen=f"One sample has {largest} bytes, the limit is {max_output_bytes}",
                repair="Raise max_output_bytes, if you trust the file",
            )
        self._micro_batch = self._fitting()
        self._session = Session(
            self._file.data, device=device, threads=threads, example=self._zeros(1)
        )

    def __repr__(self) -> str:
        return f"Generator({self._file.name!r}, device={self.device!r})"

    @property
    def signature(self) -> Signature:
        return self._file.signature

    @property
    def device(self) -> str:
        """Where the graph runs: "cpu" or "cuda:N"."""
        return self._session.device

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices; empty without labels."""
        return self.signature.classes

    def metadata(self, section: str) -> dict[str, Any]:
        """A part of the file's metadata: system, training, parity, golden, tools, weights, latents."""
        return self._file.section(section)

    def sample(
        self,
        count: int = 1,
        *,
        seed: int | None = None,
        start: int = 0,
        label: Label | None = None,
        truncation: float | None = None,
        noise: Noise = "shared",
    ) -> Array:
        """Images `start` to `start + count - 1` of `seed`: uint8 [count, H, W, C] for an image model.

        seed: 0 to 2^64 - 1; None draws one from the operating system and logs it. label: a class name (str), a
        class index (int), or one for each image; None draws the classes too. truncation: how far from the mean
        style, 1 being all the way; only where the signature has that input. noise: "shared" by all images, or
        "drawn" for each; only where the signature has such inputs. Raises `InputError`.
        """
        count = self.bounded(count)
        chunks = list(self._chunks(count, seed, start, label, truncation, noise))
        return np.concatenate(chunks) if len(chunks) != 1 else chunks[0]

    def stream(
        self,
        count: int,
        *,
        seed: int | None = None,
        start: int = 0,
        label: Label | None = None,
        truncation: float | None = None,
        noise: Noise = "shared",
    ) -> Iterator[Array]:
        """The images of `sample`, some at a time, in bounded memory."""
        count = latents.check_integer("count", count, 1, MAX_COUNT)
        return self._chunks(count, seed, start, label, truncation, noise)

    def images(
        self,
        count: int = 1,
        *,
        seed: int | None = None,
        start: int = 0,
        label: Label | None = None,
        truncation: float | None = None,
        noise: Noise = "shared",
    ) -> list[Image]:
        """The images of `sample` as Pillow images."""
        pixels = self.sample(
            count, seed=seed, start=start, label=label, truncation=truncation, noise=noise
        )
        return [to_pil(image) for image in pixels]

    def interpolate(
        self,
        first: int,
        last: int,
        frames: int,
        *,
        label: int | str | None = None,
        truncation: float | None = None,
    ) -> Array:
        """`frames` images on the way from image 0 of seed `first` to image 0 of seed `last`.

        Normal latents and noise move on the great circle between the two (slerp), uniform ones on the straight
        line, which stays in their range; labels stay those of `first`.
        """
        frames = self.bounded(frames)
        return np.concatenate(
            list(self.walk(first, last, frames, label=label, truncation=truncation))
        )

    def walk(
        self,
        first: int,
        last: int,
        frames: int,
        *,
        label: int | str | None = None,
        truncation: float | None = None,
    ) -> Iterator[Array]:
        """The images of `interpolate`, some at a time, in bounded memory."""
        frames = latents.check_integer("number of frames", frames, 1, MAX_COUNT)
        labels = self.labels(label, 1)
        self._check_truncation(truncation)
        begin, end = (self._draw(seed, range(1), labels, truncation) for seed in (first, last))
        return self._run_path(begin, end, frames)

    def _run_path(
        self, begin: dict[str, Array], end: dict[str, Array], frames: int
    ) -> Iterator[Array]:
        for i in range(0, frames, self._micro_batch):
            n = min(self._micro_batch, frames - i)
            steps = np.arange(i, i + n) / max(frames - 1, 1)
            path = {
                field.name: between(field, begin[field.name][0], end[field.name][0], steps)
                for field in self.signature.inputs
            }
            yield self.run(path, [self.signature.main])[0]

    def __call__(self, /, **inputs: Given) -> dict[str, Array]:
        """Run the graph on inputs of the caller's own, by the names of the signature; all outputs by name.

        Every input has the batch as its first axis; those that the signature fixes, or shares between all images,
        may be left out. An image or a mask may also be a path, a file's bytes, a Pillow image, uint8 [H, W, C], or a
        list of such; where the graph takes multiples of some size only, it is padded and the outputs are cropped.
        Raises `InputError` before the graph runs if a shape, type or value is not what the signature says.
        """
        arrays, count = self._checked(inputs)
        lengths = axes.lengths(self.signature, arrays)
        sizes = axes.whole(lengths, self.signature.least)
        self.bounded(count, sizes)
        step, outputs = self._fitting(sizes), self.signature.outputs
        parts = []
        for i in range(0, count, step):
            given = {name: array[i : i + step] for name, array in arrays.items()}
            made = self.run(given, outputs, sizes)
            parts.append(
                [axes.cropped(f, array, lengths) for f, array in zip(outputs, made, strict=True)]
            )
        joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return {field.name: array for field, array in zip(outputs, joined, strict=True)}

    def translate(
        self,
        image: Source,
        *,
        mask: Source | None = None,
        label: int | str | None = None,
        seed: int = 0,
        tile: int | None = None,
        overlap: int | None = None,
        resize: bool = False,
    ) -> Pixels:
        """What the model makes of one image: uint8 [H, W, C].

        image, mask: a path, a file's bytes, a Pillow image, or uint8 [H, W] or [H, W, C]; more than 127 in the mask
        is a hole. An image's alpha is kept: the result is RGBA then. label: a class name or index; None draws it, as
        all else that the model draws, from `seed`. tile: run in tiles of so many pixels a side, for large images; the
        result is the same within 1 step of 255, unless `overlap`, the pixels by which tiles see beyond themselves, is
        less than the signature's radius: then seams are blended. resize: the image to the size that the model takes,
        where it takes one only, and the mask to the image. Raises `InputError`.
        """
        translator = Translator(
            self, label=label, seed=seed, tile=tile, overlap=overlap, resize=resize
        )
        return translator(image, mask=mask)

    def verify(self) -> str:
        """Re-run the file's golden sample on this machine.

        "exact" where every output value is the one recorded at export, else a text with the largest difference.
        Raises `ParityError` where it is above 1 (CPU) or 2 (CUDA) steps of 255, more for a file in lower precision by
        what its parity report says of it, and `ModelFileError` where graph or weights are not those that were
        exported.
        """
        golden = Golden.from_metadata(self.metadata("golden"))
        golden.check_graph(self._file.graph_digest(), self.metadata("weights"))
        inputs = golden_inputs(self.signature, golden.seed, golden.count)
        outputs = self(**inputs)[self.signature.main.name]
        limit = golden.step + (1 if self.device == "cpu" else 2)
        return golden.compare(outputs, self.signature.main, limit=limit)

    def _chunks(
        self,
        count: int,
        seed: int | None,
        start: int,
        label: Label | None,
        truncation: float | None,
        noise: Noise,
    ) -> Iterator[Array]:
        if seed is None:
            seed = secrets.randbits(64)
            logger.info("Drew seed %d", seed)
        latents.check_uint64("seed", seed)
        start = latents.check_uint64("start", start)
        latents.check_uint64("index of the last image", start + count - 1)
        for field in self.signature.inputs:
            check_drawable(field)
        labels = self.labels(label, count)
        self._check_truncation(truncation)
        each = self._noise_for_each(noise)
        return self._run_chunks(count, seed, start, labels, truncation, each)

    def _run_chunks(
        self,
        count: int,
        seed: int,
        start: int,
        labels: Array | None,
        truncation: float | None,
        each: bool,
    ) -> Iterator[Array]:
        for i in range(0, count, self._micro_batch):
            n = min(self._micro_batch, count - i)
            part = labels[i : i + n] if labels is not None and labels.ndim else labels
            indices = range(start + i, start + i + n)
            inputs = self._draw(seed, indices, part, truncation, each)
            yield self.run(inputs, [self.signature.main])[0]

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[Field],
        sizes: Mapping[str, int] = MappingProxyType({}),
    ) -> list[Array]:
        """One micro-batch of checked inputs, images and masks padded to the dynamic axes' sizes.

        onnxruntime holds no graph to the shapes that it declares, so they are looked at here.
        """
        count = len(next(iter(inputs.values())))
        given = {
            field.name: axes.padded(field, inputs[field.name], sizes)
            if is_picture(field)
            else inputs[field.name]
            for field in self.signature.inputs
        }
        arrays = self._session.run(given, [field.name for field in outputs])
        for field, array in zip(outputs, arrays, strict=True):
            if not has_shape(field, array, sizes) or len(array) != count:
                raise ModelFileError(
                    f"Output {field.name} is not what the signature says",
                    seen=f"shape {list(array.shape)} for a batch of {count}",
                    repair="Export the model again with `gan export`",
                )
        return arrays

    def drawn(
        self, fields: Sequence[Field], seed: int, label: int | str | None
    ) -> dict[str, Array]:
        """These inputs of image 0 of a seed, [1, ...]; the label as it is given, or drawn."""
        latents.check_uint64("seed", seed)
        inputs = {field.name: draw_field(field, seed, range(1)) for field in fields}
        labels = self.labels(label, 1)
        if labels is not None and self.signature.label:
            inputs[self.signature.label.name] = labels.reshape(1)
        return inputs

    def _draw(
        self,
        seed: int,
        indices: Sequence[int],
        labels: Array | None,
        truncation: float | None,
        each: bool = False,
    ) -> dict[str, Array]:
        """All inputs of these images; labels (one, or one each) and truncation are checked already."""
        inputs = {
            field.name: draw_field(field, seed, indices, each=each)
            if each or not is_shared(field)
            else self._shared(field, len(indices))
            for field in self.signature.inputs
        }
        if labels is not None and self.signature.label:
            inputs[self.signature.label.name] = np.broadcast_to(labels, len(indices)).copy()
        if truncation is not None:
            inputs["truncation"] = np.full_like(inputs["truncation"], truncation)
        return inputs

    def _shared(self, field: Field, count: int) -> Array:
        """What all images share of an input, [count, ...], drawn at its first use."""
        if field.name not in self._drawn:
            self._drawn[field.name] = draw_field(field, 0, range(1))
        return np.repeat(self._drawn[field.name], count, axis=0)

    def labels(self, label: Label | None, count: int) -> Array | None:
        """int64 [] for one label, [count] for one each, None where they are drawn."""
        if label is None:
            return None
        field = self.signature.label
        if field is None:
            raise InputError(
                "A label was given", seen="This model has no classes", repair="Leave label out"
            )
        if isinstance(label, np.ndarray):
            label = label.tolist()
        if isinstance(label, str) or not isinstance(label, Sequence):
            return np.asarray(self._class_index(label), np.int64)
        indices = np.array([self._class_index(one) for one in label], np.int64)
        if len(indices) != count:
            raise InputError(
                "The labels were refused",
                seen=f"{len(indices)} labels for {count} images",
                repair="Give one label, or one for each image",
            )
        return indices

    def _class_index(self, label: int | str) -> int:
        field = self.signature.label
        assert field is not None
        known, names = class_count(field), self.classes
        if isinstance(label, str) and label in names:
            return names.index(label)
        integer = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
        if integer and 0 <= int(label) < known:
            return int(label)
        listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise InputError(
            "The label was refused",
            seen=shown(label),
            repair=f"Give a class index from 0 to {known - 1}"
            + (f", or one of: {listed}" if names else ""),
        )

    def _check_truncation(self, truncation: float | None) -> None:
        if truncation is None:
            return
        field = self.signature.input("truncation")
        if field is None:
            raise InputError(
                "Truncation was given", seen="This model has none", repair="Leave truncation out"
            )
        check_input(field, [truncation])

    def _noise_for_each(self, noise: str) -> bool:
        """Whether each image has noise of its own."""
        if noise == "shared":
            return False
        if noise != "drawn" or not any(is_shared(field) for field in self.signature.inputs):
            raise InputError(
                "The noise was refused",
                seen=f"{noise!r:.40}" if noise != "drawn" else "A model without noise inputs",
                repair="Leave noise out" if noise == "drawn" else 'Give "shared" or "drawn"',
            )
        return True

    def _checked(self, inputs: Mapping[str, Given]) -> tuple[dict[str, Array], int]:
        known = [field.name for field in self.signature.inputs]
        unknown = sorted(set(inputs) - set(known))
        if unknown:
            raise InputError(
                "An input was refused",
                seen=f"{unknown[0]!r:.60}",
                repair=f"This model takes {', '.join(known)}",
            )
        arrays = {
            field.name: check_input(field, inputs[field.name])
            for field in self.signature.inputs
            if field.name in inputs
        }
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            raise InputError(
                "The inputs disagree",
                seen=f"batch sizes {counts}",
                repair="Give each the same first axis",
            )
        count = next(iter(counts.values()), 0)
        if count == 0:
            raise InputError(
                "No input was given", seen="an empty batch", repair=f"Give {', '.join(known)}"
            )
        for field in self.signature.inputs:
            if field.name not in arrays:
                if is_shared(field):
                    arrays[field.name] = np.broadcast_to(
                        self._shared(field, 1),
                        (count, *field.shape_at(self.signature.example_sizes)),
                    )
                elif field.draw is not None and field.draw.kind == "fixed":
                    arrays[field.name] = draw_field(field, 0, range(count))
                else:
                    raise InputError(
                        f"Input {field.name} is missing",
                        seen=f"{sorted(inputs)}",
                        repair=wanted(field),
                    )
        return arrays, count

    def bounded(self, count: int, sizes: Mapping[str, int] | None = None) -> int:
        """`count`, if so many images stay within `max_output_bytes`; else `InputError`. sizes: of the dynamic axes."""
        count = latents.check_integer("count", count, 1, MAX_COUNT)
        given, made = self._bytes(sizes)
        if count * made > self.max_output_bytes or given > self.max_output_bytes:
            raise InputError(
                "Too many images for one call",
                seen=f"{count} of {max(given, made)} bytes, the limit is {self.max_output_bytes} bytes",
                repair=f"{'Use stream()' if sizes is None else 'Give fewer or smaller ones'}, "
                "or raise max_output_bytes",
            )
        return count

    def _bytes(self, sizes: Mapping[str, int] | None = None) -> tuple[int, int]:
        """Of the inputs and of the outputs of one sample."""
        known = {**self.signature.example_sizes, **(sizes or {})}
        given, made = (
            sum(sample_bytes(field, known) for field in fields)
            for fields in (self.signature.inputs, self.signature.outputs)
        )
        return given, made

    def _fitting(self, sizes: Mapping[str, int] | None = None) -> int:
        """Images of one run of the graph."""
        known = {**self.signature.example_sizes, **(sizes or {})}
        values = math.prod(self.signature.main.shape_at(known))
        fitting = max(1, min(MICRO_BATCH, MICRO_VALUES // max(values, 1)))
        return min(self._asked or fitting, max(1, self.max_output_bytes // max(self._bytes(sizes))))

    def _zeros(self, count: int) -> dict[str, Array]:
        return {
            field.name: np.zeros(
                (count, *field.shape_at(self.signature.example_sizes)), field.dtype
            )
            for field in self.signature.inputs
        }
