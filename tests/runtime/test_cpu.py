"""The CPU's engine: which runs are side by side and which alone, order, errors in their place, nothing left behind."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.runtime import DeviceUnavailableError, Generator, ModelFileError
from gan.runtime.cpu import DOUBT, HANDING, CpuEngine
from gan.runtime.inputs import Array

from .conftest import with_metadata

EXACT = {"exactness": {"across_batches": 0.0, "across_threads": 0.0}}


def batch(value: int, rows: int = 1) -> dict[str, Array]:
    return {"z": np.full((rows, 3), value)}


def batches(*rows: int) -> list[dict[str, Array]]:
    return [batch(i, n) for i, n in enumerate(rows)]


class Machine:
    """Makes sessions that double z, and watches them: (threads of the session, first value) of each run, in order.

    during: called in each run, while it counts as under way."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: list[int] = []
        self.runs: list[tuple[int, int]] = []
        self.names: set[str] = set()
        self.under_way: dict[int, int] = {}
        self.at_once: dict[int, int] = {}
        self.during: Callable[[int, int], object] = lambda threads, value: None

    def create(self, threads: int) -> Any:
        self.made.append(threads)
        return Native(self, threads)

    def engine(self, threads: int = 2, *, divided: bool = True, paced: bool = False) -> CpuEngine:
        return CpuEngine(self.create, threads, divided=divided, paced=paced)

    def opened(self, threads: int = 2, *, paced: bool = False) -> CpuEngine:
        """An engine whose second session is there."""
        engine = self.engine(threads, paced=paced)
        engine._opening = 0.0
        for _ in range(200):
            rows = engine.fitting(64, 64, 64)
            list(engine.run_stream(iter([batch(0, rows)]), rows=64, most=64))
            if engine._narrow is not None:
                break
        assert self.made == [threads, 1]
        self.runs.clear()
        self.at_once.clear()
        return engine


class Native:
    def __init__(self, machine: Machine, threads: int) -> None:
        self.machine, self.threads = machine, threads

    def run(self, names: list[str] | None, inputs: dict[str, Array]) -> list[Array]:
        machine, value = self.machine, int(inputs["z"][0, 0])
        with machine.lock:
            machine.runs.append((self.threads, value))
            machine.names.add(threading.current_thread().name)
            count = machine.under_way[self.threads] = machine.under_way.get(self.threads, 0) + 1
            machine.at_once[self.threads] = max(count, machine.at_once.get(self.threads, 0))
        try:
            machine.during(self.threads, value)
            return [inputs["z"] * 2]
        finally:
            with machine.lock:
                machine.under_way[self.threads] -= 1


@pytest.fixture
def machine() -> Machine:
    return Machine()


def streamed(engine: CpuEngine, given: list[dict[str, Array]]) -> list[Array]:
    rows = sum(len(one["z"]) for one in given)
    return [made for (made,) in engine.run_stream(iter(given), rows=rows, most=64)]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [[2], [2, 2], [5, 1, 1, 3], [1] * 40])
def test_outputs_come_in_order_whatever_runs_them(
    machine: Machine, threads: int, rows: list[int]
) -> None:
    engine, given = machine.engine(threads), batches(*rows)
    engine._opening = 0.0  # it opens at the first chance, in the middle of the stream
    for _ in range(2):
        made = streamed(engine, given)
        assert [one.tolist() for one in made] == [(2 * one["z"]).tolist() for one in given]
        assert len(machine.runs) == len(rows)
        machine.runs.clear()


def test_side_by_side_are_as_many_runs_as_threads(machine: Machine) -> None:
    engine, meet = machine.opened(3), threading.Barrier(3)
    machine.during = lambda threads, value: meet.wait(5)  # raises where the others never come
    streamed(engine, batches(*[1] * 9))
    assert {threads for threads, _ in machine.runs} == {1} and machine.at_once == {1: 3}
    assert len(machine.names) == 3 and threading.current_thread().name in machine.names


