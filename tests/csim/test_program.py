# SPDX-License-Identifier: Apache-2.0
"""Programs that must not run: damaged, beyond limits, or with buffers that are too small. The accelerator
says why, stops, and writes nothing outside its output buffer."""

import dataclasses
import itertools
import random

import numpy as np
import pytest

from edge_moe.testing.bundles import compile_network, small_config
from edge_moe.testing.csim import csim
from edge_moe.testing.damage import raw_words
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.backends.csim_library import program_bytes
from edge_moe_host.contract import encoding, isa, opcodes, program
from edge_moe_host.contract.bundle import Bundle
from edge_moe_host.contract.isa import RECORD_BYTES, Epilogue, Instruction, Opcode
from edge_moe_host.contract.registers import Error, Status
from edge_moe_host.errors import BundleError

GUARD = 4096  # bytes on either side of the output
PATTERN = 0xC3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network whose program has every opcode and epilogue."""
    network = random_network(small_config())
    result, _ = compile_network(network, tmp_path_factory.mktemp("program"))
    kinds = {(i.opcode, i.epilogue) for i in result.task("semseg").instructions}
    assert {opcode for opcode, _ in kinds} == set(Opcode)
    assert {e for opcode, e in kinds if opcode == Opcode.LINEAR} == set(Epilogue)
    return result


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    picture: np.ndarray = random_images(small_config(), 1)[0]
    return picture


@dataclasses.dataclass
class Outcome:
    """Registers of a run, and whether the output was written."""

    status: int
    error: int
    position: int
    written: bool


def execute(bundle: Bundle, image: np.ndarray, data: bytes, **buffers: np.ndarray) -> Outcome:
    """Run a program between guards, which must stay as they were."""
    size = buffers.pop("output_bytes", bundle.task("semseg").entry.output.row_bytes * 128)
    whole = np.full(size + 2 * GUARD, PATTERN, np.uint8)
    weights = buffers.pop("weights", bundle.weights)
    registers = csim().execute(np.frombuffer(data, np.uint8), weights, image, whole[GUARD : GUARD + size])
    guards = np.concatenate([whole[:GUARD], whole[GUARD + size :]])
    assert (guards == PATTERN).all()
    written = not (whole == PATTERN).all()
    return Outcome(registers.status, registers.error, registers.position, written)


def assert_stopped(outcome: Outcome, error: Error, position: int) -> None:
    assert (outcome.status, outcome.error) == (Status.STOPPED, error), Error(outcome.error).name
    assert outcome.position == position


def original(bundle: Bundle) -> bytes:
    return program_bytes(bundle.task("semseg")).tobytes()


def find(bundle: Bundle, opcode: Opcode, epilogue: int = 0) -> tuple[int, Instruction]:
    """Index and instruction of the first of this kind."""
    instructions = bundle.task("semseg").instructions
    index = next(n for n, i in enumerate(instructions) if (i.opcode, i.epilogue) == (opcode, epilogue))
    return index, instructions[index]


def with_words(data: bytes, index: int, words: list[int]) -> bytes:
    record = np.array(words, "<u4").tobytes()
    return data[: index * RECORD_BYTES] + record + data[(index + 1) * RECORD_BYTES :]


def changed(bundle: Bundle, opcode: Opcode, epilogue: int, fields: dict[str, int]) -> tuple[bytes, int]:
    """The program with fields of one instruction changed, and its place."""
    index, instruction = find(bundle, opcode, epilogue)
    words = raw_words(dataclasses.replace(instruction, **fields))
    return with_words(original(bundle), index, words), index


def test_the_program_runs(bundle: Bundle, image: np.ndarray) -> None:
    outcome = execute(bundle, image, original(bundle))
    assert (outcome.status, outcome.error) == (Status.DONE, Error.NONE)
    assert outcome.position == len(bundle.task("semseg").instructions) - 1
    assert outcome.written


def test_every_flipped_bit_is_found(bundle: Bundle, image: np.ndarray) -> None:
    data, rng = original(bundle), random.Random(5)
    for index in range(len(data) // RECORD_BYTES):
        for _ in range(3):
            bit = rng.randrange(8 * RECORD_BYTES)
            damaged = bytearray(data)
            damaged[index * RECORD_BYTES + bit // 8] ^= 1 << bit % 8
            assert_stopped(execute(bundle, image, bytes(damaged)), Error.CHECKSUM, index)


BEYOND_LIMITS = [
    (Opcode.LOAD, 0, {"rows": 289}, Error.RANGE),
    (Opcode.LOAD, 0, {"out_channels": 257}, Error.RANGE),
    (Opcode.LOAD, 0, {"rows": 0}, Error.RANGE),
    (Opcode.PATCHES, 0, {"patch": 0}, Error.RANGE),
    (Opcode.PATCHES, 0, {"patch": 17}, Error.RANGE),
    (Opcode.PATCHES, 0, {"height": 513}, Error.RANGE),
    (Opcode.PATCHES, 0, {"width": 24}, Error.SHAPE),
    (Opcode.PATCHES, 0, {"patch": 3}, Error.SHAPE),
    (Opcode.PATCHES, 0, {"width": 64, "rows": 16}, Error.IMAGE),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"rows": 2049}, Error.RANGE),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"rows": 0xFFFF}, Error.RANGE),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"in_channels": 1025}, Error.RANGE),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"out_channels": 0}, Error.RANGE),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"weight_bits": 1}, Error.RANGE),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"weight_bits": 9}, Error.RANGE),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"shift": 0}, Error.RANGE),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"shift": 48}, Error.RANGE),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"epilogue": 4}, Error.UNKNOWN),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"multiplier": 1}, Error.UNKNOWN),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"src": 2**19}, Error.SCRATCH),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"dst": 2**19 - 64}, Error.SCRATCH),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"dst": 2**32 - 64}, Error.SCRATCH),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"src": 32}, Error.SCRATCH),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"weight_beats": 2}, Error.WEIGHTS),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"weight_offset": 2**31}, Error.WEIGHTS),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"weight_offset": 2**32 - 2}, Error.WEIGHTS),
    (Opcode.LINEAR, Epilogue.REQUANTISE, {"weight_offset": 1}, Error.WEIGHTS),
    (Opcode.LINEAR, Epilogue.GELU, {"shift2": 48}, Error.RANGE),
    (Opcode.LINEAR, Epilogue.GELU, {"multiplier": 32768}, Error.RANGE),
    (Opcode.LAYERNORM, 0, {"epsilon": 0}, Error.RANGE),
    (Opcode.LAYERNORM, 0, {"shift": 32}, Error.RANGE),
    (Opcode.LAYERNORM, 0, {"in_channels": 257}, Error.RANGE),
    (Opcode.ATTENTION, 0, {"heads": 0}, Error.RANGE),
    (Opcode.ATTENTION, 0, {"heads": 9}, Error.RANGE),
    (Opcode.ATTENTION, 0, {"keys": 289}, Error.RANGE),
    (Opcode.ATTENTION, 0, {"row_start": 1}, Error.SHAPE),
    (Opcode.ATTENTION, 0, {"heads": 3}, Error.SHAPE),
    (Opcode.ATTENTION, 0, {"in_channels": 96}, Error.SHAPE),
    (Opcode.GATE, 0, {"experts": 33}, Error.RANGE),
    (Opcode.GATE, 0, {"top_k": 5}, Error.RANGE),
    (Opcode.GATE, 0, {"experts": 1}, Error.SHAPE),
    (Opcode.EXPERTS, 0, {"hidden_channels": 1025}, Error.RANGE),
    (Opcode.EXPERTS, 0, {"top_k": 0}, Error.RANGE),
    (Opcode.EXPERTS, 0, {"out_channels": 64}, Error.SHAPE),
    (Opcode.EXPERTS, 0, {"hidden": 2**19}, Error.SCRATCH),
    (Opcode.EXPERTS, 0, {"experts": 6}, Error.WEIGHTS),
    (Opcode.EXPERTS, 0, {"hidden_channels": 64, "hidden": 2**18}, Error.ENTRY),
    (Opcode.EXPERTS, 0, {"weight_offset": 0}, Error.ENTRY),
    (Opcode.CONV3X3, 0, {"width": 0}, Error.RANGE),
    (Opcode.CONV3X3, 0, {"height": 0xFFFF}, Error.RANGE),
    (Opcode.CONV3X3, 0, {"height": 4096}, Error.SHAPE),
    (Opcode.CONV3X3, 0, {"row_start": 1}, Error.SHAPE),
    (Opcode.CONV3X3, 0, {"rows": 6}, Error.SHAPE),
    (Opcode.UPSAMPLE2X, 0, {"rows": 4097}, Error.RANGE),
    (Opcode.UPSAMPLE2X, 0, {"height": 3}, Error.SHAPE),
    (Opcode.STORE, 0, {"rows": 129}, Error.OUTPUT),
    (Opcode.STORE, 0, {"in_channels": 9}, Error.OUTPUT),
    (Opcode.STORE, 0, {"rows": 4097}, Error.RANGE),
    (Opcode.STORE, 0, {"dst": 64}, Error.UNKNOWN),
    (Opcode.END, 0, {"opcode": 0}, Error.UNKNOWN),
    (Opcode.END, 0, {"opcode": 12}, Error.UNKNOWN),
    (Opcode.END, 0, {"opcode": 255}, Error.UNKNOWN),
]


@pytest.mark.parametrize(("opcode", "epilogue", "fields", "error"), BEYOND_LIMITS)
def test_fields_beyond_limits(
    bundle: Bundle, image: np.ndarray, opcode: Opcode, epilogue: int, fields: dict[str, int], error: Error
) -> None:
    data, index = changed(bundle, opcode, epilogue, fields)
    outcome = execute(bundle, image, data)
    assert_stopped(outcome, error, index)
    stored = index > find(bundle, Opcode.STORE)[0]
    assert outcome.written == stored


@pytest.mark.parametrize(
    ("opcode", "first", "second"),
    [(Opcode.LAYERNORM, "src", "dst"), (Opcode.EXPERTS, "dst", "hidden"),
     (Opcode.EXPERTS, "dst", "routing"), (Opcode.EXPERTS, "src", "hidden")],
)  # fmt: skip
def test_rows_that_overlap(
    bundle: Bundle, image: np.ndarray, opcode: Opcode, first: str, second: str
) -> None:
    _, instruction = find(bundle, opcode)
    data, index = changed(bundle, opcode, 0, {second: getattr(instruction, first)})
    assert_stopped(execute(bundle, image, data), Error.OVERLAP, index)


@pytest.mark.parametrize(
    ("field", "value"), [("bits1", 9), ("bits2", 1), ("shift1", 0), ("shift2", 63), ("gelu_shift", 0),
                         ("gelu_multiplier", 40000), ("weight_offset", 2**31), ("weight_beats", 2)]
)  # fmt: skip
def test_entries_that_do_not_hold(bundle: Bundle, image: np.ndarray, field: str, value: int) -> None:
    """The third of four entries: the entries before it have been announced, those after it are not read."""
    index, instruction = find(bundle, Opcode.EXPERTS)
    entry = bundle.expert_table(instruction)[2]
    words = raw_words(dataclasses.replace(entry, **{field: value}))
    start = 64 * (instruction.weight_offset + 2)
    for data in (np.array(words, "<u4").tobytes(), bytes(64)):
        weights = bundle.weights.copy()
        weights[start : start + 64] = np.frombuffer(data, np.uint8)
        outcome = execute(bundle, image, original(bundle), weights=weights)
        assert_stopped(outcome, Error.ENTRY, index)


def test_a_program_needs_its_end(bundle: Bundle, image: np.ndarray) -> None:
    data = original(bundle)
    count = len(data) // RECORD_BYTES
    assert_stopped(execute(bundle, image, data[:-RECORD_BYTES]), Error.UNFINISHED, count - 1)
    load = find(bundle, Opcode.LOAD)[1]
    endless = with_words(data, 0, raw_words(load))[:RECORD_BYTES] * 600
    assert_stopped(execute(bundle, image, endless), Error.UNFINISHED, 512)


@pytest.mark.parametrize("opcode", [Opcode.PATCHES, Opcode.STORE])
def test_the_image_is_read_once_and_the_result_stored_once(
    bundle: Bundle, image: np.ndarray, opcode: Opcode
) -> None:
    data = original(bundle)
    index = find(bundle, opcode)[0]
    record = data[index * RECORD_BYTES : (index + 1) * RECORD_BYTES]
    without = data.replace(record, b"")
    assert_stopped(execute(bundle, image, without), Error.ORDER, len(without) // RECORD_BYTES - 1)
    twice = data.replace(record, 2 * record)
    assert_stopped(execute(bundle, image, twice), Error.ORDER, index + 1)


def test_buffers_that_are_too_small(bundle: Bundle, image: np.ndarray) -> None:
    data = original(bundle)
    store = find(bundle, Opcode.STORE)[0]
    size = bundle.task("semseg").entry.output.row_bytes * 128
    assert_stopped(execute(bundle, image, data, output_bytes=size - 1), Error.OUTPUT, store)
    assert_stopped(execute(bundle, image, data, output_bytes=0), Error.OUTPUT, store)
    patches = find(bundle, Opcode.PATCHES)[0]
    assert_stopped(execute(bundle, image[:-1], data), Error.IMAGE, patches)
    outcome = execute(bundle, image, data, weights=bundle.weights[: len(bundle.weights) // 2])
    assert (outcome.status, outcome.error) == (Status.STOPPED, Error.WEIGHTS)


def test_the_last_block_ends_with_the_weight_image(bundle: Bundle, image: np.ndarray) -> None:
    """One beat less, and the task that uses the last block stops there."""
    short = bundle.weights[:-64]
    stopped = set()
    for task in bundle.tasks:
        data = program_bytes(bundle.task(task)).tobytes()
        outcome = execute(bundle, image, data, weights=short)
        if outcome.status == Status.STOPPED:
            stopped.add(Error(outcome.error))
    assert stopped == {Error.WEIGHTS}


def random_change(rng: random.Random, instruction: Instruction) -> Instruction:
    """One or two fields anywhere in their bits, or near a limit."""
    fields = {}
    for field in rng.sample(isa.fields(Instruction)[1:], rng.choice((1, 1, 2))):
        old = int(getattr(instruction, field.name))
        near = (old + rng.choice((-1, 1, 2, 32, 64)), 2 * old, old // 2)
        value = rng.choice((*near, rng.randint(field.minimum, field.maximum), field.maximum, 0))
        fields[field.name] = min(max(value, field.minimum), field.maximum)
    return dataclasses.replace(instruction, **fields)


def host_accepts(bundle: Bundle, instruction: Instruction) -> bool:
    """The bundle reader's verdict on the instruction alone."""
    try:
        encoding.decode(Instruction, np.array(raw_words(instruction), "<u4").tobytes(), "it")
        program.check_instruction(instruction, bundle.manifest.accelerator.config, "it")
    except BundleError:
        return False
    used = sorted((region.address, region.size) for region in opcodes.regions(instruction))
    return all(start + size <= following for (start, size), (following, _) in itertools.pairwise(used))


