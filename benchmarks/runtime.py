"""The exported file through the runtime against what a user would do instead, network by network, in one run.

Ours, onnxruntime's bare run of the same session, a plain session, torch eager in both memory formats, torch.compile:
images a second, medians of rounds in which all take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch

from gan.export import export
from gan.export.rivals import load_rivals
from gan.runtime import Generator
from gan.runtime.measure import BARE, OURS, Speed, bare, compare, machine, ours, plain
from gan.runtime.model_file import ModelFile
from gan.trainer import systems
from gan.trainer.checkpoint import plain_state, save
from gan.trainer.config import Plain, make_config, make_options
from gan.trainer.parts import DataInfo


class Network(NamedTuple):
    """A generator of a published size, untrained. resolution: in pixels."""

    system: str
    resolution: int
    given: Mapping[str, Plain] = MappingProxyType({})


NETWORKS = {
    "dcgan64": Network("dcgan", 64, {"width": 64}),
    "dcgan128": Network("dcgan", 64, {"width": 128}),
    "r3gan": Network("r3gan", 64),
    "stylegan2-64": Network("stylegan2", 64),
    "stylegan2-256": Network("stylegan2", 256),
}


def write_checkpoint(network: Network, path: Path) -> None:
    """A checkpoint that was never trained; what is 0 at first, as strengths of noise, has values all the same."""
    kind, source = systems.load(network.system)
    data = DataInfo((3, network.resolution, network.resolution))
    config = make_config(kind, source, data, network.given, steps=1)
    system = kind(make_options(kind, data, network.given), data)
    torch.manual_seed(0)
    networks = system.build()
    with torch.no_grad():
        for parameter in (p for net in networks.values() for p in net.parameters()):
            if not parameter.any():
                parameter.normal_(0.0, 0.1)
    weights = {name: plain_state(net) for name, net in networks.items()}
    content = {
        "config": config.to_dict(),
        "data": {"name": "none", "count": 1, "digest": "", "info": dataclasses.asdict(data)},
        "signature": {name: graph.signature.to_json() for name, graph in system.graphs().items()},
        "networks": weights,
        "averaged": weights,
        "optimizers": {},
        "progress": {"step": 0, "position": 0, "images_seen": 0, "stage": -1, "planned": 1},
        "augmentations": {},
        "health": {},
        "metrics": {"values": {}, "best": {}},
        "threads": {"count": 1, "processes": 1},
    }
    save(path, content)


def measure(
    name: str, folder: Path, batches: Sequence[int], seconds: float, *, quick: bool
) -> None:
    """Export a network and print a row for each batch size."""
    begin = time.perf_counter()
    checkpoint, file = folder / f"{name}.pt", folder / f"{name}.onnx"
    write_checkpoint(NETWORKS[name], checkpoint)
    export(checkpoint, file, max_batch=8)
    print(f"{name}: exported in {time.perf_counter() - begin:.0f} s", flush=True)
    model, generator = ModelFile.read(file), Generator(file, device="cpu")
    threads = generator.session.threads
    rivals = load_rivals(checkpoint, model, compiled=not quick)
    for batch in batches:
        speeds = compare(
            [
                ours(generator, model, batch),
                bare(generator, model, batch),
                plain(model.data, model, batch, threads),
                *rivals.contenders(batch, threads),
            ],
            seconds=seconds,
        )
        print_row(name, batch, speeds)


def print_row(name: str, batch: int, speeds: dict[str, Speed]) -> None:
    others = [speed for other, speed in speeds.items() if other not in (OURS, BARE)]
    best = max(others, key=lambda speed: speed.images_per_second)
    cells = "".join(
        f"  {other} {speed.images_per_second:.1f} ({speeds[OURS].ratio(speed):.2f})"
        for other, speed in speeds.items()
    )
    print(f"{name} batch {batch}:{cells}  best other {speeds[OURS].ratio(best):.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--quick", action="store_true", help="2 s a cell, no torch.compile")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or NETWORKS:
            seconds = 2.0 if arguments.quick else 5.0
            measure(name, Path(folder), (1, 8, 64), seconds, quick=arguments.quick)


if __name__ == "__main__":
    main()
