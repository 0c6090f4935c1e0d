# SPDX-License-Identifier: Apache-2.0
"""Maps at any size against golden's sums, exact fractions and brute force; pictures of known colours."""

from fractions import Fraction

import numpy as np
import pytest

from edge_moe_host.golden.operators import task_output, upsample_sums
from edge_moe_host.runtime.drawing import above as stacked
from edge_moe_host.runtime.drawing import depth_colours, distinct_palette, draw_values, overlay
from edge_moe_host.runtime.result import class_map, decode, enlarge, probability, task_values

GRIDS = [
    (8, 16, 4, 7),
    (5, 3, 3, 4),
    (1, 1, 5, 3),
    (8, 16, 1, 2),
    (4, 4, 64, 5),
    (1, 7, 2, 1),
    (6, 5, 8, 256),
]


def grid_of(height: int, width: int, channels: int, limit: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-limit, limit, (height, width, channels), endpoint=True).astype(np.int16)


@pytest.mark.parametrize(("height", "width", "factor", "channels"), GRIDS)
@pytest.mark.parametrize("limit", [1, 3, 32767])
def test_whole_multiples_are_goldens_task_output(
    height: int, width: int, factor: int, channels: int, limit: int
) -> None:
    grid = grid_of(height, width, channels, limit)
    size = (height * factor, width * factor)
    flat = grid.reshape(1, height * width, channels)
    sums, parts = enlarge(grid, size)
    assert parts == (2 * factor) ** 2
    np.testing.assert_array_equal(sums, upsample_sums(flat, height, width, factor)[0])
    classes = class_map(grid, size)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, task_output(flat, height, width, factor, classes=True)[0])


def test_the_smallest_int16_at_the_largest_factor() -> None:
    grid = np.full((2, 2, 1), -32768, np.int16)
    sums, parts = enlarge(grid, (128, 128))
    assert np.unique(sums).tolist() == [-32768 * parts]


@pytest.mark.parametrize("size", [(97, 131), (7, 5), (8, 16), (1, 1), (33, 16), (4, 300)])
@pytest.mark.parametrize("limit", [1, 32767])
def test_any_size_is_bilinear_in_exact_fractions(size: tuple[int, int], limit: int) -> None:
    grid = grid_of(8, 16, 3, limit, seed=1)
    sums, parts = enlarge(grid, size)
    np.testing.assert_array_equal(class_map(grid, size), sums.argmax(axis=2))
    rng = np.random.default_rng(2)
    for _ in range(40):
        y, x = (int(rng.integers(count)) for count in size)
        assert [Fraction(int(value), parts) for value in sums[y, x]] == bilinear(grid, size, y, x)


def bilinear(grid: np.ndarray, size: tuple[int, int], y: int, x: int) -> list[Fraction]:
    corners: list[tuple[Fraction, np.ndarray]] = [(Fraction(1), grid)]
    for place, new, old in ((y, size[0], grid.shape[0]), (x, size[1], grid.shape[1])):
        position = Fraction(2 * place + 1, 2 * new) * old - Fraction(1, 2)
        below = position.numerator // position.denominator
        share = position - below
        corners = [
            (part * weight, values[min(max(index, 0), old - 1)])
            for part, values in corners
            for index, weight in ((below, 1 - share), (below + 1, share))
        ]
    return [
        sum((part * int(values[c]) for part, values in corners), Fraction(0)) for c in range(grid.shape[2])
    ]


def test_a_class_that_wins_between_its_neighbours_only() -> None:
    grid = np.zeros((1, 2, 3), np.int16)
    grid[0, 0], grid[0, 1] = (100, 0, 90), (0, 100, 90)
    assert class_map(grid, (1, 8)).tolist() == [[0, 0, 2, 2, 2, 2, 1, 1]]


def test_many_undecided_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = grid_of(9, 9, 4, 5, seed=3)
    expected = enlarge(grid, (50, 70))[0].argmax(axis=2)
    monkeypatch.setattr("edge_moe_host.runtime.result._PIXELS_AT_ONCE", 100)
    np.testing.assert_array_equal(class_map(grid, (50, 70)), expected)


