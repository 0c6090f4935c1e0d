# SPDX-License-Identifier: Apache-2.0
"""Folding of a float model into integers: layer by layer on the same inputs, and as a whole."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_moe import EdgeMoEError
from edge_moe.config import ModelConfig
from edge_moe.nn import M3ViT
from edge_moe.nn.heads import upsample
from edge_moe.nn.moe import MoEFFN
from edge_moe.quant.build import build_network, weight_grid
from edge_moe.quant.calibrate import Calibration, calibrate
from edge_moe.quant.correct import InputSource, LayerInputs
from edge_moe.quant.integer_model import IntegerModel
from edge_moe.quant.network import ACCUMULATOR_LIMIT, IntegerNetwork, check_network, run_network
from edge_moe.quant.options import QuantOptions
from edge_moe.quant.report import decibels, dequantise, same_sets
from edge_moe.quant.rounding import compensated, nearest, weight_scales
from edge_moe.testing.networks import random_images
from edge_moe.testing.quant_models import CONFIG, as_tensor, changed, pictures, random_model
from edge_moe_host.contract.layout import EPSILON_LIMIT
from edge_moe_host.golden import operators as op
from edge_moe_host.golden.operators import SCORE_FRACTION, Linear
from edge_moe_host.golden.trace import Trace

OPTIONS = QuantOptions(images=6)


def quantised(
    config: ModelConfig = CONFIG, options: QuantOptions = OPTIONS, seed: int = 0
) -> tuple[M3ViT, Calibration, IntegerNetwork]:
    model = random_model(config, seed)
    calibration = calibrate(model, pictures(options.images, config), options)
    return model, calibration, build_network(model, calibration.scales, options, calibration)


class FloatLayers:
    """The result of each float layer on golden's own integers, dequantised."""

    def __init__(self, model: M3ViT, calibration: Calibration, trace: Trace, images: np.ndarray, task: str):
        self.model, self.cfg, self.task, self.images = model, model.cfg, task, images
        self.scales, self.tensors = calibration.scales, trace.tensors

    def real(self, name: str) -> Tensor:
        """An intermediate of golden's trace in real units."""
        named = name.replace("head.", f"head.{self.task}.")
        return torch.from_numpy(dequantise(named, self.tensors[name], self.scales, self.cfg)).float()

    def actual(self, name: str) -> Tensor:
        """Golden's result; for a layer that adds to the residual stream, the addend."""
        if not name.endswith((".proj", ".ffn")):
            return self.real(name)
        block = int(name.removeprefix("block").split(".")[0])
        before = f"block{block - 1}.ffn" if block else "patch_embedding"
        return self.real(name) - self.real(f"block{block}.proj" if name.endswith(".ffn") else before)

    def expected(self) -> dict[str, Tensor]:
        result = {"patch_embedding": self.model.embed(as_tensor(self.images))}
        before = "patch_embedding"
        for index in range(self.cfg.depth):
            result |= self.block(f"block{index}", index, self.real(before))
            before = f"block{index}.ffn"
        return result | self.head(self.real(before))

    def block(self, name: str, index: int, x: Tensor) -> dict[str, Tensor]:
        block, cfg = self.model.block(index), self.cfg
        q, k, v = (
            self.real(f"{name}.qkv")
            .unflatten(-1, (3, cfg.num_heads, cfg.embed_dim // cfg.num_heads))
            .permute(2, 0, 3, 1, 4)
        )
        normed, middle = self.real(f"{name}.norm2"), self.real(f"{name}.proj")
        result = {
            f"{name}.norm1": block.norm1(x),
            f"{name}.qkv": block.attn.qkv(self.real(f"{name}.norm1")),
            f"{name}.attention": F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2),
            f"{name}.proj": block.attn.proj(self.real(f"{name}.attention")),
            f"{name}.norm2": block.norm2(middle),
        }
        ffn = block.ffn
        if isinstance(ffn, MoEFFN):
            # golden's own routing: ties that are decided otherwise have their own test
            expert = torch.from_numpy(self.tensors[f"{name}.gate.expert"]).long()
            score = torch.from_numpy(self.tensors[f"{name}.gate.score"] / 2.0**SCORE_FRACTION).float()
            out = ffn.experts(normed.flatten(0, 1), expert.flatten(0, 1), score.flatten(0, 1))
            return result | {f"{name}.ffn": out.view_as(middle)}
        return result | {
            f"{name}.hidden": F.gelu(ffn.fc1(normed)),
            f"{name}.ffn": ffn.fc2(self.real(f"{name}.hidden")),
        }

    def head(self, x: Tensor) -> dict[str, Tensor]:
        head, (h, w) = self.model.heads[self.task], self.cfg.grid_size
        result, source = {"head.norm": head.norm(x)[:, -h * w :]}, "head.norm"
        for stage, (conv, bn) in enumerate(zip(head.convs, head.bns, strict=True)):
            grid = self.real(source).transpose(1, 2).unflatten(2, (h, w))
            if stage:
                h, w = 2 * h, 2 * w
                result[f"head.upsample{stage}"] = upsample(grid, (h, w)).flatten(2).transpose(1, 2)
                grid = self.real(f"head.upsample{stage}").transpose(1, 2).unflatten(2, (h, w))
            source = f"head.conv{stage}"
            result[source] = F.relu(bn(conv(grid))).flatten(2).transpose(1, 2)
        weight = head.out.weight[:, :, 0, 0]
        result["head.out"] = head.scale * F.linear(self.real(source), weight, head.out.bias)
        return result


SHAPES = [
    {},
    {"routing": "single_gate", "cls_token": False},
    {"routing": "task_conditioned", "head": "pup", "patch_size": 16},
    {"routing": "dense", "depth": 2, "pixel_mean": (0.1, 0.5, 0.9), "pixel_std": (0.5, 0.2, 0.1)},
]


@pytest.mark.parametrize("fields", SHAPES, ids=lambda fields: fields.get("routing", "multi_gate"))
def test_every_layer_is_the_float_layer_on_the_same_input(fields: dict) -> None:
    # on the calibration images with their whole range nothing saturates: what is left is rounding
    model, calibration, network = quantised(changed(**fields), QuantOptions(images=6, observer="minmax"))
    images = calibration.images[:3]
    for task in model.cfg.tasks:
        trace = Trace()
        run_network(network, images, task, trace)
        layers = FloatLayers(model, calibration, trace, images, task)
        with torch.inference_mode():
            expected = layers.expected()
        compared = {name for name in trace.tensors if ".gate." not in name and name != "output"}
        assert set(expected) == compared
        for name, value in expected.items():
            quality = decibels(value.numpy(), layers.actual(name).numpy())
            # 8 bits of weights and activations; a norm has no weights to round
            assert quality > (43 if "norm" in name else 36), f"{name}: {quality:.1f} dB"


@pytest.mark.parametrize("fields", SHAPES, ids=lambda fields: fields.get("routing", "multi_gate"))
def test_predictions_are_close_to_the_float_models(fields: dict) -> None:
    model, _, network = quantised(changed(**fields))
    assert network.tasks == tuple(model.cfg.tasks)
    images = as_tensor(random_images(model.cfg, 3, seed=4))
    with torch.inference_mode():
        real, ours = model(images).predictions, IntegerModel(network)(images).predictions
    for task, value in real.items():
        assert ours[task].shape == value.shape
        quality = decibels(value.numpy(), ours[task].numpy())
        assert quality > 22, f"{task}: {quality:.1f} dB"  # random gates send some tokens elsewhere


@pytest.mark.parametrize("routing", ["multi_gate", "single_gate", "task_conditioned"])
def test_gates_choose_as_the_float_gates_on_the_same_activations(routing: str) -> None:
    config = changed(routing=routing, num_experts=16, depth=4)
    model, calibration, network = quantised(config)
    images = random_images(config, 40, seed=5)
    equal, scores = [], []
    for task in config.tasks:
        trace = Trace()
        run_network(network, images, task, trace)
        for index in config.moe_blocks:
            name = f"block{index}"
            x = dequantise(f"{name}.norm2", trace.tensors[f"{name}.norm2"], calibration.scales, config)
            ffn = model.block(index).ffn
            with torch.inference_mode():
                embedding = model.embed_task(task)
                _, routing_, _ = ffn(torch.from_numpy(x).float(), task, embedding)
            same = same_sets(trace.tensors[f"{name}.gate.expert"], routing_.expert.numpy())
            equal.append(same)
            ours = trace.tensors[f"{name}.gate.score"] / 2.0**SCORE_FRACTION
            scores.append((ours - routing_.score.numpy())[same])
    equal, error = np.concatenate(equal), np.abs(np.concatenate(scores, axis=None))
    assert equal.size == 2 * len(config.moe_blocks) * 40 * config.num_tokens
    assert equal.mean() >= 0.999
    assert error.max() < 0.005
    assert error.size > equal.size


def test_the_same_encoder_serves_every_task() -> None:
    _, _, network = quantised(changed(routing="single_gate"))
    for block in network.blocks:
        if block.gates:
            first, second = block.gates.values()
            assert np.array_equal(first.weight, second.weight)
            assert np.array_equal(first.bias, second.bias)
    _, _, separate = quantised()
    assert not np.array_equal(*(gate.weight for gate in separate.blocks[1].gates.values()))


@pytest.mark.parametrize("bits", range(2, 9))
def test_expert_weights_have_the_width_asked_for(bits: int) -> None:
    _, _, network = quantised(options=QuantOptions(images=3, expert_bits=bits))
    check_network(network)
    limit = 2 ** (bits - 1) - 1
    for block in network.blocks:
        assert block.attention.qkv.bits == block.attention.proj.bits == 8
        for ffn in (block.ffn,) if block.ffn is not None else block.experts:
            expected = 8 if block.ffn is not None else bits
            assert ffn.fc1.bits == ffn.fc2.bits == expected
            for layer in (ffn.fc1, ffn.fc2):
                assert np.abs(layer.weight.astype(int)).max() == 2 ** (expected - 1) - 1
    assert limit == {2: 1, 3: 3, 4: 7, 5: 15, 6: 31, 7: 63, 8: 127}[bits]


def test_each_expert_can_have_its_own_width() -> None:
    model, calibration, _ = quantised()
    bits = {1: (3, 4, 8, 6), 3: (2, 8, 5, 7)}
    network = build_network(model, calibration.scales, OPTIONS, calibration, bits)
    for block, widths in bits.items():
        experts = network.blocks[block].experts
        assert tuple(ffn.fc1.bits for ffn in experts) == tuple(ffn.fc2.bits for ffn in experts) == widths


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ({1: (8,) * 4}, r"given for blocks \[1\]: the MoE blocks of this model are \[1, 3\]"),
        ({1: (8,) * 4, 3: (8,) * 3}, "block 3 has 3 expert widths: this model has 4 experts"),
        ({1: (8,) * 4, 3: (8, 8, 9, 8)}, "expert 2 of block 3 has 9 bits"),
        ({1: (1, 8, 8, 8), 3: (8,) * 4}, "expert 0 of block 1 has 1 bits"),
    ],
)
def test_widths_that_do_not_fit_are_refused(bits: dict, message: str) -> None:
    model, calibration, _ = quantised()
    with pytest.raises(EdgeMoEError, match=message):
        build_network(model, calibration.scales, OPTIONS, expert_bits=bits)


