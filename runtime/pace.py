"""The batch size at which a CPU makes most samples a second: found from the times of real runs, kept in memory.

Knows nothing of sessions: it is told what runs took.
"""

from __future__ import annotations

import math
import threading

SIZES = (1, 2, 4, 8, 16, 32, 64)
LARGEST = SIZES[-1]
TRIALS = 5  # runs of each of two sizes; the fastest counts: a busy machine only ever slows one
MISSES = 2  # sizes in a row that do not pay, before no larger one is tried
GAIN = 0.01  # of the time of a sample, by which a larger batch must be better: it takes more memory
OVERHEAD = 2.5e-4  # seconds that a batch costs outside its run: drawing, checking, handing on


class Pace:
    """Climbs from batches of one sample for as long as larger ones pay. Threads may share one.

    A size takes turns with the best one below, since a machine has moods that last longer than a few runs.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._fastest: dict[int, float] = {}  # seconds of a run, by batch size
        self._runs = dict.fromkeys(SIZES, 0)
        self._best, self._tried, self._missed = 1, 2, 0
        self._trials = {1: [0, math.inf], 2: [0, math.inf]}  # of these two, runs and the fastest
        self._climbing = True

    def knows(self, most: int) -> bool:
        """Whether larger batches were found not to pay, or may not be: `most` at most."""
        with self._lock:
            if self._climbing and self._tried <= most:
                return False
            return any(runs >= TRIALS for size, runs in self._runs.items() if size <= most)

    def seconds(self, most: int) -> float:
        """Of a sample in a run of the best size so far, `most` at most; infinite before the first run."""
        with self._lock:
            known = (taken / size for size, taken in self._fastest.items() if size <= most)
            return min(known, default=math.inf)

    def size(self, most: int) -> int:
        """How large the next batch should be, `most` at most."""
        with self._lock:
            if self._climbing and self._tried <= most:
                return min(self._best, self._tried, key=lambda size: self._trials[size][0])
            return min(self._best, most)

    def took(self, count: int, seconds: float) -> None:
        """Learn that a run of `count` samples took so long."""
        if count not in SIZES:
            return
        with self._lock:
            self._runs[count] += 1
            self._fastest[count] = min(seconds, self._fastest.get(count, math.inf))
            if count in self._trials:
                runs, fastest = self._trials[count]
                self._trials[count] = [runs + 1, min(seconds, fastest)]
            if self._climbing and all(runs >= TRIALS for runs, _ in self._trials.values()):
                self._step()

    def _step(self) -> None:
        """Go on to the next size, or stop where these gained too little."""
        best, tried = (
            (self._trials[size][1] + OVERHEAD) / size for size in (self._best, self._tried)
        )
        self._missed = 0 if tried < (1 - GAIN) * best else self._missed + 1
        self._best = self._best if self._missed else self._tried
        self._climbing = self._missed < MISSES and self._tried < LARGEST
        self._tried = min(2 * self._tried, LARGEST)
        self._trials = {size: [0, math.inf] for size in (self._best, self._tried)}
