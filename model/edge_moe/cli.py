# SPDX-License-Identifier: Apache-2.0
"""The ``edge-moe`` command: parses arguments, calls the library, prints one sentence on bad input."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_moe import __version__
from edge_moe.backends import PRETRAINED, pretrained_checkpoint
from edge_moe.cli_integer import DATA_HELP, add_commands
from edge_moe.errors import EdgeMoEError
from edge_moe_host.errors import EdgeMoEHostError

# Commands import what they need when they run: `edge-moe info` starts without torch.


def _info(args: argparse.Namespace) -> None:
    from edge_moe.config import load_preset
    from edge_moe.info import describe

    print(describe(load_preset(args.preset, args.set)))


def _train(args: argparse.Namespace) -> None:
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
        quantised=args.quantized,
    )


def _eval(args: argparse.Namespace) -> None:
    from edge_moe.eval.run import evaluate_checkpoint

    print(
        evaluate_checkpoint(
            args.checkpoint,
            args.data,
            tasks=args.tasks,
            json_out=args.json,
            usage_out=args.usage,
            baseline=args.baseline,
            limit=args.limit,
            device=args.device,
        )
    )


def _show(args: argparse.Namespace) -> None:
    from edge_moe.eval.show import show_dataset, show_images

    if bool(args.images) == bool(args.data):
        raise EdgeMoEError("give either pictures (files, folders, videos) or --data SPEC, and not both.")
    if args.data:
        paths = show_dataset(args.checkpoint, args.data, args.count, args.out, args.tasks, args.device)
    else:
        paths = show_images(args.checkpoint, args.images, args.out, args.tasks, args.every, args.device)
    for path in paths:
        print(path)


def _import(args: argparse.Namespace) -> None:
    from edge_moe.importers import import_checkpoint

    print(
        import_checkpoint(
            args.format, args.source, args.out, args.preset, args.set, args.tasks, args.allow_missing
        )
    )


def _slim(args: argparse.Namespace) -> None:
    from edge_moe.train.checkpoint import slim

    slim(args.checkpoint, args.out, half=not args.full)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


def _ablate(args: argparse.Namespace) -> None:
    from edge_moe.config import load_preset
    from edge_moe.experiments.ablation import run_ablation

    print(run_ablation(load_preset(args.preset, args.set), args.data, args.out, args.seeds, args.jobs))


def _bench(args: argparse.Namespace) -> None:
    from edge_moe.experiments.csim import benchmark_csim_models, csim_table
    from edge_moe.experiments.dispatch import benchmark_dispatch, dispatch_table
    from edge_moe.experiments.host import benchmark_host, host_table
    from edge_moe.experiments.reference import benchmark_checkpoint, reference_table
    from edge_moe.experiments.rendering import benchmark_rendering, rendering_table

    print(reference_table(benchmark_checkpoint(_checkpoint("pretrained"))))
    print()
    print(csim_table(benchmark_csim_models(_checkpoint("pretrained"))))
    print()
    print(host_table(benchmark_host()))
    print()
    print(dispatch_table(benchmark_dispatch()))
    print()
    print(rendering_table(benchmark_rendering()))


def _demo(args: argparse.Namespace) -> None:
    from edge_moe.experiments.demo import DemoOptions, run_demo

    print(run_demo(args.out, DemoOptions(args.checkpoint, args.count, args.board_python)))


def _checkpoint(text: str) -> Path:
    """A path, or the packaged weights by the name ``pretrained``."""
    return pretrained_checkpoint() if text == PRETRAINED else Path(text)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def build_parser() -> argparse.ArgumentParser:
    """Parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="edge-moe", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--version", action="version", version=f"edge-moe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    def preset_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("preset", help="preset name, NAME_dense for its dense twin, or a .toml file")
        override_option(sub)

    def override_option(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="change a value of the preset, such as train.lr=1e-3 (may be repeated)",
        )

    def common(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "checkpoint", type=_checkpoint, help="file, or 'pretrained' for the packaged tiny model"
        )
        sub.add_argument("--tasks", type=_list, help="comma-separated; default: all tasks of the model")
        sub.add_argument("--device", default="auto", help="auto, cpu or cuda")

    sub = command("info", _info, "Parameters and multiply-accumulates of a preset, per task.")
    preset_options(sub)

    sub = command("train", _train, "Train a preset; Ctrl-C saves, --resume continues.")
    preset_options(sub)
    sub.add_argument("--data", default="scenes", help=DATA_HELP)
    sub.add_argument("--out", type=Path, help="folder for checkpoints and logs (default: runs/PRESET)")
    sub.add_argument("--resume", action="store_true", help="continue the run in --out")
    sub.add_argument("--init", type=Path, help="start from this checkpoint of the model or its dense twin")
    sub.add_argument(
        "--quantized", type=Path, metavar="NPZ", help="fine-tune on the grids of this file of quantize"
    )
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda")
    sub.add_argument("--max-steps", type=int, help="stop after so many steps; the schedule keeps its length")
    sub.add_argument("--val-every", type=int, default=1, help="epochs between validations")

    sub = command("eval", _eval, "Metrics of a checkpoint at the labels' own resolution.")
    common(sub)
    sub.add_argument("--data", help=f"{DATA_HELP} (default: what it was trained on)")
    sub.add_argument("--json", type=Path, help="write the metrics to this file")
    sub.add_argument("--usage", type=Path, help="write a heat map of expert usage to this PNG")
    sub.add_argument("--baseline", type=Path, help="JSON of single-task models, to report Delta_m against")
    sub.add_argument("--limit", type=int, help="evaluate the first so many images only")

    sub = command("show", _show, "Side-by-side pictures of every task's prediction.")
    common(sub)
    sub.add_argument("images", nargs="*", type=Path, help="PNG or JPEG files, folders, or video files")
    sub.add_argument("--data", help=f"{DATA_HELP}: with ground truth, from its validation split")
    sub.add_argument("--count", type=int, default=6, help="pictures from --data")
    sub.add_argument("--every", type=int, default=1, help="use every so many-th frame of a video")
    sub.add_argument("--out", type=Path, default=Path("pictures"), help="folder for the pictures")

    sub = command("import", _import, "Convert published weights into a checkpoint of the same function.")
    sub.add_argument("format", choices=("m3vit", "edge-moe-bin"))
    sub.add_argument("source", type=Path, help="checkpoint file, or folder of .float32.bin files")
    sub.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    sub.add_argument("--preset", help="the preset it belongs to (default: inferred from the shapes)")
    override_option(sub)
    sub.add_argument(
        "--tasks", type=_list, help="task names in the order of the gates, such as semseg=7,depth=1"
    )
    sub.add_argument("--allow-missing", action="store_true", help="fill what is missing and list it")

    sub = command("slim", _slim, "Keep a checkpoint's weights only, in half precision.")
    sub.add_argument("checkpoint", type=Path)
    sub.add_argument("out", type=Path)
    sub.add_argument("--full", action="store_true", help="keep float32")

    sub = command("ablate", _ablate, "Routing modes against single-task and dense models, over seeds.")
    preset_options(sub)
    sub.add_argument("--data", default="scenes", help=DATA_HELP)
    sub.add_argument("--out", type=Path, default=Path("runs/ablation"))
    sub.add_argument("--seeds", type=int, default=3)
    sub.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")

    add_commands(command, _checkpoint, _list)

    sub = command(
        "demo", _demo, "Train, quantise, compile, run every backend, and report; goes on if stopped."
    )
    sub.add_argument(
        "checkpoint",
        nargs="?",
        type=_checkpoint,
        help="of a trained model, or 'pretrained' (default: train mini)",
    )
    sub.add_argument("--out", type=Path, default=Path("demo"), help="folder for report and all it is made of")
    sub.add_argument("--count", type=int, default=6, help="validation pictures that every backend runs")
    sub.add_argument(
        "--board-python", type=Path, default=Path(".venv-board/bin/python"),
        help="Python of the environment with pynq, for the simulated board",
    )  # fmt: skip

    command("bench", _bench, "Speed in one run: CPU references, C simulation, host, experts, renderer.")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit status."""
    # Before torch loads: threads that spin for work stall each other when cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        args.run(args)
    except (EdgeMoEError, EdgeMoEHostError) as error:
        print(f"edge-moe: {error}", file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        print("edge-moe: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
