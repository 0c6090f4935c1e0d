# SPDX-License-Identifier: Apache-2.0
"""When the accelerator's loops run: their cycles, plus their waiting for memory.

SPEC.md, section 12. The program is read record by record, weights are read ahead of the loops through a
finite FIFO, image and result cross the memory port once. All times are cycles from the start of the program.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.codegen.design import Design
from edge_moe.estimate.loops import Crowd, Expert, Loop, experts_loops, instruction_loops
from edge_moe_host.contract import layout
from edge_moe_host.contract.isa import RECORD_BYTES, ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.layout import PLANE

CHUNK = 16  # planes that are modelled together; any FIFO holds them


class Timeline:
    """Program reader, weight reader, FIFO and the executor; instructions come in program order."""

    def __init__(self, accelerator: AcceleratorConfig) -> None:
        self.accelerator = accelerator
        self.now = 0.0  # time up to which the executor is done
        self.loops = 0  # cycles of iterations and depths until then
        self.waited = 0.0  # cycles of waiting until then
        self.fetched = 0.0  # when the last record, of the program or of a table, was announced
        self.reader = 0.0  # when the last requested plane entered the FIFO
        self.planes_read = 0
        self._available = 0.0  # when a block's first planes can come
        self._held = 0  # planes in the FIFO that are not known to have left it
        self._leaving: deque[tuple[float, int]] = deque()
        self._ends = deque(
            [0] * (Design.blocks_ahead + 1), Design.blocks_ahead + 1
        )  # planes up to each of the last blocks
        self._read_counts = [0]  # planes that were read by _read_times
        self._read_times = [0.0]

    def instruction(self, i: Instruction) -> None:
        """One instruction that is not EXPERTS, until its last result."""
        latency = self.accelerator.memory_latency
        self._fetch_record()
        if i.weight_beats:
            self._announce(i.weight_beats // layout.BEATS_PER_PLANE)
        self._wait(self.fetched)
        loops = instruction_loops(i, self.accelerator)
        if i.opcode == Opcode.PATCHES:
            self.run(next(loops))  # the plan needs no pixel
            self._wait(self.fetched + latency)
        for loop in loops:
            self.run(loop)
        if i.opcode == Opcode.STORE:
            self._wait(self.now + latency)  # until the last beat is in memory

    def experts(self, i: Instruction, table: Sequence[ExpertEntry], crowds: Sequence[Crowd]) -> int:
        """EXPERTS with these rows for each expert; returns how many empty experts were read in vain."""
        self._fetch_record()
        self._wait(self.fetched)
        met: list[Expert] = []
        for loop in experts_loops(i, self._experts(table, crowds, met), self.accelerator):
            self.run(loop)
        return sum(expert.fetched and not any(expert.crowd) for expert in met)

    def _experts(
        self, table: Sequence[ExpertEntry], crowds: Sequence[Crowd], met: list[Expert]
    ) -> Iterator[Expert]:
        """Experts as the executor finds them. The first is requested when the queues are filled: entries that
        were read before then have been announced whether or not they have rows."""
        routed = self.now
        for entry, crowd in zip(table, crowds, strict=True):
            self._fetch_record()
            met.append(Expert(entry, crowd, fetched=any(crowd) or self.fetched < routed))
            if met[-1].fetched:
                self._announce(entry.weight_beats // layout.BEATS_PER_PLANE)
            self._wait(self.fetched)
            yield met[-1]

    def run(self, loop: Loop) -> None:
        """A loop nest. An iteration whose plane has not arrived stops those after it."""
        for first in range(0, loop.planes, CHUNK):
            count = min(CHUNK, loop.planes - first)
            due = self.now + loop.pace * first
            last_due = due + loop.pace * (count - 1)
            arrival, last_arrival = self._read(count)
            late = max(0.0, arrival - due, last_arrival - last_due)
            self._wait(self.now + late)
            self._leaving.append((last_due + late, count))
        self.now += loop.steps + loop.depth
        self.loops += loop.steps + loop.depth

    def _wait(self, until: float) -> None:
        if until > self.now:
            self.waited += until - self.now
            self.now = until

    def _fetch_record(self) -> None:
        """The next record: one burst, requested when the previous one has arrived."""
        a = self.accelerator
        self.fetched += a.memory_latency + RECORD_BYTES / a.io_bytes_per_cycle

    def _announce(self, planes: int) -> None:
        """A block of weights, as soon as the one ``blocks_ahead`` before it is being split into bursts."""
        read = self._ends[0] - Design(self.accelerator).planned_planes
        if read > 0:
            self.fetched = max(self.fetched, self._read_times[bisect_left(self._read_counts, read)])
        self._ends.append(self._ends[-1] + planes)
        self._available = self.fetched + self.accelerator.memory_latency

    def _read(self, planes: int) -> tuple[float, float]:
        """When the first and the last of the next planes enter the FIFO."""
        capacity = self.accelerator.fifo_bytes // PLANE
        start = max(self.reader, self._available)
        while self._held + planes > capacity:
            left_at, count = self._leaving.popleft()
            self._held -= count
            start = max(start, left_at)
        per_plane = PLANE / self.accelerator.memory_bytes_per_cycle
        self.reader = start + planes * per_plane
        self._held += planes
        self.planes_read += planes
        self._read_counts.append(self.planes_read)
        self._read_times.append(self.reader)
        return start + per_plane, self.reader
