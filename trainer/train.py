"""`train`: from a request to a finished checkpoint, or to a saved one when a signal or a fault ends the run early."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch

from ..runtime.errors import CheckpointError, DeviceUnavailableError, InputError
from . import systems
from .checkpoint import Checkpoint, save
from .config import Config, Plain, make_config, parse_setting, resume_config
from .data import Dataset, default_resolution, load_dataset, open_source, source_name
from .engine import Training
from .metrics import Coverage
from .probe import Probe, choose_threads
from .progress import Journal, Sheet, Speed, Status
from .run_folder import RunFolder, choose_folder
from .system import Metric, System

logger = logging.getLogger("gan.trainer")

DEFAULT_STEPS, DEFAULT_DIGITS_STEPS = 25_000, 2_500
LOG_EVERY, CHECKPOINT_SECONDS = 50, 120.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks of `train`.

    data: a folder, a zip, or None for the embedded digits. given: the settings chosen by name, the rest is the
    preset's. settings: the same as NAME=VALUE texts. The other fields change no weights, but for threads, whose
    number is part of a checkpoint.
    """

    data: str | None = None
    system: str | None = None
    given: Mapping[str, Plain] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    minutes: float | None = None
    out: Path | None = None
    force: bool = False
    accept: tuple[str, ...] = ()
    threads: int | None = None
    device: str = "auto"
    workers: int = 2
    checkpoint_every: int | None = None
    sample_every: int | None = None
    measure_every: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended. finished: all steps are done. signal: the one that ended it early, or None. new: whether
    this call trained at all."""

    folder: RunFolder
    config: Config
    step: int
    finished: bool
    signal: int | None = None
    new: bool = True


@dataclass
class Plan:
    """A request resolved against preset, data and an earlier checkpoint."""

    config: Config
    folder: RunFolder
    system: System
    data: Dataset
    device: torch.device
    checkpoint: Checkpoint | None


def plan(request: Request) -> Plan:
    """Resolve a request, reading the data but training nothing. Raises any `GanError`."""
    device = choose_device(request.device)
    if request.minutes is not None and not 0 < request.minutes < 1e7:
        raise InputError(
            "The minutes were refused", seen=f"{request.minutes}", repair="Give a number above 0"
        )
    classes = open_source(request.data).classes
    default = systems.DEFAULT_LABELLED if classes else systems.DEFAULT
    kind, source = systems.load(request.system or default)
    given = dict(request.given) | dict(parse_setting(kind, text) for text in request.settings)
    folder = choose_folder(
        request.out, f"{source.name}-{source_name(request.data)}", force=request.force
    )
    checkpoint = Checkpoint.load(folder.checkpoint) if folder.checkpoint.exists() else None
    stored = checkpoint.config if checkpoint else None
    if stored is not None:
        if request.system is None or systems.load(request.system)[1].name == stored.system.name:
            file = request.system if stored.system.file else None
            accepted = "system" in request.accept
            kind = systems.load_recorded(stored.system, file=file, accept_changed=accepted)
        else:
            given["system"] = source.name
        stored = resume_config(
            stored, given, tuple(name.replace("-", "_") for name in request.accept)
        )
        given = {"resolution": stored.resolution, "channels": stored.channels, "fit": stored.fit}
    data = load_dataset(
        request.data,
        resolution=int(given.get("resolution") or default_resolution(request.data)),
        channels=given.get("channels") or "auto",  # type: ignore[arg-type]
        fit=given.get("fit"),  # type: ignore[arg-type]
        workers=request.workers,
        scratch=folder.scratch,
    )
    steps = DEFAULT_DIGITS_STEPS if request.data is None else DEFAULT_STEPS
    config = stored or make_config(kind, source, data.info, given, steps=steps)
    options = kind.options_type(**config.options)  # type: ignore[arg-type]
    if checkpoint:
        _check_data(checkpoint, data, request.accept)
    return Plan(config, folder, kind(options, data.info), data, device, checkpoint)


def train(request: Request, on_status: Callable[[Status], None] | None = None) -> Outcome:
    """Train until the steps are done or SIGINT or SIGTERM comes, then save.

    The same request again resumes an unfinished run, and on a CPU ends with bit-identical weights. on_status is
    called about twice a second. Raises any `GanError`; what was saved before stays.
    """
    ready = plan(request)
    ready.folder.make()
    with ready.folder.locked():
        if ready.checkpoint is not None:  # it may have grown while another process held the lock
            ready.checkpoint = Checkpoint.load(ready.folder.checkpoint)
            if ready.checkpoint.step >= ready.config.steps:
                return Outcome(ready.folder, ready.config, ready.checkpoint.step, True, new=False)
        with Signals() as signals:
            return _Run(ready, request, signals, on_status or (lambda status: None)).go()


class _Run:
    """The loop around the engine: when to log, measure, draw, save and stop."""

    def __init__(
        self, ready: Plan, request: Request, signals: Signals, on_status: Callable[[Status], None]
    ) -> None:
        self.request, self.folder, self.signals, self.on_status = (
            request,
            ready.folder,
            signals,
            on_status,
        )
        self.data, self.checkpoint = ready.data, ready.checkpoint
        config = ready.config
        stored = ready.checkpoint.content["threads"]["count"] if ready.checkpoint else None
        wanted = _threads(request, stored)

        def make() -> Training:
            return Training(ready.system, ready.data, config, ready.device)

        probe = (
            Probe(wanted, 0.0)
            if wanted and request.minutes is None
            else choose_threads(wanted, make, ready.device)
        )
        if request.minutes is not None and ready.checkpoint is None:
            config = dataclasses.replace(config, steps=steps_in(request.minutes, probe.seconds))
            logger.info("%g minutes are %d steps here", request.minutes, config.steps)
        torch.set_num_threads(probe.threads)
        self.config, self.threads = config, probe.threads
        self.training = Training(ready.system, ready.data, config, ready.device)
        if ready.checkpoint is not None:
            self.training.load_state(ready.checkpoint.content)
        self.metrics = self._metrics(ready.system)
        self.measured: dict[str, float] = dict(self._stored("values"))
        self.best: float | None = self._stored("best").get("value")
        self.saved_at = time.monotonic()

    def go(self) -> Outcome:
        training, steps = self.training, self.config.steps
        self.journal = Journal(self.folder, training.step)
        self.sheet = Sheet(training) if training.graph.outputs[0].kind == "image" else None
        self.speed = Speed(training.step)
        self.values: dict[str, float] = {}
        told = 0.0
        try:
            while training.step < steps and self.signals.received is None:
                training.run_step()
                self._after_step()
                if time.monotonic() - told > 0.5:
                    told = time.monotonic()
                    self.on_status(self._status())
            self._save()
            self.on_status(self._status())
        finally:
            self.journal.close()
        return Outcome(
            self.folder, self.config, training.step, training.step >= steps, self.signals.received
        )

    def _after_step(self) -> None:
        step, steps, request = self.training.step, self.config.steps, self.request
        last = step == steps
        if step % LOG_EVERY == 0 or last:
            self.values = self.training.means.take()
            self.values["images_per_second"] = self.speed.mark(step) * self._batch_size
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
            self.measured |= metric.measure(self.training)
        self.journal.scalars(
            step, {f"metric/{name}": value for name, value in self.measured.items()}
        )
        first = self.metrics[0]
        value = self.measured[first.name]
        better = self.best is None or (
            value > self.best if first.higher_is_better else value < self.best
        )
        if better:
            self.best = value
        return better

    def _save(self, path: Path | None = None) -> None:
        training = self.training
        content = training.state() | {
            "config": self.config.to_dict(),
            "data": {
                "name": self.data.name,
                "count": len(self.data),
                "digest": self.data.digest,
                "info": {**dataclasses.asdict(self.data.info), "classes": list(self.data.classes)},
            },
            "signature": {
                name: g.signature.to_json() for name, g in training.system.graphs().items()
            },
            "metrics": {
                "values": self.measured,
                "best": {} if self.best is None else {"value": self.best},
            },
            "threads": {"count": self.threads},
        }
        save(path or self.folder.checkpoint, content)
        if path is None:
            self.saved_at = time.monotonic()

    def _status(self) -> Status:
        step, steps = self.training.step, self.config.steps
        per_second = self.speed.mark(step)
        first = self.metrics[0].name if self.metrics else ""
        return Status(
            step,
            steps,
            self.training.images_seen,
            per_second * self._batch_size,
            (steps - step) / per_second if per_second > 0 else float("inf"),
            self.values or {},
            (first, self.measured[first]) if first in self.measured else None,
        )

    def _metrics(self, system: System) -> list[Metric]:
        own = system.metrics()
        if own is not None:
            return own
        training = self.training
        if training.graph.outputs[0].kind != "image" or len(self.data) < 8:
            return []
        return [Coverage(self.data, training.graph, training.device).metric()]

    def _stored(self, name: str) -> dict[str, Any]:
        return dict(self.checkpoint.content["metrics"].get(name, {})) if self.checkpoint else {}

    @property
    def _batch_size(self) -> int:
        return self.training.system.options.batch_size


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


def choose_device(name: str) -> torch.device:
    """The torch device of "auto", "cpu", "cuda" or "cuda:N". Raises `DeviceUnavailableError` or `InputError`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(
            "The device was refused", seen=f"{name!r:.40}", repair="Give auto, cpu, cuda or cuda:N"
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(
            "The device was refused", seen=f"{name!r:.40}", repair="Give auto, cpu, cuda or cuda:N"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailableError(
            "CUDA cannot be used for training",
            seen=f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices",
            repair="Install a CUDA build of torch and an NVIDIA driver, or use --device cpu",
        )
    return device


def steps_in(minutes: float, seconds_a_step: float) -> int:
    """Steps that fit in so many minutes, at least one."""
    return max(1, int(minutes * 60 / max(seconds_a_step, 1e-6)))


def _threads(request: Request, stored: int | None) -> int | None:
    wanted = request.threads
    if stored is None:
        return wanted
    if wanted not in (None, stored) and "threads" not in request.accept:
        raise CheckpointError(
            "The run was started with another thread count, and the weights depend on it",
            seen=f"--threads {wanted}, stored {stored}",
            repair="Leave --threads out, or accept it with --accept threads",
        )
    return wanted or stored


def _check_data(checkpoint: Checkpoint, data: Dataset, accept: tuple[str, ...]) -> None:
    stored = checkpoint.content["data"]
    if stored.get("digest") != data.digest and "data" not in accept:
        raise CheckpointError(
            "The run was started with other data",
            seen=f"{len(data)} images of digest {data.digest[:12]}, stored {stored.get('count')} of "
            f"{stored.get('digest')!s:.12}",
            repair="Restore the data, accept it with --accept data, or start anew beside it with --force",
        )
