"""The doctor: what works is said to work, each fault comes with its repair."""

from __future__ import annotations

import ctypes
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gan.runtime import InputError, doctor, session
from gan.runtime.doctor import Finding, examine, relu_model
from gan.runtime.driver import Driver
from gan.runtime.wire import read_model

from .conftest import CPU, FakeOrt, FakeSession, bare_run

PACKAGES = [
    "numpy", "pillow", "typer", "torch", "onnx", "onnxscript", "tensorboard", "av", "matplotlib",
]  # fmt: skip
GONE = "cannot open shared object file: No such file or directory"
tried = doctor._broken


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages are not imported: it takes seconds, and two tests do it."""
    monkeypatch.setattr(doctor, "_broken", lambda modules: {})


class ReluSession(FakeSession):
    def compute(self, x: Any) -> Any:
        return np.maximum(x, 0)


@pytest.fixture
def relu_ort(ort: FakeOrt, monkeypatch: pytest.MonkeyPatch) -> FakeOrt:
    monkeypatch.setattr(ort, "InferenceSession", ReluSession, raising=False)
    monkeypatch.setattr(doctor, "native_reason", lambda _: "")
    monkeypatch.setattr(ctypes, "CDLL", lambda name, mode=0: None)
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
    assert findings["NVIDIA driver"] == Finding(
        "NVIDIA driver", "CUDA 13.0; cuda:0 NVIDIA H100", True
    )
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
    libraries = findings["CUDA libraries"]
    assert (libraries.value, libraries.ok) == ("libcudnn.so.9: cannot open", ok)
    assert libraries.repair == "pip install 'gan-toolchain[cuda]'"
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


def test_cudnn_is_looked_for_although_nothing_is_linked_with_it(
    relu_ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime looks for it at the first convolution, which the graph of one node has not."""

    def load(name: str, mode: int = 0) -> None:
        if name == "libcudnn.so.9":
            raise OSError(f"{name}: {GONE}")

    monkeypatch.setattr(ctypes, "CDLL", load)
    finding = by_name("cuda")["CUDA libraries"]
    assert finding == Finding(
        "CUDA libraries", f"libcudnn.so.9: {GONE}", False, "pip install 'gan-toolchain[cuda]'"
    )
    assert relu_ort.preloaded, "pip's libraries are looked at too"


@pytest.mark.parametrize(("device", "ok"), [("auto", None), ("cuda", False)])
@pytest.mark.parametrize(
    ("driver", "value", "repair"),
    [
        (Driver(reason=f"libcuda.so.1: {GONE}"), f"none: libcuda.so.1: {GONE}", "Install the NVIDIA driver"),
        (
            Driver((12, 8), (), "CUDA failure 100: no CUDA-capable device is detected"),
            "CUDA 12.8: CUDA failure 100: no CUDA-capable device is detected",
            "nvidia-smi -L",
        ),
    ],
)  # fmt: skip
def test_a_machine_without_a_driver_or_a_gpu_is_told_apart(
    relu_ort: FakeOrt,
    monkeypatch: pytest.MonkeyPatch,
    driver: Driver,
    value: str,
    repair: str,
    device: str,
    ok: bool | None,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    relu_ort.driver = driver
    finding = by_name(device)["NVIDIA driver"]
    assert (finding.value, finding.ok) == (value, ok)
    assert repair in finding.repair


@pytest.mark.parametrize(
    ("driver", "extra"),
    [(Driver((12, 8), ("T4",)), "cuda12"), (Driver((13, 0), ("H100",)), "cuda")],
)
def test_the_cpu_package_is_replaced_by_the_one_that_the_driver_runs(
    relu_ort: FakeOrt, driver: Driver, extra: str
) -> None:
    relu_ort.available, relu_ort.driver = [CPU], driver
    assert by_name("cuda")["CUDA"].repair == (
        f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'gan-toolchain[{extra}]'"
    )


def test_an_old_onnxruntime_is_a_fault_and_still_tried(relu_ort: FakeOrt) -> None:
    relu_ort.__version__ = "1.24.4"
    findings = by_name("cpu")
    assert findings["onnxruntime"] == Finding(
        "onnxruntime", "Version 1.24.4, older than 1.25", False, "pip install 'gan-toolchain[cuda]'"
    )
    assert findings["CPU"].ok is True


def test_packages_that_are_too_old_or_that_the_base_lacks_are_faults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {"torch": "2.9.1+cu128", "numpy": "1.26.4", "typer": "0.11", "onnx": "1.18.0"}

    def version(name: str) -> str:
        if name in versions:
            return versions[name]
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = by_name("cpu")
    assert findings["torch"] == Finding(
        "torch", "2.9.1+cu128 is older than 2.10", False, "pip install -U 'torch>=2.10'"
    )
    assert findings["typer"].ok is False
    assert findings["numpy"].ok is findings["onnx"].ok is findings["av"].ok is None
    assert findings["pillow"] == Finding(
        "pillow", "not installed", False, "pip install 'pillow>=10.3'"
    )


def test_packages_that_do_not_import_are_told_apart_in_a_process_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One raises, one ends the process, one is gone; the sound one before them is not blamed."""
    (tmp_path / "raising.py").write_text(f"raise ImportError('libgomp.so.1:\\n{GONE}')")
    (tmp_path / "ending.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert tried(["json", "raising", "nowhere_at_all", "ending", "wave"]) == {
        "raising": f"ImportError: libgomp.so.1: {GONE}",
        "nowhere_at_all": "ModuleNotFoundError: No module named 'nowhere_at_all'",
        "ending": "ends the process with -6",
    }


def test_a_package_that_does_not_import_is_a_fault_with_its_repair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reasons = {"torch": f"ImportError: libgomp.so.1: {GONE}", "PIL": "ImportError: cannot import"}
    monkeypatch.setattr(doctor, "_broken", lambda modules: reasons)
    findings = by_name("cpu")
    assert findings["torch"].ok is findings["pillow"].ok is False
    assert f"cannot be imported: ImportError: libgomp.so.1: {GONE}" in findings["torch"].value
    assert findings["torch"].repair.startswith("apt-get install libgomp1")
    assert findings["pillow"].repair == "pip install --force-reinstall --no-deps pillow"


def test_the_packages_of_this_machine_import() -> None:
    assert tried(list(doctor.PACKAGES.values())) == {}


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(InputError, match="The device was refused"):
        examine(device)
