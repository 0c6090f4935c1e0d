# SPDX-License-Identifier: Apache-2.0
"""The accelerator's C++ as an HLS tool sees it: functions, arrays, streams, products, pragmas.

The top is preprocessed with __SYNTHESIS__ defined, so macros and files may be renamed freely. The result is
in the project's own plain style: one declaration per line, pragmas on lines of their own.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

from edge_moe.testing.checkout import HLS, TESTS

STUBS = TESTS / "hls" / "stubs"
_MARKER = re.compile(r'^# \d+ "([^"]+)"')
_ARRAY = re.compile(r"^\s*(?:const )?(\w[\w:<>, ]*?) (\w+)((?:\[[^\]]*\])+)(?: = [^;]*)?;", re.MULTILINE)
_VARIABLE = re.compile(r"^\s*(?:const )?(\w+) (\w+)(?:\(\"\w+\"\))?;", re.MULTILINE)
_PRAGMA = re.compile(r"^#pragma HLS (.*)$", re.MULTILINE)
_TOKEN = re.compile(
    r"static_cast<[^<>]*(?:<[^<>]*>)?>|\w+(?:::\w+)*|->|<<=?|>>=?|[-+*/%&|^=!<>]=|&&|\|\||\+\+|--|\S"
)


@dataclass(frozen=True)
class Pragma:
    """``#pragma HLS kind key = value ...``; a key without a value has the value ''."""

    kind: str
    options: dict[str, str]


@dataclass(frozen=True)
class Array:
    """A local variable that is an array: its element's type, and its dimensions."""

    function: str
    name: str
    type: str  # of an element, or a typedef of an array
    dimensions: str  # as written: [A][B]


@dataclass(frozen=True)
class Function:
    """One definition; overloads are several of one name."""

    name: str
    body: str

    @cached_property
    def pragmas(self) -> list[Pragma]:
        return [_pragma(text) for text in _PRAGMA.findall(self.body)]

    @property
    def inlined(self) -> bool:
        return any(p.kind == "inline" and "off" not in p.options for p in self.pragmas)


@dataclass(frozen=True)
class Source:
    """Preprocessed text: all of it, and the project's own part."""

    whole: str
    text: str
    functions: dict[str, list[Function]] = field(default_factory=dict)


def _pragma(text: str) -> Pragma:
    words = re.sub(r"\s*=\s*", "=", text).split()
    pairs = (word.partition("=") for word in words[1:])
    return Pragma(words[0], {key: value for key, _, value in pairs})


def missing_tool() -> str:
    """Why the C++ cannot be read here; empty if it can."""
    if not shutil.which("g++"):
        return "g++ is not installed"
    return "" if find_spec("hls4ml") else "ap_int.h comes with hls4ml, which is not installed"


def ap_types() -> Path:
    """Folder of ap_int.h."""
    spec = find_spec("hls4ml")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "templates" / "vivado" / "ap_types"


def read_source(generated: Path, flags: list[str], hls: Path = HLS) -> Source:
    """The top of ``hls`` with an accelerator's generated headers."""
    command = ["g++", "-E", "-std=c++14", "-D__SYNTHESIS__", *flags, f"-I{hls / 'include'}", f"-I{generated}"]
    command += [f"-I{STUBS}", "-include", "probe.hpp", "-isystem", str(ap_types())]
    command += [str(hls / "src" / "edge_moe.cpp")]
    whole = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    kept, own = [], False
    for line in whole.splitlines():
        marker = _MARKER.match(line)
        if marker:
            own = marker[1].startswith((str(hls), str(generated)))
        elif own:
            kept.append(line)
    text = "\n".join(kept)
    return Source(whole, text, _functions(text))


def _functions(text: str) -> dict[str, list[Function]]:
    """Definitions at namespace level: a declarator with parentheses, then braces."""
    found: dict[str, list[Function]] = {}
    start = position = 0
    while match := re.compile(r"[{};]").search(text, position):
        head = text[start : match.start()]
        position = match.end()
        if match[0] == "{" and not re.search(r"(namespace[\s\w]*|extern \"C\")\s*$", head):
            end = _closing(text, match.start())
            name = re.search(r"(\w+)\s*\(", head)
            if name and not re.search(r"\b(struct|enum|class)\b|=", head.partition("(")[0]):
                found.setdefault(name[1], []).append(Function(name[1], text[match.end() : end]))
            position = end + 1
        start = position
    return found


def _closing(text: str, start: int) -> int:
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    raise AssertionError("a brace is not closed")


def callees(source: Source, function: Function) -> list[str]:
    """Functions called, one entry for each call in the text."""
    names = re.findall(r"(\w+)(?:<[^<>;()]*>)?\(", function.body)
    return [name for name in names if name in source.functions]