def test_scales_of_another_model_are_refused() -> None:
    _, calibration, _ = quantised()
    with pytest.raises(EdgeMoEError, match=r"scale 'block0\.norm1' has shape"):
        build_network(random_model(changed(embed_dim=16)), calibration.scales, OPTIONS)


def test_damaged_weights_are_refused() -> None:
    model, calibration, _ = quantised()
    with torch.no_grad():
        model.block(1).ffn.experts.weight1[2, 3, 4] = float("nan")
    with pytest.raises(EdgeMoEError, match=r"layer 'block1.expert2.fc1' has a scale that is not positive"):
        build_network(model, calibration.scales, OPTIONS)


def test_sums_stay_within_int32_whatever_the_weights() -> None:
    model = random_model()
    with torch.no_grad():
        model.block(0).attn.qkv.weight[40] *= 1e-7  # a key channel that is bias alone
        model.block(0).attn.qkv.bias[40] = 3.0
        model.block(0).ffn.fc1.weight.mul_(1e-9)  # a layer that is bias alone
        model.block(0).ffn.fc1.bias.uniform_(-3, 3)
        model.block(2).ffn.fc2.weight.zero_()
        model.heads["semseg"].convs[1].weight[2] = 0
        model.heads["semseg"].bns[1].bias[2] = 5.0
    calibration = calibrate(model, pictures(3), OPTIONS)
    # without calibration data: bias correction would make up for a bias that was cut
    network = build_network(model, calibration.scales, OPTIONS)
    check_network(network)
    images = as_tensor(random_images(CONFIG, 2, seed=6))
    with torch.inference_mode():
        real, ours = model(images).predictions, IntegerModel(network)(images).predictions
    for task, value in real.items():
        assert decibels(value.numpy(), ours[task].numpy()) > 22


