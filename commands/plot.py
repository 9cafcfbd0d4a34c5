"""A bench as a picture, by matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runtime.bench import Bench


def draw(found: Bench, path: Path) -> None:
    """Images per second and latency by batch size, a line for each contender, as a PNG, whole or not at all."""
    from matplotlib.figure import (
        Figure,  # not pyplot: it would keep the figure, and look for a screen
    )

    from ..runtime.files import atomic_file

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    speed, latency = figure.subplots(1, 2)
    for name in dict.fromkeys(row.name for row in found.rows):
        rows = [row for row in found.rows if row.name == name and not row.stream]
        batches = [row.batch for row in rows]
        (line,) = speed.plot(
            batches, [row.images_per_second for row in rows], marker="o", label=name
        )
        latency.plot(batches, [row.p50_ms for row in rows], marker="o", color=line.get_color())
        latency.plot(batches, [row.p99_ms for row in rows], linestyle=":", color=line.get_color())
    batches = sorted({row.batch for row in found.rows if not row.stream})
    for axes, title in ((speed, "images per second"), (latency, "ms a call: p50, dotted p99")):
        axes.set(xlabel="batch", title=title, xscale="log", yscale="log")
        axes.set_xticks(batches, [str(batch) for batch in batches], minor=False)
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    speed.set(yscale="linear", ylim=(0, None))
    speed.legend(fontsize="small")
    figure.suptitle(
        f"{Path(found.model).name}, {found.device}, {found.threads} threads, {found.machine.cpu}"
    )
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=120)
    with atomic_file(path) as file:
        file.write(encoded.getbuffer())
