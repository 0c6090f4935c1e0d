# SPDX-License-Identifier: Apache-2.0
"""Tables of docs/comparison.md from docs/comparison.toml: written, or with ``--check`` compared.

The page has a pair of comments around each table. Columns that follow from others are computed here:

    GMAC/s                   GMAC of a frame times frames per second
    MAC per cycle and DSP    GMAC/s over clock and DSPs
    J per frame              watts over frames per second
"""

import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
PAGE, DATA = DOCS / "comparison.md", DOCS / "comparison.toml"
CLOCK_MHZ = 300  # of the table of bandwidths

MARKS = {"paper": "P", "repository": "R", "abstract": "A", "arithmetic": "C", "model": "E"}
TEXTS = ("name", "source", "known", "device", "bits", "model")
FIGURES = (
    "tokens",
    "gmac",
    "gmac_per_s",
    "ms",
    "cycles",
    "fps",
    "mhz",
    "dsp",
    "kluts",
    "bram36",
    "watts",
)
FIELDS = {*TEXTS, *FIGURES, *(f"known_{name}" for name in FIGURES), "luts_multiply"}

COLUMNS = ("system", "device", "bits", "frame", "tokens", "GMAC", "ms", "frames/s", "GMAC/s",
           "MAC per cycle and DSP", "W", "J per frame", "MHz", "DSP", "kLUT", "BRAM36")  # fmt: skip

Row = Mapping[str, Any]


def milliseconds(row: Row) -> float | None:
    """Latency of a frame, given or from cycles."""
    if "cycles" in row:
        return float(row["cycles"] / (1000 * row["mhz"]))
    return row.get("ms")


def frames_per_second(row: Row) -> float | None:
    """Given, or one frame after the other."""
    ms = milliseconds(row)
    return row.get("fps", None if ms is None else 1000 / ms)


def gmac_per_second(row: Row) -> float | None:
    """Given, or from the work of a frame."""
    fps = frames_per_second(row)
    if "gmac_per_s" in row:
        return float(row["gmac_per_s"])
    return None if fps is None or "gmac" not in row else float(row["gmac"] * fps)


def gmac(row: Row) -> float | None:
    """Work of a frame, given or from the throughput."""
    rate, fps = gmac_per_second(row), frames_per_second(row)
    return row.get("gmac", None if rate is None or fps is None else rate / fps)


def macs_per_cycle(row: Row, unit: str) -> float | None:
    """Products per cycle for each of ``unit``, which is ``dsp`` or ``kluts``."""
    rate = gmac_per_second(row)
    if rate is None or unit not in row:
        return None
    return 1000 * rate / row["mhz"] / float(row[unit])


def joules(row: Row) -> float | None:
    """Energy of a frame."""
    fps = frames_per_second(row)
    return None if fps is None or "watts" not in row else float(row["watts"] / fps)


def significant(value: float | None, digits: int = 3) -> str:
    """So many digits, never in exponential form; nothing for None."""
    if value is None:
        return ""
    whole = len(f"{abs(value):.0f}") if abs(value) >= 1 else 0
    return f"{value:,.{max(0, digits - whole)}f}"


def cells(row: Row) -> list[str]:
    """One row of the comparison; a figure of the source has its mark, a computed one has none."""

    def given(name: str, text: str = "") -> str:
        if name not in row:
            return ""
        text = text or f"{row[name]:,}"
        return f"{text} {MARKS[row.get(f'known_{name}', row['known'])]}"

    def either(name: str, value: float | None) -> str:
        return given(name) or significant(value)

    ms, per_cycle = milliseconds(row), significant(macs_per_cycle(row, "dsp"))
    if row.get("luts_multiply"):
        per_cycle = f"{significant(macs_per_cycle(row, 'kluts'))} a kLUT"
    latency = given("cycles", significant(ms)) if "cycles" in row else given("ms")
    source = f"{row['name']}, {row['source']}" if "source" in row else row["name"]
    return [source, row["device"], row.get("bits", ""), row["model"], given("tokens"),
            either("gmac", gmac(row)), latency, either("fps", frames_per_second(row)),
            either("gmac_per_s", gmac_per_second(row)), per_cycle, given("watts"), significant(joules(row)),
            given("mhz"), given("dsp"), given("kluts"), given("bram36")]  # fmt: skip


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text: int) -> str:
    """Markdown; the first ``text`` columns are words, the others numbers."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * text + "---:|" * (len(header) - text)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return re.sub(r"\|  (?=\|)", "| ", "\n".join(lines))


def tables(data: Mapping[str, Any]) -> dict[str, str]:
    """Every table of the page by its name. ValueError for data that it cannot be made of."""
    for row in data["system"]:
        unknown = sorted(set(row) - FIELDS)
        if unknown:
            raise ValueError(f"'{row.get('name')}' has the unknown field '{unknown[0]}'")
        marks = [value for key, value in row.items() if key.startswith("known")]
        if not marks or not set(marks) <= set(MARKS):
            raise ValueError(f"'{row.get('name')}' does not say how its figures are known: {marks}")
    widths = sorted({int(width) for row in data["bandwidth"] for width in row["cycles"]}, reverse=True)
    memory = []
    for row in data["bandwidth"]:
        cycles = [row["cycles"][str(width)] for width in widths]
        memory.append([row["frame"], *(f"{c:,} ({c / (1000 * CLOCK_MHZ):.2f} ms)" for c in cycles)])
    return {
        "systems": table(COLUMNS, [cells(row) for row in data["system"]], text=4),
        "bandwidth": table(["frame", *(f"{width} bytes per cycle" for width in widths)], memory, text=1),
    }


def filled(page: str, data: Mapping[str, Any]) -> str:
    """The page with its tables. ValueError where it has no place for one."""
    for name, text in tables(data).items():
        begin, end = f"<!-- {name}: written by docs/tools/comparison.py -->", f"<!-- end of {name} -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise ValueError(f"the page has no place for the table '{name}'")
        before, rest = page.split(begin)
        page = f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    return page


def main() -> int:
    """Write the tables, or compare them; 1 when they differ."""
    if sys.argv[1:] not in ([], ["--check"]):
        print("usage: comparison.py [--check]")
        return 2
    page = PAGE.read_text(encoding="utf-8")
    wanted = filled(page, tomllib.loads(DATA.read_text(encoding="utf-8")))
    if sys.argv[1:] and page != wanted:
        print(f"{PAGE.name} has other tables than follow from {DATA.name}: run this script without --check.")
        return 1
    if not sys.argv[1:]:
        PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
