# SPDX-License-Identifier: Apache-2.0
"""Integer expressions as text: Python evaluates them, edge_moe.codegen turns them into C++.

The rules of the opcodes are written once in this form, as "row_start + rows <= keys". They are text rather
than a class with operators because ``and``, ``or`` and ``not`` cannot be overloaded.

The subset has names, integers from 0 up, ``+ - * // %``, comparisons of two values, ``and``, ``or``, ``not``
before a name, and calls. Operators bind alike in Python and C++, and they mean the same while nothing is
negative, which codegen proves. The parser refuses everything else. A message is an f-string without its f;
its fields are expressions of this kind.
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


def _check(tree: ast.expr, text: str) -> None:
    """ValueError unless every node belongs to the subset."""
    for node in ast.walk(tree):
        right = isinstance(node, _NODES)
        if isinstance(node, ast.Constant):
            right = type(node.value) is int and node.value >= 0
        if isinstance(node, ast.Compare):
            right = len(node.ops) == 1
        if isinstance(node, ast.Call):
            right = isinstance(node.func, ast.Name) and not node.keywords
        if isinstance(node, ast.UnaryOp):  # in C++ it binds more tightly than in Python
            right = isinstance(node.operand, ast.Name)
        if not right:
            raise ValueError(f"'{text}' is no expression of the opcodes' rules: {type(node).__name__}.")


@cache
def parse(text: str) -> ast.expr:
    """The tree of an expression; ValueError for anything outside the subset."""
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        raise ValueError(f"'{text}' is no expression.") from None
    _check(tree, text)
    return tree


@cache
def _parse_message(text: str) -> ast.expr:
    tree = ast.parse(f"f{text!r}", mode="eval").body
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue):
            _check(node.value, text)
            if node.format_spec or node.conversion != -1:
                raise ValueError(f"'{text}' says how a number is written.")
    return tree


def names(text: str) -> set[str]:
    """Every name that an expression uses, functions included."""
    return {node.id for node in ast.walk(parse(text)) if isinstance(node, ast.Name)}


@cache
def _code(text: str, message: bool) -> CodeType:
    tree = _parse_message(text) if message else parse(text)
    return compile(ast.fix_missing_locations(ast.Expression(tree)), f"<{text}>", "eval")


def value(text: str, scope: Mapping[str, Any]) -> int:
    """The value of an expression with the names of ``scope``; True or False for a condition."""
    result: int = eval(_code(text, False), {"__builtins__": {}}, scope)
    return result


def message(text: str, scope: Mapping[str, Any]) -> str:
    """A message with its fields filled in."""
    result: str = eval(_code(text, True), {"__builtins__": {}}, scope)
    return result
