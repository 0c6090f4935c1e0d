# SPDX-License-Identifier: Apache-2.0
"""Initial weights of an MoE model from its trained dense twin."""

from collections.abc import Mapping

import torch
from torch import Tensor

from edge_moe.nn.m3vit import M3ViT
from edge_moe.nn.moe import MoEFFN
from edge_moe_host.errors import EdgeMoEError


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
    own = model.state_dict()
    taken: set[str] = set()

    def take(name: str, shape: torch.Size) -> Tensor:
        if name not in dense:
            raise EdgeMoEError(f"the dense checkpoint lacks '{name}': it is not this model's dense twin.")
        if dense[name].shape != shape:
            raise EdgeMoEError(
                f"'{name}' in the dense checkpoint has shape {list(dense[name].shape)}, "
                f"this model needs {list(shape)}."
            )
        taken.add(name)
        return dense[name].to(torch.float32)

    D, hidden, width = cfg.embed_dim, cfg.mlp_ratio * cfg.embed_dim, cfg.expert_ratio * cfg.embed_dim
    if hidden % width:
        raise EdgeMoEError(f"expert width {width} does not divide the dense FFN width {hidden}.")
    slices = hidden // width
    gain = cfg.num_experts * slices / cfg.top_k
    for name, value in own.items():
        if (
            ".ffn.gates." not in name
            and ".ffn.experts." not in name
            and not name.startswith("task_embedding.")
        ):
            value.copy_(take(name, value.shape))
    for index in cfg.moe_blocks:
        ffn, prefix = model.blocks[index].ffn, f"blocks.{index}.ffn"
        assert isinstance(ffn, MoEFFN)
        weight1 = take(f"{prefix}.fc1.weight", torch.Size([hidden, D])).view(slices, width, D)
        bias1 = take(f"{prefix}.fc1.bias", torch.Size([hidden])).view(slices, width)
        weight2 = take(f"{prefix}.fc2.weight", torch.Size([D, hidden])).view(D, slices, width)
        bias2 = take(f"{prefix}.fc2.bias", torch.Size([D]))
        owner = torch.arange(cfg.num_experts) % slices
        ffn.experts.weight1.copy_(weight1[owner])
        ffn.experts.bias1.copy_(bias1[owner])
        ffn.experts.weight2.copy_(weight2.permute(1, 0, 2)[owner] * gain)
        ffn.experts.bias2.copy_(bias2 * cfg.num_experts / cfg.top_k)
    unused = sorted(set(dense) - taken)
    if unused:
        raise EdgeMoEError(f"the dense checkpoint has '{unused[0]}', which this model lacks.")
