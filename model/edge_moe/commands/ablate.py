# SPDX-License-Identifier: Apache-2.0
"""Compare routing modes with single-task and dense models, over seeds."""

import argparse
from pathlib import Path

from edge_moe.commands.options import DATA_HELP, add_preset, at_least, new_folder


def add_options(parser: argparse.ArgumentParser) -> None:
    add_preset(parser)
    parser.add_argument("--data", default="scenes", help=DATA_HELP)
    parser.add_argument(
        "--out", type=new_folder, default=Path("runs/ablation"), help="folder for the runs and the report"
    )
    parser.add_argument(
        "--seeds",
        type=at_least(1),
        default=3,
        help="trainings of each model, with seeds 0 to N - 1",
    )
    parser.add_argument("--jobs", type=at_least(1), default=2, help="runs at a time, one thread each")


def run(args: argparse.Namespace) -> None:
    from edge_moe.bench.ablation import run_ablation
    from edge_moe.config import load_preset

    print(run_ablation(load_preset(args.preset, args.set), args.data, args.out, args.seeds, args.jobs))
