"""Gate steps 6 and 7: the file against torch, and the file against itself at other batch sizes and threads.

The judge is the runtime's own session, at its own options.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..runtime.errors import ParityError
from ..runtime.images import quantize
from ..runtime.inputs import Array
from ..runtime.session import Session
from ..runtime.signature import Field, Signature
from .module import Source, draw_inputs, other_sizes
from .report import Exactness, ParityRow
from .trace import FLOAT_SUFFIX

BATCHES = (1, 2, 3, 5, 8)
EXACT_BATCHES, EXACT_THREADS = (1, 2, 3, 8, 64), (1, 2, 4)
MAX_ABS, MAX_STEP, MAX_SHARE = 1e-4, 1, 1e-3
MAX_PSNR = 200.0  # dB, stands for equal outputs


@dataclass(frozen=True)
class Limits:
    """How far the file may be from torch: float output, uint8 steps, share of bytes that differ, dB at least."""

    max_abs: float = MAX_ABS
    step: int = MAX_STEP
    share: float = MAX_SHARE
    psnr: float = 0.0


EXACT = Limits()


def measure_parity(
    source: Source,
    signature: Signature,
    file: bytes,
    probe: bytes,
    max_batch: int,
    limits: Limits = EXACT,
) -> tuple[ParityRow, ...]:
    """Compare `file` and `probe` (the same graph with its float outputs) with torch; `ParityError` beyond limits."""
    example = file_inputs(source, signature, 1, source.signature.example_sizes)
    final, floats = (Session(data, device="cpu", example=example) for data in (file, probe))
    rows, values = [], []
    for batch, sizes in cases(source.signature, max_batch):
        inputs = file_inputs(source, signature, batch, sizes)
        truth = [output.numpy() for output in source.run(source.inputs(batch, sizes=sizes))]
        before = floats.run(inputs, [field.name + FLOAT_SUFFIX for field in signature.outputs])
        after = final.run(inputs, [field.name for field in signature.outputs])
        for i, field in enumerate(signature.outputs):
            rows.append(compare(field, batch, truth[i], before[i], after[i], sizes))
            values.append(after[i].size)
            try:
                check_row(rows[-1], values[-1], limits)
            except ParityError as error:
                raise (_explained(error, source, i) if limits == EXACT else error) from error
    check_shares(rows, values, limits)
    return tuple(rows)


def cases(signature: Signature, max_batch: int) -> list[tuple[int, dict[str, int]]]:
    """Batch sizes, and sizes of the dynamic axes: each batch at the example's, a batch of 2 at others, the smallest
    among them."""
    batches = sorted({*BATCHES, max_batch})
    found = [(batch, dict(signature.example_sizes)) for batch in batches]
    return [*found, *((2, sizes) for sizes in other_sizes(signature))]


def file_inputs(
    source: Source, signature: Signature, batch: int, sizes: Mapping[str, int], start: int = 0
) -> dict[str, Array]:
    """`Source.inputs` as the file takes them: images and masks as bytes, where the signature says so."""
    inputs = draw_inputs(source.signature.inputs, batch, start, sizes)
    for field in signature.inputs:
        if field.dtype == "uint8" and field.kind == "image":
            inputs[field.name] = np.ascontiguousarray(quantize(inputs[field.name]))
        elif field.dtype == "uint8" and field.kind == "mask":
            planes = inputs[field.name].transpose(0, 2, 3, 1)
            inputs[field.name] = np.ascontiguousarray(planes * 255).astype(np.uint8)
    return inputs


def compare(
    field: Field,
    batch: int,
    truth: Array,
    before: Array,
    after: Array,
    sizes: Mapping[str, int] | None = None,
) -> ParityRow:
    """One row: torch's float output, the graph's, and the file's own output. sizes: of the dynamic axes."""
    wanted = (batch, *field.shape_at(sizes or {}))
    if truth.shape != before.shape or after.shape != wanted:
        raise ParityError(
            f"Output {field.name} has the wrong shape",
            seen=f"{before.shape} and {after.shape}, not {truth.shape} and {wanted}",
            repair="Look for shapes in forward() that depend on the batch size",
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
    size = "x".join(map(str, truth.shape[2:])) if sizes and truth.ndim == 4 else ""
    row = ParityRow(field.name, batch, max_abs, max_abs / max(largest, 1e-12), psnr, size=size)
    if field.dtype != "uint8":
        expected = np.clip(truth, -1, 1) if field.kind == "image" else truth
        worst = np.abs(expected.astype(np.float64) - after)
        largest = float(worst.max()) if np.isfinite(worst).all() else math.inf
        return dataclasses.replace(row, max_abs=max(max_abs, largest))
    steps = np.abs(quantize(truth).astype(np.int16) - after.astype(np.int16))
    return dataclasses.replace(row, step=int(steps.max()), share=float((steps > 0).mean()))


def check_row(row: ParityRow, values: int, limits: Limits = EXACT) -> None:
    """Raise `ParityError` beyond the limits. values: of the output; the share of fewer than 1,000 says nothing alone,
    and is left to `check_shares`."""
    share = (row.share or 0.0) if values * limits.share >= 1 else 0.0
    bytes_differ = row.step is not None and (row.step > limits.step or share > limits.share)
    if not row.max_abs <= limits.max_abs or row.psnr < limits.psnr or bytes_differ:
        seen = f"At batch {row.batch}{f' of {row.size}' if row.size else ''} the float output is off by {row.max_abs:.3g}, limit {limits.max_abs:g}"
        if row.step is not None:
            seen += f"; bytes by {row.step} steps in {100 * (row.share or 0.0):.3g} %, limits {limits.step} and {100 * limits.share:g} %"
        if limits.psnr:
            seen += f"; {row.psnr:.1f} dB, limit {limits.psnr:g}"
        raise ParityError(
            f"The ONNX graph and torch disagree (output {row.output})",
            seen=seen,
            repair="Was the checkpoint replaced during the export? If not, report it with the checkpoint"
            if limits == EXACT
            else "Export it with --precision fp32",
        )


def check_shares(rows: Sequence[ParityRow], values: Sequence[int], limits: Limits = EXACT) -> None:
    """Raise `ParityError` where an output's bytes, of all batches together, differ in more than the limit."""
    for name in dict.fromkeys(row.output for row in rows):
        own = [
            (row.share or 0.0, n) for row, n in zip(rows, values, strict=True) if row.output == name
        ]
        share = sum(share * n for share, n in own) / sum(n for _, n in own)
        if share > limits.share:
            raise ParityError(
                f"The ONNX graph and torch disagree (output {name})",
                seen=f"Of the bytes of all batches {100 * share:.3g} % differ, limit 0.1 %",
                repair="Train it longer, or prove larger batches with --max-batch: few bytes say little",
            )


def _explained(error: ParityError, source: Source, output: int) -> ParityError:
    """The error, with its cause where torch's own float32 is about as far from its float64."""
    inputs = source.inputs(EXACT_BATCHES[-1])
    single = source.run(inputs)[output].double()
    own = math.nan
    with contextlib.suppress(RuntimeError):  # a graph may have no float64
        double = dataclasses.replace(source, module=copy.deepcopy(source.module).double())
        wide = [x.double() if x.is_floating_point() else x for x in inputs]
        own = float((double.run(wide)[output] - single).abs().max())
    if not own > MAX_ABS / 4:
        return error
    return ParityError(
        error.failed,
        seen=f"{error.seen}. Torch's own float32 is {own:.3g} from its float64: the network magnifies rounding",
        repair="Train it longer, or with a larger width: norms over few channels are near 0 at some places",
    )


def measure_exactness(signature: Signature, file: bytes, max_batch: int) -> Exactness:
    """The same latents at several batch sizes and thread counts: how far apart the outputs are.

    max_batch: larger ones are left out, but for those up to 8.
    """
    batches = tuple(batch for batch in EXACT_BATCHES if batch <= max(max_batch, 8))
    inputs = draw_inputs(signature.inputs, batches[-1], sizes=signature.example_sizes)
    across_batches = across_threads = 0.0
    first: list[Array] = []
    for threads in EXACT_THREADS:
        session = Session(file, device="cpu", threads=threads, example={})
        whole = _run_in_batches(session, inputs, batches[-1])
        first = first or whole
        across_threads = max(across_threads, largest_step(signature, first, whole))
        for batch in batches[:-1]:
            parts = _run_in_batches(session, inputs, batch)
            across_batches = max(across_batches, largest_step(signature, whole, parts))
    return Exactness(batches, EXACT_THREADS, across_batches, across_threads)


def largest_step(signature: Signature, a: Sequence[Array], b: Sequence[Array]) -> float:
    """The largest difference of two runs' outputs, in steps of 1/255 of the range; 0 for equal bytes only."""
    largest = 0.0
    for field, x, y in zip(signature.outputs, a, b, strict=True):
        if x.tobytes() != y.tobytes():
            low, high = field.range or (-1.0, 1.0)
            difference = np.abs(x.astype(np.float64) - y.astype(np.float64)).max()
            largest = max(largest, float(difference) * 255.0 / (high - low), 1e-12)
    return largest


def check_exactness(exactness: Exactness, *, required: bool, lowered: bool = False) -> None:
    """Our own systems must be exact across batch sizes; a user's own may differ by one step of 255. lowered: it is the
    precision that is then to blame, which turns the last bit of a float32 sum into a step."""
    worst = max(exactness.across_batches, 0.0 if required else exactness.across_threads)
    if not worst <= (0.0 if required else MAX_STEP):
        raise ParityError(
            "Images depend on the batch size or the thread count they are made with",
            seen=f"They differ by {worst:.3g} steps of 255 between batches of "
            f"{', '.join(map(str, exactness.batches))}",
            repair="Export it with --precision fp32"
            if lowered
            else "Write means over channels as 1x1 convolutions with constant weights",
        )


def _run_in_batches(session: Session, inputs: dict[str, Array], batch: int) -> list[Array]:
    count = len(next(iter(inputs.values())))
    parts = [
        session.run({name: array[i : i + batch] for name, array in inputs.items()})
        for i in range(0, count, batch)
    ]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
