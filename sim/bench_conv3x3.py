# SPDX-License-Identifier: Apache-2.0
"""conv3x3.sv between a model of the scratch memory and a matrix product: every tap of maps of every shape."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from edge_moe.codegen.design import Design
from edge_moe_host.golden.arithmetic import requantise
from edge_moe_host.golden.operators import Linear, conv3x3
from sim.declaration import Operator
from sim.estimated import passes
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "conv3x3",
    kernels=("conv3x3",),
    variants=({}, {"TILE_IN": 8, "MAX_PIXELS": 100}),
    least=150_000,
    illegal=(({"HALF": 8}, "HALF = 8 must be whole bytes"),),
)

TAPS = Design.tap_side**2
SHAPES = ((1, 1), (1, 2), (1, 7), (7, 1), (6, 1), (2, 2), (3, 3), (3, 4), (4, 3), (5, 6), (4, 8))


class Scratch:
    """Two halves of beats that answer reads in order, ``latency`` cycles later; a read elsewhere fails."""

    def __init__(self, tb):
        self.tb, self.latency = tb, 1
        self.lanes = len(tb.dut.m_axis_x_tdata) // 16
        self.beats, self.read = {}, set()
        tb.sink("address"), tb.source("pixels")
        cocotb.start_soon(self._serve())

    def store(self, base, x, tiles):
        """Rows of a map by pairs; channels beyond the row hold anything, an odd last row has no partner."""
        pixels, channels = x.shape
        rows = self.tb.rng.integers(-128, 128, (pixels + pixels % 2, tiles * self.lanes)).astype(np.int8)
        rows[:pixels, :channels] = x
        for half in range(2):
            for pair, row in enumerate(rows[half::2].reshape(-1, tiles, self.lanes)):
                if 2 * pair + half < pixels:
                    for tile in range(tiles):
                        self.beats[half, base + pair * tiles + tile] = row[tile]

    async def _serve(self):
        nothing, late = np.full(self.lanes, 85, np.int8), deque()
        sink = self.tb.sink("address")
        while True:
            await RisingEdge(self.tb.dut.clk)
            while not sink.empty():
                frame = sink.recv_nowait()
                half = len(frame.tdata) // 2
                halves = []
                for h in range(2):
                    field = int.from_bytes(frame.tdata[h * half : (h + 1) * half], "little")
                    there, at = field >> 8 * half - 1, field & (1 << 8 * half - 1) - 1
                    assert not there or (h, at) in self.beats, f"beat {at} of half {h} is not of the map"
                    if there:
                        self.read.add(at)
                    halves.append(self.beats[h, at] if there else nothing)
                late.append((self.tb.cycle + self.latency, np.concatenate(halves)))
            while late and late[0][0] <= self.tb.cycle:
                await self.tb.send("pixels", late.popleft()[1])


def random_layer(rng, out, fan_in):
    weight = rng.integers(-127, 128, (out, 3, 3, fan_in)).astype(np.int8)
    bias = rng.integers(-(2**14), 2**14, out).astype(np.int32)
    return Linear(weight, bias, rng.integers(1000, 32768, out).astype(np.int16), 24)


async def start(tb, base, shape, lines, tiles, out_tiles, pad):
    """Hand over a job: some lines of a map."""
    first, last = lines
    job = {
        "base": base, "height": shape[0], "width": shape[1], "first_line": first, "pad": pad,
        "first_pixel": first * shape[1], "pixels": (last - first) * shape[1], "in_tiles": tiles,
        "out_tiles": out_tiles,
    }  # fmt: skip
    for name, value in job.items():
        getattr(tb.dut, f"{name}_i").value = value
    tb.dut.start_valid_i.value = 1
    await RisingEdge(tb.dut.clk)
    for _ in range(100_000):
        if int(tb.dut.start_ready_o.value):
            break
        await RisingEdge(tb.dut.clk)
    else:
        raise AssertionError("the job was not taken")
    tb.starts.append(tb.cycle)
    tb.dut.start_valid_i.value = 0
    for name in job:
        getattr(tb.dut, f"{name}_i").value = 0
    await RisingEdge(tb.dut.clk)


async def check(tb, x, layer, shape, lines, pad):
    """Every pass is the tap of its tile; their products are the convolution."""
    lanes = len(tb.dut.m_axis_x_tdata) // 16
    (height, width), fan_in, out = shape, x.shape[1], len(layer.weight)
    tiles, out_tiles = -(-fan_in // lanes), -(-out // lanes)
    first, last = lines[0] * width, lines[1] * width
    count = last - first
    weight = np.zeros((out_tiles * lanes, TAPS, tiles * lanes), np.int64)
    weight[:out, :, :fan_in] = layer.weight.reshape(out, TAPS, fan_in)
    grid = np.pad(x.reshape(height, width, fan_in), ((1, 1), (1, 1), (0, 0)), constant_values=pad)
    taps = [grid[y : y + height, z : z + width].reshape(-1, fan_in) for y in range(3) for z in range(3)]
    sums = np.zeros((count, out_tiles * lanes), np.int64)
    for o in range(out_tiles):
        for tap in range(TAPS):
            for tile in range(tiles):
                got = await tb.receive("x", "<i1", (count + count % 2, lanes))
                if not o and not tap and not tile:
                    tb.first_of_all = tb.first_arrival
                channels = slice(tile * lanes, (tile + 1) * lanes)
                due = taps[tap][first:last, channels]
                equal(f"tap {tap}, tile {tile}", got[:count, : due.shape[1]], due)
                part = weight[o * lanes : (o + 1) * lanes, tap, channels]
                sums[:, o * lanes : (o + 1) * lanes] += got[:count].astype(np.int64) @ part.T
    sums = sums[:, :out] + layer.bias
    result = requantise(sums, layer.multiplier, layer.shift, -128, 127, zero_point=-128).astype(np.int8)
    expected = conv3x3(x[None], layer, height, width, pad)[0][first:last]
    hls = (await tb.kernel("conv3x3", x, layer, height, width, pad))[first:last]
    equal(f"map of {height} x {width}, lines {lines}", result, expected, hls)
    tb.ends.append(tb.last_arrival)
    tb.seen["shape"].add(shape), tb.seen["lines"].add(lines)
    tb.saw("pad", pad), tb.saw("tiles", tiles), tb.saw("tiles out", out_tiles)
    tb.saw("first pixel", first % 2)


async def begin(dut):
    tb = TB(dut)
    tb.starts, tb.ends = [], []  # cycles of every job's start and last pixel
    scratch = Scratch(tb)
    tb.sink("x")
    await tb.reset(start_valid_i=0)
    return tb, scratch


def random_map(rng, shape, channels):
    return rng.integers(-128, 128, (shape[0] * shape[1], channels)).astype(np.int8)


@cocotb.test()
async def shapes(dut):
    """Maps of one line, of one column, of odd and even sides, under every mix of idle and back-pressure."""
    tb, scratch = await begin(dut)
    rng, lanes = tb.rng, scratch.lanes
    for turn, shape in enumerate(SHAPES):
        tb.stall(*STALLS[turn % len(STALLS)])
        scratch.latency = int(rng.integers(0, 20))
        channels, out = ((lanes, lanes), (2 * lanes - 3, lanes), (5, lanes + 2))[turn % 3]
        x, layer = random_map(rng, shape, channels), random_layer(rng, out, channels)
        tiles, pad = -(-channels // lanes), (0, -128)[turn % 2]
        base = int(rng.integers(0, 1 << 8))
        scratch.beats.clear()
        scratch.store(base, x, tiles)
        await start(tb, base, shape, (0, shape[0]), tiles, -(-out // lanes), pad)
        await check(tb, x, layer, shape, (0, shape[0]), pad)
        await tb.silent("x")
    tb.cover_stalls()
    cover("one pixel, one line, one column, odd sides", tb.seen["shape"] == set(SHAPES))
    cover("one tile and several, in and out", tb.seen["tiles"] == tb.seen["tiles out"] == {1, 2})
    cover("both pads", tb.seen["pad"] == {0, -128})


@cocotb.test()
async def lines(dut):
    """Jobs of some lines each, that begin with even and odd pixels, one after the other; the last beats."""
    tb, scratch = await begin(dut)
    tb.stall(*STALLS[3])
    shape, channels = (7, 5), scratch.lanes
    x, layer = random_map(tb.rng, shape, channels), random_layer(tb.rng, scratch.lanes, channels)
    base = (1 << len(dut.base_i)) - (shape[0] * shape[1] + 1) // 2
    scratch.store(base, x, 1)
    parts = ((0, 1), (1, 3), (3, 6), (6, 7), (2, 5), (0, 7))

    async def jobs():
        for part in parts:
            await start(tb, base, shape, part, 1, 1, -128 * (part[0] % 2))

    cocotb.start_soon(jobs())
    for part in parts:
        await check(tb, x, layer, shape, part, -128 * (part[0] % 2))
    await tb.silent("x")
    cover(
        "some lines, from even and odd pixels",
        len(tb.seen["lines"]) == 6 and tb.seen["first pixel"] == {0, 1},
    )
    cover(
        "a job that is taken before the one before it is done", any(np.array(tb.starts[1:]) <= tb.ends[:-1])
    )
    cover("last beat", (1 << len(dut.base_i)) - 1 in scratch.read)


@cocotb.test()
async def throughput(dut):
    """A pair of pixels per cycle through every pass, the passes without a bubble between them."""
    tb, scratch = await begin(dut)
    shape, tiles = (9, 12), 2
    x = random_map(tb.rng, shape, tiles * scratch.lanes)
    scratch.store(3, x, tiles)
    scratch.latency = 4
    layer = random_layer(tb.rng, 2 * scratch.lanes, tiles * scratch.lanes)
    await start(tb, 3, shape, (0, shape[0]), tiles, 2, 0)
    await check(tb, x, layer, shape, (0, shape[0]), 0)
    pairs = -(-shape[0] * shape[1] // 2)
    cycles = tb.last_arrival - tb.first_of_all + 1
    model = passes(TAPS * tiles, 2, 8, pairs)
    measured(f"{2 * TAPS * tiles} passes of {pairs} pairs", cycles, model, 0)
