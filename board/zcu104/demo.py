# SPDX-License-Identifier: Apache-2.0
"""Runs pictures, a video or a camera on the accelerator, which changes its task with every frame.

    python demo.py BUNDLE photo.jpg pictures/ clip.mp4 --out overlays   # overlays and a table
    python demo.py BUNDLE --camera 0 --serve 8080                       # a live page for browsers
    python demo.py BUNDLE photo.jpg --simulated                         # without a board

Every picture runs through all tasks, one after the other; the tasks take turns with the frames of a video or
camera. With ``--serve`` every frame runs through all tasks, and everything repeats until Ctrl-C.
"""

import argparse
import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from command import Parser, packages, whole

with packages("demo"):
    from demo_figures import Stretch, table
    from demo_web import DemoServer, Live, encode

    from edge_moe_host.errors import EdgeMoEError, ImageError, TaskError
    from edge_moe_host.files import replacing
    from edge_moe_host.runtime.accelerator import Accelerator
    from edge_moe_host.runtime.images import IMAGE_SUFFIXES, Frame, frames, is_camera
    from edge_moe_host.runtime.result import Result
    from edge_moe_host.runtime.stream import READER_SECONDS, Channel

STRETCH_SECONDS, LONGEST_STRETCH = 1.0, 10.0  # of figures; a stretch has a frame of every task
OUT = Path("overlays")
INTERRUPTED = 130


def is_still(source: Any) -> bool:
    """Whether a source is a picture or a folder of pictures, not a video or camera."""
    path = Path(str(source))
    return not is_camera(source) and (os.path.isdir(path) or path.suffix.lower() in IMAGE_SUFFIXES)


def open_sources(sources: Sequence[Any], served: bool) -> list[Iterator[Frame]]:
    """The frames of each source; ImageError at once for one that cannot be used."""
    opened = [(source, frames(source)) for source in sources]
    return [newest(found) if served and is_camera(source) else found for source, found in opened]


def newest(source: Iterator[Frame]) -> Iterator[Frame]:
    """Frames of a camera that is read all the time: the newest at each moment."""
    channel: Channel[Frame] = Channel(1, latest=True)

    def read() -> None:
        try:
            while channel.put(next(source)):
                pass
        except BaseException as error:
            channel.finish(None if isinstance(error, StopIteration) else error)
        source.close()

    reader = threading.Thread(target=read, daemon=True, name="camera")
    reader.start()
    try:
        while (frame := channel.take()) is not None:
            yield frame
    finally:
        channel.close()
        reader.join(READER_SECONDS)


def in_turn(
    opened: list[Iterator[Frame]], sources: Sequence[Any], tasks: Sequence[str], served: bool
) -> Iterator[Frame]:
    """The frames of all sources, whose names are unique in a round.

    Pictures come once for each task. If they are ``served``, videos do so too, and all sources repeat.
    """
    while True:
        for number, (source, pictures) in enumerate(zip(sources, opened, strict=True), 1):
            times = len(tasks) if served or is_still(source) else 1
            for frame in pictures:
                name = frame.name if len(sources) == 1 else f"{number}_{frame.name}"
                yield from itertools.repeat(Frame(name, frame.image), times)
        if not served:
            return
        opened = open_sources(sources, served)


def run(
    accelerator: Any,
    results: Iterator[Result],
    total: Stretch,
    seen: Callable[[Result], None],
    measured: Callable[[Stretch], None],
) -> None:
    """Take all results; ``total`` is right even when Ctrl-C ends this."""
    more = True
    while more:
        stretch, energy = Stretch(list(total.frames)), None
        try:
            with accelerator.power.measure() as energy:
                more = _for_a_while(results, stretch, seen)
        finally:
            if energy is not None:
                stretch.end(energy)
                total.add(stretch)
        measured(stretch)


def _for_a_while(results: Iterator[Result], stretch: Stretch, seen: Callable[[Result], None]) -> bool:
    """Whether there may be more."""
    begin = time.monotonic()
    for result in results:
        stretch.count(result)
        seen(result)
        passed = time.monotonic() - begin
        if passed > (STRETCH_SECONDS if all(stretch.frames.values()) else LONGEST_STRETCH):
            return True
    return False


