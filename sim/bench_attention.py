# SPDX-License-Identifier: Apache-2.0
"""attention.sv against golden and the HLS kernel: sizes, heads, corners of the softmax, stalls, cycles."""

import itertools
from dataclasses import dataclass, replace

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from edge_moe_host.contract.isa import Opcode
from edge_moe_host.golden import operators
from edge_moe_host.golden.arithmetic import EXP2_BITS, requantise
from edge_moe_host.golden.operators import EXPONENT_LIMIT, KEY_BLOCK, Attention, Linear
from sim.declaration import Operator
from sim.estimated import cycles as cycles_of
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "attention",
    kernels=("attention",),
    variants=({}, {"MAX_HEADS": 2, "MAX_HEAD_DIM": 96, "MAX_TOKENS": 70}),
    least=180_000,
    illegal=(({"MAX_HEAD_DIM": 40}, "MAX_HEAD_DIM = 40 must be a multiple of 32"),),
)

TILE = KEY_BLOCK
HLS_HEAD_DIM = 64
NO_LINEAR = Linear(*(np.zeros(1, np.int64),) * 3, 1)
FILL = TILE // 2  # pairs of keys of the first tile of K
NUMERATOR_LAG = 46  # cycles from a query's issue to that of its numerators
LATENCY = 35  # of a pair of x, from its issue to its result, and of the first tile into the multipliers


