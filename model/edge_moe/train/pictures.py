# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run: its learning curves, and what the model makes of some validation pictures."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from edge_moe.data import TaskDataset
from edge_moe.eval.evaluate import evaluation_mode
from edge_moe.eval.show import predict
from edge_moe.eval.visualize import panel
from edge_moe.nn import M3ViT
from edge_moe.tasks import TASKS
from edge_moe_host.files import replacing

SAMPLES = 3  # pictures


def draw_curves(log: Path, out: Path) -> None:
    """Each task's training loss and validation metric over the epochs, the learning rate, the gradient norm.

    ``log``: ``log.jsonl``, see :mod:`edge_moe.train.monitor`.
    """
    above, below = defaultdict(list), defaultdict(list)  # title -> points (epoch, value)
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        epoch = line["epoch"]
        if line["kind"] == "val":
            for task, metrics in line["metrics"].items():
                spec = TASKS[task]
                better = "higher" if spec.higher_is_better else "lower"
                below[f"{task}: {spec.headline}, {better} is better"].append((epoch, metrics[spec.headline]))
            continue
        for task, loss in line["loss"].items():
            above[f"{task}: training loss"].append((epoch, loss))
        above["learning rate"].append((epoch, line["lr"]))
        below["gradient norm"].append((epoch, line["grad_norm"]))
    if "gradient norm" in below:
        below["gradient norm"] = below.pop("gradient norm")  # to the end, below the learning rate
    columns = max(len(above), len(below), 1)
    figure = Figure(figsize=(4 * columns, 6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, curves in zip(figure.subplots(2, columns, squeeze=False), (above, below), strict=True):
        for axis in axes[len(curves) :]:
            axis.set_axis_off()
        for axis, (title, points) in zip(axes, curves.items(), strict=False):
            axis.plot(*np.transpose(points), marker="." if len(points) < 50 else "")
            axis.set_title(title, fontsize=11)
            axis.set_xlabel("epoch")
            axis.grid(alpha=0.3)
    canvas.draw()
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png")


def draw_samples(model: M3ViT, dataset: TaskDataset, tasks: Sequence[str], out: Path) -> None:
    """Truth and prediction of pictures spread over the split, one below the other."""
    panels = []
    for index in np.unique(np.linspace(0, len(dataset) - 1, SAMPLES).round().astype(int)).tolist():
        sample = dataset[index]
        with evaluation_mode(model):
            predictions = predict(model, sample["image"], tasks)
        panels.append(
            panel(
                sample["image"],
                predictions,
                {task: sample[task] for task in tasks},
                class_names=dataset.class_names,
                palette=dataset.palette,
                title=dataset.image_id(index),
                depth_kind=dataset.depth_kind,
            )
        )
    width = max(picture.shape[1] for picture in panels)
    sheet = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in panels]
    with replacing(out) as temporary:
        Image.fromarray(np.concatenate(sheet)).save(temporary, format="png")