def test_random_fields_agree_with_the_bundle_reader(bundle: Bundle, image: np.ndarray) -> None:
    """Fields changed at random, checksums right: the accelerator stops where the reader refuses.

    If it runs, it may read memory that nothing has written; it still ends, and writes nowhere else.
    """
    data, rng = original(bundle), random.Random(11)
    instructions = bundle.task("semseg").instructions
    refused = ran = 0
    for _ in range(700):
        index = rng.randrange(len(instructions) - 1)
        fresh = random_change(rng, instructions[index])
        outcome = execute(bundle, image, with_words(data, index, raw_words(fresh)))
        accepted = host_accepts(bundle, fresh)
        elsewhere = outcome.error in (Error.WEIGHTS, Error.ENTRY, Error.IMAGE, Error.OUTPUT, Error.ORDER)
        if outcome.status == Status.DONE:
            ran += 1
            assert accepted, fresh
        elif not elsewhere:
            refused += 1
            assert outcome.position == index
            assert not accepted, (Error(outcome.error).name, fresh)
    assert refused > 300
    assert ran > 30


def test_routing_rows_that_no_gate_wrote(bundle: Bundle, image: np.ndarray) -> None:
    """EXPERTS on any bytes as routing rows: experts that do not exist, or the same one twice."""
    index, instruction = find(bundle, Opcode.EXPERTS)
    for offset in range(0, 4096, 64):
        fresh = dataclasses.replace(instruction, routing=offset)
        outcome = execute(bundle, image, with_words(original(bundle), index, raw_words(fresh)))
        assert outcome.error in (Error.NONE, Error.OVERLAP)
