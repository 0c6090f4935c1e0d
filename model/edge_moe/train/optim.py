# SPDX-License-Identifier: Apache-2.0
"""Optimizers, learning-rate schedules and the moving average of the weights."""

import math

import torch
from torch import nn

from edge_moe.config import TrainConfig

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
_TOKENS = ("cls_token", "pos_embed")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two optimizer groups: decayed weights, and norms, biases, tokens, position embedding."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            # Stacked expert biases are matrices, so the name decides, not the dimension.
            exempt = isinstance(module, _NORMS) or name.startswith("bias") or name in _TOKENS
            if parameter.requires_grad:
                (free if exempt else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW (Loshchilov & Hutter, ICLR 2019), as the configuration says."""
    groups = parameter_groups(model, train.weight_decay)
    if train.optimizer == "sgd":
        # not fused: the fused form needs the momentum of all parameters to start in the same step
        return torch.optim.SGD(groups, lr=train.lr, momentum=train.momentum, foreach=True)
    return torch.optim.AdamW(groups, lr=train.lr, fused=True)


def learning_rate(train: TrainConfig, step: int, total_steps: int) -> float:
    """Learning rate of a step (0-based): linear warm-up, then poly or cosine decay to zero."""
    if step < train.warmup_steps:
        return train.lr * (step + 1) / train.warmup_steps
    progress = (step - train.warmup_steps) / max(1, total_steps - train.warmup_steps)
    progress = min(progress, 1.0)
    if train.schedule == "poly":
        return train.lr * (1.0 - progress) ** train.poly_power
    return train.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = value


class Ema:
    """Exponential moving average of parameters and buffers, batch-norm statistics included.

    The decay of step t (0-based) is ``min(decay, (1 + t) / (10 + t))``, so that a short run is
    not an average with its own initialisation. Integer buffers are copied. ``model`` is a second
    instance of the trained model and becomes the average; it starts with this instance's values.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards ``model`` after step ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        source = model.state_dict()
        averages: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(source[name])
            else:
                average.copy_(source[name])
        torch._foreach_lerp_(averages, values, 1.0 - decay)
