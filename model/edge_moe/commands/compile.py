# SPDX-License-Identifier: Apache-2.0
"""Compile the path.onnx of each task into a bundle of programs and weights."""

import argparse
from pathlib import Path

from edge_moe.commands.options import DATA_HELP, add_accelerator


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, help="path.onnx of one task or several of one model")
    add_accelerator(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--images", nargs="+", type=Path, default=[], help="pictures to verify on")
    parser.add_argument(
        "--data", help=f"verify on validation images of {DATA_HELP} (default: two random ones)"
    )
    parser.add_argument("--verify-images", type=int, default=10, help="number of images from --data")
    parser.add_argument("--no-verify", action="store_true", help="do not run the bundle after compiling")


def run(args: argparse.Namespace) -> None:
    from edge_moe.compiler.verify import compile_verified

    print(
        compile_verified(
            args.paths,
            args.accelerator,
            args.out,
            args.images,
            data=args.data,
            verify_images=args.verify_images,
            verify=not args.no_verify,
        )
    )
