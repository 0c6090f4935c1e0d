# SPDX-License-Identifier: Apache-2.0
"""residual_add.sv against golden and the HLS kernel: both saturations, either stream the later one."""

import itertools

import cocotb
import numpy as np

from edge_moe_host.golden import operators
from sim.declaration import Operator
from sim.tb import TB, cover, equal, measured

OPERATOR = Operator(
    "residual_add",
    kernels=("residual_add",),
    variants=({}, {"LANES": 3}),
    least=40_000,
    illegal=(({"LANES": 0}, "LANES = 0 must be at least 1"),),
)

LATENCY = 3
CORNERS = np.array([-32768, -32767, -16385, -16384, -1, 0, 1, 16383, 16384, 32766, 32767], np.int16)


def lanes(dut):
    return len(dut.m_axis_y_tdata) // 16


async def send(tb, residual, update):
    await tb.send("residual", residual)
    await tb.send("update", update)


async def check(tb, residual, update):
    got = await tb.receive("y", "<i2", update.shape)
    pad = -update.size % 32
    flat = [np.pad(x.reshape(-1), (0, pad)) for x in (residual, update)]
    hls = (await tb.kernel("residual_add", *flat))[: update.size].reshape(update.shape)
    equal("residual_add", got, operators.residual_add(residual, update), hls)
    tb.saw_saturation(residual.astype(int) + update, -32768, 32767)
    tb.saw("lead of residual", tb.offered["update"] - tb.offered["residual"])


@cocotb.test()
async def corners(dut):
    """Every pair of corner values: sums far beyond, at, and just inside both ends."""
    tb = TB(dut)
    tb.sink("y")
    await tb.reset()
    pairs = np.array(list(itertools.product(CORNERS, CORNERS)), np.int16)
    pairs = np.pad(pairs, ((0, -len(pairs) % lanes(dut)), (0, 0)), mode="edge")
    residual, update = (np.ascontiguousarray(pairs[:, i]).reshape(-1, lanes(dut)) for i in (0, 1))
    await send(tb, residual, update)
    await check(tb, residual, update)
    cover("both saturations and none", tb.seen["saturation"] == {-1, 0, 1})


@cocotb.test()
async def stalled(dut):
    """Frames of 1 to 20 elements under every mix of idle and back-pressure; the streams pause apart."""
    tb = TB(dut)
    tb.source("residual"), tb.source("update"), tb.sink("y")
    await tb.reset()

    def frame():
        shape = (2, int(tb.rng.integers(1, 21)), lanes(dut))
        return tuple(tb.rng.integers(-32768, 32768, shape).astype(np.int16))

    await tb.under_stalls("y", 10, frame, send, check)


@cocotb.test()
async def late_partner(dut):
    """Nothing comes and nothing is lost while one stream waits for the other, whichever it is."""
    tb = TB(dut)
    tb.sink("y")
    await tb.reset()
    for first, second in (("residual", "update"), ("update", "residual")):
        frame = {n: tb.rng.integers(-32768, 32768, (4, lanes(dut))).astype(np.int16) for n in (first, second)}
        await tb.send(first, frame[first])
        await tb.silent("y", 20)
        await tb.send(second, frame[second])
        await check(tb, frame["residual"], frame["update"])
    lead = tb.seen["lead of residual"]
    cover("late residual, late update", min(lead) <= -20 and max(lead) >= 20)


@cocotb.test()
async def throughput(dut):
    """An element per cycle, the last LATENCY cycles after its acceptance."""
    tb = TB(dut)
    tb.sink("y")
    await tb.reset()
    count = 300
    frame = tb.rng.integers(-32768, 32768, (2, count, lanes(dut))).astype(np.int16)
    await send(tb, *frame)
    await tb.accepted("update")
    start = tb.cycle
    await check(tb, *frame)
    measured(f"{count} elements", tb.last_arrival - tb.first_arrival + 1, count, 0)
    measured("last element", tb.last_arrival - start, LATENCY, 0)
