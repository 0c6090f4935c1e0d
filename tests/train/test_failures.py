# SPDX-License-Identifier: Apache-2.0
"""What stops a run loses nothing: bad files, killed loaders, full disks and memory, another process."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_moe import EdgeMoEError, distributed
from edge_moe.checkpoint import load_checkpoint
from edge_moe.cli import main
from edge_moe.data.loader import epoch_order
from edge_moe.data.sample import Sample
from edge_moe.testing.training import Toy, assert_same_checkpoint, tiny
from edge_moe.train import engine
from edge_moe.train.engine import LAST, Trainer
from edge_moe.train.monitor import Monitor


class Broken(Toy):
    """Picture ``bad`` of the split ``where`` cannot be read, or has no label of the class task."""

    def __init__(self, split: str, count: int, where: str, bad: int | None) -> None:
        super().__init__(split, count)
        self.bad = bad if split == where else None

    def __getitem__(self, index: int) -> Sample:
        if index == self.bad:
            raise EdgeMoEError(f"image '{index}.png' is damaged.")
        sample = super().__getitem__(index)
        if self.bad == -1:
            sample["semseg"][:] = 255
        return sample


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int | None], None]:
    """Damages a picture of a split, or mends all (None)."""
    for name in ("draw_curves", "draw_samples"):
        monkeypatch.setattr(engine, name, lambda *_: None)

    def choose(where: str = "", bad: int | None = None) -> None:
        def opened(spec: str, split: str, tasks: Mapping[str, int], size: Any, train: int, val: int) -> Toy:
            return Broken(split, train if split == "train" else val, where, bad)

        monkeypatch.setattr(engine, "open_dataset", opened)

    choose()
    return choose


@pytest.mark.parametrize("bad", [1, -1])
def test_an_epoch_survives_its_validation(damage: Any, tmp_path: Path, bad: int) -> None:
    """A damaged picture, and a split without a labelled pixel; the epoch is never trained again."""
    Trainer(tiny(), "scenes", tmp_path / "whole").fit()
    damage("val", bad)
    out = tmp_path / "run"
    reason = "image '1.png' is damaged" if bad == 1 else "no labelled pixel"
    message = rf"{reason}.*; the epoch is saved in '.*last.pt': mend this, and continue with edge-moe train "
    for resume in (False, True):
        with pytest.raises(
            EdgeMoEError, match=message + r"--resume .*run \(--val-every 0: without validation\)\.$"
        ):
            Trainer(tiny(), "scenes", out, resume=resume).fit()
        saved = load_checkpoint(out / LAST)
        assert (saved.step, saved.validated) == (3, False)
    damage()
    Trainer(tiny(), "scenes", out, resume=True).fit()
    assert_same_checkpoint(tmp_path / "whole" / LAST, out / LAST)


def test_a_run_can_do_without_validation(damage: Any, tmp_path: Path) -> None:
    damage("val", 1)
    out = tmp_path / "run"
    with pytest.raises(EdgeMoEError, match="--val-every 0"):
        Trainer(tiny(), "scenes", out).fit()
    Trainer(tiny(), "scenes", out, resume=True, val_every=0).fit()
    assert load_checkpoint(out / LAST).step == 9
    with pytest.raises(EdgeMoEError, match=r"train.patience = 2 counts validations, and val_every is 0"):
        Trainer(tiny("train.patience=2"), "scenes", out, resume=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_training_picture_keeps_the_steps_before_it(damage: Any, tmp_path: Path, workers: int) -> None:
    preset = tiny(f"train.workers={workers}")
    Trainer(preset, "scenes", tmp_path / "whole").fit()
    out = tmp_path / "run"
    Trainer(preset, "scenes", out, max_steps=3).fit()
    bad = int(epoch_order(0, 1, 12)[5])  # in the second step of epoch 2
    damage("train", bad)
    with pytest.raises(EdgeMoEError) as caught:
        Trainer(preset, "scenes", out, resume=True).fit()
    assert str(caught.value) == (
        f"image '{bad}.png' is damaged; step 4 of 9 is saved in '{out / LAST}': mend this, and continue with "
        f"edge-moe train --resume {out}."
    )
    damage()
    Trainer(preset, "scenes", out, resume=True).fit()
    assert_same_checkpoint(tmp_path / "whole" / LAST, out / LAST)


@pytest.mark.parametrize("kill", [False, True])
def test_loader_processes_fail_in_one_sentence(tmp_path: Path, kill: bool) -> None:
    """In a process of its own: nothing may follow the sentence when Python ends."""
    script = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from edge_moe import EdgeMoEError
from edge_moe.cli import main
from edge_moe.testing.training import TINY, Toy
from edge_moe.train import engine
class Failing(Toy):
    def __getitem__(self, index):
        if index == 7 and {kill}:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 7:
            raise EdgeMoEError("image '7.png' is damaged.")
        return super().__getitem__(index)
engine.open_dataset = lambda spec, split, tasks, size, train, val: Failing(split, 12)
options = [word for override in TINY for word in ("--set", override)]
sys.exit(main(["train", "mini", *options, "--set", "train.workers=2", "--out", {str(tmp_path / "run")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    first, last = done.stderr.splitlines()
    assert first.startswith("training mini on cpu")
    assert last.startswith(
        "edge-moe: a loader process of train.workers = 2 was ended from outside"
        if kill
        else "edge-moe: image '7.png' is damaged"
    )
    assert done.returncode == 2


def test_a_full_disk_at_the_log_keeps_the_steps(
    damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    Trainer(tiny("train.epochs=4"), "scenes", out, max_steps=9).fit()
    (out / "log.jsonl").unlink()
    (out / "log.jsonl").symlink_to("/dev/full")
    message = r"cannot write '.*log.jsonl': No space left on device; step 10 of 12 is saved in"
    with pytest.raises(EdgeMoEError, match=message):
        Trainer(tiny("train.epochs=4"), "scenes", out, resume=True).fit()
    assert load_checkpoint(out / LAST).step == 10


def test_an_error_of_the_program_keeps_the_steps(
    damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Monitor, step: int, report: object) -> None:
        if step == 5:
            raise ZeroDivisionError

    monkeypatch.setattr(Monitor, "train_step", fails)
    with pytest.raises(ZeroDivisionError):
        Trainer(tiny(), "scenes", tmp_path / "run").fit()
    assert load_checkpoint(tmp_path / "run" / LAST).step == 5


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError("Unable to allocate 8 GiB"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_says_what_to_lower(
    damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    trainer = Trainer(tiny(), "scenes", tmp_path / "run")
    real = trainer._update

    def update(*args: Any) -> Any:
        if trainer.step == 4:
            raise error
        return real(*args)

    monkeypatch.setattr(trainer, "_update", update)
    message = (
        r"out of memory on cpu in step 5: lower train.batch_size \(now 4\), model.image_size \(now 32x64\)"
    )
    with pytest.raises(EdgeMoEError, match=message + r".*; step 3 of 9 is saved in"):
        trainer.fit()
    assert load_checkpoint(tmp_path / "run" / LAST).step == 3


def test_out_of_memory_elsewhere_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OUT_OF_MEMORY[0]

    monkeypatch.setattr("edge_moe.eval.run.evaluate_checkpoint", fails)
    assert main(["eval", "model.pt"]) == 2
    assert capsys.readouterr().err.startswith(
        "edge-moe: out of memory: CUDA out of memory. Tried to allocate"
    )


def test_a_run_that_fails_before_its_first_step_leaves_an_empty_folder(damage: Any, tmp_path: Path) -> None:
    damage("train", int(epoch_order(0, 0, 12)[0]))
    out = tmp_path / "run"
    with pytest.raises(EdgeMoEError, match=r"is damaged\.$"):
        Trainer(tiny(), "scenes", out).fit()
    assert list(out.iterdir()) == []
    damage()
    Trainer(tiny(), "scenes", out, max_steps=1).fit()


def test_two_runs_in_one_folder(damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that start at once, and two that resume at once; the folder is free again afterwards."""
    out = tmp_path / "run"
    first, second = (Trainer(tiny(), "scenes", out, max_steps=2) for _ in range(2))
    refused = []
    real = first._train_epoch

    def meanwhile() -> None:
        for other in (second, Trainer(tiny(), "scenes", out, resume=True)):
            with pytest.raises(EdgeMoEError, match=r"another process is training in '.*run': choose another"):
                other.fit()
            refused.append(other)
        real()

    monkeypatch.setattr(first, "_train_epoch", meanwhile)
    first.fit()
    assert len(refused) == 2
    assert load_checkpoint(out / LAST).step == 2
    Trainer(tiny(), "scenes", out, resume=True).fit()


