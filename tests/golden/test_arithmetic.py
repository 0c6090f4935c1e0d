# SPDX-License-Identifier: Apache-2.0
"""Rounding, requantisation, exact products, tables and reciprocals (SPEC.md, sections 2 and 3)."""

import math
from fractions import Fraction

import numpy as np
import pytest

from edge_moe.testing import spec
from edge_moe_host.golden import arithmetic

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
# An entry is the value at the middle of its bin, up to 2**-11 away, and is itself rounded.
RECIPROCAL_ERROR = Fraction(103, 100) / 2**11


def half_up(value):
    """floor(value + 1/2) of a Fraction."""
    return math.floor(value + Fraction(1, 2))


def exact_requantise(a, m, n, lo, hi, z):
    return min(max(half_up(Fraction(a * m, 2**n)) + z, lo), hi)


def test_rounding_shift_against_fractions():
    rng = np.random.default_rng(0)
    edges = [s * (2**e + d) for e in (0, 1, 7, 15, 31, 45) for d in (-1, 0, 1) for s in (1, -1)]
    values = np.array([*range(-70, 71), *edges, *rng.integers(-(2**46), 2**46, size=100).tolist()])
    compared = 0
    for shift in (*range(9), 15, 24, 31, 32, 45, 46, 47):
        expected = [half_up(Fraction(int(v), 2**shift)) for v in values]
        result = arithmetic.rounding_shift(values, shift)
        assert result.dtype == np.int64
        assert result.tolist() == expected
        compared += len(expected)
    assert compared == 16 * 277


def test_rounding_shift_takes_one_shift_per_value():
    rng = np.random.default_rng(1)
    values = rng.integers(-(2**40), 2**40, size=(50, 8))
    shifts = rng.integers(0, 47, size=(50, 1), endpoint=True)
    expected = [[half_up(Fraction(v, 2**n)) for v in row]
                for row, (n,) in zip(values.tolist(), shifts.tolist(), strict=True)]  # fmt: skip
    assert arithmetic.rounding_shift(values, shifts).tolist() == expected


@pytest.mark.parametrize("shift", [1, 2, 15, 31, 40, 46, 47])
def test_requantise_against_fractions(shift):
    rng = np.random.default_rng(shift)
    accumulators = np.array([INT32_MIN, INT32_MIN + 1, INT32_MAX, -3, -1, 0, 1, 3,
                             *rng.integers(INT32_MIN, INT32_MAX, size=60).tolist()])  # fmt: skip
    multipliers = np.array([0, 1, 2, 16384, 32767, *rng.integers(0, 32767, size=4).tolist()])
    compared = 0
    for lo, hi, z in ((-128, 127, 0), (-127, 127, 0), (-128, 127, -128), (-128, 127, 127),
                      (-32768, 32767, 0), (-(2**62), 2**62, 5)):  # fmt: skip
        result = arithmetic.requantise(accumulators[:, None].astype(np.int32), multipliers.astype(np.int16),
                                       shift, lo, hi, z)  # fmt: skip
        expected = [[exact_requantise(a, m, shift, lo, hi, z) for m in multipliers.tolist()]
                    for a in accumulators.tolist()]  # fmt: skip
        assert result.tolist() == expected
        compared += result.size
    assert compared == 6 * 68 * 9


def test_requantise_adds_the_zero_point_before_it_saturates():
    assert arithmetic.requantise(np.array([300, -20]), 2, 1, -128, 127, -128).tolist() == [127, -128]
    assert arithmetic.requantise(np.array([250, 127]), 2, 1, -128, 127, -128).tolist() == [122, -1]


def test_largest_product_of_requantise_at_the_largest_shifts():
    """The product has 47 bits; with the half of a shift by 47 added it has 48."""
    assert (INT32_MIN * 32767).bit_length() == 46
    assert arithmetic.requantise([INT32_MIN, INT32_MAX], 32767, 47, -128, 127).tolist() == [0, 0]
    assert arithmetic.requantise([INT32_MIN, INT32_MAX], 32767, 46, -128, 127).tolist() == [-1, 1]


@pytest.mark.parametrize("name", ["EXP2", "RECIPROCAL", "RSQRT", "GELU"])
def test_table_equals_one_computed_with_fifty_digits(name):
    table = getattr(arithmetic, name)
    assert table.tolist() == spec.TABLES[name]


