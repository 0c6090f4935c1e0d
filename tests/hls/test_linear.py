# SPDX-License-Identifier: Apache-2.0
"""The compute unit, weight tiles, linears and the patch embedding of the C++ operators against golden."""

import numpy as np
import pytest

from edge_moe.compiler import weights
from edge_moe.testing.cases import compare, int8, int16, random_ffn, random_linear
from edge_moe.testing.hls_ops import TILE
from edge_moe_host.contract.isa import Epilogue
from edge_moe_host.contract.weights import from_planes
from edge_moe_host.golden import operators

EVERY_INT8 = np.arange(-128, 128).astype(np.int8)


def test_two_products_in_one_multiplier_for_every_operand(ops):
    """All weights but -128 with all pairs of inputs: 16,711,680 times two products."""
    x0, x1 = (np.ascontiguousarray(grid.ravel()) for grid in np.meshgrid(EVERY_INT8, EVERY_INT8))
    compared = 0
    for weight in range(-127, 128):
        low, high = ops.dual_product(np.full(len(x0), weight, np.int8), x0, x1)
        assert np.array_equal(low, x0 * np.int32(weight))
        assert np.array_equal(high, x1 * np.int32(weight))
        compared += len(low) + len(high)
    assert compared == 2 * 255 * 2**16


def test_a_cascade_of_eight_keeps_its_lanes_apart(ops):
    rng = np.random.default_rng(0)
    ends = np.array([[w, a, b] for w in (-127, 127) for a in (-128, 0, 127) for b in (-128, 0, 127)], np.int8)
    same = np.repeat(ends[:, :, None], 8, axis=2)  # eight times the same: the largest sums of either sign
    mixed = rng.integers(-127, 128, size=(20000, 3, 8)).astype(np.int8)
    w, x0, x1 = (np.ascontiguousarray(part) for part in np.concatenate([same, mixed]).swapaxes(0, 1))
    low, high = ops.dual_dot(w, x0, x1)
    assert compare(low, (w.astype(int) * x0).sum(1), np.int32) == len(low) == 20018
    compare(high, (w.astype(int) * x1).sum(1), np.int32)
    assert {low.min(), low.max(), high.min(), high.max()} == {-8 * 127 * 128, 8 * 127 * 128}


@pytest.mark.parametrize("packed", [0, 1])
def test_compute_unit(ops, packed):
    rng = np.random.default_rng(packed)
    x = int8(rng, 400, TILE)
    x[:2], x[2:4] = -128, 127
    compared = 0
    for kind in range(4):
        weight = rng.integers(-127, 128, size=(TILE, TILE)).astype(np.int8)
        if kind == 1:
            weight[:] = 127
        elif kind == 2:
            weight[:] = -127
        expected = x.astype(np.int64) @ weight.T.astype(np.int64)
        compared += compare(ops.compute_unit(weight, x, packed), expected, np.int32)
        assert kind != 1 or expected.min() == -32 * 128 * 127
    assert compared == 4 * 400 * TILE


@pytest.mark.parametrize("bits", range(2, 9))
def test_weight_tile_of_every_width(ops, bits):
    rng = np.random.default_rng(bits)
    limit = 2 ** (bits - 1) - 1
    tiles = rng.integers(-limit, limit, size=(7, TILE, TILE), endpoint=True).astype(np.int8)
    tiles[0], tiles[1] = limit, -limit
    planes = weights.to_planes(tiles.reshape(7, -1), bits)
    assert compare(ops.weight_tile(planes), tiles, np.int8) == 7 * 1024


def test_every_bit_of_a_plane_has_its_place(ops):
    planes = np.zeros((64, 2, 128), np.uint8)
    for tile in range(64):
        planes[tile].reshape(-1)[4 * tile : 4 * tile + 4] = 1, 2, 0x40, 0x80
    expected = from_planes(planes).reshape(64, TILE, TILE)
    assert np.count_nonzero(expected) == 256
    assert compare(ops.weight_tile(planes), expected, np.int8) == 64 * 1024


