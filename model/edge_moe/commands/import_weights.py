# SPDX-License-Identifier: Apache-2.0
"""Convert published weights into a checkpoint of the same function."""

import argparse
from pathlib import Path

from edge_moe.commands.options import add_overrides, name_list


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("format", choices=("m3vit", "edge-moe-bin"))
    parser.add_argument("source", type=Path, help="checkpoint file, or folder of .float32.bin files")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--preset", help="the preset it belongs to (default: inferred from the shapes)")
    add_overrides(parser)
    parser.add_argument(
        "--task",
        type=name_list,
        dest="tasks",
        help="task names in the order of the gates, such as semseg=7,depth=1",
    )
    parser.add_argument("--allow-missing", action="store_true", help="fill what is missing and list it")


def run(args: argparse.Namespace) -> None:
    from edge_moe.importers import import_checkpoint

    print(
        import_checkpoint(
            args.format, args.source, args.out, args.preset, args.set, args.tasks, args.allow_missing
        )
    )
