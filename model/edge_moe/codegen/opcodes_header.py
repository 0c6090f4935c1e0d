# SPDX-License-Identifier: Apache-2.0
"""The rules of the opcodes as C++: ranges, shapes, scratch rows, lengths of weight blocks. SPEC.md, 8 to 10.

Everything follows from the table in edge_moe_host.contract.opcodes. Products are kept as in the table: each
is a multiplier that edge_moe.estimate.inventory lists.
"""

import ast
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from edge_moe.codegen.cpp import header
from edge_moe.codegen.cpp_expressions import Cpp, Printer
from edge_moe.codegen.isa_header import NAMES
from edge_moe_host.contract import expressions, isa, layout, opcodes
from edge_moe_host.contract.bundle import MAX_LIMIT
from edge_moe_host.contract.isa import Epilogue, ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.opcodes import DEFINITIONS, ENTRY, FUNCTIONS, LIMITS, OPCODES, Declaration, Rows

_COLUMNS = 108
_MAP_ROWS = 2**19
_FIELDS = {field.name: field for field in isa.fields(Instruction)}

_REGIONS = """\
// Beats of scratch memory that an instruction reads, writes or works in; `beats` is 0 if there are none.
struct Region {{
  uint32_t address;  // bytes
  uint32_t beats;
}};

constexpr int max_regions = {count};
// A larger map could give a region more beats than an int holds.
static_assert(config::max_map_rows <= {rows}, "sizes of regions have 31 bits");

struct Regions {{
  Region region[max_regions];
}};"""


def opcodes_header() -> str:
    """Text of edge_moe_opcodes.hpp."""
    printer = Printer(_names({}, {}), FUNCTIONS)
    slots = max(len(_slots(declared)) for declared in OPCODES.values())
    body = []
    for function in FUNCTIONS.values():
        body += [*printer.function(function), ""]
    body += [
        *_ranges(),
        "",
        *_shapes(),
        "",
        _REGIONS.format(count=slots, rows=_MAP_ROWS),
        "",
        *_region_sizes(),
        *_regions(),
        "",
        *_weights(),
        "",
        *_expert(),
    ]
    includes = ("edge_moe/vendor.hpp", "edge_moe_config.hpp", "edge_moe_isa.hpp")
    doc = "What each opcode allows, and the memory that it uses. SPEC.md, sections 8 to 10."
    return header("EDGE_MOE_OPCODES_HPP", doc, "isa", body, includes)


def _names(declared: Mapping[str, tuple[int, int]], definitions: Mapping[str, Cpp]) -> dict[str, Cpp]:
    """Names of expressions: fields with their ``declared`` ranges, or with all that their bits hold."""
    names = {}
    for name, cpp in NAMES.items():
        value = getattr(layout, name)
        names[name] = Cpp(f"isa::{cpp}", value, value)
    for epilogue in Epilogue:
        names[epilogue.name] = Cpp(f"static_cast<int>(Epilogue::{epilogue.name})", epilogue, epilogue)
    for limit in LIMITS:
        names[limit] = Cpp(f"config::{limit}", 1, MAX_LIMIT)
    for field in _FIELDS.values():
        if not field.signed:
            low, high = declared.get(field.name, (0, field.maximum))
            names[field.name] = Cpp(f"i.{field.name}", low, high, wide=field.width > 31)
    return {**names, **definitions}


def _declared_ranges(declared: Declaration) -> dict[str, tuple[int, int]]:
    """Ranges of fields that do not depend on an accelerator's limits."""
    return {
        name: (low, min(_FIELDS[name].maximum, MAX_LIMIT if isinstance(high, str) else high))
        for name, low, high in opcodes.ranges(declared)
    }


def _divides(text: str) -> bool:
    """Whether an expression divides by a field: it has a meaning only if that field is not 0."""
    return any(
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.FloorDiv | ast.Mod)
        and not isinstance(node.right, ast.Constant)
        for node in ast.walk(expressions.parse(text))
    )


