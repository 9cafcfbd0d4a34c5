"""How far a file of lower precision is from the float32 one, over thousands of latents, and which layer is to blame.

Float16 is judged as float16 hardware computes it, rounded after every operator, whatever the CPU would do.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ..runtime.errors import ParityError
from ..runtime.images import quantize
from ..runtime.inputs import Array
from ..runtime.session import Session
from ..runtime.signature import Field, Signature
from .graph import to_bytes, with_float_outputs
from .module import Source, draw_inputs
from .parity import EXACT, MAX_PSNR, Limits, file_inputs, measure_parity
from .precision import Conversion, Precision, barred, to_half
from .quantization import to_int8
from .report import Fidelity, FidelityRow
from .trace import FLOAT_SUFFIX

logger = logging.getLogger("gan.export")

SAMPLES, MOST_SAMPLES = 10_000, 1_000_000
TORCH_SAMPLES = 64  # against torch itself; the float32 file is proven equal to it
BATCH, BATCH_VALUES = 16, 16 * 3 * 256 * 256  # at most, of one run
BOUNDS = {  # least dB and most steps of 255, of every sample
    "fp16": (40.0, 16),
    "mixed": (40.0, 16),
    "int8": (30.0, 64),
}
BETTER = {"fp16": "mixed", "mixed": "fp32", "int8": "fp32"}  # what to try where one is refused
CALIBRATION, CALIBRATION_START = 64, 2**40  # samples of the latent stream; none of them is compared
EVERY = 10.0  # seconds between two lines of progress
SUFFIXES = ("_half", "_DequantizeLinear_Output", "")  # of a value's name in the lower precision
FLOOR = 2.0**-11  # half a unit in float16's last place: an error below it is no error


@dataclass(frozen=True)
class Lowered:
    """A graph in lower precision: what was done, the float32 graph that it was, and the module path of each value."""

    precision: Precision
    reference: onnx.ModelProto
    conversion: Conversion
    layers: Mapping[str, str]


@dataclass(frozen=True)
class Candidate(Lowered):
    """The same with heads. judged: the graph in lower precision as it is run for the proof."""

    judged: onnx.ModelProto


def limits_of(precision: Precision) -> Limits:
    """How far a file in this precision may be from torch."""
    if precision == "fp32":
        return EXACT
    psnr, step = BOUNDS[precision]
    return Limits(max_abs=math.inf, step=step, share=1.0, psnr=psnr)


def lower(
    source: Source, model: onnx.ModelProto, precision: Precision, layers: Mapping[str, str]
) -> Lowered | None:
    """Convert a graph without heads in place; None for "fp32"."""
    if precision == "fp32":
        return None
    reference = onnx.ModelProto()
    reference.CopyFrom(model)
    if precision == "int8":
        conversion = to_int8(model, calibration(source))
    else:
        conversion = to_half(model, precision)
    if conversion.kept:
        logger.info("Kept in float32, beyond float16's range: %s", ", ".join(conversion.kept))
    return Lowered(precision, reference, conversion, layers)


def prove_fidelity(
    source: Source,
    signature: Signature,
    lowered: Lowered,
    model: onnx.ModelProto,
    max_batch: int,
    samples: int,
) -> Fidelity:
    """The float32 graph against torch by the limits of any export, then `model` against it; both have their heads.

    Raises `ParityError`.
    """
    graph = lowered.reference
    probe = to_bytes(with_float_outputs(graph, source.signature))
    measure_parity(source, signature, to_bytes(graph), probe, max_batch)
    candidate = Candidate(
        lowered.precision,
        graph,
        lowered.conversion,
        lowered.layers,
        judged=model if lowered.precision == "int8" else barred(model),
    )
    return measure_fidelity(source, signature, candidate, samples)


def calibration(source: Source) -> Iterator[dict[str, Array]]:
    """Inputs of the graph as traced, in batches."""
    sizes, step = source.signature.example_sizes, _batch(source.signature)
    for start in range(0, CALIBRATION, step):
        yield draw_inputs(source.signature.inputs, step, CALIBRATION_START + start, sizes)


def _batch(signature: Signature) -> int:
    return max(1, min(BATCH, BATCH_VALUES // max(signature.example_values, 1)))


class Tally:
    """One output's comparison, gathered batch by batch."""

    def __init__(self, field: Field, against: str, precision: str) -> None:
        self.field, self.against = field, against
        self.least, self.most = BOUNDS[precision]
        self.psnr: list[float] = []
        self.steps: list[int] = []
        self.differing = self.bytes = 0
        self.low, self.high = math.inf, -math.inf  # of all values so far

    def add(self, given: Array, wanted: Array) -> None:
        """Float values before the head, all finite, of samples [N, ...]."""
        a, b = given.astype(np.float64), wanted.astype(np.float64)
        low, high = self.field.range or (-1.0, 1.0)
        if self.field.kind == "image":
            a, b = np.clip(a, -1, 1), np.clip(b, -1, 1)
            steps = np.abs(quantize(a).astype(np.int16) - quantize(b).astype(np.int16))
            self.differing += int((steps > 0).sum())
            self.bytes += steps.size
            span = 2.0
        else:
            steps = np.ceil(np.abs(a - b) * 255 / (high - low))
            self.low, self.high = min(self.low, float(b.min())), max(self.high, float(b.max()))
            span = max(self.high - self.low, 1e-12)
        self.steps += [int(step) for step in steps.reshape(len(a), -1).max(1)]
        for mse in np.square(a - b).reshape(len(a), -1).mean(1):
            equal = mse <= span**2 * 10 ** (-MAX_PSNR / 10)
            self.psnr.append(MAX_PSNR if equal else 10 * math.log10(span**2 / mse))

    def beyond(self) -> int | None:
        """The first sample beyond the bound. That of steps is for images alone."""
        for i, (psnr, step) in enumerate(zip(self.psnr, self.steps, strict=True)):
            if psnr < self.least or (self.field.kind == "image" and step > self.most):
                return i
        return None

    def row(self) -> FidelityRow:
        worst, mean = min(self.psnr), float(np.mean(self.psnr))
        share = self.differing / self.bytes if self.bytes else None
        return FidelityRow(
            self.field.name, self.against, len(self.psnr), worst, mean, max(self.steps), share
        )


