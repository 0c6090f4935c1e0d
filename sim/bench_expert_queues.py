# SPDX-License-Identifier: Apache-2.0
"""expert_queues.sv against the routes themselves: every distribution of tokens, a cycle for each route."""

import cocotb
import numpy as np

from edge_moe.estimate.loops import cycles_of, queue_loop
from edge_moe_host.contract.isa import Instruction, Opcode
from sim.declaration import Operator
from sim.estimated import ZCU104
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "expert_queues",
    variants=({}, {"MAX_EXPERTS": 5, "MAX_TOKENS": 9, "MAX_TOP_K": 5}),
    least=10_000,
    illegal=(
        ({"MAX_TOP_K": 9}, "MAX_TOP_K = 9 must be from 1 to SLOTS = 8"),
        ({"MAX_EXPERTS": 1}, "at least 2"),
    ),
)

SLOTS = 8  # of a routing row
LATENCY = 5  # cycles from the last route to the first head


def limits(dut):
    """(tokens, experts, top-k) that the parameters allow."""
    return tuple(
        getattr(dut, name).value.to_unsigned() for name in ("MAX_TOKENS", "MAX_EXPERTS", "MAX_TOP_K")
    )


def random_routes(rng, tokens, experts, top_k):
    """Distinct experts of each token, and scores."""
    expert = np.argsort(rng.random((tokens, experts)), axis=1)[:, :top_k]
    return expert, rng.integers(0, 32768, (tokens, top_k))


def routing_rows(rng, expert, score, experts):
    """Pairs of routing rows; slots after the top-k and the partner of a last odd token name any expert."""
    tokens, top_k = expert.shape
    rows = rng.integers(0, 32768, (tokens + tokens % 2, SLOTS, 2))
    rows[..., 0] %= experts
    rows[:tokens, :top_k, 0], rows[:tokens, :top_k, 1] = expert, score
    return rows.astype("<u2")


async def send(tb, expert, score, experts):
    tokens, top_k = expert.shape
    for name, value in (("experts_i", experts), ("top_k_i", top_k), ("odd_i", tokens % 2)):
        getattr(tb.dut, name).value = value
    await tb.send("route", routing_rows(tb.rng, expert, score, experts))
    await tb.accepted("route")


async def check(tb, expert, score, experts):
    """One frame for each expert: its head, its tokens in order. A repeated expert of a row counts once."""
    mask = 0
    spans = []
    for e in range(experts):
        hit = expert == e
        rows = np.flatnonzero(hit.any(axis=1))
        slots = hit.argmax(axis=1)[rows]
        expected = np.concatenate([[[e, len(rows)]], np.stack([rows, score[rows, slots]], axis=1)])
        got = await tb.receive("queue", "<u2", expected.shape)
        if e == 0:
            seen = tb.dut.routed_o.value.to_unsigned() if tb.dut.routed_valid_o.value else None
        equal(f"expert {e}", got, expected)
        mask |= bool(len(rows)) << e
        tb.saw("tokens of an expert", len(rows))
        spans += [tb.first_arrival, tb.last_arrival]
    tb.saw("tokens", len(expert)), tb.saw("experts", experts), tb.saw("top-k", expert.shape[1])
    tb.saw("missing expert", expert >= experts)
    tb.saw("repeated expert", np.diff(np.sort(expert, axis=1), axis=1) == 0)
    assert seen in (None, mask), f"routed_o is {seen:b}, {mask:b} is due"
    return spans[0], spans[-1]


async def start(dut):
    tb = TB(dut)
    tb.source("route"), tb.sink("queue")
    await tb.reset(experts_i=2, top_k_i=1, odd_i=0)
    return tb


async def run(tb, expert, score, experts):
    await send(tb, expert, score, experts)
    return await check(tb, expert, score, experts)


