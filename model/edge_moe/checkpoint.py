# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: written whole or not at all, read without running code from the file.

A checkpoint is a torch zip archive of one plain dict: ``format``, ``version``, ``preset``
(:func:`edge_moe.config.to_dict`), ``data`` (specification), ``model`` (state dict), ``ema`` (state
dict or None), ``optimizer`` (state dict or None), ``step`` and ``epoch`` (both completed),
``validated``, ``val_every``, ``metrics``, ``best`` and, after fine-tuning with fake quantisation,
``quantisation`` (:meth:`edge_moe.quant.fake.FakeQuantiser.to_plain`). It holds no random state: every draw in
training is a function of seed, step and rank.
"""

import io
import pickle
import shlex
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_moe.config import Preset
from edge_moe.nn import M3ViT, build_model, check_weights, load_dense_weights
from edge_moe_host.config import from_dict, to_dict
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import kind, replacing, unreadable

FORMAT = "edge-moe-checkpoint"
VERSION = 1
LAST, BEST = "last.pt", "best.pt"  # files of a training run

Metrics = dict[str, dict[str, float]]
"""Validation result: task -> metric -> value."""

# A dense twin shares every other field of the model with the model it starts.
_MOE_FIELDS = ("routing", "num_experts", "top_k", "expert_ratio", "task_embed_dim")
# Fields that change how a model is trained, not which weights it has.
_TRAINING_ONLY = ("gate_noise",)
# Fields that change no number of the steps already done, but epochs those of the learning rate to come.
_RESUMABLE = ("workers", "epochs", "patience")


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a checkpoint file; see the module's docstring."""

    preset: dict[str, Any]
    model: dict[str, Tensor]
    ema: dict[str, Tensor] | None = None
    optimizer: dict[str, Any] | None = None
    data: str = ""
    step: int = 0
    epoch: int = 0
    validated: bool = False
    val_every: int = 1
    metrics: Metrics = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    quantisation: dict[str, Any] | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to use: the moving average if there is one."""
        return self.model if self.ema is None else self.ema


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` (see the module's docstring) atomically.

    Raises EdgeMoEError when it cannot be written; an older file at ``path`` is then untouched and
    no other file remains.
    """
    archive = io.BytesIO()  # in memory first: torch's writer must not meet an error of the disk
    torch.save({"format": FORMAT, "version": VERSION, **content}, archive)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(archive.getbuffer())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint to CPU tensors; EdgeMoEError if it is missing, cut short or not a checkpoint."""
    path = Path(path)
    require_file(path)
    check_archive(path, " or was not written by Edge-MoE")
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, KeyError, ValueError):
        raise EdgeMoEError(f"checkpoint '{path}' is damaged or was not written by Edge-MoE.") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise EdgeMoEError(f"checkpoint '{path}' was not written by Edge-MoE: it lacks the mark '{FORMAT}'.")
    if data.get("version") != VERSION:
        raise EdgeMoEError(
            f"checkpoint '{path}' has version {data.get('version')}, this program reads version {VERSION}."
        )
    known = Checkpoint.__dataclass_fields__
    try:
        return Checkpoint(**{key: value for key, value in data.items() if key in known})
    except TypeError:
        missing = next(key for key in ("preset", "model") if key not in data)
        raise EdgeMoEError(f"checkpoint '{path}' lacks its '{missing}' entry.") from None


def require_file(path: Path) -> None:
    """EdgeMoEError unless ``path`` is a file; a folder gets a sentence of its own."""
    found = kind(path)
    if found == "folder":
        raise EdgeMoEError(f"folder '{path}' holds neither {BEST} nor {LAST}: give a checkpoint file.")
    if found != "file":
        raise EdgeMoEError(f"checkpoint '{path}' does not exist.")


def is_checkpoint(path: Path) -> bool:
    """Whether a file has this project's mark, undamaged or not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(
                FORMAT.encode() in archive.read(name)
                for name in archive.namelist()
                if name.endswith("/data.pkl")
            )
    except (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zlib.error, zipfile.BadZipFile):
        return False


