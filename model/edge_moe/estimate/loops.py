# SPDX-License-Identifier: Apache-2.0
"""The C++ accelerator's loops: iterations and depths of every instruction, in order. SPEC.md, section 12.

It repeats what ``tap::add`` counts in hls/include/edge_moe/executor, function by function, under the same
names. C simulation counts the same cycles, but for planes of empty experts: ``tests/estimate/test_loops.py``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.codegen.design import Design
from edge_moe_host.contract import layout
from edge_moe_host.contract.isa import Epilogue, ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.layout import CONV_TAPS, GATE_BITS, TILE, pairs, tiles
from edge_moe_host.contract.opcodes import weight_beats


class Loop(NamedTuple):
    """``steps`` iterations, one a cycle, and ``depth`` cycles until the last one's result.

    The first iterations take ``planes`` from the weight FIFO, one in every ``pace``.
    """

    steps: int
    depth: int = 0
    planes: int = 0
    pace: int = 1


class Crowd(NamedTuple):
    """Numbers of an expert's even and odd rows."""

    even: int
    odd: int


@dataclass(frozen=True)
class Expert:
    """An expert as the executor finds it: its entry, its rows, and whether its weights are in the FIFO."""

    entry: ExpertEntry
    crowd: Crowd
    fetched: bool


def cycles_of(loops: Iterable[Loop]) -> int:
    """Cycles of loops that never wait."""
    return sum(loop.steps + loop.depth for loop in loops)


