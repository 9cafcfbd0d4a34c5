"""Signals while training: the first is remembered, the handlers of before come back. test_kills.py sends them from outside."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from gan.trainer.loop import Outcome, train
from gan.trainer.signals import Signals

from .conftest import Run, tiny_request


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_remembered_and_interrupts_nothing(number: signal.Signals) -> None:
    with Signals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number


def test_signals_are_as_before_once_a_run_ended(digit_folder: Path, tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    inside: list[Any] = []
    outcome = train(
        tiny_request(digit_folder, tmp_path),
        lambda status: inside.append(signal.getsignal(signal.SIGINT)),
    )
    assert outcome.finished and inside[0] not in handlers
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_run_in_another_thread_works_without_signals(run: Run) -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run()))
    thread.start()
    thread.join(60)
    assert outcomes and outcomes[0].finished
