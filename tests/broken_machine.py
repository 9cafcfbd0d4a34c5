"""Python that starts on a broken machine: packages gone, libraries missing, a driver and an onnxruntime as faults want
them. What breaks is in the environment of a process, so that nothing of ours is patched in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

GONE = "cannot open shared object file: No such file or directory"
SITE = """
import ctypes, importlib.machinery, json, os

broken = json.loads(os.environ["BROKEN"])
gone, half = broken.get("gone", []), broken.get("half", [])
finder, load = importlib.machinery.PathFinder, ctypes.CDLL
find, find_versions = finder.find_spec, finder.find_distributions


def find_spec(name, path=None, target=None):
    package = name.partition(".")[0]
    if package in gone:
        return None
    return find(name, [os.path.dirname(__file__)] if name in half else path, target)


def find_distributions(context):
    return [] if context.name in gone else find_versions(context)


class Driver:
    def cuDriverGetVersion(self, out):
        out._obj.value = broken["driver"]["version"]
        return 0

    def cuInit(self, flags):
        return 0 if broken["driver"]["gpus"] else 100

    def cuDeviceGetCount(self, out):
        out._obj.value = broken["driver"]["gpus"]
        return 0

    def cuDeviceGet(self, out, index):
        return 0

    def cuDeviceGetName(self, name, size, handle):
        name.value = b"NVIDIA H100"
        return 0

    def cuGetErrorString(self, failure, out):
        out._obj.value = b"no CUDA-capable device is detected"
        return 0


def library(name=None, *rest, **more):
    base = os.path.basename(str(name))
    if base in broken.get("libraries", ()):
        raise OSError(broken["libraries"][base])
    if base == "libcuda.so.1" and "driver" in broken:
        return Driver()
    if base.startswith("libonnxruntime_providers") or base.startswith("libcudnn"):
        return None  # loads
    return load(name, *rest, **more)


finder.find_spec, finder.find_distributions = map(staticmethod, (find_spec, find_distributions))
ctypes.CDLL = library
"""
ONNXRUNTIME = """
import json, os, sys
import numpy as np

broken = json.loads(os.environ["BROKEN"])["onnxruntime"]
print(broken.get("stderr", ""), file=sys.stderr, end="")
if "import" in broken:
    raise getattr(__builtins__, "__dict__", __builtins__).get(broken["import"][0], SystemError)(broken["import"][1])
__version__, cuda_version = broken.get("version", "1.31.1"), broken.get("cuda_version", "13.0")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def get_available_providers():
    return [CUDA, CPU] if broken.get("gpu", True) else [CPU]


def set_default_logger_severity(severity):
    pass


def preload_dlls(directory):
    print(broken.get("printed", ""))


class SessionOptions:
    def add_session_config_entry(self, key, value):
        pass


class RunOptions:
    def add_run_config_entry(self, key, value):
        pass


class InferenceSession:
    def __init__(self, data, options, *, providers, enable_fallback):
        self.wanted = [one if isinstance(one, str) else one[0] for one in providers]
        if CUDA in self.wanted and "refusal" in broken:
            raise RuntimeError(broken["refusal"])

    def get_providers(self):
        return self.wanted + [CPU] if CUDA in self.wanted and "failure" in broken else [CPU]

    def disable_fallback(self):
        pass

    def get_outputs(self):
        return []

    def io_binding(self):
        raise RuntimeError(broken["failure"])

    def run(self, outputs, inputs):
        first = next(iter(inputs.values()))
        return [np.maximum(first, 0) if "x" in inputs else np.zeros((len(first), 8, 8, 3), np.uint8)]
"""


def break_machine(folder: Path, broken: dict[str, Any]) -> dict[str, str]:
    """The environment of a process that is to run on it. folder: an empty one, which then holds packages.

    broken: "gone" packages, and those of which "half" is left; "libraries" that do not load, each with the loader's words; a "driver" of a version with so
    many gpus; an "onnxruntime" of a version, which raises at its "import", lands on the CPU in silence, or fails with
    "refusal" at a session of CUDA's or with "failure" at its first batch; "installed" distributions of it.
    """
    (folder / "sitecustomize.py").write_text(SITE)
    if "onnxruntime" in broken:
        (folder / "onnxruntime").mkdir()
        (folder / "onnxruntime" / "__init__.py").write_text(ONNXRUNTIME)
    for name in broken.get("installed", ()):
        (folder / f"{name}.dist-info").mkdir()
        (folder / "onnxruntime" / "capi").mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "BROKEN": json.dumps(broken)}
