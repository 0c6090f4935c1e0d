# SPDX-License-Identifier: Apache-2.0
"""compute_unit.sv against NumPy and the HLS kernel: tiles in every form, passes of every length, stalls."""

import cocotb
import numpy as np

from sim.declaration import Operator
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "compute_unit",
    kernels=("compute_unit",),
    variants=({}, {"TILE_IN": 16, "TILE_OUT": 18}),
    least=100_000,
    illegal=(
        ({"TOKENS": 1}, "TOKENS = 1 must be 2"),
        ({"TILE_IN": 20}, "TILE_IN = 20 a multiple of 8"),
    ),
)

PLANES, ROWS, COLUMNS = range(3)
LATENCY = 16  # of a pair, as compute_unit.sv states
SHORTEST = 8  # cycles of a pass


def sizes(dut):
    """(TILE_IN, TILE_OUT)."""
    return len(dut.s_axis_x_tdata) // 16, len(dut.m_axis_y_tdata) // 64


def tile_elements(weight, load, bits, rng):
    """A tile int8 [out, in] as the bytes of its elements; what the module must not look at is random."""
    out, fan_in = weight.shape
    raw = weight.astype(np.int8).view(np.uint8)
    if load == PLANES:
        planes = [np.packbits((raw.reshape(-1) >> p) & 1, bitorder="little") for p in range(bits)]
        return np.stack(planes)
    vectors = raw if load == ROWS else raw.T
    vectors = vectors.reshape(len(vectors) // 2, -1)
    rest = rng.integers(0, 256, (len(vectors), out * fan_in // 8 - vectors.shape[1]), dtype=np.uint8)
    return np.concatenate([vectors, rest], axis=1)


def random_tile(tb, bits=8):
    limit = 2 ** (bits - 1) - 1
    return tb.rng.integers(-limit, limit + 1, sizes(tb.dut)[::-1]).astype(np.int8)


def random_pass(tb, pairs):
    return tb.rng.integers(-128, 128, (2 * pairs, sizes(tb.dut)[0])).astype(np.int8)


async def load_tiles(tb, tiles):
    """Each tile with its form and bits; these change once its last element is taken."""
    for weight, load, bits in tiles:
        tb.dut.load_i.value, tb.dut.bits_i.value = load, bits
        await tb.send("w", tile_elements(weight, load, bits, tb.rng))
        await tb.accepted("w")
        tb.seen["form"].add((load, bits))


async def check(tb, what, weight, x):
    """The next frame of y is this pass."""
    fan_in, out = sizes(tb.dut)
    got = await tb.receive("y", "<i4", (len(x), out))
    expected = x.astype(np.int64) @ weight.astype(np.int64).T
    packed = await tb.kernel("compute_unit", weight, x, 1) if fan_in == out == 32 else None
    equal(what, got, expected, packed)
    tb.saw("pairs", len(x) // 2), tb.saw("sums", got)


async def start(dut):
    tb = TB(dut)
    tb.source("w"), tb.source("x"), tb.sink("y")
    await tb.reset(load_i=0, bits_i=8)
    return tb


@cocotb.test()
async def forms_and_lengths(dut):
    """Tiles of every form and width with passes of 1 to 40 pairs, under every mix of stalls."""
    tb = await start(dut)
    forms = [(PLANES, bits) for bits in range(2, 9)] + [(ROWS, 8), (COLUMNS, 8)]
    for idle, back in STALLS:
        tb.stall(idle, back)
        order = [forms[i] for i in tb.rng.permutation(len(forms))]
        tiles = [(random_tile(tb, bits), load, bits) for load, bits in order]
        passes = [random_pass(tb, int(tb.rng.choice((1, 2, 7, 8, 9, 40)))) for _ in tiles]
        loading = cocotb.start_soon(load_tiles(tb, tiles))
        for x in passes:
            await tb.send("x", x)
        for (weight, load, bits), x in zip(tiles, passes, strict=True):
            await check(tb, f"form {load}, {bits} bits, {len(x)} rows", weight, x)
        await tb.bounded(loading)
        await tb.silent("y")
    tb.cover_stalls()
    cover("planes of 2 to 8 bits, rows, columns", tb.seen["form"] == set(forms))
    cover("passes of one pair, and shorter and longer than the shortest", tb.seen["pairs"] >= {1, 7, 9})


@cocotb.test()
async def corners(dut):
    """Sums of the largest magnitude, in each token alone and in both."""
    tb = await start(dut)
    fan_in, out = sizes(dut)
    for sign in (1, -1):
        weight = np.full((out, fan_in), sign * 127, np.int8)
        weight[1::2] *= -1
        x = np.array([(a, b) for a in (-128, -1, 0, 127) for b in (-128, -1, 0, 127)], np.int8)
        x = np.repeat(x.reshape(-1, 1), fan_in, axis=1)
        await tb.send("x", x)
        await load_tiles(tb, [(weight, ROWS, 8)])
        await check(tb, f"corners {sign}", weight, x)
    top = fan_in * 127 * 128
    cover("largest and smallest sums", tb.seen["sums"] >= {-top, top})


@cocotb.test()
async def waits_for_tiles(dut):
    """No pair is taken without its tile; two tiles and no third are taken ahead."""
    tb = await start(dut)
    tiles = [(random_tile(tb), PLANES, 8) for _ in range(4)]
    passes = [random_pass(tb, 5) for _ in tiles]
    await tb.send("x", passes[0])
    await tb.silent("y")
    cover("a pass without a tile", dut.s_axis_x_tvalid.value == 1)
    assert not dut.s_axis_x_tready.value
    await load_tiles(tb, tiles[:1])
    await check(tb, "first", tiles[0][0], passes[0])
    loading = cocotb.start_soon(load_tiles(tb, tiles[1:]))
    await tb.cycles(100)
    cover("a third tile", dut.s_axis_w_tvalid.value == 1)
    assert not dut.s_axis_w_tready.value, "a third tile was taken"
    for (weight, _, _), x in zip(tiles[1:], passes[1:], strict=True):
        await tb.send("x", x)
        await check(tb, "later", weight, x)
    await tb.bounded(loading)
    await tb.silent("y")


async def back_to_back(tb, pairs, load, bits, count=12):
    """Cycles from the first to the last of ``count`` passes whose tiles come as fast as they are taken."""
    tiles = [(random_tile(tb, bits), load, bits) for _ in range(count)]
    passes = [random_pass(tb, pairs) for _ in tiles]
    tb.dut.load_i.value, tb.dut.bits_i.value = load, bits
    await tb.send("w", np.concatenate([tile_elements(*tile, tb.rng) for tile in tiles]))
    await tb.cycles(60)  # the tiles that may be loaded ahead
    for x in passes:
        await tb.send("x", x)
    arrivals = []
    for (weight, _, _), x in zip(tiles, passes, strict=True):
        await check(tb, f"{pairs} pairs", weight, x)
        arrivals += [tb.first_arrival, tb.last_arrival]
    return arrivals[-1] - arrivals[0] + 1


@cocotb.test()
async def throughput(dut):
    """A tile change costs no bubble, if it comes no faster than a tile can be loaded."""
    tb = await start(dut)
    fan_in, out = sizes(dut)
    longest = max(fan_in, out) // 2
    for pairs, load, bits in (
        (65, PLANES, 8), (8, PLANES, 8), (8, PLANES, 2), (longest, ROWS, 8), (longest, COLUMNS, 8),
    ):  # fmt: skip
        cycles = await back_to_back(tb, pairs, load, bits)
        measured(f"12 passes of {pairs}, form {load}, {bits} bits", cycles, 12 * pairs, 0)
    cycles = await back_to_back(tb, 3, PLANES, 8)
    measured("12 passes of 3", cycles, 11 * SHORTEST + 3, 0)


@cocotb.test()
async def latency(dut):
    """A pair's result is there LATENCY cycles after it."""
    tb = await start(dut)
    out = sizes(dut)[1]
    await load_tiles(tb, [(random_tile(tb), PLANES, 8)])
    await tb.cycles(10)
    await tb.send("x", random_pass(tb, 1))
    for _ in range(1000):
        if dut.s_axis_x_tvalid.value and dut.s_axis_x_tready.value:
            break
        await tb.cycles(1)
    else:
        raise AssertionError("the pair was not taken")
    taken = tb.cycle
    await tb.receive("y", "<i4", (2, out))
    measured("latency of a pair", tb.last_arrival - taken, LATENCY, 0)