class Overlays:
    """Writes an overlay of each result into a folder."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EdgeMoEError(f"cannot make folder '{folder}': {error.strerror or error}.") from None
        self.folder = folder

    def __call__(self, result: Result) -> None:
        path = self.folder / f"{result.name}_{result.task}.png"
        with replacing(path, durable=False) as temporary:
            temporary.write_bytes(encode(result.draw(result.image), "PNG"))
        print(f"{path}  {result.task}  {1e3 * result.seconds:.3f} ms", flush=True)


@contextlib.contextmanager
def open_board(args: argparse.Namespace) -> Iterator[Any]:
    """The bundle on the board that the arguments name."""
    options = {"bitstream": args.bitfile, "address": args.address}
    with contextlib.ExitStack() as stack:
        if args.simulated:
            with packages("demo"):
                from simulated import simulated_board

            options["device"] = stack.enter_context(simulated_board(args.bundle))
        yield stack.enter_context(Accelerator.open("pynq", args.bundle, **options))


def demo(args: argparse.Namespace) -> bool:
    """Run the command; False when Ctrl-C ended it. EdgeMoEError for bad input or a failure."""
    sources = args.sources if args.camera is None else [args.camera]
    if not sources:
        raise ImageError("there is nothing to show: name pictures, folders or videos, or give --camera.")
    served = args.serve is not None
    opened = open_sources(sources, served)
    with open_board(args) as accelerator:
        tasks = args.task.split(",") if args.task is not None else list(accelerator.tasks)
        if len(set(tasks)) < len(tasks):
            raise TaskError(f"--task {args.task} names a task twice.")
        source = in_turn(opened, sources, tasks, served)
        policy = "latest" if all(map(is_camera, sources)) and not served else "block"
        total = Stretch(tasks)
        with contextlib.closing(accelerator.stream(source, tasks, policy=policy)) as stream:
            whole = show(accelerator, itertools.islice(stream, args.frames), total, args)
        print(table(total, accelerator.power.simulated))
    return whole


def show(accelerator: Any, results: Iterator[Result], total: Stretch, args: argparse.Namespace) -> bool:
    """Write or serve all results; False when Ctrl-C ended it."""
    board, tasks = getattr(accelerator.device, "name", "board"), list(total.frames)
    print(f"{board}: {args.bundle}, {', '.join(tasks)}", flush=True)
    try:
        if args.serve is None:
            run(accelerator, results, total, Overlays(args.out), lambda _: None)
        else:
            live = Live(tasks, board=board, simulated=accelerator.power.simulated, bundle=args.bundle.name)
            with DemoServer(live, *args.serve) as server:
                print(f"{server.url}  (Ctrl-C ends)", flush=True)
                run(accelerator, results, total, live.show, live.measured)
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return False
    return True


def _port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port: give [ADDRESS:]PORT, such as 8080")
    return host, int(port)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    assert __doc__
    parser = Parser(prog="demo", description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("sources", nargs="*", type=Path, metavar="SOURCE", help="picture, folder or video")
    parser.add_argument(
        "--camera",
        type=whole("the number of a camera", 0),
        metavar="N",
        help="USB camera /dev/videoN in place of sources",
    )
    parser.add_argument("--task", metavar="A,B", help="tasks that take turns (all of the bundle)")
    parser.add_argument("--bitfile", type=Path, metavar="FILE", help="overlay, with its .hwh beside it")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--simulated", action="store_true", help="run on the simulated board")
    where.add_argument("--address", metavar="HOST", help="a board that runs PYNQ.remote")
    out = parser.add_mutually_exclusive_group()
    out.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"overlay pictures ({OUT})")
    out.add_argument("--serve", type=_port, metavar="[ADDRESS:]PORT", help="a live web page instead")
    parser.add_argument(
        "--frames", type=whole("a number of frames", 1), metavar="N", help="stop after N frames"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 for bad input or a failing board, 130 when Ctrl-C left pictures undone."""
    args = parser().parse_args(argv)
    if args.sources and args.camera is not None:
        parser().error("give sources or --camera, not both")
    try:
        whole = demo(args)
    except EdgeMoEError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return INTERRUPTED
    endless = args.serve is not None or args.camera is not None
    return 0 if whole or endless else INTERRUPTED


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a name may have signs that the terminal does not
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: the board is released
    sys.exit(main())
