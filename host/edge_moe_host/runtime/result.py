# SPDX-License-Identifier: Apache-2.0
"""The meaning of a head's raw values at the picture's own size. SPEC.md, section 4, "task output".

The map is interpolated in one step from the head's grid to the picture's size. At the model's size, and at
every whole multiple of the grid, this is golden's task output, integer for integer; other sizes use the same
rule with other fractions. Sums are exact, so equal integers from two backends give equal results.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_moe_host.contract.bundle import TaskProgram
from edge_moe_host.errors import ImageError
from edge_moe_host.runtime.drawing import draw_values, overlay
from edge_moe_host.runtime.images import Taps, as_image, linear_taps

_PIXELS_AT_ONCE = 2**14  # of a class map's undecided cells: bounds their memory, which stays in a cache
_INT16, _INT32 = 2**15, 2**31


@dataclass(frozen=True, eq=False)
class Raw:
    """A device's result for a frame. ``values``: the head's int16 [h*w, C], or a float backend's float32 in
    the task's unit; ``cycles`` if the device counts them; ``seconds`` is the device's own time."""

    values: np.ndarray
    cycles: int | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Result:
    """One task of one picture, at the picture's size.

    ``values``: classes uint8 [h, w]; binary (edge, saliency) probability, float32 [h, w]; vector (normals)
    unit vectors, float32 [h, w, 3]; scalar (depth) metres, float32 [h, w]. ``raw`` and ``seconds``: see Raw.
    """

    task: str
    kind: str
    raw: np.ndarray
    values: np.ndarray
    image_size: tuple[int, int]
    cycles: int | None
    seconds: float
    name: str = ""  # of the frame in a stream
    image: np.ndarray | None = field(default=None, repr=False)  # the picture, as given
    class_names: tuple[str, ...] = ()
    palette: np.ndarray | None = field(default=None, repr=False)  # uint8 [C, 3]; None: the bundle has none

    def draw(self, image: np.ndarray | None = None, limit: float | None = None) -> np.ndarray:
        """uint8 RGB [h, w, 3]: classes in their colours, depth near bright and far dark, probabilities grey,
        normals as colours; laid over ``image`` when one of the result's size is given. Colours of depth end
        at ``limit``, by default its 98th percentile."""
        drawn = draw_values(self.kind, self.values, palette=self.palette, limit=limit, predicted=True)
        if image is None:
            return drawn
        below = as_image(image)
        if below.shape[:2] != self.image_size:
            height, width = self.image_size
            raise ImageError(f"the picture below is {list(below.shape)}: the result is {height} x {width}.")
        return overlay(below, drawn)


def make_result(program: TaskProgram, raw: Raw, picture: np.ndarray, name: str = "") -> Result:
    """The result of a picture uint8 [h, w, 3] from the task's raw values."""
    entry, size = program.entry, (picture.shape[0], picture.shape[1])
    out = entry.output
    unit = out.scale if raw.values.dtype == np.int16 else 1.0
    grid = raw.values.reshape(out.height, out.width, out.channels)
    return Result(
        task=program.name,
        kind=out.kind,
        raw=raw.values,
        values=task_values(out.kind, grid, unit, size),
        image_size=size,
        cycles=raw.cycles,
        seconds=raw.seconds,
        name=name,
        image=picture,
        class_names=tuple(style.name for style in entry.classes),
        palette=np.array([style.colour for style in entry.classes], np.uint8) if entry.classes else None,
    )


def task_values(kind: str, grid: np.ndarray, unit: float, size: tuple[int, int]) -> np.ndarray:
    """A head's values [h, w, C], in units of ``unit``, as the task's map at ``size``; see :class:`Result`."""
    if kind == "classes":
        return class_map(grid, size)
    sums, parts = enlarge(grid, size)
    return decode(kind, (sums * (unit / parts)).astype(np.float32))


