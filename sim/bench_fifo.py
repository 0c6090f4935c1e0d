# SPDX-License-Identifier: Apache-2.0
"""fifo.sv against a queue: every element in order, the count in every cycle, full, empty, throughput."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from sim.declaration import Operator
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "fifo",
    variants=({}, {"WIDTH": 16, "DEPTH": 5}, {"WIDTH": 24, "DEPTH": 65}, {"WIDTH": 8, "DEPTH": 64}),
    least=3_000_000,
    illegal=(
        ({"DEPTH": 1}, "DEPTH = 1 must be at least 2"),
        ({"STAGES": 4}, "STAGES = 4 must be 1, 2 or 3"),
    ),
)


class Pair:
    """Both sides of the FIFO, driven cycle by cycle, and the queue that it must be like."""

    def __init__(self, tb):
        self.tb, self.dut = tb, tb.dut
        self.width = len(tb.dut.m_axis_data_tdata)
        self.depth = len(tb.dut.memory)
        self.stages = len(tb.dut.valid_q)
        self.held, self.given, self.due = deque(), [], []
        self.offer = self.take = False
        self.states = set()  # (elements held, valid in, ready in, valid out, ready out)

    async def reset(self):
        await self.tb.reset(s_axis_data_tvalid=0, m_axis_data_tready=0)

    async def cycle(self, offer, take):
        """What was driven until this edge happens; then drive. An offer stays until it is taken."""
        dut = self.dut
        await RisingEdge(dut.clk)
        ready, valid = int(dut.s_axis_data_tready.value), int(dut.m_axis_data_tvalid.value)
        assert int(dut.count_o.value) == len(self.held)
        self.states.add((len(self.held), self.offer, ready, valid, self.take))
        assert ready or len(self.held) >= self.depth, f"no room beside {len(self.held)} elements"
        assert not valid or self.held, "an element came from an empty FIFO"
        if valid and self.take:
            self.given.append(int(dut.m_axis_data_tdata.value))
            self.due.append(self.held.popleft())
        accepted = self.offer and ready
        if accepted:
            self.held.append(self.element)
        if accepted or not self.offer:
            self.offer = bool(offer)
            self.element = int.from_bytes(self.tb.rng.bytes(self.width // 8), "little")
            dut.s_axis_data_tdata.value = self.element
            dut.s_axis_data_tvalid.value = self.offer
        self.take = bool(take)
        dut.m_axis_data_tready.value = self.take
        return accepted

    def cover(self, case, held, **signals):
        """A cycle with so many elements, or any number for None, and with these signals."""
        names = ("offer", "ready", "valid", "take")
        found = any(
            held in (None, state[0]) and all(state[1 + names.index(n)] == v for n, v in signals.items())
            for state in self.states
        )
        cover(case, found)

    def compare(self, what):
        """All that has come since the last time."""
        rows = [
            np.frombuffer(b"".join(one.to_bytes(self.width // 8, "little") for one in elements), np.uint8)
            for elements in (self.given, self.due)
        ]
        equal(what, *rows)
        self.given, self.due = [], []

    async def drain(self, limit):
        """Until nothing is held, with a bound; then nothing may come any more."""
        for _ in range(limit):
            if not self.held and not self.offer:
                break
            await self.cycle(False, True)
        else:
            raise AssertionError(f"{len(self.held)} elements are left after {limit} cycles")
        for _ in range(20):
            await self.cycle(False, True)


@cocotb.test()
async def stalls(dut):
    """Beats in order under every mix of idle and back-pressure."""
    pair = Pair(TB(dut))
    await pair.reset()
    for idle, back in STALLS:
        for draws in pair.tb.rng.random((400, 2)):
            await pair.cycle(draws[0] >= idle, draws[1] >= back)
        await pair.drain(pair.depth + 50)
        pair.compare(f"idle {idle}, back-pressure {back}")
    pair.cover("idle", None, offer=False, ready=1)
    pair.cover("back-pressure", None, valid=1, take=False)


@cocotb.test()
async def full(dut):
    """Filled to the last place, held there, emptied; three times with another start in the memory."""
    pair = Pair(TB(dut))
    await pair.reset()
    capacity = pair.depth + pair.stages
    for turn in range(3):
        for step in range(capacity + 80):  # slowly at first: each element finds its register
            await pair.cycle(step > 60 or step % 8 == 0, False)
        assert len(pair.held) == capacity
        for _ in range(3 + 5 * turn):  # an element in for each that leaves
            await pair.cycle(True, True)
        await pair.drain(capacity + 50)
        pair.compare(f"full {turn}")
    pair.cover("full", capacity, offer=True, ready=0)
    pair.cover("empty", 0, valid=0, take=True)


@cocotb.test()
async def throughput(dut):
    """An element per cycle on both sides, the first STAGES + 1 cycles after it came."""
    pair = Pair(TB(dut))
    await pair.reset()
    count, first, arrivals = 300, None, []
    await pair.cycle(True, True)
    for _ in range(count + 20):
        had = len(pair.given)
        accepted = await pair.cycle(True, True)
        if accepted and first is None:
            first = pair.tb.cycle
        if len(pair.given) > had:
            arrivals.append(pair.tb.cycle)
    measured(f"{count} elements", arrivals[count - 1] - first, count - 1, pair.stages + 1)
    assert arrivals[count - 1] - arrivals[0] == count - 1, "a bubble"
    pair.compare("unstalled")
