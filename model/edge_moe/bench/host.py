# SPDX-License-Identifier: Apache-2.0
"""Benchmark: the time that the host runtime adds to a frame, without the accelerator's own time."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_moe.bench.csim import build_csim
from edge_moe.config import load_preset
from edge_moe.export.source import validation_images
from edge_moe.packaged import packaged_model
from edge_moe_host.runtime.accelerator import Accelerator

FRAMES = 15


@dataclass(frozen=True)
class HostTime:
    """Median and largest milliseconds of :meth:`Accelerator.run` outside the accelerator's library."""

    task: str
    size: tuple[int, int]
    median: float
    largest: float


class _TimedCall:
    """A function that adds up the seconds spent in it."""

    def __init__(self, function: Any) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any) -> Any:
        start = time.thread_time()
        try:
            return self.function(*arguments)
        finally:
            self.seconds += time.thread_time() - start


def benchmark_host(frames: int = FRAMES) -> list[HostTime]:
    """Processor time of :meth:`Accelerator.run` for the packaged model in C simulation on scenes of its
    size, without the time inside the library.

    Included: checks, copies, the call, and the whole map at the picture's size (depths, or the largest of the
    class scores). Excluded: reading a file, and drawing.
    """
    build_csim()
    config = load_preset("m3vit_tiny_cityscapes").model
    _, pictures = validation_images(config, "scenes", frames)
    with packaged_model() as model, Accelerator.open("csim", model.bundle) as accelerator:
        return time_tasks(accelerator, pictures)


def time_tasks(accelerator: Accelerator, pictures: np.ndarray) -> list[HostTime]:
    """Each task of an accelerator in C simulation on uint8 ``pictures`` [n, h, w, 3]."""
    csim = accelerator._csim  # type: ignore[attr-defined]
    library = csim._run = _TimedCall(csim._run)
    return [_time_task(accelerator, task, pictures, library) for task in accelerator.tasks]


def _time_task(accelerator: Accelerator, task: str, pictures: np.ndarray, library: _TimedCall) -> HostTime:
    accelerator.run(pictures[0], task)  # makes what is made once: interpolation tables, the library's memory
    times = []
    for picture in pictures:
        library.seconds, start = 0.0, time.thread_time()
        result = accelerator.run(picture, task)
        times.append(1e3 * (time.thread_time() - start - library.seconds))
    return HostTime(task, result.image_size, statistics.median(times), max(times))


def host_table(rows: Sequence[HostTime]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "Host runtime per frame of m3vit_tiny, picture to full-size map: processor time beside simulation",
        "",
        "| task | picture | median, ms | largest, ms |",
        "|---|---|---:|---:|",
    ]
    lines += [
        f"| {row.task} | {row.size[0]}x{row.size[1]} | {row.median:.2f} | {row.largest:.2f} |" for row in rows
    ]
    return "\n".join(lines)
