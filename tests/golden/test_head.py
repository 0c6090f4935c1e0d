# SPDX-License-Identifier: Apache-2.0
"""Convolution, upsampling and the task's output against the scalar reference (SPEC.md, section 4)."""

import numpy as np
import pytest

from edge_moe.testing import spec
from edge_moe.testing.cases import compare, int8, int16, random_linear
from edge_moe_host.golden import operators

SIZES = [(1, 1), (1, 5), (4, 1), (2, 2), (3, 5)]


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
