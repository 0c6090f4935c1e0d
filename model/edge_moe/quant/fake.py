# SPDX-License-Identifier: Apache-2.0
"""Fake quantisation: the integer network's arithmetic in floating point, with gradients.

A prepared :class:`M3ViT` keeps its parameters and its interface, but every weight and activation
is rounded to the grid of the integer network (SPEC.md, sections 2 and 4), so training includes the
rounding. Rounding and saturation use straight-through gradients (Bengio et al.,
arXiv:1308.3432): rounding passes the gradient on, saturation stops it. Batch normalisation is
frozen, because it is folded into the convolutions.

Differences from the integers are below their last bit: tables are exact functions, and the
softmax's numerators are rounded for the final maximum instead of the running one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_moe.config import ModelConfig
from edge_moe.nn import M3ViT
from edge_moe.nn.block import Attention, Block, DenseFFN, FFNWeights, Keep, ignore
from edge_moe.nn.heads import TaskHead, upsample
from edge_moe.quant.build import folded_conv, weight_grid
from edge_moe.quant.options import MAX_BITS
from edge_moe.quant.rounding import weight_limit
from edge_moe.quant.scales import snap
from edge_moe.quant.storage import load_network
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.arithmetic import EXP2_BITS, GELU_FRACTION

_INT16 = (-(2.0**15), 2.0**15 - 1)
_NUMERATOR_BITS = 7


def round_through(x: Tensor) -> Tensor:
    """Round half up; the gradient is that of the identity."""
    return x + (torch.floor(x + 0.5) - x).detach()


def fake_quantise(x: Tensor, scale: Tensor | float, low: float, high: float, zero: float = 0.0) -> Tensor:
    """Nearest value of the grid scale * (q - zero), q in [low, high]."""
    return (torch.clamp(round_through(x / scale) + zero, low, high) - zero) * scale


@dataclass(frozen=True)
class FakeQuantiser:
    """Grids of one model: ``scales`` as calibration names them, ``expert_bits`` block -> bits per expert."""

    scales: Mapping[str, np.ndarray]
    expert_bits: Mapping[int, Sequence[int]]

    def to_plain(self) -> dict[str, Any]:
        """The grids as tensors and lists, for a checkpoint."""
        return {
            "scales": {name: torch.as_tensor(np.asarray(value)) for name, value in self.scales.items()},
            "expert_bits": {str(block): list(bits) for block, bits in self.expert_bits.items()},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Grids from the result of :meth:`to_plain`."""
        return cls(
            {name: value.numpy() for name, value in plain["scales"].items()},
            {int(block): tuple(bits) for block, bits in plain["expert_bits"].items()},
        )

    def install(self, model: M3ViT) -> None:
        """Give ``model`` the forward pass of its integer network; its parameters stay as they are."""
        _Installed(self, model)


def load_grids(path: Path, config: ModelConfig) -> FakeQuantiser:
    """Grids of a file that ``edge-moe quantise`` wrote for a model of this configuration.

    Raises EdgeMoEError for a file of another model, and for one that lacks experts.
    """
    network, extra = load_network(path)
    if network.config != config:
        raise EdgeMoEError(f"'{path}' was quantised from another model than the one to be trained.")
    return FakeQuantiser(extra["scales"], network.expert_bits)


