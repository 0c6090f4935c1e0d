# SPDX-License-Identifier: Apache-2.0
"""accumulators.sv against NumPy: passes of every length, few and many tiles of inputs, stalls."""

import cocotb
import numpy as np

from sim.declaration import Operator
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "accumulators",
    variants=({}, {"TILE_OUT": 3, "ROWS": 80}),
    least=60_000,
    illegal=(({"ROWS": 7}, "ROWS = 7 must be a multiple of TOKENS = 2"),),
)

LATENCY = 3  # as accumulators.sv states


def lanes(dut):
    return len(dut.m_axis_a_tdata) // 32


def random_sums(tb, passes, pairs, span=2**19):
    return tb.rng.integers(-span, span, (passes, pairs, lanes(tb.dut))).astype(np.int32)


def random_bias(tb, span=2**30):
    return tb.rng.integers(-span, span, lanes(tb.dut) // 2).astype(np.int32)


async def send_tile(tb, bias, sums):
    """A tile of outputs: its biases, and the passes [tiles of inputs, pairs, lanes] with their flags."""
    await tb.send("bias", bias)
    count = len(sums)
    # flags change once a pair is taken: all passes with the same flags go without a gap
    for first, finish, part in (
        (count > 0, count == 1, sums[:1]), (False, False, sums[1:-1]), (False, True, sums[1:][-1:]),
    ):  # fmt: skip
        if len(part):
            tb.dut.first_i.value, tb.dut.finish_i.value = first, finish
            for one in part:
                await tb.send("y", one)
            await tb.accepted("y")


async def check(tb, what, bias, sums):
    got = await tb.receive("a", "<i4", sums.shape[1:])
    with np.errstate(over="ignore"):
        equal(what, got, sums.sum(axis=0, dtype=np.int32) + np.tile(bias, 2))
    tb.saw("passes", len(sums)), tb.saw("pairs", sums.shape[1])
    exact = sums.sum(axis=0, dtype=np.int64) + np.tile(bias, 2)
    tb.saw("wraps", exact != got)


async def start(dut):
    tb = TB(dut)
    tb.source("y"), tb.source("bias"), tb.sink("a")
    await tb.reset(first_i=0, finish_i=0)
    return tb


@cocotb.test()
async def lengths(dut):
    """Passes of 1 to 40 pairs: also those whose rows come again before their sums are written."""
    tb = await start(dut)
    for idle, back in STALLS:
        tb.stall(idle, back)
        tiles = []
        for pairs, passes in ((1, 7), (2, 6), (3, 5), (4, 4), (5, 3), (1, 1), (9, 1), (2, 2), (40, 3)):
            tiles.append((random_bias(tb), random_sums(tb, passes, pairs)))
        sending = cocotb.start_soon(send_all(tb, tiles))
        for bias, sums in tiles:
            await check(tb, f"{len(sums)} passes of {sums.shape[1]}", bias, sums)
        await tb.bounded(sending)
        await tb.silent("a")
    tb.cover_stalls()
    cover("rows that come again within 1 to 5 pairs", tb.seen["pairs"] >= {1, 2, 3, 4, 5})
    cover("one pass and several", tb.seen["passes"] >= {1, 2, 7})


async def send_all(tb, tiles):
    for bias, sums in tiles:
        await send_tile(tb, bias, sums)


@cocotb.test()
async def all_rows(dut):
    """Every entry of the memory, and sums that wrap as the integers of 32 bits do."""
    tb = await start(dut)
    pairs = int(dut.ROWS.value) // 2
    tile = random_bias(tb, 2**31 - 1), random_sums(tb, 3, pairs, 2**31 - 1)
    sending = cocotb.start_soon(send_tile(tb, *tile))
    await check(tb, "all rows", *tile)
    await tb.bounded(sending)
    cover("every entry", tb.seen["pairs"] == {pairs})
    cover("sums that wrap and that do not", tb.seen["wraps"] == {False, True})


@cocotb.test()
async def waits_for_biases(dut):
    """Without its biases a tile does not pass, and the one before still does once they are there."""
    tb = await start(dut)
    first, second = ((random_bias(tb), random_sums(tb, 1, 4)) for _ in range(2))
    dut.first_i.value, dut.finish_i.value = 1, 1
    await tb.send("y", first[1])
    await tb.send("y", second[1])
    await tb.silent("a")
    cover("sums that wait for biases", dut.s_axis_y_tvalid.value == 1 and dut.s_axis_y_tready.value == 0)
    await tb.send("bias", first[0])
    await tb.cycles(50)
    await tb.send("bias", second[0])
    await check(tb, "first", *first)
    await check(tb, "second", *second)
    await tb.silent("a")


@cocotb.test()
async def passes_without_results(dut):
    """Nobody takes results: passes that give none go on a pair a cycle."""
    tb = await start(dut)
    bias, sums = random_bias(tb), random_sums(tb, 6, 8)
    tb.stall(back=1.0)
    await tb.send("bias", bias)
    await tb.cycles(5)
    dut.first_i.value, dut.finish_i.value = 1, 0
    await tb.send("y", sums[0])
    await tb.accepted("y")
    dut.first_i.value, began = 0, tb.cycle
    for one in sums[1:-1]:
        await tb.send("y", one)
    await tb.accepted("y")
    measured("4 passes of 8 that nobody waits for", tb.cycle - began, 4 * 8, 3)
    dut.finish_i.value = 1
    await tb.send("y", sums[-1])
    await tb.cycles(50)
    cover("a result that waits", dut.m_axis_a_tvalid.value == 1 and dut.m_axis_a_tready.value == 0)
    tb.stall()
    await check(tb, "after a long wait", bias, sums)


@cocotb.test()
async def throughput(dut):
    """A pair per cycle in passes of four pairs or more; the result of the last pass comes as it goes."""
    tb = await start(dut)
    for pairs in (4, min(65, int(dut.ROWS.value) // 2)):
        sums, bias = random_sums(tb, 12, pairs), random_bias(tb)
        await tb.send("bias", bias)
        await tb.cycles(5)
        dut.first_i.value, dut.finish_i.value = 0, 0
        for one in sums[1:-1]:
            await tb.send("y", one)
        began = tb.cycle
        await tb.accepted("y")
        measured(f"10 passes of {pairs}", tb.cycle - began, 10 * pairs, 2)
        dut.finish_i.value = dut.first_i.value = 1
        await tb.send("y", sums[0])
        await check(tb, "one pass", bias, sums[:1])
        measured(f"finished pass of {pairs}", tb.last_arrival - tb.first_arrival + 1, pairs, 0)
