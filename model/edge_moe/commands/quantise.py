# SPDX-License-Identifier: Apache-2.0
"""Integer network of a checkpoint, by post-training quantisation."""

import argparse

from edge_moe.commands.options import (
    CHECKPOINT_HELP,
    add_quantisation,
    at_least,
    new_file,
    quantisation,
    refuse_with,
)
from edge_moe.packaged import find_checkpoint


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=find_checkpoint, help=CHECKPOINT_HELP)
    parser.add_argument("--out", type=new_file(".int.npz"), required=True, help="file to write, *.int.npz")
    add_quantisation(parser)
    parser.add_argument("--evaluate", action="store_true", help="measure float and integer form")
    parser.add_argument("--limit", type=at_least(1), help="--evaluate on only this many images")
    parser.add_argument("--report", action="store_true", help="signal-to-noise ratio of every intermediate")


def run(args: argparse.Namespace) -> None:
    from edge_moe.quant.quantise import quantise_checkpoint

    refuse_with(args.limit is not None and not args.evaluate, "--limit", "without --evaluate")
    print(
        quantise_checkpoint(
            args.checkpoint,
            args.out,
            data=args.data,
            options=quantisation(args),
            evaluate=args.evaluate,
            report=args.report,
            limit=args.limit,
        )
    )
