# SPDX-License-Identifier: Apache-2.0
"""Rendered scenes: determinism, exact and consistent labels, the data set and its cache."""

import errno
import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_moe.scenes import ALL_TASKS, FAR, RENDERER_VERSION, ScenesDataset, render_scene
from edge_moe.scenes.geometry import Fixed
from edge_moe.scenes.labels import CLASSES, PART, class_palette, class_table, human_table
from edge_moe.scenes.render import Composition, compose, streams
from edge_moe.tasks import TASKS
from edge_moe_host.errors import EdgeMoEError

SIZE = (64, 128)
SEED = 3


def digest(sample: dict[str, np.ndarray]) -> str:
    text = hashlib.sha256()
    for name in sorted(sample):
        text.update(name.encode() + sample[name].tobytes())
    return text.hexdigest()


def composition(index: int, size: tuple[int, int] = SIZE) -> Composition:
    return compose(streams(SEED, index)[0], size)


def camera_points(view_size: tuple[int, int], scene: Composition, depth: np.ndarray) -> np.ndarray:
    """Points in camera coordinates, H x W x 3, from a pinhole model written independently."""
    height, width = view_size
    focal = scene.view.camera.focal * np.sqrt(height * width / 2)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.dstack(
        [(x - (width - 1) / 2) / focal, (y - (height - 1) / 2) / focal, np.ones((height, width))]
    )
    return rays * depth[..., None]


# Determinism


def test_same_arguments_give_the_same_bytes_whatever_came_before() -> None:
    first = [digest(render_scene(SEED, i, SIZE)) for i in range(4)]
    again = [digest(render_scene(SEED, i, SIZE)) for i in (3, 1, 0, 2)]
    assert again == [first[3], first[1], first[0], first[2]]
    assert len(set(first)) == 4


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib; from edge_moe.scenes import render_scene\n"
        f"s = render_scene({SEED}, 7, {SIZE}); h = hashlib.sha256()\n"
        "for n in sorted(s): h.update(n.encode() + s[n].tobytes())\n"
        "print(h.hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(render_scene(SEED, 7, SIZE))


def test_seed_and_index_change_the_scene_and_the_tasks_do_not() -> None:
    base = render_scene(SEED, 0, SIZE)
    assert digest(render_scene(SEED + 1, 0, SIZE)) != digest(base)
    only = render_scene(SEED, 0, SIZE, {"depth": 1})
    assert set(only) == {"image", "depth"}
    np.testing.assert_array_equal(only["image"], base["image"])
    np.testing.assert_array_equal(only["depth"], base["depth"])


def test_size_only_changes_the_sampling() -> None:
    agreed = []
    for index in range(6):
        small = render_scene(SEED, index, (48, 96), {"semseg": 7})["semseg"]
        large = render_scene(SEED, index, (144, 288), {"semseg": 7})["semseg"]
        # With three times the pixels, the middle one of each 3 x 3 looks along the small one's ray.
        agreed.append((small == large[1::3, 1::3]).mean())
    assert min(agreed) > 0.95


# Labels


@pytest.mark.parametrize("size", [(16, 16), (17, 45), (128, 256), (90, 50)])
def test_every_label_has_its_shape_type_and_range(size: tuple[int, int]) -> None:
    for index in range(3):
        sample = render_scene(SEED, index, size)
        assert set(sample) == {"image", *ALL_TASKS}
        for name, array in sample.items():
            channels = (3,) if name in ("image", "normals") else ()
            assert array.shape == (*size, *channels), name
            assert array.dtype == (np.float32 if name in ("depth", "normals") else np.uint8), name
            assert array.flags.c_contiguous, name
        assert sample["semseg"].max() < 7
        assert sample["human_parts"].max() < 7
        assert sample["edge"].max() <= 1
        assert sample["saliency"].max() <= 1
        depth = sample["depth"]
        assert np.isfinite(depth).all()
        assert depth.min() >= 0
        assert depth.max() <= FAR * (1 + 1e-6)
        length = np.linalg.norm(sample["normals"], axis=2)
        sky = sample["semseg"] == class_table(7)[PART["sky"]]
        assert (length[sky] == 0).all()
        np.testing.assert_allclose(length[~sky], 1, atol=1e-5)
        assert (depth[sky] == 0).all()


def test_many_scenes_show_every_class_that_can_occur() -> None:
    seen = np.zeros(40, np.int64)
    parts = np.zeros(7, np.int64)
    salient = []
    for index in range(120):
        sample = render_scene(SEED, index, (48, 96), {"semseg": 40, "human_parts": 7, "saliency": 1})
        seen += np.bincount(sample["semseg"].ravel(), minlength=40)
        parts += np.bincount(sample["human_parts"].ravel(), minlength=7)
        salient.append(sample["saliency"].mean())
    assert (seen > 0).all(), [name for name, n in zip(CLASSES[40], seen, strict=True) if n == 0]
    assert (parts > 0).all()
    assert 0.02 < np.mean(salient) < 0.3