@cocotb.test()
async def sizes(dut):
    """One token to the most, every top-k, few experts and many."""
    tb = await start(dut)
    most = limits(dut)
    numbers = {2, 3, 8, 16, 32, most[1]}
    for experts in sorted(numbers):
        for tokens in (1, 2, 3, 8, 33, 129, most[0]):
            for top_k in range(1, min(most[2], experts) + 1):
                if tokens <= most[0] and experts <= most[1]:
                    await run(tb, *random_routes(tb.rng, tokens, experts, top_k), experts)
    await tb.silent("queue")
    cover("one token, odd rows, most tokens", tb.seen["tokens"] >= {1, 3, most[0]})
    cover("2 to 32 experts", tb.seen["experts"] == {n for n in numbers if n <= most[1]})
    cover("top-1 to the most", tb.seen["top-k"] == set(range(1, most[2] + 1)))


@cocotb.test()
async def distributions(dut):
    """All tokens on one expert, on two in turn, and most experts empty."""
    tb = await start(dut)
    tokens, experts, _ = limits(dut)
    score = tb.rng.integers(0, 32768, (tokens, 2))
    for e in range(experts):
        await run(tb, np.full((tokens, 1), e), score[:, :1], experts)
    turns = np.stack([np.arange(tokens) % 2, 2 + np.arange(tokens) % 2], axis=1)
    await run(tb, turns, score, experts)
    await run(tb, np.full((tokens, 2), [experts - 1, 0]), score, experts)
    cover("all tokens on one expert, the others empty", tb.seen["tokens of an expert"] >= {0, tokens})


@cocotb.test()
async def routed(dut):
    """Which experts are not empty is known before the first of them comes out."""
    tb = await start(dut)
    experts = limits(dut)[1]
    for _ in range(5):
        expert, score = random_routes(tb.rng, int(tb.rng.integers(1, 4)), experts, 2)
        tb.stall(0.0, 1.0)
        await send(tb, expert, score, experts)
        await tb.cycles(20)
        assert tb.dut.routed_valid_o.value == 1
        mask = np.zeros(experts, int)
        mask[expert.ravel()] = 1
        equal("routed_o", np.array([int(bit) for bit in reversed(str(tb.dut.routed_o.value))]), mask)
        tb.stall(0.0, 0.0)
        await check(tb, expert, score, experts)


@cocotb.test()
async def damaged_rows(dut):
    """Experts that do not exist, or that a row names twice, are left out."""
    tb = await start(dut)
    tokens, experts, top_k = limits(dut)
    for _ in range(5):
        expert, score = random_routes(tb.rng, tokens, experts, top_k)
        expert[tb.rng.random(expert.shape) < 0.2] = tb.rng.choice([experts - 1, experts, experts + 1, 65535])
        expert[:, 1] = np.where(tb.rng.random(tokens) < 0.3, expert[:, 0], expert[:, 1])
        await run(tb, expert, score, experts - 1)
        await run(tb, *random_routes(tb.rng, 3, experts, top_k), experts)
    cover("routes that are left out", True in tb.seen["missing expert"] & tb.seen["repeated expert"])


@cocotb.test()
async def stalls(dut):
    """Every mix of idle and back-pressure, one frame of rows after the other."""
    tb = await start(dut)
    tokens, experts, top_k = limits(dut)
    for idle, back in STALLS:
        tb.stall(idle, back)
        for _ in range(4):
            size = int(tb.rng.integers(1, tokens // 4 + 2)), int(tb.rng.integers(top_k, experts + 1))
            await run(tb, *random_routes(tb.rng, *size, int(tb.rng.integers(1, top_k + 1))), size[1])
        await tb.silent("queue")
    tb.cover_stalls()


@cocotb.test()
async def throughput(dut):
    """A route in a cycle on the way in; on the way out a route or an expert's head."""
    tb = await start(dut)
    most_tokens, experts, _ = limits(dut)
    for top_k in (1, 2):
        tokens = min(129, most_tokens)
        expert, score = random_routes(tb.rng, tokens, experts, top_k)
        first, last = await run(tb, expert, score, experts)
        measured(f"{tokens} tokens in, top-{top_k}", first - tb.offered["route"], tokens * top_k, LATENCY)
        loop = queue_loop(Instruction(opcode=Opcode.EXPERTS, rows=tokens, top_k=top_k), ZCU104)
        assert first - tb.offered["route"] <= cycles_of([loop]), "longer than the loop of the estimator"
        measured("and out", last - first + 1, tokens * top_k + experts, 0)
