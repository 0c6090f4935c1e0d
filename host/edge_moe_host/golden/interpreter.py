# SPDX-License-Identifier: Apache-2.0
"""Executes a bundle itself: instruction words, weight image, scratch memory. SPEC.md, sections 7 to 10.

Only the arithmetic is golden's. The graph is not used, so a result equal to golden's proves that packing,
addresses and schedule are right.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from edge_moe_host.contract import layout, scratch, weights
from edge_moe_host.contract.bundle import Bundle
from edge_moe_host.contract.isa import Epilogue, Instruction, Opcode
from edge_moe_host.contract.layout import TILE, tiles
from edge_moe_host.contract.opcodes import regions
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden import operators as op
from edge_moe_host.golden.operators import FFN, Attention, Gate, LayerNorm, Linear
from edge_moe_host.golden.trace import Trace

UNWRITTEN = 0xA5  # initial contents of the scratch memory: no result may depend on it

_NO_LINEAR = Linear(np.zeros((1, 1), np.int8), np.zeros(1, np.int32), np.zeros(1, np.int16), 1)
T = TypeVar("T")


def run_program(bundle: Bundle, task: str, images: np.ndarray, trace: Trace | None = None) -> np.ndarray:
    """Raw result of one task, int16 [B, h*w, C], or [h*w, C] for one image.

    ``images``: uint8 RGB [B, H, W, 3] or [H, W, 3]. ``trace`` receives every named intermediate as it is
    stored in the scratch memory. Raises EdgeMoEError for an unknown task or wrong images.
    """
    program = bundle.task(task)
    batch = images[None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or batch.ndim != 4 or list(batch.shape[1:]) != program.entry.image:
        raise EdgeMoEError(
            f"images are {images.dtype} {list(images.shape)}: task '{task}' of this bundle takes uint8 "
            f"[batch, {', '.join(map(str, program.entry.image))}]."
        )
    machine = _Machine(bundle, batch)
    for index, instruction in enumerate(program.instructions):
        machine.step(instruction)
        if trace is not None:
            for tensor in program.tensors_after.get(index, ()):
                trace(tensor.name, scratch.named(tensor, machine.scratch, scratch.int8, machine.logits))
    return machine.output[0] if images.ndim == 3 else machine.output


def task_output(bundle: Bundle, task: str, raw: np.ndarray) -> np.ndarray:
    """golden's task_output of int16 [B, h*w, C] from :func:`run_program`: the map at the image's size.

    Classes are uint8 [B, H, W], sums int32 [B, H, W, C]. EdgeMoEError for an unknown task.
    """
    out = bundle.task(task).entry.output
    return op.task_output(raw, out.height, out.width, out.factor, out.kind == "classes")


# A bundle's weights as golden's layers, unpacked once: instruction -> layer.
_UNPACKED: "weakref.WeakKeyDictionary[Bundle, dict[Instruction, object]]" = weakref.WeakKeyDictionary()


class _Machine:
    """Scratch memory uint8 [B, bytes] of a batch, and the output buffer."""

    def __init__(self, bundle: Bundle, images: np.ndarray) -> None:
        self.bundle = bundle
        self.images = images
        size = bundle.manifest.accelerator.config["scratch_bytes"]
        self.scratch = np.full((len(images), size), UNWRITTEN, dtype=np.uint8)
        self.output = np.zeros((len(images), 0, 0), dtype=np.int16)
        self.logits: list[np.ndarray] = []  # int32, of GATE instructions since the last read
        self.layers = _UNPACKED.setdefault(bundle, {})

    def step(self, instruction: Instruction) -> None:
        """Execute one instruction, by the method that has its opcode's name."""
        getattr(self, Opcode(instruction.opcode).name.lower())(instruction)

    # Scratch memory

    def int8(self, address: int, rows: int, channels: int) -> np.ndarray:
        """int8 [B, rows, channels] view."""
        return scratch.int8(self.scratch, address, rows, channels)

    def int16(self, address: int, rows: int, channels: int) -> np.ndarray:
        """int16 [B, rows, channels] view."""
        return scratch.int16(self.scratch, address, rows, channels)

    def routing(self, address: int, rows: int, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """Views of the experts, uint16, and the scores, int16, [B, rows, top_k]."""
        return scratch.routing(self.scratch, address, rows, top_k)

    # Weight image

    def unpacked(self, i: Instruction, unpack: Callable[[Instruction, np.ndarray], T]) -> T:
        """The instruction's weights, unpacked at the first call for this bundle."""
        # instructions that differ only in rows and addresses have the same layer
        key = replace(i, rows=0, row_start=0, src=0, dst=0, routing=0, hidden=0)
        if key not in self.layers:
            self.layers[key] = unpack(i, self.bundle.beats(i.weight_offset, i.weight_beats))
        layer: T = self.layers[key]  # type: ignore[assignment]
        return layer

    def unpack_experts(self, i: Instruction, _: np.ndarray) -> tuple[FFN, ...]:
        """The experts that the instruction's table points to."""
        ffns = []
        for entry in self.bundle.expert_table(i):
            block = self.bundle.beats(entry.weight_offset, entry.weight_beats)
            width, hidden = tiles(i.in_channels), tiles(i.hidden_channels)
            split = layout.linear_planes(width, hidden, entry.bits1) * layout.PLANE
            fc1 = weights.read_linear(block[:split], i.hidden_channels, i.in_channels, entry.bits1)
            fc2 = weights.read_linear(block[split:], i.out_channels, i.hidden_channels, entry.bits2)
            ffns.append(
                FFN(
                    Linear(*fc1, entry.shift1, entry.bits1),
                    entry.gelu_multiplier,
                    entry.gelu_shift,
                    entry.zero_point,
                    Linear(*fc2, entry.shift2, entry.bits2),
                )
            )
        return tuple(ffns)

    # Instructions

    def end(self, _: Instruction) -> None:
        """Do nothing."""

    def load(self, i: Instruction) -> None:
        """Rows of the weight image, unchanged."""
        row = layout.int16_row(i.out_channels)
        data = self.bundle.beats(i.weight_offset, i.weight_beats)[: i.rows * row]
        scratch.raw(self.scratch, i.dst, i.rows, row)[...] = data.reshape(i.rows, row)

    def patches(self, i: Instruction) -> None:
        """Rows of pixel - 128, in the order row, column, colour."""
        p, (B, H, W, _) = i.patch, self.images.shape
        pixels = (self.images.astype(np.int16) - op.PIXEL_OFFSET).astype(np.int8)
        grid = pixels.reshape(B, H // p, p, W // p, p, 3).transpose(0, 1, 3, 2, 4, 5)
        self.int8(i.dst, i.rows, i.out_channels)[...] = grid.reshape(B, i.rows, i.out_channels)

    def linear(self, i: Instruction) -> None:
        """Every epilogue of LINEAR."""
        x, layer = self.int8(i.src, i.rows, i.in_channels), self.unpacked(i, unpack_linear)
        if i.epilogue == Epilogue.REQUANTISE:
            self.int8(i.dst, i.rows, i.out_channels)[...] = op.linear(x, layer)
        elif i.epilogue == Epilogue.GELU:
            ffn = FFN(layer, i.multiplier, i.shift2, i.zero_point, _NO_LINEAR)
            self.int8(i.dst, i.rows, i.out_channels)[...] = op.linear_gelu(x, ffn)
        else:
            out = self.int16(i.dst, i.rows, i.out_channels)
            residual = i.epilogue == Epilogue.RESIDUAL
            out[...] = op.linear_residual(x, layer, out) if residual else op.linear_int16(x, layer)

    def layernorm(self, i: Instruction) -> None:
        """int16 rows to int8 rows."""
        x = self.int16(i.src, i.rows, i.in_channels)
        self.int8(i.dst, i.rows, i.in_channels)[...] = op.layernorm(x, self.unpacked(i, unpack_norm))

    def attention(self, i: Instruction) -> None:
        """Compute all queries and keep the instruction's."""
        qkv = self.int8(i.src, i.keys, i.in_channels)
        mixed = op.attention(qkv, self.unpacked(i, unpack_attention))
        self.int8(i.dst, i.rows, i.out_channels)[...] = mixed[:, i.row_start : i.row_start + i.rows]

    def gate(self, i: Instruction) -> None:
        """Routing rows: the chosen experts and their scores, then zeros."""
        gate = self.unpacked(i, unpack_gate)
        logits = op.gate_logits(self.int8(i.src, i.rows, i.in_channels), gate)
        self.logits.append(logits)
        chosen, scores = op.route(logits, gate)
        scratch.raw(self.scratch, i.dst, i.rows, layout.ROUTE_BYTES)[...] = 0
        expert, score = self.routing(i.dst, i.rows, i.top_k)
        expert[...], score[...] = chosen, scores

    def experts(self, i: Instruction) -> None:
        """Add the experts' results to the residual rows; the workspaces lose their contents."""
        for region in regions(i):
            if not (region.reads or region.writes):
                self.scratch[:, region.address : region.address + region.size] = UNWRITTEN
        expert, score = self.routing(i.routing, i.rows, i.top_k)
        x, out = self.int8(i.src, i.rows, i.in_channels), self.int16(i.dst, i.rows, i.out_channels)
        out[...] = op.residual_add(out, op.experts(x, expert, score, self.unpacked(i, self.unpack_experts)))

    def conv3x3(self, i: Instruction) -> None:
        """Compute the whole map and keep the instruction's rows."""
        x = self.int8(i.src, i.height * i.width, i.in_channels)
        y = op.conv3x3(x, self.unpacked(i, unpack_conv), i.height, i.width, i.pad)
        self.int8(i.dst, i.rows, i.out_channels)[...] = y[:, i.row_start : i.row_start + i.rows]

    def upsample2x(self, i: Instruction) -> None:
        """A map at twice its size."""
        x = self.int8(i.src, i.height * i.width, i.in_channels)
        self.int8(i.dst, i.rows, i.in_channels)[...] = op.upsample2x(x, i.height, i.width)

    def store(self, i: Instruction) -> None:
        """Rows to the output buffer."""
        self.output = self.int16(i.src, i.rows, i.in_channels).astype(np.int16)


def unpack_linear(i: Instruction, block: np.ndarray) -> Linear:
    """Weights int8 [out, in], biases and multipliers of LINEAR from its block, uint8 [bytes]."""
    return Linear(
        *weights.read_linear(block, i.out_channels, i.in_channels, i.weight_bits), i.shift, i.weight_bits
    )


def unpack_norm(i: Instruction, block: np.ndarray) -> LayerNorm:
    """gamma int16 [D] and beta int32 [D] of LAYERNORM from its block, uint8 [bytes]."""
    beta, gamma = weights.read_parameters(block, i.in_channels)
    return LayerNorm(gamma, beta, i.shift, i.epsilon)


def unpack_attention(i: Instruction, block: np.ndarray) -> Attention:
    """Multipliers of ATTENTION, of logits [heads] and result [channels], from its block, uint8 [bytes].

    Its heads have their stored width.
    """
    logit, out = weights.read_parameters(block, i.out_channels)
    per_head = logit.reshape(i.heads, -1)[:, 0]
    return Attention(i.heads, _NO_LINEAR, per_head, i.shift, out, i.shift2, _NO_LINEAR)


def unpack_gate(i: Instruction, block: np.ndarray) -> Gate:
    """Weights int16 [experts, in] and biases of GATE from its block, uint8 [bytes]."""
    return Gate(*weights.read_gate(block, i.experts, i.in_channels), i.multiplier, i.shift, i.top_k)


def unpack_conv(i: Instruction, block: np.ndarray) -> Linear:
    """Weights of CONV3X3, int8 [out, 3, 3, in], from its block, uint8 [bytes]."""
    padded = TILE * tiles(i.in_channels)
    flat, bias, multiplier = weights.read_linear(
        block, i.out_channels, layout.CONV_TAPS * padded, i.weight_bits
    )
    weight = np.ascontiguousarray(flat.reshape(-1, 3, 3, padded)[..., : i.in_channels])
    return Linear(weight, bias, multiplier, i.shift, i.weight_bits)
