# SPDX-License-Identifier: Apache-2.0
"""Compile the path.onnx of each task into a bundle of programs and weights."""

import argparse

from edge_moe.commands.options import (
    DATA_HELP,
    add_accelerator,
    at_least,
    given_path,
    new_folder,
    refuse_with,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", type=given_path, help="path.onnx of one task or several of one model"
    )
    add_accelerator(parser)
    parser.add_argument("--out", type=new_folder, required=True, help="folder to write")
    parser.add_argument("--images", nargs="+", type=given_path, default=[], help="pictures to verify on")
    parser.add_argument(
        "--data", help=f"verify on validation images of {DATA_HELP} (default: two random ones)"
    )
    parser.add_argument(
        "--verify-images", type=at_least(1), help="number of images from --data (default: 10)"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not run the bundle after compiling")


def run(args: argparse.Namespace) -> None:
    from edge_moe.compiler.verify import compile_verified

    given = bool(args.images or args.data or args.verify_images)
    refuse_with(args.no_verify and given, "--images, --data or --verify-images", "beside --no-verify")
    refuse_with(bool(args.images and args.data), "--data", "beside --images")
    refuse_with(args.verify_images is not None and not args.data, "--verify-images", "without --data")
    print(
        compile_verified(
            args.paths,
            args.accelerator,
            args.out,
            args.images,
            data=args.data,
            verify_images=args.verify_images or 10,
            verify=not args.no_verify,
        )
    )
