"""The speed probe: threads that were asked for, or the faster of one and all, and the seconds of a step."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from gan.trainer import probe
from gan.trainer.engine import Training, stage_at
from gan.trainer.parts import Batch, Live, Stage
from gan.trainer.probe import Probe, choose_threads, threads_from_environment

from .conftest import CPU, Point, training


class Clock:
    """Time as the fake trainings below pass it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class FakeTraining:
    """A training whose step takes a time by the threads in use; its first step takes a hundred times as long."""

    device, config, step = CPU, SimpleNamespace(steps=100), 0
    stages = (Stage(()),)

    def __init__(self, clock: Clock, seconds: dict[int, float], log: list[int]) -> None:
        self.clock, self.seconds, self.log, self.first = clock, seconds, log, True

    def run_step(self) -> None:
        assert self.step == 51  # half way: the first steps may have more moves than most
        threads = torch.get_num_threads()
        self.log.append(threads)
        self.clock.now += self.seconds[threads] * (100 if self.first else 1)
        self.first = False


class FakeStages:
    """A training whose steps take a time by their stage, the first one in each a hundred times as long."""

    device, config, step = CPU, SimpleNamespace(steps=200), 0

    def __init__(self, clock: Clock, shares: tuple[float, ...], seconds: tuple[float, ...]) -> None:
        self.stages = [Stage((), share=share) for share in shares]
        self.clock, self.seconds, self.log = clock, seconds, list[tuple[int, int]]()

    def run_step(self) -> None:
        """As the engine: in the stage of its step, which then goes on by one."""
        number, _ = stage_at(self.stages, self.step, self.config.steps)
        first = number not in [stage for stage, _ in self.log]
        self.clock.now += self.seconds[number] * (100 if first else 1)
        self.log.append((number, self.step))
        self.step += 1


Choose = Callable[[int | None, dict[int, float], int], tuple[Probe, list[int]]]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Choose:
    def go(wanted: int | None, seconds: dict[int, float], cpus: int) -> tuple[Probe, list[int]]:
        clock, log = Clock(), list[int]()
        monkeypatch.setattr(probe, "time", clock)
        monkeypatch.setattr(probe, "available_cpus", lambda: cpus)
        chosen = choose_threads(
            wanted, lambda: cast(Training, FakeTraining(clock, seconds, log)), CPU
        )
        assert torch.get_num_threads() == chosen.threads
        return chosen, log

    return go


def test_more_threads_are_taken_where_they_are_clearly_faster(choose: Choose) -> None:
    chosen, log = choose(None, {1: 1.0, 2: 0.5}, 2)
    assert chosen.threads == 2 and chosen.seconds == pytest.approx(0.5)
    assert set(log) == {1, 2}


@pytest.mark.parametrize("slower", [20.0, 1.0, 0.95])
def test_one_thread_is_taken_where_more_are_not_worth_it(choose: Choose, slower: float) -> None:
    chosen, _ = choose(None, {1: 1.0, 2: slower}, 2)
    assert chosen.threads == 1 and chosen.seconds == pytest.approx(1.0)


def test_one_cpu_is_not_compared_with_anything(choose: Choose) -> None:
    chosen, log = choose(None, {1: 0.25}, 1)
    assert chosen.threads == 1 and chosen.seconds == pytest.approx(0.25)
    assert set(log) == {1}


def test_a_wanted_count_is_only_timed(choose: Choose) -> None:
    chosen, log = choose(2, {1: 0.1, 2: 3.0}, 8)
    assert chosen.threads == 2 and chosen.seconds == pytest.approx(3.0)
    assert set(log) == {2}


def test_the_probe_is_short_and_leaves_the_first_step_out(choose: Choose) -> None:
    chosen, log = choose(1, {1: 0.01}, 1)
    assert chosen.seconds == pytest.approx(0.01)
    assert len(log) == 1 + probe.STEPS
    chosen, log = choose(1, {1: 60.0}, 1)  # a step of a minute is not tried more often than needed
    assert chosen.seconds == pytest.approx(60.0) and len(log) == 2


@pytest.mark.parametrize(
    ("shares", "seconds", "mean", "middles"),
    [
        ((1.0, 1.0), (1.0, 3.0), 2.0, (50, 150)),
        ((3.0, 1.0), (1.0, 3.0), 1.5, (75, 175)),
        ((0.1, 0.1, 0.3), (0.5, 1.0, 2.0), 1.5, (20, 60, 140)),
    ],
)
def test_a_step_takes_the_mean_over_the_stages_by_their_shares_each_timed_at_its_middle(
    monkeypatch: pytest.MonkeyPatch,
    shares: tuple[float, ...],
    seconds: tuple[float, ...],
    mean: float,
    middles: tuple[int, ...],
) -> None:
    clock = Clock()
    monkeypatch.setattr(probe, "time", clock)
    fake = FakeStages(clock, shares, seconds)
    chosen = choose_threads(1, lambda: cast(Training, fake), CPU)
    assert chosen.seconds == pytest.approx(mean)
    for number, middle in enumerate(middles):
        timed = [step for stage, step in fake.log if stage == number]
        assert timed[0] == pytest.approx(middle, abs=1.5) and len(timed) >= 2
        assert timed == list(range(timed[0], timed[0] + len(timed)))


def test_a_probe_of_several_stages_runs_each_of_them() -> None:
    seen: list[int] = []

    class Staged(Point):
        def stages(self) -> list[Stage]:
            sized = ((1.0, 8), (2.0, 4), (1.0, 2))
            return [Stage(self.turns(), share, batch_size=size) for share, size in sized]

        def generate(self, live: Live, batch: Batch) -> Batch:
            seen.append(len(batch["z"]))
            return super().generate(live, batch)

    chosen = choose_threads(1, lambda: training(Staged, steps=40), CPU)
    assert 0 < chosen.seconds < 10
    assert seen == [8] * 8 + [4] * 8 + [2] * 8  # a warm-up and three steps, of two moves each


@pytest.mark.parametrize(
    ("text", "threads"),
    [("3", 3), ("1", 1), ("", None), ("0", None), ("-2", None), ("many", None), ("1.5", None)],
)
def test_the_environment_counts_where_it_is_a_number(
    monkeypatch: pytest.MonkeyPatch, text: str, threads: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads_from_environment() == threads


def test_no_environment_says_nothing() -> None:
    assert threads_from_environment() is None
