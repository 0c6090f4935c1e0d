# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with the parameter names of the published M3ViT code.

====================================  =====================================================
M3ViT                                 here
====================================  =====================================================
patch_embed.proj, cls_token           patch_embed, cls_token
pos_embed                             pos_embed, resampled when the patch grid differs
blocks.N.mlp.fc1/fc2                  blocks.N.ffn.fc1/fc2
blocks.N.mlp.experts.htoh4/h4toh      blocks.N.ffn.experts.weight1, bias1 / weight2, bias2
blocks.N.mlp.gate.w_gate [D, E]       blocks.N.ffn.gates.shared.weight [E, D]
blocks.N.mlp.gate.T.w_gate            blocks.N.ffn.gates.TASK.weight, T counts M3ViT's tasks
gate_task_represent                   task_embedding, its closing LayerNorm folded in
decoders.TASK.conv_I, syncbn_fc_I     heads.TASK.convs.I, bns.I, convolution biases folded in
decoders.TASK.conv_4, norm            heads.TASK.out, norm
====================================  =====================================================

A state dict shows neither the number of attention heads nor top-k. The first must be given (option or
preset); the second follows from equal cost with the dense FFN unless it is given. Nor does it show
whether the gates saw their block's input (``gate_input_ahead``) or a slice of the experts per task
(``regu_experts_fromtask``). M3ViT has both experiments off by default, and they are not
supported.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F

from edge_moe.config import Preset
from edge_moe.importers.assembly import Imported, TensorPorter, listing
from edge_moe.importers.m3vit_structure import (
    HEAD_CONVS,
    M3VIT_TASKS,
    Gates,
    canonical_names,
    check_structure,
    infer_config,
    task_order,
)
from edge_moe.importers.tensor_file import read_state_dict
from edge_moe.nn.block import LAYERNORM_EPS
from edge_moe.nn.moe import SHARED_GATE
from edge_moe_host.errors import EdgeMoEError


def import_m3vit(
    path: str | Path,
    *,
    preset: Preset | None = None,
    tasks: Mapping[str, int] | None = None,
    num_heads: int | None = None,
    top_k: int | None = None,
    image_size: tuple[int, int] | None = None,
    source_grid: tuple[int, int] | None = None,
    allow_missing: bool = False,
) -> Imported:
    """Import a torch checkpoint of M3ViT (Liang et al., NeurIPS 2022) as the same float32 function.

    path: a file with a state dict (bare, or under "state_dict" or "model"; prefixes "module." and
    "backbone." are dropped), or a folder of expert shards 0.pth, 1.pth, ... preset: checked against
    the shapes; without one the model is inferred from them. tasks: the tasks the checkpoint was
    trained on, in its gates' order, with their channels; default: those it has decoders for, in
    M3ViT's order (semseg, human_parts, saliency, normals, edge, depth). A preset may have fewer.
    num_heads, top_k, image_size override the preset. image_size: (height, width) in pixels of the
    new model. source_grid: (rows, columns) of the checkpoint's position embeddings, where 1:1, 4:3
    and 2:1 do not fit. allow_missing: initialise what the checkpoint lacks instead of raising.

    A single gate is copied to every task when the preset has one gate per task. Convolutions or
    qkv projections that have no bias in the whole checkpoint have bias zero. Raises EdgeMoEError for
    an unreadable file and for unknown, missing, non-finite or wrongly shaped parameters.
    """
    path = Path(path)
    hint = tasks if tasks is not None or preset is None else preset.model.tasks
    tensors, notes = canonical_names(path, read_state_dict(path), hint)
    order = task_order(path, tensors, preset, tasks)
    if preset:
        cfg, owner = preset.model, f"preset '{preset.name}'"
    else:
        cfg, more = infer_config(path, tensors, order, num_heads, top_k, image_size)
        notes, owner = notes + more, "the model inferred from the checkpoint"
    cfg = dataclasses.replace(
        cfg,
        num_heads=num_heads or cfg.num_heads,
        top_k=top_k or cfg.top_k,
        image_size=image_size or cfg.image_size,
    )
    gates = check_structure(path, tensors, cfg, order)

    porter = TensorPorter(path, cfg, tensors, owner)
    porter.copy_affine("patch_embed.proj.", "patch_embed")
    if cfg.cls_token:
        porter.copy("cls_token", "cls_token")
    notes += porter.positions([int(cfg.cls_token)], source_grid)
    notes += _port_blocks(porter, gates, list(order))
    if cfg.routing == "task_conditioned":
        notes += _port_task_embedding(porter, list(order))
    _port_heads(porter)
    porter.require(allow_missing)
    notes += _leftover(porter, set(order) - set(cfg.tasks))
    state, filled = porter.finish()
    result = dataclasses.replace(preset, model=cfg) if preset else Preset("m3vit_import", cfg)
    return Imported(result, state, filled, notes)


