# SPDX-License-Identifier: Apache-2.0
"""path.qdq.onnx: close to golden, real units, integer kernels, an expert sees its own tokens alone."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest

from edge_moe import EdgeMoEError
from edge_moe.export.qdq import build_qdq_model
from edge_moe.export.verify import verify_qdq
from edge_moe.quant.network import Head, run_network
from edge_moe.testing.graphs import ALL_TASKS, CONFIGS, config, corrupt
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.backends.onnx import Session
from edge_moe_host.golden.operators import Linear


def open_session(model):
    return Session(model.SerializeToString(), "test")


@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_golden(name):
    cfg = CONFIGS[name]
    network = random_network(cfg, seed=3)
    agreement = verify_qdq(
        build_qdq_model(network, "semseg"), network, "semseg", random_images(cfg, 2), snr=25, agreement=0.95
    )
    assert agreement.images == 2
    assert agreement.snr > 25
    assert agreement.agreement is not None
    assert 0.95 < agreement.agreement <= 1


@pytest.mark.parametrize("task", ALL_TASKS)
def test_results_are_in_real_units(task):
    cfg = config(tasks=ALL_TASKS)
    network, images = random_network(cfg, seed=4, expert_bits=4), random_images(cfg, 2)
    golden = run_network(network, images, task)
    actual = open_session(build_qdq_model(network, task)).run(images)
    scale = network.heads[task].scale
    raw, output = actual["head.out"], actual["output"]
    assert raw.dtype == np.float32
    assert raw.shape == golden.raw.shape
    assert np.abs(raw - golden.raw * scale).max() < 0.1 * np.abs(golden.raw * scale).max()
    assert output.shape == golden.output.shape
    if golden.output.dtype == np.uint8:
        assert output.dtype == np.uint8
        assert (output == golden.output).mean() > 0.95
    else:
        real = golden.output * (scale / (2 * 4) ** 2)  # 'edge' heads stop at a quarter of the size
        assert output.dtype == np.float32
        assert np.abs(output - real).max() < 0.1 * np.abs(real).max()


def test_batch_is_dynamic():
    cfg = CONFIGS["no cls"]
    network, images = random_network(cfg), random_images(cfg, 3)
    session = open_session(build_qdq_model(network, "depth"))
    together = session.run(images)["output"]
    for index in range(3):
        alone = session.run(images[index : index + 1])["output"][0]
        assert np.abs(alone - together[index]).max() < 0.02 * np.abs(alone).max()
    assert together.shape == (3, 32, 48, 1)


def routed(cfg, biases):
    """A network whose gates' biases decide the routing."""
    network = random_network(cfg)
    for index in cfg.moe_blocks:
        for gate in network.blocks[index].gates.values():
            gate.bias[:] = biases
    return network


def test_empty_experts_cost_nothing_and_change_nothing():
    cfg = CONFIGS["no cls"]
    network, images = routed(cfg, [0, 2**30, 2**29, 0]), random_images(cfg, 2)
    agreement = verify_qdq(build_qdq_model(network, "semseg"), network, "semseg", images)
    assert agreement.snr > 25
    # experts 0 and 3 have no tokens, so whatever is in them must not matter
    ruined = dataclasses.replace(network, blocks=tuple(map(_ruin_unused, network.blocks)))
    first, second = (open_session(build_qdq_model(net, "semseg")).run(images) for net in (network, ruined))
    assert np.array_equal(first["head.out"], second["head.out"])


def _ruin_unused(block):
    if not block.experts:
        return block
    used = block.experts[1]
    other = dataclasses.replace(
        used, fc2=dataclasses.replace(used.fc2, bias=np.full_like(used.fc2.bias, 2**28))
    )
    return dataclasses.replace(block, experts=(other, *block.experts[1:3], other))


def test_graph_is_standard_and_onnxruntime_runs_it_on_integer_kernels(tmp_path):
    cfg = CONFIGS["three experts"]
    model = build_qdq_model(random_network(cfg), "semseg")
    assert {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
    assert not model.functions
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    # patch embedding; qkv and proj of two blocks; a dense FFN; three experts
    assert kinds.count("QGemm") == 1 + 2 * 2 + 2 + 2 * 3
    assert kinds.count("QLinearConv") == 3
    assert kinds.count("Gemm") == 1  # the gate, in float


def test_weights_of_eight_bits_use_their_whole_range_without_saturating_sums():
    """Extreme weights and activations, whose products by pairs exceed 16 bits."""
    cfg = config(routing="dense")
    network = random_network(cfg)
    head = network.heads["depth"]
    conv = head.convs[0]
    conv = Linear(np.full_like(conv.weight, 127), np.zeros_like(conv.bias), conv.multiplier, conv.shift + 5)
    bright = dataclasses.replace(head.norm, beta=np.full_like(head.norm.beta, 100 << head.norm.shift))
    head = Head(bright, (conv, *head.convs[1:]), head.out, head.scale)
    network = dataclasses.replace(network, heads={"depth": head})
    images = random_images(cfg, 1)
    assert verify_qdq(build_qdq_model(network, "depth"), network, "depth", images).snr > 30


def test_falling_short_of_a_limit_is_an_error():
    cfg = CONFIGS["dense"]
    network, images = random_network(cfg), random_images(cfg, 1)
    model = build_qdq_model(network, "semseg")
    measured = verify_qdq(model, network, "semseg", images)
    with pytest.raises(EdgeMoEError, match=r"agrees with the golden model to .* dB only, where 90\.0 dB"):
        verify_qdq(model, network, "semseg", images, snr=90)
    with pytest.raises(EdgeMoEError, match=r"gives .* % of the pixels .* where 100\.10 % are required"):
        verify_qdq(model, network, "semseg", images, agreement=1.001)
    corrupt(model, "head.out.bias", 10**6)
    with pytest.raises(EdgeMoEError, match="dB only"):
        verify_qdq(model, network, "semseg", images)
    assert measured.snr > 25
    with pytest.raises(EdgeMoEError, match="no images"):
        verify_qdq(model, network, "semseg", images[:0])
    with pytest.raises(EdgeMoEError, match="task 'edge' is not in this network"):
        build_qdq_model(network, "edge")