@pytest.mark.parametrize("name", ["EXP2", "RECIPROCAL", "RSQRT", "GELU"])
def test_no_table_entry_is_near_a_tie(name):
    """So that any float64 library gives the same table."""
    margins = [abs(value % 1 - spec.Decimal("0.5")) for value in spec.exact_tables()[name]]
    assert len(margins) == len(getattr(arithmetic, name))
    assert min(margins) > 1e-4


def test_reciprocal_is_the_specifications_and_close():
    rng = np.random.default_rng(2)
    large = rng.integers(1, 2**45, size=3000).tolist()
    edges = [2**e + d for e in range(1, 46) for d in (-1, 0, 1)]
    mantissas = [(m << 20) + low for m in range(1024, 2048) for low in (0, 2**20 - 1)]
    values = [*range(1, 2**15), *edges, *large, *mantissas]
    R, k = arithmetic.reciprocal(np.array(values))
    compared = 0
    for v, entry, exponent in zip(values, R.tolist(), k.tolist(), strict=True):
        assert (entry, exponent) == spec.reciprocal(v)
        # |entry * 2**(-15 - exponent) * v - 1| in integers
        error = abs(entry * v - 2 ** (15 + exponent))
        assert error * RECIPROCAL_ERROR.denominator <= RECIPROCAL_ERROR.numerator * 2 ** (15 + exponent)
        compared += 1
    assert compared == 2**15 - 1 + 135 + 3000 + 2048


def test_reciprocal_sqrt_is_the_specifications_and_close():
    rng = np.random.default_rng(3)
    large = [*rng.integers(1, 2**52, size=3000).tolist(), *(2 ** rng.uniform(0, 52, size=2000)).astype(int)]
    edges = [2**e + d for e in range(1, 52) for d in (-1, 0, 1)]
    mantissas = [(m << 20) + low for m in range(512, 2048) for low in (0, 2**20 - 1)]
    values = [int(v) for v in (*range(1, 2**14), *edges, *large, *mantissas)]
    R, k = arithmetic.reciprocal_sqrt(np.array(values))
    low, high = (1 - RECIPROCAL_ERROR) ** 2, (1 + RECIPROCAL_ERROR) ** 2
    compared = 0
    for v, entry, exponent in zip(values, R.tolist(), k.tolist(), strict=True):
        assert (entry, exponent) == spec.reciprocal_sqrt(v)
        square = entry * entry * v  # over 4**(15 + exponent): the square of what should be 1
        assert low.numerator << (30 + 2 * exponent) <= square * low.denominator
        assert square * high.denominator <= high.numerator << (30 + 2 * exponent)
        compared += 1
    assert compared == 2**14 - 1 + 153 + 5000 + 3072


def test_reciprocals_keep_the_shape():
    values = np.array([[1, 2, 3], [4, 5, 2**40]])
    for function in (arithmetic.reciprocal, arithmetic.reciprocal_sqrt):
        R, k = function(values)
        assert R.shape == k.shape == (2, 3)
        assert R.dtype == k.dtype == np.int64


def test_floor_log2_at_powers_of_two():
    values = [v for e in range(62) for v in (2**e - 1, 2**e, 2**e + 1) if v >= 1]
    assert len(values) == 185
    assert arithmetic.floor_log2(np.array(values)).tolist() == [v.bit_length() - 1 for v in values]


def test_matmul_is_exact_where_float32_is_not():
    rng = np.random.default_rng(4)
    a = rng.integers(-128, 127, size=(2, 3, 1024), endpoint=True).astype(np.int8)
    b = rng.integers(-16319, 16319, size=(1024, 5), endpoint=True).astype(np.int16)
    b[:, 0] |= 1
    exact = a.astype(object) @ b.astype(object)
    result = arithmetic.matmul(a, b)
    assert result.dtype == np.int64
    assert result.tolist() == exact.tolist()
    assert (a.astype(np.float32) @ b.astype(np.float32)).tolist() != exact.tolist()


def test_matmul_of_the_largest_accumulators():
    a = np.full((1, 2**17), -128, dtype=np.int8)
    b = np.full((2**17, 1), 127, dtype=np.int8)
    a[0, 0] = -127
    assert arithmetic.matmul(a, b).item() == -128 * 127 * 2**17 + 127
    assert arithmetic.matmul(b.T, a.T).item() == -128 * 127 * 2**17 + 127
