"""Buckets, padding and graph numbers, as properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan.runtime.buckets import (
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

SIZES = st.integers(1, 300)
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@pytest.mark.parametrize(
    ("largest", "buckets"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (12, (1, 2, 4, 8, 12)), (16, (1, 2, 4, 8, 16))],
)
def test_buckets_are_powers_of_two_and_the_largest(largest: int, buckets: tuple[int, ...]) -> None:
    assert batch_buckets(largest) == buckets


@given(SIZES, SIZES)
def test_a_batch_takes_the_smallest_bucket_that_holds_it(largest: int, count: int) -> None:
    buckets = batch_buckets(largest)
    assert list(buckets) == sorted(set(buckets))
    bucket = bucket_of(count, buckets)
    assert bucket >= count
    if count > largest:
        assert bucket == count  # nothing is run twice as large as it was asked for
    else:
        assert bucket in buckets
        assert not [smaller for smaller in buckets if count <= smaller < bucket]
        assert bucket < 2 * count or bucket == 1


@given(SIZES, SIZES)
def test_a_whole_bucket_needs_no_padding(largest: int, count: int) -> None:
    buckets = batch_buckets(largest)
    whole = whole_bucket(count, buckets)
    assert 1 <= whole <= count
    assert bucket_of(whole, buckets) == whole
    assert not [larger for larger in buckets if whole < larger <= count]


@given(st.integers(1, 40), st.integers(1, 16), SHAPES)
def test_padding_repeats_the_last_row_and_cropping_takes_it_off(
    count: int, largest: int, shape: tuple[int, ...]
) -> None:
    array = np.arange(count * int(np.prod(shape, dtype=int)), dtype=np.int64)
    array = array.reshape(count, *shape)
    bucket = bucket_of(count, batch_buckets(largest))
    padded = pad_rows(array, bucket)
    assert padded.shape == (bucket, *shape)
    assert padded.dtype == array.dtype and padded.flags.c_contiguous
    np.testing.assert_array_equal(padded[:count], array)
    for row in padded[count:]:
        np.testing.assert_array_equal(row, array[-1])
    np.testing.assert_array_equal(crop_rows(padded, count, bucket), array)


def test_rows_that_are_not_contiguous_become_so() -> None:
    array = np.arange(24.0).reshape(4, 6)[:, ::2]
    padded = pad_rows(array, 4)
    assert padded.flags.c_contiguous
    np.testing.assert_array_equal(padded, array)


def test_an_output_that_is_not_of_the_bucket_is_left_to_the_check_of_outputs() -> None:
    assert crop_rows(np.zeros((5, 2)), 3, 4).shape == (5, 2)


ARRAYS = st.builds(
    np.zeros,
    SHAPES.map(lambda shape: (2, *shape)),
    st.sampled_from(["<f4", "<f8", "<i8", "|u1"]),
)


@given(
    st.dictionaries(st.sampled_from("abc"), ARRAYS, min_size=1),
    st.dictionaries(st.sampled_from("abc"), ARRAYS, min_size=1),
    st.lists(st.sampled_from("yz"), max_size=2),
    st.lists(st.sampled_from("yz"), max_size=2),
)
def test_two_runs_have_one_key_only_if_their_buffers_are_alike(
    first: dict[str, Any], second: dict[str, Any], asked: list[str], wanted: list[str]
) -> None:
    def alike(inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: (array.shape, array.dtype) for name, array in inputs.items()}

    same = key_of(first, asked) == key_of(second, wanted)
    assert same == (alike(first) == alike(second) and asked == wanted)
    assert key_of(dict(reversed(first.items())), asked) == key_of(first, asked)


@given(st.integers(1, 4), st.lists(st.integers(0, 9)))
def test_the_keys_used_last_are_kept_and_no_more(most: int, used: list[int]) -> None:
    """Against a list in the order of use, the plainest thing that can do it."""
    recent: Recent[int] = Recent(most)
    plain: list[int] = []
    dropped = []
    for key in used:
        assert (recent.get((key,)) == key) == (key in plain)
        if key in plain:
            plain.remove(key)
        else:
            dropped += recent.add((key,), key)
        plain.append(key)
        del plain[:-most]
        assert len(recent) == len(plain) <= most
    assert len(set(used)) <= len(plain) + len(dropped)


@given(st.integers(0, 5), st.integers(0, 12))
def test_a_graphs_number_is_given_once_and_their_count_has_a_bound(most: int, asked: int) -> None:
    ids = GraphIds(most)
    taken = [ids.take() for _ in range(asked)]
    graphs = [graph for graph in taken if graph != NO_GRAPH]
    assert len(set(graphs)) == len(graphs) == min(most, asked)
    assert all(graph > 0 for graph in graphs)
    assert taken[most:] == [NO_GRAPH] * max(0, asked - most)
