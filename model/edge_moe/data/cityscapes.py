# SPDX-License-Identifier: Apache-2.0
"""Cityscapes (Cordts et al., CVPR 2016) in its official tree and in MTAN's tree of .npy files.

Official tree, full resolution, ``depth_kind = "metric"``::

    leftImg8bit/{train,val}/CITY/ID_leftImg8bit.png
    gtFine/{train,val}/CITY/ID_gtFine_labelIds.png
    disparity/{train,val}/CITY/ID_disparity.png      16 bits: 0 invalid, else 256 * disparity + 1
    camera/{train,val}/CITY/ID_camera.json           optional: baseline and focal length

MTAN's tree (Liu et al., CVPR 2019), 128 x 256 or 256 x 512, ``depth_kind = "inverse"``::

    {train,val}/image/N.npy                          float H x W x 3 in [0, 1]
    {train,val}/label_7/N.npy, label_19/N.npy        -1 ignored, else the class
    {train,val}/depth/N.npy                          normalised disparity, no unit; 0 invalid

The number of semseg channels chooses between the 7 groups and the 19 classes. Ids that the
official evaluation leaves out (void, but also parking, caravan, ...) are ignored in both.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_moe.data.base import (
    FileDataset,
    IndexMap,
    Split,
    TaskDataset,
    check_tasks,
    class_tables,
    clean_depth,
    folder_content,
)
from edge_moe.data.images import read_array, read_label, read_map
from edge_moe.tasks import IGNORE_LABEL
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import kind, read_text, visible

_TABLES = class_tables("cityscapes")
CLASSES: list[tuple[str, int, str, tuple[int, int, int]]] = _TABLES["classes"]
GROUPS = tuple(_TABLES["groups"])
LABEL_IDS = 34  # ids in gtFine images are 0 to 33

# Of the recording car, for trees without camera files.
DEFAULT_BASELINE = 0.209313  # metres
DEFAULT_FOCAL = 2262.52  # pixels, at the width of 2048

# Semi-global matching is accurate to about a quarter of a pixel. Beyond this distance (disparity under
# 2 pixels) the depth has an error of hundreds of metres and counts as not measured.
MAX_DEPTH = 250.0  # metres

KNOWN_TASKS = {"semseg": (len(GROUPS), len(CLASSES)), "depth": (1,)}
LAYOUTS = (
    "the official tree (leftImg8bit/, gtFine/, disparity/) and MTAN's .npy tree "
    "(train/ and val/, each with image/, label_7/ or label_19/, depth/)"
)


def open_cityscapes(root: Path, split: Split, tasks: Mapping[str, int]) -> TaskDataset:
    """Open a split in whichever of the two layouts ``root`` has."""
    checked = check_tasks("cityscapes", tasks, KNOWN_TASKS)
    if kind(root / "leftImg8bit") == "folder":
        return CityscapesDataset(root, split, checked)
    if any(kind(root / name / "image") == "folder" for name in ("train", "val")):
        return CityscapesArrays(root, split, checked)
    raise EdgeMoEError(
        f"'{root}' holds Cityscapes in no known layout: known are {LAYOUTS}; found {folder_content(root)}."
    )


def class_names(channels: int) -> tuple[str, ...]:
    """Names of the 7 groups or the 19 classes."""
    return GROUPS if channels == len(GROUPS) else tuple(name for name, *_ in CLASSES)


def palette(channels: int) -> np.ndarray:
    """uint8 C x 3 RGB, the official colours; a group has the colour of its first class."""
    if channels == len(CLASSES):
        return np.array([color for *_, color in CLASSES], dtype=np.uint8)
    first = {group: color for _, _, group, color in reversed(CLASSES)}
    return np.array([first[group] for group in GROUPS], dtype=np.uint8)


def label_table(channels: int) -> dict[int, int]:
    """Label id to class index (or 255) for 7 groups or 19 classes."""
    table = dict.fromkeys((*range(LABEL_IDS), IGNORE_LABEL), IGNORE_LABEL)
    for index, (_, label, group, _) in enumerate(CLASSES):
        table[label] = index if channels == len(CLASSES) else GROUPS.index(group)
    return table


def _visible(folder: Path) -> list[Path]:
    return visible(folder) if kind(folder) == "folder" else []


class _Cityscapes(FileDataset):
    """The common part of the two layouts."""

    def __init__(
        self, root: Path, split: Split, tasks: Mapping[str, int], ids: list[str], pattern: str
    ) -> None:
        if not ids:
            raise EdgeMoEError(f"the {split} split of Cityscapes has no files '{pattern}'.")
        self.root, self.split = root, split
        super().__init__("cityscapes", split, tasks, ids)
        if "semseg" in tasks:
            self.class_names = {"semseg": class_names(tasks["semseg"])}
            self.palette = {"semseg": palette(tasks["semseg"])}


class CityscapesDataset(_Cityscapes):
    """The official tree; depth in metres from disparity, 0 where there is none or beyond MAX_DEPTH."""

    def __init__(self, root: Path, split: Split, tasks: Mapping[str, int]) -> None:
        folder = root / "leftImg8bit" / split
        suffix = "_leftImg8bit.png"
        found = [path for city in _visible(folder) for path in _visible(city) if path.name.endswith(suffix)]
        ids = sorted(f"{path.parent.name}/{path.name.removesuffix(suffix)}" for path in found)
        self.index_map = IndexMap(label_table(tasks["semseg"])) if "semseg" in tasks else None
        super().__init__(root, split, tasks, ids, f"{folder}/CITY/*{suffix}")

    def image_id(self, index: int) -> str:
        return self.ids[index].partition("/")[2]

    def _path(self, kind: str, identifier: str, suffix: str) -> Path:
        return self.root / kind / self.split / (identifier + suffix)

    def image_path(self, identifier: str) -> Path:
        return self._path("leftImg8bit", identifier, "_leftImg8bit.png")

    def label_path(self, task: str, identifier: str) -> Path:
        if task == "semseg":
            return self._path("gtFine", identifier, "_gtFine_labelIds.png")
        return self._path("disparity", identifier, "_disparity.png")

    def read_label_of(
        self, task: str, path: Path, identifier: str, image_size: tuple[int, int]
    ) -> np.ndarray:
        stored = read_label(path)
        if task == "semseg":
            assert self.index_map is not None
            return self.index_map(path, stored)
        if stored.dtype != np.uint16:
            raise EdgeMoEError(f"disparity map '{path}' has {stored.dtype} values, but 16 bits are needed.")
        disparity = (stored.astype(np.float32) - 1) / 256
        baseline, focal = self._camera(identifier)
        # Values 0 (invalid) and 1 (disparity zero, infinitely far) have no depth.
        measured = disparity > baseline * focal / MAX_DEPTH
        return np.where(measured, baseline * focal / np.where(measured, disparity, 1), 0).astype(np.float32)

    def _camera(self, identifier: str) -> tuple[float, float]:
        """Baseline in metres and focal length in pixels."""
        path = self._path("camera", identifier, "_camera.json")
        if kind(path) != "file":
            return DEFAULT_BASELINE, DEFAULT_FOCAL
        try:
            data = json.loads(read_text(path))
            baseline, focal = float(data["extrinsic"]["baseline"]), float(data["intrinsic"]["fx"])
        except (ValueError, KeyError, TypeError) as error:
            raise EdgeMoEError(
                f"camera file '{path}' has no numbers extrinsic.baseline and intrinsic.fx: {error!r}."
            ) from None
        if not (baseline > 0 and focal > 0):
            raise EdgeMoEError(f"camera file '{path}' has baseline {baseline} and fx {focal}, not positive.")
        return baseline, focal


class CityscapesArrays(_Cityscapes):
    """MTAN's tree of .npy files; depth is normalised disparity, 0 where there is none."""

    depth_kind = "inverse"

    def __init__(self, root: Path, split: Split, tasks: Mapping[str, int]) -> None:
        folder = root / split / "image"
        names = [path.stem for path in _visible(folder) if path.suffix == ".npy" and path.stem.isdecimal()]
        channels = tasks.get("semseg", 0)
        table = {-1: IGNORE_LABEL, IGNORE_LABEL: IGNORE_LABEL} | {index: index for index in range(channels)}
        self.index_map = IndexMap(table)
        super().__init__(root, split, tasks, sorted(names, key=int), f"{folder}/N.npy")

    def image_path(self, identifier: str) -> Path:
        return self.root / self.split / "image" / f"{identifier}.npy"

    def label_path(self, task: str, identifier: str) -> Path:
        kind = f"label_{self.tasks['semseg']}" if task == "semseg" else "depth"
        return self.root / self.split / kind / f"{identifier}.npy"

    def read_picture(self, path: Path) -> np.ndarray:
        values = read_array(path)
        if values.ndim != 3 or values.shape[2] != 3:
            raise EdgeMoEError(f"image '{path}' has shape {values.shape}, not (height, width, 3).")
        pixels = np.rint(values.astype(np.float32) * 255)
        if not ((pixels >= 0) & (pixels <= 255)).all():
            raise EdgeMoEError(f"image '{path}' has values outside [0, 1], the range of MTAN's arrays.")
        return pixels.astype(np.uint8)

    def read_label_of(
        self, task: str, path: Path, identifier: str, image_size: tuple[int, int]
    ) -> np.ndarray:
        values = read_map(path)
        return (
            self.index_map(path, values) if task == "semseg" else clean_depth(path, values, self.depth_kind)
        )
