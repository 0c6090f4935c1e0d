# SPDX-License-Identifier: Apache-2.0
"""Benchmark: scenes rendered per second on one core, and the time that each set of labels adds."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2

from edge_moe.scenes import render_scene

SIZE = (128, 256)
LABELS: dict[str, dict[str, int]] = {
    "semseg and depth": {"semseg": 7, "depth": 1},
    "all six tasks": {"semseg": 7, "depth": 1, "normals": 3, "edge": 1, "saliency": 1, "human_parts": 7},
}


@dataclass(frozen=True)
class RenderingTime:
    """Rate of one set of labels: images per second of one core's processor time."""

    labels: str
    images_per_second: float
    ratio: float  # time for one image against the first set


def benchmark_rendering(
    labels: Mapping[str, Mapping[str, int]] = LABELS, images: int = 60, repeats: int = 3
) -> list[RenderingTime]:
    """Render the same ``images`` scenes for each set of labels in turn; the median of ``repeats``."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    times: dict[str, list[float]] = {name: [] for name in labels}
    try:
        for turn in range(repeats + 1):
            for name, tasks in labels.items():
                start = time.process_time()
                for index in range(images):
                    render_scene(0, index, SIZE, tasks)
                if turn:  # the first turn warms up
                    times[name].append((time.process_time() - start) / images)
    finally:
        cv2.setNumThreads(threads)
    medians = {name: statistics.median(series) for name, series in times.items()}
    first = next(iter(medians.values()))
    return [RenderingTime(name, 1 / median, median / first) for name, median in medians.items()]


def rendering_table(rows: Sequence[RenderingTime]) -> str:
    """The rows as a Markdown table."""
    lines = [
        f"scenes at {SIZE[0]}x{SIZE[1]}, one core",
        "",
        "| labels | images/s | time against the first row |",
        "|---|---:|---:|",
    ]
    return "\n".join(lines + [f"| {r.labels} | {r.images_per_second:.0f} | {r.ratio:.2f} |" for r in rows])