@dataclass
class Job:
    """What one start computes: qkv int8 [tokens, 3 heads dim]; queries are the first ``rows`` tokens."""

    qkv: np.ndarray
    attn: Attention
    rows: int

    @property
    def dim(self):
        return self.qkv.shape[1] // 3 // self.attn.heads

    @property
    def pairs(self):
        return -(-self.rows // 2)

    @property
    def blocks(self):
        return -(-len(self.qkv) // KEY_BLOCK)

    @property
    def tiles(self):
        return self.dim // TILE

    def part(self, index, rows, rng):
        """q, k or v as [heads, tiles, rows, 32]; rows that do not exist hold anything but -128."""
        tokens = len(self.qkv)
        filled = rng.integers(-127, 128, (max(rows, tokens), self.attn.heads * self.dim)).astype(np.int8)
        filled[:tokens] = np.split(self.qkv, 3, axis=1)[index]
        return filled[:rows].reshape(rows, self.attn.heads, self.tiles, TILE).transpose(1, 2, 0, 3)

    def queries(self, rng):
        q = self.part(0, 2 * self.pairs, rng)
        return np.repeat(q[:, None], self.blocks, axis=1)  # [heads, blocks, tiles, rows, 32]

    def keys_and_values(self, rng):
        k, v = (
            self.part(i, self.blocks * KEY_BLOCK, rng)
            .reshape(self.attn.heads, self.tiles, self.blocks, KEY_BLOCK, TILE)
            .transpose(0, 2, 1, 3, 4)
            for i in (1, 2)
        )
        return np.concatenate([k, v], axis=2)  # [heads, blocks, tiles of K and of V, 32, 32]

    def parameters(self):
        out = self.attn.out_multiplier.reshape(self.attn.heads, self.tiles, TILE)
        logit = np.broadcast_to(self.attn.logit_multiplier[:, None, None], (*out.shape[:2], 1))
        return np.concatenate([out, logit], axis=2).astype("<i2")

    def logits(self):
        """Before they saturate, int64 [heads, rows, keys]."""
        q, k = (
            part.reshape(len(part), self.attn.heads, self.dim).astype(np.int64)
            for part in np.split(self.qkv, 3, axis=1)[:2]
        )
        dot = np.einsum("rhd,khd->hrk", q[: self.rows], k)
        multiplier = self.attn.logit_multiplier[:, None, None]
        return requantise(dot, multiplier, self.attn.logit_shift, -(2**62), 2**62)

    @property
    def cycles(self):
        """A pass takes as long as its pairs, or as 16 pairs of keys; V waits for the first numerators."""
        short = max(self.pairs, FILL)
        block = 2 * self.tiles * short - short + max(self.pairs, NUMERATOR_LAG)
        return self.attn.heads * self.blocks * block


def job(rng, tokens, heads, dim, spread=600.0, rows=None):
    multiplier = np.clip(spread / (74.0**2 * np.sqrt(dim)) * 2**20 * rng.uniform(0.5, 1, heads), 0, 32767)
    attn = Attention(
        heads, NO_LINEAR, multiplier.astype(np.int16), 20,
        rng.integers(8000, 32768, heads * dim).astype(np.int16), 19, NO_LINEAR,
    )  # fmt: skip
    return Job(rng.integers(-127, 128, (tokens, 3 * heads * dim)).astype(np.int8), attn, rows or tokens)


async def start(tb, work):
    """Hand a job over as soon as it is taken; the scalars change right after it."""
    dut, attn = tb.dut, work.attn
    scalars = {
        "heads_i": attn.heads, "pairs_i": work.pairs, "keys_i": len(work.qkv), "tiles_i": work.tiles,
        "logit_shift_i": attn.logit_shift, "out_shift_i": attn.out_shift,
    }  # fmt: skip
    for name, value in scalars.items():
        getattr(dut, name).value = value
    dut.start_i.value = 1
    await tb.bounded(accepted(dut))
    tb.starts.append(tb.cycle)
    dut.start_i.value = 0
    for name in scalars:
        getattr(dut, name).value = int(tb.rng.integers(1, 3))


async def accepted(dut):
    """Until the clock edge at which the module is ready."""
    await RisingEdge(dut.clk)
    while dut.ready_o.value != 1:
        await RisingEdge(dut.clk)


async def send(tb, work):
    await tb.send("m", work.parameters())
    await tb.send("kv", work.keys_and_values(tb.rng))
    await tb.send("q", work.queries(tb.rng))


async def check(tb, work):
    """A frame for each head, [tiles, pairs, 2, 32]."""
    expected = operators.attention(work.qkv[None], work.attn)[0]
    # the kernel is built for one configuration, whose heads may be smaller than this module's
    hls = await tb.kernel("attention", work.qkv, work.attn) if work.dim <= HLS_HEAD_DIM else None
    for head in range(work.attn.heads):
        got = await tb.receive("y", "i1", (work.tiles, 2 * work.pairs, TILE))
        y = got.transpose(1, 0, 2).reshape(2 * work.pairs, work.dim)[: work.rows]
        here = slice(head * work.dim, (head + 1) * work.dim)
        what = f"{len(work.qkv)} tokens, head {head} of {work.attn.heads}, {work.dim} channels"
        equal(what, y, expected[: work.rows, here], None if hls is None else hls[: work.rows, here])
    tb.ends.append(tb.last_arrival)
    tb.saw("tokens", len(work.qkv)), tb.saw("rows", work.rows), tb.saw("pairs", work.pairs)
    tb.saw("heads", work.attn.heads), tb.saw("dim", work.dim)
    tb.saw("fewer queries than keys", work.rows < len(work.qkv))
    return expected


async def begin(dut):
    tb = TB(dut)
    tb.starts, tb.ends = [], []  # cycles of every job's start and last result
    for name in ("m", "kv", "q"):
        tb.source(name)
    tb.sink("y")
    idle = dict.fromkeys(("heads_i", "pairs_i", "keys_i", "tiles_i", "logit_shift_i", "out_shift_i"), 1)
    await tb.reset(start_i=0, **idle)
    return tb


async def run(tb, work):
    await send(tb, work)
    await start(tb, work)
    return await check(tb, work)


def limits(dut):
    return tuple(int(getattr(dut, name).value) for name in ("MAX_HEADS", "MAX_HEAD_DIM", "MAX_TOKENS"))


@cocotb.test()
async def sizes(dut):
    """Tokens that fill a pair and a block of keys and that do not, with every number of tiles."""
    tb = await begin(dut)
    _, most_dim, most_tokens = limits(dut)
    for dim in range(TILE, most_dim + 1, TILE):
        for tokens in (1, 2, 3, 9, 31, 32, 33, 65, 129):
            if tokens <= most_tokens:
                for spread in (100.0, 5000.0):
                    await run(tb, job(tb.rng, tokens, 1, dim, spread))
    await tb.silent("y")
    cover(
        "one token, odd tokens, parts of a block and whole ones", tb.seen["tokens"] >= {1, 2, 3, 31, 32, 33}
    )
    cover("one tile, largest head", tb.seen["dim"] >= {TILE, most_dim})


@cocotb.test()
async def largest(dut):
    """The most tokens and the most heads; and fewer queries than keys."""
    tb = await begin(dut)
    most_heads, most_dim, most_tokens = limits(dut)
    await run(tb, job(tb.rng, most_tokens, 1, most_dim))
    await run(tb, job(tb.rng, 5, most_heads, most_dim))
    await run(tb, job(tb.rng, 70, 2, most_dim, rows=7))
    cover("most tokens", most_tokens in tb.seen["tokens"])
    cover("most heads", most_heads in tb.seen["heads"])
    cover("fewer queries than keys", True in tb.seen["fewer queries than keys"])


@cocotb.test()
async def corners(dut):
    """Logits and results at both ends; keys all alike; one hot key; blocks raise M by more than 31."""
    tb = await begin(dut)
    tokens, dim = min(96, limits(dut)[2]), TILE
    flat, ramp = np.ones((tokens, 1), np.int8), np.linspace(-127, 127, tokens).astype(np.int8)[:, None]
    for keys, shift in itertools.product((127 * flat, 0 * flat, ramp, ramp[::-1]), (16, 19)):
        work = job(tb.rng, tokens, 1, dim)
        work.attn = replace(work.attn, logit_multiplier=np.array([32767], np.int16), logit_shift=shift)
        work.qkv[:, :dim] = 127
        work.qkv[:, dim : 2 * dim] = keys
        saw_logits(tb, work)
        await run(tb, work)
    work = job(tb.rng, tokens, 1, dim, spread=30000.0)
    work.qkv[:, dim : 2 * dim] = 0
    work.qkv[40, dim : 2 * dim] = 127
    work.attn = replace(work.attn, logit_shift=18)
    saw_logits(tb, work)
    await run(tb, work)
    work = job(tb.rng, tokens, 1, dim, spread=0.0)
    work.qkv[:, 2 * dim :: 2], work.qkv[:, 2 * dim + 1 :: 2] = 127, -127
    work.attn = replace(work.attn, logit_shift=1, out_multiplier=np.full(dim, 32767, np.int16), out_shift=14)
    result = await run(tb, work)
    cover("results at both ends", {result.min(), result.max()} == {-127, 127})
    for case in ("all equal", "M rises by more than a shift", "falling blocks", "one hot key"):
        cover(case, True in tb.seen[case])
    cover("logits saturate at both ends", tb.seen["saturation"] >= {-1, 1})


def saw_logits(tb, work):
    logits = work.logits()
    tb.saw_saturation(logits, -32768, 32767)
    logits = np.clip(logits, -32768, 32767)
    last = np.sort(logits, axis=-1)
    tb.saw("all equal", last[..., 0] == last[..., -1])
    tb.saw("one hot key", last[..., -1] - last[..., -2] >= 9 << EXP2_BITS)  # other numerators are 0
    starts = np.arange(0, logits.shape[-1], KEY_BLOCK)
    tops = np.maximum.reduceat(logits, starts, axis=-1) >> EXP2_BITS
    rises = np.diff(tops, axis=-1)
    tb.saw("M rises by more than a shift", rises > EXPONENT_LIMIT)
    tb.saw("falling blocks", (rises < 0).all(axis=-1))


@cocotb.test()
async def stalled(dut):
    """Jobs back to back, of other shapes, under every mix of idle and back-pressure."""
    tb = await begin(dut)
    most_heads, most_dim, _ = limits(dut)
    for idle, back in STALLS:
        tb.stall(idle, back)
        works = [
            job(
                tb.rng, int(tb.rng.integers(1, 50)), int(tb.rng.integers(1, min(most_heads, 3) + 1)),
                TILE * int(tb.rng.integers(1, most_dim // TILE + 1)), 2.0 ** tb.rng.uniform(5, 14),
            )
            for _ in range(4)
        ]  # fmt: skip
        for work in works:
            await send(tb, work)
        handing = cocotb.start_soon(start_all(tb, works))
        for work in works:
            await check(tb, work)
        await tb.bounded(handing)
        await tb.silent("y")
    tb.cover_stalls()
    cover("jobs back to back", any(np.array(tb.starts[1:]) < tb.ends[:-1]))


@cocotb.test()
async def few_pairs(dut):
    """Passes of few pairs that come in bursts: a query's sums follow each other as closely as they may."""
    tb = await begin(dut)
    _, most_dim, _ = limits(dut)
    tb.source("q").set_pause_generator(bursts(tb.rng))
    for tokens in (1, 2, 3, 4, 6, 8, 10) * 10:
        await run(tb, job(tb.rng, tokens, 1, most_dim))
    await tb.silent("y")
    cover("few pairs", tb.seen["pairs"] == {1, 2, 3, 4, 5})


def bursts(rng):
    """A few cycles without a pause; in between, the tile of the next pass arrives."""
    while True:
        yield from [True] * int(rng.integers(30, 60))
        yield from [False] * int(rng.integers(1, 5))


@cocotb.test()
async def late_parameters(dut):
    """Queries wait for the multipliers of their job."""
    tb = await begin(dut)
    work = job(tb.rng, 40, 2, TILE)
    await tb.send("kv", work.keys_and_values(tb.rng))
    await tb.send("q", work.queries(tb.rng))
    await start(tb, work)
    await tb.silent("y", 300)
    await tb.send("m", work.parameters())
    await check(tb, work)
    cover("late parameters", tb.offered["m"] >= tb.offered["q"] + 300)


async def start_all(tb, works):
    for work in works:
        await start(tb, work)


@cocotb.test()
async def cycles(dut):
    """From the first pair of keys to the last result without stalls: passes follow each other without a gap,
    unless they are shorter than what comes before them."""
    tb = await begin(dut)
    most_heads, most_dim, most_tokens = limits(dut)
    shapes = [(129, 1, 64), (129, min(3, most_heads), 64), (128, 1, 32), (64, 1, 32), (64, 2, 64)]
    for tokens, heads, dim in shapes:
        if tokens <= most_tokens and dim <= most_dim:
            work = job(tb.rng, tokens, heads, dim)
            await send(tb, work)
            first = cocotb.start_soon(first_keys(tb))
            await start(tb, work)
            await check(tb, work)
            taken = tb.last_arrival - await first + 1
            measured(f"{tokens} tokens, {heads} x {dim}", taken, work.cycles, FILL + LATENCY)
            estimated = cycles_of(
                Opcode.ATTENTION, rows=tokens, keys=tokens, heads=heads, out_channels=heads * dim
            )
            assert taken <= estimated, f"longer than the {estimated} cycles of the estimator"


async def first_keys(tb):
    """The cycle in which the first tile's first pair of keys is taken."""
    await RisingEdge(tb.dut.clk)
    while not (tb.dut.s_axis_kv_tvalid.value == 1 and tb.dut.s_axis_kv_tready.value == 1):
        await RisingEdge(tb.dut.clk)
    return tb.cycle
