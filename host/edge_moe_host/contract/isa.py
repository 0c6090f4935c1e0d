# SPDX-License-Identifier: Apache-2.0
"""Instructions: fields, words and checksum, all declared in one table. SPEC.md, section 8.

An instruction is 16 little-endian words of 32 bits, one memory beat. Word 15 is a checksum of the
others. The C++ header is generated from :func:`fields`, so no bit is declared twice.
:mod:`edge_moe_host.contract.opcodes` declares what each opcode reads and allows.
"""

import dataclasses
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

ISA_VERSION = 2
WORDS = 16  # 32-bit words of an instruction and of an expert's entry
RECORD_BYTES = 4 * WORDS
CHECKSUM_WORD = WORDS - 1
CHECKSUM_SEED = 0x45444D45
CHECKSUM_ROTATE = 5  # bits by which the running checksum is rotated left before each word


class Opcode(enum.IntEnum):
    """What an instruction does. No opcode is 0, so that cleared memory is not a program."""

    END = 1  # the task is done
    LOAD = 2  # weight image -> int16 rows
    PATCHES = 3  # image -> int8 rows, one per patch: pixel - 128
    LINEAR = 4  # int8 rows -> rows, as the epilogue says
    LAYERNORM = 5  # int16 rows -> int8 rows
    ATTENTION = 6  # int8 rows q, k, v -> int8 rows
    GATE = 7  # int8 rows -> routing rows
    EXPERTS = 8  # int8 rows, routing rows -> added to int16 rows
    CONV3X3 = 9  # int8 rows -> int8 rows
    UPSAMPLE2X = 10  # int8 rows -> int8 rows
    STORE = 11  # int16 rows -> output buffer


class Epilogue(enum.IntEnum):
    """What LINEAR does with its accumulators."""

    REQUANTISE = 0  # int8 in [-127, 127]
    GELU = 1  # int16, GELU, int8
    RESIDUAL = 2  # int16, added to the destination
    INT16 = 3


def _bits(word: int, low: int, width: int, doc: str, signed: bool = False) -> Any:
    return dataclasses.field(
        default=0, metadata={"word": word, "low": low, "width": width, "signed": signed, "doc": doc}
    )


@dataclass(frozen=True)
class Instruction:
    """One instruction: THE table of its fields. Addresses are bytes in the scratch memory."""

    opcode: int = _bits(0, 0, 8, "Opcode")
    epilogue: int = _bits(0, 8, 4, "Epilogue of LINEAR")
    weight_bits: int = _bits(0, 12, 4, "bit planes of a weight tile, 2 to 8")
    shift: int = _bits(0, 16, 6, "shift; LAYERNORM: of the result; ATTENTION: of the logits")
    shift2: int = _bits(0, 22, 6, "shift; LINEAR: after GELU; ATTENTION: of the result")
    top_k: int = _bits(0, 28, 4, "experts per token, 1 to 8")
    rows: int = _bits(1, 0, 16, "rows to compute: tokens, pixels of a map, patches")
    row_start: int = _bits(1, 16, 16, "ATTENTION: first query; CONV3X3: first pixel")
    in_channels: int = _bits(2, 0, 16, "channels of a source row")
    out_channels: int = _bits(2, 16, 16, "channels of a destination row")
    hidden_channels: int = _bits(3, 0, 16, "EXPERTS: channels between the two linears")
    experts: int = _bits(3, 16, 16, "number of experts")
    src: int = _bits(4, 0, 32, "source rows; ATTENTION: row 0 of qkv; CONV3X3, UPSAMPLE2X: the whole map")
    dst: int = _bits(5, 0, 32, "first destination row")
    routing: int = _bits(6, 0, 32, "EXPERTS: routing rows")
    hidden: int = _bits(7, 0, 32, "EXPERTS: workspace of rows x hidden_channels bytes")
    weight_offset: int = _bits(9, 0, 32, "first beat of the weight block; EXPERTS: of the table")
    weight_beats: int = _bits(10, 0, 32, "beats of the weight block; EXPERTS: of the table")
    height: int = _bits(11, 0, 16, "height of the source map; PATCHES: of the image")
    width: int = _bits(11, 16, 16, "width of the source map; PATCHES: of the image")
    multiplier: int = _bits(12, 0, 16, "multiplier; LINEAR: after GELU; GATE: of the logits")
    zero_point: int = _bits(12, 16, 8, "zero point of GELU's result", signed=True)
    pad: int = _bits(12, 24, 8, "CONV3X3: value outside the map", signed=True)
    keys: int = _bits(13, 0, 16, "ATTENTION: rows of qkv")
    heads: int = _bits(13, 16, 8, "ATTENTION: heads")
    patch: int = _bits(13, 24, 8, "PATCHES: side of a patch in pixels")
    epsilon: int = _bits(14, 0, 32, "LAYERNORM: added to D**2 times the variance")


@dataclass(frozen=True)
class ExpertEntry:
    """One expert in the table that EXPERTS points to. Its block holds the first linear, then the second."""

    weight_offset: int = _bits(0, 0, 32, "first beat of the expert's block")
    weight_beats: int = _bits(1, 0, 32, "beats of the expert's block")
    bits1: int = _bits(2, 0, 4, "bit planes of the first linear")
    bits2: int = _bits(2, 4, 4, "bit planes of the second linear")
    shift1: int = _bits(2, 8, 6, "shift of the first linear's requantisation")
    shift2: int = _bits(2, 14, 6, "shift of the second linear's requantisation")
    gelu_shift: int = _bits(2, 20, 6, "shift of the requantisation after GELU")
    gelu_multiplier: int = _bits(3, 0, 16, "multiplier of the requantisation after GELU")
    zero_point: int = _bits(3, 16, 8, "zero point of GELU's result", signed=True)


@dataclass(frozen=True)
class Field:
    """Bits ``low`` to ``low + width - 1`` of word ``word``; two's complement if ``signed``."""

    name: str
    word: int
    low: int
    width: int
    signed: bool
    doc: str

    @property
    def minimum(self) -> int:
        """Smallest value that the field holds."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """Largest value that the field holds."""
        return (1 << (self.width - int(self.signed))) - 1


Record = TypeVar("Record", Instruction, ExpertEntry)


_FIELDS: dict[type, tuple[Field, ...]] = {
    record: tuple(Field(name=spec.name, **spec.metadata) for spec in dataclasses.fields(record))
    for record in (Instruction, ExpertEntry)
}


def fields(record: type) -> tuple[Field, ...]:
    """The fields of a record's words, in the order of the table."""
    return _FIELDS[record]


def checksum(words: Sequence[int]) -> int:
    """Checksum of a record's first 15 words: for each, rotate left by 5, then exclusive-or with the word."""
    value = CHECKSUM_SEED
    for word in words[:CHECKSUM_WORD]:
        value = ((value << CHECKSUM_ROTATE | value >> (32 - CHECKSUM_ROTATE)) & 0xFFFFFFFF) ^ word
    return value
