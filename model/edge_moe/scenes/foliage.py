# SPDX-License-Identifier: Apache-2.0
"""Stored reliefs of foliage, made once per process from a fixed seed."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from edge_moe.scenes.geometry import Array

_SIDE = 128  # texels of the largest level
CROWNS = 8  # sprites 0..7 are tree crowns
CONIFERS = 2  # then conifers
BUSHES = 4  # then bushes


@dataclass(frozen=True)
class Sprite:
    """One relief in several sizes; channels: coverage, depth towards the camera in [0, 1], normal."""

    levels: tuple[Array, ...]  # largest first
    flipped: tuple[Array, ...]  # mirrored left to right

    def level(self, pixels: int, flip: bool) -> Array:
        """The smallest level that has at least ``pixels`` texels a side, or the largest."""
        levels = self.flipped if flip else self.levels
        for array in reversed(levels):
            if array.shape[0] >= pixels:
                return array
        return levels[0]


def _relief(rng: np.random.Generator, kind: str) -> Array:
    """Union of leafy spheres: 128 x 128 x 5."""
    axis = (np.arange(_SIDE, dtype=np.float32) + 0.5) / _SIDE * 2 - 1
    x, y = np.meshgrid(axis, axis)
    ragged: Array = cv2.resize(rng.standard_normal((32, 32)).astype(np.float32), (_SIDE, _SIDE))
    ragged += 0.7 * cv2.resize(rng.standard_normal((64, 64)).astype(np.float32), (_SIDE, _SIDE))
    depth = np.full((_SIDE, _SIDE), -1.0, np.float32)
    normal = np.zeros((_SIDE, _SIDE, 3), np.float32)
    for _ in range({"crown": 45, "conifer": 60, "bush": 26}[kind]):
        if kind == "conifer":
            v = rng.uniform(-0.88, 0.9)
            reach = 0.12 + 0.62 * (v + 0.9) / 1.8
            u, w, r = rng.uniform(-1, 1) * reach, rng.uniform(0, 0.6) * reach, rng.uniform(0.1, 0.2)
        else:
            angle, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
            low = 0.72
            u, v = low * far * np.cos(angle), low * far * np.sin(angle)
            if kind == "bush":
                v = 0.45 + 0.55 * v
            w = 0.7 * np.sqrt(max(0.0, 1 - far * far)) * rng.uniform(0.3, 1.0)
            r = rng.uniform(0.13, 0.27)
        square = (x - u) ** 2 + (y - v) ** 2
        bulge = np.sqrt(np.maximum(r * r - square, 0))
        here = np.where(square < r * r * (1 + 0.22 * ragged), w + bulge, -1.0).astype(np.float32)
        wins = here > depth
        depth[wins] = here[wins]
        # Half the clump's own normal, half the whole crown's: light rolls off over the tree.
        own = np.stack([(x - u) / r, (y - v) / r, -np.maximum(bulge / r, 0.25)], axis=-1)
        whole = np.stack([0.7 * x, 0.7 * y, -np.full_like(x, 0.6)], axis=-1)
        normal[wins] = (own + 0.7 * whole)[wins]
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-6
    mask = (depth > -0.5).astype(np.float32)
    return np.dstack([mask, np.clip(depth, 0, 1), normal]).astype(np.float32)


@functools.cache
def sprite_bank() -> tuple[Sprite, ...]:
    """All reliefs: crowns, conifers, bushes."""
    rng = np.random.default_rng(20221)
    kinds = ["crown"] * CROWNS + ["conifer"] * CONIFERS + ["bush"] * BUSHES
    bank = []
    for kind in kinds:
        levels = [_relief(rng, kind)]
        while levels[-1].shape[0] > 8:
            side = levels[-1].shape[0] // 2
            levels.append(cv2.resize(levels[-1], (side, side), interpolation=cv2.INTER_AREA))
        mirror = np.array([1, 1, -1, 1, 1], np.float32)
        flipped = [np.ascontiguousarray(level[:, ::-1] * mirror) for level in levels]
        bank.append(Sprite(tuple(levels), tuple(flipped)))
    return tuple(bank)
