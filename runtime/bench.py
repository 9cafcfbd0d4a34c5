"""How fast a model is here: what an application calls, beside what it could call instead. Prints nothing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .cuda import CPU, CUDA
from .generator import Generator
from .inputs import Array, is_drawable, stand_in
from .measure import Contender, Fresh, Machine, Speed, compare, machine, run_fresh
from .model_file import ModelFile
from .session import load_onnxruntime

OURS, BARE, PLAIN, BY_HAND = "Generator", "its session.run", "plain session.run", "by hand"
SETTLING = 30.0  # seconds at most
STREAM, STREAM_BATCH = 1_000, 64  # images; of one call of a rival


class Rivals(Protocol):
    """Further contenders, which others know how to make."""

    @property
    def missing(self) -> Mapping[str, str]:
        """Those that cannot run here, each with the reason."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Of what they run on."""
        ...

    def contenders(self, count: int, *, calls: int, threads: int) -> Sequence[Contender]:
        """Each makes `count` images, `calls` times, from the inputs that the model takes."""
        ...

    def first_image(self, out: Path, threads: int) -> Mapping[str, str]:
        """Code of fresh processes that leave a first image on the disk, at `out` and a suffix."""
        ...


@dataclass(frozen=True)
class Row:
    """One contender at one batch. ratio: how many times as fast ours is, from the same rounds. stream: the images
    come as an unbounded stream, and the latency is that of the whole."""

    name: str
    batch: int
    images_per_second: float
    p50_ms: float
    p99_ms: float
    ratio: float
    calls: int
    stream: bool = False


@dataclass(frozen=True)
class Bench:
    """All that was measured of a model. fresh: from process start to first image on disk."""

    model: str
    device: str
    threads: int
    micro_batch: int
    machine: Machine
    rows: tuple[Row, ...]
    fresh: Mapping[str, Fresh]
    missing: Mapping[str, str]
    versions: Mapping[str, str]

    def best_other(self, batch: int, *, stream: bool = False) -> Row | None:
        """The fastest that is not ours."""
        others = [
            row
            for row in self.rows
            if (row.batch, row.stream) == (batch, stream) and row.name not in (OURS, BARE)
        ]
        return max(others, key=lambda row: row.images_per_second, default=None)


