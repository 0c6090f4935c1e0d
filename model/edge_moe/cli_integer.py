# SPDX-License-Identifier: Apache-2.0
"""Commands of the integer flow: quantize, export, compile, inspect, estimate, resources, run."""

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_moe.errors import EdgeMoEError

AddCommand = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]
DATA_HELP = "scenes, cityscapes:DIR, nyud:DIR or pascal:DIR"


def add_commands(
    command: AddCommand, checkpoint: Callable[[str], Path], names: Callable[[str], list[str]]
) -> None:
    """Add the commands; ``checkpoint`` and ``names`` read a path and a comma-separated list."""
    sub = command("quantize", _quantize, "Integer network of a checkpoint, by post-training quantisation.")
    sub.add_argument("checkpoint", type=checkpoint, help="file, or 'pretrained' for the packaged tiny model")
    sub.add_argument("--out", type=Path, required=True, help="file to write, *.int.npz")
    _quantisation_options(sub)
    sub.add_argument("--evaluate", action="store_true", help="measure float and integer form")
    sub.add_argument("--limit", type=int, help="evaluate the first so many images only")
    sub.add_argument("--report", action="store_true", help="signal-to-noise ratio of every intermediate")

    sub = command("export", _export, "path.onnx (integer-exact) and path.qdq.onnx of each task.")
    sub.add_argument("source", type=checkpoint, help="checkpoint, 'pretrained', or *.int.npz of quantize")
    sub.add_argument("--task", type=names, dest="tasks", help="comma-separated; default: all of the model")
    sub.add_argument("--out", type=Path, default=Path("export"), help="folder; a task's files go to OUT/TASK")
    sub.add_argument("--verify-images", type=int, default=10, help="held-out images to compare on")
    _quantisation_options(sub)

    sub = command("compile", _compile, "Bundle of program and weights from the path.onnx of each task.")
    sub.add_argument("paths", nargs="+", type=Path, help="path.onnx of one task or several of one model")
    sub.add_argument("--accelerator", default="zcu104", help="preset name, or a .toml file")
    sub.add_argument("--out", type=Path, required=True, help="folder to write")
    sub.add_argument("--images", nargs="+", type=Path, default=[], help="pictures to verify on")
    sub.add_argument("--data", help=f"verify on validation images of {DATA_HELP} (default: two random ones)")
    sub.add_argument("--verify-images", type=int, default=10, help="how many of --data")
    sub.add_argument("--no-verify", action="store_true", help="do not run the bundle after compiling")

    sub = command("inspect", _inspect, "A bundle's programs as assembly, with cycles, bytes and MACs.")
    _bundle_options(sub)

    sub = command("estimate", _estimate, "Modelled cycles, memory traffic and roofline of a bundle.")
    _bundle_options(sub)
    sub.add_argument(
        "--images", nargs="+", type=Path, default=[], help="use the experts as these pictures do"
    )
    sub.add_argument("--plot", type=Path, help="write a plot to this SVG or PNG file")

    sub = command(
        "resources", _resources, "DSP, block RAM and UltraRAM that an accelerator is expected to take."
    )
    sub.add_argument("--accelerator", default="zcu104", help="preset name, or a .toml file")
    sub.add_argument("--json", type=Path, help="write the totals to this file")

    sub = command("run", _run, "Run pictures through a bundle, on any backend.")
    sub.add_argument(
        "paths", nargs="+", type=Path, metavar="BUNDLE PICTURE",
        help="folder that compile wrote, then pictures, folders or videos; with --pretrained these alone",
    )  # fmt: skip
    sub.add_argument(
        "--pretrained",
        action="store_true",
        help="the packaged tiny model; compiled at its first use, and kept",
    )
    sub.add_argument("--task", help="one task; default: all of the bundle")
    sub.add_argument(
        "--backend", default="golden", help="golden (default), csim (make -C hls csim), onnx, pynq or torch"
    )
    sub.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE",
        help="of the backend, such as graphs=export for onnx, checkpoint=FILE for torch (may be repeated)",
    )  # fmt: skip
    sub.add_argument("--overlay", action="store_true", help="draw results over the picture")
    sub.add_argument("--out", type=Path, default=Path("pictures"), help="folder for the results")