def test_grid_is_exactly_what_the_multipliers_say() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(40, 30)), rng.normal(size=40)
    out_scale = 10 ** rng.uniform(-1, 1.5, 40)
    scale, multiplier, shift = weight_grid("layer", weight, bias, out_scale)
    assert np.allclose(scale * 2.0**shift / out_scale, multiplier, rtol=1e-12)
    assert multiplier.min() < 400  # so an inexact scale would be 1/800 off
    assert np.abs(nearest(weight, scale, 127) * scale[:, None] - weight).max() < 1.01 * scale.max()


def test_normalisation_of_tokens_that_hardly_vary() -> None:
    model = random_model(changed(depth=1))
    with torch.no_grad():
        attn, ffn, patch = model.block(0).attn, model.block(0).ffn, model.patch_embed
        for layer in (attn.proj, ffn.fc2, patch):
            layer.weight.mul_(1e-3)  # a variance of about LayerNorm's epsilon
            layer.bias.mul_(1e-3)
        model.pos_embed.mul_(1e-3)
        model.cls_token.mul_(1e-3)
    calibration = calibrate(model, pictures(4, model.cfg), QuantOptions(observer="minmax"))
    network = build_network(model, calibration.scales, OPTIONS)
    trace = Trace()
    run_network(network, calibration.images, "depth", trace)
    x = torch.from_numpy(trace.tensors["patch_embedding"] * network.scales["residual"])
    assert x.var(-1).median() < 5e-6
    with torch.inference_mode():
        expected = model.block(0).norm1(x.float()).numpy()
    ours = dequantise("block0.norm1", trace.tensors["block0.norm1"], calibration.scales, model.cfg)
    assert decibels(expected, ours) > 43


