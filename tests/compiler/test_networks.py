# SPDX-License-Identifier: Apache-2.0
"""Compiled bundles equal golden at every intermediate: networks of every shape and kind."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from edge_moe.compiler.bundle import compile_bundle
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe.testing.bundles import (
    assert_equals_golden,
    compile_network,
    small_accelerator,
    small_config,
    values_of,
    write_paths,
)
from edge_moe.testing.networks import NetworkMaker, dropped_experts, random_images, random_network
from edge_moe_host.contract.bundle import load_bundle, used_sections
from edge_moe_host.contract.isa import Opcode
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.golden.interpreter import run_program

CONFIGS = {
    "heads of 16 channels": {},
    "no class token": {"cls_token": False},
    "15 tokens of 48 channels": {
        "image_size": (24, 40), "cls_token": False, "embed_dim": 48, "num_heads": 3,
    },
    "heads of 40 channels": {"embed_dim": 80, "num_heads": 2},
    "heads of 64 channels": {"embed_dim": 128, "num_heads": 2, "expert_ratio": 2},
    "one head": {"num_heads": 1},
    "one block": {"depth": 1},
    "dense twin": {"routing": "dense", "depth": 3},
    "single gate": {"routing": "single_gate"},
    "one expert": {"num_experts": 1, "top_k": 1},
    "top 1": {"top_k": 1},
    "top 4 of 5": {"num_experts": 5, "top_k": 4},
    "all of 4": {"top_k": 4},
    "17 experts": {"num_experts": 17, "top_k": 3},
    "more than one block of keys": {"image_size": (40, 56), "tasks": {"depth": 1}},
    "pup head": {"head": "pup", "tasks": {"depth": 1}},
    "other tasks": {
        "tasks": {"human_parts": 7, "saliency": 1, "normals": 3, "edge": 1}, "depth": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_bundle_equals_golden(name: str, tmp_path: Path) -> None:
    network = random_network(small_config(**CONFIGS[name]), seed=len(name))
    bundle, _ = compile_network(network, tmp_path)
    assert assert_equals_golden(bundle, network) == values_of(network)


@pytest.mark.parametrize("bits", range(2, 9))
def test_expert_widths(bits: int, tmp_path: Path) -> None:
    network = random_network(small_config(tasks={"depth": 1}), seed=bits, expert_bits=bits)
    bundle, _ = compile_network(network, tmp_path)
    assert assert_equals_golden(bundle, network) == values_of(network)
    moe = next(i for i in bundle.task("depth").instructions if i.opcode == Opcode.EXPERTS)
    assert {(e.bits1, e.bits2) for e in bundle.expert_table(moe)} == {(bits, bits)}


def mixed_network() -> IntegerNetwork:
    """Other widths in every layer and expert."""
    config = small_config(depth=3)
    maker = NetworkMaker(config, 7)
    network = maker.network()
    widths = itertools.cycle((3, 8, 2, 6, 4, 7, 5))
    blocks = []
    for block in network.blocks:
        attn = block.attention
        attn = dataclasses.replace(
            attn,
            qkv=maker.linear(attn.qkv.weight.shape, 40.0, next(widths)),
            proj=maker.linear(attn.proj.weight.shape, 1500.0, next(widths)),
        )
        experts = tuple(
            dataclasses.replace(maker.ffn(32, next(widths)), fc2=maker.linear((32, 32), 1500.0, next(widths)))
            for _ in block.experts
        )
        blocks.append(dataclasses.replace(block, attention=attn, experts=experts))
    return dataclasses.replace(network, blocks=tuple(blocks))


def test_mixed_widths(tmp_path: Path) -> None:
    network = mixed_network()
    bundle, _ = compile_network(network, tmp_path)
    assert assert_equals_golden(bundle, network) == values_of(network)
    bits = {i.weight_bits for i in bundle.task("depth").instructions if i.opcode == Opcode.LINEAR}
    assert len(bits) >= 5


def test_dropped_experts(tmp_path: Path) -> None:
    network = dropped_experts(random_network(small_config(num_experts=6)), (0, 3, 5))
    bundle, _ = compile_network(network, tmp_path)
    assert assert_equals_golden(bundle, network) == values_of(network)
    assert bundle.task("depth").entry.expert_ids == {"1": [0, 3, 5]}


def test_tasks_that_dropped_other_experts_share_the_rest(tmp_path: Path) -> None:
    network = random_network(small_config(num_experts=6))
    kept = {"semseg": (0, 3, 5), "depth": (1, 3, 4, 5)}
    paths = [
        write_paths(dropped_experts(network, experts), tmp_path, [task])[0] for task, experts in kept.items()
    ]
    compile_bundle(paths, small_accelerator(), tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert sum(section.kind == "expert" for section in bundle.manifest.sections) == 5
    images = random_images(network.config, 2)
    for task, experts in kept.items():
        assert bundle.task(task).entry.expert_ids == {"1": list(experts)}
        golden = run_network(dropped_experts(network, experts), images, task)
        np.testing.assert_array_equal(run_program(bundle, task, images), golden.raw)


@pytest.mark.parametrize(
    ("rows", "image_size"), [(16, (16, 32)), (18, (16, 32)), (40, (16, 32)), (26, (40, 40)), (30, (24, 40))]
)
def test_instructions_are_split_to_fit_the_accumulators(
    rows: int, image_size: tuple[int, int], tmp_path: Path
) -> None:
    config = small_config(
        image_size=image_size, embed_dim=96, num_experts=40, expert_ratio=1, tasks={"depth": 1}
    )
    network = random_network(config, seed=rows)
    accelerator = small_accelerator(accumulator_rows=rows, max_tokens=rows, max_experts=40)
    bundle, report = compile_network(network, tmp_path, accelerator=accelerator)
    assert assert_equals_golden(bundle, network) == values_of(network)
    whole = compile_network(network, tmp_path / "whole", accelerator=small_accelerator(max_experts=40))[1]
    assert len(report.codes["depth"].instructions) > len(whole.codes["depth"].instructions)
    assert report.file_bytes["weights.bin"] == whole.file_bytes["weights.bin"]


def test_one_image_and_a_batch_agree(tmp_path: Path) -> None:
    network = random_network(small_config())
    bundle, _ = compile_network(network, tmp_path)
    images = random_images(network.config, 3)
    batch = run_program(bundle, "semseg", images)
    assert batch.shape == (3, 8 * 16, 5)
    assert batch.dtype == np.int16
    for index, image in enumerate(images):
        np.testing.assert_array_equal(run_program(bundle, "semseg", image), batch[index])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 16, 32, 3), np.float32), r"float32 \[1, 16, 32, 3\]"),
        (np.zeros((16, 16, 3), np.uint8), r"uint8 \[16, 16, 3\]: task 'depth' of this bundle takes uint8"),
        (np.zeros((1, 1, 16, 32, 3), np.uint8), "takes uint8"),
    ],
)
def test_other_images_are_refused(images: np.ndarray, message: str, tmp_path: Path) -> None:
    bundle, _ = compile_network(random_network(small_config()), tmp_path)
    with pytest.raises(EdgeMoEError, match=message):
        run_program(bundle, "depth", images)
    with pytest.raises(EdgeMoEError, match=r"task 'edge' is not in .*: it has depth, semseg"):
        run_program(bundle, "edge", images)


def test_tasks_share_all_but_gates_and_heads(tmp_path: Path) -> None:
    network = random_network(small_config(depth=4))
    both, report = compile_network(network, tmp_path / "both")
    alone = {task: compile_network(network, tmp_path / task, [task])[0] for task in network.tasks}
    used = {task: set(used_sections(both, both.task(task))) for task in network.tasks}
    shared = used["semseg"] & used["depth"]
    own = set(both.manifest.sections) - shared
    assert {section.name.split(".")[0] for section in own if section.name.startswith("head")} == {"head"}
    assert all(section.name.startswith("head.") or ".gate." in section.name for section in own)
    assert sum(".gate." in section.name for section in own) == 4  # two blocks, two tasks
    shared_bytes = 64 * sum(section.beats for section in shared)
    assert shared_bytes == report.shared_bytes > 0
    assert len(both.weights) == sum(len(bundle.weights) for bundle in alone.values()) - shared_bytes
    for task, bundle in alone.items():
        images = random_images(network.config, 1)
        np.testing.assert_array_equal(run_program(bundle, task, images), run_program(both, task, images))


def test_equal_experts_are_stored_once(tmp_path: Path) -> None:
    network = random_network(small_config())
    block = network.blocks[1]
    twins = dataclasses.replace(block, experts=(*block.experts[:3], block.experts[0]))
    network = dataclasses.replace(network, blocks=(network.blocks[0], twins))
    bundle, _ = compile_network(network, tmp_path)
    assert assert_equals_golden(bundle, network) == values_of(network)
    assert sum(section.kind == "expert" for section in bundle.manifest.sections) == 3


def test_equal_weights_with_other_shifts(tmp_path: Path) -> None:
    """Two layers share one block; only their instructions differ."""
    network = random_network(small_config())
    first, second = network.blocks
    qkv = dataclasses.replace(first.attention.qkv, shift=first.attention.qkv.shift - 1)
    second = dataclasses.replace(second, attention=dataclasses.replace(second.attention, qkv=qkv))
    network = dataclasses.replace(network, blocks=(first, second))
    bundle, _ = compile_network(network, tmp_path)
    assert assert_equals_golden(bundle, network) == values_of(network)
    used = [i for i in bundle.task("depth").instructions if i.opcode == Opcode.LINEAR]
    pair = [i for i in used if i.weight_offset == used[1].weight_offset]
    assert [i.shift for i in pair] == [qkv.shift + 1, qkv.shift]


def test_blocks_are_stored_in_the_order_of_their_use(tmp_path: Path) -> None:
    bundle, _ = compile_network(random_network(small_config()), tmp_path, ["depth"])
    offsets = [i.weight_offset for i in bundle.task("depth").instructions if i.weight_beats]
    assert offsets == sorted(offsets)
    assert offsets[0] == 0


def test_compilation_is_repeatable(tmp_path: Path) -> None:
    network = random_network(small_config())
    for name in ("a", "b"):
        compile_network(network, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a" / "bundle").iterdir())
    assert files == ["depth.program.bin", "manifest.json", "semseg.program.bin", "weights.bin"]
    for name in files:
        first, second = ((tmp_path / folder / "bundle" / name).read_bytes() for folder in "ab")
        assert first == second


def test_a_bundle_replaces_an_older_one(tmp_path: Path) -> None:
    network = random_network(small_config())
    compile_network(network, tmp_path)
    bundle, _ = compile_network(network, tmp_path, ["depth"])
    assert list(bundle.tasks) == ["depth"]
    names = {path.name for path in (tmp_path / "bundle").iterdir()}
    assert names == {"depth.program.bin", "manifest.json", "weights.bin"}
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "depth.onnx", "semseg.onnx"}


def test_a_failed_compilation_keeps_the_older_bundle(tmp_path: Path) -> None:
    network = random_network(small_config())
    compile_network(network, tmp_path)

    def stop(folder: Path) -> None:
        assert load_bundle(folder).tasks.keys() == {"depth"}
        raise EdgeMoEError("stop.")

    with pytest.raises(EdgeMoEError, match=r"stop\."):
        compile_bundle(
            write_paths(network, tmp_path, ["depth"]), small_accelerator(), tmp_path / "bundle", check=stop
        )
    assert load_bundle(tmp_path / "bundle").tasks.keys() == {"semseg", "depth"}
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "depth.onnx", "semseg.onnx"}


def test_a_failed_exchange_keeps_the_older_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(small_config())
    compile_network(network, tmp_path)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(EdgeMoEError, match=r"cannot write '.*bundle': No space left on device"):
        compile_bundle(write_paths(network, tmp_path, ["depth"]), small_accelerator(), tmp_path / "bundle")
    assert load_bundle(tmp_path / "bundle").tasks.keys() == {"semseg", "depth"}
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "depth.onnx", "semseg.onnx"}


def test_only_a_bundle_is_replaced(tmp_path: Path) -> None:
    paths = write_paths(random_network(small_config()), tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    (tmp_path / "empty").mkdir()
    for name in ("mine", "depth.onnx"):
        with pytest.raises(EdgeMoEError, match="exists and is not a bundle"):
            compile_bundle(paths, small_accelerator(), tmp_path / name)
    with pytest.raises(EdgeMoEError, match=r"cannot write '.*depth\.onnx/bundle': "):
        compile_bundle(paths, small_accelerator(), tmp_path / "depth.onnx" / "bundle")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "words"
    compile_bundle(paths, small_accelerator(), tmp_path / "empty")
    assert load_bundle(tmp_path / "empty").tasks.keys() == {"semseg", "depth"}
