# SPDX-License-Identifier: Apache-2.0
"""PASCAL-Context in PASCAL_MT: every task, merging of parts, ignored pixels, wrong input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from edge_moe.data import open_dataset
from edge_moe.data.base import TaskDataset
from edge_moe.data.pascal import PART_INDEX, class_boundaries
from edge_moe.testing.trees import (
    colors,
    cut_short,
    pascal_parts,
    save_jpg,
    save_mat,
    save_palette_png,
    save_png,
    save_text,
)
from edge_moe_host.errors import EdgeMoEError

SIZE = (6, 8)
TASKS = {"semseg": 21, "human_parts": 7, "saliency": 1, "normals": 3, "edge": 1}
SKY, PERSON = 360, 284  # PASCAL-Context classes; NYUD-v2 knows persons but no sky
TORSO, HAND = np.s_[2:5, 2:4], np.s_[4:6, 3:5]


def mask(*regions: Any) -> np.ndarray:
    """uint8 mask of SIZE with ones in the regions."""
    result = np.zeros(SIZE, dtype=np.uint8)
    for region in regions:
        result[region] = 1
    return result


def semantic() -> np.ndarray:
    labels = np.zeros(SIZE, dtype=np.uint8)
    labels[2:5, 2:5] = 15
    labels[1, 2:5] = 255
    labels[0, 0] = 20
    return labels


def context() -> np.ndarray:
    """Sky on the left half, a person on the right."""
    labels = np.full(SIZE, SKY, dtype=np.uint16)
    labels[:, 4:] = PERSON
    return labels


def make_tree(root: Path) -> Path:
    """Two training pictures, of which only the first shows a person, and one for validation."""
    dog = {"class_ind": 12, "mask": mask(np.s_[0:2, 6:8]), "parts": {"head": mask(np.s_[0:1, 6:8])}}
    person = {
        "class_ind": 15,
        "mask": mask(TORSO, HAND),
        "parts": {"torso": mask(TORSO), "lhand": mask(HAND)},
    }
    bare_person = {"class_ind": 15, "mask": mask(np.s_[0:1, 0:1]), "parts": {}}
    objects = {
        "2008_000008": [dog, bare_person, person],
        "2008_000015": [dog, bare_person],
        "2008_000002": [],
    }
    normals = np.zeros((*SIZE, 3), dtype=np.uint8)
    normals[:] = (128, 128, 0)  # facing the camera: 255 * ((0, 0, -1) + 1) / 2
    normals[0] = (255, 128, 128)
    saliency = np.zeros(SIZE, dtype=np.uint8)
    saliency[0, :4] = [127, 128, 255, 1]
    for identifier, items in objects.items():
        save_jpg(root / f"JPEGImages/{identifier}.jpg", colors(SIZE))
        source = "pascal-context" if identifier == "2008_000015" else "VOC12"
        save_palette_png(root / f"semseg/{source}/{identifier}.png", semantic())
        pascal_parts(root / f"human_parts/{identifier}.mat", items)
        save_png(root / f"sal_distill/{identifier}.png", saliency)
        save_png(root / f"normals_distill/{identifier}.png", normals)
        save_mat(root / f"pascal-context/trainval/{identifier}.mat", {"LabelMap": context()})
    save_text(root / "ImageSets/Context/train.txt", "2008_000008\n2008_000015\n")
    save_text(root / "ImageSets/Context/val.txt", "2008_000002\n")
    return root


def open_split(root: Path, tasks: dict[str, int] = TASKS, split: str = "train") -> TaskDataset:
    return open_dataset(f"pascal:{root}", split, tasks, (512, 512), 1, 1)


def test_every_task(tmp_path: Path) -> None:
    data = open_split(make_tree(tmp_path))
    sample = data[0]
    assert set(sample) == {"image", *TASKS}
    assert all(array.flags["C_CONTIGUOUS"] for array in sample.values())
    for task in ("semseg", "human_parts", "saliency", "edge"):
        assert sample[task].dtype == np.uint8
    np.testing.assert_array_equal(sample["semseg"], semantic())

    parts = np.zeros(SIZE, dtype=np.uint8)
    parts[TORSO] = 2
    parts[HAND] = 4  # listed later, so it covers the torso; the dog's head is no human part
    np.testing.assert_array_equal(sample["human_parts"], parts)

    saliency = np.zeros(SIZE, dtype=np.uint8)
    saliency[0, 1:3] = 1  # above one half: 128 and 255
    np.testing.assert_array_equal(sample["saliency"], saliency)

    normals = sample["normals"]
    assert normals.dtype == np.float32
    assert (normals[:, :4] == 0).all()  # sky
    np.testing.assert_allclose(normals[1:, 4:], np.broadcast_to([0, 0, -1], (5, 4, 3)), atol=0.01)
    np.testing.assert_allclose(normals[0, 4:], np.broadcast_to([1, 0, 0], (4, 3)), atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(normals[:, 4:], axis=-1), 1, rtol=1e-6)

    # One vertical boundary, between columns 3 and 4, thinned to one pixel per row; thinning may
    # take a pixel off a line's end.
    edge = np.zeros(SIZE, dtype=np.uint8)
    edge[1:, 3] = 1
    np.testing.assert_array_equal(sample["edge"][1:], edge[1:])
    assert sample["edge"][0].sum() <= 1


def test_names_and_colours(tmp_path: Path) -> None:
    data = open_split(make_tree(tmp_path))
    assert data.class_names["semseg"][15] == "person"
    assert data.class_names["human_parts"] == (
        "background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg",
    )  # fmt: skip
    assert set(data.class_names) == set(data.palette) == {"semseg", "human_parts"}
    # The colours of PASCAL VOC: aeroplane dark red, person (192, 128, 128).
    np.testing.assert_array_equal(
        data.palette["semseg"][[0, 1, 15]], [[0, 0, 0], [128, 0, 0], [192, 128, 128]]
    )


def test_semseg_falls_back_to_the_context_folder(tmp_path: Path) -> None:
    data = open_split(make_tree(tmp_path), {"semseg": 21})
    assert not (tmp_path / "semseg/VOC12/2008_000015.png").exists()
    np.testing.assert_array_equal(data[1]["semseg"], semantic())


@pytest.mark.parametrize(("split", "index"), [("train", 1), ("val", 0)])
def test_picture_without_person_parts_is_ignored(tmp_path: Path, split: str, index: int) -> None:
    parts = open_split(make_tree(tmp_path), {"human_parts": 7}, split)[index]["human_parts"]
    np.testing.assert_array_equal(parts, np.full(SIZE, 255))


def test_all_parts_of_a_person_have_a_group() -> None:
    groups = {
        1: "head hair mouth nose lear rear leye reye lebrow rebrow",
        2: "torso neck",
        3: "luarm ruarm",
        4: "llarm rlarm lhand rhand",
        5: "luleg ruleg",
        6: "llleg rlleg lfoot rfoot",
    }
    assert {part: index for index, names in groups.items() for part in names.split()} == PART_INDEX
    assert len(PART_INDEX) == 24


def test_boundaries_are_thin_and_of_every_class_change() -> None:
    labels = np.zeros((11, 11), dtype=np.int32)
    assert class_boundaries(labels).sum() == 0
    labels[2:9, 2:9] = 7
    edge = class_boundaries(labels)
    assert edge.dtype == np.uint8
    regions, count = scipy.ndimage.label(edge == 0)  # 4-connected, so a ring in 8 directions separates
    assert count == 2
    assert regions[0, 0] != regions[5, 5]
    blocks = edge[1:, 1:] + edge[:-1, 1:] + edge[1:, :-1] + edge[:-1, :-1]
    assert blocks.max() < 4  # nowhere two pixels wide
    # A ramp has opposite differences left and right, which a Laplacian would miss.
    assert class_boundaries(np.tile([0, 5, 10], (4, 1))).sum() > 0


def test_splits_and_folder_that_contains_the_archive(tmp_path: Path) -> None:
    make_tree(tmp_path / "PASCAL_MT")
    train, val = open_split(tmp_path), open_split(tmp_path, split="val")
    assert [train.image_id(i) for i in range(len(train))] == ["2008_000008", "2008_000015"]
    assert [val.image_id(i) for i in range(len(val))] == ["2008_000002"]


def test_other_layout_and_missing_task(tmp_path: Path) -> None:
    (tmp_path / "VOCdevkit").mkdir()
    with pytest.raises(EdgeMoEError, match=r"known is the PASCAL_MT archive \(ImageSets/.*found VOCdevkit/"):
        open_split(tmp_path)
    with pytest.raises(EdgeMoEError, match=r"'pascal' has no labels for task 'depth'"):
        open_split(tmp_path, {"depth": 1})
    with pytest.raises(EdgeMoEError, match=r"'human_parts' has 15 channels .* with 7\."):
        open_split(tmp_path, {"human_parts": 15})


@pytest.mark.parametrize(
    ("task", "folder"),
    [
        ("semseg", "semseg/VOC12"),
        ("human_parts", "human_parts"),
        ("saliency", "sal_distill"),
        ("normals", "normals_distill"),
        ("edge", "pascal-context/trainval"),
    ],
)
def test_absent_label_is_named(tmp_path: Path, task: str, folder: str) -> None:
    make_tree(tmp_path)
    next((tmp_path / folder).glob("2008_000008.*")).unlink()
    with pytest.raises(EdgeMoEError, match=rf"{task} label '.*{folder}/2008_000008\.\w+' .* does not exist"):
        open_split(tmp_path)


@pytest.mark.parametrize("task", ["semseg", "human_parts", "saliency", "normals", "edge"])
def test_label_of_another_size(tmp_path: Path, task: str) -> None:
    make_tree(tmp_path)
    save_jpg(tmp_path / "JPEGImages/2008_000008.jpg", colors((6, 9)))
    with pytest.raises(EdgeMoEError, match=r"2008_000008.*(6 x 9|\(6, 9\))"):
        open_split(tmp_path, {task: TASKS[task]})[0]


def test_normals_and_context_of_different_sizes(tmp_path: Path) -> None:
    make_tree(tmp_path)
    save_mat(tmp_path / "pascal-context/trainval/2008_000008.mat", {"LabelMap": np.zeros((3, 3))})
    with pytest.raises(EdgeMoEError, match=r"trainval/2008_000008\.mat' has \(3, 3\) pixels"):
        open_split(tmp_path, {"normals": 3})[0]


def test_unknown_ids_parts_and_structures(tmp_path: Path) -> None:
    make_tree(tmp_path)
    save_palette_png(tmp_path / "semseg/VOC12/2008_000008.png", np.full(SIZE, 21, dtype=np.uint8))
    with pytest.raises(
        EdgeMoEError, match=r"2008_000008\.png' has unknown ids 21: allowed are 0 to 20, 255\."
    ):
        open_split(tmp_path, {"semseg": 21})[0]
    path = tmp_path / "human_parts/2008_000008.mat"
    pascal_parts(path, [{"class_ind": 15, "mask": mask(), "parts": {"wing": mask()}}])
    with pytest.raises(EdgeMoEError, match=r"2008_000008\.mat' has the unknown human part 'wing'"):
        open_split(tmp_path, {"human_parts": 7})[0]
    save_mat(path, {"anno": np.eye(3)})
    with pytest.raises(EdgeMoEError, match=r"2008_000008\.mat' is not structured as PASCAL-Part"):
        open_split(tmp_path, {"human_parts": 7})[0]
    save_mat(path, {"other": np.eye(3)})
    with pytest.raises(EdgeMoEError, match=r"2008_000008\.mat' has no variable 'anno': it has other"):
        open_split(tmp_path, {"human_parts": 7})[0]


def test_damaged_files(tmp_path: Path) -> None:
    make_tree(tmp_path)
    for folder, task in (
        ("JPEGImages", "semseg"),
        ("sal_distill", "saliency"),
        ("human_parts", "human_parts"),
    ):
        path = cut_short(next((tmp_path / folder).glob("2008_000015.*")))
        with pytest.raises(EdgeMoEError, match=rf"{folder}/{path.name}' is (damaged|not a picture)"):
            open_split(tmp_path, {task: TASKS[task]})[1]
        save_jpg(tmp_path / "JPEGImages/2008_000015.jpg", colors(SIZE))


# Files as people have them


@pytest.mark.parametrize(
    ("marks", "seen"),
    [
        ([0, 1], [0, 1]),
        ([0, 1, 255], [0, 1, 255]),
        ([1, 255], [1, 255]),
        ([0, 255], [0, 1]),
        ([255], [1]),
        ([0], [0]),
        ([0, 3, 20, 90], [0, 0, 0, 0]),
        ([0, 3, 127, 128], [0, 0, 0, 1]),
    ],
)
def test_every_usual_mask(tmp_path: Path, marks: list[int], seen: list[int]) -> None:
    make_tree(tmp_path)
    stored = np.resize(np.array(marks, np.uint8), SIZE)
    path = tmp_path / "sal_distill/2008_000008.png"
    for form in (stored, np.stack([stored] * 3, axis=2)):
        save_png(path, form)
        label = open_split(tmp_path, {"saliency": 1})[0]["saliency"]
        np.testing.assert_array_equal(label, np.resize(seen, SIZE))
    save_palette_png(path, stored)
    np.testing.assert_array_equal(open_split(tmp_path, {"saliency": 1})[0]["saliency"], label)
    if set(marks) <= {0, 1}:
        Image.fromarray(stored > 0).save(path)
        np.testing.assert_array_equal(open_split(tmp_path, {"saliency": 1})[0]["saliency"], label)


def test_a_mask_of_16_bits(tmp_path: Path) -> None:
    make_tree(tmp_path)
    save_png(tmp_path / "sal_distill/2008_000008.png", np.resize(np.array([0, 300, 65535], np.uint16), SIZE))
    label = open_split(tmp_path, {"saliency": 1})[0]["saliency"]
    np.testing.assert_array_equal(label, np.resize([0, 0, 1], SIZE))


@pytest.mark.parametrize(("marks", "shown"), [([0, 1, 2], "0, 1, 2"), ([0, 38], "0, 38"), ([7], "7")])
def test_ids_are_no_mask(tmp_path: Path, marks: list[int], shown: str) -> None:
    make_tree(tmp_path)
    save_png(tmp_path / "sal_distill/2008_000008.png", np.resize(np.array(marks, np.uint8), SIZE))
    with pytest.raises(EdgeMoEError, match=rf"mask '.*2008_000008\.png' has the values {shown}: 0 and 1"):
        open_split(tmp_path, {"saliency": 1})[0]


def test_a_mask_with_colours(tmp_path: Path) -> None:
    make_tree(tmp_path)
    save_png(tmp_path / "sal_distill/2008_000008.png", colors(SIZE))
    with pytest.raises(EdgeMoEError, match="is a picture with colours: one channel, or greys"):
        open_split(tmp_path, {"saliency": 1})[0]


@pytest.mark.parametrize("task", ["edge", "normals"])
@pytest.mark.parametrize("shape", [(6, 8, 2), (2, 6, 8, 2)])
def test_a_label_map_of_other_dimensions(tmp_path: Path, task: str, shape: tuple[int, ...]) -> None:
    make_tree(tmp_path)
    save_mat(tmp_path / "pascal-context/trainval/2008_000008.mat", {"LabelMap": np.zeros(shape)})
    with pytest.raises(EdgeMoEError, match=r"'LabelMap' of .* has shape .*, but one value per pixel"):
        open_split(tmp_path, {task: TASKS[task]})[0]
