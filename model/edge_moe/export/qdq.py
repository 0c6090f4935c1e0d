# SPDX-License-Identifier: Apache-2.0
"""``path.qdq.onnx``: the same network as ordinary float operators between quantise/dequantise pairs.

It serves speed in onnxruntime, which turns the pairs into integer kernels, and other runtimes. It has
the weights and scales of the integer network but float LayerNorm, softmax and GELU, so results agree
closely but not bit for bit. Inside, values are in integer units of the golden model; outputs are real.
Imports no torch.
"""

import dataclasses
import math

import numpy as np
import onnx
from onnx import TensorProto

from edge_moe.export.qdq_builder import QdqBuilder, Quantised
from edge_moe.quant.network import Head, IntegerNetwork, head_grid
from edge_moe.tasks import TASKS
from edge_moe_host.golden.arithmetic import EXP2_BITS, GELU_FRACTION, INT8_MIN
from edge_moe_host.golden.operators import AVERAGE_FRACTION, FFN, Attention, Gate, Linear

LOGIT_UNIT = math.log(2) / (1 << EXP2_BITS)  # a unit of a base-2 logit in Q8, as an exponent of e


def build_qdq_model(network: IntegerNetwork, task: str) -> onnx.ModelProto:
    """The model of one task, with float32 results; EdgeMoEError for a task that the network lacks."""
    network = network.path(task)
    g, N = QdqBuilder(), network.config.num_tokens
    x = _patch_embedding(g, network)
    for index, block in enumerate(network.blocks):
        name = f"block{index}"
        normed = g.layernorm(x, block.norm1, f"{name}.norm1")
        x = g.op("Add", x, _attention(g, normed, block.attention, N, name), name=f"{name}.proj")
        normed = g.layernorm(x, block.norm2, f"{name}.norm2")
        if block.ffn is not None:
            x = g.op("Add", x, _ffn(g, normed, block.ffn, name), name=f"{name}.ffn")
        else:
            x = _experts(g, x, normed, block.gates[task], block.experts, name)
    _head(g, x, network.heads[task], network, task)
    model = g.model(network, task, "edge_moe_qdq", TensorProto.FLOAT, TensorProto.FLOAT)
    onnx.checker.check_model(model, full_check=True)
    return model


def _patch_embedding(g: QdqBuilder, network: IntegerNetwork) -> str:
    """Residual stream, float [batch * N, D]."""
    cfg, p = network.config, network.config.patch_size
    rows, columns = cfg.grid_size
    tiles = g.op("Transpose", g.reshape("image", -1, rows, p, columns, p, 3), perm=[0, 1, 3, 2, 4, 5])
    patches = Quantised(g.reshape(tiles, -1, 3 * p * p))
    x = g.reshape(g.linear(patches, network.patch, "patch_embedding"), -1, rows * columns, cfg.embed_dim)
    if cfg.cls_token:
        x = g.op("Pad", x, np.array([0, 1, 0, 0, 0, 0]))
    x = g.op("Add", x, network.position.astype(np.float32))
    return g.reshape(x, -1, cfg.embed_dim)


def _attention(g: QdqBuilder, normed: Quantised, attn: Attention, tokens: int, name: str) -> str:
    """Float [batch * N, D] to be added to the residual stream."""
    D, h = len(attn.out_multiplier), attn.heads
    qkv = g.quantise(g.linear(normed, attn.qkv, f"{name}.qkv"), 1.0, 0, f"{name}.qkv")
    parts = g.op("Transpose", g.reshape(qkv.name, -1, tokens, 3, h, D // h), perm=[2, 0, 3, 1, 4])
    q, k, v = (
        g.dequantise(Quantised(g.op("Squeeze", part, np.array([0]))))
        for part in g.ops("Split", parts, outputs=3, axis=0, num_outputs=3)
    )
    unit = attn.logit_multiplier * (2.0**-attn.logit_shift * LOGIT_UNIT)
    logits = g.op("Mul", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2])), unit[:, None, None])
    average = g.op("MatMul", g.op("Softmax", logits, axis=-1), v)
    average = g.reshape(g.op("Transpose", average, perm=[0, 2, 1, 3]), -1, D)
    mixed = g.op("Mul", average, attn.out_multiplier * 2.0 ** (AVERAGE_FRACTION - attn.out_shift))
    return g.linear(g.quantise(mixed, 1.0, 0, f"{name}.attention"), attn.proj, f"{name}.proj")


