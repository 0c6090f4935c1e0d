# SPDX-License-Identifier: Apache-2.0
"""Convert published weights into a checkpoint: of the same function, or a start for training."""

import argparse

from edge_moe.commands.options import add_overrides, given_path, name_list, new_file
from edge_moe_host.errors import EdgeMoEError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "format", choices=("vit", "m3vit", "edge-moe-bin"), help="whose form the weights have"
    )
    parser.add_argument("source", type=given_path, help="file of weights, or folder of .float32.bin files")
    parser.add_argument("--out", type=new_file(), required=True, help="checkpoint to write")
    parser.add_argument("--preset", help="the preset it belongs to (vit: must be given; others: inferred)")
    add_overrides(parser)
    parser.add_argument(
        "--task",
        type=name_list,
        dest="tasks",
        help="task names in the order of the gates, such as semseg=7,depth=1",
    )
    parser.add_argument("--source-grid", metavar="RxC", help="rows and columns of patches in the source")
    parser.add_argument("--allow-missing", action="store_true", help="fill what is missing and list it")


def grid(text: str) -> tuple[int, int]:
    """ROWSxCOLUMNS."""
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise EdgeMoEError(f"--source-grid {text}: give rows and columns, such as 24x32.")
    return int(rows), int(columns)


def run(args: argparse.Namespace) -> None:
    from edge_moe.importers import import_checkpoint

    print(
        import_checkpoint(
            args.format,
            args.source,
            args.out,
            args.preset,
            args.set,
            args.tasks,
            args.allow_missing,
            None if args.source_grid is None else grid(args.source_grid),
        )
    )