def test_no_accumulator_of_the_integers_comes_near_overflow() -> None:
    _, _, network = quantised()
    layer: Linear = network.blocks[0].attention.qkv
    worst = 128 * np.abs(layer.weight.astype(int)).sum(1) + np.abs(layer.bias.astype(int))
    assert worst.max() < ACCUMULATOR_LIMIT / 100  # the headroom is what an ordinary network has


def test_depth_scale_changes_the_meaning_and_not_the_integers() -> None:
    networks = [quantised(changed(depth_scale=scale))[2] for scale in (1.0, 20.0)]
    heads = [network.heads["depth"] for network in networks]
    assert np.isclose(heads[1].scale, 20 * heads[0].scale, rtol=1e-6)
    images = random_images(CONFIG, 1)
    raw = [run_network(network, images, "depth").raw.astype(int) for network in networks]
    assert np.abs(raw[0] - raw[1]).max() <= 2
    assert np.abs(raw[0]).max() > 1000


def test_tensor_scales_say_what_one_unit_means() -> None:
    _, calibration, network = quantised()
    trace = Trace()
    run_network(network, random_images(CONFIG, 1), "depth", trace)
    assert network.scales["head.depth.out"] == network.heads["depth"].scale
    assert network.scales["block2.ffn"] == network.scales["residual"] == calibration.scales["residual"]
    assert set(network.scales) >= {"patch_embedding", "block0.proj", "block0.hidden", "block3.expert1.hidden",
                                   "block1.gate.depth.logits", "head.semseg.conv2"}  # fmt: skip
    assert all(type(value) is float and value > 0 for value in network.scales.values())
    # natural logits from the integers: their softmax is the score
    logits = trace.tensors["block1.gate.logits"] * network.scales["block1.gate.depth.logits"]
    score = np.sort(torch.from_numpy(logits).softmax(-1).numpy(), axis=-1)[..., ::-1][..., :2]
    ours = trace.tensors["block1.gate.score"] * network.scales["block1.gate.depth.score"]
    assert np.abs(ours - score).max() < 0.005