def _bundle_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("bundle", type=Path, help="folder that compile wrote")
    sub.add_argument("--task", help="one task; default: all of the bundle")


def _quantisation_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", help=f"calibration: {DATA_HELP} (default: what it was trained on)")
    sub.add_argument("--observer", choices=("minmax", "percentile", "mse"), help="of activation ranges")
    sub.add_argument("--percentile", type=float, help="for that observer, such as 99.99")
    sub.add_argument("--images", type=int, help="training images that calibrate")
    sub.add_argument("--rounding", choices=("nearest", "gptq"), help="of weights")
    sub.add_argument("--no-bias-correction", action="store_false", dest="bias_correction", default=None)
    sub.add_argument("--expert-bits", type=int, metavar="BITS", help="of every expert's weights, 2 to 8")
    sub.add_argument("--average-expert-bits", type=float, metavar="BITS", help="a width for each expert")
    sub.add_argument(
        "--drop-unused-experts", action="store_true", default=None,
        help="leave out of a task's path what it never used in calibration",
    )  # fmt: skip


def _given_options(args: argparse.Namespace) -> dict[str, Any]:
    fields = ("observer", "percentile", "images", "rounding", "bias_correction", "expert_bits",
              "average_expert_bits", "drop_unused_experts")  # fmt: skip
    return {name: getattr(args, name) for name in fields if getattr(args, name) is not None}


def _quantize(args: argparse.Namespace) -> None:
    from edge_moe.quant.command import quantize_checkpoint
    from edge_moe.quant.options import QuantOptions

    options = QuantOptions(**_given_options(args))
    print(
        quantize_checkpoint(
            args.checkpoint,
            args.out,
            data=args.data,
            options=options,
            evaluate=args.evaluate,
            report=args.report,
            limit=args.limit,
        )
    )


def _export(args: argparse.Namespace) -> None:
    from edge_moe.export.source import export_source
    from edge_moe.quant.options import QuantOptions

    given = _given_options(args)
    if given and args.source.name.endswith(".int.npz"):
        option = next(iter(given)).replace("_", "-")
        raise EdgeMoEError(f"'{args.source}' is quantised already: --{option} belongs to quantize.")
    options = QuantOptions(**given)
    print(export_source(args.source, args.tasks, args.out, args.data, options, args.verify_images))


def _compile(args: argparse.Namespace) -> None:
    from edge_moe.compiler.command import compile_command

    print(
        compile_command(
            args.paths,
            args.accelerator,
            args.out,
            args.images,
            data=args.data,
            verify_images=args.verify_images,
            verify=not args.no_verify,
        )
    )


def _inspect(args: argparse.Namespace) -> None:
    from edge_moe.compiler.command import inspect_command

    print(inspect_command(args.bundle, args.task))


def _estimate(args: argparse.Namespace) -> None:
    from edge_moe.compiler.command import estimate_command

    print(estimate_command(args.bundle, args.task, args.images, args.plot))


def _resources(args: argparse.Namespace) -> None:
    from edge_moe.codegen.inventory import inventory
    from edge_moe.codegen.resources import require_fit, table, write_totals
    from edge_moe.compiler.accelerator import load_accelerator

    listed = inventory(load_accelerator(args.accelerator))
    print(table(listed, args.accelerator))
    if args.json:
        write_totals(listed, args.json)
    require_fit(listed, args.accelerator)


def _run(args: argparse.Namespace) -> None:
    from edge_moe.compiler.command import run_command
    from edge_moe.compiler.packaged import packaged_model

    with contextlib.ExitStack() as stack:
        bundle, images, options = args.paths[0], args.paths[1:], {}
        if args.pretrained:
            model = stack.enter_context(packaged_model())
            bundle, images, options = model.bundle, args.paths, model.options(args.backend)
        if not images:
            raise EdgeMoEError("there is no picture to run: name pictures behind the bundle.")
        options |= dict(map(_option, args.option))
        for line in run_command(
            bundle, images, args.out, args.task, args.backend, overlay=args.overlay, options=options
        ):
            print(line, flush=True)


def _option(text: str) -> tuple[str, str | int]:
    key, equals, value = text.partition("=")
    if not equals:
        raise EdgeMoEError(f"option '{text}' has no value: write KEY=VALUE.")
    return key.strip(), int(value) if value.isdecimal() else value
