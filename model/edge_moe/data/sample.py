# SPDX-License-Identifier: Apache-2.0
"""One labelled picture: ``"image"`` plus one array per task, and its conversion to tensors and batches.

Arrays are C-contiguous and share height and width; :mod:`edge_moe.tasks` states dtype and
ignored values per task. Normals are in camera coordinates, x right, y down, z forward into the
scene, and point towards the camera: a wall that faces the camera has (0, 0, -1), the floor
(0, -1, 0). Depth is along z, in metres unless the data set says ``depth_kind = "inverse"``.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from edge_moe.tasks import IGNORE_LABEL, TASKS
from edge_moe_host.errors import EdgeMoEError

Sample = dict[str, np.ndarray]  # "image" and the arrays of the tasks

IMAGE = "image"


def outside_value(task: str) -> int:
    """The value that marks a pixel of the task's label as ignored: 255 for indices, 0 otherwise."""
    return IGNORE_LABEL if TASKS[task].kind in ("classes", "binary") else 0


def to_tensors(sample: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Tensors of one sample.

    Image uint8 3 x H x W; class and binary labels uint8 H x W; depth float32 H x W; normals
    float32 3 x H x W. The tensors share no memory with arrays that were not contiguous.
    """
    tensors = {}
    for key, array in sample.items():
        planes = array.transpose(2, 0, 1) if array.ndim == 3 else array
        tensors[key] = torch.from_numpy(np.ascontiguousarray(planes))
    return tensors


def collate(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the tensors of samples with equal keys and equal sizes along a new first axis."""
    keys = samples[0].keys()
    for sample in samples[1:]:
        if sample.keys() != keys:
            raise EdgeMoEError(
                f"samples of one batch carry different labels: {', '.join(keys)} and {', '.join(sample)}."
            )
    return {key: torch.stack([sample[key] for sample in samples]) for key in keys}


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 H x W x 3 to ``size`` = (height, width): area average when shrinking, else linear."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image.copy()
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.ascontiguousarray(cv2.resize(image, (width, height), interpolation=interpolation))


def unit_normals(vectors: np.ndarray, shortest: float = 1e-6) -> np.ndarray:
    """Vectors ... x 3 scaled to unit length, float32; those shorter than ``shortest`` become zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    valid = length >= shortest
    return np.where(valid, vectors / np.where(valid, length, 1), 0).astype(np.float32)
