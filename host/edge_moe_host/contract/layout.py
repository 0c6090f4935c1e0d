# SPDX-License-Identifier: Apache-2.0
"""Sizes of all that a program touches: scratch rows, weight blocks, output rows. SPEC.md, section 9."""

from dataclasses import dataclass

from edge_moe_host.contract.isa import Epilogue, ExpertEntry, Instruction, Opcode

BEAT = 64  # bytes; unit of weight offsets and lengths
WORD = 128  # bytes: one bit plane of a weight tile, the width of the weight FIFO
BEATS_PER_WORD = WORD // BEAT
TILE = 32  # channels that a weight tile takes in and gives out; scratch rows are padded to it
ALIGNMENT = 64  # bytes; of every scratch address
PAIR = 2  # int8 rows and routing rows take scratch memory by pairs, so that an executor may interleave two
ROUTE_BYTES = 32  # a routing row: 8 pairs of expert (uint16) and score (int16)
MAX_TOP_K = 8
GATE_EXPERTS = 16  # experts in a weight tile of a gate: 16 rows of high halves, 16 of low ones
OUTPUT_ALIGNMENT = 16  # bytes; rows of the output buffer are padded to it
SHIFT_LIMIT = 47
ACCUMULATOR_LIMIT = 2**31 - 1
NORM_SHIFT_LIMIT = 31  # of LAYERNORM
MULTIPLIER_LIMIT = 2**15 - 1
TOKEN_LIMIT = 4096  # up to which attention is exact
LOW_BITS = 7  # of a gate weight's low half: [-64, 63]
GATE_WEIGHT_LIMIT = (127 << LOW_BITS) + 63  # two int8 halves
TILE_WEIGHTS = TILE * TILE


