# SPDX-License-Identifier: Apache-2.0
"""State and result of a compilation: instructions, buffers and weight blocks. SPEC.md, section 10."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.compiler.allocate import Buffer, allocate, live_bytes
from edge_moe.compiler.read_graph import Node, PathGraph
from edge_moe.compiler.weights import WeightImage
from edge_moe_host.config import to_dict
from edge_moe_host.contract import layout, program
from edge_moe_host.contract.encoding import encode
from edge_moe_host.contract.isa import Instruction, Opcode
from edge_moe_host.contract.manifest import Output, Tensor
from edge_moe_host.contract.opcodes import rows_bytes, section_of
from edge_moe_host.errors import BundleError, EdgeMoEError


@dataclass(frozen=True)
class Value:
    """Rows of a tensor in the scratch memory; every ``group`` channels are stored in ``stored``."""

    buffer: Buffer
    rows: int
    channels: int
    group: int
    stored: int

    @property
    def width(self) -> int:
        """Stored channels of a row."""
        return self.channels // self.group * self.stored


@dataclass
class Draft:
    """An instruction whose addresses are still buffers with offsets."""

    opcode: Opcode
    node: Node
    places: dict[str, tuple[Buffer, int]]
    fields: dict[str, int]

    def instruction(self) -> Instruction:
        """The instruction with its buffers' present addresses."""
        addresses = {name: buffer.address + offset for name, (buffer, offset) in self.places.items()}
        return Instruction(opcode=self.opcode, **self.fields, **addresses)


@dataclass(frozen=True)
class Note:
    """A tensor that is complete after an instruction."""

    name: str
    kind: str
    instruction: int
    value: Value


@dataclass(frozen=True)
class TaskCode:
    """A task's program before it is written."""

    task: str
    instructions: tuple[Instruction, ...]
    output: Output
    scratch_bytes: int  # peak
    live_bytes: int  # lower bound of the peak
    tensors: tuple[Tensor, ...]
    buffers: tuple[Buffer, ...] = field(repr=False)


def spread(array: np.ndarray, group: int, stored: int, axis: int) -> np.ndarray:
    """Put every ``group`` entries along ``axis`` into ``stored`` ones, with zeros after each group."""
    if group == stored:
        return array
    array = np.moveaxis(array, axis, -1)
    grouped = array.reshape(*array.shape[:-1], -1, group)
    out = np.zeros((*grouped.shape[:-1], stored), dtype=array.dtype)
    out[..., :group] = grouped
    return np.moveaxis(out.reshape(*array.shape[:-1], -1), -1, axis)


