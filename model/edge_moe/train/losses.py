# SPDX-License-Identifier: Apache-2.0
"""Losses of the dense prediction tasks, each a mean over the valid pixels of the joint batch.

=====================  ===============================================================
semseg, human_parts    cross-entropy
saliency               class-balanced binary cross-entropy, weights from the batch's share
edge                   weighted binary cross-entropy, positives weigh 0.95
normals                L1 between unit normals, mean over the three components
depth                  L1 in metres
=====================  ===============================================================

as in M3ViT (Liang et al., NeurIPS 2022, section 4.1 and its supplement). :mod:`edge_moe.tasks` says
which pixels are not valid. In data-parallel runs the counts are summed over ranks and each rank's
loss is scaled such that the *average over ranks* is the loss of the joint batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_moe.distributed import sum_over_ranks, world_size
from edge_moe.tasks import IGNORE_LABEL, TASKS
from edge_moe_host.errors import EdgeMoEError

EDGE_POSITIVE_WEIGHT = 0.95
_NORMAL_EPS = 1e-6  # bounds the gradient of the normalisation at a zero prediction


def task_loss(task: str, prediction: Tensor, label: Tensor) -> Tensor:
    """Loss of one task, a float32 scalar; exactly 0, with a graph, when no pixel is valid.

    Args:
        task: a task of :mod:`edge_moe.tasks`.
        prediction: raw model output B x C x H x W, float32.
        label: B x H x W uint8 (classes, binary), B x H x W float32 metres (depth) or
            B x 3 x H x W float32 unit vectors (normals).

    Raises:
        EdgeMoEError: the task is unknown or the shapes do not belong together.
    """
    if task not in TASKS:
        raise EdgeMoEError(f"task '{task}' is unknown: the known tasks are {', '.join(TASKS)}.")
    kind = TASKS[task].kind
    expected = prediction.shape if kind == "vector" else (prediction.shape[0], *prediction.shape[2:])
    if label.shape != expected:
        raise EdgeMoEError(
            f"label of task '{task}' has shape {tuple(label.shape)} where the prediction "
            f"{tuple(prediction.shape)} needs {tuple(expected)}."
        )
    prediction = prediction.float()
    if kind == "classes":
        return _cross_entropy(prediction, label)
    if kind == "binary":
        weight = EDGE_POSITIVE_WEIGHT if task == "edge" else None
        return _weighted_bce(prediction[:, 0], label, weight)
    if kind == "vector":
        return _normals_l1(prediction, label)
    return _depth_l1(prediction[:, 0], label)


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """``total`` summed over this rank's share, per item of the joint batch (times the ranks)."""
    joint = sum_over_ranks(count.to(torch.float32))
    return total * (world_size() / joint.clamp(min=1.0))


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    total = F.cross_entropy(logits, label.long(), ignore_index=IGNORE_LABEL, reduction="sum")
    return _mean(total, (label != IGNORE_LABEL).sum())


def _weighted_bce(logit: Tensor, label: Tensor, positive_weight: float | None) -> Tensor:
    """Positives weigh w and negatives 1 - w; w defaults to the negatives' share.

    The balanced form is that of holistically nested edge detection (Xie & Tu, ICCV 2015, eq. 2).
    """
    valid = label != IGNORE_LABEL
    positive = label == 1
    counts = sum_over_ranks(torch.stack([valid.sum(), positive.sum()]).to(torch.float32))
    if positive_weight is None:
        weight = 1.0 - counts[1] / counts[0].clamp(min=1.0)
    else:
        weight = logit.new_tensor(positive_weight)
    pixel_weight = torch.where(positive, weight, 1.0 - weight) * valid
    total = F.binary_cross_entropy_with_logits(
        logit, positive.to(logit.dtype), weight=pixel_weight, reduction="sum"
    )
    return total * (world_size() / counts[0].clamp(min=1.0))


def _normals_l1(prediction: Tensor, label: Tensor) -> Tensor:
    valid = (label.abs().sum(dim=1) > 0) & label.isfinite().all(dim=1)
    unit = prediction * torch.rsqrt(prediction.square().sum(dim=1, keepdim=True) + _NORMAL_EPS)
    error = torch.where(valid[:, None], unit - label, 0.0)
    return _mean(error.abs().sum(), 3 * valid.sum())


def _depth_l1(prediction: Tensor, label: Tensor) -> Tensor:
    valid = (label > 0) & label.isfinite()
    error = torch.where(valid, prediction - label, 0.0)
    return _mean(error.abs().sum(), valid.sum())
