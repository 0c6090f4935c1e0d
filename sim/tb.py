# SPDX-License-Identifier: Apache-2.0
"""What every bench shares: clock, reset, streams with idle and back-pressure, bounded waits, comparisons.

A stream is AXI4-Stream; an *element* is what it carries in a cycle, and a *frame* an array whose bytes are
its elements one after the other, tlast on the last. What is compared or measured is recorded for the summary
of ``sim.run``. A case that a test is there for must have occurred: ``cover`` is given a condition on what was
driven or compared.
"""

import json
import logging
import os
import random
import warnings
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import RisingEdge, SimTimeoutError, with_timeout
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from edge_moe.testing.hls_ops import Operators
from sim.hls_verilog import Kernel, chosen_kernels

warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"cocotbext\.axi")

CLOCK_NS = 2
WAIT_CYCLES = 200_000  # bound of every wait that does not name its own
STALLS = ((0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.4, 0.4), (0.05, 0.9))  # idle, back-pressure
Result = TypeVar("Result")


class TB:
    """One simulated module. ``rng`` is seeded from cocotb's seed, which a failing test shows."""

    def __init__(self, dut: cocotb.handle.HierarchyObject) -> None:
        self.dut = dut
        self.rng = np.random.default_rng(cocotb.RANDOM_SEED)
        self._kernels = chosen_kernels(dut)
        self._hls = _Kernels(self._kernels)
        self._sources: dict[str, AxiStreamSource] = {}
        self._sinks: dict[str, AxiStreamSink] = {}
        self.offered: dict[str, int] = {}  # cycles, by stream
        self.seen: defaultdict[str, set[Any]] = defaultdict(set)  # by what it is, see ``saw``
        self._paused: dict[str, bool] = {}  # by stream: whether a pause kept something from being taken
        cocotb.start_soon(Clock(dut.clk, CLOCK_NS, "ns").start())

    async def reset(self, **inputs: int) -> None:
        """Set inputs, then reset for some cycles."""
        for name, value in inputs.items():
            getattr(self.dut, name).value = value
        self.dut.rst.value = 1
        await self.cycles(4)
        self.dut.rst.value = 0
        for kernel in self._kernels.values():
            await kernel.reset()
        await self.cycles(2)

    async def cycles(self, count: int) -> None:
        for _ in range(count):
            await RisingEdge(self.dut.clk)

    async def kernel(self, operator: str, *arguments: object) -> Any:
        """Result of the HLS kernel: a method of ``hls_ops.Operators``, run by g++'s library or as Verilog."""
        method = getattr(self._hls, operator)
        return await bridge(method)(*arguments) if self._kernels else method(*arguments)

    @property
    def cycle(self) -> int:
        """Clock cycles since the start of the simulation."""
        return round(get_sim_time("ns") / CLOCK_NS)

    async def bounded(self, what: Awaitable[Result], cycles: int = WAIT_CYCLES) -> Result:
        """Await with a bound; the error says how long was waited."""
        try:
            return await with_timeout(what, cycles * CLOCK_NS, "ns")
        except SimTimeoutError:
            raise AssertionError(f"nothing came within {cycles} cycles") from None

    def source(self, name: str) -> AxiStreamSource:
        """Driver of the module's stream ``s_axis_NAME``."""
        if name not in self._sources:
            bus = AxiStreamBus.from_prefix(self.dut, f"s_axis_{name}")
            self._sources[name] = _quiet(AxiStreamSource(bus, self.dut.clk, self.dut.rst))
        return self._sources[name]

    def sink(self, name: str) -> AxiStreamSink:
        """Receiver of the module's stream ``m_axis_NAME``."""
        if name not in self._sinks:
            bus = AxiStreamBus.from_prefix(self.dut, f"m_axis_{name}")
            self._sinks[name] = _quiet(AxiStreamSink(bus, self.dut.clk, self.dut.rst))
        return self._sinks[name]

    def stall(self, idle: float = 0.0, back: float = 0.0) -> None:
        """Random pauses on every stream opened so far: share of cycles without valid, and without ready."""
        for name, source in self._sources.items():
            self.pause(name, source, idle)
        for name, sink in self._sinks.items():
            self.pause(name, sink, back)

    def pause(self, name: str, port: Any, share: float) -> None:
        """Random pauses of one of cocotbext.axi's drivers in this share of cycles."""
        port.set_pause_generator(self._pauses(name, port, share))

    def _pauses(self, name: str, port: Any, share: float) -> Iterator[bool]:
        generator = random.Random(int(self.rng.integers(1 << 32)))
        valid, ready = (
            getattr(port, s) if hasattr(port, s) else getattr(port.bus, f"t{s}") for s in ("valid", "ready")
        )
        sends = hasattr(port, "send")
        paused = False
        if share:
            self._paused.setdefault(name, False)
        while True:
            if paused and not self._paused[name]:
                held_back = not valid.value and not port.idle() if sends else valid.value and not ready.value
                self._paused[name] = bool(held_back)
            paused = generator.random() < share
            yield paused

    def cover_stalls(self) -> None:
        """Each driver with pauses held back what it had to send, or did not take what was there."""
        cover("any stalls", bool(self._paused))
        for name, held in self._paused.items():
            cover(f"a stall of {name}", held)

    async def under_stalls(
        self,
        out: str,
        count: int,
        make: Callable[[], tuple[Any, ...]],
        send: Callable[..., Awaitable[object]],
        check: Callable[..., Awaitable[object]],
    ) -> None:
        """Under every mix of stalls ``count`` frames one after the other, no more on the stream ``out``."""
        for idle, back in STALLS:
            self.stall(idle, back)
            frames = []
            for _ in range(count):
                frames.append(make())
                await send(self, *frames[-1])
            for frame in frames:
                await check(self, *frame)
            await self.silent(out)
        self.cover_stalls()

    def saw(self, what: str, values: Any) -> None:
        """Remember that these values, one or an array, were driven or compared: ``seen[what]`` has them."""
        self.seen[what].update(np.unique(values).tolist())

    def saw_saturation(self, exact: np.ndarray, low: int, high: int) -> None:
        """Remember as "saturation" results beyond an end: -1 below ``low``, 1 above ``high``, else 0."""
        self.saw("saturation", (exact > high).astype(int) - (exact < low))

    async def send(self, name: str, frame: np.ndarray) -> None:
        """Queue a frame; returns at once. Then ``offered[name]`` is the cycle of its first element."""

        def taken(sent: AxiStreamFrame) -> None:
            self.offered[name] = round(sent.sim_time_start / (CLOCK_NS * 1000))

        await self.source(name).send(AxiStreamFrame(frame.tobytes(), tx_complete=taken))

    async def accepted(self, name: str, cycles: int = WAIT_CYCLES) -> None:
        """Until the module has taken everything that was sent on a stream."""
        await self.bounded(self.source(name).wait(), cycles)

    async def receive(
        self, name: str, dtype: str, shape: tuple[int, ...], cycles: int = WAIT_CYCLES
    ) -> np.ndarray:
        """The next frame as an array; AssertionError when it has another size or does not come."""
        frame = await self.bounded(self.sink(name).recv(), cycles)
        data = np.frombuffer(bytes(frame.tdata), dtype)
        assert data.size == int(np.prod(shape)), f"frame of {data.size} elements, {shape} are due"
        self.last_arrival = round(frame.sim_time_end / (CLOCK_NS * 1000))
        self.first_arrival = round(frame.sim_time_start / (CLOCK_NS * 1000))
        return data.reshape(shape)

    async def silent(self, name: str, cycles: int = 50) -> None:
        """AssertionError when a stream still gives something."""
        await self.cycles(cycles)
        assert self.sink(name).empty(), f"m_axis_{name} gave more than was due"


