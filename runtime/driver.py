"""What the NVIDIA driver says of itself and of its GPUs, asked by ctypes: neither CUDA nor onnxruntime is needed."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


@dataclass(frozen=True)
class Driver:
    """cuda: the newest CUDA that it runs, as (13, 0); None where there is no driver. gpus: names of those that this
    process may use. reason: why there is no driver, or no GPU."""

    cuda: tuple[int, int] | None = None
    gpus: tuple[str, ...] = ()
    reason: str = ""


def ask_driver() -> Driver:
    """Takes a tenth of a second where there is a GPU. Makes no CUDA context."""
    try:
        library = ctypes.CDLL(LIBRARY)
        version, count = ctypes.c_int(), ctypes.c_int()
        library.cuDriverGetVersion(ctypes.byref(version))
        failure = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError) as error:
        return Driver(reason=f"{error}")
    if not version.value:
        return Driver(reason=f"{LIBRARY} is a stub")
    cuda = (version.value // 1000, version.value % 1000 // 10)
    if failure or not count.value:
        return Driver(cuda, reason=_words(library, failure or 100))
    return Driver(cuda, tuple(_name(library, index) for index in range(count.value)))


def _words(library: Any, failure: int) -> str:
    """As onnxruntime words the same failure."""
    text = ctypes.c_char_p()
    library.cuGetErrorString(failure, ctypes.byref(text))
    return f"CUDA failure {failure}: {(text.value or b'unknown error').decode(errors='replace')}"


def _name(library: Any, index: int) -> str:
    handle, name = ctypes.c_int(), ctypes.create_string_buffer(128)
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    return name.value.decode(errors="replace")
