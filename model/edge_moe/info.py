# SPDX-License-Identifier: Apache-2.0
"""Parameters and multiply-accumulates of a model, counted from its configuration alone.

A MAC is one product of a linear or convolution layer, or of QK^T and AV; norms, softmax, GELU
and interpolation are not counted, as in the published figures.
"""

import math
from dataclasses import dataclass

from edge_moe.config import ModelConfig, Preset

HEAD_CONVS = {"pup": 4, "edge": 3}  # 3x3 convolutions of a head, each at twice the scale of the last


@dataclass(frozen=True)
class Cost:
    """Work and size of one part of a model."""

    macs: int
    params: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.macs + other.macs, self.params + other.params)


def _linear(tokens: int, fan_in: int, fan_out: int, bias: bool = True) -> Cost:
    return Cost(tokens * fan_in * fan_out, fan_in * fan_out + bias * fan_out)


def patch_embed_cost(cfg: ModelConfig) -> Cost:
    """Patch embedding, CLS token and position embedding."""
    D = cfg.embed_dim
    patches = _linear(math.prod(cfg.grid_size), 3 * cfg.patch_size**2, D)
    return patches + Cost(0, D * (cfg.num_tokens + int(cfg.cls_token)))


def attention_cost(cfg: ModelConfig) -> Cost:
    """One block's first half: LN, qkv, QK^T, AV, projection."""
    N, D = cfg.num_tokens, cfg.embed_dim
    return _linear(N, D, 3 * D) + Cost(2 * N * N * D, 2 * D) + _linear(N, D, D)


def dense_ffn_cost(cfg: ModelConfig) -> Cost:
    """A dense block's second half, LN included."""
    N, D, hidden = cfg.num_tokens, cfg.embed_dim, cfg.mlp_ratio * cfg.embed_dim
    return Cost(0, 2 * D) + _linear(N, D, hidden) + _linear(N, hidden, D)


def moe_ffn_cost(cfg: ModelConfig) -> Cost:
    """An MoE block's second half for one task, LN and that task's gate included."""
    N, D, hidden, E = cfg.num_tokens, cfg.embed_dim, cfg.expert_ratio * cfg.embed_dim, cfg.num_experts
    expert = _linear(1, D, hidden) + _linear(1, hidden, D)
    width = D + (cfg.task_embed_dim if cfg.routing == "task_conditioned" else 0)
    experts = Cost(N * cfg.top_k * expert.macs, E * expert.params)
    return Cost(0, 2 * D) + experts + _linear(N, width, E, bias=False)


def head_cost(cfg: ModelConfig, task: str) -> Cost:
    """The head of one task."""
    cells, width = math.prod(cfg.grid_size), cfg.head_channels
    total = Cost(0, 2 * cfg.embed_dim)
    fan_in = cfg.embed_dim
    for _ in range(HEAD_CONVS[cfg.head]):
        total += _linear(cells, 9 * fan_in, width, bias=False) + Cost(0, 2 * width)  # and batch norm
        fan_in, last, cells = width, cells, 4 * cells
    return total + _linear(last, width, cfg.tasks[task])


def encoder_cost(cfg: ModelConfig) -> Cost:
    """Patch embedding and all blocks, for one task."""
    total = patch_embed_cost(cfg)
    for index in range(cfg.depth):
        total += attention_cost(cfg) + (moe_ffn_cost(cfg) if index in cfg.moe_blocks else dense_ffn_cost(cfg))
    if cfg.routing == "task_conditioned":
        width = cfg.task_embed_dim
        total += _linear(1, len(cfg.tasks), width) + _linear(1, width, width)
    return total


def shared_cost(cfg: ModelConfig) -> Cost:
    """The part of the encoder that a pass over several tasks runs once."""
    if cfg.shared_blocks == cfg.depth:
        return encoder_cost(cfg)
    total = patch_embed_cost(cfg) + attention_cost(cfg)  # of the first MoE block
    for _ in range(cfg.shared_blocks):
        total += attention_cost(cfg) + dense_ffn_cost(cfg)
    return total


def task_cost(cfg: ModelConfig, task: str) -> Cost:
    """One task alone: the products of its forward pass, and the parameters that it needs."""
    return encoder_cost(cfg) + head_cost(cfg, task)


def model_cost(cfg: ModelConfig) -> Cost:
    """All tasks in one pass, the shared part counted once."""
    total = encoder_cost(cfg)
    for task in cfg.tasks:
        total += head_cost(cfg, task)
    others = len(cfg.tasks) - 1
    gates = len(cfg.moe_blocks) * cfg.embed_dim * cfg.num_experts if cfg.routing == "multi_gate" else 0
    return total + Cost(others * (encoder_cost(cfg).macs - shared_cost(cfg).macs), others * gates)


def describe(preset: Preset) -> str:
    """Table of MACs and parameters per task, for ``edge-moe info``."""
    cfg = preset.model
    lines = [
        f"{preset.name}: {cfg.image_size[0]}x{cfg.image_size[1]}, {cfg.num_tokens} tokens, "
        f"D={cfg.embed_dim}, {cfg.num_heads} heads, {cfg.depth} blocks, routing {cfg.routing}"
        + (
            f", {cfg.num_experts} experts in blocks {', '.join(map(str, cfg.moe_blocks))}, "
            f"top-{cfg.top_k}, expert hidden {cfg.expert_ratio * cfg.embed_dim}"
            if cfg.moe_blocks
            else f", FFN hidden {cfg.mlp_ratio * cfg.embed_dim}"
        ),
        "",
        f"{'':<14}{'channels':>9}{'encoder':>12}{'head':>12}{'one task':>12}{'parameters':>13}",
        f"{'task':<14}{'':>9}{'GMAC':>12}{'GMAC':>12}{'GMAC':>12}{'M':>13}",
    ]
    encoder = encoder_cost(cfg)
    for task, channels in cfg.tasks.items():
        head, one = head_cost(cfg, task), task_cost(cfg, task)
        lines.append(
            f"{task:<14}{channels:>9}{encoder.macs / 1e9:>12.3f}{head.macs / 1e9:>12.3f}"
            f"{one.macs / 1e9:>12.3f}{one.params / 1e6:>13.3f}"
        )
    total = model_cost(cfg)
    lines.append(f"{'all tasks':<45}{total.macs / 1e9:>14.3f}{total.params / 1e6:>13.3f}")
    return "\n".join(lines)
