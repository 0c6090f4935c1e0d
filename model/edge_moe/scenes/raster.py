# SPDX-License-Identifier: Apache-2.0
"""Visibility: the surface that each pixel shows and its inverse z-depth.

The inverse depth of a plane is affine in screen space, so a polygon is one fill of a stamp image
and one comparison inside its bounding box. Round limbs are resolved together, as one list of
fragments.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_moe.scenes.foliage import sprite_bank
from edge_moe.scenes.geometry import Array, Polygons, Scene, View, join

NEAR = 0.25  # metres; nothing closer is drawn
SHIFT = 4  # fractional bits of polygon corners
_RELIEF = 0.4  # depth of a foliage relief, as a fraction of its width
_SMALL = 500  # pixels in the bounding box of polygons that are drawn together
_STEEP_SMALL = 2000  # the same for planes seen at a slant, whose outlines are better exact
_STEEP = 0.015  # relative change of inverse depth per pixel that counts as a slant
GUARD = 1 << 18  # corners farther outside the image than this (pixels) are clamped


@dataclass
class Buffers:
    """Per-pixel visibility, filled by the functions of this module.

    ``surface`` int32, ``inverse`` float32 (1 / z-depth, 0: sky). Normals are in camera coordinates.
    ``table`` has those of planar surfaces, with unit length; ``normal`` (H x W x 3) has those of curved
    surfaces (``curved``) per pixel, with any positive length.
    """

    surface: npt.NDArray[np.int32]
    inverse: Array
    normal: Array
    table: Array  # surfaces x 3
    curved: npt.NDArray[np.bool_]  # surfaces


def empty_buffers(view: View, surfaces: int) -> Buffers:
    """Buffers that show sky everywhere."""
    shape = (view.height, view.width)
    return Buffers(
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
        np.empty((*shape, 3), np.float32),
        np.zeros((surfaces, 3), np.float32),
        np.zeros(surfaces, np.bool_),
    )


def clip_near(polygon: npt.NDArray[np.float64], near: float = NEAR) -> npt.NDArray[np.float64]:
    """The part of a camera-space polygon (K x 3) beyond the near plane (Sutherland and Hodgman, 1974)."""
    corners = polygon.tolist()
    kept = []
    for i, there in enumerate(corners):
        here = corners[i - 1]
        if (here[2] >= near) != (there[2] >= near):
            share = (near - here[2]) / (there[2] - here[2])
            kept.append([a + (b - a) * share for a, b in zip(here, there, strict=True)])
        if there[2] >= near:
            kept.append(there)
    return np.array(kept).reshape(-1, 3)


def extent(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Minimum and maximum over the second axis, which is short: faster than NumPy's reduction."""
    low, high = values[:, 0].copy(), values[:, 0].copy()
    for k in range(1, values.shape[1]):
        np.minimum(low, values[:, k], out=low)
        np.maximum(high, values[:, k], out=high)
    return low, high


def fill_polygons(scene: Scene, view: View, buffers: Buffers) -> None:
    """Draw all planar polygons of the scene."""
    stamp = np.full((view.height, view.width), -1, np.int32)
    for polygons in (scene.all_quads(), join(scene.discs)):
        if polygons is not None:
            _fill(polygons, view, buffers, stamp)


