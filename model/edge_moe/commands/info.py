# SPDX-License-Identifier: Apache-2.0
"""Parameters and multiply-accumulates of a preset, per task."""

import argparse

from edge_moe.commands.options import add_preset


def add_options(parser: argparse.ArgumentParser) -> None:
    add_preset(parser)


def run(args: argparse.Namespace) -> None:
    from edge_moe.config import load_preset
    from edge_moe.info import describe

    print(describe(load_preset(args.preset, args.set)))