def test_class_sets_agree_with_each_other() -> None:
    coarse = class_table(7)
    for channels in CLASSES:
        table = class_table(channels)
        assert table.max() < channels
        assert len(CLASSES[channels]) == channels
        assert class_palette(channels).shape == (channels, 3)
        assert len(np.unique(class_palette(channels), axis=0)) == channels
        for group in range(7) if channels in (19, 40) else ():
            # A fine class never spans two of the seven groups.
            inside, outside = set(table[coarse == group]), set(table[coarse != group])
            assert not inside & outside, (channels, group)
    human = CLASSES[7].index("human")
    np.testing.assert_array_equal(human_table() > 0, coarse == human)


def test_image_statistics_are_those_of_photographs() -> None:
    means, deviations = [], []
    for index in range(20):
        image = render_scene(SEED, index, SIZE, {})["image"]
        means.append(image.mean())
        deviations.append(image.std())
    assert 70 < np.mean(means) < 150
    assert min(deviations) > 15


# Geometry


@pytest.mark.parametrize("index", range(6))
def test_ground_depth_and_normal_are_analytic(index: int) -> None:
    c = composition(index)
    sample = render_scene(SEED, index, SIZE)
    up = c.view.camera.rotation[:, 1].astype(np.float64)  # world up in camera coordinates
    points = camera_points(SIZE, c, np.ones(SIZE))
    for surface, level in ((Fixed.ROAD, 0.0), (Fixed.PAVEMENT, c.scene.street.kerb)):
        here = (c.buffers.surface == surface) & (sample["depth"] > 0)
        if surface == Fixed.ROAD:
            assert here.sum() > 100
        expected = -(c.view.camera.position[1] - level) / (points[here] @ up)
        np.testing.assert_allclose(sample["depth"][here], expected, rtol=1e-3)
        np.testing.assert_allclose(sample["normals"][here], np.broadcast_to(up, (here.sum(), 3)), atol=1e-5)


def test_planar_faces_hold_their_points_and_normals() -> None:
    compared = 0
    for index in range(8):
        c = composition(index)
        sample = render_scene(SEED, index, SIZE)
        points = camera_points(SIZE, c, sample["depth"].astype(np.float64))
        quads = c.scene.all_quads()
        assert quads is not None
        corners = c.view.to_camera(quads.corners)
        for surface, face in zip(quads.surface, corners, strict=True):
            here = (c.buffers.surface == surface) & (sample["depth"] > 0)
            if here.sum() < 12:
                continue
            normal = np.cross(face[2] - face[0], face[3] - face[1])
            normal /= np.linalg.norm(normal)
            alignment = sample["normals"][here] @ normal
            np.testing.assert_allclose(np.abs(alignment), 1, atol=1e-4)
            away = np.abs((points[here] - face[0]) @ normal)
            assert np.quantile(away, 0.9) < 1e-3 * sample["depth"][here].max()
            compared += int(here.sum())
    assert compared > 10000


def test_visible_surfaces_face_the_camera() -> None:
    for index in range(4):
        c = composition(index)
        sample = render_scene(SEED, index, SIZE)
        towards = (sample["normals"] * camera_points(SIZE, c, np.ones(SIZE))).sum(axis=2)
        planar = ~c.buffers.curved[c.buffers.surface]
        assert (towards[planar] < 1e-4).all()
        assert (towards < 0.1).mean() > 0.98


def test_each_planar_surface_belongs_to_one_face() -> None:
    for index in range(10):
        scene = composition(index, (16, 16)).scene
        quads = scene.all_quads()
        assert quads is not None
        surfaces = np.concatenate([quads.surface, *(d.surface for d in scene.discs)])
        assert len(np.unique(surfaces)) == len(surfaces)


def test_edges_separate_objects() -> None:
    for index in range(4):
        c = composition(index)
        sample = render_scene(SEED, index, SIZE)
        edge, classes, surface = sample["edge"] == 1, sample["semseg"], c.buffers.surface
        across = np.zeros(SIZE, np.bool_)
        across[:, :-1] |= classes[:, :-1] != classes[:, 1:]
        across[:-1] |= classes[:-1] != classes[1:]
        assert edge[across].all()
        changes = np.zeros(SIZE, np.bool_)
        changes[:, :-1] |= surface[:, :-1] != surface[:, 1:]
        changes[:-1] |= surface[:-1] != surface[1:]
        assert changes[edge].all()
        assert 0.02 < edge.mean() < 0.5


