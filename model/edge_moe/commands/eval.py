# SPDX-License-Identifier: Apache-2.0
"""Metrics of a checkpoint at the labels' own resolution."""

import argparse

from edge_moe.commands.options import DATA_HELP, add_checkpoint, at_least, given_path, new_file


def add_options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--data", help=f"{DATA_HELP} (default: what it was trained on)")
    parser.add_argument("--json", type=new_file(), help="write the metrics to this file")
    parser.add_argument("--usage", type=new_file(".png"), help="write a heat map of expert usage to this PNG")
    parser.add_argument(
        "--baseline", type=given_path, help="JSON of single-task models, to report Delta_m against"
    )
    parser.add_argument("--limit", type=at_least(1), help="evaluate only this many images")


def run(args: argparse.Namespace) -> None:
    from edge_moe.eval.run import evaluate_checkpoint

    print(
        evaluate_checkpoint(
            args.checkpoint,
            args.data,
            tasks=args.tasks,
            json_out=args.json,
            usage_out=args.usage,
            baseline=args.baseline,
            limit=args.limit,
            device=args.device,
        )
    )
