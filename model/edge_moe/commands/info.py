# SPDX-License-Identifier: Apache-2.0
"""``edge-moe info``."""

import argparse

from edge_moe.commands.options import add_preset

NAME = "info"
HELP = "Parameters and multiply-accumulates of a preset, per task."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_preset(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command and print its result."""
    from edge_moe.config import load_preset
    from edge_moe.info import describe

    print(describe(load_preset(args.preset, args.set)))
