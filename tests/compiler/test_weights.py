# SPDX-License-Identifier: Apache-2.0
"""The weight image: bit planes, parameters between tiles, gates as halves, blocks stored once."""

import numpy as np
import pytest

from edge_moe.compiler import weights
from edge_moe.compiler.weights import WeightImage
from edge_moe_host.contract import layout, opcodes
from edge_moe_host.contract import weights as reading
from edge_moe_host.contract.isa import Instruction, Opcode
from edge_moe_host.golden.operators import Gate, Linear

SHAPES = [(1, 1), (32, 32), (33, 31), (7, 70), (96, 40), (65, 96)]


def random_linear(shape: tuple[int, int], bits: int, seed: int = 0) -> Linear:
    rng = np.random.default_rng(seed)
    limit = 2 ** (bits - 1) - 1
    weight = rng.integers(-limit, limit, size=shape, endpoint=True).astype(np.int8)
    weight[0, 0] = -limit
    bias = rng.integers(-(2**31), 2**31 - 1, size=shape[0], endpoint=True).astype(np.int32)
    multiplier = rng.integers(0, 32767, size=shape[0], endpoint=True).astype(np.int16)
    return Linear(weight, bias, multiplier, 20, bits)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shape", SHAPES)
def test_linears_survive_packing(shape: tuple[int, int], bits: int) -> None:
    layer = random_linear(shape, bits)
    assert weights.weight_bits(layer.weight) == bits
    block = weights.linear_block(layer.weight, layer.bias, layer.multiplier, bits)
    out_tiles, in_tiles = -(-shape[0] // 32), -(-shape[1] // 32)
    planes = out_tiles + (out_tiles + 1) // 2 + out_tiles * in_tiles * bits
    assert len(block) == 128 * planes == 128 * layout.linear_planes(in_tiles, out_tiles, bits)
    unpacked = reading.read_linear(np.frombuffer(block, np.uint8), *shape, bits)
    for actual, expected in zip(unpacked, (layer.weight, layer.bias, layer.multiplier), strict=True):
        np.testing.assert_array_equal(actual, expected)
    whole = reading.read_linear(np.frombuffer(block, np.uint8), 32 * out_tiles, 32 * in_tiles, bits)
    for padded, plain in zip(whole, unpacked, strict=True):
        assert np.count_nonzero(padded) == np.count_nonzero(plain)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_the_stream_is_as_the_specification_says(bits: int) -> None:
    """Read bit by bit and plane by plane, without the packer's own inverse."""
    layer = random_linear((70, 40), bits, seed=bits)
    block = weights.linear_block(layer.weight, layer.bias, layer.multiplier, bits)
    stream = np.frombuffer(block, np.uint8).reshape(-1, 128)
    at, kept, checked = 0, stream[0], 0
    for tile in range(3):
        bias = stream[at].view("<i4")
        at += 1
        if tile % 2 == 0:
            kept, at = stream[at], at + 1
        multiplier = kept[:64] if tile % 2 == 0 else kept[64:]
        rows = range(32 * tile, min(32 * tile + 32, 70))
        for row in rows:
            assert bias[row % 32] == layer.bias[row]
            assert multiplier.view("<i2")[row % 32] == layer.multiplier[row]
        for fan_in in range(2):
            planes, at = stream[at : at + bits], at + bits
            for row in rows:
                for column in range(32 * fan_in, min(32 * fan_in + 32, 40)):
                    bit = 32 * (row % 32) + column % 32
                    digits = [int(planes[p][bit // 8]) >> bit % 8 & 1 for p in range(bits)]
                    value = sum(d << p for p, d in enumerate(digits)) - (digits[-1] << bits)
                    assert value == layer.weight[row, column]
                    checked += 1
    assert at == len(stream)
    assert checked == 70 * 40


def test_planes_of_random_tiles() -> None:
    rng = np.random.default_rng(3)
    tiles = rng.integers(-127, 127, size=(5, 3, 1024), endpoint=True).astype(np.int8)
    planes = weights.to_planes(tiles, 8)
    assert planes.shape == (5, 3, 8, 128)
    np.testing.assert_array_equal(reading.from_planes(planes), tiles)
    bits = np.unpackbits(planes, axis=-1, bitorder="little")
    np.testing.assert_array_equal(bits[:, :, 3], tiles.view(np.uint8) >> 3 & 1)


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 2), (1, 2), (2, 3), (3, 3), (4, 4), (7, 4), (8, 5), (63, 7), (64, 8), (127, 8)]
)
def test_fewest_bits(largest: int, bits: int) -> None:
    assert weights.weight_bits(np.array([[0, -largest]], dtype=np.int8)) == bits


@pytest.mark.parametrize("experts", [1, 2, 15, 16, 17, 33, 64])
def test_gates_survive_packing(experts: int) -> None:
    rng = np.random.default_rng(experts)
    weight = rng.integers(-16319, 16319, size=(experts, 40), endpoint=True).astype(np.int16)
    weight[0, :6] = [-16319, 16319, 63, 64, -64, -65]
    bias = rng.integers(-(2**31), 2**31, size=experts).astype(np.int32)
    block = weights.gate_block(Gate(weight, bias, 1, 1, 1))
    assert len(block) == layout.PLANE * layout.linear_planes(2, layout.gate_tiles(experts), 8)
    actual = reading.read_gate(np.frombuffer(block, np.uint8), experts, 40)
    np.testing.assert_array_equal(actual[0], weight)
    np.testing.assert_array_equal(actual[1], bias)


def test_gate_halves_are_those_of_the_specification() -> None:
    """Tile t holds experts 16 t and up: high halves in rows 0 to 15, low ones in [-64, 63] in 16 to 31."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-16319, 16319, size=(20, 32), endpoint=True).astype(np.int16)
    bias = np.arange(20, dtype=np.int32) + 1
    block = np.frombuffer(weights.gate_block(Gate(weight, bias, 1, 1, 1)), np.uint8)
    rows, biases, _ = reading.read_linear(block, 64, 32, 8)
    for expert in range(20):
        row = 32 * (expert // 16) + expert % 16
        high, low = rows[row].astype(int), rows[row + 16].astype(int)
        assert low.min() >= -64
        assert low.max() <= 63
        np.testing.assert_array_equal(128 * high + low, weight[expert])
        assert biases[row] == expert + 1
        assert biases[row + 16] == 0
    assert rows[36:48].any() == rows[52:].any() == False  # noqa: E712


def test_parameters_and_rows() -> None:
    rng = np.random.default_rng(5)
    for channels in (1, 32, 48, 96, 130):
        first = rng.integers(-(2**31), 2**31, size=channels).astype(np.int32)
        second = rng.integers(-(2**15), 2**15, size=channels).astype(np.int16)
        block = weights.parameter_block(first, second)
        assert len(block) == 128 * layout.parameter_planes(layout.tiles(channels))
        actual = reading.read_parameters(np.frombuffer(block, np.uint8), channels)
        np.testing.assert_array_equal(actual[0], first)
        np.testing.assert_array_equal(actual[1], second)
    rows = rng.integers(-(2**15), 2**15, size=(3, 40)).astype(np.int16)
    data = np.frombuffer(weights.row_block(rows), "<i2")
    load = Instruction(opcode=Opcode.LOAD, rows=3, out_channels=40)
    assert data.nbytes == layout.BEAT * opcodes.weight_beats(load) == 384
    np.testing.assert_array_equal(data.reshape(-1, 64)[:3, :40], rows)


def test_equal_blocks_are_stored_once() -> None:
    image = WeightImage()
    first = image.add("linear", "a", b"x" * 128)
    second = image.add("linear", "b", b"y" * 256)
    assert image.add("linear", "c", b"x" * 128) is first
    assert image.add("norm", "d", b"x" * 128) is not first
    assert [section.name for section in image.sections] == ["a", "b", "d"]
    assert (second.offset, second.beats, image.size) == (2, 4, 512)
    assert b"".join(image.blocks()) == b"x" * 128 + b"y" * 256 + b"x" * 128
