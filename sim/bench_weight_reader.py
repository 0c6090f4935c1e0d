# SPDX-License-Identifier: Apache-2.0
"""weight_reader.sv at a memory that is late, pauses and fails: data, addresses and errors are those due."""

import logging
from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiReadBus, AxiResp, AxiSlaveRead

from sim.declaration import Operator
from sim.tb import STALLS, TB, cover, equal, measured

OPERATOR = Operator(
    "weight_reader",
    variants=(
        {},
        {"DATA_WIDTH": 32, "MAX_BURST": 4, "OUTSTANDING": 3, "DEPTH": 9},
        {"MAX_BURST": 256, "DEPTH": 1024},
    ),
    least=50_000,
    illegal=(
        ({"MAX_BURST": 48}, "MAX_BURST = 48 must be a power of 2"),
        ({"DATA_WIDTH": 256, "MAX_BURST": 256}, "8192 bytes, more than 4096"),
        ({"OUTSTANDING": 1}, "OUTSTANDING = 1 must be at least 2"),
        ({"DEPTH": 32}, "DEPTH = 32 must hold a burst"),
    ),
)

PAGE = 4096
LATENCY = 200  # cycles that memory takes at most
PIPELINE = 12  # cycles of the reader, its FIFO and the memory's model


class Memory(AxiSlaveRead):
    """Answers bursts in order, each a number of cycles after its request, though many may be under way."""

    def __init__(self, tb):
        self.tb = tb
        self.contents = {}  # bytes of a transfer by address; others have not been announced
        self.asked = []  # (address, transfers) of every burst
        self.latency = lambda: 0
        self.failing = {}  # number of a burst to its first transfer that fails and the response
        super().__init__(AxiReadBus.from_prefix(tb.dut, "m_axi"), tb.dut.clk, tb.dut.rst)
        self.log.setLevel(logging.WARNING)
        self.waiting = deque()
        cocotb.start_soon(self._watch())

    def stall(self, asking, giving):
        """Random pauses: share of cycles without arready, and without rvalid."""
        self.tb.pause("ar", self.ar_channel, asking)
        self.tb.pause("r", self.r_channel, giving)

    async def _process_read(self):
        cocotb.start_soon(self._accept())
        while True:
            if not self.waiting or self.waiting[0][0] > self.tb.cycle:
                await RisingEdge(self.clock)
                continue
            _, number, address, transfers = self.waiting.popleft()
            fails = self.failing.get(number, (transfers, AxiResp.OKAY))
            for transfer in range(transfers):
                r = self.r_channel._transaction_obj()
                r.rid, r.rlast = 0, transfer == transfers - 1
                r.rresp = AxiResp.OKAY if transfer < fails[0] else fails[1]
                at = address + transfer * self.byte_lanes
                assert at in self.contents, f"the transfer at {at:#x} is not due"
                r.rdata = int.from_bytes(self.contents[at], "little")
                await self.r_channel.send(r)

    async def _accept(self):
        while True:
            ar = await self.ar_channel.recv()
            address, transfers = int(ar.araddr), int(ar.arlen) + 1
            assert (int(ar.arburst), 1 << int(ar.arsize)) == (1, self.byte_lanes)
            assert address % self.byte_lanes == 0
            assert address // PAGE == (address + transfers * self.byte_lanes - 1) // PAGE, (
                "a burst crosses 4 KiB"
            )
            latency = self.latency()
            self.tb.saw("latency", latency)
            self.waiting.append((self.tb.cycle + latency, len(self.asked), address, transfers))
            self.asked.append((address, transfers))

    async def _watch(self):
        """A request stays as it is until it is taken; data are taken at once."""
        dut, before = self.tb.dut, None
        while True:
            await RisingEdge(self.clock)
            if int(dut.rst.value):
                before = None
                continue
            now = tuple(int(s.value) for s in (dut.m_axi_arvalid, dut.m_axi_araddr, dut.m_axi_arlen))
            assert before is None or now == before, "a request changed while it waited"
            before = now if now[0] and not int(dut.m_axi_arready.value) else None
            assert int(dut.m_axi_rready.value) == 1, "memory had to wait"


