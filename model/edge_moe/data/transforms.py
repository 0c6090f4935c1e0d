# SPDX-License-Identifier: Apache-2.0
"""Joint augmentation of a picture and all its labels, and the resize used in evaluation.

A :class:`View` is one random augmentation; :func:`apply_view` applies it and is a pure function.
The steps, in this order: mirror; rotate about the centre, counter-clockwise as seen;
resize so that the whole picture covers ``zoom`` times the model's size; cut out the model's size,
padding where the zoomed picture is smaller.

What happens to the values (conventions in :mod:`edge_moe.data.sample`):

* image: area average where the picture shrinks, else linear; ``IMAGE_FILL`` outside;
* semseg, human_parts, saliency: nearest; 255 outside; no value is ever changed;
* edge: nearest; where the picture shrinks, lines are first widened to the sampling stride, so
  that a line one pixel wide is never lost between samples; 255 outside and where the label has 255;
* depth: nearest; 0 outside. A picture zoomed by z looks as if taken from 1/z of the distance
  (Eigen and Fergus, ICCV 2015), so metres are divided by z and disparities are multiplied by z.
  Values that mean "no measurement" (0 or less) stay as they are;
* normals: nearest; x changes sign when mirrored, (x, y) turn with the picture, the result has
  unit length again; zero vectors, ignored, stay zero; zero outside. Sign changes and rotations
  are also right where a data set stores both in-plane axes negated.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from edge_moe.config import TrainConfig
from edge_moe.data.base import DepthKind
from edge_moe.data.sample import IMAGE, Sample, outside_value, resize_image, unit_normals
from edge_moe.tasks import IGNORE_LABEL

IMAGE_FILL = (124, 116, 104)  # mean colour of ImageNet: about zero after the model's normalisation
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class View:
    """One random augmentation; the defaults show the whole picture.

    ``degrees`` turns counter-clockwise as seen. ``shift`` = (y, x) in [0, 1) places the cut among
    the possible ones, from the top left to the bottom right.
    """

    flip: bool = False
    degrees: float = 0.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.5, 0.5)


class Augmentation:
    """Random mirror, rotation, zoom with crop, and colour changes, as the training recipe says.

    ``size`` is the (height, width) of the result, whatever the size and aspect of the input: like
    evaluation, it stretches the picture to the model's aspect. ``depth_kind`` is the data set's.
    """

    def __init__(self, train: TrainConfig, size: tuple[int, int], depth_kind: DepthKind = "metric") -> None:
        self.train = train
        self.size = size
        self.depth_kind: DepthKind = depth_kind

    def draw(self, rng: np.random.Generator) -> View:
        """Draw one view; randomness comes from ``rng`` alone."""
        train = self.train
        return View(
            flip=train.flip and bool(rng.random() < 0.5),
            degrees=float(rng.uniform(-train.rotate, train.rotate)),
            zoom=float(train.scales[rng.integers(len(train.scales))] * rng.uniform(*train.scale_range)),
            shift=(float(rng.random()), float(rng.random())),
        )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample seen through a random view, at ``size``; the input is not changed."""
        result = apply_view(sample, self.draw(rng), self.size, self.depth_kind)
        if self.train.color_jitter > 0:
            result[IMAGE] = jitter_colors(result[IMAGE], self.train.color_jitter, rng)
        return result


def evaluation_resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """The image at the model's ``size``; labels untouched, as metrics are computed at their resolution."""
    return {**sample, IMAGE: resize_image(sample[IMAGE], size)}


def apply_view(
    sample: Mapping[str, np.ndarray], view: View, size: tuple[int, int], depth_kind: DepthKind = "metric"
) -> Sample:
    """The sample as seen through ``view``, every array at ``size`` = (height, width)."""
    geometry = _Geometry.of(view, sample[IMAGE].shape[:2], size)
    index, inside = geometry.nearest_source()
    result: Sample = {}
    for key, array in sample.items():
        if key == IMAGE:
            result[key] = _view_image(array, view, geometry)
            continue
        source = _widen_lines(array, geometry.stride) if key == "edge" else array
        seen = source.reshape(-1, *source.shape[2:])[index]
        seen[~inside] = outside_value(key)
        if key == "depth":
            seen = _zoom_depth(seen, view.zoom, depth_kind)
        elif key == "normals":
            seen = _turn_normals(seen, view)
        result[key] = np.ascontiguousarray(seen)
    return result


