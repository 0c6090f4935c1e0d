# SPDX-License-Identifier: Apache-2.0
"""Softmax and attention of the C++ operators against golden and the scalar reference."""

import numpy as np
import pytest

from edge_moe.testing import spec
from edge_moe.testing.cases import compare, int8, random_linear
from edge_moe.testing.hls_ops import TILE
from edge_moe_host.golden import operators
from edge_moe_host.golden.arithmetic import EXP2, rounding_shift
from edge_moe_host.golden.operators import Attention


def reference_softmax(logits):
    """SPEC.md, section 4, attention, steps 2 to 4 without V: numerators, rescales, M, S of one row."""
    exponent, total, numerators, rescales = -128, 0, [], []
    for start in range(0, len(logits), TILE):
        block = logits[start : start + TILE].astype(int)
        raised = max(exponent, int(block.max() >> 8) + 1)
        rescale = min(raised - exponent, 31)
        below = 256 * raised - block
        p = np.minimum(127, rounding_shift(EXP2[below & 255], np.minimum(below >> 8, 31) + 8))
        total = int(rounding_shift(np.array(total), rescale)) + 256 * int(p.sum())
        exponent = raised
        numerators += p.tolist()
        rescales.append(rescale)
    return numerators, rescales, exponent, total


@pytest.mark.parametrize("keys", [1, 2, 31, 32, 33, 64, 100])
def test_softmax(ops, keys):
    rng = np.random.default_rng(keys)
    scale = 2.0 ** rng.uniform(0, 15, size=(40, 1))
    logits = np.clip(rng.normal(size=(40, keys)) * scale, -32768, 32767).astype(np.int16)
    logits[0], logits[1], logits[2] = -32768, 32767, 0
    logits[3] = np.linspace(-32768, 32767, keys)  # every block raises M
    logits[4] = logits[3, ::-1]
    results = ops.softmax(logits)
    references = [reference_softmax(row) for row in logits]
    compared = 0
    for index, dtype in enumerate((np.int8, np.uint8, np.int16, np.int32)):
        compared += compare(results[index], [reference[index] for reference in references], dtype)
    assert compared == 40 * (keys + -(-keys // 32) + 2)
    assert results[0].max() == 127 or keys < 3
    assert keys < 32 or results[0].min() == 0


def test_every_logit_below_a_maximum(ops):
    """The largest logit at each end of a step of M, and all distances to it that give a numerator."""
    top = np.array([0, 255, 256, -1, -256, 32767, -32768 + 5000])
    distance = np.arange(0, 5000)
    logits = np.clip(top[:, None] - distance, -32768, 32767)
    rows = logits.reshape(7 * 157, -1) if logits.size % 157 == 0 else logits.reshape(-1, 20)
    rows = np.concatenate([np.repeat(top, len(rows) // 7)[:, None], rows], axis=1).astype(np.int16)
    compared = 0
    for start in range(0, len(rows), 250):
        part = rows[start : start + 250]
        compared += compare(ops.softmax(part)[0], [reference_softmax(row)[0] for row in part], np.int8)
    assert compared == rows.size == 35000 + len(rows)


def random_attention(rng, heads, dim, spread, out_gain=1.0):
    multiplier = np.clip(spread / (74.0**2 * np.sqrt(dim)) * 2**20 * rng.uniform(0.5, 1, heads), 0, 32767)
    return Attention(
        heads,
        random_linear(rng, (1, 1)),
        multiplier.astype(np.int16),
        20,
        (rng.integers(8000, 32767, size=heads * dim) * out_gain).astype(np.int16),
        19,
        random_linear(rng, (1, 1)),
    )


@pytest.mark.parametrize(
    ("tokens", "heads", "dim"),
    [(1, 1, 1), (1, 2, 64), (2, 1, 32), (31, 3, 16), (33, 2, 40), (65, 2, 64), (129, 1, 64)],
)
def test_attention(ops, tokens, heads, dim):
    rng = np.random.default_rng(tokens)
    compared = 0
    for spread in (0.0, 100.0, 600.0, 5000.0):
        attn = random_attention(rng, heads, dim, spread)
        qkv = np.clip(int8(rng, tokens, 3 * heads * dim), -127, 127).astype(np.int8)
        expected = operators.attention(qkv[None], attn)[0]
        compared += compare(ops.attention(qkv, attn), expected, np.int8)
        assert spread == 0 or tokens * dim == 1 or len(np.unique(expected)) > 10
    assert compared == 4 * tokens * heads * dim


def test_attention_equals_the_scalar_reference(ops):
    rng = np.random.default_rng(5)
    attn = random_attention(rng, 2, 4, 700.0)
    qkv = np.clip(int8(rng, 40, 24), -127, 127).astype(np.int8)
    assert compare(ops.attention(qkv, attn), spec.attention(qkv.tolist(), attn), np.int8) == 320


@pytest.mark.parametrize("ordered", [1, -1])
def test_attention_with_rising_and_falling_logits(ops, ordered):
    """Every block raises M, up to both ends of int16; or only the first one does."""
    tokens, dim = 128, 32
    rng = np.random.default_rng(6)
    qkv = np.clip(int8(rng, tokens, 3 * dim), -127, 127).astype(np.int8)
    qkv[:, :dim] = 127
    qkv[:, dim : 2 * dim] = np.linspace(-127, 127, tokens).astype(np.int8)[::ordered, None]
    attn = Attention(1, random_linear(rng, (1, 1)), np.array([32767], np.int16), 17,
                     np.full(dim, 32767, np.int16), 20, random_linear(rng, (1, 1)))  # fmt: skip
    expected = operators.attention(qkv[None], attn)[0]
    assert compare(ops.attention(qkv, attn), expected, np.int8) == tokens * dim
    assert len(np.unique(expected)) > 20


def test_attention_output_saturates_at_both_ends(ops):
    rng = np.random.default_rng(7)
    qkv = np.full((3, 96), 127, np.int8)
    qkv[:, 64::2] = -127
    attn = Attention(1, random_linear(rng, (1, 1)), np.array([1], np.int16), 20,
                     np.full(32, 32767, np.int16), 14, random_linear(rng, (1, 1)))  # fmt: skip
    result = ops.attention(qkv, attn)
    assert compare(result, operators.attention(qkv[None], attn)[0], np.int8) == 96
    assert {result.min(), result.max()} == {-127, 127}
