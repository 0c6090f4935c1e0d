# SPDX-License-Identifier: Apache-2.0
"""Weights that break the rules of SPEC.md, section 9, in bundles with correct checksums."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge_moe.compiler.weights import linear_block
from edge_moe.testing.bundles import compile_network, small_config
from edge_moe.testing.damage import refuse_bundle, relist
from edge_moe.testing.networks import random_network
from edge_moe_host.contract.blocks import check_block
from edge_moe_host.contract.bundle import Bundle
from edge_moe_host.contract.isa import Epilogue, Instruction, Opcode
from edge_moe_host.contract.layout import PLANE
from edge_moe_host.errors import BundleError


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    # 40 channels: a tile and a quarter; heads are padded to 32 channels
    config = small_config(patch_size=4, image_size=(8, 16), embed_dim=40, head_channels=8)
    return compile_network(random_network(config), folder)[0]


def block_of(bundle: Bundle, opcode: Opcode, epilogue: Epilogue = Epilogue.REQUANTISE) -> int:
    """Byte of the weight image at which the block of the first such instruction begins."""
    program = bundle.task("depth").instructions
    found = next(i for i in program if i.opcode == opcode and i.epilogue == epilogue)
    if opcode == Opcode.EXPERTS:
        return 64 * bundle.expert_table(found)[0].weight_offset
    return 64 * found.weight_offset


def refused(bundle: Bundle, at: int, values: bytes, folder: Path) -> str:
    """The message for the bundle with other bytes in its weight image."""
    path = Path(shutil.copytree(bundle.path, folder / "bundle"))
    weights = bytearray((path / "weights.bin").read_bytes())
    assert weights[at : at + len(values)] != values
    weights[at : at + len(values)] = values
    (path / "weights.bin").write_bytes(weights)
    relist(path)
    return refuse_bundle(path)


def int16(*values: int) -> bytes:
    return np.array(values, "<i2").tobytes()


def int32(*values: int) -> bytes:
    return np.array(values, "<i4").tobytes()


# byte 4 o + 1 of a plane: inputs 8 to 15 of output o; two planes of parameters come before the first tile
ABSENT_INPUT = (2 + 8) * PLANE + 1  # 40 inputs are a tile of 32 and one of 8, here plane 0 of the second


@pytest.mark.parametrize(
    ("opcode", "at", "values", "message"),
    [
        (Opcode.LINEAR, ABSENT_INPUT, b"\x01", "channels that do not exist have weights"),
        (Opcode.CONV3X3, 2 * PLANE + 4 * 8, b"\x01", "channels that do not exist have weights"),
        (Opcode.EXPERTS, ABSENT_INPUT, b"\x01", "channels that do not exist have weights"),
        (Opcode.GATE, ABSENT_INPUT, b"\x01", "channels that do not exist have weights"),
        (Opcode.GATE, 2 * PLANE + 4 * 4, b"\x01", "channels that do not exist have weights"),
        (Opcode.CONV3X3, 4 * 8, int32(1), "channels that do not exist have parameters"),
        (Opcode.CONV3X3, PLANE + 2 * 8, int16(1), "channels that do not exist have parameters"),
        (Opcode.LAYERNORM, 2 * PLANE + 4 * 8, int32(1), "channels that do not exist have parameters"),
        (Opcode.LAYERNORM, PLANE + 2 * 40, int16(1), "channels that do not exist have parameters"),
        (Opcode.LOAD, 2 * 40, int16(1), "channels that do not exist have values"),
        (Opcode.LINEAR, PLANE, int16(-1), "a multiplier is negative"),
        (Opcode.LINEAR, 0, int32(2**31 - 1), "a sum can leave 32 bits"),
        (Opcode.LINEAR, 0, int32(-(2**31)), "a sum can leave 32 bits"),
        (Opcode.GATE, 4 * 16, int32(1), "low halves have biases"),
        (Opcode.GATE, PLANE, int16(1), "a gate has multipliers"),
        (Opcode.ATTENTION, 0, int32(0), "channels of a head have different multipliers"),
        (Opcode.ATTENTION, 0, int32(*[-1] * 32), r"multipliers are not in \[0, 32767\]"),
        (Opcode.ATTENTION, PLANE, int16(-1), r"multipliers are not in \[0, 32767\]"),
    ],
)
def test_blocks_that_no_executor_may_use(
    opcode: Opcode, at: int, values: bytes, message: str, original: Bundle, tmp_path: Path
) -> None:
    text = refused(original, block_of(original, opcode) + at, values, tmp_path)
    assert re.search(rf"the weights of .*instruction \d+ of \w+.program.bin cannot be used: {message}", text)


def linear(bits: int = 8, fan_in: int = 40, out: int = 33) -> Instruction:
    return Instruction(opcode=Opcode.LINEAR, in_channels=fan_in, out_channels=out, weight_bits=bits)


def packed(weight: np.ndarray, bias: np.ndarray, bits: int) -> np.ndarray:
    multiplier = np.full(len(weight), 32767, np.int16)
    return np.frombuffer(linear_block(weight, bias.astype(np.int32), multiplier, bits), np.uint8)


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_most_negative_weight_of_every_width(bits: int) -> None:
    most = 2 ** (bits - 1)
    weight = np.random.default_rng(bits).integers(1 - most, most, (33, 40)).astype(np.int8)
    bias = np.random.default_rng(bits).integers(-(2**30), 2**30, 33)
    check_block(linear(bits), packed(weight, bias, bits), "it")
    for place in ((0, 0), (32, 39), (31, 32)):
        wrong = weight.copy()
        wrong[place] = -most
        with pytest.raises(BundleError, match=f"a weight is -{most}"):
            check_block(linear(bits), packed(wrong, bias, bits), "it")


@pytest.mark.parametrize("out", [0, 32])
@pytest.mark.parametrize("sign", [-1, 1])
def test_sums_reach_the_end_of_32_bits_and_no_further(sign: int, out: int) -> None:
    weight = np.random.default_rng(0).integers(-127, 128, (33, 40)).astype(np.int8)
    bias = np.zeros(33, np.int64)
    bias[out] = sign * (2**31 - 1 - 128 * np.abs(weight[out].astype(np.int64)).sum())
    check_block(linear(), packed(weight, bias, 8), "it")
    bias[out] += sign
    with pytest.raises(BundleError, match="a sum can leave 32 bits"):
        check_block(linear(), packed(weight, bias, 8), "it")
