# SPDX-License-Identifier: Apache-2.0
"""Frozen configurations, loaded from TOML presets; every number of a model comes from here.

Unknown keys, wrong types and illegal combinations raise :class:`EdgeMoEError` naming field,
value and rule. Imports no torch: the board reads configurations too.
"""

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from edge_moe.settings import packaged_names, read_toml, require
from edge_moe.tasks import TASKS
from edge_moe_host.config import from_dict, to_dict
from edge_moe_host.contract.manifest import config_hash
from edge_moe_host.errors import EdgeMoEError, listed

DENSE_SUFFIX = "_dense"


@dataclass(frozen=True)
class ModelConfig:
    """Shape of one M3ViT (Liang et al., NeurIPS 2022, section 3).

    A block is an MoE block when its index is odd and ``routing`` is not ``"dense"``.
    """

    image_size: tuple[int, int]  # (height, width) in pixels
    tasks: Mapping[str, int]  # task name -> output channels
    embed_dim: int
    num_heads: int
    depth: int
    patch_size: int = 16
    mlp_ratio: int = 4  # hidden width of a dense FFN, in embed_dim
    cls_token: bool = True
    routing: Literal["dense", "single_gate", "multi_gate", "task_conditioned"] = "multi_gate"
    num_experts: int = 16
    top_k: int = 2
    expert_ratio: int = 2  # hidden width of one expert, in embed_dim
    task_embed_dim: int = 64  # width of the task embedding of the task-conditioned gate
    gate_noise: float = 1.0  # standard deviation of the gate noise in training, in 1/num_experts
    head: Literal["pup", "edge"] = "edge"
    head_channels: int = 64
    depth_scale: float = 1.0  # metres for an output of 1 of the depth head
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # RGB in [0, 1]
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        def rule(condition: bool, name: str, text: str) -> None:
            require(condition, f"model.{name}", getattr(self, name), text)

        for name in ("embed_dim", "num_heads", "depth", "patch_size", "mlp_ratio", "head_channels"):
            rule(getattr(self, name) >= 1, name, "it must be at least 1")
        rule(len(self.image_size) == 2, "image_size", "it is [height, width]")
        whole = all(side > 0 and side % self.patch_size == 0 for side in self.image_size)
        sides = f"both sides must be positive multiples of patch_size {self.patch_size}"
        require(whole, "model.image_size", list(self.image_size), sides)
        heads = self.num_heads
        rule(self.embed_dim % heads == 0, "embed_dim", f"it must be a multiple of num_heads {heads}")
        rule(len(self.tasks) > 0, "tasks", "a model needs at least one task")
        for task, channels in self.tasks.items():
            require(task in TASKS, "model.tasks", task, f"the known tasks are {listed(TASKS, task)}")
            fixed = TASKS[task].channels
            require(
                channels == fixed if fixed else channels >= 2,
                f"model.tasks.{task}",
                channels,
                f"{task} has {fixed} channel(s)" if fixed else "it needs at least 2 classes",
            )
        if self.routing != "dense":
            for name in ("num_experts", "expert_ratio", "task_embed_dim"):
                rule(getattr(self, name) >= 1, name, "it must be at least 1")
            most = self.num_experts
            rule(1 <= self.top_k <= most, "top_k", f"it must be between 1 and num_experts {most}")
        rule(self.depth_scale > 0, "depth_scale", "it must be positive")
        rule(self.gate_noise >= 0, "gate_noise", "it must not be negative")
        for name in ("pixel_mean", "pixel_std"):
            rule(len(getattr(self, name)) == 3, name, "it needs one value per RGB channel")
        rule(min(self.pixel_std) > 0, "pixel_std", "values must be positive")

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches along (height, width)."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Tokens in the encoder, CLS included."""
        return math.prod(self.grid_size) + int(self.cls_token)

    @property
    def moe_blocks(self) -> tuple[int, ...]:
        """Indices of the MoE blocks."""
        return () if self.routing == "dense" else tuple(range(1, self.depth, 2))

    @property
    def shared_blocks(self) -> int:
        """Leading blocks whose work is the same for every task."""
        return self.moe_blocks[0] if self.moe_blocks and self.routing != "single_gate" else self.depth

    def dense_twin(self) -> Self:
        """The same model with dense FFNs of the same cost: top_k * expert_ratio wide."""
        width = self.mlp_ratio if self.routing == "dense" else self.top_k * self.expert_ratio
        require(
            width == self.mlp_ratio,
            "model.mlp_ratio",
            self.mlp_ratio,
            f"a dense twin of equal cost exists when it equals top_k * expert_ratio = {width}",
        )
        return dataclasses.replace(self, routing="dense")

    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON form."""
        return config_hash(to_dict(self))


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Epochs count passes over the training split."""

    epochs: int = 100
    batch_size: int = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["poly", "cosine"] = "poly"
    poly_power: float = 0.9
    warmup_steps: int = 0
    grad_clip: float = 0.0  # largest global gradient norm; 0: off
    ema_decay: float = 0.0  # 0: off; otherwise validation and the best checkpoint use the average
    step_mode: Literal["summed", "per_task"] = "summed"
    gradient_method: Literal["fixed", "pcgrad"] = "fixed"
    balance_weight: float = 0.01
    loss_weights: Mapping[str, float] = field(default_factory=dict)  # overrides tasks.TASKS
    amp: bool = True  # bfloat16 autocast on a GPU; ignored on a CPU
    flip: bool = True
    scales: tuple[float, ...] = (1.0,)  # zoom factors drawn from this set ...
    scale_range: tuple[float, float] = (1.0, 1.0)  # ... times a uniform factor from this range
    rotate: float = 0.0  # degrees; uniform in [-rotate, rotate]
    color_jitter: float = 0.0  # relative strength of brightness, contrast and saturation changes
    train_images: int = 4000  # scenes only: images in the training split
    val_images: int = 200  # scenes only
    workers: int = 0  # data loader processes
    seed: int = 0
    patience: int = 0  # stop after this many validations without improvement; 0: off

    def __post_init__(self) -> None:
        def rule(condition: bool, name: str, text: str) -> None:
            require(condition, f"train.{name}", getattr(self, name), text)

        for name in ("epochs", "batch_size", "train_images", "val_images"):
            rule(getattr(self, name) >= 1, name, "it must be at least 1")
        for name in ("momentum", "weight_decay", "warmup_steps", "grad_clip", "balance_weight", "rotate",
                     "workers", "color_jitter", "patience"):  # fmt: skip
            rule(getattr(self, name) >= 0, name, "it must not be negative")
        rule(self.lr > 0, "lr", "it must be positive")
        rule(0 <= self.seed < 2**63, "seed", "it must be within [0, 2^63)")
        rule(0 <= self.ema_decay < 1, "ema_decay", "it must be within [0, 1)")
        rule(bool(self.scales) and min(self.scales) > 0, "scales", "positive zoom factors")
        low, high = self.scale_range
        rule(0 < low <= high, "scale_range", "0 < low <= high")
        for task, weight in self.loss_weights.items():
            require(task in TASKS, "train.loss_weights", task, f"the known tasks are {listed(TASKS, task)}")
            require(weight > 0, f"train.loss_weights.{task}", weight, "it must be positive")

    def loss_weight(self, task: str) -> float:
        """Fixed weight of the task's loss."""
        return float(self.loss_weights.get(task, TASKS[task].loss_weight))


