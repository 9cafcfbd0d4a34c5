"""Latent stream v1 against plain Python integers, the standard library's normal distribution, and the design's vectors."""

from __future__ import annotations

import hashlib
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState

from gan.runtime import InputError, latents
from gan.runtime.values import check_uint64

from .conftest import as_float32, philox, reference_normal, reference_uniform, reference_words

LAST = 2**64 - 1
UINT64 = st.integers(0, LAST)
DIGEST = "8fbf0180b88242a2c6f0de93566cd3057c41d1a49227d921185b199c1c504345"
# Words whose p lies at the borders of the approximation, where q = 0.425 and r = 5 (p = 0.075 and e^-25), beyond
# the second, and next to 0 and 1/2; each for both signs.
BORDERS = [
    max(0, min(2**52 - 1, round(p * 2**53) + near)) << 12 | sign
    for p in (0.0, *(math.exp(-k) for k in range(24, 38)), 0.075, 0.5)
    for near in range(-3, 4)
    for sign in (0, 1)
]  # fmt: skip


def random_words(count: int) -> list[int]:
    rng = random.Random(20)
    return [rng.getrandbits(64) for _ in range(count)]


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        (
            (0, 0),
            (0, 0, 0, 0),
            (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
        ),
        (
            (LAST, LAST),
            (LAST, LAST, LAST, LAST),
            (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
        ),
        (
            (0x452821E638D01377, 0xBE5466CF34E90C6C),
            (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
            (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
        ),
    ],
)
def test_the_reference_gives_the_known_answers_of_random123(
    key: tuple[int, int], counter: tuple[int, int, int, int], expected: tuple[int, ...]
) -> None:
    assert philox(key, counter) == expected


def test_the_first_words_and_normals_are_those_of_the_design() -> None:
    drawn = latents.words(0, 0, [0], 4)
    assert drawn[0, 0] == 0x02F4BA6408E4D89B
    expected = np.array([[-2.5257015, 1.1711234, -1.5918169, 0.57629675]], np.float32)
    np.testing.assert_array_equal(latents.normals(drawn), expected)


def test_two_thousand_latents_have_the_digest_of_the_design() -> None:
    z = latents.normals(latents.words(2026, 0, range(2000), 512))
    assert hashlib.sha256(z.astype("<f4").tobytes()).hexdigest() == DIGEST


def test_the_digest_is_the_same_without_vector_instructions() -> None:
    core = pytest.importorskip("numpy._core._multiarray_umath")
    present = [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]
    if not present:
        pytest.skip("numpy uses no instruction set here that it could do without")
    code = (
        "import hashlib; from gan.runtime import latents; "
        "z = latents.normals(latents.words(2026, 0, range(2000), 512)); "
        "from numpy._core import _multiarray_umath as core; "
        "print(hashlib.sha256(z.astype('<f4').tobytes()).hexdigest(), "
        "sum(core.__cpu_features__[name] for name in core.__cpu_dispatch__))"
    )
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(present)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [DIGEST, "0"]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(seed=UINT64, stream=UINT64, index=UINT64, count=st.integers(1, 13))
def test_words_are_philox_of_seed_stream_and_index(
    seed: int, stream: int, index: int, count: int
) -> None:
    assert latents.words(seed, stream, [index], count).tolist() == [
        reference_words(seed, stream, index, count)
    ]


@pytest.mark.parametrize("index", [0, 1, 2**32, 2**63, LAST])
def test_the_ends_of_the_seeds_and_indices_are_drawn(index: int) -> None:
    for seed in (0, LAST):
        drawn = latents.words(seed, 1, [index], 5)
        assert drawn.tolist() == [reference_words(seed, 1, index, 5)]


def test_each_row_belongs_to_its_index_in_any_order() -> None:
    drawn = latents.words(5, 16, [9, 2, 9, 0], 6)
    assert drawn.dtype == np.uint64
    assert drawn.tolist() == [reference_words(5, 16, index, 6) for index in (9, 2, 9, 0)]


def test_a_draw_in_the_middle_of_another_changes_neither() -> None:
    """As by the handler of a signal, or by another thread."""

    class Drawing(list[int]):
        def __iter__(self) -> Iterator[int]:
            for index in super().__iter__():
                inner.append(latents.words(9, 4, [index], 5))
                yield index

    inner: list[Any] = []
    outer = latents.words(3, 1, Drawing([5, 6, 7]), 4)
    assert np.array_equal(outer, latents.words(3, 1, [5, 6, 7], 4))
    assert np.array_equal(np.concatenate(inner), latents.words(9, 4, [5, 6, 7], 5))


def test_after_a_refused_index_the_next_words_are_right() -> None:
    expected = latents.words(3, 1, [5], 4)
    with pytest.raises(InputError):
        latents.words(8, 2, [1, -1], 4)
    assert np.array_equal(latents.words(3, 1, [5], 4), expected)


def test_no_index_gives_no_row() -> None:
    assert latents.words(0, 0, [], 7).shape == (0, 7)
    assert latents.normals(latents.words(0, 0, [], 7)).shape == (0, 7)


@pytest.mark.parametrize("drawn", [random_words(20_000), BORDERS], ids=["random", "borders"])
def test_normals_are_the_inverse_normal_distribution(drawn: list[int]) -> None:
    z = latents.normals(np.array(drawn, np.uint64))
    assert z.dtype == np.float32
    assert z.tolist() == [reference_normal(word) for word in drawn]


def test_the_distribution_function_undoes_the_normals() -> None:
    """By math.erfc, which shares no coefficient with Wichura's: float32 rounds z by 2^-24 of itself at most."""
    for word in (*random_words(2000), *BORDERS):
        p = ((word >> 12) + 0.5) * 2.0**-53
        z = abs(float(latents.normals(np.array([word], np.uint64))[0]))
        assert 0.5 * math.erfc(z / math.sqrt(2)) == pytest.approx(p, rel=(z * z + 2) * 2.0**-24)


def test_bit_zero_is_the_sign_and_bits_one_to_eleven_do_not_matter() -> None:
    drawn = np.array(random_words(1000), np.uint64)
    z = latents.normals(drawn)
    np.testing.assert_array_equal(latents.normals(drawn ^ np.uint64(1)), -z)
    np.testing.assert_array_equal(latents.normals(drawn ^ np.uint64(0xFFE)), z)
    assert np.array_equal(z < 0, (drawn & np.uint64(1)).astype(bool))


def test_normals_need_no_function_whose_last_bit_depends_on_the_platform(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (np, math):
        for name in ("log", "log1p", "log2", "exp", "expm1", "exp2", "power", "pow"):
            monkeypatch.setattr(
                module, name, lambda *_: pytest.fail("libm was asked"), raising=False
            )
    latents.normals(np.array([*random_words(100), *BORDERS], np.uint64))


@pytest.mark.parametrize("shape", [(1, 70_000), (70_000, 1), (7, 100, 100), (3, 16384), (16385,)])
def test_normals_do_not_depend_on_how_many_are_made_at_once(shape: tuple[int, ...]) -> None:
    drawn = RandomState(0).randint(0, 2**63, shape, np.uint64)
    one_by_one = np.concatenate(
        [latents.normals(part) for part in np.array_split(drawn.ravel(), 97)]
    )
    together = latents.normals(drawn)
    assert together.shape == shape
    np.testing.assert_array_equal(together.ravel(), one_by_one)


def test_uniforms_are_the_highest_24_bits_as_a_fraction() -> None:
    drawn = [0, LAST, 1 << 40, (1 << 40) - 1, *random_words(1000)]
    u = latents.uniforms(np.array(drawn, np.uint64))
    assert u.dtype == np.float32
    assert u.tolist() == [reference_uniform(word) for word in drawn]
    assert u.min() == 0.0
    assert u.max() == as_float32(1 - 2**-24) < 1.0


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 1000, 2**31, 2**32 - 1])
def test_labels_are_the_high_half_of_word_times_classes(classes: int) -> None:
    drawn = [0, LAST, 2**63, 2**32 - 1, 2**32, *random_words(1000)]
    labels = latents.choices(np.array(drawn, np.uint64), classes)
    assert labels.dtype == np.int64
    assert labels.tolist() == [word * classes >> 64 for word in drawn]


@pytest.mark.parametrize("classes", [-1, 0, 2**32])
def test_labels_of_no_or_too_many_classes_are_refused(classes: int) -> None:
    with pytest.raises(InputError, match=f"{classes} classes"):
        latents.choices(np.zeros(1, np.uint64), classes)


@pytest.mark.parametrize("name", ["seed", "stream", "index"])
@pytest.mark.parametrize(
    "value",
    [-1, 2**64, 10**5000, 1.0, np.float64(3), True, np.True_, None, "1", b"1"],
    ids=["-1", "2^64", "10^5000", "1.0", "np.float64", "True", "np.True_", "None", "str", "bytes"],
)
def test_what_is_no_64_bit_number_is_refused_by_name(name: str, value: object) -> None:
    given: dict[str, object] = {"seed": 0, "stream": 0, "index": 0, name: value}
    with pytest.raises(InputError, match=f"The {name} was refused.*from 0 to 2\\^64 - 1") as caught:
        latents.words(given["seed"], given["stream"], [given["index"]], 1)  # type: ignore[arg-type, list-item]
    assert type(value).__name__ in caught.value.seen


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint64])
def test_integers_of_numpy_are_seeds(kind: type[np.integer]) -> None:
    assert latents.words(kind(5), 0, [kind(6)], 3).tolist() == [reference_words(5, 0, 6, 3)]  # type: ignore[arg-type, list-item]


def test_the_largest_integer_of_numpy_is_a_seed() -> None:
    assert check_uint64("seed", np.uint64(LAST)) == LAST  # type: ignore[arg-type]