class Emitter:
    """State of one task's compilation: what has been emitted, and where tensors are."""

    def __init__(self, graph: PathGraph, accelerator: AcceleratorConfig, image: WeightImage) -> None:
        self.graph = graph
        self.limits: dict[str, Any] = to_dict(accelerator)
        self.image = image
        self.drafts: list[Draft] = []
        self.buffers: list[Buffer] = []
        self.values: dict[str, Value] = {}
        self.notes: list[Note] = []
        self.gates: dict[str, tuple[Node, Value]] = {}  # logits -> GateLogits and its input
        self.routed: dict[str, int] = {}  # buffer of routing rows -> number of experts
        self.outputs: list[Output] = []

    def run(self, lower_node: Callable[["Emitter", Node], None]) -> TaskCode:
        """Lower every node, place buffers, fix addresses."""
        for node in self.graph.nodes:
            lower_node(self, node)
        source = self.graph.source
        firsts = [node.op for node in self.graph.nodes].count("PatchEmbedding")
        if len(self.outputs) != 1 or firsts != 1:
            raise EdgeMoEError(f"{source} must hold one PatchEmbedding and one ClassMap or PixelValues node.")
        self.emit(Opcode.END, self.graph.nodes[-1], {})
        return self._finish()

    def _finish(self) -> TaskCode:
        peak, limit = allocate(self.buffers), self.limits["scratch_bytes"]
        task = self.graph.task
        if peak > limit:
            raise EdgeMoEError(
                f"task '{task}' needs {peak} bytes of scratch memory and the accelerator has scratch_bytes = "
                f"{limit}: choose a larger accelerator or a smaller model."
            )
        if len(self.drafts) > self.limits["max_instructions"]:
            raise EdgeMoEError(
                f"task '{task}' needs {len(self.drafts)} instructions and the accelerator has "
                f"max_instructions = {self.limits['max_instructions']}."
            )
        instructions = tuple(draft.instruction() for draft in self.drafts)
        for index, instruction in enumerate(instructions):
            self.check(instruction, self.drafts[index].node)
        try:
            used = program.check_scratch(instructions, self.limits, f"the program of task '{task}'")
        except BundleError as error:
            raise EdgeMoEError(f"the graph of {self.graph.source} makes no valid program: {error}") from None
        tensors = tuple(_tensor(note) for note in self.notes)
        return TaskCode(
            task, instructions, self.outputs[0], used, live_bytes(self.buffers), tensors, tuple(self.buffers)
        )

    # Helpers for every node

    def check(self, instruction: Instruction, node: Node) -> None:
        """EdgeMoEError when the accelerator cannot run the instruction."""
        try:
            encode(instruction)
            program.check_instruction(instruction, self.limits, "its instruction")
        except BundleError as error:
            raise EdgeMoEError(f"node '{node.name}' does not fit the accelerator: {error}") from None

    def emit(self, opcode: Opcode, node: Node, places: dict[str, tuple[Buffer, int]], **fields: int) -> None:
        """Append an instruction; ``places`` has the buffer and offset of each address field."""
        for buffer, _ in places.values():
            buffer.use(len(self.drafts))
        self.drafts.append(Draft(opcode, node, places, fields))

    def input(self, node: Node, name: str, plain: bool = True) -> Value:
        """Rows that a node reads; ``plain``: the node cannot take padded heads."""
        value = self.values[node.tensors[name]]
        node.require(
            not plain or value.group == value.stored,
            f"its input '{node.tensors[name]}' has heads of {value.group} channels, "
            "which only a linear can take",
        )
        return value

    def make(self, name: str, kind: str, rows: int, channels: int, group: int = 0, stored: int = 0) -> Value:
        """A new buffer for a tensor of kind int8, int16 or routing."""
        group = group or channels
        value = Value(Buffer(name, 0), rows, channels, group, stored or group)
        value.buffer.size = rows_bytes(kind, rows, value.width)
        self.buffers.append(value.buffer)
        return value

    def define(self, name: str, kind: str, value: Value) -> None:
        """Give the tensor ``name`` its value from here on."""
        self.values[name] = value
        self.note(name, kind, value)

    def note(self, name: str, kind: str, value: Value) -> None:
        """Note that the last instruction completes the tensor ``name``."""
        self.notes.append(Note(name, kind, len(self.drafts) - 1, value))

    def block(self, opcode: Opcode, name: str, data: bytes) -> dict[str, int]:
        """Fields that point to an opcode's weight block."""
        kind = section_of(opcode)
        assert kind is not None
        return self.section(kind, name, data)

    def section(self, kind: str, name: str, data: bytes) -> dict[str, int]:
        """Fields that point to a weight block of this kind."""
        section = self.image.add(kind, name, data)
        return {"weight_offset": section.offset, "weight_beats": section.beats}

    def update_in_place(self, node: Node) -> Value:
        """The residual stream, which the node overwrites: no other node may read it later."""
        name = node.tensors["residual"]
        node.require(
            self.graph.consumers[name][-1] is node, f"the residual '{name}' that it updates is needed later"
        )
        return self.input(node, "residual")

    def chunks(self, rows: int, limit: int, unit: int = 1) -> list[tuple[int, int]]:
        """(start, count) of parts of at most ``limit`` rows, whole pairs and multiples of ``unit``.

        If not even one unit fits, the part exceeds the limit and the check refuses it.
        """
        step = unit * layout.PAIR if unit % layout.PAIR else unit
        size = rows if rows <= limit else max(limit // step, 1) * step
        return [(start, min(size, rows - start)) for start in range(0, rows, size)]


def _tensor(note: Note) -> Tensor:
    value = note.value
    address = 0 if note.kind == "logits" else value.buffer.address
    return Tensor(
        note.name, note.instruction, note.kind, address, value.rows, value.channels, value.group, value.stored
    )
