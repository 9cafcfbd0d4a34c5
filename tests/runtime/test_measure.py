"""Measuring, on a clock that the test holds, and in fresh processes that are true."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator

import onnxruntime
import pytest

from gan.runtime import DeviceUnavailableError
from gan.runtime.measure import Contender, compare, machine, run_fresh


class Clock:
    """Time passes where the contenders say so."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, ""

    def contender(self, name: str, seconds: Iterator[float], images: int = 1) -> Contender:
        def call() -> None:
            self.now += next(seconds)
            self.log += name

        def enter() -> None:
            self.log += name.upper()

        return Contender(name, images, call, enter)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return clock


def always(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def test_speed_is_images_over_time_and_the_ratio_that_of_the_speeds(clock: Clock) -> None:
    quick, slow = clock.contender("a", always(0.125), 4), clock.contender("b", always(0.25), 2)
    speeds = compare([quick, slow], seconds=5.0, rounds=5)
    assert speeds["a"].images_per_second == 32
    assert speeds["b"].images_per_second == 8
    assert speeds["a"].ratio(speeds["b"]) == 4
    assert speeds["b"].ratio(speeds["a"]) == 0.25
    assert speeds["a"].milliseconds(50) == speeds["a"].milliseconds(99) == 125
    assert len(speeds["a"].calls) == 40 and len(speeds["b"].calls) == 20


def test_all_take_turns_each_time_another_first_and_each_turn_warms_up(clock: Clock) -> None:
    contenders = [clock.contender(name, always(0.0625)) for name in "abc"]
    compare(contenders, seconds=0.5, rounds=4)
    assert clock.log == "AaaBbbCcc" + "AaaaBbbbCcccBbbbCcccAaaaCcccAaaaBbbbAaaaBbbbCccc"


def test_a_call_that_takes_longer_than_a_turn_is_made_once_a_round(clock: Clock) -> None:
    speeds = compare([clock.contender("a", always(30.0), 3)], seconds=5.0, rounds=9)
    assert clock.log == "Aa" + "Aa" * 2, "and there are two rounds"
    assert speeds["a"].images_per_second == 0.1


def test_a_first_call_that_compiles_is_not_counted(clock: Clock) -> None:
    speeds = compare([clock.contender("a", iter([9.0, *[0.5] * 10]))], seconds=2.0, rounds=2)
    assert set(speeds["a"].calls) == {0.5}


def test_the_slowest_call_bounds_the_rounds_of_all(clock: Clock) -> None:
    """With a second a call, two seconds a contender leave room for four rounds, not ten."""
    contenders = [clock.contender("a", always(0.01)), clock.contender("b", always(1.0))]
    speeds = compare(contenders, seconds=2.0, rounds=10)
    assert len(speeds["a"].rounds) == len(speeds["b"].rounds) == len(speeds["b"].calls) == 4


def test_the_moods_of_the_machine_are_not_in_the_ratio(clock: Clock) -> None:
    """The third round is ten times as slow for both, the first for neither: means would be off."""
    moods = [1.0, 2.0, 10.0]
    a = iter([1.0, *[0.5 * m for m in moods]])  # long calls: one to warm up, one a round
    b = iter([1.0, *[1.0 * m for m in moods]])
    speeds = compare([clock.contender("a", a), clock.contender("b", b)], seconds=1.5, rounds=3)
    assert speeds["a"].ratio(speeds["b"]) == 2
    assert speeds["a"].images_per_second == 1.0  # the median round
    assert speeds["a"].milliseconds(50) == 1000
    assert 4900 < speeds["a"].milliseconds(99) < 5000


def test_contenders_without_an_entrance_are_timed_too(clock: Clock) -> None:
    speeds = compare([Contender("a", 1, clock.contender("a", always(2.0)).call)], seconds=1.0)
    assert speeds["a"].images_per_second == 0.5


def test_fresh_processes_are_timed_until_their_code_has_run_with_their_own_peak() -> None:
    held = bytearray(200 << 20)  # ours, which must not count as theirs
    codes = {
        "nothing": "",
        "large": "x = b'1' * (64 << 20)",
        "slow": "import time; time.sleep(0.4)",
    }
    found = run_fresh(codes, repeats=1)
    assert len(held) and list(found) == list(codes)
    assert 0.4 <= found["slow"].seconds < 60
    assert found["nothing"].seconds < found["slow"].seconds
    if platform.system() == "Linux":
        assert 60 < found["large"].mebibytes - found["nothing"].mebibytes < 80
        assert 5 < found["nothing"].mebibytes < 60


def test_fresh_processes_run_compiled_modules_from_their_own_folder_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    run_fresh(
        {"a": "import sys; assert not sys.dont_write_bytecode; assert '' not in sys.path"},
        repeats=1,
    )


def test_a_fresh_process_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(DeviceUnavailableError, match=r"\(broken\).*no such luck"):
        run_fresh({"broken": "raise SystemExit('no such luck')"}, repeats=1)


def test_the_machine_is_named() -> None:
    here = machine()
    assert here.onnxruntime == onnxruntime.__version__
    assert here.python == platform.python_version() and here.system == platform.system()
    assert here.cpu and here.cpus >= 1
