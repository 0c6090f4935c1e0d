# SPDX-License-Identifier: Apache-2.0
"""gate_logits.sv against golden and the HLS kernel: gates of every size, every weight, both ends of int32.

The bench adds up the two halves as the compute unit does; the kernel splits the weights itself.
"""

import cocotb
import numpy as np

from edge_moe.estimate.loops import GATE_BITS
from edge_moe_host.golden.operators import Gate, gate_logits
from sim.declaration import Operator
from sim.estimated import passes
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "gate_logits",
    kernels=("gate_logits",),
    variants=({}, {"EXPERTS": 3}),
    least=40_000,
    illegal=(({"EXPERTS": 0}, "EXPERTS = 0 must be at least 1"),),
)

TOKENS = 2
LATENCY = 3


def tile(dut):
    """Experts of a tile."""
    return len(dut.bias_i) // 32


def random_gate(rng, experts, width):
    weight = rng.integers(-16319, 16319, size=(experts, width), endpoint=True)
    bias = rng.integers(-(2**24), 2**24, size=experts)
    return Gate(weight.astype(np.int16), bias.astype(np.int32), 1, 1, 1)


def halves(weight):
    """(high, low) with weight = 128 high + low, low in [-64, 63]."""
    weight = weight.astype(np.int64)
    high = (weight + 64) >> 7
    return high, weight - 128 * high


def tile_sums(dut, x, gate, first):
    """Sums of one tile of experts as the compute unit gives them; an odd last token has any partner."""
    high, low = (x.astype(np.int64) @ half[first : first + tile(dut)].T for half in halves(gate.weight))
    missing = tile(dut) - high.shape[1]
    sums = np.concatenate([np.pad(half, ((0, 0), (0, missing))) for half in (high, low)], axis=1)
    return np.pad(sums, ((0, len(sums) % TOKENS), (0, 0)), constant_values=-77).astype(np.int32)


async def run(tb, x, gate):
    """All tiles one after the other, each with its biases; frames are received when all are sent."""
    experts = len(gate.weight)
    firsts = range(0, experts, tile(tb.dut))
    for first in firsts:
        bias = np.pad(gate.bias[first : first + tile(tb.dut)], (0, tile(tb.dut)))[: tile(tb.dut)]
        tb.dut.bias_i.value = int.from_bytes(bias.astype("<i4").tobytes(), "little")
        await tb.send("a", tile_sums(tb.dut, x, gate, first))
        await tb.accepted("a")
    rows = -(-len(x) // TOKENS) * TOKENS
    tiles = [(await tb.receive("logit", "<i4", (rows, tile(tb.dut))))[: len(x)] for _ in firsts]
    got = np.ascontiguousarray(np.concatenate(tiles, axis=1)[:, :experts])
    hls = await tb.kernel("gate_logits", x, gate)
    equal(f"{len(x)} tokens, {experts} experts of {x.shape[1]}", got, gate_logits(x[None], gate)[0], hls)
    tb.saw("tokens", len(x)), tb.saw("experts", experts), tb.saw("weight", gate.weight)
    tb.saw("ends", [got.min(), got.max()])


async def start(dut):
    tb = TB(dut)
    tb.source("a"), tb.sink("logit")
    await tb.reset(bias_i=0)
    return tb


@cocotb.test()
async def sizes(dut):
    """Gates that fill a tile of experts and that do not, of one token, odd numbers and many."""
    tb = await start(dut)
    for tokens, experts, width in [
        (1, 2, 1),
        (3, 8, 33),
        (20, 16, 192),
        (129, 32, 64),
        (5, 17, 31),
        (7, 5, 256),
    ]:
        x = tb.rng.integers(-128, 128, (tokens, width)).astype(np.int8)
        await run(tb, x, random_gate(tb.rng, experts, width))
    await tb.silent("logit")
    cover("one token, odd rows", tb.seen["tokens"] >= {1, 3})
    cover("2, 8, 16, 32 experts, and numbers that fill no tile", tb.seen["experts"] >= {2, 8, 16, 32, 5, 17})


@cocotb.test()
async def every_split(dut):
    """Each weight in +-16319, alone against 1 and -128."""
    tb = await start(dut)
    weights = np.arange(-16319, 16320)
    weights = np.pad(weights, (0, -len(weights) % (32 * 32)), mode="edge").reshape(-1, 32, 32)
    eye = np.eye(32, dtype=np.int8)
    x = np.concatenate([eye, -128 * eye]).astype(np.int8)
    for weight in weights:
        await run(tb, x, Gate(weight.astype(np.int16), np.zeros(32, np.int32), 1, 1, 1))
    cover("every weight", tb.seen["weight"] == set(range(-16319, 16320)))


@cocotb.test()
async def ends_of_int32(dut):
    """Logits at and near -2^31 and 2^31 - 1."""
    tb = await start(dut)
    weight = np.array([[16319] * 256, [-16319] * 256], np.int16)
    x = np.array([[127] * 256, [-128] * 256, [0] * 256], np.int8)
    top = 128 * 16319 * 256
    for bias in ([2**31 - 1 - top, top - 2**31], [0, 0], [-5, 5]):
        await run(tb, x, Gate(weight, np.array(bias, np.int32), 1, 1, 1))
    ends = tb.seen["ends"]
    cover("near both ends of int32", min(ends) < -(2**31) + 2**23 and max(ends) >= 2**31 - 2**23)


@cocotb.test()
async def stalls(dut):
    """Tiles with other biases at once, under every mix of idle and back-pressure."""
    tb = await start(dut)
    for idle, back in STALLS:
        tb.stall(idle, back)
        for _ in range(4):
            width = int(tb.rng.integers(1, 100))
            x = tb.rng.integers(-128, 128, (int(tb.rng.integers(1, 30)), width)).astype(np.int8)
            await run(tb, x, random_gate(tb.rng, int(tb.rng.integers(1, 33)), width))
        await tb.silent("logit")
    tb.cover_stalls()


@cocotb.test()
async def throughput(dut):
    """A pair of tokens and a tile of experts per cycle."""
    tb = await start(dut)
    x = tb.rng.integers(-128, 128, (258, 32)).astype(np.int8)
    await run(tb, x, random_gate(tb.rng, tile(dut), 32))
    measured("258 tokens", tb.last_arrival - tb.offered["a"], passes(1, 1, GATE_BITS, 129), LATENCY)
