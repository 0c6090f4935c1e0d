# SPDX-License-Identifier: Apache-2.0
"""The pre-norm transformer block: x + Attention(LN(x)), then x + FFN(LN(x)) (ViT, section 3.1)."""

import torch.nn.functional as F
from torch import Tensor, nn

from edge_moe.config import ModelConfig
from edge_moe.nn.moe import MoEFFN, Routing

LAYERNORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention; logits are scaled by 1/sqrt(head dimension)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.num_heads = cfg.num_heads
        self.qkv = nn.Linear(cfg.embed_dim, 3 * cfg.embed_dim)
        self.proj = nn.Linear(cfg.embed_dim, cfg.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, N, D] to [B, N, D]."""
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v)  # [B, heads, N, D / heads]
        mixed: Tensor = self.proj(heads.transpose(1, 2).reshape(B, N, D))
        return mixed


class DenseFFN(nn.Module):
    """Linear, GELU (exact), Linear; the same for every task."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(cfg.embed_dim, cfg.mlp_ratio * cfg.embed_dim)
        self.fc2 = nn.Linear(cfg.mlp_ratio * cfg.embed_dim, cfg.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [B, N, D] to [B, N, D]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """One encoder block. Its attention never depends on the task, its FFN does in an MoE block."""

    def __init__(self, cfg: ModelConfig, index: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(cfg.embed_dim, eps=LAYERNORM_EPS)
        self.attn = Attention(cfg)
        self.norm2 = nn.LayerNorm(cfg.embed_dim, eps=LAYERNORM_EPS)
        self.ffn: DenseFFN | MoEFFN = MoEFFN(cfg) if index in cfg.moe_blocks else DenseFFN(cfg)

    def attend(self, x: Tensor) -> Tensor:
        """First half of the block, [B, N, D] to [B, N, D]."""
        out: Tensor = x + self.attn(self.norm1(x))
        return out

    def feed(
        self, x: Tensor, task: str, task_embedding: Tensor | None
    ) -> tuple[Tensor, Routing | None, Tensor | None]:
        """Second half: tokens [B, N, D], and in an MoE block the routing and its balance loss."""
        if isinstance(self.ffn, MoEFFN):
            y, routing, balance = self.ffn(self.norm2(x), task, task_embedding)
            return x + y, routing, balance
        return x + self.ffn(self.norm2(x)), None, None
