# SPDX-License-Identifier: Apache-2.0
"""Constants of graph nodes as golden's layers, each proven to stay within the accelerator's integers.

SPEC.md, sections 2, 4 and 5.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_moe.compiler.read_graph import Node
from edge_moe.compiler.weights import weight_bits
from edge_moe.quant.network import ACCUMULATOR_LIMIT, GATE_WEIGHT_LIMIT, NORM_SHIFT_LIMIT
from edge_moe_host.contract.layout import EPSILON_LIMIT, MULTIPLIER_LIMIT, SHIFT_LIMIT
from edge_moe_host.golden.arithmetic import INT8_MAX, INT8_MIN
from edge_moe_host.golden.operators import FFN, Gate, LayerNorm, Linear

GELU_FIELDS = ("gelu_multiplier", "gelu_shift", "zero_point")


def in_range(node: Node, name: str, value: int, low: int, high: int) -> int:
    """``value`` if it is in [low, high]; EdgeMoEError otherwise."""
    node.require(low <= value <= high, f"{name} = {value} is not in [{low}, {high}]")
    return value


def linear(node: Node, fan_in: int) -> Linear:
    """The node's linear or convolution, stored in as few bits as its weights need."""
    return _linear(node, node.constants, node.attributes["shift"], fan_in)


def _linear(node: Node, constants: Mapping[str, Any], shift: int, fan_in: int, part: str = "") -> Linear:
    weight, bias, multiplier = (constants[name] for name in ("weight", "bias", "multiplier"))
    out = len(weight)
    node.require(
        weight.shape[-1] == fan_in,
        f"{part}weight {list(weight.shape)} does not fit an input of {fan_in} channels",
    )
    node.require(
        bias.shape == multiplier.shape == (out,), f"{part}bias and multiplier must have {out} entries each"
    )
    node.require(int(multiplier.min()) >= 0, f"{part}multiplier has a negative entry, {multiplier.min()}")
    node.require(int(weight.min()) >= -127, f"{part}weight has the value -128; weights are in [-127, 127]")
    _check_accumulator(node, weight.reshape(out, -1), bias, part)
    shift = in_range(node, f"{part}shift", shift, 1, SHIFT_LIMIT)
    return Linear(weight, bias, multiplier, shift, weight_bits(weight))


def _check_accumulator(node: Node, weight: np.ndarray, bias: np.ndarray, part: str = "") -> None:
    """EdgeMoEError unless sums of products with any int8 input stay in int32."""
    worst = 128 * np.abs(weight.astype(np.int32)).sum(1, dtype=np.int64) + np.abs(bias.astype(np.int64))
    node.require(int(worst.max()) <= ACCUMULATOR_LIMIT, f"{part}accumulator may reach {int(worst.max())}")


def layernorm(node: Node, channels: int) -> LayerNorm:
    """The node's gamma and beta."""
    gamma, beta = node.constants["gamma"], node.constants["beta"]
    node.require(
        gamma.shape == beta.shape == (channels,), f"gamma and beta must have {channels} entries each"
    )
    worst = int((np.abs(gamma.astype(np.int64)) * 2**15 + np.abs(beta.astype(np.int64))).max())
    node.require(worst <= ACCUMULATOR_LIMIT, f"gamma and beta may reach {worst}, more than 32 bits")
    epsilon = in_range(node, "epsilon", node.attributes["epsilon"], 1, EPSILON_LIMIT)
    shift = in_range(node, "shift", node.attributes["shift"], 1, NORM_SHIFT_LIMIT)
    return LayerNorm(gamma, beta, shift, epsilon)


def ffn(node: Node, fan_in: int) -> FFN:
    """First linear and GELU of a LinearGelu node; the second linear belongs to another node."""
    first = linear(node, fan_in)
    return FFN(first, *_gelu(node, node.attributes), fc2=first)


def experts(node: Node, width: int) -> tuple[FFN, ...]:
    """All experts of an Experts node, stored like any linear, in at most bits1 and bits2 bits."""
    constants, attributes = node.constants, node.attributes
    count, hidden = constants["fc1.weight"].shape[:2]
    node.require(
        all(len(constants[name]) == count for name in constants)
        and all(len(attributes[name]) == count for name in ("bits1", "bits2")),
        f"its constants and attributes are not all for {count} experts",
    )
    result = []
    for index in range(count):
        layers = []
        for part, fan_in, bits in (("fc1", width, "bits1"), ("fc2", hidden, "bits2")):
            own = {name: constants[f"{part}.{name}"][index] for name in ("weight", "bias", "multiplier")}
            title = f"expert {index} {part}."
            layer = _linear(node, own, int(constants[f"{part}.shift"][index]), fan_in, title)
            stated = attributes[bits][index]
            node.require(
                layer.bits <= stated <= 8, f"{title}weight needs {layer.bits} bits, {bits} says {stated}"
            )
            layers.append(layer)
        node.require(len(layers[1].weight) == width, f"expert {index} does not give back {width} channels")
        gelu = {name: int(constants[name][index]) for name in GELU_FIELDS}
        result.append(FFN(layers[0], *_gelu(node, gelu), fc2=layers[1]))
    return tuple(result)


def _gelu(node: Node, values: Mapping[str, int]) -> tuple[int, int, int]:
    """Multiplier, shift and zero point of the requantisation after GELU."""
    return (
        in_range(node, "gelu_multiplier", values["gelu_multiplier"], 0, MULTIPLIER_LIMIT),
        in_range(node, "gelu_shift", values["gelu_shift"], 1, SHIFT_LIMIT),
        in_range(node, "zero_point", values["zero_point"], INT8_MIN, INT8_MAX),
    )


def gate(logits: Node, route: Node, width: int) -> Gate:
    """The gate of a GateLogits and a Route node."""
    weight, bias = logits.constants["weight"], logits.constants["bias"]
    logits.require(weight.shape[1] == width, f"weight {list(weight.shape)} does not fit {width} channels")
    logits.require(bias.shape == (len(weight),), f"bias must have {len(weight)} entries")
    logits.require(
        int(np.abs(weight.astype(np.int32)).max()) <= GATE_WEIGHT_LIMIT,
        f"a weight exceeds {GATE_WEIGHT_LIMIT}",
    )
    _check_accumulator(logits, weight, bias)
    attributes = route.attributes
    route.require(
        1 <= attributes["top_k"] <= len(weight), f"top_k = {attributes['top_k']} of {len(weight)} experts"
    )
    return Gate(
        weight,
        bias,
        in_range(route, "multiplier", attributes["multiplier"], 0, MULTIPLIER_LIMIT),
        in_range(route, "shift", attributes["shift"], 1, SHIFT_LIMIT),
        attributes["top_k"],
    )
