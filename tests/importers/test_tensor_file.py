# SPDX-License-Identifier: Apache-2.0
"""Foreign files of weights: what surrounds a state dict, and what a file must not hold."""

import argparse
import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edge_moe import EdgeMoEError
from edge_moe.checkpoint import save_checkpoint
from edge_moe.importers.tensor_file import read_state_dict

WEIGHTS = {"cls_token": torch.arange(6.0).reshape(1, 1, 6), "norm.bias": torch.ones(6)}


class Plain:
    """An object of the program that wrote the file."""

    def __init__(self) -> None:
        self.values = {"lr": 1e-3}


class Sums(dict[str, float]):
    """A mapping with an attribute, such as the hyperparameters that Lightning writes."""


def written(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def same(found: dict[str, Tensor]) -> bool:
    return list(found) == list(WEIGHTS) and all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "beside",
    [
        np.float64(0.5), np.int64(3), np.bool_(True), np.str_("a"), np.datetime64("2024-01-01"),
        np.arange(6.0).reshape(2, 3), np.array(["a", None], object), np.zeros(2, "i4,f8"), np.zeros(0),
        np.dtype("f4"), np.dtype("<U3"), np.float32, argparse.Namespace(lr=0.1, out=Path("runs")),
        collections.defaultdict(list, a=[1]), Sums(a=1.0), Plain(), {1, 2}, 3 + 4j, slice(1, 2), print,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_beside_the_weights_are_set_aside(tmp_path: Path, beside: object, zipped: bool) -> None:
    """M3ViT's training stores NumPy values, DeiT's a Namespace, Lightning's mappings of its own."""
    content = {"epoch": 3, "best_result": {"all": [beside, beside]}, "state_dict": WEIGHTS, "end": beside}
    path = written(tmp_path / "a.pth", content, _use_new_zipfile_serialization=zipped)
    assert same(read_state_dict(path))


def test_numpy_under_its_older_module_names(tmp_path: Path) -> None:
    """NumPy 1 wrote ``numpy.core``, NumPy 2 writes ``numpy._core``: of equal length with another name."""
    path = tmp_path / "a.pth"
    content = {"best": np.float64(2.0), "array": np.ones(3), "state_dict": WEIGHTS}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in data
    path.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert same(read_state_dict(path))


class Evil:
    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return run_code, ()


def run_code() -> None:
    Evil.ran = True


class System:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch /tmp/never",)


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pth", {"other": Evil(), "state_dict": WEIGHTS})
    assert same(read_state_dict(path))
    assert not Evil.ran
    written(path, {"state_dict": {**WEIGHTS, "x": Evil()}})
    with pytest.raises(EdgeMoEError, match=r"holds the Python object \S*run_code, and only tensors"):
        read_state_dict(path)
    assert not Evil.ran
    written(path, {"other": System(), "state_dict": WEIGHTS})
    with pytest.raises(EdgeMoEError, match=r"holds the Python object \S*\.system, and only tensors"):
        read_state_dict(path)


def test_a_whole_module_is_not_a_state_dict(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pth", nn.Linear(2, 2))
    with pytest.raises(EdgeMoEError, match=r"holds the Python object torch\.nn\.\S+Linear"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "model.", "net.", "backbone.", "module._orig_mod.", "model.backbone."],
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict", "model_ema"])
def test_wrappers_and_prefixes(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    state = {f"{prefix}{name}": value for name, value in WEIGHTS.items()}
    content = state if wrapper is None else {"epoch": 1, wrapper: state, "optimizer": {"lr": 0.1}}
    assert same(read_state_dict(written(tmp_path / "a.pt", content)))


def test_averages_are_preferred_and_wrappers_may_be_nested(tmp_path: Path) -> None:
    raw = {name: -value for name, value in WEIGHTS.items()}
    path = written(tmp_path / "a.pt", {"model": raw, "model_ema": {"state_dict": WEIGHTS}})
    assert same(read_state_dict(path))


def test_a_checkpoint_of_this_project_needs_no_import(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"preset": {}, "model": WEIGHTS})
    with pytest.raises(EdgeMoEError, match=r"a\.pt' is a checkpoint of this project: use it as it is"):
        read_state_dict(tmp_path / "a.pt")


def test_two_models_in_one_state_dict(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pt", {"model.w": torch.ones(1), "net.w": torch.ones(1)})
    with pytest.raises(EdgeMoEError, match="has 'w' twice, under different prefixes"):
        read_state_dict(path)


def test_safetensors_are_known_by_their_content(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.pth"):
        save_file({f"module.{key}": value for key, value in WEIGHTS.items()}, tmp_path / name)
        assert same(read_state_dict(tmp_path / name))
    data = path.read_bytes() if (path := tmp_path / "model.safetensors") else b""
    for damaged in (b"", b"ab", data[:40], data[:-5], data + b"x", data[:12] + b"\0" + data[13:]):
        path.write_bytes(damaged)
        with pytest.raises(EdgeMoEError, match="is not a safetensors file, or it is damaged or cut short"):
            read_state_dict(path)


@pytest.mark.parametrize("kind", ["sparse", "quantised", "complex", "empty"])
def test_tensors_of_other_kinds_are_named(tmp_path: Path, kind: str) -> None:
    tensor = {
        "sparse": torch.eye(3).to_sparse(),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "complex": torch.ones(3, dtype=torch.complex64),
        "empty": torch.ones(3, device="meta"),
    }[kind]
    path = written(tmp_path / "a.pt", {**WEIGHTS, "norm.weight": tensor})
    with pytest.raises(EdgeMoEError, match=rf"'norm.weight' in '.*a\.pt' is a[n]? {kind} tensor"):
        read_state_dict(path)


def test_a_flipped_byte_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pt", WEIGHTS)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        stored = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
    offset = data.find(WEIGHTS["cls_token"].numpy().tobytes(), stored.header_offset)
    data[offset] ^= 4
    path.write_bytes(data)
    with pytest.raises(EdgeMoEError, match=r"a\.pt' is damaged \(a/data/0\): copy or download it again"):
        read_state_dict(path)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path / ("x" * 5000), Path("\0")):
        with pytest.raises(EdgeMoEError, match=r"does not exist|cannot read"):
            read_state_dict(path)


def test_a_plain_pickle_is_no_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(EdgeMoEError, match="is not a torch checkpoint"):
        read_state_dict(path)
