# SPDX-License-Identifier: Apache-2.0
"""Reading a bundle: a folder with ``manifest.json``, ``weights.bin`` and one program per task.

Everything is checked before anything is used: versions, sizes, checksums, hashes, every field of
every instruction, and the memory that each instruction touches. SPEC.md, sections 7 to 11.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from edge_moe_host import files
from edge_moe_host.contract import blocks, layout, manifest, opcodes, program
from edge_moe_host.contract.encoding import decode
from edge_moe_host.contract.isa import RECORD_BYTES, ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.manifest import Manifest, Section, TaskEntry, Tensor
from edge_moe_host.contract.opcodes import LIMITS, MAX_LIMIT, SECTION_KINDS, section_of
from edge_moe_host.errors import BundleError, TaskError, listed
from edge_moe_host.files import read_bytes

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "weights.bin"
PROGRAM_SUFFIX = ".program.bin"


@dataclass(frozen=True, eq=False)
class TaskProgram:
    """One task of a bundle: its instructions and its entry in the manifest."""

    name: str
    instructions: tuple[Instruction, ...]
    entry: TaskEntry

    @cached_property
    def tensors_after(self) -> dict[int, list[Tensor]]:
        """Named intermediates by the instruction that completes them."""
        found: dict[int, list[Tensor]] = {}
        for tensor in self.entry.tensors:
            found.setdefault(tensor.instruction, []).append(tensor)
        return found


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that passed every check. ``weights``: uint8, read-only, the whole weight image."""

    path: Path
    manifest: Manifest
    weights: np.ndarray
    tasks: Mapping[str, TaskProgram]

    def task(self, name: str) -> TaskProgram:
        """A task's program. TaskError for a task that the bundle does not have."""
        if name not in self.tasks:
            raise TaskError(f"task '{name}' is not in '{self.path}': it has {listed(self.tasks, name)}.")
        return self.tasks[name]

    def beats(self, offset: int, count: int) -> np.ndarray:
        """uint8 [64 * count] of the weight image from beat ``offset`` on."""
        return self.weights[offset * layout.BEAT : (offset + count) * layout.BEAT]

    def expert_table(self, instruction: Instruction) -> tuple[ExpertEntry, ...]:
        """The experts that an EXPERTS instruction points to."""
        table = self.beats(instruction.weight_offset, instruction.weight_beats)
        entries = table.reshape(-1, RECORD_BYTES)[: instruction.experts]
        return tuple(
            decode(ExpertEntry, entry.tobytes(), f"expert {index} in {WEIGHTS_FILE}")
            for index, entry in enumerate(entries)
        )


def load_bundle(path: Path) -> Bundle:
    """Read and check a bundle's folder; BundleError says in one sentence what is wrong."""
    path = Path(path)
    if files.kind(path, BundleError) != "folder":
        raise BundleError(f"bundle '{path}' is not a folder.")
    if not files.kind(path / MANIFEST_FILE, BundleError):
        raise BundleError(f"folder '{path}' is no bundle, as it has no {MANIFEST_FILE}: compile writes one.")
    where = f"'{path / MANIFEST_FILE}'"
    try:
        text = read_bytes(path / MANIFEST_FILE, BundleError).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{where} is damaged: it is not text.") from None
    entries = manifest.parse(manifest.unseal(text, where), where)
    _check_configurations(entries, where)
    weights = np.frombuffer(_read_listed(path, entries.weights, WEIGHTS_FILE), dtype=np.uint8)
    _check_sections(entries.sections, weights, where)
    if not entries.tasks:
        raise BundleError(f"{where} lists no task.")
    tasks = {}
    for name, entry in entries.tasks.items():
        if not name.isidentifier():
            raise BundleError(f"{where} lists a task of the name {name[:60]!r}.")
        data = _read_listed(path, entry.program, name + PROGRAM_SUFFIX)
        tasks[name] = TaskProgram(name, program.decode_program(data, entry.program.file), entry)
    bundle = Bundle(path, entries, weights, tasks)
    used = {section for task in tasks.values() for section in _check_task(bundle, task)}
    _check_weights(bundle)
    for section in entries.sections:
        if section not in used:
            raise BundleError(f"{where} has the section '{section.name}', which no task uses.")
    return bundle


