"""Native errors, as people have met them: what is left of their words, and which command is named for which cause."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from gan.runtime import repairs
from gan.runtime.driver import Driver
from gan.runtime.repairs import (
    INSTALL_CPU,
    INSTALL_CUDA,
    INSTALL_CUDA12,
    INSTALL_DRIVER,
    cuda_repair,
    native_words,
    onnxruntime_repair,
    package_repair,
)

ROOT = Path(__file__).parent.parent.parent
H100 = Driver((13, 0), ("NVIDIA H100",))
GONE = "cannot open shared object file: No such file or directory"


def cuda_call(
    failure: str, kind: str = "cudaError", call: str = "cudaSetDevice(info_.device_id)"
) -> str:
    """What onnxruntime raises for a call of CUDA's that failed: the reason stands behind 600 characters of C++."""
    signature = (
        "std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, "
        f"const char*, ERRTYPE, const char*, const char*, int) [with ERRTYPE = {kind}; bool THRW = true; "
        "std::conditional_t<THRW, void, onnxruntime::common::Status> = void]"
    )
    place = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc"
    return (
        f"{place}:123 {signature} {place}:116 {signature} {failure} ; GPU=-1 ; hostname=somebodys-pc ; "
        f"file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider.cc ; line=336 ; expr={call}; "
    )


def status(node: str, message: str) -> str:
    return (
        f"[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running {node} node. Name:'{node}_15' "
        f"Status Message: {message}"
    )


ARENA = (
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool, onnxruntime::Stream*, bool, onnxruntime::WaitNotificationFn) Failed to allocate memory for "
    "requested buffer of size 2830172160\n"
)
NO_CUDNN = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_kernel.h:296 static cudnnContext* "
    "onnxruntime::cuda::CudaKernel::RequireCudnnHandle(cudnnHandle_t) [ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : cuDNN "
    f"is unavailable or disabled for CUDA Execution Provider: dlopen failed for libcudnn.so: libcudnn.so: {GONE}\n"
)
WRONG_INDEX = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static onnxruntime::"
    "CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const onnxruntime::"
    "ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse provider option "
    '"device_id": cuda_execution_provider_info.cc:71 operator() Invalid device ID: 7, must be between 0 (inclusive) and 1 '
    "(exclusive).\n"
)
LOADING = (
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1778 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    f"libonnxruntime_providers_cuda.so with error: libcudnn.so.9: {GONE}"
)
MET = {
    "driver too old": (
        cuda_call("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"),
        "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
        INSTALL_CUDA12,
    ),
    "no GPU": (
        cuda_call("CUDA failure 100: no CUDA-capable device is detected"),
        "CUDA failure 100: no CUDA-capable device is detected",
        "`nvidia-smi -L` lists no GPU",
    ),
    "wrong index": (
        WRONG_INDEX,
        "Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive).",
        "Give one of: cuda:0 (NVIDIA H100)",
    ),
    "wrong index, of an older one": (
        cuda_call("CUDA failure 101: invalid device ordinal"),
        "CUDA failure 101: invalid device ordinal",
        "Give one of: cuda:0 (NVIDIA H100)",
    ),
    "driver and library of two versions": (
        cuda_call("CUDA failure 804: forward compatibility was attempted on non supported HW"),
        "CUDA failure 804: forward compatibility was attempted on non supported HW",
        "Update the NVIDIA driver",
    ),
    "driver not ready": (
        cuda_call("CUDA failure 999: unknown error"),
        "CUDA failure 999: unknown error",
        "Restart the machine",
    ),
    "memory at a session": (
        cuda_call("CUDA failure 2: out of memory", call="cudaMalloc((void**)&p, size)"),
        "CUDA failure 2: out of memory",
        "Free memory of the GPU",
    ),
    "memory at a batch": (
        status("Mul", ARENA),
        "Failed to allocate memory for requested buffer of size 2830172160",
        "smaller micro-batch",
    ),
    "memory for cuBLAS": (
        cuda_call("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", "cublasStatus_t"),
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "Free memory of the GPU",
    ),
    "GPU that is not built for": (
        status("Relu", "CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution on the device"),
        "CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution on the device",
        "pip install -U 'onnxruntime-gpu[cuda,cudnn]'",
    ),
    "no cuDNN": (
        status("Conv", NO_CUDNN),
        f"cuDNN is unavailable or disabled for CUDA Execution Provider: dlopen failed for libcudnn.so: libcudnn.so: {GONE}",
        INSTALL_CUDA,
    ),
    "no cuDNN, of an older one": (LOADING, f"libcudnn.so.9: {GONE}", INSTALL_CUDA),
    "no cuBLAS": (f"libcublasLt.so.13: {GONE}", f"libcublasLt.so.13: {GONE}", INSTALL_CUDA),
    "no cuBLAS, on Windows": (
        'Error loading "C:\\capi\\onnxruntime_providers_cuda.dll" which depends on "cublasLt64_13.dll" which is missing.',
        'Error loading "C:\\capi\\onnxruntime_providers_cuda.dll" which depends on "cublasLt64_13.dll" which is missing.',
        INSTALL_CUDA,
    ),
    "no driver's library": (f"libcuda.so.1: {GONE}", f"libcuda.so.1: {GONE}", INSTALL_DRIVER),
    "no zlib": (f"libz.so.1: {GONE}", f"libz.so.1: {GONE}", "apt-get install zlib1g"),
    "something new": ("an unheard-of failure", "an unheard-of failure", "Run `nvidia-smi`"),
}  # fmt: skip


