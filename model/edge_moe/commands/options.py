# SPDX-License-Identifier: Apache-2.0
"""Options that several subcommands share, and parsers of their values."""

import argparse
import dataclasses
from pathlib import Path

from edge_moe.packaged import find_checkpoint
from edge_moe.quant.options import QuantOptions
from edge_moe_host.errors import EdgeMoEError

CHECKPOINT_HELP = "file, folder of a training run, or 'pretrained' for the packaged tiny model"
DATA_HELP = "scenes, folder:DIR, cityscapes:DIR, nyud:DIR, pascal:DIR or MODULE:CLASS:DIR"


def name_list(text: str) -> list[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def add_preset(parser: argparse.ArgumentParser) -> None:
    """A preset and changes to it."""
    parser.add_argument("preset", help="preset name, NAME_dense for its dense twin, or a .toml file")
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Changes to a preset."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the preset, such as train.lr=1e-3 (may be repeated)",
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """A checkpoint, its tasks, and the device that runs it."""
    parser.add_argument("checkpoint", type=find_checkpoint, help=CHECKPOINT_HELP)
    add_task(parser, "model")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """A bundle and its tasks."""
    parser.add_argument("bundle", type=Path, help="folder that compile wrote")
    add_task(parser, "bundle")


def add_task(parser: argparse.ArgumentParser, whole: str) -> None:
    """Some of a model's tasks."""
    parser.add_argument(
        "--task",
        type=name_list,
        dest="tasks",
        metavar="TASK[,TASK]",
        help=f"comma-separated; default: all of the {whole}",
    )


def add_accelerator(parser: argparse.ArgumentParser) -> None:
    """An accelerator."""
    parser.add_argument("--accelerator", default="zcu104", help="preset name, or a .toml file")


def add_quantisation(parser: argparse.ArgumentParser) -> None:
    """Options of quantisation; :func:`quantisation` reads them."""
    parser.add_argument(
        "--data", help=f"calibration: {DATA_HELP}, or images:DIR (default: what it was trained on)"
    )
    parser.add_argument("--observer", choices=("minmax", "percentile", "mse"), help="activation ranges")
    parser.add_argument("--percentile", type=float, help="for the observer percentile, such as 99.99")
    parser.add_argument("--images", type=int, help="number of training images for calibration")
    parser.add_argument("--rounding", choices=("nearest", "gptq"), help="of weights")
    parser.add_argument("--no-bias-correction", action="store_false", dest="bias_correction", default=None)
    parser.add_argument("--expert-bits", type=int, metavar="BITS", help="bits of experts' weights, 2 to 8")
    parser.add_argument("--average-expert-bits", type=float, metavar="BITS", help="a width per expert")
    parser.add_argument(
        "--drop-unused-experts",
        action="store_true",
        default=None,
        help="leave out experts that a task never used in calibration",
    )


def quantisation(args: argparse.Namespace, quantised: Path | None = None) -> QuantOptions:
    """The options of :func:`add_quantisation`; a file that is already ``quantised`` takes none."""
    names = [field.name for field in dataclasses.fields(QuantOptions)]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if given and quantised is not None:
        option = next(iter(given)).replace("_", "-")
        raise EdgeMoEError(f"'{quantised}' is quantised already: --{option} belongs to quantise.")
    return QuantOptions(**given)
