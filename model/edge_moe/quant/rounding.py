# SPDX-License-Identifier: Apache-2.0
"""Weights to integers: a scale for each output channel, and the rounding onto it."""

import numpy as np

from edge_moe.quant.scales import SMALLEST_SHARE

LOW_BITS = 6  # up to this width, clipping a channel's largest weights lowers the error
CLIP_RATIOS = np.linspace(0.5, 1.0, 11)
ZERO_SCALE = 2.0**-10  # of a layer whose weights are all zero
DAMPING = 0.01  # of the mean diagonal of the second moments
GPTQ_BLOCK = 32  # columns whose errors are moved to later ones together


def weight_limit(bits: int) -> int:
    """Largest magnitude of a weight of ``bits`` bits."""
    return int(2 ** (bits - 1) - 1)


def weight_scales(weight: np.ndarray, bits: int = 8, importance: np.ndarray | None = None) -> np.ndarray:
    """float64 [out] scales of weight [out, in].

    Narrow weights are clipped where that lowers the squared error, weighted by ``importance`` [in]
    (mean square of the inputs). No scale is below 1/256 of the layer's largest.
    """
    limit = weight_limit(bits)
    largest = np.abs(weight).max(1, initial=0)
    if not largest.any():
        return np.full(len(weight), ZERO_SCALE)
    scale = np.maximum(largest, largest.max() * SMALLEST_SHARE) / limit
    if bits > LOW_BITS:
        return scale
    weighing = np.ones(weight.shape[1]) if importance is None else importance
    candidates = scale * CLIP_RATIOS[:, None]
    errors = [((nearest(weight, s, limit) * s[:, None] - weight) ** 2) @ weighing for s in candidates]
    best = np.take_along_axis(candidates, np.argmin(errors, axis=0)[None], axis=0)[0]
    return np.asarray(np.maximum(best, scale.max() * SMALLEST_SHARE))


def nearest(weight: np.ndarray, scale: np.ndarray, limit: int) -> np.ndarray:
    """int64 [out, in] nearest to weight / scale, in ±limit."""
    return np.clip(np.floor(weight / scale[:, None] + 0.5), -limit, limit).astype(np.int64)


def compensated(weight: np.ndarray, scale: np.ndarray, limit: int, moments: np.ndarray) -> np.ndarray:
    """int64 [out, in] near weight / scale, chosen greedily for the least error of products with the inputs.

    Columns are rounded one by one, the most active input first; the columns still free compensate each
    column's error, by the inverse of the inputs' second ``moments`` [in, in] (GPTQ: Frantar et al.,
    ICLR 2023; Hassibi and Stork's optimal brain surgeon with rounding for pruning).
    """
    order = np.argsort(-np.diag(moments), kind="stable")
    # with constant inputs or too few rows, weights still move little
    mean = float(np.mean(np.diag(moments)))
    damped = moments[np.ix_(order, order)] + (DAMPING * mean if mean > 0 else 1.0) * np.eye(len(order))
    # upper Cholesky factor of the inverse: row j has the shares of column j's error for later columns
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    free = np.ascontiguousarray((weight / scale[:, None]).T[order])  # [in, out]: one row is rounded at a time
    rounded = np.empty_like(free)
    for start in range(0, len(order), GPTQ_BLOCK):
        stop = min(start + GPTQ_BLOCK, len(order))
        errors = np.empty((stop - start, free.shape[1]))
        for j in range(start, stop):
            rounded[j] = np.clip(np.floor(free[j] + 0.5), -limit, limit)
            errors[j - start] = (free[j] - rounded[j]) / upper[j, j]
            free[j + 1 : stop] -= upper[j, j + 1 : stop, None] * errors[j - start]
        free[stop:] -= upper[start:stop, stop:].T @ errors
    result = np.empty(rounded.shape, dtype=np.int64)
    result[order] = rounded
    return result.T
