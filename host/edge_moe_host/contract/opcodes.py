# SPDX-License-Identifier: Apache-2.0
"""THE table of the opcodes: what each reads, its limits, shape, scratch rows and weights. SPEC.md, 8 to 10.

Encoder, bundle reader, compiler, interpreter, estimator and the generated C++ (edge_moe_opcodes.hpp) derive
from it. Conditions, numbers of rows and lengths are text of :mod:`edge_moe_host.contract.expressions`, over
an instruction's fields, the accelerator's LIMITS, DEFINITIONS, and layout's constants and functions. All
ranges are checked first, then the rules in their order, then regions and weights. So a divisor whose range
begins at 1 is never 0.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from edge_moe_host.contract import expressions, isa, layout
from edge_moe_host.contract.isa import Epilogue, ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.layout import (
    BEAT,
    BEATS_PER_PLANE,
    EPSILON_LIMIT,
    MULTIPLIER_LIMIT,
    NORM_SHIFT_LIMIT,
    SHIFT_LIMIT,
    gate_tiles,
    pairs,
    tiles,
)

# Limits that a program depends on: keys of the accelerator's configuration.
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

MAX_LIMIT = 2**26  # for any number in an accelerator's configuration; no chip comes near

# Names for terms that several expressions use.
DEFINITIONS = {
    "pixels": "height * width",
    "head": "out_channels // heads",
    "wide": "epilogue == RESIDUAL or epilogue == INT16",
}
FUNCTIONS: dict[str, Callable[..., int]] = {
    function.__name__: function
    for function in (tiles, pairs, gate_tiles, layout.parameter_planes, layout.linear_planes)
}
CONSTANTS: dict[str, int] = {
    **{name: value for name, value in vars(layout).items() if name.isupper()},
    **{epilogue.name: int(epilogue) for epilogue in Epilogue},
}

# How rows are stored -> beats of ``rows`` rows of ``channels``. int8 and routing rows are stored in pairs.
BEATS_OF = {
    "int8": "pairs(rows) * tiles(channels)",
    "int16": "rows * tiles(channels)",
}
STORED_AS = {"int8": "int8", "int16": "int16", "routing": "int8"}


@dataclass(frozen=True)
class Operand:
    """A field that an opcode reads, in [low, high]; ``high`` may name a limit; None allows all its bits.

    With ``epilogue``, the field is read with that epilogue only.
    """

    name: str
    low: int | None = None
    high: int | str | None = None
    epilogue: Epilogue | None = None


@dataclass(frozen=True)
class Rows:
    """Rows in the scratch memory, at the address field ``field``; a workspace is neither read nor written."""

    field: str
    kind: str  # key of STORED_AS
    rows: str
    channels: str
    reads: bool | str = False  # or a condition
    writes: bool = False
    when: bool | str = True


@dataclass(frozen=True)
class Weights:
    """The weight block: the kind of its section, and its number of planes."""

    section: str
    planes: str


@dataclass(frozen=True)
class Declaration:
    """All rules of one opcode. It also reads the addresses of its rows and of its weights."""

    operands: tuple[Operand, ...] = ()
    rules: Mapping[str, str] = field(default_factory=dict)  # relation -> message when it does not hold
    rows: tuple[Rows, ...] = ()
    weights: Weights | None = None

    @property
    def sizes(self) -> list[str]:
        """Expressions that say which rows are used, and how many."""
        texts = [text for rows in self.rows for text in (rows.rows, rows.channels, rows.when)]
        return [text for text in texts if isinstance(text, str)]


_SHIFT = Operand("shift", 1, SHIFT_LIMIT)
_PLANES = Operand("weight_bits", 2, 8)
_TOP_K = {"top_k <= experts": "top_k = {top_k} exceeds experts = {experts}"}

OPCODES: dict[Opcode, Declaration] = {
    Opcode.END: Declaration(),
    Opcode.LOAD: Declaration(
        operands=(Operand("rows", 1, "max_tokens"), Operand("out_channels", 1, "max_width")),
        rows=(Rows("dst", "int16", "rows", "out_channels", writes=True),),
        weights=Weights("rows", "(rows * tiles(out_channels) + BEATS_PER_PLANE - 1) // BEATS_PER_PLANE"),
    ),
    Opcode.PATCHES: Declaration(
        operands=(
            Operand("rows", 1, "max_tokens"),
            Operand("out_channels", 1, "max_channels"),
            Operand("patch", 1, "max_patch_size"),
            Operand("height", 1, "max_image_height"),
            Operand("width", 1, "max_image_width"),
        ),
        rules={
            "height % patch == 0 and width % patch == 0": (
                "an image of {height}x{width} has no whole patches of {patch}x{patch}"
            ),
            "rows * patch * patch == pixels": (
                "rows = {rows}, but an image of {height}x{width} has {pixels // (patch * patch)} patches of "
                "{patch}x{patch}"
            ),
            "out_channels == 3 * patch * patch": (
                "out_channels = {out_channels}, but a patch of {patch}x{patch} has {3 * patch * patch} bytes"
            ),
        },
        rows=(Rows("dst", "int8", "rows", "out_channels", writes=True),),
    ),
    Opcode.LINEAR: Declaration(
        operands=(
            Operand("epilogue"),
            Operand("rows", 1, "accumulator_rows"),
            Operand("in_channels", 1, "max_channels"),
            Operand("out_channels", 1, "max_channels"),
            _PLANES,
            _SHIFT,
            Operand("shift2", 1, SHIFT_LIMIT, Epilogue.GELU),
            Operand("multiplier", 0, MULTIPLIER_LIMIT, Epilogue.GELU),
            Operand("zero_point", epilogue=Epilogue.GELU),
        ),
        rows=(
            Rows("src", "int8", "rows", "in_channels", reads=True),
            Rows("dst", "int8", "rows", "out_channels", writes=True, when="not wide"),
            Rows(
                *("dst", "int16", "rows", "out_channels"),
                reads="epilogue == RESIDUAL",
                writes=True,
                when="wide",
            ),
        ),
        weights=Weights("linear", "linear_planes(tiles(in_channels), tiles(out_channels), weight_bits)"),
    ),
    Opcode.LAYERNORM: Declaration(
        operands=(
            Operand("rows", 1, "max_tokens"),
            Operand("in_channels", 1, "max_width"),
            Operand("shift", 1, NORM_SHIFT_LIMIT),
            Operand("epsilon", 1, EPSILON_LIMIT),
        ),
        rows=(
            Rows("src", "int16", "rows", "in_channels", reads=True),
            Rows("dst", "int8", "rows", "in_channels", writes=True),
        ),
        weights=Weights("norm", "parameter_planes(tiles(in_channels))"),
    ),
    Opcode.ATTENTION: Declaration(
        operands=(
            Operand("rows", 1, "max_tokens"),
            Operand("row_start"),
            Operand("keys", 1, "max_tokens"),
            Operand("heads", 1, "max_heads"),
            Operand("in_channels", 1, "max_channels"),
            Operand("out_channels"),
            _SHIFT,
            Operand("shift2", 1, SHIFT_LIMIT),
        ),
        rules={
            "head * heads == out_channels and head > 0 and head % TILE == 0": (
                "out_channels = {out_channels} is not a multiple of {TILE} for each of heads = {heads}"
            ),
            "head <= max_head_dim": (
                "a head has {head} channels, but the accelerator's max_head_dim = {max_head_dim}"
            ),
            "in_channels == 3 * out_channels": (
                "in_channels = {in_channels}, but q, k and v of out_channels = {out_channels} have "
                "{3 * out_channels}"
            ),
            "row_start + rows <= keys": (
                "row_start = {row_start} and rows = {rows} reach beyond keys = {keys}"
            ),
            "rows * tiles(head) <= accumulator_rows": (
                "rows = {rows} of {head} channels a head need {rows * tiles(head)} accumulator rows, but "
                "the accelerator's accumulator_rows = {accumulator_rows}"
            ),
        },
        rows=(
            Rows("src", "int8", "keys", "in_channels", reads=True),
            Rows("dst", "int8", "rows", "out_channels", writes=True),
        ),
        weights=Weights("attention", "parameter_planes(tiles(out_channels))"),
    ),
    Opcode.GATE: Declaration(
        operands=(
            Operand("rows", 1, "max_tokens"),
            Operand("in_channels", 1, "max_width"),
            Operand("experts", 1, "max_experts"),
            Operand("top_k", 1, "max_top_k"),
            Operand("multiplier", 0, MULTIPLIER_LIMIT),
            _SHIFT,
        ),
        rules={
            **_TOP_K,
            "pairs(rows) * gate_tiles(experts) <= accumulator_rows // PAIR": (
                "rows = {rows} and experts = {experts} need {pairs(rows) * gate_tiles(experts)} pairs of "
                "accumulator rows, but the accelerator's accumulator_rows = {accumulator_rows}"
            ),
        },
        rows=(
            Rows("src", "int8", "rows", "in_channels", reads=True),
            Rows("dst", "routing", "rows", "ROUTE_BYTES", writes=True),
        ),
        weights=Weights("gate", "linear_planes(tiles(in_channels), gate_tiles(experts), GATE_BITS)"),
    ),
    Opcode.EXPERTS: Declaration(
        operands=(
            Operand("rows", 1, "max_tokens"),
            Operand("in_channels", 1, "max_width"),
            Operand("out_channels", 1, "max_width"),
            Operand("hidden_channels", 1, "max_channels"),
            Operand("experts", 1, "max_experts"),
            Operand("top_k", 1, "max_top_k"),
        ),
        rules={
            **_TOP_K,
            "in_channels == out_channels": (
                "in_channels = {in_channels} and out_channels = {out_channels} must be equal"
            ),
        },
        rows=(
            Rows("src", "int8", "rows", "in_channels", reads=True),
            Rows("routing", "routing", "rows", "ROUTE_BYTES", reads=True),
            Rows("dst", "int16", "rows", "out_channels", reads=True, writes=True),
            Rows("hidden", "int8", "rows", "hidden_channels"),
        ),
        weights=Weights("table", "(experts + BEATS_PER_PLANE - 1) // BEATS_PER_PLANE"),
    ),
    Opcode.CONV3X3: Declaration(
        operands=(
            Operand("rows", 1, "accumulator_rows"),
            Operand("row_start"),
            Operand("in_channels", 1, "max_conv_channels"),
            Operand("out_channels", 1, "max_conv_channels"),
            Operand("height", 1, "max_map_rows"),
            Operand("width", 1, "accumulator_rows"),
            _PLANES,
            _SHIFT,
            Operand("pad"),
        ),
        rules={
            "pixels <= max_map_rows": (
                "a map of {height}x{width} has {pixels} pixels, but the accelerator's max_map_rows = "
                "{max_map_rows}"
            ),
            "row_start + rows <= pixels": (
                "row_start = {row_start} and rows = {rows} reach beyond the {pixels} pixels of a map of "
                "{height}x{width}"
            ),
            "row_start % width == 0 and rows % width == 0": (
                "row_start = {row_start} and rows = {rows} are not whole lines of a map {width} wide"
            ),
        },
        rows=(
            Rows("src", "int8", "pixels", "in_channels", reads=True),
            Rows("dst", "int8", "rows", "out_channels", writes=True),
        ),
        weights=Weights(
            "conv", "linear_planes(CONV_TAPS * tiles(in_channels), tiles(out_channels), weight_bits)"
        ),
    ),
    Opcode.UPSAMPLE2X: Declaration(
        operands=(
            Operand("rows", 1, "max_map_rows"),
            Operand("in_channels", 1, "max_conv_channels"),
            Operand("height", 1, "max_map_rows"),
            Operand("width", 1, "max_map_rows"),
        ),
        rules={
            "rows == 4 * pixels": (
                "rows = {rows}, but twice the size of a map of {height}x{width} has {4 * pixels} pixels"
            ),
        },
        rows=(
            Rows("src", "int8", "pixels", "in_channels", reads=True),
            Rows("dst", "int8", "rows", "in_channels", writes=True),
        ),
    ),
    Opcode.STORE: Declaration(
        operands=(Operand("rows", 1, "max_map_rows"), Operand("in_channels", 1, "max_channels")),
        rows=(Rows("src", "int16", "rows", "in_channels", reads=True),),
    ),
}

EXPERT_SECTION = "expert"
# An expert's entry: its fields, and its block, whose length also depends on the instruction's fields.
ENTRY = Declaration(
    operands=(
        Operand("shift1", 1, SHIFT_LIMIT),
        Operand("shift2", 1, SHIFT_LIMIT),
        Operand("gelu_shift", 1, SHIFT_LIMIT),
        Operand("bits1", 2, 8),
        Operand("bits2", 2, 8),
        Operand("gelu_multiplier", 0, MULTIPLIER_LIMIT),
        Operand("zero_point"),
    ),
    weights=Weights(
        EXPERT_SECTION,
        "linear_planes(tiles(in_channels), tiles(hidden_channels), bits1)"
        " + linear_planes(tiles(hidden_channels), tiles(in_channels), bits2)",
    ),
)

SECTION_KINDS = (*(d.weights.section for d in OPCODES.values() if d.weights), EXPERT_SECTION)
_PLACE = ("weight_offset", "weight_beats")


class Scope(dict[str, Any]):
    """Names in expressions: its own entries, then DEFINITIONS, constants and functions."""

    def __missing__(self, name: str) -> Any:
        if name in DEFINITIONS:
            self[name] = expressions.value(DEFINITIONS[name], self)
            return self[name]
        for known in (CONSTANTS, FUNCTIONS):
            if name in known:
                return known[name]
        raise ValueError(f"the name '{name}' is unknown")


@dataclass(frozen=True)
class Region:
    """Bytes of the scratch memory that an instruction uses; a workspace's contents mean nothing later."""

    field: str  # the instruction's address field
    address: int
    size: int
    rows: str  # type and channels of its rows
    unit: int  # bytes of a row, or of the two rows of a pair
    reads: bool
    writes: bool


