# SPDX-License-Identifier: Apache-2.0
"""Cycles, traffic and work of a bundle's tasks, instruction by instruction. SPEC.md, section 12.

Cycles are those of the loops as written in hls/, plus their waiting for memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.estimate.loops import Crowd, crowds_of
from edge_moe.estimate.waiting import Timeline
from edge_moe_host.config import from_dict
from edge_moe_host.contract import layout
from edge_moe_host.contract.bundle import Bundle, TaskProgram
from edge_moe_host.contract.isa import RECORD_BYTES, Epilogue, Instruction, Opcode
from edge_moe_host.contract.layout import CONV_TAPS, PLANE, pairs
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.interpreter import run_program
from edge_moe_host.golden.trace import Trace

Routing = Mapping[int, Sequence[Crowd]]  # EXPERTS instruction -> rows of each expert


@dataclass(frozen=True)
class Timing:
    """One instruction, from ``start`` to ``end``: cycles of its ``loops``, and ``waited`` for memory."""

    instruction: Instruction
    start: float
    end: float
    loops: int
    waited: float
    macs: int
    weight_bytes: int
    io_bytes: int

    @property
    def cycles(self) -> float:
        """From the end of the previous instruction to its own."""
        return self.end - self.start


@dataclass(frozen=True)
class Estimate:
    """One task's frame. ``in_vain``: empty experts whose weights were read before the routing was known."""

    task: str
    accelerator: AcceleratorConfig
    timings: tuple[Timing, ...]
    in_vain: int

    @property
    def cycles(self) -> float:
        """From the start of the program to its end."""
        return self.timings[-1].end

    @property
    def milliseconds(self) -> float:
        """Time of the frame at the accelerator's clock."""
        return self.cycles / self.accelerator.clock_mhz / 1000

    @property
    def macs(self) -> int:
        """Products that the model needs, without padding."""
        return sum(timing.macs for timing in self.timings)

    @property
    def loops(self) -> int:
        """Cycles of the loops as written: iterations and depths."""
        return sum(timing.loops for timing in self.timings)

    @property
    def waited(self) -> float:
        """Cycles in which the loops waited for weights, program, image or result."""
        return sum(timing.waited for timing in self.timings)

    @property
    def weight_bytes(self) -> int:
        """Bytes read from the weight image."""
        return sum(timing.weight_bytes for timing in self.timings)

    @property
    def memory_bytes(self) -> int:
        """All traffic with external memory: weights, instructions, image and result."""
        io = sum(timing.io_bytes for timing in self.timings)
        return self.weight_bytes + io + RECORD_BYTES * len(self.timings)

    @property
    def peak_macs(self) -> int:
        """Products per cycle of the compute unit."""
        a = self.accelerator
        return a.tile_in * a.tile_out * a.tokens_parallel

    @property
    def utilisation(self) -> float:
        """Share of the compute unit's products that the model needed."""
        return self.macs / (self.peak_macs * self.cycles)

    @property
    def weight_floor(self) -> float:
        """Cycles that reading the weights takes by itself."""
        return self.weight_bytes / self.accelerator.memory_bytes_per_cycle


def estimate_task(bundle: Bundle, task: str, routing: Routing | None = None) -> Estimate:
    """Model one frame of a task on the bundle's accelerator; ``routing`` defaults to an even one.

    EdgeMoEError for a task that the bundle does not have.
    """
    program = bundle.task(task)
    accelerator: AcceleratorConfig = from_dict(AcceleratorConfig, bundle.manifest.accelerator.config)
    routing = uniform_routing(program) if routing is None else routing
    pipeline, timings, in_vain = Timeline(accelerator), [], 0
    for index, i in enumerate(program.instructions):
        start, loops, waited, planes = pipeline.now, pipeline.loops, pipeline.waited, pipeline.planes_read
        assignments = tables = 0
        if i.opcode == Opcode.EXPERTS:
            assignments, tables = sum(map(sum, routing[index])), i.weight_beats * layout.BEAT
            in_vain += pipeline.experts(i, bundle.expert_table(i), routing[index])
        else:
            pipeline.instruction(i)
        timings.append(
            Timing(
                i,
                start,
                pipeline.now,
                pipeline.loops - loops,
                pipeline.waited - waited,
                instruction_macs(i, assignments),
                (pipeline.planes_read - planes) * PLANE + tables,
                instruction_io(i),
            )
        )
    return Estimate(task, accelerator, tuple(timings), in_vain)


