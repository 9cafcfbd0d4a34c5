"""A generator that serves for long: memory stays flat over calls of mixed sizes, threads sleep between calls.

GAN_TORTURE=1 raises the number of calls from 600 to 10,000.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import TORTURE, with_metadata

CALLS = 10_000 if TORTURE else 600
CALLING = """
import random, sys
from gan.runtime import Generator

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20  # MiB

generator = Generator(sys.argv[1], device="cpu", threads=2)
calls, dice = int(sys.argv[2]), random.Random(0)
for number in range(calls):
    kind, size = dice.randrange(3), dice.choice((1, 1, 2, 3, 7, 16, 33, 64))
    if kind == 0:
        generator.sample(size, seed=number)
    elif kind == 1:
        for _ in generator.stream(size, seed=number):
            pass
    else:
        generator.images(min(size, 3), seed=number, label="2")
    if number == calls // 4:
        early = resident()
print(resident() - early)
"""
WAITING = """
import sys, time
from gan.runtime import Generator

generator = Generator(sys.argv[1], device="cpu", threads=2)
generator.sample(1, seed=0)
begin, used = time.perf_counter(), time.process_time()
for number in range(60):
    generator.sample(1, seed=number)
    time.sleep(max(0.0, begin + (number + 1) / 20 - time.perf_counter()))
print((time.process_time() - used) / (time.perf_counter() - begin))
"""


def number_from(code: str, *arguments: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.torture
@pytest.mark.parametrize("across", [0.0, 1e-9], ids=["side by side", "one at a time"])
def test_memory_is_flat_over_calls_of_mixed_sizes(
    labelled: bytes, tmp_path: Path, across: float
) -> None:
    exactness = {"across_batches": across, "across_threads": across}
    path = tmp_path / "m.onnx"
    path.write_bytes(with_metadata(labelled, parity={"exactness": exactness}))
    assert number_from(CALLING, str(path), str(CALLS)) < 4.0  # MiB


def test_threads_sleep_between_twenty_calls_a_second(labelled_path: Path) -> None:
    assert number_from(WAITING, str(labelled_path)) < 0.2  # of a core
