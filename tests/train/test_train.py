# SPDX-License-Identifier: Apache-2.0
"""The training loop: learning, order of batches, exact resumption, interruption, divergence."""

import itertools
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edge_moe import EdgeMoEError
from edge_moe.checkpoint import load_checkpoint, load_model
from edge_moe.config import Preset, load_preset
from edge_moe.data.loader import epoch_batches, epoch_order, steps_per_epoch
from edge_moe.data.transforms import Augmentation
from edge_moe.testing.training import SIZE, TINY, Toy, assert_same_checkpoint, lines, open_toy, tiny
from edge_moe.train import engine
from edge_moe.train.engine import BEST, LAST, Trainer, TrainingInterrupted, improvement, run_training

STEPS = 9


@pytest.fixture(autouse=True)
def _toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "open_dataset", open_toy)
    for name in ("draw_curves", "draw_samples"):  # which take most of the time of a short run
        monkeypatch.setattr(engine, name, lambda *_: None)


# ---- loader ----------------------------------------------------------------------------------


def batches(preset: Preset, epoch: int = 0, **options: Any) -> list[dict[str, Tensor]]:
    data = Toy("train", preset.train.train_images)
    return list(epoch_batches(data, preset.train, Augmentation(preset.train, SIZE), epoch, **options))


def same_batches(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]]) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in zip(a, b, strict=True)
    )


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert sorted(epoch_order(3, 5, 50).tolist()) == list(range(50))
    assert epoch_order(3, 5, 50).tolist() == epoch_order(3, 5, 50).tolist()
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed, epoch in itertools.product(range(3), range(3))}
    assert len(orders) == 9


def test_batches_do_not_depend_on_workers_or_start() -> None:
    preset = tiny("train.scale_range=[0.8,1.5]", "train.color_jitter=0.2")
    whole = batches(preset)
    assert [len(batch["image"]) for batch in whole] == [4, 4, 4]
    assert whole[0]["image"].dtype == torch.uint8
    assert tuple(whole[0]["image"].shape) == (4, 3, *SIZE)
    assert same_batches(whole, batches(preset))
    assert same_batches(whole[2:], batches(preset, start_step=2))
    workers = tiny("train.scale_range=[0.8,1.5]", "train.color_jitter=0.2", "train.workers=2")
    assert same_batches(whole, batches(workers))
    assert not same_batches(whole, batches(preset, epoch=1))


def test_augmentation_differs_between_epochs_of_one_image() -> None:
    preset = tiny("train.train_images=4", "train.scale_range=[1.0,2.0]")
    seen = {
        batches(preset, epoch)[0]["image"].sum(dim=(1, 2, 3)).sort().values.sum().item() for epoch in range(4)
    }
    assert len(seen) == 4


def test_ranks_share_each_joint_batch() -> None:
    joint = batches(tiny())
    shares = [batches(tiny(), rank=rank, world=2) for rank in range(2)]
    glued = [{key: torch.cat([a[key], b[key]]) for key in a} for a, b in zip(*shares, strict=True)]
    assert same_batches(joint, glued)


def test_batch_size_that_cannot_be_served() -> None:
    assert steps_per_epoch(13, 4) == 3
    with pytest.raises(EdgeMoEError, match=r"train.batch_size = 4 must be a multiple of the 3 processes"):
        steps_per_epoch(12, 4, 3)
    with pytest.raises(EdgeMoEError, match=r"has 3 samples, fewer than train.batch_size = 4"):
        steps_per_epoch(3, 4)


