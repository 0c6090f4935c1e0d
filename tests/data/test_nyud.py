# SPDX-License-Identifier: Apache-2.0
"""NYUD-v2 in NYUD_MT: variants of the archive, label encodings, ignored pixels, wrong input."""

from pathlib import Path

import numpy as np
import pytest

from edge_moe.data import open_dataset
from edge_moe.data.base import TaskDataset
from edge_moe.testing.trees import colors, cut_short, save_jpg, save_mat, save_npy, save_png, save_text
from edge_moe_host.errors import EdgeMoEError

SIZE = (2, 4)
TASKS = {"semseg": 40, "depth": 1, "normals": 3, "edge": 1}
SEGMENTATION = np.array([[0, 1, 2, 40], [40, 3, 0, 1]], dtype=np.uint8)
CLASSES_40 = [[255, 0, 1, 39], [39, 2, 255, 0]]
DEPTH = np.array([[0, 1.5, 9.9, np.nan], [2, 3, -1, np.inf]], dtype=np.float32)
METRES = np.array([[0, 1.5, 9.9, 0], [2, 3, 0, 0]], dtype=np.float32)
EDGE = np.array([[0, 1, 0, 0], [0, 0, 1, 0]], dtype=np.uint8)
NORMALS = np.zeros((2, 4, 3), dtype=np.float32)
NORMALS[0, 0] = (0, 0, -1)
NORMALS[0, 1] = (0.6, 0, 0.8)
NORMALS[1, 2] = (0, -1, 0)
# 255 * (n + 1) / 2 of the same vectors; grey where there is none.
PIXELS = np.rint(255 * (NORMALS + 1) / 2).astype(np.uint8)


def make_tree(root: Path, variant: str = "npy") -> Path:
    """Two training pictures and one for validation, in one of three variants of the archive."""
    for index, identifier in enumerate(("0001", "0007", "0002")):
        segmentation = np.roll(SEGMENTATION, index, axis=0)
        if variant == "npy":  # the archive that M3ViT downloads
            save_jpg(root / f"images/{identifier}.jpg", colors(SIZE))
            save_png(root / f"segmentation/{identifier}.png", segmentation)
            save_npy(root / f"depth/{identifier}.npy", DEPTH)
            save_npy(root / f"normals/{identifier}.npy", NORMALS)
            save_npy(root / f"edge/{identifier}.npy", EDGE.astype(np.float32))
        elif variant == "mat":  # the first issue
            save_jpg(root / f"images/{identifier}.jpg", colors(SIZE))
            save_mat(root / f"segmentation/{identifier}.mat", {"segmentation": segmentation.astype(float)})
            save_mat(root / f"depth/{identifier}.mat", {"depth": DEPTH})
            save_jpg(root / f"normals/{identifier}.jpg", PIXELS)
            save_png(root / f"edge/{identifier}.png", EDGE * 255)
        else:  # pictures throughout
            save_png(root / f"images/{identifier}.png", colors(SIZE))
            save_png(root / f"segmentation/{identifier}.png", segmentation)
            save_npy(root / f"depth/{identifier}.npy", DEPTH[..., None].astype(np.float64))
            save_png(root / f"normals/{identifier}.png", PIXELS)
            save_png(root / f"edge/{identifier}.png", EDGE * 255)
    save_text(root / "gt_sets/train.txt", "0001\n0007\n\n")
    save_text(root / "gt_sets/val.txt", "0002\n")
    return root


def open_split(root: Path, tasks: dict[str, int] = TASKS, split: str = "train") -> TaskDataset:
    return open_dataset(f"nyud:{root}", split, tasks, (480, 640), 1, 1)


@pytest.mark.parametrize("variant", ["npy", "mat", "png"])
def test_every_task_in_every_variant(tmp_path: Path, variant: str) -> None:
    data = open_split(make_tree(tmp_path, variant))
    assert data.depth_kind == "metric"
    sample = data[0]
    assert set(sample) == {"image", *TASKS}
    assert {key: array.dtype.name for key, array in sample.items()} == {
        "image": "uint8", "semseg": "uint8", "depth": "float32", "normals": "float32", "edge": "uint8",
    }  # fmt: skip
    assert all(array.flags["C_CONTIGUOUS"] for array in sample.values())
    np.testing.assert_array_equal(sample["semseg"], CLASSES_40)
    np.testing.assert_array_equal(sample["depth"], METRES)
    np.testing.assert_array_equal(sample["edge"], EDGE)
    if variant != "mat":  # JPEG changes 2 x 4 random pixels far too much to compare
        np.testing.assert_allclose(sample["normals"], NORMALS, atol=0 if variant == "npy" else 0.01)
        lengths = np.linalg.norm(sample["normals"], axis=-1)
        np.testing.assert_allclose(lengths[lengths > 0], 1, rtol=1e-6)
        assert (lengths == 0).sum() == 5


