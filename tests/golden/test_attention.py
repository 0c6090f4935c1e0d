# SPDX-License-Identifier: Apache-2.0
"""Attention against the scalar reference, and against a softmax in float64 (SPEC.md, section 4)."""

import dataclasses
import math

import numpy as np
import pytest

from edge_moe.testing import spec
from edge_moe.testing.cases import compare, multiplier_and_shift, random_linear
from edge_moe_host.golden.operators import Attention, attention

UNUSED = random_linear(np.random.default_rng(0), (1, 1))  # qkv and proj, which attention itself does not use


def make_attention(heads, width, logit=(2, 1), out=(512, 15)):
    """logit (2, 1): q.k itself is the base-2 logit in Q8. out (512, 15): y is the average of v."""
    return Attention(
        heads,
        UNUSED,
        np.full(heads, logit[0], dtype=np.int16),
        logit[1],
        np.full(width, out[0], dtype=np.int16),
        out[1],
        UNUSED,
    )


def from_logits(logits, values):
    """int8 [1, N, 6], one head: q.k of every query with key j is logits[j]; v is (value, value)."""
    logits, values = np.asarray(logits), np.asarray(values)
    high = (logits + 50) // 100
    ones = np.ones(len(logits), dtype=int)
    assert np.abs(high).max() <= 127
    return np.stack([100 * ones, ones, high, logits - 100 * high, values, values], -1)[None].astype(np.int8)


def directed():
    """For :func:`from_logits`: the first channel is the average, the second 64 times that, saturated."""
    return dataclasses.replace(make_attention(1, 2), out_multiplier=np.array([512, 32767], np.int16))


def check(qkv, attn):
    """Compare with the reference; the result."""
    result = attention(qkv, attn)
    count = compare(result, [spec.attention(image, attn) for image in qkv.tolist()], np.int8)
    assert count == qkv.size // 3
    return result


# ------------------------------------------------------------------ equality with the reference


