# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files: whole or absent, refused when damaged or foreign, slimmed without loss of use."""

import builtins
import dataclasses
import errno
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_moe import EdgeMoEError
from edge_moe.checkpoint import (
    check_resumable,
    first_difference,
    initialise_from,
    load_checkpoint,
    load_model,
    load_weights,
    save_checkpoint,
    slim,
)
from edge_moe.config import Preset, load_preset
from edge_moe.nn import build_model
from edge_moe_host.config import to_dict

TINY = ("model.image_size=[32,32]", "model.embed_dim=16", "model.depth=2", "model.head_channels=8")


def tiny(*overrides: str) -> Preset:
    return load_preset("mini", [*TINY, *overrides])


def content(preset: Preset, seed: int = 0, **more: Any) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = build_model(preset.model)
    return {"preset": to_dict(preset), "model": model.state_dict(), "data": "scenes", "step": 3, **more}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_round_trip(tmp_path: Path) -> None:
    saved = content(tiny(), metrics={"depth": {"rmse": 2.5}})
    save_checkpoint(tmp_path / "a.pt", saved)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert equal(loaded.model, saved["model"])
    assert (loaded.step, loaded.data, loaded.metrics) == (3, "scenes", {"depth": {"rmse": 2.5}})
    model, preset, meta = load_model(tmp_path / "a.pt")
    assert equal(model.state_dict(), saved["model"])
    assert to_dict(preset) == saved["preset"]
    assert meta["metrics"]["depth"]["rmse"] == 2.5
    assert not model.training
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_average_weights_are_preferred(tmp_path: Path) -> None:
    average = content(tiny(), seed=1)["model"]
    save_checkpoint(tmp_path / "a.pt", content(tiny(), ema=average))
    assert equal(load_model(tmp_path / "a.pt")[0].state_dict(), average)


def test_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, content(tiny()))
    before = path.read_bytes()
    real_open = builtins.open

    class FullDisk:
        """Accepts 5000 bytes, then raises the error of a full disk."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 5000

        def write(self, data: Any) -> int:
            self.room -= memoryview(data).nbytes
            if self.room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __enter__(self) -> "FullDisk":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    def opened(name: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = real_open(name, mode, *args, **kwargs)
        return FullDisk(file) if mode == "wb" else file

    monkeypatch.setattr(builtins, "open", opened)
    with pytest.raises(EdgeMoEError, match=r"last.pt': No space left on device; the previous one is kept"):
        save_checkpoint(path, content(tiny(), seed=1))
    with pytest.raises(EdgeMoEError, match=r"new.pt': No space left on device\.$"):
        save_checkpoint(tmp_path / "new.pt", content(tiny()))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_write_refused_by_the_system(tmp_path: Path) -> None:
    """A real failing write: the kernel refuses files above a size."""
    path = tmp_path / "last.pt"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(EdgeMoEError, match=r"cannot write .*: File too large"):
            save_checkpoint(path, content(tiny()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgeMoEError, match=r"cannot write '.*a\.pt'"):
        save_checkpoint(tmp_path / "file" / "a.pt", content(tiny()))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_checkpoint_cut_short(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, content(tiny()))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(EdgeMoEError, match=r"a.pt' is cut short or was not written by Edge-MoE"):
        load_checkpoint(path)


def test_a_flipped_byte_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, content(tiny()))
    data, weights = path.read_bytes(), load_checkpoint(path).weights
    seen = 0
    for place in range(len(data) // 8, len(data) * 7 // 8, len(data) // 32):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:  # a byte between two entries is nobody's
            found = load_checkpoint(path).weights
            assert all(torch.equal(found[name], weights[name]) for name in weights)
        except EdgeMoEError as error:
            seen += bool(re.search(r"a.pt' is damaged \(.*\): copy or download it again", str(error)))
    assert seen > 16


@pytest.mark.parametrize("name", ["x" * 5000, "file/a.pt", "\0"], ids=["long", "below a file", "zero"])
def test_paths_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgeMoEError, match=r"does not exist|cannot read"):
        load_checkpoint(tmp_path / name)
    with pytest.raises(EdgeMoEError, match=r"holds neither best\.pt nor last\.pt"):
        load_checkpoint(tmp_path)


def test_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(EdgeMoEError, match="does not exist"):
        load_checkpoint(tmp_path / "absent.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(EdgeMoEError, match="lacks the mark 'edge-moe-checkpoint'"):
        load_checkpoint(tmp_path / "other.pt")
    torch.save({"format": "edge-moe-checkpoint", "model": _Reducible()}, tmp_path / "code.pt")
    with pytest.raises(EdgeMoEError, match="damaged or was not written by Edge-MoE"):
        load_checkpoint(tmp_path / "code.pt")
    torch.save({"format": "edge-moe-checkpoint", "version": 99}, tmp_path / "new.pt")
    with pytest.raises(EdgeMoEError, match="has version 99, this program reads version 1"):
        load_checkpoint(tmp_path / "new.pt")
    save_checkpoint(tmp_path / "bare.pt", {"preset": {}})
    with pytest.raises(EdgeMoEError, match="lacks its 'model' entry"):
        load_checkpoint(tmp_path / "bare.pt")


class _Reducible:
    """Its pickle is a call that weights_only loading must refuse."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("code from a checkpoint ran",)


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    model = build_model(tiny().model)
    weights = dict(model.state_dict())
    with pytest.raises(
        EdgeMoEError, match=r"'pos_embed' has shape \[1, 5, 8\], this model needs \[1, 5, 16\]"
    ):
        load_weights(model, {**weights, "pos_embed": torch.zeros(1, 5, 8)}, tmp_path)
    with pytest.raises(EdgeMoEError, match="'extra' is unknown"):
        load_weights(model, {**weights, "extra": torch.zeros(1)}, tmp_path)
    del weights["patch_embed.bias"]
    with pytest.raises(EdgeMoEError, match=r"lacks 'patch_embed.bias'"):
        load_weights(model, weights, tmp_path)


