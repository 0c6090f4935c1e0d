# SPDX-License-Identifier: Apache-2.0
"""A bundle's programs as assembly, with cycles, bytes and MACs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from edge_moe.commands.options import add_bundle
from edge_moe.estimate.cycles import Timing, estimate_task, title
from edge_moe_host.contract.bundle import Bundle, TaskProgram, load_bundle, used_sections
from edge_moe_host.contract.isa import Instruction, Opcode
from edge_moe_host.contract.layout import BEAT
from edge_moe_host.contract.opcodes import operands as operands_of


def add_options(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)


def run(args: argparse.Namespace) -> None:
    print(inspect_bundle(args.bundle, args.tasks))


_HIDDEN = ("epilogue", "weight_offset", "weight_beats")  # shown in columns of their own
_ADDRESSES = ("src", "dst", "routing", "hidden")


def inspect_bundle(path: Path, tasks: Sequence[str] | None = None) -> str:
    """Contents of a bundle, and the programs of its tasks. EdgeMoEError for an invalid bundle."""
    bundle = load_bundle(path)
    names = list(bundle.tasks) if tasks is None else tasks
    return "\n\n".join([_overview(bundle), *(_program(bundle, bundle.task(name)) for name in names)])


def _overview(bundle: Bundle) -> str:
    manifest = bundle.manifest
    model = manifest.model.config
    lines = [
        f"{bundle.path}: format {manifest.format_version}, instructions {manifest.isa_version}",
        f"model        {manifest.model.hash}  image {_join(model.get('image_size', []))}, "
        f"width {model.get('embed_dim')}, {model.get('depth')} blocks",
        f"accelerator  {manifest.accelerator.hash}  "
        f"scratch {manifest.accelerator.config['scratch_bytes']:,} bytes",
        f"weights      {len(bundle.weights):,} bytes in {len(manifest.sections)} blocks",
    ]
    used = {name: set(used_sections(bundle, program)) for name, program in bundle.tasks.items()}
    shared = set.intersection(*used.values())
    for name, program in bundle.tasks.items():
        out = program.entry.output
        own = sum(section.beats for section in used[name] - shared) * BEAT
        lines.append(
            f"task {name}: {len(program.instructions)} instructions, {own:,} bytes of weights of its own, "
            f"scratch peak {program.entry.scratch_bytes:,} bytes, result {out.height}x{out.width}x"
            f"{out.channels} ({out.kind}), enlarged {out.factor} times"
        )
    return "\n".join(lines)


def _program(bundle: Bundle, program: TaskProgram) -> str:
    estimate = estimate_task(bundle, program.name)
    names: dict[int, str] = {}
    for tensor in program.entry.tensors:
        names.setdefault(tensor.instruction, tensor.name)
    lines = [
        f"task {program.name} (cycles modelled, experts evenly used)",
        f"{'':>4} {'instruction':<18}{'cycles':>9}{'waiting':>9}{'MMAC':>8}{'weights B':>11}"
        f"{'at beat':>9}  {'result':<22}operands",
    ]
    lines += [
        f"{index:>4} {title(timing.instruction):<18}{timing.cycles:>9,.0f}{timing.waited:>9,.0f}"
        f"{timing.macs / 1e6:>8.2f}{timing.weight_bytes:>11,}{timing.instruction.weight_offset:>9}"
        f"  {names.get(index, ''):<22}{operands(timing.instruction)}"
        for index, timing in enumerate(estimate.timings)
    ]
    return "\n".join([*lines, _total(estimate.timings)])


def _total(timings: Sequence[Timing]) -> str:
    return (
        f"{'':>4} {'all':<18}{timings[-1].end:>9,.0f}{sum(t.waited for t in timings):>9,.0f}"
        f"{sum(t.macs for t in timings) / 1e6:>8.2f}{sum(t.weight_bytes for t in timings):>11,}"
    )


def operands(i: Instruction) -> str:
    """The fields that an instruction reads: numbers, then addresses."""
    names = [name for name in operands_of(Opcode(i.opcode)) if name not in _HIDDEN]
    numbers = [f"{name}={getattr(i, name)}" for name in names if name not in _ADDRESSES and getattr(i, name)]
    addresses = [f"{name}=0x{getattr(i, name):05x}" for name in names if name in _ADDRESSES]
    return " ".join([*numbers, *addresses])


def _join(values: Sequence[int]) -> str:
    return "x".join(map(str, values))
