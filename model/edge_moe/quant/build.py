# SPDX-License-Identifier: Apache-2.0
"""From a float model and activation scales to an integer network (SPEC.md, sections 2 and 4).

Everything that is affine is folded: pixel mean, standard deviation and offset into the patch
embedding, channel-wise scales and offsets into the neighbouring weights and biases, batch
normalisation into the convolutions, task embeddings into the gates' biases, depth_scale into the
depth head.
"""

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from edge_moe.nn import M3ViT
from edge_moe.nn.block import LAYERNORM_EPS, FFNWeights
from edge_moe.nn.heads import TaskHead
from edge_moe.nn.moe import SHARED_GATE, MoEFFN
from edge_moe.quant.calibrate import Calibration
from edge_moe.quant.correct import InputSource, LayerInputs
from edge_moe.quant.network import (
    ACCUMULATOR_LIMIT,
    GATE_WEIGHT_LIMIT,
    NORM_SHIFT_LIMIT,
    Block,
    Head,
    IntegerNetwork,
    check_network,
)
from edge_moe.quant.options import MAX_BITS, QuantOptions
from edge_moe.quant.rounding import compensated, nearest, weight_limit, weight_scales
from edge_moe.quant.scales import Scales, average_multiplier, fixed_point, gelu_multiplier, snap
from edge_moe.quant.widths import ExpertBits, check_bits, uniform_bits
from edge_moe_host.contract.layout import EPSILON_LIMIT
from edge_moe_host.golden.arithmetic import EXP2_BITS, GELU_FRACTION
from edge_moe_host.golden.operators import (
    FFN,
    PIXEL_OFFSET,
    SCORE_FRACTION,
    XHAT_FRACTION,
    Attention,
    Gate,
    LayerNorm,
    Linear,
)

LOG2_E = math.log2(math.e)
CONV_ZERO = -128  # integer of 0 after a head's ReLU


def build_network(
    model: M3ViT,
    scales: Scales,
    options: QuantOptions,
    calibration: Calibration | None = None,
    expert_bits: ExpertBits | None = None,
) -> IntegerNetwork:
    """The integer network of ``model`` for all its tasks.

    ``scales`` are named as in :mod:`edge_moe.quant.scales`. Without ``calibration``, weights are rounded to
    the nearest and biases are not corrected, whatever ``options`` say. ``expert_bits``: MoE block ->
    bits of each expert, by default ``options.expert_bits``. Raises EdgeMoEError when scales or widths do
    not fit the model or when a layer's sums may exceed int32.
    """
    bits = uniform_bits(model.cfg, options.expert_bits) if expert_bits is None else expert_bits
    check_bits(bits, model.cfg)
    scales = snap(scales, model.cfg)
    return _Builder(model, scales, options, calibration, bits).network()


