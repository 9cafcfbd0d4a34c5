"""From process start to the first image on disk, peak memory and installed size: the runtime against torch.

Both make the same image of the same network: the runtime from the ONNX file, torch from the checkpoint. Runs are
interleaved; medians are printed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gan.export import export
from gan.trainer import Request, train

RUNTIME = """
from gan.runtime import Generator
from gan.runtime.images import save
save(Generator({model!r}, device="cpu").sample(1, seed=0)[0], {image!r})
"""
TORCH = """
import torch
from PIL import Image
from gan.runtime.inputs import draw_field
from gan.trainer.checkpoint import Checkpoint
checkpoint = Checkpoint.load({checkpoint!r})
system = checkpoint.system()
graph = next(iter(system.graphs().values()))
network = graph.build(checkpoint.averaged_networks(system))
inputs = [torch.from_numpy(draw_field(field, 0, range(1))) for field in graph.inputs]
with torch.no_grad():
    x = network(*inputs)
pixels = (x * 127.5 + 127.5).clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)[0].numpy()
Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save({image!r})
"""


# The peak of the process's own memory: what wait4 tells counts the parent's before the exec, too.
PEAK = """
from pathlib import Path
print(next(l.split()[1] for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l))
"""


def measure(code: str) -> tuple[float, float]:
    """Seconds and peak megabytes of a fresh process that runs `code`."""
    begin = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", code + PEAK], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - begin, int(process.stdout) / 1024


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
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        train(Request(given={"steps": 1}, out=out, threads=1))
        export(out / "model.pt", out / "model.onnx")
        names = {
            "model": str(out / "model.onnx"),
            "checkpoint": str(out / "model.pt"),
            "image": str(out / "image.png"),
        }
        codes = {"runtime": RUNTIME.format(**names), "torch": TORCH.format(**names)}
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in codes}
        for _ in range(runs + 1):  # the first is a warm-up
            for name, code in codes.items():
                results[name].append(measure(code))
    medians = {
        name: [statistics.median(column) for column in zip(*rows[1:], strict=True)]
        for name, rows in results.items()
    }
    sizes = {
        "runtime": installed_megabytes("numpy", "pillow", "onnxruntime"),
        "torch": installed_megabytes("numpy", "pillow", "torch"),
    }
    print(f"{'':38}{'runtime':>10}{'torch':>10}{'ratio':>8}")
    rows = [
        ("start to first image on disk, s", medians["runtime"][0], medians["torch"][0]),
        ("peak memory, MB", medians["runtime"][1], medians["torch"][1]),
        ("installed size, MB", sizes["runtime"], sizes["torch"]),
    ]
    for name, ours, theirs in rows:
        print(f"{name:38}{ours:10.2f}{theirs:10.2f}{theirs / ours:8.1f}")
    print(f"median of {runs} interleaved runs; torch {importlib.metadata.version('torch')}, "
          f"onnxruntime {importlib.metadata.version('onnxruntime')}")  # fmt: skip


if __name__ == "__main__":
    main()