class _Installed:
    """The replaced forward methods of one model, with their scales on its device."""

    def __init__(self, grids: FakeQuantiser, model: M3ViT) -> None:
        self.model = model
        device = model.pos_embed.device
        self.scales = {
            name: torch.as_tensor(value, dtype=torch.float32, device=device)
            for name, value in snap(dict(grids.scales), model.cfg).items()
        }
        self.expert_bits = grids.expert_bits
        model.embed = self.embed  # type: ignore[method-assign]
        for index in range(model.cfg.depth):
            self._install_block(model.block(index), index)
        for task, head in model.heads.items():
            self._install_head(cast(TaskHead, head), task)

    def weight(
        self, weight: Tensor, out_scale: Tensor | float, source: Tensor | float = 1.0, bits: int = MAX_BITS
    ) -> Tensor:
        """Weights [out, ...] on their channels' grids, for inputs and outputs of these scales.

        A channel's scale is the exact value of its multiplier, as in the integer network.
        """
        limit = weight_limit(bits)
        flat = weight.detach().flatten(1).double().cpu().numpy() * float(source)
        target = np.asarray(torch.as_tensor(out_scale).cpu(), dtype=np.float64)
        exact, _, _ = weight_grid("fake quantisation", flat, np.zeros(len(flat)), target, bits)
        scale = torch.as_tensor(exact / float(source), dtype=weight.dtype, device=weight.device)
        return fake_quantise(weight, scale.view(-1, *[1] * (weight.ndim - 1)), -limit, limit)

    def embed(self, images: Tensor) -> Tensor:
        """Tokens of images, as :meth:`M3ViT.embed`."""
        model = self.model
        pixels = images.float() if images.dtype == torch.uint8 else images * 255
        weight = model.patch_embed.weight / (255 * model.pixel_std)
        offset = (model.patch_embed.weight * (model.pixel_mean / model.pixel_std)).sum((1, 2, 3))
        bias = cast(Tensor, model.patch_embed.bias) - offset
        x = F.conv2d(
            pixels, self.weight(weight, self.scales["residual"]), bias, stride=model.patch_embed.stride
        )
        tokens = self.residual(x.flatten(2).transpose(1, 2))
        if model.cls_token is not None:
            tokens = torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1)
            position = torch.cat([model.cls_token + model.pos_embed[:, :1], model.pos_embed[:, 1:]], dim=1)
        else:
            position = model.pos_embed
        return self.residual(tokens + self.residual(position))

    def residual(self, x: Tensor) -> Tensor:
        """``x`` on the residual stream's int16 grid."""
        return fake_quantise(x, self.scales["residual"], *_INT16)

    def normed(self, norm: nn.LayerNorm, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(q, channel scales, channel offsets): LayerNorm is scale * q + offset."""
        scale = self.scales[name]
        offset = self.scales.get(f"{name}.offset", torch.zeros_like(scale))
        # not norm(x): the module's own forward may be a replaced one that calls this method
        y = F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return fake_quantise((y - offset) / scale, 1.0, -128, 127), scale, offset

    def _install_block(self, block: Block, index: int) -> None:
        name, norm = f"block{index}", f"block{index}.norm2"

        def attend(x: Tensor, keep: Keep = ignore) -> Tensor:
            normed = self.normed(block.norm1, f"{name}.norm1", x)
            return self.residual(x + self.residual(self.attention(block.attn, name, *normed)))

        original_feed = block.feed

        def feed(x: Tensor, *arguments: Any) -> tuple:
            y, routing, balance = original_feed(x, *arguments)
            return self.residual(y), routing, balance

        def dequantised_norm(x: Tensor) -> Tensor:
            q, scale, offset = self.normed(block.norm2, norm, x)
            return q * scale + offset

        def run(rows: Tensor, counts: Tensor) -> Tensor:
            experts = zip(
                block.ffns().items(), self.expert_bits[index], rows.split(counts.tolist()), strict=True
            )
            return torch.cat([self.ffn(e, norm, w, bits, x) for (e, w), bits, x in experts if len(x)])

        block.attend = attend  # type: ignore[method-assign]
        block.feed = feed  # type: ignore[assignment,method-assign]
        block.norm2.forward = dequantised_norm  # type: ignore[assignment,method-assign]
        ffn = block.ffn
        if isinstance(ffn, DenseFFN):
            ffn.forward = lambda x, *_: self.ffn(name, norm, block.ffns()[name], MAX_BITS, x)  # type: ignore[method-assign]
        else:
            ffn.noise_std = 0.0  # the integer gate has no noise
            ffn.experts._loop = run  # type: ignore[method-assign]
            ffn.experts._grouped_mm = run  # type: ignore[method-assign]

    def attention(self, attn: Attention, name: str, q_in: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """[B, N, D] in units of one to real [B, N, D], projection included."""
        B, N, D = q_in.shape
        heads, d = attn.num_heads, D // attn.num_heads
        bias = attn.qkv.bias + attn.qkv.weight @ offset
        grid = torch.cat([self.scales[f"{name}.{part}"].repeat_interleave(d) for part in "qk"])
        grid = torch.cat([grid, self.scales[f"{name}.v"]])
        qkv = F.linear(q_in, self.weight(attn.qkv.weight * scale, grid), bias)
        qkv = fake_quantise(qkv, grid, -127, 127)
        q, k, v = qkv.view(B, N, 3, heads, d).permute(2, 0, 3, 1, 4)
        step = 2.0**-EXP2_BITS
        logits = fake_quantise(q @ k.transpose(2, 3) * (math.log2(math.e) / math.sqrt(d)), step, *_INT16)
        below = logits - (torch.floor(logits.detach().amax(-1, keepdim=True)) + 1)
        one = 2**_NUMERATOR_BITS
        numerators = fake_quantise(torch.exp2(below), 1 / one, 0, one - 1)
        mixed = (numerators @ v) / numerators.sum(-1, keepdim=True)
        mixed = mixed.transpose(1, 2).reshape(B, N, D)
        out_scale = self.scales[f"{name}.attention"]
        return F.linear(
            fake_quantise(mixed / out_scale, 1.0, -127, 127),
            self.weight(attn.proj.weight * out_scale, self.scales["residual"]),
            attn.proj.bias,
        )

    def ffn(self, name: str, norm: str, weights: FFNWeights, bits: int, x: Tensor) -> Tensor:
        """A dense FFN, or one expert, on the dequantised LayerNorm ``norm``, to the grid of the residual."""
        w1, b1, w2, b2 = weights
        scale, offset, step = self.scales[norm], self.scales[f"{norm}.offset"], 2.0**-GELU_FRACTION
        x = F.linear((x - offset) / scale, self.weight(w1 * scale, step, bits=bits), b1 + w1 @ offset)
        activated, grid = F.gelu(fake_quantise(x, step, *_INT16)), self.scales[f"{name}.hidden"]
        hidden = fake_quantise(activated, grid, -128, 127, float(self.scales[f"{name}.hidden.zero_point"]))
        return self.residual(F.linear(hidden, self.weight(w2, self.scales["residual"], grid, bits), b2))

    def _install_head(self, head: TaskHead, task: str) -> None:
        name = f"head.{task}"

        def forward(tokens: Tensor, keep: Keep = ignore) -> Tensor:
            h, w = head.grid_size
            q, source, _ = self.normed(head.norm, f"{name}.norm", tokens[:, -h * w :])
            x = q.transpose(1, 2).reshape(len(tokens), -1, h, w)
            for stage, (conv, bn) in enumerate(zip(head.convs, head.bns, strict=True)):
                weight, bias = folded_conv(conv, bn)
                grid = self.scales[f"{name}.conv{stage}"]
                if stage:
                    x = fake_quantise(upsample(x, (h << stage, w << stage)), source, 0, 255)
                    folded = self.weight(weight, grid, source)
                else:
                    folded = self.weight(weight * source.view(1, -1, 1, 1), grid)
                x = fake_quantise(F.conv2d(x, folded, bias, padding=1), grid, 0, 255)
                source = grid
            scale = self.scales[f"{name}.out"]
            out = F.conv2d(
                x,
                self.weight(head.scale * head.out.weight, scale, source),
                head.scale * cast(Tensor, head.out.bias),
            )
            return upsample(fake_quantise(out, scale, *_INT16).float().contiguous(), head.image_size)

        head.forward = forward  # type: ignore[method-assign]