class _Switch:
    """A function's cases. A definition is computed once before them; one that divides by a field is computed
    in each case that uses it."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._cases: list[str] = []

    def case(self, opcode: Opcode, declared: Declaration) -> "_Case":
        """The printer of one opcode's expressions."""
        return _Case(self, _declared_ranges(declared), opcode)

    def add(self, case: "_Case", statements: Iterable[str]) -> None:
        """The statements of one opcode."""
        lines, own = list(statements), case.own
        brace = " {" if own else ""
        self._first.update(case.shared)
        self._cases += [f"    case Opcode::{case.opcode.name}:{brace}"]
        self._cases += [f"      const {text};" for text in own.values()]
        self._cases += [wrapped for line in lines for wrapped in _wrapped(f"      {line}")]
        self._cases += ["    }"] if own else []

    def lines(self) -> list[str]:
        """Definitions and cases, without a default."""
        first = [line for text in self._first.values() for line in _wrapped(f"  const {text};")]
        return [*first, "  switch (static_cast<Opcode>(i.opcode)) {", *self._cases]


class _Case:
    def __init__(self, switch: _Switch, ranges: Mapping[str, tuple[int, int]], opcode: Opcode) -> None:
        self.opcode, self.own, self.shared = opcode, dict[str, str](), dict[str, str]()
        self._ranges = ranges

    def print(self, text: str) -> Cpp:
        """An expression of this opcode."""
        definitions = {}
        for name in sorted(expressions.names(text) & set(DEFINITIONS)):
            here = _divides(DEFINITIONS[name])
            value = Printer(_names(self._ranges if here else {}, {}), FUNCTIONS).expression(DEFINITIONS[name])
            kind = "uint64_t" if value.wide else "bool" if value.high == 1 else "int"
            (self.own if here else self.shared)[name] = f"{kind} {name} = {value.text}"
            definitions[name] = replace(value, text=name, binds=Cpp("", 0, 0).binds)
        return Printer(_names(self._ranges, definitions), FUNCTIONS).expression(text)


def _signature(kind: str, name: str) -> list[str]:
    return [f"inline {kind} {name}(const Instruction& i) {{", "  HLS_INLINE"]


def _ranges() -> list[str]:
    switch = _Switch()
    for opcode, declared in OPCODES.items():
        always = " && ".join(_held(opcodes.ranges(declared, -1), _FIELDS))
        gelu = set(opcodes.ranges(declared, Epilogue.GELU)) - set(opcodes.ranges(declared, -1))
        if gelu:
            case = switch.case(opcode, declared)
            terms = " && ".join(_held(sorted(gelu), _FIELDS))
            other = case.print("epilogue != GELU").text
            switch.add(case, [f"return {always} && ({other} || ({terms}));"])
        else:
            switch.add(switch.case(opcode, declared), [f"return {always or 'true'};"])
    entry = " && ".join(_held(opcodes.ranges(ENTRY), {f.name: f for f in isa.fields(ExpertEntry)}))
    return [
        "// Each field within its range and the accelerator's limits.",
        *_signature("bool", "ranges_hold"),
        *switch.lines(),
        "  }",
        "  return false;",
        "}",
        "",
        "// Each field of an expert's entry within its range and the accelerator's limits.",
        "inline bool ranges_hold(const ExpertEntry& i) {",
        "  HLS_INLINE",
        *_wrapped(f"  return {entry};"),
        "}",
    ]


def _held(ranges: Iterable[tuple[str, int, int | str]], fields: Mapping[str, isa.Field]) -> Iterator[str]:
    """Conditions of the ranges, without those that a field's bits always meet."""
    for name, low, high in ranges:
        if low > fields[name].minimum:
            yield f"i.{name} >= {low}"
        if isinstance(high, str):
            yield f"i.{name} <= config::{high}"
        elif high < fields[name].maximum:
            yield f"i.{name} <= {high}"


def _shapes() -> list[str]:
    switch = _Switch()
    for opcode, declared in OPCODES.items():
        case = switch.case(opcode, declared)
        if declared.rules:
            conditions = [case.print(rule.condition) for rule in declared.rules]
            switch.add(case, [f"return {' && '.join(condition.within(2) for condition in conditions)};"])
    return [
        "// Relations between fields that are in their ranges.",
        *_signature("bool", "shape_holds"),
        *switch.lines(),
        "    default:",
        "      return true;",
        "  }",
        "}",
    ]


