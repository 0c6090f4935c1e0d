# SPDX-License-Identifier: Apache-2.0
"""Estimate of an accelerator's use of its FPGA: DSP, block RAM, UltraRAM. SPEC.md, section 13.

It follows from the arrays, streams and multipliers that the C++ declares (``inventory``), by the rules below;
nothing here was synthesised. Logic (LUT, FF) is not estimated.
"""

import dataclasses
import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from edge_moe.accelerator import AcceleratorConfig, Board
from edge_moe.codegen.design import Design
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import write_text

ESTIMATED = ("DSP", "BRAM_18K", "URAM")
NOTICE = "estimated from the arrays and multipliers as written, not synthesised"

# Shapes of the part's primitives: words x bits.
_URAM = (4096, 72)
_BRAM_ONE_WRITER = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
_BRAM_TWO_READERS = _BRAM_ONE_WRITER[1:]  # with both ports in use a word has at most 18 bits
# DSP48E2: 27 x 18 bits with signs; a factor in several pieces gives all but its last one a bit less.
_DSP_PIECES = ((27, 26), (18, 17))
_ADDER_BITS = 4  # up to this width of a factor the product is a few additions
# An array or FIFO that is not bound to a memory and has at most this many bits needs none.
_AUTO_BITS, _AUTO_DEPTH = 1024, 2


class Storage(enum.Enum):
    """Where an array is stored: as its pragma says, or AUTO without one."""

    URAM = "uram"
    BRAM = "bram"
    LUTRAM = "lutram"
    AUTO = "auto"


def scratch_memory(ultraram: bool) -> Storage:
    """Where the scratch memory is stored: in UltraRAM if the part has it."""
    return Storage.URAM if ultraram else Storage.BRAM


def weight_fifo(config: AcceleratorConfig, ultraram: bool) -> Storage:
    """Where the weight FIFO is stored: a large one in UltraRAM if the part has it, others in block RAM."""
    return scratch_memory(ultraram and config.fifo_bytes >= Design.fifo_uram_bytes)


def memory_cost(storage: Storage, words: int, bits: int) -> dict[str, int]:
    """Cost of one memory with a port to read and one to write."""
    if storage is Storage.URAM:
        return {"URAM": ceil(words / _URAM[0]) * ceil(bits / _URAM[1])}
    if storage is Storage.LUTRAM or (storage is Storage.AUTO and words * bits <= _AUTO_BITS):
        return {}
    return {"BRAM_18K": _blocks(words, bits, _BRAM_ONE_WRITER)}


def _blocks(words: int, bits: int, shapes: tuple[tuple[int, int], ...]) -> int:
    """Number of block RAMs, in width times in depth, of the shape that takes the fewest."""
    return min(ceil(words / depth) * ceil(bits / width) for depth, width in shapes)


def dsp_cost(a: int, b: int, result: int | None = None) -> int:
    """DSP48E2 of a product of signed factors of ``a`` and ``b`` bits whose low ``result`` bits are needed.

    Factors are cut into pieces that the multiplier takes; each pair of pieces is one DSP, except pairs that
    only affect higher bits. The cheaper of the two orders of the factors counts.
    """
    if min(a, b) <= _ADDER_BITS:
        return 0
    limit = result or a + b

    def tiles(wide: int, narrow: int) -> int:
        pieces = [
            [step * at for at in range(max(1, ceil((bits - last) / step) + 1))]
            for bits, (last, step) in zip((wide, narrow), _DSP_PIECES, strict=True)
        ]
        return sum(x + y < limit for x in pieces[0] for y in pieces[1])

    return min(tiles(a, b), tiles(b, a))


@dataclass(frozen=True)
class Memory:
    """An array of the C++: ``banks`` memories of ``words`` words of ``bits`` bits."""

    function: str  # the one that declares it
    name: str
    words: int
    bits: int
    storage: Storage
    banks: int = 1

    @property
    def size(self) -> str:
        banks = f"{self.banks} x " if self.banks > 1 else ""
        return f"{banks}{self.words:,} x {self.bits} bits, {self.storage.value}"

    @property
    def cost(self) -> dict[str, int]:
        return {k: self.banks * v for k, v in memory_cost(self.storage, self.words, self.bits).items()}


@dataclass(frozen=True)
class Table:
    """A constant table that ``readers`` lanes of a loop read in one cycle: two share a copy."""

    function: str  # the one with the loop
    name: str
    words: int
    bits: int
    readers: int

    @property
    def size(self) -> str:
        return f"{self.words:,} x {self.bits} bits, {self.readers} readers"

    @property
    def cost(self) -> dict[str, int]:
        if self.words * self.bits <= _AUTO_BITS:
            return {}
        return {"BRAM_18K": ceil(self.readers / 2) * _blocks(self.words, self.bits, _BRAM_TWO_READERS)}


