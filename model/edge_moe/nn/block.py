# SPDX-License-Identifier: Apache-2.0
"""The pre-norm transformer block: x + Attention(LN(x)), then x + FFN(LN(x)) (ViT, section 3.1)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from edge_moe.config import ModelConfig
from edge_moe.nn.moe import MoEFFN, Routing

LAYERNORM_EPS = 1e-6

Keep = Callable[[str, Tensor], Tensor]  # receives an intermediate by its name in golden's trace, returns it
FFNWeights = tuple[Tensor, Tensor, Tensor, Tensor]  # fc1's weight and bias, fc2's


def ignore(name: str, value: Tensor) -> Tensor:
    """Keeps nothing."""
    return value


class Attention(nn.Module):
    """Multi-head self-attention; logits are scaled by 1/sqrt(head dimension)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.num_heads = cfg.num_heads
        self.qkv = nn.Linear(cfg.embed_dim, 3 * cfg.embed_dim)
        self.proj = nn.Linear(cfg.embed_dim, cfg.embed_dim)

    def forward(self, x: Tensor, keep: Keep = ignore, name: str = "") -> Tensor:
        """Map tokens [B, N, D] to [B, N, D]."""
        B, N, D = x.shape
        qkv = keep(f"{name}.qkv", self.qkv(x))
        q, k, v = qkv.view(B, N, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v)  # [B, heads, N, D / heads]
        out: Tensor = self.proj(keep(f"{name}.attention", heads.transpose(1, 2).reshape(B, N, D)))
        return out


class DenseFFN(nn.Module):
    """Linear, GELU (exact), Linear; the same for every task."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(cfg.embed_dim, cfg.mlp_ratio * cfg.embed_dim)
        self.fc2 = nn.Linear(cfg.mlp_ratio * cfg.embed_dim, cfg.embed_dim)

    def forward(self, x: Tensor, keep: Keep = ignore, name: str = "") -> Tensor:
        """Map tokens [B, N, D] to [B, N, D]."""
        out: Tensor = self.fc2(keep(f"{name}.hidden", F.gelu(self.fc1(x))))
        return out


class Block(nn.Module):
    """One encoder block. Its attention never depends on the task, its FFN does in an MoE block."""

    def __init__(self, cfg: ModelConfig, index: int) -> None:
        super().__init__()
        self.name = f"block{index}"
        self.norm1 = nn.LayerNorm(cfg.embed_dim, eps=LAYERNORM_EPS)
        self.attn = Attention(cfg)
        self.norm2 = nn.LayerNorm(cfg.embed_dim, eps=LAYERNORM_EPS)
        self.ffn: DenseFFN | MoEFFN = MoEFFN(cfg) if index in cfg.moe_blocks else DenseFFN(cfg)

    def ffns(self) -> dict[str, FFNWeights]:
        """Weights of the dense FFN, or of every expert, by name."""
        ffn = self.ffn
        if isinstance(ffn, DenseFFN):
            return {self.name: (ffn.fc1.weight, ffn.fc1.bias, ffn.fc2.weight, ffn.fc2.bias)}
        return {f"{self.name}.expert{e}": weights for e, weights in enumerate(ffn.experts.unbind())}

    def attend(self, x: Tensor, keep: Keep = ignore) -> Tensor:
        """First half of the block, [B, N, D] to [B, N, D]."""
        normed = keep(f"{self.name}.norm1", self.norm1(x))
        return keep(f"{self.name}.proj", x + self.attn(normed, keep, self.name))

    def feed(
        self, x: Tensor, task: str, task_embedding: Tensor | None, keep: Keep = ignore
    ) -> tuple[Tensor, Routing | None, Tensor | None]:
        """Second half: tokens [B, N, D], and in an MoE block the routing and its balance loss."""
        normed, routing, balance = keep(f"{self.name}.norm2", self.norm2(x)), None, None
        if isinstance(self.ffn, MoEFFN):
            y, routing, balance = self.ffn(normed, task, task_embedding)
            keep(f"{self.name}.gate.expert", routing.expert)
            keep(f"{self.name}.gate.score", routing.score)
        else:
            y = self.ffn(normed, keep, self.name)
        return keep(f"{self.name}.ffn", x + y), routing, balance