def _read_listed(folder: Path, entry: manifest.FileEntry, name: str) -> bytes:
    """A file that the manifest lists; its size and checksum must match."""
    if entry.file != name:
        raise BundleError(f"the manifest of '{folder}' names '{entry.file[:60]}' where '{name}' belongs.")
    data = read_bytes(folder / name, BundleError)
    if len(data) != entry.bytes:
        raise BundleError(f"'{folder / name}' has {len(data)} bytes, the manifest says {entry.bytes}.")
    if zlib.crc32(data) != entry.crc32:
        raise BundleError(f"'{folder / name}' is damaged: its checksum does not match the manifest.")
    return data


def _check_configurations(entries: Manifest, where: str) -> None:
    for part in ("model", "accelerator"):
        configuration: manifest.Configuration = getattr(entries, part)
        if manifest.config_hash(configuration.config) != configuration.hash:
            raise BundleError(f"the {part} configuration in {where} does not match its hash.")
    limits = entries.accelerator.config
    for name in LIMITS:
        value = limits.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_LIMIT:
            raise BundleError(f"accelerator.{name} = {str(value)[:40]} in {where} is not allowed.")


def _check_sections(sections: Sequence[Section], weights: np.ndarray, where: str) -> None:
    """Sections follow each other without gaps to the end of the weight image."""
    end = 0
    for section in sections:
        place = f"section '{section.name[:60]}' in {where}"
        if section.kind not in SECTION_KINDS:
            raise BundleError(f"{place} has the unknown kind '{section.kind[:60]}'.")
        if section.offset != end or section.beats < 1 or section.beats % layout.BEATS_PER_PLANE:
            raise BundleError(f"{place} does not follow the one before it.")
        end += section.beats
        block = weights[section.offset * layout.BEAT : end * layout.BEAT]
        if len(block) != section.beats * layout.BEAT or zlib.crc32(block.tobytes()) != section.crc32:
            raise BundleError(f"{place} does not match {WEIGHTS_FILE}.")
    if end * layout.BEAT != len(weights):
        raise BundleError(f"the sections in {where} do not cover {WEIGHTS_FILE}.")


def _check_task(bundle: Bundle, task: TaskProgram) -> list[Section]:
    """Check one task's program against everything else; returns the sections that it uses."""
    limits: Mapping[str, int] = bundle.manifest.accelerator.config
    where = task.entry.program.file
    if len(task.instructions) > limits["max_instructions"]:
        raise BundleError(
            f"{where} has {len(task.instructions)} instructions, more than the accelerator's "
            f"max_instructions = {limits['max_instructions']}."
        )
    for index, instruction in enumerate(task.instructions):
        program.check_instruction(instruction, limits, f"instruction {index} of {where}")
    peak = program.check_scratch(task.instructions, limits, where)
    if peak != task.entry.scratch_bytes:
        raise BundleError(
            f"{where} uses {peak} bytes of scratch, the manifest says {task.entry.scratch_bytes}."
        )
    _check_entry(task)
    return used_sections(bundle, task)


def used_sections(bundle: Bundle, task: TaskProgram) -> list[Section]:
    """Sections that a task's instructions and expert tables point to; BundleError when one is missing."""
    sections = {
        (section.offset, section.beats, section.kind): section for section in bundle.manifest.sections
    }
    used = []
    for i, record, kind, place in _blocks(bundle, task):
        if isinstance(record, ExpertEntry):
            program.check_entry(record, i, place)
        section = sections.get((record.weight_offset, record.weight_beats, kind))
        if section is None:
            raise BundleError(
                f"{place} points to beat {record.weight_offset}, where no {kind} block of "
                f"{record.weight_beats} beats begins."
            )
        used.append(section)
    return used


