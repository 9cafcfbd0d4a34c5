"""What the trainer's tests share: a system of a few lines, tiny data, and short ways to make and run a training."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from gan.runtime.signature import Draw, Field
from gan.trainer.builtin import digits
from gan.trainer.checkpoint import Checkpoint
from gan.trainer.config import Config
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training
from gan.trainer.loop import Outcome, train
from gan.trainer.options import Options
from gan.trainer.parts import Batch, Graph, Live
from gan.trainer.request import Request
from gan.trainer.system import System, image_field
from gan.trainer.systems import SystemSource
from gan.trainer.trees import Tree

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights depend on the thread count, and OMP_NUM_THREADS is a setting of ours."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(1)


class Point(System):
    """Images of one pixel: G and D are one linear layer each."""

    name = "point"

    def networks(self) -> dict[str, nn.Module]:
        return {"G": nn.Linear(self.options.latent, 1), "D": nn.Linear(1, 1)}

    def generate(self, live: Live, batch: Batch) -> Batch:
        return {"fake": live.networks["G"](batch["z"])[:, :, None, None]}

    def discriminate(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        return live.networks["D"](sample.flatten(1)).flatten()

    def graphs(self) -> dict[str, Graph]:
        z = Field("z", (self.options.latent,), draw=Draw("normal"))
        return {"image": Graph((z,), (image_field(self.data),), lambda nets: AsImage(nets["G"]))}


class AsImage(nn.Module):
    """A vector as an image of one pixel a number."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z)[:, :, None, None]


@dataclass(frozen=True, kw_only=True)
class PointOptions(Options):
    """Small sizes, for systems on points."""

    latent: int = 3
    batch_size: int = 4


def points(count: int = 12) -> Dataset:
    """`count` images of one pixel, all different."""
    return Dataset("points", np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1) * 20, None, ())


def images(count: int = 24, size: int = 8, classes: int = 0) -> Dataset:
    """`count` grey images of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, size, size), np.uint8)
    labels = np.arange(count, dtype=np.int64) % classes if classes else None
    return Dataset("noise", pixels, labels, tuple(f"c{i}" for i in range(classes)))


def config(
    steps: int = 10, seed: int = 0, ema_decay: float | None = 0.99, mirror: bool = False
) -> Config:
    return Config(
        system=SystemSource("point"),
        resolution=1,
        channels=1,
        mirror=mirror,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        options={},
    )


def training(
    kind: type[System] = Point,
    *,
    data: Dataset | None = None,
    options: Options | None = None,
    steps: int = 10,
    seed: int = 0,
    ema_decay: float | None = 0.99,
    mirror: bool = False,
) -> Training:
    """A training on the CPU that has not begun; by default of `Point` on twelve points."""
    data = data or points()
    system = kind(options or PointOptions(), data.info)
    return Training(system, data, config(steps, seed, ema_decay, mirror), CPU)


def weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def same(a: Any, b: Any) -> bool:
    """Whether two nests of plain values and tensors are equal, bit by bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping):
        return (
            isinstance(b, Mapping)
            and a.keys() == b.keys()
            and all(same(a[key], b[key]) for key in a)
        )
    if isinstance(a, (list, tuple)):
        return (
            isinstance(b, (list, tuple))
            and len(a) == len(b)
            and all(same(x, y) for x, y in zip(a, b, strict=True))
        )
    return bool(a == b)


def encoded(pixels: NDArray[Any] | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """An image file's bytes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(number: int, size: int = 8, channels: int = 3) -> NDArray[np.uint8]:
    """Pixels of noise, other ones for each number."""
    shape = (size, size, channels) if channels > 1 else (size, size)
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def write_folder(root: Path, files: Mapping[str, bytes]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


def write_zip(path: Path, files: Mapping[str, bytes], **options: Any) -> str:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path)


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 real digits of 8 pixels, in folders 0, 1, 2 and 3."""
    root = tmp_path_factory.mktemp("data") / "digits8"
    pixels, labels = digits("train")
    for label in range(4):
        (root / str(label)).mkdir(parents=True)
        for row in np.flatnonzero(labels == label)[:12]:
            small = Image.fromarray(pixels[row]).resize((8, 8), Image.Resampling.BOX)
            small.save(root / str(label) / f"{row}.png")
    return root


TINY = {"resolution": 8, "batch_size": 4, "width": 4, "latent": 4, "embedding": 2, "projection": 4}
Run = Callable[..., Outcome]


@pytest.fixture
def run(digit_folder: Path, tmp_path: Path) -> Run:
    """`train` a tiny cgan on 48 digits into tmp_path / "run"; other settings and fields by name."""

    def go(given: Mapping[str, Any] | None = None, **fields: Any) -> Outcome:
        return train(tiny_request(digit_folder, tmp_path / "run", given, **fields))

    return go


def tiny_request(
    data: Path, out: Path, given: Mapping[str, Any] | None = None, **fields: Any
) -> Request:
    settings = {**TINY, "steps": 6, **(given or {})}
    settings = {name: value for name, value in settings.items() if value is not None}
    return Request(**{"data": str(data), "out": out, "threads": 1, "given": settings, **fields})


OWN = '''"""A linear GAN of eight pixels."""
from torch import nn
from gan.runtime.signature import Draw, Field
from gan.trainer import Graph, System, image_field

class Reshape(nn.Sequential):
    def forward(self, z):
        return super().forward(z).reshape(-1, 1, 8, 8)

class Linear(System):
    name = "linear"

    def networks(self):
        return {"G": Reshape(nn.Linear(self.options.latent, 64), nn.Tanh()), "D": nn.Linear(64, 1)}

    def generate(self, live, batch):
        return {"fake": live.networks["G"](batch["z"])}

    def discriminate(self, live, sample, batch):
        return live.networks["D"](sample.flatten(1)).flatten()

    def graphs(self):
        z = Field("z", (self.options.latent,), draw=Draw("normal"))
        return {"image": Graph((z,), (image_field(self.data),), lambda nets: nets["G"])}
'''


def own_request(data: Path, folder: Path, text: str = OWN, **fields: Any) -> Request:
    (folder / "my_gan.py").write_text(text)
    steps = fields.pop("steps", 4)
    given = {"resolution": 8, "batch_size": 4, "latent": 4, "steps": steps}
    return Request(
        **{"data": str(data), "out": folder / "run", "threads": 1, "given": given,
           "system": str(folder / "my_gan.py"), **fields}
    )  # fmt: skip


def content(outcome: Outcome) -> dict[str, Any]:
    return Checkpoint.load(outcome.folder.checkpoint).content
