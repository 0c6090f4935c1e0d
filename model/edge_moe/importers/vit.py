# SPDX-License-Identifier: Apache-2.0
"""Backbones: a plain ViT or DeiT starts a model, and its FFNs start the experts.

Names are those of timm and of DeiT's own code; names of Hugging Face and torchvision are mapped to them.
Of a ViT all is used but its classifier. An MoE block is not the same function as the dense block that
it comes from, until all its gates' scores are equal (:func:`edge_moe.nn.load_dense_weights`).
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from edge_moe.checkpoint import initialise_from, is_checkpoint, require_file
from edge_moe.config import ModelConfig, Preset
from edge_moe.importers.assembly import FILL_SEED, Imported, TensorPorter, listing
from edge_moe.importers.tensor_file import read_state_dict
from edge_moe.nn import M3ViT, build_model, load_dense_weights
from edge_moe_host.errors import EdgeMoEError

HEAD_DIM = 64  # of one attention head in every published ViT and DeiT

# (names of Hugging Face or torchvision, timm's name), applied in this order
_RENAMED = (
    (r"^(vit|deit|dinov2)\.", ""),
    (r"^embeddings\.cls_token$|^class_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.position_embeddings$|^encoder\.pos_embedding$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.|^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.layers?\.(?:encoder_layer_)?(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.attention\.attention\.", r"\1.attn."),
    (r"^(blocks\.\d+)\.(?:attention\.output\.dense|self_attention\.out_proj)\.", r"\1.attn.proj."),
    (r"^(blocks\.\d+)\.self_attention\.in_proj_", r"\1.attn.qkv."),
    (r"^(blocks\.\d+)\.(?:intermediate\.dense|mlp\.(?:0|linear_1))\.", r"\1.mlp.fc1."),
    (r"^(blocks\.\d+)\.(?:output\.dense|mlp\.(?:3|linear_2))\.", r"\1.mlp.fc2."),
    (r"^(blocks\.\d+)\.(?:layernorm_before|ln_1)\.", r"\1.norm1."),
    (r"^(blocks\.\d+)\.(?:layernorm_after|ln_2)\.", r"\1.norm2."),
    (r"^(blocks\.\d+)\.layer_scale([12])\.lambda1$", r"\1.ls\2.gamma"),
    (r"^(?:layernorm|encoder\.ln)\.", "norm."),
    (r"^(blocks\.\d+\.attn)\.(q|k|v)(?:uery|ey|alue|_proj|_linear)?\.", r"\1.\2."),
)
_SPLIT = re.compile(r"(blocks\.\d+\.attn)\.[qkv]\.(weight|bias)")
_BLOCK = r"blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
_USED = re.compile(
    rf"cls_token|pos_embed|(patch_embed\.proj|norm)\.(weight|bias)|{_BLOCK}|blocks\.\d+\.ls[12]\.gamma"
)
# Parts of other transformers that come before the classifier: without them it is another function.
_ALIEN = ("blocks.", "patch_embed.", "norm_pre", "pos_", "rel_pos", "rope", "reg_token", "encoder.",
          "embeddings.register")  # fmt: skip


@dataclass(frozen=True)
class Backbone:
    """Weights under the names of the dense twin, without heads, and what to tell about them."""

    weights: dict[str, Tensor]
    notes: list[str]


def read_backbone(path: Path, preset: Preset, source_grid: tuple[int, int] | None = None) -> Backbone:
    """A ViT's weights for the model of ``preset``. source_grid: rows and columns of its position embeddings.

    Raises EdgeMoEError for another network, for other sizes than the model's, and for missing, unknown
    or non-finite parameters.
    """
    cfg = preset.model
    original = _canonical(path, read_state_dict(path))
    _check_sizes(path, original, preset)
    tensors, scaled = _folded(original)
    twin = dataclasses.replace(cfg, routing="dense")
    porter = TensorPorter(path, twin, tensors, f"preset '{preset.name}'")
    porter.copy_affine("patch_embed.proj.", "patch_embed")
    cls = cfg.cls_token and "cls_token" in tensors
    if cls:
        porter.copy("cls_token", "cls_token")
    leading = ("cls_token" in tensors) + ("dist_token" in tensors)
    # DeiT III, which has LayerScale, gives its CLS token no position
    resized = porter.positions([leading, 0] if scaled else [leading], source_grid)
    has_bias = any(name.endswith(".attn.qkv.bias") for name in tensors)
    for index in range(cfg.depth):
        for theirs, ours in (("norm1", "norm1"), ("attn.qkv", "attn.qkv"), ("attn.proj", "attn.proj"),
                             ("norm2", "norm2"), ("mlp.fc1", "ffn.fc1"), ("mlp.fc2", "ffn.fc2")):  # fmt: skip
            for kind in ("weight", "bias"):
                if theirs == "attn.qkv" and kind == "bias" and not has_bias:
                    porter.put(f"blocks.{index}.attn.qkv.bias", torch.zeros(3 * cfg.embed_dim))
                else:
                    porter.copy(f"blocks.{index}.{theirs}.{kind}", f"blocks.{index}.{ours}.{kind}")
    norm = "norm.weight" in tensors
    for task in cfg.tasks if norm else ():
        porter.copy_affine("norm.", f"heads.{task}.norm")
    gammas = [f"blocks.{index}.ls{part}.gamma" for index in range(cfg.depth) for part in (1, 2)]
    porter.missing += [name for name in gammas if scaled and name not in original]
    if porter.missing:
        raise EdgeMoEError(f"'{path}' lacks {listing(porter.missing)}: it is not a whole ViT.")
    ignored = [name for name in tensors if name not in porter.taken]
    loaded = ["patch embedding", *["CLS token"] * cls, "position embeddings", f"{cfg.depth} blocks"]
    random = ["CLS token"] if cfg.cls_token and not cls else []
    random += [*["gates"] * bool(cfg.moe_blocks), *["task embedding"] * (cfg.routing == "task_conditioned")]
    random.append(f"heads of {', '.join(cfg.tasks)}" + (" except their norms" if norm else ""))
    notes = [
        f"loaded: {', '.join(loaded)}{', the last norm as that of every head' if norm else ''}.",
        *resized,
        *(["LayerScale is folded into the projections before it: the same function."] if scaled else []),
        *([] if has_bias else ["no block has a qkv bias: it is zero."]),
        *_experts(cfg),
        f"left random: {', '.join(random)}.",
        f"ignored: {listing(ignored) if ignored else 'nothing'}.",
    ]
    if cfg.embed_dim != HEAD_DIM * cfg.num_heads and cfg.embed_dim % HEAD_DIM == 0:
        notes.append(
            f"published ViTs of width {cfg.embed_dim} have {cfg.embed_dim // HEAD_DIM} attention heads, the "
            f"model {cfg.num_heads}: set model.num_heads unless this ViT is another."
        )
    return Backbone(porter.taken_state(), notes)


def start_from_backbone(model: M3ViT, backbone: Backbone) -> None:
    """Copy a backbone into ``model``; heads and gates keep their values."""
    own = model.state_dict()
    if not model.cfg.moe_blocks:
        model.load_state_dict({**own, **backbone.weights})
        return
    with torch.device("meta"):  # names only
        names = build_model(dataclasses.replace(model.cfg, routing="dense")).state_dict()
    known = {**own, **backbone.weights}
    load_dense_weights(model, {name: known[name] for name in names})


def import_vit(
    path: str | Path,
    *,
    preset: Preset,
    tasks: Mapping[str, int] | None = None,
    source_grid: tuple[int, int] | None = None,
) -> Imported:
    """A model of ``preset`` that starts from a ViT or DeiT; ``tasks`` replace the preset's.

    See :func:`read_backbone` for errors. ``Imported.filled``: heads, and gates of an MoE model.
    """
    if tasks is not None:
        model_cfg = dataclasses.replace(preset.model, tasks=MappingProxyType(dict(tasks)))
        preset = dataclasses.replace(preset, model=model_cfg)
    backbone = read_backbone(Path(path), preset, source_grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FILL_SEED)
        model = build_model(preset.model)
    start_from_backbone(model, backbone)
    state = model.state_dict()
    filled = [
        name
        for name in state
        if name not in backbone.weights and ".experts." not in name and not name.endswith("_tracked")
    ]
    return Imported(preset, state, filled, backbone.notes)


def initialise(model: M3ViT, path: Path, preset: Preset) -> list[str]:
    """Start ``model``, that of ``preset``, from a checkpoint of this project or from a backbone.

    Returns sentences about a backbone. Raises EdgeMoEError when the file is of another model.
    """
    require_file(path)
    if is_checkpoint(path):
        initialise_from(model, path)
        return []
    backbone = read_backbone(path, preset)
    start_from_backbone(model, backbone)
    return backbone.notes


def _canonical(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's names, with fused qkv. EdgeMoEError for another network."""
    result: dict[str, Tensor] = {}
    for name, value in tensors.items():
        new = name
        for pattern, ours in _RENAMED:
            new = re.sub(pattern, ours, new)
        result[new] = value
    for block, kind in sorted({found.groups() for name in result if (found := _SPLIT.fullmatch(name))}):
        parts = [result.pop(f"{block}.{part}.{kind}", None) for part in "qkv"]
        if any(part is None or part.ndim != (2 if kind == "weight" else 1) for part in parts):
            raise EdgeMoEError(f"'{path}' lacks a part of the query, key and value {kind} of '{block}'.")
        result[f"{block}.qkv.{kind}"] = torch.cat([part for part in parts if part is not None])
    if any(".mlp.experts." in name or ".w_gate" in name for name in result):
        raise EdgeMoEError(
            f"'{path}' has experts, a ViT has none: convert it with edge-moe import m3vit, and start there."
        )
    if not {"patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "blocks.0.attn.qkv.weight"} <= set(result):
        raise EdgeMoEError(
            f"'{path}' is not a ViT or DeiT with names of timm, Hugging Face or torchvision: "
            f"it holds {listing(list(tensors))}."
        )
    alien = [name for name in result if name.startswith(_ALIEN) and not _USED.fullmatch(name)]
    if alien:
        raise EdgeMoEError(f"'{path}' has parameters that a plain ViT does not have: {listing(alien)}.")
    return result


def _check_sizes(path: Path, tensors: Mapping[str, Tensor], preset: Preset) -> None:
    patch, fc1 = tensors["patch_embed.proj.weight"], tensors["blocks.0.mlp.fc1.weight"]
    if patch.ndim != 4 or fc1.ndim != 2 or len(fc1) % len(patch):
        raise EdgeMoEError(
            f"'{path}' has a patch embedding of shape {list(patch.shape)} and an FFN of shape "
            f"{list(fc1.shape)}: a ViT's hidden width is a multiple of its width."
        )
    width = len(patch)
    sizes = {
        "embed_dim": width,
        "depth": 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
        "patch_size": patch.shape[-1],
        "mlp_ratio": len(fc1) // width,
    }
    wrong = {name: size for name, size in sizes.items() if getattr(preset.model, name) != size}
    if "embed_dim" in wrong and width % HEAD_DIM == 0:
        wrong["num_heads"] = width // HEAD_DIM
    if wrong:
        there = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise EdgeMoEError(
            f"'{path}' is a ViT of other sizes than preset '{preset.name}' ({there}): choose a preset of "
            f"these sizes, or {' '.join(f'--set model.{name}={size}' for name, size in wrong.items())}."
        )


def _folded(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """LayerScale x + gamma * (W y + b) as x + (gamma W) y + gamma b; whether there was any."""
    result = {name: value for name, value in tensors.items() if not name.endswith(".gamma")}
    for index, part in ((1, "attn.proj"), (2, "mlp.fc2")):
        for name, gamma in tensors.items():
            if name.endswith(f".ls{index}.gamma"):
                block = name.removesuffix(f".ls{index}.gamma")
                for kind in ("weight", "bias"):
                    target = f"{block}.{part}.{kind}"
                    if target in result and result[target].shape[:1] == gamma.shape:
                        column = gamma.float().view(-1, *[1] * (result[target].ndim - 1))
                        result[target] = result[target].float() * column
    return result, len(result) < len(tensors)


def _experts(cfg: ModelConfig) -> list[str]:
    if not cfg.moe_blocks:
        return []
    parts = cfg.mlp_ratio // cfg.expert_ratio
    cut = f"part e mod {parts} of {parts} equal parts" if parts > 1 else "all"
    return [
        f"experts: in blocks {', '.join(map(str, cfg.moe_blocks))}, expert e starts as {cut} of that block's "
        f"{cfg.mlp_ratio * cfg.embed_dim} hidden channels."
    ]
