# SPDX-License-Identifier: Apache-2.0
"""Linears, GELU, patch embedding and LayerNorm against the scalar reference (SPEC.md, section 4)."""

import dataclasses
import math

import numpy as np
import pytest

from edge_moe.testing import spec
from edge_moe.testing.cases import compare, int8, int16, multiplier_and_shift, random_ffn, random_linear
from edge_moe_host.golden import operators
from edge_moe_host.golden.operators import FFN, LayerNorm, Linear


def identity_linear(multiplier, shift, weight=1, bias=0):
    """One channel: weight * x + bias, requantised."""
    return Linear(
        np.array([[weight]], dtype=np.int8),
        np.array([bias], dtype=np.int32),
        np.array([multiplier], dtype=np.int16),
        shift,
    )


# ------------------------------------------------------------------ linear


@pytest.mark.parametrize(("tokens", "fan_in", "out"), [(1, 1, 1), (1, 70, 5), (3, 32, 33), (5, 33, 4)])
def test_linear(tokens, fan_in, out):
    rng = np.random.default_rng(fan_in)
    layer = random_linear(rng, (out, fan_in))
    x = int8(rng, 2, tokens, fan_in)
    result = operators.linear(x, layer)
    assert compare(result, [spec.linear(image, layer) for image in x.tolist()], np.int8) == 2 * tokens * out


@pytest.mark.parametrize("bits", range(2, 9))
def test_linear_of_every_weight_width(bits):
    rng = np.random.default_rng(bits)
    layer = random_linear(rng, (9, 40), bits=bits)
    x = int8(rng, 1, 20, 40)
    result = operators.linear(x, layer)
    assert compare(result, [spec.linear(x[0].tolist(), layer)], np.int8) == 180
    assert (result[..., 0] == 0).all()  # the channel whose multiplier is 0
    assert {result.min(), result.max()} == {-127, 127}  # both ends, never -128
    assert len(np.unique(result)) > 40


def test_linear_int16_saturates_at_both_ends():
    rng = np.random.default_rng(0)
    layer = random_linear(rng, (8, 24), high=32767)
    x = int8(rng, 2, 12, 24)
    result = operators.linear_int16(x, layer)
    assert compare(result, [spec.linear_int16(image, layer) for image in x.tolist()], np.int16) == 192
    assert {result.min(), result.max()} == {-32768, 32767}


def test_linear_takes_an_accumulator_at_either_end_of_int32():
    weight = np.full((2, 1024), 127, dtype=np.int8)
    weight[1] = -127
    worst = 128 * 127 * 1024
    bias = np.array([-(2**31 - 1 - worst), 2**31 - 1 - worst], dtype=np.int32)
    layer = Linear(weight, bias, np.full(2, 32767, dtype=np.int16), 31)
    x = np.full((1, 1, 1024), -128, dtype=np.int8)
    assert operators.linear_int16(x, layer).tolist() == [[[-32767, 32767]]]
    layer = dataclasses.replace(layer, shift=30)
    assert operators.linear_int16(x, layer).tolist() == [[[-32768, 32767]]]


def test_linear_rounds_half_up_on_either_side_of_zero():
    x = np.arange(-6, 7, dtype=np.int8).reshape(1, 13, 1)
    result = operators.linear(x, identity_linear(1, 1))
    assert result.ravel().tolist() == [-3, -2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3, 3]


def test_linear_residual_rounds_and_saturates_before_it_adds():
    rng = np.random.default_rng(1)
    layer = random_linear(rng, (8, 24), high=32767)
    x, residual = int8(rng, 2, 12, 24), int16(rng, 2, 12, 8)
    result = operators.linear_residual(x, layer, residual)
    expected = [spec.linear_residual(a, layer, r) for a, r in zip(x.tolist(), residual.tolist(), strict=True)]
    assert compare(result, expected, np.int16) == 192
    assert {result.min(), result.max()} == {-32768, 32767}
    # 100000 saturates to 32767 before -30000 is added
    layer = identity_linear(1000, 1, weight=100, bias=-9800)
    result = operators.linear_residual(
        np.array([[[100], [98], [-4]]], dtype=np.int8), layer, np.full((1, 3, 1), -30000, np.int16)
    )
    assert result.ravel().tolist() == [2767, -30000, -32768]


