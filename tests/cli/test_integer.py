# SPDX-License-Identifier: Apache-2.0
"""The integer flow from the command line: quantise, export, compile, inspect, estimate, run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edge_moe import packaged
from edge_moe.checkpoint import save_checkpoint
from edge_moe.cli import main
from edge_moe.config import Preset, load_preset
from edge_moe.nn import build_model
from edge_moe_host.config import to_dict

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
        ["quantise", "model.pt", "--out", "model.int.npz", "--images", "4", "--average-expert-bits", "5",
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
    assert main(["run", "bundle", "photo.png", "--plain", "--out", "maps"]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()[:2]]
    assert sorted(names) == ["photo.depth.png", "photo.semseg.png"]
    for name in names:
        drawn = Image.open(Path("maps") / name)
        assert (drawn.mode, drawn.size) == ("RGB", (80, 48))


def test_run_on_other_backends(inside, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)).save("photo.png")
    for backend, option in (
        ("golden", ()),
        ("onnx", ("graphs=export", "threads=2")),
        ("torch", ("checkpoint=model.pt",)),
    ):
        options = [part for text in option for part in ("--option", text)]
        command = [
            "run",
            "bundle",
            "photo.png",
            "--task",
            "depth",
            "--backend",
            backend,
            "--out",
            f"maps_{backend}",
        ]
        assert main([*command, *options]) == 0
        assert f"depth on {backend}: 1 frame, mean" in capsys.readouterr().out
    drawn = {
        name: np.asarray(Image.open(f"maps_{name}/photo.depth.png")) for name in ("golden", "onnx", "torch")
    }
    np.testing.assert_array_equal(drawn["golden"], drawn["onnx"])
    assert drawn["torch"].shape == drawn["golden"].shape


def test_the_packaged_model_is_made_once(flow, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGE_MOE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "pretrained_checkpoint", lambda: flow / "model.pt")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save("photo.png")
    made, make = [], packaged._make
    monkeypatch.setattr(packaged, "_make", lambda source, folder: (made.append(folder), make(source, folder)))
    for number, backend in enumerate(("golden", "onnx")):
        command = [
            "run",
            "--pretrained",
            "photo.png",
            "--task",
            "depth",
            "--backend",
            backend,
            "--out",
            str(number),
        ]
        assert main(command) == 0
        assert Path(f"{number}/photo.depth.png").is_file()
        assert len(made) == 1
    [folder] = (tmp_path / "cache").glob("bundle-*")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir() if "bundle" in path.name) == [
        folder.name
    ]
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.setattr(
        packaged,
        "_make",
        lambda _, out: made.append(shutil.copytree(tmp_path / "copy", out, dirs_exist_ok=True)),
    )
    (folder / "bundle" / "weights.bin").write_bytes(b"damaged")
    with packaged.packaged_model() as model:
        assert next(iter(model.bundle.tasks)) == "depth"
    assert len(made) == 2
    monkeypatch.setattr(packaged, "FORMAT_VERSION", 99)  # part of the name
    with packaged.packaged_model():
        assert len(made) == 3
    monkeypatch.setenv("EDGE_MOE_CACHE", "off")
    with packaged.packaged_model() as model:
        assert model.bundle.path.is_dir()
    assert not model.bundle.path.exists()
    assert len(made) == 4


def test_a_packaged_model_that_cannot_be_made_leaves_nothing(flow, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EDGE_MOE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cut.pt").write_bytes((flow / "model.pt").read_bytes()[:1000])
    monkeypatch.setattr(packaged, "pretrained_checkpoint", lambda: tmp_path / "cut.pt")
    assert main(["run", "--pretrained", str(flow)]) == 2
    assert "is cut short" in capsys.readouterr().err
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("quantise model.pt --out model.npz", "must end in .int.npz"),
        ("quantise model.pt --out x.int.npz --expert-bits 9", "expert_bits = 9"),
        ("quantise nowhere.pt --out x.int.npz", "checkpoint 'nowhere.pt' does not exist"),
        ("quantise model.pt --out x.int.npz --data imagenet", "unknown data specification 'imagenet'"),
        ("export model.pt --task normals --out x", "task 'normals' is not in the model of 'model.pt'"),
        ("export model.int.npz --expert-bits 4 --out x", "--expert-bits belongs to quantise"),
        ("export model.int.npz --verify-images 0 --out x", "--verify-images: 0 is not allowed"),
        ("compile nowhere.onnx --out x", "cannot read 'nowhere.onnx'"),
        ("compile export/semseg/path.qdq.onnx --out x", "metadata"),
        ("compile export/semseg/path.onnx --out x --accelerator zcu999", "zcu999"),
        ("inspect nowhere", "nowhere"),
        ("estimate bundle --task normals", "normals"),
        ("estimate bundle --plot plot.txt", "plot.txt"),
        ("run bundle nowhere.png", "nowhere.png"),
        ("run bundle", "name pictures after the bundle"),
        ("run nowhere model.pt", "bundle 'nowhere' is not a folder"),
        ("run bundle model.pt --task normals", "task 'normals' is not in 'bundle'"),
        ("run bundle model.pt --backend fpga", "known here are csim, golden"),
        ("run bundle model.pt --option graphs", "option 'graphs' has no value: write KEY=VALUE"),
        ("run bundle model.pt --backend onnx --option graph=export", "it takes graphs, provider, threads"),
        ("run bundle model.pt --backend onnx --option graphs=none", "cannot read 'none/depth/path.onnx'"),
        ("train mini --quantised model.int.npz --out x", "give --init"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(command, message, inside, capsys):
    before = sorted(inside.rglob("*"))
    assert main(command.split()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("edge-moe: ")
    assert message in error
    assert sorted(inside.rglob("*")) == before
