# SPDX-License-Identifier: Apache-2.0
"""What mkdocs needs to read this repository: pages from outside docs/, links between them, docstrings.

The pages are written for readers of the files themselves, on a forge or in an editor. This is a hook of
mkdocs and an extension of griffe, which reads the Python sources without importing them.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# files of the repository that are pages too, and those pages
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "hls/README.md": "hls.md",
    "rtl/README.md": "rtl.md",
    "board/zcu104/README.md": "zcu104.md",
}

_LINK = re.compile(r"(!?)\[((?:[^\[\]`]|`[^`]*`)*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^(```|~~~)")
_ITEM = re.compile(r"^(?:[-*]|\d+\.) ")
_ROLE = re.compile(r":(?:class|data|func|meth|mod):`([\w.]+)`")
_RST_RULE = re.compile(r"^=+( +=+)+$")
_COMMENT = re.compile(r"  # (\S.*)$")


# Pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose files are outside docs/."""
    for source, page in OUTSIDE.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as the site has them, and lists as mkdocs' Markdown wants them."""
    sources = {site: source for source, site in OUTSIDE.items()}
    uri = page.file.src_uri
    folder = (ROOT / sources.get(uri, f"docs/{uri}")).parent

    def link(found: re.Match[str]) -> str:
        mark, text, target = found.groups()
        parts = urlsplit(target)
        if parts.scheme or not parts.path:
            return found[0]
        file = (folder / parts.path).resolve()
        there = _site_path(file)
        if there is None:  # of the repository alone
            return text if file.exists() else found[0]
        place = os.path.relpath(there, Path(uri).parent)
        return f"{mark}[{text}]({place}{'#' + parts.fragment if parts.fragment else ''})"

    return as_mkdocs_lists(_outside_fences(markdown, lambda line: _LINK.sub(link, line)))


def _site_path(file: Path) -> str | None:
    """Where the site has a file of the repository, or None."""
    if not file.is_relative_to(ROOT):
        return None
    source = file.relative_to(ROOT).as_posix()
    if source in OUTSIDE:
        return OUTSIDE[source]
    return file.relative_to(DOCS).as_posix() if file.is_relative_to(DOCS) and file.is_file() else None


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """``change`` every line outside code blocks."""
    lines, fenced = [], False
    for line in markdown.split("\n"):
        fenced ^= bool(_FENCE.match(line))
        lines.append(line if fenced else change(line))
    return "\n".join(lines)


def as_mkdocs_lists(markdown: str) -> str:
    """A blank line before each list that follows a paragraph, and four spaces before what an item holds:
    without them mkdocs' Markdown sees neither."""
    lines: list[str] = []
    fenced = in_list = False
    for line in markdown.split("\n"):
        fenced ^= bool(_FENCE.match(line))
        item = bool(_ITEM.match(line)) and not fenced
        if item and not in_list and lines and lines[-1].strip():
            lines.append("")
        in_list = item or (in_list and (not line or line.startswith("  ")))
        lines.append(f"  {line}" if in_list and line.startswith("  ") else line)
    return "\n".join(lines)


# Docstrings


class ReadableDocstrings(griffe.Extension):
    """Markdown of docstrings that name things as Sphinx does; comments on the line of a field as its text."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute that was read."""
        if obj.is_attribute and obj.docstring is None:
            found = _COMMENT.search(obj.lines[-1]) if obj.lines else None
            if found:
                obj.docstring = griffe.Docstring(found[1], parent=obj)
        elif obj.docstring is not None:
            obj.docstring.value = as_mkdocs_lists(as_markdown(obj.docstring.value))


def as_markdown(text: str) -> str:
    """Roles become links, ``::`` a colon, tables drawn with = stay as they are."""
    lines, in_table = [], False
    for line in text.split("\n"):
        if _RST_RULE.match(line):
            if not in_table:
                lines.append("```")
            lines.append(line)
            in_table = True
            continue
        if in_table and not line.strip():
            lines.append("```")
            in_table = False
        if line.endswith("::"):
            line = line[:-1] if line.strip() != "::" else ""
        lines.append(line if in_table else _ROLE.sub(_reference, line))
    return "\n".join([*lines, "```"] if in_table else lines)


def _reference(role: re.Match[str]) -> str:
    name = role[1]
    private = any(part.startswith("_") for part in name.split("."))
    return f"`{name}`" if private else f"[`{name}`][{name}]"
