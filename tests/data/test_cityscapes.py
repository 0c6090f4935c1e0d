# SPDX-License-Identifier: Apache-2.0
"""Cityscapes: both layouts, classes and groups, depth, ignored pixels, wrong input."""

from pathlib import Path

import numpy as np
import pytest

from edge_moe.data import open_dataset
from edge_moe.data.base import TaskDataset
from edge_moe.data.cityscapes import CLASSES, GROUPS
from edge_moe.testing.trees import (
    cityscapes_arrays,
    cityscapes_official,
    colors,
    cut_short,
    save_npy,
    save_png,
)
from edge_moe_host.errors import EdgeMoEError

BOTH = {"semseg": 7, "depth": 1}

# By label id 0 to 33, as in the data set's label definition; 255 where it is left out.
TRAIN_IDS = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                         255, 255, 16, 17, 18]  # fmt: skip
GROUP_IDS = [255] * 7 + [0, 0, 255, 255, 1, 1, 1, 255, 255, 255, 2, 255, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6,
                         255, 255, 6, 6, 6]  # fmt: skip


def open_split(root: Path, tasks: dict[str, int], split: str = "train") -> TaskDataset:
    return open_dataset(f"cityscapes:{root}", split, tasks, (128, 256), 1, 1)


def all_labels() -> np.ndarray:
    """Ids 0 to 33 in a 5 x 7 map, the rest 0."""
    labels = np.zeros(35, dtype=np.uint8)
    labels[:34] = np.arange(34)
    return labels.reshape(5, 7)


@pytest.mark.parametrize(("channels", "expected"), [(19, TRAIN_IDS), (7, GROUP_IDS)])
def test_every_label_id_maps_to_its_class(tmp_path: Path, channels: int, expected: list[int]) -> None:
    data = open_split(cityscapes_official(tmp_path, all_labels()), {"semseg": channels})
    sample = data[0]
    assert set(sample) == {"image", "semseg"}
    assert sample["semseg"].dtype == np.uint8
    np.testing.assert_array_equal(sample["semseg"].ravel(), [*expected, 255])
    np.testing.assert_array_equal(sample["image"], colors((5, 7)))
    assert len(data.class_names["semseg"]) == channels
    assert data.palette["semseg"].shape == (channels, 3)


def test_names_and_colours_belong_together() -> None:
    assert [name for name, *_ in CLASSES].index("car") == 13
    assert GROUPS == ("flat", "construction", "object", "nature", "sky", "human", "vehicle")


def test_disparity_becomes_metres(tmp_path: Path) -> None:
    disparity = np.zeros((5, 7), dtype=np.uint16)
    disparity[0, :4] = [0, 1, 256 * 32 + 1, 256 * 64 + 1]
    disparity[0, 4] = 2  # 1/256 pixel: kilometres away, not a measurement
    sample = open_split(cityscapes_official(tmp_path, all_labels(), disparity), {"depth": 1})[0]
    assert sample["depth"].dtype == np.float32
    metres = 0.209313 * 2262.52  # at a disparity of one pixel
    np.testing.assert_allclose(sample["depth"][0], [0, 0, metres / 32, metres / 64, 0, 0, 0], rtol=1e-6)
    assert (sample["depth"][1:] == 0).all()


def test_camera_file_gives_baseline_and_focal_length(tmp_path: Path) -> None:
    disparity = np.full((5, 7), 256 * 10 + 1, dtype=np.uint16)
    camera = {"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": 1000.0, "fy": 1.0}}
    data = open_split(cityscapes_official(tmp_path, all_labels(), disparity, camera), {"depth": 1})
    assert data.depth_kind == "metric"
    np.testing.assert_allclose(data[0]["depth"], 20.0, rtol=1e-6)


def test_splits_and_cities_are_kept_apart_and_sorted(tmp_path: Path) -> None:
    for split, city, frame in (
        ("train", "ulm", "ulm_000001_000019"),
        ("train", "aachen", "aachen_000000_000019"),
        ("val", "lindau", "lindau_000000_000019"),
    ):
        cityscapes_official(tmp_path, all_labels(), split=split, city=city, frame=frame)
    train, val = (open_split(tmp_path, {"semseg": 7}, split) for split in ("train", "val"))
    assert [train.image_id(i) for i in range(len(train))] == ["aachen_000000_000019", "ulm_000001_000019"]
    assert [val.image_id(i) for i in range(len(val))] == ["lindau_000000_000019"]
    assert (train.name, train.split, val.split) == ("cityscapes", "train", "val")


