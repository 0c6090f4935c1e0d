# SPDX-License-Identifier: Apache-2.0
"""The project's Markdown: its files, their links, anchors, code and tables, as a code host reads them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from edge_moe.testing.checkout import ROOT

FOLDERS = ("docs", "hls", "rtl", "sim", "board", "host", "model", "tests")
FILES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))]
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
COMMENT = re.compile(r"<!-- (.*?) -->\s*\Z")
MOST_COLUMNS = 30

_PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Table:
    """Cells as written. ``lines``: the rows' lines in the file."""

    heading: list[str]
    rows: list[list[str]]
    lines: list[str]

    def surplus(self) -> Iterator[str]:
        """Cells beyond the heading's: a code host does not show them."""
        wide = "|" + " |" * MOST_COLUMNS + "\n|" + "-|" * MOST_COLUMNS + "\n"
        for line in self.lines:
            (row,) = _tables(_PARSER.parse(wide + line), [])[0].rows
            yield from filter(None, row[len(self.heading) :])


def _tables(tokens: list[Token], lines: list[str]) -> list[Table]:
    """Tables among a file's tokens. ``lines``: the file's lines."""
    found: list[Table] = []
    rows: list[list[str]] = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "table_open":
            rows, written = [], []
        elif token.type == "tr_open":
            rows.append([])
            if token.map and rows[1:]:
                written += lines[token.map[0] : token.map[1]]
        elif before is not None and before.type in ("th_open", "td_open"):
            rows[-1].append(token.content)
        elif token.type == "table_close":
            found.append(Table(rows[0], rows[1:], written))
    return found


@dataclass(frozen=True)
class Document:
    """One file."""

    path: Path
    root: Path = ROOT

    @property
    def name(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tokens(self) -> list[Token]:
        """Blocks: headings, paragraphs, code, tables; their text is in the children of ``inline`` tokens."""
        return _PARSER.parse(self.text)

    @cached_property
    def inline(self) -> list[Token]:
        """The parts of paragraphs, headings and cells: texts, links, pictures, code."""
        return [child for token in self.tokens for child in token.children or ()]

    @property
    def spans(self) -> list[str]:
        """Inline code."""
        return [token.content for token in self.inline if token.type == "code_inline"]

    @property
    def steps(self) -> Iterator[tuple[str, str, str]]:
        """Language, text and mark of each code block; marks: tests/docs/test_commands_run.py."""
        mark = ""
        for token in self.tokens:
            if token.type == "fence":
                yield token.info, token.content, mark
            comment = COMMENT.search(token.content) if token.type == "html_block" else None
            mark = comment[1] if comment else ""

    @property
    def blocks(self) -> Iterator[tuple[str, str, bool]]:
        """Language, text and whether it is marked to run, of each code block."""
        return ((language, text, mark.split()[:1] == ["run"]) for language, text, mark in self.steps)

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures that are in the project."""
        targets = [
            str(token.attrs["href" if token.type == "link_open" else "src"])
            for token in self.inline
            if token.type in ("link_open", "image")
        ]
        return [target for target in dict.fromkeys(targets) if not re.match(r"[a-z]+:", target)]

    @cached_property
    def anchors(self) -> set[str]:
        """By GitHub's rule: lower case, no punctuation, hyphens for spaces; repeated ones are numbered."""
        seen: dict[str, int] = {}
        for before, token in zip(self.tokens, self.tokens[1:], strict=False):
            if before.type == "heading_open":
                text = "".join(child.content for child in token.children or ())
                anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
                seen[anchor] = seen.get(anchor, -1) + 1
                if seen[anchor]:
                    seen[f"{anchor}-{seen[anchor]}"] = 0
        return set(seen)

    @cached_property
    def tables(self) -> list[Table]:
        return _tables(self.tokens, self.text.splitlines())

    def broken_links(self) -> Iterator[str]:
        """Links that lead to no file or no heading."""
        for target in self.links:
            place, _, anchor = unquote(target).partition("#")
            path = (self.path.parent / place).resolve() if place else self.path
            if not path.exists() or not path.is_relative_to(self.root):
                yield f"{target}: no such file"
            elif anchor and (path.suffix != ".md" or anchor not in Document(path).anchors):
                yield f"{target}: no such heading"


DOCUMENTS = {document.name: document for document in map(Document, FILES)}
