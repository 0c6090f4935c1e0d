# SPDX-License-Identifier: Apache-2.0
"""Every operator of the accelerator on NumPy integers: the meaning that all executors share.

SPEC.md, section 4, has the same equations in the same order. Shapes: B images, N tokens, D
channels, h heads. Arrays may have any integer dtype; results have the dtype stated.
"""

from dataclasses import dataclass

import numpy as np

from edge_moe_host.golden.arithmetic import (
    EXP2,
    EXP2_BITS,
    EXP2_ONE,
    GELU,
    GELU_FRACTION,
    GELU_LIMIT,
    GELU_STEP_BITS,
    INT8_MAX,
    INT8_MIN,
    INT16_MAX,
    INT16_MIN,
    matmul,
    reciprocal,
    reciprocal_sqrt,
    requantise,
    rounding_shift,
    saturate,
)

KEY_BLOCK = 32  # keys that the attention takes at a time; its results depend on it
PIXEL_OFFSET = 128  # pixels enter as int8: value - 128
XHAT_FRACTION = 10  # fraction bits of the normalised value inside LayerNorm
AVERAGE_FRACTION = 6  # fraction bits of the attention's average of V
SUM_FRACTION = 8  # fraction bits of the softmax's running sum
SCORE_FRACTION = 15  # fraction bits of a gate score
EXPONENT_LIMIT = 31  # larger shifts are limited to this one: the result is 0 either way


@dataclass(frozen=True)
class Linear:
    """Weights of a linear layer, or of a 3x3 convolution, with its requantisation.

    weight int8 [out, in] in +-(2**(bits-1) - 1) (a convolution: [out, 3, 3, in]), bias int32 [out],
    multiplier int16 [out] >= 0, shift in [1, 47].
    """

    weight: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: int
    bits: int = 8


@dataclass(frozen=True)
class LayerNorm:
    """gamma int16 [D] and beta int32 [D] over 2**shift; epsilon >= 1 is added to D**2 * variance."""

    gamma: np.ndarray
    beta: np.ndarray
    shift: int
    epsilon: int


@dataclass(frozen=True)
class FFN:
    """Linear, GELU, Linear: a dense FFN or one expert. fc1 requantises to Q10, fc2 to int16.

    The hidden activation is requantise(gelu, multiplier, shift) + zero_point, int8.
    """

    fc1: Linear
    gelu_multiplier: int
    gelu_shift: int
    zero_point: int
    fc2: Linear


@dataclass(frozen=True)
class Attention:
    """qkv gives int8 [3D]: q, k, v, each heads x d. logit_multiplier int16 [heads] turns q.k into base-2
    logits in Q8; out_multiplier int16 [D] turns the average of V (Q6) into int8. proj gives int16."""

    heads: int
    qkv: Linear
    logit_multiplier: np.ndarray
    logit_shift: int
    out_multiplier: np.ndarray
    out_shift: int
    proj: Linear


@dataclass(frozen=True)
class Gate:
    """weight int16 [E, D] in +-16319, bias int32 [E]; multiplier >> shift gives base-2 logits in Q8."""

    weight: np.ndarray
    bias: np.ndarray
    multiplier: int
    shift: int
    top_k: int


def _accumulate(x: np.ndarray, layer: Linear) -> np.ndarray:
    """int64 [..., out]; the values fit int32 for every network that passes its check."""
    return matmul(x, layer.weight.reshape(len(layer.weight), -1).T) + layer.bias.astype(np.int64)


def linear(x: np.ndarray, layer: Linear) -> np.ndarray:
    """int8 [..., in] to int8 [..., out] in [-127, 127]."""
    out = requantise(_accumulate(x, layer), layer.multiplier, layer.shift, -INT8_MAX, INT8_MAX)
    return out.astype(np.int8)


def linear_int16(x: np.ndarray, layer: Linear) -> np.ndarray:
    """int8 [..., in] to int16 [..., out]."""
    out = requantise(_accumulate(x, layer), layer.multiplier, layer.shift, INT16_MIN, INT16_MAX)
    return out.astype(np.int16)


