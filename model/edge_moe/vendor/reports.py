# SPDX-License-Identifier: Apache-2.0
"""Reports of Vitis HLS and Vivado compared with the estimate: one table, one JSON file.

``python -m edge_moe.vendor.reports`` reads csynth.xml (resources, clock, pipelined loops with II > 1) and,
after implementation, Vivado's utilisation, timing and power. Each figure states its source: estimated,
synthesised by HLS, or implemented. None of them was measured on a board.
"""

import argparse
import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_moe.accelerator import RESOURCES, Board, load_accelerator, load_board
from edge_moe.estimate.inventory import inventory
from edge_moe.vendor.interface import accelerator_interface
from edge_moe_host.errors import EdgeMoEError, one_line_errors
from edge_moe_host.files import write_text

# Vivado's row -> the resource, and its units per Vivado unit. Half a block RAM is 18 Kbit.
_SITES = {
    "CLB LUTs": ("LUT", 1),
    "CLB Registers": ("FF", 1),
    "DSPs": ("DSP", 1),
    "Block RAM Tile": ("BRAM_18K", 2),
    "URAM": ("URAM", 1),
}
_POWER = re.compile(r"\|\s*Total On-Chip Power \(W\)\s*\|\s*([\d.]+)")


@dataclass(frozen=True)
class Loop:
    """A pipelined loop: a new iteration every ``ii`` cycles, the first result after ``depth``."""

    module: str
    name: str
    ii: int
    depth: int | None


@dataclass(frozen=True)
class Synthesis:
    """A design's figures from csynth.xml; cycles are None when they depend on the data."""

    tool: str
    part: str
    top: str
    target_ns: float
    estimated_ns: float
    best_cycles: int | None
    worst_cycles: int | None
    resources: dict[str, int]
    loops: tuple[Loop, ...]


@dataclass(frozen=True)
class Implementation:
    """Vivado's figures after routing; a negative slack means that the clock is too fast."""

    resources: dict[str, float]
    clock_mhz: float
    wns_ns: float
    power_w: float


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise EdgeMoEError(f"cannot read '{path}': {error.strerror}.") from None


def read_csynth(path: Path) -> Synthesis:
    """Parse csynth.xml. EdgeMoEError for another file."""
    try:
        root = ET.fromstring(_read(path))
    except ET.ParseError as error:
        raise EdgeMoEError(f"'{path}' is not XML: {error}.") from None

    def text(tag: str) -> str:
        value = root.findtext(tag)
        if value is None:
            raise EdgeMoEError(f"'{path}' is not a report of Vitis HLS: it has no {tag}.")
        return value.strip()

    latency = "PerformanceEstimates/SummaryOfOverallLatency/{}-caseLatency"
    try:
        return Synthesis(
            tool=text("ReportVersion/Version"),
            part=text("UserAssignments/Part"),
            top=text("UserAssignments/TopModelName"),
            target_ns=float(text("UserAssignments/TargetClockPeriod")),
            estimated_ns=float(text("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")),
            best_cycles=_cycles(text(latency.format("Best"))),
            worst_cycles=_cycles(text(latency.format("Worst"))),
            resources={name: int(text(f"AreaEstimates/Resources/{name}")) for name in RESOURCES},
            loops=tuple(_loops(root)),
        )
    except ValueError as error:
        raise EdgeMoEError(f"'{path}' has a figure that is not a number: {error}.") from None


def _cycles(text: str) -> int | None:
    return None if text in ("undef", "?", "-") else int(text)


def _loops(root: ET.Element) -> list[Loop]:
    """Every pipelined loop of every module, nested ones too."""
    loops = []
    for module in root.findall("ModuleInformation/Module"):
        name = module.findtext("Name", "").strip()
        for summary in module.findall("PerformanceEstimates/SummaryOfLoopLatency"):
            for element in summary.iter():
                interval = _cycles(element.findtext("PipelineII", "-").strip())
                if interval is not None:
                    depth = _cycles(element.findtext("PipelineDepth", "-").strip())
                    loops.append(Loop(name, element.findtext("Name", element.tag).strip(), interval, depth))
    return loops


def read_implementation(folder: Path) -> Implementation:
    """Parse utilization.rpt, power.rpt and run.txt. EdgeMoEError when one is missing or of another kind."""
    power = _POWER.search(_read(folder / "power.rpt"))
    if not power:
        raise EdgeMoEError(f"'{folder / 'power.rpt'}' is not a power report of Vivado.")
    words = _read(folder / "run.txt").split()
    run = dict(zip(words[::2], words[1::2], strict=False))
    try:
        clock, slack = float(run["clock_mhz"]), float(run["wns_ns"])
    except (KeyError, ValueError):
        raise EdgeMoEError(f"'{folder / 'run.txt'}' does not hold clock_mhz and wns_ns.") from None
    return Implementation(read_utilization(folder / "utilization.rpt"), clock, slack, float(power[1]))


