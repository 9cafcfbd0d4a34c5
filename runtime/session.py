"""The onnxruntime session and the device contract: "cuda" means CUDA or a typed error, never a silent CPU.

The only module that imports onnxruntime, and only when a session is made.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .buckets import MICRO_BATCH, batch_buckets
from .cpu import CpuEngine
from .cuda import CPU, CudaOptions, open_cuda, report_placement, unavailable
from .device_array import DeviceArray
from .errors import DeviceUnavailableError, InputError, ModelFileError, shown
from .inputs import Array
from .repairs import (
    ACCEPT_CPU,
    REINSTALL,
    install_again,
    native_words,
    onnxruntime_repair,
)
from .values import check_integer

if TYPE_CHECKING:
    from .engine import Engine

logger = logging.getLogger("gan.runtime")

OLDEST = (1, 25)  # onnxruntime; older ones have known holes
SPIN_BOUND_SINCE = (1, 26)  # an older onnxruntime takes the option in silence, and spins for ever
PACKAGES = ("onnxruntime", "onnxruntime-gpu")


class Session:
    """One graph on one device. `run` may be called from several threads at once."""

    def __init__(
        self,
        data: bytes,
        *,
        device: str = "auto",
        threads: int | None = None,
        example: Mapping[str, Array],
        cuda: CudaOptions | None = None,
        buckets: Sequence[int] = batch_buckets(MICRO_BATCH),
        fixed_size: bool = True,
        paced: bool = False,
        divided: bool = False,
        profile: Path | None = None,
    ) -> None:
        """device: "auto", "cpu", "cuda" or "cuda:N". threads: of the CPU, default what the cgroup grants.
        example: one batch of inputs, run once on CUDA to prove that it works. cuda: its options. buckets: the batch
        sizes that CUDA runs. fixed_size: the batch is the graph's only dynamic axis. paced, divided: on a CPU the batch
        size is found from the times of runs, and runs may be side by side. profile: a folder where onnxruntime notes what each node takes,
        until `native.end_profiling()` names the file.

        Raises `DeviceUnavailableError`, `InputError` for an unknown device, `ModelFileError` for a graph that
        onnxruntime refuses.
        """
        check_device(device)
        if cuda is not None and not isinstance(cuda, CudaOptions):
            raise InputError(
                "The CUDA options were refused", seen=shown(cuda), repair="Give CudaOptions(...)"
            )
        if cuda is not None and device == "cpu":
            raise InputError(
                "CUDA options were given for the CPU",
                seen=f"device={device!r}",
                repair='Leave them out, or give device="cuda"',
            )
        if threads is not None:
            threads = check_integer("thread count", threads, 1, 1024)
        self.threads = threads or available_cpus()
        self._profile = profile
        self._ort = load_onnxruntime()
        self._buckets, self._sized = buckets, fixed_size
        self._paced, self._divided = paced, divided
        self._engine, self.device = self._open(data, device, cuda or CudaOptions(), example)

    @property
    def providers(self) -> list[str]:
        return list(self.native.get_providers())

    @property
    def native(self) -> Any:
        """onnxruntime's own session, to be measured beside this one."""
        return self._engine.native

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """The graph's outputs for these inputs, in the graph's order (or of the named ones).

        Raises `ModelFileError` for a graph that fails on the CPU, `DeviceUnavailableError` for one that fails on CUDA.
        """
        return self._engine.run(inputs, outputs)

    def run_stream(
        self,
        batches: Iterable[Mapping[str, Array]],
        outputs: Sequence[str] | None = None,
        *,
        rows: int,
        most: int,
    ) -> Iterator[list[Array]]:
        """`run` of each batch, in order, of so many rows together; while one runs the next is made, on a CPU others run
        beside it, and on CUDA another one is copied. most: rows that are computed at once."""
        if isinstance(self._engine, CpuEngine):
            return self._engine.run_stream(batches, outputs, rows=rows, most=most)
        return self._engine.run_stream(batches, outputs)

    def stream_on_device(
        self,
        batches: Iterable[Mapping[str, Array]],
        outputs: Sequence[str] | None = None,
        *,
        rows: int,
        most: int,
    ) -> Iterator[list[DeviceArray]]:
        """As `run_stream`, for arrays that stay where they were computed."""
        engine = self._engine
        if isinstance(engine, CpuEngine):
            made = engine.run_stream(batches, outputs, rows=rows, most=most)
            return ([DeviceArray(array, array.shape) for array in arrays] for arrays in made)
        if not hasattr(self._ort.OrtValue, "__dlpack__"):
            raise DeviceUnavailableError(
                "Images cannot be handed over on the device",
                seen=f"onnxruntime {self._ort.__version__} has no DLPack",
                repair="pip install 'onnxruntime-gpu[cuda,cudnn]>=1.31', or use stream()",
            )
        return (engine.run_on_device(inputs, outputs) for inputs in batches)

    @property
    def most(self) -> int:
        """Rows that are computed at once, by default."""
        return self._engine.most

    def settled(self, most: int) -> bool:
        """Whether `fitting` will stay as it is. most: rows that are computed at once."""
        return self._engine.settled(most)

    def fitting(self, most: int, rows: int, left: int) -> int:
        """Rows of the next run: on CUDA a batch size that it has buffers for, so that none is padded; on a CPU what
        runs fastest, where that may be chosen. most: that are computed at once. rows: of the whole call, of which
        some are left."""
        return self._engine.fitting(most, rows, left)

    def _open(
        self, data: bytes, device: str, options: CudaOptions, example: Mapping[str, Array]
    ) -> tuple[Engine | CpuEngine, str]:
        if device != "cpu":
            index = int(device.partition(":")[2] or 0)
            try:
                return self._open_cuda(data, index, options, example), f"cuda:{index}"
            except DeviceUnavailableError as error:
                if device != "auto":
                    raise
                log = logger.warning if importable_gpu_package() else logger.info
                log("Sampling on the CPU: %s", error)
        engine = CpuEngine(
            functools.partial(_create, self._ort, data, [CPU], self._profile),
            self.threads,
            divided=self._divided,
            paced=self._paced,
        )
        return engine, "cpu"

    def _open_cuda(
        self, data: bytes, index: int, options: CudaOptions, example: Mapping[str, Array]
    ) -> Engine:
        from .engine import Engine  # and its threads, which a CPU needs not

        check_packages()
        check_version(self._ort)
        session, graphs = open_cuda(
            self._ort,
            lambda providers: _create(self._ort, data, providers, self._profile, self.threads),
            index,
            options,
            example=example,
            buckets=self._buckets,
            fixed_size=self._sized,
        )
        engine = Engine(
            self._ort, session, device="cuda", index=index, graphs=graphs, buckets=self._buckets
        )
        try:
            engine.run(example)
        except DeviceUnavailableError as error:
            failed = unavailable(self._ort, "CUDA failed on a first batch", error.seen)
            if options.memory_limit:
                failed = DeviceUnavailableError(
                    failed.failed,
                    seen=failed.seen,
                    repair=f"Raise the memory limit. {failed.repair}",
                )
            raise failed from error
        report_placement(session)
        return engine