class _Kernels(Operators):
    """The kernels compiled by g++, or simulated where there is Verilog of them."""

    def __init__(self, verilog: Mapping[str, Kernel]) -> None:
        super().__init__("O3")
        self._verilog = verilog

    def call(self, name: str, *arguments: np.ndarray | int) -> int:
        if name in self._verilog:
            return resume(self._verilog[name].run)(*arguments)
        return super().call(name, *arguments)


def equal(what: str, rtl: np.ndarray, golden: np.ndarray, hls: np.ndarray | None = None) -> None:
    """Every value equal; counts them. AssertionError names the first that differs."""
    for other, name in ((golden, "golden"), (hls, "the HLS kernel")):
        if other is None:
            continue
        assert rtl.shape == other.shape, f"{what}: {rtl.shape} against {other.shape} of {name}"
        wrong = np.flatnonzero(rtl.astype(np.int64) != other.astype(np.int64))
        if len(wrong):
            where = tuple(int(i) for i in np.unravel_index(wrong[0], rtl.shape))
            raise AssertionError(
                f"{what}: {len(wrong)} of {rtl.size} values differ from {name}, first at {where}: "
                f"{rtl[where]} instead of {other[where]}"
            )
    record("values", int(rtl.size))
    if hls is not None:
        record("values_hls", int(rtl.size))


def measured(what: str, cycles: int, model: int, latency: int) -> None:
    """Cycles of an unstalled run: at least the model's, at most the pipeline's stated ``latency`` more."""
    record("cycles", {"what": what, "cycles": cycles, "model": model, "latency": latency})
    assert model <= cycles <= model + latency, (
        f"{what}: {cycles} cycles, the model says {model} and {latency} of latency"
    )


def cover(case: str, occurred: bool) -> None:
    """AssertionError unless a case occurred that the running test is there for."""
    assert occurred, f"not covered: {case}"


def record(key: str, value: object) -> None:
    """One line for the summary."""
    path = os.environ.get("EDGE_MOE_SIM_RECORD")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "value": value}) + "\n")


def _quiet(port: AxiStreamSource | AxiStreamSink) -> AxiStreamSource | AxiStreamSink:
    port.log.setLevel(logging.WARNING)
    return port
