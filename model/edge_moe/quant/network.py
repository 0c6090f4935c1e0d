# SPDX-License-Identifier: Apache-2.0
"""A whole integer network: its constants, the proof that int32 suffices, and its execution."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_moe.config import ModelConfig
from edge_moe.tasks import TASKS
from edge_moe_host.contract.layout import (
    ACCUMULATOR_LIMIT,
    EPSILON_LIMIT,
    GATE_WEIGHT_LIMIT,
    MAX_TOP_K,
    MULTIPLIER_LIMIT,
    NORM_SHIFT_LIMIT,
    TOKEN_LIMIT,
)
from edge_moe_host.errors import EdgeMoEError, listed
from edge_moe_host.golden import operators as op
from edge_moe_host.golden.operators import FFN, Attention, Gate, LayerNorm, Linear
from edge_moe_host.golden.trace import Trace

SPREAD_LIMIT = 2**52  # of D**2 * variance + epsilon in LayerNorm
FACTOR_LIMIT = 64  # from a head's integers to full size: (2 * 64)**2 of them fit int32
CLASS_LIMIT = 256  # a class map is uint8


@dataclass(frozen=True)
class Block:
    """One encoder block: ``ffn`` if it is dense; ``gates`` (task -> gate) and ``experts`` if it is MoE.

    ``expert_ids`` are the experts' indices in the model, which differ from their places here after
    unused experts were dropped.
    """

    norm1: LayerNorm
    attention: Attention
    norm2: LayerNorm
    ffn: FFN | None = None
    gates: Mapping[str, Gate] = field(default_factory=dict)
    experts: tuple[FFN, ...] = ()
    expert_ids: tuple[int, ...] = ()

    @property
    def ffns(self) -> tuple[FFN, ...]:
        """The dense FFN alone, or all experts."""
        return self.experts if self.ffn is None else (self.ffn,)


@dataclass(frozen=True)
class Head:
    """LayerNorm, 3x3 convolutions with x2 upsampling between them, 1x1 to int16 in steps of ``scale``."""

    norm: LayerNorm
    convs: tuple[Linear, ...]
    out: Linear
    scale: float


@dataclass(frozen=True)
class IntegerNetwork:
    """All integer constants of one model, for one task or several that share encoder weights.

    ``scales``: name of an intermediate -> value of one unit, for reports and float forms; no integer
    result depends on it. The residual stream's is ``scales["residual"]``.
    """

    config: ModelConfig
    patch: Linear
    position: np.ndarray  # int16 [N, D]
    blocks: tuple[Block, ...]
    heads: Mapping[str, Head]
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that this network computes."""
        return tuple(self.heads)

    @property
    def expert_bits(self) -> dict[int, tuple[int, ...]]:
        """MoE block -> bits of the weights of each of its experts."""
        blocks = enumerate(self.blocks)
        return {index: tuple(e.fc1.bits for e in block.experts) for index, block in blocks if block.experts}

    def path(self, task: str) -> "IntegerNetwork":
        """The part that ``task`` needs: shared blocks, its gates, its head. EdgeMoEError for another task."""
        if task not in self.heads:
            raise EdgeMoEError(f"task '{task}' is not in this network: it has {listed(self.heads, task)}.")
        blocks = tuple(
            dataclasses.replace(block, gates={task: block.gates[task]}) if block.gates else block
            for block in self.blocks
        )
        return dataclasses.replace(self, blocks=blocks, heads={task: self.heads[task]})


Keep = Callable[[str, np.ndarray], np.ndarray]  # receives an intermediate by its name


def _ignore(name: str, value: np.ndarray) -> np.ndarray:
    return value


@dataclass(frozen=True)
class NetworkOutput:
    """``raw``: the head's int16 [B, h*w, C]; ``output``: the result for each pixel
    (:func:`edge_moe_host.golden.operators.task_output`)."""

    raw: np.ndarray
    output: np.ndarray


def head_grid(config: ModelConfig, convs: int) -> tuple[int, int, int]:
    """(height, width, factor to full size) of a head's integers after ``convs`` convolutions."""
    height, width = config.grid_size
    factor = config.patch_size >> (convs - 1)
    if factor << (convs - 1) != config.patch_size or factor > FACTOR_LIMIT:
        raise EdgeMoEError(
            f"model.patch_size = {config.patch_size} is not allowed: a head with {convs} convolutions "
            f"needs a multiple of {1 << (convs - 1)} up to {FACTOR_LIMIT << (convs - 1)}."
        )
    return height << (convs - 1), width << (convs - 1), factor