class _Builder:
    """Quantises one model layer by layer, in the order of execution."""

    def __init__(
        self,
        model: M3ViT,
        scales: Scales,
        options: QuantOptions,
        calibration: Calibration | None,
        expert_bits: ExpertBits,
    ) -> None:
        self.model, self.cfg = model, model.cfg
        self.scales, self.options, self.expert_bits = scales, options, expert_bits
        self.residual = float(scales["residual"])
        self.source = None if calibration is None else InputSource(model, scales, calibration)

    def given(self, make: Callable[..., LayerInputs | None], *arguments: object) -> LayerInputs | None:
        """A layer's inputs from a method of :class:`InputSource`; None without calibration data."""
        return None if self.source is None else make(self.source, *arguments)

    def network(self) -> IntegerNetwork:
        cfg = self.cfg
        network = IntegerNetwork(
            cfg,
            self.patch_embedding(),
            self.position(),
            tuple(self.block(index) for index in range(cfg.depth)),
            {task: self.head(task) for task in cfg.tasks},
        )
        check_network(network)
        return dataclasses.replace(network, scales=self.tensor_scales(network))

    def tensor_scales(self, network: IntegerNetwork) -> dict[str, float]:
        """Value of one unit of every intermediate that has one scale for all channels.

        Names are golden's; those of gates and heads include the task. ``norm1``, ``norm2``, ``qkv``,
        ``attention`` and ``head.norm`` have a scale for each channel: :mod:`edge_moe.quant.scales`.
        """
        result = {
            name: float(value)
            for name, value in self.scales.items()
            if not value.ndim and not name.endswith(".zero_point")
        }
        result["patch_embedding"] = self.residual
        for index, block in enumerate(network.blocks):
            result[f"block{index}.proj"] = result[f"block{index}.ffn"] = self.residual
            for task, gate in block.gates.items():
                unit = gate.multiplier / 2.0**gate.shift / (LOG2_E * 2**EXP2_BITS)
                result[f"block{index}.gate.{task}.logits"] = unit
                result[f"block{index}.gate.{task}.score"] = 2.0**-SCORE_FRACTION
        return result

    def linear(
        self,
        name: str,
        weight: np.ndarray,
        bias: np.ndarray,
        out_scale: np.ndarray | float,
        *,
        bits: int = MAX_BITS,
        zero_point: int = 0,
        inputs: LayerInputs | None = None,
    ) -> Linear:
        """Linear of weights [out, in] whose columns include the input's scale: input integers have unit 1."""
        limit = weight_limit(bits)
        # 8-bit weights lose less by rounding than their inputs do
        moments = None
        if inputs is not None and bits < MAX_BITS and self.options.rounding == "gptq":
            moments = inputs.moments(centred=self.options.bias_correction)
        importance = None if moments is None else np.diag(moments)
        scale, multiplier, shift = weight_grid(name, weight, bias, out_scale, bits, importance)
        integers = (
            nearest(weight, scale, limit) if moments is None else compensated(weight, scale, limit, moments)
        )
        if inputs is not None and self.options.bias_correction:
            bias = bias + inputs.mean_shift(weight, integers * scale[:, None])
        # an input integer q means q - zero_point
        offset = np.floor(bias / scale + 0.5) - zero_point * integers.sum(1)
        room = ACCUMULATOR_LIMIT - 128 * np.abs(integers).sum(1)
        offset = np.clip(offset, -room, room).astype(np.int32)
        return Linear(integers.astype(np.int8), offset, multiplier.astype(np.int16), shift, bits)

    def patch_embedding(self) -> Linear:
        """Weights [D, p*p*3] in the order row, column, colour, for pixels minus 128."""
        conv = self.model.patch_embed
        weight = array(conv.weight) / array(self.model.pixel_std)  # [D, 3, p, p]
        bias = array(conv.bias) - (weight * array(self.model.pixel_mean)).sum((1, 2, 3))
        flat = (weight / 255).transpose(0, 2, 3, 1).reshape(len(weight), -1)
        inputs = self.given(InputSource.patches)
        return self.linear(
            "patch_embedding", flat, bias, self.residual, zero_point=-PIXEL_OFFSET, inputs=inputs
        )

    def position(self) -> np.ndarray:
        """int16 [N, D]; the first row includes the CLS token if there is one."""
        position = array(self.model.pos_embed)[0]
        if self.model.cls_token is not None:
            position[0] += array(self.model.cls_token)[0, 0]
        integers = np.floor(position / self.residual + 0.5)
        return np.clip(integers, -(2**15), 2**15 - 1).astype(np.int16)

    def layernorm(self, norm: nn.LayerNorm, name: str) -> LayerNorm:
        """gamma and beta over 2**shift with channel scales and offsets folded in."""
        scale = self.scales[name]
        offset = self.scales.get(f"{name}.offset", np.zeros_like(scale))
        gamma, beta = array(norm.weight) / scale / 2**XHAT_FRACTION, (array(norm.bias) - offset) / scale
        # |gamma| * 2**15 + |beta| in 32 bits, gamma in 16
        largest = max(np.abs(gamma).max(), (np.abs(gamma) * 2**15 + np.abs(beta)).max() / 2**16, 2.0**-32)
        _, shift = fixed_point(np.array(largest), name, NORM_SHIFT_LIMIT)
        epsilon = round(LAYERNORM_EPS * (self.cfg.embed_dim / self.residual) ** 2)
        return LayerNorm(
            np.floor(gamma * 2.0**shift + 0.5).astype(np.int16),
            np.floor(beta * 2.0**shift + 0.5).astype(np.int32),
            shift,
            min(max(epsilon, 1), EPSILON_LIMIT),
        )

    def attention(self, index: int) -> Attention:
        name, cfg = f"block{index}", self.cfg
        attn, s = self.model.block(index).attn, self.scales
        d = cfg.embed_dim // cfg.num_heads
        out_scale = np.concatenate([s[f"{name}.q"].repeat(d), s[f"{name}.k"].repeat(d), s[f"{name}.v"]])
        weight, bias = self.after_norm(attn.qkv.weight, attn.qkv.bias, f"{name}.norm1")
        ratio = s[f"{name}.q"] * s[f"{name}.k"] * LOG2_E / math.sqrt(d) * 2**EXP2_BITS
        logit_multiplier, logit_shift = fixed_point(ratio, f"{name}.attention")
        mixed = s[f"{name}.attention"]
        normed = self.given(InputSource.norm, f"{name}.norm1")
        before_proj = self.given(InputSource.attention, name)
        out_multiplier, out_shift = average_multiplier(s[f"{name}.v"], mixed, f"{name}.attention")
        return Attention(
            cfg.num_heads,
            self.linear(f"{name}.qkv", weight, bias, out_scale, inputs=normed),
            logit_multiplier.astype(np.int16),
            logit_shift,
            out_multiplier.astype(np.int16),
            out_shift,
            self.linear(
                f"{name}.proj",
                array(attn.proj.weight) * mixed,
                array(attn.proj.bias),
                self.residual,
                inputs=before_proj,
            ),
        )

    def after_norm(self, weight: Tensor, bias: Tensor, norm: str) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of a layer whose input is ``norm``'s integers."""
        w = array(weight)
        return w * self.scales[norm], array(bias) + w @ self.scales[f"{norm}.offset"]

    def ffn(
        self,
        name: str,
        norm: str,
        weights: FFNWeights,
        bits: int,
        inputs: LayerInputs | None,
    ) -> FFN:
        """A dense FFN, or one expert."""
        w1, b1, w2, b2 = weights
        unit = 2.0**-GELU_FRACTION
        fc1 = self.linear(f"{name}.fc1", *self.after_norm(w1, b1, norm), unit, bits=bits, inputs=inputs)
        scale, zero = float(self.scales[f"{name}.hidden"]), int(self.scales[f"{name}.hidden.zero_point"])
        multiplier, shift = gelu_multiplier(scale, f"{name}.hidden")
        first = FFN(fc1, multiplier, shift, zero, fc1)  # its fc2 is not used
        hidden = None if inputs is None else self.given(InputSource.hidden, name, inputs, first)
        fc2 = self.linear(
            f"{name}.fc2",
            array(w2) * scale,
            array(b2),
            self.residual,
            bits=bits,
            zero_point=zero,
            inputs=hidden,
        )
        return dataclasses.replace(first, fc2=fc2)

    def block(self, index: int) -> Block:
        name, block = f"block{index}", self.model.block(index)
        norm1 = self.layernorm(block.norm1, f"{name}.norm1")
        attention = self.attention(index)
        norm2 = self.layernorm(block.norm2, f"{name}.norm2")
        norm, module, weights = f"{name}.norm2", block.ffn, block.ffns()
        if not isinstance(module, MoEFFN):
            ffn = self.ffn(name, norm, weights[name], MAX_BITS, self.given(InputSource.norm, norm))
            return Block(norm1, attention, norm2, ffn)
        experts = tuple(
            self.ffn(expert, norm, weights[expert], bits, self.given(InputSource.routed, index, place))
            for place, (expert, bits) in enumerate(zip(weights, self.expert_bits[index], strict=True))
        )
        gates = {task: self.gate(module, task, norm) for task in self.cfg.tasks}
        return Block(norm1, attention, norm2, None, gates, experts, tuple(range(len(experts))))

    def gate(self, ffn: MoEFFN, task: str, norm: str) -> Gate:
        """One task's gate: int16 weights of one scale, as its logits are compared with each other."""
        weight = array(ffn.gates[task if ffn.routing == "multi_gate" else SHARED_GATE].weight)
        bias = np.zeros(len(weight))
        embedding = self.model.embed_task(task)
        if embedding is not None:
            bias = weight[:, self.cfg.embed_dim :] @ array(embedding)
            weight = weight[:, : self.cfg.embed_dim]
        bias = bias + weight @ self.scales[f"{norm}.offset"]
        weight = weight * self.scales[norm]
        bias -= bias.mean()  # a constant changes neither order nor softmax
        scale = max(np.abs(weight).max() / GATE_WEIGHT_LIMIT, _smallest_scale(weight, bias).max(), 2.0**-40)
        multiplier, shift = fixed_point(np.array(scale * LOG2_E * 2**EXP2_BITS), f"{norm}.gate")
        return Gate(
            np.floor(weight / scale + 0.5).astype(np.int16),
            np.floor(bias / scale + 0.5).astype(np.int32),
            int(multiplier),
            shift,
            self.cfg.top_k,
        )

    def head(self, task: str) -> Head:
        head, name = cast(TaskHead, self.model.heads[task]), f"head.{task}"
        convs = []
        for stage, (conv, bn) in enumerate(zip(head.convs, head.bns, strict=True)):
            exact = (copy.deepcopy(module).double() for module in (conv, bn))
            weight, bias = (array(part) for part in folded_conv(*exact))
            weight = weight.transpose(0, 2, 3, 1)
            before = self.scales[f"{name}.conv{stage - 1}" if stage else f"{name}.norm"]
            flat = (weight * before).reshape(len(weight), -1)
            out_scale = float(self.scales[f"{name}.conv{stage}"])
            zero = CONV_ZERO if stage else 0
            inputs = self.given(InputSource.window, task, stage)
            layer = self.linear(f"{name}.conv{stage}", flat, bias, out_scale, zero_point=zero, inputs=inputs)
            convs.append(dataclasses.replace(layer, weight=layer.weight.reshape(weight.shape)))
        scale = float(self.scales[f"{name}.out"])
        weight = head.scale * array(head.out.weight)[:, :, 0, 0] * self.scales[f"{name}.conv{len(convs) - 1}"]
        bias = head.scale * array(head.out.bias)
        inputs = self.given(InputSource.last, task, len(convs) - 1)
        out = self.linear(f"{name}.out", weight, bias, scale, zero_point=CONV_ZERO, inputs=inputs)
        return Head(self.layernorm(head.norm, f"{name}.norm"), tuple(convs), out, scale)


