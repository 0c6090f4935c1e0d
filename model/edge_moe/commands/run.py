# SPDX-License-Identifier: Apache-2.0
"""Run pictures through a bundle, on any backend."""

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_moe.packaged import packaged_model
from edge_moe.places import EXAMPLE_PICTURE
from edge_moe_host import Accelerator
from edge_moe_host.contract.bundle import Bundle
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import replacing
from edge_moe_host.runtime.accelerator import TaskCounters, parse_option
from edge_moe_host.runtime.images import frames


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="BUNDLE PICTURE",
        help="folder that compile wrote, then pictures, folders or videos; with --pretrained only these, or "
        "nothing for a packaged picture",
    )
    parser.add_argument(
        "--pretrained",
        action="store_true",
        help="use the packaged tiny model, which is compiled at its first use and kept",
    )
    parser.add_argument("--task", help="one task; default: all of the bundle")
    parser.add_argument("--backend", default="golden", help="golden (default), csim, onnx, pynq or torch")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="backend option, such as graphs=export for onnx, checkpoint=FILE for torch (may be repeated)",
    )
    parser.add_argument("--overlay", action="store_true", help="draw results over the picture")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder for the results")


def run(args: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        if args.pretrained:
            model = stack.enter_context(packaged_model())
            bundle, options = model.bundle, model.options(args.backend)
            images = args.paths or [EXAMPLE_PICTURE]
        elif len(args.paths) < 2:
            raise EdgeMoEError("there is no picture to run: name pictures after the bundle.")
        else:
            (bundle, *images), options = args.paths, {}
        options |= dict(map(parse_option, args.option))
        for line in run_bundle(
            bundle, images, args.out, args.task, args.backend, overlay=args.overlay, options=options
        ):
            print(line, flush=True)


def run_bundle(
    bundle: str | Path | Bundle,
    images: Sequence[Path],
    out: Path,
    task: str | None = None,
    backend: str = "golden",
    *,
    overlay: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Run pictures through a bundle and draw each task's map at the picture's size; yields each file written.

    ``overlay`` draws it over the picture. ``options`` are the backend's. The last lines state the device's
    time. Raises EdgeMoEError for bad input.
    """
    from PIL import Image

    with Accelerator.open(backend, bundle, **(options or {})) as accelerator:
        names = accelerator.tasks if task is None else (task,)
        for name in names:
            accelerator.image_size(name)  # an unknown task is an error before any picture is read
        written: set[str] = set()
        for source in images:
            for number, frame in enumerate(frames(source)):
                stem = frame.name
                if stem in written:  # the same name in another folder
                    stem = f"{source.stem}_{number}_{stem}"
                written.add(stem)
                for name, result in accelerator.run_tasks(frame.image, names).items():
                    path = out / f"{stem}.{name}.png"
                    with replacing(path) as temporary:
                        Image.fromarray(result.draw(frame.image if overlay else None)).save(temporary)
                    yield str(path)
        yield from _device_lines(backend, accelerator.counters())


def _device_lines(backend: str, counters: Mapping[str, TaskCounters]) -> Iterator[str]:
    for task, total in counters.items():
        if total.frames:
            cycles = f", {total.cycles / total.frames:,.0f} cycles" if total.cycles else ""
            mean = total.milliseconds / total.frames
            frames = "1 frame" if total.frames == 1 else f"{total.frames} frames"
            yield f"{task} on {backend}: {frames}, mean {mean:.1f} ms{cycles}"
