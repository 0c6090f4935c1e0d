# SPDX-License-Identifier: Apache-2.0
"""One set of tests for every backend: the same lines, the same integers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_moe.quant.network import run_network
from edge_moe.testing.csim import build
from edge_moe.testing.host_models import PRESET, Forms, make_forms
from edge_moe_host.backends.onnx import available_providers
from edge_moe_host.errors import (
    BackendError,
    BundleError,
    ClosedError,
    DeviceError,
    DeviceStoppedError,
    EdgeMoEError,
    ImageError,
    TaskError,
)
from edge_moe_host.runtime.accelerator import Accelerator, backend_names

SIZE = PRESET.model.image_size
EXACT = ("golden", "csim", "onnx-cpu", "onnx-cuda", "onnx-tensorrt")
BACKENDS = (*EXACT, "torch")


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Forms:
    build()
    return make_forms(tmp_path_factory.mktemp("forms"))


def open_backend(name: str, forms: Forms) -> Accelerator:
    backend, _, provider = name.partition("-")
    options: dict[str, Any] = {}
    if backend == "onnx":
        if provider not in available_providers():
            pytest.skip(f"this onnxruntime has no provider '{provider}'")
        options = {"graphs": forms.graphs, "provider": provider}
    if backend == "torch":
        options = {"checkpoint": forms.checkpoint, "device": "cpu"}
    return Accelerator.open(backend, forms.bundle, **options)


@pytest.fixture(scope="module", params=BACKENDS)
def opened(request: pytest.FixtureRequest, forms: Forms) -> Iterator[Accelerator]:
    """Each backend in turn, opened once."""
    with open_backend(request.param, forms) as accelerator:
        yield accelerator


@pytest.fixture(scope="module", params=EXACT)
def exact(request: pytest.FixtureRequest, forms: Forms) -> Iterator[Accelerator]:
    """Each backend of integers in turn, opened once."""
    with open_backend(request.param, forms) as accelerator:
        yield accelerator


@pytest.fixture
def acc(opened: Accelerator) -> Accelerator:
    """A backend with its first task, and counters at zero."""
    opened._prepare()
    return opened


def pictures(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """uint8 [n, h, w, 3]: blocks of colour with noise."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.integers(0, 256, (count, -(-height // 8), -(-width // 8), 3))
    blocks = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return np.clip(blocks + rng.integers(-30, 30, blocks.shape), 0, 255).astype(np.uint8)


