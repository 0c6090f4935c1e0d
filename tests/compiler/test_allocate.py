# SPDX-License-Identifier: Apache-2.0
"""Places in the scratch memory: no two buffers that live together share a byte."""

import itertools

import numpy as np
import pytest

from edge_moe.compiler.allocate import Buffer, allocate, live_bytes
from edge_moe.compiler.bundle import CompileReport
from edge_moe.testing.bundles import compile_network, small_accelerator, small_config
from edge_moe.testing.networks import random_network


def assert_placed(buffers: list[Buffer], peak: int) -> int:
    """Aligned, within the peak, and apart; how many pairs live together."""
    together = 0
    for buffer in buffers:
        assert buffer.address >= 0
        assert buffer.address % 64 == 0
        assert buffer.address + buffer.size <= peak
    for a, b in itertools.combinations(buffers, 2):
        if a.first <= b.last and b.first <= a.last:
            together += 1
            assert a.address + a.size <= b.address or b.address + b.size <= a.address, (a, b)
    return together


@pytest.mark.parametrize("seed", range(30))
def test_random_lifetimes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffers = []
    for index in range(int(rng.integers(1, 60))):
        buffer = Buffer(str(index), int(rng.integers(1, 400)))
        for instruction in sorted(rng.integers(0, 40, size=int(rng.integers(1, 4))).tolist()):
            buffer.use(instruction)
        buffers.append(buffer)
    peak = allocate(buffers)
    assert_placed(buffers, peak)
    assert live_bytes(buffers) <= peak <= sum(-(-b.size // 64) * 64 for b in buffers)


def test_lifetimes_that_only_touch_are_apart() -> None:
    first, second, third = Buffer("a", 64), Buffer("b", 64), Buffer("c", 64)
    first.use(0), first.use(3)
    second.use(3), second.use(5)
    third.use(4)
    assert allocate([first, second, third]) == 128
    assert first.address != second.address
    assert first.lives_with(second)
    assert not first.lives_with(third)


def test_gaps_are_used() -> None:
    buffers = [Buffer("long", 256), Buffer("early", 512), Buffer("late", 448), Buffer("last", 64)]
    for buffer, uses in zip(buffers, ([0, 9], [0, 3], [4, 6], [4, 9]), strict=True):
        for use in uses:
            buffer.use(use)
    assert allocate(buffers) == 768 == live_bytes(buffers)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> CompileReport:
    network = random_network(small_config(depth=4))
    return compile_network(network, tmp_path_factory.mktemp("allocate"))[1]


def test_buffers_of_programs_are_apart(report: CompileReport) -> None:
    for task in report.codes:
        buffers = list(report.codes[task].buffers)
        assert assert_placed(buffers, report.codes[task].scratch_bytes) > 40


def test_peak_is_no_larger_than_what_lives(report: CompileReport) -> None:
    for peak, least in ((code.scratch_bytes, code.live_bytes) for code in report.codes.values()):
        assert peak == least


def test_split_instructions_share_their_buffers(tmp_path_factory: pytest.TempPathFactory) -> None:
    accelerator = small_accelerator(max_tokens=10, accumulator_rows=16)
    network = random_network(small_config())
    report = compile_network(network, tmp_path_factory.mktemp("split"), accelerator=accelerator)[1]
    for task in report.codes:
        assert len(report.codes[task].instructions) > 30
        assert_placed(list(report.codes[task].buffers), report.codes[task].scratch_bytes)