def instruction_macs(i: Instruction, assignments: int = 0) -> int:
    """Products of an instruction's shape; ``assignments``: rows of all experts together."""
    if i.opcode == Opcode.EXPERTS:
        return 2 * assignments * i.in_channels * i.hidden_channels
    of_a_row = {
        Opcode.LINEAR: i.in_channels * i.out_channels,
        Opcode.ATTENTION: 2 * i.keys * i.out_channels,
        Opcode.GATE: i.in_channels * i.experts,
        Opcode.CONV3X3: CONV_TAPS * i.in_channels * i.out_channels,
    }
    return i.rows * of_a_row.get(Opcode(i.opcode), 0)


def instruction_io(i: Instruction) -> int:
    """Bytes of the image or the result that an instruction moves."""
    if i.opcode == Opcode.PATCHES:
        return 3 * i.height * i.width
    return i.rows * layout.output_row(i.in_channels) if i.opcode == Opcode.STORE else 0


def uniform_routing(program: TaskProgram) -> dict[int, list[Crowd]]:
    """Every expert gets an equal share of the even rows and of the odd rows. The first experts get one of the
    remaining even rows each; the experts after them get one of the remaining odd rows each."""
    routing = {}
    for index, i in enumerate(program.instructions):
        if i.opcode == Opcode.EXPERTS:
            evens, counts = pairs(i.rows) * i.top_k, [[0, 0] for _ in range(i.experts)]
            for place in range(i.rows * i.top_k):
                counts[place % i.experts][int(place >= evens)] += 1
            routing[index] = [Crowd(*count) for count in counts]
    return routing


def measured_routing(bundle: Bundle, task: str, images: np.ndarray) -> list[dict[int, list[Crowd]]]:
    """Rows of each expert in each image uint8 [B, H, W, 3], from the interpreter."""
    program, result = bundle.task(task), []
    for image in images:
        trace = Trace()
        run_program(bundle, task, image[None], trace)
        routing: dict[int, list[Crowd]] = {}
        latest = ""
        names = {t.instruction: t.name for t in program.entry.tensors if t.kind == "expert"}
        for index, i in enumerate(program.instructions):
            latest = names.get(index, latest)
            if i.opcode == Opcode.EXPERTS:
                routing[index] = crowds_of(trace.tensors[latest][0].tolist(), i.experts)
        result.append(routing)
    return result


def estimate_images(bundle: Bundle, task: str, images: np.ndarray) -> list[Estimate]:
    """One estimate per image, uint8 [B, H, W, 3], with its own routing. EdgeMoEError when there are none."""
    if not len(images):
        raise EdgeMoEError("there are no images to take the routing from: give at least one.")
    return [estimate_task(bundle, task, routing) for routing in measured_routing(bundle, task, images)]


def title(i: Instruction) -> str:
    """Name of an instruction in tables."""
    name = Opcode(i.opcode).name
    return f"{name} {Epilogue(i.epilogue).name.lower()}" if i.opcode == Opcode.LINEAR else name


def estimate_table(estimate: Estimate) -> str:
    """Totals per kind of instruction, then for the frame."""
    a = estimate.accelerator
    lines = [
        f"{estimate.task}: {estimate.cycles:,.0f} cycles, {estimate.milliseconds:.3f} ms at {a.clock_mhz} "
        "MHz (modelled, not measured): the loops as written, and waiting for memory",
        f"{'instruction':<20}{'count':>6}{'cycles':>11}{'loops':>11}{'waiting':>10}{'share':>8}{'MMAC':>10}"
        f"{'MAC/cycle':>11}{'weights kB':>12}",
    ]
    kinds: dict[str, list[Timing]] = {}
    for timing in estimate.timings:
        kinds.setdefault(title(timing.instruction), []).append(timing)
    for name, group in [*kinds.items(), ("all", list(estimate.timings))]:
        cycles, macs = sum(t.cycles for t in group), sum(t.macs for t in group)
        lines.append(
            f"{name:<20}{len(group):>6}{cycles:>11,.0f}{sum(t.loops for t in group):>11,}"
            f"{sum(t.waited for t in group):>10,.0f}{cycles / estimate.cycles:>8.1%}{macs / 1e6:>10.2f}"
            f"{macs / max(cycles, 1):>11.0f}{sum(t.weight_bytes for t in group) / 1e3:>12.1f}"
        )
    lines += [
        f"compute unit: {estimate.utilisation:.1%} of {estimate.peak_macs} products per cycle used; "
        f"memory: {estimate.memory_bytes / 1e6:.2f} MB per frame, "
        f"{estimate.memory_bytes / estimate.cycles:.1f} bytes per cycle",
        f"floors: {estimate.macs / estimate.peak_macs:,.0f} cycles of products, "
        f"{estimate.weight_floor:,.0f} of weights at {a.memory_bytes_per_cycle} bytes per cycle",
    ]
    if estimate.in_vain:
        lines.append(f"{estimate.in_vain} experts without tokens were read before the routing was known")
    return "\n".join(lines)
