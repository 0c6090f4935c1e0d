# SPDX-License-Identifier: Apache-2.0
"""The demo's time on the chip: estimated cycles and memory traffic of every instruction.

SPEC.md, section 12. The C simulation counts the cycles of the loops too. Nothing was measured on a board.
"""

from typing import Any

from edge_moe.demo.folder import Folder
from edge_moe.estimate.cycles import Estimate, estimate_images, title
from edge_moe.estimate.roofline import plot_estimates
from edge_moe_host.backends.csim_library import open_csim
from edge_moe_host.contract.bundle import TaskProgram, load_bundle
from edge_moe_host.contract.isa import RECORD_BYTES
from edge_moe_host.runtime.record import load_images

Values = dict[str, Any]


def estimate_tasks(folder: Folder) -> Values:
    """Each task's estimate for the picture of median cycles, instruction by instruction, with the cycles that
    the C simulation counts for the same picture."""
    bundle, images = load_bundle(folder.bundle), load_images(folder.images)
    csim = open_csim(bundle)
    values = {}
    for task, program in bundle.tasks.items():
        estimates = estimate_images(bundle, task, images)
        place = _median(estimates)
        counted = (*csim.run(bundle, task, images[place], trace=True).instruction_cycles, 0)  # END
        plot_estimates([estimates[place]], folder.roofline(task))
        cycles = [estimate.cycles for estimate in estimates]
        values[task] = {
            **_totals(estimates[place]),
            "picture": place,
            "least_cycles": min(cycles),
            "most_cycles": max(cycles),
            "counted_loops": sum(counted),
            "instructions": _instructions(program, estimates[place], counted),
        }
    return values


def _median(estimates: list[Estimate]) -> int:
    return sorted(range(len(estimates)), key=lambda place: estimates[place].cycles)[len(estimates) // 2]


def _totals(estimate: Estimate) -> Values:
    io = sum(timing.io_bytes for timing in estimate.timings)
    return {
        "cycles": estimate.cycles,
        "milliseconds": estimate.milliseconds,
        "clock_mhz": estimate.accelerator.clock_mhz,
        "loops": estimate.loops,
        "waited": estimate.waited,
        "macs": estimate.macs,
        "utilisation": estimate.utilisation,
        "peak_macs": estimate.peak_macs,
        "weight_bytes": estimate.weight_bytes,
        "io_bytes": io,
        "program_bytes": RECORD_BYTES * len(estimate.timings),
        "memory_bytes": estimate.memory_bytes,
        "bytes_per_cycle": estimate.accelerator.memory_bytes_per_cycle,
        "mac_floor": estimate.macs / estimate.peak_macs,
        "weight_floor": estimate.weight_floor,
    }


def _instructions(program: TaskProgram, estimate: Estimate, counted: tuple[int, ...]) -> list[Values]:
    names: dict[int, str] = {}
    for tensor in program.entry.tensors:
        names.setdefault(tensor.instruction, tensor.name)
    return [
        {
            "title": title(timing.instruction),
            "result": names.get(index, ""),
            "cycles": timing.cycles,
            "loops": timing.loops,
            "counted": count,
            "waited": timing.waited,
            "macs": timing.macs,
            "weight_bytes": timing.weight_bytes,
            "io_bytes": timing.io_bytes,
        }
        for index, (timing, count) in enumerate(zip(estimate.timings, counted, strict=True))
    ]
