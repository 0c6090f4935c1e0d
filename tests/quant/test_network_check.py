# SPDX-License-Identifier: Apache-2.0
"""What check_network proves and refuses, at its exact boundaries (SPEC.md, section 5)."""

import dataclasses
import re

import numpy as np
import pytest

from edge_moe import EdgeMoEError
from edge_moe.config import ModelConfig
from edge_moe.quant.network import _check_norm, check_network
from edge_moe.testing.networks import random_network
from edge_moe_host.contract.layout import EPSILON_LIMIT
from edge_moe_host.golden.operators import LayerNorm

INT32_MAX = 2**31 - 1
CONFIG = ModelConfig(image_size=(16, 16), tasks={"semseg": 3, "depth": 1}, embed_dim=8, num_heads=2, depth=2,
                     patch_size=8, mlp_ratio=1, num_experts=3, expert_ratio=1, head_channels=4)  # fmt: skip
NETWORK = random_network(CONFIG)

# (where the error places it, path of fields, indices and keys to a Linear)
LINEARS = {
    "patch_embedding": ("patch",),
    "block0.qkv": ("blocks", 0, "attention", "qkv"),
    "block1.proj": ("blocks", 1, "attention", "proj"),
    "block0.fc1": ("blocks", 0, "ffn", "fc1"),
    "block0.fc2": ("blocks", 0, "ffn", "fc2"),
    "block1.expert0.fc1": ("blocks", 1, "experts", 0, "fc1"),
    "block1.expert2.fc2": ("blocks", 1, "experts", 2, "fc2"),
    "head.semseg.conv0": ("heads", "semseg", "convs", 0),
    "head.depth.conv2": ("heads", "depth", "convs", 2),
    "head.depth.out": ("heads", "depth", "out"),
}
NORMS = {
    "block0.norm1": ("blocks", 0, "norm1"),
    "block1.norm2": ("blocks", 1, "norm2"),
    "head.semseg.norm": ("heads", "semseg", "norm"),
    "head.depth.norm": ("heads", "depth", "norm"),
}
GATES = {f"block1.gate.{task}": ("blocks", 1, "gates", task) for task in CONFIG.tasks}
# (where, path, multiplier, shift) of what is requantised outside of linears
REQUANTISED = {
    "logits": ("block1.attention", ("blocks", 1, "attention"), "logit_multiplier", "logit_shift"),
    "average": ("block0.attention", ("blocks", 0, "attention"), "out_multiplier", "out_shift"),
    "dense": ("block0.hidden", ("blocks", 0, "ffn"), "gelu_multiplier", "gelu_shift"),
    "expert": ("block1.expert1.hidden", ("blocks", 1, "experts", 1), "gelu_multiplier", "gelu_shift"),
    "gate": ("block1.gate.depth", GATES["block1.gate.depth"], "multiplier", "shift"),
}


def at(node, path):
    """The value at the end of a path."""
    for step in path:
        node = getattr(node, step) if dataclasses.is_dataclass(node) else node[step]
    return node


def replaced(node, path, **changes):
    """A copy of ``node`` with fields changed at the end of a path."""
    if not path:
        return dataclasses.replace(node, **changes)
    step, rest = path[0], path[1:]
    if dataclasses.is_dataclass(node):
        return dataclasses.replace(node, **{step: replaced(getattr(node, step), rest, **changes)})
    if isinstance(node, tuple):
        return (*node[:step], replaced(node[step], rest, **changes), *node[step + 1 :])
    return {**node, step: replaced(node[step], rest, **changes)}


def passes(path, **changes):
    check_network(replaced(NETWORK, path, **changes))


def refuses(where, what, path, **changes):
    message = rf"^layer '{re.escape(where)}' cannot be computed exactly: .*{what}.*\.$"
    with pytest.raises(EdgeMoEError, match=message):
        check_network(replaced(NETWORK, path, **changes))


def with_value(array, value, dtype=None):
    """A copy whose last entry is ``value``."""
    array = np.array(array, dtype=dtype)
    array.flat[-1] = value
    return array


