"""The CUDA side of the device contract: options, the pip libraries, a session that is on the GPU or a typed error.

No GPU has run the options yet: what they gain is unmeasured.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .driver import ask_driver
from .errors import DeviceUnavailableError
from .inputs import Array
from .repairs import ACCEPT_CPU, INSTALL_CUDA12, REINSTALL, cuda_repair, native_words
from .values import check_choice, check_flag, check_integer, check_path, refused

logger = logging.getLogger("gan.runtime")

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
PROVIDER = "onnxruntime_providers_{}.dll" if os.name == "nt" else "libonnxruntime_providers_{}.so"
SEARCHES = ("heuristic", "exhaustive", "default")
Search = Literal["heuristic", "exhaustive", "default"]
Create = Callable[[list[Any]], Any]  # a session on these providers


@dataclass(frozen=True)
class CudaOptions:
    """How a graph runs on an NVIDIA GPU. Speeds are unmeasured. Raises `InputError` for a value that it does not take.

    memory_limit: bytes of the session's arena, which holds weights and intermediate results; the buffers of inputs and
    outputs and CUDA's own memory come on top. tf32: faster products with 10 bits of mantissa; images differ then from
    the CPU's by more than rounding. graphs: capture CUDA graphs where the model allows it. prefer_nhwc: convolutions
    with channels last. search: how cuDNN chooses a convolution; "exhaustive" makes the first batch of each size slow.
    tensorrt: build TensorRT engines, which takes minutes at the first run; TensorRT uses TF32 whatever `tf32` says,
    unless NVIDIA_TF32_OVERRIDE=0 is in the environment. tensorrt_cache: a folder that keeps the engines, for this GPU and
    this TensorRT only; nothing is written without it, and engines in it are trusted as programs are.
    """

    memory_limit: int | None = None
    tf32: bool = False
    graphs: bool = True
    prefer_nhwc: bool = False
    search: Search = "heuristic"
    tensorrt: bool = False
    tensorrt_cache: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.memory_limit is not None:
            check_integer("memory limit", self.memory_limit, 1 << 20, 2**63 - 1)
        for name in ("tf32", "graphs", "prefer_nhwc", "tensorrt"):
            check_flag(name, getattr(self, name))
        check_choice("search", self.search, SEARCHES)
        if self.tensorrt_cache is not None:
            cache = self.tensorrt_cache
            if not check_path("tensorrt_cache", cache).is_dir():
                raise refused("tensorrt_cache", cache, "Give a folder that exists")
            if not self.tensorrt:
                raise refused("tensorrt_cache", cache, "Give tensorrt=True with it")


def providers(
    options: CudaOptions,
    index: int,
    *,
    example: Mapping[str, Array],
    buckets: Sequence[int],
    fixed_size: bool,
    graphs: bool,
) -> list[tuple[str, dict[str, str]]]:
    """onnxruntime's provider list. fixed_size: the batch is the only dynamic axis. graphs: capture CUDA graphs."""
    cuda = {
        "device_id": str(index),
        "use_tf32": str(int(options.tf32)),
        "cudnn_conv_algo_search": options.search.upper(),
        "prefer_nhwc": str(int(options.prefer_nhwc)),
        "do_copy_in_default_stream": "1",  # 0 lets a kernel start before its input has arrived
    }
    if options.memory_limit is not None:
        cuda["gpu_mem_limit"] = str(options.memory_limit)
        # Doubling steps would meet the limit with half of the memory unused.
        cuda["arena_extend_strategy"] = "kSameAsRequested"
    if graphs:
        cuda["enable_cuda_graph"] = "1"
    if not options.tensorrt:
        return [(CUDA, cuda)]
    tensorrt = {"device_id": str(index)}
    if options.memory_limit is not None:
        tensorrt["trt_max_workspace_size"] = str(options.memory_limit)
    if fixed_size:  # one engine for all buckets; else it is built anew for each larger batch
        tensorrt |= _profile(example, buckets)
    if options.tensorrt_cache is not None:
        folder = os.fspath(options.tensorrt_cache)
        tensorrt |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
        tensorrt |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    return [(TENSORRT, tensorrt), (CUDA, cuda)]


def _profile(example: Mapping[str, Array], buckets: Sequence[int]) -> dict[str, str]:
    """TensorRT's range of shapes: batches of 1 to the largest bucket, the largest being what it is tuned for."""

    def shapes(batch: int) -> str:
        each = ((name, (batch, *array.shape[1:])) for name, array in example.items())
        return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in each)

    return {
        "trt_profile_min_shapes": shapes(1),
        "trt_profile_opt_shapes": shapes(max(buckets)),
        "trt_profile_max_shapes": shapes(max(buckets)),
    }


