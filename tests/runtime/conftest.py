"""Tiny ONNX generators written by hand, and references for what the runtime draws, none of them the runtime's own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import statistics
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gan.runtime import Generator, cuda, doctor, session
from gan.runtime.cpu import CpuEngine
from gan.runtime.driver import Driver

Array = NDArray[Any]
Edit = Callable[[onnx.ModelProto], object]
CLASSES = ("1", "2", "10")
SIDE = 8
IMAGE_BYTES = SIDE * SIDE * 3
TORTURE = bool(os.environ.get("GAN_TORTURE"))
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}


# The reference of the latent stream, in plain Python integers.


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox4x64-10 of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011)."""
    mask = 2**64 - 1
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (b >> 64) ^ c1 ^ k0, b & mask, (a >> 64) ^ c3 ^ k1, a & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return c0, c1, c2, c3


def reference_words(seed: int, stream: int, index: int, count: int) -> list[int]:
    blocks = (philox((seed, stream), (block, 0, index, 0)) for block in range(1, count // 4 + 2))
    return [word for block in blocks for word in block][:count]


def reference_normal(word: int) -> float:
    magnitude = -statistics.NormalDist().inv_cdf(((word >> 12) + 0.5) * 2.0**-53)
    return as_float32(-magnitude if word & 1 else magnitude)


def reference_uniform(word: int) -> float:
    return (word >> 40) / 2**24


def as_float32(x: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


def reference_value(field: Mapping[str, Any], word: int) -> float:
    """One value of an input, for a field as JSON content."""
    draw = field.get("draw")
    if draw is None:  # a stand-in: standard normal, or uniform in the range
        low, high = field.get("range", (0, 0))
        return (
            reference_uniform(word) * (high - low) + low if low < high else reference_normal(word)
        )
    if draw["kind"] == "normal":
        return reference_normal(word)
    if draw["kind"] == "uniform":
        return reference_uniform(word)
    if draw["kind"] == "choice":
        return word * (int(field["range"][1]) + 1) >> 64
    return float(draw["value"])


def reference_inputs(
    signature: Mapping[str, Any], seed: int, indices: Sequence[int]
) -> dict[str, Array]:
    """What images `indices` of `seed` are made of, for a signature as JSON content.

    A shared input is that of image 0 of seed 0; one without a draw has stand-ins from stream 2^32 + its place.
    """
    inputs = {}
    for place, field in enumerate(signature["inputs"]):
        size = int(np.prod(field["shape"], dtype=int))
        draw = field.get("draw") or {"stream": 2**32 + place}
        keys = [(0, 0) if draw.get("shared") else (seed, index) for index in indices]
        rows = [reference_words(s, draw["stream"], index, size) for s, index in keys]
        values = [[reference_value(field, word) for word in row] for row in rows]
        inputs[field["name"]] = np.array(values, field["dtype"]).reshape(len(rows), *field["shape"])
    return inputs


def bare_run(data: bytes, inputs: Mapping[str, Array]) -> Array:
    """The first output of a plain onnxruntime session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    plain = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(plain.run(None, dict(inputs))[0])


# The tiny generators: z and label (and truncation, and noise) to uint8 images of 8 x 8 x 3.


def tiny_signature(
    *,
    labels: bool = True,
    truncation: bool = False,
    noise: bool = False,
    shared: bool = False,
    draw: str = "normal",
) -> dict[str, Any]:
    """The signature of `tiny_model` as the JSON content that the file's format prescribes."""
    z: dict[str, Any] = {"name": "z", "shape": [4], "kind": "latent", "dtype": "float32"}
    z["draw"] = {"kind": draw, "stream": 0}
    inputs = [z]
    if labels:
        label = {"name": "label", "shape": [], "kind": "label", "dtype": "int64", "range": [0, 2]}
        inputs.append({**label, "draw": {"kind": "choice", "stream": 1}})
    if truncation:
        psi = {
            "name": "truncation",
            "shape": [],
            "kind": "scalar",
            "dtype": "float32",
            "range": [0, 1],
        }
        inputs.append({**psi, "draw": {"kind": "fixed", "stream": 2, "value": 1.0}})
    if noise:
        eps = {"name": "noise", "shape": [SIDE, SIDE], "kind": "noise", "dtype": "float32"}
        inputs.append({**eps, "draw": {"kind": "normal", "stream": 16}})
        if shared:
            inputs[-1]["draw"]["shared"] = True
    image = {
        "name": "image",
        "shape": [SIDE, SIDE, 3],
        "kind": "image",
        "dtype": "uint8",
        "range": [0, 255],
    }
    classes = list(CLASSES) if labels else []
    return {"format": 1, "inputs": inputs, "outputs": [image], "classes": classes}


def tiny_graph(signature: Mapping[str, Any]) -> onnx.GraphProto:
    names = [field["name"] for field in signature["inputs"]]
    rng = np.random.RandomState(7)
    weights = {
        "embedding": rng.randn(3, 4),
        "w": rng.randn(8 if "label" in names else 4, IMAGE_BYTES) * 0.4,
        "half": np.array(127.5),
        "low": np.array(0.0),
        "high": np.array(255.0),
    }
    constants = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    constants.append(numpy_helper.from_array(np.array([-1, 3, SIDE, SIDE]), "shape"))
    if not {"truncation", "noise"}.isdisjoint(names):
        constants.append(numpy_helper.from_array(np.array([1]), "one"))
    nodes, z = [], "z"
    if "truncation" in names:
        nodes.append(helper.make_node("Unsqueeze", ["truncation", "one"], ["psi"]))
        nodes.append(helper.make_node("Mul", [z, "psi"], ["z_truncated"]))
        z = "z_truncated"
    if "label" in names:
        nodes.append(helper.make_node("Gather", ["embedding", "label"], ["embedded"]))
        nodes.append(helper.make_node("Concat", [z, "embedded"], ["joined"], axis=1))
        z = "joined"
    nodes.append(helper.make_node("MatMul", [z, "w"], ["flat"]))
    nodes.append(helper.make_node("Reshape", ["flat", "shape"], ["x"]))
    x = "x"
    if "noise" in names:
        nodes.append(helper.make_node("Unsqueeze", ["noise", "one"], ["noise_4d"]))
        nodes.append(helper.make_node("Add", [x, "noise_4d"], ["noisy"]))
        x = "noisy"
    nodes += [
        helper.make_node("Tanh", [x], ["y"]),
        helper.make_node("Mul", ["y", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["shifted"]),
        helper.make_node("Clip", ["shifted", "low", "high"], ["clipped"]),
        helper.make_node("Round", ["clipped"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["image"], perm=[0, 2, 3, 1]),
    ]
    inputs, outputs = (
        [
            helper.make_tensor_value_info(
                field["name"], TYPES[field["dtype"]], ["batch", *field["shape"]]
            )
            for field in signature[side]
        ]
        for side in ("inputs", "outputs")
    )
    return helper.make_graph(nodes, "generator", inputs, outputs, constants)


def seal(
    graph: onnx.GraphProto, signature: Mapping[str, Any], checkpoint: str | None = None
) -> bytes:
    """The file of a graph, with the metadata that the format prescribes, golden sample included.

    checkpoint: the digest of the weights that it was exported from.
    """
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    images = bare_run(model.SerializeToString(), reference_inputs(signature, 0, range(2)))
    golden = {
        "format": 1,
        "seed": 0,
        "count": 2,
        "dtype": images.dtype.name,
        "values": [base64.b64encode(image.tobytes()).decode() for image in images],
        "sha256": hashlib.sha256(images.tobytes()).hexdigest(),
    }
    sections = {
        "signature": signature,
        "latents": {"version": 1},
        "golden": golden,
        "weights": {
            "graph": hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest(),
            **({"checkpoint": checkpoint} if checkpoint else {}),
        },
    }
    for name, content in sections.items():
        model.metadata_props.add(key=f"gan.{name}", value=json.dumps(content))
    return model.SerializeToString(deterministic=True)


def tiny_model(**parts: Any) -> bytes:
    signature = tiny_signature(**parts)
    return seal(tiny_graph(signature), signature)


def brought_signature(**about: Any) -> dict[str, Any]:
    """The signature of a tiny model with an input `noise` that the caller brings: no draw, `about` as given."""
    signature = tiny_signature(noise=True)
    del signature["inputs"][-1]["draw"]
    signature["inputs"][-1] |= about
    return signature


def edited(data: bytes, edit: Edit) -> bytes:
    """The file after `edit` of its ModelProto."""
    model = onnx.load_model_from_string(data)
    edit(model)
    return model.SerializeToString(deterministic=True)


def metadata(data: bytes) -> dict[str, Any]:
    """The sections of a file, as onnx's own reader sees them."""
    model = onnx.load_model_from_string(data)
    return {p.key.removeprefix("gan."): json.loads(p.value) for p in model.metadata_props}


def with_metadata(data: bytes, **sections: Any) -> bytes:
    """The file with these sections replaced: a str as it stands, None removed, all else as JSON."""

    def edit(model: onnx.ModelProto) -> None:
        for name, content in sections.items():
            kept = [entry for entry in model.metadata_props if entry.key != f"gan.{name}"]
            del model.metadata_props[:]
            model.metadata_props.extend(kept)
            if content is not None:
                text = content if isinstance(content, str) else json.dumps(content)
                model.metadata_props.add(key=f"gan.{name}", value=text)

    return edited(data, edit)


@pytest.fixture(scope="session")
def labelled() -> bytes:
    """z [4] and label of the classes 1, 2, 10 -> image uint8 [8, 8, 3]."""
    return tiny_model()


@pytest.fixture(scope="session")
def unlabelled() -> bytes:
    """z [4] -> image uint8 [8, 8, 3]."""
    return tiny_model(labels=False)


@pytest.fixture(scope="session")
def generator(labelled: bytes) -> Generator:
    return Generator(labelled, device="cpu", threads=1)


@pytest.fixture(scope="session")
def labelled_path(labelled: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "digits.onnx"
    path.write_bytes(labelled)
    return path


def watch_runs(monkeypatch: pytest.MonkeyPatch, look: Callable[[dict[str, Array]], object]) -> None:
    """`look` at the inputs of every run of a graph on a CPU from here on, before it."""
    run = CpuEngine._timed

    def watched(self: CpuEngine, session: Any, pace: Any, inputs: Any, outputs: Any) -> Any:
        look(dict(inputs))
        return run(self, session, pace, inputs, outputs)

    monkeypatch.setattr(CpuEngine, "_timed", watched)


@pytest.fixture
def no_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any step towards onnxruntime fails the test."""

    def forbidden() -> NoReturn:
        pytest.fail("onnxruntime was asked to look at the file")

    monkeypatch.setattr(session, "load_onnxruntime", forbidden)


# An onnxruntime that says and does what a test wants: no GPU is needed to see what happens without one.

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))


class FakeValue:
    """An OrtValue: numpy() is a copy of what is on a GPU, and a view of what is on a CPU, as it is in onnxruntime."""

    def __init__(self, array: Array, device: str) -> None:
        self.array, self.device = array, device

    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], kind: Any, device: str, index: int
    ) -> FakeValue:
        if isinstance(kind, int):
            kind = helper.tensor_dtype_to_np_dtype(kind)
        return FakeValue(np.full(shape, 77, kind), device)

    def update_inplace(self, array: Array) -> None:
        assert array.flags.c_contiguous and array.shape == self.array.shape
        assert array.dtype == self.array.dtype
        self.array[...] = array

    def shape(self) -> list[int]:
        return list(self.array.shape)

    def element_type(self) -> int:
        return int(helper.np_dtype_to_tensor_dtype(self.array.dtype))

    def tensor_size_in_bytes(self) -> int:
        return self.array.nbytes

    def numpy(self) -> Array:
        return self.array.copy() if self.device == "cuda" else self.array.view()

    def data_ptr(self) -> int:
        return self.array.ctypes.data


class FakeBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, FakeValue] = {}
        self.outputs: dict[str, FakeValue | None] = {}  # None: onnxruntime allocates
        self.made: list[FakeValue] = []

    def bind_ortvalue_input(self, name: str, value: FakeValue) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: FakeValue) -> None:
        self.outputs[name] = value

    def bind_output(self, name: str, device: str, index: int) -> None:
        self.outputs[name] = None

    def get_outputs(self) -> list[FakeValue]:
        return self.made


class FakeRunOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_run_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class FakeCall(NamedTuple):
    """One run: gpu_graph_id, batch size, addresses of the input and, where it was bound, of the output."""

    graph: str | None
    batch: int
    source: int
    target: int | None


class FakeSession:
    """Doubles its input x, on the provider where `ort` lets it land."""

    def __init__(
        self, data: bytes, options: Any, *, providers: list[Any], enable_fallback: int
    ) -> None:
        self.data, self.options, self.asked, self.enable_fallback = (
            data,
            options,
            providers,
            enable_fallback,
        )
        self.fallback_disabled = False
        self.runs = 0
        self.calls: list[FakeCall] = []
        self.captured: dict[str, FakeBinding] = {}
        self.threads: set[int] = set()
        self.running = threading.Lock()
        ort = sys.modules["onnxruntime"]
        self.ort: Any = ort
        self.wanted = [one if isinstance(one, str) else one[0] for one in providers]
        refused = [name for name in self.ort.refuses if name in self.wanted]
        if refused:
            raise RuntimeError(self.ort.refusal or f"{refused[0]} refused the model")
        if self.ort.refuses_graphs and self.option("enable_cuda_graph"):
            raise RuntimeError("This session cannot use the graph capture feature")
        self.ort.sessions.append(self)

    def option(self, name: str) -> str | None:
        """Of the CUDA provider."""
        found = {one[0]: one[1] for one in self.asked if not isinstance(one, str)}
        return found.get(CUDA, {}).get(name)

    def get_providers(self) -> list[str]:
        loads = {CUDA: self.ort.cuda_loads, TENSORRT: self.ort.tensorrt_loads, CPU: False}
        return [*(name for name in self.wanted if loads[name]), CPU]

    def disable_fallback(self) -> None:
        self.fallback_disabled = True

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="y")]

    def compute(self, x: Array) -> Array:
        return 2 * x

    def run(self, outputs: list[str] | None, inputs: dict[str, Array]) -> list[Array]:
        self._count()
        return [self.compute(inputs["x"])]

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run_with_iobinding(self, binding: FakeBinding, options: FakeRunOptions | None) -> None:
        """As CUDA does: a captured graph reads and writes where it was captured, whatever is bound now."""
        assert self.running.acquire(blocking=False), "two runs at once"
        try:
            graph = options.entries["gpu_graph_id"] if options else None
            assert (graph is not None) == (self.option("enable_cuda_graph") == "1")
            self.threads.add(threading.get_ident())
            bound = binding.outputs["y"]
            self.calls.append(
                FakeCall(
                    graph,
                    len(binding.inputs["x"].array),
                    binding.inputs["x"].data_ptr(),
                    bound.data_ptr() if bound else None,
                )
            )
            self.ort.while_running()
            self._count()
            if graph not in (None, "-1"):
                assert bound, "a graph was captured with memory that is free after the run"
                if graph not in self.captured and self.ort.breaks_capture:
                    raise RuntimeError("operation not permitted when stream is capturing")
                binding = self.captured.setdefault(str(graph), binding)
                bound = binding.outputs["y"]
            made = self.compute(binding.inputs["x"].array)
            binding.made = [bound or FakeValue(np.empty_like(made), "cuda")]
            binding.made[0].array[...] = made
        finally:
            self.running.release()

    def _count(self) -> None:
        self.runs += 1
        spared = self.ort.spares_the_cpu and CUDA not in self.wanted
        if 0 < self.ort.fails_at_run <= self.runs and not spared:  # a fault of CUDA stays
            raise RuntimeError(self.ort.failure)

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            SimpleNamespace(
                ep_name=provider,
                get_nodes=lambda types=types: [SimpleNamespace(op_type=one) for one in types],
            )
            for provider, types in self.ort.placement.items()
        ]


class FakeOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        assert key not in self.entries
        self.entries[key] = value


class FakeOrt(ModuleType):
    """cuda_loads False: offers CUDA, and makes its sessions on the CPU without a word, as onnxruntime does."""

    __version__ = "1.99"
    SessionOptions = FakeOptions
    InferenceSession = FakeSession
    OrtValue = FakeValue
    RunOptions = FakeRunOptions

    def __init__(self, folder: Path) -> None:
        super().__init__("onnxruntime")
        self.__file__ = str(folder / "__init__.py")
        self.available = [CUDA, CPU]
        self.cuda_version = "13.0"
        self.driver = Driver((13, 0), ("NVIDIA H100",))  # this machine's, whatever it has
        self.cuda_loads = True
        self.refuses: tuple[str, ...] = ()
        self.refusal = ""  # its words, if not our own
        self.fails_at_run = 0
        self.failure = "CUDA failure 700: an illegal memory access was encountered"
        self.spares_the_cpu = False
        self.tensorrt_loads = True
        self.refuses_graphs = False
        self.breaks_capture = False
        self.while_running: Callable[[], object] = lambda: None
        self.placement: dict[str, list[str]] = {}
        self.preloaded: list[str] = []
        self.printed = ""
        self.sessions: list[FakeSession] = []

    def get_available_providers(self) -> list[str]:
        return self.available

    def set_default_logger_severity(self, severity: int) -> None:
        self.severity = severity

    def preload_dlls(self, directory: str) -> None:
        self.preloaded.append(directory)
        print(self.printed)


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeOrt:
    """A GPU package of onnxruntime that works, until the test changes it."""
    fake = FakeOrt(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(session, "installed_packages", lambda: {"onnxruntime-gpu": "1.99"})
    for module in (cuda, doctor):
        monkeypatch.setattr(module, "ask_driver", lambda: fake.driver)
    return fake
