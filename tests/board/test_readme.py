# SPDX-License-Identifier: Apache-2.0
"""The README of the board: its messages are the code's, its options and files are there."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import demo
import pytest
from board_fixtures import ROOT

FOLDER = ROOT / "board" / "zcu104"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
MESSAGES = re.findall(
    r"^\| `([^`]*)` \| [^|]+ \|$", TEXT[TEXT.index("## When something is wrong") :], re.MULTILINE
)
HOLE = "…"


def sentences(path: Path) -> Iterator[str]:
    """Strings of a source, with a hole for what is filled in."""
    if path.suffix == ".sh":
        yield from re.sub(r"\$\{?\w+\}?", HOLE, path.read_text()).splitlines()
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def sources() -> tuple[str, ...]:
    paths = [
        *(ROOT / "host" / "edge_moe_host").rglob("*.py"),
        *FOLDER.glob("demo*.py"),
        FOLDER / "install.sh",
    ]
    return tuple(sentence for path in paths for sentence in sentences(path))


def occurs(message: str) -> bool:
    """Whether a source has these words around its holes, which may hold several of the message's."""
    pattern = re.compile(".*".join(re.escape(part) for part in message.rstrip(".").split(HOLE)))
    return any(pattern.search(sentence) for sentence in sources())


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_the_code_s(message: str) -> None:
    assert len(message.replace(HOLE, "")) >= 15
    assert occurs(message)


def test_there_are_messages_and_others_do_not_occur() -> None:
    assert len(MESSAGES) == 22
    assert not occurs("the overlay is missing: it was eaten by the cat")
    assert not occurs("the registers of '…' are within reach")


def test_options_and_files() -> None:
    known = {option for option in demo.parser()._option_string_actions if option.startswith("--")}
    commands = re.findall(r"demo\.py([^#`\n]*)", TEXT)
    asked = {option for command in commands for option in re.findall(r"--\w+", command)}
    assert asked == known - {"--help", "--out"}
    for name in re.findall(r"(?<![\w/])([\w]+\.(?:py|sh|ipynb|png))\b", TEXT):
        assert name in ("my_program.py", "street_depth.png", "street_semseg.png") or (FOLDER / name).is_file()
