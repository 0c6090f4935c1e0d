# SPDX-License-Identifier: Apache-2.0
"""Albedo of the ground, of foliage and of small patterns as functions of position.

Every pattern is built from soft boxes whose edge is as wide as a pixel's footprint: nothing
flickers in the distance, and the same coverage decides the part label (more than half).
"""

import numpy as np
import numpy.typing as npt

from edge_moe.scenes.fragments import Fragments
from edge_moe.scenes.geometry import Array, Material, Street
from edge_moe.scenes.ground import road_x
from edge_moe.scenes.labels import PART

Cells = npt.NDArray[np.int32]

_MARKING = (0.62, 0.62, 0.58)  # linear
_GRASS = (0.11, 0.17, 0.045)


def soft_box(distance: Array, half: Array | float | np.float32, softness: Array) -> Array:
    """Coverage of |distance| < half by a pixel whose footprint is ``softness``."""
    cover = half - np.abs(distance)
    cover /= softness
    cover += 0.5
    return np.clip(cover, 0, 1, out=cover)


def periodic(value: Array, period: float) -> Array:
    """Distance from the middle of the period that holds the value, in the value's unit."""
    share = value * (1 / period)
    share -= np.floor(share)
    share -= 0.5
    share *= period
    return share


def hash_unit(a: Cells, b: Cells, seed: Cells | int) -> Array:
    """Repeatable value in [0, 1) per cell."""
    mixed = (a * np.int32(7919)) ^ (b * np.int32(10473)) ^ (seed * np.int32(271))
    mixed = (mixed ^ (mixed >> 7)) * np.int32(2531)
    return ((mixed ^ (mixed >> 5)) & 1023).astype(np.float32) * (1 / 1024)


def paint_all(street: Street, f: Fragments) -> None:
    """Apply every pattern of this module to the pixels that carry it."""
    painters = {
        Material.PAVING: _paving_tone,
        Material.FOLIAGE: _foliage_tone,
        Material.TILES: _tile_tone,
        Material.BRICK: _brick_tone,
        Material.PLAIN: _plain_tone,
    }
    for material, painter in painters.items():
        at = f.by_material[material]
        if at.stop > at.start:
            f.colour[:, at] *= painter(f, at)
    at = f.by_material[Material.GRASS]
    if at.stop > at.start:
        tone = _grass_tone(f, at)
        f.colour[:, at] = np.array(_GRASS, np.float32)[:, None] * tone
    at = f.by_material[Material.ROAD]
    if at.stop > at.start:
        _paint_road(street, f, at)


def _plain_tone(f: Fragments, at: slice) -> Array:
    return 1 + 0.05 * f.coarse[at]


def _foliage_tone(f: Fragments, at: slice) -> Array:
    fade = np.clip(0.25 / f.footprint[at], 0.3, 1)
    tone = 1 + 0.42 * f.grain[at] * fade + 0.15 * f.coarse[at]
    return np.maximum(tone, 0.2)


def _grass_tone(f: Fragments, at: slice) -> Array:
    fade = np.minimum(0.25 / f.footprint[at], 1)
    tone = 1 + 0.22 * f.coarse[at] + 0.3 * f.grain[at] * fade
    return np.maximum(tone, 0.25)


def _along(f: Fragments, at: slice) -> Array:
    """Length of a pixel's footprint along the view on the ground, for a camera 1.4 m high."""
    depth = f.depth[at]
    return np.maximum(depth * f.footprint[at] * (1 / 1.4), 0.02)


def _paving_tone(f: Fragments, at: slice) -> Array:
    """Slabs of 60 cm with joints."""
    across, along = np.maximum(f.footprint[at], 0.01), _along(f, at)
    u, v = f.u[at] * (1 / 0.6), f.v[at] * (1 / 0.6)
    iu, iv = np.floor(u), np.floor(v)
    slab = soft_box(u - iu - 0.5, 0.48, across * 2)
    slab *= soft_box(v - iv - 0.5, 0.48, along * 2)
    fade = np.minimum(0.35 / along, 1)
    cells = hash_unit(iu.astype(np.int32), iv.astype(np.int32), 3)
    tone = fade * (0.16 * cells + 0.3 * slab + 0.06 * f.grain[at])
    tone += 1 - 0.38 * fade
    tone += 0.10 * f.coarse[at]
    return np.maximum(tone, 0.3)


def _tile_tone(f: Fragments, at: slice) -> Array:
    """Courses of roof tiles, or the boards of a fence."""
    fade = np.minimum(0.16 / np.maximum(f.footprint[at], 0.01), 1)
    tone = fade * (periodic(f.y[at], 0.33) * 0.85 + periodic(f.u[at], 0.24) * 0.8)
    tone += 1 + 0.09 * f.grain[at]
    return np.maximum(tone, 0.3)


