# SPDX-License-Identifier: Apache-2.0
"""dual_dot.sv against NumPy and the HLS kernel: every pair of operands in every lane, corners of the sums."""

import itertools

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from sim.declaration import Operator
from sim.tb import TB, cover, equal

OPERATOR = Operator(
    "dual_dot",
    kernels=("dual_dot",),
    variants=({}, {"COUNT": 3}),
    least=20_000,
    illegal=(({"COUNT": 9}, "COUNT = 9 must be 1 to 8"),),
)

EIGHT = 8  # weights of the kernel's cascade
WEIGHTS = np.arange(-127, 128)
INPUTS = np.arange(-128, 128)


def count(dut):
    return len(dut.swap_i)


def fields(values, width):
    """[n, k] as integers with k fields of ``width`` bits each."""
    masked = values.astype(object) & ((1 << width) - 1)
    return [sum(int(value) << (width * k) for k, value in enumerate(row)) for row in masked]


def planes(w):
    """[n, k] weights as integers, plane by plane."""
    bits = np.concatenate([(w >> p) & 1 for p in range(8)], axis=1)
    return fields(bits, 1)


def skewed(values):
    """Column k comes k rows later."""
    out = np.zeros((len(values) + values.shape[1], values.shape[1]), np.int64)
    for k in range(values.shape[1]):
        out[k : k + len(values), k] = values[:, k]
    return out


async def cascade(tb, w, x0, x1, swap=None):
    """Sums (low, high) of each row of w, x0, x1 [n, COUNT], one row a cycle. Where ``swap`` [n] is false, the
    weights of the row before must still be in the multipliers."""
    dut, size, depth = tb.dut, count(tb.dut), count(tb.dut) + 2
    swap = np.ones(len(w), np.int64) if swap is None else swap.astype(np.int64)
    xs = fields(skewed(x1 * 2**18 + x0), 27)
    ws = planes(skewed(w))
    swaps = fields(skewed(np.repeat(swap[:, None], size, axis=1)), 1)
    low, high = [], []
    dut.take_i.value = 1
    for t in range(-1, len(w) + depth):
        dut.w_i.value = ws[t + 1] if t + 1 < len(ws) else 0
        dut.x_i.value = xs[t] if 0 <= t < len(xs) else 0
        dut.swap_i.value = swaps[t] if 0 <= t < len(swaps) else 0
        await RisingEdge(dut.clk)
        if t >= depth:
            low.append(dut.low_o.value.to_signed())
            high.append(dut.high_o.value.to_signed())
    return np.array(low), np.array(high)


async def check(tb, what, w, x0, x1, swap=None, used=None):
    got = await cascade(tb, w, x0, x1, swap)
    used = w if used is None else used
    padding = ((0, 0), (0, EIGHT - w.shape[1]))
    hls = await tb.kernel("dual_dot", *(np.pad(array, padding).astype(np.int8) for array in (used, x0, x1)))
    for lane, x, rtl, kernel in (("low", x0, got[0], hls[0]), ("high", x1, got[1], hls[1])):
        equal(f"{what}, {lane}", rtl, (used * x).sum(axis=1), kernel)
        tb.saw(f"operands, {lane}", used * 256 + x)
        tb.saw(f"sums, {lane}", rtl)


def to_rows(array, size):
    array = array.reshape(-1)
    return np.concatenate([array, array[: -len(array) % size]]).reshape(-1, size)


@cocotb.test()
async def every_pair(dut):
    """Each weight meets each input in both lanes; what is in the other lane is random."""
    tb = TB(dut)
    w = np.repeat(WEIGHTS[:, None], len(INPUTS), axis=1)
    x0 = np.stack([tb.rng.permutation(INPUTS) for _ in WEIGHTS])
    x1 = np.stack([tb.rng.permutation(INPUTS) for _ in WEIGHTS])
    order = tb.rng.permutation(w.size)  # different weights in one cascade
    w, x0, x1 = (to_rows(array.reshape(-1)[order], count(dut)) for array in (w, x0, x1))
    await check(tb, "every pair", w, x0, x1)
    every = {256 * weight + x for weight in range(-127, 128) for x in range(-128, 128)}
    for lane in ("low", "high"):
        cover(f"every pair of operands in the {lane} lane", tb.seen[f"operands, {lane}"] == every)


@cocotb.test()
async def corner_sums(dut):
    """Largest and smallest sums of both lanes, and all combinations that bring one of them near a carry."""
    tb = TB(dut)
    size = count(dut)
    corners = np.array(
        list(itertools.product((-127, -1, 0, 1, 127), (-128, -1, 0, 1, 127), (-128, -1, 0, 1, 127)))
    )
    alike = np.repeat(corners[:, :, None], size, axis=2)
    mixed = corners[tb.rng.integers(len(corners), size=(2000, size))].swapaxes(1, 2)
    w, x0, x1 = np.concatenate([alike, mixed]).swapaxes(0, 1)
    await check(tb, "corners", w, x0, x1)
    top = size * 127 * 128
    for lane in ("low", "high"):
        cover(f"largest and smallest sum of the {lane} lane", tb.seen[f"sums, {lane}"] >= {-top, top})


@cocotb.test()
async def weights_that_stay(dut):
    """Weights change at any element, or stay while others wait for their place."""
    tb = TB(dut)
    w, x0, x1 = (tb.rng.integers(-127, 128, (500, count(dut))) for _ in range(3))
    swap = tb.rng.random(len(w)) < 0.3
    swap[0] = True
    used = w[np.maximum.accumulate(np.where(swap, np.arange(len(w)), 0))]
    await check(tb, "weights that stay", w, x0, x1, swap, used)
    lengths = set(np.diff(np.flatnonzero(swap)).tolist())
    cover("weights that change at once, and that stay", lengths >= {1, 2, 5})
