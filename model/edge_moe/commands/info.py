# SPDX-License-Identifier: Apache-2.0
"""Parameters and multiply-accumulates of a preset, per task; does it fit an accelerator."""

import argparse

from edge_moe.commands.options import add_preset


def add_options(parser: argparse.ArgumentParser) -> None:
    add_preset(parser)
    parser.add_argument("--accelerator", help="say whether the model fits it: preset name, or a .toml file")


def run(args: argparse.Namespace) -> None:
    from edge_moe.config import load_preset
    from edge_moe.info import describe

    preset = load_preset(args.preset, args.set)
    text = describe(preset)
    if args.accelerator is not None:
        from edge_moe.compiler.fit import describe_fit

        text += f"\n\n{describe_fit(preset.model, args.accelerator)}"
    print(text)
