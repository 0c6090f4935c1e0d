# SPDX-License-Identifier: Apache-2.0
"""Convolution and enlargement of the C++ operators against golden."""

import numpy as np
import pytest

from edge_moe.testing.cases import compare, int8, random_linear
from edge_moe_host.golden import operators


@pytest.mark.parametrize("pad", [0, -128])
@pytest.mark.parametrize(
    ("height", "width", "fan_in", "out"),
    [(1, 1, 1, 1), (1, 5, 32, 33), (3, 3, 33, 8), (7, 1, 40, 32), (8, 16, 64, 32), (5, 9, 3, 65)],
)
def test_conv3x3(ops, height, width, fan_in, out, pad):
    rng = np.random.default_rng(height)
    layer = random_linear(rng, (out, 3, 3, fan_in), gain=3.0)
    x = int8(rng, height * width, fan_in)
    result = ops.conv3x3(x, layer, height, width, pad)
    expected = operators.conv3x3(x[None], layer, height, width, pad)[0]
    assert compare(result, expected, np.int8) == height * width * out
    assert result.size < 100 or {result.min(), result.max()} == {-128, 127}


def test_conv3x3_of_more_pixels_than_accumulators(ops):
    rng = np.random.default_rng(1)
    height, width = 61, 51  # odd, so that the groups of pixels start within a line
    layer = random_linear(rng, (2, 3, 3, 3), gain=0.8)
    x = int8(rng, height * width, 3)
    result = ops.conv3x3(x, layer, height, width, -128)
    assert compare(result, operators.conv3x3(x[None], layer, height, width, -128)[0], np.int8) == 2 * 3111


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(1, 1, 1), (1, 4, 33), (3, 1, 32), (2, 2, 40), (8, 16, 64), (5, 7, 3)]
)
def test_upsample2x(ops, height, width, channels):
    rng = np.random.default_rng(width)
    x = int8(rng, height * width, channels)
    result = ops.upsample2x(x, height, width)
    expected = operators.upsample2x(x[None], height, width)[0]
    assert compare(result, expected, np.int8) == 4 * height * width * channels


def test_upsample2x_of_all_equal_values(ops):
    for value in (-128, -1, 0, 127):
        x = np.full((6, 32), value, np.int8)
        assert (ops.upsample2x(x, 2, 3) == value).all()