@dataclass(frozen=True)
class Preset:
    """A named model with its training recipe."""

    name: str
    model: ModelConfig
    train: TrainConfig = field(default_factory=TrainConfig)


def preset_names() -> list[str]:
    """Names that :func:`load_preset` accepts, dense twins included."""
    return [name for base in packaged_names("presets") for name in (base, base + DENSE_SUFFIX)]


def load_preset(name_or_path: str, overrides: Sequence[str] = ()) -> Preset:
    """Load a preset by name, its dense twin (``NAME_dense``), or a TOML file of the same form.

    ``overrides`` are ``section.key=value`` strings with TOML values, such as ``train.lr=1e-3``
    or ``model.routing="single_gate"`` (quotes may be left out).
    """
    known = preset_names()
    dense = name_or_path in known and name_or_path.endswith(DENSE_SUFFIX)
    base = name_or_path.removesuffix(DENSE_SUFFIX) if dense else name_or_path
    data = read_toml(base, "preset", "presets", known)
    if not name_or_path.endswith(".toml"):
        data["name"] = name_or_path
    preset = preset_from({"name": Path(name_or_path).stem} | data, overrides)
    return dataclasses.replace(preset, model=preset.model.dense_twin()) if dense else preset


def preset_from(data: dict[str, Any], overrides: Sequence[str] = ()) -> Preset:
    """The preset of plain data, which the overrides of :func:`load_preset` change first."""
    for override in overrides:
        _apply_override(data, override)
    preset: Preset = from_dict(Preset, data)
    return preset


def to_toml(preset: Preset) -> str:
    """The whole preset as a file that :func:`load_preset` reads back."""
    lines = [f"name = {json.dumps(preset.name)}"]
    for section in ("model", "train"):
        values = to_dict(getattr(preset, section))
        tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
        lines.append(f"\n[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in tables]
        for name, table in tables.items():
            lines.append(f"\n[{section}.{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or len(parts) < 2:
        raise EdgeMoEError(f"override '{override}' is not of the form section.key=value.")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    node = data
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise EdgeMoEError(f"override '{override}': '{part}' is a value, not a section.")
    node[parts[-1]] = value
