# SPDX-License-Identifier: Apache-2.0
"""Sizes of everything that a program touches: scratch rows, weight blocks, output rows. SPEC.md, section 9.

``tiles``, ``pairs``, ``gate_tiles``, ``parameter_planes`` and ``linear_planes`` are also printed as C++
(edge_moe.codegen): each is one expression of :mod:`edge_moe_host.contract.expressions`.
"""

BEAT = 64  # bytes; unit of weight offsets and lengths, and of scratch memory
PLANE = 128  # bytes: one bit of each of a tile's weights, the width of the weight FIFO
BEATS_PER_PLANE = PLANE // BEAT
TILE = 32  # channels that a weight tile takes in and gives out; scratch rows are padded to it
ALIGNMENT = 64  # bytes, for every scratch address
PAIR = 2  # int8 rows and routing rows are stored in pairs, so that an executor may interleave the two
ROUTE_BYTES = 32  # a routing row: 8 pairs of expert (uint16) and score (int16)
MAX_TOP_K = 8
GATE_EXPERTS = 16  # experts in a weight tile of a gate: 16 rows of high halves, 16 of low ones
GATE_BITS = 8  # bits of each half
CONV_TAPS = 9
OUTPUT_ALIGNMENT = 16  # bytes; rows of the output buffer are padded to it
SHIFT_LIMIT = 47
ACCUMULATOR_LIMIT = 2**31 - 1
NORM_SHIFT_LIMIT = 31  # for LAYERNORM
EPSILON_LIMIT = 2**32 - 1  # for LAYERNORM
MULTIPLIER_LIMIT = 2**15 - 1
TOKEN_LIMIT = 4096  # attention is exact up to this many tokens
LOW_BITS = 7  # bits of a gate weight's low half: [-64, 63]
GATE_WEIGHT_LIMIT = (127 << LOW_BITS) + 63  # two int8 halves
TILE_WEIGHTS = TILE * TILE


def tiles(channels: int) -> int:
    """Number of tiles of 32 channels that hold ``channels``."""
    return (channels + TILE - 1) // TILE


def pairs(rows: int) -> int:
    """Number of pairs of rows; a single last row counts as a pair."""
    return (rows + PAIR - 1) // PAIR


def gate_tiles(experts: int) -> int:
    """Weight tiles along a gate's output."""
    return (experts + GATE_EXPERTS - 1) // GATE_EXPERTS


def parameter_planes(out_tiles: int) -> int:
    """Planes of the parameters of ``out_tiles``: one of biases for each, one of multipliers for every two."""
    return out_tiles + (out_tiles + 1) // 2


def linear_planes(in_tiles: int, out_tiles: int, bits: int) -> int:
    """Planes of a linear's weight block: parameters, and one for each bit of each tile."""
    return parameter_planes(out_tiles) + in_tiles * out_tiles * bits


def int8_row(channels: int) -> int:
    """Bytes of a scratch row of int8 channels."""
    return TILE * tiles(channels)


def int16_row(channels: int) -> int:
    """Bytes of a scratch row of int16 channels."""
    return 2 * int8_row(channels)


def int8_rows(rows: int, row_bytes: int) -> int:
    """Bytes of ``rows`` int8 or routing rows: a single last row takes the place of two."""
    return PAIR * pairs(rows) * row_bytes


def output_row(channels: int) -> int:
    """Bytes of a row of int16 channels in the output buffer."""
    return -(-2 * channels // OUTPUT_ALIGNMENT) * OUTPUT_ALIGNMENT
