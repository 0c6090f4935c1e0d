# SPDX-License-Identifier: Apache-2.0
"""Pictures of class maps, probabilities, normals and depths, in NumPy."""

from typing import Literal

import numpy as np

UNKNOWN_CLASS = 255
UNKNOWN_COLOUR = (255, 255, 255)
UNKNOWN_GREY = 128  # binary labels
DEPTH_PERCENTILE = 98  # of the valid depths: ends the colour range, so that few far pixels do not fill it

DepthKind = Literal["metric", "inverse"]
"""``metric``: metres, near ones bright; ``inverse``: disparity, large ones bright."""

# Evenly spaced colours of the map "plasma", dark to bright; colours in between are interpolated.
_PLASMA = np.array(
    [(13, 8, 135), (49, 5, 151), (76, 2, 161), (102, 0, 167), (126, 3, 168), (149, 17, 161), (170, 35, 149),
     (188, 53, 135), (204, 71, 120), (217, 88, 106), (229, 107, 93), (240, 127, 79), (248, 148, 65),
     (253, 171, 51), (253, 195, 40), (249, 221, 37), (240, 249, 33)]
)  # fmt: skip
_SHADES = 256


def _shades() -> np.ndarray:
    """uint8 [256, 3], dark to bright."""
    place = np.linspace(0, len(_PLASMA) - 1, _SHADES)
    channels = [np.interp(place, np.arange(len(_PLASMA)), channel) for channel in _PLASMA.T]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


_DARK_TO_BRIGHT = _shades()


def distinct_palette(count: int) -> np.ndarray:
    """``count`` well separated colours, uint8 [count, 3] RGB; class 0 is black.

    Bit-reversal colours: three bits of the class index choose the highest bit of R, G and B, the
    next three the second highest, and so on, as PASCAL VOC colours its label maps.
    """
    palette = np.zeros((count, 3), dtype=np.uint8)
    for index in range(count):
        value, bit = index, 7
        while value:
            for channel in range(3):
                palette[index, channel] |= ((value >> channel) & 1) << bit
            value, bit = value >> 3, bit - 1
    return palette


def depth_limit(depth: np.ndarray) -> float:
    """End of the colour range 0 .. limit, in the unit of ``depth`` [h, w]: the 98th percentile of the valid
    (finite, positive) depths; 1 when there are none."""
    valid = depth[np.isfinite(depth) & (depth > 0)]
    return float(np.percentile(valid, DEPTH_PERCENTILE)) if len(valid) else 1.0


def draw_values(
    kind: str,
    values: np.ndarray,
    *,
    palette: np.ndarray | None = None,
    limit: float | None = None,
    depth_kind: DepthKind = "metric",
    predicted: bool = False,
) -> np.ndarray:
    """Draw a label, or a prediction in the form of a label, as uint8 RGB [h, w, 3].

    ``kind`` is the task's: ``classes`` in the colours of ``palette`` (uint8 [C, 3]; default
    :func:`distinct_palette`), unknown pixels white; ``binary`` in grey, unknown pixels at 128; ``vector`` as
    127.5 (n + 1), unknown (zero) pixels black; ``scalar`` from 0 to ``limit`` (default :func:`depth_limit`),
    near bright and far dark, invalid black. Labels are invalid at 0 and below, predictions are not.
    """
    if kind == "classes":
        colours = np.full((256, 3), UNKNOWN_COLOUR, dtype=np.uint8)
        known = distinct_palette(UNKNOWN_CLASS) if palette is None else palette
        colours[: len(known)] = known
        return colours[values]
    if kind == "binary":
        grey = np.round(np.clip(np.asarray(values, np.float32), 0, 1) * 255).astype(np.uint8)
        if np.issubdtype(values.dtype, np.integer):
            grey[values == UNKNOWN_CLASS] = UNKNOWN_GREY
        return np.repeat(grey[..., None], 3, axis=2)
    if kind == "vector":
        drawn: np.ndarray = np.round(np.clip(127.5 * (values + 1), 0, 255)).astype(np.uint8)
        drawn[~values.any(axis=2)] = 0
        return drawn
    valid = np.isfinite(values) & (predicted | (values > 0))
    scaled = np.where(valid, values, 0) / (depth_limit(values) if limit is None else limit)
    drawn = depth_colours(scaled, depth_kind)
    drawn[~valid] = 0
    return drawn


def depth_colours(fraction: np.ndarray, depth_kind: DepthKind = "metric") -> np.ndarray:
    """uint8 [..., 3] of fractions of the depth range; the bright end is the near one."""
    shade = np.minimum(np.clip(fraction, 0, 1) * _SHADES, _SHADES - 1).astype(np.intp)
    return _DARK_TO_BRIGHT[_SHADES - 1 - shade if depth_kind == "metric" else shade]


def above(drawn: np.ndarray, strip: np.ndarray) -> np.ndarray:
    """``drawn`` above ``strip``, both uint8 [h, w, 3]; the narrower one is followed by white."""
    page = np.full((len(drawn) + len(strip), max(drawn.shape[1], strip.shape[1]), 3), 255, np.uint8)
    page[: len(drawn), : drawn.shape[1]], page[len(drawn) :, : strip.shape[1]] = drawn, strip
    return page


def overlay(image: np.ndarray, drawn: np.ndarray, share: float = 0.6) -> np.ndarray:
    """``drawn`` over ``image``, both uint8 [h, w, 3]; ``drawn`` has ``share`` of the result."""
    part = round(256 * share)
    mixed = drawn.astype(np.uint16) * part + image.astype(np.uint16) * (256 - part) + 128
    return (mixed >> 8).astype(np.uint8)
