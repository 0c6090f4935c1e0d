# SPDX-License-Identifier: Apache-2.0
"""The accelerator's time: a weight reader that runs ahead through a finite FIFO, and the unit behind it.

SPEC.md, section 12. All times are clock cycles from the start of the program.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_moe.compiler.accelerator import AcceleratorConfig
from edge_moe_host import layout
from edge_moe_host.isa import ExpertEntry, Instruction, Opcode
from edge_moe_host.layout import TILE, WORD, tiles

SCRATCH_BYTES_PER_CYCLE = 64  # a pair of rows of one tile


@dataclass
class Step:
    """``words`` that are taken from the FIFO, then ``cycles`` of the unit that uses them."""

    words: int
    cycles: float


@dataclass
class Pipeline:
    """Reader, FIFO, double-buffered weight registers and the compute unit; steps come in program order."""

    accelerator: AcceleratorConfig
    reader: float = 0.0  # when the reader has delivered what it was asked for
    loader: float = 0.0  # when the registers have been filled
    unit: float = 0.0  # when the unit is done
    registers: float = 0.0  # when the registers that are not in use may be filled
    words_read: int = 0
    waited: float = 0.0  # cycles in which the unit waited for weights
    _held: int = 0  # words that the reader has put into the FIFO and that are not known to have left it
    _leaving: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.reader = float(self.accelerator.memory_latency)

    def room(self, words: int) -> float:
        """When the reader can start to fetch ``words`` more: it waits until the FIFO has room for them."""
        capacity = self.accelerator.fifo_bytes // WORD
        while self._held + words > capacity:
            left_at, count = self._leaving.popleft()
            self._held -= count
            self.reader = max(self.reader, left_at)
        return self.reader

    def step(self, step: Step) -> None:
        """Fetch, take and use the weights of one step."""
        if step.words:
            rate = self.accelerator.memory_bytes_per_cycle
            self.reader = self.room(step.words) + step.words * WORD / rate
            self._held += step.words
            self.words_read += step.words
            taken = step.words * WORD / self.accelerator.fifo_read_bytes
            self.loader = max(self.loader, self.reader, self.registers) + taken
            self._leaving.append((self.loader, step.words))
        if step.cycles:
            start = max(self.loader, self.unit)
            self.waited += start - self.unit
            self.registers = start  # the other registers are free from here on
            self.unit = start + step.cycles

    def drain(self, cycles: float) -> None:
        """The unit is held up: results leave the pipeline, or something else uses the activations."""
        self.unit += cycles


def pairs(rows: int) -> int:
    """Cycles for rows that go two at a time."""
    return -(-rows // layout.PAIR)


def linear_steps(in_tiles: int, out_tiles: int, bits: int, rows: int) -> Iterator[Step]:
    """A linear: for each tile of outputs its parameters, then its tiles, each for all rows."""
    for out in range(out_tiles):
        parameters = 2 - out % 2
        for fan_in in range(in_tiles):
            yield Step(bits + (parameters if fan_in == 0 else 0), pairs(rows))


def parameter_steps(out_tiles: int, cycles: float) -> Iterator[Step]:
    """Parameters alone, and the cycles of the whole instruction spread evenly behind them."""
    for out in range(out_tiles):
        yield Step(2 - out % 2, cycles / out_tiles)


def attention_cycles(i: Instruction, accelerator: AcceleratorConfig) -> int:
    """QK^T and AV of each head and block of keys; the next block is loaded meanwhile. Then the averages."""
    width = tiles(i.out_channels // i.heads)
    block = 2 * width * pairs(i.rows)
    load = 2 * accelerator.key_block * width * TILE // SCRATCH_BYTES_PER_CYCLE
    blocks = -(-i.keys // accelerator.key_block)
    return i.heads * blocks * max(block, load) + load + width * pairs(i.rows)


def instruction_steps(i: Instruction, accelerator: AcceleratorConfig) -> Iterator[Step]:
    """Steps of every instruction but EXPERTS."""
    if i.opcode == Opcode.LOAD:
        words = i.weight_beats // layout.BEATS_PER_WORD
        for _ in range(words):
            yield Step(1, WORD / SCRATCH_BYTES_PER_CYCLE)
    elif i.opcode == Opcode.PATCHES:
        moved = i.height * i.width * 3 / accelerator.io_bytes_per_cycle
        yield Step(0, moved + accelerator.memory_latency)
    elif i.opcode == Opcode.STORE:
        moved = i.rows * layout.output_row(i.in_channels) / accelerator.io_bytes_per_cycle
        yield Step(0, moved + accelerator.memory_latency)
    elif i.opcode == Opcode.LINEAR:
        yield from linear_steps(tiles(i.in_channels), tiles(i.out_channels), i.weight_bits, i.rows)
    elif i.opcode == Opcode.CONV3X3:
        yield from linear_steps(9 * tiles(i.in_channels), tiles(i.out_channels), i.weight_bits, i.rows)
    elif i.opcode == Opcode.GATE:
        yield from linear_steps(tiles(i.in_channels), layout.gate_tiles(i.experts), 8, i.rows)
        yield Step(0, i.rows)
    elif i.opcode == Opcode.LAYERNORM:
        per_row = -(-TILE * tiles(i.in_channels) // accelerator.vector_channels)
        yield from parameter_steps(tiles(i.in_channels), i.rows * per_row)
    elif i.opcode == Opcode.ATTENTION:
        yield from parameter_steps(tiles(i.out_channels), attention_cycles(i, accelerator))
    elif i.opcode == Opcode.UPSAMPLE2X:
        yield Step(0, pairs(i.rows) * tiles(i.in_channels))


def run_instruction(pipeline: Pipeline, i: Instruction, accelerator: AcceleratorConfig) -> None:
    """One instruction that is not EXPERTS, until its last result is there."""
    for step in instruction_steps(i, accelerator):
        pipeline.step(step)
    if i.opcode != Opcode.END:
        pipeline.drain(accelerator.pipeline_cycles)


def run_experts(
    pipeline: Pipeline,
    i: Instruction,
    table: tuple[ExpertEntry, ...],
    rows: list[int],
    accelerator: AcceleratorConfig,
) -> int:
    """EXPERTS with so many rows for each expert; how many empty experts were read in vain.

    The reader cannot know the routing before the gate is done: until then it reads the experts in
    order, and what an empty one left in the FIFO is thrown away.
    """
    routed = pipeline.unit
    pipeline.step(Step(i.weight_beats // layout.BEATS_PER_WORD, 0))
    width, hidden = tiles(i.in_channels), tiles(i.hidden_channels)
    in_vain = 0
    for entry, count in zip(table, rows, strict=True):
        if count == 0 and pipeline.room(1) >= routed:
            continue
        in_vain += count == 0
        for fan_in, out, bits in ((width, hidden, entry.bits1), (hidden, width, entry.bits2)):
            for step in linear_steps(fan_in, out, bits, count):
                pipeline.step(step)
            if count:
                pipeline.drain(accelerator.pipeline_cycles)
    return in_vain
