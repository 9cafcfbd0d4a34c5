"""Contradictory settings, found before a run begins: each check names the settings and the way out.

The networks are looked at on the meta device, so that a user's own are held to the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from torch import nn

from ..runtime.errors import InputError
from .augment import POLICIES
from .layers import MinibatchDeviation
from .losses import LOSSES
from .options import MOST, Options, ranges
from .system import System, build_on_meta, parameter_count

COPIES = 5  # of a weight: itself, its gradient, two moments and the average
OF_MOVES = ("batch_size", "unroll")
FLOATS = 3  # of a batch at least: reals, fakes, a gradient
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def check(system: System, *, mirror: bool = False) -> None:
    """Raise `InputError` for the first contradiction of a system's options, networks and data."""
    for failed, seen, repair in chain(
        _alone(system, mirror), _in_memory(system), _in_networks(system)
    ):
        raise InputError(failed, seen=seen, repair=repair)


def _alone(system: System, mirror: bool) -> Iterator[tuple[str, str, str]]:
    """Contradictions of options among themselves, and with the kind of data."""
    o, loss = system.options, LOSSES[system.options.loss]
    if o.label_smoothing and loss.smooth is None:
        able = ", ".join(name for name, other in LOSSES.items() if other.smooth)
        yield f"Label smoothing means nothing to {o.loss}", "a loss without targets", f"Use {able}"
    if o.skip_d_below and loss.distance:
        yield (
            f"skip_d_below cannot be used with {o.loss}",
            "A critic's loss has no value at which it is too good",
            "Leave skip_d_below out, or choose another loss",
        )
    if o.fakes == "reused" and o.accumulate > 1:
        yield (
            "Reused fakes and an accumulated batch exclude each other",
            "Keeping the fakes of all parts would need the memory that accumulation saves",
            "Leave one of fakes=reused and accumulate out",
        )
    if o.unroll and o.accumulate > 1:
        yield (
            "Unrolling and an accumulated batch exclude each other",
            "D would be unrolled on a part of the batch",
            "Leave one of unroll and accumulate out",
        )
    if o.batch_size % o.accumulate:
        yield (
            "The batch cannot be computed in equal parts",
            f"{o.batch_size} samples in {o.accumulate} parts",
            "Choose a batch size that is a multiple of accumulate",
        )
    unknown = [p for p in o.diffaugment.split(",") if p not in POLICIES and o.diffaugment]
    if unknown:
        known = ", ".join(POLICIES)
        yield "The setting diffaugment was refused", f"{unknown[0]!r:.40}", f"Give any of {known}"
    if system.data.kind != "image":
        given = {"diffaugment": o.diffaugment, "ada": o.ada, "ada_target": o.ada_target}
        for name, value in {**given, "mirror": mirror}.items():
            if value:
                yield f"{name} is for images", f"data of {system.data.kind}", f"Leave {name} out"


def _in_memory(system: System) -> Iterator[tuple[str, str, str]]:
    """Sizes that this machine could not hold, found before anything is made of them."""
    o, most = system.options, memory()
    sample = max(math.prod(system.data.shape), o.latent)
    batch = 4 * FLOATS * sample * (o.batch_size // o.accumulate)
    if batch > most:
        yield (
            "The batch would not fit in memory",
            f"{o.batch_size} samples of {sample} numbers need {_gigabytes(batch)} of {_gigabytes(most)}",
            "Choose a smaller batch-size, or a larger accumulate",
        )
    if not _grown(o, system.preset(system.data)):
        return  # the first use of the meta device costs a second
    try:
        weights = 4 * COPIES * sum(map(parameter_count, build_on_meta(system).values()))
    except (RuntimeError, OverflowError, TypeError):  # more numbers than torch can count
        weights = sys.maxsize
    if weights > most:
        yield (
            "The networks would not fit in memory",
            f"Their weights and what is learnt with need {_gigabytes(weights)} of {_gigabytes(most)}",
            "Choose smaller sizes with --set, such as width; `gan systems NAME` lists the usual ones",
        )


def _grown(options: Options, preset: Options) -> bool:
    """Whether a size of networks is several times what is usual, or is a list of its own. Sizes are what has a bound."""
    chosen, usual, known = (
        dataclasses.asdict(options),
        dataclasses.asdict(preset),
        ranges(options),
    )
    sizes = [n for n, i in known.items() if (i.below or i.high) < MOST and n not in OF_MOVES]
    return any(
        (name in sizes and value > 4 * max(usual[name], 1))
        or (isinstance(value, str) and value != usual[name] and any(map(str.isdigit, value)))
        for name, value in chosen.items()
    )


def memory() -> int:
    """Bytes that this process may use: those of the machine, bounded by the cgroup."""
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _in_networks(system: System) -> Iterator[tuple[str, str, str]]:
    """Contradictions of options with what the networks are."""
    o = system.options
    latent = [f for graph in system.graphs().values() for f in graph.inputs if f.kind == "latent"]
    if o.latents == "uniform" and any(f.draw is None or f.draw.kind != "uniform" for f in latent):
        yield (
            f"{system.name} draws its latents in its own way",
            "latents=uniform, but graphs() says otherwise",
            "Leave latents out, or use self.latent_field() in graphs()",
        )
    unrolls = any(player.unroll for player in system.players().values())
    if not (o.gp or unrolls or o.minibatch_deviation):
        return  # the first use of the meta device costs seconds
    networks = build_on_meta(system)
    layers = [m for name in system.discriminators() for m in networks[name].modules()]
    normed = any(isinstance(layer, BATCH_NORMS) for layer in layers)
    without = "Leave it out, or take batch norm out of D (d_norm=none, where the system has it)"
    if normed and o.gp:
        yield (
            "A gradient penalty cannot be used with batch norm in the critic",
            "gp with a batch norm in D: it couples the samples whose gradients are penalised",
            without,
        )
    if normed and unrolls:
        yield (
            "A discriminator with batch norm cannot be unrolled",
            "unroll with a batch norm in D: its running statistics would move in moves never made",
            without,
        )
    if o.minibatch_deviation and not any(isinstance(m, MinibatchDeviation) for m in layers):
        yield (
            f"{system.name} has no place for minibatch deviation",
            "no MinibatchDeviation in its discriminator",
            "Leave it out, or put gan.trainer.layers.MinibatchDeviation() before D's last layer",
        )
