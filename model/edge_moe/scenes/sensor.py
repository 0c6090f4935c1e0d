# SPDX-License-Identifier: Apache-2.0
"""The camera's lens and electronics: radiance to an 8-bit picture."""

import cv2
import numpy as np
import numpy.typing as npt

from edge_moe.scenes.geometry import Array
from edge_moe.scenes.weather import Weather

_SPREAD = float(np.sqrt(2 * (256**2 - 1) / 12))  # standard deviation of the sum of two bytes


def sensor_noise(rng: np.random.Generator, count: int) -> Array:
    """Noise of unit deviation: the sum of two random bytes, a tenth of the cost of a normal draw."""
    words = rng.bit_generator.random_raw((count + 3) // 4).view(np.uint16)[:count]
    low = words & np.uint16(255)
    words >>= np.uint16(8)
    words += low
    noise = words.astype(np.float32)
    noise -= 255
    noise *= 1 / _SPREAD
    return noise


def expose(
    weather: Weather, radiance: Array, size: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Lens blur, exposure, white balance, tone curve and noise.

    ``radiance`` is linear RGB 3 x N; the result uint8 H x W x 3.
    """
    height, width = size
    blurred = [cv2.GaussianBlur(plane.reshape(height, width), (3, 3), weather.blur) for plane in radiance]
    mean = float(np.sqrt(np.maximum(blurred[1], 0)).mean())
    gain = (weather.exposure / max(mean, 1e-3)) ** 2
    ys = np.linspace(-1, 1, height, dtype=np.float32)
    xs = np.linspace(-1, 1, width, dtype=np.float32)
    dark = 0.5 * weather.vignette
    falloff = (1 - dark * ys * ys)[:, None] - dark * xs * xs
    noise = sensor_noise(rng, 3 * height * width).reshape(3, height, width)
    picture = np.empty((height, width, 3), np.uint8)
    for k, plane in enumerate(blurred):
        plane *= falloff
        plane *= np.float32(gain) * weather.balance[k]
        # Compress highlights instead of cutting them, then encode with gamma 2.
        plane *= (1 + plane * 0.18) / (1 + plane * 0.42)
        np.maximum(plane, 0, out=plane)
        np.sqrt(plane, out=plane)
        plane += noise[k] * (weather.noise + weather.shot * plane)
        plane *= 255
        plane += 0.5
        picture[..., k] = np.clip(plane, 0, 255, out=plane)
    return picture
