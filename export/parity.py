"""Gate steps 6 and 7: the file against torch, and the file against itself at other batch sizes and threads.

The judge is the runtime's own session, at its own options.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import ParityError
from ..runtime.images import quantize
from ..runtime.session import Session
from ..runtime.signature import Field, Signature
from .module import Source, draw_inputs
from .report import Exactness, ParityRow
from .trace import FLOAT_SUFFIX

BATCHES = (1, 2, 3, 5, 8)
EXACT_BATCHES, EXACT_THREADS, EXACT_COUNT = (1, 2, 3, 8, 64), (1, 2, 4), 64
MAX_ABS, MAX_STEP, MAX_SHARE = 1e-4, 1, 1e-3
MAX_PSNR = 200.0  # dB, stands for equal outputs

Array = NDArray[Any]


def measure_parity(
    source: Source, signature: Signature, file: bytes, probe: bytes, max_batch: int
) -> tuple[ParityRow, ...]:
    """Compare `file` and `probe` (the same graph with its float outputs) with torch; `ParityError` beyond limits."""
    example = draw_inputs(signature.inputs, 1)
    final, floats = (Session(data, device="cpu", example=example) for data in (file, probe))  # type: ignore[arg-type]
    rows = []
    for batch in sorted({*BATCHES, max_batch}):
        inputs: Any = draw_inputs(signature.inputs, batch)
        truth = [output.numpy() for output in source.run(source.inputs(batch))]
        before = floats.run(inputs, [field.name + FLOAT_SUFFIX for field in signature.outputs])
        after = final.run(inputs, [field.name for field in signature.outputs])
        for i, field in enumerate(signature.outputs):
            row = compare(field, batch, truth[i], before[i], after[i])
            check_row(row)
            rows.append(row)
    return tuple(rows)


def compare(field: Field, batch: int, truth: Array, before: Array, after: Array) -> ParityRow:
    """One row: torch's float output, the graph's, and the file's own output."""
    if truth.shape != before.shape:
        raise ParityError(
            f"Output {field.name} has the wrong shape", seen=f"{before.shape}, not {truth.shape}"
        )
    difference = np.abs(truth.astype(np.float64) - before.astype(np.float64))
    max_abs = float(difference.max()) if np.isfinite(difference).all() else math.inf
    largest = float(np.abs(truth).max())
    mse = float(np.square(difference).mean())
    span = 2.0 if field.kind == "image" else max(float(np.ptp(truth)), 1e-12)
    psnr = (
        MAX_PSNR
        if mse == 0
        else min(MAX_PSNR, 10 * math.log10(span**2 / mse))
        if mse < math.inf
        else 0.0
    )
    row = ParityRow(field.name, batch, max_abs, max_abs / max(largest, 1e-12), psnr)
    if field.dtype != "uint8":
        expected = np.clip(truth, -1, 1) if field.kind == "image" else truth
        worst = float(np.abs(expected.astype(np.float64) - after).max())
        return ParityRow(field.name, batch, max(max_abs, worst), row.max_rel, psnr)
    steps = np.abs(quantize(truth).astype(np.int16) - after.astype(np.int16))
    return ParityRow(
        field.name, batch, max_abs, row.max_rel, psnr, int(steps.max()), float((steps > 0).mean())
    )


def check_row(row: ParityRow) -> None:
    bytes_differ = row.step is not None and (row.step > MAX_STEP or (row.share or 0.0) > MAX_SHARE)
    if not row.max_abs <= MAX_ABS or bytes_differ:
        seen = (
            f"At batch {row.batch} the float output is off by {row.max_abs:.3g}, limit {MAX_ABS:g}"
        )
        if row.step is not None:
            seen += f"; bytes by {row.step} steps in {100 * (row.share or 0.0):.3g} %, limits {MAX_STEP} and 0.1 %"
        raise ParityError(
            f"The ONNX graph and torch disagree (output {row.output})",
            seen=seen,
            repair="Was the checkpoint replaced during the export? If not, report it with the checkpoint",
        )


def measure_exactness(signature: Signature, file: bytes) -> Exactness:
    """The same latents at several batch sizes and thread counts: the same bytes or not."""
    inputs: Any = draw_inputs(signature.inputs, EXACT_COUNT)
    by_threads: dict[int, list[str]] = {}
    for threads in EXACT_THREADS:
        session = Session(file, device="cpu", threads=threads, example={})
        by_threads[threads] = [_digest(session, inputs, batch) for batch in EXACT_BATCHES]
    across_batches = all(len(set(digests)) == 1 for digests in by_threads.values())
    at_one_batch = [
        {digests[i] for digests in by_threads.values()} for i in range(len(EXACT_BATCHES))
    ]
    across_threads = all(len(digests) == 1 for digests in at_one_batch)
    return Exactness(EXACT_BATCHES, EXACT_THREADS, across_batches, across_threads)


def check_exactness(exactness: Exactness, *, required: bool) -> None:
    """Our own systems must be exact across batch sizes; for a user's own it is recorded."""
    if required and not exactness.across_batches:
        raise ParityError(
            "Images depend on the batch size they are made in",
            seen=f"The bytes differ between batches of {', '.join(map(str, exactness.batches))}",
            repair="Write means over channels as 1x1 convolutions with constant weights",
        )


def _digest(session: Session, inputs: dict[str, Array], batch: int) -> str:
    parts: list[Sequence[Array]] = [
        session.run({name: array[i : i + batch] for name, array in inputs.items()})
        for i in range(0, EXACT_COUNT, batch)
    ]
    sha = hashlib.sha256()
    for column in zip(*parts, strict=True):
        sha.update(np.concatenate(column).tobytes())
    return sha.hexdigest()
