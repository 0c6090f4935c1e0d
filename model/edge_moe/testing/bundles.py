# SPDX-License-Identifier: Apache-2.0
"""Small networks compiled into bundles, and their comparison with golden."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_moe.accelerator import AcceleratorConfig, load_accelerator
from edge_moe.compiler.bundle import CompileReport, compile_bundle
from edge_moe.config import ModelConfig
from edge_moe.export.graph import path_graph
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.contract.bundle import Bundle, load_bundle
from edge_moe_host.golden.interpreter import run_program, task_output
from edge_moe_host.golden.trace import Trace

SMALL: dict[str, Any] = {
    "image_size": (16, 32),
    "patch_size": 8,
    "tasks": {"semseg": 5, "depth": 1},
    "embed_dim": 32,
    "num_heads": 2,
    "depth": 2,
    "num_experts": 4,
    "top_k": 2,
    "expert_ratio": 1,
    "mlp_ratio": 2,
    "head_channels": 8,
}


def small_config(**changes: Any) -> ModelConfig:
    """A model of 9 tokens that compiles in a tenth of a second; heads of 16 channels."""
    return ModelConfig(**{**SMALL, **changes})


def small_accelerator(**changes: int) -> AcceleratorConfig:
    """The zcu104 with other limits."""
    return dataclasses.replace(load_accelerator("zcu104"), **changes)


def write_paths(network: IntegerNetwork, folder: Path, tasks: Sequence[str] = ()) -> list[Path]:
    """The main graph of each task as TASK.onnx."""
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks or network.tasks:
        paths.append(folder / f"{task}.onnx")
        paths[-1].write_bytes(path_graph(network, task).SerializeToString())
    return paths


def compile_network(
    network: IntegerNetwork,
    folder: Path,
    tasks: Sequence[str] = (),
    accelerator: AcceleratorConfig | None = None,
) -> tuple[Bundle, CompileReport]:
    """The network's bundle in FOLDER/bundle, read back."""
    report = compile_bundle(
        write_paths(network, folder, tasks), accelerator or small_accelerator(), folder / "bundle"
    )
    return load_bundle(report.out), report


def small_bundle(folder: Path, **changes: Any) -> Bundle:
    """A bundle of :func:`small_config`."""
    return compile_network(random_network(small_config(**changes)), folder)[0]


def assert_equals_golden(bundle: Bundle, network: IntegerNetwork, images: int = 2, seed: int = 0) -> int:
    """Assert that every intermediate of every task equals golden's; return the number of values."""
    pictures = random_images(network.config, images, seed)
    count = 0
    for task in network.tasks:
        expected, actual = Trace(), Trace()
        golden = run_network(network, pictures, task, expected)
        raw = run_program(bundle, task, pictures, actual)
        actual("output", task_output(bundle, task, raw))
        assert list(actual.tensors) == list(expected.tensors)
        for name, value in expected.tensors.items():
            assert actual.tensors[name].dtype == value.dtype, name
            np.testing.assert_array_equal(actual.tensors[name], value, err_msg=name)
            count += value.size
        np.testing.assert_array_equal(raw, golden.raw)
    return count


def values_of(network: IntegerNetwork, images: int = 2) -> int:
    """How many values :func:`assert_equals_golden` must compare, from the configuration alone."""
    cfg, count = network.config, 0
    N, D, grid = cfg.num_tokens, cfg.embed_dim, cfg.grid_size[0] * cfg.grid_size[1]
    for head in network.heads.values():
        per_block = N * (D + 3 * D + D + D + D)  # norm1, qkv, attention, proj, norm2
        for block in network.blocks:
            count += per_block + N * D
            if block.ffn is not None:
                count += N * len(block.ffn.fc1.weight)
            else:
                count += N * (len(block.experts) + 2 * cfg.top_k)
        count += N * D + grid * D  # patch_embedding, head.norm
        cells = grid
        for stage, conv in enumerate(head.convs):
            if stage:
                cells *= 4
                count += cells * conv.weight.shape[-1]
            count += cells * len(conv.weight)
        channels = len(head.out.weight)
        pixels = cfg.image_size[0] * cfg.image_size[1]
        classes = next(task for task in network.heads if network.heads[task] is head) in (
            "semseg",
            "human_parts",
        )
        count += cells * channels + pixels * (1 if classes else channels)
    return images * count
