# SPDX-License-Identifier: Apache-2.0
"""Rules for the numbers of a weight block, which give every executor the same results. SPEC.md, 9.

Channels that do not exist have weights and parameters of 0, no weight is the most negative of its width
(two products share a multiplier), multipliers are not negative, and no sum leaves 32 bits.
"""

from collections.abc import Callable

import numpy as np

from edge_moe_host.contract import layout
from edge_moe_host.contract.isa import ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.layout import (
    ACCUMULATOR_LIMIT,
    CONV_TAPS,
    GATE_BITS,
    GATE_EXPERTS,
    MULTIPLIER_LIMIT,
    PLANE,
    TILE,
    tiles,
)
from edge_moe_host.contract.opcodes import section_of
from edge_moe_host.contract.weights import parameters, weight_planes
from edge_moe_host.errors import BundleError

LARGEST_INPUT = 128  # magnitude of an int8 activation


def check_block(instruction: Instruction, block: np.ndarray, where: str) -> None:
    """Check an instruction's weight block, uint8 [bytes]; BundleError for a fault."""
    check = _CHECKS.get(section_of(instruction.opcode) or "")
    if check is not None:
        check(instruction, block.reshape(-1, PLANE), where)


def check_expert(instruction: Instruction, entry: ExpertEntry, block: np.ndarray, where: str) -> None:
    """Check the block of an expert of EXPERTS: its first linear, then its second."""
    i, planes = instruction, block.reshape(-1, PLANE)
    split = layout.linear_planes(tiles(i.in_channels), tiles(i.hidden_channels), entry.bits1)
    _check_planes(planes[:split], 1, i.in_channels, _first(i.hidden_channels), entry.bits1, where)
    _check_planes(planes[split:], 1, i.hidden_channels, _first(i.out_channels), entry.bits2, where)


def _rule(condition: bool, where: str, rule: str) -> None:
    if not condition:
        raise BundleError(f"the weights of {where} cannot be used: {rule}.")


def _first(count: int, tile: int = TILE) -> np.ndarray:
    """bool [tiles, tile]: the first ``count`` are true."""
    return (np.arange(-(-count // tile) * tile) < count).reshape(-1, tile)


def _check_rows(i: Instruction, planes: np.ndarray, where: str) -> None:
    values = planes.reshape(-1).view("<i2")[: i.rows * TILE * tiles(i.out_channels)]
    padding = values.reshape(i.rows, -1)[:, i.out_channels :]
    _rule(not padding.any(), where, "channels that do not exist have values")


def _check_linear(i: Instruction, planes: np.ndarray, where: str) -> None:
    taps = CONV_TAPS if i.opcode == Opcode.CONV3X3 else 1
    _check_planes(planes, taps, i.in_channels, _first(i.out_channels), i.weight_bits, where)


def _check_gate(i: Instruction, planes: np.ndarray, where: str) -> None:
    halves = [_first(i.experts, GATE_EXPERTS)] * 2
    exists = np.stack(halves, axis=1).reshape(-1)  # GATE_EXPERTS rows of high halves, then of low ones
    _check_planes(planes, 1, i.in_channels, exists, GATE_BITS, where)
    tile_planes = tiles(i.in_channels) * GATE_BITS
    biases, multipliers = parameters(planes, layout.gate_tiles(i.experts), tile_planes)
    _rule(not biases[:, GATE_EXPERTS:].any(), where, "low halves have biases")
    _rule(not multipliers.any(), where, "a gate has multipliers")


def _check_norm(i: Instruction, planes: np.ndarray, where: str) -> None:
    beta, gamma = parameters(planes, tiles(i.in_channels))
    _check_absent(_first(i.in_channels), beta, gamma, where)


def _check_attention(i: Instruction, planes: np.ndarray, where: str) -> None:
    logit, out = parameters(planes, tiles(i.out_channels))
    heads = logit.reshape(i.heads, -1)
    _rule(bool((heads == heads[:, :1]).all()), where, "channels of a head have different multipliers")
    _rule(
        bool((heads >= 0).all() and (heads <= MULTIPLIER_LIMIT).all() and (out >= 0).all()),
        where,
        f"multipliers are not in [0, {MULTIPLIER_LIMIT}]",
    )


# The check of each kind of section; a table's entries are checked when they are read.
_CHECKS: dict[str, Callable[[Instruction, np.ndarray, str], None]] = {
    "rows": _check_rows,
    "linear": _check_linear,
    "conv": _check_linear,
    "gate": _check_gate,
    "norm": _check_norm,
    "attention": _check_attention,
}


def _check_absent(exists: np.ndarray, first: np.ndarray, second: np.ndarray, where: str) -> None:
    absent = ~exists.reshape(-1, TILE)
    _rule(not (first[absent].any() or second[absent].any()), where,
          "channels that do not exist have parameters")  # fmt: skip


def _check_planes(
    planes: np.ndarray, taps: int, channels: int, exists: np.ndarray, bits: int, where: str
) -> None:
    """Check a linear of ``taps`` times ``channels`` inputs; ``exists``, bool [rows], marks its outputs."""
    exists, per_tap = exists.reshape(-1, TILE), tiles(channels)
    tile_planes = taps * per_tap * bits
    biases, multipliers = parameters(planes, len(exists), tile_planes)
    _check_absent(exists, biases, multipliers, where)
    _rule(bool((multipliers >= 0).all()), where, "a multiplier is negative")
    beyond = np.array(~0 << channels % TILE & 0xFFFFFFFF if channels % TILE else 0, np.uint32)
    # the largest bias that is safe with any weights
    most = ACCUMULATOR_LIMIT - (LARGEST_INPUT - 1) * LARGEST_INPUT * taps * channels
    for tile, own in enumerate(weight_planes(len(exists), tile_planes)):
        weights = planes[own]
        # [tap, tile of inputs, plane, output]; bit i belongs to input i
        words = weights.view("<u4").reshape(taps, per_tap, bits, TILE)
        _rule(not (words[:, -1] & beyond).any() and not words[..., ~exists[tile]].any(), where,
              "channels that do not exist have weights")  # fmt: skip
        lower = np.bitwise_or.reduce(words[:, :, :-1], axis=2)
        _rule(not (words[:, :, -1] & ~lower).any(), where, f"a weight is {-(2 ** (bits - 1))}")
        bias = np.abs(biases[tile].astype(np.int64))
        if bias.max() > most:
            _rule(bool((LARGEST_INPUT * _magnitudes(words) + bias).max() <= ACCUMULATOR_LIMIT), where,
                  "a sum can leave 32 bits")  # fmt: skip


def _magnitudes(words: np.ndarray) -> np.ndarray:
    """int64 [32]: sum of the magnitudes of each output's weights."""
    bits = words.shape[2]
    ones = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), bitorder="little")
    place = np.array([*(1 << p for p in range(bits - 1)), -(1 << (bits - 1))])
    weights = np.einsum("tcpoi,p->tcoi", ones.reshape(*words.shape, TILE), place)
    total: np.ndarray = np.abs(weights).sum(axis=(0, 1, 3))
    return total