def run_network(
    network: IntegerNetwork, images: np.ndarray, task: str, trace: Trace | None = None
) -> NetworkOutput:
    """Run one task on uint8 RGB images [B, H, W, 3]; ``trace`` receives every intermediate by name.

    Raises EdgeMoEError for an unknown task or images of another shape or type.
    """
    network = network.path(task)
    expected = (*network.config.image_size, 3)
    if images.dtype != np.uint8 or images.shape[1:] != expected or not len(images):
        raise EdgeMoEError(
            f"images are {images.dtype} {list(images.shape)}: this network takes uint8 "
            f"[batch, {', '.join(map(str, expected))}]."
        )
    keep = trace or _ignore
    x = op.patch_embedding(images, network.patch, network.position, network.config.patch_size)
    keep("patch_embedding", x)
    for index, block in enumerate(network.blocks):
        x = run_block(block, x, task, keep, f"block{index}")
    return run_head(network.heads[task], x, task, network.config, keep)


def run_block(
    block: Block, x: np.ndarray, task: str, keep: Keep = _ignore, name: str = "block"
) -> np.ndarray:
    """Residual stream int16 [B, N, D] through one block."""
    normed = keep(f"{name}.norm1", op.layernorm(x, block.norm1))
    qkv = keep(f"{name}.qkv", op.linear(normed, block.attention.qkv))
    mixed = keep(f"{name}.attention", op.attention(qkv, block.attention))
    x = keep(f"{name}.proj", op.linear_residual(mixed, block.attention.proj, x))
    normed = keep(f"{name}.norm2", op.layernorm(x, block.norm2))
    if block.ffn is not None:
        hidden = keep(f"{name}.hidden", op.linear_gelu(normed, block.ffn))
        return np.asarray(keep(f"{name}.ffn", op.linear_residual(hidden, block.ffn.fc2, x)))
    gate = block.gates[task]
    logits = keep(f"{name}.gate.logits", op.gate_logits(normed, gate))
    expert, score = op.route(logits, gate)
    keep(f"{name}.gate.expert", expert)
    keep(f"{name}.gate.score", score)
    combined = op.experts(normed, expert, score, block.experts)
    return np.asarray(keep(f"{name}.ffn", op.residual_add(x, combined)))


def run_head(
    head: Head, x: np.ndarray, task: str, config: ModelConfig, keep: Keep = _ignore
) -> NetworkOutput:
    """Residual stream int16 [B, N, D] through one task's head."""
    height, width = config.grid_size
    y = keep("head.norm", op.layernorm(x, head.norm, skip=int(config.cls_token)))
    pad = 0
    for stage, conv in enumerate(head.convs):
        if stage:
            y = keep(f"head.upsample{stage}", op.upsample2x(y, height, width))
            height, width = 2 * height, 2 * width
        y = keep(f"head.conv{stage}", op.conv3x3(y, conv, height, width, pad))
        pad = -128
    raw = keep("head.out", op.linear_int16(y, head.out))
    factor = head_grid(config, len(head.convs))[2]
    output = keep("output", op.task_output(raw, height, width, factor, TASKS[task].kind == "classes"))
    return NetworkOutput(raw, output)


def check_network(network: IntegerNetwork) -> None:
    """Prove from the constants that every number has the width that SPEC.md states.

    Above all, no accumulator may exceed int32. EdgeMoEError names a layer that breaks a limit.
    """
    tokens = network.config.num_tokens
    _check(tokens <= TOKEN_LIMIT, "attention", f"{tokens} tokens, at most {TOKEN_LIMIT} are supported")
    _check_linear("patch_embedding", network.patch)
    for index, block in enumerate(network.blocks):
        name = f"block{index}"
        for part, norm in (("norm1", block.norm1), ("norm2", block.norm2)):
            _check_norm(f"{name}.{part}", norm)
        attention = block.attention
        _check_linear(f"{name}.qkv", attention.qkv)
        _check_requantise(f"{name}.attention", attention.logit_multiplier, attention.logit_shift)
        _check_requantise(f"{name}.attention", attention.out_multiplier, attention.out_shift)
        _check_linear(f"{name}.proj", attention.proj)
        for place, ffn in enumerate(block.ffns):
            _check_ffn(name if block.ffn is not None else f"{name}.expert{place}", ffn)
        for task, gate in block.gates.items():
            _check_gate(f"{name}.gate.{task}", gate)
    for task, head in network.heads.items():
        _check_norm(f"head.{task}.norm", head.norm)
        for stage, conv in enumerate(head.convs):
            _check_linear(f"head.{task}.conv{stage}", conv)
        _check_linear(f"head.{task}.out", head.out)
        channels = len(head.out.weight)
        _check(
            TASKS[task].kind != "classes" or channels <= CLASS_LIMIT,
            f"head.{task}.out",
            f"{channels} classes, at most {CLASS_LIMIT} are supported",
        )


