# SPDX-License-Identifier: Apache-2.0
"""path.onnx of whole networks: every intermediate equals golden's, and damage is noticed."""

import json

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edge_moe import EdgeMoEError
from edge_moe.export.functions import path_functions
from edge_moe.export.graph import METADATA_KEY, path_graph
from edge_moe.export.path import build_path_model, flat_model, path_metadata, read_path_model
from edge_moe.export.qdq import build_qdq_model
from edge_moe.export.verify import require_equal, traced_model, verify_path, verify_qdq
from edge_moe.info import HEAD_CONVS
from edge_moe.quant.network import run_network
from edge_moe.quant.prune import drop_unused
from edge_moe.testing.graphs import ALL_TASKS, CONFIGS, config, corrupt
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.backends.onnx import Session
from edge_moe_host.golden.trace import Trace


def expected_tensors(cfg):
    """How many intermediates and results a path has."""
    convs = HEAD_CONVS[cfg.head]
    moe = len(cfg.moe_blocks)
    return 1 + 7 * (cfg.depth - moe) + 9 * moe + 1 + convs + (convs - 1) + 2


@pytest.mark.parametrize("name", CONFIGS)
def test_every_intermediate_equals_golden(name):
    cfg = CONFIGS[name]
    network, images = random_network(cfg, seed=3), random_images(cfg, 3)
    trace = Trace()
    run_network(network, images, "semseg", trace)
    counts = verify_path(build_path_model(network, "semseg"), network, "semseg", images, trace_images=2)
    traced = sum(value.size // 3 for value in trace.tensors.values())
    results = sum(trace.tensors[tensor].size for tensor in ("head.out", "output"))
    assert counts.values == 2 * traced + results
    assert counts.tensors == len(trace.tensors) == expected_tensors(cfg)
    assert (counts.images, counts.traced_images) == (3, 2)


@pytest.mark.parametrize("form", [lambda model: model, flat_model], ids=["functions", "flat"])
@pytest.mark.parametrize("name", CONFIGS)
def test_reference_evaluator_of_onnx_equals_golden(name, form):
    cfg = CONFIGS[name]
    network, images = random_network(cfg, seed=3), random_images(cfg, 2)
    for task in cfg.tasks:
        trace, model = Trace(), form(traced_model(build_path_model(network, task)))
        run_network(network, images, task, trace)
        values = ReferenceEvaluator(model).run(None, {"image": images})
        actual = dict(zip((output.name for output in model.graph.output), values, strict=True))
        count = require_equal("ReferenceEvaluator", "golden", actual, trace.tensors, actual, 0)
        assert count > 1500


def test_flat_form_has_operators_of_onnx_only():
    flat = flat_model(build_path_model(random_network(CONFIGS["three experts"]), "depth"))
    assert {node.domain for node in flat.graph.node} == {""}
    assert [entry.domain for entry in flat.opset_import] == [""]
    assert not flat.functions


@pytest.mark.parametrize("task", ALL_TASKS)
def test_every_task_kind_and_experts_of_four_bits(task):
    cfg = config(tasks=ALL_TASKS)
    network = random_network(cfg, seed=4, expert_bits=4)
    counts = verify_path(build_path_model(network, task), network, task, random_images(cfg, 1), 1)
    assert counts.values > 6000


@pytest.mark.parametrize("task", ["semseg", "depth"])
def test_batch_is_dynamic_and_described_shapes_are_the_real_ones(task):
    cfg = CONFIGS["three experts"]
    network, images = random_network(cfg), random_images(cfg, 3)
    model = build_path_model(network, task)
    described = {value.name: value.type.tensor_type for value in model.graph.value_info}
    session = Session(traced_model(model).SerializeToString(), "test")
    for batch in (1, 3):
        trace, values = Trace(), 0
        run_network(network, images[:batch], task, trace)
        actual = session.run(images[:batch])
        for name, expected in trace.tensors.items():
            assert actual[name].dtype == expected.dtype
            assert actual[name].shape == expected.shape
            assert int((actual[name] != expected).sum()) == 0
            values += expected.size
            if name in described:
                dims = [dim.dim_param or dim.dim_value for dim in described[name].shape.dim]
                assert dims == ["batch", *expected.shape[1:]]
                assert described[name].elem_type == onnx.helper.np_dtype_to_tensor_dtype(expected.dtype)
        assert values > batch * 6000
    assert set(trace.tensors) == set(described) | {"head.out", "output"}


def test_all_tokens_on_one_expert_of_a_network():
    cfg = CONFIGS["many keys"]
    network, images = random_network(cfg), random_images(cfg, 1)
    gate = network.blocks[1].gates["semseg"]
    gate.bias[:] = [0, 2**30, 0, 2**29, 0]
    trace = Trace()
    run_network(network, images, "semseg", trace)
    assert set(trace.tensors["block1.gate.expert"][..., 0].ravel().tolist()) == {1}
    assert verify_path(build_path_model(network, "semseg"), network, "semseg", images).values > 50000


def test_experts_that_were_dropped():
    cfg = config(num_experts=6, top_k=2, depth=4)
    whole, images = random_network(cfg).path("semseg"), random_images(cfg, 2)
    usage = {1: np.array([5, 0, 1, 0, 0, 9]), 3: np.array([0, 2, 2, 2, 2, 0])}
    network = drop_unused(whole, usage)
    model = build_path_model(network, "semseg")
    sizes = {entry.name: entry.dims for entry in model.graph.initializer}
    assert (sizes["block1.experts.fc1.weight"][0], sizes["block3.experts.fc1.weight"][0]) == (3, 4)
    assert path_metadata(model)["expert_ids"] == {"1": [0, 2, 5], "3": [1, 2, 3, 4]}
    assert verify_path(model, network, "semseg", images).values > 20000
    assert verify_qdq(build_qdq_model(network, "semseg"), network, "semseg", images, agreement=0.9).snr > 25


def test_main_graph_is_readable_and_bodies_are_standard():
    model = build_path_model(random_network(CONFIGS["three experts"]), "semseg")
    called = {node.op_type for node in model.graph.node}
    assert {node.domain for node in model.graph.node} == {"edge_moe"}
    functions = {function.name: function for function in model.functions}
    assert called <= set(functions)
    for name in called:
        assert functions[name].doc_string
    nodes = [node for function in functions.values() for node in function.node]
    assert {node.domain for node in nodes} == {"", "edge_moe"}
    assert all(node.op_type in functions for node in nodes if node.domain == "edge_moe")
    assert model.ir_version == 10
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 21, "edge_moe": 1}
    assert len(path_functions()) == len(functions)
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
    casts = [node.attribute[0].i for node in nodes if node.op_type == "Cast"]
    assert casts
    assert not floats & set(casts)


