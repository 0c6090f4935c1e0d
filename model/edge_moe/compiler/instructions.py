# SPDX-License-Identifier: Apache-2.0
"""State and result of a compilation: instructions, buffers and weight blocks. SPEC.md, section 10."""

from collections.abc import Mapping
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
from edge_moe_host.contract.opcodes import LIMITS, least_limits, rows_bytes, section_of
from edge_moe_host.errors import BundleError, EdgeMoEError


@dataclass(frozen=True)
class Value:
    """Rows of a tensor in the scratch memory; every ``group`` channels are stored in ``stored``."""

    buffer: Buffer
    kind: str  # int8, int16 or routing
    rows: int
    channels: int
    group: int
    stored: int

    @property
    def width(self) -> int:
        """Stored channels of a row."""
        return self.channels // self.group * self.stored

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return rows_bytes(self.kind, layout.PAIR, self.width) // layout.PAIR


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
class TaskCode:
    """A task's program before it is written."""

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
        self.notes: list[tuple[str, str, int, Value]] = []  # tensor, kind, the instruction that completes it
        self.gates: dict[str, tuple[Node, Value]] = {}  # logits -> GateLogits and its input
        self.routed: dict[str, int] = {}  # buffer of routing rows -> number of experts
        self.outputs: list[Output] = []
        self.peak = 0  # bytes of scratch memory

    def close(self) -> "Emitter":
        """End the program, once every node has been emitted, and place its buffers."""
        source, ops = self.graph.source, [node.op for node in self.graph.nodes]
        if len(self.outputs) != 1 or ops.count("PatchEmbedding") != 1:
            raise EdgeMoEError(f"{source} must hold one PatchEmbedding and one ClassMap or PixelValues node.")
        self.emit(Opcode.END, self.graph.nodes[-1], {}, {})
        self.peak = allocate(self.buffers)
        return self

    def needs(self) -> dict[str, int]:
        """The least value of each limit with which an accelerator can run the closed program."""
        found = dict.fromkeys(LIMITS, 1)
        found |= {"scratch_bytes": self.peak, "max_instructions": len(self.drafts)}
        for draft in self.drafts:
            for name, value in least_limits(draft.instruction()):
                found[name] = max(found[name], value)
        return found

    def finish(self) -> TaskCode:
        """The closed program, checked. It fits the accelerator: :mod:`edge_moe.compiler.fit`."""
        instructions = tuple(draft.instruction() for draft in self.drafts)
        for index, instruction in enumerate(instructions):
            self.check(instruction, self.drafts[index].node)
        try:
            used = program.check_scratch(
                instructions, self.limits, f"the program of task '{self.graph.task}'"
            )
        except BundleError as error:
            raise EdgeMoEError(f"the graph of {self.graph.source} makes no valid program: {error}") from None
        tensors = tuple(
            Tensor(
                *(name, index, kind, 0 if kind == "logits" else value.buffer.address),
                *(value.rows, value.channels, value.group, value.stored),
            )
            for name, kind, index, value in self.notes
        )
        return TaskCode(
            instructions, self.outputs[0], used, live_bytes(self.buffers), tensors, tuple(self.buffers)
        )

    # Helpers for every node

    def check(self, instruction: Instruction, node: Node) -> None:
        """EdgeMoEError when the accelerator cannot run the instruction."""
        try:
            encode(instruction)
            program.check_instruction(instruction, self.limits, "its instruction")
        except BundleError as error:
            raise EdgeMoEError(f"node '{node.name}' does not fit the accelerator: {error}") from None

    def emit(
        self,
        opcode: Opcode,
        node: Node,
        places: Mapping[str, tuple[Value, int]],
        fields: Mapping[str, int],
        block: tuple[str, bytes] | None = None,
    ) -> None:
        """Append an instruction; ``places`` has the value and the first row of each address field, ``block``
        the name and the bytes of its weights."""
        weights = {} if block is None else self.section(section_of(opcode) or "", *block)
        for value, _ in places.values():
            value.buffer.use(len(self.drafts))
        offsets = {name: (value.buffer, row * value.row_bytes) for name, (value, row) in places.items()}
        self.drafts.append(Draft(opcode, node, offsets, {**fields, **weights}))

    def emit_parts(
        self,
        opcode: Opcode,
        node: Node,
        x: Value,
        out: Value,
        limit: int,
        fields: Mapping[str, int],
        block: tuple[str, bytes],
        *,
        unit: int = 1,
        skip: int = 0,
        whole: bool = False,
    ) -> None:
        """Instructions for parts of at most ``limit`` rows of ``x``, whole pairs and multiples of ``unit``.

        They write rows of ``out`` after the first ``skip``. ``whole``: each of them reads all of ``x``, and
        says where its part begins. If not even one unit fits, the part exceeds the limit and the check
        refuses it.
        """
        step = unit * layout.PAIR if unit % layout.PAIR else unit
        size = x.rows if x.rows <= limit else max(limit // step, 1) * step
        for start in range(0, x.rows, size):
            places = {"src": (x, 0 if whole else start), "dst": (out, start + skip)}
            part = {"rows": min(size, x.rows - start), "in_channels": x.width}
            part |= {"row_start": start} if whole else {}
            self.emit(opcode, node, places, {**part, **fields}, block)

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
        value = Value(Buffer(name, 0), kind, rows, channels, group, stored or group)
        value.buffer.size = rows_bytes(kind, rows, value.width)
        self.buffers.append(value.buffer)
        return value

    def define(self, name: str, value: Value, kind: str = "") -> None:
        """Give the tensor ``name`` its value from here on."""
        self.values[name] = value
        self.note(name, kind or value.kind, value)

    def note(self, name: str, kind: str, value: Value) -> None:
        """Note that the last instruction completes the tensor ``name``."""
        self.notes.append((name, kind, len(self.drafts) - 1, value))

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
