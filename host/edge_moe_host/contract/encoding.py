# SPDX-License-Identifier: Apache-2.0
"""Instructions and experts' entries as bytes. Bits without a meaning are always 0. SPEC.md, 8."""

import numpy as np

from edge_moe_host.contract.isa import (
    CHECKSUM_WORD,
    ISA_VERSION,
    RECORD_BYTES,
    WORDS,
    Epilogue,
    ExpertEntry,
    Instruction,
    Opcode,
    Record,
    checksum,
    fields,
)
from edge_moe_host.contract.opcodes import operands
from edge_moe_host.errors import BundleError


def encode(record: Instruction | ExpertEntry) -> bytes:
    """64 bytes of an instruction or an expert's entry. BundleError names a field that does not fit."""
    words = [0] * WORDS
    for field in fields(type(record)):
        value = int(getattr(record, field.name))
        if not field.minimum <= value <= field.maximum:
            raise BundleError(
                f"field '{field.name}' = {value} of {_title(record)} is not in "
                f"[{field.minimum}, {field.maximum}]."
            )
        words[field.word] |= (value & ((1 << field.width) - 1)) << field.low
    if isinstance(record, Instruction):
        _check_unused(record)
    words[CHECKSUM_WORD] = checksum(words)
    return np.array(words, dtype="<u4").tobytes()


def decode(record: type[Record], data: bytes, where: str) -> Record:
    """Read 64 bytes; ``where`` names their place in errors. BundleError when they are not such a record."""
    words = np.frombuffer(data, dtype="<u4").tolist()
    if len(words) != WORDS:
        raise BundleError(f"{where} has {len(data)} bytes where {RECORD_BYTES} were expected.")
    if words[CHECKSUM_WORD] != checksum(words):
        raise BundleError(f"{where} is damaged: its checksum does not match.")
    used = [0] * WORDS
    values = {}
    for field in fields(record):
        mask = (1 << field.width) - 1
        used[field.word] |= mask << field.low
        value = words[field.word] >> field.low & mask
        values[field.name] = value - (mask + 1) if field.signed and value > field.maximum else value
    if any(word & ~mask for word, mask in zip(words[:CHECKSUM_WORD], used[:CHECKSUM_WORD], strict=True)):
        raise BundleError(f"{where} sets bits that mean nothing in version {ISA_VERSION} of the format.")
    result = record(**values)
    if isinstance(result, Instruction):
        _check_unused(result, where)
    return result


def _title(record: Instruction | ExpertEntry) -> str:
    if isinstance(record, ExpertEntry):
        return "an expert's entry"
    known = record.opcode in Opcode.__members__.values()
    return Opcode(record.opcode).name if known else f"opcode {record.opcode}"


def _check_unused(instruction: Instruction, where: str = "an instruction") -> None:
    """Check that opcode and epilogue are known and that fields which the opcode does not read are 0."""
    if instruction.opcode not in Opcode.__members__.values():
        raise BundleError(f"{where} has the unknown opcode {instruction.opcode}.")
    opcode = Opcode(instruction.opcode)
    if instruction.epilogue not in Epilogue.__members__.values():
        raise BundleError(f"{where} has the unknown epilogue {instruction.epilogue}.")
    read = operands(opcode, instruction.epilogue)
    for field in fields(Instruction)[1:]:
        if field.name not in read and getattr(instruction, field.name):
            raise BundleError(f"{where} ({opcode.name}) sets '{field.name}', which it does not read.")
