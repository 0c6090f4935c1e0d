# SPDX-License-Identifier: Apache-2.0
"""Shadows on the ground: bodies projected along the sunlight and drawn in screen space."""

import cv2
import numpy as np
import numpy.typing as npt

from edge_moe.scenes.geometry import Scene, View
from edge_moe.scenes.raster import GUARD, NEAR, SHIFT, clip_near, extent

Mask = npt.NDArray[np.uint8]
_RING = 10  # corners of a tree crown's shadow
_SMALLEST = 0.6  # pixels; smaller shadows are left out


def cast_shadows(
    scene: Scene, view: View, capsules: npt.NDArray[np.float64], sun: npt.NDArray[np.float64], height: float
) -> Mask:
    """Shadow on the ground at ``height`` of poles, people, trees and vehicles: uint8 H x W, 255 in shadow.

    ``capsules`` are those of the scene (n x 8), ``sun`` is the world direction towards the sun.
    """
    mask: Mask = np.zeros((view.height, view.width), np.uint8)
    slope = sun[[0, 2]] / sun[1]  # horizontal travel per metre of height

    def drop(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return points[..., [0, 2]] - (points[..., 1:2] - height) * slope

    if len(capsules):
        start, end = drop(capsules[:, 0:3]), drop(capsules[:, 4:7])
        along = end - start
        along /= np.sqrt((along * along).sum(axis=1, keepdims=True)) + 1e-9
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        a, b = across * capsules[:, 3:4], across * capsules[:, 7:8]
        _draw(mask, view, np.stack([start - a, start + a, end + b, end - b], axis=1), height)
    if scene.crowns:
        data = np.array(scene.crowns)
        angle = np.arange(_RING) * (2 * np.pi / _RING)
        unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        # A sphere's shadow is an ellipse, longer along the light by 1 / sin(elevation).
        flat = slope / (np.sqrt((slope * slope).sum()) + 1e-9)
        unit += (unit @ flat)[:, None] * flat * (1.0 / sun[1] - 1.0)
        _draw(mask, view, drop(data[:, None, :3]) + data[:, None, 3:4] * unit, height)
    if scene.hulls:
        flat = drop(np.stack(scene.hulls)).astype(np.float32)
        outlines = np.empty(flat.shape)
        for outline, points in zip(outlines, flat, strict=True):
            hull = cv2.convexHull(points)[:, 0]
            outline[: len(hull)] = hull
            outline[len(hull) :] = hull[-1]
        _draw(mask, view, outlines, height)
    return mask


def contact_shade(scene: Scene, view: View) -> Mask:
    """Ground below vehicles, where little skylight arrives: uint8 H x W, 255 below."""
    mask: Mask = np.zeros((view.height, view.width), np.uint8)
    if scene.contacts:
        _draw(mask, view, np.stack(scene.contacts)[..., [0, 2]], 0.0)
    return mask


def _draw(mask: Mask, view: View, polygons: npt.NDArray[np.float64], height: float) -> None:
    """Fill ground polygons (n x K x 2: X, Z)."""
    ground = np.empty((*polygons.shape[:2], 3))
    ground[..., 0], ground[..., 1], ground[..., 2] = polygons[..., 0], height, polygons[..., 1]
    points = view.to_camera(ground)
    depth = points[..., 2]
    nearest, farthest = extent(depth)
    crossing = (nearest < NEAR) & (farthest > NEAR)
    pixels = view.project(np.where(depth[..., None] < NEAR, 1.0, points))
    low, high = extent(pixels)
    inside = (low[:, 0] < view.width) & (low[:, 1] < view.height) & (high[:, 0] > -1) & (high[:, 1] > -1)
    inside &= (high - low).max(axis=1) > _SMALLEST
    fixed = np.rint(np.clip(pixels, -GUARD, GUARD) * (1 << SHIFT)).astype(np.int32)
    for i in np.flatnonzero(crossing | (inside & (nearest >= NEAR))).tolist():
        outline = fixed[i]
        if crossing[i]:
            clipped = np.clip(view.project(clip_near(points[i])), -GUARD, GUARD)
            outline = np.rint(clipped * (1 << SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(mask, outline, 255, cv2.LINE_AA, SHIFT)
