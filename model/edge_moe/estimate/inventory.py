# SPDX-License-Identifier: Apache-2.0
"""The arrays, streams, ports and multipliers of the accelerator's C++, by their names there.

Their sizes come from ``edge_moe.codegen.design``, like those of the C++. A test compiles the C++ and finds
every entry in it; an array or stream without an entry fails the test.
"""

from collections.abc import Iterable
from math import ceil

import numpy as np

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.codegen.design import Design, require_buildable
from edge_moe.codegen.headers import NATIVE_WIDTHS
from edge_moe.estimate.resources import (
    Inventory,
    Master,
    Memory,
    Multipliers,
    Storage,
    Stream,
    Table,
    scratch_memory,
    weight_fifo,
)
from edge_moe_host.contract import isa
from edge_moe_host.contract.registers import MASTERS
from edge_moe_host.golden import arithmetic

BLOCK_BITS = 64  # an address and a length
MOVE_BITS = 48


def inventory(config: AcceleratorConfig, ultraram: bool = True) -> Inventory:
    """Everything that an accelerator declares on a part with or without UltraRAM; EdgeMoEError for one that
    cannot be built."""
    require_buildable(config)
    return Inventory(
        tuple(_memories(config, ultraram)),
        tuple(_tables(config)),
        tuple(_streams(config, ultraram)),
        tuple(_masters(config)),
        (*_datapath(config), *_control()),
    )


def _memories(c: AcceleratorConfig, ultraram: bool) -> Iterable[Memory]:
    d = Design(c)
    half, wide = 8 * c.tile_in, 32 * c.tile_in
    plane, transfer = 8 * d.plane_bytes, 8 * d.port_bytes
    for name in ("even", "odd"):
        yield Memory("execute", name, d.scratch_beats, half, scratch_memory(ultraram))
    for name in ("sums0", "sums1"):
        yield Memory("execute", name, d.accumulator_pairs, wide, Storage.BRAM)
    for name in ("finished0", "finished1"):
        yield Memory("execute", name, d.accumulator_pairs, 16 * c.tile_in, Storage.BRAM)
    yield Memory("execute", "wide", d.parameter_tiles, plane, Storage.LUTRAM)
    yield Memory("execute", "narrow", d.parameter_pairs, plane, Storage.LUTRAM)
    for name in ("stage_even", "stage_odd"):
        yield Memory("compute", name, d.stage_beats, half, Storage.LUTRAM)
    for name in ("numerators0", "numerators1"):
        yield Memory("compute", name, d.query_pairs, half, Storage.BRAM)
    for name in ("states0", "states1"):
        yield Memory("compute", name, d.query_pairs, 64, Storage.BRAM)
    for name in ("even_tokens", "odd_tokens", "even_scores", "odd_scores"):
        yield Memory("run_jobs", name, d.queue_entries, 16, Storage.BRAM)
    yield Memory("run_jobs", "seen", c.max_tokens, 8, Storage.LUTRAM)
    yield Memory("run_jobs", "high", d.high_slices, d.high_bits * c.tile_in, Storage.BRAM)
    yield Memory("route_rows", "scaled", c.max_experts, 16, Storage.AUTO, banks=d.route_tokens)
    for name in ("ring_even", "ring_odd"):
        yield Memory("layernorm_rows", name, d.norm_ring, half, Storage.LUTRAM)
    yield Memory("layernorm_rows", "norms", d.norm_rows, 64, Storage.LUTRAM)
    yield Memory("patch_rows", "bands", d.band_pairs, transfer, Storage.AUTO, banks=4)
    yield Memory("patch_rows", "moves", d.max_moves, MOVE_BITS, Storage.AUTO)


def _tables(c: AcceleratorConfig) -> Iterable[Table]:
    lanes, tokens = c.tokens_parallel * c.tile_out, Design(c).route_tokens
    for function, name, values, readers in (
        ("compute", "exp2", arithmetic.EXP2, lanes),
        ("compute", "gelu", arithmetic.GELU, lanes),
        ("compute", "reciprocal", arithmetic.RECIPROCAL, c.tokens_parallel),
        ("route_rows", "exp2", arithmetic.EXP2, tokens * (1 + c.max_top_k)),
        ("route_rows", "reciprocal", arithmetic.RECIPROCAL, tokens),
        ("layernorm_rows", "rsqrt", arithmetic.RSQRT, 1),
    ):
        yield Table(function, name, len(values), int(np.max(values)).bit_length(), readers)


