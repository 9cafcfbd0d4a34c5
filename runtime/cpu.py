"""A session's runs on a CPU: one on all threads at a time, or as many as there are threads side by side, one thread each.

Side by side, threads never wait for each other within a layer: more samples a second, where there are enough of them.
That takes a second session with weights of its own, opened when the runs so far have taken so long that it pays. Knows
nothing of models or seeds.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .buckets import MICRO_BATCH
from .errors import ModelFileError
from .inputs import Array, batch_rows
from .pace import LARGEST, Pace
from .repairs import native_words

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

logger = logging.getLogger("gan.runtime")

PATIENCE = 10  # times as long as opening took, before it is done a second time
DOUBT = 1.05  # times of different moments differ by as much, and equal parts are mostly sooner
HANDING = 4e-4  # seconds longer that a call takes for being divided: another thread wakes and hands its part over
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
        # Both locks let a thread in again: the handler of a signal may run the graph too.
        self._lock = threading.RLock()  # of what follows
        self._running, self._owed = set[_Run](), 0.0
        self._decided = threads == 1 or not divided  # whether there will be a second session
        self._helpers: tuple[int, ThreadPoolExecutor] | None = None  # and of which process
        self._turn = threading.RLock()  # two runs on all threads at once hinder each other

    @property
    def most(self) -> int:
        """Rows that are computed at once, by default."""
        return LARGEST if self._wide_pace else MICRO_BATCH

    def settled(self, most: int) -> bool:
        """Whether `fitting` will stay as it is. most: rows that are computed at once."""
        if self._narrow is None or not 1 < self.threads <= most:
            decided = self._decided or self.threads > most
            return decided and (self._wide_pace is None or self._wide_pace.knows(most))
        return self._narrow_pace is None or self._narrow_pace.knows(most // self.threads)

    def fitting(self, most: int, rows: int, left: int) -> int:
        """Rows of the next run. most: that are computed at once. rows: of the whole call, of which some are left."""
        if not self._divides(rows, most):
            return min(self._wide_pace.size(most) if self._wide_pace else most, left)
        share = min(most // self.threads, -(-rows // self.threads))
        if self._narrow_pace is None or self._narrow_pace.knows(share):
            share = self._narrow_pace.size(share) if self._narrow_pace else share
            rounds = -(-rows // (self.threads * share))
            return min(-(-rows // (self.threads * rounds)), left)  # all threads end together
        return min(self._narrow_pace.size(share), left)

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
        iterator drops what has not begun; a process that ends with it half read first does what was drawn.
        """
        pending: deque[_Task] = deque()
        failed: Exception | None = None
        waiting = iter(batches)
        try:
            while True:
                try:
                    inputs = next(waiting)
                except StopIteration:
                    break
                except Exception as error:  # the batches before come first
                    failed = error
                    break
                if self._divides(rows, most) and batch_rows(inputs) < rows:
                    pending.append(_Task(functools.partial(self._beside, inputs, outputs)))
                    self._ask_for_help(pending[-1])
                    if len(pending) == 2 * self.threads:
                        yield _oldest(pending)
                    continue
                while pending:
                    yield _oldest(pending)
                yield self.run(inputs, outputs, rows=rows, most=most)
            while pending:
                yield _oldest(pending)
        finally:
            for task in pending:
                task.drop()
        if failed is not None:
            raise failed

    def _divides(self, rows: int, most: int) -> bool:
        """Whether so many rows are done sooner side by side, a row for each thread being allowed."""
        if self._narrow is None or not 1 < self.threads <= most:
            return False
        if self._wide_pace is None or self._narrow_pace is None:
            return rows >= self.threads
        share = -(-rows // self.threads)
        if not self._narrow_pace.knows(min(share, most // self.threads)):
            return rows >= self.threads
        wide, narrow = self._wide_pace.seconds(rows), self._narrow_pace.seconds(share)
        return share * narrow + HANDING < DOUBT * rows * wide

    def run(
        self,
        inputs: Inputs,
        outputs: Sequence[str] | None = None,
        *,
        rows: int = 0,
        most: int = 0,
    ) -> list[Array]:
        """The named outputs for a batch [B, ...] of every input; all outputs by default: in this thread, on all of the
        engine's if no other run is under way. rows, most: of the call, where it might have been divided.

        Raises `ModelFileError` for a graph that fails.
        """
        with self._counted() as this:
            if self._narrow is not None and not this.alone:
                return self._timed(self._narrow, None, inputs, outputs)[0]
            with self._turn:
                made, seconds = self._timed(self.native, self._wide_pace, inputs, outputs)
        known = self._wide_pace is None or self._wide_pace.knows(min(rows, most))
        if not this.alone or (known and self.threads <= min(rows, most)):
            self._owe(seconds)
        return made

    def _beside(self, inputs: Inputs, outputs: Sequence[str] | None) -> list[Array]:
        """One run of several."""
        with self._counted() as this:
            made, seconds = self._timed(self._narrow, None, inputs, outputs)
        # Alone, it was faster than such runs are.
        if self._narrow_pace and 2 * this.at_once > self.threads:
            self._narrow_pace.took(batch_rows(inputs), seconds)
        return made

    @contextlib.contextmanager
    def _counted(self) -> Iterator[_Run]:
        """Count a run that is under way."""
        this = _Run()
        try:
            with self._lock:
                this.alone = not self._running
                self._running.add(this)
                for one in self._running:
                    one.at_once = max(one.at_once, len(self._running))
            yield this
        finally:
            with self._lock:
                self._running.discard(this)

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
            self._decided = True  # others go on meanwhile
        try:
            self._narrow = self._create(1)
        except Exception as error:  # this run is done, and the next ones go on as they did
            logger.debug("Runs stay one at a time: %s", error)
        except BaseException:  # an interruption: another time
            self._decided = False
            raise

    def _ask_for_help(self, task: _Task) -> None:
        """Have another thread do it, if there is one; who waits for it may come first."""
        try:
            from concurrent.futures import ThreadPoolExecutor  # for streams alone: it takes 2 ms

            with self._lock:
                if self._helpers is None or self._helpers[0] != os.getpid():  # a fork leaves none
                    self._helpers = os.getpid(), ThreadPoolExecutor(self.threads - 1, "gan-run")
                pool = self._helpers[1]
            pool.submit(task.do)
        except RuntimeError:
            # The interpreter ends, or no thread can be had. The pool would keep what it was given.
            self._helpers = None


class _Run:
    """A run that is under way. alone: it was when it began. at_once: how many there were with it, at most."""

    def __init__(self) -> None:
        self.alone, self.at_once = True, 0


class _Task:
    """A run that is done by whoever comes first."""

    def __init__(self, work: Callable[[], list[Array]]) -> None:
        from concurrent.futures import Future

        self._work: Callable[[], list[Array]] | None = work
        self._claim = threading.Lock()
        self.result: Future[list[Array]] = Future()

    def do(self) -> bool:
        """Do it here, unless it has begun or was dropped."""
        if not self._claim.acquire(blocking=False):
            return False
        work, self._work = self._work, None
        assert work is not None
        try:
            self.result.set_result(work())
        except BaseException as error:
            self.result.set_exception(error)
            if not isinstance(error, Exception):  # an interruption, where the caller does it
                raise
        return True

    def take(self) -> list[Array]:
        """Its outputs, when they are there, once: a pool that never comes to its work keeps the task."""
        result = self.result.result()
        del self.result
        return result

    def drop(self) -> None:
        """Let nobody begin it."""
        if self._claim.acquire(blocking=False):
            self._work = None


def _oldest(pending: deque[_Task]) -> list[Array]:
    """The outputs of the first, taken from the others; until they are there, this thread does runs too."""
    while not pending[0].result.done() and any(task.do() for task in pending):
        pass
    return pending.popleft().take()