@pytest.mark.parametrize("tokens", [1, 2, 31, 32, 33, 64, 65, 97])
@pytest.mark.parametrize(("heads", "channels", "spread"), [(1, 1, 3.0), (2, 4, 0.3), (3, 8, 12.0)])
def test_random(tokens, heads, channels, spread):
    """``spread``: rms of the logits in octaves."""
    rng = np.random.default_rng(tokens)
    D = heads * channels
    qkv = rng.integers(-127, 127, size=(2, tokens, 3 * D), endpoint=True).astype(np.int8)
    m, n = multiplier_and_shift(spread * 256 / (math.sqrt(channels) * 73.0**2))
    attn = dataclasses.replace(
        make_attention(heads, D),
        logit_multiplier=rng.integers(m // 2, m, size=heads, endpoint=True).astype(np.int16),
        logit_shift=n,
        out_multiplier=rng.integers(0, 2000, size=D).astype(np.int16),
    )
    result = check(qkv, attn)
    assert len(np.unique(result)) > min(D * tokens // 4, 40)


def test_result_saturates_at_plus_and_minus_127():
    rng = np.random.default_rng(1)
    qkv = rng.integers(-127, 127, size=(1, 40, 12), endpoint=True).astype(np.int8)
    out_multiplier = np.array([0, 32767, 32767, 512], np.int16)
    attn = dataclasses.replace(make_attention(2, 4), out_multiplier=out_multiplier)
    result = check(qkv, attn)
    assert {result.min(), result.max()} == {-127, 127}
    assert (result[..., 0] == 0).all()


def test_each_head_has_its_own_multiplier():
    rng = np.random.default_rng(2)
    qkv = rng.integers(-127, 127, size=(1, 35, 18), endpoint=True).astype(np.int8)
    attn = dataclasses.replace(make_attention(3, 6), logit_multiplier=np.array([0, 1, 32767], np.int16))
    result = check(qkv, attn)
    # multiplier 0: all logits equal, so every query gets the same average
    assert (result[0, :, :2] == result[0, 0, :2]).all()
    assert len(np.unique(result[0, :, 4])) > 10


# ------------------------------------------------------------------ directed cases


def test_one_token_gives_v_back_at_every_logit():
    """The numerator is between 64 and 127 of 128; divided by itself it leaves v."""
    v = np.arange(-127, 128)
    for q, k in ((0, 0), (1, 1), (-1, 1), (16, 16), (127, 127), (127, -127), (1, 100), (2, 127)):
        qkv = np.stack([np.full(255, q), np.full(255, k), v], -1)[:, None].astype(np.int8)
        assert attention(qkv, make_attention(1, 1))[:, 0, 0].tolist() == v.tolist()


def test_a_raised_maximum_in_every_later_block():
    """First with a block's keys all equal, then with one key at the top and the others below."""
    rng = np.random.default_rng(3)
    tops = np.array([-12000, -11744, -11232, -11201, -2241, 12700])
    raises = np.diff((tops >> 8) + 1).tolist()
    assert raises == [1, 2, 0, 35, 58]
    logits = np.repeat(tops, 32)[:170]
    values = rng.integers(-127, 128, size=170)
    check(from_logits(logits, values), directed())
    others = np.arange(170) % 32 > 0
    check(from_logits(logits - rng.integers(0, 500, size=170) * others, values), directed())


@pytest.mark.parametrize("octaves", [1, 2, 3, 5, 7, 8, 13, 14, 15, 16, 23, 30, 31, 32, 63, 97])
def test_one_raise_of_so_many_octaves(octaves):
    """32 keys at one logit, then one key this many octaves above: sums shrink and round half up."""
    rng = np.random.default_rng(octaves)
    compared = 0
    for residue in (0, 100, 255):
        low = -12544 + residue
        for values in (rng.integers(-127, 128, size=33), [-127] * 32 + [0], [127] * 32 + [0], [-1] * 33):
            check(from_logits([low] * 32 + [low + 256 * octaves], values), directed())
            compared += 1
    assert compared == 12


@pytest.mark.parametrize("value", [127, -127])
def test_nothing_is_left_of_large_sums_after_a_raise_by_31(value):
    """352 keys of the largest numerator and value, then one of value 0, 40 octaves above."""
    qkv = from_logits([-12545] * 352 + [-12545 + 40 * 256], [value] * 352 + [0])
    assert attention(qkv, directed())[0].tolist() == [[0, 0]] * 353
    rows = qkv[0].tolist()
    assert spec.attend(rows[0][:2], [r[2:4] for r in rows], [r[4:] for r in rows], 2, 1) == [0, 0]


@pytest.mark.parametrize("octaves", [8, 9, 10])
def test_the_sum_rounds_half_up_as_it_shrinks(octaves):
    """A unit of the sum is visible only if it changes the reciprocal's mantissa: every numerator is tried."""
    attn = dataclasses.replace(directed(), out_multiplier=np.array([512, 701], np.int16))
    values = [-127, -90, 70, 115]
    cases = [(t, v) for t in range(1, 257, 4) for v in values]
    # the first block: one key t below its exponent, the others far away; then one key, at t = 256
    low = [-12672] * 31
    qkv = np.concatenate([from_logits([-t, *low, 256 * (octaves - 1)], [99, *[0] * 31, v]) for t, v in cases])
    result = attention(qkv, attn)
    expected = []
    for image in qkv.tolist():
        keys, v = [row[2:4] for row in image], [row[4:] for row in image]
        average = spec.attend(image[0][:2], keys, v, 2, 1)
        expected.append([spec.rq(u, m, 15, -127, 127) for u, m in zip(average, (512, 701), strict=True)])
    assert compare(result[:, 0], expected, np.int8) == 64 * 4 * 2


def test_a_lower_maximum_in_later_blocks_leaves_the_exponent():
    rng = np.random.default_rng(4)
    logits = np.concatenate([np.full(32, 600), np.full(32, 200), np.full(36, -12000)])
    check(from_logits(logits, rng.integers(-127, 128, size=100)), directed())


def test_every_numerator_from_the_top_to_nothing():
    """One key at t = 1, whose numerator 128 saturates at 127, and one at t = 1 .. 2600."""
    qkv = np.concatenate([from_logits([255, 256 - t], [0, 127]) for t in range(1, 2601)])
    result = check(qkv, directed())[:, 0]
    assert result[0].tolist() == [63, 127]  # 63.47
    weighted = np.flatnonzero(result[:, 1])
    assert weighted.tolist() == list(range(2048))  # rounds to 1 of 128 down to t = 2048, then to 0
    assert (np.diff(result.astype(int), axis=0) <= 0).all()


@pytest.mark.parametrize("top", [255, 254, 200, 128, 1, 0, -1, -256, -257, 12345])
def test_position_of_the_maximum_within_its_octave(top):
    for below in (1, 100, 256, 700):
        check(from_logits([top, top - below, top - 2 * below], [127, -127, 99]), directed())


def test_extreme_logits_saturate():
    keys = np.where(np.arange(129) % 2, 127, -127)
    queries = np.where(np.arange(129) % 3, 127, -127)
    qkv = np.stack([queries, keys, np.where(keys > 0, 50, -70)], -1)[None].astype(np.int8)
    result = check(qkv, make_attention(1, 1, logit=(32767, 1)))
    assert result[0, :, 0].tolist() == np.where(queries > 0, 50, -70).tolist()


def test_order_within_a_block_is_free_and_the_blocks_order_is_not():
    rng = np.random.default_rng(6)
    qkv = rng.integers(-127, 127, size=(1, 64, 12), endpoint=True).astype(np.int8)
    attn = make_attention(2, 4, logit=(7, 3))
    shuffled = np.concatenate([rng.permutation(32), 32 + rng.permutation(32)])
    assert (attention(qkv[:, shuffled], attn) == attention(qkv, attn)[:, shuffled]).all()
    swapped = np.roll(np.arange(64), 32)
    assert (attention(qkv[:, swapped], attn) != attention(qkv, attn)[:, swapped]).any()


def test_equal_keys_give_the_average():
    result = check(from_logits([77] * 128, np.resize([127, -127, 50, 51], 128)), make_attention(1, 2))
    assert set(result.ravel().tolist()) == {25}  # of 25.25


@pytest.mark.parametrize("value", [127, -127])
def test_the_largest_sums(value):
    """All numerators 127, all |v| 127: the accumulator is 127**2 N."""
    result = check(from_logits([255] * 161, [value] * 161), make_attention(1, 2))
    assert set(result.ravel().tolist()) == {value}


# ------------------------------------------------------------------ accuracy


def softmax_error(tokens, spread, seed):
    """|integer - float64| in units of v; rms of int8 q, k, v: 35, of the natural logits: ``spread``."""
    rng = np.random.default_rng(seed)
    heads, channels = 2, 32
    D = heads * channels
    qkv = np.clip(np.round(rng.normal(0, 35, size=(2, tokens, 3 * D))), -127, 127).astype(np.int8)
    scale = spread / (math.sqrt(channels) * 35**2)  # of q.k as a natural logit
    attn = make_attention(heads, D, logit=multiplier_and_shift(scale * 256 / math.log(2)))
    q, k, v = qkv.astype(float).reshape(2, tokens, 3, heads, channels).transpose(2, 0, 3, 1, 4)
    logits = q @ k.transpose(0, 1, 3, 2) * scale
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    exact = (weights @ v).transpose(0, 2, 1, 3).reshape(2, tokens, D)
    return np.abs(attention(qkv, attn) - exact)


# Rounding to int8 alone has a mean of 0.25 and a largest error of 0.5.
@pytest.mark.parametrize(
    ("kind", "spread", "mean", "largest"),
    [("flat", 0.1, 0.27, 0.7), ("typical", 1.0, 0.28, 2.0), ("sharp", 2.0, 0.40, 12.0),
     ("sharper", 4.0, 0.42, 8.0), ("peaked", 10.0, 0.28, 4.0)],
)  # fmt: skip
def test_error_against_a_softmax_in_float64(kind, spread, mean, largest):
    """Errors in units of v, whose rms is 35; 129 tokens."""
    error = softmax_error(129, spread, seed=7)
    assert error.size == 2 * 129 * 64
    assert error.mean() <= mean
    assert error.max() <= largest


def test_keys_eight_octaves_below_the_exponent_count_nothing():
    """A limit of 7-bit numerators: 127 such keys together weigh as much as the one at the top."""
    exact = 127 * 127 * 2**-7 / (1 + 127 * 2**-7)
    assert round(exact) == 63
    for gap, average in ((7 * 256, 84), (7 * 256 + 1, 0)):
        result = check(from_logits([0] + [-gap] * 127, [0] + [127] * 127), make_attention(1, 2))
        assert set(result.ravel().tolist()) == {average}