def instruction_loops(i: Instruction, a: AcceleratorConfig) -> Iterator[Loop]:
    """Loops of every instruction but EXPERTS."""
    if i.opcode == Opcode.END:
        return
    if i.opcode == Opcode.LOAD:
        planes = weight_beats(i) // layout.BEATS_PER_PLANE
        yield Loop(i.rows * tiles(i.out_channels), Design.move_depth, planes, 2)
    elif i.opcode == Opcode.PATCHES:
        yield from _patches(i, a)
    elif i.opcode == Opcode.LINEAR:
        yield from _linear(i, a)
    elif i.opcode == Opcode.LAYERNORM:
        row_tiles = tiles(i.in_channels)
        yield _parameters(row_tiles)
        yield Loop((i.rows + 1) * row_tiles + Design.norm_lag, Design.norm_depth)
    elif i.opcode == Opcode.ATTENTION:
        yield from _attention(i, a)
    elif i.opcode == Opcode.GATE:
        yield from _gate(i, a)
    elif i.opcode == Opcode.CONV3X3:
        yield _setup()
        fan_in = CONV_TAPS * tiles(i.in_channels)
        yield from linear_passes(fan_in, 0, tiles(i.out_channels), i.weight_bits, pairs(i.rows), a)
    elif i.opcode == Opcode.UPSAMPLE2X:
        yield Loop(2 * i.height * tiles(i.in_channels) * (i.width + 2), Design.move_depth)
    elif i.opcode == Opcode.STORE:
        yield Loop(i.rows * -(-2 * i.in_channels // a.io_bytes_per_cycle), Design.move_depth)
    yield _setup()


def experts_loops(i: Instruction, experts: Iterable[Expert], a: AcceleratorConfig) -> Iterator[Loop]:
    """Loops of EXPERTS; each expert is requested after the loops before it have been taken."""
    yield queue_loop(i, a)
    for expert in experts:
        yield from expert_loops(i, expert, a)
    yield _setup()


def parameters_of(out_tile: int) -> int:
    """Planes of parameters before a tile of outputs."""
    return 2 - out_tile % 2


def _setup() -> Loop:
    return Loop(0, Design.setup_cycles)


def _parameters(tile_count: int) -> Loop:
    planes = layout.parameter_planes(tile_count)
    return Loop(planes, Design.move_depth, planes)


def linear_passes(
    in_tiles: int, first_out: int, out_tiles: int, bits: int, pair_count: int, a: AcceleratorConfig
) -> Iterator[Loop]:
    """compute() on a linear: the first tile's planes, then a pass per tile, which loads the next tile's."""
    lead = parameters_of(first_out) + bits
    yield Loop(lead, planes=lead)
    for out in range(first_out, first_out + out_tiles):
        behind = bits + parameters_of(out + 1) if out + 1 < first_out + out_tiles else 0
        for left in reversed(range(in_tiles)):
            planes = bits if left else behind
            yield Loop(max(pair_count, planes, Design.accumulator_lag), planes=planes)
    yield Loop(0, Design(a).compute_depth)


def _groups(pair_count: int, out_tiles: int, a: AcceleratorConfig) -> Iterator[tuple[int, int]]:
    """(first tile, number of tiles) of outputs whose sums the accumulators hold at the same time."""
    fit = a.accumulator_rows // layout.PAIR // pair_count
    for first in range(0, out_tiles, fit):
        yield first, min(fit, out_tiles - first)


def _linear(i: Instruction, a: AcceleratorConfig) -> Iterator[Loop]:
    width, out_tiles, pair_count = tiles(i.in_channels), tiles(i.out_channels), pairs(i.rows)
    if i.epilogue in (Epilogue.RESIDUAL, Epilogue.INT16):
        for first, count in _groups(pair_count, out_tiles, a):
            yield _setup()
            yield from linear_passes(width, first, count, i.weight_bits, pair_count, a)
            yield Loop(i.rows * count, Design.move_depth)  # write_rows
    else:
        yield _setup()
        yield from linear_passes(width, 0, out_tiles, i.weight_bits, pair_count, a)


def _attention(i: Instruction, a: AcceleratorConfig) -> Iterator[Loop]:
    """For each head and block of keys, a pass per tile of K and of V, which loads the next block's tiles."""
    yield _parameters(tiles(i.out_channels))
    head_tiles = tiles(i.out_channels // i.heads)
    passes = 2 * i.heads * -(-i.keys // a.key_block)
    all_pairs = pairs(i.rows)
    fit = a.accumulator_rows // layout.PAIR // (1 if head_tiles == 1 else head_tiles + 1)
    share = -(-all_pairs // -(-all_pairs // fit))  # queries that do not fit are split into equal parts
    shortest = Design(a).softmax_lag
    for first in range(0, all_pairs, share):
        yield _setup()
        pass_steps = max(min(share, all_pairs - first), shortest)
        yield Loop(head_tiles * (shortest + passes * pass_steps), Design(a).compute_depth)


def _gate(i: Instruction, a: AcceleratorConfig) -> Iterator[Loop]:
    gate_tiles = layout.gate_tiles(i.experts)
    yield _setup()
    yield from linear_passes(tiles(i.in_channels), 0, gate_tiles, GATE_BITS, pairs(i.rows), a)
    groups = -(-pairs(i.rows) // Design.route_pairs) + 1
    yield Loop(
        groups * (i.experts + Design.route_pairs * gate_tiles) + Design.route_pairs, Design(a).compute_depth
    )


def queue_loop(i: Instruction, a: AcceleratorConfig) -> Loop:
    """fill_queues(): after it the reader of weights is told which experts have rows."""
    return Loop(i.rows + 2 * pairs(i.rows) * i.top_k + a.max_experts, 4 * Design.move_depth)


def expert_loops(i: Instruction, expert: Expert, a: AcceleratorConfig) -> Iterator[Loop]:
    """One expert: two linears, or its planes dropped if it has no rows."""
    entry, (even, odd) = expert.entry, expert.crowd
    rows = even + odd
    if not rows:
        planes = entry.weight_beats // layout.BEATS_PER_PLANE if expert.fetched else 0
        yield Loop(planes, Design.setup_cycles + Design.move_depth, planes)
        return
    width, hidden = tiles(i.in_channels), tiles(i.hidden_channels)
    yield _setup()
    yield from linear_passes(width, 0, hidden, entry.bits1, max(even, odd), a)
    for first, count in _groups(pairs(rows), width, a):
        yield _setup()
        yield from linear_passes(hidden, first, count, entry.bits2, pairs(rows), a)
        yield Loop(rows * count, Design.move_depth)  # add_expert


def patch_moves(i: Instruction, a: AcceleratorConfig) -> int:
    """plan_moves(): pieces of a patch's lines, no wider than the port, that cross no 32-byte slice."""
    count = in_place = 0
    for _ in range(i.patch):
        left = Design.colours * i.patch
        while left:
            moved = min(left, TILE - in_place, a.io_bytes_per_cycle)
            left, in_place, count = left - moved, (in_place + moved) % TILE, count + 1
    return count


def _patches(i: Instruction, a: AcceleratorConfig) -> Iterator[Loop]:
    """A band of patches is read while the previous one is written; it need not start with a transfer."""
    port, moves, bands = a.io_bytes_per_cycle, patch_moves(i, a), i.height // i.patch
    beats = -(-(port - 1 + Design.colours * i.width * i.patch) // port)
    yield Loop(4 * moves, Design.move_depth)
    yield Loop((bands + 1) * max(beats, moves * (i.width // i.patch)), (bands + 1) * Design.move_depth)


def crowds_of(chosen: Sequence[Sequence[int]], experts: int) -> list[Crowd]:
    """Rows of each expert, from the experts that each row chose."""
    counts = [[0, 0] for _ in range(experts)]
    for row, own in enumerate(chosen):
        for expert in own:
            counts[expert][row % 2] += 1
    return [Crowd(even, odd) for even, odd in counts]