def test_resuming_needs_the_same_preset(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", content(tiny(), optimizer={}))
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    check_resumable(
        checkpoint, tiny("train.workers=2", "train.epochs=9", "train.patience=2"), "scenes", tmp_path
    )
    for override, message in [
        ("train.lr=0.5", r"train.lr was 0.001 and is now 0.5"),
        ("model.num_experts=4", "model.num_experts was 8 and is now 4"),
        ("model.tasks.semseg=9", "model.tasks.semseg was 7 and is now 9"),
    ]:
        with pytest.raises(EdgeMoEError, match=message):
            check_resumable(checkpoint, tiny(override), "scenes", tmp_path)
    with pytest.raises(EdgeMoEError, match="trained on 'scenes', not on 'nyud:x'"):
        check_resumable(checkpoint, tiny(), "nyud:x", tmp_path)
    weights_only = dataclasses.replace(checkpoint, optimizer=None)
    with pytest.raises(EdgeMoEError, match="holds weights only; use it with --init"):
        check_resumable(weights_only, tiny(), "scenes", tmp_path)


def test_first_difference() -> None:
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 1}}) is None
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 2}}) == ("a.b", 1, 2)
    assert first_difference({"a": 1}, {"a": 1, "c": 0}) == ("c", None, 0)
    assert first_difference({"a": 1}, {"a": 2}, ignored=("a",)) is None
    assert first_difference({"t": {"x": 1, "y": 2}}, {"t": {"y": 2, "x": 1}}) == ("t", ["x", "y"], ["y", "x"])


def test_initialising_from_the_same_model(tmp_path: Path) -> None:
    saved = content(tiny())
    save_checkpoint(tmp_path / "a.pt", saved)
    model = build_model(tiny("model.gate_noise=0.5").model)
    initialise_from(model, tmp_path / "a.pt")
    assert equal(model.state_dict(), saved["model"])
    with pytest.raises(EdgeMoEError, match=r"model.num_experts is 8 there and 4 here"):
        initialise_from(build_model(tiny("model.num_experts=4").model), tmp_path / "a.pt")
    with pytest.raises(EdgeMoEError, match=r"model.image_size is \[32, 32\] there and \[32, 64\] here"):
        initialise_from(build_model(tiny("model.image_size=[32,64]").model), tmp_path / "a.pt")


def test_initialising_from_the_dense_twin(tmp_path: Path) -> None:
    dense = dataclasses.replace(tiny(), model=tiny().model.dense_twin())
    saved = content(dense)
    save_checkpoint(tmp_path / "dense.pt", saved)
    model = build_model(tiny().model)
    initialise_from(model, tmp_path / "dense.pt")
    state = model.state_dict()
    own = {name for name in state if ".gates." not in name and ".experts." not in name}
    assert len(own) > 20
    assert all(torch.equal(state[name], saved["model"][name]) for name in own)
    first = saved["model"]["blocks.1.ffn.fc1.weight"][: 2 * 16]
    assert torch.equal(state["blocks.1.ffn.experts.weight1"][0], first)
    with pytest.raises(EdgeMoEError, match=r"model.embed_dim is 16 there and 32 here"):
        initialise_from(build_model(tiny("model.embed_dim=32").model), tmp_path / "dense.pt")
    save_checkpoint(tmp_path / "moe.pt", content(tiny()))
    with pytest.raises(EdgeMoEError, match=r"model.routing is 'multi_gate' there and 'dense' here"):
        initialise_from(build_model(dense.model), tmp_path / "moe.pt")


def test_slim_halves_the_file_and_keeps_the_function(tmp_path: Path) -> None:
    saved = content(tiny(), metrics={"depth": {"rmse": 2.5}}, optimizer={"state": {0: torch.zeros(50_000)}})
    save_checkpoint(tmp_path / "full.pt", saved)
    slim(tmp_path / "full.pt", tmp_path / "slim.pt")
    raw = load_checkpoint(tmp_path / "slim.pt")
    assert raw.optimizer is None
    assert raw.model["patch_embed.weight"].dtype == torch.float16
    assert raw.model["patch_embed.bias"].dtype == torch.float32
    model, preset, meta = load_model(tmp_path / "slim.pt")
    assert to_dict(preset) == saved["preset"]
    assert meta["metrics"] == saved["metrics"]
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == saved["model"][name].dtype
        torch.testing.assert_close(tensor, saved["model"][name], rtol=2**-10, atol=2**-24)
    slim(tmp_path / "full.pt", tmp_path / "single.pt", half=False)
    assert equal(load_checkpoint(tmp_path / "single.pt").model, saved["model"])


def test_slim_refuses_values_beyond_half_precision(tmp_path: Path) -> None:
    saved = content(tiny())
    saved["model"]["blocks.0.attn.qkv.weight"][0, 0] = 1e6
    save_checkpoint(tmp_path / "full.pt", saved)
    with pytest.raises(EdgeMoEError, match=r"'blocks.0.attn.qkv.weight' .* float16 \(largest 1e\+06\)"):
        slim(tmp_path / "full.pt", tmp_path / "slim.pt")
    assert not (tmp_path / "slim.pt").exists()


def test_preset_with_unknown_key_is_refused(tmp_path: Path) -> None:
    saved = content(tiny())
    saved["preset"]["train"]["colour"] = 1
    save_checkpoint(tmp_path / "a.pt", saved)
    with pytest.raises(EdgeMoEError, match=r"unknown key 'train.colour': TrainConfig has"):
        load_model(tmp_path / "a.pt")
