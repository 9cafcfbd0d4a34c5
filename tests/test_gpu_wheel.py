"""The true onnxruntime-gpu on a machine without a GPU, and on CUDA libraries that are stubs: its own messages, through `gan`.

`make torture` alone runs this: the wheel has 256 MB.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from gan.runtime.driver import ask_driver

from .broken_machine import GONE
from .runtime.conftest import TORTURE, tiny_model

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not TORTURE, reason="downloads 256 MB; `make torture` runs it"),
    pytest.mark.skipif(sys.platform != "linux", reason="stubs are built for Linux's loader"),
]
ROOT = Path(__file__).parent.parent
VERSION = "1.31.1"
SAMPLE = "sample model.onnx --seed 0 --grid out.png --force"
INSTALL, DRIVER = "pip install 'gan-toolchain[cuda]'", "Install the NVIDIA driver"
STUB = """
#include <stdlib.h>
#include <string.h>
static int number(const char *name) { const char *text = getenv(name); return text ? atoi(text) : 0; }
static int at(const char *name) {
    const char *call = getenv("STUB_CALL");
    return call && (!strcmp(call, "all") || !strcmp(call, name)) ? number("STUB_CODE") : 0;
}
"""
WORDS = """
const char *%s(int code) {
    return code == 35 ? "CUDA driver version is insufficient for CUDA runtime version" : code == 2 ? "out of memory" :
        code == 100 ? "no CUDA-capable device is detected" : code == 999 ? "unknown error" :
        code == 209 ? "no kernel image is available for execution on the device" : "another error";
}
"""
OWN = {  # all others only answer with a code
    "cudaGetErrorString": WORDS % "cudaGetErrorString",
    "cudaGetErrorName": 'const char *cudaGetErrorName(int code) { return "cudaErrorStub"; }',
    "cudaGetDeviceCount": 'int cudaGetDeviceCount(int *count) { *count = 1; return at("cudaGetDeviceCount"); }',
    "cudaGetDevice": "int cudaGetDevice(int *device) { *device = 0; return 0; }",
    "cudaGetDeviceProperties": "int cudaGetDeviceProperties(char *p, int i) { memset(p, 0, 1000); return 0; }",
    "cudaMalloc": 'int cudaMalloc(void **p, size_t n) { *p = malloc(n); return at("cudaMalloc"); }',
    "__cudaRegisterFatBinary": "static void *handle; void **__cudaRegisterFatBinary(void *p) { return &handle; }",
    "cublasGetStatusString": 'const char *cublasGetStatusString(int code) { return "CUBLAS_STATUS"; }',
    "cublasGetStatusName": 'const char *cublasGetStatusName(int code) { return "CUBLAS_STATUS"; }',
    "cuDriverGetVersion": 'int cuDriverGetVersion(int *version) { *version = number("STUB_DRIVER"); return 0; }',
    "cuInit": 'int cuInit(unsigned flags) { return number("STUB_GPUS") ? 0 : 100; }',
    "cuDeviceGetCount": 'int cuDeviceGetCount(int *count) { *count = number("STUB_GPUS"); return 0; }',
    "cuDeviceGet": "int cuDeviceGet(int *device, int index) { *device = index; return 0; }",
    "cuDeviceGetName": 'int cuDeviceGetName(char *name, int size, int device) { strcpy(name, "Stub"); return 0; }',
    "cuGetErrorString": 'int cuGetErrorString(int code, const char **text) { *text = "no CUDA-capable device is detected"; return 0; }',
}  # fmt: skip
LIBRARIES = ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10", "libcuda.so.1")  # fmt: skip


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a fresh environment with onnxruntime-gpu, without CUDA's libraries and without torch."""
    if ask_driver().cuda:
        pytest.skip("this machine has an NVIDIA driver")
    wheels = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(wheels)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    (wheel,) = wheels.glob("*.whl")
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, f"onnxruntime-gpu=={VERSION}", f"{wheel}[cli]"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        if re.search("No matching distribution|Could not find|connection|timed out", done.stderr):
            pytest.skip(f"onnxruntime-gpu cannot be downloaded: {done.stderr[-300:]}")
        pytest.fail(done.stderr)
    return folder / "bin"


