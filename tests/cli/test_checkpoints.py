# SPDX-License-Identifier: Apache-2.0
"""One spelling of a checkpoint in every command: a file, a run's folder, or ``pretrained``."""

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_moe.checkpoint import save_checkpoint
from edge_moe.cli import build_parser, main
from edge_moe.config import load_preset
from edge_moe.nn import build_model
from edge_moe.packaged import find_checkpoint, pretrained_checkpoint
from edge_moe_host.config import to_dict

# command line -> the argument that receives the checkpoint
COMMANDS = {
    "eval {}": "checkpoint", "show {}": "checkpoint", "quantise {} --out a.int.npz": "checkpoint",
    "export {}": "source", "slim {} a.pt": "checkpoint", "demo {}": "checkpoint",
    "train mini --init {}": "init",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_every_spelling(tmp_path: Path, command: str) -> None:
    def found(text: Path | str) -> Path:
        args: argparse.Namespace = build_parser().parse_args(command.format(text).split())
        result: Path = getattr(args, COMMANDS[command])
        return result

    assert found("pretrained") == pretrained_checkpoint()
    assert found("some.pt") == Path("some.pt")
    assert found(tmp_path) == tmp_path
    (tmp_path / "last.pt").touch()
    assert found(tmp_path) == tmp_path / "last.pt"
    (tmp_path / "best.pt").touch()
    assert found(tmp_path) == tmp_path / "best.pt"
    assert find_checkpoint("x" * 5000) == Path("x" * 5000)


@pytest.mark.parametrize(
    "command", ["eval {}", "quantise {} --out {}/a.int.npz", "export {}", "slim {} {}/a.pt"]
)
def test_a_folder_without_checkpoints_is_named(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.format(tmp_path, tmp_path).split()) == 2
    assert f"folder '{tmp_path}' holds neither best.pt nor last.pt" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_show_and_eval_of_a_checkpoint_without_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An imported checkpoint does not name its data."""
    caplog.set_level("INFO")
    preset = load_preset("mini", ["model.image_size=[32, 64]", "model.depth=2"])
    state = build_model(preset.model).state_dict()
    save_checkpoint(tmp_path / "run" / "last.pt", {"preset": to_dict(preset), "model": state})
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(tmp_path / "a.png")
    assert main(["show", str(tmp_path / "run"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 0
    assert "the checkpoint names no data set: classes are drawn by number." in caplog.messages
    assert (tmp_path / "out" / "a.png").is_file()
    assert main(["eval", str(tmp_path / "run")]) == 2
    assert "does not say what it was trained on: give --data SPEC" in capsys.readouterr().err