def _port_blocks(porter: TensorPorter, gates: Gates, order: list[str]) -> list[str]:
    cfg = porter.cfg
    qkv_bias = any(name.endswith(".attn.qkv.bias") for name in porter.tensors)
    for index in range(cfg.depth):
        block, ffn = f"blocks.{index}", f"blocks.{index}.ffn"
        for name in ("norm1", "attn.proj", "norm2"):
            porter.copy_affine(f"{block}.{name}.", f"{block}.{name}")
        porter.copy(f"{block}.attn.qkv.weight", f"{block}.attn.qkv.weight")
        if qkv_bias:
            porter.copy(f"{block}.attn.qkv.bias", f"{block}.attn.qkv.bias")
        else:
            porter.put(f"{block}.attn.qkv.bias", torch.zeros(3 * cfg.embed_dim))
        if index not in cfg.moe_blocks:
            for name in ("fc1", "fc2"):
                porter.copy_affine(f"{block}.mlp.{name}.", f"{ffn}.{name}")
            continue
        for number, name in enumerate(("htoh4", "h4toh"), start=1):
            for kind in ("weight", "bias"):
                porter.copy(f"{block}.mlp.experts.{name}.{kind}", f"{ffn}.experts.{kind}{number}")
        for gate in cfg.tasks if cfg.routing == "multi_gate" else (SHARED_GATE,):
            theirs = f"gate.{order.index(gate)}" if gates == "multi_gate" else "gate"
            porter.copy(f"{block}.mlp.{theirs}.w_gate", f"{ffn}.gates.{gate}.weight", transpose=True)
    notes = [] if qkv_bias else ["no block has a qkv bias: it is zero."]
    if gates == "multi_gate":
        notes.append(f"gates are taken as those of {', '.join(order)}, in this order.")
    elif gates != cfg.routing:
        notes.append(f"the checkpoint's single gate is copied to {', '.join(cfg.tasks)}.")
    return notes


