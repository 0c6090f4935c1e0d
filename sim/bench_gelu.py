# SPDX-License-Identifier: Apache-2.0
"""gelu.sv against golden and the HLS kernel: every int16, frames of any length, an element per cycle."""

import cocotb
import numpy as np

from edge_moe_host.golden import operators
from sim.declaration import Operator
from sim.tb import TB, cover, equal, measured

OPERATOR = Operator(
    "gelu",
    kernels=("gelu",),
    variants=({}, {"LANES": 3}),
    least=131_072,
    illegal=(({"LANES": 0}, "LANES = 0 must be at least 1"),),
)

LATENCY = 5


def lanes(dut):
    return len(dut.m_axis_y_tdata) // 16


async def send(tb, x):
    await tb.send("x", x)


async def check(tb, x):
    got = await tb.receive("y", "<i2", x.shape)
    hls = (await tb.kernel("gelu", x.reshape(-1))).reshape(-1)[: x.size].reshape(x.shape)
    equal("gelu", got, operators.gelu(x), hls)
    tb.saw("x", x)


@cocotb.test()
async def every_value(dut):
    """All 65,536 arguments, in rising order and shuffled, so that each meets both readers of a table."""
    tb = TB(dut)
    tb.sink("y")
    await tb.reset()
    values = np.arange(-(2**15), 2**15).astype(np.int16)
    for x in (values, tb.rng.permutation(values)):
        frame = np.pad(x, (0, -len(x) % lanes(dut)), mode="edge").reshape(-1, lanes(dut))
        await tb.send("x", frame)
        await check(tb, frame)
        measured(f"{len(frame)} elements", tb.last_arrival - tb.first_arrival + 1, len(frame), 0)
    cover("every int16", tb.seen["x"] == set(range(-(2**15), 2**15)))


@cocotb.test()
async def stalled(dut):
    """Frames of 1 to 20 elements under every mix of idle and back-pressure."""
    tb = TB(dut)
    tb.source("x"), tb.sink("y")
    await tb.reset()

    def frame():
        shape = (int(tb.rng.integers(1, 21)), lanes(dut))
        return (tb.rng.integers(-5000, 5000, shape).astype(np.int16),)

    await tb.under_stalls("y", 10, frame, send, check)


@cocotb.test()
async def latency(dut):
    """One element by itself comes out LATENCY cycles after its acceptance."""
    tb = TB(dut)
    tb.sink("y")
    await tb.reset()
    x = tb.rng.integers(-5000, 5000, (1, lanes(dut))).astype(np.int16)
    await tb.send("x", x)
    await tb.accepted("x")
    start = tb.cycle
    await check(tb, x)
    measured("one element", tb.last_arrival - start, LATENCY, 0)
