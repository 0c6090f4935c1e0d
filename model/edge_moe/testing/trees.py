# SPDX-License-Identifier: Apache-2.0
"""Small data set trees with known contents, in the layouts that users have on disk."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image


def save_png(path: Path, values: np.ndarray) -> Path:
    """Write a uint8, uint16 or RGB array; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def save_palette_png(path: Path, indices: np.ndarray) -> Path:
    """Write an index image with a palette, as PASCAL VOC stores its label maps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([(37 * i) % 256 for i in range(768)])
    image.save(path)
    return path


def save_jpg(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, quality=100, subsampling=0)
    return path


def save_npy(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def save_mat(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, content)
    return path


def save_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def cut_short(path: Path, keep: float = 0.5) -> Path:
    """Truncate a file to a share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def colors(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A random uint8 picture."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def cityscapes_official(
    root: Path,
    labels: np.ndarray,
    disparity: np.ndarray | None = None,
    camera: Mapping[str, Any] | None = None,
    split: str = "train",
    city: str = "aachen",
    frame: str = "aachen_000000_000019",
) -> Path:
    """One frame of the official tree."""
    folder = f"{split}/{city}"
    save_png(root / "leftImg8bit" / folder / f"{frame}_leftImg8bit.png", colors(labels.shape))
    save_png(root / "gtFine" / folder / f"{frame}_gtFine_labelIds.png", labels)
    if disparity is not None:
        save_png(root / "disparity" / folder / f"{frame}_disparity.png", disparity)
    if camera is not None:
        save_text(root / "camera" / folder / f"{frame}_camera.json", json.dumps(camera))
    return root


def cityscapes_arrays(
    root: Path, arrays: Mapping[str, np.ndarray], split: str = "train", number: int = 0
) -> Path:
    """One frame of MTAN's tree; ``arrays`` has image, label_7, label_19 and depth."""
    for kind, values in arrays.items():
        save_npy(root / split / kind / f"{number}.npy", values)
    return root


def struct_array(records: Iterable[Mapping[str, Any]], fields: tuple[str, ...]) -> np.ndarray:
    """A 1 x N MATLAB structure array."""
    rows = list(records)
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in fields])
    for column, row in enumerate(rows):
        for name in fields:
            array[0, column][name] = row[name]
    return array


def pascal_parts(path: Path, objects: Iterable[Mapping[str, Any]]) -> Path:
    """A PASCAL-Part annotation; objects have class_ind, mask and parts {name: mask}."""
    records = []
    for item in objects:
        parts: Any = struct_array(
            [{"part_name": name, "mask": mask} for name, mask in item["parts"].items()], ("part_name", "mask")
        )
        records.append(
            {
                "class": "person" if item["class_ind"] == 15 else "other",
                "class_ind": item["class_ind"],
                "mask": item["mask"],
                "parts": parts if item["parts"] else np.zeros((0, 0)),
            }
        )
    array = struct_array(records, ("class", "class_ind", "mask", "parts"))
    return save_mat(path, {"anno": {"imname": path.stem, "objects": array if records else np.zeros((0, 0))}})
