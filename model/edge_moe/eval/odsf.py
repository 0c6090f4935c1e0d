# SPDX-License-Identifier: Apache-2.0
"""Boundary detection scores odsF and oisF, in NumPy and SciPy.

A soft boundary map is scored in five steps, which follow the protocol of the Berkeley benchmark
(Martin et al., TPAMI 2004; Arbelaez et al., TPAMI 2011) as used for deep edge detectors:

1. Non-maximum suppression of the probability map across the ridge (once per picture).
2. For each threshold t of ``thresholds`` equally spaced ones in (0, 1): binarise at p >= t, thin to
   one pixel width. The label is thinned as well, so that thick labels can be matched one to one.
3. Pixels whose label is 255 are dropped on both sides.
4. One-to-one matching of predicted and true pixels at most ``max_distance`` times the picture's
   diagonal apart (Euclidean, inclusive). The matching has maximum cardinality; the MATLAB code
   approximates it on a graph of nearest neighbours.
5. precision = matched / predicted and recall = matched / true, from counts summed over all
   pictures, 0 where nothing was counted; F = 2 P R / (P + R).

ODS is the best F over one threshold for the data set, with precision and recall interpolated
linearly in 100 steps between neighbouring thresholds. OIS sums the counts of each picture at its own
best threshold, without interpolation. The published code also fades predictions near the border
of the picture; this one does not.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.morphology import thin

from edge_moe.tasks import IGNORE_LABEL
from edge_moe_host.errors import EdgeMoEError

INTERPOLATION_STEPS = 100
NMS_SIGMA = 1.0  # pixels; smoothing before the ridge direction is measured
NMS_RADIUS = 2  # pixels compared on either side of the ridge
NMS_TOLERANCE = 1.01  # a pixel survives a neighbour that is at most 1 % stronger


@dataclass(frozen=True)
class BoundaryProtocol:
    """How boundaries are scored; the module's docstring explains the steps and defaults.

    ``max_distance`` is a fraction of the picture's diagonal: 0.0075 on BSDS and PASCAL-Context;
    some NYUD-v2 results in the literature use 0.011.
    """

    thresholds: int = 33
    max_distance: float = 0.0075
    suppress: bool = True

    def __post_init__(self) -> None:
        if self.thresholds < 1:
            raise EdgeMoEError(f"number of edge thresholds = {self.thresholds} is not allowed: at least 1.")
        if not 0 <= self.max_distance <= 1:
            raise EdgeMoEError(
                f"edge matching distance = {self.max_distance} is not allowed: "
                "it is a fraction of the image diagonal between 0 and 1."
            )

    @property
    def levels(self) -> np.ndarray:
        """The thresholds, float64 [thresholds], ascending."""
        return np.arange(1, self.thresholds + 1) / (self.thresholds + 1)


def suppress_non_maxima(probability: np.ndarray) -> np.ndarray:
    """Keep ridges: zero each pixel that is weaker than a neighbour across the ridge.

    ``probability`` float H x W in [0, 1]; returns float64 H x W. The direction across the ridge is
    that in which the smoothed map bends most: the eigenvector of its Hessian with the eigenvalue of
    largest magnitude. Equal neighbours survive, so a binary map passes unchanged.
    """
    values = np.asarray(probability, dtype=np.float64)
    if min(values.shape) < 2:  # no second derivative in a map one pixel wide
        return values.copy()
    smooth = gaussian_filter(values, NMS_SIGMA, mode="nearest")
    dy, dx = np.gradient(smooth)
    dyy, dyx = np.gradient(dy)
    dxx = np.gradient(dx, axis=1)
    # arctan2 gives the direction of the larger eigenvalue; on a crest the other one has larger magnitude
    across = 0.5 * np.arctan2(2 * dyx, dxx - dyy) + np.where(dxx + dyy < 0, np.pi / 2, 0)
    step_y, step_x = np.sin(across), np.cos(across)
    rows, columns = np.indices(values.shape)
    keep = np.ones(values.shape, dtype=bool)
    for distance in range(-NMS_RADIUS, NMS_RADIUS + 1):
        if distance:
            place = [rows + distance * step_y, columns + distance * step_x]
            keep &= map_coordinates(values, place, order=1, mode="nearest") <= values * NMS_TOLERANCE
    return np.where(keep, values, 0.0)


def count_matches(predicted: np.ndarray, truth: np.ndarray, radius: float) -> int:
    """Size of the largest one-to-one matching of set pixels at most ``radius`` pixels apart.

    ``predicted`` and ``truth`` are bool H x W. Exact: a greedy matching, nearest pairs first, is
    completed by :func:`augment_matching`. (SciPy's matching cannot start from a given one: on a dense
    480x640 picture it took forty times as long.)
    """
    if np.count_nonzero(predicted) > np.count_nonzero(truth):
        predicted, truth = truth, predicted  # search from the smaller side: it has fewer free pixels
    y, x = np.nonzero(predicted)
    column_count = np.count_nonzero(truth)
    if not len(y):
        return 0
    reach = int(radius)
    number = np.full((truth.shape[0] + 2 * reach, truth.shape[1] + 2 * reach), -1, dtype=np.int32)
    number[reach : number.shape[0] - reach, reach : number.shape[1] - reach][truth] = np.arange(column_count)
    # row: pixel of the smaller side; column: offset, nearest first; entry: pixel of the other side
    offset_y, offset_x = _disc(radius)
    neighbours = number[y[:, None] + (offset_y + reach), x[:, None] + (offset_x + reach)]
    match_row = np.full(len(y), -1, dtype=np.int32)
    match_column = np.full(column_count + 1, -1, dtype=np.int32)  # the last stands for "no pixel" (-1)
    for candidate in neighbours.T:  # one offset is a translation, so its pairs cannot conflict
        rows = np.flatnonzero((match_row < 0) & (candidate >= 0) & (match_column[candidate] < 0))
        match_row[rows] = candidate[rows]
        match_column[candidate[rows]] = rows
    exists = neighbours >= 0
    starts = np.concatenate([[0], np.cumsum(exists.sum(axis=1))])
    augment_matching(starts, neighbours[exists], match_row, match_column[:-1])
    return int(np.count_nonzero(match_row >= 0))


def augment_matching(
    starts: np.ndarray, neighbours: np.ndarray, match_row: np.ndarray, match_column: np.ndarray
) -> None:
    """Grow a matching of a bipartite graph, in place, until it has maximum cardinality.

    ``neighbours[starts[i] : starts[i + 1]]`` are the columns next to row i; ``match_row`` [rows] and
    ``match_column`` [columns] hold partners, -1 where free. Each round grows alternating trees from
    all free rows at once, breadth first. Trees share no vertex, so one augmenting path per tree
    can be applied together; a round without any proves the maximum (Berge, 1957).
    """
    tree = np.empty(len(match_row), dtype=np.int64)  # root of the tree that a row belongs to
    parent = np.empty(len(match_column), dtype=np.int64)  # row that a column was reached from
    end = np.empty(len(match_row), dtype=np.int64)  # by root: the free column found, or -1
    roots = np.flatnonzero((match_row < 0) & (np.diff(starts) > 0))
    while len(roots):
        unseen = np.ones(len(match_column), dtype=bool)
        tree[roots], end[roots] = roots, -1
        frontier = roots
        while len(frontier):
            degree = starts[frontier + 1] - starts[frontier]
            first = np.repeat(starts[frontier] - np.cumsum(degree) + degree, degree)
            columns = neighbours[first + np.arange(len(first))]
            rows = np.repeat(frontier, degree)
            new = unseen[columns]
            columns, rows = columns[new], rows[new]
            parent[columns] = rows  # if several rows reach a column, the last one written keeps it
            kept = parent[columns] == rows
            columns, rows = columns[kept], rows[kept]
            unseen[columns] = False
            mate, root = match_column[columns], tree[rows]
            end[root[mate < 0]] = columns[mate < 0]
            grown, root = mate[mate >= 0], root[mate >= 0]
            tree[grown] = root
            frontier = grown[end[root] < 0]
        columns = end[roots]
        columns = columns[columns >= 0]
        if not len(columns):
            return
        while len(columns):
            rows = parent[columns]
            previous = match_row[rows]
            match_row[rows], match_column[columns] = columns, rows
            columns = previous[previous >= 0]
        roots = roots[match_row[roots] < 0]


def _disc(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Integer offsets (y, x) at most ``radius`` from the origin, nearest first."""
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    squared = y * y + x * x
    order = np.argsort(squared, kind="stable")
    order = order[squared[order] <= radius * radius]
    return y[order], x[order]


