# SPDX-License-Identifier: Apache-2.0
"""The interface of every data set: indexed samples, task channels, class names and colours."""

import itertools
import tomllib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from edge_moe.data.sample import IMAGE, Sample
from edge_moe.tasks import IGNORE_LABEL, TASKS
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.files import kind, read_text, visible
from edge_moe_host.runtime.drawing import DepthKind
from edge_moe_host.runtime.images import read_image

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
MAX_METRES = 1000  # of a depth; larger numbers are millimetres, or mean "none"


class TaskDataset(Dataset[Sample]):
    """A split of a data set as :data:`Sample` arrays at the data set's own resolution.

    Implementations set the attributes below in their constructor:

    ``name``        short name, as in the data specification
    ``split``       ``"train"`` or ``"val"``
    ``tasks``       tasks that this object delivers labels for, with their output channels
    ``class_names`` per task with classes, one name per class (binary tasks have no entry)
    ``palette``     per task with classes, uint8 C x 3 RGB
    ``depth_kind``  meaning of the depth array; see :data:`edge_moe_host.runtime.drawing.DepthKind`
    """

    name: str
    split: Split
    tasks: dict[str, int]
    class_names: dict[str, tuple[str, ...]]
    palette: dict[str, np.ndarray]
    depth_kind: DepthKind = "metric"

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples in the split."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Image and labels of one sample, as fresh arrays that the caller may change."""

    @abstractmethod
    def image_id(self, index: int) -> str:
        """Name of one sample, unique in the split and usable as a file name."""


class FileDataset(TaskDataset):
    """A data set of one image file and one label file per task and sample.

    The constructor checks that every file of the split exists; reading checks that labels have
    the size of their image.
    """

    def __init__(self, name: str, split: Split, tasks: Mapping[str, int], ids: Sequence[str]) -> None:
        self.name = name
        self.split = split
        self.tasks = dict(tasks)
        self.ids = list(ids)
        self.class_names = {}
        self.palette = {}
        for identifier in self.ids:
            image = self.image_path(identifier)
            if kind(image) != "file":
                raise EdgeMoEError(f"image '{image}' of the {split} split of '{name}' does not exist.")
            for task in self.tasks:
                label = self.label_path(task, identifier)
                if kind(label) != "file":
                    raise EdgeMoEError(
                        f"{task} label '{label}' of the {split} split of '{name}' does not exist: "
                        f"add it or leave {task} out of the model."
                    )

    @abstractmethod
    def image_path(self, identifier: str) -> Path:
        """File with the picture of a sample."""

    @abstractmethod
    def label_path(self, task: str, identifier: str) -> Path:
        """File of a sample's label for a task, whether it exists or not."""

    @abstractmethod
    def read_label_of(
        self, task: str, path: Path, identifier: str, image_size: tuple[int, int]
    ) -> np.ndarray:
        """The label as :mod:`edge_moe.tasks` defines it; ``image_size`` is (height, width)."""

    def read_picture(self, path: Path) -> np.ndarray:
        """The picture as uint8 H x W x 3, as stored: labels were drawn on the stored pixels."""
        return read_image(path, upright=False)

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, index: int) -> str:
        return self.ids[index].replace("/", "_")

    def __getitem__(self, index: int) -> Sample:
        identifier = self.ids[index]
        image_path = self.image_path(identifier)
        image = self.read_picture(image_path)
        height, width = image.shape[:2]
        sample: Sample = {IMAGE: image}
        for task in self.tasks:
            path = self.label_path(task, identifier)
            label = self.read_label_of(task, path, identifier, (height, width))
            if label.shape != ((height, width, 3) if TASKS[task].kind == "vector" else (height, width)):
                raise EdgeMoEError(
                    f"{task} label '{path}' has {' x '.join(map(str, label.shape))} values, "
                    f"but its image '{image_path}' has {height} x {width} pixels (height x width)."
                )
            sample[task] = np.ascontiguousarray(label)
        return sample


class IndexMap:
    """Translation of stored ids to class indices; an id outside the table is an error."""

    def __init__(self, table: Mapping[int, int]) -> None:
        self.table = dict(table)
        self.lowest = min(table)
        self.lookup = np.full(max(table) - self.lowest + 1, -1, dtype=np.int16)
        for stored, index in table.items():
            self.lookup[stored - self.lowest] = index

    def __call__(self, path: Path, labels: np.ndarray) -> np.ndarray:
        """uint8 indices of ``labels`` (integers of any type, also stored as floats) read from ``path``."""
        whole = labels.astype(np.int64) if labels.dtype.kind in "biu" else _whole_numbers(labels)
        positions = whole - self.lowest
        known = (positions >= 0) & (positions < len(self.lookup))
        indices = self.lookup[np.where(known, positions, 0)]
        wrong = ~known | (indices < 0)
        if wrong.any():
            values = np.unique(labels[wrong])
            shown = ", ".join(f"{value:g}" for value in values[:8]) + (", ..." if len(values) > 8 else "")
            raise EdgeMoEError(
                f"label map '{path}' has unknown ids {shown}: allowed are {_ranges(sorted(self.table))}."
            )
        return indices.astype(np.uint8)


