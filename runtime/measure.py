"""How things are measured: contenders that take turns, fresh processes, the machine. Knows no model, prints nothing."""

from __future__ import annotations

import os
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
from .session import available_cpus, load_onnxruntime

PAUSE = 0.03  # seconds between two contenders: the threads of the one before still spin
FEW = 2  # rounds of what is very slow
LONG = 0.1  # seconds of a call from which on no turn begins with one that is not counted


@dataclass(frozen=True)
class Contender:
    """Something that makes `images` images at each call. enter: called before its turn, as to set its threads."""

    name: str
    images: int
    call: Callable[[], object]
    enter: Callable[[], object] | None = None


@dataclass(frozen=True)
class Speed:
    """What was measured of a contender: images per second of each round's median call, seconds of each call."""

    name: str
    images: int
    rounds: tuple[float, ...]
    calls: tuple[float, ...]

    @property
    def images_per_second(self) -> float:
        return statistics.median(self.rounds)

    def milliseconds(self, percent: float) -> float:
        """Within which so many percent of the calls ended."""
        return float(np.percentile(self.calls, percent)) * 1e3

    def ratio(self, other: Speed) -> float:
        """How many times as fast as `other`: the median of the rounds' ratios, in which a machine's moods cancel."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))


def compare(
    contenders: Sequence[Contender], *, seconds: float, rounds: int = 15
) -> dict[str, Speed]:
    """Let each contender run for about `seconds` in all, by turns: in each round all of them, each time another first.

    Many short rounds, so that all meet the same moods of the machine; fewer, at least two, where one call alone is
    longer than a turn. Contenders have different names.
    """
    lasted = {one.name: _warm_up(one) for one in contenders}
    rounds = max(FEW, min(rounds, int(2 * seconds / max(max(lasted.values()), 1e-9))))
    calls: dict[str, list[float]] = {one.name: [] for one in contenders}
    speeds: dict[str, list[float]] = {one.name: [] for one in contenders}
    for number in range(rounds):
        first = number % len(contenders)
        for one in (*contenders[first:], *contenders[:first]):
            times = _turn(one, seconds / rounds, warm=lasted[one.name] < LONG)
            calls[one.name] += times
            speeds[one.name].append(one.images / statistics.median(times))
    return {
        one.name: Speed(one.name, one.images, tuple(speeds[one.name]), tuple(calls[one.name]))
        for one in contenders
    }


def _warm_up(contender: Contender) -> float:
    """Seconds of the second call, or of the first where that was long."""
    _enter(contender)
    first = _timed(contender)
    return first if first > LONG else _timed(contender)


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


# Fresh processes


# The peak of the process's own memory: what wait4 tells counts the parent's before the exec, too.
LAST_WORDS = """
import time
print(time.time())
try:
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
except (OSError, StopIteration):
    print(0)
"""


@dataclass(frozen=True)
class Fresh:
    """Of a fresh process: seconds from its start until its code had run, and peak MiB of memory, 0 where unknown."""

    seconds: float
    mebibytes: float


def run_fresh(codes: Mapping[str, str], *, repeats: int = 5) -> dict[str, Fresh]:
    """Medians over processes that run these codes by turns; a first one of each is not counted.

    Raises `DeviceUnavailableError` where one fails.
    """
    found: dict[str, list[Fresh]] = {name: [] for name in codes}
    for _ in range(repeats + 1):
        for name, code in codes.items():
            found[name].append(_run_fresh(name, code))
    return {
        name: Fresh(
            statistics.median(one.seconds for one in several[1:]),
            statistics.median(one.mebibytes for one in several[1:]),
        )
        for name, several in found.items()
    }


def _run_fresh(name: str, code: str) -> Fresh:
    # As pip leaves an application: compiled.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    begin = time.time()
    process = subprocess.run(
        [sys.executable, "-P", "-c", code + LAST_WORDS],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if process.returncode:
        raise DeviceUnavailableError(
            f"A fresh process failed ({name})",
            seen=" ".join(process.stderr.split())[-300:],
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
