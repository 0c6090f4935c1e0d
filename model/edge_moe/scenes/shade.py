# SPDX-License-Identifier: Apache-2.0
"""Light: sun, sky, shadow, mirrors and haze turn albedo into radiance."""

import cv2
import numpy as np
import numpy.typing as npt

from edge_moe.scenes.facade import paint_facades
from edge_moe.scenes.fragments import Fragments
from edge_moe.scenes.geometry import PROFILE_START, Array, Fixed, Material, Scene, View
from edge_moe.scenes.ground import road_x
from edge_moe.scenes.shadow import cast_shadows, contact_shade
from edge_moe.scenes.texture import paint_all
from edge_moe.scenes.weather import Weather, paint_sky

_STREET_MIRRORED = (0.13, 0.125, 0.12)  # linear colour in mirrors below the sky
_VISIBLE_SUN = 0.4  # weaker sunlight casts no visible shadow of small bodies
_GLOW = 2.2  # radiance of signal lamps


def shade(
    scene: Scene,
    view: View,
    weather: Weather,
    rays: tuple[Array, Array, Array],
    f: Fragments,
    capsules: npt.NDArray[np.float64],
) -> Array:
    """Radiance of every pixel, linear RGB 3 x N in ``f.order``; changes ``f.part`` and ``f.colour``."""
    paint_all(scene.street, f)
    _paint_reflecting(scene, view, weather, f)
    sun = weather.sun.astype(np.float32)
    direct = f.side * sun[0]
    direct += f.up * sun[1]
    direct += f.ahead * sun[2]
    np.maximum(direct, 0, out=direct)
    leaves = f.by_material[Material.FOLIAGE]
    # Light passes through leaves.
    direct[leaves] *= 0.75
    direct[leaves] += 0.25
    direct *= 1 - _building_shadow(scene, weather, f)

    ground = f.surface <= Fixed.KERB_CROSS
    if weather.sunlight[0] > _VISIBLE_SUN:
        cast = (
            cast_shadows(scene, view, capsules, weather.sun, 0.5 * scene.street.kerb)
            .reshape(-1)
            .take(f.solid)
        )
        direct *= 1 - (cast * np.float32(1 / 255)) * ground
    width = 2 * max(1, round(view.height / 160)) + 1
    contact = cv2.blur(contact_shade(scene, view), (width, width)).reshape(-1)
    shelter = contact.take(f.solid) * np.float32(0.75 / 255)
    shelter *= ground
    np.subtract(1, shelter, out=shelter)
    direct *= shelter
    above = (0.5 + 0.5 * f.up) * shelter
    clear = np.exp(-weather.haze * f.depth)
    glow = f.by_material[Material.GLOW]
    for k in range(3):
        light = above * (weather.skylight[k] - weather.bounce[k])
        light += weather.bounce[k] * shelter
        light += direct * weather.sunlight[k]
        light[glow] = _GLOW
        radiance = f.colour[k]
        radiance *= light
        radiance -= weather.horizon[k]
        radiance *= clear
        radiance += weather.horizon[k]
    x, y, z = (plane.reshape(-1).take(f.sky) for plane in rays)
    return np.concatenate([f.colour, paint_sky(weather, (x, y, z))], axis=1)


def _paint_reflecting(scene: Scene, view: View, weather: Weather, f: Fragments) -> None:
    """Glass, car paint and facades, which mirror the sky where the mirrored ray rises."""
    polished = (
        (Material.GLASS, 0.30, 0.6),
        (Material.PAINT, 0.05, 0.4),
    )
    for material, least, gain in polished:
        at = f.by_material[material]
        if at.stop > at.start:
            reflection, slant = _reflection(view, weather, f, at)
            mirror = least + gain * (1 - slant) ** 3
            colour = f.colour[:, at]
            colour += mirror * (reflection - colour)
    at = f.by_material[Material.FACADE]
    if at.stop > at.start:
        paint_facades(scene, f, at, *_reflection(view, weather, f, at))


def _reflection(view: View, weather: Weather, f: Fragments, at: slice) -> tuple[Array, Array]:
    """Mirrored colour (3 x n) and the cosine between view and normal, in [0, 1] (n)."""
    dx, dy, dz = (axis[at] - c for axis, c in zip((f.x, f.y, f.z), view.camera.position, strict=True))
    scale = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
    up = f.up[at]
    cosine = (dx * f.side[at] + dy * up + dz * f.ahead[at]) * scale
    rise = dy * scale - 2 * cosine * up
    sky = np.clip(rise * 2.5 + 0.15, 0, 1)
    mean = 0.5 * (weather.horizon + weather.zenith)
    street = np.array(_STREET_MIRRORED, np.float32)
    return street[:, None] + (mean - street)[:, None] * sky, np.clip(-cosine, 0, 1)


def _building_shadow(scene: Scene, weather: Weather, f: Fragments) -> Array:
    """Share of sunlight that the row of buildings on the sun's side blocks, in [0, 1].

    The row is a wall along the building line with one height per metre; the ray to the sun meets it at
    one place.
    """
    sun = weather.sun
    side = 1 if sun[0] > 0 else 0
    if scene.height_profile is None or abs(sun[0]) < 0.05:
        return np.zeros_like(f.x)
    profile = scene.height_profile[side]
    line = scene.street.front(side) * (1 if side else -1)
    travel = (line - road_x(scene.street, f.x, f.z)) * np.float32(1 / sun[0])
    at = np.clip(f.z + travel * np.float32(sun[2]) - PROFILE_START, 0, len(profile) - 1)
    height = f.y + travel * np.float32(sun[1])
    amount = profile.take(at.astype(np.int32)) - height
    amount /= np.maximum(0.02 * travel, 0) + 0.15
    np.clip(amount, 0, 1, out=amount)
    amount *= travel > 0.02
    return amount
