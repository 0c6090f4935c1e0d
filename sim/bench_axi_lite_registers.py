# SPDX-License-Identifier: Apache-2.0
"""axi_lite_registers.sv as driver and accelerator see it: every register, ap_ctrl_hs, interrupts, flags."""

import logging

import cocotb
import numpy as np
from cocotb.triggers import Combine, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from edge_moe_host.contract.isa import ISA_VERSION
from edge_moe_host.contract.registers import AP_DONE, AP_IDLE, AP_READY, AP_START, CONTROL, REGISTERS
from sim.declaration import Operator
from sim.tb import STALLS, TB, cover, equal

OPERATOR = Operator(
    "axi_lite_registers",
    least=1000,
    illegal=(({"ADDRESS_WIDTH": 7}, "ADDRESS_WIDTH = 7 must reach all 236 bytes"),),
)

RESTART, INTERRUPT = 1 << 7, 1 << 9
ARGUMENTS = [r for r in REGISTERS.values() if r.access == "rw" and r not in CONTROL]
FLAGS = [r for r in REGISTERS.values() if r.name.endswith("_ctrl") and r not in CONTROL]
RESULTS = ("status", "error", "position", "cycles")
USED = {r.offset + 4 * word for r in REGISTERS.values() for word in range(r.bits // 32)}


class Port:
    """The registers and an AXI4-Lite master; every transfer must be answered with OKAY, in time."""

    def __init__(self, dut):
        self.tb, self.dut = TB(dut), dut
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        writes, reads = self.master.write_if, self.master.read_if
        self.channels = {"aw": writes.aw_channel, "w": writes.w_channel, "b": writes.b_channel}
        self.channels |= {"ar": reads.ar_channel, "r": reads.r_channel}
        for log in (writes.log, reads.log):
            log.setLevel(logging.WARNING)
        self.values = {r.name: 0 for r in ARGUMENTS}
        self.reads, self.writes = [], []  # first and last cycle of each

    async def reset(self):
        zero = {f"{name}_i": 0 for name in ("ap_done", "ap_ready", "results_valid", *RESULTS)}
        await self.tb.reset(ap_idle_i=1, **zero)

    def stall(self, idle, back):
        """Shares of cycles: in which the master has nothing on a channel, and takes nothing from one."""
        shares = (idle, back, back, back, idle)
        for (name, channel), share in zip(self.channels.items(), shares, strict=True):
            self.tb.pause(name, channel, share)

    async def read(self, offset, size=4):
        began = self.tb.cycle
        answer = await self.tb.bounded(self.master.read(offset, size), 2000)
        assert answer.resp == 0
        self.tb.saw("read", offset)
        self.reads.append((began, self.tb.cycle))
        return int.from_bytes(answer.data, "little")

    async def write(self, offset, value, size=4):
        began = self.tb.cycle
        answer = await self.tb.bounded(self.master.write(offset, value.to_bytes(size, "little")), 2000)
        assert answer.resp == 0
        self.tb.saw("written", offset), self.tb.saw("bytes written", size)
        self.writes.append((began, self.tb.cycle))

    async def get(self, name):
        return await self.read(REGISTERS[name].offset, REGISTERS[name].bits // 8)

    async def put(self, name, value):
        await self.write(REGISTERS[name].offset, value, REGISTERS[name].bits // 8)

    async def pulse(self, *names):
        """Inputs that are 1 for a cycle."""
        for name in names:
            getattr(self.dut, f"{name}_i").value = 1
        await RisingEdge(self.dut.clk)
        for name in names:
            getattr(self.dut, f"{name}_i").value = 0
        await self.tb.cycles(2)

    async def compare(self, what):
        """Every argument, as it is read and at its port."""
        due = np.array([self.values[r.name] for r in ARGUMENTS], np.uint64)
        equal(f"{what}: read", np.array([await self.get(r.name) for r in ARGUMENTS], np.uint64), due)
        ports = [int(getattr(self.dut, f"{r.name}_o").value) for r in ARGUMENTS]
        equal(f"{what}: ports", np.array(ports, np.uint64), due)


@cocotb.test()
async def arguments(dut):
    """Every argument by words and by bytes; addresses that hold nothing, and results, take no value."""
    port = Port(dut)
    await port.reset()
    rng = port.tb.rng
    identity = await port.get("config_id")
    await port.compare("after reset")
    for idle, back in STALLS:
        port.stall(idle, back)
        for register in ARGUMENTS:
            port.values[register.name] = int.from_bytes(rng.bytes(register.bits // 8), "little")
            await port.put(register.name, port.values[register.name])
        await port.compare("whole registers")
        for _ in range(20):
            register = ARGUMENTS[rng.integers(len(ARGUMENTS))]
            first = int(rng.integers(register.bits // 8))
            size = int(rng.integers(1, register.bits // 8 - first + 1))
            part = int.from_bytes(rng.bytes(size), "little")
            await port.write(register.offset + first, part, size)
            mask = ((1 << 8 * size) - 1) << 8 * first
            port.values[register.name] = port.values[register.name] & ~mask | part << 8 * first
        await port.compare("bytes")
    read_only = [r.offset for r in REGISTERS.values() if r.access == "r"]
    nothing = sorted(set(range(0, 1 << len(dut.s_axi_awaddr), 4)) - USED)
    for offset in (*read_only, *nothing):
        await port.write(offset, 0xFFFFFFFF)
    equal("nothing", np.array([await port.read(offset) for offset in nothing]), np.zeros(len(nothing), int))
    equal("results", np.array([await port.get(name) for name in RESULTS]), np.zeros(len(RESULTS), int))
    await port.compare("beside the others")
    assert await port.get("config_id") == identity == int(dut.CONFIG_ID.value)
    assert await port.get("version") == ISA_VERSION
    port.tb.cover_stalls()
    cover("parts of a word", port.tb.seen["bytes written"] >= {1, 2, 3, 4})
    cover(
        "addresses that hold nothing",
        set(nothing) and port.tb.seen["written"] & port.tb.seen["read"] >= set(nothing),
    )
    cover("read-only registers", set(read_only) and port.tb.seen["written"] >= set(read_only))


@cocotb.test()
async def run(dut):
    """Start, ready, done, idle and restart."""
    port = Port(dut)
    await port.reset()
    for idle, back in STALLS:
        port.stall(idle, back)
        assert await port.get("ap_ctrl") == AP_IDLE
        await port.put("ap_ctrl", AP_START)
        dut.ap_idle_i.value = 0
        assert int(dut.ap_start_o.value) == 1
        assert await port.get("ap_ctrl") == AP_START
        await port.put("ap_ctrl", 0)  # does not take back the start
        assert await port.get("ap_ctrl") == AP_START
        await port.pulse("ap_ready")
        assert int(dut.ap_start_o.value) == 0
        assert await port.get("ap_ctrl") == AP_READY
        await port.pulse("ap_done")
        dut.ap_idle_i.value = 1
        await port.tb.cycles(2)
        assert await port.get("ap_ctrl") == AP_DONE | AP_IDLE
        assert await port.get("ap_ctrl") == AP_IDLE
        await port.put("ap_ctrl", AP_START | RESTART)
        await port.pulse("ap_done", "ap_ready")
        assert await port.get("ap_ctrl") == AP_START | AP_DONE | AP_IDLE | AP_READY | RESTART
        await port.put("ap_ctrl", 0)
        await port.pulse("ap_done", "ap_ready")
        assert await port.get("ap_ctrl") == AP_DONE | AP_IDLE | AP_READY
        await port.put("ap_ctrl", RESTART)
        await port.write(1, 0, 3)  # not the byte that has this bit
        assert await port.get("ap_ctrl") == AP_IDLE | RESTART
        await port.put("ap_ctrl", 0)
    port.tb.cover_stalls()


@cocotb.test()
async def interrupts(dut):
    """Only enabled events are kept; writing 1 toggles; the pin needs gie."""
    port = Port(dut)
    await port.reset()
    for idle, back in STALLS:
        port.stall(idle, back)
        for gie in (0, 1):
            await port.put("gie", gie | 0xFFFFFFFE)
            assert await port.get("gie") == gie
            for ier in range(4):
                await port.put("ier", ier | 0xFFFFFFFC)
                assert await port.get("ier") == ier
                for events in range(4):
                    await port.pulse(
                        *(n for bit, n in enumerate(("ap_done", "ap_ready")) if events >> bit & 1)
                    )
                    held = await port.get("isr")
                    pin = int(bool(held and gie))
                    port.tb.seen["events"].add((gie, ier, events))
                    equal(
                        "isr and pin",
                        np.array([held, int(dut.interrupt_o.value)]),
                        np.array([ier & events, pin]),
                    )
                    assert (await port.get("ap_ctrl") & INTERRUPT) == pin * INTERRUPT
                    await port.put("isr", held ^ 2)  # leaves the second bit alone
                    assert await port.get("isr") == 2
                    await port.put("isr", 2)
                    assert await port.get("isr") == 0
                    assert int(dut.interrupt_o.value) == 0
    cover("every interrupt", len(port.tb.seen["events"]) == 2 * 4 * 4)


@cocotb.test()
async def results(dut):
    """Results and their flags, those of config_id and version too; reading one flag clears that one."""
    port = Port(dut)
    await port.reset()
    for idle, back in STALLS:
        port.stall(idle, back)
        due = port.tb.rng.integers(0, 1 << 32, len(RESULTS))
        for name, value in zip(RESULTS, due, strict=True):
            getattr(dut, f"{name}_i").value = int(value)
        await port.pulse("results_valid")
        for name in RESULTS:
            getattr(dut, f"{name}_i").value = 0
        equal("results", np.array([await port.get(name) for name in RESULTS]), due)
        order = [FLAGS[i].name for i in port.tb.rng.permutation(len(FLAGS))]
        flags = [await port.get(name) for name in (*order, *order)]
        equal("flags", np.array(flags), np.array([1] * len(FLAGS) + [0] * len(FLAGS)))
        equal("results stay", np.array([await port.get(name) for name in RESULTS]), due)
    cover("every flag", port.tb.seen["read"] >= {r.offset for r in FLAGS})


@cocotb.test()
async def coincidences(dut):
    """What comes while it is read is neither lost nor shown twice, in whichever cycle it comes."""
    port = Port(dut)
    await port.reset()
    for event, name, bit in (
        ("ap_done", "ap_ctrl", AP_DONE), ("ap_ready", "ap_ctrl", AP_READY),
        ("results_valid", "status_ctrl", 1), ("results_valid", "config_id_ctrl", 1),
    ):  # fmt: skip
        seen = []
        for delay in range(8):
            reading = cocotb.start_soon(port.get(name))
            await port.tb.cycles(delay)
            await port.pulse(event)
            first = await port.tb.bounded(reading, 100)
            seen.append((bool(first & bit), bool(await port.get(name) & bit)))
        assert all(first != second for first, second in seen), f"{event}: {seen}"
        cover(f"{event} before and after it is read", {first for first, _ in seen} == {False, True})


@cocotb.test()
async def at_once(dut):
    """Reads while others write, many under way, every channel with pauses of its own."""
    port = Port(dut)
    await port.reset()
    rng = port.tb.rng
    fixed, changing = ARGUMENTS[::2], ARGUMENTS[1::2]
    for register in fixed:
        port.values[register.name] = int(rng.integers(1 << 32))
        await port.put(register.name, port.values[register.name])
    for idle, back in STALLS:
        port.stall(idle, back)
        tasks, due = [], []
        for _ in range(60):
            register, other = fixed[rng.integers(len(fixed))], changing[rng.integers(len(changing))]
            due.append(port.values[register.name])
            tasks.append(cocotb.start_soon(port.get(register.name)))
            value = int(rng.integers(1 << 32))
            port.values[other.name] = value
            tasks.append(cocotb.start_soon(port.put(other.name, value)))
        await port.tb.bounded(Combine(*tasks), 50_000)
        equal("reads beside writes", np.array([task.result() for task in tasks[::2]]), np.array(due))
        await port.compare("writes beside reads")
    cover("reads within writes", within(port.reads, port.writes))
    cover("writes within reads", within(port.writes, port.reads))


def within(answered, others):
    """Whether one of these was answered while one of the others was under way."""
    return any(first < answer < last for _, answer in answered for first, last in others)


@cocotb.test()
async def throughput(dut):
    """A write and a read in every cycle while the answers are taken."""
    port = Port(dut)
    await port.reset()
    await port.tb.cycles(4)
    offset = REGISTERS["image_bytes"].offset
    for name, value in (
        ("awaddr", offset), ("wdata", 0x12345678), ("wstrb", 15), ("araddr", offset), ("awvalid", 1),
        ("wvalid", 1), ("bready", 1), ("arvalid", 1), ("rready", 1),
    ):  # fmt: skip
        getattr(dut, f"s_axi_{name}").value = value
    await port.tb.cycles(3)
    counts = np.zeros(2, int)
    for _ in range(50):
        await RisingEdge(dut.clk)
        counts += (int(dut.s_axi_bvalid.value), int(dut.s_axi_rvalid.value))
    equal("answers in 50 cycles", counts, np.array([50, 50]))
