# SPDX-License-Identifier: Apache-2.0
"""Options that several subcommands share, and parsers of their values."""

import argparse
import dataclasses
import os
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable
from pathlib import Path

from edge_moe.packaged import find_checkpoint
from edge_moe.quant.options import QuantOptions
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import kind

CHECKPOINT_HELP = "file, folder of a training run, or 'pretrained' for the packaged tiny model"
DATA_HELP = "scenes, folder:DIR, cityscapes:DIR, nyud:DIR, pascal:DIR or MODULE:CLASS:DIR"


def given_path(text: str) -> Path:
    """A path that is not empty."""
    if not text:
        raise ArgumentTypeError("the path is empty")
    return Path(text)


def new_file(*suffixes: str) -> Callable[[str], Path]:
    """Parser of a file's path that can be written to; the name ends in one of the ``suffixes``, if any."""

    def parse(text: str) -> Path:
        path = given_path(text)
        if not path.name or kind(path) == "folder":
            raise ArgumentTypeError(f"'{path}' is a folder: give a file's name")
        if suffixes and not path.name.endswith(suffixes):
            raise ArgumentTypeError(f"'{path}' must end in {' or '.join(suffixes)}")
        _require_writable(path.absolute().parent)
        return path

    return parse


def new_folder(text: str) -> Path:
    """Path of a folder that can be written to or made."""
    path = given_path(text)
    _require_writable(path.absolute())
    return path


def _require_writable(folder: Path) -> None:
    found = next(place for place in (folder, *folder.parents) if kind(place))
    if kind(found) != "folder":
        raise ArgumentTypeError(f"'{found}' exists and is not a folder")
    if not os.access(found, os.W_OK):
        raise ArgumentTypeError(f"you may not write to '{found}'")


def at_least(least: int) -> Callable[[str], int]:
    """Parser of a whole number."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(f"'{text}' is no whole number") from None
        if value < least:
            raise ArgumentTypeError(f"{value} is not allowed: it must be at least {least}")
        return value

    return parse


def require_pictures(paths: Iterable[Path]) -> None:
    """EdgeMoEError for a picture, folder or video that does not exist."""
    for path in paths:
        if not kind(path):
            raise EdgeMoEError(f"'{path}' does not exist: give pictures, folders or videos.")


def refuse_with(given: bool, option: str, why: str) -> None:
    """EdgeMoEError where an option was given that has no effect beside the others."""
    if given:
        raise EdgeMoEError(f"{option} has no effect {why}: leave it out.")


def name_list(text: str) -> list[str]:
    """The parts of a comma-separated list, each once."""
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise ArgumentTypeError(f"'{text}' has an empty name: write A or A,B")
    return list(dict.fromkeys(names))


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
    parser.add_argument("bundle", type=given_path, help="folder that compile wrote")
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
    parser.add_argument(
        "--observer", choices=("minmax", "percentile", "mse"), help="activation ranges (default: mse)"
    )
    parser.add_argument(
        "--percentile", type=float, help="for the observer percentile, such as 99.9 (default: 99.99)"
    )
    parser.add_argument(
        "--images", type=at_least(1), help="number of training images for calibration (default: 32)"
    )
    parser.add_argument("--rounding", choices=("nearest", "gptq"), help="of weights (default: gptq)")
    parser.add_argument(
        "--no-bias-correction",
        action="store_false",
        dest="bias_correction",
        default=None,
        help="do not correct biases for the mean error of the weights",
    )
    parser.add_argument(
        "--expert-bits", type=int, metavar="BITS", help="bits of experts' weights, 2 to 8 (default: 8)"
    )
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
    refuse_with(
        "percentile" in given and given.get("observer") != "percentile",
        "--percentile",
        "without --observer percentile",
    )
    refuse_with(
        {"expert_bits", "average_expert_bits"} <= set(given), "--expert-bits", "beside --average-expert-bits"
    )
    return QuantOptions(**given)