def test_a_network_within_its_limits_passes():
    check_network(NETWORK)
    for task in CONFIG.tasks:
        check_network(NETWORK.path(task))
    check_network(random_network(CONFIG, expert_bits=2))


def test_changing_a_copy_leaves_the_network():
    changed = replaced(NETWORK, LINEARS["block1.expert2.fc2"], shift=3)
    assert at(changed, LINEARS["block1.expert2.fc2"]).shift == 3
    assert at(NETWORK, LINEARS["block1.expert2.fc2"]).shift != 3


# ------------------------------------------------------------------ linears


@pytest.mark.parametrize("where", LINEARS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_accumulator_may_reach_the_end_of_int32_and_no_further(where, sign):
    path = LINEARS[where]
    layer = at(NETWORK, path)
    rest = INT32_MAX - 128 * np.abs(layer.weight[-1].astype(int)).sum()
    passes(path, bias=with_value(layer.bias, sign * rest))
    refuses(where, "may reach 2147483648", path, bias=with_value(layer.bias, sign * (rest + 1)))


def test_the_weights_alone_may_exceed_int32():
    wide = 2**31 // (128 * 127) + 1
    weight = np.full((8, wide), 127, dtype=np.int8)
    refuses("patch_embedding", f"may reach {wide * 128 * 127}", ("patch",), weight=weight,
            bias=np.zeros(8, np.int32))  # fmt: skip
    passes(("patch",), weight=weight[:, 1:], bias=np.zeros(8, np.int32))


@pytest.mark.parametrize("where", LINEARS)
@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_stay_within_their_bits(where, bits):
    path, limit = LINEARS[where], 2 ** (bits - 1) - 1
    weight = np.clip(at(NETWORK, path).weight, -limit, limit)
    for sign in (1, -1):
        passes(path, bits=bits, weight=with_value(weight, sign * limit))
        if sign * (limit + 1) <= 127:
            refuses(where, f"a weight exceeds {limit}, .* {bits} bits", path, bits=bits,
                    weight=with_value(weight, sign * (limit + 1)))  # fmt: skip


@pytest.mark.parametrize("where", LINEARS)
@pytest.mark.parametrize("bits", [0, 1, 9, 16])
def test_widths_that_do_not_exist(where, bits):
    weight = np.zeros_like(at(NETWORK, LINEARS[where]).weight)
    refuses(where, f"weights of {bits} bits", LINEARS[where], bits=bits, weight=weight)


@pytest.mark.parametrize("where", LINEARS)
def test_multiplier_and_shift_of_a_linear(where):
    path = LINEARS[where]
    multiplier = at(NETWORK, path).multiplier
    for value in (0, 32767):
        passes(path, multiplier=with_value(multiplier, value))
    refuses(where, "a multiplier is negative", path, multiplier=with_value(multiplier, -1))
    refuses(where, "a multiplier exceeds 32767", path, multiplier=with_value(multiplier, 32768, np.int32))
    for shift in (1, 47):
        passes(path, shift=shift)
    for shift in (-1, 0, 48):
        refuses(where, rf"shift {shift} is not in \[1, 47\]", path, shift=shift)


# ------------------------------------------------------------------ LayerNorm


@pytest.mark.parametrize("where", NORMS)
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_gamma_and_beta_may_reach_the_end_of_int32_and_no_further(where, signs):
    path = NORMS[where]
    norm = at(NETWORK, path)
    for gamma in (5, 32767):
        rest = INT32_MAX - gamma * 2**15
        gammas = with_value(norm.gamma, signs[0] * gamma)
        passes(path, gamma=gammas, beta=with_value(norm.beta, signs[1] * rest))
        refuses(
            where, "gamma and beta", path, gamma=gammas, beta=with_value(norm.beta, signs[1] * (rest + 1))
        )


@pytest.mark.parametrize("where", NORMS)
def test_shift_and_epsilon_of_a_norm(where):
    path = NORMS[where]
    for changes in ({"shift": 1}, {"shift": 31}, {"epsilon": 1}, {"epsilon": EPSILON_LIMIT}):
        passes(path, **changes)
    for changes in ({"shift": 0}, {"shift": 32}, {"epsilon": 0}, {"epsilon": -1}, {"epsilon": 2**32}):
        refuses(where, r"shift -?\d+ is not in .* or epsilon -?\d+ in \[1, 4294967295\]", path, **changes)


def test_the_spread_stays_below_52_bits():
    """With any epsilon, up to 2,048 channels of which half are at either end of int16."""

    def norm(width):
        return LayerNorm(np.ones(width, np.int16), np.zeros(width, np.int32), 1, EPSILON_LIMIT)

    _check_norm("norm", norm(2048))
    with pytest.raises(EdgeMoEError, match="may reach"):
        _check_norm("norm", norm(2049))


# ------------------------------------------------------------------ gate, attention, GELU


@pytest.mark.parametrize("where", GATES)
def test_weights_of_a_gate_are_two_int8_halves(where):
    path = GATES[where]
    weight = at(NETWORK, path).weight
    for value in (16319, -16319):
        passes(path, weight=with_value(weight, value))
    for value in (16320, -16320, 32767, -32768):
        refuses(where, "a weight exceeds 16319", path, weight=with_value(weight, value))


@pytest.mark.parametrize("where", GATES)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_accumulator_of_a_gate(where, sign):
    path = GATES[where]
    gate = at(NETWORK, path)
    rest = INT32_MAX - 128 * np.abs(gate.weight[-1].astype(int)).sum()
    passes(path, bias=with_value(gate.bias, sign * rest))
    refuses(where, "may reach 2147483648", path, bias=with_value(gate.bias, sign * (rest + 1)))


@pytest.mark.parametrize("where", GATES)
def test_at_most_eight_experts_for_a_token(where):
    passes(GATES[where], top_k=8)
    refuses(where, "top-9, at most 8", GATES[where], top_k=9)


@pytest.mark.parametrize("name", REQUANTISED)
def test_multiplier_and_shift_outside_of_linears(name):
    where, path, multiplier, shift = REQUANTISED[name]
    old = getattr(at(NETWORK, path), multiplier)
    scalar = np.ndim(old) == 0

    def value(number):
        return number if scalar else with_value(old, number, np.int32)

    for number in (0, 32767):
        passes(path, **{multiplier: value(number)})
    refuses(where, "a multiplier is negative", path, **{multiplier: value(-1)})
    refuses(where, "a multiplier exceeds 32767", path, **{multiplier: value(32768)})
    for number in (1, 47):
        passes(path, **{shift: number})
    for number in (0, 48):
        refuses(where, rf"shift {number} is not in \[1, 47\]", path, **{shift: number})


@pytest.mark.parametrize("name", ["dense", "expert"])
def test_the_zero_point_of_a_hidden_activation_is_int8(name):
    where, path, _, _ = REQUANTISED[name]
    for zero_point in (-128, 127):
        passes(path, zero_point=zero_point)
    for zero_point in (-129, 128):
        refuses(where, f"zero point {zero_point} is not int8", path, zero_point=zero_point)


# ------------------------------------------------------------------ the whole network


def test_at_most_4096_tokens():
    for columns, cls, allowed in ((64, False, True), (64, True, False), (65, False, False)):
        config = dataclasses.replace(CONFIG, image_size=(64 * 8, columns * 8), cls_token=cls)
        network = dataclasses.replace(NETWORK, config=config)
        if allowed:
            check_network(network)
        else:
            with pytest.raises(
                EdgeMoEError, match=f"{64 * columns + cls} tokens, at most 4096 are supported"
            ):
                check_network(network)


def test_class_maps_are_uint8():
    for task, channels, allowed in (("semseg", 256, True), ("semseg", 257, False), ("depth", 257, True)):
        path = ("heads", task, "out")
        layer = at(NETWORK, path)
        wide = {name: np.resize(getattr(layer, name), (channels, *getattr(layer, name).shape[1:]))
                for name in ("weight", "bias", "multiplier")}  # fmt: skip
        wide["bias"] = np.zeros(channels, np.int32)
        if allowed:
            passes(path, **wide)
        else:
            refuses(f"head.{task}.out", "257 classes, at most 256 are supported", path, **wide)
