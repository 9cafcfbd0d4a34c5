"""CUDA options, provider lists, and what happens where CUDA, its graphs or TensorRT are refused; on a fake."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.runtime import CudaOptions, DeviceUnavailableError, Generator, InputError
from gan.runtime.buckets import batch_buckets
from gan.runtime.cuda import providers
from gan.runtime.session import Session

from .conftest import CPU, CUDA, TENSORRT, Array, FakeOrt, FakeValue

EXAMPLE = {"x": np.array([[1.0, 2.0]], np.float32)}


def open_session(options: CudaOptions | None = None, device: str = "cuda", **more: Any) -> Session:
    return Session(b"model", device=device, example=EXAMPLE, cuda=options, **more)


def listed(options: CudaOptions, *, graphs: bool = False, **more: Any) -> list[Any]:
    asked: dict[str, Any] = {"example": EXAMPLE, "buckets": batch_buckets(16), "fixed_size": True}
    return list(providers(options, 1, graphs=graphs, **(asked | more)))


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"memory_limit": 0}, "0"),
        ({"memory_limit": (1 << 20) - 1}, "1048575"),
        ({"memory_limit": 2.5e9}, "2500000000.0"),
        ({"memory_limit": True}, "True"),
        ({"memory_limit": 2**63}, "9223372036854775808"),
        ({"tf32": 1}, "The tf32 was refused. 1 of type"),
        ({"graphs": None}, "The graphs was refused. None of type"),
        ({"prefer_nhwc": "yes"}, "The prefer_nhwc was refused. 'yes' of type"),
        ({"tensorrt": 0}, "The tensorrt was refused. 0 of type"),
        ({"search": "HEURISTIC"}, "The search was refused. 'HEURISTIC' of type"),
        ({"search": None}, "The search was refused. None of type"),
        (
            {"tensorrt_cache": "/nowhere", "tensorrt": True},
            "The tensorrt_cache was refused. '/nowhere' of type",
        ),
        ({"tensorrt_cache": 7, "tensorrt": True}, "The tensorrt_cache was refused. 7 of type"),
        ({"tensorrt_cache": "."}, "The tensorrt_cache was refused. '.' of type"),
    ],
)
def test_an_option_outside_is_refused(given: dict[str, Any], seen: str) -> None:
    with pytest.raises(InputError) as caught:
        CudaOptions(**given)
    assert seen in f"{caught.value}"
    assert caught.value.repair


def test_the_options_cannot_be_changed_and_are_few() -> None:
    options = CudaOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.tf32 = True  # type: ignore[misc]
    assert {field.name for field in dataclasses.fields(options)} == {
        "memory_limit", "tf32", "graphs", "prefer_nhwc", "search", "tensorrt", "tensorrt_cache",
    }  # fmt: skip


def test_by_default_products_are_exact_and_searches_short() -> None:
    ((name, options),) = listed(CudaOptions())
    assert name == CUDA
    assert options == {
        "device_id": "1",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "prefer_nhwc": "0",
        "do_copy_in_default_stream": "1",
    }


def test_each_option_reaches_the_provider(tmp_path: Path) -> None:
    options = CudaOptions(memory_limit=3 << 30, tf32=True, prefer_nhwc=True, search="exhaustive")
    ((_, cuda),) = listed(options, graphs=True)
    assert cuda["gpu_mem_limit"] == str(3 * 1024**3)
    assert cuda["arena_extend_strategy"] == "kSameAsRequested"
    assert (cuda["use_tf32"], cuda["prefer_nhwc"]) == ("1", "1")
    assert cuda["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    assert cuda["enable_cuda_graph"] == "1"
    for name, asked in listed(dataclasses.replace(options, tensorrt=True, tensorrt_cache=tmp_path)):
        assert all(isinstance(value, str) for value in asked.values()), name


def test_tensorrt_comes_first_with_shapes_from_the_buckets(tmp_path: Path) -> None:
    example: dict[str, Array] = {
        "z": np.zeros((1, 128), np.float32),
        "label": np.zeros(1, np.int64),
        "noise": np.zeros((1, 1, 8, 8), np.float32),
    }
    options = CudaOptions(tensorrt=True, tensorrt_cache=tmp_path)
    (name, trt), (fallback, _) = listed(options, example=example, buckets=batch_buckets(12))
    assert (name, fallback) == (TENSORRT, CUDA)
    assert trt == {
        "device_id": "1",
        "trt_profile_min_shapes": "z:1x128,label:1,noise:1x1x8x8",
        "trt_profile_opt_shapes": "z:12x128,label:12,noise:12x1x8x8",
        "trt_profile_max_shapes": "z:12x128,label:12,noise:12x1x8x8",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path),
    }
    ((_, plain), _) = listed(CudaOptions(tensorrt=True), fixed_size=False)
    assert plain == {"device_id": "1"}  # nothing is written unasked, no size is assumed


def test_graphs_are_captured_where_the_session_allows_it(ort: FakeOrt) -> None:
    opened = open_session()
    for _ in range(3):
        (doubled,) = opened.run(EXAMPLE)
        assert doubled.tolist() == [[2.0, 4.0]]
    (made,) = ort.sessions
    assert made.option("enable_cuda_graph") == "1"
    assert [call.graph for call in made.calls] == ["-1", "1", "1", "1"]  # the first batch proves it


def test_a_model_that_cannot_be_captured_runs_without_and_says_so_once(
    ort: FakeOrt, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gan.runtime")
    ort.refuses_graphs = True
    opened = open_session()
    for _ in range(3):
        (doubled,) = opened.run(EXAMPLE)
        assert doubled.tolist() == [[2.0, 4.0]]
    (made,) = ort.sessions
    assert {call.graph for call in made.calls} == {None}
    ((level, message),) = said(caplog)
    assert level == logging.INFO
    assert message == "No CUDA graphs: This session cannot use the graph capture feature"


def test_a_first_batch_that_does_not_fit_says_so(ort: FakeOrt) -> None:
    ort.fails_at_run = 1
    with pytest.raises(DeviceUnavailableError, match="CUDA failed on a first batch") as caught:
        open_session(CudaOptions(memory_limit=1 << 20))
    assert caught.value.repair.startswith("Raise the memory limit")


def test_graphs_that_are_not_wanted_are_not_asked_for(ort: FakeOrt) -> None:
    open_session(CudaOptions(graphs=False))
    assert ort.sessions[0].option("enable_cuda_graph") is None


def test_tensorrt_that_is_there_is_used_and_the_device_is_cuda(ort: FakeOrt) -> None:
    ort.available = [TENSORRT, CUDA, CPU]
    opened = open_session(CudaOptions(tensorrt=True), "cuda:1")
    assert opened.device == "cuda:1"
    assert opened.providers == [TENSORRT, CUDA, CPU]
    assert opened.run(EXAMPLE)[0].tolist() == [[2.0, 4.0]]
    assert ort.sessions[0].option("enable_cuda_graph") is None


@pytest.mark.parametrize("silently", [True, False])
def test_tensorrt_that_does_not_load_is_an_error_and_not_cuda_in_silence(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch, silently: bool
) -> None:
    """Left out without a word, or refused with one: onnxruntime does either."""
    ort.available = [TENSORRT, CUDA, CPU]
    ort.tensorrt_loads = False
    ort.refuses = () if silently else (TENSORRT,)

    def load(path: str, mode: int = 0) -> None:
        if path.endswith("libonnxruntime_providers_tensorrt.so"):
            raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(DeviceUnavailableError) as caught:
        open_session(CudaOptions(tensorrt=True))
    assert caught.value.failed.startswith("TensorRT was requested but")
    assert caught.value.seen.startswith("libnvinfer.so.10: cannot open")
    assert not any(made.runs for made in ort.sessions)


def test_tensorrt_that_onnxruntime_was_built_without_is_an_error(ort: FakeOrt) -> None:
    with pytest.raises(DeviceUnavailableError, match=r"TensorRT cannot be used.*built without it"):
        open_session(CudaOptions(tensorrt=True))
    assert ort.sessions == []


def test_options_for_a_gpu_are_refused_for_the_cpu_and_left_out_by_auto(ort: FakeOrt) -> None:
    with pytest.raises(InputError, match="CUDA options were given for the CPU"):
        open_session(CudaOptions(), "cpu")
    ort.cuda_loads = False
    assert open_session(CudaOptions(tf32=True), "auto").device == "cpu"
    assert ort.sessions[-1].asked == [CPU]


@pytest.mark.parametrize("options", [{"tf32": True}, True, "tf32", CudaOptions])
def test_what_is_no_options_is_refused(ort: FakeOrt, options: Any) -> None:
    with pytest.raises(InputError, match=r"Give CudaOptions\(\.\.\.\)"):
        open_session(options)


def test_full_batches_of_a_generator_are_whole_buckets(ort: FakeOrt) -> None:
    on_cuda, on_cpu = open_session(buckets=(1, 2, 4, 8, 12)), open_session(device="cpu")
    assert [on_cuda.fitting(n, 99, 99) for n in (1, 3, 7, 11, 12, 20)] == [1, 2, 4, 8, 12, 12]
    assert [on_cuda.fitting(12, 15, left) for left in (15, 3)] == [12, 3]
    assert [on_cpu.fitting(n, 99, 99) for n in (1, 3, 7)] == [1, 3, 7]


def test_arrays_on_the_device_need_an_onnxruntime_that_has_dlpack(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_session()
    with pytest.raises(DeviceUnavailableError) as caught:
        opened.stream_on_device([EXAMPLE], rows=1, most=1)
    assert caught.value.seen == "onnxruntime 1.99 has no DLPack"
    assert "onnxruntime-gpu[cuda,cudnn]>=1.31" in caught.value.repair
    monkeypatch.setattr(FakeValue, "__dlpack__", lambda *_, **__: None, raising=False)
    ((array,),) = opened.stream_on_device([EXAMPLE], rows=1, most=1)
    assert array.shape == (1, 2)


def test_a_generator_hands_its_options_on(labelled: bytes) -> None:
    with pytest.raises(InputError, match="CUDA options were given for the CPU"):
        Generator(labelled, device="cpu", cuda=CudaOptions(tf32=True))
