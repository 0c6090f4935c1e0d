# SPDX-License-Identifier: Apache-2.0
"""Pieces of a self-contained HTML page: text, tables, figures with inlined pictures, and its style."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
BADGES = {
    "measured": "measured on this computer",
    "simulated": "simulated in software",
    "estimated": "estimated by a model",
    "published": "published by its authors",
}


def badge(kind: str, text: str | None = None) -> str:
    """A mark of where a figure comes from: measured, simulated, estimated or published."""
    return f'<span class="badge {kind}" title="{BADGES[kind]}">{escape(text or kind)}</span>'


def code(text: str) -> str:
    """A command."""
    return f"<code>{escape(text)}</code>"


def note(*parts: str) -> str:
    """What a figure is and which command gives it; the parts are HTML."""
    return f'<p class="note">{" ".join(parts)}</p>'


def picture(path: Path, alt: str, css: str = "") -> str:
    """A picture, its file inlined."""
    data = base64.b64encode(path.read_bytes()).decode()
    style = f' class="{css}"' if css else ""
    return f'<img src="data:{_TYPES[path.suffix]};base64,{data}" alt="{escape(alt)}"{style}>'


def figure(path: Path, caption: str, css: str = "") -> str:
    """A picture with a caption, which is plain text."""
    return f"<figure>{picture(path, caption, css)}<figcaption>{escape(caption)}</figcaption></figure>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1, css: str = "") -> str:
    """A table that scrolls sideways where it does not fit. Cells are HTML; the first ``text`` columns are
    set to the left, all others are numbers."""

    def cells(row: Sequence[str], tag: str) -> str:
        sides = ["" if place < text else ' class="n"' for place in range(len(row))]
        return "".join(f"<{tag}{side}>{cell}</{tag}>" for side, cell in zip(sides, row, strict=True))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{css}"><thead><tr>{cells(header, "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def section(anchor: str, title: str, *parts: str) -> str:
    """A section of the page, which its table of contents can name."""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def card(label: str, value: str, below: str) -> str:
    """One figure of the summary; ``below`` is HTML."""
    return (
        f'<div class="card"><div class="label">{escape(label)}</div><div class="value">{escape(value)}</div>'
        f'<div class="below">{below}</div></div>'
    )


def page(title: str, contents: Sequence[tuple[str, str]], header: str, sections: Sequence[str]) -> str:
    """The whole page; ``contents``: anchor and name of each section."""
    links = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name in contents)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><header>{header}</header><nav>{links}</nav><main>"
        + "\n".join(sections)
        + "</main></body></html>\n"
    )


_STYLE = """
:root{--ink:#1b2330;--soft:#5a6678;--line:#dfe4eb;--back:#f6f8fa;--key:#1f5fa8;--good:#1a7f4b}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;color-scheme:light}
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue",Arial,sans-serif}
header,main{max-width:1120px;margin:0 auto;padding:0 24px}
header{padding-top:28px}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 4px}
h2{font-size:1.25rem;margin:0 0 12px}
h3{font-size:1rem;margin:22px 0 8px}
p{margin:0 0 12px}
.lead{color:var(--soft);margin-bottom:16px}
.verdict{background:#e6f4ec;border:1px solid #b5dcc6;border-left:5px solid var(--good);border-radius:6px;
padding:12px 16px;margin-bottom:16px}
.verdict strong{font-size:1.1rem;color:#12603a}
.warning{background:#fff6e0;border:1px solid #ecd9a4;border-left:5px solid #c08a12;border-radius:6px;
padding:10px 16px;margin-bottom:16px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:12px;margin-bottom:16px}
.card{background:#fff;border:1px solid var(--line);border-radius:6px;padding:12px 16px}
.label{color:var(--soft);font-size:.85rem}
.value{font-size:1.45rem;font-weight:650;line-height:1.3;font-variant-numeric:tabular-nums}
.below{color:var(--soft);font-size:.85rem}
nav{position:sticky;top:0;z-index:2;background:rgba(246,248,250,.96);border-bottom:1px solid var(--line);
display:flex;gap:4px 18px;overflow-x:auto;white-space:nowrap;padding:8px max(24px,calc(50% - 536px))}
nav a{color:var(--key);text-decoration:none;font-size:.9rem}
nav a:hover{text-decoration:underline}
section{background:#fff;border:1px solid var(--line);border-radius:8px;padding:20px 24px;margin:16px 0;
scroll-margin-top:48px}
.note{color:var(--soft);font-size:.875rem}
code{font:.85em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:#eef1f5;border-radius:4px;
padding:1px 5px;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:0 0 12px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:600;font-size:.82rem;vertical-align:bottom}
.n{text-align:right;white-space:nowrap}
th.n{white-space:normal}
.source{color:var(--soft);font-size:.8rem;white-space:nowrap}
tbody tr:hover{background:#f8fafc}
tr.own td{background:#f0f6fd}
.small{font-size:.8rem}
.small td,.small th{padding:3px 8px}
.badge{display:inline-block;border-radius:9px;padding:0 8px;font-size:.74rem;line-height:1.5;font-weight:600;
white-space:nowrap}
.measured{background:#dff1e6;color:#12603a}
.simulated{background:#dfeafb;color:#174a86}
.estimated{background:#fbeed3;color:#7a5300}
.published{background:#ebe7f5;color:#4d3b82}
.forms{display:grid;grid-template-columns:repeat(5,1fr);gap:10px 8px;margin-bottom:20px}
.forms .input{grid-row:span var(--tasks)}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:16px;margin-bottom:12px}
figure{margin:0}
figure img{width:100%;height:auto;display:block;border-radius:3px}
figcaption{color:var(--soft);font-size:.78rem;line-height:1.35;margin-top:3px}
.wide img{min-width:760px}
.legend{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:.82rem;margin:0 0 12px}
.swatch{display:inline-block;width:14px;height:12px;border:1px solid #777;border-radius:2px;margin-right:5px}
.share,td b,.term{white-space:nowrap}
.bar{display:inline-block;height:9px;background:#86aede;border-radius:2px;vertical-align:middle;
margin-right:6px}
details{margin:8px 0}
summary{cursor:pointer;color:var(--key);font-size:.9rem}
ul.log{margin:0 0 12px;padding-left:20px;font-size:.875rem;color:var(--soft)}
footer{color:var(--soft);font-size:.85rem;padding:4px 0 32px}
@media(max-width:760px){
header,main{padding:0 12px}
header{padding-top:18px}
h1{font-size:1.4rem}
nav{padding:8px 12px}
section{padding:14px 12px;margin:12px 0}
.cards{grid-template-columns:1fr 1fr}
.card{padding:10px 12px}
.value{font-size:1.15rem}
.forms{grid-template-columns:1fr 1fr}
.pair{grid-template-columns:1fr}
.forms .input{grid-column:1/-1;grid-row:auto}
th,td{padding:5px 7px}
}
"""
