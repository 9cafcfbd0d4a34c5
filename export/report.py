"""The proof that goes into the file: parity at each batch size, and exactness across batch sizes and threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class ParityRow:
    """One batch size and output. size: of its image, as HEIGHTxWIDTH, where that is the caller's choice. max_abs, max_rel (of the largest value) and psnr (dB, of the range) are of the
    float output before the head; step and share are the largest step and the share of differing bytes of uint8."""

    output: str
    batch: int
    max_abs: float
    max_rel: float
    psnr: float
    step: int | None = None
    share: float | None = None
    size: str = ""


@dataclass(frozen=True)
class Exactness:
    """How far apart the outputs of the same latents were, in steps of 1/255 of the range; 0 means the same bytes.

    across_batches: at one thread count, between batch sizes. across_threads: between thread counts.
    """

    batches: tuple[int, ...]
    threads: tuple[int, ...]
    across_batches: float
    across_threads: float


@dataclass(frozen=True)
class FidelityRow:
    """One output of a file in lower precision, against the float32 file or torch, over many samples.

    worst_psnr and mean_psnr (dB) are of single samples; step is the largest of 255, share that of an image's bytes
    that differ.
    """

    output: str
    against: str
    samples: int
    worst_psnr: float
    mean_psnr: float
    step: int
    share: float | None = None


@dataclass(frozen=True)
class Fidelity:
    """What lower precision costs, rounded after every operator as float16 hardware does, and what it was made of.

    lower_nodes, float_nodes: nodes with results in lower precision, and in float32. kept: weights that stayed in
    float32 because float16 cannot hold them.
    """

    precision: str
    rows: tuple[FidelityRow, ...]
    psnr_limit: float
    step_limit: int
    lower_nodes: int
    float_nodes: int
    casts: int
    kept: tuple[str, ...]

    @property
    def step(self) -> int:
        """The largest step of all rows."""
        return max(row.step for row in self.rows)


@dataclass(frozen=True)
class Report:
    """What the gate measured, through the runtime's own session on the CPU."""

    rows: tuple[ParityRow, ...]
    exactness: Exactness
    max_abs_limit: float
    step_limit: int
    share_limit: float
    fidelity: Fidelity | None = None  # of a file that is not in float32
    rewrites: Mapping[str, int] = field(
        default_factory=dict
    )  # of the graph: how often each was used

    def to_metadata(self) -> dict[str, Any]:
        return {"format": FORMAT, "provider": "CPUExecutionProvider", **dataclasses.asdict(self)}