def test_the_same_input_gives_the_same_network() -> None:
    first, second = (quantised()[2] for _ in range(2))
    for one, two in zip(first.blocks, second.blocks, strict=True):
        assert np.array_equal(one.attention.qkv.weight, two.attention.qkv.weight)
        assert np.array_equal(one.attention.qkv.bias, two.attention.qkv.bias)
    assert first.scales == second.scales


# --- rounding -------------------------------------------------------------------------------------


def test_weight_scales_cover_the_largest_weight() -> None:
    weight = np.array([[1.0, -2.54, 0.3], [0.0, 0.001, 0.0], [0.0, 0.0, 0.0]])
    scale = weight_scales(weight)
    assert np.allclose(scale, [0.02, 2.54 / 256 / 127, 2.54 / 256 / 127])
    assert nearest(weight, scale, 127)[0].tolist() == [50, -127, 15]
    assert (weight_scales(np.zeros((2, 3))) > 0).all()


def test_narrow_weights_are_clipped_where_that_helps() -> None:
    rng = np.random.default_rng(0)
    weight = rng.laplace(size=(8, 400))
    for bits in (2, 3, 4):
        limit = 2 ** (bits - 1) - 1
        full = np.abs(weight).max(1) / limit
        scale = weight_scales(weight, bits)
        assert (scale < full).all()
        error, before = (
            ((nearest(weight, s, limit) * s[:, None] - weight) ** 2).sum(1) for s in (scale, full)
        )
        assert (error < 0.9 * before).all()
    assert np.array_equal(weight_scales(weight, 8), np.abs(weight).max(1) / 127)


def test_importance_decides_what_is_clipped() -> None:
    weight = np.array([[4.0, *np.linspace(-1, 1, 50)]])
    heavy, light = np.ones(51), np.ones(51)
    heavy[0], light[0] = 1e3, 1e-3
    assert weight_scales(weight, 4, heavy)[0] > 1.5 * weight_scales(weight, 4, light)[0]


def test_compensated_rounding_by_hand() -> None:
    # two inputs that are nearly the same: what the first loses, the second makes up for
    moments = np.array([[1.0, 0.99], [0.99, 1.0]])
    weight, scale = np.array([[0.4, 0.4], [0.3, -0.3]]), np.ones(2)
    assert nearest(weight, scale, 7).tolist() == [[0, 0], [0, 0]]
    assert compensated(weight, scale, 7, moments).tolist() == [[0, 1], [0, 0]]
    assert compensated(weight * 100, scale, 7, moments).tolist() == [[7, 7], [7, -7]]


def test_compensated_rounding_of_unrelated_inputs_is_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    weight, scale = rng.normal(size=(6, 70)), rng.uniform(0.1, 0.3, 6)
    moments = np.diag(rng.uniform(0.5, 2, 70))
    assert np.array_equal(compensated(weight, scale, 7, moments), nearest(weight, scale, 7))
    assert np.array_equal(compensated(weight, scale, 7, np.zeros((70, 70))), nearest(weight, scale, 7))


def test_compensated_rounding_lowers_the_error_of_the_product() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 12)) @ rng.normal(size=(12, 80)) + 0.1 * rng.normal(size=(500, 80))
    weight = rng.normal(size=(20, 80))
    moments = x.T @ x / len(x)
    scale = weight_scales(weight, 4, np.diag(moments))
    errors = [
        np.mean((x @ (weight - integers * scale[:, None]).T) ** 2)
        for integers in (nearest(weight, scale, 7), compensated(weight, scale, 7, moments))
    ]
    assert errors[1] < 0.5 * errors[0]


# --- bias correction ------------------------------------------------------------------------------


