# SPDX-License-Identifier: Apache-2.0
"""``python -m edge_moe.codegen --accelerator NAME --out FOLDER [--language sv]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_moe.codegen import generate, generate_package
from edge_moe_host.errors import one_line_errors


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the headers; 0, or 2 after one sentence on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_moe.codegen",
        description="C++ headers, or the SystemVerilog package, of one accelerator.",
    )
    parser.add_argument("--accelerator", default="zcu104", help="a name, or the path of a .toml file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--language", choices=("cpp", "sv"), default="cpp", help="headers or package")
    args = parser.parse_args(arguments)
    paths = (generate if args.language == "cpp" else generate_package)(args.accelerator, args.out)
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
