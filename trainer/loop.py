"""`train`: from a request to a finished checkpoint, or to a saved one when a signal or a fault ends the run early."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from ..runtime.errors import CheckpointError, InputError, TrainingDivergedError
from .checkpoint import Checkpoint, save
from .config import Config
from .distributed import World, join
from .engine import DIVERGED, Training
from .metrics import default_metrics
from .probe import Probe, choose_threads, threads_from_environment
from .progress import Journal, Sheet, Speed, Status
from .request import Plan, Request, plan
from .run_folder import RunFolder
from .signals import Signals

logger = logging.getLogger("gan.trainer")

LOG_EVERY, CHECKPOINT_SECONDS = 50, 120.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended. finished: all steps are done. signal: the one that ended it early, or None. processes: how
    many trained together. new: whether this call trained at all."""

    folder: RunFolder
    config: Config
    step: int
    finished: bool
    signal: int | None = None
    processes: int = 1
    new: bool = True


def train(request: Request, on_status: Callable[[Status], None] | None = None) -> Outcome:
    """Train until the steps are done or SIGINT or SIGTERM comes, then save.

    The same request again resumes an unfinished run, and on a CPU ends with bit-identical weights. on_status is
    called about twice a second. Raises any `GanError`; what was saved before stays.
    """
    ready = plan(request)
    ready.folder.make()
    with join(ready.device) as world, ready.folder.locked() if world.first else nullcontext():
        if world.first:
            ready.folder.tidy()
        ready.checkpoint = _latest(ready)
        _check_processes(ready.checkpoint, world, request.accept)
        world.wait()  # all have read before the first writes
        if ready.checkpoint is not None and ready.checkpoint.step >= ready.config.steps:
            return Outcome(ready.folder, ready.config, ready.checkpoint.step, True, new=False)
        with Signals() as signals, _memory_told():
            return _Run(ready, request, world, signals, on_status or (lambda status: None)).go()


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    """Turn a lack of memory into `InputError`: torch has a class of its own for it on a GPU only."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = f"{error}"
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(
            words in told for words in ("allocate memory", "not enough memory")
        ):
            raise
        raise InputError(
            "The training does not fit in memory",
            seen=f"{told:.200}" or "MemoryError",
            repair="Choose a smaller --batch-size, --resolution or network, or --set accumulate=2",
        ) from error


class _Run:
    """The loop around the engine: when to log, measure, draw, save and stop."""

    def __init__(
        self,
        ready: Plan,
        request: Request,
        world: World,
        signals: Signals,
        on_status: Callable[[Status], None],
    ) -> None:
        self.request, self.folder, self.world = request, ready.folder, world
        self.signals, self.on_status = signals, on_status
        self.data = ready.data
        config = ready.config
        wanted = _threads(request, ready.checkpoint.threads if ready.checkpoint else None)
        minutes = None if ready.checkpoint else request.minutes

        def make() -> Training:
            return Training(ready.system, ready.data, config, ready.device)

        probe = (
            Probe(wanted, 0.0)
            if wanted and minutes is None
            else choose_threads(wanted, make, ready.device)
        )
        if minutes is not None:
            steps = world.largest(steps_in(minutes, probe.seconds), ready.device)
            config = dataclasses.replace(config, steps=steps)
            logger.info("%g minutes are %d steps here", minutes, config.steps)
        torch.set_num_threads(probe.threads)
        self.config, self.threads = config, probe.threads
        self.training = Training(ready.system, ready.data, config, ready.device, world)
        if ready.checkpoint is not None:
            self.training.load_state(ready.checkpoint.content)
        own = ready.system.metrics()
        self.metrics = (
            default_metrics(ready.data, self.training.graph, ready.device) if own is None else own
        )
        stored = ready.checkpoint.metrics if ready.checkpoint else {"values": {}, "best": {}}
        self.measured, self.best = dict(stored["values"]), stored["best"].get("value")
        self.saved_at, self.saved_step = time.monotonic(), self.training.step

    def go(self) -> Outcome:
        stopped = self._go() if self.world.first else self._follow()
        self.world.wait()  # none leaves while the first still writes
        step = self.training.step
        finished = step >= self.config.steps
        return Outcome(self.folder, self.config, step, finished, stopped or None, self.world.size)

    def _follow(self) -> int:
        """The loop of a process that only lends its slice. The signal that stopped it, or 0."""
        while self.training.step < self.config.steps:
            self.training.run_step()
            if stopped := self._stopped():
                return stopped
        return 0

    def _stopped(self) -> int:
        """The signal that any process has received, or 0: all agree, after the same step."""
        return self.world.largest(self.signals.received or 0, self.training.device)

    def _go(self) -> int:
        training, steps = self.training, self.config.steps
        if training.step == 0:  # threads and steps are measured once: no kill may lose them
            self._save()
        self.journal = Journal(self.folder, training.step)
        drawn = training.graph.outputs[0].kind in ("image", "points")
        self.sheet = Sheet(training) if drawn else None
        self.speed = Speed(training.step)
        self.values: dict[str, float] = {}
        told, stopped = 0.0, 0
        try:
            while training.step < steps and not stopped:
                training.run_step()
                stopped = self._stopped()
                self._after_step()
                if time.monotonic() - told > 0.5:
                    told = time.monotonic()
                    self.on_status(self._status())
            if self.saved_step != training.step:
                self._save()
            self.on_status(self._status())
        except TrainingDivergedError as error:
            raise self._diverged(error) from error
        return stopped

    def _diverged(self, error: TrainingDivergedError) -> TrainingDivergedError:
        """The error with the checkpoint that is left, and the ways on."""
        kept = f"{self.folder.checkpoint} of step {self.saved_step} is good"
        ways = f"{DIVERGED}; or go on from it with other rates: --set g_learning_rate=... --accept g-learning-rate"
        return TrainingDivergedError(error.failed, seen=f"{error.seen}. {kept}", repair=ways)

    def _after_step(self) -> None:
        step, steps, request = self.training.step, self.config.steps, self.request
        last = step == steps
        if step % LOG_EVERY == 0 or last:
            self.values = self.training.means.take()
            self.values["images_per_second"] = self.speed.mark(step) * self.training.batch_size
            self.journal.scalars(step, {"images": self.training.images_seen, **self.values})
        if step % (request.sample_every or max(steps // 10, 1)) == 0 or last:
            self._draw_sheet(step)
        improved = False
        if step % (request.measure_every or max(steps // 10, 100)) == 0 or last:
            improved = self._measure(step)
        due = (
            step % request.checkpoint_every == 0
            if request.checkpoint_every
            else time.monotonic() - self.saved_at > CHECKPOINT_SECONDS
        )
        if improved:
            self._save(self.folder.best)
        if due:
            self._save()

    def _draw_sheet(self, step: int) -> None:
        if self.sheet is not None:
            self.journal.sheet(step, self.sheet.draw())

    def _measure(self, step: int) -> bool:
        """Take every metric; whether the first one is the best so far."""
        if not self.metrics:
            return False
        self.measured = {}
        for metric in self.metrics:
            measured = metric.measure(self.training)
            self.measured |= {name: float(value) for name, value in measured.items()}
        self.journal.scalars(
            step, {f"metric/{name}": value for name, value in self.measured.items()}
        )
        first = self.metrics[0]
        value = self.measured[first.name]
        better = math.isfinite(value) and (
            self.best is None
            or (value > self.best if first.higher_is_better else value < self.best)
        )
        if better:
            self.best = value
        return better

    def _save(self, path: Path | None = None) -> None:
        training = self.training
        if not training.sound:
            raise TrainingDivergedError(
                "Training diverged",
                seen="Weights that are not finite were not saved",
                repair=DIVERGED,
            )
        content = training.state() | {
            "config": self.config.to_dict(),
            "data": {
                "name": self.data.name,
                "count": len(self.data),
                "digest": self.data.digest,
                "info": dataclasses.asdict(self.data.info),
            },
            "signature": {
                name: g.signature.to_json() for name, g in training.system.graphs().items()
            },
            "metrics": {
                "values": self.measured,
                "best": {} if self.best is None else {"value": self.best},
            },
            "threads": {"count": self.threads, "processes": self.world.size},
        }
        if path is not None:
            save(path, content)
            return
        if self.request.keep and self.saved_step:
            self.folder.keep(self.saved_step, self.request.keep)
        save(self.folder.checkpoint, content)
        self.saved_at, self.saved_step = time.monotonic(), training.step

    def _status(self) -> Status:
        step, steps = self.training.step, self.config.steps
        per_second = self.speed.mark(step)
        first = self.metrics[0].name if self.metrics else ""
        return Status(
            step,
            steps,
            self.training.images_seen,
            per_second * self.training.batch_size,
            (steps - step) / per_second if per_second > 0 else float("inf"),
            self.values or {},
            (first, self.measured[first]) if first in self.measured else None,
        )


def steps_in(minutes: float, seconds_a_step: float) -> int:
    """Steps that fit in so many minutes, at least one."""
    return max(1, int(minutes * 60 / max(seconds_a_step, 1e-6)))


def _threads(request: Request, stored: int | None) -> int | None:
    """The thread count that was chosen or stored; None where it is to be measured."""
    wanted = request.threads or threads_from_environment()
    if stored is None:
        return wanted
    if wanted not in (None, stored) and "threads" not in request.accept:
        raise CheckpointError(
            "The run was started with another thread count, and the weights depend on it",
            seen=f"{wanted} by --threads or OMP_NUM_THREADS, stored {stored}",
            repair=f"Give --threads {stored}, or accept the change with --accept threads",
        )
    return wanted or stored


def _check_processes(
    checkpoint: Checkpoint | None, world: World, accepted: tuple[str, ...]
) -> None:
    """Batch norm sees a process's own slice, so the weights depend on how many there are."""
    if checkpoint and checkpoint.processes != world.size and "processes" not in accepted:
        raise CheckpointError(
            "The run was started with another number of processes",
            seen=f"{world.size}, stored {checkpoint.processes}",
            repair=f"Start {checkpoint.processes}, or accept the change with --accept processes",
        )


def _latest(ready: Plan) -> Checkpoint | None:
    """The checkpoint, read again under the lock: another process may have trained while the data was read."""
    path = ready.folder.checkpoint
    latest = Checkpoint.load(path) if path.exists() else None
    if latest and (ready.checkpoint is None or latest.config != ready.checkpoint.config):
        raise CheckpointError(
            f"{path} has changed since it was looked at",
            seen="Another process trained in its folder",
            repair="Run the same command again",
        )
    return latest
