# SPDX-License-Identifier: Apache-2.0
"""Deviation of every intermediate of an integer network from the float model's."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edge_moe.config import ModelConfig
from edge_moe.nn import M3ViT
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe.quant.scales import Scales
from edge_moe_host.golden.trace import Trace


@dataclass(frozen=True)
class LayerReport:
    """``snr``: task -> intermediate -> decibels, 10 log10 of signal power over error power, inf if equal.

    ``same_experts``: task -> MoE block -> fraction of tokens with the float model's set of experts.
    """

    snr: dict[str, dict[str, float]]
    same_experts: dict[str, dict[int, float]]


@torch.inference_mode()
def layer_report(model: M3ViT, network: IntegerNetwork, scales: Scales, images: np.ndarray) -> LayerReport:
    """Compare every intermediate on uint8 images [B, H, W, 3]; ``network`` has all its experts."""
    snr: dict[str, dict[str, float]] = {}
    same: dict[str, dict[int, float]] = {}
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    for task in network.tasks:
        real: dict[str, Tensor] = {}
        trace = Trace()
        model(pixels, [task], lambda name, value: real.setdefault(name, value))  # noqa: B023
        run_network(network, images, task, trace)
        snr[task], same[task] = {}, {}
        for name, integers in trace.tensors.items():
            named = name.replace("head.", f"head.{task}.")
            if name.endswith(".gate.expert"):
                block = int(name.removeprefix("block").split(".")[0])
                same[task][block] = float(np.mean(same_sets(integers, real[name].numpy())))
            elif named in real and not name.endswith(".gate.score"):
                value = dequantise(named, integers, scales, network.config)
                snr[task][name] = decibels(real[named].numpy(), value)
    return LayerReport(snr, same)


def same_sets(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """bool [...]: whether the last axes hold the same experts in any order."""
    return np.asarray((np.sort(left, axis=-1) == np.sort(right, axis=-1)).all(-1))


def dequantise(name: str, integers: np.ndarray, scales: Scales, cfg: ModelConfig) -> np.ndarray:
    """float64 values of an intermediate; a head's name includes its task (``head.depth.conv0``)."""
    part = name.rsplit(".", 1)[-1]
    values = integers.astype(np.float64)
    if part in ("patch_embedding", "proj", "ffn"):
        return values * scales["residual"]
    if part == "qkv":
        block, d = name.removesuffix(".qkv"), cfg.embed_dim // cfg.num_heads
        heads = [scales[f"{block}.{which}"].repeat(d) for which in "qk"]
        return values * np.concatenate([*heads, scales[f"{block}.v"]])
    if part.startswith("upsample"):
        name, part = name.replace("upsample" + part[-1], f"conv{int(part[-1]) - 1}"), "conv"
    zero = -128.0 if part.startswith("conv") else scales.get(f"{name}.zero_point", 0.0)
    return np.asarray((values - zero) * scales[name] + scales.get(f"{name}.offset", 0.0))


def decibels(signal: np.ndarray, other: np.ndarray) -> float:
    """Signal-to-noise ratio of ``other`` as an approximation of ``signal``."""
    power, error = float(np.mean(np.square(signal))), float(np.mean(np.square(signal - other)))
    if error == 0:
        return math.inf
    return 10 * math.log10(power / error) if power > 0 else -math.inf


def snr_table(report: LayerReport) -> str:
    """Markdown: one row for each intermediate, one column for each task."""
    tasks = list(report.snr)
    names = dict.fromkeys(itertools.chain(*report.snr.values()))
    lines = [f"| intermediate (SNR, dB) | {' | '.join(tasks)} |", f"|---|{'---:|' * len(tasks)}"]
    for name in names:
        cells = " | ".join(f"{rows[name]:.1f}" if name in rows else "" for rows in report.snr.values())
        lines.append(f"| {name} | {cells} |")
    for block in sorted(set(itertools.chain(*report.same_experts.values()))):
        cells = " | ".join(f"{100 * report.same_experts[task][block]:.1f} %" for task in tasks)
        lines.append(f"| block{block}.gate, tokens with the same experts | {cells} |")
    return "\n".join(lines)
