"""The folder of one run: its lock, its names, its metrics.jsonl, and the choice between new, resumed and finished.

model.pt        the checkpoint, replaced whole
best.pt         the one with the best first metric
metrics.jsonl   one line a reading
history/        the checkpoints before it, where they are kept
samples/        the fixed latents' images as training goes on
tensorboard/    the same numbers and pictures
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..runtime.errors import CheckpointError
from ..runtime.files import atomic_file, link, lock, make_folder, writing

RUNS = Path("runs")


class RunFolder:
    """Paths and small files of a run. Makes the folder; touches nothing in it until asked to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint, self.best = path / "model.pt", path / "best.pt"
        self.metrics, self.samples = path / "metrics.jsonl", path / "samples"
        self.tensorboard, self.scratch = path / "tensorboard", path / "data"
        self.history = path / "history"

    def make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"The run folder {self.path} cannot be made",
                seen=f"{error}",
                repair="Choose another with --out",
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other processes; `CheckpointError` where one holds it already."""
        with contextlib.ExitStack() as stack:
            try:
                descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
                stack.callback(os.close, descriptor)
                ours = lock(descriptor)
            except OSError as error:
                raise CheckpointError(
                    f"The run folder {self.path} cannot be written",
                    seen=f"{error}",
                    repair="Choose another with --out",
                ) from error
            if not ours:
                raise CheckpointError(
                    f"{self.path} is in use",
                    seen="Another process trains in it",
                    repair="Wait for it, or choose another folder with --out",
                )
            yield

    def tidy(self) -> None:
        """Remove the half files that a kill left; only while the folder is locked."""
        with writing(self.path):
            for folder in (self.path, self.history, self.samples):
                for part in folder.glob(".*part"):
                    part.unlink(missing_ok=True)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        with writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=True) + "\n")

    def cut_metrics(self, step: int) -> None:
        """Drop the lines after `step`: a resumed run writes them again."""
        if not self.metrics.exists():
            return
        with writing(self.metrics):
            lines = self.metrics.read_bytes().splitlines(True)
        kept = [line for line in lines if _step_of(line) <= step]
        with atomic_file(self.metrics) as file:
            file.writelines(kept)

    def keep(self, step: int, count: int) -> None:
        """Keep the checkpoint, which is of `step` and about to be replaced, with the `count - 1` before it.

        Later ones, of a run that the user took back, stay as well.
        """
        link(self.checkpoint, make_folder(self.history) / f"{step:09d}.pt")
        with writing(self.history):
            numbered = [path for path in self.history.glob("*.pt") if path.stem.isdecimal()]
            past = sorted((int(path.stem), path) for path in numbered if int(path.stem) <= step)
            for _, path in past[:-count]:
                path.unlink(missing_ok=True)


def choose_folder(out: Path | None, default_name: str, *, force: bool) -> RunFolder:
    """The folder for this command: `out`, or runs/NAME; with `force` the next free one beside it."""
    folder = RunFolder(out or RUNS / default_name)
    if not force and not folder.checkpoint.exists():
        left = [path.name for path in (folder.best, folder.metrics) if path.exists()]
        if left:
            raise CheckpointError(
                f"{folder.path} holds a run without its model.pt",
                seen=", ".join(left),
                repair="Put model.pt back, choose another --out, or start beside it with --force",
            )
    number = 2
    while force and any(p.exists() for p in (folder.checkpoint, folder.best, folder.metrics)):
        base = out or RUNS / default_name
        base = base if base.name else base.resolve()  # as in --out .
        folder = RunFolder(base.with_name(f"{base.name}-{number}"))
        number += 1
    return folder


def _step_of(line: bytes) -> float:
    """The step of a line; infinity for one cut short by a kill."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
