"""What a run tells while it goes on: a status for the caller, TensorBoard, and the sheet of fixed latents."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..runtime.files import make_folder, writing
from ..runtime.images import Pixels, grid, quantize, save, scatter
from ..runtime.signature import class_count
from .engine import Training
from .metrics import drawn_inputs, run_averaged, takes_data
from .run_folder import RunFolder

SHEET_COLUMNS, SHEET_ROWS, SHEET_POINTS = 10, 8, 2_000


@dataclass
class Status:
    """One moment of a run. losses and accuracy are means of the last readings; metric is the first one's value."""

    step: int
    steps: int
    images: int
    images_per_second: float
    seconds_left: float
    values: dict[str, float] = field(default_factory=dict)
    metric: tuple[str, float] | None = None


class Speed:
    """Steps a second, over the last half minute or so."""

    def __init__(self, step: int) -> None:
        self._marks = [(time.monotonic(), step)]

    def mark(self, step: int) -> float:
        now = time.monotonic()
        self._marks.append((now, step))
        while len(self._marks) > 2 and now - self._marks[1][0] > 30:
            self._marks.pop(0)
        begin, first = self._marks[0]
        return (step - first) / max(now - begin, 1e-9)


class Sheet:
    """Samples of the same latents at every reading: one column a class, or SHEET_COLUMNS columns; of points a plot.

    The latents are those of the latent stream for the run's seed, so `gan sample --seed` shows the same ones. Of a
    generator that takes images a row shows what it was given, what it made, and the truth where there is one.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        inputs = training.graph.inputs
        self._from_data = takes_data(training.graph)
        self._points = False
        if self._from_data:
            return
        label = next((entry for entry in inputs if entry.kind == "label"), None)
        self.columns = min(class_count(label), 40) if label else SHEET_COLUMNS
        self._points = training.graph.outputs[0].kind == "points"
        count = SHEET_POINTS if self._points else self.columns * SHEET_ROWS
        device = training.device
        self._inputs = drawn_inputs(training.graph, training.config.seed, count, device)
        if label:
            self._inputs[label.name] = torch.arange(count, device=device) % self.columns

    def draw(self) -> Pixels:
        if self._from_data:
            return self._rows()
        made = run_averaged(self._training.graph, self._training, self._inputs)
        samples = made.nan_to_num().cpu().numpy()  # a picture is drawn of whatever there is
        return scatter(samples) if self._points else grid(quantize(samples), self.columns)

    def _rows(self) -> Pixels:
        """Up to 2 * SHEET_ROWS examples, in two columns of rows."""
        graph, examples = self._training.graph, self._training.examples
        count = min(2 * SHEET_ROWS, len(examples[graph.inputs[0].name]))
        given = {entry.name: examples[entry.name][:count] for entry in graph.inputs}
        made = run_averaged(graph, self._training, given)
        shown = [given[f.name] for f in graph.inputs if f.kind == "image"]
        for entry in graph.inputs:
            if entry.kind == "mask":  # grey where it is asked to paint
                shown = [image * (1 - given[entry.name]) for image in shown]
        truth = examples["real"]
        shown += [made, truth[:count]] if isinstance(truth, Tensor) else [made]
        size, channels = made.shape[2:], max(x.shape[1] for x in shown)
        columns = [fitted(x, size, channels).nan_to_num().cpu().numpy() for x in shown]
        images = np.stack([quantize(x) for x in columns], 1)  # (N, columns, H, W, C)
        return grid(images.reshape(-1, *images.shape[2:]), 2 * len(columns))


def fitted(images: Tensor, size: Sequence[int], channels: int) -> Tensor:
    """Images at another size, by nearest pixels, and grey ones in colour where others are."""
    images = interpolate(images, tuple(size))
    if images.shape[1] == 1:
        images = images.expand(-1, min(channels, 3), -1, -1)
    missing = images.new_ones(len(images), channels - images.shape[1], *size)
    return torch.cat([images, missing], 1)  # opaque


class Journal:
    """Writes readings to metrics.jsonl and TensorBoard, and sheets to samples/ and TensorBoard."""

    def __init__(self, folder: RunFolder, step: int) -> None:
        self._folder = folder
        folder.cut_metrics(step)
        make_folder(folder.samples)
        self._board = Board(folder.tensorboard, step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._folder.append_metrics({"step": step, **values})
        self._board.scalars(step, values)

    def sheet(self, step: int, image: Pixels) -> None:
        save(image, self._folder.samples / f"{step:07d}.png")
        self._board.image(step, image)


class Board:
    """A file of TensorBoard's events, to which each reading is added at once, as to metrics.jsonl: a full disk is then
    an error of this thread, where torch's SummaryWriter has another, which prints it and ends."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        """purge_step: events of earlier files from this step on do not count."""
        from tensorboard.compat.proto.event_pb2 import SessionLog  # type: ignore[import-untyped]

        self._path = make_folder(folder) / f"events.out.tfevents.{time.time_ns()}"
        start = SessionLog(status=SessionLog.START)
        self._add(purge_step, {"file_version": "brain.Event:2"}, {"session_log": start})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import scalar

        self._add(step, *({"summary": scalar(name, value)} for name, value in values.items()))

    def image(self, step: int, image: Pixels) -> None:
        from torch.utils.tensorboard.summary import image as picture

        self._add(step, {"summary": picture("samples", image, dataformats="HWC")})

    def _add(self, step: int, *contents: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import (  # type: ignore[import-untyped]
            RecordWriter,
        )

        with writing(self._path), open(self._path, "ab") as file:
            for content in contents:
                event = Event(wall_time=time.time(), step=step, **content)
                RecordWriter(file).write(event.SerializeToString())