def make_arrays(root: Path, **changes: np.ndarray) -> Path:
    arrays = {
        "image": np.linspace(0, 1, 24).reshape(2, 4, 3),
        "label_7": np.array([[-1, 0, 1, 2], [3, 4, 5, 6]]),
        "label_19": np.array([[-1, 0, 1, 2], [3, 16, 17, 18]], dtype=np.float32),
        "depth": np.array([[0, 0.1, 0.2, 0.3], [-1, np.nan, 0.4, 0.5]])[..., None],
    }
    return cityscapes_arrays(root, arrays | changes)


def test_arrays_are_read_with_minus_one_ignored(tmp_path: Path) -> None:
    make_arrays(tmp_path)
    data = open_split(tmp_path, BOTH)
    assert data.depth_kind == "inverse"
    sample = data[0]
    assert sample["image"].dtype == np.uint8
    np.testing.assert_array_equal(sample["image"], np.rint(np.linspace(0, 255, 24)).reshape(2, 4, 3))
    np.testing.assert_array_equal(sample["semseg"], [[255, 0, 1, 2], [3, 4, 5, 6]])
    np.testing.assert_allclose(sample["depth"], [[0, 0.1, 0.2, 0.3], [0, 0, 0.4, 0.5]], rtol=1e-6)
    fine = open_split(tmp_path, {"semseg": 19})[0]
    np.testing.assert_array_equal(fine["semseg"], [[255, 0, 1, 2], [3, 16, 17, 18]])


def test_arrays_are_ordered_by_number(tmp_path: Path) -> None:
    make_arrays(tmp_path)
    image, labels = np.load(tmp_path / "train/image/0.npy"), np.zeros((2, 4))
    for number in (10, 2):
        arrays = {"image": image, "label_7": labels, "label_19": labels, "depth": labels}
        cityscapes_arrays(tmp_path, arrays, number=number)
    data = open_split(tmp_path, BOTH)
    assert [data.image_id(i) for i in range(len(data))] == ["0", "2", "10"]


def test_missing_folder_and_other_layout(tmp_path: Path) -> None:
    with pytest.raises(EdgeMoEError, match=r"'.*/none' of 'cityscapes:.*' does not exist"):
        open_split(tmp_path / "none", BOTH)
    (tmp_path / "photos").mkdir()
    with pytest.raises(EdgeMoEError, match=r"leftImg8bit/.*label_7/.*found photos/\."):
        open_split(tmp_path, BOTH)
    with pytest.raises(EdgeMoEError, match="found nothing"):
        open_split(tmp_path / "photos", BOTH)


def test_unknown_specification_split_and_task(tmp_path: Path) -> None:
    for spec in ("kitti", "cityscapes", "cityscapes:", "scenes:here", "foo:bar"):
        with pytest.raises(EdgeMoEError, match=f"unknown data specification '{spec}'.*nyud:DIR"):
            open_dataset(spec, "train", BOTH, (128, 256), 1, 1)
    with pytest.raises(EdgeMoEError, match="unknown split 'test': known are train and val"):
        open_split(tmp_path, BOTH, "test")
    cityscapes_official(tmp_path, all_labels())
    with pytest.raises(EdgeMoEError, match=r"'cityscapes' has no labels for task 'edge'.*semseg, depth"):
        open_split(tmp_path, {"edge": 1})
    with pytest.raises(EdgeMoEError, match=r"'semseg' has 13 channels .* with 7 or 19"):
        open_split(tmp_path, {"semseg": 13})


def test_empty_split(tmp_path: Path) -> None:
    cityscapes_official(tmp_path / "a", all_labels())
    with pytest.raises(EdgeMoEError, match=r"val split of Cityscapes has no files .*leftImg8bit\.png"):
        open_split(tmp_path / "a", {"semseg": 7}, "val")
    make_arrays(tmp_path / "b")
    with pytest.raises(EdgeMoEError, match=r"val split of Cityscapes has no files .*N\.npy"):
        open_split(tmp_path / "b", BOTH, "val")


def test_absent_labels_are_found_when_opening(tmp_path: Path) -> None:
    cityscapes_official(tmp_path, all_labels())
    with pytest.raises(
        EdgeMoEError, match=r"depth label '.*_disparity\.png' .* does not exist: add it or leave"
    ):
        open_split(tmp_path, BOTH)
    next(tmp_path.glob("gtFine/*/*/*")).unlink()
    with pytest.raises(EdgeMoEError, match=r"semseg label '.*labelIds\.png'"):
        open_split(tmp_path, {"semseg": 7})