def test_the_second_session_is_opened_when_runs_took_ten_times_as_long(machine: Machine) -> None:
    engine = machine.engine()
    clock = iter(x for i in range(1_000) for x in (float(i), i + 0.25))  # each run 0.25 s
    engine._opening = 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gan.runtime.cpu.time.perf_counter", lambda: next(clock))
        for i in range(3):
            streamed(engine, batches(4))
            assert machine.made == [2] and not engine.settled(64), i
        streamed(engine, batches(4))
        assert machine.made == [2, 1] and engine.settled(64)
        streamed(engine, batches(1, 1, 1, 1))
    assert [threads for threads, _ in machine.runs[-4:]] == [1] * 4
    assert machine.made == [2, 1]  # once


def test_calls_of_fewer_samples_than_threads_never_open_one(machine: Machine) -> None:
    engine = machine.engine(4)
    engine._opening = 0.0
    for rows in (1, 2, 3):
        engine.run(batch(0, rows))
        streamed(engine, batches(*[1] * rows))
    assert machine.made == [4]
    streamed(engine, batches(1, 1, 1, 1))
    assert machine.made == [4, 1]


def test_what_may_not_be_divided_runs_on_all_threads_for_ever(machine: Machine) -> None:
    engine = machine.engine(divided=False)
    engine._opening = 0.0
    streamed(engine, batches(*[4] * 10))
    assert machine.made == [2] and engine.settled(64) and {t for t, _ in machine.runs} == {2}


@pytest.mark.parametrize("most", [1, 3])
def test_where_a_thread_could_have_no_row_none_is_opened(machine: Machine, most: int) -> None:
    engine = machine.engine(4)
    engine._opening = 0.0
    list(engine.run_stream(iter(batches(*[most] * 20)), rows=20 * most, most=most))
    engine.run(batch(0, 40))  # nor for a batch that its caller wants in one run
    assert machine.made == [4]
    assert engine.settled(most) and not engine.settled(4)


def test_none_is_opened_before_it_is_known_what_all_threads_can_do(machine: Machine) -> None:
    engine = machine.engine(2, paced=True)
    engine._opening = 0.0
    assert engine._wide_pace
    while not engine._wide_pace.knows(64):
        assert machine.made == [2]
        list(engine.run_stream(iter([batch(0, engine.fitting(64, 99, 99))]), rows=99, most=64))
    list(engine.run_stream(iter([batch(0, 4)]), rows=99, most=64))
    assert machine.made == [2, 1]


def waits(wide: float, narrow: float) -> Callable[[int, int], object]:
    """Seconds of a run of either session."""
    return lambda threads, value: threading.Event().wait(narrow if threads == 1 else wide)


def sized(engine: CpuEngine, rows: int) -> Iterator[dict[str, Array]]:
    """The batches that a generator would make of so many rows."""
    left = rows
    while left:
        yield batch(0, size := engine.fitting(64, rows, left))
        left -= size


@pytest.mark.parametrize("rows", [2, 3, 10, 33])
def test_where_it_is_slower_side_by_side_that_is_found_in_calls_of_any_size(
    machine: Machine, rows: int
) -> None:
    engine = machine.opened(2, paced=True)
    machine.during = waits(0.0005, 0.005)
    for _ in range(40):
        list(engine.run_stream(sized(engine, rows), rows=rows, most=64))
    assert {threads for threads, _ in machine.runs[-2:]} == {2}


def test_in_the_middle_of_a_stream_too(machine: Machine) -> None:
    engine = machine.opened(2, paced=True)
    machine.during = waits(0.0005, 0.005)
    list(engine.run_stream(sized(engine, 3_000), rows=3_000, most=64))
    assert machine.runs[0][0] == 1 and machine.runs[-1][0] == 2


def test_one_thread_has_one_session(machine: Machine) -> None:
    engine = machine.engine(1)
    engine._opening = 0.0
    streamed(engine, batches(*[4] * 10))
    assert machine.made == [1] and machine.names == {threading.current_thread().name}


