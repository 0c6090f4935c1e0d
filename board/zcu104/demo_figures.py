# SPDX-License-Identifier: Apache-2.0
"""Measurements of the demo: latency, frames per second, watts, and joules per frame of each task.

Latency is the accelerator's own time, from its start to its end. Frames per second are wall-clock figures,
including reading and drawing of pictures. Watts are the whole board's. The energy of a stretch of time is
shared among its frames in proportion to the accelerator's time for each, so that all frames together have all
of it. Without a sensor there are no watts and no joules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_moe_host.backends.board.power import Energy
from edge_moe_host.runtime.result import Result

NO_SENSOR = "no sensor"
SIMULATED = (
    "simulated board: latency is of counted cycles, frames/s of the simulation, watts of an invented sensor"
)


@dataclass(frozen=True)
class Figures:
    """Figures of one task, or of all, in a stretch of time; None if unknown."""

    frames: int
    milliseconds: float | None  # the accelerator's, mean
    per_second: float | None
    joules: float | None  # of a frame, mean


class Stretch:
    """Frames of some tasks in a stretch of time, and its energy."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.frames = dict.fromkeys(tasks, 0)
        self.device_seconds = dict.fromkeys(tasks, 0.0)
        self.seconds = 0.0
        self.measured_seconds = 0.0  # of these, with a sensor
        self.measured_joules = 0.0

    def count(self, result: Result) -> None:
        """Count a finished frame."""
        self.frames[result.task] += 1
        self.device_seconds[result.task] += result.seconds

    def end(self, energy: Energy) -> None:
        """End the stretch; ``energy`` was measured throughout."""
        self.seconds += energy.seconds
        if energy.joules is not None:
            self.measured_seconds += energy.seconds
            self.measured_joules += energy.joules

    def add(self, other: "Stretch") -> None:
        """Add a later stretch of the same tasks to this one."""
        for task in self.frames:
            self.frames[task] += other.frames[task]
            self.device_seconds[task] += other.device_seconds[task]
        self.seconds += other.seconds
        self.measured_seconds += other.measured_seconds
        self.measured_joules += other.measured_joules

    @property
    def watts(self) -> float | None:
        """Mean watts of the whole board."""
        return self.measured_joules / self.measured_seconds if self.measured_seconds else None

    def figures(self, task: str | None = None) -> Figures:
        """Figures of one task, or of all with None."""
        frames = sum(self.frames.values()) if task is None else self.frames[task]
        busy = sum(self.device_seconds.values())
        own = busy if task is None else self.device_seconds[task]
        if not frames:
            return Figures(0, None, None, None)
        share = own / busy if busy else 1.0
        joules = None if self.watts is None else self.watts * self.seconds * share / frames
        return Figures(frames, 1e3 * own / frames, frames / self.seconds if self.seconds else None, joules)


def table(stretch: Stretch, simulated: bool) -> str:
    """A line for each task, and one for all."""
    rows = [("task", "frames", "latency, ms", "frames/s", "board, W", "J per frame")]
    watts = _number(stretch.watts, 2)
    named: Mapping[str, str | None] = {**{task: task for task in stretch.frames}, "all": None}
    for name, task in named.items():
        figures = stretch.figures(task)
        rows.append((name, str(figures.frames), _number(figures.milliseconds, 3, "-"),
                     _number(figures.per_second, 1, "-"), watts, _number(figures.joules, 4)))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]  # fmt: skip
    if simulated:
        lines.insert(0, SIMULATED)
    return "\n".join(lines)


def _number(value: float | None, digits: int, missing: str = NO_SENSOR) -> str:
    return missing if value is None else f"{value:.{digits}f}"