def _record_bits(record: type) -> int:
    """Bits of a record as a C++ structure: each field is the narrowest standard integer, aligned to its
    size."""
    end = largest = 0
    for field in isa.fields(record):
        size = next(width for width in NATIVE_WIDTHS if width >= field.width)
        end = ceil(end / size) * size + size
        largest = max(largest, size)
    return ceil(end / largest) * largest


def _streams(c: AcceleratorConfig, ultraram: bool) -> Iterable[Stream]:
    d = Design(c)
    plane, transfer = 8 * d.plane_bytes, 8 * d.port_bytes
    yield Stream("instructions", d.instructions_ahead, _record_bits(isa.Instruction), Storage.LUTRAM)
    yield Stream("entries", d.entries_ahead, _record_bits(isa.ExpertEntry), Storage.LUTRAM)
    for name in ("blocks", "bursts0", "bursts1", "bursts2"):
        yield Stream(name, d.blocks_ahead, BLOCK_BITS)
    yield Stream("routed", d.routed_ahead, 64, Storage.LUTRAM)
    yield Stream("lengths", d.lengths_ahead, 32)
    for name in ("planes0", "planes1", "planes2"):
        yield Stream(name, d.port_planes, plane, Storage.LUTRAM)
    yield Stream("weights", d.fifo_planes, plane, weight_fifo(c, ultraram))
    for name in ("image_transfers", "output_transfers", "finished"):
        yield Stream(name, d.counts_ahead, 32)
    for name in ("pixels", "results"):
        yield Stream(name, d.transfers_ahead, transfer, Storage.LUTRAM)


def _masters(c: AcceleratorConfig) -> Iterable[Master]:
    d = Design(c)
    bits, record = 8 * d.port_bytes, d.record_transfers
    yield Master("program", bits, d.record_requests, record)
    yield Master("tables", bits, d.record_requests, record)
    for name in MASTERS[2:5]:
        yield Master(name, bits, d.bursts_ahead, d.burst_transfers)
    yield Master("image", bits, d.requests_ahead, d.request_transfers)
    yield Master("output", bits, d.requests_ahead, d.request_transfers, writes=True)


def _datapath(c: AcceleratorConfig) -> Iterable[Multipliers]:
    """Products in an iteration of a pipelined loop, from ``product<a, b>``."""
    lanes, both, tokens = c.tile_out, c.tokens_parallel * c.tile_out, Design(c).route_tokens
    yield Multipliers("compute", 27, 8, c.tile_in * c.tile_out)  # two tokens' int8 products each
    yield Multipliers("compute", 32, 16, both)  # the first requantisation
    yield Multipliers("compute", 16, 16, both)  # the second
    yield Multipliers("layernorm_rows", 16, 16, 2 * lanes)  # squares; gamma
    yield Multipliers("layernorm_rows", 12, 16, lanes)  # D x
    yield Multipliers("layernorm_rows", 27, 16, lanes)  # (D x - T) R
    yield Multipliers("layernorm_rows", 42, 12, 1)  # D Q
    yield Multipliers("layernorm_rows", 26, 26, 1)  # T T
    yield Multipliers("route_rows", 32, 16, tokens)  # scaled logits
    yield Multipliers("route_rows", 17, 16, tokens * c.max_top_k)  # scores
    yield Multipliers("add_expert", 16, 16, lanes)  # by score


# Bits by type: an instruction's field, its number of tiles, and values kept in an int. Products of ints use
# only their low 32 bits.
_FIELD, _INT = 17, 32
# Function: number of products, over all places that inline it, and the bits of their factors. 0 bits mean
# that there is no multiplier: the result is unused, or a factor is 1 or 3.
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
    """Products of addresses and counts, and small products in lanes, which become additions."""
    for function, (count, a, b) in _CONTROL.items():
        yield Multipliers(function, a, b, count, result=_INT, control=True)
