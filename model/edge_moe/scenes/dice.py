# SPDX-License-Identifier: Apache-2.0
"""Cheap scalar random draws for the layout of a scene.

A scene needs about a thousand scalars; drawing them in blocks costs a tenth of asking NumPy for
each one.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK = 1024


class Dice:
    """Uniform draws from one generator, in order."""

    def __init__(self, rng: np.random.Generator) -> None:
        def blocks() -> Iterator[list[float]]:
            while True:
                yield rng.random(_BLOCK).tolist()

        self._draws = chain.from_iterable(blocks())

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        return next(self._draws)

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * next(self._draws)

    def normal(self, deviation: float) -> float:
        """Near-normal around 0 (sum of four uniforms), never beyond 3.5 deviations."""
        draws = self._draws
        return deviation * 1.7320508 * (next(draws) + next(draws) + next(draws) + next(draws) - 2.0)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return next(self._draws) < probability

    def integer(self, low: int, high: int) -> int:
        """Uniform integer in [low, high]."""
        return low + int((high - low + 1) * next(self._draws))

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, each equally likely."""
        return options[int(len(options) * next(self._draws))]

    def colour(self, base: Sequence[float], spread: float) -> tuple[float, float, float]:
        """An sRGB colour near ``base``: a common change of lightness and a smaller one per channel."""
        draws = self._draws
        light = 1.0 + spread * (2.0 * next(draws) - 1.0)
        small = 0.5 * spread
        red, green, blue = (
            min(max(component * light + small * (next(draws) - 0.5), 0.01), 0.99) for component in base
        )
        return red, green, blue
