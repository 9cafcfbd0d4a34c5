"""The CUDA engine, without a GPU: on onnxruntime's CPU provider with true IO binding, and on a fake that keeps count."""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan.runtime import DeviceUnavailableError, Generator
from gan.runtime import engine as engine_module
from gan.runtime.buckets import batch_buckets
from gan.runtime.cuda import CPU, CUDA
from gan.runtime.engine import GRAPHS, Engine, Gate

from .conftest import Array, FakeOrt, FakeSession, bare_run, reference_inputs, tiny_signature


def batch(count: int, start: int = 0, width: int = 2) -> dict[str, Array]:
    rows = np.arange(start, start + count, dtype=np.float32)
    return {"x": np.repeat(rows[:, None], width, axis=1)}


def fake_engine(ort: FakeOrt, *, graphs: bool = True, **options: Any) -> tuple[Engine, FakeSession]:
    asked = [(CUDA, {"enable_cuda_graph": "1"} if graphs else {})]
    session = ort.InferenceSession(b"", None, providers=asked, enable_fallback=0)
    return Engine(ort, session, device="cuda", graphs=graphs, **options), session


def true_engine(model: bytes, **options: Any) -> Engine:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, settings, providers=[CPU])
    return Engine(onnxruntime, session, device="cpu", **options)


def doubled(inputs: dict[str, Array]) -> list[list[float]]:
    return (2 * inputs["x"]).tolist()


# With true IO binding, on the CPU.


def test_any_count_gives_the_bytes_of_a_plain_session(labelled: bytes) -> None:
    engine = true_engine(labelled)
    for start, count in [(0, n) for n in range(1, 41)] + [(7, 5), (100, 16), (3, 17)]:
        inputs = reference_inputs(tiny_signature(), 3, range(start, start + min(count, 3)))
        inputs = {
            name: np.resize(array, (count, *array.shape[1:])) for name, array in inputs.items()
        }
        for _ in range(2):  # on loose buffers, and on those of the shape
            (images,) = engine.run(inputs)
            np.testing.assert_array_equal(images, bare_run(labelled, inputs))
            assert images.flags.owndata and images.flags.writeable


def test_what_a_caller_holds_is_never_written_to_again(labelled: bytes) -> None:
    engine = true_engine(labelled)
    many = [reference_inputs(tiny_signature(), seed, range(3)) for seed in range(6)]
    held = [engine.run(inputs)[0] for inputs in many]
    for inputs, images in zip(many, held, strict=True):
        np.testing.assert_array_equal(images, bare_run(labelled, inputs))


def test_a_stream_gives_the_batches_in_order(labelled: bytes) -> None:
    engine = true_engine(labelled)
    many = [reference_inputs(tiny_signature(), 1, range(n)) for n in (4, 4, 4, 4, 3, 1, 4)]
    streamed = list(engine.run_stream(iter(many), ["image"]))
    assert len(streamed) == len(many)
    for inputs, (images,) in zip(many, streamed, strict=True):
        np.testing.assert_array_equal(images, bare_run(labelled, inputs))


@pytest.mark.skipif(not hasattr(onnxruntime.OrtValue, "__dlpack__"), reason="an older onnxruntime")
def test_on_the_device_each_output_has_memory_of_its_own(labelled: bytes) -> None:
    engine = true_engine(labelled)
    many = [reference_inputs(tiny_signature(), seed, range(3)) for seed in range(3)]
    held = [engine.run_on_device(inputs)[0] for inputs in many]
    arrays = [np.from_dlpack(one) for one in held]
    assert [one.shape for one in held] == [(3, 8, 8, 3)] * 3
    assert len({array.ctypes.data for array in arrays}) == 3
    session = weakref.ref(engine.native)
    del held, engine
    gc.collect()
    for inputs, array in zip(many, arrays, strict=True):
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, bare_run(labelled, inputs))
    assert session() is None  # the memory does not need it


def test_a_graph_that_fails_is_a_device_error_and_the_engine_goes_on(labelled: bytes) -> None:
    engine = true_engine(labelled)
    inputs = reference_inputs(tiny_signature(), 3, range(4))
    for _ in range(2):
        with pytest.raises(DeviceUnavailableError, match=r"cpu:0 failed while it ran the model"):
            engine.run({**inputs, "label": np.full(4, 3)})
        (images,) = engine.run(inputs)
        np.testing.assert_array_equal(images, bare_run(labelled, inputs))