def test_salient_are_whole_visible_people_or_vehicles() -> None:
    seen = 0
    for index in range(10):
        c = composition(index)
        sample = render_scene(SEED, index, SIZE)
        instance = np.array(c.scene.owner)[c.buffers.surface]
        chosen = np.unique(instance[sample["saliency"] == 1])
        assert len(chosen) <= 3
        seen += len(chosen)
        assert set(chosen) <= set(c.scene.foreground)
        for number in chosen:
            assert (sample["saliency"][instance == number] == 1).all()
            assert (instance == number).mean() >= 0.004
        assert (sample["semseg"][sample["saliency"] == 1] >= 5).all()
    assert seen >= 10


def test_human_parts_are_on_humans() -> None:
    human, seen = CLASSES[7].index("human"), 0
    for index in range(4):
        sample = render_scene(SEED, index, SIZE)
        np.testing.assert_array_equal(sample["human_parts"] > 0, sample["semseg"] == human)
        seen += (sample["human_parts"] > 0).any()
    assert seen >= 2


# Data set


def test_dataset_delivers_only_what_was_asked_for() -> None:
    data = ScenesDataset("train", {"semseg": 19, "depth": 1}, SIZE, 5, seed=SEED)
    assert len(data) == 5
    assert set(data[0]) == {"image", "semseg", "depth"}
    assert data.tasks == {"semseg": 19, "depth": 1}
    assert data.class_names["semseg"][13] == "car"
    assert data.palette["semseg"].shape == (19, 3)
    assert len({data.image_id(i) for i in range(5)}) == 5
    assert digest(data[-1]) == digest(data[4])
    with pytest.raises(IndexError):
        data[5]


def test_train_and_val_are_disjoint() -> None:
    train = ScenesDataset("train", {}, (16, 32), 40, seed=SEED)
    val = ScenesDataset("val", {}, (16, 32), 40, seed=SEED)
    ours = {digest(train[i]) for i in range(40)}
    theirs = {digest(val[i]) for i in range(40)}
    assert len(ours) == len(theirs) == 40
    assert not ours & theirs


def cached(folder: Path) -> ScenesDataset:
    return ScenesDataset("train", {"semseg": 7, "depth": 1}, (24, 40), 3, seed=SEED, cache=folder)


def test_cache_returns_the_rendered_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest(cached(tmp_path)[1])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.suffix for path in files] == [".npz"]
    assert f"v{RENDERER_VERSION}" in files[0].parent.name
    monkeypatch.setattr("edge_moe.scenes.dataset.render_scene", lambda *_: pytest.fail("rendered anew"))
    assert digest(cached(tmp_path)[1]) == first


def test_cache_keys_tell_settings_apart(tmp_path: Path) -> None:
    cached(tmp_path)[0]
    other = ScenesDataset("val", {"semseg": 7, "depth": 1}, (24, 40), 3, seed=SEED, cache=tmp_path)
    finer = ScenesDataset("train", {"semseg": 19, "depth": 1}, (24, 40), 3, seed=SEED, cache=tmp_path)
    assert digest(other[0]) != digest(cached(tmp_path)[0])
    assert finer[0]["semseg"].max() > 6
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_damaged_cache_file_is_rendered_anew(tmp_path: Path, damage: str) -> None:
    good = digest(cached(tmp_path)[2])
    path = next(tmp_path.rglob("*.npz"))
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "noise": b"\x00" * 500}[damage])
    assert digest(cached(tmp_path)[2]) == good
    assert path.read_bytes() == content


def test_full_disk_renders_on_and_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = [
        digest(ScenesDataset("train", {"semseg": 7, "depth": 1}, (24, 40), 3, SEED)[i]) for i in range(3)
    ]
    monkeypatch.setattr(np, "savez", full)
    data = cached(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [digest(data[i]) for i in range(3)] == expected
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# Wrong input


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({"semseg": 13}, ["13 classes", "7, 19, 21, 40"]),
        ({"flow": 2}, ["'flow'", "semseg"]),
        ({"human_parts": 5}, ["human_parts", "7 channel"]),
        ({"depth": 2}, ["depth", "1 channel"]),
    ],
)
def test_unknown_tasks_and_channels_are_named(tasks: dict[str, int], words: list[str]) -> None:
    with pytest.raises(EdgeMoEError) as error:
        ScenesDataset("train", tasks, SIZE, 3)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_other_wrong_arguments_are_named() -> None:
    with pytest.raises(EdgeMoEError, match="split 'test'"):
        ScenesDataset("test", {}, SIZE, 3)  # type: ignore[arg-type]
    with pytest.raises(EdgeMoEError, match="15x64"):
        ScenesDataset("train", {}, (15, 64), 3)
    with pytest.raises(EdgeMoEError, match="seed -1"):
        ScenesDataset("train", {}, SIZE, 3, seed=-1)
    with pytest.raises(EdgeMoEError, match="-2 images"):
        ScenesDataset("train", {}, SIZE, -2)
    with pytest.raises(EdgeMoEError, match="index -1"):
        render_scene(SEED, -1, SIZE)


def test_all_tasks_of_the_project_are_covered() -> None:
    assert set(ALL_TASKS) == set(TASKS)
