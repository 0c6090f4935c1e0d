# SPDX-License-Identifier: Apache-2.0
"""Benchmark: the cost of an MoE FFN grows with top-k and not with the number of experts.

Every figure is a ratio to the first row of the same run: variants are timed in turn, many times, and
the median of each is kept, so that a slow moment of the machine affects all of them.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edge_moe.config import ModelConfig, load_preset
from edge_moe.nn.moe import MoEFFN

TOKENS = 16 * 129  # one batch of 16 images


@dataclass(frozen=True)
class DispatchTime:
    """Median time of one forward pass of an MoE FFN, relative to the first variant."""

    num_experts: int
    top_k: int
    ratio: float
    milliseconds: float


def benchmark_dispatch(
    variants: Sequence[tuple[int, int]] = ((16, 2), (64, 2), (16, 1), (16, 4)),
    preset: str = "m3vit_tiny_cityscapes",
    repeats: int = 15,
) -> list[DispatchTime]:
    """Time (num_experts, top_k) variants of the preset's MoE FFN on random tokens, round robin."""
    layers, tokens = [], torch.randn(1, TOKENS, load_preset(preset).model.embed_dim)
    for experts, k in variants:
        cfg: ModelConfig = load_preset(
            preset, [f"model.num_experts={experts}", f"model.top_k={k}", "model.routing=single_gate"]
        ).model
        layer = MoEFFN(cfg).eval()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_(std=0.05)
        layers.append(layer)
    times: list[list[float]] = [[] for _ in variants]
    with torch.inference_mode():
        for turn in range(repeats + 2):
            for layer, series in zip(layers, times, strict=True):
                start = time.perf_counter()
                layer(tokens, "", None)
                if turn >= 2:  # the first turns warm up
                    series.append(time.perf_counter() - start)
    medians = [statistics.median(series) for series in times]
    return [
        DispatchTime(experts, k, median / medians[0], 1e3 * median)
        for (experts, k), median in zip(variants, medians, strict=True)
    ]


def dispatch_table(rows: Sequence[DispatchTime]) -> str:
    """The rows as a Markdown table."""
    lines = [
        f"MoE FFN of m3vit_tiny_cityscapes, {TOKENS} tokens, CPU, {torch.get_num_threads()} thread(s)",
        "",
        "| experts | top-k | time against the first row | ms |",
        "|---:|---:|---:|---:|",
    ]
    lines += [f"| {r.num_experts} | {r.top_k} | {r.ratio:.2f} | {r.milliseconds:.2f} |" for r in rows]
    return "\n".join(lines)
