# SPDX-License-Identifier: Apache-2.0
"""experts.sv against golden and the HLS kernel: pairs of any tokens, every top-k, saturation, tokens that
follow themselves.

The module sums what the experts' linears gave; the kernel does the linears too.
"""

import dataclasses

import cocotb
import numpy as np

from edge_moe.codegen.design import Design
from edge_moe.testing.cases import int8, int16, random_ffn
from edge_moe_host.golden import operators
from sim.declaration import Operator
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "experts",
    kernels=("experts",),
    variants=({}, {"LANES": 8, "MAX_WIDTH": 64, "MAX_TOKENS": 40, "MAX_TOP_K": 8}),
    least=100_000,
    illegal=(
        ({"MAX_TOP_K": 9}, "MAX_TOP_K = 9 must be from 1 to 8"),
        ({"MAX_TOKENS": 40000}, "at most 32768"),
    ),
)

EMPTY = 0x8000
LATENCY = 6  # cycles from a residual slice to its result


def lanes(dut):
    return len(dut.m_axis_y_tdata) // 16


def limits(dut):
    """(tokens, width, top-k) that the parameters allow."""
    return (
        dut.MAX_TOKENS.value.to_unsigned(),
        dut.MAX_WIDTH.value.to_unsigned(),
        dut.MAX_TOP_K.value.to_unsigned(),
    )


def by_tiles(dut, rows):
    """[n, width] as [n, tiles, lanes]; padding that must not matter to others."""
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % lanes(dut))), constant_values=77)
    return rows.reshape(len(rows), -1, lanes(dut))


def results(x, expert, score, ffns):
    """For each expert that has tokens: tokens, scores, int16 results."""
    for e, ffn in enumerate(ffns):
        rows, slots = np.nonzero(expert == e)
        if len(rows):
            hidden = operators.linear_gelu(x[rows], ffn)
            yield rows, score[rows, slots], operators.linear_int16(hidden, ffn.fc2)


def result_pairs(rng, dut, rows, scores, f):
    """One expert's pairs: for each tile its tokens two at a time, on either side."""
    missing = len(rows) % 2
    rows, scores = np.append(rows, [EMPTY] * missing), np.append(scores, [12345] * missing)
    f = by_tiles(dut, np.concatenate([f, np.full((missing, f.shape[1]), 99)]).astype(np.int16))
    pairs = np.arange(len(rows)).reshape(-1, 2)
    pairs = np.where(rng.random((len(pairs), 1)) < 0.5, pairs, pairs[:, ::-1])
    made = []
    for tile in range(f.shape[1]):
        fields = [
            f[pairs, tile].reshape(len(pairs), -1),
            rows[pairs],
            scores[pairs],
            np.full((len(pairs), 1), tile),
        ]
        made.append(np.concatenate(fields, axis=1))
    return np.concatenate(made).astype(np.uint16)


def mixture(rng, tokens, width, hidden, experts, top_k):
    """x, routes of distinct experts, scores, residual, experts."""
    ffns = tuple(
        random_ffn(rng, width, hidden, zero_point=int(rng.integers(-128, 100))) for _ in range(experts)
    )
    expert = np.argsort(rng.random((tokens, experts)), axis=1)[:, :top_k].astype(np.int32)
    score = rng.integers(0, 32767, (tokens, top_k), endpoint=True).astype(np.int16)
    return int8(rng, tokens, width), expert, score, int16(rng, tokens, width), ffns


async def start(dut):
    tb = TB(dut)
    tb.source("f"), tb.source("residual"), tb.sink("y")
    await tb.reset(tiles_i=1)
    return tb


async def run(tb, x, expert, score, residual, ffns):
    """A whole mixture; the result as golden has it."""
    frame = [result_pairs(tb.rng, tb.dut, *part) for part in results(x, expert, score, ffns)]
    await tb.send("f", np.concatenate(frame))
    saw_pairs(tb, frame)
    rows = by_tiles(tb.dut, residual)
    await tb.accepted("f")
    tb.dut.tiles_i.value = rows.shape[1]
    await tb.send("residual", rows)
    got = (await tb.receive("y", "<i2", (len(x), rows.shape[1] * lanes(tb.dut))))[:, : x.shape[1]]
    combined = operators.experts(x[None], expert[None], score[None], ffns)[0]
    expected = operators.residual_add(residual, combined)
    hls = await tb.kernel("experts", x, expert, score, residual, ffns)
    equal(f"{len(x)} tokens, {len(ffns)} experts, top-{expert.shape[1]}", got, expected, hls)
    tb.saw_saturation(residual.astype(np.int64) + combined, -32768, 32767)
    tb.saw("tokens", len(x)), tb.saw("width", x.shape[1]), tb.saw("top-k", expert.shape[1])
    tb.saw("tokens of an expert", np.bincount(expert.reshape(-1), minlength=len(ffns)))
    return expected


def saw_pairs(tb, frame):
    """How far back the last pair of a token of this pair is, of the same tile."""
    columns = 2 * lanes(tb.dut)
    fields = np.concatenate(frame)[:, columns:].astype(int)
    seen = {}
    for n, (left, right, *_, tile) in enumerate(fields):
        for token in {left, right} - {EMPTY}:
            if (token, tile) in seen:
                tb.seen["pairs since the same token"].add(n - seen[token, tile])
            seen[token, tile] = n