def tiles(channels: int) -> int:
    """Tiles of 32 channels that hold so many channels."""
    return -(-channels // TILE)


def int8_row(channels: int) -> int:
    """Bytes of a scratch row of int8 channels."""
    return TILE * tiles(channels)


def int16_row(channels: int) -> int:
    """Bytes of a scratch row of int16 channels."""
    return 2 * int8_row(channels)


def int8_rows(rows: int, row_bytes: int) -> int:
    """Bytes of so many int8 or routing rows: a row without a partner takes the place of two."""
    return -(-rows // PAIR) * PAIR * row_bytes


def output_row(channels: int) -> int:
    """Bytes of a row of int16 channels in the output buffer."""
    return -(-2 * channels // OUTPUT_ALIGNMENT) * OUTPUT_ALIGNMENT


def parameter_words(out_tiles: int) -> int:
    """Words of the parameters of so many tiles: biases of each, multipliers of every two."""
    return out_tiles + -(-out_tiles // 2)


def linear_beats(in_tiles: int, out_tiles: int, bits: int) -> int:
    """Beats of a linear's weight block: parameters, and one word for each bit plane of each tile."""
    return BEATS_PER_WORD * (parameter_words(out_tiles) + in_tiles * out_tiles * bits)


def expert_beats(instruction: Instruction, entry: ExpertEntry) -> int:
    """Beats of an expert's block: its first linear, then its second."""
    width, hidden = tiles(instruction.in_channels), tiles(instruction.hidden_channels)
    return linear_beats(width, hidden, entry.bits1) + linear_beats(hidden, width, entry.bits2)


def row_beats(rows: int, channels: int) -> int:
    """Beats of int16 rows in the weight image, padded to whole words."""
    return -(-rows * int16_row(channels) // WORD) * BEATS_PER_WORD


def weight_beats(instruction: Instruction) -> int:
    """Beats of the weight block that an instruction's other fields imply; 0 where it has none."""
    i = instruction
    if i.opcode == Opcode.LOAD:
        return row_beats(i.rows, i.out_channels)
    if i.opcode == Opcode.LINEAR:
        return linear_beats(tiles(i.in_channels), tiles(i.out_channels), i.weight_bits)
    if i.opcode == Opcode.LAYERNORM:
        return BEATS_PER_WORD * parameter_words(tiles(i.in_channels))
    if i.opcode == Opcode.ATTENTION:
        return BEATS_PER_WORD * parameter_words(tiles(i.out_channels))
    if i.opcode == Opcode.GATE:
        return linear_beats(tiles(i.in_channels), gate_tiles(i.experts), 8)
    if i.opcode == Opcode.EXPERTS:
        return -(-i.experts // BEATS_PER_WORD) * BEATS_PER_WORD
    if i.opcode == Opcode.CONV3X3:
        return linear_beats(9 * tiles(i.in_channels), tiles(i.out_channels), i.weight_bits)
    return 0


def gate_tiles(experts: int) -> int:
    """Weight tiles along a gate's output."""
    return -(-experts // GATE_EXPERTS)


@dataclass(frozen=True)
class Region:
    """Bytes of the scratch memory that an instruction uses; a workspace's contents mean nothing later."""

    field: str  # the instruction's address field
    address: int
    size: int
    rows: str  # what its rows are: their type, and their channels
    unit: int  # bytes of a row, or of the two rows of a pair
    reads: bool = False
    writes: bool = False


def regions(instruction: Instruction) -> list[Region]:
    """Every part of the scratch memory that an instruction reads, writes or works in."""
    i = instruction
    pixels = i.height * i.width

    def int8(field: str, rows: int, channels: int, reads: bool = False, writes: bool = False) -> Region:
        row = int8_row(channels)
        size = int8_rows(rows, row)
        return Region(field, getattr(i, field), size, f"{channels} x int8", PAIR * row, reads, writes)

    def int16(field: str, channels: int, reads: bool = False, writes: bool = False) -> Region:
        row = int16_row(channels)
        return Region(field, getattr(i, field), i.rows * row, f"{channels} x int16", row, reads, writes)

    def routing(field: str, reads: bool = False, writes: bool = False) -> Region:
        size = int8_rows(i.rows, ROUTE_BYTES)
        return Region(field, getattr(i, field), size, "routing", PAIR * ROUTE_BYTES, reads, writes)

    if i.opcode == Opcode.LOAD:
        return [int16("dst", i.out_channels, writes=True)]
    if i.opcode == Opcode.PATCHES:
        return [int8("dst", i.rows, i.out_channels, writes=True)]
    if i.opcode == Opcode.LINEAR:
        if i.epilogue in (Epilogue.RESIDUAL, Epilogue.INT16):
            dst = int16("dst", i.out_channels, reads=i.epilogue == Epilogue.RESIDUAL, writes=True)
        else:
            dst = int8("dst", i.rows, i.out_channels, writes=True)
        return [int8("src", i.rows, i.in_channels, reads=True), dst]
    if i.opcode == Opcode.LAYERNORM:
        return [int16("src", i.in_channels, reads=True), int8("dst", i.rows, i.in_channels, writes=True)]
    if i.opcode == Opcode.ATTENTION:
        return [
            int8("src", i.keys, i.in_channels, reads=True),
            int8("dst", i.rows, i.out_channels, writes=True),
        ]
    if i.opcode == Opcode.GATE:
        return [int8("src", i.rows, i.in_channels, reads=True), routing("dst", writes=True)]
    if i.opcode == Opcode.EXPERTS:
        return [
            int8("src", i.rows, i.in_channels, reads=True),
            routing("routing", reads=True),
            int16("dst", i.out_channels, reads=True, writes=True),
            int8("hidden", i.rows, i.hidden_channels),
        ]
    if i.opcode in (Opcode.CONV3X3, Opcode.UPSAMPLE2X):
        out = i.out_channels if i.opcode == Opcode.CONV3X3 else i.in_channels
        return [int8("src", pixels, i.in_channels, reads=True), int8("dst", i.rows, out, writes=True)]
    if i.opcode == Opcode.STORE:
        return [int16("src", i.in_channels, reads=True)]
    return []
