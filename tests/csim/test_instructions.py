# SPDX-License-Identifier: Apache-2.0
"""Single instructions on the accelerator against golden: sizes, edges, ties, saturation."""

import numpy as np
import pytest

from edge_moe.testing.cases import int8, random_ffn
from edge_moe.testing.csim import Bench, routing_bytes
from edge_moe.testing.instructions import (
    equal,
    run_attention,
    run_conv3x3,
    run_experts,
    run_gate,
    run_layernorm,
    run_linear,
    run_patches,
    run_upsample2x,
)
from edge_moe_host.contract import layout
from edge_moe_host.contract.isa import Epilogue, Opcode
from edge_moe_host.golden import operators as op


@pytest.mark.parametrize("epilogue", list(Epilogue))
@pytest.mark.parametrize(
    ("rows", "fan_in", "out"),
    [(1, 1, 1), (2, 32, 32), (3, 33, 65), (17, 96, 100), (64, 40, 7), (129, 64, 96)],
)
def test_linear(epilogue, rows, fan_in, out):
    assert run_linear(rows, fan_in, out, epilogue, seed=rows) == rows * out


@pytest.mark.parametrize("bits", range(2, 9))
def test_linear_of_every_width(bits):
    assert run_linear(5, 70, 40, Epilogue.REQUANTISE, bits) == 200


@pytest.mark.parametrize("epilogue", list(Epilogue))
def test_linear_saturates_at_both_ends(epilogue):
    assert run_linear(9, 64, 64, epilogue, gain=6.0) == 576


def test_linear_whose_sums_fill_the_accumulators_several_times():
    """600 rows leave room for three tiles of sums: 3 + 3 + 1 tiles, so one group begins at an odd tile."""
    assert run_linear(600, 32, 210, Epilogue.INT16) == 600 * 210
    assert run_linear(1300, 32, 70, Epilogue.RESIDUAL) == 1300 * 70


@pytest.mark.parametrize(
    ("rows", "channels"), [(1, 1), (1, 32), (2, 33), (37, 32), (40, 48), (9, 256), (3, 192)]
)
def test_layernorm(rows, channels):
    run_layernorm(rows, channels)


@pytest.mark.parametrize(
    ("keys", "start", "rows", "heads", "head"),
    [
        (1, 0, 1, 1, 32),
        (2, 0, 2, 2, 64),
        (31, 0, 31, 1, 64),
        (33, 0, 33, 3, 32),
        (64, 10, 7, 2, 32),
        (65, 1, 64, 1, 64),  # queries that begin at an odd row
        (97, 96, 1, 2, 64),
        (129, 0, 129, 1, 64),
        (288, 0, 288, 2, 32),
    ],
)
def test_attention(keys, start, rows, heads, head):
    run_attention(keys, start, rows, heads, head)


@pytest.mark.parametrize(
    ("rows", "width", "experts", "top_k"),
    [
        (1, 32, 1, 1),
        (1, 33, 2, 2),
        (7, 64, 16, 1),
        (8, 64, 17, 2),
        (9, 48, 32, 4),
        (129, 32, 16, 2),
        (66, 256, 5, 3),
    ],
)
def test_gate(rows, width, experts, top_k):
    run_gate(rows, width, experts, top_k)


@pytest.mark.parametrize(
    ("rows", "experts", "top_k"),
    [(1, 1, 1), (1, 4, 4), (5, 8, 2), (40, 3, 1), (33, 32, 3), (129, 16, 2), (20, 4, 4)],
)
def test_experts(rows, experts, top_k):
    rng = np.random.default_rng(rows)
    expert = np.stack([rng.permutation(experts)[:top_k] for _ in range(rows)])
    run_experts(expert, experts)


@pytest.mark.parametrize("parity", [0, 1])
def test_tokens_of_one_parity_on_one_expert(parity):
    """A pair has an even and an odd token of an expert: here no token has a partner."""
    expert = np.where(np.arange(41)[:, None] % 2 == parity, 2, 0)
    run_experts(expert, 3)


def test_all_tokens_on_one_expert_and_others_without_any():
    run_experts(np.full((131, 1), 5), 8)


def test_experts_saturate_once():
    """Products of full size, scores of one: the sum exceeds 16 bits on its way and may return."""
    expert = np.tile(np.array([[0, 1, 2, 3]]), (30, 1))
    run_experts(expert, 4, gain=8.0, score=np.full((30, 4), 32767, np.int16))


def test_a_row_that_names_an_expert_twice():
    """No gate writes such rows: the expert is taken once, so that no queue outgrows the workspace."""
    rng, bench, rows, width = np.random.default_rng(4), Bench(), 40, 32
    ffn = random_ffn(rng, width, 32, gain=0.1)
    x, residual = int8(rng, rows, width), rng.integers(-9000, 9000, (rows, width)).astype(np.int16)
    expert, score = np.zeros((rows, 4), np.int64), np.full((rows, 4), 9000, np.int16)
    places = {
        "src": bench.place_int8(x),
        "dst": bench.place_int16(residual),
        "routing": bench.place(routing_bytes(expert, score)),
        "hidden": bench.reserve(rows * 32),
    }
    after = int8(rng, 256, 32)
    guard = bench.place_int8(after)
    table = bench.experts([ffn] * 4)
    bench.emit(Opcode.EXPERTS, rows=rows, in_channels=width, out_channels=width, hidden_channels=32,
               experts=4, top_k=4, **places, **table)  # fmt: skip
    bench.run()
    mixed = op.experts(x[None], expert[None, :, :1], score[None, :, :1], (ffn,))[0]
    assert equal(bench.int16(places["dst"], rows, width), residual + mixed) == rows * width
    assert equal(bench.int8(guard, 256, 32), after) == 8192


def test_an_expert_without_tokens_is_neither_computed_nor_read():
    """Long after the gate the routing is known: the planes of an empty expert are not even read."""
    expert = np.zeros((2, 1), np.int64)
    many, one = run_experts(expert, 32, 256, 1024), run_experts(expert, 1, 256, 1024)
    planes = layout.linear_planes(8, 32, 8) + layout.linear_planes(32, 8, 8)
    assert many - one < 31 * planes  # fewer than all planes of the 31 others


@pytest.mark.parametrize(
    ("height", "width", "fan_in", "out", "line", "lines"),
    [(1, 1, 3, 5, 0, 1), (5, 1, 32, 32, 0, 5), (1, 6, 40, 8, 0, 1), (4, 3, 33, 33, 1, 2),
     (7, 5, 64, 40, 0, 7), (6, 8, 32, 64, 2, 3)],
)  # fmt: skip
@pytest.mark.parametrize("pad", [0, -128])
def test_conv3x3(height, width, fan_in, out, line, lines, pad):
    run_conv3x3(height, width, fan_in, out, line, lines, pad)


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(1, 1, 1), (1, 2, 40), (2, 1, 32), (3, 5, 33), (4, 8, 64)]
)
def test_upsample2x(height, width, channels):
    run_upsample2x(height, width, channels)


@pytest.mark.parametrize(
    ("height", "width", "patch"),
    [(1, 1, 1), (3, 5, 1), (4, 6, 2), (9, 3, 3), (8, 12, 4), (10, 15, 5), (14, 21, 7), (13, 26, 13),
     (45, 30, 15), (32, 48, 16)],
)  # fmt: skip
def test_patches(height, width, patch):
    run_patches(height, width, patch)