def boundary_counts(
    probability: np.ndarray, label: np.ndarray, protocol: BoundaryProtocol
) -> tuple[np.ndarray, np.ndarray, int]:
    """Match one picture at every threshold.

    ``probability`` float H x W in [0, 1]; ``label`` integer H x W with 0, 1 and 255 for ignored.
    Returns numbers of pixels: matched and predicted ones, int64 [thresholds], and true ones.
    """
    valid = label != IGNORE_LABEL
    truth = thin(label == 1) & valid
    soft = suppress_non_maxima(probability) if protocol.suppress else np.asarray(probability, np.float64)
    radius = protocol.max_distance * float(np.hypot(*label.shape))
    matched = np.zeros(protocol.thresholds, dtype=np.int64)
    predicted = np.zeros(protocol.thresholds, dtype=np.int64)
    previous_size = -1
    for k, level in enumerate(protocol.levels):
        above = soft >= level
        size = int(np.count_nonzero(above))
        if size == previous_size:  # the sets are nested, so this one is the same
            matched[k], predicted[k] = matched[k - 1], predicted[k - 1]
            continue
        previous_size = size
        thinned = thin(above) & valid
        predicted[k] = np.count_nonzero(thinned)
        matched[k] = count_matches(thinned, truth, radius)
    return matched, predicted, int(np.count_nonzero(truth))


