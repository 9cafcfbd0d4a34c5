"""The pace: it ends at the size that a machine runs best, from few runs, and never goes far beyond it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan.runtime.pace import GAIN, MISSES, OVERHEAD, SIZES, TRIALS, Pace


def settled(seconds: Callable[[int], float], samples: int = 4_000, most: int = 64) -> list[int]:
    """The sizes of the batches of so many samples on a machine where a batch takes `seconds`."""
    pace, sizes = Pace(), []
    while samples:
        size = min(pace.size(most), samples)
        assert pace.size(most) == pace.size(most)  # to ask changes nothing
        pace.took(size, seconds(size))
        sizes.append(size)
        samples -= size
    return sizes


def linear(size: int) -> float:
    return 0.1 * size


def saturating(size: int) -> float:
    """Half the time of a sample is the same for any batch up to 8; larger ones gain nothing."""
    return 0.05 * size + 0.05 * -(-size // 8)


def test_where_large_batches_gain_nothing_samples_are_made_one_by_one() -> None:
    sizes = settled(linear)
    assert sizes[: 4 * TRIALS] == [1, 2] * TRIALS + [1, 4] * TRIALS
    assert set(sizes[4 * TRIALS :]) == {1}


def test_it_climbs_to_where_a_machine_saturates_and_tries_two_sizes_more() -> None:
    sizes = settled(saturating)
    steps = [(1, 2), (2, 4), (4, 8), (8, 16), (8, 32)]
    tried = [size for pair in steps for _ in range(TRIALS) for size in pair]
    assert sizes[: len(tried)] == tried and len(steps) == 3 + MISSES
    assert set(sizes[len(tried) : -1]) == {8}


def test_one_size_that_does_not_pay_is_passed_over() -> None:
    """As where another process took the processor while it was tried."""
    assert settled(lambda size: saturating(size) * (1.3 if size == 2 else 1.0))[-2] == 8


def test_a_machine_whose_mood_changes_meanwhile_misleads_it_not() -> None:
    """Each run is slower than the one before, as where a processor grows hot."""
    runs = iter(range(10**6))
    assert settled(lambda size: saturating(size) * (1 + 0.003 * next(runs)))[-2] == 8


def test_where_a_run_costs_nothing_batches_are_large() -> None:
    assert settled(lambda size: 1e-6 * size)[-2] == 64


@pytest.mark.parametrize("most", [1, 3, 4, 20])
def test_it_stays_within_what_is_allowed(most: int) -> None:
    sizes = settled(saturating, most=most)
    assert max(sizes) <= most and sizes[-2] == max(size for size in SIZES if size <= min(most, 8))


def test_where_larger_ones_are_not_allowed_it_is_settled_until_they_are() -> None:
    pace = Pace()
    for _ in range(TRIALS):
        assert not pace.knows(64)
        for size in (1, 2):
            pace.took(size, 1e-6 * size)
    assert pace.size(3) == 2 and pace.knows(3)
    assert pace.size(4) in (2, 4) and not pace.knows(4)


def test_without_a_run_nothing_is_known_of_one_size_either() -> None:
    pace = Pace()
    for _ in range(TRIALS):
        assert not pace.knows(1)
        pace.took(1, 0.1)
    assert pace.knows(1) and not pace.knows(2)


def test_a_slow_run_of_a_good_size_is_forgotten_by_a_fast_one() -> None:
    pace = Pace()
    while not pace.knows(64):
        size = pace.size(64)
        slow = pace._trials[size][0] < TRIALS - 1
        pace.took(size, (10 if slow else 1) * saturating(size))
    assert pace.size(64) == 8


def test_sizes_that_are_no_candidates_teach_nothing() -> None:
    pace = Pace()
    for size in (3, 5, 100):
        pace.took(size, 1e-9)
    assert pace.size(64) == 1 and pace.size(1) == 1 and pace.seconds(64) == math.inf


def test_it_tells_the_seconds_of_a_sample() -> None:
    pace = Pace()
    for size, seconds in ((1, 0.3), (1, 0.2), (4, 0.4), (8, 1.6)):
        pace.took(size, seconds)
    assert [pace.seconds(most) for most in (1, 3, 4, 64)] == [0.2, 0.2, 0.1, 0.1]


@given(st.lists(st.floats(1e-4, 10.0), min_size=len(SIZES), max_size=len(SIZES)))
def test_what_it_settles_on_is_about_the_best_of_what_it_tried(times: list[float]) -> None:
    taken = dict(zip(SIZES, times, strict=True))
    pace, tried = Pace(), set()
    while not pace.knows(64):
        tried.add(pace.size(64))
        pace.took(pace.size(64), taken[pace.size(64)])
    cost = {size: (taken[size] + OVERHEAD) / size for size in tried}
    found = pace.size(64)
    assert (1 - GAIN) ** len(SIZES) * cost[found] <= min(cost.values())
    assert max(tried) in (SIZES[-1], 4 * found) and found in tried


def test_threads_may_share_one() -> None:
    pace = Pace()

    def work() -> None:
        for _ in range(500):
            size = pace.size(64)
            pace.took(size, saturating(size))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pace.size(64) == 8
