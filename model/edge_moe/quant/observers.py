# SPDX-License-Identifier: Apache-2.0
"""From the values of a tensor to the range that its eight bits cover, per channel.

Three observers: ``minmax``, ``percentile``, and ``mse``, the range with the least mean squared error.
For ``mse`` a value inside costs step**2 / 12 and one outside the square of its distance to the range
(rounding and overload of a uniform quantiser; Widrow and Kollár, Quantization Noise, 2008).
"""

from dataclasses import dataclass

import numpy as np

from edge_moe.quant.options import QuantOptions
from edge_moe_host.errors import EdgeMoEError

STEPS = 255  # between the lowest and the highest int8
SYMMETRIC_STEPS = 254  # between -127 and 127
CANDIDATES = 33  # limits that the mse observer tries on each side
TAIL = 0.01  # largest share of the values beyond a tried limit


@dataclass(frozen=True)
class Values:
    """A sample of a tensor's rows and the extremes of all its rows, per channel."""

    rows: np.ndarray  # float32 [rows, C]
    low: np.ndarray  # [C]
    high: np.ndarray  # [C]

    def pooled(self, groups: int) -> "Values":
        """The same values with every C / groups neighbouring channels taken as one."""
        rows = self.rows.reshape(len(self.rows), groups, -1).transpose(0, 2, 1).reshape(-1, groups)
        return Values(rows, self.low.reshape(groups, -1).min(1), self.high.reshape(groups, -1).max(1))

    def magnitude(self) -> "Values":
        """Absolute values."""
        high = np.maximum(np.abs(self.low), np.abs(self.high))
        return Values(np.abs(self.rows), np.zeros_like(high), high)


def observe(values: Values, options: QuantOptions) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), float64 [C] each, of the range for the integers. Needs at least one row."""
    if not (np.isfinite(values.low).all() and np.isfinite(values.high).all()):
        raise EdgeMoEError("an activation is NaN or infinite: the weights are damaged or training diverged.")
    low, high = values.low.astype(np.float64), values.high.astype(np.float64)
    if options.observer == "percentile":
        inside = np.percentile(values.rows, [100 - options.percentile, options.percentile], axis=0)
        return np.maximum(low, inside[0]), np.minimum(high, inside[1])
    if options.observer == "mse":
        return _least_error(values.rows, low, high)
    return low, high


def observe_magnitude(values: Values, options: QuantOptions) -> np.ndarray:
    """float64 [C]: largest magnitude for symmetric integers."""
    magnitude = values.magnitude()
    if options.observer == "mse":
        high = magnitude.high.astype(np.float64)
        # half of the steps from 0 on: the same step as in the symmetric range
        return _least_error(magnitude.rows, np.zeros_like(high), high, SYMMETRIC_STEPS / 2, fixed_low=True)[1]
    return observe(magnitude, options)[1]


def _least_error(
    rows: np.ndarray, low: np.ndarray, high: np.ndarray, steps: float = STEPS, fixed_low: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The pair of limits with the least error among CANDIDATES on each side."""
    lows, below = (low[None], np.zeros_like(low)[None]) if fixed_low else _tail(-rows, -low)
    lows = lows if fixed_low else -lows
    highs, above = _tail(rows, high)
    step = (highs[None] - lows[:, None]) / steps
    error = step**2 / 12 + below[:, None] + above[None]  # [low candidates, high candidates, C]
    flat = error.reshape(-1, error.shape[-1]).argmin(0)
    channel = np.arange(len(high))
    return lows[flat // len(highs), channel], highs[flat % len(highs), channel]


def _tail(rows: np.ndarray, extreme: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(limits, mean squared distance of the values above each), [CANDIDATES, C] both.

    The limits go from the value that TAIL of the rows exceed to ``extreme``.
    """
    count = min(max(int(len(rows) * TAIL), 1) + 1, len(rows))
    top = np.partition(rows, len(rows) - count, axis=0)[len(rows) - count :].astype(np.float64)  # [count, C]
    limits = np.linspace(top.min(0), extreme, CANDIDATES)
    beyond = np.maximum(top[None] - limits[:, None], 0)
    return limits, (beyond**2).sum(1) / len(rows)
