# SPDX-License-Identifier: Apache-2.0
"""Small networks compiled into bundles, and their comparison with golden."""

import dataclasses
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_moe.accelerator import AcceleratorConfig, load_accelerator
from edge_moe.compiler.bundle import CompileReport, compile_bundle
from edge_moe.config import ModelConfig
from edge_moe.export.graph import path_graph
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe_host.contract import manifest
from edge_moe_host.contract.bundle import Bundle, load_bundle
from edge_moe_host.errors import BundleError
from edge_moe_host.golden.interpreter import run_program, task_output
from edge_moe_host.golden.trace import Trace
from networks import random_images, random_network

SMALL = {
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


def small_config(**changes: object) -> ModelConfig:
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


def small_bundle(folder: Path, **changes: object) -> Bundle:
    """A bundle of :func:`small_config`."""
    return compile_network(random_network(small_config(**changes)), folder)[0]


def assert_equals_golden(bundle: Bundle, network: IntegerNetwork, images: int = 2, seed: int = 0) -> int:
    """Every intermediate of every task equals golden's; the number of values compared."""
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


# Damaging bundles


def refuse_bundle(path: Path, message: str = ".") -> str:
    """The bundle is refused with one sentence, which is returned."""
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(path)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert len(text) < 400
    return text


def read_manifest(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    return data


def reseal(path: Path, data: dict[str, Any]) -> None:
    """Write a manifest whose checksum is right."""
    (path / "manifest.json").write_text(manifest.seal(data))


def relist(path: Path) -> None:
    """Make the manifest fit the other files: sizes and checksums of files and sections."""
    data = read_manifest(path)
    for entry in (data["weights"], *(task["program"] for task in data["tasks"].values())):
        content = (path / entry["file"]).read_bytes()
        entry.update(bytes=len(content), crc32=zlib.crc32(content))
    weights = (path / "weights.bin").read_bytes()
    for section in data["sections"]:
        start = 64 * section["offset"]
        section["crc32"] = zlib.crc32(weights[start : start + 64 * section["beats"]])
    reseal(path, data)
