# SPDX-License-Identifier: Apache-2.0
"""Initial weights of a model that is trained from scratch."""

from torch import nn

from edge_moe.nn.moe import Experts

INIT_STD = 0.02


def initialise_layers(model: nn.Module) -> None:
    """Truncated normal weights and zero biases of every linear layer and expert in ``model``.

    Every draw is from torch's global generator. Gate scores start near 1/E and are not renormalised, so the
    experts' second layer is drawn E times wider: an MoE block then starts with the output scale of the dense
    block it replaces.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=INIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Experts):
            nn.init.trunc_normal_(module.weight1, std=INIT_STD)
            std = INIT_STD * len(module.weight2)
            nn.init.trunc_normal_(module.weight2, std=std, a=-100 * std, b=100 * std)
