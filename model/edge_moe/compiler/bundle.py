# SPDX-License-Identifier: Apache-2.0
"""From the path.onnx files of a model's tasks to one bundle. SPEC.md, sections 7 to 11."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_moe.accelerator import AcceleratorConfig
from edge_moe.compiler.emit import emit_program
from edge_moe.compiler.fit import require_fit
from edge_moe.compiler.instructions import TaskCode
from edge_moe.compiler.read_graph import PathGraph, read_path
from edge_moe.compiler.weights import WeightImage
from edge_moe_host.config import to_dict
from edge_moe_host.contract import manifest
from edge_moe_host.contract.bundle import (
    MANIFEST_FILE,
    PROGRAM_SUFFIX,
    WEIGHTS_FILE,
    Bundle,
    load_bundle,
    used_sections,
)
from edge_moe_host.contract.encoding import encode
from edge_moe_host.contract.isa import ISA_VERSION
from edge_moe_host.contract.layout import BEAT
from edge_moe_host.contract.manifest import ClassStyle, Configuration, FileEntry, TaskEntry
from edge_moe_host.errors import BundleError, EdgeMoEError
from edge_moe_host.files import kind, replacing_folder


@dataclass(frozen=True)
class CompileReport:
    """Result of a compilation: sizes, and the program of each task."""

    out: Path
    file_bytes: dict[str, int]
    shared_bytes: int  # of the weight image, used by every task
    codes: dict[str, TaskCode] = field(repr=False)

    @property
    def total_bytes(self) -> int:
        """All files of the bundle."""
        return sum(self.file_bytes.values())


def compile_bundle(
    paths: Sequence[Path],
    accelerator: AcceleratorConfig,
    out: Path,
    check: Callable[[Path], None] = lambda _: None,
) -> CompileReport:
    """Compile the tasks of one model into the folder ``out``, which appears whole or not at all.

    ``paths``: one path.onnx for each task. A bundle or an empty folder at ``out`` is replaced. ``check`` sees
    the finished bundle under a temporary name and may raise EdgeMoEError to stop it. Raises EdgeMoEError when
    the files do not belong together, a node is not supported, or something does not fit the accelerator.
    """
    graphs = [read_path(Path(path)) for path in paths]
    _check_together(graphs)
    hashes = [manifest.file_hash(Path(path).read_bytes()) for path in paths]
    image = WeightImage()
    programs = [emit_program(graph, accelerator, image) for graph in graphs]
    require_fit(programs, accelerator)
    codes = {program.graph.task: program.finish() for program in programs}
    files: dict[str, bytes] = {WEIGHTS_FILE: b"".join(image.blocks())}
    for task, code in codes.items():
        files[task + PROGRAM_SUFFIX] = b"".join(map(encode, code.instructions))
    data: dict[str, Any] = to_dict(
        manifest.Manifest(
            format=manifest.FORMAT,
            format_version=manifest.FORMAT_VERSION,
            isa_version=ISA_VERSION,
            model=Configuration(to_dict(graphs[0].config), graphs[0].config.hash()),
            accelerator=Configuration(to_dict(accelerator), accelerator.hash()),
            weights=_entry(WEIGHTS_FILE, files),
            sections=image.sections,
            tasks={
                graph.task: _task_entry(graph, digest, codes[graph.task], files)
                for graph, digest in zip(graphs, hashes, strict=True)
            },
        )
    )
    files[MANIFEST_FILE] = manifest.seal(data).encode()
    _require_replaceable(Path(out))
    with replacing_folder(Path(out)) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        bundle = _load_own(folder)
        check(folder)
    sizes = {name: len(content) for name, content in files.items()}
    return CompileReport(Path(out), sizes, _shared_bytes(bundle), codes)


def _check_together(graphs: Sequence[PathGraph]) -> None:
    """EdgeMoEError unless the graphs are of one model and each task occurs once."""
    if not graphs:
        raise EdgeMoEError("no path.onnx was given: name one file for each task of the bundle.")
    first, seen = graphs[0], dict[str, PathGraph]()
    for graph in graphs:
        if graph.config.hash() != first.config.hash():
            raise EdgeMoEError(
                f"{graph.source} and {first.source} are of models with different configurations: "
                "a bundle holds the tasks of one model."
            )
        if graph.task in seen:
            raise EdgeMoEError(
                f"{graph.source} and {seen[graph.task].source} are both for task '{graph.task}'."
            )
        seen[graph.task] = graph


def _entry(name: str, files: Mapping[str, bytes]) -> FileEntry:
    return FileEntry(name, len(files[name]), zlib.crc32(files[name]))


def _task_entry(graph: PathGraph, digest: str, code: TaskCode, files: Mapping[str, bytes]) -> TaskEntry:
    return TaskEntry(
        program=_entry(graph.task + PROGRAM_SUFFIX, files),
        graph=digest,
        image=[*graph.config.image_size, 3],
        output=code.output,
        classes=[ClassStyle(name, colour) for name, colour in graph.notes.classes],
        scratch_bytes=code.scratch_bytes,
        scales=graph.notes.scales,
        expert_ids=graph.notes.expert_ids,
        tensors=list(code.tensors),
    )


def _load_own(folder: Path) -> Bundle:
    """Read back the written files: a bundle that its reader refuses must not appear."""
    try:
        return load_bundle(folder)
    except BundleError as error:
        raise EdgeMoEError(f"the compiled bundle is not valid, so it was not kept: {error}") from None


def _shared_bytes(bundle: Bundle) -> int:
    """Bytes of weight blocks that every task's program uses."""
    used = [set(used_sections(bundle, task)) for task in bundle.tasks.values()]
    return sum(section.beats * BEAT for section in set.intersection(*used))


def _require_replaceable(path: Path) -> None:
    """EdgeMoEError unless there is nothing at ``path``, an empty folder, or a bundle."""
    if kind(path) and not kind(path / MANIFEST_FILE) and (kind(path) != "folder" or any(path.iterdir())):
        raise EdgeMoEError(f"'{path}' exists and is not a bundle: choose another name or remove it.")
