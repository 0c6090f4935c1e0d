# SPDX-License-Identifier: Apache-2.0
"""Bit widths of experts: one for all, or one for each within a budget."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_moe.config import ModelConfig
from edge_moe.nn import M3ViT
from edge_moe.quant.calibrate import Calibration, thinned
from edge_moe.quant.options import EXPERT_WIDTHS, MAX_BITS, MIN_BITS
from edge_moe.quant.rounding import nearest, weight_limit, weight_scales
from edge_moe.quant.scales import Scales
from edge_moe_host.errors import EdgeMoEError

CHANGE_ROWS = 256  # tokens for measuring the effect of a width

ExpertBits = Mapping[int, Sequence[int]]
"""MoE block -> bits of each of its experts; both linear layers of an expert have the same."""


def uniform_bits(cfg: ModelConfig, bits: int) -> dict[int, tuple[int, ...]]:
    """The same width for every expert."""
    return dict.fromkeys(cfg.moe_blocks, (bits,) * cfg.num_experts)


def check_bits(expert_bits: ExpertBits, cfg: ModelConfig) -> None:
    """EdgeMoEError unless every expert of every MoE block has a width of 2 to 8."""
    if set(expert_bits) != set(cfg.moe_blocks):
        raise EdgeMoEError(
            f"expert widths are given for blocks {sorted(expert_bits)}: "
            f"the MoE blocks of this model are {list(cfg.moe_blocks)}."
        )
    for block, bits in expert_bits.items():
        if len(bits) != cfg.num_experts:
            raise EdgeMoEError(
                f"block {block} has {len(bits)} expert widths: this model has {cfg.num_experts} experts."
            )
        for expert, width in enumerate(bits):
            if not MIN_BITS <= width <= MAX_BITS:
                raise EdgeMoEError(
                    f"expert {expert} of block {block} has {width} bits: "
                    f"the supported widths are {MIN_BITS} to {MAX_BITS}."
                )


def mean_bits(expert_bits: ExpertBits) -> float:
    """Mean over all experts, which have the same size."""
    return float(np.mean([width for bits in expert_bits.values() for width in bits]))


@torch.inference_mode()
def choose_bits(model: M3ViT, scales: Scales, calibration: Calibration, average: float) -> ExpertBits:
    """Widths from EXPERT_WIDTHS with the least damage whose mean is at most ``average``.

    Damage is sensitivity times usage: the squared change of an expert's addition to the residual stream,
    score included, summed over the tokens sent to it. It is divided by the stream's variance in that
    block, as the next LayerNorm does.
    """
    E, damage = model.cfg.num_experts, []
    for place, block in enumerate(model.cfg.moe_blocks):
        usage = sum(counts[place] for counts in calibration.usage.values())
        variance = float(np.mean(np.var(calibration.values[f"block{block}.ffn"].rows, axis=1)))
        changes = [_changes(model, scales, calibration, block, expert) for expert in range(E)]
        damage.append(np.array(changes) * np.asarray(usage)[:, None] / variance)
    count = E * len(damage)
    chosen = least_damage(np.concatenate(damage), EXPERT_WIDTHS, int(average * count + 1e-9))
    return {
        block: tuple(chosen[place * E : (place + 1) * E]) for place, block in enumerate(model.cfg.moe_blocks)
    }


def least_damage(damage: np.ndarray, widths: Sequence[int], budget: int) -> list[int]:
    """One of ``widths`` for each row of ``damage`` [n, len(widths)]: the least sum within ``budget`` bits.

    Exact: dynamic programming over the spent bits (a multiple-choice knapsack with small integer
    weights). Raises EdgeMoEError for a budget below the narrowest width for all.
    """
    lowest = min(widths)
    spare = budget - lowest * len(damage)
    if spare < 0:
        raise EdgeMoEError(
            f"{budget} bits for {len(damage)} experts are too few: each needs at least {lowest}."
        )
    best = np.zeros(spare + 1)  # index: spare bits; value: least damage of the rows so far with at most these
    taken = np.empty((len(damage), spare + 1), dtype=np.int64)
    for row, costs in enumerate(damage):
        options = np.full((len(widths), spare + 1), np.inf)
        for choice, width in enumerate(widths):
            extra = width - lowest
            if extra <= spare:
                options[choice, extra:] = costs[choice] + best[: spare + 1 - extra]
        taken[row] = options.argmin(0)
        best = options.min(0)
    result = []
    for row in reversed(range(len(damage))):
        width = widths[taken[row, spare]]
        result.append(width)
        spare -= width - lowest
    return result[::-1]


def _changes(model: M3ViT, scales: Scales, calibration: Calibration, block: int, expert: int) -> list[float]:
    """Mean squared change of a token for each of EXPERT_WIDTHS, weights rounded to the nearest."""
    name = f"block{block}.norm2"
    rows, scores = (thinned(part, CHANGE_ROWS) for part in calibration.routed(block, expert))
    x, score = torch.from_numpy(rows), torch.from_numpy(scores)[:, None]
    w1, b1, w2, b2 = model.block(block).ffns()[f"block{block}.expert{expert}"]
    hidden = F.gelu(F.linear(x, w1, b1))
    exact = F.linear(hidden, w2, b2)
    column = scales[name]
    importance1 = np.mean(((rows - scales[f"{name}.offset"]) / column) ** 2, axis=0)
    importance2 = np.mean(hidden.double().numpy() ** 2, axis=0)
    result = []
    for bits in EXPERT_WIDTHS:
        q1 = _on_grid(w1, bits, column, importance1)
        q2 = _on_grid(w2, bits, np.ones(w2.shape[1]), importance2)
        change = (F.linear(F.gelu(F.linear(x, q1, b1)), q2, b2) - exact) * score
        result.append(float(change.square().sum(1).mean()))
    return result


def _on_grid(weight: Tensor, bits: int, column: np.ndarray, importance: np.ndarray) -> Tensor:
    """Weights, with the scales ``column`` in their columns, on the grid of an integer network."""
    folded = weight.double().numpy() * column
    scale = weight_scales(folded, bits, importance)
    values = nearest(folded, scale, weight_limit(bits)) * scale[:, None] / column
    return torch.from_numpy(values).to(weight.dtype)
