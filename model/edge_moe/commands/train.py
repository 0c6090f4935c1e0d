# SPDX-License-Identifier: Apache-2.0
"""Train a preset; Ctrl-C saves, --resume continues."""

import argparse
from pathlib import Path

from edge_moe.commands.options import (
    DATA_HELP,
    add_overrides,
    at_least,
    given_path,
    new_folder,
)
from edge_moe.packaged import find_checkpoint
from edge_moe_host.errors import EdgeMoEError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "preset", nargs="?", help="preset name, NAME_dense for its dense twin, or a .toml file"
    )
    add_overrides(parser)
    parser.add_argument("--data", help=f"{DATA_HELP} (default: scenes)")
    parser.add_argument(
        "--out", type=new_folder, help="folder for checkpoints and logs (default: runs/PRESET)"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="continue the run in this folder, or in --out, with its preset, data and --set; --set "
        "train.epochs=N lengthens it: the learning rate goes on as in a run of N epochs",
    )
    parser.add_argument(
        "--init",
        type=find_checkpoint,
        help="start from this: a checkpoint of the model or its dense twin, a ViT or a DeiT",
    )
    parser.add_argument(
        "--quantised", type=given_path, metavar="NPZ", help="fine-tune on the grids of this file of quantise"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--max-steps", type=at_least(1), help="stop after this many steps; the schedule keeps its length"
    )
    parser.add_argument(
        "--val-every", type=at_least(0), help="epochs between validations (default: 1); 0: none"
    )


def run(args: argparse.Namespace) -> None:
    from edge_moe.config import load_preset, preset_from, preset_names
    from edge_moe.train import LAST, load_run, run_training

    resume, preset_name, out = args.resume is not None, args.preset, args.out
    if args.resume in preset_names() and not preset_name:  # edge-moe train --resume mini --out runs/mini
        preset_name = args.resume
    elif args.resume:
        if out is not None:
            raise EdgeMoEError("--resume RUN and --out both name a folder: give one of them.")
        folder = Path(args.resume)
        out = folder.parent if folder.name == LAST else folder
    if preset_name:
        preset = load_preset(preset_name, args.set)
        out = out or Path("runs") / Path(preset_name).stem
    if out is None:
        raise EdgeMoEError("what to train is missing: give a preset, or --resume with a run's folder.")
    data = args.data
    if resume:
        saved = load_run(out)
        data = data or saved.data
        if not preset_name:
            preset = preset_from(saved.preset, args.set)
    run_training(
        preset,
        data or "scenes",
        out,
        resume=resume,
        init=args.init,
        device=args.device,
        max_steps=args.max_steps,
        val_every=args.val_every,
        quantised=args.quantised,
    )
