# SPDX-License-Identifier: Apache-2.0
"""The arrays, streams, ports and multipliers of the accelerator's C++, by the names that they have there.

Sizes follow from the configuration as in the C++; what is fixed there stands here once, under the same name.
The tests compile the C++ and hold every entry equal to it; one that is missing fails them.
"""

from collections.abc import Iterable
from math import ceil

import numpy as np

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.codegen.config_header import require_buildable
from edge_moe.codegen.cpp import NATIVE_WIDTHS
from edge_moe.estimate.resources import (
    Inventory,
    Master,
    Memory,
    Multipliers,
    Storage,
    Stream,
    Table,
    weight_fifo,
)
from edge_moe_host.contract import isa
from edge_moe_host.golden import arithmetic

INSTRUCTIONS_AHEAD = 64
ENTRIES_AHEAD = 64
ROUTED_AHEAD = ENTRIES_AHEAD + 2
BLOCKS_AHEAD = 4
LENGTHS_AHEAD = 16
BURST_PLANES = 32
BURSTS_AHEAD = 3
PORT_PLANES = 2 * BURST_PLANES
TRANSFERS_AHEAD = 32
COUNTS_AHEAD = 2
NORM_RING = 64
NORM_ROWS = 32
ROUTE_TOKENS = 8
COLOURS = 3
BLOCK_BITS = 64  # an address and a length
MOVE_BITS = 48
WEIGHT_PORTS = ("weights0", "weights1", "weights2")


def inventory(config: AcceleratorConfig) -> Inventory:
    """All that an accelerator declares; EdgeMoEError for one that cannot be built."""
    require_buildable(config)
    return Inventory(
        tuple(_memories(config)),
        tuple(_tables(config)),
        tuple(_streams(config)),
        tuple(_masters(config)),
        (*_datapath(config), *_control()),
    )


