# SPDX-License-Identifier: Apache-2.0
"""Leaves experts that a task never uses out of its path, and reports the savings. Imports no torch."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edge_moe.quant.network import Block, IntegerNetwork
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.operators import Linear

GATE_BITS = 16


def drop_unused(path: IntegerNetwork, usage: Mapping[int, np.ndarray]) -> IntegerNetwork:
    """``path`` of one task without the experts that have no token in ``usage``.

    usage: MoE block -> int [experts of the model]. A token whose best experts are all kept goes to the
    same ones, and its scores grow by the softmax's share of the dropped ones. Raises EdgeMoEError for a
    network of several tasks and for usage that does not fit it.
    """
    if len(path.tasks) != 1:
        raise EdgeMoEError(
            f"experts are dropped from the path of one task, but this network has {', '.join(path.tasks)}."
        )
    blocks = tuple(
        _without_unused(block, index, usage) if block.experts else block
        for index, block in enumerate(path.blocks)
    )
    return dataclasses.replace(path, blocks=blocks)


def _without_unused(block: Block, index: int, usage: Mapping[int, np.ndarray]) -> Block:
    if index not in usage or len(usage[index]) <= max(block.expert_ids):
        raise EdgeMoEError(f"expert usage does not cover block {index}: calibrate this model anew.")
    kept = [place for place, expert in enumerate(block.expert_ids) if usage[index][expert] > 0]
    top_k = max(gate.top_k for gate in block.gates.values())
    if len(kept) < top_k:
        raise EdgeMoEError(
            f"expert usage of block {index} shows {len(kept)} experts in use, but each token needs {top_k}: "
            "calibrate this model anew."
        )
    return dataclasses.replace(
        block,
        gates={
            task: dataclasses.replace(gate, weight=gate.weight[kept], bias=gate.bias[kept])
            for task, gate in block.gates.items()
        },
        experts=tuple(block.experts[place] for place in kept),
        expert_ids=tuple(block.expert_ids[place] for place in kept),
    )


def task_path(network: IntegerNetwork, task: str, extra: Mapping[str, Any]) -> IntegerNetwork:
    """The path of ``task``, without its unused experts if the quantisation was to drop them.

    ``extra`` is the stored extra data of the network.
    """
    path = network.path(task)
    if not extra.get("options", {}).get("drop_unused_experts", False):
        return path
    usage = extra.get("usage", {}).get(task)
    if usage is None:
        raise EdgeMoEError(f"this integer network holds no expert usage of task '{task}': quantise it anew.")
    return drop_unused(path, dict(zip(network.config.moe_blocks, usage, strict=True)))


def weight_bits(network: IntegerNetwork) -> int:
    """Bits of all weights, each at its own width, without biases and tables."""
    gates = [gate for block in network.blocks for gate in block.gates.values()]
    total = sum(layer.weight.size * layer.bits for layer in _linears(network))
    return total + sum(gate.weight.size * GATE_BITS for gate in gates)


def _linears(network: IntegerNetwork) -> Iterator[Linear]:
    yield network.patch
    for block in network.blocks:
        yield from (block.attention.qkv, block.attention.proj)
        for ffn in block.ffns:
            yield from (ffn.fc1, ffn.fc2)
    for head in network.heads.values():
        yield from (*head.convs, head.out)


def drop_table(network: IntegerNetwork, extra: Mapping[str, Any]) -> str:
    """Markdown: for each task, experts kept in each MoE block, and its path's weights before and after."""
    blocks = network.config.moe_blocks
    lines = [
        f"| task | {' | '.join(f'block {index}' for index in blocks)} | weights | without unused experts |",
        f"|---|{'---:|' * (len(blocks) + 2)}",
    ]
    for task in network.tasks:
        whole, kept = network.path(task), task_path(network, task, extra)
        counts = " | ".join(
            f"{len(kept.blocks[i].experts)} of {len(whole.blocks[i].experts)}" for i in blocks
        )
        before, after = (weight_bits(path) / 8e6 for path in (whole, kept))
        lines.append(f"| {task} | {counts} | {before:.2f} MB | {after:.2f} MB |")
    return "\n".join(lines)
