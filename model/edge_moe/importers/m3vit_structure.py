# SPDX-License-Identifier: Apache-2.0
"""The model in an M3ViT checkpoint, from its parameter names and shapes alone."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from edge_moe.config import ModelConfig, Preset
from edge_moe.importers.assembly import listing
from edge_moe.importers.position import infer_grid
from edge_moe.tasks import TASKS
from edge_moe_host.errors import EdgeMoEError

HEAD_CONVS = 4  # 3x3 convolutions of the PUP decoder; number 4 is the 1x1 that follows
M3VIT_TASKS = {task: {"saliency": "sal"}.get(task, task) for task in TASKS}  # our name -> M3ViT's
_OUR_TASKS = {theirs: task for task, theirs in M3VIT_TASKS.items()}
_DEFAULT_HEAD_CHANNELS = 256  # of M3ViT's decoder; used when a checkpoint has none

_AFFINE = r"\.(weight|bias)"
_USED = re.compile(
    rf"(patch_embed\.proj{_AFFINE}|cls_token|pos_embed"
    rf"|blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.(fc1|fc2|experts\.(htoh4|h4toh))){_AFFINE}"
    r"|blocks\.\d+\.mlp\.gate\.(\d+\.)?w_gate"
    rf"|gate_task_represent\.(fc1|fc2|norm){_AFFINE}"
    rf"|decoders\.\w+\.(norm|conv_[0-4]|syncbn_fc_[0-3]){_AFFINE}"
    r"|decoders\.\w+\.syncbn_fc_[0-3]\.(running_mean|running_var|num_batches_tracked))"
)
# In M3ViT's checkpoints or those it starts from, but without effect on predictions.
_UNUSED = re.compile(
    rf"((head|head_dist|pre_logits|pre_logits\.fc|fc_norm|norm){_AFFINE}|dist_token"
    rf"|tam_model\d\..+|decoders\.\w+\.(output_level_\d|conv_seg){_AFFINE}"
    rf"|blocks\.\d+\.mlp\.gate\.(\d+\.)?(w_gate_aux|head{_AFFINE}))"
)

Gates = Literal["dense", "single_gate", "multi_gate", "task_conditioned"]


def canonical_names(
    path: Path, tensors: Mapping[str, Tensor], tasks: Mapping[str, int] | None
) -> tuple[dict[str, Tensor], list[str]]:
    """M3ViT's names, single-task ``decoder.`` as ``decoders.TASK.``, and notes.

    Names without effect are dropped and noted; unknown ones raise EdgeMoEError.
    """
    if any(name.startswith("decoder.") for name in tensors):
        if tasks is None or len(tasks) != 1:
            raise EdgeMoEError(
                f"'{path}' is a single-task checkpoint: give its one task, or a preset with one."
            )
        task = next(iter(tasks))
        tensors = {re.sub(r"^decoder\.", f"decoders.{task}.", name): tensors[name] for name in tensors}
    noisy = [name for name in tensors if name.endswith(("w_noise", "w_noise_aux"))]
    if noisy:
        raise EdgeMoEError(
            f"'{noisy[0]}' in '{path}' belongs to gates of type 'noisy', which renormalise their scores: "
            "only gates of type 'noisy_vmoe' can be imported."
        )
    unused = [name for name in tensors if _UNUSED.fullmatch(name)]
    used = {name: value for name, value in tensors.items() if name not in unused}
    unknown = [name for name in used if not _USED.fullmatch(name)]
    if unknown:
        raise EdgeMoEError(f"'{path}' has parameters that M3ViT does not have: {listing(unknown)}.")
    positions = used.get("pos_embed", torch.empty(0))
    rows = positions.shape[1] if positions.ndim == 3 else 0
    if "dist_token" in tensors and infer_grid(rows - 2) and not infer_grid(rows - 1):  # its position is row 1
        used["pos_embed"] = torch.cat([positions[:, :1], positions[:, 2:]], dim=1)
    return used, [f"not used by the model: {listing(unused)}."] if unused else []


def task_order(
    path: Path, tensors: Mapping[str, Tensor], preset: Preset | None, tasks: Mapping[str, int] | None
) -> dict[str, int]:
    """Tasks of the checkpoint with their channels, in the order of its gates.

    The order of the decoders in the file does not show it: old torch versions sorted them by name.
    """
    found: dict[str, int] = {}
    for name in tensors:
        if name.startswith("decoders."):
            raw = name.split(".")[1]
            task = _OUR_TASKS.get(raw, raw)
            if task not in TASKS:
                raise EdgeMoEError(
                    f"'{name}' in '{path}' is of an unknown task: the known ones are {', '.join(TASKS)}."
                )
            out = f"decoders.{raw}.conv_{HEAD_CONVS}.weight"
            if out not in tensors and preset is None and tasks is None:
                raise EdgeMoEError(
                    f"'{path}' lacks '{out}', which shows the channels of {task}: give a preset."
                )
            found[task] = len(tensors[out]) if out in tensors else 0
    if tasks is None:
        tasks = {task: found[task] for task in TASKS if task in found}
        if not tasks and preset:
            tasks = {task: preset.model.tasks[task] for task in TASKS if task in preset.model.tasks}
        if not tasks:
            raise EdgeMoEError(f"'{path}' has no decoders to show its tasks: give the tasks or a preset.")
    absent = [task for task in preset.model.tasks if task not in tasks] if preset else []
    if preset and absent:
        raise EdgeMoEError(
            f"'{path}' was trained on {', '.join(tasks)}: task '{absent[0]}' of preset '{preset.name}' "
            "is not among them."
        )
    return dict(tasks)


def gates_of(tensors: Mapping[str, Tensor]) -> Gates | None:
    """The routing that the names show; None if there are experts but no gate."""
    names = [name for name in tensors if name.endswith(".w_gate")]
    if not names:
        return None if any(".mlp.experts." in name for name in tensors) else "dense"
    if any(name.split(".")[-2].isdigit() for name in names):
        return "multi_gate"
    conditioned = any(name.startswith("gate_task_represent.") for name in tensors)
    return "task_conditioned" if conditioned else "single_gate"


def infer_config(
    path: Path,
    tensors: Mapping[str, Tensor],
    tasks: Mapping[str, int],
    num_heads: int | None,
    top_k: int | None,
    image_size: tuple[int, int] | None,
) -> tuple[ModelConfig, list[str]]:
    """The model configuration that the shapes show, and notes on assumptions."""

    def shape(name: str, ndim: int) -> tuple[int, ...]:
        if name not in tensors:
            raise EdgeMoEError(f"'{path}' lacks '{name}', which shows the model's shape: give a preset.")
        found = tuple(tensors[name].shape)
        if len(found) != ndim:
            raise EdgeMoEError(
                f"'{name}' in '{path}' has shape {list(found)}: it must have {ndim} dimensions."
            )
        return found

    def multiple(name: str, width: int) -> int:
        if width < D or width % D:
            raise EdgeMoEError(f"'{name}' in '{path}' is {width} wide: it must be a multiple of {D}.")
        return width // D

    if num_heads is None:
        raise EdgeMoEError(
            f"'{path}' does not show the number of attention heads: give a preset, or model.num_heads "
            "(M3ViT's own configurations have 3 for tiny, 12 for small and base)."
        )
    D, _, _, patch = shape("patch_embed.proj.weight", 4)
    cls_token = "cls_token" in tensors
    if image_size is None:
        patches = shape("pos_embed", 3)[1] - cls_token
        grid = infer_grid(patches)
        if grid is None:
            raise EdgeMoEError(
                f"the {patches} position embeddings in '{path}' are no 1:1, 4:3 or 2:1 grid: "
                "give model.image_size."
            )
        image_size = grid[0] * patch, grid[1] * patch
    fc1, htoh4 = "blocks.0.mlp.fc1.weight", "blocks.1.mlp.experts.htoh4.weight"
    mlp_ratio = multiple(fc1, shape(fc1, 2)[0])
    routing: Gates = gates_of(tensors) or "multi_gate"
    notes: list[str] = []
    experts, expert_ratio, task_width = 1, 1, 1
    if routing != "dense":
        experts, hidden, _ = shape(htoh4, 3)
        expert_ratio = multiple(htoh4, hidden)
        if top_k is None:
            top_k = max(1, min(experts, mlp_ratio // expert_ratio))
            notes.append(
                f"top-k, which a checkpoint does not show, is taken as {top_k}: the cost of a dense FFN."
            )
    if routing == "task_conditioned":
        task_width = shape("gate_task_represent.fc2.weight", 2)[0]
    widths = [len(value) for name, value in tensors.items() if re.search(r"\.conv_0\.weight$", name)]
    cfg = ModelConfig(
        image_size=image_size,
        tasks=MappingProxyType(dict(tasks)),
        embed_dim=D,
        num_heads=num_heads,
        depth=1 + max((_block(name) for name in tensors), default=-1),
        patch_size=patch,
        mlp_ratio=mlp_ratio,
        cls_token=cls_token,
        routing=routing,
        num_experts=experts,
        top_k=top_k or 1,
        expert_ratio=expert_ratio,
        task_embed_dim=task_width,
        head="pup",
        head_channels=widths[0] if widths else _DEFAULT_HEAD_CHANNELS,
    )
    return cfg, notes


def check_structure(
    path: Path, tensors: Mapping[str, Tensor], cfg: ModelConfig, order: Mapping[str, int]
) -> Gates:
    """Compare depth, MoE blocks, CLS, head and routing with the model; returns the source's routing."""
    deepest = max((_block(name) for name in tensors), default=-1)
    if deepest >= cfg.depth:
        raise EdgeMoEError(
            f"'{path}' has a block {deepest}, the model has {cfg.depth} blocks: give its preset."
        )
    moe = {_block(name) for name in tensors if re.search(r"\.mlp\.(experts|gate)\.", name)}
    dense = {_block(name) for name in tensors if re.search(r"\.mlp\.fc[12]\.", name)}
    for index in sorted(moe | dense):
        if index in moe and (index in dense or index % 2 == 0):
            raise EdgeMoEError(
                f"block {index} in '{path}' has experts or gates: "
                "MoE blocks are the odd ones, without dense FFN."
            )
        if (index in moe) != (index in cfg.moe_blocks):
            theirs, ours = ("experts", "a dense FFN") if index in moe else ("a dense FFN", "experts")
            hint = "" if moe else "; edge-moe import vit starts experts from the FFNs of a ViT or DeiT"
            raise EdgeMoEError(
                f"block {index} in '{path}' has {theirs}, the model {ours}: choose another preset{hint}."
            )
    positions = tensors.get("pos_embed")
    rows = positions.shape[1] if positions is not None and positions.ndim == 3 else 0
    if "cls_token" in tensors and not cfg.cls_token:
        raise EdgeMoEError(f"'{path}' has a cls_token, the model has none: set model.cls_token=true.")
    if "cls_token" not in tensors and cfg.cls_token and infer_grid(rows):
        raise EdgeMoEError(f"'{path}' has no cls_token, the model has one: set model.cls_token=false.")
    if cfg.head != "pup" and any(name.startswith("decoders.") for name in tensors):
        raise EdgeMoEError(
            f"'{path}' has M3ViT's PUP decoders, the model has '{cfg.head}' heads: "
            f"set model.head=pup and model.head_channels={_DEFAULT_HEAD_CHANNELS}."
        )
    gates = gates_of(tensors) or cfg.routing
    if gates != cfg.routing and (gates, cfg.routing) != ("single_gate", "multi_gate"):
        raise EdgeMoEError(
            f"'{path}' has routing '{gates}', the model '{cfg.routing}': set model.routing={gates}."
        )
    numbers = {int(found[1]) for name in tensors if (found := re.search(r"\.gate\.(\d+)\.w_gate$", name))}
    if numbers and max(numbers) + 1 != len(order):
        raise EdgeMoEError(
            f"'{path}' has {max(numbers) + 1} gates per block for {len(order)} tasks ({', '.join(order)}): "
            "give the tasks it was trained on, in the order of its gates."
        )
    return gates


def _block(name: str) -> int:
    """Block index of a parameter, -1 outside the blocks."""
    return int(name.split(".")[1]) if name.startswith("blocks.") else -1
