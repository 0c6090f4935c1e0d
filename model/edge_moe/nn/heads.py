# SPDX-License-Identifier: Apache-2.0
"""Task heads: LayerNorm, patches to a feature map, convolutions with x2 upsampling.

``pup`` is the progressive upsampling head of M3ViT (from SETR, section 3.3): four 3x3
convolutions at 1/16, 1/8, 1/4 and 1/2. ``edge`` stops at 1/4, which an accelerator can hold on chip.
Scales are those of 16-pixel patches.
"""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from edge_moe.config import ModelConfig
from edge_moe.info import HEAD_CONVS
from edge_moe.nn.block import LAYERNORM_EPS, Keep, ignore
from edge_moe_host.errors import EdgeMoEError


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, half-pixel centres."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class TaskHead(nn.Module):
    """Head of one task."""

    def __init__(self, cfg: ModelConfig, task: str) -> None:
        super().__init__()
        self.name = f"head.{task}"
        self.scale = cfg.depth_scale if task == "depth" else 1.0
        self.grid_size = cfg.grid_size
        self.image_size = cfg.image_size
        self.norm = nn.LayerNorm(cfg.embed_dim, eps=LAYERNORM_EPS)
        widths = [cfg.embed_dim] + [cfg.head_channels] * HEAD_CONVS[cfg.head]
        self.convs = nn.ModuleList(
            nn.Conv2d(cin, cout, 3, padding=1, bias=False) for cin, cout in itertools.pairwise(widths)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.out = nn.Conv2d(cfg.head_channels, cfg.tasks[task], 1)

    def forward(self, tokens: Tensor, keep: Keep = ignore) -> Tensor:
        """Map tokens [B, N, D] (CLS first, if any) to float32 [B, C, H, W] at the model's image size.

        ``keep`` receives feature maps as [B, h*w, C], except ``window{j}``, the input [B, C, h, w] of
        convolution j.
        """
        h, w = self.grid_size
        patches = keep(f"{self.name}.norm", self.norm(tokens)[:, -h * w :])
        x = patches.transpose(1, 2).reshape(len(tokens), -1, h, w)
        if self.training and len(x) * h * w == 1:
            raise EdgeMoEError(
                "batch normalisation cannot train on one value: raise train.batch_size or model.image_size."
            )
        for stage, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            if stage:
                x = upsample(x, (h << stage, w << stage))
                keep(f"{self.name}.upsample{stage}", _rows(x))
            x = F.relu(bn(conv(keep(f"{self.name}.window{stage}", x))))
            keep(f"{self.name}.conv{stage}", _rows(x))
        # contiguous: otherwise the full-size logits are channels-last, and losses would have to copy
        out = self.scale * self.out(x).float().contiguous()
        keep(f"{self.name}.out", _rows(out))
        return upsample(out, self.image_size)


def _rows(x: Tensor) -> Tensor:
    """Feature map [B, C, h, w] as [B, h*w, C]."""
    return x.flatten(2).transpose(1, 2)
