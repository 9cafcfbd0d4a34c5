"""The public names, and what importing and sampling may load."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from gan import runtime
from gan.runtime import Generator

PUBLIC = [
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


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_public_names_are_these() -> None:
    assert runtime.__all__ == PUBLIC


def test_every_public_name_is_there() -> None:
    assert all(getattr(runtime, name).__name__ == name for name in PUBLIC)


def test_importing_loads_no_engine_and_no_trainer() -> None:
    heavy = "onnxruntime PIL torch onnx typer gan.trainer gan.export"
    code = "import sys, gan.runtime; print(*[m for m in sys.argv[1:] if m in sys.modules])"
    assert python(code, *heavy.split()) == ""


def test_the_check_of_loaded_modules_sees_what_is_loaded() -> None:
    code = "import sys, gan.runtime; print(*[m for m in sys.argv[1:] if m in sys.modules])"
    assert python(code, "numpy", "PIL", "gan.runtime.latents") == "numpy gan.runtime.latents"


# Modules beside ours that numpy, onnxruntime and Pillow have not loaded already. importlib.metadata, concurrent.futures,
# secrets or hashlib would cost more than all of ours: each new name here is milliseconds of every start.
IMPORT = "_json _string copy dataclasses json logging string threading traceback"
DRAW = "base64 binascii _bisect _blake2 _hashlib _random _sha512 bisect hashlib hmac random secrets zlib"  # numpy.random's
NEW = """
import sys, numpy, onnxruntime, PIL.Image
def new(before):
    tops = {name.partition(".")[0] for name in set(sys.modules) - before}
    return sorted(tops - {"gan", "numpy", "PIL", "onnxruntime", "cython_runtime"} - set(before))
before = set(sys.modules)
import gan.runtime
print(*new(before))
loaded = set(sys.modules)
generator = gan.runtime.Generator(sys.argv[1], device="cpu")
print(*new(loaded))
opened = set(sys.modules)
generator.sample(1, seed=0)
print(*new(opened))
"""


def test_starting_loads_little_beside_numpy_onnxruntime_and_pillow(labelled_path: Path) -> None:
    imported, opened, sampled = (
        set(line.split()) for line in python(NEW, str(labelled_path)).split("\n")
    )
    assert imported <= set(IMPORT.split())
    assert opened == set()
    assert {name for name in sampled if not name.startswith("_cython")} <= set(DRAW.split())


def test_another_process_without_torch_samples_the_same_bytes(
    generator: Generator, labelled_path: Path
) -> None:
    code = """
import hashlib, sys
for name in ("torch", "onnx", "onnxscript", "typer", "gan.trainer", "gan.export"):
    sys.modules[name] = None  # importing it now raises ImportError
from gan.runtime import Generator
generator = Generator(sys.argv[1], device="cpu", threads=1, micro_batch=5)
generator.images(1, seed=1)
print(hashlib.sha256(generator.sample(40, seed=2**63, start=7).tobytes()).hexdigest(), generator.verify())
"""
    here = hashlib.sha256(generator.sample(40, seed=2**63, start=7).tobytes()).hexdigest()
    assert python(code, str(labelled_path)) == f"{here} exact"


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(runtime.__file__).parent / "py.typed").is_file()
