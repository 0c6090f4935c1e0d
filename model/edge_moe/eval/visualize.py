# SPDX-License-Identifier: Apache-2.0
"""Pictures of labels and predictions, and heat maps of expert usage."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edge_moe.tasks import IGNORE_LABEL, TASKS
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import replacing
from edge_moe_host.runtime import result
from edge_moe_host.runtime.drawing import (
    UNKNOWN_COLOUR,
    DepthKind,
    depth_colours,
    depth_limit,
    distinct_palette,
    draw_values,
)

_DPI = 100
_CELL = 512  # pixels; pictures are scaled to fit a square of this size, whole factors when enlarging
_GAP, _CAPTION, _BAR = 20, 36, 62  # pixels between cells, above each picture, below depth pictures
_LINE = 30  # pixels per legend entry
_FONT, _SMALL_FONT = 22, 20  # pixels; legible when a README shows the picture at half size
_LEAST_COLUMN, _COLUMN = 170, 250  # pixels of a column of the legend
_WIDE_BAR = 500  # pixels: room for five numbers below a scale
_LEGEND_LEAST, _LEGEND = 400, 1024  # widths of the strip below a result; wider ones are enlarged
_MAX_COLUMNS = 4


def decode(task: str, prediction: np.ndarray) -> np.ndarray:
    """Turn a raw model output [C, H, W] into the form of its label.

    Classes: uint8 H x W. Binary: float probability H x W. Normals: unit float H x W x 3. Depth: H x W.
    """
    return result.decode(TASKS[task].kind, prediction.transpose(1, 2, 0))


@dataclass(frozen=True)
class _Tile:
    """One picture of the panel: a caption above pixels, and a colour bar below if ``limit`` is given."""

    caption: str
    pixels: np.ndarray
    limit: float | None = None


# Names and colours of classes.
_Entries = list[tuple[str, np.ndarray]]


class _Canvas:
    """A white picture with painted pixels, and texts that matplotlib adds afterwards."""

    def __init__(self, height: int, width: int) -> None:
        self.pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        self.texts: list[tuple[float, float, str, int, str]] = []

    def paint(self, y: int, x: int, pixels: np.ndarray) -> None:
        self.pixels[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels

    def text(self, y: float, x: float, text: str, size: int = _FONT, align: str = "left") -> None:
        """``size`` is the height of the font in pixels; (y, x) is the middle of the line's start."""
        self.texts.append((y, x, text, size, align))

    def render(self) -> np.ndarray:
        height, width = self.pixels.shape[:2]
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        canvas = FigureCanvasAgg(figure)
        figure.figimage(self.pixels, origin="upper")
        for y, x, text, size, align in self.texts:
            figure.text(
                x / width,
                1 - y / height,
                text.replace("$", r"\$").encode(errors="replace").decode(),
                fontsize=size * 72 / _DPI,
                ha=align,
                va="center_baseline",
                color="black",
            )
        canvas.draw()
        return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:height, :width, :3])


def panel(
    image: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray] | None = None,
    *,
    class_names: Mapping[str, Sequence[str]] | None = None,
    palette: Mapping[str, np.ndarray] | None = None,
    title: str = "",
    depth_kind: DepthKind = "metric",
) -> np.ndarray:
    """Input, prediction and (with ``labels``) ground truth of every task side by side.

    ``image`` uint8 H x W x 3 RGB. ``predictions``: task -> raw output [C, H, W]. ``labels``: task ->
    label. Returns uint8 RGB. Small pictures are enlarged, large ones reduced. The legend lists the
    classes that occur; truth and prediction of depth share the colour range and its bar.
    """
    if not predictions:
        raise EdgeMoEError("there is no prediction to draw: choose at least one task.")
    legends: dict[str, _Entries] = {}
    groups = [[_Tile("input", _fit(image, smooth=True))]]
    for task, raw in predictions.items():
        if not np.isfinite(raw).all():
            raise EdgeMoEError(f"prediction of task '{task}' contains NaN or infinity and cannot be drawn.")
        named = [("prediction", decode(task, raw))]
        if labels is not None and task in labels:
            named.insert(0, ("truth", labels[task]))
        colours = (palette or {}).get(task)
        limit = depth_limit(named[0][1]) if task == "depth" else None
        kind = TASKS[task].kind
        group = []
        for what, values in named:
            drawn = draw_values(
                kind,
                values,
                palette=colours,
                limit=limit,
                depth_kind=depth_kind,
                predicted=what == "prediction",
            )
            none = " (black: no depth)" if kind == "scalar" and not drawn.any(axis=2).all() else ""
            group.append(_Tile(f"{task}: {what}{none}", _fit(drawn, kind != "classes"), limit))
        groups.append(group)
        if kind == "classes":
            legends[task] = _legend([values for _, values in named], (class_names or {}).get(task), colours)
    return _arrange(groups, legends, title, depth_kind)