def array(tensor: Tensor | nn.Module | None) -> np.ndarray:
    """float64 copy."""
    assert isinstance(tensor, Tensor)
    return tensor.detach().to("cpu").double().numpy().copy()


def folded_conv(conv: nn.Module, bn: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight [out, in, 3, 3] and bias [out] of a convolution with its batch normalisation."""
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, nn.modules.batchnorm._BatchNorm)
    gain = bn.weight / torch.sqrt(cast(Tensor, bn.running_var) + bn.eps)
    return conv.weight * gain.view(-1, 1, 1, 1), bn.bias - cast(Tensor, bn.running_mean) * gain


def weight_grid(
    name: str,
    weight: np.ndarray,
    bias: np.ndarray,
    out_scale: np.ndarray | float,
    bits: int = MAX_BITS,
    importance: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """(scale [out], multiplier [out], shift) of a layer's weights [out, in], inputs of unit 1.

    The scales are those of :func:`weight_scales`, raised where sums would leave int32, and moved to the
    exact values of the multipliers: multiplier / 2**shift * out_scale.
    """
    scale = np.maximum(weight_scales(weight, bits, importance), _smallest_scale(weight, bias))
    multiplier, shift = fixed_point(scale / out_scale, name)
    return multiplier / 2.0**shift * out_scale, multiplier, shift


def _smallest_scale(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """[out] scales at which 128 sum|w| + |b| fits int32, a zero point of -128 and rounding included."""
    inputs = weight.shape[1]
    return (256 * np.abs(weight).sum(1) + np.abs(bias)) / (ACCUMULATOR_LIMIT - 256 * inputs)
