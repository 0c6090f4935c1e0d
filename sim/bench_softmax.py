# SPDX-License-Identifier: Apache-2.0
"""softmax.sv against golden and the HLS kernel: numerators, rescales, M and S of every row."""

import cocotb
import numpy as np

from edge_moe_host.golden.arithmetic import EXP2_BITS
from edge_moe_host.golden.operators import EXPONENT_LIMIT, KEY_BLOCK, Softmax, softmax_block
from sim.declaration import Operator
from sim.tb import TB, cover, equal, measured

OPERATOR = Operator(
    "softmax",
    kernels=("softmax",),
    variants=({}, {"TOKENS": 1}),
    least=150_000,
    illegal=(({"KEYS": 24}, "KEYS = 24 must be 16, 32, 48 or 64"), ({"TOKENS": 0}, "TOKENS = 0")),
)

LATENCY = 12


def golden(logits):
    """int64 [rows, keys] to numerators [rows, keys], rescales, M and S [rows, blocks] after each block."""
    state, found = Softmax.start((len(logits), 1)), []
    for start in range(0, logits.shape[1], KEY_BLOCK):
        state, numerators, rescale = softmax_block(logits[:, start : start + KEY_BLOCK], state)
        found.append((numerators, rescale, state.exponent, state.total))
    return [np.concatenate(part, axis=1) for part in zip(*found, strict=True)]


def shape(dut):
    """Tokens of a pair, and the most pairs."""
    return int(dut.TOKENS.value), int(dut.MAX_PAIRS.value)


