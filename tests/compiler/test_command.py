# SPDX-License-Identifier: Apache-2.0
"""The commands, and the comparison of bundles with onnxruntime that stops a wrong compilation."""

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_moe.commands import run
from edge_moe.commands.estimate import estimate_bundle
from edge_moe.commands.inspect import inspect_bundle
from edge_moe.commands.run import run_bundle
from edge_moe.compiler import weights
from edge_moe.compiler.verify import compile_verified, random_pictures, verify_bundle
from edge_moe.export.path import build_path_model
from edge_moe.quant.network import IntegerNetwork, run_network
from edge_moe.testing.bundles import small_config, values_of
from edge_moe.testing.networks import random_network
from edge_moe_host.errors import EdgeMoEError, ImageError
from edge_moe_host.runtime.drawing import depth_colours
from edge_moe_host.runtime.images import Frame, frames, read_pictures
from edge_moe_host.runtime.result import class_map

CLASSES = {"semseg": [(f"class {i}", (40 * i, 10, 200)) for i in range(5)]}


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    return random_network(small_config())


@pytest.fixture(scope="module")
def paths(network: IntegerNetwork, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("paths")
    files = []
    for task in network.tasks:
        files.append(folder / f"{task}.onnx")
        files[-1].write_bytes(build_path_model(network, task, CLASSES.get(task, ())).SerializeToString())
    return files


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, picture in enumerate(random_pictures(40, 60, 3)):
        Image.fromarray(picture).save(folder / f"p{index}.png")
    return folder


@pytest.fixture(scope="module")
def bundle(paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "b"
    compile_verified(paths, "zcu104", out, verify=False)
    return out


def test_compile_compares_with_onnxruntime(
    paths: list[Path], network: IntegerNetwork, pictures: Path, tmp_path: Path
) -> None:
    text = compile_verified(paths, "zcu104", tmp_path / "b")
    assert f"verified: {values_of(network, 2):,} values of" in text
    assert "task semseg: " in text
    assert "scratch peak" in text
    text = compile_verified(paths[:1], "zcu104", tmp_path / "one", [pictures])
    assert "on 3 pictures equal onnxruntime's" in text
    assert "serve every task" not in text
    assert "not verified" in compile_verified(paths, "zcu104", tmp_path / "b", verify=False)


def test_a_packing_error_stops_the_compilation(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = weights.linear_block

    def wrong(weight: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, bits: int) -> bytes:
        return pack(-weight, bias, multiplier, bits)

    monkeypatch.setattr(weights, "linear_block", wrong)
    with pytest.raises(EdgeMoEError, match=r"differs from onnxruntime in .* of 'patch_embedding', first at"):
        compile_verified(paths, "zcu104", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_verification_counts_and_refuses(
    bundle: Path, paths: list[Path], network: IntegerNetwork, tmp_path: Path
) -> None:
    counts = verify_bundle(bundle, paths)
    assert (counts.tasks, counts.images, counts.values) == (2, 2, values_of(network, 2))
    with pytest.raises(EdgeMoEError, match="there are no images"):
        verify_bundle(bundle, paths, random_pictures(16, 32, 0))
    other = tmp_path / "other.onnx"
    other.write_bytes(build_path_model(random_network(small_config(depth=1)), "depth").SerializeToString())
    with pytest.raises(EdgeMoEError, match="is of another model than bundle"):
        verify_bundle(bundle, [other])
    same = tmp_path / "same.onnx"
    same.write_bytes(build_path_model(random_network(small_config(), seed=1), "depth").SerializeToString())
    with pytest.raises(EdgeMoEError, match="differs from onnxruntime"):
        verify_bundle(bundle, [same])


def test_run_draws_every_task(bundle: Path, network: IntegerNetwork, pictures: Path, tmp_path: Path) -> None:
    lines = list(run_bundle(bundle, [pictures], tmp_path, legend=False))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == sorted(f"p{i}.{task}.png" for i in range(3) for task in ("depth", "semseg"))
    assert sorted(lines[:6]) == sorted(str(tmp_path / name) for name in files)
    assert [line.split(" on golden: 3 frames")[0] for line in lines[6:]] == ["depth", "semseg"]
    drawn = np.asarray(Image.open(tmp_path / "p1.semseg.png"))
    image = read_pictures([pictures / "p1.png"], (16, 32))
    raw = run_network(network, image, "semseg").raw[0]
    classes = class_map(raw.reshape(4 * 2, 8 * 2, -1), (40, 60))
    palette = np.array([colour for _, colour in CLASSES["semseg"]], np.uint8)
    np.testing.assert_array_equal(drawn, palette[classes])
    assert len(list(run_bundle(bundle, [pictures / "p0.png"], tmp_path, ["depth"]))) == 2
    with pytest.raises(ImageError, match="does not exist"):
        list(run_bundle(bundle, [pictures / "none.png"], tmp_path))


def test_run_keeps_the_pictures_size_and_can_be_drawn_over_it(bundle: Path, tmp_path: Path) -> None:
    for folder, shade in (("a", 0), ("b", 200)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((50, 30, 3), shade, np.uint8)).save(tmp_path / folder / "same.png")
    sources = [tmp_path / "a" / "same.png", tmp_path / "b"]
    plain, over = tmp_path / "plain", tmp_path / "over"
    list(run_bundle(bundle, sources, plain, ["semseg"], legend=False))
    list(run_bundle(bundle, sources, over, ["semseg"], overlay=True, legend=False))
    assert sorted(path.name for path in plain.iterdir()) == ["b_same.semseg.png", "same.semseg.png"]
    drawn, mixed = (np.asarray(Image.open(folder / "b_same.semseg.png"), int) for folder in (plain, over))
    assert drawn.shape == (50, 30, 3)
    np.testing.assert_allclose(mixed, 0.6 * drawn + 0.4 * 200, atol=1.5)


def test_results_of_pictures_of_one_name_are_all_kept(bundle: Path, tmp_path: Path) -> None:
    for shade, folder in enumerate(("a", "b", "c", "d/b", "d/B")):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.full((5, 6, 3), 60 * shade, np.uint8)).save(tmp_path / folder / "1.5.png")
    sources = [*(tmp_path / folder / "1.5.png" for folder in ("a", "b", "c", "d/b")), tmp_path / "d" / "B"]
    lines = list(run_bundle(bundle, sources, tmp_path / "out", ["depth"]))[:-1]
    names = ["1.5.depth.png", "b_1.5.depth.png", "c_1.5.depth.png", "b_1.5_2.depth.png", "B_1.5_3.depth.png"]
    assert [Path(line).name for line in lines] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)


def test_a_result_has_a_legend_or_a_scale(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    draw = functools.partial(run_bundle, bundle, [pictures / "p0.png"])
    list(draw(tmp_path / "plain", legend=False))
    list(draw(tmp_path / "with"))
    for task in ("semseg", "depth"):
        plain, drawn = (np.asarray(Image.open(tmp_path / d / f"p0.{task}.png")) for d in ("plain", "with"))
        np.testing.assert_array_equal(drawn[: plain.shape[0], : plain.shape[1]], plain)
        below = drawn[plain.shape[0] :].reshape(-1, 3)
        assert (below == 255).mean() > 0.5
        if task == "semseg":
            occur = np.unique(plain.reshape(-1, 3), axis=0)
            assert {tuple(colour) for colour in occur} <= {tuple(colour) for colour in below}
        else:
            assert {tuple(colour) for colour in depth_colours(np.linspace(0, 1, 9))} <= set(map(tuple, below))


def test_a_video_gives_a_video_of_each_task(bundle: Path, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12, (64, 48))
    for picture in random_pictures(48, 64, 3):
        writer.write(picture)
    writer.release()
    list(run_bundle(bundle, [tmp_path / "clip.avi"], tmp_path / "out", overlay=True))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["clip.depth.mp4", "clip.semseg.mp4"]
    shown = list(frames(tmp_path / "out" / "clip.semseg.mp4"))
    assert (len(shown), shown[0].rate) == (3, 12)
    assert (shown[0].image[:48, :64] != shown[1].image[:48, :64]).mean() > 0.5
    assert np.abs(shown[0].image[60:].astype(int) - shown[2].image[60:]).mean() < 1  # one legend


def test_a_video_that_ends_in_an_error_keeps_its_frames(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(source: Path) -> Iterator[Frame]:
        yield from (Frame("x", picture, 5.0) for picture in random_pictures(48, 64, 2))
        raise ImageError("it is cut off.")

    monkeypatch.setattr(run, "frames", cut)
    with pytest.raises(ImageError, match="cut off"):
        list(run_bundle(bundle, [tmp_path / "clip.avi"], tmp_path / "out", ["depth"]))
    assert len(list(frames(tmp_path / "out" / "clip.depth.mp4"))) == 2


def test_every_source_is_looked_at_before_the_first_is_run(
    bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=r"'.*none.png' does not exist"):
        list(run_bundle(bundle, [pictures, tmp_path / "none.png"], tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_estimates_and_inspection(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    even = estimate_bundle(bundle)
    assert even.count("experts evenly used") == 2
    measured = estimate_bundle(bundle, ["depth"], [pictures], tmp_path / "plot.svg")
    assert "experts as measured on 3 pictures" in measured
    assert "semseg" not in measured
    assert (tmp_path / "plot.svg").is_file()
    assert "task depth" in inspect_bundle(bundle)
    with pytest.raises(EdgeMoEError, match="unknown accelerator"):
        compile_verified([], "zcu999", tmp_path / "b")


def test_pictures_are_brought_to_the_size_that_is_asked_for(pictures: Path) -> None:
    assert read_pictures([pictures], (16, 32)).shape == (3, 16, 32, 3)
    with pytest.raises(EdgeMoEError, match="there are no pictures"):
        read_pictures([], (16, 32))


def test_the_compiler_needs_no_torch() -> None:
    code = (
        "import sys, edge_moe.commands.run, edge_moe.compiler.verify, edge_moe.estimate.roofline\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
