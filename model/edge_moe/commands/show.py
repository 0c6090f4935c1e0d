# SPDX-License-Identifier: Apache-2.0
"""Side-by-side pictures of every task's prediction."""

import argparse
from pathlib import Path

from edge_moe.commands.options import (
    DATA_HELP,
    add_checkpoint,
    at_least,
    given_path,
    new_folder,
    refuse_with,
    require_pictures,
)
from edge_moe_host.errors import EdgeMoEError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument(
        "images", nargs="*", default=[], type=given_path, help="PNG or JPEG files, folders, or video files"
    )
    parser.add_argument("--data", help=f"{DATA_HELP}: with ground truth, from its validation split")
    parser.add_argument("--count", type=at_least(1), help="pictures from --data (default: 6)")
    parser.add_argument("--every", type=at_least(1), help="use every N-th frame of a video (default: 1)")
    parser.add_argument("--out", type=new_folder, default=Path("pictures"), help="folder for the pictures")


def run(args: argparse.Namespace) -> None:
    from edge_moe.eval.show import show_dataset, show_images

    if bool(args.images) == bool(args.data):
        both = "not both" if args.data else "one of them"
        raise EdgeMoEError(f"give pictures (files, folders, videos) or --data SPEC, {both}.")
    refuse_with(bool(args.data and args.every), "--every", "beside --data")
    refuse_with(bool(args.images and args.count), "--count", "without --data")
    require_pictures(args.images)
    if args.data:
        paths = show_dataset(args.checkpoint, args.data, args.count or 6, args.out, args.tasks, args.device)
    else:
        paths = show_images(args.checkpoint, args.images, args.out, args.tasks, args.every or 1, args.device)
    for path in paths:
        print(path)