@pytest.mark.parametrize(
    ("residual", "update", "total"),
    [(32767, 1, 32767), (-32768, -1, -32768), (32767, -32768, -1), (-32768, 65534, 32766), (5, -7, -2)],
)
def test_residual_add(residual, update, total):
    result = operators.residual_add(np.array([[[residual]]], np.int16), np.array([[[update]]], np.int32))
    assert compare(result, [[[total]]], np.int16) == 1


# ------------------------------------------------------------------ GELU


def test_gelu_of_every_int16():
    x = np.arange(-32768, 32768).astype(np.int16)
    result = operators.gelu(x)
    assert compare(result, [spec.gelu(v) for v in range(-32768, 32768)], np.int16) == 2**16
    assert result.min() == -174
    assert operators.gelu(np.array([-32768, -4096, 4095, 4096, 32767], np.int16)).tolist() == [
        0,
        0,
        4095,
        4096,
        32767,
    ]


@pytest.mark.parametrize("zero_point", [-128, -100, 0, 127])
def test_linear_gelu(zero_point):
    rng = np.random.default_rng(zero_point + 128)
    ffn = random_ffn(rng, 12, 20, zero_point=zero_point)
    x = int8(rng, 2, 15, 12)
    result = operators.linear_gelu(x, ffn)
    assert compare(result, [spec.linear_gelu(image, ffn) for image in x.tolist()], np.int8) == 600
    assert (result[..., 0] == zero_point).all()  # the channel whose multiplier is 0: gelu(0) is -1 of 1024
    assert result.min() == max(zero_point - 3, -128)  # -174 of 1024
    assert result.max() > min(zero_point + 90, 126)


def test_linear_gelu_adds_the_zero_point_after_rounding_and_before_saturating():
    fc1 = identity_linear(1024, 1, weight=1)  # Q10: x / 2 in units of one
    ffn = FFN(fc1, 16384, 22, -128, identity_linear(1, 1))  # hidden is 4 per unit
    x = np.array([[[-128], [-2], [0], [2], [120], [127]]], dtype=np.int8)
    # gelu(-64) = 0, gelu(-1) = -0.16, gelu(1) = 0.84, gelu(32) saturates to 32767
    assert operators.linear_gelu(x, ffn).ravel().tolist() == [-128, -128, -128, -125, 0, 0]
    assert operators.linear_gelu(x, dataclasses.replace(ffn, zero_point=0)).ravel().tolist() == [
        0, -1, 0, 3, 127, 127,
    ]  # fmt: skip


# ------------------------------------------------------------------ patch embedding


@pytest.mark.parametrize("cls", [0, 1])
@pytest.mark.parametrize(("height", "width", "patch"), [(1, 1, 1), (2, 6, 2), (8, 4, 4), (8, 16, 8)])
def test_patch_embedding(height, width, patch, cls):
    rng = np.random.default_rng(patch)
    layer = random_linear(rng, (5, 3 * patch * patch), high=32767, gain=0.7)
    tokens = height * width // patch**2 + cls
    position = int16(rng, tokens, 5)
    image = rng.integers(0, 255, size=(3, height, width, 3), endpoint=True).astype(np.uint8)
    image.flat[0], image.flat[-1] = 0, 255
    result = operators.patch_embedding(image, layer, position, patch)
    expected = [spec.patch_embedding(one, layer, position.tolist(), patch) for one in image.tolist()]
    assert compare(result, expected, np.int16) == 3 * tokens * 5
    if cls:
        assert (result[:, 0] == position[0]).all()


def test_patch_embedding_saturates_the_sum_with_the_position():
    layer = Linear(np.full((1, 3), 100, np.int8), np.zeros(1, np.int32), np.array([1], np.int16), 1)
    image = np.array([[[[255] * 3, [0] * 3, [128] * 3]]], dtype=np.uint8)
    position = np.array([[30000], [-30000], [7]], dtype=np.int16)
    # 3 * 127 * 100 / 2 = 19050 and 3 * -128 * 100 / 2 = -19200
    assert operators.patch_embedding(image, layer, position, 1).tolist() == [[[32767], [-32768], [7]]]


