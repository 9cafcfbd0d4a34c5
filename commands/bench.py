"""`gan bench`: how fast a model is on this machine, and what else its user could have run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    DEVICE,
    THREADS,
    Force,
    Json,
    LiveLine,
    Model,
    check_new_file,
    machine,
    need,
    need_onnxruntime,
    option,
    where,
)

if TYPE_CHECKING:
    from ..runtime.bench import Bench, Row

EXAMPLE = "gan bench model.onnx --against runs/photos/model.pt --plot bench.png"


def bench(
    model: Model,
    against: Annotated[
        Path | None,
        option(
            metavar="MODEL.PT",
            help="The checkpoint that it was exported from: torch takes its turns too.",
        ),
    ] = None,
    batch: Annotated[
        str, option(metavar="N,N,...", help="Images of a call. Default: 1,8,64.")
    ] = "1,8,64",
    seconds: Annotated[
        float,
        option(min=0.01, max=3600, help="Of each contender at each batch. Default: 2."),
    ] = 2.0,
    starts: Annotated[
        int,
        option(
            min=0,
            max=1000,
            help="Fresh processes of each kind, timed to the first image. Default: 5; 0 leaves them out.",
        ),
    ] = 5,
    system: Annotated[
        str | None,
        option(help="Your own system's .py file, if the checkpoint was trained with one."),
    ] = None,
    device: Annotated[str, machine(help=DEVICE)] = "auto",
    threads: Annotated[int | None, machine(help=THREADS)] = None,
    plot: Annotated[
        Path | None, where(metavar="FILE.png", help="Draw it: needs gan-toolchain[plot].")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure images per second, latency, memory and start-up."""
    batches = batch_sizes(batch)
    need_onnxruntime()
    if against is not None:
        need("bench --against", "torch", "onnx")
    if plot is not None:
        need("bench --plot", "matplotlib", extra="cli,cpu,plot")
        check_plot(plot, force)
    from ..runtime.bench import Rivals, Subject
    from ..runtime.bench import bench as run

    subject = Subject(model, device=device, threads=threads)
    rivals: Rivals | None = None
    line = LiveLine()
    if against is not None:
        from ..export.rivals import load_rivals

        line.show("gan: compiling with torch")
        rivals = load_rivals(
            against, subject.model, system_file=system, device=subject.generator.device
        )
    found = run(
        subject,
        batches=batches,
        seconds=seconds,
        rivals=rivals,
        starts=starts,
        tell=lambda what: line.show(f"gan: measuring {what}"),
    )
    line.end()
    typer.echo(as_text(found) if not as_json else to_json(found))
    if plot is not None:  # last: a full disk does not take the figures
        from .plot import draw

        draw(found, plot)


def batch_sizes(text: str) -> list[int]:
    """[1, 8, 64] of "1,8,64"; anything else is wrong usage."""
    parts = [part.strip() for part in text.split(",")]
    sizes = [int(part) for part in parts if part.isascii() and part.isdecimal() and len(part) < 6]
    if len(sizes) != len(parts) or not all(1 <= size <= 4096 for size in sizes):
        raise typer.BadParameter(
            f"--batch takes numbers from 1 to 4096, as 1,8,64, not {text!r:.40}"
        )
    return sorted(set(sizes))


def check_plot(path: Path, force: bool) -> None:
    """Refuse before anything is measured what could not be written after it."""
    from ..runtime import InputError

    if path.suffix.lower() != ".png":
        raise InputError(
            f"{path} cannot be written", seen=f"suffix {path.suffix!r}", repair="Name a .png"
        )
    check_new_file(path, force)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(
            f"{path} cannot be written",
            seen="It is a folder" if path.is_dir() else f"{path.parent} is not writable",
            repair="Choose another path",
        )


def to_json(found: Bench) -> str:
    import dataclasses

    return json.dumps(dataclasses.asdict(found), indent=2)


def as_text(found: Bench) -> str:
    m = found.machine
    lines = [
        f"{found.model}: {found.device}, {found.threads} threads, micro-batch {found.micro_batch}",
        f"{m.cpu}, {m.cpus} CPUs usable, {m.system}, Python {m.python}, onnxruntime {m.onnxruntime}"
        + "".join(f", {name} {version}" for name, version in found.versions.items()),
        "",
        f"{'':30}{'batch':>15}{'images/s':>11}{'p50 ms':>10}{'p99 ms':>10}{'ours is':>9}",
    ]
    lines += [row_text(row) for row in found.rows]
    if found.fresh:
        lines += ["", f"{'start to first image on disk':30}{'s':>15}{'peak MiB':>11}"]
        lines += [
            f"{name:30}{one.seconds:15.3f}" + (f"{one.mebibytes:11.0f}" if one.mebibytes else "")
            for name, one in found.fresh.items()
        ]
    lines += ["", *(f"Not measured: {name}: {why}" for name, why in found.missing.items())]
    return "\n".join(lines).rstrip()


def row_text(row: Row) -> str:
    batch = f"stream {row.batch}" if row.stream else f"{row.batch}"
    latency = f"{row.p50_ms:10.2f}{row.p99_ms:10.2f}" if not row.stream else f"{'-':>10}{'-':>10}"
    return f"{row.name:30}{batch:>15}{row.images_per_second:11.1f}{latency}{row.ratio:8.2f}x"
