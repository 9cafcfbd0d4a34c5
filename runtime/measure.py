"""How fast a generator is here: contenders timed in turns, fresh processes, and what they ran on. Prints nothing."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import DeviceUnavailableError
from .generator import Generator
from .inputs import Array, is_drawable, stand_in
from .model_file import ModelFile
from .session import available_cpus, load_onnxruntime

OURS, BARE, PLAIN = "Generator", "session.run", "plain session.run"
PAUSE = 0.03  # seconds between two contenders: the threads of the one before still spin
QUICK = 0.5  # seconds of a call below which each turn begins with one that is not counted


@dataclass(frozen=True)
class Contender:
    """Something that makes `images` images at each call. enter: called before its turn, as to set its threads."""

    name: str
    images: int
    call: Callable[[], object]
    enter: Callable[[], object] | None = None


@dataclass(frozen=True)
class Speed:
    """What was measured of a contender: images per second in each round, seconds of each call."""

    name: str
    images: int
    rounds: tuple[float, ...]
    calls: tuple[float, ...]

    @property
    def images_per_second(self) -> float:
        return statistics.median(self.rounds)

    def latency(self, percent: float) -> float:
        """Milliseconds within which so many percent of the calls ended."""
        return float(np.percentile(self.calls, percent)) * 1e3

    def ratio(self, other: Speed) -> float:
        """How many times as fast as `other`: the median of the rounds' ratios, in which a machine's moods cancel."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))


def compare(
    contenders: Sequence[Contender], *, seconds: float, rounds: int = 5
) -> dict[str, Speed]:
    """Let each contender run for about `seconds` in all, by turns: in each round all of them, each time another first.

    A call that takes longer than a turn is made once a round.
    """
    lasted = {one.name: _warm_up(one) for one in contenders}
    calls: dict[str, list[float]] = {one.name: [] for one in contenders}
    speeds: dict[str, list[float]] = {one.name: [] for one in contenders}
    for number in range(rounds):
        first = number % len(contenders)
        for one in (*contenders[first:], *contenders[:first]):
            times = _turn(one, seconds / rounds, warm=lasted[one.name] < QUICK)
            calls[one.name] += times
            speeds[one.name].append(len(times) * one.images / sum(times))
    return {
        one.name: Speed(one.name, one.images, tuple(speeds[one.name]), tuple(calls[one.name]))
        for one in contenders
    }


def _warm_up(contender: Contender) -> float:
    """Seconds of the second call, or of the first where one is long: the first may compile."""
    _enter(contender)
    first = _timed(contender)
    return first if first > 10 * QUICK else _timed(contender)


def _turn(contender: Contender, seconds: float, *, warm: bool) -> list[float]:
    time.sleep(PAUSE)
    _enter(contender)
    if warm:
        contender.call()
    times = [_timed(contender)]
    while sum(times) + times[-1] / 2 < seconds:
        times.append(_timed(contender))
    return times


def _enter(contender: Contender) -> None:
    if contender.enter is not None:
        contender.enter()


def _timed(contender: Contender) -> float:
    begin = time.perf_counter()
    contender.call()
    return time.perf_counter() - begin


# The contenders that need no torch


def example_inputs(
    model: ModelFile, count: int, *, seed: int = 0, start: int = 0
) -> dict[str, Array]:
    """Inputs of images `start` to `start + count - 1`, by the latent stream; what only a caller has gets stand-ins."""
    sizes = model.signature.example_sizes
    return {
        field.name: np.ascontiguousarray(
            stand_in(field, place, seed, range(start, start + count), sizes)
        )
        for place, field in enumerate(model.signature.inputs)
    }


def ours(generator: Generator, model: ModelFile, count: int) -> Contender:
    """What an application calls: `sample`, or for a model that takes images a call with `count` of them."""
    if is_drawable(model.signature.inputs):
        return Contender(OURS, count, lambda: generator.sample(count, seed=0))
    inputs = example_inputs(model, count)
    return Contender(OURS, count, lambda: generator(**inputs))