def _ffn(g: QdqBuilder, x: Quantised, ffn: FFN, name: str) -> str:
    """Linear, GELU, Linear: float rows in units of the residual stream."""
    one = 2.0**-GELU_FRACTION
    hidden = g.op("Gelu", g.linear(x, ffn.fc1, f"{name}.fc1", one))
    scale = one * 2.0**ffn.gelu_shift / max(ffn.gelu_multiplier, 1)
    return g.linear(g.quantise(hidden, scale, ffn.zero_point, f"{name}.hidden"), ffn.fc2, f"{name}.fc2")


def _experts(
    g: QdqBuilder, x: str, normed: Quantised, gate: Gate, experts: tuple[FFN, ...], name: str
) -> str:
    """Tokens sorted by expert; each expert's results are added to the rows of its tokens."""
    unit = gate.multiplier * 2.0**-gate.shift * LOGIT_UNIT
    logits = g.op("Gemm", g.dequantise(normed), gate.weight * unit, gate.bias * unit, transB=1)
    scores = g.op("Softmax", logits, axis=-1, name=f"{name}.gate.scores")
    score, expert = g.ops("TopK", scores, np.array([gate.top_k]), outputs=2, axis=-1)
    flat = g.reshape(expert, -1)
    _, order = g.ops("TopK", flat, g.op("Shape", flat), outputs=2, axis=0, largest=0)
    own = g.op("Equal", np.arange(len(experts))[:, None], flat)
    counts = g.op("ReduceSum", g.op("Cast", own, to=TensorProto.INT64), np.array([1]), keepdims=0)
    token = g.op("Div", order, np.int64(gate.top_k))
    groups = g.ops("Split", g.op("Gather", normed.name, token), counts, outputs=len(experts), axis=0)
    results = [
        _ffn(g, Quantised(group), ffn, f"{name}.expert{index}")
        for index, (group, ffn) in enumerate(zip(groups, experts, strict=True))
    ]
    weights = g.op("Gather", g.reshape(score, -1, 1), order)
    weighted = g.op("Mul", g.op("Concat", *results, axis=0), weights)
    target = g.op("Unsqueeze", token, np.array([-1]))
    return g.op("ScatterND", x, target, weighted, reduction="add", name=f"{name}.ffn")


def _head(g: QdqBuilder, x: str, head: Head, network: IntegerNetwork, task: str) -> None:
    """Convolutions on [batch, C, h, w] and the task's result."""
    cfg = network.config
    D, (rows, columns) = cfg.embed_dim, cfg.grid_size
    tokens = g.reshape(g.layernorm(x, head.norm, "head.norm").name, -1, cfg.num_tokens, D)
    if cfg.cls_token:
        tokens = g.op("Slice", tokens, np.array([1]), np.array([cfg.num_tokens]), np.array([1]))
    grid = g.reshape(tokens, -1, rows, columns, D)
    y = Quantised(g.op("Transpose", grid, perm=[0, 3, 1, 2]))
    for stage, conv in enumerate(head.convs):
        if stage:
            y = g.quantise(_resize(g, g.dequantise(y), 2), 1.0, y.zero_point, f"head.upsample{stage}")
        weight, bias = g.parameters(y, _channels_first(conv), 1.0, f"head.conv{stage}")
        z = g.op("Conv", g.dequantise(y), weight, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        y = g.quantise(z, 1.0, INT8_MIN, f"head.conv{stage}")  # negative values saturate to 0: ReLU
    pixel = dataclasses.replace(head.out, weight=head.out.weight[:, :, None, None])
    weight, bias = g.parameters(y, pixel, head.scale, "head.out")
    raw = g.op("Conv", g.dequantise(y), weight, bias, kernel_shape=[1, 1])
    height, width, factor = head_grid(cfg, len(head.convs))
    flat = g.reshape(raw, -1, len(head.out.weight), height * width)
    g.op("Transpose", flat, perm=[0, 2, 1], name="head.out")
    full = _resize(g, raw, factor)
    if TASKS[task].kind == "classes":
        g.op("Cast", g.op("ArgMax", full, axis=1, keepdims=0), to=TensorProto.UINT8, name="output")
    else:
        g.op("Transpose", full, perm=[0, 2, 3, 1], name="output")


def _resize(g: QdqBuilder, x: str, factor: int) -> str:
    """Bilinear resize, half-pixel centres, edges repeated."""
    return g.op(
        "Resize",
        x,
        "",
        np.array([1, 1, factor, factor], dtype=np.float32),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


def _channels_first(conv: Linear) -> Linear:
    return dataclasses.replace(conv, weight=conv.weight.transpose(0, 3, 1, 2))
