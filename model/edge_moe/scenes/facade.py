# SPDX-License-Identifier: Apache-2.0
"""Facades: windows, doors, shops, bands and bricks from one table row per wall.

A wall is a grid of storeys and window axes. A hash of a cell's place decides what it shows, so a facade
costs one polygon for any number of windows.
"""

import numpy as np

from edge_moe.scenes.buildings import DOOR_FLOOR, SHOP_FLOOR
from edge_moe.scenes.fragments import Fragments
from edge_moe.scenes.geometry import Array, Scene
from edge_moe.scenes.labels import PART
from edge_moe.scenes.texture import brick_tone, hash_unit, soft_box

_DOOR = (0.10, 0.06, 0.04)  # linear, added to half the accent
_INSIDE = (1.0, 0.98, 0.92)
_LAMPLIGHT = (0.45, 0.36, 0.20)
_FRAME = 0.11  # metres
_BAR = 0.03
_STEEPEST = 0.04


def paint_facades(scene: Scene, f: Fragments, at: slice, reflection: Array, slant: Array) -> None:
    """Paint the facade fragments ``at``.

    ``reflection`` (3 x n) is the radiance that their glass mirrors, ``slant`` (n) the cosine between
    view and wall normal, in [0, 1].
    """
    row = np.array(scene.facade).take(f.surface[at])

    def col(name: str) -> Array:
        return np.array([facade[name] for facade in scene.facades], np.float32).take(row, axis=0)

    u = (f.x[at] - col("x")) * col("ux") + (f.z[at] - col("z")) * col("uz")
    v = f.y[at] - col("base")
    footprint = np.maximum(f.footprint[at], 0.008)
    grain, coarse = f.grain[at], f.coarse[at]
    pitch, storey, ground = col("pitch"), col("storey"), col("ground")
    cu, cv = u / pitch, (v - ground) / storey
    iu, iv = np.floor(cu), np.floor(cv)
    axis, level, seed = iu.astype(np.int32), iv.astype(np.int32), col("seed").astype(np.int32)
    upper = (cv >= 0) & (cv < col("storeys"))
    du = (cu - iu - 0.5) * pitch
    dv = (cv - iv - 0.54) * storey
    half_u, half_v = col("half_width") * pitch, col("half_height") * storey

    floor = col("floor")
    low = v < ground
    shop, entry = low & (floor == SHOP_FLOOR), low & (floor == DOOR_FLOOR)
    door = np.zeros_like(shop)
    below = np.flatnonzero(shop | entry)
    if len(below):
        # The ground floor: windows at human height, or panes from the knee to the sign; doors.
        g, here = ground[below], shop[below]
        middle = np.where(here, 0.46 * g, 0.56 * g)
        tall = np.where(here, 0.31 * g, 0.24 * g)
        wide = np.where(here, 0.45 * pitch[below], half_u[below])
        opens = ((axis[below] + seed[below]) & 3) == 1
        middle = np.where(opens, 0.37 * g, middle)
        tall = np.where(opens, 0.37 * g, tall)
        wide = np.where(opens, np.minimum(wide, 0.6), wide)
        dv[below] = v[below] - middle
        half_u[below], half_v[below] = wide, tall
        door[below] = opens

    soft_u = footprint / np.maximum(slant, _STEEPEST)
    # If a pixel spans a window axis or more, windows blend into their mean.
    blend = np.clip(1.6 * soft_u / pitch - 0.6, 0, 1)
    opening = upper | shop | entry
    pane = soft_box(du, half_u, soft_u)
    pane += blend * (2 * half_u / pitch - pane)
    pane *= soft_box(dv, half_v, footprint)
    pane *= opening
    frame = soft_box(du, half_u + _FRAME, soft_u)
    frame *= soft_box(dv, half_v + _FRAME, footprint)
    frame *= opening
    frame *= 0.85 * (1 - blend)
    bars = np.maximum(soft_box(du, _BAR, soft_u), soft_box(dv + half_v * 0.2, _BAR, footprint))
    bars *= np.minimum(0.10 / footprint, 1)
    bars *= upper | entry

    tone = 1 + 0.07 * coarse + 0.06 * grain * np.minimum(0.2 / footprint, 1)
    tone -= 0.12 * np.clip(1 - v, 0, 1)
    brick = col("brick")
    near = np.flatnonzero((brick > 0) & (footprint < 0.12))
    if len(near):
        tone[near] += brick[near] * (brick_tone(u[near], v[near], footprint[near]) - 1)
    share = cv - iv
    tone += col("band") * soft_box(np.minimum(share, 1 - share) * storey, 0.14, footprint) * ~low

    sign = soft_box(v - 0.88 * ground, 0.08 * ground, footprint)
    sign *= floor == SHOP_FLOOR
    rim = col("frame") ** 2
    cell = hash_unit(axis, level, seed)
    # Curtains and blinds in the lower part of some windows, lamps inside others.
    curtain = np.maximum(cell - 0.68, 0) * 0.9 * (dv > -0.2 * half_v)
    inside = col("glass") ** 2 + curtain
    lit = (hash_unit(level, axis, seed) < col("lit")).astype(np.float32)
    mirror = 0.30 + 0.25 * cell
    glass = pane * (1 - bars)
    solid = (door & ~shop).astype(np.float32)
    accents = col("accent").T ** 2
    for k, accent in enumerate(accents):
        plane = f.colour[k][at] * tone
        plane += sign * (accent - plane)
        plane += frame * (rim - plane)
        body = inside * _INSIDE[k] + lit * _LAMPLIGHT[k]
        body += mirror * (reflection[k] - body)
        body += solid * (accent * 0.5 + _DOOR[k] - body)
        plane += glass * (body - plane)
        f.colour[k][at] = plane

    covered = pane > 0.5
    part = f.part[at]
    part[covered] = PART["window"]
    part[covered & shop] = PART["shop"]
    part[covered & door] = PART["door"]
