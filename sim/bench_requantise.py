# SPDX-License-Identifier: Apache-2.0
"""requantise.sv against golden and the HLS kernel: corners of every field, random values, changing layers."""

import itertools

import cocotb
import numpy as np

from edge_moe_host.golden.arithmetic import requantise
from sim.declaration import Operator
from sim.tb import TB, cover, equal, measured

OPERATOR = Operator(
    "requantise",
    kernels=("requantise",),
    variants=({}, {"LANES": 3}, {"LANES": 8, "WIDTH": 27}),
    least=20_000,
    illegal=(
        ({"LANES": 0}, "LANES = 0 must be at least 1"),
        ({"WIDTH": 33}, "WIDTH = 33 from 16 to 32"),
    ),
)

LIMITS = ((-128, 127), (-127, 127), (-32768, 32767))
SHIFTS = (1, 2, 7, 15, 16, 23, 31, 32, 46, 47)
SMALL = (-65536, -3, -2, -1, 0, 1, 2, 3, 65535)
M_CORNERS = np.array([0, 1, 2, 3, 16383, 16384, 32766, 32767])


def lanes(dut):
    return len(dut.m_axis_y_tdata) // 16


def width(dut):
    """Bits of a sum: what a lane has beside its multiplier."""
    return len(dut.s_axis_a_tdata) // lanes(dut) - 16


def elements(dut, a, m):
    """Sums and multipliers [elements, lanes] as the stream has them."""
    rows = [_bits(a, width(dut)), _bits(m, 16)]
    return np.packbits(np.concatenate(rows, axis=1), axis=1, bitorder="little")


def _bits(values, count):
    """The lowest bits of each value of [elements, lanes], lowest first: uint8 [elements, lanes * count]."""
    return (values[..., None] >> np.arange(count) & 1).astype(np.uint8).reshape(len(values), -1)


async def layer(tb, a, m, shift, low, high, zero):
    """One layer's frame; the registers of the layer change as soon as the frame before was accepted."""
    for name, value in (("shift_i", shift), ("low_i", low), ("high_i", high), ("zero_point_i", zero)):
        getattr(tb.dut, name).value = value
    await tb.send("a", elements(tb.dut, a, m))
    await tb.accepted("a")


async def check(tb, a, m, shift, low, high, zero):
    got = await tb.receive("y", "<i2", a.shape)
    expected = requantise(a, m, shift, low, high, zero)
    tb.saw_saturation(requantise(a, m, shift, -(2**62), 2**62, zero), low, high)
    tb.saw("shift", shift), tb.saw("multiplier", m)
    # the kernel has one multiplier for each channel: values are in columns
    hls = (await tb.kernel(
        "requantise", np.ascontiguousarray(a.reshape(1, -1).astype(np.int32)),
        np.ascontiguousarray(m.reshape(-1).astype(np.int16)),
        shift, low, high, zero,
    )).reshape(a.shape) if a.size <= 1024 else None  # fmt: skip
    equal(f"shift {shift}, [{low}, {high}], zero point {zero}", got, expected, hls)


@cocotb.test()
async def corners(dut):
    """Every combination of corner sums and multipliers under every corner shift and limits."""
    tb = TB(dut)
    tb.sink("y")
    await tb.reset(shift_i=1, low_i=0, high_i=0, zero_point_i=0)
    end = 2 ** (width(dut) - 1)
    pairs = np.array(list(itertools.product((-end, -end + 1, *SMALL, end - 2, end - 1), M_CORNERS)))
    pairs = np.pad(pairs, ((0, -len(pairs) % lanes(dut)), (0, 0)), mode="edge")
    a, m = (pairs[:, i].reshape(-1, lanes(dut)) for i in (0, 1))
    for shift, (low, high), zero in itertools.product(SHIFTS, LIMITS, (-128, -1, 0, 127)):
        await layer(tb, a, m, shift, low, high, zero)
        await check(tb, a, m, shift, low, high, zero)
    cover("both saturations and none", tb.seen["saturation"] == {-1, 0, 1})
    cover("largest and smallest shift", tb.seen["shift"] >= {1, 47})
    cover("largest and smallest multiplier", tb.seen["multiplier"] >= {0, 32767})


@cocotb.test()
async def layers_back_to_back(dut):
    """Layers with other shifts and limits follow at once, under every mix of idle and back-pressure."""
    tb = TB(dut)
    tb.source("a"), tb.sink("y")
    await tb.reset(shift_i=1, low_i=0, high_i=0, zero_point_i=0)

    def frame():
        shape = (int(tb.rng.integers(1, 9)), lanes(dut))
        end = 2 ** (width(dut) - 1)
        a = tb.rng.integers(-end, end, shape) >> tb.rng.integers(0, width(dut) - 1, shape)
        m = tb.rng.integers(0, 32768, shape)
        low, high = LIMITS[tb.rng.integers(3)]
        return a, m, int(tb.rng.integers(1, 48)), low, high, int(tb.rng.integers(-128, 128))

    await tb.under_stalls("y", 8, frame, layer, check)


@cocotb.test()
async def throughput(dut):
    """An element per cycle when nothing stalls."""
    tb = TB(dut)
    tb.sink("y")
    await tb.reset(shift_i=15, low_i=-128, high_i=127, zero_point_i=0)
    count = 500
    a = tb.rng.integers(-(2**20), 2**20, (count, lanes(dut)))
    m = tb.rng.integers(0, 32768, a.shape)
    await tb.send("a", elements(dut, a, m))
    await check(tb, a, m, 15, -128, 127, 0)
    measured(f"{count} elements", tb.last_arrival - tb.first_arrival + 1, count, 0)
