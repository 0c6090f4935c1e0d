# SPDX-License-Identifier: Apache-2.0
"""The C simulation as its Makefile builds it, and programs of single instructions for it."""

import functools
import os

import numpy as np

from edge_moe.accelerator import load_accelerator
from edge_moe.compiler import weights
from edge_moe.testing.checkout import ROOT
from edge_moe.testing.hls_build import make
from edge_moe_host.backends.csim_library import Csim
from edge_moe_host.contract import layout
from edge_moe_host.contract.encoding import encode
from edge_moe_host.contract.isa import ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.layout import TILE, tiles
from edge_moe_host.contract.scratch import int8_pairs

VARIANT = os.environ.get("EDGE_MOE_CSIM", "O3")
LOAD_CHANNELS = 256  # channels of the LOAD instructions that place rows


@functools.cache
def build(variant=VARIANT, accelerator="zcu104"):
    """Path of the library; the C++ is compiled if it is not up to date."""
    run = make("csim", f"VARIANT={variant}", f"ACCELERATOR={accelerator}")
    assert run.returncode == 0, run.stdout + run.stderr
    return ROOT / run.stdout.strip().splitlines()[-1]


@functools.cache
def csim(variant=VARIANT, accelerator="zcu104"):
    """The accelerator, loaded once."""
    return Csim(build(variant, accelerator))


def pad_channels(x):
    """[rows, C] padded to whole tiles with values that must not matter."""
    return np.pad(x, ((0, 0), (0, -x.shape[1] % TILE)), constant_values=77)


def int8_bytes(x):
    """Bytes of int8 rows stored by pairs; the partner of an odd last row may hold any value."""
    x = pad_channels(x)
    x = np.pad(x, ((0, len(x) % 2), (0, 0)), constant_values=-5)
    return x.reshape(len(x) // 2, 2, -1, TILE).swapaxes(1, 2).tobytes()


class Bench:
    """A program that places rows, runs a few instructions and reads rows back."""

    def __init__(self, image=None, patch=1):
        self.limits = load_accelerator("zcu104")
        self.image = np.zeros((1, 1, 3), np.uint8) if image is None else image
        self.program, self.blocks, self.beats, self.free = [], [], 0, 0
        height, width, _ = self.image.shape
        rows = (height // patch) * (width // patch)
        self.patches = self.reserve(layout.int8_rows(rows, layout.int8_row(3 * patch * patch)))
        self.emit(Opcode.PATCHES, rows=rows, out_channels=3 * patch * patch, dst=self.patches, height=height,
                  width=width, patch=patch)  # fmt: skip

    def reserve(self, size):
        """Address of this many bytes, rounded up to whole rows of LOAD."""
        address = self.free
        self.free += -(-size // (2 * LOAD_CHANNELS)) * 2 * LOAD_CHANNELS
        return address

    def block(self, data):
        """Fields that point to a weight block."""
        data += bytes(-len(data) % layout.PLANE)
        place = {"weight_offset": self.beats, "weight_beats": len(data) // layout.BEAT}
        self.blocks.append(data)
        self.beats += place["weight_beats"]
        return place

    def emit(self, opcode, **fields):
        self.program.append(Instruction(opcode=opcode, **fields))

    def place(self, data):
        """Address at which a LOAD puts the bytes."""
        address, row = self.reserve(len(data)), 2 * LOAD_CHANNELS
        data += bytes(-len(data) % row)
        for start in range(0, len(data), row * self.limits.max_tokens):
            part = data[start : start + row * self.limits.max_tokens]
            self.emit(Opcode.LOAD, rows=len(part) // row, out_channels=LOAD_CHANNELS, dst=address + start,
                      **self.block(part))  # fmt: skip
        return address

    def place_int8(self, x):
        return self.place(int8_bytes(x))

    def place_int16(self, x):
        return self.place(pad_channels(x).astype("<i2").tobytes())

    def experts(self, ffns):
        """A table of experts and their blocks."""
        entries = b""
        for ffn in ffns:
            place = self.block(weights.expert_block(ffn.fc1, ffn.fc2))
            entries += encode(
                ExpertEntry(**place, bits1=ffn.fc1.bits, bits2=ffn.fc2.bits, shift1=ffn.fc1.shift,
                            shift2=ffn.fc2.shift, gelu_shift=ffn.gelu_shift,
                            gelu_multiplier=ffn.gelu_multiplier, zero_point=ffn.zero_point)
            )  # fmt: skip
        return self.block(entries)

    def run(self):
        """Run the program and return its instructions' cycles; memory and accumulators stay in the bench."""
        self.emit(Opcode.STORE, src=0, rows=1, in_channels=1)
        self.emit(Opcode.END)
        cycles = []

        def watch(index, count, scratch, sums):
            cycles.append(count)
            if index == len(self.program) - 3:
                self.scratch, self.sums = scratch.copy(), sums.copy()

        program = np.frombuffer(b"".join(map(encode, self.program)), np.uint8)
        image = np.frombuffer(b"".join(self.blocks) or bytes(128), np.uint8)
        registers = csim().execute(program, image, self.image, np.zeros(16, np.uint8), watch=watch)
        assert (registers.status, registers.error) == (1, 0), (registers.error, registers.position)
        assert registers.cycles == sum(cycles)
        return cycles

    def int8(self, address, rows, channels):
        return int8_pairs(self.scratch, address, rows, channels)

    def int16(self, address, rows, channels):
        row = layout.int16_row(channels)
        data = self.scratch[address : address + rows * row].view("<i2")
        return data.reshape(rows, TILE * tiles(channels))[:, :channels]

    def routing(self, address, rows, top_k):
        pairs = self.scratch[address : address + 32 * rows].view("<i2").reshape(rows, 16)
        assert not pairs[:, 2 * top_k :].any()
        return pairs[:, 0 : 2 * top_k : 2].astype(np.int32), pairs[:, 1 : 2 * top_k : 2]


def routing_bytes(expert, score):
    """Routing rows of [rows, k] experts and scores."""
    rows = np.zeros((len(expert), 16), "<i2")
    rows[:, 0 : 2 * expert.shape[1] : 2], rows[:, 1 : 2 * expert.shape[1] : 2] = expert, score
    return rows.tobytes()
