# SPDX-License-Identifier: Apache-2.0
"""Each function of path.onnx alone, in stock onnxruntime, against golden: equality of every value."""

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from edge_moe.export.functions import path_functions
from edge_moe.export.graph import DOMAIN, IR_VERSION, ONNX_OPSET
from edge_moe_host.golden import arithmetic as exact
from edge_moe_host.golden import operators as op
from edge_moe_host.golden.operators import FFN, Attention, Gate, LayerNorm, Linear

INT16 = (-(2**15), 2**15)


def call(name, inputs, types, **attributes):
    """Outputs of one function on arrays; ``types`` are the element types of its outputs."""
    names = [f"in{index}" for index in range(len(inputs))]
    outputs = [f"out{index}" for index in range(len(types))]
    kinds = [helper.np_dtype_to_tensor_dtype(value.dtype) for value in inputs]
    graph = helper.make_graph(
        [helper.make_node(name, names, outputs, domain=DOMAIN, **attributes)],
        "test",
        [
            helper.make_tensor_value_info(name, kind, [None] * value.ndim)
            for name, kind, value in zip(names, kinds, inputs, strict=True)
        ],
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)
            for name, kind in zip(outputs, types, strict=True)
        ],
    )
    model = helper.make_model(
        graph,
        functions=path_functions(),
        opset_imports=[helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=IR_VERSION,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(zip(names, inputs, strict=True)))


def assert_equal(actual, expected, count):
    """Same type, shape and values, ``count`` of them."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert expected.size == count
    assert int((actual != expected).sum()) == 0


def int8(rng, shape, low=-128):
    return rng.integers(low, 127, size=shape, endpoint=True).astype(np.int8)


def random_linear(rng, out, fan_in, target, shift=20, kernel=()):
    """Weights whose requantised result spreads by about ``target``; ``shift`` or less."""
    weight = int8(rng, (out, *kernel, fan_in), -127)
    spread = np.sqrt(np.prod(weight.shape[1:])) * 73 * 73
    multiplier = target / spread * 2.0**shift * rng.uniform(0.5, 1.5, out)
    while multiplier.max() > 32767:
        multiplier, shift = multiplier / 2, shift - 1
    bias = rng.integers(-int(spread), int(spread), size=out).astype(np.int32)
    return Linear(weight, bias, multiplier.astype(np.int16), shift)


def parameters(layer):
    return [layer.weight, layer.bias, layer.multiplier]


def test_rounding_shift_rounds_halves_up_and_floors():
    rng = np.random.default_rng(0)
    shifts = np.arange(48)
    values = np.concatenate(
        [
            [0, 1, -1, 3, -3, -5, -6, -7, 2**46, -(2**46), 2**47 - 1],
            rng.integers(-(2**47), 2**47, 500),
            (2 * rng.integers(-500, 500, 500) + 1) << 4,  # halves at shift 5
        ]
    )[:, None]
    (actual,) = call("RoundingShift", [values, shifts], [np.int64])
    assert_equal(actual, exact.rounding_shift(values, shifts), 1011 * 48)
    for value, shift, expected in ((3, 1, 2), (-3, 1, -1), (-5, 1, -2), (-1, 1, 0), (-6, 2, -1), (-7, 2, -2)):
        (actual,) = call("RoundingShift", [np.array([value]), np.array(shift)], [np.int64])
        assert actual == expected
    (actual,) = call("FloorShift", [values, shifts], [np.int64])
    assert_equal(actual, values >> shifts, 1011 * 48)


@pytest.mark.parametrize(("low", "high", "zero"), [(-128, 127, 0), (-127, 127, 0), (-128, 127, -128)])
def test_requantise_at_the_ends_of_its_range(low, high, zero):
    rng = np.random.default_rng(1)
    accumulator = np.concatenate(
        [[-(2**31), 2**31 - 1, 0, -1, 1, -3, 100, 200], rng.integers(-(2**31), 2**31, 300)]
    ).astype(np.int32)[:, None]
    multiplier = np.array([0, 1, 2, 255, 16384, 32767], dtype=np.int16)
    count = 0
    for shift in (1, 2, 15, 31, 46, 47):
        bounds = [np.array(value) for value in (shift, low, high, zero)]
        (actual,) = call("Requantise", [accumulator, multiplier, *bounds], [np.int64])
        expected = exact.requantise(accumulator, multiplier, shift, low, high, zero)
        assert_equal(actual, expected, 308 * 6)
        count += len(np.unique(actual))
    assert count > 100  # not saturated throughout


@pytest.mark.parametrize(("name", "bits"), [("Reciprocal", 40), ("ReciprocalSqrt", 52)])
def test_reciprocals_of_small_numbers_powers_and_random_ones(name, bits):
    rng = np.random.default_rng(2)
    powers = 1 << np.arange(1, bits)
    drawn = np.exp2(rng.uniform(0, bits, 3000)).astype(np.int64)
    values = np.concatenate([np.arange(1, 5000), powers - 1, powers, powers + 1, drawn])
    values = values[values >= 1]
    reference = {"Reciprocal": exact.reciprocal, "ReciprocalSqrt": exact.reciprocal_sqrt}[name]
    expected = reference(values)
    actual = call(name, [values[:, None]], [np.int64, np.int64])
    for got, wanted in zip(actual, expected, strict=True):
        assert_equal(got[:, 0], wanted, len(values))


def test_gelu_of_every_int16():
    values = np.arange(*INT16, dtype=np.int64)
    (actual,) = call("Gelu", [values], [np.int64])
    assert_equal(actual.astype(np.int16), op.gelu(values.astype(np.int16)), 2**16)


@pytest.mark.parametrize("fan_in", [1, 33, 1728])
def test_products_of_extreme_int8_are_exact(fan_in):
    rng = np.random.default_rng(3)
    rows = [np.full(fan_in, value) for value in (-128, -127, 127, 0)]
    x = np.stack([*rows, np.resize([-128, 127], fan_in), *int8(rng, (9, fan_in))]).astype(np.int8)
    weight = np.stack([*rows[1:], np.resize([127, -127], fan_in), *int8(rng, (9, fan_in))]).astype(np.int8)
    bias = rng.integers(-1000, 1000, len(weight)).astype(np.int32)
    (unsigned,) = call("Unsigned", [x], [np.uint8])
    assert_equal(unsigned, (x.astype(np.int64) + 128).astype(np.uint8), 14 * fan_in)
    (actual,) = call("Accumulate", [unsigned, weight, bias], [np.int32])
    expected = x.astype(np.int64) @ weight.astype(np.int64).T + bias
    assert_equal(actual, expected.astype(np.int32), 14 * 13)


@pytest.mark.parametrize("cls", [0, 1])
@pytest.mark.parametrize(("batch", "grid", "p", "width"), [(1, (1, 1), 16, 8), (3, (2, 3), 4, 20)])
def test_patch_embedding(batch, grid, p, width, cls):
    rng = np.random.default_rng(4)
    image = rng.integers(0, 256, size=(batch, grid[0] * p, grid[1] * p, 3)).astype(np.uint8)
    image[0, :p, :p] = 255
    layer = random_linear(rng, width, 3 * p * p, 20000)  # saturates now and then
    position = rng.integers(*INT16, size=(grid[0] * grid[1] + cls, width)).astype(np.int16)
    (actual,) = call(
        "PatchEmbedding", [image, *parameters(layer), position], [np.int16], shift=layer.shift, patch_size=p
    )
    assert_equal(actual, op.patch_embedding(image, layer, position, p), batch * position.size)


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("width", [8, 33])
def test_layernorm(width, skip):
    D = width
    rng = np.random.default_rng(5)
    x = rng.integers(-3000, 3000, size=(2, 9, D)).astype(np.int16)
    x[0, 1] = 1234  # no variance
    x[0, 2] = np.resize([-32768, 32767], D)  # the largest variance
    x[0, 3] = 0
    x[0, 3, 0] = 32767
    x[1, 1] = -32768
    norm = LayerNorm(
        rng.integers(*INT16, size=D).astype(np.int16),
        rng.integers(-(2**24), 2**24, size=D).astype(np.int32),
        shift=18,
        epsilon=1 + skip * 999,
    )
    (actual,) = call(
        "LayerNorm", [x, norm.gamma, norm.beta], [np.int8],
        shift=norm.shift, epsilon=norm.epsilon, skip=skip,
    )  # fmt: skip
    assert_equal(actual, op.layernorm(x, norm, skip), 2 * (9 - skip) * D)
    assert {-128, 127} < set(actual.ravel().tolist())


@pytest.mark.parametrize(("target", "shift"), [(60, 20), (60, 30), (1e5, 20), (1e-3, 40)])
@pytest.mark.parametrize(("fan_in", "out"), [(40, 3), (7, 33)])
def test_linears(fan_in, out, target, shift):
    rng = np.random.default_rng(6)
    layer = random_linear(rng, out, fan_in, target, shift)
    layer.multiplier[0], shift = 0, layer.shift
    x = int8(rng, (2, 5, fan_in))
    x[0, 0], x[0, 1] = -128, 127
    inputs = [x, *parameters(layer)]
    (actual,) = call("Linear", inputs, [np.int8], shift=shift)
    assert_equal(actual, op.linear(x, layer), 2 * 5 * out)
    assert int(actual.min()) >= -127
    (actual,) = call("LinearInt16", inputs, [np.int16], shift=shift)
    assert_equal(actual, op.linear_int16(x, layer), 2 * 5 * out)
    residual = rng.integers(*INT16, size=actual.shape).astype(np.int16)
    residual[0, 0], residual[0, 1] = INT16[0], INT16[1] - 1
    (actual,) = call("LinearResidual", [*inputs, residual], [np.int16], shift=shift)
    assert_equal(actual, op.linear_residual(x, layer, residual), 2 * 5 * out)


@pytest.mark.parametrize(("target", "zero"), [(1500, -120), (1500, 5), (30000, -128), (30000, 127)])
def test_linear_gelu(target, zero):
    rng = np.random.default_rng(7)
    layer = random_linear(rng, 24, 33, target, 18)
    ffn = FFN(layer, 30000, 19, zero, layer)
    x = int8(rng, (1, 50, 33))
    (actual,) = call(
        "LinearGelu", [x, *parameters(layer)], [np.int8],
        shift=layer.shift, gelu_multiplier=30000, gelu_shift=19, zero_point=zero,
    )  # fmt: skip
    assert_equal(actual, op.linear_gelu(x, ffn), 50 * 24)
    assert len(np.unique(actual)) > 1


def check_attention(qkv, heads, logit_multiplier, logit_shift=18, out_shift=19):
    D = qkv.shape[2] // 3
    out_multiplier = np.random.default_rng(8).integers(0, 32767, size=D).astype(np.int16)
    logit_multiplier = np.asarray(logit_multiplier, dtype=np.int16)
    attn = Attention(heads, None, logit_multiplier, logit_shift, out_multiplier, out_shift, None)
    (actual,) = call(
        "Attention", [qkv, logit_multiplier, out_multiplier], [np.int8],
        heads=heads, logit_shift=logit_shift, out_shift=out_shift,
    )  # fmt: skip
    assert_equal(actual, op.attention(qkv, attn), qkv.shape[0] * qkv.shape[1] * D)
    return actual


@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 65, 129])
@pytest.mark.parametrize(("batch", "heads", "d"), [(1, 1, 16), (2, 3, 5)])
def test_attention_with_any_number_of_keys(batch, heads, d, tokens):
    rng = np.random.default_rng(tokens)
    qkv = int8(rng, (batch, tokens, 3 * heads * d), -127)
    actual = check_attention(qkv, heads, rng.integers(100, 8000, heads))
    assert len(np.unique(actual)) > 3


def test_attention_whose_exponent_rises_from_block_to_block_or_saturates():
    rng = np.random.default_rng(9)
    qkv = int8(rng, (1, 97, 3 * 8), -127)
    qkv[:, :, :8] = 127
    qkv[:, :, 8:16] = (np.arange(97) - 48)[:, None]  # each key beats the last
    for multiplier in (0, 1, 300, 5000, 32767):
        check_attention(qkv, 1, [multiplier])
        check_attention(qkv[:, ::-1].copy(), 1, [multiplier])
    qkv[...] = 127
    check_attention(qkv, 2, [32767, 1])
    qkv[:, :, :8] = -127
    check_attention(qkv, 2, [32767, 1], logit_shift=1)
    qkv[:, ::3, 8:16] = -127  # logits at both ends of int16
    check_attention(qkv, 2, [32767, 1], logit_shift=1)


def test_gate_logits():
    rng = np.random.default_rng(10)
    x = int8(rng, (2, 7, 40))
    x[0, 0] = -128
    gate = Gate(
        rng.integers(-16319, 16320, size=(5, 40)).astype(np.int16),
        rng.integers(-(2**30), 2**30, size=5).astype(np.int32), 1, 1, 1,
    )  # fmt: skip
    gate.weight[0] = 16319
    (actual,) = call("GateLogits", [x, gate.weight, gate.bias], [np.int32])
    assert_equal(actual, op.gate_logits(x, gate), 2 * 7 * 5)


@pytest.mark.parametrize("experts", [3, 5, 16])
@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_route_with_ties_and_extremes(experts, top_k):
    top_k = min(top_k, experts)
    rng = np.random.default_rng(11)
    logits = rng.integers(-(2**20), 2**20, size=(2, 40, experts)).astype(np.int32)
    logits[0, :10] = rng.integers(0, 2, size=(10, experts))  # ties among many
    logits[0, 10] = 7  # all equal
    logits[0, 11] = np.resize([2**31 - 1, -(2**31)], experts)
    for multiplier, shift in ((300, 20), (0, 20), (32767, 15), (32767, 1)):
        gate = Gate(None, None, multiplier, shift, top_k)
        expert, score = op.route(logits, gate)
        actual = call(
            "Route", [logits], [np.int32, np.int16], multiplier=multiplier, shift=shift, top_k=top_k
        )
        assert_equal(actual[0], expert, 2 * 40 * top_k)
        assert_equal(actual[1], score, 2 * 40 * top_k)


def random_experts(rng, count, width, hidden):
    return tuple(
        FFN(
            random_linear(rng, hidden, width, 1500, 18 + index % 3),
            int(rng.integers(20000, 32767)), 18 + index % 2, int(rng.integers(-128, -100)),
            random_linear(rng, width, hidden, 3000, 19 + index % 4),
        )
        for index in range(count)
    )  # fmt: skip


def check_experts(rng, ffns, expert, score, residual_range=(-3000, 3000)):
    D = ffns[0].fc1.weight.shape[1]
    x = int8(rng, (*expert.shape[:2], D))
    residual = rng.integers(*residual_range, size=x.shape).astype(np.int16)
    inputs = [x, expert, score, residual]
    for part in ("fc1", "fc2"):
        layers = [getattr(ffn, part) for ffn in ffns]
        inputs += [np.stack(arrays) for arrays in zip(*map(parameters, layers), strict=True)]
        inputs.append(np.array([layer.shift for layer in layers]))
    for field in ("gelu_multiplier", "gelu_shift", "zero_point"):
        inputs.append(np.array([getattr(ffn, field) for ffn in ffns]))
    (actual,) = call("Experts", inputs, [np.int16], bits1=[8] * len(ffns), bits2=[8] * len(ffns))
    expected = op.residual_add(residual, op.experts(x, expert, score, ffns))
    assert_equal(actual, expected, x.size)
    return int((actual != residual).sum())


@pytest.mark.parametrize(("experts", "k"), [(3, 1), (5, 2), (4, 4), (16, 3)])
def test_experts_with_random_routing(experts, k):
    rng = np.random.default_rng(12)
    ffns = random_experts(rng, experts, 12, 20)
    expert = rng.random((2, 11, experts)).argsort(-1)[..., :k].astype(np.int32)
    score = rng.integers(0, 2**15, size=expert.shape).astype(np.int16)
    score[0, 0], score[0, 1] = 0, 32767
    assert check_experts(rng, ffns, expert, score) > 200


def test_experts_with_all_tokens_on_one_and_saturated_residual():
    rng = np.random.default_rng(13)
    ffns = random_experts(rng, 5, 33, 8)
    expert = np.full((1, 40, 1), 3, dtype=np.int32)
    score = np.full((1, 40, 1), 32767, dtype=np.int16)
    check_experts(rng, ffns, expert, score, (32000, 32768))
    check_experts(rng, ffns, expert, score, (-32768, -32000))
    expert = np.concatenate([expert, np.full_like(expert, 0)], axis=-1)  # 1, 2 and 4 stay empty
    check_experts(rng, ffns, expert, np.concatenate([score, score], axis=-1), (-30000, 30000))


@pytest.mark.parametrize("pad", [0, -128])
@pytest.mark.parametrize(("height", "width", "channels", "out"), [(1, 1, 5, 3), (4, 7, 8, 33)])
def test_conv3x3(height, width, channels, out, pad):
    rng = np.random.default_rng(14)
    layer = random_linear(rng, out, channels, 100, 20, (3, 3))
    x = int8(rng, (2, height * width, channels))
    (actual,) = call(
        "Conv3x3", [x, *parameters(layer)], [np.int8], shift=layer.shift, height=height, width=width, pad=pad
    )
    assert_equal(actual, op.conv3x3(x, layer, height, width, pad), 2 * height * width * out)
    assert len(np.unique(actual)) > 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (6, 3)])
def test_upsample2x(height, width):
    rng = np.random.default_rng(15)
    x = int8(rng, (3, height * width, 4))
    x[0], x[1, :, 0] = -128, 127
    (actual,) = call("Upsample2x", [x], [np.int8], height=height, width=width)
    assert_equal(actual, op.upsample2x(x, height, width), 3 * 4 * height * width * 4)


@pytest.mark.parametrize("factor", [1, 2, 4, 16])
def test_task_outputs(factor):
    rng = np.random.default_rng(16)
    raw = rng.integers(-2, 3, size=(2, 6, 5)).astype(np.int16)  # many ties
    raw[1, :3] = rng.integers(*INT16, size=(3, 5))
    raw[1, 3], raw[1, 4] = -32768, 32767
    sizes = {"height": 2, "width": 3, "factor": factor}
    (actual,) = call("ClassMap", [raw], [np.uint8], **sizes)
    assert_equal(actual, op.task_output(raw, 2, 3, factor, classes=True), 2 * 6 * factor**2)
    (actual,) = call("PixelValues", [raw], [np.int32], **sizes)
    assert_equal(actual, op.task_output(raw, 2, 3, factor, classes=False), 2 * 6 * factor**2 * 5)
