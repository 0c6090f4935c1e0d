# SPDX-License-Identifier: Apache-2.0
"""Names, shapes and exact values of the activation scales; multipliers for their ratios.

A scale is the value of one unit of an integer. ``D`` channels, ``h`` heads:

==============================================  ======  ==================================================
name                                            shape   meaning
==============================================  ======  ==================================================
residual                                        scalar  int16 residual stream, one for the whole model
block{i}.norm1, .norm1.offset (and norm2)       [D]     LayerNorm's result is scale * q + offset
block{i}.q, block{i}.k                          [h]     symmetric
block{i}.v                                      [D]     symmetric
block{i}.attention                              [D]     symmetric
block{i}.hidden, .hidden.zero_point             scalar  dense FFN after GELU: scale * (q - zero_point)
block{i}.expert{e}.hidden, .hidden.zero_point   scalar  the same for one expert
head.{task}.norm                                [D]     symmetric
head.{task}.conv{j}                             scalar  after ReLU: scale * (q + 128)
head.{task}.out                                 scalar  int16 output, in the unit of the model's prediction
==============================================  ======  ==================================================
"""

import math

import numpy as np

from edge_moe.config import ModelConfig
from edge_moe.info import HEAD_CONVS
from edge_moe.nn.block import LAYERNORM_EPS
from edge_moe_host.contract.layout import EPSILON_LIMIT, MULTIPLIER_LIMIT
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.arithmetic import GELU_FRACTION
from edge_moe_host.golden.operators import AVERAGE_FRACTION

Scales = dict[str, np.ndarray]

SHIFT_MIN, SHIFT_MAX = 1, 47
SMALLEST_SHARE = 1 / 256  # of the layer's largest: lower bound of a channel's scale or multiplier
HIDDEN_FLOOR = 2.0 ** -(GELU_FRACTION + 4)  # GELU's own step is 2**-10: finer scales gain nothing


def scale_shapes(cfg: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every scale of this model."""
    D, h = cfg.embed_dim, cfg.num_heads
    shapes: dict[str, tuple[int, ...]] = {"residual": ()}
    for index in range(cfg.depth):
        block = f"block{index}"
        for norm in ("norm1", "norm2"):
            shapes[f"{block}.{norm}"] = shapes[f"{block}.{norm}.offset"] = (D,)
        shapes |= {f"{block}.q": (h,), f"{block}.k": (h,), f"{block}.v": (D,), f"{block}.attention": (D,)}
        for hidden in hidden_names(cfg, index):
            shapes[hidden] = shapes[f"{hidden}.zero_point"] = ()
    for task in cfg.tasks:
        shapes[f"head.{task}.norm"] = (D,)
        for stage in range(HEAD_CONVS[cfg.head]):
            shapes[f"head.{task}.conv{stage}"] = ()
        shapes[f"head.{task}.out"] = ()
    return shapes


def hidden_names(cfg: ModelConfig, block: int) -> list[str]:
    """Names of the hidden activations of one block: the dense FFN's, or one for each expert."""
    if block in cfg.moe_blocks:
        return [f"block{block}.expert{expert}.hidden" for expert in range(cfg.num_experts)]
    return [f"block{block}.hidden"]


def check_scales(scales: Scales, cfg: ModelConfig) -> None:
    """EdgeMoEError naming the first scale that is missing, unknown, of another shape or not positive."""
    shapes = scale_shapes(cfg)
    for name, shape in shapes.items():
        if name not in scales:
            raise EdgeMoEError(f"scale '{name}' is missing: calibrate this model anew.")
        value = np.asarray(scales[name])
        if value.shape != shape:
            raise EdgeMoEError(
                f"scale '{name}' has shape {list(value.shape)}: this model needs {list(shape)}."
            )
        if name.endswith(".zero_point"):
            valid, rule = value == np.clip(np.round(value), -128, 127), "a whole number in [-128, 127]"
        elif name.endswith(".offset"):
            valid, rule = np.isfinite(value), "finite"
        else:
            valid, rule = np.isfinite(value) & (value > 0), "positive and finite"
        if not np.all(valid):
            raise EdgeMoEError(f"scale '{name}' holds {value[~valid].flat[0]}: it must be {rule}.")
    for name in scales:
        if name not in shapes:
            raise EdgeMoEError(f"scale '{name}' is unknown to this model: calibrate this model anew.")


def fixed_point(ratio: np.ndarray, name: str, shift_max: int = SHIFT_MAX) -> tuple[np.ndarray, int]:
    """int64 multipliers m and one shift n with m / 2**n about ``ratio``, m as large as int16 and n allow.

    No m is below 1/256 of the largest possible, which bounds its relative error to 1/256. ``name``
    is the layer, for the EdgeMoEError about a ratio beyond 16383.
    """
    largest = float(np.max(ratio))
    if not (math.isfinite(largest) and largest > 0):
        raise EdgeMoEError(f"layer '{name}' has a scale that is not positive: its weights are damaged.")
    # the largest n with largest * 2**n < limit + 1/2, so that the ratio m / 2**n gives m and n again
    shift = min(math.ceil(math.log2((MULTIPLIER_LIMIT + 0.5) / largest)) - 1, shift_max)
    if shift < SHIFT_MIN:
        raise EdgeMoEError(
            f"layer '{name}' maps its sums to integers {largest:.3g} times as large, where "
            f"{MULTIPLIER_LIMIT // 2} is the most: its output hardly varies next to its input."
        )
    multiplier = np.floor(np.asarray(ratio) * 2.0**shift + 0.5).astype(np.int64)
    floor = math.ceil(largest * 2.0**shift * SMALLEST_SHARE)
    return np.clip(multiplier, floor, MULTIPLIER_LIMIT), shift


def gelu_multiplier(scale: np.ndarray | float, name: str) -> tuple[int, int]:
    """Multiplier and shift from GELU's Q10 to hidden integers of ``scale``."""
    multiplier, shift = fixed_point(np.array(2.0**-GELU_FRACTION / float(scale)), name)
    return int(multiplier), shift


def average_multiplier(v: np.ndarray, attention: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """Multipliers [D] and shift from the average of V's integers in Q6 to the attention's integers."""
    return fixed_point(v / (2**AVERAGE_FRACTION * attention), name)


def snap(scales: Scales, cfg: ModelConfig) -> Scales:
    """The scales, with those of ``hidden`` and ``attention`` moved to exact values of their multipliers.

    Every other scale is exact already, since weights and biases absorb it. That of the residual stream is
    raised where LayerNorm's epsilon would exceed its limit. ``snap`` of its own
    result changes nothing. Raises the errors of :func:`check_scales`.
    """
    check_scales(scales, cfg)
    result = {name: np.asarray(value, dtype=np.float64) for name, value in scales.items()}
    least = cfg.embed_dim * math.sqrt(LAYERNORM_EPS / EPSILON_LIMIT)
    result["residual"] = np.maximum(result["residual"], least)
    for index in range(cfg.depth):
        name = f"block{index}.attention"
        v = result[f"block{index}.v"]
        multiplier, shift = average_multiplier(v, result[name], name)
        result[name] = v / 2**AVERAGE_FRACTION * (2.0**shift / multiplier)
        for hidden in hidden_names(cfg, index):
            m, n = gelu_multiplier(max(float(result[hidden]), HIDDEN_FLOOR), hidden)
            result[hidden] = np.array(2.0**-GELU_FRACTION * (2.0**n / m))
    return result
