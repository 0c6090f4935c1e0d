# SPDX-License-Identifier: Apache-2.0
"""Evaluation results as JSON and as Markdown tables."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe.eval.evaluate import EvaluationResult
from edge_moe.eval.metrics import delta_m
from edge_moe.tasks import TASKS
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import write_text

FORMAT = "edge-moe-evaluation"
VERSION = 1

Metrics = Mapping[str, Mapping[str, float]]

_LOWER_IS_BETTER = {"mean", "median", "rmse", "log_rmse", "absErr", "absRel"}
_NOT_A_RATIO = {"rmse", "log_rmse", "absErr", "absRel", "threshold"}  # printed as they are


def to_dict(result: EvaluationResult) -> dict[str, Any]:
    """Plain data for JSON; :func:`from_dict` reads it back."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "dataset": result.dataset,
        "split": result.split,
        "images": result.images,
        "metrics": result.metrics,
        "class_iou": result.class_iou,
        "blocks": list(result.blocks),
        "usage": {task: counts.tolist() for task, counts in result.usage.items()},
    }


def from_dict(data: Mapping[str, Any]) -> EvaluationResult:
    """The result that :func:`to_dict` wrote."""
    return EvaluationResult(
        metrics=_checked_metrics(data.get("metrics")),
        class_iou=data.get("class_iou", {}),
        usage={task: np.array(rows, dtype=np.int64) for task, rows in data.get("usage", {}).items()},
        blocks=tuple(data.get("blocks", ())),
        images=data.get("images", 0),
        dataset=data.get("dataset", ""),
        split=data.get("split", ""),
    )


def write_json(result: EvaluationResult, path: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write the result atomically; ``extra`` adds top-level entries, such as ``delta_m``."""
    write_text(path, json.dumps({**to_dict(result), **(extra or {})}, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> EvaluationResult:
    """Read a result; other keys than those of :func:`to_dict` are ignored, only "metrics" is required."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgeMoEError(f"cannot read evaluation '{path}': {error.strerror or error}.") from None
    except ValueError as error:
        raise EdgeMoEError(f"evaluation '{path}' is not JSON: {error}.") from None
    try:
        return from_dict(data)
    except (TypeError, ValueError, AttributeError, EdgeMoEError):
        raise EdgeMoEError(
            f"evaluation '{path}' does not hold metrics per task: write it with 'edge-moe eval --json'."
        ) from None


def metric_table(result: EvaluationResult, baseline: Metrics | None = None) -> str:
    """Markdown: every metric of every task, the expert load, and Delta_m where a baseline is given."""
    lines = ["| task | metric | value |", "|---|---|---:|"]
    for task, metrics in result.metrics.items():
        for name, value in metrics.items():
            mark = "**" if name == TASKS[task].headline else ""
            arrow = "" if name == "threshold" else "↓" if name in _LOWER_IS_BETTER else "↑"
            title = f"{mark}{name}{mark} {arrow}".rstrip()
            lines.append(f"| {task} | {title} | {format_value(task, name, value)} |")
    text = "\n".join(lines)
    where = f" of {result.dataset} {result.split}" if result.dataset else ""
    text += f"\n\n{result.images} images{where}, at the labels' resolution; bold: headline metric."
    if baseline is not None:
        text += f"\nΔm against the baseline: {delta_m(result.metrics, baseline):+.2f} %."
    for task, counts in result.usage.items():
        text += f"\n{_load(task, counts)}"
    return text


def class_table(result: EvaluationResult, task: str) -> str:
    """Markdown: IoU of each class of ``task``."""
    rows = [f"| {name} | {100 * value:.2f} |" for name, value in result.class_iou.get(task, {}).items()]
    return "\n".join([f"| {task} class | IoU % |", "|---|---:|", *rows])


def comparison_table(results: Mapping[str, Metrics], baseline: Metrics | None = None) -> str:
    """Markdown: one row per model with the headline metric of each task, and Delta_m with a baseline."""
    tasks = list(dict.fromkeys(task for metrics in results.values() for task in metrics))
    arrows = ["↑" if TASKS[task].higher_is_better else "↓" for task in tasks]
    titles = [f"{task} {TASKS[task].headline} {arrow}" for task, arrow in zip(tasks, arrows, strict=True)]
    header = ["model", *titles, *([] if baseline is None else ["Δm %"])]
    lines = [f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1)]
    for model, metrics in results.items():
        cells = [
            format_value(task, TASKS[task].headline, metrics[task][TASKS[task].headline])
            if task in metrics
            else "-"
            for task in tasks
        ]
        if baseline is not None:
            cells.append(f"{delta_m(metrics, baseline):+.2f}")
        lines.append(f"| {' | '.join([model, *cells])} |")
    return "\n".join(lines)


def format_value(task: str, name: str, value: float) -> str:
    """The value as text: angles in degrees, ratios in percent, depths in the label's unit."""
    if task == "normals" and name in _LOWER_IS_BETTER:
        return f"{value:.2f}°"
    return f"{value:.4f}" if name in _NOT_A_RATIO else f"{100 * value:.2f} %"


def _load(task: str, counts: np.ndarray) -> str:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    busiest = share.max() * counts.shape[1]
    return (
        f"Experts of {task}: busiest has {busiest:.1f} times the even share; "
        f"{np.count_nonzero(counts == 0)} of {counts.size} unused."
    )


def _checked_metrics(metrics: object) -> dict[str, dict[str, float]]:
    if not isinstance(metrics, dict) or not metrics:
        raise EdgeMoEError("metrics are missing.")
    for task, values in metrics.items():
        if task not in TASKS or not isinstance(values, dict):
            raise EdgeMoEError(f"metrics of '{task}' are not a table of a known task.")
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values.values()):
            raise EdgeMoEError(f"metrics of '{task}' are not numbers.")
    return metrics