def _check(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise EdgeMoEError(f"layer '{where}' cannot be computed exactly: {what}.")


def _check_linear(where: str, layer: Linear) -> None:
    limit = 2 ** (layer.bits - 1) - 1
    _check(2 <= layer.bits <= 8, where, f"weights of {layer.bits} bits, where 2 to 8 are supported")
    _check(
        np.abs(layer.weight.astype(np.int64)).max(initial=0) <= limit,
        where,
        f"a weight exceeds {limit}, the largest of {layer.bits} bits",
    )
    _check_requantise(where, layer.multiplier, layer.shift)
    _check_accumulator(where, layer.weight.reshape(len(layer.weight), -1), layer.bias)


def _check_requantise(where: str, multiplier: np.ndarray | int, shift: int) -> None:
    values = np.asarray(multiplier)
    _check(values.min(initial=0) >= 0, where, f"a multiplier is negative: {values.min(initial=0)}")
    _check(values.max(initial=0) <= MULTIPLIER_LIMIT, where, f"a multiplier exceeds {MULTIPLIER_LIMIT}")
    _check(1 <= shift <= 47, where, f"shift {shift} is not in [1, 47]")


def _check_ffn(where: str, ffn: FFN) -> None:
    _check_linear(f"{where}.fc1", ffn.fc1)
    _check_requantise(f"{where}.hidden", ffn.gelu_multiplier, ffn.gelu_shift)
    _check(-128 <= ffn.zero_point <= 127, f"{where}.hidden", f"zero point {ffn.zero_point} is not int8")
    _check_linear(f"{where}.fc2", ffn.fc2)


def _check_gate(where: str, gate: Gate) -> None:
    _check(
        np.abs(gate.weight.astype(np.int64)).max(initial=0) <= GATE_WEIGHT_LIMIT,
        where,
        f"a weight exceeds {GATE_WEIGHT_LIMIT}",
    )
    _check_requantise(where, gate.multiplier, gate.shift)
    _check_accumulator(where, gate.weight, gate.bias)
    _check(gate.top_k <= MAX_TOP_K, where, f"top-{gate.top_k}, at most {MAX_TOP_K} are supported")


def _check_norm(where: str, norm: LayerNorm) -> None:
    _check(
        1 <= norm.shift <= NORM_SHIFT_LIMIT and 1 <= norm.epsilon <= EPSILON_LIMIT,
        where,
        f"shift {norm.shift} is not in [1, {NORM_SHIFT_LIMIT}] or epsilon {norm.epsilon} in "
        f"[1, {EPSILON_LIMIT}]",
    )
    largest = (np.abs(norm.gamma.astype(np.int64)) * 2**15 + np.abs(norm.beta.astype(np.int64))).max()
    _check(bool(largest <= ACCUMULATOR_LIMIT), where, "gamma and beta may exceed 32 bits")
    # the largest D**2 * variance: half of the channels at each end of int16
    spread = (len(norm.gamma) * (2**16 - 1)) ** 2 // 4 + norm.epsilon
    _check(spread < SPREAD_LIMIT, where, f"D**2 * variance + epsilon may reach {spread}")


def _check_accumulator(where: str, weight: np.ndarray, bias: np.ndarray) -> None:
    worst = 128 * np.abs(weight.astype(np.int64)).sum(1) + np.abs(bias.astype(np.int64))
    _check(
        worst.max(initial=0) <= ACCUMULATOR_LIMIT, where, f"the accumulator may reach {worst.max(initial=0)}"
    )
