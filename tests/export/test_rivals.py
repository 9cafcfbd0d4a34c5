"""Torch's contenders make the images of the file that they are timed against, or say why they cannot run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gan.export import export, gate
from gan.export.rivals import COMPILED, EAGER, LAST, TorchRivals, Whole, load_rivals
from gan.runtime import CheckpointError, Field, Generator, InputError
from gan.runtime.bench import Subject, bench
from gan.runtime.images import dequantize
from gan.runtime.measure import run_fresh
from gan.runtime.model_file import ModelFile

from .conftest import trace_here

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def exported(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint with labels and the file of it."""
    checkpoint = make_checkpoint("cgan", width=4)
    file = tmp_path_factory.mktemp("exported") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "trace", trace_here)
        export(checkpoint, file)
    return checkpoint, file


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """torch.compile that compiles nothing: the true one takes half a minute."""
    asked: list[Any] = []

    def compile(module: nn.Module, *, dynamic: bool) -> nn.Module:
        asked.append(dynamic)
        return module

    monkeypatch.setattr(torch, "compile", compile)
    return asked


def near(made: Any, expected: Any) -> bool:
    assert made.dtype == expected.dtype and made.shape == expected.shape
    return int(np.abs(made.astype(np.int16) - expected.astype(np.int16)).max()) <= 1


@pytest.mark.usefixtures("interpreted")
def test_every_rival_makes_the_images_of_the_file(exported: tuple[Path, Path]) -> None:
    checkpoint, file = exported
    expected = Generator(file, device="cpu").sample(5, seed=0)
    assert expected.std() > 30
    contenders = load_rivals(checkpoint, ModelFile.read(file)).contenders(5, calls=2, threads=2)
    names = [EAGER, LAST, f"{EAGER}, 1 thread", f"{LAST}, 1 thread", COMPILED]
    assert [one.name for one in contenders] == names
    for one in contenders:
        assert one.images == 10 and one.enter is not None
        one.enter()
        assert torch.get_num_threads() == (1 if "1 thread" in one.name else 2)
        assert near(one.call(), expected)
    torch.set_num_threads(1)


def test_with_one_thread_no_rival_comes_twice(exported: tuple[Path, Path]) -> None:
    checkpoint, file = exported
    loaded = load_rivals(checkpoint, ModelFile.read(file), compiled=False)
    assert [one.name for one in loaded.contenders(1, calls=1, threads=1)] == [EAGER, LAST]
    assert loaded.missing == {COMPILED: "left out"}
    assert loaded.versions == {"torch": torch.__version__}


def test_each_batch_is_compiled_for_its_own_shape(
    exported: tuple[Path, Path], interpreted: list[Any]
) -> None:
    checkpoint, file = exported
    loaded = load_rivals(checkpoint, ModelFile.read(file))
    for batch in (1, 8):
        loaded.contenders(batch, calls=1, threads=1)
    assert interpreted == [False] * 3  # the first to see whether it can


@pytest.mark.parametrize("broken", [True, False])
def test_without_a_compiler_the_reason_is_said(
    exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    def fail(module: nn.Module, *, dynamic: bool) -> Callable[..., Tensor]:
        raise RuntimeError("ld: cannot find\n  -lgomp")

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++" if broken else None)
    monkeypatch.delenv("CXX", raising=False)
    checkpoint, file = exported
    loaded = load_rivals(checkpoint, ModelFile.read(file))
    why = "RuntimeError: ld: cannot find -lgomp" if broken else "no C++ compiler g++"
    assert loaded.missing == {COMPILED: why}
    assert COMPILED not in [one.name for one in loaded.contenders(1, calls=1, threads=1)]


def test_a_gpu_that_torch_does_not_see_is_said(
    exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    checkpoint, file = exported
    loaded = load_rivals(checkpoint, ModelFile.read(file), device="cuda:0", compiled=False)
    assert "sees none" in loaded.missing["torch on the GPU"]
    assert loaded.device == torch.device("cpu")


def test_another_checkpoint_is_refused(
    exported: tuple[Path, Path], make_checkpoint: Make, tmp_path: Path
) -> None:
    _, file = exported
    with pytest.raises(InputError, match=r"is not what .*model\.onnx was exported from"):
        load_rivals(make_checkpoint("dcgan", width=4), ModelFile.read(file), compiled=False)
    with pytest.raises(CheckpointError):
        load_rivals(file, ModelFile.read(file), compiled=False)


def test_the_channels_last_rival_has_its_weights_so(exported: tuple[Path, Path]) -> None:
    checkpoint, file = exported
    loaded: TorchRivals = load_rivals(checkpoint, ModelFile.read(file), compiled=False)
    (eager, last) = (
        next(p for p in module.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1)
        for module in (loaded.eager, loaded.last)
    )
    assert last.is_contiguous(memory_format=torch.channels_last) and not last.is_contiguous()
    assert eager.is_contiguous()


def test_torchs_fresh_process_leaves_the_same_first_image(
    exported: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoint, file = exported
    loaded = load_rivals(checkpoint, ModelFile.read(file), compiled=False)
    ((name, code),) = loaded.first_image(tmp_path / "first", 1).items()
    assert name == EAGER
    run_fresh({name: code}, repeats=1)
    with Image.open(tmp_path / "first.png") as image:
        seen = np.asarray(image)
    assert near(seen, Generator(file, device="cpu").sample(1, seed=0)[0])


def test_a_bench_takes_them_as_they_are(exported: tuple[Path, Path]) -> None:
    checkpoint, file = exported
    subject = Subject(file, device="cpu", threads=1)
    loaded = load_rivals(checkpoint, subject.model, compiled=False)
    found = bench(subject, batches=[2], seconds=0.01, rivals=loaded, stream=0, starts=0)
    assert [row.name for row in found.rows][-2:] == [EAGER, LAST]
    assert found.versions == {"torch": torch.__version__}


class Negative(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return -x * mask, x


def test_bytes_go_in_and_out_by_the_formula_of_every_file() -> None:
    """x -> -x on bytes is 255 - x, where the mask is 1; where it is 0 the image is grey."""
    image = Field("image", (4, 5, 3), "image", "uint8", (0.0, 255.0))
    mask = Field("mask", (4, 5, 1), "mask", "uint8", (0.0, 255.0))
    x = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    hole = np.full((2, 4, 5, 1), 255, np.uint8)
    hole[:, 2:] = 0
    whole = Whole(Negative(), (image, mask), image)
    made = whole(torch.from_numpy(x), torch.from_numpy(hole)).numpy()
    assert made.dtype == np.uint8 and made.flags.c_contiguous
    np.testing.assert_array_equal(made[:, :2], 255 - x[:, :2])
    assert set(made[:, 2:].ravel().tolist()) <= {127, 128}
    floats = Field("image", (3, 4, 5), "image", "float32", (-1.0, 1.0))
    ones = torch.ones(2, 1, 4, 5)
    given = torch.from_numpy(dequantize(x)) * 2
    made = Whole(Negative(), (floats, mask), floats)(given, (ones.permute(0, 2, 3, 1) * 255).byte())
    np.testing.assert_array_equal(made.numpy(), np.clip(-given.numpy(), -1, 1))


def test_points_stay_floats() -> None:
    points = Field("points", (2,), "points", "float32", None)
    x = torch.tensor([[3.0, -7.0]])
    assert Whole(nn.Identity(), (points,), points)(x).tolist() == [[3.0, -7.0]]
