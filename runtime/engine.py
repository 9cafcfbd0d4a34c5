"""A session's runs through buffers that stay on the device: padded to buckets, one at a time, downloads beside compute.

Knows nothing of models, seeds or providers: it takes the device's name, so that tests run it on a CPU. No GPU has run
it yet: its speed there is unmeasured.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from .buckets import (
    MICRO_BATCH,
    NO_GRAPH,
    GraphIds,
    Recent,
    batch_buckets,
    bucket_of,
    crop_rows,
    key_of,
    pad_rows,
    whole_bucket,
)
from .device_array import DeviceArray
from .errors import DeviceUnavailableError
from .inputs import Array
from .repairs import native_words

logger = logging.getLogger("gan.runtime")

SLOTS = 2  # sets of buffers a shape: one is copied to the host while the other is computed
AHEAD = 2  # batches of a stream that are under way while the caller has one in hand
SPARE = 8  # shapes for which buffers are kept beyond one for each bucket
GRAPHS = 32  # captured in a session's life
LARGEST = 64 << 20  # bytes of a batch, inputs and outputs, for which buffers are kept
Inputs = Mapping[str, Array]


class Engine:
    """Runs one session on one device. All methods may be called from several threads at once.

    One thread of its own does all runs: onnxruntime's CUDA provider keeps captured graphs and library handles for each
    thread that runs, and never allows two runs of a captured graph at once. The first batch of a shape runs on loose
    buffers, and shows what the outputs are; from the second on the shape has buffers of its own, and a graph where
    graphs are captured. Sizes met once cost neither, nor do batches too large for it to pay.
    """

    def __init__(
        self,
        ort: Any,
        session: Any,
        *,
        device: str,
        index: int = 0,
        graphs: bool = False,
        buckets: Sequence[int] = batch_buckets(16),
        shapes: int | None = None,
    ) -> None:
        """ort: the onnxruntime module. device: as onnxruntime names it, "cuda" or "cpu". graphs: the session was made
        to capture graphs. buckets: batch sizes. shapes: for how many buffers are kept; by default one
        for each bucket, as a generator of one size has, and a few more."""
        self._ort, self.native = ort, session
        self._device = (device, index)
        self._graphs = GraphIds(GRAPHS if graphs else 0)
        self._skip = self._run_options(NO_GRAPH) if graphs else None
        self.buckets = tuple(buckets)
        self._shapes: Recent[_Shape] = Recent(shapes or len(self.buckets) + SPARE)
        self._waiting, self._lock = 0, threading.Lock()
        begin = (_choose_device, (ort, index if device == "cuda" else 0))
        self._runner = ThreadPoolExecutor(1, "gan-run", *begin)
        self._copier = ThreadPoolExecutor(1, "gan-copy", *begin)

    @property
    def most(self) -> int:
        """Rows of one run, by default."""
        return MICRO_BATCH

    def settled(self, most: int) -> bool:
        """Whether `fitting` will stay as it is: always."""
        return True

    def fitting(self, most: int, rows: int, left: int) -> int:
        """Rows of the next run: a bucket of at most so many, or what is left."""
        return min(whole_bucket(most, self.buckets), left)

    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> list[Array]:
        """The named outputs for a batch [B, ...] of every input; all outputs by default.

        Raises `DeviceUnavailableError`. A run that failed leaves the buffers as they were: the next may follow, and
        fails by itself if the device is gone.
        """
        return self._submit(inputs, self._names(outputs)).result().result()

    def run_stream(
        self, batches: Iterable[Inputs], outputs: Sequence[str] | None = None
    ) -> Iterator[list[Array]]:
        """`run` of each batch, in order. The caller makes the next batch while one is computed and one comes down.

        At most three batches are in memory. An error comes with the batch that failed. Closing the iterator drops
        what has not begun.
        """
        names = self._names(outputs)
        pending: deque[Future[Future[list[Array]]]] = deque()
        try:
            for inputs in batches:
                pending.append(self._submit(inputs, names))
                if len(pending) > AHEAD:
                    yield pending.popleft().result().result()
            while pending:
                yield pending.popleft().result().result()
        finally:
            for task in pending:
                if task.cancel():
                    self._count(-1)

    def run_on_device(
        self, inputs: Inputs, outputs: Sequence[str] | None = None
    ) -> list[DeviceArray]:
        """As `run`, but the outputs stay on the device, each in memory of its own.

        Neither padded nor from a graph, which would write to memory that the next batch shares.
        """
        names = self._names(outputs)
        contiguous = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        try:
            values = self._runner.submit(self._run_loose, contiguous, names).result()
        except Exception as error:  # as in _work
            raise self._failure(error) from error
        return [DeviceArray(value, tuple(value.shape()), self.native) for value in values]

    def _names(self, outputs: Sequence[str] | None) -> list[str]:
        return list(outputs or (output.name for output in self.native.get_outputs()))

    def _submit(self, inputs: Inputs, names: list[str]) -> Future[Future[list[Array]]]:
        self._count(1)
        return self._runner.submit(self._work, inputs, names)

    def _count(self, change: int) -> int:
        with self._lock:
            self._waiting += change
            return self._waiting

    def _work(self, inputs: Inputs, names: list[str]) -> Future[list[Array]]:
        """On the runner's thread: run one batch, then have it copied."""
        self._count(-1)
        count = len(next(iter(inputs.values())))
        bucket = bucket_of(count, self.buckets)
        given = {name: pad_rows(array, bucket) for name, array in inputs.items()}
        try:
            values, slot = self._computed(given, names)
        except Exception as error:  # onnxruntime's own errors derive from Exception alone
            raise self._failure(error) from error
        return self._handed_on(values, count, bucket, slot)

    def _computed(self, given: Inputs, names: list[str]) -> tuple[list[Any], _Slot | None]:
        """The outputs on the device, and the buffers that hold them, where they are not loose."""
        key = key_of(given, names)
        shape = self._shapes.get(key)
        if shape is None or shape.size > LARGEST:
            values = self._run_loose(given, names)
            if shape is None:
                self._shapes.add(key, _Shape(given, values))
            return values, None
        slot = self._free_slot(shape, given, names)
        try:
            self._run_slot(slot, given)
        except BaseException:
            slot.free.set()
            raise
        return slot.outputs, slot

    def _handed_on(
        self, values: list[Any], count: int, bucket: int, slot: _Slot | None
    ) -> Future[list[Array]]:
        """Copied by the other thread if another batch waits for this one, else here, which saves a hop."""
        if self._count(0):
            with contextlib.suppress(RuntimeError):  # the interpreter ends, and takes no more work
                return self._copier.submit(self._copied, values, count, bucket, slot)
        done: Future[list[Array]] = Future()
        done.set_result(self._copied(values, count, bucket, slot))
        return done

    def _copied(
        self, values: list[Any], count: int, bucket: int, slot: _Slot | None
    ) -> list[Array]:
        try:
            with GATE.shared:
                return [_to_host(value, count, bucket) for value in values]
        except Exception as error:  # as in _work
            raise self._failure(error) from error
        finally:
            if slot:
                slot.free.set()

    def _run_loose(self, given: Inputs, names: list[str]) -> list[Any]:
        """Run with memory that onnxruntime allocates for this run alone, and without a graph."""
        with GATE.shared:
            binding = self.native.io_binding()
            for name, array in given.items():
                binding.bind_ortvalue_input(name, self._uploaded(array))
            for name in names:
                binding.bind_output(name, *self._device)
            self.native.run_with_iobinding(binding, self._skip)
            return list(binding.get_outputs())

    def _uploaded(self, array: Array) -> Any:
        value = self._ort.OrtValue.ortvalue_from_shape_and_type(
            array.shape, array.dtype.type, *self._device
        )
        value.update_inplace(array)
        return value

    def _free_slot(self, shape: _Shape, given: Inputs, names: list[str]) -> _Slot:
        """A set of buffers with nothing in it, taken: a free one, a new one, or the one that is free next."""
        slot = next((slot for slot in shape.slots if slot.free.is_set()), None)
        if slot is None and len(shape.slots) < SLOTS:
            with GATE.shared:
                slot = self._new_slot(shape, given, names)
            shape.slots.append(slot)
        if slot is None:  # the copier holds all, and needs nobody to go on; the first began first
            slot = shape.slots[0]
            slot.free.wait()
        shape.slots.remove(slot)
        shape.slots.append(slot)
        slot.free.clear()
        return slot

    def _new_slot(self, shape: _Shape, given: Inputs, names: list[str]) -> _Slot:
        inputs = {name: self._uploaded(array) for name, array in given.items()}
        outputs = [
            self._ort.OrtValue.ortvalue_from_shape_and_type(size, kind, *self._device)
            for size, kind in shape.outputs
        ]
        binding = self.native.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(names, outputs, strict=True):
            binding.bind_ortvalue_output(name, value)
        return _Slot(binding, inputs, outputs)

    def _run_slot(self, slot: _Slot, given: Inputs) -> None:
        first = slot.options is None and self._skip is not None
        with GATE.shared:
            for name, value in slot.inputs.items():
                value.update_inplace(given[name])
            if not first:
                self.native.run_with_iobinding(slot.binding, slot.options)
        if first:
            slot.options = self._captured(slot)

    def _captured(self, slot: _Slot) -> Any:
        """Run the slot for the first time, capturing its graph; the options of its later runs."""
        graph = self._graphs.take()
        if graph != NO_GRAPH:
            options = self._run_options(graph)
            try:
                with GATE.exclusive:
                    self.native.run_with_iobinding(slot.binding, options)
                return options
            except Exception as error:  # onnxruntime's own errors derive from Exception alone
                self._graphs = GraphIds(0)
                said = native_words(error)
                logger.warning("No more CUDA graphs, runs go on without: %s", said)
        with GATE.shared:
            self.native.run_with_iobinding(slot.binding, self._skip)
        return self._skip

    def _failure(self, error: Exception) -> DeviceUnavailableError:
        return DeviceUnavailableError(
            f"{self._device[0]}:{self._device[1]} failed while it ran the model",
            seen=native_words(error),
            repair="See `gan doctor --device cuda`, take a smaller micro-batch, or CudaOptions(graphs=False)",
        )

    def _run_options(self, graph: int) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return options


