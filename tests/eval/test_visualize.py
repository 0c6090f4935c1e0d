# SPDX-License-Identifier: Apache-2.0
"""Colours with known answers, the layout of panels, and files that are whole or absent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_moe.eval import visualize
from edge_moe.eval.visualize import decode, depth_limit, panel, usage_heatmap
from edge_moe.tasks import TASKS
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.runtime.drawing import distinct_palette, draw_values

PALETTE = np.array([[10, 20, 30], [200, 100, 0], [0, 150, 250]], dtype=np.uint8)
NEAR, FAR = (240, 249, 33), (13, 8, 135)  # ends of "plasma"


def pixels(drawn: np.ndarray) -> list[list[int]]:
    assert drawn.dtype == np.uint8
    assert drawn.shape[2] == 3
    return drawn.reshape(-1, 3).tolist()


def draw(task: str, values: np.ndarray, **options: Any) -> np.ndarray:
    return draw_values(TASKS[task].kind, values, **options)


def predictions(height: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    channels = {"semseg": 3, "human_parts": 7, "saliency": 1, "normals": 3, "edge": 1, "depth": 1}
    return {task: rng.standard_normal((count, height, width)) for task, count in channels.items()}


def labels(height: int, width: int) -> dict[str, np.ndarray]:
    decoded = {task: decode(task, raw) for task, raw in predictions(height, width).items()}
    for task in ("saliency", "edge"):
        decoded[task] = (decoded[task] > 0.5).astype(np.uint8)
    decoded["depth"] = np.abs(decoded["depth"]).astype(np.float32)
    return decoded


def test_decode() -> None:
    assert decode("semseg", np.array([[[0.0, 2]], [[1, 1]]])).tolist() == [[1, 0]]
    assert decode("edge", np.array([[[0.0, 100, -100]]])).tolist() == [[0.5, 1, pytest.approx(0)]]
    assert decode("normals", np.array([[[0.0, 0]], [[3, 0]], [[4, 0]]])).tolist() == [
        [[0, 0.6, 0.8], [0, 0, 0]]
    ]
    assert decode("depth", np.array([[[7.0]]])).tolist() == [[7]]


def test_a_title_of_signs_that_no_font_has_is_drawn() -> None:
    drawn = panel(np.zeros((8, 8, 3), np.uint8), {"depth": np.ones((1, 8, 8))}, title="\udcff \u2265 $x_")
    assert drawn.ndim == 3


def test_class_colours() -> None:
    label = np.array([[2, 0, 255]], dtype=np.uint8)
    assert pixels(draw("semseg", label, palette=PALETTE)) == [[0, 150, 250], [10, 20, 30], [255, 255, 255]]
    default = distinct_palette(255)
    assert pixels(draw("human_parts", label)) == [default[2].tolist(), default[0].tolist(), [255] * 3]


def test_binary_greys() -> None:
    assert pixels(draw("edge", np.array([[0, 1, 255]], dtype=np.uint8))) == [[0] * 3, [255] * 3, [128] * 3]
    assert pixels(draw("saliency", np.array([[0.0, 0.2, 1.0]]))) == [[0] * 3, [51] * 3, [255] * 3]


def test_normal_colours() -> None:
    normals = np.array([[[1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, 0]]], dtype=np.float32)
    drawn = pixels(draw("normals", normals))
    assert drawn == [[255, 128, 128], [128, 0, 128], [128, 128, 0], [0, 0, 0]]


def test_depth_colours() -> None:
    depth = np.array([[0.0, 1e-6, 50.0, 80.0, -1.0, np.nan]])
    black = [0, 0, 0]
    assert pixels(draw("depth", depth, limit=50)) == [black, list(NEAR), list(FAR), list(FAR), black, black]
    inverse = pixels(draw("depth", depth, limit=50, depth_kind="inverse"))
    assert inverse == [black, list(FAR), list(NEAR), list(NEAR), black, black]


def test_depth_limit() -> None:
    assert depth_limit(np.arange(101.0)) == pytest.approx(np.percentile(np.arange(1, 101), 98))
    assert depth_limit(np.array([0.0, -1, np.nan])) == 1  # nothing valid
    assert pixels(draw("depth", np.zeros((1, 2)))) == [[0, 0, 0]] * 2


@pytest.mark.parametrize(("height", "width"), [(16, 32), (128, 256), (40, 24), (600, 700)])
@pytest.mark.parametrize("labelled", [True, False])
def test_panel_shapes(height: int, width: int, labelled: bool) -> None:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    truth = labels(height, width) if labelled else None
    drawn = panel(image, predictions(height, width), truth, title="a $b_1$")
    assert drawn.dtype == np.uint8
    assert drawn.ndim == 3
    assert drawn.shape[2] == 3
    assert drawn.shape[1] <= 4 * 512 + 200
    assert drawn.flags.c_contiguous


def test_panel_contains_its_parts_pixel_by_pixel() -> None:
    image = np.full((128, 256, 3), (1, 2, 3), dtype=np.uint8)
    truth = {"semseg": np.zeros((128, 256), dtype=np.uint8)}
    truth["semseg"][:, 100:] = 255
    raw = np.zeros((3, 128, 256))
    raw[1] = 1
    drawn = panel(image, {"semseg": raw}, truth, palette={"semseg": PALETTE}, class_names={"semseg": "abc"})

    def count(colour: tuple[int, int, int]) -> int:
        return int((drawn == colour).all(axis=2).sum())

    swatch = 20 * 24  # enlarged by two, and a swatch in the legend for each class that occurs
    assert count((1, 2, 3)) == 4 * 128 * 256
    assert count((10, 20, 30)) == 4 * 128 * 100 + swatch
    assert count((200, 100, 0)) == 4 * 128 * 256 + swatch
    assert count((0, 150, 250)) == 0


def test_panel_is_deterministic_and_leaves_its_input_alone() -> None:
    image = np.zeros((16, 32, 3), dtype=np.uint8)
    raw, truth = predictions(16, 32), labels(16, 32)
    first = panel(image, raw, truth)
    assert np.array_equal(first, panel(image, raw, truth))
    for task, expected in labels(16, 32).items():
        assert np.array_equal(truth[task], expected)


def test_panel_without_some_labels() -> None:
    image = np.zeros((16, 32, 3), dtype=np.uint8)
    raw = predictions(16, 32)
    assert (
        panel(image, raw, {"depth": labels(16, 32)["depth"]}).shape == panel(image, raw, labels(16, 32)).shape
    )


def test_panel_of_wrong_input() -> None:
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    with pytest.raises(EdgeMoEError, match="no prediction"):
        panel(image, {})
    with pytest.raises(EdgeMoEError, match="'depth' contains NaN"):
        panel(image, {"depth": np.full((1, 4, 4), np.nan)})


@pytest.mark.parametrize(("tasks", "experts"), [(1, 4), (2, 16), (6, 8), (3, 64)])
def test_usage_heatmap(tmp_path: Path, tasks: int, experts: int) -> None:
    names = list(predictions(1, 1))[:tasks]
    usage = {task: np.random.default_rng(0).integers(0, 50, (3, experts)) for task in names}
    path = tmp_path / "new" / "usage.png"
    usage_heatmap(usage, path, (1, 3, 5))
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 100
    assert [entry.name for entry in path.parent.iterdir()] == ["usage.png"]


def test_usage_heatmap_of_unused_block(tmp_path: Path) -> None:
    usage_heatmap({"depth": np.zeros((1, 2), dtype=np.int64)}, tmp_path / "usage.png")
    assert (tmp_path / "usage.png").is_file()


def test_usage_heatmap_of_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(EdgeMoEError, match="no expert usage"):
        usage_heatmap({}, tmp_path / "usage.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeMoEError, match="cannot write"):
        usage_heatmap({"depth": np.ones((1, 2))}, tmp_path / "file" / "usage.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_black_depth_is_explained_where_there_is_some(monkeypatch):
    texts = []
    monkeypatch.setattr(visualize._Canvas, "text", lambda self, y, x, text, *style: texts.append(text))
    image, depth = np.zeros((8, 8, 3), np.uint8), np.full((1, 8, 8), 2.0, np.float32)
    label = np.full((8, 8), 3.0, np.float32)
    label[0, 0] = 0
    visualize.panel(image, {"depth": depth}, {"depth": label})
    assert "depth: truth (black: no depth)" in texts
    assert "depth: prediction" in texts