@pytest.mark.parametrize("steps", [0, -5])
def test_impossible_numbers_of_steps(damage: Any, tmp_path: Path, steps: int) -> None:
    with pytest.raises(EdgeMoEError, match=rf"max_steps = {steps} is not allowed: it must be at least 1"):
        Trainer(tiny(), "scenes", tmp_path / "run", max_steps=steps)
    assert not (tmp_path / "run").exists()


def test_one_patch_and_one_picture_cannot_be_normalised(damage: Any, tmp_path: Path) -> None:
    with pytest.raises(EdgeMoEError, match="batch norm needs more than one value to train"):
        Trainer(tiny("model.image_size=[16,16]", "train.batch_size=1"), "scenes", tmp_path / "run")


# ---- a process group in the environment ------------------------------------------------------

GROUP = {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"MASTER_ADDR": None, "MASTER_PORT": None},
            "has RANK and WORLD_SIZE but lacks MASTER_ADDR, MASTER_PORT",
        ),
        ({"WORLD_SIZE": None}, "has RANK but lacks WORLD_SIZE"),
        ({"RANK": "x"}, "RANK=x, WORLD_SIZE=4, .* do not describe a group of processes"),
        ({"RANK": "4"}, "RANK=4, WORLD_SIZE=4, .* do not describe a group of processes"),
        ({"RANK": "1"}, r"the processes do not meet at 127.0.0.1:1 \(.*: start all processes with torchrun"),
    ],
)
def test_a_process_group_that_cannot_be_joined(
    monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str | None], message: str
) -> None:
    monkeypatch.setattr(distributed, "_MEETING", timedelta(seconds=1))
    for name, value in {**GROUP, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(EdgeMoEError, match=message):
        distributed.start("cpu")
    assert not distributed.is_parallel()


def test_only_training_joins_a_process_group(
    damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(tiny(), "scenes", tmp_path / "run", max_steps=1).fit()
    for name, value in GROUP.items():
        monkeypatch.setenv(name, value)
    from edge_moe.eval.run import load_for_inference

    assert load_for_inference(tmp_path / "run" / LAST, None, "cpu")[2] == ["semseg", "depth"]
    assert not distributed.is_parallel()
