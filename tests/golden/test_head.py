# SPDX-License-Identifier: Apache-2.0
"""Convolution, upsampling and the task's output against the scalar reference and torch.

SPEC.md, section 4.
"""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edge_moe.testing import spec
from edge_moe.testing.cases import compare, int8, int16, random_linear
from edge_moe_host.golden import operators

SIZES = [(1, 1), (1, 5), (4, 1), (2, 2), (3, 5)]


def as_map(x, height, width):
    """[B, h*w, C] to a float64 [B, C, h, w]."""
    B, _, C = x.shape
    return torch.from_numpy(x.astype(np.float64)).reshape(B, height, width, C).permute(0, 3, 1, 2)


# ------------------------------------------------------------------ convolution


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("pad", [0, -128, 5])
def test_conv3x3(height, width, pad):
    rng = np.random.default_rng(height * 10 + width)
    layer = random_linear(rng, (5, 3, 3, 4))
    x = int8(rng, 2, height * width, 4)
    result = operators.conv3x3(x, layer, height, width, pad)
    expected = [spec.conv3x3(image, layer, height, width, pad) for image in x.tolist()]
    assert compare(result, expected, np.int8) == 2 * height * width * 5
    assert (result[..., 0] == -128).all()  # the channel whose multiplier is 0
    assert result.max() > -100


def test_conv3x3_saturates_at_both_ends():
    rng = np.random.default_rng(0)
    layer = random_linear(rng, (6, 3, 3, 2), gain=3)
    x = int8(rng, 1, 30, 2)
    result = operators.conv3x3(x, layer, 5, 6, 0)
    assert {result.min(), result.max()} == {-128, 127}
    assert compare(result, [spec.conv3x3(x[0].tolist(), layer, 5, 6, 0)], np.int8) == 180


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


# ------------------------------------------------------------------ upsampling


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_upsample2x(height, width):
    rng = np.random.default_rng(height + width)
    x = int8(rng, 2, height * width, 3)
    result = operators.upsample2x(x, height, width)
    expected = [spec.upsample2x(image, height, width) for image in x.tolist()]
    assert compare(result, expected, np.int8) == 2 * 4 * height * width * 3


@pytest.mark.parametrize(
    ("row", "expected"),
    [([0, 2], [0, 1, 2, 2]), ([0, -2], [0, 0, -1, -2]), ([127, -128], [127, 63, -64, -128])],
)
def test_upsample2x_rounds_half_up(row, expected):
    result = operators.upsample2x(np.array(row, np.int8).reshape(1, 2, 1), 1, 2)
    assert result.ravel().tolist() == expected * 2


def test_upsample2x_commutes_with_a_zero_point():
    rng = np.random.default_rng(2)
    x = rng.integers(-28, 28, size=(1, 20, 4)).astype(np.int8)
    for zero_point in (-100, -1, 99):
        shifted = operators.upsample2x((x + zero_point).astype(np.int8), 4, 5)
        assert (shifted == operators.upsample2x(x, 4, 5).astype(int) + zero_point).all()


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


# ------------------------------------------------------------------ the task's output


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_task_output(factor, height, width):
    rng = np.random.default_rng(factor)
    raw = int16(rng, 2, height * width, 4)
    pixels = height * width * factor**2
    values = operators.task_output(raw, height, width, factor, classes=False)
    expected = [spec.task_output(image, height, width, factor, False) for image in raw.tolist()]
    assert compare(values, expected, np.int32) == 2 * pixels * 4
    labels = operators.task_output(raw, height, width, factor, classes=True)
    expected = [spec.task_output(image, height, width, factor, True) for image in raw.tolist()]
    assert compare(labels, expected, np.uint8) == 2 * pixels


@pytest.mark.parametrize("factor", [1, 16])
def test_task_output_at_the_ends_of_int16(factor):
    for value in (-32768, 32767):
        raw = np.full((1, 2, 1), value, dtype=np.int16)
        result = operators.task_output(raw, 1, 2, factor, classes=False)
        assert (result == value * (2 * factor) ** 2).all()
        assert result.dtype == np.int32


def test_equal_classes_go_to_the_lower_index():
    raw = np.array([[[3, 9, 9, 1], [-5, -5, -5, -5]]], dtype=np.int16)
    assert operators.task_output(raw, 1, 2, 1, classes=True).tolist() == [[[1, 0]]]
    # exactly half way the sums of two classes are equal
    raw = np.array([[[0, 4, 0], [0, 0, 4]]], dtype=np.int16)
    assert operators.task_output(raw, 1, 2, 3, classes=True).tolist() == [[[1, 1, 1, 2, 2, 2]] * 3]
    raw = np.array([[[0, 1, 4], [0, 4, 1], [0, 1, 4]]], dtype=np.int16)
    assert operators.task_output(raw, 1, 3, 1, classes=True).tolist() == [[[2, 1, 2]]]


def test_the_class_is_found_after_the_interpolation():
    """A class that leads in no cell leads between two."""
    raw = np.array([[[100, 0, 70], [0, 100, 70]]], dtype=np.int16)
    assert operators.task_output(raw, 1, 2, 4, classes=True)[0, 0].tolist() == [0, 0, 0, 2, 2, 1, 1, 1]
