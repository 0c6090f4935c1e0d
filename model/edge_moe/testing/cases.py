# SPDX-License-Identifier: Apache-2.0
"""Layers that reach the ends of their ranges, and the comparison of golden with nested lists."""

import math

import numpy as np

from edge_moe_host.golden.operators import FFN, Linear

X_RMS = 74.0  # of uniform int8


def compare(actual, expected, dtype):
    """Assert type, shape and every value; return the number of values."""
    expected = np.array(expected, dtype=np.int64)
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    different = np.argwhere(actual.astype(np.int64) != expected)
    assert not len(different), (
        f"{len(different)} of {actual.size} differ, the first at {different[0]}: "
        f"{actual[tuple(different[0])]}, expected {expected[tuple(different[0])]}"
    )
    return actual.size


def int8(rng, *shape):
    """Uniform over all of int8, both ends present."""
    x = rng.integers(-128, 127, size=shape, endpoint=True)
    x.flat[0], x.flat[-1] = -128, 127
    return x.astype(np.int8)


def int16(rng, *shape):
    """Uniform over all of int16, both ends present."""
    x = rng.integers(-32768, 32767, size=shape, endpoint=True)
    x.flat[0], x.flat[-1] = -32768, 32767
    return x.astype(np.int16)


def multiplier_and_shift(real):
    """(m, n) with m / 2**n about ``real`` and m in [16384, 32767]."""
    shift = math.floor(math.log2(32767 / real))
    return round(real * 2.0**shift), shift


def random_linear(rng, shape, high=127, gain=1.0, bits=8):
    """weight [out, ...] over its whole range; results have an rms of up to ``gain * high``.

    The first of several channels has the multiplier 0.
    """
    limit = 2 ** (bits - 1) - 1
    weight = rng.integers(-limit, limit, size=shape, endpoint=True).astype(np.int8)
    rms = X_RMS * math.sqrt(math.prod(shape[1:])) * limit / math.sqrt(3)
    top, shift = multiplier_and_shift(gain * high / rms)
    multiplier = rng.integers(top // 2, top, size=shape[0], endpoint=True)
    if shape[0] > 2:
        multiplier[0] = 0
    bias = rng.integers(-int(rms), int(rms), size=shape[0], endpoint=True)
    return Linear(weight, bias.astype(np.int32), multiplier.astype(np.int16), shift, bits)


def random_ffn(rng, width, hidden, gain=0.6, zero_point=-100):
    """fc1 with results to about +-6 in Q10, so that GELU's curve and both its ends occur."""
    multiplier, shift = multiplier_and_shift(127 / 8000)
    return FFN(
        random_linear(rng, (hidden, width), high=6144, gain=0.5),
        multiplier,
        shift,
        zero_point,
        random_linear(rng, (width, hidden), high=32767, gain=gain),
    )
