# SPDX-License-Identifier: Apache-2.0
"""Boundary matching against brute force, and scores with known answers."""

from functools import cache

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial.distance import cdist

from edge_moe.eval.odsf import (
    BoundaryProtocol,
    BoundaryScore,
    best_point,
    boundary_counts,
    count_matches,
    f_measure,
    suppress_non_maxima,
)
from edge_moe_host.errors import EdgeMoEError

HARD = BoundaryProtocol(thresholds=3, suppress=False)  # thresholds 0.25, 0.5, 0.75


def picture(*rows: int, height: int = 40, width: int = 60) -> np.ndarray:
    """uint8 map with a horizontal line across each of ``rows``."""
    label = np.zeros((height, width), dtype=np.uint8)
    label[list(rows)] = 1
    return label


def score(probability: np.ndarray, label: np.ndarray, **protocol: float) -> dict[str, float]:
    total = BoundaryScore(BoundaryProtocol(**{"thresholds": 9, **protocol}))
    total.add(probability, label)
    return total.compute()


def neighbour_table(predicted: np.ndarray, truth: np.ndarray, radius: float) -> np.ndarray:
    return cdist(np.argwhere(predicted), np.argwhere(truth)) <= radius + 1e-9


def brute_force(table: np.ndarray) -> int:
    """Largest matching, by trying every partner of every row."""

    @cache
    def best(row: int, used: int) -> int:
        if row == len(table):
            return 0
        options = [column for column in np.flatnonzero(table[row]) if not used >> int(column) & 1]
        return max([best(row + 1, used), *(1 + best(row + 1, used | 1 << int(c)) for c in options)])

    return best(0, 0)


@pytest.mark.parametrize("radius", [0.0, 1.0, 1.5, 2.0, 3.0])
def test_matching_equals_brute_force(radius: float) -> None:
    rng = np.random.default_rng(1)
    compared = 0
    for _ in range(40):
        density = rng.uniform(0.1, 0.6)
        predicted, truth = rng.random((2, 3, 5)) < density
        if predicted.any() and truth.any():
            compared += 1
            assert count_matches(predicted, truth, radius) == brute_force(
                neighbour_table(predicted, truth, radius)
            )
    assert compared > 25


@pytest.mark.parametrize("radius", [1.0, 2.3, 5.0])
def test_matching_equals_scipy(radius: float) -> None:
    rng = np.random.default_rng(2)
    for densities in ((0.05, 0.05), (0.3, 0.1), (0.1, 0.3)):
        predicted, truth = (rng.random((50, 50)) < density for density in densities)
        graph = csr_matrix(neighbour_table(predicted, truth, radius))
        expected = np.count_nonzero(maximum_bipartite_matching(graph) >= 0)
        assert expected > 0
        assert count_matches(predicted, truth, radius) == expected


@pytest.mark.parametrize("length", [2, 3, 50])
def test_matching_follows_long_chains(length: int) -> None:
    # each true pixel is 2 right of its own prediction but only 1 left of the next one, which a
    # nearest-first choice therefore takes; all can be matched only by shifting the whole chain
    predicted, truth = np.zeros((2, 1, 3 * length), dtype=bool)
    predicted[0, 0::3] = True
    truth[0, 2::3] = True
    assert count_matches(predicted, truth, 1.0) == length - 1
    assert count_matches(predicted, truth, 2.0) == length


def test_matching_radius_is_inclusive_and_euclidean() -> None:
    predicted, truth = np.zeros((2, 8, 8), dtype=bool)
    predicted[1, 1] = truth[4, 5] = True  # 3, 4, 5
    assert count_matches(predicted, truth, 5.0) == 1
    assert count_matches(predicted, truth, 4.99) == 0


def test_matching_of_nothing() -> None:
    empty, full = np.zeros((3, 4), dtype=bool), np.ones((3, 4), dtype=bool)
    assert count_matches(empty, full, 2) == count_matches(full, empty, 2) == 0
    assert count_matches(empty, empty, 2) == 0
    assert count_matches(full, full, 2) == 12


def test_perfect_prediction() -> None:
    label = picture(10, 30)
    result = score(label.astype(float), label)
    assert (result["odsF"], result["oisF"], result["precision"], result["recall"]) == (1, 1, 1, 1)


def test_perfect_prediction_of_thick_label() -> None:
    label = picture(10, 11, 12, 30, 31)
    assert score(label.astype(float), label)["odsF"] == 1


def test_worst_prediction() -> None:
    result = score(picture(30).astype(float), picture(10))
    assert (result["odsF"], result["oisF"], result["precision"], result["recall"]) == (0, 0, 0, 0)


def test_tolerance() -> None:
    # diagonal of 40 x 60: 72.1; 0.0417 * 72.1 = 3.007
    label = picture(20)
    assert score(picture(23).astype(float), label, max_distance=0.0417)["odsF"] == 1
    assert score(picture(24).astype(float), label, max_distance=0.0417)["odsF"] == 0


def test_default_tolerance_at_nyud_size() -> None:
    # diagonal 800, so 0.0075 is 6 pixels
    label = picture(100, height=480, width=640)
    for shift, expected in ((6, 1.0), (7, 0.0)):
        shifted = picture(100 + shift, height=480, width=640).astype(float)
        assert score(shifted, label, thresholds=1, suppress=False)["odsF"] == expected