# ---- training --------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_what_it_promises(tmp_path: Path) -> None:
    preset = tiny("train.epochs=30", "train.lr=0.01", "train.val_images=4")
    metrics = run_training(preset, "scenes", tmp_path / "run", device="cpu", val_every=10)
    rows = lines(tmp_path / "run", "train")
    assert [row["step"] for row in rows] == list(range(10, 91, 10))
    assert rows[-1]["loss"]["semseg"] < 0.75 * rows[0]["loss"]["semseg"]
    assert rows[-1]["loss"]["depth"] < 0.75 * rows[0]["loss"]["depth"]
    validations = lines(tmp_path / "run", "val")
    assert [row["step"] for row in validations] == [30, 60, 90]
    assert validations[-1]["metrics"] == metrics
    usage = validations[-1]["usage"]
    assert usage.keys() == {"semseg", "depth"}
    assert sum(usage["depth"]["1"]) == pytest.approx(1, abs=1e-3)
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    _, saved, meta = load_model(tmp_path / "run" / BEST)
    assert saved == preset
    best = [row for row in validations if row["best"]][-1]
    assert (meta["step"], meta["metrics"]) == (best["step"], best["metrics"])
    assert load_checkpoint(tmp_path / "run" / BEST).optimizer is None


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.ema_decay=0.9", "train.scale_range=[0.8,1.5]", "train.color_jitter=0.2"),
        ("train.optimizer=sgd", "train.step_mode=per_task"),
        ("train.gradient_method=pcgrad", "model.routing=task_conditioned"),
        ("model.routing=single_gate", "train.schedule=poly"),
    ],
)
def test_resumed_run_is_bit_exact(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """Cut in the first epoch, at an epoch's end, before and after that, and twice."""
    preset = tiny(*overrides)
    Trainer(preset, "scenes", tmp_path / "whole").fit()
    cuts: list[tuple[int, ...]] = [(1,), (3,), (4, 6), (8,)]
    for cut in cuts if overrides[0].startswith("train.ema") else cuts[2:3]:
        out = tmp_path / f"cut{cut[0]}"
        for index, step in enumerate(cut):
            trainer = Trainer(preset, "scenes", out, resume=index > 0, max_steps=step)
            trainer.fit()
            assert trainer.step == step
            assert load_checkpoint(out / LAST).step == step
        torch.manual_seed(99)  # state of the global generator must not matter
        resumed = Trainer(preset, "scenes", out, resume=True)
        resumed.fit()
        assert resumed.step == STEPS
        for name in (LAST, BEST):
            assert_same_checkpoint(tmp_path / "whole" / name, out / name)
        assert [r["metrics"] for r in lines(out, "val")] == [
            r["metrics"] for r in lines(tmp_path / "whole", "val")
        ]


def test_resuming_drops_log_lines_beyond_the_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    Trainer(tiny(), "scenes", out, max_steps=4).fit()
    with open(out / "log.jsonl", "a") as file:
        file.write('{"kind": "val", "step": 8, "epoch": 2}\n{"kind": "tra')
    Trainer(tiny(), "scenes", out, resume=True).fit()
    assert [row["step"] for row in lines(out, "val")] == [3, 6, 9]


def test_signal_during_a_step_saves_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(tiny(), "scenes", tmp_path / "whole").fit()
    out = tmp_path / "run"
    trainer = Trainer(tiny(), "scenes", out)
    update = trainer._update

    def interrupted(*args: Any) -> Any:
        if trainer.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*args)

    monkeypatch.setattr(trainer, "_update", interrupted)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        TrainingInterrupted, match=r"interrupted after step 5 of 9 .* edge-moe train --resume"
    ):
        trainer.fit()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert load_checkpoint(out / LAST).step == 5
    Trainer(tiny(), "scenes", out, resume=True).fit()
    assert_same_checkpoint(tmp_path / "whole" / LAST, out / LAST)


def test_signal_during_a_validation_repeats_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(tiny(), "scenes", tmp_path / "whole").fit()
    out = tmp_path / "run"
    real = engine.evaluate

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(engine, "evaluate", interrupted)
    with pytest.raises(TrainingInterrupted, match="after step 3 of 9"):
        Trainer(tiny(), "scenes", out).fit()
    saved = load_checkpoint(out / LAST)
    assert (saved.step, saved.validated, saved.metrics) == (3, False, {})
    monkeypatch.setattr(engine, "evaluate", real)
    Trainer(tiny(), "scenes", out, resume=True).fit()
    assert_same_checkpoint(tmp_path / "whole" / LAST, out / LAST)
    assert [row["step"] for row in lines(out, "val")] == [3, 6, 9]


def test_ctrl_c_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A real SIGINT at an unknown moment, with loader processes."""
    overrides = (*TINY, "train.epochs=30", "train.workers=1")
    script = f"""
