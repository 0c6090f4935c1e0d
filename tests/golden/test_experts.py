# SPDX-License-Identifier: Apache-2.0
"""Gate, top-k, scores and experts against the scalar reference (SPEC.md, section 4)."""

import dataclasses

import numpy as np
import pytest

from edge_moe.testing import spec
from edge_moe.testing.cases import compare, int8, random_ffn
from edge_moe_host.golden import operators
from edge_moe_host.golden.operators import FFN, Gate, Linear


def make_gate(count, top_k, width=1, multiplier=1, shift=1):
    """For :func:`operators.route` the weights do not matter."""
    zeros = np.zeros((count, width), dtype=np.int16)
    return Gate(zeros, np.zeros(count, dtype=np.int32), multiplier, shift, top_k)


def check_route(logits, gate):
    """Compare with the reference; (expert, score)."""
    expert, score = operators.route(np.asarray(logits, dtype=np.int32), gate)
    expected = [spec.route(image, gate) for image in np.asarray(logits).tolist()]
    count = compare(expert, [e for e, _ in expected], np.int32)
    assert (
        compare(score, [s for _, s in expected], np.int16)
        == count
        == logits.size // logits.shape[-1] * (gate.top_k)
    )
    return expert, score


# ------------------------------------------------------------------ gate


@pytest.mark.parametrize(("experts", "width"), [(1, 1), (4, 8), (16, 33), (5, 1024)])
def test_gate_logits(experts, width):
    rng = np.random.default_rng(width)
    weight = rng.integers(-16319, 16319, size=(experts, width), endpoint=True).astype(np.int16)
    weight.flat[0], weight.flat[-1] = 16319, -16319
    bias = rng.integers(-(2**20), 2**20, size=experts).astype(np.int32)
    gate = dataclasses.replace(make_gate(experts, 1), weight=weight, bias=bias)
    x = int8(rng, 2, 3, width)
    result = operators.gate_logits(x, gate)
    expected = [spec.gate_logits(image, gate) for image in x.tolist()]
    assert compare(result, expected, np.int32) == 6 * experts


def test_gate_logits_at_the_ends_of_int32():
    weight = np.full((2, 1024), 16319, dtype=np.int16)
    rest = 2**31 - 1 - 128 * 16319 * 1024
    gate = dataclasses.replace(make_gate(2, 1), weight=weight, bias=np.array([-rest, 0], dtype=np.int32))
    x = np.full((1, 1, 1024), -128, dtype=np.int8)
    assert operators.gate_logits(x, gate).tolist() == [[[-(2**31) + 1, -128 * 16319 * 1024]]]


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (2, 1), (4, 2), (16, 4), (8, 8), (33, 3)])
@pytest.mark.parametrize("amplitude", [3, 600, 40000, 2**31 - 1])
def test_route(experts, top_k, amplitude):
    rng = np.random.default_rng(experts)
    logits = rng.integers(-amplitude, amplitude, size=(2, 30, experts), endpoint=True)
    expert, score = check_route(logits, make_gate(experts, top_k))
    assert expert.shape == score.shape == (2, 30, top_k)
    assert (np.diff(score.astype(int), axis=-1) <= 0).all()


def test_route_gives_equal_logits_to_the_lower_index():
    logits = np.array([[[5, 9, 9, 5], [7, 7, 7, 7], [-3, -9, -3, -3], [2, 1, 0, 2]]])
    expert, score = check_route(logits, make_gate(4, 3))
    assert expert.tolist() == [[[1, 2, 0], [0, 1, 2], [0, 2, 3], [0, 3, 1]]]
    assert (score[0, :, 0] == score[0, :, 1]).all()


def test_route_orders_by_the_logits_before_they_are_requantised():
    """Logits that differ by less than a unit of the score's logits, and some outside its range."""
    logits = np.array([[[1, 3, 2, 0], [2**30, 2**31 - 1, 2**30 + 1, 2**30]]])
    expert, score = check_route(logits, make_gate(4, 4, multiplier=1, shift=10))
    assert expert.tolist() == [[[1, 2, 0, 3], [1, 2, 0, 3]]]
    assert (score == score[..., :1]).all()


def test_scores_of_equal_logits_and_of_a_lone_expert():
    _, score = check_route(np.full((1, 1, 16), -77), make_gate(16, 2))
    assert (abs(score - 2048) <= 1).all()
    # a lone expert's score is 1, which Q15 in int16 does not hold, at every place in the octave
    _, score = check_route(np.arange(-600, 600).reshape(1, 1200, 1), make_gate(1, 1, multiplier=2))
    assert score.max() == 32767
    assert score.min() >= 32767 - 16


def test_scores_are_of_the_softmax_over_all_experts():
    """Three equal logits, two chosen: a third each, not a half."""
    _, score = check_route(np.zeros((1, 1, 3), dtype=int), make_gate(3, 2))
    assert (abs(score - 32768 / 3) < 8).all()


