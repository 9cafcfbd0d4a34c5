"""On an NVIDIA GPU: plain onnxruntime, the runtime's CUDA engine and its options, and torch in a process of its own.

Unmeasured until a GPU has run it. Batches are timed from drawn inputs in host memory to uint8 images in host memory; the
stream also draws. All ways are open at once and take turns; medians are printed. The sampling process has no torch.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan.runtime import CudaOptions, DeviceUnavailableError, GanError, Generator
from gan.runtime.cuda import CUDA
from gan.runtime.doctor import relu_model
from gan.runtime.inputs import draw_field
from gan.runtime.session import Session, load_onnxruntime

BATCHES = (1, 8, 64)
STREAM = 1000
OPTIONS = {
    "engine": CudaOptions(),
    "engine, no graphs": CudaOptions(graphs=False),
    "engine, prefer_nhwc": CudaOptions(prefer_nhwc=True),
    "engine, tf32": CudaOptions(tf32=True),
    "engine, prefer_nhwc and tf32": CudaOptions(prefer_nhwc=True, tf32=True),
    "engine, search exhaustive": CudaOptions(search="exhaustive"),
    "engine, search default": CudaOptions(search="default"),
}
# Of the same checkpoint and in the same precision: float32 without TF32. argv: checkpoint, repeats.
TORCH = """
import json, sys, time, statistics
import torch
from gan.runtime.inputs import draw_field
from gan.trainer.checkpoint import Checkpoint
if not torch.cuda.is_available():
    sys.exit("torch has no CUDA here")
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
checkpoint = Checkpoint.load(sys.argv[1])
system = checkpoint.system()
graph = next(iter(system.graphs().values()))
network = graph.build(checkpoint.averaged_networks(system)).eval().cuda()
def images(*inputs):
    x = network(*inputs)
    return (x * 127.5 + 127.5).clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
ways = {"torch eager": images, "torch.compile, reduce-overhead": torch.compile(images, mode="reduce-overhead")}
given = {n: [torch.from_numpy(draw_field(f, 0, range(n))) for f in graph.inputs] for n in BATCHES}
times = {name: {n: [] for n in BATCHES} for name in ways}
with torch.inference_mode():
    for repeat in range(int(sys.argv[2]) + 1):
        for n in BATCHES:
            for name, way in ways.items():
                for _ in range(3):
                    begin = time.perf_counter()
                    way(*(x.cuda() for x in given[n])).cpu()
                    if repeat: times[name][n].append(time.perf_counter() - begin)