def test_normals_in_jpeg_have_unit_length_and_grey_is_ignored(tmp_path: Path) -> None:
    make_tree(tmp_path, "mat")
    pixels = np.full((16, 16, 3), 128, dtype=np.uint8)
    pixels[:, 8:] = (128, 128, 0)
    save_jpg(tmp_path / "images/0001.jpg", colors((16, 16)))
    save_jpg(tmp_path / "normals/0001.jpg", pixels)
    normals = open_split(tmp_path, {"normals": 3})[0]["normals"]
    assert (normals[:, :8] == 0).all()
    np.testing.assert_allclose(normals[:, 8:], np.broadcast_to([0, 0, -1], (16, 8, 3)), atol=0.02)


def test_splits(tmp_path: Path) -> None:
    make_tree(tmp_path)
    train, val = open_split(tmp_path), open_split(tmp_path, split="val")
    assert [train.image_id(i) for i in range(len(train))] == ["0001", "0007"]
    assert [val.image_id(i) for i in range(len(val))] == ["0002"]
    np.testing.assert_array_equal(train[1]["semseg"], CLASSES_40[::-1])


def test_41_classes_keep_unlabelled_as_a_class(tmp_path: Path) -> None:
    data = open_split(make_tree(tmp_path), {"semseg": 41})
    np.testing.assert_array_equal(data[0]["semseg"], SEGMENTATION)
    names = data.class_names["semseg"]
    assert (names[0], names[1], names[40]) == ("unlabelled", "wall", "other prop")
    names_40 = open_split(tmp_path, {"semseg": 40}).class_names["semseg"]
    assert names_40 == names[1:]
    np.testing.assert_array_equal(
        data.palette["semseg"][1:], open_split(tmp_path, {"semseg": 40}).palette["semseg"]
    )
    assert len({tuple(color) for color in data.palette["semseg"]}) == 41


def test_folder_that_contains_the_archive(tmp_path: Path) -> None:
    make_tree(tmp_path / "NYUD_MT")
    assert len(open_split(tmp_path)) == 2


def test_only_wanted_labels_need_to_exist(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "edge/0007.npy").unlink()
    assert set(open_split(tmp_path, {"depth": 1})[1]) == {"image", "depth"}
    with pytest.raises(
        EdgeMoEError, match=r"edge label '.*0007\.npy' of the train split of 'nyud' does not exist"
    ):
        open_split(tmp_path)


def test_other_layout_and_missing_task(tmp_path: Path) -> None:
    save_text(tmp_path / "splits.mat", "")
    with pytest.raises(EdgeMoEError, match=r"known is the NYUD_MT archive \(gt_sets/.*found splits\.mat"):
        open_split(tmp_path)
    with pytest.raises(EdgeMoEError, match=r"'nyud' has no labels for task 'human_parts'"):
        open_split(tmp_path, {"human_parts": 7})
    with pytest.raises(EdgeMoEError, match=r"'semseg' has 13 channels .* with 40 or 41"):
        open_split(tmp_path, {"semseg": 13})


def test_split_file_missing_or_empty_or_with_a_missing_picture(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "gt_sets/val.txt").unlink()
    with pytest.raises(EdgeMoEError, match=r"cannot read '.*val\.txt': No such file"):
        open_split(tmp_path, split="val")
    save_text(tmp_path / "gt_sets/val.txt", "\n")
    with pytest.raises(EdgeMoEError, match=r"split file '.*val\.txt' lists no images"):
        open_split(tmp_path, split="val")
    save_text(tmp_path / "gt_sets/val.txt", "1449\n")
    with pytest.raises(EdgeMoEError, match=r"image '.*1449\.jpg' of the val split of 'nyud' does not exist"):
        open_split(tmp_path, split="val")


def test_unknown_ids_and_values(tmp_path: Path) -> None:
    make_tree(tmp_path)
    save_png(tmp_path / "segmentation/0001.png", np.full(SIZE, 41, dtype=np.uint8))
    with pytest.raises(EdgeMoEError, match=r"0001\.png' has unknown ids 41: allowed are 0 to 40, 255\."):
        open_split(tmp_path, {"semseg": 40})[0]
    save_npy(tmp_path / "edge/0001.npy", np.full(SIZE, -1.0))
    with pytest.raises(EdgeMoEError, match=r"mask '.*0001\.npy' has the values -1: 0 and 1"):
        open_split(tmp_path, {"edge": 1})[0]


