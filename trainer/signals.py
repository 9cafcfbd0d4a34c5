"""Signals while training: the first ends the run after its step, the second at once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from types import FrameType
from typing import Any, Self

logger = logging.getLogger("gan.trainer")


class Signals:
    """SIGINT and SIGTERM while training: the first is remembered, the second exits at once with 128 + its number."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # not the main thread: the caller stops us otherwise
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        logger.warning("%s: finishing the step, then saving", signal.Signals(number).name)