def bare(generator: Generator, model: ModelFile, count: int) -> Contender:
    """onnxruntime's own `run` of the same session and chunks, with the inputs at hand: what our overhead is over."""
    inputs, step = example_inputs(model, count), generator.micro_batch
    chunks = [
        {name: np.ascontiguousarray(array[i : i + step]) for name, array in inputs.items()}
        for i in range(0, count, step)
    ]
    names = [model.signature.main.name] if is_drawable(model.signature.inputs) else None
    native = generator.session.native

    def call() -> Array:
        return np.concatenate([native.run(names, chunk)[0] for chunk in chunks])

    return Contender(BARE, count, call)


def streaming(generator: Generator, count: int) -> Contender:
    """`count` images by `stream`, none kept."""

    def call() -> None:
        for _ in generator.stream(count, seed=0):
            pass

    return Contender(OURS, count, call)


def plain(data: bytes, model: ModelFile, count: int, threads: int) -> Contender:
    """What onnxruntime's manual says: a session with its defaults, one run for all. data: the file to run."""
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    inputs, names = example_inputs(model, count), [model.signature.main.name]
    return Contender(PLAIN, count, lambda: session.run(names, inputs))


# Fresh processes

# The peak of the process's own memory: what wait4 tells counts the parent's before the exec, too.
_FIRST, _LAST = "import time; print(time.time())\n", """
import time
print(time.time())
try:
    from pathlib import Path
    print(next(l.split()[1] for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l))
except (OSError, StopIteration):
    print(0)
"""  # fmt: skip
FIRST_IMAGE = """
from gan.runtime import Generator
generator = Generator({model!r}, device={device!r}, threads={threads!r})
if {drawable!r}:
    image = generator.sample(1, seed=0)[0]
else:
    from gan.runtime.measure import example_inputs
    from gan.runtime.model_file import ModelFile
    made = generator(**example_inputs(ModelFile.read({model!r}), 1))
    image = made[generator.signature.main.name][0]
if {picture!r}:
    from gan.runtime.images import save
    save(image, {out!r} + ".png")
else:
    import numpy
    numpy.save({out!r} + ".npy", image)
"""


@dataclass(frozen=True)
class Fresh:
    """Of a fresh process: seconds from its start until its code had run, and its peak memory, 0 where unknown."""

    seconds: float
    megabytes: float


def first_image(path: Path, model: ModelFile, out: Path, device: str, threads: int) -> str:
    """Code that opens the file at `path` and leaves its first image on the disk, at `out`."""
    main = model.signature.main
    return FIRST_IMAGE.format(
        model=str(path),
        out=str(out),
        device=device,
        threads=threads,
        drawable=is_drawable(model.signature.inputs),
        picture=main.kind == "image" and main.dtype == "uint8",
    )


def run_fresh(codes: Mapping[str, str], *, repeats: int = 5) -> dict[str, Fresh]:
    """Medians over processes that run these codes by turns; a first one of each is not counted."""
    found: dict[str, list[Fresh]] = {name: [] for name in codes}
    for _ in range(repeats + 1):
        for name, code in codes.items():
            found[name].append(_run_fresh(name, code))
    return {
        name: Fresh(
            statistics.median(one.seconds for one in several[1:]),
            statistics.median(one.megabytes for one in several[1:]),
        )
        for name, several in found.items()
    }


def _run_fresh(name: str, code: str) -> Fresh:
    begin = time.time()
    process = subprocess.run(
        [sys.executable, "-P", "-c", code + _LAST], capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise DeviceUnavailableError(
            f"A fresh process failed ({name})",
            seen=f"{' '.join(process.stderr.split())[-300:]}",
            repair="See `gan doctor`",
        )
    end, kilobytes = process.stdout.split()[-2:]
    return Fresh(float(end) - begin, int(kilobytes) / 1024)


# The machine


@dataclass(frozen=True)
class Machine:
    """What was measured on."""

    cpu: str
    cpus: int
    system: str
    python: str
    onnxruntime: str


def machine() -> Machine:
    return Machine(
        _cpu_name(),
        available_cpus(),
        platform.system(),
        platform.python_version(),
        str(load_onnxruntime().__version__),
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), platform.processor() or platform.machine())