def precision_recall_f(
    matched: np.ndarray, predicted: np.ndarray, truth: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F of counts; 0 where a denominator is 0."""
    precision = matched / np.maximum(predicted, 1)
    recall = matched / np.maximum(truth, 1)
    return precision, recall, f_measure(precision, recall)


def f_measure(precision: np.ndarray, recall: np.ndarray, beta_squared: float = 1.0) -> np.ndarray:
    """(1 + b) P R / (b P + R) with b = ``beta_squared``; 0 where both are 0."""
    denominator = beta_squared * precision + recall
    product = (1 + beta_squared) * precision * recall
    return np.divide(product, denominator, out=np.zeros_like(product), where=denominator > 0)


def best_point(
    levels: np.ndarray, precision: np.ndarray, recall: np.ndarray
) -> tuple[float, float, float, float]:
    """Largest F on the curve, interpolated linearly between neighbouring thresholds.

    The three arrays are float [thresholds]. Among equal values the lowest threshold wins. Returns F,
    precision, recall and threshold.
    """
    place = np.arange((len(levels) - 1) * INTERPOLATION_STEPS + 1) / INTERPOLATION_STEPS
    grid = np.arange(len(levels))
    t, p, r = (np.interp(place, grid, values) for values in (levels, precision, recall))
    f = f_measure(p, r)
    best = int(np.argmax(f))
    return float(f[best]), float(p[best]), float(r[best]), float(t[best])


class BoundaryScore:
    """Counts summed over pictures, and the scores they give."""

    def __init__(self, protocol: BoundaryProtocol) -> None:
        self.protocol = protocol
        self._sums = np.zeros((2, protocol.thresholds), dtype=np.int64)  # matched, predicted
        self._own = np.zeros(2, dtype=np.int64)  # the same at each picture's own best threshold
        self._truth = 0

    def add(self, probability: np.ndarray, label: np.ndarray) -> int:
        """Score a picture, shaped as in :func:`boundary_counts`; returns 1, or 0 if no pixel is valid."""
        if not np.any(label != IGNORE_LABEL):
            return 0
        matched, predicted, truth = boundary_counts(probability, label, self.protocol)
        self._sums += matched, predicted
        self._truth += truth
        f = precision_recall_f(matched, predicted, truth)[2]
        # without a match at any threshold, the best one has the fewest false pixels
        best = int(np.argmax(f)) if f.max() > 0 else int(np.argmin(predicted))
        self._own += matched[best], predicted[best]
        return 1

    def compute(self) -> dict[str, float]:
        """``odsF``, ``oisF`` and, at the ODS threshold, ``precision``, ``recall``, ``threshold``."""
        precisions, recalls, _ = precision_recall_f(self._sums[0], self._sums[1], self._truth)
        f, precision, recall, threshold = best_point(self.protocol.levels, precisions, recalls)
        own = precision_recall_f(self._own[:1], self._own[1:], self._truth)[2]
        return {
            "odsF": f,
            "oisF": float(own[0]),
            "precision": precision,
            "recall": recall,
            "threshold": threshold,
        }
