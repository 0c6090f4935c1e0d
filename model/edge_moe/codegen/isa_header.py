# SPDX-License-Identifier: Apache-2.0
"""The instruction set as C++: enumerations, records with their decoders, checksum, permitted bits.

SPEC.md, section 8. Everything follows from the declarations in edge_moe_host.
"""

import enum
from collections.abc import Iterable

from edge_moe.codegen.cpp import constant, header, native_type
from edge_moe_host.contract import isa, layout
from edge_moe_host.contract.opcodes import operands

# Constants of layout -> their names in C++.
NAMES = {
    "BEAT": "beat_bytes",
    "PLANE": "plane_bytes",
    "LOW_BITS": "gate_low_bits",
    **{
        name: name.lower()
        for name in (
            "BEATS_PER_PLANE",
            "TILE",
            "ALIGNMENT",
            "PAIR",
            "ROUTE_BYTES",
            "MAX_TOP_K",
            "GATE_EXPERTS",
            "GATE_BITS",
            "CONV_TAPS",
            "OUTPUT_ALIGNMENT",
            "SHIFT_LIMIT",
            "NORM_SHIFT_LIMIT",
        )
    },
}
LAYOUT = {cpp: getattr(layout, name) for name, cpp in NAMES.items()}

_CHECKSUM = """\
// Checksum of all words of a record but the last: for each, rotate left, then exclusive-or with the word.
inline uint32_t checksum(const uint32_t (&words)[record_words]) {
  uint32_t value = checksum_seed;
WORDS:
  for (int i = 0; i < checksum_word; ++i) {
    value = ((value << checksum_rotate) | (value >> (32 - checksum_rotate))) ^ words[i];
  }
  return value;
}"""

_USES_ONLY = """\
// Whether all set bits are in the mask; the checksum's word is ignored.
inline bool uses_only(const uint32_t (&words)[record_words], const uint32_t (&mask)[checksum_word]) {
  uint32_t excess = 0;
WORDS:
  for (int i = 0; i < checksum_word; ++i) {
    excess |= words[i] & ~mask[i];
  }
  return excess == 0;
}"""


def isa_header() -> str:
    """Text of edge_moe_isa.hpp."""
    body = [
        constant("version", isa.ISA_VERSION),
        constant("record_words", isa.WORDS),
        constant("record_bytes", isa.RECORD_BYTES),
        constant("checksum_word", isa.CHECKSUM_WORD),
        constant("checksum_seed", isa.CHECKSUM_SEED, "uint32_t"),
        constant("checksum_rotate", isa.CHECKSUM_ROTATE),
        constant("opcode_count", max(isa.Opcode) + 1),
        constant("epilogue_count", max(isa.Epilogue) + 1),
        "",
        "// Layout of weights, scratch rows and output rows.",
        *(constant(name, value) for name, value in LAYOUT.items()),
        "",
        *_enumeration(isa.Opcode),
        "",
        *_enumeration(isa.Epilogue),
        "",
        _CHECKSUM,
        "",
        *_record("Instruction", "instruction", isa.fields(isa.Instruction)),
        "",
        *_record("ExpertEntry", "expert_entry", isa.fields(isa.ExpertEntry)),
        "",
        *_masks(),
        "",
        _USES_ONLY,
    ]
    return header("EDGE_MOE_ISA_HPP", "Instructions. SPEC.md, section 8.", "isa", body)


def _enumeration(members: type[enum.IntEnum]) -> list[str]:
    lines = [f"  {member.name} = {member.value}," for member in members]
    return [f"enum class {members.__name__} : uint8_t {{", *lines, "};"]


def _record(name: str, function: str, fields: Iterable[isa.Field]) -> list[str]:
    """The structure, and the function that reads it from its words."""
    fields = tuple(fields)
    lines = [f"struct {name} {{"]
    lines += [f"  {native_type(field.width, field.signed)} {field.name};  // {field.doc}" for field in fields]
    lines += [
        "};",
        "",
        f"inline {name} decode_{function}(const uint32_t (&words)[record_words]) {{",
        f"  {name} record = {name}();",
    ]
    lines += [f"  record.{field.name} = {_extract(field)};" for field in fields]
    return [*lines, "  return record;", "}"]


def _extract(field: isa.Field) -> str:
    """C++ expression of a field's value; a sign bit is flipped, then subtracted."""
    kind = native_type(field.width, field.signed)
    raw = f"words[{field.word}]" + (f" >> {field.low}" if field.low else "")
    if field.width < 32:
        raw = f"({raw}) & 0x{(1 << field.width) - 1:X}u"
    if field.signed:
        sign = 1 << (field.width - 1)
        return f"static_cast<{kind}>(static_cast<int32_t>(({raw}) ^ 0x{sign:X}u) - {sign})"
    return f"static_cast<{kind}>({raw})"


def _allowed(fields: Iterable[isa.Field], names: Iterable[str]) -> str:
    """15 words in which exactly the named fields' bits are set."""
    names = set(names)
    words = [0] * isa.CHECKSUM_WORD
    for field in fields:
        if field.name in names:
            words[field.word] |= ((1 << field.width) - 1) << field.low
    return "{" + ", ".join(f"0x{word:X}u" for word in words) + "}"


def _masks() -> list[str]:
    fields = isa.fields(isa.Instruction)
    lines = [
        "// Bits that an instruction of each opcode may set; none for unused opcodes.",
        "constexpr uint32_t instruction_bits[opcode_count][checksum_word] = {",
    ]
    known = {int(opcode): opcode for opcode in isa.Opcode}
    for value in range(max(isa.Opcode) + 1):
        opcode = known.get(value)
        names = {"opcode", *operands(opcode, isa.Epilogue.REQUANTISE)} if opcode else set()
        lines.append(f"    {_allowed(fields, names)},  // {opcode.name if opcode else 'no opcode'}")
    gelu = {"opcode", *operands(isa.Opcode.LINEAR, isa.Epilogue.GELU)}
    entry = isa.fields(isa.ExpertEntry)
    return [
        *lines,
        "};",
        "// Bits that LINEAR with the epilogue GELU may set.",
        f"constexpr uint32_t linear_gelu_bits[checksum_word] = {_allowed(fields, gelu)};",
        "// Bits that an expert's entry may set.",
        f"constexpr uint32_t expert_entry_bits[checksum_word] = {_allowed(entry, (f.name for f in entry))};",
    ]
