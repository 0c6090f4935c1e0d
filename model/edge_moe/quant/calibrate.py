# SPDX-License-Identifier: Apache-2.0
"""Run the float model on calibration images and choose every activation scale.

Encoder weights and scales serve all tasks, so the values of all tasks are pooled. Rows of the
inputs of every linear layer are kept for rounding, bias correction and bit widths.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_moe.config import ModelConfig
from edge_moe.info import HEAD_CONVS
from edge_moe.nn import M3ViT
from edge_moe.nn.block import FFNWeights
from edge_moe.quant.observers import STEPS, SYMMETRIC_STEPS, Values, observe, observe_magnitude
from edge_moe.quant.options import QuantOptions
from edge_moe.quant.scales import SMALLEST_SHARE, Scales, snap
from edge_moe_host.errors import EdgeMoEError

MAX_ROWS = 8192  # kept per tensor
MAX_VALUES = 2**28  # kept for all tensors together
HEAD_ROOM = 2.0  # int16 has bits to spare; other images may exceed the sample by this factor
FEWEST_ROWS = 64  # an expert with fewer rows is calibrated on all rows of its block
BATCH = 4
RESIDUAL = ("patch_embedding", ".proj", ".ffn")  # ends of the names of the residual stream
RESIDUAL_SHARE, WINDOW_SHARE = 16, 4  # they keep this fraction of the other tensors' number of rows


@dataclass(frozen=True)
class Calibration:
    """Observations on the calibration images.

    ``values``: tensor name (:meth:`edge_moe.nn.M3ViT.forward`) -> sampled rows and extremes;
    rows of ``block{i}.norm2``, ``.gate.expert`` and ``.gate.score`` belong together. ``usage``: task ->
    int64 [MoE blocks, experts], tokens times top-k sent to each expert. ``images``: uint8 [n, H, W, 3].
    """

    scales: Scales
    values: Mapping[str, Values]
    usage: Mapping[str, np.ndarray]
    images: np.ndarray

    def routed(self, block: int, expert: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows [n, D] of norm2, scores [n]) for the calibration of ``expert``: those sent to it, or all."""
        chosen = self.values[f"block{block}.gate.expert"].rows
        scores = self.values[f"block{block}.gate.score"].rows
        rows = self.values[f"block{block}.norm2"].rows
        hit = chosen == expert
        taken = hit.any(1)
        if taken.sum() < FEWEST_ROWS:
            return rows, scores.mean(1)
        return rows[taken], (scores * hit).sum(1)[taken]


