"""The device contract, on a faked onnxruntime: CUDA or a typed error with the reason and the repair, never a silent CPU."""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.runtime import DeviceUnavailableError, InputError, ModelFileError, session
from gan.runtime.session import Session, available_cpus, installed_packages, load_onnxruntime

from .conftest import CPU, CUDA, FakeOrt, bare_run, reference_inputs, tiny_signature
from .test_repairs import MET

EXAMPLE = {"x": np.array([[1.0, 2.0]], np.float32)}
REPAIR = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'gan-toolchain[cuda]'"


def open_session(device: str = "auto", **options: Any) -> Session:
    return Session(b"model", device=device, example=EXAMPLE, **options)


def cdll_without(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dynamic loader finds everything but what the CUDA provider needs."""

    def load(path: str, mode: int = 0) -> None:
        if path.endswith("libonnxruntime_providers_cuda.so"):
            raise OSError(f"{library}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", load)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_on_the_cpu_package_is_an_error_that_names_the_repair(
    ort: FakeOrt, device: str
) -> None:
    ort.available = [CPU]
    with pytest.raises(DeviceUnavailableError) as caught:
        open_session(device)
    assert caught.value.failed == "CUDA cannot be used"
    assert caught.value.seen == "onnxruntime 1.99 is the CPU package"
    assert caught.value.repair.startswith(REPAIR)
    assert ort.sessions == []


@pytest.mark.skipif(CUDA in load_onnxruntime().get_available_providers(), reason="a GPU package")
def test_cuda_on_the_true_cpu_package_is_an_error_too(labelled: bytes) -> None:
    with pytest.raises(DeviceUnavailableError, match="is the CPU package"):
        Session(labelled, device="cuda", example={})


def test_a_session_that_lands_on_the_cpu_in_silence_is_an_error_with_the_native_reason(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    ort.cuda_loads = False
    ort.printed = "Failed to load libcudnn.so.9"
    cdll_without("libcublasLt.so.13", monkeypatch)
    with pytest.raises(DeviceUnavailableError) as caught:
        open_session("cuda")
    assert caught.value.failed == "CUDA was requested but onnxruntime made the session on the CPU"
    assert caught.value.seen.startswith("libcublasLt.so.13: cannot open shared object file")
    assert "pip install 'gan-toolchain[cuda]'" in caught.value.repair
    assert [one.runs for one in ort.sessions] == [0]


@pytest.mark.parametrize(
    ("printed", "seen"),
    [
        ("Failed to load\n  libcudnn.so.9", "Failed to load libcudnn.so.9"),
        ("", "the CUDA provider did not load, without a reason"),
    ],
)
def test_without_a_native_reason_the_error_says_what_onnxruntime_printed(
    ort: FakeOrt,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    printed: str,
    seen: str,
) -> None:
    ort.cuda_loads = False
    ort.printed = printed
    monkeypatch.setattr(ctypes, "CDLL", lambda path, mode=0: None)
    with pytest.raises(DeviceUnavailableError) as caught:
        open_session("cuda")
    assert caught.value.seen == seen
    assert capsys.readouterr() == ("", "")


def test_the_native_reason_is_the_dynamic_loaders_own(ort: FakeOrt) -> None:
    """No fake loader: the folder of the fake package holds no library."""
    ort.cuda_loads = False
    with pytest.raises(
        DeviceUnavailableError, match=r"libonnxruntime_providers_shared\.so: cannot"
    ):
        open_session("cuda")


@pytest.mark.parametrize(("device", "index"), [("cuda", "0"), ("cuda:0", "0"), ("cuda:3", "3")])
def test_cuda_is_asked_for_alone_without_tf32_and_proven_by_a_run(
    ort: FakeOrt, device: str, index: str
) -> None:
    opened = open_session(device)
    assert opened.device == f"cuda:{index}"
    assert opened.providers == [CUDA, CPU]
    (made,) = ort.sessions
    ((provider, options),) = made.asked
    assert provider == CUDA
    assert options["device_id"] == index
    assert options["use_tf32"] == "0"
    assert made.enable_fallback == 0
    assert made.fallback_disabled
    assert made.runs == 1
    assert ort.preloaded == [""]


def test_auto_takes_cuda_where_it_works_and_says_nothing(
    ort: FakeOrt, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gan.runtime")
    assert open_session("auto").device == "cuda:0"
    assert said(caplog) == []


@pytest.mark.parametrize(
    ("package", "level"), [("onnxruntime", logging.INFO), ("onnxruntime-gpu", logging.WARNING)]
)
def test_auto_runs_on_the_cpu_and_logs_it_once(
    ort: FakeOrt,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    package: str,
    level: int,
) -> None:
    monkeypatch.setattr(session, "installed_packages", lambda: {package: "1.99"})
    if package == "onnxruntime":
        ort.available = [CPU]
    ort.cuda_loads = False
    caplog.set_level(logging.DEBUG, "gan.runtime")
    opened = open_session("auto")
    assert opened.device == "cpu"
    for _ in range(3):
        (doubled,) = opened.run(EXAMPLE)
    assert doubled.tolist() == [[2.0, 4.0]]
    ((logged, message),) = said(caplog)
    assert logged == level
    assert message.startswith("Sampling on the CPU: CUDA ")
    assert ort.sessions[-1].asked == [CPU]


def test_the_cpu_never_asks_for_cuda(ort: FakeOrt, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gan.runtime")
    assert open_session("cpu").device == "cpu"
    assert [one.asked for one in ort.sessions] == [[CPU]]
    assert ort.preloaded == []
    assert said(caplog) == []


def test_cuda_that_fails_on_its_first_batch_is_an_error(ort: FakeOrt) -> None:
    ort.fails_at_run = 1
    with pytest.raises(DeviceUnavailableError, match=r"CUDA failed on a first batch.*failure 700"):
        open_session("cuda")


def test_cuda_that_refuses_the_model_is_an_error_and_auto_goes_on(ort: FakeOrt) -> None:
    ort.refuses = (CUDA,)
    with pytest.raises(DeviceUnavailableError, match="CUDAExecutionProvider refused the model"):
        open_session("cuda")
    assert open_session("auto").device == "cpu"


def test_cuda_that_fails_in_mid_flight_is_an_error_and_not_an_image_of_the_cpu(
    ort: FakeOrt,
) -> None:
    opened = open_session("auto")
    assert opened.device == "cuda:0"
    ort.fails_at_run = 2
    with pytest.raises(DeviceUnavailableError, match=r"cuda:0 failed while it ran.*failure 700"):
        opened.run(EXAMPLE)
    assert len(ort.sessions) == 1


def test_a_model_that_the_cpu_refuses_or_cannot_run_is_a_model_file_error(ort: FakeOrt) -> None:
    ort.fails_at_run = 1
    with pytest.raises(ModelFileError, match="onnxruntime failed while it ran the model"):
        open_session("cpu").run(EXAMPLE)
    ort.refuses = (CPU, CUDA)
    for device in ("cpu", "auto"):
        with pytest.raises(ModelFileError, match="onnxruntime refused the model"):
            open_session(device)


def test_nodes_that_landed_on_the_cpu_are_listed(
    ort: FakeOrt, caplog: pytest.LogCaptureFixture
) -> None:
    ort.placement = {CUDA: ["Conv", "Tanh"], CPU: ["Shape", "Gather", "Shape"]}
    open_session("cuda")
    assert said(caplog) == [(logging.WARNING, "3 nodes run on the CPU: Gather, Shape")]


def test_threads_sleep_between_runs_and_onnxruntime_stays_silent(ort: FakeOrt) -> None:
    open_session("cpu", threads=3)
    options = ort.sessions[0].options
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.entries["session.intra_op.spin_duration_us"] == "200"
    ort.__version__ = "1.25.4"  # does not know that
    open_session("cpu")
    entries = ort.sessions[1].options.entries
    assert entries["session.force_spinning_stop"] == "1"
    assert "session.intra_op.spin_duration_us" not in entries
    assert options.log_severity_level == ort.severity == 4


def test_a_session_notes_its_nodes_only_where_it_is_asked_to(ort: FakeOrt, tmp_path: Path) -> None:
    open_session("cpu")
    open_session("cpu", profile=tmp_path)
    plain, noting = (made.options for made in ort.sessions)
    assert not hasattr(plain, "enable_profiling")
    assert noting.enable_profiling is True
    assert Path(noting.profile_file_prefix).parent == tmp_path


def test_without_a_thread_count_it_is_what_this_process_may_use(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "available_cpus", lambda: 7)
    assert open_session("cpu").threads == 7
    assert ort.sessions[0].options.intra_op_num_threads == 7


@pytest.mark.parametrize("threads", [0, -1, 1025, 2.5, True, "2"])
def test_a_thread_count_outside_is_refused(ort: FakeOrt, threads: Any) -> None:
    with pytest.raises(InputError, match=r"The thread count was refused.*from 1 to 1024"):
        open_session("cpu", threads=threads)


@pytest.mark.parametrize(
    "device",
    ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:12345", "cpu:0", "", "cpu\n", 0, None],
)
def test_an_unknown_device_is_refused(ort: FakeOrt, device: Any) -> None:
    with pytest.raises(InputError, match='Give "auto", "cpu", "cuda" or "cuda:N"') as caught:
        open_session(device)
    assert repr(device) in caught.value.seen


@pytest.fixture
def site(ort: FakeOrt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of packages with the fake onnxruntime in it, looked at in truth."""
    monkeypatch.undo()  # the fixture `ort` answers for the packages
    (tmp_path / "onnxruntime").mkdir()
    ort.__file__ = str(tmp_path / "onnxruntime" / "__init__.py")
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    return tmp_path


def install(site: Path, *names: str) -> None:
    for name in names:
        (site / f"{name}.dist-info").mkdir()


BOTH = ("onnxruntime-1.31.1", "onnxruntime_gpu-1.30.0")


def is_the_doubled_one(error: DeviceUnavailableError) -> bool:
    assert error.seen == "onnxruntime 1.31.1, onnxruntime-gpu 1.30.0"
    return error.repair.startswith(REPAIR)


def test_the_packages_are_those_that_lie_beside_the_module(site: Path) -> None:
    install(site, "onnxruntime_gpu-1.30.0", "onnxruntime_extensions-0.13.0", "numpy-2.4.6")
    assert installed_packages() == {"onnxruntime-gpu": "1.30.0"}


def test_the_true_package_is_found_as_the_metadata_has_it() -> None:
    names = {"onnxruntime", "onnxruntime-gpu"}
    there = {
        one.metadata["Name"]: one.version
        for one in importlib.metadata.distributions()
        if one.metadata["Name"] in names
    }
    assert installed_packages() == there != {}


def test_both_packages_are_an_error_for_cuda_that_names_the_repair(
    site: Path, ort: FakeOrt
) -> None:
    """The CPU package over the other's files: their CUDA is gone, and a look at the module alone would blame it."""
    install(site, *BOTH)
    ort.available = [CPU]
    with pytest.raises(DeviceUnavailableError) as caught:
        open_session("cuda")
    assert is_the_doubled_one(caught.value)


def test_auto_says_that_both_packages_are_there_and_runs_on_the_cpu(
    site: Path, ort: FakeOrt, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, *BOTH)
    ort.available = [CPU]
    assert open_session("auto").device == "cpu"
    ((level, message),) = said(caplog)
    assert level == logging.WARNING
    assert "onnxruntime is installed twice" in message


def test_both_packages_explain_a_module_that_is_broken(
    site: Path, ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, *BOTH)
    monkeypatch.delattr(FakeOrt, "get_available_providers")
    with pytest.raises(DeviceUnavailableError) as caught:
        load_onnxruntime()
    assert is_the_doubled_one(caught.value)


def test_both_packages_explain_a_session_that_is_not_made(site: Path, ort: FakeOrt) -> None:
    install(site, *BOTH)
    ort.refuses = (CPU,)
    with pytest.raises(DeviceUnavailableError) as caught:
        open_session("cpu")
    assert is_the_doubled_one(caught.value)


def test_a_cpu_that_works_is_not_asked_for_its_packages(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look costs time at every start."""
    monkeypatch.setattr(session, "installed_packages", lambda: pytest.fail("looked"))
    assert open_session("cpu").device == "cpu"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_no_package_at_all_is_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert installed_packages() == {}
    with pytest.raises(DeviceUnavailableError, match="Sampling needs onnxruntime") as caught:
        open_session(device)
    assert caught.value.repair.startswith("pip install 'gan-toolchain[cpu]'")


def test_what_an_uninstall_left_of_both_is_found_where_it_lies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder without __init__.py, which Python imports as an empty package."""
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    install(tmp_path, *BOTH)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    with pytest.raises(DeviceUnavailableError) as caught:
        load_onnxruntime()
    monkeypatch.delitem(sys.modules, "onnxruntime")
    assert is_the_doubled_one(caught.value)


@pytest.mark.parametrize(
    ("left", "repair"),
    [
        ({}, "pip install 'gan-toolchain[cpu]' (or gan-toolchain[cuda]"),
        ({"onnxruntime-gpu": "1.31.1"}, REPAIR),
        ({"onnxruntime-gpu": "1.26.0"}, REPAIR.replace("cuda]", "cuda12]")),
    ],
)
def test_a_package_of_which_only_the_folder_is_left_is_an_error(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch, left: dict[str, str], repair: str
) -> None:
    """What `pip uninstall` of one of the two packages leaves of the other; pip takes its entry for the whole."""
    monkeypatch.delattr(FakeOrt, "get_available_providers")
    monkeypatch.setattr(session, "installed_packages", lambda: left)
    with pytest.raises(DeviceUnavailableError) as caught:
        open_session("cpu")
    assert caught.value.repair.startswith(repair)


@pytest.mark.parametrize(
    "damage",
    [
        ImportError("libstdc++.so.6: cannot open shared object file: No such file or directory"),
        OSError("libgomp.so.1: cannot open shared object file: No such file or directory"),
        SystemError("<built-in function __import__> returned a result with an exception set"),
        RuntimeError("module was compiled against NumPy C-API version 0x10 but the running NumPy has 0xf"),
        AttributeError("_ARRAY_API not found"),
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_an_import_raises_is_an_error_with_a_repair(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch, damage: Exception
) -> None:
    def import_module(severity: int) -> None:
        raise damage

    monkeypatch.setattr(ort, "set_default_logger_severity", import_module)
    with pytest.raises(DeviceUnavailableError) as caught:
        open_session("auto")
    assert caught.value.seen == str(damage)
    assert "install" in caught.value.repair


def test_an_onnxruntime_that_is_too_old_is_not_given_the_gpu(
    ort: FakeOrt, caplog: pytest.LogCaptureFixture
) -> None:
    ort.__version__ = "1.24.4"
    with pytest.raises(
        DeviceUnavailableError, match=r"Version 1\.24\.4, older than 1\.25"
    ) as caught:
        open_session("cuda")
    assert caught.value.repair == "pip install 'gan-toolchain[cuda]'"
    assert open_session("auto").device == "cpu"
    ((level, message),) = said(caplog)
    assert level == logging.WARNING and "onnxruntime is too old" in message
    assert open_session("cpu").device == "cpu"


def test_where_cuda_path_is_set_the_loaders_words_are_still_told(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime raises then, without a reason, what it leaves out in silence elsewhere."""
    ort.refusal = (
        "CUDA_PATH is set but CUDA wasnt able to be loaded. Please install the correct version of CUDA and cuDNN as "
        "mentioned in the GPU requirements page, make sure they're in the PATH, and that your GPU is supported."
    )
    ort.refuses = (CUDA,)
    cdll_without("libcublasLt.so.13", monkeypatch)
    with pytest.raises(DeviceUnavailableError) as caught:
        open_session("cuda")
    assert caught.value.seen.startswith("libcublasLt.so.13: cannot open shared object file")
    assert caught.value.repair.startswith("pip install 'gan-toolchain[cuda]'")


@pytest.mark.parametrize(("failure", "words", "repair"), MET.values(), ids=MET)
@pytest.mark.parametrize("when", ["session", "first batch"])
def test_a_native_failure_is_told_with_its_repair_and_auto_logs_it_once(
    ort: FakeOrt,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    failure: str,
    words: str,
    repair: str,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    ort.refusal = ort.failure = failure
    ort.refuses, ort.fails_at_run = ((CUDA,), 0) if when == "session" else ((), 1)
    with pytest.raises(DeviceUnavailableError) as caught:
        open_session("cuda")
    assert caught.value.seen == words
    assert repair in caught.value.repair
    assert caught.value.repair.endswith('device="auto" accepts the CPU')
    ort.fails_at_run = 0 if when == "session" else 1
    ort.spares_the_cpu = True
    opened = open_session("auto")
    assert opened.device == "cpu"
    assert opened.run(EXAMPLE)[0].tolist() == [[2.0, 4.0]]
    ((level, message),) = said(caplog)
    assert level == logging.WARNING
    assert message.startswith("Sampling on the CPU: ") and words.rstrip(".") in message


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", 6),
        ("400000 100000", 4),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("3200000 100000", 6),
        ("", 6),
        ("nonsense", 6),
        (None, 6),
    ],
)
def test_the_cpus_are_those_of_the_affinity_within_the_cgroups_quota(
    monkeypatch: pytest.MonkeyPatch, quota: str | None, cpus: int
) -> None:
    def read(path: Path) -> str:
        assert path == Path("/sys/fs/cgroup/cpu.max")
        if quota is None:
            raise FileNotFoundError(path)
        return f"{quota}\n"

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(Path, "read_text", read)
    assert available_cpus() == cpus


def test_without_an_affinity_all_cpus_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    monkeypatch.setattr(Path, "read_text", lambda _: "max 100000")
    assert available_cpus() == 5


def test_the_true_session_runs_the_graph_and_names_its_outputs(labelled: bytes) -> None:
    inputs = reference_inputs(tiny_signature(), 3, range(4))
    opened = Session(labelled, device="cpu", threads=1, example={})
    expected = bare_run(labelled, inputs)
    for outputs in (None, ["image"]):
        (images,) = opened.run(inputs, outputs)
        np.testing.assert_array_equal(images, expected)
    assert opened.providers == [CPU]


def test_inputs_that_the_graph_refuses_are_a_gan_error(labelled: bytes) -> None:
    opened = Session(labelled, device="cpu", threads=1, example={})
    inputs = reference_inputs(tiny_signature(), 3, range(4))
    with pytest.raises(ModelFileError, match="onnxruntime failed while it ran the model"):
        opened.run({**inputs, "label": np.full(4, 3)})
