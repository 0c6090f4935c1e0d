# SPDX-License-Identifier: Apache-2.0
"""Damage to bundles: changed values in manifests, programs and records, with correct checksums."""

import dataclasses
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe_host.contract import isa, manifest
from edge_moe_host.contract.bundle import load_bundle
from edge_moe_host.contract.isa import ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.opcodes import operands
from edge_moe_host.errors import BundleError

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    2,
    63,
    64,
    2**31,
    2**64,
    10**30,
    0.5,
    -1e308,
    "",
    "x",
    "1",
    [],
    {},
    [0],
    {"a": 1},
)


def refuse_bundle(path: Path, message: str = ".") -> str:
    """Assert that the bundle is refused with one sentence, and return it."""
    try:
        load_bundle(path)
    except BundleError as error:
        text = str(error)
    else:
        raise AssertionError(f"{path} was not refused")
    assert re.search(message, text), text
    assert text.endswith(".")
    assert "\n" not in text
    assert len(text) < 400
    return text


def read_manifest(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    return data


def reseal(path: Path, data: dict[str, Any]) -> None:
    """Write a manifest with a correct checksum."""
    (path / "manifest.json").write_text(manifest.seal(data))


def relist(path: Path) -> None:
    """Make the manifest fit the other files: sizes and checksums of files and sections."""
    data = read_manifest(path)
    for entry in (data["weights"], *(task["program"] for task in data["tasks"].values())):
        content = (path / entry["file"]).read_bytes()
        entry.update(bytes=len(content), crc32=zlib.crc32(content))
    weights = (path / "weights.bin").read_bytes()
    for section in data["sections"]:
        start = 64 * section["offset"]
        section["crc32"] = zlib.crc32(weights[start : start + 64 * section["beats"]])
    reseal(path, data)


def leaves(data: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Places of all values in nested dictionaries and lists, containers included."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place] + [leaf for key, value in items for leaf in leaves(value, (*place, key))]


def raw_words(record: Instruction | ExpertEntry) -> list[int]:
    """Words of a record with any values in its fields: each is cut to its bits, and the checksum is right."""
    words = [0] * isa.WORDS
    for field in isa.fields(type(record)):
        value = int(getattr(record, field.name))
        words[field.word] |= (value & ((1 << field.width) - 1)) << field.low
    words[isa.CHECKSUM_WORD] = isa.checksum(words)
    return words


def random_instruction(rng: np.random.Generator, instruction: Instruction) -> Instruction:
    """Another value in one of the fields that the opcode reads."""
    names = [*operands(Opcode(instruction.opcode)), "opcode"]
    name = rng.choice(names)
    field = next(f for f in isa.fields(Instruction) if f.name == name)
    old = getattr(instruction, field.name)
    value = rng.choice([old + 1, old - 1, old + 64, old - 64, 2 * old, 0, field.maximum,
                        rng.integers(field.minimum, field.maximum, endpoint=True)])  # fmt: skip
    value = int(np.clip(value, field.minimum, field.maximum))
    return dataclasses.replace(instruction, **{field.name: value})
