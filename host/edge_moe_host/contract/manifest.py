# SPDX-License-Identifier: Apache-2.0
"""The manifest of a bundle: text form, checksum, and entries as typed records. SPEC.md, section 11."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_moe_host.config import from_dict
from edge_moe_host.contract.isa import ISA_VERSION
from edge_moe_host.errors import BundleError

FORMAT = "edge-moe bundle"
FORMAT_VERSION = 2
CHECKSUM = "checksum"
TENSOR_KINDS = ("int8", "int16", "expert", "score", "logits")
OUTPUT_KINDS = ("classes", "binary", "vector", "scalar")


@dataclass(frozen=True)
class Configuration:
    """A configuration as plain data, and its hash."""

    config: dict
    hash: str


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle's folder."""

    file: str
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Section:
    """One block of the weight image; offset and length in beats of 64 bytes."""

    name: str
    kind: str
    offset: int
    beats: int
    crc32: int


@dataclass(frozen=True)
class Tensor:
    """Where a named intermediate of golden's trace is stored after ``instruction``.

    Channels come in groups of ``group``, each stored in ``stored`` channels. Logits are not kept in
    the scratch memory: their address is 0.
    """

    name: str
    instruction: int
    kind: str
    address: int
    rows: int
    channels: int
    group: int
    stored: int


@dataclass(frozen=True)
class Output:
    """What STORE leaves in the output buffer, and how it becomes the task's map.

    int16 [height * width, channels], each row in ``row_bytes``. They are enlarged by ``factor``; the result
    is the largest channel (``kind`` classes) or the sums, of which one unit means ``scale``.
    """

    kind: str
    height: int
    width: int
    channels: int
    row_bytes: int
    factor: int
    scale: float


@dataclass(frozen=True)
class ClassStyle:
    """Name and RGB colour of a class."""

    name: str
    colour: list[int]


@dataclass(frozen=True)
class TaskEntry:
    """One task: its program and everything known about it."""

    program: FileEntry
    graph: str  # hash of the path.onnx that it was compiled from: file_hash
    image: list[int]  # height, width, 3
    output: Output
    classes: list[ClassStyle]  # empty where the bundle's maker did not know them
    scratch_bytes: int  # peak
    scales: dict[str, float]
    expert_ids: dict[str, list[int]]  # block -> indices in the model
    tensors: list[Tensor]


@dataclass(frozen=True)
class Manifest:
    """Everything that a bundle says about itself."""

    format: str
    format_version: int
    isa_version: int
    model: Configuration
    accelerator: Configuration
    weights: FileEntry
    sections: list[Section]
    tasks: dict[str, TaskEntry]


def config_hash(config: Mapping[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical JSON form."""
    return file_hash(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())


def file_hash(content: bytes) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file's bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def _dump(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n"


def seal(data: Mapping[str, Any]) -> str:
    """Text of a manifest in the only accepted form, including the checksum of the rest."""
    plain = {key: value for key, value in data.items() if key != CHECKSUM}
    return _dump({**plain, CHECKSUM: zlib.crc32(_dump(plain).encode())})


def unseal(text: str, where: str) -> dict[str, Any]:
    """Plain data of a manifest's text. BundleError for another version, or a changed byte."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise BundleError(f"{where} is damaged: it is not JSON.") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f"{where} is not the manifest of an {FORMAT}.")
    for key, known in (("format_version", FORMAT_VERSION), ("isa_version", ISA_VERSION)):
        version = data.get(key)
        if isinstance(version, int) and version > known:
            raise BundleError(
                f"{where} has {key} {version}, which is newer than {known}: update this program."
            )
        if version != known:
            raise BundleError(f"{where} has {key} {version}, where {known} is needed: compile it again.")
    try:
        sealed = seal(data) == text
    except (ValueError, RecursionError):
        sealed = False
    if not sealed:
        raise BundleError(f"{where} is damaged: its checksum does not match.")
    return {key: value for key, value in data.items() if key != CHECKSUM}


def parse(data: Mapping[str, Any], where: str) -> Manifest:
    """Typed form of a manifest's plain data. BundleError names an entry of another type."""
    result: Manifest = from_dict(Manifest, data, place=where, error=BundleError, natural=True)
    return result