@pytest.mark.parametrize(
    "error", [MemoryError(), ModelFileError("refused"), DeviceUnavailableError("two packages")]
)
def test_a_second_session_that_cannot_be_had_is_gone_without(
    machine: Machine, error: Exception
) -> None:
    engine = machine.engine()
    engine._opening = 0.0

    def refuse(threads: int) -> Any:
        machine.made.append(threads)
        raise error

    engine._create = refuse
    assert len(streamed(engine, batches(*[1] * 10))) == 10
    assert machine.made == [2, 1] and {t for t, _ in machine.runs} == {2}


def test_an_interruption_while_it_is_opened_only_puts_it_off(machine: Machine) -> None:
    engine, create = machine.engine(), machine.create
    engine._opening = 0.0

    def interrupt(threads: int) -> Any:
        raise KeyboardInterrupt

    engine._create = interrupt
    with pytest.raises(KeyboardInterrupt):
        streamed(engine, batches(1, 1))
    engine._create = create
    assert len(streamed(engine, batches(1, 1))) == 2 and machine.made == [2, 1]


def at_once(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_of_two_calls_at_once_the_second_leaves_the_threads_to_the_first(machine: Machine) -> None:
    engine, meet = machine.opened(2), threading.Barrier(2)
    machine.during = lambda threads, value: meet.wait(5)
    at_once(lambda: engine.run(batch(1)), lambda: engine.run(batch(2)))
    assert sorted(threads for threads, _ in machine.runs) == [1, 2]
    machine.during = lambda threads, value: None
    engine.run(batch(3))
    assert machine.runs[-1] == (2, 3)  # alone again


def test_without_a_second_session_they_take_turns_and_ask_for_one(machine: Machine) -> None:
    engine = machine.engine(2)
    under_way = threading.Event()

    def during(threads: int, value: int) -> None:
        under_way.set()
        threading.Event().wait(0.05)

    machine.during = during
    at_once(lambda: engine.run(batch(1)), lambda: (under_way.wait(5), engine.run(batch(2))))
    assert machine.at_once == {2: 1} and engine._owed > 0.04


def test_two_callers_of_one_thread_run_at_once(machine: Machine) -> None:
    """Each brings a thread of its own, as onnxruntime has it."""
    engine, meet = machine.engine(1), threading.Barrier(2)
    machine.during = lambda threads, value: meet.wait(5)
    at_once(lambda: engine.run(batch(1)), lambda: engine.run(batch(2)))


def test_a_stream_is_two_batches_a_thread_ahead_and_no_more(machine: Machine) -> None:
    engine, drawn = machine.opened(2), list[int]()

    def endless() -> Iterator[dict[str, Array]]:
        for i in range(10**9):
            drawn.append(i)
            yield batch(i)

    stream = engine.run_stream(endless(), rows=10**9, most=64)
    for i in range(20):
        (made,) = next(stream)
        assert made[0, 0] == 2 * i and len(drawn) <= i + 4
    stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("ready", [False, True])
def test_what_drawing_raises_comes_after_the_batches_before(machine: Machine, ready: bool) -> None:
    engine = machine.opened() if ready else machine.engine()

    def three() -> Iterator[dict[str, Array]]:
        yield from batches(1, 1, 1)
        raise ValueError("the fourth")

    stream = engine.run_stream(three(), rows=10, most=64)
    assert [int(next(stream)[0][0, 0]) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(ValueError, match="the fourth"):
        next(stream)


@pytest.mark.parametrize("ready", [False, True])
def test_a_run_that_fails_is_an_error_in_its_place(machine: Machine, ready: bool) -> None:
    engine = machine.opened() if ready else machine.engine()

    def fails(threads: int, value: int) -> None:
        if value == 2:
            raise RuntimeError("bad\nallocation")

    machine.during = fails
    stream = engine.run_stream(iter(batches(*[1] * 10)), rows=10, most=64)
    assert [int(next(stream)[0][0, 0]) for _ in range(2)] == [0, 2]
    with pytest.raises(ModelFileError, match=r"failed while it ran the model\. bad allocation"):
        next(stream)
    assert not engine._running
    machine.during = lambda threads, value: None
    assert len(streamed(engine, batches(1, 1, 1))) == 3  # it goes on


def test_a_stream_that_is_closed_drops_what_has_not_begun(machine: Machine) -> None:
    engine, go_on = machine.opened(2), threading.Event()

    def during(threads: int, value: int) -> None:
        if value == 1 and threading.current_thread() is not threading.main_thread():
            go_on.wait(5)

    machine.during = during
    stream = engine.run_stream(iter(batches(*[1] * 100)), rows=100, most=64)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    go_on.set()
    streamed(engine, batches(1, 1))  # whatever waited is through by then
    assert len([value for _, value in machine.runs if value > 1]) <= 3


def test_an_interruption_of_this_threads_run_ends_the_stream(machine: Machine) -> None:
    engine, main = machine.opened(2), threading.current_thread()
    stop = False

    def during(threads: int, value: int) -> None:
        nonlocal stop
        if threading.current_thread() is main:
            stop = True
            raise KeyboardInterrupt
        threading.Event().wait(0.01)

    machine.during = during
    with pytest.raises(KeyboardInterrupt):
        streamed(engine, batches(*[1] * 100))
    assert stop and len(machine.runs) < 10


@pytest.mark.parametrize(
    ("threads", "rows", "shares"),
    [
        (2, 7, [4, 3]), (2, 8, [4, 4]), (2, 16, [8, 8]), (2, 18, [5, 5, 5, 3]), (2, 100, [8] * 12 + [4]),
        (4, 3, [3]), (4, 9, [3, 3, 3]), (4, 20, [3] * 6 + [2]), (8, 8, [1] * 8),
    ],
)  # fmt: skip
def test_rows_are_shared_out_so_that_threads_end_together(
    machine: Machine, threads: int, rows: int, shares: list[int]
) -> None:
    engine, left, found = machine.opened(threads), rows, []
    while left:
        found.append(engine.fitting(16, rows, left))
        left -= found[-1]
    assert found == shares


def test_what_is_computed_at_once_is_bounded_over_all_threads(machine: Machine) -> None:
    engine = machine.opened(4)
    assert engine.fitting(16, 1000, 1000) == 4
    assert engine.fitting(4, 1000, 1000) == 1
    assert engine.fitting(3, 1000, 1000) == 3  # less than a row for each
    stream = engine.run_stream(iter(batches(*[3] * 5)), rows=15, most=3)
    assert len(list(stream)) == 5 and machine.at_once.get(1, 0) == 0
    assert engine.fitting(16, 3, 3) == 3  # on all threads


@pytest.mark.parametrize(
    ("wide", "narrow", "divided"),
    [
        (1.0, 2.2, []),
        (1.0, 1.7, [n for n in range(1, 41) if n % 2 == 0]),
        (1.0, 0.9, list(range(2, 41))),  # two of them are sooner than one on both
    ],
)
def test_where_times_are_known_they_say_when_to_divide(
    machine: Machine, wide: float, narrow: float, divided: list[int]
) -> None:
    engine = machine.opened(2, paced=True)
    assert engine._wide_pace and engine._narrow_pace
    assert engine._wide_pace.knows(64)  # it would learn no more
    engine._wide_pace._fastest = {1: wide}
    assert engine._divides(2, 64) and not engine._divides(1, 64)  # until they are
    while not engine.settled(64):
        size = engine._narrow_pace.size(32)
        engine._narrow_pace.took(size, narrow * size)
    found = [rows for rows in range(1, 41) if engine._divides(rows, 64)]
    assert found == [n for n in range(1, 41) if -(-n // 2) * narrow + HANDING < DOUBT * n * wide]
    assert set(divided) <= set(found) and (divided or not found)


def test_images_are_the_same_alone_and_side_by_side(labelled: bytes) -> None:
    """Through the true runtime, with a true second session."""
    exact = with_metadata(labelled, parity=EXACT)
    alone = Generator(exact, device="cpu", threads=1)
    both = Generator(exact, device="cpu", threads=3)
    engine = both.session._engine
    assert isinstance(engine, CpuEngine)
    engine._opening = 0.0
    expected = alone.sample(200, seed=3)
    for _ in range(3):
        np.testing.assert_array_equal(both.sample(200, seed=3), expected)
        np.testing.assert_array_equal(both.sample(7, seed=3, start=11), expected[11:18])
        np.testing.assert_array_equal(both.interpolate(1, 2, 9), alone.interpolate(1, 2, 9))
    assert engine._narrow is not None and engine._narrow is not engine.native
    found: dict[int, Array] = {}
    at_once(*[lambda i=i: found.update({i: both.sample(50, seed=3)}) for i in range(5)])
    assert all((images == expected[:50]).all() for images in found.values()) and len(found) == 5


def test_a_size_that_was_asked_for_is_run_one_at_a_time(labelled: bytes) -> None:
    generator = Generator(with_metadata(labelled, parity=EXACT), device="cpu", micro_batch=3)
    engine = generator.session._engine
    assert isinstance(engine, CpuEngine)
    engine._opening = 0.0
    assert [len(images) for images in generator.stream(20, seed=0)] == [3] * 6 + [2]
    assert engine.settled(64) and engine._narrow is (engine.native if engine.threads == 1 else None)


def test_who_wants_one_session_has_one(labelled: bytes) -> None:
    exact = with_metadata(labelled, parity=EXACT)
    generator = Generator(exact, device="cpu", threads=2, side_by_side=False)
    engine = generator.session._engine
    assert isinstance(engine, CpuEngine)
    engine._opening = 0.0
    sizes = {len(images) for images in generator.stream(100, seed=0)}
    assert engine._narrow is None and {1, 2} <= sizes  # its batches are paced all the same


@pytest.mark.parametrize("across", ["across_batches", "across_threads"])
def test_a_file_of_other_bytes_with_other_threads_or_batches_is_not_divided(
    labelled: bytes, across: str
) -> None:
    parity = {"exactness": {**EXACT["exactness"], across: 1e-9}}
    generator = Generator(with_metadata(labelled, parity=parity), device="cpu", threads=2)
    engine = generator.session._engine
    assert isinstance(engine, CpuEngine)
    engine._opening = 0.0
    generator.sample(100, seed=0)
    assert engine._narrow is None and engine.settled(64)


def test_a_generator_that_is_dropped_is_gone_with_all_its_sessions(labelled: bytes) -> None:
    exact = with_metadata(labelled, parity=EXACT)
    gc.collect()
    gc.disable()
    try:
        generator = Generator(exact, device="cpu", threads=2)
        engine = generator.session._engine
        assert isinstance(engine, CpuEngine)
        engine._opening = 0.0
        while not engine.settled(64):
            generator.sample(64, seed=0)
        gone = [weakref.ref(one) for one in (generator, engine, engine.native, engine._narrow)]
        del generator, engine
        assert [one() for one in gone] == [None] * 4
    finally:
        gc.enable()


ALONE = """
import atexit, os, sys
from gan.runtime import Generator

generator = Generator(sys.argv[1], device="cpu", threads=2)
engine = generator.session._engine

def side_by_side():
    return [int(images.sum()) for images in generator.stream(300, seed=1)]

def at_exit():
    print(sum(side_by_side()), flush=True)

if sys.argv[2] == "early":  # before helpers are there
    atexit.register(at_exit)
engine._opening = 0.0
while engine._narrow is None:
    generator.sample(2, seed=0)
if sys.argv[2] == "late":
    side_by_side()
    atexit.register(at_exit)
if sys.argv[2] == "fork":
    side_by_side()
    child = os.fork()
    if not child:
        print(sum(side_by_side()), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
if sys.argv[2] == "thread":
    import threading
    threading.Thread.start = lambda self: (_ for _ in ()).throw(RuntimeError("can't start new thread"))
    print(sum(side_by_side()), flush=True)
"""


@pytest.mark.parametrize("where", ["early", "late", "fork", "thread"])
def test_it_samples_at_exit_in_a_forked_child_and_where_no_thread_can_be_had(
    labelled: bytes, tmp_path: Path, where: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(with_metadata(labelled, parity=EXACT))
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(path), where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    expected = Generator(path, device="cpu", threads=1).sample(300, seed=1).sum(dtype=np.int64)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{expected}\n", "")