@pytest.mark.parametrize("task", ["semseg", "depth", "normals", "edge"])
def test_label_of_another_size(tmp_path: Path, task: str) -> None:
    make_tree(tmp_path)
    save_jpg(tmp_path / "images/0001.jpg", colors((4, 4)))
    with pytest.raises(
        EdgeMoEError, match=rf"{task} label '.*0001\.\w+' has 2 x 4.* values, but .* 4 x 4 pixels"
    ):
        open_split(tmp_path, {task: TASKS[task]})[0]


def test_normals_without_three_components(tmp_path: Path) -> None:
    make_tree(tmp_path)
    save_npy(tmp_path / "normals/0001.npy", np.zeros(SIZE))
    with pytest.raises(EdgeMoEError, match=r"normals '.*0001\.npy' have shape \(2, 4\)"):
        open_split(tmp_path)[0]


def test_truncated_picture(tmp_path: Path) -> None:
    make_tree(tmp_path)
    cut_short(tmp_path / "images/0001.jpg", 0.9)
    with pytest.raises(EdgeMoEError, match=r"images/0001\.jpg' is damaged or truncated"):
        open_split(tmp_path)[0]


# Files as people have them


def test_a_line_of_a_split_file_is_a_name(tmp_path: Path) -> None:
    make_tree(tmp_path)
    for path in tmp_path.glob("*/0001.*"):
        path.rename(path.with_stem("living room 1"))
    (tmp_path / "gt_sets/train.txt").write_bytes(b"\xef\xbb\xbfliving room 1 \r\n\r\n0007\r\n")
    data = open_split(tmp_path)
    assert [data.image_id(index) for index in range(len(data))] == ["living room 1", "0007"]
    assert set(data[0]) == {"image", *TASKS}
    (tmp_path / "gt_sets/train.txt").write_text("0007\n", encoding="utf-16")
    with pytest.raises(EdgeMoEError, match=r"train\.txt' is not UTF-8 text \(byte 0\): save it with"):
        open_split(tmp_path)


@pytest.mark.parametrize("stored", [PIXELS, NORMALS.transpose(2, 0, 1), NORMALS.astype(np.float64)])
def test_arrays_of_normals(tmp_path: Path, stored: np.ndarray) -> None:
    make_tree(tmp_path)
    save_npy(tmp_path / "normals/0001.npy", stored)
    np.testing.assert_allclose(open_split(tmp_path)[0]["normals"], NORMALS, atol=0.01)


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        (PIXELS.astype(np.float32), r"float32 values from 0 to 2\d\d"),
        (PIXELS.astype(np.int64), r"int64 values from 0 to 2\d\d"),
        (PIXELS / 255, r"float64 values from 0 to 0.9"),
    ],
)
def test_normals_in_another_range(tmp_path: Path, stored: np.ndarray, found: str) -> None:
    make_tree(tmp_path)
    save_npy(tmp_path / "normals/0001.npy", stored)
    with pytest.raises(EdgeMoEError, match=rf"normals '.*0001\.npy' have {found}.*: unit vectors"):
        open_split(tmp_path)[0]


def test_normals_of_one_channel(tmp_path: Path) -> None:
    make_tree(tmp_path, "png")
    save_png(tmp_path / "normals/0001.png", PIXELS[..., 0])
    with pytest.raises(EdgeMoEError, match="picture of mode L: three channels are needed"):
        open_split(tmp_path)[0]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_depth_in_millimetres(tmp_path: Path, dtype: type) -> None:
    make_tree(tmp_path)
    save_npy(tmp_path / "depth/0001.npy", np.full(SIZE, 2500, dtype))
    with pytest.raises(
        EdgeMoEError, match=r"depth '.*' has values up to 2500 \(.*\), but metres, at most 1000"
    ):
        open_split(tmp_path)[0]


def test_depth_of_other_dimensions(tmp_path: Path) -> None:
    make_tree(tmp_path)
    save_npy(tmp_path / "depth/0001.npy", np.ones((2, 4, 2)))
    with pytest.raises(EdgeMoEError, match=r"0001\.npy' has shape \(2, 4, 2\), but one value per pixel"):
        open_split(tmp_path)[0]


def test_paths_that_the_system_refuses(tmp_path: Path) -> None:
    make_tree(tmp_path)
    save_text(tmp_path / "gt_sets/train.txt", "x" * 5000)
    with pytest.raises(EdgeMoEError, match="File name too long"):
        open_split(tmp_path)
    with pytest.raises(EdgeMoEError, match="File name too long"):
        open_split(Path("x" * 5000))
    with pytest.raises(EdgeMoEError, match="cannot read '~nosuchuser/x'"):
        open_split(Path("~nosuchuser/x"))