def test_parameter_planes(ops):
    rng = np.random.default_rng(3)
    planes = rng.integers(0, 256, size=(50, 128)).astype(np.uint8)
    planes[0], planes[1, 3::4], planes[1, 1::2] = 255, 0x7F, 0x80
    compared = 0
    for plane in planes:
        wide, narrow = ops.parameter_plane(plane)
        compared += compare(wide, plane.view("<i4"), np.int32) + compare(narrow, plane.view("<i2"), np.int16)
    assert compared == 50 * 96


# ------------------------------------------------------------------ linear


SHAPES = [(1, 1, 1), (1, 32, 32), (1, 70, 5), (2, 31, 33), (3, 192, 64), (17, 33, 40), (288, 40, 33)]


@pytest.mark.parametrize(("tokens", "fan_in", "out"), SHAPES)
def test_linear(ops, tokens, fan_in, out):
    rng = np.random.default_rng(fan_in)
    layer = random_linear(rng, (out, fan_in), gain=0.7)
    x = int8(rng, tokens, fan_in)
    result = ops.linear(x, layer, Epilogue.REQUANTISE)
    assert compare(result, operators.linear(x[None], layer)[0], np.int8) == tokens * out
    assert result.min() >= -127
    assert result.size < 200 or {result.min(), result.max()} == {-127, 127}


@pytest.mark.parametrize(("tokens", "fan_in", "out"), SHAPES)
def test_linear_int16_and_residual(ops, tokens, fan_in, out):
    rng = np.random.default_rng(fan_in)
    layer = random_linear(rng, (out, fan_in), high=32767, gain=0.7)
    x, residual = int8(rng, tokens, fan_in), int16(rng, tokens, out)
    result = ops.linear(x, layer, Epilogue.INT16)
    assert compare(result, operators.linear_int16(x[None], layer)[0], np.int16) == tokens * out
    assert result.size < 200 or {result.min(), result.max()} == {-32768, 32767}
    result = ops.linear(x, layer, Epilogue.RESIDUAL, residual)
    expected = operators.linear_residual(x[None], layer, residual[None])[0]
    assert compare(result, expected, np.int16) == tokens * out


@pytest.mark.parametrize(("tokens", "fan_in", "out"), SHAPES)
def test_linear_gelu(ops, tokens, fan_in, out):
    rng = np.random.default_rng(out)
    ffn = random_ffn(rng, fan_in, out, zero_point=int(rng.integers(-128, 127)))
    x = int8(rng, tokens, fan_in)
    result = ops.linear(x, ffn.fc1, Epilogue.GELU, ffn=ffn)
    assert compare(result, operators.linear_gelu(x[None], ffn)[0], np.int8) == tokens * out


def test_an_accumulator_at_either_end_of_int32(ops):
    rng = np.random.default_rng(4)
    layer = random_linear(rng, (2, 1024), high=32767)
    weight = np.full((2, 1024), 127, np.int8)
    weight[1] = -127
    bias = np.array([1, -1]) * (2**31 - 1 - 128 * 127 * 1024)
    layer = type(layer)(weight, bias.astype(np.int32), np.array([32767, 32767], np.int16), 31)
    x = np.array([np.full(1024, 127), np.full(1024, -128)], np.int8)
    result = ops.linear(x, layer, Epilogue.INT16)
    assert compare(result, operators.linear_int16(x[None], layer)[0], np.int16) == 4
    assert result.max() > 30000 > -30000 > result.min()


# ------------------------------------------------------------------ patch embedding


@pytest.mark.parametrize(
    ("height", "width", "patch", "channels", "cls"),
    [(4, 4, 4, 8, 1), (8, 12, 4, 33, 0), (32, 16, 16, 40, 1), (6, 3, 1, 32, 0), (10, 15, 5, 64, 1)],
)
def test_patch_embedding(ops, height, width, patch, channels, cls):
    rng = np.random.default_rng(height)
    tokens = (height // patch) * (width // patch) + cls
    layer = random_linear(rng, (channels, 3 * patch * patch), high=32767, gain=0.5)
    image = rng.integers(0, 256, size=(height, width, 3)).astype(np.uint8)
    image[0, 0, 0], image[-1, -1, -1] = 0, 255
    position = int16(rng, tokens, channels)
    result = ops.patch_embedding(image, layer, position, patch)
    expected = operators.patch_embedding(image[None], layer, position, patch)[0]
    assert compare(result, expected, np.int16) == tokens * channels
    assert not cls or np.array_equal(result[0], position[0])
