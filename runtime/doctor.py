"""What this machine has and lacks for sampling: packages, providers, CUDA libraries, each fault with its repair."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import sys
from dataclasses import dataclass

import numpy as np

from .cuda import CUDA, native_reason
from .errors import DeviceUnavailableError, GanError
from .session import (
    Session,
    available_cpus,
    check_device,
    check_packages,
    installed_packages,
    load_onnxruntime,
)

PACKAGES = ("numpy", "pillow", "typer", "torch", "onnx", "onnxscript", "tensorboard")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer. ok None: a fact, neither good nor bad."""

    name: str
    value: str
    ok: bool | None = None
    repair: str = ""


def examine(device: str = "auto") -> list[Finding]:
    """Everything worth knowing here. device: "cuda" makes a missing CUDA a fault, "cpu" leaves CUDA out."""
    check_device(device)
    findings = [
        Finding("python", platform.python_version(), sys.version_info >= (3, 11)),
        Finding("platform", f"{platform.platform()}, {available_cpus()} CPUs usable"),
        *(_package(name) for name in PACKAGES),
        _onnxruntime(),
    ]
    if findings[-1].ok:
        findings.append(_run("cpu", "CPU"))
        if device != "cpu":
            findings += _cuda(
                required=device != "auto", device="cuda" if device == "auto" else device
            )
    elif device.startswith("cuda"):
        findings.append(
            Finding("CUDA", "not tried: onnxruntime does not work", False, findings[-1].repair)
        )
    return findings


def _package(name: str) -> Finding:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return Finding(name, importlib.metadata.version(name))
    return Finding(name, "not installed")


def _onnxruntime() -> Finding:
    packages = ", ".join(f"{name} {version}" for name, version in installed_packages().items())
    try:
        check_packages()
        ort = load_onnxruntime()
    except DeviceUnavailableError as error:
        return Finding("onnxruntime", error.seen or packages, False, error.repair)
    providers = ", ".join(
        name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()
    )
    return Finding("onnxruntime", f"{packages or ort.__version__}; providers {providers}", True)


def _cuda(*, required: bool, device: str) -> list[Finding]:
    ort = load_onnxruntime()
    if CUDA in ort.get_available_providers():
        reason = native_reason(ort)
        libraries = Finding("CUDA libraries", reason or "load", not reason if required else None)
        return [libraries, _run(device, "CUDA", required=required)]
    return [_run(device, "CUDA", required=required)]


def _run(device: str, name: str, *, required: bool = True) -> Finding:
    """Run a graph of one node there."""
    x = np.array([[-1.0, 2.0]], np.float32)
    try:
        (y,) = Session(relu_model(), device=device, example={"x": x}).run({"x": x})
    except GanError as error:
        return Finding(name, error.seen, False if required else None, error.repair)
    return Finding(name, "works", bool((y == [[0.0, 2.0]]).all()))


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
