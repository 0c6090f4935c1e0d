# SPDX-License-Identifier: Apache-2.0
"""Estimate the DSP, block RAM and UltraRAM that an accelerator takes."""

import argparse

from edge_moe.commands.options import add_accelerator, new_file


def add_options(parser: argparse.ArgumentParser) -> None:
    add_accelerator(parser)
    parser.add_argument("--json", type=new_file(), help="write the totals to this file")


def run(args: argparse.Namespace) -> None:
    from edge_moe.accelerator import load_accelerator, load_board
    from edge_moe.estimate.inventory import inventory
    from edge_moe.estimate.resources import require_fit, table, write_totals

    board = load_board(args.accelerator)
    listed = inventory(load_accelerator(args.accelerator), board.ultraram)
    print(table(listed, args.accelerator, board))
    if args.json:
        write_totals(listed, args.json)
    require_fit(listed, args.accelerator, board)
