# SPDX-License-Identifier: Apache-2.0
"""Stored noise, made once per process from a fixed seed."""

import functools

import numpy as np

from edge_moe.scenes.geometry import Array

_GRAIN_SIDE = 128  # texels; powers of two
_CLOUD_SIDE = 256


@functools.cache
def noise_bank() -> tuple[Array, Array]:
    """Tileable noise of zero mean and unit deviation: fine grain (128 x 128) and clouds (256 x 256)."""
    rng = np.random.default_rng(7)
    result = []
    for side, exponent in ((_GRAIN_SIDE, 0.7), (_CLOUD_SIDE, 1.7)):
        frequency = np.fft.fftfreq(side)
        radius = np.hypot(frequency[:, None], frequency[None, :])
        radius[0, 0] = 1.0
        spectrum = np.fft.fft2(rng.standard_normal((side, side))) / radius**exponent
        spectrum[0, 0] = 0.0
        plane = np.real(np.fft.ifft2(spectrum))
        result.append((plane / plane.std()).astype(np.float32))
    return result[0], result[1]
