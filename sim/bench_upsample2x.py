# SPDX-License-Identifier: Apache-2.0
"""upsample2x.sv against golden and the HLS kernel: maps of every shape, one after the other."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from edge_moe_host.contract.isa import Opcode
from edge_moe_host.golden.operators import upsample2x
from sim.declaration import Operator
from sim.estimated import steps
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "upsample2x",
    kernels=("upsample2x",),
    variants=({}, {"LANES": 3, "MAX_PIXELS": 64}),
    least=400_000,
    illegal=(
        ({"LANES": 0}, "LANES = 0 must be at least 1"),
        ({"MAX_PIXELS": 2}, "MAX_PIXELS = 2 must be at least 4"),
    ),
)

SHAPES = (
    (1, 1), (1, 2), (2, 1), (1, 9), (9, 1), (1, 8), (8, 1), (2, 2), (3, 3), (3, 4), (4, 3), (5, 6), (6, 5),
)  # fmt: skip


class Enlarger:
    """The module with maps on their way through it."""

    def __init__(self, dut):
        self.tb, self.dut = TB(dut), dut
        self.lanes = len(dut.m_axis_y_tdata) // 16
        self.pixels = 2 * len(dut.even)
        self.jobs = []
        self.starts, self.ends = [], []  # cycles of every map's start and last pixel
        self.tb.source("x"), self.tb.sink("y")

    async def reset(self):
        await self.tb.reset(start_valid_i=0)
        cocotb.start_soon(self._start())

    async def _start(self):
        """Hand over each job as soon as the module takes it; its inputs hold it for that cycle only."""
        while True:
            self.dut.start_valid_i.value = bool(self.jobs)
            for name, value in zip(("height", "width"), self.jobs[0] if self.jobs else (0, 0), strict=True):
                getattr(self.dut, f"{name}_i").value = value
            await RisingEdge(self.dut.clk)
            if self.jobs and int(self.dut.start_valid_i.value) and int(self.dut.start_ready_o.value):
                self.jobs.pop(0)
                self.starts.append(self.tb.cycle)

    async def send(self, x, shape):
        """A map: rows of the lanes' channels; the partner of an odd last pixel holds anything."""
        rows = self.tb.rng.integers(-128, 128, (len(x) + len(x) % 2, self.lanes)).astype(np.int8)
        rows[: len(x)] = x
        await self.tb.send("x", rows)
        self.jobs.append(shape)

    async def check(self, x, shape):
        """The next frame is this map's."""
        got = await self.tb.receive("y", "<i1", (4 * len(x), self.lanes))
        hls = await self.tb.kernel("upsample2x", x, *shape)
        equal(f"map of {shape[0]} x {shape[1]}", got, upsample2x(x[None], *shape)[0], hls)
        self.ends.append(self.tb.last_arrival)
        self.tb.seen["shape"].add(shape)
        self.tb.saw("step", abs(np.diff(x.astype(int), axis=0)))
        self.tb.saw("same everywhere", x.min() == x.max())

    def random(self, shape):
        return self.tb.rng.integers(-128, 128, (shape[0] * shape[1], self.lanes)).astype(np.int8)


@cocotb.test()
async def shapes(dut):
    """Every shape, one map after the other, under every mix of idle and back-pressure."""
    up = Enlarger(dut)
    await up.reset()
    for turn, (idle, back) in enumerate(STALLS):
        up.tb.stall(idle, back)
        maps = [(up.random(shape), shape) for shape in SHAPES[turn % 2 :: 2] + SHAPES[: 2 * turn : 3]]
        for x, shape in maps:
            await up.send(x, shape)
        for x, shape in maps:
            await up.check(x, shape)
        await up.tb.silent("y")
    up.tb.cover_stalls()
    cover("one pixel, one line, one column, odd sides", up.tb.seen["shape"] == set(SHAPES))
    cover("a map that begins before the one before it is done", any(np.array(up.starts[1:]) < up.ends[:-1]))


@cocotb.test()
async def starved(dut):
    """Pixels that come slower than they are read: each line waits for its own."""
    up = Enlarger(dut)
    await up.reset()
    for idle in (0.8, 0.95):
        up.tb.stall(idle, 0.1)
        for shape in ((3, 8), (4, 7), (1, 5)):
            x = up.random(shape)
            await up.send(x, shape)
            await up.check(x, shape)
    await up.tb.silent("y")
    up.tb.cover_stalls()


@cocotb.test()
async def extremes(dut):
    """The largest steps between neighbours, and maps of one value: nothing overflows or drifts."""
    up = Enlarger(dut)
    await up.reset()
    shape = (5, 6)
    for low, high in ((-128, 127), (127, 127), (-128, -128), (-1, 0)):
        x = np.where(up.tb.rng.integers(0, 2, (shape[0] * shape[1], up.lanes)) == 1, high, low).astype(
            np.int8
        )
        await up.send(x, shape)
        await up.check(x, shape)
    cover("no step and the largest", up.tb.seen["step"] >= {0, 255})
    cover("a map of one value", True in up.tb.seen["same everywhere"])


@cocotb.test()
async def largest(dut):
    """Maps of as many pixels as the buffer holds: the next ones wait for room."""
    up = Enlarger(dut)
    await up.reset()
    shapes = ((1, up.pixels), (up.pixels // 2, 2), (1, up.pixels - 1))
    maps = [(up.random(shape), shape) for shape in shapes]
    for x, shape in maps:
        await up.send(x, shape)
    for x, shape in maps:
        await up.check(x, shape)
    await up.tb.silent("y")
    cover("largest maps", up.tb.seen["shape"] == set(shapes))


@cocotb.test()
async def throughput(dut):
    """A line of outputs takes width + 2 steps, as in hls/; the first two of a map give nothing yet."""
    up = Enlarger(dut)
    await up.reset()
    for shape in ((6, 16), (5, 11)):
        height, width = shape
        x = up.random(shape)
        await up.send(x, shape)
        await up.check(x, shape)
        cycles = up.tb.last_arrival - up.tb.first_arrival + 1
        model = steps(Opcode.UPSAMPLE2X, height=height, width=width, in_channels=1)
        measured(f"map of {height} x {width}", cycles + 2, model, 0)