def _slots(declared: Declaration) -> list[str]:
    """Address fields, one for each region."""
    return list(dict.fromkeys(rows.field for rows in declared.rows))


def _region_sizes() -> list[str]:
    lines = []
    for kind, beats in opcodes.BEATS_OF.items():
        size = _beats(beats, Cpp("rows", 0, _MAP_ROWS), Cpp("channels", 0, _FIELDS["in_channels"].maximum))
        lines += [
            f"inline Region {kind}_region(uint32_t address, int rows, int channels) {{",
            "  HLS_INLINE",
            f"  const Region result = {{address, static_cast<uint32_t>({size.text})}};",
            "  return result;",
            "}",
            "",
        ]
    return lines


def _beats(text: str, rows: Cpp, channels: Cpp) -> Cpp:
    size = Printer({**_names({}, {}), "rows": rows, "channels": channels}, FUNCTIONS).expression(text)
    if size.wide:
        raise ValueError(f"'{text}' may be {size.high}, more than an int holds.")
    return size


def _regions() -> list[str]:
    switch = _Switch()
    for opcode, declared in OPCODES.items():
        case = switch.case(opcode, declared)
        places = _slots(declared)
        lines = [line for rows in declared.rows for line in _region(case, rows, places.index(rows.field))]
        switch.add(case, [*lines, "break;"])
    return [
        "// All regions of an instruction whose ranges and shape hold.",
        *_signature("Regions", "regions_of"),
        "  Regions r = {};",
        *switch.lines(),
        "  }",
        "  return r;",
        "}",
    ]


def _region(case: _Case, rows: Rows, place: int) -> Iterator[str]:
    count, channels = (case.print(text).narrowed(_MAP_ROWS) for text in (rows.rows, rows.channels))
    stored = opcodes.STORED_AS[rows.kind]
    _beats(opcodes.BEATS_OF[stored], count, channels)
    size = f"{stored}_region(i.{rows.field}, {count.text}, {channels.text})"
    if isinstance(rows.when, str):
        yield f"if ({case.print(rows.when).text}) {{"
        yield f"  r.region[{place}] = {size};"
        yield "}"
    else:
        yield f"r.region[{place}] = {size};"


def _weights() -> list[str]:
    switch = _Switch()
    for opcode, declared in OPCODES.items():
        case = switch.case(opcode, declared)
        if declared.weights:
            switch.add(case, [f"return static_cast<uint32_t>({case.print(declared.weights.planes).text});"])
    return [
        "// Planes of the block that an instruction points to; 0 if it has none.",
        *_signature("uint32_t", "weight_planes"),
        *switch.lines(),
        "    default:",
        "      return 0;",
        "  }",
        "}",
    ]


def _expert() -> list[str]:
    assert ENTRY.weights is not None
    ranges = {name: (low, int(high)) for name, low, high in opcodes.ranges(ENTRY)}
    own = {
        f.name: Cpp(f"entry.{f.name}", *ranges.get(f.name, (0, f.maximum))) for f in isa.fields(ExpertEntry)
    }
    planes = Printer({**_names({}, {}), **own}, FUNCTIONS).expression(ENTRY.weights.planes)
    return [
        "// Planes of one expert's block: its first linear, then its second.",
        "inline uint32_t expert_planes(const Instruction& i, const ExpertEntry& entry) {",
        "  HLS_INLINE",
        *_wrapped(f"  return static_cast<uint32_t>({planes.text});"),
        "}",
    ]


def _wrapped(text: str) -> list[str]:
    """A statement in lines that break after ``&&``, ``||`` or a comma."""
    indent = " " * (len(text) - len(text.lstrip()))
    terms = text.strip().replace(" ", "\0")
    for sign in ("&&", "||", ","):
        terms = terms.replace(f"{sign}\0", f"{sign} ")
    lines = textwrap.wrap(terms, _COLUMNS, initial_indent=indent, subsequent_indent=f"{indent}       ")
    return [line.replace("\0", " ") for line in lines]
