# SPDX-License-Identifier: Apache-2.0
"""Convolution and upsampling against torch in float64 (SPEC.md, section 4)."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edge_moe.testing.cases import compare, int8, int16, random_linear
from edge_moe_host.golden import operators

SIZES = [(1, 1), (1, 5), (4, 1), (2, 2), (3, 5)]


def as_map(x, height, width):
    """[B, h*w, C] to a float64 [B, C, h, w]."""
    B, _, C = x.shape
    return torch.from_numpy(x.astype(np.float64)).reshape(B, height, width, C).permute(0, 3, 1, 2)


@pytest.mark.parametrize("pad", [0, -128])
def test_conv3x3_is_torchs_convolution_and_relu_of_what_the_integers_mean(pad):
    """The input's zero point is ``pad`` and is folded into the bias; the result's is -128."""
    rng = np.random.default_rng(1)
    layer = random_linear(rng, (7, 3, 3, 6))
    x = int8(rng, 2, 12, 6)
    weight = layer.weight.astype(np.int64)
    folded = dataclasses.replace(layer, bias=(layer.bias - pad * weight.sum((1, 2, 3))).astype(np.int32))
    result = operators.conv3x3(x, folded, 3, 4, pad)
    kernel = torch.from_numpy(weight.astype(np.float64)).permute(0, 3, 1, 2)
    exact = F.conv2d(
        as_map(x, 3, 4) - pad, kernel, torch.from_numpy(layer.bias.astype(np.float64)), padding=1
    )
    scale = torch.from_numpy(layer.multiplier / 2.0**layer.shift)[:, None, None]
    meant = torch.floor(F.relu(exact * scale) + 0.5).clamp(max=255)
    expected = meant.permute(0, 2, 3, 1).reshape(2, 12, 7).numpy() - 128
    assert compare(result, expected, np.int8) == 168


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_upsample_sums_are_torchs_bilinear_interpolation(factor, height, width):
    """Exactly: float64 holds the weights, which are multiples of a power of two."""
    rng = np.random.default_rng(factor)
    x = int16(rng, 2, height * width, 3)
    result = operators.upsample_sums(x, height, width, factor)
    exact = F.interpolate(as_map(x, height, width), scale_factor=factor, mode="bilinear", align_corners=False)
    expected = (exact * (2 * factor) ** 2).permute(0, 2, 3, 1).numpy()
    assert (expected == expected.round()).all()
    assert compare(result, expected, np.int64) == 2 * height * width * factor**2 * 3


def test_upsample2x_is_torchs_up_to_the_rounding():
    rng = np.random.default_rng(3)
    x = int8(rng, 2, 35, 4)
    exact = F.interpolate(as_map(x, 5, 7), scale_factor=2, mode="bilinear", align_corners=False)
    expected = torch.floor(exact + 0.5).permute(0, 2, 3, 1).reshape(2, 140, 4).numpy()
    assert compare(operators.upsample2x(x, 5, 7), expected, np.int8) == 1120
