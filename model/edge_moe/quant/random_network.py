# SPDX-License-Identifier: Apache-2.0
"""Integer networks with random constants whose activations neither vanish nor saturate throughout."""

import itertools

import numpy as np

from edge_moe.config import ModelConfig
from edge_moe.info import HEAD_CONVS
from edge_moe.quant.network import ACCUMULATOR_LIMIT, GATE_WEIGHT_LIMIT, Block, Head, IntegerNetwork
from edge_moe_host.golden.operators import FFN, Attention, Gate, LayerNorm, Linear

INPUT_RMS = 40.0  # aim for int8 activations


class NetworkMaker:
    """Draws every constant of an :class:`IntegerNetwork` from one seed."""

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self.config = config
        self.rng = np.random.default_rng(seed)

    def linear(self, shape: tuple[int, ...], target_rms: float, bits: int = 8, shift: int = 24) -> Linear:
        """Weights of ``shape`` [out, ...] whose requantised result has about ``target_rms``."""
        limit = 2 ** (bits - 1) - 1
        weight = self.rng.integers(-limit, limit, size=shape, endpoint=True).astype(np.int8)
        fan_in = int(np.prod(shape[1:]))
        expected = max(np.sqrt(fan_in) * INPUT_RMS * max(limit / np.sqrt(3), 0.8), 1.0)
        multiplier = target_rms / expected * 2.0**shift * self.rng.uniform(0.6, 1.4, size=shape[0])
        while multiplier.max() > 32767:
            multiplier, shift = multiplier / 2, shift - 1
        bias = self.rng.integers(-expected, expected, size=shape[0], endpoint=True)
        return Linear(weight, bias.astype(np.int32), multiplier.astype(np.int16), shift, bits)

    def norm(self) -> LayerNorm:
        """LayerNorm to int8 of about INPUT_RMS."""
        D = self.config.embed_dim
        shift = 18
        gamma = INPUT_RMS / 1024 * 2**shift * self.rng.uniform(-1.4, 1.4, size=D)
        beta = self.rng.integers(-20, 20, size=D, endpoint=True) << shift
        return LayerNorm(gamma.astype(np.int16), beta.astype(np.int32), shift, epsilon=D * D)

    def ffn(self, hidden: int, bits: int = 8) -> FFN:
        """A dense FFN or an expert; its hidden zero point differs from one to the next."""
        D = self.config.embed_dim
        return FFN(
            self.linear((hidden, D), 1200.0, bits),
            gelu_multiplier=int(self.rng.integers(20000, 32767)),
            gelu_shift=19,
            zero_point=int(self.rng.integers(-124, -110)),
            fc2=self.linear((D, hidden), 1500.0, bits),
        )

    def gate(self) -> Gate:
        """A gate whose logits spread over several units."""
        E, D = self.config.num_experts, self.config.embed_dim
        limit = min(GATE_WEIGHT_LIMIT, ACCUMULATOR_LIMIT // (129 * D))
        weight = self.rng.integers(-limit, limit, size=(E, D), endpoint=True).astype(np.int16)
        scale = 512 / (np.sqrt(D) * INPUT_RMS * 16319 / np.sqrt(3))
        bias = self.rng.integers(-(2**20), 2**20, size=E).astype(np.int32)
        multiplier, shift = scale * 2.0**32, 32
        while multiplier > 32767:
            multiplier, shift = multiplier / 2, shift - 1
        return Gate(weight, bias, int(multiplier), shift, self.config.top_k)

    def block(self, index: int, bits: int = 8) -> Block:
        """One encoder block, with the experts and every task's gate where it is an MoE block."""
        cfg = self.config
        D, heads = cfg.embed_dim, cfg.num_heads
        spread = 300 / (np.sqrt(D // heads) * INPUT_RMS**2)
        attn = Attention(
            heads,
            self.linear((3 * D, D), INPUT_RMS),
            (spread * 2**14 * self.rng.uniform(0.6, 1.4, size=heads)).astype(np.int16),
            14,
            self.rng.integers(8000, 32767, size=D).astype(np.int16),
            19,
            self.linear((D, D), 1500.0),
        )
        if index not in cfg.moe_blocks:
            return Block(self.norm(), attn, self.norm(), ffn=self.ffn(cfg.mlp_ratio * D))
        gates = {task: self.gate() for task in cfg.tasks}
        experts = tuple(self.ffn(cfg.expert_ratio * D, bits) for _ in range(cfg.num_experts))
        return Block(
            self.norm(),
            attn,
            self.norm(),
            gates=gates,
            experts=experts,
            expert_ids=tuple(range(len(experts))),
        )

    def head(self, task: str) -> Head:
        """One task's head."""
        cfg = self.config
        widths = [cfg.embed_dim] + [cfg.head_channels] * HEAD_CONVS[cfg.head]
        convs = tuple(self.linear((cout, 3, 3, cin), 80.0) for cin, cout in itertools.pairwise(widths))
        return Head(
            self.norm(), convs, self.linear((cfg.tasks[task], cfg.head_channels), 3000.0), scale=0.001
        )

    def network(self, expert_bits: int = 8) -> IntegerNetwork:
        """The whole network, for all tasks of the configuration."""
        cfg = self.config
        N, D = cfg.num_tokens, cfg.embed_dim
        position = self.rng.integers(-3000, 3000, size=(N, D)).astype(np.int16)
        return IntegerNetwork(
            cfg,
            self.linear((D, 3 * cfg.patch_size**2), 2500.0),
            position,
            tuple(self.block(index, expert_bits) for index in range(cfg.depth)),
            {task: self.head(task) for task in cfg.tasks},
            {"residual": 0.001},
        )


def random_network(config: ModelConfig, seed: int = 0, expert_bits: int = 8) -> IntegerNetwork:
    """An integer network of this shape; the same seed gives the same one."""
    return NetworkMaker(config, seed).network(expert_bits)
