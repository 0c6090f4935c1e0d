# SPDX-License-Identifier: Apache-2.0
"""Run a model over a data set and measure every task at the resolution of its label."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from edge_moe.config import ModelConfig
from edge_moe.data.base import TaskDataset
from edge_moe.data.sample import IMAGE, Sample
from edge_moe.data.transforms import evaluation_resize
from edge_moe.eval.metrics import ClassMetric, Metric, make_metric
from edge_moe.eval.odsf import BoundaryProtocol
from edge_moe_host.errors import EdgeMoEError


@dataclass(frozen=True)
class EvaluationResult:
    """The result of :func:`evaluate`.

    ``metrics``: task -> name -> value, as :mod:`edge_moe.eval.metrics` defines them. ``class_iou``:
    task with classes -> class name -> IoU, for the classes that occur. ``usage``: task -> int64
    [MoE blocks, experts], how often a token chose the expert (tokens times top-k per row); no entry
    without MoE blocks. ``blocks``: index of the block that each row of ``usage`` belongs to.
    """

    metrics: dict[str, dict[str, float]]
    class_iou: dict[str, dict[str, float]] = field(default_factory=dict)
    usage: dict[str, np.ndarray] = field(default_factory=dict)
    blocks: tuple[int, ...] = ()
    images: int = 0
    dataset: str = ""
    split: str = ""


class RoutingLike(Protocol):
    """The part of :class:`edge_moe.nn.Routing` that usage needs."""

    @property
    def expert(self) -> Tensor: ...


class ExpertUsage:
    """Counts, per task and MoE block, of the tokens sent to each expert."""

    def __init__(self, num_experts: int) -> None:
        self.num_experts = num_experts
        self._counts: dict[str, dict[int, np.ndarray]] = {}

    def add(self, routing: Mapping[str, Mapping[int, RoutingLike]]) -> None:
        """Add one batch of ``ModelOutput.routing``."""
        for task, blocks in routing.items():
            for block, chosen in blocks.items():
                counts = torch.bincount(chosen.expert.flatten(), minlength=self.num_experts).cpu().numpy()
                by_block = self._counts.setdefault(task, {})
                by_block[block] = by_block.get(block, 0) + counts.astype(np.int64)

    def table(self) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
        """(task -> int64 [blocks, experts], block indices in ascending order)."""
        blocks = tuple(sorted({block for counts in self._counts.values() for block in counts}))
        none = np.zeros(self.num_experts, dtype=np.int64)
        usage = {
            task: np.stack([counts.get(block, none) for block in blocks])
            for task, counts in self._counts.items()
        }
        return usage, blocks


def evaluate(
    model: nn.Module,
    dataset: TaskDataset,
    tasks: Sequence[str],
    *,
    image_size: tuple[int, int] | None = None,
    batch_size: int = 8,
    device: str | torch.device | None = None,
    limit: int | None = None,
    progress: bool = True,
    boundaries: BoundaryProtocol | None = None,
) -> EvaluationResult:
    """Measure ``tasks`` of ``model`` on the first ``limit`` pictures of ``dataset`` (default: all).

    The model is called as ``model(images, tasks=tasks)`` with uint8 [B, 3, H, W] at ``image_size``
    (default: ``model.cfg.image_size``) on ``device`` (default: where its parameters are). Each
    prediction is resized bilinearly (``align_corners=False``) to the label's size before it is
    measured. Every module's training flag is as before when this returns or raises.

    Raises EdgeMoEError for a task without labels, an empty data set, and values that metrics refuse.
    """
    count = _checked_count(dataset, tasks, batch_size, limit)
    cfg = getattr(model, "cfg", None)
    if image_size is None and cfg is None:
        raise EdgeMoEError("image_size is missing: this model does not say which size it takes.")
    size: tuple[int, int] = image_size or cast(ModelConfig, cfg).image_size
    place = torch.device(device) if device is not None else next(model.parameters()).device
    metrics = {task: make_metric(task, dataset.tasks[task], boundaries) for task in tasks}
    usage = ExpertUsage(getattr(cfg, "num_experts", 0))
    with (
        evaluation_mode(model),
        tqdm(total=count, desc="eval", unit="img", disable=not progress or None) as bar,  # on a terminal only
    ):
        for start in range(0, count, batch_size):
            samples = [dataset[index] for index in range(start, min(start + batch_size, count))]
            output = model(_image_batch(samples, size).to(place), tasks=list(tasks))
            for task, metric in metrics.items():
                for offset, (sample, prediction) in enumerate(
                    zip(samples, output.predictions[task], strict=True)
                ):
                    _measure(metric, prediction, sample, dataset.image_id(start + offset))
            usage.add(output.routing)
            bar.update(len(samples))
    table, blocks = usage.table()
    return EvaluationResult(
        metrics={task: metric.compute() for task, metric in metrics.items()},
        class_iou={
            task: _named_iou(metric, dataset.class_names.get(task, ()))
            for task, metric in metrics.items()
            if isinstance(metric, ClassMetric)
        },
        usage=table,
        blocks=blocks,
        images=count,
        dataset=dataset.name,
        split=dataset.split,
    )


def resize_prediction(prediction: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Raw output [C, h, w] as float32 [C, H, W] at ``size`` = (H, W), bilinear, on the CPU."""
    prediction = prediction.float()
    if tuple(prediction.shape[1:]) != size:
        prediction = F.interpolate(prediction[None], size=size, mode="bilinear", align_corners=False)[0]
    return prediction.cpu().numpy()


def _checked_count(dataset: TaskDataset, tasks: Sequence[str], batch_size: int, limit: int | None) -> int:
    if not tasks:
        raise EdgeMoEError("there is no task to evaluate: name at least one.")
    for task in tasks:
        if task not in dataset.tasks:
            raise EdgeMoEError(
                f"data set '{dataset.name}' has no labels for task '{task}', so it cannot be measured: "
                f"it has {', '.join(dataset.tasks)}."
            )
    if batch_size < 1:
        raise EdgeMoEError(f"batch size = {batch_size} is not allowed: it must be at least 1.")
    if limit is not None and limit < 1:
        raise EdgeMoEError(f"limit = {limit} is not allowed: evaluate at least 1 image.")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if not count:
        raise EdgeMoEError(f"split '{dataset.split}' of data set '{dataset.name}' has no pictures.")
    return count


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module returns to its previous mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _image_batch(samples: Sequence[Sample], size: tuple[int, int]) -> Tensor:
    images = [evaluation_resize({IMAGE: sample[IMAGE]}, size)[IMAGE] for sample in samples]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _measure(metric: Metric, prediction: Tensor, sample: Sample, image_id: str) -> None:
    if metric.task not in sample:
        raise EdgeMoEError(f"image '{image_id}' has no label for task '{metric.task}'.")
    label = sample[metric.task]
    height, width = label.shape[:2]
    try:
        metric.update(resize_prediction(prediction, (height, width)), label)
    except EdgeMoEError as error:
        raise EdgeMoEError(f"image '{image_id}': {error}") from None


def _named_iou(metric: ClassMetric, names: Sequence[str]) -> dict[str, float]:
    return {
        names[index] if index < len(names) else str(index): value
        for index, value in metric.class_iou().items()
    }