print(json.dumps({name: {n: statistics.median(t) for n, t in rows.items()} for name, rows in times.items()}))
"""


@dataclass(frozen=True)
class Way:
    """One way to sample a file. run: a drawn batch to images. stream: so many images from the start of a seed."""

    run: Callable[[Mapping[str, Any]], Any]
    stream: Callable[[int], None]
    verify: Callable[[], str]


@dataclass(frozen=True)
class Row:
    name: str
    seconds: dict[int, float]  # by batch size
    stream: float | None = None
    verified: str = ""


def of_generator(generator: Generator) -> Way:
    def stream(count: int) -> None:
        for _ in generator.stream(count, seed=0):
            pass

    def verify() -> str:
        try:
            return generator.verify()
        except GanError as error:
            return str(error)

    return Way(lambda inputs: generator.run(inputs, [generator.signature.main]), stream, verify)


def of_plain_session(path: Path, generator: Generator, providers: Sequence[Any]) -> Way:
    """What one would write by hand; the generator tells what to draw."""
    ort = load_onnxruntime()
    session = ort.InferenceSession(str(path), providers=list(providers), enable_fallback=0)
    name = generator.signature.main.name

    def run(inputs: Mapping[str, Any]) -> Any:
        return session.run([name], dict(inputs))

    def stream(count: int) -> None:
        for i in range(0, count, max(BATCHES)):
            run(drawn(generator, range(i, min(count, i + max(BATCHES)))))

    return Way(run, stream, lambda: "-")


def drawn(generator: Generator, indices: Sequence[int]) -> dict[str, Any]:
    return {field.name: draw_field(field, 0, indices) for field in generator.signature.inputs}


def measured(ways: Mapping[str, Way], generator: Generator, repeats: int, count: int) -> list[Row]:
    """Medians over the repeats, the ways in turn; the first repeat is a warm-up and also captures the graphs."""
    inputs = {n: drawn(generator, range(n)) for n in BATCHES}
    times: dict[str, dict[int, list[float]]] = {name: {n: [] for n in BATCHES} for name in ways}
    streams: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            for n in BATCHES:
                taken = [clocked(functools.partial(way.run, inputs[n])) for _ in range(3)]
                times[name][n] += taken if repeat else []
            taken = [clocked(functools.partial(way.stream, count))]
            streams[name] += taken if repeat else []
    return [
        Row(
            name,
            {n: statistics.median(taken) for n, taken in times[name].items()},
            statistics.median(streams[name]) / count,
            way.verify(),
        )
        for name, way in ways.items()
    ]


def clocked(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def table(rows: Sequence[Row], count: int) -> str:
    """Milliseconds of one image, and images a second."""
    head = [f"batch {n}" for n in BATCHES] + [f"stream of {count:,}"]
    lines = [f"{'images a second':34}{'ms at 1':>9}" + "".join(f"{text:>16}" for text in head)]
    for row in rows:
        rates = [n / seconds for n, seconds in row.seconds.items()]
        rates += [1 / row.stream] if row.stream else []
        figures = "".join(f"{rate:16,.0f}" for rate in rates) + ("" if row.stream else f"{'-':>16}")
        lines.append(f"{row.name:34}{1e3 * row.seconds[1]:9.2f}{figures}  {row.verified}".rstrip())
    return "\n".join(lines)


def ratios(rows: Sequence[Row]) -> str:
    """How the engine stands to each way of torch, in images a second; "" where torch was not measured."""
    engine = next(row for row in rows if row.name == "engine")
    lines = [
        f"engine / {row.name}: "
        + ", ".join(f"{row.seconds[n] / engine.seconds[n]:.2f} at batch {n}" for n in BATCHES)
        for row in rows
        if row.name.startswith("torch")
    ]
    return "".join(f"{line}\n" for line in lines)


def torch_rows(python: str, checkpoint: Path, repeats: int) -> list[Row]:
    """Measured by a process of an interpreter that may have torch; without torch or CUDA there, a line says so."""
    code = f"BATCHES = {BATCHES!r}\n{TORCH}"
    done = subprocess.run(
        [python, "-c", code, str(checkpoint), str(repeats)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"torch was not measured: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return []
    found = json.loads(done.stdout.splitlines()[-1])
    return [Row(name, {int(n): t for n, t in times.items()}) for name, times in found.items()]


def require_cuda() -> None:
    """End with one line where CUDA does not work."""
    x = np.array([[-1.0, 2.0]], np.float32)
    try:
        Session(relu_model(), device="cuda", example={"x": x}).run({"x": x})
    except DeviceUnavailableError as error:
        sys.exit(f"bench-cuda: {error}")


def device_name() -> str:
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unnamed GPU"
    return done.stdout.strip().replace("\n", "; ")


def made(python: str, folder: Path) -> tuple[Path, Path]:
    """A DCGAN of 64 pixels after one step, and its checkpoint, made by an interpreter that has torch."""
    train = ["train", "shapes", "--system", "dcgan", "--resolution", "64", "--set", "width=64"]
    out, model = folder / "run", folder / "model.onnx"
    for words in (
        [*train, "--steps", "1", "--out", str(out)],
        ["export", str(out / "model.pt"), str(model)],
    ):
        if subprocess.run([python, "-m", "gan.cli", *words], check=False).returncode:
            sys.exit(
                "bench-cuda: no model was made; give .onnx files, or --torch PYTHON that has torch"
            )
    return model, out / "model.pt"


def bench(path: Path, repeats: int, tensorrt: Path | None) -> list[Row]:
    options = dict(OPTIONS)
    if tensorrt:
        options["TensorRT"] = CudaOptions(tensorrt=True, tensorrt_cache=tensorrt)
    generators = {
        name: Generator(path, device="cuda", micro_batch=max(BATCHES), cuda=option)
        for name, option in options.items()
    }
    first = generators["engine"]
    plain = of_plain_session(path, first, [(CUDA, {"use_tf32": "0"})])
    ways = {"plain session.run": plain}
    ways |= {name: of_generator(generator) for name, generator in generators.items()}
    return measured(ways, first, repeats, STREAM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "files", nargs="*", type=Path, help="Models; float16 ones too. Default: made."
    )
    parser.add_argument("--checkpoint", type=Path, help="Of the first file, to measure torch too.")
    parser.add_argument(
        "--torch", metavar="PYTHON", default=sys.executable, help="The interpreter that has torch."
    )
    parser.add_argument("--tensorrt", type=Path, metavar="FOLDER", help="TensorRT, cached there.")
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    require_cuda()
    with tempfile.TemporaryDirectory() as folder:
        files, checkpoint = given.files, given.checkpoint
        if not files:
            model, checkpoint = made(given.torch, Path(folder))
            files = [model]
        for i, path in enumerate(files):
            rows = bench(path, given.repeats, given.tensorrt)
            assert "torch" not in sys.modules
            rows += (
                torch_rows(given.torch, checkpoint, given.repeats) if checkpoint and not i else []
            )
            print(f"{path.name} on {device_name()}, onnxruntime {load_onnxruntime().__version__}")
            print(f"{table(rows, STREAM)}\n{ratios(rows)}")


if __name__ == "__main__":
    main()