# On a fake that keeps count.


def test_a_shape_is_run_loose_then_captured_then_replayed(
    ort: FakeOrt,
) -> None:
    engine, session = fake_engine(ort)
    for start in range(5):
        assert engine.run(batch(4, start))[0].tolist() == doubled(batch(4, start))
    loose, *kept = session.calls
    assert (loose.graph, loose.target) == ("-1", None)
    assert {call.graph for call in kept} == {"1"}
    assert len({(call.source, call.target) for call in kept}) == 1
    assert list(session.captured) == ["1"]


def test_without_graphs_no_run_has_a_number(ort: FakeOrt) -> None:
    engine, session = fake_engine(ort, graphs=False)
    for start in range(4):
        assert engine.run(batch(3, start))[0].tolist() == doubled(batch(3, start))
    assert {call.graph for call in session.calls} == {None}
    assert len({call.target for call in session.calls[1:]}) == 1


@given(st.lists(st.integers(1, 40), max_size=40), st.integers(1, 20))
@settings(deadline=None, max_examples=30)
def test_no_count_up_to_the_largest_bucket_is_a_new_shape(counts: list[int], largest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        ort = FakeOrt(Path())
        patch.setitem(sys.modules, "onnxruntime", ort)
        engine, session = fake_engine(ort, buckets=batch_buckets(largest))
        for i, count in enumerate(counts):
            assert engine.run(batch(count, i))[0].tolist() == doubled(batch(count, i))
        sizes = {call.batch for call in session.calls}
        assert sizes <= set(batch_buckets(largest)) | {n for n in counts if n > largest}
        by_graph: dict[str | None, set[tuple[int, int, int | None]]] = {}
        for call in session.calls:
            by_graph.setdefault(call.graph, set()).add((call.batch, call.source, call.target))
        by_graph.pop("-1", None)
        assert all(len(places) == 1 for places in by_graph.values())


def test_a_shape_that_was_dropped_gives_its_buffers_back_and_its_graph_is_never_replayed(
    ort: FakeOrt,
) -> None:
    engine, session = fake_engine(ort, shapes=2)
    alive: list[weakref.ref[Any]] = []
    for width in (1, 2, 3, 1, 2, 3):
        for _ in range(3):
            assert engine.run(batch(2, 5, width))[0].tolist() == doubled(batch(2, 5, width))
        alive.append(weakref.ref(session.captured[session.calls[-1].graph or ""]))
    graphs = [call.graph for call in session.calls if call.graph != "-1"]
    assert set(graphs) == set("123456")  # a new number each time a shape comes back
    session.captured.clear()
    gc.collect()
    assert [ref() is not None for ref in alive] == [False] * 4 + [True] * 2


def test_captures_end_at_their_bound_and_runs_go_on(ort: FakeOrt) -> None:
    engine, session = fake_engine(ort, shapes=2)
    for width in range(1, GRAPHS + 5):
        for _ in range(3):
            assert engine.run(batch(1, 5, width))[0].tolist() == doubled(batch(1, 5, width))
    assert len(session.captured) == GRAPHS
    assert session.calls[-1].graph == "-1" and session.calls[-1].target is not None


def test_a_capture_that_breaks_is_logged_once_and_runs_go_on_without(
    ort: FakeOrt, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gan.runtime")
    engine, session = fake_engine(ort)
    ort.breaks_capture = True
    for count in (1, 1, 1, 2, 2, 2):
        assert engine.run(batch(count))[0].tolist() == doubled(batch(count))
    assert [call.graph for call in session.calls].count("1") == 1
    assert {call.graph for call in session.calls} == {"1", "-1"}
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("No more CUDA graphs, runs go on without: operation not permitted")


def test_all_runs_are_on_one_thread_and_never_two_at_once(ort: FakeOrt) -> None:
    engine, session = fake_engine(ort)
    ort.while_running = lambda: time.sleep(0.0005)
    wrong: list[int] = []

    def work(k: int) -> None:
        for i in range(10):
            single = batch(1 + (k + i) % 5, 100 * k + i)
            if engine.run(single)[0].tolist() != doubled(single):
                wrong.append(k)
        many = [batch(4, 1000 * k + i) for i in range(6)]
        for one, (made,) in zip(many, engine.run_stream(many), strict=True):
            if made.tolist() != doubled(one):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert len(session.threads) == 1 and threading.get_ident() not in session.threads
    assert engine._waiting == 0


def test_a_batch_comes_down_while_the_next_is_computed(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of batch k waits until batch k + 1 runs: one after the other, this would never end."""
    engine, session = fake_engine(ort)
    list(engine.run_stream([batch(2)] * 6))  # buffers and graphs are there now
    started, overlapped = threading.Semaphore(0), []
    ort.while_running = started.release
    to_host = engine_module._to_host

    def slow(*arguments: Any) -> Array:
        if threading.current_thread().name.startswith("gan-copy"):
            overlapped.append(started.acquire(timeout=5))
        return to_host(*arguments)

    monkeypatch.setattr(engine_module, "_to_host", slow)
    many = [batch(2, start) for start in range(8)]
    for one, (made,) in zip(many, engine.run_stream(many), strict=True):
        assert made.tolist() == doubled(one)
    assert overlapped and all(overlapped)
    used = {(call.graph, call.target) for call in session.calls if call.target}
    assert len(used) == 2  # two sets of buffers, each with a graph of its own


def test_the_buffers_that_are_free_first_are_waited_for(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies end one at a time, when the test lets them; the fourth run waits for the second copy, not the third."""
    engine, session = fake_engine(ort, graphs=False)
    list(engine.run_stream([batch(2)] * 6))
    go_on, to_host = threading.Semaphore(0), engine_module._to_host

    def held(*arguments: Any) -> Array:
        assert go_on.acquire(timeout=20)
        return to_host(*arguments)

    monkeypatch.setattr(engine_module, "_to_host", held)
    before = len(session.calls)

    def ran(count: int) -> bool:
        return len(session.calls) == count

    monkeypatch.setattr(engine, "_handed_on", functools.partial(handed_to_copier, engine))
    tasks = [engine._submit(batch(2, i), ["y"]) for i in range(4)]
    for runs in (2, 3, 4):
        wait_for(functools.partial(ran, before + runs))
        go_on.release()
    go_on.release()
    for i, task in enumerate(tasks):
        assert task.result(20).result(20)[0].tolist() == doubled(batch(2, i))


def handed_to_copier(engine: Engine, *batch: Any) -> Any:
    return engine._copier.submit(engine._copied, *batch)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.002)
    pytest.fail("it never came")


def test_a_stream_is_at_most_three_batches_ahead_of_its_reader(ort: FakeOrt) -> None:
    engine, _ = fake_engine(ort)
    drawn = 0

    def batches() -> Iterator[dict[str, Array]]:
        nonlocal drawn
        for i in range(50):
            drawn += 1
            yield batch(2, i)

    for read, _ in enumerate(engine.run_stream(batches()), start=1):
        assert drawn <= read + 2


def test_a_stream_that_is_left_holds_up_nobody(ort: FakeOrt) -> None:
    engine, session = fake_engine(ort)
    left = engine.run_stream(batch(2, i) for i in range(100))
    next(left)
    for _ in range(5):  # the same buffers, with the stream still open
        assert engine.run(batch(2, 7))[0].tolist() == doubled(batch(2, 7))
    left.close()  # type: ignore[attr-defined]
    assert engine.run(batch(2, 8))[0].tolist() == doubled(batch(2, 8))
    assert len(session.calls) <= 9
    assert engine._waiting == 0


def test_an_error_comes_with_the_batch_that_failed_and_what_came_before_is_given(
    ort: FakeOrt,
) -> None:
    engine, _ = fake_engine(ort)
    ort.fails_at_run = 4
    stream = engine.run_stream(batch(2, i) for i in range(9))
    for i in range(3):
        assert next(stream)[0].tolist() == doubled(batch(2, i))
    with pytest.raises(DeviceUnavailableError, match=r"cuda:0 failed.*failure 700"):
        next(stream)
    assert engine._waiting == 0
    with pytest.raises(DeviceUnavailableError, match="failure 700"):
        engine.run(batch(2))
    ort.fails_at_run = 0
    for i in range(4):
        assert engine.run(batch(2, i))[0].tolist() == doubled(batch(2, i))


def test_a_copy_that_fails_is_a_device_error_and_frees_its_buffers(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = fake_engine(ort)
    list(engine.run_stream([batch(2)] * 6))
    with monkeypatch.context() as patch:

        def broken(*_: Any) -> Array:
            raise RuntimeError("CUDA failure 719: unspecified launch failure")

        patch.setattr(engine_module, "_to_host", broken)
        for _ in range(4):
            with pytest.raises(DeviceUnavailableError, match="failure 719"):
                list(engine.run_stream([batch(2)] * 6))
    many = [batch(2, start) for start in range(6)]
    made = [one.tolist() for (one,) in engine.run_stream(many)]
    assert made == [doubled(one) for one in many]


def test_an_error_of_the_caller_who_draws_is_the_callers_own(ort: FakeOrt) -> None:
    engine, _ = fake_engine(ort)

    def batches() -> Iterator[dict[str, Array]]:
        yield batch(2)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(engine.run_stream(batches()))
    assert engine.run(batch(2))[0].tolist() == doubled(batch(2))


def test_an_engine_that_is_let_go_ends_its_threads(ort: FakeOrt) -> None:
    engine, _ = fake_engine(ort)
    list(engine.run_stream([batch(2)] * 6))
    threads = [*engine._runner._threads, *engine._copier._threads]
    assert threads
    del engine
    gc.collect()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_a_process_ends_with_a_stream_left_open(labelled_path: Path) -> None:
    code = """
import sys, onnxruntime
from gan.runtime import Generator
from gan.runtime.engine import Engine
generator = Generator(sys.argv[1], device="cpu", threads=1, micro_batch=2)
inner = generator._session
inner._engine = Engine(onnxruntime, inner.native, device="cpu")
stream = generator.stream(100, seed=1)
print(len(next(stream)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(labelled_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


@pytest.mark.parametrize(("index", "chosen"), [(0, []), (1, [("libcudart.so.13", 1)] * 2)])
def test_both_threads_choose_their_gpu(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch, index: int, chosen: list[Any]
) -> None:
    """Without, the copier's first call would open a context on GPU 0."""
    calls: list[Any] = []

    class Library:
        def __init__(self, name: str) -> None:
            self.name = name

        def cudaSetDevice(self, index: int) -> None:
            calls.append((self.name, index))

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(ort, "cuda_version", "13.0", raising=False)
    engine, _ = fake_engine(ort, index=index)
    list(engine.run_stream([batch(2)] * 4))
    engine._copier.submit(int).result(5)
    assert calls == chosen


def test_a_size_that_is_met_once_keeps_no_buffers(ort: FakeOrt) -> None:
    engine, session = fake_engine(ort)
    for width in range(1, 30):
        engine.run(batch(2, 0, width))
    assert not session.captured
    assert len(engine._shapes) == len(engine.buckets) + engine_module.SPARE
    assert not any(shape.slots for shape in engine._shapes._kept.values())


@pytest.mark.parametrize(("spare", "kept"), [(0, True), (-1, False)])
def test_large_batches_keep_no_buffers(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch, spare: int, kept: bool
) -> None:
    size = 2 * batch(4)["x"].nbytes  # of input and output
    monkeypatch.setattr(engine_module, "LARGEST", size + spare)
    engine, session = fake_engine(ort)
    for start in range(3):
        assert engine.run(batch(4, start))[0].tolist() == doubled(batch(4, start))
    many = [batch(4, start) for start in range(5)]
    assert [made.tolist() for (made,) in engine.run_stream(many)] == [doubled(one) for one in many]
    assert bool(session.captured) == kept


# The gate: a capture is alone in the process.


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_the_gate_lets_many_in_together_and_a_capture_alone() -> None:
    gate = Gate()
    inside, worst, captures = [0, 0], [0], [0]
    lock = threading.Lock()

    def share() -> None:
        for _ in range(40):
            with gate.shared:
                with lock:
                    inside[0] += 1
                    worst[0] = max(worst[0], inside[0])
                    assert not inside[1]
                time.sleep(0.0002)
                with lock:
                    inside[0] -= 1

    def capture() -> None:
        for _ in range(10):
            with gate.exclusive:
                with lock:
                    inside[1] += 1
                    captures[0] += inside == [0, 1]
                time.sleep(0.0002)
                with lock:
                    inside[1] -= 1

    threads = [in_thread(share) for _ in range(4)] + [in_thread(capture) for _ in range(2)]
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert captures == [20]
    assert worst[0] > 1


def test_a_capture_is_not_kept_waiting_by_those_who_come_later() -> None:
    gate, order = Gate(), []

    def capture() -> None:
        with gate.exclusive:
            order.append("capture")

    def share() -> None:
        with gate.shared:
            order.append("share")

    with gate.shared:
        threads = [in_thread(capture)]
        wait_for(lambda: gate.wanted == 1)
        threads.append(in_thread(share))
        time.sleep(0.05)
        assert order == []
    for thread in threads:
        thread.join(5)
    assert order == ["capture", "share"]


def test_nobody_copies_while_a_graph_is_captured_not_even_for_another_engine(
    ort: FakeOrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = fake_engine(ort)
    second, session = fake_engine(ort)
    first.run(batch(2))
    second.run(batch(2))
    copied, seen = threading.Event(), []
    to_host = engine_module._to_host

    def noted(*arguments: Any) -> Array:
        copied.set()
        return to_host(*arguments)

    monkeypatch.setattr(engine_module, "_to_host", noted)
    begun, go_on = threading.Event(), threading.Event()

    def capturing() -> None:
        if len(session.calls) == 2 and not begun.is_set():
            begun.set()
            go_on.wait(5)
            seen.append(copied.is_set())

    ort.while_running = capturing
    threads = [in_thread(lambda: second.run(batch(2)))]
    assert begun.wait(5)
    threads.append(in_thread(lambda: first.run(batch(2))))
    assert not copied.wait(0.1)
    go_on.set()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert seen == [False] and copied.is_set()


# The whole, from a generator.


@pytest.fixture
def on_engine(labelled: bytes) -> Generator:
    """A generator whose session runs through the engine, on onnxruntime's CPU provider."""
    generator = Generator(labelled, device="cpu", threads=1, micro_batch=6)
    inner = generator._session
    inner._engine = Engine(onnxruntime, inner.native, device="cpu", buckets=batch_buckets(6))
    return generator


def test_the_seed_contract_holds_through_buckets(on_engine: Generator, labelled: bytes) -> None:
    plain = Generator(labelled, device="cpu", threads=1)
    expected = plain.sample(48, seed=5)
    for count in range(1, 41):
        start = (7 * count) % 8
        images = on_engine.sample(count, seed=5, start=start)
        np.testing.assert_array_equal(images, expected[start : start + count])
    streamed = np.concatenate(list(on_engine.stream(48, seed=5)))
    np.testing.assert_array_equal(streamed, expected)
    np.testing.assert_array_equal(on_engine.interpolate(1, 2, 15), plain.interpolate(1, 2, 15))
    assert on_engine.verify() == "exact"


def test_inputs_of_the_callers_own_go_through_buckets_too(
    on_engine: Generator, labelled: bytes
) -> None:
    inputs = reference_inputs(tiny_signature(), 4, range(20))
    np.testing.assert_array_equal(on_engine(**inputs)["image"], bare_run(labelled, inputs))


def test_two_streams_of_one_generator_may_be_read_in_turn(on_engine: Generator) -> None:
    first, second = on_engine.stream(30, seed=1), on_engine.stream(30, seed=2)
    pairs = list(zip(first, second, strict=True))
    for stream, seed in ((0, 1), (1, 2)):
        images = np.concatenate([pair[stream] for pair in pairs])
        np.testing.assert_array_equal(images, on_engine.sample(30, seed=seed))


@pytest.mark.skipif(not hasattr(onnxruntime.OrtValue, "__dlpack__"), reason="an older onnxruntime")
@pytest.mark.parametrize("through", ["engine", "plain"])
def test_images_are_handed_over_by_dlpack(
    on_engine: Generator, labelled: bytes, through: str
) -> None:
    generator = on_engine
    if through == "plain":
        generator = Generator(labelled, device="cpu", threads=1, micro_batch=6)
    batches = list(generator.sample_dlpack(14, seed=5, label="2"))
    assert [len(one) for one in batches] == [6, 6, 2]
    assert {one.__dlpack_device__() for one in batches} == {(1, 0)}
    images = np.concatenate([np.from_dlpack(one) for one in batches])
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, generator.sample(14, seed=5, label="2"))