@dataclass(frozen=True)
class Stream:
    """A FIFO between two processes; with at most 1,024 bits or 2 places it is a shift register."""

    name: str
    depth: int
    bits: int
    storage: Storage = Storage.AUTO
    function: str = "edge_moe_accelerator"

    @property
    def size(self) -> str:
        return f"FIFO of {self.depth:,} x {self.bits} bits, {self.storage.value}"

    @property
    def cost(self) -> dict[str, int]:
        if self.storage is Storage.AUTO and self.depth <= _AUTO_DEPTH:
            return {}
        return memory_cost(self.storage, self.depth, self.bits)


@dataclass(frozen=True)
class Master:
    """An AXI4 master's buffer, in block RAM: ``requests`` bursts of ``burst`` transfers. Read data have three
    more bits, written data a strobe for each byte. An unused direction has no buffer."""

    name: str
    bits: int
    requests: int
    burst: int
    writes: bool = False
    function: str = "edge_moe_accelerator"

    @property
    def size(self) -> str:
        return f"AXI buffer of {self.requests} x {self.burst} beats of {self.bits} bits"

    @property
    def cost(self) -> dict[str, int]:
        width = self.bits + (self.bits // 8 if self.writes else 3)
        return memory_cost(Storage.BRAM, self.requests * self.burst, width)


@dataclass(frozen=True)
class Multipliers:
    """``count`` parallel products. ``control``: products of addresses and counts, each counted separately,
    although the tool may let some share one multiplier."""

    function: str  # the one with the loop or the expression
    a: int  # bits of the factors, with signs
    b: int
    count: int
    result: int | None = None  # bits that are used, if not all
    control: bool = False

    @property
    def name(self) -> str:
        return "products"

    @property
    def size(self) -> str:
        return f"{self.count:,} of {self.a} x {self.b} bits"

    @property
    def cost(self) -> dict[str, int]:
        dsp = self.count * dsp_cost(self.a, self.b, self.result)
        return {"DSP": dsp} if dsp else {}


Item = Memory | Table | Stream | Master | Multipliers


@dataclass(frozen=True)
class Inventory:
    """Everything that takes DSP, block RAM or UltraRAM, under its C++ name."""

    memories: tuple[Memory, ...]
    tables: tuple[Table, ...]
    streams: tuple[Stream, ...]
    masters: tuple[Master, ...]
    multipliers: tuple[Multipliers, ...]

    def __iter__(self) -> Iterator[Item]:
        for spec in dataclasses.fields(self):
            yield from getattr(self, spec.name)

    def totals(self) -> dict[str, int]:
        """The sum over all items."""
        return {name: sum(item.cost.get(name, 0) for item in self) for name in ESTIMATED}

    def control_dsp(self) -> int:
        """DSP of addresses and counts."""
        return sum(item.cost.get("DSP", 0) for item in self.multipliers if item.control)


def require_fit(inventory: Inventory, accelerator: str, board: Board) -> None:
    """EdgeMoEError when the board's part has too little of a resource."""
    available = board.resources
    for resource, total in inventory.totals().items():
        if total > available[resource]:
            most = max(inventory, key=lambda item: item.cost.get(resource, 0))
            raise EdgeMoEError(
                f"accelerator '{accelerator}' does not fit {board.part}: an estimated {total:,} {resource} "
                f"of {available[resource]:,}, {total - available[resource]:,} too many; most of them, "
                f"{most.cost[resource]:,}, are for '{most.name}' of {most.function} ({most.size})."
            )


def table(inventory: Inventory, accelerator: str, board: Board) -> str:
    """Totals and all their items, as Markdown."""
    lines = [f"{accelerator} on {board.part}, {NOTICE}:", ""]
    lines += ["| resource | available | estimated |", "|---|---:|---:|"]
    for name, total in inventory.totals().items():
        available = board.resources[name]
        share = f" ({100 * total / available:.1f} %)" if available else ""
        lines.append(f"| {name} | {available:,} | {total:,}{share} |")
    lines += [
        "",
        f"{inventory.control_dsp():,} of the DSP are for addresses and counts, each counted separately.",
        "",
        "| where | what | size | " + " | ".join(ESTIMATED) + " |",
        "|---|---|---|" + "---:|" * len(ESTIMATED),
    ]
    for item in inventory:
        if item.cost and not (isinstance(item, Multipliers) and item.control):
            cost = " | ".join(f"{item.cost[name]:,}" if name in item.cost else "" for name in ESTIMATED)
            lines.append(f"| {item.function} | {item.name} | {item.size} | {cost} |")
    return "\n".join(lines)


def write_totals(inventory: Inventory, path: Path) -> None:
    """Write the totals as JSON, in the form that ``edge_moe.vendor.reports`` reads."""
    write_text(path, json.dumps(inventory.totals(), indent=1) + "\n")