import logging, sys, torch
from edge_moe import EdgeMoEError
from edge_moe.config import load_preset
from edge_moe.testing.training import open_toy
from edge_moe.train import engine
torch.set_num_threads(1)
engine.open_dataset = open_toy
logging.basicConfig(level=logging.INFO)
try:
    engine.run_training(load_preset("mini", {overrides!r}), "scenes", sys.argv[1], device="cpu", val_every=30)
except EdgeMoEError as error:
    print(error)
    sys.exit(error.exit_code)
"""
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 2/30" in line:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the loader's processes too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    found = re.search(r"interrupted after step (\d+) of 90", output)
    assert found, output
    assert 6 <= int(found[1]) < 90
    assert load_checkpoint(out / LAST).step == int(found[1])
    preset = load_preset("mini", overrides)
    Trainer(preset, "scenes", out, resume=True, val_every=30).fit()
    Trainer(preset, "scenes", tmp_path / "whole", val_every=30).fit()
    assert_same_checkpoint(tmp_path / "whole" / LAST, out / LAST)


@pytest.mark.parametrize("place", ["loss", "gradient"])
def test_divergence_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    out = tmp_path / "run"
    trainer = Trainer(tiny(), "scenes", out)
    real = engine.task_loss

    def broken(task: str, prediction: Tensor, label: Tensor) -> Tensor:
        loss = real(task, prediction, label)
        if trainer.step < 4 or task != "depth":
            return loss
        # the square root's gradient at zero is infinite, its value is not
        return loss * math.nan if place == "loss" else (loss - loss.detach()).abs().sqrt()

    monkeypatch.setattr(engine, "task_loss", broken)
    what = "the depth loss is nan" if place == "loss" else "the gradient norm is (nan|inf)"
    message = rf"training stopped at step 5 \(epoch 2\): {what}; try a lower train.lr \(now 0.001\).*{LAST}"
    with pytest.raises(EdgeMoEError, match=message):
        trainer.fit()
    saved = load_checkpoint(out / LAST)
    assert saved.step == 3
    assert all(tensor.isfinite().all() for tensor in saved.model.values())
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_disk_full_in_mid_run_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny(), "scenes", tmp_path / "run")
    real, calls = os.fsync, itertools.count()

    def full(handle: int) -> None:
        if next(calls) >= 4:  # config.toml and the first checkpoint sync file and folder each
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeMoEError, match=r"cannot write .*No space left on device"):
        trainer.fit()
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "run" / LAST).step == 0
    assert not list((tmp_path / "run").glob(".*"))


def test_per_task_steps_update_the_weights_once_per_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task's own step moves its own head only; the order rotates."""
    trainer = Trainer(tiny("train.step_mode=per_task", "train.weight_decay=0"), "scenes", tmp_path / "run")
    calls: list[list[str]] = []
    update = trainer._update

    def recorded(batch: Any, tasks: list[str], lr: float) -> Any:
        before = {name: p.clone() for name, p in trainer.model.named_parameters()}
        report = update(batch, tasks, lr)
        moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
        calls.append(tasks)
        for task in ("semseg", "depth"):
            own = [n for n in moved if f"heads.{task}." in n or f"gates.{task}." in n]
            assert bool(own) == (task in tasks)
        assert "patch_embed.weight" in moved
        return report

    monkeypatch.setattr(trainer, "_update", recorded)
    trainer.max_steps = 2
    trainer.fit()
    assert calls == [["semseg"], ["depth"], ["depth"], ["semseg"]]


def test_loss_weights_and_balance_weight_reach_the_gradient(tmp_path: Path) -> None:
    """With all weights tripled the gradient triples; dropping balance changes the gates' gradient."""
    norms: dict[str, dict[str, Tensor]] = {}
    for name, overrides in {
        "one": ("train.loss_weights.semseg=1.0", "train.loss_weights.depth=0.1", "train.balance_weight=0.01"),
        "three": (
            "train.loss_weights.semseg=3.0",
            "train.loss_weights.depth=0.3",
            "train.balance_weight=0.03",
        ),
        "none": ("train.loss_weights.semseg=1.0", "train.loss_weights.depth=0.1", "train.balance_weight=0.0"),
    }.items():
        trainer = Trainer(tiny(*overrides, "train.grad_clip=0.0"), "scenes", tmp_path / name, max_steps=1)
        trainer.fit()
        norms[name] = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
    assert norms["one"].keys() == norms["three"].keys()
    one, three = (torch.cat([grad.flatten() for grad in norms[key].values()]) for key in ("one", "three"))
    assert (three - 3 * one).norm() < 1e-3 * three.norm()
    gate = "blocks.1.ffn.gates.depth.weight"
    assert not torch.allclose(norms["one"][gate], norms["none"][gate], rtol=1e-3)


