# SPDX-License-Identifier: Apache-2.0
"""Bit widths under a budget, dropping unused experts, the layer report, and integers as a model."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from edge_moe import EdgeMoEError
from edge_moe.eval.evaluate import ExpertUsage
from edge_moe.quant.build import build_network
from edge_moe.quant.calibrate import calibrate
from edge_moe.quant.integer_model import IntegerModel
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe.quant.options import EXPERT_WIDTHS, QuantOptions
from edge_moe.quant.prune import drop_table, drop_unused, task_path, weight_bits
from edge_moe.quant.report import LayerReport, decibels, dequantise, layer_report, same_sets, snr_table
from edge_moe.quant.widths import choose_bits, least_damage, mean_bits, uniform_bits
from edge_moe.testing.networks import random_images, random_network
from edge_moe.testing.quant_models import CONFIG, as_tensor, changed, pictures, random_model
from edge_moe_host.golden import operators as op
from edge_moe_host.golden.arithmetic import EXP2, reciprocal, requantise, rounding_shift
from edge_moe_host.golden.trace import Trace

# --- widths ---------------------------------------------------------------------------------------


def test_least_damage_is_the_best_of_all_choices() -> None:
    rng = np.random.default_rng(0)
    widths = (3, 4, 6)
    compared = 0
    for _ in range(60):
        damage = rng.exponential(size=(5, 3)) * 4.0 ** -np.array(widths)
        budget = int(rng.integers(15, 32))
        found = least_damage(damage, widths, budget)
        assert sum(found) <= budget
        total = sum(damage[row, widths.index(width)] for row, width in enumerate(found))
        best = min(
            sum(damage[row, choice] for row, choice in enumerate(choices))
            for choices in itertools.product(range(3), repeat=5)
            if sum(widths[choice] for choice in choices) <= budget
        )
        assert math.isclose(total, best)
        compared += 1
    assert compared == 60


def test_budgets_at_their_ends() -> None:
    damage = np.tile([9.0, 5.0, 3.0, 2.0, 1.0], (4, 1))
    assert least_damage(damage, EXPERT_WIDTHS, 12) == [3] * 4
    assert least_damage(damage, EXPERT_WIDTHS, 32) == [8] * 4
    assert least_damage(damage, EXPERT_WIDTHS, 1000) == [8] * 4
    with pytest.raises(EdgeMoEError, match="11 bits for 4 experts are too few: each needs at least 3"):
        least_damage(damage, EXPERT_WIDTHS, 11)


@pytest.mark.parametrize("average", [3.0, 4.3, 5.0, 8.0])
def test_chosen_widths_keep_the_budget(average: float) -> None:
    model = random_model()
    calibration = calibrate(model, pictures(4), QuantOptions())
    bits = choose_bits(model, calibration.scales, calibration, average)
    assert {block: len(widths) for block, widths in bits.items()} == {1: 4, 3: 4}
    assert {width for widths in bits.values() for width in widths} <= set(EXPERT_WIDTHS)
    assert average - 0.25 < mean_bits(bits) <= average


def test_bits_go_where_tokens_go() -> None:
    model = random_model(changed(routing="single_gate", depth=2))
    with torch.no_grad():
        experts, gate = model.block(1).ffn.experts, model.block(1).ffn.gates["shared"].weight
        for weight in (experts.weight1, experts.bias1, experts.weight2, experts.bias2):
            weight[:] = weight[:1].clone()  # all experts are equal: only their usage differs
        model.block(1).norm2.weight[1], model.block(1).norm2.bias[1] = 0.01, 2.0
        gate[0].zero_()
        gate[0, 1] = 4.0  # channel 1 is about 2 for every token, so that this expert always comes first
    calibration = calibrate(model, pictures(6), QuantOptions())
    usage = sum(counts[0] for counts in calibration.usage.values())
    bits = choose_bits(model, calibration.scales, calibration, 5.0)[1]
    assert usage[0] == usage.sum() / 2  # each token has two experts
    assert bits[0] > max(bits[1:])
    never = dict.fromkeys(calibration.usage, np.array([[0, 5, 5, 5]]))
    again = dataclasses.replace(calibration, usage=never)
    assert choose_bits(model, calibration.scales, again, 5.0)[1][0] == EXPERT_WIDTHS[0]


def test_uniform_widths() -> None:
    assert uniform_bits(CONFIG, 4) == {1: (4,) * 4, 3: (4,) * 4}
    assert uniform_bits(changed(routing="dense"), 4) == {}
    assert mean_bits({1: (4, 8), 3: (3, 5)}) == 5


# --- dropping unused experts ----------------------------------------------------------------------


def usage_of(network: IntegerNetwork, images: np.ndarray, task: str) -> dict[int, np.ndarray]:
    trace = Trace()
    run_network(network, images, task, trace)
    return {
        index: np.bincount(trace.tensors[f"block{index}.gate.expert"].ravel(), minlength=len(block.experts))
        for index, block in enumerate(network.blocks)
        if block.experts
    }


def shifted(network: IntegerNetwork, expert: int, logit: int) -> IntegerNetwork:
    """All gates give ``expert`` this much more."""
    blocks = []
    for block in network.blocks:
        gates = {}
        for task, gate in block.gates.items():
            bias = gate.bias.copy()
            bias[expert] += logit
            gates[task] = dataclasses.replace(gate, bias=bias)
        blocks.append(dataclasses.replace(block, gates=gates))
    return dataclasses.replace(network, blocks=tuple(blocks))


def test_dropping_an_expert_of_no_weight_changes_no_bit() -> None:
    network = shifted(random_network(CONFIG, seed=5), expert=1, logit=-(2**30))
    images = random_images(CONFIG, 2)
    usage = usage_of(network, images, "depth")
    assert all(counts[1] == 0 and (counts[[0, 2, 3]] > 0).all() for counts in usage.values())
    path = drop_unused(network.path("depth"), usage)
    before, after = Trace(), Trace()
    run_network(network, images, "depth", before)
    run_network(path, images, "depth", after)
    compared = 0
    for name, value in before.tensors.items():
        ours = after.tensors[name]
        if name.endswith(".gate.expert"):
            ours = np.array(path.blocks[1].expert_ids)[ours]
        elif name.endswith(".gate.logits"):
            value = value[..., [0, 2, 3]]
        assert np.array_equal(ours, value), name
        compared += value.size
    assert compared > 10000
    for index in (1, 3):
        block = path.blocks[index]
        assert block.expert_ids == (0, 2, 3)
        assert len(block.experts) == len(block.gates["depth"].weight) == len(block.gates["depth"].bias) == 3
        assert np.array_equal(block.experts[1].fc1.weight, network.blocks[index].experts[2].fc1.weight)


def test_dropping_an_unused_expert_leaves_choices_and_renormalises_scores() -> None:
    network = random_network(CONFIG, seed=2)
    x = np.random.default_rng(0).integers(-100, 100, (2, 40, 32)).astype(np.int8)
    gate = network.blocks[1].gates["semseg"]
    logits = op.gate_logits(x, gate)
    logits[..., 2] = logits[..., [0, 1, 3]].min(-1)  # never among the two best, never far below
    expert, score = op.route(logits, gate)
    assert not (expert == 2).any()
    kept = [0, 1, 3]
    new_expert, new_score = op.route(logits[..., kept], gate)
    assert np.array_equal(np.array(kept)[new_expert], expert)
    assert (new_score >= score).all()
    assert (new_score > score).mean() > 0.9
    # by hand: the same numerators over the sum of the remaining ones
    y = requantise(logits, gate.multiplier, gate.shift, -(2**15), 2**15 - 1)
    below = ((y.max(-1, keepdims=True) >> 8) + 1 << 8) - y
    P = rounding_shift(EXP2[below & 255], np.minimum(below >> 8, 31))
    R, k = reciprocal(P[..., kept].sum(-1, keepdims=True))
    by_hand = np.minimum(rounding_shift(np.take_along_axis(P, expert, -1) * R, k), 2**15 - 1)
    assert np.array_equal(by_hand, new_score)
    assert by_hand.size == 2 * 40 * 2


def test_what_was_dropped_can_be_dropped_from_again() -> None:
    network = random_network(CONFIG).path("depth")
    usage = {1: np.array([5, 0, 2, 1]), 3: np.array([1, 1, 1, 1])}
    once = drop_unused(network, usage)
    assert once.blocks[1].expert_ids == (0, 2, 3)
    assert once.blocks[3].expert_ids == (0, 1, 2, 3)
    assert drop_unused(once, usage).blocks[1].expert_ids == (0, 2, 3)
    assert drop_unused(once, {**usage, 1: np.array([5, 9, 0, 1])}).blocks[1].expert_ids == (0, 3)


@pytest.mark.parametrize(
    ("usage", "message"),
    [
        ({1: np.ones(4)}, "does not cover block 3"),
        ({1: np.ones(4), 3: np.ones(3)}, "does not cover block 3"),
        (
            {1: np.ones(4), 3: np.array([0, 1, 0, 0])},
            "block 3 shows 1 experts in use, but each token needs 2",
        ),
    ],
)
def test_usage_that_does_not_fit_is_refused(usage: dict, message: str) -> None:
    with pytest.raises(EdgeMoEError, match=message):
        drop_unused(random_network(CONFIG).path("depth"), usage)


def test_dropping_is_of_one_task() -> None:
    with pytest.raises(EdgeMoEError, match="the path of one task, but this network has semseg, depth"):
        drop_unused(random_network(CONFIG), {1: np.ones(4), 3: np.ones(4)})


def test_task_path_drops_when_the_options_say_so() -> None:
    network = random_network(CONFIG)
    usage = {task: np.array([[3, 0, 1, 0], [1, 1, 1, 0]]) for task in CONFIG.tasks}
    drop = {"options": {"drop_unused_experts": True}, "usage": usage}
    assert len(task_path(network, "depth", drop).blocks[1].experts) == 2
    assert len(task_path(network, "depth", {"options": {}, "usage": usage}).blocks[1].experts) == 4
    assert len(task_path(network, "depth", {}).blocks[1].experts) == 4
    with pytest.raises(EdgeMoEError, match="holds no expert usage of task 'semseg'"):
        task_path(network, "semseg", {**drop, "usage": {"depth": usage["depth"]}})
    table = drop_table(network, drop)
    assert "| depth | 2 of 4 | 3 of 4 |" in table
    assert len(table.splitlines()) == 4


def test_weight_bits_by_hand() -> None:
    network = random_network(changed(tasks={"depth": 1}), expert_bits=3)
    D, c = 32, 16
    attention, dense, expert = 4 * D * D * 8, 2 * 4 * D * D * 8, 2 * 2 * D * D * 3
    head = (9 * D * c + 2 * 9 * c * c + c) * 8
    expected = D * 8 * 8 * 3 * 8 + 4 * attention + 2 * dense + 2 * (4 * expert + 4 * D * 16) + head
    assert weight_bits(network) == expected


# --- integers as a model --------------------------------------------------------------------------


def test_integer_model_is_golden_in_real_units() -> None:
    network = random_network(CONFIG, seed=5)
    images = random_images(CONFIG, 2)
    output = IntegerModel(network)(as_tensor(images), tasks=["depth", "semseg"])
    assert list(output.predictions) == ["depth", "semseg"]
    classes = run_network(network, images, "semseg").output
    assert np.array_equal(output.predictions["semseg"].argmax(1).numpy(), classes)
    assert len(np.unique(classes)) > 1
    whole = run_network(network, images, "depth")
    factor = 2  # 8-pixel patches, three convolutions
    expected = whole.output[..., 0] * (network.heads["depth"].scale / (2 * factor) ** 2)
    assert np.allclose(output.predictions["depth"][:, 0].numpy(), expected, rtol=1e-6)
    assert output.predictions["depth"].dtype == torch.float32
    assert output.predictions["depth"].shape == (2, 1, 32, 64)


def test_integer_model_names_experts_as_the_model_does() -> None:
    network = random_network(CONFIG)
    usage = {1: np.array([0, 1, 0, 1]), 3: np.array([1, 1, 0, 0])}
    model = IntegerModel(drop_unused(network.path("depth"), usage))
    routing = model(as_tensor(random_images(CONFIG, 2))).routing
    assert list(routing) == ["depth"]
    assert set(routing["depth"]) == {1, 3}
    assert set(routing["depth"][1].expert.unique().tolist()) == {1, 3}
    assert set(routing["depth"][3].expert.unique().tolist()) == {0, 1}
    assert routing["depth"][1].score.shape == (2, CONFIG.num_tokens, 2)
    assert (routing["depth"][1].score.sum(-1) > 0.98).all()  # both experts that are left are chosen
    counts = ExpertUsage(CONFIG.num_experts)
    counts.add(routing)
    assert counts.table()[0]["depth"].sum() == 2 * 2 * CONFIG.num_tokens * 2


def test_integer_model_refuses_what_it_cannot_take() -> None:
    model = IntegerModel(random_network(CONFIG))
    with pytest.raises(EdgeMoEError, match=r"images are torch.float32: an integer network takes uint8"):
        model(torch.rand(1, 3, 32, 64))
    with pytest.raises(EdgeMoEError, match="this network takes uint8"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(EdgeMoEError, match="task 'edge' is not in this network"):
        model(as_tensor(random_images(CONFIG, 1)), tasks=["edge"])


# --- report ---------------------------------------------------------------------------------------


def test_decibels() -> None:
    signal = np.array([3.0, -4.0])
    assert math.isclose(decibels(signal, signal + np.array([0.3, 0.4])), 20)
    assert decibels(signal, signal) == math.inf
    assert decibels(0 * signal, signal) == -math.inf


def test_same_sets_ignore_the_order() -> None:
    left = np.array([[0, 1], [2, 3], [1, 1]])
    assert same_sets(left, np.array([[1, 0], [2, 0], [1, 1]])).tolist() == [True, False, True]


def test_dequantise_by_hand() -> None:
    D = CONFIG.embed_dim
    scales = {
        "residual": np.array(0.5), "block0.norm1": np.full(D, 2.0), "block0.norm1.offset": np.arange(D) * 1.0,
        "block0.q": np.array([1.0, 10.0]), "block0.k": np.array([2.0, 20.0]), "block0.v": np.full(D, 3.0),
        "block0.hidden": np.array(0.1), "block0.hidden.zero_point": np.array(-100.0),
        "head.depth.conv0": np.array(0.25), "head.depth.out": np.array(1e-3),
    }  # fmt: skip
    ones = np.ones((1, D))
    assert dequantise("block0.proj", 6 * ones, scales, CONFIG)[0, 0] == 3
    assert np.array_equal(dequantise("block0.norm1", 7 * ones, scales, CONFIG)[0], 14 + np.arange(D))
    qkv = dequantise("block0.qkv", np.ones(3 * D), scales, CONFIG)
    assert qkv.tolist() == [1] * 16 + [10] * 16 + [2] * 16 + [20] * 16 + [3] * 32
    assert np.allclose(dequantise("block0.hidden", np.array([-100, -90]), scales, CONFIG), [0, 1])
    for name in ("conv0", "upsample1"):
        assert dequantise(f"head.depth.{name}", np.array([-128, -124]), scales, CONFIG).tolist() == [0, 1]
    assert dequantise("head.depth.out", np.array(3000), scales, CONFIG) == 3


def test_report_covers_every_intermediate() -> None:
    model = random_model()
    calibration = calibrate(model, pictures(8), QuantOptions())
    network = build_network(model, calibration.scales, QuantOptions(), calibration)
    report = layer_report(model, network, calibration.scales, random_images(CONFIG, 2))
    trace = Trace()
    run_network(network, random_images(CONFIG, 1), "depth", trace)
    for task in CONFIG.tasks:
        assert set(report.snr[task]) == {n for n in trace.tensors if ".gate." not in n and n != "output"}
        assert set(report.same_experts[task]) == {1, 3}
        assert min(report.same_experts[task].values()) > 0.8
        assert report.snr[task]["patch_embedding"] > 35
        assert min(report.snr[task].values()) > 10
    assert report.snr["depth"]["block0.ffn"] == report.snr["semseg"]["block0.ffn"]  # the tasks share it
    text = snr_table(report)
    assert len(text.splitlines()) == 2 + len(report.snr["depth"]) + 2
    assert (
        f"| head.out | {report.snr['semseg']['head.out']:.1f} | {report.snr['depth']['head.out']:.1f} |"
        in text
    )


def test_report_of_models_without_experts() -> None:
    config = changed(routing="dense", depth=2)
    model = random_model(config)
    calibration = calibrate(model, pictures(4, config), QuantOptions())
    network = build_network(model, calibration.scales, QuantOptions(), calibration)
    report = layer_report(model, network, calibration.scales, random_images(config, 1))
    assert report.same_experts == {"semseg": {}, "depth": {}}
    assert "gate" not in snr_table(report)


def test_table_leaves_a_gap_where_a_task_lacks_a_layer() -> None:
    report = LayerReport({"a": {"x": 10.04, "y": math.inf}, "b": {"x": 5.0}}, {"a": {1: 0.5}, "b": {1: 1.0}})
    assert snr_table(report).splitlines()[2:] == [
        "| x | 10.0 | 5.0 |",
        "| y | inf |  |",
        "| block1.gate, tokens with the same experts | 50.0 % | 100.0 % |",
    ]