def check_archive(path: Path, otherwise: str = "") -> None:
    """EdgeMoEError when a torch zip archive is cut short or a file in it differs from its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:  # above all: the directory at the end is gone
        raise EdgeMoEError(
            f"checkpoint '{path}' is cut short{otherwise}: copy or download it again."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (EOFError, RuntimeError, NotImplementedError, ValueError, zlib.error) as error:
        damaged = str(error)
    if damaged is not None:
        raise EdgeMoEError(f"checkpoint '{path}' is damaged ({damaged}): copy or download it again.")


def load_model(path: Path) -> tuple[M3ViT, Preset, dict[str, Any]]:
    """Model in evaluation mode (float32, CPU), its preset, and the file's other entries.

    Uses the moving average if there is one. The other entries are ``step``, ``epoch``, ``data``,
    ``metrics`` and ``quantisation``. Raises EdgeMoEError for a file that is not a checkpoint of its preset.
    """
    checkpoint = load_checkpoint(path)
    preset: Preset = from_dict(Preset, checkpoint.preset)
    model = build_model(preset.model)
    load_weights(model, checkpoint.weights, path)
    meta = {key: getattr(checkpoint, key) for key in ("step", "epoch", "data", "metrics", "quantisation")}
    return model.eval(), preset, meta


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy a whole state dict into ``model``; EdgeMoEError names the first entry that does not fit."""
    check_weights(weights, model.state_dict(), f"checkpoint '{path}'")
    model.load_state_dict(dict(weights))


def initialise_from(model: M3ViT, path: Path) -> None:
    """Start ``model`` from a checkpoint of the same model, or of its dense twin.

    The dense twin's FFNs are copied into the experts (:func:`edge_moe.nn.load_dense_weights`).
    Raises EdgeMoEError naming the first field in which any other model differs.
    """
    checkpoint = load_checkpoint(path)
    saved: Preset = from_dict(Preset, checkpoint.preset)
    twin = saved.model.routing == "dense" != model.cfg.routing
    ignored = _TRAINING_ONLY + (_MOE_FIELDS if twin else ())
    difference = first_difference(to_dict(saved.model), to_dict(model.cfg), ignored)
    if difference is not None:
        field_name, theirs, ours = difference
        raise EdgeMoEError(
            f"checkpoint '{path}' is of another model: "
            f"model.{field_name} is {theirs!r} there and {ours!r} here."
        )
    if twin:
        load_dense_weights(model, checkpoint.weights)
    else:
        load_weights(model, checkpoint.weights, path)


def check_resumable(checkpoint: Checkpoint, preset: Preset, data: str, path: Path) -> None:
    """EdgeMoEError naming the first field that changed since ``checkpoint`` was written.

    ``train.workers``, ``epochs`` and ``patience`` may change, and the folder of a data set may have moved.
    """
    ours = to_dict(preset)
    for section, ignored in (("model", ()), ("train", _RESUMABLE)):
        difference = first_difference(checkpoint.preset[section], ours[section], ignored)
        if difference is not None:
            field_name, then, now = difference
            raise EdgeMoEError(
                f"cannot resume from '{path}': {section}.{field_name} was {then!r} and is now {now!r}; "
                f"continue as it was (edge-moe train --resume {shlex.quote(str(path.parent))}), or start in "
                "another folder."
            )
    if checkpoint.data.partition(":")[0] != data.partition(":")[0]:
        raise EdgeMoEError(
            f"cannot resume from '{path}': it was trained on '{checkpoint.data}', not on '{data}'."
        )
    if checkpoint.optimizer is None:
        raise EdgeMoEError(f"cannot resume from '{path}': it holds weights only; use it with --init.")


def first_difference(
    left: Mapping[str, Any], right: Mapping[str, Any], ignored: tuple[str, ...] = ()
) -> tuple[str, Any, Any] | None:
    """Dotted name and both values of the first entry in which two nested dicts differ."""
    for key in [*left, *(key for key in right if key not in left)]:
        if key in ignored:
            continue
        a, b = left.get(key), right.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            inner = first_difference(a, b)
            if inner is not None:
                return f"{key}.{inner[0]}", inner[1], inner[2]
            if list(a) != list(b):  # the order of tasks is part of a model
                return key, list(a), list(b)
        elif a != b:
            return key, a, b
    return None


def slim(path: Path, out: Path, half: bool = True) -> None:
    """Write only the weights of a checkpoint (the average if there is one), for distribution.

    With ``half``, weights of two or more dimensions become float16; biases, norms and batch-norm
    statistics stay float32, as they are few and of wide range. :func:`load_model` reads the file.
    """
    checkpoint = load_checkpoint(path)
    weights = {name: _halved(name, tensor) if half else tensor for name, tensor in checkpoint.weights.items()}
    kept = ("preset", "data", "step", "epoch", "validated", "metrics", "quantisation")
    save_checkpoint(out, {**{key: getattr(checkpoint, key) for key in kept}, "model": weights})


def _halved(name: str, tensor: Tensor) -> Tensor:
    if tensor.ndim < 2 or tensor.dtype != torch.float32:
        return tensor
    result = tensor.half()
    if not result.isfinite().all():
        raise EdgeMoEError(f"'{name}' holds values beyond float16 (largest {float(tensor.abs().max()):.3g}).")
    return result