def in_pairs(dut, logits, rng):
    """[blocks * pairs, tokens * 32] int16; values where there is no logit must not matter."""
    tokens, _ = shape(dut)
    rows, keys = logits.shape
    filled = rng.integers(-32768, 32768, (-(-rows // tokens) * tokens, -(-keys // KEY_BLOCK) * KEY_BLOCK))
    filled[:rows, :keys] = logits
    by_block = filled.reshape(-1, tokens, filled.shape[1] // KEY_BLOCK, KEY_BLOCK).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(by_block, dtype="<i2").reshape(-1, tokens * KEY_BLOCK)


async def send(tb, logits):
    """One head; the scalars change as soon as its first pair was accepted."""
    tokens, _ = shape(tb.dut)
    frame = in_pairs(tb.dut, logits, tb.rng)
    tb.dut.pairs_i.value = -(-len(logits) // tokens)
    tb.dut.keys_i.value = logits.shape[1]
    await tb.send("x", frame[:1])
    await tb.accepted("x")
    tb.dut.pairs_i.value = int(tb.rng.integers(1, 8))
    tb.dut.keys_i.value = int(tb.rng.integers(1, 4097))
    if len(frame) > 1:
        await tb.send("x", frame[1:])
        await tb.accepted("x")


async def check(tb, logits):
    """Every field of every pair of a head."""
    tokens, _ = shape(tb.dut)
    (rows, keys), pairs = logits.shape, -(-len(logits) // tokens)
    blocks = -(-keys // KEY_BLOCK)
    got = await tb.receive("p", "u1", (blocks, pairs, tokens * (KEY_BLOCK + 7)))
    ends = np.cumsum([0, KEY_BLOCK, 1, 2, 4]) * tokens
    fields = [
        np.ascontiguousarray(got[..., ends[i] : ends[i + 1]]).view(dtype)
        .reshape(blocks, pairs * tokens, -1)[:, :rows].transpose(1, 0, 2).reshape(rows, -1)
        for i, dtype in enumerate(("u1", "u1", "<i2", "<i4"))
    ]  # fmt: skip
    hls_p, hls_rescale, hls_m, hls_s = await tb.kernel("softmax", np.ascontiguousarray(logits, np.int16))
    p, rescale, m, s = golden(logits)
    assert not fields[0][:, keys:].any(), "a key that does not exist has a numerator"
    equal("numerators", fields[0][:, :keys], p, hls_p)
    equal("rescale", fields[1], rescale, hls_rescale)
    equal("M", fields[2], m)
    equal("S", fields[3], s)
    equal("last M", fields[2][:, -1], m[:, -1], hls_m)
    equal("last S", fields[3][:, -1], s[:, -1], hls_s)
    saw(tb, logits, p, m)


def saw(tb, logits, p, m):
    """What the covered cases are about."""
    (rows, keys), top = logits.shape, logits.max(axis=1)
    tb.saw("rows", rows), tb.saw("keys", keys)
    tb.saw("numerator", p), tb.saw("M", m)
    tb.saw("rise", np.diff(m, axis=1))
    tb.saw("distance to M", (np.repeat(m, KEY_BLOCK, axis=1)[:, :keys] << EXP2_BITS) - logits)
    tb.saw("all equal", (logits.min(axis=1) == top) & (keys > 1))
    below = np.sort(logits, axis=1)[:, -2] if keys > 1 else top
    tb.saw("one hot key", top - below >= 32768)


@cocotb.test()
async def every_distance(dut):
    """One key at 32767 makes M 128: the others take every logit, so t takes all of its 65,536 values."""
    tb = TB(dut)
    tb.sink("p")
    tokens, most = shape(dut)
    await tb.reset(pairs_i=1, keys_i=1)
    values = np.arange(-32768, 32768)
    values = np.pad(values, (0, -len(values) % (KEY_BLOCK - 1)), mode="edge").reshape(-1, KEY_BLOCK - 1)
    logits = np.concatenate([np.full((len(values), 1), 32767), values], axis=1)
    logits = tb.rng.permuted(logits, axis=1)
    for start in range(0, len(logits), tokens * most):
        part = logits[start : start + tokens * most]
        await send(tb, part)
        await check(tb, part)
    cover("every distance to M", tb.seen["distance to M"] == set(range(1, 65537)))
    cover("every numerator", tb.seen["numerator"] == set(range(128)))


@cocotb.test()
async def tops(dut):
    """The largest logit on both sides of every step of M, keys below it at distances that still count."""
    tb = TB(dut)
    tb.sink("p")
    tokens, most = shape(dut)
    await tb.reset(pairs_i=1, keys_i=1)
    top = np.concatenate([np.arange(-32768, 32768, 256), np.arange(-32768, 32768, 256) + 255])
    logits = np.clip(top[:, None] - np.arange(0, 3200, 100)[None], -32768, 32767)
    for start in range(0, len(logits), tokens * most):
        await send(tb, logits[start : start + tokens * most])
        await check(tb, logits[start : start + tokens * most])
    cover("every M", tb.seen["M"] == set(range(-127, 129)))


def corner_rows(keys, rng):
    """All equal, at either end, rising by more than 31 octaves a block, falling, one hot key, random."""
    scale = 2.0 ** rng.uniform(0, 15, size=(5, 1))
    rows = np.clip(rng.normal(size=(12, keys)) * 1000, -32768, 32767).astype(np.int64)
    rows[0], rows[1], rows[2], rows[3] = -32768, 32767, 0, -1
    rows[4] = -32768 + 8448 * (np.arange(keys) // KEY_BLOCK % 8)
    rows[5] = np.linspace(32767, -32768, keys)
    rows[6] = -32768
    rows[6, rng.integers(keys)] = 32767
    rows[7:12] = np.clip(rng.normal(size=(5, keys)) * scale, -32768, 32767)
    return rows


@cocotb.test()
async def sizes(dut):
    """Keys and rows that fill a block or a pair, and that do not; blocks of one pair follow at once."""
    tb = TB(dut)
    tb.source("x"), tb.sink("p")
    await tb.reset(pairs_i=1, keys_i=1)
    for keys in (1, 2, 31, 32, 33, 64, 65, 129, 256):
        for rows in (1, 2, 3, 5, 12):
            logits = corner_rows(keys, tb.rng)[tb.rng.permutation(12)[:rows]]
            await send(tb, logits)
            await check(tb, logits)
    cover("one row, an odd number of rows", tb.seen["rows"] >= {1, 3})
    cover("one key, parts of a block, whole blocks", tb.seen["keys"] >= {1, 31, 33, 64})
    cover("a rise of M beyond the largest rescale", max(tb.seen["rise"]) > EXPONENT_LIMIT)
    cover("all equal", True in tb.seen["all equal"])
    cover("one hot key", True in tb.seen["one hot key"])


@cocotb.test()
async def stalled(dut):
    """Heads of other sizes back to back under every mix of idle and back-pressure."""
    tb = TB(dut)
    tb.source("x"), tb.sink("p")
    await tb.reset(pairs_i=1, keys_i=1)

    def head():
        keys, rows = int(tb.rng.integers(1, 130)), int(tb.rng.integers(1, 13))
        return (corner_rows(keys, tb.rng)[tb.rng.permutation(12)[:rows]],)

    await tb.under_stalls("p", 8, head, send, check)


@cocotb.test()
async def throughput(dut):
    """A pair per cycle, of one row pair and of many; LATENCY cycles from a pair to its numerators."""
    tb = TB(dut)
    tb.sink("p")
    tokens, most = shape(dut)
    await tb.reset(pairs_i=1, keys_i=1)
    for rows, keys in ((1, 4096), (tokens * most, 129)):
        logits = np.clip(tb.rng.normal(size=(rows, keys)) * 2000, -32768, 32767).astype(np.int64)
        frame = in_pairs(dut, logits, tb.rng)
        dut.pairs_i.value, dut.keys_i.value = -(-rows // tokens), keys
        await tb.send("x", frame)
        await tb.accepted("x")
        start = tb.cycle
        if keys <= 288:
            await check(tb, logits)
        else:
            got = await tb.receive("p", "u1", (len(frame), tokens * (KEY_BLOCK + 7)))
            expected = golden(logits)[0].reshape(-1, KEY_BLOCK)
            equal("numerators of the most keys", got[:, :KEY_BLOCK], expected)
            tb.saw("keys", keys)
        measured(f"{len(frame)} pairs", tb.last_arrival - tb.first_arrival + 1, len(frame), 0)
        measured("last pair", tb.last_arrival - start, LATENCY, 0)
    cover("most keys", 1 << len(dut.keys_i) - 1 in tb.seen["keys"])
    cover("most rows", tokens * most in tb.seen["rows"])