def reachable(source: Source, top: str) -> list[Function]:
    """All functions that the top needs, the top first."""
    seen, waiting = [top], [top]
    while waiting:
        for function in source.functions[waiting.pop()]:
            for name in callees(source, function):
                if name not in seen:
                    seen.append(name)
                    waiting.append(name)
    return [function for name in seen for function in source.functions[name]]


def array_types(source: Source) -> set[str]:
    """Typedefs of arrays."""
    return set(re.findall(r"^typedef [\w:]+ (\w+)\[.*\];", source.text, re.MULTILINE))


def arrays(source: Source, function: Function) -> Iterator[Array]:
    """Arrays that a function declares."""
    body = _PRAGMA.sub("", function.body)
    for kind, name, dimensions in _ARRAY.findall(body):
        if kind not in ("return", "delete"):
            yield Array(function.name, name, kind.strip(), dimensions)
    known = array_types(source)
    for kind, name in _VARIABLE.findall(body):
        if kind in known:
            yield Array(function.name, name, kind, "")


def structures_with_arrays(source: Source) -> dict[str, str]:
    """Structures that have an array among their members: name to body."""
    found = re.findall(r"^struct (\w+) \{\n(.*?)^\};", source.text, re.MULTILINE | re.DOTALL)
    return {name: body for name, body in found if _ARRAY.search(body)}


def streams(function: Function) -> list[tuple[str, str]]:
    """(type, name) of each channel that a function opens."""
    return re.findall(r"^\s*(\w+) (\w+)\(\"\w+\"\);", function.body, re.MULTILINE)


def products(function: Function) -> list[str]:
    """Products of two values that are not constants, as written but for spaces."""
    tokens = _TOKEN.findall(_PRAGMA.sub("", function.body))
    found = []
    for at, token in enumerate(tokens):
        if token != "*" or not _ends_value(tokens, at - 1):
            continue
        left, right = _left(tokens, at), _right(tokens, at + 1)
        if not _constant(tokens[left:at]) and not _constant(tokens[at + 1 : right]):
            found.append("".join(tokens[left:right]).replace("*", " * "))
    return found


def _ends_value(tokens: list[str], at: int) -> bool:
    return bool(re.fullmatch(r"\w+(::\w+)*|[)\]]", tokens[at])) and tokens[at] not in ("return", "case")


def _left(tokens: list[str], at: int) -> int:
    """The begin of the product that ends before ``at``."""
    place = at - 1
    while True:
        if tokens[place] in ")]":
            depth = 0
            while True:
                depth += {")": 1, "]": 1, "(": -1, "[": -1}.get(tokens[place], 0)
                if depth == 0:
                    break
                place -= 1
            before = tokens[place - 1]
            if _ends_value(tokens, place - 1) or before.startswith("static_cast"):
                place -= 1
                continue
        if tokens[place - 1] in (".", "->", "*"):
            place -= 2
            continue
        return place


def _right(tokens: list[str], at: int) -> int:
    """The end of the factor that begins at ``at``."""
    place = at
    while True:
        if tokens[place] in "([":
            depth = 0
            while True:
                depth += {")": -1, "]": -1, "(": 1, "[": 1}.get(tokens[place], 0)
                if depth == 0:
                    break
                place += 1
        following = tokens[place + 1]
        if following in (".", "->"):
            place += 2
        elif following in ("(", "["):
            place += 1
        else:
            return place + 1


def _constant(tokens: list[str]) -> bool:
    names = [t for t in tokens if re.match(r"[A-Za-z_]", t) and not t.startswith("static_cast")]
    return all(re.fullmatch(r"(\w+::)*[A-Z][A-Z0-9_]*|(\w+::)?(config|isa|tables)::\w+", t) for t in names)


def unrolled(function: Function) -> list[Function]:
    """Bodies of unrolled loops, whose iterations exist in parallel."""
    found = []
    for match in re.finditer(r"^#pragma HLS unroll$", function.body, re.MULTILINE):
        depth, end = 1, match.end()
        for brace in re.compile(r"[{}]").finditer(function.body, match.end()):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                end = brace.start()
                break
        found.append(Function(function.name, function.body[match.end() : end]))
    return found


def instances(source: Source, top: str) -> dict[str, int]:
    """Function name -> its number of hardware copies: one for each call if it is inlined, else one for all
    calls in the same function. Lanes of unrolled loops do not count."""
    callers: dict[str, list[tuple[str, int]]] = {}
    for function in reachable(source, top):
        calls = callees(source, function)
        for name in set(calls) - {function.name}:
            one = not any(f.inlined for f in source.functions[name])
            callers.setdefault(name, []).append((function.name, 1 if one else calls.count(name)))

    @cache
    def count(name: str) -> int:
        return 1 if name == top else sum(times * count(caller) for caller, times in callers[name])

    return {function.name: count(function.name) for function in reachable(source, top)}
