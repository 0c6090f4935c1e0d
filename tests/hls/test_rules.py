# SPDX-License-Identifier: Apache-2.0
"""Every limit of an instruction's fields, on either side: the C++ refuses what the bundle reader refuses."""

import dataclasses
import subprocess

import numpy as np
import pytest

from edge_moe.accelerator import load_accelerator
from edge_moe.codegen import generate
from edge_moe.testing.bundles import compile_network, small_config
from edge_moe.testing.checkout import ROOT
from edge_moe.testing.damage import raw_words
from edge_moe.testing.networks import random_network
from edge_moe_host.contract import isa, opcodes, program
from edge_moe_host.contract.isa import ExpertEntry, Instruction, Opcode
from edge_moe_host.contract.registers import Error
from edge_moe_host.errors import BundleError

CHECK = """
#include <cstdio>
#include "edge_moe/shell/program.hpp"
// words of instructions ("0 ...") and of experts' entries ("1 ...") in, errors out
int main() {
  using namespace edge_moe;
  const Buffers buffers = {1u << 30, 16 * 32 * 3, 1u << 30};
  int entry = 0;
  while (std::scanf("%d", &entry) == 1) {
    Record record = {};
    for (uint32_t& word : record.word) {
      if (std::scanf("%u", &word) != 1) return 1;
    }
    const Error error = entry != 0 ? isa::ranges_hold(isa::decode_expert_entry(record.word)) ? Error::NONE
                                                                                           : Error::RANGE
                                   : check_instruction(isa::decode_instruction(record.word), buffers);
    std::printf("%d\\n", static_cast<int>(error));
  }
  return 0;
}
"""
# odd pairs: 145 rows fit 290 accumulators twice, their 73 pairs do not
CONFIG = dataclasses.replace(load_accelerator("zcu104"), accumulator_rows=290)


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """C++'s errors of instructions and entries, for an accelerator of its own."""
    folder = tmp_path_factory.mktemp("rules")
    values = dataclasses.asdict(CONFIG).items()
    (folder / "own.toml").write_text("".join(f"{name} = {value}\n" for name, value in values))
    generate(str(folder / "own.toml"), folder)
    (folder / "check.cpp").write_text(CHECK)
    command = ["g++", "-std=c++14", "-Wall", "-Wextra", "-Werror", "-Wno-unused-label", f"-I{folder}",
               f"-I{ROOT / 'hls' / 'include'}", "check.cpp", "-o", "check"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, timeout=120)

    def errors(records):
        lines = [f"{int(isinstance(r, ExpertEntry))} " + " ".join(map(str, raw_words(r))) for r in records]
        run = subprocess.run([str(folder / "check")], input="\n".join(lines), capture_output=True, text=True,
                             check=True, timeout=60)  # fmt: skip
        return [Error(int(line)) for line in run.stdout.split()]

    return errors


@pytest.fixture(scope="module")
def instructions(tmp_path_factory):
    """One of each opcode and epilogue that this accelerator accepts."""
    folder = tmp_path_factory.mktemp("rules_bundle")
    bundle, _ = compile_network(random_network(small_config()), folder, ["semseg"], CONFIG)
    return {(i.opcode, i.epilogue): i for i in bundle.task("semseg").instructions}.values()


def host_error(instruction):
    """RANGE, NONE, or None for any other reason."""
    try:
        program.check_instruction(instruction, dataclasses.asdict(CONFIG), "it")
    except BundleError as error:
        return Error.RANGE if "is not in [" in str(error) else None
    return Error.NONE


def at_the_edges(record, ranges):
    """The record with one field at its ends and one beyond, as far as its bits reach."""
    fields = {field.name: field for field in isa.fields(type(record))}
    for name, low, limit in ranges:
        high = getattr(CONFIG, limit) if isinstance(limit, str) else limit
        for value in (low - 1, low, high, high + 1):
            if fields[name].minimum <= value <= fields[name].maximum:
                yield dataclasses.replace(record, **{name: value})


def test_every_field_ends_where_the_bundle_reader_says(check, instructions):
    records = []
    for instruction in instructions:
        ranges = opcodes.ranges(opcodes.OPCODES[Opcode(instruction.opcode)], instruction.epilogue)
        records += [instruction, *at_the_edges(instruction, ranges)]
    outcomes = {Error.RANGE: 0, Error.NONE: 0}
    for record, actual in zip(records, check(records), strict=True):
        expected = host_error(record)
        assert (actual == Error.RANGE) == (expected == Error.RANGE), (record, actual)
        if expected in outcomes:
            assert actual in (expected, Error.OVERLAP), (record, actual)
            outcomes[expected] += 1
    assert len(records) > 220
    assert outcomes[Error.RANGE] > 100
    assert outcomes[Error.NONE] > 40


def test_entries_end_where_the_bundle_reader_says(check):
    entry = ExpertEntry(bits1=4, bits2=8, shift1=20, shift2=21, gelu_shift=19, gelu_multiplier=3)
    records = [entry, *at_the_edges(entry, opcodes.ranges(opcodes.ENTRY))]
    expected = [
        Error.NONE
        if all(low <= getattr(r, n) <= high for n, low, high in opcodes.ranges(opcodes.ENTRY))
        else Error.RANGE
        for r in records
    ]
    assert check(records) == expected
    assert (expected.count(Error.RANGE), len(expected)) == (11, 24)


def test_a_shift_of_layernorm_ends_at_31(check, instructions):
    norm = next(i for i in instructions if i.opcode == Opcode.LAYERNORM)
    records = [dataclasses.replace(norm, shift=shift) for shift in range(64)]
    expected = [Error.NONE if 1 <= shift <= 31 else Error.RANGE for shift in range(64)]
    assert check(records) == [host_error(record) for record in records] == expected


def test_a_gate_takes_accumulators_by_pairs_of_rows(check):
    records, expected = [], []
    for experts in (16, 17, 32):
        for rows in range(1, CONFIG.max_tokens + 1):
            gate = Instruction(opcode=Opcode.GATE, shift=1, top_k=1, rows=rows, in_channels=32,
                               experts=experts, dst=2**18)  # fmt: skip
            records.append(dataclasses.replace(gate, weight_beats=opcodes.weight_beats(gate)))
            expected.append(Error.NONE if -(-rows // 2) * -(-experts // 16) <= 145 else Error.SHAPE)
    assert check(records) == expected
    accepted = [host_error(record) == Error.NONE for record in records]
    assert accepted == [error == Error.NONE for error in expected]
    assert accepted.index(False) == 288 + 144  # 145 rows for 17 experts
    assert len(accepted) == np.sum(accepted) + 2 * 144
