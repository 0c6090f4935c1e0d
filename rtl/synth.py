# SPDX-License-Identifier: Apache-2.0
"""Resources of each operator on UltraScale+: ``python -m rtl.synth [OP ...]``, through yosys.

Writes build/rtl/synth.md and synth.json. Mapped by yosys, not by Vivado: not placed, not timed.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edge_moe.accelerator import Board, load_board
from edge_moe.codegen import generate_package
from edge_moe_host.errors import EdgeMoEError, one_line_errors
from edge_moe_host.files import write_text
from rtl import yosys
from sim.declaration import Operator, choose, jobs

OUT = yosys.ROOT / "build" / "rtl"
# Look-up tables that a cell of memory or of a shift register takes.
LUT_CELLS = {"RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8, "RAM32M": 4, "RAM64M": 4,
             "RAM32M16": 8, "RAM64M8": 8, "RAM32X16DR8": 8, "RAM64X8SW": 8, "RAM512X1S": 8,
             "RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "SRL16E": 1, "SRLC32E": 1,
             "SRLC16E": 1, "INV": 1, **{f"LUT{n}": 1 for n in range(1, 7)}}  # fmt: skip
# Cells that take nothing of what is counted here.
FREE_CELLS = {"BUFG", "IBUF", "OBUF", "MUXF7", "MUXF8", "MUXF9", "VCC", "GND"}
COLUMNS = ("LUT", "FF", "CARRY", "DSP48E2", "BRAM36", "URAM288")


def totals(board: Board) -> dict[str, float]:
    """What the board's part has of each column."""
    has = board.resources
    return {
        "LUT": has["LUT"],
        "FF": has["FF"],
        "CARRY": has["LUT"] / 8,
        "DSP48E2": has["DSP"],
        "BRAM36": has["BRAM_18K"] / 2,
        "URAM288": has["URAM"],
    }


@dataclass(frozen=True)
class Mapped:
    """One operator: its cells by type, and the resources that they are. CARRY: CARRY8, or two CARRY4."""

    name: str
    cells: dict[str, int]
    seconds: float

    @property
    def resources(self) -> dict[str, float]:
        """By the names of ``COLUMNS``; EdgeMoEError for a cell that is none of them."""
        found = dict.fromkeys(COLUMNS, 0.0)
        for cell, count in self.cells.items():
            if cell in LUT_CELLS:
                found["LUT"] += LUT_CELLS[cell] * count
            elif cell.startswith("FD"):
                found["FF"] += count
            elif cell.startswith("CARRY"):
                found["CARRY"] += count / (1 if cell == "CARRY8" else 2)
            elif cell.startswith("RAMB"):
                found["BRAM36"] += count / (1 if cell.startswith("RAMB36") else 2)
            elif cell in found:
                found[cell] += count
            elif cell not in FREE_CELLS:
                raise EdgeMoEError(
                    f"yosys mapped '{self.name}' to {count} cells '{cell}', which are not counted."
                )
        return found


def synthesise(operator: Operator, package: Path) -> Mapped:
    """Map one operator at the design's size. EdgeMoEError when yosys refuses it."""
    log, statistics = OUT / f"{operator.name}.log", OUT / f"{operator.name}.stat.json"
    statistics.unlink(missing_ok=True)
    script = (
        f"{yosys.read(operator.name, package)}; "
        f"synth_xilinx -family xcup -uram -noiopad -top {operator.name}; "
        f"tee -q -o {statistics.relative_to(yosys.ROOT)} stat -json -tech xilinx"
    )
    start = time.monotonic()
    # what yosys prints is lost after its mapper; the log has it
    ran = yosys.run(script, "-l", str(log.relative_to(yosys.ROOT)))
    if ran.returncode or not statistics.exists():
        last = [line for line in (ran.stderr or ran.stdout).splitlines() if "ERROR" in line]
        raise EdgeMoEError(f"yosys did not map '{operator.name}': {last[-1] if last else f'see {log}'}")
    modules = json.loads(statistics.read_text())["modules"]
    return Mapped(operator.name, count_cells(modules, operator.name), time.monotonic() - start)


def count_cells(modules: Mapping[str, Mapping[str, Mapping[str, int]]], top: str) -> dict[str, int]:
    """Cells of a module and of all within it. Parametrised modules have names of yosys's own."""
    by_name = {name.removeprefix("\\"): module for name, module in modules.items()}
    cells: dict[str, int] = {}

    def add(name: str, times: int) -> None:
        for cell, count in by_name[name]["num_cells_by_type"].items():
            inner = cell.removeprefix("\\")
            if inner in by_name:
                add(inner, times * count)
            else:
                cells[inner] = cells.get(inner, 0) + times * count

    add(top, 1)
    return cells


def table(mapped: Sequence[Mapped], board: Board) -> str:
    """Markdown, with each share of the board's part."""
    available = totals(board)
    lines = [
        f"| operator | {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * len(COLUMNS)}",
        *(
            f"| {m.name} | {' | '.join(_cell(m.resources[c], available[c]) for c in COLUMNS)} |"
            for m in mapped
        ),
        f"| {board.part} | {' | '.join(f'{available[c]:,.0f}' for c in COLUMNS)} |",
    ]
    return "\n".join(lines)


def _cell(value: float, available: float) -> str:
    text = f"{value:,.1f}" if value % 1 else f"{value:,.0f}"
    return f"{text} ({value / available:.1%})" if value else text


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 after one sentence."""
    parser = argparse.ArgumentParser(prog="python -m rtl.synth", description=__doc__.splitlines()[0])
    parser.add_argument("operators", nargs="*", metavar="OP", help="default: all")
    parser.add_argument("--accelerator", default="zcu104", help="a name, or the path of a .toml file")
    parser.add_argument("--jobs", type=jobs, default=2, help="operators at a time")
    args = parser.parse_args(arguments)
    chosen = choose(args.operators)
    package = generate_package(args.accelerator, OUT / Path(args.accelerator).stem)[0]

    def one(operator: Operator) -> Mapped:
        done = synthesise(operator, package)
        print(f"{done.name}: {done.seconds:.0f} s", flush=True)
        return done

    with ThreadPoolExecutor(args.jobs) as pool:
        mapped = list(pool.map(one, chosen))
    text = table(mapped, load_board(args.accelerator))
    write_text(OUT / "synth.md", text + "\n")
    write_text(
        OUT / "synth.json",
        json.dumps({m.name: {**m.resources, "seconds": round(m.seconds)} for m in mapped}, indent=1) + "\n",
    )
    print(text)
    print(f"mapped by yosys, not placed: {OUT.relative_to(yosys.ROOT)}/synth.md and synth.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