def decode(kind: str, values: np.ndarray) -> np.ndarray:
    """Interpolated head values [H, W, C] in the task's unit as its label: see :class:`Result`."""
    if kind == "classes":
        return values.argmax(axis=2).astype(np.uint8)
    if kind == "binary":
        return probability(values[..., 0])
    if kind == "vector":
        unit: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=2, keepdims=True), 1e-12)
        return unit
    return values[..., 0]


def probability(logit: np.ndarray) -> np.ndarray:
    """The logistic function of every entry, [...], without overflow."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1, small) / (1 + small)


def enlarge(grid: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """(sums [H, W, C], parts): bilinear values of [h, w, C], times ``parts``; exact for integers."""
    down, across = _axes(grid, size)
    lines = grid.reshape(len(grid), -1)
    rows = lines.take(down.lower, axis=0) * down.rest[:, None]
    rows += lines.take(down.upper, axis=0) * down.weight[:, None]
    rows = rows.reshape(size[0], -1, grid.shape[2])
    sums = rows.take(across.lower, axis=1) * across.rest[:, None]
    sums += rows.take(across.upper, axis=1) * across.weight[:, None]
    return sums, down.units * across.units


def _axes(grid: np.ndarray, size: tuple[int, int]) -> tuple[Taps, Taps]:
    """Taps of rows and columns, with weights of a type that holds the sums."""
    parts = linear_taps(len(grid), size[0]).units * linear_taps(grid.shape[1], size[1]).units
    exact = np.float64 if grid.dtype.kind == "f" else np.int32 if parts * _INT16 < _INT32 else np.int64
    return linear_taps(len(grid), size[0], exact), linear_taps(grid.shape[1], size[1], exact)


def class_map(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W]: the channel whose bilinear value is largest, the lowest index on ties.

    Between four values of the same class every weighted mean has that class too, ties included. So only
    pixels in cells between values of different classes are computed.
    """
    down, across = _axes(grid, size)
    planes = np.ascontiguousarray(grid.reshape(-1, grid.shape[2]).T)  # [C, h * w]
    best = _largest(planes).reshape(grid.shape[:2]).take(down.around, axis=0).take(across.around, axis=1)
    first = best[:-1, :-1]
    undecided = (first != best[:-1, 1:]) | (first != best[1:, :-1]) | (first != best[1:, 1:])
    classes = first.take(down.gap, axis=0).take(across.gap, axis=1)
    cells = np.flatnonzero(undecided & down.filled[:, None] & across.filled)
    at_once = max(1, _PIXELS_AT_ONCE // (len(down.places) * len(across.places)))
    for start in range(0, len(cells), at_once):
        row, column = np.divmod(cells[start : start + at_once], first.shape[1])
        y, x = down.places.take(row, axis=1), across.places.take(column, axis=1)
        lines = [down.around[row + n] * grid.shape[1] for n in range(2)]
        weights = down.rest[y], down.weight[y]
        left = _between(planes, lines, across.around[column], weights)
        right = _between(planes, lines, across.around[column + 1], weights)
        values = left * across.rest[x] + right * across.weight[x]  # [C, y, x, cells]
        classes[y[:, None], x] = _largest(values.reshape(len(values), -1)).reshape(values.shape[1:])
    return classes


def _between(
    planes: np.ndarray, lines: Sequence[np.ndarray], column: np.ndarray, weights: Sequence[np.ndarray]
) -> np.ndarray:
    """Weighted sums [C, y, 1, n] of planes [C, h * w] at columns [n] of two lines; weights [y, n]."""
    upper, lower = (
        planes.take(line + column, axis=1)[:, None] * weight
        for line, weight in zip(lines, weights, strict=True)
    )
    upper += lower
    return upper[:, :, None]


def _largest(values: np.ndarray) -> np.ndarray:
    """uint8 [n]: argmax over the first axis of [C, n], the lowest index on ties; faster than NumPy's."""
    largest, index = values[0].copy(), np.zeros(values.shape[1], np.uint8)
    for channel, plane in enumerate(values[1:], 1):
        np.copyto(index, channel, where=plane > largest, casting="unsafe")
        np.maximum(largest, plane, out=largest)
    return index
