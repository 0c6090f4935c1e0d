# SPDX-License-Identifier: Apache-2.0
"""``edge-moe quantise`` from a checkpoint on disk to a file, a text and a network for export."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from edge_moe import EdgeMoEError
from edge_moe.checkpoint import save_checkpoint
from edge_moe.config import ModelConfig, Preset, TrainConfig
from edge_moe.data.transforms import evaluation_resize
from edge_moe.nn import M3ViT
from edge_moe.quant.build import build_network
from edge_moe.quant.fake import FakeQuantiser
from edge_moe.quant.network import run_network
from edge_moe.quant.options import QuantOptions
from edge_moe.quant.quantise import (
    accuracy_table,
    calibration_images,
    obtain_network,
    open_calibration,
    quantise_checkpoint,
    quantise_model,
)
from edge_moe.quant.scales import check_scales
from edge_moe.quant.storage import load_network, save_network
from edge_moe.testing.networks import random_network
from edge_moe.testing.quant_models import CONFIG, changed, random_model
from edge_moe_host.config import to_dict

SCENES = changed(tasks={"semseg": 7, "depth": 1})
TRAIN = TrainConfig(train_images=6, val_images=2)
OPTIONS = QuantOptions(images=4)


def write_checkpoint(path: Path, model: M3ViT, **content: object) -> Path:
    preset = Preset("random", model.cfg, TRAIN)
    save_checkpoint(
        path, {"preset": to_dict(preset), "model": model.state_dict(), "data": "scenes", **content}
    )
    return path


def checkpoint(folder: Path, config: ModelConfig = SCENES, **content: object) -> Path:
    return write_checkpoint(folder / "model.pt", random_model(config), **content)


def test_from_checkpoint_to_file(tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.int.npz"
    text = quantise_checkpoint(checkpoint(tmp_path), out, options=OPTIONS, progress=False)
    network, extra = load_network(out)
    assert network.config == SCENES
    assert network.tasks == ("semseg", "depth")
    check_scales(extra["scales"], SCENES)
    assert {task: counts.shape for task, counts in extra["usage"].items()} == {
        "semseg": (2, 4),
        "depth": (2, 4),
    }
    assert extra["options"] == dataclasses.asdict(OPTIONS)
    assert extra["data"] == "scenes"
    assert str(out) in text
    assert "experts 8.00 bits on average" in text
    assert text.endswith("calibrated on 4 images of scenes, observer mse.")
    assert len(text.splitlines()) == 1


def test_text_has_what_was_asked_for(tmp_path: Path) -> None:
    options = QuantOptions(images=4, average_expert_bits=4.5, drop_unused_experts=True)
    text = quantise_checkpoint(
        checkpoint(tmp_path), tmp_path / "m.int.npz", options=options, evaluate=True, report=True, limit=2,
        progress=False,
    )  # fmt: skip
    network, _ = load_network(tmp_path / "m.int.npz")
    widths = [ffn.fc1.bits for block in network.blocks for ffn in block.experts]
    assert np.mean(widths) <= 4.5
    assert f"experts {np.mean(widths):.2f} bits" in text
    for part in (
        "| task | block 1 | block 3 |",
        "| task | metric | float | integer | without unused experts |",
        "2 images of the validation split of scenes",
        "| head.out |",
        "| block3.gate, tokens",
    ):
        assert part in text
    assert sum(line.startswith("| depth | rmse |") for line in text.splitlines()) == 1


def test_accuracy_of_an_exact_copy(tmp_path: Path) -> None:
    """With nothing dropped, both integer columns are the same, and close to the float one."""
    model = random_model(SCENES)
    preset = Preset("random", SCENES, TRAIN)
    network, extra = quantise_model(model, preset, "scenes", OPTIONS, progress=False)
    extra["options"]["drop_unused_experts"] = True
    extra["usage"] = {task: np.ones_like(counts) for task, counts in extra["usage"].items()}
    rows = accuracy_table(model, network, extra, preset, "scenes", progress=False).splitlines()[2:4]
    assert len(rows) == 2
    for row in rows:
        _, _, _, real, whole, kept, _ = row.split("|")
        assert whole == kept
        before, after = (float(cell.replace("%", " ").split()[0]) for cell in (real, whole))
        assert math.isclose(before, after, rel_tol=0.1)
        assert "%)" in whole


def test_dense_models_have_no_experts_to_speak_of(tmp_path: Path) -> None:
    config = changed(tasks={"depth": 1}, routing="dense", depth=2)
    options = QuantOptions(images=2, average_expert_bits=4.0, drop_unused_experts=True)
    text = quantise_checkpoint(
        checkpoint(tmp_path, config), tmp_path / "m.int.npz", options=options, progress=False
    )
    assert "experts" not in text
    assert load_network(tmp_path / "m.int.npz")[0].config == config


def test_a_network_is_loaded_and_a_checkpoint_is_quantised(tmp_path: Path) -> None:
    source = checkpoint(tmp_path)
    first, extra = obtain_network(source, options=OPTIONS, progress=False)
    save_network(first, tmp_path / "m.int.npz", extra)
    second, _ = obtain_network(tmp_path / "m.int.npz")
    third, _ = obtain_network(source, options=OPTIONS, progress=False)
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3)).astype(np.uint8)
    raw = [run_network(network, images, "depth").raw for network in (first, second, third)]
    assert np.array_equal(raw[0], raw[1])
    assert np.array_equal(raw[0], raw[2])
    assert raw[0].size == 16 * 32


def test_fine_tuned_grids_are_used_as_they_are(tmp_path: Path) -> None:
    model = random_model(SCENES)
    preset = Preset("random", SCENES, TRAIN)
    _, extra = quantise_model(model, preset, "scenes", OPTIONS, progress=False)
    scales = {**extra["scales"], "residual": extra["scales"]["residual"] * 1.5}
    bits = {1: (4, 8, 8, 3), 3: (8, 8, 5, 8)}
    tuned = FakeQuantiser(scales, bits).to_plain()
    network, kept = obtain_network(
        write_checkpoint(tmp_path / "tuned.pt", model, quantisation=tuned), options=OPTIONS, progress=False
    )
    expected = build_network(model, scales, OPTIONS, expert_bits=bits)
    assert np.isclose(network.scales["residual"], 1.5 * float(extra["scales"]["residual"]))
    assert tuple(ffn.fc1.bits for ffn in network.blocks[1].experts) == bits[1]
    for ours, theirs in zip(network.blocks, expected.blocks, strict=True):
        assert np.array_equal(ours.attention.qkv.bias, theirs.attention.qkv.bias)
        assert np.array_equal(ours.attention.proj.weight, theirs.attention.proj.weight)
    assert set(kept["usage"]) == {"semseg", "depth"}
    text = quantise_checkpoint(tmp_path / "tuned.pt", tmp_path / "m.int.npz", options=OPTIONS, progress=False)
    assert "calibrated on 4 images of scenes, grids of fine-tuning" in text
    for options in (QuantOptions(expert_bits=4), QuantOptions(average_expert_bits=5.0)):
        with pytest.raises(EdgeMoEError, match="fine-tuned with widths of its own"):
            obtain_network(tmp_path / "tuned.pt", options=options, progress=False)


def test_calibration_images_are_spread_over_the_training_split() -> None:
    preset = Preset("random", SCENES, TRAIN)
    dataset = open_calibration(preset, "scenes")
    assert dataset.split == "train"
    images = list(calibration_images(dataset, preset, 3, progress=False))
    for image, index in zip(images, (0, 2, 5), strict=True):
        expected = evaluation_resize({"image": dataset[index]["image"]}, SCENES.image_size)["image"]
        assert np.array_equal(image, expected)
    assert len(list(calibration_images(dataset, preset, 100, progress=False))) == 6


def test_bad_input_is_named_before_a_file_is_written(tmp_path: Path) -> None:
    source, out = checkpoint(tmp_path), tmp_path / "m.int.npz"
    with pytest.raises(EdgeMoEError, match=r"'.*m\.npz' is no name for an integer network: .* '\.int\.npz'"):
        quantise_checkpoint(source, tmp_path / "m.npz", options=OPTIONS)
    with pytest.raises(EdgeMoEError, match="unknown data specification 'nonsense'"):
        quantise_checkpoint(source, out, data="nonsense", options=OPTIONS)
    with pytest.raises(EdgeMoEError, match="does not exist"):
        quantise_checkpoint(tmp_path / "none.pt", out)
    with pytest.raises(EdgeMoEError, match="does not exist"):
        obtain_network(tmp_path / "none.int.npz")
    imported = write_checkpoint(tmp_path / "imported.pt", random_model(SCENES), data="")
    with pytest.raises(EdgeMoEError, match=r"does not say what it was trained on: give --data SPEC"):
        obtain_network(imported)
    assert not out.exists()
    assert obtain_network(imported, data="scenes", options=OPTIONS, progress=False)[0].tasks


def test_a_dropped_path_can_be_stored_too(tmp_path: Path) -> None:
    path = tmp_path / "path.int.npz"
    save_network(random_network(CONFIG).path("semseg"), path)
    assert obtain_network(path)[0].tasks == ("semseg",)
