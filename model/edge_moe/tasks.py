# SPDX-License-Identifier: Apache-2.0
"""The dense prediction tasks: form of the label, its ignored value, and the metric that ranks it.

Label conventions (numpy, H x W at the data set's own resolution):

=============  ==========================  ===============================
task           array                       ignored where
=============  ==========================  ===============================
semseg         uint8, class index          255
human_parts    uint8, 0 background, parts  255
saliency       uint8, 0 or 1               255
edge           uint8, 0 or 1               255
normals        float32 H x W x 3, unit     zero vector
depth          float32, metres             0 (no measurement) or less
=============  ==========================  ===============================
"""

from dataclasses import dataclass
from typing import Literal

IGNORE_LABEL = 255

TaskKind = Literal["classes", "binary", "vector", "scalar"]


@dataclass(frozen=True)
class Task:
    """One task.

    ``channels`` is None if the model decides (number of classes). ``loss_weight`` is the
    fixed weight published for M3ViT on PASCAL-Context. ``headline`` is the metric that enters
    Delta_m and ``higher_is_better`` its direction.
    """

    name: str
    kind: TaskKind
    channels: int | None
    loss_weight: float
    headline: str
    higher_is_better: bool


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("semseg", "classes", None, 1.0, "mIoU", True),
        Task("human_parts", "classes", None, 2.0, "mIoU", True),
        Task("saliency", "binary", 1, 5.0, "maxIoU", True),
        Task("normals", "vector", 3, 10.0, "mean", False),
        Task("edge", "binary", 1, 50.0, "odsF", True),
        Task("depth", "scalar", 1, 1.0, "rmse", False),
    )
}
