# SPDX-License-Identifier: Apache-2.0
"""Reading weight blocks: parameters, linears and gates from the bytes of a weight image. SPEC.md, section 9.

``edge_moe.compiler.weights`` writes them.
"""

import numpy as np

from edge_moe_host.contract import layout
from edge_moe_host.contract.layout import GATE_BITS, GATE_EXPERTS, LOW_BITS, PLANE, TILE, TILE_WEIGHTS, tiles


def transpose_bits(octets: np.ndarray) -> np.ndarray:
    """uint8 [..., 8] -> uint8 [..., 8]: bit j of byte i becomes bit i of byte j. Its own inverse."""
    x = np.ascontiguousarray(octets).view("<u8")
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        swap = (x ^ (x >> np.uint64(shift))) & np.uint64(mask)
        x = x ^ swap ^ (swap << np.uint64(shift))
    return x.view(np.uint8)


def from_planes(planes: np.ndarray) -> np.ndarray:
    """uint8 [..., bits, 128] -> int8 [..., 1024]; the top plane is the sign."""
    bits = planes.shape[-2]
    sign = np.broadcast_to(planes[..., bits - 1 :, :], (*planes.shape[:-2], 8 - bits, PLANE))
    full = np.concatenate([planes, sign], axis=-2)
    octets = transpose_bits(full.swapaxes(-1, -2))
    return octets.reshape(*planes.shape[:-2], TILE_WEIGHTS).view(np.int8)


def begins(out_tiles: int, tile_planes: int) -> np.ndarray:
    """Plane at which each tile's parameters begin, in a stream with ``tile_planes`` weight planes a tile."""
    tile = np.arange(out_tiles)
    return tile * (tile_planes + 1) + (tile + 1) // 2


def weight_planes(out_tiles: int, tile_planes: int) -> np.ndarray:
    """[out_tiles, tile_planes]: the planes of each tile's weights, after its parameters."""
    after = begins(out_tiles, tile_planes) + 2 - np.arange(out_tiles) % 2
    return after[:, None] + np.arange(tile_planes)


def parameters(planes: np.ndarray, out_tiles: int, tile_planes: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Biases int32 and multipliers int16, [out_tiles, 32], of such a stream, uint8 [planes, 128]."""
    first = begins(out_tiles, tile_planes)
    pairs = planes[first[::2] + 1].view("<i2").reshape(-1, TILE)
    return planes[first].view("<i4"), pairs[:out_tiles]


def read_parameters(block: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 [channels] and int16 [channels] of a block that has parameters only."""
    first, second = parameters(block.reshape(-1, PLANE), tiles(channels))
    return first.reshape(-1)[:channels], second.reshape(-1)[:channels]


def read_linear(
    block: np.ndarray, out: int, fan_in: int, bits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight int8 [out, fan_in], bias int32 [out] and multiplier int16 [out] of a linear's block."""
    planes, tile_planes = block.reshape(-1, PLANE), tiles(fan_in) * bits
    bias, multiplier = (part.reshape(-1) for part in parameters(planes, tiles(out), tile_planes))
    tile_bits = planes[weight_planes(tiles(out), tile_planes)].reshape(tiles(out), tiles(fan_in), bits, PLANE)
    grid = from_planes(tile_bits)
    by_rows = grid.reshape(tiles(out), tiles(fan_in), TILE, TILE).swapaxes(1, 2)
    weight = by_rows.reshape(TILE * tiles(out), TILE * tiles(fan_in))
    return np.ascontiguousarray(weight[:out, :fan_in]), bias[:out], multiplier[:out]


def read_gate(block: np.ndarray, experts: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight int16 [experts, width] and bias int32 [experts] of a gate's block."""
    count = layout.gate_tiles(experts)
    rows, bias, _ = read_linear(block, TILE * count, width, GATE_BITS)
    halves = rows.reshape(count, 2, GATE_EXPERTS, width).astype(np.int16)
    weight = (halves[:, 0] << LOW_BITS) + halves[:, 1]
    first = bias.reshape(count, 2, GATE_EXPERTS)[:, 0].reshape(-1)
    return weight.reshape(-1, width)[:experts], first[:experts]
