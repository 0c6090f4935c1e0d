# SPDX-License-Identifier: Apache-2.0
"""Generated inputs of the vendor's tools for a design: Tcl variables, a v++ configuration, JSON.

``python -m edge_moe.vendor.tcl`` writes into the folder in which a tool will run

- ``vendor.tcl``, variables of the namespace ``edge_moe`` for hls/tcl and board/zcu104/vivado;
- ``hls_config.cfg``, the same for ``v++ -c --mode hls`` and ``vitis-run --mode hls`` (2023.2 and later);
- ``interface.json``, the accelerator's ports and registers.

The design is the accelerator or an operator's top of hls/ops.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_moe.accelerator import load_accelerator, load_board
from edge_moe.codegen.headers import render
from edge_moe.estimate.inventory import inventory
from edge_moe.estimate.resources import require_fit, scratch_memory, weight_fifo
from edge_moe.vendor import interface as shown
from edge_moe.vendor.interface import Interface, accelerator_interface
from edge_moe_host.errors import EdgeMoEError, one_line_errors
from edge_moe_host.files import write_text

_TOP = re.compile(r'^extern\s+"C"\s+\w+\s+(\w+)\s*\(', re.MULTILINE)
_NOT_SYNTHESISED = "csim.cpp"
_UNSAFE = re.compile(r"[\s{}\\\"$\[\];,]")  # would end or change a word of Tcl or of a list of flags


@dataclass(frozen=True)
class Design:
    """A top function with everything that its synthesis needs; paths are absolute."""

    interface: Interface
    source: Path
    include: tuple[Path, ...]
    scratch_memory: str
    fifo_memory: str
    test_bench: Path | None = None
    recording: Path | None = None

    @property
    def flags(self) -> str:
        """Flags for sources and test bench: cosimulation calls the Verilog with the types of the top's ports,
        which must be the tool's own outside synthesis too."""
        words = ["-std=c++14", "-DEDGE_MOE_EXACT_WIDTHS=1", "-DEDGE_MOE_VENDOR_PORTS=1"]
        words += [f"-DEDGE_MOE_SCRATCH_MEMORY={self.scratch_memory}"]
        words += [f"-DEDGE_MOE_FIFO_MEMORY={self.fifo_memory}"]
        words += ["-Wno-unused-label", "-Wno-unknown-pragmas", *(f"-I{folder}" for folder in self.include)]
        return " ".join(words)


def tops(hls: Path) -> dict[str, Path]:
    """Every function that can be synthesised -> the file that defines it."""
    found = {}
    for path in sorted([*hls.glob("src/*.cpp"), *hls.glob("ops/*.cpp")]):
        if path.name != _NOT_SYNTHESISED:
            found.update(dict.fromkeys(_TOP.findall(path.read_text(encoding="utf-8")), path))
    return found


def design(accelerator: str, top: str, hls: Path, generated: Path, recording: Path | None = None) -> Design:
    """The design of an accelerator (a name or a .toml file) and a top function.

    EdgeMoEError for an unknown top, for an accelerator that does not fit the part, and for a path that the
    tools' lists of flags cannot carry.
    """
    config = load_accelerator(accelerator)
    whole = accelerator_interface(config, load_board(accelerator))
    ultraram = whole.board.ultraram
    memories = (scratch_memory(ultraram).value, weight_fifo(config, ultraram).value)
    hls, generated = hls.resolve(), generated.resolve()
    known = tops(hls)
    if top not in known:
        names = ", ".join(sorted(known.keys() - {whole.top}))
        raise EdgeMoEError(f"there is no operator '{top}' in '{hls}': known are {names}.")
    folders = (hls / "include", generated)
    test_bench = hls / "tb" / f"{whole.top}_tb.cpp"
    if top == whole.top:
        require_fit(inventory(config, ultraram), accelerator, whole.board)
        recorded = recording.resolve() if recording else None
        result = Design(whole, known[top], folders, *memories, test_bench, recorded)
    else:
        operator = dataclasses.replace(whole, top=top, masters=(), registers={})
        result = Design(operator, known[top], folders, *memories)
    for path in (result.source, *folders, test_bench, *filter(None, [result.recording])):
        if _UNSAFE.search(str(path)):
            raise EdgeMoEError(
                f"the path '{path}' has a space or another character that the vendor's tools interpret: "
                "move the project to a folder without it."
            )
    return result


def tcl_variables(made: Design) -> str:
    """Text of vendor.tcl."""
    return render("vendor.tcl", design=made, top=made.interface, names=shown)


def config_file(made: Design) -> str:
    """Text of hls_config.cfg (UG1399, "HLS Config File Commands")."""
    return render("hls_config.cfg", design=made, top=made.interface, names=shown)


def interface_json(top: Interface) -> str:
    """Text of interface.json."""
    data: Mapping[str, object] = {
        "top": top.top,
        "part": top.board.part,
        "clock_mhz": top.clock_mhz,
        "config_hash": top.config_hash,
        "vlnv": top.vlnv,
        "masters": [dataclasses.asdict(master) for master in top.masters],
        "registers": [dataclasses.asdict(register) for register in top.registers.values()],
    }
    return json.dumps(data, indent=1) + "\n"


def generate(made: Design, out: Path) -> list[Path]:
    """Write the three files into the folder ``out``; returns their paths."""
    texts = {
        "vendor.tcl": tcl_variables(made),
        "hls_config.cfg": config_file(made),
        "interface.json": interface_json(made.interface),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or only check the design; 0, or 2 after one sentence on bad input."""
    parser = argparse.ArgumentParser(prog="python -m edge_moe.vendor.tcl", description="Vendor files.")
    parser.add_argument("--accelerator", default="zcu104", help="a name, or the path of a .toml file")
    parser.add_argument("--top", default=shown.TOP, help="top function: the accelerator or an operator")
    parser.add_argument("--hls", type=Path, required=True, help="folder of the C++ sources")
    parser.add_argument("--generated", type=Path, required=True, help="folder of the generated headers")
    parser.add_argument("--recording", type=Path, help="folder that the test bench of cosimulation reads")
    parser.add_argument("--out", type=Path, help="folder in which the tool will run (default: only check)")
    args = parser.parse_args(arguments)
    made = design(args.accelerator, args.top, args.hls, args.generated, args.recording)
    if args.out:
        generate(made, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
