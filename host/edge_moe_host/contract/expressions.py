# SPDX-License-Identifier: Apache-2.0
"""Integer expressions as text: Python evaluates them, edge_moe.codegen prints them as C++.

The rules of the opcodes are written in it once, as "row_start + rows <= keys". Text rather than a class with
operators: ``and``, ``or`` and ``not`` cannot be overloaded, and a rule reads as the sentence that it is.

The subset has names, integers from 0 up, ``+ - * // %``, comparisons of two values, ``and or not`` and calls.
Python and C++ mean the same by these while nothing is negative, which the printer proves. Everything else is
refused when it is parsed. A message is an f-string without its f, whose fields are such expressions.
"""

import ast
from collections.abc import Mapping
from functools import cache
from types import CodeType
from typing import Any

_OPERATIONS = (
    *(ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
    *(ast.And, ast.Or, ast.Not, ast.Load),
)
_NODES = (ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Name, ast.Constant, *_OPERATIONS)


def check(tree: ast.expr, text: str) -> None:
    """ValueError unless every node is of the subset."""
    for node in ast.walk(tree):
        right = isinstance(node, _NODES)
        if isinstance(node, ast.Constant):
            right = type(node.value) is int and node.value >= 0
        if isinstance(node, ast.Compare):
            right = len(node.ops) == 1
        if isinstance(node, ast.Call):
            right = isinstance(node.func, ast.Name) and not node.keywords
        if not right:
            raise ValueError(f"'{text}' is no expression of the opcodes' rules: {type(node).__name__}.")


@cache
def parse(text: str) -> ast.expr:
    """The tree of an expression; ValueError for anything outside the subset."""
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        raise ValueError(f"'{text}' is no expression.") from None
    check(tree, text)
    return tree


@cache
def _parse_message(text: str) -> ast.expr:
    tree = ast.parse(f"f{text!r}", mode="eval").body
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue):
            check(node.value, text)
            if node.format_spec or node.conversion != -1:
                raise ValueError(f"'{text}' says how a number is written.")
    return tree


def names(text: str) -> set[str]:
    """Every name that an expression uses, functions included."""
    return _names(parse(text))


def message_names(text: str) -> set[str]:
    """The same of a message."""
    return _names(_parse_message(text))


def _names(tree: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@cache
def _code(text: str, message: bool) -> CodeType:
    tree = _parse_message(text) if message else parse(text)
    return compile(ast.fix_missing_locations(ast.Expression(tree)), f"<{text}>", "eval")


def value(text: str, scope: Mapping[str, Any]) -> int:
    """What an expression is with the names of ``scope``; of a condition, True or False."""
    result: int = eval(_code(text, False), {"__builtins__": {}}, scope)
    return result


def message(text: str, scope: Mapping[str, Any]) -> str:
    """A message with its fields filled in."""
    result: str = eval(_code(text, True), {"__builtins__": {}}, scope)
    return result
