# SPDX-License-Identifier: Apache-2.0
"""Single instructions on the accelerator against golden: each function runs one and compares every value."""

import dataclasses

import numpy as np

from edge_moe.compiler import weights
from edge_moe.compiler.instructions import spread
from edge_moe.testing.cases import int8, int16, random_ffn, random_linear
from edge_moe.testing.csim import Bench, routing_bytes
from edge_moe_host.backends.csim_library import gate_logits
from edge_moe_host.contract import layout
from edge_moe_host.contract.isa import Epilogue, Opcode
from edge_moe_host.golden import operators as op
from edge_moe_host.golden.operators import Attention, Gate, LayerNorm, Linear

FFN_BYTES = {"multiplier": "gelu_multiplier", "shift2": "gelu_shift", "zero_point": "zero_point"}


def equal(actual, expected):
    """Assert that every value is equal; return their number."""
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


def run_layernorm(rows, channels):
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


def run_attention(keys, start, rows, heads, head):
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


def run_gate(rows, width, experts, top_k):
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
    """Golden's residual plus mixture, and the accelerator's; cycles of EXPERTS."""
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


def run_conv3x3(height, width, fan_in, out, line, lines, pad):
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


def run_upsample2x(height, width, channels):
    rng, bench = np.random.default_rng(height), Bench()
    x, rows = int8(rng, height * width, channels), 4 * height * width
    source, to = bench.place_int8(x), bench.reserve(layout.int8_rows(rows, layout.int8_row(channels)))
    bench.emit(
        Opcode.UPSAMPLE2X, rows=rows, in_channels=channels, height=height, width=width, src=source, dst=to
    )
    bench.run()
    assert equal(bench.int8(to, rows, channels), op.upsample2x(x[None], height, width)[0]) == rows * channels


def run_patches(height, width, patch):
    """Lines and patches of any number of bytes, so that transfers and slices begin anywhere in a row."""
    image = np.random.default_rng(patch).integers(0, 256, (height, width, 3)).astype(np.uint8)
    bench = Bench(image, patch)
    bench.place_int8(np.zeros((2, 32), np.int8))
    bench.run()
    grid = image.reshape(height // patch, patch, width // patch, patch, 3).swapaxes(1, 2)
    rows = (grid.reshape(-1, 3 * patch * patch).astype(np.int16) - 128).astype(np.int8)
    assert equal(bench.int8(bench.patches, len(rows), rows.shape[1]), rows) == height * width * 3
