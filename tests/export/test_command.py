# SPDX-License-Identifier: Apache-2.0
"""edge-moe export: all files exist if everything was verified, else none."""

import onnx
import pytest

from edge_moe import EdgeMoEError
from edge_moe.compiler.read_graph import read_path
from edge_moe.export import files as command
from edge_moe.export.files import export_path
from edge_moe.export.path import path_metadata, read_path_model
from edge_moe.export.verify import verify_path, verify_qdq
from edge_moe.testing.graphs import CONFIGS, corrupt
from edge_moe.testing.networks import random_images, random_network

CFG = CONFIGS["dense"]


@pytest.fixture(scope="module")
def network():
    return random_network(CFG)


@pytest.fixture(scope="module")
def images():
    return random_images(CFG, 2)


def test_writes_both_models_of_each_task(tmp_path, network, images):
    summary = "\n".join(
        export_path(network, task, tmp_path, images, classes=classes, trace_images=1, progress=False)
        for task, classes in (("semseg", [("road", (128, 64, 128))]), ("depth", ()))
    )
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    names = ("path.onnx", "path.qdq.onnx")
    assert files == [f"{task}/{name}" for task in ("depth", "semseg") for name in names]
    assert len(summary.splitlines()) == 4
    assert all(file in summary for file in files)
    assert "all 25 tensors of 1 image, the results of 2 images" in summary
    for task in ("semseg", "depth"):
        model = read_path_model(tmp_path / task / "path.onnx")
        known = [["road", [128, 64, 128]]] if task == "semseg" else []
        assert path_metadata(model)["classes"] == known
        assert verify_path(model, network, task, images, 1).values > 5000
        qdq = onnx.load(tmp_path / task / "path.qdq.onnx")
        assert verify_qdq(qdq, network, task, images).snr > 25


@pytest.mark.parametrize(
    ("builder", "parameter", "message"),
    [
        ("build_path_model", "head.out.bias", "path.onnx of task 'semseg' differs from the golden model"),
        ("build_qdq_model", "head.out.bias", r"path\.qdq\.onnx of task 'semseg' agrees .* dB only"),
    ],
)
def test_nothing_is_left_when_a_model_fails(
    tmp_path, network, images, monkeypatch, builder, parameter, message
):
    build = getattr(command, builder)

    def broken(*args):
        model = build(*args)
        corrupt(model, parameter, 10**6)
        return model

    monkeypatch.setattr(command, builder, broken)
    with pytest.raises(EdgeMoEError, match=message):
        export_path(network, "semseg", tmp_path / "out", images, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_flat_form_is_verified_and_none_of_an_older_export_stays(tmp_path, network, images):
    text = export_path(network, "depth", tmp_path, images, flat=True, progress=False)
    flat = tmp_path / "depth" / "path.flat.onnx"
    assert f"{flat} (" in text
    assert verify_path(onnx.load(flat), network, "depth", images, 1).values > 5000
    with pytest.raises(EdgeMoEError, match="which the accelerator cannot run"):
        read_path(flat)
    assert "path.flat" not in export_path(network, "depth", tmp_path, images, progress=False)
    assert not flat.exists()


def test_an_older_export_survives_a_failing_one(tmp_path, network, images, monkeypatch):
    export_path(network, "depth", tmp_path, images[:1], trace_images=1, progress=False)
    before = {path: path.read_bytes() for path in (tmp_path / "depth").iterdir()}
    other = random_network(CFG, seed=1)
    build = command.build_path_model
    monkeypatch.setattr(command, "build_path_model", lambda _, task, classes: build(other, task))
    with pytest.raises(EdgeMoEError, match="differs from the golden model"):
        export_path(network, "depth", tmp_path, images[:1], progress=False)
    assert {path: path.read_bytes() for path in (tmp_path / "depth").iterdir()} == before
    assert len(before) == 2


def test_bad_arguments_are_one_sentence(tmp_path, network, images):
    with pytest.raises(EdgeMoEError, match="task 'edge' is not in this network: it has semseg, depth"):
        export_path(network, "edge", tmp_path, images, progress=False)
    with pytest.raises(EdgeMoEError, match="no images"):
        export_path(network, "semseg", tmp_path, images[:0], progress=False)
    with pytest.raises(EdgeMoEError, match=r"this network takes uint8 \[batch, 32, 48, 3\]"):
        export_path(network, "semseg", tmp_path, images[:, :16], progress=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeMoEError, match="cannot write"):
        export_path(network, "semseg", tmp_path / "file", images[:1], trace_images=0, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
