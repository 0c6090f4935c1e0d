# SPDX-License-Identifier: Apache-2.0
"""NYUD-v2 (Silberman et al., ECCV 2012) in the multi-task archive NYUD_MT.

The archive of Maninis et al. (CVPR 2019), in the re-issue of Vandenhende et al. that M3ViT uses
and in its other variants; where several extensions are given, any of them is read::

    gt_sets/{train,val}.txt          one ID per line
    images/ID.{jpg,png}
    segmentation/ID.{png,mat}        0 unlabelled, 1 to 40 the classes (MATLAB variable "segmentation")
    depth/ID.{npy,mat}               metres, 0 where there is none (MATLAB variable "depth")
    normals/ID.{npy,png,jpg}         floats, or 8 bits that store 255 * (n + 1) / 2
    edge/ID.{npy,png}                0 and 1, or 0 and 255

With 40 semseg channels, unlabelled pixels are ignored and classes count from 0, as in M3ViT; with
41, "unlabelled" is class 0. Normals keep the axes of the archive, whose in-plane axes are right
and down up to a common sign, so that mirroring and rotation are right either way.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_moe.data.base import (
    FileDataset,
    IndexMap,
    Split,
    archive_folder,
    binary_map,
    check_tasks,
    class_tables,
    clean_depth,
    first_existing,
    read_split,
)
from edge_moe.data.images import read_array, read_label, read_map, read_mask, read_mat_map
from edge_moe.data.sample import unit_normals
from edge_moe.tasks import IGNORE_LABEL
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.runtime.drawing import distinct_palette
from edge_moe_host.runtime.images import open_picture

CLASS_NAMES = tuple(class_tables("nyud")["names"])
KNOWN_TASKS = {
    "semseg": (len(CLASS_NAMES), len(CLASS_NAMES) + 1),
    "depth": (1,),
    "normals": (3,),
    "edge": (1,),
}
SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "semseg": ("segmentation", (".png", ".mat")),
    "depth": ("depth", (".npy", ".mat")),
    "normals": ("normals", (".npy", ".png", ".jpg")),
    "edge": ("edge", (".npy", ".png")),
}
# Shorter 8-bit normals are the grey (0, 0, 0) of a pixel without a normal, changed slightly by JPEG.
SHORTEST_NORMAL = 0.5
LENGTH_ERROR = 0.1


class NyudDataset(FileDataset):
    """One split of NYUD_MT; ``root`` is the archive's folder or the folder that contains it."""

    def __init__(self, root: Path, split: Split, tasks: Mapping[str, int]) -> None:
        checked = check_tasks("nyud", tasks, KNOWN_TASKS)
        content = "gt_sets/, images/, segmentation/, depth/, normals/, edge/"
        self.root = archive_folder(root, "NYUD_MT", "NYUD-v2", ("gt_sets", "images"), content)
        channels = checked.get("semseg", len(CLASS_NAMES))
        self.index_map = IndexMap(label_table(channels))
        super().__init__("nyud", split, checked, read_split(self.root / "gt_sets" / f"{split}.txt"))
        if "semseg" in checked:
            names = CLASS_NAMES if channels == len(CLASS_NAMES) else ("unlabelled", *CLASS_NAMES)
            self.class_names = {"semseg": names}
            # Black stays free for ignored pixels.
            self.palette = {"semseg": distinct_palette(len(CLASS_NAMES) + 1)[-channels:]}

    def image_path(self, identifier: str) -> Path:
        return first_existing(self.root / "images", identifier, (".jpg", ".png"))

    def label_path(self, task: str, identifier: str) -> Path:
        folder, suffixes = SOURCES[task]
        return first_existing(self.root / folder, identifier, suffixes)

    def read_label_of(
        self, task: str, path: Path, identifier: str, image_size: tuple[int, int]
    ) -> np.ndarray:
        if task == "normals":
            return read_normals(path)
        if path.suffix == ".mat":
            stored = read_mat_map(path, SOURCES[task][0])
        elif path.suffix == ".npy":
            stored = read_map(path)
        else:
            stored = read_mask(path) if task == "edge" else read_label(path)
        if task == "semseg":
            return self.index_map(path, stored)
        return clean_depth(path, stored) if task == "depth" else binary_map(path, stored)


def label_table(channels: int) -> dict[int, int]:
    """Stored id to class index for 40 classes (0 ignored) or 41 (0 is a class)."""
    offset = channels - len(CLASS_NAMES) - 1
    table = {stored: stored + offset for stored in range(1, len(CLASS_NAMES) + 1)}
    return {0: 0 if offset == 0 else IGNORE_LABEL, IGNORE_LABEL: IGNORE_LABEL, **table}


def read_normals(path: Path) -> np.ndarray:
    """Unit normals H x W x 3; zero where there is none.

    A file has floats from -1 to 1, or 8 bits (a picture, or uint8 in .npy) that store 255 * (n + 1) / 2, with
    grey where there is none.
    """
    if path.suffix == ".npy":
        stored = read_array(path)
    elif (picture := open_picture(path)).mode in ("RGB", "RGBA"):
        stored = np.array(picture.convert("RGB"))
    else:
        raise EdgeMoEError(
            f"normals '{path}' are a picture of mode {picture.mode}: three channels are needed."
        )
    if stored.ndim == 3 and stored.shape[0] == 3 != stored.shape[2]:
        stored = stored.transpose(1, 2, 0)
    if stored.ndim != 3 or stored.shape[2] != 3:
        raise EdgeMoEError(f"normals '{path}' have shape {stored.shape}, not (height, width, 3).")
    if stored.dtype == np.uint8:
        stored = stored * np.float32(2 / 255) - 1
    vectors = np.where(np.isfinite(stored).all(axis=2, keepdims=True), stored, 0)
    lengths = np.linalg.norm(vectors, axis=2)
    lengths = lengths[lengths >= SHORTEST_NORMAL]
    # (n + 1) / 2 in floats has no negative number, and lengths other than 1
    shifted = vectors.min(initial=0) >= 0 and len(lengths) and abs(np.median(lengths) - 1) > LENGTH_ERROR
    if np.abs(vectors).max(initial=0) > 1 + LENGTH_ERROR or shifted:
        raise EdgeMoEError(
            f"normals '{path}' have {stored.dtype} values from {vectors.min():g} to {vectors.max():g}: unit "
            "vectors of floats from -1 to 1 are needed, or 8 bits (uint8) that store 255 * (n + 1) / 2."
        )
    return unit_normals(vectors, SHORTEST_NORMAL)
