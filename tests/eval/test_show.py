# SPDX-License-Identifier: Apache-2.0
"""`edge-moe eval`, `show` and `slim` on a checkpoint of random weights."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from edge_moe.checkpoint import load_model, save_checkpoint
from edge_moe.cli import main
from edge_moe.config import load_preset
from edge_moe.nn import build_model
from edge_moe_host.config import to_dict

SMALL = [
    "model.image_size=[32, 64]", "model.embed_dim=16", "model.num_heads=2", "model.depth=2",
    "model.head_channels=8", "train.val_images=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    preset = load_preset("mini", SMALL)
    path = tmp_path_factory.mktemp("run") / "last.pt"
    content = {"preset": to_dict(preset), "data": "scenes", "model": build_model(preset.model).state_dict()}
    save_checkpoint(path, content)
    return path


def test_eval_writes_json_and_heat_map(checkpoint, tmp_path, capsys):
    files = [tmp_path / "m.json", tmp_path / "usage.png"]
    assert main(["eval", str(checkpoint), "--json", str(files[0]), "--usage", str(files[1])]) == 0
    result = json.loads(files[0].read_text())
    assert result["images"] == 3
    assert set(result["metrics"]) == {"semseg", "depth"}
    tokens = load_preset("mini", SMALL).model.num_tokens
    for counts in result["usage"].values():
        assert np.sum(counts) == 3 * tokens * 2  # one MoE block, top-2
    assert Image.open(files[1]).size[0] > 200
    assert f"{result['metrics']['depth']['rmse']:.4f}" in capsys.readouterr().out


def test_eval_reports_delta_m_against_a_baseline(checkpoint, tmp_path, capsys):
    first = tmp_path / "first.json"
    assert main(["eval", str(checkpoint), "--json", str(first)]) == 0
    baseline = json.loads(first.read_text())
    baseline["metrics"]["depth"]["rmse"] *= 2
    (tmp_path / "base.json").write_text(json.dumps(baseline))
    out = tmp_path / "again.json"
    assert main(["eval", str(checkpoint), "--json", str(out), "--baseline", str(tmp_path / "base.json")]) == 0
    assert json.loads(out.read_text())["delta_m"] == pytest.approx(25.0)  # depth +50 %, semseg 0 %
    assert "+25.00 %" in capsys.readouterr().out


def test_eval_of_one_task_leaves_the_other_out(checkpoint, tmp_path):
    out = tmp_path / "m.json"
    assert main(["eval", str(checkpoint), "--task", "depth", "--limit", "2", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert list(result["metrics"]) == ["depth"]
    assert result["images"] == 2


def test_show_of_the_data_set_has_truth_and_prediction(checkpoint, tmp_path, capsys):
    out = tmp_path / "pictures"
    assert main(["show", str(checkpoint), "--data", "scenes", "--count", "2", "--out", str(out)]) == 0
    files = sorted(out.iterdir())
    assert [str(path) for path in files] == sorted(capsys.readouterr().out.split())
    assert len(files) == 2
    pixels = [np.asarray(Image.open(path)) for path in files]
    assert pixels[0].ndim == 3
    assert pixels[0].shape[2] == 3
    assert pixels[0].shape != pixels[1].shape or (pixels[0] != pixels[1]).any()


def test_show_takes_pictures_folders_and_videos(checkpoint, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(frame).save(tmp_path / "a.png")
    Image.fromarray(frame).convert("L").save(folder / "a.jpg")
    Image.fromarray(frame).save(folder / "b.png")
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for _ in range(4):
        video.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    video.release()
    out = tmp_path / "out"
    sources = [str(tmp_path / "a.png"), str(folder), str(tmp_path / "v.avi")]
    assert main(["show", str(checkpoint), *sources, "--every", "2", "--out", str(out)]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert "a.png" in names
    assert len(names) == 1 + 1 + 2  # the picture, every second of the folder, every second frame


def test_show_keeps_whole_names_and_every_picture(checkpoint, tmp_path):
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        for stamp in ("1700000000.12", "1700000000.34"):
            Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / folder / f"{stamp}.png")
    out = tmp_path / "out"
    sources = [str(tmp_path / folder / f"1700000000.{end}.png") for folder in "abc" for end in (12, 34)]
    assert main(["show", str(checkpoint), *sources, "--out", str(out)]) == 0
    stamps = [f"{before}1700000000.{end}.png" for before in ("", "b_", "c_") for end in (12, 34)]
    assert sorted(path.name for path in out.iterdir()) == stamps


def test_show_does_not_replace_its_pictures(checkpoint, tmp_path, capsys):
    picture = tmp_path / "photo.png"
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(picture)
    content = picture.read_bytes()
    assert main(["show", str(checkpoint), str(picture), "--out", str(tmp_path)]) == 2
    assert f"'{picture}' would be replaced: choose another --out" in capsys.readouterr().err
    assert picture.read_bytes() == content


def test_slim_keeps_the_function_in_half_the_size(checkpoint, tmp_path, capsys):
    out = tmp_path / "slim.pt"
    assert main(["slim", str(checkpoint), str(out)]) == 0
    assert out.stat().st_size < 0.7 * checkpoint.stat().st_size
    full, slim = (load_model(path)[0] for path in (checkpoint, out))
    images = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        a, b = full(images).predictions, slim(images).predictions
    for task in a:
        assert (a[task] - b[task]).abs().max() < 0.02 * a[task].abs().max() + 0.02
    assert "MB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "CKPT", "--task", "normals"], "task 'normals' is not in the model"),
        (["eval", "CKPT", "--data", "nyud:nowhere"], "nowhere"),
        (["eval", "CKPT", "--baseline", "nowhere.json"], "nowhere.json"),
        (["eval", "CKPT", "--device", "abacus"], "device 'abacus' is unknown"),
        (["show", "CKPT", "nowhere.png"], "nowhere.png"),
        (["show", "CKPT", "broken.png"], "broken.png"),
        (["show", "CKPT", "CKPT"], "last.pt"),
        (["show", "CKPT", "--data", "scenes", "--count", "0"], "--count: 0 is not allowed"),
        (["show", "CKPT", "broken.png", "--every", "0"], "--every: 0 is not allowed"),
        (["eval", "broken.png"], "broken.png"),
    ],
)
def test_bad_input_is_one_sentence(checkpoint, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    (tmp_path / "broken.png").write_bytes(whole.read_bytes()[:3000])
    assert main([str(checkpoint) if a == "CKPT" else a for a in arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("edge-moe: ")]) == 1
    assert "Traceback" not in err
    assert not (tmp_path / "pictures").exists()