def residual_add(residual: np.ndarray, update: np.ndarray) -> np.ndarray:
    """int16 sum, saturated."""
    total = residual.astype(np.int64) + update.astype(np.int64)
    return saturate(total, INT16_MIN, INT16_MAX).astype(np.int16)


def linear_residual(x: np.ndarray, layer: Linear, residual: np.ndarray) -> np.ndarray:
    """residual + linear_int16(x): int16 [..., out]."""
    return residual_add(residual, linear_int16(x, layer))


def gelu(x: np.ndarray) -> np.ndarray:
    """ReLU(x) - delta(|x|), int16 Q10 to int16 Q10; from |x| = 4 on, delta is 0."""
    x = x.astype(np.int64)
    magnitude = np.abs(x)
    index = np.minimum(magnitude >> GELU_STEP_BITS, len(GELU) - 1)
    delta = np.where(magnitude < GELU_LIMIT << GELU_FRACTION, GELU[index], 0)
    return (np.maximum(x, 0) - delta).astype(np.int16)


def linear_gelu(x: np.ndarray, ffn: FFN) -> np.ndarray:
    """int8 [..., in] to the int8 [..., hidden] between an FFN's linears."""
    activated = gelu(linear_int16(x, ffn.fc1))
    hidden = requantise(
        activated, ffn.gelu_multiplier, ffn.gelu_shift, INT8_MIN, INT8_MAX, zero_point=ffn.zero_point
    )
    return hidden.astype(np.int8)


