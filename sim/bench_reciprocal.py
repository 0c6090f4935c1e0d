# SPDX-License-Identifier: Apache-2.0
"""reciprocal.sv against golden and the HLS kernel: every mantissa, every exponent, both ends of each step."""

import cocotb
import numpy as np

from edge_moe_host.golden.arithmetic import MANTISSA_BITS, RECIPROCAL, reciprocal
from tb import STALLS, TB, covered, equal, measured

LATENCY = 5


def lanes(dut):
    return len(dut.s_axis_v_tdata) // 32


def width(dut):
    return int(dut.WIDTH.value)


async def check(tb, v):
    count = v.shape[1]
    got = await tb.receive("r", "u1", (len(v), 3 * count))
    value = np.ascontiguousarray(got[:, : 2 * count]).view("<i2")
    expected, k = reciprocal(v.astype(np.int64))
    hls, hls_k = await tb.kernel("inverse", "reciprocal", np.ascontiguousarray(v.reshape(-1)))
    equal("R", value, expected, hls.reshape(v.shape))
    equal("k", got[:, 2 * count :], k, hls_k.reshape(v.shape))


def rows(dut, values):
    """Values below 2**WIDTH as whole beats."""
    values = np.asarray(values)
    values = values[values < 1 << width(dut)].astype(np.uint32)
    return np.pad(values, (0, -len(values) % lanes(dut)), mode="edge").reshape(-1, lanes(dut))


@cocotb.test()
async def every_entry(dut):
    """Each entry of the table at every exponent: the first and the last argument that meets it."""
    tb = TB(dut)
    tb.sink("r")
    await tb.reset()
    mantissa = np.arange(len(RECIPROCAL)) + len(RECIPROCAL)
    for k in range(width(dut)):
        if k < MANTISSA_BITS:
            v = np.arange(1 << k, 2 << k)
        else:
            first = mantissa << (k - MANTISSA_BITS)
            v = np.concatenate([first, first + (1 << (k - MANTISSA_BITS)) - 1])
        v = rows(dut, tb.rng.permutation(v))
        await tb.send("v", v)
        await check(tb, v)
    covered("every entry", "smallest and largest argument")


@cocotb.test()
async def stalled(dut):
    """Arguments of every size under every mix of idle and back-pressure."""
    tb = TB(dut)
    tb.source("v"), tb.sink("r")
    await tb.reset()
    for idle, back in STALLS:
        tb.stall(idle, back)
        frames = []
        for _ in range(10):
            v = 2.0 ** tb.rng.uniform(0, width(dut), int(tb.rng.integers(1, 21)) * lanes(dut))
            frames.append(rows(dut, np.minimum(np.floor(v), 2 ** width(dut) - 1)))
            await tb.send("v", frames[-1])
        for frame in frames:
            await check(tb, frame)
        await tb.silent("r")
    covered("idle", "back-pressure")


@cocotb.test()
async def throughput(dut):
    """A beat per cycle, the last LATENCY cycles behind its acceptance."""
    tb = TB(dut)
    tb.sink("r")
    await tb.reset()
    v = rows(dut, tb.rng.integers(1, 1 << width(dut), 300 * lanes(dut)))
    await tb.send("v", v)
    await tb.accepted("v")
    start = tb.cycle
    await check(tb, v)
    measured(f"{len(v)} beats", tb.last_arrival - tb.first_arrival + 1, len(v), 0)
    measured("last beat", tb.last_arrival - start, LATENCY, 0)
