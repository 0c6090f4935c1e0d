# SPDX-License-Identifier: Apache-2.0
"""Messages of the sources, as templates: … is a part that the program fills in.

A message is the text of an error, a printed or logged text, or a script's last echo before it fails.
"""

import ast
import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from edge_moe.testing.checkout import ROOT

WILD = "…"
# Calls whose argument a user reads, apart from those that make an error.
SAYING = {"print", "exit", "critical", "error", "exception", "info", "warning"}
_MANY = 64  # alternatives of one template

# A variable of make or a shell in a string.
_VARIABLE = re.compile(
    r"\$\([^()]*\)|\$\{[^{}]*\}|\$\$?[A-Za-z_]\w*(?:::\w+)*|\$[1-9@<]|\[[\w ]*\$[^\[\]]*\]"
)
_ECHO = re.compile(r'\b(?:echo|fail|puts stderr) "((?:[^"\\]|\\.)*)"')
_MAKE_ERROR = re.compile(r"\$\(error ([^()]*(?:\([^()]*\)[^()]*)*)\)")
_MAKE_TEXT = re.compile(r"^([A-Z_]+) ?:?= ?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Template:
    """A message and its file."""

    text: str
    path: str


# Python


class PythonMessages:
    """Messages of a Python source. ``returned``: texts that functions return, in any source, by name."""

    def __init__(self, source: str, returned: Mapping[str, list[str]] = MappingProxyType({})) -> None:
        self.tree, self.returned = ast.parse(source), returned
        self.functions = [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)]
        self.names: dict[str, list[ast.expr]] = {}  # values of constants and variables
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self.names.setdefault(target.id, []).append(node.value)

    def __iter__(self) -> Iterator[str]:
        handed = self._handed()
        raised = [node.exc for node in ast.walk(self.tree) if isinstance(node, ast.Raise)]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                name = _name(node.func)
                for place, argument in enumerate(node.args):
                    if _says(name) or node in raised or (name, place) in handed:
                        for text in self.texts(argument):
                            yield re.sub(r"%[.\d]*[sdf]", WILD, text)  # of a logger

    def _handed(self) -> set[tuple[str, int]]:
        """Functions of this source that print one of their arguments, and its index."""
        found = set()
        for function in self.functions:
            places = {argument.arg: place for place, argument in enumerate(function.args.args)}
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and _says(_name(node.func)):
                    said = [places.get(getattr(argument, "id", "")) for argument in node.args]
                    found |= {(function.name, place) for place in said if place is not None}
        return found

    def returns(self) -> Iterator[tuple[str, str]]:
        """Name and text of each function that returns an f-string."""
        for function in self.functions:
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and isinstance(node.value, ast.JoinedStr):
                    yield from ((function.name, text) for text in self.texts(node.value))

    def texts(self, node: ast.expr, depth: int = 0) -> list[str]:
        """Possible templates of an expression; [] if it is no text."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr():
                return _products(self._part(value, depth) for value in node.values)
            case ast.BinOp(op=ast.Add()):
                sides = self.texts(node.left, depth), self.texts(node.right, depth)
                return _products(side or [WILD] for side in sides) if any(sides) else []
            case ast.IfExp():
                return self.texts(node.body, depth) + self.texts(node.orelse, depth)
            case ast.Call(func=ast.Attribute(attr="format", value=value)):
                return [re.sub(r"\{\w*\}", WILD, text) for text in self.texts(value, depth)]
            case ast.Name() if depth < 3:
                values = self.names.get(node.id, [])
                return [text for value in values for text in self.texts(value, depth + 1)]
        return []

    def _part(self, node: ast.expr, depth: int) -> list[str]:
        """Possible texts of a part of an f-string."""
        value = node.value if isinstance(node, ast.FormattedValue) else node
        if isinstance(value, ast.Call):
            return [WILD, *self.returned.get(_name(value.func), [])]
        if isinstance(value, ast.IfExp | ast.Constant) or _name(value).isupper():
            return self.texts(value, depth) or [WILD]
        return [WILD]


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _says(name: str) -> bool:
    return name in SAYING or name.endswith(("Error", "Interrupted"))


def _products(parts: Iterable[list[str]]) -> list[str]:
    return ["".join(choice) for choice in itertools.islice(itertools.product(*parts), _MANY)]


# make, Tcl and shells


def script_messages(source: str) -> Iterator[str]:
    """Messages of a makefile, a Tcl or a shell script."""
    joined = re.sub(r"\s*\\\n\s*", " ", source)
    texts = dict(_MAKE_TEXT.findall(joined))
    for found in (*_ECHO.findall(joined), *_MAKE_ERROR.findall(joined)):
        named = re.fullmatch(r"\$\((\w+)\)", found)
        text = texts.get(named[1], found) if named else found
        yield _VARIABLE.sub(WILD, text)


@cache
def messages() -> tuple[Template, ...]:
    """Every message of the project."""
    folders = ("model", "host", "board", "rtl", "sim")
    python = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    scripts = [
        ROOT / "Makefile",
        ROOT / "environment.sh",
        *ROOT.glob("*/Makefile"),
        *ROOT.glob("*/*/Makefile"),
        *ROOT.glob("hls/*.mk"),
        *ROOT.glob("board/*/vivado/*.tcl"),
        *ROOT.glob("board/*/*.sh"),
    ]
    sources = {path: path.read_text(encoding="utf-8") for path in (*python, *scripts)}
    returned: dict[str, list[str]] = {}
    for path in python:
        for name, text in PythonMessages(sources[path]).returns():
            returned.setdefault(name, []).append(text)
    found: list[tuple[Path, Iterable[str]]] = []
    found += [(path, PythonMessages(sources[path], returned)) for path in python]
    found += [(path, script_messages(sources[path])) for path in scripts]
    return tuple(
        Template(text, path.relative_to(ROOT).as_posix())
        for path, texts in found
        for text in dict.fromkeys(texts)
    )


# Quotations


def says(template: str, message: str) -> bool:
    """Whether a quoted message equals this template word for word. A … in the message matches anything, and a
    full stop at the end does not count."""
    pattern = ".*".join(re.escape(part) for part in message.rstrip(".").split(WILD))
    return re.fullmatch(pattern, template.rstrip("."), re.DOTALL) is not None


def closest(message: str, templates: Iterable[Template]) -> Template:
    """The template that shares most of a message, in pieces of several characters."""
    matcher = difflib.SequenceMatcher(b=message, autojunk=False)

    def common(known: Template) -> int:
        matcher.set_seq1(known.text)
        return sum(block.size for block in matcher.get_matching_blocks() if block.size > 3)

    return max(templates, key=common)
