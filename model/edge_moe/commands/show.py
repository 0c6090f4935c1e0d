# SPDX-License-Identifier: Apache-2.0
"""Side-by-side pictures of every task's prediction."""

import argparse
from pathlib import Path

from edge_moe.commands.options import DATA_HELP, add_checkpoint
from edge_moe_host.errors import EdgeMoEError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("images", nargs="*", type=Path, help="PNG or JPEG files, folders, or video files")
    parser.add_argument("--data", help=f"{DATA_HELP}: with ground truth, from its validation split")
    parser.add_argument("--count", type=int, default=6, help="pictures from --data")
    parser.add_argument("--every", type=int, default=1, help="use every N-th frame of a video")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder for the pictures")


def run(args: argparse.Namespace) -> None:
    from edge_moe.eval.show import show_dataset, show_images

    if bool(args.images) == bool(args.data):
        raise EdgeMoEError("give either pictures (files, folders, videos) or --data SPEC, and not both.")
    if args.data:
        paths = show_dataset(args.checkpoint, args.data, args.count, args.out, args.tasks, args.device)
    else:
        paths = show_images(args.checkpoint, args.images, args.out, args.tasks, args.every, args.device)
    for path in paths:
        print(path)
