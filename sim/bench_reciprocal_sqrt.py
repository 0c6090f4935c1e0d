# SPDX-License-Identifier: Apache-2.0
"""reciprocal_sqrt.sv against golden and the HLS kernel: every mantissa and exponent, both ends of a bin."""

import cocotb
import numpy as np

from edge_moe_host.golden.arithmetic import floor_log2, reciprocal_sqrt
from sim.declaration import Operator
from sim.inverse import inverses
from sim.tb import TB, cover, equal, measured

OPERATOR = Operator(
    "reciprocal_sqrt",
    kernels=("reciprocal_sqrt",),
    variants=({}, {"WIDTH": 48}),
    least=100_000,
    illegal=(({"WIDTH": 52}, "WIDTH = 52 must be whole bytes and more than 11 bits"),),
)

MANTISSAS = np.arange(512, 2048)
HLS_BITS = 52  # of the kernel's argument


def width(dut):
    return len(dut.s_axis_v_tdata)


def elements(dut, values):
    """Values as whole elements, little-endian."""
    return np.ascontiguousarray(values.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : width(dut) // 8])


def packed(inverse):
    """R and k as the module gives them."""
    value, exponent = inverse
    return value.astype(np.int64) | exponent.astype(np.int64) << 16


async def send(tb, values):
    await tb.send("v", elements(tb.dut, values))


async def check(tb, values):
    found = await inverses(tb, values[:, None], reciprocal_sqrt, "u8", HLS_BITS)
    three = [None if inverse is None else packed(inverse) for inverse in found]
    equal(f"{len(values)} values from {values[0]}", *three)
    k = floor_log2(values) // 2
    tb.saw("mantissa and k", values >> np.maximum(2 * k - 9, 0) << 8 | k)


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
            await send(tb, values)
            await check(tb, values)
    every = {m << 8 | k for m in range(512, 2048) for k in range(5, width(dut) // 2)}
    cover("every mantissa at every exponent", tb.seen["mantissa and k"] >= every)


@cocotb.test()
async def small_values(dut):
    """Values with fewer bits than a mantissa."""
    tb = TB(dut)
    tb.sink("r")
    await tb.reset()
    values = np.arange(1, 5000)
    await send(tb, values)
    await check(tb, values)
    short = {m << 8 | (m.bit_length() - 1) // 2 for m in range(1, MANTISSAS[0])}
    cover("all that are shorter than a mantissa", tb.seen["mantissa and k"] >= short)


@cocotb.test()
async def stalls(dut):
    """Random values of every size under every mix of idle and back-pressure."""
    tb = TB(dut)
    tb.source("v"), tb.sink("r")
    await tb.reset()

    def frame():
        values = 2 ** tb.rng.integers(0, width(dut), 200) + tb.rng.integers(0, 1000, 200)
        return (np.minimum(values, 2 ** width(dut) - 1),)

    await tb.under_stalls("r", 3, frame, send, check)


@cocotb.test()
async def throughput(dut):
    """A value per cycle."""
    tb = TB(dut)
    tb.sink("r")
    await tb.reset()
    values = tb.rng.integers(1, 2 ** (width(dut) - 1), 1000)
    await send(tb, values)
    await check(tb, values)
    measured("1000 values", tb.last_arrival - tb.first_arrival + 1, 1000, 0)
