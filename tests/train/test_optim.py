# SPDX-License-Identifier: Apache-2.0
"""Parameter groups, schedules and the moving average."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from edge_moe.config import TrainConfig, load_preset
from edge_moe.nn import build_model
from edge_moe.train.optim import Ema, build_optimizer, learning_rate, parameter_groups, set_learning_rate


def test_norms_biases_and_tokens_are_not_decayed() -> None:
    model = build_model(load_preset("mini").model)
    decayed, free = parameter_groups(model, 0.05)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    free_names = {names[id(p)] for p in free["params"]}  # type: ignore[attr-defined]
    decayed_names = {names[id(p)] for p in decayed["params"]}  # type: ignore[attr-defined]
    assert free_names | decayed_names == set(names.values())
    assert not free_names & decayed_names
    assert {"cls_token", "pos_embed", "blocks.0.norm1.weight", "blocks.1.ffn.experts.bias1"} <= free_names
    assert {"patch_embed.weight", "blocks.1.ffn.experts.weight1", "blocks.0.attn.qkv.weight"} <= decayed_names
    assert all(name.endswith("weight") or "weight" in name.split(".")[-1] for name in decayed_names)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_optimizer_is_the_one_asked_for(kind: str) -> None:
    """One step on one weight against the published update rule."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    train = TrainConfig(optimizer=kind, lr=0.1, weight_decay=0.5)  # type: ignore[arg-type]
    optimizer = build_optimizer(layer, train)
    layer.weight.grad = torch.full((1, 1), 3.0)
    optimizer.step()
    # SGD couples the decay with the gradient; AdamW scales the weight, then steps by lr * sign.
    expected = 2.0 - 0.1 * (3.0 + 0.5 * 2.0) if kind == "sgd" else 2.0 * (1 - 0.1 * 0.5) - 0.1
    assert layer.weight.item() == pytest.approx(expected, abs=1e-6)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_poly_schedule() -> None:
    train = TrainConfig(lr=1.0, schedule="poly", poly_power=0.9)
    assert learning_rate(train, 0, 100) == 1.0
    assert learning_rate(train, 50, 100) == pytest.approx(0.5**0.9)
    assert learning_rate(train, 100, 100) == 0.0


def test_cosine_schedule_with_warmup() -> None:
    train = TrainConfig(lr=2.0, schedule="cosine", warmup_steps=10)
    assert [learning_rate(train, step, 110) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert learning_rate(train, 10, 110) == 2.0
    assert learning_rate(train, 60, 110) == pytest.approx(1.0)
    assert learning_rate(train, 109, 110) == pytest.approx(1 - math.cos(math.pi * 0.01), abs=1e-6)


def test_warmup_longer_than_the_run() -> None:
    train = TrainConfig(lr=1.0, warmup_steps=10)
    assert [learning_rate(train, step, 4) for step in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert learning_rate(dataclasses.replace(train, warmup_steps=4), 4, 4) == 1.0


def test_ema_averages_parameters_and_statistics_and_copies_integers() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    nn.init.constant_(model[0].weight, 1.0)  # type: ignore[arg-type]
    ema = Ema(copy.deepcopy(model), 0.9)
    nn.init.constant_(model[0].weight, 2.0)  # type: ignore[arg-type]
    norm.running_mean.fill_(10.0)  # type: ignore[union-attr]
    norm.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    ema.update(model, step=1000)
    state = ema.model.state_dict()
    assert state["0.weight"].item() == pytest.approx(1.1)
    assert state["1.running_mean"].item() == pytest.approx(1.0)
    assert state["1.num_batches_tracked"].item() == 7
    ema.update(model, step=0)  # decay 1/10 in the first step
    assert ema.model.state_dict()["0.weight"].item() == pytest.approx(1.1 + 0.9 * 0.9)
    assert model.state_dict()["0.weight"].item() == 2.0
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