def open_cuda(
    ort: Any,
    create: Create,
    index: int,
    options: CudaOptions,
    *,
    example: Mapping[str, Array],
    buckets: Sequence[int],
    fixed_size: bool,
) -> tuple[Any, bool]:
    """An onnxruntime session on this GPU, and whether it captures graphs. create: makes a session on providers.

    Raises `DeviceUnavailableError` with the native reason where the GPU would not be used.
    """
    available = ort.get_available_providers()
    if CUDA not in available:
        raise DeviceUnavailableError(
            "CUDA cannot be used",
            seen=f"onnxruntime {ort.__version__} is the CPU package",
            repair=f"{REINSTALL} (or, for a driver of CUDA 12: {INSTALL_CUDA12}); {ACCEPT_CPU}",
        )
    if options.tensorrt and TENSORRT not in available:
        raise DeviceUnavailableError(
            "TensorRT cannot be used",
            seen=f"onnxruntime {ort.__version__} was built without it",
            repair="Leave tensorrt out",
        )
    said = preload_cuda_libraries(ort)

    def asked(graphs: bool) -> list[Any]:
        return list(
            providers(
                options,
                index,
                example=example,
                buckets=buckets,
                fixed_size=fixed_size,
                graphs=graphs,
            )
        )

    graphs = options.graphs and not options.tensorrt
    try:
        session = create(asked(graphs))
    except (
        DeviceUnavailableError
    ) as error:  # as it is for a graph with loops, or with nodes on the CPU
        if options.tensorrt:
            raise _without_tensorrt(ort, error.seen) from error
        if not graphs:
            raise unavailable(ort, error.failed, _said(ort, error)) from error
        try:
            session, graphs = create(asked(False)), False
        except DeviceUnavailableError as again:
            raise unavailable(ort, again.failed, _said(ort, again)) from again
        logger.info("No CUDA graphs: %.300s", error.seen)
    _check_providers(ort, session, options.tensorrt, said)
    session.disable_fallback()
    return session, graphs


def _check_providers(ort: Any, session: Any, tensorrt: bool, said: str) -> None:
    """onnxruntime leaves a provider out in silence when its library does not load."""
    present = session.get_providers()
    if CUDA not in present:
        raise unavailable(
            ort,
            "CUDA was requested but onnxruntime made the session on the CPU",
            native_reason(ort) or said or "the CUDA provider did not load, without a reason",
        )
    if tensorrt and present[0] != TENSORRT:
        raise _without_tensorrt(ort, said)


def _without_tensorrt(ort: Any, said: str) -> DeviceUnavailableError:
    reason = native_reason(ort, "tensorrt") or said
    return DeviceUnavailableError(
        "TensorRT was requested but onnxruntime made no session with it",
        seen=(reason or "the TensorRT provider did not load, without a reason")[:300],
        repair="Install the TensorRT libraries that this onnxruntime was built for, or leave tensorrt out",
    )


def _said(ort: Any, error: DeviceUnavailableError) -> str:
    """Why no session was made; where CUDA_PATH is set, onnxruntime raises what it leaves out in silence elsewhere."""
    return (native_reason(ort) if "CUDA_PATH" in error.seen else "") or error.seen


def unavailable(ort: Any, failed: str, said: str) -> DeviceUnavailableError:
    """The error for a GPU that is not used, with its repair, and what the driver says if that says more."""
    seen, driver = native_words(said), ask_driver()
    repair = cuda_repair(seen, str(getattr(ort, "cuda_version", "")), driver)
    if driver.reason and driver.reason not in seen:
        seen = f"{seen.rstrip('.')}; the driver: {native_words(driver.reason)}"
    return DeviceUnavailableError(failed, seen=seen, repair=f"{repair}; {ACCEPT_CPU}")


def report_placement(session: Any) -> None:
    """Log which nodes run on the CPU although the session is on a GPU."""
    placed = getattr(session, "get_provider_graph_assignment_info", None)
    on_cpu = [
        node.op_type
        for part in (placed() if placed else [])
        if part.ep_name == CPU
        for node in part.get_nodes()
    ]
    if on_cpu:
        logger.warning("%d nodes run on the CPU: %s", len(on_cpu), ", ".join(sorted(set(on_cpu))))


def preload_cuda_libraries(ort: Any) -> str:
    """Load the CUDA libraries of pip's nvidia packages; what onnxruntime printed about it comes back as text."""
    if not hasattr(ort, "preload_dlls"):
        return ""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(Exception):
        ort.preload_dlls(directory="")
    return " ".join(printed.getvalue().split())


def native_reason(ort: Any, provider: str = "cuda") -> str:
    """Why a provider's library does not load, in the loader's own words; "" where it does."""
    folder = Path(ort.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / PROVIDER.format("shared")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / PROVIDER.format(provider)))
    except OSError as error:
        return str(error)
    return ""
