"""Generator: samples of one exported model, by seed, on a CPU or a GPU, without torch."""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from . import asked, axes
from .asked import Label, Noise
from .buckets import MICRO_BATCH, batch_buckets
from .cuda import CudaOptions
from .device_array import DeviceArray
from .errors import InputError
from .images import Pixels, to_pil
from .inputs import (
    Array,
    Given,
    batch_rows,
    between,
    check_drawable,
    check_input,
    check_output,
    draw_field,
    is_picture,
    is_shared,
    sample_bytes,
    wanted,
)
from .model_file import ModelFile
from .pictures import Source
from .session import Session
from .signature import Field, Signature
from .values import check_flag, check_integer, check_uint64, refused

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("gan.runtime")

MICRO_VALUES = 16 * 3 * 256 * 256  # of the main output of one run, at most
BLOCK = 1 << 13  # values that are drawn at once, for whole runs
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
        side_by_side: bool = True,
        max_output_bytes: int = 4 << 30,
        cuda: CudaOptions | None = None,
    ) -> None:
        """model: a path, or the file's bytes. device: "auto", "cuda", "cuda:1" or "cpu"; "auto" may use the CPU
        and says so in `device`. threads: of the CPU; default, what this process may use. micro_batch: images per
        run of the graph; by default what runs fastest on a CPU, found from the first runs, and 16 on a GPU, fewer of
        more than 256 x 256 pixels. side_by_side: on a CPU, run as many graphs at once as there are threads where that is
        sooner, which takes a second session with weights of its own. max_output_bytes: bound on the output
        of one call. cuda: how a GPU runs the model; only where the device is one.

        Raises `ModelFileError`, `DeviceUnavailableError`, `InputError`.
        """
        if micro_batch is not None:
            micro_batch = check_integer("micro-batch", micro_batch, 1, 4096)
        side_by_side = check_flag("side_by_side", side_by_side)
        self.max_output_bytes = check_integer("max_output_bytes", max_output_bytes, 1, MAX_COUNT)
        self._file = ModelFile.read(model)
        self._drawn: dict[str, Array] = {}  # of inputs that all images share
        self._asked = micro_batch
        self._sample_bytes: tuple[int, int] | None = None
        self._sample_bytes = self._bytes()
        largest = max(self._sample_bytes)  # both are memory that a stranger's file asks for
        if largest > max_output_bytes:
            raise InputError(
                f"{self._file.name} was not opened",
                seen=f"One sample has {largest} bytes, the limit is {max_output_bytes}",
                repair="Raise max_output_bytes, if you trust the file",
            )
        free = micro_batch is None and self._is_exact()
        self._session = Session(
            self._file.data,
            device=device,
            threads=threads,
            example=self._zeros(1),
            cuda=cuda,
            buckets=batch_buckets(micro_batch or MICRO_BATCH),
            fixed_size=not self.signature.example_sizes,
            paced=free and not self.signature.example_sizes,
            divided=free and side_by_side,
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
    def session(self) -> Session:
        """What runs the graph."""
        return self._session

    @property
    def micro_batch(self) -> int:
        """Images of one run of the graph, at the example's sizes: on a CPU what the runs so far have shown."""
        return next(self._spans(MAX_COUNT))[1]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices; empty without labels."""
        return self.signature.classes

    def metadata(self, section: str) -> dict[str, Any]:
        """A part of the file's metadata: system, training, parity, golden, tools, weights, latents; {} if it has none."""
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
        chunks = list(
            self.stream(
                count, seed=seed, start=start, label=label, truncation=truncation, noise=noise
            )
        )
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
        count = check_integer("count", count, 1, MAX_COUNT)
        batches = self._batches(count, seed, start, label, truncation, noise)
        return self._run_main(batches, count)

    def sample_dlpack(
        self,
        count: int = 1,
        *,
        seed: int | None = None,
        start: int = 0,
        label: Label | None = None,
        truncation: float | None = None,
        noise: Noise = "shared",
    ) -> Iterator[DeviceArray]:
        """The images of `sample`, a micro-batch at a time, left on the device that made them: uint8 [n, H, W, C].

        `torch.from_dlpack(images)` or `cupy.from_dlpack(images)` takes them over without a copy, and each has memory
        of its own, of the session's arena: keep the generator while they are in use. They are made without padding
        and without CUDA graphs; pixels may differ from those of `sample` by rounding. Unmeasured on a GPU. Raises `InputError`, and `DeviceUnavailableError` where onnxruntime-gpu is too
        old for DLPack.
        """
        count = check_integer("count", count, 1, MAX_COUNT)
        batches = self._batches(count, seed, start, label, truncation, noise)
        return self._run_on_device(batches, count)

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
        frames = self.bounded(frames, name="number of frames")
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
        frames = check_integer("number of frames", frames, 1, MAX_COUNT)
        check_uint64("first seed", first)
        check_uint64("last seed", last)
        labels = self.labels(label, 1)
        asked.check_truncation(self.signature, truncation)
        begin, end = (self._draw(seed, range(1), labels, truncation) for seed in (first, last))
        return self._run_main(self._path(begin, end, frames), frames)

    def _path(
        self, begin: dict[str, Array], end: dict[str, Array], frames: int
    ) -> Iterator[dict[str, Array]]:
        for i, n in self._spans(frames):
            steps = np.arange(i, i + n) / max(frames - 1, 1)
            yield {
                field.name: between(field, begin[field.name][0], end[field.name][0], steps)
                for field in self.signature.inputs
            }

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
        outputs = self.signature.outputs
        batches = (
            {name: array[i : i + n] for name, array in arrays.items()}
            for i, n in self._spans(count, sizes)
        )
        parts = [
            [axes.cropped(f, array, lengths) for f, array in zip(outputs, made, strict=True)]
            for made in self.run_stream(batches, outputs, count, sizes)
        ]
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
        from .translator import Translator

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
        from .golden import Golden, golden_inputs  # which few need

        golden = Golden.from_metadata(self.metadata("golden"))
        golden.check_graph(self._file.graph_digest(), self.metadata("weights"))
        inputs = golden_inputs(self.signature, golden.seed, golden.count)
        outputs = self(**inputs)[self.signature.main.name]
        limit = golden.step + (1 if self.device == "cpu" else 2)
        return golden.compare(outputs, self.signature.main, limit=limit)

    def _batches(
        self,
        count: int,
        seed: int | None,
        start: int,
        label: Label | None,
        truncation: float | None,
        noise: Noise,
    ) -> Iterator[dict[str, Array]]:
        """The inputs of these images, a micro-batch at a time."""
        if seed is None:
            seed = int.from_bytes(os.urandom(8), "little")
            logger.info("Drew seed %d", seed)
        check_uint64("seed", seed)
        start = check_uint64("start", start)
        check_uint64("index of the last image", start + count - 1)
        for field in self.signature.inputs:
            check_drawable(field)
        labels = self.labels(label, count)
        asked.check_truncation(self.signature, truncation)
        each = asked.noise_for_each(self.signature, noise)
        return self._drawn_batches(count, seed, start, labels, truncation, each)

    def _drawn_batches(
        self,
        count: int,
        seed: int,
        start: int,
        labels: Array | None,
        truncation: float | None,
        each: bool,
    ) -> Iterator[dict[str, Array]]:
        values = max(1, sum(field.size for field in self.signature.inputs))
        begin, end, block = 0, 0, dict[str, Array]()
        for i, n in self._spans(count):
            if i + n > end:  # small ones are drawn for several runs at once
                begin, end = i, min(i + n * max(1, BLOCK // (values * n)), count)
                part = labels[begin:end] if labels is not None and labels.ndim else labels
                indices = range(start + begin, start + end)
                block = self._draw(seed, indices, part, truncation, each)
            yield {name: array[i - begin : i + n - begin] for name, array in block.items()}

    def _run_on_device(
        self, batches: Iterable[Mapping[str, Array]], rows: int
    ) -> Iterator[DeviceArray]:
        main, counts = self.signature.main, deque[int]()
        for (array,) in self._session.stream_on_device(
            _counting(batches, counts), [main.name], rows=rows, most=self.at_once()
        ):
            check_output(main, array.shape, counts.popleft())
            yield array

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[Field],
        sizes: Mapping[str, int] = MappingProxyType({}),
    ) -> list[Array]:
        """One micro-batch of checked inputs, images and masks padded to the dynamic axes' sizes."""
        (arrays,) = self.run_stream([inputs], outputs, batch_rows(inputs), sizes)
        return arrays

    def run_stream(
        self,
        batches: Iterable[Mapping[str, Array]],
        outputs: Sequence[Field],
        rows: int,
        sizes: Mapping[str, int] = MappingProxyType({}),
    ) -> Iterator[list[Array]]:
        """`run` of each batch, in order, of so many rows together; the session may be batches ahead."""
        counts = deque[int]()

        def given() -> Iterator[dict[str, Array]]:
            for inputs in _counting(batches, counts):
                yield {
                    field.name: axes.padded(field, inputs[field.name], sizes)
                    if is_picture(field)
                    else inputs[field.name]
                    for field in self.signature.inputs
                }

        names = [field.name for field in outputs]
        for arrays in self._session.run_stream(given(), names, rows=rows, most=self.at_once(sizes)):
            count = counts.popleft()
            for field, array in zip(outputs, arrays, strict=True):
                check_output(field, array.shape, count, sizes)
            yield arrays

    def _run_main(self, batches: Iterable[Mapping[str, Array]], rows: int) -> Iterator[Array]:
        """The main output of each batch."""
        for (array,) in self.run_stream(batches, [self.signature.main], rows):
            yield array

    def drawn(
        self, fields: Sequence[Field], seed: int, label: int | str | None
    ) -> dict[str, Array]:
        """These inputs of image 0 of a seed, [1, ...]; the label as it is given, or drawn."""
        check_uint64("seed", seed)
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
        return asked.labels(self.signature, label, count)

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
            field.name: check_input(field, inputs[field.name], self.max_output_bytes)
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

    def bounded(
        self, count: int, sizes: Mapping[str, int] | None = None, *, name: str = "count"
    ) -> int:
        """`count`, if so many images stay within `max_output_bytes`; else `InputError`. sizes: of the dynamic axes."""
        count = check_integer(name, count, 1, MAX_COUNT)
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
        if not sizes and self._sample_bytes:
            return self._sample_bytes
        known = {**self.signature.example_sizes, **(sizes or {})}
        given, made = (
            sum(sample_bytes(field, known) for field in fields)
            for fields in (self.signature.inputs, self.signature.outputs)
        )
        return given, made

    def _spans(
        self, count: int, sizes: Mapping[str, int] | None = None
    ) -> Iterator[tuple[int, int]]:
        """First row and number of rows of each run, of `count` rows in all."""
        most, first = self.at_once(sizes), 0
        while first < count:
            rows = self._session.fitting(most, count, count - first)
            yield first, rows
            first += rows

    def at_once(self, sizes: Mapping[str, int] | None = None) -> int:
        """Rows that are computed at once, at most. sizes: of the dynamic axes."""
        signature = self.signature
        values = signature.example_values
        if sizes:
            values = math.prod(signature.main.shape_at({**signature.example_sizes, **sizes}))
        most = self._asked or max(1, min(self._session.most, MICRO_VALUES // max(values, 1)))
        return min(most, max(1, self.max_output_bytes // max(self._bytes(sizes))))

    def _is_exact(self) -> bool:
        """Whether the export found the same bytes for any batch size and any number of threads."""
        found = self.metadata("parity").get("exactness")
        if not isinstance(found, dict):
            return False
        return found.get("across_batches") == 0 and found.get("across_threads") == 0

    def _zeros(self, count: int) -> dict[str, Array]:
        return {
            field.name: np.zeros(
                (count, *field.shape_at(self.signature.example_sizes)), field.dtype
            )
            for field in self.signature.inputs
        }


def _counting(
    batches: Iterable[Mapping[str, Array]], counts: deque[int]
) -> Iterator[Mapping[str, Array]]:
    """The same batches, and the samples of each."""
    for inputs in batches:
        counts.append(batch_rows(inputs))
        yield inputs


def check_generators(**roles: Generator) -> None:
    """`InputError` that names the role, for what is no generator."""
    for role, given in roles.items():
        if not isinstance(given, Generator):
            raise refused(role, given, "Give a Generator")