@cache
def operands(opcode: Opcode, epilogue: int | None = None) -> tuple[str, ...]:
    """The fields that an opcode reads besides ``opcode``, in their order; all others must be 0.

    With an ``epilogue``, only the fields that are read with it.
    """
    declared = OPCODES[opcode]
    read = {o.name for o in declared.operands if epilogue is None or o.epilogue in (None, epilogue)}
    read.update(rows.field for rows in declared.rows)
    read.update(_PLACE if declared.weights else ())
    return tuple(field.name for field in isa.fields(Instruction) if field.name in read)


def ranges(declared: Declaration, epilogue: int = 0) -> Iterator[tuple[str, int, int | str]]:
    """(field, smallest value, largest value or name of a limit) of each field read with ``epilogue``."""
    for operand in declared.operands:
        if operand.low is not None and operand.high is not None and operand.epilogue in (None, epilogue):
            yield operand.name, operand.low, operand.high


def rows_bytes(kind: str, rows: int, channels: int) -> int:
    """Bytes that rows take in the scratch memory; routing rows ignore ``channels``."""
    channels = layout.ROUTE_BYTES if kind == "routing" else channels
    return BEAT * expressions.value(BEATS_OF[STORED_AS[kind]], Scope(rows=rows, channels=channels))


def _holds(condition: bool | str, scope: Scope) -> bool:
    return bool(expressions.value(condition, scope)) if isinstance(condition, str) else condition


