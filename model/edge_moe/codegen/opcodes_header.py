# SPDX-License-Identifier: Apache-2.0
"""The rules of the opcodes as C++: ranges, shapes, scratch rows, lengths of weight blocks. SPEC.md, 8 to 10.

Everything follows from the table in edge_moe_host.contract.opcodes. Its expressions are C++ as well, but for
a few words: fields become constants of the same names with 64 unsigned bits. Products are kept as in the
table: each is a multiplier that edge_moe.estimate.inventory lists.
"""

import ast
import inspect
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from edge_moe.codegen.design import MAP_ROWS
from edge_moe.codegen.headers import FILTERS, NAMES, render
from edge_moe_host.contract import expressions, isa, opcodes
from edge_moe_host.contract.isa import Epilogue, ExpertEntry, Instruction
from edge_moe_host.contract.opcodes import (
    DEFINITIONS,
    ENTRY,
    FUNCTIONS,
    LIMITS,
    MAX_LIMIT,
    OPCODES,
    Declaration,
)

_WORDS = {
    "and": "&&",
    "or": "||",
    "not ": "!",
    "//": "/",
    **{name: f"isa::{cpp}" for name, cpp in NAMES.items()},
    **{epilogue.name: f"static_cast<int>(Epilogue::{epilogue.name})" for epilogue in Epilogue},
    **{limit: f"uint64_t{{config::{limit}}}" for limit in LIMITS},
}


@dataclass(frozen=True, order=True)
class Bounds:
    """Least and greatest value of a part; ValueError if 64 unsigned bits do not hold both."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low < 0 or self.high >= 2**64:
            raise ValueError(f"a part may be {self.low if self.low < 0 else self.high}")

    def _with(self, other: "int | Bounds", operation: Callable[[int, int], int]) -> "Bounds":
        """Of an operation that grows or falls with either operand."""
        ends = (other.low, other.high) if isinstance(other, Bounds) else (other,)
        found = [operation(mine, its) for mine in (self.low, self.high) for its in ends]
        return Bounds(min(found), max(found))

    def __add__(self, other: "int | Bounds") -> "Bounds":
        return self._with(other, operator.add)

    def __sub__(self, other: "int | Bounds") -> "Bounds":
        return self._with(other, operator.sub)

    def __mul__(self, other: "int | Bounds") -> "Bounds":
        return self._with(other, operator.mul)

    def __floordiv__(self, other: "int | Bounds") -> "Bounds":
        return self._with(other, operator.floordiv)

    def __mod__(self, other: "int | Bounds") -> "Bounds":
        self // other  # a divisor that may be 0 is an error
        return Bounds(0, min(self.high, self._with(other, lambda _, divisor: divisor - 1).high))

    __radd__, __rmul__ = __add__, __mul__


def check_bounds(text: str, names: Mapping[str, Bounds], limit: int = 2**64) -> None:
    """ValueError if a part of an expression may be negative or exceed 64 bits, if a divisor may be 0, or if
    the whole may reach ``limit``."""
    tree = expressions.parse(text)
    compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    parts = [side for node in compared for side in (node.left, *node.comparators)] or [tree]
    try:
        for part in parts:
            value = expressions.value(ast.unparse(part), opcodes.Scope(names))
            if isinstance(value, Bounds) and value.high >= limit:
                raise ValueError(f"it may be {value.high}")
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"'{text}' cannot be computed in C++: {error}.") from None


def cpp(text: str) -> str:
    """An expression as C++: operators bind as in Python."""
    return re.sub(r"not |\w+|//", lambda word: _WORDS.get(word[0], word[0]), text)


# A definition that divides has a meaning only where its divisor is not 0: it is written where it is used.
_DIVIDING = {name for name, text in DEFINITIONS.items() if "//" in text}
_WORDS |= {name: f"({cpp(DEFINITIONS[name])})" for name in _DIVIDING}


def _term(text: str) -> str:
    return f"({text})" if "||" in text else text


def _constants(texts: Iterable[str]) -> list[str]:
    """Definitions of the fields and terms that expressions use."""
    used = {name for text in texts for name in expressions.names(text)}
    used |= {name for term in used & DEFINITIONS.keys() for name in expressions.names(DEFINITIONS[term])}
    places = {field.name: f"entry.{field.name}" for field in isa.fields(ExpertEntry)}
    places |= {field.name: f"i.{field.name}" for field in isa.fields(Instruction)}
    lines = [f"const uint64_t {name} = {place};" for name, place in places.items() if name in used]
    terms = [name for name in DEFINITIONS if name in used - _DIVIDING]
    return lines + [f"const auto {name} = {cpp(DEFINITIONS[name])};" for name in terms]


def _ranges(declared: Declaration) -> Iterator[str]:
    """Conditions of the ranges, without those that a field's bits always meet."""
    fields = {field.name: field for field in isa.fields(ExpertEntry if declared is ENTRY else Instruction)}
    for operand in declared.operands:
        name, low, high = operand.name, operand.low, operand.high
        terms = [] if low is None or low <= fields[name].minimum else [f"i.{name} >= {low}"]
        if isinstance(high, str):
            terms.append(f"i.{name} <= config::{high}")
        elif high is not None and high < fields[name].maximum:
            terms.append(f"i.{name} <= {high}")
        held = " && ".join(terms)
        if held and operand.epilogue is not None:
            held = f"(i.epilogue != {cpp(operand.epilogue.name)} || ({held}))"
        yield from [held] if held else []


FILTERS |= {"cpp": cpp, "term": _term, "constants": _constants, "ranges": _ranges}


def _bounds(declared: Declaration) -> dict[str, Bounds]:
    """Of limits and unsigned fields: those that do not depend on the accelerator."""
    found = dict.fromkeys(LIMITS, Bounds(1, MAX_LIMIT))
    for field in (*isa.fields(ExpertEntry), *isa.fields(Instruction)):
        if not field.signed:
            found[field.name] = Bounds(0, field.maximum)
    for name, low, high in opcodes.ranges(declared):
        if name in found:
            most = found[name].high
            found[name] = Bounds(low, min(most, MAX_LIMIT if isinstance(high, str) else high))
    return found


def opcodes_header() -> str:
    """Text of edge_moe_opcodes.hpp; ValueError if C++ could not hold a part of an expression."""
    for declared in (*OPCODES.values(), ENTRY):
        bounds = _bounds(declared)
        for text in (*declared.rules, *declared.sizes):
            check_bounds(text, bounds)
        if declared.weights:
            check_bounds(declared.weights.planes, bounds, 2**32)
    for beats in opcodes.BEATS_OF.values():
        check_bounds(beats, {"rows": Bounds(0, MAP_ROWS), "channels": Bounds(0, 2**16 - 1)}, 2**32)
    return render(
        "opcodes.hpp",
        functions=[_function(function) for function in FUNCTIONS.values()],
        opcodes=OPCODES,
        entry=ENTRY,
        max_regions=max(len({rows.field for rows in declared.rows}) for declared in OPCODES.values()),
        map_rows=MAP_ROWS,
        beats_of=opcodes.BEATS_OF,
        stored_as=opcodes.STORED_AS,
    )


def _function(python: Callable[..., int]) -> dict[str, object]:
    """A function that is one expression of its parameters; executors use the shapes of one with ints too."""
    parameters = list(inspect.signature(python).parameters)
    return {
        "name": python.__name__,
        "doc": inspect.getdoc(python),
        "parameters": parameters,
        "types": ["uint64_t", "int"] if len(parameters) == 1 else ["uint64_t"],
        "result": ast.unparse(expressions.parse(inspect.getsource(python).rpartition("return ")[2].strip())),
    }