@pytest.mark.parametrize(("message", "words", "repair"), MET.values(), ids=MET)
def test_a_native_error_is_its_reason_and_its_repair(
    monkeypatch: pytest.MonkeyPatch, message: str, words: str, repair: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = native_words(RuntimeError(message))
    assert seen == words
    assert "somebodys-pc" not in seen
    assert repair in cuda_repair(seen, "13.0", H100)


def test_a_model_that_is_refused_is_told_without_the_c_plus_plus() -> None:
    message = (
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Failed to load model with error: /onnxruntime_src/onnxruntime/core/"
        "graph/model.cc:179 onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, const "
        "onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, const onnxruntime::"
        "ModelOptions&) Unsupported model IR version: 10, max supported IR version: 9\n"
    )
    assert native_words(message) == "Unsupported model IR version: 10, max supported IR version: 9"


def test_long_words_and_several_lines_become_one_short_line() -> None:
    assert native_words("a\n b\t c") == "a b c"
    assert len(native_words("x" * 5000)) == 300


@pytest.mark.parametrize(
    ("built", "driver", "repair"),
    [
        ("13.0", H100, INSTALL_CUDA),
        ("12.8", Driver((12, 8), ("T4",)), INSTALL_CUDA12),
        ("13.0", Driver((12, 8), ("T4",)), f"which runs CUDA 12, or: {INSTALL_CUDA12}"),
        ("12.8", H100, INSTALL_CUDA),
        ("", Driver((12, 4), ("T4",)), INSTALL_CUDA12),
        ("12.8", Driver(), f"{INSTALL_DRIVER}; {INSTALL_CUDA12}"),
        ("13.0", Driver(), f"{INSTALL_DRIVER}; {INSTALL_CUDA}"),
    ],
)  # fmt: skip
def test_the_cuda_that_is_installed_is_one_that_the_driver_runs(
    built: str, driver: Driver, repair: str
) -> None:
    assert cuda_repair(f"libcublasLt.so.{built[:2]}: {GONE}", built, driver).endswith(repair)


def test_an_empty_list_of_visible_gpus_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = "CUDA failure 100: no CUDA-capable device is detected"
    assert "CUDA_VISIBLE_DEVICES is ''" in cuda_repair(words, "13.0", Driver((13, 0), (), words))


@pytest.mark.parametrize(
    ("reason", "packages", "repair"),
    [
        ("No module named 'onnxruntime'", {}, INSTALL_CPU),
        ("module 'onnxruntime' has no attribute 'x'", {}, INSTALL_CPU),
        ("no attribute 'x'", {"onnxruntime": "1.31.1"}, f"pip uninstall -y onnxruntime onnxruntime-gpu && {INSTALL_CPU}"),
        ("no attribute 'x'", {"onnxruntime-gpu": "1.31.1"}, f"onnxruntime-gpu && {INSTALL_CUDA}"),
        ("no attribute 'x'", {"onnxruntime-gpu": "1.26.0"}, f"onnxruntime-gpu && {INSTALL_CUDA12}"),
        (f"libgomp.so.1: {GONE}", {"onnxruntime": "1.31.1"}, "apt-get install libgomp1"),
        ("/lib/libstdc++.so.6: version `GLIBCXX_3.4.29' not found", {"onnxruntime": "1.31.1"}, "libstdc++6"),
        ("/lib/libc.so.6: version `GLIBC_2.28' not found", {"onnxruntime": "1.31.1"}, "newer system"),
        ("numpy.core.multiarray failed to import", {"onnxruntime": "1.18.0"}, f"pip install -U numpy && {INSTALL_CPU}"),
        ("A module that was compiled using NumPy 1.x cannot be run in NumPy 2.4.6", {}, "pip install -U numpy && "),
        ("_ARRAY_API not found", {"onnxruntime-gpu": "1.18.0"}, f"pip install -U numpy && {INSTALL_CUDA12}"),
    ],
)  # fmt: skip
def test_an_onnxruntime_that_cannot_be_imported_has_a_repair_for_its_cause(
    reason: str, packages: dict[str, str], repair: str
) -> None:
    assert repair in onnxruntime_repair(reason, packages)


def test_a_file_that_hides_a_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "onnxscript", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert package_repair("onnxscript", "onnxscript", "no attribute") == (
        "pip install --force-reinstall --no-deps onnxscript"
    )
    (tmp_path / "onnxscript.py").write_text("x = 1\n")
    assert str(tmp_path / "onnxscript.py") in package_repair("onnxscript", "onnxscript", "")


def test_every_extra_that_a_repair_names_is_one_of_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    named = set()
    for folder in ("runtime", "trainer", "export", "commands"):
        for path in (ROOT / folder).glob("*.py"):
            for names in re.findall(
                r"(?:gan-toolchain\[|extra=\"|extra: str = \")([a-z0-9,]+)", path.read_text()
            ):
                named |= set(names.split(","))
    constants = (INSTALL_CPU, INSTALL_CUDA, INSTALL_CUDA12)
    named |= {command.split("[")[1].split("]")[0] for command in constants}
    assert {"cpu", "cuda", "cuda12", "train", "video", "plot", "cli"} <= named <= extras
    assert repairs.REINSTALL.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && ")


def test_the_oldest_onnxruntime_is_the_bound_of_the_extra() -> None:
    from gan.runtime.session import OLDEST

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert extras["cpu"] == [f"onnxruntime>={'.'.join(map(str, OLDEST))}"]
