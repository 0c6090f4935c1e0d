# SPDX-License-Identifier: Apache-2.0
"""The instruction set as C++: enumerations, records with their decoders, checksum, bits that may be set.

SPEC.md, sections 8 to 10. Everything follows from the declarations in edge_moe_host.
"""

import enum
import textwrap
from collections.abc import Iterable

from edge_moe.codegen.cpp import constant, header, native_type
from edge_moe_host.contract import isa, layout, program

LAYOUT = {
    "beat_bytes": layout.BEAT,
    "plane_bytes": layout.WORD,
    "tile": layout.TILE,
    "alignment": layout.ALIGNMENT,
    "pair": layout.PAIR,
    "route_bytes": layout.ROUTE_BYTES,
    "max_top_k": layout.MAX_TOP_K,
    "gate_experts": layout.GATE_EXPERTS,
    "gate_low_bits": layout.LOW_BITS,
    "output_alignment": layout.OUTPUT_ALIGNMENT,
    "shift_limit": layout.SHIFT_LIMIT,
    "norm_shift_limit": layout.NORM_SHIFT_LIMIT,
}

_CHECKSUM = """\
// Checksum of a record's words but the last: rotated left, then exclusive-or, word by word.
inline uint32_t checksum(const uint32_t (&words)[record_words]) {
  uint32_t value = checksum_seed;
WORDS:
  for (int i = 0; i < checksum_word; ++i) {
    value = ((value << checksum_rotate) | (value >> (32 - checksum_rotate))) ^ words[i];
  }
  return value;
}"""

_USES_ONLY = """\
// Whether no bit is set that the mask does not allow; the checksum's word is not looked at.
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
        "",
        *_ranges(),
    ]
    return header(
        "EDGE_MOE_ISA_HPP",
        "Instructions. SPEC.md, sections 8 to 10.",
        "isa",
        body,
        includes=("edge_moe_config.hpp",),
    )


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
    """The 15 words in which exactly the named fields' bits are set."""
    names = set(names)
    words = [0] * isa.CHECKSUM_WORD
    for field in fields:
        if field.name in names:
            words[field.word] |= ((1 << field.width) - 1) << field.low
    return "{" + ", ".join(f"0x{word:X}u" for word in words) + "}"


def _masks() -> list[str]:
    fields = isa.fields(isa.Instruction)
    lines = [
        "// Bits that an instruction of each opcode may set; none where there is no such opcode.",
        "constexpr uint32_t instruction_bits[opcode_count][checksum_word] = {",
    ]
    known = {int(opcode): opcode for opcode in isa.Opcode}
    for value in range(max(isa.Opcode) + 1):
        opcode = known.get(value)
        names = {"opcode", *isa.OPERANDS[opcode]} if opcode else set()
        if opcode is isa.Opcode.LINEAR:
            names -= set(isa.GELU_OPERANDS)
        lines.append(f"    {_allowed(fields, names)},  // {opcode.name if opcode else 'no opcode'}")
    gelu = {"opcode", *isa.OPERANDS[isa.Opcode.LINEAR]}
    entry = isa.fields(isa.ExpertEntry)
    return [
        *lines,
        "};",
        "// The same of LINEAR with the epilogue GELU.",
        f"constexpr uint32_t linear_gelu_bits[checksum_word] = {_allowed(fields, gelu)};",
        "// Bits that an expert's entry may set.",
        f"constexpr uint32_t expert_entry_bits[checksum_word] = {_allowed(entry, (f.name for f in entry))};",
    ]


def _holds(fields: Iterable[isa.Field], ranges: Iterable[program.Range]) -> str:
    """C++ expression: every field is in its range. What a field's bits cannot exceed is not asked."""
    known = {field.name: field for field in fields}
    terms = []
    for name, low, high in ranges:
        if low > known[name].minimum:
            terms.append(f"i.{name} >= {low}")
        if isinstance(high, str):
            terms.append(f"i.{name} <= config::{high}")
        elif high < known[name].maximum:
            terms.append(f"i.{name} <= {high}")
    return " && ".join(terms) or "true"


def _ranges() -> list[str]:
    fields = isa.fields(isa.Instruction)
    lines = [
        "// Each field within its range and the accelerator's limits.",
        "inline bool ranges_hold(const Instruction& i) {",
        "  const bool gelu = static_cast<Epilogue>(i.epilogue) == Epilogue::GELU;",
        "  switch (static_cast<Opcode>(i.opcode)) {",
    ]
    for opcode, ranges in program.RANGES.items():
        text = _holds(fields, ranges)
        if opcode is isa.Opcode.LINEAR:
            text += f" && (!gelu || ({_holds(fields, program.GELU_RANGES)}))"
        lines += [f"    case Opcode::{opcode.name}:", *_wrapped(f"      return {text};")]
    return [
        *lines,
        "  }",
        "  return false;",
        "}",
        "",
        "// The same of an expert's entry.",
        "inline bool ranges_hold(const ExpertEntry& i) {",
        *_wrapped(f"  return {_holds(isa.fields(isa.ExpertEntry), program.ENTRY_RANGES)};"),
        "}",
    ]


def _wrapped(text: str) -> list[str]:
    """The statement in lines that end behind ``&&``."""
    indent = " " * (len(text) - len(text.lstrip()))
    terms = text.strip().replace(" ", "\0").replace("&&\0", "&& ")
    lines = textwrap.wrap(terms, 108, initial_indent=indent, subsequent_indent=f"{indent}       ")
    return [line.replace("\0", " ") for line in lines]
