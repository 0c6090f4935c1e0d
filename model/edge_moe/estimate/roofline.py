# SPDX-License-Identifier: Apache-2.0
"""Plots of estimates: a timeline of a frame's cycles, and the roofline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_moe.estimate.cycles import Estimate, title
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import replacing

SUFFIXES = (".svg", ".png", ".pdf")


def plot_estimates(estimates: Sequence[Estimate], path: Path) -> None:
    """Write a timeline and a roofline of each task to an SVG, PNG or PDF file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise EdgeMoEError(f"'{path}' cannot be drawn: its name must end in .svg, .png or .pdf.")
    figure = Figure(figsize=(13, 4.5 * len(estimates)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(estimates), 2, squeeze=False, width_ratios=(2, 1))
    for (timeline, roofline), estimate in zip(axes, estimates, strict=True):
        _timeline(timeline, estimate)
        _roofline(roofline, estimate)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])


def _kinds(estimate: Estimate) -> list[str]:
    return [kind for kind in dict.fromkeys(title(t.instruction) for t in estimate.timings) if kind != "END"]


def _timeline(axis: Any, estimate: Estimate) -> None:
    """One row for each kind of instruction; waiting for memory is hatched."""
    kinds = _kinds(estimate)
    for row, kind in enumerate(kinds):
        own = [t for t in estimate.timings if title(t.instruction) == kind]
        busy = [(t.start / 1e3, (t.cycles - t.waited) / 1e3) for t in own]
        waiting = [((t.end - t.waited) / 1e3, t.waited / 1e3) for t in own if t.waited]
        axis.broken_barh(busy, (row - 0.4, 0.8), color=f"C{row % 10}")
        axis.broken_barh(waiting, (row - 0.4, 0.8), facecolor="white", edgecolor="black",
                         linewidth=0.5, hatch="////")  # fmt: skip
    axis.set_yticks(range(len(kinds)), kinds, fontsize=10)
    axis.invert_yaxis()
    axis.set_xlabel("thousand cycles; hatched: waiting for memory")
    axis.set_title(
        f"{estimate.task}: {estimate.cycles:,.0f} cycles, {estimate.milliseconds:.2f} ms (modelled)"
    )


def _roofline(axis: Any, estimate: Estimate) -> None:
    """Products per cycle against products per byte of weights, for every instruction with both."""
    peak, rate = estimate.peak_macs, estimate.accelerator.memory_bytes_per_cycle
    low, high = 1.0, 10.0
    for row, kind in enumerate(_kinds(estimate)):
        points = [
            (t.macs / t.weight_bytes, t.macs / t.cycles)
            for t in estimate.timings
            if title(t.instruction) == kind and t.macs and t.weight_bytes
        ]
        if points:
            high = max(high, *(x for x, _ in points))
            x, y = zip(*points, strict=True)
            axis.scatter(x, y, s=24, color=f"C{row % 10}", label=kind)
    x_roof = [low, peak / rate, 2 * max(high, peak / rate)]
    axis.plot(x_roof, [min(peak, rate * x) for x in x_roof], color="black", linewidth=1)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("MAC per byte of weights")
    axis.set_ylabel(f"MAC per cycle (peak {peak})")
    axis.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))  # beside the dots