class Recorder:
    """Keeps sampled rows and exact extremes of every tensor that a trace names."""

    def __init__(self, cfg: ModelConfig, images: int) -> None:
        per_row = (6 + cfg.mlp_ratio) * cfg.embed_dim * cfg.depth  # upper bound of a token's kept values
        rows = min(MAX_ROWS, MAX_VALUES // per_row)
        self.quota = max(1, rows // (images * len(cfg.tasks)))  # rows of one image in one call
        self.rows: dict[str, list[np.ndarray]] = {}
        self.low: dict[str, np.ndarray] = {}
        self.high: dict[str, np.ndarray] = {}

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """Add one batch [B, n, C], or 3x3 windows of a map [B, C, h, w]; gives the tensor back.

        Tensors with equally many rows are sampled at the same rows.
        """
        if value.ndim == 4:
            tokens, rows = value.flatten(2).transpose(1, 2), self._windows(value)
        else:
            share = RESIDUAL_SHARE if name.endswith(RESIDUAL) else 1
            kept = _spread(value.shape[1], max(self.quota // share, 1))
            tokens, rows = value, value[:, kept].flatten(0, 1).numpy()
        self.rows.setdefault(name, []).append(rows)
        low, high = tokens.amin((0, 1)).numpy(), tokens.amax((0, 1)).numpy()
        self.low[name] = np.minimum(self.low.get(name, low), low)
        self.high[name] = np.maximum(self.high.get(name, high), high)
        return value

    def _windows(self, x: Tensor) -> np.ndarray:
        """float32 [rows, 9 C] in the order row, column, channel; zeros outside the map."""
        h, w = x.shape[2:]
        kept = _spread(h * w, max(self.quota // WINDOW_SHARE, 1))
        row, column = kept // w, kept % w
        padded = F.pad(x, (1, 1, 1, 1))
        taps = [padded[:, :, row + dy, column + dx] for dy in range(3) for dx in range(3)]  # [B, C, kept]
        return torch.cat(taps, dim=1).transpose(1, 2).flatten(0, 1).numpy()

    def values(self) -> dict[str, Values]:
        """All tensors by name; the recorder is empty afterwards."""
        names = list(self.rows)  # each batch is freed when joined: batches take most of the memory
        return {n: Values(np.concatenate(self.rows.pop(n)), self.low[n], self.high[n]) for n in names}


def _spread(count: int, quota: int) -> Tensor:
    """Indices of at most ``quota`` of ``count`` rows, evenly spread."""
    return torch.linspace(0, count - 1, min(quota, count)).round().long()


@torch.inference_mode()
def calibrate(model: M3ViT, images: Iterable[np.ndarray], options: QuantOptions) -> Calibration:
    """Scales of every activation of ``model`` from uint8 pictures [H, W, 3] of its image size.

    Uses the first ``options.images`` of them, all tasks, evaluation mode. Raises EdgeMoEError without
    pictures, for a picture of another size, and for activations that are not finite.
    """
    pictures = _pictures(images, model.cfg, options.images)
    recorder = Recorder(model.cfg, len(pictures))
    shape = len(model.cfg.moe_blocks), model.cfg.num_experts
    usage = {task: np.zeros(shape, np.int64) for task in model.cfg.tasks}
    training = model.training
    model.eval()
    try:
        for start in range(0, len(pictures), BATCH):
            batch = torch.from_numpy(pictures[start : start + BATCH]).permute(0, 3, 1, 2)
            for task, routing in model(batch, keep=recorder).routing.items():
                for counts, block in zip(usage[task], model.cfg.moe_blocks, strict=True):
                    counts += np.bincount(routing[block].expert.flatten(), minlength=len(counts))
    finally:
        model.train(training)
    values = recorder.values()
    partial = Calibration({}, values, usage, pictures)
    scales = snap(_choose_scales(model, partial, options), model.cfg)
    return Calibration(scales, values, usage, pictures)


def _pictures(images: Iterable[np.ndarray], cfg: ModelConfig, limit: int) -> np.ndarray:
    pictures = list(itertools.islice(images, limit))
    for number, image in enumerate(pictures):
        if image.dtype != np.uint8 or image.shape != (*cfg.image_size, 3):
            raise EdgeMoEError(
                f"calibration image {number} is {image.dtype} {list(image.shape)}: "
                f"this model needs uint8 {[*cfg.image_size, 3]}."
            )
    if not pictures:
        raise EdgeMoEError("there is no calibration image: quantisation needs at least one.")
    return np.stack(pictures)


def _choose_scales(model: M3ViT, calibration: Calibration, options: QuantOptions) -> Scales:
    values, cfg = calibration.values, model.cfg
    scales: Scales = {}
    stream = [values["patch_embedding"]]  # in the residual stream's unit
    for index in range(cfg.depth):
        name = f"block{index}"
        for norm in ("norm1", "norm2"):
            low, high = observe(values[f"{name}.{norm}"], options)
            scales[f"{name}.{norm}"] = _positive((high - low) / STEPS)
            # the middle of [-128, 127] is -1/2
            scales[f"{name}.{norm}.offset"] = (low + high) / 2 + scales[f"{name}.{norm}"] / 2
        q, k, v = (_part(values[f"{name}.qkv"], part) for part in range(3))
        scales[f"{name}.q"] = _symmetric(q.pooled(cfg.num_heads), options)
        scales[f"{name}.k"] = _symmetric(k.pooled(cfg.num_heads), options)
        scales[f"{name}.v"] = _symmetric(v, options)
        scales[f"{name}.attention"] = _symmetric(values[f"{name}.attention"], options)
        stream += [values[f"{name}.proj"], values[f"{name}.ffn"]]
    stream += _hidden_scales(model, calibration, options, scales)
    for task in cfg.tasks:
        name = f"head.{task}"
        scales[f"{name}.norm"] = _symmetric(values[f"{name}.norm"], options)
        for stage in range(HEAD_CONVS[cfg.head]):
            high = observe(values[f"{name}.conv{stage}"].pooled(1), options)[1]
            scales[f"{name}.conv{stage}"] = _positive(high / STEPS)[0]
        scales[f"{name}.out"] = _int16_scale([values[f"{name}.out"]])
    scales["residual"] = _int16_scale(stream)
    return scales


def _part(values: Values, part: int) -> Values:
    """q, k or v of the values of qkv."""
    width = len(values.low) // 3
    taken = slice(part * width, (part + 1) * width)
    return Values(values.rows[:, taken], values.low[taken], values.high[taken])


def _positive(scale: np.ndarray) -> np.ndarray:
    """Scales in which hardly varying channels get a small share of the largest, constant tensors 1."""
    largest = scale.max(initial=0)
    return np.maximum(scale, largest * SMALLEST_SHARE) if largest > 0 else np.ones_like(scale)


def _symmetric(values: Values, options: QuantOptions) -> np.ndarray:
    return _positive(observe_magnitude(values, options) / (SYMMETRIC_STEPS / 2))


def _int16_scale(values: list[Values]) -> np.ndarray:
    """Scale of int16 values, min-max with head-room."""
    largest = max(float(max(-part.low.min(), part.high.max())) for part in values)
    if not math.isfinite(largest):
        raise EdgeMoEError("an activation is NaN or infinite: the weights are damaged or training diverged.")
    return np.array(HEAD_ROOM * largest / (2**15 - 1) if largest > 0 else 1.0)


def _hidden_scales(
    model: M3ViT, calibration: Calibration, options: QuantOptions, scales: Scales
) -> list[Values]:
    """Add scale and zero point after every GELU, 0 exact; the results of the experts before the score."""
    results = []
    for index in range(model.cfg.depth):
        for expert, (name, weights) in enumerate(model.block(index).ffns().items()):
            if index in model.cfg.moe_blocks:
                rows = ffn_hidden(weights, torch.from_numpy(calibration.routed(index, expert)[0]))
                hidden, result = _values_of(rows), _values_of(F.linear(rows, *weights[2:]))
                results.append(result)
            else:
                hidden = calibration.values[f"{name}.hidden"]
            low, high = observe(hidden.pooled(1), options)
            low, high = np.minimum(low, 0), np.maximum(high, 0)
            scale = _positive((high - low) / STEPS)[0]
            scales[f"{name}.hidden"] = scale
            scales[f"{name}.hidden.zero_point"] = np.clip(np.round(-128 - low[0] / scale), -128, 127)
    return results


def _values_of(rows: Tensor) -> Values:
    array = rows.numpy()
    return Values(array, array.min(0), array.max(0))


def thinned(rows: np.ndarray, limit: int) -> np.ndarray:
    """At most ``limit`` of the rows, evenly spread."""
    return rows[_spread(len(rows), limit).numpy()]


def ffn_hidden(weights: FFNWeights, rows: Tensor) -> Tensor:
    """GELU(fc1) of a dense FFN or one expert on rows [n, D]."""
    return F.gelu(F.linear(rows, *weights[:2]))
