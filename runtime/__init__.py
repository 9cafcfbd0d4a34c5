"""Sample exported GANs without torch: `from gan.runtime import Generator`.

Importing this loads neither onnxruntime nor Pillow; making a `Generator` loads the first. What few applications use is
imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from .cuda import CudaOptions
from .device_array import DeviceArray
from .errors import (
    CheckpointError,
    DatasetError,
    DeviceUnavailableError,
    ExportError,
    GanError,
    InputError,
    ModelFileError,
    ParityError,
    StorageError,
    TrainingDivergedError,
)
from .generator import Generator
from .signature import Draw, Field, Signature

if TYPE_CHECKING:
    from .latent_search import search
    from .styles import interpolate, mix

LATER = {"search": "latent_search", "interpolate": "styles", "mix": "styles"}

__all__ = [
    "CheckpointError",
    "CudaOptions",
    "DatasetError",
    "DeviceArray",
    "DeviceUnavailableError",
    "Draw",
    "ExportError",
    "Field",
    "GanError",
    "Generator",
    "InputError",
    "ModelFileError",
    "ParityError",
    "Signature",
    "StorageError",
    "TrainingDivergedError",
    "interpolate",
    "mix",
    "search",
]


def __getattr__(name: str) -> Any:
    """A function of a module that was not imported yet (PEP 562)."""
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(f".{LATER[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
