"""Gate steps 1 and 2: the pure torch function of a checkpoint's graph, and the proof that samples are isolated."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..runtime.errors import ExportError, InputError
from ..runtime.images import dequantize, quantize
from ..runtime.inputs import Array, stand_in
from ..runtime.signature import Field, Signature, split_axis
from ..trainer import systems
from ..trainer.checkpoint import Checkpoint
from ..trainer.systems import SystemSource

ISOLATION_BATCH, ISOLATION_LIMIT = 8, 1e-5
SIZES = ((0,), (1, 3), (6, 2))  # steps above the smallest that dynamic axes can have, in turn
SEED = 1  # of the latents by which torch and onnxruntime are compared


@dataclass(frozen=True)
class Source:
    """A graph of a checkpoint as torch has it: float outputs, before any head."""

    checkpoint: Checkpoint
    system: SystemSource  # as it is now: with an accepted change it is not the checkpoint's
    graph: str
    signature: Signature
    module: nn.Module

    def inputs(
        self, batch: int, start: int = 0, sizes: Mapping[str, int] | None = None
    ) -> list[Tensor]:
        sizes = self.signature.example_sizes if sizes is None else sizes
        drawn = draw_inputs(self.signature.inputs, batch, start, sizes)
        return [torch.from_numpy(x) for x in drawn.values()]

    @torch.no_grad()
    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        outputs = self.module(*inputs)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def load_source(
    checkpoint: Checkpoint,
    *,
    graph: str | None,
    system_file: str | None,
    accept_changed: bool = False,
) -> Source:
    """Averaged weights, deep copy, eval(), frozen, parametrisations removed (gate step 1)."""
    system = checkpoint.system(file=system_file, accept_changed=accept_changed)
    recorded = checkpoint.config.system
    found = systems.load(system_file)[1] if recorded.file and system_file else recorded
    graphs = system.graphs()
    name = next(iter(graphs)) if graph is None else graph
    if name not in graphs:
        raise InputError(
            "There is no such graph",
            seen=f"{name!r:.60}",
            repair=f"Choose one of {', '.join(graphs)}",
        )
    module = copy.deepcopy(graphs[name].build(checkpoint.averaged_networks(system)))
    module.eval().requires_grad_(False)
    remove_parametrizations(module)
    return Source(checkpoint, found, name, graphs[name].signature, module)


def graph_names(
    checkpoint: Checkpoint, *, system_file: str | None, accept_changed: bool = False
) -> list[str]:
    """The graphs of a checkpoint's system, the main one first."""
    return list(checkpoint.system(file=system_file, accept_changed=accept_changed).graphs())


def remove_parametrizations(module: nn.Module) -> None:
    """Bake spectral norm, weight norm and their like into plain weights."""
    for part in module.modules():
        if parametrize.is_parametrized(part):
            for name in list(cast(nn.ModuleDict, part.parametrizations)):
                parametrize.remove_parametrizations(part, name, leave_parametrized=True)


def check_isolation(source: Source) -> None:
    """Raise `ExportError` unless G(z)[i] equals G(z[i:i+1]) within 1e-5 of the output's range (gate step 2).

    Where float32 is beyond that, float64 decides: a network that magnifies rounding is no fault.
    """
    inputs = source.inputs(ISOLATION_BATCH)
    whole = _run(source, inputs, ISOLATION_BATCH)
    again = _run(source, inputs, ISOLATION_BATCH)
    for field, a, b in zip(source.signature.outputs, whole, again, strict=True):
        if not torch.equal(a, b):
            raise ExportError(
                f"The generator draws random numbers of its own (output {field.name})",
                seen="The same input gave two different outputs in eval mode: randn or dropout in forward",
                repair="Make every random number a named input with a draw, and leave dropout to train mode",
            )
    worst, where = _coupling(source, inputs, whole)
    if worst > ISOLATION_LIMIT and _coupled_in_double(source, inputs):
        raise ExportError(
            "A sample depends on the other samples of its batch",
            seen=f"Output {where} alone and in a batch of {ISOLATION_BATCH} differ by {worst:.2g} of the range",
            repair="Look for batch statistics (batch norm in train mode, minibatch deviation) "
            "and for branches on the batch size",
        )


def other_sizes(signature: Signature) -> list[dict[str, int]]:
    """Sizes of the dynamic axes beside the example's, the smallest that the signature allows first."""
    return [
        {name: signature.least + step for name, step in zip(signature.factors, itertools.cycle(steps))}
        for steps in (SIZES if signature.factors else ())
    ]  # fmt: skip


def check_sizes(source: Source) -> None:
    """Raise `ExportError` unless the generator takes images of any size that its signature allows."""
    for sizes in other_sizes(source.signature):
        inputs = source.inputs(1, sizes=sizes)
        try:
            outputs = source.run(inputs)
        except Exception as error:
            raise ExportError(
                "The generator fails on images of another size",
                seen=f"{' x '.join(map(str, inputs[0].shape[2:]))} pixels: {type(error).__name__}: "
                f"{' '.join(str(error).split()):.200}",
                repair="Look for buffers and linear layers of a fixed size in forward(), or raise least in graphs()",
            ) from error
        for field, output in zip(source.signature.outputs, outputs, strict=True):
            _check_shape(field, output[0], output[0], sizes)


def _coupling(
    source: Source, inputs: Sequence[Tensor], whole: Sequence[Tensor]
) -> tuple[float, str]:
    """The largest difference of a sample alone and within its batch, as a share of the range, and in which output."""
    worst, where = 0.0, ""
    for i in range(ISOLATION_BATCH):
        alone = _run(source, [x[i : i + 1] for x in inputs], 1)
        for field, one, many in zip(source.signature.outputs, alone, whole, strict=True):
            _check_shape(field, one[0], many[i], source.signature.example_sizes)
            low, high = field.range or (-1.0, 1.0)
            share = (one[0].double() - many[i].double()).abs().max().item() / (high - low)
            if share >= worst:
                worst, where = share, field.name
    return worst, where