@cocotb.test()
async def mixtures(dut):
    """Sizes of tokens, widths and routes, one mixture after the other in the same sums."""
    tb = await start(dut)
    tokens, width, top_k = limits(dut)
    for case in [
        (1, 1, 1, 1, 1), (1, 32, 64, 4, 4), (3, 33, 40, 5, 2), (20, 64, 128, 8, 2), (40, 40, 96, 32, 1),
        (33, 32, 32, 4, 3), (7, 31, 8, 8, min(4, top_k)), (5, 16, 8, 9, top_k), (129, 192, 64, 16, 2),
        (tokens, width, 32, 6, 2),
    ]:  # fmt: skip
        if case[0] <= tokens and case[1] <= width:
            await run(tb, *mixture(tb.rng, *case))
    await tb.silent("y")
    cover("one token, odd rows, most tokens", tb.seen["tokens"] >= {1, 3, tokens})
    cover("widths that fill no tile, largest width", tb.seen["width"] >= {1, 31, 33, width})
    cover("top-1 to the most", tb.seen["top-k"] >= {1, 2, top_k})
    cover("both saturations and none", tb.seen["saturation"] == {-1, 0, 1})


@cocotb.test()
async def routes(dut):
    """All tokens on one expert, and experts that have none."""
    tb = await start(dut)
    x, expert, score, residual, ffns = mixture(tb.rng, 39, 33, 40, 4, 1)
    for chosen in (0, 3):
        expert[:] = chosen
        await run(tb, x, expert, score, residual, ffns)
    cover("all tokens on one expert, the others empty", tb.seen["tokens of an expert"] == {0, 39})


@cocotb.test()
async def opposite_experts(dut):
    """Experts at both ends of int16: their sum is small although either saturates the residual."""
    tb = await start(dut)
    x, _, _, residual, (ffn,) = mixture(tb.rng, 5, 32, 32, 1, 1)

    def constant(bias):
        linear = dataclasses.replace(
            ffn.fc2, weight=np.zeros((32, 32), np.int8), bias=np.full(32, bias, np.int32),
            multiplier=np.full(32, 32767, np.int16), shift=1,
        )  # fmt: skip
        return dataclasses.replace(ffn, fc2=linear)

    up, down = constant(2**30), constant(-(2**30))
    ends = [next(results(x, np.zeros((5, 1)), np.zeros((5, 1)), (end,)))[2] for end in (up, down)]
    cover("both ends of int16", (ends[0] == 32767).all() and (ends[1] == -32768).all())
    expert = np.tile(np.arange(4, dtype=np.int32), (5, 1))
    score = np.full((5, 4), 32767, np.int16)
    for level in (-32768, 0, 32767):
        residual[:] = level
        await run(tb, x, expert, score, residual, (up, down, up, down))
        await run(tb, x, expert, score, residual, (up, up, up, up))
        await run(tb, x, expert, score, residual, (down, down, down, down))
    cover("both saturations and none", tb.seen["saturation"] == {-1, 0, 1})


@cocotb.test()
async def same_token(dut):
    """A token of the pair before, or of two or three before: its sum must have been written."""
    tb = await start(dut)
    for tokens in (1, 2, 3, 4, 5, 6, 7, 8, 9):
        for _ in range(4):
            await run(tb, *mixture(tb.rng, tokens, min(lanes(dut), 32), 8, 4, 4))
    cover("the same token 1 to 4 pairs later", tb.seen["pairs since the same token"] >= {1, 2, 3, 4})


@cocotb.test()
async def stalls(dut):
    """Every mix of idle and back-pressure."""
    tb = await start(dut)
    for idle, back in STALLS:
        tb.stall(idle, back)
        for _ in range(3):
            tokens, width = int(tb.rng.integers(1, 30)), int(tb.rng.integers(1, 65))
            await run(tb, *mixture(tb.rng, tokens, width, 16, 6, int(tb.rng.integers(1, 5))))
        await tb.silent("y")
    tb.cover_stalls()


@cocotb.test()
async def throughput(dut):
    """A pair of tokens and a tile per cycle, then a token and a tile of the residual per cycle."""
    tb = await start(dut)
    tokens, width = (min(limit, size) for limit, size in zip(limits(dut), (129, 192), strict=False))
    await run(tb, *mixture(tb.rng, 1, 1, 1, 1, 1))  # the sums have been cleared
    case = mixture(tb.rng, tokens, width, 16, 16, 2)
    tiles = by_tiles(dut, case[3]).shape[1]
    crowds = np.bincount(case[1].ravel(), minlength=16)
    await run(tb, *case)
    cycles = tb.last_arrival - tb.offered["f"]
    model = int((-(-crowds // 2)).sum() + tokens) * tiles
    # the source offers the residual a few cycles after it has seen the last result taken
    measured(f"{tokens} tokens of {width}, top-2", cycles, model, LATENCY + 4)
    estimated = int(crowds.sum()) * tiles + Design.move_depth * int(np.count_nonzero(crowds))
    assert cycles <= estimated, "longer than the loops of the estimator"
