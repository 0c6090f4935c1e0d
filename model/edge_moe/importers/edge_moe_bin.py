# SPDX-License-Identifier: Apache-2.0
"""Edge-MoE's weight folder: one raw little-endian float32 file ``NAME.float32.bin`` per tensor.

Row 0 of ``pos_embed`` is the CLS token plus its position embedding, images are not normalised, and
attention logits are scaled by 1/8 = 1/sqrt(64). The format has no task heads: they are always
initialised. The published folder lacks the experts' weights (``htoh4_weight`` and
``h4toh_weight``), which therefore need ``allow_missing``.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from edge_moe.config import ModelConfig, Preset, load_preset
from edge_moe.importers.assembly import Imported, Porter, listing
from edge_moe_host import files
from edge_moe_host.errors import EdgeMoEError

DEFAULT_PRESET = "m3vit_tiny_cityscapes"  # the model whose dimensions Edge-MoE compiles in
HEAD_DIM = 64  # of the attention scale 1/8
_SUFFIX = ".float32.bin"


class _Folder(Porter):
    """A tensor may also have another size where it is allowed to be missing."""

    def __init__(self, path: Path, cfg: ModelConfig, allow_missing: bool) -> None:
        super().__init__(path, cfg)
        self.allow_missing = allow_missing
        self.names = {
            file.name.removesuffix(_SUFFIX) for file in files.visible(path) if file.name.endswith(_SUFFIX)
        }

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        file = self.path / f"{name}{_SUFFIX}"
        if name not in self.names:
            self.missing.append(file.name)
            return None
        data = files.read_bytes(file)
        expected, found = 4 * int(np.prod(shape)), len(data)
        if found != expected:
            if self.allow_missing:
                self.missing.append(f"{file.name} ({found} bytes instead of {expected})")
                return None
            raise EdgeMoEError(
                f"'{file}' has {found} bytes: float32 {list(shape)} needs {expected}; "
                "--allow-missing initialises it instead."
            )
        return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32)).reshape(shape)


def import_edge_moe_bin(
    folder: str | Path,
    *,
    preset: Preset | None = None,
    tasks: Mapping[str, int] | None = None,
    allow_missing: bool = False,
) -> Imported:
    """Import Edge-MoE's float32 weights (Sarkar et al., ICCAD 2023).

    preset: gives all dimensions, default ``m3vit_tiny_cityscapes``; its routing becomes one gate per
    task, its pixel mean 0 and deviation 1. tasks: task -> channels in the order task0, task1, ... of
    the gate files, default the preset's. allow_missing: initialise what is absent or wrongly sized.

    The heads are always in ``Imported.filled``; an ``image`` file, if any, in ``Imported.image``.
    Raises EdgeMoEError for a missing folder, missing or wrongly sized files, non-finite values, MoE
    files of even blocks or dense files of odd ones, and more gates than tasks.
    """
    path = Path(folder)
    if files.kind(path) != "folder":
        raise EdgeMoEError(f"folder '{path}' does not exist: give the folder with the {_SUFFIX} files.")
    base = preset or load_preset(DEFAULT_PRESET)
    cfg = _configure(base, base.model.tasks if tasks is None else tasks)
    source = _Folder(path, cfg, allow_missing)
    if not source.names:
        raise EdgeMoEError(f"folder '{path}' holds no file NAME{_SUFFIX}: give Edge-MoE's folder 'weights'.")
    _check_blocks(source, cfg)
    _copy(source, cfg)
    source.require(allow_missing)
    image = source.take("image", (3, *cfg.image_size)) if "image" in source.names else None
    state, filled = source.finish()
    notes = [
        f"the format has no task heads: those of {', '.join(cfg.tasks)} are initialised and need training."
    ]
    if source.missing:
        notes.append(f"missing and initialised: {', '.join(source.missing)}.")
    unused = sorted(source.names - source.taken)
    if unused:
        notes.append(f"not used: {listing([name + _SUFFIX for name in unused])}.")
    return Imported(dataclasses.replace(base, model=cfg), state, filled, notes, image)


def _configure(base: Preset, tasks: Mapping[str, int]) -> ModelConfig:
    cfg = base.model
    if cfg.embed_dim != HEAD_DIM * cfg.num_heads or not cfg.cls_token:
        raise EdgeMoEError(
            f"preset '{base.name}' does not fit Edge-MoE's format, which has a CLS token and {HEAD_DIM} "
            "values per attention head."
        )
    return dataclasses.replace(
        cfg,
        tasks=MappingProxyType(dict(tasks)),
        routing="multi_gate",
        pixel_mean=(0.0, 0.0, 0.0),
        pixel_std=(1.0, 1.0, 1.0),
    )


def _check_blocks(source: _Folder, cfg: ModelConfig) -> None:
    """MoE files belong to odd blocks, dense ones to even blocks, gates to known tasks."""
    for name in sorted(source.names):
        layer = re.match(r"l(\d+)_(w_gate|htoh4|h4toh|fc[12])", name)
        if not layer:
            continue
        index, file, moe = int(layer[1]), f"'{source.path / (name + _SUFFIX)}'", not layer[2].startswith("fc")
        if index >= cfg.depth:
            raise EdgeMoEError(
                f"{file} is of block {index}: the model has {cfg.depth} blocks; give its preset."
            )
        if moe != (index in cfg.moe_blocks):
            kind, place = ("an MoE", "even") if moe else ("a dense", "odd")
            raise EdgeMoEError(
                f"{file} makes block {index} {kind} block, but it is {place}: MoE blocks are the odd ones."
            )
        gate = re.fullmatch(r"l\d+_w_gate_T_task(\d+)", name)
        if gate and int(gate[1]) >= len(cfg.tasks):
            raise EdgeMoEError(
                f"{file} is the gate of task number {gate[1]}, but only {len(cfg.tasks)} tasks are given "
                f"({', '.join(cfg.tasks)}): name one per gate file, in their order."
            )


def _copy(source: _Folder, cfg: ModelConfig) -> None:
    source.copy_affine("patch_embed_", "patch_embed")
    source.copy("pos_embed", "pos_embed")
    source.put("cls_token", torch.zeros(1, 1, cfg.embed_dim))  # it is in row 0 of pos_embed
    linears = {"norm1": "norm1", "qkv": "attn.qkv", "attn_proj": "attn.proj", "norm2": "norm2"}
    for index in range(cfg.depth):
        moe = index in cfg.moe_blocks
        for theirs, ours in (linears if moe else linears | {"fc1": "ffn.fc1", "fc2": "ffn.fc2"}).items():
            source.copy_affine(f"l{index}_{theirs}_", f"blocks.{index}.{ours}")
        if not moe:
            continue
        for number, task in enumerate(cfg.tasks):
            source.copy(f"l{index}_w_gate_T_task{number}", f"blocks.{index}.ffn.gates.{task}.weight")
        for number, theirs in enumerate(("htoh4", "h4toh"), start=1):
            for kind in ("weight", "bias"):
                source.copy(f"l{index}_{theirs}_{kind}", f"blocks.{index}.ffn.experts.{kind}{number}")
