# SPDX-License-Identifier: Apache-2.0
"""weight_tile.sv against golden's weights, the compiler's bit planes and the HLS kernel."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from edge_moe.compiler.weights import to_planes
from sim.bench_compute_unit import COLUMNS, PLANES, ROWS, load_tiles, tile_elements
from sim.declaration import Operator
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "weight_tile",
    kernels=("weight_tile",),
    variants=({}, {"TILE_IN": 16, "TILE_OUT": 18}),
    least=30_000,
    illegal=(({"TILE_IN": 8}, "TILE_IN = 8 and TILE_OUT = 32 must be even and at least 16"),),
)

TILE_DELAY = 2


def sizes(dut):
    """(TILE_OUT, TILE_IN) of the module's parameters."""
    return int(dut.TILE_OUT.value), int(dut.TILE_IN.value)


async def take_tile(tb, wait):
    """The next tile int8 [out, in], taken ``wait`` cycles after it is valid."""
    dut, shape = tb.dut, sizes(tb.dut)
    for _ in range(2000):
        await RisingEdge(dut.clk)
        if dut.tile_valid_o.value:
            break
    else:
        raise AssertionError("no tile came")
    await tb.cycles(wait)
    dut.tile_ready_i.value = 1
    await RisingEdge(dut.clk)
    dut.tile_ready_i.value = 0
    for _ in range(TILE_DELAY):
        await RisingEdge(dut.clk)
    raw = int(dut.tile_o.value).to_bytes(shape[0] * shape[1], "little")
    planes = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").reshape(8, *shape)
    return (planes << np.arange(8, dtype=np.uint8)[:, None, None]).sum(axis=0).astype(np.uint8).view(np.int8)


def random_tile(tb, bits):
    limit = 2 ** (bits - 1) - 1
    tile = tb.rng.integers(-limit, limit + 1, sizes(tb.dut)).astype(np.int8)
    tile[0, :2], tile[-1, -2:] = (limit, -limit), (-limit, limit)
    return tile


@cocotb.test()
async def forms(dut):
    """Tiles of every form one after the other: nothing of the tile before is left."""
    tb = TB(dut)
    tb.source("w")
    await tb.reset(load_i=0, bits_i=8, tile_ready_i=0)
    for idle, _ in STALLS[:2]:
        tb.stall(idle)
        order = [(PLANES, bits) for bits in range(2, 9)] * 2 + [(ROWS, 8), (COLUMNS, 8)] * 4
        tiles = [(random_tile(tb, order[i][1]), *order[i]) for i in tb.rng.permutation(len(order))]
        loading = cocotb.start_soon(load_tiles(tb, tiles))
        for weight, load, bits in tiles:
            got = await take_tile(tb, int(tb.rng.integers(20)))
            hls = None
            if load == PLANES and weight.shape == (32, 32):
                planes = to_planes(weight.reshape(-1), bits)
                assert np.array_equal(planes, tile_elements(weight, load, bits, tb.rng))
                hls = (await tb.kernel("weight_tile", planes[None]))[0]
            equal(f"form {load}, {bits} bits", got, weight, hls)
        await tb.bounded(loading)
    tb.cover_stalls()
    forms = {(PLANES, bits) for bits in range(2, 9)} | {(ROWS, 8), (COLUMNS, 8)}
    cover("planes of 2 to 8 bits, rows, columns", tb.seen["form"] == forms)


@cocotb.test()
async def one_tile_waits(dut):
    """A whole tile stays as it is, however long nobody takes it, and only one element is taken besides."""
    tb = TB(dut)
    await tb.reset(load_i=0, bits_i=8, tile_ready_i=0)
    first, second = random_tile(tb, 8), random_tile(tb, 8)
    await tb.send("w", np.concatenate([tile_elements(tile, PLANES, 8, tb.rng) for tile in (first, second)]))
    await tb.cycles(100)
    cover("an element that waits", dut.s_axis_w_tvalid.value == 1)
    assert not dut.s_axis_w_tready.value
    equal("first", await take_tile(tb, 0), first)
    equal("second", await take_tile(tb, 30), second)
    await tb.cycles(50)
    assert not dut.tile_valid_o.value


@cocotb.test()
async def throughput(dut):
    """Tiles follow each other without a bubble when each is taken at once."""
    tb = TB(dut)
    await tb.reset(load_i=0, bits_i=8, tile_ready_i=1)
    out, fan_in = sizes(dut)
    for load, bits, count in ((PLANES, 8, 8), (PLANES, 3, 3), (ROWS, 8, out // 2), (COLUMNS, 8, fan_in // 2)):
        dut.load_i.value, dut.bits_i.value = load, bits
        frames = [tile_elements(random_tile(tb, bits), load, bits, tb.rng) for _ in range(10)]
        await tb.send("w", np.concatenate(frames))
        valid = []
        for _ in range(10 * count + 20):
            await RisingEdge(dut.clk)
            if dut.tile_valid_o.value:
                valid.append(tb.cycle)
        assert len(valid) == 10
        measured(f"10 tiles, form {load}, {bits} bits", valid[-1] - valid[0] + count, 10 * count, 0)
