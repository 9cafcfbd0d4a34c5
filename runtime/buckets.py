"""Batch sizes that a device runs: few, so that each is prepared once. Pure functions: no onnxruntime, no device.

A batch is padded to the next bucket with copies of its last row, and what comes of them is cut off again. What was
prepared for a shape is kept for a few shapes only, and a captured graph belongs to one shape for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from .inputs import Array

T = TypeVar("T")
MICRO_BATCH = 16  # rows of one run at most, where no better number is found or given
NO_GRAPH = -1  # onnxruntime's word for a run that neither captures nor replays
Key = tuple[Hashable, ...]


def batch_buckets(largest: int) -> tuple[int, ...]:
    """The powers of two below `largest`, and `largest`."""
    return (*(2**i for i in range((largest - 1).bit_length())), largest)


def bucket_of(count: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds so many rows; above the largest, the count itself."""
    return min((bucket for bucket in buckets if bucket >= count), default=count)


def whole_bucket(count: int, buckets: Sequence[int]) -> int:
    """The largest bucket of at most so many rows, which full batches fill without padding."""
    return max((bucket for bucket in buckets if bucket <= count), default=count)


def pad_rows(array: Array, bucket: int) -> Array:
    """An input [B, ...] as [bucket, ...], contiguous: its last row again where rows are missing.

    A copy of a true row costs nothing to invent and is within the input's range, as zeros need not be.
    """
    missing = bucket - len(array)
    if missing <= 0:
        return np.ascontiguousarray(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def crop_rows(array: Array, count: int, bucket: int) -> Array:
    """An output [bucket, ...] without the rows that padding made; one that is not of the bucket as it is."""
    return array[:count] if len(array) == bucket > count else array


def key_of(inputs: Mapping[str, Array], outputs: Sequence[str]) -> Key:
    """What two runs must share to use the same buffers: names, types and shapes of all inputs, and the outputs."""
    given = ((name, inputs[name].dtype.str, inputs[name].shape) for name in sorted(inputs))
    return (*given, tuple(outputs))


class Recent(Generic[T]):
    """What is kept for the keys used last, at most `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> T | None:
        """What is kept for the key, which is now the one used last."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def add(self, key: Key, value: T) -> list[T]:
        """Keep it; what had to go for it comes back."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        return [self._kept.popitem(last=False)[1] for _ in range(len(self._kept) - self._most)]


class GraphIds:
    """Numbers of captured graphs, each given once, at most `most` of them, then `NO_GRAPH` for ever.

    A graph writes to the addresses it was captured with and, in onnxruntime's CUDA provider, lives as long as its
    session. So a number never comes back, not even when its buffers were freed, and their count has a bound.
    """

    def __init__(self, most: int) -> None:
        self._most, self._given = most, 0

    def take(self) -> int:
        if self._given == self._most:
            return NO_GRAPH
        self._given += 1
        return self._given  # from 1: 0 is what a run without a number gets
