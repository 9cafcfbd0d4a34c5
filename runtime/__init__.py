"""Sample exported GANs without torch: `from gan.runtime import Generator`.

Importing this loads neither onnxruntime nor Pillow; making a `Generator` loads the first.
"""

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
from .search import search
from .signature import Draw, Field, Signature
from .styles import interpolate, mix

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