@dataclass(frozen=True)
class _Geometry:
    """The place of each output pixel; coordinates are (x, y) with pixel centres at half integers."""

    source: tuple[int, int]  # (height, width) of the input
    scaled: tuple[int, int]  # ... of the whole picture after the zoom
    size: tuple[int, int]  # ... of the output
    offset: tuple[int, int]  # top left corner (y, x) of the output in the scaled picture; may be negative
    to_source: np.ndarray  # 3 x 3, output pixel centre -> mirrored but not yet rotated input
    flip: bool

    @staticmethod
    def of(view: View, source: tuple[int, int], size: tuple[int, int]) -> "_Geometry":
        height, width = source
        scaled = (max(1, round(size[0] * view.zoom)), max(1, round(size[1] * view.zoom)))
        offset = (_cut(scaled[0], size[0], view.shift[0]), _cut(scaled[1], size[1], view.shift[1]))
        cos, sin = math.cos(math.radians(view.degrees)), math.sin(math.radians(view.degrees))
        shift = np.array([[1, 0, offset[1]], [0, 1, offset[0]], [0, 0, 1]], dtype=np.float64)
        shrink = np.diag([width / scaled[1], height / scaled[0], 1.0])
        centre = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]], dtype=np.float64)
        # Turning the picture counter-clockwise (y down) means looking up clockwise.
        turn_back = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=np.float64)
        to_source = centre @ turn_back @ np.linalg.inv(centre) @ shrink @ shift
        return _Geometry(source, scaled, size, offset, to_source, view.flip)

    @property
    def stride(self) -> tuple[int, int]:
        """Input pixels per output pixel along (y, x), rounded up."""
        # The small term keeps an exact ratio from being rounded up by floating point.
        down, across = (math.ceil(s / t - 1e-9) for s, t in zip(self.source, self.scaled, strict=True))
        return max(1, down), max(1, across)

    def nearest_source(self) -> tuple[np.ndarray, np.ndarray]:
        """Flat input index (int64) and whether it is in the picture (bool), both H x W of the output."""
        (height, width), (rows, columns) = self.source, self.size
        x, y = np.arange(columns)[None, :] + 0.5, np.arange(rows)[:, None] + 0.5
        matrix = self.to_source
        # Rounding away the last bits keeps exact ratios and right angles on their pixel.
        source_x = np.floor((matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]).round(9)).astype(np.int64)
        source_y = np.floor((matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]).round(9)).astype(np.int64)
        inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
        if self.flip:
            source_x = width - 1 - source_x
        return np.where(inside, source_y * width + source_x, 0), inside


def _cut(scaled: int, size: int, fraction: float) -> int:
    """First coordinate of the cut; negative where the zoomed picture is smaller and gets padded."""
    free = scaled - size
    return math.floor(fraction * (abs(free) + 1)) * (1 if free >= 0 else -1)


def _view_image(image: np.ndarray, view: View, geometry: _Geometry) -> np.ndarray:
    """The picture through the view; resizing first, so that shrinking averages instead of skipping."""
    scaled = resize_image(image[:, ::-1] if view.flip else image, geometry.scaled)
    (height, width), (top, left) = geometry.size, geometry.offset
    if view.degrees == 0:
        result = np.empty((height, width, 3), dtype=np.uint8)
        result[:] = IMAGE_FILL
        y, x = max(0, -top), max(0, -left)
        part = scaled[max(0, top) : top + height, max(0, left) : left + width]
        result[y : y + part.shape[0], x : x + part.shape[1]] = part
        return result
    # OpenCV's coordinates have pixel centres at integers.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=np.float64)
    enlarge = np.diag([geometry.scaled[1] / geometry.source[1], geometry.scaled[0] / geometry.source[0], 1.0])
    matrix = np.linalg.inv(half) @ enlarge @ geometry.to_source @ half
    warped = cv2.warpAffine(
        scaled,
        matrix[:2],
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=IMAGE_FILL,
    )
    return np.ascontiguousarray(warped)


def _widen_lines(edge: np.ndarray, stride: tuple[int, int]) -> np.ndarray:
    """Edges (1) widened to ``stride`` pixels, so that sampling every ``stride`` pixels meets them."""
    if stride == (1, 1):
        return edge
    wide = cv2.dilate((edge == 1).astype(np.uint8), np.ones(stride, dtype=np.uint8))
    return np.where(edge == IGNORE_LABEL, edge, wide)


def _zoom_depth(depth: np.ndarray, zoom: float, kind: DepthKind) -> np.ndarray:
    """Depth of a picture zoomed by ``zoom``; values of 0 or less mean "no measurement" and stay."""
    factor = np.float32(1.0 / zoom if kind == "metric" else zoom)
    return np.where(depth > 0, depth * factor, depth).astype(np.float32)


def _turn_normals(normals: np.ndarray, view: View) -> np.ndarray:
    """Unit normals of the mirrored, then rotated picture; zero vectors stay zero."""
    cos, sin = math.cos(math.radians(view.degrees)), math.sin(math.radians(view.degrees))
    x = -normals[..., 0] if view.flip else normals[..., 0]
    y, z = normals[..., 1], normals[..., 2]
    return unit_normals(np.stack([x * cos + y * sin, y * cos - x * sin, z], axis=-1))


def jitter_colors(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation each times a factor from [1 - strength, 1 + strength].

    uint8 H x W x 3 in and out; factors are never negative.
    """
    brightness, contrast, saturation = rng.uniform(max(0.0, 1 - strength), 1 + strength, size=3)
    values = image.astype(np.float32) * np.float32(brightness)
    luma = np.array(LUMA, dtype=np.float32)
    mean = np.float32((values @ luma).mean())
    values = (values - mean) * np.float32(contrast) + mean
    grey = (values @ luma)[..., None]
    values = grey + (values - grey) * np.float32(saturation)
    return np.rint(values.clip(0, 255)).astype(np.uint8)
