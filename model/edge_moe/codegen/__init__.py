# SPDX-License-Identifier: Apache-2.0
"""C++ headers and the SystemVerilog package of one accelerator: sizes, instructions, tables, all generated.

Imports no torch.
"""

import json
from pathlib import Path

from edge_moe.accelerator import AcceleratorConfig, Board, has_board, load_accelerator, load_board
from edge_moe.codegen.design import require_buildable
from edge_moe.codegen.headers import config_header, design_header, isa_header, sv_package, tables_header
from edge_moe.codegen.opcodes_header import opcodes_header
from edge_moe_host.config import to_dict
from edge_moe_host.files import write_text

__all__ = [
    "config_header",
    "design_header",
    "generate",
    "generate_package",
    "isa_header",
    "opcodes_header",
    "sv_package",
    "tables_header",
    "write_headers",
]


BOARD_FILE = "edge_moe_board.json"  # for the simulated board, which reads no TOML


def generate(accelerator: str, out: Path) -> list[Path]:
    """Write the headers of an accelerator (a name or a .toml file) into the folder ``out``; their paths.

    If its file names a board, the board is written too, as JSON.

    Raises EdgeMoEError for an unknown or illegal accelerator and when a file cannot be written.
    """
    board = load_board(accelerator) if has_board(accelerator) else None
    return write_headers(load_accelerator(accelerator), out, board)


def write_headers(config: AcceleratorConfig, out: Path, board: Board | None = None) -> list[Path]:
    """The same for a configuration, and its board."""
    require_buildable(config)
    texts = {
        "edge_moe_config.hpp": config_header(config),
        "edge_moe_design.hpp": design_header(config),
        "edge_moe_isa.hpp": isa_header(),
        "edge_moe_opcodes.hpp": opcodes_header(),
        "edge_moe_tables.hpp": tables_header(),
    }
    if board:
        texts[BOARD_FILE] = json.dumps(to_dict(board), indent=1) + "\n"
    for name, text in texts.items():
        write_text(Path(out) / name, text)
    return [Path(out) / name for name in texts]


def generate_package(accelerator: str, out: Path) -> list[Path]:
    """Write edge_moe_pkg.sv into the folder ``out``; errors as in :func:`generate`."""
    path = Path(out) / "edge_moe_pkg.sv"
    write_text(path, sv_package(load_accelerator(accelerator)))
    return [path]