def _coupled_in_double(source: Source, inputs: Sequence[Tensor]) -> bool:
    """Whether the difference stays in float64, where rounding has no part in it. A graph that has no float64 stays
    judged by float32."""
    try:
        double = dataclasses.replace(source, module=copy.deepcopy(source.module).double())
        inputs = [x.double() if x.is_floating_point() else x for x in inputs]
        return _coupling(double, inputs, double.run(inputs))[0] > ISOLATION_LIMIT
    except (RuntimeError, ExportError):
        return True


def _check_shape(field: Field, alone: Tensor, within: Tensor, sizes: Mapping[str, int]) -> None:
    if alone.shape != within.shape or tuple(alone.shape) != field.shape_at(sizes):
        raise ExportError(
            f"Output {field.name} has another shape than its signature says",
            seen=f"{list(alone.shape)} alone, {list(within.shape)} within a batch, signature {list(field.shape)}",
            repair="Mend the field's shape in the system's graphs()",
        )


def _run(source: Source, inputs: Sequence[Tensor], batch: int) -> list[Tensor]:
    try:
        outputs = source.run(inputs)
    except Exception as error:
        raise ExportError(
            f"The generator fails on a batch of {batch}",
            seen=f"{type(error).__name__}: {' '.join(str(error).split()):.200}",
            repair="Look for buffers and reshapes with a fixed batch size",
        ) from error
    if len(outputs) != len(source.signature.outputs):
        raise ExportError(
            "The generator gives another number of outputs than its signature says",
            seen=f"{len(outputs)}, not {len(source.signature.outputs)}",
            repair="Mend the outputs in the system's graphs()",
        )
    for field, output in zip(source.signature.outputs, outputs, strict=True):
        if not torch.isfinite(output).all():
            raise ExportError(
                f"Output {field.name} is not finite",
                seen="NaN or infinity in torch already",
                repair="Train on from an older checkpoint, such as best.pt",
            )
    return outputs


def check_radius(source: Source) -> None:
    """Raise `ExportError` unless places further away than the signature's radius have no part in an output, along
    either axis, on either side."""
    radius = source.signature.radius
    if radius is None:
        return
    shape = next(f.shape for f in source.signature.inputs if f.kind in ("image", "mask"))
    for place in (1, 2):  # of the axis within an image's shape
        axis = shape[place]
        if not isinstance(axis, str):  # there are no tiles along it
            continue
        factor, name = split_axis(axis)
        for offset in {0, 1 % factor, factor - 1}:  # within what is one place at the smallest size
            for first in (True, False):
                _check_reach(source, radius, place, factor, name, offset, first=first)


def _check_reach(
    source: Source, radius: int, place: int, factor: int, name: str, offset: int, *, first: bool
) -> None:
    """Keep one half along an axis, the first or the last, and `offset` pixels more, and change the rest: places further
    than the radius from the rest must not notice."""
    near = -(-radius // factor) + 2  # of each half, in units of the axis
    sizes = {other: source.signature.least + 1 for other in source.signature.factors}
    sizes |= {name: 2 * max(near, source.signature.least)}
    one, other = source.inputs(1, 0, sizes), source.inputs(1, 1, sizes)
    for x, y in zip(one, other, strict=True):
        if x.ndim == 4:
            kept = x.shape[place + 1] // 2 + offset
            start = 0 if first else x.shape[place + 1] - kept
            y.narrow(place + 1, start, kept).copy_(x.narrow(place + 1, start, kept))
        else:
            y.copy_(x)
    outputs = zip(source.signature.outputs, source.run(one), source.run(other), strict=True)
    for field, a, b in outputs:
        scale = split_axis(str(field.shape[place]))[0] / factor
        safe = math.floor((sizes[name] // 2 * factor + offset - radius) * scale)
        start = 0 if first else a.shape[place + 1] - safe
        same = [x.narrow(place + 1, start, safe).double() for x in (a, b)]
        low, high = field.range or (-1.0, 1.0)
        if not (same[0] - same[1]).abs().max() <= ISOLATION_LIMIT * (high - low):
            raise ExportError(
                f"Output {field.name} depends on places outside the radius that its signature states",
                seen=f"A radius of {radius} pixels",
                repair="Mend radius in the system's graphs(); None where norms read the whole image",
            )


def draw_inputs(
    fields: Sequence[Field],
    batch: int,
    start: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, Array]:
    """Inputs `start` to `start + batch - 1` of the comparison's seed, by the latent stream.

    Those that all images share are drawn for each, those that the caller brings have stand-ins, and those that are
    fixed have other values too, up to the middle of their range, so that no path through the graph goes unseen.
    Images have the values that bytes can give them, masks 0 and 1.
    sizes: of the dynamic axes.
    """
    indices = range(start, start + batch)
    inputs = {}
    for place, field in enumerate(fields):
        values = stand_in(field, place, SEED, indices, sizes, each=True)
        if field.draw is not None and field.draw.kind == "fixed" and field.range is not None:
            there = stand_in(
                dataclasses.replace(field, draw=None, range=(0, 1)), place, SEED, indices, sizes
            )
            middle = (field.range[0] + field.range[1]) / 2
            values = (values + there * (middle - values)).astype(field.dtype)
        if field.dtype == "float32" and field.kind == "image":
            values = dequantize(quantize(values))
        elif field.dtype == "float32" and field.kind == "mask":
            values = (values > 0.5).astype(np.float32)
        inputs[field.name] = values
    return inputs