def _create(ort: Any, data: bytes, providers: list[Any], profile: Path | None, threads: int) -> Any:
    """onnxruntime's session."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "profile")
    options.log_severity_level = 4  # the reason comes as an exception, not on stderr
    # Threads spin while a run is in flight, and so long after it that the next one of a stream finds them awake.
    bounded = version_of(ort) >= SPIN_BOUND_SINCE
    spinning = ("intra_op.spin_duration_us", "200") if bounded else ("force_spinning_stop", "1")
    options.add_session_config_entry(f"session.{spinning[0]}", spinning[1])
    if providers != [CPU]:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        return ort.InferenceSession(data, options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's own errors derive from Exception alone
        if providers == [CPU]:
            check_packages()
            check_version(ort)
            raise ModelFileError(
                "onnxruntime refused the model",
                seen=native_words(error),
                repair="The file is damaged, or made for a newer onnxruntime: export it again",
            ) from error
        raise DeviceUnavailableError(
            "onnxruntime made no CUDA session", seen=native_words(error), repair=ACCEPT_CPU
        ) from error


def check_device(device: str) -> None:
    """`InputError` for what names no device."""
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", device):
        raise InputError(
            "The device was refused",
            seen=f"device={shown(device)}",
            repair='Give "auto", "cpu", "cuda" or "cuda:N"',
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


def version_of(ort: Any) -> tuple[int, ...]:
    """(1, 31) of "1.31.1"."""
    return tuple(map(int, ort.__version__.split(".")[:2]))


def check_version(ort: Any) -> None:
    """`DeviceUnavailableError` for an onnxruntime that is too old to be trusted with strangers' files, or with CUDA."""
    if version_of(ort) < OLDEST:
        raise DeviceUnavailableError(
            "onnxruntime is too old",
            seen=f"Version {ort.__version__}, older than {'.'.join(map(str, OLDEST))}",
            repair=install_again(installed_packages()),
        )


def load_onnxruntime() -> Any:
    """The onnxruntime module, or `DeviceUnavailableError` where none, two or half of its packages are installed."""
    # From 1.29 on it keeps an identifier and a database in the home folder, and sends them.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    printed = io.StringIO()
    try:
        if "onnxruntime" in sys.modules:
            import onnxruntime
        else:
            with contextlib.redirect_stderr(printed):  # numpy prints there what is wrong, at length
                import onnxruntime
        onnxruntime.set_default_logger_severity(4)
        onnxruntime.get_available_providers()
    except Exception as error:  # of a damaged package, or of a numpy that it was not built for
        check_packages()
        seen = native_words(f"{error}" or printed.getvalue() or type(error).__name__)
        raise DeviceUnavailableError(
            "Sampling needs onnxruntime",
            seen=seen,
            repair=onnxruntime_repair(seen, installed_packages()),
        ) from error
    if sys.stderr is not None:
        sys.stderr.write(printed.getvalue())
    return onnxruntime
