# SPDX-License-Identifier: Apache-2.0
"""Expressions of the opcodes' table (edge_moe_host.contract.expressions) as C++ that cannot overflow.

Bounds of every part follow from the ranges of fields, constants and limits. A part that fits 31 bits is an
``int``, any other is computed in 64 unsigned bits. A part that could be negative or exceed these, and a
divisor that could be 0, are refused.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from edge_moe_host.contract import expressions

_INT_MAXIMUM, _WIDE_MAXIMUM = 2**31 - 1, 2**64 - 1
# C++ text, and how strongly it binds
_OPERATORS: dict[type[ast.AST], tuple[str, int]] = {
    ast.Or: ("||", 1),
    ast.And: ("&&", 2),
    ast.Eq: ("==", 3),
    ast.NotEq: ("!=", 3),
    ast.Lt: ("<", 3),
    ast.LtE: ("<=", 3),
    ast.Gt: (">", 3),
    ast.GtE: (">=", 3),
    ast.Add: ("+", 4),
    ast.Sub: ("-", 4),
    ast.Mult: ("*", 5),
    ast.FloorDiv: ("/", 5),
    ast.Mod: ("%", 5),
}
_ATOM = 6


@dataclass(frozen=True)
class Cpp:
    """C++ text, its bounds, how strongly its outermost operator binds, and whether it has 64 bits."""

    text: str
    low: int
    high: int
    binds: int = _ATOM
    wide: bool = False

    def within(self, binds: int) -> str:
        """The text as the operand of an operator of precedence ``binds``."""
        return self.text if self.binds >= binds else f"({self.text})"

    def widened(self) -> "Cpp":
        """With 64 bits."""
        if self.wide or self.text.isdecimal():
            return self
        return replace(self, text=f"static_cast<uint64_t>({self.text})", binds=_ATOM, wide=True)

    def narrowed(self, high: int) -> "Cpp":
        """As an int, if a rule bounds it by ``high``, which is tighter than its parts show."""
        return Cpp(f"static_cast<int>({self.text})", min(self.low, high), high) if self.wide else self


class Printer:
    """Prints expressions of these names and of functions, each of which is a single expression."""

    def __init__(self, names: Mapping[str, Cpp], functions: Mapping[str, Callable[..., int]]) -> None:
        self._names, self._functions = names, functions

    def expression(self, text: str) -> Cpp:
        """An expression; ValueError for an unknown name, or when no type holds a part's bounds."""
        return self._part(expressions.parse(text), text)

    def function(self, python: Callable[..., int]) -> list[str]:
        """A function of ints, inlined. Bounds are checked at each call."""
        tree = _definition(python)
        own = {name: Cpp(name, 0, 0) for name in _parameters(tree)}
        body = Printer({**self._names, **own}, self._functions)._part(_returned(tree), tree.name)
        arguments = ", ".join(f"int {name}" for name in own)
        return [
            *(f"// {line}" for line in (inspect.getdoc(python) or "").splitlines()),
            f"inline int {tree.name}({arguments}) {{",
            "  HLS_INLINE",
            f"  return {body.text};",
            "}",
        ]

    def _part(self, node: ast.expr, text: str) -> Cpp:
        match node:
            case ast.Constant(value=int(value)):
                return Cpp(str(value), value, value)
            case ast.Name(id=name):
                if name not in self._names:
                    raise ValueError(f"'{text}' has the name '{name}', which C++ does not have.")
                return self._names[name]
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._call(name, [self._part(argument, text) for argument in arguments], text)
            case ast.BinOp(left=left, op=op, right=right):
                return _arithmetic(op, self._part(left, text), self._part(right, text), text)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return _joined(op, *_same_width(self._part(left, text), self._part(right, text)), 0, 1)
            case ast.BoolOp(op=op, values=values):
                result, *others = (self._part(value, text) for value in values)
                for other in others:
                    result = _joined(op, result, other, 0, 1)
                return result
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Cpp(f"!{self._part(operand, text).within(_ATOM)}", 0, 1)
        raise ValueError(f"'{text}' has {type(node).__name__}, which has no form in C++.")

    def _call(self, name: str, arguments: list[Cpp], text: str) -> Cpp:
        """Bounds are those of the function's own expression for these arguments."""
        if name not in self._functions:
            raise ValueError(f"'{text}' calls '{name}', which C++ does not have.")
        tree = _definition(self._functions[name])
        own = _parameters(tree)
        if len(own) != len(arguments) or any(argument.wide for argument in arguments):
            raise ValueError(f"'{text}' must call '{name}' with {len(own)} arguments that are ints.")
        scope = {**self._names, **dict(zip(own, arguments, strict=True))}
        inner = Printer(scope, self._functions)._part(_returned(tree), f"{name} in {text}")
        if inner.wide:
            raise ValueError(f"'{name}' in '{text}' may be {inner.high}, which no int holds.")
        return Cpp(f"isa::{name}({', '.join(a.text for a in arguments)})", inner.low, inner.high)


def _definition(python: Callable[..., int]) -> ast.FunctionDef:
    tree = ast.parse(textwrap.dedent(inspect.getsource(python))).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise ValueError(f"{python} is not a function of its own.")
    return tree


def _parameters(tree: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in tree.args.args]


def _returned(tree: ast.FunctionDef) -> ast.expr:
    """The expression that a function returns, its only statement besides its docstring."""
    last = tree.body[-1]
    if len(tree.body) > 2 or not isinstance(last, ast.Return) or last.value is None:
        raise ValueError(f"{tree.name} is not one expression of its arguments.")
    expressions.check(last.value, tree.name)
    return last.value


def _arithmetic(op: ast.operator, a: Cpp, b: Cpp, text: str) -> Cpp:
    low, high = _bounds(op, a, b, text)
    if low < 0 or high > _WIDE_MAXIMUM:
        raise ValueError(f"a part of '{text}' may be {low if low < 0 else high}, which no type of it holds.")
    a, b = _same_width(a.widened() if high > _INT_MAXIMUM else a, b)
    return replace(_joined(op, a, b, low, high), wide=a.wide or b.wide)


def _bounds(op: ast.operator, a: Cpp, b: Cpp, text: str) -> tuple[int, int]:
    match op:
        case ast.Add():
            return a.low + b.low, a.high + b.high
        case ast.Sub():
            return a.low - b.high, a.high - b.low
        case ast.Mult():
            return a.low * b.low, a.high * b.high
    if b.low < 1:
        raise ValueError(f"'{text}' divides by '{b.text}', which may be 0.")
    return (
        (a.low // b.high, a.high // b.low) if isinstance(op, ast.FloorDiv) else (0, min(a.high, b.high - 1))
    )


def _same_width(a: Cpp, b: Cpp) -> tuple[Cpp, Cpp]:
    return (a.widened(), b.widened()) if a.wide or b.wide else (a, b)


def _joined(op: ast.AST, a: Cpp, b: Cpp, low: int, high: int) -> Cpp:
    sign, binds = _OPERATORS[type(op)]
    left = right = binds + 1
    if isinstance(op, ast.Or):
        left = right = binds + 2  # parentheses around && in ||
    if not isinstance(op, ast.cmpop) and a.binds == binds:
        left = binds
    return Cpp(f"{a.within(left)} {sign} {b.within(right)}", low, high, binds)
