"""The batch size at which a CPU makes most samples a second: found from the times of real runs, kept in memory.

Knows nothing of sessions: it is told what runs took.
"""

from __future__ import annotations

import math
import threading

SIZES = (1, 2, 4, 8, 16, 32, 64)
LARGEST = SIZES[-1]
TRIALS = 3  # runs of a size; the fastest counts, since a busy machine only ever slows one
GAIN = 0.03  # of the time of a sample, by which a larger batch must be better: it takes more memory
OVERHEAD = 2.5e-4  # seconds that a batch costs outside its run: drawing, checking, handing on


class Pace:
    """Climbs from batches of one sample for as long as larger ones pay. Threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fastest: dict[int, float] = {}  # seconds of a run, by batch size
        self._runs = dict.fromkeys(SIZES, 0)
        self._tried, self._climbing = 0, True

    @property
    def settled(self) -> bool:
        """Whether larger batches were found not to pay."""
        return not self._climbing

    def size(self, most: int) -> int:
        """How large the next batch should be, `most` at most."""
        with self._lock:
            if self._climbing and SIZES[self._tried] <= most:
                return SIZES[self._tried]
            known = sorted(size for size in self._fastest if size <= most)
            best = min(map(self._cost, known), default=0.0)
            good = (size for size in known if (1 - GAIN) * self._cost(size) <= best)
            return next(good, most)

    def took(self, count: int, seconds: float) -> None:
        """Learn that a run of `count` samples took so long."""
        if count not in self._runs:
            return
        with self._lock:
            self._runs[count] += 1
            self._fastest[count] = min(seconds, self._fastest.get(count, math.inf))
            while self._climbing and self._runs[SIZES[self._tried]] >= TRIALS:
                self._step()

    def _step(self) -> None:
        """Go on to the next size, or stop where this one gained too little."""
        below = SIZES[: self._tried]
        best = min((self._cost(size) for size in below), default=math.inf)
        pays = self._cost(SIZES[self._tried]) < (1 - GAIN) * best
        if pays and self._tried + 1 < len(SIZES):
            self._tried += 1
        else:
            self._climbing = False

    def _cost(self, size: int) -> float:
        """Seconds of a sample."""
        return (self._fastest[size] + OVERHEAD) / size
