# SPDX-License-Identifier: Apache-2.0
"""Keep a checkpoint's weights only, in half precision."""

import argparse

from edge_moe.commands.options import CHECKPOINT_HELP, new_file
from edge_moe.packaged import find_checkpoint


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=find_checkpoint, help=CHECKPOINT_HELP)
    parser.add_argument("out", type=new_file(), help="file to write")
    parser.add_argument("--full", action="store_true", help="keep float32")


def run(args: argparse.Namespace) -> None:
    from edge_moe.checkpoint import slim

    slim(args.checkpoint, args.out, half=not args.full)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")
