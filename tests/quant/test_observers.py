# SPDX-License-Identifier: Apache-2.0
"""Options, observers, scales and calibration: known answers, every refusal."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from edge_moe import EdgeMoEError
from edge_moe.quant.calibrate import FEWEST_ROWS, Recorder, calibrate
from edge_moe.quant.observers import Values, observe, observe_magnitude
from edge_moe.quant.options import QuantOptions
from edge_moe.quant.scales import (
    SHIFT_MAX,
    check_scales,
    fixed_point,
    scale_shapes,
    snap,
)
from edge_moe.testing.networks import random_images
from edge_moe.testing.quant_models import CONFIG, as_tensor, changed, pictures, random_model
from edge_moe_host.contract.layout import MULTIPLIER_LIMIT


def values(rows: np.ndarray) -> Values:
    return Values(rows.astype(np.float32), rows.min(0), rows.max(0))


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("observer", "entropy", "minmax, percentile, mse"),
        ("rounding", "up", "nearest, gptq"),
        ("percentile", 50.0, r"\(50, 100\]"),
        ("percentile", 101.0, r"\(50, 100\]"),
        ("images", 0, "at least 1"),
        ("expert_bits", 1, "between 2 and 8"),
        ("expert_bits", 9, "between 2 and 8"),
        ("average_expert_bits", 2.9, "between 3 and 8"),
        ("average_expert_bits", 8.1, "between 3 and 8"),
    ],
)
def test_options_name_field_value_and_rule(field: str, value: object, rule: str) -> None:
    with pytest.raises(EdgeMoEError, match=f"option {field} = {value!r} is not allowed: .*{rule}"):
        QuantOptions(**{field: value})


def test_minmax_is_of_all_rows_and_not_of_the_sample() -> None:
    seen = Values(np.zeros((4, 2), np.float32), np.array([-3.0, 0.0]), np.array([1.0, 7.0]))
    low, high = observe(seen, QuantOptions(observer="minmax"))
    assert low.tolist() == [-3, 0]
    assert high.tolist() == [1, 7]
    assert observe_magnitude(seen, QuantOptions(observer="minmax")).tolist() == [3, 7]


def test_percentile_leaves_out_what_it_says() -> None:
    rows = np.arange(10001.0)[:, None] * [1.0, -2.0]
    low, high = observe(values(rows), QuantOptions(observer="percentile", percentile=99.9))
    assert np.allclose(low, [10, -19980])
    assert np.allclose(high, [9990, -20])
    assert np.allclose(observe_magnitude(values(rows), QuantOptions(observer="percentile", percentile=99.9)),
                       [9990, 19980])  # fmt: skip


def test_mse_keeps_the_range_of_a_uniform_tensor() -> None:
    rows = np.random.default_rng(0).uniform(-1, 3, (20000, 3))
    low, high = observe(values(rows), QuantOptions())
    assert np.allclose(low, -1, atol=0.02)
    assert np.allclose(high, 3, atol=0.02)


def test_mse_weighs_an_outlier_against_the_rest() -> None:
    rows = np.random.default_rng(0).uniform(-1, 1, (100000, 2))
    rows[0, 1] = 60.0
    _, high = observe(values(rows), QuantOptions())
    assert math.isclose(high[0], 1, abs_tol=0.01)
    # least of (h + 1)^2 / (12 * 255^2) + (60 - h)^2 / 100000
    assert math.isclose(high[1], 53.07, abs_tol=1.0)
    assert observe(values(rows[:100]), QuantOptions())[1][1] > 59.9  # one value in a hundred counts for more


def test_mse_is_the_least_of_a_fine_search() -> None:
    rows = np.random.default_rng(1).standard_t(2, (40000, 1))
    found = observe_magnitude(values(rows), QuantOptions())[0]

    def error(limit: float) -> float:
        step = limit / 127
        return float(np.mean((rows - np.clip(np.round(rows / step), -127, 127) * step) ** 2))

    limits = np.linspace(0.05, 1, 400) * np.abs(rows).max()
    best = min(error(limit) for limit in limits)
    assert error(found) < 1.02 * best
    assert error(float(np.abs(rows).max())) > 1.1 * best  # what min-max takes


def test_observer_refuses_what_is_not_finite() -> None:
    rows = np.array([[1.0], [np.nan]])
    for observer in ("minmax", "mse", "percentile"):
        with pytest.raises(EdgeMoEError, match="NaN or infinite"):
            observe(values(rows), QuantOptions(observer=observer))


def test_fixed_point_is_as_precise_as_int16_allows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        ratio = 10 ** rng.uniform(-9, 3.5) * rng.uniform(0.01, 1, 5)
        multiplier, shift = fixed_point(ratio, "layer")
        assert 2**14 <= multiplier.max() <= MULTIPLIER_LIMIT
        assert np.allclose(multiplier / 2.0**shift, ratio, atol=0.5 / 2.0**shift, rtol=0)
        again = fixed_point(multiplier / 2.0**shift, "layer")
        assert np.array_equal(again[0], multiplier)
        assert again[1] == shift


def test_fixed_point_at_its_ends() -> None:
    multiplier, shift = fixed_point(np.array([1.0, 1e-6]), "layer")
    assert (multiplier.tolist(), shift) == ([2**14, 64], 14)  # no less than 1/256 of the largest
    assert fixed_point(np.array([2.0**-60]), "layer") == (np.array([1]), SHIFT_MAX)
    assert fixed_point(np.array([16383.7]), "layer") == (np.array([32767]), 1)
    with pytest.raises(EdgeMoEError, match=r"layer 'block3\.qkv' maps its sums to integers"):
        fixed_point(np.array([16384.0]), "block3.qkv")
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(EdgeMoEError, match=r"'block3\.qkv' has a scale that is not positive"):
            fixed_point(np.array([bad]), "block3.qkv")


@pytest.mark.parametrize("routing", ["multi_gate", "single_gate", "task_conditioned", "dense"])
@pytest.mark.parametrize("cls_token", [True, False])
def test_every_intermediate_of_the_float_model_is_kept_once(routing: str, cls_token: bool) -> None:
    config = changed(routing=routing, cls_token=cls_token, head="pup" if cls_token else "edge", patch_size=16)
    model, images = random_model(config), as_tensor(random_images(config, 2))
    kept: list[tuple[str, torch.Tensor]] = []

    def keep(name: str, value: torch.Tensor) -> torch.Tensor:
        kept.append((name, value))
        return value

    with torch.inference_mode():
        expected = model(images).predictions
        traced = model(images, keep=keep).predictions
    assert list(traced) == list(expected) == list(config.tasks)
    for task, value in traced.items():
        assert torch.equal(value, expected[task])
        assert value.std() > 0.01
    counts = Counter(name for name, _ in kept)
    for index in range(config.depth):
        times = 1 if index < config.shared_blocks else len(config.tasks)
        moe = index in config.moe_blocks
        for part in ("norm2", "ffn", *(("gate.expert", "gate.score") if moe else ("hidden",))):
            assert counts.pop(f"block{index}.{part}") == times
        # the attention of the first block that differs is shared
        for part in ("norm1", "qkv", "attention", "proj"):
            assert counts.pop(f"block{index}.{part}") == (1 if index <= config.shared_blocks else times)
    assert counts.pop("patch_embedding") == 1
    for task in config.tasks:
        stages = range(len(model.heads[task].convs))
        maps = [f"{kind}{j}" for kind in ("conv", "window", "upsample") for j in stages]
        for part in {"norm", "out", *maps} - {"upsample0"}:
            assert counts.pop(f"head.{task}.{part}") == 1
    assert not counts
    last = config.depth - 1
    final = [value for name, value in kept if name == f"block{last}.ffn"][-1]
    with torch.inference_mode():
        assert torch.equal(model.heads[task](final), traced[task])


def test_windows_are_what_a_convolution_multiplies() -> None:
    recorder = Recorder(CONFIG, 1)
    x = torch.randn(2, 5, 4, 6)
    recorder("w", x)
    rows = torch.from_numpy(recorder.values()["w"].rows)
    weight = torch.randn(7, 5, 3, 3)
    expected = torch.nn.functional.conv2d(x, weight, padding=1).flatten(2).transpose(1, 2).flatten(0, 1)
    assert torch.allclose(rows @ weight.permute(0, 2, 3, 1).flatten(1).T, expected, atol=1e-4)
    assert expected.numel() == 2 * 24 * 7


def test_extremes_are_of_every_row_where_rows_are_sampled() -> None:
    recorder = Recorder(CONFIG, 8192)  # a quota of 1 row for each image
    x = torch.zeros(1, 50, 2)
    x[0, 20] = torch.tensor([-5.0, 9.0])
    recorder("x", x)
    recorder("x", -x)
    seen = recorder.values()["x"]
    assert seen.rows.shape == (2, 2)
    assert seen.low.tolist() == [-5, -9]
    assert seen.high.tolist() == [5, 9]


@pytest.mark.parametrize("routing", ["multi_gate", "single_gate", "dense"])
def test_calibration_has_every_scale_and_counts_every_token(routing: str) -> None:
    config = changed(routing=routing)
    model = random_model(config)
    calibration = calibrate(model, pictures(6, config), QuantOptions(images=5))
    assert {name: value.shape for name, value in calibration.scales.items()} == scale_shapes(config)
    check_scales(calibration.scales, config)
    assert len(calibration.images) == 5
    assert not model.training
    with torch.inference_mode():
        output = model(as_tensor(calibration.images))
    for task, counts in calibration.usage.items():
        assert counts.shape == (len(config.moe_blocks), config.num_experts)
        assert (counts.sum(1) == 5 * config.num_tokens * config.top_k).all()
        for row, block in zip(counts, config.moe_blocks, strict=True):
            chosen = output.routing[task][block].expert.flatten()
            # float sums differ by the batch: a token on the edge may move
            assert np.abs(row - torch.bincount(chosen, minlength=config.num_experts).numpy()).sum() <= 4


def test_calibration_leaves_the_models_mode_alone() -> None:
    model = random_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibrate(model, pictures(2), QuantOptions())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_expert_with_few_tokens_is_calibrated_on_all_of_its_block() -> None:
    model = random_model(changed(routing="single_gate"))
    with torch.no_grad():
        gate = model.block(1).ffn.gates["shared"].weight
        gate[3] = gate[2]  # among equal logits the lower index comes first ...
        gate[0] = -gate[2]  # ... and of three experts, two are chosen before the fourth
        gate[1] = gate[2] * 0.5
    calibration = calibrate(model, pictures(4), QuantOptions())
    rows = len(calibration.values["block1.norm2"].rows)
    chosen = calibration.values["block1.gate.expert"].rows
    for expert in range(4):
        hit = (chosen == expert).any(1)
        taken, scores = calibration.routed(1, expert)
        assert len(taken) == len(scores) == (hit.sum() if hit.sum() >= FEWEST_ROWS else rows)
    assert min((chosen == expert).sum() for expert in range(4)) < FEWEST_ROWS  # the case has occurred


def test_ranges_take_all_of_int8() -> None:
    model = random_model()
    calibration = calibrate(model, pictures(3), QuantOptions(observer="minmax"))
    scales, seen = calibration.scales, calibration.values
    for name in ("block0.norm1", "block3.norm2"):
        low, high = (q * scales[name] + scales[f"{name}.offset"] for q in (-128, 127))
        assert np.allclose(low, seen[name].low, rtol=1e-5, atol=1e-6)
        assert np.allclose(high, seen[name].high, rtol=1e-5, atol=1e-6)
    hidden, zero = scales["block0.hidden"], scales["block0.hidden.zero_point"]
    assert abs((-128 - zero) * hidden - seen["block0.hidden"].low.min()) <= hidden / 2
    assert abs((127 - zero) * hidden - seen["block0.hidden"].high.max()) <= hidden
    assert np.isclose(127 * scales["block1.v"], np.abs(seen["block1.qkv"].rows[:, 64:]).max(0)).all()
    assert np.isclose(127 * scales["block2.q"][1], np.abs(seen["block2.qkv"].rows[:, 16:32]).max())
    assert np.isclose(127 * scales["block2.k"][0], np.abs(seen["block2.qkv"].rows[:, 32:48]).max())
    assert np.isclose(255 * scales["head.depth.conv1"], seen["head.depth.conv1"].high.max())


def test_constant_channels_and_tensors_have_usable_scales() -> None:
    model = random_model()
    with torch.no_grad():
        model.block(0).norm1.weight[5] = 0
        model.block(1).attn.qkv.weight[2 * 32 + 7] = 0
        model.block(1).attn.qkv.bias[2 * 32 + 7] = 0
        model.block(2).ffn.fc1.weight.zero_()
        model.block(2).ffn.fc1.bias.fill_(-20)
        model.heads["depth"].convs[1].weight.zero_()
        model.heads["depth"].bns[1].bias.fill_(-1)
        model.heads["depth"].bns[1].running_mean.zero_()
    scales = calibrate(model, pictures(2), QuantOptions()).scales
    check_scales(scales, CONFIG)
    for name in ("block0.norm1", "block1.v", "block1.attention"):
        assert scales[name].max() / scales[name].min() <= 256.01


def test_calibration_refuses_bad_images_and_weights() -> None:
    model = random_model()
    with pytest.raises(EdgeMoEError, match="there is no calibration image"):
        calibrate(model, iter([]), QuantOptions())
    with pytest.raises(EdgeMoEError, match=r"image 1 is uint8 \[32, 32, 3\]: .* uint8 \[32, 64, 3\]"):
        calibrate(model, [np.zeros((32, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)], QuantOptions())
    with pytest.raises(EdgeMoEError, match="image 0 is float32"):
        calibrate(model, [np.zeros((32, 64, 3), np.float32)], QuantOptions())
    with torch.no_grad():
        model.block(0).norm1.weight[0] = float("nan")
    with pytest.raises(EdgeMoEError, match="NaN or infinite"):
        calibrate(model, pictures(1), QuantOptions())


def test_snap_is_exact_and_idempotent() -> None:
    scales = calibrate(random_model(), pictures(2), QuantOptions()).scales
    again = snap(scales, CONFIG)
    assert all(np.array_equal(again[name], value) for name, value in scales.items())
    moved = {**scales, "block1.attention": scales["block1.attention"] * 1.00001,
             "block0.hidden": scales["block0.hidden"] * 1.00001}  # fmt: skip
    snapped = snap(moved, CONFIG)
    for name in ("block1.attention", "block0.hidden"):
        assert np.allclose(snapped[name], moved[name], rtol=1 / 256)
        assert not np.array_equal(snapped[name], moved[name])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("block0.v", None, "scale 'block0.v' is missing"),
        ("block9.v", np.ones(32), "scale 'block9.v' is unknown"),
        ("block0.v", np.ones(31), r"'block0.v' has shape \[31\]: this model needs \[32\]"),
        ("residual", np.array(0.0), "'residual' holds 0.0: it must be positive and finite"),
        ("block0.k", np.array([1.0, np.nan]), "'block0.k' holds nan"),
        ("block0.norm1.offset", np.full(32, np.inf), "'block0.norm1.offset' holds inf: it must be finite"),
        ("block0.hidden.zero_point", np.array(-129.0), "holds -129.0: it must be a whole number"),
        ("block1.expert2.hidden.zero_point", np.array(0.5), "holds 0.5: it must be a whole number"),
    ],
)
def test_scales_that_do_not_fit_are_named(name: str, value: np.ndarray | None, message: str) -> None:
    scales = {key: np.ones(shape) for key, shape in scale_shapes(CONFIG).items()}
    check_scales(scales, CONFIG)
    if value is None:
        del scales[name]
    else:
        scales[name] = value
    with pytest.raises(EdgeMoEError, match=message):
        check_scales(scales, CONFIG)
