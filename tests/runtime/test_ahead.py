"""Batches drawn ahead: the same ones in order, one further than the caller, errors in their place, nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from gan.runtime.ahead import drawn_ahead
from gan.runtime.inputs import Array


def batch(value: int, rows: int = 2) -> dict[str, Array]:
    return {"z": np.full((rows, 3), value)}


def drawers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("gan-draw")]


@pytest.mark.parametrize("rows", [[2], [2, 2], [5, 1, 1, 3], [1] * 20])
def test_they_are_the_same_in_order(rows: list[int]) -> None:
    batches = [batch(i, n) for i, n in enumerate(rows)]
    got = list(drawn_ahead(iter(batches), sum(rows)))
    assert [id(one) for one in got] == [id(one) for one in batches]
    assert drawers() == []


def test_the_next_is_made_beside_and_no_further() -> None:
    made: list[int] = []
    second, threads = threading.Event(), set()

    def batches() -> Iterator[dict[str, Array]]:
        for i in range(4):
            made.append(i)
            threads.add(threading.current_thread().name)
            if i == 1:
                second.set()
            yield batch(i)

    stream = drawn_ahead(batches(), 8)
    next(stream)
    assert second.wait(5)  # while the caller has the first
    assert made == [0, 1]
    next(stream)
    assert made in ([0, 1], [0, 1, 2])
    assert len(list(stream)) == 2 and made == [0, 1, 2, 3]
    assert len(threads) == 2


def test_a_single_batch_costs_no_thread() -> None:
    stream = drawn_ahead([batch(0)], 2)
    next(stream)
    assert drawers() == []
    with pytest.raises(StopIteration):
        next(stream)


def test_what_drawing_raises_comes_in_its_place() -> None:
    def batches() -> Iterator[dict[str, Array]]:
        yield batch(0)
        yield batch(1)
        raise ValueError("the third")

    stream = drawn_ahead(batches(), 6)
    assert [int(next(stream)["z"][0, 0]) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(stream)
    assert drawers() == []


def test_closed_early_it_leaves_no_thread() -> None:
    def batches() -> Iterator[dict[str, Array]]:
        for i in range(10):
            yield batch(i)

    stream = drawn_ahead(batches(), 20)
    next(stream)
    assert isinstance(stream, Iterator)
    stream.close()  # type: ignore[attr-defined]
    assert drawers() == []
