"""The options of a GPU on the commands: handed on, refused for the CPU; no GPU is needed to see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gan import runtime
from gan.cli import app
from gan.runtime import CudaOptions

from .runtime.conftest import tiny_model

GPU = ["--memory-limit", "512", "--tf32"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model())
    return path


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The `cuda` of every generator that the commands make."""
    seen = []

    class Seen(runtime.Generator):
        def __init__(self, *arguments: Any, cuda: CudaOptions | None = None, **more: Any) -> None:
            seen.append(cuda)
            super().__init__(*arguments, cuda=cuda, **more)

    monkeypatch.setattr(runtime, "Generator", Seen)
    return seen


def invoke(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_sample_hands_the_options_on_and_the_cpu_refuses_them(
    model: Path, tmp_path: Path, given: list[Any]
) -> None:
    plain: list[str | Path] = ["sample", model, "--seed", "1", "--count", "2", "--out"]
    assert invoke(*plain, tmp_path / "a", *GPU).exit_code == 0
    assert invoke(*plain, tmp_path / "b").exit_code == 0
    assert given == [CudaOptions(memory_limit=512 << 20, tf32=True), None]
    refused = invoke(*plain, tmp_path / "c", "--device", "cpu", "--tf32")
    assert refused.exit_code == 1
    assert "CUDA options were given for the CPU" in refused.output
    assert not (tmp_path / "c").exists()
    for limit in ("0", "-1", "x"):
        assert invoke(*plain, tmp_path / "d", "--memory-limit", limit).exit_code == 2


def test_translate_hands_the_options_on(model: Path, tmp_path: Path, given: list[Any]) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in.png")
    done = invoke("translate", model, tmp_path / "in.png", tmp_path / "out.png", "--tf32")
    assert done.exit_code == 1  # the model takes no image, which it says when it is open
    assert given == [CudaOptions(tf32=True)]
