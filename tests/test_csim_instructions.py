# SPDX-License-Identifier: Apache-2.0
"""Single instructions on the accelerator against golden: sizes, edges, ties, saturation."""

import dataclasses

import numpy as np
import pytest

from csim_library import Bench, routing_bytes
from edge_moe.compiler import weights
from edge_moe.compiler.instructions import spread
from edge_moe_host.backends.csim_library import gate_logits
from edge_moe_host.contract import layout
from edge_moe_host.contract.isa import Epilogue, Opcode
from edge_moe_host.golden import operators as op
from edge_moe_host.golden.operators import Attention, Gate, LayerNorm, Linear
from golden_cases import int8, int16, random_ffn, random_linear

FFN_BYTES = {"multiplier": "gelu_multiplier", "shift2": "gelu_shift", "zero_point": "zero_point"}


def equal(actual, expected):
    """Equality of every value; how many there were."""
    np.testing.assert_array_equal(actual, expected)
    assert expected.size
    return expected.size


def linear_fields(bench, layer):
    return {
        "weight_bits": layer.bits,
        "shift": layer.shift,
        **bench.block(weights.linear_block(layer.weight, layer.bias, layer.multiplier, layer.bits)),
    }


def run_linear(rows, fan_in, out, epilogue, bits=8, gain=1.0, seed=0):
    rng, bench = np.random.default_rng(seed), Bench()
    high = {Epilogue.REQUANTISE: 127, Epilogue.GELU: 6144}.get(epilogue, 32767)
    layer = random_linear(rng, (out, fan_in), high=high, gain=gain, bits=bits)
    ffn = dataclasses.replace(random_ffn(rng, 4, 4), fc1=layer)
    x = int8(rng, rows, fan_in)
    source = bench.place_int8(x)
    residual = int16(rng, rows, out)
    wide = epilogue in (Epilogue.RESIDUAL, Epilogue.INT16)
    if epilogue == Epilogue.RESIDUAL:
        to = bench.place_int16(residual)
    else:
        to = bench.reserve(layout.int8_rows(rows, layout.int8_row(out)) * (2 if wide else 1))
    gelu = (
        {field: getattr(ffn, name) for field, name in FFN_BYTES.items()} if epilogue == Epilogue.GELU else {}
    )
    bench.emit(Opcode.LINEAR, epilogue=epilogue, rows=rows, in_channels=fan_in, out_channels=out, src=source,
               dst=to, **gelu, **linear_fields(bench, layer))  # fmt: skip
    bench.run()
    expected = {
        Epilogue.REQUANTISE: lambda: op.linear(x, layer),
        Epilogue.GELU: lambda: op.linear_gelu(x, ffn),
        Epilogue.RESIDUAL: lambda: op.linear_residual(x, layer, residual),
        Epilogue.INT16: lambda: op.linear_int16(x, layer),
    }[epilogue]()
    return equal((bench.int16 if wide else bench.int8)(to, rows, out), expected)


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
    rng, bench = np.random.default_rng(rows), Bench()
    x = int16(rng, rows, channels)
    x[-1] = 7  # a row without variance
    norm = LayerNorm(
        rng.integers(-9000, 9000, channels).astype(np.int16),
        rng.integers(-(2**24), 2**24, channels).astype(np.int32),
        17,
        channels * channels,
    )
    source, to = bench.place_int16(x), bench.reserve(layout.int8_rows(rows, layout.int8_row(channels)))
    block = bench.block(weights.parameter_block(norm.beta, norm.gamma))
    bench.emit(Opcode.LAYERNORM, rows=rows, in_channels=channels, src=source, dst=to, shift=norm.shift,
               epsilon=norm.epsilon, **block)  # fmt: skip
    bench.run()
    assert equal(bench.int8(to, rows, channels), op.layernorm(x[None], norm)[0]) == rows * channels


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
    rng, bench = np.random.default_rng(keys), Bench()
    D = heads * head
    qkv = np.maximum(int8(rng, keys, 3 * D), -127)
    qkv[0] = 0  # equal logits
    qkv[-1, : 2 * D] = 127
    attn = Attention(
        heads,
        None,
        rng.integers(20, 400, heads).astype(np.int16),
        12,
        rng.integers(8000, 32767, D).astype(np.int16),
        19,
        None,
    )
    source, to = bench.place_int8(qkv), bench.reserve(layout.int8_rows(rows, layout.int8_row(D)))
    block = bench.block(
        weights.parameter_block(np.repeat(attn.logit_multiplier, head), spread(attn.out_multiplier, D, D, 0))
    )
    shifts = {"shift": attn.logit_shift, "shift2": attn.out_shift}
    bench.emit(Opcode.ATTENTION, rows=rows, row_start=start, keys=keys, heads=heads, in_channels=3 * D,
               out_channels=D, src=source, dst=to, **shifts, **block)  # fmt: skip
    bench.run()
    expected = op.attention(qkv[None], attn)[0, start : start + rows]
    assert equal(bench.int8(to, rows, D), expected) == rows * D


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
    rng, bench = np.random.default_rng(experts), Bench()
    weight = rng.integers(-16319, 16319, (experts, width), endpoint=True).astype(np.int16)
    weight[0, 0], weight[-1, -1] = -16319, 16319
    bias = rng.integers(-(2**20), 2**20, experts).astype(np.int32)
    x = int8(rng, rows, width)
    x[-1] = 0
    bias[experts // 2 :] = bias[0]  # equal logits in the last row
    gate = Gate(weight, bias, 21000, 31, top_k)
    source, to = bench.place_int8(x), bench.reserve(layout.int8_rows(rows, layout.ROUTE_BYTES))
    block = bench.block(weights.gate_block(gate))
    bench.emit(Opcode.GATE, rows=rows, in_channels=width, experts=experts, top_k=top_k, src=source, dst=to,
               multiplier=gate.multiplier, shift=gate.shift, **block)  # fmt: skip
    bench.run()
    logits = op.gate_logits(x, gate)
    expected = op.route(logits, gate)
    instruction = bench.program[-3]
    assert equal(gate_logits(instruction, bench.sums), logits) == rows * experts
    actual = bench.routing(to, rows, top_k)
    assert equal(actual[0], expected[0]) + equal(actual[1], expected[1]) == 2 * rows * top_k


def run_experts(expert, experts, width=48, hidden=70, score=None, seed=0, gain=0.6):
    """Golden's residual with the mixture added, and the accelerator's; cycles of EXPERTS."""
    rng, bench = np.random.default_rng(seed), Bench()
    rows, top_k = expert.shape
    ffns = [random_ffn(rng, width, hidden, gain) for _ in range(experts)]
    score = rng.integers(0, 32767, expert.shape, endpoint=True).astype(np.int16) if score is None else score
    x, residual = int8(rng, rows, width), int16(rng, rows, width)
    places = {
        "src": bench.place_int8(x),
        "dst": bench.place_int16(residual),
        "routing": bench.place(routing_bytes(expert, score)),
        "hidden": bench.reserve(layout.int8_rows(rows, layout.int8_row(hidden))),
    }
    bench.emit(Opcode.EXPERTS, rows=rows, in_channels=width, out_channels=width, hidden_channels=hidden,
               experts=experts, top_k=top_k, **places, **bench.experts(ffns))  # fmt: skip
    cycles = bench.run()
    mixed = op.experts(x[None], expert[None], score[None], tuple(ffns))[0]
    assert equal(bench.int16(places["dst"], rows, width), op.residual_add(residual, mixed)) == rows * width
    return cycles[-2]


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
    """An expert's tokens pair up even with odd: here there is never a partner."""
    expert = np.where(np.arange(41)[:, None] % 2 == parity, 2, 0)
    run_experts(expert, 3)


def test_all_tokens_on_one_expert_and_others_without_any():
    run_experts(np.full((131, 1), 5), 8)


def test_experts_saturate_once():
    """Products of full size, scores of one: the sum leaves 16 bits on its way and may come back."""
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
    behind = int8(rng, 256, 32)
    guard = bench.place_int8(behind)
    table = bench.experts([ffn] * 4)
    bench.emit(Opcode.EXPERTS, rows=rows, in_channels=width, out_channels=width, hidden_channels=32,
               experts=4, top_k=4, **places, **table)  # fmt: skip
    bench.run()
    mixed = op.experts(x[None], expert[None, :, :1], score[None, :, :1], (ffn,))[0]
    assert equal(bench.int16(places["dst"], rows, width), residual + mixed) == rows * width
    assert equal(bench.int8(guard, 256, 32), behind) == 8192


def test_an_expert_without_tokens_is_neither_computed_nor_read():
    """Far behind the gate the routing is known: an empty expert's planes do not even pass by."""
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
    rng, bench = np.random.default_rng(height), Bench()
    layer = random_linear(rng, (out, 3, 3, fan_in))
    x = int8(rng, height * width, fan_in)
    rows, start = lines * width, line * width
    source, to = bench.place_int8(x), bench.reserve(layout.int8_rows(rows, layout.int8_row(out)))
    taps = spread(layer.weight, fan_in, 32 * layout.tiles(fan_in), 3).reshape(out, -1)
    packed = Linear(taps, layer.bias, layer.multiplier, layer.shift, layer.bits)
    bench.emit(Opcode.CONV3X3, rows=rows, row_start=start, in_channels=fan_in, out_channels=out,
               height=height, width=width, pad=pad, src=source, dst=to,
               **linear_fields(bench, packed))  # fmt: skip
    bench.run()
    expected = op.conv3x3(x[None], layer, height, width, pad)[0, start : start + rows]
    assert equal(bench.int8(to, rows, out), expected) == rows * out


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(1, 1, 1), (1, 2, 40), (2, 1, 32), (3, 5, 33), (4, 8, 64)]
)
def test_upsample2x(height, width, channels):
    rng, bench = np.random.default_rng(height), Bench()
    x, rows = int8(rng, height * width, channels), 4 * height * width
    source, to = bench.place_int8(x), bench.reserve(layout.int8_rows(rows, layout.int8_row(channels)))
    bench.emit(
        Opcode.UPSAMPLE2X, rows=rows, in_channels=channels, height=height, width=width, src=source, dst=to
    )
    bench.run()
    assert equal(bench.int8(to, rows, channels), op.upsample2x(x[None], height, width)[0]) == rows * channels


@pytest.mark.parametrize(
    ("height", "width", "patch"),
    [(1, 1, 1), (3, 5, 1), (4, 6, 2), (9, 3, 3), (8, 12, 4), (10, 15, 5), (14, 21, 7), (13, 26, 13),
     (45, 30, 15), (32, 48, 16)],
)  # fmt: skip
def test_patches(height, width, patch):
    """Lines and patches of any number of bytes, so that words of image, row and scratch fall anywhere."""
    image = np.random.default_rng(patch).integers(0, 256, (height, width, 3)).astype(np.uint8)
    bench = Bench(image, patch)
    bench.place_int8(np.zeros((2, 32), np.int8))
    bench.run()
    grid = image.reshape(height // patch, patch, width // patch, patch, 3).swapaxes(1, 2)
    rows = (grid.reshape(-1, 3 * patch * patch).astype(np.int16) - 128).astype(np.int8)
    assert equal(bench.int8(bench.patches, len(rows), rows.shape[1]), rows) == height * width * 3
