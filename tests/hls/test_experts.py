# SPDX-License-Identifier: Apache-2.0
"""Gate, routing and experts of the C++ operators against golden."""

import dataclasses

import numpy as np
import pytest

from edge_moe.testing.cases import compare, int8, int16, random_ffn
from edge_moe_host.golden import operators
from edge_moe_host.golden.operators import Gate


def random_gate(rng, experts, width, top_k=1, multiplier=20000, shift=30):
    weight = rng.integers(-16319, 16319, size=(experts, width), endpoint=True)
    weight.flat[0], weight.flat[-1] = -16319, 16319
    bias = rng.integers(-(2**24), 2**24, size=experts)
    return Gate(weight.astype(np.int16), bias.astype(np.int32), multiplier, shift, top_k)


@pytest.mark.parametrize(
    ("tokens", "experts", "width"),
    [(1, 1, 1), (1, 16, 32), (3, 17, 33), (7, 32, 100), (129, 8, 64), (2, 5, 256)],
)
def test_gate_logits(ops, tokens, experts, width):
    rng = np.random.default_rng(width)
    gate = random_gate(rng, experts, width)
    x = int8(rng, tokens, width)
    assert (
        compare(ops.gate_logits(x, gate), operators.gate_logits(x[None], gate)[0], np.int32)
        == tokens * experts
    )


def test_gate_weights_at_every_split(ops):
    """One channel, x = 1 and x = -128: the logit shows every pair of halves from -16319 to 16319."""
    weights = np.arange(-16319, 16320)
    compared = 0
    for start in range(0, len(weights), 4096):
        part = weights[start : start + 4096]
        weight = np.zeros((32, 128), np.int16)
        weight.flat[: len(part)] = part
        gate = Gate(weight, np.zeros(32, np.int32), 1, 1, 1)
        x = np.eye(128, dtype=np.int8)
        x = np.concatenate([x, -128 * x.astype(np.int16)]).astype(np.int8)
        compared += compare(ops.gate_logits(x, gate), operators.gate_logits(x[None], gate)[0], np.int32)
    assert compared == 8 * 256 * 32


def test_gate_logits_at_both_ends_of_int32(ops):
    width, largest = 256, 2**31 - 1
    weight = np.zeros((2, width), np.int16)
    weight[0], weight[1] = 16319, -16319
    reach = 128 * 16319 * width
    bias = np.array([-(largest - reach), largest - reach], np.int32)
    gate = Gate(weight, bias, 1, 1, 1)
    x = np.full((1, width), -128, np.int8)
    result = ops.gate_logits(x, gate)
    assert compare(result, operators.gate_logits(x[None], gate)[0], np.int32) == 2
    assert result.tolist() == [[-largest, largest]]


def check_route(ops, logits, gate):
    expert, score = ops.route(logits, gate)
    expected_expert, expected_score = operators.route(logits[None], gate)
    compared = compare(expert, expected_expert[0], np.int32)
    return compared + compare(score, expected_score[0], np.int16)


@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
@pytest.mark.parametrize("experts", [4, 5, 16, 32])
def test_route(ops, experts, top_k):
    rng = np.random.default_rng(experts)
    spread = 2.0 ** rng.uniform(0, 31, size=(60, 1))
    logits = (rng.uniform(-1, 1, size=(60, experts)) * spread).astype(np.int32)
    compared = 0
    for multiplier, shift in ((32767, 30), (20000, 24), (1, 1), (0, 5), (32767, 47)):
        gate = random_gate(rng, experts, 1, top_k, multiplier, shift)
        compared += check_route(ops, logits, gate)
    assert compared == 5 * 2 * 60 * top_k


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_equal_logits_go_to_the_lower_index(ops, top_k):
    rng = np.random.default_rng(top_k)
    gate = random_gate(rng, 6, 1, top_k, 256, 8)
    few = rng.integers(-1, 2, size=(200, 6)).astype(np.int32)  # three values among six experts
    ends = rng.choice([2**31 - 1, -(2**31 - 1), -(2**31)], size=(80, 6)).astype(np.int32)
    same = np.repeat(np.array([[0], [2**31 - 1], [-(2**31)], [-7]], np.int32), 6, axis=1)
    logits = np.concatenate([few, ends, same])
    assert check_route(ops, logits, gate) == 2 * 284 * top_k
    assert ops.route(same, gate)[0].tolist() == [list(range(top_k))] * 4