def test_floats_are_interpolated_alike() -> None:
    grid = grid_of(8, 16, 4, 1000)
    floats = grid.astype(np.float32)
    for size in ((32, 64), (33, 65)):
        np.testing.assert_array_equal(class_map(floats, size), class_map(grid, size))
        np.testing.assert_allclose(
            task_values("scalar", floats[..., :1], 1.0, size),
            task_values("scalar", grid[..., :1], 1.0, size),
            rtol=1e-6,
        )


def test_values_of_each_kind() -> None:
    grid = np.array([[[3, 0, -4]]], np.int16)
    assert task_values("classes", grid, 0.5, (2, 2)).tolist() == [[0, 0], [0, 0]]
    np.testing.assert_allclose(task_values("vector", grid, 0.5, (1, 2)), [[[0.6, 0, -0.8]] * 2], rtol=1e-6)
    depth = task_values("scalar", grid[..., :1], 0.5, (1, 2))
    assert depth.tolist() == [[1.5, 1.5]]
    binary = task_values("binary", grid[..., 2:], 0.5, (1, 1))
    np.testing.assert_allclose(binary, [[1 / (1 + np.exp(2))]], rtol=1e-6)
    for kind, channels in (("vector", 3), ("scalar", 1), ("binary", 1)):
        assert task_values(kind, grid[..., :channels], 0.5, (4, 4)).dtype == np.float32


def test_probability_of_any_logit() -> None:
    logits = np.array([-1e30, -100, 0, 100, 1e30], np.float32)
    with np.errstate(all="raise", under="ignore"):
        result = probability(logits)
    np.testing.assert_allclose(result, [0, 0, 0.5, 1, 1], atol=1e-12)


def test_decoding_zero_vectors() -> None:
    assert decode("vector", np.zeros((1, 2, 3), np.float32)).tolist() == [[[0, 0, 0]] * 2]


# Drawing


def test_depth_colours_run_from_near_to_far() -> None:
    fractions = np.linspace(0, 1, 256)
    colours = depth_colours(fractions).astype(int)
    assert colours[0].tolist() == [240, 249, 33]
    assert colours[-1].tolist() == [13, 8, 135]
    brightness = colours @ [299, 587, 114] / 1000
    assert (np.diff(brightness) <= 0.5).all()
    np.testing.assert_array_equal(depth_colours(fractions[::-1], "inverse")[:1], [[240, 249, 33]])
    np.testing.assert_array_equal(depth_colours(np.array([-5.0, 7.0])), [[240, 249, 33], [13, 8, 135]])


def test_a_predicted_depth_of_nothing_is_near_and_a_label_of_nothing_unknown() -> None:
    near, far, black = [240, 249, 33], [13, 8, 135], [0, 0, 0]
    depth = np.array([[-1.0, 0.0, 4.0, np.nan]])
    assert draw_values("scalar", depth, limit=4, predicted=True).tolist() == [[near, near, far, black]]
    assert draw_values("scalar", depth, limit=4).tolist() == [[black, black, far, black]]


def test_strips_below_results() -> None:
    drawn, strip = np.zeros((2, 3, 3), np.uint8), np.full((1, 5, 3), 9, np.uint8)
    for first, second, sums in ((drawn, strip, [0, 0, 135]), (strip, drawn, [135, 0, 0])):
        page = stacked(first, second)
        assert page.shape == (3, 5, 3)
        assert page[:, :3].sum(axis=(1, 2)).tolist() == [total * 3 // 5 for total in sums]
        assert (page[sums.index(0), 3:] == 255).all()


def test_draw_and_overlay() -> None:
    assert draw_values("classes", np.array([[0, 3, 255]], np.uint8)).tolist() == [
        [[0, 0, 0], [128, 128, 0], [255, 255, 255]]
    ]
    assert len(np.unique(distinct_palette(40), axis=0)) == 40
    below, above = np.full((1, 1, 3), 250, np.uint8), np.array([[[0, 100, 255]]], np.uint8)
    assert overlay(below, above).tolist() == [[[100, 160, 253]]]
    assert overlay(below, above, 1.0).tolist() == above.tolist()
    assert overlay(below, above, 0.0).tolist() == below.tolist()
