# SPDX-License-Identifier: Apache-2.0
"""Instruction words: every field, every refusal."""

import dataclasses

import numpy as np
import pytest

from edge_moe_host.contract import isa
from edge_moe_host.contract.encoding import decode, encode
from edge_moe_host.contract.isa import Epilogue, ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.opcodes import OPCODES, operands
from edge_moe_host.errors import BundleError

RECORDS = (Instruction, ExpertEntry)


def random_record(rng: np.random.Generator, opcode: Opcode) -> Instruction:
    """Random values, the extremes among them, in every field that the opcode reads."""
    epilogue = int(rng.integers(len(Epilogue))) if opcode is Opcode.LINEAR else 0
    values = {"epilogue": epilogue}
    for field in isa.fields(Instruction):
        if field.name in set(operands(opcode, epilogue)) - {"epilogue"}:
            low, high = field.minimum, field.maximum
            values[field.name] = int(rng.choice([low, high, rng.integers(low, high, endpoint=True)]))
    return Instruction(opcode=opcode, **values)


@pytest.mark.parametrize("opcode", list(Opcode))
def test_instructions_survive_encoding(opcode: Opcode) -> None:
    rng = np.random.default_rng(int(opcode))
    seen = set()
    for _ in range(40):
        record = random_record(rng, opcode)
        data = encode(record)
        assert len(data) == 64
        assert decode(Instruction, data, "it") == record
        seen.add(data)
    assert len(seen) == 1 if opcode is Opcode.END else len(seen) >= 20


def test_expert_entries_survive_encoding() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        values = {
            field.name: int(rng.choice([field.minimum, field.maximum, 3]))
            for field in isa.fields(ExpertEntry)
        }
        assert decode(ExpertEntry, encode(ExpertEntry(**values)), "it") == ExpertEntry(**values)


@pytest.mark.parametrize("record", RECORDS)
def test_fields_do_not_overlap_and_leave_the_checksum_alone(record: type) -> None:
    used = set()
    for field in isa.fields(record):
        bits = {(field.word, bit) for bit in range(field.low, field.low + field.width)}
        assert max(bit for _, bit in bits) < 32, field.name
        assert 0 <= field.word < isa.CHECKSUM_WORD, field.name
        assert not bits & used, field.name
        assert field.doc
        used |= bits
    assert isa.CHECKSUM_WORD == 15


def test_every_opcode_has_operands_that_are_fields() -> None:
    names = {field.name for field in isa.fields(Instruction)}
    assert set(OPCODES) == set(Opcode)
    assert all(set(operands(opcode)) <= names for opcode in Opcode)
    assert names == {"opcode"}.union(*map(operands, Opcode))


@pytest.mark.parametrize("record", RECORDS)
def test_a_value_beyond_its_field_is_refused(record: type) -> None:
    checked = 0
    for field in isa.fields(record):
        for value in (field.minimum - 1, field.maximum + 1):
            bad = dataclasses.replace(record(), **{field.name: value})
            with pytest.raises(BundleError, match=rf"'{field.name}' = {value} of .* is not in \["):
                encode(bad)
            checked += 1
    assert checked == 2 * len(isa.fields(record))


def test_fields_that_an_opcode_does_not_read_must_be_zero() -> None:
    with pytest.raises(BundleError, match=r"an instruction \(STORE\) sets 'heads', which it does not read"):
        encode(Instruction(opcode=Opcode.STORE, heads=1))
    with pytest.raises(BundleError, match="sets 'zero_point'"):
        encode(Instruction(opcode=Opcode.LINEAR, epilogue=Epilogue.INT16, zero_point=-1))
    encode(Instruction(opcode=Opcode.LINEAR, epilogue=Epilogue.GELU, zero_point=-1))


def with_checksum(words: list[int]) -> bytes:
    words[15] = isa.checksum(words)
    return np.array(words, dtype="<u4").tobytes()


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        (0, 0, "unknown opcode 0"),
        (0, 12, "unknown opcode 12"),
        (0, int(Opcode.LINEAR) | 4 << 8, "unknown epilogue 4"),
        (0, int(Opcode.END) | 1 << 12, "sets 'weight_bits'"),
    ],
)
def test_words_that_mean_nothing_are_refused(word: int, value: int, message: str) -> None:
    words = [0] * 16
    words[word] = value
    with pytest.raises(BundleError, match=message):
        decode(Instruction, with_checksum(words), "instruction 3 of it")


def test_bits_outside_every_field_are_refused() -> None:
    words = np.frombuffer(encode(ExpertEntry()), "<u4").tolist()
    words[14] = 1
    with pytest.raises(BundleError, match="sets bits that mean nothing in version 2"):
        decode(ExpertEntry, with_checksum(words), "expert 0")


def test_every_flipped_bit_is_noticed() -> None:
    rng = np.random.default_rng(1)
    data = np.frombuffer(encode(random_record(rng, Opcode.LINEAR)), np.uint8)
    for bit in range(512):
        flipped = data.copy()
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BundleError, match="checksum"):
            decode(Instruction, flipped.tobytes(), "it")
    with pytest.raises(BundleError, match="has 60 bytes where 64 were expected"):
        decode(Instruction, data[:60].tobytes(), "it")


def test_encoding_of_version_2() -> None:
    """Two records word by word: whoever moves a field must raise ISA_VERSION and change this test."""
    assert isa.ISA_VERSION == 2
    linear = Instruction(
        opcode=Opcode.LINEAR, epilogue=Epilogue.GELU, weight_bits=8, shift=19, shift2=20, rows=129,
        in_channels=192, out_channels=768, src=0x1000, dst=0x8000, weight_offset=6, weight_beats=2340,
        multiplier=30000, zero_point=-120,
    )  # fmt: skip
    words = np.frombuffer(encode(linear), "<u4").tolist()
    assert words[:15] == [
        4 | 1 << 8 | 8 << 12 | 19 << 16 | 20 << 22, 129, 192 | 768 << 16, 0, 0x1000, 0x8000, 0, 0, 0, 6,
        2340, 0, 30000 | (256 - 120) << 16, 0, 0,
    ]  # fmt: skip
    value = 0x45444D45
    for word in words[:15]:
        value = (value << 5 & 0xFFFFFFFF | value >> 27) ^ word
    assert words[15] == value
    entry = ExpertEntry(
        weight_offset=2**31, weight_beats=312, bits1=4, bits2=8, shift1=20, shift2=21, gelu_shift=19,
        gelu_multiplier=32767, zero_point=-128,
    )  # fmt: skip
    assert np.frombuffer(encode(entry), "<u4").tolist()[:5] == [
        2**31, 312, 4 | 8 << 4 | 20 << 8 | 21 << 14 | 19 << 20, 32767 | 128 << 16, 0,
    ]  # fmt: skip
