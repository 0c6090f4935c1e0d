# SPDX-License-Identifier: Apache-2.0
"""Writing the weight image: bit planes of tiles, parameters between them, blocks stored once. SPEC.md, 9."""

import hashlib
import zlib
from collections.abc import Sequence

import numpy as np

from edge_moe_host.contract import layout
from edge_moe_host.contract.layout import (
    GATE_BITS,
    GATE_EXPERTS,
    LOW_BITS,
    PLANE,
    TILE,
    TILE_WEIGHTS,
    tiles,
)
from edge_moe_host.contract.manifest import Section
from edge_moe_host.contract.weights import begins, transpose_bits, weight_planes
from edge_moe_host.golden.operators import Gate, Linear


def weight_bits(weight: np.ndarray) -> int:
    """Fewest bits, 2 to 8, whose symmetric range +-(2**(bits-1) - 1) holds every weight, int8 [...]."""
    return max(2, int(np.abs(weight.astype(np.int64)).max(initial=0)).bit_length() + 1)


def to_planes(weights: np.ndarray, bits: int) -> np.ndarray:
    """int8 [..., 1024] -> uint8 [..., bits, 128]: bit n of plane p, from byte 0 on, is bit p of weight n."""
    octets = weights.view(np.uint8).reshape(*weights.shape[:-1], PLANE, 8)
    return np.ascontiguousarray(transpose_bits(octets).swapaxes(-1, -2)[..., :bits, :])


def _planes(values: np.ndarray, dtype: str) -> np.ndarray:
    """[C] as uint8 [planes, 128], then zeros."""
    per_plane = PLANE // np.dtype(dtype).itemsize
    out = np.zeros(-(-len(values) // per_plane) * per_plane, dtype=dtype)
    out[: len(values)] = values
    return out.view(np.uint8).reshape(-1, PLANE)


def _stream(first: np.ndarray, second: np.ndarray, planes: np.ndarray) -> bytes:
    """Per tile 32 int32 ``first``, in even tiles also 2 x 32 int16 ``second``, then its planes of weights,
    uint8 [tiles, planes, 128]."""
    out_tiles, tile_planes = planes.shape[:2]
    stream = np.zeros((layout.parameter_planes(out_tiles) + out_tiles * tile_planes, PLANE), np.uint8)
    at = begins(out_tiles, tile_planes)
    stream[at], stream[at[::2] + 1] = _planes(first, "<i4"), _planes(second, "<i2")
    stream[weight_planes(out_tiles, tile_planes)] = planes
    return stream.tobytes()


def parameter_block(first: np.ndarray, second: np.ndarray) -> bytes:
    """A block that has parameters only: 32-bit ``first`` [C] and 16-bit ``second`` [C]."""
    return _stream(first, second, np.zeros((tiles(len(first)), 0, PLANE), np.uint8))


def linear_block(weight: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, bits: int) -> bytes:
    """Stream of a linear, weight int8 [out, in]: per tile of 32 outputs its parameters, then its tiles."""
    out, fan_in = weight.shape
    padded = np.zeros((TILE * tiles(out), TILE * tiles(fan_in)), dtype=np.int8)
    padded[:out, :fan_in] = weight
    grid = padded.reshape(tiles(out), TILE, tiles(fan_in), TILE).swapaxes(1, 2)
    planes = to_planes(np.ascontiguousarray(grid).reshape(tiles(out), tiles(fan_in), TILE_WEIGHTS), bits)
    return _stream(bias, multiplier, planes.reshape(tiles(out), -1, PLANE))


def expert_block(fc1: Linear, fc2: Linear) -> bytes:
    """Both linears of an expert, one after the other."""
    return linear_block(fc1.weight, fc1.bias, fc1.multiplier, fc1.bits) + linear_block(
        fc2.weight, fc2.bias, fc2.multiplier, fc2.bits
    )


def gate_block(gate: Gate) -> bytes:
    """A gate as a linear of int8 halves: in each tile 16 rows of high ones, then 16 rows of low ones."""
    E, D = gate.weight.shape
    count = layout.gate_tiles(E)
    wide = np.zeros((GATE_EXPERTS * count, D), dtype=np.int64)
    wide[:E] = gate.weight
    high = (wide + (1 << LOW_BITS >> 1)) >> LOW_BITS
    low = wide - (high << LOW_BITS)
    halves = np.stack([high, low]).reshape(2, count, GATE_EXPERTS, D).swapaxes(0, 1)
    bias = np.zeros((2, GATE_EXPERTS * count), dtype=np.int32)
    bias[0, :E] = gate.bias
    biases = bias.reshape(2, count, GATE_EXPERTS).swapaxes(0, 1).reshape(-1)
    rows = halves.reshape(TILE * count, D).astype(np.int8)
    return linear_block(rows, biases, np.zeros(TILE * count, dtype=np.int16), GATE_BITS)


def row_block(rows: np.ndarray) -> bytes:
    """int16 [N, C] as scratch rows, padded to whole planes."""
    out = np.zeros((len(rows), TILE * tiles(rows.shape[1])), dtype="<i2")
    out[:, : rows.shape[1]] = rows
    data = out.tobytes()
    return data + bytes(-len(data) % PLANE)


class WeightImage:
    """Blocks in the order of their first use; equal blocks are stored once."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self._blocks: list[bytes] = []
        self._places: dict[tuple[str, bytes], Section] = {}
        self._beats = 0

    def add(self, kind: str, name: str, block: bytes) -> Section:
        """Store the block; returns its section, new or shared."""
        key = (kind, hashlib.sha256(block).digest())
        if key not in self._places:
            section = Section(name, kind, self._beats, len(block) // layout.BEAT, zlib.crc32(block))
            self._places[key] = section
            self.sections.append(section)
            self._blocks.append(block)
            self._beats += section.beats
        return self._places[key]

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return self._beats * layout.BEAT

    def blocks(self) -> Sequence[bytes]:
        """The image's bytes, block by block."""
        return tuple(self._blocks)
