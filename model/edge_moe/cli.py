# SPDX-License-Identifier: Apache-2.0
"""The ``edge-moe`` command: parses arguments, calls the library, prints one sentence on bad input."""

import argparse
import contextlib
import difflib
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from edge_moe import __version__
from edge_moe.commands import COMMANDS
from edge_moe_host.errors import EdgeMoEError, listed, out_of_memory, reason

# Commands import what they need when they run: `edge-moe info` starts without torch.


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        plain = not action.default or action.default is True or "default" in (action.help or "")
        return action.help if plain else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Options may come before, between and after a command's other arguments. Errors are one sentence."""

    _mixed = False

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Help, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._mixed or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._mixed = True  # parse_known_intermixed_args calls this method
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixed = False
        if unknown:
            near = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1)
            meant = f" (did you mean '{near[0]}'?)" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"'{value}' is none of {listed(action.choices, value)}")

    def error(self, message: str) -> NoReturn:
        hint = "" if message.startswith("argument ") else f": {self.prog} --help lists what there is"
        raise EdgeMoEError(f"{message}{hint}.")


def build_parser() -> argparse.ArgumentParser:
    """Parser of the whole command line. It raises EdgeMoEError for what it cannot parse."""
    parser = _Parser(
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may have signs that the terminal does not
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        args = build_parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except EdgeMoEError as error:
        print(f"edge-moe: {error}", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        print("edge-moe: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        print(f"edge-moe: the system refuses: {error.strerror or reason(error)}.", file=sys.stderr)
        if sys.stdout is sys.__stdout__ and sys.stdout is not None:
            with contextlib.suppress(OSError):
                sys.stdout.close()  # else its rest would be tried again at the end
        return 2
    except Exception as error:
        if not out_of_memory(error):
            raise
        print(f"edge-moe: out of memory: {reason(error)}; close other programs, or use a smaller model or "
              "fewer pictures.", file=sys.stderr)  # fmt: skip
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
