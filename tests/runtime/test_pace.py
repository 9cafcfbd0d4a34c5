"""The pace: it ends at the size that a machine runs best, from few runs, and never goes far beyond it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan.runtime.pace import GAIN, OVERHEAD, SIZES, TRIALS, Pace


def settled(seconds: Callable[[int], float], samples: int = 1_000, most: int = 64) -> list[int]:
    """The sizes of the batches of so many samples on a machine where a batch takes `seconds`."""
    pace, sizes = Pace(), []
    while samples:
        size = min(pace.size(most), samples)
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
    assert settled(linear) == [1] * TRIALS + [2] * TRIALS + [1] * (1_000 - 3 * TRIALS)


def test_it_climbs_to_where_a_machine_saturates_and_tries_one_size_more() -> None:
    sizes = settled(saturating)
    assert sizes[: 5 * TRIALS] == [size for size in SIZES[:5] for _ in range(TRIALS)]
    assert set(sizes[5 * TRIALS : -1]) == {8}


def test_where_a_run_costs_nothing_batches_are_large() -> None:
    assert settled(lambda size: 1e-6 * size)[-2] == 64


@pytest.mark.parametrize("most", [1, 3, 4, 20])
def test_it_stays_within_what_is_allowed(most: int) -> None:
    assert max(settled(saturating, most=most)) <= most
    assert max(settled(saturating, most=most)[3 * TRIALS :]) >= most // 2 if most < 8 else True


def test_a_slow_run_of_a_good_size_is_forgotten_by_a_fast_one() -> None:
    pace = Pace()
    for size in SIZES[:4]:
        for trial in range(TRIALS):
            pace.took(size, (10 if trial else 1) * saturating(size))
    assert pace.size(64) == 16 and not pace.settled
    for _ in range(TRIALS):
        pace.took(16, saturating(16) * 3)
    assert pace.size(64) == 8 and pace.settled


def test_sizes_that_are_no_candidates_teach_nothing() -> None:
    pace = Pace()
    for size in (3, 5, 100):
        pace.took(size, 1e-9)
    assert pace.size(64) == 1 and pace.size(1) == 1


@given(st.lists(st.floats(1e-4, 10.0), min_size=len(SIZES), max_size=len(SIZES)))
def test_what_it_settles_on_is_about_the_best_of_what_it_tried(times: list[float]) -> None:
    taken = dict(zip(SIZES, times, strict=True))
    pace, tried = Pace(), set()
    for _ in range(TRIALS * len(SIZES)):
        tried.add(pace.size(64))
        pace.took(pace.size(64), taken[pace.size(64)])
    cost = {size: (taken[size] + OVERHEAD) / size for size in tried}
    best = min(cost.values())
    assert pace.size(64) == min(size for size in tried if (1 - GAIN) * cost[size] <= best)
    for size in sorted(tried)[1:-1]:  # each step but the last paid
        assert cost[size] < (1 - GAIN) * min(c for s, c in cost.items() if s < size)


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
