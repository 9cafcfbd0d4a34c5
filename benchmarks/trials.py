"""What the benchmarks of systems share: a trial, the scores of its ONNX file, and the table of them."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gan.export import export_all
from gan.runtime import Generator
from gan.trainer import Request, train
from gan.trainer.config import Plain
from gan.trainer.progress import Status
from gan.trainer.run_folder import choose_folder


class Row(NamedTuple):
    """One score. real: what other real samples reach. bar: (">=" or "<=", the least or most that is asked for)."""

    name: str
    value: float
    real: float | None
    bar: tuple[str, float] | None


@dataclass(frozen=True)
class Trial:
    """A tiny version: its data, steps and settings, and how it is scored.

    keep: also keep the checkpoint of this share of the steps, above a half, as kept.pt.
    """

    system: str
    data: str | Callable[[], str]
    steps: int
    score: Callable[[Generator, Path], list[Row]]
    given: dict[str, Plain] = field(default_factory=dict)
    keep: float = 0.0


def run(name: str, trial: Trial, out: Path, scale: float, settings: list[str]) -> list[Row]:
    """Train, export, and score what was exported."""
    folder = choose_folder(out / name, name, force=True).path
    given = trial.given | {"steps": max(1, round(trial.steps * scale)), "seed": 0}
    for text in settings:
        key, value = text.split("=", 1)
        given[key] = json.loads(value) if value[:1] in "-.0123456789tf" else value
    begin, cpu = time.perf_counter(), time.process_time()
    request = Request(
        data=trial.data() if callable(trial.data) else trial.data,
        system=trial.system,
        given=given,
        out=folder,
        threads=1,
        checkpoint_every=round(trial.keep * trial.steps * scale) or None,
    )  # one thread, on which the weights depend: the scores are those of any such machine

    def keep(status: Status) -> None:
        kept, wanted = folder / "kept.pt", request.checkpoint_every
        if wanted and status.step >= wanted and not kept.exists():
            shutil.copyfile(folder / "model.pt", kept)

    outcome = train(request, keep)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    export_all(outcome.folder.checkpoint, folder / "model.onnx", overwrite=True)
    print(f"\n{name}: {outcome.step} steps, {seconds:.0f} s, {cpu:.0f} CPU s; {folder}", flush=True)
    return trial.score(Generator(folder / "model.onnx", device="cpu"), folder)


def main(trials: Mapping[str, Trial], description: str | None, out: Path) -> None:
    """The command: run the named trials, or all; print what was missed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(trials)}; default: all"
    )
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the steps")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    missed = []
    for name in arguments.names or trials:
        rows = run(name, trials[name], arguments.out, arguments.scale, arguments.set)
        print(f"{'':38}{'ONNX':>9}{'real':>9}{'bar':>12}")
        for row in rows:
            real = f"{row.real:9.3f}" if row.real is not None else f"{'-':>9}"
            bar = f"{row.bar[0]} {row.bar[1]:.3g}" if row.bar else "-"
            print(f"{row.name:38}{row.value:9.3f}{real}{bar:>12}", flush=True)
            if row.bar and not (
                row.value >= row.bar[1] if row.bar[0] == ">=" else row.value <= row.bar[1]
            ):
                missed.append(f"{name}: {row.name}")
    print("\nMissed: " + ("; ".join(missed) or "none"))