def regions(instruction: Instruction) -> list[Region]:
    """Every part of the scratch memory that an instruction reads, writes or works in."""
    scope, found = Scope(vars(instruction)), []
    for declared in OPCODES[Opcode(instruction.opcode)].rows:
        if not _holds(declared.when, scope):
            continue
        rows, channels = (expressions.value(text, scope) for text in (declared.rows, declared.channels))
        found.append(
            Region(
                declared.field,
                getattr(instruction, declared.field),
                rows_bytes(declared.kind, rows, channels),
                "routing" if declared.kind == "routing" else f"{channels} x {declared.kind}",
                BEAT * tiles(channels),
                _holds(declared.reads, scope),
                declared.writes,
            )
        )
    return found


def broken_rules(instruction: Instruction, limits: Mapping[str, int]) -> Iterator[str]:
    """The message of each rule that does not hold; the fields must be in their ranges."""
    scope = Scope({**limits, **vars(instruction)})
    for condition, message in OPCODES[Opcode(instruction.opcode)].rules.items():
        if not expressions.value(condition, scope):
            yield expressions.message(message, scope)


def least_limits(instruction: Instruction) -> Iterator[tuple[str, int]]:
    """(limit, its least value that allows the instruction), for each mention of a limit in the table.

    Nothing for a mention that no value satisfies: another rule is broken too.
    """
    declared = OPCODES[Opcode(instruction.opcode)]
    for name, _, high in ranges(declared, instruction.epilogue):
        if isinstance(high, str):
            yield high, getattr(instruction, name)
    for condition in declared.rules:
        for limit in expressions.names(condition) & {*LIMITS}:
            least = _least(condition, instruction, limit)
            if least <= MAX_LIMIT:
                yield limit, least


def _least(condition: str, instruction: Instruction, limit: str) -> int:
    """The least value of ``limit`` with which a rule holds."""

    def holds(value: int) -> bool:
        return _holds(condition, Scope({**vars(instruction), limit: value}))

    return bisect_left(range(MAX_LIMIT + 1), True, key=holds)


def section_of(opcode: int) -> str | None:
    """Kind of section of an opcode's weight block; None when it has no block."""
    weights = OPCODES[Opcode(opcode)].weights
    return weights.section if weights else None


def weight_beats(instruction: Instruction) -> int:
    """Beats of the weight block that an instruction's other fields imply; 0 when it has none."""
    weights = OPCODES[Opcode(instruction.opcode)].weights
    return BEATS_PER_PLANE * expressions.value(weights.planes, Scope(vars(instruction))) if weights else 0


def expert_beats(instruction: Instruction, entry: ExpertEntry) -> int:
    """Beats of an expert's block: its first linear, then its second."""
    assert ENTRY.weights is not None
    scope = Scope({**vars(instruction), **vars(entry)})
    return BEATS_PER_PLANE * expressions.value(ENTRY.weights.planes, scope)