def test_scores_far_below_the_largest_are_nothing():
    steps = np.array([256 * e for e in (0, 1, 14, 15, 16, 17, 30, 31, 32, 100)])
    logits = np.stack([np.zeros_like(steps), -steps], axis=-1)[None]
    _, score = check_route(logits, make_gate(2, 2, multiplier=2))
    assert (score[0, :, 1] > 0).tolist() == [True] * 4 + [False] * 6


def test_the_gates_multiplier_sets_the_temperature():
    rng = np.random.default_rng(7)
    logits = rng.integers(-(2**24), 2**24, size=(1, 40, 6))
    sums = [check_route(logits, make_gate(6, 6, multiplier=m, shift=30))[1][..., 0].mean()
            for m in (0, 1000, 8000, 32767)]  # fmt: skip
    assert sums == sorted(sums)
    assert 5400 < sums[0] < 5500 < sums[-1]


# ------------------------------------------------------------------ experts


def spread_routing(rng, tokens, experts, top_k):
    """Distinct experts for each token, all used; scores that do not add up to 1."""
    expert = np.argsort(rng.random((2, tokens, experts)), axis=-1)[..., :top_k].astype(np.int32)
    score = rng.integers(0, 32767, size=expert.shape, endpoint=True).astype(np.int16)
    score.flat[0], score.flat[-1] = 0, 32767
    return expert, score


def check_experts(x, expert, score, ffns):
    result = operators.experts(x, expert, score, ffns)
    expected = [
        spec.experts(*image, ffns) for image in zip(x.tolist(), expert.tolist(), score.tolist(), strict=True)
    ]
    assert compare(result, expected, np.int32) == x.shape[0] * x.shape[1] * len(ffns[0].fc2.weight)
    return result


@pytest.mark.parametrize(("count", "top_k"), [(1, 1), (4, 1), (4, 2), (5, 3), (8, 8)])
def test_experts(count, top_k):
    rng = np.random.default_rng(count)
    ffns = tuple(random_ffn(rng, 6, 9, zero_point=-110 - index) for index in range(count))
    x = int8(rng, 2, 11, 6)
    expert, score = spread_routing(rng, 11, count, top_k)
    assert set(np.unique(expert)) == set(range(count))
    result = check_experts(x, expert, score, ffns)
    assert abs(result).max() > 20000


def test_an_expert_without_tokens():
    rng = np.random.default_rng(3)
    ffns = tuple(random_ffn(rng, 6, 9) for _ in range(4))
    x = int8(rng, 2, 11, 6)
    expert, score = spread_routing(rng, 11, 3, 2)
    expert = np.array([0, 1, 3], dtype=np.int32)[expert]
    assert np.unique(expert).tolist() == [0, 1, 3]
    check_experts(x, expert, score, ffns)


@pytest.mark.parametrize("chosen", [0, 3])
def test_all_tokens_on_one_expert(chosen):
    rng = np.random.default_rng(4)
    ffns = tuple(random_ffn(rng, 6, 9) for _ in range(4))
    x = int8(rng, 2, 11, 6)
    score = rng.integers(0, 32767, size=(2, 11, 1)).astype(np.int16)
    result = check_experts(x, np.full((2, 11, 1), chosen, np.int32), score, ffns)
    alone = operators.experts(x, np.zeros((2, 11, 1), np.int32), score, (ffns[chosen],))
    assert (result == alone).all()


def constant_ffn(value):
    """One channel that is ``value`` whatever comes in."""
    zero = Linear(np.zeros((1, 1), np.int8), np.zeros(1, np.int32), np.zeros(1, np.int16), 1)
    bias = np.array([value * 2], dtype=np.int32)
    return FFN(zero, 1, 1, 0, dataclasses.replace(zero, bias=bias, multiplier=np.ones(1, np.int16)))


@pytest.mark.parametrize(
    ("values", "scores", "total"),
    [
        ((1, 1), (16384, 16384), 2),  # 1/2 each, rounded up each; together before rounding: 1
        ((-1, -1), (16384, 16384), 0),  # -1/2 each rounds up to 0
        ((-3, 1), (16384, 16383), -1),
        ((32767, 32767), (32767, 32767), 65532),  # not saturated
        ((-32768, -32768), (32767, 32767), -65534),
        ((32767, -32768), (32767, 32767), -1),
    ],
)
def test_products_are_rounded_one_by_one_and_summed_without_saturation(values, scores, total):
    ffns = tuple(constant_ffn(value) for value in values)
    expert, score = np.array([[[0, 1]]], np.int32), np.array([[scores]], np.int16)
    result = check_experts(np.zeros((1, 1, 1), np.int8), expert, score, ffns)
    assert result.tolist() == [[[total]]]


def test_the_residual_saturates_once():
    gained = np.array([[[65532], [-65534], [65532]]], dtype=np.int32)
    residual = np.array([[[-32768], [32767], [0]]], dtype=np.int16)
    assert operators.residual_add(residual, gained).ravel().tolist() == [32764, -32767, 32767]
