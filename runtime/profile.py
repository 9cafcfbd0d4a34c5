"""Where a graph's time goes: each node as onnxruntime runs it, after its own optimisation. Prints nothing."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bench import example_inputs, settle
from .errors import InputError
from .generator import Generator
from .model_file import ModelFile
from .session import Session

WARM_UP, RUNS, SECONDS = 2, 5, 5.0  # at most so many runs, and so long
SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class Node:
    """One node. shape: of its first output. microseconds: of a run; on CUDA until it is launched, not done."""

    name: str
    operator: str
    shape: tuple[int, ...]
    provider: str
    microseconds: float
    share: float


@dataclass(frozen=True)
class Operator:
    """All nodes of one kind on one provider."""

    name: str
    provider: str
    count: int
    microseconds: float
    share: float


@dataclass(frozen=True)
class Profile:
    """A graph's nodes in the order in which they run; medians of `runs` runs of `batch` samples."""

    batch: int
    runs: int
    device: str
    threads: int
    microseconds: float  # of a whole run
    nodes: tuple[Node, ...]

    @property
    def operators(self) -> list[Operator]:
        """The kinds of nodes, those that take longest first."""
        kinds: dict[tuple[str, str], list[Node]] = defaultdict(list)
        for node in self.nodes:
            kinds[node.operator, node.provider].append(node)
        found = [
            Operator(
                name,
                provider,
                len(nodes),
                sum(node.microseconds for node in nodes),
                sum(node.share for node in nodes),
            )
            for (name, provider), nodes in kinds.items()
        ]
        return sorted(found, key=lambda one: -one.microseconds)

    @property
    def slowest(self) -> list[Node]:
        """The nodes, those that take longest first."""
        return sorted(self.nodes, key=lambda node: -node.microseconds)


def profile(path: Path, *, device: str = "auto", threads: int | None = None) -> Profile:
    """Run the model's graph at the runtime's own options and micro-batch, and read onnxruntime's notes of it.

    Raises as `Generator` does.
    """
    model = ModelFile.read(path)
    batch = settle(Generator(path, device=device, threads=threads))
    with tempfile.TemporaryDirectory(prefix="gan-profile-") as folder:
        session = Session(
            model.data,
            device=device,
            threads=threads,
            example=example_inputs(model, 1),
            profile=Path(folder),
        )
        inputs = example_inputs(model, batch)
        for _ in range(WARM_UP):
            session.run(inputs)
        begin, runs = time.monotonic(), 0
        while runs < RUNS and (not runs or time.monotonic() - begin < SECONDS):
            session.run(inputs)
            runs += 1
        events = read_notes(Path(session.native.end_profiling()))
    whole, nodes = read_events(events, runs)
    return Profile(batch, runs, session.device, session.threads, whole, nodes)


def read_notes(path: Path) -> list[Mapping[str, Any]]:
    """What onnxruntime noted; it says nothing of a disk that is full."""
    try:
        events: list[Mapping[str, Any]] = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            "The model was not profiled",
            seen=f"onnxruntime's notes are cut short: {path.stat().st_size} bytes",
            repair="Free space for temporary files, or set TMPDIR to a folder with more",
        ) from error
    return events


def read_events(events: Iterable[Mapping[str, Any]], last: int) -> tuple[float, tuple[Node, ...]]:
    """Microseconds of a whole run, and its nodes: medians over the last runs of onnxruntime's notes."""
    runs = list(_runs(events))[-last:]
    times: dict[str, list[float]] = defaultdict(list)
    told: dict[str, Mapping[str, Any]] = {}
    for _, nodes in runs:
        for name, node in nodes.items():
            times[name].append(node["dur"])
            told[name] = node["args"]
    medians = {name: statistics.median(several) for name, several in times.items()}
    total = sum(medians.values()) or 1.0
    return statistics.median(seconds for seconds, _ in runs), tuple(
        Node(
            name,
            args["op_name"],
            _shape(args),
            args["provider"].removesuffix("ExecutionProvider"),
            medians[name],
            medians[name] / total,
        )
        for name, args in told.items()
    )


def _runs(
    events: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[float, dict[str, Mapping[str, Any]]]]:
    """Each run: its microseconds, and its nodes' events by name. A run is noted after its nodes."""
    nodes: dict[str, Mapping[str, Any]] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(SUFFIX):
            nodes[name.removesuffix(SUFFIX)] = event
        elif name == "model_run":
            yield event["dur"], nodes
            nodes = {}


def _shape(args: Mapping[str, Any]) -> tuple[int, ...]:
    first: Mapping[str, list[int]] = next(iter(args.get("output_type_shape") or ()), {})
    return tuple(next(iter(first.values()), ()))
