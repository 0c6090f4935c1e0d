# SPDX-License-Identifier: Apache-2.0
"""Light, air and sky of a scene. Colours here are linear RGB."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_moe.scenes.dice import Dice
from edge_moe.scenes.geometry import Array
from edge_moe.scenes.noise import noise_bank


@dataclass(frozen=True)
class Weather:
    """Light and camera electronics of one scene."""

    sun: npt.NDArray[np.float64]  # world direction towards the sun, unit
    sunlight: Array  # RGB
    skylight: Array  # RGB on a surface that faces up
    bounce: Array  # RGB on a surface that faces down
    horizon: Array
    zenith: Array
    cloud: Array
    cover: float  # share of the sky in clouds, roughly
    cloud_offset: tuple[float, float]
    haze: float  # per metre
    exposure: float  # mean display value aimed at
    balance: Array  # RGB gains
    vignette: float
    blur: float  # standard deviation of the lens blur, pixels
    noise: float  # read noise, display units
    shot: float  # signal-dependent noise
    texture_offset: tuple[float, float]


def draw_weather(dice: Dice) -> Weather:
    """Clear, hazy, overcast or evening light."""
    kind = dice.choice(("clear", "clear", "clear", "hazy", "overcast", "overcast", "evening"))
    azimuth = dice.uniform(-math.pi, math.pi)
    elevation = math.radians(dice.uniform(9, 20) if kind == "evening" else dice.uniform(24, 65))
    sun = np.array(
        [
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
            math.cos(elevation) * math.cos(azimuth),
        ]
    )
    strength = {"clear": 2.6, "hazy": 1.5, "overcast": 0.12, "evening": 2.0}[kind] * dice.uniform(0.85, 1.15)
    tint = (1.0, 0.72, 0.45) if kind == "evening" else (1.0, 0.95, 0.86)
    blue = {"clear": 1.0, "hazy": 0.5, "overcast": 0.08, "evening": 0.7}[kind] * dice.uniform(0.7, 1.1)
    grey = dice.uniform(0.75, 1.0) * {"clear": 1.0, "hazy": 1.3, "overcast": 1.25, "evening": 0.95}[kind]
    zenith = np.array([0.62 - 0.42 * blue, 0.66 - 0.28 * blue, 0.70 + 0.12 * blue]) * grey
    horizon = np.array([0.80 - 0.08 * blue, 0.84 - 0.03 * blue, 0.88 + 0.04 * blue]) * grey
    if kind == "evening":
        horizon = np.array([0.95, 0.68, 0.45]) * grey * dice.uniform(0.8, 1.05)
    ambient = {"clear": 0.62, "hazy": 0.8, "overcast": 1.0, "evening": 0.5}[kind]
    return Weather(
        sun=sun,
        sunlight=(np.array(tint) * strength).astype(np.float32),
        skylight=(ambient * (0.55 * zenith + 0.45 * horizon) / grey).astype(np.float32),
        bounce=(ambient * np.array([0.30, 0.28, 0.25])).astype(np.float32),
        horizon=horizon.astype(np.float32),
        zenith=zenith.astype(np.float32),
        cloud=(np.array([0.95, 0.95, 0.96]) * grey * dice.uniform(0.95, 1.15)).astype(np.float32),
        cover={
            "clear": dice.uniform(-1.2, 0.5),
            "hazy": 0.3,
            "overcast": 1.6,
            "evening": dice.uniform(-1, 0.3),
        }[kind],
        cloud_offset=(dice.uniform(0, 256), dice.uniform(0, 256)),
        haze=dice.uniform(0.006, 0.014) if kind == "hazy" else dice.uniform(0.0008, 0.005),
        exposure=dice.uniform(0.38, 0.52),
        balance=np.array([1 + dice.normal(0.04), 1.0, 1 + dice.normal(0.05)], np.float32),
        vignette=dice.uniform(0.0, 0.28),
        blur=dice.uniform(0.38, 0.62),
        noise=dice.uniform(0.002, 0.012),
        shot=dice.uniform(0.002, 0.014),
        texture_offset=(dice.uniform(0, 256), dice.uniform(0, 256)),
    )


def paint_sky(weather: Weather, rays: tuple[Array, Array, Array]) -> Array:
    """Linear RGB of the sky along each ray (arrays of one dimension), 3 x n."""
    x, y, z = rays
    scale = 1.0 / np.sqrt(x * x + y * y + z * z)
    rise = np.maximum(y * scale, 0)
    share = np.sqrt(np.minimum(rise * 1.9, 1))
    # Clouds are in a plane: they shrink towards the horizon.
    spread = 34.0 * scale / (rise + 0.12)
    u = x * spread + weather.cloud_offset[0]
    v = z * spread + weather.cloud_offset[1]
    fine, coarse = noise_bank()
    thick = _sample(coarse, u, v)
    thick += 0.18 * _sample(fine, 2 * u, 2 * v)
    density = np.clip((thick + (weather.cover - 0.35)) * 0.75, 0, 1)
    fade = np.minimum(rise * 9.0, 1)
    amount = density * density * (3 - 2 * density) * fade * 0.9
    shade = np.clip(1.06 - 0.14 * thick, 0.62, 1.1)
    sun = weather.sun.astype(np.float32)
    glow = np.maximum((x * sun[0] + y * sun[1] + z * sun[2]) * scale, 0)
    glow *= glow
    glow *= glow
    glow *= glow * (0.16 * min(1.0, float(weather.sunlight[0])))
    colour = np.empty((3, x.size), np.float32)
    for k in range(3):
        base = weather.horizon[k] + share * (weather.zenith[k] - weather.horizon[k])
        base += amount * (weather.cloud[k] * shade - base)
        base += glow * weather.sunlight[k]
        colour[k] = base
    return colour


def _sample(bank: Array, u: Array, v: Array) -> Array:
    """Bilinear sample of tileable noise at flat coordinates."""
    side = bank.shape[0]
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu, v - iv
    column, row = iu.astype(np.int32), iv.astype(np.int32)
    c0, c1 = column & (side - 1), (column + 1) & (side - 1)
    r0, r1 = (row & (side - 1)) * side, ((row + 1) & (side - 1)) * side
    flat = bank.reshape(-1)
    top = flat.take(r0 + c0)
    top += fu * (flat.take(r0 + c1) - top)
    bottom = flat.take(r1 + c0)
    bottom += fu * (flat.take(r1 + c1) - bottom)
    top += fv * (bottom - top)
    return top
