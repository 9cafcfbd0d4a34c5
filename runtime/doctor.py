"""What this machine has and lacks: packages, providers, driver and CUDA libraries, each fault with its repair."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cuda import CUDA, native_reason, preload_cuda_libraries
from .driver import Driver, ask_driver
from .errors import DeviceUnavailableError, GanError
from .repairs import (
    ACCEPT_CPU,
    UNINSTALL,
    cuda_repair,
    hiding_file,
    install_again,
    install_cuda,
    package_repair,
)
from .session import (
    Session,
    available_cpus,
    check_device,
    check_packages,
    check_version,
    installed_packages,
    load_onnxruntime,
)

PACKAGES = {  # distributions and what they are imported as
    "numpy": "numpy",
    "pillow": "PIL",
    "typer": "typer",
    "torch": "torch",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "tensorboard": "tensorboard",
    "av": "av",
    "matplotlib": "matplotlib",
}
BASE = ("numpy", "pillow")
SECONDS = 120  # that the imports of all may take
IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    print(name, end="\\t")
    try:
        sys.stdout.flush()
        importlib.import_module(name)
        print()
    except BaseException as error:
        print(" ".join(f"{type(error).__name__}: {error}".split()))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer. ok None: a fact, neither good nor bad."""

    name: str
    value: str
    ok: bool | None = None
    repair: str = ""


def examine(device: str = "auto") -> list[Finding]:
    """Everything worth knowing here. device: "cuda" makes a missing CUDA a fault, "cpu" leaves CUDA out.

    Takes a few seconds, as it imports the packages. Raises `InputError` for an unknown device.
    """
    check_device(device)
    required, driver = device.startswith("cuda"), Driver() if device == "cpu" else ask_driver()
    python = f"{platform.python_version()}, {sys.executable}"
    onnxruntime = _onnxruntime()
    findings = [
        Finding("python", python, sys.version_info >= (3, 11)),
        Finding("platform", f"{platform.platform()}, {available_cpus()} CPUs usable"),
        *_packages(),
        onnxruntime,
    ]
    if device != "cpu":
        findings.append(_driver(driver, required=required))
    try:
        ort = load_onnxruntime()
    except DeviceUnavailableError as error:
        if required:
            said = "not tried: onnxruntime does not work"
            findings.append(Finding("CUDA", said, False, error.repair))
        return findings
    findings.append(_run("cpu", "CPU"))
    if device != "cpu" and CUDA in ort.get_available_providers():
        findings.append(_libraries(ort, driver, required=required))
        findings.append(_run(device if required else "cuda", "CUDA", required=required))
    elif device != "cpu":
        said = f"onnxruntime {ort.__version__} is the CPU package"
        repair = f"{UNINSTALL} && {install_cuda('', driver)}"
        findings.append(Finding("CUDA", said, False if required else None, repair))
    return findings