def legend_strip(shown: result.Result, limit: float | None, every: bool = False) -> np.ndarray | None:
    """What belongs below a result's picture, uint8 [h, w, 3]: names and colours of the classes that occur (of
    all, with ``every``), or the scale of depths up to ``limit`` or of probabilities; None for normals."""
    width = shown.image_size[1]
    scale = max(1.0, width / _LEGEND)
    across = max(_LEGEND_LEAST, round(width / scale))
    room = across - 2 * _GAP
    if shown.kind == "vector":
        return None
    if shown.kind == "classes":
        classes = np.arange(shown.raw.shape[-1]) if every else shown.values
        entries = _legend([classes], shown.class_names, shown.palette)
        lines = math.ceil(len(entries) / (room // _LEAST_COLUMN))
        canvas = _Canvas(_GAP + _CAPTION + lines * _LINE, across)
        _paint_legends(canvas, _GAP // 2, _GAP, (lines * _LINE, room), {shown.task: entries})
    else:
        share = np.linspace(0, 1, room)
        bar = draw_values("binary", share[None])[0] if limit is None else depth_colours(share)
        canvas = _Canvas(_BAR + _CAPTION, across)
        canvas.text(_CAPTION / 2, _GAP, shown.task)
        _paint_bar(canvas, _CAPTION, _GAP, bar, limit or 1.0, " m" if limit else "")
    strip = canvas.render()
    if scale > 1:
        strip = cv2.resize(strip, (width, round(len(strip) * scale)), interpolation=cv2.INTER_CUBIC)
    return strip


def _fit(pixels: np.ndarray, smooth: bool) -> np.ndarray:
    """Scale to at most _CELL pixels a side; whole factors keep enlarged label pixels square."""
    height, width = pixels.shape[:2]
    factor = _CELL / max(height, width)
    factor = math.floor(factor) if factor >= 1 else factor
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    gradual = cv2.INTER_CUBIC if factor >= 1 else cv2.INTER_AREA
    return cv2.resize(pixels, size, interpolation=gradual if smooth else cv2.INTER_NEAREST)


def _legend(maps: Sequence[np.ndarray], names: Sequence[str] | None, palette: np.ndarray | None) -> _Entries:
    """Entries of the classes that occur, in order of their index; ignored pixels last."""
    present = np.unique(np.concatenate([values.ravel() for values in maps]))
    colours = distinct_palette(IGNORE_LABEL) if palette is None else palette
    entries = [
        (names[index] if names and index < len(names) else f"class {index}", colours[index])
        for index in present.tolist()
        if index < len(colours)
    ]
    if IGNORE_LABEL in present:
        entries.append(("ignored", np.array(UNKNOWN_COLOUR, dtype=np.uint8)))
    return entries


def _arrange(
    groups: Sequence[Sequence[_Tile]], legends: Mapping[str, _Entries], title: str, depth_kind: DepthKind
) -> np.ndarray:
    """Cells in rows: each has a stacked group of tiles; the legends are below the input."""
    height, width = groups[0][0].pixels.shape[:2]
    stacked = max(len(group) for group in groups)
    below_input = stacked > 1  # otherwise the legends take the cell after the last task
    cells = len(groups) + (bool(legends) and not below_input)
    columns = cells if cells <= _MAX_COLUMNS else min(_MAX_COLUMNS, math.ceil(cells / 2))
    rows = math.ceil(cells / columns)
    barred = [group[-1].limit is not None for group in groups]
    bars = [_BAR if any(barred[row * columns : (row + 1) * columns]) else 0 for row in range(rows)]
    cell_height = stacked * (height + _CAPTION)
    top = _GAP + (_CAPTION if title else 0)
    tops = [top + row * (cell_height + _GAP) + sum(bars[:row]) for row in range(rows)]
    canvas = _Canvas(tops[-1] + cell_height + bars[-1] + _GAP, _GAP + columns * (width + _GAP))
    if title:
        canvas.text(_GAP + _CAPTION / 2 - 4, _GAP, title, size=_FONT + 4)
    for number, group in enumerate(groups):
        y, x = tops[number // columns], _GAP + number % columns * (width + _GAP)
        for tile in group:
            canvas.text(y + _CAPTION / 2, x, tile.caption)
            canvas.paint(y + _CAPTION, x, tile.pixels)
            y += _CAPTION + tile.pixels.shape[0]
        if group[-1].limit is not None:
            bar = depth_colours(np.linspace(0, 1, width), depth_kind)
            _paint_bar(canvas, y, x, bar, group[-1].limit, " m" if depth_kind == "metric" else "")
    if legends:
        place = 0 if below_input else len(groups)
        y, x = tops[place // columns], _GAP + place % columns * (width + _GAP)
        if below_input:
            y += _CAPTION + height
        _paint_legends(canvas, y, x, (height, width), legends)
    return canvas.render()


def _paint_bar(canvas: _Canvas, y: int, x: int, colours: np.ndarray, limit: float, unit: str) -> None:
    """Bar of ``colours`` [width, 3] from 0 to ``limit`` with ticks: five, or three on a narrow one."""
    canvas.paint(y + 10, x, np.repeat(colours[None], 16, axis=0))
    last = 4 if len(colours) >= _WIDE_BAR else 2
    for part in range(last + 1):
        text = f"{limit * part / last:.3g}" + (unit if part == last else "")
        canvas.text(
            y + 42,
            x + len(colours) * part / last,
            text,
            _SMALL_FONT,
            {0: "left", last: "right"}.get(part, "center"),
        )


def _paint_legends(
    canvas: _Canvas, y: int, x: int, room: tuple[int, int], legends: Mapping[str, _Entries]
) -> None:
    """Swatches and names of each task's classes, in as many columns as fit the space."""
    height, width = room
    lines = max(1, height // _LINE)
    needed = [max(1, math.ceil(len(entries) / lines)) for entries in legends.values()]
    column_width = min(_COLUMN, width // sum(needed))
    letters = max(4, (column_width - 36) // 11)
    for (task, entries), columns in zip(legends.items(), needed, strict=True):
        canvas.text(y + _CAPTION / 2, x, task)
        for index, (name, colour) in enumerate(entries):
            left = x + index // lines * column_width
            top = y + _CAPTION + index % lines * _LINE
            canvas.pixels[top : top + 22, left : left + 26] = 120
            canvas.pixels[top + 1 : top + 21, left + 1 : left + 25] = colour
            text = name if len(name) <= letters else name[: letters - 1] + "…"
            canvas.text(top + 11, left + 34, text, _SMALL_FONT)
        x += columns * column_width


def usage_heatmap(usage: Mapping[str, np.ndarray], path: Path, blocks: Sequence[int] | None = None) -> None:
    """Write a PNG with one heat map per task: MoE blocks down, experts across.

    ``usage``: task -> counts [blocks, experts] (``EvaluationResult.usage``). A cell is the
    share of the block's token-to-expert assignments (tokens times top-k), so that each row sums to
    100 %. ``blocks`` are the indices of the blocks (default 0, 1, ...). The file appears whole or
    not at all.
    """
    if not usage:
        raise EdgeMoEError("there is no expert usage to draw: the model has no MoE block.")
    shares = {
        task: 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        for task, counts in usage.items()
    }
    block_count, experts = next(iter(shares.values())).shape
    names = list(range(block_count)) if blocks is None else list(blocks)
    columns = min(len(shares), 3 if experts <= 8 else 2)
    rows = math.ceil(len(shares) / columns)
    size = (columns * (1.6 + 0.42 * experts) + 0.8, rows * (1.0 + 0.38 * block_count) + 0.8)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    top = max(float(share.max()) for share in shares.values())
    for axis in axes.flat[len(shares) :]:
        axis.set_axis_off()
    for axis, (task, share) in zip(axes.flat, shares.items(), strict=False):
        drawn = axis.imshow(share, cmap="viridis", vmin=0, vmax=top, aspect="auto")
        axis.set_title(task, fontsize=12)
        axis.set_xticks(range(experts), range(experts), fontsize=9)
        axis.set_yticks(range(block_count), names, fontsize=9)
        axis.set_xlabel("expert", fontsize=10)
        axis.set_ylabel("block", fontsize=10)
        axis.tick_params(length=0)
        if experts <= 32:
            for (row, column), value in np.ndenumerate(share):
                light = np.array(drawn.to_rgba(value)[:3]) ** 2.2 @ (0.2126, 0.7152, 0.0722)
                colour = "black" if light > 0.18 else "white"  # the one with more contrast
                axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=9, color=colour)
    figure.colorbar(drawn, ax=axes, fraction=0.03, pad=0.02)
    figure.supxlabel(f"share of the block's token assignments in %, even: {100 / experts:.1f}", fontsize=10)
    canvas.draw()
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