def _memories(c: AcceleratorConfig) -> Iterable[Memory]:
    half, wide, plane, transfer = (
        8 * c.tile_in,
        32 * c.tile_in,
        8 * c.fifo_read_bytes,
        8 * c.io_bytes_per_cycle,
    )
    query_pairs = (c.max_tokens + 1) // 2
    parameter_tiles = ceil(max(c.max_channels, c.max_width) / c.tile_in)
    queue_entries = query_pairs * c.max_top_k
    high_bits = 1 + ((1 + c.max_top_k) * 32768).bit_length() - 16
    stage_beats = 2 * 2 * ceil(c.max_head_dim / c.tile_in) * (c.key_block // 2)
    band_transfers = c.max_patch_size * c.max_image_width * COLOURS // c.io_bytes_per_cycle + 2
    segment = COLOURS * c.max_patch_size
    moves = c.max_patch_size * (ceil(segment / c.io_bytes_per_cycle) + ceil(segment / c.tile_in) + 1)
    for name in ("even", "odd"):
        yield Memory("execute", name, c.scratch_bytes // (2 * c.tile_in), half, Storage.URAM)
    for name in ("sums0", "sums1"):
        yield Memory("execute", name, c.accumulator_rows // 2, wide, Storage.BRAM)
    for name in ("finished0", "finished1"):
        yield Memory("execute", name, c.accumulator_rows // 2, 16 * c.tile_in, Storage.BRAM)
    yield Memory("execute", "wide", parameter_tiles, plane, Storage.LUTRAM)
    yield Memory("execute", "narrow", (parameter_tiles + 1) // 2, plane, Storage.LUTRAM)
    for name in ("stage_even", "stage_odd"):
        yield Memory("compute", name, stage_beats, half, Storage.LUTRAM)
    for name in ("numerators0", "numerators1"):
        yield Memory("compute", name, query_pairs, half, Storage.BRAM)
    for name in ("states0", "states1"):
        yield Memory("compute", name, query_pairs, 64, Storage.BRAM)
    for name in ("even_tokens", "odd_tokens", "even_scores", "odd_scores"):
        yield Memory("run_jobs", name, queue_entries, 16, Storage.BRAM)
    yield Memory("run_jobs", "seen", c.max_tokens, 8, Storage.LUTRAM)
    high_slices = c.max_tokens * ceil(c.max_width / c.tile_in)
    yield Memory("run_jobs", "high", high_slices, high_bits * c.tile_in, Storage.BRAM)
    yield Memory("route_rows", "scaled", c.max_experts, 16, Storage.AUTO, banks=ROUTE_TOKENS)
    for name in ("ring_even", "ring_odd"):
        yield Memory("layernorm_rows", name, NORM_RING, half, Storage.LUTRAM)
    yield Memory("layernorm_rows", "norms", NORM_ROWS, 64, Storage.LUTRAM)
    yield Memory("patch_rows", "bands", (band_transfers + 1) // 2, transfer, Storage.AUTO, banks=4)
    yield Memory("patch_rows", "moves", moves, MOVE_BITS, Storage.AUTO)


def _tables(c: AcceleratorConfig) -> Iterable[Table]:
    lanes = c.tokens_parallel * c.tile_out
    for function, name, values, readers in (
        ("compute", "exp2", arithmetic.EXP2, lanes),
        ("compute", "gelu", arithmetic.GELU, lanes),
        ("compute", "reciprocal", arithmetic.RECIPROCAL, c.tokens_parallel),
        ("route_rows", "exp2", arithmetic.EXP2, ROUTE_TOKENS * (1 + c.max_top_k)),
        ("route_rows", "reciprocal", arithmetic.RECIPROCAL, ROUTE_TOKENS),
        ("layernorm_rows", "rsqrt", arithmetic.RSQRT, 1),
    ):
        yield Table(function, name, len(values), int(np.max(values)).bit_length(), readers)


def _record_bits(record: type) -> int:
    """Bits of a record as a C++ structure: each field in the narrowest standard integer, at a multiple of
    its size."""
    end = largest = 0
    for field in isa.fields(record):
        size = next(width for width in NATIVE_WIDTHS if width >= field.width)
        end = ceil(end / size) * size + size
        largest = max(largest, size)
    return ceil(end / largest) * largest


def _streams(c: AcceleratorConfig) -> Iterable[Stream]:
    plane, transfer = 8 * c.fifo_read_bytes, 8 * c.io_bytes_per_cycle
    yield Stream("instructions", INSTRUCTIONS_AHEAD, _record_bits(isa.Instruction), Storage.LUTRAM)
    yield Stream("entries", ENTRIES_AHEAD, _record_bits(isa.ExpertEntry), Storage.LUTRAM)
    for name in ("blocks", "bursts0", "bursts1", "bursts2"):
        yield Stream(name, BLOCKS_AHEAD, BLOCK_BITS)
    yield Stream("routed", ROUTED_AHEAD, 64, Storage.LUTRAM)
    yield Stream("lengths", LENGTHS_AHEAD, 32)
    for name in ("planes0", "planes1", "planes2"):
        yield Stream(name, PORT_PLANES, plane, Storage.LUTRAM)
    yield Stream("weights", c.fifo_bytes // c.fifo_read_bytes, plane, weight_fifo(c))
    for name in ("image_transfers", "output_transfers", "finished"):
        yield Stream(name, COUNTS_AHEAD, 32)
    for name in ("pixels", "results"):
        yield Stream(name, TRANSFERS_AHEAD, transfer, Storage.LUTRAM)


def _masters(c: AcceleratorConfig) -> Iterable[Master]:
    bits = 8 * c.io_bytes_per_cycle
    burst_transfers = BURST_PLANES * c.fifo_read_bytes // c.io_bytes_per_cycle
    yield Master("program", bits, 2, 4)
    yield Master("tables", bits, 2, 4)
    for name in WEIGHT_PORTS:
        yield Master(name, bits, BURSTS_AHEAD, burst_transfers)
    yield Master("image", bits, 8, 64)
    yield Master("output", bits, 8, 64, writes=True)


def _datapath(c: AcceleratorConfig) -> Iterable[Multipliers]:
    """Products of a pipelined loop's iteration, those of ``product<a, b>``."""
    lanes, both = c.tile_out, c.tokens_parallel * c.tile_out
    yield Multipliers("compute", 27, 8, c.tile_in * c.tile_out)  # two tokens' int8 products each
    yield Multipliers("compute", 32, 16, both)  # the first requantisation
    yield Multipliers("compute", 16, 16, both)  # the second
    yield Multipliers("layernorm_rows", 16, 16, 2 * lanes)  # squares; gamma
    yield Multipliers("layernorm_rows", 12, 16, lanes)  # D x
    yield Multipliers("layernorm_rows", 27, 16, lanes)  # (D x - T) R
    yield Multipliers("layernorm_rows", 42, 12, 1)  # D Q
    yield Multipliers("layernorm_rows", 26, 26, 1)  # T T
    yield Multipliers("route_rows", 32, 16, ROUTE_TOKENS)  # scaled logits
    yield Multipliers("route_rows", 17, 16, ROUTE_TOKENS * c.max_top_k)  # scores
    yield Multipliers("add_expert", 16, 16, lanes)  # by score


# Bits that the types show: an instruction's field, tiles of one, and what is kept in an int. Of products of
# ints the low 32 bits are used.
_FIELD, _INT = 17, 32
# Function: how many products, over all places that it is inlined into, and the bits of their factors. Those
# of 0 bits are no multipliers: a result that nothing uses, or a factor of 1 or 3.
_CONTROL = {
    "add_expert": (2, _INT, _INT),
    "attention_steps": (3, _INT, _INT),
    "band_steps": (2, _INT, _FIELD),
    "compute": (1, _INT, _INT),
    "conv3x3_source": (2, 0, 0),
    "experts_steps": (1, _INT, _INT),
    "fetch_attention": (3, _INT, _INT),
    "fetch_map": (1, _INT, _INT),
    "route_steps": (1, _INT, _FIELD),
    "image_bytes_of": (2, 19, _FIELD),
    "int16_region": (5, _INT, _FIELD),
    "int8_region": (15, _INT, _FIELD),
    "job_of_attention": (1, _INT, _FIELD),
    "layernorm_rows": (2, _INT, _FIELD),
    "layernorm_steps": (1, _FIELD, _FIELD),
    "linear_steps": (4, _INT, _INT),
    "linear_planes": (10, _INT, _FIELD),
    "load_steps": (1, _FIELD, _FIELD),
    "pair_beat": (9, _INT, _INT),
    "patch_rows": (3, _INT, _FIELD),
    "patch_shape": (1, 19, 9),
    "patches_steps": (1, 0, 0),
    "place_of": (2, _INT, _INT),
    "queue_steps": (3, _FIELD, 9),
    "regions_of": (1, _FIELD, _FIELD),
    "route_rows": (1, _INT, _FIELD),
    "rows_steps": (1, _INT, _INT),
    "shape_holds": (7, _FIELD, _FIELD),
    "store_transfers": (3, _FIELD, _FIELD),
    "target_of": (2, _INT, _INT),
    "upsample2x": (12, 0, 0),
    "upsample_rows": (5, _INT, _FIELD),
    "upsample_steps": (2, _INT, _FIELD),
    "weight_planes": (1, _FIELD, _FIELD),
    "write_rows": (2, _INT, _INT),
}


def _control() -> Iterable[Multipliers]:
    """Products of addresses and counts, and small ones in lanes that become additions."""
    for function, (count, a, b) in _CONTROL.items():
        yield Multipliers(function, a, b, count, result=_INT, control=True)