def test_equal_networks_give_equal_files():
    cfg = CONFIGS["three experts"]
    first, second = (build_path_model(random_network(cfg, seed=5), "depth") for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("parameter", "change", "tensor"),
    [
        ("patch_embedding.bias", 99999, "patch_embedding"),
        ("block0.qkv.weight", -5, "block0.qkv"),
        ("block1.gate.bias", 1, "block1.gate.logits"),
        ("block1.experts.fc1.weight", -5, "block1.ffn"),
        ("head.conv2.multiplier", 99, "head.conv2"),
    ],
)
def test_one_changed_constant_is_found_at_its_tensor(parameter, change, tensor):
    cfg = CONFIGS["three experts"]
    network = random_network(cfg)
    model = build_path_model(network, "semseg")
    corrupt(model, parameter, change)
    with pytest.raises(EdgeMoEError, match=rf"of '{tensor}', first at .* of image 0: .* is right"):
        verify_path(model, network, "semseg", random_images(cfg, 1))


def test_verification_reports_a_difference_in_the_results_of_a_later_image():
    cfg = CONFIGS["dense"]
    network, images = random_network(cfg), random_images(cfg, 3)
    other = random_network(cfg, seed=1)
    with pytest.raises(EdgeMoEError, match=r"'head.out', first at .* of image 0"):
        verify_path(build_path_model(other, "semseg"), network, "semseg", images, trace_images=0)
    with pytest.raises(EdgeMoEError, match="no images"):
        verify_path(build_path_model(network, "semseg"), network, "semseg", images[:0])
    missing = build_path_model(network, "semseg")
    del missing.graph.value_info[3]
    with pytest.raises(EdgeMoEError, match=r"differs from the golden model: block0\.attention are in one"):
        verify_path(missing, network, "semseg", images)