def measure_fidelity(
    source: Source, signature: Signature, candidate: Candidate, samples: int
) -> Fidelity:
    """Compare the two graphs on `samples` samples of the latent stream, and the first of them with torch.

    Raises `ParityError`, with the layer to blame, at the first sample that is not finite or beyond the bound.
    """
    judged, reference = (
        Session(to_bytes(with_float_outputs(model, source.signature)), device="cpu", example={})
        for model in (candidate.judged, candidate.reference)
    )
    fields = source.signature.outputs  # as they are before the heads
    names = [f"{field.name}{FLOAT_SUFFIX}" for field in fields]
    kind = candidate.precision
    tallies = [(Tally(f, "the float32 file", kind), Tally(f, "torch", kind)) for f in fields]
    begun = told = time.monotonic()
    step = _batch(signature)
    for start in range(0, samples, step):
        count = min(step, samples - start)
        inputs = file_inputs(source, signature, count, signature.example_sizes, start)
        given, wanted = judged.run(inputs, names), reference.run(inputs, names)
        tensors = source.inputs(count, start)
        truth = [x.numpy() for x in source.run(tensors)] if start < TORCH_SAMPLES else wanted
        for (file, torch), x, y, z in zip(tallies, given, wanted, truth, strict=True):
            finite = np.isfinite(x).reshape(count, -1).all(1)
            bad = None if finite.all() else start + int(finite.argmin())
            if bad is None:
                file.add(x, y)
                bad = file.beyond()
            if bad is not None:
                one = {name: array[bad - start : bad - start + 1] for name, array in inputs.items()}
                raise fault(candidate, file, bad, one)
            if start < TORCH_SAMPLES:
                torch.add(x, z)
        if time.monotonic() - told > EVERY:
            told = time.monotonic()
            left = (told - begun) / (start + count) * (samples - start - count)
            logger.info(
                "%d of %d samples compared, %.0f s left; --samples N compares fewer",
                start + count,
                samples,
                left,
            )
    rows = tuple(tally.row() for pair in tallies for tally in pair)
    done = candidate.conversion
    return Fidelity(
        candidate.precision,
        rows,
        *BOUNDS[candidate.precision],
        done.lower_nodes,
        done.float_nodes,
        done.casts,
        tuple(done.kept),
    )