def _whole_numbers(labels: np.ndarray) -> np.ndarray:
    """int64 values of floats; those that are not whole numbers become a value that no table has."""
    whole = np.isfinite(labels) & (np.abs(labels) < 2**31) & (np.floor(labels) == labels)
    return np.where(whole, np.where(whole, labels, 0).astype(np.int64), np.iinfo(np.int64).min // 2)


def _ranges(values: Sequence[int]) -> str:
    """Sorted integers as text, runs shortened: 0 to 33, 255."""
    groups = itertools.groupby(enumerate(values), lambda place: place[1] - place[0])
    runs = [[value for _, value in group] for _, group in groups]
    return ", ".join(f"{run[0]} to {run[-1]}" if run[1:] else str(run[0]) for run in runs)


def class_tables(dataset: str) -> dict[str, Any]:
    """The classes of a data set as ``classes.toml`` states them."""
    text = (resources.files("edge_moe.data") / "classes.toml").read_text(encoding="utf-8")
    tables: dict[str, Any] = tomllib.loads(text)[dataset]
    return tables


def clean_depth(path: Path, stored: np.ndarray, depth_kind: DepthKind = "metric") -> np.ndarray:
    """float32 H x W; values that are not positive numbers become 0 (no measurement).

    An error for metric depths that cannot be metres.
    """
    with np.errstate(over="ignore"):
        depth = stored.astype(np.float32)
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
    if depth_kind == "metric" and depth.max(initial=0) > MAX_METRES:
        raise EdgeMoEError(
            f"depth '{path}' has values up to {depth.max():g} ({stored.dtype}), but metres, at most "
            f"{MAX_METRES}, are expected: divide millimetres by 1000, and store 0 where nothing was measured."
        )
    return depth


def binary_map(path: Path, stored: np.ndarray) -> np.ndarray:
    """uint8 map of 0, 1 and 255 (unknown) from a mask in one of the usual forms.

    They are 0 and 1, also with 255 for unknown pixels; 0 and 255 (or 65535); probabilities; grey,
    cut in half.
    """
    levels = np.unique(stored)
    top = levels[-1] if len(levels) else 0
    if top <= 1 and (not len(levels) or levels[0] >= 0):
        return (stored > 0.5).astype(np.uint8)
    if set(levels.tolist()) in ({0, 1, IGNORE_LABEL}, {1, IGNORE_LABEL}):
        return stored.astype(np.uint8)
    full = 65535 if stored.dtype == np.uint16 and top > 255 else 255
    # NaN, which sorts last, fails the comparison; few and small values are ids of something else
    if not (levels[0] >= 0 and top <= full) or (len(levels) <= 3 and top <= full // 2):
        shown = ", ".join(f"{level:g}" for level in levels[:4]) + (
            f", ... {top:g}" if len(levels) > 4 else ""
        )
        raise EdgeMoEError(
            f"mask '{path}' has the values {shown}: 0 and 1, with 255 for unknown pixels, or 0 and 255, or "
            "grey from 0 to 255 are needed."
        )
    return (stored > full / 2).astype(np.uint8)


def read_split(path: Path) -> list[str]:
    """Identifiers listed in a split file, one per line; an error for a missing or empty file."""
    lines = [line.strip() for line in read_text(path).split("\n")]
    if not any(lines):
        raise EdgeMoEError(f"split file '{path}' lists no images.")
    return [line for line in lines if line]


def folder_content(folder: Path, limit: int = 8) -> str:
    """The content of a folder, for error messages."""
    names = [path.name + ("/" if kind(path) == "folder" else "") for path in visible(folder)]
    if not names:
        return "nothing"
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def archive_folder(root: Path, name: str, dataset: str, folders: Sequence[str], content: str) -> Path:
    """``root`` or its folder ``name``; an error for one without ``folders``. ``content``: all that it has."""
    root = root / name if kind(root / name) == "folder" else root
    if any(kind(root / folder) != "folder" for folder in folders):
        raise EdgeMoEError(
            f"'{root}' holds {dataset} in no known layout: known is the {name} archive ({content}); "
            f"found {folder_content(root)}."
        )
    return root


def first_existing(folder: Path, stem: str, suffixes: Sequence[str]) -> Path:
    """The first file FOLDER/STEM + suffix that exists, or the first candidate if there is none."""
    candidates = [folder / (stem + suffix) for suffix in suffixes]
    return next((path for path in candidates if kind(path) == "file"), candidates[0])


def check_split(split: str) -> Split:
    """``split`` itself, or an error that names the two splits."""
    for known in SPLITS:
        if split == known:
            return known
    raise EdgeMoEError(f"unknown split '{split}': known are {' and '.join(SPLITS)}.")


def check_tasks(
    dataset: str, wanted: Mapping[str, int], known: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """The wanted tasks as a dict; an error for one without labels or with an impossible class count.

    ``known`` gives, for each task with labels, the numbers of channels that the labels allow.
    """
    for task, channels in wanted.items():
        if task not in known:
            raise EdgeMoEError(
                f"data set '{dataset}' has no labels for task '{task}': it has {', '.join(known)}; "
                "choose another data set or leave the task out of the model."
            )
        if channels not in known[task]:
            allowed = " or ".join(str(count) for count in known[task])
            raise EdgeMoEError(
                f"task '{task}' has {channels} channels in the model, "
                f"but data set '{dataset}' labels it with {allowed}."
            )
    return dict(wanted)