def test_a_score_reaches_its_largest_value(ops):
    gate = random_gate(np.random.default_rng(0), 4, 1, 2, 1, 1)
    logits = np.full((3, 4), -60000, np.int32)
    logits[0, 0], logits[1, 0], logits[2] = 20000, 511, 0
    assert check_route(ops, logits, gate) == 12
    score = ops.route(logits, gate)[1]
    assert score.max() > 32700
    assert score[2, 0] in range(8100, 8300)


# ------------------------------------------------------------------ experts


def mixture(rng, tokens, width, hidden, experts, top_k):
    """Tokens, routes of distinct experts, scores, residual and experts."""
    ffns = tuple(
        random_ffn(rng, width, hidden, zero_point=int(rng.integers(-128, 100))) for _ in range(experts)
    )
    expert = np.argsort(rng.random((tokens, experts)), axis=1)[:, :top_k].astype(np.int32)
    score = rng.integers(0, 32767, size=(tokens, top_k), endpoint=True).astype(np.int16)
    return int8(rng, tokens, width), expert, score, int16(rng, tokens, width), ffns


def golden_experts(x, expert, score, residual, ffns):
    combined = operators.experts(x[None], expert[None], score[None], ffns)[0]
    return operators.residual_add(residual, combined)


@pytest.mark.parametrize(
    ("tokens", "width", "hidden", "experts", "top_k"),
    [
        (1, 1, 1, 1, 1),
        (1, 32, 64, 4, 4),
        (3, 33, 40, 5, 2),
        (20, 64, 128, 8, 2),
        (40, 40, 96, 32, 1),
        (129, 32, 32, 4, 3),
    ],
)
def test_experts(ops, tokens, width, hidden, experts, top_k):
    rng = np.random.default_rng(tokens)
    case = mixture(rng, tokens, width, hidden, experts, top_k)
    result = ops.experts(*case)
    assert compare(result, golden_experts(*case), np.int16) == tokens * width
    assert result.size < 500 or {result.min(), result.max()} == {-32768, 32767}


@pytest.mark.parametrize("chosen", [0, 3])
def test_all_tokens_on_one_expert(ops, chosen):
    rng = np.random.default_rng(chosen)
    x, expert, score, residual, ffns = mixture(rng, 131, 33, 40, 4, 1)
    expert[:] = chosen
    expected = golden_experts(x, expert, score, residual, ffns)
    assert compare(ops.experts(x, expert, score, residual, ffns), expected, np.int16) == 131 * 33


def test_an_expert_without_tokens(ops):
    rng = np.random.default_rng(8)
    x, expert, score, residual, ffns = mixture(rng, 9, 32, 32, 6, 2)
    expert[expert == 0] = 5
    expert[:, 1] = np.where(expert[:, 0] == 4, 3, 4)
    used = set(expert.ravel().tolist())
    assert 0 not in used
    expected = golden_experts(x, expert, score, residual, ffns)
    assert compare(ops.experts(x, expert, score, residual, ffns), expected, np.int16) == 9 * 32


def test_products_are_summed_before_the_one_saturation(ops):
    """Experts at opposite ends of int16: their sum is small although either saturates the residual."""
    rng = np.random.default_rng(9)
    x, _, _, residual, (ffn,) = mixture(rng, 5, 32, 32, 1, 1)
    weight, multiplier = np.zeros((32, 32), np.int8), np.full(32, 32767, np.int16)

    def constant(bias):
        linear = dataclasses.replace(ffn.fc2, weight=weight, bias=np.full(32, bias, np.int32),
                                     multiplier=multiplier, shift=1)  # fmt: skip
        return dataclasses.replace(ffn, fc2=linear)

    up, down = constant(2**30), constant(-(2**30))
    ffns = (up, down, up, down)
    expert = np.tile(np.arange(4, dtype=np.int32), (5, 1))
    score = np.full((5, 4), 32767, np.int16)
    residual[:] = 32767
    expected = golden_experts(x, expert, score, residual, ffns)
    assert compare(ops.experts(x, expert, score, residual, ffns), expected, np.int16) == 160
    assert abs(int(expected[0, 0]) - 32767) < 10


@pytest.mark.parametrize("unknown", [4, 31, 65535])
def test_a_route_to_no_expert_is_refused(ops, unknown):
    rng = np.random.default_rng(10)
    x, expert, score, residual, ffns = mixture(rng, 6, 8, 8, 4, 2)
    expert[3, 1] = unknown
    assert ops.experts(x, expert, score, residual, ffns) is None
