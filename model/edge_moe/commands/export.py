# SPDX-License-Identifier: Apache-2.0
"""path.onnx (integer-exact) and path.qdq.onnx of each task."""

import argparse
from pathlib import Path

from edge_moe.commands.options import (
    CHECKPOINT_HELP,
    add_quantisation,
    add_task,
    at_least,
    new_folder,
    quantisation,
)
from edge_moe.packaged import find_checkpoint


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=find_checkpoint, help=f"{CHECKPOINT_HELP}; or *.int.npz of quantise")
    add_task(parser, "model")
    parser.add_argument(
        "--out", type=new_folder, default=Path("export"), help="folder; a task's files go to OUT/TASK"
    )
    parser.add_argument("--verify-images", type=at_least(1), default=10, help="held-out images to compare on")
    parser.add_argument(
        "--flat", action="store_true", help="also write path.flat.onnx, with the functions inlined"
    )
    add_quantisation(parser)


def run(args: argparse.Namespace) -> None:
    from edge_moe.export.source import export_source
    from edge_moe.quant.storage import is_network

    options = quantisation(args, args.source if is_network(args.source) else None)
    print(
        export_source(
            args.source, args.tasks, args.out, args.data, options, args.verify_images, flat=args.flat
        )
    )
