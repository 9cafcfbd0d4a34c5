"""The doctor: what works is said to work, each fault comes with its repair."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

import numpy as np
import onnx
import pytest

from gan.runtime import doctor, session
from gan.runtime.doctor import Finding, examine, relu_model
from gan.runtime.wire import read_model

from .conftest import CPU, FakeOrt, FakeSession, bare_run

PACKAGES = ["numpy", "pillow", "typer", "torch", "onnx", "onnxscript", "tensorboard"]


class ReluSession(FakeSession):
    def compute(self, x: Any) -> Any:
        return np.maximum(x, 0)


@pytest.fixture
def relu_ort(ort: FakeOrt, monkeypatch: pytest.MonkeyPatch) -> FakeOrt:
    monkeypatch.setattr(ort, "InferenceSession", ReluSession, raising=False)
    monkeypatch.setattr(doctor, "native_reason", lambda _: "")
    monkeypatch.setattr(doctor, "installed_packages", lambda: {"onnxruntime-gpu": "1.99"})
    return ort


def by_name(device: str) -> dict[str, Finding]:
    findings = examine(device)
    named = {finding.name: finding for finding in findings}
    assert len(named) == len(findings)
    return named


def test_the_bytes_written_by_hand_are_a_valid_model_that_runs() -> None:
    model = onnx.load_model_from_string(relu_model())
    onnx.checker.check_model(model, full_check=True)
    x = np.array([[-1.0, 2.0], [3.0, -4.0], [0.5, 0.0]], np.float32)
    np.testing.assert_array_equal(bare_run(relu_model(), {"x": x}), np.maximum(x, 0))
    assert read_model(relu_model()).operators == {"Relu": 1}


def test_this_machine_is_found_able_to_sample_on_its_cpu() -> None:
    findings = by_name("cpu")
    assert list(findings) == ["python", "platform", *PACKAGES, "onnxruntime", "CPU"]
    assert findings["CPU"] == Finding("CPU", "works", True)
    assert findings["onnxruntime"].ok is True
    assert findings["python"].ok is True
    assert findings["numpy"] == Finding("numpy", np.__version__)


def test_a_package_that_is_missing_is_a_fact_and_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without_torch(name: str) -> str:
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_torch)
    assert by_name("cpu")["torch"] == Finding("torch", "not installed", None)


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_a_gpu_that_works_is_said_to_work(relu_ort: FakeOrt, device: str) -> None:
    findings = by_name(device)
    assert findings["CUDA"] == Finding("CUDA", "works", True)
    assert findings["CUDA libraries"].value == "load"
    assert findings["onnxruntime"].value == "onnxruntime-gpu 1.99; providers CUDA, CPU"


@pytest.mark.parametrize(("device", "ok"), [("auto", None), ("cuda", False)])
def test_the_cpu_package_is_a_fault_only_where_cuda_is_asked_for(
    relu_ort: FakeOrt, device: str, ok: bool | None
) -> None:
    relu_ort.available = [CPU]
    findings = by_name(device)
    assert findings["CPU"].ok is True
    assert findings["CUDA"].ok is ok
    assert findings["CUDA"].value == "onnxruntime 1.99 is the CPU package"
    assert "pip install 'gan-toolchain[cuda]'" in findings["CUDA"].repair
    assert "CUDA libraries" not in findings


@pytest.mark.parametrize(("device", "ok"), [("auto", None), ("cuda", False)])
def test_a_library_that_does_not_load_is_named(
    relu_ort: FakeOrt, monkeypatch: pytest.MonkeyPatch, device: str, ok: bool | None
) -> None:
    relu_ort.cuda_loads = False
    monkeypatch.setattr(doctor, "native_reason", lambda _: "libcudnn.so.9: cannot open")
    findings = by_name(device)
    assert findings["CUDA libraries"] == Finding("CUDA libraries", "libcudnn.so.9: cannot open", ok)
    assert findings["CUDA"].ok is ok


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_without_onnxruntime_the_repair_is_named(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    findings = by_name(device)
    assert findings["onnxruntime"].ok is False
    assert findings["onnxruntime"].repair.startswith("pip install 'gan-toolchain[cpu]'")
    assert "CPU" not in findings
    assert ("CUDA" in findings) == (device == "cuda")
    if device == "cuda":
        assert findings["CUDA"].ok is False
        assert findings["CUDA"].repair == findings["onnxruntime"].repair


def test_a_processor_that_computes_wrongly_is_a_fault(ort: FakeOrt) -> None:
    assert by_name("cpu")["CPU"].ok is False, "the fake session doubles instead of taking Relu"


def test_a_session_that_fails_is_a_fault_with_its_reason(relu_ort: FakeOrt) -> None:
    relu_ort.refuses = (CPU,)
    finding = by_name("cpu")["CPU"]
    assert finding.ok is False
    assert finding.value == "CPUExecutionProvider refused the model"
    assert finding.repair


def test_both_packages_at_once_are_a_fault_though_the_module_works(
    relu_ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.30.0"}
    monkeypatch.setattr(session, "installed_packages", lambda: both)
    finding = by_name("auto")["onnxruntime"]
    assert finding.ok is False
    assert finding.value == "onnxruntime 1.31.1, onnxruntime-gpu 1.30.0"
    assert finding.repair.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install")
