# SPDX-License-Identifier: Apache-2.0
"""``edge-moe eval``: from a checkpoint and a data specification to metrics, JSON and a heat map."""

from collections.abc import Sequence
from pathlib import Path

import torch

from edge_moe.checkpoint import load_model
from edge_moe.config import Preset
from edge_moe.data import TaskDataset, open_dataset
from edge_moe.distributed import choose_device
from edge_moe.eval.evaluate import evaluate
from edge_moe.eval.metrics import delta_m
from edge_moe.eval.report import metric_table, read_json, write_json
from edge_moe.eval.visualize import usage_heatmap
from edge_moe.nn import M3ViT
from edge_moe_host.errors import EdgeMoEError, listed


def load_for_inference(
    checkpoint: Path, tasks: Sequence[str] | None, device: str
) -> tuple[M3ViT, Preset, list[str], str]:
    """Model on its device, its preset, the checked tasks, and the data it was trained on ("" if none)."""
    model, preset, meta = load_model(checkpoint)
    chosen = chosen_tasks(checkpoint, preset, tasks)
    return model.to(choose_device(device)), preset, chosen, str(meta["data"])


def chosen_tasks(checkpoint: Path, preset: Preset, tasks: Sequence[str] | None) -> list[str]:
    """``tasks``, or all of the model. EdgeMoEError for a task that it does not have."""
    known = preset.model.tasks
    for task in tasks or ():
        if task not in known:
            names = listed(known, task)
            raise EdgeMoEError(f"task '{task}' is not in the model of '{checkpoint}': it has {names}.")
    return list(known if tasks is None else tasks)


def open_validation(
    preset: Preset, data: str, tasks: Sequence[str], *, unlabelled: bool = False
) -> TaskDataset:
    """Validation split of ``data`` with the labels of ``tasks``; with ``unlabelled``, pictures will do."""
    model, train = preset.model, preset.train
    wanted = {task: model.tasks[task] for task in tasks}
    counts = train.train_images, train.val_images
    return open_dataset(data, "val", wanted, model.image_size, *counts, unlabelled=unlabelled)


def evaluate_checkpoint(
    checkpoint: Path,
    data: str | None,
    *,
    tasks: Sequence[str] | None = None,
    json_out: Path | None = None,
    usage_out: Path | None = None,
    baseline: Path | None = None,
    limit: int | None = None,
    device: str = "auto",
) -> str:
    """Measure a checkpoint on the validation split and return the table of its metrics.

    ``data`` defaults to what the checkpoint was trained on. ``baseline`` is the JSON of single-task
    models, for Delta_m. Raises EdgeMoEError for bad input of any kind.
    """
    reference = read_json(baseline).metrics if baseline is not None else None
    model, preset, chosen, trained_on = load_for_inference(checkpoint, tasks, device)
    if not (data or trained_on):
        raise EdgeMoEError(f"'{checkpoint}' does not say what it was trained on: give --data SPEC.")
    if usage_out is not None and not preset.model.moe_blocks:
        raise EdgeMoEError(f"'{checkpoint}' is a dense model: it has no expert usage to draw.")
    dataset = open_validation(preset, data or trained_on, chosen)
    with torch.inference_mode():
        result = evaluate(model, dataset, chosen, limit=limit)
    if json_out is not None:
        extra = {} if reference is None else {"delta_m": delta_m(result.metrics, reference)}
        write_json(result, json_out, extra)
    if usage_out is not None:
        usage_heatmap(result.usage, usage_out, result.blocks)
    return metric_table(result, reference)
