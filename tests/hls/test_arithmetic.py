# SPDX-License-Identifier: Apache-2.0
"""Rounding, tables, requantisation, GELU and LayerNorm of the C++ operators against golden."""

import numpy as np
import pytest

from edge_moe.testing.cases import compare, int8, int16
from edge_moe_host.golden import arithmetic, operators
from edge_moe_host.golden.operators import LayerNorm

RANGES = ((-127, 127, 0), (-128, 127, -128), (-128, 127, 127), (-32768, 32767, 0))  # low, high, zero point


def test_rounding_shift(ops):
    rng = np.random.default_rng(0)
    corners = np.array([0, 1, -1, 3, -3, -5, -6, -7, 2**46, -(2**46), 2**47 - 1, -(2**47)])
    values = np.concatenate([corners, rng.integers(-(2**47), 2**47, size=500), rng.integers(-200, 200, 500)])
    compared = 0
    for shift in range(48):
        compared += compare(
            ops.rounding_shift(values, shift), arithmetic.rounding_shift(values, shift), np.int64
        )
    assert compared == 48 * 1012


@pytest.mark.parametrize(("name", "bits"), [("reciprocal", 32), ("reciprocal_sqrt", 52)])
def test_inverses(ops, name, bits):
    rng = np.random.default_rng(bits)
    edges = np.array([(1 << i) + d for i in range(bits) for d in (-1, 0, 1)])
    values = np.concatenate([np.arange(1, 1500), edges, (2.0 ** rng.uniform(0, bits, 2000)).astype(np.int64)])
    values = np.unique(np.clip(values, 1, (1 << bits) - 1))
    entry, exponent = ops.inverse(name, values.astype(np.uint32 if bits == 32 else np.uint64))
    expected_entry, expected_exponent = getattr(arithmetic, name)(values)
    assert compare(entry, expected_entry, np.int16) == len(values) > 2500
    compare(exponent, expected_exponent, np.int8)
    table = arithmetic.RECIPROCAL if name == "reciprocal" else arithmetic.RSQRT
    assert {entry.min(), entry.max()} == {table.min(), table.max()}


def test_requantise(ops):
    rng = np.random.default_rng(1)
    corners = np.array([2**31 - 1, -(2**31), 0, 1, -1, -3, 100, 200])
    multiplier = np.array([0, 1, 2, 32767, 32766, 16384, *rng.integers(0, 32767, size=10)], dtype=np.int16)
    compared = 0
    for shift in range(1, 48):
        magnitude = np.clip(2.0 ** (shift - 7 + rng.uniform(-4, 4, size=(20, 16))), 1, 2**31 - 1)
        a = (magnitude * rng.choice([-1, 1], size=magnitude.shape)).astype(np.int32)
        a[: len(corners)] = corners[:, None]
        for low, high, zero_point in RANGES:
            expected = arithmetic.requantise(a, multiplier, shift, low, high, zero_point)
            result = ops.requantise(a, multiplier, shift, low, high, zero_point)
            compared += compare(result, expected, np.int16)
            assert shift > 30 or (expected.min() == low and expected.max() == high)
    assert compared == 47 * 4 * 320


def test_gelu_of_every_int16(ops):
    x = np.arange(-(2**15), 2**15).astype(np.int16)
    assert compare(ops.gelu(x), operators.gelu(x), np.int16) == 2**16


def test_residual_add(ops):
    rng = np.random.default_rng(2)
    residual, update = int16(rng, 33, 96), int16(rng, 33, 96)
    result = ops.residual_add(residual, update)
    assert compare(result, operators.residual_add(residual, update), np.int16) == 33 * 96
    assert {result.min(), result.max()} == {-32768, 32767}


def random_norm(rng, width, shift=18, epsilon=None):
    return LayerNorm(
        rng.integers(-15000, 15000, size=width).astype(np.int16),
        (rng.integers(-60, 60, size=width) << shift).astype(np.int32),
        shift,
        epsilon or width * width,
    )


@pytest.mark.parametrize(
    ("tokens", "width"), [(1, 1), (1, 32), (2, 33), (3, 31), (17, 100), (5, 192), (3, 256)]
)
def test_layernorm(ops, tokens, width):
    rng = np.random.default_rng(width)
    norm = random_norm(rng, width)
    x = int16(rng, tokens, width)
    assert compare(ops.layernorm(x, norm), operators.layernorm(x[None], norm)[0], np.int8) == tokens * width


@pytest.mark.parametrize("shift", [1, 2, 17, 30, 31])
@pytest.mark.parametrize("width", [64, 1024])
def test_layernorm_of_every_shift_and_spread(ops, width, shift):
    """1024 channels are the most that the integers' widths allow: more than this accelerator's max_width,
    which bounds no memory of the operator."""
    rng = np.random.default_rng(shift)
    gamma = rng.choice([-32768, 32767, 0, 1, -1], size=width).astype(np.int16)
    beta = rng.choice([2**30, -(2**30), 0, 1, -1], size=width).astype(np.int32)
    halves = np.where(np.arange(width) % 2, 32767, -32768)  # the largest variance
    one = np.where(np.arange(width), -32768, 32767)  # the largest distance from the mean
    rows = [np.full(width, 32767), np.full(width, -32768), np.zeros(width, int), halves, halves >> 8]
    rows += [one, -one - 1] + [rng.integers(-(2**bits), 2**bits, size=width) for bits in range(16)]
    x = np.array(rows).astype(np.int16)
    for epsilon in (1, 2**20, 2**32 - 1):
        norm = LayerNorm(gamma, beta, shift, epsilon)
        result = ops.layernorm(x, norm)
        assert compare(result, operators.layernorm(x[None], norm)[0], np.int8) == 23 * width
        assert shift > 17 or {result.min(), result.max()} == {-128, 127}


def test_layernorm_ignores_what_is_beyond_its_channels(ops):
    """The padding of a row is not zero: hls_ops.PADDING."""
    rng = np.random.default_rng(3)
    norm = random_norm(rng, 40, epsilon=1)
    x = (int8(rng, 4, 40)).astype(np.int16)
    assert compare(ops.layernorm(x, norm), operators.layernorm(x[None], norm)[0], np.int8) == 160


def test_a_write_beyond_an_array_is_seen(ops):
    x = np.zeros((4, 32), np.int16)
    with pytest.raises(AssertionError, match="gelu wrote beyond argument 1"):
        ops.call("gelu", x, np.zeros((4, 31), np.int16), 4)
    with pytest.raises(AssertionError, match="residual_add wrote beyond argument 2"):
        ops.call("residual_add", x, x, np.zeros((3, 32), np.int16), 4)
