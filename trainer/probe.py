"""Measures, once at the start of a run: the thread count that is fastest here, and the seconds a step takes.

With two torch threads on two busy cores small steps were measured 20 times slower than with one.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..runtime.session import available_cpus
from .engine import Training

logger = logging.getLogger("gan.trainer")

STEPS, SECONDS = 3, 4.0  # timed steps, or as many as fit in this time
WORTH_IT = 0.9  # more threads must take at most this share of one thread's time


@dataclass(frozen=True)
class Probe:
    """threads to use, and seconds a step takes with them."""

    threads: int
    seconds: float


def choose_threads(wanted: int | None, make: Callable[[], Training], device: torch.device) -> Probe:
    """`wanted`, else the faster of one thread and all; tried on trainings thrown away."""
    if wanted is not None:
        candidates = [wanted]
    else:
        cpus = available_cpus()
        candidates = [1, cpus] if device.type == "cpu" and cpus > 1 else [cpus]
    best = Probe(candidates[0], float("inf"))
    for threads in candidates:
        torch.set_num_threads(threads)
        seconds = _seconds_a_step(make())
        if seconds < best.seconds * WORTH_IT:
            best = Probe(threads, seconds)
    torch.set_num_threads(best.threads)
    logger.info("Using %d CPU threads, %.3g s a step", best.threads, best.seconds)
    return best


def _seconds_a_step(training: Training) -> float:
    """The mean over the stages, each at its middle: the first steps may have more moves than most."""
    total, done, seconds = sum(stage.share for stage in training.stages), 0.0, 0.0
    for stage in training.stages:
        middle = (done + stage.share / 2) / total
        training.step = int(middle * training.config.steps) + 1
        seconds += stage.share / total * _fastest(training)
        done += stage.share
    return seconds


def _fastest(training: Training) -> float:
    training.run_step()  # warm-up: allocations, kernel choice
    times: list[float] = []
    while len(times) < STEPS and sum(times) < SECONDS:
        begin = time.perf_counter()
        training.run_step()
        if training.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times)


def threads_from_environment() -> int | None:
    """OMP_NUM_THREADS, where it is a number from 1 to 1024."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    number = int(text) if text.isdecimal() and len(text) < 10 else 0
    return number if 1 <= number <= 1024 else None