def test_half_missing() -> None:
    result = score(picture(10).astype(float), picture(10, 30))
    assert result["recall"] == 0.5
    assert result["precision"] == 1
    assert result["odsF"] == pytest.approx(2 / 3)


def test_half_wrong() -> None:
    result = score(picture(10, 30).astype(float), picture(10))
    assert (result["precision"], result["recall"]) == (0.5, 1)


def test_one_prediction_cannot_match_twice() -> None:
    # two true lines within reach of a single predicted one
    result = score(picture(20).astype(float), picture(18, 22), max_distance=0.04)
    assert (result["precision"], result["recall"]) == (1, 0.5)


def test_ignored_pixels_count_on_neither_side() -> None:
    label = picture(10)
    label[25:] = 255
    assert score(picture(10, 30).astype(float), label)["odsF"] == 1
    _, predicted, truth = boundary_counts(picture(10, 30).astype(float), label, HARD)
    assert truth == 60
    assert predicted.tolist() == [60, 60, 60]


def test_all_ignored_picture_is_skipped() -> None:
    total = BoundaryScore(HARD)
    assert total.add(np.ones((8, 8)), np.full((8, 8), 255, dtype=np.uint8)) == 0


def test_nothing_true_and_nothing_predicted() -> None:
    result = score(np.zeros((8, 8)), np.zeros((8, 8), dtype=np.uint8))
    assert result["odsF"] == result["oisF"] == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_tiny_pictures(shape: tuple[int, int]) -> None:
    label = np.ones(shape, dtype=np.uint8)
    assert score(label.astype(float), label)["odsF"] == 1


def test_ods_and_ois_by_hand() -> None:
    # A: its line at 0.9 and a false one at 0.5. B: its line at 0.3. Lines have 60 pixels.
    total = BoundaryScore(HARD)
    total.add(np.maximum(picture(10) * 0.9, picture(30) * 0.5), picture(10))
    total.add(picture(10) * 0.3, picture(10))
    result = total.compute()
    # threshold 0.25: 120 matched of 180 predicted and 120 true
    assert result["odsF"] == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))
    assert result["threshold"] == 0.25
    assert (result["precision"], result["recall"]) == (pytest.approx(2 / 3), 1)
    assert result["oisF"] == 1  # A at 0.75, B at 0.25


def test_ois_of_picture_without_truth_prefers_silence() -> None:
    total = BoundaryScore(HARD)
    total.add(picture(10) * 0.9, picture(10))
    total.add(picture(20) * 0.5, picture())  # false at 0.25 and 0.5, silent at 0.75
    assert total.compute()["oisF"] == 1


def test_best_point_interpolates() -> None:
    f, *_, threshold = best_point(np.array([0.2, 0.4]), np.array([0.5, 1.0]), np.array([1.0, 0.5]))
    assert f == pytest.approx(0.75)  # precision = recall = 0.75 half way
    assert threshold == pytest.approx(0.3)
    assert best_point(np.array([0.5]), np.array([0.5]), np.array([0.25]))[0] == pytest.approx(1 / 3)


def test_f_measure() -> None:
    values = f_measure(np.array([0.5, 0.0, 1.0]), np.array([0.25, 0.0, 1.0]))
    assert values == pytest.approx([1 / 3, 0, 1])
    assert f_measure(np.array([0.5]), np.array([0.25]), 0.3) == pytest.approx(1.3 * 0.125 / 0.4)


@pytest.mark.parametrize("transpose", [False, True])
def test_suppression_keeps_the_ridge(transpose: bool) -> None:
    distance = np.abs(np.arange(40) - 20)[:, None]
    ridge = np.broadcast_to(np.exp(-((distance / 4) ** 2)), (40, 50))
    kept = suppress_non_maxima(ridge.T if transpose else ridge)
    kept = kept.T if transpose else kept
    assert (kept[20] == 1).all()
    assert not kept[10:20].any()
    assert not kept[21:31].any()


def test_suppression_of_a_diagonal_ridge() -> None:
    y, x = np.mgrid[:40, :40]
    ridge = np.exp(-(((y - x) / 5) ** 2))
    kept = suppress_non_maxima(ridge)[5:-5, 5:-5] > 0
    band = np.abs(y - x)[5:-5, 5:-5] <= 8  # where the ridge is more than noise
    assert (kept & band)[np.abs(y - x)[5:-5, 5:-5] == 0].all()
    assert not (kept & band)[np.abs(y - x)[5:-5, 5:-5] >= 1].any()


def test_suppression_leaves_binary_maps_alone() -> None:
    binary = (np.random.default_rng(3).random((30, 30)) < 0.3).astype(float)
    assert np.array_equal(suppress_non_maxima(binary), binary)


def test_blurred_prediction_is_localised_by_suppression() -> None:
    distance = np.abs(np.arange(64)[:, None] - 20)
    blurred = np.broadcast_to(np.exp(-((distance / 6.0) ** 2)), (64, 96))
    result = score(blurred, picture(20, height=64, width=96))
    assert result["odsF"] > 0.95


def test_levels_are_inside_the_unit_interval() -> None:
    assert BoundaryProtocol(thresholds=3).levels.tolist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(("field", "value"), [("thresholds", 0), ("max_distance", -0.1), ("max_distance", 2)])
def test_wrong_protocol(field: str, value: float) -> None:
    with pytest.raises(EdgeMoEError, match=str(value)):
        BoundaryProtocol(**{field: value})
