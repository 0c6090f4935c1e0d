# SPDX-License-Identifier: Apache-2.0
"""Run pictures through a bundle, on any backend."""

import argparse
import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe.commands.options import add_task, given_path, new_folder, require_pictures
from edge_moe.packaged import packaged_model
from edge_moe.places import EXAMPLE_PICTURE
from edge_moe_host import Accelerator
from edge_moe_host.contract.bundle import Bundle
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import replacing
from edge_moe_host.runtime.accelerator import TaskCounters, backend_class, parse_option
from edge_moe_host.runtime.drawing import above, depth_limit
from edge_moe_host.runtime.images import Frame, frames, unused_name
from edge_moe_host.runtime.result import Result


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="*",
        default=[],
        type=given_path,
        metavar="BUNDLE PICTURE",
        help="folder that compile wrote, then pictures, folders or videos; with --pretrained only these, or "
        "nothing for a packaged picture",
    )
    parser.add_argument(
        "--pretrained",
        action="store_true",
        help="use the packaged tiny model, which is compiled at its first use and kept",
    )
    add_task(parser, "bundle")
    parser.add_argument("--backend", default="golden", help="golden, csim, onnx, pynq or torch")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="backend option, such as graphs=export for onnx, checkpoint=FILE for torch (may be repeated)",
    )
    parser.add_argument("--overlay", action="store_true", help="draw results over the picture")
    parser.add_argument("--plain", action="store_true", help="leave out legend and scale")
    parser.add_argument("--out", type=new_folder, default=Path("pictures"), help="folder for the results")


def run(args: argparse.Namespace) -> None:
    require_pictures(args.paths if args.pretrained else args.paths[1:])
    backend_class(args.backend)  # an unknown one is an error before a model is compiled
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
            bundle,
            images,
            args.out,
            args.tasks,
            args.backend,
            overlay=args.overlay,
            legend=not args.plain,
            options=options,
        ):
            print(line, flush=True)


def run_bundle(
    bundle: str | Path | Bundle,
    images: Sequence[Path],
    out: Path,
    tasks: Sequence[str] | None = None,
    backend: str = "golden",
    *,
    overlay: bool = False,
    legend: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Run pictures through a bundle and draw each task's map at the picture's size; yields each file written.

    A picture gives a picture for each task and a video a video, above a legend or scale if ``legend`` is on.
    ``overlay`` draws the map over the picture. ``options`` are the backend's. The last lines state the
    device's time. Raises EdgeMoEError for bad input; what was drawn until then is kept.
    """
    with Accelerator.open(backend, bundle, **(options or {})) as accelerator:
        chosen = accelerator.tasks if tasks is None else tuple(tasks)
        for task in chosen:
            accelerator.image_size(task)  # an unknown task is an error before any picture is read
        streams = [(source, frames(source)) for source in images]  # and so is what is no picture
        used: set[str] = set()
        for source, stream in streams:
            first = next(stream)
            drawing = _Drawing(overlay, legend, first.rate is not None)
            write = _write_pictures if first.rate is None else _write_videos
            found = (
                (frame, accelerator.run_tasks(frame.image, chosen))
                for frame in itertools.chain([first], stream)
            )
            yield from write(found, drawing, source, out, used)
        yield from _device_lines(backend, accelerator.counters())


_Found = Iterator[tuple[Frame, Mapping[str, Result]]]


class _Drawing:
    """Draws results; a video keeps the scale and the legend of its first frame."""

    def __init__(self, overlay: bool, legend: bool, video: bool) -> None:
        self.overlay, self.legend, self.video = overlay, legend, video
        self._kept: dict[str, tuple[float | None, np.ndarray | None]] = {}

    def __call__(self, result: Result) -> np.ndarray:
        limit, strip = self._kept.get(result.task) or self._scale(result)
        if self.video:
            self._kept[result.task] = limit, strip
        drawn = result.draw(result.image if self.overlay else None, limit)
        return drawn if strip is None else above(drawn, strip)

    def _scale(self, result: Result) -> tuple[float | None, np.ndarray | None]:
        from edge_moe.eval.visualize import legend_strip

        limit = depth_limit(result.values) if result.kind == "scalar" else None
        return limit, legend_strip(result, limit, self.video) if self.legend else None


def _write_pictures(
    found: _Found, drawing: _Drawing, source: Path, out: Path, used: set[str]
) -> Iterator[str]:
    from PIL import Image

    for frame, results in found:
        stem = unused_name(frame.name, source, used)
        for task, result in results.items():
            path = out / f"{stem}.{task}.png"
            with replacing(path) as temporary:
                Image.fromarray(drawing(result)).save(temporary)
            yield str(path)


def _write_videos(found: _Found, drawing: _Drawing, source: Path, out: Path, used: set[str]) -> Iterator[str]:
    stem = unused_name(source.stem, source, used)
    videos: dict[Path, Callable[[np.ndarray], None]] = {}
    ended: BaseException | None = None
    with contextlib.ExitStack() as stack:
        try:
            for frame, results in found:
                for task, result in results.items():
                    path = out / f"{stem}.{task}.mp4"
                    if path not in videos:
                        videos[path] = stack.enter_context(_video(path, frame.rate or 0))
                    videos[path](drawing(result))
        except (EdgeMoEError, KeyboardInterrupt) as error:
            ended = error  # the videos keep the frames until then
    yield from map(str, videos)
    if ended is not None:
        raise ended


@contextlib.contextmanager
def _video(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a picture to a video, which appears when the block ends well."""
    import cv2

    writer = cv2.VideoWriter()

    def add(picture: np.ndarray) -> None:
        if not writer.isOpened():
            height, width = picture.shape[:2]
            writer.open(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    with replacing(path) as temporary:
        try:
            yield add
        finally:
            writer.release()


def _device_lines(backend: str, counters: Mapping[str, TaskCounters]) -> Iterator[str]:
    for task, total in counters.items():
        if total.frames:
            cycles = f", {total.cycles / total.frames:,.0f} cycles" if total.cycles else ""
            mean = total.milliseconds / total.frames
            frames = "1 frame" if total.frames == 1 else f"{total.frames} frames"
            yield f"{task} on {backend}: {frames}, mean {mean:.1f} ms{cycles}"
