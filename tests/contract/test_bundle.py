# SPDX-License-Identifier: Apache-2.0
"""Reading bundles: what is refused, and that no damaged byte is accepted."""

import ast
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_moe_host
from edge_moe.testing.damage import read_manifest, refuse_bundle, relist, reseal
from edge_moe_host.contract import encoding, manifest, opcodes
from edge_moe_host.contract.bundle import Bundle, load_bundle, used_sections
from edge_moe_host.contract.isa import ExpertEntry, Instruction, Opcode
from edge_moe_host.errors import BundleError, EdgeMoEError
from edge_moe_host.golden.interpreter import run_program

FILES = ("manifest.json", "weights.bin", "depth.program.bin", "semseg.program.bin")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    """A copy that tests may damage."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


# What a good bundle gives


def test_a_bundle_is_read(original: Path) -> None:
    bundle = load_bundle(original)
    assert set(bundle.tasks) == {"semseg", "depth"}
    assert not bundle.weights.flags.writeable
    entry = bundle.task("semseg").entry
    assert (entry.output.height, entry.output.width, entry.output.channels) == (8, 16, 5)
    assert (entry.output.kind, entry.output.factor, entry.output.row_bytes) == ("classes", 1, 16)
    assert entry.image == [8, 16, 3]
    assert entry.output.scale == 0.001
    assert entry.scales == {"residual": 0.001}
    assert entry.expert_ids == {"1": [0, 1, 2, 3]}
    with pytest.raises(BundleError, match="task 'edge' is not in"):
        bundle.task("edge")


def test_every_byte_of_the_weights_is_used(original: Path) -> None:
    bundle = load_bundle(original)
    used = {s for task in bundle.tasks.values() for s in used_sections(bundle, task)}
    assert sum(section.beats for section in used) * 64 == len(bundle.weights)
    assert used == set(bundle.manifest.sections)


# Damage


@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_are_refused(name: str, bundle: Path) -> None:
    content = np.frombuffer((bundle / name).read_bytes(), np.uint8)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    refused = 0
    for _ in range(120):
        damaged = content.copy()
        for place in rng.integers(len(content), size=int(rng.integers(1, 4))):
            damaged[place] ^= np.uint8(rng.integers(1, 256))
        if (damaged == content).all():
            continue
        (bundle / name).write_bytes(damaged.tobytes())
        refuse_bundle(bundle)
        refused += 1
    assert refused >= 115


@pytest.mark.parametrize("name", FILES)
def test_truncated_and_longer_files_are_refused(name: str, bundle: Path) -> None:
    content = (bundle / name).read_bytes()
    sizes = np.unique(np.linspace(0, len(content) - 1, 40).astype(int)).tolist()
    for size in sizes:
        (bundle / name).write_bytes(content[:size])
        refuse_bundle(bundle, name.replace(".", r"\."))
    for more in (b"\0", b"\n", content):
        (bundle / name).write_bytes(content + more)
        refuse_bundle(bundle)
    (bundle / name).unlink()
    refuse_bundle(bundle, "cannot read .*: No such file|is no bundle, as it has no manifest.json")
    assert len(sizes) == 40


def test_no_folder_no_bundle(tmp_path: Path, bundle: Path) -> None:
    refuse_bundle(tmp_path / "none", "is not a folder")
    refuse_bundle(tmp_path, "is no bundle, as it has no manifest.json: compile writes one")
    refuse_bundle(bundle / "manifest.json", "is not a folder")


def test_weights_that_no_section_lists_are_refused(bundle: Path) -> None:
    with (bundle / "weights.bin").open("ab") as file:
        file.write(bytes(128))
    relist(bundle)
    refuse_bundle(bundle, "do not cover weights.bin")


def test_programs_of_another_task_are_refused(bundle: Path) -> None:
    depth, semseg = (bundle / f"{task}.program.bin" for task in ("depth", "semseg"))
    content = depth.read_bytes()
    depth.write_bytes(semseg.read_bytes())
    semseg.write_bytes(content)
    refuse_bundle(bundle, "does not match the manifest")
    relist(bundle)
    refuse_bundle(bundle, "does not fit (depth|semseg).program.bin")


# A manifest that is sealed, and wrong


def edit(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


def delete(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return change


def rehash(part: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data[part]["config"].update(values)
        data[part]["hash"] = manifest.config_hash(data[part]["config"])

    return change


def no_tasks(data: dict[str, Any]) -> None:
    data["tasks"] = {}


def other_name(data: dict[str, Any]) -> None:
    data["tasks"]["../x"] = data["tasks"].pop("depth")


def one_task(data: dict[str, Any]) -> None:
    del data["tasks"]["depth"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("format", value="zip"), "is not the manifest of an edge-moe bundle"),
        (edit("format_version", value=3), "has format_version 3, which is newer than 2: update"),
        (edit("format_version", value=0), "has format_version 0, where 2 is needed: compile it again"),
        (edit("format_version", value="1"), "compile it again"),
        (edit("isa_version", value=99), "has isa_version 99, which is newer"),
        (delete("sections"), "key 'sections' is missing"),
        (edit("more", value=1), "manifest.json': unknown key 'more'"),
        (edit("model", "hash", value="0" * 16), "the model configuration .* does not match its hash"),
        (edit("model", "config", "depth", value=3), "the model configuration .* does not match its hash"),
        (edit("accelerator", "config", "clock_mhz", value=1), "the accelerator configuration"),
        (rehash("accelerator", scratch_bytes=2**40), "accelerator.scratch_bytes = 1099511627776"),
        (rehash("accelerator", max_heads="2"), "accelerator.max_heads = 2"),
        (rehash("accelerator", max_tokens=8), "rows = 9 is not in .*, as the accelerator's max_tokens = 8"),
        (rehash("accelerator", max_instructions=10), "more than the accelerator's max_instructions = 10"),
        (rehash("accelerator", scratch_bytes=4096), "of a scratch memory of 4096 bytes"),
        (edit("weights", "bytes", value=64), "the manifest says 64"),
        (edit("weights", "file", value="other.bin"), "names 'other.bin' where 'weights.bin' belongs"),
        (edit("weights", "crc32", value=1), "weights.bin' is damaged"),
        (edit("sections", 0, "crc32", value=1), "section 'position' .* does not match weights.bin"),
        (edit("sections", 1, "offset", value=0), "does not follow the one before it"),
        (edit("sections", 0, "kind", value="tensor"), "unknown kind 'tensor'"),
        (edit("sections", 0, "kind", value="linear"), "where no rows block of "),
        (edit("sections", 0, "beats", value=-1), "sections.0..beats = -1 is not allowed: it must not"),
        (edit("sections", 0, "beats", value=1.5), "beats = 1.5 has the wrong type: it must be int"),
        (edit("sections", 0, "beats", value=True), "beats = True has the wrong type"),
        (no_tasks, "lists no task"),
        (one_task, "which no task uses"),
        (other_name, "lists a task of the name '../x'"),
        (edit("tasks", "depth", "scratch_bytes", value=0), "the manifest says 0"),
        (edit("tasks", "depth", "image", value=[8, 8, 3]), "tasks.depth.image .* does not fit"),
        (edit("tasks", "depth", "output", "kind", value="map"), "tasks.depth.output.kind"),
        (edit("tasks", "depth", "output", "factor", value=0), "tasks.depth.output.height"),
        (edit("tasks", "depth", "output", "channels", value=2), "tasks.depth.output.channels"),
        (edit("tasks", "depth", "output", "row_bytes", value=2), "tasks.depth.output.row_bytes"),
        (edit("tasks", "depth", "output", "scale", value=0.0), "tasks.depth.output.scale"),
        (edit("tasks", "depth", "classes", value=[{"name": "a", "colour": [0, 0, 256]}]), "classes"),
        (edit("tasks", "depth", "expert_ids", value={"1": [0]}), "tasks.depth.expert_ids"),
        (edit("tasks", "depth", "program", "file", value="../x.bin"), "where 'depth.program.bin' belongs"),
        (edit("tasks", "depth", "tensors", 0, "kind", value="float"), "is described wrongly"),
        (edit("tasks", "depth", "tensors", 0, "instruction", value=999), "is described wrongly"),
        (edit("tasks", "depth", "tensors", 0, "rows", value=10**9), "does not fit"),
        (edit("tasks", "depth", "tensors", 0, "kind", value="score"), "does not fit"),
        (edit("tasks", "depth", "tensors", 0, "kind", value="logits"), "does not fit"),
    ],
)  # fmt: skip
def test_sealed_manifests_that_are_wrong(
    change: Callable[[dict[str, Any]], None], message: str, bundle: Path
) -> None:
    data = read_manifest(bundle)
    change(data)
    reseal(bundle, data)
    refuse_bundle(bundle, message)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "1", '"x"', "[" * 100_000, '{"format": NaN}'])
def test_manifests_that_are_no_manifest(text: str, bundle: Path) -> None:
    (bundle / "manifest.json").write_text(text)
    refuse_bundle(bundle, "manifest.json")


def test_the_form_of_the_manifest_is_the_only_one(bundle: Path) -> None:
    data = read_manifest(bundle)
    for text in (json.dumps(data), json.dumps(data, indent=1), json.dumps(data, indent=1, sort_keys=True)):
        (bundle / "manifest.json").write_text(text)
        refuse_bundle(bundle, "its checksum does not match")
    (bundle / "manifest.json").write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    load_bundle(bundle)


def test_expert_entries_that_do_not_fit(bundle: Path) -> None:
    path = bundle / "weights.bin"
    content = path.read_bytes()
    table = next(s for s in load_bundle(bundle).manifest.sections if s.kind == "table")
    at = 64 * table.offset
    entry = encoding.decode(ExpertEntry, content[at : at + 64], "it")
    for name, value, message in (
        ("bits1", 9, r"bits1 = 9 is not in \[2, 8\]"),
        ("bits2", 1, r"bits2 = 1 is not in \[2, 8\]"),
        ("bits1", 7, "weight_beats = .* where its shape needs"),
        ("shift1", 0, "shift1 = 0"),
        ("gelu_shift", 48, "gelu_shift = 48"),
        ("gelu_multiplier", 32768, r"gelu_multiplier = 32768 is not in \[0, 32767\]"),
        ("weight_offset", entry.weight_offset + 2, "where no expert block of "),
        (
            "weight_offset",
            entry.weight_offset + 1,
            r"weight_offset = \d+ must be even: blocks begin",
        ),
    ):
        bad = encoding.encode(dataclasses.replace(entry, **{name: value}))
        path.write_bytes(content[:at] + bad + content[at + 64 :])
        relist(bundle)
        refuse_bundle(bundle, message)


def change_program(bundle: Path, opcode: Opcode, number: int, **values: int) -> None:
    """Change fields of the ``number``-th instruction of an opcode, and seal the bundle again."""
    path = bundle / "depth.program.bin"
    content = path.read_bytes()
    places = [at for at in range(0, len(content), 64) if content[at] == opcode]
    at = places[number]
    old = encoding.decode(Instruction, content[at : at + 64], "it")
    path.write_bytes(content[:at] + encoding.encode(dataclasses.replace(old, **values)) + content[at + 64 :])
    relist(bundle)


@pytest.mark.parametrize(
    ("opcode", "values", "message"),
    [
        (Opcode.LINEAR, {"rows": 0}, r"\(LINEAR\) cannot run: rows = 0 is not in"),
        (Opcode.LINEAR, {"shift": 48}, "shift = 48 is not in"),
        (Opcode.LINEAR, {"weight_bits": 1}, "weight_bits = 1"),
        (Opcode.LINEAR, {"src": 32}, "src = 32 is not a multiple of 64"),
        (Opcode.LINEAR, {"src": 2**31}, "src ends at byte .* of a scratch memory of"),
        (Opcode.LINEAR, {"weight_beats": 2}, "weight_beats = 2 where its shape needs"),
        (Opcode.LINEAR, {"weight_offset": 1}, "weight_offset = 1 must be even: blocks begin"),
        (Opcode.LINEAR, {"weight_offset": 2**20}, "points to beat 1048576, where no linear block of "),
        (Opcode.LAYERNORM, {"epsilon": 0}, "epsilon = 0"),
        (
            Opcode.LAYERNORM,
            {"dst": 2**18},
            r"src at bytes \d+ to \d+ reads scratch bytes that nothing",
        ),
        (Opcode.ATTENTION, {"heads": 3}, "out_channels = 64 is not a multiple of 32 for each of heads = 3"),
        (Opcode.ATTENTION, {"row_start": 1}, "row_start = 1 and rows = 9 reach beyond keys = 9"),
        (
            Opcode.ATTENTION,
            {"in_channels": 64},
            "in_channels = 64, but q, k and v of out_channels = 64 have 192",
        ),
        (Opcode.GATE, {"top_k": 0}, "top_k = 0"),
        (Opcode.GATE, {"top_k": 9}, "top_k = 9"),
        (
            Opcode.GATE,
            {"top_k": 1},
            "top_k = 2, but routing was made by a GATE of experts = 4 and top_k = 1",
        ),
        (Opcode.EXPERTS, {"routing": 2**18}, r"routing at bytes \d+ to \d+ reads scratch bytes that nothing"),
        (Opcode.CONV3X3, {"rows": 3}, "row_start = 0 and rows = 3 are not whole lines of a map 4 wide"),
        (
            Opcode.CONV3X3,
            {"row_start": 4},
            "row_start = 4 and rows = 8 reach beyond the 8 pixels of a map",
        ),
        (Opcode.UPSAMPLE2X, {"rows": 8}, "rows = 8, but twice the size of a map of 2x4 has 32 pixels"),
        (Opcode.PATCHES, {"patch": 3}, "an image of 8x16 has no whole patches of 3x3"),
        (Opcode.STORE, {"rows": 1}, "tasks.depth.output.width"),
        (
            Opcode.STORE,
            {"in_channels": 2},
            "src is rows of 2 x int16, not those of instruction 23, 1 x",
        ),
        (
            Opcode.LINEAR,
            {"in_channels": 40},
            "src is rows of 40 x int8, not those of instruction 0, 48 x",
        ),
    ],
)
def test_sealed_instructions_that_are_wrong(
    opcode: Opcode, values: dict[str, int], message: str, bundle: Path
) -> None:
    change_program(bundle, opcode, 0, **values)
    refuse_bundle(bundle, message)


def test_an_instruction_that_overwrites_what_it_reads(bundle: Path) -> None:
    program = load_bundle(bundle).task("depth").instructions
    norm = next(i for i in program if i.opcode == Opcode.LAYERNORM)
    change_program(bundle, Opcode.LAYERNORM, 0, dst=norm.src)
    refuse_bundle(bundle, r"dst at bytes \d+ to \d+ overlaps src at bytes \d+ to \d+")
    moe = next(i for i in program if i.opcode == Opcode.EXPERTS)
    change_program(bundle, Opcode.LAYERNORM, 0, dst=norm.dst)
    change_program(bundle, Opcode.EXPERTS, 0, hidden=moe.dst)
    refuse_bundle(bundle, r"hidden at bytes \d+ to \d+ overlaps dst at bytes")


def test_regions_cover_pairs_of_rows() -> None:
    i = Instruction(opcode=Opcode.LAYERNORM, rows=9, in_channels=40, src=128, dst=4096)
    assert [(r.field, r.address, r.size, r.reads, r.writes) for r in opcodes.regions(i)] == [
        ("src", 128, 9 * 128, True, False),
        ("dst", 4096, 10 * 64, False, True),
    ]


# What runs on the board


def test_the_host_package_needs_neither_torch_nor_edge_moe_nor_python_3_11() -> None:
    folder = Path(edge_moe_host.__file__).parent
    for path in folder.rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 10))
    code = (
        "import sys\n"
        "import edge_moe_host, edge_moe_host.contract.bundle, edge_moe_host.golden.interpreter\n"
        "bad = {name.split('.')[0] for name in sys.modules} & {'torch', 'edge_moe', 'onnx', 'tomllib'}\n"
        "assert not bad, bad\n"
    )
    environment = os.environ | {"PYTHONPATH": str(folder.parent)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


def test_runs_of_a_loaded_bundle_are_independent(original: Path) -> None:
    first, second = load_bundle(original), load_bundle(original)
    images = np.random.default_rng(0).integers(0, 256, (1, 8, 16, 3), dtype=np.uint8)
    expected = run_program(first, "depth", images)
    run_program(first, "semseg", images)
    np.testing.assert_array_equal(run_program(first, "depth", images), expected)
    np.testing.assert_array_equal(run_program(second, "depth", images), expected)
    assert isinstance(first, Bundle)
    with pytest.raises(EdgeMoEError):
        run_program(first, "edge", images)
