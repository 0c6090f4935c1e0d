# SPDX-License-Identifier: Apache-2.0
"""Options of a quantisation."""

from dataclasses import dataclass
from typing import Literal, get_args

from edge_moe_host.errors import EdgeMoEError

Observer = Literal["minmax", "percentile", "mse"]
Rounding = Literal["nearest", "gptq"]

MIN_BITS, MAX_BITS = 2, 8  # of a weight: SPEC.md, section 1
EXPERT_WIDTHS = (3, 4, 5, 6, 8)  # bits that an expert may be given under a budget


@dataclass(frozen=True)
class QuantOptions:
    """How float weights and activations become integers.

    ``average_expert_bits`` gives every expert its own width so that the mean does not exceed it;
    ``expert_bits`` then has no effect. All other weights have 8 bits. ``rounding`` applies to every
    linear layer: to the nearest, or with each column's error compensated by later columns.
    """

    observer: Observer = "mse"  # how activation ranges are chosen; the residual stream's is min-max
    percentile: float = 99.99  # of a tensor's values inside its range, for the observer percentile
    images: int = 32  # training images for calibration
    bias_correction: bool = True
    expert_bits: int = 8
    average_expert_bits: float | None = None
    drop_unused_experts: bool = False  # leave experts without calibration tokens out of each task's path
    rounding: Rounding = "gptq"

    def __post_init__(self) -> None:
        observers, roundings = get_args(Observer), get_args(Rounding)
        average, (low, *_, high) = self.average_expert_bits, EXPERT_WIDTHS
        for name, kept, rule in (
            ("observer", self.observer in observers, f"it is one of {', '.join(observers)}"),
            ("rounding", self.rounding in roundings, f"it is one of {', '.join(roundings)}"),
            ("percentile", 50 < self.percentile <= 100, "it must be in (50, 100]"),
            ("images", self.images >= 1, "it must be at least 1"),
            ("expert_bits", MIN_BITS <= self.expert_bits <= MAX_BITS,
             f"it must be between {MIN_BITS} and {MAX_BITS}"),
            ("average_expert_bits", average is None or low <= average <= high,
             f"it must be between {low} and {high}"),
        ):  # fmt: skip
            if not kept:
                raise EdgeMoEError(
                    f"quantisation option {name} = {getattr(self, name)!r} is not allowed: {rule}."
                )
