# SPDX-License-Identifier: Apache-2.0
"""Proof that a program can run: limits, shapes, scratch and weight addresses. SPEC.md, section 10."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_moe_host.contract import layout, opcodes
from edge_moe_host.contract.encoding import decode
from edge_moe_host.contract.isa import RECORD_BYTES, ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.opcodes import ENTRY, OPCODES, Declaration, Region
from edge_moe_host.errors import BundleError


def _rule(condition: bool, where: str, rule: str) -> None:
    if not condition:
        raise BundleError(f"{where} cannot run: {rule}.")


def decode_program(data: bytes, where: str) -> tuple[Instruction, ...]:
    """Instructions of a program file. BundleError for a wrong field or checksum, or a misplaced END."""
    if not data or len(data) % RECORD_BYTES:
        raise BundleError(f"{where} has {len(data)} bytes, which is not a whole number of instructions.")
    program = tuple(
        decode(Instruction, data[start : start + RECORD_BYTES],
               f"instruction {start // RECORD_BYTES} of {where}")
        for start in range(0, len(data), RECORD_BYTES)
    )  # fmt: skip
    opcodes = [instruction.opcode for instruction in program]
    for opcode in (Opcode.END, Opcode.STORE, Opcode.PATCHES):
        _rule(opcodes.count(opcode) == 1, where, f"it must hold {opcode.name} exactly once")
    _rule(opcodes[-1] == Opcode.END, where, "it must finish with END")
    return program


def _check_ranges(
    record: Instruction | ExpertEntry,
    declared: Declaration,
    limits: Mapping[str, int],
    where: str,
    epilogue: int = 0,
) -> None:
    for name, low, limit in opcodes.ranges(declared, epilogue):
        value, high = getattr(record, name), limits[limit] if isinstance(limit, str) else limit
        _rule(
            low <= value <= high,
            where,
            f"{name} = {value} is not in [{low}, {high}]"
            + (f", as the accelerator's {limit} = {high}" if isinstance(limit, str) else ""),
        )


def _check_block(record: Instruction | ExpertEntry, needed: int, where: str) -> None:
    """Check that the weight block has the length that its shape needs and begins at a whole plane."""
    _rule(
        record.weight_beats == needed,
        where,
        f"weight_beats = {record.weight_beats} where its shape needs {needed}",
    )
    _rule(
        record.weight_offset % layout.BEATS_PER_PLANE == 0,
        where,
        f"weight_offset = {record.weight_offset} must be even: blocks begin at whole planes",
    )


def check_instruction(instruction: Instruction, limits: Mapping[str, int], where: str) -> None:
    """BundleError unless all fields are in their ranges and fit each other and the accelerator."""
    opcode = Opcode(instruction.opcode)
    where = f"{where} ({opcode.name})"
    _check_ranges(instruction, OPCODES[opcode], limits, where, instruction.epilogue)
    for message in opcodes.broken_rules(instruction, limits):
        _rule(False, where, message)
    for region in opcodes.regions(instruction):
        _rule(
            region.address % layout.ALIGNMENT == 0,
            where,
            f"{region.field} = {region.address} is not a multiple of {layout.ALIGNMENT}",
        )
        _rule(
            region.address + region.size <= limits["scratch_bytes"],
            where,
            f"{region.field} ends at byte {region.address + region.size} of a scratch memory of "
            f"{limits['scratch_bytes']} bytes",
        )
    _check_block(instruction, opcodes.weight_beats(instruction), where)


def check_scratch(program: Sequence[Instruction], limits: Mapping[str, int], where: str) -> int:
    """Check that rows are read as they were written and that no instruction overwrites what it reads.

    Returns the peak number of bytes used. BundleError names the instruction.
    """
    # the instruction that wrote each 64 bytes, or -1; every region is a multiple of 64 bytes
    writer = np.full(limits["scratch_bytes"] // layout.ALIGNMENT, -1, dtype=np.int32)
    written: dict[int, Region] = {}
    peak = 0
    for index, instruction in enumerate(program):
        place = f"instruction {index} of {where} ({Opcode(instruction.opcode).name})"
        used = opcodes.regions(instruction)
        for number, region in enumerate(used):
            end = region.address + region.size
            peak = max(peak, end)
            if region.reads:
                writers = writer[region.address // layout.ALIGNMENT : end // layout.ALIGNMENT]
                _rule(
                    int(writers.min()) >= 0,
                    place,
                    f"{_extent(region)} reads scratch bytes that nothing has written",
                )
                for source in np.unique(writers).tolist():
                    _check_rows(region, written[source], source, place)
                    if region.field == "routing":
                        _check_routing(instruction, program[source], place)
            for other in used[:number]:
                _rule(
                    end <= other.address or other.address + other.size <= region.address,
                    place,
                    f"{_extent(region)} overlaps {_extent(other)}",
                )
        for region in used:
            if not region.reads or region.writes:
                first, end = region.address, region.address + region.size
                kept = index if region.writes else -1
                if region.writes:
                    written[index] = region
                writer[first // layout.ALIGNMENT : end // layout.ALIGNMENT] = kept
    return peak


def _extent(region: Region) -> str:
    return f"{region.field} at bytes {region.address} to {region.address + region.size - 1}"


def _check_rows(region: Region, source: Region, index: int, place: str) -> None:
    """Check that rows are read as the kind that was written, from the start of a row or pair: executors store
    the kinds differently, and channels that fill up a tile may hold anything."""
    same = region.rows == source.rows and (region.address - source.address) % region.unit == 0
    _rule(same, place, f"{region.field} is rows of {region.rows}, not those of instruction {index}, "
          f"{source.rows} from byte {source.address} on")  # fmt: skip


def _check_routing(experts: Instruction, writer: Instruction, place: str) -> None:
    """Check that a gate over the same number of experts made the routing rows, so that all indices exist."""
    same = (writer.opcode, writer.experts, writer.top_k) == (Opcode.GATE, experts.experts, experts.top_k)
    _rule(
        same,
        place,
        f"experts = {experts.experts} and top_k = {experts.top_k}, but routing was made by a "
        f"{Opcode(writer.opcode).name} of experts = {writer.experts} and top_k = {writer.top_k}",
    )


def check_entry(entry: ExpertEntry, instruction: Instruction, where: str) -> None:
    """BundleError unless an expert's entry fits the EXPERTS instruction."""
    _check_ranges(entry, ENTRY, {}, where)
    _check_block(entry, opcodes.expert_beats(instruction, entry), where)
