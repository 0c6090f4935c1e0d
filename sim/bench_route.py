# SPDX-License-Identifier: Apache-2.0
"""route.sv against golden and the HLS kernel: all numbers of experts and choices, ties, int32's ends."""

import cocotb
import numpy as np

from edge_moe.codegen.design import Design
from edge_moe_host.contract.isa import Opcode
from edge_moe_host.golden.operators import Gate, route
from sim.declaration import Operator
from sim.estimated import ZCU104, loops
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "route",
    kernels=("route",),
    variants=({}, {"LOGITS": 8, "PAIRS": 2, "MAX_EXPERTS": 20, "MAX_TOP_K": 8}),
    least=15_000,
    illegal=(
        ({"MAX_TOP_K": 9}, "MAX_TOP_K = 9 must be from 1 to SLOTS = 8"),
        ({"PAIRS": 3}, "PAIRS = 3 must be 2, 4, 8 or 16"),
        ({"MAX_EXPERTS": 65}, "MAX_EXPERTS = 65 must be from 2 to 64"),
    ),
)

SLOTS = 8  # of a routing row
HLS_TOP_K = ZCU104.max_top_k  # what the kernel is built for
LATENCY = 21  # cycles from the last numerator to its row


def logits_of_a_tile(dut):
    return len(dut.s_axis_logit_tdata) // 64


def limits(dut):
    """(tokens, experts, top-k, pairs of a group) that the parameters allow."""
    names = ("MAX_TOKENS", "MAX_EXPERTS", "MAX_TOP_K", "PAIRS")
    return tuple(getattr(dut, name).value.to_unsigned() for name in names)


def a_gate(experts, top_k, multiplier=256, shift=8):
    return Gate(np.zeros((experts, 1), np.int16), np.zeros(experts, np.int32), multiplier, shift, top_k)


