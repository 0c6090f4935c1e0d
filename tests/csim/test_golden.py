# SPDX-License-Identifier: Apache-2.0
"""Whole networks on the accelerator: every intermediate of golden's trace, for models of many shapes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edge_moe.accelerator import load_accelerator
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe.testing.bundles import compile_network, small_config, values_of
from edge_moe.testing.csim import csim
from edge_moe.testing.networks import dropped_experts, random_images, random_network
from edge_moe_host.contract.bundle import Bundle
from edge_moe_host.contract.isa import Opcode
from edge_moe_host.golden.interpreter import task_output
from edge_moe_host.golden.trace import Trace

CONFIGS = {
    "cls": {},
    "no cls": {"cls_token": False},
    "odd tokens": {"image_size": (24, 24), "cls_token": False},
    "one token": {"image_size": (8, 8), "cls_token": False, "depth": 1, "num_experts": 1, "top_k": 1},
    "48 channels": {"embed_dim": 48, "num_heads": 3},
    "wide heads": {"embed_dim": 64, "num_heads": 1},
    "heads of 48": {"embed_dim": 96, "num_heads": 2},
    "dense": {"routing": "dense", "depth": 1},
    "pup head": {"head": "pup", "tasks": {"depth": 1}},
    "top-1": {"top_k": 1},
    "top-3": {"top_k": 3},
    "top-4 of 32": {"top_k": 4, "num_experts": 32},
    "one task": {"tasks": {"depth": 1}},
    "every kind": {"tasks": {"semseg": 21, "human_parts": 7, "saliency": 1, "normals": 3, "edge": 1}},
    "wide head": {"head_channels": 72, "tasks": {"semseg": 40}},
    "several key blocks": {"image_size": (64, 64), "tasks": {"depth": 1}},
}


def assert_equals_golden(
    bundle: Bundle, network: IntegerNetwork, accelerator: str = "zcu104", images: int = 1
) -> int:
    """Assert that every intermediate of every task equals golden's; return the number of values."""
    pictures, count = random_images(network.config, images, seed=3), 0
    for task in network.tasks:
        expected = Trace()
        golden = run_network(network, pictures, task, expected)
        for index, picture in enumerate(pictures):
            run = csim(accelerator=accelerator).run(bundle, task, picture, trace=True)
            assert list(run.tensors) == [name for name in expected.tensors if name != "output"]
            for name, value in run.tensors.items():
                assert value.dtype == expected.tensors[name].dtype, name
                np.testing.assert_array_equal(value, expected.tensors[name][index], err_msg=name)
                count += value.size
            np.testing.assert_array_equal(run.raw, golden.raw[index])
            output = task_output(bundle, task, run.raw[None])
            np.testing.assert_array_equal(output[0], golden.output[index])
            count += output.size
            assert run.cycles == sum(run.instruction_cycles) > 0
    return count


@pytest.mark.parametrize("name", list(CONFIGS))
def test_networks(name: str, tmp_path: Path) -> None:
    network = random_network(small_config(**CONFIGS[name]), seed=len(name))
    bundle, _ = compile_network(network, tmp_path)
    assert assert_equals_golden(bundle, network) == values_of(network, 1)


@pytest.mark.parametrize("bits", [2, 5])
def test_weights_of_fewer_bits(bits: int, tmp_path: Path) -> None:
    network = random_network(small_config(tasks={"depth": 1}), seed=bits, expert_bits=bits)
    bundle, _ = compile_network(network, tmp_path)
    assert assert_equals_golden(bundle, network) == values_of(network, 1)


def test_experts_of_different_widths(tmp_path: Path) -> None:
    """One expert each of 2, 4 and 7 bits, the others of 8."""
    config = small_config(tasks={"semseg": 5})
    network = random_network(config)
    others = [random_network(config, seed=bits, expert_bits=bits) for bits in (2, 4, 7)]
    blocks = tuple(
        dataclasses.replace(
            block, experts=(*(other.blocks[index].experts[0] for other in others), *block.experts[3:])
        )
        if block.experts
        else block
        for index, block in enumerate(network.blocks)
    )
    network = dataclasses.replace(network, blocks=blocks)
    bundle, _ = compile_network(network, tmp_path)
    entries = {entry.bits1 for i in bundle.task("semseg").instructions if i.experts and i.hidden_channels
               for entry in bundle.expert_table(i)}  # fmt: skip
    assert entries == {2, 4, 7, 8}
    assert assert_equals_golden(bundle, network) == values_of(network, 1)


def test_dropped_experts(tmp_path: Path) -> None:
    network = dropped_experts(random_network(small_config(num_experts=6)), (0, 3, 5))
    bundle, _ = compile_network(network, tmp_path)
    assert assert_equals_golden(bundle, network) == values_of(network, 1)


def test_64_experts_on_the_large_accelerator(tmp_path: Path) -> None:
    config = small_config(num_experts=64, top_k=4, embed_dim=96, num_heads=3, tasks={"semseg": 21})
    network = random_network(config)
    bundle, _ = compile_network(network, tmp_path, accelerator=load_accelerator("zcu104_large"))
    assert assert_equals_golden(bundle, network, "zcu104_large") == values_of(network, 1)


def test_1025_tokens_on_the_large_accelerator(tmp_path: Path) -> None:
    """Queries, and pixels of the head's maps, that fill the accumulators more than once."""
    shape = {"image_size": (512, 512), "patch_size": 16, "embed_dim": 64, "num_heads": 1}
    network = random_network(small_config(**shape, depth=2, tasks={"semseg": 21}))
    bundle, _ = compile_network(network, tmp_path, accelerator=load_accelerator("zcu104_large"))
    conv = [i for i in bundle.task("semseg").instructions if i.opcode == Opcode.CONV3X3]
    assert len(conv) > 3
    assert assert_equals_golden(bundle, network, "zcu104_large") == values_of(network, 1)


def test_one_build_runs_models_one_after_the_other(tmp_path: Path) -> None:
    """No run affects the next one: another model between two runs changes no value."""
    first, second = (random_network(small_config(top_k=k), seed=k) for k in (1, 3))
    bundles = [compile_network(network, tmp_path / str(k))[0] for k, network in enumerate((first, second))]
    for bundle, network in zip((*bundles, bundles[0]), (first, second, first), strict=True):
        assert assert_equals_golden(bundle, network, images=2) == values_of(network, 2)
