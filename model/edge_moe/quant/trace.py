# SPDX-License-Identifier: Apache-2.0
"""The float model's forward pass with every intermediate under its name in golden's trace."""

from collections.abc import Callable, Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor

from edge_moe.nn import M3ViT
from edge_moe.nn.block import Block, DenseFFN
from edge_moe.nn.heads import TaskHead, upsample
from edge_moe_host.errors import EdgeMoEError

Keep = Callable[[str, Tensor], None]


def trace_float(model: M3ViT, images: Tensor, tasks: Sequence[str], keep: Keep) -> dict[str, Tensor]:
    """Predictions [B, C, H, W] by task; ``keep`` receives every intermediate.

    images uint8 [B, 3, H, W]. Token tensors are [B, N, ...], a head's are [B, h*w, C]; beyond golden's
    names, ``head.{task}.window{j}`` is the input [B, C, h, w] of convolution j. Blocks that the tasks
    share are computed and kept once, before the first task; a head's names begin with ``head.{task}``.
    Blocks after the shared ones keep their tensors once for each task, in the order of ``tasks``.
    """
    for task in tasks:
        if task not in model.cfg.tasks:
            raise EdgeMoEError(f"task '{task}' is not in this model: it has {', '.join(model.cfg.tasks)}.")
    shared, depth = model.cfg.shared_blocks, model.cfg.depth
    x = model.embed(images)
    keep("patch_embedding", x)
    for index in range(shared):
        x = _attend(model.block(index), x, f"block{index}", keep)
        x = _feed(model.block(index), x, tasks[0], None, f"block{index}", keep)
    branch = _attend(model.block(shared), x, f"block{shared}", keep) if shared < depth else x
    predictions = {}
    for task in tasks:
        y, embedding = branch, task_embedding(model, task)
        for index in range(shared, depth):
            if index > shared:
                y = _attend(model.block(index), y, f"block{index}", keep)
            y = _feed(model.block(index), y, task, embedding, f"block{index}", keep)
        predictions[task] = _head(cast(TaskHead, model.heads[task]), y, f"head.{task}", keep)
    return predictions


def task_embedding(model: M3ViT, task: str) -> Tensor | None:
    """Input of a task-conditioned gate besides the token, [task_embed_dim]; None without such gates."""
    return model._embed_task(task)


def _attend(block: Block, x: Tensor, name: str, keep: Keep) -> Tensor:
    B, N, D = x.shape
    heads = block.attn.num_heads
    normed = block.norm1(x)
    keep(f"{name}.norm1", normed)
    qkv = block.attn.qkv(normed)
    keep(f"{name}.qkv", qkv)
    q, k, v = qkv.view(B, N, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, D)
    keep(f"{name}.attention", mixed)
    out: Tensor = x + block.attn.proj(mixed)
    keep(f"{name}.proj", out)
    return out


def _feed(block: Block, x: Tensor, task: str, embedding: Tensor | None, name: str, keep: Keep) -> Tensor:
    normed = block.norm2(x)
    keep(f"{name}.norm2", normed)
    ffn = block.ffn
    if isinstance(ffn, DenseFFN):
        hidden = F.gelu(ffn.fc1(normed))
        keep(f"{name}.hidden", hidden)
        out: Tensor = x + ffn.fc2(hidden)
    else:
        y, routing, _ = ffn(normed, task, embedding)
        keep(f"{name}.gate.expert", routing.expert)
        keep(f"{name}.gate.score", routing.score)
        out = x + y
    keep(f"{name}.ffn", out)
    return out


def _head(head: TaskHead, tokens: Tensor, name: str, keep: Keep) -> Tensor:
    h, w = head.grid_size
    patches = head.norm(tokens)[:, -h * w :]
    keep(f"{name}.norm", patches)
    x = patches.transpose(1, 2).reshape(len(tokens), -1, h, w)
    for stage, (conv, bn) in enumerate(zip(head.convs, head.bns, strict=True)):
        if stage:
            x = upsample(x, (h << stage, w << stage))
            keep(f"{name}.upsample{stage}", _rows(x))
        keep(f"{name}.window{stage}", x)
        x = F.relu(bn(conv(x)))
        keep(f"{name}.conv{stage}", _rows(x))
    out = head.scale * head.out(x)
    keep(f"{name}.out", _rows(out))
    return upsample(out.float().contiguous(), head.image_size)


def _rows(x: Tensor) -> Tensor:
    """Feature map [B, C, h, w] as [B, h*w, C]."""
    return x.flatten(2).transpose(1, 2)
