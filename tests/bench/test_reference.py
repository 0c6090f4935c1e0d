# SPDX-License-Identifier: Apache-2.0
import dataclasses
import os

import numpy as np
import pytest

from edge_moe import EdgeMoEError
from edge_moe.bench import reference
from edge_moe.bench.reference import benchmark_reference, reference_table
from edge_moe.checkpoint import save_checkpoint
from edge_moe.config import load_preset
from edge_moe.nn import build_model
from edge_moe.testing.graphs import CONFIGS, config
from edge_moe.testing.networks import random_images, random_network
from edge_moe_host.config import to_dict

CFG = CONFIGS["three experts"]


def test_every_executor_is_timed_and_compared_with_torch(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # each process has its own
    rows = benchmark_reference(
        build_model(CFG), random_network(CFG), random_images(CFG, 2), task="depth", threads=(1,), repeats=2
    )
    assert [(row.executor, row.threads) for row in rows] == [
        ("torch float32", 1), ("path.qdq.onnx", 1), ("path.onnx", 1),
    ]  # fmt: skip
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert rows[0].ratio == 1
    for row in rows:
        assert row.milliseconds > 0
        assert row.ratio == pytest.approx(row.milliseconds / rows[0].milliseconds)
    table = reference_table(rows).splitlines()
    assert len(table) == 4 + 3
    assert table[4].startswith("| torch float32 | 1 | 1.00 |")


def test_a_checkpoint_is_quantised_and_run_on_held_out_images(monkeypatch, tmp_path):
    cfg = config(tasks={"semseg": 7, "depth": 1})
    preset = dataclasses.replace(load_preset("mini", ["train.train_images=8"]), model=cfg)
    model = build_model(cfg)
    save_checkpoint(
        tmp_path / "model.pt",
        {"preset": to_dict(preset), "model": model.state_dict(), "data": "scenes", "step": 0, "epoch": 0},
    )
    given = []
    monkeypatch.setattr(reference, "benchmark_reference", lambda *args: given.append(args))
    reference.benchmark_checkpoint(tmp_path / "model.pt", "depth", (1,), 3)
    ((float_model, network, images, *rest),) = given
    assert rest == ["depth", (1,), 3]
    assert float_model.cfg == network.config == cfg
    assert images.shape == (4, 32, 48, 3)
    assert images.dtype == np.uint8
    assert len(np.unique(images)) > 50


def test_processes_have_the_threads_that_the_row_says(monkeypatch, tmp_path):
    started = []

    class RefusedError(Exception):
        pass

    def popen(command, env, **_):
        started.append((command[-2:], env["OMP_NUM_THREADS"], env["OMP_WAIT_POLICY"]))
        raise RefusedError

    monkeypatch.setattr(reference.subprocess, "Popen", popen)
    for threads in (1, 2):
        with pytest.raises(RefusedError):
            reference._Worker(tmp_path, "path.onnx", threads)
    assert started == [(["path.onnx", "1"], "1", "PASSIVE"), (["path.onnx", "2"], "2", "PASSIVE")]


def test_a_process_that_fails_is_named_with_its_reason(tmp_path):
    with (
        pytest.raises(EdgeMoEError, match=r"^benchmark of path\.onnx failed: .*images\.npy.*[.]$"),
        reference._Worker(tmp_path, "path.onnx", 1) as worker,
    ):
        worker.turn()


def test_unknown_task_starts_no_process(monkeypatch):
    monkeypatch.setattr(reference, "_Worker", None)
    with pytest.raises(EdgeMoEError, match="task 'edge' is not in this network"):
        benchmark_reference(build_model(CFG), random_network(CFG), random_images(CFG, 1), task="edge")