# ------------------------------------------------------------------ LayerNorm


def random_norm(rng, width, shift=16, epsilon=1):
    """int8 with about 60 per unit of the normalised value, and offsets in all of int8 and beyond."""
    top = min(32767, round(60 / 1024 * 2**shift))
    gamma = rng.integers(-top, top, size=width, endpoint=True)
    beta = rng.integers(-150 * 2**shift, 150 * 2**shift, size=width)
    beta = np.clip(beta, -(2**31) + 1, 2**31 - 1)
    return LayerNorm(gamma.astype(np.int16), beta.astype(np.int32), shift, epsilon)


@pytest.mark.parametrize("width", [1, 2, 5, 32, 33, 192])
@pytest.mark.parametrize("amplitude", [1, 40, 2000, 32767])
def test_layernorm(width, amplitude):
    rng = np.random.default_rng(width)
    norm = random_norm(rng, width)
    x = rng.integers(-amplitude, amplitude, size=(2, 6, width), endpoint=True) + min(500, 32767 - amplitude)
    x = x.astype(np.int16)
    result = operators.layernorm(x, norm)
    assert compare(result, [spec.layernorm(image, norm) for image in x.tolist()], np.int8) == 12 * width
    if width >= 32:
        assert {result.min(), result.max()} == {-128, 127}


@pytest.mark.parametrize("epsilon", [1, 2, 10**6, 2**45, 2**51])
@pytest.mark.parametrize("shift", [1, 12, 18, 24])
def test_layernorm_of_every_shift_and_epsilon(epsilon, shift):
    rng = np.random.default_rng(shift)
    norm = random_norm(rng, 16, shift, epsilon)
    small = rng.integers(-9, 9, size=(1, 20, 16)).astype(np.int16)
    x = np.concatenate([int16(rng, 1, 20, 16), small], axis=1)
    assert compare(operators.layernorm(x, norm), [spec.layernorm(x[0].tolist(), norm)], np.int8) == 640


@pytest.mark.parametrize("value", [-32768, -1, 0, 32767])
def test_layernorm_of_zero_variance_gives_beta(value):
    rng = np.random.default_rng(2)
    norm = random_norm(rng, 24)
    x = np.full((1, 3, 24), value, dtype=np.int16)
    result = operators.layernorm(x, norm)
    assert compare(result, [spec.layernorm(x[0].tolist(), norm)], np.int8) == 72
    beta = [spec.clip(spec.rs(b, norm.shift), -128, 127) for b in norm.beta.tolist()]
    assert result[0, 0].tolist() == beta


@pytest.mark.parametrize("sign", [1, -1])
def test_layernorm_of_one_outlier_saturates_the_normalised_value(sign):
    """sqrt(D - 1) standard deviations are more than the 32 that Q10 in int16 holds."""
    D = 1100
    norm = LayerNorm(np.ones(D, np.int16), np.zeros(D, np.int32), 10, 1)
    x = np.zeros((1, 1, D), dtype=np.int16)
    x[0, 0, 7] = sign * 32767
    result = operators.layernorm(x, norm)
    assert compare(result, [spec.layernorm(x[0].tolist(), norm)], np.int8) == D
    assert math.sqrt(D - 1) > 33
    assert result[0, 0, 7] == sign * 32
    assert set(np.delete(result[0, 0], 7)) == {0}


@pytest.mark.parametrize("skip", [0, 1, 3])
def test_layernorm_leaves_the_first_tokens_out(skip):
    rng = np.random.default_rng(3)
    norm = random_norm(rng, 8)
    x = int16(rng, 2, 5, 8)
    result = operators.layernorm(x, norm, skip=skip)
    assert compare(result, [spec.layernorm(image, norm, skip) for image in x.tolist()], np.int8) == (
        2 * (5 - skip) * 8
    )
    assert (result == operators.layernorm(x, norm)[:, skip:]).all()


def test_multiplier_and_shift_of_the_cases():
    for real in (1e-6, 0.003, 0.5, 1.0, 100.0):
        multiplier, shift = multiplier_and_shift(real)
        assert 16383 <= multiplier <= 32767
        assert abs(multiplier / 2.0**shift / real - 1) < 1e-4
