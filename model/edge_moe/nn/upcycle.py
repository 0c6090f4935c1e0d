# SPDX-License-Identifier: Apache-2.0
"""Weights from another model: the check that they fit, and an MoE model's start from its dense twin."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from edge_moe.nn.m3vit import M3ViT
from edge_moe.nn.moe import MoEFFN
from edge_moe_host.errors import EdgeMoEError


def check_weights(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """EdgeMoEError names the first entry of ``weights``, from ``source``, that does not fit ``own``."""
    for name, tensor in own.items():
        if name not in weights:
            raise EdgeMoEError(f"{source} is of another model: it lacks '{name}'.")
        if weights[name].shape != tensor.shape:
            raise EdgeMoEError(
                f"{source} is of another model: '{name}' has shape {list(weights[name].shape)}, "
                f"this model needs {list(tensor.shape)}."
            )
    for name in weights:
        if name not in own:
            raise EdgeMoEError(f"{source} is of another model: '{name}' is unknown to this model.")


@torch.no_grad()
def load_dense_weights(model: M3ViT, dense: Mapping[str, Tensor]) -> None:
    """Start ``model`` from the state dict of its trained dense twin (sparse upcycling).

    A dense FFN of width r*D is cut into r/ratio slices; expert e gets slice e modulo their number,
    as scores near 1/E with k experts chosen give the dense output in expectation when the second
    layer is scaled by E * slices / k. Gates stay freshly initialised. (Komatsuzaki et al., ICLR
    2023, with the slicing that keeps the cost equal.) Raises EdgeMoEError when ``dense`` is not
    the state dict of the dense twin.
    """
    cfg = model.cfg
    with torch.device("meta"):  # shapes only
        twin = M3ViT(dataclasses.replace(cfg, routing="dense"))
    check_weights(dense, twin.state_dict(), "the dense checkpoint")
    D, hidden, width = cfg.embed_dim, cfg.mlp_ratio * cfg.embed_dim, cfg.expert_ratio * cfg.embed_dim
    if hidden % width:
        raise EdgeMoEError(f"expert width {width} does not divide the dense FFN width {hidden}.")
    slices = hidden // width
    for name, value in model.state_dict().items():
        if name in dense:
            value.copy_(dense[name])
    owner = torch.arange(cfg.num_experts) % slices
    for index in cfg.moe_blocks:
        ffn = model.block(index).ffn
        assert isinstance(ffn, MoEFFN)
        weight1, bias1, weight2, bias2 = (
            dense[f"blocks.{index}.ffn.{part}"].float()
            for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
        )
        ffn.experts.weight1.copy_(weight1.view(slices, width, D)[owner])
        ffn.experts.bias1.copy_(bias1.view(slices, width)[owner])
        gain = cfg.num_experts * slices / cfg.top_k
        ffn.experts.weight2.copy_(weight2.view(D, slices, width).permute(1, 0, 2)[owner] * gain)
        ffn.experts.bias2.copy_(bias2 * cfg.num_experts / cfg.top_k)
