# SPDX-License-Identifier: Apache-2.0
"""Modelled cycles, memory traffic and roofline of a bundle."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from edge_moe.commands.options import add_bundle, given_path, new_file, require_pictures
from edge_moe.estimate.cycles import Estimate, estimate_images, estimate_table, estimate_task
from edge_moe_host.contract.bundle import load_bundle
from edge_moe_host.runtime.images import read_pictures


def add_options(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    parser.add_argument(
        "--images", nargs="+", type=given_path, default=[], help="take the use of experts from these pictures"
    )
    parser.add_argument(
        "--plot", type=new_file(".svg", ".png", ".pdf"), help="write a plot to this SVG, PNG or PDF file"
    )


def run(args: argparse.Namespace) -> None:
    require_pictures(args.images)
    print(estimate_bundle(args.bundle, args.tasks, args.images, args.plot))


def estimate_bundle(
    bundle: Path,
    tasks: Sequence[str] | None = None,
    images: Sequence[Path] = (),
    plot: Path | None = None,
) -> str:
    """Modelled cycles and traffic of each task, with experts used evenly or as by the given pictures."""
    opened = load_bundle(bundle)
    texts, drawn = [], []
    for name in opened.tasks if tasks is None else tasks:
        if images:
            height, width, _ = opened.task(name).entry.image
            estimates = estimate_images(opened, name, read_pictures(images, (height, width)))
            shown = sorted(estimates, key=lambda estimate: estimate.cycles)[len(estimates) // 2]
            texts.append(estimate_table(shown) + "\n" + _spread(estimates))
        else:
            shown = estimate_task(opened, name)
            texts.append(estimate_table(shown) + "\nexperts evenly used")
        drawn.append(shown)
    if plot is not None:
        from edge_moe.estimate.roofline import plot_estimates

        plot_estimates(drawn, plot)
        texts.append(str(plot))
    return "\n\n".join(texts)


def _spread(estimates: Sequence[Estimate]) -> str:
    cycles = [estimate.cycles for estimate in estimates]
    return (
        f"experts as measured on {len(cycles)} pictures: {min(cycles):,.0f} to {max(cycles):,.0f} cycles, "
        f"mean {sum(cycles) / len(cycles):,.0f}; the table shows the median picture"
    )
