# SPDX-License-Identifier: Apache-2.0
"""What the numbers of a weight block must be, so that every executor makes the same of them. SPEC.md, 9.

Channels that do not exist have weights and parameters of 0, no weight is the most negative one of its width
(two products share a multiplier), multipliers are not negative, and no sum leaves 32 bits.
"""

import numpy as np

from edge_moe_host.contract import layout
from edge_moe_host.contract.isa import ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.layout import GATE_EXPERTS, TILE, WORD, tiles
from edge_moe_host.errors import BundleError

LARGEST_INPUT = 128  # magnitude of an int8 activation
LARGEST_SUM = 2**31 - 1


def check_block(instruction: Instruction, block: np.ndarray, where: str) -> None:
    """The weight block of any instruction but EXPERTS, uint8 [bytes]; BundleError when it breaks a rule."""
    i, words = instruction, block.reshape(-1, WORD)
    if i.opcode == Opcode.LOAD:
        _check_rows(i, block, where)
    elif i.opcode == Opcode.LINEAR:
        _check_linear(words, 1, i.in_channels, _first(i.out_channels), i.weight_bits, where)
    elif i.opcode == Opcode.CONV3X3:
        _check_linear(words, 9, i.in_channels, _first(i.out_channels), i.weight_bits, where)
    elif i.opcode == Opcode.GATE:
        halves = [_first(i.experts, GATE_EXPERTS)] * 2
        exists = np.stack(halves, axis=1).reshape(-1)  # GATE_EXPERTS rows of high halves, as many of low ones
        _check_linear(words, 1, i.in_channels, exists, 8, where)
        biases, multipliers = _parameters(words, layout.gate_tiles(i.experts), tiles(i.in_channels) * 8)
        _rule(not biases[:, GATE_EXPERTS:].any(), where, "low halves have biases")
        _rule(not multipliers.any(), where, "a gate has multipliers")
    elif i.opcode == Opcode.LAYERNORM:
        beta, gamma = _parameters(words, tiles(i.in_channels), 0)
        _check_absent(_first(i.in_channels), beta, gamma, where)
    elif i.opcode == Opcode.ATTENTION:
        logit, out = _parameters(words, tiles(i.out_channels), 0)
        heads = logit.reshape(i.heads, -1)
        _rule(bool((heads == heads[:, :1]).all()), where, "channels of a head have different multipliers")
        _rule(bool((heads >= 0).all() and (heads <= layout.MULTIPLIER_LIMIT).all() and (out >= 0).all()),
              where, f"multipliers are not in [0, {layout.MULTIPLIER_LIMIT}]")  # fmt: skip


def check_expert(instruction: Instruction, entry: ExpertEntry, block: np.ndarray, where: str) -> None:
    """The block of an expert of EXPERTS: its two linears, one behind the other."""
    i, words = instruction, block.reshape(-1, WORD)
    width, hidden = tiles(i.in_channels), tiles(i.hidden_channels)
    split = layout.linear_beats(width, hidden, entry.bits1) // layout.BEATS_PER_WORD
    _check_linear(words[:split], 1, i.in_channels, _first(i.hidden_channels), entry.bits1, where)
    _check_linear(words[split:], 1, i.hidden_channels, _first(i.out_channels), entry.bits2, where)


def _rule(condition: bool, where: str, rule: str) -> None:
    if not condition:
        raise BundleError(f"the weights of {where} cannot be used: {rule}.")


def _first(count: int, tile: int = TILE) -> np.ndarray:
    """bool [tiles, tile]: the first ``count`` are true."""
    return (np.arange(-(-count // tile) * tile) < count).reshape(-1, tile)


def _check_rows(i: Instruction, block: np.ndarray, where: str) -> None:
    values = block.view("<i2")[: i.rows * TILE * tiles(i.out_channels)]
    padding = values.reshape(i.rows, -1)[:, i.out_channels :]
    _rule(not padding.any(), where, "channels that do not exist have values")


def _parameters(words: np.ndarray, out_tiles: int, tile_words: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 and int16 [out_tiles, 32] of a stream with ``tile_words`` words of weights for each tile."""
    pairs = words[_begins(out_tiles, tile_words)[::2] + 1].view("<i2").reshape(-1, TILE)
    first = words[_begins(out_tiles, tile_words)].view("<i4")
    return first, pairs[:out_tiles]


def _begins(out_tiles: int, tile_words: int) -> np.ndarray:
    """The word of each tile with which its parameters begin."""
    tile = np.arange(out_tiles)
    return tile * (tile_words + 1) + (tile + 1) // 2


def _check_absent(exists: np.ndarray, first: np.ndarray, second: np.ndarray, where: str) -> None:
    absent = ~exists.reshape(-1, TILE)
    _rule(not (first[absent].any() or second[absent].any()), where,
          "channels that do not exist have parameters")  # fmt: skip


def _check_linear(
    words: np.ndarray, taps: int, channels: int, exists: np.ndarray, bits: int, where: str
) -> None:
    """A linear of ``taps`` times ``channels`` inputs, and the outputs that ``exists``, bool [rows]."""
    exists, per_tap = exists.reshape(-1, TILE), tiles(channels)
    tile_words = taps * per_tap * bits
    biases, multipliers = _parameters(words, len(exists), tile_words)
    _check_absent(exists, biases, multipliers, where)
    _rule(bool((multipliers >= 0).all()), where, "a multiplier is negative")
    behind = np.array(~0 << channels % TILE & 0xFFFFFFFF if channels % TILE else 0, np.uint32)
    # what a bias may be whatever the weights are
    most = LARGEST_SUM - (LARGEST_INPUT - 1) * LARGEST_INPUT * taps * channels
    for tile, begin in enumerate(_begins(len(exists), tile_words)):
        weights = words[begin + 2 - tile % 2 :][:tile_words]
        # bit i of [tap, tile of inputs, plane, output]: of input i
        planes = weights.view("<u4").reshape(taps, per_tap, bits, TILE)
        _rule(not (planes[:, -1] & behind).any() and not planes[..., ~exists[tile]].any(), where,
              "channels that do not exist have weights")  # fmt: skip
        lower = np.bitwise_or.reduce(planes[:, :, :-1], axis=2)
        _rule(not (planes[:, :, -1] & ~lower).any(), where, f"a weight is {-(2 ** (bits - 1))}")
        bias = np.abs(biases[tile].astype(np.int64))
        if bias.max() > most:
            _rule(bool((LARGEST_INPUT * _magnitudes(planes) + bias).max() <= LARGEST_SUM), where,
                  "a sum can leave 32 bits")  # fmt: skip


def _magnitudes(planes: np.ndarray) -> np.ndarray:
    """int64 [32]: sum of the magnitudes of each output's weights."""
    bits = planes.shape[2]
    ones = np.unpackbits(np.ascontiguousarray(planes).view(np.uint8), bitorder="little")
    place = np.array([*(1 << p for p in range(bits - 1)), -(1 << (bits - 1))])
    weights = np.einsum("tcpoi,p->tcoi", ones.reshape(*planes.shape, TILE), place)
    total: np.ndarray = np.abs(weights).sum(axis=(0, 1, 3))
    return total