class _Shape:
    """What is known of one shape of inputs: its outputs' shapes and types, and its sets of buffers."""

    def __init__(self, given: Inputs, values: list[Any]) -> None:
        self.size = sum(array.nbytes for array in given.values())
        self.size += sum(value.tensor_size_in_bytes() for value in values)
        self.outputs = [(list(value.shape()), value.element_type()) for value in values]
        self.slots: list[_Slot] = []  # the one used longest ago first


class _Slot:
    """Buffers on the device, bound to the session for good. Free: no batch is in them."""

    def __init__(self, binding: Any, inputs: dict[str, Any], outputs: list[Any]) -> None:
        self.binding, self.inputs, self.outputs = binding, inputs, outputs
        self.options: Any = None
        self.free = threading.Event()
        self.free.set()


class Gate:
    """Many at once, or one alone: while a CUDA graph is captured, no other thread of the process may call CUDA.

    onnxruntime captures in CUDA's global mode, in which another thread's copy or allocation, for any session, breaks
    the capture.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.inside, self.wanted = 0, 0  # -1 inside: one alone
        self.shared, self.exclusive = _Shared(self), _Exclusive(self)


class _Shared:
    """`with gate.shared`: written out, as it is passed several times for each batch."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        gate = self._gate
        with gate.changed:
            while gate.wanted or gate.inside < 0:
                gate.changed.wait()
            gate.inside += 1

    def __exit__(self, *_: object) -> None:
        gate = self._gate
        with gate.changed:
            gate.inside -= 1
            if gate.wanted:
                gate.changed.notify_all()


class _Exclusive:
    """`with gate.exclusive`: waits until nobody is inside, and holds up those who come meanwhile."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        gate = self._gate
        with gate.changed:
            gate.wanted += 1
            try:
                while gate.inside:
                    gate.changed.wait()
                gate.inside = -1
            finally:
                gate.wanted -= 1

    def __exit__(self, *_: object) -> None:
        gate = self._gate
        with gate.changed:
            gate.inside = 0
            gate.changed.notify_all()


GATE = Gate()  # one for the process, as CUDA's capture mode is


def _to_host(value: Any, count: int, bucket: int) -> Array:
    """A numpy array of the caller's own, without padding."""
    array: Array = crop_rows(value.numpy(), count, bucket)
    # On a CPU numpy() is a view of the buffer, which the next batch overwrites.
    return array if array.flags.owndata else array.copy()


def _choose_device(ort: Any, index: int) -> None:
    """Make a thread's CUDA calls go to this GPU, or its first copy would open a context on GPU 0."""
    if index:
        version = str(getattr(ort, "cuda_version", "")).partition(".")[0]
        with contextlib.suppress(OSError, AttributeError):  # another name elsewhere: a context more
            ctypes.CDLL(f"libcudart.so.{version}").cudaSetDevice(index)
