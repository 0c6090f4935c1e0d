# SPDX-License-Identifier: Apache-2.0
"""M3ViT: a vision transformer whose tasks share everything but gates and heads (Liang et al., 2022).

A forward pass computes only the tasks that were asked for. It runs their common part once: all blocks
up to the first MoE block, and that block's attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from edge_moe.config import ModelConfig
from edge_moe.nn.block import Block, Keep, ignore
from edge_moe.nn.heads import TaskHead
from edge_moe.nn.moe import Experts, Routing
from edge_moe_host.errors import EdgeMoEError

INIT_STD = 0.02


@dataclass(frozen=True)
class ModelOutput:
    """The result of one forward pass.

    predictions: task -> float32 [B, C, H, W] at the input's size: logits for classes and binary
    tasks, metres for depth, unnormalised vectors for normals. balance_loss: scalar, the mean over
    tasks and MoE blocks (0 without any). routing: task -> block index -> :class:`Routing`.
    """

    predictions: dict[str, Tensor]
    balance_loss: Tensor
    routing: dict[str, dict[int, Routing]]


class M3ViT(nn.Module):
    """Multi-task mixture-of-experts vision transformer."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        D = cfg.embed_dim
        self.register_buffer("pixel_mean", torch.tensor(cfg.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(cfg.pixel_std).view(3, 1, 1), persistent=False)
        self.patch_embed = nn.Conv2d(3, D, cfg.patch_size, stride=cfg.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D)) if cfg.cls_token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, cfg.num_tokens, D))
        self.blocks = nn.ModuleList(Block(cfg, index) for index in range(cfg.depth))
        self.task_embedding: nn.Sequential | None = None
        if cfg.routing == "task_conditioned":
            width = cfg.task_embed_dim
            self.task_embedding = nn.Sequential(
                nn.Linear(len(cfg.tasks), width), nn.GELU(), nn.Linear(width, width)
            )
        self.heads = nn.ModuleDict({task: TaskHead(cfg, task) for task in cfg.tasks})
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normal weights and zero biases; every draw is from torch's global generator.

        Gate scores start near 1/E and are not renormalised, so the experts' second layer is drawn E times
        wider: an MoE block then starts with the output scale of the dense block that it replaces.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Experts):
                nn.init.trunc_normal_(module.weight1, std=INIT_STD)
                std = INIT_STD * len(module.weight2)
                nn.init.trunc_normal_(module.weight2, std=std, a=-100 * std, b=100 * std)
        nn.init.trunc_normal_(self.patch_embed.weight.view(len(self.patch_embed.weight), -1), std=INIT_STD)
        assert self.patch_embed.bias is not None
        nn.init.zeros_(self.patch_embed.bias)
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=INIT_STD)

    def forward(self, images: Tensor, tasks: Sequence[str] | None = None, keep: Keep = ignore) -> ModelOutput:
        """Predict ``tasks`` (default: all of the model) for RGB images [B, 3, H, W].

        Images are uint8, or float in [0, 1]; mean and standard deviation are applied here. ``keep``
        receives every intermediate: those of blocks that the tasks share once, before the first task, those
        of later blocks once for each task, in the order of ``tasks``. Names of heads include the task.
        Raises EdgeMoEError for a task the model lacks or images of another size.
        """
        tasks = self._checked(images, tasks)
        x = keep("patch_embedding", self.embed(images))
        shared = self.cfg.shared_blocks
        routings: dict[int, Routing] = {}
        losses: list[Tensor] = []

        def feed(
            index: int, x: Tensor, task: str, embedding: Tensor | None, routing: dict[int, Routing]
        ) -> Tensor:
            x, chosen, balance = self.block(index).feed(x, task, embedding, keep)
            if chosen is not None and balance is not None:
                routing[index] = chosen
                losses.append(balance)
            return x

        for index in range(shared):
            x = feed(index, self.block(index).attend(x, keep), tasks[0], None, routings)
        branch = self.block(shared).attend(x, keep) if shared < self.cfg.depth else x
        predictions: dict[str, Tensor] = {}
        routing: dict[str, dict[int, Routing]] = {}
        for task in tasks:
            routing[task], y = dict(routings), branch
            embedding = self.embed_task(task)
            for index in range(shared, self.cfg.depth):
                if index > shared:
                    y = self.block(index).attend(y, keep)
                y = feed(index, y, task, embedding, routing[task])
            predictions[task] = self.heads[task](y, keep)
        balance = torch.stack(losses).mean() if losses else x.new_zeros((), dtype=torch.float32)
        return ModelOutput(predictions, balance, routing)

    def block(self, index: int) -> Block:
        """Encoder block by index."""
        return cast(Block, self.blocks[index])

    def embed(self, images: Tensor) -> Tensor:
        """Tokens [B, N, D] of images [B, 3, H, W]: normalise, patch embedding, CLS, position."""
        if images.dtype == torch.uint8:
            images = images.to(self.pixel_mean.dtype) / 255
        x = self.patch_embed((images - self.pixel_mean) / self.pixel_std).flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x + self.pos_embed

    def embed_task(self, task: str) -> Tensor | None:
        """Input of a task-conditioned gate besides the token, [task_embed_dim]; None without such gates."""
        if self.task_embedding is None:
            return None
        one_hot = self.pos_embed.new_zeros(len(self.cfg.tasks))
        one_hot[list(self.cfg.tasks).index(task)] = 1
        embedding: Tensor = self.task_embedding(one_hot)
        return embedding

    def _checked(self, images: Tensor, tasks: Sequence[str] | None) -> list[str]:
        tasks = list(self.cfg.tasks) if tasks is None else list(tasks)
        for task in tasks:
            if task not in self.cfg.tasks:
                raise EdgeMoEError(f"task '{task}' is not in this model: it has {', '.join(self.cfg.tasks)}.")
        if not tasks or len(set(tasks)) != len(tasks):
            raise EdgeMoEError(f"tasks = {tasks} must name at least one task, each once.")
        expected = (3, *self.cfg.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise EdgeMoEError(
                f"images have shape {list(images.shape)}: this model takes [batch, {str(expected)[1:-1]}]."
            )
        return tasks


def build_model(cfg: ModelConfig) -> M3ViT:
    """A freshly initialised model."""
    return M3ViT(cfg)