def test_integers_equal_golden(exact: Accelerator, forms: Forms) -> None:
    compared = 0
    for image in pictures(3):
        for task in exact.tasks:
            golden = run_network(forms.network, image[None], task)
            result = exact.run(image, task)
            np.testing.assert_array_equal(result.raw, golden.raw[0])
            assert result.raw.dtype == np.int16
            compared += result.raw.size
            if task == "semseg":
                assert len(np.unique(golden.output)) > 2
                np.testing.assert_array_equal(result.values, golden.output[0])
            if task == "depth":
                out = exact.bundle.task(task).entry.output
                meaning = golden.output[0, ..., 0] * (out.scale / (2 * out.factor) ** 2)
                np.testing.assert_array_equal(result.values, meaning.astype(np.float32))
    cells = (SIZE[0] // 4) * (SIZE[1] // 4)
    assert compared == 3 * cells * (7 + 1 + 3 + 1)


@pytest.mark.parametrize("size", [(32, 64), (64, 128), (33, 65), (480, 640), (7, 9), (1, 1), (200, 20)])
def test_results_at_the_pictures_size_equal_those_of_golden(
    size: tuple[int, int], exact: Accelerator, forms: Forms
) -> None:
    image = pictures(1, size, seed=1)[0]
    with open_backend("golden", forms) as golden:
        expected, actual = golden.run_tasks(image), exact.run_tasks(image)
    assert list(actual) == ["depth", "edge", "normals", "semseg"]
    for task, result in actual.items():
        np.testing.assert_array_equal(result.values, expected[task].values)
        assert result.values.dtype == expected[task].values.dtype
        assert result.values.shape == ((*size, 3) if task == "normals" else size)
        assert result.image_size == size


def test_float_results_are_near_the_integers(forms: Forms) -> None:
    images = pictures(3, seed=2)
    with open_backend("golden", forms) as golden, open_backend("torch", forms) as acc:
        for image in images:
            expected, actual = golden.run_tasks(image), acc.run_tasks(image)
            for task in ("depth", "edge", "normals"):
                assert actual[task].raw.dtype == np.float32
                together = np.corrcoef(actual[task].values.ravel(), expected[task].values.ravel())[0, 1]
                assert together > 0.8, task
            agreement = (actual["semseg"].values == expected["semseg"].values).mean()
            assert agreement > 0.85


def test_the_float_backend_is_the_model(forms: Forms) -> None:
    import torch

    from edge_moe.checkpoint import load_model

    image = pictures(1, seed=3)[0]
    model, _, _ = load_model(forms.checkpoint)
    with torch.inference_mode():
        output = model(torch.from_numpy(image.transpose(2, 0, 1).copy())[None]).predictions
    with open_backend("torch", forms) as acc:
        results = acc.run_tasks(image)
    np.testing.assert_allclose(results["depth"].values, output["depth"][0, 0].numpy(), rtol=1e-4, atol=1e-4)
    same = results["semseg"].values == output["semseg"][0].argmax(0).numpy()
    assert same.mean() > 0.999


# One interface


def test_tasks_in_turn_and_counters(acc: Accelerator) -> None:
    first, second = pictures(2, seed=4)
    assert acc.tasks == ("depth", "edge", "normals", "semseg")
    assert acc.task == "depth"
    result = acc.run(first)
    assert (result.task, result.kind, result.image_size) == ("depth", "scalar", SIZE)
    assert result.seconds > 0
    acc.switch("semseg")
    assert acc.run(first).task == "semseg"
    assert acc.run(second, "edge").task == "edge"
    assert acc.run(second).task == "semseg"
    before = acc.counters()
    assert {task: total.frames for task, total in before.items()} == {
        "depth": 1,
        "edge": 1,
        "normals": 0,
        "semseg": 2,
    }
    semseg = before["semseg"]
    assert semseg.milliseconds > 0
    assert semseg.image_bytes == 2 * SIZE[0] * SIZE[1] * 3
    assert semseg.output_bytes == 2 * result.raw.nbytes * 7
    assert (semseg.cycles > 0) == (result.cycles is not None)
    acc.run(first, "depth")
    assert before["depth"].frames == 1  # a copy


def test_frames_do_not_share_memory(acc: Accelerator) -> None:
    first, second = pictures(2, seed=5)
    result = acc.run(first, "depth")
    raw, values = result.raw.copy(), result.values.copy()
    other = acc.run(second, "depth")
    assert (other.raw != raw).any()
    np.testing.assert_array_equal(result.raw, raw)
    np.testing.assert_array_equal(result.values, values)


def test_pictures_that_are_views(acc: Accelerator) -> None:
    image = pictures(1, seed=6)[0]
    expected = acc.run(image).values
    wide = np.zeros((SIZE[0], 2 * SIZE[1], 6), np.uint8)
    wide[:, ::2, 1:4] = image
    np.testing.assert_array_equal(acc.run(wide[:, ::2, 1:4]).values, expected)
    image.setflags(write=False)
    np.testing.assert_array_equal(acc.run(image).values, expected)
    np.testing.assert_array_equal(acc.run(image[::-1][::-1]).values, expected)


def test_a_stream_equals_single_frames(acc: Accelerator) -> None:
    images = pictures(5, seed=7)
    turns = ["semseg", "depth"]
    results = list(acc.stream(iter(images), turns))
    assert [result.task for result in results] == ["semseg", "depth", "semseg", "depth", "semseg"]
    assert [result.name for result in results] == [f"{number:06d}" for number in range(5)]
    for image, result in zip(images, results, strict=True):
        np.testing.assert_array_equal(result.values, acc.run(image, result.task).values)
        np.testing.assert_array_equal(result.image, image)


def test_bad_input_is_one_sentence_and_the_next_frame_works(acc: Accelerator, tmp_path: Path) -> None:
    image = pictures(1)[0]
    expected = acc.run(image, "depth").values
    (tmp_path / "text.png").write_text("no picture")
    for bad, task, error in (
        (image, "parts", TaskError),
        (image.astype(np.float32), None, ImageError),
        (image[..., 0], None, ImageError),
        (image[:0], None, ImageError),
        (image[..., :2], None, ImageError),
        (None, None, ImageError),
        ([[1]], None, ImageError),
        (tmp_path / "none.png", None, ImageError),
        (str(tmp_path / "text.png"), None, ImageError),
    ):
        with pytest.raises(error, match=r"\A[^\n]+\.\Z"):
            acc.run(bad, task)
    with pytest.raises(TaskError, match=r"'parts' is not in .*: it has depth, edge, normals, semseg"):
        acc.switch("parts")
    with pytest.raises(TaskError):
        acc.run_tasks(image, ["depth", "parts"])
    with pytest.raises(TaskError):
        acc.stream([image], ["depth", "parts"])
    np.testing.assert_array_equal(acc.run(image, "depth").values, expected)


def test_after_closing(forms: Forms) -> None:
    for name in ("golden", "csim", "onnx-cpu", "torch"):
        acc = open_backend(name, forms)
        acc.run(pictures(1)[0])
        acc.close()
        acc.close()
        for use in (lambda: acc.run(pictures(1)[0]), lambda: acc.stream(pictures(1))):  # noqa: B023
            with pytest.raises(ClosedError, match="open it again"):
                use()
        assert acc.counters()["depth"].frames == 1


# Opening


def test_names() -> None:
    assert backend_names() == ("csim", "golden", "onnx", "pynq", "torch")


def test_an_unknown_backend(forms: Forms) -> None:
    message = r"unknown backend 'fpga': known here are csim, golden, onnx, pynq, torch\.\Z"
    with pytest.raises(BackendError, match=message):
        Accelerator.open("fpga", forms.bundle)


def test_a_backend_that_is_not_installed(forms: Forms) -> None:
    pytest.importorskip("torch")
    with pytest.raises(BackendError, match=r"\Abackend 'pynq' cannot be loaded: .*pynq.*\.\Z"):
        Accelerator.open("pynq", forms.bundle)


def test_options(forms: Forms, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"backend 'csim' has no option 'graph': it takes library\.\Z"):
        Accelerator.open("csim", forms.bundle, graph=forms.graphs)
    with pytest.raises(BackendError, match=r"backend 'golden' has no option 'self': it takes none\.\Z"):
        Accelerator.open("golden", forms.bundle, self=1)
    with pytest.raises(BackendError, match="give graphs="):
        Accelerator.open("onnx", forms.bundle)
    with pytest.raises(BackendError, match=r"cannot read '.*depth/path\.onnx': No such file"):
        Accelerator.open("onnx", forms.bundle, graphs=tmp_path)
    with pytest.raises(BackendError, match=r"no provider 'tpu' here: it has .*cpu"):
        Accelerator.open("onnx", forms.bundle, graphs=forms.graphs, provider="tpu")
    with pytest.raises(BackendError, match="needs checkpoint="):
        Accelerator.open("torch", forms.bundle)
    with pytest.raises(EdgeMoEError, match=r"checkpoint 'none\.pt' does not exist"):
        Accelerator.open("torch", forms.bundle, checkpoint="none.pt")
    with pytest.raises(BackendError, match="is of another model than bundle"):
        Accelerator.open("torch", forms.bundle, checkpoint="pretrained")
    with pytest.raises(EdgeMoEError, match="device 'tpu'"):
        Accelerator.open("torch", forms.bundle, checkpoint=forms.checkpoint, device="tpu")
    with pytest.raises(BundleError, match=r"none\.so' is missing: make -C"):
        Accelerator.open("csim", forms.bundle, library="none.so")
    with pytest.raises(BundleError, match="is not a folder"):
        Accelerator.open("csim", tmp_path / "none")


def test_graphs_of_another_training_are_refused(forms: Forms, tmp_path: Path) -> None:
    other = make_forms(tmp_path, seed=1)
    message = r"is not the graph that task 'depth' of bundle '.*' was compiled from: compile it again, or"
    with pytest.raises(BackendError, match=message):
        Accelerator.open("onnx", forms.bundle, graphs=other.graphs)


def test_a_damaged_graph_with_its_hash(forms: Forms, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_moe_host.backends import onnx

    with Accelerator.open("golden", forms.bundle) as acc:
        bundle = acc.bundle
    forms_hash = bundle.task("depth").entry.graph
    monkeypatch.setattr(onnx.manifest, "file_hash", lambda content: forms_hash)
    monkeypatch.setattr(onnx, "read_bytes", lambda *_: b"no graph")
    with pytest.raises(BackendError, match=r"\Aonnxruntime cannot load '.*path\.onnx': [^\n]+\.\Z"):
        Accelerator.open("onnx", bundle, graphs=forms.graphs)


def test_a_stopped_simulation(forms: Forms) -> None:
    image = pictures(1)[0]
    with Accelerator.open("csim", forms.bundle) as acc:
        expected = acc.run(image, "depth").raw
        execute = acc._csim.execute  # type: ignore[attr-defined]

        def damaged(program: np.ndarray, *arguments: np.ndarray, **options: object) -> object:
            program = program.copy()
            program[64 * 3 + 5] ^= 1
            return execute(program, *arguments, **options)

        acc._csim.execute = damaged  # type: ignore[attr-defined]
        with pytest.raises(DeviceStoppedError, match=r"stopped at instruction 3: its checksum") as caught:
            acc.run(image, "depth")
        assert (caught.value.status, caught.value.error, caught.value.position) == (2, 2, 3)
        assert isinstance(caught.value, DeviceError)
        assert acc.counters()["depth"].frames == 1
        acc._csim.execute = execute  # type: ignore[attr-defined]
        np.testing.assert_array_equal(acc.run(image, "depth").raw, expected)


def test_drawing(acc: Accelerator) -> None:
    image = pictures(1, (50, 60), seed=8)[0]
    for task, result in acc.run_tasks(image).items():
        drawn = result.draw()
        assert (drawn.shape, drawn.dtype) == ((50, 60, 3), np.uint8)
        mixed = result.draw(image).astype(int)
        np.testing.assert_allclose(mixed, 0.6 * drawn + 0.4 * image, atol=1.5)
        if task == "semseg":
            assert result.palette is not None
            np.testing.assert_array_equal(drawn, result.palette[result.values])
            assert result.class_names[2] == "class 2"
        with pytest.raises(ImageError, match="the result is 50 x 60"):
            result.draw(image[:10])
