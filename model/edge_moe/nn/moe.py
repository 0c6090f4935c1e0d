# SPDX-License-Identifier: Apache-2.0
"""The mixture-of-experts FFN: gates, dispatch of tokens to experts, and the balance loss.

For a token x and gate weights W, with E experts of which k are used (M3ViT, section 3.2)::

    p = softmax(W x)          over all E experts
    y = sum over the k largest p_e of p_e * expert_e(x)      scores are not renormalised

No capacity limit: every token reaches its k experts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_moe.config import ModelConfig
from edge_moe.distributed import sum_over_ranks, world_size

SHARED_GATE = "shared"


@dataclass(frozen=True)
class Routing:
    """The experts and scores of the tokens in one MoE block."""

    expert: Tensor  # int64 [B, N, k], best first
    score: Tensor  # float [B, N, k], softmax over all experts


class Experts(nn.Module):
    """E independent FFNs Linear, GELU, Linear, stored stacked."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        E, D, hidden = cfg.num_experts, cfg.embed_dim, cfg.expert_ratio * cfg.embed_dim
        self.weight1 = nn.Parameter(torch.empty(E, hidden, D))
        self.bias1 = nn.Parameter(torch.zeros(E, hidden))
        self.weight2 = nn.Parameter(torch.empty(E, D, hidden))
        self.bias2 = nn.Parameter(torch.zeros(E, D))

    def forward(self, x: Tensor, expert: Tensor, score: Tensor) -> Tensor:
        """Combine the chosen experts of each token.

        x [T, D], expert int64 [T, k], score [T, k]; returns [T, D]. Tokens are sorted by expert so
        that each expert runs once on its own tokens and an unused expert costs nothing.
        """
        k = expert.shape[1]
        order = expert.flatten().argsort(stable=True)
        counts = torch.bincount(expert.flatten(), minlength=len(self.weight1))
        rows = x.index_select(0, torch.div(order, k, rounding_mode="floor"))  # [T*k, D], grouped
        out = self._grouped_mm(rows, counts) if _use_grouped_mm(rows) else self._loop(rows, counts)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return (out.index_select(0, inverse).view(*expert.shape, -1) * score.unsqueeze(-1)).sum(1)

    def unbind(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Weight and bias of both layers of each expert.

        Together, as indexing weight[e] would build a gradient of all E experts for each e.
        """
        return zip(*(p.unbind() for p in (self.weight1, self.bias1, self.weight2, self.bias2)), strict=True)

    def _loop(self, rows: Tensor, counts: Tensor) -> Tensor:
        groups = rows.split(counts.tolist())
        return torch.cat(
            [
                F.linear(F.gelu(F.linear(group, w1, b1)), w2, b2)
                for group, (w1, b1, w2, b2) in zip(groups, self.unbind(), strict=True)
                if len(group)
            ]
        )

    def _grouped_mm(self, rows: Tensor, counts: Tensor) -> Tensor:
        ends = counts.cumsum(0).to(torch.int32)
        owner = torch.repeat_interleave(counts, output_size=len(rows))
        kind = torch.bfloat16
        hidden = F.grouped_mm(rows.to(kind), self.weight1.to(kind).transpose(1, 2), offs=ends)
        hidden = F.gelu(hidden + self.bias1.to(kind).index_select(0, owner))
        out = F.grouped_mm(hidden, self.weight2.to(kind).transpose(1, 2), offs=ends)
        return out + self.bias2.to(kind).index_select(0, owner)


def _use_grouped_mm(rows: Tensor) -> bool:
    """Grouped products exist for bfloat16 on CUDA; elsewhere a loop over experts is as good."""
    return (
        rows.is_cuda
        and hasattr(F, "grouped_mm")
        and torch.is_autocast_enabled("cuda")
        and torch.get_autocast_dtype("cuda") == torch.bfloat16
    )


class MoEFFN(nn.Module):
    """Gates of one block and the experts that all tasks share."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.routing = cfg.routing
        self.top_k = cfg.top_k
        self.noise_std = cfg.gate_noise / cfg.num_experts
        width = cfg.embed_dim + (cfg.task_embed_dim if cfg.routing == "task_conditioned" else 0)
        names = list(cfg.tasks) if cfg.routing == "multi_gate" else [SHARED_GATE]
        self.gates = nn.ModuleDict({name: nn.Linear(width, cfg.num_experts, bias=False) for name in names})
        self.experts = Experts(cfg)

    def forward(self, x: Tensor, task: str, task_embedding: Tensor | None) -> tuple[Tensor, Routing, Tensor]:
        """Map tokens [B, N, D] to (tokens [B, N, D], routing, balance loss scalar)."""
        B, N, D = x.shape
        tokens = x.reshape(B * N, D)
        gate_input = tokens
        if task_embedding is not None:
            gate_input = torch.cat([tokens, task_embedding.expand(B * N, -1)], dim=1)
        clean = self.gates[task if self.routing == "multi_gate" else SHARED_GATE](gate_input).float()
        noise_std = self.noise_std if self.training else 0.0
        noisy = clean + noise_std * torch.randn_like(clean) if noise_std else clean
        # a stable sort, not topk: equal logits go to the lower index, as in the integer gate
        ranked, index = noisy.sort(dim=1, descending=True, stable=True)
        expert = index[:, : self.top_k]
        score = noisy.softmax(dim=1).gather(1, expert)
        out = self.experts(tokens, expert, score.to(tokens.dtype)).to(x.dtype)
        routing = Routing(expert.view(B, N, -1), score.detach().view(B, N, -1))
        balance = balance_loss(clean, ranked, expert, score, noise_std, all_ranks=self.training)
        return out.view(B, N, D), routing, balance


def balance_loss(
    clean: Tensor, ranked: Tensor, expert: Tensor, score: Tensor, noise_std: float, all_ranks: bool = False
) -> Tensor:
    """CV^2(importance) + CV^2(load) over the tokens, ``all_ranks``: those of every data-parallel rank.

    clean [T, E] logits without noise, ranked [T, E] noisy logits in falling order, expert [T, k],
    score [T, k]. Importance is the sum of an expert's scores; load the expected number of tokens
    that a new draw of its noise would send to it while the others' noise is kept (Shazeer et al.,
    ICLR 2017, appendix A). Without noise the load is the plain count and has no gradient.
    """
    E, k = clean.shape[1], expert.shape[1]
    importance = clean.new_zeros(E).index_add(0, expert.flatten(), score.flatten())
    chosen = torch.zeros_like(clean, dtype=torch.bool).scatter_(1, expert, True)
    if noise_std and k < E:
        # An expert is in the top k when it beats the k-th best of the others: in terms of the whole
        # ranking that is rank k + 1 for one that is in, rank k for one that is not.
        others_best = torch.where(chosen, ranked[:, k : k + 1], ranked[:, k - 1 : k])
        load = torch.special.ndtr((clean - others_best) / noise_std).sum(0)
    else:
        load = chosen.to(clean.dtype).sum(0)
    if all_ranks and world_size() > 1:
        importance, load = _joint(torch.stack([importance, load])).unbind()
    return _cv_squared(importance) + _cv_squared(load)


def _joint(local: Tensor) -> Tensor:
    """Sum over ranks; its gradients are scaled so that their *mean* over ranks is the joint gradient."""
    scaled = world_size() * local
    return scaled + (sum_over_ranks(local) - scaled).detach()


def _cv_squared(values: Tensor) -> Tensor:
    """Squared coefficient of variation; population variance, so it is 0 for one expert."""
    return values.var(correction=0) / (values.mean().square() + 1e-10)