def test_mean_shift_and_moments_by_hand() -> None:
    inputs = LayerInputs(np.array([[1.2, 2.0], [3.0, 4.6]]), np.array([[1, 2], [3, 5]]), np.array([1.0, 3.0]))
    weight, rounded = np.array([[1.0, 10.0]]), np.array([[2.0, 9.0]])
    ideal = (1.2 + 3 * 3.0) / 4 + 10 * (2.0 + 3 * 4.6) / 4
    actual = 2 * (1 + 3 * 3) / 4 + 9 * (2 + 3 * 5) / 4
    assert np.allclose(inputs.mean_shift(weight, rounded), ideal - actual)
    assert np.allclose(
        inputs.moments(centred=False), [[(1 + 81) / 10, (2 + 135) / 10], [13.7, (4 + 225) / 10]]
    )
    centre = np.array([(1 + 27) / 10, (2 + 45) / 10])
    expected = sum(w * np.outer(r - centre, r - centre) for w, r in ((0.1, [1, 2]), (0.9, [3, 5])))
    assert np.allclose(inputs.moments(centred=True), expected)


def test_inputs_of_every_layer_are_those_that_golden_feeds() -> None:
    model, calibration, network = quantised(options=QuantOptions(images=6, observer="minmax"))
    source, trace = InputSource(model, calibration.scales, calibration), Trace()
    run_network(network, calibration.images, "semseg", trace)
    ffn, dense = network.blocks[1].experts[2], network.blocks[0].ffn
    assert dense is not None
    routed = source.routed(1, 2)
    sent = []
    for task in CONFIG.tasks:
        gates = Trace()
        run_network(network, calibration.images, task, gates)
        sent.append(gates.tensors["block1.norm2"][(gates.tensors["block1.gate.expert"] == 2).any(-1)])
    hidden = op.linear_gelu(np.concatenate(sent), ffn) - float(ffn.zero_point)
    centre = slice(4 * 16, 5 * 16)  # of a 3x3 window with 16 channels
    pixels = calibration.images.reshape(6, 4, 8, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 192)
    cases = {
        "patches": (source.patches().actual, pixels),
        "norm": (source.norm("block0.norm1").actual, trace.tensors["block0.norm1"]),
        "attention": (source.attention("block0").actual, trace.tensors["block0.attention"]),
        "dense": (source.hidden("block0", source.norm("block0.norm2"), dense).actual,
                  trace.tensors["block0.hidden"] - float(dense.zero_point)),
        "expert": (source.hidden("block1.expert2", routed, ffn).actual, hidden),
        "map": (source.window("semseg", 0).actual[:, 4 * 32 : 5 * 32], trace.tensors["head.norm"]),
        "upsampled": (source.window("semseg", 1).actual[:, centre], trace.tensors["head.upsample1"] + 128.0),
        "last": (source.last("semseg", 2).actual, trace.tensors["head.conv2"] + 128.0),
    }  # fmt: skip
    for name, (ours, golden) in cases.items():
        golden = golden.reshape(-1, golden.shape[-1]).astype(np.float64)
        # rows are of all tasks and sampled: the means agree, not the rows
        for statistic in (np.mean, np.std):
            spread = np.abs(golden).mean()
            error = np.abs(statistic(ours, axis=0) - statistic(golden, axis=0)).mean()
            assert error < 0.15 * spread, f"{name}: {error:.2f} of {spread:.2f}"
    for layer in (source.norm("block0.norm1"), source.attention("block0"), source.last("semseg", 2)):
        assert np.abs(layer.ideal - layer.actual).max() <= 0.51
    assert routed.weight.shape == (len(routed.actual),)


def channel_error(model: M3ViT, network: IntegerNetwork, calibration: Calibration, block: int) -> float:
    """RMS over channels of the mean error of what a dense block's FFN adds, on golden's own inputs."""
    trace = Trace()
    run_network(network, calibration.images, "depth", trace)
    real = {part: torch.from_numpy(dequantise(f"block{block}.{part}", trace.tensors[f"block{block}.{part}"],
                                              calibration.scales, model.cfg)).float()
            for part in ("norm2", "proj", "ffn")}  # fmt: skip
    with torch.inference_mode():
        error = real["proj"] + model.block(block).ffn(real["norm2"]) - real["ffn"]
    return float(error.mean((0, 1)).square().mean().sqrt())


