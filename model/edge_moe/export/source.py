# SPDX-License-Identifier: Apache-2.0
"""Inputs of ``edge-moe export``: a checkpoint or an integer network, and held-out images."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_moe.config import ModelConfig, TrainConfig
from edge_moe.data import TaskDataset, open_dataset
from edge_moe.data.sample import IMAGE
from edge_moe.data.transforms import evaluation_resize
from edge_moe.export.files import export_path
from edge_moe.quant.options import QuantOptions
from edge_moe.quant.prune import task_path
from edge_moe.quant.quantise import labelled_data, obtain_network
from edge_moe_host.errors import EdgeMoEError


def export_source(
    source: Path,
    tasks: Sequence[str] | None,
    out: Path,
    data: str | None = None,
    options: QuantOptions | None = None,
    verify_images: int = 10,
    *,
    flat: bool = False,
    progress: bool = True,
) -> str:
    """Export ``tasks`` (default: all) of a checkpoint, quantised now, or of a ``.int.npz`` file.

    The models are compared with golden on the first ``verify_images`` validation images of the
    calibration data. Raises EdgeMoEError for bad input of any kind.
    """
    network, extra = obtain_network(source, tasks=tasks, data=data, options=options, progress=progress)
    chosen = list(network.tasks) if tasks is None else list(tasks)
    paths = {task: task_path(network, task, extra) for task in dict.fromkeys(chosen)}
    if not paths:
        raise EdgeMoEError(f"no task to export: this network has {', '.join(network.tasks)}.")
    dataset, images = validation_images(network.config, str(extra["data"]), verify_images)
    if not dataset.tasks:  # pictures without labels: the names of the classes are those of the training data
        with contextlib.suppress(EdgeMoEError):
            dataset = validation_images(network.config, labelled_data(extra), 1)[0]
    return "\n".join(
        export_path(
            *(path, task, out, images),
            classes=class_styles(dataset, task),
            flat=flat,
            progress=progress,
        )
        for task, path in paths.items()
    )


def validation_images(config: ModelConfig, data: str, count: int) -> tuple[TaskDataset, np.ndarray]:
    """Validation split of ``data``, and its first images as uint8 [n, H, W, 3] of the model's size."""
    if count < 1:
        raise EdgeMoEError(f"verify-images = {count} is not allowed: compare on at least 1.")
    size, train = config.image_size, TrainConfig().train_images
    dataset = open_dataset(data, "val", dict(config.tasks), size, train, count, unlabelled=True)
    chosen = range(min(count, len(dataset)))
    images = [evaluation_resize({IMAGE: dataset[i][IMAGE]}, config.image_size)[IMAGE] for i in chosen]
    return dataset, np.stack(images)


def class_styles(dataset: TaskDataset, task: str) -> list[tuple[str, tuple[int, int, int]]]:
    """Name and RGB colour of each class of a task; empty for a task without classes."""
    names, palette = dataset.class_names.get(task, ()), dataset.palette.get(task, ())
    return [
        (name, (int(colour[0]), int(colour[1]), int(colour[2])))
        for name, colour in zip(names, palette, strict=False)
    ]
