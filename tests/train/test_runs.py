# SPDX-License-Identifier: Apache-2.0
"""A run's folder and how a run goes on: lines, configuration, pictures, resuming, lengthening, patience."""

import logging
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edge_moe.checkpoint import load_checkpoint
from edge_moe.cli import build_parser, main
from edge_moe.config import load_preset
from edge_moe.testing.training import TINY, assert_same_checkpoint, lines, open_toy, tiny
from edge_moe.train import engine
from edge_moe.train.engine import BEST, LAST, Trainer
from edge_moe.train.optim import learning_rate
from edge_moe_host.errors import EdgeMoEError

SET = [word for override in TINY for word in ("--set", override)]


@pytest.fixture(autouse=True)
def _toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "open_dataset", open_toy)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("draw_curves", "draw_samples"):
        monkeypatch.setattr(engine, name, lambda *_: None)


def test_a_run_says_what_it_does_and_what_is_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, undrawn: None
) -> None:
    caplog.set_level(logging.INFO)
    out = tmp_path / "my run"
    Trainer(tiny(), "scenes", out, max_steps=4).fit()
    said = caplog.messages
    parameters = sum(tensor.numel() for tensor in load_checkpoint(out / LAST).model.values())
    first = re.fullmatch(
        r"training mini on cpu: tasks semseg, depth, ([\d,]+) parameters; scenes: 12 training and 2 "
        rf"validation pictures; 9 steps of 4 pictures in 3 epochs; folder '{out}'",
        said[0],
    )
    assert first
    assert 0.8 * parameters < int(first[1].replace(",", "")) <= parameters
    assert said[-1] == (
        f"step 4 of 9 is done (--max-steps), saved in '{out / LAST}'; continue with: "
        f"edge-moe train --resume '{out}'"
    )
    caplog.clear()
    Trainer(tiny(), "scenes", out, resume=True).fit()
    assert "in 3 epochs, continued after step 4; folder" in caplog.messages[0]
    best = load_checkpoint(out / BEST).step
    last = caplog.messages[-1]
    assert last.startswith(
        f"step 9 of 9 is done: '{out / BEST}' (the best of the validations, step {best}); next: "
    )
    command = shlex.split(last.partition("next: ")[2])
    assert build_parser().parse_args(command[1:]).source == out / BEST


def test_the_folder_holds_the_preset_and_pictures_which_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = tiny("train.loss_weights.depth=0.25", "train.epochs=4")
    drawn, plain = tmp_path / "drawn", tmp_path / "plain"
    Trainer(preset, "scenes", drawn, val_every=2).fit()
    assert load_preset(str(drawn / "config.toml")) == preset
    sizes = {name: Image.open(drawn / name).size for name in ("curves.png", "samples.png")}
    assert sizes["curves.png"] == (1200, 600)  # two tasks and the learning rate
    assert sizes["samples.png"][0] > 1000
    assert sizes["samples.png"][1] > 1000
    for name in ("draw_curves", "draw_samples"):
        monkeypatch.setattr(engine, name, lambda *_: None)
    Trainer(preset, "scenes", plain, val_every=2).fit()
    for name in (LAST, BEST):
        assert_same_checkpoint(drawn / name, plain / name)


