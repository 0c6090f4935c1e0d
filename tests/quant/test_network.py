# SPDX-License-Identifier: Apache-2.0
"""Whole integer networks: every named tensor against the scalar reference, batches, paths, errors."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from edge_moe import EdgeMoEError
from edge_moe.config import ModelConfig
from edge_moe.quant.network import IntegerNetwork, head_grid, run_block, run_network
from edge_moe.tasks import TASKS
from edge_moe.testing import spec
from edge_moe.testing.cases import compare
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.golden.trace import Trace

CONVS = {"edge": 3, "pup": 4}
SEED = 15  # gives networks in which no tensor vanishes or saturates completely


def small(**changes):
    """8 wide, 6 patches, a dense block and an MoE block."""
    fields = {"image_size": (16, 24), "tasks": {"semseg": 5, "depth": 1}, "embed_dim": 8, "num_heads": 2,
              "depth": 2, "patch_size": 8, "mlp_ratio": 2, "num_experts": 4, "top_k": 2, "expert_ratio": 1,
              "head_channels": 6, **changes}  # fmt: skip
    return ModelConfig(**fields)


EVERY_TASK = {"semseg": 5, "human_parts": 3, "saliency": 1, "normals": 3, "edge": 1, "depth": 1}
CONFIGS = {
    "multi_gate": small(),
    "single_gate": small(routing="single_gate", depth=4, tasks={"human_parts": 2}),
    "task_conditioned": small(routing="task_conditioned", cls_token=False, tasks={"normals": 3}),
    "dense": small(routing="dense", tasks={"edge": 1}),
    "pup": small(head="pup", depth=1, tasks={"saliency": 1}, cls_token=False, image_size=(16, 8)),
    "every_task": small(tasks=EVERY_TASK, depth=2, image_size=(8, 8)),
    "top_1": small(top_k=1, num_experts=1, num_heads=1, tasks={"depth": 1}, image_size=(8, 24)),
    "many_tokens": small(patch_size=4, image_size=(28, 40), tasks={"depth": 1}, head_channels=2),
}
CASES = [(name, task) for name, config in CONFIGS.items() for task in config.tasks]


def expected_tensors(cfg, task):
    """Name -> (shape of one image, dtype), in the order of the computation."""
    N, D, C = cfg.num_tokens, cfg.embed_dim, cfg.head_channels
    grid = cfg.image_size[0] // cfg.patch_size * (cfg.image_size[1] // cfg.patch_size)
    tensors = {"patch_embedding": ((N, D), np.int16)}
    for index in range(cfg.depth):
        block = {"norm1": ((N, D), np.int8), "qkv": ((N, 3 * D), np.int8), "attention": ((N, D), np.int8),
                 "proj": ((N, D), np.int16), "norm2": ((N, D), np.int8)}  # fmt: skip
        if cfg.routing == "dense" or index % 2 == 0:
            block["hidden"] = ((N, cfg.mlp_ratio * D), np.int8)
        else:
            block["gate.logits"] = ((N, cfg.num_experts), np.int32)
            block["gate.expert"] = ((N, cfg.top_k), np.int32)
            block["gate.score"] = ((N, cfg.top_k), np.int16)
        block["ffn"] = ((N, D), np.int16)
        tensors |= {f"block{index}.{name}": value for name, value in block.items()}
    tensors["head.norm"] = ((grid, D), np.int8)
    for stage in range(CONVS[cfg.head]):
        if stage:
            tensors[f"head.upsample{stage}"] = ((grid * 4**stage, C if stage else D), np.int8)
        tensors[f"head.conv{stage}"] = ((grid * 4**stage, C), np.int8)
    channels = cfg.tasks[task]
    tensors["head.out"] = ((grid * 4 ** (CONVS[cfg.head] - 1), channels), np.int16)
    classes = task in ("semseg", "human_parts")
    tensors["output"] = (cfg.image_size, np.uint8) if classes else ((*cfg.image_size, channels), np.int32)
    return tensors


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_tensor_has_its_name_shape_type_and_value(name, task):
    cfg = CONFIGS[name]
    network = random_network(cfg, SEED)
    images = random_images(cfg, 2, seed=1)
    trace = Trace()
    result = run_network(network, images, task, trace)
    tensors = expected_tensors(cfg, task)
    assert list(trace.tensors) == list(tensors)
    reference = [
        spec.network(network, image, task, TASKS[task].kind == "classes") for image in images.tolist()
    ]
    compared = 0
    for key, (shape, dtype) in tensors.items():
        assert trace.tensors[key].shape == (2, *shape)
        compared += compare(trace.tensors[key], [one[key] for one in reference], dtype)
    assert compared == 2 * sum(int(np.prod(shape)) for shape, _ in tensors.values())
    assert result.raw is trace.tensors["head.out"]
    assert result.output is trace.tensors["output"]
    alive = [len(np.unique(value)) for name, value in trace.tensors.items() if name.startswith("head.")]
    assert min(alive) > 5


def test_the_configurations_are_of_every_kind():
    assert {task for _, task in CASES} == set(TASKS)
    assert {cfg.routing for cfg in CONFIGS.values()} == {
        "dense", "single_gate", "multi_gate", "task_conditioned",
    }  # fmt: skip
    assert {(cfg.head, cfg.cls_token) for cfg in CONFIGS.values()} >= {
        ("edge", True), ("edge", False), ("pup", False),
    }  # fmt: skip
    assert max(cfg.num_tokens for cfg in CONFIGS.values()) > 64


def test_experts_of_fewer_bits():
    cfg = small()
    network, images = random_network(cfg, expert_bits=3), random_images(cfg, 1)
    assert {np.abs(e.fc1.weight).max() for e in network.blocks[1].experts} == {3}
    trace = Trace()
    run_network(network, images, "depth", trace)
    expected = spec.network(network, images[0].tolist(), "depth", False)
    assert compare(trace.tensors["block1.ffn"], [expected["block1.ffn"]], np.int16) == 7 * 8


@pytest.mark.parametrize("task", ["semseg", "depth"])
def test_a_batch_is_its_images_one_by_one(task):
    cfg = small()
    network, images = random_network(cfg, SEED), random_images(cfg, 4, seed=2)
    together = Trace()
    run_network(network, images, task, together)
    compared = 0
    for index in range(4):
        alone = Trace()
        run_network(network, images[index : index + 1], task, alone)
        for name, value in alone.tensors.items():
            compared += compare(value, together.tensors[name][index : index + 1], value.dtype)
    assert compared == sum(value.size for value in together.tensors.values())
    assert (together.tensors["output"][0] != together.tensors["output"][1]).any()


def test_the_images_memory_layout_does_not_matter():
    cfg = small()
    network, images = random_network(cfg), random_images(cfg, 2)
    flipped = np.ascontiguousarray(images[:, :, ::-1])[:, :, ::-1]
    assert not flipped.flags["C_CONTIGUOUS"]
    images.setflags(write=False)
    expected = run_network(network, images, "depth")
    assert (run_network(network, flipped, "depth").output == expected.output).all()


def test_a_run_without_trace_gives_the_same():
    cfg = small()
    network, images = random_network(cfg), random_images(cfg, 1)
    traced, plain = run_network(network, images, "semseg", Trace()), run_network(network, images, "semseg")
    assert (traced.output == plain.output).all()
    assert (traced.raw == plain.raw).all()


# ------------------------------------------------------------------ tasks and paths


def test_tasks_share_what_comes_before_their_gates():
    cfg = small()
    network, images = random_network(cfg), random_images(cfg, 1)
    traces = {task: Trace() for task in cfg.tasks}
    for task, trace in traces.items():
        run_network(network, images, task, trace)
    a, b = (traces[task].tensors for task in cfg.tasks)
    same = [name for name in a if name in b and a[name].shape == b[name].shape and (a[name] == b[name]).all()]
    assert same[-1] == "block1.norm2"
    assert "block1.gate.logits" not in same


@pytest.mark.parametrize("name", ["multi_gate", "every_task", "dense"])
def test_a_path_equals_the_whole_network(name):
    cfg = CONFIGS[name]
    network, images = random_network(cfg), random_images(cfg, 1)
    assert network.tasks == tuple(cfg.tasks)
    for task in cfg.tasks:
        path = network.path(task)
        assert path.tasks == (task,)
        assert list(path.heads) == [task]
        assert all(list(block.gates) == [task] for block in path.blocks if block.gates)
        assert [bool(block.gates) for block in path.blocks] == [bool(b.gates) for b in network.blocks]
        assert path.patch is network.patch
        assert path.blocks[0] is network.blocks[0]  # constants are shared, not copied
        whole, alone = run_network(network, images, task), run_network(path, images, task)
        assert compare(alone.output, whole.output, whole.output.dtype) == whole.output.size
    assert len(network.heads) == len(cfg.tasks)


def test_a_block_of_several_tasks_takes_the_gate_of_the_one_that_runs():
    cfg = small()
    network, images = random_network(cfg, SEED), random_images(cfg, 1)
    results = []
    for task in cfg.tasks:
        trace = Trace()
        run_network(network, images, task, trace)
        alone = run_block(network.blocks[1], trace.tensors["block0.ffn"], task)
        assert compare(alone, trace.tensors["block1.ffn"], np.int16) == 7 * 8
        results.append(alone)
    assert (results[0] != results[1]).any()


def test_a_path_refuses_another_task():
    path = random_network(small()).path("depth")
    for function in (path.path, lambda task: run_network(path, random_images(path.config, 1), task)):
        with pytest.raises(EdgeMoEError, match=r"task 'semseg' is not in this network: it has depth\."):
            function("semseg")


def test_scales_and_expert_ids_change_no_integer():
    cfg = small()
    network, images = random_network(cfg), random_images(cfg, 1)
    blocks = tuple(
        dataclasses.replace(block, expert_ids=tuple(range(9, 9 + len(block.experts))))
        for block in network.blocks
    )
    other = dataclasses.replace(network, blocks=blocks, scales={"residual": 7.0})
    assert isinstance(other, IntegerNetwork)
    assert (run_network(other, images, "depth").raw == run_network(network, images, "depth").raw).all()


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda x: x.astype(np.float32), r"float32 \[2, 16, 24, 3\]"),
        (lambda x: x.astype(np.int8), r"int8 \[2, 16, 24, 3\]"),
        (lambda x: x[0], r"uint8 \[16, 24, 3\]"),
        (lambda x: x[None], r"uint8 \[1, 2, 16, 24, 3\]"),
        (lambda x: x.transpose(0, 2, 1, 3), r"uint8 \[2, 24, 16, 3\]"),
        (lambda x: x[..., :1], r"uint8 \[2, 16, 24, 1\]"),
        (lambda x: x[:, :8], r"uint8 \[2, 8, 24, 3\]"),
        (lambda x: x[:0], r"uint8 \[0, 16, 24, 3\]"),
        (lambda x: x[0, 0, 0, 0], r"uint8 \[\]"),
    ],
)
def test_images_of_another_kind_are_refused(change, shown):
    cfg = small()
    with pytest.raises(EdgeMoEError, match=rf"^images are {shown}: .* uint8 \[batch, 16, 24, 3\]\.$"):
        run_network(random_network(cfg), change(random_images(cfg, 2)), "depth")


@pytest.mark.parametrize(
    ("patch", "convs", "grid"),
    [(16, 3, (8, 12, 4)), (16, 4, (16, 24, 2)), (8, 4, (16, 24, 1)), (4, 1, (2, 3, 4))],
)
def test_head_grid(patch, convs, grid):
    cfg = small(patch_size=patch, image_size=(2 * patch, 3 * patch))
    assert head_grid(cfg, convs) == grid
    assert grid[0] * grid[2] == cfg.image_size[0]


@pytest.mark.parametrize(
    ("patch", "convs", "needed"), [(2, 3, 4), (6, 3, 4), (4, 4, 8), (12, 4, 8), (512, 3, 4)]
)
def test_head_grid_refuses_a_patch_that_upsampling_overshoots(patch, convs, needed):
    cfg = small(patch_size=patch, image_size=(patch, patch))
    with pytest.raises(
        EdgeMoEError,
        match=rf"^model.patch_size = {patch} .* {convs} .* multiple of {needed} up to {64 * needed}\.$",
    ):
        head_grid(cfg, convs)


@pytest.mark.parametrize(
    "module", ["edge_moe.config", "edge_moe.tasks", "edge_moe.info", "edge_moe.quant.network"]
)
def test_no_torch_is_imported(module):
    code = f"import sys, {module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