def _brick_tone(f: Fragments, at: slice) -> Array:
    return brick_tone(f.u[at], f.v[at], np.maximum(f.footprint[at], 0.01))


def brick_tone(u: Array, v: Array, footprint: Array) -> Array:
    """Factor of mortar joints and of bricks that differ in tone."""
    level = v * (1 / 0.085)
    row = np.floor(level)
    rows = row.astype(np.int32)
    shifted = u * 4 + 0.5 * (rows & 1)  # float64, as the whole numbers make it
    column = np.floor(shifted)
    cells = hash_unit(column.astype(np.int32), rows, 11)
    brick = soft_box(shifted - column - 0.5, np.float32(0.46), footprint * 4)
    brick *= soft_box(level - row - 0.5, 0.41, footprint * 12)
    fade = np.minimum(0.05 / footprint, 1)
    return 1 + fade * (0.3 * cells + 0.2 - np.float32(0.35) * brick)


def _paint_road(street: Street, f: Fragments, at: slice) -> None:
    """Asphalt with worn tracks and painted markings."""
    z = f.z[at]
    lateral = road_x(street, f.x[at], z)
    across = np.maximum(f.footprint[at], 0.01)
    along = _along(f, at)
    grain = f.grain[at]
    tone = 1 + 0.16 * f.coarse[at] + 0.1 * grain * np.minimum(0.12 / across, 1)
    # Wheels polish two tracks in each lane.
    track = np.abs(periodic(np.abs(lateral), street.lane)) - 0.25 * street.lane
    tone -= 0.07 * np.maximum(1 - np.abs(track) * 3, 0)
    for side, width in enumerate(street.parking):
        if width:
            inside = lateral > street.right - width if side else lateral < width - street.left
            tone -= np.float32(0.08) * inside
    np.maximum(tone, 0.4, out=tone)

    inside = (lateral > -street.left) & (lateral < street.right)
    free = inside.astype(np.float32)
    for z0, z1, left, right in street.crossings:
        if left or right:
            free *= 1 - soft_box(z - 0.5 * (z0 + z1), 0.5 * (z1 - z0) + 0.5, along)
    zebra = np.zeros_like(lateral)
    stop_lines = np.zeros_like(lateral)
    for middle in street.zebras:
        offset = z - middle
        band = soft_box(offset, 1.6, along)
        bars = soft_box(periodic(lateral, 1.0), 0.25, across)
        zebra = np.maximum(zebra, band * bars)
        free *= 1 - soft_box(offset, 2.2, along)
        half = 0.5 * (street.right - street.parking[1])
        own = soft_box(lateral - half, half, across)
        own *= soft_box(offset + 2.6, 0.22, along)
        stop_lines = np.maximum(stop_lines, own)
    zebra *= inside
    paint = np.maximum(
        np.maximum(_lines(street, lateral, z, across, along) * free, stop_lines * inside), zebra
    )
    worn = paint * np.clip(0.88 + 0.14 * grain, 0.4, 1)
    for k, marking in enumerate(_MARKING):
        plane = f.colour[k][at] * tone
        plane += worn * (marking - plane)
        f.colour[k][at] = plane
    part = f.part[at]
    part[paint > 0.5] = PART["marking"]
    part[zebra > 0.5] = PART["zebra"]


def _lines(street: Street, lateral: Array, z: Array, across: Array, along: Array) -> Array:
    """Coverage by centre, lane, edge and parking lines."""
    half = 0.065
    # A line thinner than a pixel covers only its share of it.
    thin = np.minimum(2 * half / across, 1)
    dash = soft_box(periodic(z, 9.0), 1.7, along)

    def line(at: float) -> Array:
        return soft_box(lateral - at, half, across)

    solid = np.zeros_like(lateral)
    dashed = np.zeros_like(lateral)
    if street.centre_style == 3:
        solid = np.maximum(line(0.12), line(-0.12))
    elif street.centre_style == 2:
        solid = line(0.0)
    elif street.centre_style == 1:
        dashed = line(0.0)
    for side, sign in enumerate((-1.0, 1.0)):
        inner = street.edge(side) - street.parking[side]
        for k in range(1, round(inner / street.lane)):
            dashed = np.maximum(dashed, line(sign * k * street.lane))
        if street.edge_lines or street.parking[side]:
            solid = np.maximum(solid, line(sign * (inner - (0.0 if street.parking[side] else 0.35))))
    dashed *= dash
    np.maximum(solid, dashed, out=solid)
    solid *= thin
    return solid
