"""Batches of inputs that are drawn while the one before runs. Knows nothing of what they are for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .inputs import Array


def drawn_ahead(batches: Iterable[Mapping[str, Array]], rows: int) -> Iterator[Mapping[str, Array]]:
    """The same batches, of so many rows together, each but the first made in a thread of its own while the caller
    works on the one before.

    What making one raises comes when it is asked for. Closed early, it waits for the one being made.
    """
    waiting = iter(batches)
    current = next(waiting)
    rows -= batch_rows(current)
    if not rows:
        yield current
        return
    from concurrent.futures import ThreadPoolExecutor  # for streams alone: it takes 2 ms

    with ThreadPoolExecutor(1, "gan-draw") as drawer:
        while rows:
            following = drawer.submit(next, waiting)
            yield current
            current = following.result()
            rows -= batch_rows(current)
    yield current


def batch_rows(inputs: Mapping[str, Array]) -> int:
    return len(next(iter(inputs.values())))
