# SPDX-License-Identifier: Apache-2.0
"""Quantisation-aware fine-tuning: from quantise's grids through training and resumption back to integers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_moe import EdgeMoEError
from edge_moe.checkpoint import load_checkpoint, slim
from edge_moe.config import Preset
from edge_moe.quant.options import QuantOptions
from edge_moe.quant.quantise import obtain_network, quantise_checkpoint
from edge_moe.quant.storage import load_network
from edge_moe.testing.training import tiny
from edge_moe.train.engine import LAST, run_training

STEPS = 6


def preset(*overrides: str) -> Preset:
    return tiny("train.epochs=2", "train.lr=1e-3", *overrides)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> tuple[Path, Path]:
    """A trained checkpoint and the integer network of it, three-bit experts."""
    folder = tmp_path_factory.mktemp("finetune")
    run_training(preset(), "scenes", folder / "float", device="cpu")
    checkpoint, network = folder / "float" / LAST, folder / "network.int.npz"
    quantise_checkpoint(checkpoint, network, options=QuantOptions(images=4, expert_bits=3), progress=False)
    return checkpoint, network


def finetune(start: tuple[Path, Path], out: Path, *, resume: bool = False, max_steps: int | None = None):
    checkpoint, network = (None, None) if resume else start
    return run_training(
        preset("train.ema_decay=0.5"), "scenes", out, resume=resume, init=checkpoint, device="cpu",
        max_steps=max_steps, quantised=network,
    )  # fmt: skip


def test_resumed_run_repeats_an_uninterrupted_one(start, tmp_path) -> None:
    whole = finetune(start, tmp_path / "whole")
    finetune(start, tmp_path / "parts", max_steps=4)
    assert finetune(start, tmp_path / "parts", resume=True) == whole
    first, second = (load_checkpoint(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert first.step == second.step == STEPS
    assert all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())


def test_a_fine_tuned_checkpoint_keeps_its_grids(start, tmp_path) -> None:
    finetune(start, tmp_path / "run", max_steps=2)
    slim(tmp_path / "run" / LAST, tmp_path / "slim.pt", half=False)
    before, extra = load_network(start[1])
    for path in (tmp_path / "run" / LAST, tmp_path / "slim.pt"):
        network, tuned = obtain_network(path, options=QuantOptions(images=4), progress=False)
        assert all(np.array_equal(tuned["scales"][name], value) for name, value in extra["scales"].items())
        assert [ffn.fc1.bits for ffn in network.blocks[1].experts] == [3] * 4
        assert not np.array_equal(network.patch.weight, before.patch.weight)


def test_training_sees_the_grids(start, tmp_path) -> None:
    run_training(preset("train.ema_decay=0.5"), "scenes", tmp_path / "float", init=start[0], device="cpu",
                 max_steps=1)  # fmt: skip
    finetune(start, tmp_path / "fake", max_steps=1)
    plain, fake = (load_checkpoint(tmp_path / name / LAST) for name in ("float", "fake"))
    assert plain.quantisation is None
    assert fake.quantisation is not None
    # the first step reaches another point, and leaves the frozen statistics alone
    assert any(not torch.equal(value, fake.model[name]) for name, value in plain.model.items())
    statistics = load_checkpoint(start[0]).weights
    names = [name for name in statistics if "running" in name]
    assert len(names) == 12
    assert all(torch.equal(statistics[name], fake.model[name]) for name in names)
    assert not all(torch.equal(statistics[name], plain.model[name]) for name in names)


def test_bad_starts_are_refused_before_anything_is_written(start, tmp_path) -> None:
    checkpoint, network = start
    with pytest.raises(EdgeMoEError, match="give --init"):
        run_training(preset(), "scenes", tmp_path / "a", device="cpu", quantised=network)
    with pytest.raises(EdgeMoEError, match="another model"):
        run_training(preset("model.tasks={semseg=7, normals=3}"), "scenes", tmp_path / "b", init=checkpoint,
                     device="cpu", quantised=network)  # fmt: skip
    with pytest.raises(EdgeMoEError, match="does not exist"):
        run_training(preset(), "scenes", tmp_path / "c", init=checkpoint, device="cpu",
                     quantised=tmp_path / "none.int.npz")  # fmt: skip
    assert not any((tmp_path / name / LAST).exists() for name in "abc")