def test_a_model_that_onnxruntime_refuses_is_one_sentence():
    model = path_graph(random_network(CONFIGS["dense"]), "semseg")  # without functions
    with pytest.raises(EdgeMoEError, match=r"^onnxruntime cannot load this model: .*[.]$"):
        Session(model.SerializeToString(), "this model")
    session = Session(build_path_model(random_network(CONFIGS["dense"]), "semseg").SerializeToString(), "it")
    with pytest.raises(EdgeMoEError, match=r"^onnxruntime cannot run it: .*[.]$"):
        session.run(np.zeros((1, 8, 8, 3), np.uint8))


def test_unknown_task_and_constants_that_do_not_fit():
    network = random_network(CONFIGS["dense"])
    with pytest.raises(EdgeMoEError, match="task 'edge' is not in this network"):
        build_path_model(network, "edge")
    network.patch.bias[0] = 2**31 - 1
    with pytest.raises(EdgeMoEError, match="layer 'patch_embedding' cannot be computed exactly"):
        build_path_model(network, "semseg")


@pytest.fixture(scope="module")
def path_bytes():
    return build_path_model(random_network(CONFIGS["dense"]), "semseg").SerializeToString()


def test_read_path_model(tmp_path, path_bytes):
    path = tmp_path / "path.onnx"
    path.write_bytes(path_bytes)
    model = read_path_model(path)
    assert model.SerializeToString() == path_bytes
    metadata = path_metadata(model)
    assert metadata["task"] == "semseg"
    assert metadata["config_hash"] == CONFIGS["dense"].hash()
    with pytest.raises(EdgeMoEError, match=r"cannot read '.*none\.onnx': No such file or directory\."):
        read_path_model(tmp_path / "none.onnx")
    with pytest.raises(EdgeMoEError, match="Is a directory"):
        read_path_model(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_named(tmp_path, path_bytes, part):
    path = tmp_path / "path.onnx"
    path.write_bytes(path_bytes[: int(part * len(path_bytes))])
    with pytest.raises(EdgeMoEError, match="is not an ONNX model or was cut short: export it again"):
        read_path_model(path)


def test_files_of_other_kinds(tmp_path, path_bytes):
    path = tmp_path / "path.onnx"
    path.write_text("this is not a model\n" * 20)
    with pytest.raises(EdgeMoEError, match="is not an ONNX model"):
        read_path_model(path)
    model = onnx.load_model_from_string(path_bytes)
    del model.graph.node[2].input[:]
    model.graph.node[2].output[0] = "patch_embedding"  # a second tensor of this name
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EdgeMoEError, match=r"is damaged .*export it again"):
        read_path_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: None, "has no 'edge_moe' metadata"),
        (lambda data: "{", "is damaged"),
        (lambda data: "[]", "is damaged"),
        (lambda data: json.dumps({**data, "format_version": "1"}), "is damaged"),
        (lambda data: json.dumps({**data, "format_version": 2}), "has format version 2 and this version"),
        (lambda data: json.dumps({k: v for k, v in data.items() if k != "config"}), "lacks 'config'"),
    ],
)
def test_metadata_of_another_kind(tmp_path, path_bytes, change, message):
    model = onnx.load_model_from_string(path_bytes)
    text = change(json.loads(model.metadata_props[0].value))
    onnx.helper.set_model_props(model, {} if text is None else {METADATA_KEY: text})
    path = tmp_path / "path.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EdgeMoEError, match=message):
        read_path_model(path)
