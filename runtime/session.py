"""The onnxruntime session and the device contract: "cuda" means CUDA or a typed error, never a silent CPU.

The only module that imports onnxruntime, and only when a session is made.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .errors import DeviceUnavailableError, InputError, ModelFileError, shown
from .latents import check_integer

logger = logging.getLogger("gan.runtime")

Array = NDArray[Any]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
PACKAGES = ("onnxruntime", "onnxruntime-gpu")
INSTALL_CPU = "pip install 'gan-toolchain[cpu]'"
INSTALL_CUDA = "pip install 'gan-toolchain[cuda]'"
REINSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu && " + INSTALL_CUDA
ACCEPT_CPU = 'device="auto" accepts the CPU'


class Session:
    """One graph on one device. `run` may be called from several threads at once."""

    def __init__(
        self,
        data: bytes,
        *,
        device: str = "auto",
        threads: int | None = None,
        example: Mapping[str, Array],
        profile: Path | None = None,
    ) -> None:
        """device: "auto", "cpu", "cuda" or "cuda:N". threads: of the CPU, default what the cgroup grants.
        example: one batch of inputs, run once on CUDA to prove that it works. profile: a folder where onnxruntime notes what each node takes, until
        `native.end_profiling()` names the file.

        Raises `DeviceUnavailableError`, `InputError` for an unknown device, `ModelFileError` for a graph that
        onnxruntime refuses.
        """
        if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", device):
            raise InputError(
                "The device was refused",
                seen=f"device={shown(device)}",
                repair='Give "auto", "cpu", "cuda" or "cuda:N"',
            )
        if threads is not None:
            threads = check_integer("thread count", threads, 1, 1024)
        self.threads = threads or available_cpus()
        self._profile = profile
        self._ort = load_onnxruntime()
        self._session, self.device = self._open(data, device, example)

    @property
    def providers(self) -> list[str]:
        return list(self._session.get_providers())

    @property
    def native(self) -> Any:
        """onnxruntime's own session, to be measured beside this one."""
        return self._session

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """The graph's outputs for these inputs, in the graph's order (or of the named ones).

        Raises `ModelFileError` for a graph that fails on the CPU, `DeviceUnavailableError` for one that fails on CUDA.
        """
        try:
            return self._session.run(list(outputs) if outputs else None, dict(inputs))
        except Exception as error:  # as in _create
            if self.device == "cpu":
                raise ModelFileError(
                    "onnxruntime failed while it ran the model",
                    seen=f"{error!s:.300}",
                    repair="The file is damaged, or needs more memory than there is",
                ) from error
            raise DeviceUnavailableError(
                f"{self.device} failed while it ran the model",
                seen=f"{error!s:.300}",
                repair="See `gan doctor --device cuda`, or take a smaller micro-batch",
            ) from error

    def _open(self, data: bytes, device: str, example: Mapping[str, Array]) -> tuple[Any, str]:
        if device == "cpu":
            return self._create(data, [CPU]), "cpu"
        index = int(device.partition(":")[2] or 0)
        try:
            return self._open_cuda(data, index, example), f"cuda:{index}"
        except DeviceUnavailableError as error:
            if device != "auto":
                raise
            log = logger.warning if importable_gpu_package() else logger.info
            log("Sampling on the CPU: %s", error)
            return self._create(data, [CPU]), "cpu"

    def _open_cuda(self, data: bytes, index: int, example: Mapping[str, Array]) -> Any:
        check_packages()
        if CUDA not in self._ort.get_available_providers():
            raise DeviceUnavailableError(
                "CUDA cannot be used",
                seen=f"onnxruntime {self._ort.__version__} is the CPU package",
                repair=f"{REINSTALL}; {ACCEPT_CPU}",
            )
        said = preload_cuda_libraries(self._ort)
        options = {"device_id": str(index), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
        session = self._create(data, [(CUDA, options)])
        if session.get_providers()[0] != CUDA:
            reason = (
                native_reason(self._ort)
                or said
                or "the CUDA provider did not load, without a reason"
            )
            raise DeviceUnavailableError(
                "CUDA was requested but onnxruntime made the session on the CPU",
                seen=reason[:300],
                repair=f"{INSTALL_CUDA}, and see `gan doctor --device cuda`; {ACCEPT_CPU}",
            )
        session.disable_fallback()
        try:
            session.run(None, dict(example))
        except Exception as error:
            raise DeviceUnavailableError(
                "CUDA failed on a first batch",
                seen=f"{error!s:.300}",
                repair=f"See `gan doctor --device cuda`; {ACCEPT_CPU}",
            ) from error
        self._report_placement(session)
        return session

    def _create(self, data: bytes, providers: list[Any]) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        if self._profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(self._profile / "profile")
        options.log_severity_level = (
            4  # the reason comes to the caller as an exception, not to stderr
        )
        # Threads spin while a run is in flight, for speed, and sleep between runs, for the neighbours.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            return self._ort.InferenceSession(data, options, providers=providers, enable_fallback=0)
        except Exception as error:  # onnxruntime's own errors derive from Exception alone
            if providers == [CPU]:
                check_packages()
                raise ModelFileError(
                    "onnxruntime refused the model",
                    seen=f"{error!s:.300}",
                    repair="The file is damaged, or made for a newer onnxruntime: export it again",
                ) from error
            raise DeviceUnavailableError(
                "onnxruntime made no CUDA session", seen=f"{error!s:.300}", repair=ACCEPT_CPU
            ) from error

    def _report_placement(self, session: Any) -> None:
        placed = getattr(session, "get_provider_graph_assignment_info", None)
        on_cpu = [
            node.op_type
            for part in (placed() if placed else [])
            if part.ep_name == CPU
            for node in part.get_nodes()
        ]
        if on_cpu:
            logger.warning(
                "%d nodes run on the CPU: %s", len(on_cpu), ", ".join(sorted(set(on_cpu)))
            )


def available_cpus() -> int:
    """CPUs that this process may use: its affinity, bounded by the cgroup's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


def installed_packages() -> dict[str, str]:
    """Versions of the onnxruntime distributions that are installed; more than one is a fault.

    Their dist-info lies beside the folder that they share: to import importlib.metadata takes longer than all of ours.
    """
    found = {}
    for folder in _package_folders():
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                package, _, version = name.removesuffix(".dist-info").partition("-")
                package = package.replace("_", "-")
                if name.endswith(".dist-info") and package in PACKAGES:
                    found[package] = version
    return dict(sorted(found.items()))


def _package_folders() -> set[Path]:
    """Where the onnxruntime that is imported, or would be, lies."""
    import importlib.util

    if "onnxruntime" in sys.modules:  # it may be half imported, or what an uninstall left of it
        module = sys.modules["onnxruntime"]
        file = getattr(module, "__file__", None)
        places = [os.path.dirname(file)] if file else getattr(module, "__path__", ())
    else:
        spec = importlib.util.find_spec("onnxruntime")
        places = (spec and spec.submodule_search_locations) or ()
    return {Path(place).parent for place in places}


def importable_gpu_package() -> bool:
    return "onnxruntime-gpu" in installed_packages()


def check_packages() -> None:
    """`DeviceUnavailableError` where both packages are installed.

    Not looked at while all is well: the CPU's part of either works, and each look costs time at every start.
    """
    packages = installed_packages()
    if len(packages) > 1:
        raise DeviceUnavailableError(
            "onnxruntime is installed twice, and one overwrote the other's files",
            seen=", ".join(f"{name} {version}" for name, version in packages.items()),
            repair=f"{REINSTALL} (or gan-toolchain[cpu] instead)",
        )


def load_onnxruntime() -> Any:
    """The onnxruntime module, or `DeviceUnavailableError` where none or two of its packages are installed."""
    try:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        onnxruntime.get_available_providers()
    except (ImportError, AttributeError) as error:
        check_packages()
        raise DeviceUnavailableError(
            "Sampling needs onnxruntime",
            seen=f"{error!s:.200}",
            repair=f"{INSTALL_CPU} (or gan-toolchain[cuda] for an NVIDIA GPU)",
        ) from error
    return onnxruntime


def preload_cuda_libraries(ort: Any) -> str:
    """Load the CUDA libraries of pip's nvidia packages; what onnxruntime printed about it comes back as text."""
    if not hasattr(ort, "preload_dlls"):
        return ""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(OSError):
        ort.preload_dlls(directory="")
    return " ".join(printed.getvalue().split())


def native_reason(ort: Any) -> str:
    """Why the CUDA provider's library does not load, in the loader's own words; "" where it does."""
    folder = Path(ort.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return str(error)
    return ""