def _fill(polygons: Polygons, view: View, buffers: Buffers, stamp: npt.NDArray[np.int32]) -> None:
    vertices = polygons.corners
    corners = vertices.shape[1]
    points = view.to_camera(vertices)
    half, quarter = corners // 2, corners // 4
    a, b = points[:, half] - points[:, 0], points[:, half + quarter] - points[:, quarter]
    normal = np.stack([a[:, i - 2] * b[:, i - 1] - a[:, i - 1] * b[:, i - 2] for i in range(3)], axis=1)
    outward = points.mean(axis=1) - view.to_camera(polygons.behind)
    normal *= np.where((normal * outward).sum(axis=1) < 0, -1.0, 1.0)[:, None]
    normal /= np.sqrt((normal * normal).sum(axis=1, keepdims=True)) + 1e-12
    offset = (normal * points[:, 0]).sum(axis=1)
    surface = polygons.surface
    buffers.table[surface] = normal

    depth = points[..., 2]
    nearest, farthest = extent(depth)
    shown = (offset < -1e-6) & (farthest > NEAR)
    crossing = nearest < NEAR
    pixels = view.project(np.where(depth[..., None] < NEAR, 1.0, points))
    low, high = extent(pixels)
    outside = (low[:, 0] > view.width) | (low[:, 1] > view.height) | (high[:, 0] < -1) | (high[:, 1] < -1)
    shown &= crossing | ~outside
    offset[~shown] = -1.0
    slope = normal / offset[:, None]
    plane = np.empty((3, len(slope)), np.float32)  # inverse depth = plane[0] x + plane[1] y + plane[2]
    plane[0], plane[1] = slope[:, 0] / view.focal, slope[:, 1] / view.focal
    plane[2] = slope[:, 2] - (slope[:, 0] * view.cx + slope[:, 1] * view.cy) / view.focal

    size = (view.width, view.height)
    first = np.clip(np.floor(low), 0, size).astype(np.int64)
    last = np.clip(np.ceil(high) + 1, 0, size).astype(np.int64)
    limit = (1.0 / np.maximum(nearest, NEAR)).astype(np.float32)
    steep = np.abs(plane[0]) + np.abs(plane[1]) > np.float32(_STEEP) * limit
    area = (last - first).prod(axis=1)
    small = shown & ~crossing & (area <= np.where(steep, _STEEP_SMALL, _SMALL))
    _fill_exact(pixels[small], first[small], last[small], plane[:, small], surface[small], buffers, view)

    fixed = np.rint(np.clip(pixels, -GUARD, GUARD) * (1 << SHIFT)).astype(np.int32)
    xs, ys = view.xs, view.ys
    for i in np.flatnonzero(shown & ~small).tolist():
        outline = fixed[i]
        (x0, y0), (x1, y1) = first[i].tolist(), last[i].tolist()
        if crossing[i]:
            clipped = view.project(clip_near(points[i]))
            outline = np.rint(np.clip(clipped, -GUARD, GUARD) * (1 << SHIFT)).astype(np.int32)
            x0, y0 = (int(min(max(v, 0), GUARD)) for v in clipped.min(axis=0))
            x1, y1 = (int(min(max(v + 2, 0), GUARD)) for v in clipped.max(axis=0))
        if x0 >= x1 or y0 >= y1:
            continue
        identity = int(surface[i])
        cv2.fillConvexPoly(stamp, outline, identity, 8, SHIFT)
        box = (slice(y0, y1), slice(x0, x1))
        inverse = (ys[y0:y1] * plane[1, i] + plane[2, i])[:, None] + xs[x0:x1] * plane[0, i]
        # Outlines cover up to half a pixel more than the polygon: clamp to its nearest corner's depth.
        if steep[i]:
            np.minimum(inverse, limit[i], out=inverse)
        wins = inverse > buffers.inverse[box]
        wins &= stamp[box] == identity
        np.copyto(buffers.inverse[box], inverse, where=wins)
        np.copyto(buffers.surface[box], identity, where=wins)


