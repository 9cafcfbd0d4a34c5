"""The benchmark of the CUDA engine: how it ends without a GPU, and that it times and tells what it is given."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gan.runtime import Generator
from gan.runtime.session import load_onnxruntime

from .runtime.conftest import CPU, CUDA, tiny_model

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "cuda.py"


@pytest.fixture(scope="module")
def cuda() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_cuda", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(CUDA in load_onnxruntime().get_available_providers(), reason="a GPU package")
def test_without_cuda_it_ends_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench-cuda: CUDA cannot be used. ")
    assert "pip install 'gan-toolchain[cuda]'" in line


def test_all_ways_are_timed_at_all_sizes_and_verified(cuda: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model())
    generator = Generator(path, device="cpu", threads=1)
    ways = {
        "plain": cuda.of_plain_session(path, generator, [CPU]),
        "ours": cuda.of_generator(generator),
    }
    rows = cuda.measured(ways, generator, 2, 100)
    assert [row.name for row in rows] == ["plain", "ours"]
    assert [row.verified for row in rows] == ["-", "exact"]
    for row in rows:
        assert list(row.seconds) == [1, 8, 64]
        assert all(0 < seconds < 5 for seconds in [*row.seconds.values(), row.stream])


def test_the_table_has_milliseconds_and_images_a_second(cuda: ModuleType) -> None:
    rows = [
        cuda.Row("engine", {1: 0.002, 8: 0.004, 64: 0.016}, 0.00025, "exact"),
        cuda.Row("torch", {1: 0.004, 8: 0.008, 64: 0.008}),
    ]
    head, first, second = (line.split() for line in cuda.table(rows, 1000).splitlines())
    assert head[-3:] == ["stream", "of", "1,000"]
    assert first == ["engine", "2.00", "500", "2,000", "4,000", "4,000", "exact"]
    assert second == ["torch", "4.00", "250", "1,000", "8,000", "-"]
    assert cuda.ratios(rows) == (
        "engine / torch: 2.00 at batch 1, 2.00 at batch 8, 0.50 at batch 64\n"
    )
    assert cuda.ratios(rows[:1]) == ""


def test_an_interpreter_without_torch_costs_its_rows_only(
    cuda: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1\n"
    )
    python.chmod(0o755)
    assert cuda.torch_rows(str(python), tmp_path / "model.pt", 1) == []
    assert capsys.readouterr().out == (
        "torch was not measured: ModuleNotFoundError: No module named 'torch'\n"
    )