def fault(candidate: Candidate, tally: Tally, sample: int, inputs: dict[str, Array]) -> ParityError:
    """The error that names the sample, how far off it is, and the layer to blame. inputs: of that sample."""
    seen = f"Sample {sample} holds NaN or infinity"
    if sample < len(tally.psnr):
        seen = f"Sample {sample} has {tally.psnr[sample]:.1f} dB, limit {tally.least:g}"
        if tally.field.kind == "image":
            seen += f"; its largest step is {tally.steps[sample]} of 255, limit {tally.most}"
    return ParityError(
        f"In {candidate.precision} output {tally.field.name} is too far from float32",
        seen=f"{seen}. {blame(candidate, inputs)}",
        repair=f"Export it with --precision {BETTER[candidate.precision]}",
    )


def blame(candidate: Candidate, inputs: dict[str, Array]) -> str:
    """The layer whose values on one sample are the first not to be finite, or whose error grows the most."""
    nodes = _before_heads(candidate.reference)
    stored = {name for node in candidate.judged.graph.node for name in node.output}
    ours = {
        name: next(name + suffix for suffix in SUFFIXES if name + suffix in stored)
        for node in nodes
        for name in node.output
        if any(name + suffix in stored for suffix in SUFFIXES)
    }
    judged = _values(candidate.judged, inputs, list(ours.values()))
    truth = _values(candidate.reference, inputs, list(ours))
    errors: dict[str, float] = {}
    worst, growth = nodes[-1], 0.0
    for node in nodes:
        for name in (x for x in node.output if x in ours and truth[x].dtype.kind == "f"):
            given, wanted = judged[ours[name]], truth[name]
            if not np.isfinite(given).all() and np.isfinite(wanted).all():
                largest = float(np.abs(wanted).max())
                where = layer_name(candidate, node)
                return f"{where} is the first to hold them; in float32 its largest value is {largest:.4g}"
            errors[name] = relative_error(given, wanted)
            before = max([FLOOR, *(errors[x] for x in node.input if x in errors)])
            if errors[name] / before > growth:
                worst, growth = node, errors[name] / before
    error = max([errors[name] for name in worst.output if name in errors], default=0.0)
    return f"The error grows most in {layer_name(candidate, worst)}: {growth:.2g} times, to {100 * error:.2g} % of its values"


def layer_name(candidate: Candidate, node: onnx.NodeProto) -> str:
    """The torch module that a node was traced from, else that of its weights, else the node's own name."""
    graph = candidate.reference.graph
    weights = {tensor.name for tensor in graph.initializer}
    paths = [candidate.layers.get(name, "") for name in node.output]
    paths += [name.rpartition(".")[0] for name in node.input if name in weights]
    path = next((path for path in paths if path), "")
    return f"{path} ({node.op_type})" if path else f"{node.name or node.output[0]} ({node.op_type})"


def relative_error(given: Array, wanted: Array) -> float:
    """Root mean square error as a share of the values' own."""
    if not wanted.size or not np.isfinite(wanted).all():
        return 0.0
    error = given.astype(np.float64) - wanted.astype(np.float64)
    size = math.sqrt(np.square(wanted.astype(np.float64)).mean())
    return math.sqrt(np.square(error).mean()) / max(size, 1e-12)


def _before_heads(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes up to the last one that makes a float output."""
    nodes = list(model.graph.node)
    last = max(
        i for i, node in enumerate(nodes) if any(x.endswith(FLOAT_SUFFIX) for x in node.output)
    )
    return nodes[: last + 1]


def _values(
    model: onnx.ModelProto, inputs: dict[str, Array], names: Sequence[str]
) -> dict[str, Array]:
    """What these values of the graph are for the given inputs."""
    names = list(dict.fromkeys(names))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    arrays = Session(to_bytes(copy), device="cpu", example={}).run(inputs, names)
    return dict(zip(names, arrays, strict=True))
