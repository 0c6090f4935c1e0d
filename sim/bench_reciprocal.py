# SPDX-License-Identifier: Apache-2.0
"""reciprocal.sv against golden and the HLS kernel: every mantissa, every exponent, both ends of each step."""

import cocotb
import numpy as np

from edge_moe_host.golden.arithmetic import MANTISSA_BITS, RECIPROCAL, floor_log2, reciprocal
from sim.declaration import Operator
from sim.inverse import inverses
from sim.tb import TB, cover, equal, measured

OPERATOR = Operator(
    "reciprocal",
    kernels=("reciprocal",),
    variants=({}, {"LANES": 1, "WIDTH": 27}),
    least=80_000,
    illegal=(
        ({"LANES": 3}, "LANES = 3 must be 1 or 2"),
        ({"WIDTH": 10}, "WIDTH = 10 must be within [12, 32]"),
        ({"WIDTH": 33}, "WIDTH = 33 must be within [12, 32]"),
    ),
)

LATENCY = 5


def lanes(dut):
    return len(dut.s_axis_v_tdata) // 32


def width(dut):
    return int(dut.WIDTH.value)


async def check(tb, v):
    v = v.astype(np.int64)
    for what, *three in zip("Rk", *await inverses(tb, v, reciprocal, "u4", 32), strict=True):
        equal(what, *three)
    k = floor_log2(v)
    tb.saw("argument", v)
    tb.saw("entry and k", ((v << 32 - k >> 32 - MANTISSA_BITS) - len(RECIPROCAL)) << 8 | k)


async def send(tb, v):
    await tb.send("v", v)


def rows(dut, values):
    """Values below 2**WIDTH as whole elements."""
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
    every = {entry << 8 | k for entry in range(len(RECIPROCAL)) for k in range(MANTISSA_BITS, width(dut))}
    cover("every entry at every exponent", tb.seen["entry and k"] >= every)
    cover("every argument below a mantissa", tb.seen["argument"] >= set(range(1, len(RECIPROCAL))))
    cover("largest argument", 2 ** width(dut) - 1 in tb.seen["argument"])


@cocotb.test()
async def stalled(dut):
    """Arguments of every size under every mix of idle and back-pressure."""
    tb = TB(dut)
    tb.source("v"), tb.sink("r")
    await tb.reset()

    def frame():
        v = 2.0 ** tb.rng.uniform(0, width(dut), int(tb.rng.integers(1, 21)) * lanes(dut))
        return (rows(dut, np.minimum(np.floor(v), 2 ** width(dut) - 1)),)

    await tb.under_stalls("r", 10, frame, send, check)


@cocotb.test()
async def throughput(dut):
    """An element per cycle, the last LATENCY cycles after its acceptance."""
    tb = TB(dut)
    tb.sink("r")
    await tb.reset()
    v = rows(dut, tb.rng.integers(1, 1 << width(dut), 300 * lanes(dut)))
    await tb.send("v", v)
    await tb.accepted("v")
    start = tb.cycle
    await check(tb, v)
    measured(f"{len(v)} elements", tb.last_arrival - tb.first_arrival + 1, len(v), 0)
    measured("last element", tb.last_arrival - start, LATENCY, 0)
