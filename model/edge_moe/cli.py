# SPDX-License-Identifier: Apache-2.0
"""The ``edge-moe`` command: parses arguments, calls the library, prints one sentence on bad input."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from edge_moe import __version__
from edge_moe.commands import COMMANDS
from edge_moe_host.errors import EdgeMoEError, out_of_memory, reason

# Commands import what they need when they run: `edge-moe info` starts without torch.


def build_parser() -> argparse.ArgumentParser:
    """Parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="edge-moe",
        description="Train, quantise, export, compile and run multi-task mixture-of-experts vision "
        "transformers, in integers, down to an FPGA accelerator.",
    )
    parser.add_argument("--version", action="version", version=f"edge-moe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        options = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        command.add_options(options)
        options.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit status."""
    # Set before torch loads: threads that spin for work stall each other when cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        args.run(args)
    except EdgeMoEError as error:
        print(f"edge-moe: {error}", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        print("edge-moe: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:
        if not out_of_memory(error):
            raise
        print(f"edge-moe: out of memory: {reason(error)}; close other programs, or use a smaller model or "
              "fewer pictures.", file=sys.stderr)  # fmt: skip
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
