# SPDX-License-Identifier: Apache-2.0
"""reciprocal_sqrt.sv against golden and the HLS kernel: every mantissa and exponent, both ends of a bin."""

import cocotb
import numpy as np

from edge_moe_host.golden.arithmetic import reciprocal_sqrt
from tb import STALLS, TB, covered, equal, measured

MANTISSAS = np.arange(512, 2048)
HLS_BITS = 52  # of the kernel's argument
CALL = 4096  # values of one call of the kernel


def width(dut):
    return len(dut.s_axis_v_tdata)


def beats(dut, values):
    """Values as whole beats, little-endian."""
    return np.ascontiguousarray(values.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : width(dut) // 8])


async def hls_inverse(tb, values):
    if values.max() >= 1 << HLS_BITS:
        return None
    calls = [values[i : i + CALL].astype(np.uint64) for i in range(0, len(values), CALL)]
    return np.concatenate([packed(*await tb.kernel("inverse", "reciprocal_sqrt", call)) for call in calls])


def packed(value, exponent):
    """R and k as the module gives them."""
    return value.astype(np.int64) | exponent.astype(np.int64) << 16


async def check(tb, values):
    got = (await tb.receive("r", "u1", (len(values), 3))).astype(np.int64)
    got = got[:, 0] | got[:, 1] << 8 | got[:, 2] << 16
    hls = await hls_inverse(tb, values)
    equal(f"{len(values)} values from {values[0]}", got, packed(*reciprocal_sqrt(values)), hls)


@cocotb.test()
async def every_mantissa(dut):
    """All entries of the table at every exponent: the first and the last value of each bin, one between."""
    tb = TB(dut)
    tb.sink("r")
    await tb.reset()
    for k in range(5, width(dut) // 2):
        below = 2 * k - 9  # bits that do not count
        offsets = tb.rng.integers(0, 2 ** max(below, 0), len(MANTISSAS))
        for fill in (0, 2 ** max(below, 0) - 1, offsets):
            values = (MANTISSAS << below) + fill if below > 0 else MANTISSAS
            await tb.send("v", beats(dut, values))
            await check(tb, values)
    covered("every mantissa", "every exponent")


@cocotb.test()
async def small_values(dut):
    """Values with fewer bits than a mantissa."""
    tb = TB(dut)
    tb.sink("r")
    await tb.reset()
    values = np.arange(1, 5000)
    await tb.send("v", beats(dut, values))
    await check(tb, values)
    covered("shorter than a mantissa")


@cocotb.test()
async def stalls(dut):
    """Random values of every size under every mix of idle and back-pressure."""
    tb = TB(dut)
    tb.source("v"), tb.sink("r")
    await tb.reset()
    for idle, back in STALLS:
        tb.stall(idle, back)
        frames = [2 ** tb.rng.integers(0, width(dut), 200) + tb.rng.integers(0, 1000, 200) for _ in range(3)]
        frames = [np.minimum(frame, 2 ** width(dut) - 1) for frame in frames]
        for frame in frames:
            await tb.send("v", beats(dut, frame))
        for frame in frames:
            await check(tb, frame)
        await tb.silent("r")
    covered("idle", "back-pressure")


@cocotb.test()
async def throughput(dut):
    """A value per cycle."""
    tb = TB(dut)
    tb.sink("r")
    await tb.reset()
    values = tb.rng.integers(1, 2 ** (width(dut) - 1), 1000)
    await tb.send("v", beats(dut, values))
    await check(tb, values)
    measured("1000 values", tb.last_arrival - tb.first_arrival + 1, 1000, 0)