def test_bias_correction_removes_the_mean_error() -> None:
    model = random_model(changed(depth=1))
    with torch.no_grad():
        # rounding errors that do not cancel: every weight is a quarter of a step off the grid
        weight = model.block(0).ffn.fc2.weight
        step = weight.abs().amax(1, keepdim=True) / 127
        weight.copy_((torch.round(weight / step).clamp(-126, 126) + 0.25) * step)
        weight[:, 0] = step[:, 0] * 127
    errors = []
    for correct in (False, True):
        options = dataclasses.replace(OPTIONS, bias_correction=correct)
        calibration = calibrate(model, pictures(6, model.cfg), options)
        network = build_network(model, calibration.scales, options, calibration)
        errors.append(channel_error(model, network, calibration, 0))
    assert errors[1] < 0.25 * errors[0]


def test_correction_and_compensation_help_narrow_experts() -> None:
    model = random_model()
    images = as_tensor(random_images(CONFIG, 8, seed=9))
    with torch.inference_mode():
        real = model(images).predictions
    quality = {}
    for rounding, correct in itertools.product(("nearest", "gptq"), (False, True)):
        options = QuantOptions(images=16, expert_bits=3, rounding=rounding, bias_correction=correct)
        calibration = calibrate(model, pictures(16), options)
        network = build_network(model, calibration.scales, options, calibration)
        ours = IntegerModel(network)(images).predictions
        quality[rounding, correct] = np.mean([decibels(real[t].numpy(), ours[t].numpy()) for t in real])
    assert quality["gptq", True] > quality["nearest", False] + 1, quality


def test_without_calibration_data_weights_are_those_of_the_scales_alone() -> None:
    model, calibration, corrected = quantised()
    plain = build_network(model, calibration.scales, OPTIONS)
    options = dataclasses.replace(OPTIONS, bias_correction=False, rounding="nearest")
    same = build_network(model, calibration.scales, options, calibration)
    for one, two, other in zip(plain.blocks, same.blocks, corrected.blocks, strict=True):
        assert np.array_equal(one.attention.qkv.bias, two.attention.qkv.bias)
        assert np.array_equal(one.attention.qkv.weight, two.attention.qkv.weight)
        assert not np.array_equal(one.attention.proj.bias, other.attention.proj.bias)


@pytest.mark.parametrize("bits", [8, 4])
def test_an_expert_whose_scores_are_all_zero_is_rounded_as_without_calibration(bits: int) -> None:
    model = random_model(changed(depth=2))
    with torch.no_grad():
        block = model.block(1)
        block.norm2.bias.fill_(3.0)
        for gate in block.ffn.gates.values():
            gate.weight.zero_()
            gate.weight[0] = 50.0  # the scores of expert 1, the second of each token, underflow
    options = QuantOptions(observer="minmax", expert_bits=bits, rounding="gptq")
    calibration = calibrate(model, pictures(4, model.cfg), options)
    rows, scores = calibration.routed(1, 1)
    assert len(rows) > 100
    assert not scores.any()
    network = build_network(model, calibration.scales, options, calibration)
    plain = build_network(model, calibration.scales, options)
    for part in ("fc1", "fc2"):
        ours, expected = (getattr(net.blocks[1].experts[1], part) for net in (network, plain))
        np.testing.assert_array_equal(ours.weight, expected.weight)
        np.testing.assert_array_equal(ours.bias, expected.bias)


@pytest.mark.parametrize("factor", [1e-5, 1e-6])
def test_epsilon_of_tiny_activations_fits_an_instruction(factor: float) -> None:
    model = random_model(changed(depth=1))
    with torch.no_grad():
        attn, ffn, patch = model.block(0).attn, model.block(0).ffn, model.patch_embed
        for layer in (attn.proj, ffn.fc2, patch):
            layer.weight.mul_(factor)
            layer.bias.mul_(factor)
        model.pos_embed.mul_(factor)
        model.cls_token.mul_(factor)
    calibration = calibrate(model, pictures(4, model.cfg), QuantOptions(observer="minmax"))
    network = build_network(model, calibration.scales, OPTIONS)
    norm = network.blocks[0].norm1
    assert norm.epsilon <= EPSILON_LIMIT
    meant = norm.epsilon * (network.scales["residual"] / model.cfg.embed_dim) ** 2
    assert np.isclose(meant, model.block(0).norm1.eps, rtol=1e-6)
