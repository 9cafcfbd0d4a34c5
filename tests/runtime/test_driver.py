"""What the NVIDIA driver is asked, on a library that answers as the driver does."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from gan.runtime.driver import LIBRARY, Driver, ask_driver


class FakeDriver:
    """libcuda: version as 1000 * major + 10 * minor, cuInit's answer, and the names of its GPUs."""

    def __init__(self, version: int, init: int, *names: str) -> None:
        self.version, self.init, self.names = version, init, names

    def cuDriverGetVersion(self, out: Any) -> int:
        out._obj.value = self.version
        return 0

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, out: Any) -> int:
        assert not self.init, "asked a driver that is not initialised"
        out._obj.value = len(self.names)
        return 0

    def cuDeviceGet(self, out: Any, index: int) -> int:
        out._obj.value = index
        return 0

    def cuDeviceGetName(self, buffer: Any, size: int, handle: Any) -> int:
        buffer.value = self.names[handle.value].encode()[: size - 1]
        return 0

    def cuGetErrorString(self, failure: int, out: Any) -> int:
        out._obj.value = {100: b"no CUDA-capable device is detected"}.get(failure)
        return 0


def answer(monkeypatch: pytest.MonkeyPatch, library: object) -> Driver:
    def load(name: str) -> object:
        assert name == LIBRARY
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    return ask_driver()


def test_a_driver_tells_its_cuda_and_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(monkeypatch, FakeDriver(13010, 0, "NVIDIA H100", "NVIDIA T4"))
    assert found == Driver((13, 1), ("NVIDIA H100", "NVIDIA T4"))


@pytest.mark.parametrize(
    ("library", "found"),
    [
        (OSError("libcuda.so.1: cannot open"), Driver(reason="libcuda.so.1: cannot open")),
        (object(), Driver(reason="'object' object has no attribute 'cuDriverGetVersion'")),
        (
            FakeDriver(12080, 100),
            Driver((12, 8), (), "CUDA failure 100: no CUDA-capable device is detected"),
        ),
        (FakeDriver(0, 0), Driver(reason="libcuda.so.1 is a stub")),
        (FakeDriver(12080, 999), Driver((12, 8), (), "CUDA failure 999: unknown error")),
        (FakeDriver(12080, 0), Driver((12, 8), (), "CUDA failure 100: no CUDA-capable device is detected")),
    ],
)  # fmt: skip
def test_without_a_driver_or_a_gpu_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, library: object, found: Driver
) -> None:
    assert answer(monkeypatch, library) == found


def test_this_machine_answers_whatever_it_has() -> None:
    found = ask_driver()
    assert bool(found.gpus) != bool(found.reason)