def _packages() -> list[Finding]:
    """Of each package whether it is there, new enough, and can be imported."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    oldest, broken = _oldest(), _broken([PACKAGES[name] for name in versions])
    return [
        _package(name, versions.get(name), oldest.get(name, ""), broken.get(module, ""))
        for name, module in PACKAGES.items()
    ]


def _package(name: str, version: str | None, oldest: str, broken: str) -> Finding:
    module = PACKAGES[name]
    hiding = hiding_file(module)
    if version is None:
        missing = name in BASE
        repair = f"pip install '{name}{oldest and '>='}{oldest}'" if missing else ""
        return Finding(name, "not installed", False if missing else None, repair)
    if broken or hiding:
        said = f"{version} cannot be imported: {broken or f'{hiding} hides it'}"
        return Finding(name, said[:300], False, package_repair(module, name, broken))
    if _numbers(version) < _numbers(oldest):
        return Finding(
            name, f"{version} is older than {oldest}", False, f"pip install -U '{name}>={oldest}'"
        )
    return Finding(name, version)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3]]


def _oldest() -> dict[str, str]:
    """The lower bounds of pyproject.toml, where the toolchain is installed as a package."""
    found = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for line in importlib.metadata.requires("gan-toolchain") or []:
            if bound := re.match(r"([\w-]+)[^;]*>=([\d.]+)", line):
                found[bound[1].lower()] = bound[2]
    return found


def _broken(modules: list[str]) -> dict[str, str]:
    """Why modules cannot be imported, tried in a process of its own, which a damaged one may end."""
    said, how = "", f"takes more than {SECONDS} s"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", IMPORTS, *modules],
            stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace",
            timeout=SECONDS, check=False,
        )  # fmt: skip
        said, how = done.stdout, f"ends the process with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace")
    lines = [line.partition("\t") for line in said.splitlines()]
    found = {name: reason for name, _, reason in lines if reason}
    if lines and not said.endswith("\n"):  # it ended amid this one
        found[lines[-1][0]] = how
    return found


def _onnxruntime() -> Finding:
    packages = ", ".join(f"{name} {version}" for name, version in installed_packages().items())
    try:
        check_packages()
        ort = load_onnxruntime()
        check_version(ort)
    except DeviceUnavailableError as error:
        return Finding("onnxruntime", error.seen or packages, False, error.repair)
    providers = ", ".join(
        name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()
    )
    return Finding("onnxruntime", f"{packages or ort.__version__}; providers {providers}", True)


def _driver(driver: Driver, *, required: bool) -> Finding:
    version = f"CUDA {driver.cuda[0]}.{driver.cuda[1]}" if driver.cuda else "none"
    gpus = ", ".join(f"cuda:{index} {name}" for index, name in enumerate(driver.gpus))
    if gpus:
        return Finding("NVIDIA driver", f"{version}; {gpus}", True)
    repair = cuda_repair(driver.reason, "", driver)
    value = f"{version}: {driver.reason}"[:300]
    return Finding("NVIDIA driver", value, False if required else None, repair)


def _libraries(ort: Any, driver: Driver, *, required: bool) -> Finding:
    """What CUDA's provider is linked with, and cuDNN, which it looks for at the first convolution."""
    preload_cuda_libraries(ort)
    reason = native_reason(ort)
    if not reason:
        try:
            ctypes.CDLL("cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9")
        except OSError as error:
            reason = f"{error}"
    if not reason:
        return Finding("CUDA libraries", "load", True if required else None)
    repair = cuda_repair(reason, str(getattr(ort, "cuda_version", "")), driver)
    return Finding("CUDA libraries", reason, False if required else None, repair)


def _run(device: str, name: str, *, required: bool = True) -> Finding:
    """Run a graph of one node there."""
    x = np.array([[-1.0, 2.0]], np.float32)
    try:
        (y,) = Session(relu_model(), device=device, example={"x": x}).run({"x": x})
    except GanError as error:
        repair = error.repair.removesuffix(f"; {ACCEPT_CPU}")
        return Finding(name, error.seen, False if required else None, repair)
    if (y == [[0.0, 2.0]]).all():
        return Finding(name, "works", True)
    again = f"{UNINSTALL} && {install_again(installed_packages())}"
    return Finding(name, f"computes wrongly: {y.tolist()}", False, again)


def relu_model() -> bytes:
    """A model y = Relu(x), float32 [batch, 2], written by hand: the runtime has no onnx package."""

    def field(number: int, content: bytes | int) -> bytes:
        if isinstance(content, int):
            return bytes([number << 3, content])
        return bytes([number << 3 | 2, len(content)]) + content

    def tensor(name: bytes) -> bytes:
        shape = field(1, field(2, b"batch")) + field(1, field(1, 2))
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    node = field(1, b"x") + field(2, b"y") + field(4, b"Relu")
    graph = field(1, node) + field(2, b"relu") + field(11, tensor(b"x")) + field(12, tensor(b"y"))
    return field(1, 8) + field(7, graph) + field(8, field(2, 17))
