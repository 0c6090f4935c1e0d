# SPDX-License-Identifier: Apache-2.0
"""Float models with random weights, harder to quantise than freshly initialised ones."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_moe.config import ModelConfig
from edge_moe.nn import M3ViT, build_model
from edge_moe.testing.networks import random_images

CONFIG = ModelConfig(
    image_size=(32, 64),
    tasks={"semseg": 5, "depth": 1},
    embed_dim=32,
    num_heads=2,
    depth=4,
    patch_size=8,
    num_experts=4,
    top_k=2,
    head_channels=16,
    depth_scale=20.0,
)


def changed(**fields: Any) -> ModelConfig:
    """CONFIG with these values changed."""
    return dataclasses.replace(CONFIG, **fields)


@torch.no_grad()
def random_model(config: ModelConfig = CONFIG, seed: int = 0) -> M3ViT:
    """Evaluation mode; decided attention and gates, outlier channels in norms, batch norm statistics."""
    torch.manual_seed(seed)
    model = build_model(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "experts.weight2" not in name:
            parameter.mul_(6.0)
        elif name.endswith("bias"):
            parameter.normal_(0, 0.1)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.uniform_(0.3, 1.5)
            module.weight[:2] *= 6.0
            module.bias[1:4] += 2.0
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.3, 2.0)  # type: ignore[union-attr]
    return model.eval()


def pictures(count: int, config: ModelConfig = CONFIG, seed: int = 0) -> Iterator[np.ndarray]:
    """uint8 [H, W, 3] each."""
    return iter(random_images(config, count, seed))


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] as the model's input."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
