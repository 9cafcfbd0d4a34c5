"""The file exported for CPUs through the runtime against what a user would do instead, network by network, in one run.

Untrained generators of published sizes: the speed is the same. Medians of rounds in which all take turns; torch with
one thread or with all, whichever is faster; a plain session runs the export without rewrites. For the first, also from process start to first image on disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import math
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch

from gan.export import export
from gan.export.rivals import COMPILED, EAGER, LAST, load_rivals
from gan.runtime.bench import BARE, BY_HAND, OURS, PLAIN, STREAM, Bench, Row, Subject, bench
from gan.runtime.measure import Fresh, machine, run_fresh
from gan.trainer import systems
from gan.trainer.checkpoint import plain_state, save
from gan.trainer.config import Plain, make_config, make_options
from gan.trainer.parts import DataInfo

SHORT_STREAM = 32  # images
IMPORTS = {
    "without": "import numpy, onnxruntime, PIL.Image",
    "with": "import numpy, onnxruntime, PIL.Image, gan.runtime",
}
COLUMNS = (OURS, BARE, PLAIN, EAGER, LAST, COMPILED)


class Network(NamedTuple):
    """A generator of a published size, untrained. resolution: in pixels. starts: fresh processes that are timed.
    large: seconds an image; the stream is short then, and its images are the largest batch too."""

    system: str
    resolution: int
    given: Mapping[str, Plain] = MappingProxyType({})
    starts: int = 0
    large: bool = False


NETWORKS = {
    "dcgan64": Network("dcgan", 64, {"width": 64}, starts=7),
    "dcgan128": Network("dcgan", 64, {"width": 128}),
    "r3gan": Network("r3gan", 64, large=True),
    "stylegan2-64": Network("stylegan2", 64),
    "stylegan2-256": Network("stylegan2", 256, large=True),
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
                fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
                parameter.normal_(0.0, 0.1 / math.sqrt(fan_in))
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


def run(name: str, folder: Path, *, quick: bool) -> Bench:
    """Export a network and measure it."""
    begin, network = time.perf_counter(), NETWORKS[name]
    checkpoint, file = folder / f"{name}.pt", folder / f"{name}.onnx"
    write_checkpoint(network, checkpoint)
    plain = folder / f"{name}.plain.onnx"
    export(checkpoint, file, max_batch=1, target="cpu")
    export(checkpoint, plain, max_batch=1, target=None)
    print(f"# {name}: exported in {time.perf_counter() - begin:.0f} s", flush=True)
    subject = Subject(file, device="cpu", plain=plain)
    found = bench(
        subject,
        batches=(1, 8) if network.large else (1, 8, 64),
        seconds=1.0 if quick else 3.0,
        stream=0 if quick else SHORT_STREAM if network.large else STREAM,
        rivals=load_rivals(
            checkpoint, subject.model, one_thread=not network.large, compiled=not quick
        ),
        starts=0 if quick else network.starts,
    )
    print(f"# {name}: measured in {time.perf_counter() - begin:.0f} s", flush=True)
    return found


def lines(name: str, found: Bench) -> list[str]:
    """A row for each batch: images a second, and ours over the best of the others."""
    made = []
    for batch, stream in dict.fromkeys((row.batch, row.stream) for row in found.rows):
        rows = [row for row in found.rows if (row.batch, row.stream) == (batch, stream)]
        best = found.best_other(batch, stream=stream)
        cells = "".join(cell(rows, column) for column in COLUMNS)
        made.append(
            f"{name:15}{f'stream of {batch:,}' if stream else batch:>16}{cells}"
            f"{best.ratio if best else 1:8.2f}"
        )
    return made


def cell(rows: list[Row], column: str) -> str:
    """The column's images a second, with one thread or all."""
    speeds = [row.images_per_second for row in rows if row.name.partition(",")[0] == column]
    return f"{max(speeds):19.1f}" if speeds else f"{'-':>19}"


def start_lines(starts: Mapping[str, Fresh]) -> list[str]:
    """Fresh processes, installed sizes, and what importing us adds."""
    sizes = {
        kind: installed_megabytes("numpy", "pillow", package)
        for kind, package in ((OURS, "onnxruntime"), (BY_HAND, "onnxruntime"), (EAGER, "torch"))
    }
    made = [f"{'dcgan64':31}{'':16}{OURS:>13}{BY_HAND:>13}{EAGER:>13}"]
    rows = {
        "start to first image on disk, s": [starts[kind].seconds for kind in sizes],
        "its peak memory, MiB": [starts[kind].mebibytes for kind in sizes],
        "installed size, MB": list(sizes.values()),
    }
    for what, values in rows.items():
        made.append(f"{what:47}{''.join(f'{value:13.2f}' for value in values)}")
    without, with_ours = (starts[kind].seconds for kind in IMPORTS)
    made.append(
        f"import gan.runtime after numpy, onnxruntime, Pillow: {1e3 * (with_ours - without):.0f} ms"
    )
    return made


def installed_megabytes(*roots: str) -> float:
    """Size of distributions and of all that they require."""
    waiting, seen, size = list(roots), set(), 0
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        files = [Path(str(distribution.locate_file(file))) for file in distribution.files or []]
        size += sum(file.stat().st_size for file in files if file.is_file())
        for requirement in distribution.requires or []:
            if "extra ==" not in requirement:
                waiting.append(re.split(r"[^A-Za-z0-9._-]", requirement)[0])
    return size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument(
        "--quick", action="store_true", help="a second a cell; no torch.compile, stream, start-up"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NETWORKS):
        parser.error(f"no such network: {', '.join(unknown)}")
    here, table, starts = machine(), list[str](), dict[str, Fresh]()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or NETWORKS:
            found = run(name, Path(folder), quick=arguments.quick)
            table += lines(name, found)
            starts |= found.fresh
            print("\n".join(lines(name, found)), flush=True)
        if starts:
            starts |= run_fresh(IMPORTS, repeats=15)
    print(
        f"\n{'images a second':15}{'batch':>16}{''.join(f'{c:>19}' for c in COLUMNS)}{'ratio':>8}"
    )
    print("\n".join(table))
    print("\n".join(start_lines(starts)) if starts else "")
    print(
        f"ratio: {OURS} over the best of the others. {here.cpu}, {here.cpus} CPUs, torch "
        f"{torch.__version__}, onnxruntime {here.onnxruntime}, Python {here.python}"
    )


if __name__ == "__main__":
    main()
