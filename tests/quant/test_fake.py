# SPDX-License-Identifier: Apache-2.0
"""Fake quantisation: the same grids and nearly the same numbers as the integer network, with gradients."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from edge_moe import EdgeMoEError
from edge_moe.config import ModelConfig
from edge_moe.nn import M3ViT, build_model
from edge_moe.quant.build import build_network
from edge_moe.quant.calibrate import calibrate
from edge_moe.quant.fake import FakeQuantiser, fake_quantise, load_grids, round_through
from edge_moe.quant.integer_model import IntegerModel
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe.quant.options import QuantOptions
from edge_moe.quant.storage import save_network
from edge_moe.testing.quant_models import random_model
from edge_moe_host.golden.trace import Trace

CONFIG = ModelConfig(
    image_size=(32, 64),
    tasks={"semseg": 5, "depth": 1},
    embed_dim=32,
    num_heads=2,
    depth=2,
    num_experts=4,
    head_channels=16,
    depth_scale=20.0,
)
OPTIONS = QuantOptions(images=4, bias_correction=False, rounding="nearest")


def trained_like(config: ModelConfig = CONFIG, seed: int = 0) -> M3ViT:
    """Random weights, with decided gates and with statistics in batch norms."""
    torch.manual_seed(seed)
    model = build_model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0 if "gates" in name else 1.0)
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model.eval()


def images(count: int, seed: int = 1) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 8, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)


def as_tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def quantised(model: M3ViT) -> tuple[FakeQuantiser, IntegerNetwork, M3ViT]:
    calibration = calibrate(model, iter(images(4)), OPTIONS)
    bits = dict.fromkeys(model.cfg.moe_blocks, (8,) * model.cfg.num_experts)
    grids = FakeQuantiser(calibration.scales, bits)
    fake = copy.deepcopy(model)
    grids.install(fake)
    return grids, build_network(model, calibration.scales, OPTIONS), fake


def snr(signal: Tensor, other: Tensor) -> float:
    return float(10 * torch.log10(signal.square().mean() / (signal - other).square().mean()))


def test_rounding_is_half_up_and_passes_its_gradient() -> None:
    x = torch.tensor([-1.5, -0.5, 0.49, 0.5, 2.5], requires_grad=True)
    y = round_through(x)
    assert y.tolist() == [-1, 0, 0, 1, 3]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0] * 5


def test_saturation_stops_the_gradient() -> None:
    x = torch.tensor([-300.0, 3.2, 300.0], requires_grad=True)
    y = fake_quantise(x, 2.0, -128, 127)
    assert y.tolist() == [-256.0, 4.0, 254.0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 0.0]
    assert fake_quantise(torch.tensor([0.0, -9.0]), 0.5, -128, 127, zero=-120.0).tolist() == [0.0, -4.0]


@pytest.mark.parametrize("routing", ["multi_gate", "single_gate", "task_conditioned", "dense"])
def test_fake_forward_follows_the_integer_network(routing: str) -> None:
    config = ModelConfig(**{**vars(CONFIG), "routing": routing})
    model = trained_like(config)
    _, network, fake = quantised(model)
    pictures = as_tensor(images(3, seed=7))
    with torch.inference_mode():
        real, whole, ours = (
            m(pictures, tasks=list(config.tasks)) for m in (model, IntegerModel(network), fake)
        )
    for task in config.tasks:
        error = snr(whole.predictions[task], ours.predictions[task])
        loss = snr(real.predictions[task], whole.predictions[task])
        assert error > 30, f"{task}: {error:.1f} dB between fake and integer, {loss:.1f} dB to float"


def test_attention_of_a_decided_model_is_that_of_the_integers() -> None:
    model = random_model()
    grids, network, fake = quantised(model)
    pictures = images(2, seed=5)
    trace = Trace()
    run_network(network, pictures, "depth", trace)
    with torch.inference_mode():
        tokens = fake.embed(as_tensor(pictures))
        after = fake.block(0).attend(tokens)
        whole = fake.block(1).feed(after, "depth", None)[0]  # weighted by scores, so off the grid before
    unit = float(grids.scales["residual"])
    start = torch.from_numpy(trace.tensors["patch_embedding"].astype(np.float64)) * unit
    assert float((tokens - start).abs().max()) <= 1.5 * unit
    update = torch.from_numpy(trace.tensors["block0.proj"].astype(np.float64)) * unit - start
    error = snr(update, after - tokens)
    assert error > 35, f"{error:.1f} dB between the attentions of fake and integer"
    for value in (tokens, after, whole):  # in float32, so up to 2**-8 of a unit off
        units = value.double().numpy() / unit
        assert np.allclose(np.round(units), units, atol=1e-2), "not on the residual's grid"


def test_gates_have_no_noise_in_training() -> None:
    _, _, fake = quantised(random_model())
    fake.train()
    pictures = as_tensor(images(2))
    first, second = (fake(pictures, tasks=["depth"]).predictions["depth"] for _ in range(2))
    assert torch.equal(first, second)


def test_every_parameter_that_the_loss_reaches_gets_a_gradient() -> None:
    model = trained_like()
    _, _, fake = quantised(model)
    fake.train()
    before = {name: buffer.clone() for name, buffer in fake.named_buffers()}
    output = fake(as_tensor(images(4)), tasks=["semseg", "depth"])
    sum(p.square().mean() for p in output.predictions.values()).backward()
    without = [name for name, p in fake.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert all(torch.equal(before[name], buffer) for name, buffer in fake.named_buffers())  # frozen


def test_fewer_bits_for_one_expert_change_its_weights_only() -> None:
    model = trained_like()
    grids, _, fake = quantised(model)
    narrow = copy.deepcopy(model)
    FakeQuantiser(grids.scales, {1: (8, 3, 8, 8)}).install(narrow)
    rows = torch.randn(8, CONFIG.embed_dim)
    for expert in range(4):
        counts = torch.tensor([8 if expert == e else 0 for e in range(4)])
        with torch.inference_mode():
            same = torch.equal(*(m.block(1).ffn.experts._loop(rows, counts) for m in (fake, narrow)))
        assert same == (expert != 1)


def test_grids_survive_a_checkpoint() -> None:
    grids, _, _ = quantised(trained_like())
    again = FakeQuantiser.from_plain(grids.to_plain())
    assert again.expert_bits == grids.expert_bits
    assert set(again.scales) == set(grids.scales)
    assert all(np.array_equal(again.scales[name], value) for name, value in grids.scales.items())


def test_grids_come_from_a_quantised_file_of_the_same_model(tmp_path) -> None:
    grids, network, _ = quantised(trained_like())
    path = tmp_path / "network.int.npz"
    save_network(network, path, {"scales": dict(grids.scales)})
    loaded = load_grids(path, CONFIG)
    assert loaded.expert_bits == {1: (8, 8, 8, 8)}
    assert all(np.array_equal(loaded.scales[name], value) for name, value in grids.scales.items())
    other = ModelConfig(**{**vars(CONFIG), "depth": 4})
    with pytest.raises(EdgeMoEError, match="another model"):
        load_grids(path, other)
