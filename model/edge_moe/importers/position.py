# SPDX-License-Identifier: Apache-2.0
"""Position embeddings for another patch grid."""

import math

import torch.nn.functional as F
from torch import Tensor

# width : height of the published inputs: 224 x 224 and 512 x 512, NYUD 480 x 640, Cityscapes 128 x 256
ASPECTS = ((1, 1), (4, 3), (2, 1))


def infer_grid(patches: int) -> tuple[int, int] | None:
    """(rows, columns) of ``patches`` patches when one of the known aspect ratios fits, else None.

    At most one fits: the ratios between the products of two aspects are not squares.
    """
    for width, height in ASPECTS:
        unit = math.isqrt(max(patches, 0) // (width * height))
        if unit and unit * unit * width * height == patches:
            return height * unit, width * unit
    return None


def interpolate_positions(positions: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Resample position embeddings [1, h*w, D] from the grid ``source`` to ``target``.

    Bicubic, half-pixel centres, no antialiasing, as DeiT does it
    (Touvron et al., 2021). Equal grids give the values back unchanged.
    """
    if source == target:
        return positions
    grid = positions.reshape(1, *source, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid.float(), size=target, mode="bicubic", align_corners=False)
    return grid.flatten(2).transpose(1, 2)
