# SPDX-License-Identifier: Apache-2.0
"""Train, quantise, compile, run every backend, and report; goes on if stopped."""

import argparse
from pathlib import Path

from edge_moe.commands.options import CHECKPOINT_HELP, at_least, given_path, new_folder
from edge_moe.packaged import find_checkpoint


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=find_checkpoint,
        help=f"{CHECKPOINT_HELP} (default: train mini)",
    )
    parser.add_argument(
        "--out", type=new_folder, default=Path("demo"), help="folder for the report and its inputs"
    )
    parser.add_argument(
        "--count", type=at_least(1), default=6, help="validation pictures that every backend runs"
    )
    parser.add_argument(
        "--board-python",
        type=given_path,
        default=Path(".venv-board/bin/python"),
        help="Python of the environment with pynq, for the simulated board",
    )


def run(args: argparse.Namespace) -> None:
    from edge_moe.demo.run import DemoOptions, run_demo

    print(run_demo(args.out, DemoOptions(args.checkpoint, args.count, args.board_python)))
