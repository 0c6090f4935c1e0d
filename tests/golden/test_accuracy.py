# SPDX-License-Identifier: Apache-2.0
"""Errors of LayerNorm, GELU, gate and scores against float64 on the same activations.

Attention's are in test_attention.py, those of convolution and upsampling in test_torch.py.
"""

import math

import numpy as np
import pytest

from edge_moe.testing.cases import multiplier_and_shift
from edge_moe_host.golden import operators
from edge_moe_host.golden.operators import FFN, Gate, LayerNorm, Linear


def rounded(values, zero_point=0):
    """The correctly rounded int8."""
    return np.clip(np.floor(values + 0.5) + zero_point, -128, 127)


# ------------------------------------------------------------------ LayerNorm


@pytest.mark.parametrize("width", [4, 32, 192, 1024])
@pytest.mark.parametrize("amplitude", [1, 3, 100, 32767])
@pytest.mark.parametrize("scale", [1 / 512, 1 / 40])
def test_layernorm_is_within_one_of_the_correctly_rounded_result(width, amplitude, scale):
    """For |gamma| <= 2**(shift - 1): a unit of the result is at least 1/512 of a standard deviation."""
    rng = np.random.default_rng(width)
    shift = 15
    top = round(2**shift / 1024 / scale)
    gamma = rng.integers(-top, top, size=width, endpoint=True)
    assert top <= 2 ** (shift - 1)
    beta = rng.integers(-100 * 2**shift, 100 * 2**shift, size=width)
    x = rng.integers(-amplitude, amplitude, size=(1, 60, width), endpoint=True)
    x[0, :20, 1:] = x[0, :20, :1]  # one or no channel differs
    epsilon = int(rng.integers(1, width**2))
    norm = LayerNorm(gamma.astype(np.int16), beta.astype(np.int32), shift, epsilon)
    result = operators.layernorm(x.astype(np.int16), norm)

    centred = (width * x - x.sum(-1, keepdims=True)).astype(np.float64)
    variance = (centred**2).sum(-1, keepdims=True) / width + epsilon  # times width**2
    exact = rounded((centred / np.sqrt(variance) * 1024 * gamma + beta) / 2**shift)
    difference = np.abs(result - exact)
    assert difference.size == 60 * width
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.1


def test_layernorm_of_every_order_of_magnitude():
    """Rows with variances from 1/8 to 2**30, so that every bin of the reciprocal square root occurs."""
    rng = np.random.default_rng(0)
    amplitude = 2 ** rng.uniform(0, 15, size=(1, 4000, 1))
    x = np.clip(np.round(rng.normal(size=(1, 4000, 8)) * amplitude), -32768, 32767).astype(np.int16)
    norm = LayerNorm(np.full(8, 128, np.int16), np.zeros(8, np.int32), 11, 1)  # int8 is 64 per unit
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    exact = rounded(64 * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1 / 64))
    difference = np.abs(operators.layernorm(x, norm) - exact)
    assert difference.size == 32000
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.05


# ------------------------------------------------------------------ GELU

ALL_INT16 = np.arange(-32768, 32768)


def exact_gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def test_gelu_is_within_three_halves_of_a_unit_of_q10():
    error = np.abs(operators.gelu(ALL_INT16.astype(np.int16)) - 1024 * exact_gelu(ALL_INT16 / 1024))
    assert error.size == 2**16
    assert error.max() <= 1.41


@pytest.mark.parametrize("scale", [0.0015, 0.003, 0.0101, 0.05, 0.25])
@pytest.mark.parametrize("zero_point", [-128, -90, 0])
def test_gelu_is_within_one_of_the_correctly_rounded_result(scale, zero_point):
    """Every int16, through the int8 requantisation, for output scales of 0.0015 and more."""
    count = len(ALL_INT16)
    # channel i gives ALL_INT16[i], whatever comes in
    fc1 = Linear(
        np.zeros((count, 1), np.int8), (2 * ALL_INT16).astype(np.int32), np.ones(count, np.int16), shift=1
    )
    multiplier, shift = multiplier_and_shift(1 / (1024 * scale))
    ffn = FFN(fc1, multiplier, shift, zero_point, fc1)
    result = operators.linear_gelu(np.zeros((1, 1, 1), np.int8), ffn)[0, 0]
    exact = rounded(exact_gelu(ALL_INT16 / 1024) / scale, zero_point)
    difference = np.abs(result - exact)
    assert difference.size == 2**16
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


# ------------------------------------------------------------------ gate


def routed(experts, top_k, spread, tokens=20000, width=192):
    """(expert, score) of golden, and the float gate's probabilities on the same int8 activations.

    ``spread``: rms of the logits in natural units.
    """
    rng = np.random.default_rng(experts + top_k)
    weight = rng.normal(size=(experts, width)) * spread / (35 * math.sqrt(width))
    x = np.clip(np.round(rng.normal(0, 35, size=(1, tokens, width))), -128, 127).astype(np.int8)
    logits = x[0].astype(np.float64) @ weight.T
    step = np.abs(weight).max() / 16319
    multiplier, shift = multiplier_and_shift(step * 256 / math.log(2))
    gate = Gate(
        np.round(weight / step).astype(np.int16), np.zeros(experts, np.int32), multiplier, shift, top_k
    )
    expert, score = operators.route(operators.gate_logits(x, gate), gate)
    probability = np.exp(logits - logits.max(-1, keepdims=True))
    return expert[0], score[0], probability / probability.sum(-1, keepdims=True)


@pytest.mark.parametrize(("experts", "top_k"), [(16, 2), (16, 4), (8, 2), (4, 1)])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_top_k_sets_are_the_float_gates_for_999_tokens_of_1000(experts, top_k, spread):
    expert, score, probability = routed(experts, top_k, spread)
    exact = np.argsort(-probability, axis=-1, kind="stable")[:, :top_k]
    same = (np.sort(exact, -1) == np.sort(expert, -1)).all(-1)
    assert same.size == 20000
    assert same.mean() >= 0.999
    # and the scores are the probabilities of those experts
    error = np.abs(score / 2**15 - np.take_along_axis(probability, expert, -1))
    assert error.size == 20000 * top_k
    assert error.max() <= 0.001
    assert error.mean() <= 0.0002