def _port_task_embedding(porter: TensorPorter, order: list[str]) -> list[str]:
    """The embedding MLP. Its last LayerNorm, which the model lacks, is folded into the weights.

    There is one input per task, so the embeddings e_t are a finite table: with fc1 = [I 0]^T hidden
    unit t is GELU(1) for task t and 0 otherwise, and column t of fc2 = e_t / GELU(1) gives e_t.
    """
    cfg = porter.cfg
    width, count, source = cfg.task_embed_dim, len(cfg.tasks), "gate_task_represent"
    found = [
        porter.take(f"{source}.{name}", shape)
        for name, shape in (
            ("fc1.weight", (width, len(order))),
            ("fc1.bias", (width,)),
            ("fc2.weight", (width, width)),
            ("fc2.bias", (width,)),
        )
    ]
    normed = any(name.startswith(f"{source}.norm.") for name in porter.tensors)
    if normed:
        found += [porter.take(f"{source}.norm.{kind}", (width,)) for kind in ("weight", "bias")]
    values = [value.double() for value in found if value is not None]
    if len(values) < len(found):
        return []
    weight1, bias1, weight2, bias2 = values[:4]
    weight1 = weight1[:, [order.index(task) for task in cfg.tasks]]
    if normed:
        if count > width:
            raise EdgeMoEError(f"{count} tasks do not fit a task embedding of width {width}.")
        table = F.linear(F.gelu(weight1.T + bias1), weight2, bias2)
        table = F.layer_norm(table, (width,), values[4], values[5], LAYERNORM_EPS)
        weight1, bias1 = torch.eye(width, count), torch.zeros(width)
        weight2, bias2 = table.new_zeros(width, width), torch.zeros(width)
        weight2[:, :count] = table.T / F.gelu(table.new_ones(()))
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    for name, value in zip(names, (weight1, bias1, weight2, bias2), strict=True):
        porter.put(f"task_embedding.{name}", value)
    return (
        [f"the LayerNorm of {source} is folded into the task embedding: the same function."] if normed else []
    )


def _port_heads(porter: TensorPorter) -> None:
    cfg = porter.cfg
    if cfg.head != "pup":  # then the checkpoint has no decoders at all
        porter.missing.extend(f"decoders.{M3VIT_TASKS[task]}" for task in cfg.tasks)
        return
    conv_bias = any(re.fullmatch(r"decoders\.\w+\.conv_[0-3]\.bias", name) for name in porter.tensors)
    for task in cfg.tasks:
        named_as_ours = f"decoders.{task}.norm.weight" in porter.tensors
        theirs, ours = f"decoders.{task if named_as_ours else M3VIT_TASKS[task]}", f"heads.{task}"
        porter.copy_affine(f"{theirs}.norm.", f"{ours}.norm")
        for stage in range(HEAD_CONVS):
            conv, bn, our_bn = f"{theirs}.conv_{stage}", f"{theirs}.syncbn_fc_{stage}", f"{ours}.bns.{stage}"
            porter.copy(f"{conv}.weight", f"{ours}.convs.{stage}.weight")
            porter.copy_affine(f"{bn}.", our_bn)
            porter.copy(f"{bn}.running_var", f"{our_bn}.running_var")
            width = (cfg.head_channels,)
            mean = porter.take(f"{bn}.running_mean", width)
            bias = porter.take(f"{conv}.bias", width) if conv_bias else torch.zeros(width)
            if mean is not None and bias is not None:
                # BN(Wx + b) = g (Wx + b - mean) / s + h: the same with mean - b and no b
                porter.put(f"{our_bn}.running_mean", mean - bias)
            counter = f"{bn}.num_batches_tracked"
            if counter in porter.tensors:
                porter.put(f"{our_bn}.num_batches_tracked", porter.tensors[counter].reshape(()))
        # M3ViT's depth head is in metres, the model's in units of depth_scale metres: the same function
        scale = cfg.depth_scale if task == "depth" else 1.0
        for kind in ("weight", "bias"):
            porter.copy(f"{theirs}.conv_{HEAD_CONVS}.{kind}", f"{ours}.out.{kind}", divisor=scale)


def _leftover(porter: TensorPorter, dropped: set[str]) -> list[str]:
    """Check that unused parameters belong to tasks that the model leaves out."""
    decoders = tuple(f"decoders.{name}." for task in dropped for name in (task, M3VIT_TASKS.get(task, task)))
    wrong = [
        name
        for name in porter.tensors
        if name not in porter.taken
        and not name.endswith("num_batches_tracked")
        and not name.startswith(decoders)
        and not (dropped and re.search(r"\.gate\.\d+\.w_gate$", name))
    ]
    if wrong:
        raise EdgeMoEError(
            f"'{porter.path}' has parameters that the model has no place for: {listing(wrong)}."
        )
    return [f"tasks left out, as the preset lacks them: {', '.join(sorted(dropped))}."] if dropped else []