def _fill_exact(
    pixels: npt.NDArray[np.float64],
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    plane: Array,
    surface: npt.NDArray[np.int64],
    buffers: Buffers,
    view: View,
) -> None:
    """Draw polygons all at once and exactly, by the signs of their edge functions at pixel centres."""
    owner, row, column = _boxes(first, last)
    if not len(owner):
        return
    x, y = column.astype(np.float32), row.astype(np.float32)
    following = np.roll(pixels, -1, axis=1)
    step = following - pixels
    constant = step[..., 0] * pixels[..., 1] - step[..., 1] * pixels[..., 0]
    turn = np.where(constant.sum(axis=1) < 0, 1.0, -1.0)[:, None]  # constant sums to minus twice the area
    edges = np.stack([step[..., 1] * turn, -step[..., 0] * turn, constant * turn]).astype(np.float32)
    inside = np.ones(len(owner), np.bool_)
    for k in range(pixels.shape[1]):
        per_x, per_y, at_zero = (np.ascontiguousarray(edges[i, :, k]).take(owner) for i in range(3))
        per_x *= x
        per_y *= y
        per_x += per_y
        inside &= per_x <= -at_zero
    kept = np.flatnonzero(inside)
    owner, x, y = owner[kept], x[kept], y[kept]
    inverse = plane[0].take(owner) * x + plane[1].take(owner) * y + plane[2].take(owner)
    pixel = row[kept] * view.width + column[kept]
    seen, pixel = _resolve(pixel, inverse, buffers)
    buffers.surface.reshape(-1)[pixel] = surface[owner[seen]]


