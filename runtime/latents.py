"""Latent stream v1: the random inputs of image i of seed s, the same bits on every machine.

Bits are Philox4x64-10 with key (seed, stream) and counter (block, 0, index, 0), blocks counted from 1. Only IEEE
add, subtract, multiply, divide, square root and compare touch the floats: the logarithm is our own, because libm's
differs between platforms. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .values import check_uint64

VERSION = 1
LATENT_STREAM, LABEL_STREAM, NOISE_STREAM = 0, 1, 16
# Generators, each with a state to be given to it: to make one takes longer than to draw a latent.
_UNUSED: list[tuple[np.random.Philox, Any]] = []
_CHUNK = 16384  # words at a time: their temporaries stay in the processor's cache

Words = NDArray[np.uint64]
Doubles = NDArray[np.float64]


def _constants(*values: float) -> tuple[Doubles, ...]:
    """Each as an array of no axes, which numpy takes faster than a float."""
    return tuple(np.array(value) for value in values)


def words(seed: int, stream: int, indices: Sequence[int], count: int) -> Words:
    """`count` 64-bit words for each index: uint64 [len(indices), count].

    seed, stream and each index are integers from 0 to 2^64 - 1; others raise `InputError`.
    """
    try:  # one that nobody else has: other threads, and handlers of signals, draw too
        bits, state = _UNUSED.pop()
    except IndexError:
        bits = np.random.Philox(key=0)
        state = dict(bits.state)
    counter, key = state["state"]["counter"], state["state"]["key"]
    key[:] = check_uint64("seed", seed), check_uint64("stream", stream)
    drawn = np.empty((len(indices), count), np.uint64)
    for row, index in enumerate(indices):
        counter[2] = check_uint64("index", index)
        bits.state = state  # buffer_pos stays 4, used up, and numpy counts up before it draws: block 1 is first
        drawn[row] = bits.random_raw(count)
    _UNUSED.append((bits, state))
    return drawn


def normals(drawn: Words) -> NDArray[np.float32]:
    """Standard normals from words, one each: float32 of the same shape, |z| at most 8.3."""
    flat = drawn.reshape(-1)
    values = np.empty(flat.shape, np.float32)
    for i in range(0, len(flat), _CHUNK):
        r = flat[i : i + _CHUNK]
        p = ((r >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1/2), exact
        z = _normal_magnitude(p)
        values[i : i + _CHUNK] = np.negative(z, out=z, where=(r & np.uint64(1)).astype(bool))
    return values.reshape(drawn.shape)


def uniforms(drawn: Words) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1) from words, multiples of 2^-24: float32 of the same shape."""
    return (drawn >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def choices(drawn: Words, classes: int) -> NDArray[np.int64]:
    """Class indices from words, (word * classes) >> 64: int64 of the same shape."""
    if not 1 <= classes < 2**32:
        raise InputError(
            "A label was not drawn", seen=f"{classes} classes", repair="Give 1 to 2^32 - 1 classes"
        )
    low, high = drawn & np.uint64(0xFFFFFFFF), drawn >> np.uint64(32)
    carry = (low * np.uint64(classes)) >> np.uint64(32)
    return ((high * np.uint64(classes) + carry) >> np.uint64(32)).astype(np.int64)


# Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied Statistics 37 (1988),
# PPND16: rational approximations, numerator and denominator from the highest power down.
_CENTRE = (
    _constants(
        2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
        13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608,
    ),
    _constants(
        5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
        5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0,
    ),
)  # fmt: skip
_SHOULDER = (
    _constants(
        7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
        3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734,
    ),
    _constants(
        1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
        0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0,
    ),
)  # fmt: skip
_TAIL = (
    _constants(
        2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
        0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772,
    ),
    _constants(
        2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
        0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0,
    ),
)  # fmt: skip


def _normal_magnitude(p: Doubles) -> Doubles:
    """-Phi^-1(p) for p in (0, 1/2)."""
    q = 0.5 - p
    z = _ratio(_CENTRE, 0.180625 - q * q)  # right where q <= 0.425
    z *= q
    (tail,) = np.nonzero(q > 0.425)
    r = np.sqrt(-_log(p[tail]))
    z[tail] = _ratio(_SHOULDER, r - 1.6)
    far = r > 5.0
    if far.any():  # for one word in 3.6e10
        z[tail[far]] = _ratio(_TAIL, r[far] - 5.0)
    return z


def _ratio(coefficients: tuple[tuple[Doubles, ...], tuple[Doubles, ...]], x: Doubles) -> Doubles:
    (a, *tops), (b, *bottoms) = coefficients
    top, bottom = a * x, b * x
    for a, b in zip(tops[:-1], bottoms[:-1], strict=True):
        top += a
        top *= x
        bottom += b
        bottom *= x
    top += tops[-1]
    bottom += bottoms[-1]
    return np.divide(top, bottom, out=top)


# fdlibm's Lg1 to Lg7, and ln 2 in two parts.
_LG1, _LG2, _LG3, _LG4, _LG5, _LG6, _LG7 = _constants(
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
    1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
)  # fmt: skip
_LN2_HIGH, _LN2_LOW = _constants(6.93147180369123816490e-01, 1.90821492927058770002e-10)
_SQRT_HALF, _HALF, _ONE, _TWO = _constants(0.70710678118654752440, 0.5, 1.0, 2.0)


def _log(x: Doubles) -> Doubles:
    """Natural logarithm of normal positive numbers: fdlibm's __ieee754_log, branch for branch."""
    m, exponent = np.frexp(x)
    low = m < _SQRT_HALF  # to [sqrt(1/2), sqrt(2))
    f = np.multiply(m, _TWO, out=m, where=low)
    f -= _ONE
    k = (exponent - low).astype(np.float64)
    s = f / (_TWO + f)
    z = s * s
    w = z * z
    t1 = w * (_LG2 + w * (_LG4 + w * _LG6))
    t2 = z * (_LG1 + w * (_LG3 + w * (_LG5 + w * _LG7)))
    half = _HALF * f * f
    return k * _LN2_HIGH - ((half - (s * (half + (t2 + t1)) + k * _LN2_LOW)) - f)
