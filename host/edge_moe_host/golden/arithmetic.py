# SPDX-License-Identifier: Apache-2.0
"""The integer arithmetic of every operator: rounding, saturation, exact products, tables.

SPEC.md, sections 2 and 3. All intermediates are int64: the widths stated there are upper bounds on the
values, not types that wrap. Imports no torch.
"""

import math

import numpy as np

INT8_MIN, INT8_MAX = -128, 127
INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1

EXP2_BITS = 8  # fraction bits of a base-2 logit
EXP2_ONE = 15  # EXP2 holds 2**-fraction in Q15
MANTISSA_BITS = 10  # of the reciprocal's argument; one less for the reciprocal square root's
GELU_FRACTION = 10  # fraction bits of GELU's argument and result
GELU_STEP_BITS = 2  # fraction bits that the index of the GELU table drops
GELU_LIMIT = 4  # |x| from which GELU is ReLU


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round half up, as a right shift does."""
    return np.floor(values + 0.5).astype(np.int64)


def _gelu_table() -> np.ndarray:
    count = GELU_LIMIT << (GELU_FRACTION - GELU_STEP_BITS)
    a = (np.arange(count) + 0.5) / (1 << (GELU_FRACTION - GELU_STEP_BITS))
    delta = np.array([value * 0.5 * math.erfc(value / math.sqrt(2)) for value in a])
    return _rounded(delta * (1 << GELU_FRACTION))


# int64 [256]: 2**(-i/256) in Q15, from 32768 down to 16428
EXP2 = _rounded(np.exp2(EXP2_ONE - np.arange(1 << EXP2_BITS) / (1 << EXP2_BITS)))
# 1/x in Q15 at the middle of each of 1024 bins of x in [1, 2), and 1/sqrt(x) of 1536 bins of x in [1, 4)
_BINS, _ROOT_BINS = 1 << MANTISSA_BITS, 1 << (MANTISSA_BITS - 1)
RECIPROCAL = _rounded(2.0 ** (MANTISSA_BITS + 15) / (np.arange(_BINS, 2 * _BINS) + 0.5))
RSQRT = _rounded(2.0**15 / np.sqrt((np.arange(_ROOT_BINS, 4 * _ROOT_BINS) + 0.5) / _ROOT_BINS))
# int64 [1024]: delta(a) = a (1 - Phi(a)) in Q10 at the middle of 1024 bins of a in [0, 4)
GELU = _gelu_table()


def saturate(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Clip to [low, high]."""
    return np.clip(values, low, high)


def rounding_shift(values: np.ndarray, shift: np.ndarray | int) -> np.ndarray:
    """values / 2**shift rounded half up: floor(x + 1/2). -3 by 1 is -1, -5 by 1 is -2; by 0 no change."""
    values, shift = np.asarray(values, dtype=np.int64), np.asarray(shift, dtype=np.int64)
    half = (np.int64(1) << shift) >> 1
    return (values + half) >> shift


def requantise(
    accumulator: np.ndarray,
    multiplier: np.ndarray | int,
    shift: int,
    low: int,
    high: int,
    zero_point: int = 0,
) -> np.ndarray:
    """clip(round_half_up(accumulator * multiplier / 2**shift) + zero_point, low, high), int64.

    accumulator int32 [..., C], multiplier in [0, 32767], one or [C], shift in [1, 47].
    """
    product = np.asarray(accumulator, dtype=np.int64) * np.asarray(multiplier, dtype=np.int64)
    return saturate(rounding_shift(product, shift) + zero_point, low, high)


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Exact integer product, int64: computed in float64, where sums below 2**53 are exact."""
    return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64)


def floor_log2(values: np.ndarray) -> np.ndarray:
    """floor(log2(v)) of positive int64 below 2**62: the index of the highest set bit."""
    powers = np.int64(1) << np.arange(62, dtype=np.int64)
    return np.searchsorted(powers, np.asarray(values, dtype=np.int64), side="right") - 1


def reciprocal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, k) with 1/v about R * 2**(-15-k), v a positive integer, k = floor(log2(v)), R Q15."""
    values = np.asarray(values, dtype=np.int64)
    k = floor_log2(values)
    # the MANTISSA_BITS bits below the leading one; zeros where v has fewer
    mantissa = (values << np.maximum(MANTISSA_BITS - k, 0)) >> np.maximum(k - MANTISSA_BITS, 0)
    return RECIPROCAL[mantissa - (1 << MANTISSA_BITS)], k


def reciprocal_sqrt(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, k) with 1/sqrt(v) about R * 2**(-15-k), v a positive integer, k = floor(log4(v)), R Q15."""
    values = np.asarray(values, dtype=np.int64)
    k = floor_log2(values) >> 1
    bits = MANTISSA_BITS - 1
    mantissa = (values << np.maximum(bits - 2 * k, 0)) >> np.maximum(2 * k - bits, 0)
    return RSQRT[mantissa - (1 << bits)], k
