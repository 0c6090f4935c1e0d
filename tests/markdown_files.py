# SPDX-License-Identifier: Apache-2.0
"""The project's Markdown: its files, their links, anchors, code and tables, as a forge reads them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "hls", "rtl", "sim", "board", "host", "model", "tests")
FILES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))]
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[(?:[^\[\]`]|`[^`]*`)*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)#*$", re.MULTILINE)
RUN_MARK = "<!-- run -->"


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
    def prose(self) -> str:
        """Without code blocks and comments."""
        return _COMMENT.sub("", _FENCE.sub("", self.text))

    @property
    def spans(self) -> list[str]:
        """Inline code."""
        return _SPAN.findall(self.prose)

    @property
    def blocks(self) -> Iterator[tuple[str, str, bool]]:
        """Language, text and whether it is marked to run, of each code block."""
        for found in _FENCE.finditer(self.text):
            marked = self.text[: found.start()].rstrip().endswith(RUN_MARK)
            yield found[1], found[2], marked

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures that lie in the project."""
        targets = _LINK.findall(_SPAN.sub("``", self.prose))
        return [target for target in dict.fromkeys(targets) if not re.match(r"[a-z]+:", target)]

    @cached_property
    def anchors(self) -> set[str]:
        """By GitHub's rule: small letters, no punctuation, hyphens for spaces; repeated ones are numbered."""
        seen: dict[str, int] = {}
        for heading in _HEADING.findall(self.prose):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip())
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            seen[anchor] = seen.get(anchor, -1) + 1
            if seen[anchor]:
                seen[f"{anchor}-{seen[anchor]}"] = 0
        return set(seen)

    @property
    def tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Heading cells and rows of each table."""
        found: list[tuple[list[str], list[list[str]]]] = []
        rows: list[list[str]] = []
        for line in [*self.prose.splitlines(), ""]:
            if line.startswith("|"):
                rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            elif rows:
                found.append((rows[0], rows[2:]))
                rows = []
        return found

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