def logit_pairs(rng, dut, logits):
    """Groups in order, in a group its tiles, in a tile its pairs; whatever fills them up must not matter."""
    tile, group = logits_of_a_tile(dut), 2 * limits(dut)[3]
    tokens, experts = logits.shape
    tiles = -(-experts // tile)
    padded = rng.integers(-(2**31), 2**31, (tokens + tokens % 2, tiles * tile))
    padded[:tokens, :experts] = logits
    made = []
    for first in range(0, len(padded), group):
        rows = padded[first : first + group].reshape(-1, 2, tiles, tile)
        made.append(rows.transpose(2, 0, 1, 3).reshape(-1, 2 * tile))
    return np.concatenate(made).astype("<i4")


async def send(tb, logits, gate):
    tokens, experts = logits.shape
    scalars = {"pairs_i": -(-tokens // 2), "experts_i": experts, "top_k_i": gate.top_k,
               "multiplier_i": gate.multiplier, "shift_i": gate.shift}  # fmt: skip
    for name, value in scalars.items():
        getattr(tb.dut, name).value = value
    await tb.send("logit", logit_pairs(tb.rng, tb.dut, logits))
    await tb.accepted("logit")


async def check(tb, logits, gate):
    """Routing rows: {expert, score} of the top-k, then zeros."""
    tokens = len(logits)
    got = await tb.receive("route", "<u2", (tokens + tokens % 2, SLOTS, 2))
    what = f"{tokens} tokens, {logits.shape[1]} experts, top-{gate.top_k}"
    expected = np.stack(route(logits[None], gate), axis=-1)[0].astype(np.int64)
    kernel = await tb.kernel("route", logits, gate) if gate.top_k <= HLS_TOP_K else None
    hls = None if kernel is None else np.stack(kernel, axis=-1)
    equal(what, got[:tokens, : gate.top_k], expected, hls)
    equal(f"{what}: after them", got[:, gate.top_k :], np.zeros_like(got[:, gate.top_k :]))
    tb.saw("tokens", tokens), tb.saw("experts", logits.shape[1]), tb.saw("top-k", gate.top_k)
    tb.saw("shift", gate.shift), tb.saw("score", expected[..., 1])
    tb.saw("ends", [logits.min(), logits.max()])
    tb.saw("equal logits", [len(set(row)) - len(row) for row in logits.tolist()])
    tb.saw("all equal", logits.min(axis=1) == logits.max(axis=1))
    return expected


async def run(tb, logits, gate):
    await send(tb, logits, gate)
    return await check(tb, logits, gate)


async def start(dut):
    tb = TB(dut)
    tb.source("logit"), tb.sink("route")
    await tb.reset(pairs_i=1, experts_i=2, top_k_i=1, multiplier_i=1, shift_i=1)
    return tb


def random_logits(rng, tokens, experts):
    """Of every size, each token of its own."""
    spread = 2.0 ** rng.integers(2, 31, (tokens, 1))
    return (rng.uniform(-1, 1, (tokens, experts)) * spread).astype(np.int32)


@cocotb.test()
async def sizes(dut):
    """One token to many, every number of experts and of choices."""
    tb = await start(dut)
    _, most_experts, most_choices, _ = limits(dut)
    for experts in (1, 2, 3, 5, 8, 15, 16, 17, 20, 31, 32):
        for top_k in range(1, min(most_choices, experts) + 1):
            if experts <= most_experts:
                tokens = int(tb.rng.choice([1, 2, 7, 8, 9, 16, 21]))
                gate = a_gate(experts, top_k, int(tb.rng.integers(1, 32768)), int(tb.rng.integers(20, 35)))
                await run(tb, random_logits(tb.rng, tokens, experts), gate)
    for tokens in range(1, 20):
        await run(tb, random_logits(tb.rng, tokens, 4), a_gate(4, 2, 20000, 30))
    await tb.silent("route")
    cover("one token, odd rows", tb.seen["tokens"] >= {1, 3, 7})
    cover("top-1 to the most", tb.seen["top-k"] == set(range(1, most_choices + 1)))
    numbers = {experts for experts in (1, 2, 3, 5, 8, 15, 16, 17, 20, 31, 32) if experts <= most_experts}
    cover("experts that fill a tile and that do not", tb.seen["experts"] >= numbers)


@cocotb.test()
async def ties(dut):
    """Equal logits go to the lower index; also those at both ends of int32."""
    tb = await start(dut)
    _, most_experts, most_choices, _ = limits(dut)
    for experts, top_k in [(2, 1), (6, most_choices), (16, 2), (most_experts, 3)]:
        top_k = min(top_k, experts)
        few = tb.rng.integers(-1, 2, size=(60, experts)).astype(np.int32)
        ends = tb.rng.choice([2**31 - 1, -(2**31 - 1), -(2**31)], size=(60, experts)).astype(np.int32)
        same = np.repeat(np.array([[0], [2**31 - 1], [-(2**31)], [-7]], np.int32), experts, axis=1)
        expected = await run(tb, np.concatenate([same, few, ends]), a_gate(experts, top_k))
        assert expected[:4, :, 0].tolist() == [list(range(top_k))] * 4
    cover("ties", min(tb.seen["equal logits"]) < 0)
    cover("all equal, and not all", tb.seen["all equal"] == {False, True})
    cover("both ends of int32", tb.seen["ends"] >= {-(2**31), 2**31 - 1})


@cocotb.test()
async def scores(dut):
    """The largest score, numerators that shifts leave nothing of, every shift of the scaling."""
    tb = await start(dut)
    logits = np.full((3, 4), -60000, np.int32)
    logits[0, 0], logits[1, 0], logits[2] = 20000, 511, 0
    await run(tb, logits, a_gate(4, 2, 1, 1))
    cover("largest score", max(tb.seen["score"]) > 32700)
    for shift in range(1, 48):
        gate = a_gate(8, 3, int(tb.rng.choice([1, 16384, 32767])), shift)
        await run(tb, random_logits(tb.rng, 5, 8), gate)
    # each distance to the largest logit, one after the other
    distances = np.arange(0, 4096, 4)
    logits = np.stack([np.zeros_like(distances), -distances - 1, -distances, -3 * distances], axis=1)
    for first in range(0, len(logits), 128):
        await run(tb, logits[first : first + 128].astype(np.int32), a_gate(4, 4, 2, 1))
    cover("every shift", tb.seen["shift"] == set(range(1, 48)))


@cocotb.test()
async def stalls(dut):
    """Frames of other sizes at once, under every mix of idle and back-pressure."""
    tb = await start(dut)
    _, most_experts, most_choices, _ = limits(dut)
    for idle, back in STALLS:
        tb.stall(idle, back)
        for _ in range(3):
            frames = []
            for _ in range(3):
                experts = int(tb.rng.integers(1, most_experts + 1))
                logits = random_logits(tb.rng, int(tb.rng.integers(1, 70)), experts)
                top_k = int(tb.rng.integers(1, min(most_choices, experts) + 1))
                frames.append((logits, a_gate(experts, top_k, int(tb.rng.integers(0, 32768)), 28)))
                await send(tb, *frames[-1])
            for frame in frames:
                await check(tb, *frame)
        await tb.silent("route")
    tb.cover_stalls()


@cocotb.test()
async def throughput(dut):
    """The estimator's loop: groups of tokens, an expert a cycle, one group more for the last numerators."""
    tb = await start(dut)
    tile, pairs = logits_of_a_tile(dut), limits(dut)[3]
    for experts in (2, 8, 16, 32):
        if experts > limits(dut)[1]:
            continue
        logits = random_logits(tb.rng, 128, experts)
        await run(tb, logits, a_gate(experts, 2, 20000, 30))
        group = experts + pairs * -(-experts // tile)
        cycles = tb.last_arrival - tb.offered["logit"]
        model = (64 // pairs + 1) * group + pairs
        if (pairs, tile) == (Design.route_pairs, 32):
            *_, loop, _ = loops(Opcode.GATE, rows=128, in_channels=32, experts=experts)
            assert model == loop.steps, "not the loop of the estimator"
        measured(f"128 tokens, {experts} experts", cycles, model, LATENCY)
        await tb.silent("route")
