# SPDX-License-Identifier: Apache-2.0
"""layernorm.sv against golden and the HLS kernel: odd widths, corner rows and parameters, many layers."""

import cocotb
import numpy as np

from edge_moe.codegen.design import Design
from edge_moe_host.golden.operators import LayerNorm, layernorm
from sim.declaration import Operator
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "layernorm",
    kernels=("layernorm",),
    variants=({}, {"MAX_WIDTH": 1024}, {"LANES": 6, "MAX_WIDTH": 64}),
    least=150_000,
    illegal=(
        ({"MAX_WIDTH": 2048}, "MAX_WIDTH = 2048 must be from LANES = 32"),
        ({"LANES": 64, "MAX_WIDTH": 32}, "MAX_WIDTH = 32 must be from LANES = 64"),
    ),
)

LATENCY = 31  # cycles from a row's last slice to its first result, less one


def lanes(dut):
    return len(dut.m_axis_y_tdata) // 8


def max_width(dut):
    return (1 << len(dut.channels_i)) // 2


def tiles(dut, width):
    return -(-width // lanes(dut))


def random_norm(rng, width, shift=18, epsilon=None):
    return LayerNorm(
        rng.integers(-15000, 15000, size=width).astype(np.int16),
        (rng.integers(-60, 60, size=width) << shift).astype(np.int32),
        shift,
        epsilon or width * width,
    )


def filled(rng, dut, rows, dtype):
    """Rows up to whole slices; what is beyond their width must not matter."""
    info = np.iinfo(dtype)
    missing = tiles(dut, rows.shape[-1]) * lanes(dut) - rows.shape[-1]
    padding = rng.integers(info.min, info.max, (len(rows), missing), endpoint=True)
    return np.concatenate([rows, padding], axis=1).astype(dtype)


async def load(tb, norm):
    """The next layer's parameters and scalars."""
    width = len(norm.gamma)
    for name, value in (("channels_i", width), ("shift_i", norm.shift), ("epsilon_i", norm.epsilon)):
        getattr(tb.dut, name).value = value
    beta = filled(tb.rng, tb.dut, norm.beta[None], np.int32).reshape(-1, lanes(tb.dut))
    gamma = filled(tb.rng, tb.dut, norm.gamma[None], np.int16).reshape(-1, lanes(tb.dut))
    await tb.send("parameter", np.concatenate([beta.view(np.uint8), gamma.view(np.uint8)], axis=1))
    await tb.accepted("parameter")
    tb.loaded.append(tb.cycle)


async def check(tb, x, norm):
    """The next frame is this layer's."""
    rows, width = x.shape
    slices = tiles(tb.dut, width)
    got = (await tb.receive("y", "<i1", (rows, slices * lanes(tb.dut))))[:, :width]
    hls = await tb.kernel("layernorm", x, norm)
    equal(f"{rows} rows of {width}, shift {norm.shift}", got, layernorm(x[None], norm)[0], hls)
    tb.ends.append(tb.last_arrival)
    wide = x.astype(np.int64)
    tb.saw("rows", rows), tb.saw("width", width), tb.saw("result", got)
    tb.saw("V", width * (wide**2).sum(axis=1) - wide.sum(axis=1) ** 2)
    tb.saw("gamma", norm.gamma), tb.saw("beta", norm.beta)


def largest_v(width):
    """Half of a row at either end of int16."""
    return width // 2 * -(-width // 2) * 65535**2


async def start(dut):
    tb = TB(dut)
    tb.loaded, tb.ends = [], []  # cycles of every layer's last parameter and last result
    tb.source("parameter"), tb.source("x"), tb.sink("y")
    await tb.reset(channels_i=1, shift_i=1, epsilon_i=1)
    return tb


async def layer(tb, x, norm):
    await load(tb, norm)
    await tb.send("x", filled(tb.rng, tb.dut, x, np.int16))
    await check(tb, x, norm)


def corner_rows(rng, width):
    """Constant rows, those of the largest variance and distance from the mean, random ones of every size."""
    halves = np.where(np.arange(width) % 2, 32767, -32768)
    one = np.where(np.arange(width), -32768, 32767)
    rows = [
        np.full(width, 32767),
        np.full(width, -32768),
        np.zeros(width, int),
        halves,
        halves >> 8,
        one,
        ~one,
    ]
    rows += [rng.integers(-(2**bits), 2**bits, size=width) for bits in range(16)]
    return np.array(rows).astype(np.int16)


@cocotb.test()
async def widths(dut):
    """One row and odd numbers of rows of widths around whole slices."""
    tb = await start(dut)
    limit = max_width(dut)
    for width in sorted({1, 2, 31, 32, 33, 64, 100, 192, limit - 1, limit}):
        if width <= limit:
            for rows in (1, 3, 7):
                x = tb.rng.integers(-32768, 32768, (rows, width)).astype(np.int16)
                await layer(tb, x, random_norm(tb.rng, width))
    await tb.silent("y")
    cover("one row, odd rows", tb.seen["rows"] >= {1, 3})
    cover("widths that fill no slice, largest width", tb.seen["width"] >= {1, 33, limit - 1, limit})


@cocotb.test()
async def corners(dut):
    """Constant and extreme rows under extreme parameters and every kind of shift and epsilon."""
    tb = await start(dut)
    width = min(192, max_width(dut))
    x = corner_rows(tb.rng, width)
    for shift in (1, 2, 10, 17, 30, 31):
        gamma = tb.rng.choice([-32768, 32767, 0, 1, -1], size=width).astype(np.int16)
        beta = tb.rng.choice([2**30, -(2**30), 0, 1, -1], size=width).astype(np.int32)
        for epsilon in (1, 2**20, 2**32 - 1):
            norm = LayerNorm(gamma, beta, shift, epsilon)
            await layer(tb, x, norm)
    cover("constant row, extreme row", tb.seen["V"] >= {0, largest_v(width)})
    cover("gamma's corners", tb.seen["gamma"] >= {-32768, 32767})
    cover("beta's corners", tb.seen["beta"] >= {-(2**30), 2**30})
    cover("results at both ends", tb.seen["result"] >= {-128, 127})


@cocotb.test()
async def widest_variance(dut):
    """The largest V and the largest distance from the mean that there are, in the widest rows."""
    tb = await start(dut)
    width = max_width(dut)
    norm = LayerNorm(np.full(width, 32767, np.int16), np.zeros(width, np.int32), 20, 1)
    await layer(tb, corner_rows(tb.rng, width), norm)
    cover("largest V", largest_v(width) in tb.seen["V"])


@cocotb.test()
async def layers_back_to_back(dut):
    """Parameters of the next layer come while rows of this one are under way, under every mix of stalls."""
    tb = await start(dut)
    for idle, back in STALLS:
        tb.stall(idle, back)
        layers = []
        for _ in range(12):
            width = (
                int(tb.rng.integers(1, max_width(dut) + 1))
                if tb.rng.random() < 0.5
                else int(tb.rng.integers(1, 33))
            )
            norm = random_norm(tb.rng, width, int(tb.rng.integers(10, 25)), int(tb.rng.integers(1, 2**32)))
            x = tb.rng.integers(-32768, 32768, (int(tb.rng.integers(1, 12)), width)) >> tb.rng.integers(0, 12)
            layers.append((x.astype(np.int16), norm))
        for x, _ in layers:
            await tb.send("x", filled(tb.rng, dut, x, np.int16))
        for _, norm in layers:
            await load(tb, norm)
        for x, norm in layers:
            await check(tb, x, norm)
        await tb.silent("y")
    tb.cover_stalls()
    cover("two layers at once", any(np.array(tb.loaded[1:]) < tb.ends[:-1]))


@cocotb.test()
async def throughput(dut):
    """A slice in and a slice out per cycle, of rows of one slice and of many."""
    tb = await start(dut)
    for width in sorted({lanes(dut), min(192, max_width(dut)), max_width(dut)}):
        rows, row_slices = 129, tiles(dut, width)
        x = tb.rng.integers(-32768, 32768, (rows, width)).astype(np.int16)
        await layer(tb, x, random_norm(tb.rng, width))
        between = tb.last_arrival - tb.first_arrival + 1
        measured(f"{rows} rows of {width}", between, rows * row_slices, 0)
        cycles = tb.last_arrival - tb.offered["x"]
        measured(f"with first and last row of {width}", cycles, (rows + 1) * row_slices, LATENCY)
        assert cycles <= (rows + 1) * row_slices + Design.norm_lag + Design.norm_depth, (
            "longer than the loop of the estimator"
        )
