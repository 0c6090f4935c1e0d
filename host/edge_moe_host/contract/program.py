# SPDX-License-Identifier: Apache-2.0
"""Proof that a program can run: limits, shapes, scratch and weight addresses. SPEC.md, section 10."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_moe_host.contract import layout
from edge_moe_host.contract.isa import RECORD_BYTES, Epilogue, ExpertEntry, Instruction, Opcode, decode
from edge_moe_host.contract.layout import Region
from edge_moe_host.errors import BundleError

# What a program needs to know about its accelerator: keys of the accelerator's configuration.
LIMITS = (
    "scratch_bytes",
    "accumulator_rows",
    "max_instructions",
    "max_tokens",
    "max_width",
    "max_channels",
    "max_heads",
    "max_head_dim",
    "max_experts",
    "max_top_k",
    "max_map_rows",
    "max_conv_channels",
    "max_image_height",
    "max_image_width",
    "max_patch_size",
)

Range = tuple[str, int, int | str]  # field, smallest value, largest value or the limit that names it

_SHIFT: Range = ("shift", 1, layout.SHIFT_LIMIT)
_SHIFT2: Range = ("shift2", 1, layout.SHIFT_LIMIT)
_MULTIPLIER: Range = ("multiplier", 0, layout.MULTIPLIER_LIMIT)
_PLANES: Range = ("weight_bits", 2, 8)

# The ranges of each opcode's fields; C++ gets them from here (edge_moe.codegen).
RANGES: dict[Opcode, tuple[Range, ...]] = {
    Opcode.END: (),
    Opcode.LOAD: (("rows", 1, "max_tokens"), ("out_channels", 1, "max_width")),
    Opcode.PATCHES: (
        ("rows", 1, "max_tokens"), ("out_channels", 1, "max_channels"), ("patch", 1, "max_patch_size"),
        ("height", 1, "max_image_height"), ("width", 1, "max_image_width"),
    ),
    Opcode.LINEAR: (
        ("rows", 1, "accumulator_rows"), ("in_channels", 1, "max_channels"),
        ("out_channels", 1, "max_channels"), _PLANES, _SHIFT,
    ),
    Opcode.LAYERNORM: (
        ("rows", 1, "max_tokens"), ("in_channels", 1, "max_width"),
        ("shift", 1, layout.NORM_SHIFT_LIMIT), ("epsilon", 1, 2**32 - 1),
    ),
    Opcode.ATTENTION: (
        ("rows", 1, "max_tokens"), ("keys", 1, "max_tokens"), ("heads", 1, "max_heads"),
        ("in_channels", 1, "max_channels"), _SHIFT, _SHIFT2,
    ),
    Opcode.GATE: (
        ("rows", 1, "max_tokens"), ("in_channels", 1, "max_width"), ("experts", 1, "max_experts"),
        ("top_k", 1, "max_top_k"), _MULTIPLIER, _SHIFT,
    ),
    Opcode.EXPERTS: (
        ("rows", 1, "max_tokens"), ("in_channels", 1, "max_width"), ("out_channels", 1, "max_width"),
        ("hidden_channels", 1, "max_channels"), ("experts", 1, "max_experts"), ("top_k", 1, "max_top_k"),
    ),
    Opcode.CONV3X3: (
        ("rows", 1, "accumulator_rows"), ("in_channels", 1, "max_conv_channels"),
        ("out_channels", 1, "max_conv_channels"), ("height", 1, "max_map_rows"),
        ("width", 1, "accumulator_rows"), _PLANES, _SHIFT,
    ),
    Opcode.UPSAMPLE2X: (
        ("rows", 1, "max_map_rows"), ("in_channels", 1, "max_conv_channels"),
        ("height", 1, "max_map_rows"), ("width", 1, "max_map_rows"),
    ),
    Opcode.STORE: (("rows", 1, "max_map_rows"), ("in_channels", 1, "max_channels")),
}  # fmt: skip
GELU_RANGES = (_SHIFT2, _MULTIPLIER)  # of LINEAR with that epilogue, besides
ENTRY_RANGES: tuple[Range, ...] = (
    ("shift1", 1, layout.SHIFT_LIMIT), ("shift2", 1, layout.SHIFT_LIMIT),
    ("gelu_shift", 1, layout.SHIFT_LIMIT), ("bits1", 2, 8), ("bits2", 2, 8),
    ("gelu_multiplier", 0, layout.MULTIPLIER_LIMIT),
)  # fmt: skip


def _rule(condition: bool, where: str, rule: str) -> None:
    if not condition:
        raise BundleError(f"{where} cannot run: {rule}.")


def decode_program(data: bytes, where: str) -> tuple[Instruction, ...]:
    """Instructions of a program file. BundleError when a field or checksum is wrong or END is misplaced."""
    if not data or len(data) % RECORD_BYTES:
        raise BundleError(f"{where} has {len(data)} bytes, which is no whole number of instructions.")
    program = tuple(
        decode(Instruction, data[start : start + RECORD_BYTES],
               f"instruction {start // RECORD_BYTES} of {where}")
        for start in range(0, len(data), RECORD_BYTES)
    )  # fmt: skip
    opcodes = [instruction.opcode for instruction in program]
    for opcode, count in ((Opcode.END, 1), (Opcode.STORE, 1), (Opcode.PATCHES, 1)):
        _rule(opcodes.count(opcode) == count, where, f"it must hold {opcode.name} exactly once")
    _rule(opcodes[-1] == Opcode.END, where, "it must finish with END")
    return program


def _check_ranges(
    record: Instruction | ExpertEntry, ranges: Sequence[Range], limits: Mapping[str, int], where: str
) -> None:
    for name, low, limit in ranges:
        value, high = getattr(record, name), limits[limit] if isinstance(limit, str) else limit
        _rule(
            low <= value <= high,
            where,
            f"{name} = {value} is not in [{low}, {high}]"
            + (f", as the accelerator's {limit} = {high}" if isinstance(limit, str) else ""),
        )


def check_instruction(instruction: Instruction, limits: Mapping[str, int], where: str) -> None:
    """Fields lie in their ranges and fit each other and the accelerator; BundleError otherwise."""
    i = instruction
    opcode = Opcode(i.opcode)
    where = f"{where} ({opcode.name})"
    ranges = RANGES[opcode]
    if opcode is Opcode.LINEAR and i.epilogue == Epilogue.GELU:
        ranges += GELU_RANGES
    _check_ranges(i, ranges, limits, where)
    _check_shape(i, limits, where)
    for region in layout.regions(i):
        _rule(region.address % layout.ALIGNMENT == 0, where, f"{region.field} is not a multiple of 64")
        _rule(
            region.address + region.size <= limits["scratch_bytes"],
            where,
            f"{region.field} ends at byte {region.address + region.size} of a scratch memory of "
            f"{limits['scratch_bytes']} bytes",
        )
    _rule(i.weight_beats == layout.weight_beats(i), where,
          f"weight_beats = {i.weight_beats} where its shape needs {layout.weight_beats(i)}")  # fmt: skip
    _rule(i.weight_offset % layout.BEATS_PER_WORD == 0, where, "weight_offset is odd")


def _check_shape(i: Instruction, limits: Mapping[str, int], where: str) -> None:
    """Relations between the fields of one instruction."""
    rows = limits["accumulator_rows"]
    if i.opcode == Opcode.PATCHES:
        whole = i.height % i.patch == 0 and i.width % i.patch == 0
        _rule(whole, where, f"an image of {i.height}x{i.width} has no whole patches of {i.patch}")
        _rule(i.rows == (i.height // i.patch) * (i.width // i.patch), where, "rows is not the patches")
        _rule(i.out_channels == 3 * i.patch**2, where, "out_channels is not the bytes of a patch")
    elif i.opcode == Opcode.ATTENTION:
        head = i.out_channels // i.heads
        _rule(head * i.heads == i.out_channels and head > 0 and head % layout.TILE == 0, where,
              "out_channels is not a multiple of 32 for each head")  # fmt: skip
        _rule(head <= limits["max_head_dim"], where, f"a head has {head} channels, more than max_head_dim")
        _rule(i.in_channels == 3 * i.out_channels, where, "in_channels is not three times out_channels")
        _rule(i.row_start + i.rows <= i.keys, where, "queries reach beyond the tokens")
        _rule(i.rows * layout.tiles(head) <= rows, where, "queries exceed accumulator_rows")
    elif i.opcode == Opcode.GATE:
        _rule(i.top_k <= i.experts, where, "top_k exceeds the experts")
        pairs = -(-i.rows // layout.PAIR)
        _rule(pairs * layout.gate_tiles(i.experts) <= rows // layout.PAIR, where,
              "pairs of rows exceed accumulator_rows")  # fmt: skip
    elif i.opcode == Opcode.EXPERTS:
        _rule(i.top_k <= i.experts, where, "top_k exceeds the experts")
        _rule(i.in_channels == i.out_channels, where, "in_channels differs from out_channels")
    elif i.opcode == Opcode.CONV3X3:
        _rule(i.height * i.width <= limits["max_map_rows"], where, "the map exceeds max_map_rows")
        _rule(i.row_start + i.rows <= i.height * i.width, where, "pixels reach beyond the map")
        _rule(i.row_start % i.width == 0 and i.rows % i.width == 0, where, "pixels are no whole lines")
    elif i.opcode == Opcode.UPSAMPLE2X:
        _rule(i.rows == 4 * i.height * i.width, where, "rows is not four times the map")


def check_scratch(program: Sequence[Instruction], limits: Mapping[str, int], where: str) -> int:
    """Rows are read as they were written, and no instruction overwrites what it reads; the peak used.

    Raises BundleError naming the instruction.
    """
    # the instruction that wrote each 64 bytes, or -1; every region is a whole number of them
    writer = np.full(limits["scratch_bytes"] // layout.ALIGNMENT, -1, dtype=np.int32)
    written: dict[int, Region] = {}
    peak = 0
    for index, instruction in enumerate(program):
        place = f"instruction {index} of {where} ({Opcode(instruction.opcode).name})"
        used = layout.regions(instruction)
        for number, region in enumerate(used):
            end = region.address + region.size
            peak = max(peak, end)
            if region.reads:
                writers = writer[region.address // layout.ALIGNMENT : end // layout.ALIGNMENT]
                _rule(int(writers.min()) >= 0, place,
                      f"{region.field} reads scratch bytes that nothing has written")  # fmt: skip
                for source in np.unique(writers).tolist():
                    _check_rows(region, written[source], source, place)
                    if region.field == "routing":
                        _check_routing(instruction, program[source], place)
            for other in used[:number]:
                _rule(end <= other.address or other.address + other.size <= region.address, place,
                      f"{region.field} overlaps {other.field}")  # fmt: skip
        for region in used:
            if not region.reads or region.writes:
                first, end = region.address, region.address + region.size
                kept = index if region.writes else -1
                if region.writes:
                    written[index] = region
                writer[first // layout.ALIGNMENT : end // layout.ALIGNMENT] = kept
    return peak


def _check_rows(region: Region, source: Region, index: int, place: str) -> None:
    """Rows are read as the same kind that was written, from a row's or a pair's beginning on: executors keep
    the two kinds differently, and channels that fill a tile up hold anything."""
    same = region.rows == source.rows and (region.address - source.address) % region.unit == 0
    _rule(same, place, f"{region.field} is rows of {region.rows}, not those of instruction {index}, "
          f"{source.rows} from byte {source.address} on")  # fmt: skip


def _check_routing(experts: Instruction, writer: Instruction, place: str) -> None:
    """Routing rows were made by a gate over as many experts, so that none of another number can occur."""
    same = (writer.opcode, writer.experts, writer.top_k) == (Opcode.GATE, experts.experts, experts.top_k)
    _rule(same, place, "routing was not made by a GATE of as many experts and the same top_k")


def check_entry(entry: ExpertEntry, instruction: Instruction, where: str) -> None:
    """An expert's entry fits the EXPERTS instruction; BundleError otherwise."""
    _check_ranges(entry, ENTRY_RANGES, {}, where)
    _rule(entry.weight_offset % layout.BEATS_PER_WORD == 0, where, "weight_offset is odd")
    needed = layout.expert_beats(instruction, entry)
    _rule(entry.weight_beats == needed, where,
          f"weight_beats = {entry.weight_beats} where its shape needs {needed}")  # fmt: skip