@pytest.fixture(scope="module")
def stubs(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CUDA's libraries with all that the provider is linked with, each call of which answers as STUB_CALL and STUB_CODE
    say."""
    for tool in ("cc", "nm"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} to build stubs with")
    (provider,) = commands.parent.rglob("libonnxruntime_providers_cuda.so")
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", provider], capture_output=True, text=True, check=True
    )
    wanted: dict[str, set[str]] = {library: set() for library in LIBRARIES}
    for name, library in re.findall(r" U ((?:__)?cu\w+)(?:@(\S+))?", symbols.stdout):
        wanted[library or "libcuda.so.1"].add(name)
    wanted["libcuda.so.1"] |= {name for name in OWN if re.match("cu[A-Z]", name)}
    folder = tmp_path_factory.mktemp("stubs")
    for library, names in wanted.items():
        code = (
            OWN.get(name) or f'int {name}() {{ return at("{name}"); }}' for name in sorted(names)
        )
        (folder / "stub.c").write_text(STUB + "\n".join(code))
        (folder / "stub.map").write_text(f"{library} {{ global: *; }};")
        options = ["-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{library}"]
        if library != "libcuda.so.1":  # whose symbols have no version
            options.append(f"-Wl,--version-script={folder}/stub.map")
        subprocess.run(["cc", *options, "-o", folder / library, folder / "stub.c"], check=True)
    return folder


@pytest.fixture
def gan(commands: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    (tmp_path / "model.onnx").write_bytes(tiny_model())

    def run(arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        clean = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
        done = subprocess.run(
            [str(commands / "gan"), *shlex.split(arguments)], cwd=tmp_path, env=clean | variables,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done

    return run


Gan = Callable[..., subprocess.CompletedProcess[str]]


def the_line(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    return line


def test_without_cudas_libraries_cuda_is_an_error_and_auto_runs(gan: Gan, tmp_path: Path) -> None:
    wanted = f"libcublasLt.so.13: {GONE}"
    for variables in ({}, {"CUDA_PATH": "/usr/local/cuda"}):
        line = the_line(gan(f"{SAMPLE} --device cuda", **variables))
        assert wanted in line and DRIVER in line and INSTALL in line
    done = gan(SAMPLE)
    assert done.returncode == 0 and done.stdout.startswith("Wrote out.png (16 images, seed 0, cpu)")
    (line,) = done.stderr.splitlines()
    assert line.startswith("gan: Sampling on the CPU: ") and wanted in line
    assert gan(f"{SAMPLE} --device cpu").stderr == ""


def test_the_doctor_finds_it(gan: Gan) -> None:
    assert gan("doctor").returncode == gan("doctor --device cpu").returncode == 0
    done = gan("doctor --device cuda")
    assert done.returncode == 1
    faults = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAULT")]
    assert faults == ["NVIDIA", "CUDA", "CUDA"]
    assert f"libcublasLt.so.13: {GONE}" in done.stdout and INSTALL in done.stdout


def test_tensorrt_without_its_libraries_is_an_error(commands: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny_model())
    code = (
        "from gan.runtime import *\n"
        "try: Generator('model.onnx', device='cuda', cuda=CudaOptions(tensorrt=True))\n"
        "except DeviceUnavailableError as error: print(error)"
    )
    done = subprocess.run(
        [commands / "python", "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.match(r"TensorRT was requested but .* lib\w+\.so\.\d+: cannot open", done.stdout)


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_library_that_is_missing_is_named(
    gan: Gan, stubs: Path, tmp_path: Path, library: str
) -> None:
    for other in LIBRARIES:
        if other != library:
            shutil.copy(stubs / other, tmp_path)
    stub = {"LD_LIBRARY_PATH": str(tmp_path), "STUB_DRIVER": "13000", "STUB_GPUS": "1"}
    if library == "libcudart.so.13" and "libcudart.so.13" in subprocess.getoutput("ldconfig -p"):
        pytest.skip("this machine has libcudart.so.13 of its own")
    line = the_line(gan(f"{SAMPLE} --device cuda", **stub))
    assert f"{library}: {GONE}" in line
    assert (DRIVER if library == "libcuda.so.1" else INSTALL) in line


@pytest.mark.parametrize(
    ("stub", "device", "words", "repair"),
    [
        ("all 35 12080 1", "cuda", "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
         "which runs CUDA 12, or: pip install 'gan-toolchain[cuda12]'"),
        ("all 100 13000 0", "cuda", "CUDA failure 100: no CUDA-capable device is detected", "`nvidia-smi -L` lists no GPU"),
        ("none 0 13000 1", "cuda:7", "Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive).",
         "Give one of: cuda:0 (Stub)"),
        ("cudaMalloc 2 13000 1", "cuda", "Failed to allocate memory for requested buffer of size ", "Free memory of the GPU"),
        ("cudaSetDevice 999 13000 1", "cuda", "CUDA failure 999: unknown error", "Restart the machine"),
        ("cublasCreate_v2 3 13000 1", "cuda", "CUBLAS failure 3: ", "Free memory of the GPU"),
        ("cudaMemcpy 700 13000 1", "cuda", "CUDA failure 700: another error", "Run `nvidia-smi`"),
    ],
)  # fmt: skip
def test_a_call_of_cuda_that_fails_is_told_in_its_own_words(
    gan: Gan, stubs: Path, stub: str, device: str, words: str, repair: str
) -> None:
    names = ("STUB_CALL", "STUB_CODE", "STUB_DRIVER", "STUB_GPUS")
    variables = dict(zip(names, stub.split(), strict=True)) | {"LD_LIBRARY_PATH": str(stubs)}
    line = the_line(gan(f"{SAMPLE} --device {device}", **variables))
    assert words in line and repair in line and "hostname" not in line
    if device == "cuda":
        done = gan(SAMPLE, **variables)
        assert done.returncode == 0 and "seed 0, cpu" in done.stdout
        (line,) = done.stderr.splitlines()
        assert line.startswith("gan: Sampling on the CPU: ") and words in line


def test_both_packages_what_an_uninstall_leaves_of_them_and_the_repair_as_it_is_printed(
    gan: Gan, commands: Path
) -> None:
    """The last one: it changes the environment."""

    def pip(arguments: str) -> None:
        command = f"PATH={shlex.quote(str(commands))}:$PATH; {arguments}"
        subprocess.run(command, shell=True, check=True, capture_output=True)

    pip("pip install --quiet onnxruntime")
    assert "onnxruntime is installed twice" in the_line(gan(f"{SAMPLE} --device cuda"))
    done = gan("doctor")
    assert done.returncode == 1 and "FAULT onnxruntime" in done.stdout
    assert gan(SAMPLE).returncode == 0
    pip("pip uninstall --yes --quiet onnxruntime")
    repair = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'gan-toolchain[cuda]'"
    done = gan("doctor")
    assert done.returncode == 1 and repair in done.stdout
    pip(repair.replace("cuda", "cpu"))  # CUDA's libraries have two gigabytes
    done = gan(f"{SAMPLE} --device cpu")
    assert (done.returncode, done.stderr) == (0, "")
    assert gan("doctor").returncode == 0