class Reader:
    """The module, its memory, and what it must deliver."""

    def __init__(self, dut):
        self.tb, self.dut = TB(dut), dut
        self.bytes = len(dut.m_axis_weights_tdata) // 8
        self.burst = 1 << len(dut.to_end) - 1
        self.outstanding = len(dut.bursts)
        self.depth = len(dut.u_fifo.memory)
        self.tb.source("block"), self.tb.sink("weights")
        self.memory = Memory(self.tb)
        self.due = []

    async def reset(self):
        await self.tb.reset(clear_i=0)

    async def block(self, address, transfers):
        """Announce a block and fill the memory there."""
        data = self.tb.rng.integers(0, 256, (transfers, self.bytes), dtype=np.uint8)
        for i, row in enumerate(data):
            self.memory.contents[address + i * self.bytes] = row.tobytes()
        head = np.frombuffer(address.to_bytes(8, "little") + transfers.to_bytes(4, "little"), np.uint8)
        await self.tb.send("block", head)
        self.tb.saw("transfers", transfers), self.tb.saw("address bits", address.bit_length())
        self.tb.saw("pages", (address + max(transfers, 1) * self.bytes - 1) // PAGE - address // PAGE + 1)
        if transfers:
            self.due.append((address, data))

    async def check(self):
        """Every block's data, and that exactly its transfers were asked for, in order, in legal bursts."""
        addresses = []
        for address, data in self.due:
            equal(f"block at {address:#x}", await self.tb.receive("weights", "u1", data.shape), data)
            addresses.append(address + self.bytes * np.arange(len(data), dtype=np.uint64))
        await self.tb.silent("weights", 300)
        asked = self.memory.asked
        assert all(transfers <= self.burst for _, transfers in asked)
        read = [address + self.bytes * np.arange(transfers, dtype=np.uint64) for address, transfers in asked]
        equal("addresses", np.concatenate(read), np.concatenate(addresses))
        self.due, self.memory.asked = [], []
        self.memory.contents.clear()


def random_address(reader, high=1 << 40):
    return int(reader.tb.rng.integers(1, high // PAGE)) * PAGE + reader.bytes * int(
        reader.tb.rng.integers(0, PAGE // reader.bytes)
    )


@cocotb.test()
async def blocks(dut):
    """Blocks of every length about a burst's and a page's, anywhere in a page, under every mix of pauses."""
    reader = Reader(dut)
    rng = reader.tb.rng
    await reader.reset()
    page = PAGE // reader.bytes
    for idle, back in STALLS:
        reader.tb.stall(idle, back)
        reader.memory.stall(back, idle)
        reader.memory.latency = lambda: int(rng.integers(0, LATENCY + 1))
        near = (reader.burst - 1, 0, reader.burst, reader.burst + 1)
        for transfers in (1, *near, int(rng.integers(1, 40)), 0):
            await reader.block(random_address(reader), transfers)
        start = (random_address(reader) // PAGE + 1) * PAGE
        await reader.block(start - 3 * reader.bytes, min(page, reader.burst) + 5)  # over a boundary
        await reader.block(start + 2 * PAGE - reader.bytes, 2)
        await reader.check()
    await reader.block((1 << 64) - 2 * PAGE + reader.bytes, 3)
    await reader.check()
    assert not int(dut.error_o.value)
    seen = reader.tb.seen
    reader.tb.cover_stalls()
    cover("short and long latencies", min(seen["latency"]) < 20 and max(seen["latency"]) > LATENCY - 20)
    cover("a block in one page and in more", seen["pages"] >= {1, 2})
    cover(
        "empty block, a burst and its neighbours",
        seen["transfers"] >= {0, *(reader.burst + i for i in (-1, 0, 1))},
    )
    cover("address of 64 bits", 64 in seen["address bits"])


@cocotb.test()
async def errors(dut):
    """Beats with SLVERR and DECERR: all data still come; the first one's burst is reported."""
    reader = Reader(dut)
    rng = reader.tb.rng
    await reader.reset()
    for turn, response in enumerate((AxiResp.SLVERR, AxiResp.DECERR, AxiResp.SLVERR)):
        reader.tb.stall(*STALLS[turn])
        reader.memory.latency = lambda: int(rng.integers(0, LATENCY + 1))
        reader.memory.failing.clear()
        await reader.block(random_address(reader), 5 * reader.burst + 3)
        await reader.block(random_address(reader), reader.burst)
        first = int(rng.integers(1, 3))
        reader.memory.failing[first] = (0 if turn == 0 else reader.burst // 2, response)
        reader.memory.failing[4] = (1, AxiResp.DECERR)
        asked = reader.memory.asked
        await reader.check()
        got = [int(s.value) for s in (dut.error_o, dut.error_response_o, dut.error_address_o)]
        equal("error", np.array(got, np.uint64), np.array([1, int(response), asked[first][0]], np.uint64))
        reader.tb.saw("response", got[1])
        dut.clear_i.value = 1
        await reader.tb.cycles(2)
        dut.clear_i.value = 0
        await reader.tb.cycles(2)
        assert not int(dut.error_o.value)
    reader.memory.failing.clear()
    await reader.block(random_address(reader), reader.burst)
    await reader.check()
    assert not int(dut.error_o.value)
    cover("SLVERR and DECERR", reader.tb.seen["response"] == {AxiResp.SLVERR, AxiResp.DECERR})


@cocotb.test()
async def full(dut):
    """Nobody takes a transfer: no more is asked for than the FIFO has room for; then all of it comes."""
    reader = Reader(dut)
    if reader.depth > 4096:
        return  # bench_fifo fills such a FIFO
    await reader.reset()
    reader.tb.stall(0.0, 1.0)
    reader.memory.latency = lambda: 20
    for transfers in (reader.depth // 2, reader.depth // 2, 3 * reader.burst):
        await reader.block(random_address(reader), transfers)
    await reader.tb.cycles(reader.depth + reader.depth // 2 + 1000)
    asked = sum(transfers for _, transfers in reader.memory.asked)
    assert reader.depth - reader.burst < asked <= reader.depth, f"{asked} transfers, room for {reader.depth}"
    assert not int(dut.m_axi_arvalid.value)
    reader.tb.stall(0.0, 0.0)
    await reader.check()


@cocotb.test()
async def nearly_full(dut):
    """Fast memory and a slow sink keep the FIFO about full: transfers asked for never exceed its room."""
    reader = Reader(dut)
    if reader.depth > 4096:
        return  # as above
    await reader.reset()
    reader.tb.stall(0.0, 0.7)
    held = [0]

    async def watch():
        while True:
            await RisingEdge(dut.clk)
            if int(dut.m_axi_arvalid.value) and int(dut.m_axi_arready.value):
                held.append(held[-1] + int(dut.m_axi_arlen.value) + 1)
            if int(dut.m_axis_weights_tvalid.value) and int(dut.m_axis_weights_tready.value):
                held.append(held[-1] - 1)
            assert held[-1] <= reader.depth, f"{held[-1]} transfers asked for, room for {reader.depth}"

    watching = cocotb.start_soon(watch())
    for transfers in (2 * reader.depth, reader.burst - 1, 2 * reader.depth + 1):
        await reader.block(random_address(reader), transfers)
    await reader.check()
    watching.cancel()
    cover("a full FIFO", max(held) == reader.depth)


@cocotb.test()
async def throughput(dut):
    """A transfer per cycle from memory that takes LATENCY cycles to answer."""
    reader = Reader(dut)
    await reader.reset()
    reader.memory.latency = lambda: LATENCY
    transfers = 8 * reader.burst
    if (reader.outstanding - 1) * reader.burst < LATENCY or reader.depth < reader.outstanding * reader.burst:
        return  # a variant that is not made for it
    for aligned in (True, False):
        address = PAGE * 77 + (0 if aligned else reader.bytes * (reader.burst - 1))
        await reader.block(address, transfers)
        await reader.check()
        cycles = reader.tb.last_arrival - reader.tb.offered["block"]
        measured(f"{transfers} transfers", cycles, LATENCY + transfers, PIPELINE)
