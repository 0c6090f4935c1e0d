# SPDX-License-Identifier: Apache-2.0
"""The integer flow from the command line: quantize, export, compile, inspect, estimate, run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edge_moe.cli import main
from edge_moe.config import Preset, load_preset, to_dict
from edge_moe.nn import build_model
from edge_moe.train.checkpoint import save_checkpoint

PRESET: Preset = load_preset(
    "mini",
    ["model.image_size=[32,64]", "model.embed_dim=32", "model.depth=2", "model.head_channels=16",
     "model.num_experts=4", "train.train_images=8", "train.val_images=3"],
)  # fmt: skip


@pytest.fixture(scope="module")
def flow(tmp_path_factory) -> Path:
    """A folder with model.pt, model.int.npz, export/TASK/*.onnx and bundle/, each made by its command."""
    folder = tmp_path_factory.mktemp("flow")
    torch.manual_seed(0)
    model = build_model(PRESET.model)
    save_checkpoint(
        folder / "model.pt", {"preset": to_dict(PRESET), "data": "scenes", "model": model.state_dict()}
    )
    commands = [
        ["quantize", "model.pt", "--out", "model.int.npz", "--images", "4", "--average-expert-bits", "5",
         "--drop-unused-experts"],
        ["export", "model.int.npz", "--task", "semseg,depth", "--out", "export", "--verify-images", "2"],
        ["compile", "export/semseg/path.onnx", "export/depth/path.onnx", "--out", "bundle",
         "--data", "scenes", "--verify-images", "1"],
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands:
            assert main(command) == 0, command
    return folder


@pytest.fixture
def inside(flow, monkeypatch) -> Path:
    monkeypatch.chdir(flow)
    return flow


def test_bundle_has_both_tasks_with_their_classes(inside):
    manifest = json.loads((inside / "bundle" / "manifest.json").read_text())
    tasks = manifest["tasks"]
    assert sorted(tasks) == ["depth", "semseg"]
    assert [style["name"] for style in tasks["semseg"]["classes"]][:2] == ["flat", "construction"]
    assert tasks["depth"]["classes"] == []


def test_inspect_and_estimate_cover_every_instruction(inside, capsys):
    assert main(["inspect", "bundle", "--task", "depth"]) == 0
    listing = capsys.readouterr().out
    for opcode in ("PATCHES", "LINEAR", "ATTENTION", "EXPERTS", "CONV3X3", "STORE", "END"):
        assert opcode in listing
    assert main(["estimate", "bundle", "--plot", "plot.svg"]) == 0
    table = capsys.readouterr().out
    assert "modelled, not measured" in table
    assert Path("plot.svg").read_text().rstrip().endswith("</svg>")


def test_run_draws_each_task(inside, capsys):
    picture = np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)
    Image.fromarray(picture).save("photo.png")
    assert main(["run", "bundle", "photo.png", "--out", "maps"]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.split()]
    assert sorted(names) == ["photo.depth.png", "photo.semseg.png"]
    assert all(Image.open(Path("maps") / name).mode == "RGB" for name in names)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("quantize model.pt --out model.npz", "must end in '.int.npz'"),
        ("quantize model.pt --out x.int.npz --expert-bits 9", "expert_bits = 9"),
        ("quantize nowhere.pt --out x.int.npz", "checkpoint 'nowhere.pt' does not exist"),
        ("quantize model.pt --out x.int.npz --data imagenet", "unknown data specification 'imagenet'"),
        ("export model.pt --task normals --out x", "task 'normals' is not in this network"),
        ("export model.int.npz --expert-bits 4 --out x", "--expert-bits belongs to quantize"),
        ("export model.int.npz --verify-images 0 --out x", "verify-images = 0"),
        ("compile nowhere.onnx --out x", "cannot read 'nowhere.onnx'"),
        ("compile export/semseg/path.qdq.onnx --out x", "metadata"),
        ("compile export/semseg/path.onnx --out x --accelerator zcu999", "zcu999"),
        ("inspect nowhere", "nowhere"),
        ("estimate bundle --task normals", "normals"),
        ("estimate bundle --plot plot.txt", "plot.txt"),
        ("run bundle nowhere.png", "nowhere.png"),
        ("train mini --quantized model.int.npz --out x", "give --init"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(command, message, inside, capsys):
    before = sorted(inside.rglob("*"))
    assert main(command.split()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("edge-moe: ")
    assert message in error
    assert sorted(inside.rglob("*")) == before
