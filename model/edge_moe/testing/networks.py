# SPDX-License-Identifier: Apache-2.0
"""Random integer networks, changes to them, and pictures for them."""

import dataclasses

import numpy as np

from edge_moe.config import ModelConfig
from edge_moe.quant.network import Block, IntegerNetwork
from edge_moe.quant.random_network import NetworkMaker, random_network

__all__ = ["NetworkMaker", "dropped_experts", "random_images", "random_network"]


def dropped_experts(network: IntegerNetwork, kept: tuple[int, ...]) -> IntegerNetwork:
    """The network with only the kept experts."""

    def drop(block: Block) -> Block:
        if not block.experts:
            return block
        gates = {
            task: dataclasses.replace(gate, weight=gate.weight[list(kept)], bias=gate.bias[list(kept)])
            for task, gate in block.gates.items()
        }
        experts = tuple(block.experts[index] for index in kept)
        return dataclasses.replace(block, gates=gates, experts=experts, expert_ids=kept)

    return dataclasses.replace(network, blocks=tuple(map(drop, network.blocks)))


def random_images(config: ModelConfig, count: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, H, W, 3]: smooth blobs with noise."""
    rng = np.random.default_rng(seed)
    H, W = config.image_size
    p = config.patch_size
    coarse = rng.integers(0, 256, size=(count, H // p, W // p, 3)).repeat(p, axis=1).repeat(p, axis=2)
    return np.clip(coarse + rng.integers(-40, 40, size=coarse.shape), 0, 255).astype(np.uint8)
