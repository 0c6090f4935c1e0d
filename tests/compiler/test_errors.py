# SPDX-License-Identifier: Apache-2.0
"""Refusals of the compiler: limits, unsupported graphs, constants out of range. Always one sentence."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_moe.accelerator import AcceleratorConfig, load_accelerator
from edge_moe.compiler.bundle import compile_bundle
from edge_moe.compiler.emit import emit_program
from edge_moe.compiler.fit import SETTINGS, describe_fit, model_graph
from edge_moe.compiler.read_graph import read_path
from edge_moe.compiler.weights import WeightImage
from edge_moe.config import ModelConfig, load_preset
from edge_moe.export.graph import METADATA_KEY, path_graph
from edge_moe.quant.network import IntegerNetwork
from edge_moe.settings import packaged_names
from edge_moe.testing.bundles import small_accelerator, small_config, write_paths
from edge_moe.testing.networks import random_network
from edge_moe_host.config import to_dict
from edge_moe_host.contract.opcodes import LIMITS
from edge_moe_host.errors import EdgeMoEError


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    return random_network(small_config())


def refuse(model: onnx.ModelProto, tmp_path: Path, message: str) -> None:
    """The compiler refuses the model with one sentence, and leaves no files."""
    path = tmp_path / "it.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EdgeMoEError, match=message) as caught:
        compile_bundle([path], small_accelerator(), tmp_path / "bundle")
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert [entry.name for entry in tmp_path.iterdir()] == ["it.onnx"]


# Limits


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_is_kept(name: str, network: IntegerNetwork, tmp_path: Path) -> None:
    changes = {name: 64 if name == "scratch_bytes" else 1}
    if name == "accumulator_rows":
        changes = {"accumulator_rows": 10, "max_tokens": 9}
    paths = write_paths(network, tmp_path)
    with pytest.raises(EdgeMoEError, match=name) as caught:
        compile_bundle(paths, small_accelerator(**changes), tmp_path / "bundle")
    assert str(caught.value).endswith(".")
    assert not (tmp_path / "bundle").exists()


def test_limits_are_reached_exactly(network: IntegerNetwork, tmp_path: Path) -> None:
    """The smallest accelerator that holds the network; one less of anything is refused."""
    exact = {
        "max_tokens": 9, "max_width": 32, "max_channels": 192, "max_heads": 2, "max_head_dim": 32,
        "max_experts": 4, "max_top_k": 2, "max_map_rows": 128, "max_conv_channels": 32,
        "max_image_height": 16, "max_image_width": 32, "max_patch_size": 8, "accumulator_rows": 16,
    }  # fmt: skip
    paths = write_paths(network, tmp_path, ["depth"])
    report = compile_bundle(paths, small_accelerator(**exact), tmp_path / "bundle")
    exact |= {"scratch_bytes": report.codes["depth"].scratch_bytes}
    count = {"max_instructions": len(report.codes["depth"].instructions)}
    compile_bundle(paths, small_accelerator(**exact, **count), tmp_path / "bundle")
    assert {*exact, *count} == set(LIMITS)
    with pytest.raises(EdgeMoEError, match="max_instructions"):
        compile_bundle(
            paths,
            small_accelerator(**exact, max_instructions=count["max_instructions"] - 1),
            tmp_path / "less",
        )
    for name, value in exact.items():
        step = {"scratch_bytes": 64, "accumulator_rows": 2}.get(name, 1)
        less = {**exact, name: value - step}
        with pytest.raises(EdgeMoEError, match=name):
            compile_bundle(paths, small_accelerator(**less), tmp_path / "less")


def test_presets_hold_the_models_that_they_are_for() -> None:
    """Sizes only; other tests compile programs that fit."""
    assert packaged_names("accelerators") == ["zcu102", "zcu104", "zcu104_large", "zcu106"]
    small, large = load_accelerator("zcu104"), load_accelerator("zcu104_large")
    for name in ("mini", "m3vit_tiny_cityscapes"):
        assert load_preset(name).model.num_tokens <= small.max_tokens
    model = load_preset("m3vit_small_pascal").model
    assert (model.num_tokens, model.embed_dim) == (1025, 384)
    assert model.num_tokens <= large.max_tokens
    assert model.embed_dim <= large.max_width
    assert (large.max_experts, large.max_top_k) == (64, 4)
    for accelerator in (small, large):
        uram = -(-accelerator.scratch_bytes // 32768)
        fifo = accelerator.fifo_bytes / 32768
        assert uram + (fifo if accelerator is small else 0) <= 96


def test_all_limits_are_named_at_once(network: IntegerNetwork, tmp_path: Path) -> None:
    paths = write_paths(network, tmp_path)
    small = small_accelerator(max_tokens=8, max_width=16, max_heads=1, scratch_bytes=1024)
    with pytest.raises(EdgeMoEError) as caught:
        compile_bundle(paths, small, tmp_path / "bundle")
    text = str(caught.value)
    for limit in ("max_tokens = 8 where 9", "max_width = 16 where 32", "max_heads = 1 where 2"):
        assert text.count(f"{limit} are needed") == 2
    assert re.search("task 'semseg': scratch_bytes = 1024 where [0-9]+ are needed, .*; task 'depth': ", text)
    assert "max_experts" not in text
    assert "\n" not in text


def test_needs_of_a_program_are_the_least_limits(network: IntegerNetwork, tmp_path: Path) -> None:
    """An accelerator of just these limits compiles it; test_limits_are_reached_exactly has one less."""
    path = write_paths(network, tmp_path, ["depth"])[0]
    needs = emit_program(read_path(path), small_accelerator(), WeightImage()).needs()
    compile_bundle([path], small_accelerator(**needs), tmp_path / "bundle")


def test_a_model_that_fits_and_one_that_does_not() -> None:
    assert set(SETTINGS) == set(LIMITS)
    fields = {spec.name for spec in dataclasses.fields(ModelConfig)}
    assert {name for names in SETTINGS.values() for name in names} <= fields
    mini = load_preset("mini").model
    text = describe_fit(mini, "zcu104").splitlines()
    assert [line.split()[0] for line in text[1:-1]] == list(LIMITS)
    assert text[-1] == "It fits zcu104."
    assert all(line.split()[2].replace(",", "").isdigit() and "too much" not in line for line in text[1:-1])
    tokens = describe_fit(dataclasses.replace(mini, image_size=(320, 320)), "zcu104")
    row = next(line for line in tokens.splitlines() if line.startswith("max_tokens"))
    assert row.split(maxsplit=3) == [
        "max_tokens", "401", "288", "too much: take zcu104_large, or change model.image_size",
    ]  # fmt: skip
    assert "It does not fit zcu104: " in tokens
    assert tokens.endswith("limits are too small. It fits zcu104_large.")
    heads = describe_fit(dataclasses.replace(mini, embed_dim=96, num_heads=12), "zcu106")
    assert "12                    8  too much: change model.num_heads" in heads
    assert heads.endswith("It fits no packaged accelerator.")
    beyond = dataclasses.replace(mini, embed_dim=2080, num_experts=80, top_k=9, image_size=(1040, 1040))
    assert "It does not fit zcu104: 11 of 15 limits" in describe_fit(beyond, "zcu104")


@pytest.mark.parametrize("routing", ["dense", "single_gate", "multi_gate", "task_conditioned"])
def test_the_fit_of_a_model_is_that_of_all_its_tasks(routing: str, tmp_path: Path) -> None:
    config = small_config(routing=routing)
    network = random_network(config, seed=5)
    paths = write_paths(network, tmp_path)
    programs = [emit_program(read_path(path), small_accelerator(), WeightImage()) for path in paths]
    most = {name: max(program.needs()[name] for program in programs) for name in LIMITS}
    assert emit_program(model_graph(config), small_accelerator(), WeightImage()).needs() == most


# Accelerator files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_in": 16}, "accelerator.tile_in = 16 is not allowed: the layout"),
        ({"key_block": 64}, "accelerator.key_block = 64 is not allowed: the meaning of attention needs 32"),
        ({"max_tokens": 5000}, "max_tokens = 5000"),
        ({"accumulator_rows": 100}, "accumulator_rows = 100 .* one expert may get all max_tokens"),
        ({"scratch_bytes": 100}, "scratch_bytes = 100 .* multiple of 64"),
        ({"accumulator_rows": 2049}, "accumulator_rows = 2049 .* whole number of pairs"),
        ({"fifo_bytes": 128}, "fifo_bytes = 128"),
        ({"max_top_k": 9}, "max_top_k = 9"),
        ({"max_width": 2048}, "max_width = 2048"),
        ({"clock_mhz": 0}, "clock_mhz = 0"),
    ],
)
def test_impossible_accelerators(changes: dict[str, int], message: str) -> None:
    with pytest.raises(EdgeMoEError, match=message):
        small_accelerator(**changes)


def test_accelerator_files(tmp_path: Path) -> None:
    values = to_dict(load_accelerator("zcu104"))
    path = tmp_path / "mine.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
    assert load_accelerator(str(path)) == load_accelerator("zcu104")
    assert load_accelerator(str(path)).hash() == load_accelerator("zcu104").hash()
    assert (
        dataclasses.replace(load_accelerator("zcu104"), clock_mhz=200).hash()
        != load_accelerator("zcu104").hash()
    )
    for text, message in (
        ("tile_in =", "is not valid TOML"),
        ("speed = 1", "unknown key 'speed'"),
        ("tile_in = 32", "key 'tile_out' is missing"),
        ("".join(f'{key} = "{value}"\n' for key, value in values.items()), "has the wrong type"),
    ):
        path.write_text(text)
        with pytest.raises(EdgeMoEError, match=message):
            load_accelerator(str(path))
    for name, message in (("zcu999", "unknown accelerator 'zcu999': known are zcu102, zcu104, zcu104_large"),
                          ("none.toml", "cannot read 'none.toml'")):  # fmt: skip
        with pytest.raises(EdgeMoEError, match=message):
            load_accelerator(name)


def test_the_configuration_says_all_that_programs_must_know() -> None:
    names = {spec.name for spec in dataclasses.fields(AcceleratorConfig)}
    assert set(LIMITS) <= names


# Files that do not belong together


def test_files_of_different_models_and_equal_tasks(network: IntegerNetwork, tmp_path: Path) -> None:
    other = random_network(small_config(depth=1))
    ours, theirs = write_paths(network, tmp_path / "a"), write_paths(other, tmp_path / "b")
    for paths, message in (
        ([ours[0], theirs[1]], "are of models with different configurations"),
        ([ours[0], ours[0]], "are both for task 'semseg'"),
        ([], "no path.onnx was given"),
        ([tmp_path / "none.onnx"], "cannot read .*none.onnx"),
    ):
        with pytest.raises(EdgeMoEError, match=message):
            compile_bundle(paths, small_accelerator(), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


# Graphs


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def test_an_unsupported_node_is_named(network: IntegerNetwork, tmp_path: Path) -> None:
    model = path_graph(network, "depth")
    model.graph.node.append(helper.make_node("Relu", ["head.out"], ["more"], name="activation"))
    refuse(
        model, tmp_path,
        r"node 'activation' of .* is ai\.onnx\.Relu, .*: supported are PatchEmbedding, .* domain edge_moe",
    )  # fmt: skip
    model = path_graph(network, "depth")
    node_of(model, "block0.norm2").op_type = "GroupNorm"
    refuse(model, tmp_path, r"node 'block0\.norm2' of .* is edge_moe\.GroupNorm")


def set_attribute(name: str, key: str, value: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = node_of(model, name)
        kept = [a for a in node.attribute if a.name != key]
        del node.attribute[:]
        node.attribute.extend(kept if value is None else [*kept, helper.make_attribute(key, value)])

    return change


def set_constant(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    def apply(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))

    return apply


def put(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[0] = value
        return array

    return change


def set_input(name: str, index: int, value: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node_of(model, name).input[index] = value

    return change


def drop_node(name: str) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.node.remove(node_of(model, name))


def fewer_routed(model: onnx.ModelProto) -> None:
    for name in ("weight", "bias"):
        set_constant(f"block1.gate.{name}", lambda array: array[:3])(model)


def drop_output(model: onnx.ModelProto) -> None:
    drop_node("output")(model)
    del model.graph.output[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_attribute("block0.qkv", "shift", 48), r"node 'block0.qkv' \(Linear\) .* shift = 48 is not in"),
        (set_attribute("block0.qkv", "shift", 2.0), "its attributes must be shift, integers"),
        (set_attribute("block0.qkv", "axis", 1), "its attributes must be shift, integers"),
        (set_attribute("block0.qkv", "shift", None), "its attributes must be shift, integers"),
        (set_attribute("block0.norm1", "epsilon", 0), "epsilon = 0 is not in"),
        (set_attribute("block0.norm1", "skip", 9), "skip = 9 of 9 tokens"),
        (set_attribute("block0.hidden", "gelu_multiplier", 32768), "gelu_multiplier = 32768 is not in"),
        (set_attribute("block0.hidden", "zero_point", 128), "zero_point = 128 is not in"),
        (set_attribute("block0.attention", "heads", 5), "96 channels are not q, k and v of 5 heads"),
        (set_attribute("block0.attention", "logit_shift", 0), "logit_shift = 0 is not in"),
        (set_attribute("block1.gate.expert", "top_k", 5), "top_k = 5 of 4 experts"),
        (fewer_routed, "its gate does not choose among its 4 experts"),
        (set_attribute("block1.ffn", "bits1", [8, 8, 8]), "are not all for 4 experts"),
        (set_attribute("block1.ffn", "bits2", [8, 8, 8, 3]), "expert 3 fc2.weight needs 8 bits, bits2"),
        (set_attribute("patch_embedding", "patch_size", 16), "patch_size = 16 is not the configuration's"),
        (set_attribute("head.conv0", "height", 3), "a map of 3x4 is not its input's 8 rows"),
        (set_attribute("head.conv1", "pad", -129), "pad = -129"),
        (set_attribute("head.upsample1", "width", 8), "a map of 2x8 is not its input's 8 rows"),
        (set_attribute("output", "factor", 4), "enlarged by 4, is not the image's size"),
        (set_constant("block0.qkv.weight", put(-128)), "weight has the value -128"),
        (set_constant("block0.qkv.multiplier", put(-1)), "multiplier has a negative entry"),
        (set_constant("block0.qkv.bias", put(2**31 - 1)), "accumulator may reach"),
        (set_constant("block0.qkv.bias", lambda a: a[:-1]), "must have 96 entries"),
        (set_constant("block0.qkv.bias", lambda a: a.astype(np.int64)), r"bias is int64 \[96\] where int32"),
        (set_constant("block0.qkv.weight", lambda a: a[:, :-1]), "does not fit an input of 32 channels"),
        (set_constant("block0.norm1.beta", put(2**31 - 1)), "gamma and beta may reach"),
        (set_constant("block0.norm1.gamma", lambda a: a[1:]), "must have 32 entries"),
        (set_constant("block0.attention.out_multiplier", put(-1)), "a multiplier is negative"),
        (set_constant("block0.attention.logit_multiplier", lambda a: a[:1]), "must have 2 entries"),
        (set_constant("block1.gate.weight", put(16320)), "a weight exceeds 16319"),
        (set_constant("block1.gate.bias", put(2**31 - 1)), "accumulator may reach"),
        (set_constant("block1.experts.fc1.shift", put(0)), "expert 0 fc1.shift = 0"),
        (set_constant("block1.experts.gelu_shift", put(48)), "gelu_shift = 48"),
        (set_constant("block1.experts.zero_point", put(-129)), "zero_point = -129"),
        (set_constant("position", lambda a: a[2:]), "position .* does not fit 8 patches"),
        (set_constant("head.conv0.weight", lambda a: a[:, :2]), r"its weight must be \[out, 3, 3, in\]"),
        (set_input("block0.qkv", 0, "patch_embedding"), r"input x \('patch_embedding'\) must be an int8"),
        (set_input("block0.qkv", 0, "block9"), "must be topologically sorted"),
        (set_input("block0.qkv", 0, "image"), "must be an int8 tensor that an earlier node makes"),
        (set_input("block0.qkv", 1, "block0.norm1"), "must be a constant"),
        (set_input("block0.proj", 4, "block0.norm1"), "must be an int16 tensor"),
        (set_input("block1.norm1", 0, "patch_embedding"), "'patch_embedding' that it updates is needed"),
        (set_input("block0.norm2", 0, "patch_embedding"), "'patch_embedding' that it updates is needed"),
        (set_input("block0.hidden", 0, "block0.qkv"), "q, k and v must come from one Linear"),
        (set_input("head.upsample1", 0, "block0.attention"), "which only a linear can take"),
        (drop_node("output"), "Graph output 'output' is not an output of any node"),
        (drop_output, "must hold one PatchEmbedding and one ClassMap or PixelValues"),
    ],
)  # fmt: skip
def test_graphs_that_cannot_be_compiled(
    change: Callable[[onnx.ModelProto], None], message: str, network: IntegerNetwork, tmp_path: Path
) -> None:
    model = path_graph(network, "depth")
    change(model)
    refuse(model, tmp_path, message)


@pytest.mark.parametrize("sign", [-1, 1])
def test_accumulators_reach_the_limit_exactly(sign: int, network: IntegerNetwork, tmp_path: Path) -> None:
    """128 sum |w| + |b| may be 2^31 - 1 and no more."""
    weight = network.blocks[0].attention.qkv.weight[0].astype(np.int64)
    room = 2**31 - 1 - 128 * int(np.abs(weight).sum())
    model = path_graph(network, "depth")
    set_constant("block0.qkv.bias", put(sign * room))(model)
    (tmp_path / "it.onnx").write_bytes(model.SerializeToString())
    compile_bundle([tmp_path / "it.onnx"], small_accelerator(), tmp_path / "it")
    shutil.rmtree(tmp_path / "it")
    set_constant("block0.qkv.bias", put(sign * (room + 1)))(model)
    refuse(model, tmp_path, "accumulator may reach 2147483648")


def test_inputs_of_another_number(network: IntegerNetwork, tmp_path: Path) -> None:
    model = path_graph(network, "depth")
    node_of(model, "block0.qkv").input.append("position")
    refuse(model, tmp_path, "it must have 4 inputs")
    model = path_graph(network, "depth")
    node_of(model, "block0.qkv").output.append("more")
    refuse(model, tmp_path, "it must have 1 outputs")
    model = path_graph(network, "depth")
    node_of(model, "block0.norm2").output[0] = "block0.norm1"
    refuse(model, tmp_path, "is made twice|not output of any previous|SSA")


def test_the_other_kind_of_output(network: IntegerNetwork, tmp_path: Path) -> None:
    model = path_graph(network, "depth")
    node_of(model, "output").op_type = "ClassMap"
    refuse(model, tmp_path, "the task's outputs are of kind scalar")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("config_hash", "0" * 16, "does not match its hash"),
        ("task", "edge", "which its configuration does not have"),
        ("task", 3, "which its configuration does not have"),
        ("output_scale", -1.0, "output_scale = -1.0"),
        ("output_scale", "1", "output_scale = '1'"),
        ("format_version", 2, "format version 2"),
        ("classes", 3, "the metadata of '.*': classes = 3 has the wrong type"),
        ("classes", [["sky", [0, 0, 256]]], "tasks.depth.classes in the manifest does not fit"),
        ("classes", ["sky"], r"the metadata of '.*': classes\[0\] = 'sky' has the wrong type"),
        ("scales", {"residual": "1"}, "the metadata of '.*': scales.residual = '1' has the wrong type"),
        ("scales", [], "the metadata of '.*': scales = .* has the wrong type"),
        ("expert_ids", {"1": [-1]}, r"the metadata of '.*': expert_ids.1\[0\] = -1 is not allowed"),
        ("expert_ids", {"1": [0, 1]}, "tasks.depth.expert_ids in the manifest does not fit"),
        ("config", {"depth": 1}, "key 'model.image_size' is missing"),
    ],
)
def test_metadata_that_is_wrong(
    key: str, value: object, message: str, network: IntegerNetwork, tmp_path: Path
) -> None:
    model = path_graph(network, "depth")
    metadata = json.loads(model.metadata_props[0].value)
    assert model.metadata_props[0].key == METADATA_KEY
    metadata[key] = value
    model.metadata_props[0].value = json.dumps(metadata)
    refuse(model, tmp_path, message)


def test_a_file_that_is_cut_short(network: IntegerNetwork, tmp_path: Path) -> None:
    path = write_paths(network, tmp_path, ["depth"])[0]
    data = path.read_bytes()
    refused = 0
    for size in np.linspace(0, len(data) - 1, 40).astype(int).tolist():
        path.write_bytes(data[:size])
        with pytest.raises(EdgeMoEError):
            read_path(path)
        refused += 1
    assert refused == 40


def test_damaged_bytes_of_a_path_raise_nothing_else(network: IntegerNetwork, tmp_path: Path) -> None:
    """Most bytes are weights: a flip there gives another model. No byte may cause a traceback."""
    path = write_paths(network, tmp_path, ["depth"])[0]
    data = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for seed in range(150):
        damaged = data.copy()
        # names, shapes and attributes are at the beginning, and between the weights
        place = rng.integers(len(data) if seed % 3 == 0 else 4000)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged.tobytes())
        try:
            compile_bundle([path], small_accelerator(), tmp_path / "bundle")
        except EdgeMoEError:
            refused += 1
    assert refused >= 40