def _boxes(
    first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every pixel of every box [first, last) given as (x, y): its box, row and column."""
    span = np.maximum(last - first, 0)
    count = span[:, 0] * span[:, 1]
    owner = np.repeat(np.arange(len(count)), count)
    local = np.arange(len(owner)) - (np.cumsum(count) - count).take(owner)
    width = span[:, 0].take(owner)
    # Integer division is slow; half a pixel keeps the float64 quotient clear of whole numbers.
    row = ((local + 0.5) / width).astype(np.int64)
    column = local - row * width + first[:, 0].take(owner)
    row += first[:, 1].take(owner)
    return owner, row, column


def _resolve(
    pixel: npt.NDArray[np.int64], inverse: Array, buffers: Buffers
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Write the nearest fragment of each pixel if it is nearer than the pixel's current content.

    Returns the indices of written fragments, farthest first, and their pixels: later writes to a pixel
    are nearer, so arrays indexed in this order end with the nearest one.
    """
    candidates = np.flatnonzero(inverse > buffers.inverse.reshape(-1).take(pixel))
    order = candidates[np.argsort(inverse[candidates])]
    pixel = pixel[order]
    buffers.inverse.reshape(-1)[pixel] = inverse[order]
    return order, pixel


def fill_capsules(
    data: npt.NDArray[np.float64], surface: npt.NDArray[np.int64], view: View, buffers: Buffers
) -> None:
    """Draw capsules (n x 8, see :meth:`Scene.all_capsules`): cones with round ends, in weak perspective."""
    if not len(data):
        return
    buffers.curved[surface] = True
    start, end = view.to_camera(data[:, 0:3]), view.to_camera(data[:, 4:7])
    r0, r1 = data[:, 3], data[:, 7]
    kept = np.minimum(start[:, 2] - r0, end[:, 2] - r1) > NEAR
    start, end, r0, r1, surface = start[kept], end[kept], r0[kept], r1[kept], surface[kept]
    a, b = view.project(start), view.project(end)
    # Bodies are at least a pixel thick: thin poles stay connected, as a real lens would blur them.
    radius_a = np.maximum(r0 * view.focal / start[:, 2], 0.55)
    radius_b = np.maximum(r1 * view.focal / end[:, 2], 0.55)
    low = np.floor(np.minimum(a - radius_a[:, None], b - radius_b[:, None]))
    high = np.ceil(np.maximum(a + radius_a[:, None], b + radius_b[:, None])) + 1
    low = np.clip(low, 0, (view.width, view.height)).astype(np.int64)
    high = np.clip(high, 0, (view.width, view.height)).astype(np.int64)
    owner, row, column = _boxes(low, high)
    if not len(owner):
        return

    axis = b - a
    params = np.stack(
        [
            a[:, 0], a[:, 1], axis[:, 0], axis[:, 1], 1.0 / np.maximum((axis**2).sum(axis=1), 1e-9),
            radius_a, radius_b - radius_a, 1.0 / start[:, 2], 1.0 / end[:, 2] - 1.0 / start[:, 2],
            r0, r1 - r0,
        ]
    ).astype(np.float32)  # fmt: skip
    ax, ay, dx, dy, norm, ra, dr, ia, di, wa, dw = (values.take(owner) for values in params)
    px, py = column.astype(np.float32) - ax, row.astype(np.float32) - ay
    along = np.clip((px * dx + py * dy) * norm, 0, 1)
    px -= along * dx
    py -= along * dy
    radius = ra + along * dr
    square = px * px + py * py
    inside = np.flatnonzero(square < radius * radius)
    px, py, radius, square, along = px[inside], py[inside], radius[inside], square[inside], along[inside]
    bulge = np.sqrt(np.maximum(1 - square / (radius * radius), 0))
    inverse = ia[inside] + along * di[inside]
    inverse = inverse / (1 - (wa[inside] + along * dw[inside]) * bulge * inverse)
    row, column = row[inside], column[inside]
    order, pixel = _resolve(row * view.width + column, inverse, buffers)
    buffers.surface.reshape(-1)[pixel] = surface[owner[inside[order]]]
    facing, thick = bulge[order], 1 / radius[order]
    normal = np.empty((len(order), 3), np.float32)
    normal[:, 0] = px[order] * thick - facing * view.xn[column[order]]
    normal[:, 1] = py[order] * thick - facing * view.yn[row[order]]
    normal[:, 2] = -facing
    buffers.normal.reshape(-1, 3)[pixel] = normal


def fill_sprites(scene: Scene, view: View, buffers: Buffers) -> None:
    """Draw all foliage reliefs: a stored outline, depth and normal, scaled to the screen."""
    if not scene.sprites:
        return
    data = np.array([sprite[:5] for sprite in scene.sprites])
    buffers.curved[scene.sprite_ids] = True
    centres = view.to_camera(data[:, :3])
    reach = _RELIEF * data[:, 3]
    near = centres[:, 2] - reach < 1.0
    centres[near] = (0.0, 0.0, -1.0)
    middle = view.project(centres)
    half = 0.5 * data[:, 3:5] * view.focal / centres[:, 2:3]
    low, high = np.rint(middle - half).astype(np.int64), np.rint(middle + half).astype(np.int64)
    size = np.array((view.width, view.height))
    shown = ~near & (low < size).all(axis=1) & (high > 0).all(axis=1) & (high > low).all(axis=1)
    bank = sprite_bank()
    for i in np.flatnonzero(shown).tolist():
        which, flip = scene.sprites[i][5:]
        (x0, y0), (x1, y1) = low[i].tolist(), high[i].tolist()
        left, right, top, bottom = max(x0, 0), min(x1, view.width), max(y0, 0), min(y1, view.height)
        level = bank[which].level(max(x1 - x0, y1 - y0), flip)
        relief = _sample_level(level, (x0, y0, x1, y1), (left, top, right, bottom))
        box = (slice(top, bottom), slice(left, right))
        inverse = 1.0 / (np.float32(centres[i, 2]) - np.float32(reach[i]) * relief[..., 1])
        wins = inverse > buffers.inverse[box]
        wins &= relief[..., 0] > 0.5
        np.copyto(buffers.inverse[box], inverse, where=wins)
        np.copyto(buffers.surface[box], scene.sprite_ids[i], where=wins)
        for k in range(3):
            np.copyto(buffers.normal[box][..., k], relief[..., 2 + k], where=wins)


def _sample_level(level: Array, whole: tuple[int, int, int, int], part: tuple[int, int, int, int]) -> Array:
    """The level stretched over the box ``whole`` (x0, y0, x1, y1), only inside ``part``."""
    x0, y0, x1, y1 = whole
    left, top, right, bottom = part
    if part == whole:
        full: Array = cv2.resize(level, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
        return full
    per_x, per_y = level.shape[1] / (x1 - x0), level.shape[0] / (y1 - y0)
    to_level = np.array(
        [[per_x, 0.0, (left - x0 + 0.5) * per_x - 0.5], [0.0, per_y, (top - y0 + 0.5) * per_y - 0.5]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    clipped: Array = cv2.warpAffine(
        level, to_level, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return clipped