def read_utilization(path: Path) -> dict[str, float]:
    """Used resources, from the tables of report_utilization; columns by their titles."""
    used: dict[str, float] = {}
    column = None
    for line in _read(path).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            continue
        if "Used" in cells:
            column = cells.index("Used")
        elif column is not None and cells[0].rstrip("*") in _SITES and len(cells) > column:
            name, unit = _SITES[cells[0].rstrip("*")]
            used.setdefault(name, float(cells[column]) * unit)
    missing = [site for site, (name, _) in _SITES.items() if name not in used]
    if missing:
        raise EdgeMoEError(f"'{path}' is not a utilisation report of Vivado: it has no row '{missing[0]}'.")
    return used


def read_estimate(path: Path) -> dict[str, float]:
    """Estimated resources: JSON, names of resources to numbers. EdgeMoEError for anything else."""
    try:
        data = json.loads(_read(path))
    except ValueError:
        raise EdgeMoEError(f"'{path}' is not JSON.") from None
    numbers = isinstance(data, dict) and all(isinstance(v, int | float) for v in data.values())
    if not numbers or not data.keys() <= set(RESOURCES):
        raise EdgeMoEError(
            f"'{path}' is not an estimate: it must give numbers for some of {', '.join(RESOURCES)}."
        )
    return dict(data)


def summary(
    csynth: Synthesis,
    estimate: Mapping[str, float],
    board: Board,
    implementation: Implementation | None = None,
) -> dict[str, Any]:
    """All figures, by source."""
    resources = {
        name: {
            "available": available,
            "estimated": estimate.get(name),
            "synthesised": csynth.resources[name],
            "implemented": implementation.resources[name] if implementation else None,
        }
        for name, available in board.resources.items()
    }
    slow = [asdict(loop) for loop in csynth.loops if loop.ii > 1]
    last = {"implementation": asdict(implementation)} if implementation else {}
    return {"synthesis": asdict(csynth), "resources": resources, "slow_loops": slow, **last}


def table(data: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    columns = ("available", "estimated", "synthesised", "implemented")
    lines = ["| resource | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, figures in data["resources"].items():
        lines.append(f"| {name} | " + " | ".join(_cell(figures, column) for column in columns) + " |")
    csynth = data["synthesis"]
    lines += [
        "",
        f"{csynth['top']} on {csynth['part']}, Vitis HLS {csynth['tool']}: "
        f"{csynth['estimated_ns']:.3f} ns of {csynth['target_ns']:.3f} ns (synthesised); "
        f"{len(csynth['loops'])} pipelined loops, {len(data['slow_loops'])} of them with II > 1.",
    ]
    lines += [f"- {loop['module']}: {loop['name']} has II = {loop['ii']}" for loop in data["slow_loops"]]
    if "implementation" in data:
        found = data["implementation"]
        lines.append(
            f"At {found['clock_mhz']:g} MHz the worst slack is {found['wns_ns']:+.3f} ns; "
            f"{found['power_w']:.2f} W (Vivado's estimates after routing)."
        )
    return "\n".join([*lines, ""])


def _cell(figures: Mapping[str, float | None], column: str) -> str:
    value, available = figures[column], figures["available"]
    if value is None or not available:
        return "-"
    return f"{value:,g}" if column == "available" else f"{value:,g} ({100 * value / available:.1f} %)"


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and the JSON file; 0, or 2 after one sentence on bad input."""
    parser = argparse.ArgumentParser(prog="python -m edge_moe.vendor.reports", description="Vendor reports.")
    parser.add_argument("--accelerator", default="zcu104", help="a name, or the path of a .toml file")
    parser.add_argument("--csynth", type=Path, required=True, help="csynth.xml")
    parser.add_argument("--implementation", type=Path, help="folder with Vivado's reports")
    parser.add_argument(
        "--estimate", type=Path, help="JSON of estimated resources, instead of those derived from the C++"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for report.md and report.json")
    args = parser.parse_args(arguments)
    config = load_accelerator(args.accelerator)
    board = load_board(args.accelerator)
    top = accelerator_interface(config, board)
    csynth = read_csynth(args.csynth)
    if csynth.part.replace("-", "") != board.part.replace("-", ""):
        raise EdgeMoEError(f"'{args.csynth}' is for the part {csynth.part}, not for {board.part}.")
    if abs(csynth.target_ns - top.clock_ns) > 0.01:
        raise EdgeMoEError(
            f"'{args.csynth}' is for a clock of {csynth.target_ns} ns, accelerator '{args.accelerator}' "
            f"has {top.clock_ns}: synthesise again."
        )
    estimate: Mapping[str, float] = {}  # an operator by itself has none
    if args.estimate:
        estimate = read_estimate(args.estimate)
    elif csynth.top == top.top:
        estimate = inventory(config, board.ultraram).totals()
    implementation = read_implementation(args.implementation) if args.implementation else None
    data = summary(csynth, estimate, board, implementation)
    write_text(args.out / "report.json", json.dumps(data, indent=1) + "\n")
    write_text(args.out / "report.md", table(data))
    print(table(data), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