def test_gradient_clipping(tmp_path: Path) -> None:
    trainer = Trainer(tiny("train.grad_clip=0.01"), "scenes", tmp_path / "run", max_steps=1)
    trainer.fit()
    grads = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(grads)
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_improvement_is_signed_and_relative() -> None:
    old = {"semseg": {"mIoU": 0.5}, "depth": {"rmse": 2.0}}
    assert improvement(old, old) == 0
    assert improvement({"semseg": {"mIoU": 0.6}, "depth": {"rmse": 2.0}}, old) == pytest.approx(0.1)
    assert improvement({"semseg": {"mIoU": 0.5}, "depth": {"rmse": 2.2}}, old) == pytest.approx(-0.05)


def test_dense_model_trains(tmp_path: Path) -> None:
    preset = load_preset("mini_dense", TINY)
    trainer = Trainer(preset, "scenes", tmp_path / "run", max_steps=3)
    trainer.fit()
    assert trainer.step == 3
    moe = Trainer(tiny(), "scenes", tmp_path / "moe", init=tmp_path / "run" / LAST)
    assert torch.equal(moe.model.patch_embed.weight, trainer.model.patch_embed.weight)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_in_mixed_precision_and_resumes(tmp_path: Path) -> None:
    preset = tiny("train.ema_decay=0.9", "train.epochs=20", "train.lr=0.01", "train.workers=1")
    run_training(preset, "scenes", tmp_path / "run", device="cuda", max_steps=10, val_every=20)
    run_training(preset, "scenes", tmp_path / "run", resume=True, device="cuda", val_every=20)
    rows = lines(tmp_path / "run", "train")
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert rows[-1]["loss"]["depth"] < 0.9 * rows[0]["loss"]["depth"]


# ---- wrong input -----------------------------------------------------------------------------


def test_wrong_input(tmp_path: Path) -> None:
    preset, out = tiny(), tmp_path / "run"
    with pytest.raises(EdgeMoEError, match=r"nothing to resume: folder .* has no last.pt"):
        Trainer(preset, "scenes", out, resume=True)
    Trainer(preset, "scenes", out, max_steps=1).fit()
    with pytest.raises(
        EdgeMoEError, match=r"is not empty: choose another, or continue its run with --resume"
    ):
        Trainer(preset, "scenes", out)
    with pytest.raises(EdgeMoEError, match=r"train.lr was 0.001 and is now 0.5"):
        Trainer(tiny("train.lr=0.5"), "scenes", out, resume=True)
    with pytest.raises(EdgeMoEError, match="give one of them"):
        Trainer(preset, "scenes", out, resume=True, init=out / LAST)
    with pytest.raises(EdgeMoEError, match="is a file: give a folder"):
        Trainer(preset, "scenes", out / LAST)
    both = tiny("train.gradient_method=pcgrad", "train.step_mode=per_task")
    with pytest.raises(EdgeMoEError, match=r"needs train.step_mode = 'summed'"):
        Trainer(both, "scenes", tmp_path / "both")
    with pytest.raises(EdgeMoEError, match="val_every = -1"):
        Trainer(preset, "scenes", tmp_path / "val", val_every=-1)
    with pytest.raises(EdgeMoEError, match="device 'abacus' is unknown"):
        run_training(preset, "scenes", tmp_path / "device", device="abacus")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_full_output_of_a_damaged_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    Trainer(tiny(), "scenes", out, max_steps=1).fit()
    data = (out / LAST).read_bytes()
    (out / LAST).write_bytes(data[: len(data) // 2])
    with pytest.raises(EdgeMoEError, match=r"last.pt' is cut short"):
        Trainer(tiny(), "scenes", out, resume=True)
