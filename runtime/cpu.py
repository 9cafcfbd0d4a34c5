"""A session's runs on a CPU: one on all threads at a time, or as many as there are threads side by side, one thread each.

Side by side, threads never wait for each other within a layer: more samples a second, where there are enough of them.
That takes a second session with weights of its own, opened when the runs so far have taken so long that it pays. Knows
nothing of models or seeds.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ModelFileError
from .inputs import Array, batch_rows
from .pace import LARGEST, OVERHEAD, Pace
from .repairs import native_words

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

logger = logging.getLogger("gan.runtime")

MICRO_BATCH = 16  # rows of one run at most, where no better number is found or given
PATIENCE = 10  # times as long as opening took, before it is done a second time
Inputs = Mapping[str, Array]


class CpuEngine:
    """Runs one graph on a CPU. All methods may be called from several threads at once."""

    def __init__(
        self, create: Callable[[int], Any], threads: int, *, divided: bool, paced: bool
    ) -> None:
        """create: onnxruntime's session with so many threads. divided: runs may be side by side. paced: the best batch
        size is found from their times. Both only where the graph gives the same bytes with any threads in any batch.
        """
        begin = time.perf_counter()
        self.native = create(threads)
        self._opening = time.perf_counter() - begin  # seconds
        self._create, self.threads = create, threads
        self._narrow: Any = self.native if threads == 1 else None  # of one thread
        self._wide_pace, self._narrow_pace = (Pace() if paced else None for _ in range(2))
        self._lock = threading.Lock()  # of what follows
        self._running, self._owed, self._decided = 0, 0.0, threads == 1 or not divided
        self._pool: ThreadPoolExecutor | None = None
        self._turn = threading.Lock()  # two runs on all threads at once hinder each other

    @property
    def most(self) -> int:
        """Rows that are computed at once, by default."""
        return LARGEST if self._wide_pace else MICRO_BATCH

    @property
    def settled(self) -> bool:
        """Whether `fitting` will stay as it is."""
        pace = self._narrow_pace if self._narrow is not None else self._wide_pace
        return self._decided and (pace is None or pace.settled)

    def fitting(self, most: int, rows: int, left: int) -> int:
        """Rows of the next run. most: that are computed at once. rows: of the whole call, of which some are left."""
        if not self._divides(rows, most):
            return min(self._wide_pace.size(most) if self._wide_pace else most, left)
        most //= self.threads
        most = self._narrow_pace.size(most) if self._narrow_pace else most
        rounds = -(-rows // (self.threads * most))  # all threads end together
        return min(-(-rows // (self.threads * rounds)), left)

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> list[Array]:
        """The named outputs for a batch [B, ...] of every input; all outputs by default: on all threads if no other
        run is under way.

        Raises `ModelFileError` for a graph that fails.
        """
        return self._run(inputs, outputs, batch_rows(inputs))

    def run_stream(
        self,
        batches: Iterable[Inputs],
        outputs: Sequence[str] | None = None,
        *,
        rows: int,
        most: int,
    ) -> Iterator[list[Array]]:
        """`run` of each batch, in order, of so many rows together: side by side where that is sooner, and while the
        caller makes the next batch. most: rows that are computed at once.

        At most two batches for each thread are in memory. An error comes in the place of its batch. Closing the
        iterator drops what has not begun.
        """
        waiting = iter(batches)
        for inputs in waiting:
            if self._divides(rows, most) and batch_rows(inputs) < rows:
                yield from self._side_by_side(itertools.chain([inputs], waiting), outputs)
            else:
                yield self._run(inputs, outputs, rows)

    def _divides(self, rows: int, most: int) -> bool:
        """Whether so many rows are done sooner side by side, a row for each thread being allowed."""
        if self._narrow is None or not 1 < self.threads <= most:
            return False
        if not (self._wide_pace and self._narrow_pace and self._narrow_pace.settled):
            return rows >= self.threads
        share = -(-rows // self.threads)
        wide, narrow = self._wide_pace.seconds(rows), self._narrow_pace.seconds(share)
        return share * narrow + OVERHEAD < rows * wide

    def _run(self, inputs: Inputs, outputs: Sequence[str] | None, rows: int) -> list[Array]:
        """One run, in this thread, for a call of so many rows."""
        with self._counted() as running:
            if self._narrow is not None and running > 1:
                return self._timed(self._narrow, None, inputs, outputs)[0]
            with self._turn:
                made, seconds = self._timed(self.native, self._wide_pace, inputs, outputs)
        if rows >= self.threads or running > 1:
            self._owe(seconds)
        return made

    def _side_by_side(
        self, batches: Iterator[Inputs], outputs: Sequence[str] | None
    ) -> Iterator[list[Array]]:
        pool = self._workers()
        pending: deque[_Task] = deque()
        failed: Exception | None = None

        def run(inputs: Inputs) -> list[Array]:
            with self._counted() as running:  # alone, it would be faster than such runs are
                pace = self._narrow_pace if running >= self.threads else None
                return self._timed(self._narrow, pace, inputs, outputs)[0]

        try:
            while True:
                try:
                    inputs = next(batches)
                except StopIteration:
                    break
                except Exception as error:  # the batches before come first
                    failed = error
                    break
                pending.append(_Task(functools.partial(run, inputs)))
                with contextlib.suppress(RuntimeError):  # the interpreter ends: this thread does it
                    pool.submit(pending[-1].do)
                if len(pending) == 2 * self.threads:
                    yield _oldest(pending)
            while pending:
                yield _oldest(pending)
        finally:
            for task in pending:
                task.drop()
        if failed is not None:
            raise failed

    @contextlib.contextmanager
    def _counted(self) -> Iterator[int]:
        """Count a run that is under way; how many there are now."""
        with self._lock:
            self._running += 1
            running = self._running
        try:
            yield running
        finally:
            with self._lock:
                self._running -= 1

    def _timed(
        self, session: Any, pace: Pace | None, inputs: Inputs, outputs: Sequence[str] | None
    ) -> tuple[list[Array], float]:
        begin = time.perf_counter()
        try:
            made: list[Array] = session.run(list(outputs) if outputs else None, dict(inputs))
        except Exception as error:  # onnxruntime's own errors derive from Exception alone
            raise ModelFileError(
                "onnxruntime failed while it ran the model",
                seen=native_words(error),
                repair="The file is damaged, or needs more memory than there is",
            ) from error
        seconds = time.perf_counter() - begin
        if pace:
            pace.took(batch_rows(inputs), seconds)
        return made, seconds

    def _owe(self, seconds: float) -> None:
        """Count a run that had better been one of several, and open the second session when they are many."""
        with self._lock:
            self._owed += seconds
            if self._decided or self._owed < PATIENCE * self._opening:
                return
            self._decided = True  # others go on meanwhile, and it is tried once
        try:
            self._narrow = self._create(1)
        except (ModelFileError, MemoryError) as error:
            logger.debug("Runs stay one at a time: %s", error)

    def _workers(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor  # for streams alone: it takes 2 ms

        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max(1, self.threads - 1), "gan-run")
            return self._pool


class _Task:
    """A run that is done by whoever comes first."""

    def __init__(self, work: Callable[[], list[Array]]) -> None:
        from concurrent.futures import Future

        self._work, self._claim = work, threading.Lock()
        self.result: Future[list[Array]] = Future()

    def do(self) -> bool:
        """Do it here, unless it has begun or was dropped."""
        if not self._claim.acquire(blocking=False):
            return False
        try:
            self.result.set_result(self._work())
        except BaseException as error:
            self.result.set_exception(error)
            if not isinstance(error, Exception):  # an interruption, where the caller does it
                raise
        return True

    def drop(self) -> None:
        self._claim.acquire(blocking=False)


def _oldest(pending: deque[_Task]) -> list[Array]:
    """The outputs of the first, taken from the others; until they are there, this thread does runs too."""
    while not pending[0].result.done() and any(task.do() for task in pending):
        pass
    return pending.popleft().result.result()
