# SPDX-License-Identifier: Apache-2.0
"""Train a preset; Ctrl-C saves, --resume continues."""

import argparse
from pathlib import Path

from edge_moe.commands.options import DATA_HELP, add_preset, checkpoint_path


def add_options(parser: argparse.ArgumentParser) -> None:
    add_preset(parser)
    parser.add_argument("--data", default="scenes", help=DATA_HELP)
    parser.add_argument("--out", type=Path, help="folder for checkpoints and logs (default: runs/PRESET)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument(
        "--init", type=checkpoint_path, help="start from this checkpoint of the model or its dense twin"
    )
    parser.add_argument(
        "--quantised", type=Path, metavar="NPZ", help="fine-tune on the grids of this file of quantise"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--max-steps", type=int, help="stop after this many steps; the schedule keeps its length"
    )
    parser.add_argument("--val-every", type=int, default=1, help="epochs between validations")


def run(args: argparse.Namespace) -> None:
    from edge_moe.config import load_preset
    from edge_moe.train import run_training

    run_training(
        load_preset(args.preset, args.set),
        args.data,
        args.out or Path("runs") / Path(args.preset).stem,
        resume=args.resume,
        init=args.init,
        device=args.device,
        max_steps=args.max_steps,
        val_every=args.val_every,
        quantised=args.quantised,
    )