def test_label_of_another_size(tmp_path: Path) -> None:
    cityscapes_official(tmp_path, all_labels())
    save_png(next(tmp_path.glob("gtFine/*/*/*")), np.zeros((5, 8), dtype=np.uint8))
    with pytest.raises(
        EdgeMoEError, match=r"labelIds\.png' has 5 x 8 values, but .*leftImg8bit\.png' has 5 x 7"
    ):
        open_split(tmp_path, {"semseg": 7})[0]


def test_unknown_ids_are_named_with_the_allowed_ones(tmp_path: Path) -> None:
    labels = all_labels()
    labels[0, :2] = [77, 99]
    data = open_split(cityscapes_official(tmp_path / "a", labels), {"semseg": 7})
    with pytest.raises(
        EdgeMoEError, match=r"labelIds\.png' has unknown ids 77, 99: allowed are 0 to 33, 255\."
    ):
        data[0]
    make_arrays(tmp_path / "b", label_7=np.array([[7, 0.5, np.nan, 0], [-2, 0, 0, 255]]))
    with pytest.raises(EdgeMoEError, match=r"unknown ids -2, 0\.5, 7, nan: allowed are -1 to 6, 255\."):
        open_split(tmp_path / "b", {"semseg": 7})[0]


def test_damaged_files(tmp_path: Path) -> None:
    cityscapes_official(tmp_path / "a", all_labels(), np.zeros((5, 7), dtype=np.uint8))
    data = open_split(tmp_path / "a", {"depth": 1})
    with pytest.raises(EdgeMoEError, match=r"disparity\.png' has uint8 values, but 16 bits"):
        data[0]
    cut_short(next((tmp_path / "a").glob("leftImg8bit/*/*/*")))
    with pytest.raises(EdgeMoEError, match=r"leftImg8bit\.png' is damaged or truncated"):
        data[0]
    make_arrays(tmp_path / "b")
    cut_short(tmp_path / "b/train/depth/0.npy", 0.9)
    with pytest.raises(EdgeMoEError, match=r"depth/0\.npy' is damaged"):
        open_split(tmp_path / "b", BOTH)[0]
    save_npy(tmp_path / "b/train/image/0.npy", np.full((2, 4, 3), 255.0))
    with pytest.raises(EdgeMoEError, match=r"image/0\.npy' has values outside \[0, 1\]"):
        open_split(tmp_path / "b", BOTH)[0]
    save_npy(tmp_path / "b/train/image/0.npy", np.zeros((3, 2, 4)))
    with pytest.raises(EdgeMoEError, match=r"shape \(3, 2, 4\), not \(height, width, 3\)"):
        open_split(tmp_path / "b", BOTH)[0]


@pytest.mark.parametrize(
    "camera",
    [{"extrinsic": {}}, {"extrinsic": {"baseline": 0.0}, "intrinsic": {"fx": 1}}, ["wrong"]],
)
def test_bad_camera_file(tmp_path: Path, camera: object) -> None:
    disparity = np.full((5, 7), 9999, dtype=np.uint16)
    data = open_split(cityscapes_official(tmp_path, all_labels(), disparity, camera), {"depth": 1})  # type: ignore[arg-type]
    with pytest.raises(EdgeMoEError, match=r"camera file '.*_camera\.json' has"):
        data[0]


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    cityscapes_official(tmp_path, all_labels())
    for image in list(tmp_path.glob("leftImg8bit/*/*/*.png")):
        image.with_name(f"._{image.name}").write_bytes(b"of a Mac")
        (image.parent.parent / ".hidden").mkdir(exist_ok=True)
        (image.parent.parent / ".hidden" / image.name).write_bytes(b"of a Mac")
    data = open_split(tmp_path, {"semseg": 7})
    assert not [identifier for identifier in data.ids if "._" in identifier or ".hidden" in identifier]  # type: ignore[attr-defined]
    assert set(data[len(data) - 1]) == {"image", "semseg"}


def test_arrays_with_padded_numbers(tmp_path: Path) -> None:
    for number in (9, 10, 2):
        arrays = {
            "image": np.full((4, 6, 3), number / 10),
            "label_7": np.zeros((4, 6)),
            "depth": np.ones((4, 6)),
        }
        cityscapes_arrays(tmp_path, arrays, number=number)
    for path in list(tmp_path.glob("*/*/*.npy")):
        path.rename(path.with_stem(f"{int(path.stem):05d}"))
    data = open_split(tmp_path, BOTH)
    assert [data.image_id(index) for index in range(len(data))] == ["00002", "00009", "00010"]
    assert data[1]["image"].max() == round(0.9 * 255)