class Subject:
    """A model that is opened, and the contenders that need no more than it."""

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        plain: Path | None = None,
    ) -> None:
        """plain: the file that a plain session runs; by default the same. Raises as `Generator` does."""
        self.path, self.model = path, ModelFile.read(path)
        self._plain = ModelFile.read(plain or path)
        self.generator = Generator(path, device=device, threads=threads)
        settle(self.generator)
        self.threads = self.generator.session.threads
        self.draws = is_drawable(self.model.signature.inputs)

    def ours(self, count: int) -> Contender:
        """What an application calls: `sample`, or for a model that takes images a call with `count` of them."""
        if self.draws:
            return Contender(OURS, count, lambda: self.generator.sample(count, seed=0))
        inputs = example_inputs(self.model, count)
        return Contender(OURS, count, lambda: self.generator(**inputs))

    def streaming(self, count: int) -> Contender:
        """`count` images by `stream`, none kept; by calls of micro-batches where it is not for streams."""
        if not self.draws:
            step = self.generator.micro_batch
            inputs, calls = example_inputs(self.model, step), -(-count // step)
            return Contender(
                OURS, calls * step, lambda: [self.generator(**inputs) for _ in range(calls)]
            )

        def call() -> None:
            for _ in self.generator.stream(count, seed=0):
                pass

        return Contender(OURS, count, call)

    def bare(self, count: int) -> Contender:
        """onnxruntime's own `run` of the session of all threads, in its best chunks, the inputs at hand."""
        session, most = self.generator.session, self.generator.at_once()
        step = session.fitting(most, 1, most)  # of a call of one, which is never divided
        chunks = [example_inputs(self.model, min(step, count))] * (count // min(step, count))
        if count % step and count > step:
            chunks.append(example_inputs(self.model, count % step))
        names = [self.model.signature.main.name] if self.draws else None
        native = session.native

        def call() -> Array:
            made = [native.run(names, chunk)[0] for chunk in chunks]
            return np.concatenate(made) if len(made) > 1 else made[0]

        return Contender(BARE, count, call)

    def plain(self, count: int, *, calls: int = 1) -> Contender:
        """What onnxruntime's manual says: a session with its defaults, one run for all."""
        ort = load_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4
        kind, _, index = self.generator.device.partition(":")
        cuda = [(CUDA, {"device_id": index})] if kind == "cuda" else []
        session = ort.InferenceSession(self._plain.data, options, providers=[*cuda, CPU])
        inputs, names = example_inputs(self.model, count), [self.model.signature.main.name]

        def call() -> Array:
            for _ in range(calls):
                made: Array = session.run(names, inputs)[0]
            return made

        return Contender(PLAIN, calls * count, call)

    def first_image(self, out: Path) -> dict[str, str]:
        """Code that leaves the model's first image on the disk, at `out` and a suffix: by us, and without us."""
        main = self.model.signature.main
        picture = main.kind == "image" and main.dtype == "uint8"
        suffix = ".png" if picture else ".npy"
        given: dict[str, Any] = {
            "model": str(self.path),
            "device": self.generator.device,
            "threads": self.threads,
            "out": f"{out}{suffix}",
            "shapes": {
                field.name: [1, *field.shape_at(self.model.signature.example_sizes)]
                for field in self.model.signature.inputs
            },
        }
        by_us = (_SAMPLE if self.draws else _CALL) + (_SAVE if picture else _SAVE_ARRAY)
        codes = {OURS: by_us.format(**given)}
        if self.generator.device == "cpu":
            codes[BY_HAND] = (_RUN + (_SAVE_BY_HAND if picture else _SAVE_ARRAY)).format(**given)
        return codes


_SAMPLE = """
from gan.runtime import Generator
image = Generator({model!r}, device={device!r}, threads={threads!r}).sample(1, seed=0)[0]
"""
_CALL = """
from gan.runtime import Generator
from gan.runtime.bench import example_inputs
from gan.runtime.model_file import ModelFile
generator = Generator({model!r}, device={device!r}, threads={threads!r})
inputs = example_inputs(ModelFile.read({model!r}), 1)
image = generator(**inputs)[generator.signature.main.name][0]
"""
_SAVE = """
from gan.runtime.images import save
save(image, {out!r})
"""
_SAVE_ARRAY = """
import numpy
numpy.save({out!r}, image)
"""
_RUN = """
import numpy
import onnxruntime
from PIL import Image
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads!r}
session = onnxruntime.InferenceSession({model!r}, options, providers=["CPUExecutionProvider"])
rng, shapes, inputs = numpy.random.default_rng(0), {shapes!r}, {{}}
for one in session.get_inputs():
    kind = {{"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}}[one.type]
    shape = shapes[one.name]
    drawn = rng.standard_normal(shape) if kind == "float32" else numpy.zeros(shape)
    inputs[one.name] = drawn.astype(kind)
image = session.run(None, inputs)[0][0]
"""
_SAVE_BY_HAND = """
Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save({out!r})
"""


def bench(
    subject: Subject,
    *,
    batches: Sequence[int] = (1, 8, 64),
    seconds: float = 2.0,
    stream: int = STREAM,
    rivals: Rivals | None = None,
    starts: int = 5,
    tell: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure a model at these batch sizes, as a stream, and from process start to first image on disk.

    seconds: of each contender at each batch, in all rounds. stream: images at most, fewer where they would take
    longer than twice that. starts: fresh processes of each kind, none with 0. tell: what is measured now.
    Raises `InputError` for a batch that the model cannot give.
    """
    generator = subject.generator
    generator.bounded(max(batches), subject.model.signature.example_sizes)
    rows: list[Row] = []
    for batch in batches:
        tell(f"batch {batch}")
        contenders = [subject.ours(batch), subject.bare(batch), subject.plain(batch)]
        if rivals is not None:
            contenders += rivals.contenders(batch, calls=1, threads=subject.threads)
        rows += _rows(batch, compare(contenders, seconds=seconds))
    if stream:
        per_second = max(row.images_per_second for row in rows if row.name == OURS)
        most = max(generator.micro_batch, round(2 * seconds * per_second))
        tell(f"stream of {min(stream, most)}")
        rows += _stream(subject, min(stream, most), seconds, rivals)
    fresh: dict[str, Fresh] = {}
    if starts:
        tell("start-up")
        fresh = _fresh(subject, rivals, starts)
    return Bench(
        subject.model.name,
        generator.device,
        subject.threads,
        generator.micro_batch,
        machine(),
        tuple(rows),
        fresh,
        dict(rivals.missing) if rivals is not None else {},
        dict(rivals.versions) if rivals is not None else {},
    )


def _stream(subject: Subject, count: int, seconds: float, rivals: Rivals | None) -> list[Row]:
    batch = min(count, STREAM_BATCH)
    calls = -(-count // batch)
    contenders = [
        subject.streaming(count),
        subject.bare(count),
        subject.plain(batch, calls=calls),
    ]
    if rivals is not None:
        contenders += rivals.contenders(batch, calls=calls, threads=subject.threads)
    return _rows(count, compare(contenders, seconds=seconds), stream=True)


def _rows(batch: int, speeds: Mapping[str, Speed], *, stream: bool = False) -> list[Row]:
    return [
        Row(
            name,
            batch,
            speed.images_per_second,
            speed.milliseconds(50),
            speed.milliseconds(99),
            speeds[OURS].ratio(speed),
            len(speed.calls),
            stream,
        )
        for name, speed in speeds.items()
    ]


def _fresh(subject: Subject, rivals: Rivals | None, repeats: int) -> dict[str, Fresh]:
    with tempfile.TemporaryDirectory(prefix="gan-bench-") as folder:
        out = Path(folder) / "first"
        codes = subject.first_image(out)
        if rivals is not None:
            codes |= rivals.first_image(out, subject.threads)
        return run_fresh(codes, repeats=repeats)


def settle(generator: Generator) -> int:
    """Run batches until it is found how this model runs fastest; the size of the micro-batch."""
    end = time.perf_counter() + SETTLING
    most = generator.at_once(generator.signature.example_sizes)
    while not generator.session.settled(most) and time.perf_counter() < end:
        generator(**example_inputs(generator, most))
    return generator.micro_batch


def example_inputs(model: ModelFile | Generator, count: int) -> dict[str, Array]:
    """Inputs of `count` images of seed 0, by the latent stream; what only a caller has gets stand-ins."""
    sizes = model.signature.example_sizes
    return {
        field.name: stand_in(
            field, place, 0, range(count), sizes
        ).copy()  # what images share is read-only
        for place, field in enumerate(model.signature.inputs)
    }
