"""Checkpoints to export: tiny trained ones with randomised weights, and ones of systems with a planted fault."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan.export import gate
from gan.export.module import load_source
from gan.export.trace import export_program, trace_sizes
from gan.trainer import Checkpoint, Request, train
from gan.trainer.checkpoint import save

WITH_GRAPHS = ("msg-gan", "progressive", "stylegan2")  # proven in test_several_graphs.py
OF_IMAGES = ("cyclegan", "face-aging", "inpainting", "pix2pix", "srgan")  # in test_image_graphs.py
SYSTEM = '''
"""A tiny system with a generator written by a test."""
import torch
from torch import nn
from torch.nn import functional as F
from gan.runtime import Draw, Field
from gan.trainer import Graph, System, image_field


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3 * 8 * 8)
        {init}

    def forward(self, z):
        x = torch.tanh(self.linear(z)).reshape(-1, 3, 8, 8)
        {forward}
        return x


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 1)

    def forward(self, x):
        return self.linear(x.flatten(1))[:, 0]


class Planted(System):
    name = "planted"

    def networks(self):
        return {{"G": Generator(), "D": Discriminator()}}

    def generate(self, live, batch):
        return {{"fake": live.networks["G"](batch["z"])}}

    def discriminate(self, live, sample, batch):
        return live.networks["D"](sample)

    def graphs(self):
        z = Field("z", (4,), "latent", draw=Draw("normal"))
        return {{"image": Graph((z,), (image_field(self.data),), lambda nets: nets["G"])}}
'''


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small colour images in two classes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(12):
        folder = root / ("cat", "dog")[i % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def make_checkpoint(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint of one step, all averaged weights and buffers then randomised: an untrained network hides faults."""

    def make(system: str, **given: Any) -> Path:
        out = tmp_path_factory.mktemp("run")
        given = {"resolution": 8, "batch_size": 4, "steps": 1} | given
        train(Request(data=str(photos), system=system, given=given, out=out, threads=1))
        checkpoint = Checkpoint.load(out / "model.pt")
        for seed, state in enumerate(checkpoint.content["averaged"].values(), start=1):
            randomise(state, seed)
        save(out / "model.pt", checkpoint.content)
        return out / "model.pt"

    return make


TRACED: dict[Any, bytes] = {}


def trace_here(
    work: Path, *, checkpoint: Path, graph: str, system_file: str | None, opset: int
) -> Path:
    """`export.trace.trace` in this process, once for the same weights, graph and system."""
    files = [Path(name).read_bytes() for name in (checkpoint, system_file) if name]
    key = (*(hashlib.sha256(file).digest() for file in files), graph, opset)
    if key in TRACED:
        (work / "traced.onnx").write_bytes(TRACED[key])
        return work / "traced.onnx"
    source = load_source(
        Checkpoint.load(checkpoint), graph=graph, system_file=system_file, accept_changed=True
    )
    outputs = [field.name + "_float" for field in source.signature.outputs]
    inputs = tuple(source.inputs(3, sizes=trace_sizes(source.signature)))
    fields = source.signature.inputs
    program = export_program(source.module, inputs, fields, outputs, opset)
    program.save(str(work / "traced.onnx"), external_data=False)
    TRACED[key] = (work / "traced.onnx").read_bytes()
    return work / "traced.onnx"


@pytest.fixture
def traced_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace in this process: the tests that need the fresh one do not ask for this."""
    monkeypatch.setattr(gate, "trace", trace_here)


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint of a user's own system without a fault."""
    file = tmp_path_factory.mktemp("system") / "planted.py"
    file.write_text(SYSTEM.format(forward="pass", init="pass"))
    return make_checkpoint(str(file))


@pytest.fixture
def planted(
    tmp_path_factory: pytest.TempPathFactory, sound: Path
) -> Callable[..., tuple[Path, str]]:
    """A sound checkpoint, and a system file whose generator has the given extra lines."""

    def plant(forward: str = "pass", init: str = "pass") -> tuple[Path, str]:
        file = tmp_path_factory.mktemp("planted") / "planted.py"
        file.write_text(SYSTEM.format(forward=forward, init=init))
        return sound, str(file)

    return plant


def randomise(state: dict[str, torch.Tensor], seed: int = 1) -> None:
    """Weights whose outputs spread over the whole range, and buffers that are not their initial values."""
    source = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=source) * 1.5 + 0.5)
        elif not tensor.ndim and tensor.is_floating_point():  # strengths: none is near 0
            tensor.copy_(torch.rand(tensor.shape, generator=source) * 0.5 + 0.25)
        elif name.endswith("weight.original"):  # equalised: what multiplies it knows the fan-in
            tensor.copy_(torch.randn(tensor.shape, generator=source) * tensor.std())
        elif tensor.is_floating_point():
            gain = 2.0 / max(tensor[0].numel(), 1) ** 0.5 if tensor.ndim > 1 else 1.0
            tensor.copy_(torch.randn(tensor.shape, generator=source) * gain)