def test_curves_of_an_empty_log(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("")
    engine.draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (400, 600)


@pytest.mark.parametrize("form", ["folder", "out", "whole", "checkpoint", "preset first"])
def test_resuming_repeats_nothing(tmp_path: Path, undrawn: None, form: str) -> None:
    """Preset, --set, data and --val-every are those of the run."""
    preset, out = tiny("train.lr=0.01"), tmp_path / "run"
    Trainer(preset, "nyud:rooms", tmp_path / "whole", val_every=2).fit()
    start = ["train", "mini", *SET, "--set", "train.lr=0.01", "--data", "nyud:rooms", "--device", "cpu"]
    assert main([*start, "--out", str(out), "--max-steps", "4", "--val-every", "2"]) == 0
    command = {
        "folder": ["train", "--resume", str(out)],
        "out": ["train", "--resume", "--out", str(out)],
        "whole": [*start, "--out", str(out), "--resume"],
        "checkpoint": ["train", "--resume", str(out / LAST)],
        "preset first": ["train", "--resume", *start[1:], "--out", str(out)],
    }[form]
    assert main(command) == 0
    for name in (LAST, BEST):
        assert_same_checkpoint(tmp_path / "whole" / name, out / name)
    assert load_checkpoint(out / LAST).val_every == 2
    assert [row["step"] for row in lines(out, "val")] == [6, 9]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train", "what to train is missing: give a preset, or --resume with a run's folder"),
        ("train --resume", "what to train is missing"),
        ("train --resume nix", "nothing to resume: folder 'nix' has no last.pt"),
        ("train --resume RUN --out other", "--resume RUN and --out both name a folder"),
        (
            "train --resume RUN --set train.lr=1",
            "train.lr was 0.001 and is now 1.0; continue as it was (edge-moe ",
        ),
        (
            "train --resume RUN --set train.epochs=1",
            "train.epochs = 1 is not allowed: the run has done 4 steps",
        ),
        ("train --resume RUN --data nyud:x", "trained on 'scenes', not on 'nyud:x'"),
    ],
)
def test_wrong_ways_to_resume(
    tmp_path: Path, undrawn: None, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    out = tmp_path / "run"
    Trainer(tiny(), "scenes", out, max_steps=4).fit()
    assert main(command.replace("RUN", str(out)).split()) == 2
    assert message in capsys.readouterr().err


def test_a_finished_run_can_be_lengthened(
    tmp_path: Path, undrawn: None, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest has the learning rates of a run of the new length, and repeats exactly."""
    caplog.set_level(logging.INFO)
    out, again = tmp_path / "run", tmp_path / "again"
    longer = tiny("train.epochs=5")
    for folder in (out, again):
        Trainer(tiny(), "scenes", folder).fit()
    assert main(["train", "--resume", str(out), "--set", "train.epochs=5", "--device", "cpu"]) == 0
    assert load_preset(str(out / "config.toml")) == longer
    saved = load_checkpoint(out / LAST)
    assert (saved.step, saved.preset["train"]["epochs"]) == (15, 5)
    row = lines(out, "train")[-1]
    assert row["step"] == 10
    assert row["lr"] == learning_rate(longer.train, 9, 15) > 0
    assert [row["step"] for row in lines(out, "val")] == [3, 6, 9, 12, 15]
    Trainer(longer, "scenes", again, resume=True, max_steps=13).fit()
    Trainer(longer, "scenes", again, resume=True).fit()
    assert_same_checkpoint(out / LAST, again / LAST)


def test_early_stopping(
    tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    changes = iter([1.0, -1.0, 1.0, -1.0, 0.0])  # after the first validation, which is the best so far
    monkeypatch.setattr(engine, "improvement", lambda *_: next(changes))
    out = tmp_path / "run"
    preset = tiny("train.epochs=9", "train.patience=2")
    trainer = Trainer(preset, "scenes", out)
    trainer.fit()
    assert trainer.step == 18  # the best is that of step 12
    assert trainer.best["step"] == 12
    assert "stopped by train.patience = 2 (validations without improvement)" in caplog.messages[-1]
    resumed = Trainer(preset, "scenes", out, resume=True)
    resumed.fit()
    assert resumed.step == 18
    monkeypatch.setattr(engine, "improvement", lambda *_: 0.0)
    assert main(["train", "--resume", str(out), "--set", "train.patience=0", "--device", "cpu"]) == 0
    assert load_checkpoint(out / LAST).step == 27


def test_a_repeated_validation_is_logged_once(
    tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk after the line was written, for example at samples.png."""
    out = tmp_path / "run"

    def full(*_: Any) -> None:
        raise EdgeMoEError("cannot write 'samples.png': No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "draw_samples", full)
        with pytest.raises(EdgeMoEError, match="the epoch is saved"):
            Trainer(tiny(), "scenes", out).fit()
    Trainer(tiny(), "scenes", out, resume=True).fit()
    assert [row["step"] for row in lines(out, "val")] == [3, 6, 9]
