# SPDX-License-Identifier: Apache-2.0
"""The C++ headers and the SystemVerilog package of an accelerator: values for the files in templates/.

Constants have the same names in both languages, in capitals in SystemVerilog. Its tables are packed vectors,
entry 0 in the lowest bits, because not every tool reads unpacked parameters.
"""

from collections.abc import Collection, Iterable, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.codegen.design import Design
from edge_moe_host.config import to_dict
from edge_moe_host.contract import isa, layout
from edge_moe_host.contract.opcodes import operands
from edge_moe_host.contract.registers import (
    CONTROL,
    REASONS,
    REGISTERS,
    SIZE,
    WORD_BYTES,
    Error,
    Register,
    Status,
)
from edge_moe_host.golden import arithmetic, operators

NATIVE_WIDTHS = (8, 16, 32, 64)

# Constants of layout -> their names in C++.
NAMES = {
    "BEAT": "beat_bytes",
    "PLANE": "plane_bytes",
    "LOW_BITS": "gate_low_bits",
    **{
        name: name.lower()
        for name in (
            *("BEATS_PER_PLANE", "TILE", "ALIGNMENT", "PAIR", "ROUTE_BYTES", "MAX_TOP_K", "GATE_EXPERTS"),
            *("GATE_BITS", "CONV_TAPS", "OUTPUT_ALIGNMENT", "SHIFT_LIMIT", "NORM_SHIFT_LIMIT"),
        )
    },
}
LAYOUT = {cpp: getattr(layout, name) for name, cpp in NAMES.items()}
CONSTANTS = {
    "exp2_bits": arithmetic.EXP2_BITS,
    "exp2_one": arithmetic.EXP2_ONE,
    "mantissa_bits": arithmetic.MANTISSA_BITS,
    "gelu_fraction": arithmetic.GELU_FRACTION,
    "gelu_step_bits": arithmetic.GELU_STEP_BITS,
    "gelu_limit": arithmetic.GELU_LIMIT,
    "key_block": operators.KEY_BLOCK,
    "pixel_offset": operators.PIXEL_OFFSET,
    "xhat_fraction": operators.XHAT_FRACTION,
    "average_fraction": operators.AVERAGE_FRACTION,
    "sum_fraction": operators.SUM_FRACTION,
    "score_fraction": operators.SCORE_FRACTION,
    "exponent_limit": operators.EXPONENT_LIMIT,
    "token_limit": layout.TOKEN_LIMIT,
    "top_k_limit": layout.MAX_TOP_K,
}
TABLES: dict[str, tuple[list[int], str]] = {
    "exp2": (arithmetic.EXP2.tolist(), "2**(-i/256) in Q15"),
    "reciprocal": (arithmetic.RECIPROCAL.tolist(), "1/x in Q15, x in [1, 2)"),
    "rsqrt": (arithmetic.RSQRT.tolist(), "1/sqrt(x) in Q15, x in [1, 4)"),
    "gelu": (arithmetic.GELU.tolist(), "delta(a) = a (1 - Phi(a)) in Q10, a in [0, 4)"),
}


def native_type(width: int, signed: bool = False) -> str:
    """The narrowest standard integer type that holds ``width`` bits."""
    return f"{'' if signed else 'u'}int{next(size for size in NATIVE_WIDTHS if size >= width)}_t"


def _extract(field: isa.Field) -> str:
    """C++ expression of a field's value; a sign bit is flipped, then subtracted."""
    raw = f"words[{field.word}]" + (f" >> {field.low}" if field.low else "")
    if field.width < 32:
        raw = f"({raw}) & 0x{(1 << field.width) - 1:X}u"
    if field.signed:
        sign = 1 << (field.width - 1)
        raw = f"static_cast<int32_t>(({raw}) ^ 0x{sign:X}u) - {sign}"
    return f"static_cast<{native_type(field.width, field.signed)}>({raw})"


def _width(values: Sequence[int]) -> int:
    return max(values).bit_length()


_TEMPLATES = Environment(
    loader=PackageLoader("edge_moe"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
FILTERS = _TEMPLATES.filters
FILTERS |= {"native_type": native_type, "extract": _extract, "width": _width}


def render(name: str, **values: object) -> str:
    """Text of templates/NAME.j2 with these values."""
    return _TEMPLATES.get_template(f"{name}.j2").render(values)


def config_header(config: AcceleratorConfig) -> str:
    """Text of edge_moe_config.hpp: every field of the configuration, and its hash."""
    return render("config.hpp", sizes=to_dict(config), hash=config.hash())


def design_header(config: AcceleratorConfig) -> str:
    """Text of edge_moe_design.hpp: the design's constants, and the values of status and error registers."""
    constants = Design(config).constants()
    return render("design.hpp", constants=constants, Status=Status, Error=Error, reasons=REASONS)


def tables_header() -> str:
    """Text of edge_moe_tables.hpp: golden's tables and the fixed points of its operators."""
    return render("tables.hpp", constants=CONSTANTS, tables=TABLES)


def isa_header() -> str:
    """Text of edge_moe_isa.hpp: enumerations, records with their decoders, checksum, permitted bits."""
    known = {opcode.value: opcode for opcode in isa.Opcode}
    masks = [
        (known[value].name, _bits("opcode", *operands(known[value], isa.Epilogue.REQUANTISE)))
        if value in known
        else ("no opcode", _bits())
        for value in range(max(known) + 1)
    ]
    entry = isa.fields(isa.ExpertEntry)
    return render(
        "isa.hpp",
        isa=isa,
        layout=LAYOUT,
        instruction_bits=masks,
        linear_gelu_bits=_bits("opcode", *operands(isa.Opcode.LINEAR, isa.Epilogue.GELU)),
        expert_entry_bits=_bits(*(field.name for field in entry), fields=entry),
    )


def _bits(*names: str, fields: Iterable[isa.Field] = isa.fields(isa.Instruction)) -> str:
    """15 words in which exactly the named fields' bits are set."""
    words = [0] * isa.CHECKSUM_WORD
    for field in fields:
        if field.name in names:
            words[field.word] |= ((1 << field.width) - 1) << field.low
    return "{" + ", ".join(f"0x{word:X}u" for word in words) + "}"


def sv_package(config: AcceleratorConfig) -> str:
    """Text of edge_moe_pkg.sv: configuration, golden's tables and fixed points, design, registers."""
    layout_names = ("gate_experts", "gate_low_bits", "shift_limit", "norm_shift_limit")
    arguments = [register for register in REGISTERS.values() if register not in CONTROL]
    return render(
        "package.sv",
        # two of them name key_block, to the same value
        sizes=CONSTANTS | to_dict(config) | {name: LAYOUT[name] for name in layout_names},
        tables=TABLES,
        hash=config.hash(),
        isa=isa,
        constants=Design(config).constants(),
        values_of_registers=[*Status, *Error],
        registers=REGISTERS.values(),
        words=SIZE // WORD_BYTES,
        argument_words=_words([r for r in arguments if r.access == "rw"]),
        flag_words=_words([r for r in arguments if r.name.endswith("_ctrl")]),
    )


def _words(registers: Collection[Register]) -> int:
    """A mask: bit n for word n of the map."""
    return sum(
        1 << register.offset // WORD_BYTES + word
        for register in registers
        for word in range(register.bits // (8 * WORD_BYTES))
    )
