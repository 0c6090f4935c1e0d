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
from edge_moe_host.contract.weights import transpose_bits
from edge_moe_host.golden.operators import Gate, Linear


def weight_bits(weight: np.ndarray) -> int:
    """Fewest bits, 2 to 8, whose symmetric range +-(2**(bits-1) - 1) holds every weight, int8 [...]."""
    return max(2, int(np.abs(weight.astype(np.int64)).max(initial=0)).bit_length() + 1)


def to_planes(weights: np.ndarray, bits: int) -> np.ndarray:
    """int8 [..., 1024] -> uint8 [..., bits, 128]: bit n of plane p, from byte 0 on, is bit p of weight n."""
    octets = weights.view(np.uint8).reshape(*weights.shape[:-1], PLANE, 8)
    return np.ascontiguousarray(transpose_bits(octets).swapaxes(-1, -2)[..., :bits, :])


def _padded(values: np.ndarray, dtype: str) -> np.ndarray:
    """[C] -> uint8 [tiles, bytes of 32 values], then zeros."""
    out = np.zeros(TILE * tiles(len(values)), dtype=dtype)
    out[: len(values)] = values
    return out.view(np.uint8).reshape(-1, TILE * out.itemsize)


def _parameters(first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """Planes of each tile's parameters: 32 int32 ``first``; in even tiles also 2 x 32 int16 ``second``."""
    wide, narrow = _padded(first, "<i4"), _padded(second, "<i2")
    if len(narrow) % 2:
        narrow = np.concatenate([narrow, np.zeros_like(narrow[:1])])
    pairs = narrow.reshape(-1, PLANE)
    return [
        np.stack([wide[tile], pairs[tile // 2]]) if tile % 2 == 0 else wide[tile : tile + 1]
        for tile in range(len(wide))
    ]


def parameter_block(first: np.ndarray, second: np.ndarray) -> bytes:
    """A block that has parameters only: 32-bit ``first`` [C] and 16-bit ``second`` [C]."""
    return np.concatenate(_parameters(first, second)).tobytes()


def linear_block(weight: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, bits: int) -> bytes:
    """Stream of a linear, weight int8 [out, in]: per tile of 32 outputs its parameters, then its tiles."""
    out, fan_in = weight.shape
    padded = np.zeros((TILE * tiles(out), TILE * tiles(fan_in)), dtype=np.int8)
    padded[:out, :fan_in] = weight
    grid = padded.reshape(tiles(out), TILE, tiles(fan_in), TILE).swapaxes(1, 2)
    planes = to_planes(np.ascontiguousarray(grid).reshape(tiles(out), tiles(fan_in), TILE_WEIGHTS), bits)
    blocks: list[np.ndarray] = []
    for tile, parameters in enumerate(_parameters(bias, multiplier)):
        blocks += [parameters, planes[tile].reshape(-1, PLANE)]
    return np.concatenate(blocks).tobytes()


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
    bias = np.zeros((count, 2, GATE_EXPERTS), dtype=np.int32)
    flat = np.zeros(GATE_EXPERTS * count, dtype=np.int32)
    flat[:E] = gate.bias
    bias[:, 0] = flat.reshape(count, GATE_EXPERTS)
    rows = halves.reshape(TILE * count, D).astype(np.int8)
    return linear_block(rows, bias.reshape(-1), np.zeros(TILE * count, dtype=np.int16), GATE_BITS)


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