def _blocks(
    bundle: Bundle, task: TaskProgram
) -> Iterator[tuple[Instruction, Instruction | ExpertEntry, str, str]]:
    """Each weight block of a task: its instruction, the record that points to it, its kind, and the record's
    place in errors."""
    for index, i in enumerate(task.instructions):
        place = f"instruction {index} of {task.entry.program.file}"
        kind = section_of(i.opcode)
        if kind is not None:
            yield i, i, kind, place
        if i.opcode == Opcode.EXPERTS:
            for number, entry in enumerate(bundle.expert_table(i)):
                yield i, entry, opcodes.EXPERT_SECTION, f"expert {number} of {place}"


def _check_weights(bundle: Bundle) -> None:
    """Check the numbers of every block, once for all instructions that use it in the same way."""
    seen = set()
    for task in bundle.tasks.values():
        for i, record, kind, place in _blocks(bundle, task):
            shape = (i.rows, i.in_channels, i.out_channels, i.hidden_channels, i.experts, i.heads)
            key = (kind, record.weight_offset, getattr(record, "bits1", 0), *shape)
            if key in seen:
                continue
            seen.add(key)
            block = bundle.beats(record.weight_offset, record.weight_beats)
            if isinstance(record, ExpertEntry):
                blocks.check_expert(i, record, block, place)
            else:
                blocks.check_block(i, block, place)


def _check_entry(task: TaskProgram) -> None:
    """Check that the manifest's entry of a task agrees with its program."""
    entry, out = task.entry, task.entry.output
    by_opcode = {Opcode(instruction.opcode): instruction for instruction in task.instructions}
    patches, store = by_opcode[Opcode.PATCHES], by_opcode[Opcode.STORE]
    moe = [i for i in task.instructions if i.opcode == Opcode.EXPERTS]
    facts = {
        "image": entry.image == [patches.height, patches.width, 3],
        "output.kind": out.kind in manifest.OUTPUT_KINDS,
        "output.height": out.factor >= 1 and out.height * out.factor == patches.height,
        "output.width": out.width * out.factor == patches.width and out.height * out.width == store.rows,
        "output.channels": out.channels == store.in_channels,
        "output.row_bytes": out.row_bytes == layout.output_row(out.channels),
        "output.scale": out.scale > 0,
        "classes": len(entry.classes) in (0, out.channels) and all(
            len(style.colour) == 3 and max(style.colour) < 256 for style in entry.classes
        ),
        "expert_ids": [len(ids) for _, ids in sorted(entry.expert_ids.items(), key=_block)]
        == [i.experts for i in moe],
    }  # fmt: skip
    for name, right in facts.items():
        if not right:
            raise BundleError(f"tasks.{task.name}.{name} in the manifest does not fit {entry.program.file}.")
    for tensor in entry.tensors:
        _check_tensor(tensor, task)


def _block(item: tuple[str, list[int]]) -> int:
    return int(item[0]) if item[0].isdecimal() and item[0].isascii() and len(item[0]) < 6 else -1


def _check_tensor(tensor: Tensor, task: TaskProgram) -> None:
    """Check that a named intermediate is within the memory that the program uses."""
    place = f"tensor '{tensor.name[:60]}' of task '{task.name}'"
    sane = (
        tensor.kind in manifest.TENSOR_KINDS
        and tensor.instruction < len(task.instructions)
        and tensor.rows >= 1
        and 1 <= tensor.group <= tensor.stored
        and tensor.channels >= 1
        and tensor.channels % tensor.group == 0
        and tensor.address % layout.ALIGNMENT == 0
    )
    if not sane:
        raise BundleError(f"{place} is described wrongly in the manifest.")
    instruction = task.instructions[tensor.instruction]
    stored = tensor.channels // tensor.group * tensor.stored
    if tensor.kind in ("expert", "score"):
        fits = instruction.opcode == Opcode.GATE and tensor.channels == instruction.top_k
        row = layout.ROUTE_BYTES
    elif tensor.kind == "logits":
        fits, row = instruction.opcode == Opcode.GATE and tensor.address == 0, 0
        fits = fits and tensor.channels == instruction.experts and tensor.rows >= instruction.rows
    else:
        fits, row = True, layout.int8_row(stored) if tensor.kind == "int8" else layout.int16_row(stored)
    if not fits or tensor.address + tensor.rows * row > task.entry.scratch_bytes:
        raise BundleError(f"{place} does not fit {task.entry.program.file}.")