def patch_embedding(image: np.ndarray, layer: Linear, position: np.ndarray, patch_size: int) -> np.ndarray:
    """uint8 [B, H, W, 3] to int16 [B, N, D]: patches row by row, after the CLS row if there is one.

    layer.weight [D, p*p*3] in the order (row, column, colour). position int16 [N, D] has one row per patch;
    with a CLS token it has one more, which is the token itself.
    """
    B, H, W, _ = image.shape
    p = patch_size
    pixels = image.astype(np.int64) - PIXEL_OFFSET
    patches = pixels.reshape(B, H // p, p, W // p, p, 3).transpose(0, 1, 3, 2, 4, 5).reshape(B, -1, p * p * 3)
    tokens = linear_int16(patches, layer)
    cls = np.zeros((B, len(position) - tokens.shape[1], tokens.shape[2]), dtype=np.int16)
    return residual_add(np.concatenate([cls, tokens], axis=1), position)


def layernorm(x: np.ndarray, norm: LayerNorm, skip: int = 0) -> np.ndarray:
    """int16 [B, N, D] to int8 [B, N - skip, D]; the first ``skip`` tokens are left out."""
    x = x[:, skip:].astype(np.int64)
    D = x.shape[-1]
    total = x.sum(-1, keepdims=True)
    # D**2 times the variance, exact: below 2**51 for D up to 1024
    spread = D * (x * x).sum(-1, keepdims=True) - total * total + norm.epsilon
    inverse, k = reciprocal_sqrt(spread)
    centred = D * x - total
    xhat = saturate(rounding_shift(centred * inverse, k + 15 - XHAT_FRACTION), INT16_MIN, INT16_MAX)
    y = rounding_shift(xhat * norm.gamma.astype(np.int64) + norm.beta.astype(np.int64), norm.shift)
    return saturate(y, INT8_MIN, INT8_MAX).astype(np.int8)


def _powers(logits: np.ndarray, exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(EXP2 entry, right shift) of 2**(logit - exponent), logits Q8 and below 256 * exponent."""
    below = (exponent << EXP2_BITS) - logits  # at least 1
    return EXP2[below & ((1 << EXP2_BITS) - 1)], np.minimum(below >> EXP2_BITS, EXPONENT_LIMIT)


@dataclass(frozen=True)
class Softmax:
    """State of the single-pass softmax of each row, int64 [..., 1].

    ``exponent``: an integer above every logit so far, over 2**EXP2_BITS. ``total``: sum of the numerators so
    far, with SUM_FRACTION fraction bits, relative to 2**exponent.
    """

    exponent: np.ndarray
    total: np.ndarray

    @staticmethod
    def start(shape: tuple[int, ...]) -> "Softmax":
        """Before the first block; ``shape`` is that of the rows, [..., 1]."""
        lowest = np.full(shape, -(1 << (15 - EXP2_BITS)), dtype=np.int64)
        return Softmax(lowest, np.zeros(shape, dtype=np.int64))


def softmax_block(logits: np.ndarray, state: Softmax) -> tuple[Softmax, np.ndarray, np.ndarray]:
    """Base-2 logits int16 Q8 [..., K] -> (state after them, numerators [..., K], rescale [..., 1]).

    Numerators are in [0, 127]. ``rescale`` is the right shift that brings sums over earlier blocks to the
    new exponent.
    """
    exponent = np.maximum(state.exponent, (logits.max(-1, keepdims=True) >> EXP2_BITS) + 1)
    rescale = np.minimum(exponent - state.exponent, EXPONENT_LIMIT)
    entry, shift = _powers(logits, exponent)
    numerators = np.minimum(rounding_shift(entry, shift + EXP2_ONE - 7), INT8_MAX)
    total = rounding_shift(state.total, rescale) + (numerators.sum(-1, keepdims=True) << SUM_FRACTION)
    return Softmax(exponent, total), numerators, rescale


def attention(qkv: np.ndarray, attn: Attention) -> np.ndarray:
    """int8 [B, N, 3D] to int8 [B, N, D]: softmax(q k^T) v, base 2, one pass over blocks of keys.

    Each query keeps the state of the softmax and the sum of its numerators times V. A block that raises the
    exponent shifts both right.
    """
    B, N, D = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = qkv.reshape(B, N, 3, attn.heads, D // attn.heads).transpose(2, 0, 3, 1, 4)  # [B, h, N, d]
    multiplier = attn.logit_multiplier.astype(np.int64)[:, None, None]
    state = Softmax.start((B, attn.heads, N, 1))
    accumulator = np.zeros(q.shape, dtype=np.int64)
    for start in range(0, N, KEY_BLOCK):
        keys, values = k[:, :, start : start + KEY_BLOCK], v[:, :, start : start + KEY_BLOCK]
        dot = matmul(q, keys.transpose(0, 1, 3, 2))
        logits = requantise(dot, multiplier, attn.logit_shift, INT16_MIN, INT16_MAX)
        state, numerators, rescale = softmax_block(logits, state)
        accumulator = rounding_shift(accumulator, rescale) + matmul(numerators, values)
    inverse, scale = reciprocal(state.total)
    average = rounding_shift(accumulator * inverse, scale + 15 - SUM_FRACTION - AVERAGE_FRACTION)
    average = saturate(average, INT16_MIN, INT16_MAX).transpose(0, 2, 1, 3).reshape(B, N, D)
    out = requantise(average, attn.out_multiplier, attn.out_shift, -INT8_MAX, INT8_MAX)
    return out.astype(np.int8)


def gate_logits(x: np.ndarray, gate: Gate) -> np.ndarray:
    """int8 [B, N, D] to int32 [B, N, E]."""
    return (matmul(x, gate.weight.T) + gate.bias.astype(np.int64)).astype(np.int32)


def route(logits: np.ndarray, gate: Gate) -> tuple[np.ndarray, np.ndarray]:
    """Logits int32 [B, N, E] to (expert int32 [B, N, k], best first, score int16 [B, N, k] in Q15).

    Of equal logits the lower index comes first. Scores are those of the softmax over all experts.
    """
    expert = np.argsort(-logits.astype(np.int64), axis=-1, kind="stable")[..., : gate.top_k]
    scaled = requantise(logits, gate.multiplier, gate.shift, INT16_MIN, INT16_MAX)
    exponent = (scaled.max(-1, keepdims=True) >> EXP2_BITS) + 1
    numerators = rounding_shift(*_powers(scaled, exponent))
    inverse, k = reciprocal(numerators.sum(-1, keepdims=True))
    chosen = np.take_along_axis(numerators, expert, axis=-1)
    score = np.minimum(rounding_shift(chosen * inverse, k + 15 - SCORE_FRACTION), INT16_MAX)
    return expert.astype(np.int32), score.astype(np.int16)


def experts(x: np.ndarray, expert: np.ndarray, score: np.ndarray, ffns: tuple[FFN, ...]) -> np.ndarray:
    """Score-weighted sum of each token's experts, int32 [B, N, D], before it joins the residual.

    x int8 [B, N, D], expert int32 and score int16 [B, N, k]. Each product is rounded by itself.
    """
    B, N, D = x.shape
    tokens, chosen, scores = x.reshape(B * N, D), expert.reshape(B * N, -1), score.reshape(B * N, -1)
    combined = np.zeros((B * N, len(ffns[0].fc2.weight)), dtype=np.int64)
    for index, ffn in enumerate(ffns):
        rows, slots = np.nonzero(chosen == index)
        if len(rows):
            y = linear_int16(linear_gelu(tokens[rows], ffn), ffn.fc2).astype(np.int64)
            combined[rows] += rounding_shift(
                y * scores[rows, slots].astype(np.int64)[:, None], SCORE_FRACTION
            )
    return combined.reshape(B, N, -1).astype(np.int32)


def conv3x3(x: np.ndarray, layer: Linear, height: int, width: int, pad: int) -> np.ndarray:
    """int8 [B, h*w, in] to int8 [B, h*w, out] with ReLU; ``pad`` is the input's zero point.

    The result's zero point is -128, so that all eight bits serve values from 0 up.
    """
    B, _, C = x.shape
    padded = np.pad(x.reshape(B, height, width, C), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=pad)
    taps = [padded[:, dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)]
    accumulator = _accumulate(np.concatenate(taps, axis=-1), layer)
    out = requantise(accumulator, layer.multiplier, layer.shift, INT8_MIN, INT8_MAX, zero_point=INT8_MIN)
    return out.reshape(B, height * width, -1).astype(np.int8)


def _axis_taps(size: int, factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lower index, upper index, weight of the upper over 2*factor) of bilinear with half-pixel centres."""
    position = 2 * np.arange(size * factor) + 1 - factor
    lower = position // (2 * factor)
    return np.clip(lower, 0, size - 1), np.clip(lower + 1, 0, size - 1), position % (2 * factor)


def upsample_sums(x: np.ndarray, height: int, width: int, factor: int) -> np.ndarray:
    """int64 [B, H, W, C] at ``factor`` times the size: exactly (2*factor)**2 times the bilinear value."""
    grid = x.reshape(len(x), height, width, -1).astype(np.int64)
    lower, upper, weight = _axis_taps(height, factor)
    weight = weight[:, None, None]
    grid = grid[:, lower] * (2 * factor - weight) + grid[:, upper] * weight
    lower, upper, weight = _axis_taps(width, factor)
    weight = weight[:, None]
    return grid[:, :, lower] * (2 * factor - weight) + grid[:, :, upper] * weight


def upsample2x(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """int8 [B, h*w, C] to int8 [B, 2h*2w, C]: bilinear, half-pixel centres, edges repeated."""
    out = rounding_shift(upsample_sums(x, height, width, 2), 4)
    return out.reshape(len(x), 4 * height * width, -1).astype(np.int8)


def task_output(raw: np.ndarray, height: int, width: int, factor: int, classes: bool) -> np.ndarray:
    """Per-pixel result at ``factor`` times the head's size, from the head's int16 [B, h*w, C].

    ``classes``: uint8 [B, H, W], the largest channel, lowest index on ties. Otherwise int32
    [B, H, W, C], (2*factor)**2 times the bilinear value of the head's integers.
    """
    sums = upsample_sums(raw, height, width, factor)
    return sums.argmax(-1).astype(np.uint8) if classes else sums.astype(np.int32)
